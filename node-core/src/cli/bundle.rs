//! `potluck doctor --bundle FILE`: what whoever helps needs to know, as one text that its owner can read before sending
//! it. Keys, tokens and invitations are never asked for; names are taken out at the end (`redact`).

use std::fmt::{Display, Write as _};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use potluck_model::ids::TeamId;
use potluck_model::team::Body;
use serde_json::{Value, json};

use super::redact::{Kind, Names, clean, redact};
use super::show::{self, list, text};
use super::{Failure, call};
use crate::dirs::Dirs;
use crate::membership::codec;
use crate::membership::files::records;
use crate::settings::{KEYS, Settings};

/// Lines of the log.
const LOG_LINES: usize = 200;
/// Of its end, what is looked at for them.
const LOG_BYTES: u64 = 256 << 10;
/// Builds whose reasons are told.
const BUILDS: u32 = 10;
/// More is in no file that is read for names.
const FILE_BYTES_MAX: u64 = 64 << 20;

const HEAD: &str = "\
Report for support, made by potluck doctor --bundle

Names of computers, people, teams and projects, paths and addresses were replaced: pc-1 is this PC, and the same
placeholder always stands for the same thing. What nobody could recognise may be left over, so read it before you
send it. Numbers at the beginning of lines of the log, and with builds, are seconds since 1970.
";

/// Writes the report to a file that does not exist yet.
pub(super) fn write(path: &Path) -> Result<(), Failure> {
    // Before anything is looked at, which takes a moment.
    fits(path)?;
    let dirs = Dirs::from_env();
    let answers = Answers::ask();
    let report = report(&dirs, &answers);
    let content = redact(&report, names(&dirs, &answers));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(|error| refused(path, &error))?;
    if let Err(error) = file.write_all(content.as_bytes()).and_then(|()| file.sync_all()) {
        let _ = std::fs::remove_file(path);
        return Err(Failure::from(format!("{}: {error}\nhint: give a file on another disk", path.display())));
    }
    println!("{}", path.display());
    println!("Names, addresses and paths are replaced in it. Read it before you send it.");
    Ok(())
}

/// Whether a file can be made there.
fn fits(path: &Path) -> Result<(), Failure> {
    if path.is_dir() {
        return Err(bad(format!("{} is a folder\nhint: give the name of a new file in it", path.display())));
    }
    if path.symlink_metadata().is_ok() {
        return Err(refused(path, &ErrorKind::AlreadyExists.into()));
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            Err(refused(path, &ErrorKind::NotFound.into()))
        }
        _ => Ok(()),
    }
}

fn bad(text: String) -> Failure {
    Failure { exit: 2, text }
}

fn refused(path: &Path, error: &std::io::Error) -> Failure {
    let shown = path.display();
    bad(match error.kind() {
        ErrorKind::AlreadyExists => {
            format!("{shown} exists already, and nothing is overwritten\nhint: give another name, or remove it first")
        }
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            format!("there is no folder for {shown}\nhint: make it first, or give a file in a folder that exists")
        }
        _ => format!("{shown}: {error}\nhint: give a file in a folder that you can write to, such as your home folder"),
    })
}

/// What the node says, if one runs.
struct Answers {
    snapshot: Result<Value, String>,
    status: Value,
    /// Reports of the last builds.
    builds: Vec<Value>,
}

impl Answers {
    fn ask() -> Self {
        let said = |request: Value| call(&request).map_err(|failure| failure.text);
        let snapshot = said(json!({"call": "snapshot"}));
        if snapshot.is_err() {
            return Self { snapshot, status: Value::Null, builds: Vec::new() };
        }
        let rows = said(json!({"call": "builds", "limit": BUILDS})).unwrap_or_default();
        let report = |row: &Value| said(json!({"call": "report", "build": row["id"]})).ok();
        let builds = list(&rows).iter().filter_map(report).collect();
        Self { snapshot, status: said(json!({"call": "status"})).unwrap_or_default(), builds }
    }
}

