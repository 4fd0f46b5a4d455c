//! Starts the compiler inside a prepared job: gives everything up, in an order in which each step is still allowed,
//! then executes. After the filter only execve follows.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, getrlimit, set_dumpable_behavior, setpgid, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::job::Common;
use crate::root::map_single_user;
use crate::{count, sys};
use potluck_runner::protocol::{Job, Limits};

/// Queued signals of a job: the kernel counts them as the owner's. Plain signals have their place without; those that
/// carry information, or are sent more than once, are for nothing that compilers do.
const SIGNALS_PENDING_MAX: u64 = 64;

/// A started program and the pipes from it.
pub struct Program {
    /// Its process id in the job: always 2.
    pub pid: Pid,
    /// Standard output, not blocking.
    pub stdout: OwnedFd,
    /// Standard error, not blocking.
    pub stderr: OwnedFd,
    /// Closed without a byte when the program was executed, else one sentence.
    pub failure: OwnedFd,
    /// By which the listener of `count` comes.
    pub counted: OwnedFd,
}

/// Forks and executes. The program, but not its init, is in the job's control group: when that has too much memory, all of
/// it is killed, and somebody must be left to say so.
pub fn start(job: &Job, common: &Common, proc: &OwnedFd, group: Option<&OwnedFd>) -> Result<Program, String> {
    let command = Command::of(job)?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| format!("making a pipe: {}", io::Error::from(e)));
    let (stdout, stdout_in) = pipe()?;
    let (stderr, stderr_in) = pipe()?;
    let (failure, failure_in) = pipe()?;
    let (counted, counted_in) = count::channel().map_err(|e| format!("making a channel for the program: {e}"))?;
    match sys::fork(0).map_err(|e| format!("starting the program: {e}"))? {
        sys::Fork::Child => {
            let joined = group.map_or(Ok(()), |group| step("joining its control group", join(group)));
            let why = match joined {
                Ok(()) => execute(job, common, &command, proc, [&stdout_in, &stderr_in, &counted_in]),
                Err(why) => why,
            };
            // The init reads it; if even that fails, it sees the exit code.
            let _ = std::fs::File::from(failure_in).write_all(why.as_bytes());
            sys::exit_now(127)
        }
        sys::Fork::Parent(pid) => {
            for fd in [&stdout, &stderr] {
                rustix::io::ioctl_fionbio(fd, true)
                    .map_err(|e| format!("reading from the program: {}", io::Error::from(e)))?;
            }
            Ok(Program { pid, stdout, stderr, failure, counted })
        }
    }
}

/// argv and environment as execve wants them.
struct Command {
    program: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    fn of(job: &Job) -> Result<Self, String> {
        let text = |bytes: &Vec<u8>| CString::new(bytes.clone()).map_err(|_| "an argument has a zero byte".to_owned());
        let texts = |all: &[Vec<u8>]| all.iter().map(text).collect::<Result<Vec<_>, _>>();
        Ok(Self { program: text(&job.program)?, argv: texts(&job.argv)?, env: texts(&job.env)? })
    }

    /// Returns only if it fails.
    fn execute(&self) -> io::Error {
        let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
            texts.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (argv, env) = (pointers(&self.argv), pointers(&self.env));
        // SAFETY: both arrays end with a null pointer and point to C strings that `self` owns.
        unsafe { libc::execve(self.program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Never returns when all goes well; else one sentence.
fn execute(job: &Job, common: &Common, command: &Command, proc: &OwnedFd, streams: [&OwnedFd; 3]) -> String {
    match give_up_everything(job, common, proc, streams) {
        Err(why) => why,
        Ok(()) => format!("{} could not be executed: {}", command.program.to_string_lossy(), command.execute()),
    }
}

/// The kernel takes 0 for whoever writes it.
fn join(group: &OwnedFd) -> rustix::io::Result<()> {
    rustix::io::write(group, b"0").map(drop)
}

fn step<T, E: Into<io::Error>>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|e| format!("{what}: {}", e.into()))
}

/// `streams` are standard output, standard error and the channel to the init's counter.
fn give_up_everything(job: &Job, common: &Common, proc: &OwnedFd, streams: [&OwnedFd; 3]) -> Result<(), String> {
    sys::reset_signals();
    // Signals to its process group stay in the job. Not a session: see `sys::be_least_session`.
    step("making a process group", setpgid(None, None))?;
    let null = step("opening /dev/null", open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))?;
    step("standard input", sys::install(&null, 0))?;
    step("standard output", sys::install(streams[0], 1))?;
    step("standard error", sys::install(streams[1], 2))?;
    // Its own files in /proc can be written again; there is no other process in the job yet that could abuse it.
    step("own files in /proc", set_dumpable_behavior(DumpableBehavior::Dumpable))?;
    let own = step("opening its own /proc", sys::own_proc(proc))?;
    step("first to go when memory is short", sys::write_at(&own, c"oom_score_adj", "1000"))?;
    // First, because it takes the capabilities that the next step gives up: see `root::empty_namespace`.
    let root = step("opening its root", open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()))?;
    step("leaving its mounts", sys::enter_mounts(&common.nowhere))?;
    // A user namespace of its own: capabilities in it mean nothing to the mounts, and RLIMIT_NPROC counts per user
    // namespace (Linux 5.14), so that the limit is this job's alone, neither the desktop's nor another job's.
    step("own user namespace", sys::unshare(libc::CLONE_NEWUSER))?;
    let ids = (common.uid, common.gid);
    step("own user map", map_single_user(&own, ids, ids))?;
    step("entering its root", rustix::process::fchdir(&root).and_then(|()| rustix::process::chroot(".")))?;
    // By now it is in the group that the node has put the sandbox into: seen from here, the topmost one. A kernel
    // without such namespaces shows the group's name, which is none of the owner's.
    let _ = sys::unshare(libc::CLONE_NEWCGROUP);
    set_limits(&job.limits);
    step("lowest priority", sys::be_idle())?;
    rustix::process::umask(Mode::from_raw_mode(job.umask & 0o777));
    step(
        &format!("working directory {}", String::from_utf8_lossy(&job.cwd)),
        rustix::process::chdir(job.cwd.as_slice()),
    )?;
    confine(job)?;
    drop_capabilities()?;
    sys::close_all_on_exec();
    count::begin(&common.count, streams[2])?;
    common.filters.apply()
}

