//! What announcements on the network are taken for: hints of where members may be reached, and teams nearby. All of it
//! is hearsay from strangers: cleaned, bounded, and never a reason to trust anybody. No IO; times are arguments.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{NodeId, TeamId};
use crate::limits::{
    HINT_ADDRESSES_MAX, HINT_NAME_BYTES_MAX, HINTS_MAX, HINTS_PER_NODE_MAX, KEEPER_ADDRESSES_MAX, TEAMS_NEARBY_MAX,
};
use crate::names;

/// The first 64 bits of a node id: enough to know a member by, too few to take for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodePrefix(pub u64);

impl NodePrefix {
    /// Of a node.
    pub fn of(node: NodeId) -> Self {
        Self(u64::from_be_bytes(node.0[..8].try_into().expect("8 of 32 bytes")))
    }

    /// As it is announced: 16 hexadecimal digits.
    pub fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

/// A keyed hash of a team id: who knows the id knows the team again, who does not learns nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TeamTag(pub u64);

impl TeamTag {
    /// Of a team.
    pub fn of(team: TeamId) -> Self {
        let hash = blake3::derive_key("potluck mdns team tag 1", &team.0);
        Self(u64::from_be_bytes(hash[..8].try_into().expect("8 of 32 bytes")))
    }

    /// Reads [`TeamTag::text`].
    pub fn read(text: &str) -> Option<Self> {
        hex16(text).map(Self)
    }

    /// As it is announced: 16 hexadecimal digits.
    pub fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

fn hex16(text: &str) -> Option<u64> {
    let is_hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Text of strangers as it may be shown: without what controls a terminal or turns the line around, at most
/// `bytes_max` long.
pub fn clean(text: &[u8], bytes_max: usize) -> String {
    names::cleaned(String::from_utf8_lossy(text).trim(), bytes_max).trim().to_owned()
}

/// One node's announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its name on the network: random, new with every start.
    pub instance: String,
    /// Who it says to be.
    pub node: NodePrefix,
    /// Its team.
    pub team: TeamTag,
    /// Name of that team, cleaned.
    pub team_name: String,
    /// It says that it may take others in.
    pub keeper: bool,
    /// Where it says to be.
    pub addresses: Vec<SocketAddr>,
}

impl Announcement {
    /// Accepts what an announcement says, or not. `value` gives the bytes of a TXT key.
    pub fn read<'a>(
        instance: &str,
        port: u16,
        addresses: impl IntoIterator<Item = SocketAddr>,
        value: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Option<Self> {
        let text = |key: &str| value(key).and_then(|bytes| core::str::from_utf8(bytes).ok());
        if text("v") != Some("1") || port == 0 || instance.len() > 255 {
            return None;
        }
        let mut addresses: Vec<SocketAddr> = addresses.into_iter().filter(|a| is_dialable(a.ip())).collect();
        addresses.sort_by_key(|a| (distance(a.ip()), *a));
        addresses.dedup();
        addresses.truncate(HINT_ADDRESSES_MAX);
        Some(Self {
            instance: instance.to_owned(),
            node: NodePrefix(hex16(text("id")?)?),
            team: TeamTag(hex16(text("team")?)?),
            team_name: clean(value("name").unwrap_or_default(), HINT_NAME_BYTES_MAX),
            keeper: text("keeper") == Some("1"),
            addresses,
        })
    }
}

/// Not this PC, nobody, or everybody.
fn is_dialable(ip: IpAddr) -> bool {
    let v4_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && !v4_broadcast
}

/// IPv4 first: where both work it is what firewalls of offices are set up for; link-local last.
fn distance(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(v4) if v4.is_link_local() => 2,
        IpAddr::V4(_) => 0,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => 3,
        IpAddr::V6(_) => 1,
    }
}

/// A team that this PC is not in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearby {
    /// Its tag, as text: names it in calls.
    pub id: String,
    /// Its name, as its nodes announce it.
    pub name: String,
    /// Computers of it that were seen.
    pub computers: u32,
    /// Where keepers say to be.
    pub keepers: Vec<SocketAddr>,
}

/// What the announcements of one team say together.
#[derive(Default)]
struct Gathered<'a> {
    nodes: BTreeSet<NodePrefix>,
    names: BTreeMap<&'a str, u32>,
    keepers: Vec<SocketAddr>,
}

