//! The join protocol, the joiner's side: over a TLS session whose server key it has pinned from a link, with proofs of
//! the invitation's secret that are worth nothing in another session; or without a link, and then two people compare four
//! pictures.

pub(super) mod keeper;
mod session;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use potluck_model::ids::{NodeId, TeamId};
use potluck_model::limits::{ASKING_TIMEOUT, CONTROL_MESSAGE_BYTES_MAX, KEEPERS_TOLD_MAX};
use potluck_model::nearby::TeamTag;
use potluck_model::team::check::Check;
use potluck_wire::team::{JoinConfirm, JoinOffer, JoinRefusal, JoinRequest, JoinWelcome};
use tokio::time::{Instant, timeout, timeout_at};

use self::session::{JOINER, KEEPER, Nonce, Session, commitment, is_plain, receive, send};
use super::connect::{ConnectError, connect_to_join};
use super::stream::PeerStream;
use crate::membership::codec::random;
use crate::membership::invite::{self, JoinLink};
use crate::membership::{Membership, MembershipError};

/// All that a stranger may send, and an answerer up to the welcome.
const STRANGER_BYTES_MAX: usize = 16 << 10;
/// Time for what needs no person; and no silence is longer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// First pause before this side asks again by itself ...
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// ... and the longest; who is told to ask again waits twice as long each time.
const RETRY_LONGEST: Duration = Duration::from_secs(2);
/// Who is told to ask again does so for this long.
const RETRY_BUSY_FOR: Duration = Duration::from_secs(20);
/// Who is cut off may have come to something that is no Potluck: a person shall hear of it soon.
const RETRY_CUT_FOR: Duration = Duration::from_secs(8);
/// Addresses of one host name that are tried.
const RESOLVED_MAX: usize = 8;

