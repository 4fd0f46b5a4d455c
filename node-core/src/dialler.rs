//! Keeps trying the addresses of members that have no link: those that a person typed, those of statements and of
//! earlier links, and hints of the network. What answers is believed because of its key, never because of its address.
//!
//! Each member has at most two tasks, one for addresses that are known and one for hints, and each goes through its
//! addresses one by one. Hints can be anybody's inventions: they are dialled with the member's key expected, few at a
//! time, and ever more rarely where nobody answers.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use potluck_model::ids::NodeId;
use potluck_model::limits::{HINT_DIALS_MAX, HINT_DIALS_PER_SECOND_MAX, HINT_TIMEOUT, TYPED_ADDRESSES_MAX};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::core::Event;
use crate::membership::Membership;
use crate::transport::link::{self, Link};

/// Pause after the first failure, and after a link that ended.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// Longest pause for what a person typed.
const PAUSE_TYPED_MAX: Duration = Duration::from_secs(5);
/// Longest pause for addresses of statements and of earlier links: most of them are of PCs that are off.
const PAUSE_KNOWN_MAX: Duration = Duration::from_secs(30);
/// First pause after a hint that led nowhere ...
const PAUSE_HINT: Duration = Duration::from_secs(1);
/// ... and the longest.
const PAUSE_HINT_MAX: Duration = Duration::from_secs(60);
/// A hint that is announced anew is tried at once, but not more often than this.
const AGAIN_EVERY: Duration = Duration::from_secs(5);
/// A link that lives less than this counts as a failure: where each ends right after its hello, dialling at once would go
/// on for ever.
const LINK_LIVES: Duration = Duration::from_secs(10);
/// Addresses of one member and kind: those of its statement, of earlier links, or of all its announcements.
const ADDRESSES_MAX: usize = 32;
/// Addresses of a typed name that are tried, one after the other.
const RESOLVED_MAX: usize = 8;

enum Order {
    Typed(String),
    Known(NodeId, String),
    Hint(NodeId, String),
    HintGone(NodeId, String),
    Forget(String),
    Wake,
}

/// Tells the dialler what to try.
#[derive(Clone)]
pub struct Dials(mpsc::UnboundedSender<Order>);

/// What the dialler is told, until it runs.
pub struct Orders(mpsc::UnboundedReceiver<Order>);

/// The dialler is gone: the node ends.
#[derive(Debug)]
pub struct Gone;

impl Dials {
    /// A channel to a dialler that is still to be started.
    pub fn new() -> (Self, Orders) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Orders(receiver))
    }

    /// An address that a person typed: any member may answer there.
    pub fn send(&self, address: String) -> Result<(), Gone> {
        self.0.send(Order::Typed(address)).map_err(|_| Gone)
    }

    /// An address where this member was, or says to be by a statement.
    pub fn known(&self, node: NodeId, address: String) {
        let _ = self.0.send(Order::Known(node, address));
    }

    /// An address that the network names for this member.
    pub fn hint(&self, node: NodeId, address: String) {
        let _ = self.0.send(Order::Hint(node, address));
    }

    /// The network names it no more.
    pub fn hint_gone(&self, node: NodeId, address: String) {
        let _ = self.0.send(Order::HintGone(node, address));
    }

    /// Wherever it came from, it is not tried any more.
    pub fn forget(&self, address: String) {
        let _ = self.0.send(Order::Forget(address));
    }

    /// The network changed or this PC slept: everything is tried now.
    pub fn wake(&self) {
        let _ = self.0.send(Order::Wake);
    }
}

/// Where a dial comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    Known,
    Hint,
}

impl Kind {
    fn pause(self, failures: u32) -> Duration {
        let (first, longest) = match self {
            Self::Known => (PAUSE_FIRST, PAUSE_KNOWN_MAX),
            Self::Hint => (PAUSE_HINT, PAUSE_HINT_MAX),
        };
        first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest)
    }
}

/// What came of a dial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dialled {
    /// No link that lasted.
    Failed,
    /// A link, over by now, or the member has one by another way.
    Linked,
}

impl Dialled {
    /// What a link was worth that lived so long.
    fn after(lived: Duration) -> Self {
        if lived < LINK_LIVES { Self::Failed } else { Self::Linked }
    }
}

