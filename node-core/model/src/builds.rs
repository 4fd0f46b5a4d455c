//! Jobs into builds: which jobs belong together, when a build is over, and how it ended. No processes are looked at here:
//! `root` says which of the ancestors that were found counts, `report` sums a build up.

pub mod report;
pub mod root;

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names;

pub use root::Root;

/// A build without a job that runs, and without a new one for so long, is over (UX 2.8): longer than the link of a large
/// program by a linker that no wrapper sees, in most builds.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Jobs of one session and directory that have no root in common belong together if they come closer than this (UX 2.8).
pub const APART_MAX: Duration = Duration::from_secs(3);
/// Letters of an id behind its `b`: 30 bits, so that two of the 500 that are kept meet once in ten thousand histories;
/// whoever makes one looks whether it is taken all the same.
const ID_LETTERS: usize = 5;
const ID_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Longest build id or name that a variable may set.
pub const NAME_CHARS_MAX: usize = 64;

/// A short id, such as `b7f3k2`, from random bits.
pub fn id_of(random: u64) -> String {
    let letter = |at: usize| char::from(ID_ALPHABET[(random >> (5 * at)) as usize & 31]);
    std::iter::once('b').chain((0..=ID_LETTERS - 1).map(letter)).collect()
}

/// What a variable says, if it can be an id: it is shown, and is a key in the history.
pub fn id_given(text: &[u8]) -> Option<&str> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = !text.is_empty() && text.len() <= NAME_CHARS_MAX && text.iter().all(plain);
    fits.then(|| std::str::from_utf8(text).ok()).flatten()
}

/// A name as it may be shown: one line, not too long. None: nothing is left of it.
pub fn name_given(text: &str) -> Option<String> {
    let name: String = names::cleaned(text.trim(), text.len()).chars().take(NAME_CHARS_MAX).collect();
    (!name.is_empty()).then_some(name)
}

/// Where a job comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// `POTLUCK_BUILD_ID`.
    pub run: Option<&'a str>,
    /// The process that its build began with, if there is one.
    pub root: Option<Root>,
    /// Session id.
    pub session: u32,
    /// Working directory.
    pub cwd: &'a [u8],
}

/// A build that goes on, by number.
pub type Key = u64;

#[derive(Debug)]
struct Open {
    run: Option<String>,
    root: Option<Root>,
    place: (u32, Vec<u8>),
    /// Jobs that were asked for and have not ended.
    running: u32,
    /// Last time that one came or ended.
    heard: Duration,
    over: bool,
    /// A job was cut since the last one was asked for.
    cut: bool,
    /// Somebody says when it ends.
    held: bool,
}

/// The builds that go on.
#[derive(Debug, Default)]
pub struct Groups {
    open: HashMap<Key, Open>,
    runs: HashMap<String, Key>,
    roots: HashMap<Root, Key>,
    next: Key,
}

impl Groups {
    /// The build of a job that was just asked for; true: it begins with it.
    pub fn join(&mut self, now: Duration, origin: &Origin<'_>) -> (Key, bool) {
        let known = match (origin.run, origin.root) {
            (Some(run), _) => self.runs.get(run).copied(),
            (None, Some(root)) => self.roots.get(&root).copied().or_else(|| self.near(now, origin)),
            (None, None) => self.near(now, origin),
        };
        let key = known.unwrap_or_else(|| self.begin(now, origin, false));
        let is_new = known.is_none();
        if let Some(root) = origin.root.filter(|_| origin.run.is_none()) {
            // One command after another in one directory: the build goes on with the new root.
            self.roots.insert(root, key);
            if let Some(open) = self.open.get_mut(&key) {
                open.root = Some(root);
                open.over = false;
            }
        }
        if let Some(open) = self.open.get_mut(&key) {
            open.running += 1;
            open.heard = now;
            open.cut = false;
        }
        (key, is_new)
    }

    /// A build before its first job; `held`: it ends by [`Groups::close`] alone (`potluck run`).
    pub fn begin(&mut self, now: Duration, origin: &Origin<'_>, held: bool) -> Key {
        self.next += 1;
        let key = self.next;
        if let Some(run) = origin.run {
            self.runs.insert(run.to_owned(), key);
        }
        let root = origin.root.filter(|_| origin.run.is_none());
        let place = (origin.session, origin.cwd.to_vec());
        let run = origin.run.map(str::to_owned);
        self.open.insert(key, Open { run, root, place, running: 0, heard: now, over: false, cut: false, held });
        key
    }

    /// Rule three: from the same session and directory, less than [`APART_MAX`] after the last, and the root of that one
    /// is gone or there was none.
    fn near(&self, now: Duration, origin: &Origin<'_>) -> Option<Key> {
        self.open
            .iter()
            .filter(|(_, open)| open.run.is_none() && (open.root.is_none() || open.over))
            .filter(|(_, open)| open.place.0 == origin.session && open.place.1 == origin.cwd)
            .find(|(_, open)| now.saturating_sub(open.heard) < APART_MAX)
            .map(|(key, _)| *key)
    }

