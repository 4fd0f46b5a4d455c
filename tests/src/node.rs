//! One node of a Lab as its programs show it: the commands a user would type, their JSON, and its processes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::person::Person;
use crate::{Context, Outcome, Trouble};

/// How to run programs as a node's user, in its view.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name in messages: "submitter", "worker 2".
    pub name: String,
    /// Its user.
    pub person: Person,
    /// Folder of the programs in its view.
    pub programs: PathBuf,
    /// Command line prefix that enters its namespaces; then user and group are switched by it as well.
    pub enter: Vec<String>,
    /// Whole environment.
    pub env: Vec<(String, String)>,
    /// Where other nodes reach it.
    pub address: String,
}

impl Node {
    /// A `potluck …` command of this node's user.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let program = self.programs.join("potluck");
        let mut command = match self.enter.split_first() {
            Some((enter, rest)) => {
                let mut command = Command::new(enter);
                command.args(rest).arg(program);
                command
            }
            None => {
                let mut command = Command::new(program);
                self.person.adopt(&mut command);
                command
            }
        };
        command.args(args).env_clear().envs(self.env.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Runs it; its standard output, or what it complained about.
    pub fn potluck(&self, args: &[&str]) -> Outcome<String> {
        let output = self.command(args).output().context(|| format!("{}: potluck {}", self.name, args.join(" ")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Trouble::new(format!(
            "{}: potluck {} ended with {}: {} {}",
            self.name,
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim(),
        )))
    }

    /// An invitation into this node's team.
    pub fn invite(&self, uses: usize) -> Outcome<String> {
        let said = self.potluck(&["team", "invite", "--no-approve", "--uses", &uses.to_string()])?;
        let link = said.lines().rev().find(|l| !l.trim().is_empty());
        Ok(link.context(|| "team invite printed no link".into())?.trim().to_owned())
    }

    /// `potluck status --json`.
    pub fn status(&self) -> Outcome<Status> {
        let text = self.potluck(&["status", "--json"])?;
        Ok(Status(serde_json::from_str(&text).context(|| format!("{}: status is not JSON: {text}", self.name))?))
    }

    /// `potluck log --json`: one record per line, oldest first.
    pub fn log(&self) -> Outcome<Vec<Value>> {
        let text = self.potluck(&["log", "--json"])?;
        text.lines()
            .filter(|l| !l.trim().is_empty())
            .map(|l| serde_json::from_str(l).context(|| format!("{}: log line is not JSON: {l}", self.name)))
            .collect()
    }

    /// Records of one role, "worker" or "submitter", in the log; what workers compile to verify a toolchain is none.
    pub fn records(&self, role: &str) -> Outcome<Vec<Value>> {
        Ok(self.log()?.into_iter().filter(|r| r["role"] == role && r["probe"] != true).collect())
    }
}

/// What `status --json` said.
#[derive(Clone, Debug)]
pub struct Status(pub Value);

impl Status {
    /// The number at a JSON pointer such as `/jobs/remote`; an error names what is missing.
    pub fn number(&self, pointer: &str) -> Outcome<u64> {
        self.0.pointer(pointer).and_then(Value::as_u64).context(|| format!("status has no number at {pointer}"))
    }

    /// Sum over all reasons of jobs that ran here.
    pub fn local(&self) -> u64 {
        self.local_reasons().iter().map(|(_, n)| n).sum()
    }

    /// Reasons and counts of jobs that ran here.
    pub fn local_reasons(&self) -> Vec<(String, u64)> {
        let map = self.0.pointer("/jobs/local").and_then(Value::as_object);
        map.into_iter().flatten().map(|(k, v)| (k.clone(), v.as_u64().unwrap_or(0))).collect()
    }

    /// What became of the runs on workers, and how often.
    pub fn runs(&self) -> Vec<(String, u64)> {
        let map = self.0.pointer("/jobs/runs").and_then(Value::as_object);
        map.into_iter().flatten().map(|(k, v)| (k.clone(), v.as_u64().unwrap_or(0))).collect()
    }

    /// Peers that are connected and have slots.
    pub fn serving_peers(&self) -> usize {
        let peers = self.0["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        peers.iter().filter(|p| p["connected"] == true && p["slots"].as_u64().unwrap_or(0) > 0).count()
    }
}

/// One process as /proc shows it from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id in the host's view.
    pub pid: u32,
    /// Parent.
    pub parent: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// State letter of proc(5).
    pub state: char,
    /// CPU time of children that it has waited for, in clock ticks.
    pub children_ticks: u64,
}

impl Process {
    /// CPU time of itself, ended threads included, to the nanosecond: clock ticks of 10 ms would be coarser than a job.
    pub fn cpu(&self) -> Duration {
        let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: both pointers are to live locals; a process that is gone is an error, and then nothing is read.
        let read = unsafe {
            libc::clock_getcpuclockid(self.pid as libc::pid_t, &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut time) == 0
        };
        if read { Duration::new(time.tv_sec as u64, time.tv_nsec as u32) } else { Duration::ZERO }
    }

    /// The same of children that it has waited for, in steps of a clock tick.
    pub fn children_cpu(&self) -> Duration {
        Duration::from_secs_f64(self.children_ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

/// Mounts that a process sees.
pub fn mounts(pid: u32) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    text.lines().filter_map(|l| l.split(' ').nth(4)).map(String::from).collect()
}

/// Every process that the harness can see.
pub fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect()
}

/// Reads one line of /proc/PID/stat.
fn parse_stat(line: &str) -> Option<Process> {
    let (head, tail) = (line.split_once(" (")?, line.rsplit_once(") ")?);
    let name = line[head.0.len() + 2..tail.0.len()].to_string();
    let fields: Vec<&str> = tail.1.split(' ').collect();
    let number = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok());
    Some(Process {
        pid: head.0.parse().ok()?,
        parent: number(1)? as u32,
        name,
        state: fields.first()?.chars().next()?,
        children_ticks: number(13)? + number(14)?,
    })
}

/// `root` and everything that descends from it.
pub fn family(root: u32) -> Vec<Process> {
    let all = processes();
    let mut family: Vec<Process> = all.iter().filter(|p| p.pid == root).cloned().collect();
    let mut next = 0;
    while next < family.len() {
        let parent = family[next].pid;
        family.extend(all.iter().filter(|p| p.parent == parent && p.pid != parent).cloned());
        next += 1;
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_blanks_and_brackets_in_the_name_is_read() {
        let line = "42 (a) (b c) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        let p = parse_stat(line).unwrap();
        assert_eq!((p.pid, p.parent, p.name.as_str(), p.state), (42, 7, "a) (b c", 'S'));
        assert_eq!(p.children_ticks, 70);
    }

    #[test]
    fn the_family_of_this_process_contains_it() {
        let family = family(std::process::id());
        let me = family.iter().find(|p| p.pid == std::process::id()).unwrap();
        assert!(!me.cpu().is_zero());
    }
}
