//! This machine's addresses and networks, and the port that a node listens on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Port of a node that was told none.
pub const PORT_DEFAULT: u16 = 10555;
/// Connections that wait to be accepted: all PCs of an office at once.
const BACKLOG: i32 = 256;

/// An address of an interface that is up, loopback left out, and how many leading bits its network shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address.
    pub ip: IpAddr,
    /// Leading bits of its network.
    pub bits: u32,
    /// Its interface has a carrier and is no tunnel: others may be met there. A bridge that nothing hangs on is not live.
    pub is_live: bool,
}

impl OwnAddress {
    /// Whether another address is in the same network, so that no router stands between them.
    pub fn is_near(&self, other: IpAddr) -> bool {
        match (self.ip, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = u32::from(own) ^ u32::from(other);
                differ.leading_zeros() >= self.bits
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = u128::from(own) ^ u128::from(other);
                differ.leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

/// Addresses of the interfaces that are up, loopback left out.
pub fn own_addresses() -> Vec<OwnAddress> {
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
        if !up {
            continue;
        }
        // SAFETY: both pointers are null or point to socket addresses of the families that they name.
        let (ip, mask) = unsafe { (ip_of(entry.ifa_addr), ip_of(entry.ifa_netmask)) };
        let Some(ip) = ip else { continue };
        let bits = match mask {
            Some(IpAddr::V4(mask)) => u32::from(mask).leading_ones(),
            Some(IpAddr::V6(mask)) => u128::from(mask).leading_ones(),
            // No mask: nobody else is in that network.
            None => 128,
        };
        let has = |flag: libc::c_int| entry.ifa_flags & flag as u32 != 0;
        out.push(OwnAddress { ip, bits, is_live: has(libc::IFF_RUNNING) && !has(libc::IFF_POINTOPOINT) });
    }
    // SAFETY: the list is the one from getifaddrs, and nothing of it is used any more.
    unsafe { libc::freeifaddrs(list) };
    out
}

/// Whether an interface that is up is a wireless one: /sys shows those as the kernel's drivers have them.
pub fn is_wireless() -> bool {
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    interfaces.take(64).any(|entry| {
        let path = entry.path();
        let is_up = || std::fs::read_to_string(path.join("operstate")).is_ok_and(|state| state.trim() == "up");
        (path.join("wireless").exists() || path.join("phy80211").exists()) && is_up()
    })
}

/// # Safety
/// `addr` is null or points to a socket address of the family that it names.
unsafe fn ip_of(addr: *const libc::sockaddr) -> Option<IpAddr> {
    if addr.is_null() {
        return None;
    }
    // SAFETY: it is not null, and the caller says that it is a socket address.
    match i32::from(unsafe { (*addr).sa_family }) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in.
            let addr = unsafe { *addr.cast::<libc::sockaddr_in>() };
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr))))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is a sockaddr_in6.
            let addr = unsafe { *addr.cast::<libc::sockaddr_in6>() };
            Some(IpAddr::V6(Ipv6Addr::from(addr.sin6_addr.s6_addr)))
        }
        _ => None,
    }
}

/// Addresses that others may be told: link-local ones mean something else on every PC, and are left out. IPv4 first.
pub fn own_ips() -> Vec<IpAddr> {
    let is_local = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let mut all: Vec<IpAddr> = own_addresses().into_iter().map(|a| a.ip).filter(|ip| !is_local(ip)).collect();
    all.sort_by_key(IpAddr::is_ipv6);
    all.dedup();
    all
}

/// Listens where a node listens that was told nothing: both families on the usual port, or on any if that one is taken.
pub fn listen_default() -> io::Result<TcpListener> {
    match listen_everywhere(PORT_DEFAULT) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => listen_everywhere(0),
        other => other,
    }
}

/// Both families on one port; IPv4 alone where the system has no IPv6.
fn listen_everywhere(port: u16) -> io::Result<TcpListener> {
    match listen_both(port) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        both => both,
    }
}

fn listen_both(port: u16) -> io::Result<TcpListener> {
    let socket = rustix::net::socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The system's default may be the other one.
    sockopt::set_ipv6_v6only(&socket, false)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_told_nothing_is_reached_by_both_families() {
        let listener = listen_everywhere(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        if listener.local_addr().unwrap().is_ipv6() && TcpListener::bind("[::1]:0").is_ok() {
            std::net::TcpStream::connect(("::1", port)).unwrap();
        }
    }

    #[test]
    fn a_taken_port_is_no_reason_not_to_start() {
        let first = listen_everywhere(0).unwrap();
        let port = first.local_addr().unwrap().port();
        assert_eq!(listen_everywhere(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let _usual = listen_everywhere(PORT_DEFAULT);
        assert_ne!(listen_default().unwrap().local_addr().unwrap().port(), 0);
    }

    #[test]
    fn a_neighbour_shares_the_leading_bits() {
        let own = OwnAddress { ip: "10.1.2.3".parse().unwrap(), bits: 24, is_live: true };
        assert!(own.is_near("10.1.2.200".parse().unwrap()));
        assert!(!own.is_near("10.1.3.3".parse().unwrap()) && !own.is_near("fe80::1".parse().unwrap()));
        let v6 = OwnAddress { ip: "fd00::1".parse().unwrap(), bits: 64, is_live: true };
        assert!(v6.is_near("fd00::ffff".parse().unwrap()) && !v6.is_near("fd00:0:0:1::1".parse().unwrap()));
    }
}
