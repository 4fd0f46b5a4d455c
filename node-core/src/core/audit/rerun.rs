//! A compile once more on a peer: an ordinary job, for which nobody waits and whose outputs are only looked at.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use potluck_model::ids::{Digest, JobId, NodeId, ToolchainId};
use potluck_model::limits::FAULT_RETRIES_MAX;
use potluck_model::place::{self, Hosts, JobSpec, Outcome, Work};
use potluck_model::plan::Plan;
use potluck_model::reason::Reason;
use potluck_model::trust::{At, Class, class_of};
use potluck_wire::{ipc, pool};
use tokio::sync::mpsc;

use super::super::job::Job;
use super::super::submit::Ask;
use super::super::{Core, Event};
use super::{Active, Answer, Case, Doing, News, hashed, without_contents};
use crate::toolchain::Compiler;
use crate::tree::{Closure, ConfigId, Want};

/// Everything that it takes to ask the same again.
pub(super) struct Seed {
    compile: Arc<ipc::Compile>,
    compiler: Arc<Compiler>,
    plans: Arc<[Plan]>,
    part: usize,
    steering: Digest,
    pub(super) key: Digest,
    pub(super) toolchain: ToolchainId,
    /// Its files as they were: a compiler that was updated since makes other objects, and keeps its number for a while.
    tools: Arc<Closure>,
    pub(super) want: Arc<Want>,
    pub(super) config: ConfigId,
    pub(super) closure: Arc<Closure>,
    /// Of the inputs as they were: with another one it is not the same compile any more.
    pub(super) fingerprint: u64,
    args: Vec<OsString>,
    dirs: Vec<(PathBuf, Vec<Vec<u8>>)>,
    extra_whiteouts: Vec<PathBuf>,
    clock_s: i64,
}

impl Seed {
    /// The environment that it has now: whether PWD goes along is a question to the disk.
    pub(super) fn env(&self) -> Vec<Vec<u8>> {
        super::super::submit::job_env(&self.compile, self.compiler.honours_epoch, self.clock_s)
    }
}

impl Core {
    /// Whether a compile differs from run to run by its nature.
    pub(in super::super) fn class_of(&self, job: &Job, ask: &Ask) -> Option<Class> {
        let compiler = ask.compiler.as_ref()?;
        let clock_shows = job.closure.time_macro && !super::super::submit::is_clock_told(compiler, &ask.compile);
        class_of(compiler.family, &ask.plans[job.part].args, clock_shows)
    }

    /// What it takes to ask again what this job asked, with the inputs as they are known to be now.
    pub(super) fn seed_of(&mut self, id: JobId) -> Option<Seed> {
        let toolchain = self.jobs.get(&id)?.toolchain?;
        let tools = self.toolchain_closure(toolchain)?;
        let job = self.jobs.get(&id)?;
        let ask = self.asks.get(&job.ask)?;
        let mut seed = Seed {
            compile: Arc::clone(&ask.compile),
            compiler: Arc::clone(ask.compiler.as_ref()?),
            plans: Arc::clone(&ask.plans),
            part: job.part,
            steering: ask.steering,
            key: ask.key,
            toolchain,
            tools,
            want: Arc::clone(&job.want),
            config: job.config,
            closure: Arc::clone(&job.closure),
            fingerprint: job.fingerprint,
            args: job.args.clone(),
            dirs: job.dirs.clone(),
            extra_whiteouts: job.extra_whiteouts.clone(),
            clock_s: job.clock_s,
        };
        self.learn_more(&mut seed);
        Some(seed)
    }

    /// Whether the compiler of the case that is run is what it was. Another closure stands for other files.
    pub(super) fn has_same_tools(&mut self) -> bool {
        let Some(active) = &self.audit.active else { return false };
        let (toolchain, before) = (active.case.seed.toolchain, Arc::clone(&active.case.seed.tools));
        self.toolchain_closure(toolchain).is_some_and(|now| Arc::ptr_eq(&now, &before))
    }

    /// More may be known by now of what it opens. Its inputs are the same: that was just looked at.
    pub(super) fn learn_more(&mut self, seed: &mut Seed) {
        let learned = self.tree.learned(seed.config);
        if seed.want.learned_max != learned {
            Arc::make_mut(&mut seed.want).learned_max = learned;
            (seed.closure, seed.fingerprint) = self.tree.closure_expected(seed.config, &seed.want);
        }
    }

