//! `make identity`: every object, dependency file, message and side output of the pool equals the local compiler's.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use clap::Parser;
use potluck_tests::fuzz::Ground;
use potluck_tests::judge::{CLANG, Compiler, GCC, Trial, Verdict};
use potluck_tests::mode::{Mode, PLAIN, SAMPLED};
use potluck_tests::run::{Via, cores};
use potluck_tests::workload::{self, Workload};
use potluck_tests::{Context, Lab, Outcome, Plan, lab, table, tree};

/// Compares the pool with the local compiler.
#[derive(Parser)]
struct Args {
    /// Files in all, spread over the workloads; 0 means every file.
    #[arg(long, default_value_t = 0)]
    files: usize,
    /// Which projects.
    #[arg(long, value_delimiter = ',', default_values = workload::ALL)]
    workloads: Vec<String>,
    /// Which compilers.
    #[arg(long, value_delimiter = ',', default_values = ["gcc", "clang"])]
    compilers: Vec<String>,
    /// Which modes besides the plain one: names, "all" or "none".
    #[arg(long, value_delimiter = ',', default_values = ["all"])]
    modes: Vec<String>,
    /// Files of each workload in each mode besides the plain one.
    #[arg(long, default_value_t = 6)]
    sample: usize,
    /// Each mode on one workload only, in turn, instead of on all.
    #[arg(long)]
    rotate: bool,
    /// Rounds of header fuzzing.
    #[arg(long, default_value_t = 0)]
    fuzz: u64,
    /// Its first seed; without it the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// Local against local only: proves the harness, needs no node.
    #[arg(long)]
    control: bool,
    /// Local results of earlier runs on the same day are used again.
    #[arg(long)]
    keep_references: bool,
    /// Workers.
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Slots of each.
    #[arg(long, default_value_t = 4)]
    slots: u32,
    /// Compile commands at a time.
    #[arg(long, default_value_t = 12)]
    jobs: usize,
    /// Leaves out the second build in the same tree.
    #[arg(long)]
    once: bool,
    /// Goes on when a project cannot be fetched.
    #[arg(long)]
    missing_ok: bool,
}

/// Below this part of remote jobs, by the workers' logs, a run shows nothing.
const REMOTE_MIN: f64 = 0.99;

#[derive(Default)]
struct Sum {
    files: usize,
    judged: usize,
    equal: usize,
    partly: usize,
    remote: usize,
    expected_remote: usize,
    failures: Vec<String>,
}

fn main() {
    let args = Args::parse();
    match identity(&args) {
        Ok(sum) => {
            sum.failures.iter().for_each(|f| println!("missed: {f}"));
            let percent = 100.0 * sum.remote as f64 / sum.expected_remote.max(1) as f64;
            let ok = sum.failures.is_empty() && sum.judged > 0;
            let word = if ok { "ok" } else { "FAILED" };
            let remote = if args.control { "control, no pool".into() } else { format!("{percent:.1} % remote") };
            println!(
                "identity: {word}: {} files, {} judged, {} equal, {} judged but for outputs that no compiler repeats, {remote}",
                sum.files, sum.judged, sum.equal, sum.partly
            );
            std::process::exit(i32::from(!ok));
        }
        Err(e) => {
            println!("identity: FAILED: {e}");
            std::process::exit(1);
        }
    }
}

fn compilers(names: &[String]) -> Outcome<Vec<Compiler>> {
    let known = |name: &String| [GCC, CLANG].into_iter().find(|c| c.c == name);
    names.iter().map(|n| known(n).context(|| format!("no compiler \"{n}\"; there are gcc and clang"))).collect()
}

fn modes(names: &[String]) -> Outcome<Vec<Mode>> {
    let mut modes = Vec::new();
    for name in names {
        match name.as_str() {
            "none" => {}
            "all" => modes.extend_from_slice(SAMPLED),
            name => modes.push(*SAMPLED.iter().find(|m| m.name == name).context(|| format!("no mode \"{name}\""))?),
        }
    }
    Ok(modes)
}

fn prepare(args: &Args) -> Outcome<(Vec<Workload>, Vec<String>)> {
    let (mut workloads, mut missing) = (Vec::new(), Vec::new());
    for name in &args.workloads {
        progress(&format!("preparing {name}"));
        match Workload::prepare(name) {
            Ok(workload) => workloads.push(workload),
            Err(e) => missing.push(format!("{name} is not there: {e}")),
        }
    }
    if args.files > 0 {
        let total: usize = workloads.iter().map(|w| w.units.len()).sum();
        // Each workload's part by its size, but of each at least eight files.
        let part = |w: &Workload| (w.units.len() * args.files / total.max(1)).max(8);
        workloads = workloads
            .into_iter()
            .map(|w| {
                let n = part(&w);
                w.sample(n)
            })
            .collect();
    }
    Ok((workloads, missing))
}

