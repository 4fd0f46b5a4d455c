//! The machines of the pool as they are shown: this PC first, then every peer, in one of three words with a reason.

use potluck_api::view::{FoundBy, HeldReason, Machine, MachineState, PoolView, ShareState};
use potluck_api::words::share as words;
use potluck_model::ids::NodeId;

use super::Core;
use super::peers::{Peer, Stage};
use super::snapshot::{cores, shown_name};
use super::view::name_of;

/// What is said of a machine without a link.
const NOT_CONNECTED: &str = "Not connected";

impl Core {
    pub(super) fn machine_views(&self) -> Vec<Machine> {
        let own = self.compilers.packed.len() as u32;
        let share = self.share_view();
        let this = Machine {
            id: self.membership.identity().id().to_string(),
            name: self.settings.name.clone(),
            state: match share.state {
                ShareState::Ready { .. } | ShareState::Helping { .. } => MachineState::Sharing,
                ShareState::Held { reason: HeldReason::InUse | HeldReason::OwnBuild, .. } => MachineState::InUse,
                _ => MachineState::Unavailable,
            },
            reason: words::short(&share.state, &super::sharing::clock_now()),
            this_pc: true,
            used: self.guests.running() as u32 + self.submitter.running_here(),
            used_by_me: self.submitter.running_here(),
            offered: share.slots,
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
        let shown = self.peers.iter().filter(|(id, p)| self.is_shown(**id, p.link.is_some()));
        let mut others: Vec<Machine> = shown.map(|(id, peer)| self.machine_view(*id, peer, own)).collect();
        others.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.id.cmp(&b.id)));
        std::iter::once(this).chain(others).collect()
    }

    fn machine_view(&self, id: NodeId, peer: &Peer, own: u32) -> Machine {
        let placed = self.submitter.peers(self.now()).find(|p| p.peer == id);
        let hello = peer.hello.as_ref();
        let pulse = peer.pulse.unwrap_or_default();
        let (state, reason) = state_of(peer);
        let out = placed.as_ref().map_or(0, |p| p.out);
        Machine {
            id: id.to_string(),
            name: shown_name(&name_of(peer, id)),
            state,
            reason,
            this_pc: false,
            used: pulse.running.max(out),
            used_by_me: out,
            offered: if state == MachineState::Sharing { peer.offered.max(pulse.offered) } else { 0 },
            cores: pulse.cores,
            // Two digits: more is noise, and would be an update for each job.
            speed: placed.map(|p| (p.speed * 100.0).round() / 100.0),
            toolchains_ready: peer.toolchains.values().filter(|s| matches!(s, Stage::Ready)).count() as u32,
            toolchains: own,
            version: hello.map_or(String::new(), |h| shown_name(&h.app_version)),
            arch: hello.map_or(String::new(), |h| shown_name(&h.arch)),
            address: peer.address.clone(),
            found_by: self.found_by(id),
            // Tenths of a millisecond, for the same reason.
            rtt_us: peer.rtt.as_micros() as u64 / 100 * 100,
            seen_ms: self.team.seen(id).filter(|_| peer.link.is_none()),
        }
    }

    pub(super) fn pool_view(&self, machines: &[Machine]) -> PoolView {
        let count = |state| machines.iter().filter(|m| m.state == state).count() as u32;
        let connected = |m: &&Machine| m.this_pc || m.reason != NOT_CONNECTED;
        PoolView {
            machines: machines.iter().filter(connected).count() as u32,
            cores: machines.iter().map(|m| m.offered).sum(),
            cores_free: machines.iter().map(|m| m.offered.saturating_sub(lent(m))).sum(),
            sharing: count(MachineState::Sharing),
            in_use: count(MachineState::InUse),
            unavailable: count(MachineState::Unavailable),
            discovery: self.discovery(),
        }
    }
}

/// Of the cores that a machine offers, how many are in use: this PC's own jobs need none of them.
fn lent(machine: &Machine) -> u32 {
    machine.used - if machine.this_pc { machine.used_by_me } else { 0 }
}

/// State of another PC, by what it said itself.
fn state_of(peer: &Peer) -> (MachineState, String) {
    use MachineState::{InUse, Sharing, Unavailable};
    let Some(hello) = peer.hello.as_ref().filter(|_| peer.link.is_some()) else {
        let word = if peer.link.is_some() { "Connecting" } else { NOT_CONNECTED };
        return (Unavailable, word.to_owned());
    };
    if !hello.not_serving.is_empty() {
        return (Unavailable, shown_name(&hello.not_serving));
    }
    if hello.arch != std::env::consts::ARCH {
        return (Unavailable, format!("Other processor ({:.16})", hello.arch));
    }
    if hello.slots == 0 {
        return (Unavailable, "Lends nothing".to_owned());
    }
    match words::machine(&peer.held) {
        None => (Sharing, "Sharing".to_owned()),
        Some(text) if matches!(peer.held.as_str(), "in_use" | "own_build") => (InUse, text.to_owned()),
        Some(text) => (Unavailable, text.to_owned()),
    }
}
