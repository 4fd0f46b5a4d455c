//! A build, summed up: the reasons, the rows of the timeline, what one PC alone would have needed, and what to say of it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::{Job, Kind};

/// Below so many jobs nothing is said of time saved (UX 2.8) ...
pub const SAVED_JOBS_MIN: usize = 20;
/// ... and for builds shorter than this.
pub const SAVED_TOOK_MS_MIN: u64 = 15_000;
/// A job that waits for a core so long is worth a word: it is what a person begins to notice.
const WAITED_MS_MIN: u32 = 400;
/// A job that runs alone is worth a word if it does so for this part of the build, in per cent.
const ALONE_PERCENT_MIN: u64 = 10;
/// Findings that are told.
const FINDINGS_MAX: usize = 3;

/// Milliseconds that the same jobs would have needed on `cores` cores of this PC: each takes the core that is free first,
/// in the order in which they came; where nothing ran, nothing would have run. `speeds` are those of the machines, 1 is
/// this PC. None: too few jobs, too short, or a machine took part whose speed was never measured.
///
/// Jobs that wait for others (an archive, a generator) are not known and count as free to start, so that the figure is
/// rather too small than too large.
pub fn alone_ms(jobs: &[Job], took_ms: u64, cores: u32, speeds: &[Option<f64>]) -> Option<u64> {
    if jobs.len() < SAVED_JOBS_MIN || took_ms < SAVED_TOOK_MS_MIN || cores == 0 {
        return None;
    }
    let mut order: Vec<&Job> = jobs.iter().collect();
    order.sort_by_key(|j| u64::from(j.start_ms).saturating_sub(u64::from(j.wait_ms) + u64::from(j.understand_ms)));
    let mut free: BinaryHeap<Reverse<u64>> = (0..cores).map(|_| Reverse(0)).collect();
    let mut end = 0;
    for job in order {
        let speed = match job.machine {
            0 => 1.0,
            machine => (*speeds.get(usize::from(machine))?)?,
        };
        let Reverse(from) = free.pop()?;
        let until = from + (f64::from(job.compile_ms) * speed) as u64;
        end = end.max(until);
        free.push(Reverse(until));
    }
    Some(end + idle_ms(jobs, took_ms))
}

/// Time in which no job ran or was on its way.
fn idle_ms(jobs: &[Job], took_ms: u64) -> u64 {
    let mut spans: Vec<(u64, u64)> = jobs
        .iter()
        .map(|j| {
            let start = u64::from(j.start_ms);
            (start.saturating_sub(u64::from(j.wait_ms) + u64::from(j.understand_ms)), start + u64::from(j.took_ms))
        })
        .collect();
    spans.sort_unstable();
    let (mut idle, mut seen) = (0, 0);
    for (from, until) in spans {
        idle += from.saturating_sub(seen);
        seen = seen.max(until);
    }
    idle + took_ms.saturating_sub(seen)
}

/// What was saved, if it is something.
pub fn saved_ms(alone_ms: Option<u64>, took_ms: u64) -> Option<u64> {
    alone_ms?.checked_sub(took_ms).filter(|saved| *saved > 0)
}

/// A row for each job on its machine, lowest first: jobs of one row do not overlap. `jobs` are in the order of their start.
pub fn lanes(jobs: &[Job]) -> Vec<u16> {
    // Rows that are taken, by when they become free; rows that are free, by number.
    type Rows = (BinaryHeap<Reverse<(u64, u16)>>, BinaryHeap<Reverse<u16>>, u16);
    let mut machines: HashMap<u16, Rows> = HashMap::new();
    let mut out = Vec::with_capacity(jobs.len());
    for job in jobs {
        let (taken, free, next) = machines.entry(job.machine).or_default();
        while let Some(&Reverse((_, row))) = taken.peek().filter(|t| t.0.0 <= u64::from(job.start_ms)) {
            taken.pop();
            free.push(Reverse(row));
        }
        let row = free.pop().map_or_else(
            || {
                *next = next.saturating_add(1);
                *next - 1
            },
            |Reverse(row)| row,
        );
        taken.push(Reverse((u64::from(job.start_ms) + u64::from(job.took_ms), row)));
        out.push(row);
    }
    out
}

/// Jobs that ran here for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonSum {
    /// Index into the build's reasons.
    pub reason: u16,
    /// Jobs.
    pub jobs: u32,
    /// Their time.
    pub time_ms: u64,
}

