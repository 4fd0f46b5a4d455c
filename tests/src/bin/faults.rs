//! `make faults`: kills, stops, cut cables, full disks and bad input cost time only.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use potluck_tests::badinput;
use potluck_tests::commands::Unit;
use potluck_tests::disk;
use potluck_tests::judge::{GCC, Reference, Trial};
use potluck_tests::mode::PLAIN;
use potluck_tests::node::Node;
use potluck_tests::person::Person;
use potluck_tests::remains;
use potluck_tests::run::{Via, wrappers};
use potluck_tests::wait::wait_until;
use potluck_tests::workload::Workload;
use potluck_tests::{Context, Lab, Outcome, Plan, WorkerPlan, lab, table};
use rustix::process::Signal;

/// Breaks things while a build runs.
#[derive(Parser)]
struct Args {
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Parts: input, faults, disk, many.
    #[arg(long, value_delimiter = ',', default_values = ["input", "faults", "disk", "many"])]
    parts: Vec<String>,
    /// Small files of the last part.
    #[arg(long, default_value_t = 1000)]
    small: usize,
    /// Files of zstd that are built in each case.
    #[arg(long, default_value_t = 20)]
    files: usize,
}

/// A worker that is lost has no job any more, in the submitter's own account, within this time: they are elsewhere, or
/// wait for a slot there.
const GIVEN_UP_MAX: Duration = Duration::from_secs(2);
/// The rest is the compile that then starts from the beginning on a machine that runs every node of the Lab at once.
const STALL_MAX: Duration = Duration::from_secs(12);
/// Without the submitter's node all ten compilers run here at once: that says how busy this machine is, and is a limit only
/// for what hangs.
const STALL_HOME_MAX: Duration = Duration::from_secs(60);
/// Something that happens in every build happens within this time.
const EVENT_WITHIN: Duration = Duration::from_secs(20);

/// Compares what a compiler does with and without a node; what differs.
type Compare = fn(&str, &Node) -> Outcome<Option<String>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    WorkerNode,
    Runner,
    Compiler,
    SubmitterNode,
    Wrapper,
    WorkerStopped,
    Cable,
}

/// The moment in a job's life at which it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// The first wrapper has just been started.
    Asked,
    /// The first worker's sandbox runs the driver.
    Driver,
    /// … the compiler proper.
    Compiling,
    /// … the assembler.
    Assembling,
    /// Some results have come back.
    Results(usize),
}

fn main() {
    let args = Args::parse();
    let mut failures = Vec::new();
    let mut shown = 0;
    let mut stall = Duration::ZERO;
    if let Err(e) = all(&args, &mut failures, &mut shown, &mut stall) {
        failures.push(e.to_string());
    }
    println!("{}", if failures.is_empty() { "nothing missed" } else { "all that was missed:" });
    failures.iter().for_each(|f| println!("missed: {f}"));
    let word = if failures.is_empty() && shown > 0 { "ok" } else { "FAILED" };
    println!("faults: {word}: {shown} cases, {} missed, longest stall {:.1} s", failures.len(), stall.as_secs_f64());
    std::process::exit(i32::from(word != "ok"));
}

