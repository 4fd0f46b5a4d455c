//! Time since the last input, from X11's screen saver extension or from Mutter. Only in the desktop app: it links X
//! libraries. There are no events to wait for here, so whoever needs to know quickly asks often.

use std::time::Duration;

use potluck_model::share::Presence;

use super::Sensor;

/// Where no session bus is, libraries that are asked for it start one of their own at each call, on which nobody is.
/// Names the place where it will be if it comes. To be called first, while the process has one thread.
pub fn start_no_bus() {
    const NAME: &str = "DBUS_SESSION_BUS_ADDRESS";
    if std::env::var_os(NAME).is_some_and(|address| !address.is_empty()) {
        return;
    }
    // "disabled:" is the transport that the D-Bus specification has for this.
    let address = std::env::var("XDG_RUNTIME_DIR").map_or("disabled:".to_owned(), |dir| format!("unix:path={dir}/bus"));
    // SAFETY: no other thread reads or writes the environment, because there is none so far.
    unsafe { std::env::set_var(NAME, address) };
}

/// The desktop of this process's environment.
#[derive(Debug, Default)]
pub struct Desktop {
    _private: (),
}

impl Desktop {
    /// None: there is none that can be asked. Without a display the libraries are never called. Under Wayland X11 sees
    /// only what goes to X11's own windows, so there it must be Mutter, or logind's hints.
    pub fn new() -> Option<Self> {
        let says = |name: &str| std::env::var(name).unwrap_or_default();
        let wayland = !says("WAYLAND_DISPLAY").is_empty() || says("XDG_SESSION_TYPE") == "wayland";
        let can = if wayland { says("XDG_CURRENT_DESKTOP").contains("GNOME") } else { !says("DISPLAY").is_empty() };
        (cfg!(feature = "desktop") && can).then_some(Self { _private: () })
    }
}

impl Sensor for Desktop {
    fn name(&self) -> &'static str {
        "desktop"
    }

    fn sees_keys(&self) -> bool {
        true
    }

    #[cfg(feature = "desktop")]
    fn look(&mut self, _now: Duration) -> Option<Presence> {
        let age = user_idle3::UserIdle::get_time().ok()?.duration();
        Some(Presence { input_age: Some(age), locked_for: None })
    }

    #[cfg(not(feature = "desktop"))]
    fn look(&mut self, _now: Duration) -> Option<Presence> {
        None
    }
}
