//! The owner's settings: `config.toml` over `/etc/potluck/config.toml` over the defaults. Comments and keys of other
//! versions survive every change; what cannot be read is told with its line, and its default is used.

mod keys;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use potluck_api::view::{NotifySettings, ShareSettings, TrustSettings, UserRole};
use toml_edit::{Document, DocumentMut, Item, Table};

pub use keys::{KEYS, Key, is_node, key};

/// A settings file is some hundred bytes; more than this is none.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Everything that a person set, defaults where nothing is said.
#[derive(Default, Clone, Debug, PartialEq)]
pub struct Values {
    /// The owner's switch.
    pub enabled: bool,
    /// Sharing.
    pub share: ShareSettings,
    /// Notifications.
    pub notify: NotifySettings,
    /// What results are used.
    pub trust: TrustSettings,
    /// Chosen in onboarding.
    pub role: Option<UserRole>,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The machine's file.
    System,
    /// The owner's file.
    User,
}

/// The files, and what they say.
#[derive(Clone, Debug)]
pub struct Settings {
    path: PathBuf,
    system: PathBuf,
    /// What holds.
    pub values: Values,
    /// Keys that are not at their default.
    origins: BTreeMap<&'static str, Origin>,
    /// What could not be read, one sentence each.
    pub warnings: Vec<String>,
    /// Of the owner's file, to notice that somebody changed it.
    stamp: Stamp,
}

/// When a file was changed last, and its size; None: there is none.
type Stamp = Option<(std::time::SystemTime, u64)>;

impl Settings {
    /// The owner's file: `POTLUCK_CONFIG`, or the one in the configuration folder.
    pub fn path_in(config: &Path) -> PathBuf {
        std::env::var_os("POTLUCK_CONFIG").map_or_else(|| config.join("config.toml"), PathBuf::from)
    }

    /// Reads both files. Never fails: what is wrong is in `warnings`.
    pub fn read(path: &Path, system: &Path) -> Self {
        let mut settings = Self {
            path: path.to_owned(),
            system: system.to_owned(),
            values: Values::default(),
            origins: BTreeMap::new(),
            warnings: Vec::new(),
            stamp: None,
        };
        settings.reread();
        settings
    }

