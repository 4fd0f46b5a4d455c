#!/bin/sh
# Renders every icon from potluck.svg. The results are committed, so that building needs no renderer.
# `render.sh --check` renders into a scratch folder and fails if a committed one looks different.
set -eu
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
states='off ready helping building attention'
# Of the app icon: what hicolor themes and .deb desktop entries ask for.
app_sizes='16 22 24 32 48 64 128 256 512'
# Of panels: GNOME 16 to 24 at scale 1, KDE 22, the same at scale 2.
tray_sizes='22 24 32 44'
# Glyphs on a light and on a dark panel (text colours of the window).
light=#14181f dark=#ecf0f5

command -v rsvg-convert >/dev/null 2>&1 || {
    echo 'error: no rsvg-convert' >&2
    echo 'hint: apt-get install librsvg2-bin' >&2
    exit 1
}

# One group of the source as an image of its own: ID COLOUR
group() {
    printf '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" width="16" height="16" color="%s">\n' "$2"
    sed -n "/<g id=\"$1\">/,/^<\/g>/p" "$here/potluck.svg" | sed "1d;\$d"
    printf '</svg>\n'
}

# Into the folder $1.
render() {
    mkdir -p "$1/app" "$1/tray" "$1/symbolic"
    group app '#000000' >"$1/app/potluck.svg"
    for size in $app_sizes; do
        rsvg-convert -w "$size" -h "$size" -o "$1/app/$size.png" "$1/app/potluck.svg"
    done
    for state in $states; do
        # Desktops that recolour set the fill themselves; the others show the colour of most of them.
        group "$state" '#2e3436' | sed 's/currentColor/#2e3436/g' >"$1/symbolic/potluck-$state-symbolic.svg"
        for panel in light dark; do
            eval "colour=\$$panel"
            for size in $tray_sizes; do
                group "$state" "$colour" | rsvg-convert -w "$size" -h "$size" -o "$1/tray/$state-$panel-$size.png"
            done
        done
    done
}

if [ "${1:-}" != --check ]; then
    render "$here"
    exit 0
fi

command -v compare >/dev/null 2>&1 || {
    echo 'error: no compare' >&2
    echo 'hint: apt-get install imagemagick' >&2
    exit 1
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
render "$scratch"
wrong=0
for new in $(cd "$scratch" && find . -type f | sort); do
    case $new in
    # Bytes depend on the renderer's version, pixels do not: at most one in a hundred may differ by rounding.
    *.png)
        pixels=$(identify -format '%[fx:w*h]' "$scratch/$new")
        differing=$(compare -metric AE -fuzz 3% "$scratch/$new" "$here/$new" null: 2>&1) || true
        case $differing in
        '' | *[!0-9]*) same=false ;;
        *) if [ $((differing * 100)) -le "$pixels" ]; then same=true; else same=false; fi ;;
        esac
        ;;
    *) if cmp -s "$scratch/$new" "$here/$new"; then same=true; else same=false; fi ;;
    esac
    if ! $same; then
        echo "error: icons/${new#./} is not what potluck.svg says" >&2
        wrong=1
    fi
done
[ $wrong = 0 ] || echo 'hint: icons/render.sh' >&2
exit $wrong
