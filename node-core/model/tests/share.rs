//! The share policy as its owner sees it, and what holds for every sequence of facts.

use std::time::Duration;

use potluck_model::share::{
    Act, Battery, Contradiction, Cores, Decision, Disk, Facts, GATE_AFTER, GRACE, HeldReason, Hours, Memory, Pause,
    Policy, Power, Presence, Preset, SHRINK_AFTER, START_AFTER, Settings, State, Wall,
};
use proptest::prelude::*;

const CORES: u32 = 8;
const MONDAY_NOON: Wall = Wall { weekday: 0, minute: 12 * 60, second: 0 };

fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A person who has been away for an hour, and nothing else against sharing.
fn away() -> Facts {
    Facts {
        on: true,
        presence: Presence { input_age: Some(s(3600)), locked_for: None },
        load: Some(0),
        ..Facts::default()
    }
}

fn typing() -> Facts {
    Facts { presence: Presence { input_age: Some(ms(20)), locked_for: None }, ..away() }
}

struct Desk {
    policy: Policy,
    now: Duration,
    wall: Wall,
}

impl Desk {
    fn new(settings: Settings) -> Self {
        Self { policy: Policy::new(CORES, settings), now: s(1000), wall: MONDAY_NOON }
    }

    fn preset(preset: Preset) -> Self {
        Self::new(Settings { preset, ..Settings::default() })
    }

    fn at(&mut self, facts: &Facts) -> Decision {
        self.policy.decide(self.now, self.wall, facts)
    }

    /// The same facts for a time, looked at every quarter of a second.
    fn during(&mut self, time: Duration, facts: &Facts) -> Decision {
        let end = self.now + time;
        while self.now < end {
            self.at(facts);
            self.now = (self.now + ms(250)).min(end);
        }
        self.at(facts)
    }
}

#[test]
fn it_gives_all_but_one_core_five_seconds_after_the_conditions_hold() {
    let mut desk = Desk::preset(Preset::Away);
    assert_eq!(desk.at(&away()).slots, 0);
    assert_eq!(desk.during(START_AFTER - ms(1), &away()).slots, 0);
    let decision = desk.during(ms(1), &away());
    assert_eq!((decision.slots, decision.state, decision.act), (7, State::Giving, Act::Run));
}

#[test]
fn the_first_key_stops_everything_in_the_same_step_and_leaving_again_resumes() {
    let mut desk = Desk::preset(Preset::Away);
    let busy = Facts { jobs: 7, ..away() };
    desk.during(s(10), &busy);
    assert!(!desk.at(&busy).in_use, "whoever may come back is to be looked for");
    let decision = desk.at(&Facts { jobs: 7, ..typing() });
    assert_eq!((decision.slots, decision.act, decision.in_use), (0, Act::Stop, true));
    assert_eq!(decision.state, State::Held(HeldReason::InUse));
    let locked = |age| Presence { input_age: Some(age), locked_for: Some(age) };
    desk.now += s(2);
    let decision = desk.at(&Facts { jobs: 7, presence: locked(s(4)), ..away() });
    assert_eq!(decision.act, Act::Stop);
    assert_eq!(decision.wake_at, Some(desk.now + s(1)), "away five seconds after the lock");
    desk.now += s(1);
    let decision = desk.at(&Facts { jobs: 7, presence: locked(s(5)), ..away() });
    assert_eq!((decision.slots, decision.act), (7, Act::Run));
}

#[test]
fn who_stays_gets_the_memory_back_too() {
    let mut desk = Desk::preset(Preset::Away);
    desk.during(s(10), &away());
    let back = Facts { jobs: 3, ..typing() };
    assert_eq!(desk.during(GRACE - ms(1), &back).act, Act::Stop);
    assert_eq!(desk.during(ms(1), &back).act, Act::Kill);
}

#[test]
fn no_sign_of_presence_means_in_use() {
    let mut desk = Desk::preset(Preset::Away);
    let decision = desk.during(s(600), &Facts { presence: Presence::default(), ..away() });
    assert_eq!((decision.slots, decision.state), (0, State::Held(HeldReason::InUse)));
}

#[test]
fn a_lock_does_not_count_where_the_owner_said_so() {
    let mut desk = Desk::new(Settings { away_when_locked: false, ..Settings::default() });
    let locked = Presence { input_age: Some(s(60)), locked_for: Some(s(60)) };
    assert_eq!(desk.during(s(10), &Facts { presence: locked, ..away() }).slots, 0);
}

