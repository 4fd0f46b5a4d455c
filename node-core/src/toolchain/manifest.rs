//! What a packed toolchain consists of: the list that travels, its canonical bytes, and the checks that hostile bytes must
//! pass before a worker acts on one. Pure.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use potluck_model::ids::{Digest, ToolchainId};
use potluck_model::limits::{
    ARG_BYTES_MAX, ARGS_MAX, BLOB_BYTES_MAX, ENV_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX,
    TOOLCHAIN_BYTES_MAX, TOOLCHAIN_FILES_MAX,
};
use potluck_model::plan::Family;
use serde::{Deserialize, Serialize};

use super::walk::{is_private_place, lexical};

/// The first bytes of an encoded manifest: what it is, and its version.
const MAGIC: &[u8] = b"potluck-toolchain-1\n";
/// Longest encoded manifest: 200,000 entries of some 150 bytes.
pub const MANIFEST_BYTES_MAX: usize = 64 << 20;
/// Longest of the texts that people are shown.
const TEXT_BYTES_MAX: usize = 256;
/// Probes: two for each language.
const PROBES_MAX: usize = 32;
/// Languages and programs: some ten.
const NAMES_MAX: usize = 64;

/// A file or link of a toolchain, at its original absolute place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A regular file.
    File {
        /// Absolute and physical: no component is a link.
        #[serde(with = "path_bytes")]
        path: PathBuf,
        /// Of its content.
        digest: Digest,
        /// Size in bytes.
        size: u64,
        /// Permission bits; never set-user-id and the like.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Absolute; no component before the last is a link.
        #[serde(with = "path_bytes")]
        path: PathBuf,
        /// Its text.
        #[serde(with = "path_bytes")]
        target: PathBuf,
    },
}

impl Entry {
    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::File { path, .. } | Self::Link { path, .. } => path,
        }
    }
}

/// A small compile whose result is known: a worker is believed to have this toolchain when it makes the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// `-x` name of the language.
    pub language: String,
    /// Name of the source, in the working directory.
    pub source_name: String,
    /// Its text.
    pub source: Vec<u8>,
    /// Arguments, without those that depend on the directory; see `probe::args_in`.
    pub args: Vec<Vec<u8>>,
    /// Digest of the object, which is written to `probe::OBJECT` in the working directory.
    pub object: Digest,
    /// Digest of standard error.
    pub stderr: Digest,
}

/// A compiler with everything it opens to run. Project and system headers are not in it: they travel with jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// gcc or clang.
    pub family: Family,
    /// Whether it takes `.c` for C++.
    pub cxx: bool,
    /// As the compiler names it.
    pub version: String,
    /// As the compiler names it.
    pub target: String,
    /// What is executed; links kept, because a driver finds its parts by its own name.
    #[serde(with = "path_bytes")]
    pub driver: PathBuf,
    /// `cc1`, `as`, … and where they are.
    pub programs: Vec<Program>,
    /// Languages that compile, by `-x` name.
    pub languages: Vec<String>,
    /// `NAME=value`: locale, time zone and steering variables that it was traced with, and that probes run with.
    pub env: Vec<Vec<u8>>,
    /// Files and links, sorted by path.
    pub entries: Vec<Entry>,
    /// Existing directories that the compiler looks into, sorted: each must be complete on a worker (content or poison).
    #[serde(with = "paths_bytes")]
    pub dirs: Vec<PathBuf>,
    /// How a worker proves that it has it.
    pub probes: Vec<Probe>,
}

/// A part of a driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// As `-print-prog-name=` takes it.
    pub name: String,
    /// As it answers.
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
}

