//! The team of this node on disk and in memory: statements and invitations are stored whole or not at all, and everyone
//! who asks sees the same view. What the statements mean is the model's business; how they travel is the transport's.

pub mod codec;
pub mod door;
pub(crate) mod files;
pub mod hear;
pub mod invite;
pub mod outcast;
mod shown;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use potluck_model::ids::{Digest, NodeId, TeamId};
use potluck_model::limits::KEEPERS_TOLD_MAX;
use potluck_model::team::{
    Body, Claim, Member, RECOVER_UNSEEN_DAYS_MIN, Refusal, Role, Statement, StatementId, TeamSet,
};
use tokio::sync::watch;

use crate::identity::{Identity, show};
use door::Door;
use invite::{BadLink, INVITES_MAX, Invite, JoinLink, LIFETIME_MAX, Secret, USES_MAX, VIA_MAX};
use outcast::Outcasts;

pub use files::Trouble;
pub use hear::Heard;
pub use shown::{MemberView, OpenInvite, TeamView};

/// What is known of the team at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The team, if this node is or was in one.
    pub team: Option<TeamId>,
    /// Whether this node is in it now.
    pub joined: bool,
    /// All members, this node included. Empty if this node is in no team (any more): who was removed trusts nobody.
    pub members: BTreeMap<NodeId, Member>,
    /// Digest of the set of statements.
    pub digest: Option<Digest>,
    /// Digest of the removals that count.
    pub epoch: Option<Digest>,
}

impl View {
    /// Whether a connection with this node is allowed.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }
}

/// What a command of the team wants and cannot have.
#[derive(Debug)]
pub enum MembershipError {
    /// A file cannot be read or written.
    Io(PathBuf, io::Error),
    /// Another process holds the files.
    InUse(PathBuf),
    /// In no team.
    NoTeam,
    /// In a team already.
    InTeam(String),
    /// This node's key was removed from this team, for good.
    Removed,
    /// Not a member of the team.
    NotAMember(NodeId),
    /// A rule of the statements.
    Refused(Refusal),
    /// A number is out of its range; which and what is allowed.
    OutOfRange(&'static str, String),
    /// An address is none.
    Address(BadLink),
    /// The node's key is in a keyring that is locked.
    KeyLocked,
    /// Its only keeper would leave the others alone.
    LastKeeper,
    /// A keeper stays one until it is removed.
    StaysKeeper,
    /// There is no such invitation.
    NoInvite,
    /// Statements were offered of a team that this node cannot tell to be its own.
    Unsure {
        /// Which.
        team: TeamId,
        /// Its name.
        name: String,
        /// Who founded it.
        founder: NodeId,
    },
}

impl fmt::Display for MembershipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "the team file {} cannot be used: {error}", path.display()),
            Self::InUse(path) => write!(
                f,
                "another Potluck process uses {}\nhint: ask the running node instead, or stop it",
                path.display()
            ),
            Self::NoTeam => f.write_str("this PC is in no team\nhint: potluck team create NAME, or potluck team join LINK"),
            Self::InTeam(name) => write!(f, "this PC is already in the team {name:?}, and a PC is in one team at a time\nhint: potluck team list"),
            Self::Removed => f.write_str(
                "this PC was removed from the team, and its key cannot come back\nhint: join again; the node makes a new key for that",
            ),
            Self::NotAMember(node) => write!(f, "{} is not in the team", show(*node)),
            Self::Refused(why) => write!(f, "{why}"),
            Self::OutOfRange(what, allowed) => write!(f, "{what} must be {allowed}"),
            Self::Address(why) => write!(f, "{why}"),
            Self::KeyLocked => f.write_str(
                "this computer's key is locked in the keyring\nhint: unlock the keyring; Potluck looks every 10 seconds",
            ),
            Self::LastKeeper => f.write_str(
                "this PC is the team's only keeper: without it nobody could take in or remove anyone\nhint: name another keeper first, with potluck team role PC keeper, or leave all the same with --force",
            ),
            Self::StaysKeeper => f.write_str(
                "a keeper stays one as long as it is in the team\nhint: remove the PC; when it joins again, it gets a new key",
            ),
            Self::Unsure { team, name, founder } => write!(
                f,
                "that PC gives back the team {name:?}, which {} founded; nothing here tells that it was this PC's team, and nothing was taken\nhint: if it was: potluck team restore ADDRESS --team {team}",
                show(*founder)
            ),
            Self::NoInvite => f.write_str("there is no such open invitation on this PC\nhint: potluck team list shows them"),
        }
    }
}

