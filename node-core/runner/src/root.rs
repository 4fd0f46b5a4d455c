//! The prepared root: namespaces and the mounts that all jobs of one submitter share. Made once per sandbox.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change, move_mount,
    open_tree, unmount,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getegid, geteuid, getrlimit, set_dumpable_behavior, setrlimit,
};

use crate::{count, sys};
use potluck_runner::protocol::{Setup, Trap};

/// Inside names below `PRIVATE_DIR` that only the sandbox and the init of a job see.
pub const GENERATIONS: &str = "/.potluck/gens";
/// A job's writable tmpfs.
pub const UPPERS: &str = "/.potluck/up";
/// The trap with the directories of all jobs.
pub const TRAP_ROOT: &str = "/.potluck/trapfs";
/// The machine's /proc: without one in sight the kernel refuses a new one. Unmounted before the job runs.
pub const HOST_PROC: &str = "/.potluck/proc";
/// Device nodes of a job. No terminal, no shared memory.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// No way to gain anything from files.
const INERT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// A sandbox that stands.
pub struct Root {
    /// Requests to the trap, if it is a file system.
    pub fuse: Option<OwnedFd>,
    /// Which trap.
    pub trap: Trap,
    /// Why not the better one.
    pub note: String,
    /// A mount namespace with nothing in it, for programs to be in: see `empty_namespace`.
    pub nowhere: OwnedFd,
    /// How many pipes a job may make.
    pub pipes_max: u64,
}

/// Enters the namespaces and changes this process' root for ever. The error is a sentence for the user.
pub fn prepare(setup: &Setup) -> Result<Root, String> {
    if geteuid().is_root() {
        return Err("the sandbox does not run as root: start Potluck as an ordinary user".into());
    }
    if setup.uid == 0 || setup.gid == 0 {
        return Err("the sandbox needs a user and group id other than 0 inside".into());
    }
    // Killed rather early when memory is short, after the jobs themselves (1000).
    step(
        "lowering its own importance",
        own_proc().and_then(|own| {
            sys::write_at(&own, c"oom_score_adj", "900")?;
            sys::be_least_session(&own)
        }),
    )?;
    let pipes_max = pipes_max();
    leave_room();
    enter_namespaces(setup)?;
    step("making the mounts private", mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC))?;

    let nowhere = step("making an empty namespace", empty_namespace())?;

    // Everything from the machine is picked up before its root goes away.
    let path = |bytes: &[u8]| Path::new(std::ffi::OsStr::from_bytes(bytes)).to_owned();
    let root = clone_mount(&path(&setup.root), false)?;
    let generations = clone_mount(&path(&setup.generations), false)?;
    let host_proc = clone_mount(Path::new("/proc"), true)?;
    let devices: Vec<OwnedFd> =
        DEVICES.iter().map(|d| clone_mount(&Path::new("/dev").join(d), false)).collect::<Result<_, _>>()?;
    let read_only = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    for mount in [&root, &generations] {
        step("making a mount read-only", sys::mount_add_attributes(mount.as_fd(), read_only))?;
    }
    let (fuse, mut note) = open_fuse(setup.allow_fuse);

    let host_root = path(&setup.root);
    step("mounting the root", move_mount(&root, c"", CWD, &host_root, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH))?;
    step("entering the root", rustix::process::fchdir(&root))?;
    step("changing the root", rustix::process::pivot_root(".", "."))?;
    step("leaving the machine's root", unmount(".", UnmountFlags::DETACH))?;
    step("entering the root", rustix::process::chdir("/"))?;

    make_dev(&devices)?;
    private_tmpfs("/.potluck", "mode=755,size=64k,nr_inodes=64")?;
    for dir in [GENERATIONS, UPPERS, HOST_PROC, TRAP_ROOT] {
        step(dir, fs::create_dir(dir))?;
    }
    attach(&generations, GENERATIONS)?;
    attach(&host_proc, HOST_PROC)?;
    let fuse = fuse.and_then(|fuse| match mount_trap(&fuse, setup) {
        Ok(()) => Some(fuse),
        Err(why) => {
            note = format!("the trap could not be mounted: {why}");
            None
        }
    });
    let trap_dir = potluck_runner::protocol::TRAP_DIR;
    match fuse {
        Some(_) => step("making the trap", fs::create_dir(trap_dir))?,
        // A path through a link to itself is ELOOP at every depth.
        None => step("making the trap", symlink("trap", trap_dir))?,
    }
    seal("/.potluck")?;
    step("naming the sandbox", rustix::system::sethostname(b"potluck"))?;
    // The domain name of the machine is none of the job's business; failing to hide it harms nobody.
    let _ = rustix::system::setdomainname(b"(none)");
    // From here on nothing in /proc/<pid> of this process can be opened by its equals, nor can it be traced.
    step("hiding itself", set_dumpable_behavior(DumpableBehavior::NotDumpable))?;
    let trap = if fuse.is_some() { Trap::Fuse } else { Trap::Loop };
    Ok(Root { fuse, trap, note, nowhere, pipes_max })
}

