//! A member with a key of its own, and its connection to a node, driven message by message.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use potluck_model::ids::{Digest, NodeId};
use potluck_node::identity::Identity;
use potluck_node::membership::Membership;
use potluck_node::membership::invite::JoinLink;
use potluck_node::signed::Signer;
use potluck_node::transport::{self, Closer, Link};
use potluck_wire::pool::{self, Chunk, DeltaOps, DirOps, FileOp, Frame, frame::Kind};
use prost::Message;
use tokio::runtime::Runtime;

use crate::wait::wait_until;
use crate::{Context, Lab, Outcome, Trouble};

/// How long a node may take for an answer before it counts as none.
const PATIENCE: Duration = Duration::from_secs(30);

/// A member that breaks rules.
pub struct Hostile {
    /// In the Lab's network.
    pub(super) runtime: Runtime,
    pub(super) membership: Arc<Membership>,
}

impl Hostile {
    /// A new key in `dir`, joined by an invitation.
    pub fn join(lab: &Lab, dir: &Path, link: &str) -> Outcome<Self> {
        let identity = Identity::load_or_create(dir).context(|| "a key".into())?;
        let membership = Membership::open(Arc::new(identity), dir).context(|| "a membership".into())?;
        let membership = Arc::new(membership);
        let runtime = lab.network()?.inside(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            Ok(builder.worker_threads(2).enable_all().build()?)
        })?;
        let link: JoinLink = link.parse().map_err(|e| Trouble::new(format!("no invitation: {e}")))?;
        let hostile = Self { runtime, membership };
        let members = Arc::clone(&hostile.membership);
        let joined = async move { transport::join(&members, &link, "hostile", &[]).await };
        hostile.wait(joined)?.map_err(|e| Trouble::new(format!("joining: {e}")))?;
        Ok(hostile)
    }

    /// Learns from a node of the team who has joined since.
    pub fn catch_up(&self, address: &str) -> Outcome<()> {
        let wire = self.dial(address)?;
        let news = wire.hear(|kind| if let Kind::Gossip(gossip) = kind { Some(gossip.statements) } else { None });
        let merged = self.membership.merge(news.context(|| format!("{address} tells nothing of the team"))?);
        merged.map(|_| ()).map_err(|e| Trouble::new(format!("the team's statements: {e}")))
    }

    /// Runs it on the runtime's own threads: only they are in the Lab's network.
    pub(super) fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Outcome<T> {
        self.runtime.block_on(self.runtime.spawn(work)).map_err(|e| Trouble::new(e.to_string()))
    }

    /// Signs with this member's key.
    pub fn signer(&self) -> Signer {
        Signer::new(Arc::clone(&self.membership))
    }

    /// This member.
    pub fn id(&self) -> NodeId {
        self.membership.identity().id()
    }

    /// A link with the node at this address, on which nothing was said yet.
    pub(super) fn link(&self, address: &str) -> Outcome<Link> {
        let address: SocketAddr = address.parse().map_err(|_| Trouble::new(format!("{address} is no address")))?;
        let membership = Arc::clone(&self.membership);
        let dialled = self.wait(async move { transport::dial(&membership, address, None).await })?;
        dialled.map_err(|e| Trouble::new(format!("dialling {address}: {e}")))
    }

    /// A connection as a submitter: greeted, and with a slot asked for.
    pub fn dial(&self, address: &str) -> Outcome<Wire<'_>> {
        self.dial_as(address, hello())
    }

    /// The same with another greeting.
    pub fn dial_as(&self, address: &str, hello: pool::Hello) -> Outcome<Wire<'_>> {
        let Link { control_tx, mut control_rx, bulk_tx, mut bulk_rx, closer, peer, .. } = self.link(address)?;
        let (heard, frames) = channel();
        let (got, chunks) = channel();
        let answers = control_tx.clone();
        let credits = Arc::new(AtomicU32::new(0));
        let given = Arc::clone(&credits);
        self.runtime.spawn(async move {
            while let Some(frame) = control_rx.recv().await {
                match frame.kind {
                    Some(Kind::Ping(ping)) => {
                        let pong = Frame { kind: Some(Kind::Pong(pool::Pong { id: ping.id })) };
                        if answers.send(pong).await.is_err() {
                            return;
                        }
                    }
                    Some(Kind::Credits(credits)) => given.store(credits.slots, Ordering::Relaxed),
                    Some(kind) => drop(heard.send(kind)),
                    None => {}
                }
            }
        });
        let deaf = Arc::new(AtomicBool::new(false));
        let hears = Arc::clone(&deaf);
        self.runtime.spawn(async move {
            while let Some(chunk) = bulk_rx.recv().await {
                if hears.load(Ordering::Relaxed) {
                    // It holds the stream, and reads nothing more.
                    std::future::pending::<()>().await;
                }
                let _ = got.send(chunk);
            }
        });
        let closing: Closer = closer.clone();
        let wire = Wire {
            hostile: self,
            peer,
            control: control_tx,
            bulk: bulk_tx,
            frames,
            chunks,
            deaf,
            closing,
            credits,
            _open: closer,
        };
        wire.say(Kind::Hello(hello));
        wire.say(Kind::Demand(pool::Demand { slots: 2 }));
        Ok(wire)
    }
}

