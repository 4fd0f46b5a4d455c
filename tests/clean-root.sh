#!/bin/sh
# Proves the two commands on a machine that has nothing: a fresh clone in a clean Debian root, to which only git, make and
# this machine's Rust toolchain are added. The root is entered by pivot_root in namespaces of its own, because sandboxes
# refuse to start inside a chroot. What is committed is tested, not what lies in the working tree.
#
#   clean-root.sh [COMMAND...]    default: "make demo" and "make test"; each argument is one shell command
#
# SUITE (bookworm), CLEAN_ROOT (where the root is made), KEEP=1 (leave it there). Needs root.
set -eu

suite=${SUITE:-bookworm}
root=${CLEAN_ROOT:-/var/tmp/potluck-clean-root}

. "$(dirname "$0")/root.sh"

# What follows runs in the new namespaces and ends in the new root.
if [ "${1:-}" = --inside ]; then
    root=$2 rust=$3
    shift 3
    mount_root "$root"
    mkdir opt/rust
    mount --bind "$rust" opt/rust
    mount -o remount,bind,ro opt/rust
    pivot_into_root
    git -c advice.detachedHead=false clone -q potluck.bundle potluck
    cd potluck
    for command in "$@"; do
        begun=$(date +%s)
        echo "clean root: $command"
        rc=0
        sh -c "$command" </dev/null || rc=$?
        echo "clean root: $command: $([ $rc = 0 ] && echo ok || echo "failed ($rc)") after $(($(date +%s) - begun)) s"
        [ $rc = 0 ] || exit $rc
    done
    exit 0
fi

[ "$(id -u)" = 0 ] || fail "making a root of its own needs root" "run it with sudo"
[ $# -gt 0 ] || set -- 'make demo' 'make test'
cd "$(dirname "$0")/.."
rust=$(rustc --print sysroot) || fail "no Rust toolchain on this machine" "install it as https://rustup.rs describes"
[ ! -e "$root" ] || [ -e "$root.ours" ] || fail "$root exists and was not made by this" "name another place with CLEAN_ROOT"
: >"$root.ours"
rm -rf --one-file-system "$root"
[ -n "${KEEP:-}" ] || trap 'rm -rf --one-file-system "$root" "$root.ours" "$root.log"' EXIT
echo "clean root: debootstrap $suite"
make_root "$suite" "$root" git,make "$root.log"
connect_root "$root"
# Cargo's settings as well.
mkdir -p "$root/root/.cargo"
for settings in config.toml config; do
    [ ! -f "${CARGO_HOME:-$HOME/.cargo}/$settings" ] || cp "${CARGO_HOME:-$HOME/.cargo}/$settings" "$root/root/.cargo/"
done
network=$(network_variables)
git bundle create -q "$root/root/potluck.bundle" HEAD

set -- sh "$PWD/tests/clean-root.sh" --inside "$root" "$rust" "$@"
for name in $network; do
    eval "set -- \"\$name=\$$name\" \"\$@\""
done
rc=0
# Its own pid namespace: nothing that a command started outlives this.
unshare --mount --pid --fork --kill-child --ipc --uts env -i HOME=/root PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@" || rc=$?
exit $rc
