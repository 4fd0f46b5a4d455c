//! Connections that have not shown yet who they are: how many there may be, and who gives way when all places are taken.
//!
//! A newcomer always gets a place. An honest one needs it for some milliseconds, whoever holds places for long is silent
//! on purpose: so the oldest connection of the address with the most gives way. Addresses of members have places of their
//! own, which no stranger elsewhere can take.

use core::net::IpAddr;

use crate::limits::{HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS_MAX};

/// One connection; smaller numbers came earlier.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u64,
    address: IpAddr,
    is_members: bool,
}

/// All connections up to the end of their handshake, and of strangers up to the end of their first message. Of IPv6 the
/// caller gives networks.
#[derive(Debug, Default)]
pub struct Doorway {
    /// In the order in which they came.
    places: Vec<Place>,
    next: u64,
}

/// What follows from a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Its number.
    pub number: u64,
    /// The connection that gives way to it.
    pub gives_way: Option<u64>,
}

impl Doorway {
    /// A connection from this address, which is a member's or not.
    pub fn enter(&mut self, address: IpAddr, is_members: bool) -> Entered {
        let number = self.next;
        self.next += 1;
        let of_kind = self.places.iter().filter(|place| place.is_members == is_members).count();
        let from = match self.count(address, is_members) {
            HALF_OPEN_PER_ADDRESS_MAX.. => Some(address),
            _ if of_kind >= HALF_OPEN_MAX => self.most_crowded(is_members),
            _ => None,
        };
        let gives_way = from.and_then(|from| {
            let at = self.places.iter().position(|p| p.address == from && p.is_members == is_members)?;
            Some(self.places.remove(at).number)
        });
        self.places.push(Place { number, address, is_members });
        Entered { number, gives_way }
    }

    /// A connection has shown who it is, or is over.
    pub fn leave(&mut self, number: u64) {
        self.places.retain(|place| place.number != number);
    }

    fn count(&self, address: IpAddr, is_members: bool) -> usize {
        self.places.iter().filter(|place| place.address == address && place.is_members == is_members).count()
    }

    /// Of addresses with equally many the one whose oldest connection is the oldest.
    fn most_crowded(&self, is_members: bool) -> Option<IpAddr> {
        let mut most: Option<(usize, IpAddr)> = None;
        for place in self.places.iter().filter(|place| place.is_members == is_members) {
            let count = self.count(place.address, is_members);
            if most.is_none_or(|(before, _)| count > before) {
                most = Some((count, place.address));
            }
        }
        most.map(|(_, address)| address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn who_floods_displaces_itself() {
        let mut doorway = Doorway::default();
        let honest = doorway.enter(address(1), false);
        for n in 0..1000 {
            let entered = doorway.enter(address(2), false);
            assert_eq!(entered.gives_way.is_some(), n >= HALF_OPEN_PER_ADDRESS_MAX, "{n}");
            assert_ne!(entered.gives_way, Some(honest.number));
        }
    }

    #[test]
    fn four_addresses_that_take_all_places_make_room_for_a_fifth() {
        let mut doorway = Doorway::default();
        for n in 0..4 * HALF_OPEN_PER_ADDRESS_MAX {
            doorway.enter(address((n % 4) as u8), false);
        }
        let honest = doorway.enter(address(9), false);
        assert_eq!(honest.gives_way, Some(0), "the oldest of those with the most");
        for n in 0..1000 {
            assert_ne!(doorway.enter(address((n % 4) as u8), false).gives_way, Some(honest.number), "{n}");
        }
    }

    #[test]
    fn behind_one_address_the_newest_stay() {
        let mut doorway = Doorway::default();
        let first = doorway.enter(address(1), false);
        let gone: Vec<_> =
            (0..HALF_OPEN_PER_ADDRESS_MAX).filter_map(|_| doorway.enter(address(1), false).gives_way).collect();
        assert_eq!(gone, [first.number]);
    }

    #[test]
    fn strangers_take_no_place_of_a_members_address() {
        let mut doorway = Doorway::default();
        let member = doorway.enter(address(1), true);
        for n in 0..10_000_u32 {
            let stranger = IpAddr::from(u32::to_be_bytes(0x0a00_0000 + n % 500));
            assert_ne!(doorway.enter(stranger, false).gives_way, Some(member.number));
        }
        assert!(doorway.places.len() <= 2 * HALF_OPEN_MAX);
        doorway.leave(member.number);
        assert!(doorway.places.iter().all(|place| !place.is_members));
    }
}
