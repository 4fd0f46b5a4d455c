//! `make bench`: what a submitter pays for each compile, in CPU, bytes and time, against the local compiler in the
//! same run.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use potluck_tests::disk::{self, DesktopDisk};
use potluck_tests::judge::{GCC, Trial};
use potluck_tests::mode::PLAIN;
use potluck_tests::node::Status;
use potluck_tests::run::{Job, Seen, Via, cores, run_all, run_in_turn};
use potluck_tests::table::{median, quantile, render};
use potluck_tests::tree::{self, Baseline};
use potluck_tests::workload::Workload;
use potluck_tests::{Lab, Outcome, Plan, lab};
use serde_json::Value;

/// Measures a warm pool of processes on this machine.
#[derive(Parser)]
struct Args {
    /// Files of each project whose CPU time is compared; a tenth of it where files use Boost.
    #[arg(long, default_value_t = 100)]
    files: usize,
    /// Files whose latency is measured one at a time.
    #[arg(long, default_value_t = 200)]
    latency_files: usize,
    /// Projects.
    #[arg(long, value_delimiter = ',', default_values = ["git", "abseil", "libtorrent"])]
    workloads: Vec<String>,
    /// Parts: cpu, bytes, tree, latency.
    #[arg(long, value_delimiter = ',', default_values = ["cpu", "bytes", "tree", "latency"])]
    parts: Vec<String>,
}

/// Least ratio of local compile CPU to submitter CPU, by project.
const RATIO_MIN: &[(&str, f64)] = &[("git", 150.0), ("abseil", 250.0), ("libtorrent", 300.0)];
/// Builds before CPU is measured.
const WARMING_BUILDS: usize = 2;
/// Builds, one after the other, in which the workers' overhead is measured: the kernel tells the time of processes that
/// have ended in hundredths of a second, and their time while nobody compiles here belongs to no job.
const WORKER_BUILDS: usize = 3;
/// Bytes up for a new source whose headers are known, median; projects it is asked of.
const BYTES_UP_MAX: f64 = 8000.0;
const BYTES_OF: &[&str] = &["git", "abseil"];
/// Added wall time of one compile on an idle pool, median.
const LATENCY_MAX_MS: f64 = 10.0;
/// CPU of a worker besides the compile itself, per job; projects it is asked of. With Boost it is shown only: there an
/// object is 2 MB, and reading, packing, encrypting and sending that is most of the figure.
const WORKER_MAX_MS: f64 = 5.0;
const WORKER_OF: &[&str] = &["git", "abseil"];
/// Jobs that a worker refuses because its mirror is older, of all.
const REFUSALS_MAX: f64 = 0.01;

#[derive(Default)]
struct Figures {
    rows: Vec<Vec<String>>,
    missed: usize,
}

impl Figures {
    fn add(&mut self, what: String, value: f64, unit: &str, goal: Option<(&str, f64)>) {
        let ok = goal.is_none_or(|(sign, limit)| if sign == "≥" { value >= limit } else { value <= limit });
        self.missed += usize::from(!ok);
        let goal = goal.map_or_else(String::new, |(sign, limit)| format!("{sign} {limit}"));
        let word = if ok { "" } else { "MISSED" };
        println!("{what}: {value:.2} {unit} {word}");
        self.rows.push(vec![what, format!("{value:.2} {unit}"), goal, word.into()]);
    }
}

fn main() {
    let mut figures = Figures::default();
    let args = Args::parse();
    let result = disk::own_mounts().and_then(|()| bench(&args, &mut figures));
    println!();
    print!("{}", render(&["figure", "measured", "goal", ""], &figures.rows));
    let ok = result.is_ok() && figures.missed == 0 && !figures.rows.is_empty();
    let word = if ok { "ok" } else { "FAILED" };
    let why = result.err().map_or_else(String::new, |e| format!("; {e}"));
    println!("bench: {word}: {} figures, {} missed{why}", figures.rows.len(), figures.missed);
    std::process::exit(i32::from(!ok));
}

fn bench(args: &Args, figures: &mut Figures) -> Outcome<()> {
    let has = |part: &str| args.parts.iter().any(|p| p == part);
    let workloads = args.workloads.iter().map(|n| Workload::prepare(n)).collect::<Outcome<Vec<_>>>()?;
    let projects: Vec<_> = workloads.iter().flat_map(|w| w.roots.clone()).collect();
    let _disks = desktop_disks(&projects);
    let lab = Lab::start(Plan::new("bench", 2, 4, &projects))?;
    lab.sync_toolchains(&[GCC.c, GCC.cxx])?;
    for workload in &workloads {
        // Its files take a minute of CPU for what git's take a second.
        let files = if workload.name == "libtorrent" { args.files.div_ceil(10) } else { args.files };
        let sample = workload.clone().sample(files);
        let trial = Trial { workload: &sample, compiler: GCC, mode: PLAIN };
        if has("cpu") {
            cpu(&lab, &trial, figures)?;
        }
        if has("bytes") {
            bytes(&lab, &trial, figures)?;
        }
        if workload.name == "git" && has("tree") {
            in_tree(&lab, &Trial { workload, compiler: GCC, mode: PLAIN }, figures)?;
        }
        if workload.name == "git" && has("latency") {
            let sample = workload.clone().sample(args.latency_files);
            latency(&lab, &Trial { workload: &sample, compiler: GCC, mode: PLAIN }, figures)?;
        }
    }
    lab.check_isolation()
}

