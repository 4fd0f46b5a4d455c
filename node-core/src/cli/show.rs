//! Answers as text for people, at 80 columns; with `--json` as they are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use potluck_model::options::{self, Invocation, ReadFile};
use potluck_model::plan::Verdict;
use potluck_model::reason::Reason;
use serde_json::{Value, json};

use super::{Failure, call};
use crate::toolchain::{Compilers, Environment};

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Where the node's private key lies, of a status.
fn key_place(key: &Value) -> String {
    if key == "keyring" {
        return "in the keyring of the desktop".to_owned();
    }
    let why = text(&key["file"]).lines().next().unwrap_or_default();
    let colon = if why.is_empty() { "" } else { ": " };
    format!("in a file that only you can read{colon}{why}")
}

/// Bytes for people.
pub(super) fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

/// "1 machine", "2 machines".
fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// For a server: there is no screen, and no login with a seat.
pub(super) const DEDICATED: &str = "potluck config set share.preset dedicated";

/// Whether sharing waits for a person to go of whom nothing tells.
fn is_unseen(sharing: &Value) -> bool {
    sharing["code"] == "in_use" && sharing["presence"].is_null()
}

pub(super) fn status(answer: &Value, json: bool) {
    if json {
        return println!("{answer}");
    }
    let sharing = &answer["sharing"];
    match text(&sharing["reason"]) {
        "" => {
            let checks = match sharing["proofs"].as_u64() {
                None | Some(0) => String::new(),
                Some(n) => format!(", {n} of them to check a compiler"),
            };
            let few = if sharing["memory_limits"] == true { ", no more because memory is short" } else { "" };
            println!("sharing   {} slots{few}, {} in use{checks}", sharing["slots"], sharing["running"]);
        }
        why => println!("sharing   {why}"),
    }
    if is_unseen(sharing) {
        println!("          nothing here tells whether somebody uses this computer, so it counts as in use");
        println!("          fix: {DEDICATED} (if nobody works at it)");
    }
    for warning in list(&sharing["warnings"]) {
        println!("settings  {}", text(warning));
    }
    let peers = list(&answer["peers"]);
    let up: Vec<&Value> = peers.iter().filter(|p| p["connected"] == true).collect();
    let slots: u64 = up.iter().filter_map(|p| p["slots"].as_u64()).sum();
    let running: u64 = up.iter().filter_map(|p| p["running"].as_u64()).sum();
    match answer["team"]["name"].as_str() {
        Some(team) => println!(
            "pool      {team} · {} · {running} of {slots} slots with our jobs",
            counted(up.len(), "machine", "machines")
        ),
        None => println!("pool      no team"),
    }
    let jobs = &answer["jobs"];
    let local: u64 = jobs["local"].as_object().into_iter().flat_map(|m| m.values()).filter_map(Value::as_u64).sum();
    println!(
        "jobs      {} elsewhere · {local} here · {} now · {} faults · {} tried again",
        jobs["remote"], jobs["running"], jobs["faults"], jobs["retries"]
    );
    let asked = |field: &str| -> u64 { peers.iter().filter_map(|peer| peer["marks"][field].as_u64()).sum() };
    let (given, refused) = (asked("unpredicted"), asked("fault_refused"));
    if given + refused > 0 {
        println!("asked     {given} names that no scan predicted were given to other machines, {refused} refused");
        for peer in peers.iter().filter(|peer| peer["marks"]["fault_refused"].as_u64() > Some(0)) {
            println!("          {}: {} refused", text(&peer["name"]), peer["marks"]["fault_refused"]);
        }
    }
    println!(
        "network   {} up · {} down",
        bytes(answer["bytes"]["up"].as_u64().unwrap_or(0)),
        bytes(answer["bytes"]["down"].as_u64().unwrap_or(0))
    );
    if answer["served"]["jobs"].as_u64() > Some(0) {
        println!("served    {} jobs of others", answer["served"]["jobs"]);
    }
    for problem in list(&answer["problems"]) {
        println!(
            "problem   {} ({})\n          fix: {}",
            text(&problem["text"]),
            text(&problem["code"]),
            text(&problem["fix"])
        );
    }
}

