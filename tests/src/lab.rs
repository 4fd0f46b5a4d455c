//! A submitter and its workers, started and taken down together, with the proof that no worker sees the host's tree.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::inside::{self, DECOY_TEXT, PROGRAMS_DIR, STATE_DIR, Spec};
use crate::net::{Hub, PORT, SUBMITTER_ADDRESS, worker_address};
use crate::node::{self, Node, Process};
use crate::person::{Person, is_root};
use crate::wait::wait_until;
use crate::{Context, Outcome, Trouble};

/// Programs of the product that a Lab needs.
pub const PROGRAMS: &[&str] = &["potluck", "potluck-node", "potluck-runner"];
/// A node that has not said "ready" after this time will not. The sandbox's self-test runs at the lowest priority, and
/// has to wait on a machine that does something else.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// Joining includes generating keys and, on a busy machine, some patience.
const TOGETHER_WITHIN: Duration = Duration::from_secs(30);

/// How one worker shall be.
#[derive(Clone, Debug)]
pub struct WorkerPlan {
    /// `--serve`.
    pub slots: u32,
    /// The project's folders exist there, full of `#error decoy`; otherwise they are absent.
    pub decoys: bool,
    /// Its state is a file system of this many bytes.
    pub state_bytes: Option<u64>,
    /// Shows it the host's own folders: only to prove that the Lab notices.
    pub leaks: Vec<PathBuf>,
    /// Its owner's `config.toml`: then that says what it shares, and `slots` nothing.
    pub config: Option<String>,
    /// Variables of its owner's session besides the usual ones.
    pub env: Vec<(String, String)>,
}

impl Default for WorkerPlan {
    fn default() -> Self {
        Self { slots: 4, decoys: false, state_bytes: None, leaks: Vec::new(), config: None, env: Vec::new() }
    }
}

impl WorkerPlan {
    fn node_args(&self, listen: &str) -> Vec<String> {
        let mut args = vec!["node".into(), "--listen".into(), listen.into()];
        if self.config.is_none() {
            args.extend(["--serve".into(), self.slots.to_string()]);
        }
        args
    }
}

/// What a Lab consists of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Part of its folder's name.
    pub name: String,
    /// The workers.
    pub workers: Vec<WorkerPlan>,
    /// Projects that will be built: shown as decoys or absent, and watched for leaks.
    pub projects: Vec<PathBuf>,
    /// `--local-compiles` of the submitter.
    pub local_compiles: Option<u32>,
    /// More arguments of the submitter's node.
    pub submitter_args: Vec<String>,
}

impl Plan {
    /// `workers` workers of `slots` slots; every second one has decoys. The submitter compiles nothing itself.
    pub fn new(name: &str, workers: usize, slots: u32, projects: &[PathBuf]) -> Self {
        let worker = |i| WorkerPlan { slots, decoys: i % 2 == 0, ..WorkerPlan::default() };
        Self {
            name: name.into(),
            workers: (0..workers).map(worker).collect(),
            projects: projects.to_vec(),
            local_compiles: Some(0),
            submitter_args: Vec::new(),
        }
    }
}

/// The submitter's node and its process.
#[derive(Debug)]
pub struct Submitter {
    /// Commands of its user.
    pub node: Node,
    args: Vec<String>,
    running: Option<(Child, Receiver<String>)>,
    out: PathBuf,
}

