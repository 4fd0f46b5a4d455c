//! One link per connection: a control and a bulk stream, both ways, the same for the side that dialled and the side
//! that was dialled. Knows nothing of what the frames mean.
//!
//! The two are separate HTTP/2 streams with windows of their own, so that a control frame waits at most behind the
//! pieces of bulk that are already in the socket, and a reader that leaves bulk lying stops bulk only.

use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use potluck_model::ids::NodeId;
use potluck_model::limits::{
    BULK_CHUNK_BYTES, CONTROL_MESSAGE_BYTES_MAX, FAREWELL, HELLO_TIMEOUT, STREAMS_PER_CONNECTION_MAX,
};
use potluck_wire::pool;
use potluck_wire::pool::pool_client::PoolClient;
use potluck_wire::pool::pool_server::{Pool, PoolServer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status, Streaming};

use super::connect::{ConnectError, connect};
use super::serve::serve;
use super::stream::{Closer, PeerStream};
use crate::membership::Membership;

/// What a peer may send before somebody reads it: per stream ...
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// ... and in all: bulk that nobody reads leaves room for control.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Results come in one piece, and still no message waits for more than half a millisecond of bulk at 1 Gbit/s.
const FRAME_BYTES: u32 = 64 << 10;
/// Control frames between the socket and their reader.
const CONTROL_QUEUE: usize = 16;
/// Bulk chunks between the socket and their reader: 1 MiB.
const BULK_QUEUE: usize = 16;
/// HTTP/2 pings find connections whose other side vanished even when nobody above pings.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// See `KEEPALIVE_INTERVAL`: dead after 25 s altogether.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Streams that a peer may open and reset before they are handled: more is a flood.
const RESETS_MAX: usize = 20;
/// Headers of one request: gRPC needs a few hundred bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Links that were accepted and not yet taken.
const ACCEPTED_QUEUE: usize = 16;

/// A connection with a member, ready for use.
pub struct Link {
    /// Who is at the other end.
    pub peer: NodeId,
    /// Where.
    pub remote_addr: SocketAddr,
    /// Whether this side dialled.
    pub dialed: bool,
    /// Small messages to the peer, in order.
    pub control_tx: mpsc::Sender<pool::Frame>,
    /// Small messages from the peer; ends with the connection.
    pub control_rx: mpsc::Receiver<pool::Frame>,
    /// Pieces of large contents to the peer, each of at most `BULK_CHUNK_BYTES`.
    pub bulk_tx: mpsc::Sender<pool::Chunk>,
    /// Pieces of large contents from the peer; ends with the connection.
    pub bulk_rx: mpsc::Receiver<pool::Chunk>,
    /// Keeps the connection open: dropping it, also out of the link, ends the connection at once.
    pub closer: CloseOnDrop,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, remote_addr, dialed, .. } = self;
        write!(f, "Link({peer:?} at {remote_addr}, dialed: {dialed})")
    }
}

impl Link {
    /// Ends the connection; what was not yet sent is lost.
    pub fn close(&self) {
        self.closer.close();
    }
}

/// A `Closer` that closes when it is dropped.
pub struct CloseOnDrop(Closer);

impl Deref for CloseOnDrop {
    type Target = Closer;

    fn deref(&self) -> &Closer {
        &self.0
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Why there is no link.
#[derive(Debug)]
pub enum LinkError {
    /// There is no connection.
    Connect(ConnectError),
    /// The other side ended it, mostly because it does not (yet) know this node as a member.
    Refused(String),
    /// The streams were not opened in time.
    TimedOut,
    /// It flooded this node and has to stay away for so long.
    Flooded(NodeId, Duration),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "{error}"),
            Self::Refused(why) => write!(f, "the other machine does not accept this one as a member: {why}"),
            Self::TimedOut => f.write_str("the other machine accepted the connection but says nothing"),
            Self::Flooded(node, left) => {
                write!(f, "{} flooded this machine and is not dialled for {} s", node.short(), left.as_secs() + 1)
            }
        }
    }
}

impl std::error::Error for LinkError {}

impl From<ConnectError> for LinkError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

