//! The words that a submitter and its surroundings exchange.

use std::time::Duration;

use super::{Config, JobSpec, PeerFacts};
use crate::ids::{JobId, NodeId, ToolchainId};
use crate::reason::Reason;

/// What happens to a submitter.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A peer's connection stands. Credits and toolchains of an earlier one are void.
    PeerUp {
        /// Who.
        peer: NodeId,
        /// What is known of it.
        facts: PeerFacts,
    },
    /// A peer is being connected: jobs may wait for it up to [`EXPECT_PEER`](super::EXPECT_PEER).
    PeerExpected {
        /// Who.
        peer: NodeId,
    },
    /// A peer's connection ended.
    PeerDown {
        /// Who.
        peer: NodeId,
    },
    /// Anything was received from a peer. Credits, toolchains and results imply it.
    Heard {
        /// Who.
        peer: NodeId,
    },
    /// A peer's link was measured again.
    Link {
        /// Who.
        peer: NodeId,
        /// Round trip.
        rtt: Duration,
        /// Bytes per second towards the peer; 0 is unknown.
        bandwidth_bytes_s: u64,
    },
    /// A peer promises slots; replaces its earlier promise.
    Credits {
        /// Who.
        peer: NodeId,
        /// Jobs at a time.
        slots: u32,
    },
    /// A peer has stopped all foreign jobs (its user came back), or lets them go on.
    Paused {
        /// Who.
        peer: NodeId,
        /// Stopped.
        paused: bool,
    },
    /// A toolchain became usable on a peer, or unusable.
    Toolchain {
        /// Who.
        peer: NodeId,
        /// Which.
        toolchain: ToolchainId,
        /// Usable.
        ready: bool,
    },
    /// A job is ready to run.
    JobReady(JobSpec),
    /// A run on a peer ended. The caller asks [`Submitter::is_out`](super::Submitter::is_out) before it uses a result: of two copies the second is
    /// void.
    Result {
        /// Which job.
        job: JobId,
        /// Where.
        peer: NodeId,
        /// How.
        outcome: Outcome,
    },
    /// Nobody waits for the job any more, or it turned out to need nothing.
    Cancel {
        /// Which.
        job: JobId,
    },
    /// A job that ran here is over: its slot is free.
    LocalFreed {
        /// Which.
        job: JobId,
    },
    /// Other settings.
    Config(Config),
    /// Time passed.
    Tick,
}

/// How a run on a peer ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The outputs are in place: the job is over.
    Ok,
    /// It needed a path that it did not have, which is on its way: the same peer runs it again in the same slot.
    Retry,
    /// It is not used before another peer has made the same: it goes to one that has not had it, and nothing is held against
    /// this one. The reason is given where there is no other.
    Compare(Reason),
    /// The peer did not run it.
    Refused(Reason),
    /// The peer's user took the machine back, or the run failed for a reason of the peer's: somewhere else it may work.
    Elsewhere(Reason),
    /// Running it elsewhere again is of no use, or the result is to be compared: it runs here. A job that must not fails
    /// with this reason, so that the caller, if it has a result to show after all, reports [`Outcome::Ok`] instead.
    Home(Reason),
}

/// What a submitter wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send the job.
    Send {
        /// Which.
        job: JobId,
        /// To whom.
        peer: NodeId,
    },
    /// Tell the wrapper to run the compiler; [`Event::LocalFreed`] follows when it ended.
    RunLocal {
        /// Which.
        job: JobId,
        /// Why here.
        reason: Reason,
    },
    /// Take back a job that was sent. Its slot counts as free: messages to a peer stay in order.
    CancelRemote {
        /// Which.
        job: JobId,
        /// From whom.
        peer: NodeId,
    },
    /// What was sent there comes to nothing: the PC was taken back or lost, or could not. For whoever counts; the job is
    /// placed again by itself.
    RunLost {
        /// Which.
        job: JobId,
        /// Where.
        peer: NodeId,
        /// Why.
        reason: Reason,
    },
    /// Tell a worker how many slots could be used.
    Demand {
        /// Whom.
        peer: NodeId,
        /// How many.
        slots: u32,
    },
    /// Ask for a sign of life.
    Ping {
        /// Whom.
        peer: NodeId,
    },
    /// Silent for too long; its jobs are placed again, and the connection shall be closed. No [`Event::PeerDown`] needed.
    PeerLost {
        /// Who.
        peer: NodeId,
    },
    /// The job cannot run anywhere, and must not run here.
    Fail {
        /// Which.
        job: JobId,
        /// Why nobody else took it.
        reason: Reason,
    },
}

/// A peer for display.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerView {
    /// Who.
    pub peer: NodeId,
    /// Connected.
    pub up: bool,
    /// Slots promised to us.
    pub credits: u32,
    /// Jobs there.
    pub out: u32,
    /// Slots asked for.
    pub demand: u32,
    /// Measured speed; 1.0 is as predicted, which means as fast as this PC at its last compile.
    pub speed: f64,
    /// Refused lately and gets nothing until this time.
    pub backoff_until: Option<Duration>,
    /// Its user came back, and our jobs are stopped.
    pub paused: bool,
}
