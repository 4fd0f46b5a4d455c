//! The side that has slots: promises them to submitters, max-min fair, and admits what arrives. It does not decide how
//! many slots there are; that is the share policy's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fair::{level, max_min};
use super::proofs::Proofs;
use crate::ids::{JobId, NodeId, ToolchainId};
use crate::limits::{JOBS_PER_PEER_MAX, SUBMITTERS_MAX};
use crate::reason::Reason;

/// A job sent before its submitter read of a revocation arrives within this time, and is not refused for it at once.
pub const REVOKE_GRACE: Duration = Duration::from_secs(1);
/// But it waits for a slot no longer than this: elsewhere may be room.
pub const QUEUE_WAIT: Duration = Duration::from_millis(500);
/// A job that faulted keeps its slot so long: the time in which the submitter sends what it lacked.
pub const FAULT_HOLD: Duration = Duration::from_secs(1);
/// Slots that do not divide evenly go to the next submitter after this time.
pub const TURN: Duration = Duration::from_secs(5);

/// What a worker's owner and machine allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// A submitter that is this far away may have one job more here than slots, so that a slot never waits for the
    /// network. None: nobody may.
    pub ahead_rtt: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self { ahead_rtt: Some(Duration::from_millis(5)) }
    }
}

/// What happens to a worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// The share policy gives this many slots. Fewer than before: nothing that runs is touched.
    Slots(u32),
    /// A submitter's connection stands.
    SubmitterUp {
        /// Who.
        peer: NodeId,
        /// Round trip.
        rtt: Duration,
    },
    /// A submitter's connection ended: nobody wants its jobs any more.
    SubmitterDown {
        /// Who.
        peer: NodeId,
    },
    /// A submitter could use this many slots.
    Demand {
        /// Who.
        peer: NodeId,
        /// How many.
        slots: u32,
    },
    /// A job arrived.
    Arrived {
        /// From whom.
        peer: NodeId,
        /// Its number there.
        job: JobId,
    },
    /// A proof of a toolchain arrived: it needs no credit, but a slot to run in, and waits for one.
    ProofArrived {
        /// From whom.
        peer: NodeId,
        /// Its number there.
        job: JobId,
        /// What is proved.
        toolchain: ToolchainId,
    },
    /// A submitter says that a toolchain has proved itself here: no further proof of it is due.
    Proved {
        /// Who.
        peer: NodeId,
        /// Which.
        toolchain: ToolchainId,
    },
    /// A submitter does not take its results as fast as they come, or does so again: while that lasts nothing of it starts.
    Laden {
        /// Who.
        peer: NodeId,
        /// Too much waits for it.
        laden: bool,
    },
    /// A submitter takes a job back.
    Cancel {
        /// Who.
        peer: NodeId,
        /// Its number there.
        job: JobId,
    },
    /// A run is over and its processes are gone.
    Ended {
        /// Number of [`Action::Start`].
        run: u64,
        /// It touched poison and will be sent again: the slot is kept for [`FAULT_HOLD`].
        faulted: bool,
    },
    /// The owner takes the machine back: everything is killed.
    Reclaim,
    /// The owner takes a part of it back: of the runs only the oldest so many go on.
    Shed(u32),
    /// Time passed.
    Tick,
}

/// What a worker wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Tell a submitter its promise.
    Credits {
        /// Whom.
        peer: NodeId,
        /// Jobs at a time.
        slots: u32,
    },
    /// Run a job; [`Event::Ended`] follows.
    Start {
        /// Names this run; never used twice.
        run: u64,
        /// Whose job.
        peer: NodeId,
        /// Its number there.
        job: JobId,
    },
    /// Tell a submitter that its job is not run.
    Refuse {
        /// Whom.
        peer: NodeId,
        /// Its number there.
        job: JobId,
        /// Why.
        reason: Reason,
    },
    /// Kill a run; nobody wants its result. [`Event::Ended`] follows.
    Kill {
        /// Number of [`Action::Start`].
        run: u64,
    },
    /// Tell a submitter that its job is gone, because the owner is back.
    Reclaimed {
        /// Whom.
        peer: NodeId,
        /// Its number there.
        job: JobId,
    },
}

