//! Sharing as its owner meets it: a real node, its command line, its settings file, logind on a bus of its own, and a
//! second node that sees what the first one gives.

mod programs;
mod tree_space;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use programs::{NODE, until, wrapper};
use serde_json::Value;
use tree_space::{Space, as_user};

/// Nodes share only as ordinary users.
fn delegated(test: &str) -> bool {
    // As root first: the build folder may not be the other user's.
    wrapper();
    as_user(test)
}

/// Folders of one node, and a machine of its own to sense.
struct Home {
    dir: PathBuf,
    env: Vec<(String, String)>,
    /// Whose node it is, if not the test's.
    uid: Option<u32>,
    /// For sockets, whose paths must be short.
    run: tempfile::TempDir,
}

impl Home {
    fn new(space: &Space, name: &str, config: &str) -> Self {
        Self::at(space.path(name), config)
    }

    fn at(dir: PathBuf, config: &str) -> Self {
        for sub in ["config/potluck", "proc/pressure", "power"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        let run = tempfile::tempdir().unwrap();
        let home = Self { dir: dir.clone(), env: Vec::new(), uid: None, run };
        home.write("config/potluck/config.toml", config);
        home.write("proc/stat", "cpu  0 0 0 1000 0 0 0 0 0 0\n");
        home.write("proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\n");
        let path = |sub: &str| dir.join(sub).display().to_string();
        let mut env = vec![
            ("PATH".to_owned(), std::env::var("PATH").unwrap()),
            ("HOME".to_owned(), path("")),
            ("POTLUCK_PROC".to_owned(), path("proc")),
            ("POTLUCK_POWER_SUPPLY".to_owned(), path("power")),
            // No bus: the machine's own logind must not decide here.
            ("DBUS_SYSTEM_BUS_ADDRESS".to_owned(), format!("unix:path={}", path("no-bus"))),
            ("TZ".to_owned(), "UTC".to_owned()),
        ];
        for name in ["config", "state", "cache"] {
            env.push((format!("XDG_{}_HOME", name.to_uppercase()), path(name)));
        }
        env.push(("XDG_RUNTIME_DIR".to_owned(), home.run.path().display().to_string()));
        Self { env, ..home }
    }

    /// Gives everything to another user.
    fn give(&mut self, uid: u32) {
        let give = |path: &Path| std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
        let mut open = vec![self.dir.clone(), self.run.path().to_owned()];
        while let Some(path) = open.pop() {
            give(&path);
            open.extend(fs::read_dir(&path).into_iter().flatten().map(|entry| entry.unwrap().path()));
        }
        self.uid = Some(uid);
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.join(name), text).unwrap();
    }

    fn config(&self) -> String {
        fs::read_to_string(self.dir.join("config/potluck/config.toml")).unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(NODE);
        command.args(args).env_clear().envs(self.env.iter().cloned()).stdin(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command says; it must work.
    fn says(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.says(&["status", "--json"])).unwrap()
    }

    fn slots(&self) -> u64 {
        self.status()["sharing"]["slots"].as_u64().unwrap()
    }

    fn code(&self) -> String {
        self.status()["sharing"]["code"].as_str().unwrap().to_owned()
    }

    fn problem(&self, code: &str) -> Option<Value> {
        self.status()["problems"].as_array().unwrap().iter().find(|p| p["code"] == code).cloned()
    }

    fn start(&self, args: &[&str]) -> Node {
        let all = [&["node", "--listen", "127.0.0.1:0"], args].concat();
        let errors = fs::File::options().create(true).append(true).open(self.dir.join("errors")).unwrap();
        let mut child = self.command(&all).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("ready"), "{line:?} {}", fs::read_to_string(self.dir.join("errors")).unwrap());
        Node { child }
    }
}

