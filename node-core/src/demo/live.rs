//! A build that runs: how far its jobs are at a moment, found without looking at all of them.

use potluck_api::build::Counts;

use super::builds::{self, Build, Ran};
use super::schedule::Job;

/// See the module.
pub(super) struct Live {
    pub(super) build: Build,
    pub(super) ran: Ran,
    /// Milliseconds of the simulation at its start; it may lie before the simulation's.
    pub(super) began: i64,
    /// When jobs ended, in that order, and how many of each kind had by then.
    ended: Vec<(u32, Counts)>,
    took_ms_max: u32,
    wait_ms_max: u32,
}

/// How far it is.
pub(super) struct Progress<'a> {
    pub(super) counts: Counts,
    pub(super) done: u32,
    pub(super) running: Vec<&'a Job>,
    pub(super) waiting: u32,
}

impl Live {
    pub(super) fn new(build: Build, began: i64) -> Self {
        let ran = build.run();
        let mut live = Self { build, ran, began, ended: Vec::new(), took_ms_max: 0, wait_ms_max: 0 };
        live.index();
        live
    }

    /// Runs it anew, as with a machine that is taken back.
    pub(super) fn again(&mut self) {
        self.ran = self.build.run();
        self.index();
    }

    fn index(&mut self) {
        let jobs = &self.ran.jobs;
        let mut ends: Vec<(u32, u8)> = jobs.iter().map(|j| (j.end_ms(), self.ran.wanted[j.wanted].kind)).collect();
        ends.sort_unstable();
        let mut counts = Counts::default();
        let count = |(end, kind): (u32, u8)| {
            *builds::count_of(&mut counts, kind) += 1;
            (end, counts)
        };
        self.ended = ends.into_iter().map(count).collect();
        self.took_ms_max = jobs.iter().map(|j| j.took_ms).max().unwrap_or(0);
        self.wait_ms_max = jobs.iter().map(|j| j.wait_ms).max().unwrap_or(0);
    }

    /// When its last job ends.
    pub(super) fn end_ms(&self) -> u32 {
        self.ended.last().map_or(0, |(end, _)| *end)
    }

    /// After so many milliseconds.
    pub(super) fn at(&self, ms: u32) -> Progress<'_> {
        let done = self.ended.partition_point(|(end, _)| *end <= ms);
        let counts = if done == 0 { Counts::default() } else { self.ended[done - 1].1 };
        // In order of their start: who could run now began not longer ago than the longest takes.
        let (before, after) = self.ran.jobs.split_at(self.ran.jobs.partition_point(|j| j.start_ms <= ms));
        let (took_ms_max, wait_ms_max) = (self.took_ms_max, self.wait_ms_max);
        let recent = before.iter().rev().take_while(|j| j.start_ms + took_ms_max > ms);
        let soon = after.iter().take_while(|j| j.start_ms <= ms + wait_ms_max);
        Progress {
            counts,
            done: done as u32,
            running: recent.filter(|j| j.end_ms() > ms).collect(),
            waiting: soon.filter(|j| j.start_ms - j.wait_ms <= ms).count() as u32,
        }
    }
}
