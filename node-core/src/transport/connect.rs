//! Dialling: an address, perhaps an expected key, and an authenticated stream or the reason why not.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use potluck_model::ids::NodeId;
use potluck_model::limits::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::stream::{PeerStream, buffered, tune};
use super::tls::{self, ALPN_JOIN, ALPN_POOL, Accept};
use crate::membership::Membership;

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// Nothing answers there.
    Unreachable(SocketAddr, io::Error),
    /// Nothing answered in time.
    TimedOut(SocketAddr),
    /// Another node than the expected one, or one that is no member, answers there.
    WrongNode(SocketAddr),
    /// The other side does not accept this node, or is no Potluck.
    Handshake(SocketAddr, io::Error),
    /// TLS could not be set up here.
    Tls(rustls::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(addr, error) => write!(f, "{addr} cannot be reached: {error}"),
            Self::TimedOut(addr) => write!(f, "{addr} does not answer"),
            Self::WrongNode(addr) => write!(f, "the machine at {addr} is not the one that was expected"),
            Self::Handshake(addr, error) => write!(f, "the machine at {addr} refused this one: {error}"),
            Self::Tls(error) => write!(f, "TLS cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<rustls::Error> for ConnectError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

/// Connects to a member: the expected one, or any.
pub async fn connect(
    membership: &Arc<Membership>,
    addr: SocketAddr,
    expected: Option<NodeId>,
) -> Result<PeerStream, ConnectError> {
    let members = Arc::clone(membership);
    let own = membership.identity().id();
    let accept: Accept = Arc::new(move |node| {
        node != own && expected.is_none_or(|expected| expected == node) && members.is_member(node)
    });
    connect_as(membership, ALPN_POOL, addr, accept).await
}

/// Connects as a stranger: to the keeper's node that a link names, or to whoever is there, and then people compare.
pub(super) async fn connect_to_join(
    membership: &Arc<Membership>,
    addr: SocketAddr,
    keeper: Option<NodeId>,
) -> Result<PeerStream, ConnectError> {
    let own = membership.identity().id();
    let accept: Accept = Arc::new(move |node| node != own && keeper.is_none_or(|keeper| keeper == node));
    connect_as(membership, ALPN_JOIN, addr, accept).await
}

async fn connect_as(
    membership: &Membership,
    alpn: &[u8],
    addr: SocketAddr,
    accept: Accept,
) -> Result<PeerStream, ConnectError> {
    let config = tls::client(&membership.identity(), alpn, accept)?;
    let tcp = match timeout(CONNECT_TIMEOUT, TcpStream::connect(addr)).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) => return Err(ConnectError::Unreachable(addr, error)),
        Err(_) => return Err(ConnectError::TimedOut(addr)),
    };
    tune(&tcp).map_err(|error| ConnectError::Unreachable(addr, error))?;
    let handshake = TlsConnector::from(config).connect(tls::server_name(), buffered(tcp));
    let tls = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) if is_our_refusal(&error) => return Err(ConnectError::WrongNode(addr)),
        Ok(Err(error)) => return Err(ConnectError::Handshake(addr, error)),
        Err(_) => return Err(ConnectError::TimedOut(addr)),
    };
    if tls.get_ref().1.alpn_protocol() != Some(alpn) {
        let error = io::Error::new(io::ErrorKind::InvalidData, "it speaks another protocol");
        return Err(ConnectError::Handshake(addr, error));
    }
    PeerStream::new(tls.into(), addr).ok_or(ConnectError::WrongNode(addr))
}

/// Whether our own verifier said no; an alert of the other side is another variant.
fn is_our_refusal(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}
