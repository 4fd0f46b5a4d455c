//! The system call filter of a job: what `calls` lists reaches the kernel, nothing else does. It is the second wall; the
//! first is that the job has no capabilities, an empty network and nothing to see.
//!
//! Foreign architectures are killed (by seccompiler). The x32 numbers of x86-64 are in no list, so they answer ENOSYS.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::calls;

/// Namespace flags of clone. CLONE_NEWTIME is no flag of clone. clone3 has its flags behind a pointer, which a filter
/// cannot follow: it is in no list, and the C library then uses clone.
const CLONE_NEW: &[libc::c_int] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Requests of ioctl: questions about a stream, and two flags of descriptors. Nothing that sets a terminal or a file.
const IOCTLS: &[u64] = &[
    libc::TCGETS,
    // glibc's isatty from 2.42 on.
    libc::TCGETS2,
    libc::TIOCGWINSZ,
    libc::TIOCGPGRP,
    libc::FIONREAD,
    libc::FIONBIO,
    libc::FIOCLEX,
    libc::FIONCLEX,
];

/// Commands of fcntl. No leases, no notification, no signals to an owner, no larger pipes: these are counted per user.
const FCNTLS: &[u64] = &[
    libc::F_DUPFD as u64,
    libc::F_DUPFD_CLOEXEC as u64,
    libc::F_GETFD as u64,
    libc::F_SETFD as u64,
    libc::F_GETFL as u64,
    libc::F_SETFL as u64,
    libc::F_GETPIPE_SZ as u64,
    // Locks; those that take one are counted, see `count`.
    libc::F_GETLK as u64,
    libc::F_SETLK as u64,
    libc::F_SETLKW as u64,
    libc::F_OFD_GETLK as u64,
    libc::F_OFD_SETLK as u64,
    libc::F_OFD_SETLKW as u64,
];

/// Advice for madvise: what memory allocators and thread stacks give. No merging of equal pages, no poisoned ones.
const ADVICE: &[u64] = &[
    libc::MADV_NORMAL as u64,
    libc::MADV_RANDOM as u64,
    libc::MADV_SEQUENTIAL as u64,
    libc::MADV_WILLNEED as u64,
    libc::MADV_DONTNEED as u64,
    libc::MADV_FREE as u64,
    libc::MADV_DONTFORK as u64,
    libc::MADV_DOFORK as u64,
    libc::MADV_HUGEPAGE as u64,
    libc::MADV_NOHUGEPAGE as u64,
    libc::MADV_DONTDUMP as u64,
    libc::MADV_DODUMP as u64,
    // MADV_GUARD_INSTALL and MADV_GUARD_REMOVE of asm-generic/mman-common.h: glibc's thread stacks from 2.42 on.
    102,
    103,
];

/// Options of prctl.
const PRCTLS: &[u64] = &[libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64];

/// The usual one, ADDR_NO_RANDOMIZE, which gcc sets to use precompiled headers, and the query. Others weaken memory
/// protection.
const PERSONALITIES: &[u64] = &[0, 0x0004_0000, 0xffff_ffff];

/// What refused calls answer. Tests use numbers that no kernel answers, so that they see who did.
#[derive(Clone, Copy)]
pub struct Answers {
    /// Of `calls::refused`, and of arguments that are not allowed.
    pub refused: i32,
    /// Of everything in no list.
    pub unknown: i32,
}

/// Numbers that are swept by tests: the kernel's end below 500 so far.
pub const SWEPT: std::ops::Range<c_long> = 0..1024;

/// What a job is answered that makes this call; None if it reaches the kernel.
pub fn answer(number: c_long, answers: Answers) -> Option<i32> {
    if calls::allowed().any(|call| call.number == number) {
        return None;
    }
    let refused = calls::refused().any(|call| call.number == number);
    Some(if refused { answers.refused } else { answers.unknown })
}

/// What jobs are answered.
pub const ANSWERS: Answers = Answers { refused: libc::EPERM, unknown: libc::ENOSYS };

/// The compiled filters, to be applied in order.
pub struct Filters(Vec<BpfProgram>);

impl Filters {
    /// Compiles the table for this machine; the error is a sentence.
    pub fn new(answers: Answers) -> Result<Self, String> {
        let whole = |call: &calls::Call| (call.number, vec![]);
        let known = calls::allowed().chain(calls::refused()).map(whole).collect();
        let mut refused: BTreeMap<c_long, Rules> = calls::refused().map(whole).collect();
        refused.extend(by_argument().map_err(sentence)?);
        let errno = |number: i32| SeccompAction::Errno(number as u32);
        // In this order: the second one knows no call that applies another.
        Ok(Self(vec![
            compile(refused, errno(answers.refused), SeccompAction::Allow)?,
            compile(known, SeccompAction::Allow, errno(answers.unknown))?,
        ]))
    }