impl std::error::Error for MembershipError {}

impl From<Refusal> for MembershipError {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}

/// Why a stranger with a link is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Unknown, used up or expired.
    InviteInvalid,
    /// This node is no keeper.
    NotKeeper,
    /// The stranger's key was removed before.
    KeyRemoved,
    /// Its name or addresses break a rule.
    BadRequest,
    /// The team has no room for another PC.
    Full,
    /// The stranger wants back what it had, and is no member.
    NotAMember,
    /// Nothing could be stored.
    Internal,
}

#[derive(Default)]
struct State {
    set: Option<Arc<TeamSet>>,
    invites: Vec<Invite>,
    /// Statements that were checked and are of no use to this set.
    useless: Arc<HashSet<StatementId>>,
}

/// The team of this node.
pub struct Membership {
    identity: RwLock<Arc<Identity>>,
    /// `identity` only stands in for the node's key, which cannot be had yet.
    stands_in: AtomicBool,
    door: Arc<Door>,
    outcasts: Outcasts,
    dir: PathBuf,
    state: Mutex<State>,
    view: watch::Sender<Arc<View>>,
    /// What was wrong with the files.
    trouble: Mutex<Option<Trouble>>,
    /// Held while this lives.
    _lock: File,
}

impl Membership {
    /// Loads what is stored in `<dir>/team`, where `dir` is `<state>/potluck`.
    pub fn open(identity: Arc<Identity>, dir: &Path) -> Result<Self, MembershipError> {
        Self::open_with(identity, dir, false)
    }

    /// The same while the node's key cannot be had: as a node that is in no team and cannot enter one. `unlock` makes it
    /// whole.
    pub fn open_locked(stand_in: Arc<Identity>, dir: &Path) -> Result<Self, MembershipError> {
        Self::open_with(stand_in, dir, true)
    }

