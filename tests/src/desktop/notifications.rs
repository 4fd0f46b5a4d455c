//! The bus name of notifications. Private, because zbus makes public names of its signals.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedValue;

use super::banners::Banner;

/// Everything that came.
pub(super) type Kept = Arc<Mutex<Vec<Banner>>>;

/// `org.freedesktop.Notifications`.
pub(super) struct Service {
    pub(super) kept: Kept,
}

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Service {
    /// One more.
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

    /// Buttons and text.
    fn get_capabilities(&self) -> Vec<String> {
        ["actions", "body"].map(String::from).to_vec()
    }

    /// Name, maker, version, version of the specification.
    fn get_server_information(&self) -> (String, String, String, String) {
        ("pc-desktop".into(), "potluck".into(), "1".into(), "1.2".into())
    }

    /// Withdrawn: kept all the same.
    fn close_notification(&self, _id: u32) {}

    /// A button was pressed.
    #[zbus(signal)]
    async fn action_invoked(emitter: &SignalEmitter<'_>, id: u32, action: &str) -> zbus::Result<()>;

    /// It is gone.
    #[zbus(signal)]
    async fn notification_closed(emitter: &SignalEmitter<'_>, id: u32, reason: u32) -> zbus::Result<()>;
}
