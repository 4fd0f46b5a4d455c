//! The simulation's own sentences: what a real node says of builds it says in its report.

use potluck_api::view::{Battery, HeldReason, ShareState};
use potluck_model::reason::Reason;

/// What the sentences of sharing are made of.
pub(super) struct ShareFacts<'a> {
    pub(super) state: &'a ShareState,
    pub(super) settings: &'a potluck_api::view::ShareSettings,
    pub(super) cores: u32,
    pub(super) slots_max: u32,
    pub(super) helping: &'a [potluck_api::view::Helped],
    /// Headline of the problem that blocks it.
    pub(super) blocked: Option<&'a str>,
    /// Minutes after midnight of a pause's end.
    pub(super) until_min: Option<u32>,
}

/// Sentence, next, rule, and whether the rule can never be fulfilled.
pub(super) struct ShareWords {
    pub(super) sentence: String,
    pub(super) next: Option<String>,
    pub(super) rule: String,
    pub(super) rule_is_warning: bool,
}

/// All that is said of sharing.
pub(super) fn share(facts: &ShareFacts<'_>) -> ShareWords {
    let (cores, slots_max) = (facts.cores, facts.slots_max);
    let lends = format!("{slots_max} of {cores} cores");
    let minutes = match facts.settings.away_after_s {
        s if s % 60 != 0 => format!("{s} seconds"),
        60 => "1 minute".to_owned(),
        s => format!("{} minutes", s / 60),
    };
    let so = "so nothing is shared right now.";
    let (sentence, next) = match facts.state {
        ShareState::Off => ("Sharing is off.".to_owned(), None),
        ShareState::Paused { until_ms: None } => ("Not sharing. Paused until you turn it back on.".to_owned(), None),
        ShareState::Paused { .. } => {
            let until = facts.until_min.unwrap_or(0);
            (format!("Not sharing. Paused until {:02}:{:02}.", until / 60 % 24, until % 60), None)
        }
        ShareState::Held { reason, .. } => match reason {
            HeldReason::InUse => (
                format!("You're using this computer, {so}"),
                Some(format!("It will lend {lends} after {minutes} without input.")),
            ),
            HeldReason::Battery => (
                format!("This computer runs on its battery, {so}"),
                Some(format!("It will lend {lends} when it is plugged in.")),
            ),
            HeldReason::Schedule => (
                format!("It is outside the hours that you set, {so}"),
                Some(format!("It will lend {lends} when they begin.")),
            ),
            HeldReason::CpuBusy => (
                format!("Other programs need the processor, {so}"),
                Some(format!("It will lend {lends} when they are done.")),
            ),
            HeldReason::Memory => {
                (format!("Memory is short, {so}"), Some(format!("It will lend {lends} when there is more of it.")))
            }
            HeldReason::Disk => {
                (format!("The disk is full, {so}"), Some(format!("It will lend {lends} when there is space.")))
            }
            HeldReason::OwnBuild => {
                (format!("Your own build has all cores, {so}"), Some(format!("It will lend {lends} when it is done.")))
            }
        },
        ShareState::Ready { slots } => (format!("Ready to help with {slots} of {cores} cores."), None),
        ShareState::Helping { slots, jobs, .. } => {
            let names: Vec<&str> = facts.helping.iter().map(|h| h.name.as_str()).collect();
            (format!("Helping {} with {jobs} of {slots} cores.", names.join(" and ")), None)
        }
        ShareState::Finishing { jobs } => {
            let jobs = if *jobs == 1 { "1 job".to_owned() } else { format!("{jobs} jobs") };
            (format!("Finishing {jobs}, then sharing pauses."), None)
        }
        ShareState::Blocked { .. } => (facts.blocked.unwrap_or("Something must be mended first.").to_owned(), None),
    };
    let never = facts.settings.hours.iter().any(|h| h.days & 0x7f == 0 || h.from_min == h.to_min);
    let hours = if facts.settings.hours.is_empty() { "any time" } else { "in the hours that you set" };
    let power = if facts.settings.battery == Battery::Never { " and it's plugged in" } else { "" };
    let rule = if never {
        "With these hours this computer never helps.".to_owned()
    } else {
        format!("This computer helps {hours}, with {lends}, when nobody has used it for {minutes}{power}.")
    };
    ShareWords { sentence, next, rule, rule_is_warning: never }
}

/// The reason of a code, if it is one.
pub(super) fn reason(code: &str) -> Option<Reason> {
    match code.strip_prefix("unsupported-flag:") {
        Some(flag) => Some(Reason::UnsupportedFlag(flag.to_owned())),
        None => Reason::ALL.iter().find(|r| r.code() == code).cloned(),
    }
}

/// "Faster here".
pub(super) fn reason_title(code: &str) -> String {
    match code {
        "link" => return "Linking".into(),
        "march-native" => return "-march=native".into(),
        _ => {}
    }
    if let Some(flag) = code.strip_prefix("unsupported-flag:") {
        return format!("Option {flag}");
    }
    let words = code.replace('-', " ");
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Finding of a report.
pub(super) fn long_link(file: &str, took_ms: u32) -> String {
    format!("Linking {file} took {} on one core.", seconds(took_ms))
}

/// Finding of a report.
pub(super) fn waited(jobs: usize) -> String {
    format!("{jobs} jobs waited 0.4 s or more for a free core.")
}

/// Finding of a report.
pub(super) fn taken_back(machine: &str, at_ms: u32, jobs: usize) -> String {
    let s = at_ms / 1000;
    format!("{machine} was taken back at {}:{:02}; {jobs} jobs ran again elsewhere.", s / 60, s % 60)
}

/// Finding of a report.
pub(super) fn taken_back_often(times: usize, jobs: usize) -> String {
    format!("Machines were taken back {times} times; {jobs} jobs ran again elsewhere.")
}

fn seconds(ms: u32) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