/// One sentence about a step that failed.
fn step<T, E: Into<io::Error>>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|e| format!("the sandbox could not be made: {what}: {}", e.into()))
}

fn enter_namespaces(setup: &Setup) -> Result<(), String> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let all = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    // Kernels built without cgroup namespaces exist; a job sees no cgroup tree anyway.
    let entered = sys::unshare(all | libc::CLONE_NEWCGROUP)
        .or_else(|e| if e.raw_os_error() == Some(libc::EINVAL) { sys::unshare(all) } else { Err(e) });
    entered.map_err(|e| why_no_namespace(&e))?;
    let mapped = own_proc().and_then(|own| map_single_user(&own, (uid, gid), (setup.uid, setup.gid)));
    mapped.map_err(|e| why_no_namespace(&e))
}

/// What the kernel lets the owner have in number, and jobs have a part of because they have his user id: they stop at
/// this much of it, whatever he and they have together. Limits of a process that makes a user namespace become the
/// namespace's, and are compared with the whole of what its maker has (Linux 5.14).
fn leave_room() {
    let part = |resource, numerator: u64, denominator: u64| {
        // Without a limit there is nothing to run out of.
        let Some(most) = getrlimit(resource).current else { return };
        let some = Some((most / denominator).saturating_mul(numerator).max(1));
        // Lowering a limit cannot fail.
        let _ = setrlimit(resource, Rlimit { current: some, maximum: some });
    };
    // A fork bomb in jobs leaves a quarter of his processes to the owner.
    part(Resource::Nproc, 3, 4);
    // Half of the signals that can wait, of which a desktop uses some ten.
    part(Resource::Sigpending, 1, 2);
}

/// From the machine's settings, which are out of sight later.
fn pipes_max() -> u64 {
    /// The kernel's own default.
    const SOFT_PAGES: u64 = 16384;
    let soft = fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").ok().and_then(|text| text.trim().parse().ok());
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    count::pipes_max(soft.unwrap_or(SOFT_PAGES), processors)
}

/// A mount namespace whose only mount is an empty directory. A program is in it by name, while its root directory is in
/// the mounts of its job: so it walks and opens as if it were there, but the mounts that /proc shows it are those of its
/// namespace that its root can reach: none. Otherwise they would show from where on the owner's disk they are bound.
fn empty_namespace() -> io::Result<OwnedFd> {
    let own = own_proc()?;
    let here = sys::mount_namespace(&own)?;
    sys::unshare(libc::CLONE_NEWNS)?;
    // Any directory would do: what is mounted over it becomes the root.
    mount(
        "potluck",
        "/proc",
        "tmpfs",
        INERT | MountFlags::NOEXEC | MountFlags::RDONLY,
        c"mode=555,size=4k,nr_inodes=2",
    )?;
    rustix::process::chdir("/proc")?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    let empty = sys::mount_namespace(&own)?;
    sys::enter_mounts(&here)?;
    Ok(empty)
}

