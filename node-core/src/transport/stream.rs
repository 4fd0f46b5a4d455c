//! One authenticated byte stream to a peer, which anyone who holds its `Closer` can end.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use potluck_model::framing::Framing;
use potluck_model::ids::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsStream;

use super::link::Half;
use crate::identity::node_of_certificate;

/// Unsent bytes that the kernel may hold for a connection. A control message waits behind what is already there: 1 ms
/// at 1 Gbit/s.
const UNSENT_BYTES: libc::c_int = 128 << 10;
/// Read from a connection at once.
const READ_BYTES: usize = 64 << 10;
/// Read from one connection before others have their turn: a fast one would keep its reader busy for as long as it likes.
const TURN_BYTES: usize = 512 << 10;

#[derive(Default)]
struct Switch {
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Default)]
struct Shared {
    switch: Mutex<Switch>,
    closed: watch::Sender<bool>,
    flooded: AtomicBool,
}

/// Ends a connection, also when it is waiting. All clones end the same one.
#[derive(Clone, Default)]
pub struct Closer(Arc<Shared>);

impl Closer {
    /// Ends it now; what was not yet sent is lost.
    pub fn close(&self) {
        let wakers = {
            let mut switch = self.0.switch.lock().unwrap_or_else(PoisonError::into_inner);
            switch.closed = true;
            [switch.reader.take(), switch.writer.take()]
        };
        self.0.closed.send_replace(true);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Returns once the connection has been ended, from either side.
    pub async fn closed(&self) {
        let mut closed = self.0.closed.subscribe();
        // The sender lives as long as this.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Of what too much came, if that is why it was ended.
    pub fn flood(&self) -> Option<&'static str> {
        self.0.flooded.load(Ordering::Acquire).then_some("frames without content")
    }

    /// Whether it has been ended.
    pub fn is_closed(&self) -> bool {
        *self.0.closed.borrow()
    }

    fn watch(&self, slot: impl FnOnce(&mut Switch) -> &mut Option<Waker>, cx: &Context<'_>) -> io::Result<()> {
        let mut switch = self.0.switch.lock().unwrap_or_else(PoisonError::into_inner);
        if switch.closed {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was ended here"));
        }
        let slot = slot(&mut switch);
        if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *slot = Some(cx.waker().clone());
        }
        Ok(())
    }
}

/// A TLS stream whose other side has proved its key.
pub struct PeerStream {
    tls: TlsStream<BufReader<TcpStream>>,
    half: Arc<Half>,
    /// HTTP/2 is spoken, and its frames are counted.
    framing: Option<(Framing, Instant)>,
    /// Bytes of this turn.
    turn: usize,
    /// Slots of limits, given back when the stream ends.
    _held: Vec<Box<dyn Any + Send + Sync>>,
}

impl PeerStream {
    /// Takes a finished handshake; `None` if the other side showed no usable key, which the verifiers exclude.
    pub(super) fn new(tls: TlsStream<BufReader<TcpStream>>, remote_addr: SocketAddr) -> Option<Self> {
        let peer = node_of_certificate(tls.get_ref().1.peer_certificates()?.first()?)?;
        let half = Arc::new(Half::new(peer, remote_addr, Closer::default()));
        Some(Self { tls, half, framing: None, turn: 0, _held: Vec::new() })
    }

    /// HTTP/2 follows, after so many bytes of a preface.
    pub(super) fn count_frames(&mut self, preface: usize) {
        self.framing = Some((Framing::after(preface), Instant::now()));
    }

    pub(super) fn hold(&mut self, slot: impl Any + Send + Sync) {
        self._held.push(Box::new(slot));
    }

    /// Who is at the other end.
    pub fn peer(&self) -> NodeId {
        self.half.peer
    }

    /// Where.
    pub fn remote_addr(&self) -> SocketAddr {
        self.half.remote_addr
    }

    /// Ends the stream from elsewhere.
    pub fn closer(&self) -> Closer {
        self.half.closer.clone()
    }

    /// 32 bytes that only the two ends of this TLS session know.
    pub(super) fn exported(&self, label: &[u8]) -> Result<[u8; 32], rustls::Error> {
        match &self.tls {
            TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], label, None),
            TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], label, None),
        }
    }
}

impl Drop for PeerStream {
    fn drop(&mut self) {
        self.half.closer.close();
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.half.closer.watch(|switch| &mut switch.reader, cx)?;
        if self.turn >= TURN_BYTES {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let had = buf.filled().len();
        let read = Pin::new(&mut self.tls).poll_read(cx, buf);
        if read.is_pending() {
            self.turn = 0;
        }
        ready!(read)?;
        let came = &buf.filled()[had..];
        self.turn += came.len();
        if let Some((framing, began)) = &mut self.framing
            && !framing.came(came, began.elapsed())
        {
            self.half.closer.0.flooded.store(true, Ordering::Release);
            self.half.closer.close();
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "it sends frames without content",
            )));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.half.closer.watch(|switch| &mut switch.writer, cx)?;
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.half.closer.watch(|switch| &mut switch.writer, cx)?;
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half.closer.watch(|switch| &mut switch.writer, cx)?;
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half.closer.watch(|switch| &mut switch.writer, cx)?;
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

impl tonic::transport::server::Connected for PeerStream {
    /// What requests on an accepted connection carry along.
    type ConnectInfo = Arc<Half>;

    fn connect_info(&self) -> Arc<Half> {
        Arc::clone(&self.half)
    }
}

/// Read in large pieces: rustls asks for 4 KiB at a time, and a result has ten times as much.
pub(super) fn buffered(tcp: TcpStream) -> BufReader<TcpStream> {
    BufReader::with_capacity(READ_BYTES, tcp)
}

/// Settings that every connection has: small messages leave at once and do not queue behind megabytes in the kernel.
pub(super) fn tune(tcp: &TcpStream) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    tcp.set_nodelay(true)?;
    let value = UNSENT_BYTES;
    // SAFETY: the descriptor is open while `tcp` is borrowed, and the pointer and length describe a live c_int.
    let result = unsafe {
        libc::setsockopt(
            tcp.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
