//! Finds the compiler that would run without Potluck: PATH as the shell reads it, without Potluck's own names in it.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Access, FileType, access, readlinkat, stat};

use crate::words::base_name;

/// Where a system without PATH looks (`confstr(_CS_PATH)` of glibc).
const PATH_DEFAULT: &[u8] = b"/bin:/usr/bin";
/// Where packages keep the masquerade links that all users of a machine share.
const MASQUERADE_OF_ALL: &[u8] = b"/usr/lib/potluck/bin";
/// Wrappers in a chain that call each other through PATH. Beyond it is a loop.
const LEVEL_MAX: usize = 8;

/// Device and inode: one file under all its names.
pub type Identity = (u64, u64);

/// The compiler to run.
#[derive(Debug)]
pub struct Found {
    /// As a shell would execute it: a script sees this as its `$0`.
    pub path: CString,
    /// The same from the root, links not followed.
    pub absolute: CString,
    /// A shell that looks `name` up in `exported_path` would not arrive here. gcc does look itself up and takes its
    /// own location from that, so that it must then be told a path as its argv[0].
    pub hidden: bool,
    /// Who it is, for the guard.
    pub identity: Identity,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing of this name.
    NotFound,
    /// Something of this name, which is no executable file.
    NotExecutable,
    /// Only Potluck itself.
    OnlyPotluck,
    /// Potluck and another program call each other.
    Loop,
}

/// Programs that this command has been through already: Potluck under its names, and scripts that call it. Carried from
/// process to process in `POTLUCK_LEVEL`.
#[derive(Debug, Default)]
pub struct Guard {
    seen: Vec<Identity>,
}

impl Guard {
    /// Reads the variable's value; what is no list of identities is nothing.
    pub fn read(value: Option<&[u8]>) -> Guard {
        let parse = |word: &[u8]| {
            let (dev, ino) = std::str::from_utf8(word).ok()?.split_once(':')?;
            Some((u64::from_str_radix(dev, 16).ok()?, u64::from_str_radix(ino, 16).ok()?))
        };
        let seen = value.unwrap_or_default().split(|&b| b == b',').filter_map(parse).take(LEVEL_MAX + 1).collect();
        Guard { seen }
    }

    /// The variable's value with one more program in it.
    pub fn with(&self, compiler: Identity) -> String {
        let all = self.seen.iter().chain([&compiler]);
        all.map(|(dev, ino)| format!("{dev:x}:{ino:x}")).collect::<Vec<_>>().join(",")
    }

    /// Deeper than any honest chain of wrappers.
    pub fn is_loop(&self) -> bool {
        self.seen.len() >= LEVEL_MAX
    }
}

/// What the search knows about Potluck's own places.
#[derive(Debug)]
pub struct Own {
    /// This executable.
    pub executable: Option<Identity>,
    /// The directory of masquerade links, if its place is known.
    pub masquerade_dir: Option<Vec<u8>>,
}

impl Own {
    /// From the environment of this process, and the path that it was executed by, if that is known.
    pub fn new(cache_home: Option<&[u8]>, home: Option<&[u8]>, executed: Option<&[u8]>) -> Own {
        let absolute = |dir: &&[u8]| dir.starts_with(b"/");
        let masquerade_dir = match (cache_home.filter(absolute), home.filter(absolute)) {
            (Some(cache), _) => Some([cache, b"/potluck/bin"].concat()),
            (None, Some(home)) => Some([home, b"/.cache/potluck/bin"].concat()),
            (None, None) => None,
        };
        // In /proc every process has files of its own, which are made when they are first looked at: five times slower.
        let executable = executed.and_then(identity_of).or_else(|| identity_of(b"/proc/self/exe"));
        Own { executable, masquerade_dir }
    }

    /// PATH without the masquerade directories, that of this user and that of all, under whatever spelling.
    pub fn strip(&self, path: &[u8]) -> Vec<u8> {
        let all = [self.masquerade_dir.as_deref(), Some(MASQUERADE_OF_ALL)];
        let is_same = |entry: &[u8], own: &[u8]| {
            // /home may be a link to /var/home: the same directory under another name. Only what looks like it is
            // asked, because PATH may have entries on sleeping network file systems.
            parts(entry).eq(parts(own))
                || parts(entry).rev().take(2).eq([&b"bin"[..], b"potluck"])
                    && identity_of(own).is_some_and(|id| Some(id) == identity_of(entry))
        };
        let is_own = |entry: &[u8]| entry.starts_with(b"/") && all.into_iter().flatten().any(|own| is_same(entry, own));
        let kept: Vec<&[u8]> = path.split(|&b| b == b':').filter(|entry| !is_own(entry)).collect();
        // An empty PATH would mean the working directory.
        if kept.is_empty() { PATH_DEFAULT.to_vec() } else { kept.join(&b':') }
    }

