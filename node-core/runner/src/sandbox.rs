//! The sandbox process: one loop over the node's socket, the trap and the running jobs. Nothing here waits for a job or
//! walks into the trap; either would stop the loop that answers it.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType, recvmsg,
    send, socketpair,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getppid, kill_process, pidfd_open, set_parent_process_death_signal,
    waitid,
};

use crate::filter::{ANSWERS, Filters};
use crate::job::{self, Common, word};
use crate::root;
use crate::trapfs::{REQUEST_BYTES_MAX, TrapFs};
use crate::{count, sys};
use potluck_runner::protocol::{End, FromRunner, Job, Report, Setup, ToRunner, read_frame, write_frame};

/// The subcommand.
pub fn main() -> ExitCode {
    let Ok(control) = sys::inherited(3) else {
        eprintln!("potluck-runner: sandbox is started by Potluck, with its socket as descriptor 3");
        return ExitCode::from(2);
    };
    sys::close_all_except(&[3]);
    let mut control = Control { fd: control, inbox: Vec::new(), fds: VecDeque::new(), outbox: Vec::new() };
    let Some(setup) = first_frame(&mut control) else {
        eprintln!("potluck-runner: the first frame is not a setup");
        return ExitCode::from(2);
    };
    match stand(&setup) {
        Ok((sandbox, fuse, ready)) => {
            control.say(&ready);
            sandbox.serve(control, fuse)
        }
        Err(why) => {
            control.say(&FromRunner::Failed(why));
            control.flush();
            ExitCode::FAILURE
        }
    }
}

fn first_frame(control: &mut Control) -> Option<Setup> {
    loop {
        match control.next() {
            Ok(Some(ToRunner::Setup(setup))) => return Some(setup),
            Ok(None) if control.fill(RecvFlags::empty()) => {}
            _ => return None,
        }
    }
}

/// Makes everything that jobs share; also requests to the trap, if it is a file system, and what the node is told.
fn stand(setup: &Setup) -> Result<(Sandbox, Option<OwnedFd>, FromRunner), String> {
    rustix::process::umask(rustix::fs::Mode::empty());
    rustix::thread::set_no_new_privs(true).map_err(|e| format!("giving up privileges: {e}"))?;
    let root = root::prepare(setup)?;
    let (filters, count) = (Filters::new(ANSWERS)?, count::program()?);
    // The signal tells that the starting *thread* has ended, which need not be the node's end: so it only wakes the
    // loop, which then looks for its parent. What ends the sandbox is the control socket; this is for a node whose
    // socket has leaked into a process that outlives it.
    let signals = sys::signal_fd(&[libc::SIGUSR1, libc::SIGCHLD]).map_err(|e| format!("watching signals: {e}"))?;
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::USR1)).map_err(|e| format!("watching the node: {e}"))?;
    let root::Root { fuse, trap, note, nowhere, pipes_max } = root;
    let common = Common { uid: setup.uid, gid: setup.gid, trap, filters, count, pipes_max, nowhere };
    let trapfs = TrapFs::new(setup.uid, setup.gid);
    let ready = FromRunner::Ready { trap, trap_note: note };
    Ok((Sandbox { common, trapfs, jobs: Vec::new(), signals, parent }, fuse, ready))
}

struct Sandbox {
    common: Common,
    trapfs: TrapFs,
    jobs: Vec<Running>,
    signals: OwnedFd,
    parent: Option<Pid>,
}

/// A job whose init has not been reaped.
struct Running {
    id: u64,
    pid: Pid,
    /// Readable when the init has ended, and with it every process of the job.
    ended: OwnedFd,
    channel: OwnedFd,
    report: OwnedFd,
    asked: Instant,
    /// Its init has closed the channel.
    silent: bool,
    /// Its init writes the report itself.
    reporting: bool,
    /// `Kill` was asked for.
    killed: bool,
}

