//! Whether results of other PCs are right: which of them are compiled again, what follows from a difference, whom it is held
//! against and for how long. Pure: the seed of the sampling, the time and everything that came are arguments.
//!
//! `standing`: how often one peer's results are compiled again. `case`: from a difference to a verdict. `class`: compiles
//! that differ from run to run and blame nobody. `word`: what other members say of a peer.
//!
//! What this does not catch: one wrong object of a peer that has behaved well for long passes with a probability of 99 %.
//! Only `careful` and `release` prevent that.

mod case;
mod class;
mod standing;
mod word;

pub use case::{At, Next, Reach, Run, Verdict, next};
pub use class::{Class, class_of};
pub use standing::{Quarantine, Sampler, Standing, Why};
pub use word::{Accusations, Taken};

/// What the submitter's person wants of results.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Results are used at once, and a sample of them is compiled again later.
    #[default]
    Normal,
    /// Two different peers must agree before a result is used.
    Careful,
    /// Only this PC compiles, or peers that are named.
    Release,
}

impl Mode {
    /// The mode of a word, as settings and `POTLUCK_TRUST` spell it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "normal" => Some(Self::Normal),
            "careful" => Some(Self::Careful),
            "release" => Some(Self::Release),
            _ => None,
        }
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Careful => "careful",
            Self::Release => "release",
        }
    }

    /// The stricter of two: a command can ask for more care than the settings do, never for less.
    pub fn stricter(self, other: Self) -> Self {
        self.max(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_only_ask_for_more_care() {
        assert_eq!(Mode::Careful.stricter(Mode::Normal), Mode::Careful);
        assert_eq!(Mode::Normal.stricter(Mode::Release), Mode::Release);
        for mode in [Mode::Normal, Mode::Careful, Mode::Release] {
            assert_eq!(Mode::from_name(mode.name()), Some(mode));
        }
        assert_eq!(Mode::from_name("Careful"), None);
    }
}
