//! Whom a node listens to at its door: addresses whose handshakes failed often are refused before any cryptography, so
//! that a stranger who tries for ever costs nearly nothing.
//!
//! Each address has a bucket of failures. A first contact always finds it full, so whoever wants to join is heard. An
//! address that a member came from lately has a larger one: behind one router there may be a member and the stranger, and
//! of the handshakes that are heard there the member gets its part (at 100 attempts a second of the stranger each of its
//! own is heard with a chance of one in five, and a dialler tries again). That costs the CPU of twenty handshakes a second
//! where it happens, and nowhere else. Links that stand are not touched by any of this, nor are those that this node dials.

use core::net::IpAddr;
use std::collections::HashMap;
use std::time::Duration;

use crate::limits::DOOR_ADDRESSES_MAX;

/// Thousandths of a failure.
const ONE: u64 = 1000;
/// Failures in a row that every address has: a few PCs behind one router that are removed, or mistyped links.
const BURST: u64 = 10 * ONE;
/// Failures a second: five handshakes cost a node some 2 ms of CPU.
const PER_S: u64 = 5 * ONE;
/// The same for an address that a member came from.
const MEMBERS_BURST: u64 = 40 * ONE;
/// See `MEMBERS_BURST`.
const MEMBERS_PER_S: u64 = 20 * ONE;
/// A member's address counts as one for this long after it was there: a night.
const MEMBERS_FOR: Duration = Duration::from_secs(16 * 3600);

/// Room is made this often at most: a bucket is full again after two seconds.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What is left of an address's failures.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u64,
    at: Duration,
    member_until: Option<Duration>,
}

impl Bucket {
    fn full(now: Duration) -> Self {
        Self { left: BURST, at: now, member_until: None }
    }

    fn is_members(&self, now: Duration) -> bool {
        self.member_until.is_some_and(|until| now < until)
    }

    fn fill(&mut self, now: Duration) {
        let (most, per_s) = if self.is_members(now) { (MEMBERS_BURST, MEMBERS_PER_S) } else { (BURST, PER_S) };
        let passed_ms = now.saturating_sub(self.at).as_millis() as u64;
        let gained = passed_ms.saturating_mul(per_s) / 1000;
        self.left = self.left.saturating_add(gained).min(most);
        self.at = now;
    }

    /// Nothing is lost when it is forgotten.
    fn is_idle(&self, now: Duration) -> bool {
        let mut after = *self;
        after.fill(now);
        after.left >= BURST && !self.is_members(now)
    }
}

/// All addresses that failed lately, or that members came from. Of IPv6 the caller gives networks.
#[derive(Debug)]
pub struct Strangers {
    addresses: HashMap<IpAddr, Bucket>,
    /// One bucket for all that are too many to be remembered: a crowd that fails is one stranger.
    crowd: Bucket,
    /// When room was last made: not for each of a crowd.
    swept: Option<Duration>,
}

impl Default for Strangers {
    fn default() -> Self {
        Self { addresses: HashMap::new(), crowd: Bucket::full(Duration::ZERO), swept: None }
    }
}

impl Strangers {
    /// Whether a connection from this address is heard at all. It counts as a failure until something comes of it: many
    /// that are heard at the same moment are many. Times are since any fixed moment.
    pub fn hears(&mut self, address: IpAddr, now: Duration) -> bool {
        self.make_room(address, now);
        let bucket = self.bucket(address, now);
        bucket.fill(now);
        let is_heard = bucket.left >= ONE;
        bucket.left -= if is_heard { ONE } else { 0 };
        is_heard
    }

    /// Whether a member came from this address lately.
    pub fn is_members(&self, address: IpAddr, now: Duration) -> bool {
        self.addresses.get(&address).is_some_and(|bucket| bucket.is_members(now))
    }

    /// A connection that was heard was no failure: somebody asked to join.
    pub fn excused(&mut self, address: IpAddr, now: Duration) {
        let bucket = self.bucket(address, now);
        bucket.left += ONE;
        bucket.fill(now);
    }

