//! Watches over a running program: collects what it prints, enforces the limits that the kernel does not, stops and
//! resumes it on request, and leaves no process alive.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use crate::count::Counter;
use crate::job::{Prepared, word};
use crate::program::Program;
use crate::sys;
use potluck_runner::protocol::{End, LimitKind, Limits};

/// When memory, CPU and processes are first looked at; shorter jobs never are. Also how late a limit may be noticed.
const SAMPLE: Duration = Duration::from_millis(100);
/// The longest time between two looks: what a job may go past its CPU time, on each of its cores.
const SAMPLE_MAX: Duration = Duration::from_secs(1);
/// A job that takes memory at this pace, which is several cores' worth of page faults, is looked at when all that it may
/// take is gone, and a part of the machine besides.
const BYTES_PER_S_MAX: u64 = 10_000_000_000;
/// That part: an eighth of its memory can be had for the moment until the job is killed, which is also what the kernel
/// kills first when it cannot.
const MACHINE_SHARE: u64 = 8;
/// How often a stop is tried again until nothing runs any more: idle-priority processes reach their stop late.
const STOP_AGAIN: Duration = Duration::from_millis(2);

/// What was seen of a program until none of its processes was left.
pub struct Seen {
    /// How the first process ended, or which limit ended it.
    pub end: End,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// Where a job is between start and end.
#[derive(PartialEq, Eq)]
enum State {
    /// It runs.
    Running,
    /// It shall stop; the value says whether the last look found nothing running.
    Stopping(bool),
    /// Nothing of it runs.
    Stopped,
}

/// Watches until the end.
pub fn watch(
    program: Program,
    pipes_max: u64,
    limits: &Limits,
    prepared: &Prepared,
    channel: &OwnedFd,
    asked: Instant,
) -> Seen {
    let child_signals = match sys::signal_fd(&[libc::SIGCHLD]) {
        Ok(fd) => fd,
        Err(e) => {
            return Seen { end: End::NotStarted(format!("watching the program: {e}")), stdout: vec![], stderr: vec![] };
        }
    };
    let mut watch = Watch {
        out: Pipe::new(program.stdout, limits.stdio_bytes),
        err: Pipe::new(program.stderr, limits.stdio_bytes),
        main: program.pid,
        counter: Counter::new(program.counted, pipes_max),
        status: None,
        limits,
        prepared,
        state: State::Running,
        paused: Duration::ZERO,
        stopped_at: None,
        asked,
        next_sample: Instant::now() + SAMPLE,
        next_account: Instant::now() + SAMPLE_MAX,
        spare_bytes: machine_bytes() / MACHINE_SHARE,
    };
    // The first process may have ended before the descriptor existed: its signal is lost, its status is not.
    watch.reap();
    let limit = watch.run(channel, &child_signals);
    watch.kill_all();
    watch.finish(limit, &program.failure)
}

struct Watch<'a> {
    out: Pipe,
    err: Pipe,
    main: Pid,
    counter: Counter,
    status: Option<WaitStatus>,
    limits: &'a Limits,
    prepared: &'a Prepared,
    state: State,
    paused: Duration,
    stopped_at: Option<Instant>,
    asked: Instant,
    /// When memory is looked at, and when CPU and processes are.
    next_sample: Instant,
    next_account: Instant,
    spare_bytes: u64,
}

