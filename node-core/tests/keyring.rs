//! The node's key in a real keyring: a private bus and gnome-keyring, and the node as its program.

mod programs;

use std::process::Command;

use programs::{NODE, wrapper};

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
    let output = shell.env("NODE", NODE).env("POTLUCK", wrapper()).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    // What the bus starts says its own there.
    said.lines().filter(|line| !line.starts_with("GNOME_KEYRING_")).map(|line| format!("{line}\n")).collect()
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
# Compiles know nothing of keys: the same object as ever, without a word, and one notice for the person.
printf 'int a(int b) { return b * 7; }\n' >"$scratch/a.c"
cd "$scratch"
gcc -O2 -c a.c -o plain.o
"$POTLUCK" gcc -O2 -c a.c -o a.o >"$scratch/out" 2>&1 && cmp a.o plain.o && test ! -s "$scratch/out" && echo "yes: compiled"
"$NODE" log --json --role submitter | grep -c '"where":"local"'
"$NODE" status --json | grep -o '"code":"K1"' | grep -c .
# The keyring is asked, and ends with its prompt open: that one never answers.
"$NODE" unlock
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
        "yes: compiled",
        "1",
        "1",
        "The keyring is asked. potluck status says where the key lies.",
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

#[test]
fn a_keyring_that_refused_the_key_gets_it_when_it_opens_and_the_node_runs_on() {
    let said = run(
        Command::new("dbus-run-session").arg("--"),
        r#"
# Nobody has ever unlocked it, and no prompt can be shown.
gnome-keyring-daemon --start --components=secrets >/dev/null 2>&1
start POTLUCK_KEYRING=1
has '"key":"file"' 'in the file'
"$NODE" team create lab >/dev/null
first=$(id)
printf testpw | gnome-keyring-daemon --replace --unlock --components=secrets --daemonize >/dev/null
# Far sooner than a look at it now and then would be: the service told of itself.
tries=0
while "$NODE" status --json | grep -qF '"key":"file"' && [ $tries -lt 300 ]; do tries=$((tries + 1)); sleep 0.1; done
has '"key":"keyring"' 'moved'
test -e "$XDG_STATE_HOME/potluck/identity.pk8" || echo "yes: file removed"
test "$(id)" = "$first" && echo "yes: same key"
joined 'in the team all the time'
stop
start POTLUCK_KEYRING=0
test "$(id)" = "$first" && joined 'with the key of the keyring'
stop
"#,
    );
    let expected = [
        "yes: in the file",
        "yes: moved",
        "yes: file removed",
        "yes: same key",
        "yes: in the team all the time",
        "yes: with the key of the keyring",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}
