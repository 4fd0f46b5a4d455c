//! The directory of compiler names that lead to Potluck: one symlink for each compiler on PATH, kept up to date when
//! compilers come and go. It runs no compiler, and touches nothing in the directory that is not such a link.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Names in one directory. A machine with every cross compiler of a distribution has about 400.
const NAMES_MAX: usize = 4096;
/// A link under construction; never a compiler's name, so that a leftover is seen as ours.
const TEMPORARY: &str = ".potluck-link";

/// Makes the links in `masquerade_dir` those that PATH asks for: new compilers appear, links to compilers that are gone
/// disappear, and links to another place than `wrapper_exe` are set right. Each change is one rename or one unlink, so
/// that a build that runs meanwhile always finds a compiler. Returns the names that are there now, in order.
///
/// # Errors
/// The directory cannot be made or read, a link cannot be made, or `wrapper_exe` is no absolute path.
pub fn refresh(path_env: &OsStr, masquerade_dir: &Path, wrapper_exe: &Path) -> io::Result<Vec<String>> {
    if !wrapper_exe.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the wrapper's path is not absolute"));
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(masquerade_dir)?;
    let wanted = compilers_on(path_env, masquerade_dir, wrapper_exe);
    for entry in fs::read_dir(masquerade_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| is_compiler_name(name) && !wanted.contains(name));
        if is_ours && entry.file_type()?.is_symlink() {
            ignore_missing(fs::remove_file(entry.path()))?;
        }
    }
    for name in &wanted {
        let link = masquerade_dir.join(name);
        match fs::read_link(&link) {
            Ok(target) if target == wrapper_exe => continue,
            // A program that somebody put here on purpose.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => continue,
            _ => replace_link(masquerade_dir, &link, wrapper_exe)?,
        }
    }
    Ok(wanted.into_iter().collect())
}

/// Whether a program of this name is a C or C++ compiler driver: `gcc`, `g++`, `cc`, `c++`, `clang`, `clang++`, each with
/// a target before it (`aarch64-linux-gnu-gcc`) and a version after it (`gcc-12`, `clang++-18`, `g++-4.8`).
pub fn is_compiler_name(name: &str) -> bool {
    let is_version = |text: &str| {
        text.split('.').all(|part| !part.is_empty() && part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit()))
    };
    let stem = match name.rsplit_once('-') {
        Some((stem, version)) if is_version(version) => stem,
        _ => name,
    };
    let (target, driver) = stem.rsplit_once('-').map_or((None, stem), |(target, driver)| (Some(target), driver));
    let known = match driver {
        "gcc" | "g++" | "clang" | "clang++" => true,
        // `x86_64-w64-mingw32-c++` is one, `distcc-cc` is not: a target has two parts at least.
        "cc" | "c++" => target.is_none_or(|target| target.contains('-')),
        _ => false,
    };
    known && target.is_none_or(is_target)
}

/// A configuration triplet, or a vendor's short form of one: `x86_64-linux-gnu`, `arm-none-eabi`, `riscv64-elf`, `avr`.
/// Programs that merely end in a compiler's name (`ccache-gcc`, `hardened-cc`, `colour-gcc`) are none.
fn is_target(target: &str) -> bool {
    const CPUS: &[&str] = &[
        "aarch64",
        "alpha",
        "amdgcn",
        "arc",
        "arm",
        "avr",
        "bpf",
        "cris",
        "csky",
        "frv",
        "h8300",
        "hexagon",
        "hppa",
        "i386",
        "i486",
        "i586",
        "i686",
        "ia64",
        "lm32",
        "loongarch",
        "m32r",
        "m68k",
        "microblaze",
        "mips",
        "mmix",
        "moxie",
        "msp430",
        "nds32",
        "nios2",
        "nvptx",
        "or1k",
        "powerpc",
        "ppc",
        "pru",
        "riscv",
        "rl78",
        "rx",
        "s390",
        "sh",
        "sparc",
        "tic6x",
        "tricore",
        "v850",
        "visium",
        "wasm",
        "x86_64",
        "xtensa",
    ];
    let cpu = target.split('-').next().unwrap_or(target);
    let is_plain = target.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    // Word size, revision and endianness follow the name: armv7l, mips64el, powerpc64le. "shell" is no "sh".
    let fits = |known: &str| {
        let rest = cpu.strip_prefix(known).map(|rest| rest.strip_prefix(['v', 'x']).unwrap_or(rest));
        rest.is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_digit())
                || rest.starts_with("isa")
                || ["", "_be", "eb", "el", "be", "le"].contains(&rest)
        })
    };
    is_plain && CPUS.iter().any(|known| fits(known))
}

