//! The closure of a compile: a breadth-first walk over remembered edges, over-approximating both branches of every
//! conditional.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use potluck_model::depfile::{self, Unlike};
use potluck_model::ids::Digest;
use potluck_model::plan::DepsRule;
use potluck_model::scan::{Include, Lookup, Target, Value};
use rustc_hash::{FxBuildHasher, FxHashMap as HashMap, FxHashSet as HashSet, FxHasher};

use super::{Dir, DirId, FileId, Found, LinkId, Name, Tree};

/// What a compile is known to look at before it runs. Paths as spelled; relative ones from `cwd`.
#[derive(Clone, Default, Debug)]
pub struct Want {
    /// Working directory.
    pub cwd: PathBuf,
    /// The source.
    pub source: Vec<u8>,
    /// Whether directives matter at all (not for preprocessed input).
    pub preprocessed_here: bool,
    /// `-include` and `-imacros`.
    pub forced: Vec<Vec<u8>>,
    /// Headers that the compiler includes by itself, looked up as `<x>` (gcc's stdc-predef.h).
    pub implicit: Vec<Vec<u8>>,
    /// `-iquote`.
    pub quote: Vec<Vec<u8>>,
    /// `-I`, `-isystem`, the compiler's own, `-idirafter`, in search order.
    pub angled: Vec<Vec<u8>>,
    /// Files that options name.
    pub inputs: Vec<Vec<u8>>,
    /// Directories that options name or outputs go to.
    pub named_dirs: Vec<Vec<u8>>,
    /// `-D` macros that name a file.
    pub defines: Vec<(Vec<u8>, Value)>,
    /// How many of the learned files count, in the order learned: a job that was sent before others were learned is
    /// judged without them.
    pub learned_max: usize,
}

/// What a dependency file has too much and too little.
#[derive(Default, Debug)]
pub struct Listed {
    /// Named, and not in the closure.
    pub beyond: Vec<FileId>,
    /// Opened for certain, and not named.
    pub hidden: Vec<FileId>,
    /// Names that lead to no file.
    pub missing: usize,
    /// The first name with characters that `make` could take for more than a name; the file is really called that.
    pub odd: Option<Vec<u8>>,
}

/// Index of a search configuration.
pub type ConfigId = u32;

/// What a job needs at the worker.
#[derive(Clone, Default, Debug)]
pub struct Closure {
    /// Files with their right content.
    pub files: Vec<FileId>,
    /// Directories, complete, ancestors included.
    pub dirs: Vec<DirId>,
    /// Links on the way.
    pub links: Vec<LinkId>,
    /// `__DATE__` or `__TIME__` occurs outside the system's headers.
    pub time_macro: bool,
    /// `.incbin`, assembler `.include` or `#embed` occurs outside the system's headers.
    pub data: bool,
    /// `.incbin` or `.include` with a name that could not be read.
    pub unclear_data: bool,
    /// A lookup leads to a place that sandboxes keep to themselves.
    pub private: bool,
}

/// Collects what lookups touch.
#[derive(Default)]
pub struct Record {
    /// Directories consulted.
    pub dirs: Vec<DirId>,
    /// Links followed.
    pub links: Vec<LinkId>,
    /// A lookup led to a private place.
    pub private: bool,
}

impl Record {
    pub(super) fn dir(&mut self, id: DirId) {
        if self.dirs.last() != Some(&id) {
            self.dirs.push(id);
        }
    }

    pub(super) fn link(&mut self, id: LinkId) {
        self.links.push(id);
    }
}

/// A file together with the directory that `#include "…"` in it starts from: they differ when it was reached by a link.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    file: FileId,
    from: DirId,
}

#[derive(Default)]
struct Edges {
    epoch: u64,
    version: u32,
    next: Vec<Place>,
    data: Vec<FileId>,
    dirs: Vec<DirId>,
    links: Vec<LinkId>,
    computed: Vec<(Name, Lookup)>,
    private: bool,
}