/// The report, with all names in it.
fn report(dirs: &Dirs, answers: &Answers) -> String {
    let mut out = Report(HEAD.to_owned());
    out.system();
    match &answers.snapshot {
        Ok(snapshot) => out.node(snapshot, &answers.status),
        Err(why) => {
            out.title("Node");
            out.line(format!("no answer: {why}"));
        }
    }
    out.title("Checks");
    match show::checks() {
        Ok(checks) => {
            for (level, name, what, fix) in checks {
                out.line(format!("{level:<5} {name:<11} {what}"));
                if !fix.is_empty() {
                    out.line(format!("                  fix: {fix}"));
                }
            }
        }
        Err(failure) => out.line(format!("no answer: {}", failure.text)),
    }
    if let Ok(snapshot) = &answers.snapshot {
        out.problems(snapshot);
        out.sharing(snapshot);
        out.pool(snapshot, &answers.status);
        out.jobs(&answers.status, &answers.builds);
    }
    out.settings(dirs);
    out.log(&dirs.state.join("node.log"));
    out.0
}

struct Report(String);

impl Report {
    fn title(&mut self, title: &str) {
        let _ = writeln!(self.0, "\n== {title} ==");
    }

    /// One line, whatever is in it.
    fn line(&mut self, text: impl Display) {
        let line = clean(&text.to_string());
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    fn row(&mut self, name: &str, value: impl Display) {
        self.line(format!("{name:<20} {value}"));
    }

    fn system(&mut self) {
        self.title("System");
        self.row("potluck", env!("CARGO_PKG_VERSION"));
        let release = read("/etc/os-release");
        let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
        self.row("os", pretty.map_or("unknown", |name| name.trim_matches('"')));
        let uname = rustix::system::uname();
        self.row("kernel", format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()));
        self.row("arch", uname.machine().to_string_lossy());
        self.row("cores", std::thread::available_parallelism().map_or(0, usize::from));
        let meminfo = read("/proc/meminfo");
        let kib = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:")).and_then(|l| l.split_whitespace().next());
        let mib = kib.and_then(|kib| kib.parse::<u64>().ok()).map(|kib| kib >> 10);
        self.row("memory", mib.map_or("unknown".to_owned(), |mib| format!("{mib} MiB")));
        for name in ["XDG_CURRENT_DESKTOP", "XDG_SESSION_TYPE"] {
            let value = std::env::var_os(name).map_or("not set".into(), |value| value.to_string_lossy().into_owned());
            self.row(name, value);
        }
        for name in ["DISPLAY", "WAYLAND_DISPLAY"] {
            self.row(name, if std::env::var_os(name).is_some() { "set" } else { "not set" });
        }
    }

    fn node(&mut self, snapshot: &Value, status: &Value) {
        let this = &snapshot["this"];
        self.title("Node");
        self.row("version", text(&this["version"]));
        self.row("up", format!("{} s", status["node"]["up_s"]));
        self.row("name, id", format!("{} {}", text(&this["name"]), text(&this["id"])));
        self.row("listens on", text(&this["listen"]));
        self.row("with a window", this["headless"] == false);
        self.row("role", this["role"].as_str().unwrap_or("not chosen"));
        if this["demo"] == true {
            self.line("a simulated node: nothing of it is real");
        }
        let sandbox = &status["sandbox"];
        self.row("safe box", format!("checked: {}, works: {}", sandbox["checked"], sandbox["ok"]));
        let cache = &snapshot["cache"];
        let bytes = |value: &Value| show::bytes(value.as_u64().unwrap_or(0));
        let (kept, free) = (bytes(&cache["bytes"]), bytes(&cache["disk_free"]));
        self.row("disk", format!("{kept} kept for others, at most {}; {free} free", bytes(&cache["bytes_max"])));
    }

