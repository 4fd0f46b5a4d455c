//! Changes inputs without knowing of coverage: the short form, the same every time.

use crate::limits::INPUT_BYTES_MAX;

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % n.max(1) as u64) as usize
    }
}

/// Bytes at which readers change their mind: ends, separators, escapes, lengths of varints and of frames.
const ODD: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\\",
    b"\\\n",
    b"\"",
    b"'",
    b"$",
    b"$$",
    b":",
    b"#",
    b"@",
    b"/",
    b"..",
    b"//",
    b"-",
    b"=",
    b"%",
    b" ",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x10",
    b"{",
    b"[",
    b"]",
    b"}",
    b"\xe2\x80\xae",
    b"\x1b]52;c;",
    b"/*",
    b"*/",
    b"#include \"",
    b"-o",
    b"-MF",
];

/// One to four changes of `seed`, with pieces of `other`.
pub fn mutate(random: &mut Random, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len() + 1);
        match random.below(8) {
            0 if !out.is_empty() => {
                let at = random.below(out.len());
                out[at] ^= 1 << random.below(8);
            }
            1 if !out.is_empty() => {
                let at = random.below(out.len());
                out[at] = random.number() as u8;
            }
            2 => out.truncate(at),
            3 => {
                let end = (at + 1 + random.below(16)).min(out.len());
                out.drain(at.min(end)..end);
            }
            4 => {
                let odd = ODD[random.below(ODD.len())];
                out.splice(at..at, odd.iter().copied());
            }
            5 => {
                let from = random.below(other.len() + 1);
                let end = (from + random.below(64)).min(other.len());
                out.splice(at..at, other[from..end].iter().copied());
            }
            6 => {
                let end = (at + random.below(64)).min(out.len());
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            _ => out.push(random.number() as u8),
        }
    }
    out.truncate(INPUT_BYTES_MAX);
    out
}
