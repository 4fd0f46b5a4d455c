//! What a source opens for certain: `#include "x"` outside every conditional. Leaves out whatever is in doubt, so that a
//! dependency file that hides one of these was not written by the compiler. Decides nothing about where a name leads.

use memchr::memmem;

/// The names of quoted includes that no conditional, comment or literal is around.
pub fn quoted(text: &[u8]) -> Vec<Box<[u8]>> {
    // Raw strings, digraphs and trigraphs change what a line is. A header that calls itself the system's takes what it
    // includes along, and -MMD leaves those out.
    if [&b"R\""[..], b"%:", b"??", b"system_header"].iter().any(|odd| memmem::find(text, odd).is_some()) {
        return Vec::new();
    }
    let (mut out, mut depth, mut in_comment, mut continued) = (Vec::new(), 0u32, false, false);
    for line in text.split(|&c| c == b'\n') {
        let (was_continued, was_comment) = (continued, in_comment);
        continued = line.trim_ascii_end().ends_with(b"\\");
        match comment_after(line, in_comment) {
            Some(state) => in_comment = state,
            None => return Vec::new(),
        }
        if was_comment || was_continued {
            continue;
        }
        let Some(rest) = line.trim_ascii_start().strip_prefix(b"#") else { continue };
        let rest = rest.trim_ascii_start();
        let end = rest.iter().position(|c| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        match &rest[..end] {
            b"if" | b"ifdef" | b"ifndef" => depth += 1,
            b"endif" => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return Vec::new(),
            },
            b"include" if depth == 0 => out.extend(name(rest[end..].trim_ascii_start())),
            // The directive's word is on another line, or behind a comment.
            b"" if !rest.is_empty() => return Vec::new(),
            _ => {}
        }
    }
    // A conditional that was not seen to end means that something was misread.
    if depth == 0 && !in_comment { out } else { Vec::new() }
}

fn name(rest: &[u8]) -> Option<Box<[u8]>> {
    let rest = rest.strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', rest)?;
    (end > 0).then(|| rest[..end].into())
}

/// Whether a block comment is open behind this line. None: it cannot be told without reading literals.
fn comment_after(mut line: &[u8], mut open: bool) -> Option<bool> {
    loop {
        if open {
            match memmem::find(line, b"*/") {
                Some(end) => line = &line[end + 2..],
                None => return Some(true),
            }
        }
        let Some(start) = memmem::find(line, b"/*") else { return Some(false) };
        // Perhaps it is inside a literal or a line comment, and opens nothing.
        if line[..start].iter().any(|c| matches!(c, b'"' | b'\'')) || memmem::find(&line[..start], b"//").is_some() {
            return None;
        }
        line = &line[start + 2..];
        open = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        quoted(text.as_bytes()).into_iter().map(|n| String::from_utf8(n.into()).unwrap()).collect()
    }

    #[test]
    fn only_includes_that_nothing_can_hide_are_certain() {
        assert_eq!(names("#include \"a.h\"\n  #  include \"b/c.h\" // why\n#include <d.h>\n"), ["a.h", "b/c.h"]);
        assert_eq!(names("#ifdef X\n#include \"a.h\"\n#else\n#include \"b.h\"\n#endif\n#include \"c.h\"\n"), ["c.h"]);
        assert_eq!(names("/* one */\n/*\n#include \"a.h\"\n*/\n#include \"b.h\"\n"), ["b.h"]);
        assert_eq!(names("#define X \\\n#include \"a.h\"\n#include \"b.h\"\n"), ["b.h"]);
        assert!(names("#include MACRO\n#include_next \"a.h\"\n#import \"b.h\"\n").is_empty());
    }

    #[test]
    fn what_could_be_misread_makes_nothing_certain() {
        for text in [
            "char *s = R\"(\n#include \"a.h\"\n)\";\n",
            "// all of src/*.c\n#ifdef X\n/* c */\n#include \"a.h\"\n#endif\n",
            "char *s = \"/*\";\n#include \"a.h\"\n",
            "#ifdef X\n#include \"a.h\"\n",
            "#endif\n#include \"a.h\"\n",
            "/* open\n#include \"a.h\"\n",
            "#\\\nif 0\n#include \"a.h\"\n#endif\n",
            "#/**/if 0\n#include \"a.h\"\n",
            "%:if 0\n#include \"a.h\"\n",
            "#pragma GCC system_header\n#include \"a.h\"\n",
        ] {
            assert!(names(text).is_empty(), "{text}");
        }
    }
}
