# A clean Debian root, entered by pivot_root in namespaces of its own, because sandboxes refuse to start inside a chroot.
# Read by the scripts that need one (clean-root.sh, check-package.sh); needs root.

fail() {
    echo "error: $1" >&2
    echo "hint: $2" >&2
    exit 1
}

# make_root SUITE FOLDER PACKAGES LOG: with the archives that this machine uses for that suite; nothing else of its
# packages is known inside.
make_root() {
    if ! command -v debootstrap >/dev/null 2>&1; then
        echo "installing: debootstrap" >&2
        apt-get -q update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends debootstrap >/dev/null ||
            fail "debootstrap is missing and could not be installed" "install the package debootstrap"
    fi
    archives=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        grep "^deb [^ ]* $1" | sort -u)
    mirror=$(printf '%s\n' "$archives" | awk -v s="$1" '$3 == s && $4 == "main" { print $2; exit }')
    if [ -z "$mirror" ]; then
        # A release that this machine does not run: an archive has all of them.
        mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' | awk '$2 == "main" { print $1; exit }')
        archives="deb $mirror $1 main"
    fi
    [ -n "$mirror" ] || fail "this machine's apt knows no archive for $1" "add one to /etc/apt/sources.list, or name another SUITE"
    debootstrap --variant=minbase --include="$3" "$1" "$2" "$mirror" >"$4" 2>&1 || {
        tail -n 20 "$4" >&2
        fail "debootstrap could not make $2" "see $4 (run again with KEEP=1)"
    }
    printf '%s\n' "$archives" >"$2/etc/apt/sources.list"
}

# connect_root FOLDER: how this machine reaches the network: proxies, names, certificates. No passwords.
connect_root() {
    apt-config dump | grep '^Acquire::' >"$1/etc/apt/apt.conf.d/90machine" || :
    cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
    for certificates in /etc/ssl/certs/ca-certificates.crt /usr/local/share/ca-certificates; do
        [ -e "$certificates" ] || continue
        mkdir -p "$1$(dirname "$certificates")"
        cp -RL "$certificates" "$1$(dirname "$certificates")/"
    done
}

# Names of the variables that say the same.
network_variables() {
    env | grep -E -o '^(https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY|all_proxy|ALL_PROXY|SSL_CERT_FILE|CARGO_(HTTP|NET)_[A-Z_]+)=' | tr -d = || :
}

# Inside the new namespaces: mount_root FOLDER, then whatever else is to be bound below ".", then pivot_into_root.
mount_root() {
    mount --make-rprivate /
    mount --bind "$1" "$1"
    cd "$1"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs -o mode=755 dev dev
    mkdir dev/pts dev/shm
    for device in null zero full random urandom tty fuse; do
        [ -e "/dev/$device" ] || continue
        : >"dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    mount -t tmpfs -o mode=1777 shm dev/shm
}

pivot_into_root() {
    mkdir old
    pivot_root . old
    umount -l /old
    rmdir /old
    cd /root
}