    fn problems(&mut self, snapshot: &Value) {
        self.title("Problems");
        if list(&snapshot["problems"]).is_empty() {
            self.line("none");
        }
        for problem in list(&snapshot["problems"]) {
            let since_s = problem["since_ms"].as_u64().unwrap_or(0) / 1000;
            self.line(format!("{} since {since_s}: {}", text(&problem["code"]), text(&problem["headline"])));
            self.line(format!("   {}", text(&problem["detail"])));
        }
    }

    fn sharing(&mut self, snapshot: &Value) {
        let share = &snapshot["share"];
        self.title("Sharing");
        self.row("on", &share["on"]);
        self.row("state", &share["state"]);
        self.row("sentence", text(&share["sentence"]));
        self.row("next", text(&share["next"]));
        self.row("rule", text(&share["rule"]));
        self.row("slots", format!("{}, at most {}", share["slots"], share["slots_max"]));
        self.row("presence", share["presence_source"].as_str().unwrap_or("nothing tells"));
    }

    fn pool(&mut self, snapshot: &Value, status: &Value) {
        self.title("Pool");
        let team = &snapshot["team"];
        match team["name"].as_str() {
            Some(name) => {
                let (members, keepers) = (list(&team["members"]).len(), &team["keepers"]);
                self.row(
                    "team",
                    format!("{name}: {members} members, {keepers} keepers; keeper: {}", team["is_keeper"]),
                );
                self.row("waiting to join", list(&team["asking"]).len());
                self.row("open invitations", list(&team["invites"]).len());
            }
            None => self.row("team", "none"),
        }
        let (pool, discovery) = (&snapshot["pool"], &status["discovery"]);
        self.row("discovery", text(&pool["discovery"]));
        self.row("", format!("seen of the team: {}, own announcement: {}", discovery["seen"], discovery["own_seen"]));
        self.row("teams nearby", list(&snapshot["nearby"]).len());
        for address in list(&snapshot["addresses"]) {
            self.row("typed address", text(address));
        }
        let (sharing, in_use) = (&pool["sharing"], &pool["in_use"]);
        let all = format!("{} connected; {sharing} share, {in_use} in use", pool["machines"]);
        self.row("machines", format!("{all}, {} cannot be used", pool["unavailable"]));
        for machine in list(&snapshot["machines"]) {
            let of = |name: &str| text(&machine[name]);
            let number = |name: &str| machine[name].as_u64().unwrap_or(0);
            let own = if machine["this_pc"] == true { " (this PC)" } else { "" };
            self.line(format!("- {}{own} {}: {} {}", of("name"), of("id"), of("state"), of("reason")));
            self.line(format!(
                "  version {} {}, {} cores, {} offered, {} used, compilers ready {} of {}",
                of("version"),
                of("arch"),
                number("cores"),
                number("offered"),
                number("used"),
                number("toolchains_ready"),
                number("toolchains")
            ));
            self.line(format!("  found by {}, at {}, {} µs away", of("found_by"), of("address"), number("rtt_us")));
            for peer in list(&status["peers"]).iter().filter(|p| p["id"] == machine["id"]) {
                let (trap, why) = (text(&peer["trap"]), text(&peer["not_serving"]));
                let skew_ms = peer["clock_skew_us"].as_i64().unwrap_or(0) / 1000;
                self.line(format!("  trap {trap:?}, gives none because {why:?}, clock differs by {skew_ms} ms"));
            }
        }
        for toolchain in list(&snapshot["toolchains"]) {
            let wrong = toolchain["error"].as_str().map_or(String::new(), |why| format!(": {why}"));
            let name = format!("{} {}", text(&toolchain["name"]), text(&toolchain["target"]));
            self.row("compiler", format!("{name} {}{wrong}", text(&toolchain["path"])));
            for at in list(&toolchain["machines"]) {
                self.line(format!("  on {}: {} {}", text(&at["name"]), text(&at["state"]), text(&at["note"])));
            }
        }
    }

