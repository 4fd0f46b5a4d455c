//! Everything that the simulation knows, and how time moves it. No IO and no clock: the same seed and the same calls at
//! the same simulated times give the same snapshots.

use std::collections::HashMap;

use potluck_api::build::Report;
use potluck_api::view::{
    JoinAsk, Joining, MachineState, NearbyTeam, NotifySettings, ReceivedView, RecentRow, SyncState, TrustView, UserRole,
};
use serde_json::{Value, json};

use super::builds::{self, Build, Project};
use super::joining::{Attempt, Step, Team};
use super::live::Live;
use super::pool::{self, Pc};
use super::random::Random;
use super::schedule::{Cut, Place};
use super::sharing::Sharing;
use super::tools::{self, Tool};

/// Time moves in such steps.
pub const STEP_MS: u64 = 100;
/// Logical cores of this PC.
pub(super) const CORES: u32 = 8;
/// Rows of Overview that are kept.
const RECENT_MAX: usize = 20;
/// Builds that are remembered, so that a long demonstration does not grow.
const HISTORY_MAX: usize = 500;
/// PCs that ask to be let in, at a time.
const ASKING_MAX: usize = 64;
/// A machine whose owner came back stays in use for so long.
pub(super) const TAKEN_MS: u64 = 20_000;
/// Between two builds while the simulation moves by itself.
const REST_MS: u64 = 15_000;

/// A connection, as the shell numbers them.
pub(super) type ConnId = u64;

/// A build that ended. Its jobs are made again when somebody looks.
pub(super) struct Past {
    pub(super) build: Build,
    pub(super) report: Report,
}

/// Answers that come later.
pub(super) enum Waits {
    Joining(ConnId),
    Sync(ConnId, Option<String>),
    Packed(ConnId, String),
    BuildEnd(ConnId, String),
}

/// See the module.
pub struct World {
    pub(super) now: u64,
    pub(super) origin_ms: u64,
    /// Local time east of UTC, seconds: for what is said of the time of day.
    pub zone_s: i64,
    pub(super) random: Random,
    pub(super) seed: u64,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) role: Option<UserRole>,
    pub(super) headless: bool,
    pub(super) share: Sharing,
    pub(super) team: Option<Team>,
    pub(super) nearby: Vec<NearbyTeam>,
    pub(super) joining: Option<Attempt>,
    pub(super) pcs: Vec<Pc>,
    pub(super) live: Option<Live>,
    pub(super) history: Vec<Past>,
    pub(super) builds_made: u32,
    pub(super) tools: Vec<Tool>,
    pub(super) received: Vec<ReceivedView>,
    /// Codes with the wall clock's time since they are raised.
    pub(super) raised: Vec<(&'static str, u64)>,
    pub(super) recent: Vec<RecentRow>,
    recent_made: u32,
    pub(super) notify: NotifySettings,
    pub(super) trust: TrustView,
    pub(super) addresses: Vec<String>,
    /// Builds begin by themselves until the first scene is raised.
    pub(super) automatic: Option<u64>,
    pub(super) waits: Vec<Waits>,
    /// For the shell: to whom, what, and whether it is the last.
    pub(super) outbox: Vec<(ConnId, Value, bool)>,
    /// The node shall end.
    pub stopped: bool,
    changed: bool,
}

impl World {
    /// A developer in the team "Kernel lab" at `origin_ms` of the wall clock.
    pub fn new(seed: u64, origin_ms: u64) -> Self {
        let mut random = Random::new(seed, "world");
        let mut world = Self {
            now: 0,
            origin_ms,
            zone_s: 0,
            id: random.id(),
            name: "kim-desk".into(),
            role: Some(UserRole::Developer),
            headless: true,
            share: Sharing::new(CORES),
            team: None,
            nearby: Vec::new(),
            joining: None,
            pcs: Vec::new(),
            live: None,
            history: Vec::new(),
            builds_made: 0,
            tools: Vec::new(),
            received: Vec::new(),
            raised: Vec::new(),
            recent: Vec::new(),
            recent_made: 0,
            notify: NotifySettings::default(),
            trust: TrustView::default(),
            addresses: Vec::new(),
            automatic: Some(0),
            waits: Vec::new(),
            outbox: Vec::new(),
            stopped: false,
            changed: true,
            random,
            seed,
        };
        world.settle(UserRole::Developer);
        world.begin(builds::WINE, 24_000);
        world
    }

