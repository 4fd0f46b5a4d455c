//! Links to members: the hello, what a worker's mirror holds, large contents on their way, and proving a toolchain
//! there before the first job.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;

use std::time::{Duration, Instant};

use potluck_model::alive::Alive;
use potluck_model::ids::{Digest, JobId, NodeId, ToolchainId};
use potluck_model::limits::{BULK_CHUNK_BYTES, FAREWELL};
use potluck_model::place::{self, Arch, PeerFacts};
use potluck_model::reason::Reason;
use potluck_wire::pool::{self, Chunk, DeltaOps, Frame, frame};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::arrivals::Arrivals;
use super::flood::{self, Outgoing};
use super::{Core, Event};
use crate::guest::Outlet;
use crate::image::{Delta, Image, Missing};
use crate::proof::{self, Proof, ProofKind};
use crate::root::Root;
use crate::transport::link::{CloseOnDrop, Link};
use crate::tree::Closure;

/// Version of the node-to-node protocol.
const MAJOR: u32 = 1;
/// What this node can do; the intersection counts.
const ABILITIES: &[&str] = &[
    "mirror-1",
    "credits-1",
    "probe-1",
    super::pulse::ABILITY,
    super::audit::SIGNED_ABILITY,
    super::audit::EVIDENCE_ABILITY,
];
/// Deltas above this go in parts, so that a ping is never stuck behind one.
const DELTA_BYTES_MAX: usize = 1 << 20;
/// Deltas up to this travel as they are.
const DELTA_UNPACKED_BYTES_MAX: usize = 512;
/// Contents of a result may come so long after it: a gigabyte at 1 Gbit/s, three times over.
const LATE_CONTENTS: Duration = Duration::from_secs(30);
/// Uploads to one worker at a time.
const UPLOADS_MAX: usize = 4;

/// A member that this node knows an address or a link of.
pub(crate) struct Peer {
    pub(crate) link: Option<LinkHandle>,
    pub(crate) hello: Option<pool::Hello>,
    pub(crate) address: String,
    pub(crate) image: Image,
    pub(crate) image_ready: bool,
    pub(crate) trap: String,
    pub(crate) clock_skew_us: i64,
    pub(crate) toolchains: HashMap<ToolchainId, Stage>,
    pub(crate) offered: u32,
    /// Why it gives nothing now, as a code; empty: it does.
    pub(crate) held: String,
    /// What it last said of itself.
    pub(crate) pulse: Option<pool::Pulse>,
    pub(crate) ping_sent: Option<(u64, Instant)>,
    pub(crate) rtt: Duration,
    pub(crate) uploading: HashSet<Digest>,
    pub(crate) upload_queue: Missing,
    pub(crate) arrivals: Arrivals,
    state_transfer: Option<(u64, u64)>,
    delta_seq: u64,
    pub(super) alive: Alive,
    /// Jobs that were sent over this link and not answered.
    owed: u64,
    /// When the last of them was.
    answered_at: Option<Duration>,
}

/// The live end of a link.
pub(crate) struct LinkHandle {
    number: u64,
    pub(super) dialed: bool,
    pub(super) since: Instant,
    /// With their sizes; see `outgoing`.
    control: mpsc::UnboundedSender<(Frame, u64)>,
    outgoing: Arc<Outgoing>,
    bulk: mpsc::Sender<Chunk>,
    _closer: CloseOnDrop,
}

/// How far a toolchain is at a peer.
pub(crate) enum Stage {
    /// Its files are on their way.
    Uploading,
    /// Proofs run.
    Proving(Vec<Proof>),
    /// Jobs may go.
    Ready,
    /// It did not prove itself.
    Failed(String),
}

/// A proof that runs at a peer.
pub(crate) struct ProbeRun {
    peer: NodeId,
    toolchain: ToolchainId,
    proof: Proof,
}

