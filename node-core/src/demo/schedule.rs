//! What a simulated build does: jobs given to machines in the order in which a build system asks for them. All that is
//! shown of a build is computed from these jobs, so its numbers agree.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use potluck_api::build::JobColumns;

use super::random::Random;

/// A machine that takes part; the first of a build is this PC.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) slots: u32,
    /// Per cent of this PC's.
    pub(super) speed: u32,
}

/// A machine's owner comes back: what runs there runs again elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Index of the machine.
    pub(super) machine: u16,
    /// Milliseconds after the build's start.
    pub(super) from_ms: u32,
    /// Free again.
    pub(super) to_ms: u32,
}

/// What a build system asks for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) file: String,
    /// The compiler's time on this PC.
    pub(super) alone_ms: u32,
    /// 0 may travel, 1 here, 2 only here, 3 fails: [`potluck_api::build::Kind`].
    pub(super) kind: u8,
    /// Why not remote; empty for those that travel.
    pub(super) reason: String,
    /// Comes when all before it are done, as links do.
    pub(super) after_all: bool,
}

/// One job as it ran.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) wanted: usize,
    pub(super) start_ms: u32,
    pub(super) took_ms: u32,
    pub(super) machine: u16,
    pub(super) lane: u16,
    pub(super) wait_ms: u32,
    pub(super) understand_ms: u32,
    pub(super) travel_ms: u32,
    pub(super) compile_ms: u32,
    pub(super) finish_ms: u32,
    pub(super) repeats: u8,
}

impl Job {
    pub(super) fn end_ms(&self) -> u32 {
        self.start_ms + self.took_ms
    }
}

type Lane = Reverse<(u32, u16, u16)>;

/// Runs `wanted` on `places` with `window` commands at a time, as `make -j` does. In order of their start. Nothing that
/// ended before a cut depends on it.
pub(super) fn run(wanted: &[Wanted], places: &[Place], cuts: &[Cut], window: usize, mut random: Random) -> Vec<Job> {
    let mut floor = Floor::new(wanted, places, cuts);
    let mut asked_ms = 0;
    let mut compiled_ms = None;
    for (number, want) in wanted.iter().enumerate() {
        if want.after_all {
            asked_ms = *compiled_ms.get_or_insert_with(|| floor.empty());
        } else if floor.moments.len() >= window.max(1) {
            asked_ms = floor.next_end().max(asked_ms);
        } else {
            asked_ms += 2;
            floor.run_again_until(asked_ms);
        }
        let parts = Parts::draw(&mut random, floor.travels(number));
        floor.place(number, asked_ms, 0, parts);
    }
    floor.empty();
    floor.jobs.sort_by_key(|j| (j.start_ms, j.wanted));
    floor.jobs
}

/// What comes next: a job ends, or one was cut off and is placed again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Ends,
    Again(usize),
}

/// Machines with their lanes while jobs are given to them.
struct Floor<'a> {
    wanted: &'a [Wanted],
    places: &'a [Place],
    cuts: &'a [Cut],
    here: BinaryHeap<Lane>,
    there: BinaryHeap<Lane>,
    moments: BinaryHeap<Reverse<(u32, Moment)>>,
    /// Jobs that were cut off: how often, and what they are made of.
    cut_off: HashMap<usize, (u8, Parts)>,
    jobs: Vec<Job>,
}

impl<'a> Floor<'a> {
    fn new(wanted: &'a [Wanted], places: &'a [Place], cuts: &'a [Cut]) -> Self {
        let lanes = |machines: std::ops::Range<usize>| -> BinaryHeap<Lane> {
            let of = |m: usize| (0..places[m].slots as u16).map(move |lane| Reverse((0, m as u16, lane)));
            machines.flat_map(of).collect()
        };
        let (here, there) = (lanes(0..1), lanes(1..places.len()));
        let (moments, cut_off, jobs) = (BinaryHeap::new(), HashMap::new(), Vec::with_capacity(wanted.len()));
        Self { wanted, places, cuts, here, there, moments, cut_off, jobs }
    }

    fn travels(&self, number: usize) -> bool {
        self.wanted[number].kind == 0 && !self.there.is_empty()
    }