    fn open_with(identity: Arc<Identity>, dir: &Path, stands_in: bool) -> Result<Self, MembershipError> {
        let dir = dir.join("team");
        let io = |error| MembershipError::Io(dir.clone(), error);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(io)?;
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(dir.join("lock"));
        let lock = lock.map_err(io)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| MembershipError::InUse(dir.clone()))?;
        let files::Loaded { set, invites, trouble } = files::load(&dir)?;
        match &trouble {
            Some(Trouble::Mended(what)) => crate::log::warn(&format!("{what}; its copy is used")),
            Some(Trouble::Lost(what)) => {
                crate::log::warn(&format!("{what}; get it back from any PC of the team: potluck team restore ADDRESS"));
            }
            None => {}
        }
        let state = State { set: set.map(Arc::new), invites, useless: Arc::default() };
        let view = watch::Sender::new(Arc::new(view_of(&identity, &state)));
        let (identity, stands_in) = (RwLock::new(identity), AtomicBool::new(stands_in));
        Ok(Self {
            identity,
            stands_in,
            door: Arc::default(),
            outcasts: Outcasts::default(),
            dir,
            state: Mutex::new(state),
            view,
            trouble: Mutex::new(trouble),
            _lock: lock,
        })
    }

    /// What was wrong with the team's files when they were read.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This node's key, or what stands in for it.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the node's key cannot be had yet.
    pub fn is_locked(&self) -> bool {
        self.stands_in.load(Ordering::Acquire)
    }

    /// The key could be had: whoever asks sees the team from now on.
    pub fn unlock(&self, identity: Arc<Identity>) {
        if self.is_locked() {
            self.be(identity);
        }
    }

    /// This PC has a new key: to its old team it is a stranger, who may be taken in. Only for a node that is in no team.
    pub fn renew(&self, identity: Arc<Identity>) {
        self.be(identity);
    }

    fn be(&self, identity: Arc<Identity>) {
        let state = self.lock();
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
        self.stands_in.store(false, Ordering::Release);
        self.view.send_replace(Arc::new(view_of(&self.identity(), &state)));
    }

    /// Whether this node was in a team and is not any more.
    pub fn was_removed(&self) -> bool {
        self.removed_by().is_some()
    }

    /// Who took this node out of its team; itself, if it left.
    pub fn removed_by(&self) -> Option<NodeId> {
        let state = self.lock();
        let set = state.set.as_ref()?;
        let removal = set.verdict().removed.get(&self.identity().id())?;
        set.statement(*removal).map(Statement::by)
    }

    /// Who flooded, and has to stay away.
    pub fn outcasts(&self) -> &Outcasts {
        &self.outcasts
    }

    /// Who waits to be taken in.
    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// The view now.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Tells of every change of the view.
    pub fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Whether a connection with this node is allowed now.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.view.borrow().is_member(node)
    }

    /// Digest of the statements: goes into the hello; equal digests need no gossip.
    pub fn digest(&self) -> Option<Digest> {
        self.view.borrow().digest
    }

    /// All statements as they travel.
    pub fn all(&self) -> Vec<Vec<u8>> {
        self.lock().set.iter().flat_map(|set| set.statements().map(|s| s.raw().to_vec())).collect()
    }

    /// Founds a team with this node as its first keeper.
    pub fn create(&self, team: &str, name: &str, addresses: &[String]) -> Result<TeamId, MembershipError> {
        let mut state = self.lock();
        self.must_be_free(&state)?;
        let addresses = checked(addresses)?;
        let body = Body::Found { team_name: team.to_owned(), node_name: name.to_owned(), addresses };
        let founding = codec::sign(&self.identity(), Claim { team: None, authority: None, prev: None, body })?;
        let set = TeamSet::found(founding)?;
        let team = set.team();
        files::store_invites(&self.dir, &[])?;
        state.invites.clear();
        self.replace(&mut state, set)?;
        Ok(team)
    }

    /// Makes an invitation that this node will honour `uses` times within `lifetime`. `via`: where it can be reached.
    pub fn invite(&self, uses: u32, lifetime: Duration, via: &[String]) -> Result<JoinLink, MembershipError> {
        self.invite_as(uses, lifetime, via, false)
    }

    /// The same; with `approve` a keeper is asked about each PC that comes by it.
    pub fn invite_as(
        &self,
        uses: u32,
        lifetime: Duration,
        via: &[String],
        approve: bool,
    ) -> Result<JoinLink, MembershipError> {
        if !(1..=USES_MAX).contains(&uses) {
            return Err(MembershipError::OutOfRange("the number of uses", format!("1 to {USES_MAX}")));
        }
        if lifetime > LIFETIME_MAX {
            return Err(MembershipError::OutOfRange("the expiry", "at most 30 days".to_owned()));
        }
        if via.is_empty() || via.len() > VIA_MAX {
            return Err(MembershipError::OutOfRange("the number of addresses", format!("1 to {VIA_MAX}")));
        }
        let mut state = self.lock();
        let set = joined(&state, &self.identity())?;
        if !set.is_keeper(self.identity().id()) {
            return Err(MembershipError::Refused(Refusal::NotEntitled));
        }
        let (team, secret, now) = (set.team(), Secret(codec::random()), unix_now());
        let mut invites: Vec<Invite> =
            state.invites.iter().filter(|i| i.expires_unix_s > now.as_secs()).cloned().collect();
        if invites.len() >= INVITES_MAX {
            return Err(MembershipError::OutOfRange(
                "the number of open invitations",
                format!("at most {INVITES_MAX}"),
            ));
        }
        let via = checked(via)?;
        let expires_unix_s = (now + lifetime).as_secs();
        invites.push(Invite { secret, uses_left: uses, expires_unix_s, used_by: Vec::new(), approve });
        files::store_invites(&self.dir, &invites)?;
        state.invites = invites;
        Ok(JoinLink { team, via, keeper: self.identity().id(), secret })
    }

    /// Open invitations of this PC.
    pub fn invites(&self) -> Vec<OpenInvite> {
        let now = unix_now().as_secs();
        let state = self.lock();
        let open = state.invites.iter().filter(|i| i.expires_unix_s > now && i.uses_left > 0);
        open.map(|i| OpenInvite {
            id: i.secret.id(),
            uses_left: i.uses_left,
            expires_unix_s: i.expires_unix_s,
            approve: i.approve,
        })
        .collect()
    }

    /// Takes an invitation back: its link is worth nothing from now on.
    pub fn uninvite(&self, id: &str) -> Result<(), MembershipError> {
        let mut state = self.lock();
        let invites: Vec<Invite> = state.invites.iter().filter(|i| i.secret.id() != id).cloned().collect();
        if invites.len() == state.invites.len() {
            return Err(MembershipError::NoInvite);
        }
        files::store_invites(&self.dir, &invites)?;
        state.invites = invites;
        Ok(())
    }

    /// This PC's name and addresses, as the others see them.
    pub fn rename(&self, name: &str, addresses: &[String]) -> Result<(), MembershipError> {
        let addresses = checked(addresses)?;
        self.say(|set| {
            let version = set.name_version_of(self.identity().id()).saturating_add(1);
            Ok(Body::Rename { name: name.to_owned(), addresses, version })
        })
    }

    /// Takes a member out. What it said as a keeper stays valid as far as it is known here.
    pub fn remove(&self, node: NodeId) -> Result<(), MembershipError> {
        self.say(|set| {
            if !set.is_member(node) {
                return Err(MembershipError::NotAMember(node));
            }
            let keep = if node == self.identity().id() { Vec::new() } else { set.keep_of(node) };
            Ok(Body::Remove { node, keep })
        })
    }

    /// Takes a member out together with all that it took in: nothing that it said as a keeper stays valid.
    pub fn remove_with_added(&self, node: NodeId) -> Result<(), MembershipError> {
        self.say(|set| {
            if !set.is_member(node) {
                return Err(MembershipError::NotAMember(node));
            }
            Ok(Body::Remove { node, keep: Vec::new() })
        })
    }

    /// Leaves the team for good. The only keeper does so only with `force` while others remain.
    pub fn leave(&self, force: bool) -> Result<(), MembershipError> {
        let own = self.identity().id();
        {
            let state = self.lock();
            let set = joined(&state, &self.identity())?;
            let others = set.verdict().members.keys().any(|node| *node != own);
            if !force && others && set.keepers().all(|keeper| keeper.node == own) {
                return Err(MembershipError::LastKeeper);
            }
        }
        self.remove(own)
    }

    /// Changes what a member may do. A keeper stays one.
    pub fn set_role(&self, node: NodeId, role: Role) -> Result<(), MembershipError> {
        self.say(|set| {
            let member = set.verdict().members.get(&node).ok_or(MembershipError::NotAMember(node))?;
            if member.role == Role::Keeper && role != Role::Keeper {
                return Err(MembershipError::StaysKeeper);
            }
            let version = set.role_version_of(node).saturating_add(1);
            Ok(Body::Add { node, role, name: member.name.clone(), addresses: member.addresses.clone(), version })
        })
    }

    /// Votes for new keepers of a team that has lost its own. `unseen_days`: how long this PC has seen none.
    pub fn recover(&self, keepers: &[NodeId], unseen_days: u32) -> Result<(), MembershipError> {
        if unseen_days < RECOVER_UNSEEN_DAYS_MIN {
            return Err(MembershipError::Refused(Refusal::KeeperSeen));
        }
        let mut keepers = keepers.to_vec();
        keepers.sort_unstable();
        keepers.dedup();
        self.say(|_| Ok(Body::Recover { keepers, unseen_days }))
    }

    /// The team for people and programs.
    pub fn list(&self) -> TeamView {
        let state = self.lock();
        let view = self.view.borrow().clone();
        let now = unix_now().as_secs();
        let open = |i: &&Invite| i.expires_unix_s > now && i.uses_left > 0;
        let own = self.identity().id();
        let members = view.members.values().map(|member| MemberView {
            id: member.node.to_string(),
            shown: show(member.node),
            name: member.name.clone(),
            role: member.role,
            addresses: member.addresses.clone(),
            added_by: member.by.to_string(),
            this_pc: member.node == own,
        });
        TeamView {
            id: view.team.map(|team| team.to_string()),
            name: state.set.as_ref().map(|set| set.team_name()),
            joined: view.joined,
            this_pc: own.to_string(),
            this_pc_shown: show(own),
            members: members.collect(),
            open_invites: state.invites.iter().filter(open).count(),
        }
    }

    /// Checks an invitation by its name and hands `proves` its secret. The same answer for every failure.
    pub(crate) fn check_invite(
        &self,
        name: &[u8],
        node: NodeId,
        proves: impl Fn(&Secret) -> bool,
    ) -> Result<Ticket, Rejection> {
        let state = self.lock();
        self.must_admit(&state, node)?;
        let at = usable(&state.invites, name, node).ok_or(Rejection::InviteInvalid)?;
        let Invite { secret, approve, .. } = state.invites[at];
        if proves(&secret) { Ok(Ticket { secret, approve }) } else { Err(Rejection::InviteInvalid) }
    }

    /// The team, if a stranger without a link may be shown to its keeper here.
    pub(crate) fn check_asker(&self, node: NodeId) -> Result<TeamId, Rejection> {
        let state = self.lock();
        self.must_admit(&state, node)?;
        state.set.as_ref().map(|set| set.team()).ok_or(Rejection::NotKeeper)
    }

    /// The team, if this node may give its statements back to a stranger that has lost them.
    pub(crate) fn check_returner(&self, node: NodeId) -> Result<TeamId, Rejection> {
        let state = self.lock();
        let set = joined(&state, &self.identity()).map_err(|_| Rejection::NotAMember)?;
        match set.is_member(node) {
            true => Ok(set.team()),
            false if set.verdict().removed.contains_key(&node) => Err(Rejection::KeyRemoved),
            false => Err(Rejection::NotAMember),
        }
    }

    /// All statements, for a member that has lost its own.
    pub(crate) fn given_back(&self, node: NodeId) -> Result<Vec<Vec<u8>>, Rejection> {
        self.check_returner(node).map(|_| self.all())
    }

    /// The team that this node was in before its files were damaged, if they still tell.
    pub(crate) fn lost_team(&self) -> Option<TeamId> {
        files::known_team(&self.dir)
    }

    /// Takes back what another PC of the team has kept. Anybody can found a team and add this PC's key to it, so the set
    /// is believed only if this node's own key has signed its founding, or if it is the team that was `expected`.
    pub(crate) fn take_back(&self, expected: Option<TeamId>, raw: &[Vec<u8>]) -> Result<TeamId, MembershipError> {
        let statements: Vec<Statement> = raw.iter().filter_map(|raw| codec::decode(raw).ok()).collect();
        let (set, _) = TeamSet::from_statements(statements)?;
        let own = self.identity().id();
        if !set.is_member(own) {
            return Err(MembershipError::NotAMember(own));
        }
        if expected.is_some_and(|team| team != set.team()) {
            return Err(MembershipError::Refused(Refusal::OtherTeam));
        }
        if expected.is_none() && set.founder() != own {
            return Err(MembershipError::Unsure { team: set.team(), name: set.team_name(), founder: set.founder() });
        }
        let mut state = self.lock();
        self.must_be_free(&state)?;
        let team = set.team();
        self.replace(&mut state, set)?;
        Ok(team)
    }

    /// The team's name, if this node is in one.
    pub fn team_name(&self) -> Option<String> {
        let state = self.lock();
        joined(&state, &self.identity()).ok().map(TeamSet::team_name)
    }

    /// Where the team's keepers were last reached; none if this node is in no team.
    pub(crate) fn keeper_addresses(&self) -> Vec<String> {
        let own = self.identity().id();
        let view = self.view();
        let keepers = view.members.values().filter(|m| m.role == Role::Keeper && m.node != own);
        keepers.flat_map(|m| m.addresses.iter().cloned()).take(KEEPERS_TOLD_MAX).collect()
    }

    /// Takes a stranger in whom a keeper has approved or who has proved an invitation: signs its `Add`, stores it,
    /// consumes a use of the invitation, and returns all statements.
    pub(crate) fn admit(
        &self,
        invite: Option<Secret>,
        node: NodeId,
        name: &str,
        addresses: &[String],
    ) -> Result<Vec<Vec<u8>>, Rejection> {
        let mut state = self.lock();
        self.must_admit(&state, node)?;
        let at = match invite {
            Some(secret) => Some(usable(&state.invites, &secret.name(), node).ok_or(Rejection::InviteInvalid)?),
            None => None,
        };
        let set = state.set.as_ref().ok_or(Rejection::NotKeeper)?;
        if !set.is_member(node) {
            let addresses = checked(addresses).map_err(|_| Rejection::BadRequest)?;
            let version = set.role_version_of(node).saturating_add(1);
            let body = Body::Add { node, role: Role::Member, name: name.to_owned(), addresses, version };
            let set = self.said(set, body).map_err(|why| match why {
                Refusal::Full => Rejection::Full,
                _ => Rejection::BadRequest,
            })?;
            // First the use, then the member: a crash between them costs a use and lets nobody in twice.
            let mut invites = state.invites.clone();
            if let Some(at) = at {
                // Zero only for whoever is in `used_by` and was a member then; it was removed, and refused above.
                invites[at].uses_left = invites[at].uses_left.saturating_sub(1);
                invites[at].used_by.push(node.to_string());
            }
            let before = std::mem::replace(&mut state.invites, invites);
            let stored = files::store_invites(&self.dir, &state.invites).and_then(|()| self.replace(&mut state, set));
            if stored.is_err() {
                state.invites = before;
                // If this fails too, the disk is full and the use is lost; the keeper makes another invitation.
                let _ = files::store_invites(&self.dir, &state.invites);
                return Err(Rejection::Internal);
            }
        }
        Ok(state.set.iter().flat_map(|set| set.statements().map(|s| s.raw().to_vec())).collect())
    }

    /// Becomes a member by what a keeper's node has answered.
    pub(crate) fn adopt(&self, team: TeamId, raw: &[Vec<u8>]) -> Result<(), MembershipError> {
        let statements: Vec<Statement> = raw.iter().filter_map(|raw| codec::decode(raw).ok()).collect();
        let (mut set, _) = TeamSet::from_statements(statements)?;
        if set.team() != team {
            return Err(MembershipError::Refused(Refusal::OtherTeam));
        }
        if !set.is_member(self.identity().id()) {
            return Err(MembershipError::Refused(Refusal::Incomplete));
        }
        let mut state = self.lock();
        match &state.set {
            Some(own) if own.team() == team => {
                set.union(own);
            }
            _ => self.must_be_free(&state)?,
        }
        self.replace(&mut state, set)
    }

    /// Whether this node could join a team now.
    pub(crate) fn may_join(&self, team: Option<TeamId>) -> Result<(), MembershipError> {
        let state = self.lock();
        match &state.set {
            Some(set) if Some(set.team()) == team && set.verdict().removed.contains_key(&self.identity().id()) => {
                Err(MembershipError::Removed)
            }
            Some(set) if Some(set.team()) == team && !self.is_locked() => Ok(()),
            _ => self.must_be_free(&state),
        }
    }

    fn must_be_free(&self, state: &State) -> Result<(), MembershipError> {
        if self.is_locked() {
            return Err(MembershipError::KeyLocked);
        }
        match &state.set {
            Some(set) if set.is_member(self.identity().id()) => Err(MembershipError::InTeam(set.team_name())),
            _ => Ok(()),
        }
    }

    fn must_admit(&self, state: &State, node: NodeId) -> Result<(), Rejection> {
        let set = state.set.as_ref().ok_or(Rejection::NotKeeper)?;
        if !set.is_keeper(self.identity().id()) {
            return Err(Rejection::NotKeeper);
        }
        if set.verdict().removed.contains_key(&node) { Err(Rejection::KeyRemoved) } else { Ok(()) }
    }

    /// Signs and stores a statement of this node.
    fn say(&self, body: impl FnOnce(&TeamSet) -> Result<Body, MembershipError>) -> Result<(), MembershipError> {
        if self.is_locked() {
            return Err(MembershipError::KeyLocked);
        }
        let mut state = self.lock();
        let set = joined(&state, &self.identity())?;
        let set = self.said(set, body(set)?)?;
        self.replace(&mut state, set)
    }

    fn said(&self, set: &TeamSet, body: Body) -> Result<TeamSet, Refusal> {
        let statement = codec::sign(&self.identity(), set.draft(self.identity().id(), body)?)?;
        let id: StatementId = statement.id();
        let mut set = TeamSet::clone(set);
        let merged = set.merge(vec![statement]);
        match merged.refused.iter().find(|(refused, _)| *refused == id) {
            Some((_, why)) => Err(*why),
            // Signed well, and still not among what is kept.
            None if set.statement(id).is_none() => Err(Refusal::Full),
            None => Ok(set),
        }
    }

    /// Stores first, then shows: what others have been told of survives a crash.
    fn replace(&self, state: &mut State, set: TeamSet) -> Result<(), MembershipError> {
        files::store_statements(&self.dir, &set)?;
        state.set = Some(Arc::new(set));
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take_if(|t| matches!(t, Trouble::Lost(_)));
        self.view.send_replace(Arc::new(view_of(&self.identity(), state)));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is replaced whole, so that a panic elsewhere leaves no half of it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a proved invitation allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Which.
    pub(crate) secret: Secret,
    /// A keeper is asked first.
    pub(crate) approve: bool,
}