impl Core {
    pub(super) fn link_up(&mut self, link: Link) {
        let Link { peer, remote_addr, dialed, control_tx, control_rx, bulk_tx, bulk_rx, closer } = link;
        // Two nodes that dial each other at once keep the connection that the smaller id dialled.
        if let Some(known) = self.peers.get(&peer).and_then(|p| p.link.as_ref()) {
            let mine_is_right = self.membership.identity().id() < peer;
            if known.dialed == mine_is_right && dialed != mine_is_right {
                return;
            }
            self.drop_link(peer);
        }
        let number = self.next_link;
        self.next_link += 1;
        let (control, mut queue) = mpsc::unbounded_channel::<(Frame, u64)>();
        let outgoing = Arc::new(Outgoing::default());
        let left = Arc::clone(&outgoing);
        let outlet = Outlet { control: control_tx.clone(), bulk: bulk_tx.clone() };
        tokio::spawn(async move {
            while let Some((frame, bytes)) = queue.recv().await {
                if control_tx.send(frame).await.is_err() {
                    return;
                }
                left.sent(bytes);
            }
        });
        let meter = self.meter(peer);
        let (events, id) = (self.events.clone(), (peer, number));
        tokio::spawn(flood::read_control(id, control_rx, meter.clone(), events.clone(), closer.clone()));
        tokio::spawn(flood::read_bulk(id, bulk_rx, meter, events));
        let handle =
            LinkHandle { number, dialed, since: Instant::now(), control, outgoing, bulk: bulk_tx, _closer: closer };
        let fresh = Peer {
            link: Some(handle),
            hello: None,
            address: remote_addr.to_string(),
            image: Image::new(),
            image_ready: false,
            trap: String::new(),
            clock_skew_us: 0,
            toolchains: HashMap::new(),
            offered: 0,
            held: String::new(),
            pulse: None,
            ping_sent: None,
            rtt: Duration::from_millis(1),
            uploading: HashSet::new(),
            upload_queue: Vec::new(),
            arrivals: Arrivals::default(),
            state_transfer: None,
            delta_seq: 0,
            alive: Alive::new(self.now()),
            owed: 0,
            answered_at: None,
        };
        self.peers.insert(peer, fresh);
        self.linked.send_modify(|linked| {
            linked.insert(peer);
        });
        let (slots, not_serving) = match self.serving() {
            Ok(slots) => (slots, String::new()),
            Err(why) => (0, why),
        };
        let announces =
            (self.network.on && !self.settings.listen.ip().is_loopback()).then_some(super::network::ANNOUNCES);
        let hello = pool::Hello {
            major: MAJOR,
            abilities: ABILITIES.iter().copied().chain(announces).map(str::to_owned).collect(),
            app_version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.settings.name.clone(),
            membership: self.membership.digest().map(|d| d.0.to_vec()).unwrap_or_default(),
            arch: std::env::consts::ARCH.to_owned(),
            slots,
            not_serving,
            clock_us: Self::clock_us(),
            session: self.started.elapsed().as_nanos() as u64 ^ std::process::id() as u64,
            memory_bytes: memory_bytes(),
            port: self.settings.listen.port().into(),
        };
        self.send(peer, frame::Kind::Hello(hello));
        self.submitter_up(peer, outlet, Duration::from_millis(1));
        crate::log::info(&format!("link with {} at {remote_addr}", peer.short()));
    }

    pub(super) fn link_down(&mut self, peer: NodeId, number: u64) {
        if self.peers.get(&peer).and_then(|p| p.link.as_ref()).is_some_and(|l| l.number == number) {
            self.drop_link(peer);
            self.place(place::Event::PeerDown { peer });
        }
    }

    /// Ends the link to a peer that broke a rule, or is lost.
    pub(super) fn close_link(&mut self, peer: NodeId) {
        self.drop_link(peer);
        self.place(place::Event::PeerDown { peer });
    }

    pub(super) fn peer_lost(&mut self, peer: NodeId) {
        crate::log::warn(&format!("{} is silent and counts as lost", peer.short()));
        self.drop_link(peer);
    }

