//! A simulated team: who holds which set, what happens, and what must hold after each thing that did.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use potluck_model::ids::{Digest, NodeId};
use potluck_model::team::{
    Body, Claim, MEMBER_BYTES_MAX, Role, SET_BYTES_MAX, STATEMENT_BYTES_MAX, Statement, StatementId, TeamSet,
    Unverified,
};
use potluck_node::membership::codec;
use potluck_node::membership::hear::{self, Heard};
use potluck_wire::team as wire;
use prost::Message;

use super::keys::{Dice, Fast, Key};
use super::{Figures, hostile};

/// The node whose key says anything.
pub(super) const LIAR: usize = 3;
/// The keeper whose key is stolen.
pub(super) const THIEF: usize = 2;
/// Rounds in which everybody must have told everybody everything.
const HEAL_ROUNDS_MAX: usize = 6;

/// A set that several nodes may share, with its statements as they travel.
pub(super) struct Held {
    pub(super) set: TeamSet,
    /// Names the set and what is kept beside it.
    print: Digest,
    batch: OnceCell<Vec<Unverified>>,
}

impl Held {
    fn of(set: TeamSet) -> Rc<Self> {
        let ids: Vec<u8> = set
            .statements()
            .map(Statement::id)
            .chain([StatementId([0; 32])])
            .chain(set.attic().map(Statement::id))
            .flat_map(|id| id.0)
            .collect();
        Rc::new(Self { set, print: Digest::of(&ids), batch: OnceCell::new() })
    }
}

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) keys: Vec<Key>,
    pub(super) held: Vec<Option<Rc<Held>>>,
    /// Who can talk to whom.
    groups: Vec<usize>,
    /// All that was ever said, for replays.
    said: Vec<Vec<u8>>,
    /// What was signed and is no canonical encoding.
    pub(super) padded: HashSet<StatementId>,
    /// Nodes that only the liar has ever named.
    pub(super) invented: HashSet<NodeId>,
    /// The set that the thief took with the key, and the keys that it made since.
    pub(super) stolen: Option<Rc<Held>>,
    pub(super) thief_keys: Vec<Key>,
    memo: HashMap<(Digest, Digest), Rc<Held>>,
    read: HashMap<Digest, Option<Unverified>>,
    meanings: HashMap<Digest, Digest>,
    figures: Figures,
}

impl World {
    pub(super) fn new(mut dice: Dice, count: usize) -> Self {
        let keys: Vec<Key> = (0..count).map(|_| Key::new(&mut dice)).collect();
        let mut world = Self {
            keys,
            held: vec![None; count],
            groups: vec![0; count],
            said: Vec::new(),
            padded: HashSet::new(),
            invented: HashSet::new(),
            stolen: None,
            thief_keys: Vec::new(),
            memo: HashMap::new(),
            read: HashMap::new(),
            meanings: HashMap::new(),
            figures: Figures { nodes: count, ..Figures::default() },
            dice,
        };
        world.found();
        world
    }

    pub(super) fn figures(&self) -> Figures {
        self.figures
    }

    pub(super) fn lied(&mut self, statements: usize) {
        self.figures.lies += statements;
    }

