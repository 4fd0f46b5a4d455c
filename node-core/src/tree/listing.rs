//! Directory listings, and looking up paths in them without system calls.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use potluck_model::ids::Digest;
use rustc_hash::FxHashMap as HashMap;
use rustix::fs::{FileType, OFlags};

use super::closure::Record;
use super::{Dir, DirId, File, FileId, Ids, Kind, Link, LinkId, Name, Tree};
use crate::bytes;
use crate::root::Root;

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A regular file.
    File(FileId),
    /// A directory.
    Dir(DirId),
}

/// Links followed in one lookup before it counts as a loop (Linux: 40).
const LINKS_MAX: u32 = 40;

pub(super) fn kind_of_mode(mode: u32) -> Kind {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    }
}

/// Places that are private to every sandbox or not part of a file tree: never listed, read or sent.
pub fn is_private(path: &Path) -> bool {
    ["/proc", "/dev", "/sys", "/tmp", "/run", potluck_runner::protocol::PRIVATE_DIR].iter().any(|p| path.starts_with(p))
}

impl Tree {
    pub(super) fn add_dir(&mut self, path: PathBuf, parent: DirId) -> DirId {
        let id = self.dirs.len() as DirId;
        let private = parent != id && is_private(&path);
        self.dirs.push(Dir {
            path,
            parent,
            mode: 0o755,
            names: HashMap::default(),
            loaded: false,
            ids: HashMap::default(),
            identity: (0, 0),
            changed_at: (0, 0, 0, 0),
            mode_read: 0,
            watched: false,
            checked: 0,
            sure: 0,
            private,
        });
        id
    }

    fn child_dir(&mut self, dir: DirId, name: &[u8]) -> DirId {
        if let Some(id) = self.dirs[dir as usize].ids.get(name).and_then(|ids| ids.dir) {
            return id;
        }
        let path = self.dirs[dir as usize].path.join(bytes::os(name));
        let id = self.add_dir(path, dir);
        self.dirs[dir as usize].ids.entry(name.into()).or_default().dir = Some(id);
        id
    }

    fn child_file(&mut self, dir: DirId, name: &[u8]) -> FileId {
        if let Some(id) = self.dirs[dir as usize].ids.get(name).and_then(|ids| ids.file) {
            return id;
        }
        let id = self.files.len() as FileId;
        self.files.push(File {
            dir,
            name: name.into(),
            digest: Digest([0; 32]),
            size: 0,
            mode: 0,
            mtime: (0, 0),
            version: 0,
            version_last: 0,
            directives: None,
            stamp: (0, 0, 0, 0),
            dirty: true,
            system: false,
            checked: 0,
            sure: 0,
        });
        self.dirs[dir as usize].ids.entry(name.into()).or_default().file = Some(id);
        id
    }

    fn child_link(&mut self, dir: DirId, name: &[u8]) -> LinkId {
        if let Some(id) = self.dirs[dir as usize].ids.get(name).and_then(|ids| ids.link) {
            self.refresh_link(id);
            return id;
        }
        let id = self.links.len() as LinkId;
        self.links.push(Link { dir, name: name.into(), target: Box::default(), version: 0, dirty: true });
        self.dirs[dir as usize].ids.entry(name.into()).or_default().link = Some(id);
        self.refresh_link(id);
        id
    }

    /// Makes sure that what is known of a link is its state in this batch. False: it is none any more.
    pub fn fresh_link(&mut self, id: LinkId) -> bool {
        self.refresh_link(id);
        !self.links[id as usize].target.is_empty()
    }

    fn refresh_link(&mut self, id: LinkId) {
        let link = &mut self.links[id as usize];
        if !link.dirty {
            return;
        }
        link.dirty = false;
        let path = self.dirs[link.dir as usize].path.join(bytes::os(&link.name));
        let target = self.root.read_link(&path).map(|t| t.as_os_str().as_bytes().into()).unwrap_or_default();
        if target != link.target || link.version == 0 {
            link.target = target;
            link.version += 1;
            self.touched += 1;
            let change = (link.dir, link.name.clone());
            self.changed(change.0, change.1);
        }
    }

    /// Makes sure that the listing of `id` is that of this batch. False: it is no directory, or not readable.
    pub fn fresh_dir(&mut self, id: DirId) -> bool {
        let dir = &self.dirs[id as usize];
        if dir.checked == self.batch {
            return dir.loaded;
        }
        if dir.private {
            return false;
        }
        if self.is_reported(id) {
            self.dirs[id as usize].checked = self.batch;
            return true;
        }
        self.counts.stats += 1;
        let stat = self.root.lstat(&self.dirs[id as usize].path);
        let dir = &mut self.dirs[id as usize];
        dir.checked = self.batch;
        dir.sure = self.doubt;
        let Ok(stat) = stat else {
            self.unload(id);
            return false;
        };
        if kind_of_mode(stat.st_mode) != Kind::Dir {
            self.unload(id);
            return false;
        }
        let identity = (stat.st_dev, stat.st_ino);
        let changed_at = (stat.st_mtime, stat.st_mtime_nsec as i64, stat.st_ctime, stat.st_ctime_nsec as i64);
        // With other permissions it may have become readable, or the opposite.
        let as_read = dir.identity == identity && dir.mode_read == stat.st_mode & 0o7777;
        if dir.loaded && as_read && (dir.watched || dir.changed_at == changed_at) {
            return true;
        }
        if dir.loaded && dir.identity != identity {
            self.unload(id);
        }
        self.load_dir(id)
    }

