//! Puts a toolchain together: traced files, named programs, the ELF closure and the links on the way, all hashed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use potluck_model::ids::{Digest, ToolchainId};
use potluck_model::limits::{BLOB_BYTES_MAX, TOOLCHAIN_BYTES_MAX, TOOLCHAIN_FILES_MAX};
use potluck_model::plan::Family;

use super::ask;
use super::elf::{ClosureError, Loader, Missing};
use super::environment::Environment;
use super::find::{Compiler, launcher_behind};
use super::ident::FileIdent;
use super::manifest::{BadManifest, Entry, Manifest, Program};
use super::probe;
use super::store::{FileSource, Index, Store};
use super::trace::{self, Traced};
use super::walk::{is_private_place, lexical, walk};

/// Programs that a compile (not a link) may call. `lto1`, `collect2` and linkers stay here: links do.
const GCC_PROGRAMS: &[&str] = &["cc1", "cc1plus", "cc1obj", "cc1objplus", "as", "objcopy"];
/// clang assembles itself, unless told otherwise.
const CLANG_PROGRAMS: &[&str] = &["as", "objcopy"];
/// Data files that a driver looks for by name.
const GCC_FILES: &[&str] = &["specs", "liblto_plugin.so"];
/// Never leaves this machine, whatever a compiler looks into: accounts and secrets.
const NEVER: &[&str] =
    &["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/nsswitch.conf", "/etc/hosts"];
/// Read size while hashing.
const HASH_CHUNK_BYTES: usize = 1 << 20;
/// How often packing starts again because the disk changed meanwhile (a package upgrade takes longer than that).
const TRIES_MAX: usize = 2;

/// A toolchain that can be offered to workers.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Its name.
    pub id: ToolchainId,
    /// What is in it.
    pub manifest: Manifest,
    /// Its contents by digest.
    pub files: FileSource,
}

/// Why a toolchain cannot be packed.
#[derive(Debug)]
pub enum PackError {
    /// A library is nowhere.
    Missing(Missing),
    /// A file that is needed cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The compiler does not compile: its words.
    DoesNotCompile(PathBuf, String),
    /// A part is in a place that every machine has for itself.
    PrivatePlace(PathBuf),
    /// A file changed while it was read.
    Changed(PathBuf),
    /// A script calls a launcher (ccache, …) on its way: that one needs a cache, a network or a node of its own.
    CallsLauncher(PathBuf),
    /// The tracer, the scratch folder or the store failed.
    Io(&'static str, io::Error),
    /// The result breaks a limit.
    Bad(BadManifest),
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(missing) => missing.fmt(f),
            Self::Unreadable(p, e) => write!(f, "`{}` is part of the compiler and cannot be read: {e}", p.display()),
            Self::DoesNotCompile(p, said) => write!(f, "`{}` cannot compile an empty program: {said}", p.display()),
            Self::PrivatePlace(p) => {
                write!(
                    f,
                    "`{}` is in a place that every machine has for itself; install the compiler elsewhere",
                    p.display()
                )
            }
            Self::Changed(p) => write!(f, "`{}` changed while the compiler was being packed", p.display()),
            Self::CallsLauncher(p) => {
                write!(f, "the compiler is a script that calls `{}`; let it call the compiler itself", p.display())
            }
            Self::Io(doing, e) => write!(f, "{doing}: {e}"),
            Self::Bad(bad) => write!(f, "the packed compiler cannot be sent: {bad}"),
        }
    }
}

impl std::error::Error for PackError {}

impl From<ClosureError> for PackError {
    fn from(e: ClosureError) -> Self {
        match e {
            ClosureError::Missing(missing) => Self::Missing(missing),
            ClosureError::Io(path, e) => Self::Unreadable(path, e),
            ClosureError::TooMany => Self::Bad(BadManifest::TooManyFiles(TOOLCHAIN_FILES_MAX)),
        }
    }
}