    /// A founder, two more keepers, and most of the others; the rest may join on the way.
    fn found(&mut self) {
        let founder = self.keys[0];
        let found = wire::Found {
            team_name: "lab".into(),
            node_name: "pc".into(),
            addresses: vec![],
            nonce: self.dice.roll().to_le_bytes().repeat(2),
        };
        let mut body = wire::Body::decode(founder.body(&self.nothing()).as_slice()).unwrap_or_default();
        body.kind = Some(wire::body::Kind::Found(found));
        let raw = founder.sign_body(&body.encode_to_vec());
        let founding = self.reading(&raw).and_then(|u| u.verify(&Fast).ok());
        let Some(founding) = founding else { return };
        let Ok(mut set) = TeamSet::found(founding) else { return };
        self.said.push(raw);
        for at in 1..self.keys.len() {
            if at > 4 && self.dice.percent(15) {
                continue;
            }
            let role = if at < 3 { Role::Keeper } else { Role::Member };
            let by = if at < 4 { 0 } else { self.dice.below(3) };
            let body = self.add(at, role, 1);
            if let Ok(claim) = set.draft(self.keys[by].id(), body) {
                let raw = self.keys[by].sign(&claim);
                set.merge(self.reading(&raw).and_then(|u| u.verify(&Fast).ok()).into_iter().collect());
                self.said.push(raw);
            }
        }
        let all = Held::of(set);
        for at in 0..self.keys.len() {
            if all.set.is_member(self.keys[at].id()) {
                self.held[at] = Some(Rc::clone(&all));
            }
        }
    }

    fn nothing(&self) -> Claim {
        let body = Body::Rename { name: "pc".into(), addresses: vec![], version: 0 };
        Claim { team: None, authority: None, prev: None, body }
    }

    pub(super) fn add(&self, at: usize, role: Role, version: u64) -> Body {
        let addresses = vec![format!("192.0.2.{}:7878", at % 256)];
        Body::Add { node: self.keys[at].id(), role, name: format!("pc-{at}"), addresses, version }
    }

    /// Read by the node's own codec, once.
    fn reading(&mut self, raw: &[u8]) -> Option<Unverified> {
        let read = self.read.entry(Digest::of(raw)).or_insert_with(|| codec::read(raw, &Fast).ok());
        read.clone()
    }

    pub(super) fn play(&mut self, events: usize) -> Result<(), String> {
        for _ in 0..events {
            self.figures.events += 1;
            match self.dice.below(100) {
                0..20 => self.sync_group()?,
                20..45 => self.gossip_badly()?,
                45..53 => self.split(),
                53..63 => hostile::lie(self)?,
                63..71 => hostile::steal(self)?,
                71..76 => self.replay()?,
                76..80 => self.election()?,
                _ => self.act()?,
            }
        }
        Ok(())
    }

    /// Some who hold a set.
    pub(super) fn somebody(&mut self) -> usize {
        loop {
            let at = self.dice.below(self.keys.len());
            if self.held[at].is_some() {
                return at;
            }
        }
    }

    fn split(&mut self) {
        let parts = 1 + self.dice.below(3);
        for at in 0..self.groups.len() {
            self.groups[at] = self.dice.below(parts);
        }
    }

    /// Whoever is in a group with this node tells each other everything.
    fn sync_group(&mut self) -> Result<(), String> {
        let hub = self.somebody();
        let group: Vec<usize> = (0..self.keys.len())
            .filter(|at| self.groups[*at] == self.groups[hub] && self.held[*at].is_some())
            .collect();
        group.iter().try_for_each(|from| self.tell_all(*from, hub))?;
        group.iter().try_for_each(|to| self.tell_all(hub, *to))
    }

    /// One node tells another all that it holds.
    fn tell_all(&mut self, from: usize, to: usize) -> Result<(), String> {
        let (Some(source), Some(target)) = (self.held[from].clone(), self.held[to].clone()) else { return Ok(()) };
        if source.print == target.print {
            return Ok(());
        }
        let key = (target.print, source.print);
        let after = match self.memo.get(&key) {
            Some(after) => Rc::clone(after),
            None => {
                let batch = source.batch.get_or_init(|| {
                    let raws = hear::told_in_order(&source.set).into_iter().map(|s| s.raw());
                    raws.filter_map(|raw| self.read.get(&Digest::of(raw)).cloned().flatten()).collect()
                });
                let after = self.taken(&target, batch.clone())?;
                self.memo.insert(key, Rc::clone(&after));
                after
            }
        };
        self.held[to] = Some(after);
        Ok(())
    }