/// The pause before a typed address is dialled again, and the one after that.
fn pauses_typed(pause: Duration, dialled: Dialled) -> (Duration, Duration) {
    let pause = if dialled == Dialled::Linked { PAUSE_FIRST } else { pause };
    (pause, (pause * 2).min(PAUSE_TYPED_MAX))
}

/// One address of a member.
struct Route {
    address: String,
    failures: u32,
    next_at: Instant,
    poked_at: Instant,
}

/// The addresses of one member and kind.
#[derive(Default)]
struct Routes {
    all: Mutex<Vec<Route>>,
    changed: Notify,
}

impl Routes {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<Route>) -> T) -> T {
        work(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, address: String, now: Instant) {
        self.with(|all| {
            if let Some(known) = all.iter_mut().find(|r| r.address == address) {
                if now >= known.poked_at + AGAIN_EVERY {
                    (known.poked_at, known.next_at) = (now, now.min(known.next_at));
                }
                return;
            }
            if all.len() >= ADDRESSES_MAX {
                // Whatever led nowhere most often makes room.
                let worst = all.iter().enumerate().max_by_key(|(_, r)| r.failures).map(|(at, _)| at);
                all.swap_remove(worst.unwrap_or(0));
            }
            all.push(Route { address, failures: 0, next_at: now, poked_at: now });
        });
        self.changed.notify_one();
    }

    /// True: nothing is left.
    fn remove(&self, address: &str) -> bool {
        self.with(|all| {
            all.retain(|r| r.address != address);
            all.is_empty()
        })
    }

    fn wake(&self, now: Instant) {
        self.with(|all| all.iter_mut().for_each(|r| (r.failures, r.next_at) = (0, now)));
        self.changed.notify_one();
    }

    /// The address to try next, and when.
    fn next(&self) -> Option<(String, Instant)> {
        self.with(|all| all.iter().min_by_key(|r| r.next_at).map(|r| (r.address.clone(), r.next_at)))
    }

    fn tried(&self, kind: Kind, address: &str, dialled: Dialled, now: Instant) {
        self.with(|all| {
            let Some(route) = all.iter_mut().find(|r| r.address == address) else { return };
            let (failures, pause) = match dialled {
                Dialled::Linked => (0, PAUSE_FIRST),
                Dialled::Failed => (route.failures + 1, kind.pause(route.failures + 1)),
            };
            (route.failures, route.next_at) = (failures, now + pause);
        });
    }
}

/// Ends its task when it is dropped. The link that the task made lives on.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What all tasks share.
#[derive(Clone)]
struct Shared {
    membership: Arc<Membership>,
    events: mpsc::UnboundedSender<Event>,
    linked: watch::Receiver<HashSet<NodeId>>,
    hints: Arc<Semaphore>,
    next_hint: Arc<Mutex<Instant>>,
}

/// Runs until every [`Dials`] is dropped.
pub async fn run(
    mut orders: Orders,
    membership: Arc<Membership>,
    events: mpsc::UnboundedSender<Event>,
    linked: watch::Receiver<HashSet<NodeId>>,
) {
    let mut view = membership.subscribe();
    let shared = Shared {
        membership,
        events,
        linked,
        hints: Arc::new(Semaphore::new(HINT_DIALS_MAX)),
        next_hint: Arc::new(Mutex::new(Instant::now())),
    };
    let mut typed: HashMap<String, (Arc<Notify>, Task)> = HashMap::new();
    let mut members: HashMap<(NodeId, Kind), (Arc<Routes>, Task)> = HashMap::new();
    view.mark_changed();
    loop {
        let order = tokio::select! {
            order = orders.0.recv() => match order {
                Some(order) => order,
                None => return,
            },
            changed = view.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = view.borrow_and_update().clone();
                members.retain(|(node, _), _| now.is_member(*node));
                for (address, node) in now.members.values().flat_map(|m| m.addresses.iter().map(move |a| (a, m.node))) {
                    add(&shared, &mut members, (node, Kind::Known), address.clone());
                }
                continue;
            }
        };
        match order {
            Order::Typed(address) => {
                if typed.len() < TYPED_ADDRESSES_MAX && !typed.contains_key(&address) {
                    let wake = Arc::new(Notify::new());
                    let task = tokio::spawn(keep_dialling(shared.clone(), address.clone(), Arc::clone(&wake)));
                    typed.insert(address, (wake, Task(task)));
                }
            }
            Order::Known(node, address) => add(&shared, &mut members, (node, Kind::Known), address),
            Order::Hint(node, address) => add(&shared, &mut members, (node, Kind::Hint), address),
            Order::HintGone(node, address) => {
                if members.get(&(node, Kind::Hint)).is_some_and(|(routes, _)| routes.remove(&address)) {
                    members.remove(&(node, Kind::Hint));
                }
            }
            Order::Forget(address) => {
                typed.remove(&address);
                members.retain(|_, (routes, _)| !routes.remove(&address));
            }
            Order::Wake => {
                typed.values().for_each(|(wake, _)| wake.notify_one());
                members.values().for_each(|(routes, _)| routes.wake(Instant::now()));
            }
        }
    }
}