    /// Ends the link to a peer that is no member any more, with a last word to it. Nothing that it says is heard from
    /// here on, and its jobs go elsewhere.
    pub(super) fn farewell(&mut self, peer: NodeId, last_words: Vec<frame::Kind>) {
        let Some(link) = self.drop_link(peer) else { return };
        for last_word in last_words {
            let frame = Frame { kind: Some(last_word) };
            let bytes = frame.encoded_len() as u64;
            link.outgoing.waits(bytes);
            let _ = link.control.send((frame, bytes));
        }
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            drop(link);
        });
        self.place(place::Event::PeerDown { peer });
    }

    /// The link that was there ends when it is dropped.
    fn drop_link(&mut self, id: NodeId) -> Option<LinkHandle> {
        let peer = self.peers.get_mut(&id)?;
        let link = peer.link.take()?;
        peer.toolchains.clear();
        // What had come over it belongs to no result any more.
        peer.arrivals = Arrivals::default();
        self.linked.send_modify(|linked| {
            linked.remove(&id);
        });
        peer.image_ready = false;
        peer.hello = None;
        self.probes.retain(|_, probe| probe.peer != id);
        self.submitter_down(id);
        let waiting: Vec<ToolchainId> = self.waiting_tools.keys().copied().collect();
        for toolchain in waiting {
            self.tools_settled(toolchain);
        }
        crate::log::info(&format!("link with {} ended", id.short()));
        self.last_seen(id);
        self.tell_watchers();
        Some(link)
    }

    /// Sends a frame; returns its size. A peer without link gets nothing.
    pub(super) fn send(&mut self, peer: NodeId, kind: frame::Kind) -> u64 {
        let Some(known) = self.peers.get_mut(&peer) else { return 0 };
        let Some(link) = &known.link else { return 0 };
        known.owed += u64::from(matches!(kind, frame::Kind::Job(_)));
        let frame = Frame { kind: Some(kind) };
        let bytes = frame.encoded_len() as u64;
        self.totals.bytes_up += bytes;
        if !link.outgoing.waits(bytes) {
            // The link ends: a gap in what it is told would be worse.
            let _ = self.events.send(Event::Flood(peer, link.number, "frames, taking none,"));
            return bytes;
        }
        let _ = link.control.send((frame, bytes));
        bytes
    }

    /// Whether this is the peer's link now.
    pub(super) fn has_link(&self, peer: NodeId, number: u64) -> bool {
        self.peers.get(&peer).and_then(|p| p.link.as_ref()).is_some_and(|link| link.number == number)
    }

    /// Whether this many jobs were sent to the peer and not answered yet; they are now.
    fn answered(&mut self, peer: NodeId, jobs: u64) -> bool {
        let now = self.now();
        let Some(known) = self.peers.get_mut(&peer) else { return false };
        if known.owed > 0 {
            known.answered_at = Some(now);
        }
        let is_owed = known.owed >= jobs;
        known.owed = known.owed.saturating_sub(jobs);
        is_owed
    }

    pub(super) fn frame(&mut self, peer: NodeId, link: u64, kind: frame::Kind) {
        if self.peers.get(&peer).and_then(|p| p.link.as_ref()).is_none_or(|l| l.number != link) {
            return;
        }
        let said_hello = self.peers.get_mut(&peer).is_some_and(|p| {
            p.alive.heard = true;
            p.hello.is_some()
        });
        if !said_hello && !matches!(kind, frame::Kind::Hello(_)) {
            return self.close_link(peer);
        }
        match kind {
            // One for each link: it makes this side say all that it knows.
            frame::Kind::Hello(_) if said_hello => self.came_for_nothing(peer, 0, "greetings"),
            frame::Kind::Hello(hello) => self.hello(peer, hello),
            frame::Kind::Ping(ping) => {
                // Its number is its sender's clock: one that is set right is no problem any more.
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.clock_skew_us = skew_us(ping.id);
                }
                self.send(peer, frame::Kind::Pong(pool::Pong { id: ping.id }));
            }
            frame::Kind::Pong(pong) => self.pong(peer, pong.id),
            frame::Kind::Credits(credits) => self.credits(peer, credits),
            frame::Kind::Result(result) => {
                let useless = if self.answered(peer, 1) { None } else { Some(result.encoded_len() as u64) };
                self.result(peer, result);
                if let Some(bytes) = useless {
                    self.came_for_nothing(peer, bytes, "results of nothing");
                }
            }
            frame::Kind::Refused(refused) => {
                let is_owed = self.answered(peer, 1);
                self.refused(peer, &refused);
                if !is_owed {
                    self.came_for_nothing(peer, 0, "refusals of nothing");
                }
            }
            frame::Kind::Reclaimed(reclaimed) => {
                if !self.answered(peer, reclaimed.ids.len() as u64) {
                    self.came_for_nothing(peer, 8 * reclaimed.ids.len() as u64, "jobs taken back that are not there");
                }
                for id in reclaimed.ids {
                    let outcome = place::Outcome::Elsewhere(Reason::PeerReclaimed);
                    self.place(place::Event::Result { job: JobId(id), peer, outcome });
                }
            }
            frame::Kind::MirrorState(state) => self.mirror_state(peer, &state),
            frame::Kind::BlobStored(stored) => self.blob_stored(peer, &stored),
            frame::Kind::Gossip(gossip) => self.gossip(peer, gossip),
            frame::Kind::Pulse(pulse) => self.pulse_of(peer, pulse),
            frame::Kind::Evidence(evidence) => self.evidence(peer, &evidence),
            other => self.serve_frame(peer, other),
        }
        self.place(place::Event::Heard { peer });
    }

    fn hello(&mut self, peer: NodeId, mut hello: pool::Hello) {
        if hello.major != MAJOR {
            crate::log::warn(&format!(
                "{} speaks protocol {} and this node {MAJOR}: update the older one",
                peer.short(),
                hello.major
            ));
            let name = super::snapshot::shown_name(&hello.name);
            self.strange.insert(peer, (name, super::snapshot::shown_name(&hello.app_version)));
            return self.close_link(peer);
        }
        self.strange.remove(&peer);
        if let Some(why) = self.no_worker_of_ours(peer).or_else(|| self.is_aside(peer)) {
            // What the team's keepers say counts, not what it says itself: no job, no toolchain and no offer.
            hello.slots = 0;
            hello.not_serving = why.to_owned();
        }
        let facts = PeerFacts {
            rtt: Duration::from_millis(1),
            bandwidth_bytes_s: 0,
            memory_bytes: hello.memory_bytes,
            arch: Arch::from_name(&hello.arch),
            slots_max: hello.slots,
        };
        let serves = hello.slots > 0;
        let membership = hello.membership.clone();
        if let Some(known) = self.peers.get_mut(&peer) {
            known.clock_skew_us = skew_us(hello.clock_us);
            known.hello = Some(hello);
        }
        if membership != self.membership.digest().map(|d| d.0.to_vec()).unwrap_or_default() {
            for statements in self.membership.parts() {
                self.send(peer, frame::Kind::Gossip(pool::Gossip { membership: Vec::new(), statements }));
            }
        }
        if serves {
            self.place(place::Event::PeerUp { peer, facts });
            self.send(peer, frame::Kind::MirrorQuery(pool::MirrorQuery {}));
        }
        self.ping(peer);
        self.greet_with_pulse(peer);
        self.greet_with_evidence(peer);
        self.reached(peer);
    }

    pub(super) fn ping(&mut self, peer: NodeId) {
        let id = Self::clock_us();
        if let Some(known) = self.peers.get_mut(&peer) {
            known.ping_sent = Some((id, Instant::now()));
        }
        self.send(peer, frame::Kind::Ping(pool::Ping { id }));
    }

    fn pong(&mut self, peer: NodeId, id: u64) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if let Some((sent, at)) = known.ping_sent
            && sent == id
        {
            known.ping_sent = None;
            known.rtt = at.elapsed();
            let rtt = known.rtt;
            self.place(place::Event::Link { peer, rtt, bandwidth_bytes_s: 0 });
        } else {
            self.came_for_nothing(peer, 0, "answers to no ping");
        }
    }

    pub(super) fn tell_demand(&mut self, peer: NodeId, slots: u32) {
        self.send(peer, frame::Kind::Demand(pool::Demand { slots }));
    }

    fn mirror_state(&mut self, id: NodeId, state: &pool::MirrorState) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.trap = state.trap.clone();
        if state.trap == "none" {
            crate::log::warn(&format!("{} has no sandbox", id.short()));
            return self.tell_watchers();
        }
        if state.transfer == 0 {
            return self.adopt(id, &DeltaOps::default());
        }
        peer.state_transfer = Some((state.transfer, state.raw_bytes));
        if let Some(raw) = peer.arrivals.take(state.transfer) {
            self.adopt_raw(id, &raw);
        }
    }

    fn adopt_raw(&mut self, id: NodeId, raw: &[u8]) {
        match DeltaOps::decode(raw) {
            Ok(state) => self.adopt(id, &state),
            Err(_) => self.close_link(id),
        }
    }

    fn adopt(&mut self, id: NodeId, state: &DeltaOps) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.state_transfer = None;
        let delta = peer.image.adopt(&mut self.tree, state);
        peer.image_ready = true;
        self.send_delta(id, delta);
        let wanted: Vec<ToolchainId> = self.compilers.packed.keys().copied().collect();
        for toolchain in wanted {
            self.advance(id, toolchain);
        }
    }

    /// Sends a delta, in parts if it is large. Returns the bytes sent.
    fn send_delta(&mut self, id: NodeId, delta: Delta) -> u64 {
        if delta.is_empty {
            return 0;
        }
        let mut sent = 0;
        let mut part = DeltaOps::default();
        let mut size = 0;
        for dir in delta.ops.dirs {
            size += dir.encoded_len();
            part.dirs.push(dir);
            if size > DELTA_BYTES_MAX {
                sent += self.send_part(id, &std::mem::take(&mut part));
                size = 0;
            }
        }
        if !part.dirs.is_empty() {
            sent += self.send_part(id, &part);
        }
        sent
    }

    fn send_part(&mut self, id: NodeId, ops: &DeltaOps) -> u64 {
        let mut packed = ops.encode_to_vec();
        let mut raw_bytes = 0;
        // Some names that came or went: packing them costs more than all else that sending them does.
        if packed.len() > DELTA_UNPACKED_BYTES_MAX {
            raw_bytes = packed.len() as u64;
            packed = crate::core_content::pack(&packed).unwrap_or_default();
        }
        let seq = match self.peers.get_mut(&id) {
            Some(peer) => {
                peer.delta_seq += 1;
                peer.delta_seq
            }
            None => return 0,
        };
        self.send(id, frame::Kind::Delta(pool::Delta { seq, ops: packed, raw_bytes }))
    }

    /// Brings the mirror up to date for these closures and sends the frame behind it.
    pub(super) fn send_with_delta(
        &mut self,
        id: NodeId,
        closures: &[&Arc<Closure>],
        gone: &[Vec<u8>],
        kind: frame::Kind,
    ) -> u64 {
        let Some(peer) = self.peers.get_mut(&id) else { return 0 };
        let delta = peer.image.delta(&mut self.tree, closures, gone);
        self.send_delta(id, delta) + self.send(id, kind)
    }

    /// Sends contents that are too large for a delta, some at a time.
    pub(super) fn upload(&mut self, id: NodeId, missing: Missing) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        for item in missing {
            if !peer.uploading.contains(&item.1) && !peer.upload_queue.iter().any(|q| q.1 == item.1) {
                peer.upload_queue.push(item);
            }
        }
        self.next_uploads(id);
    }

    fn next_uploads(&mut self, id: NodeId) {
        loop {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            let Some(link) = &peer.link else { return };
            if peer.uploading.len() >= UPLOADS_MAX || peer.upload_queue.is_empty() {
                return;
            }
            let (file, digest) = peer.upload_queue.remove(0);
            peer.uploading.insert(digest);
            let (bulk, number) = (link.bulk.clone(), link.number);
            let (root, path) = (self.tree.root(), self.tree.file_path(file));
            let (events, transfer) = (self.events.clone(), self.next_job);
            self.next_job += 1;
            let runtime = self.runtime.clone();
            self.runtime.spawn_blocking(move || {
                let result = upload(&root, &path, digest, transfer, &bulk, &runtime);
                let _ = events.send(Event::Uploaded(id, number, digest, result));
            });
        }
    }

    pub(super) fn uploaded(&mut self, id: NodeId, link: u64, digest: Digest, result: Result<u64, String>) {
        match result {
            Ok(bytes) => self.totals.bytes_up += bytes,
            Err(why) => {
                if self.peers.get(&id).and_then(|p| p.link.as_ref()).is_some_and(|l| l.number == link) {
                    crate::log::warn(&format!("a file could not be sent to {}: {why}", id.short()));
                    self.upload_over(id, digest, false);
                }
            }
        }
    }

    fn blob_stored(&mut self, id: NodeId, stored: &pool::BlobStored) {
        let Ok(digest) = Digest::try_from(&stored.digest[..]) else { return };
        if !stored.error.is_empty() {
            crate::log::warn(&format!("{} did not store a file: {}", id.short(), stored.error));
        }
        if !self.peers.get(&id).is_some_and(|peer| peer.uploading.contains(&digest)) {
            return self.came_for_nothing(id, 0, "receipts for nothing");
        }
        self.upload_over(id, digest, stored.error.is_empty());
    }

    fn upload_over(&mut self, id: NodeId, digest: Digest, ok: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.uploading.remove(&digest) {
            return;
        }
        if ok {
            peer.image.stored(digest);
        }
        self.next_uploads(id);
        let waiting: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.peer == Some(id) && job.uploads.contains(&digest))
            .map(|(id, _)| *id)
            .collect();
        for job_id in waiting {
            let Some(job) = self.jobs.get_mut(&job_id) else { continue };
            if !ok {
                let outcome = place::Outcome::Home(Reason::DiskFull);
                self.place(place::Event::Result { job: job_id, peer: id, outcome });
                continue;
            }
            job.uploads.retain(|d| *d != digest);
            if job.uploads.is_empty() {
                self.send_job(job_id, id);
            }
        }
        let toolchains: Vec<ToolchainId> = self
            .peers
            .get(&id)
            .map(|p| p.toolchains.iter().filter(|(_, s)| matches!(s, Stage::Uploading)).map(|(t, _)| *t).collect())
            .unwrap_or_default();
        for toolchain in toolchains {
            if ok {
                self.advance(id, toolchain);
            } else {
                self.toolchain_failed(id, toolchain, "a file could not be stored there".to_owned());
            }
        }
    }

    pub(super) fn chunk(&mut self, id: NodeId, link: u64, chunk: Chunk, held: Option<OwnedSemaphorePermit>) {
        if self.peers.get(&id).and_then(|p| p.link.as_ref()).is_none_or(|l| l.number != link) {
            return;
        }
        if chunk.blob {
            return self.serve_chunk(id, chunk, held);
        }
        self.totals.bytes_down += chunk.data.len() as u64;
        if self.is_unasked(id, chunk.transfer) {
            self.came_for_nothing(id, chunk.data.len() as u64, "contents that nobody asked for");
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let arrived = match peer.arrivals.chunk(&chunk) {
            Ok(None) => return,
            Ok(Some(transfer)) => transfer,
            Err(why) => {
                crate::log::warn(&format!("{} broke a rule: outputs: {why:?}", id.short()));
                self.mark_bad(id, format!("a large output broke a rule: {why:?}"));
                return self.close_link(id);
            }
        };
        if peer.state_transfer.is_some_and(|(transfer, _)| transfer == arrived)
            && let Some(raw) = peer.arrivals.take(arrived)
        {
            return self.adopt_raw(id, &raw);
        }
        self.output_arrived(id);
    }

    /// Whether a transfer begins of which no result or state can tell: none is expected of this peer.
    fn is_unasked(&self, id: NodeId, transfer: u64) -> bool {
        let Some(peer) = self.peers.get(&id) else { return true };
        // The state of its mirror may come before the frame that tells of it, and contents long after their result.
        peer.owed == 0
            && peer.answered_at.is_none_or(|at| self.now() >= at + LATE_CONTENTS)
            && (peer.image_ready || peer.hello.as_ref().is_some_and(|hello| hello.slots == 0))
            && !peer.arrivals.knows(transfer)
            && !self.jobs.values().any(|job| job.peer == Some(id) && job.held.is_some())
    }

    /// No peer has it, and one is about to.
    pub(super) fn toolchain_comes(&self, toolchain: ToolchainId) -> bool {
        let mut coming = false;
        for peer in self.peers.values().filter(|p| p.link.is_some()) {
            match peer.toolchains.get(&toolchain) {
                Some(Stage::Ready) => return false,
                // While its owner has it, nothing is proved there.
                Some(Stage::Uploading | Stage::Proving(_)) | None if !peer.held.is_empty() => {}
                Some(Stage::Uploading | Stage::Proving(_)) => coming = true,
                Some(Stage::Failed(_)) => {}
                None => coming |= peer.hello.as_ref().is_none_or(|h| h.slots > 0) && peer.trap != "none",
            }
        }
        coming
    }

    /// A worker has it, or will not have it: whoever waited for that goes on.
    pub(super) fn tools_settled(&mut self, toolchain: ToolchainId) {
        for ask in self.waiting_tools.remove(&toolchain).unwrap_or_default() {
            self.prepare(ask);
        }
    }

    /// A toolchain shall be usable on every peer.
    pub(super) fn want_toolchain(&mut self, toolchain: ToolchainId) {
        let ready: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, p)| p.image_ready && !p.toolchains.contains_key(&toolchain))
            .map(|(id, _)| *id)
            .collect();
        for peer in ready {
            self.advance(peer, toolchain);
        }
    }

    /// One step further with a toolchain at a peer.
    fn advance(&mut self, id: NodeId, toolchain: ToolchainId) {
        let Some(closure) = self.toolchain_closure(toolchain) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if matches!(peer.toolchains.get(&toolchain), Some(Stage::Proving(_) | Stage::Ready | Stage::Failed(_))) {
            return;
        }
        let missing = peer.image.missing(&self.tree, &[&closure]);
        if !missing.is_empty() {
            let known = peer.toolchains.insert(toolchain, Stage::Uploading);
            self.team.sent_to(id, toolchain);
            self.upload(id, missing);
            if known.is_none() {
                self.tell_watchers();
            }
            return;
        }
        let delta = peer.image.delta(&mut self.tree, &[&closure], &[]);
        // Without FUSE a swallowed lookup cannot be noticed: such jobs are not sent there.
        let full = peer.trap == "fuse";
        self.send_delta(id, delta);
        match self.compilers.proofs.get(&toolchain).cloned() {
            Some(Ok(mut proofs)) => {
                proofs.retain(|p| full || !matches!(p.kind, ProofKind::Fault { .. }));
                proofs.reverse();
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.toolchains.insert(toolchain, Stage::Proving(proofs));
                }
                self.next_proof(id, toolchain);
            }
            Some(Err(why)) => self.toolchain_failed(id, toolchain, why),
            None => {}
        }
        self.tell_watchers();
    }

    fn next_proof(&mut self, id: NodeId, toolchain: ToolchainId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(Stage::Proving(proofs)) = peer.toolchains.get_mut(&toolchain) else { return };
        if !proofs.is_empty() && self.probes.values().any(|probe| probe.peer == id) {
            // A worker runs one at a time: `proof_result` goes on with this one.
            return;
        }
        let Some(proof) = proofs.pop() else {
            peer.toolchains.insert(toolchain, Stage::Ready);
            crate::log::info(&format!("toolchain {} is ready on {}", toolchain.short(), id.short()));
            self.place(place::Event::Toolchain { peer: id, toolchain, ready: true });
            self.toolchain_arrived(id, toolchain);
            if let Some(packed) = self.compilers.packed.get(&toolchain) {
                let name = crate::toolchain::pack::display_name(&packed.manifest);
                self.send(id, frame::Kind::ToolchainOffer(pool::ToolchainOffer { id: toolchain.0.0.to_vec(), name }));
            }
            self.tools_settled(toolchain);
            self.tell_watchers();
            return;
        };
        let Some(tools) = self.toolchain_closure(toolchain) else { return };
        let job = JobId(self.next_job);
        self.next_job += 1;
        let (closure, mut message) = match proof.job(&mut self.tree, job) {
            Ok(made) => made,
            Err(why) => return self.toolchain_failed(id, toolchain, why),
        };
        message.toolchain = toolchain.0.0.to_vec();
        self.probes.insert(job, ProbeRun { peer: id, toolchain, proof });
        self.send_with_delta(id, &[&tools, &closure], &[], frame::Kind::Job(message));
        self.tell_watchers();
    }

    /// The result of a proof. Faults of a byte proof are answered once each, as a job's would be.
    pub(super) fn proof_result(&mut self, peer: NodeId, probe: ProbeRun, result: &pool::Result) {
        if probe.peer != peer {
            return;
        }
        self.proof_judged(peer, probe, result);
        // Other toolchains wait for this one's proof to be over.
        let proving = |(id, stage): (&ToolchainId, &Stage)| matches!(stage, Stage::Proving(_)).then_some(*id);
        let known = self.peers.get(&peer).map(|p| p.toolchains.iter().filter_map(proving).collect::<Vec<_>>());
        known.into_iter().flatten().for_each(|toolchain| self.next_proof(peer, toolchain));
    }

    fn proof_judged(&mut self, peer: NodeId, probe: ProbeRun, result: &pool::Result) {
        let ProbeRun { toolchain, mut proof, .. } = probe;
        match proof.judge(result) {
            proof::Verdict::Passed => self.next_proof(peer, toolchain),
            proof::Verdict::Needs(paths) => {
                for path in paths {
                    let allowed = self.toolchain_may_send(toolchain, &path);
                    if !allowed {
                        let text = format!("it needs {}, which is not part of the compiler", crate::bytes::show(&path));
                        return self.toolchain_failed(peer, toolchain, text);
                    }
                    // From now on part of what goes with the toolchain.
                    self.compilers.need(toolchain, path);
                }
                if let Some(known) = self.peers.get_mut(&peer)
                    && let Some(Stage::Proving(proofs)) = known.toolchains.get_mut(&toolchain)
                {
                    proofs.push(proof);
                }
                self.next_proof(peer, toolchain);
            }
            proof::Verdict::Failed(why) => {
                let what = match &proof.kind {
                    ProofKind::Bytes { .. } => "it does not reproduce the probe",
                    ProofKind::Search { .. } => "it looks for headers elsewhere",
                    ProofKind::Fault { .. } => "a lookup of poison went unnoticed",
                };
                self.toolchain_failed(peer, toolchain, format!("{what}: {why}"));
            }
        }
    }

    fn toolchain_failed(&mut self, peer: NodeId, toolchain: ToolchainId, why: String) {
        crate::log::warn(&format!("toolchain {} is not usable on {}: {why}", toolchain.short(), peer.short()));
        if let Some(known) = self.peers.get_mut(&peer) {
            known.toolchains.insert(toolchain, Stage::Failed(why));
        }
        self.place(place::Event::Toolchain { peer, toolchain, ready: false });
        self.tools_settled(toolchain);
        self.tell_watchers();
    }
}

