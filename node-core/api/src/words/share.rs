//! What sharing says of itself: the status in a sentence (window) and in short (tray, command line), what happens next,
//! and what the settings mean together.

use super::{counted, list};
use crate::view::{Battery, Cores, HeldReason, Helped, Hours, Preset, ShareSettings, ShareState};

/// The clock of this place, for times in sentences.
#[derive(Clone, Copy)]
pub struct Clock<'a> {
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
    /// What local time is ahead of UTC at a moment, in seconds: it changes with summer time.
    pub ahead_s: &'a dyn Fn(u64) -> i32,
}

const DAY_NAMES: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Clock<'_> {
    /// Days since 1970 and minutes after midnight, local.
    fn local(&self, at_ms: u64) -> (i64, i64) {
        let seconds = (at_ms / 1000) as i64 + i64::from((self.ahead_s)(at_ms));
        (seconds.div_euclid(86_400), seconds.rem_euclid(86_400) / 60)
    }

    /// "14:30", "tomorrow 08:00", "Friday 18:00". Beyond a week only the day's name would lie, so the days are counted.
    pub fn time(&self, at_ms: u64) -> String {
        let ((today, _), (day, minute)) = (self.local(self.now_ms), self.local(at_ms));
        let time = time_of_day(minute as u16);
        match day - today {
            ..=0 => time,
            1 => format!("tomorrow {time}"),
            // The first day of 1970 was a Thursday.
            2..=6 => format!("{} {time}", DAY_NAMES[(day + 3).rem_euclid(7) as usize]),
            days => format!("{time} in {days} days"),
        }
    }
}

fn time_of_day(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60 % 24, minute % 60)
}

/// What sentences need to know beside the state.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// Logical cores.
    pub cores: u32,
    /// Slots that are given when the person is away.
    pub slots_max: u32,
    /// Settings.
    pub settings: &'a ShareSettings,
    /// It has a battery.
    pub has_battery: bool,
    /// Something tells whether the person is there.
    pub knows_presence: bool,
    /// Clock.
    pub clock: Clock<'a>,
}

/// Status sentence of the window.
pub fn sentence(state: &ShareState, helping: &[Helped], around: &Around) -> String {
    let time = |at: u64| around.clock.time(at);
    match state {
        ShareState::Off => "Sharing is off.".into(),
        ShareState::Paused { until_ms: Some(at) } => format!("Sharing is paused until {}.", time(*at)),
        ShareState::Paused { until_ms: None } => "Sharing is paused until you turn it back on.".into(),
        ShareState::Held { reason, resumes_ms } => {
            let why = match reason {
                HeldReason::InUse if !around.knows_presence => "Somebody may be using this computer",
                HeldReason::InUse => "You're using this computer",
                HeldReason::Battery => "This computer runs on its battery",
                HeldReason::Schedule => "It's outside the hours that you set",
                HeldReason::CpuBusy => "Your programs need the processor",
                HeldReason::Memory => "Your programs need the memory",
                HeldReason::Disk => "The disk is nearly full",
                HeldReason::OwnBuild => "Your own build is running",
            };
            match (reason, resumes_ms) {
                (HeldReason::Schedule, Some(at)) => format!("{why}, so nothing is shared until {}.", time(*at)),
                _ => format!("{why}, so nothing is shared right now."),
            }
        }
        ShareState::Ready { slots } => {
            format!("Ready to help with {} of {}.", slots, counted(around.cores.into(), "core", "cores"))
        }
        ShareState::Helping { slots, jobs, .. } => {
            let names: Vec<&str> = helping.iter().map(|helped| helped.name.as_str()).take(3).collect();
            let more = helping.len().saturating_sub(names.len());
            let whom = match (names.is_empty(), more) {
                (true, _) => "others".to_owned(),
                (false, 0) => list(&names),
                (false, more) => format!("{} and {}", names.join(", "), counted(more as u64, "other", "others")),
            };
            format!("Helping {whom} with {jobs} of {}.", counted((*slots).into(), "core", "cores"))
        }
        ShareState::Finishing { jobs } => {
            format!("Finishing {}, then sharing is paused.", counted((*jobs).into(), "job", "jobs"))
        }
        ShareState::Blocked { problem } if problem == "S1" => {
            "This computer can't lock builds in a safe box, so it doesn't help others.".into()
        }
        ShareState::Blocked { problem } if problem == "role" => {
            "In its team this computer only submits, so it doesn't help others.".into()
        }
        ShareState::Blocked { .. } => "Something needs you before this computer can help: see Help & checks.".into(),
    }
}

