//! Faults: what a job missed on a worker, and whether the worker may have it.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use potluck_model::asked::{Asked, Below, Lies, Mentioned};
use potluck_model::ids::{JobId, NodeId, ToolchainId};
use potluck_model::limits::{FAULT_RETRIES_MAX, FAULTS_PER_JOB_MAX, SIBLINGS_MAX};
use potluck_model::place::Outcome;
use potluck_model::reason::Reason;
use potluck_wire::pool;

use super::{Core, Event};
use crate::tree::{Closure, DirId, Found, Kind, Record, Want};
use crate::{bytes, roots};

/// What one job may ask for.
struct Askable {
    /// Files that were predicted.
    files: HashSet<Vec<u8>>,
    /// Physical directories.
    roots: Vec<(PathBuf, Below)>,
    /// Where lookups begin: the directories that are searched, and those of the files that include.
    bases: Vec<PathBuf>,
    /// Names in its sources.
    mentioned: Mentioned,
}

impl Core {
    /// The compiler touched poison: send what it needs, or give up.
    pub(super) fn faulted(&mut self, id: JobId, peer: NodeId, result: &pool::Result) -> Option<Outcome> {
        self.totals.faults += (result.faults.len() + result.written.len()) as u64;
        let job = self.jobs.get(&id)?;
        let too_many = result.faults.len() > FAULTS_PER_JOB_MAX || result.written.len() > FAULTS_PER_JOB_MAX;
        if result.faults_overflow || too_many || job.tries > FAULT_RETRIES_MAX + u32::from(job.depended) {
            return Some(self.depend_or_home(id));
        }
        let config = job.config;
        let toolchain = job.toolchain;
        let mut progress = !result.written.is_empty();
        let mut gone = Vec::new();
        let askable = self.askable(id)?;
        for path in &result.faults {
            if !self.may_send(&askable, toolchain, path) {
                crate::log::warn(&format!("{} asked for {}, which it must not have", peer.short(), bytes::show(path)));
                self.totals.fault_refusals += 1;
                let marks = self.marks.entry(peer).or_default();
                marks.fault_refused += 1;
                marks.last = format!("asked for {}", bytes::show(path));
                self.note(id, format!("needs {}", bytes::show(path)));
                return Some(Outcome::Home(Reason::FaultRefused));
            }
            self.totals.unpredicted += 1;
            self.marks.entry(peer).or_default().unpredicted += 1;
            let mut record = Record::default();
            let exists = self.exists(path);
            match self.tree.resolve(0, path, &mut record) {
                Some(found) => {
                    progress = true;
                    self.tree.learn(config, path.clone());
                    if let Found::File(_) = found {
                        self.learn_siblings(&askable, config, path);
                    }
                }
                // A dangling link must still be a link there.
                None if exists => {
                    progress = true;
                    self.tree.learn(config, path.clone());
                }
                None => {
                    progress = true;
                    gone.push(path.clone());
                }
            }
        }
        let job = self.jobs.get_mut(&id)?;
        // The same again although everything was sent: sending more will not help.
        if result.faults.iter().any(|f| job.faults.contains(f)) {
            progress = false;
        }
        job.faults.extend(result.faults.iter().cloned());
        job.gone = gone;
        job.extra_whiteouts.extend(result.written.iter().map(|p| bytes::path(p).to_owned()));
        if !progress {
            return Some(self.depend_or_home(id));
        }
        Some(self.again(id))
    }

    pub(super) fn exists(&mut self, path: &[u8]) -> bool {
        let Some(at) = path.iter().rposition(|&c| c == b'/') else { return false };
        let parent = if at == 0 { &b"/"[..] } else { &path[..at] };
        let mut record = Record::default();
        match self.tree.resolve(0, parent, &mut record) {
            Some(Found::Dir(dir)) => self.tree.dir(dir).names.contains_key(&path[at + 1..]),
            _ => false,
        }
    }

