//! A worker's standing copy of the part of one submitter's file tree that its jobs have needed. It keeps the
//! promise of the deltas and nothing else: it knows no jobs and asks nobody.
//!
//! On disk: `root/` is what jobs see as `/`; `gens/` holds immutable layers of output directories; `blobs/` contents
//! stored ahead; `stage/` files on their way. The tree itself is the record: at start it is walked and every file is
//! hashed, so that a torn write or a flipped bit is found and never used.

mod generations;
pub mod scrub;

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use potluck_model::ids::Digest;
use potluck_model::limits::{BLOB_BYTES_MAX, MIRROR_ENTRIES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};
use potluck_runner::protocol::{PRIVATE_DIR, TRAP_DIR};
use potluck_wire::pool::{DeltaOps, DirOps, FileOp, LinkOp};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};

use crate::bytes;
pub use generations::Layers;

/// A file name.
type Name = Box<[u8]>;
/// Index of a directory.
type DirIndex = usize;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Entry {
    Poison(u64),
    File {
        digest: Digest,
        size: u64,
        stamp: scrub::Stamp,
    },
    /// What its target counts as.
    Link(u64),
    Dir(DirIndex),
}

/// No descriptor: a tree of 20,000 directories must fit below a limit of 1024 open files.
struct Dir {
    path: Arc<[u8]>,
    names: HashMap<Name, Entry>,
    layers: generations::State,
    mode: u32,
}

impl Dir {
    /// Nobody may search it: it has no names.
    fn is_closed(&self) -> bool {
        self.mode & 0o7777 == 0
    }
}

/// Why a delta or a path is refused. The mirror is unchanged or still conservative.
#[derive(Debug, PartialEq, Eq)]
pub enum MirrorError {
    /// The submitter broke a rule: it is named in one sentence.
    Refused(String),
    /// The disk is full or the quota reached.
    Full(String),
    /// The system said no.
    Io(String),
}

impl std::fmt::Display for MirrorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MirrorError::Refused(text) | MirrorError::Full(text) | MirrorError::Io(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for MirrorError {}

impl From<std::io::Error> for MirrorError {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => MirrorError::Full(error.to_string()),
            _ => MirrorError::Io(error.to_string()),
        }
    }
}

impl From<rustix::io::Errno> for MirrorError {
    fn from(error: rustix::io::Errno) -> Self {
        std::io::Error::from(error).into()
    }
}

fn refused<T>(text: impl Into<String>) -> Result<T, MirrorError> {
    Err(MirrorError::Refused(text.into()))
}

/// One submitter's mirror.
pub struct Mirror {
    base: PathBuf,
    dirs: Vec<Option<Dir>>,
    /// Slots of directories that are gone.
    free: Vec<DirIndex>,
    by_path: HashMap<Arc<[u8]>, DirIndex>,
    /// The directories and names that poisons stand for.
    poisons: HashMap<u64, (Arc<[u8]>, Name)>,
    /// Poisons that are gone, oldest first: a running job may still report them.
    retired: VecDeque<u64>,
    retired_bytes: usize,
    next_poison: u64,
    /// Where a content lies: one of its places.
    contents: HashMap<Digest, Vec<(DirIndex, Name)>>,
    blobs: HashMap<Digest, u64>,
    blob_bytes: u64,
    root_dir: OwnedFd,
    /// A directory that is being filled aside.
    building: Option<(DirIndex, OwnedFd)>,
    stage: OwnedFd,
    stage_counter: u64,
    blob_dir: OwnedFd,
    entries: usize,
    bytes: u64,
    generation_counter: u64,
    quota_bytes: u64,
}

/// Paths kept for poisons that are gone. A job that reports an older one counts as having touched too much.
const RETIRED_BYTES_MAX: usize = 32 << 20;
/// Names at the top that every sandbox makes itself.
const SANDBOX_DIRS: &[&str] = &["proc", "dev", "tmp"];