fn all(args: &Args, failures: &mut Vec<String>, shown: &mut usize, stall: &mut Duration) -> Outcome<()> {
    let has = |part: &str| args.parts.iter().any(|p| p == part);
    if has("input") {
        let places = [lab::base_dir()?.join("src/badinput")];
        let lab = Lab::start(Plan::new("input", 2, 4, &places))?;
        lab.sync_toolchains(&["gcc", "clang"])?;
        for compiler in ["gcc", "clang"] {
            for case in badinput::CASES.iter().filter(|c| c.name.contains(&args.only)) {
                *shown += 1;
                let start = Instant::now();
                let result = badinput::compare(case, compiler, &lab.submitter.node);
                if start.elapsed() > Duration::from_secs(10) {
                    println!("{compiler}, {}: took {:.0} s", case.name, start.elapsed().as_secs_f64());
                }
                match result {
                    Ok(None) => {}
                    Ok(Some(what)) => miss(failures, format!("{compiler}, {}: {what}", case.name)),
                    Err(e) => miss(failures, format!("{compiler}, {}: {e}", case.name)),
                }
            }
        }
        let extra: [(&str, Compare); 2] =
            [("header edited during the compile", badinput::edited_header), ("another user", badinput::another_user)];
        for (compiler, (name, compare)) in ["gcc", "clang"].iter().flat_map(|c| extra.iter().map(move |e| (c, e))) {
            if !name.contains(&args.only) || *name == "another user" && !lab.has_namespaces() {
                continue;
            }
            *shown += 1;
            match compare(compiler, &lab.submitter.node) {
                Ok(None) => {}
                Ok(Some(what)) => miss(failures, format!("{compiler}, {name}: {what}")),
                Err(e) => miss(failures, format!("{compiler}, {name}: {e}")),
            }
        }
        let status = lab.submitter.node.status()?;
        let remote = status.number("/jobs/remote")?;
        println!("bad input: {shown} commands compared, {remote} compiles were remote, {} here", status.local());
        println!("bad input: here because of {:?}", status.local_reasons());
        remains::complaints(&lab).into_iter().for_each(|c| miss(failures, format!("bad input: {c}")));
    }
    if has("faults") {
        faults(args, failures, shown, stall)?;
    }
    if has("disk") && "full disk".contains(&args.only) {
        *shown += 1;
        full_disk(args, failures)?;
        *shown += 1;
        disk_fills_up(args, failures, stall)?;
    }
    if has("many") && "many small files".contains(&args.only) {
        *shown += 1;
        many_small(args, failures)?;
    }
    Ok(())
}

/// Said at once, because a long run may be cut short, and again at its end.
fn miss(failures: &mut Vec<String>, what: String) {
    println!("missed: {what}");
    failures.push(what);
}

fn cases() -> Vec<(Victim, Point)> {
    use Point::*;
    use Victim::*;
    let points = [Asked, Driver, Compiling, Assembling, Results(3), Results(10)];
    let mut cases = Vec::new();
    for victim in [WorkerNode, Runner, Compiler, SubmitterNode, Wrapper, WorkerStopped, Cable] {
        cases.extend(points.iter().map(|p| (victim, *p)));
    }
    cases
}

fn faults(args: &Args, failures: &mut Vec<String>, shown: &mut usize, stall: &mut Duration) -> Outcome<()> {
    let workload = Workload::prepare("zstd")?.sample(args.files);
    let trial = Trial { workload: &workload, compiler: GCC, mode: PLAIN };
    let references = trial.references(true, &|_| {})?;
    let mut lab = Lab::start(Plan::new("faults", 3, 4, &workload.roots))?;
    lab.sync_toolchains(&["gcc"])?;
    // Warm: what is measured is the fault, not the first transfer.
    strike(&mut lab, &trial, &references, None)?;
    let mut rows = Vec::new();
    for (victim, point) in cases() {
        let name = format!("{victim:?} at {point:?}");
        if !name.contains(&args.only) || (victim == Victim::Cable && !lab.has_namespaces()) {
            continue;
        }
        *shown += 1;
        let before = remains::before(&lab);
        let result = strike(&mut lab, &trial, &references, Some((victim, point)))
            .and_then(|r| mend(&mut lab, victim).map(|()| r))
            .and_then(|r| Ok((r, remains::none_left(&lab, &before)?)));
        match result {
            Ok((Struck { wrong, longest, total, given_up }, left)) => {
                *stall = (*stall).max(longest);
                let seconds = |d: Duration| format!("{:.2}", d.as_secs_f64());
                let verdict = if wrong.is_empty() && left.is_empty() { "right" } else { "wrong" };
                let gone = given_up.map_or_else(String::new, seconds);
                rows.push(vec![name.clone(), seconds(total), gone, seconds(longest), verdict.into()]);
                if let Some(late) = given_up.filter(|after| *after > GIVEN_UP_MAX) {
                    miss(failures, format!("{name}: its jobs were elsewhere after {} s only", seconds(late)));
                }
                wrong.iter().for_each(|w| miss(failures, format!("{name}: {w}")));
                left.iter().for_each(|l| miss(failures, format!("{name}: left over: {l}")));
                let stall_max = if victim == Victim::SubmitterNode { STALL_HOME_MAX } else { STALL_MAX };
                if longest > stall_max {
                    miss(failures, format!("{name}: nothing happened for {:.1} s", longest.as_secs_f64()));
                }
            }
            Err(e) => {
                miss(failures, format!("{name}: {e}"));
                // The next case deserves a pool that works.
                drop(lab);
                lab = Lab::start(Plan::new("faults", 3, 4, &workload.roots))?;
                lab.sync_toolchains(&["gcc"])?;
            }
        }
    }
    remains::complaints(&lab).into_iter().for_each(|c| miss(failures, format!("faults: {c}")));
    print!("{}", table::render(&["fault", "build s", "elsewhere after s", "longest stall s", "result"], &rows));
    Ok(())
}

