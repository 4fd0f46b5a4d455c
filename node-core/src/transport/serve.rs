//! Accepting: members' streams are handed on, strangers who want to join are answered by the join protocol, everybody else
//! is refused within bounds. Decides nothing about what members say.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use potluck_model::ids::NodeId;
use potluck_model::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX, DOOR_ADDRESSES_MAX, HALF_OPEN_MAX, HANDSHAKE_TIMEOUT,
};
use potluck_model::strangers::Strangers;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::LazyConfigAcceptor;

use super::join::keeper;
use super::stream::{PeerStream, buffered, tune};
use super::tls::{self, ALPN_JOIN, ALPN_POOL};
use crate::membership::Membership;

/// Half-open connections of one address: a single stranger cannot take all of `HALF_OPEN_MAX`.
const HALF_OPEN_PER_ADDRESS_MAX: usize = 16;
/// Join attempts of one address are this far apart.
const JOIN_INTERVAL: Duration = Duration::from_secs(1);
/// A join attempt waits for its turn at most this long: PCs behind one address may join together.
const JOIN_WAIT_MAX: Duration = Duration::from_secs(3);
/// Join attempts at a time; those that wait for a person are limited elsewhere (`membership::door`).
const JOINS_MAX: usize = 8;
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
    half_open: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    joins: Arc<Semaphore>,
    half_open_by_address: Counts<IpAddr>,
    by_peer: Counts<NodeId>,
    strangers: Mutex<Strangers>,
    started: Instant,
    next_join: Mutex<HashMap<IpAddr, Instant>>,
    refused: Mutex<(Option<Instant>, u64)>,
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
        half_open: Arc::new(Semaphore::new(HALF_OPEN_MAX)),
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        joins: Arc::new(Semaphore::new(JOINS_MAX)),
        half_open_by_address: Counts::default(),
        by_peer: Counts::default(),
        strangers: Mutex::default(),
        started: Instant::now(),
        next_join: Mutex::default(),
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
        let (Ok(permit), Some(of_address)) = (
            Arc::clone(&self.half_open).try_acquire_owned(),
            self.half_open_by_address.enter(address, HALF_OPEN_PER_ADDRESS_MAX),
        ) else {
            return;
        };
        let Ok(tcp) = tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp)) else { return };
        let (gate, sender) = (Arc::clone(self), sender.clone());
        tokio::spawn(async move {
            let held = (permit, of_address);
            match gate.admit(tcp, remote).await {
                Ok(Some(stream)) => {
                    gate.strangers().passed(address, gate.started.elapsed());
                    // Past the handshake: no longer half open.
                    drop(held);
                    // A receiver that is gone wants no more peers.
                    let _ = sender.send(stream).await;
                }
                Ok(None) => gate.strangers().excused(address, gate.started.elapsed()),
                Err(_) => gate.log_refusal(address),
            }
        });
    }

    /// One connection up to the end of its handshake, or of its join.
    async fn admit(self: &Arc<Self>, tcp: TcpStream, remote: SocketAddr) -> io::Result<Option<PeerStream>> {
        tune(&tcp)?;
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let hello = before(deadline, LazyConfigAcceptor::new(Acceptor::default(), buffered(tcp))).await?;
        let offers = |alpn: &[u8]| hello.client_hello().alpn().is_some_and(|mut all| all.any(|one| one == alpn));
        if offers(ALPN_POOL) {
            let tls = before(deadline, hello.into_stream(self.tls()?.pool)).await?;
            let stream = PeerStream::new(tls.into(), remote).ok_or(io::ErrorKind::InvalidData)?;
            return Ok(self.enter(stream));
        }
        if !offers(ALPN_JOIN) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Ok(joining) = Arc::clone(&self.joins).try_acquire_owned() else { return Ok(None) };
        let Some(turn) = self.join_turn(network_of(remote.ip())) else { return Ok(None) };
        sleep_until(turn).await;
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let tls = before(deadline, hello.into_stream(self.tls()?.join)).await?;
        let stream = PeerStream::new(tls.into(), remote).ok_or(io::ErrorKind::InvalidData)?;
        keeper::answer(&self.membership, stream, network_of(remote.ip()), joining).await?;
        Ok(None)
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
        let connection = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        let of_peer = self.by_peer.enter(stream.peer(), CONNECTIONS_PER_PEER_MAX)?;
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

    /// When this address may try to join; `None`: too many wait already.
    fn join_turn(&self, address: IpAddr) -> Option<Instant> {
        let now = Instant::now();
        let mut next = self.next_join.lock().unwrap_or_else(PoisonError::into_inner);
        if next.len() >= DOOR_ADDRESSES_MAX {
            next.retain(|_, at| *at > now);
        }
        if next.len() >= DOOR_ADDRESSES_MAX {
            return None;
        }
        let turn = next.get(&address).copied().unwrap_or(now).max(now);
        if turn > now + JOIN_WAIT_MAX {
            return None;
        }
        next.insert(address, turn + JOIN_INTERVAL);
        Some(turn)
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

/// How many of each there are at the moment.
struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// One that is counted until it is dropped.
struct Counted<K: Eq + Hash>(Arc<Mutex<HashMap<K, usize>>>, K);

impl<K: Eq + Hash + Copy> Counts<K> {
    fn enter(&self, key: K, max: usize) -> Option<Counted<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Counted(Arc::clone(&self.0), key))
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}
