//! A compile once more on this PC: this node is its own worker then, with a mirror and a sandbox of its own like those that it
//! keeps for others. So the same bytes are read at the same paths, and nothing of the person's folders is written.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use potluck_model::ids::Digest;
use potluck_model::limits::{BULK_CHUNK_BYTES, FAULT_RETRIES_MAX, JobLimits};
use potluck_model::trust::At;
use potluck_wire::pool::{self, Chunk, DeltaOps, frame};
use prost::Message;
use tokio::sync::mpsc;

use super::super::arrivals::Arrivals;
use super::super::{Core, Event};
use super::{Active, Case, Doing, News, seen};
use crate::guest::{Command, Guest, GuestEvent, GuestSettings, Outlet};
use crate::image::{Image, Missing};
use crate::root::Root;
use crate::tree::{Found, Record};

/// A sandbox that did nothing for this long ends.
const REST: Duration = Duration::from_secs(120);
/// One that could not be had is tried again after this.
const AGAIN: Duration = Duration::from_secs(600);
/// Everything of a run: the limit of a job, and what must be copied first.
const LATE: Duration = Duration::from_secs(15 * 60);
/// Deltas above this go in parts: a guest counts the operations of each.
const DELTA_BYTES_MAX: usize = 1 << 20;
/// Disk for it: some compilers and the headers of some projects. Beyond it the mirror begins anew.
const HERE_BYTES_MAX: u64 = 4 << 30;
/// Pieces of a file that wait for the guest's thread.
const PIECES: usize = 16;
/// Frames on their way from the guest; it waits for the core beyond that.
const FRAMES: usize = 64;

/// What the sandbox here says.
pub enum Word {
    Frame(frame::Kind),
    Chunk(Chunk),
    /// It is over.
    Gone(String),
}

/// This node as its own worker.
#[derive(Default)]
pub(super) struct Here {
    bench: Option<Bench>,
    sessions: u64,
    not_before: Duration,
}

struct Bench {
    session: u64,
    guest: Arc<Guest>,
    image: Image,
    is_ready: bool,
    arrivals: Arrivals,
    state_transfer: Option<u64>,
    uploading: HashSet<Digest>,
    delta_seq: u64,
    run: u64,
    tries: u32,
    sent_in: u64,
    gone: Vec<Vec<u8>>,
    used_at: Duration,
    /// A result whose large outputs are still coming.
    held: Option<Box<pool::Result>>,
}

impl Core {
    /// Whether a compile can be done here at all, as far as is known.
    pub(super) fn can_run_here(&self) -> bool {
        // What holds back help for others holds back this too.
        let is_held = matches!(self.sharing.code(), "battery" | "cpu_busy" | "memory" | "disk");
        self.settings.allow_fuse && !is_held && self.now() >= self.audit.here.not_before
    }

    pub(super) fn run_case_here(&mut self, case: Box<Case>) {
        self.audit.active = Some(Active { case, doing: Doing::Here });
        let now = self.now();
        if let Some(bench) = &mut self.audit.here.bench {
            (bench.used_at, bench.tries, bench.held) = (now, 0, None);
            bench.gone.clear();
            if bench.is_ready {
                self.here_goes_on();
            }
            return;
        }
        self.audit.here.sessions += 1;
        let session = self.audit.here.sessions;
        let settings = GuestSettings {
            mirrors: self.settings.dirs.cache.join("audit"),
            quota_bytes: self.settings.quota_bytes.min(HERE_BYTES_MAX),
            limits: JobLimits::default(),
            allow_fuse: true,
            signer: None,
            room: Arc::default(),
            idle: Arc::default(),
        };
        let me = self.membership.identity().id();
        let said = self.say_of(session);
        let told = Arc::clone(&said);
        let guest = Guest::start(
            me,
            settings,
            Arc::new(move |event| match event {
                GuestEvent::Finished(_) | GuestEvent::Laden(..) | GuestEvent::Looked(..) => {}
                GuestEvent::Misbehaved(_, why) | GuestEvent::Unwell(_, why) => told(Word::Gone(why)),
                GuestEvent::Over(_) => told(Word::Gone("its thread is over".to_owned())),
            }),
        );
        let (control, mut frames) = mpsc::channel(FRAMES);
        let (bulk, mut chunks) = mpsc::channel(FRAMES);
        let chunk_said = Arc::clone(&said);
        self.runtime.spawn(async move {
            while let Some(pool::Frame { kind: Some(kind) }) = frames.recv().await {
                said(Word::Frame(kind));
            }
        });
        self.runtime.spawn(async move {
            while let Some(chunk) = chunks.recv().await {
                chunk_said(Word::Chunk(chunk));
            }
        });
        guest.tell(Command::Connected(Outlet { control, bulk }));
        guest.tell(Command::Frame(frame::Kind::MirrorQuery(pool::MirrorQuery {})));
        self.audit.here.bench = Some(Bench {
            session,
            guest: Arc::new(guest),
            image: Image::new(),
            is_ready: false,
            arrivals: Arrivals::default(),
            state_transfer: None,
            uploading: HashSet::new(),
            delta_seq: 0,
            run: 0,
            tries: 0,
            sent_in: 0,
            gone: Vec::new(),
            used_at: now,
            held: None,
        });
    }