impl Watch<'_> {
    /// Until the first process has ended or a limit is met, which is returned.
    fn run(&mut self, channel: &OwnedFd, child_signals: &OwnedFd) -> Option<LimitKind> {
        while self.status.is_none() {
            let now = Instant::now();
            let timeout = self.next_wake(now).map(|at| at.saturating_duration_since(now));
            let ready = {
                let mut fds = vec![PollFd::new(channel, PollFlags::IN), PollFd::new(child_signals, PollFlags::IN)];
                let counter = self.counter.fd();
                if let Some(fd) = &counter {
                    fds.push(PollFd::new(fd, PollFlags::IN));
                }
                // A closed pipe would be ready for ever.
                fds.extend([&self.out, &self.err].iter().filter(|pipe| !pipe.closed).map(|pipe| pipe.poll()));
                let timeout =
                    timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
                // Interrupted is as good as ready: everything below is tried without blocking.
                let _ = poll(&mut fds, timeout.as_ref());
                let is_ready = |at: usize| !fds[at].revents().is_empty();
                let asked = if counter.is_some() { fds[2].revents() } else { PollFlags::empty() };
                (is_ready(0), is_ready(1), asked)
            };
            if ready.0 {
                self.hear(channel);
            }
            if ready.1 {
                let mut sink = [0u8; 512];
                let _ = rustix::io::read(child_signals, &mut sink);
                self.reap();
            }
            if !self.counter.answer(ready.2) {
                return Some(LimitKind::KernelObjects);
            }
            if !self.out.drain() || !self.err.drain() {
                return Some(LimitKind::Stdio);
            }
            if let State::Stopping(_) = self.state {
                self.stop(channel);
            }
            if let Some(limit) = self.check(Instant::now()) {
                return Some(limit);
            }
        }
        None
    }

    fn next_wake(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Stopped => None,
            State::Stopping(_) => Some(now + STOP_AGAIN),
            State::Running => Some(self.wall_deadline().map_or(self.next_sample, |d| d.min(self.next_sample))),
        }
    }

    /// Time in which the owner of the machine had stopped the job does not count.
    fn wall_deadline(&self) -> Option<Instant> {
        (self.limits.wall_ms != 0).then(|| self.asked + Duration::from_millis(self.limits.wall_ms) + self.paused)
    }

    fn hear(&mut self, channel: &OwnedFd) {
        let mut word = [0];
        match rustix::io::read(channel, &mut word) {
            Ok(1) if word[0] == word::STOP && self.state == State::Running => {
                self.stopped_at = Some(Instant::now());
                self.state = State::Stopping(false);
            }
            Ok(1) if word[0] == word::STOP && self.state == State::Stopped => self.say_stopped(channel),
            Ok(1) if word[0] == word::RESUME && self.state != State::Running => {
                self.paused += self.stopped_at.take().map_or(Duration::ZERO, |at| at.elapsed());
                self.state = State::Running;
                self.next_sample = Instant::now() + SAMPLE;
                sys::signal_everyone(libc::SIGCONT);
            }
            Ok(1) => {}
            // The sandbox is gone, and this job with it: as init, this exit kills every other process.
            Ok(_) => sys::exit_now(1),
            Err(_) => {}
        }
    }

    /// One pass: a signal to all, then a look at all. `kill(-1)` and fork exclude each other in the kernel: a process
    /// with the signal pending does not complete a fork, so nothing escapes by forking, and new sessions do not matter.
    /// Two passes must agree, because the first look may have come before a process reached its stop.
    fn stop(&mut self, channel: &OwnedFd) {
        sys::signal_everyone(libc::SIGSTOP);
        let quiet = processes(self.prepared).iter().all(|pid| is_still(self.prepared, *pid));
        self.state = match (&self.state, quiet) {
            (State::Stopping(true), true) => State::Stopped,
            _ => State::Stopping(quiet),
        };
        if self.state == State::Stopped {
            self.say_stopped(channel);
        }
    }

    fn say_stopped(&self, channel: &OwnedFd) {
        // An error means that the sandbox is gone, which the next poll sees.
        let _ = rustix::io::write(channel, &[word::STOP]);
    }

    /// Limits that only looking can enforce.
    fn check(&mut self, now: Instant) -> Option<LimitKind> {
        if self.state != State::Running {
            return None;
        }
        if self.wall_deadline().is_some_and(|deadline| now >= deadline) {
            return Some(LimitKind::Wall);
        }
        if now < self.next_sample {
            return None;
        }
        let over = |limit: u64, value: u64| limit != 0 && value > limit;
        let pids = processes(self.prepared);
        let written_bytes = self.written_bytes();
        let resident_bytes = resident_bytes(self.prepared, &pids) + written_bytes;
        self.next_sample = now + pause_at(resident_bytes, self.limits.resident_bytes, self.spare_bytes);
        // Mapped files are shared and the kernel's to drop: count them only to save the closer look.
        if over(self.limits.resident_bytes, resident_bytes)
            && over(self.limits.resident_bytes, own_memory(self.prepared) + written_bytes)
        {
            return Some(LimitKind::Memory);
        }
        // At the limit the kernel already refuses new ones (RLIMIT_NPROC), so "at" is as bad as "over".
        let at = |limit: u64, value: u64| limit != 0 && value >= limit;
        if at(self.limits.processes, pids.len() as u64) {
            return Some(LimitKind::Processes);
        }
        if now < self.next_account {
            return None;
        }
        // The kernel's account of a process is much dearer to read than its memory, and limits it too (RLIMIT_CPU and
        // RLIMIT_NPROC): this is for what many of them do together.
        self.next_account = now + SAMPLE_MAX;
        let sample = Sample::take(self.prepared, &pids);
        let reaped = sys::usage(true);
        if over(self.limits.cpu_s * 1_000_000, sample.cpu_us + reaped.user_us + reaped.system_us) {
            return Some(LimitKind::Cpu);
        }
        at(self.limits.processes, sample.threads).then_some(LimitKind::Processes)
    }

    /// What the job has written is in memory as well: its outputs and /tmp.
    fn written_bytes(&self) -> u64 {
        rustix::fs::fstatvfs(&self.prepared.scratch).map_or(0, |fs| (fs.f_blocks - fs.f_bfree) * fs.f_frsize)
    }

    /// Collects every process that has ended, the program's orphans included.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            self.note(pid, status);
        }
    }

    /// Signals and reaps until nothing is left to signal. A killed process completes no fork, and its children become
    /// ours, so this ends.
    fn kill_all(&mut self) {
        while sys::signal_everyone(libc::SIGKILL) {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => self.note(pid, status),
                Err(e) if e == rustix::io::Errno::INTR => {}
                _ => return,
            }
        }
    }

    fn note(&mut self, pid: Pid, status: WaitStatus) {
        if pid == self.main {
            self.status = Some(status);
        }
    }

    fn finish(mut self, limit: Option<LimitKind>, failure: &OwnedFd) -> Seen {
        // All writers are dead: what is in the pipes is all there will be.
        let fits = self.out.drain() & self.err.drain();
        let mut why = vec![0; 4096];
        let why = match rustix::io::read(failure, &mut why) {
            Ok(n) if n > 0 => Some(String::from_utf8_lossy(&why[..n]).into_owned()),
            _ => None,
        };
        let spent = sys::usage(true);
        // The kernel counts RLIMIT_CPU in ticks: a process killed for it may have used some less by the finer count.
        let cpu_over =
            self.limits.cpu_s != 0 && spent.user_us + spent.system_us + 20_000 >= self.limits.cpu_s * 1_000_000;
        let status = self.status.and_then(|s| match (s.exit_status(), s.terminating_signal()) {
            (Some(code), _) => Some(End::Exited(code)),
            (None, Some(signal)) => Some(End::Signaled(signal)),
            (None, None) => None,
        });
        let end = match (why, limit, status) {
            (Some(why), ..) => End::NotStarted(why),
            (None, Some(limit), _) => End::Limit(limit),
            (None, None, _) if !fits => End::Limit(LimitKind::Stdio),
            // The kernel killed a process of it for its time, or it ended in the last moment.
            (None, None, _) if cpu_over => End::Limit(LimitKind::Cpu),
            (None, None, Some(End::Signaled(libc::SIGXCPU))) => End::Limit(LimitKind::Cpu),
            (None, None, Some(End::Signaled(libc::SIGXFSZ))) => End::Limit(LimitKind::OutputBytes),
            (None, None, Some(End::Exited(0))) => End::Exited(0),
            (None, None, Some(end)) => self.full_disk().map_or(end, End::Limit),
            (None, None, None) => End::Killed,
        };
        Seen { end, stdout: self.out.text, stderr: self.err.text }
    }

    /// When the compiler says "no space left on device", it is ours that is full.
    fn full_disk(&self) -> Option<LimitKind> {
        match rustix::fs::fstatvfs(&self.prepared.scratch) {
            Ok(fs) if fs.f_bfree == 0 => Some(LimitKind::OutputBytes),
            Ok(fs) if fs.f_ffree == 0 => Some(LimitKind::OutputFiles),
            _ => None,
        }
    }
}

