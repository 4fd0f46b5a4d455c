//! Finds nodes on the local networks by mDNS: announces this one while it is in a team, and turns what others announce
//! into hints for the dialler and into teams nearby. Trust comes from TLS; nothing here is believed.
//!
//! A thread of its own, because neither a flood of packets nor a slow network may hold up the node's loop.

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mdns_sd::{DaemonEvent, IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use potluck_model::ids::NodeId;
use potluck_model::limits::HINT_NAME_BYTES_MAX;
use potluck_model::nearby::{Announcement, Change, Hints, Nearby, Networks, NodePrefix, Own, TeamTag, clean};
use potluck_model::team::Role;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot, watch};

use crate::alarm::Alarm;
use crate::core::Event;
use crate::dialler::Dials;
use crate::membership::{Membership, View};

/// The service that nodes announce.
pub const SERVICE: &str = "_potluck._tcp.local.";
/// How often the clocks and the daemon's memory are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Browsing begins anew so often: the daemon asks ever more rarely, and lost packets must not hide a node for an
/// hour. Each beginning wakes this PC half a dozen times.
const ASK_EVERY: Duration = Duration::from_secs(180);
/// A daemon that could not be started (no network yet, no descriptors) is tried again after this time.
const RETRY: Duration = Duration::from_secs(30);
/// News is collected for this long: a whole team answers at once.
const COLLECT: Duration = Duration::from_millis(30);
/// A difference between the clocks that is no drift: this PC slept.
const SLEPT: Duration = Duration::from_secs(2);
/// Records that the daemon may hold: it keeps what strangers send for as long as they wish, so that beyond this it is
/// started anew. A thousand nodes with four records each stay below.
const RECORDS_MAX: i64 = 8000;
/// The goodbye must be out within this time, for quitting has 3 s altogether.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// What the node's loop is told of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Something is announced since; None: no team, or no network to announce it in.
    pub announced_at: Option<Instant>,
    /// The own announcement came back.
    pub own_seen: bool,
    /// Members that are announced now.
    pub members: BTreeSet<NodeId>,
    /// Another member was seen since this network is there.
    pub others_seen: bool,
}

/// What discovery tells the node's loop.
#[derive(Clone, Debug)]
pub enum News {
    /// How the network looks.
    Sight(Sight),
    /// This member said goodbye, or was not heard of for long.
    Gone(NodeId),
}

/// Stops discovery when it is told to, with a goodbye.
pub struct Discovery {
    stop: Option<oneshot::Sender<()>>,
    stopped: oneshot::Receiver<()>,
}

impl Discovery {
    /// Starts it. `listen`: where this node listens.
    pub fn start(
        listen: SocketAddr,
        membership: Arc<Membership>,
        dials: Dials,
        events: mpsc::UnboundedSender<Event>,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let alarm = {
            let _inside = runtime.enter();
            Alarm::new()?
        };
        let (stop, stopping) = oneshot::channel();
        let (over, stopped) = oneshot::channel();
        std::thread::Builder::new().name("discovery".into()).spawn(move || {
            let mut finder = Finder::new(listen, membership, dials, events);
            runtime.block_on(finder.run(stopping, &alarm));
            let _ = over.send(());
        })?;
        Ok(Self { stop: Some(stop), stopped })
    }

    /// Says goodbye and ends.
    pub async fn quit(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = tokio::time::timeout(GOODBYE_WITHIN, self.stopped).await;
    }
}

/// What is announced; a change of it is announced at once.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Words {
    team: TeamTag,
    name: String,
    keeper: bool,
}

/// The daemon and what it reports.
struct Air {
    daemon: ServiceDaemon,
    found: Receiver<ServiceEvent>,
    happened: Receiver<DaemonEvent>,
}

impl Air {
    fn open() -> Result<Self, mdns_sd::Error> {
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        let happened = daemon.monitor()?;
        let found = daemon.browse(SERVICE)?;
        Ok(Self { daemon, found, happened })
    }

    fn browse_again(&self) -> Result<Receiver<ServiceEvent>, mdns_sd::Error> {
        self.daemon.stop_browse(SERVICE)?;
        self.daemon.browse(SERVICE)
    }
}

