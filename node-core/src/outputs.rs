//! Puts a job's outputs where the compiler would have left them, and as it would have left them. Paths are physical: a
//! link among the folders of an output is somebody's way out of the output directory, and nothing is written there.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;

use potluck_model::plan::{Manner, Role};
use potluck_model::reason::Reason;
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A file that a job leaves.
#[derive(Debug)]
pub struct Change {
    /// Absolute.
    pub path: PathBuf,
    /// Permission bits that a new file gets.
    pub mode: u32,
    /// How an existing one is treated.
    pub manner: Manner,
    /// What it is to its command.
    pub role: Role,
    /// Its content.
    pub content: Vec<u8>,
}

/// Folders of outputs, each reached once, through no link: nearly all outputs of a job go to the same one.
#[derive(Default)]
pub struct Folders(Vec<(PathBuf, Rc<OwnedFd>)>);

impl Folders {
    /// The folder of `path` and the name in it.
    fn place<'a>(&mut self, path: &'a Path) -> Result<(Rc<OwnedFd>, &'a OsStr), Errno> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
        if let Some((_, fd)) = self.0.iter().find(|(known, _)| known == dir) {
            return Ok((Rc::clone(fd), name));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let fd = Rc::new(rustix::fs::openat2(rustix::fs::CWD, dir, flags, Mode::empty(), resolve)?);
        self.0.push((dir.to_owned(), Rc::clone(&fd)));
        Ok((fd, name))
    }
}

/// Whether outputs can be put at `path` later exactly as the compiler would: it does not exist, or is an ordinary
/// file with one link that we may change.
pub fn check_target(folders: &mut Folders, path: &Path, manner: Manner) -> Result<(), Reason> {
    if path == Path::new("/dev/null") {
        return Ok(());
    }
    let (dir, name) = match folders.place(path) {
        Ok(place) => place,
        Err(Errno::LOOP) => return Err(Reason::SpecialOutput),
        Err(_) => return Err(Reason::BadCommand),
    };
    match rustix::fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(_) => Err(Reason::BadCommand),
        Ok(stat) if !FileType::from_raw_mode(stat.st_mode).is_file() || stat.st_nlink != 1 => {
            Err(Reason::SpecialOutput)
        }
        Ok(stat) => {
            // A special mode bit or another owner would not survive being replaced.
            let ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o7000 == 0;
            let access = |name| rustix::fs::accessat(&*dir, name, Access::WRITE_OK, AtFlags::empty());
            let writable = manner == Manner::Replace || access(name).is_ok();
            if ours && writable { Ok(()) } else { Err(Reason::SpecialOutput) }
        }
    }
}

/// Whether files can be made in a directory.
pub fn check_dir(path: &Path) -> Result<(), Reason> {
    rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK).map_err(|_| Reason::BadCommand)
}

/// Applies all changes, in order. What takes another file's place in one step is written under no name first: when the
/// disk is full, nothing of what is there has been touched. Everything else is written where the compiler writes it:
/// whoever is killed in the middle leaves what a compiler leaves that is killed there.
pub fn apply_all(folders: &mut Folders, changes: &[Change]) -> std::io::Result<()> {
    let mut staged = Vec::new();
    for change in changes {
        staged.push(if change.manner == Manner::Rename && change.path != Path::new("/dev/null") {
            let (dir, name) = folders.place(&change.path)?;
            Some(Staged::write(dir, name, change.mode, &change.content)?)
        } else {
            None
        });
    }
    for (change, staged) in changes.iter().zip(staged) {
        match staged {
            Some(staged) => staged.name()?,
            None => apply(folders, change)?,
        }
    }
    Ok(())
}