/// The names of all compilers that PATH leads to, other than Potluck's own.
fn compilers_on(path_env: &OsStr, masquerade_dir: &Path, wrapper_exe: &Path) -> BTreeSet<String> {
    let canonical = |path: &Path| fs::canonicalize(path).ok();
    let (own_dir, own_exe) = (canonical(masquerade_dir), canonical(wrapper_exe));
    let mut names = BTreeSet::new();
    // The working directory of the node says nothing about that of a build: relative entries are passed over.
    for dir in std::env::split_paths(path_env).filter(|dir| dir.is_absolute() && canonical(dir) != own_dir) {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_compiler_name(name)) else { continue };
            if names.len() < NAMES_MAX && !names.contains(name) && is_program(&entry.path(), own_exe.as_deref()) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

/// An executable file that is not Potluck, in this or another installation.
fn is_program(path: &Path, own_exe: Option<&Path>) -> bool {
    let Ok(real) = fs::canonicalize(path) else { return false };
    let is_potluck = Some(real.as_path()) == own_exe || real.file_name() == Some(OsStr::from_bytes(b"potluck"));
    let is_executable = |meta: fs::Metadata| meta.is_file() && meta.permissions().mode() & 0o111 != 0;
    !is_potluck && fs::metadata(&real).is_ok_and(is_executable)
}

/// The name leads to the old place or to the new one, never to nothing.
fn replace_link(dir: &Path, link: &Path, target: &Path) -> io::Result<()> {
    let temporary: PathBuf = dir.join(format!("{TEMPORARY}.{}", std::process::id()));
    ignore_missing(fs::remove_file(&temporary))?;
    symlink(target, &temporary)?;
    fs::rename(&temporary, link).inspect_err(|_| {
        // What remains is only litter; the error that is reported is the one that matters.
        let _ = fs::remove_file(&temporary);
    })
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lab {
        root: tempfile::TempDir,
    }

    impl Lab {
        fn new() -> Lab {
            let root = tempfile::tempdir().expect("scratch");
            let lab = Lab { root };
            lab.program("opt/potluck");
            lab
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn program(&self, name: &str) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().expect("has a folder")).expect("folder");
            fs::write(&path, "#!/bin/sh\n").expect("file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
        }

        fn refresh(&self, dirs: &[&str]) -> Vec<String> {
            let path = std::env::join_paths(dirs.iter().map(|d| self.path(d))).expect("no colon");
            refresh(&path, &self.path("cache/potluck/bin"), &self.path("opt/potluck")).expect("refreshed")
        }

        fn link(&self, name: &str) -> Option<PathBuf> {
            fs::read_link(self.path("cache/potluck/bin").join(name)).ok()
        }
    }

    #[test]
    fn compilers_are_known_by_name() {
        for name in [
            "gcc",
            "g++",
            "cc",
            "c++",
            "clang",
            "clang++",
            "gcc-12",
            "clang++-18",
            "g++-4.8",
            "gcc-4.8.5",
            "x86_64-linux-gnu-gcc-12",
            "aarch64-linux-gnu-g++",
            "arm-none-eabi-gcc",
            "avr-gcc",
            "riscv64-elf-gcc",
            "x86_64-w64-mingw32-c++",
            "mipsel-linux-gnu-gcc",
            "armv7l-linux-musleabihf-cc",
            "i686-w64-mingw32-clang",
            "aarch64_be-linux-gnu-gcc",
            "powerpc64le-linux-gnu-gcc",
            "sh4-linux-gnu-gcc",
            "xtensa-esp32-elf-gcc",
        ] {
            assert!(is_compiler_name(name), "{name}");
        }
        for name in [
            "",
            "gcc-ar",
            "gcc-ar-12",
            "x86_64-linux-gnu-gcc-nm",
            "clang-cpp-14",
            "clang-format",
            "clang-tidy",
            "c89-gcc",
            "c99",
            "c++filt",
            "ccache",
            "ccache-gcc",
            "distcc-cc",
            "icecc",
            "rustc",
            "cc1",
            "collect2",
            "gcc-",
            "-gcc",
            "gcc-12-",
            "gcc-x",
            "afl-clang",
            "shell-gcc",
            "musl-gcc",
            "arm none-gcc",
            "gcc-2024010112",
            "tcc",
            "lld",
        ] {
            assert!(!is_compiler_name(name), "{name}");
        }
    }

    #[test]
    fn each_compiler_on_path_gets_a_link_and_nothing_else_does() {
        let lab = Lab::new();
        for name in ["a/gcc", "a/gcc-ar", "a/ls", "b/gcc", "b/aarch64-linux-gnu-g++-12", "c/clang"] {
            lab.program(name);
        }
        fs::write(lab.path("a/cc"), "no program").expect("file");
        fs::create_dir(lab.path("a/g++")).expect("folder");
        symlink("nowhere", lab.path("a/c++")).expect("link");
        symlink("clang", lab.path("c/clang++")).expect("link");
        let names = lab.refresh(&["a", "missing", "b", "c"]);
        assert_eq!(names, ["aarch64-linux-gnu-g++-12", "clang", "clang++", "gcc"]);
        assert_eq!(lab.link("clang++"), Some(lab.path("opt/potluck")));
        assert_eq!(fs::read_dir(lab.path("cache/potluck/bin")).expect("folder").count(), 4);
        assert_eq!(fs::metadata(lab.path("cache/potluck/bin")).expect("folder").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_second_refresh_changes_nothing() {
        use std::os::unix::fs::MetadataExt;
        let lab = Lab::new();
        lab.program("a/gcc");
        let inode = |lab: &Lab| fs::symlink_metadata(lab.path("cache/potluck/bin/gcc")).expect("link").ino();
        let names = lab.refresh(&["a"]);
        let before = inode(&lab);
        // As in a shell that has the masquerade directory first in its PATH.
        assert_eq!(lab.refresh(&["cache/potluck/bin", "a"]), names);
        assert_eq!(inode(&lab), before);
    }

    #[test]
    fn links_follow_compilers_that_go_and_a_wrapper_that_moves() {
        let lab = Lab::new();
        lab.program("a/gcc");
        lab.program("a/clang");
        lab.refresh(&["a"]);
        fs::remove_file(lab.path("a/clang")).expect("removed");
        lab.program("new/potluck");
        let path = lab.path("a");
        refresh(path.as_os_str(), &lab.path("cache/potluck/bin"), &lab.path("new/potluck")).expect("refreshed");
        assert_eq!(lab.link("gcc"), Some(lab.path("new/potluck")));
        assert_eq!(lab.link("clang"), None);
    }

    #[test]
    fn what_somebody_else_put_there_stays() {
        let lab = Lab::new();
        lab.program("a/gcc");
        lab.program("cache/potluck/bin/gcc");
        lab.program("cache/potluck/bin/clang");
        symlink("x", lab.path("cache/potluck/bin/notes")).expect("link");
        lab.refresh(&["a"]);
        assert!(lab.path("cache/potluck/bin/gcc").is_file() && lab.link("gcc").is_none());
        assert!(lab.path("cache/potluck/bin/clang").is_file());
        assert!(lab.link("notes").is_some());
    }

    #[test]
    fn a_masquerade_of_another_installation_is_no_compiler() {
        let lab = Lab::new();
        lab.program("other/potluck");
        symlink("potluck", lab.path("other/gcc")).expect("link");
        assert!(lab.refresh(&["other"]).is_empty());
    }

    #[test]
    fn a_relative_wrapper_is_refused() {
        let lab = Lab::new();
        assert!(refresh(OsStr::new("/usr/bin"), &lab.path("bin"), Path::new("potluck")).is_err());
        assert!(!lab.path("bin").exists());
    }

    #[test]
    fn this_machines_compilers_are_found() {
        let lab = Lab::new();
        let names =
            refresh(OsStr::new("/usr/bin:/bin"), &lab.path("bin"), &lab.path("opt/potluck")).expect("refreshed");
        let is_there = |name: &str| Path::new("/usr/bin").join(name).exists() == names.iter().any(|n| n == name);
        assert!(["gcc", "g++", "cc", "c++", "clang", "clang++"].iter().all(|name| is_there(name)), "{names:?}");
    }
}
