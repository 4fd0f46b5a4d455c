//! What of the proof runs inside a PC: its first process, and the tray and notifications of its person's desktop.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use potluck_tests::desktop::banners::Banners;
use potluck_tests::desktop::tray::{Line, Panel, TrayItem};
use potluck_tests::{Context, Outcome, Trouble};
use rustix::process::{WaitOptions, wait};
use serde_json::{Value, json};

/// A tray app that is being started needs seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the PC's own load is counted anew; the node looks every 900 ms.
const COUNT_EVERY: Duration = Duration::from_millis(300);
/// Where it is told.
const OWN_PROC: &str = "/run/pc-proc";

/// The first process of a PC: reaps, counts, and ends with its standard input.
pub fn first() -> Outcome<()> {
    std::fs::create_dir_all(OWN_PROC)?;
    std::os::unix::fs::symlink("/proc/meminfo", Path::new(OWN_PROC).join("meminfo"))?;
    std::thread::spawn(|| {
        loop {
            // Nobody's children become those of the first process.
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            let _ = tell_load();
            std::thread::park_timeout(COUNT_EVERY);
        }
    });
    tell_load()?;
    println!("ready");
    std::io::stdout().flush()?;
    for line in std::io::stdin().lock().lines() {
        if line.is_err() {
            break;
        }
    }
    Ok(())
}

/// One kernel counts for all PCs of this proof together. Each is told what its own programs use: all but the tray app and
/// what that started, which are the node and the jobs of others.
fn tell_load() -> Outcome<()> {
    // USER_HZ of every architecture that this runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let processes = potluck_tests::node::processes();
    let nodes = processes.iter().filter(|p| p.name.starts_with("potluck-tray") || p.name.starts_with("potluck-node"));
    let not_own: std::collections::BTreeSet<u32> =
        nodes.flat_map(|p| potluck_tests::node::family(p.pid)).map(|p| p.pid).collect();
    let own = processes.iter().filter(|p| !not_own.contains(&p.pid));
    let busy = (own.map(|p| p.cpu().as_secs_f64()).sum::<f64>() * TICKS_PER_SECOND) as u64;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = BEGUN.get_or_init(Instant::now);
    let total = (begun.elapsed().as_secs_f64() * TICKS_PER_SECOND * cores as f64) as u64 + 100_000;
    let text = format!("cpu {busy} 0 0 {} 0 0 0 0 0 0\n", total.saturating_sub(busy));
    let file = Path::new(OWN_PROC).join("stat");
    std::fs::write(file.with_extension("new"), text)?;
    Ok(std::fs::rename(file.with_extension("new"), file)?)
}

/// Tray and notifications of a session: a command on each line of standard input, an answer on each of standard output.
pub fn desktop() -> Outcome<()> {
    let address = std::env::var("DBUS_SESSION_BUS_ADDRESS").context(|| "no session bus".into())?;
    let panel = Panel::on(&address)?;
    let banners = Banners::start(&address)?;
    say(&json!({"ok": "ready"}))?;
    for line in std::io::stdin().lock().lines() {
        let command: Value = serde_json::from_str(&line?)?;
        match answer(&command, &panel, &banners) {
            Ok(value) => say(&json!({ "ok": value }))?,
            Err(error) => say(&json!({"error": error.to_string()}))?,
        }
    }
    Ok(())
}

fn say(value: &Value) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

fn answer(command: &Value, panel: &Panel, banners: &Banners) -> Outcome<Value> {
    let text = |name: &str| command[name].as_str().context(|| format!("no {name} in {command}"));
    let menu = || -> Outcome<TrayItem> { panel.item(PATIENCE) };
    match text("do")? {
        "menu" => Ok(menu()?.lines()?.iter().map(line_json).collect()),
        "choose" => {
            let menu = menu()?;
            menu.choose(text("line")?, PATIENCE)?;
            Ok(Value::Null)
        }
        "banners" => Ok(banners
            .all()
            .into_iter()
            .map(|b| json!({"id": b.id, "title": b.title, "body": b.body, "actions": b.actions}))
            .collect()),
        "press" => {
            let id = command["id"].as_u64().context(|| "no id".into())?;
            banners.press(id as u32, text("action")?)?;
            Ok(Value::Null)
        }
        other => Err(Trouble::new(format!("{other}: no such command"))),
    }
}

fn line_json(line: &Line) -> Value {
    let below: Vec<Value> = line.lines.iter().map(line_json).collect();
    json!({"label": line.label, "enabled": line.enabled, "checked": line.checked, "lines": below})
}
