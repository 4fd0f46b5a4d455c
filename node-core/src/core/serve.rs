//! Other submitters' jobs: admission by the worker's state machine, and the guests that run them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use potluck_model::budget;
use potluck_model::ids::{Digest, JobId, NodeId, ToolchainId};
use potluck_model::limits::PROOF_BYTES_MAX;
use potluck_model::place::{WorkerAction, WorkerEvent};
use potluck_model::reason::Reason;
use potluck_wire::pool::{self, frame};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{Core, Event};
use crate::guest::{Command, Events, Guest, GuestEvent, GuestSettings, Idle, Outlet};
use crate::received::{Kept, Received};

/// Between two looks at how much all submitters keep here together.
const ROOM_EVERY_MS: u64 = 60_000;
/// Between two tries to open mirrors that could not be opened.
const AGAIN_EVERY: Duration = Duration::from_secs(10);

/// Everybody who was here since the start.
pub(crate) struct Guests {
    settings: GuestSettings,
    events: Events,
    guests: HashMap<NodeId, Guest>,
    /// Jobs that were admitted or wait for a slot.
    held: HashMap<(NodeId, JobId), pool::Job>,
    /// What was left here before this start, and names for people.
    pub(crate) received: Received,
    /// Slots in use, by the number that the worker's state machine gave. Never by the submitter's: after a new start it
    /// counts from 1 again, and the end of an old run would be taken for that of a new one.
    runs: HashMap<u64, NodeId>,
    /// When the sum of what is kept is looked at next, milliseconds since 1970.
    room_due_ms: u64,
    /// When mirrors that could not be opened were tried again.
    again_at: Option<Instant>,
    /// The links of submitters, as far as their mirrors go.
    sessions: HashMap<NodeId, Session>,
}

/// One link of a submitter, as far as its mirror goes.
struct Session {
    outlet: Outlet,
    mirror: Keeping,
}

/// Whether a submitter's mirror could be kept since its link stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Keeping {
    /// Nothing was put into it yet.
    Untouched,
    /// It holds what the submitter sent: where that is lost, both sides must begin anew, with a new link.
    Used,
    /// It could not be opened. The submitter knows, and sends nothing.
    Closed,
    /// It could not be opened before, and is tried again.
    Again,
}

impl Keeping {
    /// The submitter sent something for it.
    fn used(&mut self) {
        *self = Self::Used;
    }

    /// It is to be tried again. False: it needs not.
    fn again(&mut self) -> bool {
        let is_closed = *self == Self::Closed;
        if is_closed {
            *self = Self::Again;
        }
        is_closed
    }

    /// It cannot be kept.
    fn failed(&mut self) -> Failed {
        match *self {
            Self::Used => Failed::EndLink,
            before => {
                *self = Self::Closed;
                if before == Self::Untouched { Failed::Tell } else { Failed::Wait }
            }
        }
    }
}

/// What follows from a mirror that cannot be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failed {
    /// What the submitter believes of it is wrong: the link ends.
    EndLink,
    /// The submitter is told to do without this worker; its link stays, for this node's own jobs go over it too.
    Tell,
    /// It was told before.
    Wait,
}

