//! `make demo`: zstd and abseil built over three workers on this machine, live, then compared with a local build.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use potluck_tests::judge::{Compiler, GCC, Trial};
use potluck_tests::mode::PLAIN;
use potluck_tests::node::Status;
use potluck_tests::run::Via;
use potluck_tests::workload::Workload;
use potluck_tests::{Lab, Outcome, Plan, Trouble, table, tree};

/// Shows Potluck working.
#[derive(Parser)]
struct Args {
    /// C++ files; all of abseil are 119.
    #[arg(long, default_value_t = 40)]
    cxx_files: usize,
    /// Compile commands at a time.
    #[arg(long, default_value_t = 12)]
    jobs: usize,
}

const WORKERS: usize = 3;
const SLOTS: u32 = 4;
/// Columns of the live display.
const WIDTH: usize = 79;

fn main() {
    match demo(&Args::parse()) {
        Ok(sentence) => println!("demo: ok: {sentence}"),
        Err(e) => {
            println!("demo: FAILED: {e}");
            std::process::exit(1);
        }
    }
}

fn demo(args: &Args) -> Outcome<String> {
    println!("Fetching two real projects: the zstd library (C) and abseil (C++) ...");
    let workloads = [Workload::prepare("zstd")?, Workload::prepare("abseil")?.sample(args.cxx_files)];
    let projects: Vec<_> = workloads.iter().flat_map(|w| w.roots.clone()).collect();
    let lab = Lab::start(Plan::new("demo", WORKERS, SLOTS, &projects))?;
    let where_they_are = match lab.has_namespaces() {
        true => "each in namespaces of its own, with decoys where project, compiler and headers are here",
        false => "plain processes on loopback, because this is not root",
    };
    println!("One submitter, {WORKERS} workers with {SLOTS} slots each, {where_they_are}.");
    println!("Sending the compilers to the workers ...");
    lab.sync_toolchains(&[GCC.c, GCC.cxx])?;
    let mut rows = Vec::new();
    let (mut files, mut equal, mut remote_all) = (0, 0, 0);
    for workload in &workloads {
        let trial = Trial { workload, compiler: GCC, mode: PLAIN };
        let (verdict, remote, seconds) = build(&lab, &trial, args.jobs)?;
        files += verdict.0;
        equal += verdict.1;
        remote_all += remote.iter().sum::<usize>();
        rows.push(row(&trial, GCC, verdict, &remote, seconds));
    }
    lab.check_isolation()?;
    println!();
    print!("{}", table::render(&["project", "files", "on workers", "identical", "seconds"], &rows));
    if equal < files || remote_all < files {
        return Err(Trouble::new(format!("{equal} of {files} identical, {remote_all} compiled by workers")));
    }
    Ok(format!("{files} files, all compiled by workers, every object, .d file and message identical to a local build"))
}

fn row(
    trial: &Trial<'_>,
    compiler: Compiler,
    verdict: (usize, usize),
    remote: &[usize],
    took: Duration,
) -> Vec<String> {
    let language = if trial.workload.units[0].cxx { compiler.cxx } else { compiler.c };
    vec![
        format!("{} ({language})", trial.workload.name),
        verdict.0.to_string(),
        remote.iter().map(usize::to_string).collect::<Vec<_>>().join(" + "),
        format!("{} of {}", verdict.1, verdict.0),
        format!("{:.1}", took.as_secs_f64()),
    ]
}

type Built = ((usize, usize), Vec<usize>, Duration);

