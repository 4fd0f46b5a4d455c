//! What nodes tell each other of themselves so that people see it: how many slots a machine gives and how busy it is.
//! Nothing is decided by it.

use std::time::Duration;

use potluck_model::ids::NodeId;
use potluck_wire::pool::{self, frame};

use super::Core;
use super::peers::Peer;

/// Name of the ability.
pub(super) const ABILITY: &str = "pulse-1";
/// Least time between two of them: faster nobody reads (UX 1.4, rule 4), and jobs come and go a thousand times a second.
const EVERY: Duration = Duration::from_secs(1);

/// What was told last.
#[derive(Default)]
pub(crate) struct Pulse {
    told: Option<pool::Pulse>,
    due: Duration,
}

impl Core {
    /// Tells the others how this machine is, if that changed.
    pub(super) fn tell_pulse(&mut self) {
        let now = self.now();
        if now < self.pulse.due {
            return;
        }
        let pulse = self.own_pulse();
        if self.pulse.told.as_ref() == Some(&pulse) {
            return;
        }
        self.pulse.due = now + EVERY;
        self.pulse.told = Some(pulse);
        let readers: Vec<NodeId> = self.peers.iter().filter(|(_, p)| reads(p)).map(|(id, _)| *id).collect();
        for peer in readers {
            self.send(peer, frame::Kind::Pulse(pulse));
        }
        self.watch.touch();
    }

    /// A new peer knows nothing yet.
    pub(super) fn greet_with_pulse(&mut self, peer: NodeId) {
        if self.peers.get(&peer).is_some_and(reads) {
            let pulse = self.own_pulse();
            self.send(peer, frame::Kind::Pulse(pulse));
        }
    }

    fn own_pulse(&self) -> pool::Pulse {
        pool::Pulse {
            offered: self.worker.slots(),
            running: self.guests.running() as u32,
            cores: super::snapshot::cores(),
        }
    }

    pub(super) fn pulse_of(&mut self, peer: NodeId, pulse: pool::Pulse) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.pulse = Some(pulse);
        }
        self.watch.touch();
    }
}

fn reads(peer: &Peer) -> bool {
    peer.hello.as_ref().is_some_and(|h| h.abilities.iter().any(|ability| ability == ABILITY))
}