impl Mirror {
    /// Opens the mirror below `base`, or makes an empty one. Whatever does not look like a mirror is removed.
    pub fn open(base: &Path, quota_bytes: u64) -> Result<Self, MirrorError> {
        fs::create_dir_all(base)?;
        fs::set_permissions(base, fs::Permissions::from_mode(0o700))?;
        for sub in ["root", "blobs"] {
            fs::create_dir_all(base.join(sub))?;
        }
        for scratch in ["gens", "stage"] {
            remove_tree(&base.join(scratch))?;
            fs::create_dir_all(base.join(scratch))?;
        }
        let mut mirror = Self {
            base: base.to_owned(),
            dirs: Vec::new(),
            free: Vec::new(),
            by_path: HashMap::new(),
            poisons: HashMap::new(),
            retired: VecDeque::new(),
            retired_bytes: 0,
            next_poison: 1,
            contents: HashMap::new(),
            blobs: HashMap::new(),
            blob_bytes: 0,
            root_dir: open_dir(&base.join("root"))?,
            building: None,
            stage: open_dir(&base.join("stage"))?,
            stage_counter: 0,
            blob_dir: open_dir(&base.join("blobs"))?,
            entries: 0,
            bytes: 0,
            generation_counter: 0,
            quota_bytes,
        };
        if let Err(error) = mirror.read_back() {
            tracing(&format!("mirror {}: {error}; it starts anew", base.display()));
            mirror.clear()?;
        }
        for name in SANDBOX_DIRS.iter().chain(&[&PRIVATE_DIR[1..]]) {
            fs::create_dir_all(base.join("root").join(name))?;
        }
        Ok(mirror)
    }

    /// Forgets everything.
    pub fn clear(&mut self) -> Result<(), MirrorError> {
        self.dirs.clear();
        self.free.clear();
        self.by_path.clear();
        self.poisons.clear();
        self.retired.clear();
        self.retired_bytes = 0;
        self.contents.clear();
        self.blobs.clear();
        self.blob_bytes = 0;
        self.entries = 0;
        self.bytes = 0;
        for sub in ["root", "blobs"] {
            let path = self.base.join(sub);
            remove_tree(&path)?;
            fs::create_dir_all(&path)?;
        }
        self.blob_dir = open_dir(&self.base.join("blobs"))?;
        self.root_dir = open_dir(&self.root())?;
        for name in SANDBOX_DIRS.iter().chain(&[&PRIVATE_DIR[1..]]) {
            fs::create_dir_all(self.base.join("root").join(name))?;
        }
        Ok(())
    }

    /// Directory that jobs see as `/`.
    pub fn root(&self) -> PathBuf {
        self.base.join("root")
    }

    /// Directory of the layers.
    pub fn generations(&self) -> PathBuf {
        self.base.join("gens")
    }

    /// Bytes of file content, and number of names.
    pub fn size(&self) -> (u64, usize) {
        (self.bytes, self.entries)
    }

    /// The path that a poison stands for.
    pub fn poison_path(&self, id: u64) -> Option<Vec<u8>> {
        self.poisons.get(&id).map(|(dir, name)| join(dir, name))
    }

    /// Whether a physical path is a real directory here.
    pub fn has_dir(&self, path: &[u8]) -> bool {
        self.by_path.contains_key(path)
    }

    /// Whether a physical path is a real file with this content.
    pub fn has_file(&self, path: &[u8], digest: &Digest) -> bool {
        let Some(at) = path.iter().rposition(|&c| c == b'/') else { return false };
        let parent = if at == 0 { &b"/"[..] } else { &path[..at] };
        self.by_path
            .get(parent)
            .and_then(|&d| self.dirs[d].as_ref()?.names.get(&path[at + 1..]))
            .is_some_and(|entry| matches!(entry, Entry::File { digest: d, .. } if d == digest))
    }

