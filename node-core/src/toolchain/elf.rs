//! The libraries that an ELF program needs, found as glibc's and musl's loaders find them, without running anything.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, elf as e};

use super::environment::Environment;

/// Objects in one closure: LLVM programs have some twenty.
const OBJECTS_MAX: usize = 4096;
/// Includes of `/etc/ld.so.conf`.
const CONF_FILES_MAX: usize = 256;
/// Directories that older loaders look into below each library directory, by CPU.
const OLD_HWCAPS: &[&str] = &["haswell", "haswell/avx512_1", "avx512_1", "tls", "x86_64", "tls/x86_64", "atomics"];

/// What one object says about its loading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Class (32 or 64) and machine: libraries of another are passed over.
    pub abi: (u8, u16),
    /// PT_INTERP.
    pub interpreter: Option<PathBuf>,
    /// DT_NEEDED, in order.
    pub needed: Vec<Vec<u8>>,
    /// DT_RPATH, split at colons.
    pub rpath: Vec<Vec<u8>>,
    /// DT_RUNPATH, split at colons.
    pub runpath: Vec<Vec<u8>>,
}

/// A library that was not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Who needs it.
    pub needed_by: PathBuf,
    /// What.
    pub name: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.needed_by.file_name().unwrap_or(self.needed_by.as_os_str()).to_string_lossy();
        write!(f, "`{by}` needs `{}`, which was not found next to the compiler", self.name)
    }
}

/// Why there is no closure.
#[derive(Debug)]
pub enum ClosureError {
    /// A library is nowhere.
    Missing(Missing),
    /// A file could not be read.
    Io(PathBuf, io::Error),
    /// More objects than any toolchain has.
    TooMany,
}

/// Reads the dynamic section. `None` for what is not ELF. Malformed ELF counts as an object that needs nothing: the loader
/// will say so, not we.
pub fn read_object(data: &[u8]) -> Option<Object> {
    match data.get(..6)? {
        [0x7f, b'E', b'L', b'F', 1, _] => read_class::<e::FileHeader32<Endianness>>(data, 32),
        [0x7f, b'E', b'L', b'F', 2, _] => read_class::<e::FileHeader64<Endianness>>(data, 64),
        _ => None,
    }
}

fn read_class<H: FileHeader<Endian = Endianness>>(data: &[u8], class: u8) -> Option<Object> {
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let mut object = Object { abi: (class, header.e_machine(endian)), ..Object::default() };
    let Ok(segments) = header.program_headers(endian, data) else { return Some(object) };
    for segment in segments {
        if let Ok(Some(interpreter)) = segment.interpreter(endian, data) {
            object.interpreter = Some(PathBuf::from(OsStr::from_bytes(interpreter)));
        }
    }
    let Some(dynamic) = segments.iter().find_map(|s| s.dynamic(endian, data).ok().flatten()) else {
        return Some(object);
    };
    let value = |tag: u32| dynamic.iter().find(|d| d.tag32(endian) == Some(tag)).map(|d| d.d_val(endian).into());
    let (Some(strtab), Some(strsz)) = (value(e::DT_STRTAB), value(e::DT_STRSZ)) else { return Some(object) };
    let strings = segments.iter().find_map(|s| s.data_range(endian, data, strtab, strsz).ok().flatten());
    let Some(strings) = strings else { return Some(object) };
    for entry in dynamic {
        let text = || {
            let from: u64 = entry.d_val(endian).into();
            let tail = strings.get(usize::try_from(from).ok()?..)?;
            Some(&tail[..tail.iter().position(|b| *b == 0)?])
        };
        let split = |text: &[u8]| text.split(|b| *b == b':').filter(|p| !p.is_empty()).map(<[u8]>::to_vec).collect();
        match entry.tag32(endian) {
            Some(e::DT_NEEDED) => object.needed.extend(text().map(<[u8]>::to_vec)),
            Some(e::DT_RPATH) => object.rpath = text().map(split).unwrap_or_default(),
            Some(e::DT_RUNPATH) => object.runpath = text().map(split).unwrap_or_default(),
            _ => {}
        }
    }
    Some(object)
}

/// Finds closures; remembers objects that it has read.
pub struct Loader {
    system_dirs: Vec<PathBuf>,
    library_path: Vec<PathBuf>,
    preload: Vec<PathBuf>,
    objects: HashMap<PathBuf, Option<Object>>,
}

