//! Starts a Lab and runs a command beside it, with variables that run `potluck` on each node: for looking by hand.

use std::process::Command;

use clap::Parser;
use potluck_tests::person::is_root;
use potluck_tests::{Context, Lab, Outcome, Plan, workload};

/// A pool on this machine for one command, `sh` if none is given.
#[derive(Parser)]
struct Args {
    /// Workers.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Slots of each.
    #[arg(long, default_value_t = 4)]
    slots: u32,
    /// Projects whose folders workers must not see.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// The command; in it `$S` runs `potluck` as the submitter, `$W1`, `$W2`, … as a worker.
    command: Vec<String>,
}

fn main() {
    match run(&Args::parse()) {
        Ok(code) => std::process::exit(code),
        Err(e) => {
            eprintln!("lab: {e}");
            std::process::exit(1);
        }
    }
}

fn run(args: &Args) -> Outcome<i32> {
    let mut projects = Vec::new();
    for name in &args.workloads {
        projects.extend(workload::Workload::prepare(name)?.roots);
    }
    let lab = Lab::start(Plan::new("hand", args.workers, args.slots, &projects))?;
    lab.sync_toolchains(&["gcc", "g++"])?;
    let node = &lab.submitter.node;
    let (program, rest) = match args.command.split_first() {
        Some((program, rest)) => (program.as_str(), rest),
        None => ("sh", &[][..]),
    };
    let mut command = Command::new(program);
    command.args(rest).envs(node.env.iter().cloned());
    command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin", node.programs.display()));
    for (index, worker) in lab.workers.iter().enumerate() {
        let environment: Vec<String> = worker.node.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let enter = worker.node.enter.join(" ");
        let line = format!("env -i {} {enter} {}/potluck", environment.join(" "), worker.node.programs.display());
        command.env(format!("W{}", index + 1), line);
    }
    let own = match is_root() {
        true => format!("setpriv --reuid {} --regid {} --clear-groups ", node.person.uid, node.person.gid),
        false => String::new(),
    };
    command.env("S", format!("{own}{}/potluck", node.programs.display())).env("LAB", &lab.dir);
    let status = command.status().context(|| format!("running {program}"))?;
    Ok(status.code().unwrap_or(1))
}