/// Jobs that ran here by reason, most first; those that failed are counted elsewhere.
pub fn reasons(jobs: &[Job]) -> Vec<ReasonSum> {
    let mut sums: Vec<ReasonSum> = Vec::new();
    for job in jobs.iter().filter(|j| matches!(j.kind, Kind::Here | Kind::Only)) {
        match sums.iter_mut().find(|s| s.reason == job.reason) {
            Some(sum) => {
                sum.jobs += 1;
                sum.time_ms += u64::from(job.took_ms);
            }
            None => sums.push(ReasonSum { reason: job.reason, jobs: 1, time_ms: u64::from(job.took_ms) }),
        }
    }
    sums.sort_by_key(|s| (Reverse(s.jobs), s.reason));
    sums
}

/// Why a build fell back: more than half of the jobs that could have travelled ran here for reasons that the person can
/// do something about (UX 2.5); the most frequent one. `names` are the codes of the reasons.
pub fn fell_back(jobs: &[Job], names: &[String]) -> Option<crate::reason::Reason> {
    let travels = jobs.iter().filter(|j| matches!(j.kind, Kind::Remote | Kind::Here)).count();
    let fixable = |sum: ReasonSum| {
        let reason = crate::reason::Reason::from_code(names.get(usize::from(sum.reason))?)?;
        reason.is_fixable().then_some((sum.jobs as usize, reason))
    };
    let here: Vec<_> = reasons(jobs).into_iter().filter_map(fixable).collect();
    let sum: usize = here.iter().map(|(jobs, _)| jobs).sum();
    here.into_iter().next().filter(|_| sum * 2 > travels).map(|(_, reason)| reason)
}

/// At most three true sentences with numbers, those that cost most first.
pub fn findings(jobs: &[Job], took_ms: u64, names: &[String]) -> Vec<String> {
    let mut found: Vec<(u64, String)> = Vec::new();
    if let Some((job, alone)) = longest_alone(jobs).filter(|(_, ms)| *ms >= 1000)
        && alone * 100 >= took_ms * ALONE_PERCENT_MIN
    {
        let what =
            if names.get(usize::from(job.reason)).is_some_and(|r| r == "link") { "Linking" } else { "Compiling" };
        let time = seconds(alone);
        found.push((alone, format!("{what} {} ran alone for {time}: nothing else was there to run", job.file)));
    }
    let waited: Vec<u64> = jobs.iter().filter(|j| j.wait_ms >= WAITED_MS_MIN).map(|j| u64::from(j.wait_ms)).collect();
    if !waited.is_empty() {
        let longest = seconds(waited.iter().copied().max().unwrap_or(0));
        let jobs = counted(waited.len() as u64);
        found.push((
            waited.iter().sum::<u64>() / 4,
            format!("{jobs} waited 0.4 s or more for a free core, at most {longest}"),
        ));
    }
    let here = reasons(jobs).into_iter().filter_map(|s| {
        let code = names.get(usize::from(s.reason))?;
        let avoidable = crate::reason::Reason::from_code(code).is_some_and(|r| r.is_avoidable());
        avoidable.then_some((s.time_ms, s.jobs, code))
    });
    if let Some((time, count, code)) = here.max() {
        let text = format!("{} ran here because of {code}: {} of compiling", counted(u64::from(count)), seconds(time));
        found.push((time, text));
    }
    let again: Vec<&Job> = jobs.iter().filter(|j| j.repeats > 0).collect();
    if !again.is_empty() {
        found.push((again.len() as u64 * 100, format!("{} had to be run more than once", counted(again.len() as u64))));
    }
    found.sort_by_key(|f| Reverse(f.0));
    found.truncate(FINDINGS_MAX);
    found.into_iter().map(|f| f.1).collect()
}

/// The job that was the only one for longest, and for how long.
fn longest_alone(jobs: &[Job]) -> Option<(&Job, u64)> {
    // Ends before starts where both are at the same moment.
    let mut edges: Vec<(u64, bool, usize)> = Vec::with_capacity(jobs.len() * 2);
    for (at, job) in jobs.iter().enumerate().filter(|(_, j)| j.took_ms > 0) {
        edges.push((u64::from(job.start_ms), true, at));
        edges.push((u64::from(job.start_ms) + u64::from(job.took_ms), false, at));
    }
    edges.sort_unstable();
    let (mut running, mut sum, mut since) = (0usize, 0usize, 0);
    let mut alone: HashMap<usize, u64> = HashMap::new();
    for (at, begins, job) in edges {
        if running == 1 {
            // With one that runs, the sum of the numbers is its number.
            *alone.entry(sum).or_default() += at - since;
        }
        if begins {
            running += 1;
            sum += job;
        } else {
            running -= 1;
            sum -= job;
        }
        since = at;
    }
    let (job, ms) = alone.into_iter().max_by_key(|(job, ms)| (*ms, Reverse(*job)))?;
    Some((&jobs[job], ms))
}

fn counted(jobs: u64) -> String {
    if jobs == 1 { "1 job".to_owned() } else { format!("{jobs} jobs") }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
