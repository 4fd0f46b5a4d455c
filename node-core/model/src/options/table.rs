//! The types of the option table, its look-up and its text form. The rows are in `rows`; nothing here reads a command.

use std::fmt;
use std::sync::OnceLock;

use super::rows::{ASSEMBLER, CC1, DRIVER, PREPROCESSOR};
use crate::plan::Family;
use crate::reason::Reason;

/// Which drivers know an option in the meaning of its row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    /// gcc and clang.
    Both,
    /// gcc only.
    Gcc,
    /// clang only.
    Clang,
}

impl Families {
    fn holds(self, family: Family) -> bool {
        match self {
            Families::Both => true,
            Families::Gcc => family == Family::Gcc,
            Families::Clang => family == Family::Clang,
        }
    }
}

/// How an option takes its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attach {
    /// No value: the argument is the spelling.
    None,
    /// All that follows in the same argument; may be empty.
    Joined,
    /// The next argument.
    Separate,
    /// What follows in the same argument or, when nothing does, the next argument.
    Either,
    /// After `=` in the same argument.
    Equals,
    /// After `=`, or no value at all.
    MaybeEquals,
    /// After `=`, or the next argument.
    EqualsOrSeparate,
    /// After a comma, itself a list of arguments for another program.
    Commas,
}

/// Where a directory option puts its value in the search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// `-iquote`.
    Quote,
    /// `-I`.
    Angled,
    /// `-isystem`.
    System,
    /// `-idirafter`.
    After,
}

/// A file that a driver or compiler writes beside its output, under a name of its own making.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// `.su`.
    StackUsage,
    /// `.ci`.
    Callgraph,
    /// `.gcno`.
    Notes,
    /// `.dwo`.
    SplitDwarf,
    /// `.json` of clang.
    TimeTrace,
    /// `.opt.yaml` of clang, `.opt-record.json.gz` of gcc.
    OptRecord,
    /// `.000i.ipa-clones`.
    IpaClones,
    /// `.gkd`.
    FinalInsns,
    /// `.analyzer.txt` and its like.
    Analyzer,
    /// Dumps with a pass number in the name: only their directory is known.
    Dumps,
    /// `_c.ads` in the working directory.
    AdaSpec,
    /// `.gcc.json` of gcc 13.
    JsonDiagnostics,
    /// `.sarif` of gcc 13.
    SarifDiagnostics,
}

/// The dependency options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deps {
    /// `-MD`.
    All,
    /// `-MMD`.
    User,
    /// `-MF`.
    File,
    /// `-MT`: a target, as typed.
    Target,
    /// `-MQ`: a target, quoted for `make`.
    QuotedTarget,
    /// `-MP`: a rule for every header.
    Phony,
}

/// The programs behind the driver that can be given options of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// `-Wp,` and `-Xpreprocessor`.
    Preprocessor,
    /// `-Wa,` and `-Xassembler`.
    Assembler,
    /// `-Xclang`.
    Cc1,
}

/// Profile data that is read under a name which the compiler makes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// gcc: one `.gcda` per object.
    Counts,
    /// clang: a file, or `default.profdata` in a directory.
    Merged,
    /// gcc: a file, `fbdata.afdo` without a value.
    Sampled,
    /// gcc's `-fprofile-dir`: only says where `Counts` are looked for.
    Directory,
}

