//! Reads a command by the tables into what it asks for. Makes no plan and predicts no names: that is `outputs` and `plans`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::names::{Kind, kind_of_file, kind_of_language};
use super::table::{Deps, Entry, Index, Meaning, Place, Profile, Side, Stream, driver, stream};
use super::{Invocation, outside};
use crate::plan::{Family, Forced, Language, Search};
use crate::reason::Reason;

/// An input and where it stands in the arguments.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) index: usize,
    pub(super) language: Language,
}

/// Where `-save-temps` puts its files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Temps {
    Default,
    Cwd,
    Obj,
}

/// The files that a command writes besides its output, as far as options tell.
#[derive(Debug, Default)]
pub(super) struct Written<'a> {
    pub(super) temps: Option<Temps>,
    pub(super) beside: Vec<(Side, Option<&'a [u8]>)>,
    pub(super) notes_file: Option<&'a [u8]>,
    pub(super) named: Vec<&'a [u8]>,
    pub(super) by_assembler: Vec<&'a [u8]>,
    pub(super) dump_dir: Option<&'a [u8]>,
    pub(super) dump_base: Option<&'a [u8]>,
    pub(super) dump_base_ext: Option<&'a [u8]>,
}

/// The dependency options together.
#[derive(Debug, Default)]
pub(super) struct DepsAsked<'a> {
    pub(super) all: bool,
    pub(super) user: bool,
    pub(super) file: Option<&'a [u8]>,
    /// Named through `-Wp,-MD,file`, which overrides the driver's own name.
    pub(super) preprocessor_file: Option<&'a [u8]>,
    /// `-MT` as typed (false) and `-MQ` to be quoted (true), in order.
    pub(super) targets: Vec<(bool, &'a [u8])>,
    /// `-MP`.
    pub(super) phony: bool,
    /// `-MD` or `-MMD` was given to the driver itself, which then tells the compiler the target.
    pub(super) by_driver: bool,
    text: bool,
}

