//! Every sentence that more than one surface shows, so that tray, window and command line say the same.

pub mod problem;
pub mod reason;
pub mod share;

/// "1 core", "2 cores".
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// "mara", "mara and jan", "mara, jan and eva".
pub fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Nobody answers at the node's socket (UX 2.9, P1).
pub const NOT_RUNNING: &str = "Potluck isn't running in the background.";
