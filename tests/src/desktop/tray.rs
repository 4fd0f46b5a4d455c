//! Whoever shows tray icons, and a person who opens their menus: StatusNotifierWatcher and com.canonical.dbusmenu.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use zbus::blocking::{Connection, Proxy, connection};
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Value};

use super::Bus;
use super::watcher::{Items, Watcher};
use crate::wait::wait_until;
use crate::{Context, Outcome};

/// A panel on a bus.
pub struct Panel {
    bus: Connection,
    items: Items,
}

/// A tray icon with its menu.
pub struct TrayItem {
    item: Proxy<'static>,
    menu: Proxy<'static>,
}

/// A line of a menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// A panel chooses it by this number.
    pub id: i32,
    /// What it says.
    pub label: String,
    /// It can be chosen.
    pub enabled: bool,
    /// It has a check, and is checked.
    pub checked: Option<bool>,
    /// Lines of its submenu.
    pub lines: Vec<Line>,
}

type Layout = (i32, HashMap<String, OwnedValue>, Vec<OwnedValue>);

impl Panel {
    /// Appears on the bus.
    pub fn start(bus: &Bus) -> Outcome<Self> {
        Self::on(&bus.address)
    }

    /// Appears on the bus with this address.
    pub fn on(address: &str) -> Outcome<Self> {
        let items = Items::default();
        let watcher = Watcher { items: Arc::clone(&items) };
        let bus = connection::Builder::address(address)
            .and_then(|b| b.serve_at("/StatusNotifierWatcher", watcher))
            .and_then(|b| b.name("org.kde.StatusNotifierWatcher"))
            .and_then(connection::Builder::build)
            .context(|| "becoming the tray's watcher".into())?;
        Ok(Self { bus, items })
    }

    /// Waits for the only icon.
    pub fn item(&self, deadline: Duration) -> Outcome<TrayItem> {
        let (owner, path) = wait_until("a tray icon", deadline, || {
            Ok(self.items.lock().unwrap_or_else(PoisonError::into_inner).first().cloned())
        })?;
        let said = || "asking the tray icon".to_owned();
        let item = Proxy::new(&self.bus, owner.clone(), path, "org.kde.StatusNotifierItem").context(said)?;
        let menu: OwnedObjectPath = item.get_property("Menu").context(said)?;
        let menu = Proxy::new(&self.bus, owner, menu, "com.canonical.dbusmenu").context(said)?;
        Ok(TrayItem { item, menu })
    }
}

impl TrayItem {
    /// One of its properties.
    pub fn property(&self, name: &str) -> Outcome<String> {
        // Asked anew: icons announce changes by signals that nobody here waits for.
        let owned: OwnedValue = Proxy::new(
            self.item.connection(),
            self.item.destination().to_owned(),
            self.item.path().to_owned(),
            "org.freedesktop.DBus.Properties",
        )
        .and_then(|p| p.call("Get", &("org.kde.StatusNotifierItem", name)))
        .context(|| format!("asking for {name}"))?;
        String::try_from(owned).context(|| format!("{name} is no text"))
    }

    /// The menu as it is now.
    pub fn lines(&self) -> Outcome<Vec<Line>> {
        let said = || "asking for the menu".to_owned();
        let _: bool = self.menu.call("AboutToShow", &(0i32)).context(said)?;
        let (_, root): (u32, Layout) = self.menu.call("GetLayout", &(0i32, -1i32, Vec::<&str>::new())).context(said)?;
        lines(root)
    }

    /// The line that begins like this, in a submenu as well.
    pub fn line(&self, begins: &str) -> Outcome<Option<Line>> {
        let found = |lines: &[Line]| lines.iter().find(|l| l.label.starts_with(begins)).cloned();
        let lines = self.lines()?;
        Ok(found(&lines).or_else(|| lines.iter().find_map(|l| found(&l.lines))))
    }

    /// Waits for a line.
    pub fn shows(&self, begins: &str, deadline: Duration) -> Outcome<Line> {
        wait_until(&format!("a menu line {begins:?}"), deadline, || self.line(begins))
    }

    /// Waits for a line and chooses it; the line as it was then. Once more only where that line went in between, and so
    /// nobody was chosen: the menu refuses its number, and does not have it any more.
    pub fn choose(&self, begins: &str, deadline: Duration) -> Outcome<Line> {
        wait_until(&format!("the choice of {begins:?}"), deadline, || {
            let line = self.shows(begins, deadline)?;
            let chosen: zbus::Result<()> = self.menu.call("Event", &(line.id, "clicked", Value::from(""), 0u32));
            match chosen {
                Ok(()) => Ok(Some(line)),
                Err(zbus::Error::MethodError(..)) if !has(&self.lines()?, line.id) => Ok(None),
                Err(error) => Err(error).context(|| format!("choosing {:?}", line.label)),
            }
        })
    }
}

fn has(lines: &[Line], id: i32) -> bool {
    lines.iter().any(|line| line.id == id || has(&line.lines, id))
}

fn lines(layout: Layout) -> Outcome<Vec<Line>> {
    let said = || "the menu is no menu".to_owned();
    let mut out = Vec::new();
    for child in layout.2 {
        let child = Layout::try_from(child).context(said)?;
        let text = |name: &str| child.1.get(name).and_then(|v| String::try_from(v.clone()).ok()).unwrap_or_default();
        let number = |name: &str| child.1.get(name).and_then(|v| i32::try_from(v).ok());
        let enabled = child.1.get("enabled").and_then(|v| bool::try_from(v).ok()).unwrap_or(true);
        // A single underscore announces a key.
        let label = text("label").replace("__", "\u{1}").replace('_', "").replace('\u{1}', "_");
        let has_check = !text("toggle-type").is_empty();
        let (id, checked) = (child.0, has_check.then(|| number("toggle-state") == Some(1)));
        out.push(Line { id, label, enabled, checked, lines: lines(child)? });
    }
    Ok(out)
}