    /// Some statements, out of order, with losses and doubles.
    fn gossip_badly(&mut self) -> Result<(), String> {
        let (from, to) = (self.somebody(), self.somebody());
        if self.groups[from] != self.groups[to] {
            return Ok(());
        }
        let Some(source) = self.held[from].clone() else { return Ok(()) };
        let lost = self.dice.below(60);
        let mut raws: Vec<Vec<u8>> = source.set.statements().map(|s| s.raw().to_vec()).collect();
        raws.retain(|_| !self.dice.percent(lost));
        for _ in 0..self.dice.below(4) {
            let double = self.dice.one(&raws).cloned();
            raws.extend(double);
        }
        self.dice.shuffle(&mut raws);
        self.tell(to, raws)
    }

    /// Old statements, whoever said them.
    fn replay(&mut self) -> Result<(), String> {
        let to = self.somebody();
        let mut raws = Vec::new();
        for _ in 0..1 + self.dice.below(30) {
            raws.extend(self.dice.one(&self.said).cloned());
        }
        self.tell(to, raws)
    }

    /// Members vote for the same new keeper, most of them.
    fn election(&mut self) -> Result<(), String> {
        let candidate = loop {
            let at = self.dice.below(self.keys.len());
            if at != LIAR {
                break at;
            }
        };
        let turnout = 30 + self.dice.below(70);
        // In a large team the votes of a few are all that there is time for.
        for at in 0..self.keys.len().min(40) {
            if at != LIAR && self.held[at].is_some() && self.dice.percent(turnout) {
                let days = 14 + self.dice.below(3) as u32;
                let body = Body::Recover { keepers: vec![self.keys[candidate].id()], unseen_days: days };
                self.say(at, body)?;
            }
        }
        Ok(())
    }

    /// An honest node does something with its own key.
    fn act(&mut self) -> Result<(), String> {
        let at = self.somebody();
        let Some(held) = self.held[at].clone() else { return Ok(()) };
        if at == LIAR {
            return Ok(());
        }
        let other = self.dice.below(self.keys.len());
        let (own, node) = (self.keys[at].id(), self.keys[other].id());
        let is_keeper = held.set.is_keeper(own);
        let body = match self.dice.below(12) {
            0 => Body::Remove { node: own, keep: vec![] },
            1..=4 if !is_keeper => {
                let version = held.set.name_version_of(own) + 1;
                Body::Rename { name: format!("pc-{at}-{version}"), addresses: vec![], version }
            }
            1..=5 => {
                let roles = [Role::Member, Role::SubmitOnly, Role::ServeOnly, Role::Keeper];
                // The liar stays what it is: what is bounded is what a member can do.
                let role = roles[self.dice.below(if other == LIAR { 1 } else { 4 })];
                let body = self.add(other, role, held.set.role_version_of(node) + 1);
                self.say(at, body)?;
                if self.held[at].as_ref().is_some_and(|h| h.set.is_member(node)) && self.held[other].is_none() {
                    // Welcomed with all that there is.
                    self.held[other] = self.held[at].clone();
                }
                return Ok(());
            }
            6..=8 if node != own => {
                let keep = if self.dice.percent(80) { held.set.keep_of(node) } else { vec![] };
                Body::Remove { node, keep }
            }
            _ => return Ok(()),
        };
        self.say(at, body)
    }

    /// A node signs what it may and takes it in itself.
    fn say(&mut self, at: usize, body: Body) -> Result<(), String> {
        let Some(held) = self.held[at].clone() else { return Ok(()) };
        let Ok(claim) = held.set.draft(self.keys[at].id(), body) else { return Ok(()) };
        let raw = self.keys[at].sign(&claim);
        self.said.push(raw.clone());
        self.tell(at, vec![raw])
    }

    /// What was said is heard by this node.
    pub(super) fn tell(&mut self, to: usize, raws: Vec<Vec<u8>>) -> Result<(), String> {
        let Some(target) = self.held[to].clone() else { return Ok(()) };
        let batch: Vec<Unverified> = raws.iter().filter_map(|raw| self.reading(raw)).collect();
        self.held[to] = Some(self.taken(&target, batch)?);
        Ok(())
    }