    fn say_of(&self, session: u64) -> Arc<dyn Fn(Word) + Send + Sync> {
        let events = self.events.clone();
        Arc::new(move |word| drop(events.send(Event::Audit(News::Here(session, Box::new(word))))))
    }

    pub(super) fn here_says(&mut self, session: u64, word: Word) {
        let Some(bench) = self.audit.here.bench.as_mut().filter(|bench| bench.session == session) else { return };
        match word {
            Word::Frame(frame::Kind::MirrorState(state)) => match (&state.trap[..], state.transfer) {
                ("fuse", 0) => self.here_adopts(&DeltaOps::default()),
                ("fuse", transfer) => {
                    bench.state_transfer = Some(transfer);
                    self.here_arrived();
                }
                // Without it a lookup that went wrong might be taken for a difference.
                _ => self.here_fails("there is no sandbox with FUSE"),
            },
            Word::Frame(frame::Kind::BlobStored(stored)) => {
                let Ok(digest) = Digest::try_from(&stored.digest[..]) else { return };
                if !stored.error.is_empty() {
                    return self.here_fails(&stored.error);
                }
                bench.uploading.remove(&digest);
                bench.image.stored(digest);
                if bench.uploading.is_empty() {
                    self.here_goes_on();
                }
            }
            Word::Frame(frame::Kind::Result(result)) if result.id == bench.run => {
                bench.held = Some(Box::new(result));
                self.here_arrived();
            }
            Word::Frame(frame::Kind::Refused(refused)) => self.here_fails(&refused.note),
            Word::Frame(_) => {}
            Word::Chunk(chunk) => match bench.arrivals.chunk(&chunk) {
                Ok(_) => self.here_arrived(),
                Err(why) => self.here_fails(&format!("{why:?}")),
            },
            Word::Gone(why) => self.here_fails(&why),
        }
    }

    /// Something large came: perhaps what was waited for is whole now.
    fn here_arrived(&mut self) {
        let Some(bench) = &mut self.audit.here.bench else { return };
        if let Some(transfer) = bench.state_transfer
            && let Some(raw) = bench.arrivals.take(transfer)
        {
            bench.state_transfer = None;
            return match DeltaOps::decode(&raw[..]) {
                Ok(state) => self.here_adopts(&state),
                Err(_) => self.here_fails("its mirror cannot be read"),
            };
        }
        let large = |result: &pool::Result| -> Vec<u64> {
            result.outputs.iter().map(|o| o.transfer).filter(|t| *t != 0).collect()
        };
        let is_whole = bench.held.as_ref().is_some_and(|r| large(r).iter().all(|t| bench.arrivals.has(*t)));
        if is_whole && let Some(result) = bench.held.take() {
            let arrivals = &mut bench.arrivals;
            let content = |output: &pool::Harvested| match output.transfer {
                0 => crate::core_content::inline(output),
                transfer => arrivals.take(transfer),
            };
            let contents = result.outputs.iter().map(content).collect();
            self.here_ran(&result, contents);
        }
    }