struct Node {
    child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// All cores, and hardly any room on the disk asked for: the machine of the tests may have little.
const DEDICATED: &str = "# mine\n[share]\npreset = \"dedicated\"\ncores_away = \"all\"\nkeep_free_disk = \"1MiB\"\n";

fn cores() -> u64 {
    std::thread::available_parallelism().unwrap().get() as u64
}

#[test]
fn nothing_is_shared_before_the_owner_says_so_and_the_switch_survives_a_restart() {
    if delegated("nothing_is_shared_before_the_owner_says_so_and_the_switch_survives_a_restart") {
        return;
    }
    let space = Space::new("sharing-switch");
    let home = Home::new(&space, "a", DEDICATED);
    let node = home.start(&[]);
    let sharing = &home.status()["sharing"];
    assert_eq!((&sharing["slots"], &sharing["short"]), (&0.into(), &"Not sharing".into()));
    let said = home.run(&["share", "pause", "1h"]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("nothing to pause"), "{said:?}");
    home.says(&["share", "on"]);
    until("slots", || (home.slots() == cores()).then_some(()));
    assert!(home.says(&["share", "on"]).starts_with("Ready to help with"));
    drop(node);
    let _node = home.start(&[]);
    until("slots after a restart", || (home.slots() == cores()).then_some(()));
    assert_eq!(home.says(&["share", "off"]), "Sharing is off.\n");
    assert_eq!(home.slots(), 0);
    assert_eq!(home.config(), DEDICATED.to_owned() + "enabled = false\n");
}

#[test]
fn a_pause_shows_its_end_survives_a_restart_and_is_over_when_resumed_or_when_its_time_has_come() {
    if delegated("a_pause_shows_its_end_survives_a_restart_and_is_over_when_resumed_or_when_its_time_has_come") {
        return;
    }
    let space = Space::new("sharing-pause");
    let home = Home::new(&space, "a", &(DEDICATED.to_owned() + "enabled = true\n"));
    let node = home.start(&[]);
    until("slots", || (home.slots() > 0).then_some(()));
    let said = home.says(&["share", "pause", "2h"]);
    assert!(said.starts_with("Sharing is paused until ") && said.contains(':'), "{said}");
    assert_eq!(home.slots(), 0);
    drop(node);
    let _node = home.start(&[]);
    let sharing = home.status()["sharing"].clone();
    assert_eq!(sharing["state"]["is"], "paused", "{sharing}");
    let left = sharing["state"]["until_ms"].as_u64().unwrap() - potluck_node::sharing::unix_ms();
    assert!(left > 7_000_000 && left <= 7_200_500, "{left}");
    assert!(home.says(&["share", "pause", "tomorrow"]).contains("paused until tomorrow 08:00"));
    assert_eq!(home.says(&["share", "pause", "finish"]), "Sharing is paused until you turn it back on.\n");
    home.says(&["share", "resume"]);
    until("slots after resume", || (home.slots() > 0).then_some(()));
    assert!(home.says(&["share", "pause", "1s"]).starts_with("Sharing is paused until "));
    until("slots when the second is over", || (home.slots() > 0).then_some(()));
}

/// Programs at ordinary priority keep the self-test from the CPU for as long as they want; here it waits for a word.
#[test]
fn the_switch_and_a_pause_work_while_the_self_test_waits_for_the_cpu() {
    if delegated("the_switch_and_a_pause_work_while_the_self_test_waits_for_the_cpu") {
        return;
    }
    let space = Space::new("sharing-check");
    let mut home = Home::new(&space, "a", DEDICATED);
    let (runner, gate) = (home.dir.join("runner"), home.dir.join("gate"));
    let real = Path::new(NODE).with_file_name("potluck-runner");
    assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let script = format!("#!/bin/sh\nread word < {}\nexec {} \"$@\"\n", gate.display(), real.display());
    fs::write(&runner, script).unwrap();
    fs::set_permissions(&runner, fs::Permissions::from_mode(0o755)).unwrap();
    home.env.push(("POTLUCK_RUNNER".to_owned(), runner.display().to_string()));
    let _node = home.start(&[]);
    home.says(&["share", "on"]);
    let (slots, code, on) = (home.slots(), home.code(), home.status()["sharing"]["on"].clone());
    assert_eq!((slots, code.as_str(), on), (0, "cpu_busy", true.into()));
    home.says(&["share", "pause", "1h"]);
    assert_eq!(home.code(), "paused");
    home.says(&["share", "resume"]);
    assert_eq!(home.says(&["share", "off"]), "Sharing is off.\n");
    home.says(&["share", "on"]);
    // One word, for one self-test: a second one would wait for ever.
    fs::write(&gate, "go\n").unwrap();
    until("slots when the test is over", || (home.slots() == cores()).then_some(()));
}

#[test]
fn a_server_where_nothing_tells_who_is_there_counts_as_in_use_and_says_what_to_do() {
    if delegated("a_server_where_nothing_tells_who_is_there_counts_as_in_use_and_says_what_to_do") {
        return;
    }
    let space = Space::new("sharing-server");
    // No bus with a logind, no display.
    let home = Home::new(&space, "a", "[share]\nkeep_free_disk = \"1MiB\"\n");
    let _node = home.start(&["--headless"]);
    let said = home.says(&["share", "on"]);
    until("held, because nobody is seen", || (home.code() == "in_use").then_some(()));
    assert_eq!((home.slots(), &home.status()["sharing"]["presence"]), (0, &Value::Null));
    let fix = "potluck config set share.preset dedicated";
    let status = home.says(&["status"]);
    assert!(status.contains("counts as in use") && status.contains(&format!("fix: {fix}")), "{status}");
    let doctor = String::from_utf8(home.run(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("warn  presence") && doctor.contains(&format!("fix: {fix}")), "{doctor}");
    let again = home.says(&["share", "on"]);
    assert!(again.contains(&format!("hint: {fix}")), "{said:?} {again}");
    // A full disk is a problem of its own, though it is not why nothing is shared now.
    let disk = rustix::fs::statvfs(&home.dir).unwrap();
    let more = ((disk.f_bavail * disk.f_frsize) >> 20) + 10_240;
    home.says(&["config", "set", "share.keep_free_disk", &format!("{more}MiB")]);
    assert!(home.problem("D1").is_some() && home.code() == "in_use", "a setting holds once the command has ended");
    home.says(&["config", "set", "share.keep_free_disk", "1MiB"]);
    // And that is all it takes.
    home.says(&["config", "set", "share.preset", "dedicated"]);
    until("slots", || (home.slots() > 0).then_some(()));
    assert!(!home.says(&["status"]).contains(fix));
    assert!(!String::from_utf8(home.run(&["doctor"]).stdout).unwrap().contains(fix));
}

#[test]
fn memory_that_is_short_again_and_again_is_a_problem_with_a_way_out() {
    if delegated("memory_that_is_short_again_and_again_is_a_problem_with_a_way_out") {
        return;
    }
    let space = Space::new("sharing-memory");
    let home = Home::new(&space, "a", &(DEDICATED.to_owned() + "enabled = true\n"));
    let _node = home.start(&[]);
    let memory = |available: u64| {
        home.write("proc/meminfo", &format!("MemTotal: 16000000 kB\nMemAvailable: {available} kB\n"));
    };
    for time in 0..3 {
        until("slots", || (home.slots() > 0).then_some(()));
        assert_eq!(home.problem("M1"), None, "{time} times are no problem");
        memory(1_500_000);
        until("memory", || (home.code() == "memory").then_some(()));
        memory(12_000_000);
    }
    assert!(home.problem("M1").unwrap()["fix"].as_str().unwrap().contains("share.cores_away"));
}

#[test]
fn an_explicit_number_is_given_at_once_whatever_the_machine_does_and_is_not_written_down() {
    if delegated("an_explicit_number_is_given_at_once_whatever_the_machine_does_and_is_not_written_down") {
        return;
    }
    let space = Space::new("sharing-promise");
    let home = Home::new(&space, "a", "");
    home.write("proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable: 1 kB\n");
    let _node = home.start(&["--serve", "3"]);
    assert_eq!(home.slots(), 3);
    home.says(&["share", "off"]);
    assert_eq!(home.slots(), 0);
    home.says(&["share", "on"]);
    assert_eq!(home.slots(), 3);
    home.says(&["share", "pause"]);
    assert_eq!(home.slots(), 0);
    home.says(&["share", "resume"]);
    assert_eq!(home.slots(), 3);
    assert_eq!(home.config(), "");
}

#[test]
fn load_memory_disk_and_the_battery_take_slots_and_give_them_back() {
    if delegated("load_memory_disk_and_the_battery_take_slots_and_give_them_back") {
        return;
    }
    let space = Space::new("sharing-machine");
    let home = Home::new(&space, "a", &(DEDICATED.to_owned() + "enabled = true\n"));
    let _node = home.start(&[]);
    until("slots", || (home.slots() == cores()).then_some(()));
    let memory = |available: u64| {
        home.write("proc/meminfo", &format!("MemTotal: 16000000 kB\nMemAvailable: {available} kB\n"));
    };
    memory(1_500_000);
    until("memory", || (home.code() == "memory").then_some(()));
    memory(12_000_000);
    until("memory is back", || (home.slots() == cores()).then_some(()));
    // Disks that have more than the largest number that can be set are not full by any.
    let disk = rustix::fs::statvfs(&home.dir).unwrap();
    let more = ((disk.f_bavail * disk.f_frsize) >> 20) + 10_240;
    if more <= 1 << 20 {
        home.says(&["config", "set", "share.keep_free_disk", &format!("{more}MiB")]);
        until("the disk", || (home.code() == "disk").then_some(()));
        assert!(home.problem("D1").unwrap()["fix"].as_str().unwrap().contains("share.keep_free_disk"));
        home.says(&["config", "set", "share.keep_free_disk", "1MiB"]);
        until("room on the disk", || (home.slots() == cores()).then_some(()));
        assert_eq!(home.problem("D1"), None);
    }
    fs::create_dir(home.dir.join("power/BAT0")).unwrap();
    for (name, text) in [("capacity", "90"), ("status", "Discharging"), ("type", "Battery")] {
        home.write(&format!("power/BAT0/{name}"), text);
    }
    until("the battery", || (home.code() == "battery").then_some(()));
    home.says(&["config", "set", "share.battery", "above-80"]);
    until("the battery will do", || (home.slots() == cores()).then_some(()));
    // Every core is the owner's from now on.
    let begun = Instant::now();
    until("the owner's load", || {
        let ticks = begun.elapsed().as_millis();
        home.write("proc/stat", &format!("cpu  {ticks} 0 0 1000 0 0 0 0 0 0\n"));
        (home.code() == "cpu_busy").then_some(())
    });
    assert_eq!(home.slots(), 0);
}

/// logind's stand-in on a bus of its own.
struct Bus {
    daemon: Child,
    mock: Child,
    address: String,
    _run: tempfile::TempDir,
}

/// A bus that any user of this machine may use, as the system's.
const BUS: &str = r#"<busconfig><listen>ADDRESS</listen><auth>EXTERNAL</auth><policy context="default"><allow user="*"/>
<allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/><allow send_requested_reply="true"
send_type="method_return"/><allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
<allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>"#;

impl Bus {
    fn start() -> Self {
        let run = tempfile::tempdir().unwrap();
        let address = format!("unix:path={}", run.path().join("bus").display());
        let config = run.path().join("bus.conf");
        fs::set_permissions(run.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&config, BUS.replace("ADDRESS", &address)).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .arg("--config-file")
            .arg(config)
            .args(["--nofork", "--nopidfile", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:"), "{line:?}");
        let mock = Command::new("/usr/bin/python3")
            .args(["-m", "dbusmock", "--template", "logind"])
            .env("DBUS_SYSTEM_BUS_ADDRESS", &address)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let bus = Self { daemon, mock, address, _run: run };
        until("logind's stand-in", || bus.tell("/org/freedesktop/login1", "org.freedesktop.DBus.Peer.Ping", &[]));
        bus
    }

    fn tell(&self, path: &str, method: &str, args: &[&str]) -> Option<()> {
        let mut command = Command::new("dbus-send");
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.address).args(["--system", "--print-reply"]);
        command.arg("--dest=org.freedesktop.login1").args([path, method]).args(args);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success().then_some(())
    }

    fn log_in(&self, uid: u32) {
        let uid = format!("uint32:{uid}");
        let args = ["string:c7", "string:seat0", &uid, "string:tester", "boolean:true"];
        self.tell("/org/freedesktop/login1", "org.freedesktop.DBus.Mock.AddSession", &args).unwrap();
    }

    fn hint(&self, locked: bool) {
        let script = "import dbus, sys\n\
            o = dbus.SystemBus().get_object('org.freedesktop.login1', '/org/freedesktop/login1/session/c7')\n\
            o.UpdateProperties('org.freedesktop.login1.Session', {'LockedHint': sys.argv[1] == '1'}, \
            dbus_interface='org.freedesktop.DBus.Mock')";
        let mut command = Command::new("/usr/bin/python3");
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.address).args(["-c", script, if locked { "1" } else { "0" }]);
        assert!(command.status().unwrap().success());
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        for child in [&mut self.mock, &mut self.daemon] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A bus lets in users that the machine knows, and a node that shares is not root's.
fn known_user() -> u32 {
    let me = rustix::process::getuid();
    if !me.is_root() {
        return me.as_raw();
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let uids = users.lines().filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok());
    uids.filter(|uid| *uid != 0 && *uid != 65_534).max().expect("a system has more users than root")
}

#[test]
fn a_locked_screen_gives_slots_after_five_seconds_and_unlocking_takes_them_back() {
    wrapper();
    let uid = known_user();
    let space = tempfile::Builder::new().prefix("potluck-lock").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(space.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let bus = Bus::start();
    bus.log_in(uid);
    let mut home = Home::at(space.path().join("a"), "[share]\nenabled = true\nkeep_free_disk = \"1MiB\"\n");
    home.give(uid);
    home.env.retain(|(name, _)| name != "DBUS_SYSTEM_BUS_ADDRESS");
    home.env.push(("DBUS_SYSTEM_BUS_ADDRESS".into(), bus.address.clone()));
    let _node = home.start(&[]);
    until("logind is heard", || (home.status()["sharing"]["presence"] == "logind").then_some(()));
    until("the sandbox is known to work", || (home.status()["sandbox"]["checked"] == true).then_some(()));
    // What must not happen has no event to wait for: longer than the five seconds after which a lock gives slots.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!((home.slots(), home.code().as_str()), (0, "in_use"));
    let locked = Instant::now();
    bus.hint(true);
    until("slots behind the lock", || (home.slots() > 0).then_some(()));
    let waited = locked.elapsed();
    assert!(waited >= Duration::from_secs(5), "{waited:?}");
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    bus.hint(false);
    let unlocked = Instant::now();
    until("in use again", || (home.slots() == 0 && home.code() == "in_use").then_some(()));
    assert!(unlocked.elapsed() < Duration::from_secs(5), "{:?}", unlocked.elapsed());
    println!("slots {waited:?} after the lock, none {:?} after it was opened", unlocked.elapsed());
}

#[test]
fn another_pc_sees_a_worker_that_is_in_use_and_gets_its_slots_when_it_is_free() {
    if delegated("another_pc_sees_a_worker_that_is_in_use_and_gets_its_slots_when_it_is_free") {
        return;
    }
    let space = Space::new("sharing-peer");
    let worker =
        Home::new(&space, "worker", "[share]\nenabled = true\ncores_away = \"all\"\nkeep_free_disk = \"1MiB\"\n");
    let submitter = Home::new(&space, "submitter", "");
    let _worker = worker.start(&[]);
    let _submitter = submitter.start(&[]);
    worker.says(&["team", "create", "t"]);
    let link = worker.says(&["team", "invite"]);
    submitter.says(&["team", "join", link.lines().last().unwrap()]);
    submitter.says(&["peers", "add", worker.status()["node"]["listen"].as_str().unwrap()]);
    let peer = |key: &str| submitter.status()["peers"][0][key].clone();
    until("the worker is seen in use", || (peer("held") == "in_use").then_some(()));
    assert_eq!((peer("slots"), peer("credits")), (cores().into(), 0.into()), "it may give all, and gives none now");
    let listed = submitter.says(&["peers", "list"]);
    assert!(listed.contains("in use"), "{listed}");
    // A compiler travels there and is proved later; nobody waits for a colleague's coffee break.
    let added = submitter.says(&["toolchain", "add", "/usr/bin/gcc"]);
    assert!(added.contains("later: ") && added.contains("when it gives its cores"), "{added}");
    worker.says(&["config", "set", "share.preset", "dedicated"]);
    until("its slots", || (peer("credits").as_u64() > Some(0) && peer("held") == "").then_some(()));
    until("it is proved", || submitter.says(&["toolchain", "list"]).contains("ready").then_some(()));
    worker.says(&["share", "pause"]);
    until("the pause is seen", || (peer("held") == "paused" && peer("credits") == 0).then_some(()));
    // Switched off it is no worker at all, and one again when it is on.
    worker.says(&["share", "off"]);
    until("no worker", || (peer("slots") == 0 && peer("not_serving") == "sharing is off there").then_some(()));
    worker.says(&["share", "on"]);
    until("a worker again", || (peer("credits").as_u64() > Some(0)).then_some(()));
}
