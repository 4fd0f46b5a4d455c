//! Disks that become full: a small file system of its own for a folder, and filling one to the last byte.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::person::{Person, is_root};
use crate::{Context, Outcome};

/// A folder that is a file system of its own until this is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Makes the folder a file system of this many bytes that belongs to `person`. None where the harness must not mount.
    pub fn at(dir: &Path, bytes: u64, person: Person) -> Outcome<Option<Self>> {
        if !is_root() {
            return Ok(None);
        }
        let options = format!("mode=755,size={bytes},uid={},gid={}", person.uid, person.gid);
        let options = CString::new(options).expect("no zero byte in mount options");
        rustix::mount::mount("lab", dir, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))
            .context(|| format!("mounting a small disk on {}", dir.display()))?;
        Ok(Some(Self(dir.to_path_buf())))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Writes into `file` until the disk has no byte left.
pub fn fill(file: &Path, person: Person) -> Outcome<()> {
    let mut out = fs::File::create(file).context(|| format!("filling {}", file.display()))?;
    let mut block = vec![0xa5; 1 << 20];
    while !block.is_empty() {
        match out.write_all(&block) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => block.truncate(block.len() / 2),
            Err(e) => return Err(e.into()),
        }
    }
    person.own(file)
}
