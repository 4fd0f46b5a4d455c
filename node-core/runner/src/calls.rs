//! Which system calls a job may make, each with its reason. Data only: `filter` makes the kernel's program of it.
//!
//! Drawn from traces of gcc 12 and 14, clang 14 and 19, their assemblers, linkers and coverage, LTO, profile, module and
//! precompiled-header modes, of wrappers in shell and Python, and of coreutils; and from what other releases of glibc
//! and musl, and the run-time libraries of Go and Rust, call where those traces show a newer or an older way.

use libc::c_long;

/// One call.
pub struct Call {
    /// Its number on this machine.
    pub number: c_long,
    /// Its name in the C library's `SYS_` form.
    pub name: &'static str,
    /// Why it is in this table.
    pub why: &'static str,
}

macro_rules! calls {
    ($($name:ident $why:literal)*) => { &[$(Call { number: libc::$name, name: stringify!($name), why: $why }),*] };
}

/// `fchmodat2`, the same on every architecture; not every C library's headers have it.
const SYS_FCHMODAT2: c_long = 452;

/// What reaches the kernel, on every architecture. `filter` looks at the arguments of some of them, and `count` counts
/// some.
#[rustfmt::skip]
pub const ALLOWED: &[Call] = calls! {
    // Reading and writing files.
    SYS_openat "every file"
    SYS_close "every file"
    SYS_close_range "Python and newer libraries before they start a program"
    SYS_read "every file"
    SYS_write "every file"
    SYS_readv "musl's stdio"
    SYS_writev "assertions of glibc, musl's stdio"
    SYS_pread64 "the loader, linkers, clang's files"
    SYS_pwrite64 "linkers, clang's object writer"
    SYS_preadv "Go and Rust"
    SYS_pwritev "Go and Rust"
    SYS_lseek "stdio, the object format library"
    SYS_ftruncate "clang's and the linkers' output files"
    SYS_truncate "the same by name"
    SYS_fallocate "the linkers' output files"
    SYS_fadvise64 "cat, sort, dash"
    SYS_dup "the gcc driver, shells"
    SYS_dup3 "musl, Go, shells on newer architectures"
    SYS_fcntl "close-on-exec, access mode, the lock on a coverage file; by command, locks counted"
    SYS_ioctl "whether a stream is a terminal; by request"
    // Names, attributes and directories.
    SYS_newfstatat "every search along include paths"
    SYS_fstat "every file"
    SYS_statx "glibc, Rust and Go where they want the birth time"
    SYS_faccessat "the gcc driver looking for its parts"
    SYS_faccessat2 "the same, from glibc 2.33 and clang"
    SYS_readlinkat "resolving links, glibc from 2.40 on"
    SYS_getcwd "the compilation directory in debug information"
    SYS_chdir "wrappers, -fworking-directory"
    SYS_fchdir "walks over directory trees"
    SYS_getdents64 "clang looking for gcc's installations, shells' patterns"
    SYS_mkdirat "output folders: -save-temps, module caches"
    SYS_unlinkat "temporary files"
    SYS_renameat "output files put in place, on newer architectures"
    SYS_renameat2 "mv, newer C libraries"
    SYS_linkat "clang's lock files in module caches"
    SYS_symlinkat "the same, ln -s"
    SYS_fchmod "objcopy, for split debug information"
    SYS_fchmodat "executable outputs, install, chmod"
    SYS_utimensat "touch, cp -p, ar"
    SYS_umask "linkers, for the mode of an output"
    // Memory.
    SYS_mmap "everything; no huge pages, which are the machine's"
    SYS_munmap "everything"
    SYS_mremap "realloc"
    SYS_mprotect "the loader, thread stacks"
    SYS_madvise "malloc gives memory back; by advice"
    SYS_brk "malloc"
    // Processes and threads.
    SYS_clone "fork, threads; no namespaces"
    SYS_execve "the compiler proper, assembler, linker"
    SYS_exit "threads"
    SYS_exit_group "everything"
    SYS_wait4 "drivers"
    SYS_waitid "Python, Go and Rust"
    SYS_set_tid_address "the C library's start"
    SYS_set_robust_list "the C library's start"
    SYS_rseq "the C library's start"
    SYS_futex "locks"
    SYS_sched_yield "spin locks of memory allocators"
    SYS_sched_getaffinity "how many processors there are"
    SYS_sched_getscheduler "attributes of threads; Python"
    SYS_sched_getparam "attributes of threads"
    SYS_sched_get_priority_max "attributes of threads"
    SYS_sched_get_priority_min "attributes of threads"
    SYS_getpriority "nice"
    SYS_getcpu "memory allocators with an arena for each processor"
    SYS_getpid "names of temporary files, clang's time trace"
    SYS_gettid "clang's time trace, abort"
    SYS_getppid "shells"
    SYS_getpgid "shells"
    SYS_setpgid "timeout, shells"
    SYS_getsid "shells"
    SYS_getuid "shells, the C library's start in older releases"
    SYS_geteuid "the same"
    SYS_getgid "the same"
    SYS_getegid "the same"
    SYS_getresuid "bash"
    SYS_getresgid "bash"
    SYS_getgroups "test -r in shells"
    SYS_prlimit64 "the gcc driver raises its stack, gcc asks how large its heap may be; its own limits only"
    SYS_getrlimit "the same in older libraries"
    SYS_setrlimit "the same in older libraries"
    SYS_prctl "the name of a thread; by option"
    SYS_personality "gcc for precompiled headers; its own kinds only"
    // Signals.
    SYS_rt_sigaction "everything"
    SYS_rt_sigprocmask "everything"
    SYS_rt_sigreturn "every signal handler"
    SYS_rt_sigsuspend "shells, timeout"
    SYS_rt_sigpending "shells, Python"
    SYS_rt_sigtimedwait "Python"
    SYS_sigaltstack "crash handlers, clang's and Go's start"
    SYS_kill "drivers pass on what ended their part; counted"
    SYS_tkill "musl's abort; counted"
    SYS_tgkill "abort; counted"
    SYS_restart_syscall "the kernel itself, for a sleep that was stopped"
    SYS_setitimer "timeout where there are no POSIX timers"
    SYS_getitimer "the same"
    // Pipes and waiting.
    SYS_pipe2 "-pipe, drivers, shells; counted"
    SYS_ppoll "wrappers that read what a compiler says"
    SYS_pselect6 "the same"
    SYS_epoll_create1 "the start of Go programs, and of Python's asyncio"
    SYS_epoll_ctl "the same; counted"
    SYS_epoll_pwait "the same"
    SYS_eventfd2 "Go from 1.21 on"
    SYS_nanosleep "sleep"
    SYS_clock_nanosleep "sleep"
    // What it may know of time and machine.
    SYS_clock_gettime "-ftime-report, names of temporary files"
    SYS_clock_getres "Python"
    SYS_gettimeofday "the same in older libraries"
    SYS_times "-ftime-report"
    SYS_getrusage "-ftime-report, the gcc driver's -time"
    SYS_sysinfo "gcc sizes its garbage collection by the machine's memory"
    SYS_uname "assertions of libraries, Python, module caches"
    SYS_getrandom "names of temporary files, hash seeds, malloc"
};

