//! The node's side of the runner: starts one for a submitter, hands it jobs with their report sockets, and passes on
//! what it says. Starting and ending it block; what it is told goes out on a thread of its own, because it may act late
//! while the owner's programs want every core, and the node's loop must not wait for that.

use std::collections::HashMap;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::job_group::{JobGroup, JobGroups};
use potluck_runner::protocol::{FRAME_BYTES_MAX, FromRunner, Job, Report, Setup, ToRunner, Trap};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// What a finished job touched.
#[derive(Debug, Default, Clone)]
pub struct Touched {
    /// Ids of poisons.
    pub faults: Vec<u64>,
    /// More were touched.
    pub overflow: bool,
}

/// A job that was handed to the runner. Both ends close when the sandbox does.
pub struct Started {
    /// Its report.
    pub report: UnixStream,
    /// What it touched.
    pub touched: mpsc::Receiver<Touched>,
    /// What limits it; None: the runner does.
    pub group: Option<JobGroup>,
}

/// A running sandbox.
pub struct Sandbox {
    /// How poison is noticed.
    pub trap: Trap,
    /// Why not better.
    pub trap_note: String,
    socket: UnixStream,
    /// To the thread that writes to the socket, in order.
    words: mpsc::Sender<Word>,
    waiting: Arc<Mutex<HashMap<u64, mpsc::Sender<Touched>>>>,
    /// Of its jobs. None: the runner looks at their processes.
    groups: Option<Arc<JobGroups>>,
    child: Mutex<Child>,
}

/// A frame for the runner, with the descriptors that travel with a job: its report socket, and the door of its control
/// group.
struct Word(ToRunner, Vec<OwnedFd>);

/// Where the runner's program is: beside this one, where packages put it, or where `POTLUCK_RUNNER` says.
pub fn runner_path() -> PathBuf {
    if let Some(path) = std::env::var_os("POTLUCK_RUNNER") {
        return path.into();
    }
    crate::dirs::runner_of(&std::env::current_exe().unwrap_or_default())
}

/// Longest wait for a sandbox to stand.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