    /// Whether every change of what this path leads to, and of its listing, would have been an event since its last
    /// stat.
    pub(super) fn is_reported(&self, mut id: DirId) -> bool {
        if !self.watch.sees_mounts() {
            return false;
        }
        loop {
            let dir = &self.dirs[id as usize];
            if !dir.loaded || !dir.watched || dir.sure != self.doubt {
                return false;
            }
            if id == 0 {
                return true;
            }
            id = dir.parent;
        }
    }

    fn load_dir(&mut self, id: DirId) -> bool {
        let path = self.dirs[id as usize].path.clone();
        // The watch first: what changes while the listing is read is then an event.
        let watched = self.dirs[id as usize].watched || self.watch.add(&path, id);
        let (names, stat, closed) = match read_listing(&self.root, &path) {
            Some((names, stat)) => (names, stat, false),
            // Nobody may look into it: what the compiler gets there is "permission denied" for every name, and a
            // directory without any permission says the same at the worker.
            None if self.root.is_closed(&path) => match self.root.lstat(&path) {
                Ok(stat) => (HashMap::default(), stat, true),
                Err(_) => return false,
            },
            None => {
                self.unload(id);
                return false;
            }
        };
        self.counts.directory_reads += 1;
        self.touched += 1;
        let now_s = (super::wall_clock_ns() / 1_000_000_000) as i64;
        let dir = &mut self.dirs[id as usize];
        let was_closed = if dir.loaded { dir.mode == 0 } else { closed };
        dir.mode_read = stat.st_mode & 0o7777;
        // One without any permission that was read all the same (root reads everything) is not closed.
        dir.mode = match dir.mode_read {
            _ if closed => 0,
            0 => 0o700,
            mode => mode,
        };
        dir.identity = (stat.st_dev, stat.st_ino);
        // A directory changed within the clock's granularity of the reading may change again unseen (git's racy rule).
        let racy = now_s - stat.st_mtime <= 1;
        dir.changed_at = if racy {
            (0, 0, 0, 0)
        } else {
            (stat.st_mtime, stat.st_mtime_nsec as i64, stat.st_ctime, stat.st_ctime_nsec as i64)
        };
        self.counts.watches += u64::from(watched && !dir.watched);
        dir.watched = watched;
        dir.loaded = true;
        let old = std::mem::replace(&mut dir.names, names);
        if closed != was_closed && id != 0 {
            // Followers keep the directory itself, not only its names.
            let name: Name = bytes::of(Path::new(path.file_name().unwrap_or_default())).into();
            let parent = self.dirs[id as usize].parent;
            self.changed(parent, name);
        }
        let dir = &self.dirs[id as usize];
        let mut changed: Vec<Name> = Vec::new();
        changed.extend(dir.names.iter().filter(|(n, k)| old.get(*n) != Some(k)).map(|(n, _)| n.clone()));
        changed.extend(old.keys().filter(|n| !dir.names.contains_key(*n)).cloned());
        for name in changed {
            self.name_changed(id, name);
        }
        // Files of a directory that was not watched in between may all have changed.
        let ids: Vec<Ids> = self.dirs[id as usize].ids.values().copied().collect();
        for ids in ids {
            if let Some(file) = ids.file {
                self.files[file as usize].dirty = true;
            }
            if let Some(link) = ids.link {
                self.links[link as usize].dirty = true;
                self.refresh_link(link);
            }
        }
        true
    }

    /// Enters what a name is now; `None`: it is gone.
    pub(super) fn name_is(&mut self, id: DirId, name: Name, kind: Option<Kind>) {
        let dir = &mut self.dirs[id as usize];
        let before = match kind {
            Some(kind) => dir.names.insert(name.clone(), kind),
            None => dir.names.remove(&name),
        };
        // The same kind may be another file: replaced by rename.
        if before == kind && !dir.ids.contains_key(&name) {
            return;
        }
        self.name_changed(id, name);
    }

    fn name_changed(&mut self, id: DirId, name: Name) {
        let dir = &self.dirs[id as usize];
        let kind = dir.names.get(&name).copied();
        let ids = dir.ids.get(&name).copied();
        if self.missed.contains(&name) {
            self.epoch += 1;
        }
        if let Some(ids) = ids {
            self.touched += 1;
            if let Some(file) = ids.file {
                self.files[file as usize].dirty = true;
                if kind != Some(Kind::File) {
                    self.epoch += 1;
                }
            }
            if let Some(link) = ids.link {
                self.links[link as usize].dirty = true;
                self.epoch += 1;
            }
            if let Some(dir) = ids.dir {
                self.unload(dir);
                self.epoch += 1;
            }
        }
        self.changed(id, name);
    }

