//! Jobs into builds as they happen. A job costs two system calls (its process group and session), its row and nothing
//! that waits; /proc is read once for each process group, and for each directory outside the one that its driver runs in.
//! What the history keeps is written by a thread of its own, once a second.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use potluck_api::view::Done;
use potluck_api::view::OpenRequest;
use potluck_model::builds::{self, Counts, End, Groups, Job as Row, Key, Kind, Origin, Root, report};
use potluck_model::ids::{JobId, NodeId};
use potluck_model::limits::{BUILD_JOBS_MAX, BUILDS_OPEN_MAX};
use potluck_model::notify::{Ended, Happened, clock};
use potluck_model::reason::{Class, Reason};
use potluck_wire::{ipc, pool};
use rustc_hash::{FxHashMap, FxHasher};
use tokio::sync::mpsc;

use super::job::Job;
use super::snapshot::shown_name;
use super::submit::Ask;
use super::view::name_of;
use super::{ConnId, Core, Event, Replies};
use crate::builds::store::Store;
use crate::builds::{MachinePart, Meta, project, root};
use crate::bytes;
use crate::dirs::Dirs;
use crate::notify::Notifier;

/// How often builds are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often what is new of an open build is handed to the history: each time waits for the disk on another thread. A
/// node that is killed forgets this much; one that ends, and a build that ends, hand over at once.
const KEEP_EVERY: Duration = Duration::from_secs(5);
/// After `potluck run` said that its command ended, connections of its last compilers may still be closing.
const LAST_JOBS_WITHIN: Duration = Duration::from_secs(1);
/// Groups and directories whose root is remembered; a build of Wine has 1000 directories.
const KNOWN_MAX: usize = 16_384;
/// Builds that are kept in memory, without their jobs.
const PAST_MAX: usize = 2000;
/// Longest command that is kept.
const COMMAND_CHARS_MAX: usize = 200;

/// What an ask knows of its build.
#[derive(Default)]
pub(crate) struct Mark {
    build: Key,
    /// When it was known what it needs.
    pub(crate) ready_at: Duration,
    /// Parts that were compiled elsewhere; they count when the last is.
    rows: Vec<Elsewhere>,
}

struct Elsewhere {
    row: Row,
    peer: NodeId,
    bytes: (u64, u64),
    from: Duration,
}

/// A compiler that runs here.
struct LocalRun {
    build: Key,
    began: Duration,
    row: Row,
    reason: Reason,
}

/// `potluck run`, which waits.
struct Run {
    conn: ConnId,
    replies: Replies,
}

/// Its command ended.
struct Ending {
    exit: i32,
    replies: Replies,
    at_latest: Duration,
}

/// A build that goes on.
pub(super) struct Building {
    pub(super) meta: Meta,
    pub(super) began: Duration,
    pub(super) jobs: Vec<Row>,
    /// Rows that the history has.
    handed: usize,
    is_new: bool,
    machines: FxHashMap<NodeId, u16>,
    reasons: FxHashMap<Reason, u16>,
    /// Sources whose last job failed.
    broken: HashSet<String>,
    /// Somebody built something, instead of only testing what the compiler can do.
    is_real: bool,
    run: Option<Run>,
    ending: Option<Ending>,
}

/// Programs that run builds in one process group, by the directory that each runs in.
type Drivers = Vec<(Vec<u8>, Root)>;

/// Everything of builds that the core knows.
pub(crate) struct Builds {
    groups: Groups,
    pub(super) open: HashMap<Key, Building>,
    pub(super) past: VecDeque<Meta>,
    /// Calls that came before the history was read.
    pub(super) early: Option<Vec<(ConnId, potluck_api::call::Call, Replies)>>,
    pub(super) store: Store,
    /// Roots by process group, session and a digest of the directory.
    known: FxHashMap<(u32, u32, u64), Option<Root>>,
    /// Directories that drivers run in, by process group and session: what is compiled below one is known to be its.
    drivers: FxHashMap<(u32, u32), Drivers>,
    watched: HashSet<Root>,
    local: FxHashMap<ConnId, LocalRun>,
    notifier: Notifier,
    next_look: Duration,
    next_keep: Duration,
    /// The person looks at a window until then, if it does not say otherwise before.
    pub(super) looked_at_until: Option<Duration>,
    /// The last view that a notification asked for, and how many did.
    pub(crate) open_view: Option<OpenRequest>,
}

