//! The share policy: how many slots this PC gives, in which state it is, and why. Facts and time come in, one decision
//! goes out; sensors, clocks and jobs are elsewhere.
//!
//! Precedence, first match wins: *off*, *paused* (or *finishing*), *blocked*, then the reasons to hold in the order of
//! [`HeldReason`] (what the person does comes before what the machine does), then slots. Under [`Facts::promise`]
//! nothing but the first three is looked at.
//!
//! Time is `now`: a clock that neither jumps nor stands still in suspend (CLOCK_BOOTTIME). A pause is counted on it, so
//! that setting the wall clock or a change to summer time makes no pause longer; what people are shown is the wall clock.

mod hours;
mod room;
mod settings;

use std::time::Duration;

pub use hours::{Hours, Wall};
pub use room::{JOB_BYTES_MIN, JOB_BYTES_USUAL, JobMemory};
pub use settings::{Battery, Contradiction, Cores, Preset, Settings};

use room::Level;

/// A locked screen counts as away after this time (UX 2.4): whoever locks it by mistake unlocks it before.
pub const AWAY_AFTER_LOCK: Duration = Duration::from_secs(5);
/// Slots are given when everything but presence has held so long, and grow after it; presence has its own delays (UX 2.4).
pub const START_AFTER: Duration = Duration::from_secs(5);
/// Slots shrink when the owner's load has asked for it so long (UX 2.4, FASTBuild).
pub const SHRINK_AFTER: Duration = Duration::from_millis(2500);
/// A load above the gate holds when it has lasted so long: a page that opens is no reason.
pub const GATE_AFTER: Duration = Duration::from_secs(5);
/// Stopped jobs wait so long for the person to leave again, then they are killed. Submitters that have room elsewhere
/// take theirs back sooner (`place::PAUSE_MAX`); this frees the memory of the others.
pub const GRACE: Duration = Duration::from_secs(10);
/// Below half of the memory to keep free, one job is killed in this time: its pages must be back before the next look.
pub const SHED_EVERY: Duration = Duration::from_secs(1);
/// Memory is short if programs wait this part of the time for it, in per cent (PSI `some avg10`): a desktop stutters.
pub const MEMORY_PRESSURE_PERCENT: f32 = 20.0;
/// Least memory to keep free by default (UX 2.4).
pub const KEEP_FREE_BYTES: u64 = 2 << 30;
/// And the part of all memory, in per cent (UX 2.4).
pub const KEEP_FREE_PERCENT: u64 = 15;
/// Disk to keep free at the least, and the most that a share of a large disk asks for; UX 2.4 has the first.
pub const KEEP_FREE_DISK_BYTES: (u64, u64) = (5 << 30, 50 << 30);
/// The same as a share of the disk.
pub const KEEP_FREE_DISK_PERCENT: u64 = 10;

/// Why nothing is given although sharing is on, in order of precedence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HeldReason {
    /// Somebody uses this PC, or nothing tells that nobody does.
    InUse,
    /// It runs on its battery.
    Battery,
    /// Outside the hours that were set.
    Schedule,
    /// The owner's programs need the CPU.
    CpuBusy,
    /// Memory is short.
    Memory,
    /// The disk is full.
    Disk,
    /// The owner's own build uses the cores.
    OwnBuild,
}

impl HeldReason {
    /// All, in order.
    pub const ALL: [Self; 7] =
        [Self::InUse, Self::Battery, Self::Schedule, Self::CpuBusy, Self::Memory, Self::Disk, Self::OwnBuild];

    /// Stable word: on the wire, in JSON.
    pub fn code(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::Battery => "battery",
            Self::Schedule => "schedule",
            Self::CpuBusy => "cpu_busy",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::OwnBuild => "own_build",
        }
    }

    /// The reason of a word.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// Whether running jobs are stopped at once. The others only take no new ones: a stopped job gives back neither
    /// memory nor disk, the end of an hour is not urgent, and beside the owner's build jobs have what it leaves.
    fn stops_jobs(self) -> bool {
        matches!(self, Self::InUse | Self::Battery | Self::CpuBusy)
    }
}

