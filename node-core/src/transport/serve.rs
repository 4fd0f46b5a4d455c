//! Accepting: members' streams are handed on, strangers who want to join are answered by the join protocol, everybody else
//! is refused within bounds. Decides nothing about what members say.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use potluck_model::doorway::{Doorway, Entered};
use potluck_model::framing::PREFACE_BYTES;
use potluck_model::ids::NodeId;
use potluck_model::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX, HANDSHAKE_TIMEOUT, HELLO_TLS_TIMEOUT};
use potluck_model::strangers::Strangers;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::LazyConfigAcceptor;

use super::counts::Counts;
use super::join::keeper::{self, Answered, Places};
use super::stream::{PeerStream, buffered, tune};
use super::tls::{self, ALPN_JOIN, ALPN_POOL};
use crate::membership::{Membership, View};

/// Refused strangers are told of this often, with their number: whoever tries for ever does not fill a disk.
const REFUSED_LOGGED_EVERY: Duration = Duration::from_secs(30);
/// Beside a stranger who tries again and again, connections are taken in batches this far apart: each waking of the node
/// costs more than refusing him does, and a member waits no longer than this. The kernel keeps them meanwhile.
const REFUSED_BATCH: Duration = Duration::from_millis(100);
/// Connections of one batch; then others have their turn.
const BATCH_MAX: usize = 256;
/// Pause after the system refuses to accept (no descriptors left), instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

struct Gate {
    membership: Arc<Membership>,
    tls: Mutex<Tls>,
    half_open: Mutex<HalfOpen>,
    connections: Arc<Semaphore>,
    joins: Places,
    by_peer: Counts<NodeId>,
    strangers: Mutex<Strangers>,
    started: Instant,
    stated: Mutex<Stated>,
    refused: Mutex<(Option<Instant>, u64)>,
}

/// Connections that have not shown who they are, and how to end each.
#[derive(Default)]
struct HalfOpen {
    doorway: Doorway,
    tasks: HashMap<u64, AbortHandle>,
}

/// A place among them, given back when it is dropped.
struct Unknown {
    gate: Arc<Gate>,
    number: u64,
}

impl Drop for Unknown {
    fn drop(&mut self) {
        let mut half_open = self.gate.half_open();
        half_open.doorway.leave(self.number);
        half_open.tasks.remove(&self.number);
    }
}

/// Networks that the team's statements name, as of one view of it.
#[derive(Default)]
struct Stated {
    view: Option<Arc<View>>,
    networks: HashSet<IpAddr>,
}

/// What became of a connection.
enum Admitted {
    Member(Box<PeerStream>),
    /// A stranger who was taken in, or whom a keeper has answered.
    Heard,
    /// Nobody in particular.
    Nobody,
}

/// Both configurations for one key: a node whose keyring opens late changes from a stand-in to its own.
#[derive(Clone)]
struct Tls {
    own: NodeId,
    pool: Arc<ServerConfig>,
    join: Arc<ServerConfig>,
}

impl Tls {
    fn of(membership: &Arc<Membership>) -> Result<Self, rustls::Error> {
        let own = membership.identity().id();
        let members = Arc::clone(membership);
        let accept: tls::Accept = Arc::new(move |node| node != own && members.is_member(node));
        Ok(Self {
            own,
            pool: tls::server(&membership.identity(), ALPN_POOL, accept)?,
            join: tls::server(&membership.identity(), ALPN_JOIN, Arc::new(move |node| node != own))?,
        })
    }
}

/// Accepts on `listener` until the returned receiver is dropped. Each received stream belongs to a member.
pub fn serve(membership: Arc<Membership>, listener: TcpListener) -> Result<mpsc::Receiver<PeerStream>, rustls::Error> {
    // Accepted by hand: the runtime would watch every connection before anybody can say whether it is heard.
    let listener = listener.into_std().map_err(|error| rustls::Error::General(error.to_string()))?;
    let gate = Arc::new(Gate {
        tls: Mutex::new(Tls::of(&membership)?),
        membership,
        half_open: Mutex::default(),
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        joins: Places::default(),
        by_peer: Counts::default(),
        strangers: Mutex::default(),
        started: Instant::now(),
        stated: Mutex::default(),
        refused: Mutex::default(),
    });
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(accept_all(gate, listener, sender));
    Ok(receiver)
}