impl Builds {
    pub(super) fn new(dirs: &Dirs, events: &mpsc::UnboundedSender<Event>) -> Self {
        let (loaded, pruned) = (events.clone(), events.clone());
        let tell = move |metas| {
            let _ = loaded.send(Event::History(metas));
        };
        let store = Store::open(dirs.state.join("builds.redb"), tell, move |ids| {
            let _ = pruned.send(Event::HistoryGone(ids));
        });
        let clicked = events.clone();
        let notifier = Notifier::start(move |view| {
            let _ = clicked.send(Event::Open(view));
        });
        Self {
            groups: Groups::default(),
            open: HashMap::new(),
            past: VecDeque::new(),
            early: Some(Vec::new()),
            store,
            known: FxHashMap::default(),
            drivers: FxHashMap::default(),
            watched: HashSet::new(),
            local: FxHashMap::default(),
            notifier,
            looked_at_until: None,
            next_look: Duration::ZERO,
            next_keep: Duration::ZERO,
            open_view: None,
        }
    }

    /// Somebody clicked a notification: whoever watches opens the window there.
    pub(super) fn opened(&mut self, view: String) {
        crate::log::debug(|| format!("a notification asks for {view}"));
        let id = self.open_view.as_ref().map_or(1, |open| open.id + 1);
        self.open_view = Some(OpenRequest { id, view });
    }

    fn is_taken(&self, id: &str) -> bool {
        self.open.values().any(|b| b.meta.id == id) || self.past.iter().any(|m| m.id == id)
    }

    fn new_id(&self) -> String {
        loop {
            let id = builds::id_of(u64::from_le_bytes(crate::membership::codec::random()));
            if !self.is_taken(&id) {
                return id;
            }
        }
    }
}

