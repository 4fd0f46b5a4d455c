//! File contents: read, hashed, scanned for directives; and read again when they are sent.

use std::fs::File as StdFile;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use potluck_model::ids::Digest;
use potluck_model::limits::BLOB_BYTES_MAX;
use potluck_model::scan::{self, Directives};
use rustix::fs::{AtFlags, OFlags};

use super::{DirId, FileId, Tree};
use crate::bytes;
use crate::root::Root;

/// Why a file has no content for us.
#[derive(Debug)]
pub enum ReadError {
    /// No regular file, or gone.
    NotAFile,
    /// Larger than a blob may be.
    TooLarge,
    /// The system said no.
    Io(std::io::Error),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadError::NotAFile => f.write_str("no regular file"),
            ReadError::TooLarge => write!(f, "larger than {BLOB_BYTES_MAX} bytes"),
            ReadError::Io(error) => error.fmt(f),
        }
    }
}

/// Files above this are never scanned for directives: no source is that long, and data are not source.
const SCANNED_BYTES_MAX: u64 = 64 << 20;
/// A file that changed this shortly before it was read may change again within the clock's granularity (4 ms, coarse
/// on old kernels 10 ms): it is read again.
const RACY_NS: i128 = 20_000_000;
/// A folder with this many files to be looked at is opened for it.
const FILES_IN_OPENED_MIN: usize = 5;

/// Opens a path that may be anything: never blocks on a FIFO, never becomes a controlling terminal.
pub fn open_regular(root: &Root, path: &Path) -> Result<(StdFile, std::fs::Metadata), ReadError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let fd = root.open(path, flags).map_err(|e| ReadError::Io(e.into()))?;
    let file = StdFile::from(fd);
    let meta = file.metadata().map_err(ReadError::Io)?;
    if !meta.is_file() {
        return Err(ReadError::NotAFile);
    }
    if meta.len() > BLOB_BYTES_MAX {
        return Err(ReadError::TooLarge);
    }
    Ok((file, meta))
}

impl Tree {
    /// Makes sure that what is known of a file is its state in this batch. False: it cannot be read (any more).
    pub fn fresh_file(&mut self, id: FileId) -> bool {
        match self.known_without_stat(id) {
            Some(known) => known,
            None => self.fresh_by_stat(id, |tree| tree.root.lstat(&tree.file_path(id))),
        }
    }

    /// The same for many. The path of the folder that has most of them is walked once, and what is in it or below it is
    /// asked from there.
    pub(super) fn fresh_files(&mut self, ids: &[FileId]) {
        let mut asked: Vec<(DirId, FileId)> = Vec::with_capacity(ids.len());
        for &id in ids {
            if self.known_without_stat(id).is_none() {
                asked.push((self.files[id as usize].dir, id));
            }
        }
        asked.sort_unstable();
        let most = asked.chunk_by(|(one, _), (other, _)| one == other).max_by_key(|of_one| of_one.len());
        // Opening and closing a folder is dearer than walking to it a few times.
        let base = most.filter(|of_one| of_one.len() >= FILES_IN_OPENED_MIN).map(|of_one| of_one[0].0);
        let Some(base) = base else {
            for (_, id) in asked {
                self.fresh_file(id);
            }
            return;
        };
        let folder = self.root.open(&self.dirs[base as usize].path, OFlags::PATH | OFlags::DIRECTORY);
        let mut name = Vec::new();
        for (dir, id) in asked {
            // From the root if it is not below.
            name.clear();
            name.extend_from_slice(self.path_from(base, dir));
            if !name.is_empty() && name.last() != Some(&b'/') {
                name.push(b'/');
            }
            name.extend_from_slice(&self.files[id as usize].name);
            self.fresh_by_stat(id, |tree| match name.first() {
                Some(b'/') => tree.root.lstat(bytes::path(&name)),
                _ => rustix::fs::statat(folder.as_ref().map_err(|e| *e)?, bytes::os(&name), AtFlags::SYMLINK_NOFOLLOW),
            });
        }
    }

    /// The path of a folder as seen from `base`: nothing for itself, the whole one for what is not below it.
    fn path_from(&self, base: DirId, dir: DirId) -> &[u8] {
        if dir == base {
            return b"";
        }
        let path = crate::bytes::of(&self.dirs[dir as usize].path);
        let below = path.strip_prefix(crate::bytes::of(&self.dirs[base as usize].path));
        below.and_then(|rest| rest.strip_prefix(b"/")).unwrap_or(path)
    }

    fn known_without_stat(&mut self, id: FileId) -> Option<bool> {
        let file = &self.files[id as usize];
        if file.checked == self.batch {
            return Some(file.version > 0);
        }
        if self.is_sure(id) {
            self.files[id as usize].checked = self.batch;
            return Some(true);
        }
        self.is_recent(id).then_some(true)
    }

    fn fresh_by_stat(&mut self, id: FileId, stat: impl FnOnce(&Self) -> rustix::io::Result<rustix::fs::Stat>) -> bool {
        let file = &self.files[id as usize];
        if file.version > 0 && !file.dirty {
            self.counts.stats += 1;
            if let Ok(stat) = stat(self)
                && self.files[id as usize].stamp == stamp_of(&stat)
            {
                self.files[id as usize].checked = self.batch;
                self.files[id as usize].sure = self.doubt;
                return true;
            }
        }
        let scan = self.files[id as usize].directives.is_some();
        self.load_file(id, scan)
    }

    /// Whether a change of this file would have been an event.
    pub(super) fn is_sure(&self, id: FileId) -> bool {
        self.files[id as usize].system && self.is_watched_file(id)
    }

