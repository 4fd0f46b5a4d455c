//! The node's own log: one line an event to standard error and, for a running node, to a file in its state folder.
//! Nothing of it ever reaches a compiler's output.

use std::io::Write;
use std::sync::Mutex;
use std::sync::OnceLock;

static FILE: OnceLock<Mutex<std::fs::File>> = OnceLock::new();

/// Also write to this file from now on.
pub fn to_file(file: std::fs::File) {
    let _ = FILE.set(Mutex::new(file));
}

fn write(level: &str, text: &str) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let line = format!("{}.{:03} {level} {}\n", now.as_secs(), now.subsec_millis(), text.escape_debug());
    match FILE.get() {
        Some(file) => {
            let _ = file.lock().unwrap_or_else(|e| e.into_inner()).write_all(line.as_bytes());
        }
        None => {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// Something that a person should know.
pub fn warn(text: &str) {
    write("warn", text);
}

/// Something that explains what happened.
pub fn info(text: &str) {
    write("info", text);
}

/// Details, only with `POTLUCK_LOG=debug`.
pub fn debug(text: impl FnOnce() -> String) {
    static ON: OnceLock<bool> = OnceLock::new();
    if *ON.get_or_init(|| std::env::var("POTLUCK_LOG").is_ok_and(|v| v == "debug" || v == "trace")) {
        write("debug", &text());
    }
}
