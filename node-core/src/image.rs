//! What one worker's mirror of this tree holds, and the deltas that keep it a conservative image: every name that
//! exists here is there with its right content or as poison; a name that does not may be absent or poison.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Weak};

use potluck_model::ids::Digest;
use potluck_model::limits::{INLINE_BYTES_MAX, NAME_BYTES_MAX};
use potluck_wire::pool::{DeltaOps, DirOps, FileOp, LinkOp};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use crate::bytes;
use crate::mirror::{check_path, kept_mode};
use crate::tree::{Change, Closure, DirId, FileId, Found, Kind, LinkId, Name, Record, Tree};

/// What was sent for a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Poison,
    File(FileId, Digest),
    Link(LinkId),
    Dir(DirId),
}

/// The image of one worker's mirror.
#[derive(Default)]
pub struct Image {
    /// Position in the tree's change log up to which it is true; None: nothing is known to be there.
    position: Option<u64>,
    dirs: HashMap<DirId, HashMap<Name, Sent>>,
    files: Vec<u32>,
    links: Vec<u32>,
    /// How many places of the mirror hold this content.
    contents: HashMap<Digest, u32>,
    /// Contents that were stored ahead and not yet placed.
    stored: HashSet<Digest>,
    /// Directories that were sent as ones that nobody may search.
    closed: HashSet<DirId>,
    /// Batch in which everything that changes without an event was last looked at, and the tree's doubt then.
    looked: (u64, u64),
    /// Closures that the mirror had everything of, since nothing of it was taken back. By address: the weak pointer
    /// keeps it from becoming another one's.
    covered: HashMap<usize, Weak<Closure>>,
}

/// What must be sent before a job.
#[derive(Default)]
pub struct Delta {
    /// In order.
    pub ops: DeltaOps,
    /// Nothing to send.
    pub is_empty: bool,
}

/// Large contents that must be stored at the worker before a delta may name them.
pub type Missing = Vec<(FileId, Digest)>;

/// Contents of one directory beyond this go in a message of their own: no control message may exceed 4 MiB.
const PART_BYTES_MAX: usize = 512 << 10;
/// Closures remembered as sent: some MB.
const COVERED_MAX: usize = 20_000;

#[derive(Default)]
struct Ops {
    order: Vec<DirId>,
    dirs: HashMap<DirId, Part>,
    /// Files with only another time or mode. They go first, while every content is where it was.
    touched: Vec<DirOps>,
    /// Contents that lost a place in this delta: whoever copies them may come too late.
    forgotten: HashSet<Digest>,
    /// Contents that lie ready in no place.
    stored: HashSet<Digest>,
}

/// What changes in one directory.
#[derive(Default)]
struct Part {
    ops: DirOps,
    /// Of each of `ops.files`.
    ids: Vec<FileId>,
    /// The mirror does not have it yet.
    is_new: bool,
}

impl Ops {
    fn dir(&mut self, tree: &Tree, id: DirId) -> &mut Part {
        self.dirs.entry(id).or_insert_with(|| {
            self.order.push(id);
            let dir = tree.dir(id);
            let ops = DirOps { path: bytes::of(&dir.path).to_vec(), mode: dir.mode, ..DirOps::default() };
            Part { ops, ..Part::default() }
        })
    }

    /// A directory is none any more: what was to change in it must not be made again.
    fn drop_dir(&mut self, id: DirId) {
        if self.dirs.remove(&id).is_some() {
            self.order.retain(|other| *other != id);
        }
    }
}

/// A directory that the worker's state and this tree have in common, with the files that are in both.
type Known<'a> = (DirId, Vec<(&'a FileOp, FileId)>);

fn is_name(name: &[u8]) -> bool {
    let special = name.is_empty() || name == b"." || name == b"..";
    !special && name.len() <= NAME_BYTES_MAX && !name.iter().any(|c| matches!(c, 0 | b'/'))
}

impl Image {
    /// An empty image at a tree's position.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers a content that the worker has stored.
    pub fn stored(&mut self, digest: Digest) {
        self.stored.insert(digest);
    }