fn joined<'a>(state: &'a State, identity: &Identity) -> Result<&'a TeamSet, MembershipError> {
    match &state.set {
        Some(set) if set.is_member(identity.id()) => Ok(set),
        Some(set) if set.verdict().removed.contains_key(&identity.id()) => Err(MembershipError::Removed),
        _ => Err(MembershipError::NoTeam),
    }
}

fn view_of(identity: &Identity, state: &State) -> View {
    let Some(set) = &state.set else { return View::default() };
    let joined = set.is_member(identity.id());
    View {
        team: Some(set.team()),
        joined,
        members: if joined { set.verdict().members.clone() } else { BTreeMap::new() },
        digest: Some(set.digest()),
        epoch: Some(set.verdict().epoch),
    }
}

fn usable(invites: &[Invite], name: &[u8], node: NodeId) -> Option<usize> {
    let now = unix_now().as_secs();
    let node = node.to_string();
    invites.iter().position(|invite| {
        invite.secret.name() == name
            && invite.expires_unix_s > now
            && (invite.uses_left > 0 || invite.used_by.contains(&node))
    })
}

fn checked(addresses: &[String]) -> Result<Vec<String>, MembershipError> {
    addresses.iter().map(|a| invite::address(a).map_err(MembershipError::Address)).collect()
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
