//! What a member may send: counted where its link is read, and where it turns out that something came for nothing. Who
//! floods is cut off, marked, and has to stay away for a while. Also what waits on its way here and there, all of it
//! bounded, and statements, whose signatures are checked on another thread.
//!
//! Of one link at most `CONTROL_WAITING` frames and `BULK_WAITING` pieces wait for the loop; then nothing more is read from
//! it, and what it has sent waits at its own side. So one peer's flood delays the others by one turn of that many frames.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use potluck_model::budget::{self, Budget, Kind, Verdict};
use potluck_model::ids::NodeId;
use potluck_model::limits::CONTROL_MESSAGE_BYTES_MAX;
use potluck_wire::pool::{self, Chunk, Frame, frame};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Core, Event};
use crate::transport::Closer;

/// Control frames of one link that were read and not dealt with; a large one counts once for each `UNIT_BYTES`.
const CONTROL_WAITING: u32 = 64;
/// See `CONTROL_WAITING`: no frame counts for more than all.
const UNIT_BYTES: usize = CONTROL_MESSAGE_BYTES_MAX / CONTROL_WAITING as usize;
/// Pieces of large contents of one link that were read and not dealt with: 1 MiB.
const BULK_WAITING: usize = 16;
/// Bytes that wait to be sent over one link: packed, all that a large tree has in files too small for an upload is some
/// hundred megabytes.
const OUTGOING_BYTES_MAX: u64 = 1 << 30;
/// Frames that do: a submitter with a thousand jobs for one worker has three for each.
const OUTGOING_FRAMES_MAX: u64 = 100_000;
/// Bytes of statements of one peer that wait while others of it are looked at: two of the largest messages.
const STATEMENTS_WAITING_BYTES: usize = 2 * CONTROL_MESSAGE_BYTES_MAX;
/// What reading one statement costs, without its signature, in microseconds.
const STATEMENT_US: u32 = 5;

/// What is kept of floods.
pub(crate) struct Floods {
    budgets: HashMap<NodeId, Arc<Mutex<Budget>>>,
    /// Statements of peers that wait while others of theirs are looked at.
    waiting: HashMap<NodeId, Vec<Vec<u8>>>,
    /// Signatures are checked by one thread at a time.
    turn: Arc<Semaphore>,
}

impl Default for Floods {
    fn default() -> Self {
        Self { budgets: HashMap::new(), waiting: HashMap::new(), turn: Arc::new(Semaphore::new(1)) }
    }
}

/// The place of a frame or piece that was read, given back when it has been dealt with.
pub struct Place {
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// For whoever deals with it later, and holds it until then.
    pub(super) fn into_permit(self) -> Option<OwnedSemaphorePermit> {
        self.permit
    }
}

/// How looking at statements ended.
#[derive(Clone, Copy, Debug)]
pub struct Looked {
    /// What it cost for nothing, in microseconds.
    wasted_us: u32,
}

/// What one link's frames are counted by.
#[derive(Clone)]
pub(super) struct Meter {
    budget: Arc<Mutex<Budget>>,
    started: Instant,
}

impl Meter {
    fn spend(&self, kind: Kind, amount: usize) -> Verdict {
        let now = self.started.elapsed();
        let amount = u32::try_from(amount).unwrap_or(u32::MAX);
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).spend(kind, amount, now)
    }

    fn waste(&self, us: u32) -> bool {
        let now = self.started.elapsed();
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).waste(us, now)
    }

    /// Counts a frame and waits as long as its sender has to.
    async fn admit(&self, kind: Kind, amount: usize) -> Result<(), &'static str> {
        match self.spend(kind, amount) {
            Verdict::Take => Ok(()),
            Verdict::TakeAfter(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            Verdict::Flood(what) => Err(what),
        }
    }
}

