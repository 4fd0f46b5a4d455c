//! What the share policy says, done: slots, jobs stopped, resumed or killed, and peers told why. Also what is shown of
//! sharing, and the time that was lent today.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use potluck_api::call::Call;
use potluck_api::view::{HeldReason, Helped, ShareState, ShareView};
use potluck_api::words::share as words;
use potluck_model::ids::{NodeId, ToolchainId};
use potluck_model::place::{self, WorkerEvent};
use potluck_model::share::{self, Act, Contradiction, JobMemory, State};
use potluck_wire::ipc;
use potluck_wire::pool::{self, frame};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Core, Replies};
use crate::guest::Command;
use crate::sharing::{Handle, Shared, Update, local_time, unix_ms};

/// What was lent is written down this often at most, and at the end: a crash loses a minute of thanks.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// Memory that is short so often ...
const SHORT_TIMES: usize = 3;
/// ... within this time needs the person.
const SHORT_WITHIN: Duration = Duration::from_secs(600);
/// Submitters in that file: a team has at most 200 PCs.
const LENT_TO_MAX: usize = 256;

/// The account of a day: a line of a hundred bytes for each of those.
const LENT_BYTES_MAX: u64 = 1 << 20;

/// Core time lent since midnight.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Lent {
    /// [`local_time::day`].
    day: i64,
    /// Microseconds by submitter.
    us: HashMap<String, LentTo>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct LentTo {
    name: String,
    us: u64,
}

/// Sharing as the core knows it.
pub(crate) struct Sharing {
    /// What holds.
    pub(crate) shared: Shared,
    handle: Handle,
    /// Jobs of others are stopped.
    pub(crate) stopped: bool,
    lent: Lent,
    lent_file: PathBuf,
    lent_kept: Instant,
    lent_is_new: bool,
    /// When memory began to be short, the last few times.
    short_of_memory: VecDeque<Instant>,
    /// What jobs took here lately.
    job_memory: JobMemory,
}

impl Sharing {
    pub(super) fn new(shared: Shared, handle: Handle, state: &std::path::Path) -> Self {
        let lent_file = state.join("lent.json");
        let lent: Option<Lent> = crate::store::read_json(&lent_file, LENT_BYTES_MAX);
        Self {
            shared,
            handle,
            stopped: false,
            lent: lent.unwrap_or_default(),
            lent_file,
            lent_kept: Instant::now(),
            lent_is_new: false,
            short_of_memory: VecDeque::new(),
            job_memory: JobMemory::default(),
        }
    }

    /// What the person chose of notifications.
    pub(super) fn notify(&self) -> potluck_model::notify::Settings {
        let notify = &self.shared.values.notify;
        potluck_model::notify::Settings {
            finished: notify.finished,
            finished_after: Duration::from_secs(notify.finished_after_s.into()),
            fell_back: notify.fell_back,
            joins: notify.joins,
            problems: notify.problems,
        }
    }

    /// Senses this PC now, not at the next turn.
    pub(super) fn look(&self) {
        self.handle.live.look();
    }

    /// Memory was short again and again lately (UX 2.9, M1).
    pub(super) fn is_short_of_memory(&self) -> bool {
        self.short_of_memory.len() >= SHORT_TIMES && self.short_of_memory[0].elapsed() < SHORT_WITHIN
    }

    fn note_memory(&mut self, before: &str) {
        if self.code() == "memory" && before != "memory" {
            self.short_of_memory.push_back(Instant::now());
            if self.short_of_memory.len() > SHORT_TIMES {
                self.short_of_memory.pop_front();
            }
        }
    }