/// The same in short: tray, command line.
pub fn short(state: &ShareState, clock: &Clock) -> String {
    let cores = |n: u32| counted(n.into(), "core", "cores");
    match state {
        ShareState::Off => "Not sharing".into(),
        ShareState::Paused { until_ms: Some(at) } => format!("Not sharing – paused until {}", clock.time(*at)),
        ShareState::Paused { until_ms: None } => "Not sharing – paused".into(),
        ShareState::Held { reason, resumes_ms } => match (reason, resumes_ms) {
            (HeldReason::InUse, _) => "Waiting – you're using this PC".into(),
            (HeldReason::Battery, _) => "Waiting – on battery".into(),
            (HeldReason::Schedule, Some(at)) => format!("Waiting – until {}", clock.time(*at)),
            (HeldReason::Schedule, None) => "Waiting – outside your hours".into(),
            (HeldReason::CpuBusy, _) => "Waiting – your programs are busy".into(),
            (HeldReason::Memory, _) => "Waiting – memory is short".into(),
            (HeldReason::Disk, _) => "Waiting – the disk is nearly full".into(),
            (HeldReason::OwnBuild, _) => "Building – not sharing right now".into(),
        },
        ShareState::Ready { slots } => format!("Ready to help – {}", cores(*slots)),
        ShareState::Helping { slots, jobs, people } => {
            let people = counted((*people).into(), "person", "people");
            format!("Helping {people} – {jobs} of {}", cores(*slots))
        }
        ShareState::Finishing { jobs } => {
            format!("Finishing {}, then pausing", counted((*jobs).into(), "job", "jobs"))
        }
        ShareState::Blocked { problem } if problem == "S1" => "The safe box doesn't work".into(),
        ShareState::Blocked { problem } if problem == "role" => "Not sharing – it only submits".into(),
        ShareState::Blocked { .. } => "Potluck needs you".into(),
    }
}

/// What happens next by itself, or what would make it happen.
pub fn next(state: &ShareState, around: &Around) -> Option<String> {
    let lend = format!("It will lend {}", of_cores(around.slots_max, around.cores));
    match state {
        ShareState::Paused { until_ms: Some(at) } => Some(format!("It will help again {}.", at_time(&around.clock, *at))),
        ShareState::Held { reason, resumes_ms } => Some(match reason {
            HeldReason::InUse if !around.knows_presence => {
                "Nothing here tells whether somebody uses this computer, so it counts as in use. Choose \"Dedicated build \
                 machine\" if nobody works at it."
                    .into()
            }
            HeldReason::InUse => format!("{lend} after {} without input.", time_span(around.settings.away_after_s)),
            HeldReason::Battery => match around.settings.battery {
                Battery::Above50 => format!("{lend} when it is plugged in or charged above 50 %."),
                Battery::Above80 => format!("{lend} when it is plugged in or charged above 80 %."),
                Battery::Never | Battery::Always => format!("{lend} when it is plugged in."),
            },
            HeldReason::Schedule => match resumes_ms {
                Some(at) => format!("It will help again {}.", at_time(&around.clock, *at)),
                None => "It never helps in the hours that are set.".into(),
            },
            HeldReason::CpuBusy => format!("{lend} when your programs leave the processor alone."),
            HeldReason::Memory => format!("{lend} when there is more free memory."),
            HeldReason::Disk => format!("{lend} when there is room on the disk."),
            HeldReason::OwnBuild => format!("{lend} when your build is done."),
        }),
        _ => None,
    }
}

/// "at 14:30", "tomorrow at 08:00" would need two more forms: the time says the day itself.
fn at_time(clock: &Clock, at_ms: u64) -> String {
    let time = clock.time(at_ms);
    if time.starts_with(|c: char| c.is_ascii_digit()) { format!("at {time}") } else { time }
}

fn of_cores(slots: u32, cores: u32) -> String {
    format!("{slots} of {}", counted(cores.into(), "core", "cores"))
}

/// "3 minutes", "90 seconds".
fn time_span(seconds: u32) -> String {
    if seconds.is_multiple_of(60) {
        counted((seconds / 60).into(), "minute", "minutes")
    } else {
        counted(seconds.into(), "second", "seconds")
    }
}

