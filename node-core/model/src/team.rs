//! Who may take part: the signed statements of a team and what they mean together. Pure: signatures are checked by a
//! `Signatures` that the caller brings, bytes are decoded elsewhere, and no clock is read.
//!
//! The set of statements only grows and is merged by union, so nodes agree whatever the order in which they heard of
//! things. The meaning is computed from the whole set (`verdict`):
//!
//! * A statement counts if its signer was entitled to it. It names the statement that entitles it (`authority`), so
//!   that every statement hangs on one path that ends at the founding.
//! * Removals win for good: no later `Add` brings a key back. A PC that shall return makes a new key.
//! * A keeper's statements form a chain (`prev`). Who removes a keeper says up to where the chain stays valid (`keep`);
//!   everything else of his, also what he writes later with an old date, and everything that hangs on it, is void.
//! * Keepers that remove each other, directly or in a ring, are all out. A removed keeper can strike back at those who
//!   removed him, for nobody can prove which came first, but at nobody else.
//! * `Recover` names new keepers when a strict majority of the members sign the same names.

pub mod check;
mod verdict;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, NodeId, TeamId};

/// One statement on the wire. The largest is a removal with many `keep` heads.
pub const STATEMENT_BYTES_MAX: usize = 8 << 10;
/// Statements of one team: 200 PCs make some hundreds; a team that churns for years a few thousand.
pub const STATEMENTS_MAX: usize = 10_000;
/// Length of names of teams and PCs in bytes: they are shown in one line.
pub const NAME_BYTES_MAX: usize = 64;
/// Last known addresses of one PC: several interfaces, two families.
pub const ADDRESSES_MAX: usize = 8;
/// One `host:port`: a DNS name has at most 253 characters.
pub const ADDRESS_BYTES_MAX: usize = 262;
/// Heads of a removed keeper's statements: one, unless his key was used on two disks.
pub const KEEP_MAX: usize = 64;
/// New keepers that one recovery names.
pub const RECOVER_KEEPERS_MAX: usize = 16;
/// Recovery votes of one member that are stored: without a bound one member could fill everyone's set.
pub const RECOVER_VOTES_MAX: usize = 16;
/// A recovery vote states that no keeper was seen for at least this long, so that a holiday overthrows nobody.
pub const RECOVER_UNSEEN_DAYS_MIN: u32 = 14;
/// Keepers who were made keepers by keepers, and so on.
pub const AUTHORITY_DEPTH_MAX: usize = 64;

/// A statement: the SHA-256 of its signed bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StatementId(pub [u8; 32]);

impl fmt::Debug for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// What a member may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Submits, serves, and says who is in the team.
    Keeper,
    /// Submits and serves.
    Member,
    /// Submits only (laptops, CI).
    SubmitOnly,
    /// Serves only (the old tower).
    ServeOnly,
}

impl Role {
    /// Whether jobs of it are run.
    pub fn submits(self) -> bool {
        self != Self::ServeOnly
    }

    /// Whether it is given jobs.
    pub fn serves(self) -> bool {
        self != Self::SubmitOnly
    }
}

/// What a statement says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// The signer founds a team and is its first keeper.
    Found {
        /// Name of the team.
        team_name: String,
        /// Name of the founder's PC.
        node_name: String,
        /// Where it can be reached, `host:port`.
        addresses: Vec<String>,
    },
    /// The signer, a keeper, takes a node in or changes its role.
    Add {
        /// Who.
        node: NodeId,
        /// As what. A keeper stays one until it is removed; other roles follow the highest `version`.
        role: Role,
        /// Name of the PC.
        name: String,
        /// Where it can be reached.
        addresses: Vec<String>,
        /// Orders changes of role.
        version: u64,
    },
    /// The signer, a keeper or the node itself, takes a node out.
    Remove {
        /// Who.
        node: NodeId,
        /// Heads of the chains of its statements that remain valid.
        keep: Vec<StatementId>,
    },
    /// The signer's own name and addresses. Only the highest version of each signer is stored.
    Rename {
        /// Name of the PC.
        name: String,
        /// Where it can be reached.
        addresses: Vec<String>,
        /// Orders renames.
        version: u64,
    },
    /// The signer votes that these members become keepers, because it has seen none for `unseen_days`.
    Recover {
        /// Sorted, without doubles; votes for the same names count together.
        keepers: Vec<NodeId>,
        /// Elapsed on the signer's own machine.
        unseen_days: u32,
    },
}