impl Guests {
    pub(super) fn new(settings: GuestSettings, events: mpsc::UnboundedSender<Event>) -> Self {
        let events: Events = std::sync::Arc::new(move |event| {
            let _ = events.send(Event::Guest(event));
        });
        Self {
            settings,
            events,
            guests: HashMap::new(),
            held: HashMap::new(),
            received: Received::default(),
            runs: HashMap::new(),
            room_due_ms: 0,
            again_at: None,
            sessions: HashMap::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.guests.clear();
        self.sessions.clear();
    }

    /// Jobs that run now.
    pub(crate) fn running(&self) -> usize {
        self.runs.len()
    }

    fn guest(&mut self, peer: NodeId) -> &Guest {
        self.guests.entry(peer).or_insert_with(|| Guest::start(peer, self.settings.clone(), self.events.clone()))
    }

    /// Jobs that run now, by submitter.
    pub(crate) fn running_for(&self) -> HashMap<NodeId, u32> {
        let mut running = HashMap::new();
        self.runs.values().for_each(|peer| *running.entry(*peer).or_default() += 1);
        running
    }

    /// A command for every guest.
    pub(super) fn tell_all(&self, command: impl Fn() -> Command) {
        self.guests.values().for_each(|guest| guest.tell(command()));
    }

    /// Whether nobody needs the PC, for passes.
    pub(super) fn idle(&self) -> &Idle {
        &self.settings.idle
    }

    /// Submitters whose mirrors are open.
    pub(super) fn open_mirrors(&self) -> Vec<NodeId> {
        let open = self.guests.iter().filter(|(_, guest)| guest.mirror_bytes().is_some());
        open.map(|(peer, _)| *peer).collect()
    }

    /// Begins a pass over a mirror.
    pub(super) fn pass(&mut self, peer: NodeId) {
        self.guest(peer).tell(Command::Pass);
    }

    /// A job that is to start. A proof stays: killed for the owner, it runs again.
    fn take_held(&mut self, peer: NodeId, job: JobId) -> Option<pool::Job> {
        match self.held.get(&(peer, job)) {
            Some(message) if message.probe => Some(message.clone()),
            _ => self.held.remove(&(peer, job)),
        }
    }

    /// Forgets what a submitter left here. False: it left nothing.
    pub(crate) fn forget(&mut self, peer: NodeId) -> bool {
        let was_left = self.received.forget(peer);
        let is_known = self.guests.contains_key(&peer) || was_left;
        if is_known {
            self.touched(peer);
            self.guest(peer).tell(Command::Forget);
        }
        is_known
    }

    /// The mirror of this link is no longer what it was when it was opened.
    fn touched(&mut self, peer: NodeId) {
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.mirror.used();
        }
    }

    /// Tries mirrors again that could not be opened: whoever waits for one is told what is there.
    fn open_again(&mut self) {
        let closed = self.sessions.iter_mut().filter_map(|(peer, session)| {
            let is_due = session.mirror.again();
            is_due.then(|| (*peer, session.outlet.clone()))
        });
        let closed: Vec<(NodeId, Outlet)> = closed.collect();
        for (peer, outlet) in closed {
            self.guest(peer).tell(Command::Connected(outlet));
            self.guest(peer).tell(Command::Frame(frame::Kind::MirrorQuery(pool::MirrorQuery {})));
        }
    }

    /// Where all together keep more than the quota, the least recently used are forgotten.
    pub(super) fn make_room(&mut self, now_ms: u64) {
        if self.again_at.is_none_or(|at| at.elapsed() >= AGAIN_EVERY) {
            self.again_at = Some(Instant::now());
            self.open_again();
        }
        if now_ms < self.room_due_ms && self.room_due_ms - now_ms <= ROOM_EVERY_MS {
            return;
        }
        self.room_due_ms = now_ms + ROOM_EVERY_MS;
        for peer in crate::received::surplus(self.kept(), self.settings.quota_bytes, now_ms) {
            if self.runs.values().any(|running| *running == peer) {
                continue;
            }
            crate::log::info(&format!("what {} kept here makes room for others", peer.short()));
            self.forget(peer);
        }
    }

    /// What submitters keep here: bytes of each.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        let bytes = |peer: &NodeId| self.guests.get(peer).and_then(Guest::mirror_bytes);
        self.received.all(bytes)
    }
}

impl Core {
    /// Whether this node runs other people's jobs, and if not why. A worker that gives nothing right now is one.
    pub(crate) fn serving(&self) -> Result<u32, String> {
        match self.sharing.shared.serving() {
            Ok(_) if !self.team.serves() => Err("in its team it only submits".to_owned()),
            serving => serving,
        }
    }

