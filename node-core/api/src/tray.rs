//! What the tray shows of a node: icon, name and menu with the calls behind it (UX 2.2, 4.1). A pure function of the
//! snapshot; the tray app only carries it over.

use std::fmt::Write as _;

use crate::build::{BuildEnd, BuildLine, BuildRow};
use crate::call::{Call, Pause};
use crate::view::{FixAction, Problem, ShareState, ShareView, Snapshot, UserRole};

/// Shapes of UX 4.7: the shape carries the meaning, colour never alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icon {
    /// Off or paused.
    Off,
    /// Ready or held.
    Ready,
    /// Helping or finishing.
    Helping,
    /// An own build runs.
    Building,
    /// Something needs the person.
    Attention,
}

/// What is known of the node.
#[derive(Clone, Copy, Debug)]
pub enum NodeState<'a> {
    /// It was started or is being asked; nothing came yet.
    Starting,
    /// Nobody answers; with a sentence if it could not be started.
    Stopped(Option<&'a str>),
    /// It runs.
    Running(&'a Snapshot),
}

/// What choosing an entry does.
#[derive(Clone, Debug, PartialEq)]
pub enum Does {
    /// Asks the node: JSON of a [`Call`].
    Call(String),
    /// Opens the window, at a view if there is one.
    Open(Option<String>),
    /// Starts a node.
    Start,
    /// Ends the app.
    Quit,
}

/// One line of the menu.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The same from snapshot to snapshot.
    pub id: &'static str,
    /// For people.
    pub label: String,
    /// Some: a check item, and its state.
    pub checked: Option<bool>,
    /// None: it can only be read.
    pub does: Option<Does>,
}

/// An entry of the menu.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A line.
    Item(Item),
    /// Lines below another one.
    Menu {
        /// For people.
        label: String,
        /// Its lines.
        items: Vec<Item>,
    },
    /// A separator.
    Rule,
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tray {
    /// Its icon.
    pub icon: Icon,
    /// For screen readers, and the tooltip where there is one.
    pub name: String,
    /// From the top.
    pub entries: Vec<Entry>,
}

/// Longest label, characters: menus wider than this are cut by some panels.
const LABEL_CHARS: usize = 72;
/// Longest name of a build in a label.
const NAME_CHARS: usize = 32;
/// From this share of a build on, per cent, its end is estimated.
const ESTIMATE_PERCENT: u64 = 10;

/// What the tray shows. `time_of_day` tells local hour and minute of milliseconds since 1970.
pub fn tray(node: NodeState<'_>, now_ms: u64, time_of_day: &dyn Fn(u64) -> (u8, u8)) -> Tray {
    match node {
        NodeState::Starting => Tray {
            icon: Icon::Off,
            name: "Potluck — starting".to_owned(),
            entries: [vec![text("status", "Starting …".to_owned()), Entry::Rule], last_entries()].concat(),
        },
        NodeState::Stopped(why) => {
            let mut entries = vec![text("status", crate::words::NOT_RUNNING.to_owned())];
            if let Some(why) = why {
                entries.push(text("why", short(why.lines().next().unwrap_or_default(), LABEL_CHARS)));
            }
            entries.extend([item("start", "Start".to_owned(), Does::Start), Entry::Rule]);
            entries.extend(last_entries());
            Tray { icon: Icon::Attention, name: format!("Potluck — {}", crate::words::NOT_RUNNING), entries }
        }
        NodeState::Running(snapshot) => running(snapshot, now_ms, time_of_day),
    }
}

fn running(snapshot: &Snapshot, now_ms: u64, time_of_day: &dyn Fn(u64) -> (u8, u8)) -> Tray {
    let share = &snapshot.share;
    let builds = snapshot.this.role != Some(UserRole::Donor);
    let mut entries = vec![text("status", short(&share.short, LABEL_CHARS))];
    let building = snapshot.building.first().filter(|_| builds);
    if let Some(line) = building {
        entries.push(item("build", build_line(line, now_ms), open(format!("builds/{}", line.id))));
    }
    entries.push(Entry::Item(Item {
        id: "share",
        label: "Share my CPU".to_owned(),
        checked: Some(share.on),
        does: Some(call(&Call::Share { on: !share.on })),
    }));
    entries.push(Entry::Rule);
    let problem = snapshot.problems.iter().find(|p| p.attention);
    if let Some(problem) = problem {
        entries.push(item("problem", problem_line(problem), fix(problem)));
    }
    if let Some(pause) = pausing(share, time_of_day) {
        entries.extend([pause, Entry::Rule]);
    }
    if let Some(last) = snapshot.builds.iter().find(|b| b.end != BuildEnd::Running).filter(|_| builds) {
        entries.push(item("last", last_line(last), open(format!("builds/{}", last.id))));
    }
    entries.extend(last_entries());
    Tray { icon: icon(snapshot, problem.is_some()), name: name(snapshot, problem, building), entries }
}