fn ms(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// A path as it is shown of a build: below its directory without it.
fn shown(path: &Path, cwd: &str) -> String {
    path.strip_prefix(cwd).unwrap_or(path).to_string_lossy().into_owned()
}

/// Whether a directory is this one or below it.
fn is_below(dir: &[u8], above: &[u8]) -> bool {
    dir.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// A file of a command as it is shown; most are named from the build's own directory.
fn named(cwd: &[u8], file: &Path, build_cwd: &str) -> String {
    if file.is_relative() && cwd == build_cwd.as_bytes() {
        return file.to_string_lossy().into_owned();
    }
    shown(&bytes::path(cwd).join(file), build_cwd)
}

fn empty_row() -> Row {
    Row {
        start_ms: 0,
        took_ms: 0,
        kind: Kind::Remote,
        machine: 0,
        reason: 0,
        file: String::new(),
        wait_ms: 0,
        understand_ms: 0,
        travel_ms: 0,
        compile_ms: 0,
        finish_ms: 0,
        repeats: 0,
        exit: None,
        probe: false,
    }
}

impl Building {
    fn new(meta: Meta, began: Duration) -> Self {
        Self {
            meta,
            began,
            jobs: Vec::new(),
            handed: 0,
            is_new: true,
            machines: FxHashMap::default(),
            reasons: FxHashMap::default(),
            broken: HashSet::new(),
            is_real: false,
            run: None,
            ending: None,
        }
    }

    fn reason(&mut self, reason: Reason) -> u16 {
        if let Some(known) = self.reasons.get(&reason) {
            return *known;
        }
        let index = self.meta.reasons.len() as u16;
        self.meta.reasons.push(reason.to_string());
        self.reasons.insert(reason, index);
        index
    }

    fn keep(&mut self, row: Row) {
        self.meta.counts.add(row.kind);
        self.meta.repeated += u32::from(row.repeats);
        self.is_real |= !row.probe;
        let part = &mut self.meta.machines[usize::from(row.machine)];
        part.jobs += 1;
        part.time_ms += u64::from(row.took_ms);
        if row.kind == Kind::Failed && !row.probe {
            self.broken.insert(row.file.clone());
        } else if !self.broken.is_empty() {
            self.broken.remove(&row.file);
        }
        if self.jobs.len() < BUILD_JOBS_MAX {
            self.jobs.push(row);
        }
    }

    /// As of now.
    pub(super) fn meta_at(&self, now: Duration) -> Meta {
        let took_ms = now.saturating_sub(self.began).as_millis() as u64;
        Meta { took_ms, end: Some(End::Running), ..self.meta.clone() }
    }
}

impl Core {
    /// A job was asked for: its build.
    pub(super) fn build_asked(&mut self, compile: &ipc::Compile) -> Mark {
        let now = self.now();
        let run = bytes::env(&compile.env, "POTLUCK_BUILD_ID").and_then(builds::id_given);
        let group = if run.is_none() { root::group_of(compile.pid) } else { None };
        let root = group.and_then(|group| self.build_root(group, compile));
        let session = group.map_or(0, |g| g.1);
        let (key, is_new) = self.builds.groups.join(now, &Origin { run, root, session, cwd: &compile.cwd });
        if is_new {
            let cwd = bytes::show(&compile.cwd);
            let named = bytes::env(&compile.env, "POTLUCK_BUILD_NAME").map(String::from_utf8_lossy);
            let name = named.and_then(|n| builds::name_given(&n));
            let id = run.filter(|id| !self.builds.is_taken(id)).map_or_else(|| self.builds.new_id(), str::to_owned);
            self.build_begun(key, id, name, String::new(), cwd);
        }
        Mark { build: key, ..Mark::default() }
    }

    fn build_begun(&mut self, key: Key, id: String, name: Option<String>, command: String, cwd: String) {
        if self.builds.open.len() >= BUILDS_OPEN_MAX
            && let Some(oldest) = self.builds.open.keys().min().copied()
        {
            self.builds.groups.close(oldest);
            self.build_over(oldest, false, None);
        }
        let home = std::env::var_os("HOME");
        let name = name.unwrap_or_else(|| project::name(Path::new(&cwd), home.as_deref().map(Path::new)));
        let meta = Meta {
            id,
            name,
            command,
            cwd,
            started_ms: Self::clock_us() / 1000,
            machines: vec![MachinePart { name: self.settings.name.clone(), ..MachinePart::default() }],
            reasons: vec![String::new()],
            ..Meta::default()
        };
        self.builds.open.insert(key, Building::new(meta, self.now()));
    }

    /// What the wrapper's build began with. /proc is read for the first job of a process group, and again only for
    /// directories outside the one that its driver runs in: where nobody makes groups (scripts, editors) the directory
    /// tells two builds apart that run at the same time. A make that starts itself in a thousand folders is one.
    fn build_root(&mut self, group: (u32, u32), compile: &ipc::Compile) -> Option<Root> {
        let mut hasher = FxHasher::default();
        compile.cwd.hash(&mut hasher);
        let place = (group.0, group.1, hasher.finish());
        if let Some(known) = self.builds.known.get(&place) {
            return *known;
        }
        if self.builds.known.len() >= KNOWN_MAX {
            self.builds.known.clear();
            self.builds.drivers.clear();
        }
        let drivers = self.builds.drivers.get(&group);
        let above = drivers.and_then(|all| all.iter().find(|(dir, _)| is_below(&compile.cwd, dir)));
        if let Some((_, root)) = above {
            self.builds.known.insert(place, Some(*root));
            return Some(*root);
        }
        let found = root::find(compile.pid);
        let root = found.as_ref().map(|f| f.0);
        if let Some((root, dir)) = found {
            let is_watched = self.watch_root(root);
            if let Some(dir) = dir.filter(|dir| is_watched && dir.len() > 1) {
                let drivers = self.builds.drivers.entry(group).or_default();
                if !drivers.iter().any(|(_, known)| *known == root) {
                    drivers.push((dir, root));
                }
            }
        }
        self.builds.known.insert(place, root);
        root
    }

    /// Hears of the end of a root, once for each. False: it cannot be heard of.
    fn watch_root(&mut self, root: Root) -> bool {
        if self.builds.watched.contains(&root) {
            return true;
        }
        let Some(fd) = root::watch(root) else { return false };
        self.builds.watched.insert(root);
        let events = self.events.clone();
        self.runtime.spawn(async move {
            // A pidfd becomes readable when its process has ended.
            if let Ok(fd) = crate::ipc::register(fd, tokio::io::Interest::READABLE) {
                let _ = fd.readable().await;
            }
            let _ = events.send(Event::RootEnded(root));
        });
        true
    }

    pub(super) fn build_root_ended(&mut self, root: Root) {
        self.builds.watched.remove(&root);
        self.builds.known.retain(|_, known| *known != Some(root));
        self.builds.drivers.retain(|_, all| {
            all.retain(|(_, r)| *r != root);
            !all.is_empty()
        });
        let now = self.now();
        self.builds.groups.root_ended(root, now);
    }

    /// A part was compiled elsewhere and its outputs are in place.
    pub(super) fn build_remote(&mut self, job: &Job, source: &Path, peer: NodeId, result: &pool::Result) {
        let now = self.now();
        let Some(ask) = self.asks.get_mut(&job.ask) else { return };
        let Some(build) = self.builds.open.get_mut(&ask.mark.build) else { return };
        let asked = ask.asked_at.saturating_duration_since(self.started);
        let there = job.result_at.saturating_sub(job.placed_at);
        let compile = Duration::from_micros(result.wall_us).min(there);
        let row = Row {
            start_ms: ms(job.placed_at.saturating_sub(build.began)),
            took_ms: ms(now.saturating_sub(job.placed_at)),
            kind: if result.value == 0 { Kind::Remote } else { Kind::Failed },
            file: shown(source, &build.meta.cwd),
            wait_ms: ms(job.placed_at.saturating_sub(ask.mark.ready_at)),
            understand_ms: ms(ask.mark.ready_at.saturating_sub(asked)),
            travel_ms: ms(there - compile),
            compile_ms: ms(compile),
            finish_ms: ms(now.saturating_sub(job.result_at)),
            repeats: job.lost.min(255) as u8,
            exit: Some(result.value),
            ..empty_row()
        };
        if let Some(compiler) = &ask.compiler
            && !build.meta.toolchains.contains(&compiler.version)
        {
            build.meta.toolchains.push(compiler.version.clone());
        }
        let bytes = (job.bytes_up, job.bytes_down);
        ask.mark.rows.push(Elsewhere { row, peer, bytes, from: job.placed_at });
    }

    /// All parts were: they count.
    pub(super) fn build_parts_done(&mut self, mark: Mark) {
        let now = self.now();
        self.builds.groups.ended(mark.build, now, false);
        for Elsewhere { mut row, peer, bytes, from } in mark.rows {
            row.machine = self.build_machine(mark.build, peer);
            let Some(build) = self.builds.open.get_mut(&mark.build) else { return };
            row.start_ms = ms(from.saturating_sub(build.began));
            build.meta.bytes_up += bytes.0;
            build.meta.bytes_down += bytes.1;
            build.keep(row);
        }
        self.build_ending(mark.build);
    }

    fn build_machine(&mut self, key: Key, peer: NodeId) -> u16 {
        let Some(build) = self.builds.open.get_mut(&key) else { return 0 };
        if let Some(known) = build.machines.get(&peer) {
            return *known;
        }
        let name = self.peers.get(&peer).map_or_else(|| peer.short(), |p| name_of(p, peer));
        let index = build.meta.machines.len() as u16;
        build.meta.machines.push(MachinePart { id: peer.to_string(), name, ..MachinePart::default() });
        build.machines.insert(peer, index);
        index
    }

    /// A run elsewhere came to nothing; perhaps because the worker's owner took it back.
    pub(super) fn run_lost(&mut self, job: JobId, peer: NodeId, reason: &Reason) {
        let Some(job) = self.jobs.get_mut(&job) else { return };
        job.lost += 1;
        let Some(key) = self.asks.get(&job.ask).map(|a| a.mark.build) else { return };
        if *reason != Reason::PeerReclaimed {
            return;
        }
        let machine = self.build_machine(key, peer);
        if let Some(part) = self.builds.open.get_mut(&key).and_then(|b| b.meta.machines.get_mut(usize::from(machine))) {
            part.reclaimed += 1;
        }
    }

    /// A compiler begins to run here; `lost` runs elsewhere came to nothing.
    pub(super) fn build_local(&mut self, ask: &Ask, reason: &Reason, lost: u32) {
        let now = self.now();
        let Some(build) = self.builds.open.get(&ask.mark.build) else { return };
        let asked = ask.asked_at.saturating_duration_since(self.started);
        let ready = if ask.mark.ready_at.is_zero() { now } else { ask.mark.ready_at };
        let row = Row {
            start_ms: ms(now.saturating_sub(build.began)),
            kind: if reason.class() == Class::Only { Kind::Only } else { Kind::Here },
            file: file_of(ask, reason, &build.meta.cwd),
            wait_ms: ms(now.saturating_sub(ready)),
            understand_ms: ms(ready.saturating_sub(asked)),
            repeats: lost.min(255) as u8,
            probe: *reason == Reason::Probe,
            ..empty_row()
        };
        let run = LocalRun { build: ask.mark.build, began: now, row, reason: reason.clone() };
        self.builds.local.insert(ask.conn, run);
    }

    /// How a compile ended here, and whether that differs from how it ended elsewhere.
    pub(super) fn build_local_said(&mut self, conn: ConnId, exit: i32, differs: bool) {
        let Some(run) = self.builds.local.get_mut(&conn) else { return };
        run.row.exit = Some(exit);
        if differs {
            run.reason = Reason::RemoteErrorLocalOk;
        }
        // A probe that fails has found something out.
        if exit != 0 && !run.row.probe {
            run.row.kind = Kind::Failed;
        }
    }

    /// A job is refused: it fails.
    pub(super) fn build_refused(&mut self, ask: &Ask, reason: &Reason, exit: i32) {
        self.build_local(ask, reason, 0);
        if let Some(run) = self.builds.local.get_mut(&ask.conn) {
            run.row.kind = Kind::Failed;
            run.row.exit = Some(exit);
        }
        self.build_conn_gone(ask.conn);
    }

    /// A wrapper is gone before its job was done.
    pub(super) fn build_cut(&mut self, ask: &Ask) {
        let now = self.now();
        self.builds.groups.ended(ask.mark.build, now, true);
        self.build_ending(ask.mark.build);
    }

    /// A connection closed: the end of a compiler that ran here, or of a `potluck run` that was killed.
    pub(super) fn build_conn_gone(&mut self, conn: ConnId) {
        let now = self.now();
        let Some(mut run) = self.builds.local.remove(&conn) else {
            let is_of = |b: &Building| b.run.as_ref().is_some_and(|r| r.conn == conn);
            let gone = self.builds.open.iter().find(|(_, b)| is_of(b)).map(|(key, _)| *key);
            if let Some(key) = gone {
                self.builds.groups.close(key);
                self.build_over(key, true, None);
            }
            return;
        };
        self.builds.groups.ended(run.build, now, false);
        if let Some(build) = self.builds.open.get_mut(&run.build) {
            run.row.took_ms = ms(now.saturating_sub(run.began));
            run.row.compile_ms = run.row.took_ms;
            run.row.reason = build.reason(run.reason);
            build.keep(run.row);
        }
        self.build_ending(run.build);
    }

    /// `potluck run` begins.
    pub(super) fn build_begin(
        &mut self,
        conn: ConnId,
        name: Option<String>,
        argv: &[String],
        cwd: &Path,
        replies: Replies,
    ) {
        let id = self.builds.new_id();
        let cwd_bytes = bytes::of(cwd);
        let origin = Origin { run: Some(&id), root: None, session: 0, cwd: cwd_bytes };
        let now = self.now();
        let key = self.builds.groups.begin(now, &origin, true);
        let command: String = argv.join(" ").chars().filter(|c| !c.is_control()).take(COMMAND_CHARS_MAX).collect();
        let name = name.and_then(|n| builds::name_given(&n));
        self.build_begun(key, id.clone(), name, command, cwd.to_string_lossy().into_owned());
        let json = serde_json::json!({"id": id}).to_string();
        let _ = replies.send(ipc::Reply::Api { json, last: false });
        if let Some(build) = self.builds.open.get_mut(&key) {
            build.is_real = true;
            build.run = Some(Run { conn, replies });
        }
    }

    /// Its command ended. The report is the answer.
    pub(super) fn build_end(&mut self, id: &str, exit: i32, replies: Replies) {
        let at_latest = self.now() + LAST_JOBS_WITHIN;
        let found = self.builds.open.iter_mut().find(|(_, b)| b.meta.id == id && b.run.is_some());
        let Some((&key, build)) = found else {
            let error = format!("no build {id} goes on\nhint: potluck builds shows all");
            let json = serde_json::json!({"error": error}).to_string();
            let _ = replies.send(ipc::Reply::Api { json, last: true });
            return;
        };
        build.ending = Some(Ending { exit, replies, at_latest });
        self.build_ending(key);
    }

    /// Ends a build whose command has ended, when nothing of it runs any more or that takes too long.
    fn build_ending(&mut self, key: Key) {
        let now = self.now();
        let running = self.builds.groups.running(key);
        let Some(build) = self.builds.open.get_mut(&key) else { return };
        if build.ending.as_ref().is_none_or(|e| running > 0 && now < e.at_latest) {
            return;
        }
        let Some(Ending { exit, replies, .. }) = build.ending.take() else { return };
        self.builds.groups.close(key);
        let Some((meta, jobs)) = self.build_over(key, false, Some(exit)) else { return };
        let json = serde_json::to_string(&super::builds_view::report_of(&meta, &jobs)).unwrap_or_default();
        let _ = replies.send(ipc::Reply::Api { json, last: true });
    }

    /// A build is over: summed up, kept, told.
    fn build_over(&mut self, key: Key, cut: bool, exit: Option<i32>) -> Option<(Meta, Vec<Row>)> {
        let now = self.now();
        let mut build = self.builds.open.remove(&key)?;
        if let Some(run) = build.run.take() {
            let json = serde_json::to_string(&Done { ok: true }).unwrap_or_default();
            let _ = run.replies.send(ipc::Reply::Api { json, last: true });
        }
        if !build.is_real {
            // A configure script on its own, or somebody who asked the compiler something.
            return None;
        }
        let mut meta = build.meta_at(now);
        if exit.is_none() && !cut {
            // It ended with its last job, not when that was noticed.
            let last = build.jobs.iter().map(|j| u64::from(j.start_ms) + u64::from(j.took_ms)).max();
            meta.took_ms = last.unwrap_or(meta.took_ms).min(meta.took_ms);
        }
        meta.exit = exit;
        meta.end = Some(builds::end_of(exit, build.broken.len(), cut));
        let mut jobs = std::mem::take(&mut build.jobs);
        let fresh = jobs.split_off(build.handed.min(jobs.len()));
        jobs.extend(fresh.iter().cloned());
        jobs.sort_by_key(|j| j.start_ms);
        let speeds: Vec<Option<f64>> =
            meta.machines.iter().map(|m| self.submitter.speed_of(m.id.parse().ok()?)).collect();
        meta.alone_ms = report::alone_ms(&jobs, meta.took_ms, self.settings.local_slots, &speeds);
        self.builds.store.write(meta.clone(), fresh);
        let ended = match meta.end {
            Some(End::Ok) => Ended::Ok,
            Some(End::Failed) => Ended::Failed,
            _ => Ended::Cancelled,
        };
        let happened = Happened::Build {
            id: meta.id.clone(),
            name: meta.name.clone(),
            ended,
            took: Duration::from_millis(meta.took_ms),
            jobs: meta.counts.total(),
            remote: meta.counts.remote,
            failed: build.broken.len() as u32,
            first: jobs.iter().find(|j| build.broken.contains(&j.file)).map(|j| j.file.clone()),
            fell_back: report::fell_back(&jobs, &meta.reasons),
            watched: self.builds.looked_at_until.is_some_and(|until| now < until),
        };
        self.tell_person(happened);
        self.build_is_recent(&meta);
        if self.builds.past.len() >= PAST_MAX {
            self.builds.past.pop_front();
        }
        self.builds.past.push_back(meta.clone());
        Some((meta, jobs))
    }

    /// A row of what happened lately. One compile by hand is none, nor what the person stopped.
    fn build_is_recent(&mut self, meta: &Meta) {
        let how = match meta.end {
            Some(End::Ok) => "finished in",
            Some(End::Failed) => "failed after",
            _ => return,
        };
        if meta.counts.total() > 1 {
            let name = shown_name(&meta.name);
            let text = format!("{name} {how} {}", clock(Duration::from_millis(meta.took_ms)));
            self.recent(text, Some(format!("builds/{}", meta.id)));
        }
    }

    /// Something that the person may want to know; whether it becomes a notification is decided there.
    pub(crate) fn tell_person(&self, happened: Happened) {
        self.builds.notifier.tell(self.now(), self.sharing.notify(), happened);
    }

    /// Once a second: builds that are over, and what is new for the history.
    pub(super) fn builds_tick(&mut self) {
        let now = self.now();
        if now < self.builds.next_look {
            return;
        }
        self.builds.next_look = now + LOOK_EVERY;
        for (key, cut) in self.builds.groups.over(now) {
            self.build_over(key, cut, None);
        }
        let ending: Vec<Key> =
            self.builds.open.iter().filter(|(_, b)| b.ending.is_some()).map(|(key, _)| *key).collect();
        for key in ending {
            self.build_ending(key);
        }
        if self.builds.open.is_empty() {
            // Groups without a root are never told of.
            self.builds.known.retain(|_, root| root.is_some());
        }
        if now < self.builds.next_keep {
            return;
        }
        self.builds.next_keep = now + KEEP_EVERY;
        for build in self.builds.open.values_mut().filter(|b| b.is_real) {
            if build.is_new || build.handed < build.jobs.len() {
                build.is_new = false;
                let fresh = build.jobs[build.handed..].to_vec();
                build.handed = build.jobs.len();
                self.builds.store.write(build.meta_at(now), fresh);
            }
        }
    }

    /// The node ends: what goes on is kept as far as it got.
    pub(super) fn builds_end(&mut self) {
        for key in self.builds.open.keys().copied().collect::<Vec<_>>() {
            self.build_over(key, true, None);
        }
    }

    pub(super) fn history_loaded(&mut self, metas: Vec<Meta>) {
        let ended = std::mem::take(&mut self.builds.past);
        self.builds.past = metas.into_iter().chain(ended).collect();
        for (conn, call, replies) in self.builds.early.take().unwrap_or_default() {
            self.builds_call(conn, call, replies);
        }
    }

    /// Builds that the history has not any more are listed no more.
    pub(super) fn history_gone(&mut self, ids: &[String]) {
        self.builds.past.retain(|meta| !ids.contains(&meta.id));
        self.watch.touch();
    }

    /// Jobs of a build on other machines and jobs that wait for a core, now.
    pub(super) fn build_now(&self, key: Key) -> (u32, u32) {
        let of = |job: &&Job| self.asks.get(&job.ask).is_some_and(|ask| ask.mark.build == key);
        let jobs = self.jobs.values().filter(of);
        let there = jobs.filter(|job| job.peer.is_some()).count() as u32;
        let here = self.builds.local.values().filter(|run| run.build == key).count() as u32;
        (there, self.builds.groups.running(key).saturating_sub(there + here))
    }

    /// Jobs of all builds by kind so far, of one that goes on.
    pub(super) fn build_counts(&self, key: Key) -> Counts {
        self.builds.open.get(&key).map_or(Counts::default(), |b| b.meta.counts)
    }
}

/// What a job that runs here is called: its source, or what it links.
fn file_of(ask: &Ask, reason: &Reason, build_cwd: &str) -> String {
    let cwd = &ask.compile.cwd;
    if let Some(plan) = ask.plans.first() {
        return named(cwd, &plan.source, build_cwd);
    }
    let args = &ask.compile.argv;
    let output = || args.iter().skip_while(|a| *a != b"-o").nth(1);
    let last = || args.iter().skip(1).rev().find(|a| !a.starts_with(b"-"));
    let file = if *reason == Reason::Link { output().or_else(last) } else { last() };
    file.map_or_else(String::new, |file| named(cwd, bytes::path(file), build_cwd))
}