pub(super) fn peers(answer: &Value, json: bool) {
    if json {
        return println!("{}", answer["peers"]);
    }
    if list(&answer["peers"]).is_empty() {
        println!("no other node was ever connected; name one with: potluck peers add ADDR:PORT");
    }
    for peer in list(&answer["peers"]) {
        let state = match (peer["connected"] == true, text(&peer["not_serving"])) {
            (false, _) => "not reachable".to_owned(),
            (true, "") if !text(&peer["held"]).is_empty() => held(text(&peer["held"])).to_owned(),
            (true, "") => format!("{} slots, {} of our jobs", peer["slots"], peer["running"]),
            (true, why) => format!("gives none: {why}"),
        };
        let found = match text(&peer["found_by"]) {
            "network" => "by network",
            "address" => "by address",
            "incoming" => "it came",
            _ => "",
        };
        println!("{:<16} {:<22} {found:<10} {state}", text(&peer["name"]), text(&peer["addr"]));
    }
}

/// Why another PC gives nothing now.
fn held(code: &str) -> &'static str {
    match code {
        "in_use" => "in use",
        "battery" => "on battery",
        "schedule" => "outside its hours",
        "paused" => "paused",
        "own_build" => "building",
        _ => "busy",
    }
}

pub(super) fn team(answer: &Value) {
    println!("{}", answer["name"].as_str().unwrap_or("no team"));
    for member in list(&answer["members"]) {
        let own = if member["this_pc"] == true { " (this PC)" } else { "" };
        println!("  {:<16} {:<10} {}{own}", text(&member["name"]), text(&member["role"]), &text(&member["id"])[..12]);
    }
}

pub(super) fn log(answer: &Value, json: bool) {
    if list(&answer["lines"]).is_empty() && !json {
        // Standard output is for records.
        eprintln!("no jobs since this node started");
    }
    for line in list(&answer["lines"]) {
        if json {
            println!("{line}");
        } else if line["role"] == "worker" {
            let submitter = match text(&line["submitter_name"]) {
                "" => format!("{:.8}", text(&line["submitter"])),
                name => name.to_owned(),
            };
            println!(
                "{:<48} for {submitter}{}: {} {}  {} ms CPU",
                text(&line["source"]),
                if line["probe"] == true { " (toolchain check)" } else { "" },
                text(&line["end"]),
                line["value"],
                line["cpu_us"].as_u64().unwrap_or(0) / 1000
            );
        } else {
            let place = match line["worker"].as_str() {
                Some(id) => format!("on {}", worker_name(line, id)),
                None => format!("here: {}", text(&line["reason"])),
            };
            println!("{:<48} {place}  {} ms", text(&line["source"]), line["wall_us"].as_u64().unwrap_or(0) / 1000);
        }
    }
}

fn worker_name<'a>(record: &'a Value, id: &'a str) -> &'a str {
    match text(&record["worker_name"]) {
        "" => id.get(..12).unwrap_or(id),
        name => name,
    }
}

pub(super) fn explain(answer: &Value, json: bool) {
    if json {
        return println!("{answer}");
    }
    if let Some(job) = answer.get("job") {
        println!("{}", text(&job["source"]));
        match job["worker"].as_str() {
            Some(id) => {
                let ms = job["worker_wall_us"].as_u64().unwrap_or(0) / 1000;
                println!("ran on {}: {ms} ms there", worker_name(job, id))
            }
            None => println!("ran here: {} - {}", text(&job["reason"]), text(&answer["text"])),
        }
        for fault in list(&job["faults"]) {
            println!("needed first: {}", text(fault));
        }
        if !text(&job["note"]).is_empty() {
            println!("note: {}", text(&job["note"]));
        }
        return;
    }
    if answer["build"].is_null() {
        return println!("no build came to this node yet; build with: potluck run -- make");
    }
    super::builds::explain(answer);
}

struct Disk;

impl ReadFile for Disk {
    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        std::fs::read(path).ok()
    }
}

