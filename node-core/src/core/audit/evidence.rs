//! What members tell each other of a peer that gave a wrong result: the result, which that peer signed for the member. The
//! link says who tells it, so that nobody passes on what was told to others; the signature says whose result it is.

use std::collections::{HashMap, VecDeque};

use potluck_model::ids::NodeId;
use potluck_model::limits::{EVIDENCE_BYTES_MAX, QUARANTINE_MS};
use potluck_model::trust::{Taken, Why};
use potluck_wire::pool::{self, frame};
use prost::Message;
use ring::signature::ED25519_PUBLIC_KEY_LEN;

use super::super::Core;
use super::{Answer, now_ms};
use crate::identity::node_of_key;
use crate::signed;

/// Said by a node that takes evidence.
pub(in super::super) const ABILITY: &str = "evidence-1";
/// Evidence that is told to whoever comes within a day.
const SENT_MAX: usize = 16;
/// Evidence that does not hold, after which nothing more is looked at of a member: checking costs time.
const FORGED_MAX: u32 = 8;
/// A worker's clock may be ahead by this.
const AHEAD_MS: u64 = 3_600_000;

/// What this node told, and who told it what does not hold.
#[derive(Default)]
pub(super) struct Sent {
    told: VecDeque<(u64, NodeId, pool::Evidence)>,
    forged: HashMap<NodeId, u32>,
}

/// What is wrong with evidence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    /// Larger than any.
    TooLarge,
    /// Not signed by whom it accuses, or not for whom it comes from, or not as the answer to what was asked.
    Forged,
    /// Older than a quarantine lasts, or of a time to come.
    Old,
}

/// Whom this accuses, if it holds.
fn accused(accuser: NodeId, evidence: &pool::Evidence, now_ms: u64) -> Result<NodeId, Flaw> {
    if evidence.encoded_len() > EVIDENCE_BYTES_MAX {
        return Err(Flaw::TooLarge);
    }
    let (Some(asked), Some(came)) = (&evidence.job, &evidence.result) else { return Err(Flaw::Forged) };
    let signed = came.signed.as_ref().ok_or(Flaw::Forged)?;
    let key = <[u8; ED25519_PUBLIC_KEY_LEN]>::try_from(&signed.key[..]).map_err(|_| Flaw::Forged)?;
    let worker = node_of_key(&key);
    if worker == accuser || !signed::is_signed(accuser, worker, signed::asked(asked), came) {
        return Err(Flaw::Forged);
    }
    let at_ms = signed.at_s.saturating_mul(1000);
    let is_fresh = at_ms <= now_ms.saturating_add(AHEAD_MS) && now_ms < at_ms.saturating_add(QUARANTINE_MS);
    if is_fresh { Ok(worker) } else { Err(Flaw::Old) }
}

impl Core {
    /// Tells the team what `peer` signed.
    pub(super) fn tell_evidence(&mut self, peer: NodeId, answer: &Answer) {
        let evidence = pool::Evidence { job: Some(answer.asked.clone()), result: Some(answer.came.clone()) };
        let me = self.membership.identity().id();
        if accused(me, &evidence, now_ms()) != Ok(peer) {
            // It signed nothing, or nothing that shows it.
            return;
        }
        if self.audit.evidence.told.len() >= SENT_MAX {
            self.audit.evidence.told.pop_front();
        }
        self.audit.evidence.told.push_back((now_ms(), peer, evidence.clone()));
        let others: Vec<NodeId> = self.peers.keys().copied().filter(|other| *other != peer).collect();
        for other in others {
            self.send_evidence(other, evidence.clone());
        }
    }

    fn send_evidence(&mut self, to: NodeId, evidence: pool::Evidence) {
        let hello = self.peers.get(&to).and_then(|p| p.hello.as_ref());
        if hello.is_some_and(|h| h.abilities.iter().any(|a| a == ABILITY)) {
            self.send(to, frame::Kind::Evidence(Box::new(evidence)));
        }
    }

    /// A member comes: what was found lately, for it may not have been here.
    pub(in super::super) fn greet_with_evidence(&mut self, to: NodeId) {
        let now_ms = now_ms();
        self.audit.evidence.told.retain(|(at_ms, ..)| now_ms.saturating_sub(*at_ms) < QUARANTINE_MS);
        let told: Vec<pool::Evidence> =
            self.audit.evidence.told.iter().filter(|(_, of, _)| *of != to).map(|(.., e)| e.clone()).collect();
        for evidence in told {
            self.send_evidence(to, evidence);
        }
    }

