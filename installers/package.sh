#!/bin/sh
# Builds the Debian packages from programs that are built already: potluck-node (no window) and potluck (the tray app).
# Nothing is downloaded. The same programs give the same packages, to the last byte.
#
#   package.sh [--only node|desktop] [FOLDER]     default: both, into packages/ of the target folder
#
# BUILT: the folder of the programs, default release/ of the target folder.
# VERSION, REVISION, ARCH, STRIP: for other versions and machines. DEBFULLNAME, DEBEMAIL: who answers for the packages.
set -eu

cd "$(dirname "$0")/.."
fail() {
    echo "error: $1" >&2
    echo "hint: $2" >&2
    exit 1
}

only=both
if [ "${1:-}" = --only ]; then
    only=${2:-}
    shift 2
fi
case $only in both | node | desktop) ;; *) fail "--only $only: node or desktop is expected" "see the head of $0" ;; esac
target=${CARGO_TARGET_DIR:-target}
built=${BUILT:-$target/release}
out=${1:-$target/packages}
for tool in dpkg-deb dpkg-shlibdeps "${STRIP:-strip}" gzip; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing" "apt-get install dpkg-dev binutils gzip"
done

version=${VERSION:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)}-${REVISION:-1}
arch=${ARCH:-$(dpkg --print-architecture)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC DPKG_DEB_THREADS_MAX=1
maintainer="${DEBFULLNAME:-The Potluck authors} <${DEBEMAIL:-potluck@example.org}>"
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

need() {
    [ -e "$1" ] || fail "$1 is missing" "$2"
}

# put MODE FILE PLACE: below the root of the package that is being built.
put() {
    install -D -m "$1" "$2" "$root/$3"
}

# program FILE PLACE: without debug symbols, and remembered for its dependencies.
program() {
    put 755 "$1" "$2"
    "${STRIP:-strip}" --strip-all --remove-section=.comment --remove-section=.note "$root/$2"
    programs="$programs $root/$2"
}

compressed() {
    mkdir -p "$(dirname "$root/$1")"
    gzip -9n >"$root/$1"
    chmod 644 "$root/$1"
}

# Crates that are built into the programs: name, version, licence. $1: packages as cargo wants them.
crates() {
    # shellcheck disable=SC2086 # several options
    cargo tree --locked --offline --edges normal,no-proc-macro --prefix none $1 --format '{p}|{l}' |
        sed -n 's/^\([^ ]*\) v\([^ |]*\)\( (\*)\)\{0,1\}|\(.*\)$/\1|\2|\4/p' | sed 's/ (\*)$//' | grep -v '^potluck-' | sort -u
}

# documents PACKAGE CRATES: who owns what, and what has changed.
documents() {
    doc=usr/share/doc/$1
    crates "$2" >"$work/crates"
    [ -s "$work/crates" ] || fail "cargo does not say what $1 is made of" "run cargo build in this folder first"
    {
        echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
        echo "Upstream-Name: potluck"
        echo "Comment:"
        echo " The programs contain these Rust libraries, each under the licence that is named beside it. Their own words are"
        echo " in /usr/share/doc/$1/libraries.txt.gz."
        echo " ."
        sed 's/^\(.*\)|\(.*\)|\(.*\)$/  \1 \2: \3/' "$work/crates"
        printf '\nFiles: *\nCopyright: %s\nLicense: Expat or Apache-2.0\n\n' "$(sed -n 's/^Copyright (c) //p' LICENSE)"
        printf 'License: Expat\n'
        sed -n '/^Permission is hereby/,$p' LICENSE | sed 's/^$/./; s/^/ /'
        printf '\nLicense: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n'
    } >"$work/copyright"
    put 644 "$work/copyright" "$doc/copyright"
    # Each text once, with everything that it stands beside.
    mkdir -p "$work/texts"
    while IFS='|' read -r name number _; do
        for file in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$name-$number"/[LCN][IO][CTP]*; do
            [ -f "$file" ] || continue
            sum=$(cksum <"$file" | tr ' ' -)
            echo "$name $number" >>"$work/texts/$sum.names"
            cp "$file" "$work/texts/$sum.text"
        done
    done <"$work/crates"
    for text in "$work"/texts/*.text; do
        [ -e "$text" ] || continue
        sort -u "${text%.text}.names"
        echo
        cat "$text"
        printf '\n%s\n\n' ----------------------------------------------------------------------
    done | compressed "$doc/libraries.txt.gz"
    rm -rf "$work/texts"
    compressed "$doc/changelog.gz" <CHANGELOG.md
    printf 'potluck (%s) unstable; urgency=medium\n\n  * Built from the sources of this version: see changelog.gz.\n\n -- %s  %s\n' \
        "$version" "$maintainer" "$(date -R -d "@$SOURCE_DATE_EPOCH")" | compressed "$doc/changelog.Debian.gz"
}

# What the programs link, as Debian names it: "libc6 (>= 2.36), libgcc-s1 (>= 3.4)".
libraries() {
    mkdir -p "$work/shlibs/debian"
    printf 'Source: potluck\n\nPackage: %s\nArchitecture: any\n' "$1" >"$work/shlibs/debian/control"
    # shellcheck disable=SC2086 # several programs
    (cd "$work/shlibs" && dpkg-shlibdeps -O --ignore-missing-info ${programs} 2>"$work/shlibs.log") |
        sed -n 's/^shlibs:Depends=//p' >"$work/depends"
    [ -s "$work/depends" ] || {
        cat "$work/shlibs.log" >&2
        fail "what $1 depends on is not known" "dpkg-shlibdeps says why above"
    }
    cat "$work/depends"
}

# pack PACKAGE FIELDS: the rest of the control file is on stdin.
pack() {
    mkdir -p "$root/DEBIAN"
    {
        printf 'Package: %s\nSource: potluck\nVersion: %s\nArchitecture: %s\nMaintainer: %s\n' "$1" "$version" "$arch" "$maintainer"
        printf 'Installed-Size: %s\n' "$(find "$root" -path "$root/DEBIAN" -prune -o -type f -printf '%s\n' | awk '{ k += int(($1 + 1023) / 1024) } END { print k }')"
        cat
    } >"$root/DEBIAN/control"
    (cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\n' | sort | xargs md5sum) >"$root/DEBIAN/md5sums"
    (cd "$root" && find etc -type f -printf '/%p\n' 2>/dev/null | sort) >"$work/conffiles"
    [ ! -s "$work/conffiles" ] || cp "$work/conffiles" "$root/DEBIAN/conffiles"
    chmod 644 "$root/DEBIAN/control" "$root/DEBIAN/md5sums"
    find "$root" -type d -exec chmod 755 {} +
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    mkdir -p "$out"
    dpkg-deb --root-owner-group -Zxz --build "$root" "$out/$1_${version}_$arch.deb" >/dev/null
    echo "$out/$1_${version}_$arch.deb"
}

node_package() {
    root=$work/node programs=
    for file in potluck potluck-node potluck-runner; do
        need "$built/$file" "make build"
    done
    program "$built/potluck" usr/bin/potluck
    program "$built/potluck-node" usr/bin/potluck-node
    program "$built/potluck-runner" usr/lib/potluck/potluck-runner
    mkdir -p "$root/usr/lib/potluck/bin"
    "$built/potluck-node" man | compressed usr/share/man/man1/potluck.1.gz
    echo '.so man1/potluck.1' | compressed usr/share/man/man1/potluck-node.1.gz
    for place in bash:bash-completion/completions/potluck zsh:zsh/vendor-completions/_potluck fish:fish/vendor_completions.d/potluck.fish; do
        "$built/potluck-node" completions "${place%%:*}" >"$work/completion"
        put 644 "$work/completion" "usr/share/${place#*:}"
    done
    put 644 installers/debian/potluck.service usr/lib/systemd/user/potluck.service
    put 644 installers/debian/apparmor usr/share/potluck/apparmor/potluck-runner
    # The page that a node shows in a browser; the tray app has its own in its program.
    if [ -e ui/dist/index.html ]; then
        (cd ui/dist && find . -type f -printf '%P\n' | sort) >"$work/ui"
        while read -r file; do
            put 644 "ui/dist/$file" "usr/share/potluck/ui/$file"
        done <"$work/ui"
    else
        echo "note: no ui/dist, so that potluck-node comes without the window for browsers (npm ci && npm run build, in ui)" >&2
    fi
    put 644 installers/debian/overrides.node usr/share/lintian/overrides/potluck-node
    documents potluck-node "-p potluck-node -p potluck-runner -p potluck-wrapper"
    for script in postinst prerm postrm; do
        put 755 "installers/debian/$script" "DEBIAN/$script"
    done
    put 644 installers/debian/triggers DEBIAN/triggers
    depends=$(libraries potluck-node)
    pack potluck-node <<END
Section: devel
Priority: optional
Depends: $depends
Suggests: potluck, gcc | clang
Description: compile C and C++ on the PCs of a team (node and commands)
 Potluck turns the PCs of an office into one pool that compiles C and C++:
 no scheduler machine, no host lists, no root daemon. A compile that ran on
 another PC gives the same files and the same messages as one that ran here.
 .
 This package has the compiler wrapper, the node for machines without a
 desktop, and the management commands. Other people's compiles run in a
 sandbox, as an ordinary user.
END
}

desktop_package() {
    root=$work/desktop programs=
    need "$built/potluck-tray" "build the tray app (cargo build --release -p potluck-tray), or make the other package alone: $0 --only node"
    need icons/app/256.png "icons/render.sh makes the icons"
    program "$built/potluck-tray" usr/bin/potluck-tray
    put 644 installers/debian/potluck.desktop usr/share/applications/potluck.desktop
    for icon in icons/app/*.png; do
        size=$(basename "$icon" .png)
        put 644 "$icon" "usr/share/icons/hicolor/${size}x$size/apps/potluck.png"
    done
    put 644 icons/potluck.svg usr/share/icons/hicolor/scalable/apps/potluck.svg
    for icon in icons/symbolic/*.svg; do
        [ ! -e "$icon" ] || put 644 "$icon" "usr/share/icons/hicolor/symbolic/apps/$(basename "$icon")"
    done
    put 644 installers/debian/overrides.desktop usr/share/lintian/overrides/potluck
    echo '.so man1/potluck.1' | compressed usr/share/man/man1/potluck-tray.1.gz
    documents potluck "-p potluck-tray"
    # The tray library is opened at run time: no program names it. The check pictures are shown with their words; without a
    # font of pictures some of them are empty boxes.
    depends="$(libraries potluck), libayatana-appindicator3-1, potluck-node (= $version)"
    pack potluck <<END
Section: devel
Priority: optional
Depends: $depends
Recommends: fonts-noto-color-emoji
Suggests: gnome-shell-extension-appindicator, gnome-keyring
Description: share the cores you are not using (tray app)
 Potluck turns the PCs of an office into one pool that compiles C and C++.
 This is the desktop app: it lends cores to the team while nobody needs them,
 gives them back at the first key press, and shows what runs where.
 .
 It starts when it is opened, and at login once sharing has been switched on.
END
}

[ "$only" = desktop ] || node_package
[ "$only" = node ] || desktop_package
