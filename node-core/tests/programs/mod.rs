//! The programs that tests of whole nodes run, and waiting for what those do.
#![allow(dead_code)] // Each test binary uses a part.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before a test counts as hanging: the sandbox's self-test runs at the
/// lowest priority, and has taken a minute beside six programs that wanted two cores.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// The node.
pub const NODE: &str = env!("CARGO_BIN_EXE_potluck-node");

/// The wrapper, beside the node and the runner. Both are other packages' programs: made if only this crate's tests were
/// asked for.
pub fn wrapper() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "potluck-wrapper", "-p", "potluck-runner", "--bins"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let beside = |name: &str| Path::new(NODE).with_file_name(name);
        // As an ordinary user the build folder may not be ours; then they have been made by whoever started that.
        if std::env::var_os("POTLUCK_SPACE").is_none() || !beside("potluck-runner").is_file() {
            assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        }
        beside("potluck")
    })
}

/// Waits for what another process does.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
