//! Taking in what another node knows: the structural rules, those that need only a statement and what it refers to and
//! hold for ever, and then what is worth keeping of the union (`room`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{
    AUTHORITY_DEPTH_MAX, Body, Merged, REMOVALS_OF_PAIR_MAX, Refusal, Role, Statement, StatementId, Statements,
    TeamSet, room, verdict,
};
use crate::ids::NodeId;

impl TeamSet {
    /// Takes in what another node knows. The order does not matter, neither within the list nor between calls, but where
    /// a keeper has filled the room of a kind: then what was there stays.
    pub fn merge(&mut self, incoming: Vec<Statement>) -> Merged {
        let mut merged = Merged::default();
        let mut union = Union::of(self);
        let mut queue: VecDeque<Statement> = incoming.into();
        // Statements that wait for one that may come later in the list, by what they miss.
        let mut waiting: HashMap<StatementId, Vec<Statement>> = HashMap::new();
        while let Some(statement) = queue.pop_front() {
            let id = statement.id;
            // A signer can sign one body in several ways. They say the same: the first one heard is kept.
            if union.all.contains_key(&id) {
                continue;
            }
            if let Some(missing) = statement.references().find(|id| !union.all.contains_key(id)) {
                waiting.entry(missing).or_default().push(statement);
                continue;
            }
            match union.admit(self, statement) {
                Ok(()) => queue.extend(waiting.remove(&id).unwrap_or_default()),
                Err(why) => merged.refused.push((id, why)),
            }
        }
        let left = waiting.into_values().flatten();
        merged.refused.extend(left.map(|s| (s.id, Refusal::Incomplete)));
        if !union.has_grown {
            return merged;
        }
        let reduced = room::reduce(self.root, union.all, &self.statements);
        merged.refused.extend(reduced.refused.into_iter().map(|id| (id, Refusal::Full)));
        merged.changed = !reduced.statements.keys().eq(self.statements.keys());
        self.attic = reduced.attic;
        if merged.changed {
            self.statements = reduced.statements;
            self.verdict = reduced.verdict;
        }
        merged
    }

    /// Takes in everything of another set of the same team, also what is void there.
    pub fn union(&mut self, other: &TeamSet) -> Merged {
        self.merge(other.statements().chain(other.attic()).cloned().collect())
    }
}

/// All that was heard, before it is judged.
struct Union {
    all: Statements,
    /// Removals of one node by one keeper.
    pairs: HashMap<(NodeId, NodeId), usize>,
    has_grown: bool,
}

impl Union {
    fn of(set: &TeamSet) -> Self {
        let mut all = set.statements.clone();
        all.extend(set.attic.iter().map(|(id, statement)| (*id, Arc::clone(statement))));
        let mut pairs: HashMap<(NodeId, NodeId), usize> = HashMap::new();
        for statement in set.statements.values() {
            if let Body::Remove { node, .. } = statement.claim.body {
                *pairs.entry((statement.by, node)).or_default() += 1;
            }
        }
        Self { all, pairs, has_grown: false }
    }

    fn admit(&mut self, set: &TeamSet, statement: Statement) -> Result<(), Refusal> {
        let claim = &statement.claim;
        if claim.team != Some(set.team()) || matches!(claim.body, Body::Found { .. }) {
            return Err(Refusal::OtherTeam);
        }
        let authority = &self.all[&claim.authority.ok_or(Refusal::BadReference)?];
        let role = authority.grants(statement.by).ok_or(Refusal::NotEntitled)?;
        let is_keeper = role == Role::Keeper;
        if let Some(prev) = claim.prev {
            let prev = &self.all[&prev];
            if prev.by != statement.by || !prev.is_chained() || !statement.is_chained() {
                return Err(Refusal::BadReference);
            }
        }
        if verdict::path(&self.all, &statement).len() > AUTHORITY_DEPTH_MAX {
            return Err(Refusal::TooLarge);
        }
        match &claim.body {
            Body::Found { .. } => return Err(Refusal::OtherTeam),
            Body::Add { .. } if !is_keeper => return Err(Refusal::NotEntitled),
            // Leaving says nothing else.
            Body::Remove { node, keep } if *node == statement.by => {
                if !keep.is_empty() || (!is_keeper && claim.prev.is_some()) {
                    return Err(Refusal::BadReference);
                }
            }
            Body::Remove { .. } if !is_keeper => return Err(Refusal::NotEntitled),
            Body::Add { .. } | Body::Remove { .. } | Body::Rename { .. } | Body::Recover { .. } => {}
        }
        if let Body::Remove { node, .. } = claim.body {
            let pair = self.pairs.entry((statement.by, node)).or_default();
            if *pair >= REMOVALS_OF_PAIR_MAX {
                return Err(Refusal::TooLarge);
            }
            *pair += 1;
        }
        self.all.insert(statement.id, Arc::new(statement));
        self.has_grown = true;
        Ok(())
    }
}