/// A worker: its namespaces live as long as its helper.
#[derive(Debug)]
pub struct Worker {
    /// Commands of its user, in its namespaces.
    pub node: Node,
    /// The first process of its namespaces, in the host's view; without namespaces the node itself.
    pub first: u32,
    /// Its state as the host sees it; empty when it is a file system of its own.
    pub state: PathBuf,
    helper: Child,
    commands: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// Several nodes on this machine. Dropping it ends them and removes its folder, unless `LAB_KEEP=1`.
#[derive(Debug)]
pub struct Lab {
    /// Its folder.
    pub dir: PathBuf,
    /// Submits.
    pub submitter: Submitter,
    /// Compile.
    pub workers: Vec<Worker>,
    /// What it was made of.
    pub plan: Plan,
    hub: Option<Hub>,
}

/// Folder of everything that the harness keeps between runs. Never below /tmp: sources there are not sent.
pub fn base_dir() -> Outcome<PathBuf> {
    let person = Person::submitter();
    let dir = std::env::var_os("LAB_DIR")
        .map_or_else(|| PathBuf::from(format!("/var/tmp/potluck-lab-{}", person.uid)), PathBuf::from);
    if dir.starts_with("/tmp") {
        return Err(Trouble::new("LAB_DIR must not be below /tmp: files there are private to each job"));
    }
    person.make_dir(&dir)?;
    claim(&dir)?;
    Ok(dir)
}

/// Two runs in one folder would build in the same trees: the second waits for the first.
fn claim(dir: &Path) -> Outcome<()> {
    static CLAIM: Mutex<Option<File>> = Mutex::new(None);
    let mut claim = CLAIM.lock().unwrap_or_else(PoisonError::into_inner);
    if claim.is_none() {
        let path = dir.join("lock");
        let file = File::create(&path).context(|| format!("making {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("another run uses {}; waiting for its end (LAB_DIR names another folder)", dir.display());
            file.lock().context(|| format!("waiting for {}", path.display()))?;
        }
        *claim = Some(file);
    }
    Ok(())
}

/// Where the product's programs were built: beside the harness, or `POTLUCK_BIN_DIR`.
pub fn built_programs() -> Outcome<PathBuf> {
    let mut candidates: Vec<PathBuf> = std::env::var_os("POTLUCK_BIN_DIR").map(PathBuf::from).into_iter().collect();
    let exe = std::env::current_exe()?;
    candidates.extend(exe.ancestors().skip(1).take(2).map(Path::to_path_buf));
    candidates
        .into_iter()
        .find(|dir| PROGRAMS.iter().all(|p| dir.join(p).is_file()))
        .context(|| format!("{} are not built beside {}: cargo build --release", PROGRAMS.join(", "), exe.display()))
}

impl Lab {
    /// Starts every node, forms the team and waits until all workers serve.
    pub fn start(plan: Plan) -> Outcome<Self> {
        let mut lab = Self::start_apart(plan)?;
        lab.form_team()?;
        Ok(lab)
    }

    /// Starts every node, each for itself: no team, no connections.
    pub fn start_apart(plan: Plan) -> Outcome<Self> {
        Self::start_with(plan, |_| Ok(()))
    }

    /// The same, with something that must be there before the nodes, such as a screen in their network.
    pub fn start_with(plan: Plan, first: impl FnOnce(&mut Self) -> Outcome<()>) -> Outcome<Self> {
        let built = built_programs()?;
        let mut lab = Self::lay_out(plan, Some(&built))?;
        first(&mut lab)?;
        lab.submitter.start()?;
        lab.start_workers()?;
        Ok(lab)
    }

    /// Only the workers' namespaces and roots, without any program of the product in them.
    pub fn start_empty(plan: Plan) -> Outcome<Self> {
        let mut lab = Self::lay_out(plan, None)?;
        lab.start_workers()?;
        Ok(lab)
    }

    fn lay_out(plan: Plan, built: Option<&Path>) -> Outcome<Self> {
        let person = Person::submitter();
        let runs = base_dir()?.join("runs");
        person.make_dir(&runs)?;
        // Several Labs of one process, as in tests, have different names.
        let dir = runs.join(format!("{}-{}", plan.name, std::process::id()));
        person.make_dir(&dir)?;
        let bin = dir.join("bin");
        person.make_dir(&bin)?;
        for (built, program) in built.iter().flat_map(|b| PROGRAMS.iter().map(move |p| (b, p))) {
            fs::copy(built.join(program), bin.join(program)).context(|| format!("copying {program}"))?;
            fs::set_permissions(bin.join(program), fs::Permissions::from_mode(0o755))?;
        }
        let hub = if is_root() { Some(Hub::new()?) } else { None };
        let submitter = Submitter::new(&plan, &dir, &bin, hub.as_ref())?;
        Ok(Self { dir, submitter, workers: Vec::new(), plan, hub })
    }

    fn start_workers(&mut self) -> Outcome<()> {
        let bin = self.dir.join("bin");
        for index in 0..self.plan.workers.len() {
            let worker = Worker::start(&self.plan, index, &self.dir, &bin, self.hub.as_ref())
                .context(|| format!("starting worker {}", index + 1))?;
            self.workers.push(worker);
        }
        self.check_isolation()
    }

    /// Whether workers have namespaces of their own; without root they are plain processes on loopback.
    pub fn has_namespaces(&self) -> bool {
        self.hub.is_some()
    }

    /// Team, invitation, joining, peers; returns when every worker serves the submitter.
    pub fn form_team(&mut self) -> Outcome<()> {
        self.submitter.node.potluck(&["team", "create", "lab"])?;
        self.gather_workers()
    }

    /// Invites every worker into the submitter's team; returns when all serve it.
    pub fn gather_workers(&self) -> Outcome<()> {
        let submitter = &self.submitter.node;
        let link = submitter.invite(self.workers.len())?;
        for worker in &self.workers {
            worker.node.potluck(&["peers", "add", &submitter.address])?;
            worker.node.potluck(&["team", "join", &link])?;
            submitter.potluck(&["peers", "add", &worker.node.address])?;
        }
        self.wait_for_workers(self.workers.len())
    }

    /// The network that all nodes are in; only a root harness has one of its own.
    pub fn network(&self) -> Outcome<&Hub> {
        self.hub.as_ref().context(|| "a network of the Lab's own needs root".into())
    }

    /// Waits until `count` workers are connected and give slots.
    pub fn wait_for_workers(&self, count: usize) -> Outcome<()> {
        let mut seen = String::new();
        let waited = wait_until(&format!("{count} workers serving"), TOGETHER_WITHIN, || {
            let status = self.submitter.node.status()?;
            seen = status.0["peers"].to_string();
            Ok((status.serving_peers() >= count).then_some(()))
        });
        waited.context(|| format!("the submitter's peers: {seen}"))
    }

    /// Packs these compilers and brings them to every worker before a measured run.
    pub fn sync_toolchains(&self, compilers: &[&str]) -> Outcome<()> {
        for compiler in compilers {
            self.submitter.node.potluck(&["toolchain", "add", compiler])?;
        }
        self.submitter.node.potluck(&["toolchain", "sync"]).map(|_| ())
    }

    /// Pulls a worker's cable: silence, no reset.
    pub fn cut_link(&self, worker: usize) -> Outcome<()> {
        self.hub.as_ref().context(|| "cutting a cable needs root".into())?.cut(worker)
    }

    /// Plugs it in again.
    pub fn mend_link(&self, worker: usize) -> Outcome<()> {
        self.hub.as_ref().context(|| "mending a cable needs root".into())?.mend(worker)
    }

    /// Fails when a worker can see a project, a compiler or a system header of the host.
    pub fn check_isolation(&self) -> Outcome<()> {
        if !self.has_namespaces() {
            return Ok(());
        }
        for worker in &self.workers {
            let root = PathBuf::from(format!("/proc/{}/root", worker.first));
            if !root.join("potluck/potluck").exists() && !root.join("potluck").is_dir() {
                return Err(Trouble::new(format!("{}: its root cannot be looked at", worker.node.name)));
            }
            for watched in watched_files(&self.plan.projects) {
                if shows_the_host(&root, &watched) {
                    return Err(Trouble::new(format!("{} sees the host's {}", worker.node.name, watched.display())));
                }
            }
        }
        Ok(())
    }

    /// Copies what the nodes logged to a folder that stays, in place of an earlier one; where that is.
    pub fn keep_logs(&self) -> Outcome<PathBuf> {
        let kept = base_dir()?.join("failed").join(&self.plan.name);
        let _ = fs::remove_dir_all(&kept);
        fs::create_dir_all(&kept)?;
        let workers = self.workers.iter().map(|w| (w.node.name.replace(' ', "-"), w.state_seen(self.has_namespaces())));
        for (name, dir) in workers.chain([("submitter".to_owned(), self.dir.join("submitter"))]) {
            for log in ["state/potluck/node.log", "node.err"] {
                let to = kept.join(format!("{name}.{}", log.rsplit('/').next().unwrap_or(log)));
                if let Ok(text) = fs::read(dir.join(log)) {
                    fs::write(to, text)?;
                }
            }
        }
        Ok(kept)
    }

    /// Jobs that each worker says it has run to their end, by its own log.
    pub fn served_by_workers(&self) -> Outcome<Vec<usize>> {
        self.workers
            .iter()
            .map(|w| Ok(w.node.records("worker")?.iter().filter(|r| r["end"] == "exited").count()))
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.submitter.kill();
        self.workers.clear();
        if std::env::var_os("LAB_KEEP").is_some() {
            eprintln!("lab: kept {}", self.dir.display());
        } else if let Err(e) = fs::remove_dir_all(&self.dir) {
            eprintln!("lab: {} could not be removed: {e}", self.dir.display());
        }
    }
}

/// Files whose sight in a worker would make every result worthless.
fn watched_files(projects: &[PathBuf]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = inside::DECOY_COMPILERS.iter().map(PathBuf::from).collect();
    files.extend(["/usr/include/stdio.h", "/usr/include/c++/12/vector", "/usr/include/zlib.h"].map(PathBuf::from));
    for project in projects {
        let mut found = Vec::new();
        crate::tree::walk(project, &mut |path, meta| {
            if meta.is_file() && inside::has_decoy(path) {
                found.push(path.to_path_buf());
            }
        });
        let stride = found.len().div_ceil(50).max(1);
        files.extend(found.into_iter().step_by(stride));
    }
    files
}

fn shows_the_host(root: &Path, file: &Path) -> bool {
    let inner = root.join(file.strip_prefix("/").unwrap_or(file));
    // A link would be followed in the host's root, not the worker's.
    let Ok(meta) = fs::symlink_metadata(&inner) else { return false };
    if !meta.is_file() {
        return meta.is_symlink();
    }
    let decoy_program = || Some(fs::read(&inner).ok()? == fs::read(inside::program().ok()?).ok()?);
    let (Ok(seen), Ok(host)) = (fs::read(&inner), fs::read(file)) else { return false };
    seen == host && seen != DECOY_TEXT.as_bytes() && decoy_program() != Some(true)
}

fn xdg(base: &Path) -> Vec<(String, String)> {
    let dir = |name: &str| base.join(name).to_string_lossy().into_owned();
    vec![
        ("XDG_CONFIG_HOME".into(), dir("config")),
        ("XDG_STATE_HOME".into(), dir("state")),
        ("XDG_CACHE_HOME".into(), dir("cache")),
        ("XDG_RUNTIME_DIR".into(), dir("run")),
        ("HOME".into(), dir("home")),
        ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
        ("LANG".into(), "C.UTF-8".into()),
    ]
}

fn make_xdg(person: Person, base: &Path) -> Outcome<()> {
    for name in ["config", "state", "cache", "run", "home"] {
        let dir = base.join(name);
        person.make_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn lines_of(stream: impl std::io::Read + Send + 'static, log: &Path) -> Outcome<Receiver<String>> {
    let mut log = fs::OpenOptions::new().create(true).append(true).open(log)?;
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // The log is for people who debug; a full disk must not end the reader.
            let _ = writeln!(log, "{line}");
            let _ = send.send(line);
        }
    });
    Ok(lines)
}

fn wait_line(lines: &Receiver<String>, wanted: &str, within: Duration) -> Outcome<String> {
    let end = std::time::Instant::now() + within;
    let mut heard = Vec::new();
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if line.starts_with(wanted) => return Ok(line),
            // The end of an earlier node is no news while the next one is being started.
            Ok(line) if line.starts_with("ended") && wanted != "starting" => {
                return Err(Trouble::new(format!("it ended at once: {line}")));
            }
            Ok(line) => heard.push(line),
            Err(why) => {
                let (heard, end) = (heard.join(" | "), why == RecvTimeoutError::Disconnected);
                let why = if end { "before it ended".into() } else { format!("within {within:?}") };
                return Err(Trouble::new(format!("no line \"{wanted}…\" {why}; heard: {heard}")));
            }
        }
    }
}

