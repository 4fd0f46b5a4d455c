//! Small compiles with a known result: a worker is believed to have a toolchain when it makes the same bytes.
//!
//! They include no header, because headers travel with jobs; the search list is compared separately (`ask::search_list_args`).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use potluck_model::ids::Digest;

use super::ask::{self, Answer};
use super::environment::Environment;
use super::manifest::Probe;

/// The object's name in the working directory of a probe.
pub const OBJECT: &str = "potluck-probe.o";
/// The directory that debug information names, wherever a probe really runs. A worker may use it as the real one.
pub const DIR: &str = "/potluck-probe";

/// Loops to vectorise, doubles to fold, a switch, a static function to inline, and a warning in the user's language.
const C: &str = r#"
typedef struct { double re, im; } complex_t;
enum kind { NONE, ONE, TWO, MANY };
static double square(double x) { return x * x; }
double norm(const complex_t *z) { int unused; return square(z->re) + square(z->im) + 0.1 * 3.0; }
void scale(float *a, const float *b, int n) { for (int i = 0; i < n; i++) a[i] = b[i] * 1.5f + a[i]; }
int name(enum kind k) { switch (k) { case NONE: return 11; case ONE: return 7; case TWO: return 5; default: return -1; } }
const char *text(void) { return __FILE__ ":" "probe"; }
int main(int argc, char **argv) { complex_t z = { argc, 2.5 }; return (int)norm(&z) + name(argc); }
"#;

/// Templates, virtual functions, exceptions, a static with a destructor, a lambda, and a warning.
const CXX: &str = r#"
struct Base { virtual ~Base(); virtual int get() const = 0; };
Base::~Base() {}
template <class T, int N> struct Array { T v[N]; T sum() const { T s{}; for (auto x : v) s += x; return s; } };
struct Derived final : Base { Array<double, 9> a{}; int get() const override { return static_cast<int>(a.sum()); } };
static Derived global;
int may_throw(int n) { int unused; if (n > 3) throw n; return global.get() + n; }
int catches(int n) { try { return may_throw(n); } catch (int e) { auto f = [e](int x) { return x * e; }; return f(n); } }
"#;

const ASM: &str = "#define NAME potluck_probe\n.globl NAME\nNAME:\n  .long 42\n  .asciz \"probe\"\n";

/// Languages, source names, sources and options of all probes.
const PROBES: &[(&str, &str, &str, &[&str])] = &[
    ("c", "potluck-probe.c", C, &["-O2", "-g", "-Wall", "-Wextra"]),
    ("c", "potluck-probe.c", C, &["-O3", "-fPIC", "-ffunction-sections", "-std=gnu11"]),
    ("c++", "potluck-probe.cc", CXX, &["-O2", "-g", "-Wall", "-Wextra", "-std=c++14"]),
    ("c++", "potluck-probe.cc", CXX, &["-O0", "-std=c++17"]),
    ("assembler-with-cpp", "potluck-probe.S", ASM, &[]),
];

/// All arguments of a probe that runs in `dir`.
pub fn args_in(probe: &Probe, dir: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> = probe.args.iter().map(|a| OsString::from_vec(a.clone())).collect();
    let map = [b"-fdebug-prefix-map=", dir.as_os_str().as_bytes(), b"=", DIR.as_bytes()].concat();
    args.push(OsString::from_vec(map));
    // gcc includes stdc-predef.h unasked; a worker has no headers yet, and a name it may not read counts as a fault.
    args.push("-nostdinc".into());
    args.extend(["-c", "-x", &probe.language, &probe.source_name, "-o", OBJECT].map(OsString::from));
    args
}

/// Runs the probe set with the local driver; the answers are what workers must reproduce. Probes that fail here prove
/// nothing and are left out.
pub fn local_probes(driver: &Path, languages: &[&str], env: &Environment) -> io::Result<Vec<Probe>> {
    let mut probes = Vec::new();
    for (language, source_name, source, args) in PROBES.iter().filter(|p| languages.contains(&p.0)) {
        let mut probe = Probe {
            language: (*language).to_owned(),
            source_name: (*source_name).to_owned(),
            source: source.as_bytes().to_vec(),
            args: args.iter().map(|a| OsStr::new(a).as_bytes().to_vec()).collect(),
            object: Digest([0; 32]),
            stderr: Digest([0; 32]),
        };
        if let Some((object, stderr)) = run(driver, &probe, env)? {
            probe.object = object;
            probe.stderr = stderr;
            probes.push(probe);
        }
    }
    Ok(probes)
}

/// Runs one probe here: digests of object and standard error, or `None` if it failed.
pub fn run(driver: &Path, probe: &Probe, env: &Environment) -> io::Result<Option<(Digest, Digest)>> {
    let scratch = tempfile::Builder::new().prefix("potluck-probe-").tempdir()?;
    let dir = scratch.path().canonicalize()?;
    fs::write(dir.join(&probe.source_name), &probe.source)?;
    let answer: Answer = ask::run(driver, &args_in(probe, &dir), env, &dir)?;
    if answer.exit != 0 {
        return Ok(None);
    }
    Ok(Some((Digest::of(&fs::read(dir.join(OBJECT))?), Digest::of(&answer.stderr))))
}