#[test]
fn nothing_is_given_before_it_is_known_that_jobs_can_be_locked_in_and_then_at_once() {
    let mut desk = Desk::preset(Preset::Away);
    let unchecked = Facts { unchecked: true, ..away() };
    let decision = desk.during(s(60), &unchecked);
    assert_eq!((decision.slots, decision.state), (0, State::Held(HeldReason::CpuBusy)));
    assert_eq!(desk.at(&away()).slots, 7);
    let promise = |unchecked| Facts { unchecked, promise: Some(3), ..Facts { on: true, ..Facts::default() } };
    assert_eq!(desk.at(&promise(true)).slots, 0);
    assert_eq!(desk.at(&promise(false)).slots, 3);
    let pause = Some(Pause { until: None, finish: false });
    assert_eq!(desk.at(&Facts { pause, ..unchecked.clone() }).state, State::Paused(None));
    assert_eq!(desk.at(&Facts { on: false, ..unchecked }).state, State::Off);
}

#[test]
fn other_programs_hold_after_five_seconds_above_the_gate_and_no_sooner() {
    let mut desk = Desk::preset(Preset::Away);
    desk.during(s(10), &away());
    let loaded = Facts { load: Some(21), ..away() };
    assert_eq!(desk.during(GATE_AFTER - ms(1), &loaded).slots, 7);
    let decision = desk.during(ms(1), &loaded);
    assert_eq!((decision.slots, decision.state), (0, State::Held(HeldReason::CpuBusy)));
    assert_eq!(decision.act, Act::Stop);
    assert_eq!(desk.during(START_AFTER - ms(1), &away()).slots, 0);
    assert_eq!(desk.during(ms(1), &away()).slots, 7);
}

#[test]
fn a_dedicated_machine_gives_what_its_owner_leaves() {
    let mut desk = Desk::preset(Preset::Dedicated);
    let loaded = |load| Facts { load: Some(load), ..typing() };
    assert_eq!(desk.during(s(10), &loaded(0)).slots, 7, "nobody's presence matters");
    assert_eq!(desk.during(SHRINK_AFTER - ms(1), &loaded(50)).slots, 7);
    assert_eq!(desk.during(ms(1), &loaded(50)).slots, 4);
    assert_eq!(desk.during(START_AFTER - ms(1), &loaded(20)).slots, 4);
    assert_eq!(desk.during(ms(1), &loaded(20)).slots, 6);
    assert_eq!(desk.during(s(3), &loaded(100)).state, State::Held(HeldReason::CpuBusy));
}

#[test]
fn a_little_keeps_a_quarter_while_in_use_and_kills_the_rest_at_once() {
    let mut desk = Desk::preset(Preset::ALittle);
    assert_eq!(desk.during(s(10), &Facts { jobs: 7, ..away() }).slots, 7);
    let decision = desk.at(&Facts { jobs: 7, ..typing() });
    assert_eq!((decision.slots, decision.act), (2, Act::Shed(2)));
    assert_eq!(desk.at(&Facts { jobs: 2, ..typing() }).act, Act::Run);
}

#[test]
fn each_slot_has_its_memory() {
    const GIB: u64 = 1 << 30;
    let mut desk = Desk::new(Settings::default());
    let facts = |available, jobs, job_bytes| Facts {
        memory: Some(Memory { total: 16 * GIB, available, pressure: 0.0 }),
        jobs,
        job_bytes,
        ..away()
    };
    // 15 % of 16 GiB are the owner's; nothing is known of the jobs.
    assert_eq!(desk.during(s(10), &facts(10 * GIB, 0, 0)).slots, 7);
    let few = desk.during(s(10), &facts(4 * GIB, 0, 0));
    assert_eq!((few.slots, few.memory_limits, few.state), (3, true, State::Giving));
    // What runs has its memory already.
    assert_eq!(desk.during(s(10), &facts(4 * GIB, 2, 0)).slots, 5);
    // Jobs that take more leave room for fewer.
    assert_eq!(desk.during(s(10), &facts(8 * GIB, 0, 2 * GIB)).slots, 2);
    // A moment's hunger costs nothing, and its end gives nothing back at once.
    assert_eq!(desk.during(s(1), &facts(4 * GIB, 0, 2 * GIB)).slots, 2);
    let none = desk.during(s(10), &facts(4 * GIB, 0, 2 * GIB));
    assert_eq!((none.slots, none.state), (0, State::Held(HeldReason::Memory)));
    assert_eq!(desk.during(s(2), &facts(16 * GIB, 0, 2 * GIB)).slots, 0);
    let all = desk.during(s(20), &facts(16 * GIB, 0, 512 << 20));
    assert_eq!((all.slots, all.memory_limits), (7, false));
}

