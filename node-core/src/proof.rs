//! What a worker must show before it gets a toolchain's jobs: the same bytes for the probes, the same search list, and
//! for each lookup that a compiler could swallow without a word, a fault in the trap's log.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use potluck_model::ids::{Digest, JobId};
use potluck_model::plan::Family;
use potluck_wire::pool;

use crate::bytes;
use crate::dirs::make_private;
use crate::toolchain::{Environment, Packed, SearchList, ask, probe, search_list, search_list_of};
use crate::tree::{Closure, Tree};

/// What is shown.
#[derive(Clone, Debug)]
pub enum ProofKind {
    /// Object and standard error have these digests.
    Bytes {
        /// Of the object.
        object: Digest,
        /// Of standard error.
        stderr: Digest,
    },
    /// `-v -E` prints this list.
    Search {
        /// As it is printed here.
        list: SearchList,
    },
    /// This withheld path is reported, whatever the exit code.
    Fault {
        /// Which lookup it stands for.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
}

/// One proof: a small job with a known outcome.
#[derive(Clone, Debug)]
pub struct Proof {
    /// What is shown.
    pub kind: ProofKind,
    driver: PathBuf,
    args: Vec<OsString>,
    env: Vec<Vec<u8>>,
    dir: PathBuf,
    files: Vec<PathBuf>,
    tries: u32,
}

/// How a result is to be read.
pub enum Verdict {
    /// As it should be.
    Passed,
    /// Files are missing that the packing did not foresee.
    Needs(Vec<Vec<u8>>),
    /// Not as it should be.
    Failed(String),
}

/// Runs of one proof with more files.
const TRIES_MAX: u32 = 8;

/// Writes the proofs' files and finds out what is to be expected. Blocks: it runs the compiler.
pub fn prepare(cache: &Path, packed: &Packed) -> Result<Vec<Proof>, String> {
    let base = cache.join("proofs").join(packed.id.short());
    let say = |e: std::io::Error| format!("{}: {e}", base.display());
    make_private(&base).map_err(say)?;
    let manifest = &packed.manifest;
    let mut proofs = Vec::new();
    let make = |name: &str, kind: ProofKind, args: Vec<OsString>, files: Vec<PathBuf>| Proof {
        kind,
        driver: manifest.driver.clone(),
        args,
        env: manifest.env.clone(),
        dir: base.join(name),
        files,
        tries: 0,
    };
    for (n, known) in manifest.probes.iter().enumerate() {
        let name = format!("probe-{n}");
        let dir = base.join(&name);
        make_private(&dir).map_err(say)?;
        let source = dir.join(&known.source_name);
        write(&source, &known.source).map_err(say)?;
        let kind = ProofKind::Bytes { object: known.object, stderr: known.stderr };
        proofs.push(make(&name, kind, probe::args_in(known, &dir), vec![source]));
    }
    let env = Environment::from_entries(&manifest.env);
    for language in manifest.languages.iter().filter(|l| ["c", "c++"].contains(&l.as_str())) {
        let list = search_list_of(&manifest.driver, language, &[], &env, Path::new("/"))
            .map_err(|e| e.to_string())?
            .ok_or_else(|| format!("{} prints no search list", manifest.driver.display()))?;
        let name = format!("search-{}", language.replace('+', "x"));
        make_private(&base.join(&name)).map_err(say)?;
        let mut proof = make(&name, ProofKind::Search { list }, ask::search_list_args(language, &[]), Vec::new());
        proof.env = Environment::from_entries(&manifest.env).in_english().entries();
        proofs.push(proof);
    }
    for case in CASES.iter().filter(|c| c.family.is_none_or(|f| f == manifest.family)) {
        let name = format!("fault-{}", case.what);
        let dir = base.join(&name);
        make_private(&dir).map_err(say)?;
        let mut files = Vec::new();
        for (path, content) in case.files {
            let path = dir.join(path);
            make_private(path.parent().unwrap_or(&dir)).map_err(say)?;
            write(&path, content.as_bytes()).map_err(say)?;
            // The withheld path may be a directory above this one.
            if !path.starts_with(dir.join(case.withheld)) {
                files.push(path);
            }
        }
        let args = case.args.iter().map(OsString::from).collect();
        let kind = ProofKind::Fault { what: case.what, path: dir.join(case.withheld) };
        proofs.push(make(&name, kind, args, files));
    }
    Ok(proofs)
}

fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    // Unchanged files keep their time: nothing travels again after a restart.
    if fs::read(path).is_ok_and(|old| old == content) { Ok(()) } else { fs::write(path, content) }
}

