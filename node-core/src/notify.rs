//! Notifications of the desktop: `model::notify` decides, a thread here asks and shows. Without a bus or a service nothing
//! happens and nothing is wrong.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use notify_rust::{Hint, Notification};
use potluck_model::notify::{Banner, Happened, Kind, Planner, Settings};

/// How often do-not-disturb is looked at while something waits for its end.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Banners whose button is waited for; some services keep them for days, and each has a thread.
const OPEN_MAX: usize = 8;
/// Problems whose banner may still be there; three are told a day.
const SHOWN_MAX: usize = 64;
/// The service and its interface.
const SERVICE: &str = "org.freedesktop.Notifications";
/// Its object.
const OBJECT: &str = "/org/freedesktop/Notifications";
/// Name of the one action.
const SHOW: &str = "show";

/// Whoever tells; dropped with its thread.
pub struct Notifier {
    told: mpsc::Sender<(Duration, Settings, Happened)>,
}

impl Notifier {
    /// `clicked` is told the view that a button opens.
    pub fn start(clicked: impl Fn(String) + Send + Sync + 'static) -> Self {
        let (told, inbox) = mpsc::channel();
        let work = move || serve(&inbox, &Arc::new(clicked));
        if let Err(error) = std::thread::Builder::new().name("notify".to_owned()).spawn(work) {
            crate::log::warn(&format!("no thread for notifications: {error}"));
        }
        Self { told }
    }

    /// Something happened at `now`. Returns at once.
    pub fn tell(&self, now: Duration, settings: Settings, happened: Happened) {
        let _ = self.told.send((now, settings, happened));
    }
}

type Clicked = Arc<dyn Fn(String) + Send + Sync>;

fn serve<F: Fn(String) + Send + Sync + 'static>(
    inbox: &mpsc::Receiver<(Duration, Settings, Happened)>,
    clicked: &Arc<F>,
) {
    let clicked: Clicked = Arc::clone(clicked) as Clicked;
    let open = Arc::new(AtomicUsize::new(0));
    let (mut planner, mut bus) = (Planner::default(), None);
    // Banners of problems by cause, to be closed when the cause is gone.
    let mut shown: HashMap<String, u32> = HashMap::new();
    loop {
        let told = if planner.waits() {
            inbox.recv_timeout(LOOK_AGAIN)
        } else {
            inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        };
        let banners = match told {
            Ok((now, settings, happened)) => {
                let is_quiet = is_inhibited(&mut bus);
                if let Happened::Solved { cause } = &happened
                    && let Some(id) = shown.remove(cause)
                {
                    withdraw(&mut bus, id);
                }
                let mut banners = if is_quiet { Vec::new() } else { planner.released() };
                banners.extend(planner.happened(now, &settings, is_quiet, &happened));
                banners
            }
            Err(mpsc::RecvTimeoutError::Timeout) if is_inhibited(&mut bus) => Vec::new(),
            Err(mpsc::RecvTimeoutError::Timeout) => planner.released(),
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        };
        for banner in banners {
            let cause = banner.cause.clone();
            let id = show(banner, &clicked, &open);
            if let (Some(cause), Some(id)) = (cause, id) {
                if shown.len() >= SHOWN_MAX {
                    shown.clear();
                }
                shown.insert(cause, id);
            }
        }
    }
}

fn connected(bus: &mut Option<zbus::blocking::Connection>) -> Option<&zbus::blocking::Connection> {
    if bus.is_none() {
        *bus = zbus::blocking::Connection::session().ok();
    }
    bus.as_ref()
}

/// Takes a banner away. One that the person closed is none any more, which is no fault.
fn withdraw(bus: &mut Option<zbus::blocking::Connection>, id: u32) {
    let Some(connection) = connected(bus) else { return };
    let _ = connection.call_method(Some(SERVICE), OBJECT, Some(SERVICE), "CloseNotification", &id);
}

/// Whether the service says that the person wants no notifications (KDE: do-not-disturb, full screen, a shared screen).
/// Others have no such property; GNOME keeps what it does not show by itself.
fn is_inhibited(bus: &mut Option<zbus::blocking::Connection>) -> bool {
    let Some(connection) = connected(bus) else { return false };
    let read = zbus::blocking::Proxy::new(connection, SERVICE, OBJECT, SERVICE)
        .and_then(|proxy| proxy.get_property::<bool>("Inhibited"));
    if let Err(zbus::Error::InputOutput(_)) = &read {
        // The session's bus was started anew.
        *bus = None;
    }
    read.unwrap_or(false)
}

/// Services may read the body as markup (the Desktop Notifications specification); none reads the title so.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The service's number of the banner.
fn show(banner: Banner, clicked: &Clicked, open: &Arc<AtomicUsize>) -> Option<u32> {
    let mut notification = Notification::new();
    notification.appname("Potluck").icon("potluck").summary(&banner.title).body(&escaped(&banner.body));
    notification.action(SHOW, banner.button);
    let category = match banner.kind {
        Kind::Build => "transfer.complete",
        Kind::Join | Kind::Problem => "network",
    };
    notification.hint(Hint::Category(category.to_owned())).hint(Hint::DesktopEntry("potluck".to_owned()));
    let handle = match notification.show() {
        Ok(handle) => handle,
        Err(error) => {
            crate::log::debug(|| format!("no notification: {error}"));
            return None;
        }
    };
    let id = handle.id();
    if open.fetch_add(1, Ordering::Relaxed) >= OPEN_MAX {
        open.fetch_sub(1, Ordering::Relaxed);
        return Some(id);
    }
    let (clicked, open_then) = (Arc::clone(clicked), Arc::clone(open));
    let wait = move || {
        // Also "default": a click on the banner itself.
        handle.wait_for_action(|action| {
            if action == SHOW || action == "default" {
                clicked(banner.opens.clone());
            }
        });
        open_then.fetch_sub(1, Ordering::Relaxed);
    };
    if std::thread::Builder::new().name("notified".to_owned()).spawn(wait).is_err() {
        open.fetch_sub(1, Ordering::Relaxed);
    }
    Some(id)
}