#[test]
fn short_memory_takes_no_job_and_half_of_it_costs_the_newest() {
    let mut desk = Desk::preset(Preset::Dedicated);
    let memory =
        |available| Facts { memory: Some(Memory { total: 16 << 30, available, pressure: 0.0 }), jobs: 4, ..away() };
    assert_eq!(desk.during(s(10), &memory(8 << 30)).slots, 7);
    let decision = desk.at(&memory(2 << 30));
    assert_eq!((decision.slots, decision.act), (0, Act::Run), "15 % of 16 GiB are more than 2 GiB");
    assert_eq!(desk.at(&memory(1 << 30)).act, Act::Shed(3));
    assert_eq!(desk.at(&memory(1 << 30)).act, Act::Run, "its pages are not back yet");
    desk.now += s(1);
    assert_eq!(desk.at(&memory(1 << 30)).act, Act::Shed(3));
    let pressed = Memory { total: 16 << 30, available: 8 << 30, pressure: 40.0 };
    assert_eq!(desk.at(&Facts { memory: Some(pressed), ..away() }).state, State::Held(HeldReason::Memory));
}

#[test]
fn on_battery_nothing_is_given_unless_the_owner_said_so() {
    let unplugged = Facts { power: Power::Battery(60), ..away() };
    let give = |battery| Desk::new(Settings { battery, ..Settings::default() }).during(s(10), &unplugged).slots;
    assert_eq!([Battery::Never, Battery::Above(80), Battery::Above(50), Battery::Always].map(give), [0, 0, 7, 7]);
}

#[test]
fn hours_go_past_midnight_and_know_the_day_on_which_they_began() {
    // Weekdays, 18:00 to 08:00.
    let hours = vec![Hours { days: 0b001_1111, from_min: 18 * 60, to_min: 8 * 60 }];
    let settings = Settings { hours, ..Settings::default() };
    let opens =
        |weekday, hour: u16, minute: u16| settings.opens_in(Wall { weekday, minute: hour * 60 + minute, second: 0 });
    let open = Some(Duration::ZERO);
    assert_eq!(opens(0, 18, 0), open);
    assert_eq!(opens(1, 7, 59), open);
    assert_eq!(opens(1, 8, 0), Some(s(10 * 3600)));
    assert_eq!(opens(5, 7, 59), open, "Friday night");
    assert_eq!(opens(5, 8, 0), Some(s(58 * 3600)), "Monday evening");
    assert_eq!(opens(0, 7, 0), Some(s(11 * 3600)), "Sunday is no weekday");
    let mut desk = Desk::new(settings);
    let decision = desk.during(s(10), &Facts { jobs: 2, ..away() });
    assert_eq!(decision.state, State::Held(HeldReason::Schedule));
    assert_eq!(decision.act, Act::Run, "the end of an hour is not urgent");
    assert_eq!(decision.resumes_at, Some(desk.now + s(6 * 3600)));
}

#[test]
fn hours_that_begin_and_end_at_the_same_time_are_the_whole_day() {
    let hours = vec![Hours { days: 0b100_0000, from_min: 0, to_min: 0 }];
    let settings = Settings { hours, ..Settings::default() };
    let opens = |weekday, minute| settings.opens_in(Wall { weekday, minute, second: 0 });
    assert_eq!(opens(6, 1439), Some(Duration::ZERO));
    assert_eq!(opens(5, 1439), Some(s(60)));
    assert_eq!(opens(0, 0), Some(s(6 * 86400)));
}

#[test]
fn rules_that_can_never_be_true_are_told() {
    let memory = Memory { total: 16 << 30, available: 0, pressure: 0.0 };
    let disk = Disk { total: 100 << 30, free: 0 };
    let tell = |settings: Settings| settings.contradiction(Some(memory), Some(disk));
    assert_eq!(tell(Settings::default()), None);
    let hours = vec![Hours { days: 0, from_min: 0, to_min: 60 }];
    assert_eq!(tell(Settings { hours, ..Settings::default() }), Some(Contradiction::NoHours));
    assert_eq!(tell(Settings { keep_free_bytes: 16 << 30, ..Settings::default() }), Some(Contradiction::Memory));
    assert_eq!(tell(Settings { keep_free_disk_bytes: 100 << 30, ..Settings::default() }), Some(Contradiction::Disk));
}