impl Submitter {
    fn new(plan: &Plan, dir: &Path, bin: &Path, hub: Option<&Hub>) -> Outcome<Self> {
        let person = Person::submitter();
        let base = dir.join("submitter");
        person.make_dir(&base)?;
        make_xdg(person, &base)?;
        // Of its own, so that what is left in it was left by this Lab.
        let temp = base.join("tmp");
        person.make_dir(&temp)?;
        let address = match hub {
            Some(_) => format!("{SUBMITTER_ADDRESS}:{PORT}"),
            None => format!("127.0.0.1:{}", free_port()?),
        };
        let node = Node {
            name: "submitter".into(),
            person,
            programs: bin.to_path_buf(),
            enter: Vec::new(),
            env: [xdg(&base), vec![("TMPDIR".into(), temp.to_string_lossy().into_owned())]].concat(),
            address: address.clone(),
        };
        let mut args = Vec::new();
        if let Some(hub) = hub {
            args = hub.enter();
            // The signal is set after the change of user, which would clear it: no node outlives a harness that is killed.
            let (uid, gid) = (person.uid.to_string(), person.gid.to_string());
            let user = ["setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups", "--pdeathsig", "KILL"];
            args.extend(user.map(String::from));
        }
        args.extend([bin.join("potluck").to_string_lossy().into_owned(), "node".into(), "--listen".into(), address]);
        if let Some(n) = plan.local_compiles {
            args.extend(["--local-compiles".into(), n.to_string()]);
        }
        args.extend(plan.submitter_args.iter().cloned());
        Ok(Self { node, args, running: None, out: base.join("node") })
    }

