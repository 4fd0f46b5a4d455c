//! The local socket: wrappers and command lines of the same user.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use potluck_wire::ipc::{self, Reply, Request};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc};

use crate::core::Event;
use crate::root::{Peer, Root};

/// Of nearly every question.
const REQUEST_BYTES_USUAL: usize = 64 << 10;

/// Connections at a time: wrappers of the largest builds and some windows. Whoever finds no place waits for it, and a wrapper
/// compiles by itself after a quarter of a second.
pub const CONNECTIONS_MAX: usize = 8192;

/// A question that did not come whole at first does so within this time.
const QUESTION_PATIENCE: Duration = Duration::from_secs(10);

/// Whoever takes nothing of a stream for so long is gone: what it is owed would pile up.
const STREAM_PATIENCE: Duration = Duration::from_secs(30);

/// The socket that wrappers come to.
pub struct Listener(AsyncFd<OwnedFd>);

static NEXT_CONN: AtomicU64 = AtomicU64::new(1 << 40);

/// Listens at `path`. A socket that nobody answers at is a leftover and is replaced; one that is answered means that
/// a node of these folders runs already.
pub fn listen(path: &Path) -> Result<Listener, String> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(format!("a node already runs here: {}", path.display()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{}: {error}", path.display()));
        }
        _ => {}
    }
    let bound = || {
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        register(listener.into(), Interest::READABLE)
    };
    bound().map(Listener).map_err(|e| format!("{}: {e}", path.display()))
}

/// Tells waiting wrappers that their questions were taken. A message to each would wake it and cost both sides more than
/// all else that is said. Told by a store into the file's memory: a system call for each would cost as much as ten.
pub struct Taken {
    told_ns: NonNull<AtomicU64>,
    path: PathBuf,
}

impl Taken {
    /// For the node that listens at `socket`, in the thread that takes its questions.
    pub fn beside(socket: &Path) -> Result<Self, String> {
        let path = PathBuf::from(OsString::from_vec(ipc::taken_path(socket.as_os_str().as_bytes())));
        let mapped = || -> std::io::Result<NonNull<AtomicU64>> {
            // A new one: whoever still has an old one, from a node that was killed, cannot shorten it.
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            // Written once, so that the place is there: on a full disk this fails here and not at the first store.
            let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            file.write_all_at(&ipc::Taken { told_ns: 0, thread }.to_bytes(), 0)?;
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping at no chosen place, of a file of sixteen bytes that only this user can shorten.
            let place =
                unsafe { mmap(std::ptr::null_mut(), size_of::<AtomicU64>(), access, MapFlags::SHARED, &file, 0) }?;
            NonNull::new(place.cast()).ok_or_else(|| std::io::Error::other("no memory"))
        };
        let told_ns = mapped().map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self { told_ns, path })
    }

    /// Everything that was read from wrappers has been dealt with.
    pub fn all(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        // SAFETY: the mapping lives as long as `self`, is aligned to a page, and is written nowhere else.
        unsafe { self.told_ns.as_ref() }.store(now_ns.to_le(), Ordering::Release);
    }
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for Taken {}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: mapped by `beside` with this length; nothing borrows from it any more.
        let _ = unsafe { munmap(self.told_ns.as_ptr().cast(), size_of::<AtomicU64>()) };
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Puts a descriptor under the runtime's watch.
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and the same one for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// A number for a connection, whatever it comes by.
pub(crate) fn next_conn() -> u64 {
    NEXT_CONN.fetch_add(1, Ordering::Relaxed)
}

/// Accepts for as long as the node lives.
pub async fn serve(listener: Listener, events: mpsc::UnboundedSender<Event>) {
    let root = Root::own();
    let own = rustix::process::getuid().as_raw();
    let mut space = vec![0; REQUEST_BYTES_USUAL];
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // It is never closed.
        let place = Arc::clone(&places).acquire_owned().await;
        let Ok(fd) = accept(&listener).await else {
            // Out of descriptors, most likely: wait for some to be closed.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        // The folder is private already; another user's process here would be a mistake of the system.
        let Some(peer) = Peer::of(&fd).filter(|peer| peer.uid == own) else { continue };
        // A wrapper has asked before this process hears of it: nearly always its question is here, whole.
        let read = rustix::net::recv(&fd, &mut space[..], RecvFlags::DONTWAIT).map_or(0, |(read, _)| read);
        let asked = space[..read].to_vec();
        let Ok(fd) = register(fd, Interest::READABLE) else { continue };
        let events = events.clone();
        tokio::spawn(async move {
            let (conn, _place) = (next_conn(), place);
            if connection(conn, Wrapper { fd }, asked, (root, peer), &events).await != End::Answered {
                let _ = events.send(Event::Gone(conn));
            }
        });
    }
}

async fn accept(listener: &Listener) -> std::io::Result<OwnedFd> {
    loop {
        let mut ready = listener.0.readable().await?;
        match rustix::net::accept_with(listener.0.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            other => return Ok(other?),
        }
    }
}

/// A wrapper's end of the conversation. Registered for reading only: asking for room to write, which is always there,
/// wakes this process once more for each compile.
struct Wrapper {
    fd: AsyncFd<OwnedFd>,
}