    /// Whether the worker can take this content from what it has.
    pub fn has(&self, digest: &Digest) -> bool {
        self.stored.contains(digest) || self.contents.get(digest).is_some_and(|n| *n > 0)
    }

    /// Files of the closures whose content is too large for a delta and not there yet.
    pub fn missing(&self, tree: &Tree, closures: &[&Arc<Closure>]) -> Missing {
        let mut out = Missing::new();
        let current = self.position == Some(tree.position());
        for &id in closures.iter().filter(|c| !(current && self.covers(c))).flat_map(|c| &c.files) {
            let file = tree.file(id);
            if file.version > 0
                && self.file_sent(id) != file.version
                && file.size > INLINE_BYTES_MAX as u64
                && !self.has(&file.digest)
                && !out.iter().any(|(_, d)| *d == file.digest)
            {
                out.push((id, file.digest));
            }
        }
        out
    }

    /// Whether the worker can have seen this file: it was sent, or its content lies there.
    pub fn knows(&self, tree: &Tree, id: FileId) -> bool {
        self.file_sent(id) != 0 || self.has(&tree.file(id).digest)
    }

    fn file_sent(&self, id: FileId) -> u32 {
        self.files.get(id as usize).copied().unwrap_or(0)
    }

    /// The changes that make the mirror right for these closures. Large contents must be stored before; one that
    /// is not is left as poison. `gone` are paths that a fault asked for and that do not exist.
    pub fn delta(&mut self, tree: &mut Tree, closures: &[&Arc<Closure>], gone: &[Vec<u8>]) -> Delta {
        let mut ops = Ops::default();
        self.catch_up(tree, &mut ops);
        let new: Vec<&Arc<Closure>> = closures.iter().copied().filter(|c| !self.covers(c)).collect();
        for closure in &new {
            for &dir in &closure.dirs {
                self.ensure_dir(tree, dir, &mut ops);
            }
        }
        for closure in &new {
            for &file in &closure.files {
                self.ensure_file(tree, file, &mut ops);
            }
            for &link in &closure.links {
                self.ensure_link(tree, link, &mut ops);
            }
        }
        for path in gone {
            self.clear(tree, path, &mut ops);
        }
        // The next job with the same closure has nothing to add, unless something is taken back meanwhile.
        if self.covered.len() > COVERED_MAX {
            self.covered.clear();
        }
        for closure in new {
            if self.holds(tree, closure) {
                self.covered.insert(Arc::as_ptr(closure) as usize, Arc::downgrade(closure));
            }
        }
        self.finish(tree, ops)
    }

    fn covers(&self, closure: &Arc<Closure>) -> bool {
        self.covered.contains_key(&(Arc::as_ptr(closure) as usize))
    }

    /// Whether everything of a closure was sent as it is.
    fn holds(&self, tree: &Tree, closure: &Closure) -> bool {
        closure.dirs.iter().all(|dir| self.dirs.contains_key(dir))
            && closure.files.iter().all(|&id| tree.file(id).version > 0 && self.file_sent(id) == tree.file(id).version)
            && closure.links.iter().all(|&id| self.link_stands(tree, id))
    }

