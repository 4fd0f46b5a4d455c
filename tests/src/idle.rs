//! What a program costs while nobody uses it: memory that only it has, CPU, and how often its threads wake.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::node::family;
use crate::{Context, Outcome};

/// Threads that are named, of those that wake most.
const NAMED: usize = 4;

/// What it may cost at most.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Resident memory that only it has, MiB.
    pub mib: f64,
    /// CPU, per cent of one core.
    pub cpu_percent: f64,
}

/// A program that is being watched.
pub struct Watch {
    pid: u32,
    began: Instant,
    cpu: Duration,
    wakes: BTreeMap<u32, (String, u64)>,
}

/// What it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Resident memory that only it has, KiB, at the end.
    pub kib: u64,
    /// CPU of its own.
    pub cpu: Duration,
    /// Wakes by thread, most first.
    pub wakes: Vec<(String, u64)>,
    /// How long it was watched.
    pub time: Duration,
}

impl Watch {
    /// From now on.
    pub fn start(pid: u32) -> Outcome<Self> {
        Ok(Self { pid, began: Instant::now(), cpu: cpu(pid)?, wakes: wakes(pid)? })
    }

    /// Until now.
    pub fn end(self) -> Outcome<Cost> {
        let (time, used) = (self.began.elapsed(), cpu(self.pid)?.saturating_sub(self.cpu));
        let since = |(tid, (name, count))| {
            let before = self.wakes.get(&tid).map_or(0, |(_, before)| *before);
            (name, u64::saturating_sub(count, before))
        };
        let mut wakes: Vec<(String, u64)> = wakes(self.pid)?.into_iter().map(since).collect();
        wakes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Ok(Cost { kib: own_kib(self.pid)?, cpu: used, wakes, time })
    }
}

impl Cost {
    fn mib(&self) -> f64 {
        self.kib as f64 / 1024.0
    }

    fn cpu_percent(&self) -> f64 {
        self.cpu.as_secs_f64() / self.time.as_secs_f64() * 100.0
    }

    fn wakes_per_s(&self) -> f64 {
        self.wakes.iter().map(|(_, count)| count).sum::<u64>() as f64 / self.time.as_secs_f64()
    }

    /// Whether that is no more than `goal`.
    pub fn meets(&self, goal: Goal) -> bool {
        self.mib() <= goal.mib && self.cpu_percent() <= goal.cpu_percent
    }

    /// In a line, beside `goal`.
    pub fn says(&self, goal: Goal) -> String {
        let mut text = format!(
            "{:.1} MiB (goal {}), {:.2} % of a core over {} s (goal {}), {:.1} wakes/s",
            self.mib(),
            goal.mib,
            self.cpu_percent(),
            self.time.as_secs(),
            goal.cpu_percent,
            self.wakes_per_s(),
        );
        for (n, (name, count)) in self.wakes.iter().take(NAMED).filter(|(_, count)| *count > 0).enumerate() {
            let lead = if n == 0 { ": " } else { ", " };
            // Writing into a text does not fail.
            let _ = write!(text, "{lead}{name} {:.1}", *count as f64 / self.time.as_secs_f64());
        }
        text
    }
}

fn cpu(pid: u32) -> Outcome<Duration> {
    let program = family(pid).into_iter().next();
    Ok(program.context(|| format!("process {pid} is gone"))?.cpu())
}

/// Name of each thread, and how often it has gone to sleep by itself: as often as it was woken.
fn wakes(pid: u32) -> Outcome<BTreeMap<u32, (String, u64)>> {
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
    use super::*;

    const GOAL: Goal = Goal { mib: 40.0, cpu_percent: 0.1 };

    fn cost() -> Cost {
        let wakes = vec![("node".to_owned(), 150), ("gmain".to_owned(), 0)];
        Cost { kib: 40 << 10, cpu: Duration::from_millis(300), wakes, time: Duration::from_secs(300) }
    }

    #[test]
    fn each_figure_above_its_goal_misses_it() {
        assert!(cost().meets(GOAL));
        assert!(!Cost { kib: (40 << 10) + 1, ..cost() }.meets(GOAL));
        assert!(!Cost { cpu: Duration::from_millis(301), ..cost() }.meets(GOAL));
        let says = "40.0 MiB (goal 40), 0.10 % of a core over 300 s (goal 0.1), 0.5 wakes/s: node 0.5";
        assert_eq!(cost().says(GOAL), says);
    }

    #[test]
    fn what_this_process_does_is_seen() {
        let watch = Watch::start(std::process::id()).unwrap();
        let mut memory = vec![0u8; 8 << 20];
        let before = own_kib(std::process::id()).unwrap();
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        let touched = own_kib(std::process::id()).unwrap().saturating_sub(before);
        let worker = std::thread::spawn(|| (0..20).for_each(|_| std::thread::park_timeout(Duration::from_millis(1))));
        worker.join().unwrap();
        std::hint::black_box(&memory);
        let cost = watch.end().unwrap();
        assert!(touched >= 7 << 10, "{touched} KiB");
        assert!(!cost.cpu.is_zero() && cost.wakes[0].1 > 0, "{cost:?}");
    }
}
