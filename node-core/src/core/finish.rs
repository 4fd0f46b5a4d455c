//! A job's end: results, faults, the last look at the inputs, and the outputs put in place.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use potluck_model::ids::{JobId, NodeId, ToolchainId};
use potluck_model::limits::{FAULT_RETRIES_MAX, SIBLINGS_MAX};
use potluck_model::place::{self, Outcome};
use potluck_model::plan::{Manner, Plan};
use potluck_model::reason::Reason;
use potluck_wire::ipc;
use potluck_wire::pool::{self, HarvestKind, frame};

use super::submit::Job;
use super::{Core, Event};
use crate::bytes;
use crate::outputs::{self, Change, Folders};
use crate::roots;
use crate::tree::{FileId, Found, Kind, Listed, Record, Tree};

/// Runs again because an input changed meanwhile, before the job runs here.
const RERUNS_MAX: u32 = 2;

impl Core {
    pub(super) fn result(&mut self, peer: NodeId, result: pool::Result) {
        let id = JobId(result.id);
        let size = prost::Message::encoded_len(&result) as u64;
        self.totals.bytes_down += size;
        if let Some(probe) = self.probes.remove(&id) {
            return self.proof_result(peer, probe, &result);
        }
        // Of two copies the second is void, and so is what nobody waits for any more.
        if !self.submitter.is_out(id, peer) || !self.jobs.contains_key(&id) {
            self.void_run(Some(peer), Some(Box::new(result)));
            return self.place(place::Event::Result { job: id, peer, outcome: Outcome::Ok });
        }
        let now = self.now();
        let job = self.jobs.get_mut(&id).expect("looked up above");
        job.result_at = now;
        job.bytes_down += size;
        let large: Vec<u64> = result.outputs.iter().filter(|o| o.transfer != 0).map(|o| o.transfer).collect();
        let complete = self.peers.get(&peer).is_some_and(|p| large.iter().all(|t| p.arrivals.has(*t)));
        if !complete {
            let other = job.held.replace(Box::new(result));
            return self.void_run(Some(peer), other);
        }
        self.ended(id, peer, result);
    }

    /// A complete result: what it means, and the next step.
    fn ended(&mut self, id: JobId, peer: NodeId, result: pool::Result) {
        if self.jobs.get(&id).is_some_and(|job| job.audit.is_some()) {
            return self.rerun_ended(id, peer, result);
        }
        let end = result.end;
        let faulted = !result.faults.is_empty() || !result.written.is_empty() || result.faults_overflow;
        let used = self.totals.remote;
        let concluded = self.conclude(id, peer, result);
        let fate = match &concluded {
            _ if self.totals.remote > used => "used".to_owned(),
            _ if faulted => "faulted".to_owned(),
            Some(Outcome::Home(reason) | Outcome::Elsewhere(reason) | Outcome::Compare(reason)) => reason.to_string(),
            Some(Outcome::Retry) => Reason::InputChanged.to_string(),
            _ => "void".to_owned(),
        };
        self.count_run(end, &fate);
        let Some(outcome) = concluded else { return };
        let again = outcome == Outcome::Retry;
        self.place(place::Event::Result { job: id, peer, outcome });
        if again {
            // It keeps its slot there; what it lacked goes along.
            self.send_job(id, peer);
        }
    }

    /// Counts what became of a run that ended by itself on a worker, so that the sum equals the workers' own logs.
    pub(super) fn count_run(&mut self, end: i32, fate: &str) {
        if end == pool::EndKind::EndExited as i32 {
            *self.totals.runs.entry(fate.to_owned()).or_default() += 1;
        }
    }

    /// A result that is not needed, or not any more while it waited for its large outputs.
    pub(super) fn void_run(&mut self, peer: Option<NodeId>, result: Option<Box<pool::Result>>) {
        let Some(result) = result else { return };
        self.totals.void += 1;
        self.count_run(result.end, "void");
        if let Some(peer) = peer.and_then(|peer| self.peers.get_mut(&peer)) {
            for output in result.outputs.iter().filter(|o| o.transfer != 0) {
                peer.arrivals.forget(output.transfer);
            }
        }
    }

    /// The job is over, one way or another.
    pub(super) fn forget_job(&mut self, id: JobId) -> Option<Job> {
        let mut job = self.jobs.remove(&id)?;
        let held = job.held.take();
        self.void_run(job.peer, held);
        Some(job)
    }

