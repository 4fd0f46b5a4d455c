//! What a build left in a tree: every file that is new or changed, with content, mode and kind, so that nothing a
//! compiler or Potluck writes can go unnoticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Context, Outcome};

/// Calls `visit` for everything below `root`, folders before what is in them; links are not followed.
pub fn walk(root: &Path, visit: &mut dyn FnMut(&Path, &fs::Metadata)) {
    let Ok(entries) = fs::read_dir(root) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Ok(meta) = entry.metadata() else { continue };
        visit(&entry.path(), &meta);
        if meta.is_dir() {
            walk(&entry.path(), visit);
        }
    }
}

/// Identity of everything below some roots at one moment.
#[derive(Clone, Debug, Default)]
pub struct Baseline(BTreeMap<PathBuf, (u64, i64, i64, u64)>);

/// What is under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file: BLAKE3 of its content, and its size.
    File {
        /// Hexadecimal digest.
        digest: String,
        /// Size in bytes.
        bytes: u64,
    },
    /// A symbolic link to this.
    Link(PathBuf),
    /// A folder.
    Dir,
    /// Anything else.
    Other,
}

/// One output as the tool left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// What.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Number of names of the file.
    pub links: u64,
}

/// Outputs by absolute path.
pub type Outputs = BTreeMap<PathBuf, Left>;

impl Baseline {
    /// Looks at all roots.
    pub fn take(roots: &[PathBuf]) -> Self {
        let mut map = BTreeMap::new();
        for root in roots {
            walk(root, &mut |path, meta| {
                if !meta.is_dir() {
                    map.insert(path.to_path_buf(), identity(meta));
                }
            });
        }
        Self(map)
    }

    /// Everything below the roots that was not there, or is not the same, and what has vanished.
    pub fn changes(&self, roots: &[PathBuf]) -> Outcome<(Outputs, BTreeSet<PathBuf>)> {
        let mut outputs = Outputs::new();
        let mut gone: BTreeSet<PathBuf> = self.0.keys().cloned().collect();
        let mut changed = Vec::new();
        for root in roots {
            walk(root, &mut |path, meta| {
                gone.remove(path);
                if !meta.is_dir() && self.0.get(path) != Some(&identity(meta)) {
                    changed.push(path.to_path_buf());
                }
            });
        }
        for path in changed {
            outputs.insert(path.clone(), look(&path)?);
        }
        Ok((outputs, gone))
    }
}

fn identity(meta: &fs::Metadata) -> (u64, i64, i64, u64) {
    (
        meta.ino(),
        meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
        meta.ctime() * 1_000_000_000 + meta.ctime_nsec(),
        meta.len(),
    )
}

/// One path as it is now.
pub fn look(path: &Path) -> Outcome<Left> {
    let meta = fs::symlink_metadata(path).context(|| format!("looking at {}", path.display()))?;
    let kind = if meta.is_file() {
        let bytes = fs::read(path).context(|| format!("reading {}", path.display()))?;
        Kind::File { digest: blake3::hash(&bytes).to_hex().to_string(), bytes: bytes.len() as u64 }
    } else if meta.is_symlink() {
        Kind::Link(fs::read_link(path)?)
    } else if meta.is_dir() {
        Kind::Dir
    } else {
        Kind::Other
    };
    Ok(Left { kind, mode: meta.mode() & 0o7777, links: if meta.is_dir() { 1 } else { meta.nlink() } })
}

/// Removes outputs again, so that the next build starts from the same tree.
pub fn remove(outputs: &Outputs) -> Outcome<()> {
    for path in outputs.keys() {
        fs::remove_file(path).context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// Everything below the roots that is no folder, with its size in bytes.
pub fn sizes(roots: &[PathBuf]) -> BTreeMap<PathBuf, u64> {
    let mut sizes = BTreeMap::new();
    for root in roots {
        walk(root, &mut |path, meta| {
            if !meta.is_dir() {
                sizes.insert(path.to_path_buf(), meta.len());
            }
        });
    }
    sizes
}

/// Brings the roots back to what they held: what a run that was ended left is removed. What is missing or of another
/// size cannot be mended; then says so.
pub fn restore(roots: &[PathBuf], files: &BTreeMap<PathBuf, u64>) -> Outcome<Option<String>> {
    let mut now = sizes(roots);
    for (path, size) in files {
        if now.remove(path) != Some(*size) {
            return Ok(Some(format!("{} is not as it was", path.display())));
        }
    }
    for path in now.keys() {
        fs::remove_file(path).context(|| format!("removing {}", path.display()))?;
    }
    Ok(None)
}

/// Moves outputs aside, keeping their paths below `to`.
pub fn move_aside(outputs: &Outputs, to: &Path) -> Outcome<()> {
    for path in outputs.keys() {
        let target = to.join(path.strip_prefix("/").unwrap_or(path));
        fs::create_dir_all(target.parent().expect("below `to`"))?;
        fs::rename(path, &target).context(|| format!("moving {} aside", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ended_run_left_goes_and_what_it_damaged_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (source, stray) = (dir.path().join("a.c"), dir.path().join("a.o"));
        fs::write(&source, "int a;\n").unwrap();
        let roots = [dir.path().to_path_buf()];
        let files = sizes(&roots);
        fs::write(&stray, "object").unwrap();
        assert_eq!(restore(&roots, &files).unwrap(), None);
        assert!(!stray.exists() && source.exists());
        fs::write(&source, "int ab;\n").unwrap();
        assert!(restore(&roots, &files).unwrap().unwrap().contains("a.c"));
        fs::remove_file(&source).unwrap();
        assert!(restore(&roots, &files).unwrap().is_some());
    }

    #[test]
    fn new_changed_and_vanished_files_are_all_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = |n: &str| dir.path().join(n);
        for name in ["same", "changed", "gone"] {
            fs::write(path(name), "1").unwrap();
        }
        let roots = [dir.path().to_path_buf()];
        let before = Baseline::take(&roots);
        fs::write(path("changed"), "22").unwrap();
        fs::remove_file(path("gone")).unwrap();
        fs::create_dir(path("sub")).unwrap();
        std::os::unix::fs::symlink("nowhere", path("sub/link")).unwrap();
        let (outputs, gone) = before.changes(&roots).unwrap();
        assert_eq!(outputs.keys().collect::<Vec<_>>(), [&path("changed"), &path("sub/link")]);
        assert_eq!(outputs[&path("sub/link")].kind, Kind::Link("nowhere".into()));
        assert_eq!(gone.into_iter().collect::<Vec<_>>(), [path("gone")]);
    }
}