/// Why bytes are not a manifest that a worker may act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadManifest {
    /// Longer than `MANIFEST_BYTES_MAX`.
    TooLong,
    /// Not a manifest of this version, or not in canonical form.
    Malformed,
    /// More entries than a toolchain may have.
    TooManyFiles(usize),
    /// More content than a toolchain may have.
    TooManyBytes(u64),
    /// A file over the limit of one blob.
    FileTooLarge(PathBuf, u64),
    /// Not absolute, not normal, too long or too deep.
    BadPath(PathBuf),
    /// In a place that is private to each machine or job.
    PrivatePlace(PathBuf),
    /// Set-user-id, set-group-id, sticky or unknown bits.
    BadMode(PathBuf, u32),
    /// Twice, out of order, or below something that is not a directory.
    Conflict(PathBuf),
    /// A link without, or with an impossible, or with a private target.
    BadLink(PathBuf),
    /// The driver is not among the entries.
    NoDriver,
    /// A text, list or probe out of bounds; the word says which.
    BadField(&'static str),
}

impl fmt::Display for BadManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the manifest is longer than {MANIFEST_BYTES_MAX} bytes"),
            Self::Malformed => f.write_str("not a toolchain manifest of this version"),
            Self::TooManyFiles(n) => write!(f, "{n} files; a toolchain may have {TOOLCHAIN_FILES_MAX}"),
            Self::TooManyBytes(n) => write!(f, "{n} bytes; a toolchain may have {TOOLCHAIN_BYTES_MAX}"),
            Self::FileTooLarge(p, n) => write!(f, "{} has {n} bytes; a file may have {BLOB_BYTES_MAX}", p.display()),
            Self::BadPath(p) => write!(f, "{:?} is not a plain absolute path", p),
            Self::PrivatePlace(p) => write!(f, "{} is in a place that every machine has for itself", p.display()),
            Self::BadMode(p, mode) => write!(f, "{} has mode {mode:o}, which is not allowed", p.display()),
            Self::Conflict(p) => write!(f, "{} is listed twice, out of order or below a file or link", p.display()),
            Self::BadLink(p) => write!(f, "the link {} has a target that is not allowed", p.display()),
            Self::NoDriver => f.write_str("the compiler itself is not in its manifest"),
            Self::BadField(which) => write!(f, "its {which} are out of bounds"),
        }
    }
}

impl std::error::Error for BadManifest {}

