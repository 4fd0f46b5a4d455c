//! What the owner's programs use of this PC: CPU without the jobs of others, memory, and how long programs wait for it.
//!
//! CPU is what the kernel counts for all cores less this process and its descendants, which all jobs of others are. A
//! share of them that ended is in the totals of whoever waited for them. Where the kernel lists no children, the time of
//! niced programs is left out instead: jobs run at nice 19, but then those that the owner niced do not count either.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use potluck_model::share::Memory;

/// A share measured over less than this is mostly the clock's own ticks of 10 ms.
const WINDOW: Duration = Duration::from_millis(900);
/// Processes of jobs: 512 jobs of some processes each; beyond it the rest counts as the owner's.
const PROCESSES_MAX: usize = 8192;

/// Clock ticks of all cores since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    /// Programs and kernel.
    busy: u64,
    /// Of it niced programs.
    nice: u64,
    /// Everything.
    total: u64,
}

/// The load of the owner's programs.
#[derive(Debug)]
pub struct Load {
    proc: PathBuf,
    own: u32,
    last: Option<(Duration, Ticks, Option<u64>)>,
    percent: Option<u8>,
}

/// The kernel's folder, or one like it in `POTLUCK_PROC`: tests make load and hunger with it.
pub fn proc_path() -> PathBuf {
    std::env::var_os("POTLUCK_PROC").map_or_else(|| PathBuf::from("/proc"), PathBuf::from)
}

impl Default for Load {
    fn default() -> Self {
        Self::at(&proc_path(), std::process::id())
    }
}

impl Load {
    /// Measures in a folder like /proc; jobs of others are this process and below.
    pub fn at(proc: &Path, own: u32) -> Self {
        Self { proc: proc.to_owned(), own, last: None, percent: None }
    }

    /// Per cent of all cores over the last window. None: not known yet. Zero where the kernel says nothing at all: then
    /// the jobs' priority alone must do.
    pub fn look(&mut self, now: Duration) -> Option<u8> {
        if self.last.as_ref().is_some_and(|(at, ..)| now < *at + WINDOW) {
            return self.percent;
        }
        let Some(ticks) = fs::read_to_string(self.proc.join("stat")).ok().and_then(|text| parse(&text)) else {
            return Some(0);
        };
        let foreign = self.foreign();
        if let Some((_, before, foreign_before)) = self.last.replace((now, ticks, foreign)) {
            let total = ticks.total.saturating_sub(before.total);
            let busy = ticks.busy.saturating_sub(before.busy);
            let others = match (foreign, foreign_before) {
                (Some(now), Some(before)) => now.saturating_sub(before),
                _ => ticks.nice.saturating_sub(before.nice),
            };
            // No tick since the last look: nobody does anything.
            let used = (busy.saturating_sub(others) * 100).checked_div(total).unwrap_or(0);
            self.percent = Some(used.min(100) as u8);
        }
        self.percent
    }

    /// Ticks of this process and all below it, those included that ended and were waited for.
    fn foreign(&self) -> Option<u64> {
        let mut open = vec![self.own];
        let (mut ticks, mut seen) = (0, 0);
        while let Some(pid) = open.pop() {
            let dir = self.proc.join(pid.to_string());
            seen += 1;
            let Ok(stat) = fs::read_to_string(dir.join("stat")) else { continue };
            ticks += process_ticks(&stat).unwrap_or(0);
            let threads = fs::read_dir(dir.join("task"));
            for thread in threads.into_iter().flatten().flatten() {
                match fs::read_to_string(thread.path().join("children")) {
                    Ok(children) => {
                        open.extend(children.split_ascii_whitespace().filter_map(|c| c.parse::<u32>().ok()))
                    }
                    // A thread that has ended; without the file at all there is no list.
                    Err(_) if thread.path().join("stat").exists() => return None,
                    Err(_) => {}
                }
            }
            if seen + open.len() > PROCESSES_MAX {
                return Some(ticks);
            }
        }
        Some(ticks)
    }
}

/// The first line of /proc/stat: user nice system idle iowait irq softirq steal ... (proc(5)).
fn parse(stat: &str) -> Option<Ticks> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, idle, rest @ ..] = &fields[..] else { return None };
    let at = |n: usize| rest.get(n).copied().unwrap_or(0);
    let (iowait, irq, softirq, steal) = (at(0), at(1), at(2), at(3));
    let busy = user + nice + system + irq + softirq;
    Some(Ticks { busy, nice: *nice, total: busy + idle + iowait + steal })
}

