//! Simulated sharing: a person who is there or away, and others' jobs that come and go. The real rules are the model's;
//! these show the same states.

use potluck_api::call::Pause;
use potluck_api::view::{Battery, HeldReason, Helped, ShareSettings, ShareState, ShareView};
use potluck_api::words::share as words;

use super::random::Random;

/// A locked screen counts as away after this (UX 2.4).
const LOCKED_AWAY_MS: u64 = 5_000;
/// From the person's return until the last job is gone: 1 s is promised.
const CUT_MS_MAX: u32 = 800;

/// Whether somebody is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Person {
    /// Keeps typing.
    Here,
    /// No input since then.
    Since(u64),
    /// Long away.
    Away,
    /// Locked the screen then.
    Locked(u64),
}

#[derive(Clone, Debug)]
struct HelpJob {
    of: String,
    ends_ms: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Sharing {
    pub(super) on: bool,
    pub(super) settings: ShareSettings,
    pub(super) person: Person,
    /// The outer one: paused; the inner one: until then.
    pub(super) pause: Option<Option<u64>>,
    finishing: bool,
    /// What the machine does, by a scene.
    pub(super) held: Option<HeldReason>,
    /// Code of the problem that must be mended first.
    pub(super) blocked: Option<&'static str>,
    /// Who has work for this PC, and how many jobs at a time.
    pub(super) wants: Vec<(String, u32)>,
    jobs: Vec<HelpJob>,
    lent_ms: u64,
    lent_to: Vec<String>,
    cores: u32,
}

impl Sharing {
    pub(super) fn new(cores: u32) -> Self {
        Self {
            on: true,
            settings: ShareSettings::default(),
            person: Person::Here,
            pause: None,
            finishing: false,
            held: None,
            blocked: None,
            wants: Vec::new(),
            jobs: Vec::new(),
            // 1 h 12 min: the mock-up's.
            lent_ms: 72 * 60_000,
            lent_to: vec!["mara-desk".into(), "jan-laptop".into()],
            cores,
        }
    }

    /// Nothing was lent by it yet.
    pub(super) fn forget_lent(&mut self) {
        (self.lent_ms, self.lent_to) = (0, Vec::new());
    }

    /// What the settings give, by the rules of a real node.
    fn rules(&self) -> potluck_model::share::Settings {
        crate::sharing::model_settings(&self.settings)
    }

    fn away(&self, now: u64) -> bool {
        match self.person {
            Person::Here => false,
            Person::Away => true,
            Person::Since(at) => now >= at + u64::from(self.settings.away_after_s) * 1000,
            Person::Locked(at) if self.settings.away_when_locked => now >= at + LOCKED_AWAY_MS,
            Person::Locked(at) => now >= at + u64::from(self.settings.away_after_s) * 1000,
        }
    }

    /// When the person counts as away, if nothing is touched.
    fn away_at(&self) -> Option<u64> {
        match self.person {
            Person::Here | Person::Away => None,
            Person::Locked(at) if self.settings.away_when_locked => Some(at + LOCKED_AWAY_MS),
            Person::Since(at) | Person::Locked(at) => Some(at + u64::from(self.settings.away_after_s) * 1000),
        }
    }

    /// Slots now, or why there are none. What the person did comes before what the machine does.
    fn slots(&self, now: u64, own_build: bool) -> Result<u32, HeldReason> {
        let away = self.away(now);
        let rules = self.rules();
        let slots = if away { rules.away(self.cores) } else { rules.in_use(self.cores) };
        let held = self.held.filter(|h| *h != HeldReason::Battery || self.settings.battery != Battery::Always);
        match (away, held) {
            (false, _) if slots == 0 => Err(HeldReason::InUse),
            (_, Some(reason)) => Err(reason),
            _ if own_build => Err(HeldReason::OwnBuild),
            _ => Ok(slots),
        }
    }

    fn gives(&self, now: u64, own_build: bool) -> u32 {
        let open = self.on && self.pause.is_none() && !self.finishing && self.blocked.is_none();
        if open { self.slots(now, own_build).unwrap_or(0) } else { 0 }
    }