/// Applies one change.
fn apply(folders: &mut Folders, change: &Change) -> std::io::Result<()> {
    let Change { path, mode, manner, content, .. } = change;
    if path == Path::new("/dev/null") {
        return Ok(());
    }
    let (dir, name) = folders.place(path)?;
    match manner {
        Manner::Rename => Staged::write(dir, name, *mode, content)?.name(),
        Manner::Replace => {
            remove(&dir, name)?;
            create(&dir, name, *mode, content)
        }
        Manner::Truncate => {
            let options = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            match rustix::fs::openat(&*dir, name, options, Mode::empty()) {
                Ok(fd) => overwrite(fs::File::from(fd), content),
                Err(Errno::NOENT) => create(&dir, name, *mode, content),
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// Whether a file is there that a compiler made beyond doubt: an object, or gcov's notes. No person keeps such a file
/// under the name of a by-product.
pub fn is_compilers(folders: &mut Folders, path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = folders.place(path).and_then(|(dir, name)| {
        let options = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::openat(&*dir, name, options, Mode::empty())?;
        rustix::io::read(&file, &mut magic)
    });
    // gcov writes "gcno" as a number in its machine's order.
    read == Ok(4) && (magic == *b"\x7fELF" || magic == *b"oncg" || magic == *b"gcno")
}

/// Whether something has this name.
pub fn exists(folders: &mut Folders, path: &Path) -> bool {
    let found = folders.place(path).and_then(|(dir, name)| rustix::fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW));
    found.is_ok()
}

fn remove(dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// A new file under a name that is free. The caller's umask is in the mode already, and the node has none (`node::run`).
fn create(dir: &OwnedFd, name: &OsStr, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = fs::File::from(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode & 0o777))?);
    let written = file.write_all(content);
    if written.is_err() {
        // As a compiler that cannot end its output.
        let _ = remove(dir, name);
    }
    written
}

/// As a compiler truncates: mode, owner and inode stay. Looked at once more, because a name can change its meaning after
/// it was checked.
fn overwrite(mut file: fs::File, content: &[u8]) -> std::io::Result<()> {
    let meta = file.metadata()?;
    if !meta.is_file() || meta.nlink() != 1 {
        return Err(std::io::Error::other("it is no ordinary file any more"));
    }
    if content.is_empty() {
        return file.set_len(0);
    }
    // Not emptied first: that gives the blocks back only to ask for others, twenty times the cost (ext4, measured).
    file.write_all(content)?;
    if meta.len() > content.len() as u64 { file.set_len(content.len() as u64) } else { Ok(()) }
}

/// A whole new file that has not got its name yet; without it, it vanishes.
struct Staged {
    dir: Rc<OwnedFd>,
    name: OsString,
    kind: StagedKind,
}

enum StagedKind {
    /// It has no name at all.
    Nameless(fs::File),
    /// It has one beside its own, where the file system knows no nameless files.
    Aside(OsString),
    /// It has its own name.
    Named,
}

static HAS_PROC: OnceLock<bool> = OnceLock::new();

impl Staged {
    fn write(dir: Rc<OwnedFd>, name: &OsStr, mode: u32, content: &[u8]) -> std::io::Result<Self> {
        let name = name.to_owned();
        let mode = Mode::from_raw_mode(mode & 0o777);
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        // Without /proc a nameless file cannot get its name.
        if let Ok(fd) = rustix::fs::openat(&*dir, ".", flags, mode)
            && *HAS_PROC.get_or_init(|| Path::new("/proc/self/fd").exists())
        {
            let mut file = fs::File::from(fd);
            file.write_all(content)?;
            return Ok(Self { dir, name, kind: StagedKind::Nameless(file) });
        }
        let mut aside = b".potluck-".to_vec();
        aside.extend_from_slice(name.as_bytes());
        aside.truncate(200);
        aside.extend_from_slice(format!("-{}", std::process::id()).as_bytes());
        let aside = crate::bytes::os(&aside).to_owned();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = fs::File::from(rustix::fs::openat(&*dir, &aside, flags, mode)?);
        let staged = Self { dir, name, kind: StagedKind::Aside(aside) };
        file.write_all(content)?;
        Ok(staged)
    }

    /// Gives it its name, in place of whatever has it.
    fn name(mut self) -> std::io::Result<()> {
        match &self.kind {
            StagedKind::Nameless(file) => {
                let own = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
                // In a build that is not the first the name is there: one link that fails less.
                loop {
                    remove(&self.dir, &self.name)?;
                    match rustix::fs::linkat(rustix::fs::CWD, &own, &*self.dir, &self.name, AtFlags::SYMLINK_FOLLOW) {
                        Err(Errno::EXIST) => {}
                        other => return Ok(other?),
                    }
                }
            }
            StagedKind::Aside(aside) => rustix::fs::renameat(&*self.dir, aside, &*self.dir, &self.name)?,
            StagedKind::Named => {}
        }
        self.kind = StagedKind::Named;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let StagedKind::Aside(aside) = &self.kind {
            let _ = rustix::fs::unlinkat(&*self.dir, aside, AtFlags::empty());
        }
    }
}

/// Seconds that local time is ahead of UTC at `epoch_s`, by the node's own time zone.
pub fn utc_offset_s(epoch_s: i64) -> i64 {
    let mut out = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; localtime_r fills `out` or returns null.
    let filled = unsafe { libc::localtime_r(&epoch_s, out.as_mut_ptr()) };
    if filled.is_null() {
        return 0;
    }
    // SAFETY: localtime_r returned non-null, so `out` is filled.
    unsafe { out.assume_init() }.tm_gmtoff
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(path: &Path, manner: Manner, content: &[u8]) -> Change {
        Change { path: path.to_owned(), mode: 0o644, manner, role: Role::Main, content: content.to_vec() }
    }

    #[test]
    fn a_dependency_file_keeps_its_mode_and_an_object_is_new() {
        let dir = tempfile::tempdir().unwrap();
        for (name, manner, kept) in [("a.d", Manner::Truncate, true), ("a.o", Manner::Replace, false)] {
            let path = dir.path().join(name);
            fs::write(&path, "old and longer").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            // Held open: a number that is free again would be given to the new one.
            let old = fs::File::open(&path).unwrap();
            let inode = old.metadata().unwrap().ino();
            apply(&mut Folders::default(), &file(&path, manner, b"new")).unwrap();
            let meta = fs::metadata(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!(meta.ino() == inode, kept, "{name}");
            assert_eq!(meta.mode() & 0o777 == 0o600, kept, "{name}");
        }
    }

    #[test]
    fn a_renamed_file_that_does_not_fit_leaves_everything_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a.d"), "old").unwrap();
        fs::write(at("a.o"), "old").unwrap();
        // A folder that is not there stands for a disk that is full: both fail where the object would be written.
        let lost = file(&at("no/a.o"), Manner::Rename, b"new");
        assert!(
            apply_all(
                &mut Folders::default(),
                &[file(&at("a.o"), Manner::Rename, b"new"), file(&at("a.d"), Manner::Truncate, b"new"), lost]
            )
            .is_err()
        );
        assert_eq!((fs::read(at("a.d")).unwrap(), fs::read(at("a.o")).unwrap()), (b"old".to_vec(), b"old".to_vec()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside them");
        apply_all(
            &mut Folders::default(),
            &[file(&at("a.d"), Manner::Truncate, b"new"), file(&at("a.o"), Manner::Rename, b"new")],
        )
        .unwrap();
        assert_eq!((fs::read(at("a.d")).unwrap(), fs::read(at("a.o")).unwrap()), (b"new".to_vec(), b"new".to_vec()));
    }

    #[test]
    fn links_and_devices_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::write(&real, "x").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(check_target(&mut Folders::default(), &link, Manner::Replace), Err(Reason::SpecialOutput));
        fs::hard_link(&real, dir.path().join("hard")).unwrap();
        assert_eq!(check_target(&mut Folders::default(), &real, Manner::Replace), Err(Reason::SpecialOutput));
        assert_eq!(check_target(&mut Folders::default(), Path::new("/dev/null"), Manner::Replace), Ok(()));
        assert_eq!(check_target(&mut Folders::default(), &dir.path().join("new"), Manner::Truncate), Ok(()));
    }
}
