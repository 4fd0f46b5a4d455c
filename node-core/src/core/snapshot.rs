//! The snapshot of a real node: what `Core` knows now, as the plain values that tray and window draw. Built only while
//! somebody looks.

use potluck_api::view::{
    Battery, CacheView, Cores, Discovery, Fix, FixAction, FoundBy, Helped, KeyPlace, Machine, MachineState, MemberView,
    NotifySettings, PoolView, Preset, Problem, ShareSettings, ShareState, ShareView, Snapshot, SyncState, SyncView,
    TeamView, ThisPc, ToolchainView,
};
use potluck_model::ids::{NodeId, ToolchainId};
use serde_json::{Value, json};

use super::peers::{Peer, Stage, stage_word};
use super::view::name_of;
use super::{ConnId, Core, Replies};

/// Names of peers are cut at this many characters.
const NAME_CHARS_MAX: usize = 64;

impl Core {
    /// `Call::Watch`: the first update comes with the end of this batch.
    pub(super) fn add_watching(&mut self, conn: ConnId, every_ms: u32, replies: Replies) {
        if let Err(error) = self.watch.add(conn, every_ms, replies.clone()) {
            let json = json!({"error": error}).to_string();
            let _ = replies.send(potluck_wire::ipc::Reply::Api { json, last: true });
        }
    }

    /// At the end of each batch; nothing happens where nobody watches.
    pub(super) fn tell_watching(&mut self, something_came: bool) {
        if self.watch.is_empty() {
            return;
        }
        let mut watch = std::mem::take(&mut self.watch);
        // Without events the loop wakes by its idle second, or because an update is due: that one changes nothing.
        if something_came || watch.next_wake().is_none() {
            watch.touch();
        }
        watch.tick(self.now(), || self.snapshot());
        self.watch = watch;
    }

