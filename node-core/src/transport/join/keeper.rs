//! The keeper's side of a join: who may come in at once, who waits for a keeper's yes, and who is turned away. Strangers
//! are heard within bounds of bytes and time.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use potluck_model::ids::TeamId;
use potluck_model::limits::{ASKING_BEAT, ASKING_TIMEOUT};
use potluck_model::team::check::Check;
use potluck_wire::team::{JoinConfirm, JoinOffer, JoinRefusal, JoinRequest, JoinWelcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{interval, sleep, timeout};

use super::session::{JOINER, KEEPER, Nonce, Session, commitment, is_plain, receive, send};
use super::{JOIN_TIMEOUT, STRANGER_BYTES_MAX};
use crate::membership::codec::random;
use crate::membership::door::{Asking, News};
use crate::membership::invite::Secret;
use crate::membership::{Membership, Rejection, Ticket};
use crate::transport::stream::PeerStream;

/// One join from its first message to its last. `network` is what counts as one address. `turn` is given back as soon as
/// only a person is waited for. A use of the invitation is consumed only after the joiner has confirmed and, where one is
/// asked, a keeper has said yes.
pub(in crate::transport) async fn answer(
    membership: &Arc<Membership>,
    mut stream: PeerStream,
    network: IpAddr,
    turn: OwnedSemaphorePermit,
) -> io::Result<()> {
    let joiner = in_time(meet(membership, &mut stream)).await?;
    if joiner.waits {
        drop(turn);
        let refusal = wait(membership, &mut stream, &joiner, network).await?;
        if refusal != JoinRefusal::JoinOk {
            return in_time(turn_away(&mut stream, refusal)).await;
        }
    }
    let node = stream.peer();
    let is_new = !membership.is_member(node);
    let admitted = membership.admit(joiner.invite, node, &joiner.name, &joiner.addresses);
    let welcome = match admitted {
        Ok(statements) => JoinWelcome { refusal: JoinRefusal::JoinOk.into(), statements },
        Err(rejection) => return in_time(turn_away(&mut stream, refusal_of(rejection))).await,
    };
    if is_new {
        membership.door().tell(News::Admitted { node, name: joiner.name, check: joiner.check });
    }
    in_time(async {
        send(&mut stream, &welcome).await?;
        stream.shutdown().await
    })
    .await
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
}

async fn meet(membership: &Membership, stream: &mut PeerStream) -> io::Result<Joiner> {
    let mut budget = STRANGER_BYTES_MAX;
    let request: JoinRequest = receive(stream, &mut budget).await?;
    let (joiner, own) = (stream.peer(), membership.identity().id());
    let asks = request.invite.is_empty();
    let (team, team_name, session, ticket) = match entry(membership, stream, &request) {
        Ok(entry) => entry,
        Err(Refused::Broken(error)) => return Err(error),
        Err(Refused::As(refusal)) => {
            let keepers = match refusal {
                JoinRefusal::JoinNotKeeper if asks => membership.keeper_addresses(),
                _ => Vec::new(),
            };
            send(stream, &JoinOffer { refusal: refusal.into(), keepers, ..JoinOffer::default() }).await?;
            let _ = stream.shutdown().await;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
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
    };
    send(stream, &offer).await?;
    debug_assert_ne!(joiner, own, "the verifier refuses this node's own key");
    let confirm: JoinConfirm = receive(stream, &mut budget).await?;
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
    Ok(Joiner { name: request.name, addresses: request.addresses, invite, check, waits })
}

enum Refused {
    Broken(io::Error),
    As(JoinRefusal),
}

type Entry = (TeamId, String, Session, Option<Ticket>);

/// Whether this request is listened to any further.
fn entry(membership: &Membership, stream: &PeerStream, request: &JoinRequest) -> Result<Entry, Refused> {
    let (joiner, own) = (stream.peer(), membership.identity().id());
    let reject = |rejection| Refused::As(refusal_of(rejection));
    let bind = |team| Session::of(stream, joiner, own, team).map_err(Refused::Broken);
    let view = membership.view();
    let asks = request.invite.is_empty();
    let (team, session, ticket) = if asks {
        // Pictures can be tried by breaking off before they are shown: all strangers together get few tries.
        if !membership.door().may_try() {
            return Err(Refused::As(JoinRefusal::JoinBusy));
        }
        let team = membership.check_asker(joiner).map_err(reject)?;
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
            yes = place.answered() => {
                return Ok(if yes { JoinRefusal::JoinOk } else { JoinRefusal::JoinDeclined });
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
        Rejection::Internal => JoinRefusal::JoinInternal,
    }
}
