//! The four pictures that both sides of a join show, so that two people can see that nobody sits between their PCs. Which
//! digest they stand for is the transport's business.

/// Pictures that a join shows.
pub const SHOWN: usize = 4;

/// All pictures with their names: a person at each end says the four words, or looks. Single code points of Unicode 9 and
/// older, which every emoji font has; no two that look or sound alike (no mouse beside a rat, no ship beside a boat).
pub const PICTURES: [(&str, &str); 64] = [
    ("🐟", "fish"),
    ("🔑", "key"),
    ("🌲", "tree"),
    ("🚲", "bike"),
    ("🐘", "elephant"),
    ("🍎", "apple"),
    ("🎸", "guitar"),
    ("🚀", "rocket"),
    ("🐫", "camel"),
    ("🍕", "pizza"),
    ("🎈", "balloon"),
    ("🌵", "cactus"),
    ("🐝", "bee"),
    ("🍌", "banana"),
    ("🔨", "hammer"),
    ("🚂", "train"),
    ("🐧", "penguin"),
    ("🍒", "cherries"),
    ("🎩", "hat"),
    ("🌙", "moon"),
    ("🐸", "frog"),
    ("🥕", "carrot"),
    ("🎁", "present"),
    ("⛵", "sailboat"),
    ("🐙", "octopus"),
    ("🍄", "mushroom"),
    ("🔔", "bell"),
    ("🌈", "rainbow"),
    ("🐢", "turtle"),
    ("🍋", "lemon"),
    ("📷", "camera"),
    ("⚓", "anchor"),
    ("🦋", "butterfly"),
    ("🥚", "egg"),
    ("🎺", "trumpet"),
    ("🌻", "sunflower"),
    ("🐼", "panda"),
    ("🍇", "grapes"),
    ("💡", "lamp"),
    ("🚜", "tractor"),
    ("🦉", "owl"),
    ("🧀", "cheese"),
    ("🎲", "dice"),
    ("🌋", "volcano"),
    ("🐳", "whale"),
    ("🌽", "corn"),
    ("💎", "diamond"),
    ("🚁", "helicopter"),
    ("🐍", "snake"),
    ("🍩", "doughnut"),
    ("📖", "book"),
    ("⏰", "clock"),
    ("🐷", "pig"),
    ("🌂", "umbrella"),
    ("👓", "glasses"),
    ("🔥", "fire"),
    ("🦀", "crab"),
    ("🍦", "ice cream"),
    ("👗", "dress"),
    ("🏠", "house"),
    ("🐰", "rabbit"),
    ("🍞", "bread"),
    ("🥁", "drum"),
    ("🌍", "globe"),
];

/// What both sides of one join show: 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Check([u8; SHOWN]);

impl Check {
    /// The first 24 bits of a digest, six for each picture.
    pub fn of(digest: &[u8; 32]) -> Self {
        let bits = u32::from_be_bytes([0, digest[0], digest[1], digest[2]]);
        Self([18, 12, 6, 0].map(|at| (bits >> at & 63) as u8))
    }

    /// Picture and word of each, in the order in which they are shown.
    pub fn pictures(&self) -> [(&'static str, &'static str); SHOWN] {
        self.0.map(|at| PICTURES[usize::from(at)])
    }

    /// "🐟 fish, 🔑 key, 🌲 tree, 🚲 bike".
    pub fn sentence(&self) -> String {
        self.pictures().map(|(picture, word)| format!("{picture} {word}")).join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_pictures_and_their_names_are_all_different() {
        let pictures: BTreeSet<_> = PICTURES.iter().map(|p| p.0).collect();
        let words: BTreeSet<_> = PICTURES.iter().map(|p| p.1).collect();
        assert_eq!((pictures.len(), words.len()), (64, 64));
        // One word on a line, and no joined or coloured emoji that an old font shows as two.
        assert!(words.iter().all(|w| w.len() <= 10 && w.bytes().all(|b| b.is_ascii_lowercase() || b == b' ')));
        assert!(pictures.iter().all(|p| p.chars().count() == 1));
    }

    #[test]
    fn every_one_of_the_24_bits_counts_and_no_other() {
        let digest: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(41));
        let check = Check::of(&digest);
        let mut all = BTreeSet::from([check.sentence()]);
        for bit in 0..24 {
            let mut other = digest;
            other[bit / 8] ^= 1 << (bit % 8);
            all.insert(Check::of(&other).sentence());
        }
        assert_eq!(all.len(), 25);
        let mut tail = digest;
        tail[3] ^= 255;
        assert_eq!(Check::of(&tail), check);
    }

    #[test]
    fn the_order_is_that_of_the_bits() {
        let mut digest = [0; 32];
        digest[..3].copy_from_slice(&[0b0000_0000, 0b0001_0000, 0b1000_0011]);
        assert_eq!(Check::of(&digest).sentence(), "🐟 fish, 🔑 key, 🌲 tree, 🚲 bike");
    }
}
