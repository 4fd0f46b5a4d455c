//! What can go wrong in the Lab: one sentence, with what was being done in front of it.

use std::fmt;

/// A failure of the harness or of what it drives.
#[derive(Debug, Clone)]
pub struct Trouble(String);

/// What every fallible step of the Lab returns.
pub type Outcome<T> = Result<T, Trouble>;

impl Trouble {
    /// From a sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Trouble {}

impl From<std::io::Error> for Trouble {
    fn from(e: std::io::Error) -> Self {
        Self(e.to_string())
    }
}

impl From<rustix::io::Errno> for Trouble {
    fn from(e: rustix::io::Errno) -> Self {
        Self(e.to_string())
    }
}

impl From<serde_json::Error> for Trouble {
    fn from(e: serde_json::Error) -> Self {
        Self(format!("JSON: {e}"))
    }
}

/// Puts what was being done in front of an error.
pub trait Context<T> {
    /// `doing` is a phrase such as "starting worker 2".
    fn context(self, doing: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, doing: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|e| Trouble(format!("{}: {e}", doing())))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, doing: impl FnOnce() -> String) -> Outcome<T> {
        self.ok_or_else(|| Trouble(doing()))
    }
}
