//! How many strangers without an invitation are listened to. Pictures can be tried by breaking off before a person is
//! shown them, so all strangers together get few tries; and so that one of them does not use up the tries of all, each
//! address has a rate of its own, and the last tries are kept for addresses that did not try lately.

use core::net::IpAddr;
use std::collections::HashMap;
use std::time::Duration;

use crate::limits::DOOR_ADDRESSES_MAX;

/// Tries at once, all together; after them one each `EVERY`. Somebody in the middle can break off as soon as he sees that
/// his pictures differ: with one try a second in the ten minutes that a joiner waits, he succeeds once in 27,000 attacks,
/// whatever addresses he has.
pub const TRIES: u32 = 8;
/// See `TRIES`.
const EVERY: Duration = Duration::from_secs(1);
/// The same for one address: a person who mistyped, or some PCs behind one router.
const PER_ADDRESS: u32 = 3;
/// See `PER_ADDRESS`.
const PER_ADDRESS_EVERY: Duration = Duration::from_secs(10);
/// Of `TRIES`, those for addresses that have all of theirs left.
const KEPT_FOR_NEW: u32 = 4;

/// Tries up to now.
#[derive(Debug, Default)]
pub struct Tries {
    /// When all tries that were made are paid for.
    paid: Option<Duration>,
    /// The same for each address, as long as that is to come.
    addresses: HashMap<IpAddr, Duration>,
}

impl Tries {
    /// Whether a stranger without an invitation is listened to now; if not, when it may ask again. `now` is since any
    /// fixed moment, and of IPv6 the caller gives networks.
    pub fn may_try(&mut self, address: IpAddr, now: Duration) -> Result<(), Duration> {
        if self.addresses.len() >= DOOR_ADDRESSES_MAX {
            self.addresses.retain(|_, paid| *paid > now);
        }
        let own_before = self.addresses.get(&address).copied().filter(|paid| *paid > now);
        if own_before.is_none() && self.addresses.len() >= DOOR_ADDRESSES_MAX {
            return Err(EVERY);
        }
        let own = own_before.unwrap_or(now) + PER_ADDRESS_EVERY;
        let own_limit = now + PER_ADDRESS_EVERY * PER_ADDRESS;
        if own > own_limit {
            return Err(own - own_limit);
        }
        let tries = if own_before.is_none() { TRIES } else { TRIES - KEPT_FOR_NEW };
        let all = self.paid.unwrap_or(now).max(now) + EVERY;
        let limit = now + EVERY * tries;
        if all > limit {
            return Err(all - limit);
        }
        self.paid = Some(all);
        self.addresses.insert(address, own);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::from(u32::to_be_bytes(0x0a00_0000 + n))
    }

    #[test]
    fn strangers_together_have_few_tries_whatever_addresses_they_have() {
        let mut tries = Tries::default();
        let now = Duration::from_secs(5);
        assert_eq!((0..5000).filter(|&n| tries.may_try(address(n), now).is_ok()).count(), TRIES as usize);
        let heard =
            (0..60_000).filter(|&ms| tries.may_try(address(ms), now + Duration::from_millis(ms.into())).is_ok());
        assert!((58..=61).contains(&heard.count()));
        assert!(tries.addresses.len() <= DOOR_ADDRESSES_MAX);
    }

    #[test]
    fn four_addresses_that_try_for_ever_leave_a_try_for_another() {
        let mut tries = Tries::default();
        for ms in 0..60_000 {
            let now = Duration::from_millis(ms);
            for n in 0..4 {
                let _ = tries.may_try(address(n), now);
            }
            if ms % 10_000 == 5_000 {
                assert_eq!(tries.may_try(address(100 + ms as u32), now), Ok(()), "{ms}");
            }
        }
    }

    #[test]
    fn one_address_has_few_and_is_told_when_it_may_ask_again() {
        let mut tries = Tries::default();
        let mut may = |ms| tries.may_try(address(1), Duration::from_millis(ms));
        assert_eq!([may(0), may(0), may(0)], [Ok(()); 3]);
        assert_eq!(may(0), Err(PER_ADDRESS_EVERY));
        assert_eq!(may(4_000), Err(Duration::from_secs(6)));
        assert_eq!(may(10_000), Ok(()));
    }
}