    pub(super) fn remember(&mut self, raw: &[u8]) {
        self.said.push(raw.to_vec());
    }

    /// What a node holds after it has heard these, as the node's own code takes them in.
    fn taken(&mut self, target: &Rc<Held>, batch: Vec<Unverified>) -> Result<Rc<Held>, String> {
        self.figures.merges += 1;
        let everything = if self.dice.percent(5) { Some(batch.clone()) } else { None };
        let mut set = target.set.clone();
        hear::take_wanted(&mut set, batch, &Fast, &mut Heard::default());
        if let Some(batch) = everything {
            // What was left out without a look at its signature must not have mattered.
            let mut all = target.set.clone();
            all.merge(batch.into_iter().filter_map(|u| u.verify(&Fast).ok()).collect());
            if all.verdict().members != set.verdict().members {
                return Err("what was not looked at would have changed who is a member".to_owned());
            }
        }
        let after = Held::of(set);
        if after.print != target.print {
            self.check(target, &after)?;
        }
        Ok(after)
    }

    /// What must hold of every set, and of every change from one to the next.
    fn check(&mut self, before: &Held, after: &Held) -> Result<(), String> {
        let (set, verdict) = (&after.set, after.set.verdict());
        let bytes = set.bytes();
        self.figures.set_bytes = self.figures.set_bytes.max(bytes);
        if bytes > SET_BYTES_MAX {
            return Err(format!("a set has {bytes} bytes, more than a welcome carries"));
        }
        let liar = self.keys[LIAR].id();
        let own = set.statements().filter(|s| s.by() == liar || self.invented.contains(&s.by()));
        let own: usize = own.map(|s| s.raw().len()).sum();
        self.figures.member_bytes = self.figures.member_bytes.max(own);
        let recovered = verdict.recovered().len() * STATEMENT_BYTES_MAX;
        if own > MEMBER_BYTES_MAX + recovered {
            return Err(format!("a member that is no keeper has {own} bytes in a set"));
        }
        if let Some(padded) = set.statements().chain(set.attic()).find(|s| self.padded.contains(&s.id())) {
            return Err(format!("{:?} is no canonical encoding and was taken", padded.id()));
        }
        if let Some(node) = verdict.members.keys().find(|node| self.invented.contains(node)) {
            return Err(format!("{} is a member, and no keeper has ever named it", node.short()));
        }
        if let Some(node) = verdict.removed.keys().find(|node| set.is_member(**node)) {
            return Err(format!("{} is removed and a member", node.short()));
        }
        self.no_resurrection(&before.set, set)?;
        // The same statements mean the same, wherever and in whatever order they were heard.
        let meaning = Digest::of(format!("{:?}{:?}", verdict.members, verdict.removed).as_bytes());
        match self.meanings.insert(set.digest(), meaning) {
            Some(other) if other != meaning => Err("one set of statements means two things".to_owned()),
            _ => Ok(()),
        }
    }

    /// Who was out stays out, unless one of those who said so is out now, or keepers' statements that were not known here
    /// took the majority from the recovery that it hangs on (`is_outvoted`).
    fn no_resurrection(&self, before: &TeamSet, after: &TeamSet) -> Result<(), String> {
        for (node, removal) in &before.verdict().removed {
            if !after.is_member(*node) {
                continue;
            }
            let mut at = before.statement(*removal);
            let mut signers = Vec::new();
            while let Some(statement) = at {
                signers.push(statement.by());
                at = statement.claim().authority.and_then(|id| before.statement(id));
            }
            let others =
                before.statements().filter(|s| matches!(s.claim().body, Body::Remove { node: of, .. } if of == *node));
            signers.extend(others.map(Statement::by));
            let is_disowned = signers.iter().any(|by| by != node && after.verdict().removed.contains_key(by));
            if !is_disowned && !Self::is_outvoted(before, after, *removal) {
                let by = self.told_by(before, *removal);
                let [was, is] = [before, after].map(|set| {
                    let out: Vec<String> = set.verdict().removed.keys().map(|n| self.name(*n)).collect();
                    format!(
                        "{} members, {} recoveries, out: {}",
                        set.verdict().members.len(),
                        set.verdict().recovered().len(),
                        out.join(" ")
                    )
                });
                let kept = if after.statement(*removal).is_some() { "kept" } else { "not kept" };
                return Err(format!(
                    "{} was removed and is a member again; {by}; before: {was}; after: {is}; the removal is {kept}",
                    self.name(*node)
                ));
            }
        }
        Ok(())
    }