    fn jobs(&mut self, status: &Value, builds: &[Value]) {
        self.title("Jobs since the node's start");
        for (name, value) in status["jobs"].as_object().into_iter().flatten() {
            self.row(name, value);
        }
        self.row("of others", &status["served"]["jobs"]);
        self.title("Last builds");
        if builds.is_empty() {
            self.line("none");
        }
        for report in builds {
            let (build, counts) = (&report["build"], &report["build"]["counts"]);
            let started_s = build["started_ms"].as_u64().unwrap_or(0) / 1000;
            let end = format!("{} (exit {})", text(&build["end"]), build["exit"]);
            self.line(format!("- {} at {started_s}, {} ms: {end}", text(&build["name"]), build["took_ms"]));
            let (remote, here, only, failed) = (&counts["remote"], &counts["here"], &counts["only"], &counts["failed"]);
            self.line(format!("  {remote} elsewhere, {here} here, {only} only here, {failed} failed"));
            self.line(format!("  {} lost and done again, {} other machines", report["repeated"], build["machines"]));
            for reason in list(&report["reasons"]) {
                let times = format!("{} jobs, {} ms", reason["jobs"], reason["time_ms"]);
                self.line(format!("  here: {} ({}): {times}", text(&reason["code"]), text(&reason["title"])));
            }
        }
    }

    fn settings(&mut self, dirs: &Dirs) {
        self.title("Settings");
        let settings = Settings::read(&Settings::path_in(&dirs.config), Settings::system_path());
        for key in KEYS.iter().filter(|key| key.show.is_some()) {
            self.row(key.name, format!("{} ({:?})", settings.shown(key.name), settings.origin(key.name)));
        }
        settings.warnings.iter().for_each(|warning| self.line(format!("warning: {warning}")));
    }

    fn log(&mut self, path: &Path) {
        self.title("End of the log");
        // A log that has just begun goes on from the one before.
        let before = end_of(&path.with_extension("log.1")).unwrap_or_default();
        match end_of(path).map(|lines| before + &lines) {
            Ok(lines) if lines.is_empty() => self.line("empty"),
            Ok(lines) => {
                let first = lines.lines().count().saturating_sub(LOG_LINES);
                lines.lines().skip(first).for_each(|line| self.line(line));
            }
            Err(error) => self.line(format!("{}: {error}", path.display())),
        }
    }
}

fn read(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    file.map_or(String::new(), |_| String::from_utf8_lossy(&bytes).into_owned())
}

/// Whole lines of the end of a file.
fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(LOG_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match (from, text.split_once('\n')) {
        (0, _) | (_, None) => text,
        (_, Some((_, whole))) => whole.to_owned(),
    })
}