    /// Applies them to this process for ever. Needs no-new-privileges.
    pub fn apply(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|program| crate::sys::seccomp(program)).map_err(sentence)
    }
}

type Rules = Vec<SeccompRule>;
type Built<T> = Result<T, seccompiler::BackendError>;

/// One comparison with the low half of an argument: the kernel reads no more of these.
fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Built<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
}

/// Matches when the argument is one of `values`.
pub fn any_of(argument: u8, values: &[u64]) -> Built<Rules> {
    values.iter().map(|value| SeccompRule::new(vec![condition(argument, SeccompCmpOp::Eq, *value)?])).collect()
}

/// Matches when the argument is none of `values`.
fn none_of(argument: u8, values: &[u64]) -> Built<Rules> {
    let all = values.iter().map(|value| condition(argument, SeccompCmpOp::Ne, *value)).collect::<Built<_>>()?;
    Ok(vec![SeccompRule::new(all)?])
}

/// Matches when the argument has any of `flags`, each a single bit.
fn with_any(argument: u8, flags: &[libc::c_int]) -> Built<Rules> {
    let bit = |flag: &libc::c_int| {
        let flag = u64::from(*flag as u32);
        SeccompRule::new(vec![condition(argument, SeccompCmpOp::MaskedEq(flag), flag)?])
    };
    flags.iter().map(bit).collect()
}

/// Calls that are allowed, with the arguments that are not.
fn by_argument() -> Built<Vec<(c_long, Rules)>> {
    Ok(vec![
        (libc::SYS_clone, with_any(0, CLONE_NEW)?),
        (libc::SYS_ioctl, none_of(1, IOCTLS)?),
        (libc::SYS_fcntl, none_of(1, FCNTLS)?),
        (libc::SYS_madvise, none_of(2, ADVICE)?),
        // Huge pages are set aside for the whole machine.
        (libc::SYS_mmap, with_any(3, &[libc::MAP_HUGETLB])?),
        (libc::SYS_prctl, none_of(0, PRCTLS)?),
        (libc::SYS_personality, none_of(0, PERSONALITIES)?),
        // Another process' limits.
        (libc::SYS_prlimit64, none_of(0, &[0])?),
    ])
}

/// A program that does `matched` with these calls, for any arguments where there are no rules, and `other` with others.
pub fn compile(
    rules: BTreeMap<c_long, Rules>,
    matched: SeccompAction,
    other: SeccompAction,
) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(sentence)?;
    SeccompFilter::new(rules, other, matched, arch).and_then(TryInto::try_into).map_err(sentence)
}

