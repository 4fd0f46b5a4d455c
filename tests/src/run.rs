//! Runs compile commands as a build tool would, many at a time, and keeps everything a tool could see of each.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use crate::node::{self, Node, Process};
use crate::person::{Person, is_root};
use crate::{Context, Outcome, Trouble, inside};

/// One command to be run.
#[derive(Clone, Debug)]
pub struct Job {
    /// Working directory.
    pub cwd: PathBuf,
    /// Compiler and arguments.
    pub argv: Vec<OsString>,
}

/// What a build tool saw of one command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Exit code, or 128 plus the signal.
    pub exit: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// From start to end.
    pub wall: Duration,
    /// User and system time of the process and of the children that it waited for.
    pub cpu: Duration,
    /// Its process id while it lived.
    pub pid: u32,
}

/// Where commands are run.
#[derive(Clone, Copy, Debug)]
pub enum Via<'a> {
    /// By the plain compiler.
    Plain,
    /// By `potluck COMPILER …` against this node.
    Pool(&'a Node),
}

impl Via<'_> {
    /// The command, ready to be started, as the submitter's user.
    pub fn command(self, job: &Job) -> Command {
        let mut command = match self {
            Via::Plain => {
                let mut command = Command::new(&job.argv[0]);
                command.args(&job.argv[1..]).env_clear();
                let home = crate::lab::base_dir().unwrap_or_else(|_| "/var/tmp".into());
                command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8").env("HOME", home);
                Person::submitter().adopt(&mut command);
                command
            }
            Via::Pool(node) => node.command(&job.argv),
        };
        // As `ninja -C` leaves it: the folder that the build was started in.
        command.env("PWD", "/usr");
        command.current_dir(&job.cwd).stdin(Stdio::null());
        command
    }
}

/// Runs one command to its end.
pub fn run(mut command: Command, what: &str) -> Outcome<Seen> {
    let capture = |name: &str| -> Outcome<(std::fs::File, OwnedFd)> {
        let file = std::fs::File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?);
        let copy = OwnedFd::from(file.try_clone()?);
        Ok((file, copy))
    };
    let (mut stdout, child_stdout) = capture("stdout")?;
    let (mut stderr, child_stderr) = capture("stderr")?;
    command.stdout(child_stdout).stderr(child_stderr);
    let start = Instant::now();
    let child = command.spawn().context(|| format!("starting {what}"))?;
    let pid = child.id();
    let (status, cpu) = wait_with_usage(pid)?;
    let wall = start.elapsed();
    let read = |file: &mut std::fs::File| -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let exit = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    Ok(Seen { exit, stdout: read(&mut stdout)?, stderr: read(&mut stderr)?, wall, cpu, pid })
}

/// Waits for a child and says how much CPU time it and what it waited for have used.
fn wait_with_usage(pid: u32) -> Outcome<(i32, Duration)> {
    let mut status = 0;
    // SAFETY: a rusage is plain numbers, all zeroes is one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals; the process is our own child that nobody else waits for.
        let got = unsafe { libc::wait4(pid as libc::pid_t, &raw mut status, 0, &raw mut usage) };
        if got == pid as libc::pid_t {
            let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
            return Ok((status, time(usage.ru_utime) + time(usage.ru_stime)));
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(Trouble::new(format!("waiting for process {pid}: {error}")));
        }
    }
}

/// A small process of the submitter's user that starts commands one at a time, as `make` would. Started by the harness
/// itself, a command would be charged with copying the page tables of a large process, and with a change of user.
struct Starter {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// One command for a [`Starter`]: whole environment, and paths of any bytes.
#[derive(Serialize, Deserialize)]
struct Start {
    argv: Vec<Vec<u8>>,
    env: Vec<(Vec<u8>, Vec<u8>)>,
    cwd: Vec<u8>,
}

impl Starter {
    fn new() -> Outcome<Self> {
        // It becomes the user itself: where the harness was built, that user may not enter.
        let Person { uid, gid } = Person::submitter();
        let mut command = Command::new(inside::program()?);
        command.args(["start", &uid.to_string(), &gid.to_string()]).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context(|| "starting the starter of commands".into())?;
        let questions = process.stdin.take().expect("a pipe");
        let answers = BufReader::new(process.stdout.take().expect("a pipe"));
        Ok(Self { process, questions, answers })
    }