/// Calls that newer architectures never had: C libraries of x86-64 use them where there are both.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub const ALLOWED_OLD: &[Call] = calls! {
    SYS_open "musl, older libraries, Go"
    SYS_creat "older programs"
    SYS_stat "glibc before 2.33, musl"
    SYS_lstat "glibc before 2.33, musl"
    SYS_access "the loader, the gcc driver looking for its parts"
    SYS_readlink "resolving links"
    SYS_getdents "older static programs"
    SYS_mkdir "module caches"
    SYS_rmdir "rm -r of wrappers"
    SYS_unlink "temporary files"
    SYS_rename "output files put in place"
    SYS_link "clang's lock files in module caches"
    SYS_symlink "the same"
    SYS_chmod "executable outputs"
    SYS_utime "older programs"
    SYS_utimes "older programs"
    SYS_futimesat "older programs"
    SYS_dup2 "the gcc driver, shells"
    SYS_pipe "musl, older libraries; counted"
    SYS_poll "wrappers that read what a compiler says"
    SYS_select "shells"
    SYS_epoll_create "older Go; its watches are counted"
    SYS_epoll_wait "the same"
    SYS_fork "older libraries, musl"
    SYS_vfork "the gcc driver"
    SYS_getpgrp "shells"
    SYS_pause "shells"
    SYS_alarm "timeout where there are no POSIX timers"
    SYS_time "older libraries, Go"
    SYS_arch_prctl "the C library's start: thread-local storage"
};
/// Every architecture since has started without them.
#[cfg(not(target_arch = "x86_64"))]
pub const ALLOWED_OLD: &[Call] = &[];

