//! A simulated pool: every node is the real state machines, the network and the compilers are a queue of timed events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use potluck_model::ids::{Digest, JobId, NodeId, ToolchainId};
use potluck_model::place::*;
use potluck_model::reason::Reason;

const TOOLCHAINS: u64 = 2;
const FAULTS_END: Duration = Duration::from_secs(40);

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What to simulate.
#[derive(Clone, Copy)]
pub struct Plan {
    pub nodes_max: u64,
    pub jobs: u64,
    pub faults: bool,
}

/// What came of it.
pub struct Report {
    pub makespan_s: f64,
    pub bound_s: f64,
    pub trace: u64,
}

#[derive(Clone, Debug)]
enum Message {
    Demand(u32),
    Job(JobId),
    Cancel(JobId),
    Ping,
    Pong,
    Credits(u32),
    Paused(bool),
    Toolchain(u64, bool),
    Result(JobId, Outcome),
}

#[derive(Clone, Debug)]
enum Happening {
    /// A message reaches `to`; void when the connection is another by then.
    Arrival {
        from: usize,
        to: usize,
        session: u64,
        to_worker: bool,
        message: Message,
    },
    TickSubmitter(usize),
    TickWorker(usize),
    RunEnds {
        node: usize,
        life: u64,
        run: u64,
    },
    LocalEnds {
        node: usize,
        job: JobId,
    },
    Connect {
        submitter: usize,
        worker: usize,
    },
    /// The submitter's end of a connection notices that it is closed.
    Closed {
        submitter: usize,
        worker: usize,
        session: u64,
    },
    /// The worker's end does.
    Dropped {
        submitter: usize,
        worker: usize,
        session: u64,
    },
    NewJobs(usize),
    Trouble(usize),
    Recover(usize),
    Inspect,
}