    /// Everything in it, without contents: what the submitter needs to go on.
    pub fn state(&self) -> DeltaOps {
        let mut out = DeltaOps::default();
        for (index, dir) in self.dirs.iter().enumerate().filter_map(|(i, d)| Some((i, d.as_ref()?))) {
            let mut ops = DirOps { path: dir.path.to_vec(), mode: dir.mode, ..DirOps::default() };
            let has_files = dir.names.values().any(|e| matches!(e, Entry::File { .. }));
            // One that cannot be opened has no files for the submitter, which then poisons them.
            let fd = has_files.then(|| self.open_at(index).ok()).flatten();
            for (name, entry) in &dir.names {
                match entry {
                    Entry::Poison(_) => ops.poison.push(name.to_vec()),
                    Entry::Link(_) => ops.links.push(LinkOp { name: name.to_vec(), target: Vec::new() }),
                    Entry::Dir(_) => {}
                    Entry::File { digest, size, .. } => {
                        let Some(fd) = &fd else { continue };
                        let stat = rustix::fs::statat(fd, bytes::os(name), AtFlags::SYMLINK_NOFOLLOW);
                        let Ok(stat) = stat else { continue };
                        ops.files.push(FileOp {
                            name: name.to_vec(),
                            digest: digest.0.to_vec(),
                            size: *size,
                            mode: stat.st_mode & 0o7777,
                            mtime_s: stat.st_mtime,
                            mtime_ns: stat.st_mtime_nsec as u32,
                            content: None,
                        });
                    }
                }
            }
            out.dirs.push(ops);
        }
        out
    }

    /// Applies a delta. On an error what came before it is applied; the rest is not: the caller ends the session.
    pub fn apply(&mut self, ops: &DeltaOps) -> Result<(), MirrorError> {
        for dir in &ops.dirs {
            self.apply_dir(dir)?;
        }
        Ok(())
    }

    fn apply_dir(&mut self, ops: &DirOps) -> Result<(), MirrorError> {
        check_path(&ops.path)?;
        if let Some(&index) = self.by_path.get(&ops.path[..]) {
            let fd = self.open_at(index)?;
            return self.fill(index, &fd, ops);
        }
        let Some((parent, name)) = split(&ops.path) else {
            let index = self.add_dir(b"/", 0o755);
            let fd = self.open_at(index)?;
            return self.fill(index, &fd, ops);
        };
        let Some(&parent) = self.by_path.get(parent) else {
            return refused(format!("{}: its parent was not sent", bytes::show(&ops.path)));
        };
        self.check_name(parent, name)?;
        self.make_dir(parent, name, ops)
    }

    /// A new directory is filled aside and moved over what was there when it is complete: a job that runs meanwhile
    /// must not find a name missing in it.
    fn make_dir(&mut self, parent: DirIndex, name: &[u8], ops: &DirOps) -> Result<(), MirrorError> {
        let staged = self.stage_name();
        rustix::fs::mkdirat(&self.stage, &staged, Mode::from_raw_mode(0o755))?;
        let index = self.add_dir(&ops.path, ops.mode);
        let made = self.fill_staged(index, &staged, ops).and_then(|()| {
            let fd = self.open_at(parent)?;
            self.swap_in(&staged, parent, &fd, name, true)?;
            if self.dir(index).is_closed() {
                // Last, because a directory that may not be written cannot be moved.
                rustix::fs::chmodat(&fd, bytes::os(name), Mode::empty(), AtFlags::empty())?;
            }
            Ok(())
        });
        self.building = None;
        if let Err(error) = made {
            self.forget_dir(index);
            remove_tree(&self.base.join("stage").join(staged))?;
            return Err(error);
        }
        self.set(parent, name, Entry::Dir(index));
        Ok(())
    }

    fn fill_staged(&mut self, index: DirIndex, staged: &str, ops: &DirOps) -> Result<(), MirrorError> {
        let fd = open_in(&self.stage, staged.as_bytes(), OFlags::DIRECTORY | OFlags::PATH)?;
        self.building = Some((index, fd.try_clone()?));
        self.fill(index, &fd, ops)
    }