/// What an option means for a compile elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// Steers the compiler or its text; names no file and asks nothing about the machine. Travels as typed.
    Plain,
    /// As `Plain` if what follows is a word, optionally with `=number`; everything else is unknown. The fall-back of a
    /// family of options.
    Word,
    /// As `Plain` if what follows is a word, optionally with `=value` that cannot be a path.
    WordValue,
    /// For the linker, unused when nothing is linked.
    Linker,
    /// `-c`.
    Object,
    /// `-S`.
    Assembly,
    /// Always here, for a reason of its own.
    Local(Reason),
    /// Always here; the reason names the option.
    Unsupported,
    /// A directory of the include search.
    Search(Place),
    /// `-iprefix`.
    Prefix,
    /// `-iwithprefix…`: the value is appended to the last `-iprefix`. Places of gcc and of clang.
    WithPrefix(Place, Place),
    /// A file read before the source.
    Forced,
    /// A file that is read.
    Input,
    /// A directory that is looked into.
    Dir,
    /// A directory that a missing sysroot makes meaningless: the root for `-I=dir`.
    Sysroot,
    /// `-B`: a directory, or the beginning of file names.
    ProgramPrefix,
    /// Profile data.
    Profile(Profile),
    /// `-o`.
    Output,
    /// A file that is written under the given name.
    Writes,
    /// A file written under the given name, if it is given; `stderr`, `stdout` and `-` are no files.
    WritesOr(Side),
    /// gcc's `-fopt-info`: standard error, or the named file.
    WritesOrStderr,
    /// `-fprofile-note=`: names the `.gcno`.
    NotesFile,
    /// Files beside the output.
    Beside(Side),
    /// `-save-temps[=…]`.
    SaveTemps,
    /// `-fdiagnostics-format=`.
    DiagnosticsFormat,
    /// `-x`.
    Language,
    /// Dependency files.
    Deps(Deps),
    /// A CPU by name, or `native`.
    Cpu,
    /// The user's choice of colour.
    Colour,
    /// `-d<letters>` of gcc.
    DumpLetters,
    /// `-arch`: once.
    Arch,
    /// `-dumpdir`.
    DumpDir,
    /// `-dumpbase`.
    DumpBase,
    /// `-dumpbase-ext`.
    DumpBaseExt,
    /// `-g…`, its value being a word.
    Debug,
    /// `-gsplit-dwarf[=…]`.
    SplitDwarf,
    /// `-flto…`.
    Lto,
    /// `-emit-llvm`.
    EmitLlvm,
    /// `-fintegrated-as` (true), `-fno-integrated-as` (false).
    IntegratedAs(bool),
    /// `-nostdinc`.
    NoStdinc,
    /// `-mllvm`: a word, optionally with a number.
    Llvm,
    /// gas listings: `-a[cdghlmns][=file]`.
    Listing,
    /// Arguments of a program behind the driver.
    Pass(Stream),
    /// Everything after it is an input.
    EndOfOptions,
}

/// One row of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// As typed, without `=` and without a value.
    pub spelling: &'static str,
    /// Who knows it.
    pub families: Families,
    /// How its value is attached.
    pub attach: Attach,
    /// What it means.
    pub meaning: Meaning,
    /// Whether it can change the compiler's own search list or its choice of programs.
    pub path: bool,
}

impl Entry {
    /// Whether `arg` is this option, given that it begins with the spelling.
    fn fits(&self, arg: &[u8]) -> bool {
        let rest = &arg[self.spelling.len()..];
        match self.attach {
            Attach::None | Attach::Separate => rest.is_empty(),
            Attach::Joined | Attach::Either | Attach::Commas => true,
            Attach::Equals => rest.first() == Some(&b'='),
            Attach::MaybeEquals | Attach::EqualsOrSeparate => rest.is_empty() || rest[0] == b'=',
        }
    }

    /// Whether `arg`, which fits, has its value in the next argument.
    pub(super) fn takes_next(&self, arg: &[u8]) -> bool {
        let bare = arg.len() == self.spelling.len();
        match self.attach {
            Attach::Separate => true,
            Attach::Either | Attach::EqualsOrSeparate => bare,
            _ => false,
        }
    }

    /// The value inside `arg`, which fits and does not take the next argument.
    pub(super) fn joined_value<'a>(&self, arg: &'a [u8]) -> Option<&'a [u8]> {
        let rest = &arg[self.spelling.len()..];
        match self.attach {
            Attach::None | Attach::Separate => None,
            Attach::Joined | Attach::Either | Attach::Commas => Some(rest),
            Attach::Equals | Attach::MaybeEquals | Attach::EqualsOrSeparate => rest.get(1..),
        }
    }
}

