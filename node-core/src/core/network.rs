//! Who is there and how they were found: news of discovery, silence on links that placing does not watch, remembered
//! addresses, and what changes of the team mean for links.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use potluck_api::view::{Discovery as Shown, FoundBy};
use potluck_model::alive::Life;
use potluck_model::ids::{Digest, NodeId};
use potluck_model::nearby::{self, Evidence, Finding};
use potluck_model::place;
use potluck_model::team::ADDRESSES_MAX;
use potluck_wire::pool::{self, frame};
use serde_json::{Value, json};

use super::Core;
use crate::discovery::{News, Sight};
use crate::membership::hear::in_parts;
use crate::membership::invite;
use crate::net::OwnAddress;
use crate::remembered::Remembered;

/// What a node that announces itself says in its hello: who can be expected to be seen.
pub(super) const ANNOUNCES: &str = "mdns-1";
/// How often the own addresses are compared with what the team was told.
const ADDRESSES_EVERY: Duration = Duration::from_secs(10);
/// How often the interfaces are looked at for what is shown: the kernel's list costs a tenth of a millisecond.
const INTERFACES_EVERY: Duration = Duration::from_secs(3);
/// New addresses are told to the team this much later than the last ones: every statement is kept by everybody for ever.
const RENAME_EVERY: Duration = Duration::from_secs(600);

/// What is known of the network.
pub(crate) struct Network {
    /// Discovery runs.
    pub(crate) on: bool,
    sight: Sight,
    remembered: Remembered,
    /// Members that said goodbye and have no link since.
    departed: HashSet<NodeId>,
    /// Statements that the linked peers were told of, or had themselves.
    told: HashSet<Digest>,
    addresses_due: Duration,
    /// Addresses of this PC, as old as [`INTERFACES_EVERY`] at most.
    own: Vec<OwnAddress>,
    own_due: Duration,
    renamed_at: Option<Duration>,
    /// One writer of the file of remembered addresses at a time, in order.
    writes: Arc<tokio::sync::Mutex<()>>,
}

impl Network {
    pub(super) fn new(on: bool, remembered: Remembered) -> Self {
        Self {
            on,
            sight: Sight::default(),
            remembered,
            departed: HashSet::new(),
            told: HashSet::new(),
            addresses_due: ADDRESSES_EVERY,
            own: crate::net::own_addresses(),
            own_due: INTERFACES_EVERY,
            renamed_at: None,
            writes: Arc::default(),
        }
    }
}

impl Core {
    /// News of discovery.
    pub(super) fn discovered(&mut self, news: News) {
        match news {
            News::Sight(sight) => self.network.sight = sight,
            News::Gone(node) => {
                self.network.departed.insert(node);
                self.strange.remove(&node);
                if self.peers.get(&node).is_some_and(|p| p.link.is_none()) {
                    self.peers.remove(&node);
                }
            }
        }
    }

    /// Whether a peer is still shown: connected, or a member that did not say goodbye.
    pub(super) fn is_shown(&self, node: NodeId, up: bool) -> bool {
        up || self.membership.is_member(node) && !self.network.departed.contains(&node)
    }

    /// How a peer was found.
    pub(crate) fn found_by(&self, node: NodeId) -> FoundBy {
        let dialed = self.peers.get(&node).and_then(|p| p.link.as_ref()).is_none_or(|l| l.dialed);
        if self.network.sight.members.contains(&node) {
            FoundBy::Network
        } else if dialed {
            FoundBy::Address
        } else {
            FoundBy::Incoming
        }
    }

    /// How this network lets PCs find each other.
    pub(crate) fn discovery(&self) -> Shown {
        let sight = &self.network.sight;
        let evidence = Evidence {
            on: self.network.on,
            announced_for: sight.announced_at.filter(|_| !self.network.own.is_empty()).map(|at| at.elapsed()),
            own_seen: sight.own_seen,
            others_seen: sight.others_seen,
            hidden: !sight.others_seen && self.hidden().is_some(),
        };
        match nearby::judge(evidence) {
            Finding::Works => Shown::Works,
            Finding::Starting => Shown::Starting,
            Finding::Blocked => Shown::Blocked,
            Finding::Off => Shown::Off,
        }
    }

    /// A member in the same network that announces itself, is linked for some time, and is not seen.
    fn hidden(&self) -> Option<NodeId> {
        let is_near = |address: &str| {
            address
                .parse::<SocketAddr>()
                .is_ok_and(|a| self.network.own.iter().any(|o| o.is_near(a.ip().to_canonical())))
        };
        let candidates = self.peers.iter().filter(|(id, peer)| {
            peer.link.as_ref().is_some_and(|l| l.since.elapsed() >= nearby::SEEN_WITHIN)
                && peer.hello.as_ref().is_some_and(|h| h.abilities.iter().any(|a| a == ANNOUNCES))
                && !self.network.sight.members.contains(id)
        });
        candidates.filter(|(_, peer)| is_near(&peer.address)).map(|(id, _)| *id).next()
    }

