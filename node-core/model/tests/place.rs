//! What a submitter promises, one story each.

use std::time::Duration;

use potluck_model::ids::{Digest, JobId, NodeId, ToolchainId};
use potluck_model::limits::{JOBS_PER_PEER_MAX, LOST_BUSY};
use potluck_model::place::*;
use potluck_model::reason::Reason;

struct Lab {
    submitter: Submitter,
    now: Duration,
    next_job: u64,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn peer(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn gcc() -> ToolchainId {
    ToolchainId(Digest::of(b"gcc"))
}

/// No compile runs here by choice.
fn all_away() -> Config {
    Config { arch: Arch::X86_64, local_slots: 2, local_compiles: 0, ..Config::default() }
}

fn send(job: u64, to: u8) -> Action {
    Action::Send { job: JobId(job), peer: peer(to) }
}

fn here(job: u64, reason: Reason) -> Action {
    Action::RunLocal { job: JobId(job), reason }
}

fn run_lost(job: u64, n: u8, reason: Reason) -> Action {
    Action::RunLost { job: JobId(job), peer: peer(n), reason }
}

impl Lab {
    fn new(config: Config) -> Self {
        Self { submitter: Submitter::new(peer(0), config), now: ms(1000), next_job: 0 }
    }

    /// What is done about an event, demands and pings left out.
    fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.submitter.handle(self.now, event, &mut actions);
        actions.retain(|action| !matches!(action, Action::Demand { .. } | Action::Ping { .. }));
        actions
    }

    fn facts(&self) -> PeerFacts {
        let memory_bytes = 8 << 30;
        PeerFacts { rtt: ms(1), bandwidth_bytes_s: 0, memory_bytes, arch: Arch::X86_64, slots_max: 8 }
    }

    fn up(&mut self, n: u8) {
        let facts = self.facts();
        self.on(Event::PeerUp { peer: peer(n), facts });
        self.on(Event::Toolchain { peer: peer(n), toolchain: gcc(), ready: true });
    }

    fn credits(&mut self, n: u8, slots: u32) -> Vec<Action> {
        self.on(Event::Credits { peer: peer(n), slots })
    }

    fn compile(&mut self, cpu_ms: u32) -> Vec<Action> {
        self.job(cpu_ms, true)
    }

    fn job(&mut self, cpu_ms: u32, may_local: bool) -> Vec<Action> {
        let compile = Compile { toolchain: gcc(), cpu_ms, memory_bytes: 1 << 28, missing_bytes: Vec::new(), may_local };
        self.ready(Work::Anywhere(compile))
    }

    fn ready(&mut self, work: Work) -> Vec<Action> {
        let job = JobId(self.next_job);
        self.next_job += 1;
        self.on(Event::JobReady(JobSpec { job, work }))
    }

    /// Lets a peer do jobs of a second in this time.
    fn teach(&mut self, n: u8, measured_ms: u64) {
        for _ in 0..12 {
            let job = self.next_job;
            self.credits(n, 1);
            assert_eq!(self.compile(1000), [send(job, n)]);
            self.credits(n, 0);
            self.now += ms(measured_ms);
            self.result(job, n, Outcome::Ok);
        }
    }

    fn result(&mut self, job: u64, n: u8, outcome: Outcome) -> Vec<Action> {
        self.on(Event::Result { job: JobId(job), peer: peer(n), outcome })
    }

    /// Ticks whenever asked for, until something is done or `for_ms` passed; peers in `alive` answer all the time.
    fn wait(&mut self, for_ms: u64, alive: &[u8]) -> Vec<Action> {
        let end = self.now + ms(for_ms);
        loop {
            let wake = self.submitter.next_wake().unwrap_or(end).min(end);
            self.now = wake.max(self.now);
            let mut actions = self.on(Event::Tick);
            for n in alive {
                actions.extend(self.on(Event::Heard { peer: peer(*n) }));
            }
            if !actions.is_empty() || self.now >= end {
                return actions;
            }
        }
    }
}

#[test]
fn the_longest_job_goes_first_and_equals_in_order_of_arrival() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    for cpu_ms in [300, 900, 300, 2000] {
        assert_eq!(lab.compile(cpu_ms), []);
    }
    assert_eq!(lab.credits(1, 3), [send(3, 1), send(1, 1), send(0, 1)]);
    assert_eq!(lab.result(3, 1, Outcome::Ok), [send(2, 1)]);
}

