//! The side that has jobs: what it knows, and what each event changes. Choosing is in `dispatch`, asking in `demand`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::demand::Need;
use super::events::{Action, Event, Outcome, PeerView};
use super::peer::{Life, Peer, Speed};
use super::{AGING_DIVISOR, Compile, Config, EXPECT_PEER, Hosts, JobSpec, PAUSE_MAX, PeerFacts, Work};
use crate::ids::{JobId, NodeId, ToolchainId};
use crate::limits::{JOBS_PER_PEER_MAX, PEER_TRIES_MAX, PING_BUSY};
use crate::reason::Reason;

/// Peers that are remembered. The team has at most 200 PCs; beyond it those that are down are forgotten.
const PEERS_MAX: usize = 512;
/// Toolchains that peers may announce before a job asks for them.
const TOOLCHAINS_MAX: usize = 256;
/// A tick that comes this late means that this PC itself stood still (suspend, SIGSTOP): silence proves nothing then.
const OWN_STALL: Duration = Duration::from_secs(1);
/// Prediction for the first jobs of which nothing is known: the median of C and C++ projects.
const PREDICTION_FIRST: Duration = Duration::from_millis(700);

/// Order of waiting jobs: aged prediction (negated), then arrival.
pub(super) type Key = (i64, u64, JobId);

/// Jobs of one toolchain that wait for a place.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) toolchain: ToolchainId,
    pub(super) keys: BTreeSet<Key>,
    /// Those of `keys` that must not run here.
    pub(super) strict: usize,
    /// Runs on peers.
    pub(super) out: u32,
    /// Last time that a job of it waited or ran elsewhere.
    pub(super) active_at: Duration,
    /// Since when it is without a longer pause.
    pub(super) active_since: Duration,
    /// A peer with the toolchain promises slots.
    pub(super) granted: bool,
    /// Last time that `granted` held.
    pub(super) granted_at: Duration,
}

impl Queue {
    /// Since when nobody promised any slot although jobs were there.
    pub(super) fn starved_from(&self) -> Duration {
        self.active_since.max(self.granted_at)
    }
}

/// A job's stay on one peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) peer: NodeId,
    pub(super) sent_at: Duration,
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// In its toolchain's queue, free to go anywhere.
    Waiting,
    /// In the home queue: only a local slot will do.
    Home(Reason),
    /// On a peer, perhaps with a second copy on another.
    Out(Run, Option<Run>),
    /// In a local slot.
    Here {
        /// Counts against `local_compiles`.
        choice: bool,
        /// Since when.
        since: Duration,
    },
}

/// The travelling side of a job.
#[derive(Debug)]
pub(super) struct Travel {
    pub(super) queue: usize,
    pub(super) key: Key,
    pub(super) predicted: Duration,
    pub(super) memory_bytes: u64,
    pub(super) missing_bytes: Vec<(NodeId, u64)>,
    pub(super) may_local: bool,
    pub(super) tries: u32,
    pub(super) refused: u32,
    pub(super) failed_on: Vec<NodeId>,
    pub(super) hosts: Hosts,
    pub(super) last_reason: Option<Reason>,
    /// Since when it waits for a busy peer although a slower one was free.
    pub(super) held_back: Option<Duration>,
}

impl Travel {
    /// Whether it may go to this peer (again).
    pub(super) fn may_go_to(&self, peer: NodeId) -> bool {
        !self.failed_on.contains(&peer) && self.hosts.allow(peer)
    }

    /// Whether it may go to some peers only.
    fn is_choosy(&self) -> bool {
        !self.failed_on.is_empty() || self.hosts != Hosts::All
    }

    pub(super) fn missing(&self, peer: NodeId) -> u64 {
        self.missing_bytes.iter().find(|(id, _)| *id == peer).map_or(0, |(_, bytes)| *bytes)
    }
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) seq: u64,
    /// Since when it is in `state`, if that is `Waiting` or `Home`.
    pub(super) since: Duration,
    pub(super) state: State,
    /// None: it cannot travel.
    pub(super) travel: Option<Travel>,
}