    /// Members announce themselves on this network.
    pub(super) fn sees_members(&self) -> bool {
        !self.network.sight.members.is_empty()
    }

    /// What is told of discovery: its word, and where it is blocked an address to begin with.
    pub(super) fn discovery_status(&self) -> Value {
        let state = self.discovery();
        json!({
            "state": state,
            "seen": self.network.sight.members.len(),
            "own_seen": self.network.sight.own_seen,
            "nearby": self.nearby.len(),
        })
    }

    /// The team changed: what is news goes to everybody, and whoever is out is forgotten. Links of those who are out
    /// end by themselves.
    pub(super) fn team_changed(&mut self) {
        self.take_own_name();
        // Only of what there is now: a member that renames itself for ever does not fill the memory of the others.
        let all = self.membership.parts();
        let digests: HashSet<Digest> = all.iter().flatten().map(|raw| Digest::of(raw)).collect();
        let told = std::mem::replace(&mut self.network.told, digests);
        let news: Vec<Vec<u8>> = all.into_iter().flatten().filter(|raw| !told.contains(&Digest::of(raw))).collect();
        if !news.is_empty() {
            let linked: Vec<NodeId> = self.peers.iter().filter(|(_, p)| p.hello.is_some()).map(|(id, _)| *id).collect();
            let parts = in_parts(news);
            for (peer, statements) in linked.into_iter().flat_map(|peer| parts.iter().map(move |part| (peer, part))) {
                let gossip = pool::Gossip { membership: Vec::new(), statements: statements.clone() };
                self.send(peer, frame::Kind::Gossip(gossip));
            }
        }
        self.forget_budgets();
        let view = self.membership.view();
        // A node that lost its list still knows where the others were: they can give it back.
        let has_lost = matches!(self.membership.trouble(), Some(crate::membership::Trouble::Lost(_)));
        if !has_lost && self.network.remembered.keep(|node| view.is_member(node)) {
            self.store_remembered();
        }
        self.network.departed.retain(|node| view.is_member(*node));
        self.strange.retain(|node, _| view.is_member(*node));
        for (node, peer) in &mut self.peers {
            // Renamed since its hello.
            if let (Some(hello), Some(member)) = (&mut peer.hello, view.members.get(node))
                && !member.name.is_empty()
            {
                hello.name.clone_from(&member.name);
            }
        }
        let out: Vec<NodeId> = self.peers.keys().copied().filter(|id| !view.is_member(*id)).collect();
        for node in out {
            // The transport ends its connections too; what it had here ends with the link, and not a moment later. It is
            // told why: it shall know that it was removed.
            self.farewell(node, self.all_statements());
            self.peers.remove(&node);
            crate::log::info(&format!("{} is no member any more", node.short()));
        }
        self.note_roles();
        let own = self.membership.identity().id();
        let is_keeper = view.members.get(&own).is_some_and(|m| m.role == potluck_model::team::Role::Keeper);
        if !is_keeper {
            self.membership.door().clear();
        }
    }

    /// All statements, as frames that each fit on a link.
    pub(super) fn all_statements(&self) -> Vec<frame::Kind> {
        let parts = self.membership.parts().into_iter();
        parts.map(|statements| frame::Kind::Gossip(pool::Gossip { membership: Vec::new(), statements })).collect()
    }

    /// In a team a PC is called what the team's list says, whatever it was started as: a new name outlives a start.
    pub(super) fn take_own_name(&mut self) {
        let view = self.membership.view();
        if let Some(member) = view.members.get(&self.membership.identity().id()).filter(|m| !m.name.is_empty()) {
            self.settings.name.clone_from(&member.name);
        }
    }

    /// A link stands and its hello came: where the peer is reached is worth remembering.
    pub(super) fn reached(&mut self, peer: NodeId) {
        self.network.departed.remove(&peer);
        let Some(known) = self.peers.get(&peer) else { return };
        let (Some(link), Some(hello)) = (&known.link, &known.hello) else { return };
        let Ok(at) = known.address.parse::<SocketAddr>() else { return };
        // Whoever dialled us did so from a port that is gone with the connection.
        let port = if link.dialed { at.port() } else { u16::try_from(hello.port).unwrap_or(0) };
        let at = SocketAddr::new(at.ip(), port);
        if self.network.remembered.reached(peer, at) {
            self.store_remembered();
            self.dial.known(peer, at.to_string());
        }
    }

    /// Where members were reached before, for a node that has lost the team's list.
    pub(super) fn remembered_addresses(&self) -> impl Iterator<Item = String> {
        self.network.remembered.all().map(|(_, address)| address.to_string())
    }

