//! Which file a peer made: what a wrong peer's verdict is followed by. A path, a size and a time each; nothing is hashed.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use potluck_model::ids::NodeId;
use potluck_model::limits::{AFFECTED_MAX, MADE_OUTPUTS_MAX};
use serde::{Deserialize, Serialize};

use crate::outputs::Change;

/// All outputs of a job were written within this time before it was noted. Nobody else's: a later writer leaves a later time.
const WRITTEN_WITHIN_MS: u64 = 60_000;

/// A file that a peer's result was put into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Output {
    /// Absolute.
    pub(crate) path: PathBuf,
    /// Its size then.
    pub(crate) bytes: u64,
    /// When it had been written, milliseconds since 1970.
    pub(crate) at_ms: u64,
}

/// The last of them, of all peers.
#[derive(Default)]
pub(super) struct Made(VecDeque<(NodeId, Output)>);

impl Made {
    /// These files were just written with what `peer` returned.
    pub(super) fn note(&mut self, peer: NodeId, changes: &[Change], at_ms: u64) {
        for change in changes {
            if self.0.len() >= MADE_OUTPUTS_MAX {
                self.0.pop_front();
            }
            let (path, bytes) = (change.path.clone(), change.content.len() as u64);
            self.0.push_back((peer, Output { path, bytes, at_ms }));
        }
    }

    /// Files whose last known maker this peer is.
    pub(super) fn by(&self, peer: NodeId) -> Vec<Output> {
        let mut last: BTreeMap<&Path, &(NodeId, Output)> = BTreeMap::new();
        for made in &self.0 {
            last.insert(&made.1.path, made);
        }
        last.into_values().filter(|made| made.0 == peer).map(|made| made.1.clone()).take(AFFECTED_MAX).collect()
    }
}

/// What is at an output's place now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// What the peer returned.
    AsMade,
    /// Something that was written later, or by somebody else.
    Changed,
    /// Nothing.
    Gone,
}

impl Output {
    /// Size and time tell: what was written since has a later time. A file system whose clock is ahead of this one's makes all
    /// of them changed: then nothing is removed.
    pub(super) fn state(&self) -> State {
        let Ok(meta) = std::fs::symlink_metadata(&self.path) else { return State::Gone };
        let changed_ms = (meta.mtime() as u64).saturating_mul(1000) + meta.mtime_nsec() as u64 / 1_000_000;
        let is_then = changed_ms <= self.at_ms && self.at_ms - changed_ms <= WRITTEN_WITHIN_MS;
        let is_as_made = meta.is_file() && meta.len() == self.bytes && is_then;
        if is_as_made { State::AsMade } else { State::Changed }
    }

    /// Removes it if it still is what the peer returned, so that the next build makes it anew.
    pub(super) fn remove(&self) -> std::io::Result<State> {
        let state = self.state();
        if state == State::AsMade {
            std::fs::remove_file(&self.path)?;
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_model::plan::{Manner, Role};

    fn now_ms() -> u64 {
        super::super::now_ms()
    }

    fn file(path: &Path, content: &str) -> Change {
        std::fs::write(path, content).unwrap();
        Change {
            path: path.to_owned(),
            mode: 0o644,
            manner: Manner::Replace,
            role: Role::Main,
            content: content.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_file_belongs_to_whoever_made_it_last_and_nothing_else_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let [liar, other] = [1, 2].map(|n| NodeId([n; 32]));
        let mut made = Made::default();
        let changes = ["a.o", "b.o", "c.o", "d.o", "e.o"].map(|name| file(&at(name), "wrong"));
        made.note(liar, &changes, now_ms());
        made.note(other, &[file(&at("b.o"), "right")], now_ms());
        let affected = made.by(liar);
        assert_eq!(affected.iter().map(|o| o.path.clone()).collect::<Vec<_>>(), ["a.o", "c.o", "d.o", "e.o"].map(&at));
        // A later build wrote one of another size, one of the same size but later, and somebody removed one.
        std::fs::write(at("c.o"), "right one").unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_millis(100);
        std::fs::File::options().write(true).open(at("d.o")).unwrap().set_modified(later).unwrap();
        std::fs::remove_file(at("e.o")).unwrap();
        let states: Vec<State> = affected.iter().map(|o| o.remove().unwrap()).collect();
        assert_eq!(states, [State::AsMade, State::Changed, State::Changed, State::Gone]);
        let left: Vec<bool> = ["a.o", "b.o", "c.o", "d.o"].map(|name| at(name).exists()).to_vec();
        assert_eq!(left, [false, true, true, true]);
    }

    #[test]
    fn the_record_is_bounded() {
        let mut made = Made::default();
        let change = |n: usize| Change {
            path: PathBuf::from(format!("/{n}")),
            mode: 0,
            manner: Manner::Replace,
            role: Role::Main,
            content: Vec::new(),
        };
        for n in 0..MADE_OUTPUTS_MAX + 5 {
            made.note(NodeId([1; 32]), &[change(n)], 0);
        }
        assert_eq!(made.0.len(), MADE_OUTPUTS_MAX);
        assert_eq!(made.by(NodeId([1; 32])).len(), AFFECTED_MAX);
    }
}