/// Newer than the headers of some C libraries.
pub const ALLOWED_NEW: &[Call] =
    &[Call { number: SYS_FCHMODAT2, name: "SYS_fchmodat2", why: "chmod, from glibc 2.39 on" }];

/// What answers EPERM, as a kernel does to whoever lacks a privilege or has reached a limit: programs know that answer
/// of these and go on, or say what it is that they may not do.
#[rustfmt::skip]
pub const REFUSED: &[Call] = calls! {
    // The file tree is part of the sandbox.
    SYS_mount "the file tree is fixed"
    SYS_umount2 "the file tree is fixed"
    SYS_pivot_root "the file tree is fixed"
    SYS_chroot "the file tree is fixed"
    SYS_fsopen "the file tree is fixed"
    SYS_fsconfig "the file tree is fixed"
    SYS_fsmount "the file tree is fixed"
    SYS_fspick "the file tree is fixed"
    SYS_move_mount "the file tree is fixed"
    SYS_open_tree "the file tree is fixed"
    SYS_mount_setattr "the file tree is fixed"
    SYS_mknodat "devices; and a FIFO is a pipe that nobody has counted"
    SYS_open_by_handle_at "opens files past the mount tree"
    SYS_name_to_handle_at "opens files past the mount tree"
    SYS_fanotify_init "watches whole file systems, and is counted per user"
    // Who the job is.
    SYS_fchown "files of others: cp and install expect this answer"
    SYS_fchownat "files of others: cp and install expect this answer"
    SYS_setuid "a job stays who it is"
    SYS_setgid "a job stays who it is"
    SYS_setreuid "a job stays who it is"
    SYS_setregid "a job stays who it is"
    SYS_setresuid "a job stays who it is"
    SYS_setresgid "a job stays who it is"
    SYS_setfsuid "a job stays who it is"
    SYS_setfsgid "a job stays who it is"
    SYS_setgroups "a job stays who it is"
    SYS_capset "a job has no capabilities"
    SYS_unshare "namespaces bring capabilities, and the kernel's less tested half"
    SYS_setns "namespaces bring capabilities, and the kernel's less tested half"
    // Other processes.
    SYS_ptrace "steers other processes"
    SYS_process_vm_readv "looks into other processes"
    SYS_process_vm_writev "looks into other processes"
    SYS_kcmp "looks into other processes"
    SYS_pidfd_getfd "looks into other processes"
    SYS_process_madvise "steers other processes"
    SYS_process_mrelease "steers other processes"
    SYS_move_pages "memory of other processes and nodes"
    SYS_migrate_pages "memory of other processes and nodes"
    // Large kernel interfaces with a history of holes.
    SYS_bpf "no compiler needs it"
    SYS_perf_event_open "no compiler needs it"
    SYS_userfaultfd "no compiler needs it"
    SYS_io_uring_setup "no compiler needs it, and it passes by every filter"
    SYS_io_uring_enter "no compiler needs it, and it passes by every filter"
    SYS_io_uring_register "no compiler needs it, and it passes by every filter"
    // Kept by the kernel per user: key rings are not namespaced by user id.
    SYS_keyctl "key rings are the owner's"
    SYS_add_key "key rings are the owner's"
    SYS_request_key "key rings are the owner's"
    // The machine.
    SYS_reboot "the machine is the owner's"
    SYS_kexec_load "the machine is the owner's"
    SYS_init_module "the machine is the owner's"
    SYS_finit_module "the machine is the owner's"
    SYS_delete_module "the machine is the owner's"
    SYS_swapon "the machine is the owner's"
    SYS_swapoff "the machine is the owner's"
    SYS_acct "the machine is the owner's"
    SYS_quotactl "the machine is the owner's"
    SYS_syslog "the machine is the owner's"
    SYS_vhangup "the machine is the owner's"
    SYS_sethostname "the machine is the owner's"
    SYS_setdomainname "the machine is the owner's"
    SYS_settimeofday "the clock is the machine's"
    SYS_clock_settime "the clock is the machine's"
    SYS_adjtimex "the clock is the machine's"
    SYS_clock_adjtime "the clock is the machine's"
    // Sockets: nscd and its like are done without.
    SYS_socket "no compiler opens one"
    SYS_socketpair "its buffers are memory that no limit counts"
    SYS_connect "no compiler opens one"
    SYS_bind "no compiler opens one"
    SYS_listen "no compiler opens one"
    // Objects that outlive the job and count in no limit.
    SYS_shmget "outlives the job"
    SYS_semget "outlives the job"
    SYS_msgget "outlives the job"
    SYS_mq_open "outlives the job"
    // A job stays at the lowest priority, on disk too.
    SYS_setsid "a session of its own has more of the CPU"
    SYS_setpriority "a job stays at the lowest priority"
    SYS_sched_setscheduler "a job stays at the lowest priority"
    SYS_sched_setattr "a job stays at the lowest priority"
    SYS_sched_setparam "a job stays at the lowest priority"
    SYS_ioprio_set "a job stays at the lowest priority"
    // Memory that the kernel cannot take back when the owner needs it.
    SYS_mlock "pinned memory"
    SYS_mlock2 "pinned memory"
    SYS_mlockall "pinned memory"
    SYS_vmsplice "pinned memory, in pipes"
};