/// One table made ready for look-up: sorted, and each row with the longest other row that begins it.
pub(super) struct Index {
    rows: Vec<(&'static Entry, Option<u16>)>,
}

impl Index {
    fn new(table: &'static [Entry], family: Family) -> Self {
        let mut rows: Vec<_> = table.iter().filter(|e| e.families.holds(family)).map(|e| (e, None)).collect();
        rows.sort_unstable_by_key(|(e, _)| e.spelling);
        let mut open: Vec<u16> = Vec::new();
        for i in 0..rows.len() {
            while open.last().is_some_and(|&o| !rows[i].0.spelling.starts_with(rows[o as usize].0.spelling)) {
                open.pop();
            }
            rows[i].1 = open.last().copied();
            open.push(i as u16);
        }
        Self { rows }
    }

    /// The row of `arg`: the longest spelling that begins it and whose way of taking a value fits.
    pub(super) fn find(&self, arg: &[u8]) -> Option<&'static Entry> {
        let mut at = self.rows.partition_point(|(e, _)| e.spelling.as_bytes() <= arg).checked_sub(1)?;
        loop {
            let (entry, parent) = self.rows[at];
            if arg.starts_with(entry.spelling.as_bytes()) && entry.fits(arg) {
                return Some(entry);
            }
            at = parent? as usize;
        }
    }
}

/// The driver's options of a family.
pub(super) fn driver(family: Family) -> &'static Index {
    static GCC: OnceLock<Index> = OnceLock::new();
    static CLANG: OnceLock<Index> = OnceLock::new();
    match family {
        Family::Gcc => GCC.get_or_init(|| Index::new(DRIVER, Family::Gcc)),
        Family::Clang => CLANG.get_or_init(|| Index::new(DRIVER, Family::Clang)),
    }
}

/// The options of a program behind the driver.
pub(super) fn stream(stream: Stream) -> &'static Index {
    static PP: OnceLock<Index> = OnceLock::new();
    static AS: OnceLock<Index> = OnceLock::new();
    static FRONT: OnceLock<Index> = OnceLock::new();
    match stream {
        Stream::Preprocessor => PP.get_or_init(|| Index::new(PREPROCESSOR, Family::Gcc)),
        Stream::Assembler => AS.get_or_init(|| Index::new(ASSEMBLER, Family::Gcc)),
        Stream::Cc1 => FRONT.get_or_init(|| Index::new(CC1, Family::Clang)),
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Meaning::Local(reason) => return write!(f, "runs here ({reason}): {}", reason.sentence()),
            Meaning::Plain | Meaning::Lto | Meaning::EmitLlvm | Meaning::IntegratedAs(_) | Meaning::NoStdinc => {
                "travels as typed"
            }
            Meaning::Word => {
                "travels if it is a word, or a word with a number; otherwise it could name a file and runs here"
            }
            Meaning::WordValue | Meaning::Debug => "travels unless its value could be a path",
            Meaning::Linker => "travels; only a link uses it",
            Meaning::Object => "compiles to an object: may travel",
            Meaning::Assembly => "compiles to assembly: may travel",
            Meaning::Unsupported => "runs here (unsupported-flag)",
            Meaning::Search(_) | Meaning::Prefix | Meaning::WithPrefix(..) => "travels; adds to the include search",
            Meaning::Forced => "travels with the file, which is read before the source",
            Meaning::Input => "travels with the file that it names",
            Meaning::Dir | Meaning::Sysroot | Meaning::ProgramPrefix => "travels with the directory that it names",
            Meaning::Profile(_) => "travels with the profile data",
            Meaning::Output => "names the output",
            Meaning::Writes | Meaning::NotesFile => "travels; the file that it names comes back",
            Meaning::WritesOr(_) | Meaning::WritesOrStderr => "travels; the file that it names, if any, comes back",
            Meaning::Beside(_) | Meaning::SaveTemps | Meaning::SplitDwarf => {
                "travels; the files beside the output come back"
            }
            Meaning::DiagnosticsFormat => "travels; a file of diagnostics comes back",
            Meaning::Language => "names the language of the inputs after it",
            Meaning::Deps(_) => "travels; the dependency file comes back",
            Meaning::Cpu => "travels; native is resolved here first",
            Meaning::Colour => "travels; the terminal no longer decides about colour",
            Meaning::DumpLetters => "travels; dumps come back",
            Meaning::Arch => "travels when given for one architecture",
            Meaning::DumpDir | Meaning::DumpBase | Meaning::DumpBaseExt => "travels; names the files beside the output",
            Meaning::Llvm => "travels if its value is a word, or a word with a number",
            Meaning::Listing => "travels with =file, which comes back; otherwise runs here (output-to-stdout)",
            Meaning::Pass(Stream::Preprocessor) => "read as options of the preprocessor",
            Meaning::Pass(Stream::Assembler) => "read as options of the assembler",
            Meaning::Pass(Stream::Cc1) => "read as options of clang -cc1",
            Meaning::EndOfOptions => "only inputs follow",
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = match self.attach {
            Attach::None => "",
            Attach::Joined => "VALUE",
            Attach::Separate => " VALUE",
            Attach::Either => "[ ]VALUE",
            Attach::Equals => "=VALUE",
            Attach::MaybeEquals => "[=VALUE]",
            Attach::EqualsOrSeparate => "=VALUE| VALUE",
            Attach::Commas => "VALUE,...",
        };
        let who = match self.families {
            Families::Both => "gcc clang",
            Families::Gcc => "gcc",
            Families::Clang => "clang",
        };
        write!(f, "{}{value}\t{who}\t{}", self.spelling, self.meaning)
    }
}

