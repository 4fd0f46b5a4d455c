//! Resolves a path the way the kernel does, and remembers every link and directory on the way: a worker needs them all.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Links followed in one path: Linux's own limit.
const LINKS_MAX: usize = 40;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Without links, `.` and `..`. If `missing`, the first name that does not exist.
    pub physical: PathBuf,
    /// Each link on the way: its physical place and its text.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Physical directories that a name was looked up in, the last one last.
    pub dirs: Vec<PathBuf>,
    /// The path does not lead to anything.
    pub missing: bool,
}

/// Follows `path`, which must be absolute. Errors are those of the file system other than "not there".
pub fn walk(path: &Path) -> io::Result<Walk> {
    walk_with(path, true)
}

/// Like `walk`, but a link at the very end is not followed.
pub fn walk_to_link(path: &Path) -> io::Result<Walk> {
    walk_with(path, false)
}

fn walk_with(path: &Path, follow_last: bool) -> io::Result<Walk> {
    if !path.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute"));
    }
    let mut out = Walk { physical: PathBuf::from("/"), links: Vec::new(), dirs: Vec::new(), missing: false };
    let mut rest: Vec<OsString> = names(path);
    let mut is_dir = true;
    while let Some(name) = rest.pop() {
        if !is_dir {
            // A name below a regular file: ENOTDIR, which is "not there" to every caller.
            out.missing = true;
            return Ok(out);
        }
        if out.dirs.last() != Some(&out.physical) {
            out.dirs.push(out.physical.clone());
        }
        if name == ".." {
            out.physical.pop();
            continue;
        }
        let next = out.physical.join(&name);
        let meta = match fs::symlink_metadata(&next) {
            Ok(meta) => meta,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                out.physical = next;
                out.missing = true;
                return Ok(out);
            }
            Err(e) => return Err(e),
        };
        if meta.is_symlink() && (follow_last || !rest.is_empty()) {
            let target = fs::read_link(&next)?;
            if out.links.len() >= LINKS_MAX {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            out.links.push((next, target.clone()));
            if target.is_absolute() {
                out.physical = PathBuf::from("/");
            }
            rest.extend(names(&target));
            continue;
        }
        is_dir = meta.is_dir();
        out.physical = next;
    }
    Ok(out)
}

/// The names of a path, last first, without `/` and `.`.
fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = path
        .components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    names.reverse();
    names
}

/// Whether a path lies where every machine, or every job, has its own: such a file means nothing elsewhere.
pub fn is_private_place(path: &Path) -> bool {
    ["/proc", "/dev", "/sys", "/tmp", "/run", "/.potluck"].iter().any(|p| path.starts_with(p))
}

/// `path` without `.`, `..` and doubled slashes, by text alone.
pub fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for c in path.components() {
        match c {
            Component::Normal(n) => out.push(n),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// The bytes of a path.
pub fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_link_on_the_way_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::write(root.join("usr/lib/real"), "x").unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink(root.join("lib/real"), root.join("alias")).unwrap();

        let there = walk(&root.join("alias")).unwrap();
        assert_eq!(there.physical, root.join("usr/lib/real"));
        assert_eq!(there.links.iter().map(|l| &l.0).collect::<Vec<_>>(), [&root.join("alias"), &root.join("lib")]);
        assert!(!there.missing);

        let up = walk(&root.join("lib/../lib/none")).unwrap();
        assert!(up.missing);
        assert_eq!(up.physical, root.join("usr/lib/none"));
        assert!(up.dirs.contains(&root.join("usr/lib")));
        assert!(walk(&root.join("usr/lib/real/x")).unwrap().missing);
    }

    #[test]
    fn a_loop_of_links_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert_eq!(walk(&dir.path().join("a")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }
}
