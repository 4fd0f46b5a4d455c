//! This machine's addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of the interfaces that are up, loopback and link-local left out.
pub fn own_ips() -> Vec<IpAddr> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs fills the pointer or fails; it is freed below.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Vec::new();
    }
    let mut out = Vec::new();
    let mut at = list;
    while !at.is_null() {
        // SAFETY: `at` is a node of the list that getifaddrs made and that is not freed yet.
        let entry = unsafe { &*at };
        at = entry.ifa_next;
        let up = entry.ifa_flags & (libc::IFF_UP as u32) != 0 && entry.ifa_flags & (libc::IFF_LOOPBACK as u32) == 0;
        if entry.ifa_addr.is_null() || !up {
            continue;
        }
        // SAFETY: ifa_addr is not null and points to a socket address of the family that it names.
        let family = i32::from(unsafe { (*entry.ifa_addr).sa_family });
        if family == libc::AF_INET {
            // SAFETY: the family says that it is a sockaddr_in.
            let addr = unsafe { *entry.ifa_addr.cast::<libc::sockaddr_in>() };
            out.push(IpAddr::V4(Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr))));
        } else if family == libc::AF_INET6 {
            // SAFETY: the family says that it is a sockaddr_in6.
            let addr = unsafe { *entry.ifa_addr.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(addr.sin6_addr.s6_addr);
            if !ip.is_unicast_link_local() {
                out.push(IpAddr::V6(ip));
            }
        }
    }
    // SAFETY: the list is the one from getifaddrs, and nothing of it is used any more.
    unsafe { libc::freeifaddrs(list) };
    out
}
