//! The door of the team: PCs that wait for a keeper's yes, bounded in number and time, and who came in. What they said on
//! the way is checked by the join protocol; what a keeper thinks of it comes from the core.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use potluck_model::ids::NodeId;
use potluck_model::limits::{ASKING_MAX, ASKING_PER_ADDRESS_MAX};
use potluck_model::team::check::Check;
use potluck_model::tries::Tries;
use tokio::sync::oneshot;

/// A PC that waits for a keeper's yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// Number of this attempt, for the answer.
    pub id: u64,
    /// Its key, which the handshake has proved.
    pub node: NodeId,
    /// Name that it gave itself: shown as text only.
    pub name: String,
    /// Where it asks from.
    pub address: SocketAddr,
    /// Must be the same on its screen.
    pub check: Check,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
    /// It has proved an invitation.
    pub invited: bool,
}

/// What happened at the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Somebody came to wait, or waits no more.
    Changed,
    /// A PC was taken in.
    Admitted {
        /// Who.
        node: NodeId,
        /// Its name.
        name: String,
        /// What both screens showed; none if it shows no pictures.
        check: Option<Check>,
    },
}

/// Told of all news, on the thread where they happen: it must not wait.
pub type Listener = Box<dyn Fn(News) + Send + Sync>;

struct Place {
    asking: Asking,
    network: IpAddr,
    answer: oneshot::Sender<bool>,
}

#[derive(Default)]
struct State {
    next: u64,
    places: BTreeMap<u64, Place>,
    tries: Tries,
    /// When the first try was made: times in `tries` are since then.
    began: Option<Instant>,
}

impl State {
    /// Whether there is a place for one more from this network, of those with or without an invitation.
    fn make_room(&mut self, invited: bool, network: IpAddr) -> bool {
        let alike = || self.places.iter().filter(|(_, place)| place.asking.invited == invited);
        let of = |network: IpAddr| alike().filter(|(_, place)| place.network == network).count();
        if of(network) >= ASKING_PER_ADDRESS_MAX {
            return false;
        }
        if alike().count() < ASKING_MAX {
            return true;
        }
        let Some(crowded) = alike().map(|(_, place)| place.network).max_by_key(|other| of(*other)) else {
            return false;
        };
        if of(network) > 0 || of(crowded) < 2 {
            return false;
        }
        let latest = alike().filter(|(_, place)| place.network == crowded).map(|(id, _)| *id).max();
        latest.is_some_and(|id| self.places.remove(&id).is_some())
    }
}

/// Who waits.
#[derive(Default)]
pub struct Door {
    state: Mutex<State>,
    listener: OnceLock<Listener>,
}

