//! `trust`: what the person wants of results. `careful` takes a result only when two peers made the same; `release` asks
//! nobody but the peers that are named.

use std::sync::Arc;

use potluck_model::ids::{Digest, JobId, NodeId, ToolchainId};
use potluck_model::place::{Compile, Hosts, Outcome, Work};
use potluck_model::reason::Reason;
use potluck_model::trust::{At, Mode, Run};
use potluck_wire::{ipc, pool};

use super::super::job::Job;
use super::super::peers::Stage;
use super::super::{Core, submit};
use super::{Answer, seen, without_contents};
use crate::bytes;
use crate::toolchain::Compiler;

/// What the first of two peers returned.
pub(crate) struct First {
    peer: NodeId,
    came: Digest,
    /// Of the inputs that it had.
    fingerprint: u64,
    asked: pool::Job,
    result: pool::Result,
}

impl Core {
    /// The trust that this command asks for: the stricter of the settings and `POTLUCK_TRUST`. A word that is none is taken for
    /// the strictest: whoever sets it wants care.
    pub(in super::super) fn trust_of(&self, compile: &ipc::Compile) -> Mode {
        let set = Mode::from_name(self.sharing.shared.values.trust.mode.name()).unwrap_or(Mode::Release);
        match bytes::env(&compile.env, "POTLUCK_TRUST") {
            None | Some(b"") => set,
            Some(word) => {
                let asked = std::str::from_utf8(word).ok().and_then(Mode::from_name).unwrap_or(Mode::Release);
                set.stricter(asked)
            }
        }
    }

    /// Why a job does not travel for want of trust.
    pub(in super::super) fn kept_here(
        &self,
        trust: Mode,
        job: &Job,
        compiler: &Compiler,
        compile: &ipc::Compile,
    ) -> Option<Reason> {
        match trust {
            Mode::Normal => None,
            Mode::Release => self.named_peers().is_empty().then_some(Reason::TrustRelease),
            Mode::Careful => {
                let ask = self.asks.get(&job.ask)?;
                let clock_shows = job.closure.time_macro && !submit::is_clock_told(compiler, compile);
                let args = &ask.plans[job.part].args;
                let cannot = potluck_model::trust::class_of(compiler.family, args, clock_shows).is_some();
                (cannot || self.audit.unsteady.contains(&ask.key) || !self.has_two(job.toolchain))
                    .then_some(Reason::TrustCareful)
            }
        }
    }

    /// Where a compile may go.
    pub(in super::super) fn trusted_work(&self, trust: Mode, compile: Compile) -> Work {
        match trust {
            Mode::Normal | Mode::Careful => Work::Anywhere(compile),
            Mode::Release => Work::Chosen(compile, Hosts::Only(self.named_peers()), Reason::TrustRelease),
        }
    }

    /// Peers that the person named: by their keys, because a name is whatever a peer says.
    fn named_peers(&self) -> Vec<NodeId> {
        let named = self.sharing.shared.values.trust.peers.iter();
        named.filter_map(|text| text.parse().ok().or_else(|| crate::identity::read(text).ok())).collect()
    }

    /// Two peers could both compile it.
    fn has_two(&self, toolchain: Option<ToolchainId>) -> bool {
        let Some(toolchain) = toolchain else { return false };
        let can = self.peers.values().filter(|peer| {
            peer.link.is_some() && peer.held.is_empty() && matches!(peer.toolchains.get(&toolchain), Some(Stage::Ready))
        });
        can.count() >= 2
    }

    /// In `careful`: None if another peer has made the same before, so that it can be used.
    pub(in super::super) fn second_opinion(
        &mut self,
        id: JobId,
        peer: NodeId,
        result: &pool::Result,
        digests: &[Option<Digest>],
    ) -> Option<Outcome> {
        let asked = self.message_of(id)?;
        let job = self.jobs.get_mut(&id)?;
        let came = seen(result, digests);
        let result = without_contents(result);
        let fingerprint = job.fingerprint_at(peer);
        let first = job.first.take().filter(|first| first.fingerprint == fingerprint && first.peer != peer);
        let Some(first) = first else {
            job.first = Some(Box::new(First { peer, came, fingerprint, asked, result }));
            return Some(Outcome::Compare(Reason::TrustCareful));
        };
        if first.came == came {
            self.audit.counts.compared += 1;
            self.audit.counts.agreed += 1;
            [peer, first.peer].into_iter().for_each(|peer| self.audit.standing(peer).agrees());
            self.audit.kept.touch();
            return None;
        }
        self.note(id, format!("{} and {} returned different results", first.peer.short(), peer.short()));
        if let Some(mut case) = self.case_of(id, first.peer, first.result) {
            case.answers[0].asked = first.asked;
            case.answers.push(Answer { peer, asked, came: result });
            case.runs = vec![Run { at: At::Peer(first.peer), came: first.came }, Run { at: At::Peer(peer), came }];
            self.audit.waiting.push_back(Box::new(case));
        }
        Some(Outcome::Home(Reason::TrustDiffers))
    }
}

/// Digests of contents, taken where they are; only `careful` pays for that.
pub(in super::super) fn digests(contents: &[Option<Vec<u8>>]) -> Arc<[Option<Digest>]> {
    contents.iter().map(|content| content.as_deref().map(Digest::of)).collect()
}
