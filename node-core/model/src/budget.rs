//! What one member may send in a time, whatever it sends: token buckets for each kind of message, and one for work that
//! served nobody. The rates are ten times what the busiest honest node was seen or calculated to need, so that only who
//! means it runs into them. Who does is read more slowly at first, and is a flood when it goes on.

use std::time::Duration;

/// Kinds of messages, by what they cost and how often an honest node has a reason for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first message of a link.
    Greeting,
    /// Pings, their answers, and pulses: a few a second.
    Beat,
    /// Demand and credits: at most one for each job that begins or ends.
    Word,
    /// What makes the other side look through all that it has, or remember something for long: a few for each link.
    Question,
    /// Jobs, their deltas, cancels, results, refusals, stored blobs: thousands a second.
    Work,
    /// Statements: one message for each change of the team.
    Gossip,
    /// The bytes of statements: the whole team for each link.
    GossipBytes,
    /// Pieces of large contents: one for each 64 KiB.
    Bulk,
    /// Messages that this version does not know.
    Unknown,
}

/// In the order of [`Kind`]: what is there at once, what comes back in a second, and the name in a sentence.
const RATES: [(u32, u32, &str); 9] = [
    // A link has one; two nodes of a network that comes and goes dial each other all the time.
    (60, 2, "greetings"),
    // Two pings a second and their answers, one pulse.
    (500, 50, "pings"),
    // 200 jobs that begin and end in one moment, and 50 changes a second.
    (2_000, 500, "demands"),
    // A toolchain for each compiler, at the beginning of a link.
    (200, 10, "questions"),
    // A submitter's core makes at most 2,000 jobs a second; each is a delta, a job and a result.
    (100_000, 20_000, "jobs or results"),
    // 50 PCs that join in a minute.
    (500, 5, "statements"),
    // Four times the largest message, and what a team of 200 says in all.
    (32 << 20, 256 << 10, "statements"),
    // 10 Gbit/s are 20,000 a second.
    (200_000, 40_000, "pieces of contents"),
    // A newer release that says something new at every ping.
    (100, 20, "unknown messages"),
];

/// Time for which a peer may have been made to wait before it counts as a flood ...
const PATIENCE: Duration = Duration::from_secs(3);
/// ... and how much of the time that passes is taken off it: a tenth.
const FORGIVEN: u32 = 10;
/// Microseconds of work that may be for nothing at once. A build that is broken off leaves some hundred results behind,
/// and those are known; what is left are races.
const WASTE_US: u32 = 500_000;
/// The same for each second: a fiftieth of a core.
const WASTE_US_PER_S: u32 = 20_000;
/// What a message costs that came for nothing, from the socket to the answer, without its bytes ...
pub const WASTE_MESSAGE_US: u32 = 100;
/// ... and how many of those cost one more: they are read, decrypted, taken out of two frames and copied. At 1000 some 1,350
/// results of 300 kB were taken before their sender was cut off, and compiles took half as long again meanwhile.
pub const WASTE_BYTES_PER_US: u64 = 300;
/// What a job costs that its submitter takes back, which may have begun. A build that is broken off takes back a hundred.
pub const WASTE_CANCEL_US: u32 = 200;
/// What a signature costs that was checked for nothing.
pub const WASTE_SIGNATURE_US: u32 = 100;
/// What a path costs that was asked for and must not be had.
pub const WASTE_PATH_US: u32 = 50;

/// Tokens that come back with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Millionths of a token.
    left: u64,
    at: Duration,
}

const ONE: u64 = 1_000_000;

impl Bucket {
    fn full(most: u32) -> Self {
        Self { left: u64::from(most) * ONE, at: Duration::ZERO }
    }

    fn fill(&mut self, most: u32, per_s: u32, now: Duration) {
        let passed_us = now.saturating_sub(self.at).as_micros() as u64;
        let gained = passed_us.saturating_mul(per_s.into());
        self.left = self.left.saturating_add(gained).min(u64::from(most) * ONE);
        self.at = self.at.max(now);
    }

    /// Takes tokens; what is missing is waited for.
    fn take(&mut self, amount: u32, most: u32, per_s: u32, now: Duration) -> Result<(), Duration> {
        self.fill(most, per_s, now);
        // No single message costs more than there can be.
        let cost = u64::from(amount.min(most)) * ONE;
        if self.left >= cost {
            self.left -= cost;
            return Ok(());
        }
        let missing = cost - self.left;
        let wait = Duration::from_micros(missing.div_ceil(per_s.max(1).into()));
        // What comes back until then is spent already.
        (self.left, self.at) = (0, now + wait);
        Err(wait)
    }
}

/// What follows from a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken.
    Take,
    /// It is taken after this time, and nothing is read before.
    TakeAfter(Duration),
    /// Its sender is cut off; of what there is too much.
    Flood(&'static str),
}

