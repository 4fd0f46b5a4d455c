//! Builds with a real node, a real make and a real gcc: what is one build, what its numbers are, and what is kept.

mod programs;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, setsid};
use serde_json::Value;

use programs::{NODE, wrapper};

/// A folder of one node and its projects.
struct Place {
    dir: tempfile::TempDir,
    node: Option<Child>,
}

impl Place {
    fn new() -> Self {
        let mut place = Self { dir: tempfile::tempdir().unwrap(), node: None };
        place.start();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// In a session of its own, as a terminal would start it.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for name in ["CONFIG", "STATE", "CACHE"] {
            command.env(format!("XDG_{name}_HOME"), self.at(name));
        }
        command.env("XDG_RUNTIME_DIR", self.dir.path()).env("HOME", self.dir.path()).current_dir(self.dir.path());
        // No notification of a test on the desktop of whoever runs it.
        command.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent").stdin(Stdio::null());
        for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "POTLUCK_BUILD_ID", "POTLUCK_BUILD_NAME", "POTLUCK_SOCKET"] {
            command.env_remove(name);
        }
        // A shell's `&` starts the tests with both ignored, and so would be all that they start: a shell cannot take that
        // back, and a run that is to be ignored by Ctrl-C leaves it so.
        let as_a_terminal_does = || {
            for signal in [libc::SIGINT, libc::SIGQUIT] {
                // SAFETY: signal is async-signal-safe, and the usual action needs no handler.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            setsid().map(|_| ()).map_err(Into::into)
        };
        // SAFETY: two system calls and nothing else.
        unsafe { command.pre_exec(as_a_terminal_does) };
        command
    }

    fn start(&mut self) {
        wrapper();
        let mut node = self.command(NODE);
        let mut node = node.args(["node", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(node.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("ready"), "{line}");
        self.node = Some(node);
    }

    fn kill(&mut self) {
        let mut node = self.node.take().unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
    }

    fn potluck(&self, args: &[&str]) -> Output {
        self.command(wrapper()).args(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.potluck(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value["schema"], 1);
        value
    }

    /// A program of `sources` files, with `recipe` for its Makefile's rest.
    fn project(&self, name: &str, sources: usize, rest: &str) {
        let dir = self.at(name);
        std::fs::create_dir(&dir).unwrap();
        let objects: Vec<String> = (0..sources).map(|n| format!("f{n}.o")).collect();
        for n in 0..sources {
            std::fs::write(dir.join(format!("f{n}.c")), format!("int f{n}(void) {{ return {n}; }}\n")).unwrap();
        }
        std::fs::write(dir.join("main.c"), "int main(void) { return 0; }\n").unwrap();
        let text =
            format!("OBJECTS = main.o {}\nprog: $(OBJECTS)\n\t$(CC) -o $@ $(OBJECTS)\n{rest}\n", objects.join(" "));
        std::fs::write(dir.join("Makefile"), text).unwrap();
    }

    fn cc(&self) -> String {
        format!("CC={} gcc", wrapper().display())
    }

    /// Builds that are over, newest first, when there are so many.
    fn builds(&self, count: usize) -> Vec<Value> {
        let started = Instant::now();
        loop {
            let all = self.json(&["builds", "--json"])["builds"].as_array().unwrap().clone();
            if all.len() == count && all.iter().all(|b| b["end"] != "running") {
                return all;
            }
            assert!(all.len() <= count && started.elapsed() < Duration::from_secs(30), "{all:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut node) = self.node.take() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn sum(counts: &Value) -> u64 {
    ["remote", "here", "only", "failed"].iter().map(|kind| counts[*kind].as_u64().unwrap()).sum()
}

/// Every number of a report has its parts.
fn adds_up(report: &Value) {
    let counts = &report["build"]["counts"];
    assert_eq!(Some(sum(counts)), report["jobs"].as_u64(), "{report:#}");
    let jobs = |rows: &Value| -> u64 { rows.as_array().unwrap().iter().map(|r| r["jobs"].as_u64().unwrap()).sum() };
    assert_eq!(jobs(&report["reasons"]), counts["here"].as_u64().unwrap() + counts["only"].as_u64().unwrap());
    assert_eq!(Some(jobs(&report["machines"])), report["jobs"].as_u64());
}

#[test]
fn a_make_is_one_build_named_as_its_folder_and_survives_a_killed_node() {
    let mut place = Place::new();
    place.project("soup", 6, "");
    let made = place.command("make").args(["-C", "soup", "-j4", &place.cc()]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let builds = place.builds(1);
    assert_eq!(builds[0]["name"], "soup");
    assert_eq!(builds[0]["end"], "ok");
    assert_eq!(builds[0]["counts"]["only"], 1, "the link");
    assert_eq!(sum(&builds[0]["counts"]), 8);
    let report = place.json(&["report", "--json"]);
    adds_up(&report);
    let explained = place.json(&["explain", "last", "--json"]);
    let link = explained["local"].as_array().unwrap().iter().find(|r| r["reason"] == "link").unwrap();
    assert_eq!((&link["count"], &link["avoidable"]), (&Value::from(1), &Value::from(false)));
    let text = String::from_utf8(place.potluck(&["explain", "last"]).stdout).unwrap();
    assert!(text.lines().all(|l| l.chars().count() <= 80) && text.contains("next: "), "{text}");

    // The report has asked the history, which had to be on disk for that.
    place.kill();
    place.start();
    assert_eq!(place.builds(1), builds);
    assert_eq!(place.json(&["report", "--json"]), report);
    let source = place.at("soup/f3.c");
    let text = String::from_utf8(place.potluck(&["explain", source.to_str().unwrap()]).stdout).unwrap();
    assert!(text.starts_with("f3.c\nran here: "), "{text}");
}

#[test]
fn what_fails_here_is_counted_and_named() {
    let place = Place::new();
    place.project("burnt", 4, "");
    std::fs::write(place.at("burnt/f2.c"), "int f2(void) { return nothing; }\n").unwrap();
    let made = place.command("make").args(["-k", "-C", "burnt", &place.cc()]).output().unwrap();
    assert_eq!(made.status.code(), Some(2), "{made:?}");
    let build = &place.builds(1)[0];
    assert_eq!((&build["end"], &build["counts"]["failed"]), (&"failed".into(), &1.into()), "{build:#}");
    let report = place.json(&["report", "--json"]);
    adds_up(&report);
    assert_eq!(report["errors"][0]["file"], "f2.c", "{report:#}");
    assert_eq!(report["errors"].as_array().unwrap().len(), 1);

    // Made well, it is well.
    std::fs::write(place.at("burnt/f2.c"), "int f2(void) { return 2; }\n").unwrap();
    let made = place.command("make").args(["-C", "burnt", &place.cc()]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    assert_eq!(place.builds(2)[0]["end"], "ok");
}

#[test]
fn two_makes_of_one_script_in_two_folders_are_two_builds() {
    let place = Place::new();
    place.project("salad", 5, "");
    place.project("bread", 3, "");
    let cc = place.cc();
    let script = format!("make -C salad -j2 '{cc}' & make -C bread -j2 '{cc}' & wait");
    assert!(place.command("sh").args(["-c", &script]).stdout(Stdio::null()).status().unwrap().success());
    let mut seen: Vec<(String, u64)> =
        place.builds(2).iter().map(|b| (b["name"].as_str().unwrap().to_owned(), sum(&b["counts"]))).collect();
    seen.sort();
    assert_eq!(seen, [("bread".to_owned(), 5), ("salad".to_owned(), 7)]);
}

#[test]
fn a_make_that_starts_itself_in_many_folders_is_one_build() {
    let place = Place::new();
    let parts: Vec<String> = (0..12).map(|n| format!("feast/part{n}")).collect();
    std::fs::create_dir(place.at("feast")).unwrap();
    for part in &parts {
        place.project(part, 1, "");
    }
    std::fs::write(
        place.at("feast/Makefile"),
        "all: $(wildcard part*)\npart%: FORCE\n\t$(MAKE) -C $@\nFORCE:\n.PHONY: all FORCE\n",
    )
    .unwrap();
    let made = place.command("make").args(["-C", "feast", "-j4", &place.cc()]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let builds = place.builds(1);
    assert_eq!((&builds[0]["name"], sum(&builds[0]["counts"])), (&"feast".into(), 36));
}

#[test]
fn potluck_run_keeps_the_exit_code_and_takes_all_it_starts_for_one_build() {
    let place = Place::new();
    place.project("stew", 3, "");
    place.project("cake", 2, "");
    // No CC: the compilers on PATH are Potluck. One job is refused, because it must not run here and nobody else is there.
    let script = "make -C stew && make -C cake && POTLUCK_FALLBACK=0 gcc -c -o no.o cake/f0.c; sh -c 'exit 7'";
    let ran = place.potluck(&["run", "--name", "lunch", "--", "sh", "-c", script]);
    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
    assert!(!String::from_utf8_lossy(&ran.stderr).contains("Potluck: "), "no terminal, no summary: {ran:?}");
    let builds = place.builds(1);
    assert_eq!(
        (&builds[0]["name"], &builds[0]["end"], &builds[0]["exit"]),
        (&"lunch".into(), &"failed".into(), &7.into())
    );
    let report = place.json(&["report", "lunch", "--json"]);
    adds_up(&report);
    assert_eq!((sum(&report["build"]["counts"]), &report["build"]["counts"]["failed"]), (10, &Value::from(1)));
    assert_eq!(report["errors"][0]["file"], "cake/f0.c");

    let (trace, csv) = (place.at("t.json"), place.at("t.csv"));
    let args = ["report", "--trace", trace.to_str().unwrap(), "--csv", csv.to_str().unwrap()];
    assert!(place.potluck(&args).status.success());
    let trace: Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    let bars = trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "X").count();
    assert_eq!((bars, std::fs::read_to_string(csv).unwrap().lines().count()), (10, 11));

    let id = builds[0]["id"].as_str().unwrap().to_owned();
    assert!(id.len() == 6 && id.starts_with('b'), "{id}");
}

#[test]
fn a_run_with_a_terminal_ends_with_a_summary_unless_told_not_to() {
    let place = Place::new();
    place.project("pie", 2, "clean:\n\trm -f *.o prog");
    let on_terminal = |args: &[&str]| {
        let (mut own, mut other) = (-1, -1);
        let null = std::ptr::null_mut();
        // SAFETY: two live integers, and nothing else is asked for.
        let made = unsafe { libc::openpty(&raw mut own, &raw mut other, null, null.cast(), null.cast()) };
        assert_eq!(made, 0);
        // SAFETY: both were just opened, and belong to nobody else.
        let (own, other) = unsafe { (OwnedFd::from_raw_fd(own), OwnedFd::from_raw_fd(other)) };
        // What other tests start meanwhile must not keep the terminal open.
        for end in [&own, &other] {
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC).unwrap();
        }
        let mut command = place.command(wrapper());
        assert!(command.args(args).stdout(Stdio::null()).stderr(other).status().unwrap().success());
        drop(command);
        let mut said = Vec::new();
        // A terminal without another end is an error and not the end of a file.
        let _ = std::fs::File::from(own).read_to_end(&mut said);
        String::from_utf8(said).unwrap()
    };
    let said = on_terminal(&["run", "--", "make", "-C", "pie"]);
    assert!(said.contains("Potluck: 4 jobs · 0 elsewhere · 4 here ("), "{said}");
    assert!(said.contains("details: potluck explain last"), "{said}");
    assert_eq!(on_terminal(&["run", "-q", "--", "make", "-C", "pie", "clean", "prog"]), "");
}

#[test]
fn ctrl_c_ends_the_run_by_its_signal_and_the_build_is_cancelled() {
    let place = Place::new();
    // A compile that goes on until somebody stops it: its source is a pipe that nobody writes.
    place.project("jam", 0, "slow.o: slow.c\n\techo started; $(CC) -c -o $@ slow.c");
    assert!(Command::new("mkfifo").arg(place.at("jam/slow.c")).status().unwrap().success());
    let mut run = place.command(wrapper());
    let mut run = run.args(["run", "--", "make", "-s", "-C", "jam", "slow.o"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    // As a terminal does it: the whole group. Again when nothing comes of it for long, as a person does: gcc ignores the
    // signal for a moment while it starts. Not sooner: make takes a second one for an error of the first one's recipe.
    let mut pressed: Option<Instant> = None;
    let ended = programs::until("the end of the run", || {
        if pressed.is_none_or(|at| at.elapsed() > Duration::from_secs(20)) {
            pressed = Some(Instant::now());
            kill_process_group(Pid::from_child(&run), Signal::INT).unwrap();
        }
        run.try_wait().unwrap()
    });
    assert_eq!(ended.signal(), Some(2));
    let builds = place.builds(1);
    assert_eq!((&builds[0]["end"], &builds[0]["exit"]), (&"cancelled".into(), &130.into()));
}

#[test]
fn a_run_that_was_started_to_ignore_ctrl_c_goes_on_and_so_does_its_command() {
    let place = Place::new();
    let mut run = place.command(wrapper());
    // As nohup and a shell's `&` do it.
    // SAFETY: signal is async-signal-safe, and to ignore one needs no handler.
    unsafe {
        run.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_IGN);
            Ok(())
        })
    };
    let script = "echo ready; read line; echo $line";
    let mut run =
        run.args(["run", "--", "sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(run.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    kill_process_group(Pid::from_child(&run), Signal::INT).unwrap();
    run.stdin.take().unwrap().write_all(b"went on\n").unwrap();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\nwent on\n");
    assert_eq!(run.wait().unwrap().code(), Some(0));
}

#[test]
fn a_signal_to_the_run_alone_reaches_its_command() {
    let place = Place::new();
    let mut run = place.command(wrapper());
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut run = run.args(["run", "--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut line).unwrap();
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(9));
}

#[test]
fn without_a_node_the_command_runs_all_the_same_and_one_line_says_so() {
    let mut place = Place::new();
    place.kill();
    let ran = place.potluck(&["run", "--", "sh", "-c", "echo made; exit 3"]);
    assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(3), &b"made\n"[..]));
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("no node runs here"), "{said}");
    assert_eq!(place.potluck(&["run", "-q", "--", "true"]).stderr, b"");
    assert_eq!(place.potluck(&["run", "--", "no-such-command-here"]).status.code(), Some(127));
}

#[test]
fn a_damaged_history_is_moved_aside_and_no_build_suffers() {
    let mut place = Place::new();
    place.project("tart", 1, "");
    place.kill();
    let file = place.at("STATE/potluck/builds.redb");
    std::fs::write(&file, vec![0x5a; 100_000]).unwrap();
    place.start();
    assert!(place.potluck(&["run", "--", "make", "-C", "tart"]).status.success());
    let builds = place.builds(1);
    assert_eq!(place.json(&["report", "--json"])["jobs"], 3);
    assert_eq!(std::fs::read(file.with_extension("redb.damaged")).unwrap().len(), 100_000);
    let log = std::fs::read_to_string(place.at("STATE/potluck/node.log")).unwrap();
    assert!(log.contains("the history of builds cannot be read"), "{log}");

    // A folder has its name: that goes out of the way, too, and nothing of it is lost.
    place.kill();
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("in the way")).unwrap();
    place.start();
    assert!(place.potluck(&["run", "--", "make", "-B", "-C", "tart"]).status.success());
    assert_ne!(place.builds(1), builds);
    assert!(file.is_file() && file.with_extension("redb.damaged2").join("in the way").is_dir());
}