/// All announcements that are remembered.
#[derive(Debug, Default)]
pub struct Hints {
    entries: BTreeMap<String, (u64, Announcement)>,
    next_seq: u64,
}

impl Hints {
    /// Takes one in. `is_member`: whether its node would be dialled. False: it was not new, or there is no room.
    pub fn announced(&mut self, new: Announcement, is_member: impl Fn(NodePrefix) -> bool) -> bool {
        if self.entries.get(&new.instance).is_some_and(|(_, old)| *old == new) {
            return false;
        }
        if !self.entries.contains_key(&new.instance) {
            let of_node = self.entries.values().filter(|(_, e)| e.node == new.node);
            if of_node.clone().count() >= HINTS_PER_NODE_MAX
                && let Some((_, oldest)) = of_node.min_by_key(|(seq, _)| *seq)
            {
                let oldest = oldest.instance.clone();
                self.entries.remove(&oldest);
            }
            if self.entries.len() >= HINTS_MAX {
                // A flood of inventions must not keep members out.
                let invented = self.entries.values().filter(|(_, e)| !is_member(e.node)).min_by_key(|(seq, _)| *seq);
                match invented.map(|(_, e)| e.instance.clone()) {
                    Some(oldest) if is_member(new.node) => drop(self.entries.remove(&oldest)),
                    _ => return false,
                }
            }
        }
        self.next_seq += 1;
        self.entries.insert(new.instance.clone(), (self.next_seq, new));
        true
    }

    /// An announcement was taken back, or not heard of for long. It, if it was known, and whether it was the last word of
    /// its node: what a node said before a crash is not taken back for two minutes, and means nothing beside a later one.
    pub fn gone(&mut self, instance: &str) -> Option<(Announcement, bool)> {
        let (seq, gone) = self.entries.remove(instance)?;
        let is_last = !self.entries.values().any(|(s, e)| e.node == gone.node && e.team == gone.team && *s > seq);
        Some((gone, is_last))
    }

    /// Nothing that was heard holds any more: another network.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Nodes of a team that announce themselves now.
    pub fn nodes(&self, team: TeamTag) -> BTreeSet<NodePrefix> {
        self.of(team).map(|e| e.node).collect()
    }

    /// What is to be dialled for a team: which member, where. `member`: the member with this prefix.
    pub fn targets(&self, team: TeamTag, member: impl Fn(NodePrefix) -> Option<NodeId>) -> Vec<(NodeId, SocketAddr)> {
        let of_team = self.of(team).filter_map(|e| Some((member(e.node)?, e)));
        let mut all: Vec<_> = of_team.flat_map(|(node, e)| e.addresses.iter().map(move |a| (node, *a))).collect();
        all.sort();
        all.dedup();
        all
    }

    fn of(&self, team: TeamTag) -> impl Iterator<Item = &Announcement> {
        self.entries.values().map(|(_, e)| e).filter(move |e| e.team == team)
    }

    /// Teams but the own one: those with most computers first.
    pub fn nearby(&self, own: Option<TeamTag>) -> Vec<Nearby> {
        let mut teams: BTreeMap<TeamTag, Gathered<'_>> = BTreeMap::new();
        for (_, e) in self.entries.values().filter(|(_, e)| Some(e.team) != own) {
            let team = teams.entry(e.team).or_default();
            team.nodes.insert(e.node);
            *team.names.entry(&e.team_name).or_default() += 1;
            let room = KEEPER_ADDRESSES_MAX.saturating_sub(team.keepers.len());
            team.keepers.extend(e.addresses.iter().filter(|_| e.keeper).take(room));
        }
        let mut all: Vec<Nearby> = teams
            .into_iter()
            .map(|(tag, team)| Nearby {
                id: tag.text(),
                // One liar among several does not rename a team.
                name: team
                    .names
                    .into_iter()
                    .max_by_key(|(_, n)| *n)
                    .map(|(name, _)| name.to_owned())
                    .unwrap_or_default(),
                computers: team.nodes.len() as u32,
                keepers: team.keepers,
            })
            .collect();
        all.sort_by(|a, b| b.computers.cmp(&a.computers).then_with(|| a.id.cmp(&b.id)));
        all.truncate(TEAMS_NEARBY_MAX);
        all
    }
}

/// One of this PC's addresses, where others may be met.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Own {
    /// The address.
    pub ip: IpAddr,
    /// Leading bits of its network.
    pub bits: u32,
}

/// A network that one of the own addresses is in: its first address.
type Network = (IpAddr, u32);