    fn fill(&mut self, dir: DirIndex, fd: &OwnedFd, ops: &DirOps) -> Result<(), MirrorError> {
        let some = !(ops.files.is_empty() && ops.links.is_empty() && ops.poison.is_empty());
        if some && self.dir(dir).is_closed() {
            return refused(format!("{}: names in a directory that nobody may search", bytes::show(&ops.path)));
        }
        for file in &ops.files {
            self.put_file(dir, fd, file)?;
        }
        for link in &ops.links {
            self.put_link(dir, fd, link)?;
        }
        for name in &ops.poison {
            self.put_poison(dir, fd, name)?;
        }
        for name in &ops.absent {
            self.put_absent(dir, fd, name)?;
        }
        Ok(())
    }

    fn dir(&self, index: DirIndex) -> &Dir {
        self.dirs[index].as_ref().expect("indices in by_path and entries are of live directories")
    }

    fn dir_mut(&mut self, index: DirIndex) -> &mut Dir {
        self.dirs[index].as_mut().expect("indices in by_path and entries are of live directories")
    }

    /// A descriptor of a directory: for names in it, not for reading it.
    fn open_at(&self, index: DirIndex) -> Result<OwnedFd, MirrorError> {
        if let Some((_, fd)) = self.building.as_ref().filter(|(building, _)| *building == index) {
            return Ok(fd.try_clone()?);
        }
        let path = &self.dir(index).path[1..];
        let path = if path.is_empty() { b"." } else { path };
        open_in(&self.root_dir, path, OFlags::DIRECTORY | OFlags::PATH)
    }

    fn add_dir(&mut self, path: &[u8], mode: u32) -> DirIndex {
        let path: Arc<[u8]> = path.into();
        let layers = generations::State::default();
        let dir = Some(Dir { path: Arc::clone(&path), names: HashMap::new(), layers, mode });
        let index = match self.free.pop() {
            Some(index) => {
                self.dirs[index] = dir;
                index
            }
            None => {
                self.dirs.push(dir);
                self.dirs.len() - 1
            }
        };
        self.by_path.insert(path, index);
        index
    }

    fn put_file(&mut self, dir: DirIndex, fd: &OwnedFd, op: &FileOp) -> Result<(), MirrorError> {
        self.check_name(dir, &op.name)?;
        let Ok(digest) = Digest::try_from(&op.digest[..]) else { return refused("a digest is not 32 bytes long") };
        if op.size > BLOB_BYTES_MAX {
            return refused(format!("a file of {} bytes is too large", op.size));
        }
        // A blob is counted already.
        self.check_room(if self.blobs.contains_key(&digest) { 0 } else { op.size })?;
        let staged = self.stage_name();
        let placed =
            self.stage_file(&digest, &staged, op).and_then(|()| self.swap_in(&staged, dir, fd, &op.name, false));
        if let Err(error) = placed {
            // It may not have come to be.
            let _ = rustix::fs::unlinkat(&self.stage, &staged, AtFlags::empty());
            return Err(error);
        }
        self.bytes += op.size;
        self.contents.entry(digest).or_default().push((dir, op.name[..].into()));
        let stat = rustix::fs::statat(fd, bytes::os(&op.name), AtFlags::SYMLINK_NOFOLLOW)?;
        self.set(dir, &op.name, Entry::File { digest, size: op.size, stamp: scrub::stamp_of(&stat) });
        Ok(())
    }

    fn stage_file(&mut self, digest: &Digest, staged: &str, op: &FileOp) -> Result<(), MirrorError> {
        match &op.content {
            Some(content) => {
                if content.len() as u64 != op.size || Digest::of(content) != *digest {
                    return refused(format!("{}: the content is not what its digest says", bytes::show(&op.name)));
                }
                let mut file = fs::File::from(create_in(&self.stage, staged)?);
                file.write_all(content)?;
                finish(&file, op)
            }
            None => self.stage_known(digest, staged, op),
        }
    }

