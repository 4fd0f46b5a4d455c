//! Which statements a node keeps, and how much room each kind of them has. Whatever was heard, in whatever order, is
//! brought down to what counts: one name and one leaving of each member, a few votes, and what keepers said, as long as
//! it is not void.
//!
//! What is void is not told to others, but the nearest of it is kept for a time at which the removal that voids it may
//! be disowned (`TeamSet::attic`). A flood signed with a stolen key so takes no room any more as soon as the key is
//! removed, and a removal always makes its own room where it voids what fills the set.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::verdict::{self, Judged};
use super::{
    Body, RECOVER_KEEPERS_MAX, RECOVER_VOTES_MAX, REMOVALS_OF_PAIR_MAX, RENAME_BYTES_MAX, Role, STATEMENT_BYTES_MAX,
    Statement, StatementId, Statements, Verdict,
};
use crate::ids::NodeId;
use crate::limits::CONTROL_MESSAGE_BYTES_MAX;

/// Keepers' `Add`s: some 3,500 with one address each. A team has at most 200 PCs; the rest is for years of new keys.
pub const ADDS_BYTES_MAX: usize = 1152 << 10;
/// Keepers' `Remove`s: each node that could be added can also be removed, see below.
pub const REMOVES_BYTES_MAX: usize = 1408 << 10;
/// What members say of themselves: 240 that use all their room, thousands of the ordinary kind.
pub const LEAVES_BYTES_MAX: usize = 1 << 20;
/// What is void and still told because a removal that counts hangs on it; and once more for the attic.
pub const VOID_BYTES_MAX: usize = 256 << 10;
/// The largest set: the founding and all of the above.
pub const SET_BYTES_MAX: usize =
    STATEMENT_BYTES_MAX + ADDS_BYTES_MAX + REMOVES_BYTES_MAX + LEAVES_BYTES_MAX + VOID_BYTES_MAX;
/// What stands before a statement in a message or a file.
const FRAME_BYTES: usize = 8;
/// Smallest `Add` and a `Remove` that keeps nothing, with key, signature and references.
const ADD_BYTES_MIN: usize = 213 + FRAME_BYTES;
const REMOVE_BYTES: usize = 245 + FRAME_BYTES;

/// A vote with all the names that it can have, and a member's leaving: keys, references, signature and framing included.
const VOTE_BYTES_MAX: usize = 240 + 34 * RECOVER_KEEPERS_MAX;
const LEAVING_BYTES_MAX: usize = 256;
/// All that one member that is no keeper can have in a set, whatever it signs, beside its votes for keepers that a
/// majority has made.
pub const MEMBER_BYTES_MAX: usize = RENAME_BYTES_MAX + RECOVER_VOTES_MAX * VOTE_BYTES_MAX + LEAVING_BYTES_MAX;

/// What else is in the message that welcomes a joiner: refusals while it waits, at most one in two seconds.
const WELCOME_BYTES: usize = 16 << 10;
const _: () = assert!(SET_BYTES_MAX + WELCOME_BYTES <= CONTROL_MESSAGE_BYTES_MAX, "a set must fit in a welcome");
const _: () = assert!(REMOVES_BYTES_MAX / REMOVE_BYTES >= ADDS_BYTES_MAX / ADD_BYTES_MIN, "all can be removed");

/// What a statement takes of the room.
pub(super) fn bytes_of(statement: &Statement) -> usize {
    statement.raw.len() + FRAME_BYTES
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Add,
    Remove,
    /// What a member says of itself; nothing but a vote has others hang on it.
    Leaf,
}

pub(super) fn kind_of(all: &Statements, statement: &Statement) -> Kind {
    let as_keeper = || {
        let authority = statement.claim.authority.and_then(|id| all.get(&id));
        authority.and_then(|a| a.grants(statement.by)) == Some(Role::Keeper)
    };
    match statement.claim.body {
        Body::Found { .. } | Body::Add { .. } => Kind::Add,
        Body::Remove { .. } if as_keeper() => Kind::Remove,
        Body::Remove { .. } | Body::Rename { .. } | Body::Recover { .. } => Kind::Leaf,
    }
}

/// Statements so that each comes after those that it hangs on; else in the order that is given.
pub fn in_order<'a>(first: impl IntoIterator<Item = &'a Statement>) -> Vec<&'a Statement> {
    let first: Vec<&Statement> = first.into_iter().collect();
    let all: HashMap<StatementId, &Statement> = first.iter().map(|s| (s.id, *s)).collect();
    let mut out = Vec::with_capacity(first.len());
    let mut done = HashSet::with_capacity(first.len());
    for statement in first {
        let mut stack = vec![statement];
        while let Some(top) = stack.last().copied() {
            if done.contains(&top.id) {
                stack.pop();
            } else if let Some(before) =
                top.references().filter(|id| !done.contains(id)).find_map(|id| all.get(&id).copied())
            {
                stack.push(before);
            } else {
                done.insert(top.id);
                out.push(top);
                stack.pop();
            }
        }
    }
    out
}

