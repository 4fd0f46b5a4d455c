//! Understands a compiler command: argv becomes plans for compiles that may travel, or the reason why it runs here. Pure:
//! response files are read through `ReadFile`, and whether sources and folders exist is for others to see.
//!
//! Reading order: `table` and `rows` say what every option means, `names` what files and programs are, `response` expands
//! `@file`, `command` reads the arguments, `outputs` predicts what is written; the decision is here.

mod command;
mod names;
mod outputs;
mod response;
mod rows;
mod table;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::plan::{Family, Language, Plan, StopAt, Verdict};
use crate::reason::Reason;
use command::{Command, Source, path_buf};
use table::Meaning;

pub use names::family_of;
pub use table::lines;

/// A compiler command as it was started.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// Which driver it is.
    pub family: Family,
    /// Whether it is the C++ driver (g++, clang++).
    pub cxx: bool,
    /// The arguments without the program name.
    pub args: &'a [OsString],
    /// The working directory, absolute.
    pub cwd: &'a Path,
    /// The environment, as far as the wrapper sends it.
    pub env: &'a [(OsString, OsString)],
}

/// Reads response files; the only look at a disk that understanding needs.
pub trait ReadFile {
    /// The content of the file at the absolute `path`, or `None` if it cannot be read.
    fn read(&self, path: &Path) -> Option<Vec<u8>>;
}

/// Where the sandbox has its own files, so that those of the submitter cannot be shown.
const OUTSIDE: [&[u8]; 5] = [b"tmp", b"proc", b"dev", b"sys", b"run"];

/// Variables that make the compiler write or read what no option tells, or run what is not in the toolchain.
const STEERING: [&[u8]; 13] = [
    b"DEPENDENCIES_OUTPUT",
    b"SUNPRO_DEPENDENCIES",
    b"GCC_EXEC_PREFIX",
    b"COMPILER_PATH",
    b"GCC_COMPARE_DEBUG",
    b"CCC_OVERRIDE_OPTIONS",
    b"CC_PRINT_OPTIONS",
    b"CC_PRINT_HEADERS",
    b"CC_LOG_DIAGNOSTICS",
    b"CLANG_CONFIG_FILE_SYSTEM_DIR",
    b"CLANG_CONFIG_FILE_USER_DIR",
    b"LD_PRELOAD",
    b"LD_AUDIT",
];

/// Variables that are lists of include directories.
const SEARCHING: [&[u8]; 5] =
    [b"CPATH", b"C_INCLUDE_PATH", b"CPLUS_INCLUDE_PATH", b"OBJC_INCLUDE_PATH", b"OBJCPLUS_INCLUDE_PATH"];

/// Whether the command only asks the compiler something (`--version`, `-print-…`, `-v`). Cheap: reads no file.
pub fn is_query(family: Family, args: &[OsString]) -> bool {
    let table = table::driver(family);
    let mut args = args.iter().map(|a| a.as_bytes());
    while let Some(arg) = args.next() {
        if arg.first() != Some(&b'-') {
            continue;
        }
        let Some(entry) = table.find(arg) else { continue };
        match entry.meaning {
            Meaning::Local(Reason::QueryInvocation) => return true,
            Meaning::EndOfOptions => return false,
            _ if entry.takes_next(arg) => drop(args.next()),
            _ => {}
        }
    }
    false
}

/// Decides whether a command may travel, and what each of its compiles reads and writes.
pub fn understand(inv: &Invocation, files: &dyn ReadFile) -> Verdict {
    match response::expand(inv.args, inv.cwd, files) {
        Err(reason) => Verdict::Local(reason),
        Ok(args) => decide(Command::read(inv, &args)),
    }
}

