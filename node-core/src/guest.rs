//! The worker's side of one submitter: its mirror, its sandbox, its jobs. One thread that takes commands in order, so
//! that a job sees every delta sent before it; one thread for each running job, which waits for its report.

mod delta;
mod report;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use potluck_model::ids::{Digest, NodeId};
use potluck_model::limits::{BLOB_BYTES_MAX, BULK_CHUNK_BYTES, FAULTS_PER_JOB_MAX, JOBS_PER_PEER_MAX, JobLimits};
use potluck_runner::protocol::{Job as RunnerJob, Limits, OutputDir, Setup, ToRunner, Trap};
use potluck_wire::pool::{self, Frame, frame};
use prost::Message;
use tokio::sync::mpsc as tokio_mpsc;

use crate::bytes;
use crate::core_content;
use crate::mirror::{Layers, Mirror, MirrorError};
use crate::sandbox::{Sandbox, Touched, read_report};
use delta::unpack_delta;
use report::digest_report;
pub use report::limit_name;

/// Where a guest's words go: the link of its submitter.
#[derive(Clone)]
pub struct Outlet {
    /// Control frames.
    pub control: tokio_mpsc::Sender<Frame>,
    /// Bulk chunks.
    pub bulk: tokio_mpsc::Sender<pool::Chunk>,
}

/// Bytes of results that wait for their submitter to take them: as much as two jobs may write.
const UNTAKEN_BYTES_MAX: u64 = 2 << 30;
/// Transfers of one submitter at a time; its own limit is far below.
const TRANSFERS_MAX: usize = 64;
/// Decompression windows above this are refused: a submitter's own streams need 2 MiB, and each transfer has one.
const WINDOW_LOG_MAX: u32 = 24;
/// Proofs that run at a time. They need no credit, so they have a limit of their own.
const PROBES_MAX: usize = 16;
/// Output directories of one job: each is a mount. Real ones have one to three.
const OUTPUT_DIRS_MAX: usize = 64;

/// What goes out over the link, in order. A thread of its own sends it: the guest's must hear a cancel or a freeze
/// however slowly a submitter reads.
enum Word {
    Frame(frame::Kind),
    Bulk(u64, Vec<u8>),
}

struct Speaker {
    words: mpsc::Sender<Word>,
    waiting_bytes: Arc<AtomicU64>,
}

impl Speaker {
    fn start(outlet: Outlet) -> std::io::Result<Self> {
        let (words, queue) = mpsc::channel::<Word>();
        let waiting_bytes = Arc::new(AtomicU64::new(0));
        let waiting = Arc::clone(&waiting_bytes);
        std::thread::Builder::new().name("speaker".into()).stack_size(256 << 10).spawn(move || {
            while let Ok(word) = queue.recv() {
                let size = word.size();
                let sent = match word {
                    Word::Frame(kind) => outlet.control.blocking_send(Frame { kind: Some(kind) }).is_ok(),
                    Word::Bulk(transfer, content) => send_bulk(&outlet, transfer, &content),
                };
                waiting.fetch_sub(size, Ordering::Relaxed);
                // The link is gone: so is its submitter's interest.
                if !sent {
                    return;
                }
            }
        })?;
        Ok(Self { words, waiting_bytes })
    }

    fn say(&self, word: Word) -> Result<(), MirrorError> {
        let size = word.size();
        if self.waiting_bytes.fetch_add(size, Ordering::Relaxed) + size > UNTAKEN_BYTES_MAX {
            return Err(MirrorError::Refused("it does not take its results".into()));
        }
        let _ = self.words.send(word);
        Ok(())
    }
}

impl Word {
    fn size(&self) -> u64 {
        match self {
            Word::Frame(frame::Kind::Result(result)) => result.encoded_len() as u64,
            // All others are short.
            Word::Frame(_) => 0,
            Word::Bulk(_, content) => content.len() as u64,
        }
    }
}

/// For the node: what a guest did.
#[derive(Debug)]
pub enum GuestEvent {
    /// A job is over; its slot is free.
    Finished(Box<Served>),
    /// The submitter broke a rule: the link must end.
    Misbehaved(NodeId, String),
    /// This worker cannot go on, most likely for want of disk: the link must end, and everything begins anew.
    Unwell(NodeId, String),
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
    /// The slot that is free now, by the worker's own number; None: a probe, which takes none.
    #[serde(skip)]
    pub run: Option<u64>,
}

