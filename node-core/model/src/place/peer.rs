//! A worker as a submitter sees it: its promises, whether it is alive, how fast it turned out to be.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Arch, BACKOFF_MAX, BACKOFF_MIN, PeerFacts};
use crate::ids::{JobId, NodeId};
use crate::limits::{LOST_BUSY, LOST_IDLE, PING_BUSY, PING_IDLE};

/// Bandwidth until it is measured: somewhat below Gigabit Ethernet's.
const BANDWIDTH_DEFAULT_BYTES_S: u64 = 100_000_000;
/// How much a full worker is slower per job than an empty one, because of shared caches and hyper-threads. Spreads jobs
/// over equal workers (yadcc's scheduler and icecream's correct for the same).
const LOAD_SLOWDOWN: f64 = 0.25;
/// A single job moves a speed by at most this factor (icecream: 20 %) ...
const SPEED_STEP_MAX: f64 = 1.25;
/// ... but the first few may move it further, since nothing is known then.
const SPEED_STEP_FIRST: f64 = 4.0;
/// Weight of a job of a second or more in the moving average.
const SPEED_WEIGHT: f64 = 0.3;
/// Speeds stay within 1/20 and 20 of the prediction, so that one absurd sample does no lasting harm.
const SPEED_RANGE: (f64, f64) = (0.05, 20.0);

/// Moving average of predicted time over measured time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    /// 1.0 is as predicted.
    pub(super) factor: f64,
    /// Weight of all samples so far.
    known: f64,
}

impl Speed {
    pub(super) const UNKNOWN: Self = Self { factor: 1.0, known: 0.0 };

    /// Learns from one run; short ones weigh less, since fixed costs show most in them.
    pub(super) fn learn(&mut self, predicted: Duration, measured: Duration) {
        let sample = predicted.as_secs_f64() / measured.as_secs_f64().max(0.001);
        let step = if self.known < 3.0 { SPEED_STEP_FIRST } else { SPEED_STEP_MAX };
        let sample = sample.clamp(self.factor / step, self.factor * step);
        let size = predicted.as_secs_f64().clamp(0.02, 1.0);
        self.known += size;
        let weight = (size / (self.known + 0.5)).max(SPEED_WEIGHT * size);
        self.factor = (self.factor + (sample - self.factor) * weight).clamp(SPEED_RANGE.0, SPEED_RANGE.1);
    }

    /// Enough was measured to speak of it: a second of predicted work.
    pub(super) fn is_measured(self) -> bool {
        self.known >= 1.0
    }

    /// Time that work predicted to take `predicted` takes at this speed.
    pub(super) fn time(self, predicted: Duration) -> Duration {
        predicted.div_f64(self.factor)
    }
}

/// What the passing of time asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    /// Nothing.
    Well,
    /// A ping is due.
    PingDue,
    /// Silent for too long.
    Lost,
}

/// One peer; stays known after it is down, because its speed does.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) up: bool,
    /// Being connected; jobs may wait for it until then.
    pub(super) expected_until: Duration,
    pub(super) facts: PeerFacts,
    /// Slots promised to this submitter.
    pub(super) credits: u32,
    /// Jobs that are there now, and when each is expected to end.
    pub(super) out: BTreeMap<JobId, Duration>,
    /// The earliest of these.
    next_end: Duration,
    /// Sum of what they are predicted to need.
    pub(super) memory_out_bytes: u64,
    /// By index of toolchain.
    pub(super) ready: Vec<bool>,
    pub(super) paused_since: Option<Duration>,
    pub(super) speed: Speed,
    /// Orders equal peers, differently at every submitter.
    pub(super) tie: u64,
    pub(super) demand_sent: u32,
    pub(super) demand_at: Duration,
    pub(super) demand_low_since: Option<Duration>,
    refusals: u32,
    backoff_until: Duration,
    heard_at: Duration,
    pinged_at: Duration,
    unanswered_since: Option<Duration>,
    busy_since: Duration,
}

impl Peer {
    pub(super) fn new(me: NodeId, peer: NodeId) -> Self {
        let facts =
            PeerFacts { rtt: Duration::ZERO, bandwidth_bytes_s: 0, memory_bytes: 0, arch: Arch::Other, slots_max: 0 };
        Self {
            up: false,
            expected_until: Duration::ZERO,
            facts,
            credits: 0,
            out: BTreeMap::new(),
            next_end: Duration::MAX,
            memory_out_bytes: 0,
            ready: Vec::new(),
            paused_since: None,
            speed: Speed::UNKNOWN,
            tie: mix(me, peer),
            demand_sent: 0,
            demand_at: Duration::ZERO,
            demand_low_since: None,
            refusals: 0,
            backoff_until: Duration::ZERO,
            heard_at: Duration::ZERO,
            pinged_at: Duration::ZERO,
            unanswered_since: None,
            busy_since: Duration::ZERO,
        }
    }