impl Door {
    /// From now on `listener` hears of everything. The first one holds.
    pub fn listen(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    /// All who wait, longest first.
    pub fn waiting(&self) -> Vec<Asking> {
        self.lock().places.values().map(|place| place.asking.clone()).collect()
    }

    /// A keeper's answer. False if nobody of this number waits any more.
    pub fn answer(&self, id: u64, yes: bool) -> bool {
        let place = self.lock().places.remove(&id);
        let heard = place.is_some_and(|place| place.answer.send(yes).is_ok());
        self.tell(News::Changed);
        heard
    }

    /// Sends all away: this node is no keeper any more, or in no team.
    pub fn clear(&self) {
        let all = std::mem::take(&mut self.lock().places);
        if !all.is_empty() {
            for place in all.into_values() {
                let _ = place.answer.send(false);
            }
            self.tell(News::Changed);
        }
    }

    /// Whether a stranger without a link is listened to now; if not, when it may ask again.
    pub(crate) fn may_try(&self, network: IpAddr) -> Result<(), Duration> {
        let mut state = self.lock();
        let now = state.began.get_or_insert_with(Instant::now).elapsed();
        state.tries.may_try(network, now)
    }

    /// Waits from now on; `asking.id` is given here. `network` is what counts as one address. None: too many wait. A PC
    /// that asks again takes its own earlier place; where all places are taken, an address that has several gives up the
    /// latest of them for one that has none.
    pub(crate) fn enter(self: &Arc<Self>, mut asking: Asking, network: IpAddr) -> Option<Waiting> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut state = self.lock();
            state.places.retain(|_, place| place.asking.node != asking.node);
            state.make_room(asking.invited, network).then(|| {
                state.next += 1;
                asking.id = state.next;
                state.places.insert(asking.id, Place { asking, network, answer });
                state.next
            })
        };
        self.tell(News::Changed);
        Some(Waiting { door: Arc::clone(self), id: id?, answered })
    }

    pub(crate) fn tell(&self, news: News) {
        if let Some(listener) = self.listener.get() {
            listener(news);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one call of the map: a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place at the door, given back when it is dropped.
pub(crate) struct Waiting {
    door: Arc<Door>,
    id: u64,
    answered: oneshot::Receiver<bool>,
}

impl Waiting {
    /// The keeper's answer. None: the place was given to somebody else.
    pub(crate) async fn answered(&mut self) -> Option<bool> {
        (&mut self.answered).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let was_there = self.door.lock().places.remove(&self.id).is_some();
        if was_there {
            self.door.tell(News::Changed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(n: u8) -> Asking {
        let address = SocketAddr::from(([192, 0, 2, n], 1000));
        let check = Check::of(&[n; 32]);
        Asking { id: 0, node: NodeId([n; 32]), name: "pc".into(), address, check, since_ms: 0, invited: false }
    }

    fn enter(door: &Arc<Door>, n: u8, network: u8) -> Option<Waiting> {
        door.enter(asking(n), IpAddr::from([192, 0, 2, network]))
    }

    #[test]
    fn only_so_many_wait_and_one_address_cannot_take_all_places() {
        let door = Arc::new(Door::default());
        let of_one: Vec<_> = (0..10).filter_map(|n| enter(&door, n, 1)).collect();
        assert_eq!(of_one.len(), ASKING_PER_ADDRESS_MAX);
        let others: Vec<_> = (10..40).filter_map(|n| enter(&door, n, n)).collect();
        // Of the one that had several only the first waits still.
        assert_eq!(others.len(), ASKING_MAX - 1);
        assert_eq!(door.waiting().len(), ASKING_MAX);
        assert!(door.waiting().iter().any(|asking| asking.node == NodeId([0; 32])));
        drop(others);
        assert!(enter(&door, 50, 50).is_some(), "places come back");
    }

    #[test]
    fn an_address_with_several_places_gives_one_up_for_an_address_with_none() {
        let door = Arc::new(Door::default());
        let mut of_two: Vec<_> = (0..8).filter_map(|n| enter(&door, n, n % 2)).collect();
        assert_eq!(of_two.len(), ASKING_MAX);
        let other = enter(&door, 50, 50).expect("a place");
        assert_eq!(door.waiting().len(), ASKING_MAX);
        let closed = |w: &mut Waiting| w.answered.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        assert_eq!(of_two.iter_mut().map(closed).filter(|is_closed| *is_closed).count(), 1);
        assert!(enter(&door, 60, 0).is_none(), "it has its share");
        // Who has proved an invitation is apart from all of them.
        let invited = Asking { invited: true, ..asking(70) };
        assert!(door.enter(invited, IpAddr::from([192, 0, 2, 0])).is_some());
        drop(other);
    }

    #[tokio::test]
    async fn who_asks_again_takes_its_own_place_and_the_answer_goes_to_the_newer() {
        let door = Arc::new(Door::default());
        let mut first = enter(&door, 1, 1).unwrap();
        let mut second = enter(&door, 1, 1).unwrap();
        assert_eq!(first.answered().await, None, "its place is gone");
        drop(first);
        let waiting = door.waiting();
        assert_eq!(waiting.len(), 1);
        assert!(door.answer(waiting[0].id, true));
        assert!(!door.answer(waiting[0].id, true), "an answer is given once");
        assert_eq!(second.answered().await, Some(true));
    }
}
