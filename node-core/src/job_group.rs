//! Limits that the kernel itself enforces: each job's program in a control group of its own (cgroups(7), version 2), below
//! one that is ours. It counts what looking at processes misses: files in memory, pipes, what the kernel holds for them.
//! Where no such group can be had, the sandbox looks at its processes (`supervise` in the runner), and `potluck doctor`
//! says so.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use potluck_runner::protocol::{LimitKind, Limits};

/// Where version 2 is mounted: alone, or beside the older hierarchies.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// The group of a sandbox' own processes: whoever has children with controllers may hold none itself.
const OWN: &str = "sandbox";
/// Longest wait for systemd to have moved a process.
const MOVED_WITHIN: Duration = Duration::from_secs(2);

/// What enforces the limits of jobs here, as far as the last sandbox shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforced {
    /// No sandbox stands yet.
    Unknown,
    /// Control groups.
    Kernel,
    /// Looking at processes.
    Looking,
}

static ENFORCED: AtomicU8 = AtomicU8::new(0);

/// See [`Enforced`].
pub fn enforced() -> Enforced {
    match ENFORCED.load(Ordering::Relaxed) {
        1 => Enforced::Kernel,
        2 => Enforced::Looking,
        _ => Enforced::Unknown,
    }
}

/// The groups of one sandbox' jobs.
#[derive(Debug)]
pub struct JobGroups {
    dir: PathBuf,
    /// We made `dir`, and remove it.
    is_ours: bool,
}

impl JobGroups {
    /// For a sandbox that has no job yet: below the folder that POTLUCK_CGROUP names, or in the scope that systemd gave it.
    /// None: the sandbox must look for itself.
    pub fn of_sandbox(pid: u32, scope: Option<&str>) -> Option<Arc<Self>> {
        let made = match (std::env::var_os("POTLUCK_CGROUP"), scope) {
            (Some(below), _) => Self::below(Path::new(&below), pid),
            (None, Some(scope)) => scope_dir(pid, scope).and_then(|dir| Self::in_dir(dir, false, pid)),
            (None, None) => Err(io::Error::other("systemd gave none")),
        };
        let word = if made.is_ok() { 1 } else { 2 };
        if ENFORCED.swap(word, Ordering::Relaxed) != word {
            let how = made.as_ref().map_or_else(|e| format!("by looking ({e})"), |_| "by control groups".to_owned());
            crate::log::info(&format!("memory and processes of jobs are limited {how}"));
        }
        made.ok().map(Arc::new)
    }

    /// In a group that is made below one of ours.
    pub fn below(parent: &Path, pid: u32) -> io::Result<Self> {
        let dir = parent.join(format!("potluck-jobs-{pid}"));
        fs::create_dir(&dir)?;
        Self::in_dir(dir.clone(), true, pid).inspect_err(|_| _ = fs::remove_dir(&dir))
    }

    fn in_dir(dir: PathBuf, is_ours: bool, pid: u32) -> io::Result<Self> {
        let own = dir.join(OWN);
        fs::create_dir(&own)?;
        let prepared = fs::write(own.join("cgroup.procs"), pid.to_string())
            .and_then(|()| fs::write(dir.join("cgroup.subtree_control"), "+memory +pids"));
        if let Err(error) = prepared {
            // As it was.
            let _ = fs::write(dir.join("cgroup.procs"), pid.to_string());
            let _ = fs::remove_dir(&own);
            return Err(error);
        }
        Ok(Self { dir, is_ours })
    }

    /// The group of one job, with its limits.
    pub fn job(self: &Arc<Self>, run: u64, limits: &Limits) -> io::Result<JobGroup> {
        let path = self.dir.join(format!("job-{run}"));
        fs::create_dir(&path)?;
        // Removed again if a limit cannot be set: a job without one would be worse than one that is looked at.
        let group = JobGroup { path, _groups: Arc::clone(self) };
        let set = |file: &str, value: String| fs::write(group.path.join(file), value);
        if limits.resident_bytes != 0 {
            set("memory.max", limits.resident_bytes.to_string())?;
            // One process of a compile is of no use without the others.
            set("memory.oom.group", "1".to_owned())?;
            // Not there where the kernel counts no swap: then there is none to be had.
            let _ = set("memory.swap.max", "0".to_owned());
        }
        if limits.processes != 0 {
            set("pids.max", limits.processes.to_string())?;
        }
        Ok(group)
    }
}