/// What a command asks for.
pub(super) struct Command<'a> {
    pub(super) inv: &'a Invocation<'a>,
    /// The arguments, response files expanded.
    pub(super) args: &'a [OsString],
    pub(super) sources: Vec<Source>,
    /// There are inputs for the linker, or what an unknown option made to look like one.
    pub(super) linker_inputs: bool,
    /// Index and number of arguments of every `-x`.
    pub(super) languages: Vec<(usize, usize)>,
    pub(super) output: Option<&'a [u8]>,
    pub(super) object: bool,
    pub(super) assembly: bool,
    pub(super) deps: DepsAsked<'a>,
    pub(super) written: Written<'a>,
    pub(super) search: Search,
    pub(super) forced: Vec<Forced>,
    pub(super) named_inputs: Vec<PathBuf>,
    pub(super) named_dirs: Vec<PathBuf>,
    pub(super) path_args: Vec<OsString>,
    pub(super) native: Vec<usize>,
    pub(super) counts: bool,
    pub(super) counts_dir: Option<&'a [u8]>,
    pub(super) nostdinc: bool,
    pub(super) colour_chosen: bool,
    pub(super) lto: bool,
    pub(super) emit_llvm: bool,
    pub(super) integrated_as: bool,
    kind: Option<Kind>,
    prefix: Option<&'a [u8]>,
    sysroot: Option<&'a [u8]>,
    /// `-I=dir`: resolved when every option is read, because `--sysroot` may follow. Position in `search` to fill.
    rooted: Vec<(Place, usize, &'a [u8])>,
    arch: Option<&'a [u8]>,
    streams: [Vec<&'a [u8]>; 3],
    cwd_is_outside: bool,
    local: Option<Reason>,
}

/// The lower, the more the reason says about the whole command.
fn rank(reason: &Reason) -> u8 {
    match reason {
        Reason::QueryInvocation => 0,
        Reason::PreprocessOnly => 1,
        Reason::BadCommand | Reason::LimitHit => 2,
        Reason::PchCreate | Reason::ModuleScan => 3,
        Reason::Link => 4,
        Reason::Probe => 5,
        Reason::SourceFromStdin | Reason::UnsupportedLanguage | Reason::AssembleUnsafe => 6,
        Reason::MultipleSources | Reason::OutputToStdout => 7,
        Reason::PathOutsideRoot => 9,
        _ => 8,
    }
}

impl<'a> Command<'a> {
    /// Reads `args`, which are those of `inv` with response files expanded.
    pub(super) fn read(inv: &'a Invocation<'a>, args: &'a [OsString]) -> Self {
        let mut command = Self {
            inv,
            args,
            sources: Vec::new(),
            linker_inputs: false,
            languages: Vec::new(),
            output: None,
            object: false,
            assembly: false,
            deps: DepsAsked::default(),
            written: Written::default(),
            search: Search::default(),
            forced: Vec::new(),
            named_inputs: Vec::new(),
            named_dirs: Vec::new(),
            path_args: Vec::new(),
            native: Vec::new(),
            counts: false,
            counts_dir: None,
            nostdinc: false,
            colour_chosen: false,
            lto: false,
            emit_llvm: false,
            integrated_as: true,
            kind: None,
            prefix: None,
            sysroot: None,
            rooted: Vec::new(),
            arch: None,
            streams: Default::default(),
            cwd_is_outside: outside(inv.cwd, Path::new("")),
            local: None,
        };
        command.read_driver();
        for (which, name) in [(Stream::Preprocessor, "-Wp,"), (Stream::Assembler, "-Wa,"), (Stream::Cc1, "-Xclang ")] {
            let parts = std::mem::take(&mut command.streams[which as usize]);
            command.read_stream(which, name, &parts);
        }
        command.resolve_rooted();
        command.check_deps();
        command
    }

    /// Keeps the command here; the reason that says most wins, the first one among equals.
    pub(super) fn refuse(&mut self, reason: Reason) {
        if self.local.as_ref().is_none_or(|old| rank(&reason) < rank(old)) {
            self.local = Some(reason);
        }
    }

    /// Why the command stays here, if it does.
    pub(super) fn refusal(&self) -> Option<&Reason> {
        self.local.as_ref()
    }

    /// Refuses a path that a worker cannot have.
    pub(super) fn check_path(&mut self, path: &[u8]) {
        let path = Path::new(OsStr::from_bytes(path));
        // A relative path without `..` is outside exactly when the working directory is.
        let plain = path.is_relative() && !path.as_os_str().as_bytes().windows(2).any(|w| w == b"..");
        if if plain { self.cwd_is_outside } else { outside(self.inv.cwd, path) } {
            self.refuse(Reason::PathOutsideRoot);
        }
    }

    fn read_driver(&mut self) {
        let table = driver(self.inv.family);
        let args = self.args;
        let mut only_inputs = false;
        let mut at = 0;
        while let Some(arg) = args.get(at).map(|a| a.as_bytes()) {
            let index = at;
            at += 1;
            if only_inputs || arg.first() != Some(&b'-') || arg == b"-" {
                self.input(index, arg);
                continue;
            }
            let Some(entry) = table.find(arg) else {
                self.unsupported("", arg);
                continue;
            };
            let value = if entry.takes_next(arg) {
                let Some(next) = args.get(at) else {
                    self.refuse(Reason::BadCommand);
                    return;
                };
                at += 1;
                Some(next.as_bytes())
            } else {
                entry.joined_value(arg)
            };
            if entry.path {
                self.path_args.extend_from_slice(&args[index..at]);
            }
            match &entry.meaning {
                Meaning::EndOfOptions => only_inputs = true,
                Meaning::Language => {
                    self.languages.push((index, at - index));
                    self.kind = kind_of_language(value.unwrap_or_default());
                }
                Meaning::Cpu if is_native(value) => self.native.push(index),
                Meaning::Pass(which) => self.pass(*which, entry, value.unwrap_or_default()),
                Meaning::Deps(deps) => {
                    self.deps.by_driver |= matches!(deps, Deps::All | Deps::User);
                    self.driver_deps(*deps, value);
                }
                Meaning::Search(place) => self.search_dir(*place, value.unwrap_or_default(), arg),
                meaning => self.apply(meaning, "", arg, value),
            }
        }
    }

    fn read_stream(&mut self, which: Stream, name: &str, parts: &[&'a [u8]]) {
        let table: &Index = stream(which);
        let mut parts = parts.iter().copied();
        while let Some(arg) = parts.next() {
            if which == Stream::Assembler && arg.first() != Some(&b'-') {
                // Another source for the assembler; `@file` holds more options, an empty part is its mistake to report.
                match arg.first() {
                    Some(b'@') | None => self.unsupported(name, arg),
                    Some(_) => self.apply(&Meaning::Input, name, arg, Some(arg)),
                }
                continue;
            }
            let Some(entry) = table.find(arg).filter(|_| arg != b"-") else {
                self.unsupported(name, arg);
                continue;
            };
            let value = if entry.takes_next(arg) {
                let Some(next) = parts.next() else {
                    self.unsupported(name, arg);
                    return;
                };
                Some(next)
            } else {
                entry.joined_value(arg)
            };
            match (&entry.meaning, which) {
                (Meaning::Deps(deps), _) => self.preprocessor_deps(*deps, value),
                (Meaning::Search(place), _) => self.search_dir(*place, value.unwrap_or_default(), arg),
                // A worker's own CPU would be meant, and no index into the arguments can say so.
                (Meaning::Cpu, _) if is_native(value) => self.refuse(Reason::MarchNative),
                (Meaning::Writes | Meaning::Listing, Stream::Assembler) => {
                    let file = match entry.meaning {
                        Meaning::Listing => {
                            value.and_then(|v| v.iter().position(|&b| b == b'=').map(|at| &v[at + 1..]))
                        }
                        _ => value,
                    };
                    match file {
                        Some(file) if !file.is_empty() => self.written.by_assembler.push(file),
                        _ => self.refuse(Reason::OutputToStdout),
                    }
                    // clang's own assembler knows neither.
                    if self.inv.family == Family::Clang {
                        self.unsupported(name, arg);
                    }
                }
                (meaning, _) => self.apply(meaning, name, arg, value),
            }
        }
    }

    fn pass(&mut self, which: Stream, entry: &Entry, value: &'a [u8]) {
        let parts = &mut self.streams[which as usize];
        match entry.attach {
            super::table::Attach::Commas => parts.extend(value.split(|&b| b == b',')),
            _ => parts.push(value),
        }
    }

    fn input(&mut self, index: usize, arg: &'a [u8]) {
        if arg.is_empty() || arg.starts_with(b"@") {
            // A response file that is not there, among others.
            return self.refuse(Reason::BadCommand);
        }
        if arg == b"-" || arg == b"/dev/stdin" {
            return self.refuse(Reason::SourceFromStdin);
        }
        let kind = match &self.kind {
            Some(kind) => kind.clone(),
            None => kind_of_file(arg, self.inv.family, self.inv.cxx),
        };
        match kind {
            Kind::Local(Reason::Link) => self.linker_inputs = true,
            Kind::Local(reason) => self.refuse(reason),
            Kind::Source(language) => self.sources.push(Source { index, language }),
        }
    }

    /// What an option means apart from where it was found.
    fn apply(&mut self, meaning: &Meaning, stream: &str, arg: &'a [u8], value: Option<&'a [u8]>) {
        let text = value.unwrap_or_default();
        match meaning {
            Meaning::Plain | Meaning::Linker | Meaning::Cpu => {}
            Meaning::Word if is_word(text, is_number) => {}
            Meaning::Llvm if is_llvm_word(text) => {}
            Meaning::WordValue if is_word_value(text, |v| !v.contains(&b'/')) => {}
            Meaning::Debug if is_word_value(text, |v| v.iter().all(u8::is_ascii_alphanumeric)) => {}
            Meaning::Word | Meaning::WordValue | Meaning::Debug | Meaning::Llvm | Meaning::Unsupported => {
                self.unsupported(stream, arg);
            }
            Meaning::Local(reason) => self.refuse(reason.clone()),
            Meaning::Object => self.object = true,
            Meaning::Assembly => self.assembly = true,
            Meaning::Prefix => self.prefix = Some(text),
            Meaning::WithPrefix(gcc, clang) => match self.prefix {
                Some(prefix) => {
                    let place = if self.inv.family == Family::Gcc { *gcc } else { *clang };
                    let path = [prefix, text].concat();
                    self.check_path(&path);
                    self.place(place).push(path_buf(&path));
                }
                // The compiler's own prefix is not known here.
                None => self.unsupported(stream, arg),
            },
            Meaning::Forced => {
                self.check_input(text);
                if text != b"/dev/null" {
                    self.forced.push(Forced { path: path_buf(text) });
                }
            }
            Meaning::Input => {
                self.check_input(text);
                if text != b"/dev/null" {
                    self.named_inputs.push(path_buf(text));
                }
            }
            Meaning::Dir => self.dir(text),
            Meaning::Sysroot => {
                self.sysroot = Some(text);
                if !text.is_empty() {
                    self.dir(text);
                }
            }
            Meaning::ProgramPrefix => {
                self.dir(text);
                // `-Bdir/arm-` is the beginning of names in `dir`.
                if let Some(slash) = text.iter().rposition(|&b| b == b'/').filter(|&at| at + 1 < text.len()) {
                    self.dir(&text[..slash.max(1)]);
                }
            }
            Meaning::Profile(profile) => self.profile(*profile, value),
            Meaning::Output => self.set_output(text),
            Meaning::Writes => self.writes(text),
            Meaning::WritesOr(side) => match after_equals(arg) {
                Some(b"stderr") | Some(b"stdout") | Some(b"-") => {}
                Some(b"") => self.unsupported(stream, arg),
                Some(b".") | None => self.written.beside.push((*side, None)),
                Some(file) => self.writes(file),
            },
            Meaning::WritesOrStderr => match after_equals(arg) {
                Some(b"stderr") | Some(b"stdout") | Some(b"-") | None => {}
                Some(file) => self.writes(file),
            },
            Meaning::NotesFile => self.written.notes_file = Some(text),
            Meaning::Beside(side) => self.written.beside.push((*side, value)),
            Meaning::SplitDwarf => match value {
                None | Some(b"split") => self.written.beside.push((Side::SplitDwarf, None)),
                Some(b"single") => {}
                Some(_) => self.unsupported(stream, arg),
            },
            Meaning::SaveTemps => match value {
                None => self.written.temps = Some(Temps::Default),
                Some(b"cwd") => self.written.temps = Some(Temps::Cwd),
                Some(b"obj") => self.written.temps = Some(Temps::Obj),
                Some(_) => self.unsupported(stream, arg),
            },
            Meaning::DiagnosticsFormat => match text {
                b"json-file" => self.written.beside.push((Side::JsonDiagnostics, None)),
                b"sarif-file" => self.written.beside.push((Side::SarifDiagnostics, None)),
                _ => {}
            },
            // `auto` leaves it to the terminal again.
            Meaning::Colour => self.colour_chosen = value != Some(b"auto"),
            Meaning::DumpLetters => {
                if text.is_empty()
                    || !text.iter().all(u8::is_ascii_alphabetic)
                    || text.iter().any(|b| b"HM".contains(b))
                {
                    self.unsupported(stream, arg);
                } else if !text.iter().all(|b| b"ADINPUp".contains(b)) {
                    self.written.beside.push((Side::Dumps, None));
                }
            }
            Meaning::Arch => {
                if self.arch.replace(text).is_some_and(|old| old != text) {
                    self.unsupported(stream, arg);
                }
                self.path_args.extend([OsString::from("-arch"), OsStr::from_bytes(text).to_owned()]);
            }
            Meaning::DumpDir => self.written.dump_dir = Some(text),
            Meaning::DumpBase if text.is_empty() => self.unsupported(stream, arg),
            Meaning::DumpBase => self.written.dump_base = Some(text),
            Meaning::DumpBaseExt => self.written.dump_base_ext = Some(text),
            Meaning::Lto => self.lto = true,
            Meaning::EmitLlvm => self.emit_llvm = true,
            Meaning::IntegratedAs(on) => self.integrated_as = *on,
            Meaning::NoStdinc => self.nostdinc = true,
            // Read where they were found, because they need the position or the table.
            Meaning::Search(_) | Meaning::Deps(_) | Meaning::Language => self.unsupported(stream, arg),
            Meaning::Pass(_) | Meaning::Listing | Meaning::EndOfOptions => self.unsupported(stream, arg),
        }
    }

    /// Names the option without its value, so that equal reasons are counted together.
    fn unsupported(&mut self, stream: &str, arg: &[u8]) {
        let end = arg.iter().position(|&b| b == b'=').unwrap_or(arg.len()).min(64);
        self.refuse(Reason::UnsupportedFlag(format!("{stream}{}", String::from_utf8_lossy(&arg[..end]))));
    }

    fn check_input(&mut self, path: &[u8]) {
        match path {
            b"" => self.refuse(Reason::BadCommand),
            b"-" | b"/dev/stdin" => self.refuse(Reason::SourceFromStdin),
            b"/dev/null" => {}
            _ => self.check_path(path),
        }
    }

    fn dir(&mut self, path: &[u8]) {
        if path.is_empty() {
            return self.refuse(Reason::BadCommand);
        }
        self.check_path(path);
        self.named_dirs.push(path_buf(path));
    }

    fn writes(&mut self, path: &'a [u8]) {
        match path {
            b"" => self.refuse(Reason::BadCommand),
            b"-" | b"/dev/stdout" | b"/dev/stderr" => self.refuse(Reason::OutputToStdout),
            b"/dev/null" => {}
            _ => self.written.named.push(path),
        }
    }

    fn set_output(&mut self, path: &'a [u8]) {
        match path {
            b"" => self.refuse(Reason::BadCommand),
            b"-" | b"/dev/stdout" | b"/dev/stderr" => self.refuse(Reason::OutputToStdout),
            // A folder cannot be an output: the compiler shall say so.
            _ if path.ends_with(b"/") || path.ends_with(b"/.") || path.ends_with(b"/..") => {
                self.refuse(Reason::BadCommand);
            }
            _ if path.ends_with(b".gch") || path.ends_with(b".pch") => self.refuse(Reason::PchCreate),
            _ if path.ends_with(b".pcm") => self.refuse(Reason::ModuleScan),
            // The drivers differ in whether the last of several wins.
            _ if self.output.is_some_and(|old| old != path) => self.refuse(Reason::BadCommand),
            _ => {}
        }
        self.output = Some(path);
    }

    fn place(&mut self, place: Place) -> &mut Vec<PathBuf> {
        match place {
            Place::Quote => &mut self.search.quote,
            Place::Angled => &mut self.search.angled,
            Place::System => &mut self.search.system,
            Place::After => &mut self.search.after,
        }
    }

    fn search_dir(&mut self, place: Place, dir: &'a [u8], arg: &[u8]) {
        if dir.is_empty() {
            return self.refuse(Reason::BadCommand);
        }
        if dir == b"-" {
            // `-I-` splits the search path in two.
            return self.refuse(Reason::UnsupportedFlag(String::from_utf8_lossy(&arg[..2]).into_owned() + "-"));
        }
        let rooted = dir.strip_prefix(b"=").or_else(|| dir.strip_prefix(b"$SYSROOT"));
        if let Some(rest) = rooted {
            let list = self.place(place);
            let at = list.len();
            list.push(PathBuf::new());
            self.rooted.push((place, at, rest));
            return;
        }
        self.check_path(dir);
        self.place(place).push(path_buf(dir));
    }

    /// `-I=dir` is below the sysroot. Which one gcc was built with is not known here, and clang reads it in its own way.
    fn resolve_rooted(&mut self) {
        for (place, at, rest) in std::mem::take(&mut self.rooted) {
            match self.sysroot {
                Some(root) if self.inv.family == Family::Gcc => {
                    let path = [root, rest].concat();
                    self.check_path(&path);
                    self.place(place)[at] = path_buf(&path);
                }
                _ => self.refuse(Reason::UnsupportedFlag("-I=".to_owned())),
            }
        }
    }

    fn driver_deps(&mut self, deps: Deps, value: Option<&'a [u8]>) {
        match deps {
            Deps::All => self.deps.all = true,
            Deps::User => self.deps.user = true,
            Deps::File => self.deps.file = value,
            Deps::Target => {
                self.deps.text = true;
                self.deps.targets.push((false, value.unwrap_or_default()));
            }
            Deps::QuotedTarget => {
                self.deps.text = true;
                self.deps.targets.push((true, value.unwrap_or_default()));
            }
            Deps::Phony => {
                self.deps.text = true;
                self.deps.phony = true;
            }
        }
    }

    fn preprocessor_deps(&mut self, deps: Deps, value: Option<&'a [u8]>) {
        match deps {
            Deps::All | Deps::User => {
                if self.deps.preprocessor_file.is_some_and(|old| Some(old) != value) {
                    self.unsupported("-Wp,", b"-MD");
                }
                self.deps.preprocessor_file = value;
                self.driver_deps(deps, None);
            }
            Deps::File => self.deps.file = value,
            Deps::Phony => self.deps.phony = true,
            // Together with the driver's own targets their order is a matter of specs; clang passes them by.
            Deps::Target | Deps::QuotedTarget => {
                if self.inv.family == Family::Clang || self.deps.text || self.deps.by_driver {
                    return self.unsupported("-Wp,", b"-MT");
                }
                self.deps.targets.push((deps == Deps::QuotedTarget, value.unwrap_or_default()));
            }
        }
    }

    fn check_deps(&mut self) {
        let asked = self.deps.all || self.deps.user;
        if self.inv.family == Family::Gcc && !asked && (self.deps.file.is_some() || self.deps.text) {
            // gcc refuses them alone; clang passes them by.
            self.refuse(Reason::BadCommand);
        }
        if self.deps.preprocessor_file.is_some() && self.deps.file.is_some() {
            // Which name wins depends on the version.
            self.unsupported("-Wp,", b"-MD");
        }
        if asked {
            for file in [self.deps.file, self.deps.preprocessor_file].into_iter().flatten() {
                match file {
                    b"" => self.refuse(Reason::BadCommand),
                    b"-" | b"/dev/stdout" | b"/dev/stderr" => self.refuse(Reason::OutputToStdout),
                    _ => {}
                }
            }
        }
    }

    fn profile(&mut self, profile: Profile, value: Option<&'a [u8]>) {
        let value = value.filter(|v| !v.is_empty());
        if let Some(path) = value {
            self.check_path(path);
        }
        match profile {
            Profile::Counts => {
                self.counts = true;
                if value.is_some() {
                    self.counts_dir = value;
                }
            }
            Profile::Directory => self.counts_dir = self.counts_dir.or(value),
            Profile::Merged => {
                let base = value.map(path_buf).unwrap_or_default();
                self.named_inputs.push(base.join("default.profdata"));
                if value.is_some() {
                    self.named_inputs.push(base);
                }
            }
            Profile::Sampled => self.named_inputs.push(path_buf(value.unwrap_or(b"fbdata.afdo"))),
        }
    }
}

/// The bytes as a path.
pub(super) fn path_buf(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn is_native(value: Option<&[u8]>) -> bool {
    value.is_some_and(|v| v == b"native" || v.starts_with(b"native+"))
}

fn after_equals(arg: &[u8]) -> Option<&[u8]> {
    arg.iter().position(|&b| b == b'=').map(|at| &arg[at + 1..])
}

fn is_number(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(u8::is_ascii_digit) || value == b"true" || value == b"false"
}

/// Whether `text` is a word that cannot be a path, or `word=value` with a value that `allowed` accepts.
fn is_word(text: &[u8], allowed: impl Fn(&[u8]) -> bool) -> bool {
    let (word, value) = cut(text);
    word.iter().all(|b| b.is_ascii_alphanumeric() || b"-_+".contains(b)) && value.is_none_or(allowed)
}

/// As `is_word`, for families in which words have dots and commas: `-msse4.2`, `-Rpass=loop.*`.
fn is_word_value(text: &[u8], allowed: impl Fn(&[u8]) -> bool) -> bool {
    let (word, value) = cut(text);
    word.iter().all(|b| b.is_ascii_alphanumeric() || b"-_+.,:".contains(b)) && value.is_none_or(allowed)
}

/// Whether an option of LLVM itself (`-inline-threshold=3`) says that it has nothing to do with files or measurements.
fn is_llvm_word(text: &[u8]) -> bool {
    const FILES: [&[u8]; 18] = [
        b"file", b"path", b"dir", b"output", b"load", b"plugin", b"list", b"json", b"yaml", b"dot", b"report",
        b"stats", b"time", b"profile", b"trace", b"dump", b"import", b"remarks",
    ];
    let word = |v: &[u8]| v.iter().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b));
    is_word(text, |value| {
        is_number(value) || word(value) && !FILES.iter().any(|f| memchr::memmem::find(text, f).is_some())
    }) && !text.starts_with(b"-load")
}

fn cut(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|&b| b == b'=') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}