    /// Headers beside a header that was not predicted: computed includes come in families (Boost.MPL).
    fn learn_siblings(&mut self, askable: &Askable, config: u32, path: &[u8]) {
        let Some(at) = path.iter().rposition(|&c| c == b'/').filter(|at| *at > 0) else { return };
        let mut record = Record::default();
        let Some(dir) = self.tree.resolve_dir(bytes::path(&path[..at]), &mut record) else { return };
        let extension = |name: &[u8]| name.iter().rposition(|&c| c == b'.').map(|at| name[at..].to_vec());
        let own = extension(&path[at + 1..]);
        if own.as_deref().is_none_or(|e| !e.starts_with(b".h") && !e.starts_with(b".i") && e != b".def") {
            return;
        }
        let names: Vec<Vec<u8>> = self
            .tree
            .dir(dir)
            .names
            .iter()
            .filter(|(n, k)| **k == Kind::File && extension(n) == own)
            .map(|(n, _)| n.to_vec())
            .take(SIBLINGS_MAX)
            .collect();
        for name in names {
            let mut sibling = path[..=at].to_vec();
            sibling.extend_from_slice(&name);
            // Nobody asked for it, so it is sent only where it could have been asked for.
            if self.may_send(askable, None, &sibling) {
                self.tree.learn(config, sibling);
            }
        }
    }

    /// Two faults too many: ask the compiler itself once what the source includes.
    fn depend_or_home(&mut self, id: JobId) -> Outcome {
        let Some(job) = self.jobs.get_mut(&id) else { return Outcome::Home(Reason::FaultLimit) };
        if job.depended {
            return Outcome::Home(Reason::FaultLimit);
        }
        job.depended = true;
        job.parked = true;
        let Some(ask) = self.asks.get(&job.ask) else { return Outcome::Home(Reason::FaultLimit) };
        let Some(compiler) = ask.compiler.clone() else { return Outcome::Home(Reason::FaultLimit) };
        let (args, cwd, env) = (job.args.clone(), job.want.cwd.clone(), ask.compile.env.clone());
        let events = self.events.clone();
        self.runtime.spawn_blocking(move || {
            let _ = events.send(Event::Depended(id, crate::depend::ask(&compiler.driver, &args, &cwd, &env)));
        });
        self.totals.retries += 1;
        Outcome::Retry
    }

    /// `-M` answered: everything in it is known from now on, and the job goes on.
    pub(super) fn depended(&mut self, id: JobId, list: Option<Vec<Vec<u8>>>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.parked = false;
        let (config, cwd, peer) = (job.config, job.want.cwd.clone(), job.peer);
        for path in list.unwrap_or_default() {
            let absolute = cwd.join(bytes::path(&path));
            self.tree.learn(config, bytes::of(&absolute).to_vec());
        }
        if let Some(peer) = peer {
            self.send_job(id, peer);
        }
    }

    /// What a job may ask for, apart from what its compiler brings along.
    fn askable(&mut self, id: JobId) -> Option<Askable> {
        let job = self.jobs.get(&id)?;
        let (want, closure) = (Arc::clone(&job.want), Arc::clone(&job.closure));
        let tools = self.asks.get(&job.ask).map_or(Vec::new(), |ask| ask.plans[job.part].named_dirs.clone());
        let source = want.cwd.join(bytes::path(&want.source));
        // Among the named ones are those of the outputs.
        let listed = want.quote.iter().chain(&want.angled).chain(&want.named_dirs);
        let listed = listed.map(|d| want.cwd.join(bytes::path(d)));
        let sources = [want.cwd.clone()].into_iter().chain(source.parent().map(Path::to_owned)).chain(listed);
        let tools = tools.into_iter().map(|d| (want.cwd.join(d), Below::Tools));
        let mut roots = Vec::new();
        for (root, below) in sources.map(|d| (d, Below::Sources)).chain(tools) {
            if let Some(dir) = self.tree.resolve_dir(&root, &mut Record::default()) {
                roots.push((self.tree.dir(dir).path.clone(), below));
            }
        }
        let files: HashSet<Vec<u8>> =
            closure.files.iter().map(|f| bytes::of(&self.tree.file_path(*f)).to_vec()).collect();
        let includers: HashSet<DirId> = closure.files.iter().map(|&f| self.tree.file(f).dir).collect();
        let mut bases: Vec<PathBuf> = includers.into_iter().map(|dir| self.tree.dir(dir).path.clone()).collect();
        bases.extend(roots.iter().map(|(root, _)| root.clone()));
        Some(Askable { files, roots, bases, mentioned: self.mentioned(&want, &closure) })
    }