    /// Puts the changes in order: each new content goes with the first place that needs it.
    fn finish(&mut self, tree: &mut Tree, mut ops: Ops) -> Delta {
        let mut carried: HashMap<Vec<u8>, Vec<u8>> = HashMap::default();
        let mut placed: HashMap<Vec<u8>, u32> = HashMap::default();
        for file in ops.dirs.values_mut().flat_map(|part| &mut part.ops.files) {
            *placed.entry(file.digest.clone()).or_default() += 1;
            if let Some(content) = file.content.take() {
                carried.insert(file.digest.clone(), content);
            }
        }
        let mut sent: HashSet<Vec<u8>> = HashSet::default();
        let mut out = DeltaOps { dirs: std::mem::take(&mut ops.touched) };
        for id in std::mem::take(&mut ops.order) {
            let Some(mut part) = ops.dirs.remove(&id) else { continue };
            let files = std::mem::take(&mut part.ops.files);
            for (mut file, file_id) in files.into_iter().zip(std::mem::take(&mut part.ids)) {
                if sent.insert(file.digest.clone()) {
                    file.content = carried.remove(&file.digest);
                    let digest = Digest::try_from(&file.digest[..]).unwrap_or(Digest([0; 32]));
                    let stands = ops.stored.contains(&digest)
                        || self.contents.get(&digest).copied() > placed.get(&file.digest).copied();
                    if file.content.is_none() && ops.forgotten.contains(&digest) && !stands {
                        // Every place that it could be copied from may be overwritten before.
                        file.content = (file.size <= INLINE_BYTES_MAX as u64)
                            .then(|| tree.content(file_id).ok().filter(|c| Digest::of(c) == digest))
                            .flatten();
                        if file.content.is_none() {
                            sent.remove(&file.digest);
                            placed.entry(file.digest.clone()).and_modify(|n| *n -= 1);
                            let name: Name = file.name[..].into();
                            part.ops.poison.push(file.name);
                            self.forget(Sent::File(file_id, digest), &mut ops);
                            if let Some(names) = self.dirs.get_mut(&id) {
                                names.insert(name, Sent::Poison);
                            }
                            continue;
                        }
                    }
                }
                part.ops.files.push(file);
            }
            // A name that is real in the same message needs no poison first.
            let real: HashSet<&[u8]> =
                part.ops.files.iter().map(|f| &f.name[..]).chain(part.ops.links.iter().map(|l| &l.name[..])).collect();
            let keep: Vec<Vec<u8>> = part.ops.poison.iter().filter(|n| !real.contains(&n[..])).cloned().collect();
            part.ops.poison = keep;
            split(part.ops, part.is_new, &mut out.dirs);
        }
        Delta { is_empty: out.dirs.is_empty(), ops: out }
    }

    fn catch_up(&mut self, tree: &mut Tree, ops: &mut Ops) {
        self.look_again(tree);
        // Taking a change in reads directories and files, which can find further changes: until there are none.
        loop {
            let end = tree.position();
            let changes = match self.position {
                Some(position) if position == end => return,
                None if self.dirs.is_empty() => return,
                position => position.and_then(|p| tree.changes_since(p)).map(|changes| {
                    // Poison stays poison, and a build changes hardly anything else: last time's outputs.
                    let matters = |(dir, name): &&Change| {
                        self.dirs.get(dir).is_some_and(|names| names.get(name) != Some(&Sent::Poison))
                    };
                    changes.iter().filter(matters).cloned().collect::<Vec<_>>()
                }),
            };
            self.position = Some(end);
            let changes = match changes {
                Some(changes) => changes,
                // The log is too short: look at everything that was sent, and at what is there now.
                None => {
                    let dirs: Vec<DirId> = self.dirs.keys().copied().collect();
                    let mut all = Vec::new();
                    for dir in dirs {
                        all.extend(self.dirs[&dir].keys().map(|n| (dir, n.clone())));
                        if tree.fresh_dir(dir) {
                            all.extend(tree.dir(dir).names.keys().map(|n| (dir, n.clone())));
                        }
                    }
                    all
                }
            };
            let mut seen: HashSet<(DirId, Name)> = HashSet::default();
            for change in changes {
                if self.dirs.contains_key(&change.0) && seen.insert(change.clone()) {
                    self.renew(tree, change.0, change.1, ops);
                }
            }
        }
    }

    /// Looks at everything sent whose changes are no events: what is not watched, and all of it after mounts or
    /// permissions changed. What it finds is in the change log.
    fn look_again(&mut self, tree: &mut Tree) {
        if self.looked.0 == tree.batch() {
            return;
        }
        let all = self.looked.1 != tree.doubt();
        self.looked = (tree.batch(), tree.doubt());
        let dirs: Vec<DirId> = self.dirs.keys().copied().filter(|&dir| all || !tree.is_watched(dir)).collect();
        for dir in dirs {
            if !tree.fresh_dir(dir) || tree.is_watched(dir) && !all {
                continue;
            }
            for &sent in self.dirs[&dir].values() {
                match sent {
                    Sent::File(file, _) => {
                        tree.fresh_file(file);
                    }
                    Sent::Link(link) => {
                        tree.fresh_link(link);
                    }
                    Sent::Poison | Sent::Dir(_) => {}
                }
            }
        }
    }

