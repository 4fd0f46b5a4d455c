//! A scratch space for tests of the tree, the image and the mirror: real files, a seeded random generator, and the
//! comparison of a mirror on disk with the files that it is an image of.
#![allow(dead_code)] // Each test binary uses a part.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use potluck_model::ids::Digest;
use potluck_node::bytes;
use potluck_node::mirror::{Mirror, kept_mode};
use potluck_wire::pool::{DeltaOps, DirOps, FileOp, LinkOp};

/// A folder that goes when the test passed. Not below /tmp: that is private to every sandbox.
pub struct Space {
    pub base: PathBuf,
}

impl Space {
    pub fn new(name: &str) -> Self {
        let above = std::env::var_os("POTLUCK_SPACE").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
        let base = Path::new(&above).join(format!("{name}-{}", std::process::id()));
        if base.exists() {
            open_up(&base);
            fs::remove_dir_all(&base).unwrap();
        }
        fs::create_dir_all(&base).unwrap();
        Self { base: base.canonicalize().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// Writes a file, with the folders above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn mirror(&self) -> Mirror {
        Mirror::open(&self.path(".mirror"), 1 << 30).unwrap()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            open_up(&self.base);
            let _ = fs::remove_dir_all(&self.base);
        } else {
            eprintln!("kept: {}", self.base.display());
        }
    }
}

fn open_up(path: &Path) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Runs this test again as an ordinary user if it runs as root. True: done.
pub fn as_user(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    // What udev does on a desktop.
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).expect("/dev/fuse is there");
    // A checkout may lie in a folder that only root may enter.
    let space = Path::new("/var/tmp").join(format!("potluck-{test}-{}", std::process::id()));
    fs::create_dir(&space).unwrap();
    fs::set_permissions(&space, fs::Permissions::from_mode(0o777)).unwrap();
    let status = Command::new("setpriv")
        .args(["--reuid", "54321", "--regid", "54321", "--clear-groups"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("POTLUCK_SPACE", &space)
        .status()
        .unwrap();
    assert!(status.success(), "{test} as an ordinary user; kept: {}", space.display());
    fs::remove_dir_all(space).unwrap();
    true
}

/// Random numbers that a seed repeats (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// A seed of this run, printed so that a failure can be repeated: `POTLUCK_SEED=n`.
pub fn fresh_seed() -> u64 {
    let seed = match std::env::var("POTLUCK_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64,
    };
    eprintln!("seed {seed}");
    seed
}

pub fn dir_ops(path: &str) -> DirOps {
    DirOps { path: path.as_bytes().to_vec(), mode: 0o755, ..DirOps::default() }
}

/// A chain of directories down to `path`, as a submitter would send them.
pub fn down_to(path: &str) -> DeltaOps {
    let mut dirs = vec![dir_ops("/")];
    let mut at = String::new();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        at = format!("{at}/{part}");
        dirs.push(dir_ops(&at));
    }
    DeltaOps { dirs }
}

pub fn file_op(name: &str, content: &[u8]) -> FileOp {
    FileOp {
        name: name.as_bytes().to_vec(),
        digest: Digest::of(content).0.to_vec(),
        size: content.len() as u64,
        mode: 0o644,
        mtime_s: 1_700_000_000,
        mtime_ns: 123_456_789,
        content: Some(content.to_vec()),
    }
}

pub fn link_op(name: &str, target: &str) -> LinkOp {
    LinkOp { name: name.as_bytes().to_vec(), target: target.as_bytes().to_vec() }
}

/// What a name of a mirror is, on disk or by its own account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Is {
    Poison,
    File { digest: Vec<u8>, mode: u32, mtime: (i64, i64) },
    Link,
    Dir,
}

/// What a mirror says that it holds: by directory and name.
pub fn told(mirror: &Mirror) -> BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Is>> {
    let state = mirror.state();
    let mut out: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Is>> = BTreeMap::new();
    for dir in state.dirs {
        let at = dir.path.iter().rposition(|&c| c == b'/').unwrap();
        if dir.path.len() > 1 {
            let parent = if at == 0 { b"/".to_vec() } else { dir.path[..at].to_vec() };
            out.entry(parent).or_default().insert(dir.path[at + 1..].to_vec(), Is::Dir);
        }
        let names = out.entry(dir.path).or_default();
        names.extend(dir.poison.into_iter().map(|n| (n, Is::Poison)));
        names.extend(dir.links.into_iter().map(|l| (l.name, Is::Link)));
        names.extend(
            dir.files
                .into_iter()
                .map(|f| (f.name, Is::File { digest: f.digest, mode: f.mode, mtime: (f.mtime_s, f.mtime_ns.into()) })),
        );
    }
    out
}