    /// A connection stands: everything of an earlier one is void, except what was learned about its speed.
    pub(super) fn connect(&mut self, now: Duration, facts: PeerFacts) {
        self.disconnect();
        self.up = true;
        self.expected_until = Duration::ZERO;
        self.facts = facts;
        self.backoff_until = now;
        self.pinged_at = now;
        self.heard(now);
    }

    /// No connection any more.
    pub(super) fn disconnect(&mut self) {
        self.up = false;
        self.credits = 0;
        self.out.clear();
        self.next_end = Duration::MAX;
        self.memory_out_bytes = 0;
        self.ready.clear();
        self.paused_since = None;
        self.demand_sent = 0;
        self.demand_low_since = None;
        self.refusals = 0;
    }

    /// Any word from it.
    pub(super) fn heard(&mut self, now: Duration) {
        self.heard_at = now;
        self.unanswered_since = None;
    }

    /// Adds a job that is expected to end at `end`. True: nothing was heard for a while, so that a ping is due at once.
    pub(super) fn add(&mut self, now: Duration, job: JobId, end: Duration, memory_bytes: u64) -> bool {
        let first = self.out.is_empty();
        if first {
            self.busy_since = now;
        }
        self.out.insert(job, end);
        self.next_end = self.next_end.min(end);
        self.memory_out_bytes = self.memory_out_bytes.saturating_add(memory_bytes);
        first && now.saturating_sub(self.heard_at.max(self.pinged_at)) >= PING_BUSY
    }

    /// Takes a job off.
    pub(super) fn remove(&mut self, job: JobId, memory_bytes: u64) {
        if self.out.remove(&job).is_some() {
            self.next_end = self.out.values().copied().min().unwrap_or(Duration::MAX);
            self.memory_out_bytes = self.memory_out_bytes.saturating_sub(memory_bytes);
        }
    }

    /// It refused a job. Refusals of one burst count once.
    pub(super) fn refused(&mut self, now: Duration) {
        if now >= self.backoff_until {
            let delay = BACKOFF_MIN.saturating_mul(1 << self.refusals.min(16)).min(BACKOFF_MAX);
            self.backoff_until = now + delay;
            self.refusals += 1;
        }
    }

    /// It finished a job.
    pub(super) fn succeeded(&mut self) {
        self.refusals = 0;
    }

    /// Until when it gets nothing, if it refused.
    pub(super) fn backoff_until(&self) -> Duration {
        self.backoff_until
    }

    /// Whether its programs and those of `arch` are the same, and it has the toolchain.
    pub(super) fn can_serve(&self, arch: Arch, toolchain: usize) -> bool {
        self.up && arch.runs_on(self.facts.arch) && self.ready.get(toolchain) == Some(&true)
    }

    /// Whether its memory is enough for such a job at all.
    pub(super) fn fits(&self, memory_bytes: u64) -> bool {
        self.facts.memory_bytes == 0 || memory_bytes <= self.facts.memory_bytes
    }

    /// Whether its memory is enough beside what it has.
    pub(super) fn has_memory(&self, memory_bytes: u64) -> bool {
        self.out.is_empty() || self.fits(self.memory_out_bytes.saturating_add(memory_bytes))
    }

    /// Promises slots, and nothing speaks against believing it.
    pub(super) fn grants(&self, now: Duration) -> bool {
        self.credits > 0 && now >= self.backoff_until && self.paused_since.is_none()
    }

    /// A slot is there to be used now.
    pub(super) fn has_free(&self, now: Duration) -> bool {
        self.grants(now) && (self.out.len() as u32) < self.credits && !self.is_suspect(now)
    }

    /// A ping is late: no further jobs until it answers.
    fn is_suspect(&self, now: Duration) -> bool {
        self.unanswered_since.is_some_and(|since| now.saturating_sub(since) >= PING_BUSY + self.facts.rtt * 4)
    }

    /// Time before the compiler starts: the round trip, and what must be sent first.
    pub(super) fn transit(&self, missing_bytes: u64) -> Duration {
        let bandwidth = match self.facts.bandwidth_bytes_s {
            0 => BANDWIDTH_DEFAULT_BYTES_S,
            known => known,
        };
        self.facts.rtt + Duration::from_secs_f64(missing_bytes as f64 / bandwidth as f64)
    }

