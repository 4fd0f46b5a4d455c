//! The command line as a program among others: pipes and exit codes.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

#[test]
fn output_into_a_closed_pipe_ends_as_other_tools_end() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_potluck-node"));
    let ended = command
        .args(["explain", "--options"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output();
    let ended = ended.unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.signal(), Some(13), "{:?}", ended.status);
}

#[test]
fn without_a_node_a_command_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_potluck-node"));
    command.arg("status").env("XDG_RUNTIME_DIR", dir.path());
    let ended = command.output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("potluck node"));
}