    /// Forgets a directory and everything below: its path may now lead elsewhere.
    pub(super) fn unload(&mut self, id: DirId) {
        let mut stack = vec![id];
        let mut any = false;
        while let Some(id) = stack.pop() {
            stack.extend(self.dirs[id as usize].ids.values().filter_map(|ids| ids.dir).filter(|&d| d != id));
            any |= self.unload_one(id);
        }
        if any {
            self.epoch += 1;
        }
    }

    pub(super) fn unload_one(&mut self, id: DirId) -> bool {
        self.watch.remove(id);
        let dir = &mut self.dirs[id as usize];
        dir.watched = false;
        dir.checked = 0;
        if !std::mem::take(&mut dir.loaded) {
            return false;
        }
        dir.changed_at = (0, 0, 0, 0);
        self.touched += 1;
        // Followers must hear of every name: which of them come back is known at the next load.
        let names: Vec<Name> = std::mem::take(&mut dir.names).into_keys().collect();
        let ids: Vec<Ids> = dir.ids.values().copied().collect();
        for name in names {
            self.changed(id, name);
        }
        for ids in ids {
            if let Some(file) = ids.file {
                self.files[file as usize].dirty = true;
            }
            if let Some(link) = ids.link {
                self.links[link as usize].dirty = true;
            }
        }
        true
    }

    /// The directory of an absolute path, however it is spelled.
    pub fn resolve_dir(&mut self, path: &Path, record: &mut Record) -> Option<DirId> {
        match self.resolve(0, path.as_os_str().as_bytes(), record)? {
            Found::Dir(id) => Some(id),
            Found::File(_) => None,
        }
    }

    /// Looks `path` up from `base` as the kernel does: component by component, through links. Every directory
    /// consulted and every link followed goes into `record`.
    pub fn resolve(&mut self, base: DirId, path: &[u8], record: &mut Record) -> Option<Found> {
        let mut links = 0;
        self.resolve_from(base, path, record, &mut links)
    }

    fn resolve_from(&mut self, base: DirId, path: &[u8], record: &mut Record, links: &mut u32) -> Option<Found> {
        let mut dir = if path.starts_with(b"/") { 0 } else { base };
        let mut parts = path.split(|&c| c == b'/').filter(|c| !c.is_empty()).peekable();
        let trailing_slash = path.ends_with(b"/");
        while let Some(part) = parts.next() {
            match part {
                b"." => continue,
                b".." => {
                    // The kernel goes through it all the same: it must be there, and one that may be searched.
                    if self.dirs[dir as usize].private {
                        record.private = true;
                        return None;
                    }
                    if !self.fresh_dir(dir) || self.dirs[dir as usize].mode == 0 {
                        return None;
                    }
                    record.dir(dir);
                    dir = self.dirs[dir as usize].parent;
                    continue;
                }
                _ => {}
            }
            if self.dirs[dir as usize].private {
                record.private = true;
                return None;
            }
            if !self.fresh_dir(dir) {
                return None;
            }
            record.dir(dir);
            let last = parts.peek().is_none();
            let Some(&kind) = self.dirs[dir as usize].names.get(part) else {
                if !self.missed.contains(part) {
                    self.missed.insert(part.into());
                }
                return None;
            };
            match kind {
                Kind::Dir => dir = self.child_dir(dir, part),
                Kind::File => {
                    return (last && !trailing_slash).then(|| Found::File(self.child_file(dir, part)));
                }
                // A link in the place of /tmp: what is there cannot be shown to a job.
                Kind::Link if dir == 0 && is_private(&Path::new("/").join(bytes::os(part))) => {
                    record.private = true;
                    return None;
                }
                Kind::Link => {
                    *links += 1;
                    if *links > LINKS_MAX {
                        return None;
                    }
                    let link = self.child_link(dir, part);
                    record.link(link);
                    let target = self.links[link as usize].target.clone();
                    match self.resolve_from(dir, &target, record, links)? {
                        Found::Dir(to) => dir = to,
                        Found::File(file) => return (last && !trailing_slash).then_some(Found::File(file)),
                    }
                }
                Kind::Other => return None,
            }
        }
        if self.dirs[dir as usize].private {
            record.private = true;
            return None;
        }
        self.fresh_dir(dir).then(|| {
            record.dir(dir);
            Found::Dir(dir)
        })
    }
}

fn read_listing(root: &Root, path: &Path) -> Option<(HashMap<Name, Kind>, rustix::fs::Stat)> {
    let fd = root.open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    let mut names = HashMap::default();
    for entry in rustix::fs::Dir::read_from(&fd).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Link,
            FileType::Unknown => {
                match rustix::fs::statat(&fd, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => kind_of_mode(stat.st_mode),
                    Err(rustix::io::Errno::NOENT) => continue,
                    // It exists: as something that is never opened.
                    Err(_) => Kind::Other,
                }
            }
            _ => Kind::Other,
        };
        names.insert(name.into(), kind);
    }
    Some((names, stat))
}
