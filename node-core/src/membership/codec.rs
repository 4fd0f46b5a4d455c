//! Statements as bytes: signed protobuf bodies to and from the model's `Statement`. Decides nothing.

use potluck_model::ids::{NodeId, TeamId};
use potluck_model::team::{
    Body, Claim, Refusal, Role, STATEMENT_BYTES_MAX, Signatures, Statement, StatementId, Unverified,
};
use potluck_wire::team as wire;
use prost::Message;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::identity::{Identity, node_of_key};

/// Set before every signed body, so that a signature for something else is never one for a statement.
const DOMAIN: &[u8] = b"potluck-statement-1\0";

/// An Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

/// Ed25519 and SHA-256 of ring.
pub struct Ring;

impl Signatures for Ring {
    fn sha256(&self, bytes: &[u8]) -> [u8; 32] {
        digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn node(&self, key: &[u8]) -> Option<NodeId> {
        Some(node_of_key(key.try_into().ok()?))
    }

    fn is_signed(&self, key: &[u8], body: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, key).verify(&[DOMAIN, body].concat(), signature).is_ok()
    }
}

/// Reads one statement as it travels; its signature is not checked yet. Each claim has one encoding: whoever could add
/// unknown fields, write defaults out or stretch a number would have any number of statements that say the same.
pub fn read(raw: &[u8], signatures: &dyn Signatures) -> Result<Unverified, Refusal> {
    if raw.len() > STATEMENT_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let signed = wire::Statement::decode(raw).map_err(|_| Refusal::Malformed)?;
    let body = wire::Body::decode(signed.body.as_slice()).map_err(|_| Refusal::Malformed)?;
    if signed.encode_to_vec() != raw || body.encode_to_vec() != signed.body || signed.signature.len() != SIGNATURE_BYTES
    {
        return Err(Refusal::Malformed);
    }
    let claim = claim_of(&body)?;
    Unverified::read(raw, &signed.body, &body.key, &signed.signature, claim, signatures)
}

/// Reads and checks one statement as it travels.
pub fn decode(raw: &[u8]) -> Result<Statement, Refusal> {
    read(raw, &Ring)?.verify(&Ring)
}

/// Whether these bytes are signed by the key that they name, whatever else they are.
pub(crate) fn is_signed(raw: &[u8]) -> bool {
    let Ok(signed) = wire::Statement::decode(raw) else { return false };
    let Ok(body) = wire::Body::decode(signed.body.as_slice()) else { return false };
    Ring.is_signed(&body.key, &signed.body, &signed.signature)
}

/// The bytes that are signed for a claim.
pub fn body_of(key: &[u8], claim: &Claim) -> Vec<u8> {
    wire_of(key, claim).encode_to_vec()
}

/// A statement as it travels.
pub fn raw_of(body: &[u8], signature: &[u8]) -> Vec<u8> {
    wire::Statement { body: body.to_vec(), signature: signature.to_vec() }.encode_to_vec()
}

/// Signs any bytes as a statement's body; only what is canonical and may be said is taken from anybody.
pub fn sign_body(identity: &Identity, body: &[u8]) -> Vec<u8> {
    raw_of(body, &identity.sign(&[DOMAIN, body].concat()))
}

/// Signs what the node says. Names in it keep to what this version would show.
pub fn sign(identity: &Identity, claim: Claim) -> Result<Statement, Refusal> {
    claim.body.check_names()?;
    let body = body_of(identity.public_key(), &claim);
    decode(&sign_body(identity, &body))
}

fn claim_of(body: &wire::Body) -> Result<Claim, Refusal> {
    use wire::body::Kind;
    let said = match body.kind.as_ref().ok_or(Refusal::Malformed)? {
        Kind::Found(found) => Body::Found {
            team_name: found.team_name.clone(),
            node_name: found.node_name.clone(),
            addresses: found.addresses.clone(),
        },
        Kind::Add(add) => Body::Add {
            node: node(&add.node)?,
            role: role(add.role())?,
            name: add.name.clone(),
            addresses: add.addresses.clone(),
            version: add.version,
        },
        Kind::Remove(remove) => Body::Remove {
            node: node(&remove.node)?,
            keep: remove.keep.iter().map(|id| statement_id(id)).collect::<Result<_, _>>()?,
        },
        Kind::Rename(rename) => {
            Body::Rename { name: rename.name.clone(), addresses: rename.addresses.clone(), version: rename.version }
        }
        Kind::Recover(recover) => Body::Recover {
            keepers: recover.keepers.iter().map(|id| node(id)).collect::<Result<_, _>>()?,
            unseen_days: recover.unseen_days,
        },
    };
    let optional = |bytes: &[u8]| if bytes.is_empty() { Ok(None) } else { statement_id(bytes).map(Some) };
    Ok(Claim {
        team: optional(&body.team)?.map(|id| TeamId(id.0)),
        authority: optional(&body.authority)?,
        prev: optional(&body.prev)?,
        body: said,
    })
}

fn wire_of(key: &[u8], claim: &Claim) -> wire::Body {
    use wire::body::Kind;
    let kind = match claim.body.clone() {
        Body::Found { team_name, node_name, addresses } => {
            let nonce = random::<16>().to_vec();
            Kind::Found(wire::Found { team_name, node_name, addresses, nonce })
        }
        Body::Add { node, role, name, addresses, version } => {
            let role = match role {
                Role::Keeper => wire::Role::Keeper,
                Role::Member => wire::Role::Member,
                Role::SubmitOnly => wire::Role::SubmitOnly,
                Role::ServeOnly => wire::Role::ServeOnly,
            };
            Kind::Add(wire::Add { node: node.0.to_vec(), role: role.into(), name, addresses, version })
        }
        Body::Remove { node, keep } => {
            let keep = keep.iter().map(|id| id.0.to_vec()).collect();
            Kind::Remove(wire::Remove { node: node.0.to_vec(), keep })
        }
        Body::Rename { name, addresses, version } => Kind::Rename(wire::Rename { name, addresses, version }),
        Body::Recover { keepers, unseen_days } => {
            let keepers = keepers.iter().map(|id| id.0.to_vec()).collect();
            Kind::Recover(wire::Recover { keepers, unseen_days })
        }
    };
    let bytes = |id: Option<StatementId>| id.map(|id| id.0.to_vec()).unwrap_or_default();
    wire::Body {
        team: claim.team.map(|team| team.0.to_vec()).unwrap_or_default(),
        key: key.to_vec(),
        authority: bytes(claim.authority),
        prev: bytes(claim.prev),
        kind: Some(kind),
    }
}

fn node(bytes: &[u8]) -> Result<NodeId, Refusal> {
    NodeId::try_from(bytes).map_err(|_| Refusal::Malformed)
}

fn statement_id(bytes: &[u8]) -> Result<StatementId, Refusal> {
    bytes.try_into().map(StatementId).map_err(|_| Refusal::Malformed)
}

fn role(role: wire::Role) -> Result<Role, Refusal> {
    match role {
        wire::Role::Keeper => Ok(Role::Keeper),
        wire::Role::Member => Ok(Role::Member),
        wire::Role::SubmitOnly => Ok(Role::SubmitOnly),
        wire::Role::ServeOnly => Ok(Role::ServeOnly),
        wire::Role::Unknown => Err(Refusal::Malformed),
    }
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let random = ring::rand::generate::<[u8; N]>(&ring::rand::SystemRandom::new());
    random.expect("the kernel's random generator does not fail once it runs").expose()
}
