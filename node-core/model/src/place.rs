//! Where jobs run: the submitter that binds ready jobs to credits, and the worker that divides its slots among
//! submitters. State machines without IO or clock: events in, actions out, and `now` is the time since the node's start.
//!
//! Both sides are driven the same way: `handle(now, event, &mut actions)` for everything that happens, and
//! `Event::Tick` no later than `next_wake()`. The same code runs in a node and in a simulation of many.

mod demand;
mod dispatch;
mod events;
mod fair;
mod peer;
mod proofs;
mod submitter;
mod worker;

use std::time::Duration;

pub use events::{Action, Event, Outcome, PeerView};
pub use fair::max_min;
pub use submitter::Submitter;
pub use worker::{Action as WorkerAction, Config as WorkerConfig, Event as WorkerEvent, Worker};

use crate::ids::{JobId, NodeId, ToolchainId};
use crate::reason::Reason;

/// A job waits this long for a peer that is being connected.
pub const EXPECT_PEER: Duration = Duration::from_secs(2);
/// Jobs on a worker that has stopped them go elsewhere after this time: with the worker's own delay, under 2 s.
pub const PAUSE_MAX: Duration = Duration::from_millis(1500);
/// First delay after a refusal; it doubles with every further one ...
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// ... up to this.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A second of waiting counts as this part of a second of predicted work, so that a stream of long jobs cannot hold
/// back a short one for ever.
pub const AGING_DIVISOR: i64 = 4;
/// Demand falls only after this time: the gap between two jobs of one build must not cost a round trip.
pub const DEMAND_LINGER: Duration = Duration::from_millis(500);
/// A run is not copied before this age: shorter ones end sooner than the copy is sent.
pub const RACE_AGE_MIN: Duration = Duration::from_secs(1);

/// The processor family that a node's programs are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Arch {
    /// x86_64.
    X86_64,
    /// aarch64.
    Aarch64,
    /// Any other; never equal to the submitter's for the purpose of placing.
    Other,
}

impl Arch {
    /// Reads the name that a hello carries.
    pub fn from_name(name: &str) -> Self {
        match name {
            "x86_64" => Self::X86_64,
            "aarch64" => Self::Aarch64,
            _ => Self::Other,
        }
    }

    /// Whether programs of `self` run on a machine of `other`.
    pub fn runs_on(self, other: Self) -> bool {
        self == other && self != Self::Other
    }
}

/// What a submitter knows of a peer when the connection stands.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PeerFacts {
    /// Measured round trip.
    pub rtt: Duration,
    /// Bytes per second towards the peer; 0 is unknown.
    pub bandwidth_bytes_s: u64,
    /// Memory of the machine; 0 is unknown.
    pub memory_bytes: u64,
    /// Its processor family.
    pub arch: Arch,
    /// Slots that it would give at most.
    pub slots_max: u32,
}

/// What a submitter's user and machine allow.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// This machine's family, which is also that of its toolchains.
    pub arch: Arch,
    /// Everything that runs here at a time.
    pub local_slots: u32,
    /// Compiles that may run here by choice, although they could travel. 0 keeps them off this PC while there is a pool.
    pub local_compiles: u32,
    /// A job that may run here does so when no peer has promised any slot for this long.
    pub slot_wait: Duration,
    /// A job that may not run here fails when no peer has promised any slot for this long.
    pub strict_wait: Duration,
    /// A run that takes longer is given up and comes home: the worker's wall limit and something for the way.
    pub run_max: Duration,
    /// Idle slots run a second copy of the slowest job at the tail of a build.
    pub race: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            arch: Arch::Other,
            local_slots: 1,
            local_compiles: 1,
            slot_wait: Duration::from_secs(2),
            strict_wait: Duration::from_secs(10),
            run_max: Duration::from_millis(crate::limits::JobLimits::default().wall_ms) + Duration::from_secs(30),
            race: true,
        }
    }
}

/// What a job asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Work {
    /// It cannot travel: it waits for a local slot, before all that could.
    Here(Reason),
    /// It may be compiled by any worker with the toolchain.
    Anywhere(Compile),
    /// The same, by some of them only. The reason is given where none of these can.
    Chosen(Compile, Hosts, Reason),
}

/// Which peers a job may go to.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Hosts {
    /// All.
    #[default]
    All,
    /// All but these: they have compiled it already.
    Except(Vec<NodeId>),
    /// These alone: a person named them.
    Only(Vec<NodeId>),
}

impl Hosts {
    /// Whether it may go to this one.
    pub fn allow(&self, peer: NodeId) -> bool {
        match self {
            Self::All => true,
            Self::Except(peers) => !peers.contains(&peer),
            Self::Only(peers) => peers.contains(&peer),
        }
    }
}

/// A compile that may travel.
#[derive(Clone, PartialEq, Debug)]
pub struct Compile {
    /// What compiles it.
    pub toolchain: ToolchainId,
    /// Predicted CPU time on this machine in milliseconds; 0 is unknown.
    pub cpu_ms: u32,
    /// Predicted peak memory; 0 is unknown.
    pub memory_bytes: u64,
    /// Bytes that a peer lacks; peers that are not named lack nothing.
    pub missing_bytes: Vec<(NodeId, u64)>,
    /// False: `POTLUCK_FALLBACK=0`, fail rather than compile here.
    pub may_local: bool,
}

/// A job that is ready to run.
#[derive(Clone, PartialEq, Debug)]
pub struct JobSpec {
    /// Its number; never used twice.
    pub job: JobId,
    /// What it asks for.
    pub work: Work,
}
