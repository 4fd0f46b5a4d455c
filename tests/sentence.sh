#!/bin/sh
# PCs for `make sentence`: a Debian root with a desktop's programs, kept for the next run, and the way into a copy of it.
#
#   sentence.sh base                        makes the root if there is none; its path on stdout
#   sentence.sh enter BASE FOLDER NAME      a PC of its own from then on, as the first process of new namespaces: what it
#                                           writes is in FOLDER. Ends in "exec FOLDER/first"
#
# SUITE (bookworm). Needs root.
set -eu

. "$(dirname "$0")/root.sh"
suite=${SUITE:-bookworm}
base=/var/tmp/potluck-sentence-base-$suite

case ${1:-} in
base)
    if [ ! -e "$base.done" ]; then
        [ ! -e "$base" ] || [ -e "$base.ours" ] || fail "$base exists and was not made by this" "move it away"
        : >"$base.ours"
        rm -rf --one-file-system "$base"
        bare=/var/tmp/potluck-package-base-$suite.tar
        if [ -e "$bare" ]; then
            mkdir "$base"
            tar -C "$base" -xf "$bare"
        else
            make_root "$suite" "$base" ca-certificates "$base.log"
        fi
        connect_root "$base"
        set -- sh "$0" fill "$base"
        for name in $(network_variables); do
            eval "set -- \"\$name=\$$name\" \"\$@\""
        done
        unshare --mount --pid --fork --kill-child --ipc --uts env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            LANG=C.UTF-8 "$@" >"$base.log" 2>&1 || {
            tail -n 20 "$base.log" >&2
            fail "the programs of a desktop cannot be installed into $base" "see $base.log"
        }
        : >"$base.done"
    fi
    echo "$base"
    ;;
fill)
    mount_root "$2"
    pivot_into_root
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    # The driver brings WebKit along, which is most of what the tray app needs.
    apt-get -q -y --no-install-recommends install xvfb xdotool dbus dbus-x11 gnome-keyring libsecret-tools webkit2gtk-driver \
        fonts-dejavu-core gcc g++ make libc6-dev
    # The rest is fetched, so that the packages install without a network.
    apt-get -q -y --no-install-recommends -d install libayatana-appindicator3-1 libxss1
    ;;
enter)
    base=$2 folder=$3
    hostname "$4"
    mkdir -p "$folder/upper" "$folder/work" "$folder/root" "$folder/home"
    mount --make-rprivate /
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
    cp "$folder/first" "$folder/root/usr/local/bin/pc-desktop"
    echo "$4" >"$folder/root/etc/hostname"
    mount_root "$folder/root"
    # Sandboxes put layers over what is at home, and an overlay's upper layer cannot lie on an overlay.
    mount --bind "$folder/home" home
    mount -t tmpfs -o mode=1777 tmp tmp
    mount -t tmpfs -o mode=755 run run
    pivot_into_root
    exec /usr/local/bin/pc-desktop first
    ;;
*) fail "${1:-nothing}: base or enter is expected" "see the head of $0" ;;
esac
