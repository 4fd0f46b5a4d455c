//! `-march=native` and its like, resolved on this machine, so that a worker with another CPU makes the same bytes.
//!
//! gcc (x86) detects the CPU in its specs, and where the result stands among the compiler's options shows in debug
//! information. So the option stays, and a generated specs file holds the detection's result in place of the detection.
//! Other gccs replace the option by its result; clang gets the CPU's name and every feature. Whatever was chosen, the
//! commands that `-###` prints must come out equal, or the job stays here.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use potluck_model::ids::Digest;
use potluck_model::plan::{Family, Language};
use potluck_model::reason::Reason;

use super::ask::{self, commands, compiler_proper};
use super::environment::Environment;
use super::find::Compiler;
use super::ident::FileIdent;

/// Expansions remembered: one for each set of machine options in use.
const CACHE_MAX: usize = 1024;
/// The specs function that looks at the CPU.
const DETECT: &str = "%:local_cpu_detect(";
/// Options that write the command line itself into the object: clang would show that it was changed.
const RECORDING: &[&str] = &[
    "-grecord-command-line",
    "-frecord-command-line",
    "-grecord-gcc-switches",
    "-frecord-gcc-switches",
    "-fembed-bitcode",
    "-fembed-bitcode=all",
];

/// A command that means the same on every CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// All arguments after argv[0].
    pub args: Vec<OsString>,
    /// A generated file that `args` names: the worker needs it at the same path.
    pub specs_file: Option<PathBuf>,
}

/// How one set of machine options is expanded.
#[derive(Clone, Debug)]
enum Recipe {
    /// gcc: the options stay, this specs file is added.
    Specs(PathBuf),
    /// Each native option is replaced by these, in order of appearance; then follow more at the end.
    Replace { each: Vec<Vec<OsString>>, end: Vec<OsString> },
}

/// Driver, what it rests on, steering environment, and the options that matter.
type Key = (PathBuf, Vec<FileIdent>, Environment, Vec<OsString>);

/// Expands native options; remembers what it has asked.
pub struct Native {
    dir: PathBuf,
    known: Mutex<HashMap<Key, Option<Recipe>>>,
}

impl Native {
    /// Generated files go to `dir`, which must be a place that can travel (not below /tmp).
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, known: Mutex::default() }
    }

    /// Replaces what looks at this CPU. `native` are the indices of `-m…=native` in `args`.
    pub fn expand(
        &self,
        compiler: &Compiler,
        env: &Environment,
        language: Language,
        args: &[OsString],
        native: &[usize],
    ) -> Result<Expanded, Reason> {
        if native.is_empty() {
            return Ok(Expanded { args: args.to_vec(), specs_file: None });
        }
        let is_native = |i: &usize| args.get(*i).is_some_and(|a| a.as_bytes().ends_with(b"=native"));
        if !native.iter().all(is_native) || !native.is_sorted() || !can_expand(compiler.family, language, args) {
            return Err(Reason::MarchNative);
        }
        let env = env.steering();
        let options = machine_options(args);
        let key = (compiler.driver.clone(), compiler.identity.clone(), env.clone(), options.clone());
        let known = self.lock().get(&key).cloned();
        let recipe = match known {
            Some(recipe) => recipe,
            None => {
                let found = self.find_recipe(compiler, &env, &options);
                // A failure to ask is not remembered; "cannot be expanded" is.
                let recipe = found.map_err(|_| Reason::MarchNative)?;
                let mut all = self.lock();
                if all.len() >= CACHE_MAX {
                    all.clear();
                }
                all.insert(key, recipe.clone());
                recipe
            }
        };
        match recipe {
            // The cache folder may have been emptied since.
            Some(Recipe::Specs(file)) if !file.exists() => {
                self.lock().clear();
                Err(Reason::MarchNative)
            }
            Some(recipe) => Ok(apply(&recipe, args, native)),
            None => Err(Reason::MarchNative),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Option<Recipe>>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Tries the ways of this family and takes the first whose commands are proven equal.
    fn find_recipe(&self, compiler: &Compiler, env: &Environment, options: &[OsString]) -> io::Result<Option<Recipe>> {
        let native: Vec<usize> = (0..options.len()).filter(|i| options[*i].as_bytes().ends_with(b"=native")).collect();
        let asker = Asker { driver: &compiler.driver, env: env.clone().in_english(), family: compiler.family };
        let before = asker.commands(options)?;
        let candidates = match compiler.family {
            Family::Gcc => match asker.specs_text(options)? {
                Some(text) => vec![Recipe::Specs(self.write_specs(&text)?)],
                None => asker.gcc_replacements(options, &native, &before)?,
            },
            Family::Clang => clang_replacement(options, &native, &before).into_iter().collect(),
        };
        for recipe in candidates {
            let after = asker.commands(&apply(&recipe, options, &native).args)?;
            // Proof of equal commands is not enough for specs: that nothing is detected any more is known by construction.
            if !before.is_empty() && before == after {
                return Ok(Some(recipe));
            }
        }
        Ok(None)
    }

    /// One file for each content, complete or absent.
    fn write_specs(&self, text: &str) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.dir)?;
        let path = self.dir.join(format!("native-{}.specs", Digest::of(text.as_bytes()).short()));
        if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(path);
        }
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(path)
    }
}