    /// Why nothing is given, for peers; empty if something is.
    pub(super) fn code(&self) -> &'static str {
        code_of(&self.shared)
    }

    fn lend(&mut self, to: NodeId, name: String, us: u64) {
        let today = local_time::day(unix_ms());
        if self.lent.day != today {
            self.lent = Lent { day: today, us: HashMap::new() };
        }
        let id = to.to_string();
        if self.lent.us.len() >= LENT_TO_MAX && !self.lent.us.contains_key(&id) {
            return;
        }
        let entry = self.lent.us.entry(id).or_default();
        entry.us = entry.us.saturating_add(us);
        if !name.is_empty() {
            entry.name = name;
        }
        self.lent_is_new = true;
    }

    /// Milliseconds, and to whom, most first.
    fn lent_today(&self) -> (u64, Vec<String>) {
        if self.lent.day != local_time::day(unix_ms()) {
            return (0, Vec::new());
        }
        let mut to: Vec<&LentTo> = self.lent.us.values().collect();
        to.sort_by(|a, b| b.us.cmp(&a.us).then_with(|| a.name.cmp(&b.name)));
        let ms = to.iter().map(|to| to.us).sum::<u64>() / 1000;
        (ms, to.into_iter().map(|to| to.name.chars().take(64).collect()).collect())
    }

    fn keep_lent(&mut self) {
        if !std::mem::take(&mut self.lent_is_new) {
            return;
        }
        self.lent_kept = Instant::now();
        let text = serde_json::to_vec(&self.lent).unwrap_or_default();
        if let Err(error) = crate::store::write_whole(&self.lent_file, &text) {
            crate::log::warn(&format!("{}: {error}", self.lent_file.display()));
        }
    }
}

impl Core {
    /// A call that sharing answers; the answer follows its effect.
    pub(super) fn share_call(&mut self, call: Call, replies: Replies) {
        let _ = self.sharing.handle.calls.send((call, replies));
    }

    /// The policy decided anew.
    pub(super) fn share(&mut self, update: Update) {
        let Update { shared, answers } = update;
        let old = std::mem::replace(&mut self.sharing.shared, shared);
        let (before, act) = (code_of(&old), self.sharing.shared.decision.act);
        self.sharing.note_memory(before);
        // No job begins any more, and in the same instant those that run stand still.
        let slots = if self.team.serves() { self.sharing.shared.decision.slots } else { 0 };
        if slots < self.worker.slots() {
            self.work(WorkerEvent::Slots(slots));
        }
        let was_stopped = self.sharing.stopped;
        match act {
            Act::Stop => self.freeze(true),
            Act::Kill => {
                if self.worker.running() > 0 {
                    self.work(WorkerEvent::Reclaim);
                }
            }
            Act::Run => self.freeze(false),
            Act::Shed(keep) => {
                self.freeze(false);
                self.work(WorkerEvent::Shed(keep));
            }
        }
        if slots > self.worker.slots() {
            self.work(WorkerEvent::Slots(slots));
        }
        // Whether this node is a worker at all is part of the hello.
        if old.serving().is_ok() != self.sharing.shared.serving().is_ok() {
            let linked: Vec<NodeId> = self.peers.iter().filter(|(_, p)| p.link.is_some()).map(|(id, _)| *id).collect();
            linked.into_iter().for_each(|peer| self.close_link(peer));
        } else if before != self.sharing.code() || was_stopped != self.sharing.stopped {
            let linked: Vec<NodeId> = self.peers.iter().filter(|(_, p)| p.link.is_some()).map(|(id, _)| *id).collect();
            linked.into_iter().for_each(|peer| self.tell_credits(peer));
        }
        if before != self.sharing.code() {
            crate::log::info(&format!("sharing: {slots} slots {}", self.sharing.code()));
        }
        if !answers.is_empty() {
            let view = self.share_view();
            let short = words::short(&view.state, &clock(unix_ms()));
            for (replies, done) in answers {
                let answer = match done {
                    Ok(()) => json!({"ok": true, "short": short, "share": view}),
                    Err(error) => json!({"error": error}),
                };
                let _ = replies.send(ipc::Reply::Api { json: answer.to_string(), last: true });
            }
        }
    }

    fn freeze(&mut self, stop: bool) {
        if self.sharing.stopped != stop {
            self.sharing.stopped = stop;
            self.guests.tell_all(|| Command::Freeze(stop));
        }
    }

