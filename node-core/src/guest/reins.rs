//! What holds a guest's jobs. A stop, a kill and the end of a connection act from the thread that says them: the guest's
//! own may be busy for long with what its submitter sent. It does not say how jobs ended: that the guest's thread does,
//! once for each.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use potluck_runner::protocol::{Job, ToRunner};

use crate::sandbox::{Sandbox, Started};

/// Nobody is connected.
const NOBODY: u64 = 0;

/// See the module. Shared by a guest's handle and its thread.
#[derive(Default)]
pub(super) struct Reins {
    held: Mutex<Held>,
    /// Number of the connection that stands, or [`NOBODY`]; changed only with `held` locked.
    session: AtomicU64,
    /// Bytes of what was sent and not yet taken.
    waiting_bytes: AtomicU64,
}

#[derive(Default)]
struct Held {
    sandbox: Option<Arc<Sandbox>>,
    /// Jobs that the sandbox was given, with their slots. Their numbers are never used again.
    started: HashMap<u64, Option<u64>>,
    /// Nothing starts, and what was started stands still.
    stopped: bool,
    /// Slots whose jobs were not started when they were killed; each until the guest's thread has come to that kill.
    killed: HashSet<u64>,
    sessions: u64,
}

/// What became of a job that was ready.
pub(super) enum Start {
    /// It runs.
    Runs(Started),
    /// Jobs are stopped: here it is again.
    Later(Box<Job>),
    /// It was killed, or its submitter is gone.
    Never,
}

impl Reins {
    /// Stops or resumes every job, and those that are not started yet.
    pub(super) fn freeze(&self, stop: bool) {
        let mut held = self.lock();
        held.stopped = stop;
        held.tell_all(if stop { ToRunner::Stop } else { ToRunner::Resume });
    }

    /// Kills the job of a slot. The guest's thread calls [`Reins::kill_taken`] when it comes to the same kill.
    pub(super) fn kill(&self, slot: u64) {
        let mut held = self.lock();
        match held.started.iter().find(|(_, of)| **of == Some(slot)) {
            Some((&run, _)) => held.tell(ToRunner::Kill(run)),
            None => _ = held.killed.insert(slot),
        }
    }

    /// Whoever might start the job of this slot has heard of its end.
    pub(super) fn kill_taken(&self, slot: u64) {
        self.lock().killed.remove(&slot);
    }

    /// Kills every job that was started.
    pub(super) fn kill_all(&self) {
        self.lock().tell_all(ToRunner::Kill);
    }

    /// The submitter has a new connection; what it sent over another one is void.
    pub(super) fn begin_session(&self) {
        let mut held = self.lock();
        held.tell_all(ToRunner::Kill);
        held.sessions += 1;
        self.session.store(held.sessions, Ordering::Relaxed);
    }

    /// The connection is gone: kills its jobs, and what it sent is void.
    pub(super) fn end_session(&self) {
        let held = self.lock();
        held.tell_all(ToRunner::Kill);
        self.session.store(NOBODY, Ordering::Relaxed);
    }

    /// The connection that stands.
    pub(super) fn session(&self) -> u64 {
        self.session.load(Ordering::Relaxed)
    }

    /// Whether this connection is gone.
    pub(super) fn is_over(&self, session: u64) -> bool {
        session == NOBODY || self.session() != session
    }

    /// Counts what waits for the guest's thread. False: with it, that would be more than `max`, and it is not counted.
    pub(super) fn waits(&self, bytes: u64, max: u64) -> bool {
        let fits = |waiting: u64| Some(waiting + bytes).filter(|sum| *sum <= max);
        bytes == 0 || self.waiting_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// The guest's thread has taken it.
    pub(super) fn taken(&self, bytes: u64) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Gives a job to the sandbox, unless something that was said before this forbids it.
    pub(super) fn start(
        &self,
        session: u64,
        slot: Option<u64>,
        sandbox: &Sandbox,
        job: Box<Job>,
    ) -> std::io::Result<Start> {
        let mut held = self.lock();
        if self.is_over(session) || slot.is_some_and(|slot| held.killed.contains(&slot)) {
            return Ok(Start::Never);
        }
        if held.stopped {
            return Ok(Start::Later(job));
        }
        let run = job.id;
        let started = sandbox.run(*job)?;
        held.started.insert(run, slot);
        Ok(Start::Runs(started))
    }

    /// A started job is over.
    pub(super) fn ended(&self, run: u64) {
        self.lock().started.remove(&run);
    }

    /// Nobody will hear how a job ends.
    pub(super) fn give_up(&self, run: u64) {
        let mut held = self.lock();
        if held.started.remove(&run).is_some() {
            held.tell(ToRunner::Kill(run));
        }
    }

    /// The sandbox that stands, also if it has ended by itself.
    pub(super) fn sandbox(&self) -> Option<Arc<Sandbox>> {
        self.lock().sandbox.clone()
    }

    /// Another sandbox, or none. Waits until the old one is gone.
    pub(super) fn set_sandbox(&self, sandbox: Option<Arc<Sandbox>>) {
        let old = std::mem::replace(&mut self.lock().sandbox, sandbox);
        // Not with the lock: the node's loop may want it.
        drop(old);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Held {
    fn tell(&self, message: ToRunner) {
        if let Some(sandbox) = &self.sandbox {
            // An error means that the sandbox has ended, and its jobs with it.
            let _ = sandbox.tell(message);
        }
    }

    fn tell_all(&self, message: impl Fn(u64) -> ToRunner) {
        self.started.keys().for_each(|&run| self.tell(message(run)));
    }
}