/// The budget of one member, over all its links.
#[derive(Clone, Debug)]
pub struct Budget {
    buckets: [Bucket; RATES.len()],
    waste: Bucket,
    /// Time for which it was made to wait, less what is forgiven.
    waited: Duration,
    waited_at: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            buckets: RATES.map(|(most, ..)| Bucket::full(most)),
            waste: Bucket::full(WASTE_US),
            waited: Duration::ZERO,
            waited_at: Duration::ZERO,
        }
    }
}

impl Budget {
    /// A message of this kind came; `amount` is 1, or bytes where the kind counts those. Times are since any fixed moment.
    pub fn spend(&mut self, kind: Kind, amount: u32, now: Duration) -> Verdict {
        let (most, per_s, name) = RATES[kind as usize];
        let Err(wait) = self.buckets[kind as usize].take(amount, most, per_s, now) else { return Verdict::Take };
        let passed = now.saturating_sub(self.waited_at);
        self.waited = self.waited.saturating_sub(passed / FORGIVEN) + wait;
        self.waited_at = now;
        if self.waited > PATIENCE { Verdict::Flood(name) } else { Verdict::TakeAfter(wait) }
    }

    /// So many microseconds of work were for nothing. True: it is a flood.
    pub fn waste(&mut self, us: u32, now: Duration) -> bool {
        self.waste.take(us, WASTE_US, WASTE_US_PER_S, now).is_err()
    }
}

/// What a message of so many bytes costs that came for nothing, in microseconds.
pub fn cost_us(bytes: u64) -> u32 {
    WASTE_MESSAGE_US.saturating_add(u32::try_from(bytes / WASTE_BYTES_PER_US).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends `per_ms` messages each millisecond and waits when it is told to; when it was cut off.
    fn flood(kind: Kind, amount: u32, per_ms: u32, for_ms: u32) -> (u64, Option<Duration>) {
        let (mut budget, mut now, mut taken) = (Budget::default(), Duration::ZERO, 0);
        while now < MS * for_ms {
            for _ in 0..per_ms {
                match budget.spend(kind, amount, now) {
                    Verdict::Take => {}
                    Verdict::TakeAfter(wait) => now += wait,
                    Verdict::Flood(_) => return (taken, Some(now)),
                }
                taken += 1;
            }
            now += MS;
        }
        (taken, None)
    }

    #[test]
    fn who_floods_is_slowed_and_then_cut_off() {
        for (kind, amount, per_ms) in [
            (Kind::Greeting, 1, 1),
            (Kind::Beat, 1, 10),
            (Kind::Word, 1, 100),
            (Kind::Question, 1, 1),
            (Kind::Work, 1, 100),
            (Kind::Gossip, 1, 1),
            (Kind::GossipBytes, 4 << 20, 1),
            (Kind::Bulk, 1, 200),
            (Kind::Unknown, 1, 10),
        ] {
            let (taken, cut) = flood(kind, amount, per_ms, 60_000);
            let cut = cut.unwrap_or_else(|| panic!("{kind:?} is never cut off"));
            assert!(cut < Duration::from_secs(15), "{kind:?} is cut off after {cut:?}");
            let (most, per_s, _) = RATES[kind as usize];
            let rate = f64::from(most) + f64::from(per_s) * cut.as_secs_f64() + 2.0 * f64::from(amount);
            let taken = taken as f64 * f64::from(amount);
            assert!(taken <= rate, "{kind:?}: {taken} of {rate} were taken");
        }
    }

    #[test]
    fn ten_hours_of_the_busiest_honest_node_are_never_even_slowed() {
        let mut budget = Budget::default();
        for second in 0..36_000 {
            let now = Duration::from_secs(second);
            let mut spend = |kind, times: u32, amount| {
                for n in 0..times {
                    let now = now + Duration::from_secs(1) * n / times;
                    assert_eq!(budget.spend(kind, amount, now), Verdict::Take, "{kind:?} in second {second}");
                }
            };
            if second % 600 == 0 {
                spend(Kind::Work, 20_000, 1);
                spend(Kind::Word, 400, 1);
            }
            if second % 60 == 0 {
                spend(Kind::Work, 2_000, 1);
                spend(Kind::Bulk, 4_000, 1);
                spend(Kind::Gossip, 10, 1);
                spend(Kind::GossipBytes, 10, 1 << 20);
            }
            spend(Kind::Beat, 5, 1);
            spend(Kind::Word, 50, 1);
        }
    }

    #[test]
    fn work_for_nothing_is_forgiven_but_not_for_ever() {
        let mut budget = Budget::default();
        assert!((0..400).all(|_| !budget.waste(cost_us(300_000), Duration::from_secs(1))));
        assert!((0..1000).any(|_| budget.waste(cost_us(300_000), Duration::from_secs(1))));
        // A fiftieth of a core for ever.
        let mut budget = Budget::default();
        assert!((0..100_000).all(|n| !budget.waste(WASTE_MESSAGE_US, MS * 5 * n)));
        assert!((0..10_000).any(|n| budget.waste(WASTE_SIGNATURE_US, MS * 1_000_000 + MS * n / 10)));
        assert_eq!(cost_us(u64::MAX), u32::MAX);
    }
}
