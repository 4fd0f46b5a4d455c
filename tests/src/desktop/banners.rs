//! Whoever shows notifications: keeps them, and presses their buttons when told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use zbus::blocking::{Connection, connection};
use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedValue;

use crate::{Context, Outcome};

/// Where the service lies.
const PATH: &str = "/org/freedesktop/Notifications";

/// A notification as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Banner {
    /// Its number.
    pub id: u32,
    /// First line.
    pub title: String,
    /// The rest.
    pub body: String,
    /// Name and label of each action, one behind the other.
    pub actions: Vec<String>,
}

type Kept = Arc<Mutex<Vec<Banner>>>;

struct Service {
    kept: Kept,
}

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Service {
    #[expect(clippy::too_many_arguments, reason = "the specification's")]
    fn notify(
        &self,
        _app: String,
        _replaces: u32,
        _icon: String,
        summary: String,
        body: String,
        actions: Vec<String>,
        _hints: HashMap<String, OwnedValue>,
        _timeout: i32,
    ) -> u32 {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let id = kept.len() as u32 + 1;
        kept.push(Banner { id, title: summary, body, actions });
        id
    }

    fn get_capabilities(&self) -> Vec<String> {
        ["actions", "body"].map(String::from).to_vec()
    }

    fn get_server_information(&self) -> (String, String, String, String) {
        ("pc-desktop".into(), "potluck".into(), "1".into(), "1.2".into())
    }

    fn close_notification(&self, _id: u32) {}

    /// A button was pressed.
    #[zbus(signal)]
    async fn action_invoked(emitter: &SignalEmitter<'_>, id: u32, action: &str) -> zbus::Result<()>;

    /// It is gone.
    #[zbus(signal)]
    async fn notification_closed(emitter: &SignalEmitter<'_>, id: u32, reason: u32) -> zbus::Result<()>;
}

/// The service on a bus.
pub struct Banners {
    bus: Connection,
    kept: Kept,
}

impl Banners {
    /// Appears on the bus with this address.
    pub fn start(address: &str) -> Outcome<Self> {
        let kept = Kept::default();
        let bus = connection::Builder::address(address)
            .and_then(|b| b.serve_at(PATH, Service { kept: Arc::clone(&kept) }))
            .and_then(|b| b.name("org.freedesktop.Notifications"))
            .and_then(connection::Builder::build)
            .context(|| "becoming the service for notifications".into())?;
        Ok(Self { bus, kept })
    }

    /// All that came.
    pub fn all(&self) -> Vec<Banner> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Presses a button, as the person does.
    pub fn press(&self, id: u32, action: &str) -> Outcome<()> {
        let said = || format!("pressing {action:?}");
        let name = "org.freedesktop.Notifications";
        self.bus.emit_signal(None::<&str>, PATH, name, "ActionInvoked", &(id, action)).context(said)?;
        self.bus.emit_signal(None::<&str>, PATH, name, "NotificationClosed", &(id, 2u32)).context(said)
    }
}