    /// Runs one command to its end. It must set its whole environment and its folder itself.
    fn run(&mut self, command: &Command) -> Outcome<Seen> {
        let bytes = |s: &OsStr| s.as_bytes().to_vec();
        let argv = std::iter::once(command.get_program()).chain(command.get_args()).map(bytes).collect();
        let env = command.get_envs().filter_map(|(k, v)| Some((bytes(k), bytes(v?)))).collect();
        let cwd = bytes(command.get_current_dir().unwrap_or("/".as_ref()).as_os_str());
        writeln!(self.questions, "{}", serde_json::to_string(&Start { argv, env, cwd })?)?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let seen: Result<Seen, String> = serde_json::from_str(&answer).context(|| "the starter ended".into())?;
        seen.map_err(Trouble::new)
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A starter's whole life: commands from its standard input, what was seen of them to its standard output.
pub fn serve_starts(uid: &str, gid: &str) -> Outcome<()> {
    if is_root() {
        let number = |id: &str| id.parse().context(|| format!("not a user or group: {id}"));
        let (uid, gid) = (Uid::from_raw(number(uid)?), Gid::from_raw(number(gid)?));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let start: Start = serde_json::from_str(&line?)?;
        let mut argv = start.argv.into_iter().map(OsString::from_vec);
        let program = argv.next().unwrap_or_default();
        let mut command = Command::new(&program);
        command.args(argv).env_clear().current_dir(OsString::from_vec(start.cwd)).stdin(Stdio::null());
        command.envs(start.env.into_iter().map(|(k, v)| (OsString::from_vec(k), OsString::from_vec(v))));
        let seen = run(command, &program.to_string_lossy()).map_err(|e| e.to_string());
        writeln!(out, "{}", serde_json::to_string(&seen)?)?;
        out.flush()?;
    }
    Ok(())
}

/// Runs jobs one at a time.
pub fn run_in_turn(jobs: &[(Via<'_>, &Job)]) -> Outcome<Vec<Seen>> {
    let mut starter = Starter::new()?;
    jobs.iter().map(|(via, job)| starter.run(&via.command(job))).collect()
}

/// Runs all jobs, `parallel` at a time, in order of start; results in the jobs' order.
pub fn run_all(via: Via<'_>, jobs: &[Job], parallel: usize, tick: &(dyn Fn(usize) + Sync)) -> Outcome<Vec<Seen>> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<Option<Outcome<Seen>>>> = Mutex::new(jobs.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..parallel.min(jobs.len()).max(1) {
            scope.spawn(|| {
                let mut starter = Starter::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { break };
                    let seen = match &mut starter {
                        Ok(starter) => starter.run(&via.command(job)),
                        Err(e) => Err(Trouble::new(e.to_string())),
                    };
                    results.lock().expect("nobody panics with it")[index] = Some(seen);
                    tick(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    results.into_inner().expect("threads are over").into_iter().map(|r| r.expect("every job was run")).collect()
}

/// Wrappers, and the compilers that they have not become yet, of commands that run now: children of this process's
/// starters.
pub fn wrappers() -> Vec<Process> {
    let (me, all) = (std::process::id(), node::processes());
    let starters: Vec<u32> = all.iter().filter(|p| p.parent == me).map(|p| p.pid).chain([me]).collect();
    all.into_iter().filter(|p| p.name == "potluck" && starters.contains(&p.parent)).collect()
}

/// How many processes this machine runs at once.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_output_and_cpu_time_of_a_command_are_seen() {
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo out; echo err >&2; exit 3"]);
        let seen = run(command, "sh").unwrap();
        assert_eq!((seen.exit, seen.stdout.as_slice(), seen.stderr.as_slice()), (3, &b"out\n"[..], &b"err\n"[..]));
        assert!(seen.cpu > Duration::from_millis(5) && seen.wall >= Duration::from_millis(5));
    }

    #[test]
    fn a_signal_is_not_an_exit_code() {
        let mut command = Command::new("sh");
        command.args(["-c", "kill -9 $$"]);
        assert_eq!(run(command, "sh").unwrap().exit, 137);
    }
}
