//! The system call filter of a job: everything is allowed except what the table below refuses. It is the second wall;
//! the first is that the job has no capabilities, an empty network and nothing to see.
//!
//! A refusal answers EPERM, as a kernel without the privilege would; ENOSYS where the C library then takes the older
//! call by itself. Foreign architectures are killed (by seccompiler), the x32 numbers of x86-64 answer ENOSYS.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Refused with EPERM whatever the arguments.
#[rustfmt::skip]
const REFUSED: &[c_long] = &[
    // The file tree is part of the sandbox.
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot,
    // The same by the newer interface.
    libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_move_mount,
    libc::SYS_open_tree, libc::SYS_mount_setattr,
    // statmount, listmount, open_tree_attr: mount information beyond /proc, and a clone of mounts.
    457, 458, 467,
    // New namespaces bring capabilities and with them the kernel's less tested half.
    libc::SYS_unshare, libc::SYS_setns,
    // Looking into or steering other processes.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_kcmp,
    libc::SYS_pidfd_getfd, libc::SYS_process_madvise, libc::SYS_process_mrelease,
    // Large kernel interfaces with a history of holes that no compiler needs.
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    // Key rings are not namespaced by user id.
    libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key,
    // Opens files by number, past the mount tree.
    libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at, libc::SYS_fanotify_init,
    // The machine itself.
    libc::SYS_reboot, libc::SYS_kexec_load, libc::SYS_kexec_file_load, libc::SYS_init_module, libc::SYS_finit_module,
    libc::SYS_delete_module, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_quotactl, 443, // quotactl_fd
    libc::SYS_syslog, libc::SYS_vhangup, libc::SYS_sethostname, libc::SYS_setdomainname,
    // The clock of the machine.
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex, libc::SYS_clock_adjtime,
    // No compiler opens a socket. nscd and friends get EPERM and are done without.
    libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen,
    // Buffers of socket pairs are kernel memory that no limit of ours counts.
    libc::SYS_socketpair,
    // System V and POSIX objects outlive the job and count in no limit.
    libc::SYS_shmget, libc::SYS_semget, libc::SYS_msgget, libc::SYS_mq_open,
    // A job stays at the lowest priority, on disk too; a session of its own would have more of the CPU.
    libc::SYS_setsid,
    libc::SYS_sched_setscheduler, libc::SYS_sched_setattr, libc::SYS_sched_setparam, libc::SYS_ioprio_set,
    // Memory of other processes and nodes.
    libc::SYS_move_pages, libc::SYS_migrate_pages,
    // Locked memory cannot be reclaimed when the owner needs it.
    libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_mlockall,
];

/// Refused as not implemented, so that the C library falls back.
#[rustfmt::skip]
const UNKNOWN: &[c_long] = &[
    // Its flags are behind a pointer that a filter cannot follow; glibc then uses clone.
    libc::SYS_clone3,
    // Memory that no process maps counts in no limit of ours; programs then use /tmp, which does.
    libc::SYS_memfd_create, libc::SYS_memfd_secret,
];

/// Refused on x86-64 only: calls that newer architectures never had.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const REFUSED_OLD: &[c_long] = &[
    // Hardware ports and segment tables.
    libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt,
    // Withdrawn calls: nothing current uses them.
    libc::SYS_uselib, libc::SYS_ustat, libc::SYS_sysfs, libc::SYS__sysctl, libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_OLD: &[c_long] = &[];

/// Namespace flags of clone. CLONE_NEWTIME is no flag of clone.
const CLONE_NEW: &[libc::c_int] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];
/// ADDR_NO_RANDOMIZE: gcc sets it to use precompiled headers.
const PERSONALITY_NO_RANDOMIZE: u64 = 0x0004_0000;
/// The query.
const PERSONALITY_QUERY: u64 = 0xffff_ffff;

/// The compiled filters, to be applied in order.
pub struct Filters(Vec<BpfProgram>);

