//! Finds what a source file may open, without evaluating anything: both branches of every conditional, comments and
//! strings included. It only predicts; a miss is a fault on the worker, never a wrong object.

use std::borrow::Cow;

use memchr::{memchr_iter, memmem};

/// How a directive names its target.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Target {
    /// `"x"`: the folder of the current file first.
    Quoted(Box<[u8]>),
    /// `<x>`.
    Angled(Box<[u8]>),
    /// A macro; resolved through `Directives::defines` of the closure.
    Macro(Box<[u8]>),
}

/// What kind of lookup it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Lookup {
    /// `#include`, `#import`, `__has_include`: the first hit is opened.
    First,
    /// `#include_next`: over-approximated by every hit.
    All,
    /// `#embed`, `.incbin`, assembler `.include`: content without directives.
    Data,
}

/// One lookup.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Include {
    /// Which hits count.
    pub lookup: Lookup,
    /// What is looked up.
    pub target: Target,
}

/// The value of a `#define` that can end in an `#include`.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Value {
    /// `"x"`.
    Quoted(Box<[u8]>),
    /// `<x>`.
    Angled(Box<[u8]>),
    /// Another macro, perhaps with arguments.
    Macro(Box<[u8]>),
}

/// Everything in one file that matters for the closure.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Directives {
    /// Lookups in order, without repetition.
    pub includes: Vec<Include>,
    /// Macros that may name a file.
    pub defines: Vec<(Box<[u8]>, Value)>,
    /// `__DATE__` or `__TIME__` occurs.
    pub time_macro: bool,
    /// `__TIMESTAMP__` occurs: the file's modification time is content.
    pub timestamp_macro: bool,
    /// `.incbin` or assembler `.include` occurs with a name that is not a literal.
    pub unclear_data: bool,
    /// Names of quoted includes that are opened whatever is defined.
    pub certain: Vec<Box<[u8]>>,
}

/// Longest name or value looked at.
const TOKEN_BYTES_MAX: usize = 4096;

/// Reads the directives of `text`.
pub fn directives(text: &[u8]) -> Directives {
    let mut out = Directives::default();
    for at in memchr_iter(b'#', text) {
        directive(&text[at + 1..], &mut out);
    }
    // Digraph and trigraph for '#': rare, so a second pass only where they occur.
    for alternative in [&b"%:"[..], b"??="] {
        for at in memmem::find_iter(text, alternative) {
            directive(&text[at + alternative.len()..], &mut out);
        }
    }
    for (word, lookup) in [(&b"__has_include"[..], Lookup::First), (b"__has_embed", Lookup::Data)] {
        for at in memmem::find_iter(text, word) {
            let rest = &text[at + word.len()..];
            let (rest, lookup) = match rest.strip_prefix(b"_next") {
                Some(rest) => (rest, Lookup::All),
                None => (rest, lookup),
            };
            if let Some(rest) = skip_blank(rest).strip_prefix(b"(")
                && let Some(target) = target(skip_blank(rest))
            {
                out.push(Include { lookup, target });
            }
        }
    }
    for word in [&b".incbin"[..], b".include"] {
        for at in memmem::find_iter(text, word) {
            data_name(&text[at + word.len()..], &mut out);
        }
    }
    out.time_macro = memmem::find(text, b"__DATE__").is_some() || memmem::find(text, b"__TIME__").is_some();
    out.timestamp_macro = memmem::find(text, b"__TIMESTAMP__").is_some();
    out.certain = crate::certain::quoted(text);
    out
}

impl Directives {
    fn push(&mut self, include: Include) {
        // Guarded repetition is common (`__has_include(<x>)` before `#include <x>`); lists are short.
        if !self.includes.contains(&include) {
            self.includes.push(include);
        }
    }
}

/// After `.incbin`: a name in quotes, which are escaped when the assembler text is a C string.
fn data_name(rest: &[u8], out: &mut Directives) {
    let rest = skip_blank(rest);
    let (rest, escaped) = match rest {
        [b'\\', b'"', rest @ ..] => (rest, true),
        [b'"', rest @ ..] => (rest, false),
        // The word in prose, or a name put together by macros.
        [c, ..] if c.is_ascii_alphabetic() => return,
        _ => {
            out.unclear_data = true;
            return;
        }
    };
    let end =
        rest.iter().take(TOKEN_BYTES_MAX).position(|&c| if escaped { c == b'\\' } else { c == b'"' || c == b'\n' });
    match end {
        Some(end) if end > 0 && rest[end] != b'\n' => {
            out.push(Include { lookup: Lookup::Data, target: Target::Quoted(rest[..end].into()) });
        }
        _ => out.unclear_data = true,
    }
}

fn directive(rest: &[u8], out: &mut Directives) {
    let rest = skip_blank(rest);
    let (word, rest) = identifier(rest);
    let lookup = match &word[..] {
        b"include" | b"import" | b"include_alias" => Lookup::First,
        b"include_next" => Lookup::All,
        b"embed" => Lookup::Data,
        b"define" => return define(rest, out),
        b"pragma" => return pragma(rest, out),
        _ => return,
    };
    if let Some(target) = target(skip_blank(rest)) {
        out.push(Include { lookup, target });
    }
}

