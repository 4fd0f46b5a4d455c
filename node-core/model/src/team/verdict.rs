//! What a set of statements means: which removals count, who is a member. A function of the set alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{Body, Member, NAME_BYTES_MAX, Role, Statement, StatementId, Statements, Verdict};
use crate::ids::{Digest, NodeId};
use crate::names;

/// What a set means, and which of its statements have a part in that.
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    /// Statements that hang on no removal that counts, and on no vote without a majority; removals, if they count.
    pub(super) valid: HashSet<StatementId>,
    /// Statements that hang on a vote without a majority: any member can sign such a vote, so they are kept nowhere.
    pub(super) out_of_play: HashSet<StatementId>,
}

/// A statement and all that its signer's entitlement hangs on, up to the founding.
pub(super) fn path<'a>(all: &'a Statements, from: &'a Statement) -> Vec<&'a Statement> {
    let mut path = vec![from];
    while let Some(id) = path[path.len() - 1].claim.authority {
        path.push(&all[&id]);
    }
    path
}

/// Whether a removal of `target`, signed under `authority`, would void what entitles its own signer. It says nothing then.
pub(super) fn contradicts_itself(
    root: StatementId,
    all: &Statements,
    authority: StatementId,
    target: NodeId,
    keep: &[StatementId],
) -> bool {
    let mut kept = HashSet::new();
    for head in keep {
        let mut at = all.get(head);
        while let Some(statement) = at
            && kept.insert(statement.id)
        {
            at = statement.claim.prev.and_then(|id| all.get(&id));
        }
    }
    let Some(authority) = all.get(&authority) else { return true };
    path(all, authority).iter().any(|s| s.by == target && s.is_chained() && s.id != root && !kept.contains(&s.id))
}

/// The chains of all signers, numbered so that "comes before" is one comparison however long they are.
struct Chains(HashMap<StatementId, (usize, usize)>);

impl Chains {
    fn of(all: &Statements) -> Self {
        let mut next: HashMap<StatementId, Vec<StatementId>> = HashMap::new();
        for statement in all.values() {
            if let Some(prev) = statement.claim.prev {
                next.entry(prev).or_default().push(statement.id);
            }
        }
        // Depth first: what follows a statement lies between the two numbers that it gets on the way in and out.
        let mut spans = HashMap::new();
        let mut clock = 0;
        for first in all.values().filter(|s| s.claim.prev.is_none()) {
            let mut stack = vec![(first.id, false)];
            while let Some((id, done)) = stack.pop() {
                clock += 1;
                if done {
                    spans.entry(id).and_modify(|span: &mut (usize, usize)| span.1 = clock);
                    continue;
                }
                spans.insert(id, (clock, clock));
                stack.push((id, true));
                stack.extend(next.get(&id).into_iter().flatten().map(|id| (*id, false)));
            }
        }
        Self(spans)
    }

    /// Whether a statement comes at or before one of these. A head that is not here keeps nothing until it is: who holds
    /// less of a removed keeper's statements must not for that reason miss the removal.
    fn has(&self, heads: &[StatementId], id: StatementId) -> bool {
        let (first, last) = self.0[&id];
        let known = heads.iter().filter_map(|head| self.0.get(head));
        known.into_iter().any(|head| (first..=last).contains(&head.0))
    }
}

/// A removal with what it leaves valid of its target's statements.
struct Removal<'a> {
    statement: &'a Statement,
    target: NodeId,
    kept: &'a [StatementId],
    chains: &'a Chains,
}

impl<'a> Removal<'a> {
    fn of(chains: &'a Chains, statement: &'a Statement) -> Option<Self> {
        let Body::Remove { node: target, keep } = &statement.claim.body else { return None };
        // Who leaves keeps what he said before.
        let kept = if *target == statement.by { std::slice::from_ref(&statement.id) } else { keep };
        Some(Self { statement, target: *target, kept, chains })
    }

    /// Whether a statement, given as its path, is void if this removal counts.
    fn voids(&self, path: &[&Statement]) -> bool {
        path[0].id != self.statement.id && path.iter().any(|s| self.strikes(s))
    }

    fn strikes(&self, s: &Statement) -> bool {
        let link = matches!(s.claim.body, Body::Add { .. } | Body::Remove { .. });
        link && s.by == self.target && !self.chains.has(self.kept, s.id)
    }
}

