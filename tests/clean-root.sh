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

fail() {
    echo "error: $1" >&2
    echo "hint: $2" >&2
    exit 1
}

# What follows runs in the new namespaces and ends in the new root.
if [ "${1:-}" = --inside ]; then
    root=$2 rust=$3
    shift 3
    mount --make-rprivate /
    mount --bind "$root" "$root"
    cd "$root"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs -o mode=755 dev dev
    mkdir dev/pts dev/shm opt/rust
    for device in null zero full random urandom tty fuse; do
        [ -e "/dev/$device" ] || continue
        : >"dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    mount -t tmpfs -o mode=1777 shm dev/shm
    mount --bind "$rust" opt/rust
    mount -o remount,bind,ro opt/rust
    mkdir old
    pivot_root . old
    umount -l /old
    rmdir /old
    cd /root
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
if ! command -v debootstrap >/dev/null 2>&1; then
    echo "installing: debootstrap" >&2
    apt-get -q update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends debootstrap >/dev/null ||
        fail "debootstrap is missing and could not be installed" "install the package debootstrap"
fi

# The archives that this machine uses for that suite; nothing else of its packages is known inside.
archives=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    grep "^deb [^ ]* $suite" | sort -u)
mirror=$(printf '%s\n' "$archives" | awk -v s="$suite" '$3 == s && $4 == "main" { print $2; exit }')
[ -n "$mirror" ] || fail "this machine's apt knows no archive for $suite" "add one to /etc/apt/sources.list, or name another SUITE"

[ ! -e "$root" ] || [ -e "$root.ours" ] || fail "$root exists and was not made by this" "name another place with CLEAN_ROOT"
: >"$root.ours"
rm -rf --one-file-system "$root"
[ -n "${KEEP:-}" ] || trap 'rm -rf --one-file-system "$root" "$root.ours" "$root.log"' EXIT
echo "clean root: debootstrap $suite"
debootstrap --variant=minbase --include=git,make "$suite" "$root" "$mirror" >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    fail "debootstrap could not make $root" "see $root.log (run again with KEEP=1)"
}

# How this machine reaches the network: archives, proxies, names, certificates, cargo's settings. No passwords.
printf '%s\n' "$archives" >"$root/etc/apt/sources.list"
apt-config dump | grep '^Acquire::' >"$root/etc/apt/apt.conf.d/90machine" || :
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
for certificates in /etc/ssl/certs/ca-certificates.crt /usr/local/share/ca-certificates; do
    [ -e "$certificates" ] || continue
    mkdir -p "$root$(dirname "$certificates")"
    cp -RL "$certificates" "$root$(dirname "$certificates")/"
done
mkdir -p "$root/root/.cargo"
for settings in config.toml config; do
    [ ! -f "${CARGO_HOME:-$HOME/.cargo}/$settings" ] || cp "${CARGO_HOME:-$HOME/.cargo}/$settings" "$root/root/.cargo/"
done
network=$(env | grep -E -o '^(https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY|all_proxy|ALL_PROXY|SSL_CERT_FILE|CARGO_(HTTP|NET)_[A-Z_]+)=' | tr -d =) || :
git bundle create -q "$root/root/potluck.bundle" HEAD

set -- sh "$PWD/tests/clean-root.sh" --inside "$root" "$rust" "$@"
for name in $network; do
    eval "set -- \"\$name=\$$name\" \"\$@\""
done
rc=0
# Its own pid namespace: nothing that a command started outlives this.
unshare --mount --pid --fork --kill-child --ipc --uts env -i HOME=/root PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@" || rc=$?
exit $rc