struct Finder {
    listen: SocketAddr,
    membership: Arc<Membership>,
    dials: Dials,
    events: mpsc::UnboundedSender<Event>,
    /// Random, new with every start: nobody is followed by it.
    instance: String,
    words: Option<Words>,
    hints: Hints,
    targets: BTreeSet<(NodeId, SocketAddr)>,
    sight: Sight,
    told: Option<Sight>,
    nearby: Vec<Nearby>,
    view: Arc<View>,
    networks: Networks,
}

impl Finder {
    fn new(
        listen: SocketAddr,
        membership: Arc<Membership>,
        dials: Dials,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let mut random = [0; 8];
        // Without randomness the node would not have a key either; a fixed name would merely be probed for.
        let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
        let view = membership.view();
        Self {
            listen,
            membership,
            dials,
            events,
            instance: format!("{:016x}", u64::from_be_bytes(random)),
            words: None,
            hints: Hints::default(),
            targets: BTreeSet::new(),
            sight: Sight::default(),
            told: None,
            nearby: Vec::new(),
            view,
            networks: Networks::new(own()),
        }
    }

    fn fullname(&self) -> String {
        format!("{}.{SERVICE}", self.instance)
    }

    async fn run(&mut self, mut stopping: oneshot::Receiver<()>, alarm: &Alarm) {
        loop {
            let air = match Air::open() {
                Ok(air) => air,
                Err(error) => {
                    crate::log::warn(&format!("other nodes cannot be looked for by mDNS: {error}"));
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => continue,
                        _ = &mut stopping => return,
                    }
                }
            };
            self.words = None;
            let again = self.listen_to(&air, &mut stopping, alarm).await;
            if self.words.is_some()
                && let Ok(done) = air.daemon.unregister(&self.fullname())
            {
                let _ = tokio::time::timeout(GOODBYE_WITHIN / 2, done.recv_async()).await;
            }
            if let Ok(done) = air.daemon.shutdown() {
                let _ = tokio::time::timeout(GOODBYE_WITHIN / 4, done.recv_async()).await;
            }
            if !again {
                return;
            }
            self.hints.clear();
            self.update();
        }
    }

    /// Until the daemon has to be started anew (true) or the node ends (false).
    async fn listen_to(&mut self, air: &Air, stopping: &mut oneshot::Receiver<()>, alarm: &Alarm) -> bool {
        let mut view: watch::Receiver<Arc<View>> = self.membership.subscribe();
        view.mark_changed();
        alarm.set(Duration::ZERO);
        let mut found = air.found.clone();
        let mut asked_at = Instant::now();
        let mut ahead = boot_ahead();
        let mut collect: Option<tokio::time::Instant> = None;
        loop {
            let dirty = tokio::select! {
                biased;
                _ = &mut *stopping => return false,
                changed = view.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                    self.view = view.borrow_and_update().clone();
                    self.announce(air, false);
                    true
                }
                () = tokio::time::sleep_until(collect.unwrap_or_else(tokio::time::Instant::now)), if collect.is_some() => {
                    collect = None;
                    self.update();
                    false
                }
                event = found.recv_async() => match event {
                    Ok(event) => self.heard(event),
                    // It fell too far behind in a flood. What is known stays known.
                    Err(_) => {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        match air.browse_again() {
                            Ok(again) => found = again,
                            Err(_) => return true,
                        }
                        false
                    }
                },
                event = air.happened.recv_async() => match event {
                    Ok(DaemonEvent::IpAdd(_) | DaemonEvent::IpDel(_)) => match self.network_changed() {
                        // The daemon would tell again what it heard in the other network, for two minutes.
                        Change::Moved => return true,
                        change => change == Change::Addresses,
                    },
                    Ok(_) => false,
                    Err(_) => return true,
                },
                () = alarm.rings() => {
                    alarm.set(LOOK_EVERY);
                    let change = self.network_changed();
                    if change == Change::Moved {
                        return true;
                    }
                    let now = boot_ahead();
                    let slept = now > ahead + SLEPT;
                    ahead = now;
                    if slept || asked_at.elapsed() >= ASK_EVERY {
                        asked_at = Instant::now();
                        match air.browse_again() {
                            Ok(again) => found = again,
                            Err(_) => return true,
                        }
                    }
                    if slept {
                        crate::log::info("this PC slept; it is announced anew");
                        self.announce(air, true);
                        self.dials.wake();
                    }
                    if records(air).await > RECORDS_MAX {
                        crate::log::warn("a flood of mDNS announcements; what was heard of other nodes is dropped");
                        return true;
                    }
                    slept || change == Change::Addresses
                }
            };
            if dirty && collect.is_none() {
                collect = Some(tokio::time::Instant::now() + COLLECT);
            }
        }
    }

    /// Announces what holds now, if that is news. `anew`: also if it is not.
    fn announce(&mut self, air: &Air, anew: bool) {
        let words = self.view.team.filter(|_| self.view.joined && !self.listen.ip().is_loopback()).map(|team| Words {
            team: TeamTag::of(team),
            name: clean(self.membership.list().name.unwrap_or_default().as_bytes(), HINT_NAME_BYTES_MAX),
            keeper: self.view.members.get(&self.membership.identity().id()).is_some_and(|m| m.role == Role::Keeper),
        });
        if words == self.words && !anew {
            return;
        }
        if self.words.as_ref().map(|w| w.team) != words.as_ref().map(|w| w.team) {
            self.sight = Sight::default();
        }
        let done = match &words {
            None if self.words.is_none() => Ok(()),
            None => air.daemon.unregister(&self.fullname()).map(drop),
            Some(words) => self.service(words).and_then(|service| air.daemon.register(service)),
        };
        if let Err(error) = done {
            crate::log::warn(&format!("this node is not announced: {error}"));
        }
        self.sight.announced_at = words.as_ref().map(|_| Instant::now());
        self.words = words;
    }

    fn service(&self, words: &Words) -> Result<ServiceInfo, mdns_sd::Error> {
        let node = NodePrefix::of(self.membership.identity().id()).text();
        let team = words.team.text();
        let mut txt = vec![("v", "1"), ("id", &node), ("team", &team), ("name", &words.name)];
        if words.keeper {
            txt.push(("keeper", "1"));
        }
        let ip = self.listen.ip();
        let is_any = ip.is_unspecified();
        let addresses = if is_any { String::new() } else { ip.to_string() };
        let host = format!("potluck-{}.local.", self.instance);
        let mut service =
            ServiceInfo::new(SERVICE, &self.instance, &host, addresses.as_str(), self.listen.port(), &txt[..])?;
        // The names are 64 random bits: asking for 0.75 s whether somebody has them finds nobody.
        service.set_requires_probe(false);
        Ok(if is_any { service.enable_addr_auto() } else { service })
    }

    /// An announcement came or went. True: something is to be told.
    fn heard(&mut self, event: ServiceEvent) -> bool {
        match event {
            ServiceEvent::ServiceResolved(service) => self.resolved(&service),
            ServiceEvent::ServiceRemoved(_, name) => {
                let Some((gone, is_last)) = self.hints.gone(&name) else { return false };
                if is_last
                    && self.view.team.is_some_and(|team| TeamTag::of(team) == gone.team)
                    && let Some(node) = member(&self.view, gone.node)
                {
                    self.tell(News::Gone(node));
                }
                true
            }
            _ => false,
        }
    }

    fn resolved(&mut self, service: &ResolvedService) -> bool {
        if service.fullname == self.fullname() {
            return !std::mem::replace(&mut self.sight.own_seen, true);
        }
        let addresses = service.addresses.iter().map(|ip| socket_address(ip, service.port));
        let properties = &service.txt_properties;
        let Some(new) = Announcement::read(&service.fullname, service.port, addresses, |key| {
            properties.get_property_val(key).flatten()
        }) else {
            return false;
        };
        if new.node == NodePrefix::of(self.membership.identity().id()) {
            // An earlier start of this node, or somebody who says to be it.
            return false;
        }
        let view = Arc::clone(&self.view);
        let again = new.clone();
        if !self.hints.announced(new, |prefix| member(&view, prefix).is_some()) {
            return false;
        }
        // A node that started anew is tried at once, also where it was before.
        if self.view.team.is_some_and(|team| TeamTag::of(team) == again.team)
            && let Some(node) = member(&view, again.node)
        {
            for address in &again.addresses {
                self.targets.insert((node, *address));
                self.dials.hint(node, address.to_string());
            }
        }
        true
    }

    /// Looks at the own addresses. After a move nothing that was seen means anything, and all begins anew.
    fn network_changed(&mut self) -> Change {
        let change = self.networks.changed(own());
        if change != Change::Same {
            self.dials.wake();
        }
        if change == Change::Moved {
            self.sight = Sight { announced_at: self.words.as_ref().map(|_| Instant::now()), ..Sight::default() };
        }
        change
    }

    /// Tells dialler and loop what changed.
    fn update(&mut self) {
        let tag = self.view.team.filter(|_| self.view.joined).map(TeamTag::of);
        let view = Arc::clone(&self.view);
        let now: BTreeSet<(NodeId, SocketAddr)> =
            tag.map(|tag| self.hints.targets(tag, |p| member(&view, p))).unwrap_or_default().into_iter().collect();
        for (node, address) in self.targets.difference(&now) {
            self.dials.hint_gone(*node, address.to_string());
        }
        for (node, address) in now.difference(&self.targets) {
            self.dials.hint(*node, address.to_string());
        }
        self.targets = now;
        self.networks.seen_at(self.targets.iter().map(|(_, address)| address.ip()));
        self.sight.members = self.targets.iter().map(|(node, _)| *node).collect();
        self.sight.others_seen |= !self.sight.members.is_empty();
        if self.told.as_ref() != Some(&self.sight) {
            self.told = Some(self.sight.clone());
            self.tell(News::Sight(self.sight.clone()));
        }
        let nearby = self.hints.nearby(tag);
        if nearby != self.nearby {
            self.nearby = nearby.clone();
            self.send(Event::Nearby(nearby));
        }
    }

    fn tell(&self, news: News) {
        self.send(Event::Discovery(news));
    }

    fn send(&self, event: Event) {
        // If the loop is gone, the node ends.
        let _ = self.events.send(event);
    }
}