/// So many of this machine's cores.
pub fn cores_of(cores: Cores, all: u32) -> u32 {
    match cores {
        Cores::AllBut(kept) => all.saturating_sub(kept).max(1),
        Cores::Count(count) => count.min(all),
    }
}

/// What the settings mean together. `never`: why they can never be fulfilled, see [`Never`].
pub fn rule(settings: &ShareSettings, cores: u32, has_battery: bool, never: Option<Never>) -> String {
    if let Some(never) = never {
        let why = match never {
            Never::NoHours => "no day of the week is chosen",
            Never::Memory => "more memory is to stay free than there is",
            Never::Disk => "more room is to stay free on the disk than it has",
        };
        return format!("With these settings this computer never helps: {why}.");
    }
    let away = cores_of(settings.cores_away, cores).max(1);
    let mut when = match settings.preset {
        Preset::Dedicated => Vec::new(),
        _ => vec![format!("when nobody has used it for {}", time_span(settings.away_after_s))],
    };
    if has_battery {
        match settings.battery {
            Battery::Never => when.push("it's plugged in".into()),
            Battery::Above50 => when.push("it's plugged in or charged above 50 %".into()),
            Battery::Above80 => when.push("it's plugged in or charged above 80 %".into()),
            Battery::Always => {}
        }
    }
    // Without presence there is no "when" yet.
    if settings.preset == Preset::Dedicated
        && let Some(first) = when.first_mut()
    {
        first.insert_str(0, "when ");
    }
    let mut text =
        format!("With these settings this computer helps {}, with {}", hours(&settings.hours), of_cores(away, cores));
    if !when.is_empty() {
        text.push_str(", ");
        text.push_str(&when.join(" and "));
    }
    let in_use = match settings.preset {
        Preset::ALittle => (cores / 4).max(1).min(away),
        Preset::Custom => cores_of(settings.cores_in_use, cores),
        Preset::Away | Preset::Dedicated => 0,
    };
    if in_use > 0 {
        text.push_str(&format!(", and with {} while you work", of_cores(in_use, cores)));
    }
    text.push('.');
    text
}

/// Why another machine gives nothing, by the code that it told; None: it does.
pub fn machine(code: &str) -> Option<&'static str> {
    match code {
        "" => None,
        "in_use" => Some("In use"),
        "own_build" => Some("Building its own"),
        "battery" => Some("On battery"),
        "schedule" => Some("Outside its hours"),
        "cpu_busy" => Some("Busy with other programs"),
        "memory" => Some("Short of memory"),
        "disk" => Some("Disk is full"),
        "paused" => Some("Paused"),
        "off" => Some("Not sharing"),
        _ => Some("Not sharing now"),
    }
}

/// The same for an explicit number of slots (`potluck node --serve N`).
pub fn promise(slots: u32) -> String {
    format!("This computer was started to help with {} at any time.", counted(slots.into(), "core", "cores"))
}

/// Why settings can never be fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {
    /// Hours without a day.
    NoHours,
    /// More memory is to be kept free than there is.
    Memory,
    /// More disk is to be kept free than there is.
    Disk,
}

fn hours(hours: &[Hours]) -> String {
    if hours.is_empty() {
        return "any time".into();
    }
    let parts: Vec<String> = hours.iter().filter(|hours| hours.days & 0x7f != 0).map(one_time).collect();
    list(&parts.iter().map(String::as_str).collect::<Vec<_>>())
}

fn one_time(hours: &Hours) -> String {
    let days = days(hours.days);
    let (from, to) = (time_of_day(hours.from_min), time_of_day(hours.to_min));
    match (hours.from_min, hours.to_min % 1440) {
        (from, to) if from % 1440 == to => days,
        (_, 0) => format!("{days} after {from}"),
        (0, _) => format!("{days} before {to}"),
        (start, end) if end < start => format!("{days} after {from} until {to}"),
        _ => format!("{days} from {from} to {to}"),
    }
}