struct Config {
    /// What it is the configuration of.
    key: ConfigKey,
    epoch: u64,
    cwd: DirId,
    quote: Vec<DirId>,
    angled: Vec<DirId>,
    touched: Record,
    edges: HashMap<Place, Edges>,
    /// Files that compiles with this search path opened although nothing predicted them.
    learned: Vec<Vec<u8>>,
    closures: HashMap<u64, Kept>,
}

struct ConfigKey {
    cwd: PathBuf,
    quote: Vec<Vec<u8>>,
    angled: Vec<Vec<u8>>,
}

impl ConfigKey {
    fn is_of(&self, want: &Want) -> bool {
        self.cwd == want.cwd && self.quote == want.quote && self.angled == want.angled
    }
}

/// A closure with the state of the tree that it was last found right in.
struct Kept {
    closure: Arc<Closure>,
    epoch: u64,
    touched: u64,
    doubt: u64,
    batch: u64,
    fingerprint: u64,
    /// Files that only a stat can vouch for. None: some directory is not reported, everything is looked at.
    unsure: Option<Arc<[FileId]>>,
}

#[derive(Default)]
pub(super) struct Walker {
    configs: Vec<Config>,
    /// By hash of the key.
    by_key: HashMap<u64, Vec<ConfigId>>,
    named: Named,
}

/// What names in dependency files led to, in one state of the tree.
#[derive(Default)]
struct Named {
    epoch: u64,
    doubt: u64,
    count: usize,
    by_cwd: HashMap<DirId, HashMap<Name, FileId>>,
    /// Dependency files that named nothing beyond this closure, by digest: the next build brings most of them again.
    /// Read by this rule, whose hash it is.
    within: HashMap<Digest, (DirId, Arc<Closure>, u64)>,
}

/// Names kept at a time: some MB.
const NAMED_MAX: usize = 100_000;

/// Files learned for one search path: workers can add to them, and every walk goes through all. Boost's computed includes
/// are some hundreds. Beyond it a fault is not mended, and its compile runs here.
const LEARNED_MAX: usize = 8192;

/// Candidates of one computed include: Boost.Preprocessor has hundreds of values for one macro.
const CANDIDATES_MAX: usize = 4096;

impl Tree {
    /// The search configuration of a compile.
    pub fn config(&mut self, want: &Want) -> ConfigId {
        let mut hasher = FxHasher::default();
        (&want.cwd, &want.quote, &want.angled).hash(&mut hasher);
        let same = self.walker.by_key.entry(hasher.finish()).or_default();
        if let Some(&id) = same.iter().find(|&&id| self.walker.configs[id as usize].key.is_of(want)) {
            return id;
        }
        let id = self.walker.configs.len() as ConfigId;
        same.push(id);
        self.walker.configs.push(Config {
            key: ConfigKey { cwd: want.cwd.clone(), quote: want.quote.clone(), angled: want.angled.clone() },
            epoch: 0,
            cwd: 0,
            quote: Vec::new(),
            angled: Vec::new(),
            touched: Record::default(),
            edges: HashMap::default(),
            learned: Vec::new(),
            closures: HashMap::default(),
        });
        id
    }

    /// Remembers that a compile with this search path needed `path`.
    pub fn learn(&mut self, config: ConfigId, path: Vec<u8>) {
        let config = &mut self.walker.configs[config as usize];
        if config.learned.len() < LEARNED_MAX && !config.learned.contains(&path) {
            config.learned.push(path);
            config.closures.clear();
        }
    }

    /// How many files were learned so far for a search path.
    pub fn learned(&self, config: ConfigId) -> usize {
        self.walker.configs[config as usize].learned.len()
    }

    /// The closure of a compile as events tell it, and a fingerprint that differs when anything in it differs: what a
    /// job starts with. A change that is no event (a store into a mapped file) is found when the job has ended, by
    /// `closure_since`; so every file costs one stat a job and not two.
    pub fn closure_expected(&mut self, config: ConfigId, want: &Want) -> (Arc<Closure>, u64) {
        self.closure_since(config, want, 0)
    }