    /// Whether a removal hangs on votes that have no strict majority any more, by what keepers did. A set that lacks a
    /// part of the team's members can see a majority where there is none: nobody can prove that an addition is newer than
    /// a vote, and votes that could leave members out would let a minority take the team. So additions, and removals of
    /// voters by others, may end a recovery; a voter that leaves, or votes once more, must not.
    fn is_outvoted(before: &TeamSet, after: &TeamSet, removal: StatementId) -> bool {
        let mut at = before.statement(removal);
        while let Some(statement) = at {
            if let Body::Recover { keepers, .. } = &statement.claim().body
                && !after.verdict().recovered().contains(keepers)
            {
                let voters: HashSet<NodeId> = before
                    .statements()
                    .filter(|s| matches!(&s.claim().body, Body::Recover { keepers: of, .. } if of == keepers))
                    .filter(|s| !Self::hangs_on_vote_for(before, s, keepers))
                    .map(Statement::by)
                    .collect();
                let has_left = |voter: &&NodeId| {
                    let removers: Vec<NodeId> = after
                        .statements()
                        .filter(|s| matches!(&s.claim().body, Body::Remove { node, .. } if node == *voter))
                        .map(Statement::by)
                        .collect();
                    !after.is_member(**voter) && !removers.is_empty() && removers.iter().all(|by| by == *voter)
                };
                let left = voters.iter().filter(has_left).count();
                let there = voters.iter().filter(|voter| after.is_member(**voter)).count();
                return (there + left) * 2 <= after.verdict().members.len() + left;
            }
            at = statement.claim().authority.and_then(|id| before.statement(id));
        }
        false
    }

    /// Whether what entitles a signer is itself a vote for these: then its own vote is none before they are keepers.
    fn hangs_on_vote_for(set: &TeamSet, statement: &Statement, keepers: &[NodeId]) -> bool {
        let mut at = statement.claim().authority.and_then(|id| set.statement(id));
        while let Some(statement) = at {
            if matches!(&statement.claim().body, Body::Recover { keepers: of, .. } if of == keepers) {
                return true;
            }
            at = statement.claim().authority.and_then(|id| set.statement(id));
        }
        false
    }

    /// A node by its place in the team.
    fn name(&self, node: NodeId) -> String {
        let place = self.keys.iter().position(|key| key.id() == node);
        place.map_or_else(|| node.short().to_string(), |at| format!("pc-{at}"))
    }

    /// A statement and what it hangs on, in words.
    fn told_by(&self, set: &TeamSet, id: StatementId) -> String {
        let mut words = Vec::new();
        let mut at = set.statement(id);
        while let Some(statement) = at {
            let names = |nodes: &[NodeId]| nodes.iter().map(|n| self.name(*n)).collect::<Vec<_>>().join(" ");
            let says = match &statement.claim().body {
                Body::Found { .. } => "founds".to_owned(),
                Body::Add { node, role, .. } => format!("adds {} as {role:?}", self.name(*node)),
                Body::Remove { node, keep } => format!("removes {} and keeps {}", self.name(*node), keep.len()),
                Body::Rename { .. } => "renames itself".to_owned(),
                Body::Recover { keepers, .. } => format!("votes for {}", names(keepers)),
            };
            words.push(format!("{} {says}", self.name(statement.by())));
            at = statement.claim().authority.and_then(|id| set.statement(id));
        }
        words.join(", under ")
    }