/// Why joining failed.
#[derive(Debug)]
pub enum JoinError {
    /// No address works; the error of each.
    Unreachable(Vec<(String, String)>),
    /// Somebody else answers at the keeper's address.
    WrongNode(String),
    /// Who answers is in another team than the one that was picked.
    OtherTeam,
    /// The address that was asked is this PC's own.
    Itself(String),
    /// The keeper's node, or a keeper, said no.
    Refused(JoinRefusal),
    /// The other side knows the address and the key but not the secret: not the node that made the link.
    NotTheInviter,
    /// The conversation broke.
    Broken(io::Error),
    /// This node cannot join, or could not store the team.
    Membership(MembershipError),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(tried) => {
                f.write_str("the team's PC cannot be reached")?;
                tried.iter().try_for_each(|(via, why)| write!(f, "; {via}: {why}"))?;
                f.write_str("\nhint: is it switched on, and in the same network?")
            }
            Self::WrongNode(via) => write!(
                f,
                "the machine at {via} is not the one that made this invitation; nothing was sent to it\nhint: ask for a new invitation"
            ),
            Self::OtherTeam => f.write_str(
                "whoever answered there is in another team than the one that was picked; nothing was joined\nhint: ask somebody in the team for an invitation",
            ),
            Self::Itself(via) => write!(f, "{via} is this PC itself\nhint: give the address of a PC of the team"),
            Self::Refused(JoinRefusal::JoinInviteInvalid) => {
                f.write_str("the invitation is unknown, used up or expired\nhint: ask for a new one")
            }
            Self::Refused(JoinRefusal::JoinNotKeeper) => {
                f.write_str("that PC may not take in others, and no keeper of its team could be asked\nhint: ask a keeper of the team for an invitation")
            }
            Self::Refused(JoinRefusal::JoinKeyRemoved) => write!(f, "{}", MembershipError::Removed),
            Self::Refused(JoinRefusal::JoinBadRequest) => f.write_str(
                "the team's PC does not accept what this one said of itself\nhint: choose a shorter, plain name; update the older of the two Potlucks",
            ),
            Self::Refused(JoinRefusal::JoinDeclined) => {
                f.write_str("the team's keeper said no\nhint: talk to the keeper, and compare the pictures")
            }
            Self::Refused(JoinRefusal::JoinNotAnswered) => {
                f.write_str("no keeper of the team answered within ten minutes\nhint: tell the keeper, then try again")
            }
            Self::Refused(JoinRefusal::JoinBusy) => {
                f.write_str("too many PCs want to join there at this moment\nhint: try again in a minute")
            }
            Self::Refused(JoinRefusal::JoinTeamFull) => f.write_str(
                "the team is full: its list of PCs has no room for another one\nhint: ask a keeper of the team to take out PCs that nobody knows",
            ),
            Self::Refused(JoinRefusal::JoinNotAMember) => f.write_str(
                "that PC knows no team that this one is a member of\nhint: try another PC of the team; or join again: potluck team join LINK",
            ),
            Self::Refused(_) => f.write_str("the team's PC had a problem\nhint: try again"),
            Self::NotTheInviter => f.write_str("the other side did not make this invitation\nhint: ask for a new one"),
            Self::Broken(error) => write!(f, "the conversation with the team's PC broke: {error}\nhint: try again"),
            Self::Membership(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for JoinError {}

impl JoinError {
    /// This node's key was removed: with another one it can be taken in.
    pub fn is_removed(&self) -> bool {
        matches!(self, Self::Refused(JoinRefusal::JoinKeyRemoved) | Self::Membership(MembershipError::Removed))
    }
}

impl From<io::Error> for JoinError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// How a team is entered.
#[derive(Clone, Debug)]
pub enum Way {
    /// By an invitation.
    Link(JoinLink),
    /// By asking at addresses of its members.
    Ask {
        /// `host:port` of each.
        vias: Vec<String>,
        /// The team that was picked, as it announces itself: whoever answers an announcement for another team is not
        /// believed. None: whatever team is there.
        team: Option<TeamTag>,
    },
    /// By asking a member for the statements that this node, a member, has lost.
    Restore {
        /// `host:port` of each that may be one.
        vias: Vec<String>,
        /// The team that it was; none: only one that this node has founded is believed.
        team: Option<TeamId>,
    },
}

/// A keeper is being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The team's name, as the other side says.
    pub team: String,
    /// Must be the same on the keeper's screen.
    pub check: Check,
}

/// In.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Which team.
    pub team: TeamId,
    /// What the keeper's side showed; none if it shows no pictures.
    pub check: Option<Check>,
}

/// Joins the team that `link` invites to, as `name`, reachable at `addresses`. On success the team is stored.
pub async fn join(
    membership: &Arc<Membership>,
    link: &JoinLink,
    name: &str,
    addresses: &[String],
) -> Result<TeamId, JoinError> {
    let joined = enter(membership, &Way::Link(link.clone()), name, addresses, |_| ()).await?;
    Ok(joined.team)
}

/// Joins a team either way. `pending` hears of it when a keeper is being asked.
pub async fn enter(
    membership: &Arc<Membership>,
    way: &Way,
    name: &str,
    addresses: &[String],
    pending: impl Fn(Pending) + Send,
) -> Result<Joined, JoinError> {
    enter_patiently(membership, way, name, addresses, pending, || ()).await
}

