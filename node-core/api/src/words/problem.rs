//! Problems of UX 2.9: the words of each code, for real nodes and simulated ones.

/// What is said of one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Stable code.
    pub code: &'static str,
    /// One sentence for everybody; `{}` is what it is about.
    pub headline: &'static str,
    /// Words on the button.
    pub label: &'static str,
    /// Changes the tray's icon to *Attention*.
    pub attention: bool,
}

/// Worst first.
pub const ALL: &[Known] = &[
    Known {
        code: "S1",
        headline: "This computer can't lock builds in a safe box, so it won't help others.",
        label: "Show how to enable",
        attention: true,
    },
    Known {
        code: "A1",
        headline: "Anyone on this network with the token can control Potluck.",
        label: "Limit to this computer",
        attention: true,
    },
    Known {
        code: "D1",
        headline: "Almost no disk space left, so Potluck stopped storing things.",
        label: "Free space",
        attention: true,
    },
    Known {
        code: "D2",
        headline: "Files on this computer's disk changed by themselves.",
        label: "Show what others keep here",
        attention: true,
    },
    Known {
        code: "N2",
        headline: "This network hides computers from each other.",
        label: "Connect by address",
        attention: true,
    },
    Known {
        code: "N3",
        headline: "Other computers can see this one but not reach it.",
        label: "Show the firewall rule",
        attention: true,
    },
    Known {
        code: "N4",
        headline: "This Wi-Fi doesn't let computers talk to each other.",
        label: "What to do",
        attention: true,
    },
    Known { code: "C1", headline: "The clock of {} is wrong.", label: "Set the clock", attention: true },
    Known {
        code: "M1",
        headline: "Builds need more memory than this computer can spare.",
        label: "Lend fewer cores",
        attention: true,
    },
    Known { code: "T1", headline: "{} can't be used on other machines yet.", label: "Details", attention: true },
    Known { code: "F1", headline: "{} sent too much and was cut off.", label: "Show machines", attention: true },
    Known { code: "Q1", headline: "{} gave a wrong result.", label: "Remove its files", attention: true },
    Known { code: "Q2", headline: "{} gave a wrong result.", label: "Show machines", attention: true },
    Known { code: "R1", headline: "{} sent results that were not taken.", label: "Show machines", attention: true },
    Known {
        code: "V1",
        headline: "{} has another Potluck; update the older one to share work.",
        label: "Copy message to colleague",
        attention: false,
    },
    Known {
        code: "K1",
        headline: "This computer's key is locked in the keyring.",
        label: "Check again",
        attention: true,
    },
    Known { code: "T2", headline: "This computer has lost its team's list.", label: "Get it back", attention: true },
    Known {
        code: "K2",
        headline: "This computer's key was lost, so it has a new one.",
        label: "Join a team",
        attention: true,
    },
    Known {
        code: "R2",
        headline: "This computer was removed from the team {}.",
        label: "Join a team",
        attention: true,
    },
    Known { code: "N1", headline: "No other computers are on right now.", label: "Invite someone", attention: false },
];

/// The words of a code.
pub fn known(code: &str) -> Option<&'static Known> {
    ALL.iter().find(|known| known.code == code)
}

/// Its place in the order, worst first; unknown ones last.
pub fn rank(code: &str) -> usize {
    ALL.iter().position(|known| known.code == code).unwrap_or(ALL.len())
}
