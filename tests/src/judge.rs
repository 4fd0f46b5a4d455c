//! Local against local, then pool against local: which files are judged, and which of them differ in what.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::commands::Unit;
use crate::lab::base_dir;
use crate::mode::{Mode, Prefix};
use crate::person::Person;
use crate::run::{Job, Seen, Via, cores, run, run_all};
use crate::tree::{Baseline, Left, Outputs};
use crate::workload::Workload;
use crate::{Context, Outcome};

/// A compiler family by the names of its two drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// For C.
    pub c: &'static str,
    /// For C++.
    pub cxx: &'static str,
}

/// GNU.
pub const GCC: Compiler = Compiler { c: "gcc", cxx: "g++" };
/// LLVM.
pub const CLANG: Compiler = Compiler { c: "clang", cxx: "clang++" };

/// All that can be seen of one compile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Exit code.
    pub exit: i32,
    /// Digest of standard output.
    pub stdout: String,
    /// Digest of standard error.
    pub stderr: String,
    /// Outputs by path.
    pub outputs: Outputs,
}

/// What the local compiler does with one unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reference {
    /// First run.
    pub trace: Trace,
    /// Outputs whose content the second run changed (gcc's `-gsplit-dwarf` does so even with a seed).
    pub unstable: BTreeSet<PathBuf>,
    /// Everything else was the same in the second run.
    pub steady: bool,
    /// CPU microseconds of the first run.
    pub cpu_us: u64,
}

/// One unit that the pool did differently.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Index of the unit.
    pub unit: usize,
    /// What differs: `exit`, `stderr`, `.o`, …
    pub what: Vec<String>,
}

/// The result of one batch.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Files compiled.
    pub files: usize,
    /// Files on which local agreed with local.
    pub judged: usize,
    /// Of them, those that the pool did exactly alike.
    pub equal: usize,
    /// Files of which local repeats all but the content of some outputs: all the rest was compared.
    pub partly: usize,
    /// Of the judged, those that fail to compile locally: the pool shows a local failure.
    pub failing: usize,
    /// What differed.
    pub differences: Vec<Difference>,
    /// Outputs that belong to no unit: left-overs.
    pub strays: Vec<PathBuf>,
}

/// A workload in one compiler and mode.
pub struct Trial<'a> {
    /// The project.
    pub workload: &'a Workload,
    /// The compiler.
    pub compiler: Compiler,
    /// The mode.
    pub mode: Mode,
}

