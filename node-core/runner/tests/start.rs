//! Where no sandbox can be made the runner says why in one sentence; and what `trace` writes.

mod lab;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use lab::{Lab, as_user, runner};
use potluck_runner::client::Sandbox;
use potluck_runner::protocol::Setup;

/// Starts a sandbox by way of a shell line in which `$RUNNER` is the runner; returns why it failed.
fn refusal(line: &str, change: fn(&Path)) -> String {
    let folder = tempfile::Builder::new().prefix("potluck-").tempdir_in("/var/tmp").unwrap();
    for dir in ["root", "root/proc", "root/dev", "root/tmp", "root/.potluck", "gens"] {
        fs::create_dir(folder.path().join(dir)).unwrap();
    }
    change(folder.path());
    let script = folder.path().join("start");
    fs::write(&script, format!("#!/bin/sh\nRUNNER={}\n{line}\n", runner().display())).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = |name: &str| folder.path().join(name).as_os_str().as_bytes().to_vec();
    let setup = Setup { root: path("root"), generations: path("gens"), uid: 1000, gid: 1000, allow_fuse: true };
    match Sandbox::start(OsStr::new(&script), &setup) {
        Ok(_) => panic!("{line} made a sandbox"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn root_is_refused() {
    if !as_user("root_is_refused") {
        let why = refusal("exec unshare --user --map-root-user $RUNNER \"$@\"", |_| {});
        assert_eq!(why, "the sandbox does not run as root: start Potluck as an ordinary user");
    }
}

#[test]
fn a_machine_without_room_for_user_namespaces_is_told() {
    if !as_user("a_machine_without_room_for_user_namespaces_is_told") {
        let why = refusal(
            "exec unshare --user --map-root-user sh -c 'echo 1 > /proc/sys/user/max_user_namespaces && \
             exec unshare --user --map-user=1000 --map-group=1000 '$RUNNER' \"$@\"' sh \"$@\"",
            |_| {},
        );
        assert_eq!(why, "there are too many user namespaces; raise user.max_user_namespaces");
    }
}

#[test]
fn a_tree_without_its_empty_directories_is_told() {
    if !as_user("a_tree_without_its_empty_directories_is_told") {
        let why = refusal("exec $RUNNER \"$@\"", |dir| fs::remove_dir(dir.join("root/.potluck")).unwrap());
        assert_eq!(why, "the sandbox could not be made: /.potluck: No such file or directory (os error 2)");
        let why = refusal("exec $RUNNER \"$@\"", |dir| fs::remove_dir(dir.join("gens")).unwrap());
        assert!(why.contains("gens could not be bound: No such file or directory"), "{why}");
    }
}

#[test]
fn the_self_test_passes_here() {
    if as_user("the_self_test_passes_here") {
        return;
    }
    let out = Command::new(runner()).args(["selftest", "--json"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let result: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(out.status.success(), "{text}");
    assert_eq!(result["passed"], true);
    assert_eq!(result["trap"], "fuse");
    assert!(result["checks"].as_array().unwrap().len() > 20);
}

#[test]
fn a_trace_lists_every_lookup_of_every_process_and_keeps_the_exit_code() {
    if as_user("a_trace_lists_every_lookup_of_every_process_and_keeps_the_exit_code") {
        return;
    }
    let lab = Lab::new();
    lab.write("read", "x").write("sub/deep", "x");
    let out = lab.project.join("trace.out");
    let status = Command::new(runner())
        .arg("trace")
        .arg(&out)
        .args([
            "--",
            "/bin/sh",
            "-c",
            "cat read | cat > written; cd sub; cat deep ../missing; (test -r nothing & wait); exit 3",
        ])
        .current_dir(&lab.project)
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(3));
    let text = fs::read(&out).unwrap();
    assert_eq!(text.last(), Some(&0));
    let records: Vec<&[u8]> = text.split(|b| *b == 0).collect();
    let has = |kind: &str, path: &str| {
        let wanted = format!("{kind}{}/{path}", lab.project.display());
        records.contains(&wanted.as_bytes())
    };
    assert!(has("o", "read") && has("w", "written") && has("o", "sub/deep"));
    assert!(has("n", "sub/../missing") && has("n", "sub/nothing"));
    assert!(records.contains(&b"x/bin/sh".as_slice()));
    assert!(records.iter().any(|r| r.starts_with(b"x") && r.ends_with(b"/cat")));

    // Killed by a signal, as a shell tells it; and a command that is not there.
    let code = |argv: &[&str]| {
        let mut command = Command::new(runner());
        command.arg("trace").arg(&out).arg("--").args(argv).stderr(std::process::Stdio::null());
        command.status().unwrap().code()
    };
    assert_eq!(code(&["/bin/sh", "-c", "kill -TERM $$"]), Some(143));
    assert_eq!(code(&["/no/such/program"]), Some(127));
}
