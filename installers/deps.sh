#!/bin/sh
# Installs what building, testing and the demo need from the system, and nothing that is already there.
# Quiet when nothing is missing.
#
#   deps.sh [build|tests|desktop|package]...    default: build tests
set -eu

# program or file that must exist : Debian package that has it
build='gcc:gcc make:make /usr/include/stdio.h:libc6-dev'
tests='g++:g++ clang:clang ip:iproute2 mkfs.ext4:e2fsprogs nsenter:util-linux setpriv:util-linux cmake:cmake tclsh:tcl perl:perl
    dpkg-source:dpkg-dev patch:patch xz:xz-utils dbus-daemon:dbus-daemon /usr/include/zlib.h:zlib1g-dev /usr/include/boost/version.hpp:libboost-dev
    /etc/ssl/certs/ca-certificates.crt:ca-certificates
    /usr/lib/python3/dist-packages/dbusmock/__init__.py:python3-dbusmock
    gnome-keyring-daemon:gnome-keyring dbus-run-session:dbus-daemon secret-tool:libsecret-tools'
# What the tray app and the window are built of and tested with.
desktop='/usr/include/webkitgtk-4.1/webkit2/webkit2.h:libwebkit2gtk-4.1-dev
    /usr/include/libayatana-appindicator3-0.1/libayatana-appindicator/app-indicator.h:libayatana-appindicator3-dev
    /usr/include/librsvg-2.0/librsvg/rsvg.h:librsvg2-dev /usr/include/dbus-1.0/dbus/dbus.h:libdbus-1-dev
    /usr/include/X11/extensions/scrnsaver.h:libxss-dev Xvfb:xvfb dbus-daemon:dbus-daemon dbus-launch:dbus-x11
    xwininfo:x11-utils xdotool:xdotool import:imagemagick rsvg-convert:librsvg2-bin npm:npm chromium:chromium debootstrap:debootstrap
    /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf:fonts-noto-color-emoji'
package='dpkg-deb:dpkg dpkg-shlibdeps:dpkg-dev strip:binutils'
[ $# -gt 0 ] || set -- build tests

wanted=
for word in "$@"; do
    case $word in
    build) wanted="$wanted $build" ;;
    tests) wanted="$wanted $tests" ;;
    desktop) wanted="$wanted $desktop" ;;
    package) wanted="$wanted $package" ;;
    *)
        echo "error: $word: nothing is known of that" >&2
        echo "hint: build, tests, desktop or package" >&2
        exit 2
        ;;
    esac
done

missing=
for pair in $wanted; do
    thing=${pair%%:*} package=${pair#*:}
    case $thing in
    /*) [ -e "$thing" ] && continue ;;
    *) command -v "$thing" >/dev/null 2>&1 && continue
       # sbin is not on every user's PATH.
       [ -x "/usr/sbin/$thing" ] || [ -x "/sbin/$thing" ] && continue ;;
    esac
    case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
done

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "error: missing on this system (Debian's names):$missing" >&2
        echo "hint: install the packages that hold them, then run this again" >&2
        exit 1
    fi
    as_root=
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            echo "error: missing packages, and no sudo to install them:$missing" >&2
            echo "hint: as root: apt-get install$missing" >&2
            exit 1
        fi
        as_root=sudo
    fi
    echo "installing:$missing" >&2
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    # shellcheck disable=SC2086 # one word for each package
    if ! { $as_root apt-get -q update && $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $missing; } >"$log" 2>&1; then
        cat "$log" >&2
        echo "error: apt-get could not install:$missing" >&2
        exit 1
    fi
fi

# Nodes of tests and demos are ordinary users, whom udev's rules let use FUSE on a desktop. Without udev it is root's alone.
case " $* " in
*' tests '*)
    if [ "$(id -u)" = 0 ] && [ -c /dev/fuse ]; then
        chmod 666 /dev/fuse
    fi
    ;;
esac

if ! command -v cargo >/dev/null 2>&1; then
    echo "error: no cargo: Potluck is written in Rust" >&2
    echo "hint: install the Rust toolchain as https://rustup.rs describes, then run this again" >&2
    exit 1
fi
