//! What binds one join to one TLS session: proofs of an invitation's secret, the joiner's commitment, the pictures that
//! both sides show, and the messages' frames.

use std::io;

use potluck_model::ids::{NodeId, TeamId};
use potluck_model::names;
use potluck_model::team::NAME_BYTES_MAX;
use potluck_model::team::check::Check;
use prost::Message;
use ring::digest::{SHA256, digest};
use ring::hmac;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::membership::invite::Secret;
use crate::transport::stream::PeerStream;

const EXPORTER_LABEL: &[u8] = b"EXPORTER-potluck-join-1";
pub(super) const JOINER: &[u8] = b"potluck-join-1 joiner\0";
pub(super) const KEEPER: &[u8] = b"potluck-join-1 keeper\0";
const COMMIT: &[u8] = b"potluck-join-commit-1\0";
const CHECK: &[u8] = b"potluck-join-check-1\0";

/// What each side adds to the pictures.
pub(super) type Nonce = [u8; 32];

/// This TLS session, both keys, the team: what proofs and pictures are bound to.
pub(super) struct Session(Vec<u8>);

impl Session {
    pub(super) fn of(stream: &PeerStream, joiner: NodeId, keeper: NodeId, team: TeamId) -> io::Result<Self> {
        let exporter = stream.exported(EXPORTER_LABEL).map_err(io::Error::other)?;
        Ok(Self([exporter, joiner.0, keeper.0, team.0].concat()))
    }

    pub(super) fn prove(&self, secret: &Secret, label: &[u8]) -> Vec<u8> {
        hmac::sign(&key(secret), &[label, &self.0].concat()).as_ref().to_vec()
    }

    pub(super) fn is_proved(&self, secret: &Secret, label: &[u8], proof: &[u8]) -> bool {
        hmac::verify(&key(secret), &[label, &self.0].concat(), proof).is_ok()
    }

    pub(super) fn check(&self, joiner: &Nonce, keeper: &Nonce) -> Check {
        Check::of(&sha256(&[CHECK, &self.0, joiner, keeper].concat()))
    }
}

fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &secret.0)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// What binds the joiner to its nonce before it sees the keeper's.
pub(super) fn commitment(nonce: &Nonce) -> [u8; 32] {
    sha256(&[COMMIT, &nonce[..]].concat())
}

/// Whether a name can be shown in one line; statements have the same rule.
pub(super) fn is_plain(name: &str) -> bool {
    names::is_plain(name, NAME_BYTES_MAX)
}

pub(super) async fn send(stream: &mut PeerStream, message: &impl Message) -> io::Result<()> {
    let body = message.encode_to_vec();
    let len = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&len.to_be_bytes(), body.as_slice()].concat()).await?;
    stream.flush().await
}

/// Reads one message; `budget` is what the other side may still send, checked before memory is taken.
pub(super) async fn receive<M: Message + Default>(stream: &mut PeerStream, budget: &mut usize) -> io::Result<M> {
    let len = stream.read_u32().await? as usize;
    *budget = budget.checked_sub(len + 4).ok_or(io::ErrorKind::InvalidData)?;
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    M::decode(body.as_slice()).map_err(|_| io::ErrorKind::InvalidData.into())
}