impl Manifest {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, MAGIC.to_vec()).expect("a Vec grows")
    }

    /// The name of the toolchain: the digest of its canonical bytes.
    pub fn id(&self) -> ToolchainId {
        ToolchainId(Digest::of(&self.encode()))
    }

    /// Reads bytes that anyone may have made. What comes out has passed every check.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadManifest> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(BadManifest::TooLong);
        }
        let body = bytes.strip_prefix(MAGIC).ok_or(BadManifest::Malformed)?;
        let manifest: Self = postcard::from_bytes(body).map_err(|_| BadManifest::Malformed)?;
        // Only one spelling, so that the digest of the bytes names the content.
        if manifest.encode() != bytes {
            return Err(BadManifest::Malformed);
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// The checks of `decode`, also made before a packed toolchain is used.
    pub fn check(&self) -> Result<(), BadManifest> {
        if self.entries.len() > TOOLCHAIN_FILES_MAX {
            return Err(BadManifest::TooManyFiles(self.entries.len()));
        }
        let mut bytes = 0u64;
        for entry in &self.entries {
            check_path(entry.path())?;
            match entry {
                Entry::File { path, size, mode, .. } => {
                    if *size > BLOB_BYTES_MAX {
                        return Err(BadManifest::FileTooLarge(path.clone(), *size));
                    }
                    if mode & !0o777 != 0 {
                        return Err(BadManifest::BadMode(path.clone(), *mode));
                    }
                    bytes = bytes.saturating_add(*size);
                }
                Entry::Link { path, target } => check_link(path, target)?,
            }
        }
        if bytes > TOOLCHAIN_BYTES_MAX {
            return Err(BadManifest::TooManyBytes(bytes));
        }
        check_tree(&self.entries)?;
        self.check_dirs()?;
        self.check_fields()
    }

    fn check_dirs(&self) -> Result<(), BadManifest> {
        if self.dirs.len() > TOOLCHAIN_FILES_MAX {
            return Err(BadManifest::TooManyFiles(self.dirs.len()));
        }
        for dir in &self.dirs {
            if dir != Path::new("/") {
                check_path(dir)?;
            }
            // A directory cannot be, or be below, a file or link.
            if dir.ancestors().any(|a| self.entry(a).is_some()) {
                return Err(BadManifest::Conflict(dir.clone()));
            }
        }
        match self.dirs.windows(2).find(|w| w[0] >= w[1]) {
            Some(pair) => Err(BadManifest::Conflict(pair[1].clone())),
            None => Ok(()),
        }
    }

    fn check_fields(&self) -> Result<(), BadManifest> {
        let text = |t: &str| !t.is_empty() && t.len() <= TEXT_BYTES_MAX && !t.chars().any(char::is_control);
        if !text(&self.version) || !text(&self.target) {
            return Err(BadManifest::BadField("version and target"));
        }
        check_path(&self.driver)?;
        if self.follow(&self.driver).is_none() {
            return Err(BadManifest::NoDriver);
        }
        if self.programs.len() > NAMES_MAX || !self.programs.iter().all(|p| text(&p.name) && p.path.is_absolute()) {
            return Err(BadManifest::BadField("programs"));
        }
        if self.languages.len() > NAMES_MAX || !self.languages.iter().all(|l| text(l)) {
            return Err(BadManifest::BadField("languages"));
        }
        let plain = |b: &[u8]| b.len() <= ARG_BYTES_MAX && !b.contains(&0);
        if self.env.len() > ENV_MAX || !self.env.iter().all(|e| plain(e) && e.contains(&b'=')) {
            return Err(BadManifest::BadField("variables"));
        }
        let probe_ok = |p: &Probe| {
            let name_ok = text(&p.source_name) && !p.source_name.contains('/') && !p.source_name.starts_with('.');
            let args_ok = p.args.len() <= ARGS_MAX && p.args.iter().all(|a| plain(a));
            name_ok && args_ok && text(&p.language) && p.source.len() <= ARG_BYTES_MAX
        };
        if self.probes.len() > PROBES_MAX || !self.probes.iter().all(probe_ok) {
            return Err(BadManifest::BadField("probes"));
        }
        Ok(())
    }

    /// The entry at exactly this path.
    pub fn entry(&self, path: &Path) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|e| e.path().cmp(path)).ok()?;
        Some(&self.entries[at])
    }

    /// The file that `path` leads to through the manifest's own links.
    pub fn follow(&self, path: &Path) -> Option<&Entry> {
        let mut at = lexical(path);
        // Linux follows 40 links.
        for _ in 0..40 {
            let via = at.ancestors().find_map(|a| self.entry(a).map(|e| (a.to_owned(), e)))?;
            match via {
                (place, entry @ Entry::File { .. }) => return (place == at).then_some(entry),
                (place, Entry::Link { target, .. }) => {
                    let rest = at.strip_prefix(&place).unwrap_or(Path::new("")).to_owned();
                    at = lexical(&place.parent().unwrap_or(Path::new("/")).join(target).join(rest));
                }
            }
        }
        None
    }

    /// Every content once: digest and size in bytes, sorted by digest.
    pub fn contents(&self) -> Vec<(Digest, u64)> {
        let mut all: Vec<(Digest, u64)> = self.files().map(|(_, digest, size)| (digest, size)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Path, digest and size in bytes of each file.
    pub fn files(&self) -> impl Iterator<Item = (&Path, Digest, u64)> {
        self.entries.iter().filter_map(|e| match e {
            Entry::File { path, digest, size, .. } => Some((path.as_path(), *digest, *size)),
            Entry::Link { .. } => None,
        })
    }

    /// Size of all contents in bytes, each counted once.
    pub fn content_bytes(&self) -> u64 {
        self.contents().iter().map(|(_, size)| size).sum()
    }
}

/// Absolute, spelled in the one normal way, within Linux's limits and our depth, and not in a private place.
fn check_path(path: &Path) -> Result<(), BadManifest> {
    let bad = || BadManifest::BadPath(path.to_owned());
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > PATH_BYTES_MAX || bytes.len() < 2 || bytes.contains(&0) || bytes[0] != b'/' {
        return Err(bad());
    }
    let names = bytes[1..].split(|b| *b == b'/');
    let mut depth = 0;
    for name in names {
        depth += 1;
        if name.is_empty() || name == b"." || name == b".." || name.len() > NAME_BYTES_MAX || depth > PATH_DEPTH_MAX {
            return Err(bad());
        }
    }
    if is_private_place(path) { Err(BadManifest::PrivatePlace(path.to_owned())) } else { Ok(()) }
}

fn check_link(path: &Path, target: &Path) -> Result<(), BadManifest> {
    let bad = || BadManifest::BadLink(path.to_owned());
    let bytes = target.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() > PATH_BYTES_MAX || bytes.contains(&0) {
        return Err(bad());
    }
    if target.components().filter(|c| matches!(c, Component::Normal(_))).count() > PATH_DEPTH_MAX {
        return Err(bad());
    }
    let leads_to = lexical(&path.parent().unwrap_or(Path::new("/")).join(target));
    if is_private_place(&leads_to) { Err(bad()) } else { Ok(()) }
}

/// Sorted, no path twice, none below another that is not a directory: a link in the way would let a file out of its place.
fn check_tree(entries: &[Entry]) -> Result<(), BadManifest> {
    // Paths compare component by component, so whatever is below a path follows it directly.
    match entries.windows(2).find(|w| w[0].path() >= w[1].path() || w[1].path().starts_with(w[0].path())) {
        Some(pair) => Err(BadManifest::Conflict(pair[1].path().to_owned())),
        None => Ok(()),
    }
}

/// Paths as bytes: Linux names need not be UTF-8.
pub mod path_bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes a path.
    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(serializer)
    }

    /// Reads a path.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(PathBuf::from(OsString::from_vec(Vec::deserialize(deserializer)?)))
    }
}