    /// The partitions end. Everybody must come to hold the same, and stay with it.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.groups.fill(0);
        let nodes: Vec<usize> = (0..self.keys.len()).filter(|at| self.held[*at].is_some()).collect();
        let mut is_quiet = false;
        for _ in 0..HEAL_ROUNDS_MAX {
            let hub = self.dice.one(&nodes).copied().unwrap_or(0);
            let before: Vec<Option<Digest>> = self.digests(&nodes);
            nodes.iter().try_for_each(|from| self.tell_all(*from, hub))?;
            nodes.iter().try_for_each(|to| self.tell_all(hub, *to))?;
            let after = self.digests(&nodes);
            if before == after && after.windows(2).all(|pair| pair[0] == pair[1]) {
                is_quiet = true;
                break;
            }
        }
        if !is_quiet {
            let told = self.differences(&nodes);
            return Err(format!("after {HEAL_ROUNDS_MAX} rounds of telling everything the sets still differ: {told}"));
        }
        self.check_healed(&nodes)
    }

    /// How the first node's set differs from the first other one.
    fn differences(&self, nodes: &[usize]) -> String {
        let mut sets = nodes.iter().filter_map(|at| self.held[*at].as_ref()).map(|held| &held.set);
        let Some(first) = sets.next() else { return String::new() };
        let other = sets.find(|set| set.digest() != first.digest());
        other.map_or_else(|| "they change together".to_owned(), |other| self.difference(first, other))
    }

    fn difference(&self, a: &TeamSet, b: &TeamSet) -> String {
        let mut words = Vec::new();
        for (which, of, not_in) in [("first", a, b), ("second", b, a)] {
            let only = of.statements().filter(|s| not_in.statement(s.id()).is_none());
            let told: Vec<String> = only.take(3).map(|s| self.told_by(of, s.id())).collect();
            words.push(format!(
                "{which}: {} members, {} recoveries, only there: {}",
                of.verdict().members.len(),
                of.verdict().recovered().len(),
                told.join("; ")
            ));
        }
        words.join(". ")
    }

    fn digests(&self, nodes: &[usize]) -> Vec<Option<Digest>> {
        nodes.iter().map(|at| self.held[*at].as_ref().map(|h| h.set.digest())).collect()
    }

    fn check_healed(&mut self, nodes: &[usize]) -> Result<(), String> {
        let Some(last) = nodes.first().and_then(|at| self.held[*at].clone()) else { return Ok(()) };
        for at in nodes {
            let Some(held) = &self.held[*at] else { continue };
            if held.set.verdict() != last.set.verdict() {
                return Err("equal sets and two opinions of who is a member".to_owned());
            }
            // A worker runs what its own set allows: nothing of who is out, nothing of who was never in.
            let runs: BTreeMap<NodeId, bool> =
                held.set.verdict().removed.keys().map(|n| (*n, held.set.is_member(*n))).collect();
            if runs.values().any(|runs| *runs) {
                return Err("a revoked key still gets something".to_owned());
            }
        }
        let mut statements: Vec<Statement> = last.set.statements().cloned().collect();
        self.dice.shuffle(&mut statements);
        let again =
            TeamSet::from_statements(statements).map_err(|why| format!("the set cannot be read back: {why}"))?;
        if again.0.digest() != last.set.digest() || again.0.verdict() != last.set.verdict() {
            let told = self.difference(&last.set, &again.0);
            let refused: Vec<_> = again.1.refused.iter().take(3).map(|(_, why)| why).collect();
            return Err(format!("a set that is read back is another one (refused: {refused:?}): {told}"));
        }
        Ok(())
    }
}
