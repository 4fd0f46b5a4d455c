//! What names mean: of compilers, source suffixes, `-x` languages, and of the files of configure probes.

use std::ffi::OsStr;
use std::path::Path;

use crate::plan::{Family, Language};
use crate::reason::Reason;

/// The family that a program's name promises, and whether it is the C++ driver. `cc` and `c++` are taken for gcc: only
/// the program behind the name can tell.
pub fn family_of(program_name: &OsStr) -> Option<(Family, bool)> {
    let name = Path::new(program_name).file_name()?.to_str()?;
    let name = name.strip_suffix("-posix").or_else(|| name.strip_suffix("-win32")).unwrap_or(name);
    let stem = match name.rsplit_once('-') {
        Some((stem, version)) if is_version(version) => stem,
        _ => name,
    };
    let kind = match stem {
        "cc" => "gcc",
        "c++" => "g++",
        _ => match stem.rsplit_once('-') {
            // A cross compiler: its target comes first.
            Some((target, "cc")) if target.contains('-') => "gcc",
            Some((target, "c++")) if target.contains('-') => "g++",
            Some((_, kind)) => kind,
            None => stem,
        },
    };
    match kind {
        "gcc" => Some((Family::Gcc, false)),
        "g++" => Some((Family::Gcc, true)),
        "clang" => Some((Family::Clang, false)),
        "clang++" => Some((Family::Clang, true)),
        _ => None,
    }
}

fn is_version(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// What an input is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A source that may travel.
    Source(Language),
    /// Something that keeps the command here.
    Local(Reason),
}

/// The kind of an input without `-x`, as the driver finds it from the suffix.
pub(super) fn kind_of_file(path: &[u8], family: Family, cxx: bool) -> Kind {
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    let suffix = match name.iter().rposition(|&b| b == b'.') {
        Some(dot) => &name[dot + 1..],
        None => return Kind::Local(Reason::Link),
    };
    let clang = family == Family::Clang;
    let language = match suffix {
        // The C++ drivers take C for C++.
        b"c" if cxx => Language::Cxx,
        b"i" if cxx => Language::CxxCppOutput,
        b"c" => Language::C,
        b"i" => Language::CppOutput,
        b"cc" | b"cp" | b"cxx" | b"cpp" | b"CPP" | b"c++" | b"C" => Language::Cxx,
        b"CC" | b"CXX" | b"C++" if clang => Language::Cxx,
        b"ii" => Language::CxxCppOutput,
        b"m" => Language::ObjC,
        b"mm" | b"M" => Language::ObjCxx,
        b"mi" | b"mii" => Language::ObjCppOutput,
        b"S" => Language::AsmWithCpp,
        b"sx" if !clang => Language::AsmWithCpp,
        b"s" => Language::Asm,
        b"h" | b"H" | b"hh" | b"hp" | b"hpp" | b"hxx" | b"h++" | b"HPP" | b"tcc" => {
            return Kind::Local(Reason::PchCreate);
        }
        b"cppm" | b"ccm" | b"cxxm" | b"c++m" | b"ixx" | b"pcm" | b"iih" => return Kind::Local(Reason::ModuleScan),
        b"o" | b"a" | b"so" | b"lo" | b"la" | b"obj" | b"lib" | b"ld" | b"lds" | b"map" => {
            return Kind::Local(Reason::Link);
        }
        b"f" | b"for" | b"ftn" | b"F" | b"FOR" | b"FTN" | b"fpp" | b"FPP" | b"f90" | b"F90" | b"f95" | b"F95"
        | b"f03" | b"F03" | b"f08" | b"F08" | b"adb" | b"ads" | b"d" | b"dd" | b"di" | b"go" | b"cu" | b"cui"
        | b"cuh" | b"hip" | b"cl" | b"clcpp" | b"clh" | b"ll" | b"bc" | b"ast" | b"rs" | b"asm" | b"hlsl" | b"mod"
        | b"cob" => {
            return Kind::Local(Reason::UnsupportedLanguage);
        }
        _ => return Kind::Local(Reason::Link),
    };
    Kind::Source(language)
}

