//! Whether the other end of a link is there, for links on which nothing has to be said: peers that do not serve, and
//! submitters that have no jobs. Peers that serve are watched by `place`, with the same numbers.

use std::time::Duration;

use crate::limits::{LOST_IDLE, PING_IDLE};

/// A look that comes this late means that this PC itself stood still (suspend, SIGSTOP): silence proves nothing then.
const OWN_STALL: Duration = Duration::from_secs(1);

/// What the passing of time asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// Nothing.
    Well,
    /// A ping is due.
    PingDue,
    /// Silent for too long.
    Lost,
}

/// One link's silence.
#[derive(Clone, Copy, Debug)]
pub struct Alive {
    /// Something came since the last look: set for each frame, so that none costs a look at the clock.
    pub heard: bool,
    heard_at: Duration,
    pinged_at: Duration,
    looked_at: Duration,
    due: Duration,
}

impl Alive {
    /// A link that stands since `now`.
    pub fn new(now: Duration) -> Self {
        Self { heard: false, heard_at: now, pinged_at: now, looked_at: now, due: now + PING_IDLE }
    }

    /// What is due at `now`. A ping that is asked for counts as sent.
    pub fn look(&mut self, now: Duration) -> Life {
        if std::mem::take(&mut self.heard) {
            // Somewhere between the two looks: the earlier one is the safe guess, for a silence that is long enough is
            // reported in time then.
            self.heard_at = self.looked_at.max(self.heard_at);
        }
        if now > self.due + OWN_STALL {
            self.heard_at = now;
        }
        self.looked_at = now;
        let life = if now >= self.heard_at + LOST_IDLE {
            Life::Lost
        } else if now >= self.heard_at.max(self.pinged_at) + PING_IDLE {
            self.pinged_at = now;
            Life::PingDue
        } else {
            Life::Well
        };
        self.due = (self.heard_at.max(self.pinged_at) + PING_IDLE).min(self.heard_at + LOST_IDLE);
        life
    }

    /// When the next look is due.
    pub fn due(&self) -> Duration {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Looks whenever it is due; every ping is answered until `dies`, and the time of the loss is returned.
    fn lost_at(dies: Duration) -> Duration {
        let mut alive = Alive::new(ms(0));
        loop {
            let now = alive.due();
            match alive.look(now) {
                Life::Lost => return now,
                Life::PingDue if now < dies => alive.heard = true,
                _ => {}
            }
        }
    }

    #[test]
    fn a_peer_that_vanishes_at_any_moment_is_lost_within_five_seconds() {
        for dies in (0..20_000).step_by(37).map(ms) {
            let lost = lost_at(dies);
            assert!(lost > dies.saturating_sub(ms(1)) && lost <= dies + ms(5000), "{dies:?}: {lost:?}");
        }
    }

    #[test]
    fn a_peer_that_answers_is_never_lost() {
        let mut alive = Alive::new(ms(0));
        for _ in 0..1000 {
            assert_ne!(alive.look(alive.due()), Life::Lost);
            alive.heard = true;
        }
    }

    #[test]
    fn after_this_pc_slept_everybody_has_the_time_to_answer() {
        let mut alive = Alive::new(ms(0));
        assert_eq!(alive.look(ms(600_000)), Life::Well);
        let due = alive.due();
        assert_eq!(alive.look(due), Life::PingDue);
        let due = alive.due();
        assert_ne!(alive.look(due), Life::Lost);
    }
}
