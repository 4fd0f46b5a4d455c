//! The bus name that tray icons register at. Private, because zbus makes public names of its signals.

use std::sync::{Arc, Mutex, PoisonError};

use zbus::message::Header;
use zbus::object_server::SignalEmitter;

/// Owner and object path of each icon.
pub(super) type Items = Arc<Mutex<Vec<(String, String)>>>;

/// `org.kde.StatusNotifierWatcher`.
pub(super) struct Watcher {
    pub(super) items: Items,
}

#[zbus::interface(name = "org.kde.StatusNotifierWatcher")]
impl Watcher {
    /// An icon is there.
    async fn register_status_notifier_item(
        &self,
        service: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> zbus::fdo::Result<()> {
        let sender = header.sender().map(ToString::to_string).unwrap_or_default();
        let _ = Self::status_notifier_item_registered(&emitter, &format!("{sender}{service}")).await;
        self.items.lock().unwrap_or_else(PoisonError::into_inner).push((sender, service.to_owned()));
        Ok(())
    }

    /// A panel is there.
    fn register_status_notifier_host(&self, _service: &str) {}

    /// Somebody shows icons.
    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }

    /// The only one.
    #[zbus(property)]
    fn protocol_version(&self) -> i32 {
        0
    }

    /// All icons.
    #[zbus(property)]
    fn registered_status_notifier_items(&self) -> Vec<String> {
        let items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        items.iter().map(|(sender, path)| format!("{sender}{path}")).collect()
    }

    /// Panels hear of icons by it.
    #[zbus(signal)]
    async fn status_notifier_item_registered(emitter: &SignalEmitter<'_>, item: &str) -> zbus::Result<()>;
}
