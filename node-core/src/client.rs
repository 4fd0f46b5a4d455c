//! The client's side of the management socket, for the command line and the tray app: one connection is one call, and
//! its answers are JSON. Blocking; whoever wants to end a stream early has a [`Closer`].

use std::io::Read;
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use potluck_wire::ipc::{self, Reply, Request};

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody answers at the socket.
    NoNode(String),
    /// The socket is another user's: nothing is asked there.
    NotOurs(String),
    /// The node ended, or does not speak this protocol.
    Broken(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoNode(text) | Self::NotOurs(text) | Self::Broken(text) => f.write_str(text),
        }
    }
}

/// One call that was made, with its answers to come.
pub struct Conversation {
    stream: UnixStream,
    over: bool,
}

/// Ends a [`Conversation`] from another thread: its `next` then fails.
pub struct Closer(UnixStream);

impl Closer {
    /// Both ways, at once.
    pub fn close(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Conversation {
    /// Asks the node that listens at `socket`; `json` is a [`potluck_api::call::Call`].
    pub fn begin(socket: &Path, json: &str) -> Result<Self, Trouble> {
        let shown = socket.display();
        let owner = std::fs::metadata(socket).map(|m| m.uid());
        if owner.is_ok_and(|uid| uid != rustix::process::geteuid().as_raw()) {
            return Err(Trouble::NotOurs(format!("{shown} belongs to another user; a node answers only its own")));
        }
        let stream = UnixStream::connect(socket)
            .map_err(|_| Trouble::NoNode(format!("no node runs here ({shown}); start it with: potluck node")))?;
        send(&stream, &ipc::encode(&Request::Api { json: json.to_owned() })).map_err(broken)?;
        Ok(Self { stream, over: false })
    }

    /// The next answer as JSON text; None after the last one. A refusal of the node is an answer like others.
    pub fn next_answer(&mut self) -> Result<Option<String>, Trouble> {
        if self.over {
            return Ok(None);
        }
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).map_err(broken)?;
        let len = ipc::frame_len(head).map_err(|e| Trouble::Broken(e.to_string()))?;
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body).map_err(broken)?;
        match ipc::decode::<Reply>(&body).map_err(|e| Trouble::Broken(e.to_string()))? {
            Reply::Api { json, last } => {
                self.over = last;
                Ok(Some(json))
            }
            other => Err(Trouble::Broken(format!("the node answered {other:?}"))),
        }
    }

    /// For another thread.
    pub fn closer(&self) -> std::io::Result<Closer> {
        self.stream.try_clone().map(Closer)
    }
}

/// Asks, and waits for the last answer: JSON text.
pub fn call(socket: &Path, json: &str) -> Result<String, Trouble> {
    let mut conversation = Conversation::begin(socket, json)?;
    let mut last = None;
    while let Some(answer) = conversation.next_answer()? {
        last = Some(answer);
    }
    last.ok_or_else(|| Trouble::Broken("the node answered nothing".to_owned()))
}

fn broken(error: std::io::Error) -> Trouble {
    Trouble::Broken(format!("the node ended before it answered: {error}"))
}

/// Sends everything; a node that is gone is an error here, not the end of this process.
fn send(stream: &UnixStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::net::send(stream, bytes, rustix::net::SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;

    /// Listens, reads one question and says `replies`, then waits for the client's end.
    fn node(replies: Vec<Vec<u8>>) -> (tempfile::TempDir, PathBuf, std::thread::JoinHandle<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 4];
            stream.read_exact(&mut head).unwrap();
            let mut body = vec![0; ipc::frame_len(head).unwrap()];
            stream.read_exact(&mut body).unwrap();
            for reply in replies {
                stream.write_all(&reply).unwrap();
            }
            let _ = stream.read(&mut head);
            match ipc::decode::<Request>(&body).unwrap() {
                Request::Api { json } => json,
                other => panic!("{other:?}"),
            }
        });
        (dir, path, asked)
    }

    fn says(json: &str, last: bool) -> Vec<u8> {
        ipc::encode(&Reply::Api { json: json.into(), last })
    }

    #[test]
    fn a_call_returns_the_last_of_its_answers() {
        let (_dir, path, asked) = node(vec![says("1", false), says("2", true)]);
        assert_eq!(call(&path, "{\"call\":\"status\"}"), Ok("2".to_owned()));
        assert_eq!(asked.join().unwrap(), "{\"call\":\"status\"}");
    }

    #[test]
    fn a_stream_that_is_closed_from_another_thread_ends() {
        let (_dir, path, asked) = node(vec![says("1", false)]);
        let mut watch = Conversation::begin(&path, "{}").unwrap();
        assert_eq!(watch.next_answer(), Ok(Some("1".to_owned())));
        let closer = watch.closer().unwrap();
        let closing = std::thread::spawn(move || closer.close());
        assert!(matches!(watch.next_answer(), Err(Trouble::Broken(_))));
        closing.join().unwrap();
        asked.join().unwrap();
    }

    #[test]
    fn a_node_that_is_not_there_is_told_apart_from_one_that_breaks_off() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(call(&dir.path().join("node.sock"), "{}"), Err(Trouble::NoNode(_))));
        let (_dir, path, asked) = node(vec![5u32.to_le_bytes().to_vec()]);
        let mut conversation = Conversation::begin(&path, "{}").unwrap();
        conversation.closer().unwrap().0.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(conversation.next_answer(), Err(Trouble::Broken(_))));
        asked.join().unwrap();
    }
}
