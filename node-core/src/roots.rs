//! Which paths of this PC a worker may be told about, and where its results may go. Pure: paths in, a decision out;
//! resolving links is the caller's.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use potluck_model::limits::PATH_BYTES_MAX;

use crate::bytes;

/// Absolute and in its simplest form, as every path is that a worker may name: it only knows the ones that it was sent.
pub fn is_plain(path: &[u8]) -> bool {
    path.strip_prefix(b"/").is_some_and(|rest| below(Path::new("/"), rest).is_some())
}

/// `path` below `dir`: relative, without `.`, `..` and empty components.
pub fn below(dir: &Path, path: &[u8]) -> Option<PathBuf> {
    let bad = path.is_empty()
        || path.contains(&0)
        || path.len() >= PATH_BYTES_MAX
        || path.split(|&c| c == b'/').any(|p| p.is_empty() || p == b"." || p == b"..");
    (!bad).then(|| dir.join(bytes::path(path)))
}

/// Whether a physical path is below a physical root that is a project: not the file system's root, and nothing hidden
/// when the root is a home folder or holds some (`~/.ssh`, whoever's).
pub fn is_below(path: &Path, root: &Path, home: Option<&Path>) -> bool {
    let Ok(rest) = path.strip_prefix(root) else { return false };
    if root.components().count() < 2 {
        return false;
    }
    let holds_homes = home.is_some_and(|home| home.starts_with(root)) || root == Path::new("/home");
    !(holds_homes && rest.components().any(|c| c.as_os_str().as_encoded_bytes().starts_with(b".")))
}

/// Where `path` lies below a project's root, for a path that `is_below` it.
pub fn relative<'a>(path: &'a Path, root: &Path, home: Option<&Path>) -> Option<&'a [u8]> {
    is_below(path, root, home).then(|| path.strip_prefix(root).map_or(&b""[..], bytes::of))
}

/// Folders of a compiler's own prefix that hold what it opens. The rest of a prefix may be a person's: the one of
/// `~/.local/bin/gcc` is `~/.local`.
const OF_A_COMPILER: [&str; 8] = ["bin", "include", "lib", "lib32", "lib64", "libx32", "libexec", "sysroot"];

/// Whether a physical path is below the prefix of a compiler, where it has its files.
pub fn is_compilers(path: &Path, prefix: &Path) -> bool {
    let Ok(rest) = path.strip_prefix(prefix) else { return false };
    let mut parts = rest.components().map(|c| c.as_os_str().as_encoded_bytes());
    let Some(first) = parts.next() else { return true };
    // Cross compilers have a folder named like their target, such as `aarch64-linux-gnu`.
    let is_target = first.iter().filter(|&&c| c == b'-').count() >= 2;
    prefix.components().count() > 2
        && (is_target || OF_A_COMPILER.iter().any(|own| first == own.as_bytes()) || rest.starts_with("share/locale"))
        && !parts.any(|part| part.starts_with(b"."))
}

/// Whether a name is made of the source's or an output's, as the names of compilers' own files are. Some version of a
/// compiler may write it although the options as they are known here do not say so.
pub fn is_derived<'a>(name: &OsStr, from: impl IntoIterator<Item = &'a Path>) -> bool {
    let name = name.as_encoded_bytes();
    let follows = |stem: &OsStr| {
        let rest = name.strip_prefix(stem.as_encoded_bytes());
        !stem.is_empty() && rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'.' | b'-')))
    };
    from.into_iter().filter_map(Path::file_stem).any(follows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_stays_below_its_directory() {
        let dir = Path::new("/w");
        assert_eq!(below(dir, b"a/b.o"), Some(PathBuf::from("/w/a/b.o")));
        let long = vec![b'a'; PATH_BYTES_MAX];
        for bad in [&b"../x"[..], b"/etc/passwd", b"a/../../x", b"", b"a//b", b".", b"a\0b", b"a/", b"./a", &long] {
            assert_eq!(below(dir, bad), None, "{}", bytes::show(bad));
        }
    }

    #[test]
    fn secrets_are_below_no_root() {
        let home = Some(Path::new("/home/ann"));
        let told = |path: &str, root: &str| is_below(Path::new(path), Path::new(root), home);
        assert!(told("/home/ann/project/a.h", "/home/ann/project"));
        assert!(told("/home/ann/project/.deps/a.h", "/home/ann/project"));
        assert!(told("/home/ann/a.h", "/home/ann"));
        assert!(told("/home/ann/.cache/build/a.h", "/home/ann/.cache/build"));
        for (path, root) in [
            ("/home/ann/.ssh/id_rsa", "/home/ann"),
            ("/home/ann/.ssh/id_rsa", "/home"),
            ("/home/bob/.ssh/id_rsa", "/home"),
            ("/home/ann/.ssh/id_rsa", "/home/ann/project"),
            ("/home/ann/project2/a.h", "/home/ann/project"),
            ("/etc/shadow", "/"),
            ("/etc/shadow", "/home/ann/project"),
        ] {
            assert!(!told(path, root), "{path} below {root}");
        }
    }

    #[test]
    fn a_worker_names_only_plain_paths() {
        assert!(is_plain(b"/a/b.h"));
        for bad in [&b"a"[..], b"", b"/", b"/a/../b", b"/a/./b", b"//a", b"/a/", b"/a\0"] {
            assert!(!is_plain(bad), "{}", bytes::show(bad));
        }
    }

    #[test]
    fn a_compilers_prefix_is_no_way_to_what_else_lies_there() {
        let prefix = Path::new("/home/ann/.local");
        for told in ["bin/as", "lib/gcc/x/cc1", "libexec/gcc/x", "x86_64-linux-gnu/bin/ld", "share/locale/de/gcc.mo"] {
            assert!(is_compilers(&prefix.join(told), prefix), "{told}");
        }
        for not in ["share/keyrings/login.keyring", "state/app/token", "lib/.key", "lib/a/.git/config", ".env"] {
            assert!(!is_compilers(&prefix.join(not), prefix), "{not}");
        }
        assert!(!is_compilers(Path::new("/opt/lib/x"), Path::new("/opt")));
    }

    #[test]
    fn names_made_of_the_sources_are_told_from_others() {
        let from = [Path::new("src/main.c"), Path::new("out/main.c.o")];
        let derived = |name: &str| is_derived(OsStr::new(name), from);
        for name in ["main.su", "main.c.005t.original", "main.i", "main.c.dwo", "main-x.su", "main"] {
            assert!(derived(name), "{name}");
        }
        for name in ["GNUmakefile", "post-checkout", "config.h", "mainly.o", ".main.su", "a.o"] {
            assert!(!derived(name), "{name}");
        }
    }
}