    /// Starts its node and waits until it says that it is ready.
    pub fn start(&mut self) -> Outcome<()> {
        let mut command = Command::new(&self.args[0]);
        command.args(&self.args[1..]).env_clear().envs(self.node.env.iter().cloned()).stdin(Stdio::null());
        if !is_root() {
            self.node.person.adopt(&mut command);
        }
        let err = fs::OpenOptions::new().create(true).append(true).open(self.out.with_extension("err"))?;
        command.stdout(Stdio::piped()).stderr(err).current_dir("/");
        let mut child = command.spawn().context(|| "starting the submitter's node".into())?;
        let lines = lines_of(child.stdout.take().expect("a pipe"), &self.out.with_extension("out"))?;
        let ready = wait_line(&lines, "potluck node ready", READY_WITHIN);
        self.running = Some((child, lines));
        ready.map(|_| ()).context(|| {
            let err = fs::read_to_string(self.out.with_extension("err")).unwrap_or_default();
            format!("the submitter's node; its stderr: {}", err.trim())
        })
    }

    /// Its process, in the host's view; 0 when it is not running.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or(0, |(child, _)| child.id())
    }

    /// SIGKILL to its node and everything that descends from it, as a power cut would.
    pub fn kill(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            for process in node::family(child.id()) {
                send_signal(process.pid, rustix::process::Signal::KILL);
            }
            let _ = child.wait();
        }
    }

    /// SIGKILL to the node process alone.
    pub fn kill_node_only(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and its exit code once it has ended.
    pub fn terminate(&mut self, within: Duration) -> Outcome<Option<i32>> {
        let Some((mut child, _)) = self.running.take() else { return Ok(None) };
        send_signal(child.id(), rustix::process::Signal::TERM);
        wait_until("the node ending after SIGTERM", within, || Ok(child.try_wait()?)).map(|s| s.code())
    }

    /// CPU seconds that its node and everything it started and waited for have used.
    pub fn cpu_seconds(&self) -> f64 {
        node::family(self.pid()).iter().map(|p| (p.cpu() + p.children_cpu()).as_secs_f64()).sum()
    }
}