/// `Native::expand` for one question, without memory.
pub fn expand_native(
    compiler: &Compiler,
    env: &Environment,
    dir: &Path,
    language: Language,
    args: &[OsString],
    native: &[usize],
) -> Result<Expanded, Reason> {
    Native::new(dir.to_owned()).expand(compiler, env, language, args, native)
}

fn can_expand(family: Family, language: Language, args: &[OsString]) -> bool {
    match family {
        // The user's own specs could override the same part.
        Family::Gcc => {
            !args.iter().any(|a| a.as_bytes().starts_with(b"-specs") || a.as_bytes().starts_with(b"--specs"))
        }
        // clang's assembler takes no features, and would warn.
        Family::Clang => {
            let recorded = args.iter().any(|a| RECORDING.iter().any(|r| a == r));
            !recorded && !matches!(language, Language::Asm | Language::AsmWithCpp)
        }
    }
}

/// The options that can change what native means, or where it stands.
fn machine_options(args: &[OsString]) -> Vec<OsString> {
    let mut options = Vec::new();
    let mut words = args.iter();
    while let Some(arg) = words.next() {
        let bytes = arg.as_bytes();
        // Values of options in two words are skipped with them, so that none is taken for an option.
        if matches!(bytes, b"-o" | b"-I" | b"-D" | b"-U" | b"-include" | b"-MF" | b"-MT" | b"-MQ" | b"-x" | b"-isystem")
        {
            words.next();
        } else if matches!(bytes, b"--param" | b"-target" | b"-arch") {
            options.push(arg.clone());
            options.extend(words.next().cloned());
        } else if bytes.starts_with(b"-m") || bytes.starts_with(b"--param=") || bytes.starts_with(b"--target=") {
            options.push(arg.clone());
        }
    }
    options
}

fn apply(recipe: &Recipe, args: &[OsString], native: &[usize]) -> Expanded {
    match recipe {
        Recipe::Specs(file) => {
            let mut all = args.to_vec();
            let mut option = OsString::from("-specs=");
            option.push(file);
            // In front: everything after keeps its position, also an input or `--` at the end.
            all.insert(0, option);
            Expanded { args: all, specs_file: Some(file.clone()) }
        }
        Recipe::Replace { each, end } => {
            let mut all = end.clone();
            for (i, arg) in args.iter().enumerate() {
                match native.iter().position(|n| *n == i).and_then(|at| each.get(at)) {
                    Some(words) => all.extend(words.iter().cloned()),
                    None => all.push(arg.clone()),
                }
            }
            Expanded { args: all, specs_file: None }
        }
    }
}

/// Asks one driver for the commands that options lead to.
struct Asker<'a> {
    driver: &'a Path,
    env: Environment,
    family: Family,
}

