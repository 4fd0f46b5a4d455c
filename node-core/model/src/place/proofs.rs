//! One submitter's proofs of toolchains at a worker: which are taken, and which is next. A proof runs a stranger's program
//! like any job, so it takes a slot; it needs no credit, because before it the submitter can have no use for one.

use std::collections::BTreeMap;

use crate::ids::{JobId, ToolchainId};
use crate::limits::{PROOFS_PER_TOOLCHAIN_MAX, PROOFS_WAITING_MAX, TOOLCHAINS_PER_LINK_MAX};
use crate::reason::Reason;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    jobs: BTreeMap<JobId, Proof>,
    toolchains: BTreeMap<ToolchainId, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Proof {
    /// Order of arrival.
    seq: u64,
    runs: bool,
}

#[derive(Clone, Copy, Debug)]
enum Known {
    /// So many proofs of it were taken.
    Proving(u32),
    /// It may be used: what else would be a proof of it proves nothing.
    Proved,
}

impl Proofs {
    /// Takes a proof, or says why not.
    pub(super) fn arrived(&mut self, job: JobId, toolchain: ToolchainId, seq: u64) -> Result<(), Reason> {
        if self.jobs.len() >= PROOFS_WAITING_MAX {
            return Err(Reason::NoFreeSlot);
        }
        let is_new = !self.toolchains.contains_key(&toolchain);
        if is_new && self.toolchains.len() >= TOOLCHAINS_PER_LINK_MAX {
            return Err(Reason::ProofRefused);
        }
        match self.toolchains.entry(toolchain).or_insert(Known::Proving(0)) {
            Known::Proving(taken) if *taken < PROOFS_PER_TOOLCHAIN_MAX => *taken += 1,
            _ => return Err(Reason::ProofRefused),
        }
        self.jobs.insert(job, Proof { seq, runs: false });
        Ok(())
    }

    /// The submitter's word that it needs no more.
    pub(super) fn proved(&mut self, toolchain: ToolchainId) {
        if self.toolchains.len() < TOOLCHAINS_PER_LINK_MAX || self.toolchains.contains_key(&toolchain) {
            self.toolchains.insert(toolchain, Known::Proved);
        }
    }

    pub(super) fn has(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// It is over, or nobody wants it.
    pub(super) fn remove(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    /// What runs is killed, and waits again.
    pub(super) fn put_off(&mut self) {
        self.jobs.values_mut().for_each(|proof| proof.runs = false);
    }

    /// The one that waits longest.
    pub(super) fn oldest(&self) -> Option<(u64, JobId)> {
        self.jobs.iter().filter(|(_, proof)| !proof.runs).map(|(job, proof)| (proof.seq, *job)).min()
    }

    /// Starts it, under the next number.
    pub(super) fn start(&mut self, job: JobId, next: &mut u64) -> u64 {
        if let Some(proof) = self.jobs.get_mut(&job) {
            proof.runs = true;
        }
        *next += 1;
        *next - 1
    }
}