    /// Whether the mirror's directory can be brought up to date: it is one, and as open as it was.
    fn is_same_dir(&self, tree: &mut Tree, dir: DirId) -> bool {
        tree.fresh_dir(dir) && self.closed.contains(&dir) == (tree.dir(dir).mode == 0)
    }

    /// A directory that cannot be read any more, or is another: its name becomes poison.
    fn lost(&mut self, tree: &mut Tree, mut dir: DirId, ops: &mut Ops) {
        while dir != 0 {
            let parent = tree.dir(dir).parent;
            if self.dirs.contains_key(&parent) && self.is_same_dir(tree, parent) {
                let name: Name =
                    tree.dir(dir).path.file_name().map(|n| n.as_encoded_bytes().into()).unwrap_or_default();
                return self.poison(tree, parent, name, ops);
            }
            dir = parent;
        }
    }

    fn poison(&mut self, tree: &Tree, dir: DirId, name: Name, ops: &mut Ops) {
        let sent = self.dirs.get(&dir).and_then(|names| names.get(&name)).copied();
        if let Some(sent) = sent {
            self.forget(sent, ops);
        }
        ops.dir(tree, dir).ops.poison.push(name.to_vec());
        if let Some(names) = self.dirs.get_mut(&dir) {
            names.insert(name, Sent::Poison);
        }
    }

    fn renew(&mut self, tree: &mut Tree, dir: DirId, name: Name, ops: &mut Ops) {
        if !self.dirs.contains_key(&dir) {
            return;
        }
        if !self.is_same_dir(tree, dir) {
            return self.lost(tree, dir, ops);
        }
        let now = tree.dir(dir).names.get(&name).copied();
        let sent = self.dirs[&dir].get(&name).copied();
        let keep = match (sent, now) {
            (None, None) | (Some(Sent::Poison), _) => true,
            (None, Some(_)) | (Some(_), None) => false,
            (Some(Sent::File(file, digest)), Some(kind)) => {
                let fresh = kind == Kind::File && tree.fresh_file(file);
                if fresh && tree.file(file).digest == digest && tree.file(file).version != self.file_sent(file) {
                    // Only its time or mode is another: the mirror takes the content from itself.
                    self.files[file as usize] = tree.file(file).version;
                    let (path, mode) = (bytes::of(&tree.dir(dir).path).to_vec(), tree.dir(dir).mode);
                    let files = vec![file_op(tree, file, None)];
                    ops.touched.push(DirOps { path, mode, files, ..DirOps::default() });
                }
                fresh && tree.file(file).version == self.file_sent(file)
            }
            (Some(Sent::Link(link)), Some(kind)) => {
                kind == Kind::Link
                    && tree.fresh_link(link)
                    && tree.link(link).version == self.links.get(link as usize).copied().unwrap_or(0)
            }
            (Some(Sent::Dir(sub)), Some(kind)) => kind == Kind::Dir && self.is_same_dir(tree, sub),
        };
        if !keep {
            self.poison(tree, dir, name, ops);
        }
    }

    fn forget(&mut self, sent: Sent, ops: &mut Ops) {
        self.covered.clear();
        match sent {
            Sent::Poison => {}
            Sent::File(file, digest) => {
                self.files[file as usize] = 0;
                ops.forgotten.insert(digest);
                if let Some(count) = self.contents.get_mut(&digest) {
                    *count -= 1;
                    if *count == 0 {
                        self.contents.remove(&digest);
                    }
                }
            }
            Sent::Link(link) => self.links[link as usize] = 0,
            Sent::Dir(dir) => {
                self.closed.remove(&dir);
                ops.drop_dir(dir);
                for sent in self.dirs.remove(&dir).into_iter().flat_map(HashMap::into_values).collect::<Vec<_>>() {
                    self.forget(sent, ops);
                }
            }
        }
    }

