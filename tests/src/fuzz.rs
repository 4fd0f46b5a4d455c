//! Headers that appear, vanish, move, shadow each other and turn into links between and during compiles, from a seed;
//! after each round the pool's result equals a local build of the same state.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::lab::base_dir;
use crate::person::Person;
use crate::run::{Job, Seen, Via, run_all};
use crate::tree::{Baseline, Outputs};
use crate::{Context, Outcome, Trouble};

/// Small deterministic numbers (splitmix64): a round can be repeated from its printed seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `n`, which is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

const DIRS: &[&str] = &["src", "q", "a", "b", "b/sub", "a/sub", "sys", "after", "gen"];
const NAMES: &[&str] = &["h0.h", "h1.h", "h2.h", "sub/h3.h", "h4.h", "h5.h"];
const UNITS: usize = 3;

/// The tree that is changed, and the compiles in it.
#[derive(Debug)]
pub struct Ground {
    dir: PathBuf,
    compiler: &'static str,
    dice: Dice,
    version: u32,
}

/// What one compile of a state gave.
type Result = (i32, Vec<u8>, Outputs);

impl Ground {
    /// A fresh tree.
    pub fn new(seed: u64, compiler: &'static str) -> Outcome<Self> {
        let dir = Self::place()?;
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        for sub in DIRS.iter().chain(&["out"]) {
            Person::submitter().make_dir(&dir.join(sub))?;
        }
        let ground = Self { dir, compiler, dice: Dice::new(seed), version: 0 };
        for unit in 0..UNITS {
            let path = ground.dir.join(format!("src/u{unit}.c"));
            fs::write(&path, source(unit))?;
        }
        for name in ["a/h0.h", "b/h1.h", "b/h4.h"] {
            fs::write(ground.dir.join(name), header(name, 0, ""))?;
        }
        Ok(ground)
    }

    /// Where it is: to be shown to workers as a decoy.
    pub fn place() -> Outcome<PathBuf> {
        Ok(base_dir()?.join("src/fuzz"))
    }

    fn jobs(&self) -> Vec<Job> {
        let one = |unit: usize| {
            let options = "-O1 -g -Wall -Wextra -MD -iquote q -Ia -Ib -isystem sys -idirafter after";
            let mut argv: Vec<std::ffi::OsString> = vec![self.compiler.into()];
            argv.extend(options.split(' ').map(Into::into));
            argv.extend(["-c".into(), format!("src/u{unit}.c").into(), "-o".into(), format!("out/u{unit}.o").into()]);
            Job { cwd: self.dir.clone(), argv }
        };
        (0..UNITS).map(one).collect()
    }

    /// One round: changes, a build through the pool, at times with a change in its middle, and the local build of the
    /// final state. `Err` says what differed.
    pub fn round(&mut self, via: Via<'_>) -> Outcome<()> {
        let mut said = Vec::new();
        for _ in 0..1 + self.dice.below(3) {
            said.push(self.change(false)?);
        }
        if self.dice.below(3) == 0 {
            said.push(self.change_during(via)?);
        }
        let pool = self.build(via)?;
        let local = self.build(Via::Plain)?;
        for (unit, (pool, local)) in pool.iter().zip(&local).enumerate() {
            if let Some(what) = differs(pool, local) {
                let story = said.join(", then ");
                return Err(Trouble::new(format!("u{unit}: {what} after {story} ({})", self.dir.display())));
            }
        }
        Ok(())
    }

    /// Starts the build, changes one file meanwhile; each result must be that of the state before or after.
    fn change_during(&mut self, via: Via<'_>) -> Outcome<String> {
        let before = self.build(Via::Plain)?;
        let jobs = self.jobs();
        let baseline = Baseline::take(&[self.out()]);
        let moment = std::time::Duration::from_micros(self.dice.below(60_000) as u64);
        let (seen, said) = std::thread::scope(|scope| {
            let running = scope.spawn(move || run_all(via, &jobs, UNITS, &|_| {}));
            // Not to wait for anything: the change hits a random moment of the build.
            std::thread::park_timeout(moment);
            let said = self.change(true);
            (running.join().expect("run_all does not panic"), said)
        });
        let during = self.collect(&seen?, &baseline)?;
        let after = self.build(Via::Plain)?;
        for (unit, result) in during.iter().enumerate() {
            // A failing build may name the moment at which a file was absent; its text belongs to neither state.
            if result.0 != 0 || differs(result, &before[unit]).is_none() {
                continue;
            }
            if let Some(what) = differs(result, &after[unit]) {
                let said = said?;
                return Err(Trouble::new(format!(
                    "u{unit}: {what}: neither the state before nor after {said}, made during it"
                )));
            }
        }
        Ok(format!("during a build: {}", said?))
    }

    fn out(&self) -> PathBuf {
        self.dir.join("out")
    }

    /// Builds all units and takes the outputs away.
    fn build(&self, via: Via<'_>) -> Outcome<Vec<Result>> {
        let baseline = Baseline::take(&[self.out()]);
        let seen = match via {
            Via::Plain => run_all(via, &self.jobs(), 1, &|_| {})?,
            Via::Pool(_) => run_all(via, &self.jobs(), UNITS, &|_| {})?,
        };
        self.collect(&seen, &baseline)
    }

