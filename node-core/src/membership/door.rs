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

/// Tries of strangers without a link that are listened to at once, all together; after them one each `TRY_INTERVAL`.
/// Somebody in the middle can break off as soon as he sees that his pictures differ, before anyone is shown them: with
/// one try a second in the ten minutes that a joiner waits, he succeeds once in 27,000 attacks, whatever addresses he has.
const TRIES: u32 = 8;
/// See `TRIES`.
const TRY_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    next: u64,
    places: BTreeMap<u64, Place>,
    /// When all tries that were made are paid for.
    paid: Option<Instant>,
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
            self.tell(News::Changed);
        }
    }

    /// Whether one more stranger without a link is listened to now.
    pub(crate) fn may_try(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let paid = state.paid.unwrap_or(now).max(now) + TRY_INTERVAL;
        let may = paid <= now + TRY_INTERVAL * TRIES;
        if may {
            state.paid = Some(paid);
        }
        may
    }

    /// Waits from now on; `asking.id` is given here. `network` is what counts as one address. None: too many wait. A PC
    /// that asks again takes its own earlier place.
    pub(crate) fn enter(self: &Arc<Self>, mut asking: Asking, network: IpAddr) -> Option<Waiting> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut state = self.lock();
            state.places.retain(|_, place| place.asking.node != asking.node);
            let of_address = state.places.values().filter(|place| place.network == network).count();
            if state.places.len() >= ASKING_MAX || of_address >= ASKING_PER_ADDRESS_MAX {
                None
            } else {
                state.next += 1;
                asking.id = state.next;
                state.places.insert(asking.id, Place { asking, network, answer });
                Some(state.next)
            }
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
    /// The keeper's answer; no if the place was taken away.
    pub(crate) async fn answered(&mut self) -> bool {
        (&mut self.answered).await.unwrap_or(false)
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
        assert_eq!(others.len() + of_one.len(), ASKING_MAX);
        drop(others);
        assert!(enter(&door, 50, 50).is_some(), "places come back");
    }

    #[test]
    fn strangers_together_have_few_tries() {
        let door = Door::default();
        assert_eq!((0..1000).filter(|_| door.may_try()).count(), TRIES as usize);
    }

    #[tokio::test]
    async fn who_asks_again_takes_its_own_place_and_the_answer_goes_to_the_newer() {
        let door = Arc::new(Door::default());
        let mut first = enter(&door, 1, 1).unwrap();
        let mut second = enter(&door, 1, 1).unwrap();
        assert!(!first.answered().await, "its place is gone");
        drop(first);
        let waiting = door.waiting();
        assert_eq!(waiting.len(), 1);
        assert!(door.answer(waiting[0].id, true));
        assert!(!door.answer(waiting[0].id, true), "an answer is given once");
        assert!(second.answered().await);
    }
}
