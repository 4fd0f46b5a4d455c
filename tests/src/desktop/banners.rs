//! Whoever shows notifications: keeps them, and presses their buttons when told to.

use std::sync::{Arc, PoisonError};

use zbus::blocking::{Connection, connection};

use super::notifications::{Kept, Service};
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