/// Commands for a guest's thread.
pub enum Command {
    /// A frame of the submitter: delta, probe, mirror query, toolchain offer.
    Frame(frame::Kind),
    /// A job that has a slot. The run names it between node and guest, because a submitter that starts anew uses its own
    /// numbers again; [`GuestEvent::Finished`] follows exactly once.
    Run(u64, Box<pool::Job>),
    /// Nobody wants this run any more.
    Kill(u64),
    /// A piece of a blob.
    Chunk(pool::Chunk),
    /// The submitter has a new connection: earlier jobs are void.
    Connected(Outlet),
    /// The connection is gone: kill its jobs, keep the mirror.
    Disconnected,
    /// Stop or resume every job at once.
    Freeze(bool),
    /// A job's thread has finished.
    Finished(Box<Finished>),
    /// Forget the mirror.
    Forget,
    /// The node ends.
    Quit,
}

/// What a job's thread found.
pub struct Finished {
    run: u64,
    result: pool::Result,
    touched: Touched,
    lower_written: Vec<Vec<u8>>,
    poison_written: Vec<u64>,
    large: Vec<(u64, Vec<u8>)>,
}

/// A job at the runner, under a number of this guest: a submitter that connects anew may use its own numbers again.
struct Running {
    id: u64,
    /// The node's number of its slot.
    slot: Option<u64>,
    /// Held until its processes are gone.
    _layers: Vec<Layers>,
    source: String,
    probe: bool,
    /// The node knows that it is over.
    told: bool,
}

/// Which job a line of the log is about.
struct About {
    id: u64,
    slot: Option<u64>,
    source: String,
    probe: bool,
}

/// A content on its way to the mirror.
enum Blob {
    /// It is written aside, hashed, and limited to what it announced.
    Coming { digest: Digest, total: u64, staged: PathBuf, sink: Sink },
    /// It failed and was answered; what is still on its way is dropped.
    Failed,
}