/// What is signed, decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The team; none in `Found`, whose digest is the team.
    pub team: Option<TeamId>,
    /// The statement that entitles the signer; none in `Found`.
    pub authority: Option<StatementId>,
    /// The signer's previous `Found`, `Add` or `Remove`.
    pub prev: Option<StatementId>,
    /// What it says.
    pub body: Body,
}

/// Checks of keys: the shell brings real ones.
pub trait Signatures {
    /// SHA-256.
    fn sha256(&self, bytes: &[u8]) -> [u8; 32];
    /// The node that the key belongs to, if the signature over `body` (with the domain prefix) is its.
    fn signer(&self, key: &[u8], body: &[u8], signature: &[u8]) -> Option<NodeId>;
}

/// A statement whose signature has been checked: there is no other way to make one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    id: StatementId,
    by: NodeId,
    claim: Claim,
    raw: Vec<u8>,
}

impl Statement {
    /// Checks signature and sizes. `raw` is the statement as it travels, `body` the signed bytes that `claim` was
    /// decoded from.
    pub fn verify(
        raw: &[u8],
        body: &[u8],
        key: &[u8],
        signature: &[u8],
        claim: Claim,
        signatures: &dyn Signatures,
    ) -> Result<Self, Refusal> {
        if raw.len() > STATEMENT_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        check_sizes(&claim.body)?;
        let by = signatures.signer(key, body, signature).ok_or(Refusal::BadSignature)?;
        Ok(Self { id: StatementId(signatures.sha256(body)), by, claim, raw: raw.to_vec() })
    }

    /// Its name.
    pub fn id(&self) -> StatementId {
        self.id
    }

    /// Who signed it.
    pub fn by(&self) -> NodeId {
        self.by
    }

    /// What was signed.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// As it travels.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Whether it is a link of its signer's chain.
    fn is_chained(&self) -> bool {
        matches!(self.claim.body, Body::Found { .. } | Body::Add { .. } | Body::Remove { .. })
    }

    /// What it entitles `node` to, were it valid.
    fn grants(&self, node: NodeId) -> Option<Role> {
        match &self.claim.body {
            Body::Found { .. } if self.by == node => Some(Role::Keeper),
            Body::Add { node: added, role, .. } if *added == node => Some(*role),
            Body::Recover { keepers, .. } if keepers.contains(&node) => Some(Role::Keeper),
            _ => None,
        }
    }
}

fn check_sizes(body: &Body) -> Result<(), Refusal> {
    let named = |name: &str, addresses: &[String]| {
        let fits = !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name.chars().any(char::is_control)
            && addresses.len() <= ADDRESSES_MAX
            && addresses.iter().all(|a| a.len() <= ADDRESS_BYTES_MAX && !a.chars().any(char::is_control));
        if fits { Ok(()) } else { Err(Refusal::BadName) }
    };
    match body {
        Body::Found { team_name, node_name, addresses } => named(team_name, &[]).and(named(node_name, addresses)),
        Body::Add { name, addresses, .. } | Body::Rename { name, addresses, .. } => named(name, addresses),
        Body::Remove { keep, .. } if keep.len() > KEEP_MAX => Err(Refusal::TooLarge),
        Body::Remove { .. } => Ok(()),
        Body::Recover { keepers, unseen_days } => {
            if keepers.is_empty() || keepers.len() > RECOVER_KEEPERS_MAX || !keepers.is_sorted_by(|a, b| a < b) {
                Err(Refusal::TooLarge)
            } else if *unseen_days < RECOVER_UNSEEN_DAYS_MIN {
                Err(Refusal::KeeperSeen)
            } else {
                Ok(())
            }
        }
    }
}