/// How long nobody has to look at a job that has this much memory, on a machine that can spare so much.
fn pause_at(resident_bytes: u64, limit_bytes: u64, spare_bytes: u64) -> Duration {
    if limit_bytes == 0 {
        return SAMPLE_MAX;
    }
    // Near its limit it is watched closely whatever the machine has.
    let left_bytes = limit_bytes.saturating_sub(resident_bytes);
    let spare_bytes = spare_bytes.min(left_bytes);
    Duration::from_secs_f64((left_bytes + spare_bytes) as f64 / BYTES_PER_S_MAX as f64).clamp(SAMPLE, SAMPLE_MAX)
}

/// Memory of this machine.
fn machine_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}

/// One of the program's standard streams.
struct Pipe {
    fd: OwnedFd,
    text: Vec<u8>,
    bytes_max: usize,
    closed: bool,
}

impl Pipe {
    fn new(fd: OwnedFd, bytes_max: u64) -> Self {
        let bytes_max = if bytes_max == 0 { usize::MAX } else { bytes_max as usize };
        Self { fd, text: Vec::new(), bytes_max, closed: false }
    }

    fn poll(&self) -> PollFd<'_> {
        PollFd::new(&self.fd, PollFlags::IN)
    }

    /// Takes what is there. False when it is more than allowed.
    fn drain(&mut self) -> bool {
        let mut chunk = [0; 16384];
        while !self.closed {
            match rustix::io::read(&self.fd, &mut chunk) {
                Ok(0) => self.closed = true,
                Ok(n) => {
                    let room = self.bytes_max - self.text.len();
                    self.text.extend_from_slice(&chunk[..n.min(room)]);
                    if n > room {
                        return false;
                    }
                }
                Err(e) if e == rustix::io::Errno::INTR => {}
                Err(_) => break,
            }
        }
        true
    }
}