impl Asker<'_> {
    /// Commands of a compile with these options, in a form that can be compared.
    fn commands(&self, options: &[OsString]) -> io::Result<Vec<Vec<OsString>>> {
        let mut args: Vec<OsString> = vec!["-###".into(), "-pipe".into(), "-c".into(), "-g".into(), "-O2".into()];
        args.extend_from_slice(options);
        args.extend(["-o", "/dev/null", "-x", "c", "/dev/null"].map(OsString::from));
        let answer = ask::run(self.driver, &args, &self.env, Path::new("/"))?;
        if answer.exit != 0 {
            return Ok(Vec::new());
        }
        let mut commands = commands(&answer.stderr);
        if self.family == Family::Clang {
            commands.iter_mut().for_each(last_of_each_feature);
        }
        Ok(commands)
    }

    /// A specs file in which every detection is replaced by its result. `None` if this gcc does not detect in its specs.
    fn specs_text(&self, options: &[OsString]) -> io::Result<Option<String>> {
        let specs = ask::run(self.driver, &["-dumpspecs"], &self.env, Path::new("/"))?;
        let specs = String::from_utf8_lossy(&specs.stdout).into_owned();
        let Some((name, text)) = detecting_spec(&specs) else { return Ok(None) };
        let (mut pieces, mut calls) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some(at) = rest.find(DETECT) {
            let Some(len) = call_len(&rest[at..]) else { return Ok(None) };
            pieces.push(&rest[..at]);
            calls.push(&rest[at..at + len]);
            rest = &rest[at + len..];
        }
        let results = self.detect(name, &calls, options)?;
        let Some(results) = results else { return Ok(None) };
        let mut out = format!("*{name}:\n");
        for (piece, result) in pieces.iter().zip(&results) {
            out.push_str(piece);
            out.push_str(result);
        }
        out.push_str(rest);
        out.push_str("\n\n");
        Ok(Some(out))
    }

    /// What each detection call gives here: a specs file that prints them between marks.
    fn detect(&self, spec: &str, calls: &[&str], options: &[OsString]) -> io::Result<Option<Vec<String>>> {
        let mark = |i: usize| format!("-potluck-mark-{i}");
        let mut text = format!("*{spec}:\n");
        for (i, call) in calls.iter().enumerate() {
            text.push_str(&format!("{} {call} ", mark(i)));
        }
        text.push_str(&format!("{}\n\n", mark(calls.len())));
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        let mut option = OsString::from("-specs=");
        option.push(file.path());
        let mut all = vec![option];
        all.extend_from_slice(options);
        let commands = self.commands(&all)?;
        let Some(words) = compiler_proper(&commands) else { return Ok(None) };
        let place = |i: usize| words.iter().position(|w| *w == *mark(i));
        let mut results = Vec::new();
        for i in 0..calls.len() {
            let (Some(from), Some(to)) = (place(i), place(i + 1)) else { return Ok(None) };
            let found: Option<Vec<&str>> = words[from + 1..to].iter().map(|w| plain_word(w)).collect();
            match found {
                Some(found) => results.push(found.join(" ")),
                None => return Ok(None),
            }
        }
        Ok(Some(results))
    }

    /// gccs that detect before their specs (ARM, …): the words that appear because of each native option, alone.
    fn gcc_replacements(
        &self,
        options: &[OsString],
        native: &[usize],
        before: &[Vec<OsString>],
    ) -> io::Result<Vec<Recipe>> {
        let without: Vec<OsString> =
            options.iter().enumerate().filter(|(i, _)| !native.contains(i)).map(|(_, o)| o.clone()).collect();
        let plain = self.commands(&without)?;
        let (Some(with), Some(plain)) = (compiler_proper(before), compiler_proper(&plain)) else {
            return Ok(Vec::new());
        };
        let new: Vec<OsString> = with.iter().filter(|w| !plain.contains(w)).cloned().collect();
        let mut each = vec![Vec::new(); native.len()];
        if new.is_empty() || new.iter().any(|w| w.as_bytes().ends_with(b"=native") || plain_word(w).is_none()) {
            return Ok(Vec::new());
        }
        each[0] = new;
        Ok(vec![Recipe::Replace { each, end: Vec::new() }])
    }
}

/// Name and text of the one spec that detects the CPU.
fn detecting_spec(specs: &str) -> Option<(&str, &str)> {
    let mut detecting = specs.split("\n\n").filter(|s| s.contains(DETECT)).filter_map(|section| {
        let (name, text) = section.trim_start_matches('\n').strip_prefix('*')?.split_once(":\n")?;
        Some((name, text))
    });
    let first = detecting.next()?;
    detecting.next().is_none().then_some(first)
}

