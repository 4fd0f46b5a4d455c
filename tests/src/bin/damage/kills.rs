//! Programs that are killed while a build runs: node, sandbox and wrapper, at forty named moments and then at any.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use potluck_tests::lab::{base_dir, send_signal};
use potluck_tests::ruin::Random;
use potluck_tests::run::{Via, wrappers};
use potluck_tests::small::{Objects, Small};
use potluck_tests::wait::wait_until;
use potluck_tests::{Lab, Outcome, Plan, Trouble, remains, stores, table};
use rustix::process::Signal;

use crate::{Args, Tally};

/// Files of one build: about three seconds on two cores.
const FILES: usize = 16;
/// As many at a time as two workers have slots.
const PARALLEL: usize = 8;
/// Kills in one build.
const KILLS_PER_BUILD: usize = 5;
/// A moment of the table comes within this time, or not in this build.
const MOMENT_WITHIN: Duration = Duration::from_secs(10);
/// A moment that did not come in a build is waited for in so many.
const TRIES: usize = 4;
/// From so many kills on, nearly every named moment has to have come.
const WHOLE: usize = 400;
/// A run of hours says that it goes on.
const SAID_EVERY: usize = 10;
/// Longest pause between two kills.
const PAUSE_MAX_MS: usize = 500;
/// Exit code of a wrapper that was killed, as make sees it.
const KILLED: i32 = 137;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    SubmitterNode,
    WorkerNode,
    Runner,
    Wrapper,
}

const VICTIMS: &[Victim] = &[Victim::SubmitterNode, Victim::WorkerNode, Victim::Runner, Victim::Wrapper];

/// Steps of a job, as they can be seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// A wrapper has been started.
    Asked,
    /// A large content is on its way to the worker.
    Uploading,
    /// The worker's mirror begins to have the project's folder.
    Delta,
    /// Lower layers of an output directory are being made.
    Layers,
    /// The sandbox runs the driver.
    Driver,
    /// … the compiler proper.
    Compiling,
    /// … the assembler.
    Assembling,
    /// A compiler was there and is gone: harvest, and the result on its way.
    Harvest,
    /// An object, or what becomes one, is in the project's folder.
    Placing,
    /// Some jobs have ended, others have not.
    Results,
}

const MOMENTS: &[Moment] = &[
    Moment::Asked,
    Moment::Uploading,
    Moment::Delta,
    Moment::Layers,
    Moment::Driver,
    Moment::Compiling,
    Moment::Assembling,
    Moment::Harvest,
    Moment::Placing,
    Moment::Results,
];

/// The whole part.
pub fn all(args: &Args, seed: u64, tally: &mut Tally) -> Outcome<()> {
    let base = base_dir()?.join("src/kills");
    let _ = fs::remove_dir_all(&base);
    let plain = Small::make(&base.join("plain"), FILES, "plain")?;
    let objects = plain.plain()?;
    let mut lab = Lab::start(Plan::new("kills", 2, 4, std::slice::from_ref(&base)))?;
    // Nodes, compilers and wrappers share this machine's cores: whether a node gets one in time is not the question.
    lab.submitter.node.env.push(("POTLUCK_PATIENCE_MS".into(), "5000".into()));
    lab.sync_toolchains(&["gcc"])?;
    let before = remains::before(&lab);
    let mut random = Random(seed);
    let mut hits = BTreeMap::new();
    // Without namespaces workers are plain processes that nobody starts again.
    let victims: &[Victim] = if lab.has_namespaces() { VICTIMS } else { &[Victim::SubmitterNode, Victim::Wrapper] };
    let mut named: Vec<((Victim, Moment), usize)> =
        victims.iter().flat_map(|v| MOMENTS.iter().map(move |m| ((*v, *m), TRIES))).collect();
    let count = named.len();
    let first = tally.kills;
    let mut idle = 0;
    for round in 0usize.. {
        let done = tally.kills - first;
        if done >= args.kills {
            break;
        }
        let dir = base.join(format!("round{round}"));
        let project = Small::make(&dir, FILES, &format!("round {round} of seed {seed}"))?;
        // Named moments in a random order, so that a short run has some of each.
        let next = (!named.is_empty()).then(|| named.swap_remove(random.below(named.len())));
        let moment = next.map(|(moment, _)| moment);
        let plan =
            Round { victims, moment, kills: KILLS_PER_BUILD.min(args.kills - done), about: format!("build {round}") };
        let struck = plan.run(&mut lab, &project, &objects, &mut random, tally)?;
        idle = if struck.is_empty() { idle + 1 } else { 0 };
        if idle > 20 {
            return Err(Trouble::new("twenty builds in which nothing could be killed"));
        }
        tally.kills += struck.len();
        if let Some((moment, tries)) = next
            && !struck.contains(&(moment.0, Some(moment.1)))
            && tries > 1
        {
            named.push((moment, tries - 1));
        }
        struck.into_iter().for_each(|hit| *hits.entry(hit).or_insert(0usize) += 1);
        whole_again(&mut lab)?;
        let left = remains::none_left(&lab, &before)?;
        left.into_iter().for_each(|l| tally.miss(format!("build {round}: left over: {l}")));
        fs::remove_dir_all(&dir)?;
        if round % SAID_EVERY == 0 {
            println!("build {round}: {} programs killed so far, {} missed", tally.kills - first, tally.missed.len());
        }
    }
    show(&hits);
    let came = hits.keys().filter(|(_, moment)| moment.is_some()).count();
    println!("{came} of {count} named moments came");
    if args.kills >= WHOLE && came * 10 < count * 9 {
        tally.miss(format!("only {came} of {count} named moments came: what they would have shown is not shown"));
    }
    stores::damaged(&lab)?.into_iter().for_each(|d| tally.miss(format!("after all kills: {d}")));
    remains::complaints(&lab).into_iter().for_each(|c| tally.miss(format!("kills: {c}")));
    fs::remove_dir_all(&base)?;
    Ok(())
}