/// utime, stime, cutime and cstime of /proc/PID/stat. The name before them may hold anything.
fn process_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    // State is the third field.
    let fields = rest.split_ascii_whitespace().skip(11).take(4);
    Some(fields.filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// Memory of this PC; None: the kernel does not say.
pub fn memory(proc: &Path) -> Option<Memory> {
    let text = fs::read_to_string(proc.join("meminfo")).ok()?;
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let pressure = fs::read_to_string(proc.join("pressure/memory")).ok();
    let pressure = pressure.and_then(|text| {
        let some = text.lines().find(|line| line.starts_with("some "))?;
        some.split_ascii_whitespace().find_map(|part| part.strip_prefix("avg10="))?.parse::<f32>().ok()
    });
    Some(Memory {
        total: kib("MemTotal")? << 10,
        available: kib("MemAvailable")? << 10,
        pressure: pressure.filter(|p| p.is_finite()).unwrap_or(0.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Proc(tempfile::TempDir);

    impl Proc {
        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn process(&self, pid: u32, ticks: [u64; 4], children: &str) {
            let [u, s, cu, cs] = ticks;
            self.write(
                &format!("{pid}/stat"),
                &format!("{pid} (a b) c) S 1 1 1 0 -1 0 0 0 0 0 {u} {s} {cu} {cs} 20 0\n"),
            );
            self.write(&format!("{pid}/task/{pid}/stat"), "");
            self.write(&format!("{pid}/task/{pid}/children"), children);
        }
    }

    #[test]
    fn jobs_of_others_are_not_the_owners_load() {
        let proc = Proc(tempfile::tempdir().unwrap());
        let mut load = Load::at(proc.0.path(), 10);
        proc.write("stat", "cpu  1000 500 200 8000 0 0 0 0 0 0\ncpu0 1 2 3\n");
        proc.process(10, [5, 5, 0, 0], "11 ");
        proc.process(11, [0, 0, 40, 10], "12 13 ");
        proc.process(12, [100, 20, 0, 0], "");
        proc.process(13, [0, 0, 0, 0], "");
        assert_eq!(load.look(Duration::from_secs(1)), None);
        // 1000 ticks later: 300 of jobs, 100 of the owner, one of the jobs ended meanwhile.
        proc.write("stat", "cpu  1100 750 250 8600 0 0 0 0 0 0\n");
        proc.process(11, [0, 0, 160, 30], "13 ");
        proc.process(13, [230, 50, 0, 0], "");
        assert_eq!(load.look(Duration::from_millis(1500)), None, "too soon to say");
        assert_eq!(load.look(Duration::from_secs(2)), Some(10));
    }

    #[test]
    fn without_a_list_of_children_niced_programs_do_not_count() {
        let proc = Proc(tempfile::tempdir().unwrap());
        let mut load = Load::at(proc.0.path(), 10);
        proc.write("10/stat", "10 (n) S 1 1 1 0 -1 0 0 0 0 0 1 1 0 0 20 0\n");
        proc.write("10/task/10/stat", "");
        proc.write("stat", "cpu  0 0 0 0 0 0 0 0 0 0\n");
        load.look(Duration::from_secs(1));
        proc.write("stat", "cpu  100 500 50 350 0 0 0 0 0 0\n");
        assert_eq!(load.look(Duration::from_secs(2)), Some(15));
    }

    #[test]
    fn this_machine_can_be_measured() {
        let mut load = Load::default();
        load.look(Duration::from_secs(1));
        // As many ticks as the window needs to hold one.
        let until = std::time::Instant::now() + Duration::from_millis(50);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        assert!(load.look(Duration::from_secs(2)).is_some_and(|percent| percent <= 100));
        let memory = memory(Path::new("/proc")).unwrap();
        assert!(memory.available > 0 && memory.available <= memory.total, "{memory:?}");
    }

    #[test]
    fn memory_and_the_wait_for_it_are_read() {
        let proc = Proc(tempfile::tempdir().unwrap());
        proc.write("meminfo", "MemTotal:       16 kB\nMemFree: 1 kB\nMemAvailable:   9 kB\n");
        assert_eq!(memory(proc.0.path()), Some(Memory { total: 16 << 10, available: 9 << 10, pressure: 0.0 }));
        proc.write("pressure/memory", "some avg10=12.50 avg60=1.00 avg300=0.00 total=9\nfull avg10=99 avg60=0\n");
        assert_eq!(memory(proc.0.path()).unwrap().pressure, 12.5);
    }
}
