//! What the desktop says: whether there is one, its panel, its clock.

use gtk::gio::prelude::*;
use gtk::{gio, glib};
use potluck_api::tray::{Panel, panel};

/// Whether a display answers. After that the toolkit may be used, on this thread.
pub fn display() -> bool {
    let named = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    if !named("DISPLAY") && !named("WAYLAND_DISPLAY") {
        return false;
    }
    glib::set_application_name("Potluck");
    gtk::init().is_ok()
}

/// Whether something on the session bus shows tray icons.
pub fn has_tray() -> bool {
    let Ok(bus) = gio::bus_get_sync(gio::BusType::Session, gio::Cancellable::NONE) else { return false };
    let answer = bus.call_sync(
        Some("org.freedesktop.DBus"),
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus",
        "NameHasOwner",
        Some(&("org.kde.StatusNotifierWatcher",).to_variant()),
        None,
        gio::DBusCallFlags::NONE,
        // Milliseconds; the bus itself answers, and it is on this machine.
        2000,
        gio::Cancellable::NONE,
    );
    answer.ok().and_then(|a| a.get::<(bool,)>()).is_some_and(|(owned,)| owned)
}

/// The panel's colour and the screen's scale. On the toolkit's thread.
pub fn panel_and_scale() -> (Panel, i32) {
    let settings = gtk::Settings::default();
    let theme = settings.as_ref().and_then(|s| s.property::<Option<glib::GString>>("gtk-theme-name"));
    let dark = settings.as_ref().is_some_and(|s| s.property::<bool>("gtk-application-prefer-dark-theme"));
    let forced = std::env::var("POTLUCK_PANEL").ok();
    let desktop = std::env::var("XDG_CURRENT_DESKTOP").unwrap_or_default();
    let screen = gtk::gdk::Display::default().and_then(|d| d.monitor(0));
    let panel = panel(forced.as_deref(), &desktop, theme.as_deref().unwrap_or_default(), dark);
    (panel, screen.map_or(1, |s| gtk::gdk::prelude::MonitorExt::scale_factor(&s)))
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Hour and minute of the local day.
pub fn time_of_day(ms: u64) -> (u8, u8) {
    let seconds = (ms / 1000) as libc::time_t;
    // SAFETY: a struct of numbers and a pointer that nobody reads; all zero is a value of it.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both are live locals of the right types; on failure null comes back and `local` stays midnight.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut local) };
    (local.tm_hour as u8, local.tm_min as u8)
}