    fn ensure_dir(&mut self, tree: &mut Tree, id: DirId, ops: &mut Ops) -> bool {
        if self.dirs.contains_key(&id) {
            return true;
        }
        if self.position.is_none() {
            self.position = Some(tree.position());
        }
        if !tree.fresh_dir(id) {
            return false;
        }
        let parent = tree.dir(id).parent;
        if id != 0 {
            if !self.ensure_dir(tree, parent, ops) {
                return false;
            }
            let name: Name = bytes::of(Path::new(tree.dir(id).path.file_name().unwrap_or_default())).into();
            if let Some(sent) = self.dirs[&parent].get(&name).copied() {
                self.forget(sent, ops);
            }
            // A poison of its name in the same message stays: the directory takes its place when it is complete.
            self.dirs.get_mut(&parent).expect("ensured").insert(name, Sent::Dir(id));
        }
        let names: HashMap<Name, Sent> = tree.dir(id).names.keys().map(|n| (n.clone(), Sent::Poison)).collect();
        let part = ops.dir(tree, id);
        part.is_new = true;
        part.ops.poison.extend(names.keys().map(|n| n.to_vec()));
        self.dirs.insert(id, names);
        if tree.dir(id).mode == 0 {
            self.closed.insert(id);
        }
        true
    }

    fn ensure_file(&mut self, tree: &mut Tree, id: FileId, ops: &mut Ops) {
        let file = tree.file(id);
        if file.version > 0 && self.file_sent(id) == file.version || !tree.fresh_file(id) {
            return;
        }
        let file = tree.file(id);
        let (dir, name, digest) = (file.dir, file.name.clone(), file.digest);
        // It may have become something else since the closure was walked.
        if !self.ensure_dir(tree, dir, ops) || tree.dir(dir).names.get(&name) != Some(&Kind::File) {
            return;
        }
        let content = if self.has(&digest) {
            None
        } else if tree.file(id).size > INLINE_BYTES_MAX as u64 {
            return;
        } else {
            match tree.content(id) {
                Ok(content) if content.len() <= INLINE_BYTES_MAX => Some(content),
                _ => return,
            }
        };
        if let Some(sent) = self.dirs[&dir].get(&name).copied() {
            self.forget(sent, ops);
        }
        // Reading may have found new content.
        let op = file_op(tree, id, content);
        let file = tree.file(id);
        let (digest, version) = (file.digest, file.version);
        let part = ops.dir(tree, dir);
        part.ops.files.push(op);
        part.ids.push(id);
        if self.stored.remove(&digest) {
            ops.stored.insert(digest);
        }
        *self.contents.entry(digest).or_default() += 1;
        self.dirs.get_mut(&dir).expect("ensured").insert(name, Sent::File(id, digest));
        if self.files.len() <= id as usize {
            self.files.resize(id as usize + 1, 0);
        }
        self.files[id as usize] = version;
    }

    fn link_stands(&self, tree: &Tree, id: LinkId) -> bool {
        let link = tree.link(id);
        link.version == 0 || self.links.get(id as usize).copied().unwrap_or(0) == link.version || link.target.is_empty()
    }

    fn ensure_link(&mut self, tree: &mut Tree, id: LinkId, ops: &mut Ops) {
        if self.link_stands(tree, id) {
            return;
        }
        let link = tree.link(id);
        let (dir, name) = (link.dir, link.name.clone());
        if !self.ensure_dir(tree, dir, ops) || tree.dir(dir).names.get(&name) != Some(&Kind::Link) {
            return;
        }
        let link = tree.link(id);
        let op = LinkOp { name: name.to_vec(), target: link.target.to_vec() };
        let version = link.version;
        if let Some(sent) = self.dirs[&dir].get(&name).copied() {
            self.forget(sent, ops);
        }
        ops.dir(tree, dir).ops.links.push(op);
        self.dirs.get_mut(&dir).expect("ensured").insert(name, Sent::Link(id));
        if self.links.len() <= id as usize {
            self.links.resize(id as usize + 1, 0);
        }
        self.links[id as usize] = version;
    }