    /// A member shows a result that it found wrong.
    pub(in super::super) fn evidence(&mut self, accuser: NodeId, evidence: &pool::Evidence) {
        if self.audit.evidence.forged.get(&accuser).is_some_and(|forged| *forged >= FORGED_MAX) {
            return;
        }
        let now_ms = now_ms();
        let worker = match accused(accuser, evidence, now_ms) {
            Ok(worker) => worker,
            Err(flaw) => {
                self.audit.counts.evidence_ignored += 1;
                if flaw == Flaw::Forged {
                    *self.audit.evidence.forged.entry(accuser).or_default() += 1;
                    self.mark_false_word(accuser);
                }
                return crate::log::warn(&format!("evidence of {} is ignored: {flaw:?}", accuser.short()));
            }
        };
        let me = self.membership.identity().id();
        if worker == me {
            return crate::log::warn(&format!("{} says that this PC gave it a wrong result", accuser.short()));
        }
        if !self.membership.view().members.contains_key(&worker) {
            self.audit.counts.evidence_ignored += 1;
            return;
        }
        match self.audit.accusations.says(accuser, worker, now_ms) {
            Taken::Nothing => {}
            Taken::Doubt => {
                self.audit.counts.evidence += 1;
                self.audit.standing(worker).doubt();
                self.audit.kept.touch();
                crate::log::info(&format!(
                    "{} says that {} gave it a wrong result: its results are looked at more often",
                    accuser.short(),
                    worker.short()
                ));
            }
            Taken::PutAside(members) => {
                self.audit.counts.evidence += 1;
                if self.quarantine_of(worker).is_none() {
                    self.put_aside(worker, Why::Members(members), None);
                }
            }
        }
    }

    fn mark_false_word(&mut self, peer: NodeId) {
        let marks = self.marks.entry(peer).or_default();
        marks.false_word += 1;
        "showed evidence that does not hold".clone_into(&mut marks.last);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::Identity;
    use crate::membership::Membership;

    fn worker() -> (NodeId, signed::Signer, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(dir.path()).unwrap();
        let id = identity.id();
        (id, signed::Signer::new(Arc::new(Membership::open(Arc::new(identity), dir.path()).unwrap())), dir)
    }

    #[test]
    fn evidence_holds_only_for_whom_it_was_signed_and_against_whom_signed_it() {
        let (accuser, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let (liar, signer, _dir) = worker();
        let job = pool::Job { argv: vec![b"gcc".to_vec()], ..pool::Job::default() };
        let mut result = pool::Result { end: 1, ..pool::Result::default() };
        signer.sign(accuser, signed::asked(&job), &mut result);
        let good = pool::Evidence { job: Some(job.clone()), result: Some(result.clone()) };
        let now = now_ms();
        assert_eq!(accused(accuser, &good, now), Ok(liar));
        assert_eq!(accused(other, &good, now), Err(Flaw::Forged), "passed on by somebody else");
        assert_eq!(accused(liar, &good, now), Err(Flaw::Forged));
        assert_eq!(accused(accuser, &good, now + QUARANTINE_MS + AHEAD_MS), Err(Flaw::Old));
        assert_eq!(accused(accuser, &good, 0), Err(Flaw::Old));
        let with = |change: &dyn Fn(&mut pool::Evidence)| {
            let mut evidence = good.clone();
            change(&mut evidence);
            accused(accuser, &evidence, now)
        };
        // The accuser would have got something else, or asked something else.
        assert_eq!(with(&|e| e.result.as_mut().unwrap().value = 1), Err(Flaw::Forged));
        assert_eq!(with(&|e| e.job.as_mut().unwrap().inputs = 1), Err(Flaw::Forged));
        assert_eq!(with(&|e| e.job = None), Err(Flaw::Forged));
        assert_eq!(with(&|e| e.result = None), Err(Flaw::Forged));
        // The key of somebody else, whose signature it is not.
        let (_, stranger, _dir) = worker();
        let mut foreign = pool::Result { end: 1, ..pool::Result::default() };
        stranger.sign(accuser, signed::asked(&job), &mut foreign);
        let key = foreign.signed.unwrap().key;
        assert_eq!(
            with(&|e| e.result.as_mut().unwrap().signed.as_mut().unwrap().key.clone_from(&key)),
            Err(Flaw::Forged)
        );
        assert_eq!(with(&|e| e.job.as_mut().unwrap().argv = vec![vec![0; EVIDENCE_BYTES_MAX]]), Err(Flaw::TooLarge));
    }
}
