//! What the team's keepers allow: who submits and who serves, this PC included. A role is a statement of the team, so it
//! holds whatever the other side says of itself.

use std::collections::HashMap;

use potluck_model::ids::NodeId;
use potluck_model::place::WorkerEvent;
use potluck_model::team::Role;

use super::Core;

/// Roles as they were when the links were made.
#[derive(Debug, Default)]
pub(super) struct Roles {
    own: Option<Role>,
    others: HashMap<NodeId, Role>,
}

impl super::team::State {
    /// Whether this PC's jobs may go elsewhere. In no team nobody forbids it.
    pub(super) fn submits(&self) -> bool {
        self.roles.own.is_none_or(Role::submits)
    }

    /// Whether this PC may run jobs of others.
    pub(super) fn serves(&self) -> bool {
        self.roles.own.is_none_or(Role::serves)
    }
}

impl Core {
    /// Whether jobs of this peer are run here.
    pub(super) fn may_submit(&self, peer: NodeId) -> bool {
        self.team.roles.others.get(&peer).copied().is_none_or(Role::submits)
    }

    /// Why this peer is given no jobs, whatever it offers.
    pub(super) fn no_worker_of_ours(&self, peer: NodeId) -> Option<&'static str> {
        if !self.team.submits() {
            return Some("this computer only serves");
        }
        let serves = self.team.roles.others.get(&peer).copied().is_none_or(Role::serves);
        (!serves).then_some("it only submits")
    }

    /// Roles may have changed. What was promised over a link is void then: it is made anew, with a last word that says
    /// why.
    pub(super) fn note_roles(&mut self) {
        let view = self.membership.view();
        let own_id = self.membership.identity().id();
        let own = view.members.get(&own_id).map(|m| m.role);
        let may = |role: Option<Role>| (role.is_none_or(Role::submits), role.is_none_or(Role::serves));
        let own_changed = may(own) != may(self.team.roles.own);
        let others: HashMap<NodeId, Role> = view.members.values().map(|m| (m.node, m.role)).collect();
        let before = std::mem::replace(&mut self.team.roles, Roles { own, others });
        if own_changed {
            let slots = if self.team.serves() { self.sharing.shared.decision.slots } else { 0 };
            self.work(WorkerEvent::Slots(slots));
            if !self.team.serves() && self.worker.running() > 0 {
                self.work(WorkerEvent::Reclaim);
            }
            crate::log::info(&format!("this computer's role in the team is now {own:?}"));
        }
        let changed = |node: &NodeId| {
            let (was, is) = (before.others.get(node), self.team.roles.others.get(node));
            was.is_some() && is.is_some() && may(was.copied()) != may(is.copied())
        };
        let linked = self.peers.iter().filter(|(_, peer)| peer.link.is_some()).map(|(id, _)| *id);
        let anew: Vec<NodeId> = linked.filter(|node| own_changed || changed(node)).collect();
        for node in anew {
            self.farewell(node, self.all_statements());
        }
    }
}
