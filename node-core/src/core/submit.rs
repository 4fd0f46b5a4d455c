//! A compile from the wrapper's question to the moment it is on its way to a worker, or told to run here.

use std::cell::Cell;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use potluck_model::ids::{Digest, JobId, NodeId};
use potluck_model::options::{self, Invocation, ReadFile};
use potluck_model::place::{self, JobSpec, Work};
use potluck_model::plan::{Family, Plan, Role, Verdict};
use potluck_model::reason::Reason;
use potluck_model::scan::Value;
use potluck_model::trust::Mode;
use potluck_wire::ipc;
use potluck_wire::pool::{self, frame};

use super::job::Job;
use super::understood;
use super::{ConnId, Core, Replies};
use crate::bytes;
use crate::outputs::{self, Folders};
use crate::root::{Asker, Root};
use crate::toolchain::{Compiler, SearchList};
use crate::tree::{Closure, Found, Record, Want};

/// A wrapper's connection.
pub(crate) enum Conn {
    /// It waits for an answer to this ask.
    Asking(u64),
    /// It runs a compiler and holds the slot of this job.
    Running(JobId),
    /// It runs a compiler without a slot.
    Free,
}

/// Exit code, standard output and standard error of one compile.
pub(crate) type Part = (i32, Vec<u8>, Vec<u8>);

/// One wrapper's question.
pub(crate) struct Ask {
    pub(crate) conn: ConnId,
    pub(crate) replies: Replies,
    pub(crate) compile: Arc<ipc::Compile>,
    pub(crate) compiler: Option<Arc<Compiler>>,
    pub(crate) plans: Arc<[Plan]>,
    /// Parts that are done: exit code, stdout, stderr.
    pub(crate) parts: Vec<Option<Part>>,
    pub(crate) jobs: Vec<JobId>,
    pub(crate) asked_at: Instant,
    /// The compiler's name and environment: what its cached answers go by.
    pub(crate) steering: Digest,
    /// The whole command: what its meaning goes by.
    pub(crate) key: Digest,
    /// Its build, and what is known of its times.
    pub(crate) mark: super::builds::Mark,
}

/// Remembers whether a file was asked for.
struct Disk {
    root: Root,
    read: Cell<bool>,
}

impl ReadFile for Disk {
    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        self.read.set(true);
        let (file, meta) = crate::tree::open_regular(&self.root, path).ok()?;
        let mut out = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, meta.len().min(64 << 20)), &mut out).ok()?;
        Some(out)
    }
}

/// Variables that go with a job, besides `LC_*`. TMPDIR does not: the sandbox has its own.
const JOB_ENV: &[&str] = &[
    "PATH",
    "PWD",
    "LANG",
    "LANGUAGE",
    "TZ",
    "SOURCE_DATE_EPOCH",
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "OBJCPLUS_INCLUDE_PATH",
    "GCC_COLORS",
    "GCC_URLS",
    "TERM_URLS",
    "TERM",
    "COLUMNS",
    "COLORTERM",
    "NO_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "LIBRARY_PATH",
    "LD_LIBRARY_PATH",
    "GCC_EXTRA_DIAGNOSTIC_OUTPUT",
];

impl Core {
    pub(super) fn compile(&mut self, conn: ConnId, asker: Asker, compile: ipc::Compile, replies: Replies) {
        let id = self.next_job;
        self.next_job += 1;
        self.conns.insert(conn, Conn::Asking(id));
        let steering = super::compilers::steering_digest(&compile);
        let ask = Ask {
            key: understood::key(&steering, &compile),
            mark: self.build_asked(&compile),
            steering,
            conn,
            replies,
            compile: Arc::new(compile),
            compiler: None,
            plans: Arc::default(),
            parts: Vec::new(),
            jobs: Vec::new(),
            asked_at: Instant::now(),
        };
        self.asks.insert(id, ask);
        let compile = Arc::clone(&self.asks[&id].compile);
        if compile.version != ipc::IPC_VERSION {
            return self.here_at_once(id, Reason::VersionMismatch);
        }
        if compile.force_local {
            return self.here(id, Reason::DisabledByEnv);
        }
        // Before anything is looked up: in another root every path, the compiler's first, may be another file.
        if asker == Asker::OtherRoot {
            return self.here(id, Reason::OtherRoot);
        }
        // A folder that was mounted over since somebody went there.
        if !leads_to_cwd(&compile.cwd, &compile) {
            return self.here(id, Reason::PathOutsideRoot);
        }
        self.understand(id);
    }