fn decide(mut command: Command) -> Verdict {
    check_modes(&mut command);
    check_environment(&mut command);
    // Names of outputs are only predicted for commands that are otherwise fine.
    if let Some(reason) = command.refusal() {
        return Verdict::Local(reason.clone());
    }
    let stop_at = if command.assembly { StopAt::Assembly } else { StopAt::Object };
    let sources = std::mem::take(&mut command.sources);
    let plans: Vec<Plan> = sources.iter().map(|s| plan(&mut command, s, &sources, stop_at)).collect();
    if plans.len() > 1 {
        let mut seen = HashSet::new();
        if !plans.iter().flat_map(|p| &p.outputs).all(|o| seen.insert(&o.path)) {
            return Verdict::Local(Reason::MultipleSources);
        }
    }
    match command.refusal() {
        Some(reason) => Verdict::Local(reason.clone()),
        None => Verdict::Remote(plans),
    }
}

fn check_modes(command: &mut Command) {
    let args = command.args;
    if !command.object && !command.assembly {
        command.refuse(Reason::Link);
    }
    // An unknown option says more than the value that it left behind as an input.
    if command.refusal().is_none() {
        if command.linker_inputs {
            command.refuse(Reason::Link);
        } else if command.sources.is_empty() {
            command.refuse(Reason::BadCommand);
        }
    }
    if outside(command.inv.cwd, Path::new("")) {
        command.refuse(Reason::PathOutsideRoot);
    }
    for source in command.sources.clone() {
        let path = args[source.index].as_bytes();
        if names::is_probe(command.inv.cwd.as_os_str().as_bytes(), path) {
            command.refuse(Reason::Probe);
        }
        if source.language == Language::Asm {
            // `.include` and `.incbin` of plain assembler are not scanned for, and assembling takes no time.
            command.refuse(Reason::AssembleUnsafe);
        }
        if source.language == Language::AsmWithCpp && command.assembly {
            // The drivers then print the preprocessed text.
            command.refuse(Reason::PreprocessOnly);
        }
        command.check_path(path);
    }
    let written = &command.written;
    let one_name = command.output.is_some()
        || command.deps.file.is_some()
        || command.deps.preprocessor_file.is_some()
        || written.dump_base.is_some()
        || written.dump_dir.is_some()
        || written.notes_file.is_some()
        || !written.named.is_empty()
        || !written.by_assembler.is_empty();
    if command.sources.len() > 1 && one_name {
        command.refuse(Reason::MultipleSources);
    }
}

fn check_environment(command: &mut Command) {
    for (name, value) in command.inv.env {
        let name = name.as_bytes();
        if value.is_empty() {
            continue;
        }
        if STEERING.contains(&name) {
            command.refuse(Reason::Environment);
        } else if SEARCHING.contains(&name) {
            value.as_bytes().split(|&b| b == b':').for_each(|dir| command.check_path(dir));
        }
    }
}

fn plan(command: &mut Command, source: &Source, all: &[Source], stop_at: StopAt) -> Plan {
    let source_path = path_buf(command.args[source.index].as_bytes());
    let mut predicted = outputs::predict(command, source, stop_at);
    let output = predicted.files[0].path.clone();
    let is_read = command.named_inputs.contains(&output) || command.forced.iter().any(|f| f.path == output);
    if output == source_path || is_read {
        // What it reads would be gone when it is to be compiled again.
        command.refuse(Reason::BadCommand);
    }
    if predicted.deps.is_some() && has_line_break(command, source) {
        command.refuse(Reason::DependencyNames);
    }
    let mut named_inputs = command.named_inputs.clone();
    let mut named_dirs = command.named_dirs.clone();
    if command.counts {
        add_counts(command, &predicted.counts_base, &mut named_inputs, &mut named_dirs);
    }
    // A name that is read must not be hidden as an old output; neither may a name stand twice.
    let mut seen = HashSet::new();
    predicted.files.retain(|o| {
        let read =
            o.path == source_path || named_inputs.contains(&o.path) || command.forced.iter().any(|f| f.path == o.path);
        !read && seen.insert(o.path.clone())
    });
    let mut output_dirs: Vec<PathBuf> = Vec::new();
    let dirs = predicted.files.iter().filter(|o| o.path != Path::new("/dev/null"));
    let dirs = dirs.map(|o| o.path.parent().unwrap_or(Path::new("")).to_path_buf());
    for dir in dirs.chain(predicted.loose.iter().map(|l| l.dir.clone())) {
        if !output_dirs.contains(&dir) {
            command.check_path(dir.as_os_str().as_bytes());
            output_dirs.push(dir);
        }
    }
    let kept = kept_arguments(command, source, all);
    let native = command
        .native
        .iter()
        .map(|&index| kept.iter().position(|&k| k == index).expect("only inputs and -x are left out"));
    Plan {
        native: native.collect(),
        args: kept.iter().map(|&index| command.args[index].clone()).collect(),
        source: source_path,
        language: source.language,
        stop_at,
        output,
        outputs: predicted.files,
        deps: predicted.deps.map(|d| path_buf(&d)),
        deps_rule: predicted.deps_rule,
        loose: predicted.loose,
        deps_complete: command.deps.all && !command.deps.user,
        output_dirs,
        search: command.search.clone(),
        forced: command.forced.clone(),
        named_inputs,
        named_dirs,
        path_args: command.path_args.clone(),
        nostdinc: command.nostdinc,
        colour_chosen: command.colour_chosen,
    }
}

