//! `potluck toolchain`.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::show::bytes;
use super::{Failure, call, call_each};
use crate::dirs::Dirs;
use crate::toolchain::{self, Environment, FileSource, Store};

#[derive(Subcommand)]
pub(super) enum Toolchain {
    /// All that are packed, and where they can be used
    List {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Pack a compiler now instead of at its first use
    Add {
        /// A compiler, by name or path
        compiler: PathBuf,
    },
    /// Send to every machine now, and wait
    Sync {
        /// Beginning of an id; all if left out
        id: Option<String>,
        /// For programs: one JSON object a step
        #[arg(long)]
        json: bool,
    },
    /// What is in one
    Show {
        /// Beginning of its id
        id: String,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Remove a stored one, or with --from a member's whole mirror on this PC
    Remove {
        /// Beginning of its id, or a member's id with --from
        id: String,
        /// ID is a member whose files on this PC are to go
        #[arg(long)]
        from: bool,
    },
    /// Write one into a single .tar.zst file
    Export {
        /// Beginning of its id
        id: String,
        /// The file
        file: PathBuf,
    },
    /// Take one from a .tar.zst file
    Import {
        /// The file
        file: PathBuf,
    },
    /// Let every machine prove it again, and check the stored files
    Verify {
        /// Beginning of an id; all if left out
        id: Option<String>,
    },
}

pub(super) fn run(command: Toolchain) -> Result<(), Failure> {
    match command {
        Toolchain::List { json } => {
            let answer = call(&json!({"call": "toolchains"}))?;
            if json { println!("{answer}") } else { table(&answer) }
        }
        Toolchain::Add { compiler } => add(&compiler)?,
        Toolchain::Sync { id, json } => sync(id.as_deref(), json)?,
        Toolchain::Show { id, json } => {
            let answer = call(&json!({"call": "toolchain_show", "id": id}))?;
            if json {
                println!("{answer}");
            } else {
                println!("{}", answer["id"].as_str().unwrap_or_default());
                println!(
                    "{} {}",
                    answer["driver"].as_str().unwrap_or_default(),
                    answer["version"].as_str().unwrap_or_default()
                );
                for file in answer["files"].as_array().into_iter().flatten() {
                    println!(
                        "{:>10}  {}",
                        bytes(file["bytes"].as_u64().unwrap_or(0)),
                        file["path"].as_str().unwrap_or_default()
                    );
                }
            }
        }
        Toolchain::Remove { id, from } => {
            if from {
                let answer = call(&json!({"call": "forget", "submitter": id}))?;
                if answer["ok"] != true {
                    return Err(Failure::from(format!("{id} left nothing on this PC since it started")));
                }
                println!("removed");
            } else {
                let store = store()?;
                let id = stored(&store, &id)?;
                store.remove(id).map_err(|e| Failure::from(e.to_string()))?;
                println!("removed {id}");
            }
        }
        Toolchain::Export { id, file } => {
            let store = store()?;
            let id = stored(&store, &id)?;
            let (manifest, files) = match store.imported(id) {
                Some(found) => found,
                None => {
                    let manifest = store.manifest(id).ok_or_else(|| Failure::from(format!("{id} is not stored")))?;
                    let files = FileSource::in_place(&manifest);
                    (manifest, files)
                }
            };
            let out = File::create(&file).map_err(|e| Failure::from(format!("{}: {e}", file.display())))?;
            if let Err(error) = toolchain::export(&manifest, &files, out) {
                let _ = std::fs::remove_file(&file);
                return Err(Failure::from(error.to_string()));
            }
            println!("{}: {}", file.display(), bytes(std::fs::metadata(&file).map_or(0, |m| m.len())));
        }
        Toolchain::Import { file } => {
            let input = File::open(&file).map_err(|e| Failure::from(format!("{}: {e}", file.display())))?;
            let id =
                toolchain::import(&store()?, input).map_err(|e| Failure::from(format!("{}: {e}", file.display())))?;
            println!("imported {id}");
        }
        Toolchain::Verify { id } => verify(id.as_deref())?,
    }
    Ok(())
}

fn store() -> Result<Store, Failure> {
    Store::open(&Dirs::from_env().cache).map_err(|e| Failure::from(e.to_string()))
}

fn stored(store: &Store, prefix: &str) -> Result<potluck_model::ids::ToolchainId, Failure> {
    let all = store.list().map_err(|e| Failure::from(e.to_string()))?;
    let mut found = all.into_iter().filter(|id| id.to_string().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => {
            Err(Failure::from(format!("no stored toolchain begins with {prefix}; potluck toolchain list shows all")))
        }
        (Some(_), Some(_)) => {
            Err(Failure::from(format!("several toolchains begin with {prefix}; give more of the id")))
        }
    }
}

fn add(compiler: &std::path::Path) -> Result<(), Failure> {
    let env = Environment::of_this_process();
    let path = if compiler.components().count() > 1 {
        std::path::absolute(compiler).map_err(|e| Failure::from(e.to_string()))?
    } else {
        let found = env.path_dirs().into_iter().map(|d| d.join(compiler)).find(|p| p.is_file());
        found
            .ok_or_else(|| Failure::from(format!("{}: not found on PATH; name it with its path", compiler.display())))?
    };
    let entries: Vec<String> = env.entries().into_iter().filter_map(|e| String::from_utf8(e).ok()).collect();
    let answer = call(&json!({"call": "toolchain_add", "path": path, "env": entries}))?;
    let state = watch(None, false)?;
    report(&state, answer["driver"].as_str())
}

fn sync(id: Option<&str>, json: bool) -> Result<(), Failure> {
    let state = watch(id, json)?;
    let none = |list: &str| state[list].as_array().is_none_or(Vec::is_empty);
    if json {
        return failures(&state, None);
    }
    if none("toolchains") && none("failed") {
        return Err(Failure::from("no compiler is packed yet; potluck toolchain add gcc packs one".to_owned()));
    }
    report(&state, None)
}

/// Waits until nothing is packed, sent or proven any more, with progress on standard error. The last state.
fn watch(id: Option<&str>, json: bool) -> Result<Value, Failure> {
    let terminal = std::io::stderr().is_terminal();
    let mut last = Value::Null;
    let mut shown = String::new();
    call_each(&json!({"call": "toolchain_sync", "id": id, "watch": true}), |state| {
        if json {
            println!("{state}");
        } else {
            let line = progress_line(&state, terminal);
            if line != shown && !line.is_empty() {
                // A progress line that cannot be shown is no loss.
                let _ = match terminal {
                    true => write!(std::io::stderr(), "\r\x1b[K{line:.79}"),
                    false => writeln!(std::io::stderr(), "{line}"),
                };
            }
            shown = line;
        }
        last = state;
    })?;
    if terminal && !json {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    Ok(last)
}

/// What is under way; with numbers only where the line is written over.
fn progress_line(state: &Value, numbers: bool) -> String {
    let mut parts = Vec::new();
    if state["packing"] == true {
        let counted = state["progress"].as_array().filter(|_| numbers).map(|p| {
            let part = |i: usize| bytes(p.get(i).and_then(Value::as_u64).unwrap_or(0));
            format!("packing {} of {}", part(0), part(1))
        });
        parts.push(counted.unwrap_or_else(|| "packing".to_owned()));
    }
    for tool in state["toolchains"].as_array().into_iter().flatten() {
        let name = tool["name"].as_str().unwrap_or_default();
        for peer in tool["peers"].as_array().into_iter().flatten() {
            let word = peer["state"].as_str().unwrap_or_default();
            if matches!(word, "ready" | "failed" | "later") {
                continue;
            }
            let note = peer["note"].as_str().filter(|note| numbers && !note.is_empty());
            let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
            parts.push(format!("{name} on {}: {word}{note}", peer["name"].as_str().unwrap_or_default()));
        }
    }
    parts.join("; ")
}

/// A line for each toolchain and machine; with a driver only of that one. An error if it failed somewhere.
fn report(state: &Value, driver: Option<&str>) -> Result<(), Failure> {
    let wanted = |of: &&Value| driver.is_none_or(|d| of["driver"] == d);
    for tool in state["toolchains"].as_array().into_iter().flatten().filter(wanted) {
        let name = tool["name"].as_str().unwrap_or_default();
        let peers = tool["peers"].as_array().map_or(&[][..], Vec::as_slice);
        if peers.is_empty() {
            println!("{name}: packed here; no machine takes jobs now (potluck peers list)");
        }
        for peer in peers {
            let (word, note) = (peer["state"].as_str().unwrap_or_default(), peer["note"].as_str().unwrap_or_default());
            let note = if note.is_empty() { String::new() } else { format!(": {note}") };
            println!("{name} on {}: {word}{note}", peer["name"].as_str().unwrap_or_default());
        }
    }
    for failed in state["failed"].as_array().into_iter().flatten().filter(wanted) {
        let text = |key: &str| failed[key].as_str().unwrap_or_default();
        println!("{}: cannot be used elsewhere: {}", text("driver"), text("error"));
    }
    failures(state, driver)
}

fn failures(state: &Value, driver: Option<&str>) -> Result<(), Failure> {
    let wanted = |of: &&Value| driver.is_none_or(|d| of["driver"] == d);
    let tools = state["toolchains"].as_array().into_iter().flatten().filter(wanted);
    let peers = tools.flat_map(|t| t["peers"].as_array().into_iter().flatten());
    let machines = peers.filter(|p| p["state"] == "failed").count();
    let compilers = state["failed"].as_array().into_iter().flatten().filter(wanted).count();
    match (machines, compilers) {
        (0, 0) => Ok(()),
        (0, n) => Err(Failure::from(format!(
            "{n} {} cannot be packed; builds with {} run here. Mend what is said above, then: potluck toolchain add",
            if n == 1 { "compiler" } else { "compilers" },
            if n == 1 { "it" } else { "them" },
        ))),
        (n, _) => Err(Failure::from(format!(
            "failed on {n} {}; mend what is said above, then: potluck toolchain sync",
            if n == 1 { "machine" } else { "machines" }
        ))),
    }
}

fn verify(id: Option<&str>) -> Result<(), Failure> {
    let store = store()?;
    for id in store.list().map_err(|e| Failure::from(e.to_string()))? {
        // Contents of imported ones lie in the cache, where a bit may have flipped.
        if let Some((manifest, files)) = store.imported(id) {
            for (path, digest, _) in manifest.files() {
                if files.read(&digest).is_err() {
                    store.remove(id).map_err(|e| Failure::from(e.to_string()))?;
                    return Err(Failure::from(format!("{}: damaged in the cache; import it again", path.display())));
                }
            }
        }
    }
    call(&json!({"call": "toolchain_verify", "id": id}))?;
    sync(id, false)
}

fn table(answer: &Value) {
    let none = |list: &str| answer[list].as_array().is_none_or(Vec::is_empty);
    if none("toolchains") && none("failed") && answer["packing"] != true {
        println!("no compiler is packed yet; its first compile does it, or: potluck toolchain add gcc");
    }
    for tool in answer["toolchains"].as_array().into_iter().flatten() {
        println!(
            "{:.12}  {}  {} files, {}",
            tool["id"].as_str().unwrap_or_default(),
            tool["name"].as_str().unwrap_or_default(),
            tool["files"],
            bytes(tool["bytes"].as_u64().unwrap_or(0))
        );
        for peer in tool["peers"].as_array().into_iter().flatten() {
            let text = |key: &str| peer[key].as_str().unwrap_or_default();
            let note = if text("note").is_empty() { String::new() } else { format!(": {}", text("note")) };
            println!("    {:<16} {}{note}", text("name"), text("state"));
        }
    }
    for failed in answer["failed"].as_array().into_iter().flatten() {
        println!(
            "{}  cannot be used elsewhere: {}",
            failed["driver"].as_str().unwrap_or_default(),
            failed["error"].as_str().unwrap_or_default()
        );
    }
    if answer["packing"] == true {
        let part = |i: usize| bytes(answer["progress"][i].as_u64().unwrap_or(0));
        println!("packing {} of {}", part(0), part(1));
    }
}