impl Trial<'_> {
    /// The commands.
    pub fn jobs(&self) -> Outcome<Vec<Job>> {
        let options = self.mode.arguments();
        let mut jobs = Vec::new();
        for unit in &self.workload.units {
            let mut run = options.clone();
            if self.mode.prefix != Prefix::None {
                let header = prefix_header(self.compiler, unit, self.mode)?;
                run.extend(["-include".into(), header.to_string_lossy().into_owned()]);
            }
            let driver = if unit.cxx { self.compiler.cxx } else { self.compiler.c };
            let mut argv: Vec<OsString> = vec![driver.into()];
            argv.extend(unit.args(&run).into_iter().map(OsString::from));
            jobs.push(Job { cwd: unit.cwd.clone(), argv });
        }
        Ok(jobs)
    }

    /// Compiles every unit twice locally, moving the results away each time. Kept references are used when `keep`.
    pub fn references(&self, keep: bool, tick: &(dyn Fn(usize) + Sync)) -> Outcome<Vec<Reference>> {
        let jobs = self.jobs()?;
        let dir = base_dir()?.join("references");
        Person::submitter().make_dir(&dir)?;
        let file = dir.join(format!("{}-{}-{}.json", self.workload.name, self.compiler.c, self.mode.name));
        let kept: BTreeMap<String, Reference> = if keep {
            fs::read(&file).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default()
        } else {
            BTreeMap::new()
        };
        let salt = format!("{}{}", compiler_version(self.compiler)?, today()?);
        let keys: Vec<String> = jobs.iter().map(|j| key(&salt, j)).collect();
        let missing: Vec<usize> = (0..jobs.len()).filter(|i| !kept.contains_key(&keys[*i])).collect();
        let mut references = kept;
        if !missing.is_empty() {
            let some: Vec<Job> = missing.iter().map(|i| jobs[*i].clone()).collect();
            let units: Vec<Unit> = missing.iter().map(|i| self.workload.units[*i].clone()).collect();
            let roots = &self.workload.roots;
            let build = || -> Outcome<(Vec<Trace>, Vec<Seen>)> {
                let before = Baseline::take(roots);
                let seen = run_all(Via::Plain, &some, cores(), tick)?;
                let (outputs, _) = before.changes(roots)?;
                crate::tree::remove(&outputs)?;
                Ok((traces(&units, &seen, outputs).0, seen))
            };
            let ((first, seen), (second, _)) = (build()?, build()?);
            for (n, index) in missing.iter().enumerate() {
                let unstable = unstable(&first[n], &second[n]);
                let steady = differences(&first[n], &second[n], &unstable).is_empty();
                let cpu_us = seen[n].cpu.as_micros() as u64;
                references
                    .insert(keys[*index].clone(), Reference { trace: first[n].clone(), unstable, steady, cpu_us });
            }
            fs::write(&file, serde_json::to_vec(&references)?)?;
        }
        Ok(keys.iter().map(|k| references[k].clone()).collect())
    }

    /// Compiles every unit through `via` and compares; outputs stay where they are and are returned.
    pub fn judge(
        &self,
        via: Via<'_>,
        references: &[Reference],
        parallel: usize,
        tick: &(dyn Fn(usize) + Sync),
    ) -> Outcome<(Verdict, Outputs)> {
        let roots = &self.workload.roots;
        let before = Baseline::take(roots);
        let seen = run_all(via, &self.jobs()?, parallel, tick)?;
        let (outputs, _) = before.changes(roots)?;
        let verdict = self.compare(&seen, outputs.clone(), references);
        Ok((verdict, outputs))
    }

    /// What the pool did, beside what the local compiler does.
    pub fn compare(&self, seen: &[Seen], outputs: Outputs, references: &[Reference]) -> Verdict {
        let (traces, strays) = traces(&self.workload.units, seen, outputs);
        let mut verdict = Verdict { files: traces.len(), strays, ..Verdict::default() };
        for (unit, (trace, reference)) in traces.iter().zip(references).enumerate() {
            verdict.failing += usize::from(reference.trace.exit != 0);
            if !reference.steady {
                continue;
            }
            let whole = reference.unstable.is_empty();
            verdict.judged += usize::from(whole);
            verdict.partly += usize::from(!whole);
            let what = differences(&reference.trace, trace, &reference.unstable);
            if !what.is_empty() {
                verdict.differences.push(Difference { unit, what });
            } else if whole {
                verdict.equal += 1;
            }
        }
        verdict
    }

    /// Keeps both versions of a unit's outputs for whoever looks into the difference; where they are.
    pub fn keep_evidence(&self, via: Via<'_>, unit: usize) -> Outcome<PathBuf> {
        let job = &self.jobs()?[unit];
        let name = format!("{}-{}-{}-{unit}", self.workload.name, self.compiler.c, self.mode.name);
        let dir = base_dir()?.join("differences").join(name);
        let _ = fs::remove_dir_all(&dir);
        for (side, via) in [("pool", via), ("local", Via::Plain)] {
            fs::create_dir_all(dir.join(side))?;
            let before = Baseline::take(&self.workload.roots);
            let seen = run(via.command(job), &job.argv[0].to_string_lossy())?;
            let (outputs, _) = before.changes(&self.workload.roots)?;
            for path in outputs.keys().filter(|p| p.is_file()) {
                fs::copy(path, dir.join(side).join(path.file_name().context(|| "an output without a name".into())?))?;
            }
            fs::write(dir.join(side).join("stderr"), &seen.stderr)?;
            crate::tree::remove(&outputs)?;
        }
        let words: Vec<_> = job.argv.iter().map(|a| a.to_string_lossy()).collect();
        fs::write(dir.join("command"), format!("cd {} && {}\n", job.cwd.display(), words.join(" ")))?;
        Ok(dir)
    }
}

