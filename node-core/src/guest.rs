//! The worker's side of one submitter: its mirror, its sandbox, its jobs. One thread that takes commands in order, so
//! that a job sees every delta sent before it; one thread for each running job, which waits for its report. What stops or
//! ends jobs does not wait for that order: see `reins`.

mod blob;
mod care;
mod delta;
mod pass;
mod reins;
mod report;
mod speaker;
mod spool;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use potluck_model::ids::{Digest, NodeId};
use potluck_model::limits::{
    ARGS_MAX, BLOB_BYTES_MAX, ENV_MAX, FAULTS_PER_JOB_MAX, GUEST_WAITING_BYTES_MAX, JOBS_PER_PEER_MAX, JobLimits,
    PROOF_TIME_MAX,
};
use potluck_runner::protocol::{Job as RunnerJob, Limits, OutputDir, Setup, Trap};
use potluck_wire::pool::{self, Frame, frame};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, mpsc as tokio_mpsc};

use crate::bytes;
use crate::mirror::scrub::Looked;
use crate::mirror::{Layers, Mirror, MirrorError};
use crate::sandbox::{Sandbox, Started, read_report};
use blob::{Blob, HashingFile, Sink};
pub use delta::unpack_delta;
pub use pass::Idle;
use reins::{Reins, Start};
pub use report::limit_name;
use report::{Finished, Large, Reader, end_of};
use speaker::{Speaker, Word};
pub use spool::Room;
use spool::Spool;

/// Where a guest's words go: the link of its submitter.
#[derive(Clone)]
pub struct Outlet {
    /// Control frames.
    pub control: tokio_mpsc::Sender<Frame>,
    /// Bulk chunks.
    pub bulk: tokio_mpsc::Sender<pool::Chunk>,
}

/// Transfers of one submitter at a time; its own limit is far below.
const TRANSFERS_MAX: usize = 64;
/// Decompression windows above this are refused: a submitter's own streams need 2 MiB, and each transfer has one.
const WINDOW_LOG_MAX: u32 = 24;
/// Output directories of one job: each is a mount. Real ones have one to three.
const OUTPUT_DIRS_MAX: usize = 64;
/// For the node: what a guest did.
#[derive(Debug)]
pub enum GuestEvent {
    /// A job is over; its slot is free.
    Finished(Box<Served>),
    /// The submitter broke a rule: the link must end.
    Misbehaved(NodeId, String),
    /// This worker cannot go on, most likely for want of disk: the link must end, and everything begins anew.
    Unwell(NodeId, String),
    /// So much waits for the submitter to take it that nothing more is to start for it; or that is over.
    Laden(NodeId, bool),
    /// Its mirror was looked at; whether that was the end of a pass.
    Looked(NodeId, Looked, bool),
    /// Its thread is over, by a fault of ours: nothing that it ran will be answered.
    Over(NodeId),
}

/// Where a guest's events go. Called before the answer to the submitter is sent, so that the node knows of a free slot
/// before the submitter can use it again.
pub type Events = Arc<dyn Fn(GuestEvent) + Send + Sync>;

/// A line of the worker's job log.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Served {
    /// Always "worker".
    pub role: &'static str,
    /// Whose job.
    pub submitter: String,
    /// The submitter's number of it.
    pub job: u64,
    /// Its source, as far as the command tells.
    pub source: String,
    /// How it ended.
    pub end: String,
    /// Exit code or signal.
    pub value: i32,
    /// CPU of its processes, in microseconds.
    pub cpu_us: u64,
    /// CPU of the sandbox for it.
    pub overhead_us: u64,
    /// Wall time.
    pub wall_us: u64,
    /// Poisons that it touched.
    pub faults: usize,
    /// Whether it was a probe of ours rather than somebody's compile.
    pub probe: bool,
    /// Largest process, in bytes.
    pub max_rss_bytes: u64,
    /// Whose.
    #[serde(skip)]
    pub peer: NodeId,
    /// The slot that is free now, by the worker's own number.
    #[serde(skip)]
    pub run: Option<u64>,
}

