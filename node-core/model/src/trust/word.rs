//! What other members say of a peer: that it gave them a wrong result, with the signed result. The signature is checked
//! before it comes here. One word alone makes this node look more closely itself, so that a false one changes nothing; only
//! different members who were each given a wrong result put a peer aside.

use std::collections::BTreeMap;

use crate::ids::NodeId;
use crate::limits::{ACCUSATIONS_MAX, ACCUSERS_MIN, QUARANTINE_MS};

/// What follows from one member's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It was known, or is about who says it.
    Nothing,
    /// Look at its results more often.
    Doubt,
    /// So many members say it: no jobs for it.
    PutAside(u32),
}

/// Who said it of whom, and when; milliseconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct Accusations {
    said: BTreeMap<(NodeId, NodeId), u64>,
}

impl Accusations {
    /// `accuser` showed a result that `accused` had signed for it and that it found wrong.
    pub fn says(&mut self, accuser: NodeId, accused: NodeId, now_ms: u64) -> Taken {
        self.said.retain(|_, at| *at <= now_ms && now_ms - *at < QUARANTINE_MS);
        if accuser == accused || self.said.contains_key(&(accused, accuser)) || self.said.len() >= ACCUSATIONS_MAX {
            return Taken::Nothing;
        }
        self.said.insert((accused, accuser), now_ms);
        let members = self.accusers(accused);
        if members >= ACCUSERS_MIN { Taken::PutAside(members) } else { Taken::Doubt }
    }

    /// How many members say it of this one.
    pub fn accusers(&self, accused: NodeId) -> u32 {
        self.said.keys().filter(|(of, _)| *of == accused).count() as u32
    }

    /// The person does not believe it: what was said so far counts no more.
    pub fn forget(&mut self, accused: NodeId) {
        self.said.retain(|(of, _), _| *of != accused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    #[test]
    fn one_member_however_often_it_speaks_puts_nobody_aside() {
        let mut said = Accusations::default();
        assert_eq!(said.says(node(1), node(9), 0), Taken::Doubt);
        for at in 1..1000 {
            assert_eq!(said.says(node(1), node(9), at), Taken::Nothing);
        }
        assert_eq!(said.says(node(9), node(9), 1000), Taken::Nothing);
        assert_eq!(said.says(node(2), node(9), 1000), Taken::PutAside(2));
    }

    #[test]
    fn words_grow_old_and_are_bounded() {
        let mut said = Accusations::default();
        assert_eq!(said.says(node(1), node(9), 0), Taken::Doubt);
        assert_eq!(said.says(node(2), node(9), QUARANTINE_MS), Taken::Doubt, "the first word is a day old");
        for n in 0..=u8::MAX {
            for of in 0..=u8::MAX {
                let _ = said.says(node(n), node(of), QUARANTINE_MS + 1);
            }
        }
        assert!(said.said.len() <= ACCUSATIONS_MAX);
        said.forget(node(9));
        assert_eq!(said.accusers(node(9)), 0);
    }
}
