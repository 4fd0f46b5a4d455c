//! Simulated teams: founding, invitations, joining, and keepers who say yes after two seconds.

use potluck_api::view::{CheckWord, InviteView, JoinAsk, Joining};

use super::random::Random;

/// Reaching the other PC.
pub(super) const REACH_MS: u64 = 600;
/// Until the keeper has compared the pictures.
pub(super) const APPROVE_MS: u64 = 2_000;
/// How long the end of it is shown.
pub(super) const SHOWN_MS: u64 = 10_000;

/// Pictures with names, as both sides show them.
const PICTURES: &[(&str, &str)] = &[
    ("\u{1f41f}", "fish"),
    ("\u{1f511}", "key"),
    ("\u{1f332}", "tree"),
    ("\u{1f6b2}", "bike"),
    ("\u{1f34e}", "apple"),
    ("\u{1f514}", "bell"),
    ("\u{1f680}", "rocket"),
    ("\u{2602}\u{fe0f}", "umbrella"),
    ("\u{1f3b8}", "guitar"),
    ("\u{1f319}", "moon"),
    ("\u{1f422}", "turtle"),
    ("\u{2693}", "anchor"),
];

/// Four of them.
pub(super) fn check_words(random: &mut Random) -> Vec<CheckWord> {
    let mut left: Vec<usize> = (0..PICTURES.len()).collect();
    let mut draw = || {
        let (picture, word) = PICTURES[left.swap_remove(random.below(left.len() as u32) as usize)];
        CheckWord { picture: picture.to_owned(), word: word.to_owned() }
    };
    (0..4).map(|_| draw()).collect()
}

/// The team that this PC is in.
#[derive(Clone, Debug)]
pub(super) struct Team {
    pub(super) id: String,
    pub(super) name: String,
    /// This PC's role.
    pub(super) role: &'static str,
    pub(super) asking: Vec<JoinAsk>,
    pub(super) invites: Vec<InviteView>,
}

/// What joining waits for.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) state: Joining,
    pub(super) team: String,
    check: Vec<CheckWord>,
    /// A keeper must say yes.
    approve: bool,
    /// Nobody is there.
    dead: bool,
    /// The next step.
    at: u64,
    /// It is over; shown until `at`.
    over: bool,
}

/// What a step of joining did.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nothing.
    Nothing,
    /// Another state.
    Moved,
    /// In.
    Joined,
    /// Not in.
    Failed,
    /// It need not be shown any more.
    Forgotten,
}

impl Attempt {
    pub(super) fn new(team: &str, approve: bool, dead: bool, now: u64, random: &mut Random) -> Self {
        Self {
            state: Joining::Connecting { team: team.to_owned(), busy: false },
            team: team.to_owned(),
            check: check_words(random),
            approve,
            dead,
            at: now + REACH_MS,
            over: false,
        }
    }

    /// It goes on.
    pub(super) fn under_way(&self) -> bool {
        !self.over
    }

    pub(super) fn step(&mut self, now: u64) -> Step {
        if now < self.at {
            return Step::Nothing;
        }
        if self.over {
            return Step::Forgotten;
        }
        let (team, check) = (self.team.clone(), self.check.clone());
        match self.state {
            Joining::Connecting { .. } if self.dead => {
                let error = "nobody answers there\nhint: is Potluck running on that computer?".to_owned();
                (self.state, self.at, self.over) = (Joining::Failed { error }, now + SHOWN_MS, true);
                Step::Failed
            }
            Joining::Connecting { .. } if self.approve => {
                (self.state, self.at) = (Joining::Waiting { team, check }, now + APPROVE_MS);
                Step::Moved
            }
            _ => {
                (self.state, self.at, self.over) = (Joining::Joined { team, check }, now + SHOWN_MS, true);
                Step::Joined
            }
        }
    }
}
