//! Builds outside the core: where a job's processes began (`root`), what a directory's project is called (`project`), and
//! the history on disk (`store`). The core's part is `core::builds`.

pub mod project;
pub mod root;
pub mod store;

use potluck_model::builds::{Counts, End};
use serde::{Deserialize, Serialize};

/// Everything of a build but its jobs. Kept as JSON, so that fields can be added.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Command, if it is known.
    pub command: String,
    /// Working directory of the first job.
    pub cwd: String,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// Duration.
    pub took_ms: u64,
    /// None: it goes on.
    pub end: Option<End>,
    /// Exit code of `potluck run`.
    pub exit: Option<i32>,
    /// Jobs.
    pub counts: Counts,
    /// What one PC alone would have needed.
    pub alone_ms: Option<u64>,
    /// Who took part; the first is this PC.
    pub machines: Vec<MachinePart>,
    /// Reasons that jobs count in; the first is none.
    pub reasons: Vec<String>,
    /// Runs that were lost and done again.
    pub repeated: u32,
    /// Bytes sent.
    pub bytes_up: u64,
    /// Bytes received.
    pub bytes_down: u64,
    /// Compilers that were used elsewhere.
    pub toolchains: Vec<String>,
}

/// One machine's part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MachinePart {
    /// Node id; empty: this PC.
    pub id: String,
    /// Name.
    pub name: String,
    /// Jobs.
    pub jobs: u32,
    /// Their time there.
    pub time_ms: u64,
    /// Times that its owner took it back.
    pub reclaimed: u32,
}