    /// The promise of now with its reason: also where the number is the same as before.
    pub(super) fn tell_credits(&mut self, peer: NodeId) {
        if self.serving().is_err() || !self.may_submit(peer) {
            return;
        }
        let slots = self.worker.share_of(peer).1;
        self.send_credits(peer, slots);
    }

    pub(super) fn send_credits(&mut self, peer: NodeId, slots: u32) {
        let offered = self.worker.slots();
        let (reason, stopped) = (self.sharing.code().to_owned(), self.sharing.stopped);
        self.send(peer, frame::Kind::Credits(pool::Credits { slots, offered, reason, stopped }));
    }

    /// A peer says what it gives now.
    pub(super) fn credits(&mut self, peer: NodeId, credits: pool::Credits) {
        let (mut held_now, mut changed) = (false, false);
        if let Some(known) = self.peers.get_mut(&peer) {
            known.offered = credits.offered;
            // For display, and from another PC.
            let held: String = credits.reason.chars().filter(char::is_ascii_graphic).take(32).collect();
            held_now = known.held.is_empty() && !held.is_empty();
            changed = known.held.is_empty() != held.is_empty();
            known.held = held;
        }
        if changed {
            // What is proved there waits from now on, or goes on.
            self.tell_watchers();
        }
        self.place(place::Event::Paused { peer, paused: credits.stopped });
        self.place(place::Event::Credits { peer, slots: credits.slots });
        if held_now {
            // Nobody waits for a toolchain on a PC that runs nothing now.
            let waiting: Vec<ToolchainId> = self.waiting_tools.keys().copied().collect();
            for toolchain in waiting {
                if !self.toolchain_comes(toolchain) {
                    self.tools_settled(toolchain);
                }
            }
        }
    }

    /// Numbers for the sensors, once a batch; and the file of what was lent.
    pub(super) fn tell_sharing(&mut self) {
        self.sharing.handle.live.set(self.worker.running(), self.submitter.running_here() > 0);
        if self.sharing.lent_is_new && self.sharing.lent_kept.elapsed() >= KEEP_EVERY {
            self.sharing.keep_lent();
        }
    }

    /// The node ends.
    pub(super) fn end_sharing(&mut self) {
        self.sharing.keep_lent();
    }

    /// So much memory a job of somebody else took here.
    pub(super) fn job_took(&mut self, bytes: u64) {
        self.sharing.job_memory.ended(bytes);
        self.sharing.handle.live.expect(self.sharing.job_memory.predicted());
    }

    /// A job of somebody else ended here.
    pub(super) fn lend(&mut self, to: NodeId, cpu_us: u64) {
        let name = self.peers.get(&to).and_then(|p| p.hello.as_ref()).map(|h| h.name.clone()).unwrap_or_default();
        self.sharing.lend(to, name, cpu_us);
    }

    /// What is shown of sharing.
    pub fn share_view(&self) -> ShareView {
        let shared = &self.sharing.shared;
        let state = self.share_state();
        let mut helping: Vec<Helped> = self
            .guests
            .running_for()
            .into_iter()
            .map(|(peer, jobs)| {
                let hello = self.peers.get(&peer).and_then(|p| p.hello.as_ref());
                let name = hello.map(|h| h.name.chars().take(64).collect()).filter(|n: &String| !n.is_empty());
                Helped { name: name.unwrap_or_else(|| peer.short()), jobs }
            })
            .collect();
        helping.sort_by(|a, b| b.jobs.cmp(&a.jobs).then_with(|| a.name.cmp(&b.name)));
        let settings = &shared.values.share;
        let slots_max = shared.decision.slots_max;
        let around = words::Around {
            cores: shared.cores,
            slots_max,
            settings,
            has_battery: shared.has_battery,
            knows_presence: shared.presence_source.is_some(),
            clock: clock(unix_ms()),
        };
        let never = shared.never.map(|never| match never {
            Contradiction::NoHours => words::Never::NoHours,
            Contradiction::Memory => words::Never::Memory,
            Contradiction::Disk => words::Never::Disk,
        });
        let rule = match shared.promise {
            Some(slots) => words::promise(slots),
            None => words::rule(settings, shared.cores, shared.has_battery, never),
        };
        let (lent_today_ms, lent_today_to) = self.sharing.lent_today();
        ShareView {
            on: shared.on,
            sentence: words::sentence(&state, &helping, &around),
            short: words::short(&state, &around.clock),
            next: words::next(&state, &around),
            state,
            rule,
            rule_is_warning: never.is_some() && shared.promise.is_none(),
            slots: self.worker.slots(),
            slots_max,
            helping,
            lent_today_ms,
            lent_today_to,
            settings: settings.clone(),
            presence_source: shared.presence_source.map(str::to_owned),
        }
    }

