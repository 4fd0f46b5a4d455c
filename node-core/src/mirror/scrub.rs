//! Whether the mirror still holds what was put into it. Whoever changes a file on the disk in place gives it another
//! change time, which no ordinary program can set back: a *sweep* asks for that of every file, and reads those that have
//! another one. What a disk or memory does by itself leaves no such trace: a *pass* reads everything, slowly, while nobody
//! needs the PC.
//!
//! What differs is poison from that moment on, so that no job uses it; the caller ends the session, and the next one
//! brings it anew.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use potluck_model::ids::Digest;
use rustix::fs::{AtFlags, OFlags, Stat};

use super::{DirIndex, Entry, Mirror, MirrorError, Name, TRAP_DIR, is_sandbox_name, join, open_in};
use crate::bytes;

/// Inode, size and times of a file, as one number.
pub(super) type Stamp = u64;

/// A stamp that no file is known to have: it is read when it is looked at next.
pub(super) const UNKNOWN: Stamp = 0;

pub(super) fn stamp_of(stat: &Stat) -> Stamp {
    number_of(&(stat.st_ino, stat.st_size, stat.st_mode, stat.st_mtime, stat.st_ctime, stat.st_ctime_nsec))
}

/// What a link's target or a stat counts as. Nobody is to be kept from finding another one with the same number.
pub(super) fn number_of(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish().max(UNKNOWN + 1)
}

/// Files of one piece of a pass: what one answer of a guest's thread costs it stays below some milliseconds.
const PIECE_FILES: usize = 1024;
/// Bytes between two looks at whether the pass may go on.
const READ_BYTES: usize = 1 << 20;

/// A file that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    dir: Arc<[u8]>,
    name: Name,
    digest: Digest,
    size: u64,
}

/// What a sweep or a piece of a pass found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Names that were looked at.
    pub names: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// What is not what was sent; poison now.
    pub rotten: Vec<Vec<u8>>,
}

/// Where a pass is.
#[derive(Debug, Default)]
pub struct Cursor(DirIndex);

impl Mirror {
    /// Looks at the change time of every file, and reads those that have another one than before.
    pub fn sweep(&mut self) -> Result<Looked, MirrorError> {
        let mut looked = Looked::default();
        for index in 0..self.dirs.len() {
            self.sweep_dir(index, &mut looked)?;
        }
        self.spoil_all(&looked.rotten)?;
        Ok(looked)
    }

    fn sweep_dir(&mut self, index: DirIndex, looked: &mut Looked) -> Result<(), MirrorError> {
        let Some(dir) = &self.dirs[index] else { return Ok(()) };
        let is_file = |entry: &Entry| matches!(entry, Entry::File { .. });
        if !dir.names.values().any(is_file) {
            return Ok(());
        }
        let path = Arc::clone(&dir.path);
        // What cannot be opened is not there: all of its files are missing.
        let fd = self.open_at(index).ok();
        let mut changed = Vec::new();
        for (name, entry) in &dir.names {
            let Entry::File { digest, size, stamp } = entry else { continue };
            looked.names += 1;
            let stat = fd.as_ref().map(|fd| rustix::fs::statat(fd, bytes::os(name), AtFlags::SYMLINK_NOFOLLOW));
            let is_same = matches!(&stat, Some(Ok(stat)) if stamp_of(stat) == *stamp);
            if !is_same {
                changed.push(Check { dir: Arc::clone(&path), name: name.clone(), digest: *digest, size: *size });
            }
        }
        for check in changed {
            let read = self.read(&check, &mut || true);
            looked.bytes += check.size;
            match read {
                Some(stamp) => self.is_sound(&check, stamp),
                None => looked.rotten.push(join(&check.dir, &check.name)),
            }
        }
        Ok(())
    }

    /// The next files of a pass. None: it is over. Names that were never sent, and such as are gone or of another kind, are
    /// found on the way.
    pub fn next_piece(&mut self, cursor: &mut Cursor, looked: &mut Looked) -> Result<Option<Vec<Check>>, MirrorError> {
        let mut piece = Vec::new();
        let mut strays = Vec::new();
        while cursor.0 < self.dirs.len() && piece.len() < PIECE_FILES {
            let index = cursor.0;
            cursor.0 += 1;
            let Some(dir) = &self.dirs[index] else { continue };
            looked.names += dir.names.len() as u64;
            self.strays(index, &mut strays);
            let files = dir.names.iter().filter_map(|(name, entry)| match entry {
                Entry::File { digest, size, .. } => {
                    Some(Check { dir: Arc::clone(&dir.path), name: name.clone(), digest: *digest, size: *size })
                }
                _ => None,
            });
            piece.extend(files);
        }
        self.spoil_all(&strays)?;
        looked.rotten.append(&mut strays);
        Ok(if piece.is_empty() && cursor.0 >= self.dirs.len() { None } else { Some(piece) })
    }