/// All that is known by name. This PC is the first.
fn names(dirs: &Dirs, answers: &Answers) -> Names {
    let mut names = Names::default();
    let none = Value::Null;
    let snapshot = answers.snapshot.as_ref().unwrap_or(&none);
    let nodename = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let label = nodename.split('.').next().unwrap_or_default();
    names.add(Kind::Pc, text(&snapshot["this"]["id"]), &[text(&snapshot["this"]["name"]), &nodename, label]);
    user(&mut names);
    for (dir, placeholder) in [
        (&dirs.config, "config-folder"),
        (&dirs.state, "state-folder"),
        (&dirs.cache, "cache-folder"),
        (&dirs.runtime, "runtime-folder"),
    ] {
        folder(&mut names, dir, placeholder);
    }
    team_on_disk(&mut names, &dirs.state.join("team/statements"));
    let team = &snapshot["team"];
    names.add(Kind::Team, text(&team["id"]), &[text(&team["name"])]);
    names.add(Kind::Team, "", &[text(&snapshot["joining"]["team"])]);
    list(&snapshot["nearby"]).iter().for_each(|t| names.add(Kind::Team, text(&t["id"]), &[text(&t["name"])]));
    let pcs = [&team["members"], &snapshot["machines"], &answers.status["peers"]];
    for pc in pcs.into_iter().flat_map(list) {
        names.add(Kind::Pc, text(&pc["id"]), &[text(&pc["name"])]);
    }
    for kept in list(&snapshot["received"]) {
        names.add(Kind::Pc, text(&kept["submitter"]), &[text(&kept["name"])]);
    }
    let helped = list(&snapshot["share"]["helping"]).iter().map(|h| &h["name"]);
    let asking = list(&team["asking"]).iter().map(|ask| &ask["name"]);
    let lent_to = list(&snapshot["share"]["lent_today_to"]);
    helped.chain(asking).chain(lent_to).for_each(|name| names.add(Kind::Pc, "", &[text(name)]));
    for build in list(&snapshot["building"]).iter().chain(list(&snapshot["builds"])) {
        names.add(Kind::Project, "", &[text(&build["name"])]);
    }
    for report in &answers.builds {
        names.add(Kind::Project, "", &[text(&report["build"]["name"])]);
        list(&report["machines"]).iter().for_each(|m| names.add(Kind::Pc, text(&m["id"]), &[text(&m["name"])]));
    }
    // A path with spaces in it has no shape.
    for (at, report) in answers.builds.iter().enumerate() {
        let cwd = clean(text(&report["cwd"]));
        names.folder(&cwd, &format!("build-{}", at + 1));
        names.add(Kind::Project, "", &[cwd.rsplit('/').next().unwrap_or_default()]);
    }
    let typed: Vec<String> = serde_json::from_str(&read(dirs.config.join("peers.json"))).unwrap_or_default();
    let named = std::env::var("POTLUCK_PEERS").unwrap_or_default();
    let named = named.split(|c: char| c == ',' || c.is_whitespace());
    let shown = list(&snapshot["addresses"]).iter().map(text);
    typed.iter().map(String::as_str).chain(named).chain(shown).for_each(|address| host(&mut names, address));
    names
}

/// The host of an address, if it is a name.
fn host(names: &mut Names, address: &str) {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    if !host.starts_with('[') && host.parse::<std::net::IpAddr>().is_err() {
        names.add(Kind::Address, "", &[host]);
    }
}

fn folder(names: &mut Names, path: &Path, placeholder: &str) {
    names.folder(&clean(&path.to_string_lossy()), placeholder);
    if let Ok(real) = path.canonicalize() {
        names.folder(&clean(&real.to_string_lossy()), placeholder);
    }
}

/// Whoever runs this: as the environment and the system's list call them, and the home folder.
fn user(names: &mut Names) {
    let of_env = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()).unwrap_or_default();
    let uid = rustix::process::getuid().as_raw().to_string();
    let users = read("/etc/passwd");
    let listed = users.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|l| l.get(2) == Some(&uid.as_str()));
    let field = |at: usize| listed.as_ref().and_then(|l| l.get(at)).copied().unwrap_or_default();
    let home = of_env("HOME");
    let last = Path::new(&home).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let full = field(4).split(',').next().unwrap_or_default();
    names.add(Kind::User, "", &[field(0), full, &of_env("USER"), &of_env("LOGNAME"), &last]);
    full.split_whitespace().filter(|part| part.len() > 2).for_each(|part| names.add(Kind::User, "", &[full, part]));
    for home in [home.as_str(), field(5)] {
        folder(names, Path::new(home), "~");
    }
}

/// All names that the team's statements have, also of those who left: the log may tell of them.
fn team_on_disk(names: &mut Names, path: &Path) {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    let Some(records) = file.ok().and_then(|_| records(&bytes).ok()) else { return };
    for raw in records {
        let Ok(statement) = codec::decode(raw) else { continue };
        let by = statement.by().to_string();
        let (node, name, addresses) = match &statement.claim().body {
            Body::Found { team_name, node_name, addresses } => {
                names.add(Kind::Team, &TeamId(statement.id().0).to_string(), &[team_name]);
                (by, node_name, addresses)
            }
            Body::Add { node, name, addresses, .. } => (node.to_string(), name, addresses),
            Body::Rename { name, addresses, .. } => (by, name, addresses),
            Body::Remove { .. } | Body::Recover { .. } => continue,
        };
        names.add(Kind::Pc, &node, &[name]);
        addresses.iter().for_each(|address| host(names, address));
    }
}