/// The same; `busy` hears of it when the other side has no place at this moment, and this one asks again by itself.
pub async fn enter_patiently(
    membership: &Arc<Membership>,
    way: &Way,
    name: &str,
    addresses: &[String],
    pending: impl Fn(Pending) + Send,
    busy: impl Fn() + Send,
) -> Result<Joined, JoinError> {
    let began = Instant::now();
    let mut longer = RETRY_FIRST;
    loop {
        let (error, pause, patience) = match enter_once(membership, way, name, addresses, &pending).await {
            Ok(joined) => return Ok(joined),
            Err(Miss::Final(error)) => return Err(error),
            Err(Miss::Busy(asked_for)) => {
                longer = (longer * 2).min(RETRY_LONGEST);
                (JoinError::Refused(JoinRefusal::JoinBusy), asked_for.max(longer / 2), RETRY_BUSY_FOR)
            }
            // That costs the other side nothing, and each try is as good as the last.
            Err(Miss::Cut(error)) => (error, RETRY_FIRST, RETRY_CUT_FOR),
        };
        // Half of it and up to as much again: whoever was turned away together does not come back together.
        let wait = pause.mul_f64(0.5 + f64::from(u16::from_be_bytes(random())) / 65536.0);
        if began.elapsed() + wait > patience {
            return Err(error);
        }
        busy();
        tokio::time::sleep(wait).await;
    }
}

/// Why one try led nowhere.
enum Miss {
    Final(JoinError),
    /// The other side names a time after which to ask again.
    Busy(Duration),
    /// The connection was cut before the other side said anything: it has many others, or was about to end.
    Cut(JoinError),
}

impl From<JoinError> for Miss {
    fn from(error: JoinError) -> Self {
        Self::Final(error)
    }
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Self {
        Self::Final(error.into())
    }
}

/// Whether the other side ended a connection, and it was nothing that this one said.
fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

async fn enter_once(
    membership: &Arc<Membership>,
    way: &Way,
    name: &str,
    addresses: &[String],
    pending: &(impl Fn(Pending) + Send),
) -> Result<Joined, Miss> {
    let (link, picked, mut vias) = match way {
        Way::Link(link) => (Some(link), None, &link.via[..]),
        Way::Ask { vias, team } => (None, *team, &vias[..]),
        Way::Restore { vias, .. } => (None, None, &vias[..]),
    };
    membership.may_join(link.map(|link| link.team)).map_err(JoinError::Membership)?;
    let restores = if let Way::Restore { team, .. } = way { Some(*team) } else { None };
    let me = Joiner { membership, link, picked, restores, name, addresses, pending };
    if restores.is_some() {
        return me.restore(membership, vias).await;
    }
    let mut keepers = loop {
        let (found, left) = dial(membership, vias, link.map(|link| link.keeper)).await?;
        match me.at(found).await {
            Ok(Met::Joined(joined)) => return Ok(joined),
            Ok(Met::Elsewhere(keepers)) => break keepers,
            // Anybody can announce anything: the team's own PCs may be further down.
            Err(Miss::Final(JoinError::OtherTeam)) if !left.is_empty() => vias = left,
            Err(error) => return Err(error),
        }
    };
    // Once: whoever is sent on from there as well is sent in circles.
    keepers.truncate(KEEPERS_TOLD_MAX);
    let refused = JoinError::Refused(JoinRefusal::JoinNotKeeper);
    let found = match dial(membership, &keepers, None).await {
        Ok((found, _)) => found,
        Err(Miss::Final(_)) => return Err(refused.into()),
        Err(again) => return Err(again),
    };
    match me.at(found).await? {
        Met::Joined(joined) => Ok(joined),
        Met::Elsewhere(_) => Err(refused.into()),
    }
}

