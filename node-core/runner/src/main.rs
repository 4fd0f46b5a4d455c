//! The runner: one program, one thread. `sandbox` runs jobs of one submitter, `selftest` shows that it holds, `trace`
//! lists what a command looks up. See ARCHITECTURE.md, "The runner".

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

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    match args.get(1).and_then(|a| a.to_str()) {
        Some("sandbox") if args.len() == 2 => sandbox::main(),
        Some("selftest") => selftest::main(&args[2..]),
        // Run by the self-test, inside the sandbox.
        Some("probe") => probe::main(&args[2..]),
        Some("trace") => trace::main(&args[2..]),
        _ => {
            eprintln!("usage: potluck-runner sandbox | selftest [--json] | trace OUT -- CMD ARGS...");
            ExitCode::from(2)
        }
    }
}