    pub(super) fn work(&mut self, event: WorkerEvent) {
        let mut actions = Vec::new();
        self.worker.handle(self.now(), event, &mut actions);
        for action in actions {
            match action {
                WorkerAction::Credits { peer, slots } => self.send_credits(peer, slots),
                WorkerAction::Start { run, peer, job } => {
                    if let Some(message) = self.guests.take_held(peer, job) {
                        self.guests.runs.insert(run, peer);
                        self.guests.guest(peer).tell(Command::Run(run, Box::new(message)));
                    } else {
                        self.work(WorkerEvent::Ended { run, faulted: false });
                    }
                }
                WorkerAction::Refuse { peer, job, reason } => {
                    self.guests.held.remove(&(peer, job));
                    self.refuse(peer, job, &reason, "");
                }
                WorkerAction::Kill { run } => {
                    if let Some(&peer) = self.guests.runs.get(&run) {
                        self.guests.guest(peer).tell(Command::Kill(run));
                    }
                }
                WorkerAction::Reclaimed { peer, job } => {
                    // It may still have waited for a slot.
                    self.guests.held.remove(&(peer, job));
                    let message = pool::Reclaimed { ids: vec![job.0], reason: self.sharing.code().to_owned() };
                    self.send(peer, frame::Kind::Reclaimed(message));
                }
            }
        }
    }

    pub(super) fn refuse(&mut self, peer: NodeId, job: JobId, reason: &Reason, note: &str) {
        let refused = pool::Refused { id: job.0, reason: reason.to_string(), note: note.to_owned() };
        self.send(peer, frame::Kind::Refused(refused));
        self.came_for_nothing(peer, 0, "jobs that are not taken");
    }

    pub(super) fn submitter_up(&mut self, peer: NodeId, outlet: Outlet, rtt: Duration) {
        if self.serving().is_err() || !self.may_submit(peer) {
            return;
        }
        let session = Session { outlet: outlet.clone(), mirror: Keeping::Untouched };
        self.guests.sessions.insert(peer, session);
        self.guests.guest(peer).tell(Command::Connected(outlet));
        self.work(WorkerEvent::SubmitterUp { peer, rtt });
        if !self.sharing.code().is_empty() {
            self.tell_credits(peer);
        }
    }

    pub(super) fn submitter_down(&mut self, peer: NodeId) {
        self.guests.sessions.remove(&peer);
        self.guests.held.retain(|(p, _), _| *p != peer);
        if let Some(guest) = self.guests.guests.get(&peer) {
            guest.tell(Command::Disconnected);
        }
        self.work(WorkerEvent::SubmitterDown { peer });
    }

    /// A frame that concerns this node as a worker.
    pub(super) fn serve_frame(&mut self, peer: NodeId, kind: frame::Kind) {
        let refusal = match self.serving() {
            Err(why) => Some(why),
            Ok(_) => (!self.may_submit(peer)).then(|| "in the team your computer only serves".to_owned()),
        };
        if let Some(why) = refusal {
            if let frame::Kind::Job(job) = &kind {
                self.refuse(peer, JobId(job.id), &Reason::Policy, &why);
            }
            return;
        }
        if matches!(kind, frame::Kind::Job(_) | frame::Kind::Delta(_)) {
            self.guests.touched(peer);
        }
        match kind {
            frame::Kind::Demand(demand) => self.work(WorkerEvent::Demand { peer, slots: demand.slots }),
            frame::Kind::Job(job) if job.probe => self.serve_proof(peer, job),
            frame::Kind::Job(job) => {
                let id = JobId(job.id);
                self.guests.held.insert((peer, id), job);
                self.work(WorkerEvent::Arrived { peer, job: id });
            }
            frame::Kind::Cancel(cancel) => {
                self.guests.held.remove(&(peer, JobId(cancel.id)));
                self.work(WorkerEvent::Cancel { peer, job: JobId(cancel.id) });
                self.wasted(peer, budget::WASTE_CANCEL_US, "jobs that it takes back");
            }
            frame::Kind::ToolchainOffer(offer) => {
                self.guests.received.named(peer, &offer);
                if let Ok(id) = Digest::try_from(&offer.id[..]) {
                    self.work(WorkerEvent::Proved { peer, toolchain: ToolchainId(id) });
                }
            }
            frame::Kind::Delta(_) | frame::Kind::MirrorQuery(_) => {
                self.guests.guest(peer).tell(Command::Frame(kind));
            }
            _ => {}
        }
    }