/// The greeting of a submitter.
pub(super) fn hello() -> pool::Hello {
    pool::Hello {
        major: 1,
        abilities: ["mirror-1", "credits-1", "probe-1"].map(String::from).to_vec(),
        name: "hostile".into(),
        arch: std::env::consts::ARCH.into(),
        ..pool::Hello::default()
    }
}

/// A connection to one node.
pub struct Wire<'a> {
    hostile: &'a Hostile,
    /// The node.
    pub peer: NodeId,
    control: tokio::sync::mpsc::Sender<Frame>,
    bulk: tokio::sync::mpsc::Sender<Chunk>,
    frames: Receiver<Kind>,
    chunks: Receiver<Chunk>,
    deaf: Arc<AtomicBool>,
    closing: Closer,
    credits: Arc<AtomicU32>,
    _open: transport::link::CloseOnDrop,
}

impl Wire<'_> {
    /// Says it; a node that has hung up does not hear it.
    pub fn say(&self, kind: Kind) {
        let _ = self.hostile.runtime.block_on(self.control.send(Frame { kind: Some(kind) }));
    }

    /// Says what no release knows yet: a message without any field of this one.
    pub fn say_nothing_known(&self) {
        let _ = self.hostile.runtime.block_on(self.control.send(Frame { kind: None }));
    }

    /// Sends a piece of a large content.
    pub fn chunk(&self, chunk: Chunk) {
        let _ = self.hostile.runtime.block_on(self.bulk.send(chunk));
    }

    /// Sends a delta as a submitter packs it.
    pub fn delta(&self, ops: &DeltaOps) {
        let raw = ops.encode_to_vec();
        let ops = zstd::bulk::compress(&raw, 1).expect("memory is there");
        self.say(Kind::Delta(pool::Delta { seq: 1, ops, raw_bytes: raw.len() as u64 }));
    }

    /// The next message that `wanted` takes; None when the node has hung up, or says nothing of the kind.
    pub fn hear<T>(&self, mut wanted: impl FnMut(Kind) -> Option<T>) -> Option<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.frames.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(kind) => {
                    if let Some(found) = wanted(kind) {
                        return Some(found);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// From now on it takes no large content any more.
    pub fn stop_reading(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    /// Whether such a message has come and was not taken before; all others that had come are dropped.
    pub fn heard(&self, wanted: impl Fn(&Kind) -> bool) -> bool {
        self.frames.try_iter().any(|kind| wanted(&kind))
    }

    /// Whether the node ends this connection.
    pub fn is_hung_up(&self, within: Duration) -> bool {
        let closing = self.closing.clone();
        let over = async move { tokio::time::timeout(within, closing.closed()).await.is_ok() };
        self.hostile.wait(over).unwrap_or(false)
    }

    /// Files that the node's mirror of this member holds, by the node's own word. None: it has hung up.
    pub fn holds(&self) -> Option<Vec<String>> {
        self.say(Kind::MirrorQuery(pool::MirrorQuery {}));
        let state = self.hear(|kind| if let Kind::MirrorState(state) = kind { Some(state) } else { None })?;
        let mut packed = Vec::new();
        let mut more = state.transfer != 0;
        while more {
            let chunk = self.chunks.recv_timeout(PATIENCE).ok()?;
            if chunk.transfer == state.transfer {
                packed.extend_from_slice(&chunk.data);
                more = !chunk.last;
            }
        }
        let raw = zstd::bulk::decompress(&packed, state.raw_bytes as usize).unwrap_or_default();
        let ops = DeltaOps::decode(&raw[..]).ok()?;
        let name = |dir: &DirOps, file: &FileOp| {
            let path = [&dir.path[..], b"/", &file.name].concat();
            String::from_utf8_lossy(&path).replace("//", "/")
        };
        Some(ops.dirs.iter().flat_map(|d| d.files.iter().map(move |f| name(d, f))).collect())
    }

    /// Sends a blob in one piece; the node's complaint, empty if it was stored. None: it has hung up.
    pub fn blob(&self, transfer: u64, digest: Digest, total: u64, data: &[u8], zstd: bool) -> Option<String> {
        let mut pieces = data.chunks(64 << 10).peekable();
        let mut first = true;
        while let Some(piece) = pieces.next() {
            self.chunk(Chunk {
                transfer,
                data: piece.to_vec().into(),
                last: pieces.peek().is_none(),
                digest: if first { digest.0.to_vec() } else { Vec::new() },
                total: if first { total } else { 0 },
                zstd,
                blob: true,
            });
            first = false;
        }
        self.hear(|kind| match kind {
            Kind::BlobStored(stored) if stored.digest == digest.0 => Some(stored.error),
            _ => None,
        })
    }

    /// Asks for a job; its result, or the refusal's words. None: the node has hung up.
    pub fn job(&self, job: pool::Job) -> Option<Result<Box<pool::Result>, String>> {
        let id = job.id;
        self.say(Kind::Job(job));
        self.hear(|kind| match kind {
            Kind::Result(result) if result.id == id => Some(Ok(Box::new(result))),
            Kind::Refused(refused) if refused.id == id => Some(Err(format!("{}: {}", refused.reason, refused.note))),
            _ => None,
        })
    }

    /// Waits for a credit: before it, jobs are refused.
    pub fn credit(&self) -> Outcome<()> {
        let given = || Ok((self.credits.load(Ordering::Relaxed) > 0).then_some(()));
        wait_until("a credit of the worker", PATIENCE, given)
    }
}

/// All directories down to `path`.
pub fn down_to(path: &str) -> DeltaOps {
    let dir = |path: &str| DirOps { path: path.as_bytes().to_vec(), mode: 0o755, ..DirOps::default() };
    let mut dirs = vec![dir("/")];
    let mut at = String::new();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        at = format!("{at}/{part}");
        dirs.push(dir(&at));
    }
    DeltaOps { dirs }
}

/// A file with its content.
pub fn file(name: &[u8], content: &[u8], mode: u32) -> FileOp {
    FileOp {
        name: name.to_vec(),
        digest: Digest::of(content).0.to_vec(),
        size: content.len() as u64,
        mode,
        mtime_s: 1,
        content: Some(content.to_vec()),
        ..FileOp::default()
    }
}

/// A delta that puts one file into a directory.
pub fn with_file(dir: &str, file: FileOp) -> DeltaOps {
    let mut ops = down_to(dir);
    ops.dirs.last_mut().expect("the root at least").files.push(file);
    ops
}
