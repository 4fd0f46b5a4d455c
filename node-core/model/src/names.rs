//! One rule for every name that comes from somewhere else: of teams, of PCs, of builds, whoever says it and wherever it
//! is shown. What could turn a line around, hide in it, or grow out of it has no place in a name.

/// Combining marks on one letter: Vietnamese, Hebrew and Thai need up to three; heaps of them cover other lines.
const MARKS_MAX: usize = 3;

/// What a name shows that has nothing to show.
const NOTHING: &str = "?";

/// Characters without a look of their own that steer text or only look like nothing: Unicode's format characters (Cf),
/// the line and paragraph separators, and the blanks that count as letters or symbols.
const HIDDEN: &[(u32, u32)] = &[
    (0xad, 0xad),
    (0x34f, 0x34f),
    (0x600, 0x605),
    (0x61c, 0x61c),
    (0x6dd, 0x6dd),
    (0x70f, 0x70f),
    (0x890, 0x891),
    (0x8e2, 0x8e2),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x206f),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0x110bd, 0x110bd),
    (0x110cd, 0x110cd),
    (0x13430, 0x1343f),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0000, 0xe0fff),
];

/// Combining marks that stack above and below letters, of the scripts whose fonts let them.
const MARKS: &[(u32, u32)] = &[
    (0x300, 0x36f),
    (0x483, 0x489),
    (0x591, 0x5bd),
    (0x5bf, 0x5c7),
    (0x610, 0x61a),
    (0x64b, 0x65f),
    (0x670, 0x670),
    (0x6d6, 0x6ed),
    (0x730, 0x74a),
    (0x816, 0x82d),
    (0x8d3, 0x902),
    (0xe31, 0xe31),
    (0xe34, 0xe3a),
    (0xe47, 0xe4e),
    (0xeb1, 0xebc),
    (0xec8, 0xece),
    (0xf18, 0xf19),
    (0xf35, 0xf39),
    (0xf71, 0xf87),
    (0x1ab0, 0x1aff),
    (0x1dc0, 0x1dff),
    (0x20d0, 0x20ff),
    (0x302a, 0x302f),
    (0x3099, 0x309a),
    (0xa66f, 0xa67d),
    (0xfe00, 0xfe0f),
    (0xfe20, 0xfe2f),
];

fn is_in(ranges: &[(u32, u32)], c: char) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&(c as u32)))
}

/// Whether a character has no place in a name.
fn is_hidden(c: char) -> bool {
    // The last two of each plane are no characters, and private ones look different everywhere.
    let is_none = (c as u32) & 0xfffe == 0xfffe || matches!(c as u32, 0xe000..=0xf8ff | 0xf_0000..);
    c.is_control() || (c.is_whitespace() && c != ' ') || is_none || is_in(HIDDEN, c)
}

/// What of a text may be shown in one line, within `bytes_max`; never cut inside a character. Nothing, perhaps.
pub fn cleaned(text: &str, bytes_max: usize) -> String {
    let mut out = String::new();
    // A mark needs a letter to stand on.
    let mut marks = MARKS_MAX;
    for c in text.chars().filter(|c| !is_hidden(*c)) {
        if is_in(MARKS, c) {
            marks += 1;
            if marks > MARKS_MAX {
                continue;
            }
        } else {
            marks = if c == ' ' { MARKS_MAX } else { 0 };
        }
        if out.len() + c.len_utf8() > bytes_max {
            break;
        }
        out.push(c);
    }
    out
}

/// Whether a name is taken as it is: it can be shown in one line, and nothing of it would be left out.
pub fn is_plain(name: &str, bytes_max: usize) -> bool {
    !name.trim().is_empty() && name.len() <= bytes_max && cleaned(name, bytes_max) == name
}

/// A name from anywhere as it may be shown, at most `bytes_max` long; "?" if nothing of it can be.
pub fn shown(name: &str, bytes_max: usize) -> String {
    let shown = cleaned(name, bytes_max);
    if shown.trim().is_empty() { NOTHING.to_owned() } else { shown }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_all_countries_are_names() {
        for name in
            ["pc", "Käthe's PC", "Nguyễn", "Nguye\u{302}\u{303}n", "קומפיוטר", "ป้าปุ้", "工作站-3", "🖥 büro", "a b"]
        {
            assert!(is_plain(name, 64), "{name:?}");
            assert_eq!(shown(name, 64), name);
        }
    }

    #[test]
    fn what_turns_hides_or_heaps_is_no_name_and_is_not_shown() {
        let hidden = ['\u{202e}', '\u{2066}', '\u{200b}', '\u{200d}', '\u{feff}', '\u{ad}', '\u{2028}', '\u{2029}'];
        let more =
            ['\u{7}', '\u{1b}', '\n', '\u{9b}', '\u{a0}', '\u{2003}', '\u{3164}', '\u{e0041}', '\u{ffff}', '\u{e000}'];
        for c in hidden.into_iter().chain(more) {
            let name = format!("pc{c}1");
            assert!(!is_plain(&name, 64), "{:x}", c as u32);
            assert_eq!(shown(&name, 64), "pc1");
        }
        let heap = format!("a{}", "\u{301}".repeat(20));
        assert!(!is_plain(&heap, 64));
        assert_eq!(shown(&heap, 64).chars().count(), 1 + MARKS_MAX);
        assert!(!is_plain("\u{301}a", 64), "a mark on nothing");
        for nothing in ["", "   ", "\u{202e}", "\u{301}"] {
            assert!(!is_plain(nothing, 64));
            assert_eq!(shown(nothing, 64), "?");
        }
        assert_eq!(shown("äää", 5), "ää", "never half a character");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_a_name(text in any::<String>(), max in 1usize..80) {
            let shown = shown(&text, max);
            prop_assert!(is_plain(&shown, max), "{shown:?}");
        }
    }
}