    fn collect(&self, seen: &[Seen], baseline: &Baseline) -> Outcome<Vec<Result>> {
        let (outputs, _) = baseline.changes(&[self.out()])?;
        crate::tree::remove(&outputs)?;
        let of = |unit: usize| {
            let stem = format!("u{unit}.");
            let mine = |p: &Path| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&stem));
            outputs.iter().filter(|(p, _)| mine(p)).map(|(p, l)| (p.clone(), l.clone())).collect()
        };
        Ok(seen.iter().enumerate().map(|(unit, s)| (s.exit, s.stderr.clone(), of(unit))).collect())
    }

    /// One random change of the tree; what it was. An atomic one has no state in between.
    fn change(&mut self, atomic: bool) -> Outcome<String> {
        self.version += 1;
        let target = self.somewhere();
        let path = self.dir.join(&target);
        let kind = self.dice.below(if atomic { 8 } else { 12 });
        let said = match kind {
            0..=3 => {
                self.write(&target, atomic)?;
                format!("writing {target}")
            }
            4 => {
                let file = fs::OpenOptions::new().append(true).open(&path);
                file.and_then(|f| f.set_modified(std::time::SystemTime::now())).ok();
                format!("touching {target}")
            }
            5 | 6 => {
                let _ = fs::remove_file(&path);
                format!("deleting {target}")
            }
            7 => {
                let to = self.somewhere();
                let _ = fs::create_dir_all(self.dir.join(&to).parent().context(|| to.clone())?);
                let _ = fs::rename(&path, self.dir.join(&to));
                format!("renaming {target} to {to}")
            }
            8 => {
                let to = self.somewhere();
                remove(&path);
                self.parent(&path);
                let _ = symlink(self.dir.join(&to), &path);
                format!("linking {target} to {to}")
            }
            9 => {
                let (link, to) =
                    (*self.dice.pick(&["a/sub", "b/sub", "q/sub"]), *self.dice.pick(&["gen", "after", "nowhere"]));
                remove(&self.dir.join(link));
                let _ = symlink(self.dir.join(to), self.dir.join(link));
                format!("linking the folder {link} to {to}")
            }
            10 => {
                let dir = *self.dice.pick(&["a/sub", "b/sub", "q/sub", "a/h2.h"]);
                remove(&self.dir.join(dir));
                let _ = fs::create_dir_all(self.dir.join(dir));
                format!("making the folder {dir}")
            }
            _ => {
                let unit = self.dice.below(UNITS);
                let text = format!("{}int edit{};\n", source(unit), self.version);
                fs::write(self.dir.join(format!("src/u{unit}.c")), text)?;
                format!("editing u{unit}.c")
            }
        };
        Ok(said)
    }

    fn somewhere(&mut self) -> String {
        format!("{}/{}", self.dice.pick(DIRS), self.dice.pick(NAMES))
    }

    fn parent(&self, path: &Path) {
        if let Some(parent) = path.parent() {
            let _ = fs::create_dir_all(parent);
        }
    }

    /// A new header under a name, put there by rename as generators do, or written in place as editors do.
    fn write(&mut self, name: &str, atomic: bool) -> Outcome<()> {
        let other = *self.dice.pick(NAMES);
        let extra = match self.dice.below(6) {
            0 => format!("#include <{other}>\n"),
            1 => format!("#if __has_include(<{other}>)\n#include <{other}>\n#endif\n"),
            2 => format!("#define LAB_NEXT <{other}>\n#include LAB_NEXT\n#undef LAB_NEXT\n"),
            3 => "#if __has_include_next(\"h1.h\")\n#include_next <h1.h>\n#endif\n".into(),
            _ => String::new(),
        };
        let text = header(name, self.version, &extra);
        let path = self.dir.join(name);
        self.parent(&path);
        if path.is_dir() && !atomic {
            remove(&path);
        }
        if atomic || self.dice.below(2) == 0 {
            let new = self.dir.join("gen/.new");
            fs::write(&new, text)?;
            let _ = fs::rename(&new, &path);
        } else {
            let _ = fs::write(&path, text);
        }
        Ok(())
    }
}

fn remove(path: &Path) {
    // Whatever it is, and it may be nothing.
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
}

fn differs(pool: &Result, local: &Result) -> Option<String> {
    if pool.0 != local.0 {
        let text = String::from_utf8_lossy(&pool.1).into_owned();
        return Some(format!("exit {} instead of {}: {}", pool.0, local.0, text.chars().take(300).collect::<String>()));
    }
    if pool.1 != local.1 {
        return Some(format!(
            "stderr {:?} instead of {:?}",
            String::from_utf8_lossy(&pool.1),
            String::from_utf8_lossy(&local.1)
        ));
    }
    (pool.2 != local.2).then(|| format!("outputs {:?} instead of {:?}", pool.2, local.2))
}

fn header(name: &str, version: u32, extra: &str) -> String {
    let id: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let base: String = name.rsplit('/').next().unwrap_or(name).replace('.', "_");
    format!(
        "#ifndef GUARD_{id}\n#define GUARD_{id}\n{extra}#ifndef VALUE_{base}\n#define VALUE_{base} \"{name} {version}\"\n#endif\n#endif\n"
    )
}

fn source(unit: usize) -> String {
    let order: Vec<&str> = (0..NAMES.len()).map(|i| NAMES[(i + unit) % NAMES.len()]).collect();
    let mut text = String::from("#include \"h0.h\"\n#include <h1.h>\n#define H4 <h4.h>\n#include H4\n");
    for name in &order {
        text.push_str(&format!("#if __has_include(<{name}>)\n#include <{name}>\n#endif\n"));
    }
    text.push_str("#if __has_include(\"h5.h\")\n#include \"h5.h\"\n#endif\n");
    for name in NAMES {
        let base = name.rsplit('/').next().unwrap_or(name).replace('.', "_");
        text.push_str(&format!("#ifdef VALUE_{base}\nconst char *{base} = VALUE_{base} __FILE__;\n#endif\n"));
    }
    text
}
