//! The identity of a file as `stat` sees it: what makes a cached answer still true without reading the file.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One file at one moment. Links are not followed, so that a changed link is noticed too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileIdent {
    /// Absolute path.
    #[serde(with = "super::manifest::path_bytes")]
    pub path: PathBuf,
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Size in bytes; 0 for directories, whose size says nothing.
    pub size: u64,
    /// Time of last modification in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of last status change in nanoseconds since 1970: an old modification time can be forged, this one not.
    pub ctime_ns: i64,
}

impl FileIdent {
    /// The identity of what is at `path` now.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from_metadata(path, &fs::symlink_metadata(path)?))
    }

    /// The identity that `meta` describes.
    pub fn from_metadata(path: &Path, meta: &Metadata) -> Self {
        Self {
            path: path.to_owned(),
            dev: meta.dev(),
            ino: meta.ino(),
            size: if meta.is_dir() { 0 } else { meta.size() },
            mtime_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
            ctime_ns: meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec()),
        }
    }

    /// Whether the same file is still there, unchanged.
    pub fn holds(&self) -> bool {
        Self::of(&self.path).is_ok_and(|now| now == *self)
    }
}