    /// A content that is here already: moved from the blobs, or copied from another place.
    fn stage_known(&mut self, digest: &Digest, staged: &str, op: &FileOp) -> Result<(), MirrorError> {
        if let Some(&size) = self.blobs.get(digest) {
            if size != op.size {
                return refused("a stored content has another size");
            }
            rustix::fs::renameat(&self.blob_dir, digest.to_string(), &self.stage, staged)?;
            self.blobs.remove(digest);
            self.blob_bytes -= size;
            return finish(&fs::File::from(open_in(&self.stage, staged.as_bytes(), OFlags::RDWR)?), op);
        }
        let Some((dir, name)) = self.contents.get(digest).and_then(|places| places.first()).cloned() else {
            return refused(format!("content {} was not sent before", digest.short()));
        };
        if !self.is_untouched(dir, &name) {
            let path = join(&self.dir(dir).path, &name);
            return Err(MirrorError::Io(format!("{} had changed on the disk", bytes::show(&path))));
        }
        let mut from = fs::File::from(open_in(&self.open_at(dir)?, &name, OFlags::empty())?);
        let mut to = fs::File::from(create_in(&self.stage, staged)?);
        // The kernel shares the blocks where the file system can.
        let copied = std::io::copy(&mut from, &mut to)?;
        if copied != op.size {
            return refused("a known content has another size");
        }
        finish(&to, op)
    }

    fn put_link(&mut self, dir: DirIndex, fd: &OwnedFd, op: &LinkOp) -> Result<(), MirrorError> {
        self.check_name(dir, &op.name)?;
        // A longer target is none that the kernel would make.
        if op.target.is_empty() || op.target.len() >= PATH_BYTES_MAX || op.target.contains(&0) {
            return refused("a link without a valid target");
        }
        if op.target.starts_with(PRIVATE_DIR.as_bytes()) {
            return refused("a link into the sandbox's own directory");
        }
        let staged = self.stage_name();
        rustix::fs::symlinkat(bytes::os(&op.target), &self.stage, &staged)?;
        self.swap_or_drop(&staged, dir, fd, &op.name)?;
        self.set(dir, &op.name, Entry::Link(scrub::number_of(&op.target)));
        Ok(())
    }

    fn put_poison(&mut self, dir: DirIndex, fd: &OwnedFd, name: &[u8]) -> Result<(), MirrorError> {
        if matches!(self.dir(dir).names.get(name), Some(Entry::Poison(_))) {
            return Ok(());
        }
        if dir_is_root(self.dir(dir)) && is_sandbox_name(name) {
            return Ok(());
        }
        self.check_name(dir, name)?;
        let id = self.next_poison;
        self.next_poison += 1;
        let target = format!("{TRAP_DIR}/{id}");
        if self.dir(dir).names.contains_key(name) {
            let staged = self.stage_name();
            rustix::fs::symlinkat(&target, &self.stage, &staged)?;
            self.swap_or_drop(&staged, dir, fd, name)?;
        } else {
            rustix::fs::symlinkat(&target, fd, bytes::os(name))?;
        }
        let path = Arc::clone(&self.dir(dir).path);
        self.poisons.insert(id, (path, name.into()));
        self.set(dir, name, Entry::Poison(id));
        Ok(())
    }

    fn put_absent(&mut self, dir: DirIndex, fd: &OwnedFd, name: &[u8]) -> Result<(), MirrorError> {
        match self.dir(dir).names.get(name) {
            None => Ok(()),
            // Only what is poison may vanish: a running job may still have seen the real thing.
            Some(Entry::Poison(_)) => {
                rustix::fs::unlinkat(fd, bytes::os(name), AtFlags::empty())?;
                self.forget(dir, name);
                self.entries -= 1;
                let dir = self.dir_mut(dir);
                dir.names.remove(name);
                dir.layers.structural();
                Ok(())
            }
            Some(_) => self.put_poison(dir, fd, name),
        }
    }

    /// Takes what a name stands for out of the indices, a directory with all below it. The name itself stays.
    fn forget(&mut self, dir: DirIndex, name: &[u8]) {
        match self.dir(dir).names.get(name).cloned() {
            None | Some(Entry::Link(_)) => {}
            Some(Entry::Poison(id)) => self.retire(id),
            Some(Entry::File { digest, size, .. }) => {
                self.bytes -= size;
                if let Some(places) = self.contents.get_mut(&digest) {
                    places.retain(|(d, n)| *d != dir || n[..] != *name);
                    if places.is_empty() {
                        self.contents.remove(&digest);
                    }
                }
            }
            Some(Entry::Dir(index)) => self.forget_dir(index),
        }
    }