fn add(
    shared: &Shared,
    members: &mut HashMap<(NodeId, Kind), (Arc<Routes>, Task)>,
    key: (NodeId, Kind),
    address: String,
) {
    if key.0 == shared.membership.identity().id() || !shared.membership.is_member(key.0) {
        return;
    }
    let (routes, _) = members.entry(key).or_insert_with(|| {
        let routes = Arc::new(Routes::default());
        let task = tokio::spawn(keep_reaching(shared.clone(), key.0, key.1, Arc::clone(&routes)));
        (routes, Task(task))
    });
    routes.add(address, Instant::now());
}

/// Tries one member's addresses for as long as it has no link.
async fn keep_reaching(mut shared: Shared, node: NodeId, kind: Kind, routes: Arc<Routes>) {
    loop {
        if shared.linked.wait_for(|linked| !linked.contains(&node)).await.is_err() {
            return;
        }
        match routes.next() {
            None => {
                routes.changed.notified().await;
                continue;
            }
            Some((_, at)) if at > Instant::now() => {
                tokio::select! { () = sleep_until(at) => {}, () = routes.changed.notified() => {} }
                continue;
            }
            Some((address, _)) => {
                let dialled = shared.reach(node, kind, &address).await;
                routes.tried(kind, &address, dialled, Instant::now());
            }
        }
    }
}

impl Shared {
    /// One dial; returns when the link that came of it has ended.
    async fn reach(&mut self, node: NodeId, kind: Kind, address: &str) -> Dialled {
        let link = match kind {
            Kind::Known => self.dial(address, Some(node)).await,
            Kind::Hint => {
                let Ok(_permit) = self.hints.acquire().await else { return Dialled::Failed };
                let turn = {
                    let mut next = self.next_hint.lock().unwrap_or_else(PoisonError::into_inner);
                    let turn = Instant::now().max(*next);
                    *next = turn + Duration::from_secs(1) / HINT_DIALS_PER_SECOND_MAX;
                    turn
                };
                sleep_until(turn).await;
                // While it waited for its turn another address may have answered.
                if self.linked.borrow().contains(&node) {
                    return Dialled::Linked;
                }
                timeout(HINT_TIMEOUT, self.dial(address, Some(node))).await.unwrap_or(None)
            }
        };
        match link {
            Some(link) => self.hand_over(link).await,
            None => Dialled::Failed,
        }
    }

    async fn dial(&self, address: &str, expected: Option<NodeId>) -> Option<Link> {
        let found: Vec<_> = tokio::net::lookup_host(address).await.into_iter().flatten().take(RESOLVED_MAX).collect();
        if found.is_empty() {
            crate::log::debug(|| format!("{address} does not resolve"));
        }
        // A name may have an IPv6 address where only IPv4 leads there, or the other way round.
        for addr in found {
            match link::dial(&self.membership, addr, expected).await {
                Ok(link) => return Some(link),
                Err(error) => crate::log::debug(|| format!("{error}")),
            }
        }
        None
    }