    /// Goes on as soon as the compiler is known.
    pub(super) fn understand(&mut self, id: u64) {
        let Some(ask) = self.asks.get(&id) else { return };
        let (compile, steering, key) = (Arc::clone(&ask.compile), ask.steering, ask.key);
        let compiler = match self.compiler_of(id, steering, &compile) {
            compilers_result::Known(compiler) => compiler,
            compilers_result::Pending => return,
            compilers_result::Unusable(reason) => return self.here(id, reason),
        };
        if let Some(plans) = self.understood.plans(&key, &compiler)
            && let Some(ask) = self.asks.get_mut(&id)
        {
            ask.compiler = Some(compiler);
            ask.parts = vec![None; plans.len()];
            ask.plans = plans;
            return self.prepare(id);
        }
        let args: Vec<OsString> = compile.argv.iter().skip(1).map(|a| OsString::from_vec(a.clone())).collect();
        let env: Vec<(OsString, OsString)> = compile
            .env
            .iter()
            .filter_map(|entry| {
                let at = entry.iter().position(|&c| c == b'=')?;
                Some((bytes::os(&entry[..at]).to_owned(), bytes::os(&entry[at + 1..]).to_owned()))
            })
            .collect();
        let invocation = Invocation {
            family: compiler.family,
            cxx: compiler.cxx,
            args: &args,
            cwd: bytes::path(&compile.cwd),
            env: &env,
        };
        let disk = Disk { root: self.tree.root(), read: Cell::new(false) };
        let verdict = options::understand(&invocation, &disk);
        let Some(ask) = self.asks.get_mut(&id) else { return };
        ask.compiler = Some(Arc::clone(&compiler));
        match verdict {
            Verdict::Local(reason @ (Reason::QueryInvocation | Reason::Probe | Reason::PreprocessOnly)) => {
                self.here_at_once(id, reason);
            }
            Verdict::Local(reason) => self.here(id, reason),
            Verdict::Remote(plans) => {
                ask.parts = vec![None; plans.len()];
                ask.plans = plans.into();
                if !disk.read.get() {
                    self.understood.keep(key, &compiler, &ask.plans);
                }
                self.prepare(id);
            }
        }
    }

    /// Makes jobs of the plans: toolchain, search list, closure, outputs.
    pub(super) fn prepare(&mut self, id: u64) {
        let Some(ask) = self.asks.get(&id) else { return };
        let Some(compiler) = ask.compiler.clone() else { return };
        if !self.team.submits() {
            return self.here(id, Reason::Policy);
        }
        let (compile, steering) = (Arc::clone(&ask.compile), ask.steering);
        let toolchain = match self.toolchain_of(id, steering, &compiler, &compile) {
            compilers_result::Known(toolchain) => toolchain,
            compilers_result::Pending => return,
            compilers_result::Unusable(reason) => return self.here(id, reason),
        };
        let strict = self.settings.local_compiles == 0 || compile.no_fallback;
        if strict && self.toolchain_comes(toolchain) {
            // Compiles are to be kept off this PC, and some worker has it in a moment.
            self.waiting_tools.entry(toolchain).or_default().push(id);
            return self.want_toolchain(toolchain);
        }
        let plans = Arc::clone(&self.asks[&id].plans);
        let trust = self.trust_of(&compile);
        let mut ready = Vec::new();
        for (part, plan) in plans.iter().enumerate() {
            let search = match self.search_list(id, steering, &compiler, &compile, plan) {
                compilers_result::Known(search) => search,
                compilers_result::Pending => return,
                compilers_result::Unusable(reason) => return self.here(id, reason),
            };
            match self.job_of(id, part, plan, &compiler, &compile, &search) {
                Ok(mut job) => {
                    job.toolchain = Some(toolchain);
                    if let Some(reason) = self.kept_here(trust, &job, &compiler, &compile) {
                        return self.here(id, reason);
                    }
                    job.careful = trust == Mode::Careful;
                    ready.push(job);
                }
                Err(reason) => return self.here(id, reason),
            }
        }
        let now = self.now();
        if let Some(ask) = self.asks.get_mut(&id) {
            ask.mark.ready_at = now;
        }
        for job in ready {
            let job_id = JobId(self.next_job);
            self.next_job += 1;
            let cpu = self.predictions.get(&self.source_path(&job)).copied().unwrap_or((0, 0));
            let spec = JobSpec {
                job: job_id,
                work: self.trusted_work(
                    trust,
                    place::Compile {
                        toolchain,
                        cpu_ms: cpu.0,
                        memory_bytes: cpu.1,
                        missing_bytes: Vec::new(),
                        may_local: !compile.no_fallback,
                    },
                ),
            };
            if let Some(ask) = self.asks.get_mut(&id) {
                ask.jobs.push(job_id);
            }
            self.jobs.insert(job_id, job);
            self.place(place::Event::JobReady(spec));
        }
        self.want_toolchain(toolchain);
    }

