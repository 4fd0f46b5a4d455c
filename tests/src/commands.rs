//! Turns what build systems would run (`make -n`, `compile_commands.json`) into compile commands without a compiler.
//! Pure text work.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One file to be compiled: everything but the compiler, the options of the run and the names of input and output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Working directory.
    pub cwd: PathBuf,
    /// C++ rather than C.
    pub cxx: bool,
    /// `-I`, `-D`, `-std=` and what else the project sets; no optimisation, debug, warning or dependency options.
    pub flags: Vec<String>,
    /// As the project spells it.
    pub source: String,
    /// As the project spells it.
    pub object: String,
}

impl Unit {
    /// Arguments for a compiler: the project's, then the run's, then source and object.
    pub fn args(&self, run: &[String]) -> Vec<String> {
        let mut args = self.flags.clone();
        args.extend(run.iter().cloned());
        args.extend(["-c".into(), self.source.clone(), "-o".into(), self.object.clone()]);
        args
    }

    /// Absolute path of the source.
    pub fn source_path(&self) -> PathBuf {
        self.cwd.join(&self.source)
    }

    /// Absolute path of the object, without `.` components.
    pub fn object_path(&self) -> PathBuf {
        self.cwd.join(&self.object).components().collect()
    }
}

/// Splits one line as a POSIX shell would split a command without expansions; `None` if a quote is left open.
pub fn shell_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let w = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => w.push(c),
                    }
                }
            }
            '"' => {
                let w = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\' | '$' | '`') => w.push(c),
                            '\n' => {}
                            c => w.extend(['\\', c]),
                        },
                        c => w.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// Reads the arguments of one compile; `None` when it compiles nothing or several files.
pub fn unit(cwd: &Path, args: &[String]) -> Option<Unit> {
    let mut unit =
        Unit { cwd: cwd.into(), cxx: false, flags: Vec::new(), source: String::new(), object: String::new() };
    let mut compiles = false;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-c" => compiles = true,
            "-o" => unit.object = args.next()?.clone(),
            "-MF" | "-MT" | "-MQ" => drop(args.next()?),
            a if is_left_out(a) => {}
            a @ ("-I" | "-isystem" | "-iquote" | "-idirafter" | "-include" | "-imacros" | "-D" | "-U" | "-x") => {
                unit.flags.extend([a.to_string(), args.next()?.clone()]);
            }
            a if a.starts_with('-') => unit.flags.push(a.to_string()),
            a => match a.rsplit_once('.') {
                Some((_, suffix @ ("c" | "cc" | "cpp" | "cxx" | "C"))) if unit.source.is_empty() => {
                    unit.cxx = suffix != "c";
                    unit.source = a.to_string();
                }
                _ => return None,
            },
        }
    }
    if !compiles || unit.source.is_empty() {
        return None;
    }
    if unit.object.is_empty() {
        unit.object = Path::new(&unit.source).with_extension("o").file_name()?.to_string_lossy().into_owned();
    }
    Some(unit)
}

fn is_left_out(arg: &str) -> bool {
    let warning = arg.starts_with("-W") && !["-Wa,", "-Wp,", "-Wl,"].iter().any(|p| arg.starts_with(p));
    let debug = arg.starts_with("-g");
    warning || debug || arg.starts_with("-O") || arg.starts_with("-M") || arg == "-pedantic" || arg == "-w"
}

/// Compile commands among the lines that `make -n` printed; libtool's mode words are skipped.
pub fn from_make(cwd: &Path, text: &str) -> Vec<Unit> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().filter(|l| l.contains(" -c "));
    lines
        .filter_map(|line| {
            let words = shell_words(line.trim())?;
            let compiler = words.iter().position(|w| is_compiler(w))?;
            unit(cwd, &words[compiler + 1..])
        })
        .collect()
}

fn is_compiler(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word);
    matches!(name, "gcc" | "g++" | "cc" | "c++" | "clang" | "clang++")
}

/// Compile commands of a JSON compilation database.
pub fn from_database(json: &str) -> Result<Vec<Unit>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Entry {
        directory: PathBuf,
        command: String,
    }
    let entries: Vec<Entry> = serde_json::from_str(json)?;
    Ok(entries.iter().filter_map(|e| unit(&e.directory, shell_words(&e.command)?.get(1..)?)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_of_gits_makefile_are_read_as_the_shell_reads_them() {
        let line = r#"gcc -DA="\"x.h\"" '-DB="/bin sh"' a\ b.c"#;
        assert_eq!(shell_words(line).unwrap(), ["gcc", "-DA=\"x.h\"", "-DB=\"/bin sh\"", "a b.c"]);
        assert_eq!(shell_words("a 'b"), None);
    }

    #[test]
    fn options_of_the_run_replace_the_projects_own() {
        let text =
            "cc -o add.o -c -MF .d/add.o.d -MQ add.o -MMD -MP -g -O2 -Wall -I. -I x -DX=1 add.c\nar rcs x.a a.o\n";
        let units = from_make(Path::new("/p"), text);
        assert_eq!(units.len(), 1);
        let args = units[0].args(&["-O1".into()]);
        assert_eq!(args, ["-I.", "-I", "x", "-DX=1", "-O1", "-c", "add.c", "-o", "add.o"]);
        assert!(!units[0].cxx);
    }

    #[test]
    fn a_libtool_line_without_output_gets_the_default_name() {
        let units = from_make(Path::new("/b"), "./libtool --mode=compile --tag=CC gcc -I. -c /s/src/alter.c\n");
        assert_eq!((units[0].object.as_str(), units[0].source.as_str()), ("alter.o", "/s/src/alter.c"));
    }

    #[test]
    fn a_database_entry_is_read() {
        let json = r#"[{"directory":"/b","command":"/usr/bin/c++ -DQ=\\\"q\\\" -O3 -o x/y.cc.o -c /s/y.cc","file":"/s/y.cc"}]"#;
        let units = from_database(json).unwrap();
        assert_eq!(units[0].flags, ["-DQ=\"q\""]);
        assert!(units[0].cxx);
        assert_eq!(units[0].object_path(), Path::new("/b/x/y.cc.o"));
    }
}