/// Binds ready jobs to credits, as late as possible.
#[derive(Debug)]
pub struct Submitter {
    pub(super) me: NodeId,
    pub(super) config: Config,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) queues: Vec<Queue>,
    /// Jobs that wait for a local slot and nothing else, in order of arrival.
    pub(super) home: BTreeSet<(u64, JobId)>,
    /// Waiting jobs that failed on some peer: few, and looked at one by one.
    pub(super) burnt: BTreeSet<JobId>,
    pub(super) local_running: u32,
    pub(super) local_choices: u32,
    pub(super) local_speed: Speed,
    pub(super) need: Need,
    /// Moving average of what a job takes.
    pub(super) typical: Duration,
    next_seq: u64,
    ticked_at: Duration,
    due: Option<Duration>,
}

impl Submitter {
    /// A submitter without peers and jobs.
    pub fn new(me: NodeId, config: Config) -> Self {
        Self {
            me,
            config,
            peers: BTreeMap::new(),
            jobs: BTreeMap::new(),
            queues: Vec::new(),
            home: BTreeSet::new(),
            burnt: BTreeSet::new(),
            local_running: 0,
            local_choices: 0,
            local_speed: Speed::UNKNOWN,
            need: Need::default(),
            typical: PREDICTION_FIRST,
            next_seq: 0,
            ticked_at: Duration::ZERO,
            due: None,
        }
    }

