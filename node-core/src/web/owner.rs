//! Whose program is at the other end of a loopback connection: one question to the kernel, which it looks up and does not
//! search for, however many connections there are.

use std::net::{IpAddr, SocketAddr};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// Request and answer: `struct nlmsghdr` and what follows it, see sock_diag(7).
const HEAD_BYTES: usize = 16;
const REQUEST_BYTES: usize = HEAD_BYTES + 56;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const TCP: u8 = 6;
/// In an answer: behind the head, four bytes of states, the connection's name (48), and three numbers of four bytes.
const UID_AT: usize = HEAD_BYTES + 4 + 48 + 12;

/// The user whose socket is connected from `client` to `server`. None: the kernel does not say.
pub(super) fn of(client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG)).ok()?;
    rustix::net::send(&socket, &request(client, server), SendFlags::empty()).ok()?;
    let mut answer = [0; 512];
    // The answer is there when the question was taken.
    let (read, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::DONTWAIT).ok()?;
    uid(&answer[..read])
}

fn request(client: SocketAddr, server: SocketAddr) -> [u8; REQUEST_BYTES] {
    let mut all = Vec::with_capacity(REQUEST_BYTES);
    all.extend((REQUEST_BYTES as u32).to_ne_bytes());
    all.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    all.extend(NLM_F_REQUEST.to_ne_bytes());
    all.extend([0; 8]);
    let family = if client.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    all.extend([family.as_raw() as u8, TCP, 0, 0]);
    all.extend(u32::MAX.to_ne_bytes());
    for port in [client.port(), server.port()] {
        all.extend(port.to_be_bytes());
    }
    for ip in [client.ip(), server.ip()] {
        let mut octets = [0; 16];
        match ip {
            IpAddr::V4(v4) => octets[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => octets = v6.octets(),
        }
        all.extend(octets);
    }
    all.extend([0; 4]);
    // No cookie: whichever socket has this name.
    all.extend([0xff; 8]);
    let mut request = [0; REQUEST_BYTES];
    request.copy_from_slice(&all);
    request
}

fn uid(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let uid = answer.get(UID_AT..UID_AT + 4)?.try_into().ok()?;
    (kind == SOCK_DIAG_BY_FAMILY).then_some(u32::from_ne_bytes(uid))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_says_whose_a_connection_is() {
        let own = rustix::process::getuid().as_raw();
        for address in [SocketAddr::from(([127, 0, 0, 1], 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))] {
            // Not every machine has both families.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (at, from) = (listener.local_addr().unwrap(), client.local_addr().unwrap());
            assert_eq!(of(from, at), Some(own));
            let nobody = SocketAddr::new(from.ip(), 1);
            assert_eq!(of(nobody, at), None);
        }
    }
}