/// Connects to the first address that works; without `keeper` to whoever answers there. Also the addresses behind it.
async fn dial<'a>(
    membership: &Arc<Membership>,
    vias: &'a [String],
    keeper: Option<NodeId>,
) -> Result<(PeerStream, &'a [String]), Miss> {
    let (mut tried, mut itself, mut is_busy) = (Vec::new(), None, false);
    for (at, via) in vias.iter().enumerate() {
        let resolved = match timeout(JOIN_TIMEOUT, tokio::net::lookup_host(via)).await {
            Ok(Ok(resolved)) => resolved,
            Ok(Err(error)) => {
                tried.push((via.clone(), error.to_string()));
                continue;
            }
            Err(_) => {
                tried.push((via.clone(), "its name was not found in time".to_owned()));
                continue;
            }
        };
        for addr in resolved.take(RESOLVED_MAX) {
            match connect_to_join(membership, addr, keeper).await {
                Ok(stream) => return Ok((stream, &vias[at + 1..])),
                Err(ConnectError::WrongNode(_)) if keeper.is_some() => {
                    return Err(JoinError::WrongNode(via.clone()).into());
                }
                // Without a pin only this node's own key is refused.
                Err(ConnectError::WrongNode(_)) => itself = Some(via.clone()),
                Err(error) => {
                    // Refused is not cut: nobody listens there.
                    is_busy |= matches!(
                        &error,
                        ConnectError::Handshake(_, error) | ConnectError::Unreachable(_, error) if is_cut(error)
                    );
                    tried.push((via.clone(), error.to_string()));
                }
            }
        }
    }
    match itself {
        Some(via) if tried.is_empty() => Err(JoinError::Itself(via).into()),
        _ if is_busy => Err(Miss::Cut(JoinError::Unreachable(tried))),
        _ => Err(JoinError::Unreachable(tried).into()),
    }
}

/// Where a conversation led.
enum Met {
    Joined(Joined),
    /// That node is no keeper; these are said to be.
    Elsewhere(Vec<String>),
}

/// This node on its way in.
struct Joiner<'a, F> {
    membership: &'a Membership,
    link: Option<&'a JoinLink>,
    picked: Option<TeamTag>,
    /// It wants back what it had: the team, if that is known.
    restores: Option<Option<TeamId>>,
    name: &'a str,
    addresses: &'a [String],
    pending: &'a F,
}