/// What came of a build in whose middle something struck.
struct Struck {
    wrong: Vec<String>,
    /// The longest time in which no job ended.
    longest: Duration,
    total: Duration,
    /// From the loss of a worker to the moment when it has no job any more.
    given_up: Option<Duration>,
}

/// Builds everything and strikes in the middle.
fn strike(
    lab: &mut Lab,
    trial: &Trial<'_>,
    references: &[Reference],
    fault: Option<(Victim, Point)>,
) -> Outcome<Struck> {
    let node = lab.submitter.node.clone();
    let first = lab.workers[0].node.status()?;
    let first_id = first.0["node"]["id"].as_str().context(|| "status has no node id".into())?.to_owned();
    let ends = Mutex::new(vec![Instant::now()]);
    let tick = |_| ends.lock().expect("nobody panics with it").push(Instant::now());
    let start = Instant::now();
    let (judged, struck) = std::thread::scope(|scope| {
        let build = scope.spawn(|| trial.judge(Via::Pool(&node), references, 10, &tick));
        let struck = fault.map_or(Ok(None), |(victim, point)| {
            wait_until(&format!("{point:?}"), EVENT_WITHIN, || {
                let over = build.is_finished();
                let done = ends.lock().expect("nobody panics with it").len() - 1;
                Ok((over || reached(lab, point, done)).then_some(()))
            })
            .and_then(|()| hit(lab, victim, &first_id))
        });
        (build.join().expect("judge does not panic"), struck)
    });
    let total = start.elapsed();
    let given_up = struck?;
    let (mut verdict, outputs) = judged?;
    potluck_tests::tree::remove(&outputs)?;
    if fault.is_some_and(|(v, _)| v == Victim::Wrapper) {
        // make would stop here; the user types make again, and it must be as if nothing had been.
        let killed: Vec<usize> =
            verdict.differences.iter().filter(|d| d.what[0].contains("exit 137")).map(|d| d.unit).collect();
        let units: Vec<Unit> = killed.iter().map(|u| trial.workload.units[*u].clone()).collect();
        verdict.differences.retain(|d| !killed.contains(&d.unit));
        let again = Workload { units, ..trial.workload.clone() };
        let references: Vec<Reference> = killed.iter().map(|u| references[*u].clone()).collect();
        let trial = Trial { workload: &again, ..*trial };
        let (second, outputs) = trial.judge(Via::Pool(&node), &references, 10, &|_| {})?;
        potluck_tests::tree::remove(&outputs)?;
        verdict.differences.extend(second.differences);
    }
    let name = |d: &potluck_tests::judge::Difference| {
        format!("{}: {}", trial.workload.units.get(d.unit).map_or("?", |u| &u.source), d.what.join(", "))
    };
    let mut wrong: Vec<String> = verdict.differences.iter().map(name).collect();
    wrong.extend(verdict.strays.iter().map(|s| format!("stray {}", s.display())));
    let ends = ends.into_inner().expect("threads are over");
    let longest = ends.windows(2).map(|w| w[1] - w[0]).max().unwrap_or_default();
    Ok(Struck { wrong, longest, total, given_up })
}

/// How long the submitter takes to see that the first worker is lost, and to take its jobs back. None: it had none.
fn until_given_up(lab: &Lab, lost: &str) -> Outcome<Option<Duration>> {
    let (start, mut had_jobs) = (Instant::now(), false);
    wait_until("the lost worker's jobs being elsewhere", EVENT_WITHIN, || {
        let status = lab.submitter.node.status()?;
        let peers = status.0["peers"].as_array().context(|| "status has no peers".into())?;
        let lost = peers.iter().find(|p| p["id"] == lost).filter(|p| p["connected"] == true);
        let has_jobs = lost.is_some_and(|p| p["running"] != 0);
        // One that is not connected any more was given up, whatever it had.
        had_jobs |= has_jobs || lost.is_none();
        Ok((!has_jobs).then(|| had_jobs.then(|| start.elapsed())))
    })
}

