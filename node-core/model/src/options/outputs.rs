//! Predicts the files that a compile writes, named as the drivers name them, and how each treats an existing file.
//!
//! gcc's rules are those of its manual for `-dumpdir`, `-dumpbase` and `-dumpbase-ext` (gcc 11 and later), clang's those of
//! its driver. What is predicted too little is seen when it is written; what is predicted too much would hide a file.

use super::command::{Command, Source, Temps, path_buf};
use super::table::Side;
use crate::depfile;
use crate::plan::{DepsRule, Family, Language, Loose, Manner, Output, Rest, Role, StopAt};

/// The names that side outputs are made of.
struct Bases {
    /// Side outputs of the compiler: gcc's auxiliary name, clang's output without suffix.
    aux: Vec<u8>,
    /// gcc's dumps, with the source's suffix in it.
    dump: Vec<u8>,
    /// `-save-temps`.
    temps: Vec<u8>,
}

/// Everything that one compile writes.
pub(super) struct Outputs {
    /// The output proper first.
    pub(super) files: Vec<Output>,
    /// Files under names that are not wholly known, or that only some versions write.
    pub(super) loose: Vec<Loose>,
    /// The dependency file.
    pub(super) deps: Option<Vec<u8>>,
    /// Its form.
    pub(super) deps_rule: DepsRule,
    /// gcc's name for profile counts, without suffix.
    pub(super) counts_base: Vec<u8>,
}

fn split_dir(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1))
}

/// The last suffix of a file name with its dot, or nothing.
fn suffix(name: &[u8]) -> &[u8] {
    name.iter().rposition(|&b| b == b'.').map_or(&[], |at| &name[at..])
}

fn stem(name: &[u8]) -> &[u8] {
    &name[..name.len() - suffix(name).len()]
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The name of the output proper.
pub(super) fn main_output(command: &Command, source: &[u8], stop_at: StopAt) -> Vec<u8> {
    if let Some(output) = command.output {
        return output.to_vec();
    }
    let suffix: &[u8] = match (stop_at, command.emit_llvm) {
        (StopAt::Object, false) => b".o",
        (StopAt::Assembly, false) => b".s",
        (StopAt::Object, true) => b".bc",
        (StopAt::Assembly, true) => b".ll",
    };
    join(&[stem(split_dir(source).1), suffix])
}

fn gcc_bases(command: &Command, source: &[u8]) -> Bases {
    let written = &command.written;
    let source_name = split_dir(source).1;
    let output = command.output.filter(|o| *o != b"/dev/null");
    let (base, ext) = match (written.dump_base, output) {
        // A suffix of `-dumpbase` goes only when `-dumpbase-ext` names it.
        (Some(base), _) => (base.to_vec(), written.dump_base_ext.unwrap_or_default()),
        (None, Some(output)) => {
            let ext = written.dump_base_ext.unwrap_or(suffix(source_name));
            (join(&[stem(split_dir(output).1), ext]), ext)
        }
        (None, None) => (source_name.to_vec(), written.dump_base_ext.unwrap_or(suffix(source_name))),
    };
    let dir = match (written.dump_dir, output) {
        (Some(dir), _) => dir,
        (None, Some(output)) if written.temps != Some(Temps::Cwd) => split_dir(output).0,
        _ => b"",
    };
    let dump = if base.contains(&b'/') { base } else { join(&[dir, &base]) };
    let aux = dump.strip_suffix(ext).unwrap_or(&dump).to_vec();
    Bases { temps: aux.clone(), aux, dump }
}

fn clang_bases(command: &Command, source: &[u8]) -> Bases {
    let source_stem = stem(split_dir(source).1);
    let (dir, name) = command.output.map_or((&b""[..], source_stem), |o| {
        let (dir, name) = split_dir(o);
        (dir, stem(name))
    });
    let temps_dir = if command.written.temps == Some(Temps::Obj) { dir } else { b"" };
    let aux = join(&[dir, name]);
    Bases { dump: aux.clone(), aux, temps: join(&[temps_dir, source_stem]) }
}

fn temp_suffixes(command: &Command, language: Language, stop_at: StopAt) -> Vec<&'static [u8]> {
    let clang = command.inv.family == Family::Clang;
    let mut out: Vec<&[u8]> = match language {
        Language::C => vec![b".i"],
        Language::Cxx => vec![b".ii"],
        Language::ObjC => vec![b".mi"],
        Language::ObjCxx if clang => vec![b".mii", b".mi"],
        Language::ObjCxx => vec![b".mii"],
        Language::CppOutput | Language::CxxCppOutput | Language::ObjCppOutput => vec![],
        Language::AsmWithCpp | Language::Asm => vec![],
    };
    if clang && language.is_preprocessed_here() && language != Language::AsmWithCpp {
        out.push(b".bc");
    }
    if stop_at == StopAt::Object && !(clang && (command.lto || command.emit_llvm)) {
        out.push(b".s");
    }
    out
}