    /// Whether a worker may have what a fault asks for: what the compiler's own directories hold, and below those of the
    /// job (source tree, directories of the command line), after resolving links, what its sources can lead to.
    fn may_send(&mut self, askable: &Askable, toolchain: Option<ToolchainId>, path: &[u8]) -> bool {
        if toolchain.is_some_and(|t| self.toolchain_may_send(t, path)) || askable.files.contains(path) {
            return true;
        }
        let Some(physical) = self.physical(path) else { return false };
        let lies = self.lies_at(path);
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let begins = |dir: &[u8], above: bool| {
            let dir = bytes::path(dir);
            askable.bases.iter().any(|base| base == dir || above && base.starts_with(dir))
        };
        askable.roots.iter().any(|&(ref root, below)| {
            let rest = roots::relative(&physical, root, home.as_deref());
            let asked = rest.map(|rest| Asked { path: bytes::of(&physical), rest, below, lies });
            asked.is_some_and(|asked| askable.mentioned.may_ask(&asked, &begins))
        })
    }

    /// The names that the sources and the command of a job say.
    fn mentioned(&mut self, want: &Want, closure: &Closure) -> Mentioned {
        let mut mentioned = Mentioned::default();
        for path in want.forced.iter().chain(&want.implicit).chain(&want.inputs) {
            mentioned.add_path(path);
        }
        for (_, value) in &want.defines {
            mentioned.add_value(value);
        }
        for &file in &closure.files {
            if let Some(directives) = &self.tree.file(file).directives {
                mentioned.add(directives);
            }
        }
        mentioned
    }

    fn lies_at(&mut self, path: &[u8]) -> Lies {
        match self.tree.resolve(0, path, &mut Record::default()) {
            // Not from the tree, which has perhaps not read it yet.
            Some(Found::File(file)) => {
                let meta = std::fs::symlink_metadata(self.tree.file_path(file));
                meta.map_or(Lies::Nothing, |meta| Lies::File(meta.mode() & 0o777))
            }
            Some(Found::Dir(_)) => Lies::Dir,
            None => Lies::Nothing,
        }
    }

    /// What a path that a worker named leads to; of one that does not exist, where it would be. None: a private place,
    /// or a spelling that no worker was ever sent.
    fn physical(&mut self, path: &[u8]) -> Option<PathBuf> {
        if !roots::is_plain(path) {
            return None;
        }
        let mut record = Record::default();
        let found = match self.tree.resolve(0, path, &mut record) {
            Some(Found::File(file)) => self.tree.file_path(file),
            Some(Found::Dir(dir)) => self.tree.dir(dir).path.clone(),
            None => {
                let path = bytes::path(path);
                match path.parent().and_then(|parent| self.tree.resolve_dir(parent, &mut record)) {
                    Some(parent) => self.tree.dir(parent).path.join(path.file_name()?),
                    None => path.to_owned(),
                }
            }
        };
        (!record.private).then_some(found)
    }

    /// The part of `may_send` that is the compiler's: its own tree and the system's public parts.
    pub(super) fn toolchain_may_send(&mut self, toolchain: ToolchainId, path: &[u8]) -> bool {
        let Some(packed) = self.compilers.packed.get(&toolchain) else { return false };
        let prefix = packed.manifest.driver.parent().and_then(Path::parent).map(Path::to_owned);
        let Some(physical) = self.physical(path) else { return false };
        let public = [
            "/usr/lib",
            "/usr/lib32",
            "/usr/lib64",
            "/usr/libx32",
            "/usr/libexec",
            "/usr/include",
            "/usr/local/include",
            "/usr/local/lib",
            "/usr/share/locale",
            "/usr/share/zoneinfo",
            "/usr/bin",
            "/usr/local/bin",
            "/lib",
            "/lib64",
            "/bin",
        ];
        let single = [
            "/etc/ld.so.cache",
            "/etc/ld.so.preload",
            "/etc/ld.so.conf",
            "/etc/localtime",
            "/etc/timezone",
            "/etc/locale.alias",
        ];
        // A directory that nobody may search holds nothing that could be told.
        let closed = self
            .tree
            .known_dir(bytes::of(&physical))
            .is_some_and(|d| self.tree.dir(d).loaded && self.tree.dir(d).mode == 0);
        closed
            || public.iter().any(|p| physical.starts_with(p))
            || single.iter().any(|p| physical == Path::new(p))
            || physical.starts_with("/etc/alternatives")
            || physical.starts_with("/etc/ld.so.conf.d")
            || prefix.is_some_and(|prefix| roots::is_compilers(&physical, &prefix))
            || ["proofs", "native"].iter().any(|own| physical.starts_with(self.settings.dirs.cache.join(own)))
    }
}
