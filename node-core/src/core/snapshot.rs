//! The snapshot of a real node: what `Core` knows now, as the plain values that tray and window draw. Built only while
//! somebody looks.

use potluck_api::view::{
    CacheView, KeyPlace, NearbyTeam, ReceivedView, Snapshot, SyncState, SyncView, ThisPc, ToolchainView,
};
use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;

use potluck_model::ids::{Digest, NodeId, ToolchainId};
use serde_json::json;

use super::peers::{Peer, Stage, stage_word};
use super::view::name_of;
use super::{ConnId, Core, Replies};

/// Builds in a snapshot; `builds` has all.
const BUILDS_SHOWN: usize = 100;
/// Names of peers are cut at this many characters.
const NAME_CHARS_MAX: usize = 64;

impl Core {
    /// `Call::Watch`: the first update comes with the end of this batch.
    pub(super) fn add_watching(&mut self, conn: ConnId, every_ms: u32, replies: Replies) {
        if let Err(error) = self.watch.add(conn, every_ms, replies.clone()) {
            let json = json!({"error": error}).to_string();
            let _ = replies.send(potluck_wire::ipc::Reply::Api { json, last: true });
        }
        // Who is here was last looked at some seconds ago.
        self.sharing.look();
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
            open: self.builds.open_view.clone(),
            this: self.this_view(),
            share: self.share_view(),
            team: self.team_view(),
            nearby: self.nearby_views(),
            joining: self.team.joining.clone(),
            pool: self.pool_view(&machines),
            machines,
            building: self.building(),
            builds: self.build_rows(BUILDS_SHOWN),
            toolchains: self.toolchain_views(),
            received: self.received_views(),
            cache: self.cache_view(),
            problems: self.problems(),
            recent: self.team.recent.iter().cloned().collect(),
            checks: self.checks(),
            notify: self.sharing.shared.values.notify.clone(),
            trust: self.trust_view(),
            addresses: self.addresses.clone(),
            scenes: Vec::new(),
        }
    }

    /// Wall clock at the node's start.
    pub(super) fn started_ms(&self) -> u64 {
        (Self::clock_us() / 1000).saturating_sub(self.started.elapsed().as_millis() as u64)
    }

    fn this_view(&self) -> ThisPc {
        ThisPc {
            id: self.membership.identity().id().to_string(),
            name: self.settings.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cores: cores(),
            headless: !self.settings.desktop,
            role: self.sharing.shared.values.role,
            // The wall clock may be corrected by a little: whole seconds stay the same.
            started_ms: (self.started_ms() + 500) / 1000 * 1000,
            key: self.team.key.clone().unwrap_or_else(|| KeyPlace::File(String::new())),
            listen: self.settings.listen.to_string(),
            demo: false,
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
        let without_id = |path: &Path, error: Option<String>| ToolchainView {
            id: String::new(),
            name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            path: path.display().to_string(),
            target: String::new(),
            files: 0,
            bytes: 0,
            packing: error.is_none(),
            error,
            machines: Vec::new(),
        };
        all.extend(self.compilers.being_packed().into_iter().map(|path| without_id(path, None)));
        all.extend(self.compilers.failures().into_iter().map(|(path, why)| without_id(path, Some(why.to_owned()))));
        all.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.id.cmp(&b.id)));
        all
    }

    fn sync_views(&self, toolchain: &ToolchainId) -> Vec<SyncView> {
        let serves = |p: &&Peer| p.link.is_some() && p.hello.as_ref().is_some_and(|h| h.slots > 0);
        let view = |(id, peer): (&NodeId, &Peer)| {
            let (state, note) = match peer.toolchains.get(toolchain) {
                None if peer.trap == "none" => (SyncState::Failed, "it has no sandbox".to_owned()),
                None => (SyncState::Absent, String::new()),
                Some(stage) => {
                    let is_held = !peer.held.is_empty();
                    (sync_state(stage, is_held), stage_word(stage, is_held).1)
                }
            };
            let percent = match state {
                SyncState::Proving | SyncState::Later | SyncState::Ready => 100,
                SyncState::Sending => self.percent_sent(*toolchain, peer),
                _ => 0,
            };
            SyncView { machine: id.to_string(), name: shown_name(&name_of(peer, *id)), state, percent, note }
        };
        let mut all: Vec<SyncView> = self.peers.iter().filter(|(_, p)| serves(p)).map(view).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.machine.cmp(&b.machine)));
        all
    }

    /// How much of a toolchain's bytes a peer has: what is not on its way any more has arrived.
    fn percent_sent(&self, toolchain: ToolchainId, peer: &Peer) -> u8 {
        let Some(packed) = self.compilers.packed.get(&toolchain) else { return 0 };
        let queued: HashSet<Digest> = peer.upload_queue.iter().map(|(_, digest)| *digest).collect();
        let (mut all, mut left) = (0u64, 0u64);
        for (_, digest, bytes) in packed.manifest.files() {
            all += bytes;
            if peer.uploading.contains(&digest) || queued.contains(&digest) {
                left += bytes;
            }
        }
        (all.saturating_sub(left) * 99).checked_div(all).unwrap_or(0) as u8
    }

    fn nearby_views(&self) -> Vec<NearbyTeam> {
        let all = self.nearby.iter();
        all.map(|n| NearbyTeam { id: n.id.clone(), name: shown_name(&n.name), computers: n.computers }).collect()
    }

    fn received_views(&self) -> Vec<ReceivedView> {
        let view = self.membership.view();
        let name = |id: &NodeId| match (self.peers.get(id), view.members.get(id)) {
            (Some(peer), _) => shown_name(&name_of(peer, *id)),
            (None, Some(member)) => shown_name(&member.name),
            (None, None) => id.short(),
        };
        let kept = self.guests.kept().into_iter().map(|kept| ReceivedView {
            submitter: kept.submitter.to_string(),
            name: name(&kept.submitter),
            toolchains: kept.toolchains,
            bytes: kept.bytes,
            used_ms: kept.used_ms,
        });
        kept.collect()
    }

    fn cache_view(&self) -> CacheView {
        let free = rustix::fs::statvfs(&self.settings.dirs.cache).map_or(0, |s| s.f_bavail * s.f_frsize);
        CacheView {
            bytes: self.guests.kept().iter().map(|k| k.bytes).sum(),
            bytes_max: self.settings.quota_bytes,
            // A tenth of a gigabyte: what everything else on that disk does is no news.
            disk_free: free / 100_000_000 * 100_000_000,
        }
    }
}

/// Logical cores of this PC. Asked for in every batch of events, and the answer takes a dozen system calls.
pub(super) fn cores() -> u32 {
    static CORES: LazyLock<u32> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u32));
    *CORES
}

fn sync_state(stage: &Stage, is_held: bool) -> SyncState {
    match stage {
        Stage::Proving(_) if is_held => SyncState::Later,
        Stage::Uploading => SyncState::Sending,
        Stage::Proving(_) => SyncState::Proving,
        Stage::Ready => SyncState::Ready,
        Stage::Failed(_) => SyncState::Failed,
    }
}

/// What another PC calls itself, fit to be shown: no control characters, not longer than a line.
pub(super) fn shown_name(name: &str) -> String {
    potluck_model::names::cleaned(name, 4 * NAME_CHARS_MAX).chars().take(NAME_CHARS_MAX).collect()
}
