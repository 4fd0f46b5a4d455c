//! Carries `potluck_api::tray` over to the desktop's tray. There is one menu for as long as the app runs: words, checks and
//! what can be chosen are changed where they stand, and only lines that come or go are added or removed. A panel chooses
//! a line by the number that it got when it came; in a menu built anew, nobody knows the old numbers.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use potluck_api::tray::{Does, Entry, Icon, Item, Step, Tray, steps};
use tauri::image::Image;
use tauri::menu::{CheckMenuItem, IsMenuItem, Menu, MenuItem, PredefinedMenuItem, Submenu};
use tauri::tray::{TrayIcon, TrayIconBuilder};
use tauri::{AppHandle, Manager, Wry};

use crate::{desktop, icons};

/// What stands there.
pub struct Drawn {
    picture: TrayIcon,
    menu: Menu<Wry>,
    shown: Mutex<Shown>,
}

struct Shown {
    icon: Icon,
    /// In the order of the menu, as the lines.
    entries: Vec<Entry>,
    lines: Vec<Line>,
}

/// One entry as the toolkit has it.
enum Line {
    Text(MenuItem<Wry>),
    Check(CheckMenuItem<Wry>),
    Menu(Submenu<Wry>, Vec<Line>),
    Rule(PredefinedMenuItem<Wry>),
}

/// Puts a tray icon up. Its pictures lie in `dir`.
pub fn create(app: &AppHandle, first: &Tray, dir: &Path) -> tauri::Result<()> {
    let menu = Menu::new(app)?;
    let mut shown = Shown { icon: first.icon, entries: Vec::new(), lines: Vec::new() };
    shown.become_like(app, &menu, &first.entries)?;
    let picture = TrayIconBuilder::with_id("potluck")
        .icon(picture(first.icon)?)
        .temp_dir_path(dir)
        .menu(&menu)
        .on_menu_event(|app, event| crate::clicked(app, event.id().as_ref()))
        .build(app)?;
    app.manage(Drawn { picture, menu, shown: Mutex::new(shown) });
    Ok(())
}

/// Shows `tray`. On the toolkit's thread.
pub fn draw(app: &AppHandle, tray: &Tray) {
    let Some(drawn) = app.try_state::<Drawn>() else { return };
    let mut shown = drawn.shown.lock().unwrap_or_else(PoisonError::into_inner);
    let done = || -> tauri::Result<()> {
        if tray.icon != shown.icon {
            drawn.picture.set_icon(Some(picture(tray.icon)?))?;
            shown.icon = tray.icon;
        }
        shown.become_like(app, &drawn.menu, &tray.entries)
    }();
    if let Err(error) = done {
        eprintln!("potluck-tray: the tray cannot be changed: {error}");
    }
}

/// What choosing a line does now. The toolkit has moved the check of the line by itself, and it is moved back: a check
/// shows what the node says, and it says so when it has done what it was asked. On the toolkit's thread.
pub fn chosen(app: &AppHandle, id: &str) -> Option<Does> {
    let drawn = app.try_state::<Drawn>()?;
    let shown = drawn.shown.lock().unwrap_or_else(PoisonError::into_inner);
    for (line, entry) in shown.lines.iter().zip(&shown.entries) {
        if let Err(error) = line.set_check(entry) {
            eprintln!("potluck-tray: the tray cannot be changed: {error}");
        }
    }
    items(&shown.entries).find(|item| item.id == id)?.does.clone()
}

/// Takes the icon away.
pub fn hide(app: &AppHandle) {
    if let Some(drawn) = app.try_state::<Drawn>() {
        let _ = drawn.picture.set_visible(false);
    }
}

fn picture(icon: Icon) -> tauri::Result<Image<'static>> {
    let (panel, scale) = desktop::panel_and_scale();
    Image::from_bytes(icons::tray(icon, panel, scale))
}

fn items(entries: &[Entry]) -> impl Iterator<Item = &Item> {
    entries.iter().flat_map(|entry| match entry {
        Entry::Item(item) => std::slice::from_ref(item),
        Entry::Menu { items, .. } => items,
        Entry::Rule => &[],
    })
}

/// '&' announces a key in the toolkit's labels.
fn label(text: &str) -> String {
    text.replace('&', "&&")
}