/// Whether a name that the dependency list begins with has a line break in it: compilers write it as it is, and then
/// nobody can tell where the list ends.
fn has_line_break(command: &Command, source: &Source) -> bool {
    let search = &command.search;
    let dirs = [&search.quote, &search.angled, &search.system, &search.after].into_iter().flatten();
    let paths = dirs.chain(command.forced.iter().map(|f| &f.path)).map(|path| path.as_os_str());
    let source = command.args[source.index].as_os_str();
    paths.chain([source, command.inv.cwd.as_os_str()]).any(|path| path.as_bytes().contains(&b'\n'))
}

/// Indices of the arguments that stay when a command with several inputs is split: without the other inputs, and without a
/// `-x` that would now follow the last input, of which gcc warns.
fn kept_arguments(command: &Command, source: &Source, all: &[Source]) -> Vec<usize> {
    let last = all.last().is_some_and(|s| s.index == source.index);
    let is_left_out = |index: usize| {
        all.iter().any(|s| s.index == index && s.index != source.index)
            || !last && command.languages.iter().any(|&(at, len)| at > source.index && (at..at + len).contains(&index))
    };
    (0..command.args.len()).filter(|&index| !is_left_out(index)).collect()
}

/// The names under which gcc looks for the profile of an object: beside it, or in a directory under its mangled full name.
fn add_counts(command: &Command, base: &[u8], inputs: &mut Vec<PathBuf>, dirs: &mut Vec<PathBuf>) {
    let file = [base, b".gcda"].concat();
    let Some(dir) = command.counts_dir else {
        inputs.push(path_buf(&file));
        return;
    };
    let dir = path_buf(dir);
    // gcc's `mangle_path`: `/` becomes `#` and `..` becomes `^`; a `.` stays.
    let full = command.inv.cwd.join(path_buf(&file));
    let parts = full.as_os_str().as_bytes().split(|&b| b == b'/');
    let mangled = parts.map(|p| if p == b".." { b"^" } else { p }).collect::<Vec<_>>().join(&b'#');
    inputs.push(dir.join(OsStr::from_bytes(&mangled)));
    inputs.push(dir.join(path_buf(&file)));
    inputs.push(dir.clone());
    dirs.push(dir);
}

/// Whether `path`, seen from `cwd`, lies where the sandbox has its own files.
fn outside(cwd: &Path, path: &Path) -> bool {
    let mut parts: Vec<&[u8]> = Vec::new();
    let cwd = if path.is_absolute() { Path::new("/") } else { cwd };
    for component in cwd.components().chain(path.components()) {
        match component {
            Component::RootDir => parts.clear(),
            Component::Normal(name) => parts.push(name.as_bytes()),
            Component::ParentDir => drop(parts.pop()),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts.first().is_some_and(|first| OUTSIDE.contains(first))
}
