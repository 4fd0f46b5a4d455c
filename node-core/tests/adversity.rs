//! Machines on which something is wrong: compiles go on, with the same objects, and the person is told once.

mod pool;
mod programs;
mod tree_space;

use std::fs;
use std::process::Command;

use pool::{Pc, delegated, local_object, team, until, write_sources};
use tree_space::Space;

/// The wall clock of a program, ten years ahead; all other clocks as they are.
const AHEAD: &str = r#"
#define _GNU_SOURCE
#include <time.h>
#include <sys/syscall.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (!result && clock == CLOCK_REALTIME) time->tv_sec += 3652L * 86400;
    return result;
}
"#;

#[test]
fn a_clock_that_is_ten_years_ahead_keeps_nobody_out_fails_no_compile_and_is_told() {
    if delegated("a_clock_that_is_ten_years_ahead_keeps_nobody_out_fails_no_compile_and_is_told") {
        return;
    }
    let space = Space::new("adversity-clock");
    let (source, library) = (space.write("ahead.c", AHEAD), space.path("ahead.so"));
    let made = Command::new("gcc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status().unwrap();
    assert!(made.success());
    let worker = Pc::start(&space, "worker", &["--serve", "2"]);
    let ahead = Pc::start_with(
        &space,
        "ahead",
        &["--serve", "0", "--local-compiles", "0"],
        &[("LD_PRELOAD", library.as_path())],
    );
    // An invitation holds for a day, by the clock of whoever made it; and the team has no clock at all.
    team(&worker, &[&ahead]);
    let worker_id = worker.id();
    until("slots", || ahead.peer(&worker_id).filter(|p| p["slots"] == 2));
    let project = space.path("project");
    write_sources(&project, &[], &["a", "b"]);
    ahead.says(&["toolchain", "add", "/usr/bin/gcc"]);
    ahead.says(&["toolchain", "sync"]);
    let output = ahead.compile(&project, "a", "a.o");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(ahead.last_job(), (true, worker_id), "what it means has nothing to do with the time");
    assert!(fs::read(project.join("a.o")).unwrap() == local_object(&project, "a"));
    let clocks = until("the clock is told of", || {
        let problems = ahead.json(&["status"])["problems"].as_array().unwrap().clone();
        Some(problems.into_iter().filter(|p| p["code"] == "C1").collect::<Vec<_>>()).filter(|c| !c.is_empty())
    });
    assert_eq!(clocks.len(), 1, "{clocks:?}");
    // What shows the time shows the submitter's, wherever it is compiled.
    fs::write(project.join("b.c"), "const char *b = __DATE__;\n").unwrap();
    let output = ahead.compile(&project, "b", "b.o");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(ahead.last_job().0, "{:?}", ahead.last_job());
    let year = Command::new("date").args(["-d", "+3652 days", "+%Y"]).output().unwrap().stdout;
    let object = fs::read(project.join("b.o")).unwrap();
    assert!(object.windows(4).any(|bytes| bytes == &year[..4]), "not the year {}", String::from_utf8_lossy(&year));
}

/// In mounts of its own: /tmp cannot be written, and the node's folders are on a small disk.
const SCRIPT: &str = r#"
set -eu
mount --bind /tmp /tmp
mount -o remount,bind,ro /tmp
touch /tmp/x 2>/dev/null && exit 9
mkdir "$SPACE/disk" "$SPACE/project"
mount -t tmpfs -o size=8m none "$SPACE/disk"
export HOME=$SPACE XDG_STATE_HOME=$SPACE/disk/state XDG_CACHE_HOME=$SPACE/disk/cache XDG_CONFIG_HOME=$SPACE/disk/config
export XDG_RUNTIME_DIR=$SPACE/r POTLUCK_PATIENCE_MS=20000
mkdir -m 700 "$XDG_RUNTIME_DIR"
cd "$SPACE/project"
printf 'int a(int b) { return b * 7; }\n' >a.c
gcc -O2 -c a.c -o plain.o
compile() {
    rm -f a.o
    "$POTLUCK" gcc -O2 -c a.c -o a.o >out 2>&1 || { echo "$1: failed"; cat out; }
    if cmp a.o plain.o && test ! -s out; then echo "$1: same"; fi
}
compile 'no node'
mkfifo "$SPACE/said"
"$NODE" node --listen 127.0.0.1:0 --no-discovery >"$SPACE/said" &
node=$!
trap 'kill $node' EXIT
read -r _ <"$SPACE/said"
compile 'a read-only /tmp'
test "$("$NODE" log --json | grep -c '"where":"local"')" = 1 && echo 'the node knows of it'
dd if=/dev/zero of="$SPACE/disk/fill" bs=4k 2>/dev/null || echo 'the disk is full'
compile 'a full disk'
"$NODE" status >/dev/null && echo 'the node runs'
rm "$SPACE/disk/fill"
compile 'room again'
"#;

#[test]
fn a_read_only_tmp_a_full_disk_and_no_node_at_all_fail_no_compile() {
    // As this test's own user, because namespaces are made here.
    let is_root = rustix::process::geteuid().is_root();
    let wrapper = pool::wrapper();
    let space = Space::new("adversity-disk");
    let mut shell = Command::new("unshare");
    shell.args(if is_root { ["--mount"].as_slice() } else { ["--user", "--map-root-user", "--mount"].as_slice() });
    shell.args(["bash", "-c", SCRIPT]).env("SPACE", &space.base);
    shell.env("NODE", pool::NODE).env("POTLUCK", wrapper);
    shell.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent");
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = [
        "no node: same",
        "a read-only /tmp: same",
        "the node knows of it",
        "the disk is full",
        "a full disk: same",
        "the node runs",
        "room again: same",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{}", String::from_utf8_lossy(&output.stderr));
}