    pub(crate) fn source_path(&self, job: &Job) -> PathBuf {
        job.want.cwd.join(bytes::path(&job.want.source))
    }

    fn job_of(
        &mut self,
        ask: u64,
        part: usize,
        plan: &Plan,
        compiler: &Compiler,
        compile: &ipc::Compile,
        search: &Arc<SearchList>,
    ) -> Result<Job, Reason> {
        let key = self.asks.get(&ask).map_or(Digest([0; 32]), |ask| ask.key);
        let (args, specs_file) = self.expanded_args(plan, compiler, compile)?;
        let kept = self.understood.want(&key, part, search).filter(|_| specs_file.is_none());
        let mut want = match &kept {
            Some((want, _)) => Arc::clone(want),
            None => Arc::new(want_of(plan, compile, compiler.family, search)),
        };
        let is_plain = specs_file.is_none();
        if let Some(file) = specs_file {
            // Perhaps written just now, after this batch looked at its folder: the tree must hear of it first.
            if !matches!(self.tree.resolve(0, bytes::of(&file), &mut Record::default()), Some(Found::File(_))) {
                self.tree.begin_batch();
            }
            Arc::make_mut(&mut want).inputs.push(bytes::of(&file).to_vec());
        }
        // A FIFO, a directory or nothing as source: the compiler says what it says.
        let mut record = Record::default();
        let cwd = self.tree.resolve_dir(&want.cwd, &mut record).ok_or(Reason::BadCommand)?;
        let source = self.tree.resolve(cwd, &want.source, &mut record);
        if record.private {
            return Err(Reason::PathOutsideRoot);
        }
        match source {
            Some(Found::File(file)) if self.tree.fresh_file(file) => {}
            _ => return Err(Reason::BadCommand),
        }
        let mut dirs: Vec<(PathBuf, Vec<Vec<u8>>)> = Vec::new();
        for dir in &plan.output_dirs {
            let spelled = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            let Some(Found::Dir(id)) = self.tree.resolve(cwd, bytes::of(spelled), &mut record) else {
                return Err(Reason::BadCommand);
            };
            let path = self.tree.dir(id).path.clone();
            if !dirs.iter().any(|(p, _)| *p == path) {
                outputs::check_dir(&path)?;
                dirs.push((path, Vec::new()));
            }
        }
        let mut folders = Folders::default();
        for output in &plan.outputs {
            if output.path == Path::new("/dev/null") {
                continue;
            }
            let (parent, name) = split(&output.path).ok_or(Reason::BadCommand)?;
            let Some(Found::Dir(id)) = self.tree.resolve(cwd, parent, &mut record) else {
                return Err(Reason::BadCommand);
            };
            let path = self.tree.dir(id).path.clone();
            if self.tree.dir(id).names.contains_key(name) {
                let at = path.join(bytes::os(name));
                outputs::check_target(&mut folders, &at, output.manner)?;
                let source = || want.cwd.join(bytes::path(&want.source));
                if output.role == Role::Beside && !self.by_products.may_replace(&mut folders, &at, &source()) {
                    return Err(Reason::ExistingByProduct);
                }
            }
            // Also one that is not there: a mirror may still have poison for last time's.
            if let Some((_, whiteouts)) = dirs.iter_mut().find(|(p, _)| *p == path)
                && !whiteouts.iter().any(|n| n == name)
            {
                whiteouts.push(name.to_vec());
            }
        }
        if record.private {
            return Err(Reason::PathOutsideRoot);
        }
        let config = kept.map_or_else(|| self.tree.config(&want), |(_, config)| config);
        // As it will be when it is sent, unless something is learned meanwhile: one walk serves both.
        let learned = self.tree.learned(config);
        if want.learned_max != learned {
            Arc::make_mut(&mut want).learned_max = learned;
        }
        if is_plain {
            self.understood.keep_want(&key, part, search, &want, config);
        }
        let (closure, fingerprint) = self.tree.closure_expected(config, &want);
        if closure.private {
            return Err(Reason::PathOutsideRoot);
        }
        // Preprocessor values such as file names can be __TIME__ too; a compiler that ignores SOURCE_DATE_EPOCH then
        // shows the worker's clock. Peers whose clock differs are left out where it is sent.
        let batch = self.tree.batch();
        Ok(Job::new((ask, part), (want, config), (closure, fingerprint), batch, args, dirs))
    }

