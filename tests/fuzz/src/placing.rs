//! Sequences of events on the two state machines that place jobs: a peer says what it likes whenever it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use potluck_model::ids::{Digest, JobId, NodeId, ToolchainId};
use potluck_model::limits::JOBS_PER_PEER_MAX;
use potluck_model::place::{
    Action, Arch, Compile, Config, Event, JobSpec, Outcome, PeerFacts, Submitter, Work, Worker, WorkerAction,
    WorkerConfig, WorkerEvent,
};
use potluck_model::reason::Reason;

use crate::frugal::Frugal;

const PEERS: u8 = 4;
const SLOTS: u32 = 2;
/// Longer than anything waits for anything.
const LONG: Duration = Duration::from_secs(3600);
const EVENTS_MAX: usize = 600;

/// The first byte chooses the machine.
pub fn placing(input: &[u8]) {
    let mut numbers = Frugal::new(input);
    match numbers.below(2) {
        0 => Home::new().run(numbers),
        _ => Lender::new().run(numbers),
    }
}

fn node(n: u8) -> NodeId {
    NodeId([n + 1; 32])
}

/// The submitter's surroundings: what it was told, and what it did.
struct Home {
    submitter: Submitter,
    now: Duration,
    jobs: u64,
    /// Jobs that are not over, and whether they run here.
    open: BTreeMap<JobId, bool>,
    may_local: BTreeMap<JobId, bool>,
    actions: Vec<Action>,
}

impl Home {
    fn new() -> Self {
        let config = Config { arch: Arch::X86_64, local_slots: SLOTS, local_compiles: SLOTS, ..Config::default() };
        let submitter = Submitter::new(NodeId([0; 32]), config);
        let (open, may_local) = (BTreeMap::new(), BTreeMap::new());
        Self { submitter, now: Duration::from_secs(1), jobs: 0, open, may_local, actions: Vec::new() }
    }

