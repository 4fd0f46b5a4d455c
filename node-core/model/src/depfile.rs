//! The text of dependency files, which `make` reads as a program: only what gcc and clang write for a command is taken
//! from a worker. Says nothing of where the names lead.

use std::borrow::Cow;

use crate::plan::DepsRule;

/// What a dependency file lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct List<'a> {
    /// The prerequisites in order, as names of files.
    pub names: Vec<Cow<'a, [u8]>>,
    /// Positions of those with characters that `make` could take for more than a name (`;`, `|`, `=`, `%`, a wildcard).
    /// Compilers leave them as they are: such a text is fit to be read only if the file is really called that, and
    /// even then a compile here is what should write it.
    pub odd: Vec<usize>,
}

/// Why a text is not taken.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Unlike {
    /// No compiler writes this for this command, whatever the files are called.
    Lie(&'static str),
    /// It cannot be read for certain: a name with a backslash, or a form that this program does not know. Nobody is
    /// blamed for it.
    Unclear,
}

/// How gcc and clang quote a name for `make`, with `-MQ` and everywhere else.
pub fn quote(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut backslashes = 0;
    for &c in name {
        match c {
            b'$' => out.push(b'$'),
            // Backslashes before a blank are doubled.
            b' ' | b'\t' => out.extend(std::iter::repeat_n(b'\\', backslashes + 1)),
            b'#' => out.push(b'\\'),
            _ => {}
        }
        backslashes = if c == b'\\' { backslashes + 1 } else { 0 };
        out.push(c);
    }
    out
}

/// Reads the whole text, which must be the rule of this command and nothing else.
pub fn read<'a>(text: &'a [u8], rule: &DepsRule) -> Result<List<'a>, Unlike> {
    let mut at = targets(text, rule)?;
    let mut list = List::default();
    let mut raw = Vec::new();
    while text.get(at) != Some(&b'\n') {
        at = separator(text, at).ok_or(Unlike::Lie("its dependency list is not in the form of a compiler's"))?;
        let token = token(text, at)?;
        if token.is_odd {
            list.odd.push(list.names.len());
        }
        raw.push(&text[at..token.end]);
        list.names.push(token.name);
        at = token.end;
    }
    phony(&text[at + 1..], &raw, rule.phony)?;
    Ok(list)
}

/// The targets and the colon; what follows begins at the returned position.
fn targets(text: &[u8], rule: &DepsRule) -> Result<usize, Unlike> {
    let other = Unlike::Lie("its dependency list has other targets than the command");
    let mut at = 0;
    for (index, target) in rule.targets.iter().enumerate() {
        if index > 0 {
            at = separator(text, at).ok_or(other)?;
        }
        if !text[at..].starts_with(target) {
            return Err(other);
        }
        at += target.len();
    }
    if text.get(at) == Some(&b':') { Ok(at + 1) } else { Err(other) }
}

/// A blank, or the end of a line with a backslash: gcc begins the next with one blank, clang with two.
fn separator(text: &[u8], at: usize) -> Option<usize> {
    let rest = text[at..].strip_prefix(b" ")?;
    let rest = match rest.strip_prefix(b"\\\n ") {
        Some(rest) => rest.strip_prefix(b" ").unwrap_or(rest),
        None => rest,
    };
    Some(text.len() - rest.len())
}

struct Token<'a> {
    name: Cow<'a, [u8]>,
    is_odd: bool,
    end: usize,
}

/// What a byte can be in a list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    /// Ends a name, quotes, or must be quoted.
    Syntax,
    /// Stands for itself in what compilers write, and for something else in what `make` reads.
    Odd,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut c = 0;
    while c < 256 {
        classes[c] = match c as u8 {
            b' ' | b'\n' | b'\\' | b'$' | b'#' => Class::Syntax,
            0..=31 | 127 => Class::Odd,
            b';' | b'|' | b'=' | b'%' | b'*' | b'?' | b'[' | b']' | b'~' | b'(' | b')' | b':' | b'`' => Class::Odd,
            _ => Class::Plain,
        };
        c += 1;
    }
    classes
};

fn token(text: &[u8], start: usize) -> Result<Token<'_>, Unlike> {
    let mut name: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let (mut at, mut is_odd) = (start, false);
    loop {
        // Nearly every name is in the text as it is: up to the next byte that could end or change it.
        let run = text[at..].iter().position(|&c| CLASSES[c as usize] == Class::Syntax);
        let run = run.ok_or(Unlike::Lie("its dependency list is cut off"))?;
        let plain = &text[at..at + run];
        is_odd |= plain.iter().any(|&c| CLASSES[c as usize] == Class::Odd);
        match &mut name {
            Cow::Borrowed(whole) if whole.is_empty() => *whole = plain,
            name => name.to_mut().extend_from_slice(plain),
        }
        at += run;
        let quoted = match &text[at..] {
            [b' ' | b'\n', ..] => break,
            [b'\\', c @ (b' ' | b'\t' | b'#'), ..] => *c,
            [b'\\', b'\n', ..] => return Err(Unlike::Lie("its dependency list is not in the form of a compiler's")),
            [b'\\', ..] => return Err(Unlike::Unclear),
            [b'$', b'$', ..] => b'$',
            _ => return Err(Unlike::Lie("its dependency list has what make would evaluate")),
        };
        is_odd |= quoted == b'\t';
        name.to_mut().push(quoted);
        at += 2;
    }
    if name.is_empty() {
        return Err(Unlike::Lie("its dependency list is not in the form of a compiler's"));
    }
    Ok(Token { name, is_odd, end: at })
}

