//! Two nodes as their owners use them: the commands of `potluck team`, and what the other side shows.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A removal is known everywhere where it can be within this time.
const REMOVED_MAX: Duration = Duration::from_secs(5);

struct Node {
    child: Child,
    dir: tempfile::TempDir,
    address: String,
}

impl Node {
    fn start(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (child, address) = Self::run_node(&dir, name);
        Self { child, dir, address }
    }

    fn run_node(dir: &tempfile::TempDir, name: &str) -> (Child, String) {
        let mut command = program(dir);
        command.args(["node", "--listen", "127.0.0.1:0", "--name", name]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, line.trim().rsplit(' ').next().unwrap().to_owned())
    }

    fn restart(&mut self, name: &str) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.address) = Self::run_node(&self.dir, name);
    }

    fn run(&self, args: &[&str]) -> Output {
        program(&self.dir).arg("team").args(args).output().unwrap()
    }

    fn team(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "team {args:?}: {complained}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = program(&self.dir).args(args).arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Asks until it fits.
    fn until(&self, args: &[&str], what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let value = self.json(args);
            if fits(&value) {
                return value;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "not {what}: {value}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(dir: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_potluck-node"));
    command.env_clear().env("HOME", dir.path()).env("PATH", "/usr/bin:/bin").env("XDG_RUNTIME_DIR", dir.path());
    command
}

fn words(check: &Value) -> Vec<String> {
    check.as_array().unwrap().iter().map(|c| c["word"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_pc_asks_is_compared_let_in_and_taken_out_and_both_sides_show_it() {
    let (keeper, mut joiner) = (Node::start("keeper"), Node::start("joiner"));
    keeper.team(&["create", "Kernel lab"]);
    let mut asking = program(&joiner.dir);
    let asking = asking.args(["team", "ask", &keeper.address]).stdout(Stdio::piped()).stderr(Stdio::null());
    let asking = asking.spawn().unwrap();
    let pending = keeper.until(&["team", "pending"], "asked", |asks| !asks.as_array().unwrap().is_empty());
    assert_eq!(pending[0]["name"], "joiner");
    let theirs = joiner.until(&["team", "list"], "waiting", |list| list["joining"]["is"] == "waiting");
    assert_eq!(words(&theirs["joining"]["check"]), words(&pending[0]["check"]));
    keeper.team(&["approve", "joiner"]);
    let said = asking.wait_with_output().unwrap();
    let said_text = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success() && said_text.contains("now in the team Kernel lab"), "{said_text}");
    assert!(words(&pending[0]["check"]).iter().all(|word| said_text.contains(word)));
    let connected = |status: &Value| status["peers"].as_array().unwrap().iter().any(|peer| peer["connected"] == true);
    joiner.until(&["status"], "connected", connected);
    keeper.until(&["status"], "connected", connected);

    // The only keeper stays, a rename reaches the other side, and a removal as well.
    let refused = keeper.run(&["leave"]);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("only keeper"));
    joiner.team(&["rename", "tower"]);
    let named = |list: &Value| list["members"].as_array().unwrap().iter().any(|m| m["name"] == "tower");
    keeper.until(&["team", "list"], "renamed", named);
    let shown = |status: &Value| status["peers"].as_array().unwrap().iter().any(|peer| peer["name"] == "tower");
    keeper.until(&["status"], "tower among the machines", shown);
    // The name outlives a start, here and in what the other side shows.
    joiner.restart("joiner");
    joiner.until(&["status"], "called tower", |status| status["node"]["name"] == "tower");
    keeper.until(&["status"], "tower for the other side", |status| connected(status) && shown(status));
    joiner.until(&["status"], "connected again", connected);
    let removed = Instant::now();
    keeper.team(&["remove", "tower"]);
    joiner.until(&["status"], "told", |status| {
        status["problems"].as_array().unwrap().iter().any(|problem| problem["code"] == "R2")
    });
    keeper.until(&["status"], "cut off", |status| !connected(status));
    joiner.until(&["status"], "cut off", |status| !connected(status));
    assert!(removed.elapsed() < REMOVED_MAX, "{:?}", removed.elapsed());
    assert_eq!(joiner.run(&["pending"]).status.code(), Some(4), "it is in no team");
}

#[test]
fn who_left_or_was_removed_comes_back_with_a_new_key_by_itself() {
    let (keeper, joiner) = (Node::start("keeper"), Node::start("joiner"));
    keeper.team(&["create", "lab"]);
    let link = || keeper.team(&["invite"]).lines().last().unwrap().to_owned();
    let id = || joiner.json(&["team", "list"])["this_pc"].as_str().unwrap().to_owned();
    let key = joiner.dir.path().join(".local/state/potluck/identity.pk8");
    let keys = || std::fs::read(&key).unwrap();
    let is_in = |node: &str| {
        let list = keeper.json(&["team", "list"]);
        list["members"].as_array().unwrap().iter().any(|m| m["id"] == node)
    };
    joiner.team(&["join", &link()]);
    let (first, first_key) = (id(), keys());
    joiner.team(&["leave"]);
    assert_eq!(id(), first, "the key is changed when another one is needed");
    let codes =
        |status: Value| status["problems"].as_array().unwrap().iter().map(|p| p["code"].clone()).collect::<Vec<_>>();
    let told = codes(joiner.json(&["status"]));
    assert!(told.contains(&"no_team".into()) && !told.contains(&"R2".into()), "who left was not removed: {told:?}");
    joiner.team(&["join", &link()]);
    let second = id();
    assert!(second != first && is_in(&second) && keys() != first_key);
    keeper.until(&["team", "list"], "gone", |_| !is_in(&first));
    keeper.team(&["remove", "joiner"]);
    // Whether it has heard of that or not.
    joiner.team(&["join", &link()]);
    let third = id();
    assert!(third != second && is_in(&third) && !is_in(&second));
    // With the new key it is reached, and a new start finds it.
    let connected = |status: &Value| status["peers"].as_array().unwrap().iter().any(|peer| peer["connected"] == true);
    joiner.until(&["status"], "connected", connected);
    let Node { dir, .. } = &joiner;
    assert_eq!(
        std::fs::read_dir(dir.path().join(".local/state/potluck"))
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().contains("identity") })
            .count(),
        1,
        "the old keys are kept nowhere"
    );
}

#[test]
fn an_invitation_for_many_asks_a_keeper_and_can_be_taken_back() {
    let (keeper, joiner) = (Node::start("keeper"), Node::start("joiner"));
    keeper.team(&["create", "lab"]);
    let link = |said: String| said.lines().last().unwrap().to_owned();
    let many = link(keeper.team(&["invite", "--uses", "2"]));
    let list = keeper.json(&["team", "list"]);
    assert_eq!((&list["invites"][0]["approve"], &list["invites"][0]["uses_left"]), (&true.into(), &2.into()));
    keeper.team(&["uninvite", list["invites"][0]["id"].as_str().unwrap()]);
    let refused = joiner.run(&["join", &many]);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("unknown, used up or expired"));
    let free = link(keeper.team(&["invite", "--uses", "2", "--no-approve"]));
    let said = joiner.team(&["join", &free]);
    assert!(said.contains("The keeper's side showed: ") && said.contains("now in the team lab"), "{said}");
}