/// Dials a member (the expected one, or whichever answers) and opens both streams.
pub async fn dial(membership: &Arc<Membership>, addr: SocketAddr, expected: Option<NodeId>) -> Result<Link, LinkError> {
    let away = |node| membership.outcasts().away(node).map(|left| LinkError::Flooded(node, left));
    if let Some(error) = expected.and_then(away) {
        return Err(error);
    }
    let mut stream = connect(membership, addr, expected).await?;
    if let Some(error) = away(stream.peer()) {
        return Err(error);
    }
    stream.count_frames(0);
    let (peer, remote_addr, closer) = (stream.peer(), stream.remote_addr(), CloseOnDrop(stream.closer()));
    tokio::spawn(end_when_removed(Arc::clone(membership), peer, closer.clone()));
    let opened = timeout(HELLO_TIMEOUT, open(stream)).await.map_err(|_| LinkError::TimedOut)?;
    let ((control_tx, control), (bulk_tx, bulk)) = opened?;
    let control_rx = receive(control, CONTROL_QUEUE, &closer, |_| true);
    let bulk_rx = receive(bulk, BULK_QUEUE, &closer, is_chunk_small);
    Ok(Link { peer, remote_addr, dialed: true, control_tx, control_rx, bulk_tx, bulk_rx, closer })
}

type Opened<T> = (mpsc::Sender<T>, Streaming<T>);

async fn open(stream: PeerStream) -> Result<(Opened<pool::Frame>, Opened<pool::Chunk>), LinkError> {
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.take();
        async move { stream.ok_or_else(|| io::Error::other("a link is dialled once")) }
    });
    let refused = |error: &dyn std::error::Error| LinkError::Refused(root_of(error));
    let channel = Endpoint::from_static("http://potluck.invalid")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_local_error_reset_streams(Some(RESETS_MAX))
        .connect_with_connector(connector)
        .await
        .map_err(|error| refused(&error))?;
    let mut for_control = PoolClient::new(channel)
        .max_decoding_message_size(CONTROL_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(CONTROL_MESSAGE_BYTES_MAX);
    let mut for_bulk = for_control.clone();
    let (control_tx, control_out) = mpsc::channel(CONTROL_QUEUE);
    let (bulk_tx, bulk_out) = mpsc::channel(BULK_QUEUE);
    let (control, bulk) = tokio::try_join!(
        for_control.control(ReceiverStream::new(control_out)),
        for_bulk.bulk(ReceiverStream::new(bulk_out)),
    )
    .map_err(|status| refused(&status))?;
    Ok(((control_tx, control.into_inner()), (bulk_tx, bulk.into_inner())))
}

/// The innermost cause: what the outer layers add ("transport error") tells nobody anything.
fn root_of(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(inner) = at.source() {
        at = inner;
    }
    at.to_string()
}

/// Accepts links until the returned receiver is dropped. Links that were handed out live on.
pub fn listen(membership: Arc<Membership>, listener: TcpListener) -> Result<mpsc::Receiver<Link>, rustls::Error> {
    let streams = serve(Arc::clone(&membership), listener)?;
    let (links, receiver) = mpsc::channel(ACCEPTED_QUEUE);
    let incoming = incoming(membership, streams, links.clone());
    let service = PoolServer::new(Service { links })
        .max_decoding_message_size(CONTROL_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(CONTROL_MESSAGE_BYTES_MAX);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(RESETS_MAX))
        .http2_max_header_list_size(HEADER_BYTES_MAX);
    // It ends without an error when `incoming` ends, and `incoming` yields none.
    tokio::spawn(async move { server.serve_with_incoming(service, incoming).await });
    Ok(receiver)
}