impl Sandbox {
    /// Until the node closes its socket. The inits die with this process (PR_SET_PDEATHSIG), and with each its job.
    fn serve(mut self, mut control: Control, fuse: Option<OwnedFd>) -> ExitCode {
        let mut buffer = vec![0; REQUEST_BYTES_MAX];
        loop {
            let interest = if control.outbox.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            let mut fds = vec![PollFd::new(&control.fd, interest), PollFd::new(&self.signals, PollFlags::IN)];
            // Without a trap the slot repeats the signals: positions stay fixed.
            fds.push(PollFd::new(fuse.as_ref().unwrap_or(&self.signals), PollFlags::IN));
            for job in &self.jobs {
                // A closed channel is ready for ever, and the kernel takes its time to end a pid namespace.
                fds.push(PollFd::new(if job.silent { &job.ended } else { &job.channel }, PollFlags::IN));
                fds.push(PollFd::new(&job.ended, PollFlags::IN));
            }
            // Interrupted: everything is tried without blocking, so nothing is lost.
            let _ = poll(&mut fds, None);
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);

            if ready[1] && !self.parent_lives() {
                return ExitCode::SUCCESS;
            }
            if let Some(fuse) = fuse.as_ref().filter(|_| ready[2])
                && let Err(why) = self.answer_trap(fuse, &mut buffer)
            {
                // Without it touches would go unseen: better no sandbox than a wrong object.
                eprintln!("potluck-runner: the trap was taken away: {why}");
                return ExitCode::FAILURE;
            }
            // Backwards, because ended jobs leave the list.
            for index in (0..self.jobs.len()).rev() {
                if ready[3 + 2 * index] || ready[4 + 2 * index] {
                    self.listen(index, &mut control);
                }
                if ready[4 + 2 * index] {
                    self.bury(index, &mut control);
                }
            }
            if ready[0] && !control.fill(RecvFlags::DONTWAIT) {
                return ExitCode::SUCCESS;
            }
            loop {
                match control.next() {
                    Ok(Some(message)) => self.obey(message, &mut control),
                    Ok(None) => break,
                    Err(why) => {
                        eprintln!("potluck-runner: {why}");
                        return ExitCode::FAILURE;
                    }
                }
            }
            control.flush();
        }
    }

    fn parent_lives(&self) -> bool {
        let mut sink = [0u8; 512];
        let _ = rustix::io::read(&self.signals, &mut sink);
        getppid() == self.parent
    }

    /// Answers all requests that wait; the device gives one per read.
    fn answer_trap(&mut self, fuse: &OwnedFd, buffer: &mut [u8]) -> rustix::io::Result<()> {
        loop {
            match rustix::io::read(fuse, &mut *buffer) {
                Ok(n) => {
                    if let Some(answer) = self.trapfs.answer(&buffer[..n]) {
                        // ENOENT: who asked has been killed meanwhile.
                        let _ = rustix::io::write(fuse, &answer);
                    }
                }
                // ENOENT: the request was withdrawn before it was read.
                Err(Errno::INTR | Errno::NOENT) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    fn obey(&mut self, message: ToRunner, control: &mut Control) {
        let tell = |jobs: &[Running], id: u64, what: u8| {
            if let Some(job) = jobs.iter().find(|job| job.id == id) {
                // An error means that the init is ending: `Done` follows.
                let _ = send(&job.channel, &[what], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            }
        };
        match message {
            ToRunner::Run(job) => {
                let Some(report) = control.fds.pop_front() else {
                    eprintln!("potluck-runner: job {} came without its socket", job.id);
                    control.say(&FromRunner::Done { id: job.id, faults: Vec::new(), faults_overflow: false });
                    return;
                };
                let group = if job.grouped { control.fds.pop_front() } else { None };
                self.start(job, report, group, control);
            }
            ToRunner::Stop(id) => tell(&self.jobs, id, word::STOP),
            ToRunner::Resume(id) => tell(&self.jobs, id, word::RESUME),
            ToRunner::Kill(id) => {
                if let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) {
                    job.killed = true;
                    // Not yet reaped, so the id is still its own.
                    let _ = kill_process(job.pid, Signal::KILL);
                }
            }
            ToRunner::Setup(_) => eprintln!("potluck-runner: a second setup is ignored"),
        }
    }

    fn start(&mut self, job: Job, report: OwnedFd, group: Option<OwnedFd>, control: &mut Control) {
        let asked = Instant::now();
        let id = job.id;
        let refused = |why: String, control: &mut Control| {
            write_short_report(&report, End::NotStarted(why), asked);
            control.say(&FromRunner::Done { id, faults: Vec::new(), faults_overflow: false });
        };
        if self.jobs.iter().any(|running| running.id == id) {
            write_short_report(&report, End::NotStarted("a job with this number is running".into()), asked);
            return;
        }
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = match pair {
            Ok(pair) => pair,
            Err(e) => return refused(format!("making the job's channel: {e}"), control),
        };
        self.trapfs.add(id);
        let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
        if job.grouped && group.is_none() {
            // Nothing else would limit it.
            return refused("its control group's descriptor did not come".into(), control);
        }
        let started = match sys::fork(namespaces) {
            Ok(sys::Fork::Child) => job::main(&job, &self.common, report, group, theirs, asked),
            Ok(sys::Fork::Parent(pid)) => pidfd_open(pid, PidfdFlags::empty()).map(|ended| (pid, ended)),
            Err(e) => Err(Errno::from_raw_os_error(e.raw_os_error().unwrap_or(libc::EIO))),
        };
        match started {
            Ok((pid, ended)) => self.jobs.push(Running {
                id,
                pid,
                ended,
                channel: ours,
                report,
                asked,
                silent: false,
                reporting: false,
                killed: false,
            }),
            Err(e) => {
                self.trapfs.remove(id);
                refused(format!("starting the job's first process: {e}"), control);
            }
        }
    }

    /// What the init of a job says.
    fn listen(&mut self, index: usize, control: &mut Control) {
        let job = &mut self.jobs[index];
        let mut word = [0];
        loop {
            match rustix::net::recv(&job.channel, &mut word, RecvFlags::DONTWAIT) {
                Ok((1, _)) if word[0] == word::STOP => control.say(&FromRunner::Stopped(job.id)),
                Ok((1, _)) if word[0] == word::REPORTING => job.reporting = true,
                Ok((1, _)) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Closed, orderly or by a kill: what follows is the end of the init.
                Ok(_) | Err(_) => {
                    job.silent = true;
                    return;
                }
            }
        }
    }

    /// The init has ended, so every process of the job has: reaps it and tells the node.
    fn bury(&mut self, index: usize, control: &mut Control) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if !matches!(waitid(WaitId::PidFd(self.jobs[index].ended.as_fd()), options), Ok(Some(_))) {
            return;
        }
        let job = self.jobs.remove(index);
        if !job.reporting {
            let end =
                if job.killed { End::Killed } else { End::NotStarted("the job's first process was killed".into()) };
            write_short_report(&job.report, end, job.asked);
        }
        let faults = self.trapfs.remove(job.id);
        control.say(&FromRunner::Done { id: job.id, faults: faults.ids, faults_overflow: faults.overflow });
    }
}

/// Speaks for a job that cannot. Some hundred bytes into an empty socket buffer: does not block.
fn write_short_report(report: &OwnedFd, end: End, asked: Instant) {
    let message = Report {
        end,
        stdout: Vec::new(),
        stderr: Vec::new(),
        wall_us: asked.elapsed().as_micros() as u64,
        user_us: 0,
        system_us: 0,
        overhead_us: 0,
        max_rss_bytes: 0,
        outputs: Vec::new(),
    };
    let mut frame = Vec::new();
    write_frame(&mut frame, &message).expect("a short report fits");
    // An error means that the node does not listen any more.
    let _ = send(report, &frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// The node's socket with what is half read and not yet written.
struct Control {
    fd: OwnedFd,
    inbox: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    outbox: Vec<u8>,
}

impl Control {
    /// Reads once. False when the node is gone.
    fn fill(&mut self, flags: RecvFlags) -> bool {
        let mut chunk = [0u8; 65536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let read = recvmsg(&self.fd, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, flags);
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        match read {
            Ok(message) if message.bytes > 0 => {
                self.inbox.extend_from_slice(&chunk[..message.bytes]);
                true
            }
            Ok(_) => false,
            Err(e) => matches!(e, Errno::AGAIN | Errno::INTR),
        }
    }

    /// The next complete frame.
    fn next(&mut self) -> Result<Option<ToRunner>, String> {
        let next = read_frame(&self.inbox).map_err(|e| e.to_string())?;
        Ok(next.map(|(message, used)| {
            self.inbox.drain(..used);
            message
        }))
    }

    fn say(&mut self, message: &FromRunner) {
        write_frame(&mut self.outbox, message).expect("a message to the node is some kilobytes");
    }

    /// Writes what the socket takes; the rest waits for the loop.
    fn flush(&mut self) {
        while !self.outbox.is_empty() {
            match send(&self.fd, &self.outbox, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(n) => _ = self.outbox.drain(..n),
                Err(Errno::INTR) => {}
                // Full: poll says when there is room. Gone: the next read says so.
                Err(_) => return,
            }
        }
    }
}