impl Filters {
    /// Compiles the table for this machine; the error is a sentence.
    pub fn new() -> Result<Self, String> {
        let mut refused: BTreeMap<i64, Rules> = REFUSED.iter().chain(REFUSED_OLD).map(|nr| (*nr, vec![])).collect();
        refused.extend(conditional().map_err(sentence)?);
        let unknown = UNKNOWN.iter().map(|nr| (*nr, vec![])).collect();
        Ok(Self(vec![
            #[cfg(target_arch = "x86_64")]
            refuse_x32(),
            compile(refused, libc::EPERM)?,
            compile(unknown, libc::ENOSYS)?,
        ]))
    }

    /// Applies them to this process for ever. Needs no-new-privileges.
    pub fn apply(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|program| seccompiler::apply_filter(program)).map_err(sentence)
    }
}

type Rules = Vec<SeccompRule>;
type Built<T> = Result<T, seccompiler::BackendError>;

/// One comparison with the low half of an argument: the kernel reads no more of these.
fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Built<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
}

fn rule(argument: u8, op: SeccompCmpOp, value: u64) -> Built<SeccompRule> {
    SeccompRule::new(vec![condition(argument, op, value)?])
}

/// Any of the device kinds in a mode. Also the 0:0 whiteout, which needs no privilege.
fn device(argument: u8) -> Built<Rules> {
    let kinds = [libc::S_IFCHR, libc::S_IFBLK].into_iter();
    kinds.map(|kind| rule(argument, SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT)), u64::from(kind))).collect()
}

/// Calls that are refused with EPERM for some arguments.
fn conditional() -> Built<Vec<(c_long, Rules)>> {
    let namespaces = CLONE_NEW.iter().map(|flag| u64::from(*flag as u32));
    let not = |value| condition(0, SeccompCmpOp::Ne, value);
    Ok(vec![
        // New namespaces, as unshare.
        (libc::SYS_clone, namespaces.map(|flag| rule(0, SeccompCmpOp::MaskedEq(flag), flag)).collect::<Built<_>>()?),
        // Typing into the terminal of whoever looks on.
        (libc::SYS_ioctl, vec![rule(1, SeccompCmpOp::Eq, libc::TIOCSTI)?, rule(1, SeccompCmpOp::Eq, TIOCLINUX)?]),
        // Foreign personalities weaken memory protection; the two that gcc uses pass.
        (
            libc::SYS_personality,
            vec![SeccompRule::new(vec![not(0)?, not(PERSONALITY_NO_RANDOMIZE)?, not(PERSONALITY_QUERY)?])?],
        ),
        (libc::SYS_mknodat, device(2)?),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_mknod, device(1)?),
    ])
}

/// `TIOCLINUX` of linux/tty.h: the virtual console's selection and paste.
const TIOCLINUX: u64 = 0x541c;

fn compile(rules: BTreeMap<i64, Rules>, errno: i32) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(sentence)?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)
        .and_then(TryInto::try_into)
        .map_err(sentence)
}

/// x32 calls have the architecture of x86-64 and bit 30 in their number, so they would pass every comparison above.
#[cfg(target_arch = "x86_64")]
fn refuse_x32() -> BpfProgram {
    use seccompiler::sock_filter;
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const X32_BIT: u32 = 0x4000_0000;
    vec![
        // The number is the first word of struct seccomp_data.
        sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_SET, jt: 0, jf: 1, k: X32_BIT },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ]
}

fn sentence(error: impl std::fmt::Display) -> String {
    format!("the system call filter could not be made: {error}")
}

/// Every refused call with the errno it answers, for the sweep of the self-test.
pub fn sweep() -> impl Iterator<Item = (c_long, i32)> {
    let refused = REFUSED.iter().chain(REFUSED_OLD).map(|nr| (*nr, libc::EPERM));
    refused.chain(UNKNOWN.iter().map(|nr| (*nr, libc::ENOSYS)))
}