#[test]
fn a_short_job_is_not_held_back_for_ever_by_a_stream_of_long_ones() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    lab.credits(1, 1);
    lab.compile(1000);
    lab.compile(10);
    for job in 2..60 {
        lab.compile(1000);
        let out = if job == 2 { 0 } else { job - 1 };
        lab.now += ms(500);
        if lab.result(out, 1, Outcome::Ok) == [send(1, 1)] {
            return;
        }
    }
    panic!("it never ran");
}

#[test]
fn the_faster_peer_gets_the_job() {
    let mut lab = Lab::new(all_away());
    (1..=2).for_each(|n| lab.up(n));
    lab.teach(1, 2000);
    lab.teach(2, 400);
    lab.credits(1, 1);
    let job = lab.next_job;
    assert_eq!(lab.credits(2, 1), []);
    assert_eq!(lab.compile(1000), [send(job, 2)]);
}

#[test]
fn bytes_that_must_be_sent_first_count_as_time() {
    let mut lab = Lab::new(all_away());
    (1..=2).for_each(|n| lab.up(n));
    (1..=2).for_each(|n| drop(lab.credits(n, 8)));
    for lacking in [1, 2] {
        let missing_bytes = vec![(peer(lacking), 200 << 20)];
        let compile = Compile { toolchain: gcc(), cpu_ms: 500, memory_bytes: 0, missing_bytes, may_local: true };
        let job = lab.next_job;
        assert_eq!(lab.ready(Work::Anywhere(compile)), [send(job, 3 - lacking)]);
    }
}

#[test]
fn what_cannot_travel_has_the_local_slots_before_what_can() {
    let mut lab = Lab::new(Config { local_compiles: 2, ..all_away() });
    assert_eq!(lab.compile(100), [here(0, Reason::NoPeers)]);
    assert_eq!(lab.compile(100), [here(1, Reason::NoPeers)]);
    assert_eq!(lab.compile(100), []);
    assert_eq!(lab.ready(Work::Here(Reason::Link)), []);
    assert_eq!(lab.on(Event::LocalFreed { job: JobId(0) }), [here(3, Reason::Link)]);
    assert_eq!(lab.on(Event::LocalFreed { job: JobId(1) }), [here(2, Reason::NoPeers)]);
}

#[test]
fn free_local_slots_take_part_when_that_is_faster_or_the_pool_is_full() {
    let mut lab = Lab::new(Config { local_compiles: 1, ..all_away() });
    lab.up(1);
    lab.credits(1, 1);
    assert_eq!(lab.compile(500), [here(0, Reason::FasterHere)]);
    assert_eq!(lab.compile(500), [send(1, 1)]);
    assert_eq!(lab.compile(500), []);
    lab.now += ms(100);
    assert_eq!(lab.on(Event::LocalFreed { job: JobId(0) }), [here(2, Reason::NoFreeSlot)]);
}

#[test]
fn without_local_compiles_a_job_waits_for_credits_but_not_for_ever() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    let start = lab.now;
    assert_eq!(lab.compile(500), []);
    assert_eq!(lab.wait(3000, &[1]), [here(0, Reason::NoFreeSlot)]);
    assert_eq!(lab.now - start, all_away().slot_wait);
    assert_eq!(lab.compile(500), [here(1, Reason::NoFreeSlot)], "the next ones of the build need not wait again");
}

#[test]
fn without_local_compiles_a_job_comes_home_only_for_want_of_peers_or_of_the_toolchain() {
    let mut lab = Lab::new(all_away());
    assert_eq!(lab.compile(500), [here(0, Reason::NoPeers)]);
    let facts = lab.facts();
    lab.on(Event::PeerUp { peer: peer(1), facts: PeerFacts { arch: Arch::Aarch64, ..facts } });
    assert_eq!(lab.compile(500), [here(1, Reason::ArchMismatch)]);
    lab.on(Event::LocalFreed { job: JobId(0) });
    lab.on(Event::PeerUp { peer: peer(2), facts });
    assert_eq!(lab.compile(500), [here(2, Reason::ToolchainNotSynced)]);
}

#[test]
fn a_job_waits_two_seconds_for_a_peer_that_is_being_connected() {
    let mut lab = Lab::new(all_away());
    lab.on(Event::PeerExpected { peer: peer(1) });
    let start = lab.now;
    assert_eq!(lab.compile(500), []);
    assert_eq!(lab.wait(5000, &[]), [here(0, Reason::NoPeers)]);
    assert_eq!(lab.now - start, EXPECT_PEER);
}

