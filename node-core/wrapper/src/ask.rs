//! The conversation with the node over its Unix socket. Decides nothing about the compile: it brings the node's final
//! word, or says that there is none.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::process::words_of;
use potluck_wire::ipc::{self, Reply, Request};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// Silence of the node that is waited for; the same as `limits::WRAPPER_PATIENCE` of the model, which the wrapper does
/// not link.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// A node that computes, or waits for a disk, is no silent one: it is waited for this many times as long in all. What keeps
/// it busy (a disk that is flushed, every core taken) would keep a compiler here as busy; a node that never comes to an end
/// must not cost more.
const BUSY_PATIENCES: u32 = 20;
/// Read at once. Almost every reply fits.
const READ_BYTES: usize = 16 << 10;

/// What the node said in the end.
pub enum Answer {
    /// Execute the compiler, and keep the slot open.
    Local { reason: String, slot: OwnedFd },
    /// Compiled elsewhere.
    Done { exit: i32, stdout: Vec<u8>, stderr: Vec<u8> },
    /// Must not be compiled.
    Fail { exit: i32, message: String },
    /// There is no node that can answer.
    None(Trouble),
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Trouble {
    /// No socket, nobody behind it, or not ours.
    Connect(String),
    /// Silent for longer than it was waited for.
    Silent,
    /// It ended while it worked.
    Ended,
    /// It speaks something else.
    Protocol(String),
}

impl Trouble {
    /// The exit code when the compile must not happen here. The numbers are those of distcc.
    pub fn exit_code(&self) -> i32 {
        match self {
            Trouble::Connect(_) => 103,
            Trouble::Ended => 107,
            Trouble::Protocol(_) => 109,
            Trouble::Silent => 118,
        }
    }

