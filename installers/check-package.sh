#!/bin/sh
# Installs the packages in a clean Debian root as a person would, uses them as an ordinary user, removes them, and looks
# for what is left. Ends with one line that sums up, and fails when something is missed. Needs root.
#
#   check-package.sh [FOLDER]     default: packages/ of the target folder
#
# SUITE (bookworm), BASE (a tarball of the bare root, kept for the next run), KEEP=1 (leave the root there).
set -eu

. "$(dirname "$0")/../tests/root.sh"
suite=${SUITE:-bookworm}
base=${BASE:-/var/tmp/potluck-package-base-$suite.tar}
root=/var/tmp/potluck-package-root

checks=0 missed=0
# check WHAT COMMAND...: one line when it fails, with the end of what it said.
check() {
    what=$1
    shift
    checks=$((checks + 1))
    # Not "command || ...": in its steps `set -e` would then mean nothing.
    set +e
    (
        set -e
        "$@"
    ) >/tmp/check.out 2>&1
    rc=$?
    set -e
    [ $rc = 0 ] || {
        missed=$((missed + 1))
        echo "missed: $what"
        tail -n 8 /tmp/check.out | sed 's/^/    /'
    }
}

quietly() {
    "$@" >/tmp/quiet.out 2>&1 || echo "exit code $?" >>/tmp/quiet.out
    cat /tmp/quiet.out
    [ ! -s /tmp/quiet.out ]
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends "$@"
}

# As an ordinary user with a runtime folder of its own.
user() {
    setpriv --reuid 1500 --regid 1500 --clear-groups env -i HOME=/home/tester USER=tester XDG_RUNTIME_DIR=/run/user/1500 \
        PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 "$@"
}

# Everything on disk that can be a package's, but for what the system itself keeps about packages.
everything() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /run -o -path /home -o -path /root \
        -o -path /var/cache -o -path /var/log -o -path /var/lib/apt -o -path /var/lib/dpkg \) -prune -o -print | sort
}

