//! Who may take part: the signed statements of a team and what they mean together. Pure: signatures are checked by a
//! `Signatures` that the caller brings, bytes are decoded elsewhere, and no clock is read.
//!
//! Sets are merged by union, so nodes agree whatever the order in which they heard of things. The meaning is computed
//! from the whole set (`verdict`), and what means nothing is not kept (`room`):
//!
//! * A statement counts if its signer was entitled to it. It names the statement that entitles it (`authority`), so
//!   that every statement hangs on one path that ends at the founding.
//! * Removals win for good: no later `Add` brings a key back. A PC that shall return makes a new key.
//! * A keeper's statements form a chain (`prev`). Who removes a keeper says up to where the chain stays valid (`keep`);
//!   everything else of his, also what he writes later with an old date, and everything that hangs on it, is void.
//! * Keepers that remove each other, directly or in a ring, are all out. A removed keeper can strike back at those who
//!   removed him, for nobody can prove which came first, but at nobody else.
//! * `Recover` names new keepers when a strict majority of the members sign the same names.
//!
//! What one signer can add is bounded by what it may say: a member that is no keeper has one name, one leaving and a few
//! votes in the set, however many it signs. Keepers' statements have room of their own, and removals room that is not
//! that of additions.

pub mod check;
mod merge;
mod room;
mod statement;
mod verdict;
mod wanted;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, NodeId, TeamId};
use crate::names;
use statement::check_sizes;

pub use room::{
    ADDS_BYTES_MAX, LEAVES_BYTES_MAX, MEMBER_BYTES_MAX, REMOVES_BYTES_MAX, SET_BYTES_MAX, VOID_BYTES_MAX, in_order,
};
pub use statement::{Statement, Unverified};

/// One statement on the wire. The largest is a removal with many `keep` heads.
pub const STATEMENT_BYTES_MAX: usize = 8 << 10;
/// A rename: a name and eight numeric addresses are 800 bytes with key and signature.
pub const RENAME_BYTES_MAX: usize = 1 << 10;
/// Statements of one batch or file: more than fit in the bytes of a set.
pub const STATEMENTS_MAX: usize = 20_000;
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
/// Recovery votes of one member that are stored beside those for keepers that a majority has made: a member that changes
/// its mind twice, and is heard out of order. Without a bound one member could fill everyone's set.
pub const RECOVER_VOTES_MAX: usize = 4;
/// Removals of one node by one keeper: one says all. More come of removals that were disowned, and thousands would make
/// everyone compute.
pub const REMOVALS_OF_PAIR_MAX: usize = 16;
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
    /// The node that a key belongs to; none if it is no key.
    fn node(&self, key: &[u8]) -> Option<NodeId>;
    /// Whether the signature over `body` (with the domain prefix) is that key's.
    fn is_signed(&self, key: &[u8], body: &[u8], signature: &[u8]) -> bool;
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
    /// There is no room for it in what the team's PCs tell each other.
    Full,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a membership statement that this version understands",
            Self::BadSignature => "its signature is wrong",
            Self::TooLarge => "it is larger than allowed",
            Self::BadName => {
                "a name must have 1 to 64 bytes, and nothing in it that is invisible, turns the line around or stacks up\nhint: choose a shorter, plain name"
            }
            Self::OtherTeam => "it belongs to another team",
            Self::Incomplete => "statements that it refers to are missing",
            Self::NotEntitled => "only a keeper of the team may do this",
            Self::BadReference => "it refers to statements that do not fit",
            Self::KeeperSeen => "a keeper was seen within the last 14 days",
            Self::Full => {
                "the team is full: its list of PCs has no room for more\nhint: if a keeper has taken in PCs that nobody knows, take it out together with them: potluck team remove PC --with-added"
            }
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
    /// Lists of new keepers that a majority has signed.
    recovered: Vec<Vec<NodeId>>,
}

impl Verdict {
    /// Lists of new keepers that a majority has signed.
    pub fn recovered(&self) -> &[Vec<NodeId>] {
        &self.recovered
    }
}

/// What a merge did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Merged {
    /// Whether the set changed.
    pub changed: bool,
    /// What was not taken.
    pub refused: Vec<(StatementId, Refusal)>,
}

type Statements = BTreeMap<StatementId, Arc<Statement>>;

