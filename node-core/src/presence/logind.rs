//! Sessions of logind: idle and lock hints, told by its signals. It knows nothing finer than what desktops tell it, but
//! it needs no display, and screens are locked through it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use potluck_model::share::Presence;
use tokio::sync::Notify;
use tokio_stream::StreamExt;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus::{Connection, MatchRule, MessageStream};

use super::{Sensor, boot_time};

const SERVICE: &str = "org.freedesktop.login1";
const TOP: &str = "/org/freedesktop/login1";
const SESSION: &str = "org.freedesktop.login1.Session";
/// Sessions that are looked at: a desk has one or two.
const SESSIONS_MAX: usize = 64;
/// Waits between two tries to reach the bus.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// An answer of the bus; one that never comes is a bus that is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one session says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    /// Since when it is idle, as [`boot_time`].
    idle_since: Option<Duration>,
    /// Since when it is locked.
    locked_since: Option<Duration>,
    /// Of another person than this node's.
    is_others: bool,
}

/// All sessions that count; None: logind cannot be asked, or nobody is logged in.
type Sessions = Option<HashMap<String, Session>>;

/// The sensor. Its task keeps the hints up to date.
pub struct Logind {
    sessions: Arc<Mutex<Sessions>>,
}

impl Logind {
    /// Starts the task on the present runtime; `changed` is told whenever something changed.
    pub fn start(changed: Arc<Notify>) -> Self {
        let sessions: Arc<Mutex<Sessions>> = Arc::default();
        let own = Arc::clone(&sessions);
        tokio::spawn(async move {
            let mut wait = RETRY.0;
            loop {
                let set = |new: Sessions| {
                    let mut held = own.lock().unwrap_or_else(|e| e.into_inner());
                    if *held != new {
                        *held = new;
                        changed.notify_one();
                    }
                };
                match watch(&set).await {
                    // It had worked: the bus was started again.
                    Ok(()) => wait = RETRY.0,
                    Err(error) => crate::log::debug(|| format!("logind: {error}")),
                }
                set(None);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
            }
        });
        Self { sessions }
    }
}

impl Sensor for Logind {
    fn name(&self) -> &'static str {
        "logind"
    }

    fn others(&mut self, now: Duration) -> Option<Duration> {
        let held = self.sessions.lock().unwrap_or_else(|e| e.into_inner());
        held.as_ref()?.values().filter(|session| session.is_others).map(|session| age(now, session.idle_since)).min()
    }

    fn look(&mut self, now: Duration) -> Option<Presence> {
        let held = self.sessions.lock().unwrap_or_else(|e| e.into_inner());
        let sessions = held.as_ref().filter(|sessions| !sessions.is_empty())?;
        // One that is in use is enough, and one that is not locked.
        let input_age = sessions.values().map(|session| age(now, session.idle_since)).min();
        let locked_for = sessions.values().map(|session| session.locked_since).collect::<Option<Vec<_>>>();
        let locked_for = locked_for.and_then(|l| l.into_iter().max()).map(|at| age(now, Some(at)));
        Some(Presence { input_age, locked_for })
    }
}

/// What never began is now.
fn age(now: Duration, since: Option<Duration>) -> Duration {
    since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
}

/// Follows the hints until the bus is gone.
async fn watch(set: &impl Fn(Sessions)) -> zbus::Result<()> {
    let connection = limited(Connection::system()).await?;
    // Whoever else sends signals from these paths only makes us look again.
    let rule = MatchRule::builder().msg_type(zbus::message::Type::Signal).path_namespace(TOP)?.build();
    let mut signals = limited(MessageStream::for_match_rule(rule, &connection, Some(64))).await?;
    let mut known = HashMap::new();
    loop {
        known = read(&connection, &known).await?;
        set(Some(known.clone()));
        loop {
            match signals.next().await {
                None | Some(Err(_)) => return Ok(()),
                Some(Ok(signal)) if is_news(&signal) => break,
                Some(Ok(_)) => {}
            }
        }
    }
}

/// What logind tells of sessions and their hints: others that use its paths make no work here.
fn is_news(signal: &zbus::Message) -> bool {
    let header = signal.header();
    header.interface().is_some_and(|name| {
        name.as_str() == "org.freedesktop.DBus.Properties" || name.as_str().starts_with("org.freedesktop.login1.")
    })
}

async fn limited<T>(work: impl Future<Output = zbus::Result<T>>) -> zbus::Result<T> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(zbus::Error::Failure("no answer".into())))
}

async fn read(connection: &Connection, known: &HashMap<String, Session>) -> zbus::Result<HashMap<String, Session>> {
    let call = connection.call_method(Some(SERVICE), TOP, Some("org.freedesktop.login1.Manager"), "ListSessions", &());
    let listed: Vec<(String, u32, String, String, OwnedObjectPath)> = limited(call).await?.body().deserialize()?;
    let own = rustix::process::getuid().as_raw();
    let mut sessions = HashMap::new();
    let mut remote = HashMap::new();
    for (id, uid, _, seat, path) in listed.into_iter().take(SESSIONS_MAX) {
        let properties = Some("org.freedesktop.DBus.Properties");
        let call = connection.call_method(Some(SERVICE), &path, properties, "GetAll", &SESSION);
        // It may have ended since it was listed.
        let Ok(answer) = limited(call).await else { continue };
        let values: HashMap<String, OwnedValue> = answer.body().deserialize()?;
        let is = |name: &str| values.get(name).is_some_and(|v| bool::try_from(v).unwrap_or(false));
        // The login screen is nobody.
        if values.get("Class").is_some_and(|v| <&str>::try_from(v).is_ok_and(|class| class != "user")) {
            continue;
        }
        // Who else sits at this PC now counts as well.
        if uid != own && (seat.is_empty() || !is("Active")) {
            continue;
        }
        let before = known.get(&id);
        let number = |name: &str| values.get(name).and_then(|v| u64::try_from(v).ok()).unwrap_or(0);
        let idle_since = is("IdleHint").then(|| {
            let said = since(number("IdleSinceHint"));
            said.or(before.and_then(|b| b.idle_since)).unwrap_or_else(boot_time)
        });
        let locked_since = is("LockedHint").then(|| before.and_then(|b| b.locked_since).unwrap_or_else(boot_time));
        let group = if seat.is_empty() { &mut remote } else { &mut sessions };
        group.insert(id, Session { idle_since, locked_since, is_others: uid != own });
    }
    // Whoever logs in over the network does not sit here; that counts only where nobody can.
    Ok(if sessions.is_empty() { remote } else { sessions })
}

/// A moment of the wall clock, in microseconds since 1970, as [`boot_time`]. None: it says nothing.
fn since(wall_us: u64) -> Option<Duration> {
    if wall_us == 0 {
        return None;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(boot_time().saturating_sub(now.saturating_sub(Duration::from_micros(wall_us))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_logind_tells_makes_work() {
        let is = |interface: &str| {
            let signal = zbus::Message::signal(TOP, interface, "Told").unwrap().build(&()).unwrap();
            is_news(&signal)
        };
        assert!(is("org.freedesktop.DBus.Properties"), "hints");
        assert!(is("org.freedesktop.login1.Manager"), "sessions come and go");
        assert!(!is("org.freedesktop.DBus.Mock") && !is("org.freedesktop.login1evil"));
    }
}
