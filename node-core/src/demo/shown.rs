//! What is shown of the simulation: its snapshot.

use std::collections::HashMap;

use potluck_api::build::{BuildLine, BuildRow};
use potluck_api::view::{
    CacheView, Discovery, FoundBy, HeldReason, KeyPlace, Machine, MachineState, MemberView, PoolView, ShareState,
    Snapshot, SyncState, TeamView, ThisPc,
};

use super::joining::Team;
use super::pool::{self, Pc};
use super::tools::Tool;
use super::world::{CORES, World};
use super::{scenes, trouble};

impl World {
    /// Everything.
    pub fn snapshot(&self) -> Snapshot {
        let machines = self.machines();
        Snapshot {
            schema: potluck_api::SCHEMA,
            open: None,
            this: self.this(),
            share: self.share.view(self.now, self.origin_ms, self.zone_s, self.live.is_some()),
            team: self.team.as_ref().map(|team| self.team_view(team)),
            nearby: self.nearby.clone(),
            joining: self.joining.as_ref().map(|j| j.state.clone()),
            pool: self.pool(&machines),
            machines,
            building: self.building(),
            builds: self.build_rows(100),
            toolchains: self.tools.iter().map(|t| t.view(&self.pcs)).collect(),
            received: self.received.clone(),
            cache: self.cache(),
            problems: trouble::problems(&self.raised),
            recent: self.recent.clone(),
            checks: trouble::checks(&self.raised),
            notify: self.notify.clone(),
            trust: self.trust.clone(),
            addresses: self.addresses.clone(),
            scenes: scenes::NAMES.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    fn this(&self) -> ThisPc {
        let key = match self.raised.iter().any(|(code, _)| *code == "K1") {
            true => KeyPlace::File("the keyring is locked".into()),
            false => KeyPlace::Keyring,
        };
        ThisPc {
            id: self.id.clone(),
            name: self.name.clone(),
            version: pool::VERSION.to_owned(),
            cores: CORES,
            headless: self.headless,
            role: self.role,
            started_ms: self.origin_ms,
            key,
            listen: "192.0.2.1:10555".into(),
            demo: true,
        }
    }

    pub(super) fn build_rows(&self, limit: usize) -> Vec<BuildRow> {
        self.history.iter().map(|past| past.report.build.clone()).take(limit).collect()
    }

    fn building(&self) -> Vec<BuildLine> {
        let Some((live, into_ms)) = self.running() else { return Vec::new() };
        let now = live.at(into_ms);
        vec![BuildLine {
            id: live.build.id.clone(),
            name: live.build.project.name.to_owned(),
            done: now.done,
            total: Some(live.ran.wanted.len() as u32),
            cores: now.running.iter().filter(|j| j.machine > 0).count() as u32,
            waiting: now.waiting,
            started_ms: live.build.started_ms,
            counts: now.counts,
        }]
    }

    /// Jobs of the running build on each machine, by its id; this PC's is empty.
    fn used(&self) -> HashMap<&str, u32> {
        let mut used = HashMap::new();
        if let Some((live, into_ms)) = self.running() {
            for job in live.at(into_ms).running {
                *used.entry(live.build.places[usize::from(job.machine)].id.as_str()).or_default() += 1;
            }
        }
        used
    }

    fn machines(&self) -> Vec<Machine> {
        let used = self.used();
        let share = self.share.view(self.now, self.origin_ms, self.zone_s, self.live.is_some());
        let (state, reason) = this_state(&share.state);
        let toolchains = self.tools.iter().filter(|t| t.error.is_none()).count() as u32;
        let by_me = used.get("").copied().unwrap_or(0);
        let this = Machine {
            id: self.id.clone(),
            name: self.name.clone(),
            state,
            reason: reason.to_owned(),
            this_pc: true,
            used: by_me + self.share.jobs(),
            used_by_me: by_me,
            offered: share.slots,
            cores: CORES,
            speed: Some(1.0),
            toolchains_ready: toolchains,
            toolchains,
            version: pool::VERSION.to_owned(),
            arch: "x86_64".into(),
            address: "192.0.2.1:10555".into(),
            found_by: FoundBy::Here,
            rtt_us: 0,
            seen_ms: None,
        };
        let mut others: Vec<Machine> = self
            .pcs
            .iter()
            .map(|pc| {
                let ready = |t: &&Tool| t.at.iter().any(|s| s.machine == pc.id && s.state == SyncState::Ready);
                let ready = self.tools.iter().filter(ready).count() as u32;
                let speed_known = !self.history.is_empty() && pc.version == pool::VERSION;
                pc.machine(used.get(pc.id.as_str()).copied().unwrap_or(0), ready, toolchains, speed_known)
            })
            .collect();
        others.sort_by(|a, b| a.name.cmp(&b.name));
        std::iter::once(this).chain(others).collect()
    }

    fn pool(&self, machines: &[Machine]) -> PoolView {
        let count = |state| machines.iter().filter(|m| m.state == state).count() as u32;
        let raised = |code| self.raised.iter().any(|(c, _)| *c == code);
        PoolView {
            machines: 1 + self.pcs.iter().filter(|pc| pc.online).count() as u32,
            cores: machines.iter().map(|m| m.offered).sum(),
            cores_free: machines.iter().map(|m| m.offered.saturating_sub(m.used)).sum(),
            sharing: count(MachineState::Sharing),
            in_use: count(MachineState::InUse),
            unavailable: count(MachineState::Unavailable),
            discovery: if raised("N2") || raised("N4") { Discovery::Blocked } else { Discovery::Works },
        }
    }

    fn team_view(&self, team: &Team) -> TeamView {
        let this = MemberView {
            id: self.id.clone(),
            name: self.name.clone(),
            role: team.role.to_owned(),
            this_pc: true,
            online: true,
            seen_ms: None,
        };
        let mut others: Vec<MemberView> = self.pcs.iter().map(Pc::member).collect();
        others.sort_by(|a, b| a.name.cmp(&b.name));
        let members: Vec<MemberView> = std::iter::once(this).chain(others).collect();
        TeamView {
            id: team.id.clone(),
            name: team.name.clone(),
            is_keeper: team.role == "keeper",
            keepers: members.iter().filter(|m| m.role == "keeper").count() as u32,
            members,
            asking: team.asking.clone(),
            invites: team.invites.clone(),
        }
    }

    fn cache(&self) -> CacheView {
        let full = self.raised.iter().any(|(code, _)| *code == "D1");
        CacheView {
            bytes: self.received.iter().map(|r| r.bytes).sum(),
            bytes_max: 10 << 30,
            disk_free: if full { 1_100_000_000 } else { 182_000_000_000 },
        }
    }
}

fn this_state(state: &ShareState) -> (MachineState, &'static str) {
    match state {
        ShareState::Off => (MachineState::Unavailable, "Sharing is off"),
        ShareState::Paused { .. } => (MachineState::Unavailable, "Paused"),
        ShareState::Blocked { .. } => (MachineState::Unavailable, "Needs you"),
        ShareState::Finishing { .. } => (MachineState::Sharing, "Finishing"),
        ShareState::Ready { .. } | ShareState::Helping { .. } => (MachineState::Sharing, "Sharing"),
        ShareState::Held { reason, .. } => match reason {
            HeldReason::InUse => (MachineState::InUse, "In use"),
            HeldReason::OwnBuild => (MachineState::InUse, "Own build"),
            HeldReason::Battery => (MachineState::Unavailable, "On battery"),
            HeldReason::Schedule => (MachineState::Unavailable, "Outside its hours"),
            HeldReason::CpuBusy => (MachineState::Unavailable, "Other programs need the processor"),
            HeldReason::Memory => (MachineState::Unavailable, "Short of memory"),
            HeldReason::Disk => (MachineState::Unavailable, "Disk full"),
        },
    }
}
