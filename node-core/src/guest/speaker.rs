//! What a guest says to its submitter, in order. A thread of its own sends it: the guest's must go on however slowly a
//! submitter reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use potluck_model::limits::BULK_CHUNK_BYTES;
use potluck_wire::pool::{self, Frame, frame};
use prost::Message;

use super::Outlet;
use crate::core_content;
use crate::mirror::MirrorError;

/// Bytes of results that wait for their submitter to take them: as much as two jobs may write.
const UNTAKEN_BYTES_MAX: u64 = 2 << 30;

/// A frame, or a content on the bulk stream.
pub(super) enum Word {
    Frame(frame::Kind),
    Bulk(u64, Vec<u8>),
}

/// See the module.
pub(super) struct Speaker {
    words: mpsc::Sender<Word>,
    waiting_bytes: Arc<AtomicU64>,
}

impl Speaker {
    /// Ends with the link, or with this value.
    pub(super) fn start(outlet: Outlet) -> std::io::Result<Self> {
        let (words, queue) = mpsc::channel::<Word>();
        let waiting_bytes = Arc::new(AtomicU64::new(0));
        let waiting = Arc::clone(&waiting_bytes);
        std::thread::Builder::new().name("speaker".into()).stack_size(256 << 10).spawn(move || {
            while let Ok(word) = queue.recv() {
                let size = word.size();
                let sent = match word {
                    Word::Frame(kind) => outlet.control.blocking_send(Frame { kind: Some(kind) }).is_ok(),
                    Word::Bulk(transfer, content) => send_bulk(&outlet, transfer, &content),
                };
                waiting.fetch_sub(size, Ordering::Relaxed);
                // The link is gone: so is its submitter's interest.
                if !sent {
                    return;
                }
            }
        })?;
        Ok(Self { words, waiting_bytes })
    }

    /// Does not wait. An error: too much waits.
    pub(super) fn say(&self, word: Word) -> Result<(), MirrorError> {
        let size = word.size();
        if self.waiting_bytes.fetch_add(size, Ordering::Relaxed) + size > UNTAKEN_BYTES_MAX {
            return Err(MirrorError::Refused("it does not take its results".into()));
        }
        let _ = self.words.send(word);
        Ok(())
    }
}

impl Word {
    fn size(&self) -> u64 {
        match self {
            Word::Frame(frame::Kind::Result(result)) => result.encoded_len() as u64,
            // All others are short.
            Word::Frame(_) => 0,
            Word::Bulk(_, content) => content.len() as u64,
        }
    }
}

/// Sends a content as zstd on the bulk stream. False: the link is gone, or this node is out of memory.
fn send_bulk(outlet: &Outlet, transfer: u64, content: &[u8]) -> bool {
    let Ok(packed) = core_content::pack_bulk(content) else { return false };
    let packed = prost::bytes::Bytes::from(packed);
    let (mut at, mut total) = (0, content.len() as u64);
    while at < packed.len() {
        let end = packed.len().min(at + BULK_CHUNK_BYTES);
        let chunk = pool::Chunk {
            transfer,
            data: packed.slice(at..end),
            last: end == packed.len(),
            digest: Vec::new(),
            // The first one says it.
            total: std::mem::take(&mut total),
            zstd: true,
            blob: false,
        };
        at = end;
        if outlet.bulk.blocking_send(chunk).is_err() {
            return false;
        }
    }
    true
}
