//! What a worker may be told about the submitter's disk when its job misses a name: only what a compiler can open in this
//! job. A refusal costs one compile here and never a wrong object, so whatever is in doubt is refused.

use std::collections::{HashMap, HashSet};

use crate::scan::{Directives, Lookup, Target, Value};

/// Endings of files that a computed include may name. Data (`.incbin`, `#embed`) is given only where a directive names it.
const HEADERS: &[&[u8]] = &[
    b"h", b"hh", b"hpp", b"hxx", b"h++", b"H", b"hp", b"inc", b"inl", b"ipp", b"tpp", b"txx", b"tcc", b"icc", b"ixx",
    b"def", b"i", b"ii", b"moc", b"x",
];

/// What compilers look for beside a header: its precompiled form.
const COMPILED: [&[u8]; 2] = [b".gch", b".pch"];

/// Names that the scanned files of one job mention.
#[derive(Debug, Default)]
pub struct Mentioned {
    parts: HashSet<Box<[u8]>>,
    /// Whole paths without `.`; of one with `..` what follows the last, which is true.
    paths: HashMap<Box<[u8]>, bool>,
    computed: bool,
}

/// An asked path, links resolved.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Absolute.
    pub path: &'a [u8],
    /// Seen from a directory that the job may look into.
    pub rest: &'a [u8],
    /// Which kind of directory that is.
    pub below: Below,
    /// What lies there.
    pub lies: Lies,
}

/// What lies at an asked path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lies {
    /// A file with these permission bits.
    File(u32),
    /// A directory.
    Dir,
    /// Nothing, or a link that leads to nothing.
    Nothing,
}

/// Where an asked path lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Below {
    /// A directory of sources: the working directory, the source's, one that is searched.
    Sources,
    /// A directory that an option names for what the compiler brings along (`-B`, `--sysroot`, `-resource-dir`).
    Tools,
}

impl Mentioned {
    /// Takes in what one file mentions.
    pub fn add(&mut self, directives: &Directives) {
        for include in &directives.includes {
            match &include.target {
                Target::Quoted(name) | Target::Angled(name) => self.add_path(name),
                Target::Macro(_) => self.computed |= include.lookup != Lookup::Data,
            }
        }
        for (_, value) in &directives.defines {
            self.add_value(value);
        }
    }

    /// Takes in a macro that the command defines.
    pub fn add_value(&mut self, value: &Value) {
        if let Value::Quoted(name) | Value::Angled(name) = value {
            self.add_path(name);
        }
    }

    /// Takes in a path that the command names.
    pub fn add_path(&mut self, path: &[u8]) {
        for part in path.split(|&c| c == b'/').filter(|part| !matches!(*part, b"" | b"." | b"..")) {
            if !self.parts.contains(part) {
                self.parts.insert(part.into());
            }
        }
        let (mut kept, mut above): (Vec<&[u8]>, bool) = (Vec::new(), false);
        for part in path.split(|&c| c == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    kept.clear();
                    above = true;
                }
                part => kept.push(part),
            }
        }
        // An absolute path is looked up below the root.
        *self.paths.entry(kept.join(&b'/').into()).or_default() |= above || path.starts_with(b"/");
    }

    /// Whether a mentioned path leads to this one from a directory where lookups begin. With a `..` in it, it leads
    /// somewhere above.
    fn leads_to(&self, path: &[u8], begins: &dyn Fn(&[u8], bool) -> bool) -> bool {
        let suffixes =
            path.iter().enumerate().filter(|&(_, &c)| c == b'/').map(|(at, _)| (&path[..at], &path[at + 1..]));
        suffixes.into_iter().any(|(base, rest)| self.paths.get(rest).is_some_and(|&above| begins(base, above)))
    }

    fn holds(&self, name: &[u8]) -> bool {
        let header = COMPILED.iter().find_map(|suffix| name.strip_suffix(*suffix)).unwrap_or(name);
        self.parts.contains(name) || self.parts.contains(header)
    }

    /// Whether a worker may know what lies at an asked path. `begins`: whether lookups begin in a directory or (true) in
    /// one that is somewhere below it.
    pub fn may_ask(&self, asked: &Asked, begins: &dyn Fn(&[u8], bool) -> bool) -> bool {
        let Asked { path, rest, below, lies } = *asked;
        let mut parts = rest.split(|&c| c == b'/');
        let Some(name) = parts.next_back().filter(|name| !name.is_empty()) else { return lies == Lies::Dir };
        // What is hidden is a program's own business (`.git`, `.env`, `.ssh`) unless a source says its name.
        if rest.split(|&c| c == b'/').any(|part| part.starts_with(b".") && !self.holds(part)) {
            return false;
        }
        let exact = self.leads_to(path, begins);
        // What its owner keeps from everybody is given only where a source names just that.
        if matches!(lies, Lies::File(mode) if mode & 0o044 == 0) && !exact {
            return false;
        }
        if below == Below::Tools || exact {
            return true;
        }
        // A precompiled header may be a directory with several.
        let in_compiled = parts.any(|part| part.ends_with(COMPILED[0]) && self.holds(part));
        match lies {
            Lies::Dir => self.computed || self.holds(name),
            // Of a header the name is enough: there are more ways to it than are known here, such as links.
            Lies::File(_) | Lies::Nothing => in_compiled || is_header(name) && (self.computed || self.holds(name)),
        }
    }
}