fn identity(args: &Args) -> Outcome<Sum> {
    let (compilers, modes) = (compilers(&args.compilers)?, modes(&args.modes)?);
    let (workloads, missing) = prepare(args)?;
    let mut sum = Sum::default();
    if !args.missing_ok {
        sum.failures.extend(missing.clone());
    }
    missing.iter().for_each(|m| println!("note: {m}"));
    let lab = match args.control {
        true => None,
        false => {
            let mut projects: Vec<PathBuf> = workloads.iter().flat_map(|w| w.roots.clone()).collect();
            projects.extend([lab::base_dir()?.join("src/prefix"), Ground::place()?]);
            let lab = Lab::start(Plan::new("identity", args.workers, args.slots, &projects))?;
            if !lab.has_namespaces() {
                println!("note: not root: workers are plain processes here and could see the host's files");
            }
            let drivers: Vec<&str> = compilers.iter().flat_map(|c| [c.c, c.cxx]).collect();
            lab.sync_toolchains(&drivers)?;
            Some(lab)
        }
    };
    let mut rows = Vec::new();
    for (index, workload) in workloads.iter().enumerate() {
        for compiler in &compilers {
            let trial = Trial { workload, compiler: *compiler, mode: PLAIN };
            rows.extend(one(args, lab.as_ref(), &trial, !args.once, &mut sum)?);
            let sample = workload.clone().sample(args.sample);
            for (number, mode) in modes.iter().enumerate().filter(|(_, m)| !m.gcc_only || compiler.c == "gcc") {
                if args.rotate && number % workloads.len() != index {
                    continue;
                }
                let trial = Trial { workload: &sample, compiler: *compiler, mode: *mode };
                rows.extend(one(args, lab.as_ref(), &trial, false, &mut sum)?);
            }
        }
    }
    fuzz(args, lab.as_ref(), &mut sum)?;
    if let Some(lab) = &lab {
        lab.check_isolation()?;
        totals_agree(lab, &mut sum)?;
        if !sum.failures.is_empty() {
            println!("note: what the nodes logged: {}", lab.keep_logs()?.display());
        }
    }
    progress("");
    let header = ["workload", "compiler", "mode", "files", "judged", "equal", "partly", "remote", "faults", "seconds"];
    print!("{}", table::render(&header, &rows));
    Ok(sum)
}

fn one(args: &Args, lab: Option<&Lab>, trial: &Trial<'_>, twice: bool, sum: &mut Sum) -> Outcome<Vec<Vec<String>>> {
    let label = format!("{} {} {}", trial.workload.name, trial.compiler.c, trial.mode.name);
    let total = trial.workload.units.len();
    let references = trial.references(args.keep_references, &|n| progress(&format!("{label}: local {n}/{total}")))?;
    let mut rows = Vec::new();
    let mut outputs = tree::Outputs::new();
    for (round, name) in [(0, trial.mode.name), (1, "again")].into_iter().take(1 + usize::from(twice)) {
        // A machine that stood still for a while compiles here; twice in a row that is the pool's fault.
        for last_try in [false, true] {
            if round == 1 || last_try {
                touch(trial.workload)?;
            }
            let (served, faults) = counters(lab)?;
            let start = Instant::now();
            let via = lab.map_or(Via::Plain, |l| Via::Pool(&l.submitter.node));
            let parallel = if lab.is_some() { args.jobs } else { cores() };
            let (verdict, left) =
                trial.judge(via, &references, parallel, &|n| progress(&format!("{label}: pool {n}/{total}")))?;
            outputs.extend(left);
            let seconds = start.elapsed().as_secs_f64();
            let (served_after, faults_after) = counters(lab)?;
            let (remote, faults) = (served_after - served, faults_after - faults);
            let label = format!("{} {} {name}", trial.workload.name, trial.compiler.c);
            let short = account(&label, trial, lab, via, &verdict, remote, sum)?;
            rows.push(vec![
                trial.workload.name.clone(),
                trial.compiler.c.into(),
                name.into(),
                verdict.files.to_string(),
                verdict.judged.to_string(),
                verdict.equal.to_string(),
                verdict.partly.to_string(),
                if lab.is_some() { remote.to_string() } else { "-".into() },
                if lab.is_some() { faults.to_string() } else { "-".into() },
                format!("{seconds:.1}"),
            ]);
            match short {
                None => break,
                Some(why) if last_try => sum.failures.push(why),
                Some(why) => println!("note: {why}; once more"),
            }
        }
    }
    outputs.retain(|path, _| path.symlink_metadata().is_ok());
    tree::remove(&outputs)?;
    Ok(rows)
}