    /// Whether a change would have been an event, or was before its last stat, and that one is recent enough.
    pub(super) fn is_recent(&self, id: FileId) -> bool {
        self.files[id as usize].checked >= self.recent && self.is_watched_file(id)
    }

    /// Sure but for what a program of the user can do without an event: write through a mapping or another name.
    pub(super) fn is_watched_file(&self, id: FileId) -> bool {
        let file = &self.files[id as usize];
        let dir = &self.dirs[file.dir as usize];
        file.version > 0 && !file.dirty && dir.watched && dir.loaded && file.sure == self.doubt
    }

    /// The directives of a file, read if need be.
    pub fn directives(&mut self, id: FileId) -> Option<Arc<Directives>> {
        if !self.fresh_file(id) {
            return None;
        }
        if self.files[id as usize].directives.is_none() && !self.load_file(id, true) {
            return None;
        }
        self.files[id as usize].directives.clone()
    }

    fn load_file(&mut self, id: FileId, scan: bool) -> bool {
        let path = self.file_path(id);
        let batch = self.batch;
        let Ok((content, meta)) = read(&self.root, &path) else {
            let file = &mut self.files[id as usize];
            file.checked = batch;
            let was = std::mem::replace(&mut file.version, 0);
            file.dirty = true;
            if was > 0 {
                self.touched += 1;
                let change = (file.dir, file.name.clone());
                self.epoch += 1;
                self.changed(change.0, change.1);
            }
            return false;
        };
        self.counts.files_hashed += 1;
        let digest = Digest::of(&content);
        let directives = (scan && meta.len() <= SCANNED_BYTES_MAX).then(|| Arc::new(scan::directives(&content)));
        let own_uid = self.own_uid;
        let now_ns = super::wall_clock_ns();
        let file = &mut self.files[id as usize];
        let mtime = (meta.mtime(), meta.mtime_nsec() as u32);
        let mode = meta.mode() & 0o7777;
        let age_ns = now_ns - (meta.ctime() as i128 * 1_000_000_000 + meta.ctime_nsec() as i128);
        let same = file.version > 0 && file.digest == digest && file.mtime == mtime && file.mode == mode;
        file.dirty = age_ns < RACY_NS;
        file.checked = batch;
        file.sure = self.doubt;
        file.stamp = (
            meta.dev(),
            meta.ino(),
            meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            meta.ctime() * 1_000_000_000 + meta.ctime_nsec(),
        );
        file.system = meta.uid() != own_uid && own_uid != 0 && meta.nlink() == 1 && mode & 0o022 == 0
            || own_uid == 0 && meta.nlink() == 1 && path.starts_with("/usr");
        file.digest = digest;
        file.size = content.len() as u64;
        file.mode = mode;
        file.mtime = mtime;
        if !same {
            file.version_last += 1;
            file.version = file.version_last;
            self.touched += 1;
        }
        let change = (file.dir, file.name.clone());
        let replaced = match (&file.directives, &directives) {
            (Some(old), Some(new)) if old == new => false,
            (_, Some(_)) => true,
            // Content changed and nobody asked for directives now: the old ones are stale.
            (Some(_), None) => !same,
            (None, None) => false,
        };
        if replaced {
            let first = file.directives.is_none();
            let old = std::mem::replace(&mut file.directives, directives);
            self.directives_changed(id, old.as_deref());
            if !first {
                self.epoch += 1;
            }
        }
        if !same {
            self.changed(change.0, change.1);
        }
        true
    }

    fn directives_changed(&mut self, id: FileId, old: Option<&Directives>) {
        if let Some(old) = old {
            for (name, _) in &old.defines {
                if let Some(list) = self.defines.get_mut(name) {
                    list.retain(|(file, _)| *file != id);
                }
            }
        }
        if let Some(new) = self.files[id as usize].directives.clone() {
            for (name, value) in &new.defines {
                self.defines.entry(name.clone()).or_default().push((id, value.clone()));
            }
        }
    }

    /// The content to be sent. If it is not what the digest says any more, the file is entered anew: the job that
    /// was scanned with the old content will be found out at its end.
    pub fn content(&mut self, id: FileId) -> Result<Vec<u8>, ReadError> {
        let (content, _) = read(&self.root, &self.file_path(id))?;
        if Digest::of(&content) != self.files[id as usize].digest {
            self.files[id as usize].dirty = true;
            self.files[id as usize].checked = 0;
            self.touched += 1;
            if !self.fresh_file(id) {
                return Err(ReadError::NotAFile);
            }
            let (content, _) = read(&self.root, &self.file_path(id))?;
            return if Digest::of(&content) == self.files[id as usize].digest {
                Ok(content)
            } else {
                Err(ReadError::Io(std::io::Error::other("it changes while it is read")))
            };
        }
        Ok(content)
    }
}

fn read(root: &Root, path: &Path) -> Result<(Vec<u8>, std::fs::Metadata), ReadError> {
    let (mut file, meta) = open_regular(root, path)?;
    let mut content = Vec::with_capacity(meta.len() as usize + 1);
    (&mut file).take(BLOB_BYTES_MAX + 1).read_to_end(&mut content).map_err(ReadError::Io)?;
    if content.len() as u64 > BLOB_BYTES_MAX {
        return Err(ReadError::TooLarge);
    }
    // The time and size that belong to what was read.
    let meta = file.metadata().map_err(ReadError::Io).unwrap_or(meta);
    Ok((content, meta))
}

fn stamp_of(stat: &rustix::fs::Stat) -> (u64, u64, i64, i64) {
    (
        stat.st_dev,
        stat.st_ino,
        stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64,
        stat.st_ctime * 1_000_000_000 + stat.st_ctime_nsec as i64,
    )
}