impl Shown {
    /// After an error, entries and lines are still those of the menu.
    fn become_like(&mut self, app: &AppHandle, menu: &Menu<Wry>, entries: &[Entry]) -> tauri::Result<()> {
        for step in steps(&self.entries, entries) {
            match step {
                Step::Remove(at) => {
                    menu.remove_at(at)?;
                    self.entries.remove(at);
                    self.lines.remove(at);
                }
                Step::Insert(at) => {
                    let line = Line::new(app, &entries[at])?;
                    menu.insert(line.made(), at)?;
                    self.entries.insert(at, entries[at].clone());
                    self.lines.insert(at, line);
                }
            }
        }
        for ((line, old), new) in self.lines.iter().zip(&mut self.entries).zip(entries) {
            line.change(old, new)?;
            line.set_check(new)?;
            old.clone_from(new);
        }
        Ok(())
    }
}

impl Line {
    fn new(app: &AppHandle, entry: &Entry) -> tauri::Result<Self> {
        Ok(match entry {
            Entry::Item(item) => Self::of(app, item)?,
            Entry::Menu { label: text, items } => {
                let menu = Submenu::new(app, label(text), true)?;
                let lines = items.iter().map(|item| Self::of(app, item)).collect::<tauri::Result<Vec<_>>>()?;
                lines.iter().try_for_each(|line| menu.append(line.made()))?;
                Self::Menu(menu, lines)
            }
            Entry::Rule => Self::Rule(PredefinedMenuItem::separator(app)?),
        })
    }

    fn of(app: &AppHandle, item: &Item) -> tauri::Result<Self> {
        let (text, can, key) = (label(&item.label), item.does.is_some(), None::<&str>);
        Ok(match item.checked {
            Some(checked) => Self::Check(CheckMenuItem::with_id(app, item.id, text, can, checked, key)?),
            None => Self::Text(MenuItem::with_id(app, item.id, text, can, key)?),
        })
    }

    fn made(&self) -> &dyn IsMenuItem<Wry> {
        match self {
            Self::Text(made) => made,
            Self::Check(made) => made,
            Self::Menu(made, _) => made,
            Self::Rule(made) => made,
        }
    }

    /// Other words, and whether it can be chosen. What is the same is not said: every change goes over the bus to the
    /// panel.
    fn change(&self, old: &Entry, new: &Entry) -> tauri::Result<()> {
        match (self, old, new) {
            (Self::Menu(made, lines), Entry::Menu { label: was, items: old }, Entry::Menu { label: text, items }) => {
                if was != text {
                    made.set_text(label(text))?;
                }
                lines.iter().zip(old).zip(items).try_for_each(|((line, old), new)| line.change_item(old, new))
            }
            (_, Entry::Item(old), Entry::Item(new)) => self.change_item(old, new),
            _ => Ok(()),
        }
    }

    fn change_item(&self, old: &Item, new: &Item) -> tauri::Result<()> {
        let text = (old.label != new.label).then(|| label(&new.label));
        let can = Some(new.does.is_some()).filter(|can| *can != old.does.is_some());
        match self {
            Self::Text(made) => {
                text.map_or(Ok(()), |text| made.set_text(text))?;
                can.map_or(Ok(()), |can| made.set_enabled(can))
            }
            Self::Check(made) => {
                text.map_or(Ok(()), |text| made.set_text(text))?;
                can.map_or(Ok(()), |can| made.set_enabled(can))
            }
            Self::Menu(..) | Self::Rule(_) => Ok(()),
        }
    }

    /// Its check, and those of the lines below it. Always set, because the toolkit has moved it at a click; the same one
    /// again costs nothing.
    fn set_check(&self, entry: &Entry) -> tauri::Result<()> {
        let set = |line: &Self, item: &Item| match (line, item.checked) {
            (Self::Check(made), Some(checked)) => made.set_checked(checked),
            _ => Ok(()),
        };
        match (self, entry) {
            (Self::Menu(_, lines), Entry::Menu { items, .. }) => {
                lines.iter().zip(items).try_for_each(|(line, item)| set(line, item))
            }
            (_, Entry::Item(item)) => set(self, item),
            _ => Ok(()),
        }
    }
}
