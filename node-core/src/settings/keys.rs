//! The table of settings: each key with what it may be, how it is read and how it is written.

use potluck_api::view::{Battery, Cores, Hours, Preset, TrustMode, UserRole};
use toml_edit::{Array, ArrayOfTables, InlineTable, Item, Table, TableLike, Value, value};

use super::Values;

/// Peers that may be named: a team has at most 200 PCs.
const NODES_MAX: usize = 256;
/// Quiet hours: a week has 168.
const HOURS_MAX: usize = 168;

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// As in `potluck config set`.
    pub name: &'static str,
    /// What it may be, for a sentence that begins with "it must be".
    pub allowed: &'static str,
    /// Takes a value; None: it is not possible. Without it the key is known and has no effect yet.
    pub take: Option<fn(&mut Values, &Item) -> Option<()>>,
    /// What to write.
    pub show: Option<fn(&Values) -> Item>,
}

macro_rules! keys {
    ($($name:literal, $allowed:literal, $take:expr, $show:expr;)*) => {
        /// All settings.
        pub const KEYS: &[Key] = &[
            $(Key { name: $name, allowed: $allowed, take: Some($take), show: Some($show) },)*
            Key { name: "share.exclusive", allowed: "a list of programs", take: None, show: None },
            Key { name: "build.fallback", allowed: "true or false", take: None, show: None },
            Key { name: "build.prefer_local_up_to", allowed: "\"free-cores\" or a number", take: None, show: None },
        ];
    };
}

keys! {
    "role", "\"donor\" or \"developer\"",
        |v, i| one_of(i, ROLES).map(|role| v.role = Some(role)),
        |v| v.role.map_or(Item::None, |role| value(name_of(role, ROLES)));
    "trust", "\"normal\", \"careful\" or \"release\"",
        |v, i| one_of(i, TRUST).map(|mode| v.trust.mode = mode), |v| value(name_of(v.trust.mode, TRUST));
    "trust_peers", "a list of node ids, as potluck team list shows them",
        |v, i| nodes(i).map(|peers| v.trust.peers = peers), |v| nodes_item(&v.trust.peers);
    "share.enabled", "true or false", |v, i| i.as_bool().map(|on| v.enabled = on), |v| value(v.enabled);
    "share.preset", "\"away\", \"a-little\", \"dedicated\" or \"custom\"",
        |v, i| one_of(i, PRESETS).map(|preset| v.share.preset = preset),
        |v| value(name_of(v.share.preset, PRESETS));
    "share.away_after", "a time from 1s to 60m, such as \"3m\"",
        |v, i| seconds(i, 1, 3600).map(|s| v.share.away_after_s = s), |v| value(span(v.share.away_after_s));
    "share.away_when_locked", "true or false",
        |v, i| i.as_bool().map(|on| v.share.away_when_locked = on), |v| value(v.share.away_when_locked);
    "share.cores_away", "a number from 1 up, \"all\", or \"all-1\"",
        |v, i| cores(i).filter(|c| *c != Cores::Count(0)).map(|c| v.share.cores_away = c),
        |v| cores_item(v.share.cores_away);
    "share.cores_in_use", "a number from 0 up, \"all\", or \"all-1\"",
        |v, i| cores(i).map(|c| v.share.cores_in_use = c), |v| cores_item(v.share.cores_in_use);
    "share.battery", "\"never\", \"above-50\", \"above-80\" or \"always\"",
        |v, i| one_of(i, BATTERY).map(|battery| v.share.battery = battery),
        |v| value(name_of(v.share.battery, BATTERY));
    "share.load_gate", "a per cent number from 10 to 80",
        |v, i| number(i, 10, 80).map(|percent| v.share.load_gate_percent = percent as u8),
        |v| value(i64::from(v.share.load_gate_percent));
    "share.keep_free_memory", "\"auto\", or a size from 1MiB to 1024GiB such as \"2GiB\"",
        |v, i| mebibytes(i).map(|mib| v.share.keep_free_mib = mib), |v| value(size(v.share.keep_free_mib));
    "share.keep_free_disk", "\"auto\", or a size from 1MiB to 1024GiB such as \"5GiB\"",
        |v, i| mebibytes(i).map(|mib| v.share.keep_free_disk_mib = mib), |v| value(size(v.share.keep_free_disk_mib));
    "share.start_at_login", "true or false",
        |v, i| i.as_bool().map(|on| v.share.start_at_login = on), |v| value(v.share.start_at_login);
    "share.hours", "a list of days, from and to, such as { days = \"mon-fri\", from = \"18:00\", to = \"08:00\" }",
        |v, i| hours(i).map(|hours| v.share.hours = hours), |v| hours_item(&v.share.hours);
    "notify.finished", "true or false", |v, i| i.as_bool().map(|on| v.notify.finished = on), |v| value(v.notify.finished);
    "notify.finished_after", "a time from 0s to 60m, such as \"30s\"",
        |v, i| seconds(i, 0, 3600).map(|s| v.notify.finished_after_s = s), |v| value(span(v.notify.finished_after_s));
    "notify.fell_back", "true or false",
        |v, i| i.as_bool().map(|on| v.notify.fell_back = on), |v| value(v.notify.fell_back);
    "notify.joins", "true or false", |v, i| i.as_bool().map(|on| v.notify.joins = on), |v| value(v.notify.joins);
    "notify.problems", "true or false", |v, i| i.as_bool().map(|on| v.notify.problems = on), |v| value(v.notify.problems);
}