struct Work {
    node: usize,
    true_ms: u64,
    ended: bool,
    here: bool,
    out: BTreeMap<usize, Duration>,
    may_local: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Health {
    Well,
    Silent,
    Dead,
    OwnerBack,
}

struct Node {
    submitter: Submitter,
    worker: Worker,
    config: Config,
    speed_percent: u64,
    slots: u32,
    health: Health,
    life: u64,
    tick_submitter: Option<Duration>,
    tick_worker: Option<Duration>,
    /// Runs of this node's worker: whose, which, and whether it is being killed.
    runs: BTreeMap<u64, (usize, JobId, bool)>,
    ended_while_stopped: Vec<u64>,
    /// Messages that came while it was silent.
    backlog: Vec<Happening>,
    demand_seen: BTreeMap<usize, u32>,
    jobs_left: u64,
    parallel: u64,
    /// Its jobs that have not ended.
    active: BTreeSet<JobId>,
    /// What this submitter was told, kept apart from what it believes.
    credits: BTreeMap<usize, u32>,
    heard: BTreeMap<usize, Duration>,
    credits_gone_at: Option<Duration>,
}

pub struct Pool {
    random: Random,
    plan: Plan,
    now: Duration,
    seq: u64,
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    happenings: Vec<Option<Happening>>,
    nodes: Vec<Node>,
    submitters: usize,
    sessions: BTreeMap<(usize, usize), u64>,
    jobs: BTreeMap<JobId, Work>,
    unfinished: u64,
    work_ms: u64,
    longest_ms: u64,
    trace: u64,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Ids in no particular order, with the number at the end.
fn id(node: usize) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(node as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    *id.last_chunk_mut().unwrap() = node.to_le_bytes();
    NodeId(id)
}

/// FNV-1a over what was done when.
fn trace(mut hash: u64, now: Duration, action: &Action) -> u64 {
    let number = match action {
        Action::Send { job, .. } => 1 << 60 | job.0,
        Action::RunLocal { job, .. } => 2 << 60 | job.0,
        Action::CancelRemote { job, .. } => 3 << 60 | job.0,
        Action::Demand { slots, .. } => 4 << 60 | u64::from(*slots),
        Action::Ping { .. } => 5 << 60,
        Action::PeerLost { .. } => 6 << 60,
        Action::Fail { job, .. } => 7 << 60 | job.0,
        Action::RunLost { job, .. } => 8 << 60 | job.0,
    };
    for word in [now.as_nanos() as u64, number] {
        hash = (hash ^ word).wrapping_mul(0x100_0000_01b3);
    }
    hash
}

fn toolchain(n: u64) -> ToolchainId {
    ToolchainId(Digest::of(&n.to_le_bytes()))
}

impl Pool {
    pub fn new(seed: u64, plan: Plan) -> Self {
        let mut random = Random(seed);
        let count = random.range(1, plan.nodes_max) as usize;
        let submitters = random.range(1, 6.min(count as u64)) as usize;
        let nodes = (0..count)
            .map(|n| {
                let local_slots = random.range(1, 8) as u32;
                let some = if random.chance(40) { 0 } else { random.range(0, 4) as u32 };
                let config = Config {
                    arch: Arch::X86_64,
                    local_slots,
                    local_compiles: if plan.faults { some } else { local_slots },
                    race: random.chance(70) || !plan.faults,
                    ..Config::default()
                };
                Node {
                    submitter: Submitter::new(id(n), config.clone()),
                    worker: Worker::new(WorkerConfig::default()),
                    config,
                    speed_percent: random.range(40, 250),
                    slots: random.range(0, 16) as u32,
                    health: Health::Well,
                    life: 0,
                    tick_submitter: None,
                    tick_worker: None,
                    runs: BTreeMap::new(),
                    ended_while_stopped: Vec::new(),
                    backlog: Vec::new(),
                    demand_seen: BTreeMap::new(),
                    jobs_left: if n < submitters { plan.jobs / submitters as u64 } else { 0 },
                    parallel: if plan.faults { random.range(1, 150) } else { plan.jobs },
                    active: BTreeSet::new(),
                    credits: BTreeMap::new(),
                    heard: BTreeMap::new(),
                    credits_gone_at: None,
                }
            })
            .collect();
        let mut pool = Self {
            random,
            plan,
            now: ms(0),
            seq: 0,
            queue: BinaryHeap::new(),
            happenings: Vec::new(),
            nodes,
            submitters,
            sessions: BTreeMap::new(),
            jobs: BTreeMap::new(),
            unfinished: (plan.jobs / submitters as u64) * submitters as u64,
            work_ms: 0,
            longest_ms: 0,
            trace: seed,
        };
        pool.begin();
        pool
    }

    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            let slots = self.nodes[node].slots;
            self.worker(node, WorkerEvent::Slots(slots));
            for submitter in (0..self.submitters).filter(|s| *s != node) {
                let delay = ms(self.random.below(300));
                self.after(delay, Happening::Connect { submitter, worker: node });
            }
            if self.plan.faults {
                let delay = ms(self.random.range(200, 20_000));
                self.after(delay, Happening::Trouble(node));
            }
        }
        for node in 0..self.submitters {
            let delay = ms(self.random.below(2000));
            self.after(delay, Happening::NewJobs(node));
        }
        self.after(ms(250), Happening::Inspect);
    }

    fn after(&mut self, delay: Duration, what: Happening) {
        self.happenings.push(Some(what));
        self.seq += 1;
        self.queue.push(Reverse((self.now + delay, self.seq, self.happenings.len() - 1)));
    }

