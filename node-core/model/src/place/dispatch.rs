//! Which job goes where: the longest first, each to where it is expected to finish earliest.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::events::Action;
use super::submitter::{Key, Run, State, Submitter, Travel};
use super::{EXPECT_PEER, RACE_AGE_MIN};
use crate::ids::{JobId, NodeId};
use crate::reason::Reason;

/// Jobs that fit into no free slot (memory, failed there before) are passed over; so many per event, to bound its cost.
const PASSED_OVER_MAX: usize = 32;
/// A job waits for a busy peer, although a slower one is free, if it is expected to be done that much earlier.
const HOLD_BACK_MARGIN: f64 = 1.2;
/// A second copy is started if it is expected to be done that much earlier than the first.
const RACE_MARGIN: f64 = 1.2;

/// How many jobs wait for each busy peer by choice.
type Line = BTreeMap<NodeId, u32>;

/// The pool with the eyes of one job.
#[derive(Debug, Default)]
struct Survey {
    /// The best free slot and the expected time until the result.
    best: Option<(Duration, NodeId)>,
    /// The same of the best slot that has to be waited for.
    next: Option<(Duration, NodeId)>,
    /// Some peer could take it, now or later.
    suitable: bool,
    /// Some suitable peer promises slots.
    granted: bool,
    /// Some peer with the toolchain has a free slot, suitable or not.
    any_free: bool,
}

/// What became of a waiting job.
enum Fate {
    /// It is on its way.
    Placed,
    /// It stays in its queue.
    Waits {
        /// One behind it could still be placed.
        look_on: bool,
    },
}

impl Submitter {
    /// Places everything that can be placed.
    pub(super) fn dispatch(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.settle_burnt(now, actions);
        while self.local_running < self.config.local_slots {
            let Some(&(_, id)) = self.home.first() else { break };
            let State::Home(reason) = self.jobs[&id].state.clone() else { break };
            self.run_here(now, id, false, reason, actions);
        }
        self.place_waiting(now, actions);
    }

    /// Sends home, or lets fail, jobs that failed on every peer that they could still go to.
    fn settle_burnt(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let expected = self.is_peer_expected(now);
        for id in self.burnt.iter().copied().collect::<Vec<_>>() {
            let Some((job, travel)) = self.jobs.get(&id).and_then(|job| Some((job, job.travel.as_ref()?))) else {
                continue;
            };
            let survey = self.survey(now, travel, None, &Line::new());
            let waited = now.saturating_sub(job.since);
            let patience = if travel.may_local { self.config.slot_wait } else { self.config.strict_wait };
            let forsaken = !survey.suitable && (waited >= EXPECT_PEER || travel.may_local && !expected);
            if forsaken || !survey.granted && waited >= patience {
                let reason = travel.last_reason.clone().unwrap_or(Reason::NoPeers);
                self.dequeue(id);
                self.send_home(now, id, reason, actions);
            }
        }
    }

    /// Goes through the queues, always at the most urgent job of all.
    fn place_waiting(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let mut cursors: Vec<Option<Bound<Key>>> = vec![Some(Bound::Unbounded); self.queues.len()];
        let mut passed_over = 0;
        let mut line = Line::new();
        loop {
            let head = |(index, cursor): (usize, &Option<Bound<Key>>)| {
                let range = self.queues[index].keys.range(((*cursor)?, Bound::Unbounded));
                range.into_iter().next().map(|key| (*key, index))
            };
            let Some((key, index)) = cursors.iter().enumerate().filter_map(head).min() else { break };
            let Fate::Waits { look_on } = self.place(now, key.2, &mut line, actions) else { continue };
            passed_over += 1;
            let go_on = look_on && passed_over < PASSED_OVER_MAX;
            let first_miss = matches!(cursors[index], Some(Bound::Unbounded));
            cursors[index] = go_on.then_some(Bound::Excluded(key));
            if first_miss && self.queues[index].strict > 0 {
                self.fail_strict(now, index, actions);
            }
        }
    }

