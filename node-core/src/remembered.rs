//! Where peers were reached, kept for the next start: a network without multicast needs one contact only. Bounded,
//! newest first. What a person typed is another file.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use potluck_model::ids::NodeId;
use potluck_model::limits::{REMEMBERED_ADDRESSES_MAX, REMEMBERED_PEERS_MAX};
use serde::{Deserialize, Serialize};

/// A file above this size was not written here.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Node id, hexadecimal.
    node: String,
    /// Newest first.
    addresses: Vec<SocketAddr>,
}

/// Addresses of peers, newest first.
#[derive(Debug)]
pub struct Remembered {
    file: PathBuf,
    entries: Vec<Entry>,
}

impl Remembered {
    /// What was stored in the state folder; nothing if that cannot be read, and then it is set aside.
    pub fn load(state: &Path) -> Self {
        let file = state.join("peers.json");
        let mut entries: Vec<Entry> = crate::store::read_json(&file, FILE_BYTES_MAX).unwrap_or_default();
        entries.truncate(REMEMBERED_PEERS_MAX);
        entries.iter_mut().for_each(|e| e.addresses.truncate(REMEMBERED_ADDRESSES_MAX));
        Self { file, entries }
    }

    /// A peer was reached there. True: that is news, and [`Self::text`] is to be stored.
    pub fn reached(&mut self, node: NodeId, at: SocketAddr) -> bool {
        // A link-local address means something else after the next start.
        if at.port() == 0 || matches!(at.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            return false;
        }
        let node = node.to_string();
        if self.entries.first().is_some_and(|e| e.node == node && e.addresses.first() == Some(&at)) {
            return false;
        }
        let known = self.entries.iter().position(|e| e.node == node).map(|i| self.entries.remove(i));
        let is_news = known.as_ref().is_none_or(|e| e.addresses.first() != Some(&at));
        let mut addresses = known.map(|e| e.addresses).unwrap_or_default();
        addresses.retain(|a| *a != at);
        addresses.insert(0, at);
        addresses.truncate(REMEMBERED_ADDRESSES_MAX);
        self.entries.insert(0, Entry { node, addresses });
        self.entries.truncate(REMEMBERED_PEERS_MAX);
        is_news
    }

    /// Drops what does not `stay`. True: something was.
    pub fn keep(&mut self, stay: impl Fn(NodeId) -> bool) -> bool {
        let before = self.entries.len();
        self.entries.retain(|e| e.node.parse().is_ok_and(&stay));
        before != self.entries.len()
    }

    /// Drops an address, whosever it is. True: it was there.
    pub fn forget(&mut self, address: &str) -> bool {
        let mut found = false;
        for entry in &mut self.entries {
            let before = entry.addresses.len();
            entry.addresses.retain(|a| a.to_string() != address);
            found |= before != entry.addresses.len();
        }
        self.entries.retain(|e| !e.addresses.is_empty());
        found
    }

    /// Everything: who, and where.
    pub fn all(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> {
        self.entries
            .iter()
            .filter_map(|e| Some((e.node.parse().ok()?, &e.addresses)))
            .flat_map(|(node, addresses)| addresses.iter().map(move |a| (node, *a)))
    }

    /// Where it is stored, and what: for a thread that may wait for the disk.
    pub fn text(&self) -> (PathBuf, Vec<u8>) {
        (self.file.clone(), serde_json::to_vec_pretty(&self.entries).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 7711))
    }

    fn node(n: u16) -> NodeId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    }

    #[test]
    fn what_was_reached_is_there_after_the_next_start_newest_first_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut peers = Remembered::load(dir.path());
        for n in 0..1000 {
            assert!(peers.reached(node(n), addr(n)));
        }
        for n in 0..20 {
            peers.reached(node(999), addr(2000 + n));
        }
        let (file, text) = peers.text();
        crate::store::write_whole(&file, &text).unwrap();
        let again = Remembered::load(dir.path());
        let all: Vec<_> = again.all().collect();
        assert_eq!(all[0], (node(999), addr(2019)));
        assert_eq!(all.iter().filter(|(n, _)| *n == node(999)).count(), REMEMBERED_ADDRESSES_MAX);
        assert_eq!(again.entries.len(), REMEMBERED_PEERS_MAX);
    }

    #[test]
    fn the_same_again_is_no_news_and_link_local_is_never_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut peers = Remembered::load(dir.path());
        assert!(peers.reached(node(1), addr(1)));
        assert!(!peers.reached(node(1), addr(1)));
        assert!(peers.reached(node(2), addr(2)));
        assert!(!peers.reached(node(1), addr(1)), "only the order changed");
        assert!(!peers.reached(node(3), "[fe80::1%2]:7711".parse().unwrap()));
        assert!(peers.keep(|n| n != node(1)) && !peers.keep(|_| true));
        assert!(peers.forget("10.0.0.2:7711") && peers.all().count() == 0);
    }

    #[test]
    fn a_damaged_file_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("peers.json"), "[{\"node\": 7}]").unwrap();
        assert_eq!(Remembered::load(dir.path()).all().count(), 0);
    }
}