    /// A job ended; `cut`: its wrapper was gone before.
    pub fn ended(&mut self, key: Key, now: Duration, cut: bool) {
        if let Some(open) = self.open.get_mut(&key) {
            open.running = open.running.saturating_sub(1);
            open.heard = now;
            open.cut |= cut;
        }
    }

    /// The process is gone that builds began with.
    pub fn root_ended(&mut self, root: Root, now: Duration) {
        let Some(key) = self.roots.remove(&root) else { return };
        if let Some(open) = self.open.get_mut(&key).filter(|open| open.root == Some(root)) {
            open.over = true;
            open.heard = now;
        }
    }

    /// Jobs of a build that have not ended.
    pub fn running(&self, key: Key) -> u32 {
        self.open.get(&key).map_or(0, |open| open.running)
    }

    /// Builds that are over, and whether a job of them was cut last. They are forgotten here. One whose root is gone waits
    /// for [`APART_MAX`]: the next command of a script may follow.
    pub fn over(&mut self, now: Duration) -> Vec<(Key, bool)> {
        let is_over = |open: &Open| {
            let silent = now.saturating_sub(open.heard);
            let limit = if open.over { APART_MAX } else { SILENCE_MAX };
            !open.held && open.running == 0 && silent >= limit
        };
        let keys: Vec<Key> = self.open.iter().filter(|(_, open)| is_over(open)).map(|(key, _)| *key).collect();
        keys.into_iter().map(|key| (key, self.close(key))).collect()
    }

    /// Forgets a build; true: a job of it was cut last, and its root is gone or it had none.
    pub fn close(&mut self, key: Key) -> bool {
        let Some(open) = self.open.remove(&key) else { return false };
        self.runs.retain(|_, k| *k != key);
        self.roots.retain(|_, k| *k != key);
        open.cut && (open.over || open.root.is_none())
    }
}

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It goes on.
    Running,
    /// All well, as far as is known.
    Ok,
    /// A command failed.
    Failed,
    /// The person stopped it, or the node ended before it did.
    Cancelled,
}

/// The exit code decides where it is known; else the jobs: `broken` sources failed and no later job of them worked. What
/// failed beside the compilers, nobody knows outside `potluck run`.
pub fn end_of(exit: Option<i32>, broken: usize, cut: bool) -> End {
    match exit {
        Some(0) => End::Ok,
        // SIGHUP, SIGINT, SIGTERM.
        Some(129 | 130 | 143) => End::Cancelled,
        Some(_) => End::Failed,
        None if cut => End::Cancelled,
        None if broken > 0 => End::Failed,
        None => End::Ok,
    }
}

/// What kind of work a job was. The numbers are those of the api's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// On another machine.
    Remote = 0,
    /// Here, although it could have travelled.
    Here = 1,
    /// Only this machine can do it.
    Only = 2,
    /// It is known to have failed.
    Failed = 3,
}

/// One job of a build that has ended. Milliseconds; starts count from the build's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// When it got a core.
    pub start_ms: u32,
    /// From there to its end.
    pub took_ms: u32,
    /// What it was.
    pub kind: Kind,
    /// Index into the build's machines; 0 is this PC.
    pub machine: u16,
    /// Index into the build's reasons; 0 is none.
    pub reason: u16,
    /// Source.
    pub file: String,
    /// Waiting for a core.
    pub wait_ms: u32,
    /// Finding out what it needs.
    pub understand_ms: u32,
    /// On the way and in the other machine's queue.
    pub travel_ms: u32,
    /// The compiler's wall time.
    pub compile_ms: u32,
    /// Putting the outputs in place.
    pub finish_ms: u32,
    /// Runs elsewhere that came to nothing before: taken back, lost.
    pub repeats: u8,
    /// Exit code, where it is known.
    pub exit: Option<i32>,
    /// A configure step's test: it is expected to fail.
    pub probe: bool,
}

/// Jobs by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Elsewhere.
    pub remote: u32,
    /// Here.
    pub here: u32,
    /// Only here.
    pub only: u32,
    /// Failed.
    pub failed: u32,
}

impl Counts {
    /// One more.
    pub fn add(&mut self, kind: Kind) {
        *match kind {
            Kind::Remote => &mut self.remote,
            Kind::Here => &mut self.here,
            Kind::Only => &mut self.only,
            Kind::Failed => &mut self.failed,
        } += 1;
    }

    /// All.
    pub fn total(&self) -> u32 {
        self.remote + self.here + self.only + self.failed
    }
}
