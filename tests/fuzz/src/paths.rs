//! Paths that others name, and scratch folders for targets that write.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use potluck_node::{mirror, roots, toolchain};
use tempfile::TempDir;

/// A folder that goes with its guard, in memory where there is such a place.
pub fn scratch() -> TempDir {
    let builder = |dir: &str| tempfile::Builder::new().prefix("potluck-fuzz").tempdir_in(dir);
    builder("/dev/shm").or_else(|_| tempfile::tempdir()).expect("there is a place for scratch files")
}

/// No spelling leads out of the folder that it is meant for.
pub fn paths(input: &[u8]) {
    let dir = Path::new("/work/project");
    let (first, second) = match input.iter().position(|b| *b == 0) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &b""[..]),
    };
    if let Some(path) = roots::below(dir, first) {
        let rest = path.strip_prefix(dir).expect("a path below a folder is below it");
        assert!(rest.components().all(|c| matches!(c, Component::Normal(_))), "{path:?}");
        assert_eq!(toolchain::lexical(&path), path);
    }
    if roots::is_plain(first) {
        let path = Path::new(OsStr::from_bytes(first));
        assert_eq!(toolchain::lexical(path), path, "a plain path has nothing to be resolved");
    }
    if mirror::check_path(first).is_ok() {
        let path = Path::new(OsStr::from_bytes(first));
        assert!(path.is_absolute() && toolchain::lexical(path) == path, "{path:?}");
        assert!(!["/proc", "/dev", "/tmp", "/.potluck"].iter().any(|p| path.starts_with(p)), "{path:?}");
    }
    // Whatever is asked, an answer.
    let (path, root) = (Path::new(OsStr::from_bytes(first)), Path::new(OsStr::from_bytes(second)));
    if roots::is_below(path, root, Some(Path::new("/home/someone"))) {
        assert!(path.starts_with(root) && root != Path::new("/"));
    }
}