type Hit = (Victim, Option<Moment>);

fn show(hits: &BTreeMap<Hit, usize>) {
    let count = |victim: Victim, moment: Option<Moment>| hits.get(&(victim, moment)).copied().unwrap_or(0).to_string();
    let rows: Vec<Vec<String>> = MOMENTS
        .iter()
        .map(|m| (format!("{m:?}"), Some(*m)))
        .chain([("any".to_owned(), None)])
        .map(|(name, m)| std::iter::once(name).chain(VICTIMS.iter().map(|v| count(*v, m))).collect())
        .collect();
    print!("{}", table::render(&["killed at", "submitter's node", "worker's node", "sandbox", "wrapper"], &rows));
}

/// Every node runs and serves.
fn whole_again(lab: &mut Lab) -> Outcome<()> {
    if lab.submitter.pid() == 0 {
        lab.submitter.start()?;
    }
    for worker in &mut lab.workers {
        if worker.named("potluck-node").is_empty() {
            worker.start_node()?;
        }
    }
    lab.wait_for_workers(lab.workers.len())
}

/// One build and what strikes in it.
struct Round<'a> {
    victims: &'a [Victim],
    moment: Option<(Victim, Moment)>,
    kills: usize,
    about: String,
}

impl Round<'_> {
    fn run(
        &self,
        lab: &mut Lab,
        project: &Small,
        objects: &Objects,
        random: &mut Random,
        tally: &mut Tally,
    ) -> Outcome<Vec<Hit>> {
        let node = lab.submitter.node.clone();
        let every: Vec<usize> = (0..project.files).collect();
        let done = AtomicUsize::new(0);
        let tick = |n: usize| done.store(n, Ordering::Relaxed);
        let (seen, struck) = std::thread::scope(|scope| {
            let build = scope.spawn(|| project.build(Via::Pool(&node), &every, PARALLEL, &tick));
            let struck = self.strike(lab, project, random, &done, &|| build.is_finished());
            (build.join().expect("a build does not panic"), struck)
        });
        let (seen, struck) = (seen?, struck?);
        let mut again = Vec::new();
        for (n, seen) in seen.iter().enumerate() {
            match seen.exit {
                0 if seen.stderr.is_empty() && seen.stdout.is_empty() => {}
                // make would stop here; the user types make again, and it must be as if nothing had been.
                KILLED if struck.iter().any(|(victim, _)| *victim == Victim::Wrapper) => again.push(n),
                exit => {
                    let said = String::from_utf8_lossy(&seen.stderr);
                    tally.miss(format!("{}: compile {n} ended with {exit} and said {said:?} ({struck:?})", self.about));
                }
            }
        }
        if !again.is_empty() {
            whole_again(lab)?;
            let seen = project.build(Via::Pool(&node), &again, PARALLEL, &|_| {})?;
            let failed = seen.iter().filter(|s| s.exit != 0 || !s.stderr.is_empty()).count();
            if failed > 0 {
                tally.miss(format!("{}: {failed} compiles failed when they were done again", self.about));
            }
        }
        tally.objects += objects.len();
        let differences = project.differences(objects);
        differences.into_iter().for_each(|d| tally.miss(format!("{}: {d} ({struck:?})", self.about)));
        if let Ok(status) = node.status() {
            tally.remote += status.number("/jobs/remote").unwrap_or(0);
        }
        Ok(struck)
    }

    /// Kills until enough or the build is over; a node that was killed is started again, as a service manager does it.
    fn strike(
        &self,
        lab: &mut Lab,
        project: &Small,
        random: &mut Random,
        done: &AtomicUsize,
        is_over: &dyn Fn() -> bool,
    ) -> Outcome<Vec<Hit>> {
        let mut struck = Vec::new();
        if let Some((victim, moment)) = self.moment {
            let mut eyes = Eyes::new(lab, project);
            let came = wait_until(&format!("{moment:?}"), MOMENT_WITHIN, || {
                let now = eyes.sees(lab, moment, done.load(Ordering::Relaxed));
                Ok((now || is_over()).then_some(now))
            });
            if came.unwrap_or(false) && hit(lab, victim, 0)? {
                struck.push((victim, Some(moment)));
                restart(lab, random)?;
            }
        }
        while struck.len() < self.kills && !is_over() {
            let pause = Duration::from_millis(random.below(PAUSE_MAX_MS) as u64);
            let until = Instant::now() + pause;
            while Instant::now() < until && !is_over() {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            let victim = self.victims[random.below(self.victims.len())];
            let worker = random.below(lab.workers.len());
            if !is_over() && hit(lab, victim, worker)? {
                struck.push((victim, None));
                restart(lab, random)?;
            }
        }
        Ok(struck)
    }
}