/// `#pragma GCC dependency "file"`, `#pragma GCC pch_preprocess "file"`.
fn pragma(rest: &[u8], out: &mut Directives) {
    let (word, rest) = identifier(skip_blank(rest));
    if word != b"GCC" {
        return;
    }
    let (word, rest) = identifier(skip_blank(rest));
    if (word == b"dependency" || word == b"pch_preprocess")
        && let Some(target) = target(skip_blank(rest))
    {
        out.push(Include { lookup: Lookup::Data, target });
    }
}

fn define(rest: &[u8], out: &mut Directives) {
    let (name, rest) = identifier(skip_blank(rest));
    if name.is_empty() {
        return;
    }
    // A function-like macro: its parameters do not matter.
    let rest = match rest.first() {
        Some(b'(') => match memchr::memchr(b')', &rest[..rest.len().min(TOKEN_BYTES_MAX)]) {
            Some(end) => &rest[end + 1..],
            None => return,
        },
        _ => rest,
    };
    let rest = skip_blank(rest);
    let value = match target(rest) {
        Some(Target::Quoted(text)) => Value::Quoted(text),
        Some(Target::Angled(text)) => Value::Angled(text),
        // Only a value that is one macro (with arguments or without): anything longer is an expression.
        Some(Target::Macro(other)) if is_single(rest, other.len()) => Value::Macro(other),
        _ => return,
    };
    out.defines.push((name.into(), value));
}

/// Whether nothing but arguments follows the first `len` bytes on the line.
fn is_single(rest: &[u8], len: usize) -> bool {
    let line_end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    let after = rest.get(len..line_end).unwrap_or_default().trim_ascii();
    after.is_empty() || (after.starts_with(b"(") && after.ends_with(b")")) || after.starts_with(b"/")
}

fn target(rest: &[u8]) -> Option<Target> {
    let window = &rest[..rest.len().min(TOKEN_BYTES_MAX)];
    let quoted = |close: u8| {
        let end = window[1..].iter().position(|&c| c == close || c == b'\n')? + 1;
        (window[end] == close && end > 1).then(|| Box::from(&window[1..end]))
    };
    match window.first()? {
        b'"' => quoted(b'"').map(Target::Quoted),
        b'<' => quoted(b'>').map(Target::Angled),
        c if c.is_ascii_alphabetic() || *c == b'_' => Some(Target::Macro(identifier(window).0.into())),
        _ => None,
    }
}

/// The identifier that `rest` begins with, and what follows. Splices inside identifiers are joined.
fn identifier(rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut word = Vec::new();
    let mut at = 0;
    while let Some(&c) = rest.get(at) {
        if c.is_ascii_alphanumeric() || c == b'_' || c == b'$' {
            word.push(c);
            at += 1;
        } else if let Some(len) = splice(&rest[at..]).filter(|_| !word.is_empty()) {
            at += len;
        } else {
            break;
        }
        if word.len() > TOKEN_BYTES_MAX {
            break;
        }
    }
    (word, &rest[at..])
}

/// Length of a backslash-newline, with the blanks that gcc allows between the two.
fn splice(rest: &[u8]) -> Option<usize> {
    let after = rest.strip_prefix(b"\\").or_else(|| rest.strip_prefix(b"??/"))?;
    let blanks = after.iter().take_while(|c| matches!(c, b' ' | b'\t' | b'\r')).count();
    (after.get(blanks) == Some(&b'\n')).then(|| rest.len() - after.len() + blanks + 1)
}

/// Skips blanks, splices and comments, but no newline.
fn skip_blank(mut rest: &[u8]) -> &[u8] {
    loop {
        match rest {
            [b' ' | b'\t' | b'\x0b' | b'\x0c' | b'\r', tail @ ..] => rest = tail,
            [b'/', b'*', tail @ ..] => match memmem::find(&tail[..tail.len().min(1 << 16)], b"*/") {
                Some(end) => rest = &tail[end + 2..],
                None => return rest,
            },
            [b'\\', ..] | [b'?', b'?', b'/', ..] => match splice(rest) {
                Some(len) => rest = &rest[len..],
                None => return rest,
            },
            _ => return rest,
        }
    }
}