    pub fn run(mut self) -> Report {
        while self.unfinished > 0 {
            let Reverse((at, _, index)) = self.queue.pop().expect("jobs are left, and nothing will happen any more");
            self.now = at;
            let what = self.happenings[index].take().expect("each happens once");
            self.happen(what);
            // Some minutes of work on the slowest machine, and the troubles before it.
            assert!(self.now < Duration::from_secs(3600), "do not end: {:#?}", self.stuck(None));
        }
        for node in &self.nodes[..self.submitters] {
            assert_eq!(node.submitter.unfinished(), 0);
        }
        assert!(self.jobs.values().all(|work| work.ended && work.out.is_empty()));
        let there = self.nodes.iter().map(|n| f64::from(n.slots) * n.speed_percent as f64 / 100.0);
        let speed: f64 = there.sum::<f64>()
            + self.nodes[..self.submitters].iter().map(|n| f64::from(n.config.local_slots)).sum::<f64>();
        let fastest = self.nodes.iter().map(|n| n.speed_percent).max().unwrap_or(100).max(100) as f64 / 100.0;
        let work_s = self.work_ms as f64 / 1000.0;
        Report {
            makespan_s: self.now.as_secs_f64(),
            bound_s: (work_s / speed).max(self.longest_ms as f64 / 1000.0 / fastest) + 2.0,
            trace: self.trace,
        }
    }

    /// Some jobs and the pool around them, for the message of a failure.
    fn stuck(&self, node: Option<usize>) -> Vec<String> {
        let concerned = |work: &Work| !work.ended && node.is_none_or(|node| node == work.node);
        let stuck = self.jobs.iter().filter(|(_, work)| concerned(work)).take(5);
        stuck
            .map(|(job, work)| {
                let peers: Vec<_> = self.nodes[work.node].submitter.peers(self.now).collect();
                format!(
                    "{job} of {}: here {}, out {:?}, may {} peers {peers:?}",
                    work.node, work.here, work.out, work.may_local
                )
            })
            .collect()
    }

    fn happen(&mut self, what: Happening) {
        let frozen = |pool: &Self, node: usize| pool.nodes[node].health == Health::Silent;
        match what {
            Happening::Arrival { to, .. } if frozen(self, to) => self.nodes[to].backlog.push(what),
            Happening::Dropped { worker, .. } if frozen(self, worker) => self.nodes[worker].backlog.push(what),
            Happening::Arrival { from, to, session, to_worker, message } => {
                let link = if to_worker { (from, to) } else { (to, from) };
                if self.sessions.get(&link) == Some(&session) {
                    if to_worker { self.at_worker(to, from, message) } else { self.at_submitter(to, from, message) }
                }
            }
            Happening::TickSubmitter(node) if self.nodes[node].tick_submitter == Some(self.now) => {
                self.nodes[node].tick_submitter = None;
                self.submitter(node, Event::Tick);
            }
            Happening::TickWorker(node) if self.nodes[node].tick_worker == Some(self.now) => {
                self.nodes[node].tick_worker = None;
                self.worker(node, WorkerEvent::Tick);
            }
            Happening::TickSubmitter(_) | Happening::TickWorker(_) => {}
            Happening::RunEnds { node, life, run } if self.nodes[node].life == life => match self.nodes[node].health {
                Health::Silent | Health::OwnerBack => self.nodes[node].ended_while_stopped.push(run),
                _ => self.run_ends(node, run),
            },
            Happening::RunEnds { .. } => {}
            Happening::LocalEnds { node, job } => {
                if !self.jobs[&job].ended {
                    self.end(job);
                    self.submitter(node, Event::LocalFreed { job });
                }
            }
            Happening::Connect { submitter, worker } => self.connect(submitter, worker),
            Happening::Closed { submitter, worker, session } => {
                if self.sessions.get(&(submitter, worker)) == Some(&session) {
                    self.forget(submitter, worker);
                    self.submitter(submitter, Event::PeerDown { peer: id(worker) });
                    self.reconnect(submitter, worker);
                }
            }
            Happening::Dropped { submitter, worker, session } => {
                // A newer connection has replaced the worker's end already.
                let newer = self.sessions.get(&(submitter, worker)).is_some_and(|now| *now > session);
                if !newer && self.nodes[worker].health != Health::Dead {
                    self.nodes[worker].demand_seen.remove(&submitter);
                    self.worker(worker, WorkerEvent::SubmitterDown { peer: id(submitter) });
                }
            }
            Happening::NewJobs(node) => self.new_jobs(node),
            Happening::Trouble(node) => self.trouble(node),
            Happening::Recover(node) => self.recover(node),
            Happening::Inspect => self.inspect(),
        }
    }

