//! From the compiler a command names to the driver that must really be executed, and what that driver is.
//!
//! Launchers (ccache, icecc, distcc, …) are stepped over; links are followed only to recognise them, because a driver finds
//! its parts by the name it was called with. A script is stepped over when it is one plain `exec driver "$@"`; any other
//! script adds something of its own, so it is itself the driver and travels with its interpreter.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use potluck_model::plan::Family;

use super::ask;
use super::environment::Environment;
use super::ident::FileIdent;
use super::walk::walk_to_link;

/// Programs that stand before a compiler and call it: as a masquerading link, or as the first word.
const LAUNCHERS: &[&str] =
    &["ccache", "sccache", "distcc", "icecc", "icerun", "buildcache", "gomacc", "potluck", "potluck-wrapper"];
/// Hops from launcher to launcher: more is a loop.
const HOPS_MAX: usize = 16;
/// Compilers remembered at once: some dozens of names times some environments.
const CACHE_MAX: usize = 256;
/// Longest script that is read for a plain `exec`.
const SCRIPT_BYTES_MAX: u64 = 64 << 10;

/// One compiler, with what the answer rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// As found in PATH: absolute, links not followed.
    pub asked: PathBuf,
    /// What must be executed: absolute, launchers stepped over, links kept.
    pub driver: PathBuf,
    /// gcc or clang.
    pub family: Family,
    /// Whether it compiles `.c` files as C++ (g++, clang++).
    pub cxx: bool,
    /// Such as `12.2.0`, or clang's first line of `--version`.
    pub version: String,
    /// Such as `x86_64-linux-gnu`.
    pub target: String,
    /// Whether `__DATE__` and `__TIME__` follow SOURCE_DATE_EPOCH.
    pub honours_epoch: bool,
    /// Every file, link and directory that the answer rests on.
    pub identity: Vec<FileIdent>,
}

/// Why there is no compiler to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindError {
    /// Nothing executable of that name.
    NotFound(PathBuf),
    /// Launchers call each other, or nothing is behind them.
    NothingBehind(PathBuf),
    /// It is neither gcc nor clang: its own words.
    NotACompiler(PathBuf, String),
    /// It could not be asked.
    Unreadable(PathBuf, String),
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(p) => write!(f, "there is no program {}", p.display()),
            Self::NothingBehind(p) => write!(f, "no compiler was found behind {}", p.display()),
            Self::NotACompiler(p, said) => write!(f, "{} is neither gcc nor clang ({said})", p.display()),
            Self::Unreadable(p, why) => write!(f, "{} could not be asked: {why}", p.display()),
        }
    }
}

impl std::error::Error for FindError {}

/// Compilers that were found before, each good as long as none of its files changes.
#[derive(Default)]
pub struct Compilers {
    found: Mutex<HashMap<(PathBuf, Environment), Arc<Compiler>>>,
}