    /// A proof needs no credit, and waits for a slot: also while the person wants the PC, and nothing runs.
    fn serve_proof(&mut self, peer: NodeId, job: pool::Job) {
        let id = JobId(job.id);
        if job.encoded_len() > PROOF_BYTES_MAX {
            return self.refuse(peer, id, &Reason::ProofRefused, "its command is too long for a check of a compiler");
        }
        // Older submitters do not say what they prove: their compilers are told apart by the program.
        let toolchain = Digest::try_from(&job.toolchain[..]).unwrap_or_else(|_| Digest::of(&job.program));
        self.guests.held.insert((peer, id), job);
        self.work(WorkerEvent::ProofArrived { peer, job: id, toolchain: ToolchainId(toolchain) });
    }

    pub(super) fn serve_chunk(&mut self, peer: NodeId, chunk: pool::Chunk, held: Option<OwnedSemaphorePermit>) {
        if self.serving().is_ok() && self.may_submit(peer) {
            self.guests.touched(peer);
            self.guests.guest(peer).tell(Command::Chunk(chunk, held));
        } else {
            self.came_for_nothing(peer, chunk.data.len() as u64, "files that are not taken");
        }
    }

    pub(super) fn guest_event(&mut self, event: GuestEvent) {
        match event {
            GuestEvent::Finished(served) => {
                self.guests.received.used(served.peer, Self::clock_us() / 1000);
                if let Some(run) = served.run
                    && self.guests.runs.remove(&run).is_some()
                {
                    self.work(WorkerEvent::Ended { run, faulted: served.faults > 0 });
                }
                if served.probe && served.end != "killed" {
                    self.guests.held.remove(&(served.peer, JobId(served.job)));
                }
                if !served.probe && served.end == "exited" {
                    self.served_jobs += 1;
                    self.job_took(served.max_rss_bytes);
                }
                self.lend(served.peer, served.cpu_us);
                self.keep_served(*served);
            }
            GuestEvent::Misbehaved(peer, why) => {
                crate::log::warn(&format!("{} broke a rule and is disconnected: {why}", peer.short()));
                self.close_link(peer);
            }
            GuestEvent::Unwell(peer, why) => self.unwell(peer, &why),
            GuestEvent::Looked(peer, looked, is_pass_over) => self.mirror_looked_at(peer, &looked, is_pass_over),
            GuestEvent::Laden(peer, laden) => self.work(WorkerEvent::Laden { peer, laden }),
            GuestEvent::Over(peer) => {
                crate::log::warn(&format!("the jobs of {} were given up after a fault of this node", peer.short()));
                self.guests.guests.remove(&peer);
                self.scrub_over(peer);
                let lost: Vec<u64> =
                    self.guests.runs.iter().filter(|(_, p)| **p == peer).map(|(run, _)| *run).collect();
                for run in lost {
                    self.guests.runs.remove(&run);
                    self.work(WorkerEvent::Ended { run, faulted: false });
                }
                self.close_link(peer);
            }
        }
    }
    /// A submitter's files cannot be kept here.
    fn unwell(&mut self, peer: NodeId, why: &str) {
        let failed = self.guests.sessions.get_mut(&peer).map_or(Failed::EndLink, |session| session.mirror.failed());
        match failed {
            Failed::EndLink => {
                crate::log::warn(&format!(
                    "the files of {} cannot be kept here, it is disconnected: {why}",
                    peer.short()
                ));
                self.close_link(peer);
            }
            Failed::Tell => {
                crate::log::warn(&format!(
                    "the files of {} cannot be kept here, it does without this PC: {why}",
                    peer.short()
                ));
                let state = pool::MirrorState { trap: "none".to_owned(), ..pool::MirrorState::default() };
                self.send(peer, frame::Kind::MirrorState(state));
            }
            Failed::Wait => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_that_cannot_be_opened_costs_no_link_and_is_told_once() {
        let mut mirror = Keeping::Untouched;
        assert!(!mirror.again(), "nothing is wrong with it");
        assert_eq!(mirror.failed(), Failed::Tell);
        for _ in 0..3 {
            assert!(mirror.again() && !mirror.again());
            assert_eq!(mirror.failed(), Failed::Wait);
        }
    }

    #[test]
    fn a_mirror_that_is_lost_while_it_is_used_ends_the_link() {
        for mut mirror in [Keeping::Untouched, Keeping::Closed, Keeping::Again] {
            mirror.used();
            assert!(!mirror.again());
            assert_eq!(mirror.failed(), Failed::EndLink);
        }
    }
}