/// The projects' folders as on a desktop, where this harness may mount.
fn desktop_disks(projects: &[PathBuf]) -> Vec<DesktopDisk> {
    let disk = |(index, dir): (usize, &PathBuf)| -> Outcome<DesktopDisk> {
        DesktopDisk::over(dir, &lab::base_dir()?.join(format!("bench-disk-{index}")))
    };
    match projects.iter().enumerate().map(disk).collect() {
        Ok(disks) => disks,
        Err(why) => {
            println!("bench: on this machine's own file system: {why}");
            Vec::new()
        }
    }
}

fn pool(lab: &Lab) -> Via<'_> {
    Via::Pool(&lab.submitter.node)
}

/// Runs jobs and removes what they leave.
fn build(via: Via<'_>, trial: &Trial<'_>, jobs: &[Job], parallel: usize) -> Outcome<Vec<Seen>> {
    let before = Baseline::take(&trial.workload.roots);
    let seen = run_all(via, jobs, parallel, &|_| {})?;
    tree::remove(&before.changes(&trial.workload.roots)?.0)?;
    Ok(seen)
}

fn cpu(lab: &Lab, trial: &Trial<'_>, figures: &mut Figures) -> Outcome<()> {
    let name = &trial.workload.name;
    let jobs = trial.jobs()?;
    // Warm is when each worker has had each file: after one build every worker has only those that it compiled.
    for _ in 0..WARMING_BUILDS {
        build(pool(lab), trial, &jobs, 8)?;
    }
    let served = || -> Outcome<usize> { Ok(lab.served_by_workers()?.iter().sum()) };
    let (worker_before, served_before) = (worker_own_cpu(lab)?, served()?);
    for _ in 0..WORKER_BUILDS {
        build(pool(lab), trial, &jobs, 8)?;
    }
    let overhead_ms = 1000.0 * (worker_own_cpu(lab)? - worker_before) / (served()? - served_before).max(1) as f64;
    let served_before = served()?;
    let (mut local, mut wrapper, mut node) = (Duration::ZERO, Duration::ZERO, 0.0);
    // Local and pool in turns of ten files, so that whatever else the machine does falls on both.
    for some in jobs.chunks(10) {
        local += build(Via::Plain, trial, some, cores())?.iter().map(|s| s.cpu).sum::<Duration>();
        // The node takes in what the local compilers have written and what was removed of it: in a build that goes
        // through the pool there is nothing of that.
        lab.submitter.node.status()?;
        let before = lab.submitter.cpu_seconds();
        wrapper += build(pool(lab), trial, some, 8)?.iter().map(|s| s.cpu).sum::<Duration>();
        node += lab.submitter.cpu_seconds() - before;
    }
    let served = served()? - served_before;
    let submitter = wrapper.as_secs_f64() + node;
    let goal = RATIO_MIN.iter().find(|(n, _)| n == name).map(|(_, min)| ("≥", *min));
    figures.add(format!("{name}: local compile CPU ÷ submitter CPU"), local.as_secs_f64() / submitter, "x", goal);
    let per_job = |seconds: f64| 1000.0 * seconds / jobs.len() as f64;
    figures.add(format!("{name}: wrapper CPU per job"), per_job(wrapper.as_secs_f64()), "ms", None);
    figures.add(format!("{name}: node CPU per job"), per_job(node), "ms", None);
    figures.add(
        format!("{name}: part of jobs that were remote"),
        served as f64 / jobs.len() as f64,
        "",
        Some(("≥", 0.99)),
    );
    let goal = WORKER_OF.contains(&name.as_str()).then_some(("≤", WORKER_MAX_MS));
    figures.add(format!("{name}: worker CPU besides the compile, per job"), overhead_ms, "ms", goal);
    Ok(())
}

/// CPU seconds of the workers besides the compilers: nodes, sandboxes, and the process that each job has in its sandbox,
/// which is waited for together with the compiler that it waited for.
fn worker_own_cpu(lab: &Lab) -> Outcome<f64> {
    let mut own = 0.0;
    for worker in &lab.workers {
        let nodes = worker.named("potluck-node").into_iter().map(|p| p.cpu());
        let sandboxes = worker.named("potluck-runner").into_iter().map(|p| p.cpu() + p.children_cpu());
        let compilers_us: u64 = worker.node.records("worker")?.iter().filter_map(|r| r["cpu_us"].as_u64()).sum();
        own += nodes.chain(sandboxes).sum::<Duration>().as_secs_f64() - compilers_us as f64 / 1e6;
    }
    Ok(own)
}