    /// Everything that is shown.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let machines = self.machine_views();
        Snapshot {
            schema: potluck_api::SCHEMA,
            this: self.this_view(),
            share: self.share_view(),
            team: self.team_view(),
            nearby: Vec::new(),
            joining: None,
            pool: pool_view(&machines),
            machines,
            building: Vec::new(),
            builds: Vec::new(),
            toolchains: self.toolchain_views(),
            received: Vec::new(),
            cache: CacheView { bytes: 0, bytes_max: self.settings.quota_bytes, disk_free: 0 },
            problems: self.problem_views(),
            recent: Vec::new(),
            checks: Vec::new(),
            notify: NotifySettings { finished: true, finished_after_s: 30, joins: true, problems: true },
            addresses: self.addresses.clone(),
            scenes: Vec::new(),
            open: None,
        }
    }

    /// Wall clock at the node's start.
    fn started_ms(&self) -> u64 {
        (Self::clock_us() / 1000).saturating_sub(self.started.elapsed().as_millis() as u64)
    }

    fn this_view(&self) -> ThisPc {
        ThisPc {
            id: self.membership.identity().id().to_string(),
            name: self.settings.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cores: cores(),
            headless: true,
            role: None,
            // The wall clock may be corrected by a little: whole seconds stay the same.
            started_ms: (self.started_ms() + 500) / 1000 * 1000,
            key: KeyPlace::File("this node keeps its key in its state folder".to_owned()),
            listen: self.settings.listen.to_string(),
            demo: false,
        }
    }

    /// Slots are given as the command line says; presence and settings are not looked at here.
    fn share_view(&self) -> ShareView {
        let running = self.guests.running() as u32;
        let slots = self.serving().unwrap_or(0);
        let name = |id: &NodeId| self.peers.get(id).map_or_else(|| id.short(), |p| shown_name(&name_of(p, *id)));
        let by_submitter = self.guests.running_by_submitter();
        let mut helping: Vec<Helped> =
            by_submitter.iter().map(|(id, jobs)| Helped { name: name(id), jobs: *jobs }).collect();
        helping.sort_by(|a, b| b.jobs.cmp(&a.jobs).then_with(|| a.name.cmp(&b.name)));
        let (state, sentence) = match self.serving() {
            Err(why) if self.settings.not_serving.is_some() => (ShareState::Blocked { problem: "S1".into() }, why),
            Err(why) => (ShareState::Off, format!("Sharing is off: {why}.")),
            Ok(slots) if running > 0 => {
                let state = ShareState::Helping { slots, jobs: running, people: helping.len() as u32 };
                (state, format!("Helping with {running} of {slots} cores."))
            }
            Ok(slots) => (ShareState::Ready { slots }, format!("Ready to help with {slots} of {} cores.", cores())),
        };
        ShareView {
            on: self.settings.serve.is_some_and(|s| s > 0),
            state,
            sentence,
            next: None,
            rule: format!("This computer helps any time, with {slots} cores."),
            rule_is_warning: false,
            slots,
            slots_max: self.settings.serve.unwrap_or(0),
            helping,
            lent_today_ms: 0,
            lent_today_to: Vec::new(),
            settings: ShareSettings {
                preset: Preset::Dedicated,
                away_after_s: 180,
                away_when_locked: true,
                cores_away: Cores::Count(slots),
                cores_in_use: Cores::Count(slots),
                battery: Battery::Always,
                load_gate_percent: 80,
                keep_free_mib: 0,
                hours: Vec::new(),
                start_at_login: false,
            },
            presence_source: None,
        }
    }

    fn team_view(&self) -> Option<TeamView> {
        let team = self.membership.list();
        if !team.joined {
            return None;
        }
        let online = |id: &str| self.peers.iter().any(|(peer, p)| p.link.is_some() && peer.to_string() == id);
        let mut members: Vec<MemberView> = team
            .members
            .into_iter()
            .map(|m| MemberView {
                online: m.this_pc || online(&m.id),
                id: m.id,
                name: shown_name(&m.name),
                role: json!(m.role).as_str().unwrap_or("member").to_owned(),
                this_pc: m.this_pc,
                seen_ms: None,
            })
            .collect();
        members.sort_by(|a, b| b.this_pc.cmp(&a.this_pc).then_with(|| a.name.cmp(&b.name)));
        let is_keeper = |m: &&MemberView| m.role == "keeper";
        Some(TeamView {
            id: team.id.unwrap_or_default(),
            name: shown_name(&team.name.unwrap_or_default()),
            is_keeper: members.iter().any(|m| m.this_pc && is_keeper(&m)),
            keepers: members.iter().filter(is_keeper).count() as u32,
            members,
            asking: Vec::new(),
            invites: Vec::new(),
        })
    }

    fn machine_views(&self) -> Vec<Machine> {
        let own = self.compilers.packed.len() as u32;
        let serving = self.serving();
        let this = Machine {
            id: self.membership.identity().id().to_string(),
            name: self.settings.name.clone(),
            state: if serving.is_ok() { MachineState::Sharing } else { MachineState::Unavailable },
            reason: serving.as_ref().map_or_else(Clone::clone, |_| "Sharing".to_owned()),
            this_pc: true,
            used: self.guests.running() as u32,
            used_by_me: 0,
            offered: serving.unwrap_or(0),
            cores: cores(),
            speed: Some(1.0),
            toolchains_ready: own,
            toolchains: own,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            address: self.settings.listen.to_string(),
            found_by: FoundBy::Here,
            rtt_us: 0,
            seen_ms: None,
        };
        let mut others: Vec<Machine> = self.peers.iter().map(|(id, peer)| self.machine_view(*id, peer, own)).collect();
        others.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.id.cmp(&b.id)));
        std::iter::once(this).chain(others).collect()
    }

    fn machine_view(&self, id: NodeId, peer: &Peer, own: u32) -> Machine {
        let placed = self.submitter.peers(self.now()).find(|p| p.peer == id);
        let hello = peer.hello.as_ref();
        let up = peer.link.is_some();
        let slots = hello.map_or(0, |h| h.slots);
        let paused = placed.as_ref().is_some_and(|p| p.paused);
        let (state, reason) = match hello {
            _ if !up => (MachineState::Unavailable, "Not connected".to_owned()),
            None => (MachineState::Unavailable, "Connecting".to_owned()),
            Some(_) if paused => (MachineState::InUse, "In use".to_owned()),
            Some(h) if !h.not_serving.is_empty() => (MachineState::Unavailable, shown_name(&h.not_serving)),
            Some(h) if h.arch != own_arch_name() => {
                (MachineState::Unavailable, format!("Other processor ({:.16})", h.arch))
            }
            Some(_) if slots == 0 => (MachineState::Unavailable, "Lends nothing".to_owned()),
            Some(_) => (MachineState::Sharing, "Sharing".to_owned()),
        };
        let out = placed.as_ref().map_or(0, |p| p.out);
        Machine {
            id: id.to_string(),
            name: shown_name(&name_of(peer, id)),
            state,
            reason,
            this_pc: false,
            used: out,
            used_by_me: out,
            offered: if state == MachineState::Sharing { slots } else { 0 },
            cores: 0,
            // Two digits: more is noise, and would be an update for each job.
            speed: placed.map(|p| (p.speed * 100.0).round() / 100.0),
            toolchains_ready: peer.toolchains.values().filter(|s| matches!(s, Stage::Ready)).count() as u32,
            toolchains: own,
            version: hello.map_or(String::new(), |h| shown_name(&h.app_version)),
            arch: hello.map_or(String::new(), |h| shown_name(&h.arch)),
            address: peer.address.clone(),
            found_by: FoundBy::Address,
            // Tenths of a millisecond, for the same reason.
            rtt_us: peer.rtt.as_micros() as u64 / 100 * 100,
            seen_ms: None,
        }
    }

    fn toolchain_views(&self) -> Vec<ToolchainView> {
        let mut all: Vec<ToolchainView> = self
            .compilers
            .packed
            .iter()
            .map(|(id, packed)| ToolchainView {
                id: id.to_string(),
                name: crate::toolchain::pack::display_name(&packed.manifest),
                path: packed.manifest.driver.display().to_string(),
                target: packed.manifest.target.to_string(),
                files: packed.manifest.entries.len() as u32,
                bytes: packed.manifest.content_bytes(),
                packing: false,
                error: None,
                machines: self.sync_views(id),
            })
            .collect();
        all.extend(self.compilers.failures().map(|(path, why)| ToolchainView {
            id: String::new(),
            name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            path: path.display().to_string(),
            target: String::new(),
            files: 0,
            bytes: 0,
            packing: false,
            error: Some(why.to_owned()),
            machines: Vec::new(),
        }));
        all.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.id.cmp(&b.id)));
        all
    }

    fn sync_views(&self, toolchain: &ToolchainId) -> Vec<SyncView> {
        let serves = |p: &&Peer| p.link.is_some() && p.hello.as_ref().is_some_and(|h| h.slots > 0);
        let view = |(id, peer): (&NodeId, &Peer)| {
            let (state, note) = match peer.toolchains.get(toolchain) {
                None if peer.trap == "none" => (SyncState::Failed, "it has no sandbox".to_owned()),
                None => (SyncState::Absent, String::new()),
                Some(stage) => (sync_state(stage), stage_word(stage).1),
            };
            let percent = if matches!(state, SyncState::Proving | SyncState::Ready) { 100 } else { 0 };
            SyncView { machine: id.to_string(), name: shown_name(&name_of(peer, *id)), state, percent, note }
        };
        let mut all: Vec<SyncView> = self.peers.iter().filter(|(_, p)| serves(p)).map(view).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.machine.cmp(&b.machine)));
        all
    }

    /// Those of `status`, in the shape of the window. No team is a state of the window, no problem.
    fn problem_views(&self) -> Vec<Problem> {
        let started_ms = (self.started_ms() + 500) / 1000 * 1000;
        let problem = |value: Value| {
            let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            let code = text("code");
            let action = FixAction::Command { text: text("fix") };
            Problem {
                attention: !matches!(code.as_str(), "N1" | "V1" | "R1"),
                headline: text("text"),
                detail: String::new(),
                fix: Fix { label: "Copy the command".into(), action },
                since_ms: started_ms,
                code,
            }
        };
        self.problems().into_iter().filter(|p| p["code"] != "no_team").map(problem).collect()
    }
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

fn own_arch_name() -> &'static str {
    std::env::consts::ARCH
}

fn sync_state(stage: &Stage) -> SyncState {
    match stage {
        Stage::Uploading => SyncState::Sending,
        Stage::Proving(_) => SyncState::Proving,
        Stage::Ready => SyncState::Ready,
        Stage::Failed(_) => SyncState::Failed,
    }
}

/// What another PC calls itself, fit to be shown: no control characters, not longer than a line.
fn shown_name(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect()
}

fn pool_view(machines: &[Machine]) -> PoolView {
    let count = |state| machines.iter().filter(|m| m.state == state).count() as u32;
    let connected = |m: &&Machine| m.this_pc || m.reason != "Not connected";
    PoolView {
        machines: machines.iter().filter(connected).count() as u32,
        cores: machines.iter().map(|m| m.offered).sum(),
        cores_free: machines.iter().map(|m| m.offered.saturating_sub(m.used)).sum(),
        sharing: count(MachineState::Sharing),
        in_use: count(MachineState::InUse),
        unavailable: count(MachineState::Unavailable),
        discovery: Discovery::Off,
    }
}