struct Case {
    what: &'static str,
    family: Option<Family>,
    files: &'static [(&'static str, &'static str)],
    withheld: &'static str,
    args: &'static [&'static str],
}

const MAIN: &str = "int main(void) { return 0; }\n";
const GCC: Option<Family> = Some(Family::Gcc);
const CLANG: Option<Family> = Some(Family::Clang);

/// The lookups of the study that a self-loop would not stop: each must be seen by the trap. What a family does not
/// look up has no case for it; clang reads no specs, its nearest kin is the search for a GCC installation.
const CASES: &[Case] = &[
    Case {
        what: "include",
        family: None,
        files: &[("a.c", "#include \"x.h\"\n"), ("x.h", "")],
        withheld: "x.h",
        args: &["-c", "a.c", "-o", "a.o"],
    },
    Case {
        what: "has-include",
        family: None,
        files: &[("a.c", "#if __has_include(\"x.h\")\nint a;\n#endif\n"), ("x.h", "")],
        withheld: "x.h",
        args: &["-c", "a.c", "-o", "a.o"],
    },
    Case {
        what: "middle",
        family: None,
        files: &[("a.c", "#include <sub/x.h>\n"), ("p/sub/y.h", ""), ("q/sub/x.h", "")],
        withheld: "p/sub",
        args: &["-Ip", "-Iq", "-c", "a.c", "-o", "a.o"],
    },
    Case {
        what: "gch",
        family: GCC,
        files: &[("a.c", "#include \"x.h\"\n"), ("x.h", "\n"), ("x.h.gch", "no precompiled header")],
        withheld: "x.h.gch",
        args: &["-c", "a.c", "-o", "a.o"],
    },
    Case {
        what: "gch",
        family: CLANG,
        files: &[("a.c", "\n"), ("x.h", "\n"), ("x.h.gch", "no precompiled header")],
        withheld: "x.h.gch",
        args: &["-include", "x.h", "-c", "a.c", "-o", "a.o"],
    },
    Case {
        what: "incbin",
        family: None,
        files: &[("a.c", "asm(\".incbin \\\"x.bin\\\"\");\n"), ("x.bin", "x")],
        withheld: "x.bin",
        args: &["-c", "a.c", "-o", "a.o"],
    },
    Case {
        what: "asm-include",
        family: None,
        files: &[("a.c", "asm(\".include \\\"x.inc\\\"\");\n"), ("x.inc", "\n")],
        withheld: "x.inc",
        args: &["-c", "a.c", "-o", "a.o"],
    },
    Case {
        what: "dash-b",
        family: GCC,
        files: &[("a.c", MAIN), ("tools/as", "no program")],
        withheld: "tools/as",
        args: &["-Btools/", "-c", "a.c", "-o", "a.o"],
    },
    Case {
        what: "dash-b",
        family: CLANG,
        files: &[("a.c", MAIN), ("tools/as", "no program")],
        withheld: "tools/as",
        args: &["-Btools", "-fno-integrated-as", "-c", "a.c", "-o", "a.o"],
    },
    Case {
        what: "specs",
        family: GCC,
        files: &[("a.c", MAIN), ("tools/specs", "")],
        withheld: "tools/specs",
        args: &["-Btools/", "-c", "a.c", "-o", "a.o"],
    },
    Case {
        what: "gcc-installation",
        family: CLANG,
        files: &[("a.c", MAIN), ("tools/lib/x", "")],
        withheld: "tools/lib",
        args: &["--gcc-toolchain=tools", "-c", "a.c", "-o", "a.o"],
    },
    Case {
        what: "gcda",
        family: GCC,
        files: &[("a.c", MAIN), ("a.gcda", "no profile")],
        withheld: "a.gcda",
        args: &["-fprofile-use", "-O2", "-c", "a.c", "-o", "a.o"],
    },
    Case {
        what: "profdata",
        family: CLANG,
        files: &[("a.c", MAIN), ("default.profdata", "no profile")],
        withheld: "default.profdata",
        args: &["-fprofile-use=.", "-O2", "-c", "a.c", "-o", "a.o"],
    },
];