fn bytes(lab: &Lab, trial: &Trial<'_>, figures: &mut Figures) -> Outcome<()> {
    let name = &trial.workload.name;
    let jobs = trial.jobs()?;
    build(pool(lab), trial, &jobs, 8)?;
    let sources: Vec<_> = trial.workload.units.iter().map(|u| u.source_path()).collect();
    let kept = sources.iter().map(|s| Ok(fs::read(s)?)).collect::<Outcome<Vec<_>>>()?;
    // A new source of the same length of text: what a programmer's edit makes.
    let stamp = Instant::now();
    for (index, (path, text)) in sources.iter().zip(&kept).enumerate() {
        let edited = [text.as_slice(), format!("\n/* edited {index} {stamp:?} */\n").as_bytes()].concat();
        fs::write(path, edited)?;
    }
    let before = lab.submitter.node.records("submitter")?.len();
    let built = build(pool(lab), trial, &jobs, 8);
    for (path, text) in sources.iter().zip(&kept) {
        fs::write(path, text)?;
    }
    built?;
    let records = lab.submitter.node.records("submitter")?;
    let new: Vec<&Value> = records.iter().skip(before).filter(|r| r["where"] == "remote").collect();
    let of = |key: &str| -> Vec<f64> { new.iter().filter_map(|r| r[key].as_f64()).collect() };
    let (up, down) = (of("bytes_up"), of("bytes_down"));
    let goal = BYTES_OF.contains(&name.as_str()).then_some(("≤", BYTES_UP_MAX));
    figures.add(format!("{name}: bytes up, source new, headers known, median"), median(&up), "B", goal);
    figures.add(format!("{name}: bytes up, 90 %"), quantile(&up, 0.9), "B", None);
    figures.add(format!("{name}: bytes down, median"), median(&down), "B", None);
    Ok(())
}

/// `-j64` in the source tree, every object new: the directories change with every job.
fn in_tree(lab: &Lab, trial: &Trial<'_>, figures: &mut Figures) -> Outcome<()> {
    let name = &trial.workload.name;
    let jobs = trial.jobs()?;
    let before = lab.submitter.node.status()?;
    let (cpu_before, start) = (lab.submitter.cpu_seconds(), Instant::now());
    build(pool(lab), trial, &jobs, 64)?;
    let (cpu, wall) = (lab.submitter.cpu_seconds() - cpu_before, start.elapsed());
    let after = lab.submitter.node.status()?;
    let delta = |pointer: &str| -> Outcome<f64> {
        let number = |status: &Status| status.number(pointer);
        Ok((number(&after)?.saturating_sub(number(&before)?)) as f64 / jobs.len() as f64)
    };
    figures.add(format!("{name} -j64: directory reads per job"), delta("/tree/directory_reads")?, "", None);
    figures.add(format!("{name} -j64: stats per job"), delta("/tree/stats")?, "", None);
    figures.add(format!("{name} -j64: bytes up per job"), delta("/bytes/up")?, "B", None);
    figures.add(
        format!("{name} -j64: version refusals per job"),
        delta("/jobs/version_refusals")?,
        "",
        Some(("≤", REFUSALS_MAX)),
    );
    figures.add(format!("{name} -j64: node CPU per job"), 1000.0 * cpu / jobs.len() as f64, "ms", None);
    figures.add(format!("{name} -j64: jobs per second"), jobs.len() as f64 / wall.as_secs_f64(), "/s", None);
    Ok(())
}

/// One compile at a time, local and pool in turns: the median of the pairs' differences.
fn latency(lab: &Lab, trial: &Trial<'_>, figures: &mut Figures) -> Outcome<()> {
    let name = &trial.workload.name;
    let jobs = trial.jobs()?;
    build(pool(lab), trial, &jobs, 8)?;
    let before = Baseline::take(&trial.workload.roots);
    let turns: Vec<_> = jobs.iter().flat_map(|job| [(Via::Plain, job), (pool(lab), job)]).collect();
    let seen = run_in_turn(&turns)?;
    let wall = |s: &Seen| s.wall.as_secs_f64() * 1000.0;
    let added: Vec<f64> = seen.chunks(2).map(|pair| wall(&pair[1]) - wall(&pair[0])).collect();
    tree::remove(&before.changes(&trial.workload.roots)?.0)?;
    figures.add(format!("{name} -j1: added latency, median"), median(&added), "ms", Some(("≤", LATENCY_MAX_MS)));
    figures.add(format!("{name} -j1: added latency, 90 %"), quantile(&added, 0.9), "ms", None);
    Ok(())
}