    /// Gives the link to the node and waits for its end.
    async fn hand_over(&mut self, link: Link) -> Dialled {
        let (closer, peer, since) = (link.closer.clone(), link.peer, Instant::now());
        if self.events.send(Event::LinkUp(Box::new(link))).is_err() {
            return Dialled::Failed;
        }
        closer.closed().await;
        // Of two connections between two nodes one is closed at once; the other one will do.
        let _ = self.linked.wait_for(|linked| !linked.contains(&peer)).await;
        Dialled::after(since.elapsed())
    }
}

/// Tries an address of which nobody knows whose it is.
async fn keep_dialling(mut shared: Shared, address: String, wake: Arc<Notify>) {
    let mut pause = PAUSE_FIRST;
    loop {
        let mut dialled = Dialled::Failed;
        if shared.membership.view().joined
            && let Some(link) = shared.dial(&address, None).await
        {
            dialled = shared.hand_over(link).await;
        }
        let (now, next) = pauses_typed(pause, dialled);
        tokio::select! {
            () = tokio::time::sleep(now) => pause = next,
            () = wake.notified() => pause = PAUSE_FIRST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_that_leads_nowhere_is_tried_ever_more_rarely() {
        let pauses: Vec<u64> = (1..9).map(|n| Kind::Hint.pause(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(Kind::Known.pause(u32::MAX), PAUSE_KNOWN_MAX);
    }

    /// Milliseconds until it is tried again, after links that lived so long.
    fn waits_ms(routes: &Routes, kind: Kind, lived: Duration) -> u128 {
        let now = Instant::now();
        routes.tried(kind, "a:1", Dialled::after(lived), now);
        (routes.next().unwrap().1 - now).as_millis()
    }

    #[tokio::test]
    async fn links_that_end_right_after_their_hello_are_dialled_ever_more_rarely() {
        let (routes, short) = (Routes::default(), Duration::from_millis(50));
        routes.add("a:1".into(), Instant::now());
        let waits: Vec<u128> = (0..10).map(|_| waits_ms(&routes, Kind::Known, short)).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(waits_ms(&routes, Kind::Hint, short), PAUSE_HINT_MAX.as_millis());
        // A peer that served well and started anew is dialled at once, whatever was before.
        assert_eq!(waits_ms(&routes, Kind::Known, LINK_LIVES), 200);
        assert_eq!(waits_ms(&routes, Kind::Known, short), 200);
    }

    #[test]
    fn a_typed_address_whose_links_end_at_once_is_dialled_ever_more_rarely() {
        let mut pause = PAUSE_FIRST;
        let mut wait_ms = |lived| {
            let (now, next) = pauses_typed(pause, Dialled::after(lived));
            pause = next;
            now.as_millis()
        };
        let waits: Vec<u128> = (0..7).map(|_| wait_ms(Duration::from_secs(1))).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!([wait_ms(LINK_LIVES), wait_ms(Duration::ZERO)], [200, 400]);
    }

    #[tokio::test]
    async fn an_address_that_is_named_again_and_again_is_not_dialled_more_often() {
        let (routes, now) = (Routes::default(), Instant::now());
        routes.add("a:1".into(), now);
        for _ in 0..3 {
            routes.tried(Kind::Hint, "a:1", Dialled::Failed, Instant::now());
        }
        let (_, due) = routes.next().unwrap();
        routes.add("a:1".into(), now + Duration::from_secs(1));
        assert_eq!(routes.next().unwrap().1, due);
        routes.add("a:1".into(), now + AGAIN_EVERY);
        assert_eq!(routes.next().unwrap().1, due.min(now + AGAIN_EVERY));
    }

    #[tokio::test]
    async fn what_led_nowhere_makes_room_for_what_was_not_tried() {
        let (routes, now) = (Routes::default(), Instant::now());
        (0..ADDRESSES_MAX).for_each(|n| routes.add(format!("a:{n}"), now));
        routes.tried(Kind::Hint, "a:7", Dialled::Failed, now);
        routes.add("new:1".into(), now);
        let all: Vec<String> = routes.with(|all| all.iter().map(|r| r.address.clone()).collect());
        assert_eq!(all.len(), ADDRESSES_MAX);
        assert!(all.contains(&"new:1".to_owned()) && !all.contains(&"a:7".to_owned()));
    }
}
