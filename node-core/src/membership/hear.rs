//! What other nodes tell of the team: statements in parts that every message can carry, and taking them in without
//! checking more signatures than could matter.

use std::collections::HashSet;
use std::sync::Arc;

use potluck_model::limits::GOSSIP_BYTES_MAX;
use potluck_model::team::{
    AUTHORITY_DEPTH_MAX, Body, Refusal, STATEMENTS_MAX, Signatures, Statement, StatementId, TeamSet, Unverified,
    in_order,
};

use super::{Membership, MembershipError, codec};

/// Forged statements in one batch after which the rest of it is not looked at: no honest member passes on any.
const FORGED_MAX: usize = 8;
/// Statements that were checked and changed nothing, remembered so that they are not checked again; 640 kB.
const USELESS_MAX: usize = 20_000;

/// What a batch of statements did, and what it cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Heard {
    /// Whether the team's set is another one now.
    pub changed: bool,
    /// Statements that were decoded: some microseconds each.
    pub read: usize,
    /// Signatures that were checked: a twentieth of a millisecond each.
    pub verified: usize,
    /// Of them wrong: whoever sends such is no honest member.
    pub forged: usize,
}

impl Membership {
    /// Takes in statements from a member. Bad ones are left out: one bad statement must not hide a removal behind it. Only
    /// signatures that could change the set are checked. May be called on any thread and takes long only for a large
    /// first batch; others may read meanwhile.
    pub fn merge(&self, raw: Vec<Vec<u8>>) -> Result<Heard, MembershipError> {
        let mut heard = Heard::default();
        let (mut mine, useless) = {
            let state = self.lock();
            let set = state.set.as_ref().ok_or(MembershipError::NoTeam)?;
            (TeamSet::clone(set), Arc::clone(&state.useless))
        };
        let mut batch: Vec<Unverified> = Vec::new();
        for raw in raw.into_iter().take(STATEMENTS_MAX) {
            heard.read += 1;
            // Others are of a newer version, perhaps.
            if let Ok(unverified) = codec::read(&raw, &codec::Ring)
                && !useless.contains(&unverified.id())
            {
                batch.push(unverified);
            }
        }
        let taken = take_wanted(&mut mine, batch, &codec::Ring, &mut heard);
        if taken.is_empty() {
            return Ok(heard);
        }
        let mut state = self.lock();
        let mut set = TeamSet::clone(state.set.as_ref().ok_or(MembershipError::NoTeam)?);
        let ids: Vec<StatementId> = taken.iter().map(Statement::id).collect();
        heard.changed = set.merge(taken).changed;
        if heard.changed {
            // Another set may want what this one did not.
            state.useless = Arc::default();
            self.replace(&mut state, set)?;
        } else {
            let mut known = HashSet::clone(&state.useless);
            if known.len() + ids.len() > USELESS_MAX {
                known.clear();
            }
            known.extend(ids.into_iter().take(USELESS_MAX));
            state.useless = Arc::new(known);
        }
        Ok(heard)
    }

    /// All statements as they travel, in parts that each fit in one message. Whoever takes them in this order misses
    /// nothing on the way: votes first, then removals, and each after what it hangs on.
    pub fn parts(&self) -> Vec<Vec<Vec<u8>>> {
        let set = self.lock().set.clone();
        set.map(|set| in_parts(told_in_order(&set).into_iter().map(|s| s.raw().to_vec()))).unwrap_or_default()
    }
}

/// Verifies what could matter and takes it into `set`, round by round: what hangs on a statement is looked at once that
/// one is in the set. Returns what was verified.
pub fn take_wanted(
    set: &mut TeamSet,
    mut batch: Vec<Unverified>,
    signatures: &dyn Signatures,
    heard: &mut Heard,
) -> Vec<Statement> {
    let mut taken = Vec::new();
    for _ in 0..AUTHORITY_DEPTH_MAX {
        let wanted: HashSet<usize> = set.wanted(&batch).into_iter().collect();
        if wanted.is_empty() {
            break;
        }
        let mut rest = Vec::with_capacity(batch.len() - wanted.len());
        let mut round = Vec::new();
        for (at, unverified) in batch.into_iter().enumerate() {
            if !wanted.contains(&at) {
                rest.push(unverified);
                continue;
            }
            if heard.forged >= FORGED_MAX {
                continue;
            }
            heard.verified += 1;
            match unverified.verify(signatures) {
                Ok(statement) => round.push(statement),
                Err(Refusal::BadSignature) => heard.forged += 1,
                Err(_) => {}
            }
        }
        batch = rest;
        set.merge(round.clone());
        taken.append(&mut round);
        if heard.forged >= FORGED_MAX {
            break;
        }
    }
    taken
}

/// A set in the order in which it is told.
pub fn told_in_order(set: &TeamSet) -> Vec<&Statement> {
    let mut all: Vec<&Statement> = set.statements().collect();
    all.sort_by_key(|s| match s.claim().body {
        Body::Found { .. } => 0,
        Body::Recover { .. } => 1,
        Body::Remove { .. } => 2,
        Body::Add { .. } => 3,
        Body::Rename { .. } => 4,
    });
    in_order(all)
}

/// Statements in messages of bounded size.
pub(crate) fn in_parts(raw: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    let mut parts: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut bytes = usize::MAX;
    for statement in raw {
        // Tag and length of the field: four bytes at most.
        let len = statement.len() + 4;
        if bytes.saturating_add(len) > GOSSIP_BYTES_MAX {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += len;
        parts.last_mut().expect("one was just added").push(statement);
    }
    parts
}