/// Why a statement is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The bytes are no statement of this version.
    Malformed,
    /// Signed by nobody, or altered.
    BadSignature,
    /// More than a statement, or a set, may hold.
    TooLarge,
    /// An empty, overlong or unprintable name or address.
    BadName,
    /// Of another team.
    OtherTeam,
    /// A statement that it refers to is missing.
    Incomplete,
    /// The signer may not say this.
    NotEntitled,
    /// It refers to statements in a way that makes no sense.
    BadReference,
    /// A keeper was seen too recently.
    KeeperSeen,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a membership statement that this version understands",
            Self::BadSignature => "its signature is wrong",
            Self::TooLarge => "it is larger than allowed",
            Self::BadName => "a name must have 1 to 64 bytes without control characters",
            Self::OtherTeam => "it belongs to another team",
            Self::Incomplete => "statements that it refers to are missing",
            Self::NotEntitled => "only a keeper of the team may do this",
            Self::BadReference => "it refers to statements that do not fit",
            Self::KeeperSeen => "a keeper was seen within the last 14 days",
        })
    }
}

impl std::error::Error for Refusal {}

/// A member as the whole set describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Who.
    pub node: NodeId,
    /// What it may do.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// Last known addresses.
    pub addresses: Vec<String>,
    /// Who took it in.
    pub by: NodeId,
}

/// What a set of statements means; computed from the set alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// All members.
    pub members: BTreeMap<NodeId, Member>,
    /// All that were taken out by a removal that counts.
    pub removed: BTreeMap<NodeId, StatementId>,
    /// Digest of the removals that count: salts what must not outlive a revocation. Joins and renames leave it alone.
    pub epoch: Digest,
    /// `Add`s, votes and the founding that count: what a member's next statement may name as its authority.
    entitling: Vec<StatementId>,
}

/// What a merge did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Merged {
    /// Whether the set changed.
    pub changed: bool,
    /// What was not taken.
    pub refused: Vec<(StatementId, Refusal)>,
}

/// The statements of one team that a node holds. Closed: whatever a statement refers to is in it too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TeamSet {
    root: StatementId,
    statements: BTreeMap<StatementId, Arc<Statement>>,
    /// The stored rename of each signer.
    renames: BTreeMap<NodeId, StatementId>,
    verdict: Verdict,
}

impl TeamSet {
    /// The set that holds only the founding.
    pub fn found(founding: Statement) -> Result<Self, Refusal> {
        let claim = founding.claim();
        if !matches!(claim.body, Body::Found { .. }) {
            return Err(Refusal::BadReference);
        }
        if claim.team.is_some() || claim.authority.is_some() || claim.prev.is_some() {
            return Err(Refusal::BadReference);
        }
        let root = founding.id;
        let statements = BTreeMap::from([(root, Arc::new(founding))]);
        let verdict = verdict::of(root, &statements, &BTreeMap::new());
        Ok(Self { root, statements, renames: BTreeMap::new(), verdict })
    }

    /// The set of statements that were stored or received together; exactly one of them is a founding.
    pub fn from_statements(mut statements: Vec<Statement>) -> Result<(Self, Merged), Refusal> {
        let founding = |s: &Statement| matches!(s.claim.body, Body::Found { .. });
        let at = statements.iter().position(founding).ok_or(Refusal::Incomplete)?;
        let mut set = Self::found(statements.swap_remove(at))?;
        let merged = set.merge(statements);
        Ok((set, merged))
    }

    /// The team.
    pub fn team(&self) -> TeamId {
        TeamId(self.root.0)
    }

    /// The team's name.
    pub fn team_name(&self) -> &str {
        match &self.statements[&self.root].claim.body {
            Body::Found { team_name, .. } => team_name,
            _ => "",
        }
    }