    /// A job got a credit: bring the worker's mirror up to date and send it, or first what is too large for a delta.
    pub(super) fn send_job(&mut self, id: JobId, peer_id: NodeId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let was_at = job.peer.replace(peer_id);
        if was_at != Some(peer_id) {
            job.placed_at = self.started.elapsed();
        }
        if job.parked {
            return;
        }
        job.uploads.clear();
        let held = job.held.take();
        self.void_run(was_at, held);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        // Things may have changed or been learned while it waited. What is to be compared is asked as it was.
        let learned = if job.audit.is_some() { job.want.learned_max } else { self.tree.learned(job.config) };
        if job.want.learned_max != learned {
            Arc::make_mut(&mut job.want).learned_max = learned;
        }
        let (want, config) = (Arc::clone(&job.want), job.config);
        let (closure, fingerprint) = self.tree.closure_expected(config, &want);
        if !self.is_still_the_same(id, fingerprint) {
            return;
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.closure = Arc::clone(&closure);
        job.fingerprint = fingerprint;
        job.sent_in = self.tree.batch();
        job.note_sent(peer_id);
        let tools = job.toolchain.and_then(|t| self.toolchain_closure(t));
        let Some(peer) = self.peers.get(&peer_id) else { return };
        if closure.time_macro && peer.clock_skew_us.unsigned_abs() > 1_000_000 && !self.honours_epoch(id) {
            let outcome = place::Outcome::Home(Reason::TimeMacro);
            return self.place(place::Event::Result { job: id, peer: peer_id, outcome });
        }
        if peer.trap != "fuse" && self.could_swallow(id) {
            // There a swallowed lookup would not be noticed.
            let outcome = place::Outcome::Elsewhere(Reason::SandboxUnavailable);
            return self.place(place::Event::Result { job: id, peer: peer_id, outcome });
        }
        let Some(peer) = self.peers.get(&peer_id) else { return };
        let mut closures: Vec<&Arc<Closure>> = tools.iter().collect();
        closures.push(&closure);
        let missing = peer.image.missing(&self.tree, &closures);
        if !missing.is_empty() {
            let digests: Vec<Digest> = missing.iter().map(|(_, d)| *d).collect();
            if let Some(job) = self.jobs.get_mut(&id) {
                job.uploads = digests;
            }
            return self.upload(peer_id, missing);
        }
        self.dispatch(id, peer_id, &closures);
    }

    pub(super) fn dispatch(&mut self, id: JobId, peer_id: NodeId, closures: &[&Arc<Closure>]) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        // Once: a second copy elsewhere must show the same time, or the two differ.
        if job.clock_s == 0 {
            job.clock_s = (Self::clock_us() / 1_000_000) as i64;
        }
        job.is_shared |= job.asked_of.replace(peer_id).is_some_and(|before| before != peer_id);
        let gone = job.gone.clone();
        let Some(message) = self.message_of(id) else { return };
        let sent = self.send_with_delta(peer_id, closures, &gone, frame::Kind::Job(message));
        if let Some(job) = self.jobs.get_mut(&id) {
            job.tries += 1;
            job.bytes_up += sent;
        }
    }