/// Lists of paths as bytes.
pub mod paths_bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes paths.
    pub fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        let list: Vec<&[u8]> = paths.iter().map(|p| p.as_os_str().as_bytes()).collect();
        list.serialize(serializer)
    }

    /// Reads paths.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let list: Vec<Vec<u8>> = Vec::deserialize(deserializer)?;
        Ok(list.into_iter().map(|p| PathBuf::from(OsString::from_vec(p))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Entry {
        Entry::File { path: path.into(), digest: Digest::of(path.as_bytes()), size: 1, mode: 0o755 }
    }

    fn link(path: &str, target: &str) -> Entry {
        Entry::Link { path: path.into(), target: target.into() }
    }

    fn sample(entries: Vec<Entry>) -> Manifest {
        Manifest {
            family: Family::Gcc,
            cxx: false,
            version: "12.2.0".into(),
            target: "x86_64-linux-gnu".into(),
            driver: "/bin/gcc".into(),
            programs: vec![Program { name: "as".into(), path: "/usr/bin/as".into() }],
            languages: vec!["c".into()],
            env: vec![b"PATH=/bin".to_vec()],
            entries,
            dirs: vec!["/".into(), "/usr".into()],
            probes: Vec::new(),
        }
    }

    fn good() -> Vec<Entry> {
        vec![link("/bin", "usr/bin"), link("/usr/bin/gcc", "gcc-12"), file("/usr/bin/gcc-12")]
    }

    fn refused(entries: Vec<Entry>) -> BadManifest {
        Manifest::decode(&sample(entries).encode()).unwrap_err()
    }

    #[test]
    fn a_manifest_reads_back_and_its_driver_is_found_through_links() {
        let m = sample(good());
        assert_eq!(Manifest::decode(&m.encode()), Ok(m.clone()));
        assert_eq!(m.follow(Path::new("/bin/gcc")).unwrap().path(), Path::new("/usr/bin/gcc-12"));
        assert_eq!(m.id(), Manifest::decode(&m.encode()).unwrap().id());
    }

    #[test]
    fn a_path_that_leaves_its_place_is_refused() {
        for path in ["/usr/../etc/x", "usr/x", "//x", "/x/", "/x//y", "/./x", "/", "", "/x\0y"] {
            assert!(matches!(refused(vec![file(path)]), BadManifest::BadPath(_)), "{path:?}");
        }
        let deep = "/a".repeat(65);
        assert!(matches!(refused(vec![file(&deep)]), BadManifest::BadPath(_)));
        for path in ["/proc/self/mem", "/dev/null", "/sys/x", "/tmp/x", "/run/user/1/x", "/.potluck/trap/1"] {
            assert!(matches!(refused(vec![file(path)]), BadManifest::PrivatePlace(_)), "{path}");
        }
    }

    #[test]
    fn a_file_below_a_link_and_a_name_given_twice_are_refused() {
        for entries in [
            vec![link("/bin", "usr/bin"), file("/bin/gcc")],
            vec![file("/usr/bin/gcc"), file("/usr/bin/gcc")],
            vec![file("/usr/b"), file("/usr/a")],
        ] {
            assert!(matches!(refused(entries), BadManifest::Conflict(_)));
        }
        // "/a-b" sorts between "/a" and "/a/x" as bytes, but not as components.
        assert!(matches!(refused(vec![link("/a", "b"), file("/a/x"), file("/a-b")]), BadManifest::Conflict(_)));
    }

    #[test]
    fn set_user_id_and_private_links_are_refused() {
        let suid = Entry::File { path: "/usr/bin/x".into(), digest: Digest::of(b""), size: 0, mode: 0o4755 };
        assert!(matches!(refused(vec![suid]), BadManifest::BadMode(_, 0o4755)));
        for target in ["/proc/self/root", "../../proc/self", "", "/tmp"] {
            assert!(matches!(refused(vec![link("/usr/x", target)]), BadManifest::BadLink(_)), "{target}");
        }
    }

    #[test]
    fn limits_hold_before_anything_is_made() {
        let big = |path: &str, size| Entry::File { path: path.into(), digest: Digest::of(b""), size, mode: 0o644 };
        assert!(matches!(refused(vec![big("/x", BLOB_BYTES_MAX + 1)]), BadManifest::FileTooLarge(..)));
        let many = (0..17).map(|i| big(&format!("/x{i:02}"), BLOB_BYTES_MAX)).collect();
        assert!(matches!(refused(many), BadManifest::TooManyBytes(_)));
        let many = (0..=TOOLCHAIN_FILES_MAX).map(|i| file(&format!("/x{i:07}"))).collect();
        assert!(matches!(refused(many), BadManifest::TooManyFiles(_)));
        assert!(matches!(refused(vec![file("/usr/x")]), BadManifest::NoDriver));
        assert_eq!(Manifest::decode(&vec![0; MANIFEST_BYTES_MAX + 1]), Err(BadManifest::TooLong));
    }

    #[test]
    fn cut_and_flipped_bytes_never_panic_and_never_pass_under_another_id() {
        let m = sample(good());
        let bytes = m.encode();
        for end in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..end]).is_err());
        }
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            if let Ok(other) = Manifest::decode(&bad) {
                assert_ne!(other.id(), m.id());
            }
        }
        // A length of billions must be refused without taking memory for it.
        let mut bomb = MAGIC.to_vec();
        bomb.extend([0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(Manifest::decode(&bomb), Err(BadManifest::Malformed));
    }
}
