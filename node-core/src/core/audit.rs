//! Whether what peers return is right: a sample of their results is compiled again when no build needs the cores, on another
//! peer or here, and compared. What follows is decided by `model::trust`; here are the samples, the runs and what is told.
//!
//! `rerun`: once more on a peer. `here`: once more on this PC, in a sandbox like everybody's. `careful`: two peers before a
//! result is used. `evidence`: what members tell each other. `made`: who made which file. `kept`: what outlives this node.
//! `show`: what is shown, and the calls.

mod careful;
mod evidence;
mod here;
mod kept;
mod made;
mod rerun;
mod show;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};

use std::time::Duration;

use potluck_model::ids::{Digest, JobId, NodeId};
use potluck_model::limits::{SAMPLE_AGE_MAX, SAMPLE_FIRST, SAMPLES_MAX};
use potluck_model::place;
use potluck_model::reason::Reason;
use potluck_model::trust::{self, Accusations, At, Next, Quarantine, Reach, Run, Sampler, Standing, Verdict, Why};
use potluck_wire::pool::{self, HarvestKind};
use ring::rand::{SecureRandom, SystemRandom};

use super::peers::Stage;
use super::{Core, Event};
use crate::signed;
use rerun::Seed;

pub(super) use careful::{First, digests};
pub(super) use evidence::ABILITY as EVIDENCE_ABILITY;

/// Said by a node that signs its results.
pub(super) const SIGNED_ABILITY: &str = "signed-1";
/// A sample goes to another peer when for this long no job has waited for a place.
const QUIET_ELSEWHERE: Duration = Duration::from_secs(1);
/// It is compiled here when for this long no job at all was there.
const QUIET_HERE: Duration = Duration::from_secs(3);
/// Tries to have one sample compiled elsewhere.
const TRIES_MAX: u32 = 2;
/// Commands that turned out not to be deterministic.
const UNSTEADY_MAX: usize = 4096;
/// Samples of one peer that are kept however many peers there are.
const SAMPLES_OF_PEER_MIN: usize = 2;

/// What comes back to the core's thread.
pub enum News {
    /// The contents of a sample are hashed: what came, and whether it is what was signed.
    Sampled(Box<Case>, Digest, bool),
    /// A further run of the case with this number is over.
    Ran(u64, At, Digest),
    /// The sandbox here says something.
    Here(u64, Box<here::Word>),
}

/// One compile that is looked at.
pub struct Case {
    number: u64,
    since: Duration,
    source: PathBuf,
    seed: Seed,
    runs: Vec<Run>,
    /// What peers were asked and what they answered, without contents.
    answers: Vec<Answer>,
    /// Tries elsewhere that came to nothing.
    tries: u32,
    /// This PC alone found it wrong, and waits for somebody who can confirm that.
    is_suspicion: bool,
}

/// One peer's answer.
struct Answer {
    peer: NodeId,
    asked: pool::Job,
    came: pool::Result,
}

/// A case that is being run.
struct Active {
    case: Box<Case>,
    doing: Doing,
}

#[derive(PartialEq)]
enum Doing {
    Elsewhere(JobId),
    Here,
    /// What came is being hashed.
    Reading,
}

/// Numbers for people.
#[derive(Default, Clone, serde::Serialize)]
struct Counts {
    /// Results that were compiled again and compared.
    compared: u64,
    /// Of them, where all runs agreed.
    agreed: u64,
    /// Compiles that differ from run to run.
    not_deterministic: u64,
    /// Cases in which it cannot be told who is wrong.
    unclear: u64,
    /// Samples that could not be compared, by reason.
    dropped: BTreeMap<&'static str, u64>,
    /// Evidence of others that was believed as far as one member's word goes, and that was ignored.
    evidence: u64,
    evidence_ignored: u64,
}

/// A result of a peer that has just been looked at, before it is put in place.
pub(super) struct Kept {
    result: pool::Result,
    contents: Vec<Option<Vec<u8>>>,
}