    /// What a worker is asked.
    pub(super) fn message_of(&self, id: JobId) -> Option<pool::Job> {
        let job = self.jobs.get(&id)?;
        let ask = self.asks.get(&job.ask)?;
        let compiler = ask.compiler.as_ref()?;
        let compile = &ask.compile;
        let mut argv = vec![compile.argv.first().cloned().unwrap_or_default()];
        argv.extend(job.args.iter().map(|a| a.as_bytes().to_vec()));
        let plan = &ask.plans[job.part];
        if compile.stderr_tty && !plan.colour_chosen && wants_colour(&compile.env) {
            let option: &[u8] = match compiler.family {
                Family::Gcc => b"-fdiagnostics-color=always",
                Family::Clang => b"-fcolor-diagnostics",
            };
            argv.insert(1, option.to_vec());
        }
        let mut outputs: Vec<pool::OutputDir> = job
            .dirs
            .iter()
            .map(|(path, whiteouts)| pool::OutputDir { path: bytes::of(path).to_vec(), whiteouts: whiteouts.clone() })
            .collect();
        for path in &job.extra_whiteouts {
            let Some(dir) = path.parent() else { continue };
            if let Some(out) = outputs.iter_mut().find(|o| o.path == bytes::of(dir)) {
                out.whiteouts.push(path.file_name().unwrap_or_default().as_bytes().to_vec());
            }
        }
        let predicted = self.predictions.get(&self.source_path(job)).copied().unwrap_or((0, 0));
        Some(pool::Job {
            id: id.0,
            toolchain: job.toolchain.map(|t| t.0.0.to_vec()).unwrap_or_default(),
            program: bytes::of(&compiler.driver).to_vec(),
            argv,
            env: job_env(compile, compiler.honours_epoch, job.clock_s),
            cwd: compile.cwd.clone(),
            umask: compile.umask,
            stack_bytes: compile.stack_bytes,
            outputs,
            cpu_ms: predicted.0,
            memory_bytes: predicted.1,
            discard_outputs: false,
            probe: false,
            // A limit of nothing at all is as good as one of a byte: whatever fails there is shown from here.
            file_bytes: if compile.file_bytes == u64::MAX { 0 } else { compile.file_bytes.max(1) },
            inputs: job.fingerprint,
        })
    }

    /// Whether a compile makes lookups that go on as if nothing was there when they meet a self-loop (tested: `.incbin`,
    /// assembler `.include`, `.gch`, `.gcda`, `-B`, specs, and clang's own probes).
    fn could_swallow(&self, id: JobId) -> bool {
        let Some(job) = self.jobs.get(&id) else { return true };
        let Some(ask) = self.asks.get(&job.ask) else { return true };
        let plan = &ask.plans[job.part];
        let clang = ask.compiler.as_ref().is_none_or(|c| c.family == Family::Clang);
        let has_gch = |file: &u32| {
            let file = self.tree.file(*file);
            let gch = [&file.name[..], b".gch"].concat();
            self.tree.dir(file.dir).names.contains_key(&gch[..])
        };
        clang
            || plan.language == potluck_model::plan::Language::AsmWithCpp
            || !job.want.inputs.is_empty()
            || !plan.named_dirs.is_empty()
            || job.closure.data
            || job.closure.unclear_data
            || job.closure.files.iter().any(has_gch)
    }

    pub(super) fn honours_epoch(&self, id: JobId) -> bool {
        self.jobs
            .get(&id)
            .and_then(|job| self.asks.get(&job.ask))
            .and_then(|ask| Some((ask.compiler.as_ref()?, &ask.compile)))
            .is_some_and(|(compiler, compile)| is_clock_told(compiler, compile))
    }

