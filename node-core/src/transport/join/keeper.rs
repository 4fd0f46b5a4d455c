//! The keeper's side of a join: who may come in at once, who waits for a keeper's yes, and who is turned away. Strangers
//! are heard within bounds of bytes and time.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use potluck_model::ids::TeamId;
use potluck_model::limits::{
    ASKING_BEAT, ASKING_TIMEOUT, FIRST_MESSAGE_TIMEOUT, JOINS_MAX, JOINS_PER_ADDRESS_MAX, JOINS_PROVED_MAX,
    JOINS_PROVED_PER_ADDRESS_MAX,
};
use potluck_model::team::check::Check;
use potluck_wire::team::{JoinConfirm, JoinOffer, JoinRefusal, JoinRequest, JoinWelcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{interval, sleep, timeout};

use super::session::{JOINER, KEEPER, Nonce, Session, commitment, is_plain, receive, send};
use super::{JOIN_TIMEOUT, STRANGER_BYTES_MAX};
use crate::membership::codec::random;
use crate::membership::door::{Asking, News};
use crate::membership::invite::Secret;
use crate::membership::{Membership, Rejection, Ticket};
use crate::transport::counts::{Counted, Counts};
use crate::transport::stream::PeerStream;

/// A stranger without an invitation confirms within this time: no person is needed for it.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);
/// Whoever finds no place asks again after some part of this: conversations take milliseconds.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// Places for conversations: those of PCs that have proved an invitation, and those of all others.
pub(in crate::transport) struct Places {
    proved: Kind,
    others: Kind,
}

struct Kind {
    all: Arc<Semaphore>,
    by_address: Counts<IpAddr>,
    per_address_max: usize,
}

/// A place in a conversation, given back when it is dropped.
type Place = (OwnedSemaphorePermit, Counted<IpAddr>);

impl Default for Places {
    fn default() -> Self {
        let kind = |max, per_address_max| Kind {
            all: Arc::new(Semaphore::new(max)),
            by_address: Counts::default(),
            per_address_max,
        };
        Self {
            proved: kind(JOINS_PROVED_MAX, JOINS_PROVED_PER_ADDRESS_MAX),
            others: kind(JOINS_MAX, JOINS_PER_ADDRESS_MAX),
        }
    }
}

impl Places {
    fn enter(&self, network: IpAddr, proved: bool) -> Option<Place> {
        let kind = if proved { &self.proved } else { &self.others };
        let of_address = kind.by_address.enter(network, kind.per_address_max)?;
        Some((Arc::clone(&kind.all).try_acquire_owned().ok()?, of_address))
    }
}

/// What came of a conversation that broke no rule.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Answered {
    /// A PC is in that was not before, or a person was asked.
    Heard,
    /// Somebody was turned away, or is in already.
    Nothing,
}

/// One join from its first message to its last. `network` is what counts as one address. `unknown` is the place of a
/// connection that has not shown who it is: it is given back with the first message, which comes at once or not at all.
/// One in the conversation is held up to where only a person is waited for. A use of the invitation is consumed only
/// after the joiner has confirmed and, where one is asked, a keeper has said yes.
pub(in crate::transport) async fn answer(
    membership: &Arc<Membership>,
    mut stream: PeerStream,
    network: IpAddr,
    places: &Places,
    unknown: impl Sized,
) -> io::Result<Answered> {
    let mut budget = STRANGER_BYTES_MAX;
    let first = timeout(FIRST_MESSAGE_TIMEOUT, receive(&mut stream, &mut budget)).await;
    let request: JoinRequest = first.map_err(|_| io::ErrorKind::TimedOut)??;
    drop(unknown);
    let (joiner, place) = match in_time(meet(membership, &mut stream, &request, network, places, budget)).await? {
        Met::Goes(refusal) => return in_time(say_no(membership, &mut stream, &request, refusal)).await,
        Met::Stays(joiner, place) => (joiner, place),
    };
    if joiner.waits {
        drop(place);
        let refusal = wait(membership, &mut stream, &joiner, network).await?;
        if refusal != JoinRefusal::JoinOk {
            in_time(turn_away(&mut stream, refusal)).await?;
            return Ok(Answered::Heard);
        }
    }
    let node = stream.peer();
    let is_new = !membership.is_member(node);
    let admitted = match joiner.restores {
        true => membership.given_back(node),
        false => membership.admit(joiner.invite, node, &joiner.name, &joiner.addresses),
    };
    let welcome = match admitted {
        Ok(statements) => JoinWelcome { refusal: JoinRefusal::JoinOk.into(), statements },
        Err(rejection) => {
            in_time(turn_away(&mut stream, refusal_of(rejection))).await?;
            return Ok(Answered::Nothing);
        }
    };
    if is_new {
        membership.door().tell(News::Admitted { node, name: joiner.name, check: joiner.check });
    }
    in_time(async {
        send(&mut stream, &welcome).await?;
        stream.shutdown().await
    })
    .await?;
    Ok(if is_new { Answered::Heard } else { Answered::Nothing })
}

