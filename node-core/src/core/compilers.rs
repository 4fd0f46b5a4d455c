//! What is known of compilers: which driver a command means, its packed toolchain, its search lists. Finding out runs
//! compilers, so it happens on other threads; whoever asked meanwhile goes on when the answer is there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use potluck_model::ids::{Digest, ToolchainId};
use potluck_model::plan::Plan;
use potluck_model::reason::Reason;
use potluck_wire::ipc;
use serde_json::{Value, json};

use super::submit::compilers_result::{Answer, Known, Pending, Unusable};
use super::{Core, Event, Replies};
use crate::bytes;
use crate::dirs::Dirs;
use crate::proof::{self, Proof};
use crate::sandbox::runner_path;
use crate::toolchain::native::Native;
use crate::toolchain::{
    Compiler, Compilers, Environment, FileIdent, FindError, Manifest, PackError, Packed, SearchList, Store,
    search_list_of,
};
use crate::tree::{Closure, Tree, TreeState};

/// Something that may still be found out.
enum Slot<T, E> {
    Pending(Vec<u64>),
    Known(T),
    Failed(E),
}

/// A compiler as asked for, and the environment that steers it.
pub type CompilerKey = (PathBuf, Vec<Vec<u8>>);
/// Driver, language, arguments, environment, folder.
pub type SearchKey = (PathBuf, &'static str, Vec<OsString>, Vec<Vec<u8>>, PathBuf);

/// What is known for one compiler's name and one environment, so that a compile need not put the long keys together.
#[derive(Default)]
struct Quick {
    compiler: Option<Arc<Compiler>>,
    /// Batch in which the compiler's files were looked at.
    looked_in: u64,
    toolchain: Option<ToolchainId>,
    searches: Vec<QuickSearch>,
}

struct QuickSearch {
    language: &'static str,
    args: Vec<OsString>,
    cwd: PathBuf,
    list: Arc<SearchList>,
}

/// Environments remembered at a time: people have a handful.
const QUICK_MAX: usize = 256;
/// Search lists remembered for one of them: directories times options.
const QUICK_SEARCHES_MAX: usize = 256;

/// All of it.
pub(crate) struct State {
    quick: HashMap<Digest, Quick>,
    finder: Arc<Compilers>,
    native: Native,
    found: HashMap<CompilerKey, Slot<Arc<Compiler>, FindError>>,
    tools: HashMap<CompilerKey, Slot<ToolchainId, String>>,
    searches: HashMap<SearchKey, Slot<Arc<SearchList>, ()>>,
    pub(crate) packed: HashMap<ToolchainId, Arc<Packed>>,
    /// With the state of the tree in which each was found right, if only an event can change that.
    closures: HashMap<ToolchainId, (Arc<Closure>, Option<TreeState>)>,
    /// Paths that its proofs needed and the packing did not foresee.
    needed: HashMap<ToolchainId, Vec<PathBuf>>,
    /// What a worker must prove; or why that could not be prepared.
    pub(crate) proofs: HashMap<ToolchainId, Result<Vec<Proof>, String>>,
    /// Bytes hashed and in all, of the packing that runs.
    pub(crate) progress: Option<(u64, u64)>,
    /// Compilers that a user named and that are being looked for.
    named: usize,
    pub(crate) cache: PathBuf,
}

/// A packed toolchain with what a worker must prove, or why that could not be prepared.
type PackResult = Result<Box<(Packed, Result<Vec<Proof>, String>)>, PackError>;

/// An answer from another thread. Opaque outside.
#[allow(private_interfaces, missing_docs)]
pub enum Found {
    Compiler(CompilerKey, Result<Arc<Compiler>, FindError>),
    Packed(CompilerKey, PackResult),
    Named(PathBuf, Environment, Result<Arc<Compiler>, FindError>, Replies),
    Progress(u64, u64),
    Search(SearchKey, Option<SearchList>),
}

impl State {
    pub(super) fn new(dirs: &Dirs) -> Self {
        Self {
            quick: HashMap::new(),
            finder: Arc::default(),
            native: Native::new(dirs.cache.join("native")),
            found: HashMap::new(),
            tools: HashMap::new(),
            searches: HashMap::new(),
            packed: HashMap::new(),
            closures: HashMap::new(),
            needed: HashMap::new(),
            proofs: HashMap::new(),
            progress: None,
            named: 0,
            cache: dirs.cache.clone(),
        }
    }

    /// Every compiler that could not be packed, once, however many environments it was asked for in.
    pub(crate) fn failures(&self) -> BTreeMap<&Path, &str> {
        let failed = self.tools.iter().filter_map(|(key, slot)| match slot {
            Slot::Failed(why) => Some((key.0.as_path(), why.as_str())),
            _ => None,
        });
        failed.collect()
    }

    /// Compilers that are being packed.
    pub(crate) fn being_packed(&self) -> BTreeSet<&Path> {
        let packing = self.tools.iter().filter(|(_, slot)| matches!(slot, Slot::Pending(_)));
        packing.map(|(key, _)| key.0.as_path()).collect()
    }

    /// A proof needed this path.
    pub(crate) fn need(&mut self, id: ToolchainId, path: Vec<u8>) {
        self.needed.entry(id).or_default().push(bytes::path_buf(path));
        self.closures.remove(&id);
    }

    /// Whether something is being packed.
    pub(crate) fn is_packing(&self) -> bool {
        self.named > 0 || self.tools.values().any(|s| matches!(s, Slot::Pending(_)))
    }
}

/// Of the compiler's name and all that was sent of the environment, but the working directory's name.
pub(super) fn steering_digest(compile: &ipc::Compile) -> Digest {
    let mut text = Vec::with_capacity(4096);
    // Which build it is says nothing about a command, nor does whom it is trusted to.
    let own = |entry: &&Vec<u8>| {
        ![&b"PWD="[..], b"POTLUCK_BUILD_", b"POTLUCK_TRUST="].iter().any(|own| entry.starts_with(own))
    };
    let entries = compile.env.iter().filter(own);
    for part in std::iter::once(&compile.compiler).chain(entries) {
        // No string of a process holds a zero byte, so that different lists make different texts.
        text.extend_from_slice(part);
        text.push(0);
    }
    Digest::of(&text)
}

fn steering(compile: &ipc::Compile) -> Environment {
    Environment::from_entries(&compile.env).steering()
}

impl Core {
    pub(super) fn compiler_of(&mut self, ask: u64, steering: Digest, compile: &ipc::Compile) -> Answer<Arc<Compiler>> {
        let batch = self.tree.batch();
        if let Some(quick) = self.compilers.quick.get_mut(&steering)
            && let Some(compiler) = &quick.compiler
        {
            if quick.looked_in == batch || compiler.identity.iter().all(FileIdent::holds) {
                quick.looked_in = batch;
                return Known(Arc::clone(compiler));
            }
            self.compilers.quick.remove(&steering);
        }
        let env = Environment::from_entries(&compile.env).in_root(self.tree.root()).without("PWD");
        let key: CompilerKey = (bytes::path(&compile.compiler).to_owned(), env.steering().entries());
        match self.compilers.found.get_mut(&key) {
            Some(Slot::Known(compiler)) if compiler.identity.iter().all(FileIdent::holds) => {
                let compiler = Arc::clone(compiler);
                if self.compilers.quick.len() >= QUICK_MAX {
                    self.compilers.quick.clear();
                }
                let quick = Quick { compiler: Some(Arc::clone(&compiler)), looked_in: batch, ..Quick::default() };
                self.compilers.quick.insert(steering, quick);
                return Known(compiler);
            }
            Some(Slot::Pending(waiting)) => {
                waiting.push(ask);
                return Pending;
            }
            Some(Slot::Failed(FindError::NotACompiler(..))) => return Unusable(Reason::UnsupportedCompiler),
            Some(Slot::Known(old)) => {
                // Upgraded: another toolchain, which must be packed and prove itself anew, and may search elsewhere.
                let driver = old.driver.clone();
                self.compilers.tools.retain(|(known, _), slot| *known != driver || matches!(slot, Slot::Pending(_)));
                self.compilers.searches.retain(|key, slot| key.0 != driver || matches!(slot, Slot::Pending(_)));
                self.compilers.quick.clear();
            }
            Some(Slot::Failed(_)) | None => {}
        }
        self.compilers.found.insert(key.clone(), Slot::Pending(vec![ask]));
        let (finder, events) = (Arc::clone(&self.compilers.finder), self.events.clone());
        self.runtime.spawn_blocking(move || {
            let found = finder.find(&key.0, &env);
            let _ = events.send(Event::Compiler(Found::Compiler(key, found)));
        });
        Pending
    }

    pub(super) fn toolchain_of(
        &mut self,
        ask: u64,
        steering_of: Digest,
        compiler: &Arc<Compiler>,
        compile: &ipc::Compile,
    ) -> Answer<ToolchainId> {
        if let Some(toolchain) = self.compilers.quick.get(&steering_of).and_then(|quick| quick.toolchain) {
            return Known(toolchain);
        }
        let env = steering(compile);
        let key: CompilerKey = (compiler.driver.clone(), env.entries());
        let wait = self.settings.local_compiles == 0 || compile.no_fallback;
        match self.compilers.tools.get_mut(&key) {
            Some(Slot::Known(id)) => {
                let id = *id;
                if let Some(quick) = self.compilers.quick.get_mut(&steering_of) {
                    quick.toolchain = Some(id);
                }
                return Known(id);
            }
            Some(Slot::Failed(_)) => return Unusable(Reason::ToolchainIncomplete),
            Some(Slot::Pending(waiting)) => {
                if !wait {
                    return Unusable(Reason::ToolchainPacking);
                }
                waiting.push(ask);
                return Pending;
            }
            None => {}
        }
        let waiting = if wait { vec![ask] } else { Vec::new() };
        self.pack(key, Arc::clone(compiler), env, waiting);
        if wait { Pending } else { Unusable(Reason::ToolchainPacking) }
    }

    fn pack(&mut self, key: CompilerKey, compiler: Arc<Compiler>, env: Environment, waiting: Vec<u64>) {
        self.compilers.tools.insert(key.clone(), Slot::Pending(waiting));
        let (events, cache) = (self.events.clone(), self.compilers.cache.clone());
        self.runtime.spawn_blocking(move || {
            let report = events.clone();
            let mut progress = move |done, all| {
                let _ = report.send(Event::Compiler(Found::Progress(done, all)));
            };
            let packed = pack_and_prepare(&cache, &compiler, &env, &mut progress);
            let _ = events.send(Event::Compiler(Found::Packed(key, packed)));
        });
    }

    /// Packs a compiler that the user named. The answer tells which driver it is, or why it is none; packing goes on.
    pub(crate) fn pack_named(&mut self, path: PathBuf, env: Environment, replies: Replies) {
        self.compilers.named += 1;
        let (finder, events) = (Arc::clone(&self.compilers.finder), self.events.clone());
        self.runtime.spawn_blocking(move || {
            let found = finder.find(&path, &env);
            let _ = events.send(Event::Compiler(Found::Named(path, env, found, replies)));
        });
    }

    fn named(&mut self, path: &Path, env: &Environment, found: Result<Arc<Compiler>, FindError>) -> Value {
        self.compilers.named -= 1;
        let steering = env.steering();
        let compiler = match found {
            Ok(compiler) => compiler,
            Err(error) => return json!({"error": error.to_string()}),
        };
        let driver = compiler.driver.clone();
        let asked_as = (path.to_owned(), steering.entries());
        if !matches!(self.compilers.found.get(&asked_as), Some(Slot::Pending(_))) {
            self.compilers.found.insert(asked_as, Slot::Known(Arc::clone(&compiler)));
        }
        let key: CompilerKey = (driver.clone(), steering.entries());
        // One that could not be packed is tried again: that is why the user asks.
        if !matches!(self.compilers.tools.get(&key), Some(Slot::Known(_) | Slot::Pending(_))) {
            self.pack(key, compiler, steering, Vec::new());
        }
        json!({"ok": true, "driver": driver})
    }

    pub(super) fn search_list(
        &mut self,
        ask: u64,
        steering: Digest,
        compiler: &Compiler,
        compile: &ipc::Compile,
        plan: &Plan,
    ) -> Answer<Arc<SearchList>> {
        if !plan.language.is_preprocessed_here() {
            return Known(Arc::default());
        }
        let relative = plan.path_args.iter().any(|a| !a.to_string_lossy().contains("=/"));
        let cwd = if plan.path_args.is_empty() || !relative {
            PathBuf::from("/")
        } else {
            bytes::path(&compile.cwd).to_owned()
        };
        let language = plan.language.x_name();
        let quick = self.compilers.quick.get(&steering).and_then(|quick| {
            quick.searches.iter().find(|s| s.language == language && s.args == plan.path_args && s.cwd == cwd)
        });
        if let Some(quick) = quick {
            return Known(Arc::clone(&quick.list));
        }
        let env = Environment::from_entries(&compile.env).in_root(self.tree.root()).without("PWD");
        let key: SearchKey =
            (compiler.driver.clone(), plan.language.x_name(), plan.path_args.clone(), env.steering().entries(), cwd);
        match self.compilers.searches.get_mut(&key) {
            Some(Slot::Known(list)) => {
                let list = Arc::clone(list);
                if let Some(quick) = self.compilers.quick.get_mut(&steering) {
                    if quick.searches.len() >= QUICK_SEARCHES_MAX {
                        quick.searches.clear();
                    }
                    quick.searches.push(QuickSearch { language, args: key.2, cwd: key.4, list: Arc::clone(&list) });
                }
                return Known(list);
            }
            Some(Slot::Failed(())) => return Unusable(Reason::BadCommand),
            Some(Slot::Pending(waiting)) => {
                waiting.push(ask);
                return Pending;
            }
            None => {}
        }
        self.compilers.searches.insert(key.clone(), Slot::Pending(vec![ask]));
        let events = self.events.clone();
        self.runtime.spawn_blocking(move || {
            let list = search_list_of(&key.0, key.1, &key.2, &env, &key.4).ok().flatten();
            let _ = events.send(Event::Compiler(Found::Search(key, list)));
        });
        Pending
    }

    /// The arguments with everything resolved that looks at this CPU, and a generated file that goes with them.
    pub(super) fn expanded_args(
        &self,
        plan: &Plan,
        compiler: &Compiler,
        compile: &ipc::Compile,
    ) -> Result<(Vec<OsString>, Option<PathBuf>), Reason> {
        if plan.native.is_empty() {
            return Ok((plan.args.clone(), None));
        }
        let env = Environment::from_entries(&compile.env).in_root(self.tree.root());
        let expanded = self.compilers.native.expand(compiler, &env, plan.language, &plan.args, &plan.native)?;
        Ok((expanded.args, expanded.specs_file))
    }

    pub(super) fn compiler_found(&mut self, found: Found) {
        match found {
            Found::Progress(done, all) => {
                self.compilers.progress = Some((done, all));
                self.tell_watchers();
            }
            Found::Named(path, env, found, replies) => {
                let answer = self.named(&path, &env, found);
                let _ = replies.send(ipc::Reply::Api { json: answer.to_string(), last: true });
                self.tell_watchers();
            }
            Found::Compiler(key, result) => {
                let slot = match result {
                    Ok(compiler) => Slot::Known(compiler),
                    Err(error) => {
                        crate::log::info(&format!("{error}"));
                        Slot::Failed(error)
                    }
                };
                let failed = matches!(slot, Slot::Failed(_));
                if let Some(Slot::Pending(waiting)) = self.compilers.found.insert(key, slot) {
                    for ask in waiting {
                        if failed { self.here(ask, Reason::UnsupportedCompiler) } else { self.understand(ask) }
                    }
                }
            }
            Found::Packed(key, result) => {
                self.compilers.progress = None;
                let slot = match result {
                    Ok(packed) => {
                        let (packed, proofs) = *packed;
                        let id = packed.id;
                        self.compilers.proofs.insert(id, proofs);
                        self.compilers.packed.insert(id, Arc::new(packed));
                        Slot::Known(id)
                    }
                    Err(error) => {
                        crate::log::warn(&format!("{} is not packed: {error}", key.0.display()));
                        Slot::Failed(error.to_string())
                    }
                };
                let id = match &slot {
                    Slot::Known(id) => Some(*id),
                    _ => None,
                };
                if let Some(Slot::Pending(waiting)) = self.compilers.tools.insert(key, slot) {
                    for ask in waiting {
                        self.prepare(ask);
                    }
                }
                if let Some(id) = id {
                    self.want_toolchain(id);
                }
                self.tell_watchers();
            }
            Found::Search(key, list) => {
                let slot = match list {
                    Some(list) => Slot::Known(Arc::new(list)),
                    None => Slot::Failed(()),
                };
                if let Some(Slot::Pending(waiting)) = self.compilers.searches.insert(key, slot) {
                    for ask in waiting {
                        self.prepare(ask);
                    }
                }
            }
        }
    }

    /// The toolchain's own files, links and directories, as they are in this batch.
    pub(crate) fn toolchain_closure(&mut self, id: ToolchainId) -> Option<Arc<Closure>> {
        let packed = Arc::clone(self.compilers.packed.get(&id)?);
        if let Some((closure, state)) = self.compilers.closures.get(&id) {
            let closure = Arc::clone(closure);
            if *state == Some(self.tree.state()) {
                return Some(closure);
            }
            let stands = closure.dirs.iter().all(|&d| self.tree.fresh_dir(d))
                && closure.files.iter().all(|&f| self.tree.fresh_file(f));
            if stands {
                let state = self.tree.events_vouch_for(&closure).then(|| self.tree.state());
                self.compilers.closures.insert(id, (Arc::clone(&closure), state));
                return Some(closure);
            }
        }
        let needed = self.compilers.needed.get(&id).map_or(&[][..], Vec::as_slice);
        let closure = closure_of(&mut self.tree, &packed.manifest, needed);
        self.compilers.closures.insert(id, (Arc::clone(&closure), None));
        Some(closure)
    }
}

fn closure_of(tree: &mut Tree, manifest: &Manifest, needed: &[PathBuf]) -> Arc<Closure> {
    let entries = manifest.entries.iter().map(|e| e.path());
    tree.closure_of_paths(entries.chain(manifest.dirs.iter().chain(needed).map(PathBuf::as_path)))
}

fn pack_and_prepare(
    cache: &Path,
    compiler: &Compiler,
    env: &Environment,
    progress: &mut dyn FnMut(u64, u64),
) -> PackResult {
    let store = Store::open(cache).map_err(|e| PackError::Io("opening the store of toolchains", e))?;
    let packed = store.pack(compiler, env, &runner_path(), progress)?;
    let proofs = proof::prepare(cache, &packed);
    Ok(Box::new((packed, proofs)))
}