fn key(salt: &str, job: &Job) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(salt.as_bytes()).update(job.cwd.as_os_str().as_encoded_bytes());
    for arg in &job.argv {
        hash.update(b"\0").update(arg.as_encoded_bytes());
    }
    hash.finalize().to_hex().to_string()
}

fn compiler_version(compiler: Compiler) -> Outcome<String> {
    crate::workload::shell(Path::new("/"), &format!("{} --version; {} --version", compiler.c, compiler.cxx), &[])
}

/// `__DATE__` is part of a reference.
fn today() -> Outcome<String> {
    crate::workload::shell(Path::new("/"), "date +%F", &[])
}

/// What each unit did, and outputs that belong to none.
fn traces(units: &[Unit], seen: &[Seen], outputs: Outputs) -> (Vec<Trace>, Vec<PathBuf>) {
    let digest = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_string();
    let mut traces: Vec<Trace> = seen
        .iter()
        .map(|s| Trace { exit: s.exit, stdout: digest(&s.stdout), stderr: digest(&s.stderr), outputs: Outputs::new() })
        .collect();
    let owners = Owners::new(units);
    let mut strays = Vec::new();
    for (path, left) in outputs {
        match owners.of(&path) {
            Some(unit) => drop(traces[unit].outputs.insert(path, left)),
            None => strays.push(path),
        }
    }
    (traces, strays)
}

/// Which unit an output belongs to, by the names that compilers derive from object and source.
struct Owners(BTreeMap<(PathBuf, String), usize>);

impl Owners {
    fn new(units: &[Unit]) -> Self {
        let mut map = BTreeMap::new();
        // Names from the source go to the working directory, unless an object there has the same stem.
        for (index, unit) in units.iter().enumerate() {
            if let Some(stem) = Path::new(&unit.source).file_stem() {
                map.insert((unit.cwd.clone(), stem.to_string_lossy().into_owned()), index);
            }
        }
        for (index, unit) in units.iter().enumerate() {
            let object = unit.object_path();
            if let (Some(dir), Some(stem)) = (object.parent(), object.file_stem()) {
                map.insert((dir.to_path_buf(), stem.to_string_lossy().into_owned()), index);
            }
        }
        Self(map)
    }

    fn of(&self, path: &Path) -> Option<usize> {
        let (dir, name) = (path.parent()?, path.file_name()?.to_string_lossy().into_owned());
        let ends: Vec<usize> = name.match_indices(['.', '-']).map(|(i, _)| i).filter(|i| *i > 0).collect();
        ends.iter().rev().find_map(|end| self.0.get(&(dir.to_path_buf(), name[..*end].to_string())).copied())
    }
}

/// Outputs that both runs left with different content.
fn unstable(first: &Trace, second: &Trace) -> BTreeSet<PathBuf> {
    let both = first.outputs.iter().filter_map(|(path, left)| Some((path, left, second.outputs.get(path)?)));
    both.filter(|(_, a, b)| a.kind != b.kind).map(|(path, ..)| path.clone()).collect()
}

fn differences(local: &Trace, pool: &Trace, unstable: &BTreeSet<PathBuf>) -> Vec<String> {
    let mut what = Vec::new();
    if local.exit != pool.exit {
        what.push(format!("exit {} instead of {}", pool.exit, local.exit));
    }
    if local.stdout != pool.stdout {
        what.push("stdout".into());
    }
    if local.stderr != pool.stderr {
        what.push("stderr".into());
    }
    let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    for (path, left) in &local.outputs {
        match pool.outputs.get(path) {
            None => what.push(format!("{} missing", name(path))),
            Some(other) => {
                what.extend(difference(left, other, !unstable.contains(path)).map(|d| format!("{} {d}", name(path))))
            }
        }
    }
    for path in pool.outputs.keys().filter(|p| !local.outputs.contains_key(*p)) {
        what.push(format!("{} too many", name(path)));
    }
    what
}

fn difference(local: &Left, pool: &Left, content: bool) -> Option<String> {
    if content && local.kind != pool.kind {
        return Some("content".into());
    }
    if local.mode != pool.mode {
        return Some(format!("mode {:o} instead of {:o}", pool.mode, local.mode));
    }
    (local.links != pool.links).then(|| format!("{} links", pool.links))
}