    /// Places one waiting job, or lets it wait on.
    fn place(&mut self, now: Duration, id: JobId, line: &mut Line, actions: &mut Vec<Action>) -> Fate {
        let travel = self.jobs[&id].travel.as_ref().expect("only travelling jobs are in queues");
        let survey = self.survey(now, travel, None, line);
        let free_here = self.local_running < self.config.local_slots;
        let slot_here = travel.may_local && free_here;
        let choice_here = slot_here && self.local_choices < self.config.local_compiles;
        let finish_here = choice_here.then(|| self.local_speed.time(travel.predicted));
        let soonest = finish_here.into_iter().chain(survey.best.map(|(finish, _)| finish)).min();
        if let (Some(now_finish), Some((later_finish, busy))) = (soonest, survey.next)
            && later_finish.mul_f64(HOLD_BACK_MARGIN) < now_finish
            // Never longer than the slow way takes: then waiting costs at most twice as much, if the guess was wrong.
            && now < travel.held_back.unwrap_or(now) + now_finish
        {
            *line.entry(busy).or_default() += 1;
            let travel = self.jobs.get_mut(&id).and_then(|job| job.travel.as_mut());
            travel.expect("looked at above").held_back.get_or_insert(now);
            return Fate::Waits { look_on: true };
        }
        if let Some((finish, peer)) = survey.best {
            if finish_here.is_some_and(|here| here <= finish) {
                self.run_here(now, id, true, Reason::FasterHere, actions);
            } else {
                self.send(now, id, peer, finish, actions);
            }
            return Fate::Placed;
        }
        let queue = &self.queues[travel.queue];
        // Slots of peers that it does not fit into are no reason to wait on.
        let starved_from = if queue.granted { self.jobs[&id].since } else { queue.starved_from() };
        let starved = now >= starved_from + self.config.slot_wait;
        let expected = self.is_peer_expected(now) && now < starved_from + EXPECT_PEER;
        let forsaken = !survey.suitable && !expected;
        let reason = if survey.suitable { Reason::NoFreeSlot } else { self.why_unsuitable(travel) };
        if choice_here && (survey.suitable || forsaken) {
            self.run_here(now, id, true, reason, actions);
        } else if slot_here && (forsaken || survey.suitable && !survey.granted && starved) {
            self.run_here(now, id, false, reason, actions);
        } else {
            // Behind one that must not run here may be one that may.
            return Fate::Waits { look_on: survey.any_free || free_here && !slot_here };
        }
        Fate::Placed
    }

    /// Lets those jobs of a queue fail that must not run here and waited in vain.
    fn fail_strict(&mut self, now: Duration, index: usize, actions: &mut Vec<Action>) {
        let queue = &self.queues[index];
        let from = queue.starved_from();
        let nobody = self.peers.values().all(|peer| !peer.up);
        let patience = if nobody { EXPECT_PEER } else { self.config.strict_wait };
        let mut failed = Vec::new();
        for key in &queue.keys {
            let job = &self.jobs[&key.2];
            let travel = job.travel.as_ref().expect("only travelling jobs are in queues");
            if travel.may_local || now < job.since + patience {
                continue;
            }
            let survey = self.survey(now, travel, None, &Line::new());
            // Slots of peers that it does not fit into are no reason to wait on.
            if !survey.granted && (queue.granted || now >= from + patience) {
                failed.push((key.2, if survey.suitable { Reason::NoFreeSlot } else { self.why_unsuitable(travel) }));
            }
        }
        for (id, reason) in failed {
            self.dequeue(id);
            self.send_home(now, id, reason, actions);
        }
    }

    fn survey(&self, now: Duration, travel: &Travel, besides: Option<NodeId>, line: &Line) -> Survey {
        let mut survey = Survey::default();
        let mut best: Option<(Duration, u64, NodeId)> = None;
        for (id, peer) in self.peers.iter().filter(|(_, peer)| peer.can_serve(self.config.arch, travel.queue)) {
            let free = peer.has_free(now);
            survey.any_free |= free;
            if !travel.may_go_to(*id) || besides == Some(*id) || !peer.fits(travel.memory_bytes) {
                continue;
            }
            survey.suitable = true;
            survey.granted |= peer.grants(now);
            if free && peer.has_memory(travel.memory_bytes) {
                let candidate = (peer.finish(travel.predicted, travel.missing(*id)), peer.tie, *id);
                best = Some(best.map_or(candidate, |best| best.min(candidate)));
            } else if peer.grants(now) && !peer.out.is_empty() {
                let others = line.get(id).copied().unwrap_or(0);
                let wait = peer.wait(now, others, self.typical);
                let candidate = (wait + peer.finish(travel.predicted, travel.missing(*id)), *id);
                survey.next = Some(survey.next.map_or(candidate, |next| next.min(candidate)));
            }
        }
        survey.best = best.map(|(finish, _, id)| (finish, id));
        survey
    }