/// SIGKILL; whether there was somebody to be killed.
fn hit(lab: &mut Lab, victim: Victim, worker: usize) -> Outcome<bool> {
    Ok(match victim {
        Victim::SubmitterNode => {
            let was_there = lab.submitter.pid() != 0;
            lab.submitter.kill_node_only();
            was_there
        }
        Victim::WorkerNode => lab.workers[worker].signal("potluck-node", Signal::KILL) > 0,
        Victim::Runner => lab.workers[worker].signal("potluck-runner", Signal::KILL) > 0,
        Victim::Wrapper => match wrappers().first() {
            Some(wrapper) => {
                send_signal(wrapper.pid, Signal::KILL);
                true
            }
            None => false,
        },
    })
}

/// Starts what is down, now or (as often) not before the build needs it: then it goes on without.
fn restart(lab: &mut Lab, random: &mut Random) -> Outcome<()> {
    std::thread::park_timeout(Duration::from_millis(random.below(PAUSE_MAX_MS) as u64));
    if lab.submitter.pid() == 0 {
        lab.submitter.start()?;
    }
    for worker in &mut lab.workers {
        // A signal takes a moment: only what is gone is started.
        if worker.named("potluck-node").iter().all(|p| p.state == 'Z') {
            worker.start_node()?;
        }
    }
    Ok(())
}

/// Looks for a moment from outside.
struct Eyes {
    project: PathBuf,
    /// Below each mirror of the first worker.
    mirrors: PathBuf,
    had_compiler: bool,
    sources: BTreeSet<PathBuf>,
}

impl Eyes {
    fn new(lab: &Lab, project: &Small) -> Self {
        let mirrors = lab.workers[0].state_seen(lab.has_namespaces()).join("cache/potluck/mirrors");
        Self { project: project.dir.clone(), mirrors, had_compiler: false, sources: names(&project.dir) }
    }

    fn sees(&mut self, lab: &Lab, moment: Moment, done: usize) -> bool {
        let first = &lab.workers[0];
        let below = |name: &str| -> Vec<PathBuf> {
            fs::read_dir(&self.mirrors).into_iter().flatten().flatten().map(|m| m.path().join(name)).collect()
        };
        match moment {
            Moment::Asked => !wrappers().is_empty(),
            Moment::Uploading => below("stage").iter().chain(&below("blobs")).any(|d| !names(d).is_empty()),
            Moment::Delta => {
                let own = self.project.strip_prefix("/").unwrap_or(&self.project);
                below("root").iter().any(|root| root.join(own).exists())
            }
            Moment::Layers => below("gens").iter().any(|d| !names(d).is_empty()),
            Moment::Driver => {
                let whole = format!("{}-linux-gnu-gcc-12", std::env::consts::ARCH);
                !first.named("gcc").is_empty() || !first.named(&whole).is_empty()
            }
            Moment::Compiling => !first.named("cc1").is_empty(),
            Moment::Assembling => !first.named("as").is_empty(),
            Moment::Harvest => {
                let has = !first.named("cc1").is_empty();
                let was = std::mem::replace(&mut self.had_compiler, has);
                was && !has
            }
            Moment::Placing => !names(&self.project).is_subset(&self.sources),
            Moment::Results => done >= 3,
        }
    }
}

fn names(dir: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect()
}