/// See the module.
pub(crate) struct Audit {
    sampler: Sampler,
    standings: BTreeMap<NodeId, Standing>,
    accusations: Accusations,
    /// Peers whose links know that they get nothing.
    aside: BTreeSet<NodeId>,
    waiting: VecDeque<Box<Case>>,
    /// Results of each peer that were to be sampled since none of it waited.
    seen: HashMap<NodeId, u64>,
    active: Option<Active>,
    here: here::Here,
    next_look: Option<Duration>,
    /// When a job last waited for a place, and when there last was any.
    waited_at: Duration,
    busy_at: Duration,
    counts: Counts,
    unsteady: HashSet<Digest>,
    made: made::Made,
    findings: Vec<kept::Finding>,
    evidence: evidence::Sent,
    kept: kept::Keeper,
    next_number: u64,
}

impl Audit {
    pub(super) fn new(state: &Path) -> Self {
        let mut secret = [0; 32];
        // Without randomness this node has no key either; a fixed secret then only makes samples predictable.
        let _ = SystemRandom::new().fill(&mut secret);
        let kept::Kept { standings, findings } = kept::read(state);
        Self {
            sampler: Sampler::new(secret),
            standings,
            accusations: Accusations::default(),
            aside: BTreeSet::new(),
            waiting: VecDeque::new(),
            seen: HashMap::new(),
            active: None,
            here: here::Here::default(),
            next_look: None,
            waited_at: Duration::ZERO,
            busy_at: Duration::ZERO,
            counts: Counts::default(),
            unsteady: HashSet::new(),
            made: made::Made::default(),
            findings,
            evidence: evidence::Sent::default(),
            kept: kept::Keeper::new(state),
            next_number: 1,
        }
    }

    /// When the next look is due: only while something could be done and waits for quiet.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.next_look
    }

    /// Samples that are still to be compared.
    fn open_cases(&self) -> usize {
        self.waiting.iter().filter(|case| !case.is_suspicion).count()
    }

    fn standing(&mut self, peer: NodeId) -> &mut Standing {
        self.standings.entry(peer).or_default()
    }

    fn drop_case(&mut self, why: &'static str) {
        *self.counts.dropped.entry(why).or_default() += 1;
    }
}

fn now_ms() -> u64 {
    Core::clock_us() / 1000
}

impl Core {
    /// Why this peer gets no jobs, if it gave a wrong result.
    pub(super) fn quarantine_of(&self, peer: NodeId) -> Option<&Quarantine> {
        self.audit.standings.get(&peer)?.quarantine(now_ms())
    }

    /// Whether this result is one of the sample; then what came is kept until the outputs are in place.
    pub(super) fn sampled(
        &mut self,
        id: JobId,
        peer: NodeId,
        result: &pool::Result,
        contents: &[Option<Vec<u8>>],
    ) -> Option<Kept> {
        let job = self.jobs.get(&id)?;
        if job.careful || job.is_shared {
            return None;
        }
        let (ask, toolchain) = (self.asks.get(&job.ask)?, job.toolchain?);
        let hello = self.peers.get(&peer)?.hello.as_ref()?;
        let standing = self.audit.standings.entry(peer).or_default();
        standing.made_with(toolchain, &hello.app_version);
        let rate = standing.rate(result.signed.is_some());
        if !self.audit.sampler.takes(peer, id, rate) {
            return None;
        }
        if self.audit.unsteady.contains(&ask.key) || self.class_of(job, ask).is_some() {
            return None;
        }
        // While a build goes on nothing is compared: of all results that were to be, each has the same chance to be.
        let peers = self.audit.waiting.iter().map(|case| case.answers[0].peer).collect::<HashSet<_>>().len().max(1);
        let most = (SAMPLES_MAX / peers).clamp(SAMPLES_OF_PEER_MIN, SAMPLE_FIRST as usize);
        let of_peer: Vec<usize> =
            (0..self.audit.waiting.len()).filter(|n| self.audit.waiting[*n].answers[0].peer == peer).collect();
        let seen = self.audit.seen.entry(peer).or_default();
        *seen = if of_peer.is_empty() { 1 } else { *seen + 1 };
        if of_peer.len() >= most {
            let seen = *seen;
            // Another number than above: that one has been decided.
            let lot = JobId(id.0 ^ 1 << 63);
            if !self.audit.sampler.takes(peer, lot, of_peer.len() as f64 / seen as f64) {
                return None;
            }
            self.audit.waiting.remove(of_peer[(id.0 % of_peer.len() as u64) as usize]);
            self.audit.drop_case("replaced by a later one");
        } else if self.audit.waiting.len() >= SAMPLES_MAX {
            self.audit.waiting.pop_front();
            self.audit.drop_case("replaced by a later one");
        }
        Some(Kept { result: without_contents(result), contents: contents.to_vec() })
    }

