//! The submitter's standing knowledge of its own file tree: listings, digests, directives, kept true by change events
//! and stats. It decides nothing about jobs; it answers what a compile may open and what has changed.
//!
//! Freshness: `begin_batch` drains the kernel's change events, which are queued before the changing system call
//! returns; so whatever happened before a request arrived is seen. On top of that each file that a user could change
//! through a mapping or another hard link (everything not owned by the system) is checked by one stat after a job was
//! sent and before its result is taken; one serves every job that ran at that moment.
//! A directory is believed without a stat only if it and every directory above it are watched, and neither mounts nor
//! anybody's permissions changed since its last one (`doubt`). Where a directory cannot be watched, its listing and
//! files are checked by stat. Nothing is believed for a time span.

mod closure;
mod content;
mod listing;
#[cfg(test)]
mod tests;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::root::Root;
use potluck_model::ids::Digest;
use potluck_model::scan::{Directives, Value};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

pub use closure::{Closure, ConfigId, Listed, Record, Want};
pub use content::{ReadError, open_regular};
pub use listing::{Found, is_private};

/// The wall clock, to be compared with a file's times: nanoseconds since 1970.
fn wall_clock_ns() -> i128 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}

/// Index of a directory.
pub type DirId = u32;
/// Index of a file.
pub type FileId = u32;
/// Index of a symbolic link.
pub type LinkId = u32;
/// A file name.
pub type Name = Box<[u8]>;

/// What a name is, without following it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// Anything else: FIFO, socket, device. Never opened.
    Other,
}

/// What a name was used as; a name can be several over time.
#[derive(Clone, Copy, Default)]
struct Ids {
    file: Option<FileId>,
    dir: Option<DirId>,
    link: Option<LinkId>,
}

/// A physical directory: no component of its path is a link.
pub struct Dir {
    /// Absolute path.
    pub path: PathBuf,
    /// Its parent; the root is its own.
    pub parent: DirId,
    /// Permission bits.
    pub mode: u32,
    /// Every name in it, when `loaded`.
    pub names: HashMap<Name, Kind>,
    /// Whether `names` is the directory's content.
    pub loaded: bool,
    ids: HashMap<Name, Ids>,
    identity: (u64, u64),
    changed_at: (i64, i64, i64, i64),
    /// Permission bits at its last reading.
    mode_read: u32,
    watched: bool,
    checked: u64,
    /// `Tree::doubt` at its last stat.
    sure: u64,
    private: bool,
}

/// A regular file that something asked about.
pub struct File {
    /// Where it is.
    pub dir: DirId,
    /// Its name there.
    pub name: Name,
    /// Content, when `version > 0`.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Grows with every change of content, mode or time; 0: not read yet, or not readable.
    pub version: u32,
    /// The last version that was not 0: one that comes back is another.
    version_last: u32,
    /// What it includes, when somebody asked.
    pub directives: Option<Arc<Directives>>,
    stamp: (u64, u64, i64, i64),
    dirty: bool,
    system: bool,
    checked: u64,
    /// `Tree::doubt` at its last stat.
    sure: u64,
}

/// A symbolic link that a lookup went through.
pub struct Link {
    /// Where it is.
    pub dir: DirId,
    /// Its name there.
    pub name: Name,
    /// What it says; empty if it is none any more.
    pub target: Box<[u8]>,
    /// Grows with every change.
    pub version: u32,
    dirty: bool,
}

/// Counters for display only.
#[derive(Clone, Copy, Default, serde::Serialize)]
pub struct TreeCounts {
    /// Directories read completely.
    pub directory_reads: u64,
    /// Stat calls.
    pub stats: u64,
    /// Files read and hashed.
    pub files_hashed: u64,
    /// Change events.
    pub events: u64,
    /// Closures walked anew.
    pub walks: u64,
    /// Dependency files that were not known to name only what a closure holds.
    pub lists_read: u64,
    /// Watched directories.
    pub watches: u64,
    /// Times that the event queue overflowed.
    pub overflows: u64,
}

/// The tree.
pub struct Tree {
    /// Where all its paths are read.
    root: Root,
    dirs: Vec<Dir>,
    files: Vec<File>,
    links: Vec<Link>,
    /// Macros that may name files, by name.
    defines: HashMap<Name, Vec<(FileId, Value)>>,
    /// First components that some lookup did not find: their appearance can change a closure.
    missed: HashSet<Name>,
    /// Grows when closures may have changed.
    epoch: u64,
    /// Grows whenever something known may have changed, or did.
    touched: u64,
    /// Grows when paths may lead elsewhere without an event of their directories: mounts, permissions.
    doubt: u64,
    batch: u64,
    log: ChangeLog,
    /// Where the log ended when the last draining of events began.
    drained_from: usize,
    watch: watch::Watches,
    walker: closure::Walker,
    own_uid: u32,
    /// Files whose changes are events count as known if their last stat was in this batch or a later one.
    recent: u64,
    /// Counters.
    pub counts: TreeCounts,
}

