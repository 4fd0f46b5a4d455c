//! Which statements of a batch are worth a look at their signatures. Checking one costs as much as reading a hundred, and
//! anybody in the team can send thousands that are signed well and say nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    ADDS_BYTES_MAX, Body, RECOVER_VOTES_MAX, REMOVALS_OF_PAIR_MAX, Role, STATEMENT_BYTES_MAX, Statement, StatementId,
    TeamSet, Unverified, VOID_BYTES_MAX, room,
};
use crate::ids::NodeId;

/// Votes of one member in one batch that are looked at: those that it may have in a set, and as many for keepers that a
/// majority has made.
const VOTES_LOOKED_AT_MAX: usize = 4 * RECOVER_VOTES_MAX;

impl TeamSet {
    /// Which of these could change the set now, by their place in the list. What hangs on one of them becomes worth a
    /// look only when that one is in the set: merge what is named here, then ask again. Pure, and no signature is checked.
    pub fn wanted(&self, batch: &[Unverified]) -> Vec<usize> {
        let mut sieve = Sieve::new(self, batch);
        for (at, unverified) in batch.iter().enumerate() {
            sieve.look(at, &unverified.statement);
        }
        sieve.finish()
    }

    fn held(&self, id: StatementId) -> Option<&Statement> {
        self.statements.get(&id).or_else(|| self.attic.get(&id)).map(AsRef::as_ref)
    }

    /// Whether all votes that a statement hangs on have their majority.
    fn is_in_play(&self, authority: &Statement) -> bool {
        let mut at = authority;
        loop {
            if let Body::Recover { keepers, .. } = &at.claim.body
                && !self.verdict.recovered.contains(keepers)
            {
                return false;
            }
            match at.claim.authority.and_then(|id| self.held(id)) {
                Some(next) => at = next,
                None => return true,
            }
        }
    }

    fn bytes_where(&self, wants: impl Fn(&Statement) -> bool) -> usize {
        self.statements().filter(|s| wants(s)).map(room::bytes_of).sum()
    }
}

/// What of a batch got through so far.
struct Sieve<'a> {
    set: &'a TeamSet,
    in_batch: HashMap<StatementId, usize>,
    /// Keepers' statements.
    chained: HashSet<usize>,
    /// Those that are void as far as is known: looked at only if a removal hangs on them, or while the attic has room.
    void: HashSet<usize>,
    removes: Vec<usize>,
    pairs: HashMap<(NodeId, NodeId), usize>,
    names: BTreeMap<NodeId, ((u64, StatementId), usize)>,
    left: BTreeMap<NodeId, (StatementId, usize)>,
    votes: BTreeMap<NodeId, Vec<usize>>,
    voters: HashMap<&'a [NodeId], HashSet<NodeId>>,
    batch: &'a [Unverified],
    held_votes: HashMap<&'a [NodeId], usize>,
}

impl<'a> Sieve<'a> {
    fn new(set: &'a TeamSet, batch: &'a [Unverified]) -> Self {
        let in_batch = batch.iter().enumerate().map(|(at, u)| (u.statement.id, at)).collect();
        let mut pairs: HashMap<(NodeId, NodeId), usize> = HashMap::new();
        let (mut names, mut left) = (BTreeMap::new(), BTreeMap::new());
        let mut held_votes: HashMap<&[NodeId], usize> = HashMap::new();
        for held in set.statements() {
            match &held.claim.body {
                Body::Rename { version, .. } => {
                    names.insert(held.by, ((*version, held.id), usize::MAX));
                }
                Body::Remove { node, .. } if *node == held.by && held.claim.prev.is_none() => {
                    left.insert(held.by, (held.id, usize::MAX));
                }
                Body::Remove { node, .. } => *pairs.entry((held.by, *node)).or_default() += 1,
                Body::Recover { keepers, .. } => *held_votes.entry(keepers).or_default() += 1,
                _ => {}
            }
        }
        Self {
            set,
            in_batch,
            chained: HashSet::new(),
            void: HashSet::new(),
            removes: Vec::new(),
            pairs,
            names,
            left,
            votes: BTreeMap::new(),
            voters: HashMap::new(),
            batch,
            held_votes,
        }
    }

