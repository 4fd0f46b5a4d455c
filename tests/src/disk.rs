//! Disks of the Lab's own: small ones that become full, and one as a desktop has it for measuring.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use crate::person::{Person, is_root};
use crate::{Context, Outcome, Trouble, inside};

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

/// Gives this process and what it starts mounts of their own, which end with the last of them. To be called before any
/// thread is started.
pub fn own_mounts() -> Outcome<()> {
    if is_root() {
        inside::unshare(UnshareFlags::NEWNS)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).context(|| "making mounts private".into())?;
    }
    Ok(())
}

/// Room for what is built on a [`DesktopDisk`], besides a copy of what is there. The image is a sparse file.
const DESKTOP_ROOM_BYTES: u64 = 4 << 30;

/// A folder as a copy of itself on an ext4 with a journal, which is what desktops have. Many virtual machines have none:
/// there each new file costs a look at every inode that was freed in the last minutes (`recently_deleted` in Linux's
/// fs/ext4/ialloc.c), which was a quarter of the submitter's CPU after the removals of a Lab.
#[derive(Debug)]
pub struct DesktopDisk {
    dir: PathBuf,
    image: PathBuf,
}

impl DesktopDisk {
    /// Covers the folder until this is dropped. `image` is a file for it, and its folder a place to mount at meanwhile.
    /// To be called after [`own_mounts`]; needs root and a loop device.
    pub fn over(dir: &Path, image: &Path) -> Outcome<Self> {
        let doing = || format!("a disk of its own for {}", dir.display());
        let at = image.with_extension("mount");
        fs::create_dir_all(&at)?;
        let bytes: u64 = crate::tree::sizes(&[dir.to_path_buf()]).values().sum();
        fs::File::create(image)?.set_len(2 * bytes + DESKTOP_ROOM_BYTES)?;
        let disk = Self { dir: dir.to_path_buf(), image: image.to_path_buf() };
        let run = |program: &str, args: &[&Path]| -> Outcome<()> {
            let output = Command::new(program).args(args).output().context(doing)?;
            let said = || Trouble::new(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
            if output.status.success() { Ok(()) } else { Err(said()).context(doing) }
        };
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image])?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), image, &at])?;
        let copied = run("cp", &["-a".as_ref(), &dir.join("."), &at]);
        run("umount", &[&at])?;
        fs::remove_dir(&at)?;
        copied?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), image, dir])?;
        Ok(disk)
    }
}

impl Drop for DesktopDisk {
    fn drop(&mut self) {
        // Not mounted if it could not be made; the mount ends with this process in any case.
        let _ = rustix::mount::unmount(&self.dir, UnmountFlags::DETACH);
        let _ = fs::remove_file(&self.image);
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