/// Commands for a guest. [`Guest::tell`] says which do not wait for others.
pub enum Command {
    /// A frame of the submitter: delta, probe, mirror query, toolchain offer.
    Frame(frame::Kind),
    /// A job that has a slot. The run names it between node and guest, because a submitter that starts anew uses its own
    /// numbers again; [`GuestEvent::Finished`] follows exactly once.
    Run(u64, Box<pool::Job>),
    /// Nobody wants this run any more.
    Kill(u64),
    /// A delta, where it waits.
    Delta(spool::Delta),
    /// A piece of a blob, and its right to be held in memory.
    Chunk(pool::Chunk, Option<OwnedSemaphorePermit>),
    /// The submitter has a new connection: earlier jobs are void.
    Connected(Outlet),
    /// The connection is gone: kill its jobs, keep the mirror.
    Disconnected,
    /// Stop or resume every job at once.
    Freeze(bool),
    /// A job's thread has finished.
    Finished(Box<Finished>),
    /// Begin a pass over the mirror.
    Pass,
    /// A piece of a pass was read.
    Step(Box<pass::Step>),
    /// Forget the mirror.
    Forget,
    /// The node ends.
    Quit,
}

impl Command {
    /// What it takes while it waits, if a submitter may send as much of it as it likes.
    fn waiting_bytes(&self) -> u64 {
        let content = match self {
            Command::Chunk(chunk, _) => chunk.encoded_len(),
            Command::Frame(kind) => kind.encoded_len(),
            _ => return 0,
        };
        (content + size_of::<Told>()) as u64
    }
}

/// A command on its way to a guest's thread.
struct Told {
    command: Command,
    /// The connection that stood.
    session: u64,
    /// What it counts for in `Reins::waits`.
    bytes: u64,
}

/// A job that is at the runner or will be, under a number of this guest: a submitter that connects anew may use its own
/// numbers again.
struct Running {
    id: u64,
    /// The connection that it came over.
    session: u64,
    /// The node's number of its slot.
    slot: Option<u64>,
    /// What was asked, if what comes of it is signed.
    asked: Option<Digest>,
    /// Held until its processes are gone.
    _layers: Vec<Layers>,
    source: String,
    /// Nothing of it is anybody's compile.
    probe: bool,
    /// It proves a toolchain: killed, it runs again, and its submitter hears nothing of that.
    proof: bool,
    /// The node knows that it is over.
    told: bool,
    /// It was not started yet. None: its thread will tell how it ended.
    ready: Option<Ready>,
}

/// What it takes to start a job.
struct Ready {
    job: Box<RunnerJob>,
    /// Where each of its output directories is in the submitter's order.
    order: Vec<usize>,
    began: Instant,
}

/// Which job a line of the log is about.
struct About {
    id: u64,
    slot: Option<u64>,
    source: String,
    probe: bool,
}

impl Running {
    fn about(&self) -> About {
        About { id: self.id, slot: self.slot, source: self.source.clone(), probe: self.probe }
    }
}

/// Settings of the worker that every guest shares.
#[derive(Clone)]
pub struct GuestSettings {
    /// Folder of all mirrors.
    pub mirrors: PathBuf,
    /// Bytes for one mirror.
    pub quota_bytes: u64,
    /// Limits of a job.
    pub limits: JobLimits,
    /// Use /dev/fuse if it is there.
    pub allow_fuse: bool,
    /// Signs what comes of jobs; None: nothing is signed.
    pub signer: Option<crate::signed::Signer>,
    /// What all guests together hold of results.
    pub room: Arc<Room>,
    /// Whether passes may go on.
    pub idle: Arc<Idle>,
}

/// A handle to a guest's thread, and to its jobs.
pub struct Guest {
    peer: NodeId,
    commands: mpsc::Sender<Told>,
    reins: Arc<Reins>,
    events: Events,
    spool: Spool,
    /// Bytes of its mirror; the largest number: not opened yet.
    mirror_bytes: Arc<AtomicU64>,
}

