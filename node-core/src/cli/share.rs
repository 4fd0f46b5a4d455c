//! `potluck share` and `potluck config`: the owner's switch, a pause, and the settings file.

use clap::Subcommand;
use potluck_api::call::{Call, Pause};
use serde_json::json;

use super::{Failure, call, duration_s};
use crate::dirs::Dirs;
use crate::settings::{KEYS, Origin, Settings};

/// `potluck share ...`.
#[derive(Subcommand)]
pub(super) enum Share {
    /// Lend this computer's spare cores
    On,
    /// Lend nothing
    Off,
    /// Lend nothing for a time
    Pause {
        /// 30m, 1h, `tomorrow` (08:00), or `finish`: jobs that run here end first [default: until you resume]
        #[arg(value_parser = pause)]
        until: Option<Pause>,
    },
    /// End a pause
    Resume,
}

/// `potluck config ...`.
#[derive(Subcommand)]
pub(super) enum Config {
    /// All settings
    List {
        /// Also where each comes from
        #[arg(long)]
        origin: bool,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// One setting
    Get {
        /// Such as share.away_after
        name: String,
    },
    /// Change a setting; it holds at once
    Set {
        /// Such as share.away_after
        name: String,
        /// Such as 5m
        value: String,
    },
    /// Where your settings file is
    Path,
}

fn pause(text: &str) -> Result<Pause, String> {
    match text {
        "tomorrow" => Ok(Pause::Tomorrow),
        "finish" => Ok(Pause::Finish),
        time => {
            let seconds = duration_s(time).map_err(|_| {
                format!("{time} is no time to pause; use 30m, 1h, tomorrow or finish, or nothing: until you resume")
            })?;
            match u32::try_from(seconds) {
                Ok(seconds) if seconds > 0 => Ok(Pause::For(seconds)),
                _ => Err("a pause lasts from 1 s to 31 d".to_owned()),
            }
        }
    }
}

pub(super) fn share(command: Share) -> Result<(), Failure> {
    let request = match command {
        Share::On => Call::Share { on: true },
        Share::Off => Call::Share { on: false },
        Share::Pause { until } => Call::Pause { until: until.unwrap_or(Pause::Open) },
        Share::Resume => Call::Resume,
    };
    let answer = call(&serde_json::to_value(&request).map_err(|e| Failure::from(e.to_string()))?)?;
    println!("{}", answer["share"]["sentence"].as_str().unwrap_or("done"));
    if let Some(next) = answer["share"]["next"].as_str() {
        println!("{next}");
    }
    let state = &answer["share"]["state"];
    if state["reason"] == "in_use" && answer["share"]["presence_source"].is_null() {
        println!("hint: {}", super::show::DEDICATED);
    }
    Ok(())
}

pub(super) fn config(command: Config) -> Result<(), Failure> {
    let dirs = Dirs::from_env();
    let mut settings = Settings::read(&Settings::path_in(&dirs.config), Settings::system_path());
    let origin_of = |settings: &Settings, name: &str| match settings.origin(name) {
        Origin::Default => "default".to_owned(),
        Origin::System => Settings::system_path().display().to_string(),
        Origin::User => settings.path().display().to_string(),
    };
    match command {
        Config::Path => println!("{}", settings.path().display()),
        Config::Get { name } => {
            if !KEYS.iter().any(|key| key.name == name && key.show.is_some()) {
                let text = format!("there is no setting {name}\nhint: potluck config list shows all");
                return Err(Failure { exit: 2, text });
            }
            println!("{}", settings.shown(&name).trim_matches('"'));
        }
        Config::Set { name, value } => {
            settings.set(&name, &value).map_err(|text| Failure { exit: 2, text })?;
            // A node that runs is to know before the next command asks it; without one the file says it all.
            let _ = call(&json!(Call::Reread));
            println!("{name} = {}", settings.shown(&name));
        }
        Config::List { origin, json } => {
            for key in KEYS.iter().filter(|key| key.show.is_some()) {
                let (value, from) = (settings.shown(key.name), origin_of(&settings, key.name));
                if json {
                    println!("{}", json!({"key": key.name, "value": value, "origin": from}));
                } else if origin {
                    println!("{:<24} {value:<16} {from}", key.name);
                } else {
                    println!("{:<24} {value}", key.name);
                }
            }
        }
    }
    for warning in &settings.warnings {
        eprintln!("potluck: {warning}");
    }
    Ok(())
}
