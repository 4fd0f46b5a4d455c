//! The init of one job: process 1 of its pid namespace. Makes the job's mounts, starts the program, watches over it,
//! kills what is left and reports. It holds capabilities over the sandbox' user namespace; the program holds none.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use rustix::fs::{CWD, Dev, FileType, Mode, OFlags, ResolveFlags, mkdirat, mknodat, open, openat2, symlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_remount, move_mount,
    open_tree, unmount,
};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::filter::Filters;
use crate::root::{GENERATIONS, HOST_PROC, TRAP_ROOT, UPPERS};
use crate::{harvest, program, supervise, sys};
use potluck_runner::protocol::{End, Job, LimitKind, OutputDir, Report, TRAP_DIR, Trap, write_frame};

/// What every job of a sandbox has in common.
pub struct Common {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Which trap the sandbox has.
    pub trap: Trap,
    /// The system call filter.
    pub filters: Filters,
    /// The program that asks a job's init before what the kernel counts per user.
    pub count: seccompiler::BpfProgram,
    /// How many pipes a job may make.
    pub pipes_max: u64,
    /// The mount namespace that programs are in.
    pub nowhere: OwnedFd,
}

/// From init to sandbox and back, one byte each on a packet socket.
pub mod word {
    /// To init: stop all processes. Back: they are stopped.
    pub const STOP: u8 = b'S';
    /// To init: let them go on.
    pub const RESUME: u8 = b'C';
    /// From init: the report is being written, nobody else may write one.
    pub const REPORTING: u8 = b'R';
}

/// The layers of one output directory, kept for the harvest after they are out of the job's sight.
pub struct Layers {
    /// What the job wrote.
    pub upper: OwnedFd,
    /// The generations below, topmost first.
    pub lower: Vec<OwnedFd>,
}

/// A job whose tree stands.
pub struct Prepared {
    /// One per `Job::outputs`.
    pub layers: Vec<Layers>,
    /// The job's own /proc, which can be written here.
    pub proc: OwnedFd,
    /// The file system that holds all that the job writes.
    pub scratch: OwnedFd,
}

/// Runs a job from its first mount to its report. Called in the new process; never returns.
pub fn main(
    job: &Job,
    common: &Common,
    report: OwnedFd,
    group: Option<OwnedFd>,
    channel: OwnedFd,
    asked: Instant,
) -> ! {
    let run = || {
        // The sandbox' other descriptors belong to other jobs.
        let group_fd = group.as_ref().map(AsRawFd::as_raw_fd);
        let kept = [report.as_raw_fd(), channel.as_raw_fd(), common.nowhere.as_raw_fd()];
        let kept: Vec<_> = kept.into_iter().chain(group_fd).collect();
        sys::close_all_except(&kept);
        if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
            return;
        }
        let (header, layers, contents) = run(job, common, group.as_ref(), &channel, asked);
        // Nobody listens any more: the sandbox' end has gone, and with it the reason to report.
        if rustix::io::write(&channel, &[word::REPORTING]).is_ok() {
            let _ = harvest::send(&report, &header, &layers, &contents);
        }
    };
    // A panic must not unwind into the sandbox' stack, of which this process has a copy.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    sys::exit_now(if outcome.is_ok() { 0 } else { 70 })
}

/// Everything but the sending: the encoded report, and what is needed to send contents after it.
fn run(
    job: &Job,
    common: &Common,
    group: Option<&OwnedFd>,
    channel: &OwnedFd,
    asked: Instant,
) -> (Vec<u8>, Vec<Layers>, Vec<harvest::Content>) {
    let mut report = Report {
        end: End::Killed,
        stdout: Vec::new(),
        stderr: Vec::new(),
        wall_us: 0,
        user_us: 0,
        system_us: 0,
        overhead_us: 0,
        max_rss_bytes: 0,
        outputs: Vec::new(),
    };
    let mut contents = Vec::new();
    let mut layers = Vec::new();
    let ended = prepare(job, common).and_then(|prepared| {
        let program = program::start(job, common, &prepared.proc, group)?;
        let seen = supervise::watch(program, common.pipes_max, &job.limits, &prepared, channel, asked);
        Ok((prepared, seen))
    });
    match ended {
        Err(why) => report.end = End::NotStarted(why),
        Ok((prepared, seen)) => {
            (report.end, report.stdout, report.stderr) = (seen.end, seen.stdout, seen.stderr);
            report.wall_us = asked.elapsed().as_micros() as u64;
            layers = prepared.layers;
            if matches!(report.end, End::Exited(_) | End::Signaled(_)) && !job.discard_outputs {
                match harvest::collect(&layers, &job.outputs, &job.limits) {
                    Ok(harvest) => (report.outputs, contents) = (harvest.outputs, harvest.contents),
                    Err(limit) => report.end = End::Limit(limit),
                }
            }
        }
    }
    let (own, program) = (sys::usage(false), sys::usage(true));
    (report.user_us, report.system_us, report.max_rss_bytes) =
        (program.user_us, program.system_us, program.max_rss_bytes);
    report.overhead_us = own.user_us + own.system_us;
    let mut header = Vec::new();
    if write_frame(&mut header, &report).is_err() {
        // Only names can be that long: thousands of paths of 4 KiB.
        (report.outputs, contents) = (Vec::new(), Vec::new());
        report.end = End::Limit(LimitKind::OutputFiles);
        write_frame(&mut header, &report).expect("standard output and error alone are within the limits");
    }
    (header, layers, contents)
}

