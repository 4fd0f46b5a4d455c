//! `potluck ui`: the window in a browser.

use std::process::{Command, Stdio};

use serde_json::json;

use super::{Failure, call};

/// Prints the address, and opens it where there is a desktop.
pub(super) fn run(print: bool) -> Result<(), Failure> {
    let answer = call(&json!({"call": "ui"}))?;
    let url = answer["url"].as_str().ok_or_else(|| Failure::from("the node named no address".to_owned()))?;
    println!("{url}");
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    if print || !(set("DISPLAY") || set("WAYLAND_DISPLAY")) {
        return Ok(());
    }
    let opened =
        Command::new("xdg-open").arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match opened {
        Ok(status) if status.success() => Ok(()),
        _ => Err(Failure::from("no browser could be opened\nhint: open the address above within a minute".to_owned())),
    }
}