/// What is kept of a union.
pub(super) struct Reduced {
    pub(super) statements: Statements,
    pub(super) attic: Statements,
    pub(super) verdict: Verdict,
    /// Valid, and no room for them.
    pub(super) refused: Vec<StatementId>,
}

/// `held` is what was kept before: it stays where new statements would not fit beside it.
pub(super) fn reduce(root: StatementId, mut union: Statements, held: &Statements) -> Reduced {
    let mut refused = Vec::new();
    let mut first: Option<(Statements, Judged)> = None;
    // Until nothing more falls out: what is kept must mean by itself what it meant in the union, or who reads it back
    // would keep something else.
    loop {
        let judged = verdict::of(root, &union);
        let mut choice = Choice::new(root, &union, &judged);
        choice.take_all(held);
        if choice.refused.is_empty() {
            let taken = choice.taken;
            if taken.len() == union.len() {
                let attic = match &first {
                    Some((all, judged)) => attic(all, judged, &taken),
                    None => attic(&union, &judged, &taken),
                };
                return Reduced { statements: union, attic, verdict: judged.verdict, refused };
            }
            let left = union.iter().filter(|(id, _)| taken.contains(id)).map(|(id, s)| (*id, Arc::clone(s))).collect();
            let all = std::mem::replace(&mut union, left);
            first.get_or_insert((all, judged));
            continue;
        }
        // Without them other statements may count; what hangs on them goes too.
        refused.append(&mut choice.refused);
        let gone: HashSet<StatementId> = refused.iter().copied().collect();
        let mut left: HashSet<StatementId> = HashSet::new();
        for statement in in_order(union.values().map(AsRef::as_ref)) {
            if !gone.contains(&statement.id) && statement.references().all(|id| left.contains(&id)) {
                left.insert(statement.id);
            }
        }
        drop(judged);
        union.retain(|id, _| left.contains(id));
    }
}

struct Choice<'a> {
    root: StatementId,
    all: &'a Statements,
    judged: &'a Judged,
    taken: HashSet<StatementId>,
    refused: Vec<StatementId>,
    adds: usize,
    removes: usize,
    void: usize,
    leaves: usize,
    pairs: HashMap<(NodeId, NodeId), usize>,
}

impl<'a> Choice<'a> {
    fn new(root: StatementId, all: &'a Statements, judged: &'a Judged) -> Self {
        let taken = HashSet::from([root]);
        let (adds, removes, void, leaves) = (0, 0, 0, 0);
        let (refused, pairs) = (Vec::new(), HashMap::new());
        Self { root, all, judged, taken, refused, adds, removes, void, leaves, pairs }
    }

    fn take_all(&mut self, held: &Statements) {
        let is_chained = |s: &&Statement| s.id != self.root && kind_of(self.all, s) != Kind::Leaf;
        let valid = self.all.values().map(AsRef::as_ref).filter(|s| self.judged.valid.contains(&s.id));
        let mut chained: Vec<&Statement> = valid.filter(is_chained).collect();
        // What was there stays; among the new ones those nearest to the founding come first.
        chained.sort_by_cached_key(|s| {
            let depth = verdict::path(self.all, s).len();
            (!held.contains_key(&s.id), depth, s.id)
        });
        // Two that count may be joined by a link that does not, so the order is that of all.
        let counts: HashSet<StatementId> = chained.iter().map(|s| s.id).collect();
        chained.extend(self.all.values().map(AsRef::as_ref).filter(|s| !counts.contains(&s.id)));
        for statement in in_order(chained).into_iter().filter(|s| counts.contains(&s.id)) {
            if !self.take_chained(statement) {
                self.refused.push(statement.id);
            }
        }
        self.take_leaves();
    }

    /// A valid `Add` or `Remove` of a keeper, with all that it hangs on.
    fn take_chained(&mut self, statement: &'a Statement) -> bool {
        let Some(void) = self.missing_before(statement) else { return false };
        let void_bytes: usize = void.iter().map(|s| bytes_of(s)).sum();
        if self.void + void_bytes > VOID_BYTES_MAX {
            return false;
        }
        let bytes = bytes_of(statement);
        let room = match &statement.claim.body {
            Body::Remove { node, .. } => {
                let pair = self.pairs.entry((statement.by, *node)).or_default();
                if *pair >= REMOVALS_OF_PAIR_MAX || self.removes + bytes > REMOVES_BYTES_MAX {
                    return false;
                }
                *pair += 1;
                &mut self.removes
            }
            _ if self.adds + bytes > ADDS_BYTES_MAX => return false,
            _ => &mut self.adds,
        };
        *room += bytes;
        self.void += void_bytes;
        self.taken.insert(statement.id);
        self.taken.extend(void.iter().map(|s| s.id));
        true
    }