    /// Nothing is given, because nothing tells whether somebody is there.
    pub(super) fn is_held_unseen(&self) -> bool {
        self.sharing.code() == "in_use" && self.sharing.shared.presence_source.is_none()
    }

    fn share_state(&self) -> ShareState {
        let shared = &self.sharing.shared;
        let jobs = self.guests.running() as u32;
        if shared.on && !self.team.serves() {
            return ShareState::Blocked { problem: "role".to_owned() };
        }
        match &shared.decision.state {
            State::Off => ShareState::Off,
            State::Paused(_) => ShareState::Paused { until_ms: shared.resumes_ms },
            State::Finishing => ShareState::Finishing { jobs },
            State::Blocked(problem) => ShareState::Blocked { problem: problem.clone() },
            State::Held(reason) => ShareState::Held { reason: held(*reason), resumes_ms: shared.resumes_ms },
            State::Giving if jobs == 0 => ShareState::Ready { slots: shared.decision.slots },
            State::Giving => {
                let people = self.guests.running_for().len() as u32;
                ShareState::Helping { slots: shared.decision.slots, jobs, people }
            }
        }
    }

    /// The same in short, for `status`.
    pub(super) fn share_status(&self) -> Value {
        let view = self.share_view();
        let short = words::short(&view.state, &clock(unix_ms()));
        let gives = matches!(view.state, ShareState::Ready { .. } | ShareState::Helping { .. });
        json!({
            "slots": view.slots,
            "slots_max": view.slots_max,
            "running": self.guests.running(),
            "proofs": self.worker.proving(),
            "memory_limits": self.sharing.shared.decision.memory_limits,
            "reason": if gives { "" } else { short.as_str() },
            "code": self.sharing.code(),
            "on": view.on,
            "state": view.state,
            "short": short,
            "sentence": view.sentence,
            "next": view.next,
            "rule": view.rule,
            "presence": view.presence_source,
            "warnings": self.sharing.shared.warnings,
        })
    }
}

/// The wall clock now, for words that name a time.
pub(super) fn clock_now() -> words::Clock<'static> {
    clock(unix_ms())
}

fn clock(now_ms: u64) -> words::Clock<'static> {
    words::Clock { now_ms, ahead_s: &local_time::ahead_s }
}

fn code_of(shared: &Shared) -> &'static str {
    match &shared.decision.state {
        State::Giving => "",
        State::Held(reason) => reason.code(),
        State::Paused(_) | State::Finishing => "paused",
        State::Blocked(_) => "blocked",
        State::Off => "off",
    }
}

fn held(reason: share::HeldReason) -> HeldReason {
    match reason {
        share::HeldReason::InUse => HeldReason::InUse,
        share::HeldReason::Battery => HeldReason::Battery,
        share::HeldReason::Schedule => HeldReason::Schedule,
        share::HeldReason::CpuBusy => HeldReason::CpuBusy,
        share::HeldReason::Memory => HeldReason::Memory,
        share::HeldReason::Disk => HeldReason::Disk,
        share::HeldReason::OwnBuild => HeldReason::OwnBuild,
    }
}
