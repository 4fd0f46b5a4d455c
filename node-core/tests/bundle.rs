//! The report for support: what it has, and what is in none.

mod common;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use common::Node;
use serde_json::Value;

fn run(node: &Node, args: &[&str]) -> Output {
    node.command(args).env("USER", "quittenbaum").output().unwrap()
}

fn done(node: &Node, args: &[&str]) -> String {
    let ended = run(node, args);
    assert!(ended.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

fn lacks(bundle: &str, what: &str) {
    assert!(!what.is_empty());
    assert!(!bundle.to_lowercase().contains(&what.to_lowercase()), "{what} is in it:\n{bundle}");
}

fn has(bundle: &str, what: &str) {
    assert!(bundle.contains(what), "no {what} in it:\n{bundle}");
}

#[test]
fn a_report_tells_of_a_node_and_names_nobody() {
    let mut node = Node::start(&["--listen", "127.0.0.1:0", "--name", "Zwetschge-PC"]);
    done(&node, &["team", "create", "Mirabellenhof"]);
    let link = done(&node, &["team", "invite"]).lines().last().unwrap().to_owned();
    done(&node, &["peers", "add", "schlehe.example.net:10555"]);
    done(&node, &["peers", "add", "192.0.2.17:10555"]);
    let project = node.dir.path().join("Pflaumenmus");
    std::fs::create_dir(&project).unwrap();
    let mut build = node.command(&["run", "--quiet", "--no-wrap", "--", "true"]);
    assert!(build.current_dir(&project).status().unwrap().success());
    let home = &node.dir.path().to_str().unwrap().to_owned();
    let status: Value = serde_json::from_str(&done(&node, &["status", "--json"])).unwrap();
    let id = status["node"]["id"].as_str().unwrap();
    let log = node.dir.path().join("s/potluck/node.log");
    let mut log = std::fs::OpenOptions::new().append(true).open(log).unwrap();
    let short = &id[..12];
    // Each with one write: the node writes there too.
    for line in [
        format!("1.0 info quittenbaum on zwetschge-pc ({short}): {home}/src/a.c at 203.0.113.9:77, {link}\n"),
        "2.0 info the end of Mirabellenhof\n".to_owned(),
    ] {
        log.write_all(line.as_bytes()).unwrap();
    }

    let file = node.dir.path().join("report.txt");
    let said = done(&node, &["doctor", "--bundle", file.to_str().unwrap()]);
    assert!(said.contains("Read it before you send it"), "{said}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let bundle = std::fs::read_to_string(&file).unwrap();
    let folder = node.dir.path().file_name().unwrap().to_str().unwrap();
    for name in ["zwetschge", "mirabellenhof", "pflaumenmus", "quittenbaum", "schlehe", home, folder, id, &id[..8]] {
        lacks(&bundle, name);
    }
    for address in ["192.0.2.17", "203.0.113.9", "127.0.0.1", "pool:join", &link] {
        lacks(&bundle, address);
    }
    has(&bundle, env!("CARGO_PKG_VERSION"));
    for part in ["== Checks ==\nok    node", "team-1: 1 members", "- pc-1 (this PC) pc-1: ", "- project-1 at "] {
        has(&bundle, part);
    }
    for part in ["share.away_after ", "listens on           loopback:", "typed address        address-"] {
        has(&bundle, part);
    }
    has(&bundle, "1.0 info user-1 on pc-1 (pc-1): ~/path-");
    has(&bundle, "2.0 info the end of team-1\n");

    // Nothing is overwritten, by links neither.
    let again = run(&node, &["doctor", "--bundle", file.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), bundle);

    // Whoever cannot ask a node knows the team's names from the disk.
    node.stop();
    let file = node.dir.path().join("later.txt");
    done(&node, &["doctor", "--bundle", file.to_str().unwrap()]);
    let bundle = std::fs::read_to_string(&file).unwrap();
    for name in ["zwetschge", "mirabellenhof", "quittenbaum", home, &id[..8], "203.0.113.9", "pool:join"] {
        lacks(&bundle, name);
    }
    has(&bundle, "no answer: no node runs here");
    has(&bundle, "2.0 info the end of team-1\n");
}

fn without_a_node(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_potluck-node"));
    command.arg("doctor").args(args).env_clear().env("HOME", dir).env("XDG_RUNTIME_DIR", dir).current_dir(dir);
    command.output().unwrap()
}

#[test]
fn without_a_node_a_report_has_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join(".local/state/potluck");
    std::fs::create_dir_all(&state).unwrap();
    let of_log = |lines: std::ops::Range<u32>| lines.map(|n| format!("{n}.0 info line\n")).collect::<String>();
    std::fs::write(state.join("node.log.1"), of_log(0..250)).unwrap();
    std::fs::write(state.join("node.log"), of_log(250..300)).unwrap();
    let ended = without_a_node(dir.path(), &["--bundle", "report.txt"]);
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let bundle = std::fs::read_to_string(dir.path().join("report.txt")).unwrap();
    lacks(&bundle, dir.path().to_str().unwrap());
    for part in ["no answer: no node runs here", "fail  node", "share.away_after ", "\n100.0 info line\n"] {
        has(&bundle, part);
    }
    assert!(!bundle.contains("\n99.0 info line") && bundle.ends_with("299.0 info line\n"), "{bundle}");
}

#[test]
fn a_file_that_cannot_be_made_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("there"), "mine").unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
    for (file, why) in [
        ("there", "exists already"),
        ("link", "exists already"),
        (".", "is a folder"),
        ("no/such/file", "no folder"),
        ("there/file", "no folder"),
    ] {
        let ended = without_a_node(dir.path(), &["--bundle", file]);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(2) && said.contains(why) && said.contains("hint: "), "{file}: {said}");
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("there")).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    let both = without_a_node(dir.path(), &["--json", "--bundle", "x"]);
    assert_eq!(both.status.code(), Some(2));
}
