//! Five PCs on one switch: a network namespace each, cables that can be cut, and nodes that are told no address.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use potluck_tests::lab::{PROGRAMS, base_dir, built_programs};
use potluck_tests::node::Node;
use potluck_tests::person::Person;
use potluck_tests::wait::wait_until;
use potluck_tests::{Context, Outcome, Trouble, inside};
use potluck_wire::ipc::{self, Reply, Request};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// PCs of the office.
pub const COUNT: usize = 5;
/// A node's start, the sandbox's self-test on a busy machine included.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// Which addresses the PCs have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4 alone: IPv6 is switched off.
    V4,
    /// IPv6 alone.
    V6,
}

impl Family {
    /// Address of a PC in one of the numberings.
    fn address(self, numbering: usize, pc: usize) -> String {
        match self {
            Self::V4 => format!("10.78.{numbering}.{}", pc + 1),
            Self::V6 => format!("fd78:{numbering}::{}", pc + 1),
        }
    }
}

/// A network namespace that lives as long as its holder.
struct Space(Child);

impl Space {
    fn new() -> Outcome<Self> {
        let mut holder = Command::new(inside::program()?)
            .arg("hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context(|| "starting the holder of a network namespace".into())?;
        let stdout = holder.stdout.take().expect("stdout is a pipe");
        let space = Self(holder);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() != "ready" {
            return Err(Trouble::new("a network namespace could not be made (needs root)"));
        }
        space.run("ip link set lo up")?;
        Ok(space)
    }

    fn enter(&self) -> Vec<String> {
        ["nsenter", "-t", &self.0.id().to_string(), "-n", "--"].map(String::from).to_vec()
    }

    fn run(&self, command: &str) -> Outcome<String> {
        let enter = self.enter();
        let output = Command::new(&enter[0]).args(&enter[1..]).args(command.split(' ')).output();
        let output = output.context(|| command.to_owned())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Trouble::new(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One PC: its node, whoever asks it, and its namespace.
pub struct Pc {
    /// Commands of its user.
    pub node: Node,
    /// Node id, once it runs.
    pub id: String,
    dir: PathBuf,
    /// Every second one only submits: nobody's placing watches the links between two of them.
    serves: bool,
    running: Option<Child>,
    asker: Option<(Child, ChildStdin, BufReader<ChildStdout>)>,
    space: Space,
}

/// The switch and its PCs. Dropping it ends and removes everything, unless `LAB_KEEP=1`.
pub struct Office {
    /// The PCs.
    pub pcs: Vec<Pc>,
    family: Family,
    switch: Space,
    dir: PathBuf,
}

impl Office {
    /// PCs with cables and addresses; no node runs.
    pub fn new(family: Family) -> Outcome<Self> {
        let person = Person::submitter();
        let runs = base_dir()?.join("runs");
        person.make_dir(&runs)?;
        let dir = runs.join(format!("peers-{family:?}-{}", std::process::id()));
        let bin = dir.join("bin");
        person.make_dir(&bin)?;
        let built = built_programs()?;
        for program in PROGRAMS {
            fs::copy(built.join(program), bin.join(program)).context(|| format!("copying {program}"))?;
            fs::set_permissions(bin.join(program), fs::Permissions::from_mode(0o755))?;
        }
        let asker = bin.join("asker");
        fs::copy(std::env::current_exe()?, &asker)?;
        fs::set_permissions(&asker, fs::Permissions::from_mode(0o755))?;
        let switch = Space::new()?;
        // Nobody on the switch asks who wants which multicast: as on the switches of most offices, all get all.
        switch.run("ip link add office type bridge mcast_snooping 0")?;
        switch.run("ip link set office up")?;
        let mut office = Self { pcs: Vec::new(), family, switch, dir };
        for index in 0..COUNT {
            let pc = Pc::new(&office.dir, &bin, index)?;
            let pid = pc.space.0.id();
            office.switch.run(&format!("ip link add p{index} type veth peer name eth0 netns {pid}"))?;
            office.switch.run(&format!("ip link set p{index} master office up"))?;
            if family == Family::V4 {
                pc.space.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")?;
            }
            pc.space.run("ip link set eth0 up")?;
            office.pcs.push(pc);
        }
        office.number(0)?;
        Ok(office)
    }

    /// Gives every PC another address, so that nothing that was remembered leads anywhere.
    pub fn number(&self, numbering: usize) -> Outcome<()> {
        let bits = if self.family == Family::V4 { 24 } else { 64 };
        for (index, pc) in self.pcs.iter().enumerate() {
            pc.space.run("ip addr flush dev eth0 scope global")?;
            let address = self.family.address(numbering, index);
            pc.space.run(&format!("ip addr add {address}/{bits} dev eth0"))?;
        }
        // An IPv6 address is of use once nobody else has turned out to have it.
        wait_until("addresses without conflict", Duration::from_secs(10), || {
            let tentative = self.pcs.iter().map(|pc| pc.space.run("ip -6 addr show tentative"));
            let waits = tentative.collect::<Outcome<Vec<_>>>()?.iter().any(|said| !said.trim().is_empty());
            Ok((!waits).then_some(()))
        })
    }

    /// Lets multicast through or not, as some access points do.
    pub fn multicast(&self, passes: bool) -> Outcome<()> {
        let flag = if passes { "on" } else { "off" };
        (0..COUNT).try_for_each(|index| {
            self.switch.run(&format!("bridge link set dev p{index} mcast_flood {flag}")).map(drop)
        })
    }

    /// Pulls a cable, or plugs it in again.
    pub fn cable(&self, pc: usize, plugged: bool) -> Outcome<()> {
        // The PC's own end stays up: nothing there tells of the loss.
        let command = if plugged { "master office" } else { "nomaster" };
        self.switch.run(&format!("ip link set p{pc} {command}")).map(drop)
    }

    /// Starts all nodes that do not run, at the same time, and waits until all are ready. When the last of them was: the
    /// sandbox's self-test, at the lowest priority, takes as long as other programs let it.
    pub fn start(&mut self) -> Outcome<Instant> {
        let mut waiting = Vec::new();
        for (index, pc) in self.pcs.iter_mut().enumerate() {
            if pc.running.is_none() {
                waiting.push((index, pc.spawn()?));
            }
        }
        let mut last = Instant::now();
        for (index, lines) in waiting {
            let line = lines.recv_timeout(READY_WITHIN);
            let said = fs::read_to_string(self.pcs[index].dir.join("err")).unwrap_or_default();
            let ready =
                line.map_err(|_| Trouble::new(format!("{} is not ready: {said}", self.pcs[index].node.name)))?;
            last = last.max(ready);
        }
        for pc in &mut self.pcs {
            pc.connect()?;
        }
        Ok(last)
    }

    /// The first founds a team and takes the others in.
    pub fn form_team(&mut self) -> Outcome<()> {
        self.pcs[0].node.potluck(&["team", "create", "office"])?;
        let link = self.pcs[0].node.invite(COUNT - 1)?;
        for pc in &self.pcs[1..] {
            pc.node.potluck(&["team", "join", &link])?;
        }
        Ok(())
    }

    /// Waits until every one of these sees all the others.
    pub fn wait_all_see(&mut self, among: &[usize], within: Duration) -> Outcome<()> {
        let mut last = String::new();
        wait_until("all see each other", within, || {
            let ids: Vec<String> = among.iter().map(|pc| self.pcs[*pc].id.clone()).collect();
            for pc in among {
                let seen = self.pcs[*pc].connected()?;
                if let Some(missing) = ids.iter().find(|id| **id != self.pcs[*pc].id && !seen.contains(id)) {
                    last = format!("{} does not see {}", self.pcs[*pc].node.name, &missing[..8]);
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .context(|| last)
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        for pc in &mut self.pcs {
            pc.signal(Signal::KILL);
        }
        if std::env::var_os("LAB_KEEP").is_some() {
            eprintln!("peers: kept {}", self.dir.display());
        } else if let Err(e) = fs::remove_dir_all(&self.dir) {
            eprintln!("peers: {} could not be removed: {e}", self.dir.display());
        }
    }
}

impl Pc {
    fn new(dir: &Path, bin: &Path, index: usize) -> Outcome<Self> {
        let person = Person::worker(index);
        let own = dir.join(format!("pc{}", index + 1));
        person.make_dir(&own)?;
        let at = |name: &str| own.join(name).to_string_lossy().into_owned();
        for name in ["config", "state", "cache", "run", "home"] {
            person.make_dir(&own.join(name))?;
            fs::set_permissions(own.join(name), fs::Permissions::from_mode(0o700))?;
        }
        let env = vec![
            ("XDG_CONFIG_HOME".into(), at("config")),
            ("XDG_STATE_HOME".into(), at("state")),
            ("XDG_CACHE_HOME".into(), at("cache")),
            ("XDG_RUNTIME_DIR".into(), at("run")),
            ("HOME".into(), at("home")),
            ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
            ("LANG".into(), "C.UTF-8".into()),
            ("POTLUCK_LOG".into(), "debug".into()),
        ];
        let node = Node {
            name: format!("pc {}", index + 1),
            person,
            programs: bin.to_path_buf(),
            enter: Vec::new(),
            env,
            address: String::new(),
        };
        Ok(Self {
            node,
            id: String::new(),
            dir: own,
            serves: index.is_multiple_of(2),
            running: None,
            asker: None,
            space: Space::new()?,
        })
    }

    fn as_person(&self) -> Vec<String> {
        let (uid, gid) = (self.node.person.uid.to_string(), self.node.person.gid.to_string());
        let user = ["setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups", "--pdeathsig", "KILL"];
        user.map(String::from).to_vec()
    }

    fn spawn(&mut self) -> Outcome<std::sync::mpsc::Receiver<Instant>> {
        let mut args = self.space.enter();
        args.extend(self.as_person());
        args.push(self.node.programs.join("potluck").to_string_lossy().into_owned());
        let err = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("err"))?;
        let mut child = Command::new(&args[0])
            .args(&args[1..])
            .args(["node", "--name", &self.node.name])
            .args(if self.serves { &["--serve", "2"][..] } else { &[] })
            .env_clear()
            .envs(self.node.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(err)
            .current_dir("/")
            .spawn()
            .context(|| format!("starting {}", self.node.name))?;
        let stdout = child.stdout.take().expect("a pipe");
        self.running = Some(child);
        let (ready, waiting) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("potluck node ready") {
                    let _ = ready.send(Instant::now());
                }
            }
        });
        Ok(waiting)
    }

    fn connect(&mut self) -> Outcome<()> {
        if self.asker.is_none() {
            let args = self.as_person();
            let socket = self.dir.join("run/potluck/node.sock");
            let mut child = Command::new(&args[0])
                .args(&args[1..])
                .arg(self.node.programs.join("asker"))
                .arg("ask")
                .arg(socket)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let (stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
            self.asker = Some((child, stdin, BufReader::new(stdout)));
        }
        self.id = self.ask(&json!({"call": "status"}))?["node"]["id"].as_str().unwrap_or_default().to_owned();
        if self.id.is_empty() { Err(Trouble::new("status names no node id")) } else { Ok(()) }
    }

    /// A call of the api.
    pub fn ask(&mut self, call: &Value) -> Outcome<Value> {
        let (_, stdin, stdout) = self.asker.as_mut().context(|| "it was never started".into())?;
        writeln!(stdin, "{call}")?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        serde_json::from_str(&line).context(|| format!("{}: {call}: {line:?}", self.node.name))
    }

    /// Its peers as `potluck peers list --json` shows them.
    pub fn peers(&mut self) -> Outcome<Vec<Value>> {
        Ok(self.ask(&json!({"call": "status"}))?["peers"].as_array().cloned().unwrap_or_default())
    }

    /// Ids of peers with a link.
    pub fn connected(&mut self) -> Outcome<Vec<String>> {
        let all = self.peers()?;
        let up = all.iter().filter(|p| p["connected"] == true);
        Ok(up.filter_map(|p| p["id"].as_str().map(str::to_owned)).collect())
    }

    /// Whether its node runs.
    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// A signal to its node, and the wait for its end.
    pub fn signal(&mut self, signal: Signal) {
        let Some(mut child) = self.running.take() else { return };
        if let Some(pid) = Pid::from_raw(child.id() as i32) {
            let _ = kill_process(pid, signal);
        }
        let _ = child.wait();
    }

    /// A signal without waiting for the end.
    pub fn signal_only(&mut self, signal: Signal) -> Option<Child> {
        let child = self.running.take()?;
        if let Some(pid) = Pid::from_raw(child.id() as i32) {
            let _ = kill_process(pid, signal);
        }
        Some(child)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Pc {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some((mut child, ..)) = self.asker.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The process that asks a node as its user: a call a line in, an answer a line out.
pub fn answer_lines(socket: &str) -> Outcome<()> {
    for line in std::io::stdin().lock().lines() {
        let answer = ask_once(socket, &line?).unwrap_or_else(|e| json!({"error": e.to_string()}).to_string());
        println!("{answer}");
    }
    Ok(())
}

fn ask_once(socket: &str, call: &str) -> Outcome<String> {
    let mut stream = UnixStream::connect(socket).context(|| socket.to_owned())?;
    stream.write_all(&ipc::encode(&Request::Api { json: call.to_owned() }))?;
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        let len = ipc::frame_len(head).map_err(|e| Trouble::new(e.to_string()))?;
        let mut body = vec![0; len];
        stream.read_exact(&mut body)?;
        if let Reply::Api { json, last: true } = ipc::decode::<Reply>(&body).map_err(|e| Trouble::new(e.to_string()))? {
            return Ok(json);
        }
    }
}