#[test]
fn a_silent_worker_is_lost_within_two_seconds_and_its_jobs_are_elsewhere() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    lab.credits(1, 2);
    assert_eq!(lab.compile(60_000), [send(0, 1)]);
    assert_eq!(lab.compile(60_000), [send(1, 1)]);
    let start = lab.now;
    lab.up(2);
    lab.credits(2, 1);
    let lost = Action::PeerLost { peer: peer(1) };
    // The second copy that a race starts meanwhile is one way to be elsewhere.
    let mut actions = Vec::new();
    while lab.now < start + ms(2000) {
        actions.extend(lab.wait(2000, &[2]));
    }
    assert!(actions.contains(&lost), "{actions:?}");
    assert!(actions.contains(&send(0, 2)) || actions.contains(&send(1, 2)), "{actions:?}");
}

#[test]
fn busy_workers_are_asked_together_and_nothing_else_wakes_the_submitter() {
    let mut lab = Lab::new(Config { race: false, ..all_away() });
    for n in [1, 2] {
        lab.up(n);
        lab.credits(n, 1);
        lab.compile(60_000);
        lab.now += ms(200);
    }
    let end = lab.now + ms(10_000);
    let mut asked_by_wake = Vec::new();
    while lab.now < end {
        lab.now = lab.submitter.next_wake().expect("jobs are out").max(lab.now);
        let mut actions = Vec::new();
        lab.submitter.handle(lab.now, Event::Tick, &mut actions);
        let asked = |n| actions.contains(&Action::Ping { peer: peer(n) });
        asked_by_wake.push([asked(1), asked(2)]);
        // Their answers take different times.
        for (n, after) in [(1, ms(1)), (2, ms(99))].into_iter().filter(|(n, _)| asked(*n)) {
            lab.now += after;
            lab.on(Event::Heard { peer: peer(n) });
            lab.on(Event::Tick);
        }
    }
    // The first ones bring them into step, and forget that nobody needed anything before.
    assert!(asked_by_wake[4..].iter().all(|asked| *asked == [true, true]), "{asked_by_wake:?}");
    assert!(asked_by_wake.len() <= 24, "{asked_by_wake:?}");
}

#[test]
fn the_last_worker_being_lost_brings_its_jobs_home() {
    let mut lab = Lab::new(Config { race: false, ..all_away() });
    lab.up(1);
    lab.credits(1, 1);
    lab.compile(60_000);
    let start = lab.now;
    let lost = Action::PeerLost { peer: peer(1) };
    let homeward = [lost, run_lost(0, 1, Reason::PeerLost), here(0, Reason::PeerLost)];
    assert_eq!(lab.wait(3000, &[]), homeward);
    assert_eq!(lab.now - start, LOST_BUSY);
    assert!(LOST_BUSY < ms(2000), "they must be elsewhere within two seconds");
}

#[test]
fn a_worker_stopped_by_its_owner_loses_its_jobs_within_two_seconds() {
    let mut lab = Lab::new(Config { race: false, ..all_away() });
    lab.up(1);
    lab.credits(1, 1);
    lab.compile(5000);
    lab.on(Event::Paused { peer: peer(1), paused: true });
    let start = lab.now;
    let recalled = Action::CancelRemote { job: JobId(0), peer: peer(1) };
    let counted = run_lost(0, 1, Reason::PeerReclaimed);
    assert_eq!(lab.wait(3000, &[1]), [recalled, counted, here(0, Reason::PeerReclaimed)]);
    assert!(lab.now - start < ms(2000));
}

#[test]
fn a_run_that_its_worker_gives_up_for_the_owner_is_lost_once() {
    let mut lab = Lab::new(Config { race: false, ..all_away() });
    lab.up(1);
    lab.credits(1, 1);
    lab.compile(5000);
    let counted = run_lost(0, 1, Reason::PeerReclaimed);
    let given_up = lab.result(0, 1, Outcome::Elsewhere(Reason::PeerReclaimed));
    assert_eq!(given_up, [counted, here(0, Reason::PeerReclaimed)]);
    // What comes of the same run afterwards is nobody's.
    assert_eq!(lab.result(0, 1, Outcome::Elsewhere(Reason::PeerReclaimed)), []);
}

#[test]
fn a_worker_that_refuses_gets_nothing_for_a_while_and_the_job_comes_home() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    lab.credits(1, 4);
    assert_eq!(lab.compile(500), [send(0, 1)]);
    let start = lab.now;
    assert_eq!(lab.result(0, 1, Outcome::Refused(Reason::NoFreeSlot)), []);
    assert_eq!(lab.compile(100), []);
    let mut home = false;
    while !home && lab.now < start + ms(2500) {
        for action in lab.wait(2500, &[1]) {
            home |= action == here(0, Reason::NoFreeSlot);
            if let Action::Send { job, .. } = action {
                lab.result(job.0, 1, Outcome::Refused(Reason::NoFreeSlot)).iter().for_each(|action| {
                    home |= *action == here(0, Reason::NoFreeSlot);
                });
            }
        }
    }
    assert!(home && lab.now <= start + ms(2000), "{:?}", lab.now - start);
}