    fn store_remembered(&self) {
        let (file, text) = self.network.remembered.text();
        let writes = Arc::clone(&self.network.writes);
        // In order, and never on the loop: a disk may be slow.
        self.runtime.spawn(async move {
            let _turn = writes.lock().await;
            let written = tokio::task::spawn_blocking(move || {
                crate::store::write_whole(&file, &text).map_err(|e| format!("{}: {e}", file.display()))
            });
            if let Ok(Err(error)) = written.await {
                crate::log::warn(&format!("addresses of peers are not remembered: {error}"));
            }
        });
    }

    /// Tries an address from now on.
    pub(super) fn peers_add(&mut self, address: &str) -> Value {
        let address = match invite::typed_address(address) {
            Ok(address) => address,
            Err(why) => return json!({"error": why}),
        };
        if !self.addresses.contains(&address) {
            if self.addresses.len() >= potluck_model::limits::TYPED_ADDRESSES_MAX {
                return json!({"error": "too many addresses are kept already\nhint: potluck peers remove ADDR:PORT"});
            }
            self.addresses.push(address.clone());
            if let Err(error) = self.store_typed() {
                return json!({"error": error});
            }
        }
        let _ = self.dial.send(address);
        json!({"ok": true})
    }

    /// Does not try it any more, whether it was typed or remembered.
    pub(super) fn peers_remove(&mut self, address: String) -> Value {
        let address = invite::typed_address(&address).unwrap_or(address);
        let typed = self.addresses.iter().position(|a| *a == address).map(|at| self.addresses.remove(at)).is_some();
        if typed && let Err(error) = self.store_typed() {
            return json!({"error": error});
        }
        let remembered = self.network.remembered.forget(&address);
        if remembered {
            self.store_remembered();
        }
        if !typed && !remembered {
            return json!({"error": format!("{address} is not among the addresses that are kept\nhint: potluck peers list")});
        }
        self.dial.forget(address);
        json!({"ok": true})
    }

    fn store_typed(&self) -> Result<(), String> {
        let file = self.settings.dirs.config.join("peers.json");
        let text = serde_json::to_string_pretty(&self.addresses).unwrap_or_default();
        crate::store::write_whole(&file, text.as_bytes()).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Pings links that placing does not watch, and ends those that are silent.
    pub(super) fn watch_links(&mut self) {
        let now = self.now();
        let due: Vec<NodeId> =
            self.peers.iter().filter(|(_, p)| p.link.is_some() && now >= p.alive.due()).map(|(id, _)| *id).collect();
        for id in due {
            let is_placed = self.submitter.is_up(id);
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            match peer.alive.look(now) {
                Life::Well => {}
                // Placing pings it already, and knows what silence means while jobs are there.
                _ if is_placed => {}
                Life::PingDue => self.ping(id),
                Life::Lost => {
                    self.peer_lost(id);
                    self.place(place::Event::PeerDown { peer: id });
                }
            }
        }
        if now >= self.network.own_due {
            self.network.own_due = now + INTERFACES_EVERY;
            self.network.own = crate::net::own_addresses();
        }
        if now >= self.network.addresses_due {
            self.network.addresses_due = now + ADDRESSES_EVERY;
            self.tell_addresses(now);
        }
    }

    /// When [`Self::watch_links`] is due.
    pub(super) fn links_due(&self) -> Option<Duration> {
        self.peers.values().filter(|p| p.link.is_some()).map(|p| p.alive.due()).min()
    }

    /// Own addresses that the team does not know are told to it. Those of before stay in the list, so that a laptop that
    /// goes back and forth says nothing new.
    fn tell_addresses(&mut self, now: Duration) {
        let view = self.membership.view();
        let Some(own) = view.members.get(&self.membership.identity().id()).filter(|_| view.joined) else { return };
        if self.network.renamed_at.is_some_and(|at| now < at + RENAME_EVERY) {
            return;
        }
        let listen = self.settings.listen;
        if listen.ip().is_unspecified() && crate::net::own_ips().is_empty() || listen.ip().is_loopback() {
            return;
        }
        let current = self.own_addresses();
        if current.iter().all(|a| own.addresses.contains(a)) {
            return;
        }
        let is_address = |a: &String| a.parse::<SocketAddr>().is_ok_and(|a| !is_nobody(a.ip()));
        let mut seen = BTreeSet::new();
        let before = own.addresses.iter().filter(|a| is_address(a)).cloned();
        let all: Vec<String> =
            current.into_iter().chain(before).filter(|a| seen.insert(a.clone())).take(ADDRESSES_MAX).collect();
        self.network.renamed_at = Some(now);
        let (membership, name) = (self.membership.clone(), own.name.clone());
        // Signing and storing wait for the disk.
        self.runtime.spawn_blocking(move || {
            if let Err(error) = membership.rename(&name, &all) {
                crate::log::warn(&format!("the team is not told of this PC's addresses: {error}"));
            }
        });
    }
}

fn is_nobody(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_loopback()
}
