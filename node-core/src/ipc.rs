//! The local socket: wrappers and command lines of the same user.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use potluck_wire::ipc::{self, Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::core::Event;

static NEXT_CONN: AtomicU64 = AtomicU64::new(1 << 40);

/// Listens at `path`. A socket that nobody answers at is a leftover and is replaced; one that is answered means that
/// a node of these folders runs already.
pub fn listen(path: &Path) -> Result<UnixListener, String> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(format!("a node already runs here: {}", path.display()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{}: {error}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|e| format!("{}: {e}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(listener)
}

/// Tells waiting wrappers that their questions were taken. A message to each would wake it and cost both sides more than
/// all else that is said.
pub struct Taken {
    file: std::fs::File,
    path: PathBuf,
}

impl Taken {
    /// For the node that listens at `socket`.
    pub fn beside(socket: &Path) -> Result<Self, String> {
        let path = PathBuf::from(OsString::from_vec(ipc::taken_path(socket.as_os_str().as_bytes())));
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self { file, path })
    }

    /// Everything that was read from wrappers has been dealt with.
    pub fn all(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        // If it cannot be told, wrappers that wait long compile themselves, as with a node that hangs.
        let _ = self.file.write_at(&now_ns.to_le_bytes(), 0);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Accepts for as long as the node lives.
pub async fn serve(listener: UnixListener, events: mpsc::UnboundedSender<Event>) {
    let own = rustix::process::getuid().as_raw();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // The folder is private already; another user's process here would be a mistake of the system.
                if stream.peer_cred().map(|c| c.uid()).ok() != Some(own) {
                    continue;
                }
                let events = events.clone();
                tokio::spawn(async move {
                    let conn = NEXT_CONN.fetch_add(1, Ordering::Relaxed);
                    connection(conn, stream, &events).await;
                    let _ = events.send(Event::Gone(conn));
                });
            }
            // Out of descriptors, most likely: wait for some to be closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connection(conn: u64, mut stream: UnixStream, events: &mpsc::UnboundedSender<Event>) {
    let mut head = [0; 4];
    if stream.read_exact(&mut head).await.is_err() {
        return;
    }
    let Ok(len) = ipc::frame_len(head) else { return };
    let mut body = vec![0; len];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let Ok(request) = ipc::decode::<Request>(&body) else {
        // A newer wrapper: it compiles itself.
        let _ = stream.write_all(&ipc::encode(&Reply::Local { reason: "version-mismatch".into() })).await;
        return;
    };
    let (tx, mut rx) = mpsc::unbounded_channel();
    let sent = match request {
        Request::Notice { reason, .. } => {
            let _ = events.send(Event::Notice(reason));
            return;
        }
        Request::Compile(compile) => events.send(Event::Compile(conn, compile, tx)),
        Request::Api { json } => events.send(Event::Api(conn, json, tx)),
        Request::Ended { .. } => return,
    };
    if sent.is_err() {
        return;
    }
    let mut byte = [0; 1];
    loop {
        let (mut reader, mut writer) = stream.split();
        tokio::select! {
            reply = rx.recv() => {
                let Some(reply) = reply else { return };
                let last = !matches!(reply, Reply::Api { last: false, .. });
                let holds = matches!(reply, Reply::Local { .. });
                if writer.write_all(&ipc::encode(&reply)).await.is_err() {
                    return;
                }
                if holds {
                    // The compiler inherits the connection: its end is the end of the slot.
                    let mut said = Vec::new();
                    while matches!(reader.read(&mut byte).await, Ok(n) if n > 0) {
                        // One short frame at most is expected; more is thrown away.
                        if said.len() < 64 {
                            said.push(byte[0]);
                        }
                    }
                    if let Some(Ok(Request::Ended { exit })) = said.get(4..).map(ipc::decode::<Request>) {
                        let _ = events.send(Event::LocalEnded(conn, exit));
                    }
                    return;
                }
                if last {
                    return;
                }
            }
            // A wrapper says nothing more: this is its end.
            _ = reader.read(&mut byte) => return,
        }
    }
}