    /// The same, where events tell of a file's changes and it had its last stat in the batch `recent` or later: whatever
    /// changed without an event before that is known. Jobs that run at the same time need one stat of a header together.
    pub fn closure_since(&mut self, config: ConfigId, want: &Want, recent: u64) -> (Arc<Closure>, u64) {
        let before = std::mem::replace(&mut self.recent, recent);
        let answer = self.closure_now(config, want);
        self.recent = before;
        answer
    }

    fn closure_now(&mut self, config_id: ConfigId, want: &Want) -> (Arc<Closure>, u64) {
        let mut hasher = FxHasher::default();
        (&want.source, &want.forced, &want.implicit, &want.inputs, &want.named_dirs).hash(&mut hasher);
        (want.preprocessed_here, want.learned_max).hash(&mut hasher);
        for (name, value) in &want.defines {
            (name, value).hash(&mut hasher);
        }
        let key = hasher.finish();
        // Checking can find changes that make the walk stale; each round either ends or has seen a new change.
        for _ in 0..16 {
            let kept = self.walker.configs[config_id as usize].closures.get(&key).filter(|k| k.epoch == self.epoch);
            let (closure, epoch, touched) = match kept {
                // Nothing known has changed: only files that change without an event are looked at.
                Some(Kept { closure, unsure: Some(unsure), fingerprint, touched, doubt, batch, .. })
                    if (*touched, *doubt) == (self.touched, self.doubt) =>
                {
                    let known = (Arc::clone(closure), *fingerprint);
                    if *batch == self.batch || unsure.iter().all(|&file| self.is_recent(file)) {
                        return known;
                    }
                    let (touched, unsure) = (*touched, Arc::clone(unsure));
                    self.fresh_files(&unsure);
                    if self.touched == touched {
                        if self.recent >= self.batch
                            && let Some(kept) = self.walker.configs[config_id as usize].closures.get_mut(&key)
                        {
                            kept.batch = self.batch;
                        }
                        return known;
                    }
                    continue;
                }
                Some(kept) => (Arc::clone(&kept.closure), self.epoch, self.touched),
                None => {
                    // What the walk itself finds out may make its first steps stale: then it is walked once more.
                    let epoch = self.epoch;
                    (Arc::new(self.walk(config_id, want)), epoch, self.touched)
                }
            };
            for &dir in &closure.dirs {
                self.fresh_dir(dir);
            }
            self.fresh_files(&closure.files);
            if self.epoch == epoch {
                let fingerprint = self.fingerprint(&closure);
                let kept = Kept {
                    unsure: self.unsure(&closure),
                    closure: Arc::clone(&closure),
                    epoch,
                    // What was touched since then is looked at once more the next time.
                    touched: if self.touched == touched { touched } else { 0 },
                    doubt: self.doubt,
                    batch: if self.recent >= self.batch { self.batch } else { 0 },
                    fingerprint,
                };
                self.walker.configs[config_id as usize].closures.insert(key, kept);
                return (closure, fingerprint);
            }
        }
        // Somebody changes the tree faster than it can be read: the job will not match at its end and run here.
        let closure = Arc::new(self.walk(config_id, want));
        let fingerprint = self.fingerprint(&closure);
        (closure, fingerprint)
    }

    /// Whether nothing of a closure can change without an event.
    pub fn events_vouch_for(&self, closure: &Closure) -> bool {
        self.unsure(closure).is_some_and(|unsure| unsure.is_empty())
    }

    /// The files of a closure whose changes are no events; None if its directories are not reported either.
    fn unsure(&self, closure: &Closure) -> Option<Arc<[FileId]>> {
        if !closure.dirs.iter().all(|&dir| self.is_reported(dir)) {
            return None;
        }
        Some(closure.files.iter().copied().filter(|&file| !self.is_sure(file)).collect())
    }

    fn fingerprint(&self, closure: &Closure) -> u64 {
        let mut hasher = DefaultHasher::new();
        for &id in &closure.files {
            (id, self.files[id as usize].version).hash(&mut hasher);
        }
        for &id in &closure.links {
            (id, self.links[id as usize].version).hash(&mut hasher);
        }
        closure.dirs.hash(&mut hasher);
        hasher.finish()
    }