    /// The system's file.
    pub fn system_path() -> &'static Path {
        Path::new("/etc/potluck/config.toml")
    }

    /// Reads again if the owner's file has changed; whether it did.
    pub fn refresh(&mut self) -> bool {
        let changed = stamp(&self.path) != self.stamp;
        if changed {
            self.reread();
        }
        changed
    }

    fn reread(&mut self) {
        self.stamp = stamp(&self.path);
        (self.values, self.origins, self.warnings) = (Values::default(), BTreeMap::new(), Vec::new());
        for (path, origin) in [(self.system.clone(), Origin::System), (self.path.clone(), Origin::User)] {
            match text_of(&path) {
                Ok(None) => {}
                Ok(Some(text)) => self.layer(&text, &path, origin),
                Err(why) => self.warnings.push(format!("{} is not read: {why}", path.display())),
            }
        }
    }

    fn layer(&mut self, text: &str, path: &Path, origin: Origin) {
        let document = match Document::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let why = error.message().lines().next().unwrap_or("it is no TOML").to_owned();
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                return self.warnings.push(format!(
                    "{} line {line} is not understood, so nothing of it is used: {why}",
                    path.display()
                ));
            }
        };
        for (section, item) in document.iter() {
            let Some(table) = item.as_table_like() else {
                let at = document.key(section).and_then(|key| key.span());
                self.entry(section, item, at, text, path, origin);
                continue;
            };
            for (name, item) in table.iter() {
                let at = table.key(name).and_then(|key| key.span());
                self.entry(&format!("{section}.{name}"), item, at, text, path, origin);
            }
        }
    }

    fn entry(
        &mut self,
        name: &str,
        item: &Item,
        at: Option<std::ops::Range<usize>>,
        text: &str,
        path: &Path,
        origin: Origin,
    ) {
        let place = format!("{} line {}", path.display(), at.map_or(1, |span| line_of(text, span.start)));
        match key(name) {
            None => {
                let near = keys::nearest(name).map_or(String::new(), |near| format!("; do you mean {near}?"));
                self.warnings.push(format!("{place}: there is no setting {name}{near}"));
            }
            Some(Key { take: None, .. }) => {
                self.warnings.push(format!("{place}: {name} has no effect in this version"));
            }
            Some(Key { name, take: Some(take), allowed, .. }) => {
                if take(&mut self.values, item).is_some() {
                    self.origins.insert(name, origin);
                } else {
                    let said = item.to_string();
                    self.warnings.push(format!(
                        "{place}: {name} = {} is not possible; it must be {allowed}. Until then it is {}",
                        said.trim(),
                        self.shown(name)
                    ));
                }
            }
        }
    }

    /// A value as the file would have it.
    pub fn shown(&self, name: &str) -> String {
        key(name).and_then(|key| key.show).map_or(String::new(), |show| keys::in_line(&show(&self.values)))
    }

    /// Where a value comes from.
    pub fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).copied().unwrap_or(Origin::Default)
    }

    /// The owner's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes these values hold, and writes what differs into the owner's file. An error leaves file and values alone.
    pub fn change(&mut self, values: Values) -> Result<(), String> {
        let differs = |key: &&Key| key.show.is_some_and(|show| !same(&show(&values), &show(&self.values)));
        let changes: Vec<(&'static str, Item)> =
            KEYS.iter().filter(differs).filter_map(|key| Some((key.name, key.show?(&values)))).collect();
        if changes.is_empty() {
            return Ok(());
        }
        self.write(&changes)?;
        self.origins.extend(changes.iter().map(|(name, _)| (*name, Origin::User)));
        self.values = values;
        Ok(())
    }

    /// `potluck config set`: the value as a person types it.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let unknown = || {
            let near = keys::nearest(name).map_or(String::new(), |near| format!("\nhint: do you mean {near}?"));
            format!("there is no setting {name}{near}")
        };
        let key = key(name).ok_or_else(unknown)?;
        let take = key.take.ok_or_else(|| format!("{name} has no effect in this version"))?;
        // As TOML, or as the text of a string: nobody types quotes for a shell to take away.
        let typed = format!("v = {text}").parse::<DocumentMut>().ok().and_then(|mut doc| doc.remove("v"));
        let as_text = toml_edit::value(text);
        let mut values = self.values.clone();
        let taken =
            typed.is_some_and(|item| take(&mut values, &item).is_some()) || take(&mut values, &as_text).is_some();
        if !taken {
            return Err(format!("{name} cannot be {text}\nhint: it must be {}", key.allowed));
        }
        self.change(values)
    }

    fn write(&mut self, changes: &[(&'static str, Item)]) -> Result<(), String> {
        let path = self.path.display();
        let text = text_of(&self.path).map_err(|why| format!("{path}: {why}"))?.unwrap_or_default();
        let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            format!("{path} line {line} is not understood, so nothing is written to it\nhint: mend that line, then do it again")
        })?;
        for (name, item) in changes {
            put(&mut document, name, item.clone());
        }
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        crate::store::write_whole(&self.path, document.to_string().as_bytes()).map_err(|e| format!("{path}: {e}"))?;
        self.stamp = stamp(&self.path);
        Ok(())
    }
}

/// Replaces a value, and nothing of what stands around it.
fn put(document: &mut DocumentMut, name: &str, mut item: Item) {
    let (table, name): (&mut dyn toml_edit::TableLike, &str) = match name.split_once('.') {
        None => (document.as_table_mut(), name),
        Some((section, name)) => {
            let entry = document.entry(section).or_insert_with(|| Item::Table(Table::new()));
            if !entry.is_table_like() {
                *entry = Item::Table(Table::new());
            }
            (entry.as_table_like_mut().expect("just made one"), name)
        }
    };
    if let (Some(old), Some(new)) = (table.get(name).and_then(Item::as_value), item.as_value_mut()) {
        *new.decor_mut() = old.decor().clone();
    }
    match table.get_mut(name) {
        Some(old) => *old = item,
        None => drop(table.insert(name, item)),
    }
}