fn own_proc() -> io::Result<OwnedFd> {
    Ok(open("/proc/self", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Maps one user and group, given as (user, group); without `setgroups` the group map needs no privilege.
pub fn map_single_user(own: &OwnedFd, outer: (u32, u32), inner: (u32, u32)) -> io::Result<()> {
    sys::write_at(own, c"setgroups", "deny")?;
    sys::write_at(own, c"uid_map", &format!("{} {} 1", inner.0, outer.0))?;
    sys::write_at(own, c"gid_map", &format!("{} {} 1", inner.1, outer.1))
}

/// Looks for the cause that the user can do something about.
fn why_no_namespace(error: &io::Error) -> String {
    let setting = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
    let why = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EUSERS) if setting("/proc/sys/user/max_user_namespaces") == "0" => {
            "user namespaces are switched off; set user.max_user_namespaces to more than 0"
        }
        Some(libc::ENOSPC | libc::EUSERS) => "there are too many user namespaces; raise user.max_user_namespaces",
        Some(libc::EPERM | libc::EACCES) => {
            if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
                "user namespaces are refused to ordinary users; set kernel.unprivileged_userns_clone to 1"
            } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
                "AppArmor refuses user namespaces to this program; install Potluck's package, which brings a profile for it"
            } else if is_chrooted() {
                "user namespaces cannot be made inside a chroot; start Potluck outside of it"
            } else {
                "user namespaces are refused, as container engines do by default; start Potluck outside of the container"
            }
        }
        Some(libc::EINVAL | libc::ENOSYS) => "this kernel has no user namespaces",
        _ => return format!("the sandbox could not be made: entering the namespaces: {error}"),
    };
    why.to_owned()
}

/// A process whose root directory is no mount point sees no mount at `/`.
fn is_chrooted() -> bool {
    fs::read_to_string("/proc/self/mountinfo")
        .is_ok_and(|text| !text.lines().any(|line| line.split(' ').nth(4) == Some("/")))
}

fn clone_mount(path: &Path, recursive: bool) -> Result<OwnedFd, String> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(CWD, path, flags).map_err(|e| {
        format!("the sandbox could not be made: {} could not be bound: {}", path.display(), io::Error::from(e))
    })
}

fn attach(mount: &OwnedFd, path: &str) -> Result<(), String> {
    step(path, move_mount(mount, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH))
}

fn private_tmpfs(path: &str, options: &str) -> Result<(), String> {
    let options = std::ffi::CString::new(options).expect("options have no zero byte");
    step(path, mount("potluck", path, "tmpfs", INERT | MountFlags::NOEXEC, options.as_c_str()))
}

/// Makes the mount at `path` read-only.
fn seal(path: &str) -> Result<(), String> {
    let fd = step(path, open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))?;
    step(path, sys::mount_add_attributes(fd.as_fd(), libc::MOUNT_ATTR_RDONLY))
}

fn make_dev(devices: &[OwnedFd]) -> Result<(), String> {
    private_tmpfs("/dev", "mode=755,size=64k,nr_inodes=64")?;
    for (name, device) in DEVICES.iter().zip(devices) {
        let path = format!("/dev/{name}");
        step(&path, fs::write(&path, ""))?;
        attach(device, &path)?;
    }
    for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        step(name, symlink(format!("/proc/self/{target}"), format!("/dev/{name}")))?;
    }
    seal("/dev")
}

/// Must come after the user namespace: the kernel wants the device opened by the namespace that mounts it.
fn open_fuse(allowed: bool) -> (Option<OwnedFd>, String) {
    if !allowed {
        return (None, "the trap is switched off".into());
    }
    match open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => (Some(fd), String::new()),
        Err(e) => (None, format!("/dev/fuse could not be opened: {}", io::Error::from(e))),
    }
}

/// Mounting does not wait for an answer from the file system, and nothing here walks into it: this process serves it.
fn mount_trap(fuse: &OwnedFd, setup: &Setup) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let options = format!("fd={},rootmode=40555,user_id={},group_id={}", fuse.as_raw_fd(), setup.uid, setup.gid);
    let options = std::ffi::CString::new(options).expect("options have no zero byte");
    Ok(mount("potluck", TRAP_ROOT, "fuse", INERT | MountFlags::NOEXEC, options.as_c_str())?)
}