    /// Gives a job to the lane that is free first.
    fn place(&mut self, number: usize, from: u32, repeats: u8, mut parts: Parts) {
        let travels = self.travels(number);
        let (places, cuts) = (self.places, self.cuts);
        let free = if travels { &mut self.there } else { &mut self.here };
        while let Some(Reverse((free_ms, machine, lane))) = free.pop() {
            let start_ms = from.max(free_ms);
            let away = |c: &&Cut| c.machine == machine && c.from_ms <= start_ms && start_ms < c.to_ms;
            if let Some(cut) = cuts.iter().find(away) {
                free.push(Reverse((cut.to_ms, machine, lane)));
                continue;
            }
            parts.compile_ms = (self.wanted[number].alone_ms * 100 / places[usize::from(machine)].speed.max(1)).max(1);
            let took_ms = parts.sum();
            let ends_it = |c: &&Cut| c.machine == machine && start_ms < c.from_ms && c.from_ms < start_ms + took_ms;
            if let Some(cut) = cuts.iter().find(ends_it) {
                free.push(Reverse((cut.to_ms, machine, lane)));
                self.cut_off.insert(number, (repeats + 1, parts));
                self.moments.push(Reverse((cut.from_ms, Moment::Again(number))));
                return;
            }
            free.push(Reverse((start_ms + took_ms, machine, lane)));
            self.moments.push(Reverse((start_ms + took_ms, Moment::Ends)));
            let Parts { understand_ms, travel_ms, compile_ms, finish_ms } = parts;
            let wait_ms = start_ms - from;
            let wanted = number;
            self.jobs.push(Job {
                wanted,
                start_ms,
                took_ms,
                machine,
                lane,
                wait_ms,
                understand_ms,
                travel_ms,
                compile_ms,
                finish_ms,
                repeats,
            });
            return;
        }
    }

    /// When the next job ends; what was cut off before that is placed again.
    fn next_end(&mut self) -> u32 {
        while let Some(Reverse((at, moment))) = self.moments.pop() {
            match moment {
                Moment::Ends => return at,
                Moment::Again(number) => self.place_again(number, at),
            }
        }
        0
    }

    fn place_again(&mut self, number: usize, at: u32) {
        if let Some((repeats, parts)) = self.cut_off.remove(&number) {
            self.place(number, at, repeats, parts);
        }
    }

    fn run_again_until(&mut self, now: u32) {
        while let Some(Reverse((at, Moment::Again(number)))) = self.moments.peek().copied()
            && at <= now
        {
            self.moments.pop();
            self.place_again(number, at);
        }
    }

    /// When everything that was asked for is done.
    fn empty(&mut self) -> u32 {
        let mut last = 0;
        while !self.moments.is_empty() {
            last = self.next_end().max(last);
        }
        last
    }
}

/// Where the time of one job goes.
#[derive(Clone, Copy)]
struct Parts {
    understand_ms: u32,
    travel_ms: u32,
    compile_ms: u32,
    finish_ms: u32,
}

impl Parts {
    fn draw(random: &mut Random, travels: bool) -> Self {
        let understand_ms = random.between(0, 4);
        let (travel_ms, finish_ms) = if travels { (random.between(3, 45), random.between(0, 3)) } else { (0, 0) };
        Self { understand_ms, travel_ms, compile_ms: 0, finish_ms }
    }

    fn sum(&self) -> u32 {
        self.understand_ms + self.travel_ms + self.compile_ms + self.finish_ms
    }
}

/// What this PC alone would have needed: the same jobs in the same order on its cores (UX 2.8).
pub(super) fn alone_ms(wanted: &[Wanted], cores: u32) -> u64 {
    let mut free: BinaryHeap<Reverse<u64>> = (0..cores.max(1)).map(|_| Reverse(0)).collect();
    let (mut last, mut from) = (0, 0);
    for want in wanted {
        if want.after_all {
            from = last;
        }
        let start = free.pop().map_or(0, |Reverse(at)| at).max(from);
        let end = start + u64::from(want.alone_ms);
        // Links do not wait for each other.
        if !want.after_all {
            last = last.max(end);
        }
        free.push(Reverse(end));
    }
    free.into_iter().map(|Reverse(at)| at).max().unwrap_or(0)
}

/// Jobs as columns; those that end after `until_ms` are left out.
pub(super) fn columns(wanted: &[Wanted], places: &[Place], jobs: &[Job], until_ms: u32) -> JobColumns {
    let mut out = JobColumns {
        machines: places.iter().map(|p| p.name.clone()).collect(),
        reasons: vec![String::new()],
        ..JobColumns::default()
    };
    let mut codes: HashMap<&str, u16> = [("", 0)].into();
    for job in jobs.iter().filter(|j| j.end_ms() <= until_ms) {
        let want = &wanted[job.wanted];
        let reason = reason_of(want, job);
        let code = *codes.entry(reason).or_insert_with(|| {
            out.reasons.push(reason.to_owned());
            (out.reasons.len() - 1) as u16
        });
        out.start_ms.push(job.start_ms);
        out.took_ms.push(job.took_ms);
        out.kind.push(want.kind);
        out.machine.push(job.machine);
        out.lane.push(job.lane);
        out.reason.push(code);
        out.file.push(want.file.clone());
        out.wait_ms.push(job.wait_ms);
        out.understand_ms.push(job.understand_ms);
        out.travel_ms.push(job.travel_ms);
        out.compile_ms.push(job.compile_ms);
        out.finish_ms.push(job.finish_ms);
        out.repeats.push(job.repeats);
    }
    out
}

/// A job that was taken back and then ran elsewhere has that reason, although it did travel.
pub(super) fn reason_of<'a>(want: &'a Wanted, job: &Job) -> &'a str {
    if want.kind == 0 && job.repeats > 0 { "peer-reclaimed" } else { &want.reason }
}