/// Sets what the node asked for, never more than this user may have.
fn set_limits(limits: &Limits) {
    let set = |resource, soft: u64, hard: u64| {
        let allowed = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let value = |v: u64| Some(v.min(allowed)).filter(|v| *v != u64::MAX);
        // Lowering a limit cannot fail, and no value above the hard limit is asked for.
        let _ = setrlimit(resource, Rlimit { current: value(soft), maximum: value(hard) });
    };
    let some = |limit: u64| if limit == 0 { u64::MAX } else { limit };
    let both = |resource, limit: u64| set(resource, some(limit), some(limit));
    // One second between SIGXCPU and SIGKILL for programs that handle the first.
    set(Resource::Cpu, some(limits.cpu_s), some(limits.cpu_s).saturating_add(1));
    both(Resource::As, limits.address_bytes);
    both(Resource::Data, limits.address_bytes);
    both(Resource::Fsize, limits.file_bytes);
    both(Resource::Nofile, limits.open_files);
    both(Resource::Nproc, limits.processes);
    // gcc raises its own soft limit to 64 MiB as it does at the submitter: the hard limit stays.
    if limits.stack_bytes != 0 {
        set(Resource::Stack, limits.stack_bytes, u64::MAX);
    }
    // Nothing of a job is kept, dumped, locked or run at a higher priority.
    for resource in [Resource::Core, Resource::Msgqueue, Resource::Nice, Resource::Rtprio, Resource::Memlock] {
        set(resource, 0, 0);
    }
    set(Resource::Sigpending, SIGNALS_PENDING_MAX, SIGNALS_PENDING_MAX);
}

/// The second wall around files: writing is for the output directories, /tmp and the devices. Reading is not
/// restricted, because Landlock answers EACCES where the mount tree answers the errno that the compiler expects.
fn confine(job: &Job) -> Result<(), String> {
    let abi = ABI::V6;
    let writes = AccessFs::from_write(abi);
    let sentence = |e: landlock::RulesetError| format!("confining writes: {e}");
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(writes)
        .and_then(|r| r.handle_access(AccessNet::from_all(abi)))
        .and_then(|r| r.scope(Scope::from_all(abi)))
        .and_then(|r| r.create())
        .map_err(sentence)?;
    let outputs = job.outputs.iter().map(|o| o.path.as_slice());
    let mut ruleset = ruleset;
    for path in outputs.chain([b"/tmp".as_slice(), b"/dev"]) {
        use std::os::unix::ffi::OsStrExt;
        let fd = PathFd::new(std::ffi::OsStr::from_bytes(path)).map_err(|e| format!("confining writes: {e}"))?;
        ruleset = ruleset.add_rule(PathBeneath::new(fd, writes)).map_err(sentence)?;
    }
    // Not enforced on kernels without Landlock: the mounts are the first wall, and hold alone.
    ruleset.restrict_self().map(drop).map_err(sentence)
}

fn drop_capabilities() -> Result<(), String> {
    for capability in CapabilitySet::all().iter() {
        // Capabilities that this kernel does not know are refused with EINVAL.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySet::empty();
    step("ambient capabilities", rustix::thread::clear_ambient_capability_set())?;
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    step("capabilities", rustix::thread::set_capabilities(None, sets))
}