    fn tell(&mut self, event: Event) {
        self.submitter.handle(self.now, event, &mut self.actions);
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::RunLocal { job, .. } => {
                    assert_eq!(self.open.insert(job, true), Some(false), "{job} runs here a second time, or is over");
                    let here = self.open.values().filter(|here| **here).count();
                    assert!(here <= SLOTS as usize, "{here} jobs in {SLOTS} slots");
                    assert!(self.may_local[&job], "{job} must not run here");
                }
                Action::Fail { job, .. } => {
                    assert_eq!(self.open.remove(&job), Some(false), "{job} fails and is over already");
                    assert!(!self.may_local[&job], "{job} fails although it may run here");
                }
                Action::Send { job, peer } => {
                    assert_eq!(self.open.get(&job), Some(&false), "{job} is sent and is over");
                    assert!(self.submitter.is_up(peer), "{job} is sent to whoever is gone");
                }
                Action::CancelRemote { .. } | Action::RunLost { .. } | Action::Demand { .. } => {}
                Action::Ping { .. } | Action::PeerLost { .. } => {}
            }
        }
        for view in self.submitter.peers(self.now) {
            assert!(view.out as usize <= JOBS_PER_PEER_MAX && view.credits as usize <= JOBS_PER_PEER_MAX, "{view:?}");
        }
        if let Some(due) = self.submitter.next_wake() {
            assert!(due >= Duration::ZERO);
        }
    }

    fn run(mut self, mut numbers: Frugal<'_>) {
        for _ in 0..EVENTS_MAX {
            if numbers.is_empty() {
                break;
            }
            self.step(&mut numbers);
        }
        self.ends();
    }

    fn step(&mut self, numbers: &mut Frugal<'_>) {
        let peer = |numbers: &mut Frugal<'_>| node(numbers.below(PEERS));
        let toolchain = |numbers: &mut Frugal<'_>| ToolchainId(Digest([numbers.below(3); 32]));
        match numbers.below(16) {
            0 => {
                let (rtt, slots_max) = (Duration::from_micros(numbers.short().into()), numbers.short().into());
                let memory_bytes = u64::from(numbers.short()) << 24;
                let arch = if numbers.below(4) == 0 { Arch::Other } else { Arch::X86_64 };
                let facts = PeerFacts { rtt, bandwidth_bytes_s: numbers.short().into(), memory_bytes, arch, slots_max };
                self.tell(Event::PeerUp { peer: peer(numbers), facts });
            }
            1 => self.tell(Event::PeerExpected { peer: peer(numbers) }),
            2 => self.tell(Event::PeerDown { peer: peer(numbers) }),
            3 => self.tell(Event::Heard { peer: peer(numbers) }),
            4 => {
                let rtt = Duration::from_millis(numbers.short().into());
                let bandwidth_bytes_s = u64::from(numbers.short()) << numbers.below(48);
                self.tell(Event::Link { peer: peer(numbers), rtt, bandwidth_bytes_s });
            }
            5 | 6 => {
                let slots = if numbers.below(8) == 0 { u32::MAX } else { numbers.byte().into() };
                self.tell(Event::Credits { peer: peer(numbers), slots });
            }
            7 => self.tell(Event::Paused { peer: peer(numbers), paused: numbers.below(2) == 0 }),
            8 => {
                let ready = numbers.below(4) != 0;
                self.tell(Event::Toolchain { peer: peer(numbers), toolchain: toolchain(numbers), ready });
            }
            9 | 10 => self.job(numbers, toolchain),
            11 | 12 => {
                let (job, peer) = (JobId(u64::from(numbers.byte()) % (self.jobs + 1)), peer(numbers));
                let outcome = match numbers.below(6) {
                    0 => Outcome::Refused(Reason::PeerLost),
                    1 => Outcome::Elsewhere(Reason::PeerLost),
                    2 => Outcome::Home(Reason::PeerLost),
                    3 => Outcome::Retry,
                    _ => Outcome::Ok,
                };
                if outcome == Outcome::Ok && self.submitter.is_out(job, peer) {
                    assert_eq!(self.open.remove(&job), Some(false), "{job} is out and over");
                }
                self.tell(Event::Result { job, peer, outcome });
            }
            13 => {
                let job = JobId(u64::from(numbers.byte()) % (self.jobs + 1));
                // One that runs here is the wrapper's to end.
                if self.open.get(&job) == Some(&false) {
                    self.open.remove(&job);
                    self.tell(Event::Cancel { job });
                }
            }
            14 => self.free_one(),
            _ => {
                self.now += Duration::from_millis(u64::from(numbers.byte()) * 40);
                self.tell(Event::Tick);
            }
        }
    }

    fn job(&mut self, numbers: &mut Frugal<'_>, toolchain: impl Fn(&mut Frugal<'_>) -> ToolchainId) {
        self.jobs += 1;
        let job = JobId(self.jobs);
        let flags = numbers.byte();
        let may_local = flags & 3 != 0;
        let work = match flags & 12 {
            0 => Work::Here(Reason::Link),
            _ => Work::Anywhere(Compile {
                toolchain: toolchain(numbers),
                cpu_ms: u32::from(numbers.short()) << numbers.below(16),
                memory_bytes: u64::from(numbers.short()) << numbers.below(40),
                missing_bytes: vec![(node(numbers.below(PEERS)), u64::from(numbers.short()) << numbers.below(48))],
                may_local,
            }),
        };
        self.may_local.insert(job, may_local || matches!(work, Work::Here(_)));
        self.open.insert(job, false);
        self.tell(Event::JobReady(JobSpec { job, work }));
    }

    fn free_one(&mut self) {
        if let Some((&job, _)) = self.open.iter().find(|(_, here)| **here) {
            self.open.remove(&job);
            self.tell(Event::LocalFreed { job });
        }
    }

    /// All peers go: whatever they said before, each job runs here or fails.
    fn ends(mut self) {
        (0..PEERS).for_each(|n| self.tell(Event::PeerDown { peer: node(n) }));
        let mut rounds = 4 * self.open.len() + 8;
        while !self.open.is_empty() {
            assert!(rounds > 0, "{} jobs neither run nor fail", self.open.len());
            rounds -= 1;
            self.now += LONG;
            self.tell(Event::Tick);
            self.free_one();
        }
        assert_eq!((self.submitter.unfinished(), self.submitter.waiting(), self.submitter.running_here()), (0, 0, 0));
    }
}