    /// A large output came: perhaps a result waited for it.
    pub(super) fn output_arrived(&mut self, peer: NodeId) {
        let ready: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| {
                job.peer == Some(peer)
                    && job.held.as_ref().is_some_and(|r| {
                        r.outputs.iter().filter(|o| o.transfer != 0).all(|o| self.peers[&peer].arrivals.has(o.transfer))
                    })
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            let Some(result) = self.jobs.get_mut(&id).and_then(|j| j.held.take()) else { continue };
            self.ended(id, peer, *result);
        }
    }

    /// What a complete result means. None: the job goes on by itself.
    fn conclude(&mut self, id: JobId, peer: NodeId, mut result: pool::Result) -> Option<Outcome> {
        let mut contents = self.take_contents(peer, &result);
        if !result.faults.is_empty() || !result.written.is_empty() || result.faults_overflow {
            return self.faulted(id, peer, &result);
        }
        match pool::EndKind::try_from(result.end).unwrap_or_default() {
            pool::EndKind::EndExited if result.value == 0 => {}
            pool::EndKind::EndExited => {
                let strict =
                    self.jobs.get(&id).and_then(|j| self.asks.get(&j.ask)).is_some_and(|a| a.compile.no_fallback);
                if !strict {
                    return Some(Outcome::Home(Reason::RemoteErrorLocalError));
                }
            }
            pool::EndKind::EndSignaled => {
                self.note(id, format!("killed by signal {} on {}", result.value, peer.short()));
                return Some(Outcome::Home(Reason::OutOfMemory));
            }
            pool::EndKind::EndLimit => {
                self.note(
                    id,
                    format!("hit the limit of {} on {}", crate::guest::limit_name(result.value), peer.short()),
                );
                return Some(Outcome::Home(if result.value == 1 { Reason::Timeout } else { Reason::LimitHit }));
            }
            pool::EndKind::EndKilled => return Some(Outcome::Elsewhere(Reason::PeerReclaimed)),
            _ => {
                self.note(id, format!("did not run on {}: {}", peer.short(), result.note));
                return Some(Outcome::Elsewhere(Reason::SandboxUnavailable));
            }
        }
        let kept = self.sampled(id, peer, &result, &contents);
        let careful = self.jobs.get(&id).is_some_and(|job| job.careful).then(|| super::audit::digests(&contents));
        let changes = match self.changes(id, &result, &mut contents) {
            Ok(changes) => changes,
            Err(why) => {
                return Some(self.bad_output(id, peer, why));
            }
        };
        if let Some(outcome) = self.inputs_changed(id, peer, &changes) {
            return Some(outcome);
        }
        if let Some(digests) = careful
            && let Some(outcome) = self.second_opinion(id, peer, &result, &digests)
        {
            return Some(outcome);
        }
        // The wrapper may have gone since: then nobody expects outputs, and another compiler may be writing them.
        let alive = self.jobs.get(&id).and_then(|j| self.asks.get(&j.ask)).is_some_and(|a| !a.replies.is_closed());
        if !alive {
            return Some(Outcome::Ok);
        }
        // Targets may have become something else while the job ran.
        let mut folders = Folders::default();
        for change in &changes {
            if let Change::File { path, manner, .. } = change
                && let Err(reason) = outputs::check_target(&mut folders, path, *manner)
            {
                return Some(Outcome::Home(reason));
            }
        }
        if let Err(error) = outputs::apply_all(&mut folders, &changes) {
            self.note(id, format!("an output could not be written: {error}"));
            return Some(Outcome::Home(Reason::DiskFull));
        }
        self.made_by(peer, &changes);
        self.keep_sample(id, peer, kept);
        self.done(id, peer, &mut result);
        Some(Outcome::Ok)
    }

    pub(super) fn take_contents(&mut self, peer: NodeId, result: &pool::Result) -> Vec<Option<Vec<u8>>> {
        result
            .outputs
            .iter()
            .map(|o| match o.transfer {
                0 => crate::core_content::inline(o),
                transfer => self.peers.get_mut(&peer)?.arrivals.take(transfer).filter(|c| c.len() as u64 == o.size),
            })
            .collect()
    }