    /// Local by nature or by decision: through a local slot.
    pub(super) fn here(&mut self, id: u64, reason: Reason) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        if ask.mark.ready_at.is_zero() {
            ask.mark.ready_at = self.started.elapsed();
        }
        for job in std::mem::take(&mut ask.jobs) {
            self.forget_job(job);
            self.place(place::Event::Cancel { job });
        }
        let job = JobId(id);
        self.place(place::Event::JobReady(JobSpec { job, work: Work::Here(reason) }));
    }

    /// Local at once: it computes next to nothing, and a configure script waits for it.
    pub(super) fn here_at_once(&mut self, id: u64, reason: Reason) {
        let Some(ask) = self.asks.remove(&id) else { return };
        self.count_local(&reason);
        self.record_local(&ask, &reason, String::new());
        self.build_local(&ask, &reason, 0);
        self.conns.insert(ask.conn, Conn::Free);
        let _ = ask.replies.send(ipc::Reply::Local { reason: reason.to_string() });
    }

    /// A local slot is free for this job: the wrapper runs the compiler and holds the slot by its connection.
    pub(super) fn run_local(&mut self, id: JobId, reason: Reason) {
        let ask_id = match self.jobs.get(&id) {
            Some(job) => job.ask,
            None => id.0,
        };
        let Some(mut ask) = self.asks.remove(&ask_id) else {
            return self.place(place::Event::LocalFreed { job: id });
        };
        // What a worker said of it: which limit it hit there, what was wrong with its outputs.
        let note = self.jobs.get(&id).map(|job| job.note.clone()).unwrap_or_default();
        let lost = self.jobs.get(&id).map_or(0, |job| job.lost);
        // One part goes home: all of them do, the compiler does them in one go.
        for other in std::mem::take(&mut ask.jobs) {
            self.forget_job(other);
            if other != id {
                self.place(place::Event::Cancel { job: other });
            }
        }
        self.forget_job(id);
        if ask.compile.no_fallback && !matches!(reason.class(), potluck_model::reason::Class::Only) {
            self.place(place::Event::LocalFreed { job: id });
            return self.refuse_fallback(&ask, &reason);
        }
        self.count_local(&reason);
        self.record_local(&ask, &reason, note);
        self.build_local(&ask, &reason, lost);
        self.conns.insert(ask.conn, Conn::Running(id));
        self.by_products_come(ask.conn, &ask.plans, bytes::path(&ask.compile.cwd));
        if ask.replies.send(ipc::Reply::Local { reason: reason.to_string() }).is_err() {
            self.conn_gone(ask.conn);
        }
    }

    fn refuse_fallback(&mut self, ask: &Ask, reason: &Reason) {
        // Exit codes of UX 3.4: 116 no machines and fallback off, 118 timeout, 100 anything else.
        let exit = match reason {
            Reason::NoPeers | Reason::NoTeam | Reason::NoFreeSlot | Reason::ToolchainNotSynced => 116,
            Reason::Timeout => 118,
            Reason::OutOfMemory => 105,
            _ => 100,
        };
        let message = format!(
            "not compiled, because POTLUCK_FALLBACK=0 and it cannot run elsewhere ({reason}): {}",
            reason.sentence()
        );
        self.build_refused(ask, reason, exit);
        self.conns.remove(&ask.conn);
        let _ = ask.replies.send(ipc::Reply::Fail { exit, message });
    }

    pub(super) fn fail_job(&mut self, id: JobId, reason: Reason) {
        if self.jobs.get(&id).is_some_and(|job| job.audit.is_some()) {
            return self.rerun_failed(id);
        }
        let Some(job) = self.forget_job(id) else { return };
        let Some(ask) = self.asks.remove(&job.ask) else { return };
        for other in &ask.jobs {
            if *other != id {
                self.forget_job(*other);
                self.place(place::Event::Cancel { job: *other });
            }
        }
        self.refuse_fallback(&ask, &reason);
    }

    /// A compile has ended here. If it had failed elsewhere, the two must agree.
    pub(super) fn local_ended(&mut self, conn: ConnId, exit: i32) {
        self.by_products.ended_here(conn, Some(exit));
        let differs = self.note_local_exit(conn, exit);
        self.totals.differing += u64::from(differs);
        self.build_local_said(conn, exit, differs);
    }

    pub(super) fn conn_gone(&mut self, conn: ConnId) {
        self.by_products.ended_here(conn, None);
        self.watchers.retain(|w| !w.is_of(conn));
        self.watch.remove(conn);
        self.build_conn_gone(conn);
        match self.conns.remove(&conn) {
            Some(Conn::Asking(id)) => {
                let Some(ask) = self.asks.remove(&id) else { return };
                self.build_cut(&ask);
                for job in ask.jobs {
                    self.forget_job(job);
                    self.place(place::Event::Cancel { job });
                }
                self.place(place::Event::Cancel { job: JobId(id) });
            }
            Some(Conn::Running(job)) => self.place(place::Event::LocalFreed { job }),
            Some(Conn::Free) | None => {}
        }
    }
}

/// The outcome of asking for something that may have to be found out on another thread first.
pub(crate) mod compilers_result {
    /// See the module.
    pub(crate) enum Answer<T> {
        /// Here it is.
        Known(T),
        /// The ask goes on when it is known.
        Pending,
        /// It cannot be had.
        Unusable(potluck_model::reason::Reason),
    }
    pub(crate) use Answer::{Known, Pending, Unusable};
}