/// Whether a node runs here, and in another root than this process.
fn asked_in_other_root() -> Result<bool, Failure> {
    match call(&json!({"call": "asked_here"})) {
        Ok(answer) => Ok(answer["own_root"] == false),
        Err(failure) if failure.exit == 3 => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// What would happen to a command.
pub(super) fn explain_command(command: &[OsString], json: bool) -> Result<(), Failure> {
    let env = Environment::of_this_process();
    let program = Path::new(&command[0]);
    let path = if program.components().count() > 1 {
        std::path::absolute(program).map_err(|e| Failure::from(e.to_string()))?
    } else {
        env.path_dirs()
            .into_iter()
            .map(|d| d.join(program))
            .find(|p| p.is_file())
            .ok_or_else(|| Failure::from(format!("{}: not found on PATH", program.display())))?
    };
    let compiler = Compilers::default().find(&path, &env).map_err(|e| Failure::from(e.to_string()))?;
    let cwd: PathBuf = std::env::current_dir().map_err(|e| Failure::from(e.to_string()))?;
    let vars: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let invocation =
        Invocation { family: compiler.family, cxx: compiler.cxx, args: &command[1..], cwd: &cwd, env: &vars };
    let verdict = match options::understand(&invocation, &Disk) {
        Verdict::Remote(_) if asked_in_other_root()? => Verdict::Local(Reason::OtherRoot),
        verdict => verdict,
    };
    match verdict {
        Verdict::Local(reason) => {
            if json {
                println!("{}", json!({"where": "local", "reason": reason.to_string(), "text": reason.sentence()}));
            } else {
                println!("would run here: {reason}\n  {}", reason.sentence());
            }
        }
        Verdict::Remote(plans) => {
            if json {
                let plans: Vec<Value> = plans
                    .iter()
                    .map(|p| json!({"source": p.source, "outputs": p.outputs.iter().map(|o| &o.path).collect::<Vec<_>>()}))
                    .collect();
                println!(
                    "{}",
                    json!({"where": "remote", "compiler": compiler.driver, "version": compiler.version, "jobs": plans})
                );
            } else {
                println!("can run elsewhere with {} {}", compiler.driver.display(), compiler.version);
                for plan in plans {
                    let outputs: Vec<String> = plan.outputs.iter().map(|o| o.path.display().to_string()).collect();
                    println!("  {} -> {}", plan.source.display(), outputs.join(" "));
                }
            }
        }
    }
    Ok(())
}

/// What jobs leave to the owner's programs.
fn priority(group: &Value) -> (&'static str, String, String, String) {
    let (level, what, fix) = match group {
        Value::Null => ("ok", "jobs have the CPU that your programs leave".to_owned(), String::new()),
        group => (
            "warn",
            format!(
                "jobs weigh {} beside {} of other programs (CPU group {})",
                group["weight"],
                group["usual"],
                text(&group["path"])
            ),
            "systemd-run --user --scope -p CPUWeight=idle potluck node --serve SLOTS".to_owned(),
        ),
    };
    (level, "priority".to_owned(), what, fix)
}

/// Who limits the memory of jobs; nobody knows before the first sandbox stands.
fn limits(enforced: &Value) -> Option<(&'static str, String, String, String)> {
    let (what, fix) = match text(enforced) {
        "kernel" => ("the kernel limits memory and processes of each job", ""),
        "looking" => (
            "jobs are looked at every 0.1 to 1 s: there is no control group for each",
            "run the node as a systemd user service, or name a group of this user's in POTLUCK_CGROUP",
        ),
        _ => return None,
    };
    Some(("ok", "limits".to_owned(), what.to_owned(), fix.to_owned()))
}

/// How this network lets PCs find each other.
fn discovery(answer: &Value) -> (&'static str, String, String, String) {
    let (level, what, fix) = match text(&answer["state"]) {
        "works" if answer["seen"].as_u64() > Some(0) => ("ok", format!("{} of the team seen here", answer["seen"]), ""),
        "works" => ("ok", "announcements go out; nobody else of the team is here".to_owned(), ""),
        "off" => ("ok", "switched off (--no-discovery); addresses are used".to_owned(), ""),
        "blocked" if answer["own_seen"] == true => (
            "warn",
            "N2 this network hides computers from each other: a PC that is reachable is not seen by multicast"
                .to_owned(),
            "potluck peers add ADDR:PORT",
        ),
        "blocked" => (
            "warn",
            "N2 this network hides computers from each other: nothing that is sent by multicast comes back".to_owned(),
            "potluck peers add ADDR:PORT",
        ),
        _ => ("ok", "nothing seen yet".to_owned(), ""),
    };
    (level, "discovery".to_owned(), what, fix.to_owned())
}

/// Level, name, what was found, what to do.
pub(super) type Checked = (&'static str, String, String, String);

/// All that `doctor` looks at.
pub(super) fn checks() -> Result<Vec<Checked>, Failure> {
    let mut checks: Vec<Checked> = Vec::new();
    let status = call(&json!({"call": "status"}));
    match &status {
        Err(failure) if failure.exit == 3 => {
            let text = format!("none runs here ({})", crate::dirs::Dirs::from_env().socket().display());
            checks.push(("fail", "node".into(), text, "potluck node".into()));
        }
        Err(failure) => {
            let fix = "end the node and start it again: potluck node".to_owned();
            checks.push(("fail", "node".into(), failure.text.clone(), fix));
        }
        Ok(answer) => {
            let node = &answer["node"];
            checks.push((
                "ok",
                "node".into(),
                format!("{}, up {} s, {}", text(&node["version"]), node["up_s"], text(&node["listen"])),
                String::new(),
            ));
            checks.push(("ok", "key".into(), key_place(&answer["key"]), String::new()));
            let sandbox = &answer["sandbox"];
            if sandbox["ok"] == true {
                checks.push(("ok", "sandbox".into(), "self-test passed".into(), String::new()));
                checks.push(priority(&sandbox["cpu_group"]));
                checks.extend(limits(&sandbox["limits"]));
            } else if sandbox["checked"] == true {
                checks.push((
                    "fail",
                    "sandbox".into(),
                    text(&sandbox["note"]).to_owned(),
                    "see the sentence; this node submits all the same".into(),
                ));
            }
            let up = list(&answer["peers"]).iter().filter(|p| p["connected"] == true).count();
            checks.push((
                if up > 0 { "ok" } else { "warn" },
                "peers".into(),
                format!("{up} connected"),
                if up > 0 { String::new() } else { "potluck peers add ADDR:PORT".into() },
            ));
            checks.push(discovery(&answer["discovery"]));
            if is_unseen(&answer["sharing"]) {
                let what =
                    "nothing tells whether somebody is there, so this computer counts as in use and lends nothing";
                checks.push(("warn", "presence".into(), what.into(), format!("{DEDICATED} (if nobody works at it)")));
            }
            for peer in list(&answer["peers"]).iter().filter(|p| p["trap"] == "loop") {
                checks.push((
                    "warn",
                    "trap".into(),
                    format!("{} has no /dev/fuse: it gets fewer jobs", text(&peer["name"])),
                    "allow /dev/fuse there".into(),
                ));
            }
            // N2 has its line above.
            for problem in list(&answer["problems"]).iter().filter(|p| p["code"] != "N2") {
                let level = if matches!(text(&problem["code"]), "S1" | "T1" | "C1") { "fail" } else { "warn" };
                checks.push((
                    level,
                    text(&problem["code"]).to_owned(),
                    text(&problem["text"]).to_owned(),
                    text(&problem["fix"]).to_owned(),
                ));
            }
            let tools = call(&json!({"call": "toolchains"}))?;
            checks.push((
                "ok",
                "toolchains".into(),
                format!("{} packed", list(&tools["toolchains"]).len()),
                String::new(),
            ));
        }
    }
    let runner = crate::sandbox::runner_path();
    if !runner.exists() {
        checks.push((
            "fail",
            "runner".into(),
            format!("{} is missing", runner.display()),
            "install Potluck again".into(),
        ));
    }
    Ok(checks)
}

/// Checks with a word each; exit code 5 if one of them failed.
pub(super) fn doctor(json: bool) -> Result<ExitCode, Failure> {
    let checks = checks()?;
    if json {
        let all: Vec<Value> =
            checks.iter().map(|c| json!({"level": c.0, "check": c.1, "text": c.2, "fix": c.3})).collect();
        println!("{}", json!({"schema": 1, "checks": all}));
    } else {
        for (level, name, what, fix) in &checks {
            println!("{level:<5} {name:<11} {what}");
            if !fix.is_empty() {
                println!("                  fix: {fix}");
            }
        }
    }
    Ok(if checks.iter().any(|c| c.0 == "fail") { ExitCode::from(5) } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doctor_says_where_the_key_really_lies() {
        assert_eq!(key_place(&json!("keyring")), "in the keyring of the desktop");
        assert_eq!(key_place(&json!({"file": "no\nhint: x"})), "in a file that only you can read: no");
        assert_eq!(key_place(&json!({"file": ""})), "in a file that only you can read");
        assert_eq!(key_place(&Value::Null), "in a file that only you can read");
    }
}