/// What a job does here.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Held {
    /// Waits for a slot, at most until then.
    Queued { seq: u64, until: Option<Duration> },
    /// Runs.
    Running(u64),
    /// Faulted; its slot waits for the next try.
    Reserved { until: Duration },
}

#[derive(Debug, Default)]
struct Submitter {
    rtt: Duration,
    demand: u32,
    promised: u32,
    /// What was promised before it was lowered, and when that was.
    before: (u32, Duration),
    jobs: BTreeMap<JobId, Held>,
    proofs: Proofs,
    /// Too many results wait for it.
    laden: bool,
}

impl Submitter {
    fn held(&self) -> u32 {
        self.jobs.len() as u32
    }

    /// What waits for a slot waits no longer than this.
    fn hurry(&mut self, soon: Duration) {
        for held in self.jobs.values_mut() {
            if let Held::Queued { until, .. } = held {
                *until = Some(until.map_or(soon, |until| until.min(soon)));
            }
        }
    }

    /// Slots that are worth something to it.
    fn wants(&self, slots: u32) -> u32 {
        if self.laden { 0 } else { self.demand.min(slots) }
    }

    fn running(&self) -> u32 {
        self.jobs.values().filter(|held| !matches!(held, Held::Queued { .. })).count() as u32
    }
}

#[derive(Clone, Copy, Debug)]
struct Run {
    peer: NodeId,
    job: JobId,
    /// Being killed: takes a slot until it is gone, but is nobody's job any more.
    unwanted: bool,
    /// It proves a toolchain.
    proof: bool,
}

/// Divides slots and admits jobs.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    slots: u32,
    submitters: BTreeMap<NodeId, Submitter>,
    runs: BTreeMap<u64, Run>,
    next_seq: u64,
    turn: usize,
    turned_at: Duration,
}