fn reached(lab: &Lab, point: Point, done: usize) -> bool {
    let first = &lab.workers[0];
    match point {
        Point::Asked => !wrappers().is_empty(),
        Point::Driver => {
            !first.named("gcc").is_empty()
                || !first.named(&format!("{}-linux-gnu-gcc-12", std::env::consts::ARCH)).is_empty()
        }
        Point::Compiling => !first.named("cc1").is_empty(),
        Point::Assembling => !first.named("as").is_empty(),
        Point::Results(n) => done >= n,
    }
}

/// Strikes; for a worker that is lost, how long its jobs stay with it.
fn hit(lab: &mut Lab, victim: Victim, first_id: &str) -> Outcome<Option<Duration>> {
    let first = &lab.workers[0];
    match victim {
        Victim::WorkerNode => drop(first.signal("potluck-node", Signal::KILL)),
        Victim::Runner => drop(first.signal("potluck-runner", Signal::KILL)),
        Victim::Compiler => drop(first.signal("cc1", Signal::KILL)),
        Victim::SubmitterNode => lab.submitter.kill_node_only(),
        Victim::Wrapper => {
            wrappers().iter().take(3).for_each(|p| lab::send_signal(p.pid, Signal::KILL));
        }
        Victim::WorkerStopped => first.processes().iter().for_each(|p| lab::send_signal(p.pid, Signal::STOP)),
        Victim::Cable => lab.cut_link(0)?,
    }
    let is_lost = matches!(victim, Victim::WorkerNode | Victim::WorkerStopped | Victim::Cable);
    if is_lost { until_given_up(lab, first_id) } else { Ok(None) }
}

fn mend(lab: &mut Lab, victim: Victim) -> Outcome<()> {
    match victim {
        Victim::WorkerNode => lab.workers[0].start_node()?,
        Victim::SubmitterNode => lab.submitter.start()?,
        Victim::WorkerStopped => lab.workers[0].processes().iter().for_each(|p| lab::send_signal(p.pid, Signal::CONT)),
        Victim::Cable => lab.mend_link(0)?,
        Victim::Runner | Victim::Compiler | Victim::Wrapper => {}
    }
    lab.wait_for_workers(3)
}

/// A worker whose disk is full from some moment on: its jobs go elsewhere or home.
fn full_disk(args: &Args, failures: &mut Vec<String>) -> Outcome<()> {
    let workload = Workload::prepare("zstd")?.sample(args.files);
    let trial = Trial { workload: &workload, compiler: GCC, mode: PLAIN };
    let references = trial.references(true, &|_| {})?;
    for megabytes in [8u64, 120, 400] {
        let mut plan = Plan::new(&format!("disk{megabytes}"), 2, 4, &workload.roots);
        plan.workers[0] = WorkerPlan { state_bytes: Some(megabytes << 20), ..plan.workers[0].clone() };
        let mut lab = Lab::start(plan).context(|| format!("a worker with {megabytes} MB of disk"))?;
        // It may refuse the toolchain for want of room; the build must not care.
        let synced = lab.sync_toolchains(&["gcc"]);
        let Struck { wrong, longest, total, .. } = strike(&mut lab, &trial, &references, None)?;
        let note = synced.err().map_or_else(String::new, |e| format!(" ({e})"));
        println!(
            "full disk, {megabytes} MB: build {:.1} s, longest stall {:.1} s{note}",
            total.as_secs_f64(),
            longest.as_secs_f64()
        );
        wrong.iter().for_each(|w| miss(failures, format!("full disk, {megabytes} MB: {w}")));
        remains::complaints(&lab).into_iter().for_each(|c| miss(failures, format!("full disk, {megabytes} MB: {c}")));
    }
    Ok(())
}

