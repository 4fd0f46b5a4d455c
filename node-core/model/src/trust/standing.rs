//! How one peer stands: how often its results are compiled again, and whether it gets jobs at all.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, JobId, NodeId, ToolchainId};
use crate::limits::{
    QUARANTINE_MS, SAMPLE_DOUBT_AGREED, SAMPLE_DOUBT_RATE, SAMPLE_FIRST, SAMPLE_RATE_MIN, TOOLCHAINS_OF_PEER_MAX,
};

/// Why a peer gets no jobs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// This PC compiled the same again and got something else, and so did another PC.
    Confirmed,
    /// This PC compiled the same twice and got something else both times; there was nobody to ask.
    Alone,
    /// So many members showed signed results of it that they found wrong.
    Members(u32),
}

/// A peer that gets no jobs for a while.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quarantine {
    /// Milliseconds since 1970.
    pub since_ms: u64,
    /// When it ends by itself.
    pub until_ms: u64,
    /// What it rests on.
    pub why: Why,
}

/// One peer's record, which outlives its links and this node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Comparisons without a difference, since the last difference that was held against it.
    agreed: u32,
    /// Comparisons that must agree before a doubt is over.
    doubtful: u32,
    /// Version of the program that it runs.
    version: String,
    /// Toolchains that results of it were made with.
    toolchains: Vec<ToolchainId>,
    /// See [`Quarantine`].
    quarantine: Option<Quarantine>,
}

impl Standing {
    /// The part of its results that is compiled again, from 0 to 1. `signs`: the result is signed; a peer that does not sign
    /// could deny its results, so that each of them is looked at.
    ///
    /// After `n` comparisons that agreed it is `(10 / n)²`, at most 1 and at least 1/100: all of the first ten, a quarter
    /// after 20, a hundredth after 100, which a peer reaches with some 3,400 results. A doubt makes it at least 1/5 until 20
    /// comparisons agreed. (BOINC's adaptive replication: trust is earned by results, and lost at once.)
    pub fn rate(&self, signs: bool) -> f64 {
        if !signs || self.agreed < SAMPLE_FIRST {
            return 1.0;
        }
        let earned = (f64::from(SAMPLE_FIRST) / f64::from(self.agreed)).powi(2).clamp(SAMPLE_RATE_MIN, 1.0);
        if self.doubtful > 0 { earned.max(SAMPLE_DOUBT_RATE) } else { earned }
    }

    /// Comparisons that agreed.
    pub fn agreed(&self) -> u32 {
        self.agreed
    }

    /// Whether something speaks against it that does not suffice to blame it.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful > 0
    }

    /// A comparison agreed.
    pub fn agrees(&mut self) {
        self.agreed = self.agreed.saturating_add(1);
        self.doubtful = self.doubtful.saturating_sub(1);
    }

    /// Something speaks against it.
    pub fn doubt(&mut self) {
        self.doubtful = SAMPLE_DOUBT_AGREED;
    }

    /// A result was made with this toolchain, by this version of the program: another one than before is a doubt.
    pub fn made_with(&mut self, toolchain: ToolchainId, version: &str) {
        let is_known = self.version == version && self.toolchains.contains(&toolchain);
        if is_known {
            return;
        }
        let is_first = self.toolchains.is_empty();
        if self.version != version {
            version.clone_into(&mut self.version);
        }
        if !self.toolchains.contains(&toolchain) {
            if self.toolchains.len() >= TOOLCHAINS_OF_PEER_MAX {
                self.toolchains.remove(0);
            }
            self.toolchains.push(toolchain);
        }
        if !is_first {
            self.doubt();
        }
    }

    /// It gave a wrong result, as far as can be told: no jobs for a while, and afterwards it is a new peer.
    pub fn put_aside(&mut self, why: Why, now_ms: u64) {
        self.agreed = 0;
        self.quarantine = Some(Quarantine { since_ms: now_ms, until_ms: now_ms.saturating_add(QUARANTINE_MS), why });
    }

    /// The person says that it may work again.
    pub fn forgive(&mut self) {
        self.quarantine = None;
        self.doubt();
    }

    /// Its quarantine, if one holds now. A clock that was set back does not make it longer than it was meant to be.
    pub fn quarantine(&self, now_ms: u64) -> Option<&Quarantine> {
        let holds = |q: &&Quarantine| now_ms < q.until_ms && q.until_ms - now_ms <= QUARANTINE_MS;
        self.quarantine.as_ref().filter(holds)
    }
}

/// Decides which results are compiled again. With the secret nobody else can tell beforehand.
#[derive(Clone, Debug)]
pub struct Sampler {
    secret: [u8; 32],
}