    fn forget_dir(&mut self, index: DirIndex) {
        let names: Vec<Name> = self.dir(index).names.keys().cloned().collect();
        self.entries -= names.len();
        for name in names {
            self.forget(index, &name);
        }
        if let Some(gone) = self.dirs[index].take() {
            self.by_path.remove(&gone.path);
            self.free.push(index);
        }
    }

    /// A poison's number stays known for a while: a running job may report it later.
    fn retire(&mut self, id: u64) {
        let cost = |poison: &(Arc<[u8]>, Name)| poison.0.len() + poison.1.len() + 64;
        self.retired_bytes += self.poisons.get(&id).map_or(0, cost);
        self.retired.push_back(id);
        while self.retired_bytes > RETIRED_BYTES_MAX
            && let Some(oldest) = self.retired.pop_front()
        {
            self.retired_bytes -= self.poisons.remove(&oldest).as_ref().map_or(0, cost);
        }
    }

    fn swap_or_drop(&mut self, staged: &str, dir: DirIndex, fd: &OwnedFd, name: &[u8]) -> Result<(), MirrorError> {
        let swapped = self.swap_in(staged, dir, fd, name, false);
        if swapped.is_err() {
            let _ = rustix::fs::unlinkat(&self.stage, staged, AtFlags::empty());
        }
        swapped
    }

    /// Moves what was staged over a name, so that no job sees a gap. The index is changed by the caller's `set`.
    fn swap_in(&self, staged: &str, dir: DirIndex, fd: &OwnedFd, name: &[u8], is_dir: bool) -> Result<(), MirrorError> {
        let os = bytes::os(name);
        let old_dir = match self.dir(dir).names.get(name) {
            Some(Entry::Dir(old)) => Some(*old),
            Some(_) if is_dir => None,
            _ => return Ok(rustix::fs::renameat(&self.stage, staged, fd, os)?),
        };
        if old_dir.is_some_and(|old| self.dir(old).is_closed()) {
            // A directory that may not be written cannot be moved.
            rustix::fs::chmodat(fd, os, Mode::RWXU, AtFlags::empty())?;
        }
        // A directory and a link cannot be renamed over each other, but exchanged.
        rustix::fs::renameat_with(&self.stage, staged, fd, os, rustix::fs::RenameFlags::EXCHANGE)?;
        if let Err(error) = remove_tree(&self.base.join("stage").join(staged)) {
            // In nobody's way; the next start tries again.
            tracing(&format!("{} stays: {error}", self.base.join("stage").join(staged).display()));
        }
        Ok(())
    }

    /// Enters what a name is now. What it was is forgotten.
    fn set(&mut self, dir: DirIndex, name: &[u8], entry: Entry) {
        // A content that replaces itself is in `contents` twice: the old place must go first, the new one stay.
        if let Entry::File { digest, size, .. } = entry
            && let Some(Entry::File { digest: old, .. }) = self.dir(dir).names.get(name)
            && *old == digest
        {
            self.bytes -= size;
            if let Some(places) = self.contents.get_mut(&digest)
                && let Some(at) = places.iter().position(|(d, n)| *d == dir && n[..] == *name)
            {
                places.swap_remove(at);
            }
        } else {
            self.forget(dir, name);
        }
        let dir = self.dir_mut(dir);
        let new = dir.names.insert(name.into(), entry).is_none();
        dir.layers.changed(name);
        self.entries += usize::from(new);
    }

    /// Whether `more_bytes` fit below the quota.
    pub fn check_room(&self, more_bytes: u64) -> Result<(), MirrorError> {
        let needed = self.bytes.checked_add(self.blob_bytes).and_then(|n| n.checked_add(more_bytes));
        if needed.is_some_and(|n| n <= self.quota_bytes) {
            return Ok(());
        }
        Err(MirrorError::Full(format!("the mirror would exceed its quota of {} bytes", self.quota_bytes)))
    }