    /// Whether a file is Potluck: this executable, or a link that ends in one of its name (two installations).
    fn is_potluck(&self, path: &[u8], identity: Identity) -> bool {
        if self.executable == Some(identity) {
            return true;
        }
        let links_to_potluck = |target: CString| base_name(target.as_bytes()) == b"potluck";
        readlinkat(rustix::fs::CWD, OsStr::from_bytes(path), Vec::new()).is_ok_and(links_to_potluck)
    }
}

/// Looks up a name in `path` (already stripped), as `execvp` would, past Potluck and past what the guard has seen.
pub fn in_path(name: &[u8], path: Option<&[u8]>, own: &Own, guard: &Guard) -> Result<Found, Missing> {
    let mut missing = Missing::NotFound;
    let mut hidden = false;
    let mut called_back = None;
    for dir in path.unwrap_or(PATH_DEFAULT).split(|&b| b == b':') {
        let candidate = match dir {
            b"" => name.to_vec(),
            dir => [dir, b"/", name].concat(),
        };
        let identity = match executable(&candidate) {
            Ok(identity) => identity,
            Err(Missing::NotFound) => continue,
            Err(_) => {
                missing = Missing::NotExecutable;
                continue;
            }
        };
        if own.is_potluck(&candidate, identity) {
            missing = Missing::OnlyPotluck;
        } else if guard.seen.contains(&identity) {
            called_back.get_or_insert((candidate, identity));
        } else {
            return found(&candidate, identity, hidden).ok_or(Missing::NotFound);
        }
        hidden = true;
    }
    // A program that called Potluck, under a name that nothing else has: `potluck sh` inside `potluck sh`. Honest,
    // until `Guard::is_loop`.
    if let Some((candidate, identity)) = called_back {
        return found(&candidate, identity, true).ok_or(Missing::NotFound);
    }
    Err(missing)
}

/// A compiler given by its path. `OnlyPotluck` means that the path leads to a masquerade link.
pub fn by_path(path: &[u8], own: &Own) -> Result<Found, Missing> {
    let identity = executable(path)?;
    if own.is_potluck(path, identity) {
        return Err(Missing::OnlyPotluck);
    }
    found(path, identity, false).ok_or(Missing::NotFound)
}

fn found(path: &[u8], identity: Identity, hidden: bool) -> Option<Found> {
    let absolute = match path {
        [b'/', ..] => path.to_vec(),
        relative => {
            let cwd = rustix::process::getcwd(Vec::new()).ok()?;
            [cwd.as_bytes(), b"/", relative.strip_prefix(b"./").unwrap_or(relative)].concat()
        }
    };
    Some(Found { path: CString::new(path).ok()?, absolute: CString::new(absolute).ok()?, hidden, identity })
}

/// Device and inode behind a path.
pub fn identity_of(path: &[u8]) -> Option<Identity> {
    stat(OsStr::from_bytes(path)).ok().map(|s| (s.st_dev, s.st_ino))
}

fn executable(path: &[u8]) -> Result<Identity, Missing> {
    let path = OsStr::from_bytes(path);
    let stat = stat(path).map_err(|_| Missing::NotFound)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_file || access(path, Access::EXEC_OK).is_err() {
        return Err(Missing::NotExecutable);
    }
    Ok((stat.st_dev, stat.st_ino))
}