/// What a frame counts as, and roughly how large it is.
fn weigh(kind: Option<&frame::Kind>) -> (Kind, usize) {
    let all = |parts: &[Vec<u8>]| parts.iter().map(Vec::len).sum::<usize>();
    match kind {
        None => (Kind::Unknown, 0),
        Some(frame::Kind::Hello(_)) => (Kind::Greeting, 0),
        Some(frame::Kind::Ping(_) | frame::Kind::Pong(_) | frame::Kind::Pulse(_)) => (Kind::Beat, 0),
        Some(frame::Kind::Demand(_) | frame::Kind::Credits(_)) => (Kind::Word, 0),
        Some(
            frame::Kind::MirrorQuery(_)
            | frame::Kind::MirrorState(_)
            | frame::Kind::ToolchainOffer(_)
            | frame::Kind::ToolchainState(_),
        ) => (Kind::Question, 0),
        Some(frame::Kind::Gossip(gossip)) => (Kind::Gossip, all(&gossip.statements)),
        Some(frame::Kind::Delta(delta)) => (Kind::Work, delta.ops.len()),
        Some(frame::Kind::Result(result)) => {
            let outputs = result.outputs.iter().map(|o| o.content.as_ref().map_or(0, Vec::len)).sum::<usize>();
            (Kind::Work, outputs + result.stdout.len() + result.stderr.len() + 64 * result.faults.len())
        }
        Some(frame::Kind::Job(job)) => (Kind::Work, all(&job.argv) + all(&job.env)),
        Some(frame::Kind::Reclaimed(reclaimed)) => (Kind::Work, 8 * reclaimed.ids.len()),
        Some(_) => (Kind::Work, 0),
    }
}

/// Reads a link's control frames for the loop until it ends, its peer floods, or the loop is gone.
pub(super) async fn read_control(
    (peer, link): (NodeId, u64),
    mut frames: mpsc::Receiver<Frame>,
    meter: Meter,
    events: mpsc::UnboundedSender<Event>,
    closer: Closer,
) {
    let places = Arc::new(Semaphore::new(CONTROL_WAITING as usize));
    let flood = loop {
        let Some(Frame { kind }) = frames.recv().await else { break closer.flood() };
        let (counts_as, bytes) = weigh(kind.as_ref());
        if let Err(what) = meter.admit(counts_as, 1).await {
            break Some(what);
        }
        if counts_as == Kind::Gossip
            && let Err(what) = meter.admit(Kind::GossipBytes, bytes).await
        {
            break Some(what);
        }
        let Some(kind) = kind else { continue };
        let units = u32::try_from(1 + bytes / UNIT_BYTES).map_or(CONTROL_WAITING, |units| units.min(CONTROL_WAITING));
        // It is never closed.
        let place = Place { permit: Arc::clone(&places).acquire_many_owned(units).await.ok() };
        if events.send(Event::Frame(peer, link, kind, place)).is_err() {
            return;
        }
    };
    let _ = events.send(match flood {
        Some(what) => Event::Flood(peer, link, what),
        None => Event::LinkDown(peer, link),
    });
}

/// The same for pieces of large contents. The control stream tells of the link's end.
pub(super) async fn read_bulk(
    (peer, link): (NodeId, u64),
    mut chunks: mpsc::Receiver<Chunk>,
    meter: Meter,
    events: mpsc::UnboundedSender<Event>,
) {
    let places = Arc::new(Semaphore::new(BULK_WAITING));
    while let Some(chunk) = chunks.recv().await {
        if let Err(what) = meter.admit(Kind::Bulk, 1).await {
            let _ = events.send(Event::Flood(peer, link, what));
            return;
        }
        let place = Place { permit: Arc::clone(&places).acquire_owned().await.ok() };
        if events.send(Event::Chunk(peer, link, chunk, place)).is_err() {
            return;
        }
    }
}

