//! The root that paths are read in: the root directory and the mounts that a process sees. A container, a chroot, a
//! toolbox and `unshare -m` have others than this node, and the same path is another file there: another compiler,
//! other headers. Looks at processes; decides nothing about their jobs.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use potluck_wire::ipc;
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxFlags};
use rustix::io::Errno;

/// Whose root a question was asked in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// This node's: every path means here what it means there.
    OwnRoot,
    /// Another one, or one of which that cannot be told.
    OtherRoot,
}

/// A root: what paths are read in. `tree` and `toolchain` are given theirs and open nothing by another way; what they
/// know of one root answers for no other. So far there is one: this node's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Root {
    identity: ipc::Root,
}

impl Root {
    /// This node's own.
    pub fn own() -> Self {
        Self { identity: identity(Path::new("/"), Path::new("/proc/self/ns/mnt")) }
    }

    /// Whether a question was asked in this root. What the asker says of itself must be what the kernel says of the
    /// process at the other end of the connection, and that must be the asker: otherwise somebody passes questions on, out
    /// of a container, or under a tracer that shows its processes another root.
    pub fn asker(&self, said: &ipc::Root, pid: u32, peer: Peer) -> Asker {
        let is_own = self.is_known() && *said == self.identity && self.process(peer) == Asker::OwnRoot;
        if is_own && peer.is(pid) { Asker::OwnRoot } else { Asker::OtherRoot }
    }

    /// Whether this process is in this root, by the kernel's word alone.
    pub fn process(&self, peer: Peer) -> Asker {
        let seen = peer.pid.map(|pid| {
            let of = |what: &str| format!("/proc/{pid}/{what}");
            identity(Path::new(&of("root")), Path::new(&of("ns/mnt")))
        });
        if self.is_known() && seen == Some(self.identity) { Asker::OwnRoot } else { Asker::OtherRoot }
    }

    /// openat(2) of an absolute path in it, without a mode: nothing is made.
    pub fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// lstat(2) in it.
    pub fn lstat(&self, path: &Path) -> rustix::io::Result<Stat> {
        rustix::fs::lstat(path)
    }

    /// readlink(2) in it.
    pub fn read_link(&self, path: &Path) -> std::io::Result<PathBuf> {
        std::fs::read_link(path)
    }

    /// Whether this is a directory that this user may not search.
    pub fn is_closed(&self, path: &Path) -> bool {
        rustix::fs::access(path, Access::EXEC_OK) == Err(Errno::ACCESS)
            && self.lstat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// Without /proc nobody's namespace can be told from another.
    fn is_known(&self) -> bool {
        self.identity.inode != 0 && self.identity.namespace != 0
    }
}

/// Zeroes for what cannot be seen.
fn identity(root: &Path, namespace: &Path) -> ipc::Root {
    let fields = StatxFlags::INO | StatxFlags::MNT_ID;
    let mut of = ipc::Root::default();
    if let Ok(root) = rustix::fs::statx(CWD, root, AtFlags::empty(), fields) {
        of.device = rustix::fs::makedev(root.stx_dev_major, root.stx_dev_minor);
        of.inode = root.stx_ino;
        // Of kernels before 5.8 there is none: a chroot into another mount of the very same directory is not told apart.
        let has_mount = StatxFlags::from_bits_retain(root.stx_mask).contains(StatxFlags::MNT_ID);
        of.mount = if has_mount { root.stx_mnt_id } else { 0 };
    }
    of.namespace = std::fs::metadata(namespace).map_or(0, |namespace| namespace.ino());
    of
}

/// The process at the other end of a Unix socket, as it was when it connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its number in this node's pid namespace; None for a process that cannot be seen from there. It may have ended since
    /// and the number may be another's: then nobody waits for the answer any more.
    pub pid: Option<u32>,
}

impl Peer {
    /// Who is connected.
    pub fn of(socket: impl AsFd) -> Option<Self> {
        let mut cred = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: `cred` is writable memory of `len` bytes, the size that SO_PEERCRED fills. (Not by rustix: a process of
        // another pid namespace has the number 0, which its type excludes.)
        let result =
            unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut cred).cast(), &raw mut len) };
        (result == 0).then(|| Self { uid: cred.uid, pid: u32::try_from(cred.pid).ok().filter(|pid| *pid != 0) })
    }

    /// Whether it calls itself by this number: in a pid namespace of its own that is another one than here.
    fn is(self, pid: u32) -> bool {
        self.pid.is_some_and(|own| own == pid || innermost_pid(own) == Some(pid))
    }
}

/// The last number of the line `NSpid` of proc(5): what the process sees itself.
fn innermost_pid(pid: u32) -> Option<u32> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/status")).ok()?.take(16 << 10).read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn me() -> (Root, ipc::Root, u32, Peer) {
        let own = Root::own();
        let (here, _there) = UnixStream::pair().unwrap();
        (own, own.identity, std::process::id(), Peer::of(&here).unwrap())
    }

    #[test]
    fn a_process_of_this_root_is_known_as_one() {
        let (own, said, pid, peer) = me();
        assert_eq!(peer.pid, Some(pid));
        assert_eq!(own.asker(&said, pid, peer), Asker::OwnRoot);
    }

    #[test]
    fn what_is_said_must_be_what_the_kernel_says() {
        let (own, said, pid, peer) = me();
        let lies = [
            ipc::Root { device: said.device + 1, ..said },
            ipc::Root { inode: said.inode + 1, ..said },
            ipc::Root { mount: said.mount + 1, ..said },
            ipc::Root { namespace: said.namespace + 1, ..said },
            ipc::Root::default(),
        ];
        for lie in lies {
            assert_eq!(own.asker(&lie, pid, peer), Asker::OtherRoot, "{lie:?}");
        }
        assert_eq!(own.asker(&said, pid + 1, peer), Asker::OtherRoot, "somebody passes the question on");
        for pid_seen in [None, Some(u32::MAX)] {
            let unseen = Peer { pid: pid_seen, ..peer };
            assert_eq!(own.asker(&said, pid, unseen), Asker::OtherRoot, "{unseen:?}");
        }
    }

    #[test]
    fn a_node_that_cannot_see_its_own_root_takes_nobody_for_one_of_it() {
        let (_, _, pid, peer) = me();
        let blind = Root { identity: ipc::Root::default() };
        assert_eq!(blind.asker(&ipc::Root::default(), pid, peer), Asker::OtherRoot);
        assert_eq!(blind.process(Peer { pid: Some(u32::MAX), ..peer }), Asker::OtherRoot);
    }
}