/// How the output proper treats an existing file.
fn main_manner(command: &Command, language: Language, stop_at: StopAt) -> Manner {
    match (command.inv.family, stop_at) {
        // cc1 opens the file that is there.
        (Family::Gcc, StopAt::Assembly) => Manner::Truncate,
        (Family::Gcc, StopAt::Object) => Manner::Replace,
        // `clang -cc1as`, which assembles what was saved or written as assembler, opens the file that is there.
        (Family::Clang, StopAt::Object)
            if command.integrated_as
                && !command.lto
                && !command.emit_llvm
                && (command.written.temps.is_some() || matches!(language, Language::AsmWithCpp | Language::Asm)) =>
        {
            Manner::Truncate
        }
        (Family::Clang, _) => Manner::Rename,
    }
}

/// All files that the compile of `source` writes.
pub(super) fn predict(command: &Command, source: &Source, stop_at: StopAt) -> Outputs {
    use std::os::unix::ffi::OsStrExt;
    let path = command.args[source.index].as_bytes();
    let clang = command.inv.family == Family::Clang;
    let bases = if clang { clang_bases(command, path) } else { gcc_bases(command, path) };
    let main = main_output(command, path, stop_at);
    // clang writes serialized diagnostics and saved files beside the old ones and renames.
    let temp_manner = if clang { Manner::Rename } else { Manner::Truncate };
    let main_is_null = main == b"/dev/null";
    let main_manner = if main_is_null { Manner::Truncate } else { main_manner(command, source.language, stop_at) };
    let mut files = vec![output(&main, main_manner, Role::Main)];

    let deps = deps_name(command, path, source.language, &bases);
    files.extend(deps.as_deref().map(|d| output(d, Manner::Truncate, Role::Dependencies)));
    let deps_rule = deps.as_ref().map(|_| deps_rule(command, path)).unwrap_or_default();
    if command.written.temps.is_some() {
        for suffix in temp_suffixes(command, source.language, stop_at) {
            files.push(output(&join(&[&bases.temps, suffix]), temp_manner, Role::Beside));
        }
    }
    let Beside { known, loose } = beside(command, source, stop_at, &bases, main_is_null);
    files.extend(known.into_iter().map(|(path, manner)| output(&path, manner, Role::Beside)));
    if let Some(notes) = command.written.notes_file {
        files.push(output(notes, Manner::Truncate, Role::Named));
    }
    for named in command.written.named.iter().filter(|n| !n.ends_with(b"/")) {
        let manner = if named.ends_with(b".dia") { temp_manner } else { Manner::Truncate };
        files.push(output(named, manner, Role::Named));
    }
    if stop_at == StopAt::Object {
        files.extend(command.written.by_assembler.iter().map(|f| output(f, Manner::Truncate, Role::Named)));
    }
    Outputs { files, loose, deps, deps_rule, counts_base: bases.aux }
}

fn output(path: &[u8], manner: Manner, role: Role) -> Output {
    Output { path: path_buf(path), manner, role }
}

/// Files under names of the compiler's own making.
struct Beside {
    known: Vec<(Vec<u8>, Manner)>,
    loose: Vec<Loose>,
}

fn loose(path: &[u8], rest: Rest) -> Loose {
    let (dir, stem) = split_dir(path);
    Loose { dir: path_buf(dir), stem: path_buf(stem).into_os_string(), rest }
}