/// What one turn at the listener brought.
enum Turn {
    Accepted(std::net::TcpStream, SocketAddr),
    /// Nobody waits any more; true: of those that did, some were refused.
    Empty(bool),
    Failed,
}

async fn accept_all(gate: Arc<Gate>, mut listener: std::net::TcpListener, sender: mpsc::Sender<PeerStream>) {
    loop {
        // SAFETY: a listener has one descriptor as long as it lives, and it is moved out only when it is watched no more.
        let watched = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
        let Ok(watched) = watched else {
            return crate::log::warn("other nodes cannot be listened to: the system watches no more sockets");
        };
        loop {
            let turn = tokio::select! {
                turn = gate.turn(&watched) => turn,
                () = sender.closed() => return,
            };
            match turn {
                Turn::Accepted(tcp, remote) => gate.take(tcp, remote, &sender),
                Turn::Empty(false) => {}
                Turn::Empty(true) => break,
                Turn::Failed => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
        // Unwatched: otherwise every attempt wakes the node all the same.
        listener = watched.into_inner();
        tokio::time::sleep(REFUSED_BATCH).await;
    }
}

impl Gate {
    /// The next connection that is heard. Whoever is not is hung up on at once.
    async fn turn(&self, watched: &AsyncFd<std::net::TcpListener>) -> Turn {
        let Ok(mut ready) = watched.readable().await else { return Turn::Failed };
        let mut has_refused = false;
        for _ in 0..BATCH_MAX {
            match ready.try_io(|listener| listener.get_ref().accept()) {
                Ok(Ok((tcp, remote))) => {
                    // A listener of both families sees IPv4 addresses in IPv6 clothes.
                    let remote = match remote.ip().to_canonical() {
                        IpAddr::V4(v4) => SocketAddr::new(v4.into(), remote.port()),
                        IpAddr::V6(_) => remote,
                    };
                    if self.is_heard(network_of(remote.ip())) {
                        return Turn::Accepted(tcp, remote);
                    }
                    has_refused = true;
                    self.log_refusal(network_of(remote.ip()));
                    // A reset, and the kernel has nothing more to do with it either.
                    let _ = rustix::net::sockopt::set_socket_linger(&tcp, Some(Duration::ZERO));
                }
                Ok(Err(_)) => return Turn::Failed,
                Err(_would_block) => break,
            }
        }
        Turn::Empty(has_refused)
    }

    /// A connection that is heard, on a task of its own.
    fn take(self: &Arc<Self>, tcp: std::net::TcpStream, remote: SocketAddr, sender: &mpsc::Sender<PeerStream>) {
        let address = network_of(remote.ip());
        let Ok(tcp) = tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp)) else { return };
        let is_members = self.is_members(address);
        // Held until the task is known: another thread's connection may want to end it at once.
        let mut half_open = self.half_open();
        let Entered { number, gives_way } = half_open.doorway.enter(address, is_members);
        if let Some(task) = gives_way.and_then(|number| half_open.tasks.remove(&number)) {
            task.abort();
        }
        let unknown = Unknown { gate: Arc::clone(self), number };
        let (gate, sender) = (Arc::clone(self), sender.clone());
        let task = tokio::spawn(async move {
            match gate.admit(tcp, remote, unknown).await {
                Ok(Admitted::Member(stream)) => {
                    gate.strangers().passed(address, gate.started.elapsed());
                    // A receiver that is gone wants no more peers.
                    let _ = sender.send(*stream).await;
                }
                Ok(Admitted::Heard) => gate.strangers().excused(address, gate.started.elapsed()),
                Ok(Admitted::Nobody) => {}
                Err(_) => gate.log_refusal(address),
            }
        });
        half_open.tasks.insert(number, task.abort_handle());
    }

    /// One connection up to the end of its handshake, or of its join. Whatever gives no word of who it is in time, or
    /// has to make room for others, counts as a failure of its address.
    async fn admit(self: &Arc<Self>, tcp: TcpStream, remote: SocketAddr, unknown: Unknown) -> io::Result<Admitted> {
        tune(&tcp)?;
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let hello = LazyConfigAcceptor::new(Acceptor::default(), buffered(tcp));
        let hello = before(Instant::now() + HELLO_TLS_TIMEOUT, hello).await?;
        let offers = |alpn: &[u8]| hello.client_hello().alpn().is_some_and(|mut all| all.any(|one| one == alpn));
        if offers(ALPN_POOL) {
            let tls = before(deadline, hello.into_stream(self.tls()?.pool)).await?;
            let stream = PeerStream::new(tls.into(), remote).ok_or(io::ErrorKind::InvalidData)?;
            // Past the handshake: no longer half open.
            drop(unknown);
            return Ok(self.enter(stream).map_or(Admitted::Nobody, |stream| Admitted::Member(Box::new(stream))));
        }
        if !offers(ALPN_JOIN) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let tls = before(deadline, hello.into_stream(self.tls()?.join)).await?;
        let stream = PeerStream::new(tls.into(), remote).ok_or(io::ErrorKind::InvalidData)?;
        let network = network_of(remote.ip());
        match keeper::answer(&self.membership, stream, network, &self.joins, unknown).await? {
            Answered::Heard => Ok(Admitted::Heard),
            Answered::Nothing => Ok(Admitted::Nobody),
        }
    }

    fn half_open(&self) -> MutexGuard<'_, HalfOpen> {
        self.half_open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a member came from there lately, or is said to be there by the team.
    fn is_members(&self, address: IpAddr) -> bool {
        if self.strangers().is_members(address, self.started.elapsed()) {
            return true;
        }
        let view = self.membership.view();
        let mut stated = self.stated.lock().unwrap_or_else(PoisonError::into_inner);
        if !stated.view.as_ref().is_some_and(|known| Arc::ptr_eq(known, &view)) {
            let addresses = view.members.values().flat_map(|member| &member.addresses);
            // Names would have to be asked for.
            let addresses = addresses.filter_map(|address| address.parse::<SocketAddr>().ok());
            stated.networks = addresses.map(|address| network_of(address.ip())).collect();
            stated.view = Some(view);
        }
        stated.networks.contains(&address)
    }

    /// For the key that the node has now.
    fn tls(&self) -> io::Result<Tls> {
        let mut tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if tls.own != self.membership.identity().id() {
            *tls = Tls::of(&self.membership).map_err(io::Error::other)?;
        }
        Ok(tls.clone())
    }

    /// The limits of members' connections.
    fn enter(&self, mut stream: PeerStream) -> Option<PeerStream> {
        if !self.membership.outcasts().may_connect(stream.peer()) {
            return None;
        }
        let connection = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        let of_peer = self.by_peer.enter(stream.peer(), CONNECTIONS_PER_PEER_MAX)?;
        stream.count_frames(PREFACE_BYTES);
        stream.hold(connection);
        stream.hold(of_peer);
        // Removed between the verifier's question and now.
        self.membership.is_member(stream.peer()).then_some(stream)
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_heard(&self, address: IpAddr) -> bool {
        self.strangers().hears(address, self.started.elapsed())
    }

    /// One line for many refusals.
    fn log_refusal(&self, address: IpAddr) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.1 += 1;
        if refused.0.is_none_or(|at| at.elapsed() >= REFUSED_LOGGED_EVERY) {
            let before = if refused.0.is_some() { " since the last such line" } else { "" };
            crate::log::warn(&format!(
                "a connection from {address} was refused: it is of no member of this team ({} refused{before})",
                refused.1
            ));
            *refused = (Some(Instant::now()), 0);
        }
    }
}

async fn before<T>(deadline: Instant, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let left = deadline.saturating_duration_since(Instant::now());
    timeout(left, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What counts as one address: of IPv6 the network, since every machine has countless addresses in it.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) >> 64 << 64;
            IpAddr::V6(network.into())
        }
        v4 => v4,
    }
}
