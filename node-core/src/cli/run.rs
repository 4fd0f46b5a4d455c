//! `potluck run -- CMD`: one command and everything it starts is one build. The command keeps its terminal, its signals and
//! its exit code; without a node it runs all the same.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicI32, Ordering};

use serde_json::{Value, json};

use super::{Failure, answer_of, ask, builds, call};
use crate::client::Conversation;
use crate::dirs::Dirs;

/// A shell's code for what is there and cannot be executed ...
const EXIT_NOT_EXECUTABLE: u8 = 126;
/// ... and for what is not there.
const EXIT_NOT_FOUND: u8 = 127;

/// What `potluck run` was told.
pub(super) struct Options {
    pub(super) is_quiet: bool,
    pub(super) name: Option<String>,
    pub(super) no_wrap: bool,
    pub(super) command: Vec<OsString>,
}

/// The command's process, for the signal handler; 0: none.
static CHILD: AtomicI32 = AtomicI32::new(0);

/// A signal that came before the command's process was known here, though the command may run already; 0: none.
static EARLY: AtomicI32 = AtomicI32::new(0);

extern "C" fn pass_on(signal: libc::c_int) {
    match CHILD.load(Ordering::SeqCst) {
        0 => EARLY.store(signal, Ordering::SeqCst),
        // SAFETY: kill is async-signal-safe and touches no memory.
        child => unsafe {
            libc::kill(child, signal);
        },
    }
}

/// Sets a signal's action; what it was before.
fn act_on(signal: libc::c_int, action: libc::sighandler_t) -> libc::sighandler_t {
    // SAFETY: the actions are the two named constants, `pass_on`, which is async-signal-safe, or what this returned before.
    unsafe { libc::signal(signal, action) }
}

/// The build that a node counts; the connection is the sign that this process lives.
struct Begun {
    id: String,
    _connection: Conversation,
}

fn begin(options: &Options) -> Result<Begun, Failure> {
    let argv: Vec<_> = options.command.iter().map(|a| a.to_string_lossy()).collect();
    let cwd = std::env::current_dir().unwrap_or_default();
    let named = options.name.clone().or_else(|| std::env::var("POTLUCK_BUILD_NAME").ok());
    let mut connection = ask(&json!({"call": "build_begin", "name": named, "argv": argv, "cwd": cwd}))?;
    let answer = answer_of(&mut connection)?.unwrap_or_default();
    let id = answer["id"].as_str().ok_or_else(|| Failure::from("the node gave the build no id".to_owned()))?;
    Ok(Begun { id: id.to_owned(), _connection: connection })
}