/// The same as it lies on disk.
pub fn on_disk(mirror: &Mirror) -> BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Is>> {
    let mut out = BTreeMap::new();
    walk(&mirror.root(), b"/", &mut out);
    out
}

fn walk(real: &Path, path: &[u8], out: &mut BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Is>>) {
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(real).into_iter().flatten() {
        let name = entry.unwrap().file_name();
        if path == b"/" && ["proc", "dev", "tmp", ".potluck"].iter().any(|n| *name == **n) {
            continue;
        }
        let at = real.join(&name);
        let is = what(&at);
        if is == Is::Dir {
            let mut below = path.to_vec();
            if below.len() > 1 {
                below.push(b'/');
            }
            below.extend_from_slice(name.as_bytes());
            walk(&at, &below, out);
        }
        names.insert(name.as_bytes().to_vec(), is);
    }
    out.insert(path.to_vec(), names);
}

/// What a path of a mirror is.
pub fn what(path: &Path) -> Is {
    let meta = fs::symlink_metadata(path).unwrap();
    if meta.is_symlink() {
        let target = fs::read_link(path).unwrap();
        return if bytes::of(&target).starts_with(b"/.potluck/trap/") { Is::Poison } else { Is::Link };
    }
    if meta.is_dir() {
        return Is::Dir;
    }
    let digest = Digest::of(&fs::read(path).unwrap()).0.to_vec();
    Is::File { digest, mode: meta.mode() & 0o7777, mtime: (meta.mtime(), meta.mtime_nsec()) }
}

/// Checks that the part of the mirror below `real` is a conservative image of it. Returns how many names are real.
pub fn assert_image(mirror: &Mirror, real: &Path, why: &str) -> usize {
    let root = mirror.root();
    // The way there: directories.
    let mut at = root.clone();
    for part in real.components().skip(1) {
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_dir() => {}
            // Nothing of it is there: nothing can be wrong.
            _ => return 0,
        }
    }
    compare(&at, real, why)
}

fn compare(there: &Path, here: &Path, why: &str) -> usize {
    let mut real = 0;
    let names = |path: &Path| -> Vec<std::ffi::OsString> {
        fs::read_dir(path).map(|d| d.map(|e| e.unwrap().file_name()).collect()).unwrap_or_default()
    };
    for name in names(here) {
        let (mine, its) = (here.join(&name), there.join(&name));
        let Ok(_) = fs::symlink_metadata(&its) else {
            panic!("{why}: {} exists and is absent in the mirror", mine.display());
        };
        let kind = fs::symlink_metadata(&mine).unwrap();
        match what(&its) {
            Is::Poison => continue,
            Is::Dir => {
                assert!(kind.is_dir(), "{why}: {} is no directory", mine.display());
                real += compare(&its, &mine, why);
            }
            Is::Link => {
                assert!(kind.is_symlink(), "{why}: {} is no link", mine.display());
                assert_eq!(fs::read_link(&its).unwrap(), fs::read_link(&mine).unwrap(), "{why}: {}", mine.display());
            }
            Is::File { digest, mode, mtime } => {
                assert!(kind.is_file(), "{why}: {} is no file", mine.display());
                assert_eq!(digest, Digest::of(&fs::read(&mine).unwrap()).0, "{why}: content of {}", mine.display());
                assert_eq!(mode, kept_mode(kind.mode()), "{why}: mode of {}", mine.display());
                assert_eq!(mtime, (kind.mtime(), kind.mtime_nsec()), "{why}: time of {}", mine.display());
            }
        }
        real += 1;
    }
    for name in names(there) {
        if fs::symlink_metadata(here.join(&name)).is_err() {
            assert_eq!(what(&there.join(&name)), Is::Poison, "{why}: {} does not exist", here.join(&name).display());
        }
    }
    real
}

/// For paths in assertions.
pub fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap()
}