impl Own {
    fn network(self) -> Network {
        self.cut(self.ip)
    }

    /// An address cut to the leading bits of this network.
    fn cut(self, ip: IpAddr) -> Network {
        let first = match ip {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32u32.saturating_sub(self.bits)).unwrap_or(0);
                IpAddr::from((u32::from(v4) & mask).to_be_bytes())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128u32.saturating_sub(self.bits)).unwrap_or(0);
                IpAddr::from((u128::from(v6) & mask).to_be_bytes())
            }
        };
        (first, self.bits)
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    distance(ip) >= 2
}

/// Addresses that tell one network from another. A link-local one is the same everywhere: it counts if there is no other.
fn telling(all: &BTreeSet<Own>) -> impl Iterator<Item = &Own> {
    let only_local = all.iter().all(|own| is_link_local(own.ip));
    all.iter().filter(move |own| only_local || !is_link_local(own.ip))
}

/// What a change of the own addresses means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// There is none.
    Same,
    /// Addresses came or went, and what was seen of the network still holds.
    Addresses,
    /// Another network, or none: nothing that was seen means anything.
    Moved,
}

/// The networks that this PC is in, and those in which members were seen. Networks that are there wherever this PC is, such
/// as those of its own containers, do not hide that it moved: nobody was seen there.
#[derive(Debug, Default)]
pub struct Networks {
    own: BTreeSet<Own>,
    /// Of them, those where members were seen.
    seen: BTreeSet<Network>,
}

impl Networks {
    /// Where this PC is now.
    pub fn new(own: BTreeSet<Own>) -> Self {
        Self { own, seen: BTreeSet::new() }
    }

    /// Members are announced at these addresses. One that is this PC's own is that of a bridge which both have.
    pub fn seen_at(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for ip in addresses {
            if self.own.iter().any(|own| own.ip == ip) {
                continue;
            }
            let near = telling(&self.own).filter(|own| own.ip.is_ipv4() == ip.is_ipv4());
            self.seen.extend(near.filter(|own| own.cut(ip) == own.network()).map(|own| own.network()));
        }
    }

    /// Where this PC is now. A network is still there if one of its addresses stayed: temporary addresses come and go.
    pub fn changed(&mut self, own: BTreeSet<Own>) -> Change {
        if own == self.own {
            return Change::Same;
        }
        let stayed: BTreeSet<Network> = telling(&self.own).filter(|a| own.contains(a)).map(|a| a.network()).collect();
        let was_seen = !self.seen.is_empty();
        self.seen.retain(|network| stayed.contains(network));
        let moved = if was_seen { self.seen.is_empty() } else { stayed.is_empty() };
        self.own = own;
        if telling(&self.own).any(|own| !is_link_local(own.ip)) {
            // Members were seen where now a better address tells the network: they are seen there from now on.
            self.seen.retain(|(first, _)| !is_link_local(*first));
        }
        if moved { Change::Moved } else { Change::Addresses }
    }
}

/// How the network lets PCs find each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// Others were seen, or the own announcement came back and nobody is missing.
    Works,
    /// Too early to say.
    Starting,
    /// What was sent did not come back, or a PC in the same network cannot be seen.
    Blocked,
    /// Switched off.
    Off,
}

/// A PC that announces itself must be seen so long after its link stands: the first announcement is sent at once, and
/// asked for again after 1, 2 and 4 seconds.
pub const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// What is known of the network when [`judge`] is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// Discovery runs.
    pub on: bool,
    /// How long the own announcement is out; None: nothing is announced (no team, or no network).
    pub announced_for: Option<Duration>,
    /// The own announcement came back. The kernel does that: it proves sending only.
    pub own_seen: bool,
    /// Another member was seen on this network.
    pub others_seen: bool,
    /// A member that announces itself is linked in the same network for [`SEEN_WITHIN`] and was never seen.
    pub hidden: bool,
}

/// Whether PCs can find each other here.
pub fn judge(e: Evidence) -> Finding {
    match e {
        Evidence { on: false, .. } => Finding::Off,
        Evidence { others_seen: true, .. } => Finding::Works,
        Evidence { hidden: true, .. } => Finding::Blocked,
        Evidence { own_seen: true, .. } => Finding::Works,
        Evidence { announced_for: Some(time), .. } if time >= SEEN_WITHIN => Finding::Blocked,
        _ => Finding::Starting,
    }
}

#[cfg(test)]
mod tests;