/// What tells whether somebody is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Presence {
    /// Time since the last key or pointer event; None: unknown, which counts as in use.
    pub input_age: Option<Duration>,
    /// Time since the screen was locked; None: it is not, or nobody knows.
    pub locked_for: Option<Duration>,
}

/// A pause that the owner asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause {
    /// Its end; None: until the owner resumes.
    pub until: Option<Duration>,
    /// Jobs that run are finished first.
    pub finish: bool,
}

/// The machine's memory.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Memory {
    /// All, in bytes.
    pub total: u64,
    /// That programs can have without paging, in bytes.
    pub available: u64,
    /// PSI `some avg10`, in per cent; 0 where the kernel does not measure it.
    pub pressure: f32,
}

/// The disk of the mirrors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disk {
    /// All, in bytes.
    pub total: u64,
    /// Free for an ordinary user, in bytes.
    pub free: u64,
}

/// Where the power comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Power {
    /// No battery, or mains.
    #[default]
    Mains,
    /// The battery, with so many per cent.
    Battery(u8),
}

/// Everything that the decision depends on, as it is now.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Facts {
    /// The owner's switch.
    pub on: bool,
    /// The owner's pause, if there is one.
    pub pause: Option<Pause>,
    /// Something must be mended before anything runs: code of a problem.
    pub blocked: Option<String>,
    /// It is still being checked whether jobs can be locked in. The check runs as jobs do, when nobody else wants the CPU.
    pub unchecked: bool,
    /// An explicit number of slots (`potluck node --serve N`): a promise that only off, pause and a problem break. The
    /// owner's programs still come first, by the jobs' priority.
    pub promise: Option<u32>,
    /// Whether somebody is there.
    pub presence: Presence,
    /// What the owner's programs use of all cores, in per cent; None: not measured yet.
    pub load: Option<u8>,
    /// Memory; None: not known, then it is not looked at.
    pub memory: Option<Memory>,
    /// Power.
    pub power: Power,
    /// The owner's own build runs compilers here.
    pub own_build: bool,
    /// The disk of the mirrors; None: not known, then it is not looked at.
    pub disk: Option<Disk>,
    /// Jobs of others that run or are stopped here.
    pub jobs: u32,
    /// What a further one is expected to take, in bytes ([`JobMemory::predicted`]); 0: nothing is known.
    pub job_bytes: u64,
}

/// The state of UX 2.1, without what only the node knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Switched off.
    Off,
    /// Until a time; None: until resumed.
    Paused(Option<Duration>),
    /// Jobs end, none begins; then paused.
    Finishing,
    /// Something must be mended first: code of a problem.
    Blocked(String),
    /// On, but not now.
    Held(HeldReason),
    /// Slots are given.
    Giving,
}

/// What happens to jobs that run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// They run.
    Run,
    /// They run, but only the oldest so many; the others are killed and placed elsewhere.
    Shed(u32),
    /// They are stopped at once, and keep their slots.
    Stop,
    /// They are killed and placed elsewhere.
    Kill,
}

/// What follows from the facts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Jobs that may run at a time; none begins beyond it.
    pub slots: u32,
    /// The most that these settings ever give.
    pub slots_max: u32,
    /// State.
    pub state: State,
    /// What happens to jobs that run.
    pub act: Act,
    /// Memory is why there are not more slots.
    pub memory_limits: bool,
    /// Presence counts and the person is here: nothing sudden is to be expected before they have left.
    pub in_use: bool,
    /// When the state ends by itself, if that is known.
    pub resumes_at: Option<Duration>,
    /// When to decide again at the latest, should no fact change; None: not before one does.
    pub wake_at: Option<Duration>,
}

/// Decides. What it remembers is hysteresis only.
#[derive(Debug)]
pub struct Policy {
    cores: u32,
    settings: Settings,
    /// Since when every condition but presence has held.
    clear_since: Option<Duration>,
    /// Since when the load is above the gate.
    gate_since: Option<Duration>,
    /// The gate is shut.
    gated: bool,
    /// Slots that the owner's load leaves.
    level: Level,
    /// Slots that the owner's memory leaves.
    room: Level,
    stopped_since: Option<Duration>,
    shed_at: Option<Duration>,
    /// What held last: the answer while the start is delayed.
    last: HeldReason,
}