/// Blocked before helping before building before the rest.
fn icon(snapshot: &Snapshot, problem: bool) -> Icon {
    match snapshot.share.state {
        // A role that a keeper gave it: nothing to mend here.
        ShareState::Blocked { ref problem } if problem != "role" => Icon::Attention,
        _ if problem => Icon::Attention,
        ShareState::Helping { .. } | ShareState::Finishing { .. } => Icon::Helping,
        _ if !snapshot.building.is_empty() => Icon::Building,
        ShareState::Ready { .. } | ShareState::Held { .. } => Icon::Ready,
        ShareState::Off | ShareState::Paused { .. } | ShareState::Blocked { .. } => Icon::Off,
    }
}

fn name(snapshot: &Snapshot, problem: Option<&Problem>, building: Option<&BuildLine>) -> String {
    match (problem, icon(snapshot, problem.is_some()), building) {
        (Some(problem), _, _) => format!("Potluck — needs you: {}", short(&problem.headline, LABEL_CHARS)),
        (None, Icon::Building, Some(line)) => {
            format!("Potluck — building {}, {}", short(&line.name, NAME_CHARS), progress(line))
        }
        _ => format!("Potluck — {}", short(&snapshot.share.short, LABEL_CHARS)),
    }
}

/// A way to pause, or back; None where nothing is shared anyway.
fn pausing(share: &ShareView, time_of_day: &dyn Fn(u64) -> (u8, u8)) -> Option<Entry> {
    let resume = |why: String| Some(item("resume", format!("Resume now ({why})"), call(&Call::Resume)));
    match &share.state {
        ShareState::Off => None,
        ShareState::Paused { until_ms: Some(until) } => {
            let (hour, minute) = time_of_day(*until);
            resume(format!("paused until {hour:02}:{minute:02}"))
        }
        ShareState::Paused { until_ms: None } => resume("paused".to_owned()),
        ShareState::Finishing { jobs: 1 } => resume("finishing 1 job".to_owned()),
        ShareState::Finishing { jobs } => resume(format!("finishing {jobs} jobs")),
        _ if !share.on => None,
        _ => {
            let line = |id, label: &str, until| Item {
                id,
                label: label.to_owned(),
                checked: None,
                does: Some(call(&Call::Pause { until })),
            };
            Some(Entry::Menu {
                label: "Pause sharing".to_owned(),
                items: vec![
                    line("pause-hour", "1 hour", Pause::For(3600)),
                    line("pause-tomorrow", "Until tomorrow 08:00", Pause::Tomorrow),
                    line("pause-open", "Until I turn it back on", Pause::Open),
                    line("pause-finish", "Finish current jobs, then pause", Pause::Finish),
                ],
            })
        }
    }
}

fn last_entries() -> Vec<Entry> {
    vec![item("open", "Open Potluck".to_owned(), Does::Open(None)), item("quit", "Quit Potluck".to_owned(), Does::Quit)]
}

fn build_line(line: &BuildLine, now_ms: u64) -> String {
    let mut text = format!("{} — {}", short(&line.name, NAME_CHARS), progress(line));
    // Writing into a text does not fail.
    let _ = match line.cores {
        1 => write!(text, " · 1 core"),
        cores => write!(text, " · {} cores", count(cores)),
    };
    if let Some(left) = estimate_ms(line, now_ms) {
        let _ = match left.div_ceil(60_000) {
            0 | 1 => write!(text, " · about a minute"),
            minutes @ 2..60 => write!(text, " · about {minutes} min"),
            minutes => write!(text, " · about {} h", (minutes + 30) / 60),
        };
    }
    text
}

fn progress(line: &BuildLine) -> String {
    match (line.total, line.done) {
        (Some(total), done) => format!("{} of {}", count(done), count(total)),
        (None, 1) => "1 job".to_owned(),
        (None, done) => format!("{} jobs", count(done)),
    }
}