#[test]
fn a_job_that_failed_on_three_peers_runs_here() {
    let mut lab = Lab::new(all_away());
    (1..=5).for_each(|n| lab.up(n));
    (1..=5).for_each(|n| drop(lab.credits(n, 4)));
    let mut actions = lab.compile(500);
    let mut seen = Vec::new();
    while let [Action::Send { peer, .. }] = actions[..] {
        seen.push(peer);
        actions = lab.on(Event::Result { job: JobId(0), peer, outcome: Outcome::Elsewhere(Reason::OutOfMemory) });
        assert_eq!(actions.remove(0), Action::RunLost { job: JobId(0), peer, reason: Reason::OutOfMemory });
    }
    assert_eq!(actions, [here(0, Reason::OutOfMemory)]);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "each peer once");
}

#[test]
fn a_faulted_job_stays_where_it_is() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    lab.credits(1, 1);
    lab.compile(500);
    lab.compile(500);
    assert_eq!(lab.result(0, 1, Outcome::Retry), [], "its slot is not free");
    assert!(lab.submitter.is_out(JobId(0), peer(1)));
}

#[test]
fn a_job_that_must_not_run_here_fails_when_nobody_takes_it() {
    let mut lab = Lab::new(all_away());
    let start = lab.now;
    assert_eq!(lab.job(500, false), []);
    assert_eq!(lab.wait(20_000, &[]), [Action::Fail { job: JobId(0), reason: Reason::NoPeers }]);
    assert_eq!(lab.now - start, EXPECT_PEER);
    lab.up(1);
    let start = lab.now;
    assert_eq!(lab.job(500, false), []);
    assert_eq!(lab.wait(20_000, &[1]), [Action::Fail { job: JobId(1), reason: Reason::NoFreeSlot }]);
    assert_eq!(lab.now - start, all_away().strict_wait);
    assert_eq!(lab.submitter.unfinished(), 0);
}

#[test]
fn a_lowered_promise_sends_nothing_more_but_leaves_what_runs() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    lab.credits(1, 3);
    (0..5).for_each(|_| drop(lab.compile(500)));
    assert_eq!(lab.credits(1, 1), []);
    assert_eq!(lab.result(0, 1, Outcome::Ok), []);
    assert_eq!(lab.result(1, 1, Outcome::Ok), []);
    assert_eq!(lab.result(2, 1, Outcome::Ok).len(), 1);
}

#[test]
fn the_first_of_two_copies_wins_and_the_other_is_taken_back() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    lab.credits(1, 1);
    assert_eq!(lab.compile(1000), [send(0, 1)]);
    lab.now += ms(200);
    lab.up(2);
    lab.credits(2, 1);
    assert_eq!(lab.wait(20_000, &[1, 2]), [send(0, 2)], "idle slots take a copy of an overdue job");
    assert_eq!(lab.result(0, 2, Outcome::Ok), [Action::CancelRemote { job: JobId(0), peer: peer(1) }]);
    assert!(!lab.submitter.is_out(JobId(0), peer(1)));
    assert_eq!(lab.result(0, 1, Outcome::Ok), [], "too late");
    assert_eq!(lab.submitter.unfinished(), 0);
}

#[test]
fn a_cancelled_job_is_taken_back_wherever_it_is() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    lab.credits(1, 1);
    (0..2).for_each(|_| drop(lab.compile(500)));
    assert_eq!(lab.on(Event::Cancel { job: JobId(1) }), []);
    assert_eq!(lab.on(Event::Cancel { job: JobId(0) }), [Action::CancelRemote { job: JobId(0), peer: peer(1) }]);
    assert_eq!((lab.submitter.unfinished(), lab.submitter.waiting()), (0, 0));
}

#[test]
fn a_long_job_waits_for_a_fast_peer_instead_of_a_free_slow_one() {
    let mut lab = Lab::new(Config { race: false, ..all_away() });
    (1..=2).for_each(|n| lab.up(n));
    lab.teach(1, 2500);
    lab.teach(2, 250);
    (1..=2).for_each(|n| drop(lab.credits(n, 1)));
    let job = lab.next_job;
    assert_eq!(lab.compile(1000), [send(job, 2)]);
    assert_eq!(lab.compile(8000), [], "two seconds there are sooner than twenty here");
    lab.now += ms(250);
    assert_eq!(lab.result(job, 2, Outcome::Ok), [send(job + 1, 2)]);
}