impl Loader {
    /// With the configuration of this machine and the user's LD_LIBRARY_PATH.
    pub fn new(env: &Environment) -> Self {
        let split = |name: &str, at: fn(&u8) -> bool| -> Vec<PathBuf> {
            let value = env.get(name).unwrap_or_default().as_bytes();
            let parts = value.split(at).filter(|p| p.starts_with(b"/"));
            parts.map(|p| PathBuf::from(OsStr::from_bytes(p))).collect()
        };
        Self {
            system_dirs: system_dirs(),
            library_path: split("LD_LIBRARY_PATH", |b| matches!(b, b':' | b';')),
            preload: split("LD_PRELOAD", |b| matches!(b, b':' | b' ')),
            objects: HashMap::new(),
        }
    }

    fn object(&mut self, path: &Path) -> Result<Option<Object>, ClosureError> {
        if let Some(known) = self.objects.get(path) {
            return Ok(known.clone());
        }
        let data = read_if_elf(path).map_err(|e| ClosureError::Io(path.to_owned(), e))?;
        let object = data.as_deref().and_then(read_object);
        self.objects.insert(path.to_owned(), object.clone());
        Ok(object)
    }

    /// Everything the loader opens for `program` (which is not part of the answer), as spelled by the loader. Empty for
    /// what is not ELF. For a script: its interpreter and that one's closure.
    pub fn closure(&mut self, program: &Path) -> Result<BTreeSet<PathBuf>, ClosureError> {
        let mut found = BTreeSet::new();
        // A breadth-first walk, each object with the RPATHs of those that loaded it, as the loader inherits them.
        let mut queue: VecDeque<(PathBuf, Vec<PathBuf>)> = VecDeque::from([(program.to_owned(), Vec::new())]);
        queue.extend(self.preload.iter().map(|p| (p.clone(), Vec::new())));
        found.extend(self.preload.iter().filter(|p| p.exists()).cloned());
        while let Some((path, inherited)) = queue.pop_front() {
            if found.len() > OBJECTS_MAX {
                return Err(ClosureError::TooMany);
            }
            let Some(object) = self.object(&path)? else {
                if path == program
                    && let Some(interpreter) = script_interpreter(&path)
                    && found.insert(interpreter.clone())
                {
                    queue.push_back((interpreter, Vec::new()));
                }
                continue;
            };
            let origin = path.canonicalize().ok().and_then(|p| Some(p.parent()?.to_owned())).unwrap_or_default();
            let expand = |list: &[Vec<u8>]| -> Vec<PathBuf> {
                list.iter().flat_map(|p| expand_tokens(p, &origin, object.abi.0)).collect()
            };
            let mut rpath = if object.runpath.is_empty() { expand(&object.rpath) } else { Vec::new() };
            rpath.extend(inherited);
            let runpath = expand(&object.runpath);
            if let Some(interpreter) = &object.interpreter
                && found.insert(interpreter.clone())
            {
                queue.push_back((interpreter.clone(), Vec::new()));
            }
            for name in &object.needed {
                let soname = Path::new(OsStr::from_bytes(name));
                let dirs: Vec<&PathBuf> =
                    rpath.iter().chain(&self.library_path).chain(&runpath).chain(&self.system_dirs).collect();
                let candidates: Vec<PathBuf> = if name.contains(&b'/') {
                    expand_tokens(name, &origin, object.abi.0)
                } else {
                    dirs.iter().map(|d| d.join(soname)).collect()
                };
                let mut library = None;
                for candidate in candidates {
                    if candidate.exists() && self.object(&candidate)?.is_some_and(|o| o.abi == object.abi) {
                        library = Some(candidate);
                        break;
                    }
                }
                let library = library.ok_or_else(|| {
                    let name = String::from_utf8_lossy(name).into_owned();
                    ClosureError::Missing(Missing { needed_by: path.clone(), name })
                })?;
                for variant in hwcaps_variants(&library) {
                    if found.insert(variant.clone()) {
                        queue.push_back((variant, rpath.clone()));
                    }
                }
                if found.insert(library.clone()) {
                    queue.push_back((library, rpath.clone()));
                }
            }
        }
        found.remove(program);
        Ok(found)
    }
}

/// The whole file if it is ELF; only four bytes are read if not.
fn read_if_elf(path: &Path) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    let mut file = fs::File::open(path)?;
    let mut data = Vec::new();
    (&mut file).take(4).read_to_end(&mut data)?;
    if data != [0x7f, b'E', b'L', b'F'] {
        return Ok(None);
    }
    file.read_to_end(&mut data)?;
    Ok(Some(data))
}