fn beside(command: &Command, source: &Source, stop_at: StopAt, bases: &Bases, main_is_null: bool) -> Beside {
    use std::os::unix::ffi::OsStrExt;
    let path = command.args[source.index].as_bytes();
    let clang = command.inv.family == Family::Clang;
    let (mut files, mut unsure) = (Vec::new(), Vec::new());
    for (side, value) in &command.written.beside {
        let aux = |suffix: &[u8]| (join(&[&bases.aux, suffix]), Manner::Truncate);
        let dump = |suffix: &[u8]| (join(&[&bases.dump, suffix]), Manner::Truncate);
        match side {
            // Only the assembler's own; nothing is compiled.
            side if source.language == Language::AsmWithCpp && *side != Side::SplitDwarf => {}
            Side::StackUsage => files.push(aux(b".su")),
            Side::Callgraph => files.push(aux(b".ci")),
            Side::Notes if command.written.notes_file.is_none() => files.push(aux(b".gcno")),
            Side::Notes => {}
            Side::SplitDwarf if clang && !command.object => {
                files.push((join(&[stem(split_dir(path).1), b".dwo"]), Manner::Truncate));
            }
            Side::SplitDwarf if clang => files.push(aux(b".dwo")),
            // Cut out of the object by objcopy, so there is none without an object.
            Side::SplitDwarf if stop_at == StopAt::Object && !main_is_null => {
                files.push((aux(b".dwo").0, Manner::Replace));
            }
            Side::SplitDwarf => {}
            Side::TimeTrace => files.push(aux(b".json")),
            Side::OptRecord if clang => files.push(aux(&join(&[b".opt.", value.unwrap_or(b"yaml")]))),
            Side::OptRecord => files.push(dump(b".opt-record.json.gz")),
            Side::IpaClones => files.push(dump(b".000i.ipa-clones")),
            Side::FinalInsns => files.push(dump(b".gkd")),
            Side::Analyzer => files.push(dump(b".analyzer.txt")),
            Side::Dumps => unsure.push(loose(&bases.dump, Rest::Pass)),
            Side::AdaSpec => {
                let name: Vec<u8> =
                    split_dir(path).1.iter().map(|&b| if b.is_ascii_alphanumeric() { b } else { b'_' }).collect();
                files.push((join(&[&name, b".ads"]), Manner::Truncate));
            }
            Side::JsonDiagnostics | Side::SarifDiagnostics => {
                // Versions of gcc differ in whether it goes beside the other dumps.
                let suffix: &[u8] = if *side == Side::JsonDiagnostics { b".gcc.json" } else { b".sarif" };
                let (beside, here) = (dump(suffix).0, join(&[split_dir(&bases.dump).1, suffix]));
                unsure.extend([beside, here].map(|path| loose(&path, Rest::Nothing)));
            }
        }
    }
    for folder in command.written.named.iter().filter(|n| n.ends_with(b"/")) {
        // `-ftime-trace=folder/` of later clangs.
        unsure.push(loose(&join(&[folder, split_dir(&bases.aux).1, b".json"]), Rest::Nothing));
    }
    Beside { known: files, loose: unsure }
}

/// The targets of the dependency file as the driver gives them, and the compiler writes them.
fn deps_rule(command: &Command, source: &[u8]) -> DepsRule {
    let asked = &command.deps;
    let gcc = command.inv.family == Family::Gcc;
    let plain = |text| if gcc { without_here(text) } else { text };
    let given = asked.targets.iter().map(|&(quoted, text)| match quoted {
        true => depfile::quote(plain(text)),
        false => plain(text).to_vec(),
    });
    let mut targets: Vec<Vec<u8>> = Vec::new();
    if gcc {
        // cpplib puts those that it does not quote before the others.
        let (quoted, plain): (Vec<_>, Vec<_>) = asked.targets.iter().zip(given).partition(|((quoted, _), _)| *quoted);
        targets.extend(plain.into_iter().chain(quoted).map(|(_, text)| text));
    } else {
        targets.extend(given);
    }
    if targets.is_empty() {
        // gcc's driver names the output only where it was asked for the list itself, and not through `-Wp,`.
        let output = command.output.filter(|_| !gcc || asked.by_driver);
        let name = output.map_or_else(|| join(&[stem(split_dir(source).1), b".o"]), <[u8]>::to_vec);
        targets.push(depfile::quote(plain(&name)));
    }
    DepsRule { targets, phony: asked.phony }
}

/// A target without the `./` that it begins with, as cpplib writes it.
fn without_here(mut target: &[u8]) -> &[u8] {
    while let Some(rest) = target.strip_prefix(b"./") {
        let slashes = rest.iter().take_while(|&&c| c == b'/').count();
        target = &rest[slashes..];
    }
    target
}

fn deps_name(command: &Command, source: &[u8], language: Language, bases: &Bases) -> Option<Vec<u8>> {
    let deps = &command.deps;
    if !(deps.all || deps.user) || !language.is_preprocessed_here() {
        return None;
    }
    let name = match (deps.preprocessor_file.or(deps.file), command.output) {
        (Some(file), _) => file.to_vec(),
        (None, Some(output)) => {
            let (dir, name) = split_dir(output);
            join(&[dir, stem(name), b".d"])
        }
        (None, None) if command.inv.family == Family::Gcc => join(&[&bases.aux, b".d"]),
        (None, None) => join(&[stem(split_dir(source).1), b".d"]),
    };
    (name != b"/dev/null").then_some(name)
}
