//! What a program costs while nobody uses it: memory that only it has, CPU, and how often it wakes.
//!
//! A wake is what keeps a processor from sleeping: the time from which any thread runs until all have slept for
//! [`SAMPLE`]. One timer that asks three servers is one wake and a dozen context switches; both are told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::node::family;
use crate::{Context, Outcome, Trouble};

/// Threads that are named, of those that wake most.
const NAMED: usize = 4;
/// Between two looks at whether it ran. What runs in two such times in a row is one wake.
const SAMPLE: Duration = Duration::from_millis(20);

/// What it may cost at most.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Resident memory that only it has, MiB.
    pub mib: f64,
    /// CPU, per cent of one core.
    pub cpu_percent: f64,
    /// Wakes per second.
    pub wakes_per_s: f64,
}

/// A program that is being watched.
pub struct Watch {
    pid: u32,
    began: Instant,
    cpu: Duration,
    switches: BTreeMap<u32, (String, u64)>,
    enough: Arc<AtomicBool>,
    counter: JoinHandle<Outcome<u64>>,
}

/// What it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Resident memory that only it has, KiB, at the end.
    pub kib: u64,
    /// CPU of its own.
    pub cpu: Duration,
    /// How often it woke.
    pub wakes: u64,
    /// How often each thread went to sleep by itself, most first.
    pub switches: Vec<(String, u64)>,
    /// How long it was watched.
    pub time: Duration,
}

impl Watch {
    /// From now on.
    pub fn start(pid: u32) -> Outcome<Self> {
        let enough = Arc::<AtomicBool>::default();
        let told = Arc::clone(&enough);
        let counter = std::thread::spawn(move || count_wakes(pid, &told));
        Ok(Self { pid, began: Instant::now(), cpu: cpu(pid)?, switches: switches(pid)?, enough, counter })
    }

    /// Until now.
    pub fn end(self) -> Outcome<Cost> {
        let (time, used) = (self.began.elapsed(), cpu(self.pid)?.saturating_sub(self.cpu));
        self.enough.store(true, Ordering::Relaxed);
        let since = |(tid, (name, count))| {
            let before = self.switches.get(&tid).map_or(0, |(_, before)| *before);
            (name, u64::saturating_sub(count, before))
        };
        let mut switches: Vec<(String, u64)> = switches(self.pid)?.into_iter().map(since).collect();
        switches.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let wakes = self.counter.join().map_err(|_| Trouble::new("counting wakes has failed"))??;
        Ok(Cost { kib: own_kib(self.pid)?, cpu: used, wakes, switches, time })
    }
}

/// Until `enough`.
fn count_wakes(pid: u32, enough: &AtomicBool) -> Outcome<u64> {
    let ran = |threads: BTreeMap<u32, (String, u64)>| threads.into_values().map(|(_, count)| count).collect::<Vec<_>>();
    let (mut before, mut awake, mut wakes) = (ran(switches(pid)?), false, 0);
    while !enough.load(Ordering::Relaxed) {
        std::thread::sleep(SAMPLE);
        let now = ran(switches(pid)?);
        wakes += u64::from(now != before && !awake);
        awake = now != before;
        before = now;
    }
    Ok(wakes)
}

impl Cost {
    fn mib(&self) -> f64 {
        self.kib as f64 / 1024.0
    }

    fn cpu_percent(&self) -> f64 {
        self.cpu.as_secs_f64() / self.time.as_secs_f64() * 100.0
    }

    fn wakes_per_s(&self) -> f64 {
        self.per_s(self.wakes)
    }

    fn per_s(&self, count: u64) -> f64 {
        count as f64 / self.time.as_secs_f64()
    }

    /// Whether that is no more than `goal`.
    pub fn meets(&self, goal: Goal) -> bool {
        self.mib() <= goal.mib && self.cpu_percent() <= goal.cpu_percent && self.wakes_per_s() <= goal.wakes_per_s
    }

    /// In a line, beside `goal`.
    pub fn says(&self, goal: Goal) -> String {
        let mut text = format!(
            "{:.1} MiB (goal {}), {:.2} % of a core over {} s (goal {}), {:.2} wakes/s (goal {}), {:.1} switches/s",
            self.mib(),
            goal.mib,
            self.cpu_percent(),
            self.time.as_secs(),
            goal.cpu_percent,
            self.wakes_per_s(),
            goal.wakes_per_s,
            self.per_s(self.switches.iter().map(|(_, count)| count).sum()),
        );
        for (n, (name, count)) in self.switches.iter().take(NAMED).filter(|(_, count)| *count > 0).enumerate() {
            let lead = if n == 0 { ": " } else { ", " };
            // Writing into a text does not fail.
            let _ = write!(text, "{lead}{name} {:.1}", self.per_s(*count));
        }
        text
    }
}