impl Drop for JobGroups {
    fn drop(&mut self) {
        // A scope goes by itself when its last process has.
        if self.is_ours {
            remove(&self.dir.join(OWN));
            remove(&self.dir);
        }
    }
}

/// A job's group; it goes with this value, which must not be before its processes.
#[derive(Debug)]
pub struct JobGroup {
    path: PathBuf,
    _groups: Arc<JobGroups>,
}

impl JobGroup {
    /// Whoever writes a 0 into it is in the group from then on: the kernel asks who opened it, not who writes.
    pub fn door(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))
    }

    /// The limit that the kernel has enforced, if there was one.
    pub fn met(&self) -> Option<LimitKind> {
        let count = |file: &str, key: &str| -> u64 {
            let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
            let lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.filter(|(k, _)| *k == key).filter_map(|(_, n)| n.trim().parse::<u64>().ok()).sum()
        };
        if count("memory.events", "oom_kill") > 0 {
            return Some(LimitKind::Memory);
        }
        (count("pids.events", "max") > 0).then_some(LimitKind::Processes)
    }
}

impl Drop for JobGroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// The kernel takes a moment to forget processes that have ended.
fn remove(path: &Path) {
    for _ in 0..50 {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(Duration::from_millis(2)),
            _ => return,
        }
    }
    crate::log::warn(&format!("the control group {} stays", path.display()));
}

/// Where the process is as soon as systemd has moved it into this scope.
fn scope_dir(pid: u32, scope: &str) -> io::Result<PathBuf> {
    let end = Instant::now() + MOVED_WITHIN;
    loop {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::"));
        if let Some(path) = path.filter(|path| path.ends_with(scope)) {
            let dirs = MOUNTS.iter().map(|mount| Path::new(mount).join(path.trim_start_matches('/')));
            let found = dirs.into_iter().find(|dir| dir.join("cgroup.procs").exists());
            return found.ok_or_else(|| io::Error::other(format!("{path} is not mounted")));
        }
        if Instant::now() >= end {
            return Err(io::Error::other(format!("{scope} did not come to be")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would make of it shows `attacks`; here is what it is told.
    #[test]
    fn a_jobs_limits_are_told_and_what_was_met_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let groups = Arc::new(JobGroups { dir: dir.path().to_owned(), is_ours: false });
        let limits = Limits { resident_bytes: 4 << 30, processes: 256, ..Limits::default() };
        let job = groups.job(7, &limits).unwrap();
        let read = |file: &str| fs::read_to_string(dir.path().join("job-7").join(file)).unwrap();
        assert_eq!((read("memory.max"), read("memory.oom.group")), ("4294967296".to_owned(), "1".to_owned()));
        assert_eq!((read("memory.swap.max"), read("pids.max")), ("0".to_owned(), "256".to_owned()));
        assert_eq!(job.met(), None);
        let write = |file: &str, text: &str| fs::write(dir.path().join("job-7").join(file), text).unwrap();
        write("memory.events", "low 0\nhigh 0\nmax 12\noom 0\noom_kill 0\noom_group_kill 0\n");
        write("pids.events", "max 0\n");
        assert_eq!(job.met(), None);
        write("pids.events", "max 3\n");
        assert_eq!(job.met(), Some(LimitKind::Processes));
        write("memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 8\noom_group_kill 1\n");
        assert_eq!(job.met(), Some(LimitKind::Memory));
    }

    #[test]
    fn a_folder_that_is_no_control_group_is_none_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        assert!(JobGroups::below(&gone, 1).is_err());
        assert!(scope_dir(std::process::id(), "potluck-jobs-0.scope").is_err());
    }
}
