//! One compile of a question: what it was sent with, and how far it is.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use potluck_model::ids::{Digest, NodeId, ToolchainId};
use potluck_wire::pool;

use crate::tree::{Closure, ConfigId, Want};

/// One compile of an ask.
pub(crate) struct Job {
    pub(crate) ask: u64,
    pub(crate) part: usize,
    pub(crate) toolchain: Option<ToolchainId>,
    pub(crate) want: Arc<Want>,
    pub(crate) config: ConfigId,
    pub(crate) closure: Arc<Closure>,
    /// What its inputs were when it was sent last.
    pub(crate) fingerprint: u64,
    /// The same for everybody whom it was sent to: one of two copies may be of older inputs.
    pub(super) sent: Vec<(NodeId, u64)>,
    /// The batch of the tree that it was last sent in.
    pub(crate) sent_in: u64,
    pub(crate) args: Vec<OsString>,
    /// Output directories: physical path, expected outputs.
    pub(crate) dirs: Vec<(PathBuf, Vec<Vec<u8>>)>,
    /// Names that a fault says are written over.
    pub(crate) extra_whiteouts: Vec<PathBuf>,
    /// Paths that a fault asked for and that do not exist.
    pub(crate) gone: Vec<Vec<u8>>,
    pub(crate) faults: Vec<Vec<u8>>,
    pub(crate) tries: u32,
    /// Runs elsewhere that came to nothing: taken back, lost.
    pub(crate) lost: u32,
    pub(crate) reruns: u32,
    pub(crate) depended: bool,
    pub(crate) peer: Option<NodeId>,
    /// Contents that must reach the peer first.
    pub(crate) uploads: Vec<Digest>,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    /// A result whose large outputs are still coming.
    pub(crate) held: Option<Box<pool::Result>>,
    pub(crate) note: String,
    /// Waits for packing, a search list or `-M`, and is not placed.
    pub(crate) parked: bool,
    /// The clock that it was sent with, seconds since 1970.
    pub(crate) clock_s: i64,
    /// Whom it was sent to last, and whether that was somebody else before: what is remembered is what the last one was asked.
    pub(crate) asked_of: Option<NodeId>,
    pub(crate) is_shared: bool,
    /// Two peers must agree before its result is used, and what the first one returned.
    pub(crate) careful: bool,
    pub(crate) first: Option<Box<super::audit::First>>,
    /// Nobody waits for it: it is compiled again to be compared, for the case of this number.
    pub(crate) audit: Option<u64>,
    /// When it got the core that it is on, and when the result came: for display only.
    pub(crate) placed_at: Duration,
    pub(crate) result_at: Duration,
}

impl Job {
    /// One that was never sent.
    pub(super) fn new(
        (ask, part): (u64, usize),
        (want, config): (Arc<Want>, ConfigId),
        (closure, fingerprint): (Arc<Closure>, u64),
        sent_in: u64,
        args: Vec<OsString>,
        dirs: Vec<(PathBuf, Vec<Vec<u8>>)>,
    ) -> Self {
        Self {
            ask,
            part,
            toolchain: None,
            want,
            config,
            closure,
            fingerprint,
            sent: Vec::new(),
            sent_in,
            args,
            dirs,
            extra_whiteouts: Vec::new(),
            gone: Vec::new(),
            faults: Vec::new(),
            tries: 0,
            lost: 0,
            reruns: 0,
            depended: false,
            peer: None,
            uploads: Vec::new(),
            bytes_up: 0,
            bytes_down: 0,
            held: None,
            note: String::new(),
            parked: false,
            clock_s: 0,
            asked_of: None,
            is_shared: false,
            careful: false,
            first: None,
            audit: None,
            placed_at: Duration::ZERO,
            result_at: Duration::ZERO,
        }
    }
    /// It goes to this peer as it is now.
    pub(super) fn note_sent(&mut self, peer: NodeId) {
        self.sent.retain(|(to, _)| *to != peer);
        self.sent.push((peer, self.fingerprint));
    }

    /// What its inputs were when it was sent to this peer.
    pub(super) fn fingerprint_at(&self, peer: NodeId) -> u64 {
        self.sent.iter().find(|(to, _)| *to == peer).map_or(self.fingerprint, |(_, was)| *was)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_judged_by_the_inputs_that_it_was_sent_with() {
        let (want, closure) = (Arc::new(Want::default()), Arc::new(Closure::default()));
        let mut job = Job::new((1, 0), (want, ConfigId::default()), (closure, 7), 1, Vec::new(), Vec::new());
        let (one, two) = (NodeId([1; 32]), NodeId([2; 32]));
        job.note_sent(one);
        // A header is saved between the two copies.
        job.fingerprint = 8;
        job.note_sent(two);
        assert_eq!((job.fingerprint_at(one), job.fingerprint_at(two)), (7, 8));
        job.note_sent(one);
        assert_eq!(job.fingerprint_at(one), 8, "sent again with what is there now");
    }
}