    fn fresh_config(&mut self, id: ConfigId) {
        if self.walker.configs[id as usize].epoch == self.epoch {
            return;
        }
        let key = &self.walker.configs[id as usize].key;
        let key = ConfigKey { cwd: key.cwd.clone(), quote: key.quote.clone(), angled: key.angled.clone() };
        let mut touched = Record::default();
        let cwd = self.resolve_dir(&key.cwd, &mut touched).unwrap_or(0);
        let mut dirs = |list: &[Vec<u8>], tree: &mut Tree| -> Vec<DirId> {
            let mut out = Vec::new();
            for path in list {
                if let Some(Found::Dir(dir)) = tree.resolve(cwd, path, &mut touched)
                    && !out.contains(&dir)
                {
                    out.push(dir);
                }
            }
            out
        };
        let quote = dirs(&key.quote, self);
        let angled = dirs(&key.angled, self);
        let config = &mut self.walker.configs[id as usize];
        config.cwd = cwd;
        config.quote = quote;
        config.angled = angled;
        config.touched = touched;
        config.epoch = self.epoch;
    }

    fn walk(&mut self, config_id: ConfigId, want: &Want) -> Closure {
        self.counts.walks += 1;
        self.fresh_config(config_id);
        let mut walk = Walk {
            config: config_id,
            queue: Vec::new(),
            out: Closure::default(),
            seen: Seen::default(),
            computed: Vec::new(),
        };
        let mut record = Record::default();
        {
            let config = &self.walker.configs[config_id as usize];
            record.dirs.extend(&config.touched.dirs);
            record.dirs.extend(config.quote.iter().chain(&config.angled));
            record.links.extend(&config.touched.links);
            record.private |= config.touched.private;
        }
        let cwd = self.walker.configs[config_id as usize].cwd;
        record.dir(cwd);

        let source = self.place(cwd, &want.source, &mut record);
        if let Some(place) = source {
            walk.visit(place, want.preprocessed_here);
        }
        for name in &want.implicit {
            self.search(config_id, None, name, Lookup::First, &mut record, &mut walk);
        }
        for name in &want.forced {
            match self.place(cwd, name, &mut record) {
                Some(place) => walk.visit(place, true),
                None => self.search(config_id, Some(cwd), name, Lookup::First, &mut record, &mut walk),
            }
            // A precompiled header beside it is looked for first.
            let mut gch = name.clone();
            gch.extend_from_slice(b".gch");
            self.data(cwd, &gch, &mut record, &mut walk);
        }
        for name in &want.inputs {
            self.data(cwd, name, &mut record, &mut walk);
        }
        for name in &want.named_dirs {
            self.resolve(cwd, name, &mut record);
        }
        let learned = std::mem::take(&mut self.walker.configs[config_id as usize].learned);
        for path in learned.iter().take(want.learned_max) {
            match self.place(cwd, path, &mut record) {
                Some(place) => walk.visit(place, true),
                None => {
                    self.resolve(cwd, path, &mut record);
                }
            }
        }
        self.walker.configs[config_id as usize].learned = learned;
        walk.take(&record.dirs, &record.links, &self.dirs);
        walk.out.private |= record.private;
        self.run_queue(&mut walk);
        self.run_computed(want, &mut walk);
        for &file in &walk.out.files {
            let file = &self.files[file as usize];
            if let Some(directives) = &file.directives {
                walk.out.time_macro |= directives.time_macro && !file.system;
                walk.out.unclear_data |= directives.unclear_data;
                walk.out.data |= !file.system && directives.includes.iter().any(|i| i.lookup == Lookup::Data);
            }
        }
        walk.out
    }