    /// The changes that a result asks for, if every one is allowed: below an output directory of the plan, and over
    /// no input.
    fn changes(
        &mut self,
        id: JobId,
        result: &pool::Result,
        contents: &mut [Option<Vec<u8>>],
    ) -> Result<Vec<Change>, String> {
        let job = self.jobs.get(&id).ok_or("the job is gone")?;
        let ask = self.asks.get(&job.ask).ok_or("the job is gone")?;
        let plan = &ask.plans[job.part];
        let known = known_outputs(&self.tree, plan, &job.want.cwd, &job.dirs);
        let mut changes = Vec::new();
        let mut object = None;
        for (output, content) in result.outputs.iter().zip(contents) {
            let (dir, _) = job.dirs.get(output.dir as usize).ok_or("an output outside the plan's directories")?;
            let path = roots::below(dir, &output.path)
                .ok_or_else(|| format!("{:?} is no path for an output", bytes::show(&output.path)))?;
            if self.tree.known_path(&path).is_some_and(|file| job.closure.files.contains(&file)) {
                return Err(format!("{} is a source", path.display()));
            }
            let change = match HarvestKind::try_from(output.kind).unwrap_or_default() {
                HarvestKind::HarvestFile => {
                    let content = content.take().ok_or("an output that does not unpack")?;
                    let from = known.iter().map(|(p, _)| p.as_path()).chain([bytes::path(&job.want.source)]);
                    if !known.iter().any(|(p, _)| *p == path)
                        && !path.file_name().is_some_and(|name| roots::is_derived(name, from))
                    {
                        return Err(format!("{} is no output of this command", path.display()));
                    }
                    let manner = known.iter().find(|(p, _)| *p == path).map(|(_, m)| *m);
                    let manner = manner.unwrap_or(if path.extension().is_some_and(|e| e == "o") {
                        Manner::Replace
                    } else {
                        Manner::Truncate
                    });
                    Change::File { path, mode: output.mode & 0o777, manner, content }
                }
                HarvestKind::HarvestDir => Change::Dir { path, mode: output.mode & 0o777 },
                // Only what the plan names may vanish.
                HarvestKind::HarvestDeleted if known.iter().any(|(p, _)| *p == path) => Change::Delete { path },
                HarvestKind::HarvestDeleted => return Err(format!("it removed {}", path.display())),
                HarvestKind::HarvestRefused => return Err(format!("{}: {}", path.display(), output.note)),
                HarvestKind::HarvestUnknown => return Err("an output of an unknown kind".to_owned()),
            };
            // The object last: when it is there, everything is.
            let is_object =
                known.first().is_some_and(|(p, _)| matches!(&change, Change::File { path, .. } if path == p));
            if is_object { object = Some(change) } else { changes.push(change) }
        }
        changes.extend(object);
        Ok(changes)
    }

    /// A result that no honest worker sends: it is not taken, and the peer is remembered for it.
    fn bad_output(&mut self, id: JobId, peer: NodeId, why: String) -> Outcome {
        crate::log::warn(&format!("outputs of {} are refused: {why}", peer.short()));
        self.mark_bad(peer, why.clone());
        self.note(id, why);
        Outcome::Home(Reason::BadOutput)
    }

    /// A peer returned what no honest one does.
    pub(super) fn mark_bad(&mut self, peer: NodeId, why: String) {
        self.totals.bad_outputs += 1;
        let marks = self.marks.entry(peer).or_default();
        marks.bad_output += 1;
        marks.refused_at = Some(Instant::now());
        marks.last = why;
    }

    /// Whether the job read something else than what is there now. Then it runs again, or here.
    fn inputs_changed(&mut self, id: JobId, peer: NodeId, changes: &[Change]) -> Option<Outcome> {
        let job = self.jobs.get(&id)?;
        let (config, want, before) = (job.config, job.want.clone(), job.fingerprint);
        // A stat since it was sent, perhaps at the end of another job, tells all that it may have seen otherwise than a
        // compiler here would have.
        let (_, now) = self.tree.closure_since(config, &want, job.sent_in + 1);
        let mut changed = now != before;
        let mut unpredicted = Vec::new();
        // What the compiler says that it opened, where it says so.
        let ask = self.asks.get(&job.ask)?;
        let plan = &ask.plans[job.part];
        if let Some(deps) = &plan.deps
            && let Some(text) = changes.iter().find_map(|c| match c {
                Change::File { path, content, .. } if path.file_name() == deps.file_name() => Some(content),
                _ => None,
            })
        {
            let closure = Arc::clone(&job.closure);
            let listed = self.tree.listed(&closure, &want, text);
            if !changed && let Some(why) = self.lie(peer, &listed) {
                return Some(self.bad_output(id, peer, why));
            }
            changed |= listed.missing > 0 && want.preprocessed_here;
            unpredicted =
                listed.beyond.iter().map(|&file| bytes::of(&self.tree.file_path(file)).to_vec()).collect::<Vec<_>>();
        }
        if !unpredicted.is_empty() {
            for path in unpredicted {
                // It was real there although nothing predicted it: its content was that of the last delta, which
                // this batch's events would have changed. Known from now on.
                let mut record = Record::default();
                let here = match self.tree.resolve(0, &path, &mut record) {
                    Some(Found::File(file)) => self.tree.fresh_file(file),
                    _ => false,
                };
                changed |= !here;
                self.tree.learn(config, path);
            }
        }
        if !changed {
            return None;
        }
        let job = self.jobs.get_mut(&id)?;
        job.reruns += 1;
        Some(if job.reruns > RERUNS_MAX { Outcome::Home(Reason::InputChanged) } else { self.again(id) })
    }