/// `all` is closed: what its statements hang on is in it.
pub(super) fn of(root: StatementId, all: &Statements) -> Judged {
    let paths: HashMap<StatementId, Vec<&Statement>> = all.values().map(|s| (s.id, path(all, s))).collect();
    let chains = Chains::of(all);
    let mut recovered: BTreeSet<&[NodeId]> = BTreeSet::new();
    // A recovery entitles new keepers, whose statements can found the next recovery; each round adds at least one.
    loop {
        let in_play = |s: &&Arc<Statement>| {
            paths[&s.id][1..].iter().all(|on_path| match &on_path.claim.body {
                Body::Recover { keepers, .. } => recovered.contains(keepers.as_slice()),
                _ => true,
            })
        };
        let playing: Vec<&Statement> = all.values().filter(in_play).map(Arc::as_ref).collect();
        let mut round = judge(root, &playing, &paths, &chains, &recovered);
        let more = majorities(&playing, &round);
        if more.iter().all(|list| recovered.contains(list)) {
            let playing: HashSet<StatementId> = playing.iter().map(|s| s.id).collect();
            round.out_of_play = all.keys().filter(|id| !playing.contains(id)).copied().collect();
            round.verdict.recovered = recovered.into_iter().map(<[NodeId]>::to_vec).collect();
            return round;
        }
        recovered.extend(more);
    }
}

/// Proposals of new keepers that a strict majority of all members have signed. Also long absent members count: nobody
/// can prove to a third that a PC is gone, and a minority that could declare it would take the team.
fn majorities<'a>(playing: &[&'a Statement], round: &Judged) -> Vec<&'a [NodeId]> {
    let members = &round.verdict.members;
    let mut voters: BTreeMap<&[NodeId], BTreeSet<NodeId>> = BTreeMap::new();
    for statement in playing.iter().filter(|s| round.valid.contains(&s.id)) {
        if let Body::Recover { keepers, .. } = &statement.claim.body
            && members.contains_key(&statement.by)
        {
            voters.entry(keepers).or_default().insert(statement.by);
        }
    }
    voters.retain(|_, by| by.len() * 2 > members.len());
    voters.into_keys().collect()
}

fn judge(
    root: StatementId,
    playing: &[&Statement],
    paths: &HashMap<StatementId, Vec<&Statement>>,
    chains: &Chains,
    recovered: &BTreeSet<&[NodeId]>,
) -> Judged {
    let mut removals: Vec<Removal> = playing.iter().filter_map(|s| Removal::of(chains, s)).collect();
    // One that voids what entitles its own signer contradicts itself. Who leaves does not.
    removals.retain(|r| r.target == r.statement.by || !paths[&r.statement.id][1..].iter().any(|s| r.strikes(s)));
    let counting: Vec<&Removal> = count(&removals, paths);
    let mut by_target: HashMap<NodeId, Vec<&Removal>> = HashMap::new();
    for removal in &counting {
        by_target.entry(removal.target).or_default().push(removal);
    }
    let is_valid = |s: &Statement| {
        let path = &paths[&s.id];
        // Only removals of a signer on the path can void it.
        let mut signers: Vec<NodeId> = path.iter().map(|on_path| on_path.by).collect();
        signers.sort_unstable();
        signers.dedup();
        !signers.iter().flat_map(|by| by_target.get(by).into_iter().flatten()).any(|r| r.voids(path))
    };
    let mut valid: HashSet<StatementId> = counting.iter().map(|r| r.statement.id).collect();
    let is_removal = |s: &Statement| matches!(s.claim.body, Body::Remove { .. });
    let standing: Vec<&Statement> = playing.iter().copied().filter(|s| !is_removal(s) && is_valid(s)).collect();
    valid.extend(standing.iter().map(|s| s.id));

    let mut roll = Roll::default();
    standing.iter().for_each(|s| roll.take(root, s, recovered));
    let verdict = roll.close(&counting);
    Judged { verdict, valid, out_of_play: HashSet::new() }
}

/// Members as statements that stand make them.
#[derive(Default)]
struct Roll<'a> {
    members: BTreeMap<NodeId, Member>,
    versions: HashMap<NodeId, (u64, StatementId)>,
    renames: BTreeMap<NodeId, (u64, &'a Statement)>,
    keepers: HashSet<NodeId>,
    entitling: Vec<StatementId>,
}

impl<'a> Roll<'a> {
    fn take(&mut self, root: StatementId, statement: &'a Statement, recovered: &BTreeSet<&[NodeId]>) {
        let (node, role, name, addresses, version) = match &statement.claim.body {
            Body::Found { node_name, addresses, .. } if statement.id == root => {
                (statement.by, Role::Keeper, node_name, addresses, 0)
            }
            Body::Add { node, role, name, addresses, version } => (*node, *role, name, addresses, *version),
            Body::Recover { keepers: proposed, .. } if recovered.contains(proposed.as_slice()) => {
                self.keepers.extend(proposed);
                self.entitling.push(statement.id);
                return;
            }
            Body::Rename { version, .. } => {
                let best = self.renames.entry(statement.by).or_insert((*version, statement));
                if (best.0, best.1.id) < (*version, statement.id) {
                    *best = (*version, statement);
                }
                return;
            }
            _ => return,
        };
        self.entitling.push(statement.id);
        if role == Role::Keeper {
            self.keepers.insert(node);
        }
        let rank = (version, statement.id);
        if self.versions.get(&node).is_none_or(|best| *best < rank) {
            self.versions.insert(node, rank);
            // What is shown of a name is decided here, once for all who show it.
            let name = names::shown(name, NAME_BYTES_MAX);
            let member = Member { node, role, name, addresses: addresses.clone(), by: statement.by };
            self.members.insert(node, member);
        }
    }