    fn look(&mut self, at: usize, statement: &'a Statement) {
        let (set, claim) = (self.set, &statement.claim);
        if claim.team != Some(set.team()) || set.held(statement.id).is_some() || self.in_batch[&statement.id] != at {
            return;
        }
        // Also unknown ones of the same batch: they come first, and then this one's turn.
        let Some(authority) = claim.authority.and_then(|id| set.held(id)) else { return };
        let Some(role) = authority.grants(statement.by) else { return };
        if !set.is_in_play(authority) {
            return;
        }
        let is_keeper = role == Role::Keeper;
        let is_void = set.attic.contains_key(&authority.id);
        let is_removed = set.verdict.removed.contains_key(&statement.by);
        match &claim.body {
            Body::Found { .. } => {}
            Body::Rename { version, .. } => {
                let rank = (*version, statement.id);
                if set.is_member(statement.by) && self.names.get(&statement.by).is_none_or(|best| best.0 < rank) {
                    self.names.insert(statement.by, (rank, at));
                }
            }
            Body::Recover { keepers, .. } => {
                if set.is_member(statement.by) || set.verdict.recovered.contains(keepers) {
                    self.voters.entry(keepers).or_default().insert(statement.by);
                    self.votes.entry(statement.by).or_default().push(at);
                }
            }
            Body::Remove { node, keep } if *node == statement.by && !is_keeper => {
                let fits = keep.is_empty() && claim.prev.is_none();
                if fits && self.left.get(&statement.by).is_none_or(|best| statement.id < best.0) {
                    self.left.insert(statement.by, (statement.id, at));
                }
            }
            Body::Add { .. } | Body::Remove { .. } if !is_keeper => {}
            Body::Remove { node, .. } => {
                let pair = self.pairs.entry((statement.by, *node)).or_default();
                if *pair < REMOVALS_OF_PAIR_MAX {
                    *pair += 1;
                    self.removes.push(at);
                    self.chained.insert(at);
                }
            }
            Body::Add { .. } => {
                self.chained.insert(at);
                if is_void || is_removed {
                    self.void.insert(at);
                }
            }
        }
    }

    fn finish(mut self) -> Vec<usize> {
        self.drop_void();
        self.drop_incomplete();
        if self.removes.is_empty() {
            let is_add = |s: &Statement| matches!(s.claim.body, Body::Add { .. });
            let mut room = ADDS_BYTES_MAX.saturating_sub(self.set.bytes_where(is_add));
            let mut chained: Vec<usize> = self.chained.iter().copied().collect();
            chained.sort_unstable();
            for at in chained {
                let bytes = room::bytes_of(&self.batch[at].statement);
                match room.checked_sub(bytes) {
                    Some(left) => room = left,
                    None => drop(self.chained.remove(&at)),
                }
            }
        }
        let mut wanted: Vec<usize> = self.chained.iter().copied().collect();
        wanted.extend(self.names.values().map(|(_, at)| *at).filter(|at| *at != usize::MAX));
        wanted.extend(self.left.values().map(|(_, at)| *at).filter(|at| *at != usize::MAX));
        for of_one in self.votes.values() {
            wanted.extend(self.likely(of_one));
        }
        wanted.sort_unstable();
        wanted
    }

    /// A full attic takes no more, unless a removal hangs on it.
    fn drop_void(&mut self) {
        if self.void.is_empty() {
            return;
        }
        let attic: usize = self.set.attic().map(room::bytes_of).sum();
        if attic + STATEMENT_BYTES_MAX <= VOID_BYTES_MAX {
            return;
        }
        let mut open = self.removes.clone();
        while let Some(at) = open.pop() {
            for before in self.batch[at].statement.references().filter_map(|id| self.in_batch.get(&id).copied()) {
                if self.void.remove(&before) {
                    open.push(before);
                }
            }
        }
        self.chained.retain(|at| !self.void.contains(at));
    }

    /// A link of a chain is worth nothing without the one before.
    fn drop_incomplete(&mut self) {
        let mut follows: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut gone = Vec::new();
        for at in &self.chained {
            let Some(prev) = self.batch[*at].statement.claim.prev else { continue };
            if self.set.held(prev).is_some() {
                continue;
            }
            match self.in_batch.get(&prev) {
                Some(before) if self.chained.contains(before) => follows.entry(*before).or_default().push(*at),
                _ => gone.push(*at),
            }
        }
        while let Some(at) = gone.pop() {
            if self.chained.remove(&at) {
                gone.extend(follows.remove(&at).into_iter().flatten());
            }
        }
    }

    /// Of one member's votes those that can be stored: for what others want too, then by their ids.
    fn likely(&self, of_one: &[usize]) -> Vec<usize> {
        let mut ranked: Vec<(bool, usize, StatementId, usize)> = of_one
            .iter()
            .filter_map(|at| {
                let statement = &self.batch[*at].statement;
                let Body::Recover { keepers, .. } = &statement.claim.body else { return None };
                let list = keepers.as_slice();
                let others = self.voters.get(list).map_or(0, HashSet::len);
                let wanted = others + self.held_votes.get(list).copied().unwrap_or(0);
                let is_made = self.set.verdict.recovered.contains(keepers);
                Some((!is_made, usize::MAX - wanted, statement.id, *at))
            })
            .collect();
        ranked.sort_unstable();
        ranked.truncate(VOTES_LOOKED_AT_MAX);
        ranked.into_iter().map(|(_, _, _, at)| at).collect()
    }
}