    /// One sentence.
    pub fn sentence(&self) -> String {
        match self {
            Trouble::Connect(why) => format!("the Potluck node cannot be reached: {why}"),
            Trouble::Silent => "the Potluck node does not answer".to_owned(),
            Trouble::Ended => "the Potluck node ended before the compile was done".to_owned(),
            Trouble::Protocol(why) => format!("the Potluck node speaks another version: {why}"),
        }
    }
}

/// Where the node listens. The first that the environment gives.
pub fn socket_path(given: Option<&[u8]>, runtime_dir: Option<&[u8]>, home: Option<&[u8]>) -> Vec<u8> {
    if let Some(path) = given.filter(|path| !path.is_empty()) {
        return path.to_vec();
    }
    if let Some(dir) = runtime_dir.filter(|dir| dir.starts_with(b"/")) {
        return [dir, b"/potluck/node.sock"].concat();
    }
    let run_user = format!("/run/user/{}", rustix::process::getuid().as_raw());
    match home.filter(|home| home.starts_with(b"/")) {
        Some(home) if rustix::fs::stat(&run_user).is_err() => [home, b"/.cache/potluck/run/node.sock"].concat(),
        _ => format!("{run_user}/potluck/node.sock").into_bytes(),
    }
}

/// Asks, and waits for the final word; for the first one no longer than `patience`.
pub fn ask(socket: &[u8], request: &Request, patience: Duration) -> Answer {
    let asked_ns = monotonic_ns();
    let mut silence = Silence { patience: Some(patience), borne: 0, socket, asked_ns };
    let fd = match connect(socket, patience) {
        Ok(fd) => fd,
        Err(trouble) => return Answer::None(trouble),
    };
    if let Err(trouble) = send(&fd, &ipc::encode(request), &mut silence) {
        return Answer::None(trouble);
    }
    let mut inbox = Vec::new();
    match receive(&fd, &mut inbox, &mut silence) {
        Ok(Reply::Local { reason }) => Answer::Local { reason, slot: fd },
        Ok(Reply::Done { exit, stdout, stderr }) => Answer::Done { exit, stdout, stderr },
        Ok(Reply::Fail { exit, message }) => Answer::Fail { exit, message },
        Ok(Reply::Api { .. }) => Answer::None(Trouble::Protocol("it answered another question".to_owned())),
        Err(trouble) => Answer::None(trouble),
    }
}

/// Tells without waiting: what does not fit into the socket at once is not told.
pub fn tell(socket: &[u8], notice: &Request) {
    // One millisecond: a query must not wait even for a full queue.
    if let Ok(fd) = connect(socket, Duration::from_millis(1)) {
        // Only a statistic is lost.
        let _ = rustix::net::send(&fd, &ipc::encode(notice), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

/// How long silence is borne.
struct Silence<'a> {
    /// `None`: for ever. From there on the node's end is noticed as the end of the connection, however it ends.
    patience: Option<Duration>,
    /// How often it has passed.
    borne: u32,
    socket: &'a [u8],
    /// When the question began to be asked.
    asked_ns: u64,
}

impl Silence<'_> {
    /// The patience has passed: whether to go on waiting.
    fn go_on(&mut self, fd: &OwnedFd) -> bool {
        self.borne += 1;
        // Before the other look: what ends its round between the two has taken the question.
        let busy = self.borne < BUSY_PATIENCES && self.is_busy(fd);
        if self.is_work(fd) {
            self.patience = None;
            return true;
        }
        busy
    }

    /// Whether the node has read everything and has come to the end of its round since: then it works, and has nothing
    /// to say yet. It does not say this by a message, which would cost more than all others of a compile.
    fn is_work(&self, fd: &OwnedFd) -> bool {
        let mut unread: libc::c_int = 1;
        // SAFETY: TIOCOUTQ (for sockets SIOCOUTQ of unix(7)) writes one int.
        let asked = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
        asked == 0 && unread == 0 && self.taken().is_some_and(|taken| taken.told_ns >= self.asked_ns)
    }

    /// Whether the thread that takes questions computes or waits for a disk, by what the kernel says of it (proc(5)): it
    /// comes to the question then. One that sleeps, is stopped or cannot be seen is silent.
    fn is_busy(&self, fd: &OwnedFd) -> bool {
        let (Some(taken), Some(listener)) = (self.taken(), listener(fd)) else { return false };
        let path = format!("/proc/{}/task/{}/stat", listener.pid, taken.thread);
        let mut stat = [0; 128];
        let Some(stat) = read_start(path.as_bytes(), &mut stat) else { return false };
        // The name before it, of 15 bytes at most, is in brackets and may hold any byte.
        let behind = stat.iter().rposition(|&b| b == b')').map(|at| &stat[at..]);
        matches!(behind, Some([b')', b' ', b'R' | b'D', ..]))
    }

    fn taken(&self) -> Option<ipc::Taken> {
        let mut bytes = [0; ipc::Taken::BYTES];
        ipc::Taken::from_bytes(read_start(&ipc::taken_path(self.socket), &mut bytes)?)
    }
}

/// The beginning of a file, as much as there is room for.
fn read_start<'a>(path: &[u8], room: &'a mut [u8]) -> Option<&'a [u8]> {
    let file = rustix::fs::open(OsStr::from_bytes(path), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let read = rustix::io::read(&file, &mut *room).ok()?;
    room.get(..read)
}

/// Comparable with that of other processes. By a system call: for one look at the clock, mapping in the pages of the
/// kernel's own code for it (vdso(7)) costs ten times as much.
fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills one timespec.
    unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn connect(path: &[u8], patience: Duration) -> Result<OwnedFd, Trouble> {
    let shown = || String::from_utf8_lossy(path).into_owned();
    let failed = |error: Errno| Trouble::Connect(format!("{}: {}", shown(), words_of(error)));
    let me = rustix::process::geteuid().as_raw();
    let stat = rustix::fs::stat(OsStr::from_bytes(path)).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Trouble::Connect(format!("{} is no socket", shown())));
    }
    if stat.st_uid != me {
        return Err(Trouble::Connect(format!("{} belongs to another user", shown())));
    }
    let address = SocketAddrUnix::new(OsStr::from_bytes(path)).map_err(failed)?;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed)?;
    // The slot outlives the exec: it must not become a standard stream that the caller had closed.
    let fd = if fd.as_raw_fd() > 2 { fd } else { rustix::io::fcntl_dupfd_cloexec(&fd, 3).map_err(failed)? };
    // A full backlog makes connect wait, for this long at most; a non-blocking one would fail with EAGAIN instead.
    rustix::net::sockopt::set_socket_timeout(&fd, rustix::net::sockopt::Timeout::Send, Some(patience))
        .map_err(failed)?;
    match rustix::net::connect(&fd, &address) {
        Ok(()) => {}
        Err(Errno::AGAIN) => return Err(Trouble::Silent),
        Err(error) => return Err(failed(error)),
    }
    // The path could have been replaced since it was looked at: ask who listens.
    if listener(&fd).map(|listener| listener.uid) != Some(me) {
        return Err(Trouble::Connect(format!("{} belongs to another user", shown())));
    }
    Ok(fd)
}