impl Sampler {
    /// `secret` is random, and never leaves this node.
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// Whether this result of this peer is one of the sample.
    pub fn takes(&self, peer: NodeId, job: JobId, rate: f64) -> bool {
        if rate >= 1.0 {
            return true;
        }
        let mut text = [0; 40];
        text[..32].copy_from_slice(&peer.0);
        text[32..].copy_from_slice(&job.0.to_le_bytes());
        let hash = Digest(*blake3::keyed_hash(&self.secret, &text).as_bytes());
        let word = u64::from_le_bytes(hash.0[..8].try_into().expect("8 of 32 bytes"));
        // 53 bits: what a double holds exactly.
        ((word >> 11) as f64) < rate * (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> NodeId {
        NodeId([7; 32])
    }

    fn tool(n: u8) -> ToolchainId {
        ToolchainId(Digest([n; 32]))
    }

    fn seasoned(agreed: u32) -> Standing {
        let mut standing = Standing::default();
        standing.made_with(tool(1), "1");
        (0..agreed).for_each(|_| standing.agrees());
        standing
    }

    #[test]
    fn the_rate_falls_as_documented_and_comes_back_with_a_doubt() {
        for (agreed, rate) in [(0, 1.0), (9, 1.0), (10, 1.0), (20, 0.25), (50, 0.04), (100, 0.01), (5000, 0.01)] {
            assert!((seasoned(agreed).rate(true) - rate).abs() < 1e-9, "{agreed}");
        }
        assert!((seasoned(5000).rate(false) - 1.0).abs() < f64::EPSILON, "unsigned results are all compared");
        let mut peer = seasoned(5000);
        peer.made_with(tool(1), "1");
        assert!((peer.rate(true) - 0.01).abs() < f64::EPSILON);
        for (toolchain, version) in [(tool(1), "2"), (tool(2), "2")] {
            peer.made_with(toolchain, version);
            assert!((peer.rate(true) - 0.2).abs() < f64::EPSILON);
            (0..SAMPLE_DOUBT_AGREED).for_each(|_| peer.agrees());
            assert!((peer.rate(true) - 0.01).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn a_quarantine_ends_by_itself_or_by_a_person_and_not_by_a_clock() {
        let mut peer = seasoned(100);
        peer.put_aside(Why::Confirmed, 1000);
        assert!(peer.quarantine(1000 + QUARANTINE_MS - 1).is_some());
        assert!(peer.quarantine(1000 + QUARANTINE_MS).is_none());
        assert!((peer.rate(true) - 1.0).abs() < f64::EPSILON, "it begins anew");
        // The clock was wrong by years when it was put aside.
        peer.put_aside(Why::Confirmed, 1000 + 100 * QUARANTINE_MS);
        assert!(peer.quarantine(1000).is_none());
        peer.put_aside(Why::Alone, 1000);
        peer.forgive();
        assert!(peer.quarantine(1001).is_none() && peer.is_doubtful());
    }

    /// A peer that behaved well for long, and then gives wrong results: how many pass before one is compared.
    #[test]
    fn who_lies_is_caught_within_the_expected_number_of_results() {
        for (what, agreed, every, expected) in [
            ("lies from the first result on", 0, 1, 1.0),
            ("lies always, after 20 good comparisons", 20, 1, 4.0),
            ("lies always, after 1000 good comparisons", 1000, 1, 100.0),
            ("lies in one of 10, after 1000 good comparisons", 1000, 10, 1000.0),
        ] {
            let (seeds, mut sum) = (600u32, 0.0);
            for seed in 0..seeds {
                let sampler = Sampler::new(*blake3::hash(&seed.to_le_bytes()).as_bytes());
                let standing = seasoned(agreed);
                let lies = (0u64..).filter(|job| job % every == every / 2 || every == 1);
                let caught = lies.into_iter().find(|job| sampler.takes(peer(), JobId(*job), standing.rate(true)));
                sum += (caught.unwrap_or(0) + 1) as f64;
            }
            let seen = sum / f64::from(seeds);
            println!("{what}: expected {expected} results until it is compared, seen {seen:.1} ({seeds} seeds)");
            assert!((0.9..=1.1).contains(&(seen / expected)), "{what}: expected {expected}, seen {seen}");
        }
    }

    #[test]
    fn nobody_without_the_secret_can_tell_which_results_are_compared() {
        let [one, other] = [1, 2].map(|n| Sampler::new([n; 32]));
        let taken = |s: &Sampler| (0..20_000).filter(|job| s.takes(peer(), JobId(*job), 0.2)).collect::<Vec<_>>();
        let (a, b) = (taken(&one), taken(&other));
        assert!((3800..4200).contains(&a.len()) && (3800..4200).contains(&b.len()));
        let both = a.iter().filter(|job| b.binary_search(job).is_ok()).count();
        assert!((700..900).contains(&both), "independent: 4 % of all, not {both}");
    }
}
