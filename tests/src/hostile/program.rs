//! A program that tries what it likes when it runs as a compiler, and a connection on which a worker runs it.

use std::fs;
use std::path::{Path, PathBuf};

use potluck_wire::pool;

use super::peer::{Hostile, Wire, down_to, file, with_file};
use crate::lab::base_dir;
use crate::person::Person;
use crate::{Context, Outcome, Trouble, workload};

/// Builds it as the submitter: with libraries, and without. `calls` are rows of its table of system calls.
pub fn build(calls: &[String]) -> Outcome<(PathBuf, PathBuf)> {
    let src = base_dir()?.join("src/hostile");
    Person::submitter().make_dir(&src)?;
    fs::write(src.join("calls.h"), calls.join("\n"))?;
    fs::write(src.join("gcc.c"), include_str!("../../attack/gcc.c"))?;
    workload::shell(&src, "gcc -O1 -o gcc gcc.c && gcc -O1 -static -o gcc-alone gcc.c", &[])?;
    Ok((src.join("gcc"), src.join("gcc-alone")))
}

/// A job that does what `attack` names.
pub fn job(id: u64, attack: &str, object: &str) -> pool::Job {
    let args = ["gcc", &format!("-DATTACK={attack}"), "-c", "x.c", "-o", &format!("/lab-work/out/{object}")];
    pool::Job {
        id,
        program: b"/lab-work/gcc".to_vec(),
        argv: args.iter().map(|a| a.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/usr/bin".to_vec()],
        cwd: b"/lab-work".to_vec(),
        umask: 0o022,
        outputs: vec![pool::OutputDir { path: b"/lab-work/out".to_vec(), whiteouts: Vec::new() }],
        ..pool::Job::default()
    }
}

/// A connection to the node at `address`, on which the program `alone` may be run.
pub fn arm<'a>(member: &'a Hostile, address: &str, alone: &Path) -> Outcome<Wire<'a>> {
    let wire = member.dial(address)?;
    let program = fs::read(alone)?;
    let mut ops = with_file("/lab-work", file(b"gcc", &program, 0o755));
    ops.dirs.extend(down_to("/lab-work/out").dirs.split_off(2));
    wire.delta(&ops);
    let holds = wire.holds().context(|| "the worker does not take the program".into())?;
    if !holds.iter().any(|f| f == "/lab-work/gcc") {
        return Err(Trouble::new(format!("the mirror lacks the program: {holds:?}")));
    }
    wire.credit()?;
    Ok(wire)
}