    /// Expected time from now to the result.
    pub(super) fn finish(&self, predicted: Duration, missing_bytes: u64) -> Duration {
        let load =
            1.0 + LOAD_SLOWDOWN * self.out.len() as f64 / f64::from(self.facts.slots_max.max(self.credits).max(1));
        self.transit(missing_bytes) + self.speed.time(predicted).mul_f64(load)
    }

    /// Expected time until a slot is free, after `others` that wait for one already.
    pub(super) fn wait(&self, now: Duration, others: u32, typical: Duration) -> Duration {
        let gap = self.speed.time(typical) / (self.out.len() as u32).max(1);
        self.next_end.saturating_sub(now) + gap * others
    }

    /// What is due at `now`; a ping counts as due when it is so within `early`.
    pub(super) fn life(&self, now: Duration, early: Duration) -> Life {
        if now >= self.lost_at() {
            Life::Lost
        } else if now + early >= self.ping_at() {
            Life::PingDue
        } else {
            Life::Well
        }
    }

    /// A ping was sent.
    pub(super) fn pinged(&mut self, now: Duration) {
        self.pinged_at = now;
        self.unanswered_since.get_or_insert(now);
    }

    /// When the next ping is due.
    pub(super) fn ping_at(&self) -> Duration {
        let interval = if self.out.is_empty() { PING_IDLE } else { PING_BUSY };
        self.heard_at.max(self.pinged_at) + interval
    }

    /// When it is lost, should it stay silent. While it was idle it was asked rarely, so that its silence counts from
    /// the first job on.
    pub(super) fn lost_at(&self) -> Duration {
        if self.out.is_empty() { self.heard_at + LOST_IDLE } else { self.heard_at.max(self.busy_since) + LOST_BUSY }
    }
}

/// A number for the pair: submitters without measurements shall not all begin with the same worker.
fn mix(me: NodeId, peer: NodeId) -> u64 {
    let word = |id: NodeId| u64::from_le_bytes(id.0[..8].try_into().expect("8 of 32 bytes"));
    let mut x = word(me).rotate_left(32) ^ word(peer).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn up(at: Duration) -> Peer {
        let mut peer = Peer::new(NodeId([1; 32]), NodeId([2; 32]));
        let facts = PeerFacts { rtt: ms(1), bandwidth_bytes_s: 0, memory_bytes: 0, arch: Arch::X86_64, slots_max: 4 };
        peer.connect(at, facts);
        peer
    }

    #[test]
    fn a_busy_peer_is_lost_before_two_seconds_of_silence_an_idle_one_before_five() {
        let mut peer = up(ms(0));
        assert_eq!(peer.life(ms(1999), ms(0)), Life::Well);
        assert_eq!(peer.life(ms(1800), ms(199)), Life::Well);
        assert_eq!(peer.life(ms(1800), ms(200)), Life::PingDue);
        assert_eq!(peer.life(ms(2000), ms(0)), Life::PingDue);
        peer.pinged(ms(2000));
        assert_eq!(peer.life(ms(4499), ms(0)), Life::PingDue);
        assert_eq!(peer.life(ms(4500), ms(0)), Life::Lost);
        peer.heard(ms(5000));
        assert!(peer.add(ms(6000), JobId(1), ms(9000), 0), "silent for a second: ask at once");
        assert_eq!(peer.life(ms(7799), ms(0)), Life::PingDue);
        assert_eq!(peer.life(ms(7800), ms(0)), Life::Lost);
    }

    #[test]
    fn refusals_of_one_burst_count_once_and_delays_grow() {
        let mut peer = up(ms(0));
        let mut delays = Vec::new();
        let mut now = ms(10);
        for _ in 0..12 {
            (0..8).for_each(|_| peer.refused(now));
            delays.push(peer.backoff_until() - now);
            now = peer.backoff_until();
        }
        assert_eq!(&delays[..4], &[ms(100), ms(200), ms(400), ms(800)]);
        assert_eq!(delays[11], BACKOFF_MAX);
    }

    #[test]
    fn a_speed_follows_what_is_measured_but_no_single_absurd_sample() {
        let mut speed = Speed::UNKNOWN;
        speed.learn(ms(1000), ms(1));
        assert!(speed.factor < 4.0);
        (0..60).for_each(|_| speed.learn(ms(2000), ms(1000)));
        assert!((1.9..=2.1).contains(&speed.factor), "{}", speed.factor);
    }
}