/// The program after `#!`. `env` finds its word in PATH: the trace knows that one.
fn script_interpreter(path: &Path) -> Option<PathBuf> {
    use std::io::Read;
    let mut head = Vec::new();
    fs::File::open(path).ok()?.take(256).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let word = line.split(|b| b.is_ascii_whitespace()).find(|w| !w.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word))).filter(|p| p.is_absolute())
}

/// `$ORIGIN`, `$LIB` (both spellings that distributions use) in a search path.
fn expand_tokens(text: &[u8], origin: &Path, class: u8) -> Vec<PathBuf> {
    let text = String::from_utf8_lossy(text).into_owned();
    let origin = origin.to_string_lossy();
    let text = text.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin);
    if !text.contains("$LIB") && !text.contains("${LIB}") {
        return vec![PathBuf::from(text)];
    }
    let libs: &[&str] =
        if class == 64 { &["lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"] } else { &["lib"] };
    libs.iter().map(|lib| PathBuf::from(text.replace("${LIB}", lib).replace("$LIB", lib))).collect()
}

/// The same library built for particular CPUs: a worker's loader may prefer one, so it must be there.
fn hwcaps_variants(library: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (library.parent(), library.file_name()) else { return Vec::new() };
    let new_style = fs::read_dir(dir.join("glibc-hwcaps")).into_iter().flatten().flatten().map(|e| e.path());
    let old_style = OLD_HWCAPS.iter().map(|d| dir.join(d));
    new_style.chain(old_style).map(|d| d.join(name)).filter(|p| p.is_file()).collect()
}

/// Directories of `/etc/ld.so.conf`, of musl's path files, and the built-in ones, in the loader's order.
fn system_dirs() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    let mut files_left = CONF_FILES_MAX;
    read_conf(Path::new("/etc/ld.so.conf"), &mut dirs, &mut files_left);
    for entry in fs::read_dir("/etc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.as_bytes().starts_with(b"ld-musl-") && name.as_bytes().ends_with(b".path") {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            dirs.extend(text.split([':', '\n']).filter(|l| l.starts_with('/')).map(PathBuf::from));
        }
    }
    dirs.extend(["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"].map(PathBuf::from));
    dirs
}

fn read_conf(path: &Path, dirs: &mut Vec<PathBuf>, files_left: &mut usize) {
    let Some(left) = files_left.checked_sub(1) else { return };
    *files_left = left;
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include ") {
            let pattern = Path::new("/etc").join(pattern.trim());
            for file in one_star_glob(&pattern) {
                read_conf(&file, dirs, files_left);
            }
        } else if line.starts_with('/') {
            dirs.push(PathBuf::from(line.split('=').next().unwrap_or(line)));
        }
    }
}

/// The only pattern that distributions use: one `*` in the last name.
fn one_star_glob(pattern: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (pattern.parent(), pattern.file_name().and_then(OsStr::to_str)) else {
        return Vec::new();
    };
    let Some((before, after)) = name.split_once('*') else { return vec![pattern.to_owned()] };
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name().and_then(OsStr::to_str).is_some_and(|n| n.starts_with(before) && n.ends_with(after)))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closure_of_a_program_is_what_the_loader_opens() {
        let program = Path::new("/bin/sh").canonicalize().unwrap();
        let closure = Loader::new(&Environment::default()).closure(&program).unwrap();
        let names: Vec<_> = closure.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert!(names.iter().any(|n| n.starts_with("libc.")), "{names:?}");
        assert!(names.iter().any(|n| n.starts_with("ld-")), "{names:?}");
    }

    #[test]
    fn a_cut_or_random_object_never_panics() {
        let data = fs::read("/bin/sh").unwrap();
        for end in (0..data.len().min(5000)).step_by(7) {
            read_object(&data[..end]);
        }
        let mut bad = data.clone();
        for (i, b) in bad.iter_mut().enumerate().skip(16).take(600) {
            *b ^= (i * 37) as u8;
        }
        read_object(&bad);
    }

    #[test]
    fn a_missing_library_is_named_with_who_needs_it() {
        let missing = Missing { needed_by: "/usr/lib/gcc/cc1plus".into(), name: "libisl.so.23".into() };
        let text = "`cc1plus` needs `libisl.so.23`, which was not found next to the compiler";
        assert_eq!(missing.to_string(), text);
    }
}
