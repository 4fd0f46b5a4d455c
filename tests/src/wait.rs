//! Waiting for an event with a deadline; a test never waits blindly.

use std::time::{Duration, Instant};

use crate::{Outcome, Trouble};

/// How often a state that announces nothing is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `probe` has an answer, or says what did not happen within `deadline`.
pub fn wait_until<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if start.elapsed() > deadline {
            return Err(Trouble::new(format!("{what}: did not happen within {deadline:?}")));
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}