impl Guest {
    /// Starts the thread. It opens the mirror at the first command that needs it.
    pub fn start(peer: NodeId, settings: GuestSettings, events: Events) -> Self {
        let (tx, rx) = mpsc::channel::<Told>();
        let own = tx.clone();
        let reins = Arc::new(Reins::default());
        let (own_reins, own_events) = (Arc::clone(&reins), Arc::clone(&events));
        let spool = Spool::new(Arc::clone(&settings.room), settings.mirrors.clone());
        let own_spool = spool.clone();
        let mirror_bytes = Arc::new(AtomicU64::new(u64::MAX));
        let told_bytes = Arc::clone(&mirror_bytes);
        std::thread::Builder::new()
            .name("guest".into())
            .spawn(move || {
                let (reins, events) = (own_reins, own_events);
                let _farewell = Farewell { peer, events: Arc::clone(&events), reins: Arc::clone(&reins) };
                let mut thread = Thread {
                    peer,
                    settings,
                    events,
                    commands: own,
                    reins,
                    spool: own_spool,
                    speaker: None,
                    mirror: None,
                    running: HashMap::new(),
                    blobs: HashMap::new(),
                    swept: (Instant::now(), Duration::ZERO),
                    pass: None,
                    next_run: 1,
                    next_transfer: 1,
                };
                while let Ok(Told { command, session, bytes }) = rx.recv() {
                    thread.reins.taken(bytes);
                    if matches!(command, Command::Quit) {
                        break;
                    }
                    if let Err(error) = thread.take(command, session) {
                        thread.broken(&error);
                        let why = error.to_string();
                        (thread.events)(match error {
                            MirrorError::Refused(_) => GuestEvent::Misbehaved(peer, why),
                            MirrorError::Full(_) | MirrorError::Io(_) => GuestEvent::Unwell(peer, why),
                        });
                    }
                    if let Some(mirror) = &thread.mirror {
                        told_bytes.store(mirror.size().0, Ordering::Relaxed);
                    }
                }
            })
            .expect("a thread can be started");
        Self { peer, commands: tx, reins, events, spool, mirror_bytes }
    }

    /// Bytes of its mirror, if that was opened.
    pub fn mirror_bytes(&self) -> Option<u64> {
        Some(self.mirror_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes != u64::MAX)
    }

    /// Hands over a command. When this returns, a stop, a resume, a kill or the end of a connection has been said to the
    /// sandbox, and holds for every job that was not started yet; all else of it, and all other commands, wait for what was
    /// handed over before.
    pub fn tell(&self, command: Command) {
        match &command {
            Command::Freeze(stop) => self.reins.freeze(*stop),
            Command::Kill(slot) => self.reins.kill(*slot),
            Command::Connected(_) => self.reins.begin_session(),
            Command::Disconnected | Command::Quit => self.reins.end_session(),
            Command::Forget => self.reins.kill_all(),
            Command::Run(..) | Command::Frame(_) | Command::Delta(_) | Command::Chunk(..) => {}
            Command::Pass | Command::Step(_) | Command::Finished(_) => {}
        }
        let (session, bytes) = (self.reins.session(), command.waiting_bytes());
        if self.reins.waits(bytes, GUEST_WAITING_BYTES_MAX) {
            match self.put_by(command) {
                Ok(command) => _ = self.commands.send(Told { command, session, bytes }),
                Err(error) => {
                    self.reins.taken(bytes);
                    self.tell(Command::Disconnected);
                    (self.events)(GuestEvent::Unwell(self.peer, format!("a delta cannot wait here: {error}")));
                }
            }
        } else if !self.reins.is_over(session) {
            // Said once: what follows until the link is closed comes over none.
            self.tell(Command::Disconnected);
            let why = format!("it sends more than is taken: {} MiB wait", GUEST_WAITING_BYTES_MAX >> 20);
            (self.events)(GuestEvent::Misbehaved(self.peer, why));
        }
    }
}

impl Guest {
    /// What waits does not fill the memory.
    fn put_by(&self, command: Command) -> std::io::Result<Command> {
        match command {
            Command::Frame(frame::Kind::Delta(delta)) => Ok(Command::Delta(self.spool.keep_delta(delta)?)),
            other => Ok(other),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.tell(Command::Quit);
    }
}

/// Tells the node when a guest's thread is over, also by a panic: its slots must not stay in use.
struct Farewell {
    peer: NodeId,
    events: Events,
    reins: Arc<Reins>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.reins.set_sandbox(None);
        (self.events)(GuestEvent::Over(self.peer));
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.end_pass();
    }
}