impl Wrapper {
    /// What it says next; 0 is its end.
    async fn read(&self, space: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let mut ready = self.fd.readable().await?;
            match rustix::net::recv(&self.fd, &mut *space, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                other => return Ok(other?.0),
            }
        }
    }

    /// Says a whole frame. Consumed where it does not fit into the socket at once: then readiness is another one.
    async fn write(self, mut frame: &[u8]) -> std::io::Result<Self> {
        let send = |fd: &AsyncFd<OwnedFd>, rest: &mut &[u8]| loop {
            match rustix::net::send(fd, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                Ok(sent) if sent < rest.len() => *rest = &rest[sent..],
                other => return other.map(|_| ()),
            }
        };
        match send(&self.fd, &mut frame) {
            Err(Errno::AGAIN) => {}
            other => return Ok(other.map(|()| self)?),
        }
        let slow = register(self.fd.into_inner(), Interest::WRITABLE)?;
        loop {
            let mut ready = slow.writable().await?;
            match send(&slow, &mut frame) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                other => {
                    other?;
                    drop(ready);
                    return Ok(Self { fd: register(slow.into_inner(), Interest::READABLE)? });
                }
            }
        }
    }
}

/// How a conversation ended.
#[derive(PartialEq, Eq)]
enum End {
    /// By the answer that the core gave: it has forgotten the connection already.
    Answered,
    /// In any other way: the core does not know.
    Gone,
}

/// The question's frame, of which `asked` has come. None: it ended before that, or is too long.
async fn question(wrapper: &Wrapper, mut asked: Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let whole = match asked.first_chunk() {
            Some(&head) => 4 + ipc::frame_len(head).ok()?,
            None => 4,
        };
        if asked.len() >= whole {
            asked.truncate(whole);
            return Some(asked);
        }
        let had = asked.len();
        // In steps: memory is taken for what has come, not for what is announced.
        asked.resize(whole.min(had + REQUEST_BYTES_USUAL), 0);
        match wrapper.read(&mut asked[had..]).await {
            Ok(read) if read > 0 => asked.truncate(had + read),
            _ => return None,
        }
    }
}

async fn connection(
    conn: u64,
    mut wrapper: Wrapper,
    asked: Vec<u8>,
    (root, peer): (Root, Peer),
    events: &mpsc::UnboundedSender<Event>,
) -> End {
    let whole = asked.first_chunk().and_then(|&head| ipc::frame_len(head).ok());
    let asked = match whole.is_some_and(|len| asked.len() >= 4 + len) {
        true => question(&wrapper, asked).await,
        // Only here, where it is rare: a timer costs something.
        false => tokio::time::timeout(QUESTION_PATIENCE, question(&wrapper, asked)).await.unwrap_or(None),
    };
    let Some(asked) = asked else { return End::Gone };
    let Ok(request) = ipc::decode::<Request>(&asked[4..]) else {
        // A newer wrapper: it compiles itself.
        let _ = wrapper.write(&ipc::encode(&Reply::Local { reason: "version-mismatch".into() })).await;
        return End::Gone;
    };
    let (tx, mut rx) = mpsc::unbounded_channel();
    let sent = match request {
        Request::Notice { reason, .. } => {
            let _ = events.send(Event::Notice(reason));
            return End::Gone;
        }
        Request::Compile(mut compile) => {
            let asker = root.asker(&compile.root, compile.pid, peer);
            // As this node sees it: in a pid namespace of its own it calls itself by another process's number.
            compile.pid = peer.pid.unwrap_or(0);
            events.send(Event::Compile(conn, asker, compile, tx))
        }
        Request::Api { json } => events.send(Event::Api(conn, root.process(peer), json, tx)),
        Request::Ended { .. } => return End::Gone,
    };
    if sent.is_err() {
        return End::Gone;
    }
    let mut byte = [0; 1];
    loop {
        let reply = tokio::select! {
            reply = rx.recv() => reply,
            // A wrapper says nothing more: this is its end.
            _ = wrapper.read(&mut byte) => return End::Gone,
        };
        let Some(reply) = reply else { return End::Gone };
        let frame = ipc::encode(&reply);
        let written = match reply {
            Reply::Api { last: false, .. } => tokio::time::timeout(STREAM_PATIENCE, wrapper.write(&frame)).await,
            _ => Ok(wrapper.write(&frame).await),
        };
        wrapper = match written {
            Ok(Ok(wrapper)) => wrapper,
            _ => return End::Gone,
        };
        match reply {
            Reply::Done { .. } | Reply::Fail { .. } => return End::Answered,
            Reply::Api { last: false, .. } => {}
            Reply::Api { .. } => return End::Gone,
            Reply::Local { .. } => {
                // The compiler inherits the connection: its end is the end of the slot.
                let mut said = Vec::new();
                while matches!(wrapper.read(&mut byte).await, Ok(n) if n > 0) {
                    // One short frame at most is expected; more is thrown away.
                    if said.len() < 64 {
                        said.push(byte[0]);
                    }
                }
                if let Some(Ok(Request::Ended { exit })) = said.get(4..).map(ipc::decode::<Request>) {
                    let _ = events.send(Event::LocalEnded(conn, exit));
                }
                return End::Gone;
            }
        }
    }
}