/// The statements of one team that a node holds. Closed: whatever a statement hangs on is in it too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TeamSet {
    root: StatementId,
    /// What counts: this is what nodes tell each other.
    statements: Statements,
    /// What is void now and would count again if the removal that voids it were disowned. Kept here only, within
    /// [`VOID_BYTES_MAX`].
    attic: Statements,
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
        let verdict = verdict::of(root, &statements).verdict;
        Ok(Self { root, statements, attic: BTreeMap::new(), verdict })
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

    /// The team's name, as it may be shown.
    pub fn team_name(&self) -> String {
        match &self.statements[&self.root].claim.body {
            Body::Found { team_name, .. } => names::shown(team_name, NAME_BYTES_MAX),
            _ => String::new(),
        }
    }

    /// Who founded the team.
    pub fn founder(&self) -> NodeId {
        self.statements[&self.root].by
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

    /// All statements that nodes tell each other, in no meaningful order.
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.statements.values().map(Arc::as_ref)
    }

    /// What is void for now and kept in case that a removal is disowned.
    pub fn attic(&self) -> impl Iterator<Item = &Statement> {
        self.attic.values().map(Arc::as_ref)
    }

    /// Bytes of all statements that nodes tell each other.
    pub fn bytes(&self) -> usize {
        self.statements().map(room::bytes_of).sum()
    }

    /// The statement with this digest.
    pub fn statement(&self, id: StatementId) -> Option<&Statement> {
        self.statements.get(&id).map(Arc::as_ref)
    }

    /// The ends of the chains of what `node` has signed: what `keep` names when all that is known of it stays valid.
    pub fn heads_of(&self, node: NodeId) -> Vec<StatementId> {
        let chained = || self.statements.values().filter(|s| s.by == node && s.is_chained());
        let has_next: std::collections::BTreeSet<_> = chained().filter_map(|s| s.claim.prev).collect();
        chained().map(|s| s.id).filter(|id| !has_next.contains(id)).collect()
    }

    /// What a removal of `node` names so that all that counts of what it said stays valid: as many heads as a removal can
    /// name, those with the longest chains behind them first.
    pub fn keep_of(&self, node: NodeId) -> Vec<StatementId> {
        let length = |head: &StatementId| {
            let before = |s: &&Arc<Statement>| s.claim.prev.and_then(|id| self.statements.get(&id));
            std::iter::successors(self.statements.get(head), before).count()
        };
        let mut heads = self.heads_of(node);
        if heads.len() > KEEP_MAX {
            heads.sort_by_cached_key(|head| (std::cmp::Reverse(length(head)), *head));
            heads.truncate(KEEP_MAX);
        }
        heads
    }

    /// The highest version that keepers gave to the role of `node`. Its own renames count elsewhere: it could otherwise
    /// pin its role by naming the highest number that there is.
    pub fn role_version_of(&self, node: NodeId) -> u64 {
        let version = |s: &Arc<Statement>| match s.claim.body {
            Body::Add { node: of, version, .. } if of == node => version,
            _ => 0,
        };
        self.statements.values().map(version).max().unwrap_or(0)
    }

    /// The highest version that `node` gave to its own name.
    pub fn name_version_of(&self, node: NodeId) -> u64 {
        let version = |s: &Arc<Statement>| match s.claim.body {
            Body::Rename { version, .. } if s.by == node => version,
            _ => 0,
        };
        self.statements.values().map(version).max().unwrap_or(0)
    }

    /// What `by` would have to sign to say `body`, or why it may not.
    pub fn draft(&self, by: NodeId, body: Body) -> Result<Claim, Refusal> {
        check_sizes(&body)?;
        check_names(&body)?;
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
        if let Body::Remove { node, keep } = &body
            && *node != by
            && verdict::contradicts_itself(self.root, &self.statements, authority, *node, keep)
        {
            return Err(Refusal::BadReference);
        }
        Ok(Claim { team: Some(self.team()), authority: Some(authority), prev, body })
    }
}

/// Names that this node signs itself keep to more than those that it takes from others.
fn check_names(body: &Body) -> Result<(), Refusal> {
    let plain = |name: &str| if names::is_plain(name, NAME_BYTES_MAX) { Ok(()) } else { Err(Refusal::BadName) };
    match body {
        Body::Found { team_name, node_name, .. } => plain(team_name).and(plain(node_name)),
        // A keeper that changes a role repeats the name that the list has.
        Body::Add { name, .. } | Body::Rename { name, .. } => plain(name),
        Body::Remove { .. } | Body::Recover { .. } => Ok(()),
    }
}

impl Body {
    /// Whether the names in it may be signed by this node.
    pub fn check_names(&self) -> Result<(), Refusal> {
        check_names(self)
    }
}

#[cfg(test)]
mod tests;