/// A worker whose disk becomes full between two builds, every source of the second being new to it, and free again before
/// the third.
fn disk_fills_up(args: &Args, failures: &mut Vec<String>, stall: &mut Duration) -> Outcome<()> {
    let workload = Workload::prepare("zstd")?.sample(args.files);
    let trial = Trial { workload: &workload, compiler: GCC, mode: PLAIN };
    let references = trial.references(true, &|_| {})?;
    let mut plan = Plan::new("diskfills", 2, 4, &workload.roots);
    plan.workers[0] = WorkerPlan { state_bytes: Some(700 << 20), ..plan.workers[0].clone() };
    let mut lab = Lab::start(plan)?;
    lab.sync_toolchains(&["gcc"])?;
    let filling = lab.workers[0].state_seen(lab.has_namespaces()).join("fill");
    for moment in ["before", "full", "free again"] {
        match moment {
            "full" => disk::fill(&filling, lab.workers[0].node.person)?,
            "free again" => std::fs::remove_file(&filling)?,
            _ => {}
        }
        for unit in &workload.units {
            std::fs::File::options()
                .append(true)
                .open(unit.source_path())?
                .set_modified(std::time::SystemTime::now())?;
        }
        let before = lab.served_by_workers()?;
        let Struck { wrong, longest, total, .. } = strike(&mut lab, &trial, &references, None)?;
        let served: Vec<usize> = lab.served_by_workers()?.iter().zip(before).map(|(now, then)| now - then).collect();
        let (total, longest_s) = (total.as_secs_f64(), longest.as_secs_f64());
        println!(
            "disk that fills up, {moment}: build {total:.1} s, longest stall {longest_s:.1} s, jobs by worker {served:?}"
        );
        *stall = (*stall).max(longest);
        wrong.iter().for_each(|w| miss(failures, format!("disk that fills up, {moment}: {w}")));
        if moment == "free again" {
            lab.wait_for_workers(2)?;
        }
    }
    remains::complaints(&lab).into_iter().for_each(|c| miss(failures, format!("disk that fills up: {c}")));
    Ok(())
}

/// `-j64` of many small files: no failure, nothing left.
fn many_small(args: &Args, failures: &mut Vec<String>) -> Outcome<()> {
    let root = lab::base_dir()?.join("src/small");
    let _ = std::fs::remove_dir_all(&root);
    Person::submitter().make_dir(&root)?;
    std::fs::write(root.join("s.h"), "#define VALUE 7\n")?;
    let mut units = Vec::new();
    for n in 0..args.small {
        std::fs::write(
            root.join(format!("s{n}.c")),
            format!("#include \"s.h\"\nint s{n}(void) {{ return VALUE + {n}; }}\n"),
        )?;
        let (source, object) = (format!("s{n}.c"), format!("s{n}.o"));
        units.push(Unit { cwd: root.clone(), cxx: false, flags: Vec::new(), source, object });
    }
    let mut workload = Workload::prepare("zstd")?;
    workload.name = "small".into();
    workload.roots = vec![root.clone()];
    workload.units = units;
    let trial = Trial { workload: &workload, compiler: GCC, mode: PLAIN };
    let references = trial.references(false, &|_| {})?;
    let mut lab = Lab::start(Plan::new("many", 3, 8, &workload.roots))?;
    // 64 wrappers, every node and every compiler share this machine's cores: here it is not the question whether the node
    // gets one of them in time.
    lab.submitter.node.env.push(("POTLUCK_PATIENCE_MS".into(), "5000".into()));
    lab.sync_toolchains(&["gcc"])?;
    let before = remains::before(&lab);
    let start = Instant::now();
    let (verdict, outputs) = trial.judge(Via::Pool(&lab.submitter.node), &references, 64, &|_| {})?;
    let seconds = start.elapsed().as_secs_f64();
    potluck_tests::tree::remove(&outputs)?;
    let remote: usize = lab.served_by_workers()?.iter().sum();
    println!("{} small files, -j64: {seconds:.1} s, {} equal, {remote} remote", args.small, verdict.equal);
    if verdict.equal != args.small {
        let first = verdict.differences.first().map(|d| d.what.join(", ")).unwrap_or_default();
        failures.push(format!("many small files: {} of {} equal; {first}", verdict.equal, args.small));
    }
    if remote * 100 < args.small * 99 {
        let reasons = lab.submitter.node.status()?.local_reasons();
        failures.push(format!("many small files: {remote} of {} remote; {reasons:?}", args.small));
    }
    failures.extend(verdict.strays.iter().take(3).map(|s| format!("many small files: left {}", s.display())));
    failures.extend(remains::none_left(&lab, &before)?.iter().map(|l| format!("many small files: left over: {l}")));
    failures.extend(remains::complaints(&lab).iter().map(|c| format!("many small files: {c}")));
    std::fs::remove_dir_all(root)?;
    Ok(())
}
