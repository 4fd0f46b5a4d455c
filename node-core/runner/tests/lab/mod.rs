//! A place to try the sandbox in: a project, the tree that a worker would hold of it, and jobs on it. Everything is
//! real: the runner, the compilers and the files that they open here.
#![allow(dead_code)] // Each test program uses its part of it.

pub mod hostile;

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Output};

use potluck_runner::client::{Finished, Sandbox};
use potluck_runner::protocol::{End, HarvestKind, Job, Limits, OutputDir, Setup, TRAP_DIR};

/// The program under test, where this user may start it.
pub fn runner() -> PathBuf {
    std::env::var_os("POTLUCK_TEST_RUNNER").unwrap_or_else(|| env!("CARGO_BIN_EXE_potluck-runner").into()).into()
}

/// Environment of every compile, here and in the sandbox.
pub const ENV: &[&str] = &["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/nonexistent"];

/// Runs the calling test as an ordinary user. True: it has been run (and passed) and the caller shall return.
pub fn as_user(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    // What udev does on a desktop.
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).expect("/dev/fuse is there");
    // A checkout may lie in a folder that only root may enter.
    let folder = tempfile::Builder::new().prefix("potluck-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("potluck-runner");
    fs::copy(runner(), &copy).unwrap();
    let status = Command::new("setpriv")
        .args(["--reuid", "54321", "--regid", "54321", "--clear-groups"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env("POTLUCK_TEST_RUNNER", &copy)
        .current_dir("/")
        .status()
        .expect("setpriv starts");
    assert!(status.success(), "{test} failed as an ordinary user");
    true
}

/// A project directory and a worker's tree of it.
pub struct Lab {
    folder: Option<tempfile::TempDir>,
    /// The submitter's project, at the same path here and in the sandbox.
    pub project: PathBuf,
    root: PathBuf,
    generations: PathBuf,
    /// Path of every poison, by id.
    pub poisons: Vec<PathBuf>,
    /// Paths that exist but are not sent.
    withheld: BTreeSet<PathBuf>,
    dirs: BTreeSet<PathBuf>,
    /// Output directory of jobs.
    pub output: PathBuf,
    next_job: u64,
    generation: u32,
}

impl Lab {
    /// An empty project.
    pub fn new() -> Self {
        // Not below /tmp: that is private to each job.
        let folder = tempfile::Builder::new().prefix("potluck-").tempdir_in("/var/tmp").unwrap();
        let base = folder.path().canonicalize().unwrap();
        let (project, root, generations) = (base.join("project"), base.join("root"), base.join("gens"));
        for dir in [&project, &root, &generations] {
            fs::create_dir(dir).unwrap();
        }
        for dir in ["proc", "dev", "tmp", ".potluck"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        let keep = std::env::var_os("POTLUCK_KEEP").is_some();
        let folder = if keep {
            eprintln!("kept: {}", folder.keep().display());
            None
        } else {
            Some(folder)
        };
        let output = project.clone();
        let dirs = BTreeSet::from(["/".into()]);
        let mut lab = Self {
            folder,
            project,
            root,
            generations,
            poisons: vec![],
            withheld: BTreeSet::new(),
            dirs,
            output,
            next_job: 1,
            generation: 0,
        };
        lab.need(&lab.project.clone());
        lab
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.project.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Makes a file of the project executable.
    pub fn executable(&self, name: &str) {
        fs::set_permissions(self.project.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Puts the whole project into the tree.
    pub fn need_project(&mut self) {
        let mut dirs = vec![self.project.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                self.need(&path);
                if path.is_dir() {
                    dirs.push(path);
                }
            }
        }
    }

    /// `learn`, but these paths stay out of the tree: they become poison.
    pub fn learn_without(&mut self, withheld: &[&str], argv: &[&str]) -> Output {
        withheld.iter().for_each(|name| _ = self.withhold(name));
        self.learn(argv)
    }

    /// A path of the project that exists and shall be poison in the tree.
    pub fn withhold(&mut self, name: &str) -> &mut Self {
        let path = self.project.join(name);
        assert!(path.symlink_metadata().is_ok(), "{name} exists");
        self.withheld.insert(path);
        self
    }

    /// Runs a command here, in the project.
    pub fn local(&self, argv: &[&str]) -> Output {
        self.environment(Command::new(argv[0]).args(&argv[1..])).output().unwrap()
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let env = ENV.iter().map(|e| e.split_once('=').unwrap());
        command.env_clear().envs(env).current_dir(&self.project)
    }

    /// Runs a command here under `trace` and puts all that it looked up into the tree.
    pub fn learn(&mut self, argv: &[&str]) -> Output {
        let out = self.generations.parent().unwrap().join("trace");
        let mut command = Command::new(runner());
        command.arg("trace").arg(&out).arg("--").args(argv);
        let output = self.environment(&mut command).output().unwrap();
        // The kernel itself opens the loader of a program: no call names it.
        ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"].into_iter().for_each(|p| self.need(Path::new(p)));
        for record in fs::read(&out).unwrap().split(|b| *b == 0).filter(|r| r.len() > 1) {
            self.need(Path::new(OsStr::from_bytes(&record[1..])));
        }
        output
    }

    /// Puts a path and all that it passes through into the tree.
    pub fn need(&mut self, path: &Path) {
        let names = |p: &Path| -> Vec<OsString> {
            p.components().filter(|c| *c != Component::RootDir).map(|c| c.as_os_str().to_owned()).collect()
        };
        let mut rest: VecDeque<OsString> = names(path).into();
        let mut here = PathBuf::from("/");
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&name);
            let private = ["/proc", "/dev", "/tmp", "/sys"].iter().any(|p| next.starts_with(p));
            if private || self.withheld.contains(&next) {
                return;
            }
            let Ok(meta) = next.symlink_metadata() else { return };
            let copy = self.root.join(next.strip_prefix("/").unwrap());
            if meta.is_symlink() {
                let target = fs::read_link(&next).unwrap();
                if copy.symlink_metadata().is_err() {
                    symlink(&target, &copy).unwrap();
                }
                if target.is_absolute() {
                    here = "/".into();
                }
                names(&target).into_iter().rev().for_each(|n| rest.push_front(n));
            } else if meta.is_dir() {
                if self.dirs.insert(next.clone()) {
                    fs::create_dir(&copy).unwrap();
                }
                here = next;
            } else {
                // What this user may not read, the node could not send either: it becomes poison.
                if meta.is_file() && copy.symlink_metadata().is_err() && fs::copy(&next, &copy).is_ok() {
                    fs::File::open(&copy).unwrap().set_modified(meta.modified().unwrap()).unwrap();
                }
                return;
            }
        }
    }

    /// Makes every directory of the tree complete: a name that is here and not there becomes poison.
    fn complete(&mut self) {
        for dir in &self.dirs {
            let copy = self.root.join(dir.strip_prefix("/").unwrap());
            let Ok(entries) = fs::read_dir(dir) else { continue };
            for name in entries.map(|e| e.unwrap().file_name()) {
                let at = copy.join(&name);
                if at.symlink_metadata().is_err() {
                    // A file that another test removes meanwhile may be poisoned: conservative, as in the design.
                    symlink(format!("{TRAP_DIR}/{}", self.poisons.len()), at).unwrap();
                    self.poisons.push(dir.join(name));
                }
            }
        }
    }

    /// The id of a path's poison.
    pub fn poison(&self, name: &str) -> u64 {
        let path = self.project.join(name);
        self.poisons.iter().position(|p| *p == path).unwrap_or_else(|| panic!("{name} is poison")) as u64
    }

    /// Poisoned paths that a job touched, without the project's path.
    pub fn touched(&self, done: &Finished) -> Vec<String> {
        let name = |id: &u64| {
            let path = &self.poisons[*id as usize];
            path.strip_prefix(&self.project).unwrap_or(path).display().to_string()
        };
        done.faults.iter().map(name).collect()
    }

    /// Starts the sandbox on the tree as it is now.
    pub fn sandbox(&mut self) -> Sandbox {
        self.try_sandbox(true).unwrap_or_else(|e| panic!("no sandbox: {e}"))
    }

    /// The same with or without /dev/fuse.
    pub fn try_sandbox(&mut self, allow_fuse: bool) -> std::io::Result<Sandbox> {
        self.need(&self.output.clone());
        self.complete();
        let setup = Setup {
            root: self.root.as_os_str().as_bytes().to_vec(),
            generations: self.generations.as_os_str().as_bytes().to_vec(),
            uid: 1000,
            gid: 1000,
            allow_fuse,
        };
        Sandbox::start(runner().as_os_str(), &setup)
    }

    /// A job whose output directory is `self.output` as the tree has it.
    pub fn job(&mut self, argv: &[&str]) -> Job {
        let mut job = self.job_later(argv);
        self.generation(&mut job);
        job
    }

    /// A job without a generation yet: the tree is still to be completed by `sandbox`.
    pub fn job_later(&mut self, argv: &[&str]) -> Job {
        self.next_job += 1;
        let program = if argv[0].starts_with('/') { argv[0].into() } else { format!("/usr/bin/{}", argv[0]) };
        Job {
            id: self.next_job,
            program: program.into_bytes(),
            argv: argv.iter().map(|a| a.as_bytes().to_vec()).collect(),
            env: ENV.iter().map(|e| e.as_bytes().to_vec()).collect(),
            cwd: self.project.as_os_str().as_bytes().to_vec(),
            umask: 0o022,
            outputs: vec![OutputDir {
                path: self.output.as_os_str().as_bytes().to_vec(),
                generation: vec![],
                whiteouts: vec![],
                poisons: vec![],
                binds: vec![],
                mode: 0o755,
            }],
            limits: limits(),
            discard_outputs: false,
            grouped: false,
        }
    }

    /// Makes the generation of a job's output directory from the tree.
    pub fn generation(&mut self, job: &mut Job) {
        self.generation += 1;
        let name = format!("g{}", self.generation);
        let (from, to) = (self.root.join(self.output.strip_prefix("/").unwrap()), self.generations.join(&name));
        fs::create_dir(&to).unwrap();
        let mut binds = Vec::new();
        for entry in fs::read_dir(&from).unwrap() {
            let entry = entry.unwrap();
            let at = to.join(entry.file_name());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                fs::create_dir(&at).unwrap();
                binds.push(entry.file_name().into_vec());
            } else if kind.is_symlink() {
                symlink(fs::read_link(entry.path()).unwrap(), at).unwrap();
            } else {
                fs::copy(entry.path(), &at).unwrap();
                fs::File::open(&at).unwrap().set_modified(entry.metadata().unwrap().modified().unwrap()).unwrap();
            }
        }
        (job.outputs[0].generation, job.outputs[0].binds) = (name.into_bytes(), binds);
    }
}

/// The defaults of the model.
pub fn limits() -> Limits {
    Limits {
        wall_ms: 600_000,
        cpu_s: 600,
        address_bytes: 4 << 30,
        resident_bytes: 4 << 30,
        file_bytes: 512 << 20,
        processes: 256,
        open_files: 1024,
        output_bytes: 1 << 30,
        output_files: 4096,
        stdio_bytes: 4 << 20,
        stack_bytes: 8 << 20,
    }
}

/// The harvested files by name.
pub fn files(done: &Finished) -> Vec<(String, Vec<u8>)> {
    let files = done.report.outputs.iter().filter(|o| matches!(o.kind, HarvestKind::File { .. }));
    files.zip(&done.contents).map(|(o, c)| (String::from_utf8_lossy(&o.path).into_owned(), c.clone())).collect()
}

/// Everything that was harvested, without contents.
pub fn kinds(done: &Finished) -> Vec<(String, HarvestKind)> {
    done.report.outputs.iter().map(|o| (String::from_utf8_lossy(&o.path).into_owned(), o.kind.clone())).collect()
}

/// Panics with the job's own words unless it exited with 0.
pub fn expect_success(done: &Finished) {
    let report = &done.report;
    assert_eq!(report.end, End::Exited(0), "stderr: {}", String::from_utf8_lossy(&report.stderr));
}

/// Compiles a C program for a job, statically, so that the tree needs nothing else.
pub fn build_c(lab: &Lab, name: &str, source: &str) {
    lab.write(&format!("{name}.c"), source);
    let out = lab.local(&["gcc", "-O1", "-static", "-pthread", "-o", name, &format!("{name}.c")]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Device and inode: whether two paths are one file.
pub fn identity(path: &Path) -> (u64, u64) {
    let meta = path.metadata().unwrap();
    (meta.dev(), meta.ino())
}