    fn close(self, counting: &[&Removal]) -> Verdict {
        let Self { mut members, renames, keepers, entitling, .. } = self;
        for (node, (_, rename)) in renames {
            if let (Some(member), Body::Rename { name, addresses, .. }) = (members.get_mut(&node), &rename.claim.body) {
                member.name = names::shown(name, NAME_BYTES_MAX);
                member.addresses.clone_from(addresses);
            }
        }
        let mut removed = BTreeMap::new();
        for removal in counting {
            members.remove(&removal.target);
            let first = removed.entry(removal.target).or_insert(removal.statement.id);
            *first = removal.statement.id.min(*first);
        }
        for member in members.values_mut().filter(|m| keepers.contains(&m.node)) {
            member.role = Role::Keeper;
        }
        let mut ids: Vec<_> = counting.iter().map(|r| r.statement.id).collect();
        ids.sort_unstable();
        let epoch = Digest::of(&ids.iter().flat_map(|id| id.0).collect::<Vec<u8>>());
        Verdict { members, removed, epoch, entitling, recovered: Vec::new() }
    }
}

/// The removals that count. One is void if another that counts voids it; rings of removals that void each other count
/// together, unless one from outside the ring breaks it. Decided from the unattacked inwards, so that the result is
/// unique.
fn count<'r, 'a>(removals: &'r [Removal<'a>], paths: &HashMap<StatementId, Vec<&Statement>>) -> Vec<&'r Removal<'a>> {
    let mut signed_under: HashMap<NodeId, BTreeSet<usize>> = HashMap::new();
    for (at, removal) in removals.iter().enumerate() {
        for on_path in &paths[&removal.statement.id] {
            signed_under.entry(on_path.by).or_default().insert(at);
        }
    }
    let attacks: Vec<Vec<usize>> = removals
        .iter()
        .map(|attacker| {
            let candidates = signed_under.get(&attacker.target).into_iter().flatten().copied();
            candidates.filter(|at| attacker.voids(&paths[&removals[*at].statement.id])).collect()
        })
        .collect();

    #[derive(Clone, Copy, PartialEq)]
    enum Fate {
        Open,
        Counts,
        Void,
    }
    let mut fate = vec![Fate::Open; removals.len()];
    while fate.contains(&Fate::Open) {
        let ring = rings(&attacks, &|at| fate[at] == Fate::Open);
        let mut attacked_from_outside = HashSet::new();
        for (from, targets) in attacks.iter().enumerate().filter(|(from, _)| fate[*from] == Fate::Open) {
            for to in targets.iter().filter(|to| ring[**to] != ring[from]) {
                attacked_from_outside.insert(ring[*to]);
            }
        }
        let first: Vec<usize> = (0..fate.len())
            .filter(|at| fate[*at] == Fate::Open && !attacked_from_outside.contains(&ring[*at]))
            .collect();
        first.iter().for_each(|at| fate[*at] = Fate::Counts);
        for to in first.iter().flat_map(|at| &attacks[*at]) {
            if fate[*to] == Fate::Open {
                fate[*to] = Fate::Void;
            }
        }
    }
    removals.iter().zip(fate).filter(|(_, fate)| *fate == Fate::Counts).map(|(removal, _)| removal).collect()
}

/// Numbers the strongly connected components among the nodes that are `open` (Kosaraju, without recursion: a peer
/// chooses the depth).
fn rings(edges: &[Vec<usize>], open: &dyn Fn(usize) -> bool) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let mut back = vec![Vec::new(); edges.len()];
    for (from, targets) in edges.iter().enumerate().filter(|(from, _)| open(*from)) {
        targets.iter().filter(|to| open(**to)).for_each(|to| back[*to].push(from));
    }
    let mut seen = vec![false; edges.len()];
    let mut finished = Vec::new();
    for start in (0..edges.len()).filter(|at| open(*at)) {
        let mut stack = vec![(start, 0)];
        while let Some((at, next)) = stack.pop() {
            if next == 0 && std::mem::replace(&mut seen[at], true) {
                continue;
            }
            match edges[at].get(next) {
                Some(to) => {
                    stack.push((at, next + 1));
                    if open(*to) && !seen[*to] {
                        stack.push((*to, 0));
                    }
                }
                None => finished.push(at),
            }
        }
    }
    let mut ring = vec![NONE; edges.len()];
    for start in finished.into_iter().rev() {
        let mut stack = vec![start];
        while let Some(at) = stack.pop() {
            if ring[at] == NONE {
                ring[at] = start;
                stack.extend(&back[at]);
            }
        }
    }
    ring
}