    /// A fault asked for a name that does not exist: the poison goes.
    fn clear(&mut self, tree: &mut Tree, path: &[u8], ops: &mut Ops) {
        let Some(at) = path.iter().rposition(|&c| c == b'/') else { return };
        let (parent, name) = (&path[..at], &path[at + 1..]);
        if !is_name(name) {
            return;
        }
        let mut record = Record::default();
        let parent = if parent.is_empty() { Some(0) } else { tree.resolve_dir(bytes::path(parent), &mut record) };
        let Some(dir) = parent else { return };
        if tree.dir(dir).names.contains_key(name) || !self.dirs.contains_key(&dir) {
            return;
        }
        if let Some(sent) = self.dirs.get_mut(&dir).and_then(|names| names.remove(name)) {
            self.forget(sent, ops);
        }
        ops.dir(tree, dir).ops.absent.push(name.to_vec());
    }

    /// Takes over what the worker says its mirror holds. What is not like this tree now becomes poison. A directory is
    /// believed to have been sent only if a file in it or below it is right to the byte and the nanosecond: otherwise a
    /// worker could ask for the names in any directory by claiming to have it.
    pub fn adopt(&mut self, tree: &mut Tree, state: &DeltaOps) -> Delta {
        let mut ops = Ops::default();
        // What changes while the state is compared is taken in by the next delta.
        self.position = Some(tree.position());
        let mut known: HashMap<&[u8], Known<'_>> = HashMap::default();
        let mut shown: BTreeSet<&[u8]> = BTreeSet::from([&b"/"[..]]);
        for dir in &state.dirs {
            if check_path(&dir.path).is_err() || known.contains_key(&dir.path[..]) {
                continue;
            }
            let path = bytes::path(&dir.path);
            let Some(id) = tree
                .resolve_dir(path, &mut Record::default())
                .filter(|&id| tree.dir(id).path == path && (tree.dir(id).mode == 0) == (dir.mode & 0o7777 == 0))
            else {
                // The directory is gone here: its name in the parent is poisoned below.
                continue;
            };
            let same: Vec<(&FileOp, FileId)> =
                dir.files.iter().filter_map(|file| Some((file, same_file(tree, id, file)?))).collect();
            let mut above = &dir.path[..];
            while !same.is_empty() && shown.insert(above) {
                above = parent_of(above);
            }
            known.insert(&dir.path, (id, same));
        }
        for dir in &state.dirs {
            let Some((id, same)) = known.remove(&dir.path[..]).filter(|_| shown.contains(&dir.path[..])) else {
                continue;
            };
            let mut names: HashMap<Name, Sent> =
                dir.poison.iter().filter(|n| is_name(n)).map(|n| (n[..].into(), Sent::Poison)).collect();
            for (file, file_id) in same {
                let (version, digest) = (tree.file(file_id).version, tree.file(file_id).digest);
                if names.insert(file.name[..].into(), Sent::File(file_id, digest)).is_some() {
                    // Twice the same name: no mirror says that.
                    continue;
                }
                if self.files.len() <= file_id as usize {
                    self.files.resize(file_id as usize + 1, 0);
                }
                self.files[file_id as usize] = version;
                *self.contents.entry(digest).or_default() += 1;
            }
            let others = dir.files.iter().map(|f| &f.name).chain(dir.links.iter().map(|l| &l.name));
            // And names that came since.
            let new: Vec<Name> = tree.dir(id).names.keys().cloned().collect();
            for name in others.filter(|n| is_name(n)).map(|n| n[..].into()).chain(new) {
                if let std::collections::hash_map::Entry::Vacant(entry) = names.entry(name) {
                    ops.dir(tree, id).ops.poison.push(entry.key().to_vec());
                    entry.insert(Sent::Poison);
                }
            }
            if dir.mode & 0o7777 == 0 {
                self.closed.insert(id);
            }
            self.dirs.insert(id, names);
        }
        // Directories that are there: known as such in their parents; the others become poison.
        for dir in state.dirs.iter().filter(|d| d.path.len() > 1 && check_path(&d.path).is_ok()) {
            let Some(parent) = tree.known_dir(parent_of(&dir.path)).filter(|d| self.dirs.contains_key(d)) else {
                continue;
            };
            let name: Name = dir.path.rsplit(|&c| c == b'/').next().unwrap_or_default().into();
            let child = tree.known_dir(&dir.path).filter(|d| self.dirs.contains_key(d));
            let sent = child.map_or(Sent::Poison, Sent::Dir);
            let poison = &mut ops.dir(tree, parent).ops.poison;
            poison.retain(|n| n[..] != name[..]);
            if child.is_none() {
                poison.push(name.to_vec());
            }
            if let Some(names) = self.dirs.get_mut(&parent) {
                names.insert(name, sent);
            }
        }
        let order = std::mem::take(&mut ops.order);
        let dirs = order.iter().filter_map(|id| Some(ops.dirs.remove(id)?.ops)).filter(|d| !d.poison.is_empty());
        let dirs: Vec<DirOps> = dirs.collect();
        Delta { is_empty: dirs.is_empty(), ops: DeltaOps { dirs } }
    }
}