struct Thread {
    peer: NodeId,
    settings: GuestSettings,
    events: Events,
    commands: mpsc::Sender<Told>,
    reins: Arc<Reins>,
    /// Where results wait: on the disk of the mirrors, which is there for this.
    spool: Spool,
    /// None: nobody is connected, or a rule was broken, and nothing is taken or said until the next connection.
    speaker: Option<Speaker>,
    mirror: Option<Mirror>,
    running: HashMap<u64, Running>,
    blobs: HashMap<u64, Blob>,
    /// When the mirror was looked at last, or read whole, and how long that took.
    swept: (Instant, Duration),
    /// A pass goes on; true ends it.
    pass: Option<Arc<AtomicBool>>,
    next_run: u64,
    next_transfer: u64,
}

impl Thread {
    /// The session is over from this moment: a job behind a delta that failed must not run, and what runs now must not
    /// be answered.
    fn broken(&mut self, error: &MirrorError) {
        self.end_session();
        let again = match (error, &mut self.mirror) {
            // Whatever was not applied, the next session is told what is there.
            (MirrorError::Refused(_), _) | (_, None) => Ok(()),
            // The one way to make room is to begin anew. Its sandbox shows the old tree.
            (MirrorError::Full(_), Some(mirror)) => {
                self.reins.set_sandbox(None);
                mirror.clear()
            }
            // What is on the disk may differ from what is known of it.
            (MirrorError::Io(_), Some(_)) => {
                self.reins.set_sandbox(None);
                self.end_pass();
                self.mirror = None;
                Ok(())
            }
        };
        if let Err(error) = again {
            crate::log::warn(&format!("the mirror of {}: {error}", self.peer.short()));
            self.mirror = None;
        }
    }

    fn end_session(&mut self) {
        self.reins.kill_all();
        self.blobs.clear();
        self.speaker = None;
        // Their submitter is gone: the node counts their slots as free, and must hear of each exactly once.
        let ended: Vec<u64> = self.running.iter().filter(|(_, r)| !r.told).map(|(run, _)| *run).collect();
        for run in ended {
            if let Some(running) = self.running.get_mut(&run) {
                running.told = true;
                let told = running.about();
                self.log(told, "killed", 0, &pool::Result::default(), 0);
            }
        }
        // No thread will tell of these.
        self.running.retain(|_, running| running.ready.is_none());
    }

    /// Nothing is taken from this connection.
    fn is_over(&self, session: u64) -> bool {
        self.speaker.is_none() || self.reins.is_over(session)
    }

    fn take(&mut self, command: Command, session: u64) -> Result<(), MirrorError> {
        match command {
            Command::Connected(outlet) => {
                self.end_session();
                if let Some(mirror) = &mut self.mirror {
                    mirror.drop_blobs()?;
                }
                self.speaker = Some(Speaker::start(self.peer, outlet, Arc::clone(&self.events))?);
            }
            Command::Disconnected => self.end_session(),
            // What stands still was told by whoever said this.
            Command::Freeze(true) => {}
            Command::Freeze(false) => {
                for run in self.not_started(|_| true) {
                    self.launch(run)?;
                }
            }
            Command::Finished(finished) => self.finished(*finished)?,
            Command::Pass => self.begin_pass()?,
            Command::Step(step) => self.next_step(*step)?,
            Command::Forget => {
                self.reins.kill_all();
                for run in self.not_started(|_| true) {
                    self.finished(Finished::never(run))?;
                }
                self.reins.set_sandbox(None);
                if let Some(mirror) = &mut self.mirror {
                    mirror.clear()?;
                }
            }
            Command::Chunk(..) | Command::Delta(_) | Command::Frame(_) if self.is_over(session) => {}
            Command::Chunk(chunk, _held) => self.chunk(chunk, session)?,
            Command::Delta(delta) => {
                let ops = unpack_delta(&delta.read()?)?;
                self.mirror()?.apply(&ops)?;
            }
            Command::Run(slot, job) => self.admitted(Some(slot), *job, session)?,
            Command::Kill(slot) => {
                self.reins.kill_taken(slot);
                for run in self.not_started(|running| running.slot == Some(slot)) {
                    self.finished(Finished::never(run))?;
                }
            }
            Command::Frame(kind) => self.frame(kind)?,
            Command::Quit => {}
        }
        Ok(())
    }