    fn rtt(&self, a: usize, b: usize) -> Duration {
        let (low, high) = (a.min(b) as u64, a.max(b) as u64);
        // Mostly a LAN, now and then somebody at home.
        if (low * 7 + high) % 11 == 0 { ms(24) } else { Duration::from_micros(300 + (low + high) % 5 * 200) }
    }

    fn send(&mut self, from: usize, to: usize, to_worker: bool, message: Message) {
        let link = if to_worker { (from, to) } else { (to, from) };
        if let Some(&session) = self.sessions.get(&link) {
            let delay = self.rtt(from, to) / 2;
            self.after(delay, Happening::Arrival { from, to, session, to_worker, message });
        }
    }

    fn connect(&mut self, submitter: usize, worker: usize) {
        if matches!(self.nodes[worker].health, Health::Dead | Health::Silent) {
            return self.reconnect(submitter, worker);
        }
        self.seq += 1;
        self.sessions.insert((submitter, worker), self.seq);
        let rtt = self.rtt(submitter, worker);
        self.nodes[worker].demand_seen.insert(submitter, 0);
        self.worker(worker, WorkerEvent::SubmitterUp { peer: id(submitter), rtt });
        let now = self.now;
        self.nodes[submitter].heard.insert(worker, now);
        self.nodes[submitter].credits.insert(worker, 0);
        let arch = if self.plan.faults && worker % 13 == 12 { Arch::Aarch64 } else { Arch::X86_64 };
        let slots_max = self.nodes[worker].slots;
        let facts = PeerFacts { rtt, bandwidth_bytes_s: 0, memory_bytes: 16 << 30, arch, slots_max };
        self.submitter(submitter, Event::PeerUp { peer: id(worker), facts });
        // The first promise was made before the connection counted here.
        let (_, promised) = self.nodes[worker].worker.share_of(id(submitter));
        self.send(worker, submitter, false, Message::Credits(promised));
        for n in 0..TOOLCHAINS {
            let ready = !self.plan.faults || self.random.chance(90);
            self.send(worker, submitter, false, Message::Toolchain(n, ready));
        }
    }

    fn reconnect(&mut self, submitter: usize, worker: usize) {
        let delay = ms(self.random.range(500, 3000));
        self.after(delay, Happening::Connect { submitter, worker });
        if self.random.chance(30) {
            self.submitter(submitter, Event::PeerExpected { peer: id(worker) });
        }
    }

    /// The submitter's end is gone: what was out there is no longer.
    fn forget(&mut self, submitter: usize, worker: usize) {
        self.sessions.remove(&(submitter, worker));
        self.nodes[submitter].credits.remove(&worker);
        for work in self.jobs.values_mut().filter(|work| work.node == submitter) {
            work.out.remove(&worker);
        }
    }

    /// Jobs of a node that have not ended.
    fn mine(&self, node: usize) -> impl Iterator<Item = &Work> + Clone {
        self.nodes[node].active.iter().map(|job| &self.jobs[job])
    }