const ROLES: &[(&str, UserRole)] = &[("donor", UserRole::Donor), ("developer", UserRole::Developer)];
const PRESETS: &[(&str, Preset)] = &[
    ("away", Preset::Away),
    ("a-little", Preset::ALittle),
    ("dedicated", Preset::Dedicated),
    ("custom", Preset::Custom),
];
const TRUST: &[(&str, TrustMode)] =
    &[("normal", TrustMode::Normal), ("careful", TrustMode::Careful), ("release", TrustMode::Release)];
const BATTERY: &[(&str, Battery)] = &[
    ("never", Battery::Never),
    ("above-50", Battery::Above50),
    ("above-80", Battery::Above80),
    ("always", Battery::Always),
];
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// The key of a name.
pub fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The known key that is most like a name, if one is.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let near = KEYS.iter().map(|key| (distance(name, key.name), key.name)).min()?;
    (near.0 <= 3).then_some(near.1)
}

/// Levenshtein's distance. Names from a file are cut: beyond some letters nothing is near.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().take(64).collect();
    let other: Vec<char> = other.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

fn one_of<T: Copy>(item: &Item, names: &[(&str, T)]) -> Option<T> {
    let said = item.as_str()?;
    names.iter().find(|(name, _)| *name == said).map(|(_, meant)| *meant)
}