    fn stage_name(&mut self) -> String {
        self.stage_counter += 1;
        self.stage_counter.to_string()
    }

    fn check_name(&self, dir: DirIndex, name: &[u8]) -> Result<(), MirrorError> {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
            return refused(format!("\"{}\" is no file name", bytes::show(name).escape_debug()));
        }
        if name.len() > NAME_BYTES_MAX {
            return refused("a name is longer than 255 bytes");
        }
        if dir_is_root(self.dir(dir)) && is_sandbox_name(name) {
            return refused(format!("/{} belongs to the sandbox", bytes::show(name)));
        }
        if self.entries >= MIRROR_ENTRIES_MAX {
            return Err(MirrorError::Full(format!("the mirror has {MIRROR_ENTRIES_MAX} names")));
        }
        Ok(())
    }

    /// Where a blob is written before `store_blob`.
    pub fn blob_path(&mut self) -> PathBuf {
        let staged = self.stage_name();
        self.base.join("stage").join(staged)
    }

    /// Takes a verified content that was written to `staged`, ahead of the delta that names it.
    pub fn store_blob(&mut self, digest: Digest, staged: &Path, size: u64) -> Result<(), MirrorError> {
        let old = self.blobs.get(&digest).copied().unwrap_or(0);
        self.check_room(size.saturating_sub(old))?;
        fs::rename(staged, self.base.join("blobs").join(digest.to_string()))?;
        self.blobs.insert(digest, size);
        self.blob_bytes = self.blob_bytes - old + size;
        Ok(())
    }

    /// Forgets contents that were stored ahead and never placed: a submitter that connects anew does not know of them.
    pub fn drop_blobs(&mut self) -> Result<(), MirrorError> {
        for digest in std::mem::take(&mut self.blobs).into_keys() {
            rustix::fs::unlinkat(&self.blob_dir, digest.to_string(), AtFlags::empty())?;
        }
        self.blob_bytes = 0;
        Ok(())
    }

    fn read_back(&mut self) -> Result<(), MirrorError> {
        for entry in fs::read_dir(self.base.join("blobs"))? {
            // Stored ahead and never placed: the submitter sends it again if it still wants it.
            fs::remove_file(entry?.path())?;
        }
        let mut stack = vec![self.add_dir(b"/", 0o755)];
        while let Some(index) = stack.pop() {
            if self.dir(index).is_closed() {
                continue;
            }
            let path = &self.dir(index).path[1..];
            let fd = open_in(&self.root_dir, if path.is_empty() { b"." } else { path }, OFlags::DIRECTORY)?;
            for entry in rustix::fs::Dir::read_from(&fd)? {
                let entry = entry?;
                let name: Name = entry.file_name().to_bytes().into();
                if &name[..] == b"." || &name[..] == b".." || index == 0 && is_sandbox_name(&name) {
                    continue;
                }
                let stat = rustix::fs::statat(&fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                let entry = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
                    rustix::fs::FileType::Directory => {
                        let path = join(&self.dir(index).path, &name);
                        let child = self.add_dir(&path, stat.st_mode & 0o7777);
                        stack.push(child);
                        Entry::Dir(child)
                    }
                    rustix::fs::FileType::Symlink => {
                        let target = rustix::fs::readlinkat(&fd, bytes::os(&name), Vec::new())?;
                        match target.to_bytes().strip_prefix(TRAP_DIR.as_bytes()).and_then(|t| t.strip_prefix(b"/")) {
                            Some(id) => {
                                let id: u64 = std::str::from_utf8(id)
                                    .ok()
                                    .and_then(|t| t.parse().ok())
                                    .ok_or_else(|| MirrorError::Io("a poison without a number".into()))?;
                                let path = Arc::clone(&self.dir(index).path);
                                self.poisons.insert(id, (path, name.clone()));
                                self.next_poison = self.next_poison.max(id.saturating_add(1));
                                Entry::Poison(id)
                            }
                            None => Entry::Link(scrub::number_of(&target.to_bytes().to_vec())),
                        }
                    }
                    rustix::fs::FileType::RegularFile => {
                        let file = fs::File::from(open_in(&fd, &name, OFlags::RDONLY)?);
                        let mut hasher = blake3::Hasher::new();
                        hasher.update_reader(&file)?;
                        let digest = Digest(*hasher.finalize().as_bytes());
                        let size = file.metadata()?.size();
                        self.bytes += size;
                        self.contents.entry(digest).or_default().push((index, name.clone()));
                        // Of before it was read: what changed it meanwhile is seen by the first sweep.
                        Entry::File { digest, size, stamp: scrub::stamp_of(&stat) }
                    }
                    _ => return Err(MirrorError::Io("something that no mirror makes".into())),
                };
                self.set(index, &name, entry);
            }
        }
        Ok(())
    }
}