    fn new_jobs(&mut self, node: usize) {
        while self.nodes[node].jobs_left > 0 && (self.nodes[node].active.len() as u64) < self.nodes[node].parallel {
            self.nodes[node].jobs_left -= 1;
            let job = JobId(self.jobs.len() as u64);
            self.nodes[node].active.insert(job);
            let true_ms = match self.random.below(10) {
                0 => self.random.range(3000, 15_000),
                1..=3 => self.random.range(20, 200),
                _ => self.random.range(200, 3000),
            };
            let link = self.plan.faults && self.random.chance(4);
            let may_local = link || !self.random.chance(3);
            let predicted = true_ms * self.random.range(50, 180) / 100;
            self.work_ms += true_ms;
            self.longest_ms = self.longest_ms.max(true_ms);
            let work = if link {
                Work::Here(Reason::Link)
            } else {
                Work::Anywhere(Compile {
                    toolchain: toolchain(self.random.below(TOOLCHAINS)),
                    cpu_ms: if self.random.chance(10) { 0 } else { predicted as u32 },
                    memory_bytes: if self.random.chance(5) { self.random.range(1, 20) << 30 } else { 300 << 20 },
                    missing_bytes: Vec::new(),
                    may_local,
                })
            };
            use potluck_model::place::Work;
            let entry = self::Work { node, true_ms, ended: false, here: false, out: BTreeMap::new(), may_local };
            self.jobs.insert(job, entry);
            self.submitter(node, Event::JobReady(JobSpec { job, work }));
            if self.plan.faults && self.random.chance(1) && !self.jobs[&job].ended {
                // The user pressed Ctrl-C. A job that runs here ends by itself then.
                if !self.jobs[&job].here {
                    self.end(job);
                    self.submitter(node, Event::Cancel { job });
                }
            }
        }
    }

    fn end(&mut self, job: JobId) {
        let work = self.jobs.get_mut(&job).unwrap();
        assert!(!work.ended, "job {job} ended twice");
        work.ended = true;
        self.unfinished -= 1;
        assert!(self.nodes[work.node].active.remove(&job));
        let (node, delay) = (work.node, ms(self.random.below(20)));
        self.after(delay, Happening::NewJobs(node));
    }

    fn submitter(&mut self, node: usize, event: Event) {
        let mut actions = Vec::new();
        let now = self.now;
        self.nodes[node].submitter.handle(now, event, &mut actions);
        for action in actions {
            self.trace = trace(self.trace, now, &action);
            self.submitter_acts(node, action);
        }
        let wake = self.nodes[node].submitter.next_wake();
        if wake != self.nodes[node].tick_submitter {
            self.nodes[node].tick_submitter = wake;
            if let Some(at) = wake {
                self.nodes[node].tick_submitter = Some(at.max(now));
                self.after(at.saturating_sub(now), Happening::TickSubmitter(node));
            }
        }
    }

    fn number(&self, peer: NodeId) -> usize {
        usize::from_le_bytes(*peer.0.last_chunk().unwrap())
    }

    fn submitter_acts(&mut self, node: usize, action: Action) {
        let now = self.now;
        match action {
            Action::Send { job, peer } => {
                let peer = self.number(peer);
                let out = self.mine(node).filter(|work| work.out.contains_key(&peer)).count();
                let credits = self.nodes[node].credits.get(&peer).copied().unwrap_or(0);
                assert!((out as u32) < credits, "node {node} has {out} jobs on {peer} and {credits} credits");
                let work = self.jobs.get_mut(&job).unwrap();
                assert!(!work.ended && !work.here, "job {job} is over or here");
                assert!(work.out.len() < 2 && work.out.insert(peer, now).is_none());
                self.send(node, peer, true, Message::Job(job));
            }
            Action::RunLocal { job, .. } => {
                let work = self.jobs.get_mut(&job).unwrap();
                assert!(!work.ended && !work.here && work.may_local, "job {job} must not run here now");
                assert!(work.out.is_empty(), "job {job} runs here and elsewhere");
                work.here = true;
                let delay = ms(work.true_ms);
                self.after(delay, Happening::LocalEnds { node, job });
                let here = self.mine(node).filter(|work| work.here).count();
                assert!(here as u32 <= self.nodes[node].config.local_slots);
            }
            Action::CancelRemote { job, peer } => {
                let peer = self.number(peer);
                assert!(self.jobs.get_mut(&job).unwrap().out.remove(&peer).is_some());
                self.send(node, peer, true, Message::Cancel(job));
            }
            Action::RunLost { .. } => {}
            Action::Demand { peer, slots } => self.send(node, self.number(peer), true, Message::Demand(slots)),
            Action::Ping { peer } => self.send(node, self.number(peer), true, Message::Ping),
            Action::PeerLost { peer } => {
                let peer = self.number(peer);
                let session = self.sessions[&(node, peer)];
                self.forget(node, peer);
                self.after(ms(1), Happening::Dropped { submitter: node, worker: peer, session });
                let delay = ms(self.random.range(500, 3000));
                self.after(delay, Happening::Connect { submitter: node, worker: peer });
            }
            Action::Fail { job, .. } => {
                let work = &self.jobs[&job];
                assert!(!work.may_local && work.out.is_empty() && !work.here);
                self.end(job);
            }
        }
    }