/// See [`Tree::state`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeState {
    touched: u64,
    epoch: u64,
    doubt: u64,
}

/// A name whose existence, kind or content changed.
pub type Change = (DirId, Name);

/// All changes, with a position that followers remember.
#[derive(Default)]
struct ChangeLog {
    base: u64,
    changes: Vec<Change>,
}

/// Changes kept for followers that lag; one that lags further starts anew.
const LOG_CHANGES_MAX: usize = 1 << 20;

impl Tree {
    /// An empty tree of this root, of which it knows only the top.
    pub fn new(root: Root) -> Self {
        let mut tree = Self {
            root,
            dirs: Vec::new(),
            files: Vec::new(),
            links: Vec::new(),
            defines: HashMap::default(),
            missed: HashSet::default(),
            epoch: 1,
            touched: 1,
            doubt: 1,
            batch: 1,
            log: ChangeLog::default(),
            drained_from: 0,
            watch: watch::Watches::new(),
            walker: closure::Walker::default(),
            own_uid: rustix::process::getuid().as_raw(),
            recent: u64::MAX,
            counts: TreeCounts::default(),
        };
        tree.add_dir(PathBuf::from("/"), 0);
        tree
    }

    /// Takes in everything that changed until now. Call it after the requests of a batch have arrived.
    pub fn begin_batch(&mut self) {
        self.batch += 1;
        if self.watch.mounts_changed() {
            self.doubt += 1;
        }
        self.drain_events();
        if self.log.changes.len() > LOG_CHANGES_MAX {
            let cut = self.log.changes.len() / 2;
            self.log.changes.drain(..cut);
            self.log.base += cut as u64;
        }
    }

    /// Where all its paths are read.
    pub fn root(&self) -> Root {
        self.root
    }

    /// The number of this batch.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// A number that differs when paths may lead elsewhere although nothing was reported: mounts, permissions.
    pub fn doubt(&self) -> u64 {
        self.doubt
    }

    /// What differs after anything known may have changed, as far as events tell.
    pub fn state(&self) -> TreeState {
        TreeState { touched: self.touched, epoch: self.epoch, doubt: self.doubt }
    }

    /// Whether changes in this directory are reported by events.
    pub fn is_watched(&self, id: DirId) -> bool {
        self.dirs[id as usize].watched && self.dirs[id as usize].loaded
    }

    /// Where the change log ends now.
    pub fn position(&self) -> u64 {
        self.log.base + self.log.changes.len() as u64
    }

    /// Changes since `position`; None if they are no longer kept.
    pub fn changes_since(&self, position: u64) -> Option<&[Change]> {
        let skip = position.checked_sub(self.log.base)?;
        self.log.changes.get(skip as usize..)
    }

    /// A directory.
    pub fn dir(&self, id: DirId) -> &Dir {
        &self.dirs[id as usize]
    }

    /// A file.
    pub fn file(&self, id: FileId) -> &File {
        &self.files[id as usize]
    }

    /// A link.
    pub fn link(&self, id: LinkId) -> &Link {
        &self.links[id as usize]
    }

    /// The path of a file.
    pub fn file_path(&self, id: FileId) -> PathBuf {
        let file = self.file(id);
        self.dir(file.dir).path.join(crate::bytes::os(&file.name))
    }

    /// The file that was looked up under this name of a directory, if it still is one.
    pub fn known_file(&self, dir: DirId, name: &[u8]) -> Option<FileId> {
        let dir = self.dir(dir);
        (dir.names.get(name) == Some(&Kind::File)).then(|| dir.ids.get(name)?.file).flatten()
    }

    /// The directory of this physical path, if something asked about it before.
    pub fn known_dir(&self, path: &[u8]) -> Option<DirId> {
        path.split(|&c| c == b'/').filter(|c| !c.is_empty()).try_fold(0, |dir, name| self.dir(dir).ids.get(name)?.dir)
    }

    /// The same for a path without `.` and `..`; None also where it goes through a link.
    pub fn known_dir_as_spelled(&self, path: &[u8]) -> Option<DirId> {
        path.split(|&c| c == b'/').filter(|c| !c.is_empty()).try_fold(0, |dir, name| {
            let dir = self.dir(dir);
            (dir.names.get(name) == Some(&Kind::Dir)).then(|| dir.ids.get(name)?.dir).flatten()
        })
    }

    /// The file of this physical path, if it was looked up before.
    pub fn known_path(&self, path: &Path) -> Option<FileId> {
        let dir = self.known_dir(crate::bytes::of(path.parent()?))?;
        self.dir(dir).ids.get(crate::bytes::of(Path::new(path.file_name()?)))?.file
    }

    fn changed(&mut self, dir: DirId, name: Name) {
        self.log.changes.push((dir, name));
    }
}