/// How far another PC's clock is ahead of this one's.
fn skew_us(clock_us: u64) -> i64 {
    (clock_us as i64).saturating_sub(Core::clock_us() as i64)
}

/// Reads a file and sends it as zstd in chunks; the number of bytes that went out.
fn upload(
    root: &Root,
    path: &std::path::Path,
    digest: Digest,
    transfer: u64,
    bulk: &mpsc::Sender<Chunk>,
    runtime: &tokio::runtime::Handle,
) -> Result<u64, String> {
    let (file, meta) = crate::tree::open_regular(root, path).map_err(|e| format!("{}: {e}", path.display()))?;
    let total = meta.len();
    let mut packed = zstd::stream::read::Encoder::new(file, 3).map_err(|e| e.to_string())?;
    let mut sent = 0;
    let mut first = true;
    loop {
        let mut data = vec![0; BULK_CHUNK_BYTES];
        let mut filled = 0;
        while filled < data.len() {
            match packed.read(&mut data[filled..]).map_err(|e| e.to_string())? {
                0 => break,
                n => filled += n,
            }
        }
        let last = filled < data.len();
        data.truncate(filled);
        sent += filled as u64;
        let chunk = Chunk {
            transfer,
            data: data.into(),
            last,
            digest: if first { digest.0.to_vec() } else { Vec::new() },
            total: if first { total } else { 0 },
            zstd: true,
            blob: true,
        };
        first = false;
        runtime.block_on(bulk.send(chunk)).map_err(|_| "the link ended".to_owned())?;
        if last {
            return Ok(sent);
        }
    }
}

/// Memory of this machine.
pub(super) fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * info.mem_unit as u64
}

/// A peer's stage in a word, for display.
pub(crate) fn stage_word(stage: &Stage, is_held: bool) -> (&'static str, String) {
    match stage {
        // Nothing is proved on a PC that is in use: that may be hours, and nobody waits for it.
        Stage::Proving(left) if is_held => {
            ("later", format!("{} checks left, when it gives its cores", left.len() + 1))
        }
        Stage::Uploading => ("sending", String::new()),
        Stage::Proving(left) => ("proving", format!("{} checks left", left.len() + 1)),
        Stage::Ready => ("ready", String::new()),
        Stage::Failed(why) => ("failed", why.clone()),
    }
}