/// The whole table as lines of text: option, families and meaning, separated by tabs.
pub fn lines() -> impl Iterator<Item = String> {
    let sections: [(&str, &'static [Entry]); 4] =
        [("", DRIVER), ("-Wp,", PREPROCESSOR), ("-Wa,", ASSEMBLER), ("-Xclang ", CC1)];
    sections.into_iter().flat_map(|(prefix, table)| table.iter().map(move |entry| format!("{prefix}{entry}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_family_has_two_rows_of_one_spelling() {
        for table in [DRIVER, CC1, ASSEMBLER, PREPROCESSOR] {
            for family in [Family::Gcc, Family::Clang] {
                let mut names: Vec<_> = table.iter().filter(|e| e.families.holds(family)).map(|e| e.spelling).collect();
                names.sort_unstable();
                let twice = names.windows(2).find(|w| w[0] == w[1]);
                assert_eq!(twice, None, "{family:?}");
            }
        }
    }

    #[test]
    fn the_longest_spelling_that_fits_wins() {
        let gcc = driver(Family::Gcc);
        let spelling = |arg: &str| gcc.find(arg.as_bytes()).map(|e| e.spelling);
        assert_eq!(spelling("-fprofile-use"), Some("-fprofile-use"));
        assert_eq!(spelling("-fprofile-use=a"), Some("-fprofile-use"));
        assert_eq!(spelling("-fprofile-used"), Some("-f"));
        assert_eq!(spelling("-include"), Some("-include"));
        assert_eq!(spelling("-includex.h"), Some("-include"));
        assert_eq!(spelling("-cats"), None);
        assert_eq!(spelling("~"), None);
        assert_eq!(spelling(""), None);
    }

    #[test]
    fn the_look_up_agrees_with_a_search_of_every_row() {
        for family in [Family::Gcc, Family::Clang] {
            let index = driver(family);
            for entry in DRIVER {
                for tail in ["", "=", "x", "=x", "-x", "\u{ff}"] {
                    let arg = format!("{}{tail}", entry.spelling).into_bytes();
                    let slow = DRIVER
                        .iter()
                        .filter(|e| e.families.holds(family) && arg.starts_with(e.spelling.as_bytes()) && e.fits(&arg))
                        .max_by_key(|e| e.spelling.len());
                    assert_eq!(index.find(&arg), slow, "{}", String::from_utf8_lossy(&arg));
                }
            }
        }
    }

    #[test]
    fn the_text_form_explains_every_row() {
        let text: Vec<_> = lines().collect();
        assert_eq!(text.len(), DRIVER.len() + CC1.len() + ASSEMBLER.len() + PREPROCESSOR.len());
        assert!(
            text.iter().all(|line| line.split('\t').count() == 3 && line.split('\t').all(|c| !c.trim().is_empty()))
        );
        assert!(text.contains(&"-I[ ]VALUE\tgcc clang\ttravels; adds to the include search".to_owned()));
    }
}