    fn here_adopts(&mut self, state: &DeltaOps) {
        let Some(bench) = &mut self.audit.here.bench else { return };
        let delta = bench.image.adopt(&mut self.tree, state);
        bench.is_ready = true;
        bench.send(delta.ops);
        self.here_goes_on();
    }

    /// The next step of the case that is run here: what its sandbox lacks, then the job.
    fn here_goes_on(&mut self) {
        let Some(Active { case, doing: Doing::Here }) = &self.audit.active else { return };
        let seed = &case.seed;
        let (toolchain, config, want, before) = (seed.toolchain, seed.config, Arc::clone(&seed.want), seed.fingerprint);
        let mut message = case.answers[0].asked.clone();
        let same_env = seed.env() == message.env;
        let (closure, fingerprint) = self.tree.closure_expected(config, &want);
        let is_same = fingerprint == before && same_env;
        let Some(tools) = self.toolchain_closure(toolchain).filter(|_| is_same) else {
            return self.give_up("its inputs have changed");
        };
        let sent_in = self.tree.batch();
        let closures = [&tools, &closure];
        let Some(bench) = &mut self.audit.here.bench else { return };
        let missing = bench.image.missing(&self.tree, &closures);
        if !missing.is_empty() {
            bench.uploading = missing.iter().map(|(_, digest)| *digest).collect();
            return self.here_uploads(missing);
        }
        let gone = std::mem::take(&mut bench.gone);
        let delta = bench.image.delta(&mut self.tree, &closures, &gone);
        bench.send(delta.ops);
        bench.run += 1;
        bench.sent_in = sent_in;
        message.id = bench.run;
        bench.guest.tell(Command::Run(bench.run, Box::new(message)));
    }

    fn here_uploads(&self, missing: Missing) {
        let Some(bench) = &self.audit.here.bench else { return };
        let said = self.say_of(bench.session);
        let (guest, root) = (Arc::clone(&bench.guest), self.tree.root());
        let files: Vec<_> = missing
            .into_iter()
            .enumerate()
            .map(|(n, (file, digest))| (n as u64 + 1, self.tree.file_path(file), self.tree.file(file).size, digest))
            .collect();
        self.runtime.spawn_blocking(move || {
            for (transfer, path, size, digest) in files {
                if let Err(error) = copy(&guest, &root, transfer, &path, size, digest) {
                    return said(Word::Gone(format!("{}: {error}", path.display())));
                }
            }
        });
    }

    /// A run here is over.
    fn here_ran(&mut self, result: &pool::Result, contents: Vec<Option<Vec<u8>>>) {
        let Some(Active { case, doing: Doing::Here }) = &self.audit.active else { return };
        let Some(bench) = &mut self.audit.here.bench else { return };
        let (config, want, before) = (case.seed.config, Arc::clone(&case.seed.want), case.seed.fingerprint);
        let number = case.number;
        let same_env = case.seed.env() == case.answers[0].asked.env;
        bench.tries += 1;
        let (tries, since) = (bench.tries, bench.sent_in + 1);
        if !same_env || self.tree.closure_since(config, &want, since).1 != before || !self.has_same_tools() {
            return self.give_up("its inputs have changed");
        }
        let is_faulted = !result.faults.is_empty() || !result.written.is_empty() || result.faults_overflow;
        if is_faulted {
            if tries > FAULT_RETRIES_MAX || result.faults.is_empty() || result.faults_overflow {
                return self.give_up("it needs more files than are known");
            }
            self.here_learns(config, &result.faults);
            return self.here_goes_on();
        }
        if result.end != pool::EndKind::EndExited as i32 {
            return self.give_up("it did not end by itself here");
        }
        if let Some(active) = &mut self.audit.active {
            active.doing = Doing::Reading;
        }
        let (result, events) = (super::without_contents(result), self.events.clone());
        self.runtime.spawn_blocking(move || {
            let digests: Vec<_> = contents.iter().map(|c| c.as_deref().map(Digest::of)).collect();
            let _ = events.send(Event::Audit(News::Ran(number, At::Here, seen(&result, &digests))));
        });
    }