    /// Everything as it is on a usual day, of somebody with this role.
    pub(super) fn settle(&mut self, role: UserRole) {
        let mut random = Random::new(self.seed, "kernel lab");
        self.role = Some(role);
        self.name = "kim-desk".into();
        self.share = Sharing::new(CORES);
        self.pcs = pool::kernel_lab(&mut random);
        let seen_ms = self.wall();
        self.pcs.iter_mut().for_each(|pc| pc.seen_ms = seen_ms);
        self.team = Some(Team {
            id: random.id(),
            name: "Kernel lab".into(),
            role: "keeper",
            asking: Vec::new(),
            invites: Vec::new(),
        });
        self.nearby = vec![NearbyTeam { id: random.id(), name: "Graphics".into(), computers: 3 }];
        self.joining = None;
        self.live = None;
        self.tools = tools::usual(&mut random, &self.pcs);
        self.received = received(&self.pcs, seen_ms);
        self.raised.clear();
        self.addresses = vec!["192.0.2.4:10555".into()];
        self.builds_made = 0;
        self.history = if role == UserRole::Developer { self.fixtures() } else { Vec::new() };
        self.recent.clear();
        if role == UserRole::Developer {
            self.tell("gcc 14.2.0 was sent to 6 machines.", Some("toolchains".into()));
            self.recent[0].at_ms = seen_ms.saturating_sub(3 * 3_600_000);
            if let Some(past) = self.history.first() {
                let (id, at_ms) = (past.build.id.clone(), past.build.started_ms + past.report.build.took_ms);
                self.tell(&format!("{} finished.", past.build.project.name), Some(format!("builds/{id}")));
                self.recent[0].at_ms = at_ms;
            }
        }
        self.changed = true;
    }

    /// Wall clock of now.
    pub(super) fn wall(&self) -> u64 {
        self.origin_ms + self.now
    }