#[test]
fn the_disk_keeps_room_for_its_owner() {
    let held = |settings: Settings, total: u64, free: u64| {
        let mut desk = Desk::new(settings);
        let disk = Some(Disk { total: total << 30, free: free << 30 });
        desk.at(&Facts { disk, ..away() }).state == State::Held(HeldReason::Disk)
    };
    let auto = Settings::default;
    assert_eq!((held(auto(), 30, 4), held(auto(), 30, 5)), (true, false), "at least 5 GiB");
    assert_eq!((held(auto(), 200, 18), held(auto(), 200, 20)), (true, false), "a tenth");
    assert_eq!((held(auto(), 4000, 49), held(auto(), 4000, 50)), (true, false), "50 GiB are enough of any disk");
    let own = || Settings { keep_free_disk_bytes: 1 << 30, ..Settings::default() };
    assert_eq!((held(own(), 200, 0), held(own(), 200, 1)), (true, false), "as set");
}

const FULL: Option<Disk> = Some(Disk { total: 100 << 30, free: 1 });

#[test]
fn what_the_person_did_comes_before_what_the_machine_does() {
    let mut desk = Desk::preset(Preset::Away);
    let all = Facts { power: Power::Battery(9), own_build: true, disk: FULL, ..typing() };
    assert_eq!(desk.at(&all).state, State::Held(HeldReason::InUse));
    assert_eq!(desk.at(&Facts { presence: away().presence, ..all.clone() }).state, State::Held(HeldReason::Battery));
    let blocked = Facts { blocked: Some("S1".into()), ..all };
    assert_eq!(desk.at(&blocked).state, State::Blocked("S1".into()));
    let paused = Facts { pause: Some(Pause { until: None, finish: false }), ..blocked };
    assert_eq!(desk.at(&paused).state, State::Paused(None));
    assert_eq!(desk.at(&Facts { on: false, ..paused }).state, State::Off);
}

#[test]
fn a_pause_that_finishes_first_kills_nothing() {
    let mut desk = Desk::preset(Preset::Dedicated);
    let pause = Some(Pause { until: None, finish: true });
    let decision = desk.at(&Facts { pause, jobs: 2, ..away() });
    assert_eq!((decision.slots, decision.state, decision.act), (0, State::Finishing, Act::Run));
    assert_eq!(desk.at(&Facts { pause, ..away() }).state, State::Paused(None));
}

#[test]
fn an_explicit_number_is_a_promise_that_only_the_owner_or_a_problem_breaks() {
    let mut desk = Desk::preset(Preset::Away);
    let promised = Facts { promise: Some(16), load: Some(100), power: Power::Battery(1), own_build: true, ..typing() };
    assert_eq!(desk.at(&promised).slots, 16, "at once, and whatever else goes on");
    let pause = Some(Pause { until: Some(desk.now + s(60)), finish: false });
    assert_eq!(desk.at(&Facts { pause, ..promised.clone() }).slots, 0);
    assert_eq!(desk.at(&Facts { blocked: Some("S1".into()), ..promised.clone() }).slots, 0);
    assert_eq!(desk.at(&Facts { on: false, ..promised }).slots, 0);
}

#[test]
fn only_mains_and_a_calm_machine_start_the_five_seconds() {
    let mut desk = Desk::preset(Preset::Away);
    desk.during(s(10), &away());
    assert_eq!(desk.at(&Facts { power: Power::Battery(90), ..away() }).slots, 0);
    assert_eq!(desk.at(&away()).slots, 0);
    assert_eq!(desk.during(START_AFTER, &away()).slots, 7);
}

fn facts() -> impl Strategy<Value = Facts> {
    let presence = (prop::option::of(0..400_u64), prop::option::of(0..10_u64));
    let memory = prop::option::of((1..20_u64, 0..60_u32));
    let rare = || prop::bool::weighted(0.1);
    (presence, prop::option::of(0..=100_u8), memory, rare(), rare(), rare(), 0..10_u32, prop::bool::weighted(0.9))
        .prop_map(|((input, lock), load, memory, battery, own_build, full, jobs, on)| Facts {
            on,
            presence: Presence { input_age: input.map(s), locked_for: lock.map(s) },
            load,
            memory: memory.map(|(gib, pressure)| Memory {
                total: 16 << 30,
                available: gib << 30,
                pressure: pressure as f32,
            }),
            power: if battery { Power::Battery(50) } else { Power::Mains },
            own_build,
            disk: if full { FULL } else { None },
            jobs,
            ..Facts::default()
        })
}