/// The same for calls of x86-64 only.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub const REFUSED_OLD: &[Call] = calls! {
    SYS_mknod "devices; and a FIFO is a pipe that nobody has counted"
    SYS_chown "files of others: cp and install expect this answer"
    SYS_lchown "files of others: cp and install expect this answer"
    SYS_kexec_file_load "the machine is the owner's"
    SYS_iopl "hardware ports"
    SYS_ioperm "hardware ports"
};
/// None.
#[cfg(not(target_arch = "x86_64"))]
pub const REFUSED_OLD: &[Call] = &[];

/// Calls that x86-64 never asks a filter about (Linux 6.11 on): the second half of a probe that root has put into a
/// program, uretprobe and uprobe. From anywhere else than a probe they end the program with SIGILL.
#[cfg(target_arch = "x86_64")]
pub const UNFILTERED: &[c_long] = &[335, 336];
/// None.
#[cfg(not(target_arch = "x86_64"))]
pub const UNFILTERED: &[c_long] = &[];

/// Everything that reaches the kernel.
pub fn allowed() -> impl Iterator<Item = &'static Call> {
    ALLOWED.iter().chain(ALLOWED_OLD).chain(ALLOWED_NEW)
}

/// Everything that answers EPERM. What is in neither list answers ENOSYS, also what kernels add later: C libraries and
/// compilers then take the older way.
pub fn refused() -> impl Iterator<Item = &'static Call> {
    REFUSED.iter().chain(REFUSED_OLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_in_one_list_once_and_has_its_reason() {
        let mut numbers: Vec<c_long> = allowed().chain(refused()).map(|call| call.number).collect();
        let all = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), all);
        assert!(allowed().chain(refused()).all(|call| !call.why.is_empty()));
    }
}