fn parent_of(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&c| c == b'/') {
        None | Some(0) => b"/",
        Some(at) => &path[..at],
    }
}

/// The file here that a mirror's file is a true copy of. Hashed only if the rest fits: a worker shall not make this
/// node read its disk.
fn same_file(tree: &mut Tree, dir: DirId, file: &FileOp) -> Option<FileId> {
    if !is_name(&file.name) || tree.dir(dir).names.get(&file.name[..]) != Some(&Kind::File) {
        return None;
    }
    let stat = rustix::fs::lstat(tree.dir(dir).path.join(bytes::os(&file.name))).ok()?;
    let looks = (stat.st_size as u64, stat.st_mtime as i64, stat.st_mtime_nsec as u32);
    if looks != (file.size, file.mtime_s, file.mtime_ns) {
        return None;
    }
    let Some(Found::File(id)) = tree.resolve(dir, &file.name, &mut Record::default()) else { return None };
    let same = tree.fresh_file(id)
        && tree.file(id).digest.0[..] == file.digest[..]
        && tree.file(id).mtime == (file.mtime_s, file.mtime_ns)
        && kept_mode(tree.file(id).mode) == kept_mode(file.mode);
    same.then_some(id)
}

fn file_op(tree: &Tree, id: FileId, content: Option<Vec<u8>>) -> FileOp {
    let file = tree.file(id);
    FileOp {
        name: file.name.to_vec(),
        digest: file.digest.0.to_vec(),
        size: file.size,
        mode: file.mode,
        mtime_s: file.mtime.0,
        mtime_ns: file.mtime.1,
        content,
    }
}

/// Cuts the changes of one directory into messages. A new one is complete from the first on: what comes later is poison
/// until then.
fn split(mut ops: DirOps, is_new: bool, out: &mut Vec<DirOps>) {
    let mut size = 0;
    let mut parts: Vec<Vec<FileOp>> = vec![Vec::new()];
    for file in std::mem::take(&mut ops.files) {
        size += file.content.as_ref().map_or(0, Vec::len) + file.name.len() + 64;
        if size > PART_BYTES_MAX {
            size = 0;
            parts.push(Vec::new());
        }
        parts.last_mut().expect("one at least").push(file);
    }
    let mut parts = parts.into_iter();
    ops.files = parts.next().unwrap_or_default();
    let (path, mode) = (ops.path.clone(), ops.mode);
    let rest: Vec<Vec<FileOp>> = parts.collect();
    if is_new {
        ops.poison.extend(rest.iter().flatten().map(|f| f.name.clone()));
    }
    out.push(ops);
    out.extend(rest.into_iter().map(|files| DirOps { path: path.clone(), mode, files, ..DirOps::default() }));
}