impl Proof {
    /// The job, and the closure that goes with it: only what is not withheld.
    pub fn job(&self, tree: &mut Tree, id: JobId) -> Result<(Arc<Closure>, pool::Job), String> {
        let paths = self.files.iter().map(PathBuf::as_path).chain([self.dir.as_path()]);
        // Directories named on the command line are listed, whatever is withheld in them.
        let named: Vec<PathBuf> = ["p", "q", "tools"].iter().map(|d| self.dir.join(d)).filter(|d| d.is_dir()).collect();
        let closure = tree.closure_of_paths(paths.chain(named.iter().map(PathBuf::as_path)));
        let physical = self.dir.canonicalize().map_err(|e| format!("{}: {e}", self.dir.display()))?;
        let mut argv = vec![bytes::of(&self.driver).to_vec()];
        argv.extend(self.args.iter().map(|a| a.as_bytes().to_vec()));
        let writes = !matches!(self.kind, ProofKind::Search { .. });
        let outputs = if writes {
            vec![pool::OutputDir { path: bytes::of(&physical).to_vec(), whiteouts: Vec::new() }]
        } else {
            Vec::new()
        };
        let job = pool::Job {
            id: id.0,
            program: bytes::of(&self.driver).to_vec(),
            argv,
            env: self.env.clone(),
            cwd: bytes::of(&physical).to_vec(),
            umask: 0o022,
            stack_bytes: 8 << 20,
            outputs,
            discard_outputs: !matches!(self.kind, ProofKind::Bytes { .. }),
            probe: true,
            ..pool::Job::default()
        };
        Ok((closure, job))
    }

    /// Reads the result.
    pub fn judge(&mut self, result: &pool::Result) -> Verdict {
        let exited = result.end == pool::EndKind::EndExited as i32;
        if let ProofKind::Fault { what, path } = &self.kind {
            let wanted = path.canonicalize().unwrap_or_else(|_| path.clone());
            let seen = result.faults.iter().any(|f| bytes::path(f) == wanted);
            return if seen {
                Verdict::Passed
            } else if !exited {
                Verdict::Failed(format!("{what}: {}", end_words(result)))
            } else {
                Verdict::Failed(format!("{what}: {} was not reported", wanted.display()))
            };
        }
        if result.faults_overflow || !result.written.is_empty() {
            return Verdict::Failed("it touched more than it should".to_owned());
        }
        if !result.faults.is_empty() {
            self.tries += 1;
            return if self.tries > TRIES_MAX {
                Verdict::Failed("it needs more and more files".to_owned())
            } else {
                Verdict::Needs(result.faults.clone())
            };
        }
        // The list is printed before anything is opened. Without FUSE a header that is included by itself and was not
        // sent is an error, and no word of it comes.
        let lists = matches!(self.kind, ProofKind::Search { .. }) && exited && search_list(&result.stderr).is_some();
        if !lists && (!exited || result.value != 0) {
            let said = bytes::show(&result.stderr);
            return Verdict::Failed(format!("{} ({})", end_words(result), said.lines().next().unwrap_or("no message")));
        }
        match &self.kind {
            ProofKind::Bytes { object, stderr } => {
                let file = result.outputs.iter().find(|o| o.path == probe::OBJECT.as_bytes());
                let content = file.and_then(crate::core_content::inline);
                if content.as_deref().map(Digest::of) != Some(*object) {
                    return Verdict::Failed(format!(
                        "another object for {:?}",
                        OsString::from_vec(self.args.iter().map(|a| a.as_bytes()).collect::<Vec<_>>().join(&b' '))
                    ));
                }
                if Digest::of(&result.stderr) != *stderr {
                    return Verdict::Failed("other messages".to_owned());
                }
                Verdict::Passed
            }
            ProofKind::Search { list } => match search_list(&result.stderr) {
                Some(there) if there == *list => Verdict::Passed,
                Some(there) => Verdict::Failed(format!("{there:?} instead of {list:?}")),
                None => Verdict::Failed("no list".to_owned()),
            },
            ProofKind::Fault { .. } => Verdict::Passed,
        }
    }
}

fn end_words(result: &pool::Result) -> String {
    match pool::EndKind::try_from(result.end).unwrap_or_default() {
        pool::EndKind::EndExited => format!("exit code {}", result.value),
        pool::EndKind::EndSignaled => format!("signal {}", result.value),
        pool::EndKind::EndLimit => format!("limit of {}", crate::guest::limit_name(result.value)),
        _ => format!("it did not run: {}", result.note),
    }
}
