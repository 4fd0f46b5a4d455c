//! One statement on its way in: first read, which costs little and proves nothing, then verified. A `Statement` exists
//! only with a checked signature.

use super::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, Body, Claim, KEEP_MAX, NAME_BYTES_MAX, RECOVER_KEEPERS_MAX,
    RECOVER_UNSEEN_DAYS_MIN, RENAME_BYTES_MAX, Refusal, Role, STATEMENT_BYTES_MAX, Signatures, StatementId,
};
use crate::ids::NodeId;

/// What a statement says and who is said to have signed it: sizes are checked, the signature is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unverified {
    pub(super) statement: Statement,
    body: Vec<u8>,
    key: Vec<u8>,
    signature: Vec<u8>,
}

impl Unverified {
    /// `raw` is the statement as it travels, `body` the signed bytes that `claim` was decoded from. Whoever decodes sees
    /// to it that there is one encoding of each claim.
    pub fn read(
        raw: &[u8],
        body: &[u8],
        key: &[u8],
        signature: &[u8],
        claim: Claim,
        signatures: &dyn Signatures,
    ) -> Result<Self, Refusal> {
        let bytes_max = if matches!(claim.body, Body::Rename { .. }) { RENAME_BYTES_MAX } else { STATEMENT_BYTES_MAX };
        if raw.len() > bytes_max {
            return Err(Refusal::TooLarge);
        }
        check_sizes(&claim.body)?;
        let by = signatures.node(key).ok_or(Refusal::BadSignature)?;
        let id = StatementId(signatures.sha256(body));
        let statement = Statement { id, by, claim, raw: raw.to_vec() };
        Ok(Self { statement, body: body.to_vec(), key: key.to_vec(), signature: signature.to_vec() })
    }

    /// Checks the signature.
    pub fn verify(self, signatures: &dyn Signatures) -> Result<Statement, Refusal> {
        if signatures.is_signed(&self.key, &self.body, &self.signature) {
            Ok(self.statement)
        } else {
            Err(Refusal::BadSignature)
        }
    }

    /// Its name.
    pub fn id(&self) -> StatementId {
        self.statement.id
    }
}

/// A statement whose signature has been checked: there is no other way to make one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    pub(super) id: StatementId,
    pub(super) by: NodeId,
    pub(super) claim: Claim,
    pub(super) raw: Vec<u8>,
}

impl Statement {
    /// Reads and verifies in one.
    pub fn verify(
        raw: &[u8],
        body: &[u8],
        key: &[u8],
        signature: &[u8],
        claim: Claim,
        signatures: &dyn Signatures,
    ) -> Result<Self, Refusal> {
        Unverified::read(raw, body, key, signature, claim, signatures)?.verify(signatures)
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
    pub(super) fn is_chained(&self) -> bool {
        matches!(self.claim.body, Body::Found { .. } | Body::Add { .. } | Body::Remove { .. })
    }

    /// What it entitles `node` to, were it valid.
    pub(super) fn grants(&self, node: NodeId) -> Option<Role> {
        match &self.claim.body {
            Body::Found { .. } if self.by == node => Some(Role::Keeper),
            Body::Add { node: added, role, .. } if *added == node => Some(*role),
            Body::Recover { keepers, .. } if keepers.contains(&node) => Some(Role::Keeper),
            _ => None,
        }
    }

    /// What it refers to and is worth nothing without.
    pub(super) fn references(&self) -> impl Iterator<Item = StatementId> + use<> {
        self.claim.authority.into_iter().chain(self.claim.prev)
    }
}

/// What every statement keeps to, whoever signs it. Names are judged where they are made and cleaned where they are
/// shown: a rule on them here would part nodes whose versions draw the line differently.
pub(super) fn check_sizes(body: &Body) -> Result<(), Refusal> {
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
