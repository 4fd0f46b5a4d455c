//! What was tried and what came of it: one row for each attack, and every figure in it was seen.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use potluck_tests::{Context, Lab, Outcome, remains, table, tree};

/// An attack that is not over after this time has won.
const OVER_WITHIN: Duration = Duration::from_secs(480);
/// How often an interactive program wakes up.
const WAKES_EVERY: Duration = Duration::from_millis(10);

/// The table and what was missed.
pub struct Board {
    only: String,
    rows: Vec<Vec<String>>,
    failures: Vec<String>,
}

/// One attack while it goes on.
pub struct Attack {
    name: String,
    wrong: Vec<String>,
    seen: Vec<String>,
}

impl Attack {
    /// Something that must not be.
    pub fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(format!("{}: {}", self.name, what.into()));
    }

    /// Several things that must not be.
    pub fn all_wrong(&mut self, what: impl IntoIterator<Item = String>) {
        what.into_iter().for_each(|w| self.wrong(w));
    }

    /// It must be so.
    pub fn check(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.wrong(otherwise());
        }
    }

    /// A figure for the table.
    pub fn saw(&mut self, what: impl Into<String>) {
        self.seen.push(what.into());
    }
}

impl Board {
    /// An empty table; attacks whose name or number does not contain `only` are left out.
    pub fn new(only: &str) -> Self {
        Self { only: only.to_owned(), rows: Vec::new(), failures: Vec::new() }
    }

    /// Whether this attack is asked for.
    pub fn wants(&self, case: &str, name: &str) -> bool {
        self.only.is_empty() || name.contains(&self.only) || case == self.only
    }

    /// Runs one attack. An error in it is a miss like any other, and the next one is run all the same.
    pub fn attack(&mut self, case: &str, name: &str, work: impl FnOnce(&mut Attack) -> Outcome<()>) {
        if !self.wants(case, name) {
            return;
        }
        let mut attack = Attack { name: name.to_owned(), wrong: Vec::new(), seen: Vec::new() };
        let (start, owner) = (Instant::now(), Owner::start());
        if let Err(e) = work(&mut attack) {
            attack.wrong(e.to_string());
        }
        let (took, late) = (start.elapsed(), owner.worst_delay());
        if took > OVER_WITHIN {
            attack.wrong(format!("took {:.0} s", took.as_secs_f64()));
        }
        let verdict = if attack.wrong.is_empty() { "held" } else { "MISSED" };
        let row = [
            name.to_owned(),
            case.to_owned(),
            format!("{:.1}", took.as_secs_f64()),
            format!("{:.0}", late.as_secs_f64() * 1e3),
            verdict.to_owned(),
            attack.seen.join("; "),
        ];
        eprintln!("{}", row.join("  "));
        attack.wrong.iter().for_each(|w| eprintln!("  missed: {w}"));
        self.rows.push(row.to_vec());
        self.failures.extend(attack.wrong);
    }

    /// What goes wrong outside every attack.
    pub fn failed(&mut self, what: String) {
        self.failures.push(what);
    }

    /// Prints the table and the line that sums up; the exit code.
    pub fn close(&self, expected: &[&str]) -> i32 {
        // What was seen was shown when it was; here it is a reminder.
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| shortened(cell)).collect()).collect();
        print!("{}", table::render(&["attack", "case", "seconds", "late ms", "result", "what was seen"], &rows));
        println!("late ms: how much too late a program woke up that wakes every 10 ms, at worst, on this machine");
        let untried: Vec<&&str> = expected.iter().filter(|c| !self.rows.iter().any(|r| r[1] == **c)).collect();
        self.failures.iter().for_each(|f| println!("missed: {f}"));
        if self.only.is_empty() {
            untried.iter().for_each(|c| println!("missed: nothing was tried of case {c}"));
        }
        let ok = self.failures.is_empty() && !self.rows.is_empty() && (untried.is_empty() || !self.only.is_empty());
        println!(
            "attacks: {}: {} attacks of {} cases, {} held, {} failures",
            if ok { "ok" } else { "FAILED" },
            self.rows.len(),
            expected.len() - untried.len(),
            self.rows.iter().filter(|r| r[4] == "held").count(),
            self.failures.len() + if self.only.is_empty() { untried.len() } else { 0 },
        );
        i32::from(!ok)
    }
}

/// Wider cells of the table are cut.
const CELL_CHARS_MAX: usize = 60;

/// The first words of a cell.
fn shortened(cell: &str) -> String {
    let line: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= CELL_CHARS_MAX {
        line
    } else {
        line.chars().take(CELL_CHARS_MAX - 1).collect::<String>() + "…"
    }
}

/// Stands for the person in front of the PC: wakes up every 10 ms and notes how late.
struct Owner {
    over: Arc<AtomicBool>,
    worst_us: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Owner {
    fn start() -> Self {
        let (over, worst_us) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, worst) = (Arc::clone(&over), Arc::clone(&worst_us));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let start = Instant::now();
                std::thread::sleep(WAKES_EVERY);
                worst.fetch_max(start.elapsed().saturating_sub(WAKES_EVERY).as_micros() as u64, Ordering::Relaxed);
            }
        });
        Self { over, worst_us, thread: Some(thread) }
    }

    fn worst_delay(mut self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        Duration::from_micros(self.worst_us.load(Ordering::Relaxed))
    }
}

/// What the owner's programs get of the CPU when they want all of it: of the core that gives least.
pub fn owner_share() -> f64 {
    const WANTS_FOR: Duration = Duration::from_secs(5);
    let core = || {
        let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let seconds = |t: rustix::time::Timespec| t.tv_sec as f64 + t.tv_nsec as f64 / 1e9;
        let (start, before) = (Instant::now(), cpu());
        while start.elapsed() < WANTS_FOR {
            std::hint::spin_loop();
        }
        (seconds(cpu()) - seconds(before)) / start.elapsed().as_secs_f64()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|threads| {
        let all: Vec<_> = (0..cores).map(|_| threads.spawn(core)).collect();
        all.into_iter().map(|one| one.join().unwrap_or(0.0)).fold(1.0, f64::min)
    })
}

/// The submitter's files as they were: everything that an attack changes there is found.
pub struct Seal {
    roots: Vec<PathBuf>,
    before: tree::Baseline,
}

impl Seal {
    /// Looks at everything below the roots.
    pub fn put_on(roots: &[PathBuf]) -> Self {
        Self { roots: roots.to_vec(), before: tree::Baseline::take(roots) }
    }

    /// What changed besides plain files of these names below `out`, which are removed again.
    pub fn broken(&self, out: &Path, expected: &[&str]) -> Outcome<Vec<String>> {
        let (outputs, gone) = self.before.changes(&self.roots)?;
        let mut wrong: Vec<String> = gone.iter().map(|g| format!("{} is gone", g.display())).collect();
        for (path, left) in &outputs {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_file = matches!(left.kind, tree::Kind::File { .. });
            let fits = expected.contains(&name.as_str()) && path.parent() == Some(out);
            if !fits || !is_file || left.links > 1 || left.mode & 0o7000 != 0 {
                wrong.push(format!("left {} ({:?}, mode {:o})", path.display(), left.kind, left.mode));
            }
        }
        tree::remove(&outputs)?;
        Ok(wrong)
    }
}

/// Nothing may be left over, and the worker must still be there.
pub fn check_remains(attack: &mut Attack, lab: &Lab, before: &remains::Before) -> Outcome<()> {
    attack.all_wrong(remains::none_left(lab, before)?.into_iter().map(|l| format!("left over: {l}")));
    lab.wait_for_workers(1).context(|| "the worker does not come back".into())
}