/// At the pace so far. None: unknown, or too early to say.
fn estimate_ms(line: &BuildLine, now_ms: u64) -> Option<u64> {
    let (done, total) = (u64::from(line.done), u64::from(line.total?));
    let took = now_ms.checked_sub(line.started_ms)?;
    (done < total && done * 100 >= total * ESTIMATE_PERCENT).then(|| took.saturating_mul(total - done) / done)
}

fn last_line(build: &BuildRow) -> String {
    let end = match build.end {
        BuildEnd::Failed => "failed after",
        BuildEnd::Cancelled => "stopped after",
        BuildEnd::Ok | BuildEnd::Running => "done in",
    };
    format!("Last build: {} — {end} {}", short(&build.name, NAME_CHARS), took(build.took_ms))
}

fn problem_line(problem: &Problem) -> String {
    format!("{} — fix …", short(problem.headline.trim_end_matches('.'), LABEL_CHARS))
}

fn fix(problem: &Problem) -> Does {
    match &problem.fix.action {
        FixAction::View { name } => open(name.clone()),
        // Only what is a call is asked; a command is shown in the window, where it can be copied.
        FixAction::Call { json } if serde_json::from_str::<Call>(json).is_ok() => Does::Call(json.clone()),
        FixAction::Call { .. } | FixAction::Command { .. } => open("help".to_owned()),
    }
}

fn open(view: String) -> Does {
    Does::Open(Some(view))
}

fn call(call: &Call) -> Does {
    Does::Call(serde_json::to_string(call).expect("calls are plain values"))
}

fn item(id: &'static str, label: String, does: Does) -> Entry {
    Entry::Item(Item { id, label, checked: None, does: Some(does) })
}

fn text(id: &'static str, label: String) -> Entry {
    Entry::Item(Item { id, label, checked: None, does: None })
}

/// On one line, without control characters, and not longer than `chars`: names come from other PCs.
fn short(text: &str, chars: usize) -> String {
    let mut shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut out: String = shown.by_ref().take(chars).collect();
    if shown.next().is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// "1 830", with a blank that does not break.
fn count(number: u32) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + 4);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push('\u{a0}');
        }
        out.push(digit);
    }
    out
}

/// "1:52", "1:02:03".
fn took(ms: u64) -> String {
    let s = ms / 1000;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// Shows nothing faster than a person follows: an icon at most every 2 s (UX 1.4), numbers as well. What the person did,
/// and that a PC was given back, show at once.
#[derive(Clone, Debug)]
pub struct Pace {
    shown: Tray,
    icon_ms: u64,
    text_ms: u64,
}

/// Least time between two icons, and two texts.
pub const PACE_MS: u64 = 2000;

impl Pace {
    /// `shown` is there since `now_ms`, of any clock that goes on.
    pub fn new(shown: Tray, now_ms: u64) -> Self {
        Self { shown, icon_ms: now_ms, text_ms: now_ms }
    }

    /// What is shown.
    pub fn shown(&self) -> &Tray {
        &self.shown
    }

    /// Takes over what may be shown now of `wanted`; true if that is anything.
    pub fn show(&mut self, wanted: &Tray, now_ms: u64) -> bool {
        let given_back = self.shown.icon == Icon::Helping && matches!(wanted.icon, Icon::Ready | Icon::Off);
        let mut changed = false;
        if wanted.icon != self.shown.icon && (given_back || now_ms >= self.icon_ms + PACE_MS) {
            (self.shown.icon, self.icon_ms) = (wanted.icon, now_ms);
            changed = true;
        }
        let texts = wanted.entries != self.shown.entries || wanted.name != self.shown.name;
        let at_once = changed || shape(&wanted.entries) != shape(&self.shown.entries);
        if texts && (at_once || now_ms >= self.text_ms + PACE_MS) {
            self.shown.entries.clone_from(&wanted.entries);
            self.shown.name.clone_from(&wanted.name);
            self.text_ms = now_ms;
            changed = true;
        }
        changed
    }

    /// When `wanted` may be shown whole, on the clock of `show`; None: it is.
    pub fn wake(&self, wanted: &Tray) -> Option<u64> {
        let icon = (wanted.icon != self.shown.icon).then_some(self.icon_ms + PACE_MS);
        let texts = wanted.entries != self.shown.entries || wanted.name != self.shown.name;
        [icon, texts.then_some(self.text_ms + PACE_MS)].into_iter().flatten().min()
    }
}

/// A menu without its words.
fn shape(entries: &[Entry]) -> Vec<(&'static str, Option<bool>, bool)> {
    let of = |item: &Item| (item.id, item.checked, item.does.is_some());
    let mut shape = Vec::new();
    for entry in entries {
        match entry {
            Entry::Item(item) => shape.push(of(item)),
            Entry::Menu { items, .. } => {
                shape.push(("menu", None, true));
                shape.extend(items.iter().map(of));
                shape.push(("end", None, true));
            }
            Entry::Rule => shape.push(("rule", None, false)),
        }
    }
    shape
}

/// A step from one menu to another. Positions are those of the menu as the steps before have left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The entry at this position goes.
    Remove(usize),
    /// The new menu's entry of this position comes, at this position.
    Insert(usize),
}

