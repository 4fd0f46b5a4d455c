//! The system calls that rustix does not wrap, each behind a safe function, and small helpers around descriptors.
//! No policy here.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::Pid;

/// Which side of a `fork` this is.
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the child's id.
    Parent(Pid),
}

/// Turns the last `errno` into an error when `result` is negative.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `fork` with namespace flags. The caller must be single-threaded: the child goes on with all of Rust's runtime.
pub fn fork(namespaces: libc::c_int) -> io::Result<Fork> {
    let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
    // SAFETY: no CLONE_VM and no new stack, so this is a fork; the process has one thread (the runner starts none), so
    // no lock can be held by a thread that does not exist in the child. The last three arguments are ignored.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok(match Pid::from_raw(pid as i32) {
        Some(pid) => Fork::Parent(pid),
        None => Fork::Child,
    })
}

/// Leaves the current namespaces for new ones.
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: only namespaces are unshared (no CLONE_FILES, CLONE_VM), which changes no memory.
    check(libc::c_long::from(unsafe { libc::unshare(flags) })).map(drop)
}

/// Adds `attributes` (`MOUNT_ATTR_*`) to one mount; never removes any, so that locked flags stay.
pub fn mount_add_attributes(mount: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is an empty C string, `attr` outlives the call and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Closes every descriptor from 3 on that is not in `keep`.
pub fn close_all_except(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter(|fd| **fd >= 3).map(|fd| *fd as u32).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep {
        if fd > from {
            close_range(from, fd - 1, 0);
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX, 0);
}

/// Marks every descriptor from 3 on as closed by exec.
pub fn close_all_on_exec() {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) {
    // SAFETY: called where no owner of these descriptors will use or close them again (right after fork or start).
    // Fails only for a bad range.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
}

/// Blocks `signals` and returns a descriptor that becomes readable when one arrives.
pub fn signal_fd(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain data that sigemptyset initialises; all pointers are to locals.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        check(libc::c_long::from(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())))?;
        let fd = check(libc::c_long::from(libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// A call that a seccomp program asks its listener about.
pub struct Question {
    /// What the answer goes to.
    pub id: u64,
    /// Of the call.
    pub number: libc::c_long,
}

/// Applies a seccomp program to this process for ever. Needs no-new-privileges, which the library's own function sets
/// before each program: the first one would refuse it.
pub fn seccomp(program: &[seccompiler::sock_filter]) -> io::Result<()> {
    apply_seccomp(program, 0).map(drop)
}

/// The same, and returns the program's listener.
pub fn seccomp_listener(program: &[seccompiler::sock_filter]) -> io::Result<OwnedFd> {
    let fd = apply_seccomp(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn apply_seccomp(program: &[seccompiler::sock_filter], flags: libc::c_ulong) -> io::Result<libc::c_long> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        // The kernel's declaration is not const; it only reads.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the program outlives the call, its length is passed, and its instructions have the kernel's layout.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) })
}

/// The next question; only called when one is there, because it would wait.
pub fn seccomp_question(listener: &OwnedFd) -> io::Result<Question> {
    // SAFETY: the kernel wants the structure zeroed, and fills it; it is plain data.
    unsafe {
        let mut raw: libc::seccomp_notif = std::mem::zeroed();
        check(libc::c_long::from(libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut raw)))?;
        Ok(Question { id: raw.id, number: libc::c_long::from(raw.data.nr) })
    }
}

/// Lets the call go on, or fail with an error number. Whoever asked may be dead: then there is nobody to answer.
pub fn seccomp_answer(listener: &OwnedFd, id: u64, error: Option<i32>) {
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error: -error.unwrap_or(0), flags: 0 };
    if error.is_none() {
        answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    }
    // SAFETY: the structure outlives the call, which only reads it.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
}

/// The mount namespace that a process is in now, given its own directory in /proc.
pub fn mount_namespace(own: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(openat(own, c"ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Enters a mount namespace; this process' root and working directory become that namespace's root.
pub fn enter_mounts(namespace: &OwnedFd) -> io::Result<()> {
    // SAFETY: setns changes no memory.
    check(libc::c_long::from(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) })).map(drop)
}

/// The signal state that a freshly logged-in shell gives a program: nothing blocked, nothing ignored.
pub fn reset_signals() {
    // SAFETY: sets default dispositions and an empty mask; there is no other thread.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        for signal in 1..libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Runs only when nobody else wants the CPU: SCHED_IDLE, nice 19, idle disk class.
pub fn be_idle() -> io::Result<()> {
    /// `IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT`
    const IOPRIO_IDLE: libc::c_long = 3 << 13;
    /// `IOPRIO_WHO_PROCESS`
    const WHO_PROCESS: libc::c_long = 1;
    // SAFETY: plain calls on the calling process; `param` outlives the call.
    unsafe {
        check(libc::c_long::from(libc::setpriority(libc::PRIO_PROCESS, 0, 19)))?;
        let param: libc::sched_param = std::mem::zeroed();
        check(libc::c_long::from(libc::sched_setscheduler(0, libc::SCHED_IDLE, &param)))?;
        check(libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IOPRIO_IDLE)).map(drop)
    }
}

/// A session of its own, at the lowest weight. Linux with autogroup, as Debian and Ubuntu build it, divides the CPU
/// evenly among sessions and asks about scheduling classes only within one (sched(7), "The autogroup feature"): without
/// this, jobs in a session of their own take as much as the owner's programs, SCHED_IDLE or not.
pub fn be_least_session(own: &OwnedFd) -> io::Result<()> {
    /// The kernel takes one such wish in 100 ms from all users together, and answers EAGAIN to others.
    const TRIES_MAX: u32 = 200;
    const TRY_AGAIN: std::time::Duration = std::time::Duration::from_millis(30);
    rustix::process::setsid()?;
    for _ in 0..TRIES_MAX {
        match write_at(own, c"autogroup", "19") {
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => std::thread::sleep(TRY_AGAIN),
            // A kernel without it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => return done,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// Sends a signal to every process that this one may signal, itself and the init of the pid namespace excepted.
/// False if there is none.
pub fn signal_everyone(signal: libc::c_int) -> bool {
    // SAFETY: kill has no memory effects. Only ever called by the init of a job, whose pid namespace is the job.
    unsafe { libc::kill(-1, signal) == 0 }
}

/// CPU time and largest resident size.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// User CPU in microseconds.
    pub user_us: u64,
    /// System CPU in microseconds.
    pub system_us: u64,
    /// Largest resident size of one process in bytes.
    pub max_rss_bytes: u64,
}

/// What this process (`false`) or all its reaped descendants (`true`) used.
pub fn usage(children: bool) -> Usage {
    // SAFETY: rusage is plain data; getrusage fills it and fails only for a bad `who`.
    let raw = unsafe {
        let mut raw: libc::rusage = std::mem::zeroed();
        libc::getrusage(if children { libc::RUSAGE_CHILDREN } else { libc::RUSAGE_SELF }, &mut raw);
        raw
    };
    let us = |t: libc::timeval| (t.tv_sec as u64) * 1_000_000 + t.tv_usec as u64;
    Usage { user_us: us(raw.ru_utime), system_us: us(raw.ru_stime), max_rss_bytes: (raw.ru_maxrss as u64) << 10 }
}

/// Ends the process without running destructors or exit handlers: for children of `fork`.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns, touches nothing.
    unsafe { libc::_exit(code) }
}

/// The calling process' own directory in a /proc.
pub fn own_proc(proc: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(openat(proc, c"self", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Writes a small file in one write, as /proc wants it.
pub fn write_at(dir: &OwnedFd, name: &CStr, text: &str) -> io::Result<()> {
    File::from(openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?).write_all(text.as_bytes())
}

/// Takes over a descriptor that this program was started with.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD on a number is harmless; if the descriptor is not open, this fails and nothing is taken.
    check(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }))?;
    // SAFETY: it is open and, by the runner's contract with its starter, used by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `fd` the descriptor `number`.
pub fn install(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: 0, 1 and 2 are owned by nobody in this program.
    let done = unsafe { if raw == number { libc::fcntl(raw, libc::F_SETFD, 0) } else { libc::dup2(raw, number) } };
    check(libc::c_long::from(done)).map(drop)
}