fn split(path: &Path) -> Option<(&[u8], &[u8])> {
    let path = bytes::of(path);
    match path.iter().rposition(|&c| c == b'/') {
        None => Some((&b"."[..], path)),
        Some(0) => Some((&b"/"[..], &path[1..])),
        Some(at) => Some((&path[..at], &path[at + 1..])),
    }
    .filter(|(_, name)| !name.is_empty())
}

fn want_of(plan: &Plan, compile: &ipc::Compile, family: Family, search: &SearchList) -> Want {
    let list = |paths: &[PathBuf]| paths.iter().map(|p| bytes::of(p).to_vec()).collect::<Vec<_>>();
    let mut angled = list(&plan.search.angled);
    angled.extend(list(&plan.search.system));
    angled.extend(list(&search.angled));
    angled.extend(list(&plan.search.after));
    let mut quote = list(&plan.search.quote);
    quote.extend(list(&search.quote));
    let mut named_dirs = list(&plan.named_dirs);
    named_dirs.extend(
        plan.output_dirs.iter().map(|d| if d.as_os_str().is_empty() { b".".to_vec() } else { bytes::of(d).to_vec() }),
    );
    Want {
        cwd: bytes::path(&compile.cwd).to_owned(),
        source: bytes::of(&plan.source).to_vec(),
        preprocessed_here: plan.language.is_preprocessed_here(),
        forced: plan.forced.iter().map(|f| bytes::of(&f.path).to_vec()).collect(),
        implicit: match family {
            Family::Gcc => vec![b"stdc-predef.h".to_vec()],
            Family::Clang => Vec::new(),
        },
        quote,
        angled,
        inputs: list(&plan.named_inputs),
        named_dirs,
        defines: defines(&plan.args),
        learned_max: usize::MAX,
    }
}

/// `-DNAME="file.h"` and `-DNAME=<file.h>`: they may be included by name.
fn defines(args: &[OsString]) -> Vec<(Vec<u8>, Value)> {
    let mut out = Vec::new();
    let mut args = args.iter().map(|a| a.as_bytes());
    while let Some(arg) = args.next() {
        let Some(text) = arg.strip_prefix(b"-D") else { continue };
        let text = if text.is_empty() { args.next().unwrap_or_default() } else { text };
        let Some(at) = text.iter().position(|&c| c == b'=') else { continue };
        let (name, value) = (&text[..at], &text[at + 1..]);
        let value = match value {
            [b'"', inner @ .., b'"'] => Value::Quoted(inner.into()),
            [b'<', inner @ .., b'>'] => Value::Angled(inner.into()),
            [c, ..] if c.is_ascii_alphabetic() || *c == b'_' => Value::Macro(value.into()),
            _ => continue,
        };
        out.push((name.to_vec(), value));
    }
    out
}

fn wants_colour(env: &[Vec<u8>]) -> bool {
    // gcc: empty GCC_COLORS or TERM=dumb (or unset) switch colour off; NO_COLOR is not honoured by gcc 12.
    bytes::env(env, "GCC_COLORS") != Some(b"") && !matches!(bytes::env(env, "TERM"), None | Some(b"" | b"dumb"))
}

/// Whether a worker is told the time that the macros show.
pub(super) fn is_clock_told(compiler: &Compiler, compile: &ipc::Compile) -> bool {
    compiler.honours_epoch && !shows_workers_clock(compile)
}

/// Whether the caller gives no time, and has another time zone than this node, the only one whose offset is known:
/// the worker's clock is then shown in that zone, from the zone's file.
fn shows_workers_clock(compile: &ipc::Compile) -> bool {
    let own = std::env::var_os("TZ");
    has_foreign_zone(&compile.env, own.as_deref().map(OsStrExt::as_bytes))
}

fn has_foreign_zone(env: &[Vec<u8>], own: Option<&[u8]>) -> bool {
    bytes::env(env, "SOURCE_DATE_EPOCH").is_none() && bytes::env(env, "TZ") != own
}

/// Whether this value of PWD leads to the working directory: only then do compilers take it for the directory's name
/// (libiberty's getpwd, LLVM's current_path). Another one, which `ninja -C` and programs that start a compiler elsewhere
/// leave behind, would only be looked up, and be a fault where it leads out of what a worker may know.
fn names_cwd(value: &[u8], compile: &ipc::Compile) -> bool {
    value == compile.cwd || value.starts_with(b"/") && leads_to_cwd(value, compile)
}