/// What makes the menu `before` the menu `after`, but for words, checks, and what can be chosen. A panel names a line by
/// the number that it got when it came: an entry that stays is not touched, so that whoever has the menu open, and
/// chooses that line, is heard.
pub fn steps(before: &[Entry], after: &[Entry]) -> Vec<Step> {
    let mut there: Vec<&Entry> = before.iter().collect();
    let mut steps = Vec::new();
    for (at, entry) in after.iter().enumerate() {
        match there.iter().skip(at).position(|old| is_same(old, entry)) {
            Some(gone) => {
                there.drain(at..at + gone);
                steps.extend((0..gone).map(|_| Step::Remove(at)));
            }
            None => {
                there.insert(at, entry);
                steps.push(Step::Insert(at));
            }
        }
    }
    steps.extend((after.len()..there.len()).map(|_| Step::Remove(after.len())));
    steps
}

/// Whether one can become the other where it stands. An item gets no check later, and lines below another one do not
/// change.
fn is_same(one: &Entry, other: &Entry) -> bool {
    let same = |a: &Item, b: &Item| a.id == b.id && a.checked.is_some() == b.checked.is_some();
    match (one, other) {
        (Entry::Item(a), Entry::Item(b)) => same(a, b),
        (Entry::Menu { items: a, .. }, Entry::Menu { items: b, .. }) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Entry::Rule, Entry::Rule) => true,
        _ => false,
    }
}

/// What is behind the panel's icons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    /// Dark icons.
    Light,
    /// Light icons.
    Dark,
}

/// Whether the app is to be among what starts at login; None: as it is. Whoever never switched sharing on finds nothing
/// new there (UX 2.4), and switching it off later takes nothing away.
pub fn starts_at_login(snapshot: &Snapshot) -> Option<bool> {
    let wish = snapshot.share.settings.start_at_login;
    (!snapshot.this.demo && (snapshot.share.on || !wish)).then_some(wish)
}

/// Hears of views that somebody asked for outside the window, each once. To be made anew when the node ended: the next
/// one counts from the beginning.
#[derive(Debug, Default)]
pub struct Wishes {
    /// The last request; 0: none was made. None: nothing was heard yet, and what was asked before is not asked now.
    last: Option<u64>,
}

impl Wishes {
    /// The view to open now.
    pub fn heard(&mut self, snapshot: &Snapshot) -> Option<String> {
        let id = snapshot.open.as_ref().map_or(0, |open| open.id);
        let is_new = self.last.replace(id).is_some_and(|before| before != id);
        snapshot.open.as_ref().filter(|_| is_new).map(|open| open.view.clone())
    }
}

/// The panel's colour, which no desktop tells: `forced` is the person's word ("light", "dark"), `desktop` is
/// `XDG_CURRENT_DESKTOP`, `theme` the toolkit's.
pub fn panel(forced: Option<&str>, desktop: &str, theme: &str, theme_is_dark: bool) -> Panel {
    match forced {
        Some("light") => return Panel::Light,
        Some("dark") => return Panel::Dark,
        _ => {}
    }
    // Their bar at the top is dark in light themes as well.
    let dark_bar = desktop.split(':').any(|d| matches!(d, "GNOME" | "Unity" | "ubuntu"));
    let dark = dark_bar || theme_is_dark || theme.to_lowercase().contains("dark");
    if dark { Panel::Dark } else { Panel::Light }
}

#[cfg(test)]
mod tests;