    /// The outputs of a sampled result are in place: it waits for its turn.
    pub(super) fn keep_sample(&mut self, id: JobId, peer: NodeId, kept: Option<Kept>) {
        let Some(Kept { result, contents }) = kept else { return };
        let Some(case) = self.case_of(id, peer, result) else { return };
        if self.audit.waiting.is_empty() {
            (self.audit.waited_at, self.audit.busy_at) = (self.now(), self.now());
        }
        let events = self.events.clone();
        let me = self.membership.identity().id();
        self.runtime.spawn_blocking(move || {
            let (came, is_signed) = hashed(me, &case.answers[0], &contents);
            let _ = events.send(Event::Audit(News::Sampled(Box::new(case), came, is_signed)));
        });
    }

    fn case_of(&mut self, id: JobId, peer: NodeId, came: pool::Result) -> Option<Case> {
        let asked = self.message_of(id)?;
        let seed = self.seed_of(id)?;
        let source = self.source_path(self.jobs.get(&id)?);
        let number = self.audit.next_number;
        self.audit.next_number += 1;
        let answers = vec![Answer { peer, asked, came }];
        Some(Case { number, since: self.now(), source, seed, runs: Vec::new(), answers, tries: 0, is_suspicion: false })
    }

    /// These files were just written with what a peer returned.
    pub(super) fn made_by(&mut self, peer: NodeId, changes: &[crate::outputs::Change]) {
        self.audit.made.note(peer, changes, now_ms());
    }

    pub(super) fn audit_news(&mut self, news: News) {
        match news {
            News::Sampled(mut case, came, is_signed) => {
                let answer = &case.answers[0];
                if answer.came.signed.is_some() && !is_signed {
                    // It signed something else than it sent: that is no accident of a compiler.
                    let (peer, why) = (answer.peer, "its signature is not of what it sent".to_owned());
                    self.mark_bad(peer, why);
                    self.audit.standing(peer).doubt();
                }
                case.runs.push(Run { at: At::Peer(case.answers[0].peer), came });
                self.audit.waiting.push_back(case);
            }
            News::Ran(number, at, came) => {
                if self.audit.active.as_ref().is_some_and(|active| active.case.number == number)
                    && let Some(Active { mut case, .. }) = self.audit.active.take()
                {
                    case.runs.push(Run { at, came });
                    self.audit.waiting.push_front(case);
                }
            }
            News::Here(session, word) => self.here_says(session, *word),
        }
    }

    /// Once a batch: the next step of a case, when nobody else wants the cores for it.
    pub(super) fn audit_tick(&mut self) {
        let now = self.now();
        self.audit.next_look = None;
        self.keep_audit(now);
        if self.audit.waiting.is_empty() && self.audit.active.is_none() {
            return self.here_rests(now);
        }
        let own = usize::from(matches!(self.audit.active, Some(Active { doing: Doing::Elsewhere(_), .. })));
        if self.submitter.waiting() > 0 && own == 0 {
            self.audit.waited_at = now;
        }
        if self.submitter.unfinished() > own {
            self.audit.busy_at = now;
        }
        if self.audit.active.is_some() {
            return self.here_late(now);
        }
        let before = self.audit.waiting.len();
        self.audit.waiting.retain(|case| now.saturating_sub(case.since) < SAMPLE_AGE_MAX);
        for _ in self.audit.waiting.len()..before {
            self.audit.drop_case("too old");
        }
        for at in 0..self.audit.waiting.len() {
            let case = &self.audit.waiting[at];
            let step = trust::next(&case.runs, self.reach_of(case));
            let quiet = match step {
                Next::Done(_) => true,
                Next::Other | Next::Again(_) => now.saturating_sub(self.audit.waited_at) >= QUIET_ELSEWHERE,
                Next::Here => now.saturating_sub(self.audit.busy_at) >= QUIET_HERE,
            };
            // Nobody can run it now; perhaps somebody comes.
            let is_hopeless = match step {
                Next::Done(Verdict::Nobody) => true,
                Next::Done(Verdict::Wrong { confirmed: false, .. }) => case.is_suspicion,
                _ => false,
            };
            if is_hopeless {
                continue;
            }
            self.audit.next_look = Some(now + QUIET_ELSEWHERE);
            if quiet && let Some(case) = self.audit.waiting.remove(at) {
                return self.step(case, step);
            }
        }
    }