    /// What the set means.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Whether a node is in the team.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.verdict.members.contains_key(&node)
    }

    /// Whether a node may take others in and out.
    pub fn is_keeper(&self, node: NodeId) -> bool {
        self.verdict.members.get(&node).is_some_and(|m| m.role == Role::Keeper)
    }

    /// All keepers.
    pub fn keepers(&self) -> impl Iterator<Item = &Member> {
        self.verdict.members.values().filter(|m| m.role == Role::Keeper)
    }

    /// Digest of the set: equal digests need no gossip.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        self.statements.keys().for_each(|id| {
            hasher.update(&id.0);
        });
        Digest(*hasher.finalize().as_bytes())
    }

    /// All statements, in no meaningful order.
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.statements.values().map(Arc::as_ref)
    }

    /// The statement with this digest.
    pub fn statement(&self, id: StatementId) -> Option<&Statement> {
        self.statements.get(&id).map(Arc::as_ref)
    }

    /// Takes in what another node knows. The order does not matter, neither within the list nor between calls.
    pub fn merge(&mut self, incoming: Vec<Statement>) -> Merged {
        let mut merged = Merged::default();
        let mut queue: VecDeque<Statement> = incoming.into();
        // Statements that wait for one that may come later in the list, by what they miss.
        let mut waiting: HashMap<StatementId, Vec<Statement>> = HashMap::new();
        while let Some(statement) = queue.pop_front() {
            if let Some(known) = self.statements.get(&statement.id) {
                // A signer can sign the same body in several ways; all nodes keep the same one.
                if statement.raw < known.raw {
                    self.statements.insert(statement.id, Arc::new(statement));
                    merged.changed = true;
                }
                continue;
            }
            if let Some(missing) = self.missing(&statement) {
                waiting.entry(missing).or_default().push(statement);
                continue;
            }
            let id = statement.id;
            match self.admit(statement) {
                Ok(changed) => {
                    merged.changed |= changed;
                    queue.extend(waiting.remove(&id).unwrap_or_default());
                }
                Err(why) => merged.refused.push((id, why)),
            }
        }
        let left = waiting.into_values().flatten();
        merged.refused.extend(left.map(|s| (s.id, Refusal::Incomplete)));
        if merged.changed {
            self.verdict = verdict::of(self.root, &self.statements, &self.renames);
        }
        merged
    }

    /// Takes in everything of another set of the same team.
    pub fn union(&mut self, other: &TeamSet) -> Merged {
        self.merge(other.statements().cloned().collect())
    }

    fn missing(&self, statement: &Statement) -> Option<StatementId> {
        let claim = &statement.claim;
        let keep: &[StatementId] = match &claim.body {
            Body::Remove { keep, .. } => keep,
            _ => &[],
        };
        let mut references = claim.authority.iter().chain(&claim.prev).chain(keep);
        references.find(|id| !self.statements.contains_key(id)).copied()
    }

    /// The structural rules: those that need only the statement and what it refers to, and hold for ever.
    fn admit(&mut self, statement: Statement) -> Result<bool, Refusal> {
        let claim = &statement.claim;
        if claim.team != Some(self.team()) || matches!(claim.body, Body::Found { .. }) {
            return Err(Refusal::OtherTeam);
        }
        if self.statements.len() >= STATEMENTS_MAX {
            return Err(Refusal::TooLarge);
        }
        let authority = &self.statements[&claim.authority.ok_or(Refusal::BadReference)?];
        let role = authority.grants(statement.by).ok_or(Refusal::NotEntitled)?;
        let is_keeper = role == Role::Keeper;
        if let Some(prev) = claim.prev {
            let prev = &self.statements[&prev];
            if prev.by != statement.by || !prev.is_chained() || !statement.is_chained() {
                return Err(Refusal::BadReference);
            }
        }
        let path = verdict::path(&self.statements, &statement);
        if path.len() > AUTHORITY_DEPTH_MAX {
            return Err(Refusal::TooLarge);
        }
        match &claim.body {
            Body::Found { .. } => return Err(Refusal::OtherTeam),
            Body::Add { .. } if !is_keeper => return Err(Refusal::NotEntitled),
            Body::Add { .. } => {}
            Body::Remove { node, keep } if *node == statement.by => {
                // Leaving says nothing else; so a member can add one such statement, not fill the set with them.
                if !keep.is_empty() || (!is_keeper && claim.prev.is_some()) {
                    return Err(Refusal::BadReference);
                }
            }
            Body::Remove { .. } if !is_keeper => return Err(Refusal::NotEntitled),
            Body::Remove { node, keep } => {
                let fits = |id: &StatementId| {
                    let kept = &self.statements[id];
                    kept.by == *node && kept.is_chained()
                };
                if !keep.iter().all(fits) {
                    return Err(Refusal::BadReference);
                }
                // A removal that voids what entitles its own signer would contradict itself.
                let kept = verdict::kept(&self.statements, keep);
                if path.iter().any(|s| s.by == *node && s.is_chained() && s.id != self.root && !kept.contains(&s.id)) {
                    return Err(Refusal::BadReference);
                }
            }
            Body::Rename { version, .. } => {
                let new = (*version, statement.id);
                if let Some(old) = self.renames.get(&statement.by) {
                    let Body::Rename { version, .. } = self.statements[old].claim.body else {
                        return Err(Refusal::BadReference);
                    };
                    if (version, *old) >= new {
                        return Ok(false);
                    }
                    self.statements.remove(old);
                }
                self.renames.insert(statement.by, statement.id);
            }
            Body::Recover { .. } => {
                let votes = |s: &&Arc<Statement>| s.by == statement.by && matches!(s.claim.body, Body::Recover { .. });
                if self.statements.values().filter(votes).count() >= RECOVER_VOTES_MAX {
                    return Err(Refusal::TooLarge);
                }
            }
        }
        self.statements.insert(statement.id, Arc::new(statement));
        Ok(true)
    }

    /// The ends of the chains of what `node` has signed: what `keep` names when all that is known of it stays valid.
    pub fn heads_of(&self, node: NodeId) -> Vec<StatementId> {
        let chained = || self.statements.values().filter(|s| s.by == node && s.is_chained());
        let has_next: std::collections::BTreeSet<_> = chained().filter_map(|s| s.claim.prev).collect();
        chained().map(|s| s.id).filter(|id| !has_next.contains(id)).collect()
    }

    /// The highest version that names or roles of `node` have.
    pub fn version_of(&self, node: NodeId) -> u64 {
        let version = |s: &Arc<Statement>| match s.claim.body {
            Body::Add { node: of, version, .. } if of == node => version,
            Body::Rename { version, .. } if s.by == node => version,
            _ => 0,
        };
        self.statements.values().map(version).max().unwrap_or(0)
    }

    /// What `by` would have to sign to say `body`, or why it may not.
    pub fn draft(&self, by: NodeId, body: Body) -> Result<Claim, Refusal> {
        check_sizes(&body)?;
        let member = self.verdict.members.get(&by).ok_or(Refusal::NotEntitled)?;
        let own = match &body {
            Body::Found { .. } => return Err(Refusal::OtherTeam),
            Body::Remove { node, .. } => *node == by,
            Body::Rename { .. } | Body::Recover { .. } => true,
            Body::Add { .. } => false,
        };
        if !own && member.role != Role::Keeper {
            return Err(Refusal::NotEntitled);
        }
        let fits = |id: &&StatementId| self.statements[*id].grants(by) == Some(member.role);
        let authority = *self.verdict.entitling.iter().find(fits).ok_or(Refusal::NotEntitled)?;
        let chained = matches!(body, Body::Add { .. } | Body::Remove { .. }) && member.role == Role::Keeper;
        let prev = if chained { self.heads_of(by).first().copied() } else { None };
        Ok(Claim { team: Some(self.team()), authority: Some(authority), prev, body })
    }
}

#[cfg(test)]
mod tests;