impl Policy {
    /// A policy for so many logical cores.
    pub fn new(cores: u32, settings: Settings) -> Self {
        let cores = cores.max(1);
        Self {
            cores,
            settings,
            clear_since: None,
            gate_since: None,
            gated: false,
            level: Level::at(cores),
            room: Level::at(cores),
            stopped_since: None,
            shed_at: None,
            last: HeldReason::CpuBusy,
        }
    }

    /// New settings; they hold from the next decision on.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The decision at `now`, with the wall clock of this place.
    pub fn decide(&mut self, now: Duration, wall: Wall, facts: &Facts) -> Decision {
        let slots_max = facts.promise.unwrap_or_else(|| self.settings.most(self.cores));
        let none = |state, act| Decision {
            slots: 0,
            slots_max,
            state,
            act,
            memory_limits: false,
            in_use: false,
            resumes_at: None,
            wake_at: None,
        };
        if !facts.on {
            self.rest();
            return none(State::Off, Act::Kill);
        }
        if let Some(pause) = facts.pause.filter(|pause| pause.until.is_none_or(|until| now < until)) {
            self.rest();
            let (resumes_at, wake_at) = (pause.until, pause.until);
            if pause.finish && facts.jobs > 0 {
                return Decision { resumes_at, wake_at, ..none(State::Finishing, Act::Run) };
            }
            return Decision { resumes_at, wake_at, ..none(State::Paused(pause.until), Act::Kill) };
        }
        if let Some(problem) = &facts.blocked {
            self.rest();
            return none(State::Blocked(problem.clone()), Act::Kill);
        }
        if let Some(slots) = facts.promise {
            self.rest();
            if facts.unchecked {
                return none(State::Held(HeldReason::CpuBusy), Act::Run);
            }
            return Decision { slots, ..none(State::Giving, Act::Run) };
        }
        self.weigh(now, wall, facts, slots_max)
    }

    /// Nothing is given: whatever was measured over time begins anew.
    fn rest(&mut self) {
        (self.clear_since, self.gate_since, self.gated) = (None, None, false);
        (self.stopped_since, self.shed_at, self.last) = (None, None, HeldReason::CpuBusy);
        (self.level, self.room) = (Level::at(self.cores), Level::at(self.cores));
    }