    /// Names of a directory that are not what is known of them, contents of files aside.
    fn strays(&self, index: DirIndex, strays: &mut Vec<Vec<u8>>) {
        let Some(dir) = &self.dirs[index] else { return };
        if dir.is_closed() {
            return;
        }
        let path = &dir.path[1..];
        let opened = open_in(&self.root_dir, if path.is_empty() { b"." } else { path }, OFlags::DIRECTORY);
        let Ok(fd) = opened else { return strays.push(dir.path.to_vec()) };
        let mut found = 0;
        for entry in rustix::fs::Dir::read_from(&fd).into_iter().flatten().flatten() {
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || super::dir_is_root(dir) && is_sandbox_name(name) {
                continue;
            }
            found += 1;
            let target = || rustix::fs::readlinkat(&fd, bytes::os(name), Vec::new()).unwrap_or_default().into_bytes();
            let is_known = match dir.names.get(name) {
                Some(Entry::Poison(id)) => target() == format!("{TRAP_DIR}/{id}").as_bytes(),
                Some(Entry::Link(number)) => number_of(&target()) == *number,
                Some(Entry::Dir(_)) => entry.file_type().is_dir() || entry.file_type() == rustix::fs::FileType::Unknown,
                // Its content is read later, and only if it is a file.
                Some(Entry::File { .. }) => true,
                None => false,
            };
            if !is_known {
                strays.push(join(&dir.path, name));
            }
        }
        if found < dir.names.len() {
            strays.push(dir.path.to_vec());
        }
    }

    /// A file that was read is what it should be.
    pub fn is_sound(&mut self, check: &Check, read: u64) {
        let Some(&index) = self.by_path.get(&check.dir) else { return };
        if let Some(Entry::File { digest, stamp, .. }) = self.dir_mut(index).names.get_mut(&check.name)
            && *digest == check.digest
        {
            *stamp = read;
        }
    }

    /// A file that was read elsewhere is not what it should be. None: it was replaced meanwhile.
    pub fn is_rotten(&mut self, check: &Check) -> Result<Option<Vec<u8>>, MirrorError> {
        let path = join(&check.dir, &check.name);
        if !self.has_file(&path, &check.digest) || self.read(check, &mut || true).is_some() {
            return Ok(None);
        }
        self.spoil_all(std::slice::from_ref(&path))?;
        Ok(Some(path))
    }

    /// From here on it is poison: a job that needs it faults. What was not sent at all needs none: its directory is made
    /// anew with the session.
    fn spoil_all(&mut self, paths: &[Vec<u8>]) -> Result<(), MirrorError> {
        for path in paths {
            let Some((dir, name)) = super::split(path) else { continue };
            let Some(&index) = self.by_path.get(dir) else { continue };
            if matches!(self.dir(index).names.get(name), Some(Entry::File { .. } | Entry::Link(_) | Entry::Poison(_))) {
                self.forget(index, name);
                self.dir_mut(index).names.insert(name.into(), Entry::Link(UNKNOWN));
                let fd = self.open_at(index)?;
                // Whatever lies there is replaced.
                self.put_poison(index, &fd, name)?;
            }
        }
        Ok(())
    }

    /// Reads a file; its stamp if it is what it should be.
    fn read(&self, check: &Check, go_on: &mut dyn FnMut() -> bool) -> Option<Stamp> {
        read_below(&self.root_dir, check, go_on)
    }

    /// For reading files on another thread.
    pub fn root_for_reading(&self) -> std::io::Result<OwnedFd> {
        self.root_dir.try_clone()
    }

    /// Whether a known content is still what it was when it was hashed: what is copied from it would be wrong as well.
    pub(super) fn is_untouched(&self, dir: DirIndex, name: &[u8]) -> bool {
        let Some(Entry::File { digest, size, stamp }) = self.dir(dir).names.get(name) else { return false };
        let stat =
            self.open_at(dir).and_then(|fd| Ok(rustix::fs::statat(&fd, bytes::os(name), AtFlags::SYMLINK_NOFOLLOW)?));
        let check = || Check { dir: Arc::clone(&self.dir(dir).path), name: name.into(), digest: *digest, size: *size };
        stat.is_ok_and(|stat| stamp_of(&stat) == *stamp) || self.read(&check(), &mut || true).is_some()
    }
}

/// Reads a file below a mirror's root; its stamp if it is what it should be. `go_on` is asked between its pieces; when it
/// says no, the file counts as sound.
pub fn read_below(root: &OwnedFd, check: &Check, go_on: &mut dyn FnMut() -> bool) -> Option<u64> {
    let path = join(&check.dir, &check.name);
    let mut file = File::from(open_in(root, &path[1..], OFlags::RDONLY).ok()?);
    let before = stamp_of(&rustix::fs::fstat(&file).ok()?);
    // Not what jobs need soon.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::NoReuse);
    let (mut hasher, mut read) = (blake3::Hasher::new(), 0);
    let mut piece = vec![0; READ_BYTES.min(check.size as usize + 1)];
    loop {
        match file.read(&mut piece).ok()? {
            0 => break,
            n => {
                hasher.update(&piece[..n]);
                read += n as u64;
            }
        }
        if read > check.size {
            return None;
        }
        if !go_on() {
            return Some(UNKNOWN);
        }
    }
    let is_same = read == check.size && Digest(*hasher.finalize().as_bytes()) == check.digest;
    is_same.then_some(before)
}

impl Check {
    /// Bytes to be read.
    pub fn bytes(&self) -> u64 {
        self.size
    }
}