/// Builds over the pool with a live display, then locally; (files, identical files), jobs of the workers, and
/// how long the pool took.
fn build(lab: &Lab, trial: &Trial<'_>, jobs: usize) -> Outcome<Built> {
    let total = trial.workload.units.len();
    let screen = Screen::new(&trial.workload.name, total);
    let before = lab.served_by_workers()?;
    let done = AtomicUsize::new(0);
    let node = &lab.submitter.node;
    // The pool goes first: nothing of a local build can help it.
    let start = Instant::now();
    let pool = std::thread::scope(|scope| {
        let pool = scope.spawn(|| {
            let roots = &trial.workload.roots;
            let baseline = tree::Baseline::take(roots);
            let seen = potluck_tests::run::run_all(Via::Pool(node), &trial.jobs()?, jobs, &|n| {
                done.store(n, Ordering::Relaxed);
            })?;
            let outputs = baseline.changes(roots)?.0;
            Ok::<_, Trouble>((seen, outputs))
        });
        while !pool.is_finished() {
            // A status that comes too late is only not shown.
            if let Ok(status) = lab.submitter.node.status() {
                screen.show(lab, &status, done.load(Ordering::Relaxed));
            }
            std::thread::park_timeout(Duration::from_millis(if screen.live { 150 } else { 2000 }));
        }
        pool.join().expect("the build does not panic")
    });
    let took = start.elapsed();
    screen.clear();
    let (seen, outputs) = pool?;
    let remote: Vec<usize> = lab.served_by_workers()?.iter().zip(&before).map(|(now, then)| now - then).collect();
    tree::remove(&outputs)?;
    println!("Comparing {} with a local build ...", trial.workload.name);
    let references = trial.references(true, &|n| screen.local(n))?;
    screen.clear();
    let verdict = trial.compare(&seen, outputs, &references);
    for difference in verdict.differences.iter().take(5) {
        println!("{}: {}", trial.workload.units[difference.unit].source, difference.what.join(", "));
    }
    if let Some(stray) = verdict.strays.first() {
        return Err(Trouble::new(format!("the pool left {}", stray.display())));
    }
    Ok(((verdict.judged, verdict.equal), remote, took))
}

/// One line for each worker, redrawn on a terminal; one line now and then elsewhere.
struct Screen<'a> {
    name: &'a str,
    total: usize,
    live: bool,
}

impl<'a> Screen<'a> {
    fn new(name: &'a str, total: usize) -> Self {
        Self { name, total, live: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn show(&self, lab: &Lab, status: &Status, done: usize) {
        let peers = status.0["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let running = |address: &str| {
            let peer = peers.iter().find(|p| p["addr"].as_str() == Some(address));
            peer.and_then(|p| p["running"].as_u64()).unwrap_or(0) as usize
        };
        let counts: Vec<usize> = lab.workers.iter().map(|w| running(&w.node.address)).collect();
        if !self.live {
            let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
            println!("{}: {done} of {} done, running on the workers: {}", self.name, self.total, counts.join(" "));
            return;
        }
        let bar = 40 * done / self.total.max(1);
        let mut text =
            format!("{:<9} [{}{}] {done}/{}\n", self.name, "#".repeat(bar), " ".repeat(40 - bar), self.total);
        for (worker, count) in lab.workers.iter().zip(&counts) {
            let slots = (SLOTS as usize).max(*count);
            let sources = self.sources(worker, *count);
            let line =
                format!("{:<9} [{}{}] {sources}", worker.node.name, "=".repeat(*count), ".".repeat(slots - count));
            text.push_str(&format!("{}\n", line.chars().take(WIDTH).collect::<String>()));
        }
        let lines = 1 + counts.len();
        let cleared: String = text.lines().map(|l| format!("\x1b[K{l}\n")).collect();
        print!("{cleared}\x1b[{lines}A");
        // A display that cannot be drawn must not stop the build.
        let _ = std::io::stdout().flush();
    }

    /// Names of what a worker compiles at this moment, from its own processes.
    fn sources(&self, worker: &potluck_tests::lab::Worker, count: usize) -> String {
        let compilers = ["cc1", "cc1plus"].iter().flat_map(|name| worker.named(name));
        let names = compilers.take(count).filter_map(|p| {
            let line = std::fs::read(format!("/proc/{}/cmdline", p.pid)).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let source = line.split('\0').find(|a| a.ends_with(".c") || a.ends_with(".cc"))?;
            Some(source.rsplit('/').next()?.to_string())
        });
        names.collect::<Vec<_>>().join(" ")
    }

    fn local(&self, n: usize) {
        if self.live {
            print!("\r\x1b[Klocal {n}/{}", self.total);
            let _ = std::io::stdout().flush();
        }
    }

    fn clear(&self) {
        if self.live {
            print!("\r\x1b[J");
            let _ = std::io::stdout().flush();
        }
    }
}
