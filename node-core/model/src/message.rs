//! Whether what a worker's compiler is said to have printed may go to a person's terminal: text, colours and links, as
//! compilers print them. Everything else could steer the terminal: move the cursor over what was printed, set its title,
//! fill its clipboard. Decides only; an honest compiler also repeats such bytes from a source, so nobody is blamed.

/// Longest parameters of a colour: `GCC_COLORS` allows several numbers, and no terminal takes more.
const SGR_BYTES_MAX: usize = 64;
/// Longest link: gcc's lead to its manual, and are shorter than 200 bytes.
const LINK_BYTES_MAX: usize = 2048;
const ESC: char = '\u{1b}';

/// Whether `text` is only text, colours (SGR), erasing to the end of the line as gcc does behind a colour, and links (OSC
/// 8) to the web or to files.
pub fn is_harmless(text: &[u8]) -> bool {
    if text.iter().all(|&c| matches!(c, b' '..=b'~' | b'\n' | b'\t')) {
        return true;
    }
    let Ok(mut rest) = std::str::from_utf8(text) else { return false };
    while let Some(c) = rest.chars().next() {
        let len = match c {
            ESC => match sequence(rest) {
                Some(len) => len,
                None => return false,
            },
            '\n' | '\t' => 1,
            _ if c.is_control() || is_invisible(c) => return false,
            _ => c.len_utf8(),
        };
        rest = &rest[len..];
    }
    true
}

/// Characters that change the order of others, or end lines, and show nothing themselves.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

/// Length of the sequence that `rest` begins with, if it is allowed.
fn sequence(rest: &str) -> Option<usize> {
    let after = &rest[1..];
    if let Some(link) = after.strip_prefix("]8;") {
        return link_end(link).map(|end| rest.len() - link.len() + end);
    }
    let parameters = after.strip_prefix('[')?;
    let end = parameters.find(|c: char| !(c.is_ascii_digit() || c == ';' || c == ':'))?;
    let ends_well = match parameters.as_bytes()[end] {
        b'm' => end <= SGR_BYTES_MAX,
        b'K' => end == 0,
        _ => false,
    };
    ends_well.then_some(2 + end + 1)
}

/// `parameters;address` and its terminator: where the sequence ends.
fn link_end(link: &str) -> Option<usize> {
    let end = link.find([ESC, '\u{7}']).filter(|&end| end <= LINK_BYTES_MAX)?;
    let terminator = if link[end..].starts_with('\u{7}') { 1 } else { 2 };
    if terminator == 2 && !link[end..].starts_with("\u{1b}\\") {
        return None;
    }
    let (parameters, address) = link[..end].split_once(';')?;
    let plain = |text: &str| text.bytes().all(|c| c.is_ascii_graphic());
    let known = address.is_empty() || ["http://", "https://", "file://"].iter().any(|s| address.starts_with(s));
    (known && plain(parameters) && plain(address)).then_some(end + terminator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compilers_print_is_shown() {
        for text in [
            "",
            "a.c:1:5: warning: unused variable \u{2018}x\u{2019} [-Wunused]\n\t1 | int x;\n",
            "\u{1b}[01m\u{1b}[Ka.c:1:\u{1b}[m\u{1b}[K \u{1b}[01;35m\u{1b}[Kwarning: \u{1b}[m\u{1b}[K\n",
            "\u{1b}[0;1;38:5:208mbold\u{1b}[0m\n",
            "[\u{1b}]8;;https://gcc.gnu.org/onlinedocs/gcc/Warning-Options.html#index-Wunused\u{1b}\\-Wunused\u{1b}]8;;\u{1b}\\]\n",
            "\u{1b}]8;id=1;file:///a/b.c\u{7}b.c\u{1b}]8;;\u{7}\n",
            "int größe; // 大小\n",
        ] {
            assert!(is_harmless(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn what_steers_a_terminal_is_not() {
        let long = format!("\u{1b}]8;;https://{}\u{7}", "a".repeat(LINK_BYTES_MAX));
        for text in [
            "\u{1b}]52;c;ZXZpbA==\u{7}",
            "\u{1b}]0;title\u{7}",
            "\u{1b}[2J",
            "\u{1b}[H",
            "\u{1b}[1A",
            "\u{1b}[1K",
            "\u{1b}[?1049h",
            "\u{1b}[6n",
            "\u{1b}c",
            "\u{1b}P1$r\u{1b}\\",
            "\u{1b}_x\u{1b}\\",
            "\u{1b}",
            "\u{1b}[",
            "\u{1b}[31",
            "\u{1b}]8;;javascript:x\u{7}",
            "\u{1b}]8;;https://x",
            "\u{1b}]8;;https://x\u{1b}[m",
            "\u{9b}2J",
            "\u{9d}0;x\u{9c}",
            "a\rb",
            "a\u{8}b",
            "a\u{7}",
            "a\0b",
            "\u{7f}",
            "\u{202e}txt.exe",
            "\u{2066}x",
            &long,
        ] {
            assert!(!is_harmless(text.as_bytes()), "{text:?}");
        }
        for bytes in [&b"caf\xe9"[..], b"\x9b2J", b"\xc2", b"\x1b[m\xff"] {
            assert!(!is_harmless(bytes), "{bytes:?}");
        }
    }
}