fn dir_is_root(dir: &Dir) -> bool {
    *dir.path == *b"/"
}

fn is_sandbox_name(name: &[u8]) -> bool {
    SANDBOX_DIRS.iter().any(|d| d.as_bytes() == name) || name == &PRIVATE_DIR.as_bytes()[1..]
}

/// Parent and name of a path that `check_path` accepted; None for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|&c| c == b'/').filter(|_| path.len() > 1)?;
    Some((if at == 0 { b"/" } else { &path[..at] }, &path[at + 1..]))
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Absolute, no `.` or `..`, no empty component, not longer or deeper than the limits, not a place of the sandbox.
pub fn check_path(path: &[u8]) -> Result<(), MirrorError> {
    if path == b"/" {
        return Ok(());
    }
    let bad = |why: &str| refused(format!("{}: {why}", bytes::show(path).escape_debug()));
    let Some(rest) = path.strip_prefix(b"/") else { return bad("not absolute") };
    // The limit counts the closing NUL.
    if path.len() >= PATH_BYTES_MAX || path.contains(&0) {
        return bad("not a path");
    }
    let mut depth = 0;
    for (at, part) in rest.split(|&c| c == b'/').enumerate() {
        if part.is_empty() || part == b"." || part == b".." {
            return bad("not in its simplest form");
        }
        if part.len() > NAME_BYTES_MAX {
            return bad("a name is longer than 255 bytes");
        }
        if at == 0 && is_sandbox_name(part) {
            return bad("belongs to the sandbox");
        }
        depth += 1;
    }
    if depth > PATH_DEPTH_MAX { bad("too deep") } else { Ok(()) }
}

fn open_dir(path: &Path) -> Result<OwnedFd, MirrorError> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::RDONLY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens a path below a directory, never through a link and never outside.
fn open_in(dir: &OwnedFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, MirrorError> {
    // A place, as opposed to something to be read, cannot block, and takes no other flags.
    let never_block = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK };
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | never_block;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(dir, bytes::os(name), flags, Mode::empty(), resolve)?)
}

fn create_in(dir: &OwnedFd, name: &str) -> Result<OwnedFd, MirrorError> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(dir, name, flags, Mode::from_raw_mode(0o600), resolve)?)
}

/// The mode that a submitter's file has here: nobody else writes it, no set-user-ID, and the job may read it.
pub fn kept_mode(mode: u32) -> u32 {
    mode & 0o755 | 0o400
}

/// Mode and the submitter's modification time.
fn finish(file: &fs::File, op: &FileOp) -> Result<(), MirrorError> {
    file.set_permissions(fs::Permissions::from_mode(kept_mode(op.mode)))?;
    let time = rustix::fs::Timespec { tv_sec: op.mtime_s as _, tv_nsec: (op.mtime_ns % 1_000_000_000) as _ };
    rustix::fs::futimens(file, &rustix::fs::Timestamps { last_access: time, last_modification: time })?;
    Ok(())
}

/// Removes a tree whatever its modes are; nothing there is fine.
pub fn remove_tree(path: &Path) -> Result<(), MirrorError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Ok(fs::remove_file(path)?),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            Ok(fs::remove_dir_all(path)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Gives us every directory of a tree. Links are not followed.
fn open_up(path: &Path) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

fn tracing(text: &str) {
    crate::log::warn(text);
}