/// What waits to be sent over one link.
#[derive(Default)]
pub(super) struct Outgoing {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Outgoing {
    /// One more. False: its peer takes too little.
    pub(super) fn waits(&self, bytes: u64) -> bool {
        let frames = self.frames.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        frames < OUTGOING_FRAMES_MAX && before + bytes <= OUTGOING_BYTES_MAX
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.frames.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Core {
    /// Members that were cut off, for `status`.
    pub(super) fn floods_status(&self) -> Vec<Value> {
        let floods = self.marks.iter().filter(|(_, marks)| marks.floods > 0);
        floods.map(|(id, marks)| json!({"id": id.to_string(), "floods": marks.floods, "last": marks.last})).collect()
    }

    /// What this member's links are counted by: one budget, however often it connects.
    pub(super) fn meter(&mut self, peer: NodeId) -> Meter {
        let budget = Arc::clone(self.floods.budgets.entry(peer).or_default());
        Meter { budget, started: self.started }
    }

    /// Members that are out need no budget.
    pub(super) fn forget_budgets(&mut self) {
        let view = self.membership.view();
        self.floods.budgets.retain(|node, _| view.is_member(*node));
        self.floods.waiting.retain(|node, _| view.is_member(*node));
    }

    /// A frame of so many bytes came for nothing.
    pub(super) fn came_for_nothing(&mut self, peer: NodeId, bytes: u64, what: &str) {
        self.wasted(peer, budget::cost_us(bytes), what);
    }

    /// So much work was for nothing: a little happens to everybody.
    pub(super) fn wasted(&mut self, peer: NodeId, us: u32, what: &str) {
        let has_link = self.peers.get(&peer).is_some_and(|known| known.link.is_some());
        if us > 0 && has_link && self.meter(peer).waste(us) {
            self.cut_off(peer, what);
        }
    }

    /// A peer's reader has found a flood.
    pub(super) fn flooded(&mut self, peer: NodeId, link: u64, what: &str) {
        if self.has_link(peer, link) {
            self.cut_off(peer, what);
        }
    }

    /// Ends the link of a member that floods, marks it, and lets it not come back for a while.
    pub(super) fn cut_off(&mut self, peer: NodeId, what: &str) {
        let away = self.membership.outcasts().cast_out(peer);
        let why = format!("it sent {what} without end and is cut off for {} s", away.as_secs());
        crate::log::warn(&format!("{} floods this PC: {why}", peer.short()));
        let marks = self.marks.entry(peer).or_default();
        marks.floods += 1;
        marks.flooded_at = Some(Instant::now());
        marks.last = why;
        self.close_link(peer);
    }

    /// Statements came. Their signatures are checked elsewhere, one batch at a time of each peer.
    pub(super) fn gossip(&mut self, peer: NodeId, gossip: pool::Gossip) {
        if let Some(waiting) = self.floods.waiting.get_mut(&peer) {
            let bytes: usize = waiting.iter().chain(&gossip.statements).map(Vec::len).sum();
            if bytes > STATEMENTS_WAITING_BYTES {
                return self.cut_off(peer, "statements");
            }
            return waiting.extend(gossip.statements);
        }
        self.floods.waiting.insert(peer, Vec::new());
        self.look_at(peer, gossip.statements);
    }

    fn look_at(&self, peer: NodeId, statements: Vec<Vec<u8>>) {
        let (membership, events, turn) = (self.membership.clone(), self.events.clone(), Arc::clone(&self.floods.turn));
        self.runtime.spawn(async move {
            let turn = turn.acquire_owned().await;
            let looked = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                look(&membership, peer, statements)
            });
            let looked = looked.await.unwrap_or(Looked { wasted_us: 0 });
            let _ = events.send(Event::Looked(peer, looked));
        });
    }

    /// Statements of this peer were looked at: those that came meanwhile are next.
    pub(super) fn looked(&mut self, peer: NodeId, looked: Looked) {
        match self.floods.waiting.remove(&peer) {
            Some(waiting) if !waiting.is_empty() => {
                self.floods.waiting.insert(peer, Vec::new());
                self.look_at(peer, waiting);
            }
            _ => {}
        }
        self.wasted(peer, looked.wasted_us, "useless statements");
    }
}

fn look(membership: &crate::membership::Membership, peer: NodeId, statements: Vec<Vec<u8>>) -> Looked {
    // What this node has already is no waste: two that differ by one statement tell each other all.
    let known: HashSet<Vec<u8>> = membership.all().into_iter().collect();
    let (read, new) = (statements.len(), statements.iter().filter(|raw| !known.contains(*raw)).count());
    match membership.merge(statements) {
        // What was news here may be news to the others: `team_changed` follows.
        Ok(heard) if heard.changed => Looked { wasted_us: 0 },
        Ok(_) => {
            let cost = |number: usize, each: u32| u32::try_from(number).unwrap_or(u32::MAX).saturating_mul(each);
            Looked { wasted_us: cost(new, budget::WASTE_SIGNATURE_US).saturating_add(cost(read, STATEMENT_US)) }
        }
        Err(error) => {
            crate::log::warn(&format!("statements of {}: {error}", peer.short()));
            Looked { wasted_us: 0 }
        }
    }
}