    /// A connection that was heard is a member's.
    pub fn passed(&mut self, address: IpAddr, now: Duration) {
        if self.addresses.len() >= DOOR_ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            // A team has fewer members than there is room: some stranger makes it.
            let Some(out) = self.addresses.iter().find(|(_, b)| !b.is_members(now)).map(|(a, _)| *a) else { return };
            self.addresses.remove(&out);
        }
        self.bucket(address, now).member_until = Some(now + MEMBERS_FOR);
        self.excused(address, now);
    }

    fn bucket(&mut self, address: IpAddr, now: Duration) -> &mut Bucket {
        if self.addresses.len() < DOOR_ADDRESSES_MAX || self.addresses.contains_key(&address) {
            self.addresses.entry(address).or_insert_with(|| Bucket::full(now))
        } else {
            &mut self.crowd
        }
    }

    fn make_room(&mut self, address: IpAddr, now: Duration) {
        let is_full = self.addresses.len() >= DOOR_ADDRESSES_MAX && !self.addresses.contains_key(&address);
        if is_full && self.swept.is_none_or(|at| now >= at + SWEEP_EVERY) {
            self.swept = Some(now);
            self.addresses.retain(|_, bucket| !bucket.is_idle(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn address(n: usize) -> IpAddr {
        IpAddr::from([10, (n >> 16) as u8, (n >> 8) as u8, n as u8])
    }

    /// Handshakes that fail within ten seconds of 100 attempts a second.
    fn heard_in_ten_seconds(strangers: &mut Strangers, from: impl Fn(usize) -> IpAddr) -> usize {
        (0..1000).filter(|&n| strangers.hears(from(n), MS * 10 * n as u32)).count()
    }

    #[test]
    fn a_first_contact_is_heard_and_so_are_some_mistakes_in_a_row() {
        let mut strangers = Strangers::default();
        assert!((0..10).all(|_| strangers.hears(address(1), MS)));
        assert!(!strangers.hears(address(1), MS));
        assert!(strangers.hears(address(2), MS), "others are not meant");
        assert!(strangers.hears(address(1), MS * 202), "forgiven");
    }

    #[test]
    fn who_asks_to_join_again_and_again_is_heard() {
        let mut strangers = Strangers::default();
        for _ in 0..1000 {
            assert!(strangers.hears(address(1), MS));
            strangers.excused(address(1), MS);
        }
        // And has no more than everybody for that.
        assert_eq!((0..100).filter(|_| strangers.hears(address(1), MS)).count(), 10);
    }

    #[test]
    fn a_hundred_attempts_a_second_cost_five_handshakes_a_second() {
        let heard = heard_in_ten_seconds(&mut Strangers::default(), |_| address(1));
        assert!((55..=61).contains(&heard), "{heard}");
    }

    #[test]
    fn a_member_behind_the_strangers_address_is_heard_at_one_of_five_attempts() {
        let mut strangers = Strangers::default();
        assert!(strangers.hears(address(1), Duration::ZERO));
        strangers.passed(address(1), Duration::ZERO);
        let heard = heard_in_ten_seconds(&mut strangers, |_| address(1));
        assert!((200..=215).contains(&heard), "{heard}");
        // And no more when it has not been there for long.
        let later = MEMBERS_FOR + MS;
        assert_eq!((0..100).filter(|_| strangers.hears(address(1), later)).count(), 10);
    }

    #[test]
    fn a_crowd_of_addresses_takes_no_memory_and_is_one_stranger() {
        let mut strangers = Strangers::default();
        strangers.passed(address(0), Duration::ZERO);
        for n in 0..100_000 {
            strangers.hears(address(n + 1), MS);
        }
        assert_eq!(strangers.addresses.len(), DOOR_ADDRESSES_MAX);
        assert!(!strangers.hears(address(1_000_000), MS));
        assert!(strangers.hears(address(0), MS), "a member's address is kept");
        strangers.passed(address(1_000_001), MS);
        assert!(strangers.hears(address(1_000_001), MS), "and a new one finds room");
        assert_eq!(strangers.addresses.len(), DOOR_ADDRESSES_MAX);
        // When they are quiet everybody is heard again.
        assert!(strangers.hears(address(1_000_002), Duration::from_secs(60)));
        assert!(strangers.addresses.len() < 4);
    }
}