/// Adds a trial to the sum; what it says when too little of it was compiled elsewhere.
fn account(
    label: &str,
    trial: &Trial<'_>,
    lab: Option<&Lab>,
    via: Via<'_>,
    verdict: &Verdict,
    remote: usize,
    sum: &mut Sum,
) -> Outcome<Option<String>> {
    sum.files += verdict.files;
    sum.judged += verdict.judged;
    sum.equal += verdict.equal;
    sum.partly += verdict.partly;
    if !verdict.differences.is_empty() {
        sum.failures.push(format!("{label}: {} of {} differ", verdict.differences.len(), verdict.files));
        for difference in verdict.differences.iter().take(3) {
            let unit = &trial.workload.units[difference.unit];
            let kept =
                trial.keep_evidence(via, difference.unit).map_or_else(|e| e.to_string(), |d| d.display().to_string());
            println!("\n{label}: {}: {} ({kept})", unit.source, difference.what.join(", "));
        }
    }
    if !verdict.strays.is_empty() && lab.is_some() {
        sum.failures.push(format!(
            "{label}: left {} files that no compile makes, {:?}",
            verdict.strays.len(),
            verdict.strays[0]
        ));
    }
    if let Some(lab) = lab {
        let expected = verdict.files - verdict.failing;
        sum.remote += remote.min(expected);
        sum.expected_remote += expected;
        if (remote as f64) < REMOTE_MIN * expected as f64 {
            let reasons = lab.submitter.node.status()?.local_reasons();
            return Ok(Some(format!("{label}: {remote} of {expected} remote; local so far: {reasons:?}")));
        }
    }
    Ok(None)
}

fn fuzz(args: &Args, lab: Option<&Lab>, sum: &mut Sum) -> Outcome<()> {
    if args.fuzz == 0 {
        return Ok(());
    }
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_millis() as u64);
    let seed = args.seed.unwrap_or(clock);
    println!("header fuzzing: {} rounds, seed {seed}", args.fuzz);
    let via = lab.map_or(Via::Plain, |l| Via::Pool(&l.submitter.node));
    let mut ground = Ground::new(seed, "gcc")?;
    let mut wrong = 0;
    for round in 0..args.fuzz {
        progress(&format!("header fuzzing: {round}/{}", args.fuzz));
        if let Err(e) = ground.round(via) {
            println!("round {round}: {e}");
            wrong += 1;
            if wrong == 5 {
                break;
            }
        }
    }
    if wrong > 0 {
        sum.failures.push(format!("header fuzzing: {wrong} rounds differ (seed {seed})"));
    }
    Ok(())
}

/// Jobs that the workers say they ran, and faults that the submitter counts.
fn counters(lab: Option<&Lab>) -> Outcome<(usize, usize)> {
    match lab {
        None => Ok((0, 0)),
        Some(lab) => {
            let served = lab.served_by_workers()?.iter().sum();
            Ok((served, lab.submitter.node.status()?.number("/jobs/faults")? as usize))
        }
    }
}

/// The submitter's totals equal the workers' own job logs: every run that ended there is counted here with what became of
/// it, and those that were used are the remote jobs.
fn totals_agree(lab: &Lab, sum: &mut Sum) -> Outcome<()> {
    let status = lab.submitter.node.status()?;
    let runs = status.runs();
    let total: u64 = runs.iter().map(|(_, n)| n).sum();
    let used = runs.iter().find(|(fate, _)| fate == "used").map_or(0, |(_, n)| *n);
    let remote = status.number("/jobs/remote")?;
    let (mut logged, mut said) = (0, 0);
    for (worker, log) in lab.workers.iter().zip(lab.served_by_workers()?) {
        logged += log as u64;
        said += worker.node.status()?.number("/served/jobs")?;
    }
    // A log keeps its newest records only.
    let logs_agree = logged == total || total > potluck_model::limits::JOB_RECORDS_MAX as u64;
    if used != remote || total != said || !logs_agree {
        sum.failures.push(format!(
            "totals: the submitter says {remote} remote of the runs {runs:?}, the workers say {said}, their logs {logged}"
        ));
    }
    Ok(())
}

/// Every source gets a new time, as an editor or a version control system gives it.
fn touch(workload: &Workload) -> Outcome<()> {
    for unit in &workload.units {
        let path = unit.source_path();
        let file = std::fs::OpenOptions::new().append(true).open(&path).context(|| path.display().to_string())?;
        file.set_modified(SystemTime::now())?;
    }
    Ok(())
}

fn progress(line: &str) {
    use std::io::IsTerminal;
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        // A lost progress line is no loss.
        let _ = write!(err, "\r\x1b[K{}", line.chars().take(79).collect::<String>()).and_then(|()| err.flush());
    }
}