/// The names in a path, however many slashes are between them.
fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    fn program(path: &Path) {
        std::fs::create_dir_all(path.parent().expect("has a folder")).expect("folder");
        std::fs::write(path, "#!/bin/sh\n").expect("file");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("mode");
    }

    fn own(masquerade_dir: &str) -> Own {
        Own { executable: None, masquerade_dir: Some(masquerade_dir.into()) }
    }

    fn bytes(path: &Path) -> Vec<u8> {
        path.as_os_str().as_bytes().to_vec()
    }

    #[test]
    fn the_masquerade_directory_leaves_path_under_every_spelling() {
        let own = own("/home/u/.cache/potluck/bin");
        let strip = |path: &str| String::from_utf8(own.strip(path.as_bytes())).expect("text");
        assert_eq!(strip("/home/u/.cache/potluck/bin:/usr/bin"), "/usr/bin");
        assert_eq!(strip("/a:/home/u/.cache//potluck/./bin/:/usr/bin:"), "/a:/usr/bin:");
        assert_eq!(strip("/home/v/.cache/potluck/bin:/usr/bin"), "/home/v/.cache/potluck/bin:/usr/bin");
        assert_eq!(strip("home/u/.cache/potluck/bin:/usr/bin"), "home/u/.cache/potluck/bin:/usr/bin");
        assert_eq!(strip("/usr/lib/potluck/bin:/usr/bin"), "/usr/bin");
        assert_eq!(strip("/home/u/.cache/potluck/bin:/usr//lib/potluck/bin/:/usr/bin"), "/usr/bin");
        assert_eq!(strip("/usr/local/lib/potluck/bin:/usr/bin"), "/usr/local/lib/potluck/bin:/usr/bin");
        // An empty PATH means the working directory: never make one.
        assert_eq!(strip("/home/u/.cache/potluck/bin"), "/bin:/usr/bin");
    }

    #[test]
    fn a_linked_home_does_not_hide_the_masquerade_directory() {
        let root = tempfile::tempdir().expect("scratch");
        let real = root.path().join("var/potluck/bin");
        std::fs::create_dir_all(&real).expect("folder");
        symlink(root.path().join("var"), root.path().join("home")).expect("link");
        let own = own(real.to_str().expect("text"));
        let path = [bytes(&root.path().join("home/potluck/bin")), b":/usr/bin".to_vec()].concat();
        assert_eq!(own.strip(&path), b"/usr/bin");
    }

    #[test]
    fn a_script_that_calls_potluck_is_passed_over_the_second_time() {
        let root = tempfile::tempdir().expect("scratch");
        let (first, second) = (root.path().join("a/gcc"), root.path().join("b/gcc"));
        program(&first);
        program(&second);
        let path = [bytes(&root.path().join("a")), b":".to_vec(), bytes(&root.path().join("b"))].concat();
        let own = own("/nowhere");
        let found = in_path(b"gcc", Some(&path), &own, &Guard::default()).expect("found");
        assert_eq!(found.path.as_bytes(), bytes(&first));
        assert!(!found.hidden);
        let guard = Guard::read(Some(Guard::default().with(found.identity).as_bytes()));
        let found = in_path(b"gcc", Some(&path), &own, &guard).expect("found");
        assert_eq!(found.path.as_bytes(), bytes(&second));
        assert!(found.hidden, "gcc must not look itself up and find the script");
    }

    #[test]
    fn links_to_another_installation_are_potluck_too() {
        let root = tempfile::tempdir().expect("scratch");
        program(&root.path().join("other/potluck"));
        symlink(root.path().join("other/potluck"), root.path().join("gcc")).expect("link");
        let own = own("/nowhere");
        let missing = in_path(b"gcc", Some(&bytes(root.path())), &own, &Guard::default()).err();
        assert_eq!(missing, Some(Missing::OnlyPotluck));
        assert_eq!(by_path(&bytes(&root.path().join("gcc")), &own).err(), Some(Missing::OnlyPotluck));
    }

    #[test]
    fn folders_and_plain_files_are_no_compilers() {
        let root = tempfile::tempdir().expect("scratch");
        std::fs::create_dir(root.path().join("gcc")).expect("folder");
        std::fs::write(root.path().join("cc"), "").expect("file");
        let find = |name: &[u8]| in_path(name, Some(&bytes(root.path())), &own("/nowhere"), &Guard::default()).err();
        assert_eq!(find(b"gcc"), Some(Missing::NotExecutable));
        assert_eq!(find(b"c++"), Some(Missing::NotFound));
    }

    #[test]
    fn a_guard_that_is_garbage_is_no_guard() {
        assert!(Guard::read(Some(b"1,x:y,:,zz")).seen.is_empty());
        assert_eq!(Guard::read(Some(b"1f:2,3:4")).seen, [(0x1f, 2), (3, 4)]);
        let long = vec!["1:1"; 50].join(",");
        assert!(Guard::read(Some(long.as_bytes())).is_loop());
    }
}