/// What all living processes of a job use together, besides memory.
#[derive(Default)]
struct Sample {
    cpu_us: u64,
    threads: u64,
}

impl Sample {
    fn take(prepared: &Prepared, pids: &[u32]) -> Self {
        let mut sample = Self::default();
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        for pid in pids {
            let Some(stat) = read_proc(prepared, &format!("{pid}/stat")) else { continue };
            let fields = stat_fields(&stat);
            let number = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
            // proc(5), counted from the state: 11 utime, 12 stime, 13 cutime, 14 cstime, 17 threads.
            sample.cpu_us += (11..=14).map(number).sum::<u64>() * 1_000_000 / ticks;
            sample.threads += number(17).max(1);
        }
        sample
    }
}

/// Memory of processes, with the files that they have mapped.
fn resident_bytes(prepared: &Prepared, pids: &[u32]) -> u64 {
    let pages = |pid: &u32| read_proc(prepared, &format!("{pid}/statm"))?.split(' ').nth(1)?.parse::<u64>().ok();
    pids.iter().filter_map(pages).sum::<u64>() * rustix::param::page_size() as u64
}

/// Anonymous and shared memory of all processes: what goes away only with them.
fn own_memory(prepared: &Prepared) -> u64 {
    let of = |pid: u32| {
        let status = read_proc(prepared, &format!("{pid}/status"))?;
        let kib = |key: &str| -> u64 {
            let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("");
            line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        Some((kib("RssAnon:") + kib("RssShmem:")) << 10)
    };
    processes(prepared).into_iter().filter_map(of).sum()
}

/// All processes of the job but its init.
fn processes(prepared: &Prepared) -> Vec<u32> {
    numbers_in(prepared, ".").into_iter().filter(|pid| *pid != 1).collect()
}

fn numbers_in(prepared: &Prepared, path: &str) -> Vec<u32> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = openat(&prepared.proc, path, flags, Mode::empty()).and_then(Dir::new) else { return Vec::new() };
    dir.filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok()).collect()
}

fn read_proc(prepared: &Prepared, path: &str) -> Option<String> {
    let fd = openat(&prepared.proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = vec![0; 4096];
    let n = rustix::io::read(fd.as_fd(), &mut text).ok()?;
    text.truncate(n);
    // A program may call itself what it likes.
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The fields after the name, which is in parentheses and may itself hold any.
fn stat_fields(stat: &str) -> Vec<&str> {
    stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect())
}

/// Whether no thread of a process can execute another instruction of its own. D counts: it has the stop pending and
/// meets it before it leaves the kernel (a parent in vfork waits there for its stopped child).
fn is_still(prepared: &Prepared, pid: u32) -> bool {
    numbers_in(prepared, &format!("{pid}/task")).into_iter().all(|task| {
        read_proc(prepared, &format!("{pid}/task/{task}/stat"))
            .is_none_or(|stat| stat_fields(&stat).first().is_none_or(|state| "TtZXxD".contains(state)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_near_its_memory_limit_is_looked_at_often_and_a_small_one_seldom() {
        const GIB: u64 = 1 << 30;
        let pause = |resident, spare| pause_at(resident, 4 * GIB, spare).as_millis();
        // 4 GiB at 10 GB/s.
        assert_eq!(pause(0, 0), 429);
        // What the machine can spare makes it longer, up to twice as long.
        assert_eq!(pause(0, GIB), 536);
        assert_eq!(pause(0, 100 * GIB), 858);
        assert_eq!(pause(3 * GIB, 100 * GIB), 214);
        assert_eq!(pause(4 * GIB - 1, 100 * GIB), 100);
        assert_eq!(pause(9 * GIB, 100 * GIB), 100);
        assert_eq!(pause_at(0, 100 * GIB, 0), SAMPLE_MAX);
        assert_eq!(pause_at(9 * GIB, 0, 0), SAMPLE_MAX);
        assert!(machine_bytes() > 100 << 20);
    }
}