/// The header that `-include` names, with its precompiled form when the mode wants one.
fn prefix_header(compiler: Compiler, unit: &Unit, mode: Mode) -> Outcome<PathBuf> {
    let driver = if unit.cxx { compiler.cxx } else { compiler.c };
    // What decides whether gcc accepts a precompiled header, besides the mode's own options.
    let dialect: Vec<String> =
        unit.flags.iter().filter(|f| f.starts_with("-f") || f.starts_with("-std")).cloned().collect();
    let kind = match mode.prefix {
        Prefix::Precompiled => "gch",
        Prefix::Data => "data",
        Prefix::None | Prefix::Plain => "plain",
    };
    let id = blake3::hash(dialect.join(" ").as_bytes()).to_hex()[..8].to_string();
    let dir = base_dir()?.join("src/prefix").join(format!("{driver}-{kind}-{id}"));
    let header = dir.join("prefix.h");
    if dir.is_dir() {
        return Ok(header);
    }
    Person::submitter().make_dir(&dir)?;
    let data = dir.join("data.bin");
    let text = match mode.prefix {
        Prefix::Data => format!(
            "__asm__(\".pushsection .rodata.lab,\\\"a\\\"\\n.incbin \\\"{}\\\"\\n.popsection\");\n",
            data.display()
        ),
        _ => {
            "#include <stddef.h>\nstatic inline size_t lab_prefix(const char *s) { return s ? sizeof s : 0; }\n".into()
        }
    };
    fs::write(&header, text)?;
    fs::set_permissions(&header, fs::Permissions::from_mode(0o644))?;
    if mode.prefix == Prefix::Data {
        fs::write(&data, (0..3000u32).map(|i| (i * i / 7) as u8).collect::<Vec<_>>())?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o644))?;
    }
    if mode.prefix == Prefix::Precompiled {
        let language = if unit.cxx { "c++-header" } else { "c-header" };
        let options =
            [dialect, mode.arguments()].concat().into_iter().filter(|a| a != "-MD").collect::<Vec<_>>().join(" ");
        crate::workload::shell(&dir, &format!("{driver} {options} -x {language} prefix.h -o prefix.h.gch"), &[])?;
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(source: &str, object: &str) -> Unit {
        Unit { cwd: "/p".into(), cxx: false, flags: Vec::new(), source: source.into(), object: object.into() }
    }

    #[test]
    fn side_outputs_belong_to_the_unit_with_the_longest_stem() {
        let owners = Owners::new(&[unit("a.c", "a.o"), unit("s/a.b.c", "a.b.o"), unit("d/x.c", "out/x.o")]);
        let of = |p: &str| owners.of(Path::new(p));
        assert_eq!((of("/p/a.d"), of("/p/a.b.dwo"), of("/p/a.c.254t.optimized")), (Some(0), Some(1), Some(0)));
        assert_eq!((of("/p/out/x.gcno"), of("/p/x.i"), of("/p/.potluck-tmp.o")), (Some(2), Some(2), None));
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let left = |digest: &str, mode| Left {
            kind: crate::tree::Kind::File { digest: digest.into(), bytes: 1 },
            mode,
            links: 1,
        };
        let trace = |outputs: &[(&str, Left)]| Trace {
            exit: 0,
            stdout: String::new(),
            stderr: String::new(),
            outputs: outputs.iter().map(|(p, l)| (PathBuf::from(p), l.clone())).collect(),
        };
        let local = trace(&[("/a.o", left("1", 0o644)), ("/a.d", left("1", 0o644)), ("/a.su", left("1", 0o644))]);
        let pool = trace(&[("/a.o", left("2", 0o644)), ("/a.d", left("1", 0o600)), ("/a.x", left("1", 0o644))]);
        let what = differences(&local, &pool, &BTreeSet::new());
        assert_eq!(what, ["a.d mode 600 instead of 644", "a.o content", "a.su missing", "a.x too many"]);
        assert!(differences(&local, &local, &BTreeSet::new()).is_empty());
    }
}