    /// Takes in what happened at `now` and appends what is to be done. Events that no longer apply (a result of a
    /// copy that was taken back, a peer that is gone) change nothing.
    pub fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) {
        for queue in self.queues.iter_mut().filter(|queue| queue.granted) {
            queue.granted_at = now;
        }
        if self.due.is_some_and(|due| now > due + OWN_STALL) {
            self.peers.values_mut().filter(|peer| peer.up).for_each(|peer| peer.heard(now));
        }
        match event {
            Event::PeerUp { peer, facts } => self.peer_up(now, peer, facts, actions),
            Event::PeerExpected { peer } => self.peer_expected(now, peer),
            Event::PeerDown { peer } => self.peer_gone(now, peer, actions),
            Event::Heard { peer } => drop(self.heard(now, peer)),
            Event::Link { peer, rtt, bandwidth_bytes_s } => {
                if let Some(peer) = self.heard(now, peer) {
                    peer.facts = PeerFacts { rtt, bandwidth_bytes_s, ..peer.facts };
                }
            }
            Event::Credits { peer, slots } => {
                if let Some(peer) = self.heard(now, peer) {
                    // No honest worker takes more than this.
                    peer.credits = slots.min(JOBS_PER_PEER_MAX as u32);
                }
            }
            Event::Paused { peer, paused } => {
                if let Some(peer) = self.heard(now, peer) {
                    peer.paused_since = paused.then(|| peer.paused_since.unwrap_or(now));
                }
            }
            // What a peer announces must not make us grow without end; own jobs always have their toolchain known.
            Event::Toolchain { toolchain, ready, .. } if !self.is_worth_knowing(toolchain, ready) => {}
            Event::Toolchain { peer, toolchain, ready } => {
                let index = self.queue_index(toolchain);
                if let Some(peer) = self.heard(now, peer) {
                    if peer.ready.len() <= index {
                        peer.ready.resize(index + 1, false);
                    }
                    peer.ready[index] = ready;
                }
            }
            Event::JobReady(spec) => self.job_ready(now, spec),
            Event::Result { job, peer, outcome } => {
                self.heard(now, peer);
                if self.is_out(job, peer) {
                    self.result(now, job, peer, outcome, actions);
                }
            }
            Event::Cancel { job } => self.cancel(job, actions),
            Event::LocalFreed { job } => self.local_freed(now, job),
            Event::Config(config) => self.config = config,
            Event::Tick => self.tick(now, actions),
        }
        self.dispatch(now, actions);
        self.refresh(now);
        self.ask(now, actions);
        self.due = self.next_wake_after(now);
    }

    /// When the next [`Event::Tick`] is due at the latest, if nothing else happens.
    pub fn next_wake(&self) -> Option<Duration> {
        self.due
    }

    /// Whether a result of this job from this peer is still wanted.
    pub fn is_out(&self, job: JobId, peer: NodeId) -> bool {
        match self.jobs.get(&job).map(|job| &job.state) {
            Some(State::Out(first, second)) => first.peer == peer || second.is_some_and(|run| run.peer == peer),
            _ => false,
        }
    }

    /// Jobs that wait for a place, here or elsewhere.
    pub fn waiting(&self) -> usize {
        self.home.len() + self.queues.iter().map(|queue| queue.keys.len()).sum::<usize>()
    }

    /// Whether this peer has a link here and is watched.
    pub fn is_up(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.up)
    }

    /// Jobs in local slots.
    pub fn running_here(&self) -> u32 {
        self.local_running
    }

    /// All jobs that are not over.
    pub fn unfinished(&self) -> usize {
        self.jobs.len()
    }

    /// How fast a peer is, 1 being this PC; None: too little was measured there or here.
    pub fn speed_of(&self, peer: NodeId) -> Option<f64> {
        let there = self.peers.get(&peer)?.speed;
        (there.is_measured() && self.local_speed.is_measured()).then(|| there.factor / self.local_speed.factor)
    }

    /// Known peers, in order of id.
    pub fn peers(&self, now: Duration) -> impl Iterator<Item = PeerView> {
        self.peers.iter().map(move |(id, peer)| PeerView {
            peer: *id,
            up: peer.up,
            credits: peer.credits,
            out: peer.out.len() as u32,
            demand: peer.demand_sent,
            speed: peer.speed.factor,
            backoff_until: Some(peer.backoff_until()).filter(|until| *until > now),
            paused: peer.paused_since.is_some(),
        })
    }

    fn heard(&mut self, now: Duration, peer: NodeId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(&peer).filter(|peer| peer.up)?;
        peer.heard(now);
        Some(peer)
    }

    fn peer_entry(&mut self, peer: NodeId) -> &mut Peer {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, peer| peer.up);
        }
        let me = self.me;
        self.peers.entry(peer).or_insert_with(|| Peer::new(me, peer))
    }

    fn peer_up(&mut self, now: Duration, peer: NodeId, facts: PeerFacts, actions: &mut Vec<Action>) {
        self.peer_gone(now, peer, actions);
        self.peer_entry(peer).connect(now, facts);
        self.need.order_stale();
    }

    fn peer_expected(&mut self, now: Duration, peer: NodeId) {
        let entry = self.peer_entry(peer);
        if !entry.up {
            entry.expected_until = now + EXPECT_PEER;
        }
    }

    fn peer_gone(&mut self, now: Duration, peer: NodeId, actions: &mut Vec<Action>) {
        let Some(entry) = self.peers.get_mut(&peer).filter(|entry| entry.up) else { return };
        let out: Vec<JobId> = entry.out.keys().copied().collect();
        entry.disconnect();
        self.need.order_stale();
        for job in out {
            self.run_failed(now, job, peer, Reason::PeerLost, true, actions);
        }
    }

    fn is_worth_knowing(&self, toolchain: ToolchainId, ready: bool) -> bool {
        ready && self.queues.len() < TOOLCHAINS_MAX || self.queues.iter().any(|queue| queue.toolchain == toolchain)
    }

    pub(super) fn queue_index(&mut self, toolchain: ToolchainId) -> usize {
        self.queues.iter().position(|queue| queue.toolchain == toolchain).unwrap_or_else(|| {
            self.queues.push(Queue {
                toolchain,
                keys: BTreeSet::new(),
                strict: 0,
                out: 0,
                active_at: Duration::ZERO,
                active_since: Duration::ZERO,
                granted: false,
                granted_at: Duration::ZERO,
            });
            self.queues.len() - 1
        })
    }

    fn job_ready(&mut self, now: Duration, JobSpec { job, work }: JobSpec) {
        if self.jobs.contains_key(&job) {
            return;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        match work {
            Work::Here(reason) => {
                self.home.insert((seq, job));
                self.jobs.insert(job, Job { seq, since: now, state: State::Home(reason), travel: None });
            }
            Work::Anywhere(compile) => self.compile_ready(now, seq, job, compile, (Hosts::All, None)),
            Work::Chosen(compile, hosts, reason) => self.compile_ready(now, seq, job, compile, (hosts, Some(reason))),
        }
    }

    fn compile_ready(
        &mut self,
        now: Duration,
        seq: u64,
        job: JobId,
        compile: Compile,
        (hosts, reason): (Hosts, Option<Reason>),
    ) {
        let travel = Travel { hosts, last_reason: reason, ..self.travel(now, seq, job, compile) };
        let queue = &mut self.queues[travel.queue];
        let idle = queue.keys.is_empty() && queue.out == 0;
        if idle && now > queue.active_at + EXPECT_PEER || queue.active_since.is_zero() {
            queue.active_since = now;
        }
        self.jobs.insert(job, Job { seq, since: now, state: State::Waiting, travel: Some(travel) });
        self.enqueue(now, job);
    }

    fn travel(&mut self, now: Duration, seq: u64, job: JobId, compile: Compile) -> Travel {
        let predicted = match compile.cpu_ms {
            0 => self.typical,
            ms => Duration::from_millis(ms.into()),
        };
        Travel {
            queue: self.queue_index(compile.toolchain),
            key: (now.as_micros() as i64 / AGING_DIVISOR - predicted.as_micros() as i64, seq, job),
            predicted,
            memory_bytes: compile.memory_bytes,
            missing_bytes: compile.missing_bytes,
            may_local: compile.may_local,
            tries: 0,
            refused: 0,
            failed_on: Vec::new(),
            hosts: Hosts::All,
            last_reason: None,
            held_back: None,
        }
    }

    /// Puts a job that may travel into its queue.
    fn enqueue(&mut self, now: Duration, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(travel) = &job.travel else { return };
        (job.state, job.since) = (State::Waiting, now);
        let queue = &mut self.queues[travel.queue];
        queue.keys.insert(travel.key);
        queue.strict += usize::from(!travel.may_local);
        if travel.is_choosy() {
            self.burnt.insert(id);
        }
    }

    /// Takes a waiting job out of the queue that it is in.
    pub(super) fn dequeue(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        self.home.remove(&(job.seq, id));
        self.burnt.remove(&id);
        if let Some(travel) = &job.travel {
            let queue = &mut self.queues[travel.queue];
            if queue.keys.remove(&travel.key) {
                queue.strict -= usize::from(!travel.may_local);
            }
        }
    }

    /// A job that is in no queue shall run here; if it must not, it fails.
    pub(super) fn send_home(&mut self, now: Duration, id: JobId, reason: Reason, actions: &mut Vec<Action>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.travel.as_ref().is_none_or(|travel| travel.may_local) {
            (job.state, job.since) = (State::Home(reason), now);
            self.home.insert((job.seq, id));
        } else {
            self.jobs.remove(&id);
            actions.push(Action::Fail { job: id, reason });
        }
    }

    /// Frees the slot of one run.
    fn release(&mut self, id: JobId, peer: NodeId) {
        let Some(travel) = self.jobs.get(&id).and_then(|job| job.travel.as_ref()) else { return };
        self.queues[travel.queue].out -= 1;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.remove(id, travel.memory_bytes);
        }
    }

    /// Takes back all runs of a job but the one at `keep`.
    fn recall(&mut self, id: JobId, keep: Option<NodeId>, actions: &mut Vec<Action>) {
        let Some(State::Out(first, second)) = self.jobs.get(&id).map(|job| job.state.clone()) else { return };
        for run in [Some(first), second].into_iter().flatten().filter(|run| Some(run.peer) != keep) {
            self.release(id, run.peer);
            actions.push(Action::CancelRemote { job: id, peer: run.peer });
        }
    }

    fn result(&mut self, now: Duration, id: JobId, at: NodeId, outcome: Outcome, actions: &mut Vec<Action>) {
        match outcome {
            Outcome::Ok => {
                self.recall(id, Some(at), actions);
                self.release(id, at);
                self.learn(now, id, at);
                self.jobs.remove(&id);
            }
            Outcome::Retry => {
                if let Some(State::Out(first, second)) = self.jobs.get_mut(&id).map(|job| &mut job.state) {
                    let run = [Some(first), second.as_mut()].into_iter().flatten().find(|run| run.peer == at);
                    run.expect("is_out was asked").sent_at = now;
                }
            }
            Outcome::Compare(reason) => {
                self.learn(now, id, at);
                self.one_more(now, id, at, reason);
            }
            Outcome::Refused(reason) => {
                if let Some(peer) = self.peers.get_mut(&at) {
                    peer.refused(now);
                }
                let counts = reason != Reason::NoFreeSlot;
                self.run_failed(now, id, at, reason, counts, actions);
            }
            Outcome::Elsewhere(reason) => self.run_failed(now, id, at, reason, true, actions),
            Outcome::Home(reason) => {
                self.recall(id, Some(at), actions);
                self.release(id, at);
                self.send_home(now, id, reason, actions);
            }
        }
    }

    fn learn(&mut self, now: Duration, id: JobId, at: NodeId) {
        let Some(Job { state: State::Out(first, second), travel: Some(travel), .. }) = self.jobs.get(&id) else {
            return;
        };
        let run = if first.peer == at { *first } else { second.unwrap_or(*first) };
        if let Some(peer) = self.peers.get_mut(&at) {
            let elapsed = now.saturating_sub(run.sent_at);
            let transit = peer.transit(travel.missing(at));
            peer.speed.learn(travel.predicted, elapsed.saturating_sub(transit));
            peer.succeeded();
            self.typical = (self.typical * 15 + elapsed) / 16;
        }
    }

    /// One run of a job is over, and another peer's is wanted beside it.
    fn one_more(&mut self, now: Duration, id: JobId, at: NodeId, reason: Reason) {
        self.release(id, at);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Out(first, second) = job.state.clone() else { return };
        let Some(travel) = &mut job.travel else { return };
        travel.failed_on.push(at);
        travel.last_reason = Some(reason);
        let left = if first.peer == at { second } else { Some(first) };
        match left {
            Some(run) => job.state = State::Out(run, None),
            None => self.enqueue(now, id),
        }
    }

    /// One run of a job is over without a result. `counts`: the peer had its chance, so that it does not get the job
    /// again. A refusal for want of a slot does not count, but many of them end the journey too.
    fn run_failed(
        &mut self,
        now: Duration,
        id: JobId,
        at: NodeId,
        reason: Reason,
        counts: bool,
        actions: &mut Vec<Action>,
    ) {
        self.release(id, at);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Out(first, second) = job.state.clone() else { return };
        let Some(travel) = &mut job.travel else { return };
        if counts {
            actions.push(Action::RunLost { job: id, peer: at, reason: reason.clone() });
            travel.tries += 1;
            travel.failed_on.push(at);
        } else {
            travel.refused += 1;
        }
        travel.last_reason = Some(reason.clone());
        let worn_out = travel.tries >= PEER_TRIES_MAX || travel.may_local && travel.refused >= PEER_TRIES_MAX;
        let left = if first.peer == at { second } else { Some(first) };
        if let Some(run) = left {
            job.state = State::Out(run, None);
        } else if worn_out {
            self.send_home(now, id, reason, actions);
        } else {
            self.enqueue(now, id);
        }
    }

    fn cancel(&mut self, id: JobId, actions: &mut Vec<Action>) {
        self.dequeue(id);
        self.recall(id, None, actions);
        if let Some(Job { state: State::Here { choice, .. }, .. }) = self.jobs.remove(&id) {
            self.leave_local(choice);
        }
    }

    fn local_freed(&mut self, now: Duration, id: JobId) {
        let Some(State::Here { choice, since }) = self.jobs.get(&id).map(|job| job.state.clone()) else { return };
        self.leave_local(choice);
        if let Some(travel) = self.jobs.remove(&id).and_then(|job| job.travel) {
            let elapsed = now.saturating_sub(since);
            self.local_speed.learn(travel.predicted, elapsed);
            self.typical = (self.typical * 15 + elapsed) / 16;
        }
    }

    fn leave_local(&mut self, choice: bool) {
        self.local_running -= 1;
        self.local_choices -= u32::from(choice);
    }

    fn tick(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.ticked_at = now;
        let ids: Vec<NodeId> = self.peers.iter().filter(|(_, peer)| peer.up).map(|(id, _)| *id).collect();
        // Whoever is to be asked soon is asked together with one that is due: one wake for all of them, not one for each.
        let is_due = self.peers.values().any(|peer| peer.up && now >= peer.ping_at());
        let early = if is_due { PING_BUSY / 2 } else { Duration::ZERO };
        for id in ids {
            let peer = self.peers.get_mut(&id).expect("listed above, and tick removes none");
            match peer.life(now, early) {
                Life::Well => {}
                Life::PingDue => {
                    peer.pinged(now);
                    actions.push(Action::Ping { peer: id });
                }
                Life::Lost => {
                    actions.push(Action::PeerLost { peer: id });
                    self.peer_gone(now, id, actions);
                    continue;
                }
            }
            let paused = peer.paused_since.is_some_and(|since| now >= since + PAUSE_MAX);
            let out: Vec<JobId> = peer.out.keys().copied().collect();
            for job in out {
                if paused {
                    actions.push(Action::CancelRemote { job, peer: id });
                    self.run_failed(now, job, id, Reason::PeerReclaimed, true, actions);
                } else if self.run_of(job, id).is_some_and(|run| now >= run.sent_at + self.config.run_max) {
                    self.recall(job, None, actions);
                    self.send_home(now, job, Reason::Timeout, actions);
                }
            }
        }
        if self.config.race {
            self.race(now, actions);
        }
    }

    fn run_of(&self, job: JobId, at: NodeId) -> Option<Run> {
        match self.jobs.get(&job)?.state {
            State::Out(first, _) if first.peer == at => Some(first),
            State::Out(_, second) => second.filter(|run| run.peer == at),
            _ => None,
        }
    }

    /// Brings what depends on peers and time up to date, after everything that could be placed is.
    fn refresh(&mut self, now: Duration) {
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if !queue.keys.is_empty() || queue.out > 0 {
                queue.active_at = now;
            }
            queue.granted = self.peers.values().any(|peer| peer.can_serve(self.config.arch, index) && peer.grants(now));
            if queue.granted {
                queue.granted_at = now;
            }
        }
    }

    fn next_wake_after(&self, now: Duration) -> Option<Duration> {
        let anyone_waits = self.queues.iter().any(|queue| !queue.keys.is_empty());
        let up = self.peers.values().filter(|peer| peer.up);
        let lives = up.clone().map(|peer| peer.ping_at().min(peer.lost_at()));
        // Also gives time to overdue runs, races and suspicions.
        let busy = self.queues.iter().any(|queue| queue.out > 0).then_some(self.ticked_at + PING_BUSY);
        let paused = up
            .clone()
            .filter(|peer| !peer.out.is_empty())
            .filter_map(|peer| peer.paused_since.map(|at| at + PAUSE_MAX));
        let backoffs = up.filter(|_| anyone_waits).map(Peer::backoff_until);
        let expected = self.peers.values().filter(|peer| anyone_waits && !peer.up).map(|peer| peer.expected_until);
        let starved = self.queues.iter().filter(|queue| !queue.keys.is_empty() && !queue.granted).flat_map(|queue| {
            let from = queue.starved_from();
            let strict = queue.keys.iter().filter(|_| queue.strict > 0).filter_map(|key| self.jobs.get(&key.2));
            let strict =
                strict.flat_map(move |job| [EXPECT_PEER, self.config.strict_wait].map(|w| job.since.max(from) + w));
            [from + self.config.slot_wait, from + EXPECT_PEER].into_iter().chain(strict)
        });
        let burnt =
            self.burnt.iter().filter_map(|id| self.jobs.get(id)).flat_map(|job| {
                [self.config.slot_wait, self.config.strict_wait, EXPECT_PEER].map(|wait| job.since + wait)
            });
        let needs = self.need.wake().into_iter().chain(self.peers.values().filter_map(super::demand::wake));
        // What is due already waits for something else than time.
        let later =
            backoffs.chain(paused).chain(expected).chain(starved).chain(burnt).chain(needs).filter(|at| *at > now);
        lives.chain(busy).map(|at| at.max(now)).chain(later).min()
    }
}
