//! What submitters keep on this PC: bytes of each one's files, and the names of its compilers. A mirror's own quota is
//! its guest's business; here is decided who is forgotten when all together are too much.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use potluck_model::ids::NodeId;
use potluck_model::names;
use potluck_wire::pool::ToolchainOffer;

/// Names of compilers that are shown of one submitter: more than anybody has in use.
const NAMES_MAX: usize = 32;
/// Characters of a name that are shown.
const NAME_CHARS_MAX: usize = 64;

/// Whoever had a job here within this time is not forgotten: that could be in the middle of a build.
const USED_LATELY_MS: u64 = 10 * 60_000;

/// What one submitter keeps here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Who.
    pub submitter: NodeId,
    /// Bytes of its files.
    pub bytes: u64,
    /// Names of its compilers, as far as they are known.
    pub toolchains: Vec<String>,
    /// Milliseconds since 1970 of its last job, or of the last change on disk.
    pub used_ms: Option<u64>,
}

/// What was found on disk at the start, and what was told since.
#[derive(Debug, Default)]
pub struct Received {
    found: BTreeMap<NodeId, (u64, Option<u64>)>,
    names: HashMap<NodeId, BTreeSet<String>>,
    used_ms: HashMap<NodeId, u64>,
}

impl Received {
    /// What [`look`] found.
    pub fn found(&mut self, found: Vec<(NodeId, u64, Option<u64>)>) {
        self.found = found.into_iter().map(|(node, bytes, used_ms)| (node, (bytes, used_ms))).collect();
    }

    /// A submitter names a compiler of its.
    pub fn named(&mut self, submitter: NodeId, offer: &ToolchainOffer) {
        let name: String = names::cleaned(&offer.name, 4 * NAME_CHARS_MAX).chars().take(NAME_CHARS_MAX).collect();
        let names = self.names.entry(submitter).or_default();
        if names.len() < NAMES_MAX {
            names.insert(name);
        }
    }

    /// A job of it ran now.
    pub fn used(&mut self, submitter: NodeId, now_ms: u64) {
        self.used_ms.insert(submitter, now_ms);
    }

    /// It is removed. True if there was something.
    pub fn forget(&mut self, submitter: NodeId) -> bool {
        self.names.remove(&submitter);
        self.used_ms.remove(&submitter);
        self.found.remove(&submitter).is_some()
    }

    /// Everybody who keeps something here; `live` are the bytes of a mirror that is open.
    pub fn all(&self, live: impl Fn(&NodeId) -> Option<u64>) -> Vec<Kept> {
        let everybody: BTreeSet<NodeId> =
            self.found.keys().chain(self.names.keys()).chain(self.used_ms.keys()).copied().collect();
        let kept = everybody.into_iter().map(|submitter| {
            let found = self.found.get(&submitter);
            Kept {
                submitter,
                bytes: live(&submitter).or(found.map(|f| f.0)).unwrap_or(0),
                toolchains: self.names.get(&submitter).into_iter().flatten().cloned().collect(),
                used_ms: self.used_ms.get(&submitter).copied().or(found.and_then(|f| f.1)),
            }
        });
        kept.filter(|k| k.bytes > 0).collect()
    }
}

/// Who is forgotten so that the rest has at most `bytes_max`: the least recently used first (UX 2.7), and nobody who was
/// here lately.
pub fn surplus(mut kept: Vec<Kept>, bytes_max: u64, now_ms: u64) -> Vec<NodeId> {
    let mut sum: u64 = kept.iter().map(|k| k.bytes).sum();
    kept.sort_by_key(|k| k.used_ms);
    let old = kept.into_iter().filter(|k| k.used_ms.unwrap_or(0) + USED_LATELY_MS < now_ms);
    old.map_while(|k| {
        let too_much = sum > bytes_max;
        sum -= k.bytes;
        too_much.then_some(k.submitter)
    })
    .collect()
}

/// Looks through the folder of all mirrors: who, how many bytes, last change. Reads every directory: not for the loop.
pub fn look(mirrors: &Path) -> Vec<(NodeId, u64, Option<u64>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(mirrors).into_iter().flatten().flatten() {
        let Some(node) = entry.file_name().to_str().and_then(|name| name.parse::<NodeId>().ok()) else { continue };
        let changed = entry.metadata().and_then(|m| m.modified()).ok();
        let used_ms =
            changed.and_then(|at: SystemTime| at.duration_since(UNIX_EPOCH).ok()).map(|d| d.as_millis() as u64);
        all.push((node, bytes_below(&entry.path()), used_ms));
    }
    all
}

fn bytes_below(dir: &Path) -> u64 {
    let mut sum = 0;
    let mut left = vec![dir.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            // Not followed: links in a mirror are data.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                left.push(entry.path());
            } else if meta.is_file() {
                sum += meta.len();
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_disk_is_counted_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeId([7; 32]);
        let root = dir.path().join(node.to_string()).join("root/usr");
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("gcc"), [0; 1000]).unwrap();
        std::os::unix::fs::symlink("/", root.join("all")).unwrap();
        fs::create_dir(dir.path().join("no node")).unwrap();
        let found = look(dir.path());
        assert_eq!(found.iter().map(|f| (f.0, f.1)).collect::<Vec<_>>(), [(node, 1000)]);
        let mut received = Received::default();
        received.found(found);
        received.named(node, &ToolchainOffer { id: Vec::new(), name: "gcc\u{1b}[2J 12".into() });
        let all = received.all(|_| Some(2000));
        assert_eq!((all[0].bytes, all[0].toolchains.clone()), (2000, vec!["gcc[2J 12".to_owned()]));
        assert!(received.forget(node) && received.all(|_| None).is_empty());
    }

    #[test]
    fn the_least_recently_used_are_forgotten_and_nobody_who_builds() {
        let kept = |n: u8, bytes, used_ms| Kept { submitter: NodeId([n; 32]), bytes, toolchains: Vec::new(), used_ms };
        let now = 100 * 60_000;
        let all = || vec![kept(1, 4, Some(50 * 60_000)), kept(2, 4, Some(20 * 60_000)), kept(3, 4, Some(95 * 60_000))];
        assert_eq!(surplus(all(), 12, now), []);
        assert_eq!(surplus(all(), 11, now), [NodeId([2; 32])]);
        assert_eq!(surplus(all(), 8, now), [NodeId([2; 32])]);
        assert_eq!(surplus(all(), 7, now), [NodeId([2; 32]), NodeId([1; 32])]);
        assert_eq!(surplus(all(), 1, now).len(), 2);
        assert_eq!(surplus(vec![kept(1, 9, None)], 8, now), [NodeId([1; 32])]);
    }
}