    fn at_submitter(&mut self, node: usize, from: usize, message: Message) {
        self.nodes[node].heard.insert(from, self.now);
        let peer = id(from);
        let event = match message {
            Message::Pong => Event::Heard { peer },
            Message::Credits(slots) => {
                self.nodes[node].credits.insert(from, slots);
                if slots > 0 {
                    self.nodes[node].credits_gone_at = None;
                }
                Event::Credits { peer, slots }
            }
            Message::Paused(paused) => Event::Paused { peer, paused },
            Message::Toolchain(n, ready) => Event::Toolchain { peer, toolchain: toolchain(n), ready },
            Message::Result(job, outcome) => {
                assert_eq!(
                    self.nodes[node].submitter.is_out(job, peer),
                    self.jobs[&job].out.contains_key(&from) && !self.jobs[&job].ended,
                );
                if !self.nodes[node].submitter.is_out(job, peer) {
                    return self.submitter(node, Event::Heard { peer });
                }
                match outcome {
                    Outcome::Ok => {
                        // A second copy is taken back by the event; the job itself is over.
                        self.jobs.get_mut(&job).unwrap().out.remove(&from);
                        self.end(job);
                    }
                    Outcome::Retry => self.send(node, from, true, Message::Job(job)),
                    _ => drop(self.jobs.get_mut(&job).unwrap().out.remove(&from)),
                }
                Event::Result { job, peer, outcome }
            }
            other => panic!("not for a submitter: {other:?}"),
        };
        self.submitter(node, event);
    }

    fn worker(&mut self, node: usize, event: WorkerEvent) {
        let mut actions = Vec::new();
        let now = self.now;
        self.nodes[node].worker.handle(now, event, &mut actions);
        for action in actions {
            match action {
                WorkerAction::Credits { peer, slots } => {
                    self.send(node, self.number(peer), false, Message::Credits(slots))
                }
                WorkerAction::Start { run, peer, job } => {
                    assert!(self.nodes[node].worker.running() <= self.nodes[node].worker.slots());
                    let peer = self.number(peer);
                    assert!(self.nodes[node].runs.insert(run, (peer, job, false)).is_none());
                    let delay = ms(self.jobs[&job].true_ms * 100 / self.nodes[node].speed_percent);
                    let life = self.nodes[node].life;
                    self.after(delay, Happening::RunEnds { node, life, run });
                }
                WorkerAction::Refuse { peer, job, reason } => {
                    self.send(node, self.number(peer), false, Message::Result(job, Outcome::Refused(reason)));
                }
                WorkerAction::Kill { run } => {
                    self.nodes[node].runs.get_mut(&run).unwrap().2 = true;
                    let life = self.nodes[node].life;
                    self.after(ms(1), Happening::RunEnds { node, life, run });
                }
                WorkerAction::Reclaimed { peer, job } => {
                    let outcome = Outcome::Elsewhere(Reason::PeerReclaimed);
                    self.send(node, self.number(peer), false, Message::Result(job, outcome));
                }
            }
        }
        self.check_fairness(node);
        let wake = self.nodes[node].worker.next_wake();
        if wake != self.nodes[node].tick_worker {
            self.nodes[node].tick_worker = wake.map(|at| at.max(now));
            if let Some(at) = wake {
                self.after(at.saturating_sub(now), Happening::TickWorker(node));
            }
        }
    }