fn days(mask: u8) -> String {
    match mask & 0x7f {
        0x7f => "every day".into(),
        0x1f => "on weekdays".into(),
        0x60 => "at weekends".into(),
        mask => {
            let names: Vec<String> =
                (0..7).filter(|day| mask & 1 << day != 0).map(|day| format!("{}s", DAY_NAMES[day])).collect();
            format!("on {}", list(&names.iter().map(String::as_str).collect::<Vec<_>>()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday 2024-01-01, 12:00 UTC.
    const NOON_MS: u64 = 1_704_110_400_000;
    const HOUR_MS: u64 = 3_600_000;

    fn utc(_: u64) -> i32 {
        0
    }

    fn clock() -> Clock<'static> {
        Clock { now_ms: NOON_MS, ahead_s: &utc }
    }

    fn all(state: &ShareState) -> (String, String, Option<String>) {
        let settings = ShareSettings::default();
        let around = Around {
            cores: 8,
            slots_max: 7,
            settings: &settings,
            has_battery: true,
            knows_presence: true,
            clock: clock(),
        };
        let helping = ["mara", "jan"].map(|name| Helped { name: name.into(), jobs: 3 });
        (sentence(state, &helping, &around), short(state, &around.clock), next(state, &around))
    }

    fn held(reason: HeldReason) -> ShareState {
        let resumes_ms = (reason == HeldReason::Schedule).then_some(NOON_MS + 6 * HOUR_MS);
        ShareState::Held { reason, resumes_ms }
    }

    #[test]
    fn every_state_says_what_is_and_why() {
        let table = [
            (ShareState::Off, "Sharing is off.", "Not sharing", ""),
            (
                ShareState::Paused { until_ms: Some(NOON_MS + HOUR_MS * 5 / 2) },
                "Sharing is paused until 14:30.",
                "Not sharing – paused until 14:30",
                "It will help again at 14:30.",
            ),
            (
                ShareState::Paused { until_ms: Some(NOON_MS + 20 * HOUR_MS) },
                "Sharing is paused until tomorrow 08:00.",
                "Not sharing – paused until tomorrow 08:00",
                "It will help again tomorrow 08:00.",
            ),
            (
                ShareState::Paused { until_ms: None },
                "Sharing is paused until you turn it back on.",
                "Not sharing – paused",
                "",
            ),
            (
                held(HeldReason::InUse),
                "You're using this computer, so nothing is shared right now.",
                "Waiting – you're using this PC",
                "It will lend 7 of 8 cores after 3 minutes without input.",
            ),
            (
                held(HeldReason::Battery),
                "This computer runs on its battery, so nothing is shared right now.",
                "Waiting – on battery",
                "It will lend 7 of 8 cores when it is plugged in.",
            ),
            (
                held(HeldReason::Schedule),
                "It's outside the hours that you set, so nothing is shared until 18:00.",
                "Waiting – until 18:00",
                "It will help again at 18:00.",
            ),
            (
                held(HeldReason::CpuBusy),
                "Your programs need the processor, so nothing is shared right now.",
                "Waiting – your programs are busy",
                "It will lend 7 of 8 cores when your programs leave the processor alone.",
            ),
            (
                held(HeldReason::Memory),
                "Your programs need the memory, so nothing is shared right now.",
                "Waiting – memory is short",
                "It will lend 7 of 8 cores when there is more free memory.",
            ),
            (
                held(HeldReason::Disk),
                "The disk is nearly full, so nothing is shared right now.",
                "Waiting – the disk is nearly full",
                "It will lend 7 of 8 cores when there is room on the disk.",
            ),
            (
                held(HeldReason::OwnBuild),
                "Your own build is running, so nothing is shared right now.",
                "Building – not sharing right now",
                "It will lend 7 of 8 cores when your build is done.",
            ),
            (ShareState::Ready { slots: 7 }, "Ready to help with 7 of 8 cores.", "Ready to help – 7 cores", ""),
            (
                ShareState::Helping { slots: 7, jobs: 6, people: 2 },
                "Helping mara and jan with 6 of 7 cores.",
                "Helping 2 people – 6 of 7 cores",
                "",
            ),
            (
                ShareState::Finishing { jobs: 1 },
                "Finishing 1 job, then sharing is paused.",
                "Finishing 1 job, then pausing",
                "",
            ),
            (
                ShareState::Blocked { problem: "S1".into() },
                "This computer can't lock builds in a safe box, so it doesn't help others.",
                "The safe box doesn't work",
                "",
            ),
            (
                ShareState::Blocked { problem: "D1".into() },
                "Something needs you before this computer can help: see Help & checks.",
                "Potluck needs you",
                "",
            ),
        ];
        for (state, long, brief, then) in table {
            let then = (!then.is_empty()).then(|| then.to_owned());
            assert_eq!(all(&state), (long.to_owned(), brief.to_owned(), then), "{state:?}");
        }
    }

    #[test]
    fn one_is_no_plural_and_many_are_not_listed() {
        let settings = ShareSettings::default();
        let around = |cores| Around {
            cores,
            slots_max: 1,
            settings: &settings,
            has_battery: false,
            knows_presence: false,
            clock: clock(),
        };
        let helping = |n: usize| vec![Helped { name: "mara".into(), jobs: 1 }; n];
        let state = ShareState::Helping { slots: 1, jobs: 1, people: 1 };
        assert_eq!(sentence(&state, &helping(1), &around(1)), "Helping mara with 1 of 1 core.");
        assert_eq!(sentence(&state, &helping(4), &around(1)), "Helping mara, mara, mara and 1 other with 1 of 1 core.");
        assert_eq!(sentence(&state, &[], &around(1)), "Helping others with 1 of 1 core.");
        assert_eq!(short(&state, &clock()), "Helping 1 person – 1 of 1 core");
        let blind = next(&held(HeldReason::InUse), &around(2)).unwrap();
        assert!(blind.starts_with("Nothing here tells whether somebody uses this computer"), "{blind}");
    }

    #[test]
    fn times_are_those_of_this_place_also_across_summer_time() {
        // An hour ahead from the second day on.
        let ahead = |at: u64| if at > NOON_MS + 12 * HOUR_MS { 3600 } else { 0 };
        let clock = Clock { now_ms: NOON_MS, ahead_s: &ahead };
        assert_eq!(clock.time(NOON_MS + HOUR_MS), "13:00");
        assert_eq!(clock.time(NOON_MS + 19 * HOUR_MS), "tomorrow 08:00");
        assert_eq!(clock.time(NOON_MS + 72 * HOUR_MS), "Thursday 13:00");
        assert_eq!(clock.time(NOON_MS + 9 * 24 * HOUR_MS), "13:00 in 9 days");
    }

    #[test]
    fn the_rule_is_one_sentence() {
        let after_work = Hours { days: 0x1f, from_min: 18 * 60, to_min: 0 };
        let with = |change: &dyn Fn(&mut ShareSettings), battery| {
            let mut settings = ShareSettings::default();
            change(&mut settings);
            rule(&settings, 8, battery, None)
        };
        assert_eq!(
            with(&|s| s.hours = vec![after_work.clone()], false),
            "With these settings this computer helps on weekdays after 18:00, with 7 of 8 cores, when nobody has used it \
             for 3 minutes."
        );
        assert_eq!(
            with(&|_| {}, true),
            "With these settings this computer helps any time, with 7 of 8 cores, when nobody has used it for 3 minutes \
             and it's plugged in."
        );
        assert_eq!(
            with(&|s| (s.preset, s.cores_away) = (Preset::Dedicated, Cores::AllBut(0)), false),
            "With these settings this computer helps any time, with 8 of 8 cores."
        );
        assert_eq!(
            with(&|s| s.preset = Preset::Dedicated, true),
            "With these settings this computer helps any time, with 7 of 8 cores, when it's plugged in."
        );
        assert_eq!(
            with(&|s| (s.preset, s.away_after_s, s.battery) = (Preset::ALittle, 60, Battery::Above50), true),
            "With these settings this computer helps any time, with 7 of 8 cores, when nobody has used it for 1 minute \
             and it's plugged in or charged above 50 %, and with 2 of 8 cores while you work."
        );
        let mixed =
            vec![Hours { days: 0x60, from_min: 0, to_min: 0 }, Hours { days: 0x05, from_min: 22 * 60, to_min: 6 * 60 }];
        assert_eq!(
            with(&|s| s.hours = mixed.clone(), false),
            "With these settings this computer helps at weekends and on Mondays and Wednesdays after 22:00 until 06:00, \
             with 7 of 8 cores, when nobody has used it for 3 minutes."
        );
        assert_eq!(
            rule(&ShareSettings::default(), 8, true, Some(Never::NoHours)),
            "With these settings this computer never helps: no day of the week is chosen."
        );
    }
}