/// One sentence about a step that failed.
fn step<T, E: Into<io::Error>>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|e| format!("{what}: {}", e.into()))
}

fn show(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);
const HERE: MoveMountFlags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
const THERE: MoveMountFlags = HERE.union(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH);

fn prepare(job: &Job, common: &Common) -> Result<Prepared, String> {
    let limits = &job.limits;
    // Before anything is mounted over it, the plain root gives its subdirectories.
    let mut binds = Vec::with_capacity(job.outputs.len());
    for output in &job.outputs {
        check_output(output)?;
        binds.push(open_binds(output)?);
    }
    // One tmpfs for /tmp and all upper layers: its size is the limit on all that the job writes.
    let size = if limits.output_bytes == 0 { 1 << 30 } else { limits.output_bytes };
    // An inode costs the kernel about a kilobyte that `size` does not count.
    let inodes = if limits.output_files == 0 { 16384 } else { limits.output_files.saturating_mul(2) + 1024 };
    let options = std::ffi::CString::new(format!("mode=755,size={size},nr_inodes={inodes}")).expect("no zero byte");
    let inert = MountFlags::NOSUID | MountFlags::NODEV;
    step("mounting the job's file system", mount("potluck", UPPERS, "tmpfs", inert, options.as_c_str()))?;
    let scratch = step("opening the job's file system", open_dir(UPPERS))?;
    step("making /tmp", mkdirat(&scratch, c"tmp", Mode::from_raw_mode(0o1777)))?;
    step("mounting /tmp", open_tree(&scratch, c"tmp", CLONE).and_then(|t| move_mount(&t, c"", CWD, c"/tmp", HERE)))?;

    let proc = mount_proc()?;

    let mut layers = Vec::with_capacity(job.outputs.len());
    for (index, (output, binds)) in job.outputs.iter().zip(binds).enumerate() {
        layers.push(mount_output(&scratch, index, output, binds)?);
    }
    if common.trap == Trap::Fuse {
        let own = format!("{TRAP_ROOT}/j{}", job.id);
        step("binding the trap", open_tree(CWD, &own, CLONE).and_then(|t| move_mount(&t, c"", CWD, TRAP_DIR, HERE)))?;
        step("hiding the trap", unmount(TRAP_ROOT, UnmountFlags::DETACH))?;
    }
    for path in [UPPERS, GENERATIONS, HOST_PROC] {
        step(path, unmount(path, UnmountFlags::DETACH))?;
    }
    Ok(Prepared { layers, proc, scratch })
}

/// Only the processes of the job, only what belongs to them: `subset=pid` leaves out everything about the machine, and
/// what is not one's own is invisible. The job may only read it: a process may raise its session there
/// (`sys::be_least_session`), and where there is no Landlock nothing else forbids it. What is returned can be written.
fn mount_proc() -> Result<OwnedFd, String> {
    let inert = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    step("mounting /proc", mount("proc", "/proc", "proc", inert, c"hidepid=2,subset=pid"))?;
    let writable = step("opening /proc", open_tree(CWD, c"/proc", CLONE))?;
    let read_only = inert | MountFlags::BIND | MountFlags::RDONLY;
    step("protecting /proc", mount_remount("/proc", read_only, c""))?;
    Ok(writable)
}

fn open_dir(path: &str) -> rustix::io::Result<OwnedFd> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a directory without following any link: the links in the tree are the submitter's.
fn open_plain(path: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)
}

