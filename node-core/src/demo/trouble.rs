//! The problems of UX 2.9, raised and cleared by scenes, and the checks that belong to them. Headlines, labels and what
//! matters most are those of `api::words::problem`.

use potluck_api::view::{Check, CheckState, Fix, FixAction, Problem};
use potluck_api::words::problem::{Known, known};
use serde_json::json;

/// One problem as it is simulated.
pub(super) struct Row {
    pub(super) code: &'static str,
    /// What its headline is about, where it names something.
    about: &'static str,
    detail: &'static str,
    does: Does,
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
        about: "",
        detail: "The self-test of the sandbox failed: user namespaces are switched off. Your own builds still use the team.",
        does: Does::View("help"),
        check: "sandbox",
    },
    Row {
        code: "A1",
        about: "",
        detail: "The window's web server listens on more than this computer.",
        does: Does::View("settings/network"),
        check: "web",
    },
    Row {
        code: "D1",
        about: "",
        detail: "1.1 GB are free on the disk of the cache; 5 GB are kept free. It goes on by itself when there is space.",
        does: Does::View("toolchains"),
        check: "disk",
    },
    Row {
        code: "N2",
        about: "",
        detail: "Multicast was sent on eth0 and nothing came back. Computers whose address is known are still used.",
        does: Does::View("settings/network"),
        check: "discovery",
    },
    Row {
        code: "N3",
        about: "",
        detail: "Two computers tried port 10555 here and got no answer. A firewall on this computer is the usual cause.",
        does: Does::Command("sudo ufw allow 10555/tcp"),
        check: "port",
    },
    Row {
        code: "N4",
        about: "",
        detail: "Computers of the team are on this network, and none of them can be reached. Guest networks often do that.",
        does: Does::View("help"),
        check: "network",
    },
    Row {
        code: "C1",
        about: "this computer",
        detail: "It differs from the clocks of four other computers by 7 minutes.",
        does: Does::Command("sudo timedatectl set-ntp true"),
        check: "clock",
    },
    Row {
        code: "M1",
        about: "",
        detail: "Three jobs were ended in the last ten minutes because memory was short.",
        does: Does::View("settings/sharing"),
        check: "memory",
    },
    Row {
        code: "T1",
        about: "gcc 14.2",
        detail: "cc1plus needs libisl.so.23, which was not found next to the compiler.",
        does: Does::View("toolchains"),
        check: "toolchains",
    },
    Row {
        code: "V1",
        about: "old-nuc",
        detail: "It runs 0.0.3 and speaks no version of the protocol that this computer speaks.",
        does: Does::Command("Please update Potluck on old-nuc: version 0.0.3 is too old for our team."),
        check: "versions",
    },
    Row {
        code: "K1",
        about: "",
        detail: "The desktop's keyring does not open. It is tried again when you unlock it.",
        does: Does::Call(|| json!({"call": "unlock_key"})),
        check: "key",
    },
    Row {
        code: "N1",
        about: "",
        detail: "None of the team's computers has answered for 30 s. They are tried again by themselves.",
        does: Does::View("settings/team"),
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
            title: bad.map_or_else(|| (*title).to_owned(), Row::headline),
            state: match bad {
                None => CheckState::Ok,
                Some(row) if row.known().attention => CheckState::Fail,
                Some(_) => CheckState::Warn,
            },
            code: bad.map(|row| row.code.to_owned()),
            note: bad.map_or(*note, |row| row.detail).to_owned(),
            fix: bad.map_or("", |row| row.known().label).to_owned(),
        }
    };
    CHECKS.iter().map(check).collect()
}

impl Row {
    fn known(&self) -> &'static Known {
        known(self.code).expect("a test looks each code up")
    }

    fn headline(&self) -> String {
        self.known().headline.replace("{}", self.about)
    }

    fn problem(&self, since_ms: u64) -> Problem {
        let action = match &self.does {
            Does::View(name) => FixAction::View { name: (*name).to_owned() },
            Does::Call(json) => FixAction::Call { json: json().to_string() },
            Does::Command(text) => FixAction::Command { text: (*text).to_owned() },
        };
        Problem {
            code: self.code.to_owned(),
            headline: self.headline(),
            detail: self.detail.to_owned(),
            fix: Fix { label: self.known().label.to_owned(), action },
            attention: self.known().attention,
            since_ms,
        }
    }
}