    fn weigh(&mut self, now: Duration, wall: Wall, facts: &Facts, slots_max: u32) -> Decision {
        let mut wake: Option<Duration> = None;
        let mut by = |at: Duration| wake = Some(wake.map_or(at, |wake| wake.min(at)));
        self.follow_load(now, facts.load);
        if let Some(memory) = facts.memory {
            let fits = room::fits(memory, self.settings.keep_free(memory.total), facts.job_bytes, facts.jobs);
            self.room.follow(now, fits.min(self.cores));
        }
        let in_use = self.settings.looks_at_presence() && !self.is_away(facts.presence);
        if in_use && let Some(rest) = self.away_in(facts.presence) {
            by(now + rest);
        }
        let cap = if in_use { self.settings.in_use(self.cores) } else { self.settings.away(self.cores) };
        let opens = self.settings.opens_in(wall);
        let conditions = [
            (HeldReason::InUse, in_use && cap == 0),
            (HeldReason::Battery, !self.settings.battery.allows(facts.power)),
            (HeldReason::Schedule, opens != Some(Duration::ZERO)),
            (
                HeldReason::CpuBusy,
                facts.unchecked || if self.settings.has_gate() { self.gated } else { self.level.value == 0 },
            ),
            (HeldReason::Memory, self.room.value == 0 || facts.memory.is_some_and(|memory| self.is_short(memory))),
            (HeldReason::Disk, self.settings.is_full(facts.disk)),
            (HeldReason::OwnBuild, facts.own_build),
        ];
        // Presence has its own delay, and a shut gate opens after one of its own.
        let clear = conditions.iter().skip(1).all(|(reason, holds)| !holds || *reason == HeldReason::CpuBusy);
        if clear && facts.load.is_some() {
            self.clear_since.get_or_insert(now);
        } else {
            self.clear_since = None;
        }
        let held = conditions.iter().find(|(_, holds)| *holds).map(|(reason, _)| *reason);
        let starting = self.clear_since.map_or(now + START_AFTER, |since| since + START_AFTER);
        let (state, act) = (State::Giving, Act::Run);
        let none =
            Decision { slots: 0, slots_max, state, act, memory_limits: false, in_use, resumes_at: None, wake_at: None };
        let mut decision = match held {
            Some(reason) => {
                self.last = reason;
                let resumes_at = (reason == HeldReason::Schedule).then_some(opens).flatten().map(|rest| now + rest);
                Decision { state: State::Held(reason), resumes_at, act: self.held_act(now, reason, facts), ..none }
            }
            None if now < starting => {
                by(starting);
                let act = if self.stopped_since.is_some() { Act::Stop } else { Act::Run };
                Decision { state: State::Held(self.last), act, ..none }
            }
            None => {
                let slots = if self.settings.has_gate() { cap } else { cap.min(self.level.value) };
                Decision { slots: slots.min(self.room.value), memory_limits: self.room.value < slots, ..none }
            }
        };
        // Who comes back finds what is above the smaller number gone at once, not when it ends by itself.
        if decision.act == Act::Run && in_use && facts.jobs > cap {
            decision.act = Act::Shed(cap);
        }
        // A stop ends by itself only if the conditions hold again; otherwise in a kill.
        if decision.act == Act::Stop {
            let since = *self.stopped_since.get_or_insert(now);
            if now >= since + GRACE {
                decision.act = Act::Kill;
            } else {
                by(since + GRACE);
            }
        }
        if matches!(decision.act, Act::Run | Act::Shed(_)) {
            self.stopped_since = None;
        }
        if let Some(rest) = opens.filter(|rest| !rest.is_zero()) {
            by(now + rest);
        }
        decision.wake_at = wake.filter(|at| *at > now);
        decision
    }

    /// Since the smallest of its delays has passed for one of the two signs.
    fn is_away(&self, presence: Presence) -> bool {
        let by_lock = self.settings.away_when_locked && presence.locked_for.is_some_and(|age| age >= AWAY_AFTER_LOCK);
        by_lock || presence.input_age.is_some_and(|age| age >= self.settings.away_after)
    }

    /// Time until the person counts as away if nothing happens.
    fn away_in(&self, presence: Presence) -> Option<Duration> {
        let lock = presence.locked_for.filter(|_| self.settings.away_when_locked);
        let lock = lock.map(|age| AWAY_AFTER_LOCK.saturating_sub(age));
        let input = presence.input_age.map(|age| self.settings.away_after.saturating_sub(age));
        lock.into_iter().chain(input).min()
    }

    fn is_short(&self, memory: Memory) -> bool {
        memory.available < self.settings.keep_free(memory.total) || memory.pressure >= MEMORY_PRESSURE_PERCENT
    }

    fn held_act(&mut self, now: Duration, reason: HeldReason, facts: &Facts) -> Act {
        if reason.stops_jobs() || self.stopped_since.is_some() {
            return Act::Stop;
        }
        let starved = facts.memory.is_some_and(|m| m.available < self.settings.keep_free(m.total) / 2);
        if starved && facts.jobs > 0 && self.shed_at.is_none_or(|at| now >= at + SHED_EVERY) {
            self.shed_at = Some(now);
            return Act::Shed(facts.jobs - 1);
        }
        Act::Run
    }

    /// The two ways in which the owner's load counts: a gate, or fewer slots.
    fn follow_load(&mut self, now: Duration, load: Option<u8>) {
        let Some(load) = load.map(|load| load.min(100)) else { return };
        let above = load > self.settings.load_gate_percent;
        if above == self.gated {
            self.gate_since = None;
        } else if now >= *self.gate_since.get_or_insert(now) + if above { GATE_AFTER } else { START_AFTER } {
            (self.gated, self.gate_since) = (above, None);
        }
        let raw = (u64::from(self.cores) * u64::from(100 - load) / 100) as u32;
        self.level.follow(now, raw);
    }
}
