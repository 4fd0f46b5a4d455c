//! What a guest says to its submitter, in order. A thread of its own sends it: the guest's must go on however slowly a
//! submitter reads. What waits is in a [`Spool`](super::spool::Spool); when it is much, nothing more starts for this
//! submitter, and when nothing is taken for long, its link ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use potluck_model::ids::NodeId;
use potluck_model::limits::{ANSWERS_UNTAKEN_MAX, BULK_CHUNK_BYTES, RESULTS_UNTAKEN_BYTES_MAX, RESULTS_UNTAKEN_TIME};
use potluck_wire::pool::{self, Frame, frame};
use prost::Message;
use tokio::sync::mpsc as tokio_mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::spool::{Place, Waiting};
use super::{Events, GuestEvent, Outlet};
use crate::mirror::MirrorError;

/// A frame, or a content on the bulk stream.
pub(super) enum Word {
    /// Short.
    Frame(frame::Kind),
    /// A result, with what it counts for.
    Result(Box<pool::Result>, Place),
    /// An encoded result.
    Stored(Waiting),
    /// zstd of so many bytes, under a transfer's number.
    Bulk(u64, Waiting, u64),
}

/// What waits, as far as both sides of the thread must know.
#[derive(Default)]
struct Load {
    bytes: AtomicU64,
    words: AtomicU64,
    laden: AtomicBool,
}

/// See the module.
pub(super) struct Speaker {
    words: mpsc::Sender<Word>,
    load: Arc<Load>,
    peer: NodeId,
    events: Events,
}

impl Speaker {
    /// Ends with the link, or with this value.
    pub(super) fn start(peer: NodeId, outlet: Outlet, events: Events) -> std::io::Result<Self> {
        let (words, queue) = mpsc::channel::<Word>();
        let load = Arc::new(Load::default());
        let mut mouth = Mouth { peer, outlet, load: Arc::clone(&load), events: Arc::clone(&events), patience: None };
        std::thread::Builder::new()
            .name("speaker".into())
            .stack_size(256 << 10)
            .spawn(move || while queue.recv().is_ok_and(|word| mouth.say(word)) {})?;
        Ok(Self { words, load, peer, events })
    }

    /// Does not wait. An error: too much waits.
    pub(super) fn say(&self, word: Word) -> Result<(), MirrorError> {
        let bytes = word.len();
        if self.load.words.fetch_add(1, Ordering::Relaxed) >= ANSWERS_UNTAKEN_MAX {
            return Err(MirrorError::Refused("it does not take its answers".into()));
        }
        let waiting = self.load.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if waiting > RESULTS_UNTAKEN_BYTES_MAX && !self.load.laden.swap(true, Ordering::Relaxed) {
            (self.events)(GuestEvent::Laden(self.peer, true));
        }
        let _ = self.words.send(word);
        Ok(())
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        // What is said over the next link is counted anew.
        if self.load.laden.load(Ordering::Relaxed) {
            (self.events)(GuestEvent::Laden(self.peer, false));
        }
    }
}

impl Word {
    fn len(&self) -> u64 {
        match self {
            Word::Frame(_) => 0,
            Word::Result(_, place) => place.bytes(),
            Word::Stored(waiting) | Word::Bulk(_, waiting, _) => waiting.len(),
        }
    }
}

/// Why a word was not sent.
enum Unsent {
    /// The link is gone, and with it its submitter's interest.
    Gone,
    /// Nothing was taken for long.
    Untaken,
    /// It cannot be read back.
    Lost(std::io::Error),
}

struct Mouth {
    peer: NodeId,
    outlet: Outlet,
    load: Arc<Load>,
    events: Events,
    /// Made when the link is slower than we are: waiting for it needs a clock.
    patience: Option<tokio::runtime::Runtime>,
}

impl Mouth {
    /// False: nothing more can be said.
    fn say(&mut self, word: Word) -> bool {
        let bytes = word.len();
        let sent = match word {
            Word::Frame(kind) => self.frame(kind),
            Word::Result(result, _place) => self.frame(frame::Kind::Result(*result)),
            Word::Stored(waiting) => self.stored(&waiting),
            Word::Bulk(transfer, waiting, total) => self.bulk(transfer, &waiting, total),
        };
        self.load.words.fetch_sub(1, Ordering::Relaxed);
        let waiting = self.load.bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        if waiting <= RESULTS_UNTAKEN_BYTES_MAX / 2 && self.load.laden.swap(false, Ordering::Relaxed) {
            (self.events)(GuestEvent::Laden(self.peer, false));
        }
        match sent {
            Ok(()) => true,
            Err(Unsent::Gone) => false,
            Err(Unsent::Untaken) => {
                let why = format!("it took none of its results for {} s", RESULTS_UNTAKEN_TIME.as_secs());
                (self.events)(GuestEvent::Misbehaved(self.peer, why));
                false
            }
            Err(Unsent::Lost(error)) => {
                (self.events)(GuestEvent::Unwell(self.peer, format!("a result cannot be read back: {error}")));
                false
            }
        }
    }

    fn frame(&mut self, kind: frame::Kind) -> Result<(), Unsent> {
        send(&mut self.patience, &self.outlet.control, Frame { kind: Some(kind) })
    }

    fn stored(&mut self, waiting: &Waiting) -> Result<(), Unsent> {
        let encoded = waiting.read_at(0, usize::MAX).map_err(Unsent::Lost)?;
        let result = pool::Result::decode(&encoded[..]).map_err(|e| Unsent::Lost(std::io::Error::other(e)))?;
        self.frame(frame::Kind::Result(result))
    }

    fn bulk(&mut self, transfer: u64, waiting: &Waiting, mut total: u64) -> Result<(), Unsent> {
        let (mut at, len) = (0, waiting.len());
        while at < len {
            let data = waiting.read_at(at, BULK_CHUNK_BYTES).map_err(Unsent::Lost)?;
            at += data.len() as u64;
            let chunk = pool::Chunk {
                transfer,
                data: data.into(),
                last: at == len,
                digest: Vec::new(),
                // The first one says it.
                total: std::mem::take(&mut total),
                zstd: true,
                blob: false,
            };
            send(&mut self.patience, &self.outlet.bulk, chunk)?;
        }
        Ok(())
    }
}

/// Hands a message to the link, which takes it at once or within [`RESULTS_UNTAKEN_TIME`].
fn send<T>(
    patience: &mut Option<tokio::runtime::Runtime>,
    to: &tokio_mpsc::Sender<T>,
    message: T,
) -> Result<(), Unsent> {
    let message = match to.try_send(message) {
        Ok(()) => return Ok(()),
        Err(TrySendError::Closed(_)) => return Err(Unsent::Gone),
        Err(TrySendError::Full(message)) => message,
    };
    if patience.is_none() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        *patience = Some(runtime.map_err(Unsent::Lost)?);
    }
    let Some(runtime) = patience else { return Err(Unsent::Gone) };
    match runtime.block_on(async { tokio::time::timeout(RESULTS_UNTAKEN_TIME, to.send(message)).await }) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Unsent::Gone),
        Err(_) => Err(Unsent::Untaken),
    }
}