    /// Files that the compile asked for. It is this PC's own compiler: all of them may be given.
    fn here_learns(&mut self, config: crate::tree::ConfigId, faults: &[Vec<u8>]) {
        let mut gone = Vec::new();
        for path in faults {
            let found: Option<Found> = self.tree.resolve(0, path, &mut Record::default());
            if found.is_some() || self.exists(path) {
                self.tree.learn(config, path.clone());
            } else {
                gone.push(path.clone());
            }
        }
        if let Some(bench) = &mut self.audit.here.bench {
            bench.gone = gone;
        }
        if let Some(mut active) = self.audit.active.take() {
            self.learn_more(&mut active.case.seed);
            self.audit.active = Some(active);
        }
    }

    /// Nothing can be compiled here for now.
    fn here_fails(&mut self, why: &str) {
        crate::log::warn(&format!("a result cannot be compiled again on this PC: {why}"));
        self.audit.here.bench = None;
        self.audit.here.not_before = self.now() + AGAIN;
        if matches!(&self.audit.active, Some(Active { doing: Doing::Here, .. })) {
            self.try_later();
        }
    }

    /// Nothing is to be done: the sandbox ends after a while.
    pub(super) fn here_rests(&mut self, now: std::time::Duration) {
        let rests = |bench: &Bench| now.saturating_sub(bench.used_at) >= REST;
        if self.audit.here.bench.as_ref().is_some_and(rests) {
            self.audit.here.bench = None;
        }
    }

    /// A run here that does not end is given up.
    pub(super) fn here_late(&mut self, now: std::time::Duration) {
        let is_here = matches!(&self.audit.active, Some(Active { doing: Doing::Here, .. }));
        if is_here && self.audit.here.bench.as_ref().is_none_or(|b| now.saturating_sub(b.used_at) >= LATE) {
            self.here_fails("it takes too long");
        }
    }
}

impl Bench {
    fn send(&mut self, ops: DeltaOps) {
        let (mut part, mut size) = (DeltaOps::default(), 0);
        let mut dirs = ops.dirs.into_iter().peekable();
        while let Some(dir) = dirs.next() {
            size += dir.encoded_len();
            part.dirs.push(dir);
            if size > DELTA_BYTES_MAX || dirs.peek().is_none() {
                self.delta_seq += 1;
                let ops = std::mem::take(&mut part).encode_to_vec();
                let delta = pool::Delta { seq: self.delta_seq, ops, raw_bytes: 0 };
                self.guest.tell(Command::Frame(frame::Kind::Delta(delta)));
                size = 0;
            }
        }
    }
}

/// Hands a file to the guest, in pieces as they come over a link.
fn copy(guest: &Guest, root: &Root, transfer: u64, path: &Path, size: u64, digest: Digest) -> std::io::Result<()> {
    let (mut file, _) = crate::tree::open_regular(root, path).map_err(|e| std::io::Error::other(e.to_string()))?;
    let (mut left, mut first) = (size, true);
    // No more of it waits in memory than of what comes over a link.
    let places = Arc::new(tokio::sync::Semaphore::new(PIECES));
    let runtime = tokio::runtime::Handle::current();
    loop {
        let mut data = vec![0; (BULK_CHUNK_BYTES as u64).min(left) as usize];
        file.read_exact(&mut data)?;
        left -= data.len() as u64;
        let digest = if first { digest.0.to_vec() } else { Vec::new() };
        let total = if first { size } else { 0 };
        first = false;
        let chunk = Chunk { transfer, data: data.into(), last: left == 0, digest, total, zstd: false, blob: true };
        let place = runtime.block_on(Arc::clone(&places).acquire_owned()).ok();
        guest.tell(Command::Chunk(chunk, place));
        if left == 0 {
            return Ok(());
        }
    }
}
