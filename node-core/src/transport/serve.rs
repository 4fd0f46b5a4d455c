//! Accepting: members' streams are handed on, strangers who want to join are answered by the join protocol, everybody else
//! is refused within bounds. Decides nothing about what members say.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use potluck_model::ids::NodeId;
use potluck_model::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX, HALF_OPEN_MAX, HANDSHAKE_TIMEOUT};
use rustls::ServerConfig;
use rustls::server::Acceptor;
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
/// Failed handshakes of one address in `FAILURE_WINDOW`; beyond them it is refused before any cryptography, so that a
/// stranger who tries for ever costs nearly nothing.
const FAILURES_MAX: u32 = 10;
/// See `FAILURES_MAX`.
const FAILURE_WINDOW: Duration = Duration::from_secs(2);
/// Join attempts of one address are this far apart.
const JOIN_INTERVAL: Duration = Duration::from_secs(1);
/// A join attempt waits for its turn at most this long: PCs behind one address may join together.
const JOIN_WAIT_MAX: Duration = Duration::from_secs(3);
/// Join attempts at a time; those that wait for a person are limited elsewhere (`membership::door`).
const JOINS_MAX: usize = 8;
/// Addresses that are remembered for the limits above.
const ADDRESSES_MAX: usize = 1024;
/// Refused strangers are told of this often, with their number: whoever tries for ever does not fill a disk.
const REFUSED_LOGGED_EVERY: Duration = Duration::from_secs(30);
/// Beside a stranger who tries again and again, connections are taken in batches this far apart: each waking of the node
/// costs more than refusing him does, and a member waits no longer than this.
const REFUSED_BATCH: Duration = Duration::from_millis(100);
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
    failures: Mutex<HashMap<IpAddr, (Instant, u32)>>,
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
    let gate = Arc::new(Gate {
        tls: Mutex::new(Tls::of(&membership)?),
        membership,
        half_open: Arc::new(Semaphore::new(HALF_OPEN_MAX)),
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        joins: Arc::new(Semaphore::new(JOINS_MAX)),
        half_open_by_address: Counts::default(),
        by_peer: Counts::default(),
        failures: Mutex::default(),
        next_join: Mutex::default(),
        refused: Mutex::default(),
    });
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(accept_all(gate, listener, sender));
    Ok(receiver)
}

async fn accept_all(gate: Arc<Gate>, listener: TcpListener, sender: mpsc::Sender<PeerStream>) {
    let mut is_flooded = false;
    loop {
        if std::mem::take(&mut is_flooded) {
            tokio::time::sleep(REFUSED_BATCH).await;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let accepted = match accepted {
            // All that came in the meantime: nobody of them is worth a waking.
            Ok((_, remote)) if gate.is_refused(remote) => {
                is_flooded = true;
                let waiting = async {
                    loop {
                        match listener.accept().await {
                            Ok((_, remote)) if gate.is_refused(remote) => {}
                            other => return other,
                        }
                    }
                };
                tokio::select! {
                    biased;
                    other = waiting => other,
                    () = std::future::ready(()) => continue,
                }
            }
            other => other,
        };
        let Ok((tcp, remote)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // A listener of both families sees IPv4 addresses in IPv6 clothes.
        let remote = match remote.ip().to_canonical() {
            IpAddr::V4(v4) => SocketAddr::new(v4.into(), remote.port()),
            IpAddr::V6(_) => remote,
        };
        let address = network_of(remote.ip());
        let (Ok(permit), Some(of_address)) = (
            Arc::clone(&gate.half_open).try_acquire_owned(),
            gate.half_open_by_address.enter(address, HALF_OPEN_PER_ADDRESS_MAX),
        ) else {
            continue;
        };
        let (gate, sender) = (Arc::clone(&gate), sender.clone());
        tokio::spawn(async move {
            let held = (permit, of_address);
            match gate.admit(tcp, remote).await {
                Ok(Some(stream)) => {
                    // Past the handshake: no longer half open.
                    drop(held);
                    // A receiver that is gone wants no more peers.
                    let _ = sender.send(stream).await;
                }
                Ok(None) => {}
                Err(_) => {
                    gate.note_failure(address);
                    gate.log_refusal(address);
                }
            }
        });
    }
}

impl Gate {
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

    /// Whether somebody has failed too often to be heard; told of if so.
    fn is_refused(&self, remote: SocketAddr) -> bool {
        let address = network_of(remote.ip());
        let refused = self.has_failed_too_often(address);
        if refused {
            self.log_refusal(address);
        }
        refused
    }

    fn has_failed_too_often(&self, address: IpAddr) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(&address).is_some_and(|(since, count)| *count >= FAILURES_MAX && since.elapsed() < FAILURE_WINDOW)
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

    fn note_failure(&self, address: IpAddr) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES_MAX {
            failures.retain(|_, (since, _)| since.elapsed() < FAILURE_WINDOW);
        }
        if failures.len() >= ADDRESSES_MAX {
            return;
        }
        let entry = failures.entry(address).or_insert_with(|| (Instant::now(), 0));
        if entry.0.elapsed() >= FAILURE_WINDOW {
            *entry = (Instant::now(), 0);
        }
        entry.1 += 1;
    }

    /// When this address may try to join; `None`: too many wait already.
    fn join_turn(&self, address: IpAddr) -> Option<Instant> {
        let now = Instant::now();
        let mut next = self.next_join.lock().unwrap_or_else(PoisonError::into_inner);
        if next.len() >= ADDRESSES_MAX {
            next.retain(|_, at| *at > now);
        }
        if next.len() >= ADDRESSES_MAX {
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
