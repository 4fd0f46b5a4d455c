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

/// Endings of files that people and tools read as instructions. No compiler leaves one that its command does not name.
const INSTRUCTIONS: &[&str] = &[
    "c", "cc", "cpp", "cxx", "c++", "C", "m", "mm", "h", "hh", "hpp", "hxx", "h++", "inc", "def", "py", "sh", "pl",
    "rb", "mk", "cmake", "ac", "am",
];

/// Whether a name that the command does not name can be a by-product of it: compilers derive them all from the source or
/// an output (`a.su`, `a.c.005t.original`, `a.ii`). Without this a worker could leave a `GNUmakefile` or a git hook.
pub fn is_derived<'a>(name: &OsStr, from: impl IntoIterator<Item = &'a Path>) -> bool {
    let instruction = Path::new(name).extension().is_some_and(|e| INSTRUCTIONS.iter().any(|i| e == *i));
    let name = name.as_encoded_bytes();
    let follows = |stem: &OsStr| {
        let rest = name.strip_prefix(stem.as_encoded_bytes());
        !stem.is_empty() && rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'.' | b'-')))
    };
    !instruction && from.into_iter().filter_map(Path::file_stem).any(follows)
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
    fn by_products_are_named_after_the_source_or_an_output() {
        let from = [Path::new("src/main.c"), Path::new("out/main.c.o")];
        let derived = |name: &str| is_derived(OsStr::new(name), from);
        for name in
            ["main.su", "main.c.005t.original", "main.i", "main.s", "main.gcno", "main.c.dwo", "main-x.su", "main"]
        {
            assert!(derived(name), "{name}");
        }
        for name in
            ["GNUmakefile", "Makefile", "post-checkout", "config.h", "main.h", "main.sh", "mainly.o", ".main.su", "a.o"]
        {
            assert!(!derived(name), "{name}");
        }
    }
}
