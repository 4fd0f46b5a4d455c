//! How many jobs fit into the memory that the owner's programs leave.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Memory, SHRINK_AFTER, START_AFTER};

/// What a job is reckoned with while nothing is known of jobs here: most C++ takes less.
pub const JOB_BYTES_USUAL: u64 = 512 << 20;
/// The least: with less, a build of tiny files would fill the memory when it comes to its large ones.
pub const JOB_BYTES_MIN: u64 = 128 << 20;
/// Jobs that are remembered: the last minute or so of a build.
const JOBS_REMEMBERED: usize = 128;
/// Fewer say nothing.
const JOBS_KNOWN_MIN: usize = 16;

/// What jobs took here lately.
#[derive(Clone, Debug, Default)]
pub struct JobMemory {
    last: VecDeque<u64>,
}

impl JobMemory {
    /// A job ended that took so much.
    pub fn ended(&mut self, bytes: u64) {
        if self.last.len() >= JOBS_REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(bytes);
    }

    /// What nine of ten jobs take no more than.
    pub fn predicted(&self) -> u64 {
        if self.last.len() < JOBS_KNOWN_MIN {
            return JOB_BYTES_USUAL;
        }
        let mut sorted: Vec<u64> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        sorted[(sorted.len() * 9).div_ceil(10) - 1].max(JOB_BYTES_MIN)
    }
}

/// Jobs that may run: those that do, whose memory is taken already, and as many as fit into the rest.
pub(super) fn fits(memory: Memory, keep_free_bytes: u64, job_bytes: u64, jobs: u32) -> u32 {
    let job_bytes = if job_bytes == 0 { JOB_BYTES_USUAL } else { job_bytes };
    let more = memory.available.saturating_sub(keep_free_bytes) / job_bytes;
    jobs.saturating_add(u32::try_from(more).unwrap_or(u32::MAX))
}

/// A number of slots that follows a measured one: down when that has asked for it for [`SHRINK_AFTER`], up after
/// [`START_AFTER`], and each time only as far as all of that time agrees on.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) value: u32,
    /// A move: whether up, since when, and the value nearest to the present one that was seen.
    moving: Option<(bool, Duration, u32)>,
}

impl Level {
    pub(super) fn at(value: u32) -> Self {
        Self { value, moving: None }
    }

    pub(super) fn follow(&mut self, now: Duration, raw: u32) {
        if raw == self.value {
            self.moving = None;
            return;
        }
        let up = raw > self.value;
        let (since, nearest) = match self.moving {
            Some((direction, since, nearest)) if direction == up => {
                (since, if up { nearest.min(raw) } else { nearest.max(raw) })
            }
            _ => (now, raw),
        };
        self.moving = Some((up, since, nearest));
        if now >= since + if up { START_AFTER } else { SHRINK_AFTER } {
            (self.value, self.moving) = (nearest, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_ten_jobs_fit_and_few_say_nothing() {
        let mut jobs = JobMemory::default();
        (0..JOBS_KNOWN_MIN - 1).for_each(|_| jobs.ended(4 << 30));
        assert_eq!(jobs.predicted(), JOB_BYTES_USUAL);
        (0..JOBS_REMEMBERED as u64).for_each(|n| jobs.ended((n + 1) << 23));
        assert_eq!(jobs.predicted(), 116 << 23);
        (0..JOBS_REMEMBERED).for_each(|_| jobs.ended(1 << 20));
        assert_eq!(jobs.predicted(), JOB_BYTES_MIN);
    }
}