    fn run_queue(&mut self, walk: &mut Walk) {
        while let Some(place) = walk.queue.pop() {
            let version = self.files[place.file as usize].version;
            let fresh = self.walker.configs[walk.config as usize]
                .edges
                .get(&place)
                .is_some_and(|e| e.epoch == self.epoch && e.version == version && version > 0);
            if !fresh {
                let edges = self.edges(walk.config, place);
                self.walker.configs[walk.config as usize].edges.insert(place, edges);
            }
            let edges = &self.walker.configs[walk.config as usize].edges[&place];
            for &next in &edges.next {
                walk.visit(next, true);
            }
            for &file in &edges.data {
                walk.file(file);
            }
            for &(ref name, lookup) in &edges.computed {
                walk.computed.push((place, name.clone(), lookup));
            }
            walk.out.private |= edges.private;
            walk.take(&edges.dirs, &edges.links, &self.dirs);
        }
    }

    /// Everything that one file includes under one search configuration.
    fn edges(&mut self, config: ConfigId, place: Place) -> Edges {
        let Some(directives) = self.directives(place.file) else {
            return Edges::default();
        };
        let mut record = Record::default();
        let mut walk =
            Walk { config, queue: Vec::new(), out: Closure::default(), seen: Seen::default(), computed: Vec::new() };
        let mut computed = Vec::new();
        for Include { lookup, target } in &directives.includes {
            match target {
                Target::Quoted(name) => self.search(config, Some(place.from), name, *lookup, &mut record, &mut walk),
                // gcc goes on behind the directory that this file was found in, whichever brackets are used.
                Target::Angled(name) if *lookup == Lookup::All => {
                    self.search(config, Some(place.from), name, *lookup, &mut record, &mut walk);
                }
                Target::Angled(name) => self.search(config, None, name, *lookup, &mut record, &mut walk),
                Target::Macro(name) => computed.push((name.clone(), *lookup)),
            }
        }
        record.dirs.sort_unstable();
        record.dirs.dedup();
        record.links.sort_unstable();
        record.links.dedup();
        Edges {
            epoch: self.epoch,
            version: self.files[place.file as usize].version,
            next: walk.queue,
            data: walk.out.files.into_iter().filter(|f| !walk.seen.places.iter().any(|p| p.file == *f)).collect(),
            dirs: record.dirs,
            links: record.links,
            computed,
            private: record.private,
        }
    }

