//! Reads what a dead job left in its upper layers. Nothing is followed, only regular files with one name are taken, and
//! every entry is judged against what the node planted there and what the generation below holds.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, fstat, openat2, readlinkat, sendfile, statat,
};

use crate::job::Layers;
use potluck_runner::protocol::{HarvestKind, Harvested, LimitKind, Limits, OutputDir, TRAP_DIR};

/// As `PATH_DEPTH_MAX` of the model: every level holds two descriptors while it is read.
const DEPTH_MAX: usize = 64;
/// Path limit of Linux.
const PATH_BYTES_MAX: usize = 4096;
/// Permission bits that travel: no setuid, setgid or sticky.
const MODE_MASK: u32 = 0o777;

/// A file whose content follows the report.
pub struct Content {
    dir: usize,
    path: Vec<u8>,
    size: u64,
}

/// All changes of a job.
pub struct Harvest {
    /// Sorted by directory and path.
    pub outputs: Vec<Harvested>,
    /// One per `File` in `outputs`, in the same order.
    pub contents: Vec<Content>,
}

/// Reads all upper layers.
pub fn collect(layers: &[Layers], outputs: &[OutputDir], limits: &Limits) -> Result<Harvest, LimitKind> {
    let mut found = Vec::new();
    let mut size_sum = 0u64;
    for (index, (layers, planted)) in layers.iter().zip(outputs).enumerate() {
        let mut walk = Walk { dir: index as u32, found: &mut found, size_sum: &mut size_sum, limits };
        walk.top(layers, planted)?;
    }
    found.sort_by(|a, b| (a.dir, &a.path).cmp(&(b.dir, &b.path)));
    let content = |h: &Harvested| match h.kind {
        HarvestKind::File { size, .. } => Some(Content { dir: h.dir as usize, path: h.path.clone(), size }),
        _ => None,
    };
    let contents = found.iter().filter_map(content).collect();
    Ok(Harvest { outputs: found, contents })
}

/// Writes the report's head and the contents to the node.
pub fn send(report: &OwnedFd, header: &[u8], layers: &[Layers], contents: &[Content]) -> io::Result<()> {
    // The node's end may be non-blocking; this end waits for the node.
    rustix::io::ioctl_fionbio(report, false)?;
    let mut rest = header;
    while !rest.is_empty() {
        let n = rustix::io::write(report, rest)?;
        rest = &rest[n..];
    }
    for content in contents {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let upper = &layers[content.dir].upper;
        let file = openat2(upper, OsStr::from_bytes(&content.path), flags, Mode::empty(), CONFINED)?;
        let stat = fstat(&file)?;
        // Nothing of the job lives, so nothing can have changed; if it did, a cut stream is better than a wrong file.
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size as u64 != content.size {
            return Err(io::Error::other("an output changed after the job was dead"));
        }
        let mut left = content.size;
        while left > 0 {
            match sendfile(report, &file, None, left.min(1 << 30) as usize)? {
                0 => return Err(io::Error::other("an output became shorter after the job was dead")),
                n => left -= n as u64,
            }
        }
    }
    Ok(())
}

/// Stays below the directory and passes through no link.
const CONFINED: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

struct Walk<'a> {
    dir: u32,
    found: &'a mut Vec<Harvested>,
    size_sum: &'a mut u64,
    limits: &'a Limits,
}