    fn step(&mut self, case: Box<Case>, step: Next) {
        match step {
            Next::Here => self.run_case_here(case),
            Next::Other => {
                let ran = case.runs.iter().filter_map(|r| if let At::Peer(peer) = r.at { Some(peer) } else { None });
                let hosts = place::Hosts::Except(ran.chain(self.audit.aside.iter().copied()).collect());
                self.rerun(case, hosts);
            }
            Next::Again(peer) => self.rerun(case, place::Hosts::Only(vec![peer])),
            Next::Done(verdict) => self.settle(case, verdict),
        }
    }

    fn reach_of(&self, case: &Case) -> Reach {
        let has_run = |peer: &NodeId| case.runs.iter().any(|run| run.at == At::Peer(*peer));
        let can = |(id, peer): (&NodeId, &super::peers::Peer)| {
            peer.link.is_some()
                && peer.held.is_empty()
                && matches!(peer.toolchains.get(&case.seed.toolchain), Some(Stage::Ready))
                && !has_run(id)
                && self.quarantine_of(*id).is_none()
        };
        Reach { here: self.can_run_here(), others: case.tries < TRIES_MAX && self.peers.iter().any(can) }
    }

    /// A case is over.
    fn settle(&mut self, mut case: Box<Case>, verdict: Verdict) {
        let peers: BTreeSet<NodeId> =
            case.runs.iter().filter_map(|run| if let At::Peer(peer) = run.at { Some(peer) } else { None }).collect();
        self.audit.counts.compared += u64::from(!case.is_suspicion);
        self.audit.kept.touch();
        match verdict {
            Verdict::Agree => {
                self.audit.counts.agreed += 1;
                peers.into_iter().for_each(|peer| self.audit.standing(peer).agrees());
            }
            Verdict::NotDeterministic => {
                self.audit.counts.not_deterministic += 1;
                if self.audit.unsteady.len() >= UNSTEADY_MAX {
                    self.audit.unsteady.clear();
                }
                self.audit.unsteady.insert(case.seed.key());
                crate::log::info(&format!(
                    "{} differs from run to run: it is not compared any more",
                    case.source.display()
                ));
            }
            Verdict::Unclear => {
                self.audit.counts.unclear += 1;
                peers.into_iter().for_each(|peer| self.audit.standing(peer).doubt());
            }
            Verdict::Wrong { peer, confirmed } => {
                self.found_wrong(&case, peer, confirmed);
                if !confirmed {
                    // Whoever comes within its time may still confirm it.
                    case.is_suspicion = true;
                    self.audit.waiting.push_back(case);
                }
            }
            Verdict::Nobody => self.audit.drop_case("nobody could compile it again"),
        }
    }

    /// A peer's result is wrong, as far as can be told.
    fn found_wrong(&mut self, case: &Case, peer: NodeId, confirmed: bool) {
        let why = if confirmed { Why::Confirmed } else { Why::Alone };
        match self.quarantine_of(peer).map(|q| q.why.clone()) {
            None => self.put_aside(peer, why, Some(&case.source)),
            Some(Why::Alone) if confirmed => self.confirm(peer),
            Some(_) => return,
        }
        if confirmed && let Some(answer) = case.answers.iter().find(|answer| answer.peer == peer) {
            self.tell_evidence(peer, answer);
        }
    }

