//! A job's end: results, the last look at the inputs, and the outputs put in place. What of a result is taken is `accept`'s
//! business, and what a worker may ask for that of `faults`.

use std::sync::Arc;

use potluck_model::depfile::Unlike;
use potluck_model::ids::{JobId, NodeId};
use potluck_model::place::{self, Outcome};
use potluck_model::plan::Role;
use potluck_model::reason::Reason;
use potluck_wire::ipc;
use potluck_wire::pool::{self, frame};

use super::Core;
use super::accept::Unfit;
use super::job::Job;
use crate::bytes;
use crate::outputs::{self, Change, Folders};
use crate::tree::{FileId, Found, Listed, Record, Want};

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
        let outcome = self.judge(id, peer, &mut result);
        self.drop_contents(peer, &result);
        outcome
    }

    fn judge(&mut self, id: JobId, peer: NodeId, result: &mut pool::Result) -> Option<Outcome> {
        if !result.faults.is_empty() || !result.written.is_empty() || result.faults_overflow {
            return self.faulted(id, peer, result);
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
        let accepted = match self.accept(id, peer, result) {
            Ok(accepted) => accepted,
            Err(why) => return Some(self.unfit(id, peer, why)),
        };
        let kept = self.sampled(id, peer, result, &accepted.contents);
        let is_careful = self.jobs.get(&id).is_some_and(|job| job.careful);
        let careful = is_careful.then(|| super::audit::digests(&accepted.contents));
        let changes = accepted.changes();
        if let Some(outcome) = self.inputs_changed(id, peer, &changes) {
            return Some(outcome);
        }
        if let Some(digests) = careful
            && let Some(outcome) = self.second_opinion(id, peer, result, &digests)
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
            if let Err(reason) = outputs::check_target(&mut folders, &change.path, change.manner) {
                return Some(Outcome::Home(reason));
            }
        }
        if let Err(error) = outputs::apply_all(&mut folders, &changes) {
            self.note(id, format!("an output could not be written: {error}"));
            return Some(Outcome::Home(Reason::DiskFull));
        }
        self.learn_by_products(id, &changes);
        self.made_by(peer, &changes);
        self.keep_sample(id, peer, kept);
        self.done(id, peer, result);
        Some(Outcome::Ok)
    }

    /// A result that is not taken: the compile runs here, and who lied is remembered for it.
    fn unfit(&mut self, id: JobId, peer: NodeId, why: Unfit) -> Outcome {
        match why {
            Unfit::Lie(why) => {
                crate::log::warn(&format!("outputs of {} are refused: {why}", peer.short()));
                self.mark_bad(peer, why.clone());
                self.note(id, why);
                Outcome::Home(Reason::BadOutput)
            }
            Unfit::Here(reason, why) => {
                self.note(id, why);
                Outcome::Home(reason)
            }
        }
    }

    /// Whether the job read something else than what is there now. Then it runs again, or here.
    fn inputs_changed(&mut self, id: JobId, peer: NodeId, changes: &[Change]) -> Option<Outcome> {
        let job = self.jobs.get(&id)?;
        let (config, want, before) = (job.config, job.want.clone(), job.fingerprint_at(peer));
        // A stat since it was sent, perhaps at the end of another job, tells all that it may have seen otherwise than a
        // compiler here would have.
        let (_, now) = self.tree.closure_since(config, &want, job.sent_in + 1);
        let mut changed = now != before;
        let mut unpredicted = Vec::new();
        // What the compiler says that it opened, where it says so.
        if let Some(list) = changes.iter().find(|change| change.role == Role::Dependencies) {
            let listed = match self.read_list(id, peer, &want, &list.content) {
                Ok(listed) => listed,
                Err(Unfit::Lie(_)) if changed => Listed::default(),
                Err(why) => return Some(self.unfit(id, peer, why)),
            };
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
    pub(super) fn again(&mut self, _id: JobId) -> Outcome {
        self.totals.retries += 1;
        Outcome::Retry
    }

    /// What a dependency file lists, if it is in the form that the command's compiler gives it and no lie: a file that
    /// was opened although this peer was never sent it, or one that was not although the compiler opens it in any case.
    fn read_list(&mut self, id: JobId, peer: NodeId, want: &Want, text: &[u8]) -> Result<Listed, Unfit> {
        let job = self.jobs.get(&id);
        let ask = job.and_then(|job| self.asks.get(&job.ask));
        let (Some(job), Some(ask)) = (job, ask) else { return Ok(Listed::default()) };
        let (closure, plans) = (Arc::clone(&job.closure), Arc::clone(&ask.plans));
        let listed = match self.tree.listed(&closure, want, text, &plans[job.part].deps_rule) {
            Ok(listed) => listed,
            Err(Unlike::Lie(why)) => return Err(Unfit::Lie(why.to_owned())),
            Err(Unlike::Unclear) => {
                let why = "its dependency list cannot be read for certain".to_owned();
                return Err(Unfit::Here(Reason::DependencyNames, why));
            }
        };
        let show = |file: &FileId| self.tree.file_path(*file).display().to_string();
        if let Some(peer) = self.peers.get(&peer) {
            if let Some(unsent) = listed.beyond.iter().find(|&&file| !peer.image.knows(&self.tree, file)) {
                let why = format!("its dependency list names {}, which it was never sent", show(unsent));
                return Err(Unfit::Lie(why));
            }
            if let Some(hidden) = listed.hidden.first() {
                return Err(Unfit::Lie(format!("its dependency list hides {}", show(hidden))));
            }
        }
        match &listed.odd {
            Some(name) => {
                Err(Unfit::Here(Reason::DependencyNames, format!("it needs a file named {}", bytes::show(name))))
            }
            None => Ok(listed),
        }
    }

    /// What this node has put beside an output it may put there again.
    fn learn_by_products(&mut self, id: JobId, changes: &[Change]) {
        if let Some(job) = self.jobs.get(&id)
            && changes.iter().any(|change| change.role == Role::Beside)
        {
            let source = self.source_path(job);
            for change in changes.iter().filter(|change| change.role == Role::Beside) {
                self.by_products.learn(&change.path, &source);
            }
        }
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