/// The worker's surroundings.
struct Lender {
    worker: Worker,
    now: Duration,
    slots: u32,
    live: BTreeSet<u64>,
    used: BTreeSet<u64>,
    actions: Vec<WorkerAction>,
}

impl Lender {
    fn new() -> Self {
        let (worker, actions) = (Worker::new(WorkerConfig::default()), Vec::new());
        Self { worker, now: Duration::ZERO, slots: 0, live: BTreeSet::new(), used: BTreeSet::new(), actions }
    }

    fn tell(&mut self, event: WorkerEvent) {
        self.worker.handle(self.now, event, &mut self.actions);
        for action in std::mem::take(&mut self.actions) {
            match action {
                WorkerAction::Start { run, .. } => {
                    assert!(self.used.insert(run), "run {run} starts twice");
                    self.live.insert(run);
                    assert!(self.live.len() <= self.slots as usize, "{} runs in {} slots", self.live.len(), self.slots);
                }
                WorkerAction::Kill { run } => assert!(self.live.contains(&run), "run {run} is over and killed"),
                WorkerAction::Credits { slots, .. } => assert!(slots as usize <= JOBS_PER_PEER_MAX, "{slots} promised"),
                WorkerAction::Refuse { .. } | WorkerAction::Reclaimed { .. } => {}
            }
        }
        assert_eq!(self.worker.running() as usize, self.live.len());
    }

    fn run(mut self, mut numbers: Frugal<'_>) {
        for _ in 0..EVENTS_MAX {
            if numbers.is_empty() {
                break;
            }
            self.step(&mut numbers);
        }
        (0..PEERS).for_each(|n| self.tell(WorkerEvent::SubmitterDown { peer: node(n) }));
        while let Some(&run) = self.live.first() {
            self.live.remove(&run);
            self.tell(WorkerEvent::Ended { run, faulted: false });
        }
        self.now += LONG;
        self.tell(WorkerEvent::Tick);
        assert_eq!(self.worker.running(), 0, "nobody is there, and something runs");
    }

    fn step(&mut self, numbers: &mut Frugal<'_>) {
        let peer = node(numbers.below(PEERS));
        match numbers.below(11) {
            0 => {
                self.slots = u32::from(numbers.below(9));
                self.tell(WorkerEvent::Slots(self.slots));
            }
            1 => self.tell(WorkerEvent::SubmitterUp { peer, rtt: Duration::from_micros(numbers.short().into()) }),
            2 => self.tell(WorkerEvent::SubmitterDown { peer }),
            3 => {
                let slots = if numbers.below(8) == 0 { u32::MAX } else { numbers.byte().into() };
                self.tell(WorkerEvent::Demand { peer, slots });
            }
            4 | 5 => self.tell(WorkerEvent::Arrived { peer, job: JobId(numbers.below(32).into()) }),
            6 => self.tell(WorkerEvent::Cancel { peer, job: JobId(numbers.below(32).into()) }),
            7 => {
                let at = usize::from(numbers.byte()) % self.live.len().max(1);
                if let Some(&run) = self.live.iter().nth(at) {
                    self.live.remove(&run);
                    self.tell(WorkerEvent::Ended { run, faulted: numbers.below(2) == 0 });
                }
            }
            8 => self.tell(WorkerEvent::Reclaim),
            9 => self.tell(WorkerEvent::Shed(numbers.below(8).into())),
            _ => {
                self.now += Duration::from_millis(u64::from(numbers.byte()) * 20);
                self.tell(WorkerEvent::Tick);
            }
        }
    }
}
