//! How many slots a submitter asks of whom: enough for its jobs and a few more, of the best peers first, so that it
//! does not hoard what others need.

use std::time::Duration;

use super::DEMAND_LINGER;
use super::events::Action;
use super::peer::Peer;
use super::submitter::Submitter;
use crate::ids::NodeId;
use crate::limits::JOBS_PER_PEER_MAX;

/// Demands are multiples of this, so that not every job changes them.
const DEMAND_STEP: u32 = 4;
/// Time in which an answer to a demand is expected; until then it counts as granted.
const ANSWER_WAIT: Duration = Duration::from_millis(200);
/// Finish times closer than this are equal when peers are ranked, or the rank would change with every job.
const RANK_STEP_MS: u128 = 50;
/// The job by which peers are compared.
const RANK_JOB: Duration = Duration::from_secs(1);

/// Slots that all peers together should have, and whom to ask first.
#[derive(Debug, Default)]
pub(super) struct Need {
    /// The highest need in the current and in the last period of [`DEMAND_LINGER`].
    highest: [u32; 2],
    /// At the last look.
    current: u32,
    period_at: Duration,
    /// Peers from best to worst; empty: to be ranked.
    order: Vec<NodeId>,
    ordered_at: Duration,
}

impl Need {
    pub(super) fn order_stale(&mut self) {
        self.order.clear();
    }

    /// When a need that was higher is to be forgotten. While it is as high as ever there is nothing to wake for.
    pub(super) fn wake(&self) -> Option<Duration> {
        (self.highest[0].max(self.highest[1]) > self.current).then_some(self.period_at + DEMAND_LINGER)
    }

    /// The highest need of late.
    fn update(&mut self, now: Duration, need: u32) -> u32 {
        let periods = now.saturating_sub(self.period_at).as_nanos() / DEMAND_LINGER.as_nanos();
        if periods > 0 {
            self.highest = [0, if periods == 1 { self.highest[0] } else { 0 }];
            self.period_at = now;
        }
        self.current = need;
        self.highest[0] = self.highest[0].max(need);
        self.highest[0].max(self.highest[1])
    }
}

/// When a falling demand is to be told.
pub(super) fn wake(peer: &Peer) -> Option<Duration> {
    peer.demand_low_since.map(|since| since + DEMAND_LINGER)
}

impl Submitter {
    /// Tells peers what changed.
    pub(super) fn ask(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let waiting: usize = self.queues.iter().map(|queue| queue.keys.len()).sum();
        let out: u32 = self.queues.iter().map(|queue| queue.out).sum();
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let need = self.need.update(now, out.saturating_add(waiting));
        // A quarter more than waits, so that a credit is there when a job becomes ready.
        let mut remaining = if need == 0 { 0 } else { (need - out).saturating_add(waiting / 4 + 1) };
        if self.need.order.is_empty() || now >= self.need.ordered_at + DEMAND_LINGER {
            self.rank(now);
        }
        let linger = now.saturating_sub(DEMAND_LINGER * 8);
        for id in &self.need.order {
            let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.up) else { continue };
            let useful = |(index, queue): (usize, &super::submitter::Queue)| {
                queue.active_at >= linger && peer.can_serve(self.config.arch, index)
            };
            let cap = peer.facts.slots_max.max(peer.credits).min(JOBS_PER_PEER_MAX as u32);
            let more = if self.queues.iter().enumerate().any(useful) { remaining } else { 0 };
            let out = peer.out.len() as u32;
            let wanted = out.saturating_add(more);
            let wanted = wanted.checked_next_multiple_of(DEMAND_STEP).unwrap_or(wanted).min(cap);
            let answered = peer.demand_sent >= wanted && now >= peer.demand_at + ANSWER_WAIT;
            let slots = if answered { peer.credits.min(wanted) } else { wanted };
            remaining -= remaining.min(slots.saturating_sub(out));
            if let Some(slots) = changed(peer, now, wanted) {
                actions.push(Action::Demand { peer: *id, slots });
            }
        }
    }

    fn rank(&mut self, now: Duration) {
        let finish = |peer: &Peer| (peer.transit(0) + peer.speed.time(RANK_JOB)).as_millis() / RANK_STEP_MS;
        let mut order: Vec<_> =
            self.peers.iter().filter(|(_, peer)| peer.up).map(|(id, peer)| (finish(peer), peer.tie, *id)).collect();
        order.sort_unstable();
        self.need.order.clear();
        self.need.order.extend(order.into_iter().map(|(_, _, id)| id));
        self.need.ordered_at = now;
    }
}

/// The demand to tell, if it changed: a rise at once, a fall when it lasts.
fn changed(peer: &mut Peer, now: Duration, wanted: u32) -> Option<u32> {
    if wanted >= peer.demand_sent {
        peer.demand_low_since = None;
        if wanted == peer.demand_sent {
            return None;
        }
    } else if now < *peer.demand_low_since.get_or_insert(now) + DEMAND_LINGER {
        return None;
    }
    (peer.demand_sent, peer.demand_at, peer.demand_low_since) = (wanted, now, None);
    Some(wanted)
}
