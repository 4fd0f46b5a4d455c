//! Runs probe compiles under the runner's tracer and sorts what the compiler touched: it is the only way to learn of specs,
//! message catalogues, time zones and directories that it merely looks into.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ask::{self, Answer};
use super::environment::Environment;

/// Largest trace of one probe: gcc with `<vector>` has some thousand records of a hundred bytes.
const TRACE_BYTES_MAX: u64 = 64 << 20;

/// What probes touched outside their scratch directory, as spelled (made absolute).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Exists: opened, executed, or asked about.
    pub present: BTreeSet<PathBuf>,
    /// Opened: a directory among these was listed.
    pub opened: BTreeSet<PathBuf>,
    /// Executed.
    pub executed: BTreeSet<PathBuf>,
    /// Looked for and not there.
    pub absent: BTreeSet<PathBuf>,
}

impl Touched {
    /// Adds the records of one trace: a kind byte and a path each, ended by NUL. Paths below `scratch` are left out.
    pub fn read(&mut self, records: &[u8], scratch: &Path) -> Result<(), BadTrace> {
        for record in records.split(|b| *b == 0).filter(|r| !r.is_empty()) {
            let (kind, path) = (record[0], Path::new(OsStr::from_bytes(&record[1..])));
            if !path.is_absolute() {
                return Err(BadTrace);
            }
            if path.starts_with(scratch) {
                continue;
            }
            match kind {
                b'o' => self.opened.insert(path.to_owned()) | self.present.insert(path.to_owned()),
                b's' => self.present.insert(path.to_owned()),
                b'x' => self.executed.insert(path.to_owned()) | self.present.insert(path.to_owned()),
                b'n' => self.absent.insert(path.to_owned()),
                // Other errors (EACCES, ELOOP, EINVAL of readlink): something is there, and its directory was looked into.
                b'e' => self.present.insert(path.to_owned()),
                // Written: its own temporary files and outputs.
                b'w' => false,
                _ => return Err(BadTrace),
            };
        }
        Ok(())
    }
}

/// The tracer's output is not what was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTrace;

/// The runner that belongs to this program: beside it, where packages put it, or where `POTLUCK_RUNNER` says (tests and
/// development).
pub fn runner_path() -> PathBuf {
    if let Some(path) = std::env::var_os("POTLUCK_RUNNER") {
        return path.into();
    }
    let exe = std::env::current_exe().unwrap_or_default();
    // Test programs live one folder deeper (`deps`) than the programs they test.
    let above = exe.parent().map(|dir| dir.with_file_name("potluck-runner")).filter(|path| path.is_file());
    let runner = crate::dirs::runner_of(&exe);
    if runner.is_file() { runner } else { above.unwrap_or(runner) }
}

/// Runs one command in `scratch` under the tracer and adds what it touched.
pub fn trace(
    runner: &Path,
    driver: &Path,
    args: &[OsString],
    env: &Environment,
    scratch: &Path,
    touched: &mut Touched,
) -> io::Result<Answer> {
    let out = scratch.join("potluck.trace");
    let mut words: Vec<OsString> = vec!["trace".into(), out.clone().into(), "--".into(), driver.into()];
    words.extend_from_slice(args);
    let answer = ask::run(runner, &words, env, scratch).map_err(|e| explain(e, runner))?;
    let size = fs::metadata(&out).map_err(|e| explain(io::Error::new(e.kind(), answer.complaint()), runner))?.len();
    if size > TRACE_BYTES_MAX {
        return Err(io::Error::other("the trace of a probe is implausibly long"));
    }
    let records = fs::read(&out)?;
    fs::remove_file(&out)?;
    touched.read(&records, scratch).map_err(|BadTrace| io::Error::other("the tracer's records make no sense"))?;
    Ok(answer)
}

fn explain(e: io::Error, runner: &Path) -> io::Error {
    io::Error::new(e.kind(), format!("tracing with {}: {e}", runner.display()))
}

/// What the probes of one toolchain found.
#[derive(Clone, Debug, Default)]
pub struct Traced {
    /// All that was touched.
    pub touched: Touched,
    /// Languages that compile here (`c`, `c++`, `assembler-with-cpp`), as `-x` names them.
    pub languages: Vec<&'static str>,
}

/// One traced compile.
struct Run {
    language: &'static str,
    source: &'static str,
    /// Without it there is no compiler. The others may fail: an older compiler need not know the option.
    required: bool,
    args: &'static [&'static str],
}