/// Length of `%:function(…)` with its balanced parentheses.
fn call_len(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'(' => depth += 1,
            b')' if depth == 1 => return Some(i + 1),
            b')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// A word that means itself in a specs file.
fn plain_word(word: &OsStr) -> Option<&str> {
    let word = word.to_str()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"=_.+,-".contains(&b);
    (!word.is_empty() && word.bytes().all(plain)).then_some(word)
}

/// The value after an option in two words.
fn value_of<'a>(words: &'a [OsString], option: &str) -> Option<&'a OsString> {
    let at = words.iter().rposition(|w| w == option)?;
    words.get(at + 1)
}

/// Moves all `-target-feature` pairs to the end, the last of each name staying where it is among them. Their order has a
/// meaning: `+avx512bw` brings avx512f back that a `-avx512f` before it took away (clang's `setFeatureEnabled`).
fn last_of_each_feature(command: &mut Vec<OsString>) {
    let mut features: Vec<OsString> = Vec::new();
    let mut rest = Vec::with_capacity(command.len());
    let mut words = std::mem::take(command).into_iter();
    while let Some(word) = words.next() {
        match (word == "-target-feature").then(|| words.next()).flatten() {
            Some(feature) => {
                features.retain(|f| f.as_bytes().get(1..) != feature.as_bytes().get(1..));
                features.push(feature);
            }
            None => rest.push(word),
        }
    }
    for feature in features {
        rest.extend([OsString::from("-target-feature"), feature]);
    }
    *command = rest;
}

/// clang: the CPU's name in place, and every feature for the compiler proper.
fn clang_replacement(options: &[OsString], native: &[usize], before: &[Vec<OsString>]) -> Option<Recipe> {
    let words = compiler_proper(before)?;
    let cpu = value_of(words, "-target-cpu")?;
    let tune = value_of(words, "-tune-cpu").unwrap_or(cpu);
    let each = native.iter().map(|i| {
        let option = options[*i].as_bytes().strip_suffix(b"native").unwrap_or_default();
        let mut word = OsStr::from_bytes(option).to_owned();
        word.push(if option == b"-mtune=" { tune } else { cpu });
        vec![word]
    });
    let mut end = Vec::new();
    for pair in words.windows(2).filter(|w| w[0] == "-target-feature") {
        plain_word(&pair[1])?;
        end.extend(["-Xclang".into(), "-target-feature".into(), "-Xclang".into(), pair[1].clone()]);
    }
    Some(Recipe::Replace { each: each.collect(), end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detecting_spec_is_found_and_its_calls_are_cut_out() {
        let specs = "*asm:\nx\n\n*cc1_cpu:\n%{march=native:%:local_cpu_detect(arch %{!m32:64;:32}) y}\n\n*z:\nq\n";
        let (name, text) = detecting_spec(specs).unwrap();
        assert_eq!(name, "cc1_cpu");
        let at = text.find(DETECT).unwrap();
        assert_eq!(&text[at..at + call_len(&text[at..]).unwrap()], "%:local_cpu_detect(arch %{!m32:64;:32})");
        assert_eq!(call_len("%:f((a)"), None);
    }

    #[test]
    fn only_options_that_matter_are_asked_about() {
        let args = ["-c", "-o", "-mfoo", "-march=native", "--param", "a=1", "-Imx", "a.c"].map(OsString::from);
        assert_eq!(machine_options(&args), ["-march=native", "--param", "a=1"].map(OsString::from));
    }

    #[test]
    fn of_features_the_last_of_each_name_counts_in_its_place() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let of = |features: &str| -> Vec<OsString> {
            let pairs = features.split(' ').flat_map(|f| ["-target-feature".into(), f.into()]);
            std::iter::once("-O2".into()).chain(pairs).collect()
        };
        let mut command = words("-target-feature -avx512f -O2 -target-feature +avx512bw -target-feature -avx512f");
        last_of_each_feature(&mut command);
        assert_eq!(command, of("+avx512bw -avx512f"));
        assert_ne!(command, of("-avx512f +avx512bw"), "which means another CPU");
    }
}