#[test]
fn memory_that_is_taken_is_not_given_twice() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    lab.credits(1, 8);
    let compile = |memory_bytes| {
        let (cpu_ms, missing_bytes) = (500, Vec::new());
        Work::Anywhere(Compile { toolchain: gcc(), cpu_ms, memory_bytes, missing_bytes, may_local: true })
    };
    assert_eq!(lab.ready(compile(5 << 30)), [send(0, 1)]);
    assert_eq!(lab.ready(compile(5 << 30)), []);
    assert_eq!(lab.ready(compile(1 << 30)), [send(2, 1)]);
    assert_eq!(lab.ready(compile(9 << 30)), [here(3, Reason::OutOfMemory)]);
    assert_eq!(lab.result(0, 1, Outcome::Ok), [send(1, 1)]);
}

#[test]
fn demand_rises_at_once_and_falls_to_nothing_after_the_build() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    let demand = |lab: &Lab| lab.submitter.peers(lab.now).next().unwrap().demand;
    lab.credits(1, 1);
    (0..20).for_each(|_| drop(lab.compile(500)));
    assert_eq!(demand(&lab), 8);
    (0..20).for_each(|job| drop(lab.result(job, 1, Outcome::Ok)));
    assert_eq!(demand(&lab), 8, "the next job may come in a moment");
    lab.wait(3000, &[1]);
    assert_eq!(demand(&lab), 0);
}

#[test]
fn this_pc_having_slept_loses_no_peer() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    lab.credits(1, 1);
    lab.compile(5000);
    lab.now += Duration::from_secs(60);
    assert_eq!(lab.on(Event::Tick), []);
}

#[test]
fn a_peer_that_boasts_gets_no_more_than_any_worker_may_take() {
    let mut lab = Lab::new(all_away());
    lab.up(1);
    lab.credits(1, u32::MAX);
    let compile = || {
        let (toolchain, missing_bytes) = (gcc(), Vec::new());
        Work::Anywhere(Compile { toolchain, cpu_ms: 500, memory_bytes: 0, missing_bytes, may_local: true })
    };
    (0..700).for_each(|_| drop(lab.ready(compile())));
    assert_eq!(lab.submitter.waiting(), 700 - JOBS_PER_PEER_MAX);
}

#[test]
fn a_result_that_is_to_be_compared_goes_to_a_second_peer_and_comes_home_where_there_is_none() {
    let mut lab = Lab::new(all_away());
    for n in [1, 2] {
        lab.up(n);
        lab.credits(n, 1);
    }
    let Action::Send { job, peer: first } = lab.compile(1000)[0] else { panic!("it is sent") };
    let second = if first == peer(1) { 2 } else { 1 };
    let compare = |peer| Event::Result { job, peer, outcome: Outcome::Compare(Reason::TrustCareful) };
    assert_eq!(lab.on(compare(first)), [send(job.0, second)], "at once, and nobody lost anything");
    assert_eq!(lab.on(compare(peer(second))), [here(job.0, Reason::TrustCareful)]);
}

#[test]
fn a_job_of_chosen_peers_goes_to_no_other() {
    let mut lab = Lab::new(all_away());
    for n in [1, 2] {
        lab.up(n);
        lab.credits(n, 4);
    }
    let compile =
        |may_local| Compile { toolchain: gcc(), cpu_ms: 500, memory_bytes: 0, missing_bytes: Vec::new(), may_local };
    let only = |n| Work::Chosen(compile(true), Hosts::Only(vec![peer(n)]), Reason::TrustRelease);
    for n in [1, 2, 1, 2] {
        let job = lab.next_job;
        let placed = lab.ready(only(n));
        assert!(matches!(placed[..], [Action::Send { peer: to, .. }] if to == peer(n)), "{job} {placed:?}");
    }
    assert!(matches!(lab.ready(only(3))[..], [Action::RunLocal { reason: Reason::TrustRelease, .. }]));
    let nobody = Work::Chosen(compile(false), Hosts::Except(vec![peer(1), peer(2)]), Reason::NoPeers);
    let mut done = lab.ready(nobody);
    lab.now += EXPECT_PEER;
    done.extend(lab.on(Event::Tick));
    assert!(matches!(done[..], [Action::Fail { reason: Reason::NoPeers, .. }]), "{done:?}");
}
