//! The node that the app shows: one that answers at this user's socket already, or else one of its own, in a thread.
//! Either way the app speaks to it only by that socket.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use potluck_api::view::{Snapshot, Update};
use potluck_node::client::{self, Closer, Conversation, Trouble};
use potluck_node::dirs::Dirs;
use potluck_node::embedded::{Handle, options, start_embedded};
use serde_json::{Map, Value};

/// What became known of the node.
pub enum Seen {
    /// Nobody answers; with a sentence if it could not be started.
    Stopped(Option<String>),
    /// It runs.
    Running(Box<Snapshot>),
}

/// Least time between two snapshots: what a tray shows is not read faster (UX 2.1: a PC given back shows within 500 ms).
const WATCH: &str = r#"{"call":"watch","every_ms":500}"#;
/// Between two looks for a node that is gone (UX 2.9, P1).
const LOOK_FIRST: Duration = Duration::from_millis(500);
const LOOK_LAST: Duration = Duration::from_secs(10);
/// Time that handing back jobs has when the app ends (UX 2.2).
const STOP: Duration = Duration::from_secs(3);

/// Somebody who wants a node started, and waits for what came of it.
type Wish = Sender<Result<(), String>>;

/// The node.
pub struct Node {
    socket: PathBuf,
    own: Mutex<Option<Handle>>,
    wishes: Mutex<Sender<Wish>>,
    /// Streams of the window, by the name of their call: a second one of the same replaces the first.
    streams: Mutex<HashMap<String, (u64, Closer)>>,
}

/// Whether one runs.
pub fn runs() -> bool {
    std::os::unix::net::UnixStream::connect(Dirs::from_env().socket()).is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// Follows a node from now on, and starts one if there is none. What becomes known goes to `tell`.
    pub fn follow(tell: impl Fn(Seen) + Send + 'static) -> std::sync::Arc<Self> {
        let (wishes, wished) = channel();
        let socket = Dirs::from_env().socket();
        let own = Mutex::default();
        let node = std::sync::Arc::new(Self { socket, own, wishes: Mutex::new(wishes), streams: Mutex::default() });
        let following = std::sync::Arc::clone(&node);
        std::thread::spawn(move || following.keep_up(&wished, &tell));
        node
    }

    fn keep_up(&self, wished: &Receiver<Wish>, tell: &impl Fn(Seen)) {
        let mut pause = LOOK_FIRST;
        let mut why = self.start_if_none().err();
        loop {
            match self.watch(tell) {
                (true, text) => (why, pause) = (text, LOOK_FIRST),
                (false, Some(text)) => why = Some(text),
                // Nobody there, and what is known of that stays true.
                (false, None) => {}
            }
            tell(Seen::Stopped(why.clone()));
            match wished.recv_timeout(pause) {
                Ok(wish) => {
                    let started = self.start_if_none();
                    why = started.clone().err();
                    pause = LOOK_FIRST;
                    let _ = wish.send(started);
                }
                Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(LOOK_LAST),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn start_if_none(&self) -> Result<(), String> {
        if std::os::unix::net::UnixStream::connect(&self.socket).is_ok() {
            return Ok(());
        }
        *lock(&self.own) = None;
        // Not locked meanwhile: an app that ends does not wait for a node that only begins, and has no jobs.
        let own = start_embedded(options())?;
        *lock(&self.own) = Some(own);
        Ok(())
    }

    /// Tells every snapshot until the node ends: whether there was any, and what the node said against it.
    fn watch(&self, tell: &impl Fn(Seen)) -> (bool, Option<String>) {
        let mut told = false;
        let mut watch = match Conversation::begin(&self.socket, WATCH) {
            Ok(watch) => watch,
            Err(Trouble::NotOurs(text)) => return (false, Some(text)),
            Err(_) => return (false, None),
        };
        let (mut sections, mut seq) = (Map::new(), 0);
        while let Ok(Some(text)) = watch.next_answer() {
            let update = match serde_json::from_str::<Update>(&text) {
                Ok(update) => update,
                Err(error) => {
                    let refusal = serde_json::from_str::<Value>(&text).ok();
                    let said = refusal.and_then(|r| Some(r.get("error")?.as_str()?.to_owned()));
                    return (told, Some(said.unwrap_or_else(|| format!("the node said what is no update: {error}"))));
                }
            };
            if seq != 0 && update.seq != seq + 1 {
                return (told, None);
            }
            seq = update.seq;
            sections.extend(update.sections);
            match serde_json::from_value::<Snapshot>(Value::Object(sections.clone())) {
                Ok(snapshot) => tell(Seen::Running(Box::new(snapshot))),
                Err(error) => return (told, Some(format!("the node is another version: {error}"))),
            }
            told = true;
        }
        (told, None)
    }

    /// Starts a node, if none runs.
    pub fn start(&self) -> Result<(), String> {
        if std::os::unix::net::UnixStream::connect(&self.socket).is_ok() {
            return Ok(());
        }
        let (wish, came) = channel();
        lock(&self.wishes).send(wish).map_err(|_| "the app is ending".to_owned())?;
        came.recv().map_err(|_| "the app is ending".to_owned())?
    }

    /// One call: its last answer.
    pub fn call(&self, json: &str) -> Result<String, String> {
        client::call(&self.socket, json).map_err(|e| e.to_string())
    }

    /// A call with several answers, until the last one, until `each` says no, or until the window is gone.
    pub fn stream(&self, json: &str, mut each: impl FnMut(String) -> bool) -> Result<(), String> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let call: Value = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let name = call["call"].as_str().unwrap_or_default().to_owned();
        let mut conversation = Conversation::begin(&self.socket, json).map_err(|e| e.to_string())?;
        let closer = conversation.closer().map_err(|e| e.to_string())?;
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if let Some((_, before)) = lock(&self.streams).insert(name.clone(), (number, closer)) {
            before.close();
        }
        let end = loop {
            match conversation.next_answer() {
                Ok(Some(answer)) if each(answer.clone()) => {}
                Ok(_) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
        };
        let mut streams = lock(&self.streams);
        if streams.get(&name).is_some_and(|(there, _)| *there == number) {
            streams.remove(&name);
        }
        end
    }

    /// The window is gone: nobody listens to its streams.
    pub fn end_streams(&self) {
        for (_, (_, closer)) in lock(&self.streams).drain() {
            closer.close();
        }
    }

    /// The app ends. A node of its own hands jobs back first; another one runs on.
    pub fn end(&self) {
        if let Some(own) = lock(&self.own).take() {
            own.stop(STOP);
        }
    }
}