    fn frame(&mut self, kind: frame::Kind) -> Result<(), MirrorError> {
        match kind {
            frame::Kind::MirrorQuery(_) => self.mirror_state(),
            _ => Ok(()),
        }
    }

    /// A job that may run now. Whatever comes of it, the node hears of its end once.
    fn admitted(&mut self, slot: Option<u64>, job: pool::Job, session: u64) -> Result<(), MirrorError> {
        let about = About { id: job.id, slot, source: source_of(&job), probe: job.discard_outputs || job.probe };
        if self.is_over(session) {
            self.log(about, "refused", 0, &pool::Result::default(), 0);
            return Ok(());
        }
        if let Err(error) = self.sweep_if_due() {
            // The session ends with it.
            self.log(about, "refused", 0, &pool::Result::default(), 0);
            return Err(error);
        }
        match self.prepare(slot, job, session) {
            Ok(run) => self.launch(run),
            Err(error) => self.not_run(about, &error),
        }
    }

    /// Starts a job, or keeps it while jobs are stopped.
    fn launch(&mut self, run: u64) -> Result<(), MirrorError> {
        match self.start(run) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.reins.give_up(run);
                match self.running.remove(&run) {
                    Some(running) => self.not_run(running.about(), &error),
                    None => Ok(()),
                }
            }
        }
    }

    fn not_run(&self, about: About, error: &MirrorError) -> Result<(), MirrorError> {
        let reason = match error {
            MirrorError::Full(_) => "disk-full",
            MirrorError::Refused(_) => "policy",
            MirrorError::Io(_) => "sandbox-unavailable",
        };
        let id = about.id;
        self.log(about, "refused", 0, &pool::Result::default(), 0);
        self.refuse(id, reason, &error.to_string())
    }

    /// Jobs that were not started, in order.
    fn not_started(&self, which: impl Fn(&Running) -> bool) -> Vec<u64> {
        let ready = self.running.iter().filter(|(_, running)| running.ready.is_some() && which(running));
        let mut runs: Vec<u64> = ready.map(|(run, _)| *run).collect();
        runs.sort_unstable();
        runs
    }

    fn mirror(&mut self) -> Result<&mut Mirror, MirrorError> {
        if self.mirror.is_none() {
            let base = self.settings.mirrors.join(self.peer.to_string());
            self.mirror = Some(Mirror::open(&base, self.settings.quota_bytes)?);
            self.swept = (Instant::now(), Duration::ZERO);
        }
        Ok(self.mirror.as_mut().expect("just opened"))
    }

    fn sandbox(&mut self) -> Result<Arc<Sandbox>, MirrorError> {
        if let Some(sandbox) = self.reins.sandbox().filter(|s| s.is_alive()) {
            return Ok(sandbox);
        }
        let allow_fuse = self.settings.allow_fuse;
        let mirror = self.mirror()?;
        let setup = Setup {
            root: bytes::of(&mirror.root()).to_vec(),
            generations: bytes::of(&mirror.generations()).to_vec(),
            uid: 1000,
            gid: 1000,
            allow_fuse,
        };
        let sandbox = Sandbox::start(&setup).map_err(MirrorError::Io)?;
        self.reins.set_sandbox(Some(Arc::clone(&sandbox)));
        Ok(sandbox)
    }

    fn mirror_state(&mut self) -> Result<(), MirrorError> {
        let trap = match self.sandbox() {
            Ok(sandbox) => match sandbox.trap {
                Trap::Fuse => "fuse",
                Trap::Loop => "loop",
            },
            Err(error) => {
                crate::log::warn(&format!("no sandbox for {}: {error}", self.peer.short()));
                "none"
            }
        };
        let state = self.mirror()?.state();
        let raw = state.encode_to_vec();
        let raw_bytes = raw.len() as u64;
        let mut transfer = 0;
        if !state.dirs.is_empty() {
            transfer = self.next_transfer;
            self.next_transfer += 1;
            let packed = self.spool.pack(&mut &raw[..], raw_bytes)?;
            self.say(Word::Bulk(transfer, packed, raw_bytes))?;
        }
        let trap = trap.to_owned();
        let state = pool::MirrorState { transfer, raw_bytes, toolchains: Vec::new(), trap };
        self.say(Word::Frame(frame::Kind::MirrorState(state)))
    }

    fn say(&self, word: Word) -> Result<(), MirrorError> {
        self.speaker.as_ref().map_or(Ok(()), |speaker| speaker.say(word))
    }

    /// Makes a job ready: its layers are those of now. Returns its number.
    fn prepare(&mut self, slot: Option<u64>, job: pool::Job, session: u64) -> Result<u64, MirrorError> {
        let began = Instant::now();
        if self.running.len() >= JOBS_PER_PEER_MAX {
            return Err(MirrorError::Refused(format!("{} jobs at a time are too many", self.running.len() + 1)));
        }
        if job.argv.len() > ARGS_MAX || job.env.len() > ENV_MAX {
            return Err(MirrorError::Refused(format!("{} arguments, {} variables", job.argv.len(), job.env.len())));
        }
        if job.outputs.len() > OUTPUT_DIRS_MAX {
            return Err(MirrorError::Refused(format!("{} output directories", job.outputs.len())));
        }
        let mut limits = self.settings.limits;
        if job.probe {
            limits.wall_ms = limits.wall_ms.min(PROOF_TIME_MAX.as_millis() as u64);
            limits.cpu_s = limits.cpu_s.min(PROOF_TIME_MAX.as_secs());
        }
        let run = self.next_run;
        self.next_run += 1;
        let mut layers = Vec::new();
        let mut outputs = Vec::new();
        let mut dirs: Vec<pool::OutputDir> = job.outputs.clone();
        // Parents before children, as they are mounted; the harvest's index is translated back by the order sent.
        let mut order: Vec<usize> = (0..dirs.len()).collect();
        order.sort_by_key(|&i| dirs[i].path.len());
        let sorted: Vec<pool::OutputDir> = order.iter().map(|&i| std::mem::take(&mut dirs[i])).collect();
        for dir in sorted {
            crate::mirror::check_path(&dir.path)?;
            let made = self.mirror()?.layers(&dir.path)?;
            outputs.push(OutputDir {
                path: dir.path,
                generation: made.names().join(&b':'),
                whiteouts: dir.whiteouts,
                poisons: Vec::new(),
                binds: made.binds.clone(),
                mode: made.mode,
            });
            layers.push(made);
        }
        let source = source_of(&job);
        let asked = self.settings.signer.is_some().then(|| crate::signed::asked(&job));
        let runner_job = RunnerJob {
            id: run,
            program: job.program,
            argv: job.argv,
            env: job.env,
            cwd: job.cwd,
            umask: job.umask,
            outputs,
            limits: Limits {
                wall_ms: limits.wall_ms,
                cpu_s: limits.cpu_s,
                address_bytes: limits.address_bytes,
                resident_bytes: limits.address_bytes,
                file_bytes: if job.file_bytes == 0 { limits.file_bytes } else { limits.file_bytes.min(job.file_bytes) },
                processes: limits.processes,
                open_files: limits.open_files,
                output_bytes: limits.output_bytes,
                output_files: limits.output_files,
                stdio_bytes: limits.stdio_bytes,
                stack_bytes: job.stack_bytes,
            },
            discard_outputs: job.discard_outputs,
            grouped: false,
        };
        let running = Running {
            id: job.id,
            session,
            slot,
            asked,
            _layers: layers,
            source,
            probe: job.discard_outputs || job.probe,
            proof: job.probe,
            told: false,
            ready: Some(Ready { job: Box::new(runner_job), order, began }),
        };
        self.running.insert(run, running);
        Ok(run)
    }

    fn start(&mut self, run: u64) -> Result<(), MirrorError> {
        let sandbox = self.sandbox()?;
        let Some(running) = self.running.get_mut(&run) else { return Ok(()) };
        let Some(Ready { job, order, began }) = running.ready.take() else { return Ok(()) };
        let output_paths: Vec<Vec<u8>> = job.outputs.iter().map(|o| o.path.clone()).collect();
        let Started { mut report, touched, group } =
            match self.reins.start(running.session, running.slot, &sandbox, job)? {
                Start::Runs(started) => started,
                Start::Later(job) => {
                    running.ready = Some(Ready { job, order, began });
                    return Ok(());
                }
                Start::Never => return self.finished(Finished::never(run)),
            };
        let id = running.id;
        let commands = self.commands.clone();
        let transfer_base = self.next_transfer;
        self.next_transfer += self.settings.limits.output_files;
        let spool = self.spool.clone();
        std::thread::Builder::new().name("job".into()).stack_size(256 << 10).spawn(move || {
            let reader = Reader { run, id, order: &order, output_paths: &output_paths, transfer_base, spool: &spool };
            let read = read_report(&mut report).and_then(|head| {
                let head = end_of(head, group.as_ref());
                reader.read(head, &mut report)
            });
            // A sandbox that ended before it told what was touched: nobody knows what the report is worth.
            let read = read.and_then(|finished| match touched.recv() {
                Ok(touched) => Ok(Finished { touched, ..finished }),
                Err(_) => Err(std::io::Error::other("before it told what the job touched")),
            });
            let mut finished = read.unwrap_or_else(|error| {
                let why = match error.kind() {
                    std::io::ErrorKind::StorageFull => format!("its outputs: {error}"),
                    _ => format!("the sandbox ended: {error}"),
                };
                Finished::not_started(run, id, why)
            });
            // Its processes are gone.
            drop(group);
            finished.result.wall_us = began.elapsed().as_micros() as u64;
            let command = Command::Finished(Box::new(finished));
            let _ = commands.send(Told { command, session: 0, bytes: 0 });
        })?;
        Ok(())
    }

    fn finished(&mut self, finished: Finished) -> Result<(), MirrorError> {
        let Finished { run, mut result, touched, lower_written, poison_written, large } = finished;
        self.reins.ended(run);
        let Some(running) = self.running.remove(&run) else { return Ok(()) };
        if running.told {
            return Ok(());
        }
        let id = running.id;
        result.id = id;
        // A poison that nobody knows any more is one all the same: the job saw something that is not there.
        let mut unknown = touched.overflow;
        let mut paths = |ids: &[u64]| -> Vec<Vec<u8>> {
            let known: Vec<Vec<u8>> =
                ids.iter().filter_map(|id| self.mirror.as_ref()?.poison_path(*id)).take(FAULTS_PER_JOB_MAX).collect();
            unknown |= known.len() < ids.len();
            known
        };
        result.faults = paths(&touched.faults);
        result.written = paths(&poison_written);
        result.written.extend(lower_written);
        result.faults_overflow = unknown;
        let (end, value) = match pool::EndKind::try_from(result.end).unwrap_or_default() {
            pool::EndKind::EndExited => ("exited", result.value),
            pool::EndKind::EndSignaled => ("signaled", result.value),
            pool::EndKind::EndLimit => ("limit", result.value),
            pool::EndKind::EndKilled => ("killed", 0),
            _ => ("not-started", 0),
        };
        if end == "not-started" {
            crate::log::warn(&format!("job {id} of {} did not start: {}", self.peer.short(), result.note));
        }
        self.log(running.about(), end, value, &result, touched.faults.len());
        if running.proof && end == "killed" {
            return Ok(());
        }
        if let (Some(signer), Some(asked)) = (&self.settings.signer, running.asked) {
            signer.sign(self.peer, asked, &mut result);
        }
        for Large { transfer, packed, size } in large {
            self.say(Word::Bulk(transfer, packed, size))?;
        }
        let word = match self.spool.place(result.encoded_len() as u64) {
            Some(place) => Word::Result(Box::new(result), place),
            None => Word::Stored(self.spool.keep(result.encode_to_vec())?),
        };
        self.say(word)
    }

    fn log(&self, job: About, end: &str, value: i32, result: &pool::Result, faults: usize) {
        (self.events)(GuestEvent::Finished(Box::new(Served {
            role: "worker",
            submitter: self.peer.to_string(),
            job: job.id,
            source: job.source,
            end: end.to_owned(),
            value,
            cpu_us: result.cpu_us,
            overhead_us: result.overhead_us,
            wall_us: result.wall_us,
            faults,
            probe: job.probe,
            max_rss_bytes: result.max_rss_bytes,
            peer: self.peer,
            run: job.slot,
        })));
    }

    fn refuse(&self, id: u64, reason: &str, note: &str) -> Result<(), MirrorError> {
        let refused = pool::Refused { id, reason: reason.to_owned(), note: note.to_owned() };
        self.say(Word::Frame(frame::Kind::Refused(refused)))
    }

    fn chunk(&mut self, chunk: pool::Chunk, session: u64) -> Result<(), MirrorError> {
        let transfer = chunk.transfer;
        if !self.blobs.contains_key(&transfer) {
            let Ok(digest) = Digest::try_from(&chunk.digest[..]) else {
                return Err(MirrorError::Refused("a transfer without digest".into()));
            };
            if chunk.total > BLOB_BYTES_MAX {
                return Err(MirrorError::Refused(format!("a file of {} bytes is too large", chunk.total)));
            }
            if self.blobs.len() >= TRANSFERS_MAX {
                return Err(MirrorError::Refused("too many transfers at a time".into()));
            }
            let blob = self.begin_blob(digest, &chunk, session);
            if let Err(error) = &blob {
                self.blob_answer(&digest, &error.to_string())?;
            }
            self.blobs.insert(transfer, blob.unwrap_or(Blob::Failed));
        }
        let Some(blob) = self.blobs.get_mut(&transfer) else { return Ok(()) };
        if let Blob::Coming { digest, sink, .. } = blob {
            let wrote = match sink {
                Sink::Packed(decoder) => decoder.write_all(&chunk.data).and_then(|()| decoder.flush()),
                Sink::Plain(plain) => plain.write_all(&chunk.data),
            };
            if let Err(error) = wrote {
                let digest = *digest;
                // A file that grew while it was read is nobody's fault: the rest of it is dropped.
                *blob = Blob::Failed;
                self.blob_answer(&digest, &error.to_string())?;
            }
        }
        if chunk.last
            && let Some(mut blob) = self.blobs.remove(&transfer)
            && let Blob::Coming { digest, total, staged, sink } = &mut blob
        {
            let done = self.store(*digest, *total, staged, sink);
            self.blob_answer(digest, &done.err().map(|e| e.to_string()).unwrap_or_default())?;
        }
        Ok(())
    }

    fn begin_blob(&mut self, digest: Digest, chunk: &pool::Chunk, session: u64) -> Result<Blob, MirrorError> {
        let coming: u64 = self.blobs.values().map(Blob::total).sum();
        let mirror = self.mirror()?;
        mirror.check_room(coming + chunk.total)?;
        let staged = mirror.blob_path();
        let file = fs::OpenOptions::new().write(true).create_new(true).open(&staged)?;
        let plain = HashingFile::new(file, chunk.total, Arc::clone(&self.reins), session);
        let sink = if chunk.zstd {
            let mut decoder = zstd::stream::write::Decoder::new(plain)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Sink::Packed(Box::new(decoder))
        } else {
            Sink::Plain(Box::new(plain))
        };
        Ok(Blob::Coming { digest, total: chunk.total, staged, sink })
    }

    fn store(&mut self, digest: Digest, total: u64, staged: &Path, sink: &mut Sink) -> Result<(), MirrorError> {
        let plain = match sink {
            Sink::Packed(decoder) => {
                decoder.flush()?;
                decoder.get_ref()
            }
            Sink::Plain(plain) => &**plain,
        };
        if Digest(*plain.hasher.finalize().as_bytes()) != digest || plain.written != total {
            return Err(MirrorError::Refused("the content is not what its digest says".into()));
        }
        self.mirror()?.store_blob(digest, staged, total)
    }

    fn blob_answer(&self, digest: &Digest, error: &str) -> Result<(), MirrorError> {
        let stored = pool::BlobStored { digest: digest.0.to_vec(), error: error.to_owned() };
        self.say(Word::Frame(frame::Kind::BlobStored(stored)))
    }
}

fn source_of(job: &pool::Job) -> String {
    let is_source = |arg: &&Vec<u8>| {
        !arg.starts_with(b"-")
            && arg.rsplit(|&c| c == b'.').next().is_some_and(|e| {
                [&b"c"[..], b"cc", b"cpp", b"cxx", b"C", b"S", b"s", b"i", b"ii", b"m", b"mm", b"c++", b"cp"]
                    .contains(&e)
            })
    };
    job.argv.iter().skip(1).rev().find(is_source).map(|a| bytes::show(a)).unwrap_or_default()
}