    /// Has a case compiled once more by one of these.
    pub(super) fn rerun(&mut self, case: Box<Case>, hosts: Hosts) {
        let (ask_id, job_id) = (self.next_job, JobId(self.next_job + 1));
        self.next_job += 2;
        let seed = &case.seed;
        // Nobody hears of it, and no connection stands for it.
        let (replies, _) = mpsc::unbounded_channel();
        let ask = Ask {
            conn: 0,
            replies,
            compile: Arc::clone(&seed.compile),
            compiler: Some(Arc::clone(&seed.compiler)),
            plans: Arc::clone(&seed.plans),
            parts: vec![None; seed.plans.len()],
            jobs: vec![job_id],
            asked_at: Instant::now(),
            steering: seed.steering,
            key: seed.key,
            mark: super::super::builds::Mark::default(),
        };
        let job = Job {
            toolchain: Some(seed.toolchain),
            extra_whiteouts: seed.extra_whiteouts.clone(),
            clock_s: seed.clock_s,
            audit: Some(case.number),
            ..Job::new(
                (ask_id, seed.part),
                (Arc::clone(&seed.want), seed.config),
                (Arc::clone(&seed.closure), seed.fingerprint),
                self.tree.batch(),
                seed.args.clone(),
                seed.dirs.clone(),
            )
        };
        let predicted = self.predictions.get(&case.source).copied().unwrap_or((0, 0));
        let compile = place::Compile {
            toolchain: seed.toolchain,
            cpu_ms: predicted.0,
            memory_bytes: predicted.1,
            missing_bytes: Vec::new(),
            may_local: false,
        };
        self.asks.insert(ask_id, ask);
        self.jobs.insert(job_id, job);
        self.audit.active = Some(Active { case, doing: Doing::Elsewhere(job_id) });
        let work = Work::Chosen(compile, hosts, Reason::NoPeers);
        self.place(place::Event::JobReady(JobSpec { job: job_id, work }));
    }

    /// A job of a case must see the inputs as they were. False: they are others now.
    pub(in super::super) fn is_still_the_same(&mut self, id: JobId, fingerprint: u64) -> bool {
        let is_stale = |job: &Job| job.audit.is_some() && job.fingerprint != fingerprint;
        if !self.jobs.get(&id).is_some_and(is_stale) {
            return true;
        }
        self.end_rerun(id);
        self.place(place::Event::Cancel { job: id });
        self.give_up("its inputs have changed");
        false
    }

    /// The result of a job of a case is complete.
    pub(in super::super) fn rerun_ended(&mut self, id: JobId, peer: NodeId, result: pool::Result) {
        let contents = self.take_contents(peer, &result);
        self.count_run(result.end, "audit");
        let Some(job) = self.jobs.get(&id) else { return };
        let (config, want, before, sent_in) = (job.config, Arc::clone(&job.want), job.fingerprint, job.sent_in);
        let (tries, asked) = (job.tries, self.message_of(id));
        let is_same = self.tree.closure_since(config, &want, sent_in + 1).1 == before && self.has_same_tools();
        let is_faulted = !result.faults.is_empty() || !result.written.is_empty() || result.faults_overflow;
        if is_faulted
            && is_same
            && tries <= FAULT_RETRIES_MAX
            && self.faulted(id, peer, &result) == Some(Outcome::Retry)
        {
            return self.rerun_again(id, peer);
        }
        self.end_rerun(id);
        self.place(place::Event::Result { job: id, peer, outcome: Outcome::Ok });
        let Some(active) = &mut self.audit.active else { return };
        let exited = result.end == pool::EndKind::EndExited as i32;
        let same_env = asked.as_ref().is_none_or(|asked| asked.env == active.case.answers[0].asked.env);
        if !is_same || !same_env {
            return self.give_up("its inputs have changed");
        }
        let (false, true, Some(asked)) = (is_faulted, exited, asked) else {
            return self.try_later();
        };
        active.doing = Doing::Reading;
        let answer = Answer { peer, asked, came: without_contents(&result) };
        let (number, me) = (active.case.number, self.membership.identity().id());
        active.case.answers.push(Answer { peer, asked: answer.asked.clone(), came: answer.came.clone() });
        let events = self.events.clone();
        self.runtime.spawn_blocking(move || {
            let (came, _) = hashed(me, &answer, &contents);
            let _ = events.send(Event::Audit(News::Ran(number, At::Peer(peer), came)));
        });
    }

    /// The peer lacked files, which are known now.
    fn rerun_again(&mut self, id: JobId, peer: NodeId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.parked {
            // Nobody asks the compiler for a sample.
            self.end_rerun(id);
            self.place(place::Event::Cancel { job: id });
            return self.try_later();
        }
        let learned = self.tree.learned(job.config);
        Arc::make_mut(&mut job.want).learned_max = learned;
        let (config, want) = (job.config, Arc::clone(&job.want));
        let (closure, fingerprint) = self.tree.closure_expected(config, &want);
        if let Some(job) = self.jobs.get_mut(&id) {
            (job.closure, job.fingerprint) = (closure, fingerprint);
        }
        self.place(place::Event::Result { job: id, peer, outcome: Outcome::Retry });
        self.send_job(id, peer);
    }

    /// Nobody took it.
    pub(in super::super) fn rerun_failed(&mut self, id: JobId) {
        self.end_rerun(id);
        self.try_later();
    }

    fn end_rerun(&mut self, id: JobId) {
        if let Some(job) = self.forget_job(id) {
            self.asks.remove(&job.ask);
        }
    }

    /// The run came to nothing; the case is tried again, and after some tries without other peers.
    pub(super) fn try_later(&mut self) {
        if let Some(Active { mut case, .. }) = self.audit.active.take() {
            case.tries += 1;
            self.audit.waiting.push_back(case);
        }
    }

    /// The case cannot be judged any more.
    pub(super) fn give_up(&mut self, why: &'static str) {
        if self.audit.active.take().is_some() {
            self.audit.drop_case(why);
        }
    }
}