fn listener(fd: &OwnedFd) -> Option<libc::ucred> {
    let mut cred = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `cred` is writable memory of `len` bytes, the size that SO_PEERCRED fills. (Not by rustix: a listener in
    // another pid namespace has the process id 0, which its type excludes.)
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut cred).cast(), &raw mut len)
    };
    (result == 0).then_some(cred)
}

fn send(fd: &OwnedFd, mut bytes: &[u8], silence: &mut Silence<'_>) -> Result<(), Trouble> {
    while !bytes.is_empty() {
        match rustix::net::send(fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::AGAIN) => wait(fd, PollFlags::OUT, silence)?,
            Err(Errno::INTR) => {}
            // It hung up early; it may have said why, and that is in our receive buffer still.
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
            Err(error) => return Err(Trouble::Connect(words_of(error))),
        }
    }
    Ok(())
}

/// The next reply.
fn receive(fd: &OwnedFd, inbox: &mut Vec<u8>, silence: &mut Silence<'_>) -> Result<Reply, Trouble> {
    let protocol = |error: ipc::FrameError| Trouble::Protocol(error.to_string());
    loop {
        if let Some((head, rest)) = inbox.split_first_chunk::<4>() {
            let len = ipc::frame_len(*head).map_err(protocol)?;
            if let Some(body) = rest.get(..len) {
                let reply = ipc::decode(body).map_err(protocol)?;
                inbox.drain(..4 + len);
                return Ok(reply);
            }
        }
        wait(fd, PollFlags::IN, silence)?;
        inbox.reserve(READ_BYTES);
        match rustix::net::recv(fd, spare_capacity(inbox), RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Trouble::Ended),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return Err(Trouble::Ended),
        }
    }
}

/// Sleeps until the socket is ready. Silence is what is measured: a large frame may take longer.
fn wait(fd: &OwnedFd, what: PollFlags, silence: &mut Silence<'_>) -> Result<(), Trouble> {
    let time = |t: Duration| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: i64::from(t.subsec_nanos()) };
    let timeout = silence.patience.map(time);
    match poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), what)], timeout.as_ref()) {
        Ok(0) if silence.go_on(fd) => {}
        Ok(0) => return Err(Trouble::Silent),
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(Trouble::Connect(words_of(error))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_where_the_environment_says() {
        let path = |given, run| String::from_utf8(socket_path(given, run, Some(b"/home/u"))).expect("text");
        assert_eq!(path(Some(b"/x/s"), Some(b"/run/user/7")), "/x/s");
        assert_eq!(path(None, Some(b"/run/user/7")), "/run/user/7/potluck/node.sock");
        assert_eq!(path(Some(b""), Some(b"/run/user/7")), "/run/user/7/potluck/node.sock");
        // The base directory specification: a relative value is ignored.
        assert!(path(None, Some(b"run")).starts_with('/'));
    }
}