impl<F: Fn(Pending)> Joiner<'_, F> {
    /// The whole conversation with the node at the other end.
    async fn at(&self, mut stream: PeerStream) -> Result<Met, Miss> {
        let late = |_| JoinError::from(io::Error::from(io::ErrorKind::TimedOut));
        let agreed = timeout(JOIN_TIMEOUT, self.agree(&mut stream)).await.map_err(late)??;
        let (team, check, pending) = match agreed {
            Agreed::Elsewhere(keepers) => return Ok(Met::Elsewhere(keepers)),
            Agreed::Team { team, check, pending } => (team, check, pending),
        };
        if let Some(pending) = pending {
            (self.pending)(pending);
        }
        let deadline = Instant::now() + ASKING_TIMEOUT + JOIN_TIMEOUT;
        let mut budget = CONTROL_MESSAGE_BYTES_MAX;
        let statements = loop {
            // The beat is much faster: this long a silence is a dead connection.
            let patience = deadline.min(Instant::now() + JOIN_TIMEOUT);
            let welcome =
                timeout_at(patience, receive::<JoinWelcome>(&mut stream, &mut budget)).await.map_err(late)??;
            match welcome.refusal() {
                JoinRefusal::JoinOk => break welcome.statements,
                JoinRefusal::JoinWait => {}
                refusal => return Err(JoinError::Refused(refusal).into()),
            }
        };
        match self.restores {
            Some(expected) => self.membership.take_back(expected, &statements).map(|_| ()),
            None => self.membership.adopt(team, &statements),
        }
        .map_err(JoinError::Membership)?;
        Ok(Met::Joined(Joined { team, check }))
    }

    async fn offer(&self, stream: &mut PeerStream, request: &JoinRequest) -> io::Result<JoinOffer> {
        send(stream, request).await?;
        let mut budget = STRANGER_BYTES_MAX;
        receive(stream, &mut budget).await
    }

    /// Asks one after the other until one has this node's team; else tells of the first that had anything to say.
    async fn restore(&self, membership: &Arc<Membership>, mut vias: &[String]) -> Result<Joined, Miss> {
        let mut first = None;
        while !vias.is_empty() {
            let (found, left) = match dial(membership, vias, None).await {
                Ok(dialled) => dialled,
                Err(error) => return Err(first.unwrap_or(error)),
            };
            match self.at(found).await {
                Ok(Met::Joined(joined)) => return Ok(joined),
                Ok(Met::Elsewhere(_)) => {
                    first.get_or_insert(JoinError::Refused(JoinRefusal::JoinNotAMember).into());
                }
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
            vias = left;
        }
        Err(first.unwrap_or(JoinError::Unreachable(Vec::new()).into()))
    }

    /// Up to the confirmation: who both sides are, and what they show.
    async fn agree(&self, stream: &mut PeerStream) -> Result<Agreed, Miss> {
        let (own, keeper) = (self.membership.identity().id(), stream.peer());
        let nonce: Nonce = random();
        let mut request = JoinRequest {
            name: self.name.to_owned(),
            addresses: self.addresses.to_vec(),
            commitment: commitment(&nonce).to_vec(),
            restore: self.restores.is_some(),
            ..JoinRequest::default()
        };
        if let Some(link) = self.link {
            request.team = link.team.0.to_vec();
            request.invite = link.secret.name().to_vec();
            request.proof = Session::of(stream, own, keeper, link.team)?.prove(&link.secret, JOINER);
        }
        let offer = self.offer(stream, &request).await.map_err(|error| match is_cut(&error) {
            true => Miss::Cut(error.into()),
            false => error.into(),
        })?;
        match offer.refusal() {
            JoinRefusal::JoinOk => {}
            JoinRefusal::JoinNotKeeper if self.link.is_none() && !offer.keepers.is_empty() => {
                let keepers = offer.keepers.iter().filter_map(|keeper| invite::address(keeper).ok());
                return Ok(Agreed::Elsewhere(keepers.take(KEEPERS_TOLD_MAX).collect()));
            }
            JoinRefusal::JoinBusy if offer.retry_ms > 0 => {
                return Err(Miss::Busy(Duration::from_millis(offer.retry_ms.into()).min(RETRY_BUSY_FOR)));
            }
            refusal => return Err(JoinError::Refused(refusal).into()),
        }
        if self.restores.is_some() && offer.approve {
            // An older keeper, to whom this PC is a stranger that asks.
            return Err(JoinError::Refused(JoinRefusal::JoinNotAMember).into());
        }
        let broken = || JoinError::from(io::Error::from(io::ErrorKind::InvalidData));
        let team = match self.link {
            Some(link) => link.team,
            None => TeamId::try_from(offer.team.as_slice()).map_err(|_| broken())?,
        };
        if self.picked.is_some_and(|picked| picked != TeamTag::of(team)) {
            return Err(JoinError::OtherTeam.into());
        }
        // Another team than the one that this node is in, or was removed from.
        self.membership.may_join(Some(team)).map_err(JoinError::Membership)?;
        let session = Session::of(stream, own, keeper, team)?;
        if self.link.is_some_and(|link| !session.is_proved(&link.secret, KEEPER, &offer.proof)) {
            return Err(JoinError::NotTheInviter.into());
        }
        let check = match Nonce::try_from(offer.nonce.as_slice()) {
            Ok(theirs) => Some(session.check(&nonce, &theirs)),
            // An older node, which the link has pinned and which asks no person.
            Err(_) if offer.nonce.is_empty() && self.link.is_some() && !offer.approve => None,
            Err(_) => return Err(broken().into()),
        };
        send(stream, &JoinConfirm { nonce: nonce.to_vec() }).await?;
        let name = if is_plain(&offer.team_name) { offer.team_name } else { "?".to_owned() };
        let pending = check.filter(|_| offer.approve).map(|check| Pending { team: name, check });
        Ok(Agreed::Team { team, check, pending })
    }
}

enum Agreed {
    Elsewhere(Vec<String>),
    Team {
        team: TeamId,
        check: Option<Check>,
        /// A keeper is asked first.
        pending: Option<Pending>,
    },
}
