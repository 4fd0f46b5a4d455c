//! A blocking client of one sandbox: starts the runner, sends jobs, reads reports. For the self-test and for tests; the
//! node speaks the same frames from its own event loop.

use std::ffi::OsStr;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::protocol::{
    FRAME_BYTES_MAX, FromRunner, HarvestKind, Job, Report, Setup, ToRunner, Trap, frame_len, read_frame, write_frame,
};

/// A running sandbox process. Dropping it closes the control socket, which ends the sandbox and every job in it.
pub struct Sandbox {
    child: Child,
    control: Option<UnixStream>,
    inbox: Vec<u8>,
    /// Which trap it made.
    pub trap: Trap,
    /// Why not the better one.
    pub trap_note: String,
}

/// A job's end of its report stream.
pub struct Reporter(UnixStream);

impl Sandbox {
    /// Starts `runner sandbox` and waits until the sandbox stands; the error is the runner's own sentence.
    pub fn start(runner: &OsStr, setup: &Setup) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(runner);
        command.arg("sandbox").stdin(Stdio::null()).stdout(Stdio::null());
        let fd = theirs.as_raw_fd();
        // SAFETY: dup2 and fcntl are async-signal-safe; `theirs` lives until after spawn.
        unsafe {
            command.pre_exec(move || {
                // dup2 onto itself would leave close-on-exec set.
                let done = if fd == 3 { libc::fcntl(3, libc::F_SETFD, 0) } else { libc::dup2(fd, 3) };
                if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        let child = command.spawn()?;
        drop(theirs);
        let mut sandbox =
            Self { child, control: Some(ours), inbox: Vec::new(), trap: Trap::Loop, trap_note: String::new() };
        sandbox.send(&ToRunner::Setup(setup.clone()))?;
        match sandbox.next()? {
            FromRunner::Ready { trap, trap_note } => {
                sandbox.trap = trap;
                sandbox.trap_note = trap_note;
                Ok(sandbox)
            }
            FromRunner::Failed(why) => Err(io::Error::other(why)),
            other => Err(io::Error::other(format!("the runner began with {other:?}"))),
        }
    }

    /// Process id of the sandbox.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a frame without a descriptor.
    pub fn send(&mut self, message: &ToRunner) -> io::Result<()> {
        let mut frame = Vec::new();
        write_frame(&mut frame, message).map_err(io::Error::other)?;
        self.control().write_all(&frame)
    }

    /// Starts a job.
    pub fn run(&mut self, job: &Job) -> io::Result<Reporter> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut frame = Vec::new();
        write_frame(&mut frame, &ToRunner::Run(job.clone())).map_err(io::Error::other)?;
        let fds = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let sent = sendmsg(self.control(), &[IoSlice::new(&frame)], &mut ancillary, SendFlags::NOSIGNAL)?;
        self.control().write_all(&frame[sent..])?;
        Ok(Reporter(ours))
    }

    /// The next frame from the sandbox, waiting for it.
    #[allow(clippy::should_implement_trait)] // It never ends by itself and can fail: no iterator.
    pub fn next(&mut self) -> io::Result<FromRunner> {
        loop {
            if let Some((message, used)) = read_frame(&self.inbox).map_err(io::Error::other)? {
                self.inbox.drain(..used);
                return Ok(message);
            }
            let mut chunk = [0; 4096];
            let n = self.control().read(&mut chunk)?;
            if n == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the sandbox ended"));
            }
            self.inbox.extend_from_slice(&chunk[..n]);
        }
    }

    /// Runs a job to its end: report, contents of its `File`s in order, and the poisons it touched.
    pub fn complete(&mut self, job: &Job) -> io::Result<Finished> {
        let (report, contents) = self.run(job)?.read()?;
        loop {
            if let FromRunner::Done { id, faults, faults_overflow } = self.next()?
                && id == job.id
            {
                return Ok(Finished { report, contents, faults, faults_overflow });
            }
        }
    }

    fn control(&mut self) -> &mut UnixStream {
        self.control.as_mut().expect("the control socket is open until drop")
    }
}

/// All that is known about a job that is over.
pub struct Finished {
    /// What the job's init wrote.
    pub report: Report,
    /// Contents of the report's `File`s, in order.
    pub contents: Vec<Vec<u8>>,
    /// Ids of touched poisons.
    pub faults: Vec<u64>,
    /// There were more.
    pub faults_overflow: bool,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.control = None;
        // An error means that it is gone already.
        let _ = self.child.wait();
    }
}

impl Reporter {
    /// Waits for the report and its contents.
    pub fn read(mut self) -> io::Result<(Report, Vec<Vec<u8>>)> {
        let mut head = [0; 4];
        self.0.read_exact(&mut head)?;
        let len = frame_len(head).map_err(io::Error::other)?;
        let mut frame = head.to_vec();
        frame.resize(4 + len.min(FRAME_BYTES_MAX), 0);
        self.0.read_exact(&mut frame[4..])?;
        let (report, _) = read_frame::<Report>(&frame).map_err(io::Error::other)?.expect("the frame is complete");
        let mut contents = Vec::new();
        for output in &report.outputs {
            if let HarvestKind::File { size, .. } = output.kind {
                let mut content = vec![0; size as usize];
                self.0.read_exact(&mut content)?;
                contents.push(content);
            }
        }
        Ok((report, contents))
    }
}