    /// Passes a step of time.
    pub(super) fn step(&mut self, now: u64, step_ms: u64, own_build: bool, random: &mut Random) {
        if self.pause.is_some_and(|until| until.is_some_and(|at| at <= now)) {
            self.pause = None;
        }
        self.lent_ms += self.jobs.len() as u64 * step_ms;
        self.jobs.retain(|job| job.ends_ms > now);
        let slots = self.gives(now, own_build) as usize;
        if slots < self.jobs.len() && !self.finishing {
            // Whatever the cause: they are gone soon, the newest last.
            for job in &mut self.jobs[slots..] {
                job.ends_ms = job.ends_ms.min(now + u64::from(random.between(100, CUT_MS_MAX)));
            }
        }
        for (name, most) in &self.wants {
            while self.jobs.len() < slots && self.jobs.iter().filter(|j| j.of == *name).count() < *most as usize {
                self.jobs.push(HelpJob { of: name.clone(), ends_ms: now + u64::from(random.between(1500, 9000)) });
                if !self.lent_to.contains(name) {
                    self.lent_to.push(name.clone());
                }
            }
        }
        if self.finishing && self.jobs.is_empty() {
            (self.finishing, self.pause) = (false, Some(None));
        }
    }

    /// The person touches the PC.
    pub(super) fn input(&mut self, now: u64) {
        self.person = Person::Since(now);
    }

    /// The switch.
    pub(super) fn switch(&mut self, on: bool) {
        (self.on, self.pause, self.finishing) = (on, None, false);
    }

    /// `tomorrow`: the next 08:00.
    pub(super) fn pause(&mut self, until: Pause, now: u64, tomorrow: u64) {
        self.finishing = false;
        match until {
            Pause::For(s) => self.pause = Some(Some(now + u64::from(s) * 1000)),
            Pause::Tomorrow => self.pause = Some(Some(tomorrow)),
            Pause::Open => self.pause = Some(None),
            Pause::Finish => self.finishing = true,
        }
    }

    /// Ends a pause, and finishing.
    pub(super) fn resume(&mut self) {
        (self.pause, self.finishing) = (None, false);
    }

    /// New settings hold at once, within the ranges of a real node.
    pub(super) fn set(&mut self, new: ShareSettings) -> Result<(), String> {
        self.settings = crate::sharing::checked(new)?;
        Ok(())
    }

    /// Others' jobs that run here.
    pub(super) fn jobs(&self) -> u32 {
        self.jobs.len() as u32
    }

    /// Something moves by itself.
    pub(super) fn moves(&self) -> bool {
        !self.jobs.is_empty() || self.finishing || !self.wants.is_empty()
    }

    pub(super) fn view(&self, now: u64, origin_ms: u64, zone_s: i64, own_build: bool) -> ShareView {
        let jobs = self.jobs();
        let mut helping: Vec<Helped> = Vec::new();
        for job in &self.jobs {
            match helping.iter_mut().find(|h| h.name == job.of) {
                Some(helped) => helped.jobs += 1,
                None => helping.push(Helped { name: job.of.clone(), jobs: 1 }),
            }
        }
        helping.sort_by(|a, b| b.jobs.cmp(&a.jobs).then_with(|| a.name.cmp(&b.name)));
        let slots = self.gives(now, own_build);
        let state = match (self.on, self.blocked, self.pause) {
            (false, ..) => ShareState::Off,
            (_, Some(problem), _) => ShareState::Blocked { problem: problem.to_owned() },
            (_, _, Some(until)) => ShareState::Paused { until_ms: until.map(|at| origin_ms + at) },
            _ if self.finishing => ShareState::Finishing { jobs },
            _ => match self.slots(now, own_build) {
                Err(reason) => {
                    let resumes_ms = self.away_at().filter(|_| reason == HeldReason::InUse).map(|at| origin_ms + at);
                    ShareState::Held { reason, resumes_ms }
                }
                Ok(slots) if jobs > 0 => ShareState::Helping { slots, jobs, people: helping.len() as u32 },
                Ok(slots) => ShareState::Ready { slots },
            },
        };
        let slots_max = self.rules().most(self.cores);
        let (settings, cores) = (&self.settings, self.cores);
        let ahead_s = |_: u64| zone_s as i32;
        let clock = words::Clock { now_ms: origin_ms + now, ahead_s: &ahead_s };
        let around = words::Around { cores, slots_max, settings, has_battery: true, knows_presence: true, clock };
        let no_day = !settings.hours.is_empty() && settings.hours.iter().all(|h| h.days & 0x7f == 0);
        ShareView {
            on: self.on,
            sentence: words::sentence(&state, &helping, &around),
            short: words::short(&state, &clock),
            next: words::next(&state, &around),
            rule: words::rule(settings, cores, around.has_battery, no_day.then_some(words::Never::NoHours)),
            rule_is_warning: no_day,
            slots,
            slots_max,
            helping,
            // Whole seconds: more nobody reads.
            lent_today_ms: self.lent_ms / 1000 * 1000,
            lent_today_to: self.lent_to.clone(),
            settings: self.settings.clone(),
            presence_source: Some("simulation".into()),
            state,
        }
    }
}