    /// Looks a header up as the compiler does and visits the hits.
    fn search(
        &mut self,
        config: ConfigId,
        from: Option<DirId>,
        name: &[u8],
        lookup: Lookup,
        record: &mut Record,
        walk: &mut Walk,
    ) {
        let mut chain: Vec<DirId> = Vec::new();
        {
            let config = &self.walker.configs[config as usize];
            if let Some(from) = from {
                chain.push(from);
                chain.extend(&config.quote);
            }
            if lookup == Lookup::Data {
                chain.push(config.cwd);
            }
            chain.extend(&config.angled);
        }
        if name.starts_with(b"/") {
            chain.truncate(1);
            if chain.is_empty() {
                chain.push(0);
            }
        }
        for dir in chain {
            match lookup {
                Lookup::Data => {
                    if self.data(dir, name, record, walk) {
                        return;
                    }
                }
                Lookup::First | Lookup::All => {
                    if let Some(place) = self.place(dir, name, record) {
                        walk.visit(place, true);
                        if lookup == Lookup::First {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// The file that `name` leads to from `dir`, with the directory its own quoted includes start from.
    fn place(&mut self, dir: DirId, name: &[u8], record: &mut Record) -> Option<Place> {
        let Some(Found::File(file)) = self.resolve(dir, name, record) else { return None };
        // gcc and clang take the folder part of the name as it was put together, not of the file a link leads to.
        let from = match name.iter().rposition(|&c| c == b'/') {
            None => dir,
            Some(0) => 0,
            Some(at) => match self.resolve(dir, &name[..at], record) {
                Some(Found::Dir(dir)) => dir,
                _ => self.files[file as usize].dir,
            },
        };
        Some(Place { file, from })
    }

    fn data(&mut self, dir: DirId, name: &[u8], record: &mut Record, walk: &mut Walk) -> bool {
        match self.resolve(dir, name, record) {
            Some(Found::File(file)) => {
                walk.file(file);
                true
            }
            _ => false,
        }
    }

    /// `#include MACRO`: every value that any file of the closure gives the macro, followed through other macros.
    fn run_computed(&mut self, want: &Want, walk: &mut Walk) {
        let mut done: HashSet<(Place, Name)> = HashSet::default();
        let mut round_files = usize::MAX;
        // New files can define more values: until nothing is added.
        while round_files != walk.out.files.len() {
            round_files = walk.out.files.len();
            let computed = walk.computed.clone();
            let mut record = Record::default();
            for (place, name, lookup) in computed {
                let mut names = vec![name];
                let mut at = 0;
                let mut budget = CANDIDATES_MAX;
                while at < names.len() && budget > 0 {
                    let name = names[at].clone();
                    at += 1;
                    let mut values: Vec<Value> =
                        want.defines.iter().filter(|(n, _)| n[..] == name[..]).map(|(_, v)| v.clone()).collect();
                    if let Some(list) = self.defines.get(&name) {
                        values.extend(list.iter().filter(|(f, _)| walk.seen.files.contains(f)).map(|(_, v)| v.clone()));
                    }
                    for value in values {
                        budget = budget.saturating_sub(1);
                        match value {
                            Value::Macro(other) => {
                                if !names.contains(&other) {
                                    names.push(other);
                                }
                            }
                            Value::Quoted(text) => {
                                if done.insert((place, text.clone())) {
                                    self.search(walk.config, Some(place.from), &text, lookup, &mut record, walk);
                                }
                            }
                            Value::Angled(text) => {
                                if done.insert((place, text.clone())) {
                                    self.search(walk.config, None, &text, lookup, &mut record, walk);
                                }
                            }
                        }
                    }
                }
            }
            walk.take(&record.dirs, &record.links, &self.dirs);
            walk.out.private |= record.private;
            self.run_queue(walk);
        }
    }
}

#[derive(Default)]
struct Seen {
    places: HashSet<Place>,
    files: HashSet<FileId>,
    dirs: HashSet<DirId>,
    links: HashSet<LinkId>,
}

struct Walk {
    config: ConfigId,
    queue: Vec<Place>,
    out: Closure,
    seen: Seen,
    computed: Vec<(Place, Name, Lookup)>,
}

impl Walk {
    fn visit(&mut self, place: Place, scan: bool) {
        if self.seen.places.insert(place) {
            self.file(place.file);
            if scan {
                self.queue.push(place);
            }
        }
    }

    fn file(&mut self, file: FileId) {
        if self.seen.files.insert(file) {
            self.out.files.push(file);
        }
    }

    /// Directories with their ancestors, and links.
    fn take(&mut self, dirs: &[DirId], links: &[LinkId], known: &[Dir]) {
        for &(mut dir) in dirs {
            while self.seen.dirs.insert(dir) {
                self.out.dirs.push(dir);
                dir = known[dir as usize].parent;
            }
        }
        for &link in links {
            if self.seen.links.insert(link) {
                self.out.links.push(link);
            }
        }
    }
}

impl Tree {
    /// The closure of paths that are known to be needed: what they lead to, with every link and directory on the way.
    pub fn closure_of_paths<'a>(&mut self, paths: impl Iterator<Item = &'a std::path::Path>) -> Arc<Closure> {
        let mut walk =
            Walk { config: 0, queue: Vec::new(), out: Closure::default(), seen: Seen::default(), computed: Vec::new() };
        let mut record = Record::default();
        for path in paths {
            if let Some(Found::File(file)) = self.resolve(0, crate::bytes::of(path), &mut record) {
                self.fresh_file(file);
                walk.file(file);
            }
        }
        walk.take(&record.dirs, &record.links, &self.dirs);
        Arc::new(walk.out)
    }

    /// What a dependency file names, seen from the job's directory, and what it hides; or why it is none that a compiler
    /// writes by this rule.
    pub fn listed(
        &mut self,
        closure: &Arc<Closure>,
        want: &Want,
        dependencies: &[u8],
        rule: &DepsRule,
    ) -> Result<Listed, Unlike> {
        let mut record = Record::default();
        let Some(cwd) = self.resolve_dir(&want.cwd, &mut record) else { return Ok(Listed::default()) };
        let state = (self.epoch, self.doubt);
        let kept = &mut self.walker.named;
        if (kept.epoch, kept.doubt) != state || kept.count > NAMED_MAX {
            *kept = Named { epoch: state.0, doubt: state.1, ..Named::default() };
        }
        let digest = Digest::of(dependencies);
        let rule_hash = FxBuildHasher.hash_one(rule);
        let same = |(from, within, by): &(DirId, Arc<Closure>, u64)| {
            *from == cwd && Arc::ptr_eq(within, closure) && *by == rule_hash
        };
        if kept.within.get(&digest).is_some_and(same) {
            return Ok(Listed::default());
        }
        let list = depfile::read(dependencies, rule)?;
        self.counts.lists_read += 1;
        let known: HashSet<FileId> = closure.files.iter().copied().collect();
        let mut all_stand = true;
        let mut out = Listed { hidden: self.certain(cwd, want), ..Listed::default() };
        for (index, name) in list.names.iter().enumerate() {
            let name = &name[..];
            let is_odd = list.odd.contains(&index);
            let base = if name.starts_with(b"/") { 0 } else { cwd };
            let kept = self.walker.named.by_cwd.get(&base).and_then(|names| names.get(name)).copied();
            let file = match kept {
                Some(file) => Some(file),
                None => {
                    let mut record = Record::default();
                    let Some(Found::File(file)) = self.resolve(base, name, &mut record) else {
                        if is_odd {
                            // Not the name of a file: then it is what `make` takes it for.
                            return Err(Unlike::Lie("its dependency list has more in it than names of files"));
                        }
                        all_stand = false;
                        out.missing += 1;
                        continue;
                    };
                    // Kept only where another meaning of the name would have been an event.
                    let stands =
                        (self.epoch, self.doubt) == state && record.dirs.iter().all(|&dir| self.is_reported(dir));
                    if stands && self.is_reported(base) {
                        let kept = &mut self.walker.named;
                        kept.by_cwd.entry(base).or_default().insert(name.into(), file);
                        kept.count += 1;
                    } else {
                        all_stand = false;
                    }
                    Some(file)
                }
            };
            if is_odd && out.odd.is_none() {
                out.odd = Some(name.to_vec());
            }
            out.hidden.retain(|hidden| file != Some(*hidden));
            out.beyond.extend(file.filter(|file| !known.contains(file)));
        }
        if all_stand
            && out.odd.is_none()
            && out.hidden.is_empty()
            && out.beyond.is_empty()
            && (self.epoch, self.doubt) == state
        {
            let kept = &mut self.walker.named;
            kept.within.insert(digest, (cwd, Arc::clone(closure), rule_hash));
            kept.count += 1;
        }
        Ok(out)
    }

    /// Files that a compile opens for certain: its source, and what is included outside every conditional and lies
    /// beside its includer, where every compiler looks first.
    fn certain(&mut self, cwd: DirId, want: &Want) -> Vec<FileId> {
        let (mut record, mut out) = (Record::default(), Vec::new());
        if !want.preprocessed_here {
            return out;
        }
        let mut queue: Vec<Place> = self.place(cwd, &want.source, &mut record).into_iter().collect();
        while let Some(place) = queue.pop() {
            if out.contains(&place.file) {
                continue;
            }
            out.push(place.file);
            for name in self.directives(place.file).iter().flat_map(|d| &d.certain) {
                let compiled = [name, &b".gch"[..]].concat();
                // In its place the compiler may open what was compiled of it before.
                if self.resolve(place.from, &compiled, &mut record).is_none() {
                    queue.extend(self.place(place.from, name, &mut record));
                }
            }
        }
        out
    }
}