/// Runs the command; ends as it ended.
pub(super) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let begun = begin(options);
    if let (Err(failure), false) = (&begun, options.is_quiet) {
        eprintln!("potluck: everything compiles on this PC: {}", failure.text);
    }
    let mut command = Command::new(&options.command[0]);
    command.args(&options.command[1..]);
    if let Ok(begun) = &begun {
        command.env("POTLUCK_BUILD_ID", &begun.id);
    }
    if let Some(name) = &options.name {
        command.env("POTLUCK_BUILD_NAME", name);
    }
    if !options.no_wrap && begun.is_ok() {
        let own = Dirs::from_env().masquerade();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let rest = std::env::split_paths(&path).filter(|dir| *dir != own);
        if let Ok(joined) = std::env::join_paths(std::iter::once(own.clone()).chain(rest)) {
            command.env("PATH", joined);
        }
    }
    // Ctrl-C reaches the command by itself, which is in the same group of the terminal: this process outlives it and
    // reports. What only this process is told is passed on.
    let before: Vec<_> = [libc::SIGINT, libc::SIGQUIT].map(|s| (s, act_on(s, libc::SIG_IGN))).into();
    let passed: Vec<_> =
        [libc::SIGTERM, libc::SIGHUP].map(|s| (s, act_on(s, pass_on as *const () as libc::sighandler_t))).into();
    // A handler is not inherited, and whoever had a signal ignored has it ignored there.
    let inherited: Vec<_> = before.iter().chain(&passed).map(|&(s, was)| (s, was)).collect();
    for &(signal, was) in &passed {
        if was == libc::SIG_IGN {
            act_on(signal, libc::SIG_IGN);
        }
    }
    // SAFETY: signal is async-signal-safe, and the vector is read only.
    unsafe {
        command.pre_exec(move || {
            for &(signal, was) in &inherited {
                act_on(signal, was);
            }
            Ok(())
        });
    }
    let ended = command.spawn().and_then(|mut child| {
        CHILD.store(child.id() as i32, Ordering::SeqCst);
        match EARLY.swap(0, Ordering::SeqCst) {
            0 => {}
            early => pass_on(early),
        }
        let ended = child.wait();
        CHILD.store(0, Ordering::SeqCst);
        ended
    });
    let (exit, signal) = match &ended {
        Ok(status) => (status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)), status.signal()),
        Err(error) => {
            eprintln!("potluck: {}: {error}", options.command[0].to_string_lossy());
            let is_missing = error.kind() == std::io::ErrorKind::NotFound;
            (i32::from(if is_missing { EXIT_NOT_FOUND } else { EXIT_NOT_EXECUTABLE }), None)
        }
    };
    if let Ok(begun) = &begun {
        let report = call(&json!({"call": "build_end", "id": begun.id, "exit": exit}));
        if let Ok(report) = report
            && !options.is_quiet
            && std::io::stderr().is_terminal()
        {
            summary(&report).iter().for_each(|line| eprintln!("{line}"));
        }
    }
    if let Some(signal) = signal {
        // A shell and make act upon how a command ended, not only upon its number.
        let no_core = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Core, no_core);
        act_on(signal, libc::SIG_DFL);
        // SAFETY: ends this process by the signal that ended the command.
        unsafe { libc::raise(signal) };
    }
    Ok(ExitCode::from((exit & 255) as u8))
}

/// Two lines of UX 3.1.
fn summary(report: &Value) -> [String; 2] {
    let counts = &report["build"]["counts"];
    let n = |v: &Value| v.as_u64().unwrap_or(0);
    let reasons: Vec<String> = report["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .take(3)
        .map(|r| format!("{} {}", r["jobs"], r["code"].as_str().unwrap_or_default()))
        .collect();
    let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    let first = format!(
        "Potluck: {} jobs · {} elsewhere · {} here{why} · {} failed",
        n(&report["jobs"]),
        n(&counts["remote"]),
        n(&counts["here"]) + n(&counts["only"]),
        n(&counts["failed"])
    );
    let took = builds::clock(n(&report["build"]["took_ms"]));
    let faster = builds::faster(report).map_or_else(String::new, |f| format!(", about {f}x faster than alone"));
    let machines = match n(&report["build"]["machines"]) {
        0 => String::new(),
        1 => " · 1 machine".to_owned(),
        n => format!(" · {n} machines"),
    };
    [first, format!("Potluck: {took}{faster}{machines} · details: potluck explain last")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_the_report_says() {
        let report = json!({
            "jobs": 1759, "alone_ms": 400_000,
            "build": {"took_ms": 112_000, "machines": 7, "counts": {"remote": 1684, "here": 44, "only": 31, "failed": 0}},
            "reasons": [{"code": "link", "jobs": 31}, {"code": "faster-here", "jobs": 28}, {"code": "march-native", "jobs": 16}],
        });
        assert_eq!(
            summary(&report),
            [
                "Potluck: 1759 jobs · 1684 elsewhere · 75 here (31 link, 28 faster-here, 16 march-native) · 0 failed",
                "Potluck: 1:52, about 3.6x faster than alone · 7 machines · details: potluck explain last",
            ]
        );
    }
}
