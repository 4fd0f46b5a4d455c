//! What a compiler command means for a distributed compile: the result of reading its options.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::reason::Reason;

/// The two families of drivers that Potluck sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, serde::Serialize, serde::Deserialize)]
pub enum Family {
    /// gcc, g++ and their cross variants.
    Gcc,
    /// clang, clang++.
    Clang,
}

/// The language of an input, as the driver sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Language {
    /// C.
    C,
    /// C++.
    Cxx,
    /// Objective-C.
    ObjC,
    /// Objective-C++.
    ObjCxx,
    /// Preprocessed C.
    CppOutput,
    /// Preprocessed C++.
    CxxCppOutput,
    /// Preprocessed Objective-C or Objective-C++.
    ObjCppOutput,
    /// Assembler that is preprocessed first (`.S`).
    AsmWithCpp,
    /// Assembler.
    Asm,
}

impl Language {
    /// Whether the preprocessor runs, so that includes matter.
    pub fn is_preprocessed_here(self) -> bool {
        matches!(self, Self::C | Self::Cxx | Self::ObjC | Self::ObjCxx | Self::AsmWithCpp)
    }

    /// The word for `-x`.
    pub fn x_name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cxx => "c++",
            Self::ObjC => "objective-c",
            Self::ObjCxx => "objective-c++",
            Self::CppOutput => "cpp-output",
            Self::CxxCppOutput => "c++-cpp-output",
            Self::ObjCppOutput => "objective-c-cpp-output",
            Self::AsmWithCpp => "assembler-with-cpp",
            Self::Asm => "assembler",
        }
    }
}

/// Where a compile stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopAt {
    /// `-c`.
    Object,
    /// `-S`.
    Assembly,
}

/// How the tool leaves an output that already exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// A new file takes the name, whatever was there (objects: gcc's assembler unlinks).
    Replace,
    /// A new file takes the name, but only of one that may be written (clang looks at the old one before it renames).
    Rename,
    /// The existing file is truncated and keeps its mode and inode (dependency files, notes, dumps).
    Truncate,
}

/// An output whose name is known before the compile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// As spelled, or derived as the driver derives it; relative to the working directory.
    pub path: PathBuf,
    /// How an existing one is treated.
    pub manner: Manner,
    /// What it is to the command.
    pub role: Role,
}

/// What an output is to the command that makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The object or assembly file: there is always one.
    Main,
    /// The dependency file: there is always one if it is asked for.
    Dependencies,
    /// A file that an option names.
    Named,
    /// A file that an option makes under a name derived from the source or the output. A person may have a file of that
    /// name, and not know that the option writes it.
    Beside,
}

/// Files of which only a part of the name is known beforehand: gcc's dumps have the number of a pass in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loose {
    /// Their directory, as spelled.
    pub dir: PathBuf,
    /// What their names begin with.
    pub stem: OsString,
    /// What follows.
    pub rest: Rest,
}

/// What follows the known part of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Nothing: the whole name is known, but not whether there is a file.
    Nothing,
    /// `.005t.original`, `.015t.cfg.dot`: the number of a pass, its kind, its name.
    Pass,
}

impl Loose {
    /// Whether a file of this name in `dir` is one of them.
    pub fn holds(&self, name: &OsStr) -> bool {
        let Some(rest) = name.as_encoded_bytes().strip_prefix(self.stem.as_encoded_bytes()) else { return false };
        match self.rest {
            Rest::Nothing => rest.is_empty(),
            Rest::Pass => is_pass(rest),
        }
    }
}

/// Names of passes are identifiers, some with a number or a minus in them; graphs end in `.dot`.
fn is_pass(rest: &[u8]) -> bool {
    let Some(rest) = rest.strip_prefix(b".") else { return false };
    let digits = rest.iter().take_while(|c| c.is_ascii_digit()).count();
    let [kind, b'.', name @ ..] = &rest[digits..] else { return false };
    let name = name.strip_suffix(b".dot").unwrap_or(name);
    (3..=4).contains(&digits)
        && b"tril".contains(kind)
        && !name.is_empty()
        && name.iter().all(|c| c.is_ascii_alphanumeric() || b"_-+*".contains(c))
}

/// The form of the dependency file that a command writes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct DepsRule {
    /// The targets as they stand in the file, in order.
    pub targets: Vec<Vec<u8>>,
    /// `-MP`: one rule without prerequisites for every file but the source.
    pub phony: bool,
}

