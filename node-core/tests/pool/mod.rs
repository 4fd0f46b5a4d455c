//! Real nodes of one machine in one team: who gets whose jobs, by their own records. All see the same files, so what runs
//! where is what the records of both sides say.
#![allow(dead_code)] // Each test binary uses a part.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use potluck_node::identity::Identity;
use potluck_node::membership::Membership;
use potluck_node::transport::Link;
use potluck_wire::pool::{self as wire, Frame, frame::Kind};
use serde_json::Value;

pub use crate::programs::{NODE, until, wrapper};
use crate::tree_space::{Space, as_user};

/// Nodes share only as ordinary users: true if the test has run as one. The other programs are made as root first, because
/// the build folder may not be the other user's.
pub fn delegated(test: &str) -> bool {
    wrapper();
    as_user(test)
}

/// One PC: a node with folders of its own. It ends with this value.
pub struct Pc {
    pub dir: PathBuf,
    pub address: String,
    child: Option<Child>,
    env: Vec<(String, PathBuf)>,
    /// For sockets, whose paths must be short.
    run: tempfile::TempDir,
}

impl Pc {
    /// Starts `potluck-node node ARGS` with folders of its own.
    pub fn start(space: &Space, name: &str, args: &[&str]) -> Self {
        Self::start_with(space, name, args, &[])
    }

    /// The same, with more variables for the node alone.
    pub fn start_with(space: &Space, name: &str, args: &[&str], env: &[(&str, &Path)]) -> Self {
        let dir = space.path(name);
        fs::create_dir_all(&dir).unwrap();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), value.to_path_buf())).collect();
        let mut pc = Self { dir, address: String::new(), child: None, env, run: tempfile::tempdir().unwrap() };
        pc.again(&[&["--name", name], args].concat());
        pc
    }

    /// Starts it with the folders of before.
    pub fn again(&mut self, args: &[&str]) {
        let errors = fs::File::options().create(true).append(true).open(self.dir.join("errors")).unwrap();
        let mut node = self.of_program(Path::new(NODE));
        node.args(["node", "--listen", "127.0.0.1:0", "--no-discovery"]).args(args).envs(self.env.iter().cloned());
        let mut child = node.stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("ready"), "{line:?} {}", fs::read_to_string(self.dir.join("errors")).unwrap());
        self.address = line.trim().rsplit(' ').next().unwrap().to_owned();
        self.child = Some(child);
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ =
                rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM);
            let _ = child.wait();
        }
    }

    fn of_program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", &self.dir).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        for name in ["config", "state", "cache"] {
            command.env(format!("XDG_{}_HOME", name.to_uppercase()), self.dir.join(name));
        }
        command.env("XDG_RUNTIME_DIR", self.run.path());
        // Several nodes, compilers and tests share this machine's cores: whether a node answers in time is not the question.
        command.env("POTLUCK_PATIENCE_MS", "20000");
        // No bus: neither the machine's logind nor anybody's notifications.
        let no_bus = format!("unix:path={}", self.dir.join("no-bus").display());
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &no_bus).env("DBUS_SESSION_BUS_ADDRESS", no_bus);
        command
    }

    /// `potluck ARGS` of this PC's user.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.of_program(wrapper());
        command.args(args);
        command
    }

    /// What a command says; it must work.
    pub fn says(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[args, &["--json"]].concat())).unwrap()
    }

    pub fn id(&self) -> String {
        self.json(&["status"])["node"]["id"].as_str().unwrap().to_owned()
    }

    /// Its jobs as the "submitter", or those of others as the "worker"; what it compiled to prove a toolchain is none.
    pub fn records(&self, role: &str) -> Vec<Value> {
        let text = self.says(&["log", "--json"]);
        let all = text.lines().filter(|l| !l.trim().is_empty()).map(|l| serde_json::from_str::<Value>(l).unwrap());
        all.filter(|r| r["role"] == role && r["probe"] != true).collect()
    }

    /// The other side as this PC sees it, if it is listed.
    pub fn peer(&self, id: &str) -> Option<Value> {
        self.json(&["status"])["peers"].as_array().unwrap().iter().find(|p| p["id"] == id).cloned()
    }

    pub fn is_linked(&self) -> bool {
        self.json(&["status"])["peers"].as_array().unwrap().iter().any(|p| p["connected"] == true)
    }

    /// Compiles `name`.c to `object` in `dir`.
    pub fn compile(&self, dir: &Path, name: &str, object: &str) -> Output {
        let source = format!("{name}.c");
        self.command(&["gcc", "-O2", "-c", &source, "-o", object]).current_dir(dir).output().unwrap()
    }

    /// Says whether this PC's last job ran elsewhere, and where or why not.
    pub fn last_job(&self) -> (bool, String) {
        let record = self.records("submitter").pop().expect("a record");
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        (record["where"] == "remote", text(if record["where"] == "remote" { "worker" } else { "reason" }))
    }
}