impl Sandbox {
    /// Starts the runner and waits until its sandbox stands.
    pub fn start(setup: &Setup) -> Result<Arc<Self>, String> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| format!("no socket for the sandbox: {e}"))?;
        let their_fd = theirs.as_raw_fd();
        let mut command = Command::new(runner_path());
        command.arg("sandbox").stdin(Stdio::null()).stdout(Stdio::null()).env_clear();
        // SAFETY: only async-signal-safe calls between fork and exec: dup2, and fcntl when the number is 3 already.
        unsafe {
            command.pre_exec(move || {
                if their_fd == 3 {
                    let flags = libc::fcntl(3, libc::F_GETFD);
                    libc::fcntl(3, libc::F_SETFD, flags & !libc::FD_CLOEXEC);
                } else if libc::dup2(their_fd, 3) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", runner_path().display()))?;
        drop(theirs);
        let mut reader = ours.try_clone().map_err(|e| e.to_string())?;
        reader.set_read_timeout(Some(READY_TIMEOUT)).map_err(|e| e.to_string())?;
        send(&ours, &ToRunner::Setup(setup.clone()), &[]).map_err(|e| format!("the sandbox program ended: {e}"))?;
        let (trap, trap_note) = match read_frame::<FromRunner>(&mut reader) {
            Ok(FromRunner::Ready { trap, trap_note }) => (trap, trap_note),
            Ok(FromRunner::Failed(why)) => {
                let _ = child.wait();
                return Err(why);
            }
            Ok(other) => return Err(format!("the sandbox program answered {other:?}")),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the sandbox did not stand within {} s: {error}", READY_TIMEOUT.as_secs()));
            }
        };
        let scope = crate::cpu_group::make_yield(child.id());
        let groups = JobGroups::of_sandbox(child.id(), scope.as_deref());
        reader.set_read_timeout(None).map_err(|e| e.to_string())?;
        let waiting: Arc<Mutex<HashMap<u64, mpsc::Sender<Touched>>>> = Arc::default();
        let listeners = Arc::clone(&waiting);
        std::thread::Builder::new()
            .name("sandbox".into())
            .spawn(move || {
                while let Ok(frame) = read_frame::<FromRunner>(&mut reader) {
                    if let FromRunner::Done { id, faults, faults_overflow } = frame
                        && let Some(listener) = lock(&listeners).remove(&id)
                    {
                        let _ = listener.send(Touched { faults, overflow: faults_overflow });
                    }
                }
                // The end of the sandbox ends the wait of everybody.
                lock(&listeners).clear();
            })
            .map_err(|e| e.to_string())?;
        let writer = ours.try_clone().map_err(|e| e.to_string())?;
        let (words, queue) = mpsc::channel::<Word>();
        std::thread::Builder::new()
            .name("to sandbox".into())
            .stack_size(256 << 10)
            .spawn(move || {
                while let Ok(Word(message, fds)) = queue.recv() {
                    if send(&writer, &message, &fds).is_err() {
                        // Half a frame may be there: nothing can follow. The end of the sandbox is heard by its reader,
                        // and jobs that were not sent hear it on their report sockets, which go with the queue.
                        let _ = writer.shutdown(std::net::Shutdown::Both);
                        return;
                    }
                }
            })
            .map_err(|e| e.to_string())?;
        Ok(Arc::new(Self { trap, trap_note, socket: ours, words, waiting, groups, child: Mutex::new(child) }))
    }

    /// Starts a job. Does not wait for the runner.
    pub fn run(&self, mut job: Job) -> std::io::Result<Started> {
        let (ours, theirs) = UnixStream::pair()?;
        let group = self.groups.as_ref().map(|groups| groups.job(job.id, &job.limits)).transpose()?;
        job.grouped = group.is_some();
        if job.grouped {
            // Nobody has to look.
            job.limits.resident_bytes = 0;
        }
        let mut fds = vec![theirs.into()];
        if let Some(group) = &group {
            fds.push(group.door()?.into());
        }
        let (tx, rx) = mpsc::channel();
        let id = job.id;
        lock(&self.waiting).insert(id, tx);
        if let Err(error) = self.say(Word(ToRunner::Run(job), fds)) {
            lock(&self.waiting).remove(&id);
            return Err(error);
        }
        Ok(Started { report: ours, touched: rx, group })
    }

    /// Sends a command for a running job; it follows everything that was said before. Does not wait for the runner.
    pub fn tell(&self, message: ToRunner) -> std::io::Result<()> {
        self.say(Word(message, Vec::new()))
    }

    fn say(&self, word: Word) -> std::io::Result<()> {
        self.words.send(word).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }

    /// The runner's process, for tests of its death.
    pub fn pid(&self) -> u32 {
        lock(&self.child).id()
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        matches!(lock(&self.child).try_wait(), Ok(None))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Closing the socket ends it; it kills its jobs. Waiting avoids a zombie.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let child = self.child.get_mut().unwrap_or_else(|e| e.into_inner());
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

fn send(socket: &UnixStream, message: &ToRunner, fds: &[OwnedFd]) -> std::io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(std::io::Error::other)?;
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&body);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let mut sent = rustix::net::sendmsg(socket, &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL)?;
    while sent < frame.len() {
        sent += rustix::net::send(socket, &frame[sent..], SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

fn read_frame<T: for<'a> serde::Deserialize<'a>>(reader: &mut impl Read) -> std::io::Result<T> {
    let mut head = [0; 4];
    reader.read_exact(&mut head)?;
    let len = u32::from_le_bytes(head) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(std::io::Error::other("frame too long"));
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    postcard::from_bytes(&body).map_err(std::io::Error::other)
}

/// Reads the head of a job's report. The contents of its files follow on the stream, in order.
pub fn read_report(stream: &mut UnixStream) -> std::io::Result<Report> {
    read_frame(stream)
}

/// The runner's self-test, as one line a check; Err is the sentence why this machine does not serve.
pub fn self_test() -> Result<String, String> {
    let lost = |e: std::io::Error| format!("{}: {e}", runner_path().display());
    let mut command = Command::new(runner_path());
    let test = command
        .arg("selftest")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(lost)?;
    // It shows early whether jobs will yield to the owner's programs.
    crate::cpu_group::make_yield(test.id());
    let output = test.wait_with_output().map_err(lost)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(why_failed(&text, &String::from_utf8_lossy(&output.stderr)))
}

/// What a person can act on: which parts failed and why. A runner that did not get so far says it its own way.
fn why_failed(checks: &str, complaint: &str) -> String {
    let failed: Vec<&str> = checks.lines().filter_map(|line| line.strip_prefix("FAIL ")).collect();
    match failed[..] {
        [] => complaint.lines().last().unwrap_or("the self-test ended without a word").to_owned(),
        [only] => only.to_owned(),
        [first, ..] => format!("{first} (and {} more)", failed.len() - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::why_failed;

    #[test]
    fn the_reason_is_the_part_that_failed() {
        let checks = "ok   users\nFAIL network: a socket could be opened\nok   files\n";
        assert_eq!(
            why_failed(checks, "potluck-runner: the sandbox does not hold"),
            "network: a socket could be opened"
        );
        let more = format!("{checks}FAIL time: the clock could be set\n");
        assert_eq!(why_failed(&more, "no"), "network: a socket could be opened (and 1 more)");
        assert_eq!(why_failed("", "one\npotluck-runner: no namespaces\n"), "potluck-runner: no namespaces");
        assert_eq!(why_failed("ok   users\n", ""), "the self-test ended without a word");
    }
}
