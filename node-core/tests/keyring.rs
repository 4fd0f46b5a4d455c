//! The node's key in a real keyring: a private bus and gnome-keyring, and the node as its program.

use std::process::Command;

/// What every script has: folders of its own, and a node that is started and stopped.
const COMMON: &str = r#"
set -eu
scratch=$(mktemp -d)
export HOME=$scratch XDG_DATA_HOME=$scratch/data XDG_CONFIG_HOME=$scratch/config XDG_STATE_HOME=$scratch/state
export XDG_CACHE_HOME=$scratch/cache XDG_RUNTIME_DIR=$scratch/run
mkdir -p "$XDG_DATA_HOME"; mkdir -m 700 "$XDG_RUNTIME_DIR"
node=
trap 'test -z "$node" || kill "$node"; rm -rf "$scratch"' EXIT
start() {
    mkfifo "$scratch/said"
    env "$@" "$NODE" node --listen 127.0.0.1:0 --name pc >"$scratch/said" &
    node=$!
    read -r _ <"$scratch/said"
    rm "$scratch/said"
}
stop() { kill "$node"; wait "$node" || true; node=; }
has() { if "$NODE" status --json | grep -qF "$1"; then echo "yes: $2"; else echo "no: $2"; fi; }
joined() { if "$NODE" team list --json | grep -qF '"joined":true'; then echo "yes: $1"; else echo "no: $1"; fi; }
id() { "$NODE" team list --json | sed 's/.*"this_pc":"\([0-9a-f]*\)".*/\1/'; }
"#;

fn run(shell: &mut Command, script: &str) -> String {
    let shell = shell.args(["bash", "-c", &format!("{COMMON}{script}")]);
    let output = shell.env("NODE", env!("CARGO_BIN_EXE_potluck-node")).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    said.into_owned()
}

#[test]
fn a_key_moves_into_the_keyring_and_a_locked_keyring_leaves_the_node_running_alone_until_it_opens() {
    let said = run(
        Command::new("dbus-run-session").arg("--"),
        r#"
printf testpw | gnome-keyring-daemon --unlock --components=secrets --daemonize >/dev/null
start POTLUCK_KEYRING=0
"$NODE" team create lab >/dev/null
first=$(id)
test -e "$XDG_STATE_HOME/potluck/identity.pk8" && echo "yes: file before"
stop
start POTLUCK_KEYRING=1
has '"key":"keyring"' 'keyring chosen'
test -e "$XDG_STATE_HOME/potluck/identity.pk8" || echo "yes: file removed"
test "$(id)" = "$first" && echo "yes: same key"
stop
# The choice is remembered, whoever starts it.
start POTLUCK_KEYRING=0
joined 'in the team'
test "$(id)" = "$first" && echo "yes: same key again"
stop
dbus-send --session --print-reply --dest=org.freedesktop.secrets /org/freedesktop/secrets \
    org.freedesktop.Secret.Service.Lock array:objpath:/org/freedesktop/secrets/collection/login >/dev/null
start POTLUCK_KEYRING=1
has '"code":"K1"' 'told of the lock'
joined 'in the team while locked'
test -e "$XDG_STATE_HOME/potluck/identity.pk8" || echo "yes: no second key in a file"
"$NODE" team create other 2>&1 | grep -q 'locked in the keyring' && echo "yes: no team meanwhile"
printf testpw | gnome-keyring-daemon --replace --unlock --components=secrets --daemonize >/dev/null
tries=0
while "$NODE" status --json | grep -qF '"code":"K1"' && [ $tries -lt 300 ]; do tries=$((tries + 1)); sleep 0.1; done
joined 'in the team again'
test "$(id)" = "$first" && echo "yes: its own key again"
stop
"#,
    );
    let expected = [
        "yes: file before",
        "yes: keyring chosen",
        "yes: file removed",
        "yes: same key",
        "yes: in the team",
        "yes: same key again",
        "yes: told of the lock",
        "no: in the team while locked",
        "yes: no second key in a file",
        "yes: no team meanwhile",
        "yes: in the team again",
        "yes: its own key again",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn without_a_keyring_the_key_is_in_a_private_file_and_the_reason_is_shown() {
    let said = run(
        Command::new("env").arg("DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent/bus"),
        r#"
start POTLUCK_KEYRING=1
has '"key":{"file":"there is no keyring here' 'reason'
stat -c %a "$XDG_STATE_HOME/potluck/identity.pk8"
first=$(id)
stop
start POTLUCK_KEYRING=1
test "$(id)" = "$first" && echo "same key"
stop
"#,
    );
    assert_eq!(said.lines().collect::<Vec<_>>(), ["yes: reason", "600", "same key"]);
}