# left_behind LIST: what is there now, was not before, and is in no package (links of alternatives are the system's).
left_behind() {
    everything >/tmp/now
    cat /var/lib/dpkg/info/*.list | sort -u >/tmp/owned
    comm -13 "$1" /tmp/now | comm -23 - /tmp/owned | while read -r path; do
        case $path in /etc/alternatives/* | /etc/ld.so.cache) continue ;; esac
        case $(readlink "$path" || :) in /etc/alternatives/*) continue ;; esac
        # Merged /usr: packages name some files below /lib.
        grep -q -x -F "${path#/usr}" /tmp/owned || echo "$path"
    done >/tmp/left
    cat /tmp/left
    [ ! -s /tmp/left ]
}

no_such_name() {
    find / -xdev \( -path /home -o -path /root -o -path /tmp -o -path /proc -o -path /var/cache/man \) -prune -o -iname '*potluck*' -print >/tmp/names
    cat /tmp/names
    [ ! -s /tmp/names ]
}

# A package with one program, to see compilers come and go.
stub_compiler() {
    mkdir -p /tmp/stub/usr/bin /tmp/stub/DEBIAN
    printf '#!/bin/sh\n' >/tmp/stub/usr/bin/avr-gcc
    chmod 755 /tmp/stub/usr/bin/avr-gcc
    printf 'Package: stub-compiler\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: stub\n' >/tmp/stub/DEBIAN/control
    dpkg-deb --root-owner-group --build /tmp/stub /tmp/stub.deb >/dev/null
}

leads_to_potluck() {
    [ "$(readlink "/usr/lib/potluck/bin/$1")" = /usr/bin/potluck ]
}

man_page() {
    man "$1" 2>&1 | col -b >/tmp/page
    for word in POTLUCK_DISABLE 'EXIT STATUS' '--serve' 'potluck team join'; do
        grep -q -e "$word" /tmp/page || { echo "$1(1) does not say $word"; return 1; }
    done
}

# What bash offers after the words that were typed.
bash_completes() {
    bash -c '. /usr/share/bash-completion/bash_completion; . /usr/share/bash-completion/completions/potluck
        COMP_WORDS=(potluck team inv) COMP_CWORD=2; _potluck potluck inv team; printf "%s\n" "${COMPREPLY[@]}"' | grep -q -x invite
}

# Ends when the node says that it is ready, or ends. In /tmp/serving: "serves", or why it does not.
node_is_ready() {
    grep -q -m1 ready </tmp/ready || { cat /tmp/node.err; return 1; }
    sed -n 's/^potluck: not serving: //p' /tmp/node.err >/tmp/serving
    [ -s /tmp/serving ] || echo serves >/tmp/serving
}

sandbox_or_why() {
    user potluck doctor >/tmp/doctor || :
    grep -q -i sandbox /tmp/doctor || { cat /tmp/doctor; return 1; }
    user /usr/lib/potluck/potluck-runner selftest || [ "$(cat /tmp/serving)" != serves ]
}

# Three ways to the same compiler: one object, one set of messages, and the node knows of two of them.
compiles_alike() {
    cd /home/tester
    printf '#include <stdio.h>\nint main(void) { int unused; puts(__FILE__); return 0; }\n' >a.c
    user gcc -Wall -g -c a.c -o plain.o 2>plain.err
    user potluck gcc -Wall -g -c a.c -o prefix.o 2>prefix.err
    user env PATH=/usr/lib/potluck/bin:/usr/bin:/bin gcc -Wall -g -c a.c -o link.o 2>link.err
    grep -q unused plain.err
    for way in prefix link; do
        cmp plain.err $way.err
        # The command line is in the debug information, the output's name is not.
        cmp plain.o $way.o
    done
    user potluck log --json -n 2 | grep -c a.c | grep -q -x 2
}

unit() {
    user systemd-analyze --user --man=no verify /usr/lib/systemd/user/potluck.service
}

# Inside: the checks themselves.
if [ "${1:-}" = --inside ]; then
    mount_root "$2"
    pivot_into_root
    mount -t tmpfs -o mode=1777 tmp /tmp
    mount -t tmpfs -o mode=755 run /run
    groupadd -g 1500 tester && useradd -u 1500 -g 1500 -m tester
    mkdir /run/user
    install -d -m 700 -o 1500 -g 1500 /run/user/1500
    node_package=$(echo /root/potluck-node_*.deb)
    everything >/tmp/before
    check "the package potluck-node installs with apt" apt install "$node_package"
    check "potluck --version" user potluck --version
    check "the manual page is there" man_page potluck
    check "that of the node leads to it" man_page potluck-node
    check "bash completes commands" bash_completes
    check "systemd accepts the unit" quietly unit
    check "no compiler, no link" [ -z "$(ls /usr/lib/potluck/bin)" ]
    apt install gcc libc6-dev >/tmp/gcc.out 2>&1 || { tail /tmp/gcc.out; fail "gcc cannot be installed" "delete $base and try again"; }
    for name in gcc cc; do
        check "$name has a link after its package came" leads_to_potluck $name
    done
    stub_compiler
    dpkg -i /tmp/stub.deb >/dev/null 2>&1
    check "a cross compiler has one too" leads_to_potluck avr-gcc
    dpkg -r stub-compiler >/dev/null 2>&1
    check "a link goes with its compiler" [ ! -L /usr/lib/potluck/bin/avr-gcc ]
    for call in "configure 0" "triggered /usr/bin"; do
        # shellcheck disable=SC2086 # two words
        check "the package's script may run again ($call)" quietly sh /var/lib/dpkg/info/potluck-node.postinst $call
    done
    mkfifo /tmp/ready
    user potluck node --headless --serve 2 --listen 127.0.0.1:0 >/tmp/ready 2>/tmp/node.err &
    node=$!
    check "a node starts for an ordinary user" node_is_ready
    check "its sandbox passes, or it says why not" sandbox_or_why
    check "prefix, link and plain compiler agree" compiles_alike
    # The shell would tell of its end.
    { kill "$node" && wait "$node"; } 2>/dev/null || :
    node_state=$(cat /tmp/serving 2>/dev/null || echo "did not start")
    check "installing over itself works" apt install --reinstall "$node_package"
    check "the links survive that" leads_to_potluck gcc
    check "the package potluck-node is removed" apt remove potluck-node
    check "removing leaves nothing but what is somebody's" left_behind /tmp/before
    check "the package potluck-node is purged" apt purge potluck-node
    check "purging leaves nothing" left_behind /tmp/before
    desktop=$(echo /root/potluck_*.deb)
    desktop_state="not built"
    if [ -e "$desktop" ]; then
        desktop_state=checked
        check "both packages install with apt" apt install "$desktop" "$node_package"
        # What their libraries left is not theirs.
        everything >/tmp/before
        check "the tray app starts" user potluck-tray --version
        check "the desktop entry is there" grep -q -x 'Exec=potluck-tray %u' /usr/share/applications/potluck.desktop
        check "invitations open in the app" grep -q -x 'MimeType=x-scheme-handler/pool;' /usr/share/applications/potluck.desktop
        for size in 16 48 256; do
            check "there is an icon of $size pixels" [ -s "/usr/share/icons/hicolor/${size}x$size/apps/potluck.png" ]
        done
        check "the window's page is there" [ -s /usr/share/potluck/ui/index.html ]
        check "nothing starts for people who never opened it" [ ! -e /etc/xdg/autostart/potluck.desktop ]
        check "both are purged" apt purge potluck potluck-node
        check "purging both leaves nothing" left_behind /tmp/before
    fi
    check "no file of that name is left outside homes" no_such_name
    check "what a person has at home stays" [ -e /home/tester/.local/state/potluck/node.log ]
    echo "packages: $checks checks in $(. /etc/os-release && echo "$PRETTY_NAME"), $missed missed; sandbox: $node_state; desktop: $desktop_state"
    [ "$missed" = 0 ]
    exit
fi

cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || fail "making a root of its own needs root" "run it with sudo, or check by hand what you have installed"
packages=${1:-${CARGO_TARGET_DIR:-target}/packages}
ls "$packages"/potluck-node_*.deb >/dev/null 2>&1 || fail "no package in $packages" "installers/package.sh"
[ ! -e "$root" ] || [ -e "$root.ours" ] || fail "$root exists and was not made by this" "move it away"
: >"$root.ours"
rm -rf --one-file-system "$root"
[ -n "${KEEP:-}" ] || trap 'rm -rf --one-file-system "$root" "$root.ours" "$root.log"' EXIT
if [ ! -e "$base" ]; then
    echo "packages: making a bare $suite, kept in $base"
    make_root "$suite" "$root" man-db,bash-completion,bsdextrautils,systemd,ca-certificates "$root.log"
    connect_root "$root"
    # minbase leaves manual pages out in containers only; debootstrap does not.
    chroot "$root" sh -c 'apt-get -q update && apt-get -q -y --no-install-recommends -d install gcc libc6-dev' >>"$root.log" 2>&1 ||
        fail "gcc cannot be fetched into $root" "see $root.log (run again with KEEP=1)"
    tar -C "$root" -cf "$base.new" . && mv "$base.new" "$base"
else
    mkdir "$root"
    tar -C "$root" -xf "$base"
fi
connect_root "$root"
cp "$packages"/potluck*.deb "$root/root/"
set -- sh "$PWD/installers/check-package.sh" --inside "$root"
for name in $(network_variables); do
    eval "set -- \"\$name=\$$name\" \"\$@\""
done
rc=0
# Its own pid namespace: nothing that was started outlives this.
unshare --mount --pid --fork --kill-child --ipc --uts env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@" || rc=$?
exit $rc