    /// What a snapshot shows may be another one since this was asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn touch(&mut self) {
        self.changed = true;
    }

    /// Answers to be sent.
    pub fn take_answers(&mut self) -> Vec<(u64, Value, bool)> {
        std::mem::take(&mut self.outbox)
    }

    /// A connection ended; what it waited for is not sent.
    pub fn gone(&mut self, conn: u64) {
        let mut cancelled = None;
        self.waits.retain(|w| {
            let (of, build) = match w {
                Waits::Joining(c) | Waits::Sync(c, _) | Waits::Packed(c, _) => (*c, None),
                Waits::BuildEnd(c, id) => (*c, Some(id)),
            };
            if of == conn {
                cancelled = build.cloned().or(cancelled.take());
            }
            of != conn
        });
        if let Some(id) = cancelled {
            self.cancel_build(&id);
        }
    }

    /// Moves to `now` milliseconds after the start; never back.
    pub fn advance(&mut self, now: u64) {
        while self.now + STEP_MS <= now {
            self.now += STEP_MS;
            self.step();
        }
    }

    fn step(&mut self) {
        let own_build = self.live.is_some();
        let held_before = self.share_state_key();
        let moves = self.share.moves();
        self.share.step(self.now, STEP_MS, own_build, &mut self.random);
        self.changed |= moves || own_build || held_before != self.share_state_key();
        if let Some(live) = &self.live
            && self.now as i64 - live.began >= i64::from(live.end_ms())
        {
            self.finish();
        }
        if self.automatic.is_some_and(|at| at != 0 && at <= self.now) && self.live.is_none() {
            let next = [builds::LINUX, builds::LLVM, builds::ZSTD, builds::WINE][self.builds_made as usize % 4];
            self.begin(next, 0);
        }
        for pc in &mut self.pcs {
            if pc.taken_until.is_some_and(|at| at <= self.now) {
                pc.taken_until = None;
                pc.be(MachineState::Sharing, "Sharing");
                self.changed = true;
            }
        }
        self.step_tools();
        self.step_joining();
        if let Some(team) = &mut self.team {
            let (invites, wall) = (team.invites.len(), self.origin_ms + self.now);
            team.invites.retain(|i| i.expires_ms > wall);
            self.changed |= invites != team.invites.len();
        }
    }

    fn share_state_key(&self) -> potluck_api::view::ShareState {
        self.share.view(self.now, self.origin_ms, self.zone_s, self.live.is_some()).state
    }

    fn step_tools(&mut self) {
        let mut ready = Vec::new();
        for tool in &mut self.tools {
            self.changed |= !tool.settled();
            if tool.step(self.now, STEP_MS, &self.pcs) {
                ready.push(tool.name.clone());
            }
        }
        for name in ready {
            self.tell(&format!("{name} is ready on all machines."), Some("toolchains".into()));
        }
        let waits = std::mem::take(&mut self.waits);
        for wait in waits {
            match wait {
                Waits::Sync(conn, id) => {
                    let state = self.sync_state(id.as_deref());
                    let last = state["done"] == true;
                    // A few times a second is enough for a bar.
                    if last || self.now.is_multiple_of(500) {
                        self.outbox.push((conn, state, last));
                    }
                    if !last {
                        self.waits.push(Waits::Sync(conn, id));
                    }
                }
                Waits::Packed(conn, id) => match self.tools.iter().find(|t| t.id == id) {
                    Some(tool) if tool.packed_at.is_some() => self.waits.push(Waits::Packed(conn, id)),
                    Some(tool) => self.outbox.push((conn, tool.listed(&self.pcs), true)),
                    None => self.outbox.push((conn, json!({"error": "it is gone"}), true)),
                },
                other => self.waits.push(other),
            }
        }
    }

    fn step_joining(&mut self) {
        let Some(attempt) = &mut self.joining else { return };
        let step = attempt.step(self.now);
        if step == Step::Nothing {
            return;
        }
        self.changed = true;
        let (state, team) = (attempt.state.clone(), attempt.team.clone());
        match step {
            Step::Nothing => {}
            Step::Forgotten => self.joining = None,
            Step::Moved => self.tell_joining(&json!(state), false),
            Step::Failed => {
                let Joining::Failed { error } = &state else { return };
                self.tell_joining(&json!({"error": error}), true);
            }
            Step::Joined => {
                self.enter_team(&team, "member");
                self.tell_joining(&joined(&state, &team), true);
            }
        }
    }

    pub(super) fn tell_joining(&mut self, value: &Value, last: bool) {
        for wait in &self.waits {
            if let Waits::Joining(conn) = wait {
                self.outbox.push((*conn, value.clone(), last));
            }
        }
        if last {
            self.waits.retain(|w| !matches!(w, Waits::Joining(_)));
        }
    }

    /// This PC is in a team from now on; another than the founder's finds the usual machines there.
    pub(super) fn enter_team(&mut self, name: &str, role: &'static str) {
        let mut random = Random::new(self.seed, name);
        self.nearby.retain(|n| n.name != name);
        self.pcs = if role == "keeper" { Vec::new() } else { pool::kernel_lab(&mut random) };
        let wall = self.wall();
        self.pcs.iter_mut().for_each(|pc| pc.seen_ms = wall);
        let (asking, invites) = (Vec::new(), Vec::new());
        self.team = Some(Team { id: random.id(), name: name.to_owned(), role, asking, invites });
        for tool in &mut self.tools {
            tool.meet(&self.pcs, SyncState::Absent);
        }
        self.changed = true;
    }

    /// A row of Overview ▸ Recent.
    pub(super) fn tell(&mut self, text: &str, opens: Option<String>) {
        self.recent_made += 1;
        let id = format!("r{}", self.recent_made);
        self.recent.insert(0, RecentRow { id, at_ms: self.wall(), text: text.to_owned(), opens });
        self.recent.truncate(RECENT_MAX);
        self.changed = true;
    }

    // Builds.

    fn places(&self) -> Vec<Place> {
        let here = Place { id: String::new(), name: self.name.clone(), slots: CORES, speed: 100 };
        let others = self.pcs.iter().map(Pc::place).filter(|p| p.slots > 0);
        std::iter::once(here).chain(others).collect()
    }

    /// A build begins that is `into_ms` old already.
    pub(super) fn begin(&mut self, project: Project, into_ms: u32) {
        self.finish();
        self.builds_made += 1;
        let build = Build {
            id: format!("b{}-{}", self.builds_made, project.name),
            project,
            started_ms: self.wall().saturating_sub(into_ms.into()),
            seed: self.seed,
            places: self.places(),
            cuts: Vec::new(),
            cancelled_ms: None,
        };
        self.live = Some(Live::new(build, self.now as i64 - i64::from(into_ms)));
        self.changed = true;
    }

    /// Milliseconds since the running build's start.
    fn age_ms(&self, live: &Live) -> u32 {
        (self.now as i64 - live.began).max(0) as u32
    }

    /// The running build ends now, as it would have ended later.
    pub(super) fn finish(&mut self) {
        let Some(mut live) = self.live.take() else { return };
        // It seems to have begun so long ago that it is over now.
        live.build.started_ms = self.wall().saturating_sub(live.end_ms().into());
        let report = live.build.report(&live.ran, None);
        let (name, id) = (live.build.project.name, live.build.id.clone());
        let how = if report.build.end == potluck_api::build::BuildEnd::Ok { "finished" } else { "failed" };
        self.tell(&format!("{name} {how}."), Some(format!("builds/{id}")));
        self.remember(Past { build: live.build, report });
        if let Some(at) = &mut self.automatic {
            *at = self.now + REST_MS;
        }
        self.end_begun(&id);
    }

    pub(super) fn cancel_build(&mut self, id: &str) {
        let Some(mut live) = self.live.take_if(|live| live.build.id == id) else { return };
        live.build.cancelled_ms = Some((self.now as i64 - live.began).max(1) as u32);
        let report = live.build.report(&live.ran, None);
        self.remember(Past { build: live.build, report });
    }

    fn remember(&mut self, past: Past) {
        self.history.insert(0, past);
        self.history.truncate(HISTORY_MAX);
        self.changed = true;
    }

    /// Whoever began it with `potluck run` hears that it is over.
    fn end_begun(&mut self, id: &str) {
        for wait in &self.waits {
            if let Waits::BuildEnd(conn, of) = wait
                && of == id
            {
                self.outbox.push((*conn, json!({"ok": true}), true));
            }
        }
        self.waits.retain(|w| !matches!(w, Waits::BuildEnd(_, of) if of == id));
    }

    /// The owner of the machine with the most jobs comes back: they run again elsewhere.
    pub(super) fn take_one_back(&mut self) {
        let (now, Some(live)) = (self.now, &mut self.live) else { return };
        let at = (now as i64 - live.began).max(1) as u32;
        let mut running: HashMap<u16, u32> = HashMap::new();
        for job in live.at(at).running.iter().filter(|j| j.machine > 0 && j.start_ms < at) {
            *running.entry(job.machine).or_default() += 1;
        }
        let most = running.into_iter().max_by_key(|(machine, jobs)| (*jobs, *machine));
        let Some((machine, _)) = most else { return };
        live.build.cuts.push(Cut { machine, from_ms: at, to_ms: at + TAKEN_MS as u32 });
        // The same as before up to now: what is drawn does not depend on cuts.
        live.again();
        let id = live.build.places[usize::from(machine)].id.clone();
        if let Some(pc) = self.pcs.iter_mut().find(|pc| pc.id == id) {
            pc.be(MachineState::InUse, "In use");
            pc.taken_until = Some(now + TAKEN_MS);
        }
        self.changed = true;
    }

    /// The running build and what it has come to.
    pub(super) fn running(&self) -> Option<(&Live, u32)> {
        self.live.as_ref().map(|live| (live, self.age_ms(live)))
    }

    fn fixtures(&self) -> Vec<Past> {
        const HOUR: u64 = 3_600_000;
        let fixtures: &[(Project, u64, bool, Option<u32>)] = &[
            (builds::LINUX, 3, true, None),
            (builds::WINE, 5, false, None),
            (builds::LLVM, 7, true, None),
            (builds::EVERY_REASON, 8, true, None),
            (builds::SCALE, 9, true, None),
            (builds::WINE, 26, false, Some(31_000)),
            (builds::ZSTD, 27, false, None),
            (builds::LINUX, 28, true, None),
            (builds::WINE, 30, true, None),
            (builds::LINUX, 52, false, None),
            (builds::LLVM, 54, true, None),
            (builds::WINE, 77, false, None),
            (builds::ZSTD, 99, false, None),
        ];
        let make = |(number, (project, hours, cut, cancelled_ms)): (usize, &(Project, u64, bool, _))| {
            let mut places = self.places();
            if project.name == builds::SCALE.name {
                let mut random = Random::new(self.seed, "scale");
                let others = pool::office(&mut random).into_iter().take(39);
                let slots = |pc: Pc| Place { id: pc.id, name: pc.name, slots: 8, speed: pc.speed };
                places = places.into_iter().take(1).chain(others.map(slots)).collect();
            }
            let cuts = match cut {
                true if places.len() > 1 => vec![Cut { machine: 1, from_ms: 9_000, to_ms: 21_000 }],
                _ => Vec::new(),
            };
            let build = Build {
                id: format!("h{number}-{}", project.name),
                project: *project,
                started_ms: self.wall().saturating_sub(hours * HOUR),
                seed: self.seed,
                places,
                cuts,
                cancelled_ms: *cancelled_ms,
            };
            let report = build.report(&build.run(), None);
            Past { build, report }
        };
        fixtures.iter().enumerate().map(make).collect()
    }

    /// How far compilers are, as the command line knows it.
    pub(super) fn sync_state(&self, id: Option<&str>) -> Value {
        let chosen = |t: &&Tool| id.is_none_or(|id| t.id.starts_with(id));
        let tools: Vec<Value> = self.tools.iter().filter(chosen).map(|t| t.listed(&self.pcs)).collect();
        let packing = self.tools.iter().any(|t| t.packed_at.is_some());
        let done = self.tools.iter().filter(chosen).all(Tool::settled);
        json!({"toolchains": tools, "failed": [], "packing": packing, "progress": null, "done": done})
    }

    /// Somebody asks to be taken in.
    pub(super) fn ask(&mut self, name: &str) {
        let check = super::joining::check_words(&mut self.random);
        let (id, since_ms) = (self.random.id(), self.wall());
        let Some(team) = &mut self.team else { return };
        let (name, address) = (name.to_owned(), "192.0.2.77:41734".to_owned());
        if team.asking.len() >= ASKING_MAX {
            return;
        }
        team.asking.push(JoinAsk { id, name, address, check, since_ms, invited: false });
        self.changed = true;
    }
}

/// The stream's last value: with what the command line looks at.
pub(super) fn joined(state: &Joining, team: &str) -> Value {
    let mut value = json!(state);
    value["ok"] = json!(true);
    value["name"] = json!(team);
    value
}

/// What mara and jan left here.
fn received(pcs: &[Pc], wall: u64) -> Vec<ReceivedView> {
    let rows = [
        ("mara-desk", vec!["gcc 14.2.0"], 1_480_000_000, 180_000),
        ("jan-laptop", vec!["clang 19.1.7"], 620_000_000, 86_400_000),
    ];
    let view = |(name, toolchains, bytes, ago): (&str, Vec<&str>, u64, u64)| {
        let pc = pcs.iter().find(|pc| pc.name == name)?;
        Some(ReceivedView {
            submitter: pc.id.clone(),
            name: name.to_owned(),
            toolchains: toolchains.into_iter().map(str::to_owned).collect(),
            bytes,
            used_ms: Some(wall.saturating_sub(ago)),
        })
    };
    rows.into_iter().filter_map(view).collect()
}