fn settings() -> impl Strategy<Value = Settings> {
    let preset = prop::sample::select(vec![Preset::Away, Preset::ALittle, Preset::Dedicated, Preset::Custom]);
    let cores = || prop_oneof![(0..12_u32).prop_map(Cores::AllBut), (0..12_u32).prop_map(Cores::Count)];
    (preset, cores(), cores(), 10..=80_u8).prop_map(|(preset, cores_away, cores_in_use, load_gate_percent)| Settings {
        preset,
        cores_away,
        cores_in_use,
        load_gate_percent,
        ..Settings::default()
    })
}

proptest! {
    /// Whatever was before: with somebody there nothing runs, in the same step.
    #[test]
    fn input_takes_everything_at_once(past in prop::collection::vec((facts(), 0..8000_u64), 0..40), jobs in 0..9_u32) {
        let mut desk = Desk::preset(Preset::Away);
        for (facts, wait) in past {
            desk.at(&facts);
            desk.now += ms(wait);
        }
        let decision = desk.at(&Facts { jobs, ..typing() });
        prop_assert_eq!(decision.slots, 0);
        prop_assert_eq!(decision.state, State::Held(HeldReason::InUse));
        prop_assert!(matches!(decision.act, Act::Stop | Act::Kill));
    }

    /// Slots need the switch, no pause and no problem, and are never more than the settings' most.
    #[test]
    fn nothing_is_given_without_leave(
        settings in settings(),
        steps in prop::collection::vec((facts(), 0..8000_u64, prop::bool::weighted(0.1), prop::bool::weighted(0.1)), 1..60),
    ) {
        let most = settings.most(CORES);
        let mut desk = Desk::new(settings);
        for (mut facts, wait, paused, blocked) in steps {
            facts.pause = paused.then_some(Pause { until: None, finish: false });
            facts.blocked = blocked.then(|| "S1".to_owned());
            let decision = desk.at(&facts);
            prop_assert!(decision.slots <= most);
            prop_assert!(decision.slots == 0 || facts.on && !paused && !blocked);
            prop_assert_eq!(decision.slots > 0, decision.state == State::Giving);
            prop_assert!(decision.wake_at.is_none_or(|at| at > desk.now), "it would spin");
            desk.now += ms(wait);
        }
    }

    /// A pause ends at its time: not sooner, not later, whatever the wall clock does meanwhile.
    #[test]
    fn a_pause_ends_at_its_time(
        length in 1..200_000_u64,
        clock in prop::collection::vec((0..7_u8, 0..1440_u16), 1..20),
        parts in prop::collection::vec(0.0..1.0_f64, 1..20),
    ) {
        let mut desk = Desk::preset(Preset::Dedicated);
        let until = desk.now + s(length);
        let facts = Facts { pause: Some(Pause { until: Some(until), finish: false }), ..away() };
        for (part, (weekday, minute)) in parts.iter().zip(clock.iter().cycle()) {
            desk.wall = Wall { weekday: *weekday, minute: *minute, second: 0 };
            desk.now = until - s(length).mul_f64(*part);
            let decision = desk.at(&facts);
            if desk.now < until {
                prop_assert_eq!(decision.state, State::Paused(Some(until)));
                prop_assert_eq!(decision.wake_at, Some(until));
            }
        }
        desk.now = until;
        prop_assert!(!matches!(desk.at(&facts).state, State::Paused(_)));
        prop_assert_eq!(desk.during(START_AFTER, &facts).slots, 7);
    }

    /// Slots that the owner's load took come back after the calm of START_AFTER at the soonest, and shrink only after
    /// SHRINK_AFTER of need.
    #[test]
    fn load_moves_slots_no_faster_than_said(loads in prop::collection::vec((0..=100_u8, 1..6_u64), 1..80)) {
        let mut desk = Desk::preset(Preset::Dedicated);
        let mut slots = desk.during(s(20), &away()).slots;
        let left = |load: u8| (u64::from(CORES) * u64::from(100 - load) / 100).min(7) as u32;
        let mut past = vec![(desk.now, left(0))];
        for (load, quarters) in loads {
            for _ in 0..quarters {
                desk.now += ms(250);
                past.push((desk.now, left(load)));
                let now = desk.at(&Facts { load: Some(load), ..away() }).slots;
                let within = |time: Duration| past.iter().rev().take_while(move |(at, _)| *at + time > desk.now);
                if now > slots {
                    prop_assert!(within(START_AFTER).all(|(_, left)| *left >= now), "grew to {now}: {past:?}");
                } else if now < slots {
                    prop_assert!(within(SHRINK_AFTER).all(|(_, left)| *left <= now), "shrank to {now}: {past:?}");
                }
                slots = now;
            }
        }
    }
}
