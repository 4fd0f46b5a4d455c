//! Members that were cut off because they flooded: each has to stay away for a time, which grows with every repetition.
//! And how often a member may connect at all, since each handshake costs a millisecond of CPU.

use std::collections::HashMap;
use std::time::Duration;

use crate::ids::NodeId;

/// The first time away ...
const FIRST: Duration = Duration::from_secs(10);
/// ... doubled for each that follows, up to this.
const LONGEST: Duration = Duration::from_secs(600);
/// After so long without a flood the next one is a first one.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// Connections of one member at once: two nodes that dial each other by several addresses.
const CONNECTIONS: u32 = 20;
/// One more after this time: a network that comes and goes every few seconds stays below it.
const CONNECTION_EVERY: Duration = Duration::from_secs(1);
/// Members that are remembered; a team has some hundred.
const MEMBERS_MAX: usize = 4096;

#[derive(Debug, Default)]
struct Member {
    floods: u32,
    away_until: Duration,
    flooded_at: Duration,
    /// When its connections are paid for.
    paid: Duration,
}

/// Members that flooded, or connected lately.
#[derive(Debug, Default)]
pub struct Outcasts(HashMap<NodeId, Member>);

impl Outcasts {
    /// A member flooded: how long it has to stay away. Times are since any fixed moment.
    pub fn cast_out(&mut self, node: NodeId, now: Duration) -> Duration {
        self.make_room(now);
        let member = self.0.entry(node).or_default();
        if now >= member.flooded_at + FORGOTTEN {
            member.floods = 0;
        }
        let away = FIRST.saturating_mul(1 << member.floods.min(16)).min(LONGEST);
        member.floods += 1;
        (member.flooded_at, member.away_until) = (now, now + away);
        away
    }

    /// How much longer this member has to stay away.
    pub fn away(&self, node: NodeId, now: Duration) -> Option<Duration> {
        let left = self.0.get(&node)?.away_until.saturating_sub(now);
        (!left.is_zero()).then_some(left)
    }

    /// A member connects. False: it has to stay away, or connects too often.
    pub fn may_connect(&mut self, node: NodeId, now: Duration) -> bool {
        if self.away(node, now).is_some() {
            return false;
        }
        self.make_room(now);
        let member = self.0.entry(node).or_default();
        let paid = member.paid.max(now) + CONNECTION_EVERY;
        let may = paid <= now + CONNECTION_EVERY * CONNECTIONS;
        if may {
            member.paid = paid;
        }
        may
    }

    fn make_room(&mut self, now: Duration) {
        if self.0.len() >= MEMBERS_MAX {
            self.0
                .retain(|_, m| m.paid > now || m.away_until > now || (m.floods > 0 && now < m.flooded_at + FORGOTTEN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: NodeId = NodeId([1; 32]);
    const BOB: NodeId = NodeId([2; 32]);

    #[test]
    fn each_flood_keeps_away_for_longer_and_an_hour_of_peace_is_a_new_beginning() {
        let (mut outcasts, mut now) = (Outcasts::default(), Duration::from_secs(7));
        let mut seen = Vec::new();
        for _ in 0..8 {
            let away = outcasts.cast_out(ANN, now);
            seen.push(away.as_secs());
            assert_eq!(outcasts.away(ANN, now), Some(away));
            assert!(!outcasts.may_connect(ANN, now) && outcasts.may_connect(BOB, now));
            now += away;
            assert_eq!(outcasts.away(ANN, now), None);
            assert!(outcasts.may_connect(ANN, now));
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(outcasts.cast_out(ANN, now + FORGOTTEN), FIRST);
    }

    #[test]
    fn a_member_that_connects_without_end_is_heard_once_a_second() {
        let mut outcasts = Outcasts::default();
        let heard = (0..60_000).filter(|ms| outcasts.may_connect(ANN, Duration::from_millis(*ms))).count();
        assert!((79..=80).contains(&heard), "{heard}");
        // A network that comes and goes.
        assert!((0..1000).all(|n| outcasts.may_connect(BOB, Duration::from_millis(1200 * n))));
    }
}
