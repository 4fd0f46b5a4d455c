//! Carries `potluck_api::tray` over to the desktop's tray: texts and checks are changed in place, and a menu is built anew
//! only when its lines are others.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use potluck_api::tray::{Does, Entry, Icon, Item, Tray};
use tauri::image::Image;
use tauri::menu::{CheckMenuItem, IsMenuItem, Menu, MenuItem, PredefinedMenuItem, Submenu};
use tauri::tray::{TrayIcon, TrayIconBuilder};
use tauri::{AppHandle, Manager, Wry};

use crate::{desktop, icons};

/// What stands there.
pub struct Drawn {
    icon: TrayIcon,
    shown: Mutex<(Tray, Vec<Line>)>,
}

/// One line as the toolkit has it. A submenu is followed by its lines.
enum Line {
    Text(MenuItem<Wry>),
    Check(CheckMenuItem<Wry>),
    Menu(Submenu<Wry>),
    Rule,
}

/// Puts a tray icon up. Its pictures lie in `dir`.
pub fn create(app: &AppHandle, first: Tray, dir: &Path) -> tauri::Result<()> {
    let (menu, lines) = build(app, &first.entries)?;
    let icon = TrayIconBuilder::with_id("potluck")
        .icon(picture(first.icon)?)
        .temp_dir_path(dir)
        .menu(&menu)
        .on_menu_event(|app, event| crate::clicked(app, event.id().as_ref()))
        .build(app)?;
    app.manage(Drawn { icon, shown: Mutex::new((first, lines)) });
    Ok(())
}

/// Shows `tray`. On the toolkit's thread.
pub fn draw(app: &AppHandle, tray: Tray) {
    let Some(drawn) = app.try_state::<Drawn>() else { return };
    let mut shown = drawn.shown.lock().unwrap_or_else(PoisonError::into_inner);
    let done = || -> tauri::Result<()> {
        if tray.icon != shown.0.icon {
            drawn.icon.set_icon(Some(picture(tray.icon)?))?;
        }
        if lines_of(&tray.entries) == lines_of(&shown.0.entries) {
            return update(&shown.0.entries, &tray.entries, &shown.1);
        }
        let (menu, lines) = build(app, &tray.entries)?;
        drawn.icon.set_menu(Some(menu))?;
        shown.1 = lines;
        Ok(())
    }();
    if let Err(error) = done {
        eprintln!("potluck-tray: the tray cannot be changed: {error}");
    }
    shown.0 = tray;
}

/// What choosing a line does now.
pub fn does(app: &AppHandle, id: &str) -> Option<Does> {
    let drawn = app.try_state::<Drawn>()?;
    let shown = drawn.shown.lock().unwrap_or_else(PoisonError::into_inner);
    items(&shown.0.entries).find(|item| item.id == id)?.does.clone()
}

/// Takes the icon away.
pub fn hide(app: &AppHandle) {
    if let Some(drawn) = app.try_state::<Drawn>() {
        let _ = drawn.icon.set_visible(false);
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

/// What cannot be changed in place.
fn lines_of(entries: &[Entry]) -> Vec<(&'static str, bool, bool)> {
    let shape = potluck_api::tray::shape(entries);
    shape.into_iter().map(|(id, checked, does)| (id, checked.is_some(), does)).collect()
}

/// '&' announces a key in the toolkit's labels.
fn label(text: &str) -> String {
    text.replace('&', "&&")
}

fn build(app: &AppHandle, entries: &[Entry]) -> tauri::Result<(Menu<Wry>, Vec<Line>)> {
    let menu = Menu::new(app)?;
    let mut lines = Vec::new();
    let line = |item: &Item, add: &dyn Fn(&dyn IsMenuItem<Wry>) -> tauri::Result<()>| -> tauri::Result<Line> {
        let (text, enabled) = (label(&item.label), item.does.is_some());
        Ok(match item.checked {
            Some(checked) => {
                let made = CheckMenuItem::with_id(app, item.id, text, enabled, checked, None::<&str>)?;
                add(&made)?;
                Line::Check(made)
            }
            None => {
                let made = MenuItem::with_id(app, item.id, text, enabled, None::<&str>)?;
                add(&made)?;
                Line::Text(made)
            }
        })
    };
    for entry in entries {
        match entry {
            Entry::Item(item) => lines.push(line(item, &|made| menu.append(made))?),
            Entry::Menu { label: text, items } => {
                let sub = Submenu::new(app, label(text), true)?;
                menu.append(&sub)?;
                lines.push(Line::Menu(sub.clone()));
                for item in items {
                    lines.push(line(item, &|made| sub.append(made))?);
                }
            }
            Entry::Rule => {
                menu.append(&PredefinedMenuItem::separator(app)?)?;
                lines.push(Line::Rule);
            }
        }
    }
    Ok((menu, lines))
}

/// The same lines with other words. Checks are always set: the toolkit has moved them at a click.
fn update(before: &[Entry], entries: &[Entry], lines: &[Line]) -> tauri::Result<()> {
    for ((line, (was, _)), (text, checked)) in lines.iter().zip(words(before)).zip(words(entries)) {
        if let Line::Check(line) = line {
            line.set_checked(checked.unwrap_or_default())?;
        }
        match line {
            // Every change goes over the bus to the panel.
            _ if was == text => {}
            Line::Text(line) => line.set_text(label(text))?,
            Line::Check(line) => line.set_text(label(text))?,
            Line::Menu(line) => line.set_text(label(text))?,
            Line::Rule => {}
        }
    }
    Ok(())
}

/// Text and check of each line, in the order of `build`.
fn words(entries: &[Entry]) -> Vec<(&str, Option<bool>)> {
    let mut words = Vec::new();
    for entry in entries {
        match entry {
            Entry::Item(item) => words.push((item.label.as_str(), item.checked)),
            Entry::Menu { label, items } => {
                words.push((label, None));
                words.extend(items.iter().map(|item| (item.label.as_str(), item.checked)));
            }
            Entry::Rule => words.push(("", None)),
        }
    }
    words
}
