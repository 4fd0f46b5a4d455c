//! The simulation's randomness: SplitMix64, the same numbers from the same seed on every machine. Nothing secret.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// One of its own for `what`, so that what is drawn for one thing moves nothing else.
    pub(super) fn new(seed: u64, what: &str) -> Self {
        // FNV-1a: its constants are those of the specification.
        let hash =
            what.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Self(seed ^ hash)
    }

    /// The next one (Steele, Lea, Flood 2014).
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        (self.next() % u64::from(n.max(1))) as u32
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// How long a compile takes that takes `usual` mostly: many short ones, a few long ones.
    pub(super) fn compile_ms(&mut self, usual: u32) -> u32 {
        let base = usual * self.between(30, 150) / 100;
        match self.below(60) {
            0 => base * 6,
            1..=5 => base * 2,
            _ => base,
        }
        .max(3)
    }

    /// 64 hexadecimal digits: an id.
    pub(super) fn id(&mut self) -> String {
        (0..4).map(|_| format!("{:016x}", self.next())).collect()
    }
}
