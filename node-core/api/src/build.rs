//! Builds and their reports. Jobs travel as columns: a hundred thousand rows as objects would be 12 MB of JSON.

use serde::{Deserialize, Serialize};

use crate::view::views;

views! {
    /// How a build ended.
    #[derive(Copy, Eq)]
    enum BuildEnd {
        /// It runs.
        Running,
        /// All well.
        Ok,
        /// A command failed.
        Failed,
        /// The person stopped it.
        Cancelled,
    }

    /// What kind of work a bar is (UX 4.6).
    #[derive(Copy, Eq)]
    enum Kind {
        /// On another machine.
        Remote,
        /// Here, although it could have travelled.
        Here,
        /// Only this machine can do it.
        Only,
        /// It failed.
        Failed,
    }

    /// Jobs by kind. Their sum is the number of jobs.
    #[derive(Copy, Eq, Default)]
    struct Counts {
        /// Elsewhere.
        pub remote: u32,
        /// Here.
        pub here: u32,
        /// Only here.
        pub only: u32,
        /// Failed.
        pub failed: u32,
    }

    /// A build that runs.
    struct BuildLine {
        /// Id.
        pub id: String,
        /// Name.
        pub name: String,
        /// Jobs that ended.
        pub done: u32,
        /// Jobs that are known to come, if the build system tells; else None.
        pub total: Option<u32>,
        /// Jobs on other machines now.
        pub cores: u32,
        /// Jobs that wait for a core.
        pub waiting: u32,
        /// Since when.
        pub started_ms: u64,
        /// Jobs so far.
        pub counts: Counts,
    }

    /// A build in the list.
    struct BuildRow {
        /// Id.
        pub id: String,
        /// Name.
        pub name: String,
        /// Start.
        pub started_ms: u64,
        /// Duration.
        pub took_ms: u64,
        /// End.
        pub end: BuildEnd,
        /// Exit code, if it ran under `potluck run`.
        pub exit: Option<i32>,
        /// Jobs.
        pub counts: Counts,
        /// Time saved, if that can be said honestly (UX 2.8).
        pub saved_ms: Option<u64>,
        /// Other machines that took part.
        pub machines: u32,
    }

    /// Jobs that ran here for one reason.
    struct ReasonRow {
        /// Stable code.
        pub code: String,
        /// "Linking".
        pub title: String,
        /// Jobs.
        pub jobs: u32,
        /// Their time.
        pub time_ms: u64,
        /// Something can be done about it.
        pub avoidable: bool,
        /// What it means and what to do.
        pub text: String,
    }

    /// One machine's part in a build.
    struct MachineRow {
        /// Node id; empty: this PC.
        pub id: String,
        /// Name.
        pub name: String,
        /// Jobs whose results were used.
        pub jobs: u32,
        /// Their time on it.
        pub time_ms: u64,
        /// Times that its owner took it back during the build.
        pub reclaimed: u32,
    }

    /// A build, summed up.
    struct Report {
        /// The row.
        pub build: BuildRow,
        /// Command, if it is known.
        pub command: String,
        /// Working directory.
        pub cwd: String,
        /// Jobs.
        pub jobs: u32,
        /// Runs that were lost and done again elsewhere.
        pub repeated: u32,
        /// What one PC alone would have needed, if that can be said honestly.
        pub alone_ms: Option<u64>,
        /// Bytes sent and received.
        pub bytes_up: u64,
        /// Bytes received.
        pub bytes_down: u64,
        /// Who took part.
        pub machines: Vec<MachineRow>,
        /// Built here and why, most jobs first. Their jobs sum to `here + only` of the counts, failed ones aside.
        pub reasons: Vec<ReasonRow>,
        /// Findings in words.
        pub findings: Vec<String>,
        /// Toolchains that were used.
        pub toolchains: Vec<String>,
        /// First lines of the first errors.
        pub errors: Vec<ErrorRow>,
    }

    /// A job that failed.
    struct ErrorRow {
        /// Source.
        pub file: String,
        /// Exit code.
        pub exit: i32,
        /// Machine.
        pub machine: String,
        /// It failed there and worked here.
        pub differed: bool,
    }

    /// All jobs of a build as columns of the same length, in the order of their start.
    #[derive(Default)]
    struct JobColumns {
        /// Names that `machine` counts in; 0 is this PC.
        pub machines: Vec<String>,
        /// Codes that `reason` counts in; 0 is none.
        pub reasons: Vec<String>,
        /// Start, milliseconds after the build's: when it got a core. Finding out and waiting come before it.
        pub start_ms: Vec<u32>,
        /// From there to its end: travel, compile, finish.
        pub took_ms: Vec<u32>,
        /// 0 remote, 1 here, 2 only here, 3 failed: [`Kind`].
        pub kind: Vec<u8>,
        /// Index into `machines`.
        pub machine: Vec<u16>,
        /// Row on that machine: jobs of one row do not overlap.
        pub lane: Vec<u16>,
        /// Index into `reasons`.
        pub reason: Vec<u16>,
        /// Source.
        pub file: Vec<String>,
        /// Waiting for a core.
        pub wait_ms: Vec<u32>,
        /// Finding out what it needs.
        pub understand_ms: Vec<u32>,
        /// On the way and in the other machine's queue, both directions.
        pub travel_ms: Vec<u32>,
        /// The compiler's wall time.
        pub compile_ms: Vec<u32>,
        /// Putting the outputs in place.
        pub finish_ms: Vec<u32>,
        /// Times that it was taken back or lost before.
        pub repeats: Vec<u8>,
    }
}