    fn check_fairness(&self, node: usize) {
        let worker = &self.nodes[node].worker;
        let shares: Vec<(u32, u32, u32)> = self.nodes[node]
            .demand_seen
            .iter()
            .map(|(peer, demand)| (*demand, worker.share_of(id(*peer)).0, worker.share_of(id(*peer)).1))
            .collect();
        // What runs beyond a lowered promise is not taken away; then the others wait for it.
        if shares.iter().any(|(_, held, promised)| held > promised) {
            return;
        }
        // One of them may come from being far away.
        let highest = shares.iter().map(|(_, _, promised)| *promised).max().unwrap_or(0);
        for (demand, _, promised) in &shares {
            assert!(promised >= demand || promised + 2 >= highest, "unfair at node {node}: {shares:?}");
        }
        let total: u32 = shares.iter().map(|(_, _, promised)| promised).sum();
        assert!(total <= worker.slots() + shares.len() as u32);
    }

    fn at_worker(&mut self, node: usize, from: usize, message: Message) {
        let peer = id(from);
        match message {
            Message::Demand(slots) => {
                // After a restart nobody is known until the old connection was noticed to be gone.
                self.nodes[node].demand_seen.entry(from).and_modify(|demand| *demand = slots);
                self.worker(node, WorkerEvent::Demand { peer, slots });
            }
            Message::Job(job) if self.plan.faults && self.random.chance(1) => {
                let outcome = Outcome::Refused(Reason::SandboxUnavailable);
                self.send(node, from, false, Message::Result(job, outcome));
            }
            Message::Job(job) => self.worker(node, WorkerEvent::Arrived { peer, job }),
            Message::Cancel(job) => self.worker(node, WorkerEvent::Cancel { peer, job }),
            Message::Ping => self.send(node, from, false, Message::Pong),
            other => panic!("not for a worker: {other:?}"),
        }
    }

    fn run_ends(&mut self, node: usize, run: u64) {
        let Some((peer, job, killed)) = self.nodes[node].runs.remove(&run) else { return };
        let outcome = match self.random.below(if self.plan.faults { 100 } else { 1 }) {
            0..94 => Outcome::Ok,
            94..97 => Outcome::Retry,
            97 => Outcome::Elsewhere(Reason::OutOfMemory),
            98 => Outcome::Elsewhere(Reason::LimitHit),
            _ => Outcome::Home(Reason::RemoteErrorLocalError),
        };
        if !killed {
            self.send(node, peer, false, Message::Result(job, outcome.clone()));
        }
        self.worker(node, WorkerEvent::Ended { run, faulted: outcome == Outcome::Retry });
    }

    fn trouble(&mut self, node: usize) {
        if self.now > FAULTS_END {
            return;
        }
        let healthy = self.nodes[node].health == Health::Well;
        match self.random.below(6) {
            // A power cut: nobody is told. A crash: the connections are closed.
            kind @ (0 | 1) if healthy && node >= self.submitters => {
                let fresh = Worker::new(WorkerConfig::default());
                let it = &mut self.nodes[node];
                (it.health, it.worker, it.tick_worker, it.life) = (Health::Dead, fresh, None, it.life + 1);
                it.runs.clear();
                it.ended_while_stopped.clear();
                it.demand_seen.clear();
                let links: Vec<_> =
                    self.sessions.iter().filter(|((_, w), _)| *w == node).map(|(k, v)| (*k, *v)).collect();
                for ((submitter, worker), session) in links {
                    let delay = self.rtt(submitter, worker) / 2;
                    // Without a word it is noticed when it is back at the latest, by the reset of the old connection.
                    let delay = if kind == 0 { delay } else { Duration::from_secs(60) };
                    self.after(delay, Happening::Closed { submitter, worker, session });
                }
                let delay = ms(self.random.range(100, 15_000));
                self.after(delay, Happening::Recover(node));
            }
            2 if healthy && node >= self.submitters => {
                self.nodes[node].health = Health::Silent;
                let delay = ms(self.random.range(100, 8000));
                self.after(delay, Happening::Recover(node));
            }
            3 if healthy => {
                self.nodes[node].health = Health::OwnerBack;
                self.worker(node, WorkerEvent::Slots(0));
                self.tell_paused(node, true);
                if self.random.chance(50) {
                    self.reclaim(node);
                }
                let delay = ms(self.random.range(100, 10_000));
                self.after(delay, Happening::Recover(node));
            }
            4 if healthy => {
                let slots = self.random.below(u64::from(self.nodes[node].slots) + 1) as u32;
                self.worker(node, WorkerEvent::Slots(slots));
            }
            5 if healthy => {
                let (n, ready) = (self.random.below(TOOLCHAINS), self.random.chance(70));
                for submitter in 0..self.submitters {
                    self.send(node, submitter, false, Message::Toolchain(n, ready));
                }
            }
            _ => {}
        }
        let delay = ms(self.random.range(500, 15_000));
        self.after(delay, Happening::Trouble(node));
    }

