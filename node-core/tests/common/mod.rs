//! A node of its own folders for one test, a small HTTP and WebSocket client, and the local socket.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use potluck_wire::ipc::{self, Reply, Request};
use serde_json::{Value, json};

/// Nothing here takes as long as this, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running node; it ends with this value.
pub struct Node {
    pub dir: tempfile::TempDir,
    child: Option<Child>,
    args: Vec<String>,
    /// What it said before it was ready.
    pub said: Vec<String>,
}

impl Node {
    /// Starts `potluck-node node ARGS`.
    pub fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let mut node = Self { dir, child: None, args, said: Vec::new() };
        node.again();
        node
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_potluck-node"));
        command.args(args).env_clear().env("HOME", self.dir.path()).env("PATH", "/usr/bin:/bin");
        for (name, below) in [("CONFIG", "c"), ("STATE", "s"), ("CACHE", "k"), ("RUNTIME", "r")] {
            let variable = if name == "RUNTIME" { "XDG_RUNTIME_DIR".into() } else { format!("XDG_{name}_HOME") };
            command.env(variable, self.dir.path().join(below));
        }
        command.env("POTLUCK_UI_DIR", self.dir.path().join("ui"));
        command
    }

    /// Starts it in the same folders.
    pub fn again(&mut self) {
        let args: Vec<&str> = std::iter::once("node").chain(self.args.iter().map(String::as_str)).collect();
        let mut child = self.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.said.clear();
        self.child = Some(child);
        loop {
            let line = lines.next().expect("the node says that it is ready").unwrap();
            self.said.push(line);
            if self.said.iter().any(|l| l.contains("potluck node ready")) {
                return;
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("s/potluck")
    }

    /// Sends a call over the local socket.
    pub fn ask(&self, call: &Value) -> Answers {
        let mut stream = UnixStream::connect(self.dir.path().join("r/potluck/node.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&ipc::encode(&Request::Api { json: call.to_string() })).unwrap();
        Answers { stream }
    }

    /// The one answer.
    pub fn call(&self, call: &Value) -> Value {
        let (value, last) = self.ask(call).next();
        assert!(last, "one answer to {call}");
        value
    }

    /// `potluck ui --print`.
    pub fn url(&self) -> (SocketAddr, String) {
        let output = self.command(&["ui", "--print"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let url = String::from_utf8(output.stdout).unwrap();
        let (address, token) = url.trim().strip_prefix("http://").unwrap().split_once("/#token=").unwrap();
        (address.parse().unwrap(), token.to_owned())
    }

    /// A new session's token.
    pub fn session(&self) -> (SocketAddr, String) {
        let (at, token) = self.url();
        let answer = post_session(at, Some(&format!("http://{at}")), &token);
        assert_eq!(answer.status, 200);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        (at, body["session"].as_str().unwrap().to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Answers on the local socket.
pub struct Answers {
    stream: UnixStream,
}

impl Answers {
    pub fn next(&mut self) -> (Value, bool) {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).unwrap();
        let mut body = vec![0; ipc::frame_len(head).unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        match ipc::decode::<Reply>(&body).unwrap() {
            Reply::Api { json, last } => (serde_json::from_str(&json).unwrap(), last),
            other => panic!("{other:?}"),
        }
    }

    /// The first value that `is` what is waited for.
    pub fn until(&mut self, is: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (value, last) = self.next();
            if is(&value) {
                return value;
            }
            assert!(!last, "the stream ended with {value}");
        }
    }
}

/// An HTTP answer.
pub struct Http {
    pub status: u16,
    pub head: String,
    pub body: String,
}

pub fn request(at: SocketAddr, text: &str) -> Http {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let mut body = vec![0; length.map_or(0, |l| l.trim().parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    Http { status: status_of(&head), head, body: String::from_utf8(body).unwrap() }
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn status_of(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

pub fn get(at: SocketAddr, path: &str, host: &str) -> Http {
    request(at, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

pub fn post_session(at: SocketAddr, origin: Option<&str>, token: &str) -> Http {
    let body = json!({"token": token}).to_string();
    let origin = origin.map_or(String::new(), |o| format!("Origin: {o}\r\n"));
    request(
        at,
        &format!("POST /session HTTP/1.1\r\nHost: {at}\r\n{origin}Content-Length: {}\r\n\r\n{body}", body.len()),
    )
}

/// An upgrade to WebSocket, with these headers besides.
pub fn upgrade(at: SocketAddr, host: &str, headers: &str) -> (u16, Socket) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let text = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    stream.write_all(text.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    (status_of(&head), Socket { stream })
}

/// A page: its session is in the headers.
pub fn page(at: SocketAddr, session: &str) -> Socket {
    let headers = format!("Origin: http://{at}\r\nSec-WebSocket-Protocol: potluck.1, token.{session}\r\n");
    let (status, socket) = upgrade(at, &at.to_string(), &headers);
    assert_eq!(status, 101);
    socket
}

/// What came over a WebSocket.
#[derive(Debug, PartialEq)]
pub enum Frame {
    Text(Value),
    /// Its code.
    Close(u16),
    /// The connection ended without one.
    Gone,
}

/// The client's side of RFC 6455, as far as it is needed.
pub struct Socket {
    stream: TcpStream,
}

impl Socket {
    pub fn say(&mut self, value: &Value) {
        self.frame(0x81, value.to_string().as_bytes()).unwrap();
    }

    /// One frame, masked with zeros, as a client must mask.
    pub fn frame(&mut self, first: u8, payload: &[u8]) -> std::io::Result<()> {
        let mut frame = vec![first];
        match payload.len() {
            n @ 0..126 => frame.push(0x80 | n as u8),
            n @ 126..65536 => {
                frame.push(0x80 | 126);
                frame.extend((n as u16).to_be_bytes());
            }
            n => {
                frame.push(0x80 | 127);
                frame.extend((n as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame)
    }

    pub fn hear(&mut self) -> Frame {
        let mut head = [0; 2];
        if self.stream.read_exact(&mut head).is_err() {
            return Frame::Gone;
        }
        let length = match head[1] {
            126 => {
                let mut n = [0; 2];
                self.stream.read_exact(&mut n).unwrap();
                usize::from(u16::from_be_bytes(n))
            }
            127 => {
                let mut n = [0; 8];
                self.stream.read_exact(&mut n).unwrap();
                u64::from_be_bytes(n) as usize
            }
            n => usize::from(n),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        match head[0] & 0x0f {
            1 => Frame::Text(serde_json::from_slice(&payload).unwrap()),
            8 => Frame::Close(u16::from_be_bytes([payload[0], payload[1]])),
            other => panic!("a frame of kind {other}"),
        }
    }

    /// The one answer to a call.
    pub fn call(&mut self, id: u64, call: &Value) -> Value {
        self.say(&json!({"id": id, "call": call}));
        match self.hear() {
            Frame::Text(answer) => {
                assert_eq!((&answer["id"], &answer["last"]), (&json!(id), &json!(true)), "{answer}");
                answer["value"].clone()
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A file of the window.
pub fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}