impl Drop for Pc {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Puts `joiners` into a new team of `keeper`'s; every two of them are linked in the end.
pub fn team(keeper: &Pc, joiners: &[&Pc]) {
    keeper.says(&["team", "create", "lab"]);
    for (n, joiner) in joiners.iter().enumerate() {
        let link = keeper.says(&["team", "invite"]);
        joiner.says(&["team", "join", link.lines().last().unwrap()]);
        for other in std::iter::once(&keeper).chain(&joiners[..n]) {
            other.says(&["peers", "add", &joiner.address]);
            let id = joiner.id();
            until("a link of every two", || other.peer(&id).filter(|p| p["connected"] == true));
        }
    }
}

/// A source that takes gcc some seconds, and a short one that includes a header.
pub fn write_sources(dir: &Path, slow: &[&str], short: &[&str]) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("value.h"), "#define VALUE 7\n").unwrap();
    for (n, name) in slow.iter().enumerate() {
        let mut text = String::from("#include \"value.h\"\n");
        for f in 0..600 {
            text += &format!(
                "int f{f}(int *a, int n) {{ int s = {n}; for (int i = 0; i < n; i++) {{ a[i] = s += a[i] * VALUE + {f}; \
                 if (s & {}) s ^= a[n - i - 1]; }} return s; }}\n",
                f + 1
            );
        }
        fs::write(dir.join(format!("{name}.c")), text).unwrap();
    }
    for (n, name) in short.iter().enumerate() {
        fs::write(dir.join(format!("{name}.c")), format!("#include \"value.h\"\nint {name} = VALUE + {n};\n")).unwrap();
    }
}

/// The object that gcc makes by itself.
pub fn local_object(dir: &Path, name: &str) -> Vec<u8> {
    let object = dir.join(format!("{name}.local.o"));
    let mut gcc = Command::new("/usr/bin/gcc");
    gcc.args(["-O2", "-c", &format!("{name}.c"), "-o"]).arg(&object).current_dir(dir);
    assert!(gcc.status().unwrap().success());
    fs::read(object).unwrap()
}

/// What somebody keeps who copies a PC's folders before it is removed: its key, and the team as it was.
pub fn copy_of(pc: &Pc, to: &Path) -> Arc<Membership> {
    for part in ["", "team"] {
        fs::create_dir_all(to.join(part)).unwrap();
        for entry in fs::read_dir(pc.dir.join("state/potluck").join(part)).unwrap().flatten() {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(part).join(entry.file_name())).unwrap();
            }
        }
    }
    let identity = Arc::new(Identity::load_or_create(to).unwrap());
    assert_eq!(identity.id().to_string(), pc.id());
    Arc::new(Membership::open(identity, to).unwrap())
}

/// False: the link is over.
pub fn say(link: &Link, kind: Kind) -> bool {
    link.control_tx.blocking_send(Frame { kind: Some(kind) }).is_ok()
}

/// What a submitter says first.
pub fn hello() -> Kind {
    Kind::Hello(wire::Hello {
        major: 1,
        abilities: ["mirror-1", "credits-1", "probe-1"].map(String::from).to_vec(),
        name: "stubborn".into(),
        arch: std::env::consts::ARCH.into(),
        ..wire::Hello::default()
    })
}