    /// The same peer runs it again in the same slot.
    fn again(&mut self, _id: JobId) -> Outcome {
        self.totals.retries += 1;
        Outcome::Retry
    }

    /// What a dependency file says that cannot be: a file was opened that this peer was never sent, or one was not
    /// that the compiler opens in any case.
    fn lie(&self, peer: NodeId, listed: &Listed) -> Option<String> {
        let image = &self.peers.get(&peer)?.image;
        let unsent = listed.beyond.iter().find(|&&file| !image.knows(&self.tree, file));
        let show = |file: &FileId| self.tree.file_path(*file).display().to_string();
        unsent
            .map(|file| format!("its dependency list names {}, which it was never sent", show(file)))
            .or_else(|| listed.hidden.first().map(|file| format!("its dependency list hides {}", show(file))))
    }

    /// The compiler touched poison: send what it needs, or give up.
    pub(super) fn faulted(&mut self, id: JobId, peer: NodeId, result: &pool::Result) -> Option<Outcome> {
        self.totals.faults += (result.faults.len() + result.written.len()) as u64;
        let job = self.jobs.get(&id)?;
        if result.faults_overflow || job.tries > FAULT_RETRIES_MAX + u32::from(job.depended) {
            return Some(self.depend_or_home(id));
        }
        let config = job.config;
        let toolchain = job.toolchain;
        let mut progress = !result.written.is_empty();
        let mut gone = Vec::new();
        for path in &result.faults {
            if !self.may_send(id, toolchain, path) {
                crate::log::warn(&format!("{} asked for {}, which it must not have", peer.short(), bytes::show(path)));
                self.totals.fault_refusals += 1;
                let marks = self.marks.entry(peer).or_default();
                marks.fault_refused += 1;
                marks.last = format!("asked for {}", bytes::show(path));
                self.note(id, format!("needs {}", bytes::show(path)));
                return Some(Outcome::Home(Reason::FaultRefused));
            }
            let mut record = Record::default();
            let exists = self.exists(path);
            match self.tree.resolve(0, path, &mut record) {
                Some(found) => {
                    progress = true;
                    self.tree.learn(config, path.clone());
                    if let Found::File(_) = found {
                        self.learn_siblings(config, path);
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
    fn learn_siblings(&mut self, config: u32, path: &[u8]) {
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
            self.tree.learn(config, sibling);
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

    /// Whether a worker may have what a fault asks for: only names below the closure's roots (source tree,
    /// directories of the command line, the compiler's own), after resolving links.
    fn may_send(&mut self, id: JobId, toolchain: Option<ToolchainId>, path: &[u8]) -> bool {
        if toolchain.is_some_and(|t| self.toolchain_may_send(t, path)) {
            return true;
        }
        let Some(job) = self.jobs.get(&id) else { return false };
        let want = job.want.clone();
        let mut roots: Vec<PathBuf> = vec![want.cwd.clone()];
        let source = want.cwd.join(bytes::path(&want.source));
        roots.extend(source.parent().map(Path::to_owned));
        let listed = want.quote.iter().chain(&want.angled).chain(&want.named_dirs);
        roots.extend(listed.map(|d| want.cwd.join(bytes::path(d))));
        let closure = Arc::clone(&job.closure);
        let literally = closure.files.iter().any(|f| bytes::of(&self.tree.file_path(*f)) == path);
        if literally {
            return true;
        }
        let Some(physical) = self.physical(path) else { return false };
        let home = std::env::var_os("HOME").map(PathBuf::from);
        roots.iter().any(|root| {
            let mut record = Record::default();
            let Some(root) = self.tree.resolve_dir(root, &mut record) else { return false };
            roots::is_below(&physical, &self.tree.dir(root).path, home.as_deref())
        })
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
            || prefix.filter(|p| p.components().count() > 2).is_some_and(|p| roots::is_below(&physical, &p, None))
            || ["proofs", "native"].iter().any(|own| physical.starts_with(self.settings.dirs.cache.join(own)))
    }

    pub(super) fn refused(&mut self, peer: NodeId, refused: &pool::Refused) {
        let id = JobId(refused.id);
        if let Some(probe) = self.probes.remove(&id) {
            let result = pool::Result { id: refused.id, note: refused.note.clone(), ..pool::Result::default() };
            return self.proof_result(peer, probe, &result);
        }
        self.totals.refusals += 1;
        let reason = Reason::ALL.iter().find(|r| r.code() == refused.reason).cloned().unwrap_or(Reason::NoFreeSlot);
        if reason == Reason::Policy {
            self.totals.version_refusals += 1;
        }
        if !refused.note.is_empty() {
            crate::log::warn(&format!("{} refused job {id}: {}", peer.short(), refused.note));
            self.note(id, refused.note.clone());
        }
        self.place(place::Event::Result { job: id, peer, outcome: Outcome::Refused(reason) });
    }

    pub(super) fn cancel_remote(&mut self, job: JobId, peer: NodeId) {
        self.send(peer, frame::Kind::Cancel(pool::Cancel { id: job.0 }));
    }

    pub(super) fn note(&mut self, id: JobId, text: String) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.note = text;
        }
    }

    /// One part is done; when all are, the wrapper hears of it.
    fn done(&mut self, id: JobId, peer: NodeId, result: &mut pool::Result) {
        let Some(job) = self.forget_job(id) else { return };
        let source = self.source_path(&job);
        let cpu_ms = (result.cpu_us / 1000) as u32;
        if self.predictions.len() > 200_000 {
            self.predictions.clear();
        }
        self.predictions.insert(source.clone(), (cpu_ms.max(1), result.max_rss_bytes));
        self.totals.remote += 1;
        self.record_remote(&job, &source, peer, result);
        self.build_remote(&job, &source, peer, result);
        let ask_id = job.ask;
        let Some(ask) = self.asks.get_mut(&ask_id) else { return };
        ask.jobs.retain(|j| *j != id);
        ask.parts[job.part] =
            Some((result.value, std::mem::take(&mut result.stdout), std::mem::take(&mut result.stderr)));
        if ask.parts.iter().any(Option::is_none) {
            return;
        }
        // A driver says some things once per command, which is once per part now; only the whole command says it right.
        let spoke = ask.parts.iter().flatten().any(|(_, out, err)| !out.is_empty() || !err.is_empty());
        if ask.parts.len() > 1 && spoke && !ask.compile.no_fallback {
            return self.here(ask_id, Reason::MultipleSources);
        }
        let Some(mut ask) = self.asks.remove(&ask_id) else { return };
        self.build_parts_done(std::mem::take(&mut ask.mark));
        let mut reply = (0, Vec::new(), Vec::new());
        for (exit, stdout, stderr) in ask.parts.into_iter().flatten() {
            reply.0 = reply.0.max(exit);
            reply.1.extend(stdout);
            reply.2.extend(stderr);
        }
        self.conns.remove(&ask.conn);
        let _ = ask.replies.send(ipc::Reply::Done { exit: reply.0, stdout: reply.1, stderr: reply.2 });
    }
}

/// Absolute physical paths of the outputs that the plan names.
fn known_outputs(tree: &Tree, plan: &Plan, cwd: &Path, dirs: &[(PathBuf, Vec<Vec<u8>>)]) -> Vec<(PathBuf, Manner)> {
    plan.outputs
        .iter()
        .filter_map(|o| {
            let spelled = cwd.join(&o.path);
            let name = spelled.file_name()?;
            let parent = spelled.parent()?;
            // Nearly always spelled as it is: without a dot and a link.
            let parent = match tree.known_dir_as_spelled(bytes::of(parent)) {
                Some(dir) => tree.dir(dir).path.clone(),
                None => parent.canonicalize().ok()?,
            };
            dirs.iter().any(|(d, _)| *d == parent).then(|| (parent.join(name), o.manner))
        })
        .collect()
}