/// Between them the runs make a driver open everything that ordinary builds make it open. The first of each language
/// decides whether the language exists.
const RUNS: &[Run] = &[
    Run { language: "c", source: "probe.c", required: true, args: &["-O2", "-g", "-MD", "-Wall", "-Wextra"] },
    Run { language: "c", source: "probe.c", required: false, args: &["-gsplit-dwarf", "-fPIC", "-pthread"] },
    Run { language: "c", source: "probe.c", required: false, args: &["--coverage", "-fdiagnostics-color=always"] },
    Run { language: "c", source: "probe.c", required: false, args: &["-O2", "-flto", "-ffast-math"] },
    Run { language: "c", source: "probe.c", required: false, args: &["-save-temps", "-pipe", "-g3"] },
    Run { language: "c", source: "probe.c", required: false, args: &["-finput-charset=ISO-8859-1", "-fstack-usage"] },
    Run { language: "c", source: "probe.c", required: false, args: &["-fno-integrated-as", "-gsplit-dwarf"] },
    Run { language: "c", source: "probe.c", required: false, args: &["-fsanitize=address,undefined", "-O1"] },
    Run { language: "c++", source: "probe.cc", required: false, args: &["-O2", "-g", "-MD", "-Wall", "-Wextra"] },
    Run { language: "c++", source: "small.cc", required: false, args: &["-gsplit-dwarf", "--coverage", "-flto"] },
    Run { language: "c++", source: "small.cc", required: false, args: &["-save-temps", "-g", "-std=c++17"] },
    Run { language: "c", source: "small.c", required: false, args: &["-m32"] },
    Run { language: "c++", source: "small.cc", required: false, args: &["-stdlib=libc++", "-fopenmp"] },
    Run { language: "assembler-with-cpp", source: "probe.S", required: false, args: &["-g"] },
];

/// An unused variable for a warning in the user's language, the time for the time zone, a header for the search path.
const PROBE_C: &str = "#include <stdio.h>\n#include <limits.h>\nconst char *when = __DATE__ __TIME__;\n\
    int main(int argc, char **argv) { int unused; printf(\"%d\\n\", argc); return argc > INT_MAX - 1; }\n";
const PROBE_CC: &str = "#include <string>\n#include <vector>\nconst char *when = __TIME__;\n\
    int count(const std::vector<std::string> &v) { int unused; return static_cast<int>(v.size()); }\n";
const SMALL_CC: &str =
    "struct A { virtual ~A(); int a; };\nA::~A() {}\nint f(A *p) { int unused; delete p; return 0; }\n";
const SMALL_C: &str = "int f(int n) { int unused; return n + 1; }\n";
const PROBE_S: &str = "#define N probe_symbol\n.globl N\nN:\n";

/// Runs all probes. `Err` with the compiler's own words if not even plain C compiles.
pub fn run_probes(runner: &Path, driver: &Path, env: &Environment) -> io::Result<Result<Traced, String>> {
    let scratch_dir = tempfile::Builder::new().prefix("potluck-probe-").tempdir()?;
    let scratch = scratch_dir.path().canonicalize()?;
    for (name, text) in [
        ("probe.c", PROBE_C),
        ("probe.cc", PROBE_CC),
        ("small.c", SMALL_C),
        ("small.cc", SMALL_CC),
        ("probe.S", PROBE_S),
    ] {
        fs::write(scratch.join(name), text)?;
    }
    let env = env.clone().with("TMPDIR", scratch.clone()).with("CCACHE_DISABLE", "1");
    let mut traced = Traced::default();
    let mut refused: Vec<&str> = Vec::new();
    for run in RUNS {
        if refused.contains(&run.language) {
            continue;
        }
        let mut args: Vec<OsString> = run.args.iter().map(OsString::from).collect();
        args.extend(["-c", "-x", run.language, run.source, "-o", "probe.o"].map(OsString::from));
        let answer = trace(runner, driver, &args, &env, &scratch, &mut traced.touched)?;
        let first = !traced.languages.contains(&run.language);
        match (answer.exit, first) {
            (0, true) => traced.languages.push(run.language),
            (0, false) => {}
            (_, true) if run.required => return Ok(Err(answer.complaint())),
            (_, true) => refused.push(run.language),
            (_, false) => {}
        }
    }
    Ok(Ok(traced))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_sorted_by_kind_and_scratch_is_left_out() {
        let mut t = Touched::default();
        let records = b"o/etc/a\0x/usr/bin/as\0n/usr/specs\0o/scratch/x\0w/var/tmp/y\0s/usr/lib\0e/etc/b\0";
        t.read(records, Path::new("/scratch")).unwrap();
        assert_eq!(t.present.len(), 4);
        assert_eq!(t.executed.iter().collect::<Vec<_>>(), [Path::new("/usr/bin/as")]);
        assert_eq!(t.absent.iter().collect::<Vec<_>>(), [Path::new("/usr/specs")]);
        assert_eq!(t.read(b"qrelative\0", Path::new("/s")), Err(BadTrace));
    }
}