/// Refuses paths that would cover what the sandbox itself stands on, and names that are none.
fn check_output(output: &OutputDir) -> Result<(), String> {
    let path = &output.path;
    let mut parts = path.split(|b| *b == b'/');
    let absolute = parts.next() == Some(b"") && parts.clone().all(is_name);
    let reserved: [&[u8]; 5] = [b"proc", b"dev", b"tmp", b".potluck", b"sys"];
    if !absolute || parts.next().is_none_or(|first| reserved.contains(&first)) {
        return Err(format!("{} cannot be written by a job", show(path)));
    }
    let generation = &output.generation;
    let tame = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    if !generation.split(|b| *b == b':').all(|name| is_name(name) && name.iter().all(tame)) {
        return Err(format!("{} is no name of a generation", show(generation)));
    }
    let names = output.whiteouts.iter().chain(output.poisons.iter().map(|(name, _)| name)).chain(&output.binds);
    match names.into_iter().find(|name| !is_name(name)) {
        Some(bad) => Err(format!("{} is no file name", show(bad))),
        None => Ok(()),
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name != b"."
        && name != b".."
        && name.len() <= 255
        && !name.contains(&b'/')
        && !name.contains(&0)
}

fn open_binds(output: &OutputDir) -> Result<Vec<OwnedFd>, String> {
    if output.binds.is_empty() {
        return Ok(Vec::new());
    }
    let what = || format!("opening {}", show(&output.path));
    let dir = step(&what(), open_plain(OsStr::from_bytes(&output.path)))?;
    let bind = |name: &Vec<u8>| {
        let name = OsStr::from_bytes(name);
        open_tree(&dir, name, CLONE | OpenTreeFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|e| format!("binding {} below {}: {}", name.display(), show(&output.path), io::Error::from(e)))
    };
    output.binds.iter().map(bind).collect()
}

/// Mounts the overlay of one output directory, with what the node wants in its upper layer already there.
fn mount_output(scratch: &OwnedFd, index: usize, output: &OutputDir, binds: Vec<OwnedFd>) -> Result<Layers, String> {
    let what = |part: &str| format!("{part} of {}", show(&output.path));
    let private = Mode::from_raw_mode(0o700);
    let (upper_name, work_name) = (format!("u{index}"), format!("w{index}"));
    let mode = Mode::from_raw_mode(output.mode & 0o777);
    let upper = step(&what("upper layer"), {
        mkdirat(scratch, &upper_name, mode).and_then(|()| mkdirat(scratch, &work_name, private)).and_then(|()| {
            openat2(scratch, &upper_name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        })
    })?;
    let lower_paths: Vec<String> =
        output.generation.split(|b| *b == b':').map(|name| format!("{GENERATIONS}/{}", show(name))).collect();
    let mut lower = Vec::with_capacity(lower_paths.len());
    for path in &lower_paths {
        lower.push(step(&what("generation"), open_plain(OsStr::new(path)))?);
    }
    let lower_path = lower_paths.join(":");
    for name in &output.whiteouts {
        // Overlayfs reads a 0:0 character device as "this name does not exist".
        let made = mknodat(&upper, OsStr::from_bytes(name), FileType::CharacterDevice, Mode::empty(), Dev::default());
        step(&what("whiteout"), made)?;
    }
    for (name, id) in &output.poisons {
        step(&what("poison"), symlinkat(format!("{TRAP_DIR}/{id}"), &upper, OsStr::from_bytes(name)))?;
    }
    let overlay = step(&what("overlay"), {
        fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|fs| {
            fsconfig_set_string(&fs, "lowerdir", &lower_path)?;
            fsconfig_set_string(&fs, "upperdir", format!("{UPPERS}/{upper_name}"))?;
            fsconfig_set_string(&fs, "workdir", format!("{UPPERS}/{work_name}"))?;
            fsconfig_set_flag(&fs, "userxattr")?;
            fsconfig_create(&fs)?;
            let inert = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, inert)
        })
    })?;
    let place = step(&what("place"), open_plain(OsStr::from_bytes(&output.path)))?;
    step(&what("overlay"), move_mount(&overlay, c"", &place, c"", THERE))?;
    for (name, bind) in output.binds.iter().zip(binds) {
        step(&what("subdirectory"), move_mount(&bind, c"", &overlay, OsStr::from_bytes(name), HERE))?;
    }
    Ok(Layers { upper, lower })
}