fn same(one: &Item, other: &Item) -> bool {
    keys::in_line(one) == keys::in_line(other)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn text_of(path: &Path) -> Result<Option<String>, String> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(meta) if !meta.is_file() || meta.len() > FILE_BYTES_MAX => return Err("it is no settings file".into()),
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_api::view::{Battery, Cores, Hours, Preset, TrustMode};

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new(user: &str, system: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("config.toml"), user).unwrap();
            std::fs::write(dir.path().join("system.toml"), system).unwrap();
            Self { dir }
        }

        fn read(&self) -> Settings {
            Settings::read(&self.dir.path().join("config.toml"), &self.dir.path().join("system.toml"))
        }

        fn user(&self) -> String {
            std::fs::read_to_string(self.dir.path().join("config.toml")).unwrap()
        }
    }

    const EXAMPLE: &str = r#"# mine
[share]
enabled = true
preset = "a-little"        # away | a-little | dedicated | custom
away_after = "5m"
cores_away = "all-2"
cores_in_use = 1
battery = "above-50"
keep_free_memory = "4GiB"
keep_free_disk = "7GiB"
[[share.hours]]
days = "mon-fri"
from = "18:00"
to   = "08:00"

[notify]
finished_after = "60s"   # long ones only
"#;

    #[test]
    fn the_documented_file_is_read() {
        let settings = Files::new(EXAMPLE, "").read();
        assert_eq!(settings.warnings, Vec::<String>::new());
        let share = &settings.values.share;
        assert!(settings.values.enabled);
        assert_eq!((share.preset, share.away_after_s, share.battery), (Preset::ALittle, 300, Battery::Above50));
        assert_eq!((share.cores_away, share.cores_in_use), (Cores::AllBut(2), Cores::Count(1)));
        assert_eq!((share.keep_free_mib, share.keep_free_disk_mib), (4096, 7168));
        assert_eq!(share.hours, [Hours { days: 0x1f, from_min: 18 * 60, to_min: 8 * 60 }]);
        assert_eq!(settings.values.notify.finished_after_s, 60);
    }

    #[test]
    fn every_setting_is_read_as_it_is_written() {
        let files = Files::new("", "");
        let mut settings = files.read();
        let mut values = settings.values.clone();
        values.enabled = true;
        values.role = Some(UserRole::Developer);
        values.share = ShareSettings {
            preset: Preset::Custom,
            away_after_s: 90,
            away_when_locked: false,
            cores_away: Cores::Count(3),
            cores_in_use: Cores::AllBut(4),
            battery: Battery::Always,
            load_gate_percent: 35,
            keep_free_mib: 512,
            keep_free_disk_mib: 1500,
            hours: vec![Hours { days: 0x60, from_min: 0, to_min: 1440 }, Hours { days: 0x15, from_min: 61, to_min: 2 }],
            start_at_login: false,
        };
        values.notify =
            NotifySettings { finished: false, finished_after_s: 5, fell_back: false, joins: false, problems: false };
        settings.change(values.clone()).unwrap();
        values.trust = TrustSettings { mode: TrustMode::Careful, peers: vec!["ab".repeat(32)] };
        settings.change(values.clone()).unwrap();
        let again = files.read();
        assert_eq!(again.warnings, Vec::<String>::new(), "{}", files.user());
        assert_eq!(again.values, values, "{}", files.user());
        for hours in [vec![Hours { days: 0, from_min: 5, to_min: 6 }], Vec::new()] {
            values.share.hours = hours;
            settings.change(values.clone()).unwrap();
            assert_eq!(files.read().values, values, "{}", files.user());
        }
    }

    #[test]
    fn a_change_leaves_comments_and_foreign_keys_alone() {
        let files = Files::new(EXAMPLE, "");
        let mut settings = files.read();
        let mut values = settings.values.clone();
        values.enabled = false;
        values.notify.finished_after_s = 10;
        settings.change(values).unwrap();
        let expected = EXAMPLE.replace("enabled = true", "enabled = false").replace("\"60s\"", "\"10s\"");
        assert_eq!(files.user(), expected);
    }

    #[test]
    fn the_machines_file_lies_below_the_owners() {
        let files = Files::new("[share]\naway_after = \"2m\"\n", "[share]\nenabled = true\naway_after = \"9m\"\n");
        let mut settings = files.read();
        assert!(settings.values.enabled);
        assert_eq!(settings.values.share.away_after_s, 120);
        let origins = ["share.enabled", "share.away_after", "share.preset"].map(|name| settings.origin(name));
        assert_eq!(origins, [Origin::System, Origin::User, Origin::Default]);
        // The owner's no is written, although it is the default.
        let values = Values { enabled: false, ..settings.values.clone() };
        settings.change(values).unwrap();
        assert!(!files.read().values.enabled);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_its_neighbour_and_nothing_is_lost() {
        let files =
            Files::new("[share]\nenabled = true\nawayafter = \"3m\"\nbattery = \"often\"\n[shore]\nx = 1\n", "");
        let mut settings = files.read();
        let told = settings.warnings.join("\n");
        assert!(told.contains("line 3: there is no setting share.awayafter; do you mean share.away_after?"), "{told}");
        assert!(told.contains("line 4: share.battery = \"often\" is not possible; it must be"), "{told}");
        assert!(told.contains("line 6: there is no setting shore.x"), "{told}");
        assert_eq!(settings.values.share.battery, Battery::Never);
        assert!(settings.values.enabled, "the rest holds");
        let mut values = settings.values.clone();
        values.share.load_gate_percent = 40;
        settings.change(values).unwrap();
        assert!(files.user().contains("awayafter") && files.user().contains("often"), "{}", files.user());
    }

    #[test]
    fn a_file_that_is_no_toml_is_not_overwritten() {
        let files = Files::new("[share]\nenabled = yes please\n", "");
        let mut settings = files.read();
        assert!(settings.warnings[0].contains("line 2"), "{:?}", settings.warnings);
        let values = Values { enabled: true, ..settings.values.clone() };
        let error = settings.change(values).unwrap_err();
        assert!(error.contains("line 2") && error.contains("hint:"), "{error}");
        assert_eq!(files.user(), "[share]\nenabled = yes please\n");
        assert!(!settings.values.enabled);
    }

    #[test]
    fn values_are_set_as_they_are_typed() {
        let files = Files::new("", "");
        let mut settings = files.read();
        for (name, text) in [("share.cores_away", "all-3"), ("share.enabled", "true"), ("role", "donor")] {
            settings.set(name, text).unwrap();
        }
        settings.set("share.hours", "[{days = \"sat-sun\", from = \"10:00\", to = \"12:00\"}]").unwrap();
        assert_eq!(files.read().values.share.hours, [Hours { days: 0x60, from_min: 600, to_min: 720 }]);
        assert_eq!(files.read().values.share.cores_away, Cores::AllBut(3));
        let error = settings.set("share.load_gate", "5").unwrap_err();
        assert!(error.contains("hint: it must be a per cent number from 10 to 80"), "{error}");
        assert!(settings.set("share.load_gat", "20").unwrap_err().contains("share.load_gate"));
    }

    #[test]
    fn an_edit_by_hand_is_noticed() {
        let files = Files::new("", "");
        let mut settings = files.read();
        assert!(!settings.refresh());
        std::fs::write(files.dir.path().join("config.toml"), "[share]\nenabled = true\n").unwrap();
        assert!(settings.refresh());
        assert!(settings.values.enabled);
    }
}