fn cpu(pid: u32) -> Outcome<Duration> {
    let program = family(pid).into_iter().next();
    Ok(program.context(|| format!("process {pid} is gone"))?.cpu())
}

/// Name of each thread, and how often it has gone to sleep by itself.
fn switches(pid: u32) -> Outcome<BTreeMap<u32, (String, u64)>> {
    let path = format!("/proc/{pid}/task");
    let threads = std::fs::read_dir(&path).context(|| format!("reading {path}"))?;
    let read = |tid: u32| {
        let text = std::fs::read_to_string(format!("{path}/{tid}/status")).ok()?;
        let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        Some((tid, (field("Name:")?, field("voluntary_ctxt_switches:")?.parse().ok()?)))
    };
    // A thread that ends meanwhile has nothing to say.
    Ok(threads.flatten().filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect())
}

/// Resident memory that only this process has: without pages of shared libraries that it has not written to, which are
/// there once for all programs of a desktop.
fn own_kib(pid: u32) -> Outcome<u64> {
    let path = format!("/proc/{pid}/smaps");
    let text = std::fs::read_to_string(Path::new(&path)).context(|| format!("reading {path}"))?;
    let (mut library, mut sum) = (false, 0);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if !first.ends_with(':') {
            library = line.contains(".so");
        } else if first == "Private_Dirty:" || (first == "Private_Clean:" && !library) {
            let kib = words.next().and_then(|n| n.parse::<u64>().ok());
            sum += kib.context(|| format!("{path} says {line:?}"))?;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    const GOAL: Goal = Goal { mib: 40.0, cpu_percent: 0.1, wakes_per_s: 1.0 };

    fn cost() -> Cost {
        let switches = vec![("node".to_owned(), 600), ("gmain".to_owned(), 0)];
        Cost { kib: 40 << 10, cpu: Duration::from_millis(300), wakes: 300, switches, time: Duration::from_secs(300) }
    }

    #[test]
    fn each_figure_above_its_goal_misses_it() {
        assert!(cost().meets(GOAL));
        assert!(!Cost { kib: (40 << 10) + 1, ..cost() }.meets(GOAL));
        assert!(!Cost { cpu: Duration::from_millis(301), ..cost() }.meets(GOAL));
        assert!(!Cost { wakes: 301, ..cost() }.meets(GOAL));
        let says = "40.0 MiB (goal 40), 0.10 % of a core over 300 s (goal 0.1), 1.00 wakes/s (goal 1), 2.0 switches/s";
        assert_eq!(cost().says(GOAL), format!("{says}: node 2.0"));
    }

    /// Each round sleeps twice, and is one wake. The program is another one: this one's other tests run beside.
    #[test]
    fn what_a_program_does_is_seen() {
        let mut program = Command::new("sh");
        program.args(["-c", "while read -r _; do head -c 8000000 /dev/zero >/dev/null; done"]);
        let mut child = program.stdin(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(10 * SAMPLE);
        let mut input = child.stdin.take().unwrap();
        let watch = Watch::start(child.id()).unwrap();
        for _ in 0..5 {
            std::thread::sleep(10 * SAMPLE);
            input.write_all(b"\n").unwrap();
        }
        std::thread::sleep(10 * SAMPLE);
        let cost = watch.end().unwrap();
        // Where others want the CPU it may be at work for some time yet.
        let asleep = crate::wait::wait_until("a program that sleeps", Duration::from_secs(30), || {
            let watch = Watch::start(child.id())?;
            std::thread::sleep(5 * SAMPLE);
            Ok((watch.end()?.wakes == 0).then_some(()))
        });
        drop(input);
        child.wait().unwrap();
        let switches: u64 = cost.switches.iter().map(|(_, count)| count).sum();
        assert!((1..=switches).contains(&cost.wakes), "{cost:?}");
        asleep.unwrap();
    }

    #[test]
    fn memory_that_only_this_process_has_is_seen() {
        let mut memory = vec![0u8; 8 << 20];
        let before = own_kib(std::process::id()).unwrap();
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        let touched = own_kib(std::process::id()).unwrap().saturating_sub(before);
        std::hint::black_box(&memory);
        assert!(touched >= 7 << 10, "{touched} KiB");
    }
}