/// The prerequisites of the first rule of a dependency file, unescaped as gcc and clang escape them.
pub fn dependencies(text: &[u8]) -> Vec<Cow<'_, [u8]>> {
    let mut out = Vec::new();
    let mut word: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut seen_colon = false;
    let mut at = 0;
    while at < text.len() {
        let c = text[at];
        let next = text.get(at + 1).copied();
        match (c, next) {
            (b'\\', Some(b'\n')) => {
                flush(&mut word, seen_colon, &mut out);
                at += 2;
                continue;
            }
            (b'\\', Some(b'\r')) if text.get(at + 2) == Some(&b'\n') => {
                flush(&mut word, seen_colon, &mut out);
                at += 3;
                continue;
            }
            (b'\\', Some(e @ (b' ' | b'\t' | b'#' | b':'))) => {
                word.to_mut().push(e);
                at += 2;
                continue;
            }
            (b'$', Some(b'$')) => {
                word.to_mut().push(b'$');
                at += 2;
                continue;
            }
            (b':', _) if !seen_colon && matches!(next, None | Some(b' ' | b'\t' | b'\n' | b'\\' | b'\r')) => {
                seen_colon = true;
                word = Cow::Borrowed(&[]);
            }
            (b'\n', _) => {
                flush(&mut word, seen_colon, &mut out);
                if seen_colon {
                    break;
                }
            }
            (b' ' | b'\t' | b'\r', _) => flush(&mut word, seen_colon, &mut out),
            _ => {
                // Nearly every name is in the text as it is: up to the next byte that could end or change it.
                let len = text[at..].iter().skip(1).position(|&c| is_special(c)).map_or(text.len() - at, |n| n + 1);
                match &mut word {
                    Cow::Borrowed(word) if word.is_empty() => *word = &text[at..at + len],
                    word => word.to_mut().extend_from_slice(&text[at..at + len]),
                }
                at += len;
                continue;
            }
        }
        at += 1;
    }
    flush(&mut word, seen_colon, &mut out);
    out
}

/// Whether a byte can be more than a part of a name in a dependency file.
fn is_special(c: u8) -> bool {
    matches!(c, b'\\' | b'$' | b':' | b'\n' | b' ' | b'\t' | b'\r')
}

fn flush<'a>(word: &mut Cow<'a, [u8]>, keep: bool, out: &mut Vec<Cow<'a, [u8]>>) {
    let word = std::mem::take(word);
    if keep && !word.is_empty() {
        out.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &[u8]) -> Vec<String> {
        directives(text)
            .includes
            .iter()
            .map(|i| match &i.target {
                Target::Quoted(t) => format!("\"{}\"", String::from_utf8_lossy(t)),
                Target::Angled(t) => format!("<{}>", String::from_utf8_lossy(t)),
                Target::Macro(t) => String::from_utf8_lossy(t).into_owned(),
            })
            .collect()
    }

    #[test]
    fn finds_includes_however_they_are_written() {
        let text = b"#include <a.h>\n  #  include \"b.h\"\n/* x */ #include \"c.h\"\n#/**/include/* */<d.h>\n\
            #inc\\\nlude \"e.h\"\n%:include \"f.h\"\n??=include \"g.h\"\n#include_next <h.h>\n#import \"i.h\"\n#include J\n\
            const char *s = R\"(\n#include \"k.h\"\n)\";\n#if 0\n#include \"l.h\"\n#endif\n#include \\\n \"m.h\"\n#include <n.h>";
        assert_eq!(
            quoted(text),
            [
                "<a.h>", "\"b.h\"", "\"c.h\"", "<d.h>", "\"e.h\"", "<h.h>", "\"i.h\"", "J", "\"k.h\"", "\"l.h\"",
                "\"m.h\"", "<n.h>", "\"f.h\"", "\"g.h\""
            ]
        );
    }

    #[test]
    fn finds_probes_and_data() {
        let text = b"#if __has_include(<a.h>) || __has_include( \"b.h\" )\n#if __has_include_next(<c.h>)\nasm(\".incbin \\\"d.bin\\\"\");\n\
            .incbin \"e.bin\"\n#embed <f>\n#define H(x) __has_include(x)\n";
        assert_eq!(quoted(text), ["<f>", "<a.h>", "\"b.h\"", "<c.h>", "x", "\"d.bin\"", "\"e.bin\""]);
        assert!(directives(b"asm(\".incbin \" NAME);").unclear_data);
    }

    #[test]
    fn keeps_macros_that_can_name_a_file() {
        let found = directives(
            b"#define A \"a.h\"\n#define B <b.h>\n#define C A\n#define D(x) E(x)\n#define F 1\n#define G A + 1\n",
        )
        .defines;
        let names: Vec<_> = found.iter().map(|(n, _)| n[0] as char).collect();
        assert_eq!(names, ['A', 'B', 'C', 'D']);
    }

    #[test]
    fn reads_dependency_files() {
        let text = b"a\\ b.o: x.c \\\n  y\\ z.h dir/$$w.h \\\n q.h\n\nx.h:\n";
        assert_eq!(dependencies(text), [&b"x.c"[..], b"y z.h", b"dir/$w.h", b"q.h"]);
    }

    #[test]
    fn an_unfinished_directive_at_the_end_is_harmless() {
        for text in [
            &b"#"[..],
            b"#include",
            b"#include \"",
            b"#include <x",
            b"#define",
            b"#define A(",
            b".incbin",
            b"__has_include(",
            b"%:",
            b"#inc\\",
        ] {
            directives(text);
        }
    }
}
