//! When the mirrors that others keep here are read whole, and what was found in them that nobody sent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use potluck_model::ids::NodeId;
use potluck_model::limits::SCRUB_EVERY;
use potluck_model::share::State;
use serde_json::{Value, json};

use super::Core;
use crate::bytes;
use crate::mirror::scrub::Looked;

/// How long a find is a problem: a disk that rots does it again within a day of use.
const SHOWN: Duration = Duration::from_secs(24 * 3600);

/// Passes over mirrors, and what they found.
#[derive(Default)]
pub(super) struct Scrub {
    /// When each open mirror was last read whole: by what opened it, or by a pass.
    read: HashMap<NodeId, Instant>,
    /// A pass goes on.
    running: Option<NodeId>,
    passes: u64,
    bytes: u64,
    /// Files and names that were not what was sent, since the start of the node.
    rotten: u64,
    /// The last of them, and when it was found.
    last: Option<(String, Instant)>,
}

impl Scrub {
    /// What was found lately, in a sentence.
    pub(super) fn lately(&self) -> Option<String> {
        let (last, _) = self.last.as_ref().filter(|(_, at)| at.elapsed() < SHOWN)?;
        let count = self.rotten;
        let files = if count == 1 { "One file".to_owned() } else { format!("{count} files") };
        Some(format!(
            "{files} that others keep here changed on the disk, {last} last. They are fetched anew before any job uses \
             them. If nobody changed them, the disk or the memory of this computer is failing."
        ))
    }
}

impl Core {
    /// Begins a pass where one is due and nobody needs the PC. Costs nothing where none is.
    pub(super) fn scrub(&mut self) {
        let shared = &self.sharing.shared;
        let idle = matches!(shared.decision.state, State::Giving)
            && !shared.on_battery
            && self.worker.running() == 0
            && self.submitter.running_here() == 0;
        self.guests.idle().set(idle);
        if !idle || self.scrub.running.is_some() {
            return;
        }
        let now = Instant::now();
        for peer in self.guests.open_mirrors() {
            let read = *self.scrub.read.entry(peer).or_insert(now);
            if now.duration_since(read) >= SCRUB_EVERY {
                self.scrub.running = Some(peer);
                return self.guests.pass(peer);
            }
        }
    }

    /// A mirror was looked at.
    pub(super) fn mirror_looked_at(&mut self, peer: NodeId, looked: &Looked, is_pass_over: bool) {
        if is_pass_over {
            self.scrub.running = None;
            self.scrub.read.insert(peer, Instant::now());
            self.scrub.passes += 1;
        }
        self.scrub.bytes += looked.bytes;
        for path in &looked.rotten {
            crate::log::warn(&format!("{} of {} had changed on the disk", bytes::show(path), peer.short()));
        }
        if let Some(last) = looked.rotten.last() {
            self.scrub.rotten += looked.rotten.len() as u64;
            self.scrub.last = Some((bytes::show(last), Instant::now()));
            self.tell_watchers();
        }
    }

    /// No pass goes on for a guest that is over.
    pub(super) fn scrub_over(&mut self, peer: NodeId) {
        self.scrub.read.remove(&peer);
        if self.scrub.running == Some(peer) {
            self.scrub.running = None;
        }
    }

    /// For `status`.
    pub(super) fn scrub_status(&self) -> Value {
        let scrub = &self.scrub;
        json!({
            "passes": scrub.passes,
            "bytes": scrub.bytes,
            "rotten": scrub.rotten,
            "last": scrub.last.as_ref().map(|(path, _)| path),
        })
    }
}
