//! A folder with a source file, a `potluck` command that sees nothing of the tester's environment, and the node's side
//! of the socket, played by the test itself.
#![allow(dead_code)] // Each test program uses its part.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use potluck_wire::ipc::{self, Compile, Reply, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The program under test.
pub const POTLUCK: &str = env!("CARGO_BIN_EXE_potluck");
/// Longest wait for something that must happen; reached only by a failing test.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Lab {
    pub root: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Lab {
        let root = tempfile::tempdir().expect("scratch");
        std::fs::write(root.path().join("a.c"), "int f(void) { return 1; }\n").expect("source");
        Lab { root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A node that listens.
    pub fn node(&self) -> Node {
        Node(UnixListener::bind(self.path("node.sock")).expect("bind"))
    }

    /// Any program in the lab's environment.
    pub fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.root.path())
            .env("POTLUCK_SOCKET", self.path("node.sock"))
            // The test plays the node, and the machine may be busy with other tests.
            .env("POTLUCK_PATIENCE_MS", "20000")
            .current_dir(self.root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `potluck` with arguments.
    pub fn potluck(&self, args: &[&str]) -> Command {
        let mut command = self.program(POTLUCK);
        command.args(args);
        command
    }

    /// An executable script.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path("script.txt"), text).expect("text");
        self.install(&self.path("script.txt"), name)
    }

    /// A copy of a program. Another process writes it: a child that a parallel test starts meanwhile would inherit our
    /// descriptor, and nobody could execute the file ("text file busy").
    pub fn install(&self, program: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        let done = Command::new("install").args(["-D", "-m", "755"]).arg(program).arg(&path).status();
        assert!(done.expect("install runs").success());
        path
    }

    /// The compiler itself made the object that lies there, and nothing was printed.
    pub fn expect_compiled(&self, output: &Output) {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b""[..]), "{output:?}");
        assert!(self.path("a.o").exists());
    }
}

pub struct Node(UnixListener);

impl Node {
    /// The next connection with its request.
    pub fn accept(&self) -> (Conversation, Request) {
        assert!(is_readable(&self.0, PATIENCE), "nobody connected");
        let (stream, _) = self.0.accept().expect("accept");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut conversation = Conversation(stream);
        let request = conversation.read();
        (conversation, request)
    }

    /// The next connection with its compile request.
    pub fn accept_compile(&self) -> (Conversation, Compile) {
        match self.accept() {
            (conversation, Request::Compile(compile)) => (conversation, *compile),
            (_, other) => panic!("not a compile: {other:?}"),
        }
    }

    /// A connection on which nothing is read.
    pub fn accept_only(&self) -> UnixStream {
        assert!(is_readable(&self.0, PATIENCE), "nobody connected");
        self.0.accept().expect("accept").0
    }

    /// Whether somebody has connected, without waiting.
    pub fn was_contacted(&self) -> bool {
        is_readable(&self.0, Duration::ZERO)
    }
}

/// What a node leaves beside its socket when it has taken all questions and works.
pub fn taken(lab: &Lab) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    leave(lab, now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64, 0);
}

/// What stands beside the socket of a node whose thread `thread` takes questions.
pub fn leave(lab: &Lab, told_ns: u64, thread: u32) {
    let path = ipc::taken_path(lab.path("node.sock").as_os_str().as_bytes());
    let taken = ipc::Taken { told_ns, thread };
    std::fs::write(std::ffi::OsStr::from_bytes(&path), taken.to_bytes()).expect("written");
}

pub struct Conversation(pub UnixStream);

impl Conversation {
    fn read(&mut self) -> Request {
        let mut head = [0; 4];
        self.0.read_exact(&mut head).expect("length");
        let mut body = vec![0; ipc::frame_len(head).expect("allowed length")];
        self.0.read_exact(&mut body).expect("message");
        ipc::decode(&body).expect("a request")
    }

    pub fn reply(&mut self, reply: &Reply) {
        self.0.write_all(&ipc::encode(reply)).expect("reply");
    }

    pub fn local(&mut self, reason: &str) {
        self.reply(&Reply::Local { reason: reason.to_owned() });
    }

    /// The other side still has the connection open.
    pub fn is_open(&self) -> bool {
        !is_readable(&self.0, Duration::ZERO)
    }

    /// Waits for the other side to be gone. That is an error if it left a reply unread.
    pub fn expect_end(&mut self) {
        let ended = loop {
            match self.0.read(&mut [0; 1]) {
                // A process that the test has stopped tells of it by a signal.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match ended {
            Ok(0) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("not the end: {other:?}"),
        }
    }
}

fn is_readable(fd: &impl AsFd, wait: Duration) -> bool {
    let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: 0 };
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)).expect("poll") > 0
}

/// A path as a value in the request.
pub fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}