/// A signal to one process by its id; it may be gone.
pub fn send_signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn free_port() -> Outcome<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Worker {
    fn start(plan: &Plan, index: usize, dir: &Path, bin: &Path, hub: Option<&Hub>) -> Outcome<Self> {
        let person = Person::worker(index);
        let name = format!("worker {}", index + 1);
        let state = worker_state(dir, index)?;
        if let Some(config) = &plan.workers[index].config {
            let dir = state.join("config/potluck");
            person.make_dir(&dir)?;
            fs::write(dir.join("config.toml"), config)?;
            person.own(&dir.join("config.toml"))?;
        }
        match hub {
            Some(hub) => Self::start_inside(&plan.workers[index], &plan.projects, index, name, person, state, bin, hub),
            None => Self::start_plain(&plan.workers[index], name, person, state, bin),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is one property of the worker; called once")]
    fn start_inside(
        plan: &WorkerPlan,
        projects: &[PathBuf],
        index: usize,
        name: String,
        person: Person,
        state: PathBuf,
        bin: &Path,
        hub: &Hub,
    ) -> Outcome<Self> {
        let mountpoint = state.with_extension("root");
        fs::create_dir_all(&mountpoint)?;
        let listen = format!("{}:{PORT}", worker_address(index));
        let programs = Path::new(PROGRAMS_DIR);
        let mut node = vec![programs.join("potluck").to_string_lossy().into_owned()];
        node.extend(plan.node_args(&listen));
        let spec = Spec {
            mountpoint,
            programs: bin.to_path_buf(),
            libraries: libraries(bin)?,
            state: state.clone(),
            state_bytes: plan.state_bytes,
            decoys: if plan.decoys { projects.to_vec() } else { Vec::new() },
            leaks: plan.leaks.clone(),
            uid: person.uid,
            gid: person.gid,
            node,
            env: [xdg(Path::new(STATE_DIR)), plan.env.clone()].concat(),
        };
        let mut helper = Command::new(inside::program()?)
            .args(["worker", &serde_json::to_string(&spec)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut commands = helper.stdin.take().expect("a pipe");
        let lines = lines_of(helper.stdout.take().expect("a pipe"), &state.with_extension("out"))?;
        let first = wait_line(&lines, "first", READY_WITHIN)?;
        let first: u32 = first.trim_start_matches("first ").parse().context(|| first.clone())?;
        writeln!(commands, "known")?;
        let enter = ["nsenter", "-t", &first.to_string(), "-m", "-n", "-i", "-u", "-p", "-S"];
        let mut enter: Vec<String> = enter.map(String::from).to_vec();
        enter.extend([person.uid.to_string(), "-G".into(), person.gid.to_string(), "--".into()]);
        let node =
            Node { name, person, programs: programs.to_path_buf(), enter, env: spec.env.clone(), address: listen };
        let mut worker = Self { node, first, state, helper, commands: Some(commands), lines };
        wait_line(&worker.lines, "ready", READY_WITHIN)?;
        hub.plug(index, first)?;
        if bin.join("potluck-node").is_file() {
            worker.start_node()?;
        }
        Ok(worker)
    }

    fn start_plain(plan: &WorkerPlan, name: String, person: Person, state: PathBuf, bin: &Path) -> Outcome<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let node = Node {
            name,
            person,
            programs: bin.to_path_buf(),
            enter: Vec::new(),
            env: [xdg(&state), plan.env.clone()].concat(),
            address,
        };
        let err = fs::File::create(state.join("node.err"))?;
        let mut command = node.command(plan.node_args(&node.address));
        let mut helper = command.stdout(Stdio::piped()).stderr(err).spawn()?;
        let lines = lines_of(helper.stdout.take().expect("a pipe"), &state.with_extension("out"))?;
        wait_line(&lines, "potluck node ready", READY_WITHIN)?;
        Ok(Self { node, first: helper.id(), state, helper, commands: None, lines })
    }

    /// Starts its node (again) and waits until it is ready.
    pub fn start_node(&mut self) -> Outcome<()> {
        let commands = self.commands.as_mut().context(|| "a worker on loopback is not started again".into())?;
        writeln!(commands, "go")?;
        wait_line(&self.lines, "starting", READY_WITHIN)?;
        let ready = wait_line(&self.lines, "potluck node ready", READY_WITHIN);
        ready.map(|_| ()).context(|| {
            let err = fs::read_to_string(self.state.join("node.err")).unwrap_or_default();
            format!("{}; its stderr: {}", self.node.name, err.trim())
        })
    }

    /// All its processes in the host's view, the Lab's own first process left out.
    pub fn processes(&self) -> Vec<Process> {
        let mut family = node::family(self.first);
        if self.commands.is_some() {
            family.retain(|p| p.pid != self.first);
        }
        family
    }

    /// Its processes of this name.
    pub fn named(&self, name: &str) -> Vec<Process> {
        let short: String = name.chars().take(15).collect();
        self.processes().into_iter().filter(|p| p.name == short).collect()
    }

    /// A signal to each of its processes of this name; how many there were.
    pub fn signal(&self, name: &str, signal: rustix::process::Signal) -> usize {
        let targets = self.named(name);
        targets.iter().for_each(|p| send_signal(p.pid, signal));
        targets.len()
    }

    /// Mounts that its node's process sees.
    pub fn mounts(&self) -> BTreeSet<String> {
        node::mounts(self.named("potluck-node").first().map_or(self.first, |p| p.pid))
    }

    /// Where the host sees everything that it writes.
    pub fn state_seen(&self, has_namespaces: bool) -> PathBuf {
        if has_namespaces { inside::below(&self.root(), Path::new(STATE_DIR)) } else { self.state.clone() }
    }

    /// Its root as the host can look at it.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.first))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The first process of the pid namespace takes every other one with it.
        for process in node::family(self.first) {
            send_signal(process.pid, rustix::process::Signal::KILL);
        }
        let _ = self.helper.kill();
        let _ = self.helper.wait();
    }
}

/// The folder that worker `index` of the Lab in `dir` sees as [`STATE_DIR`], with those of XDG in it.
pub fn worker_state(dir: &Path, index: usize) -> Outcome<PathBuf> {
    let person = Person::worker(index);
    let state = dir.join(format!("w{}", index + 1));
    person.make_dir(&state)?;
    make_xdg(person, &state)?;
    Ok(state)
}

/// Shared libraries and the loader of all programs in a folder, as ldd finds them, and the helper's.
fn libraries(bin: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut programs: Vec<PathBuf> = fs::read_dir(bin)?.flatten().map(|e| e.path()).collect();
    programs.push(inside::program()?);
    for program in programs {
        let output = Command::new("ldd").arg(&program).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        found.extend(text.split_whitespace().filter(|w| w.starts_with('/')).map(PathBuf::from).filter(|p| p.is_file()));
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_below_tmp_is_refused_because_its_sources_would_stay_local() {
        assert!(!base_dir().unwrap().starts_with("/tmp"));
    }

    #[test]
    fn the_host_itself_shows_the_host() {
        assert!(shows_the_host(Path::new("/"), Path::new("/etc/passwd")));
        assert!(!shows_the_host(Path::new("/nowhere"), Path::new("/etc/passwd")));
    }
}