impl Worker {
    /// A worker that gives no slots yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            slots: 0,
            submitters: BTreeMap::new(),
            runs: BTreeMap::new(),
            next_seq: 0,
            turn: 0,
            turned_at: Duration::ZERO,
        }
    }

    /// Takes in what happened at `now` and appends what is to be done.
    pub fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Slots(slots) => self.set_slots(now, slots),
            Event::SubmitterUp { peer, rtt } => {
                self.submitter_down(peer, actions);
                if self.submitters.len() < SUBMITTERS_MAX {
                    self.submitters.insert(peer, Submitter { rtt, ..Submitter::default() });
                }
            }
            Event::SubmitterDown { peer } => self.submitter_down(peer, actions),
            Event::Demand { peer, slots } => {
                if let Some(submitter) = self.submitters.get_mut(&peer) {
                    submitter.demand = slots;
                }
            }
            Event::Arrived { peer, job } => self.arrived(now, peer, job, actions),
            Event::ProofArrived { peer, job, toolchain } => self.proof_arrived(peer, job, toolchain, actions),
            Event::Proved { peer, toolchain } => {
                if let Some(submitter) = self.submitters.get_mut(&peer) {
                    submitter.proofs.proved(toolchain);
                }
            }
            Event::Laden { peer, laden } => {
                if let Some(submitter) = self.submitters.get_mut(&peer) {
                    submitter.laden = laden;
                    if laden {
                        submitter.hurry(now + QUEUE_WAIT);
                    }
                }
            }
            Event::Cancel { peer, job } => {
                if let Some(submitter) = self.submitters.get_mut(&peer) {
                    let held = submitter.jobs.remove(&job);
                    submitter.proofs.remove(job);
                    self.unwanted(held, actions);
                    self.kill_proof(peer, Some(job), actions);
                }
            }
            Event::Ended { run, faulted } => self.ended(now, run, faulted),
            Event::Reclaim => self.reclaim(actions),
            Event::Shed(keep) => self.shed(keep, actions),
            Event::Tick => self.turn(now),
        }
        self.expire(now, actions);
        self.start(actions);
        self.promise(now, actions);
    }

    /// When the next [`Event::Tick`] is due at the latest, if nothing else happens.
    pub fn next_wake(&self) -> Option<Duration> {
        let waits =
            self.submitters.values().flat_map(|submitter| submitter.jobs.values()).filter_map(|held| match held {
                Held::Queued { until, .. } => *until,
                Held::Reserved { until } => Some(*until),
                Held::Running(_) => None,
            });
        waits.chain(self.is_contested().then_some(self.turned_at + TURN)).min()
    }

    /// Slots that the machine gives now.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Runs that have not ended, those being killed included.
    pub fn running(&self) -> u32 {
        self.runs.len() as u32
    }

    /// Of them those that prove a toolchain.
    pub fn proving(&self) -> u32 {
        self.runs.values().filter(|run| run.proof).count() as u32
    }

    /// Jobs of a submitter that wait or run here, and what it is promised.
    pub fn share_of(&self, peer: NodeId) -> (u32, u32) {
        self.submitters.get(&peer).map_or((0, 0), |submitter| (submitter.held(), submitter.promised))
    }

    fn set_slots(&mut self, now: Duration, slots: u32) {
        if slots < self.slots {
            // What waits was promised a slot that is gone.
            let soon = if slots == 0 { now } else { now + QUEUE_WAIT };
            self.submitters.values_mut().for_each(|submitter| submitter.hurry(soon));
        }
        self.slots = slots;
    }

    fn submitter_down(&mut self, peer: NodeId, actions: &mut Vec<Action>) {
        self.kill_proof(peer, None, actions);
        for held in self.submitters.remove(&peer).into_iter().flat_map(|submitter| submitter.jobs.into_values()) {
            self.unwanted(Some(held), actions);
        }
    }

    fn unwanted(&mut self, held: Option<Held>, actions: &mut Vec<Action>) {
        if let Some(Held::Running(run)) = held {
            self.runs.get_mut(&run).expect("a running job has a run").unwanted = true;
            actions.push(Action::Kill { run });
        }
    }

    /// Kills a submitter's proof that runs: this one, or whichever it is.
    fn kill_proof(&mut self, peer: NodeId, which: Option<JobId>, actions: &mut Vec<Action>) {
        let is_meant = |run: &Run| run.proof && run.peer == peer && which.is_none_or(|job| job == run.job);
        for (number, run) in self.runs.iter_mut().filter(|(_, run)| is_meant(run) && !run.unwanted) {
            run.unwanted = true;
            actions.push(Action::Kill { run: *number });
        }
    }

    fn proof_arrived(&mut self, peer: NodeId, job: JobId, toolchain: ToolchainId, actions: &mut Vec<Action>) {
        let refuse = |reason| Action::Refuse { peer, job, reason };
        let Some(submitter) = self.submitters.get_mut(&peer) else { return actions.push(refuse(Reason::NoFreeSlot)) };
        // A number in use, as for jobs.
        if submitter.jobs.contains_key(&job) || submitter.proofs.has(job) {
            return;
        }
        match submitter.proofs.arrived(job, toolchain, self.next_seq) {
            Ok(()) => self.next_seq += 1,
            Err(reason) => actions.push(refuse(reason)),
        }
    }

    fn arrived(&mut self, now: Duration, peer: NodeId, job: JobId, actions: &mut Vec<Action>) {
        let slots = self.slots;
        let Some(submitter) = self.submitters.get_mut(&peer) else {
            return actions.push(Action::Refuse { peer, job, reason: Reason::NoFreeSlot });
        };
        let held = submitter.held();
        let until = match submitter.jobs.get(&job) {
            // Its slot went while it was away.
            Some(Held::Reserved { .. }) if slots == 0 => {
                submitter.jobs.remove(&job);
                None
            }
            Some(Held::Reserved { .. }) => Some(None),
            // The number is in use: a fault of the submitter, which must not reach the job that has it.
            Some(_) => return,
            None if submitter.proofs.has(job) => return,
            None if slots == 0 || held as usize >= JOBS_PER_PEER_MAX => None,
            None if held < submitter.promised => Some(None),
            None if held < submitter.before.0 && now < submitter.before.1 + REVOKE_GRACE => {
                Some(Some(now + QUEUE_WAIT))
            }
            None => None,
        };
        match until {
            Some(until) => {
                submitter.jobs.insert(job, Held::Queued { seq: self.next_seq, until });
                self.next_seq += 1;
            }
            None => actions.push(Action::Refuse { peer, job, reason: Reason::NoFreeSlot }),
        }
    }

    fn ended(&mut self, now: Duration, run: u64, faulted: bool) {
        let Some(run) = self.runs.remove(&run) else { return };
        let Some(submitter) = self.submitters.get_mut(&run.peer).filter(|_| !run.unwanted) else { return };
        if run.proof {
            submitter.proofs.remove(run.job);
        } else if faulted {
            submitter.jobs.insert(run.job, Held::Reserved { until: now + FAULT_HOLD });
        } else {
            submitter.jobs.remove(&run.job);
        }
    }

    fn reclaim(&mut self, actions: &mut Vec<Action>) {
        let peers: Vec<NodeId> = self.submitters.keys().copied().collect();
        for peer in peers {
            let submitter = self.submitters.get_mut(&peer).expect("listed above");
            for (job, held) in std::mem::take(&mut submitter.jobs) {
                self.unwanted(Some(held), actions);
                actions.push(Action::Reclaimed { peer, job });
            }
            self.put_off_proof(peer, actions);
        }
    }

    /// A proof whose slot is taken back is killed, and waits to run again: nobody but this worker can run it.
    fn put_off_proof(&mut self, peer: NodeId, actions: &mut Vec<Action>) {
        self.kill_proof(peer, None, actions);
        if let Some(submitter) = self.submitters.get_mut(&peer) {
            submitter.proofs.put_off();
        }
    }

    fn shed(&mut self, keep: u32, actions: &mut Vec<Action>) {
        // Runs are numbered in order of arrival. Those being killed are nobody's any more.
        let wanted: Vec<u64> = self.runs.iter().filter(|(_, run)| !run.unwanted).map(|(number, _)| *number).collect();
        for number in wanted.into_iter().skip(keep as usize) {
            let run = self.runs.get_mut(&number).expect("listed above");
            let (peer, job) = (run.peer, run.job);
            if run.proof {
                self.put_off_proof(peer, actions);
                continue;
            }
            run.unwanted = true;
            if let Some(submitter) = self.submitters.get_mut(&peer) {
                submitter.jobs.remove(&job);
            }
            actions.push(Action::Kill { run: number });
            actions.push(Action::Reclaimed { peer, job });
        }
    }

    fn turn(&mut self, now: Duration) {
        if !self.is_contested() {
            self.turned_at = now;
        } else if now >= self.turned_at + TURN {
            self.turned_at = now;
            self.turn = self.turn.wrapping_add(1);
        }
    }

    /// More is wanted than there is, by more than one.
    fn is_contested(&self) -> bool {
        let wanting = self.submitters.values().filter(|submitter| submitter.demand > 0);
        wanting.clone().count() > 1 && wanting.clone().any(|submitter| submitter.demand > submitter.promised)
    }

    fn expire(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for (peer, submitter) in &mut self.submitters {
            submitter.jobs.retain(|job, held| match *held {
                Held::Queued { until: Some(until), .. } if now >= until => {
                    actions.push(Action::Refuse { peer: *peer, job: *job, reason: Reason::NoFreeSlot });
                    false
                }
                Held::Reserved { until } => now < until,
                _ => true,
            });
        }
    }

    /// Gives free slots to waiting jobs: of the submitter with the fewest running ones, then the oldest.
    fn start(&mut self, actions: &mut Vec<Action>) {
        loop {
            let reserved = |submitter: &Submitter| {
                submitter.jobs.values().filter(|held| matches!(held, Held::Reserved { .. })).count()
            };
            let taken = self.runs.len() + self.submitters.values().map(reserved).sum::<usize>();
            if taken >= self.slots as usize {
                return;
            }
            let queued = |submitter: &Submitter| {
                let queued = submitter.jobs.iter().filter_map(|(job, held)| match held {
                    Held::Queued { seq, .. } => Some((*seq, *job, false)),
                    _ => None,
                });
                queued.min()
            };
            // Half of the slots stay with jobs, whoever proves; a submitter proves one thing at a time.
            let may_prove = self.proving() < self.slots.div_ceil(2);
            let is_proving = |peer: NodeId| self.runs.values().any(|run| run.proof && run.peer == peer);
            let taking = self.submitters.iter().filter(|(_, submitter)| !submitter.laden);
            let next = taking.filter_map(|(peer, submitter)| {
                let proves = is_proving(*peer);
                let proof = submitter.proofs.oldest().filter(|_| may_prove && !proves);
                let proof = proof.map(|(seq, job)| (seq, job, true));
                let (seq, job, is_proof) = queued(submitter).into_iter().chain(proof).min()?;
                Some((submitter.running() + u32::from(proves), seq, *peer, job, is_proof))
            });
            let Some((_, seq, peer, job, proof)) = next.min() else { return };
            let submitter = self.submitters.get_mut(&peer).expect("found above");
            // Arrivals are numbered once, and each job is started at most once: the same number names the run. A proof that
            // was put off runs again, under a number of its own.
            let run = if proof { submitter.proofs.start(job, &mut self.next_seq) } else { seq };
            if !proof {
                submitter.jobs.insert(job, Held::Running(run));
            }
            self.runs.insert(run, Run { peer, job, unwanted: false, proof });
            actions.push(Action::Start { run, peer, job });
        }
    }

    /// One job in hand for a distant submitter that wants more than it has.
    fn ahead(&self, submitter: &Submitter, promise: u32) -> u32 {
        let far = self.config.ahead_rtt.is_some_and(|rtt| submitter.rtt >= rtt);
        u32::from(far && promise > 0 && submitter.demand > promise)
    }

    /// Recomputes all promises and tells those that changed.
    fn promise(&mut self, now: Duration, actions: &mut Vec<Action>) {
        // What proves a toolchain takes a slot that cannot be promised.
        let slots = self.slots.saturating_sub(self.proving());
        let demands: Vec<u32> = self.submitters.values().map(|submitter| submitter.wants(slots)).collect();
        let held: Vec<u32> = self.submitters.values().map(Submitter::held).collect();
        let fair = max_min(slots, &demands, self.turn);
        let ahead: Vec<u32> = self.submitters.values().zip(&fair).map(|(it, fair)| self.ahead(it, *fair)).collect();
        // Jobs beyond a share that became smaller still take slots: those are promised when they are free. A job in hand
        // is no such, or the near would pay for the far.
        let kept = |i: usize| if held[i] > fair[i] + ahead[i] { held[i] } else { held[i].min(fair[i]) };
        let kept: Vec<u32> = (0..held.len()).map(kept).collect();
        let free = slots.saturating_sub(kept.iter().sum());
        let reach = level(free, &fair, &kept, self.turn);
        let mut promises: Vec<u32> = fair.iter().zip(&reach).map(|(fair, reach)| *fair.min(reach)).collect();
        // An idle submitter has one credit as long as nobody wants it: its first job needs no round trip.
        let taken: u32 = promises.iter().zip(&held).map(|(promise, held)| promise.max(held)).sum();
        let mut spare = slots.saturating_sub(taken);
        let count = promises.len();
        let laden: Vec<bool> = self.submitters.values().map(|submitter| submitter.laden).collect();
        for i in (0..count).map(|i| (i + self.turn) % count).filter(|i| !laden[*i]) {
            if spare > 0 && demands[i] == 0 && held[i] == 0 {
                promises[i] = 1;
                spare -= 1;
            }
        }
        for (((peer, submitter), promise), ahead) in self.submitters.iter_mut().zip(promises).zip(ahead) {
            let promise = if promise > 0 { promise + ahead } else { 0 };
            if promise != submitter.promised {
                let in_grace = now < submitter.before.1 + REVOKE_GRACE;
                if promise < submitter.promised {
                    let before = submitter.promised.max(if in_grace { submitter.before.0 } else { 0 });
                    submitter.before = (before, now);
                }
                submitter.promised = promise;
                actions.push(Action::Credits { peer: *peer, slots: promise });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{PROOFS_PER_TOOLCHAIN_MAX, PROOFS_WAITING_MAX};

    fn id(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn tool(n: u8) -> ToolchainId {
        ToolchainId(crate::ids::Digest([n; 32]))
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    struct Lab {
        worker: Worker,
        now: Duration,
    }

    impl Lab {
        fn new(slots: u32, submitters: u8) -> Self {
            let mut lab = Self { worker: Worker::new(Config::default()), now: ms(0) };
            lab.on(Event::Slots(slots));
            (1..=submitters).for_each(|n| drop(lab.on(Event::SubmitterUp { peer: id(n), rtt: ms(1) })));
            lab
        }

        fn on(&mut self, event: Event) -> Vec<Action> {
            let mut actions = Vec::new();
            self.worker.handle(self.now, event, &mut actions);
            actions
        }

        fn demand(&mut self, n: u8, slots: u32) -> Vec<Action> {
            self.on(Event::Demand { peer: id(n), slots })
        }

        fn arrive(&mut self, n: u8, job: u64) -> Vec<Action> {
            self.on(Event::Arrived { peer: id(n), job: JobId(job) })
        }

        fn prove(&mut self, n: u8, job: u64, toolchain: u8) -> Vec<Action> {
            self.on(Event::ProofArrived { peer: id(n), job: JobId(job), toolchain: tool(toolchain) })
        }

        fn promised(&self, n: u8) -> u32 {
            self.worker.share_of(id(n)).1
        }
    }

    fn refusal(n: u8, job: u64) -> Action {
        Action::Refuse { peer: id(n), job: JobId(job), reason: Reason::NoFreeSlot }
    }

    #[test]
    fn an_idle_submitter_has_one_credit_until_somebody_wants_it() {
        let mut lab = Lab::new(4, 2);
        assert_eq!((lab.promised(1), lab.promised(2)), (1, 1));
        lab.demand(1, 100);
        assert_eq!((lab.promised(1), lab.promised(2)), (4, 0));
        lab.demand(2, 100);
        assert_eq!((lab.promised(1), lab.promised(2)), (2, 2));
    }

    #[test]
    fn a_newcomer_is_promised_what_the_first_one_really_leaves() {
        let mut lab = Lab::new(4, 2);
        lab.demand(1, 100);
        (0..4).for_each(|job| assert_eq!(lab.arrive(1, job).len(), 1));
        lab.demand(2, 100);
        assert_eq!((lab.promised(1), lab.promised(2)), (2, 0));
        for run in 0..2 {
            lab.on(Event::Ended { run, faulted: false });
            assert_eq!((lab.promised(1), lab.promised(2)), (2, run as u32 + 1));
        }
    }

    #[test]
    fn a_job_sent_before_a_revocation_was_read_waits_a_little_and_is_then_refused() {
        let mut lab = Lab::new(2, 2);
        lab.demand(1, 2);
        lab.arrive(1, 0);
        lab.demand(2, 2);
        assert_eq!((lab.promised(1), lab.promised(2)), (1, 1));
        assert_eq!(lab.arrive(2, 7), [Action::Start { run: 1, peer: id(2), job: JobId(7) }]);
        assert_eq!(lab.arrive(1, 1), [], "it was promised two until just now");
        assert_eq!(lab.worker.running(), 2);
        lab.now = lab.worker.next_wake().unwrap();
        assert_eq!(lab.on(Event::Tick), [refusal(1, 1)]);
        lab.now += REVOKE_GRACE;
        assert_eq!(lab.arrive(1, 2), [refusal(1, 2)], "by now it knows");
    }

    #[test]
    fn the_owner_taking_the_machine_back_leaves_nothing_running_and_nothing_waiting() {
        let mut lab = Lab::new(1, 1);
        lab.demand(1, 4);
        lab.arrive(1, 0);
        let actions = lab.on(Event::Slots(0));
        assert_eq!(actions, [Action::Credits { peer: id(1), slots: 0 }]);
        assert_eq!(lab.on(Event::Reclaim), [Action::Kill { run: 0 }, Action::Reclaimed { peer: id(1), job: JobId(0) }]);
        assert_eq!(lab.arrive(1, 1), [refusal(1, 1)]);
        lab.on(Event::Ended { run: 0, faulted: false });
        assert_eq!(lab.worker.running(), 0);
    }

    #[test]
    fn a_part_taken_back_costs_the_newest_runs() {
        let mut lab = Lab::new(3, 1);
        lab.demand(1, 8);
        (0..3).for_each(|job| drop(lab.arrive(1, job)));
        lab.on(Event::Slots(1));
        let gone = |run| [Action::Kill { run }, Action::Reclaimed { peer: id(1), job: JobId(run) }];
        assert_eq!(lab.on(Event::Shed(1)), [gone(1), gone(2)].concat());
        assert_eq!(lab.on(Event::Shed(1)), [], "once is enough");
        (1..=2).for_each(|run| drop(lab.on(Event::Ended { run, faulted: false })));
        assert_eq!((lab.worker.running(), lab.worker.share_of(id(1)).0), (1, 1));
    }

    #[test]
    fn a_faulted_job_whose_slot_went_is_refused_and_does_not_wait_for_ever() {
        let mut lab = Lab::new(1, 1);
        lab.demand(1, 1);
        lab.arrive(1, 0);
        lab.on(Event::Ended { run: 0, faulted: true });
        lab.on(Event::Slots(0));
        assert_eq!(lab.arrive(1, 0), [refusal(1, 0)]);
        assert_eq!(lab.worker.share_of(id(1)).0, 0);
    }

    #[test]
    fn a_cancelled_run_takes_its_slot_until_it_is_gone() {
        let mut lab = Lab::new(1, 1);
        lab.demand(1, 4);
        lab.arrive(1, 0);
        assert_eq!(lab.on(Event::Cancel { peer: id(1), job: JobId(0) }), [Action::Kill { run: 0 }]);
        assert_eq!(lab.arrive(1, 1), [], "promised, but waits");
        let actions = lab.on(Event::Ended { run: 0, faulted: false });
        assert_eq!(actions, [Action::Start { run: 1, peer: id(1), job: JobId(1) }]);
    }

    #[test]
    fn a_faulted_job_keeps_its_slot_for_the_next_try_but_not_for_ever() {
        let mut lab = Lab::new(1, 2);
        lab.demand(1, 1);
        lab.arrive(1, 0);
        lab.demand(2, 1);
        lab.on(Event::Ended { run: 0, faulted: true });
        let actions = lab.arrive(1, 0);
        assert_eq!(actions, [Action::Start { run: 1, peer: id(1), job: JobId(0) }]);
        lab.on(Event::Ended { run: 1, faulted: true });
        lab.now = lab.worker.next_wake().unwrap();
        lab.on(Event::Tick);
        assert_eq!(lab.worker.share_of(id(1)).0, 0);
    }

    #[test]
    fn the_odd_slot_goes_round() {
        let mut lab = Lab::new(1, 3);
        (1..=3).for_each(|n| drop(lab.demand(n, 5)));
        let mut seen = [0; 3];
        for _ in 0..9 {
            (1..=3).for_each(|n| seen[n as usize - 1] += lab.promised(n));
            lab.now = lab.worker.next_wake().unwrap();
            lab.on(Event::Tick);
        }
        assert_eq!(seen, [3, 3, 3]);
    }

    #[test]
    fn a_distant_submitter_may_have_one_job_in_hand() {
        let mut lab = Lab::new(1, 0);
        lab.on(Event::SubmitterUp { peer: id(1), rtt: ms(20) });
        lab.demand(1, 9);
        assert_eq!(lab.promised(1), 2);
        assert_eq!(lab.arrive(1, 0).len(), 1);
        assert_eq!(lab.arrive(1, 1), []);
        assert_eq!(lab.worker.running(), 1);
    }

    #[test]
    fn a_proof_takes_a_slot_and_each_submitter_proves_one_thing_at_a_time() {
        let mut lab = Lab::new(1, 2);
        let started = |actions: &[Action]| {
            let runs = actions.iter().filter_map(|a| if let Action::Start { run, .. } = a { Some(*run) } else { None });
            runs.collect::<Vec<u64>>()
        };
        let actions: Vec<Action> = (0..20).flat_map(|job| lab.prove(1, job, 9)).collect();
        let mut runs = started(&actions);
        assert_eq!((runs.len(), lab.worker.running(), lab.worker.proving()), (1, 1, 1));
        assert_eq!((lab.promised(1), lab.promised(2)), (0, 0), "the slot is taken");
        assert_eq!(lab.arrive(2, 0), [refusal(2, 0)]);
        // Whoever waited longest is next, one after the other.
        for n in 1..=20 {
            let over = Event::Ended { run: runs.pop().unwrap(), faulted: true };
            runs = started(&lab.on(over));
            assert_eq!((runs.len(), lab.worker.running()), (usize::from(n < 20), u32::from(n < 20)));
        }
        assert_eq!((lab.worker.proving(), lab.promised(1)), (0, 1));
        // With more slots the second submitter's proof does not wait for the first one's, but half is left for jobs.
        let mut lab = Lab::new(4, 3);
        (1..=3).for_each(|n| (0..2).for_each(|job| drop(lab.prove(n, job, 9))));
        assert_eq!(lab.worker.proving(), 2);
        lab.demand(1, 9);
        assert_eq!(lab.promised(1), 2);
    }

    #[test]
    fn whoever_does_not_take_its_results_gets_no_slot_until_it_does() {
        let mut lab = Lab::new(2, 2);
        lab.demand(1, 9);
        assert_eq!(lab.arrive(1, 0).len(), 1);
        lab.on(Event::Laden { peer: id(1), laden: true });
        assert_eq!((lab.promised(1), lab.promised(2)), (0, 1), "what runs goes on, and the rest is for others");
        // It was promised two until just now.
        assert!(!lab.arrive(1, 1).iter().any(|a| matches!(a, Action::Start { .. } | Action::Refuse { .. })));
        lab.prove(1, 2, 9);
        lab.on(Event::Ended { run: 0, faulted: false });
        assert_eq!(lab.worker.running(), 0);
        lab.now += QUEUE_WAIT;
        assert_eq!(lab.on(Event::Tick), [refusal(1, 1)]);
        let actions = lab.on(Event::Laden { peer: id(1), laden: false });
        assert!(matches!(actions[0], Action::Start { job: JobId(2), .. }), "{actions:?}");
        assert_eq!(lab.promised(1), 1);
    }

    #[test]
    fn a_proof_whose_slot_is_taken_back_runs_again_later() {
        let mut lab = Lab::new(1, 1);
        assert_eq!(lab.prove(1, 7, 9).last(), Some(&Action::Credits { peer: id(1), slots: 0 }));
        lab.on(Event::Slots(0));
        assert_eq!(lab.on(Event::Reclaim), [Action::Kill { run: 1 }]);
        assert_eq!(lab.on(Event::Slots(1)), [], "the old run is not gone yet");
        let actions = lab.on(Event::Ended { run: 1, faulted: false });
        assert_eq!(actions, [Action::Start { run: 2, peer: id(1), job: JobId(7) }]);
        assert_eq!(lab.on(Event::Shed(0)), [Action::Kill { run: 2 }]);
        assert_eq!(lab.on(Event::Ended { run: 2, faulted: false }).len(), 1);
        assert_eq!(lab.on(Event::SubmitterDown { peer: id(1) }), [Action::Kill { run: 3 }]);
        lab.on(Event::Ended { run: 3, faulted: false });
        assert_eq!(lab.worker.running(), 0);
    }

    #[test]
    fn no_proof_is_due_of_what_was_proved_and_none_without_end() {
        let mut lab = Lab::new(1, 1);
        let refused = |job, reason| Action::Refuse { peer: id(1), job: JobId(job), reason };
        lab.on(Event::Proved { peer: id(1), toolchain: tool(9) });
        assert_eq!(lab.prove(1, 0, 9), [refused(0, Reason::ProofRefused)]);
        for job in 0..u64::from(PROOFS_PER_TOOLCHAIN_MAX) {
            lab.prove(1, job, 8);
            lab.on(Event::Cancel { peer: id(1), job: JobId(job) });
            (0..2000).for_each(|run| drop(lab.on(Event::Ended { run, faulted: false })));
        }
        assert_eq!(lab.prove(1, 5000, 8), [refused(5000, Reason::ProofRefused)]);
        // More than wait here are refused, not forgotten.
        lab.on(Event::Slots(0));
        (0..PROOFS_WAITING_MAX as u64).for_each(|job| assert_eq!(lab.prove(1, 6000 + job, 7), []));
        assert_eq!(lab.prove(1, 7000, 7), [refused(7000, Reason::NoFreeSlot)]);
    }

    #[test]
    fn a_number_in_use_does_not_disturb_the_job_that_has_it() {
        let mut lab = Lab::new(2, 1);
        lab.demand(1, 2);
        lab.arrive(1, 0);
        assert_eq!(lab.arrive(1, 0), []);
        assert_eq!(lab.worker.running(), 1);
    }
}