/// The kind that `-x` gives to the inputs after it; `None` for `-x none`.
pub(super) fn kind_of_language(word: &[u8]) -> Option<Kind> {
    let language = match word {
        b"none" => return None,
        b"c" => Language::C,
        b"c++" => Language::Cxx,
        b"objective-c" => Language::ObjC,
        b"objective-c++" => Language::ObjCxx,
        b"cpp-output" => Language::CppOutput,
        b"c++-cpp-output" => Language::CxxCppOutput,
        b"objective-c-cpp-output" | b"objective-c++-cpp-output" => Language::ObjCppOutput,
        b"assembler-with-cpp" => Language::AsmWithCpp,
        b"assembler" => Language::Asm,
        b"c++-module" | b"c++-system-module" => return Some(Kind::Local(Reason::ModuleScan)),
        _ if word.ends_with(b"header") || word.ends_with(b"header-unit") => {
            return Some(Kind::Local(Reason::PchCreate));
        }
        _ => return Some(Kind::Local(Reason::UnsupportedLanguage)),
    };
    Some(Kind::Source(language))
}

/// Whether a source belongs to a configure step of autoconf, CMake or Meson, or to the kernel's `cc-option`.
pub(super) fn is_probe(cwd: &[u8], source: &[u8]) -> bool {
    let name = source.rsplit(|&b| b == b'/').next().unwrap_or(source);
    let has = |part: &[u8]| contains(cwd, part) || contains(source, part);
    source == b"/dev/null"
        || [&b"conftest."[..], b"tmp.conftest.", b"_configtest.", b"sanitycheckc"].iter().any(|p| name.starts_with(p))
        || has(b"/CMakeFiles/CMakeTmp")
        || has(b"/CMakeScratch/TryCompile-")
        || name.starts_with(b"CMakeCCompilerId.")
        || name.starts_with(b"CMakeCXXCompilerId.")
        || has(b"meson-private/tmp")
        || (name.starts_with(b"testfile.") && has(b"meson-private"))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn program_names_tell_family_and_driver() {
        for (name, want) in [
            ("gcc", Some((Family::Gcc, false))),
            ("/usr/bin/g++", Some((Family::Gcc, true))),
            ("cc", Some((Family::Gcc, false))),
            ("c++", Some((Family::Gcc, true))),
            ("gcc-12", Some((Family::Gcc, false))),
            ("gcc-4.9", Some((Family::Gcc, false))),
            ("x86_64-linux-gnu-g++-12", Some((Family::Gcc, true))),
            ("aarch64-linux-gnu-gcc", Some((Family::Gcc, false))),
            ("x86_64-linux-gnu-cc", Some((Family::Gcc, false))),
            ("avr-gcc", Some((Family::Gcc, false))),
            ("x86_64-w64-mingw32-gcc", Some((Family::Gcc, false))),
            ("x86_64-w64-mingw32-g++-12-posix", Some((Family::Gcc, true))),
            ("clang", Some((Family::Clang, false))),
            ("clang++-14", Some((Family::Clang, true))),
            ("clang-14", Some((Family::Clang, false))),
            ("armv7-linux-androideabi21-clang++", Some((Family::Clang, true))),
            ("gcc-ar-12", None),
            ("gcc-nm", None),
            ("clang-cl", None),
            ("clang-cpp-14", None),
            ("clang-format", None),
            ("clang-tidy-14", None),
            ("tcc", None),
            ("rustc", None),
            ("distcc", None),
            ("12", None),
            ("", None),
        ] {
            assert_eq!(family_of(OsStr::new(name)), want, "{name}");
        }
        assert_eq!(family_of(OsStr::from_bytes(b"gcc\xff")), None);
    }

    #[test]
    fn probes_are_recognised_by_their_folder_or_name() {
        assert!(is_probe(b"/home/u/b", b"conftest.c"));
        assert!(is_probe(b"/home/u/b/CMakeFiles/CMakeScratch/TryCompile-x1", b"src.c"));
        assert!(is_probe(b"/home/u/b", b"/home/u/b/CMakeFiles/CMakeTmp/a.c"));
        assert!(is_probe(b"/home/u/b", b"/home/u/b/meson-private/tmpab/testfile.c"));
        assert!(is_probe(b"/home/u/b", b"meson-private/sanitycheckcpp.cc"));
        assert!(is_probe(b"/home/u/linux", b"/dev/null"));
        assert!(!is_probe(b"/home/u/b", b"testfile.c"));
        assert!(!is_probe(b"/home/u/b", b"conftestimony.c"));
    }
}