enum Sink {
    Packed(Box<zstd::stream::write::Decoder<'static, HashingFile>>),
    Plain(Box<HashingFile>),
}

impl Blob {
    fn total(&self) -> u64 {
        match self {
            Blob::Coming { total, .. } => *total,
            Blob::Failed => 0,
        }
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if let Blob::Coming { staged, .. } = self {
            // Not there any more if it was stored.
            let _ = fs::remove_file(staged);
        }
    }
}

/// A file that is hashed and limited while it is written.
struct HashingFile {
    file: fs::File,
    hasher: blake3::Hasher,
    written: u64,
    max: u64,
}

impl Write for HashingFile {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if self.written + data.len() as u64 > self.max {
            return Err(std::io::Error::other("more than it announced"));
        }
        let written = self.file.write(data)?;
        self.hasher.update(&data[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
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
}

/// A handle to a guest's thread.
pub struct Guest {
    commands: mpsc::Sender<Command>,
    /// Bytes of its mirror; the largest number: not opened yet.
    mirror_bytes: Arc<AtomicU64>,
}

impl Guest {
    /// Starts the thread. It opens the mirror at the first command that needs it.
    pub fn start(peer: NodeId, settings: GuestSettings, events: Events) -> Self {
        let (tx, rx) = mpsc::channel();
        let own = tx.clone();
        let mirror_bytes = Arc::new(AtomicU64::new(u64::MAX));
        let told_bytes = Arc::clone(&mirror_bytes);
        std::thread::Builder::new()
            .name("guest".into())
            .spawn(move || {
                let _farewell = Farewell { peer, events: Arc::clone(&events) };
                let mut thread = Thread {
                    peer,
                    settings,
                    events,
                    commands: own,
                    speaker: None,
                    mirror: None,
                    sandbox: None,
                    running: HashMap::new(),
                    blobs: HashMap::new(),
                    next_run: 1,
                    next_transfer: 1,
                };
                while let Ok(command) = rx.recv() {
                    if matches!(command, Command::Quit) {
                        break;
                    }
                    if let Err(error) = thread.take(command) {
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
        Self { commands: tx, mirror_bytes }
    }

    /// Bytes of its mirror, if that was opened.
    pub fn mirror_bytes(&self) -> Option<u64> {
        Some(self.mirror_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes != u64::MAX)
    }

    /// Hands over a command.
    pub fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
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
}

impl Drop for Farewell {
    fn drop(&mut self) {
        (self.events)(GuestEvent::Over(self.peer));
    }
}

struct Thread {
    peer: NodeId,
    settings: GuestSettings,
    events: Events,
    commands: mpsc::Sender<Command>,
    /// None: nobody is connected, or a rule was broken, and nothing is taken or said until the next connection.
    speaker: Option<Speaker>,
    mirror: Option<Mirror>,
    sandbox: Option<Arc<Sandbox>>,
    running: HashMap<u64, Running>,
    blobs: HashMap<u64, Blob>,
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
                self.sandbox = None;
                mirror.clear()
            }
            // What is on the disk may differ from what is known of it.
            (MirrorError::Io(_), Some(_)) => {
                self.sandbox = None;
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
        self.stop_all();
        self.blobs.clear();
        self.speaker = None;
        // Their submitter is gone: the node counts their slots as free, and must hear of each exactly once.
        let ended: Vec<u64> = self.running.iter().filter(|(_, r)| !r.told).map(|(run, _)| *run).collect();
        for run in ended {
            if let Some(running) = self.running.get_mut(&run) {
                running.told = true;
                let told =
                    About { id: running.id, slot: running.slot, source: running.source.clone(), probe: running.probe };
                self.log(told, "killed", 0, &pool::Result::default(), 0);
            }
        }
    }

    fn take(&mut self, command: Command) -> Result<(), MirrorError> {
        match command {
            Command::Connected(outlet) => {
                self.end_session();
                if let Some(mirror) = &mut self.mirror {
                    mirror.drop_blobs()?;
                }
                self.speaker = Some(Speaker::start(outlet)?);
            }
            Command::Disconnected => self.end_session(),
            Command::Freeze(stop) => {
                if let Some(sandbox) = &self.sandbox {
                    for &id in self.running.keys() {
                        let message = if stop { ToRunner::Stop(id) } else { ToRunner::Resume(id) };
                        let _ = sandbox.tell(&message);
                    }
                }
            }
            Command::Finished(finished) => self.finished(*finished)?,
            Command::Forget => {
                self.stop_all();
                self.sandbox = None;
                if let Some(mirror) = &mut self.mirror {
                    mirror.clear()?;
                }
            }
            Command::Chunk(_) | Command::Frame(frame::Kind::Delta(_) | frame::Kind::MirrorQuery(_))
                if self.speaker.is_none() => {}
            Command::Chunk(chunk) => self.chunk(chunk)?,
            Command::Run(slot, job) => self.admitted(Some(slot), *job)?,
            Command::Kill(slot) => {
                let run = self.running.iter().find(|(_, r)| r.slot == Some(slot));
                if let (Some(sandbox), Some((&run, _))) = (&self.sandbox, run) {
                    let _ = sandbox.tell(&ToRunner::Kill(run));
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
            frame::Kind::Delta(delta) => {
                let ops = unpack_delta(&delta)?;
                self.mirror()?.apply(&ops)
            }
            frame::Kind::Job(job) => self.admitted(None, job),
            _ => Ok(()),
        }
    }

    /// A job that may run now. Whatever comes of it, the node hears of its end once.
    fn admitted(&mut self, slot: Option<u64>, job: pool::Job) -> Result<(), MirrorError> {
        let about = About { id: job.id, slot, source: source_of(&job), probe: job.discard_outputs || job.probe };
        if self.speaker.is_none() {
            self.log(about, "refused", 0, &pool::Result::default(), 0);
            return Ok(());
        }
        let id = job.id;
        if let Err(error) = self.job(slot, job) {
            let reason = match error {
                MirrorError::Full(_) => "disk-full",
                MirrorError::Refused(_) => "policy",
                MirrorError::Io(_) => "sandbox-unavailable",
            };
            self.log(about, "refused", 0, &pool::Result::default(), 0);
            self.refuse(id, reason, &error.to_string())?;
        }
        Ok(())
    }

    fn mirror(&mut self) -> Result<&mut Mirror, MirrorError> {
        if self.mirror.is_none() {
            let base = self.settings.mirrors.join(self.peer.to_string());
            self.mirror = Some(Mirror::open(&base, self.settings.quota_bytes)?);
        }
        Ok(self.mirror.as_mut().expect("just opened"))
    }

    fn sandbox(&mut self) -> Result<Arc<Sandbox>, MirrorError> {
        if let Some(sandbox) = self.sandbox.as_ref().filter(|s| s.is_alive()) {
            return Ok(Arc::clone(sandbox));
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
        self.sandbox = Some(Arc::clone(&sandbox));
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
            self.say(Word::Bulk(transfer, raw))?;
        }
        let trap = trap.to_owned();
        let state = pool::MirrorState { transfer, raw_bytes, toolchains: Vec::new(), trap };
        self.say(Word::Frame(frame::Kind::MirrorState(state)))
    }

    fn say(&self, word: Word) -> Result<(), MirrorError> {
        self.speaker.as_ref().map_or(Ok(()), |speaker| speaker.say(word))
    }

    fn job(&mut self, slot: Option<u64>, job: pool::Job) -> Result<(), MirrorError> {
        let started = Instant::now();
        let probes = self.running.values().filter(|r| r.probe).count();
        if job.probe && probes >= PROBES_MAX || self.running.len() >= JOBS_PER_PEER_MAX {
            return Err(MirrorError::Refused(format!("{} jobs at a time are too many", self.running.len() + 1)));
        }
        if job.outputs.len() > OUTPUT_DIRS_MAX {
            return Err(MirrorError::Refused(format!("{} output directories", job.outputs.len())));
        }
        let limits = self.settings.limits;
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
        };
        let output_paths: Vec<Vec<u8>> = runner_job.outputs.iter().map(|o| o.path.clone()).collect();
        let id = job.id;
        let sandbox = self.sandbox()?;
        let (mut stream, touched) = sandbox.run(runner_job)?;
        let probe = job.discard_outputs || job.probe;
        self.running.insert(run, Running { id, slot, _layers: layers, source, probe, told: false });
        let commands = self.commands.clone();
        let transfer_base = self.next_transfer;
        self.next_transfer += limits.output_files;
        std::thread::Builder::new().name("job".into()).stack_size(256 << 10).spawn(move || {
            let read = read_report(&mut stream);
            // A sandbox that ended before it told what was touched: nobody knows what the report is worth.
            let read = read.and_then(|report| match touched.recv() {
                Ok(touched) => Ok((report, touched)),
                Err(_) => Err(std::io::Error::other("before it told what the job touched")),
            });
            let mut finished = match read {
                Ok(((report, contents), touched)) => Finished {
                    touched,
                    ..digest_report(run, id, report, contents, &order, &output_paths, transfer_base)
                },
                Err(error) => Finished::not_started(run, id, format!("the sandbox ended: {error}")),
            };
            finished.result.wall_us = started.elapsed().as_micros() as u64;
            let _ = commands.send(Command::Finished(Box::new(finished)));
        })?;
        Ok(())
    }

    fn finished(&mut self, finished: Finished) -> Result<(), MirrorError> {
        let Finished { run, mut result, touched, lower_written, poison_written, large } = finished;
        let Some(running) = self.running.remove(&run) else { return Ok(()) };
        if running.told {
            return Ok(());
        }
        let id = running.id;
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
        let about = About { id, slot: running.slot, source: running.source, probe: running.probe };
        self.log(about, end, value, &result, touched.faults.len());
        for (transfer, content) in large {
            self.say(Word::Bulk(transfer, content))?;
        }
        self.say(Word::Frame(frame::Kind::Result(result)))
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

    fn stop_all(&mut self) {
        if let Some(sandbox) = &self.sandbox {
            for &run in self.running.keys() {
                let _ = sandbox.tell(&ToRunner::Kill(run));
            }
        }
    }

    fn chunk(&mut self, chunk: pool::Chunk) -> Result<(), MirrorError> {
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
            let blob = self.begin_blob(digest, &chunk);
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

    fn begin_blob(&mut self, digest: Digest, chunk: &pool::Chunk) -> Result<Blob, MirrorError> {
        let coming: u64 = self.blobs.values().map(Blob::total).sum();
        let mirror = self.mirror()?;
        mirror.check_room(coming + chunk.total)?;
        let staged = mirror.blob_path();
        let file = fs::OpenOptions::new().write(true).create_new(true).open(&staged)?;
        let plain = HashingFile { file, hasher: blake3::Hasher::new(), written: 0, max: chunk.total };
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

impl Finished {
    fn not_started(run: u64, id: u64, note: String) -> Self {
        let end = pool::EndKind::EndNotStarted as i32;
        Self {
            run,
            result: pool::Result { id, end, note, ..pool::Result::default() },
            touched: Touched::default(),
            lower_written: Vec::new(),
            poison_written: Vec::new(),
            large: Vec::new(),
        }
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

/// Sends a content as zstd on the bulk stream. False: the link is gone, or this node is out of memory.
fn send_bulk(outlet: &Outlet, transfer: u64, content: &[u8]) -> bool {
    let Ok(packed) = core_content::pack_bulk(content) else { return false };
    let packed = prost::bytes::Bytes::from(packed);
    let (mut at, mut total) = (0, content.len() as u64);
    while at < packed.len() {
        let end = packed.len().min(at + BULK_CHUNK_BYTES);
        let chunk = pool::Chunk {
            transfer,
            data: packed.slice(at..end),
            last: end == packed.len(),
            digest: Vec::new(),
            // The first one says it.
            total: std::mem::take(&mut total),
            zstd: true,
            blob: false,
        };
        at = end;
        if outlet.bulk.blocking_send(chunk).is_err() {
            return false;
        }
    }
    true
}