    /// From now on this peer gets no jobs; what it runs for this PC goes elsewhere.
    fn put_aside(&mut self, peer: NodeId, why: Why, source: Option<&Path>) {
        let now_ms = now_ms();
        self.audit.standing(peer).put_aside(why.clone(), now_ms);
        self.note_finding(peer, why, source, now_ms);
        self.audit.kept.touch_now();
        self.audit.waiting.retain(|case| case.answers[0].peer != peer);
        let out: Vec<JobId> = self.jobs.iter().filter(|(_, job)| job.peer == Some(peer)).map(|(id, _)| *id).collect();
        for id in out {
            self.cancel_remote(id, peer);
        }
        if let Some(known) = self.peers.get_mut(&peer).filter(|known| known.link.is_some()) {
            known.image_ready = false;
            known.toolchains.clear();
            if let Some(hello) = &mut known.hello {
                (hello.slots, hello.not_serving) = (0, show::WRONG.to_owned());
            }
            self.audit.aside.insert(peer);
            self.place(place::Event::PeerDown { peer });
        }
        self.watch.touch();
    }

    /// A peer whose link begins: whether it is one of those that get nothing.
    pub(super) fn is_aside(&mut self, peer: NodeId) -> Option<&'static str> {
        let holds = self.quarantine_of(peer).is_some();
        if holds {
            self.audit.aside.insert(peer);
        } else {
            self.audit.aside.remove(&peer);
        }
        holds.then_some(show::WRONG)
    }

    /// Why a job has nobody to go to, where those who could are put aside.
    pub(super) fn why_alone(&self, reason: Reason) -> Reason {
        if reason == Reason::NoPeers && !self.audit.aside.is_empty() { Reason::Quarantined } else { reason }
    }

    /// Quarantines that are over: the link is made anew, and with it what was promised over it.
    fn end_quarantines(&mut self) {
        let now_ms = now_ms();
        let holds = |peer: &NodeId| self.audit.standings.get(peer).is_some_and(|s| s.quarantine(now_ms).is_some());
        let over: Vec<NodeId> = self.audit.aside.iter().copied().filter(|peer| !holds(peer)).collect();
        for peer in over {
            self.audit.aside.remove(&peer);
            self.close_link(peer);
        }
    }
}

/// What came without what it was made of: names, modes and digests stay.
fn without_contents(result: &pool::Result) -> pool::Result {
    let outputs = result.outputs.iter();
    let outputs = outputs.map(|output| pool::Harvested {
        dir: output.dir,
        path: output.path.clone(),
        kind: output.kind,
        mode: output.mode,
        size: output.size,
        note: output.note.clone(),
        digest: output.digest.clone(),
        ..pool::Harvested::default()
    });
    pool::Result {
        id: result.id,
        end: result.end,
        value: result.value,
        stdout: result.stdout.clone(),
        stderr: result.stderr.clone(),
        outputs: outputs.collect(),
        faults: result.faults.clone(),
        written: result.written.clone(),
        faults_overflow: result.faults_overflow,
        signed: result.signed.clone(),
        ..pool::Result::default()
    }
}

/// The digest of what really came, whatever the result says of it; and whether its signature is of that.
fn hashed(me: NodeId, answer: &Answer, contents: &[Option<Vec<u8>>]) -> (Digest, bool) {
    let digests: Vec<Option<Digest>> = contents.iter().map(|c| c.as_deref().map(Digest::of)).collect();
    let is_signed = signed::has_contents(&answer.came, &digests)
        && signed::is_signed(me, answer.peer, signed::asked(&answer.asked), &answer.came);
    (seen(&answer.came, &digests), is_signed)
}

/// What came, by digests of this node's own.
fn seen(result: &pool::Result, digests: &[Option<Digest>]) -> Digest {
    let mut own = without_contents(result);
    for (output, digest) in own.outputs.iter_mut().zip(digests) {
        let is_file = output.kind == HarvestKind::HarvestFile as i32;
        output.digest = digest.filter(|_| is_file).map(|digest| digest.0.to_vec()).unwrap_or_default();
    }
    signed::came(&own)
}

/// The commands of two asks are the same if their keys are.
impl Seed {
    fn key(&self) -> Digest {
        self.key
    }
}
