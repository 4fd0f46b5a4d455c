//! `potluck audit`: whether what other PCs returned was right, and what can be done where it was not.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Failure, call};

/// `potluck audit ...`.
#[derive(Subcommand)]
pub(super) enum Audit {
    /// Remove the files that came from PCs with wrong results, so that the next build makes them anew; what was written
    /// since stays
    Rebuild,
    /// Give a PC jobs again
    Forgive {
        /// Its node id, or its name as potluck audit shows it
        node: String,
    },
}

pub(super) fn run(command: Option<Audit>, json: bool) -> Result<(), Failure> {
    match command {
        None => {
            let answer = call(&json!({"call": "audit"}))?;
            if json {
                println!("{answer}");
            } else {
                show(&answer);
            }
        }
        Some(Audit::Rebuild) => rebuilt(&call(&json!({"call": "audit_rebuild"}))?, json),
        Some(Audit::Forgive { node }) => {
            call(&json!({"call": "audit_forgive", "node": node}))?;
            println!("{node} gets jobs again; more of its results than others' are compiled again for now");
        }
    }
    Ok(())
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

fn show(answer: &Value) {
    let counts = &answer["counts"];
    println!("trust       {}", text(&answer["trust"], "mode"));
    println!(
        "compared    {} results, {} agreed, {} differ from run to run by nature, {} unclear; {} wait",
        number(counts, "compared"),
        number(counts, "agreed"),
        number(counts, "not_deterministic"),
        number(counts, "unclear"),
        number(answer, "waiting")
    );
    for peer in list(answer, "peers") {
        let id = text(peer, "id");
        let name = if text(peer, "name").is_empty() { &id[..id.len().min(12)] } else { text(peer, "name") };
        let percent = peer["rate"].as_f64().unwrap_or(1.0) * 100.0;
        let state = match (peer["quarantine"].is_object(), peer["doubtful"] == true, peer["signs"] == true) {
            (true, ..) => "gets no jobs: it gave a wrong result",
            (_, true, _) => "looked at more often",
            (.., false) => "does not sign its results",
            _ => "",
        };
        println!("{name:<20} {:>5} agreed, {percent:>3.0} % compiled again  {state}", number(peer, "agreed"));
    }
    for finding in list(answer, "findings") {
        println!("\n{} gave a wrong result. {}", text(finding, "name"), text(finding, "why"));
        if let Some(source) = finding["source"].as_str() {
            println!("  source    {source}");
        }
        let settled = finding["settled"] == true;
        let files = list(finding, "files");
        for file in files.iter().filter(|_| !settled) {
            println!("  {:<9} {}", text(file, "state"), text(file, "path"));
        }
        if files.iter().any(|file| file["state"] == "as-made") && !settled {
            println!("hint: potluck audit rebuild removes those that are still as it made them; then build again");
        }
    }
}

fn rebuilt(answer: &Value, json: bool) {
    if json {
        println!("{answer}");
        return;
    }
    let (removed, changed) = (list(answer, "removed"), list(answer, "changed"));
    removed.iter().filter_map(Value::as_str).for_each(|path| println!("removed     {path}"));
    changed.iter().filter_map(Value::as_str).for_each(|path| println!("changed     {path}"));
    for why in list(answer, "failed").iter().filter_map(Value::as_str) {
        println!("not removed {why}");
    }
    println!("{} files removed; what was changed since was left alone. Build again.", removed.len());
}