    /// What a valid statement hangs on and nobody has taken: void links of its signer's chain, votes. None: something
    /// that there was no room for.
    fn missing_before(&self, statement: &'a Statement) -> Option<Vec<&'a Statement>> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut open: Vec<StatementId> = statement.references().collect();
        while let Some(id) = open.pop() {
            if self.taken.contains(&id) || !seen.insert(id) {
                continue;
            }
            let before = self.all.get(&id)?;
            if self.judged.valid.contains(&id) && kind_of(self.all, before) != Kind::Leaf {
                return None;
            }
            open.extend(before.references());
            found.push(before.as_ref());
        }
        Some(found)
    }

    fn take_leaves(&mut self) {
        let verdict = &self.judged.verdict;
        let recovered: BTreeSet<&[NodeId]> = verdict.recovered.iter().map(Vec::as_slice).collect();
        let mut left: BTreeMap<NodeId, &Statement> = BTreeMap::new();
        let mut names: BTreeMap<NodeId, (u64, &Statement)> = BTreeMap::new();
        let mut pinned: BTreeMap<(NodeId, &[NodeId]), &Statement> = BTreeMap::new();
        let mut votes: BTreeMap<NodeId, BTreeMap<&[NodeId], &Statement>> = BTreeMap::new();
        // In the order of their ids: the first of each kind has the smallest.
        for statement in self.all.values().filter(|s| self.judged.valid.contains(&s.id)) {
            let by = statement.by;
            let is_member = verdict.members.contains_key(&by);
            match &statement.claim.body {
                Body::Remove { .. } if kind_of(self.all, statement) == Kind::Leaf => {
                    left.entry(by).or_insert(statement);
                }
                Body::Rename { version, .. } if is_member => {
                    let best = names.entry(by).or_insert((*version, statement));
                    if (best.0, best.1.id) < (*version, statement.id) {
                        *best = (*version, statement);
                    }
                }
                Body::Recover { keepers, .. } if recovered.contains(keepers.as_slice()) => {
                    // The one that hangs on the fewest: the others may hang on a vote that is not kept.
                    let depth = |s: &Statement| verdict::path(self.all, s).len();
                    let best = pinned.entry((by, keepers)).or_insert(statement);
                    if depth(statement) < depth(best) {
                        *best = statement;
                    }
                }
                Body::Recover { keepers, .. } if is_member => {
                    votes.entry(by).or_default().entry(keepers).or_insert(statement);
                }
                _ => {}
            }
        }
        let others = votes.into_values().flat_map(|of_one| {
            let mut of_one: Vec<&Statement> = of_one.into_values().collect();
            of_one.sort_unstable_by_key(|s| s.id);
            of_one.truncate(RECOVER_VOTES_MAX);
            of_one
        });
        let names = names.into_values().map(|(_, statement)| statement);
        // A vote may hang on another one.
        let pinned = in_order(pinned.into_values());
        for leaf in pinned.into_iter().chain(left.into_values()).chain(names).chain(others) {
            let bytes = bytes_of(leaf);
            let is_there = leaf.references().all(|id| self.taken.contains(&id));
            if is_there && !self.taken.contains(&leaf.id) && self.leaves + bytes <= LEAVES_BYTES_MAX {
                self.leaves += bytes;
                self.taken.insert(leaf.id);
            }
        }
    }
}

/// The nearest of what is void for now: what hangs on few others first, and of each signer equally many.
fn attic(all: &Statements, judged: &Judged, taken: &HashSet<StatementId>) -> Statements {
    let is_void = |s: &&Statement| {
        let said = matches!(s.claim.body, Body::Add { .. } | Body::Remove { .. });
        said && !taken.contains(&s.id) && !judged.valid.contains(&s.id) && !judged.out_of_play.contains(&s.id)
    };
    let void: Vec<&Statement> = all.values().map(AsRef::as_ref).filter(is_void).collect();
    if void.is_empty() {
        return Statements::new();
    }
    let mut of_signer: HashMap<NodeId, usize> = HashMap::new();
    let mut ranked: Vec<(usize, usize, &Statement)> = in_order(void)
        .into_iter()
        .map(|s| {
            let place = of_signer.entry(s.by).or_default();
            *place += 1;
            (verdict::path(all, s).len(), *place, s)
        })
        .collect();
    ranked.sort_by_key(|(depth, place, s)| (*depth, *place, s.id));
    let mut attic = Statements::new();
    let mut bytes = 0;
    for statement in in_order(ranked.into_iter().map(|(_, _, s)| s)) {
        let is_closed = statement.references().all(|id| taken.contains(&id) || attic.contains_key(&id));
        if is_closed && bytes + bytes_of(statement) <= VOID_BYTES_MAX {
            bytes += bytes_of(statement);
            attic.insert(statement.id, Arc::clone(&all[&statement.id]));
        }
    }
    attic
}
