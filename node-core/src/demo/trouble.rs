//! The problems of UX 2.9, raised and cleared by scenes, and the checks that belong to them.

use potluck_api::view::{Check, CheckState, Fix, FixAction, Problem};
use serde_json::json;

/// What is said of one problem.
pub(super) struct Row {
    pub(super) code: &'static str,
    pub(super) headline: &'static str,
    detail: &'static str,
    label: &'static str,
    does: Does,
    attention: bool,
    /// Name of the check that shows it.
    check: &'static str,
}

enum Does {
    View(&'static str),
    Call(fn() -> serde_json::Value),
    Command(&'static str),
}

/// Worst first.
pub(super) const ALL: &[Row] = &[
    Row {
        code: "S1",
        headline: "This computer can't lock builds in a safe box, so it won't help others.",
        detail: "The self-test of the sandbox failed: user namespaces are switched off. Your own builds still use the team.",
        label: "Show how to enable",
        does: Does::View("help"),
        attention: true,
        check: "sandbox",
    },
    Row {
        code: "A1",
        headline: "Anyone on this network with the token can control Potluck.",
        detail: "The window's web server listens on more than this computer.",
        label: "Limit to this computer",
        does: Does::View("settings/network"),
        attention: true,
        check: "web",
    },
    Row {
        code: "D1",
        headline: "Almost no disk space left, so Potluck stopped storing things.",
        detail: "1.1 GB are free on the disk of the cache; 5 GB are kept free. It goes on by itself when there is space.",
        label: "Free 3.2 GB from Potluck's cache",
        does: Does::View("toolchains"),
        attention: true,
        check: "disk",
    },
    Row {
        code: "N2",
        headline: "This network hides computers from each other.",
        detail: "Multicast was sent on eth0 and nothing came back. Computers whose address is known are still used.",
        label: "Connect by address",
        does: Does::View("settings/network"),
        attention: true,
        check: "discovery",
    },
    Row {
        code: "N3",
        headline: "Other computers can see this one but not reach it.",
        detail: "Two computers tried port 10555 here and got no answer. A firewall on this computer is the usual cause.",
        label: "Show the firewall rule",
        does: Does::Command("sudo ufw allow 10555/tcp"),
        attention: true,
        check: "port",
    },
    Row {
        code: "N4",
        headline: "This Wi-Fi doesn't let computers talk to each other.",
        detail: "Computers of the team are on this network, and none of them can be reached. Guest networks often do that.",
        label: "What to do",
        does: Does::View("help"),
        attention: true,
        check: "network",
    },
    Row {
        code: "C1",
        headline: "This computer's clock is wrong.",
        detail: "It differs from the clocks of four other computers by 7 minutes.",
        label: "Set the clock",
        does: Does::Command("sudo timedatectl set-ntp true"),
        attention: true,
        check: "clock",
    },
    Row {
        code: "M1",
        headline: "Builds need more memory than this computer can spare.",
        detail: "Three jobs were ended in the last ten minutes because memory was short.",
        label: "Lend fewer cores",
        does: Does::View("settings/sharing"),
        attention: true,
        check: "memory",
    },
    Row {
        code: "T1",
        headline: "gcc 14.2 can't be used on other machines yet.",
        detail: "cc1plus needs libisl.so.23, which was not found next to the compiler.",
        label: "Details",
        does: Does::View("toolchains"),
        attention: true,
        check: "toolchains",
    },
    Row {
        code: "V1",
        headline: "old-nuc has an older Potluck (0.0.3); update it to share work.",
        detail: "It speaks no version of the protocol that this computer speaks.",
        label: "Copy message to colleague",
        does: Does::Command("Please update Potluck on old-nuc: version 0.0.3 is too old for our team."),
        attention: false,
        check: "versions",
    },
    Row {
        code: "K1",
        headline: "This computer's key lies in a file, because the keyring does not open.",
        detail: "The desktop's keyring is locked. The file can be read by you alone.",
        label: "Check again",
        does: Does::Call(|| json!({"call": "doctor"})),
        attention: false,
        check: "key",
    },
    Row {
        code: "N1",
        headline: "No other computers are on right now.",
        detail: "None of the team's computers has answered for 30 s. They are tried again by themselves.",
        label: "Invite someone",
        does: Does::View("settings/team"),
        attention: false,
        check: "peers",
    },
];

/// Name, title when all is well, what was found.
const CHECKS: &[(&str, &str, &str)] = &[
    ("node", "Running in the background", "Since this simulation began."),
    ("sandbox", "Safe box works", "The self-test passed."),
    ("presence", "Sees whether you are there", "By the simulation."),
    ("discovery", "Finds other computers", "Computers of the team were seen on this network."),
    ("port", "Can be reached", "Port 10555 was reached by two computers."),
    ("network", "Computers can talk to each other", "All that are on can be reached."),
    ("peers", "Other computers are on", "The team is here."),
    ("versions", "Versions fit", "All speak this version."),
    ("toolchains", "Compilers can travel", "All of them are packed."),
    ("disk", "Disk space", "182 GB free."),
    ("memory", "Memory", "11 GB free."),
    ("clock", "Clock", "It agrees with the others."),
    ("key", "Key is safe", "It lies in the desktop's keyring."),
    ("web", "The window is for this computer only", "Only this computer can open it."),
];

/// The row of a code.
pub(super) fn row(code: &str) -> Option<&'static Row> {
    ALL.iter().find(|row| row.code == code)
}

/// Those that are raised, worst first; each with its time.
pub(super) fn problems(raised: &[(&'static str, u64)]) -> Vec<Problem> {
    let since = |row: &'static Row| raised.iter().find(|(code, _)| *code == row.code).map(|(_, at)| (row, *at));
    ALL.iter().filter_map(since).map(|(row, since_ms)| row.problem(since_ms)).collect()
}

/// All checks, with what is raised.
pub(super) fn checks(raised: &[(&'static str, u64)]) -> Vec<Check> {
    let check = |(name, title, note): &(&str, &str, &str)| {
        let bad = ALL.iter().find(|row| row.check == *name && raised.iter().any(|(code, _)| *code == row.code));
        Check {
            name: (*name).to_owned(),
            title: bad.map_or(*title, |row| row.headline).to_owned(),
            state: match bad {
                None => CheckState::Ok,
                Some(row) if row.attention => CheckState::Fail,
                Some(_) => CheckState::Warn,
            },
            code: bad.map(|row| row.code.to_owned()),
            note: bad.map_or(*note, |row| row.detail).to_owned(),
            fix: bad.map_or("", |row| row.label).to_owned(),
        }
    };
    CHECKS.iter().map(check).collect()
}

impl Row {
    fn problem(&self, since_ms: u64) -> Problem {
        let action = match &self.does {
            Does::View(name) => FixAction::View { name: (*name).to_owned() },
            Does::Call(json) => FixAction::Call { json: json().to_string() },
            Does::Command(text) => FixAction::Command { text: (*text).to_owned() },
        };
        Problem {
            code: self.code.to_owned(),
            headline: self.headline.to_owned(),
            detail: self.detail.to_owned(),
            fix: Fix { label: self.label.to_owned(), action },
            attention: self.attention,
            since_ms,
        }
    }
}