/// Whether this path is the wrapper's working directory, as this node sees it.
fn leads_to_cwd(path: &[u8], compile: &ipc::Compile) -> bool {
    std::fs::metadata(bytes::path(path)).is_ok_and(|m| (m.dev(), m.ino()) == compile.cwd_identity)
}

pub(super) fn job_env(compile: &ipc::Compile, honours_epoch: bool, clock_s: i64) -> Vec<Vec<u8>> {
    let mut env: Vec<Vec<u8>> = compile
        .env
        .iter()
        .filter(|entry| {
            let name = entry.split(|&c| c == b'=').next().unwrap_or_default();
            let goes = name.starts_with(b"LC_") || JOB_ENV.iter().any(|n| n.as_bytes() == name);
            goes && entry.strip_prefix(b"PWD=").is_none_or(|value| names_cwd(value, compile))
        })
        .cloned()
        .collect();
    if compile.stderr_tty && compile.columns > 0 && bytes::env(&env, "COLUMNS").is_none() {
        env.push(format!("COLUMNS={}", compile.columns).into_bytes());
    }
    // One rule for __DATE__ and __TIME__: the submitter's clock in the submitter's zone. A compiler that honours
    // SOURCE_DATE_EPOCH shows it in UTC, so the zone's offset is added.
    if honours_epoch && !shows_workers_clock(compile) && bytes::env(&env, "SOURCE_DATE_EPOCH").is_none() {
        env.push(format!("SOURCE_DATE_EPOCH={}", clock_s + outputs::utc_offset_s(clock_s)).into_bytes());
    }
    env
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;

    use potluck_wire::ipc;

    use super::super::compilers::steering_digest;
    use super::{has_foreign_zone, job_env, names_cwd};

    #[test]
    fn a_pwd_goes_along_only_if_it_names_the_working_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (cwd, alias) = (dir.path().join("real"), dir.path().join("alias"));
        std::fs::create_dir(&cwd).unwrap();
        std::os::unix::fs::symlink(&cwd, &alias).unwrap();
        let meta = std::fs::metadata(&cwd).unwrap();
        let compile = ipc::Compile {
            cwd: cwd.as_os_str().as_bytes().to_vec(),
            cwd_identity: (meta.dev(), meta.ino()),
            ..ipc::Compile::default()
        };
        let names = |path: &std::path::Path| names_cwd(path.as_os_str().as_bytes(), &compile);
        assert!(names(&cwd) && names(&alias));
        assert!(!names(dir.path()) && !names(&dir.path().join("gone")) && !names("real".as_ref()));
    }

    #[test]
    fn only_this_nodes_own_zone_can_be_told_as_an_epoch() {
        let env = |entries: &[&str]| entries.iter().map(|e| e.as_bytes().to_vec()).collect::<Vec<_>>();
        let berlin = Some(&b"Europe/Berlin"[..]);
        assert!(has_foreign_zone(&env(&["TZ=Pacific/Kiritimati"]), None));
        assert!(has_foreign_zone(&env(&["TZ="]), None));
        assert!(has_foreign_zone(&env(&["LANG=C"]), berlin));
        assert!(!has_foreign_zone(&env(&["LANG=C"]), None));
        assert!(!has_foreign_zone(&env(&["TZ=Europe/Berlin"]), berlin));
        // A time that the caller gives is shown in UTC whatever the zone.
        assert!(!has_foreign_zone(&env(&["TZ=Pacific/Kiritimati", "SOURCE_DATE_EPOCH=0"]), None));
    }

    #[test]
    fn which_build_it_is_neither_travels_nor_makes_another_command_of_it() {
        let of = |entries: &[&str]| ipc::Compile {
            env: entries.iter().map(|e| e.as_bytes().to_vec()).collect(),
            ..ipc::Compile::default()
        };
        let plain = of(&["LANG=C"]);
        let (one, two) =
            (of(&["LANG=C", "POTLUCK_BUILD_ID=b1", "POTLUCK_BUILD_NAME=x"]), of(&["LANG=C", "POTLUCK_BUILD_ID=b2"]));
        assert_eq!(steering_digest(&one), steering_digest(&two));
        assert_eq!(steering_digest(&one), steering_digest(&plain));
        assert_ne!(steering_digest(&plain), steering_digest(&of(&["LANG=D"])));
        assert_eq!(job_env(&one, false, 0), [b"LANG=C".to_vec()]);
    }
}
