//! Who may use what: the walls that ARCHITECTURE.md names, with the file and line that breaks one.

use std::fs;
use std::path::{Path, PathBuf};

/// Crate folder, and what it may depend on: the pure core's list is readable in ten seconds.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("node-core/model", &["blake3", "memchr", "serde"]),
    ("node-core/api", &["serde", "serde_json", "ts-rs"]),
    (
        "src-tauri",
        &[
            "potluck-api",
            "potluck-node",
            "tauri",
            "tauri-plugin-single-instance",
            "gtk",
            "serde_json",
            "tokio",
            "libc",
            "rustix",
        ],
    ),
];
/// Crate folder, and what its dependency list must not hold.
const MUST_NOT_DEPEND_ON: &[(&str, &[&str])] = &[
    ("node-core/wrapper", &["tokio", "clap", "tonic", "hyper-util", "tower", "rustls", "tokio-rustls"]),
    ("node-core/runner", &["tokio", "tonic", "hyper-util", "tower", "clap"]),
    ("node-core/wire", &["tokio", "rustix", "libc", "tokio-rustls", "rustls"]),
];
/// Source folder, and what its text must not name outside tests.
const MUST_NOT_NAME: &[(&str, &[&str])] = &[
    (
        "node-core/model/src",
        &[
            "std::fs",
            "std::net",
            "std::process",
            "std::thread",
            "std::env",
            "Instant::now",
            "SystemTime::now",
            "rand::",
            "tokio",
        ],
    ),
    (
        "node-core/wire/src",
        &["std::fs", "std::net", "std::process", "std::thread", "tokio", "Instant::now", "SystemTime::now"],
    ),
    ("node-core/wrapper/src", &["tokio", "clap::"]),
    ("node-core/runner/src", &["tokio"]),
];
/// Every file of ours, tables aside, has one reason to change below this many lines.
const LINES_MAX: usize = 900;
/// Tables may be long.
const TABLES: &[&str] = &["node-core/model/src/options/rows.rs", "node-core/model/src/options/table.rs"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    potluck_tests::tree::walk(dir, &mut |path, meta| {
        if meta.is_file() && path.extension().is_some_and(|e| e == "rs") {
            files.push(path.to_path_buf());
        }
    });
    files
}

/// Lines of code with their numbers: comments and everything from the unit tests on are left out.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.lines().enumerate().take_while(|(_, l)| l.trim() != "#[cfg(test)]");
    code.map(|(n, l)| (n + 1, l.split("//").next().unwrap_or(l)))
}

/// Names in the `[dependencies]` table of a manifest, with their lines.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for (number, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
        } else if let Some((name, _)) = line.split_once('=').filter(|_| inside && !line.starts_with('#')) {
            found.push((number + 1, name.trim().trim_end_matches(".workspace").to_string()));
        }
    }
    found
}

fn report(broken: &[String]) {
    assert!(broken.is_empty(), "{} broken:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn the_pure_crates_depend_on_what_they_may() {
    let mut broken = Vec::new();
    let of = |dir: &str| {
        let path = top().join(dir).join("Cargo.toml");
        dependencies(&fs::read_to_string(path).expect("a crate has a manifest"))
    };
    for (dir, allowed) in MAY_DEPEND_ON {
        for (line, name) in of(dir).iter().filter(|(_, n)| !allowed.contains(&n.as_str())) {
            broken.push(format!("{dir}/Cargo.toml:{line}: {name}; allowed are {}", allowed.join(", ")));
        }
    }
    for (dir, forbidden) in MUST_NOT_DEPEND_ON {
        for (line, name) in of(dir).iter().filter(|(_, n)| forbidden.contains(&n.as_str())) {
            broken.push(format!("{dir}/Cargo.toml:{line}: {name} does not belong here"));
        }
    }
    report(&broken);
}

#[test]
fn pure_code_does_no_io_and_asks_no_clock() {
    let mut broken = Vec::new();
    for (dir, names) in MUST_NOT_NAME {
        for file in rust_files(&top().join(dir)) {
            let text = fs::read_to_string(&file).expect("sources are text");
            let shown = file.strip_prefix(top()).expect("below the workspace").display();
            // Files that are tests as a whole may do what tests do.
            if file.file_stem().is_some_and(|s| s == "tests") || file.iter().any(|c| c == "tests") {
                continue;
            }
            for (line, code) in code_lines(&text) {
                if let Some(name) = names.iter().find(|n| code.contains(**n)) {
                    broken.push(format!("{shown}:{line}: {name} in {dir}"));
                }
            }
        }
    }
    report(&broken);
}

#[test]
fn files_are_short_enough_to_have_one_reason_to_change() {
    let mut broken = Vec::new();
    for dir in ["node-core", "tests", "src-tauri"] {
        for file in rust_files(&top().join(dir)) {
            let shown = file.strip_prefix(top()).expect("below the workspace").display().to_string();
            let lines = fs::read_to_string(&file).expect("sources are text").lines().count();
            if lines > LINES_MAX && !TABLES.contains(&shown.as_str()) && !shown.contains("/target/") {
                broken.push(format!("{shown}:{LINES_MAX}: {lines} lines"));
            }
        }
    }
    report(&broken);
}

#[test]
fn every_file_says_what_it_is() {
    let mut broken = Vec::new();
    for dir in ["node-core", "tests", "src-tauri"] {
        for file in rust_files(&top().join(dir)) {
            let text = fs::read_to_string(&file).expect("sources are text");
            // A module's tests in a file of their own are explained by the module.
            if !text.trim_start().starts_with("//!") && file.file_stem().is_some_and(|s| s != "tests") {
                broken.push(format!("{}:1: no //! sentence", file.strip_prefix(top()).expect("below").display()));
            }
        }
    }
    report(&broken);
}
