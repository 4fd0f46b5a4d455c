//! Members that were cut off because they flooded, as links and the core see them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use potluck_model::ids::NodeId;
use potluck_model::outcasts;

/// Who has to stay away, and how often members connect.
pub struct Outcasts {
    began: Instant,
    state: Mutex<outcasts::Outcasts>,
}

impl Default for Outcasts {
    fn default() -> Self {
        Self { began: Instant::now(), state: Mutex::default() }
    }
}

impl Outcasts {
    /// A member flooded: how long it has to stay away from now on.
    pub fn cast_out(&self, node: NodeId) -> Duration {
        let now = self.began.elapsed();
        self.lock().cast_out(node, now)
    }

    /// How much longer this member has to stay away.
    pub fn away(&self, node: NodeId) -> Option<Duration> {
        self.lock().away(node, self.began.elapsed())
    }

    /// A member connects. False: it has to stay away, or connects too often.
    pub fn may_connect(&self, node: NodeId) -> bool {
        let now = self.began.elapsed();
        self.lock().may_connect(node, now)
    }

    fn lock(&self) -> MutexGuard<'_, outcasts::Outcasts> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
