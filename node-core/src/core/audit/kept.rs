//! What outlives this node: how each peer stands, and what was found. One small file in the state folder; whoever damages it
//! makes every peer a new one, whose results are all looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use potluck_model::ids::NodeId;
use potluck_model::trust::{Standing, Why};
use serde::{Deserialize, Serialize};

use super::super::Core;
use super::made::Output;

/// Peers that are remembered: a team has at most 200 PCs, and some have left.
const PEERS_MAX: usize = 1024;
/// Findings that are remembered, newest first.
const FINDINGS_MAX: usize = 32;
/// A file that is larger is none of ours.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Counts are written at most so often; what was found, at once.
const EVERY: Duration = Duration::from_secs(60);

/// A peer that gave a wrong result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub(crate) peer: NodeId,
    pub(crate) name: String,
    pub(crate) at_ms: u64,
    pub(crate) why: Why,
    /// The source whose object it was; None: other members said so.
    pub(crate) source: Option<PathBuf>,
    /// Files of the last builds that came from it.
    pub(crate) affected: Vec<Output>,
    /// They were removed, or the person has seen to it.
    pub(crate) is_settled: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) standings: BTreeMap<NodeId, Standing>,
    pub(super) findings: Vec<Finding>,
}

/// As it is written: keys of JSON are text.
#[derive(Serialize, Deserialize)]
struct File {
    standings: Vec<(NodeId, Standing)>,
    findings: Vec<Finding>,
}

/// When it is written.
pub(super) struct Keeper {
    file: PathBuf,
    is_new: bool,
    is_urgent: bool,
    kept_at: Duration,
}

impl Keeper {
    pub(super) fn new(state: &Path) -> Self {
        Self { file: path_in(state), is_new: false, is_urgent: false, kept_at: Duration::ZERO }
    }

    /// Something changed.
    pub(super) fn touch(&mut self) {
        self.is_new = true;
    }

    /// Something changed that must not be lost.
    pub(super) fn touch_now(&mut self) {
        (self.is_new, self.is_urgent) = (true, true);
    }
}

fn path_in(state: &Path) -> PathBuf {
    state.join("trust.json")
}

/// What the node before this one knew.
pub(super) fn read(state: &Path) -> Kept {
    let File { standings, findings } = match crate::store::read_json::<File>(&path_in(state), FILE_BYTES_MAX) {
        Some(file) => file,
        None => return Kept::default(),
    };
    Kept {
        standings: standings.into_iter().take(PEERS_MAX).collect(),
        findings: findings.into_iter().take(FINDINGS_MAX).collect(),
    }
}

impl Core {
    /// Writes it where something is new and it is time. Also what else is due now and then.
    pub(super) fn keep_audit(&mut self, now: Duration) {
        if !self.audit.aside.is_empty() {
            self.end_quarantines();
        }
        let keeper = &mut self.audit.kept;
        if !keeper.is_new || !keeper.is_urgent && now.saturating_sub(keeper.kept_at) < EVERY {
            return;
        }
        (keeper.is_new, keeper.is_urgent, keeper.kept_at) = (false, false, now);
        let (file, content) = (keeper.file.clone(), self.kept_text());
        self.runtime.spawn_blocking(move || {
            if let Err(error) = crate::store::write_whole(&file, &content) {
                crate::log::warn(&format!("{}: {error}; a new start will not know how PCs stood", file.display()));
            }
        });
    }

    /// The node ends: what is new is written before.
    pub(in super::super) fn end_audit(&mut self) {
        if self.audit.kept.is_new {
            let _ = crate::store::write_whole(&self.audit.kept.file.clone(), &self.kept_text());
        }
    }

    fn kept_text(&self) -> Vec<u8> {
        let standings = self.audit.standings.iter().take(PEERS_MAX).map(|(peer, s)| (*peer, s.clone())).collect();
        serde_json::to_vec(&File { standings, findings: self.audit.findings.clone() }).unwrap_or_default()
    }

    /// Another PC says so too.
    pub(super) fn confirm(&mut self, peer: NodeId) {
        if let Some(finding) = self.audit.findings.iter_mut().find(|finding| finding.peer == peer) {
            finding.why = Why::Confirmed;
        }
        self.audit.standings.entry(peer).or_default().put_aside(Why::Confirmed, super::now_ms());
        self.audit.kept.touch_now();
        self.watch.touch();
    }

    pub(super) fn note_finding(&mut self, peer: NodeId, why: Why, source: Option<&Path>, at_ms: u64) {
        let name = self.peers.get(&peer).map_or_else(|| peer.short(), |p| super::super::view::name_of(p, peer));
        let name = super::super::snapshot::shown_name(&name);
        crate::log::warn(&format!("{name} ({}) gave a wrong result and gets no jobs for a day", peer.short()));
        let affected = self.audit.made.by(peer);
        self.audit.findings.retain(|finding| finding.peer != peer || !finding.affected.is_empty());
        self.audit.findings.insert(
            0,
            Finding { peer, name, at_ms, why, source: source.map(Path::to_owned), affected, is_settled: false },
        );
        self.audit.findings.truncate(FINDINGS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_is_damaged_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).standings.is_empty());
        let mut standing = Standing::default();
        standing.put_aside(Why::Confirmed, 5);
        let output = Output { path: "/a.o".into(), bytes: 7, at_ms: 9 };
        let finding = Finding {
            peer: NodeId([1; 32]),
            name: "liar".into(),
            at_ms: 5,
            why: Why::Members(2),
            source: None,
            affected: vec![output],
            is_settled: false,
        };
        let file = File { standings: vec![(NodeId([1; 32]), standing.clone())], findings: vec![finding] };
        let text = serde_json::to_vec(&file).unwrap();
        std::fs::write(path_in(dir.path()), &text).unwrap();
        let kept = read(dir.path());
        assert_eq!(kept.standings[&NodeId([1; 32])], standing);
        assert_eq!(kept.findings[0].affected[0].bytes, 7);
        for damaged in [&text[..text.len() / 2], b"", b"\0\xff"] {
            std::fs::write(path_in(dir.path()), damaged).unwrap();
            assert!(read(dir.path()).standings.is_empty());
            assert!(!path_in(dir.path()).exists(), "set aside");
        }
    }
}
