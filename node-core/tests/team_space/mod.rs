//! Nodes over real sockets for tests of teams, and strangers who speak the join protocol by hand.

// Each test program uses its own part.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use potluck_model::ids::{NodeId, TeamId};
use potluck_node::identity::Identity;
use potluck_node::membership::Membership;
use potluck_node::membership::invite::JoinLink;
use potluck_node::transport::{JoinError, Link, join, listen, tls};
use potluck_wire::team::JoinRequest;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longer than any limit that is tested.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Node {
    pub membership: Arc<Membership>,
    pub addr: SocketAddr,
    pub links: mpsc::Receiver<Link>,
    _dir: tempfile::TempDir,
}

impl Node {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Arc::new(Identity::load_or_create(dir.path()).unwrap());
        let membership = Arc::new(Membership::open(identity, dir.path()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let links = listen(Arc::clone(&membership), listener).unwrap();
        Self { membership, addr, links, _dir: dir }
    }

    pub async fn founder() -> Self {
        let node = Self::start().await;
        node.membership.create("Kernel lab", "founder", &[node.addr.to_string()]).unwrap();
        node
    }

    pub fn id(&self) -> NodeId {
        self.membership.identity().id()
    }

    pub fn invite(&self, uses: u32) -> JoinLink {
        self.membership.invite(uses, DAY, &[self.addr.to_string()]).unwrap()
    }

    pub async fn join(&self, link: &JoinLink) -> Result<TeamId, JoinError> {
        join(&self.membership, link, "joiner", &[self.addr.to_string()]).await
    }

    pub async fn accepted(&mut self) -> Link {
        timeout(PATIENCE, self.links.recv()).await.expect("a link in time").expect("a listener")
    }
}

/// A TLS client that accepts any server and offers any protocol.
pub async fn stranger(identity: &Identity, alpn: &[u8], addr: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let config = tls::client(identity, alpn, Arc::new(|_| true)).unwrap();
    let tcp = TcpStream::connect(addr).await?;
    TlsConnector::from(config).connect(tls::server_name(), tcp).await
}

pub async fn all_bytes(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end in time");
    bytes
}

pub async fn send(stream: &mut TlsStream<TcpStream>, message: &impl Message) {
    let body = message.encode_to_vec();
    stream.write_u32(body.len() as u32).await.unwrap();
    stream.write_all(&body).await.unwrap();
}

pub async fn receive<M: Message + Default>(stream: &mut TlsStream<TcpStream>) -> M {
    let read = async {
        let mut body = vec![0; stream.read_u32().await.unwrap() as usize];
        stream.read_exact(&mut body).await.unwrap();
        M::decode(body.as_slice()).unwrap()
    };
    timeout(PATIENCE, read).await.unwrap()
}

pub fn request(stream: &TlsStream<TcpStream>, identity: &Identity, link: &JoinLink) -> JoinRequest {
    let exported = stream.get_ref().1.export_keying_material([0u8; 32], b"EXPORTER-potluck-join-1", None).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &link.secret.0);
    let bound = [&b"potluck-join-1 joiner\0"[..], &exported, &identity.id().0, &link.keeper.0, &link.team.0].concat();
    JoinRequest {
        team: link.team.0.to_vec(),
        invite: link.secret.name().to_vec(),
        proof: ring::hmac::sign(&key, &bound).as_ref().to_vec(),
        name: "stranger".into(),
        ..JoinRequest::default()
    }
}