/// Where others may be met on the local networks.
fn own() -> BTreeSet<Own> {
    let live = crate::net::own_addresses().into_iter().filter(|a| a.is_live);
    live.map(|a| Own { ip: a.ip, bits: a.bits }).collect()
}

/// The member with this beginning of its id, this node left out by whoever asks.
fn member(view: &View, prefix: NodePrefix) -> Option<NodeId> {
    let mut first = [0; 32];
    first[..8].copy_from_slice(&prefix.0.to_be_bytes());
    view.members.range(NodeId(first)..).next().map(|(id, _)| *id).filter(|id| NodePrefix::of(*id) == prefix)
}

/// Where to dial an announced address: link-local ones only mean something on the interface where they were heard.
fn socket_address(ip: &ScopedIp, port: u16) -> SocketAddr {
    match ip {
        ScopedIp::V6(v6) if v6.addr().is_unicast_link_local() => {
            SocketAddr::V6(SocketAddrV6::new(*v6.addr(), port, 0, v6.scope_id().index))
        }
        other => SocketAddr::new(other.to_ip_addr(), port),
    }
}

/// How far the clock that goes on in sleep is ahead of the one that does not.
fn boot_ahead() -> Duration {
    let time = |id| {
        let t = clock_gettime(id);
        Duration::new(t.tv_sec.max(0) as u64, t.tv_nsec as u32)
    };
    time(ClockId::Boottime).saturating_sub(time(ClockId::Monotonic))
}

/// Records that the daemon holds.
async fn records(air: &Air) -> i64 {
    let Ok(metrics) = air.daemon.get_metrics() else { return 0 };
    match tokio::time::timeout(Duration::from_secs(2), metrics.recv_async()).await {
        Ok(Ok(all)) => all.iter().filter(|(name, _)| name.starts_with("cached-")).map(|(_, count)| *count).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_link_local_address_is_dialled_on_the_interface_where_it_was_heard() {
        let text = socket_address(&"fe80::1".parse::<IpAddr>().unwrap().into(), 7).to_string();
        assert_eq!(text, "[fe80::1]:7");
        let scoped = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0, 3));
        assert_eq!(scoped.to_string(), "[fe80::1%3]:7");
        assert_eq!("[fe80::1%3]:7".parse::<SocketAddr>().unwrap(), scoped, "the dialler reads it again");
    }

    #[test]
    fn the_clocks_run_together_while_nobody_sleeps() {
        let before = boot_ahead();
        assert!(boot_ahead().abs_diff(before) < SLEPT);
    }
}
