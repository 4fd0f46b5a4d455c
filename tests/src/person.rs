//! Whose processes these are: nodes and builds always run as ordinary users, also when the harness is root.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::{Context, Outcome};

/// First spare user id that a root harness uses; the submitter has it, workers the following ones.
const SPARE_UID: u32 = 54_321;

/// An ordinary user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Person {
    /// User id, never 0.
    pub uid: u32,
    /// Group id, never 0.
    pub gid: u32,
}

impl Person {
    /// Whoever builds and submits: the caller, or a spare user when the caller is root.
    pub fn submitter() -> Self {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        if uid == 0 { Self { uid: SPARE_UID, gid: SPARE_UID } } else { Self { uid, gid } }
    }

    /// Whoever runs worker `index`: a user of its own where the harness may choose.
    pub fn worker(index: usize) -> Self {
        let me = Self::submitter();
        if is_root() { Self { uid: me.uid + 10 + index as u32, gid: me.gid + 10 + index as u32 } } else { me }
    }

    /// Makes a command run as this user, without root's groups.
    pub fn adopt(self, command: &mut Command) {
        if is_root() {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Makes a folder that belongs to this user; parents must be there or are made for them as well.
    pub fn make_dir(self, dir: &Path) -> Outcome<()> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.make_dir(parent)?;
        }
        match std::fs::create_dir(dir) {
            // Tests that run beside this one need the same folders, and none of them was there.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            other => other.context(|| format!("making {}", dir.display()))?,
        }
        self.own(dir)
    }

    /// Gives a path to this user.
    pub fn own(self, path: &Path) -> Outcome<()> {
        if is_root() {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
                .context(|| format!("giving {} to user {}", path.display(), self.uid))?;
        }
        Ok(())
    }
}

/// Whether the harness itself is root.
pub fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_several_make_at_once_are_there_for_all() {
        let above = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let dir = above.path().join(format!("{round}/a/b/c"));
            std::thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(|| Person::submitter().make_dir(&dir))).collect();
                all.into_iter().for_each(|made| made.join().unwrap().unwrap());
            });
            assert!(dir.is_dir());
        }
    }
}