    fn tell_paused(&mut self, node: usize, paused: bool) {
        for submitter in 0..self.submitters {
            self.send(node, submitter, false, Message::Paused(paused));
        }
    }

    fn reclaim(&mut self, node: usize) {
        self.worker(node, WorkerEvent::Reclaim);
    }

    fn recover(&mut self, node: usize) {
        let was = std::mem::replace(&mut self.nodes[node].health, Health::Well);
        if matches!(was, Health::Dead | Health::OwnerBack) {
            let slots = self.nodes[node].slots;
            self.worker(node, WorkerEvent::Slots(slots));
            self.tell_paused(node, false);
        }
        if was == Health::Dead {
            let links: Vec<_> = self.sessions.iter().filter(|((_, w), _)| *w == node).map(|(k, v)| (*k, *v)).collect();
            for ((submitter, worker), session) in links {
                self.after(ms(1), Happening::Closed { submitter, worker, session });
            }
        }
        for what in std::mem::take(&mut self.nodes[node].backlog) {
            self.happen(what);
        }
        for run in std::mem::take(&mut self.nodes[node].ended_while_stopped) {
            self.run_ends(node, run);
        }
        self.worker(node, WorkerEvent::Tick);
    }

    /// What must hold at any moment, looked at four times a second.
    fn inspect(&mut self) {
        let now = self.now;
        let slack = ms(20);
        for node in 0..self.submitters {
            let mut oldest: BTreeMap<usize, Duration> = BTreeMap::new();
            for (peer, sent) in self.mine(node).flat_map(|work| &work.out) {
                oldest.entry(*peer).and_modify(|at| *at = (*at).min(*sent)).or_insert(*sent);
            }
            for (peer, sent) in oldest {
                let silence = now - self.nodes[node].heard[&peer].max(sent);
                assert!(silence <= Duration::from_secs(2) + slack, "node {node} waits {silence:?} for silent {peer}");
            }
            // With a slot free here and none promised anywhere nobody may wait for long.
            let usable = self.nodes[node].credits.values().any(|slots| *slots > 0);
            let here = self.mine(node).filter(|work| work.here).count() as u32;
            let idle_here = here < self.nodes[node].config.local_slots;
            let waits = self.mine(node).any(|work| work.may_local && !work.here && work.out.is_empty());
            if usable || !idle_here || !waits {
                self.nodes[node].credits_gone_at = None;
            } else {
                let since = *self.nodes[node].credits_gone_at.get_or_insert(now);
                let limit = Duration::from_secs(2) + slack;
                assert!(now - since <= limit, "node {node} starves beside free slots: {:#?}", self.stuck(Some(node)));
            }
        }
        if self.unfinished > 0 {
            self.after(ms(250), Happening::Inspect);
        }
    }
}