    /// The reason that a person can do something about.
    fn why_unsuitable(&self, travel: &Travel) -> Reason {
        let up = || self.peers.values().filter(|peer| peer.up);
        let can_serve = || up().filter(|peer| peer.can_serve(self.config.arch, travel.queue));
        if up().next().is_none() {
            travel.last_reason.clone().unwrap_or(Reason::NoPeers)
        } else if !up().any(|peer| self.config.arch.runs_on(peer.facts.arch)) {
            Reason::ArchMismatch
        } else if can_serve().next().is_none() {
            Reason::ToolchainNotSynced
        } else if !can_serve().any(|peer| peer.fits(travel.memory_bytes)) {
            Reason::OutOfMemory
        } else {
            travel.last_reason.clone().unwrap_or(Reason::NoFreeSlot)
        }
    }

    fn is_peer_expected(&self, now: Duration) -> bool {
        self.peers.values().any(|peer| !peer.up && peer.expected_until > now)
    }

    fn run_here(&mut self, now: Duration, id: JobId, choice: bool, reason: Reason, actions: &mut Vec<Action>) {
        self.dequeue(id);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.state = State::Here { choice, since: now };
            self.local_running += 1;
            self.local_choices += u32::from(choice);
            actions.push(Action::RunLocal { job: id, reason });
        }
    }

    fn send(&mut self, now: Duration, id: JobId, to: NodeId, expected: Duration, actions: &mut Vec<Action>) {
        self.dequeue(id);
        let run = Run { peer: to, sent_at: now };
        let (Some(job), Some(peer)) = (self.jobs.get_mut(&id), self.peers.get_mut(&to)) else { return };
        let Some(travel) = &job.travel else { return };
        job.state = match job.state {
            State::Out(first, None) => State::Out(first, Some(run)),
            _ => State::Out(run, None),
        };
        self.queues[travel.queue].out += 1;
        let ping = peer.add(now, id, now + expected, travel.memory_bytes);
        actions.push(Action::Send { job: id, peer: to });
        if ping {
            peer.pinged(now);
            actions.push(Action::Ping { peer: to });
        }
    }

    /// When nothing waits any more, free slots take a second copy of the jobs that are expected last; the first result
    /// wins (FASTBuild's races, Dean and Barroso's hedged requests).
    pub(super) fn race(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.waiting() > 0 {
            return;
        }
        let remaining = |id: JobId| {
            let job = self.jobs.get(&id)?;
            let State::Out(run, None) = job.state else { return None };
            let (peer, travel) = (self.peers.get(&run.peer)?, job.travel.as_ref()?);
            let age = now.saturating_sub(run.sent_at);
            // What is known of its speed now; and an overdue run is expected to take half as long again as it has.
            let expected = peer.speed.time(travel.predicted).saturating_sub(age).max(age / 2);
            let left = if peer.paused_since.is_some() { Duration::MAX } else { expected };
            (age >= RACE_AGE_MIN).then_some((left, id, run.peer))
        };
        let out = self.peers.values().flat_map(|peer| peer.out.keys());
        let mut slow: Vec<_> = out.filter_map(|id| remaining(*id)).collect();
        slow.sort_unstable_by(|a, b| b.cmp(a));
        for (left, id, at) in slow {
            let Some(travel) = self.jobs.get(&id).and_then(|job| job.travel.as_ref()) else { continue };
            let Some((finish, peer)) = self.survey(now, travel, Some(at), &Line::new()).best else { continue };
            if finish.mul_f64(RACE_MARGIN) < left {
                self.send(now, id, peer, finish, actions);
            }
        }
    }
}
