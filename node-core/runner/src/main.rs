//! The runner: one program, one thread. `sandbox` runs jobs of one submitter, `selftest` shows that it holds, `trace`
//! lists what a command looks up, `calls` what the system call filter knows. See ARCHITECTURE.md, "The runner".

mod calls;
mod count;
mod filter;
mod harvest;
mod job;
mod probe;
mod program;
mod root;
mod sandbox;
mod selftest;
mod supervise;
mod sys;
mod trace;
mod trapfs;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    match args.get(1).and_then(|a| a.to_str()) {
        Some("sandbox") if args.len() == 2 => sandbox::main(),
        Some("selftest") => selftest::main(&args[2..]),
        // Run by the self-test, inside the sandbox.
        Some("probe") => probe::main(&args[2..]),
        Some("trace") => trace::main(&args[2..]),
        Some("calls") if args.len() == 2 => list_calls(),
        _ => {
            eprintln!("usage: potluck-runner sandbox | selftest [--json] | trace OUT -- CMD ARGS... | calls");
            ExitCode::from(2)
        }
    }
}

/// One line for each call in the table: its number, its name, what a job is answered, and why. Everything that is not
/// listed answers ENOSYS.
fn list_calls() -> ExitCode {
    let allowed = calls::allowed().map(|call| (call, "reaches the kernel"));
    let mut all: Vec<_> = allowed.chain(calls::refused().map(|call| (call, "EPERM"))).collect();
    all.sort_unstable_by_key(|(call, _)| call.number);
    let mut text = String::new();
    for (call, answer) in all {
        let name = call.name.trim_start_matches("SYS_");
        text.push_str(&format!("{}\t{name}\t{answer}\t{}\n", call.number, call.why));
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
