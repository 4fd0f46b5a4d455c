//! A project of small files that takes a moment to compile, made anew wherever it is wanted: its objects are the same
//! everywhere, because nothing in them is of their folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::person::Person;
use crate::run::{Job, Seen, Via, cores, run_all};
use crate::{Context, Outcome};

/// Above what travels inside messages (128 KiB), so that the header of each folder is an upload of its own.
const HEADER_BYTES: usize = 160 << 10;

/// The objects that the plain compiler makes, by name.
pub type Objects = BTreeMap<String, Vec<u8>>;

/// A folder of sources.
#[derive(Clone, Debug)]
pub struct Small {
    /// Where.
    pub dir: PathBuf,
    /// How many.
    pub files: usize,
}

impl Small {
    /// Makes the folder with sources of `files` objects. `mark` makes its header unlike all others.
    pub fn make(dir: &Path, files: usize, mark: &str) -> Outcome<Self> {
        Person::submitter().make_dir(dir)?;
        let filling = format!("/* {mark} */\n").repeat(HEADER_BYTES.div_ceil(mark.len() + 7));
        let write = |name: &str, text: String| -> Outcome<()> {
            fs::write(dir.join(name), text).context(|| format!("writing {name} in {}", dir.display()))
        };
        write("large.h", format!("{filling}#define VALUE 7\n"))?;
        write("small.h", "#include \"large.h\"\nint helper(int);\n".into())?;
        for n in 0..files {
            let body: String = (0..60)
                .map(|i| format!("int f{n}_{i}(int x, int *p) {{ for (int i = 0; i < x; i++) p[i] = p[i / 2] * {i} + x % (i + 3); return p[0] + VALUE; }}\n"))
                .collect();
            write(&format!("s{n}.c"), format!("#include \"small.h\"\n{body}"))?;
        }
        Ok(Self { dir: dir.to_path_buf(), files })
    }

    fn name(n: usize) -> String {
        format!("s{n}.o")
    }

    fn job(&self, n: usize) -> Job {
        let argv = ["gcc".into(), "-O2".into(), "-c".into(), format!("s{n}.c"), "-o".into(), Self::name(n)];
        Job { cwd: self.dir.clone(), argv: argv.into_iter().map(Into::into).collect() }
    }

    /// The objects as the plain compiler makes them.
    pub fn plain(&self) -> Outcome<Objects> {
        self.build(Via::Plain, &(0..self.files).collect::<Vec<_>>(), cores(), &|_| {})?;
        let objects = (0..self.files).map(|n| Ok((Self::name(n), fs::read(self.dir.join(Self::name(n)))?)));
        let objects = objects.collect::<Outcome<_>>()?;
        self.clean()?;
        Ok(objects)
    }

    /// Compiles some of its files.
    pub fn build(
        &self,
        via: Via<'_>,
        which: &[usize],
        parallel: usize,
        tick: &(dyn Fn(usize) + Sync),
    ) -> Outcome<Vec<Seen>> {
        let jobs: Vec<Job> = which.iter().map(|n| self.job(*n)).collect();
        run_all(via, &jobs, parallel, tick)
    }

    /// What differs from the plain compiler's objects, and what lies there that nobody asked for.
    pub fn differences(&self, objects: &Objects) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, right) in objects {
            match fs::read(self.dir.join(name)) {
                Ok(bytes) if bytes == *right => {}
                Ok(bytes) => wrong.push(format!("{name} has other {} bytes", bytes.len())),
                Err(e) => wrong.push(format!("{name}: {e}")),
            }
        }
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".c") && !name.ends_with(".h") && !objects.contains_key(&name) {
                wrong.push(format!("left {name}"));
            }
        }
        wrong
    }

    /// Removes everything but the sources.
    pub fn clean(&self) -> Outcome<()> {
        for entry in fs::read_dir(&self.dir)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".c") && !name.ends_with(".h") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}