/// Where the first messages led.
enum Met {
    /// To a refusal; with `JoinBusy`, the time after which it may ask again.
    Goes((JoinRefusal, Duration)),
    /// To the end, in one of the places.
    Stays(Joiner, Place),
}

/// A stranger that has said everything and broken no rule.
struct Joiner {
    name: String,
    addresses: Vec<String>,
    /// What it has proved.
    invite: Option<Secret>,
    /// What both sides show; none if it shows nothing.
    check: Option<Check>,
    /// A keeper is asked.
    waits: bool,
    /// It is a member, and wants back what it has lost.
    restores: bool,
}

async fn meet(
    membership: &Membership,
    stream: &mut PeerStream,
    request: &JoinRequest,
    network: IpAddr,
    places: &Places,
    mut budget: usize,
) -> io::Result<Met> {
    let (joiner, own) = (stream.peer(), membership.identity().id());
    let asks = request.invite.is_empty();
    let (team, team_name, session, ticket) = match entry(membership, stream, request, network) {
        Ok(entry) => entry,
        Err(Refused::Broken(error)) => return Err(error),
        Err(Refused::As(refusal)) => return Ok(Met::Goes((refusal, Duration::ZERO))),
        Err(Refused::Busy(again)) => return Ok(Met::Goes((JoinRefusal::JoinBusy, again))),
    };
    let Some(place) = places.enter(network, ticket.is_some()) else {
        return Ok(Met::Goes((JoinRefusal::JoinBusy, BUSY_PAUSE)));
    };
    let committed = !request.commitment.is_empty();
    let nonce: Nonce = random();
    // Whoever is in already lost its connection on the way; a keeper has said yes before.
    let waits = ticket.is_none_or(|ticket| ticket.approve) && !membership.is_member(joiner);
    let offer = JoinOffer {
        refusal: JoinRefusal::JoinOk.into(),
        proof: ticket.map(|ticket| session.prove(&ticket.secret, KEEPER)).unwrap_or_default(),
        nonce: if committed { nonce.to_vec() } else { Vec::new() },
        team: if asks { team.0.to_vec() } else { Vec::new() },
        team_name,
        keepers: Vec::new(),
        approve: waits,
        retry_ms: 0,
    };
    send(stream, &offer).await?;
    debug_assert_ne!(joiner, own, "the verifier refuses this node's own key");
    let patience = if ticket.is_some() { JOIN_TIMEOUT } else { CONFIRM_TIMEOUT };
    let confirm = timeout(patience, receive(stream, &mut budget)).await;
    let confirm: JoinConfirm = confirm.map_err(|_| io::ErrorKind::TimedOut)??;
    let check = match Nonce::try_from(confirm.nonce.as_slice()) {
        Ok(revealed) if committed && commitment(&revealed)[..] == request.commitment[..] => {
            Some(session.check(&revealed, &nonce))
        }
        Err(_) if !committed && confirm.nonce.is_empty() => None,
        _ => {
            turn_away(stream, JoinRefusal::JoinBadRequest).await?;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    };
    let invite = ticket.map(|ticket| ticket.secret);
    let (name, addresses, restores) = (request.name.clone(), request.addresses.clone(), request.restore);
    Ok(Met::Stays(Joiner { name, addresses, invite, check, waits, restores }, place))
}

/// A refusal in place of an offer.
async fn say_no(
    membership: &Membership,
    stream: &mut PeerStream,
    request: &JoinRequest,
    (refusal, again): (JoinRefusal, Duration),
) -> io::Result<Answered> {
    let keepers = match refusal {
        JoinRefusal::JoinNotKeeper if request.invite.is_empty() => membership.keeper_addresses(),
        _ => Vec::new(),
    };
    let retry_ms = u32::try_from(again.as_millis()).unwrap_or(u32::MAX);
    send(stream, &JoinOffer { refusal: refusal.into(), keepers, retry_ms, ..JoinOffer::default() }).await?;
    let _ = stream.shutdown().await;
    Ok(Answered::Nothing)
}

enum Refused {
    Broken(io::Error),
    As(JoinRefusal),
    /// It may ask again after this time.
    Busy(Duration),
}

type Entry = (TeamId, String, Session, Option<Ticket>);

/// Whether this request is listened to any further.
fn entry(
    membership: &Membership,
    stream: &PeerStream,
    request: &JoinRequest,
    network: IpAddr,
) -> Result<Entry, Refused> {
    let (joiner, own) = (stream.peer(), membership.identity().id());
    let reject = |rejection| Refused::As(refusal_of(rejection));
    let bind = |team| Session::of(stream, joiner, own, team).map_err(Refused::Broken);
    let view = membership.view();
    let asks = request.invite.is_empty();
    let (team, session, ticket) = if asks {
        let team = match request.restore {
            true => membership.check_returner(joiner),
            false => membership.check_asker(joiner),
        };
        let team = team.map_err(reject)?;
        if !request.team.is_empty() && request.team[..] != team.0[..] {
            return Err(Refused::As(JoinRefusal::JoinInviteInvalid));
        }
        (team, bind(team)?, None)
    } else {
        let team = TeamId::try_from(request.team.as_slice())
            .map_err(|_| Refused::Broken(io::ErrorKind::InvalidData.into()))?;
        if view.team != Some(team) {
            return Err(reject(Rejection::InviteInvalid));
        }
        let session = bind(team)?;
        let proves = |secret: &Secret| session.is_proved(secret, JOINER, &request.proof);
        let ticket = membership.check_invite(&request.invite, joiner, proves).map_err(reject)?;
        (team, session, Some(ticket))
    };
    // Only a link that asks nobody needs no pictures.
    let needs_check = ticket.is_none_or(|ticket| ticket.approve);
    let committed = request.commitment.len() == 32 || (request.commitment.is_empty() && !needs_check);
    if !committed || !is_plain(&request.name) {
        return Err(reject(Rejection::BadRequest));
    }
    if asks {
        // Pictures can be tried by breaking off before they are shown.
        membership.door().may_try(network).map_err(Refused::Busy)?;
    }
    Ok((team, membership.team_name().unwrap_or_default(), session, ticket))
}

/// Holds the connection until a keeper has answered, nobody did for long, or the joiner is gone.
async fn wait(
    membership: &Arc<Membership>,
    stream: &mut PeerStream,
    joiner: &Joiner,
    network: IpAddr,
) -> io::Result<JoinRefusal> {
    // `meet` lets nobody wait without pictures.
    let Some(check) = joiner.check else { return Ok(JoinRefusal::JoinBadRequest) };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let asking = Asking {
        id: 0,
        node: stream.peer(),
        name: joiner.name.clone(),
        address: stream.remote_addr(),
        check,
        since_ms: since.as_millis() as u64,
        invited: joiner.invite.is_some(),
    };
    let Some(mut place) = membership.door().enter(asking, network) else { return Ok(JoinRefusal::JoinBusy) };
    let mut beat = interval(ASKING_BEAT);
    let over = sleep(ASKING_TIMEOUT);
    tokio::pin!(over);
    let still = JoinWelcome { refusal: JoinRefusal::JoinWait.into(), statements: Vec::new() };
    loop {
        tokio::select! {
            answer = place.answered() => {
                return Ok(match answer {
                    Some(true) => JoinRefusal::JoinOk,
                    Some(false) => JoinRefusal::JoinDeclined,
                    None => JoinRefusal::JoinBusy,
                });
            }
            () = &mut over => return Ok(JoinRefusal::JoinNotAnswered),
            // It has nothing more to say: this is its end, or a broken rule.
            said = stream.read_u8() => {
                said?;
                return Err(io::ErrorKind::InvalidData.into());
            }
            _ = beat.tick() => in_time(send(stream, &still)).await?,
        }
    }
}

async fn turn_away(stream: &mut PeerStream, refusal: JoinRefusal) -> io::Result<()> {
    send(stream, &JoinWelcome { refusal: refusal.into(), statements: Vec::new() }).await?;
    stream.shutdown().await
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(JOIN_TIMEOUT, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn refusal_of(rejection: Rejection) -> JoinRefusal {
    match rejection {
        Rejection::InviteInvalid => JoinRefusal::JoinInviteInvalid,
        Rejection::NotKeeper => JoinRefusal::JoinNotKeeper,
        Rejection::KeyRemoved => JoinRefusal::JoinKeyRemoved,
        Rejection::BadRequest => JoinRefusal::JoinBadRequest,
        Rejection::Full => JoinRefusal::JoinTeamFull,
        Rejection::NotAMember => JoinRefusal::JoinNotAMember,
        Rejection::Internal => JoinRefusal::JoinInternal,
    }
}