impl Store {
    /// Packs a compiler for jobs with this environment, or finds that nothing changed since the last time (stats only).
    /// `progress` hears bytes hashed and bytes in all.
    pub fn pack(
        &self,
        compiler: &Compiler,
        env: &Environment,
        runner: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Packed, PackError> {
        let env = env.steering();
        let key = key(compiler, &env);
        let old = self.index(key);
        if let Some(index) = &old
            && index.holds()
            && let Some(manifest) = self.manifest(index.id)
        {
            let files = FileSource::in_place(&manifest);
            return Ok(Packed { id: index.id, manifest, files });
        }
        let known = old.map(|i| i.files.into_iter().collect()).unwrap_or_default();
        let mut tries_left = TRIES_MAX;
        loop {
            tries_left -= 1;
            match pack(compiler, &env, runner, &known, progress) {
                Ok((manifest, index)) => {
                    let bytes = manifest.encode();
                    self.keep(key, &bytes, &index).map_err(|e| PackError::Io("keeping the packed compiler", e))?;
                    let files = FileSource::in_place(&manifest);
                    return Ok(Packed { id: index.id, manifest, files });
                }
                Err(PackError::Changed(_)) if tries_left > 0 => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Files with what they hashed to.
type Hashed = Vec<(FileIdent, Digest)>;

/// Names the question whose answer is a toolchain: which driver, in which environment.
fn key(compiler: &Compiler, env: &Environment) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for part in [super::walk::bytes(&compiler.driver).to_vec()].into_iter().chain(env.entries()) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(&part);
    }
    Digest(*hasher.finalize().as_bytes())
}

fn pack(
    compiler: &Compiler,
    env: &Environment,
    runner: &Path,
    known: &HashMap<FileIdent, Digest>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Manifest, Index), PackError> {
    let driver = &compiler.driver;
    let asked = |e| PackError::Io("asking the compiler for its parts", e);
    let programs = programs(compiler, env).map_err(asked)?;
    let traced = trace::run_probes(runner, driver, env)
        .map_err(|e| PackError::Io("running the probe compiles", e))?
        .map_err(|said| PackError::DoesNotCompile(driver.clone(), said))?;
    let headers = header_dirs(compiler, env, &traced).map_err(asked)?;

    let mut parts = Parts::new(headers);
    parts.need(driver)?;
    for program in &programs {
        parts.need(&program.path)?;
    }
    for path in &traced.touched.executed {
        if launcher_behind(path).is_some() {
            return Err(PackError::CallsLauncher(path.clone()));
        }
        parts.need(path)?;
    }
    for path in traced.touched.present.iter().chain(&data_files(compiler, env).map_err(asked)?) {
        parts.touch(path)?;
    }
    for path in &traced.touched.absent {
        parts.miss(path)?;
    }
    for path in &traced.touched.opened {
        parts.listed(path)?;
    }
    // argv[0] without a slash makes the driver look for itself in every directory of PATH.
    for dir in env.path_dirs() {
        parts.touch(&dir)?;
    }
    parts.close_over(env)?;

    let (entries, files) = parts.hash(known, progress)?;
    let probes = probe::local_probes(driver, &traced.languages, env)
        .map_err(|e| PackError::Io("running the verification probes", e))?;
    let manifest = Manifest {
        family: compiler.family,
        cxx: compiler.cxx,
        version: compiler.version.clone(),
        target: compiler.target.clone(),
        driver: driver.clone(),
        programs,
        languages: traced.languages.iter().map(|l| (*l).to_owned()).collect(),
        env: env.entries(),
        entries,
        dirs: parts.dirs.into_iter().collect(),
        probes,
    };
    manifest.check().map_err(PackError::Bad)?;
    let mut others = compiler.identity.clone();
    for path in parts.links.keys().chain(&parts.listed) {
        others.push(FileIdent::of(path).map_err(|_| PackError::Changed(path.clone()))?);
    }
    let index = Index { id: manifest.id(), files, others, absent: parts.absent.into_iter().collect() };
    Ok((manifest, index))
}

/// The programs that the driver names and that exist.
fn programs(compiler: &Compiler, env: &Environment) -> io::Result<Vec<Program>> {
    let names = match compiler.family {
        Family::Gcc => GCC_PROGRAMS,
        Family::Clang => CLANG_PROGRAMS,
    };
    let mut programs = Vec::new();
    for name in names {
        let answer = ask::print_path(&compiler.driver, &format!("-print-prog-name={name}"), env)?;
        // A bare name as the answer means that the driver will look in PATH.
        let in_path = || env.path_dirs().into_iter().map(|d| d.join(name)).find(|p| p.is_file());
        if let Some(path) = answer.filter(|p| p.is_file()).or_else(in_path) {
            programs.push(Program { name: (*name).to_owned(), path });
        }
    }
    Ok(programs)
}

/// Data that no probe opens but some options do.
fn data_files(compiler: &Compiler, env: &Environment) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![PathBuf::from("/etc/ld.so.cache")];
    match compiler.family {
        Family::Gcc => {
            for name in GCC_FILES {
                files.extend(ask::print_path(&compiler.driver, &format!("-print-file-name={name}"), env)?);
            }
        }
        Family::Clang => {
            // Ignore lists of the sanitizers.
            if let Some(dir) = ask::print_path(&compiler.driver, "-print-resource-dir", env)? {
                for entry in fs::read_dir(dir.join("share")).into_iter().flatten() {
                    files.push(entry?.path());
                }
            }
        }
    }
    Ok(files)
}

/// The directories whose files are headers: those travel with jobs, not with the toolchain.
fn header_dirs(compiler: &Compiler, env: &Environment, traced: &Traced) -> io::Result<Vec<PathBuf>> {
    let mut dirs = BTreeSet::new();
    for language in traced.languages.iter().filter(|l| !l.starts_with("assembler")) {
        let list = ask::search_list_of(&compiler.driver, language, &[], env, Path::new("/"))?;
        let list = list.ok_or_else(|| io::Error::other("the compiler did not tell its include directories"))?;
        for dir in list.quote.into_iter().chain(list.angled) {
            dirs.extend(dir.canonicalize().ok());
        }
    }
    Ok(dirs.into_iter().collect())
}

/// What has been collected so far, all by physical path.
struct Parts {
    headers: Vec<PathBuf>,
    files: BTreeSet<PathBuf>,
    /// Files that are executed: their libraries must be found.
    programs: BTreeSet<PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
    dirs: BTreeSet<PathBuf>,
    listed: BTreeSet<PathBuf>,
    absent: BTreeSet<PathBuf>,
}

impl Parts {
    fn new(headers: Vec<PathBuf>) -> Self {
        Self {
            headers,
            files: BTreeSet::new(),
            programs: BTreeSet::new(),
            links: BTreeMap::new(),
            dirs: BTreeSet::new(),
            listed: BTreeSet::new(),
            absent: BTreeSet::new(),
        }
    }

    fn is_header(&self, path: &Path) -> bool {
        self.headers.iter().any(|dir| path.starts_with(dir))
    }

    /// A program: it must be there, readable, and somewhere that can be sent.
    fn need(&mut self, path: &Path) -> Result<(), PackError> {
        let physical = self.add(path)?.ok_or_else(|| {
            if is_private_place(path) {
                PackError::PrivatePlace(path.to_owned())
            } else {
                PackError::Unreadable(path.to_owned(), io::Error::from(io::ErrorKind::NotFound))
            }
        })?;
        if is_private_place(&physical) {
            return Err(PackError::PrivatePlace(physical));
        }
        self.files.insert(physical.clone());
        self.programs.insert(physical);
        Ok(())
    }

    /// Something that the compiler opened or asked about.
    fn touch(&mut self, path: &Path) -> Result<(), PackError> {
        let Some(physical) = self.add(path)? else { return Ok(()) };
        let Ok(meta) = fs::metadata(&physical) else { return Ok(()) };
        if meta.is_dir() {
            self.add_dir(&physical);
        } else if meta.is_file() && !self.is_header(&physical) && !NEVER.iter().any(|n| physical == Path::new(n)) {
            self.files.insert(physical);
        }
        Ok(())
    }

    /// A name that was looked for in vain.
    fn miss(&mut self, path: &Path) -> Result<(), PackError> {
        if is_private_place(&lexical(path)) {
            return Ok(());
        }
        let walked = match walk(path) {
            Ok(walked) => walked,
            // Not allowed to look: it is as good as absent for the compiler, and cannot be listed.
            Err(_) => return Ok(()),
        };
        if !walked.missing {
            // It came into being during the trace, or only its own message catalogue did.
            return self.touch(path);
        }
        self.note_way(&walked);
        if !self.is_header(&walked.physical) && !is_private_place(&walked.physical) {
            self.absent.insert(walked.physical);
        }
        Ok(())
    }

    /// A directory that was read as a list depends on every name in it.
    fn listed(&mut self, path: &Path) -> Result<(), PackError> {
        if let Some(physical) = self.add(path)?
            && physical.is_dir()
            && !self.is_header(&physical)
        {
            self.listed.insert(physical);
        }
        Ok(())
    }

    /// Notes links and the directory; the physical path, or `None` if there is nothing that could be sent.
    fn add(&mut self, path: &Path) -> Result<Option<PathBuf>, PackError> {
        if is_private_place(&lexical(path)) {
            return Ok(None);
        }
        let walked = match walk(path) {
            Ok(walked) => walked,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) => return Ok(None),
            Err(e) => return Err(PackError::Unreadable(path.to_owned(), e)),
        };
        if walked.missing || is_private_place(&walked.physical) {
            return Ok(None);
        }
        self.note_way(&walked);
        Ok(Some(walked.physical))
    }

    fn note_way(&mut self, walked: &super::walk::Walk) {
        for (place, target) in &walked.links {
            let leads_to = lexical(&place.parent().unwrap_or(Path::new("/")).join(target));
            if is_private_place(place) || is_private_place(&leads_to) {
                return;
            }
            self.links.insert(place.clone(), target.clone());
        }
        if let Some(dir) = walked.dirs.last() {
            self.add_dir(dir);
        }
    }

    /// A directory that the compiler looks into. Which ones below an include directory it visits is a matter of the
    /// source, so those belong to the jobs.
    fn add_dir(&mut self, dir: &Path) {
        let of_headers = self.is_header(dir) && !self.headers.iter().any(|h| h == dir);
        if !of_headers && !is_private_place(dir) {
            self.dirs.insert(dir.to_owned());
        }
    }

    /// Adds every library of every program. For files that were merely touched a missing library is no error: nothing
    /// shows that they are ever run.
    fn close_over(&mut self, env: &Environment) -> Result<(), PackError> {
        let mut loader = Loader::new(env);
        for file in self.files.clone() {
            let closure = match loader.closure(&file) {
                Ok(closure) => closure,
                Err(ClosureError::Missing(_)) if !self.programs.contains(&file) => continue,
                Err(e) => return Err(e.into()),
            };
            for library in closure {
                let physical = self.add(&library)?;
                let physical = physical.ok_or_else(|| PackError::PrivatePlace(library.clone()))?;
                self.files.insert(physical);
            }
        }
        Ok(())
    }

    /// Reads every file once, except those whose identity is known.
    fn hash(
        &mut self,
        known: &HashMap<FileIdent, Digest>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Vec<Entry>, Hashed), PackError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |e| PackError::Unreadable(path, e)
        };
        let mut metas = Vec::new();
        let mut total = 0u64;
        for path in &self.files {
            let meta = fs::symlink_metadata(path).map_err(unreadable(path))?;
            if meta.size() > BLOB_BYTES_MAX {
                return Err(PackError::Bad(BadManifest::FileTooLarge(path.clone(), meta.size())));
            }
            total = total.saturating_add(meta.size());
            metas.push((path, meta));
        }
        if total > TOOLCHAIN_BYTES_MAX {
            return Err(PackError::Bad(BadManifest::TooManyBytes(total)));
        }
        let mut done = 0u64;
        progress(done, total);
        let (mut entries, mut files) = (Vec::new(), Vec::new());
        for (path, meta) in metas {
            let ident = FileIdent::from_metadata(path, &meta);
            let digest = match known.get(&ident) {
                Some(digest) => *digest,
                None => hash_file(path, &mut |bytes| progress(done + bytes, total)).map_err(unreadable(path))?,
            };
            if !ident.holds() {
                return Err(PackError::Changed(path.clone()));
            }
            done += meta.size();
            progress(done, total);
            entries.push(Entry::File { path: path.clone(), digest, size: meta.size(), mode: meta.mode() & 0o777 });
            files.push((ident, digest));
        }
        for (path, target) in &self.links {
            entries.push(Entry::Link { path: path.clone(), target: target.clone() });
        }
        entries.sort_by(|a, b| a.path().cmp(b.path()));
        Ok((entries, files))
    }
}

fn hash_file(path: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    let mut done = 0;
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            return Ok(Digest(*hasher.finalize().as_bytes()));
        }
        hasher.update(&chunk[..n]);
        done += n as u64;
        progress(done);
    }
}

/// The name that a toolchain is shown by: the driver's own and its version.
pub fn display_name(manifest: &Manifest) -> String {
    let name = manifest.driver.file_name().unwrap_or(OsStr::new("compiler")).to_string_lossy();
    format!("{name} {} ({})", manifest.version, manifest.target)
}