/// `-include` or `-imacros`: searched in the working directory first, then like `#include "..."`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forced {
    /// As spelled.
    pub path: PathBuf,
}

/// The directories that options put on the search path, each in command-line order, as spelled.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Search {
    /// `-iquote`.
    pub quote: Vec<PathBuf>,
    /// `-I` (gcc's `-I-` makes the job local).
    pub angled: Vec<PathBuf>,
    /// `-isystem`, `-cxx-isystem`, gcc's `-iwithprefix` resolved.
    pub system: Vec<PathBuf>,
    /// `-idirafter`.
    pub after: Vec<PathBuf>,
}

/// One compile that may travel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// All arguments without the program name that the worker's compiler gets: response files expanded, otherwise as typed.
    /// When a command with several inputs was split, only this input is left in.
    pub args: Vec<OsString>,
    /// The input, as spelled.
    pub source: PathBuf,
    /// Its language.
    pub language: Language,
    /// `-c` or `-S`.
    pub stop_at: StopAt,
    /// The object or assembly file. `/dev/null` is possible and must not be replaced.
    pub output: PathBuf,
    /// Outputs known beforehand, the first of them `output`: also dependency file, `.dwo`, `.gcno`, `.su`, temps.
    pub outputs: Vec<Output>,
    /// The dependency file, when one is written. The list in it is complete only if `deps_complete`.
    pub deps: Option<PathBuf>,
    /// The form of that file.
    pub deps_rule: DepsRule,
    /// Files beside `outputs` that options may make, under names that are not wholly known or not certain.
    pub loose: Vec<Loose>,
    /// `-MD` (true) or `-MMD` (false): whether system headers are listed.
    pub deps_complete: bool,
    /// Directories that may be written, as spelled ("" or "." is the working directory).
    pub output_dirs: Vec<PathBuf>,
    /// Search path options.
    pub search: Search,
    /// `-include`, `-imacros` in order.
    pub forced: Vec<Forced>,
    /// Other files that options name and the compiler reads (profile data, ignore lists, specs, `-include-pch`). Some are
    /// guesses at a name that the compiler makes up: one may not exist, or be a directory.
    pub named_inputs: Vec<PathBuf>,
    /// Directories that options name and the compiler looks into (`-B`, `--sysroot`, `-resource-dir`), to be listed
    /// completely: clang ignores a poisoned one silently. One may not exist, or be a file (`-fprofile-use=`).
    pub named_dirs: Vec<PathBuf>,
    /// The arguments that change the compiler's own search list or its choice of programs (`--sysroot`, `-B`,
    /// `-nostdinc`, `-stdlib=`, `-m32`, `--target=`, `-specs=`, `-std=` is not one), in order. The key for `-v -E` and `-###`.
    pub path_args: Vec<OsString>,
    /// Index into `args` of every `-march=native`, `-mtune=native`, `-mcpu=native`.
    pub native: Vec<usize>,
    /// `-nostdinc`: the compiler's own directories are not searched.
    pub nostdinc: bool,
    /// Whether the user chose colour (`-fdiagnostics-color…`, `-fcolor-diagnostics`); if not, a terminal decides.
    pub colour_chosen: bool,
}

/// What to do with a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// These compiles may travel; more than one when a command with several inputs was split, in input order.
    Remote(Vec<Plan>),
    /// Run it here as it is.
    Local(Reason),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_gcc_gives_its_dumps_are_dumps() {
        let loose = Loose { dir: PathBuf::new(), stem: "a.c".into(), rest: Rest::Pass };
        for name in
            ["a.c.005t.original", "a.c.015t.cfg.dot", "a.c.000i.ipa-clones", "a.c.230r.expand", "a.c.001l.class"]
        {
            assert!(loose.holds(OsStr::new(name)), "{name}");
        }
        for name in [
            "a.c",
            "a.c.",
            "a.c.005t",
            "a.c.005t.",
            "a.c.5t.x",
            "a.c.005x.original",
            "a.c.005t.original.sh",
            "b.c.005t.original",
            "a.c.005t.x/y",
            "a.c.005t..dot.mk",
            "a.c.mk",
            "a.c.00005t.x",
        ] {
            assert!(!loose.holds(OsStr::new(name)), "{name}");
        }
    }
}