/// One sentence about a filter that could not be made.
pub fn sentence(error: impl std::fmt::Display) -> String {
    format!("the system call filter could not be made: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    /// Errors that no kernel gives: who sees one knows that the filter answered.
    const MARKED: Answers = Answers { refused: 4001, unknown: 4002 };
    /// `__X32_SYSCALL_BIT`.
    const X32_BIT: c_long = 0x4000_0000;

    /// A call, and what must come of it: Some error of the filter, or None for any answer of the kernel.
    type Case = ([c_long; 7], Option<i32>);

    /// What a call with these numbers and arguments gives: 0 or an error number.
    fn errno(case: [c_long; 7]) -> i32 {
        let [number, a, b, c, d, e, f] = case;
        // SAFETY: called in a child process that ends afterwards, with null pointers and invalid descriptors: what
        // reaches the kernel in spite of the filter can only fail or change that process.
        let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
        if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
    }

    /// Makes all calls under the filter, in a child that is nobody in particular; returns those with another outcome.
    fn wrong(cases: &[Case]) -> Vec<[c_long; 7]> {
        let filters = Filters::new(MARKED).unwrap();
        let (mut ours, theirs) = std::io::pipe().unwrap();
        match sys::fork(0).unwrap() {
            // Other threads of the test may have held the allocator's lock: nothing here allocates.
            sys::Fork::Child => {
                // SAFETY: plain calls on this process; whoever is no root stays who it is.
                unsafe {
                    libc::setresgid(65534, 65534, 65534);
                    libc::setresuid(65534, 65534, 65534);
                    libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                }
                let applied = filters.0.iter().all(|program| sys::seccomp(program).is_ok());
                let fd = theirs.as_raw_fd();
                for (at, (case, wanted)) in cases.iter().enumerate() {
                    let got = errno(*case);
                    let marked = [MARKED.refused, MARKED.unknown].contains(&got).then_some(got);
                    if !applied || marked != *wanted {
                        let at = (at as u64).to_ne_bytes();
                        // SAFETY: writes eight bytes of this frame.
                        unsafe { libc::write(fd, at.as_ptr().cast(), at.len()) };
                    }
                }
                sys::exit_now(42)
            }
            sys::Fork::Parent(pid) => {
                drop(theirs);
                let mut bytes = Vec::new();
                ours.read_to_end(&mut bytes).unwrap();
                let ended =
                    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap().unwrap();
                assert_eq!(ended.1.exit_status(), Some(42), "the child did not make all calls");
                bytes.chunks(8).map(|at| cases[u64::from_ne_bytes(at.try_into().unwrap()) as usize].0).collect()
            }
        }
    }

    fn call(number: c_long, args: &[c_long]) -> [c_long; 7] {
        let mut case = [number, 0, 0, 0, 0, 0, 0];
        case[1..=args.len()].copy_from_slice(args);
        case
    }

    #[test]
    fn nothing_but_the_table_reaches_the_kernel() {
        let filtered = || SWEPT.filter(|number| !calls::UNFILTERED.contains(number));
        let mut cases: Vec<Case> =
            filtered().filter_map(|number| Some((call(number, &[]), Some(answer(number, MARKED)?)))).collect();
        let swept = SWEPT.count();
        let reached = swept - cases.len();
        assert_eq!(reached, calls::allowed().count() + calls::UNFILTERED.len());
        cases.extend(SWEPT.map(|number| (call(X32_BIT + number, &[]), Some(MARKED.unknown))));
        // No number at all, as a program that was stopped by a tracer has.
        cases.push((call(-1, &[]), Some(MARKED.unknown)));
        assert_eq!(wrong(&cases), Vec::<[c_long; 7]>::new());
        println!("of {swept} numbers {reached} reach the kernel");
    }

    #[test]
    fn arguments_that_no_compiler_needs_are_refused() {
        const NO_FILE: c_long = -1;
        let refused = Some(MARKED.refused);
        let listed = |list: &[u64], value: c_long| if list.contains(&(value as u64)) { None } else { refused };
        let mut cases: Vec<Case> = Vec::new();
        cases.extend((0..2048).map(|command| (call(libc::SYS_fcntl, &[NO_FILE, command]), listed(FCNTLS, command))));
        cases.extend((0..0x1_0000).map(|what| (call(libc::SYS_ioctl, &[NO_FILE, what]), listed(IOCTLS, what))));
        cases.extend((0..256).map(|advice| (call(libc::SYS_madvise, &[0, 0, advice]), listed(ADVICE, advice))));
        // The two that pass write a name through a pointer.
        let options = (0..1024).filter(|option| !PRCTLS.contains(&(*option as u64)));
        cases.extend(options.map(|option| (call(libc::SYS_prctl, &[option]), refused)));
        for flag in CLONE_NEW {
            cases.push((call(libc::SYS_clone, &[c_long::from(*flag) | c_long::from(libc::SIGCHLD)]), refused));
        }
        let private = c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        cases.push((call(libc::SYS_mmap, &[0, 0, 0, private, NO_FILE]), None));
        cases.push((
            call(libc::SYS_mmap, &[0, 1 << 21, 3, private | c_long::from(libc::MAP_HUGETLB), NO_FILE]),
            refused,
        ));
        // The size of a huge page is in the bits above.
        let huge = c_long::from(libc::MAP_HUGETLB | libc::MAP_HUGE_2MB);
        cases.push((call(libc::SYS_mmap, &[0, 1 << 21, 3, private | huge, NO_FILE]), refused));
        cases.push((call(libc::SYS_personality, &[0xffff_ffff]), None));
        cases.push((call(libc::SYS_personality, &[0x0040_0000]), refused));
        cases.push((call(libc::SYS_prlimit64, &[0, 0, 0, 0]), None));
        cases.push((call(libc::SYS_prlimit64, &[1, 0, 0, 0]), refused));
        // The kernel reads the low half only, and so must the filter.
        cases.push((call(libc::SYS_ioctl, &[NO_FILE, (1 << 32) | libc::TIOCSTI as c_long]), refused));
        cases.push((call(libc::SYS_fcntl, &[NO_FILE, (1 << 32) | c_long::from(libc::F_SETPIPE_SZ)]), refused));
        cases.push((call(libc::SYS_fcntl, &[NO_FILE, (1 << 32) | c_long::from(libc::F_GETFD)]), None));
        assert_eq!(wrong(&cases), Vec::<[c_long; 7]>::new());
    }

    #[test]
    fn what_is_answered_is_all_that_differs_from_the_filters_of_jobs() {
        let (marked, real) = (Filters::new(MARKED).unwrap(), Filters::new(ANSWERS).unwrap());
        let action = |errno: i32| libc::SECCOMP_RET_ERRNO | errno as u32;
        for (marked, real) in marked.0.iter().zip(&real.0) {
            assert_eq!(marked.len(), real.len());
            for (marked, real) in marked.iter().zip(real) {
                let same = |k| match k {
                    k if k == action(MARKED.refused) => action(ANSWERS.refused),
                    k if k == action(MARKED.unknown) => action(ANSWERS.unknown),
                    k => k,
                };
                assert_eq!((marked.code, marked.jt, marked.jf, same(marked.k)), (real.code, real.jt, real.jf, real.k));
            }
        }
    }
}