/// What follows the rule: nothing, or with `-MP` one empty rule for every prerequisite but the source. clang puts an
/// empty line before each.
fn phony(mut rest: &[u8], listed: &[&[u8]], asked: bool) -> Result<(), Unlike> {
    if !asked {
        return if rest.is_empty() { Ok(()) } else { Err(Unlike::Lie("something follows its dependency list")) };
    }
    let (mut at, mut rules) = (0, 0);
    while !rest.is_empty() {
        rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        let end = memchr::memchr(b'\n', rest).ok_or(Unlike::Lie("its dependency list is cut off"))?;
        let name = rest[..end].strip_suffix(b":");
        let found = name.and_then(|name| listed[at..].iter().position(|listed| *listed == name));
        at += found.ok_or(Unlike::Lie("something follows its dependency list"))? + 1;
        rules += 1;
        rest = &rest[end + 1..];
    }
    // One that is left out is dangerous for no one; which one the compiler leaves out is its business.
    if rules + 1 == listed.len() || listed.is_empty() { Ok(()) } else { Err(Unlike::Unclear) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(targets: &[&str], phony: bool) -> DepsRule {
        DepsRule { targets: targets.iter().map(|t| t.as_bytes().to_vec()).collect(), phony }
    }

    fn names(text: &str, rule: &DepsRule) -> Result<Vec<String>, Unlike> {
        let names = |list: List| list.names.iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect();
        read(text.as_bytes(), rule).map(names)
    }

    #[test]
    fn what_the_compilers_write_is_read() {
        let main = rule(&["main.o"], false);
        assert_eq!(names("main.o: main.c sure.h\n", &main), Ok(vec!["main.c".into(), "sure.h".into()]));
        assert_eq!(names("main.o: main.c \\\n a.h \\\n  b.h\n", &main).map(|n| n.len()), Ok(3));
        assert_eq!(names("main.o: \\\n main.c\n", &main), Ok(vec!["main.c".into()]));
        assert_eq!(
            names("main.o: a\\ b.c h\\#.h d$$x.h\n", &main),
            Ok(vec!["a b.c".into(), "h#.h".into(), "d$x.h".into()])
        );
        let two = rule(&["x.o: y.h", "a\\ b$$"], true);
        assert_eq!(names("x.o: y.h a\\ b$$: m.c i.h\ni.h:\n", &two).map(|n| n.len()), Ok(2));
        assert_eq!(names("x.o: y.h \\\n  a\\ b$$: m.c i.h k.h\n\ni.h:\n\nk.h:\n", &two).map(|n| n.len()), Ok(3));
        assert_eq!(quote(b"o: x/b #$c\\ d"), b"o:\\ x/b\\ \\#$$c\\\\\\ d");
    }

    #[test]
    fn whatever_make_would_run_is_a_lie() {
        for text in [
            "main.o: main.c sure.h\n\n$(shell touch pwned)",
            "main.o: main.c sure.h\n$(shell touch pwned)\n",
            "main.o: main.c sure.h $(shell touch pwned)\n",
            "main.o: main.c sure.h ${shell x}\n",
            "main.o: main.c sure.h $x\n",
            "main.o: main.c sure.h\n\ttouch pwned\n",
            "main.o: main.c sure.h\nall:\n\ttouch pwned\n",
            "main.o: main.c sure.h\nCC=evil\n",
            "main.o: main.c sure.h\ninclude evil.mk\n",
            "main.o: main.c sure.h\n.DEFAULT:\n",
            "main.o: main.c sure.h\nsure.h:\n",
            "main.o: main.c sure.h\n\n",
            "main.o: main.c sure.h # comment\n",
            "main.o: main.c  sure.h\n",
            "main.o:main.c\n",
            "main.o: main.c sure.h",
            "main.o: main.c \\\n\n",
            "main.o: main.c \\\n",
            "other.o: main.c sure.h\n",
            "main.o other.o: main.c sure.h\n",
            "main.o:: main.c sure.h\n",
            "$(shell x): main.c\n",
            "include x\nmain.o: main.c\n",
            "",
            "main.o",
        ] {
            let read = read(text.as_bytes(), &rule(&["main.o"], false));
            assert!(matches!(read, Err(Unlike::Lie(_))), "{text:?}: {read:?}");
        }
        for text in
            ["m.o: m.c a.h\nb.h:\n", "m.o: m.c a.h\na.h: b.h\n", "m.o: m.c a.h\na.h:\n\tx\n", "m.o: m.c a.h\na.h:;x\n"]
        {
            let read = read(text.as_bytes(), &rule(&["m.o"], true));
            assert!(matches!(read, Err(Unlike::Lie(_))), "{text:?}: {read:?}");
        }
    }

    #[test]
    fn names_that_could_be_more_than_names_are_told() {
        for odd in [";", "|", "a=b.h", "%.h", "x*", "a?", "[a]", "~/x", "lib(x)", "c:d.h", "a\tb", "\u{1}", "`x`"] {
            let text = format!("main.o: main.c {odd} y.h\n");
            let list = read(text.as_bytes(), &rule(&["main.o"], false)).unwrap();
            assert_eq!(list.odd, [1], "{odd}");
        }
    }

    #[test]
    fn what_cannot_be_read_for_certain_blames_nobody() {
        for text in ["main.o: b\\\\\\ g.h\n", "main.o: a\\b.h\n"] {
            assert_eq!(names(text, &rule(&["main.o"], false)), Err(Unlike::Unclear), "{text}");
        }
        assert_eq!(names("m.o: m.c a.h b.h\na.h:\n", &rule(&["m.o"], true)), Err(Unlike::Unclear));
    }
}
