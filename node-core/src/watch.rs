//! Snapshots into updates for whoever watches: the first update has every section, later ones those that changed.
//! Builds no snapshot itself and asks no clock: the owner's loop says when, and what is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use potluck_api::view::{Snapshot, Update};
use potluck_wire::ipc::Reply;
use serde_json::{Map, Value, json};

/// A connection, as the owner of this value numbers them.
pub type ConnId = u64;
/// Where updates go.
pub type Replies = tokio::sync::mpsc::UnboundedSender<Reply>;

/// More often than this nobody can read: UX 5.4 names ten updates a second.
pub const EVERY_MIN: Duration = Duration::from_millis(100);
/// Less often than this the window could not say after 3 s that the node is gone.
pub const EVERY_MAX: Duration = Duration::from_secs(5);
/// Watchers at a time: a tray, some windows and browser pages, some command lines.
pub const WATCHERS_MAX: usize = 64;

struct Watcher {
    conn: ConnId,
    replies: Replies,
    every: Duration,
    /// Not before this.
    due: Duration,
    /// Of the last update that was sent.
    seq: u64,
    /// What it has: sections that changed in a later generation are new to it.
    generation: u64,
    /// It has had its first update.
    begun: bool,
    /// Number of the last change that it was told of, or that changed nothing.
    seen: u64,
}

/// Everybody who watches one node.
#[derive(Default)]
pub struct Watch {
    watchers: Vec<Watcher>,
    /// Raised by `touch`.
    changes: u64,
    generation: u64,
    /// Each section as it was last built, with the generation that it came with.
    sections: BTreeMap<String, (u64, Value)>,
}

impl Watch {
    /// From now on `conn` is told; every update is at least `every_ms` after the one before. Refused where too many
    /// watch already: the answer for the caller.
    pub fn add(&mut self, conn: ConnId, every_ms: u32, replies: Replies) -> Result<(), String> {
        self.watchers.retain(|w| w.conn != conn && !w.replies.is_closed());
        if self.watchers.len() >= WATCHERS_MAX {
            return Err(format!("{WATCHERS_MAX} windows watch this node already\nhint: close some of them"));
        }
        let every = Duration::from_millis(every_ms.into()).clamp(EVERY_MIN, EVERY_MAX);
        let due = Duration::ZERO;
        self.watchers.push(Watcher { conn, replies, every, due, seq: 0, generation: 0, begun: false, seen: 0 });
        Ok(())
    }

    /// A connection ended.
    pub fn remove(&mut self, conn: ConnId) {
        self.watchers.retain(|w| w.conn != conn);
        if self.watchers.is_empty() {
            self.sections.clear();
        }
    }

    /// Nobody watches: then nothing here costs anything.
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Something may have changed that a snapshot shows.
    pub fn touch(&mut self) {
        if !self.watchers.is_empty() {
            self.changes += 1;
        }
    }

    /// When `tick` has something to do. None: nobody watches, or nothing has changed since they were told.
    pub fn next_wake(&self) -> Option<Duration> {
        self.watchers.iter().filter(|w| w.waits(self.changes)).map(|w| w.due).min()
    }

    /// Tells everybody whose time has come; `snapshot` is called at most once, and only if there is somebody.
    pub fn tick(&mut self, now: Duration, snapshot: impl FnOnce() -> Snapshot) {
        if !self.watchers.iter().any(|w| w.waits(self.changes) && w.due <= now) {
            return;
        }
        self.renew(&snapshot());
        let (changes, generation, sections) = (self.changes, self.generation, &self.sections);
        self.watchers.retain_mut(|watcher| {
            if !watcher.waits(changes) || watcher.due > now {
                return true;
            }
            watcher.seen = changes;
            let new = sections.iter().filter(|(_, (since, _))| !watcher.begun || *since > watcher.generation);
            let new: Map<String, Value> = new.map(|(name, (_, value))| (name.clone(), value.clone())).collect();
            watcher.generation = generation;
            if new.is_empty() {
                return true;
            }
            (watcher.begun, watcher.due) = (true, now + watcher.every);
            watcher.seq += 1;
            watcher.replies.send(reply(&Update { seq: watcher.seq, sections: new })).is_ok()
        });
        if self.watchers.is_empty() {
            self.sections.clear();
        }
    }

    /// Keeps what is shown now, and notes which sections are others than before.
    fn renew(&mut self, snapshot: &Snapshot) {
        let Ok(Value::Object(now)) = serde_json::to_value(snapshot) else { return };
        let generation = self.generation + 1;
        for (name, value) in now {
            match self.sections.get_mut(&name) {
                Some((_, before)) if *before == value => {}
                _ => {
                    self.generation = generation;
                    self.sections.insert(name, (generation, value));
                }
            }
        }
    }
}

impl Watcher {
    fn waits(&self, changes: u64) -> bool {
        !self.begun || self.seen < changes
    }
}