/// Whether a name ends as the names of headers do, also of compiled ones.
pub fn is_header(name: &[u8]) -> bool {
    let name = COMPILED.iter().find_map(|suffix| name.strip_suffix(*suffix)).unwrap_or(name);
    let end = name.iter().rposition(|&c| c == b'.').filter(|&at| at > 0);
    end.is_some_and(|at| HEADERS.contains(&&name[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::directives;

    fn of(text: &str) -> Mentioned {
        let mut mentioned = Mentioned::default();
        mentioned.add(&directives(text.as_bytes()));
        mentioned
    }

    const READABLE: Lies = Lies::File(0o644);

    /// Asked in `/p`, where lookups begin, as they do in `/p/inc`.
    fn told(mentioned: &Mentioned, rest: &str, below: Below, lies: Lies) -> bool {
        let path = [b"/p/", rest.as_bytes()].concat();
        let begins = |dir: &[u8], above: bool| {
            [&b"/p"[..], b"/p/inc"].iter().any(|b| *b == dir || above && b.starts_with(&[dir, b"/"].concat()))
        };
        mentioned.may_ask(&Asked { path: &path, rest: rest.as_bytes(), below, lies }, &begins)
    }

    #[test]
    fn nothing_that_no_directive_names_is_told() {
        let mentioned = of("#include \"a.h\"\n#include <sub/b.h>\n#include \"main.c\"\n");
        let told = |rest: &str, lies| told(&mentioned, rest, Below::Sources, lies);
        for rest in ["a.h", "sub/b.h", "deep/down/a.h", "a.h.gch", "a.h.gch/one", "main.c", "inc/main.c"] {
            assert!(told(rest, READABLE), "{rest}");
            assert!(told(rest, Lies::Nothing), "{rest}");
        }
        assert!(told("sub", Lies::Dir) && told("a.h", Lies::File(0o600)));
        for rest in [
            "other.h",
            "secret.env",
            ".env",
            ".git/config",
            ".ssh/id_rsa",
            ".netrc",
            "id_rsa",
            "server.pem",
            "tls.key",
            "other.c",
            "sub/main.c",
            "private/main.c",
            "database.sqlite",
            "notes.txt",
            "Makefile",
            ".git/a.h",
            "",
            ".secret/sub/b.h",
        ] {
            assert!(!told(rest, READABLE), "{rest}");
            assert!(!told(rest, Lies::Nothing), "{rest}");
        }
        for rest in ["private", ".git", ".ssh", "node_modules"] {
            assert!(!told(rest, Lies::Dir), "{rest}");
        }
        assert!(!told("deep/a.h", Lies::File(0o600)), "another of the name, which its owner keeps for himself");
    }

    #[test]
    fn a_computed_include_may_lead_to_headers_only() {
        let mentioned = of("#include MACRO(x)\n");
        let told = |rest: &str, lies| told(&mentioned, rest, Below::Sources, lies);
        assert!(told("boost/preprocessed/vector.hpp", READABLE) && told("boost/preprocessed", Lies::Dir));
        assert!(told("gone.h", Lies::Nothing));
        for rest in ["secret.env", "id_rsa", "x.c", "x.pem", ".h", ".git/x.h", ".config/a.hpp", "key.txt"] {
            assert!(!told(rest, READABLE), "{rest}");
        }
        assert!(!told("private.h", Lies::File(0o600)), "unreadable for others, and no source names it");
        assert!(!told(".git", Lies::Dir));
    }

    #[test]
    fn data_is_told_only_by_its_name() {
        let mentioned = of("asm(\".incbin \\\"logo.bin\\\"\");\n#embed FILE\n#embed \"../up/icon.png\"\n");
        let told = |rest: &str| told(&mentioned, rest, Below::Sources, Lies::File(0o600));
        assert!(told("logo.bin") && told("inc/logo.bin") && told("up/icon.png"));
        assert!(!told("other.bin") && !told("any.h") && !told("sub/logo.bin") && !told("sub/icon.png"));
    }

    #[test]
    fn what_options_name_for_the_compiler_is_told_but_for_what_is_hidden() {
        let told = |rest: &str, lies| told(&Mentioned::default(), rest, Below::Tools, lies);
        assert!(told("usr/include/stdio.h", READABLE) && told("usr/lib", Lies::Dir));
        assert!(!told(".config/key", READABLE) && !told("etc/shadow", Lies::File(0o600)));
    }

    #[test]
    fn a_hidden_name_that_a_source_says_is_told() {
        let mentioned = of("#include \".deps/x.h\"\n");
        assert!(told(&mentioned, ".deps/x.h", Below::Sources, Lies::File(0o644)));
        assert!(!told(&mentioned, ".deps/.key", Below::Sources, Lies::File(0o644)));
    }
}