fn incoming(
    membership: Arc<Membership>,
    mut streams: mpsc::Receiver<PeerStream>,
    links: mpsc::Sender<Link>,
) -> impl Stream<Item = io::Result<PeerStream>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                Some(stream) = streams.recv() => stream,
                () = links.closed() => return,
            };
            let half = tonic::transport::server::Connected::connect_info(&stream);
            tokio::spawn(end_when_removed(Arc::clone(&membership), half.peer, half.closer.clone()));
            tokio::spawn(end_unless_opened(half));
            if sender.send(Ok(stream)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// A connection does not outlive its peer's membership, nor this node's.
async fn end_when_removed(membership: Arc<Membership>, peer: NodeId, closer: Closer) {
    let mut view = membership.subscribe();
    let removed = async {
        if view.wait_for(|view| !view.is_member(peer)).await.is_err() {
            // The membership is held above: it does not end before this.
            pending::<()>().await;
        }
    };
    let told = async {
        removed.await;
        // The loop has dropped the peer and hears nothing of it any more; this long the news has to get there.
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        () = told => closer.close(),
        () = closer.closed() => {}
    }
}

async fn end_unless_opened(half: Arc<Half>) {
    tokio::select! {
        () = tokio::time::sleep(HELLO_TIMEOUT) => {
            if !half.is_open() {
                half.closer.close();
            }
        }
        () = half.closer.closed() => {}
    }
}

/// An accepted connection whose streams are being opened.
pub struct Half {
    pub(super) peer: NodeId,
    pub(super) remote_addr: SocketAddr,
    pub(super) closer: Closer,
    ends: Mutex<Ends>,
}

#[derive(Default)]
struct Ends {
    control: Slot<pool::Frame>,
    bulk: Slot<pool::Chunk>,
}

type Pipes<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

/// One of the two streams of an accepted connection.
#[derive(Default)]
enum Slot<T> {
    /// Not opened yet.
    #[default]
    Missing,
    /// Opened; the other one is missing.
    Open(Pipes<T>),
    /// Part of a link.
    Linked,
}

impl Half {
    pub(super) fn new(peer: NodeId, remote_addr: SocketAddr, closer: Closer) -> Self {
        Self { peer, remote_addr, closer, ends: Mutex::default() }
    }

    fn is_open(&self) -> bool {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(ends.control, Slot::Linked)
    }

    /// Puts one stream in place. The link, once both are there; an error if it was there before.
    fn put<T>(&self, slot: impl Fn(&mut Ends) -> &mut Slot<T>, pipes: Pipes<T>) -> Result<Option<Link>, Status> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slot(&mut ends);
        if !matches!(slot, Slot::Missing) {
            return Err(Status::already_exists("this stream is open"));
        }
        *slot = Slot::Open(pipes);
        if !matches!((&ends.control, &ends.bulk), (Slot::Open(_), Slot::Open(_))) {
            return Ok(None);
        }
        let taken = Ends { control: Slot::Linked, bulk: Slot::Linked };
        let Ends { control: Slot::Open(control), bulk: Slot::Open(bulk) } = std::mem::replace(&mut *ends, taken) else {
            return Ok(None);
        };
        Ok(Some(Link {
            peer: self.peer,
            remote_addr: self.remote_addr,
            dialed: false,
            control_tx: control.0,
            control_rx: control.1,
            bulk_tx: bulk.0,
            bulk_rx: bulk.1,
            closer: CloseOnDrop(self.closer.clone()),
        }))
    }
}

struct Service {
    links: mpsc::Sender<Link>,
}

impl Service {
    fn accept<T: Send + 'static>(
        &self,
        request: Request<Streaming<T>>,
        slot: impl Fn(&mut Ends) -> &mut Slot<T>,
        queue: usize,
        fits: fn(&T) -> bool,
    ) -> Result<Response<Outgoing<T>>, Status> {
        let half = request.extensions().get::<Arc<Half>>().cloned();
        let half = half.ok_or_else(|| Status::internal("no peer"))?;
        let (sender, outgoing) = mpsc::channel(queue);
        let receiver = receive(request.into_inner(), queue, &half.closer, fits);
        if let Some(link) = half.put(slot, (sender, receiver))? {
            let links = self.links.clone();
            // Not awaited here: the answer, which opens the stream at the other side, must not wait for a reader. A link
            // that nobody takes is dropped, and so closed.
            tokio::spawn(async move { links.send(link).await });
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing).map(Ok))))
    }
}

type Outgoing<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Pool for Service {
    type ControlStream = Outgoing<pool::Frame>;
    type BulkStream = Outgoing<pool::Chunk>;

    async fn control(&self, request: Request<Streaming<pool::Frame>>) -> Result<Response<Self::ControlStream>, Status> {
        self.accept(request, |ends| &mut ends.control, CONTROL_QUEUE, |_| true)
    }

    async fn bulk(&self, request: Request<Streaming<pool::Chunk>>) -> Result<Response<Self::BulkStream>, Status> {
        self.accept(request, |ends| &mut ends.bulk, BULK_QUEUE, is_chunk_small)
    }
}

fn is_chunk_small(chunk: &pool::Chunk) -> bool {
    chunk.data.len() <= BULK_CHUNK_BYTES
}

/// Moves what the peer sends into a bounded queue. The connection ends with the stream, with the first message that
/// breaks a rule, and when nobody reads any more.
fn receive<T: Send + 'static>(
    mut stream: Streaming<T>,
    queue: usize,
    closer: &Closer,
    fits: fn(&T) -> bool,
) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel(queue);
    let closer = CloseOnDrop(closer.clone());
    tokio::spawn(async move {
        let pump = async {
            while let Ok(Some(message)) = stream.message().await {
                if !fits(&message) || sender.send(message).await.is_err() {
                    return;
                }
            }
        };
        // Also ends while the queue is full.
        tokio::select! {
            () = pump => {}
            () = closer.closed() => {}
        }
    });
    receiver
}