impl Walk<'_> {
    fn top(&mut self, layers: &Layers, planted: &OutputDir) -> Result<(), LimitKind> {
        let whiteouts: HashSet<&[u8]> = planted.whiteouts.iter().map(Vec::as_slice).collect();
        let mut poisons: HashMap<&[u8], u64> = planted.poisons.iter().map(|(n, id)| (n.as_slice(), *id)).collect();
        let upper = layers.upper.as_fd();
        for name in names(upper) {
            let Some(id) = poisons.remove(name.to_bytes()) else {
                let whited_out = whiteouts.contains(name.to_bytes());
                // The topmost layer that has the name is what the job saw.
                let has = |l: &&OwnedFd| statat(l, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
                let lower = layers.lower.iter().find(has).map(|l| l.as_fd());
                self.entry(upper, lower, &name, b"", 1, whited_out)?;
                continue;
            };
            if link_target(upper, &name).as_deref() != Some(format!("{TRAP_DIR}/{id}").as_bytes()) {
                self.push(name.to_bytes().to_vec(), HarvestKind::PoisonWritten(id))?;
            }
        }
        // Planted and not there any more, not even as a whiteout.
        for (name, id) in poisons {
            self.push(name.to_vec(), HarvestKind::PoisonWritten(id))?;
        }
        Ok(())
    }

    /// Judges one name. `whited_out`: the node hid what the generation has under it.
    fn entry(
        &mut self,
        upper: BorrowedFd<'_>,
        lower: Option<BorrowedFd<'_>>,
        name: &CStr,
        prefix: &[u8],
        depth: usize,
        whited_out: bool,
    ) -> Result<(), LimitKind> {
        let path = join(prefix, name.to_bytes());
        let below = lower.and_then(|l| link_target(l, name));
        let over_poison = !whited_out && below.as_deref().is_some_and(is_poison);
        let Ok(stat) = statat(upper, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return self.push(path, HarvestKind::Refused("could not be read".into()));
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if stat.st_rdev == 0 && whited_out => return Ok(()),
            // A poison that was copied up unchanged, for example because its times were set.
            FileType::Symlink if below.is_some() && link_target(upper, name) == below => return Ok(()),
            _ if over_poison => HarvestKind::LowerWritten,
            FileType::CharacterDevice if stat.st_rdev == 0 => HarvestKind::Deleted,
            FileType::RegularFile => return self.file(path, &stat),
            FileType::Directory if path.len() >= PATH_BYTES_MAX - 256 || depth >= DEPTH_MAX => refused("too deep"),
            FileType::Directory => return self.directory(upper, lower, name, path, depth, &stat),
            FileType::Symlink => refused("a symbolic link"),
            FileType::Fifo => refused("a FIFO"),
            FileType::Socket => refused("a socket"),
            _ => refused("a device"),
        };
        self.push(path, kind)
    }

    fn file(&mut self, path: Vec<u8>, stat: &Stat) -> Result<(), LimitKind> {
        if stat.st_nlink != 1 {
            return self.push(path, refused("a file with several names"));
        }
        let size = stat.st_size as u64;
        *self.size_sum = self.size_sum.saturating_add(size);
        // Sparse files are larger than the space they take.
        if self.limits.output_bytes != 0 && *self.size_sum > self.limits.output_bytes {
            return Err(LimitKind::OutputBytes);
        }
        self.push(path, HarvestKind::File { mode: stat.st_mode & MODE_MASK, size })
    }

    fn directory(
        &mut self,
        upper: BorrowedFd<'_>,
        lower: Option<BorrowedFd<'_>>,
        name: &CStr,
        path: Vec<u8>,
        depth: usize,
        stat: &Stat,
    ) -> Result<(), LimitKind> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(inside) = openat2(upper, name, flags, Mode::empty(), CONFINED) else {
            return self.push(path, refused("a directory that could not be opened"));
        };
        let below = lower.and_then(|l| openat2(l, name, flags, Mode::empty(), CONFINED).ok());
        let opaque = below.is_some() && is_opaque(&inside);
        if below.is_none() || opaque {
            self.push(path.clone(), HarvestKind::Dir { mode: stat.st_mode & MODE_MASK })?;
        }
        let seen = names(inside.as_fd());
        let visible = below.as_ref().filter(|_| !opaque).map(|b| b.as_fd());
        for name in &seen {
            self.entry(inside.as_fd(), visible, name, &path, depth + 1, false)?;
        }
        // An opaque directory took the place of one with the same name: what was in that one is gone.
        if let Some(below) = below.filter(|_| opaque) {
            for name in names(below.as_fd()).into_iter().filter(|name| !seen.contains(name)) {
                let poison = link_target(below.as_fd(), &name).as_deref().is_some_and(is_poison);
                let kind = if poison { HarvestKind::LowerWritten } else { HarvestKind::Deleted };
                self.push(join(&path, name.to_bytes()), kind)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, path: Vec<u8>, kind: HarvestKind) -> Result<(), LimitKind> {
        if self.limits.output_files != 0 && self.found.len() as u64 >= self.limits.output_files {
            return Err(LimitKind::OutputFiles);
        }
        self.found.push(Harvested { dir: self.dir, path, kind });
        Ok(())
    }
}

fn refused(why: &str) -> HarvestKind {
    HarvestKind::Refused(why.into())
}

fn join(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    let separator: &[u8] = if prefix.is_empty() { b"" } else { b"/" };
    [prefix, separator, name].concat()
}

/// All names of a directory but `.` and `..`.
fn names(dir: BorrowedFd<'_>) -> Vec<std::ffi::CString> {
    let Ok(dir) = Dir::read_from(dir) else { return Vec::new() };
    let name = |entry: rustix::io::Result<rustix::fs::DirEntry>| Some(entry.ok()?.file_name().to_owned());
    dir.filter_map(name).filter(|name| !matches!(name.to_bytes(), b"." | b"..")).collect()
}

fn link_target(dir: BorrowedFd<'_>, name: &CStr) -> Option<Vec<u8>> {
    readlinkat(dir, name, Vec::new()).ok().map(|target| target.into_bytes())
}

fn is_poison(target: &[u8]) -> bool {
    target.strip_prefix(TRAP_DIR.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Overlayfs marks a directory that hides the one below with this attribute (`userxattr`).
fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0u8; 8];
    fgetxattr(dir, c"user.overlay.opaque", &mut value).is_ok_and(|n| &value[..n] == b"y")
}
