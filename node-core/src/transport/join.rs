//! The join protocol, both sides: four messages over a TLS session whose server key the joiner has pinned, and proofs
//! of the invitation's secret that are worth nothing in another session.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use potluck_model::ids::{NodeId, TeamId};
use potluck_model::limits::CONTROL_MESSAGE_BYTES_MAX;
use potluck_wire::team::{JoinConfirm, JoinOffer, JoinRefusal, JoinRequest, JoinWelcome};
use prost::Message;
use ring::hmac;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::connect::{ConnectError, connect_to_join};
use super::stream::PeerStream;
use crate::membership::invite::{JoinLink, Secret};
use crate::membership::{Membership, MembershipError, Rejection};

/// All that a stranger may send.
const STRANGER_BYTES_MAX: usize = 16 << 10;
/// Time for all four messages.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
const EXPORTER_LABEL: &[u8] = b"EXPORTER-potluck-join-1";
const JOINER: &[u8] = b"potluck-join-1 joiner\0";
const KEEPER: &[u8] = b"potluck-join-1 keeper\0";

/// Why joining failed.
#[derive(Debug)]
pub enum JoinError {
    /// No address of the link works; the error of each.
    Unreachable(Vec<(String, String)>),
    /// Somebody else answers at the keeper's address.
    WrongNode(String),
    /// The keeper's node said no.
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
                f.write_str("the inviting PC cannot be reached")?;
                tried.iter().try_for_each(|(via, why)| write!(f, "; {via}: {why}"))?;
                f.write_str("\nhint: is it switched on, and in the same network?")
            }
            Self::WrongNode(via) => write!(
                f,
                "the machine at {via} is not the one that made this invitation; nothing was sent to it\nhint: ask for a new invitation"
            ),
            Self::Refused(JoinRefusal::JoinInviteInvalid) => {
                f.write_str("the invitation is unknown, used up or expired\nhint: ask for a new one")
            }
            Self::Refused(JoinRefusal::JoinNotKeeper) => {
                f.write_str("the inviting PC may not take in others any more\nhint: ask a keeper of the team")
            }
            Self::Refused(JoinRefusal::JoinKeyRemoved) => write!(f, "{}", MembershipError::Removed),
            Self::Refused(JoinRefusal::JoinBadRequest) => f.write_str(
                "the inviting PC does not accept this PC's name or addresses\nhint: choose a shorter, plain name",
            ),
            Self::Refused(_) => f.write_str("the inviting PC had a problem\nhint: try again"),
            Self::NotTheInviter => f.write_str("the other side did not make this invitation\nhint: ask for a new one"),
            Self::Broken(error) => write!(f, "the conversation with the inviting PC broke: {error}\nhint: try again"),
            Self::Membership(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for JoinError {}

impl From<io::Error> for JoinError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Joins the team that `link` invites to, as `name`, reachable at `addresses`. On success the team is stored.
pub async fn join(
    membership: &Arc<Membership>,
    link: &JoinLink,
    name: &str,
    addresses: &[String],
) -> Result<TeamId, JoinError> {
    membership.may_join(link.team).map_err(JoinError::Membership)?;
    let mut tried = Vec::new();
    for via in &link.via {
        let resolved = match tokio::net::lookup_host(via).await {
            Ok(resolved) => resolved,
            Err(error) => {
                tried.push((via.clone(), error.to_string()));
                continue;
            }
        };
        for addr in resolved {
            match connect_to_join(membership, addr, link.keeper).await {
                Ok(stream) => {
                    let asked = timeout(JOIN_TIMEOUT, ask(membership, stream, link, name, addresses)).await;
                    return asked.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
                }
                Err(ConnectError::WrongNode(_)) => return Err(JoinError::WrongNode(via.clone())),
                Err(error) => tried.push((via.clone(), error.to_string())),
            }
        }
    }
    Err(JoinError::Unreachable(tried))
}

async fn ask(
    membership: &Membership,
    mut stream: PeerStream,
    link: &JoinLink,
    name: &str,
    addresses: &[String],
) -> Result<TeamId, JoinError> {
    let proof = Proof::of(&stream, membership.identity().id(), stream.peer(), link.team)?;
    let request = JoinRequest {
        team: link.team.0.to_vec(),
        invite: link.secret.name().to_vec(),
        proof: proof.make(&link.secret, JOINER),
        name: name.to_owned(),
        addresses: addresses.to_vec(),
    };
    send(&mut stream, &request).await?;
    let mut budget = STRANGER_BYTES_MAX;
    let offer: JoinOffer = receive(&mut stream, &mut budget).await?;
    accepted(offer.refusal())?;
    if !proof.is(&link.secret, KEEPER, &offer.proof) {
        return Err(JoinError::NotTheInviter);
    }
    send(&mut stream, &JoinConfirm {}).await?;
    let mut budget = CONTROL_MESSAGE_BYTES_MAX;
    let welcome: JoinWelcome = receive(&mut stream, &mut budget).await?;
    accepted(welcome.refusal())?;
    membership.adopt(link.team, &welcome.statements).map_err(JoinError::Membership)?;
    Ok(link.team)
}

fn accepted(refusal: JoinRefusal) -> Result<(), JoinError> {
    if refusal == JoinRefusal::JoinOk { Ok(()) } else { Err(JoinError::Refused(refusal)) }
}

/// The keeper's side. A use of the invitation is consumed only after the joiner has confirmed.
pub(super) async fn answer(membership: &Membership, stream: PeerStream) -> io::Result<()> {
    timeout(JOIN_TIMEOUT, talk(membership, stream)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn talk(membership: &Membership, mut stream: PeerStream) -> io::Result<()> {
    let mut budget = STRANGER_BYTES_MAX;
    let request: JoinRequest = receive(&mut stream, &mut budget).await?;
    let joiner = stream.peer();
    let team = TeamId::try_from(request.team.as_slice()).map_err(|_| io::ErrorKind::InvalidData)?;
    let proof = Proof::of(&stream, joiner, membership.identity().id(), team)?;
    let is_proved = |secret: &Secret| proof.is(secret, JOINER, &request.proof);
    let checked = match membership.view().team {
        Some(own) if own == team => membership.check_invite(&request.invite, joiner, is_proved),
        _ => Err(Rejection::InviteInvalid),
    };
    let secret = match checked {
        Ok(secret) => secret,
        Err(rejection) => {
            let offer = JoinOffer { refusal: refusal_of(rejection).into(), proof: Vec::new() };
            send(&mut stream, &offer).await?;
            let _ = stream.shutdown().await;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    };
    let offer = JoinOffer { refusal: JoinRefusal::JoinOk.into(), proof: proof.make(&secret, KEEPER) };
    send(&mut stream, &offer).await?;
    let JoinConfirm {} = receive(&mut stream, &mut budget).await?;
    let welcome = match membership.admit(secret, joiner, &request.name, &request.addresses) {
        Ok(statements) => JoinWelcome { refusal: JoinRefusal::JoinOk.into(), statements },
        Err(rejection) => JoinWelcome { refusal: refusal_of(rejection).into(), statements: Vec::new() },
    };
    send(&mut stream, &welcome).await?;
    stream.shutdown().await
}

fn refusal_of(rejection: Rejection) -> JoinRefusal {
    match rejection {
        Rejection::InviteInvalid => JoinRefusal::JoinInviteInvalid,
        Rejection::NotKeeper => JoinRefusal::JoinNotKeeper,
        Rejection::KeyRemoved => JoinRefusal::JoinKeyRemoved,
        Rejection::BadRequest => JoinRefusal::JoinBadRequest,
        Rejection::Internal => JoinRefusal::JoinInternal,
    }
}

/// What a proof of the secret is bound to: this TLS session, both keys, the team.
struct Proof(Vec<u8>);

impl Proof {
    fn of(stream: &PeerStream, joiner: NodeId, keeper: NodeId, team: TeamId) -> io::Result<Self> {
        let exporter = stream.exported(EXPORTER_LABEL).map_err(io::Error::other)?;
        Ok(Self([exporter, joiner.0, keeper.0, team.0].concat()))
    }

    fn make(&self, secret: &Secret, label: &[u8]) -> Vec<u8> {
        hmac::sign(&key(secret), &[label, &self.0].concat()).as_ref().to_vec()
    }

    fn is(&self, secret: &Secret, label: &[u8], proof: &[u8]) -> bool {
        hmac::verify(&key(secret), &[label, &self.0].concat(), proof).is_ok()
    }
}

fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &secret.0)
}

async fn send(stream: &mut PeerStream, message: &impl Message) -> io::Result<()> {
    let body = message.encode_to_vec();
    let len = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&len.to_be_bytes(), body.as_slice()].concat()).await?;
    stream.flush().await
}

/// Reads one message; `budget` is what the other side may still send, checked before memory is taken.
async fn receive<M: Message + Default>(stream: &mut PeerStream, budget: &mut usize) -> io::Result<M> {
    let len = stream.read_u32().await? as usize;
    *budget = budget.checked_sub(len + 4).ok_or(io::ErrorKind::InvalidData)?;
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    M::decode(body.as_slice()).map_err(|_| io::ErrorKind::InvalidData.into())
}