fn reply(update: &Update) -> Reply {
    let json = serde_json::to_string(update).unwrap_or_else(|e| json!({"error": e.to_string()}).to_string());
    Reply::Api { json, last: false }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn shown(name: &str) -> Snapshot {
        static ONE: std::sync::OnceLock<Snapshot> = std::sync::OnceLock::new();
        let mut snapshot = ONE.get_or_init(|| crate::demo::World::new(1, 0).snapshot()).clone();
        snapshot.this.name = name.to_owned();
        snapshot
    }

    fn next(rx: &mut mpsc::UnboundedReceiver<Reply>) -> Option<Update> {
        match rx.try_recv().ok()? {
            Reply::Api { json, last: false } => Some(serde_json::from_str(&json).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_update_has_everything_and_later_ones_what_changed() {
        let (tx, mut rx) = mpsc::unbounded_channel();
        let mut watch = Watch::default();
        watch.add(1, 100, tx).unwrap();
        watch.tick(ms(0), || shown("a"));
        let first = next(&mut rx).unwrap();
        let Value::Object(all) = serde_json::to_value(shown("a")).unwrap() else { panic!() };
        assert_eq!((first.seq, &first.sections), (1, &all));
        watch.touch();
        watch.tick(ms(100), || shown("b"));
        let second = next(&mut rx).unwrap();
        assert_eq!(second.seq, 2);
        assert_eq!(second.sections.keys().collect::<Vec<_>>(), ["this"]);
        assert_eq!(second.sections["this"]["name"], "b");
    }

    #[test]
    fn a_change_that_shows_nothing_is_no_update_and_no_gap() {
        let (tx, mut rx) = mpsc::unbounded_channel();
        let mut watch = Watch::default();
        watch.add(1, 100, tx).unwrap();
        watch.tick(ms(0), || shown("a"));
        next(&mut rx).unwrap();
        watch.touch();
        watch.tick(ms(500), || shown("a"));
        assert_eq!(next(&mut rx), None);
        assert_eq!(watch.next_wake(), None);
        watch.touch();
        watch.tick(ms(501), || shown("b"));
        assert_eq!(next(&mut rx).unwrap().seq, 2);
    }

    #[test]
    fn each_watcher_has_its_own_pace_and_hears_of_everything_in_the_end() {
        let (fast_tx, mut fast) = mpsc::unbounded_channel();
        let (slow_tx, mut slow) = mpsc::unbounded_channel();
        let mut watch = Watch::default();
        watch.add(1, 1, fast_tx).unwrap();
        watch.add(2, 1000, slow_tx).unwrap();
        let (mut fast_told, mut slow_told) = (0, 0);
        for at in (0..=2000).step_by(10) {
            watch.touch();
            watch.tick(ms(at), || shown(&at.to_string()));
            fast_told += u32::from(next(&mut fast).is_some());
            slow_told += u32::from(next(&mut slow).is_some());
        }
        // 1 ms is less than the least: 100 ms. Both had one at the start.
        assert_eq!((fast_told, slow_told), (21, 3));
    }

    #[test]
    fn no_snapshot_is_built_where_nobody_watches_or_nothing_happened_or_it_is_too_early() {
        let mut watch = Watch::default();
        watch.touch();
        assert_eq!(watch.next_wake(), None);
        watch.tick(ms(0), || panic!("nobody watches"));
        let (tx, mut rx) = mpsc::unbounded_channel();
        watch.add(1, 100, tx).unwrap();
        watch.tick(ms(0), || shown("a"));
        next(&mut rx).unwrap();
        watch.tick(ms(200), || panic!("nothing happened"));
        watch.touch();
        watch.tick(ms(250), || shown("b"));
        watch.touch();
        assert_eq!(watch.next_wake(), Some(ms(350)));
        watch.tick(ms(349), || panic!("too early"));
    }

    #[test]
    fn who_comes_later_gets_everything_once() {
        let (tx, mut rx) = mpsc::unbounded_channel();
        let (late_tx, mut late) = mpsc::unbounded_channel();
        let mut watch = Watch::default();
        watch.add(1, 100, tx).unwrap();
        watch.tick(ms(0), || shown("a"));
        watch.touch();
        watch.tick(ms(100), || shown("b"));
        watch.add(2, 100, late_tx).unwrap();
        watch.tick(ms(110), || shown("b"));
        let first = next(&mut late).unwrap();
        assert_eq!((first.seq, first.sections["this"]["name"].as_str()), (1, Some("b")));
        assert_eq!(first.sections.len(), serde_json::to_value(shown("b")).unwrap().as_object().unwrap().len());
        assert_eq!(
            (next(&mut rx).map(|u| u.seq), next(&mut rx).map(|u| u.seq), next(&mut rx)),
            (Some(1), Some(2), None)
        );
    }

    #[test]
    fn whoever_is_gone_is_forgotten() {
        let (tx, rx) = mpsc::unbounded_channel();
        let (other_tx, _other) = mpsc::unbounded_channel();
        let mut watch = Watch::default();
        watch.add(1, 100, tx).unwrap();
        watch.add(2, 100, other_tx).unwrap();
        drop(rx);
        watch.tick(ms(0), || shown("a"));
        watch.remove(2);
        assert!(watch.is_empty());
    }

    #[test]
    fn watchers_are_bounded() {
        let (tx, _rx) = mpsc::unbounded_channel();
        let mut watch = Watch::default();
        for conn in 0..WATCHERS_MAX as u64 {
            watch.add(conn, 100, tx.clone()).unwrap();
        }
        assert!(watch.add(1000, 100, tx.clone()).unwrap_err().contains("hint:"));
        watch.add(3, 100, tx).unwrap();
    }
}