impl Compilers {
    /// The compiler behind `asked` (absolute, as found in PATH). A known one costs a few stats; a new one is run four times.
    pub fn find(&self, asked: &Path, env: &Environment) -> Result<Arc<Compiler>, FindError> {
        let key = (asked.to_owned(), env.steering());
        let known = self.lock().get(&key).cloned();
        if let Some(known) = known
            && known.identity.iter().all(FileIdent::holds)
        {
            return Ok(known);
        }
        let compiler = Arc::new(find(asked, env)?);
        let mut found = self.lock();
        if found.len() >= CACHE_MAX {
            found.clear();
        }
        found.insert(key, compiler.clone());
        Ok(compiler)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(PathBuf, Environment), Arc<Compiler>>> {
        self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// How many words of a command line are launchers (`ccache gcc -c a.c`: 1) and the compiler after them, looked up in PATH.
pub fn after_launchers(argv: &[OsString], env: &Environment) -> Option<(usize, PathBuf)> {
    let skip = argv.iter().take(HOPS_MAX).take_while(|word| is_launcher_name(Path::new(word))).count();
    let word = Path::new(argv.get(skip)?);
    let path = if word.as_os_str().as_bytes().contains(&b'/') {
        word.to_owned()
    } else {
        in_path(word.as_os_str(), &env.path_dirs(), &mut Vec::new())?
    };
    Some((skip, path))
}

/// Every compiler that PATH offers, by name, launchers left out: for the masquerade directory and `toolchain list`.
pub fn list_compilers(env: &Environment) -> Vec<(OsString, PathBuf)> {
    let mut found: Vec<(OsString, PathBuf)> = Vec::new();
    for dir in env.path_dirs() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        let mut names: Vec<OsString> = entries.flatten().map(|e| e.file_name()).collect();
        names.sort();
        for name in names.into_iter().filter(|n| is_compiler_name(n)) {
            let path = dir.join(&name);
            let taken = found.iter().any(|(n, _)| *n == name);
            if !taken && is_executable(&path) && launcher_behind(&path).is_none() {
                found.push((name, path));
            }
        }
    }
    found.sort();
    found
}

/// `gcc`, `clang++-14`, `arm-none-eabi-g++`, `x86_64-linux-gnu-gcc-12`; not `gcc-ar`, `clang-format`.
pub fn is_compiler_name(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_version = |v: &str| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let base = match name.rsplit_once('-') {
        Some((base, v)) if is_version(v) => base,
        _ => name,
    };
    let last = base.rsplit('-').next().unwrap_or(base);
    matches!(last, "cc" | "c++" | "gcc" | "g++" | "clang" | "clang++")
}

/// Looks a name up in directories; notes each that was looked into.
fn in_path(name: &OsStr, dirs: &[PathBuf], looked: &mut Vec<PathBuf>) -> Option<PathBuf> {
    dirs.iter().find_map(|dir| {
        looked.push(dir.clone());
        Some(dir.join(name)).filter(|p| is_executable(p))
    })
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0)
}

fn is_launcher_name(path: &Path) -> bool {
    path.file_name().is_some_and(|name| LAUNCHERS.iter().any(|l| name == *l))
}

/// The launcher's binary, if `path` is one or a link to one.
pub(super) fn launcher_behind(path: &Path) -> Option<PathBuf> {
    let real = path.canonicalize().ok()?;
    (is_launcher_name(path) || is_launcher_name(&real)).then_some(real)
}

fn find(asked: &Path, env: &Environment) -> Result<Compiler, FindError> {
    if !asked.is_absolute() {
        return Err(FindError::NotFound(asked.to_owned()));
    }
    let mut rests_on = Vec::new();
    let driver = driver_behind(asked, env, &mut rests_on)?;
    if ask::is_script(&driver).unwrap_or(false) {
        rests_on.extend(called_by_script(&driver, env));
    }
    let mut identity = Vec::new();
    rests_on.push(driver.clone());
    for path in &rests_on {
        note_identity(path, &mut identity).map_err(|e| FindError::Unreadable(path.clone(), e.to_string()))?;
    }
    let facts = ask_facts(&driver, env)?;
    Ok(Compiler {
        asked: asked.to_owned(),
        driver,
        family: facts.family,
        cxx: facts.cxx,
        version: facts.version,
        target: facts.target,
        honours_epoch: facts.honours_epoch,
        identity,
    })
}

/// Adds a path, the links on its way and what it leads to.
fn note_identity(path: &Path, identity: &mut Vec<FileIdent>) -> io::Result<()> {
    let mut at = path.to_owned();
    for _ in 0..HOPS_MAX {
        let walked = walk_to_link(&at)?;
        for place in walked.links.into_iter().map(|l| l.0).chain([walked.physical.clone()]) {
            if identity.iter().all(|i| i.path != place) {
                identity.push(FileIdent::of(&place)?);
            }
        }
        match fs::read_link(&walked.physical) {
            Ok(target) => at = walked.physical.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Steps over launchers and plain scripts until something must be executed itself. Notes what the way rests on.
fn driver_behind(asked: &Path, env: &Environment, rests_on: &mut Vec<PathBuf>) -> Result<PathBuf, FindError> {
    let mut at = asked.to_owned();
    for _ in 0..HOPS_MAX {
        if !is_executable(&at) {
            return Err(FindError::NotFound(at));
        }
        rests_on.push(at.clone());
        if let Some(launcher) = launcher_behind(&at) {
            at = behind_launcher(&at, &launcher, env, rests_on)?;
            continue;
        }
        let is_script = ask::is_script(&at).map_err(|e| FindError::Unreadable(at.clone(), e.to_string()))?;
        match if is_script { behind_plain_script(&at, env, rests_on) } else { None } {
            Some(next) => at = next,
            None => return Ok(at),
        }
    }
    Err(FindError::NothingBehind(asked.to_owned()))
}

/// A masquerading launcher calls the next program of its own name that is not itself.
fn behind_launcher(
    at: &Path,
    launcher: &Path,
    env: &Environment,
    rests_on: &mut Vec<PathBuf>,
) -> Result<PathBuf, FindError> {
    let mut name = at.file_name().unwrap_or_default().to_owned();
    let mut dirs = env.path_dirs();
    if is_launcher_name(launcher) && launcher.file_name() == Some(OsStr::new("ccache")) {
        if let Some(path) = env.get("CCACHE_PATH") {
            dirs = std::env::split_paths(path).filter(|d| d.is_absolute()).collect();
        }
        if let Some(compiler) = env.get("CCACHE_COMPILER") {
            name = compiler.to_owned();
            if Path::new(&name).is_absolute() {
                return Ok(name.into());
            }
        }
    }
    if is_launcher_name(Path::new(&name)) {
        return Err(FindError::NothingBehind(at.to_owned()));
    }
    for dir in dirs {
        rests_on.push(dir.clone());
        let candidate = dir.join(&name);
        if is_executable(&candidate) && launcher_behind(&candidate).is_none() {
            // Directories that do not exist cannot be stat'ed again; they are left out below.
            rests_on.retain(|p| p.exists());
            return Ok(candidate);
        }
    }
    Err(FindError::NothingBehind(at.to_owned()))
}

/// The program behind a script that is nothing but `exec [launcher…] program "$@"`. Anything more, and the script must run.
fn behind_plain_script(at: &Path, env: &Environment, rests_on: &mut Vec<PathBuf>) -> Option<PathBuf> {
    if fs::metadata(at).ok()?.size() > SCRIPT_BYTES_MAX {
        return None;
    }
    let text = fs::read_to_string(at).ok()?;
    let shell = text.lines().next()?.strip_prefix("#!")?.trim();
    let shell = Path::new(shell).file_name()?.to_str()?;
    if !["sh", "bash", "dash", "ash"].contains(&shell) {
        return None;
    }
    let mut lines = text.lines().skip(1).map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let line = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    let words = line.strip_suffix("\"$@\"")?;
    let words: Vec<OsString> = words.strip_prefix("exec ")?.split_whitespace().map(OsString::from).collect();
    let plain = |w: &OsString| w.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"/._+-".contains(b));
    if !words.iter().all(plain) {
        return None;
    }
    let skip = words.iter().take_while(|w| is_launcher_name(Path::new(w))).count();
    let [word] = &words[skip..] else { return None };
    if word.as_bytes().starts_with(b"-") {
        return None;
    }
    if word.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(word)).filter(|p| p.is_absolute());
    }
    let mut looked = Vec::new();
    let found = in_path(word, &env.path_dirs(), &mut looked);
    rests_on.extend(looked.into_iter().filter(|d| d.exists()));
    found
}

/// The compiler that a script calls in the end, as that one tells: when it is upgraded, the script's answers change too.
fn called_by_script(script: &Path, env: &Environment) -> Vec<PathBuf> {
    let env = env.clone().in_english().with("CCACHE_DISABLE", "1");
    let args = ["-###", "-c", "-x", "c", "/dev/null", "-o", "/dev/null"];
    let Ok(answer) = ask::run(script, &args, &env, Path::new("/")) else { return Vec::new() };
    let collect = answer.stderr.split(|b| *b == b'\n').filter_map(|l| l.strip_prefix(b"COLLECT_GCC="));
    let collect = collect.map(|p| PathBuf::from(OsStr::from_bytes(p)));
    let programs = ask::commands(&answer.stderr).into_iter().map(|mut c| PathBuf::from(c.swap_remove(0)));
    collect.chain(programs).filter(|p| p.is_absolute() && p.exists()).collect()
}

struct Facts {
    family: Family,
    cxx: bool,
    version: String,
    target: String,
    honours_epoch: bool,
}

/// One preprocessor run tells family, language and major version; two more the exact version and the target.
fn ask_facts(driver: &Path, env: &Environment) -> Result<Facts, FindError> {
    let unreadable = |e: io::Error| FindError::Unreadable(driver.to_owned(), e.to_string());
    let dir = tempfile::tempdir().map_err(unreadable)?;
    let question = "#ifdef __cplusplus\nPOTLUCK cxx 1\n#endif\n#ifdef __clang__\nPOTLUCK clang __clang_major__\n\
        #elif defined(__GNUC__) && !defined(__INTEL_COMPILER) && !defined(__PGI) && !defined(__NVCOMPILER)\n\
        POTLUCK gcc __GNUC__\n#endif\n";
    fs::write(dir.path().join("potluck.c"), question).map_err(unreadable)?;
    // A launcher inside a script must not answer from its cache or write one.
    let env = env.clone().in_english().with("CCACHE_DISABLE", "1");
    let ask = |args: &[&str]| ask::run(driver, args, &env, dir.path()).map_err(unreadable);

    let answer = ask(&["-E", "potluck.c"])?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let fact = |name: &str| {
        text.lines().find_map(|l| l.strip_prefix("POTLUCK ")?.strip_prefix(name)?.trim().parse::<u32>().ok())
    };
    let (family, major) = match (fact("clang "), fact("gcc ")) {
        (Some(major), _) => (Family::Clang, major),
        (None, Some(major)) => (Family::Gcc, major),
        (None, None) => return Err(FindError::NotACompiler(driver.to_owned(), answer.complaint())),
    };
    let version = match family {
        Family::Gcc => ask(&["-dumpfullversion", "-dumpversion"])?.first_line(),
        Family::Clang => ask(&["--version"])?.first_line(),
    };
    Ok(Facts {
        family,
        cxx: fact("cxx ").is_some(),
        version,
        target: ask(&["-dumpmachine"])?.first_line(),
        honours_epoch: match family {
            Family::Gcc => major >= 7,
            Family::Clang => major >= 16,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_names_are_told_from_their_neighbours() {
        for name in ["cc", "gcc", "g++-12", "clang-14", "clang++", "arm-none-eabi-gcc", "x86_64-linux-gnu-g++-12"] {
            assert!(is_compiler_name(OsStr::new(name)), "{name}");
        }
        for name in ["gcc-ar", "gcc-nm-12", "clang-format-14", "clang-cpp-14", "c99", "colorgcc", "-12"] {
            assert!(!is_compiler_name(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn launcher_words_are_counted() {
        let env = Environment::default().with("PATH", "/usr/bin");
        let argv = ["ccache", "distcc", "gcc", "-c"].map(OsString::from);
        assert_eq!(after_launchers(&argv, &env), Some((2, "/usr/bin/gcc".into())));
        assert_eq!(after_launchers(&argv[..2], &env), None);
    }
}