fn name_of<T: Copy + PartialEq>(meant: T, names: &[(&'static str, T)]) -> &'static str {
    names.iter().find(|(_, other)| *other == meant).map_or("", |(name, _)| name)
}

/// Whether a text is a node's id, as 64 digits or in groups. A name is none: it is whatever a peer says.
pub fn is_node(text: &str) -> bool {
    text.parse::<potluck_model::ids::NodeId>().is_ok() || crate::identity::read(text).is_ok()
}

fn nodes(item: &Item) -> Option<Vec<String>> {
    let all: Option<Vec<String>> = match item {
        Item::Value(Value::Array(array)) => array.iter().map(|v| v.as_str().map(|s| s.trim().to_owned())).collect(),
        other => Some(other.as_str()?.split([',', ' ']).filter(|s| !s.is_empty()).map(str::to_owned).collect()),
    };
    all.filter(|all| all.len() <= NODES_MAX && all.iter().all(|text| is_node(text)))
}

fn nodes_item(peers: &[String]) -> Item {
    value(peers.iter().map(String::as_str).collect::<Array>())
}

/// An integer, also as text.
fn number(item: &Item, least: i64, most: i64) -> Option<i64> {
    let number = item.as_integer().or_else(|| item.as_str()?.trim().trim_end_matches('%').trim_end().parse().ok())?;
    (least..=most).contains(&number).then_some(number)
}

fn seconds(item: &Item, least: u32, most: u32) -> Option<u32> {
    let text = item.as_str()?.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = number.parse::<u32>().ok()?.checked_mul(factor)?;
    (least..=most).contains(&seconds).then_some(seconds)
}

fn span(seconds: u32) -> String {
    match seconds {
        s if s > 60 && s.is_multiple_of(60) || s == 60 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

fn cores(item: &Item) -> Option<Cores> {
    if let Some(count) = number(item, 0, 4096) {
        return Some(Cores::Count(count as u32));
    }
    let rest = item.as_str()?.trim().strip_prefix("all")?.trim();
    match rest.strip_prefix('-') {
        None => rest.is_empty().then_some(Cores::AllBut(0)),
        Some(kept) => kept.trim().parse().ok().filter(|kept| *kept <= 4096).map(Cores::AllBut),
    }
}

fn cores_item(cores: Cores) -> Item {
    match cores {
        Cores::AllBut(0) => value("all"),
        Cores::AllBut(kept) => value(format!("all-{kept}")),
        Cores::Count(count) => value(i64::from(count)),
    }
}

fn mebibytes(item: &Item) -> Option<u32> {
    let text = item.as_str()?.trim();
    if text == "auto" {
        return Some(0);
    }
    let (number, factor) = match text.strip_suffix("GiB") {
        Some(number) => (number, 1024),
        None => (text.strip_suffix("MiB")?, 1),
    };
    let mib = number.trim().parse::<u32>().ok()?.checked_mul(factor)?;
    (1..=1024 * 1024).contains(&mib).then_some(mib)
}

fn size(mib: u32) -> String {
    match mib {
        0 => "auto".into(),
        mib if mib.is_multiple_of(1024) => format!("{}GiB", mib / 1024),
        mib => format!("{mib}MiB"),
    }
}

fn minute(item: Option<&Item>) -> Option<u16> {
    let (hour, minute) = item?.as_str()?.trim().split_once(':')?;
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    (hour <= 24 && minute < 60 && hour * 60 + minute <= 24 * 60).then_some(hour * 60 + minute)
}

fn days(text: &str) -> Option<u8> {
    let number = |name: &str| DAYS.iter().position(|day| *day == name.trim());
    let mut mask = 0;
    for part in text.split(',') {
        match part.trim().split_once('-') {
            None if part.trim() == "daily" => mask = 0x7f,
            // No day: a contradiction that the owner is told of, and no loss.
            None if part.trim().is_empty() => {}
            None => mask |= 1 << number(part)?,
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                // "sat-mon" goes past the end of the week.
                (0..=(last + 7 - first) % 7).for_each(|n| mask |= 1 << ((first + n) % 7));
            }
        }
    }
    Some(mask)
}

fn days_text(mask: u8) -> String {
    match mask & 0x7f {
        0x7f => "daily".into(),
        0x1f => "mon-fri".into(),
        0x60 => "sat-sun".into(),
        mask => (0..7).filter(|day| mask & 1 << day != 0).map(|day| DAYS[day]).collect::<Vec<_>>().join(","),
    }
}

fn one_time(table: &dyn TableLike) -> Option<Hours> {
    let days = match table.get("days") {
        None => 0x7f,
        Some(item) => days(item.as_str()?)?,
    };
    Some(Hours { days, from_min: minute(table.get("from"))?, to_min: minute(table.get("to"))? })
}

fn hours(item: &Item) -> Option<Vec<Hours>> {
    let all: Option<Vec<Hours>> = match item {
        Item::ArrayOfTables(tables) => tables.iter().map(|table| one_time(table)).collect(),
        Item::Value(Value::Array(array)) => array.iter().map(|value| one_time(value.as_inline_table()?)).collect(),
        _ => None,
    };
    all.filter(|all| all.len() <= HOURS_MAX)
}

fn hours_item(hours: &[Hours]) -> Item {
    if hours.is_empty() {
        return value(Array::new());
    }
    let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    let mut tables = ArrayOfTables::new();
    for hours in hours {
        let mut table = Table::new();
        table.insert("days", value(days_text(hours.days)));
        table.insert("from", value(time(hours.from_min)));
        table.insert("to", value(time(hours.to_min)));
        tables.push(table);
    }
    Item::ArrayOfTables(tables)
}

/// A value on one line, for people.
pub(super) fn in_line(item: &Item) -> String {
    match item {
        Item::None => "not set".into(),
        Item::ArrayOfTables(tables) => {
            let mut array = Array::new();
            for table in tables {
                array.push(InlineTable::from_iter(table.iter().filter_map(|(k, v)| Some((k, v.as_value()?.clone())))));
            }
            array.to_string()
        }
        other => other.to_string().trim().to_owned(),
    }
}
