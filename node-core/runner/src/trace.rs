//! Lists every path that a command and its descendants look up, by ptrace: how the node learns which files a compiler
//! needs to run. Runs the user's own compiler as the user; there is no sandbox here.

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use libc::{c_long, pid_t};

use crate::sys;

/// Exit code when the trace itself fails, as `env` and `timeout` do it.
const TRACE_FAILED: u8 = 125;
/// Longest path that the kernel takes.
const PATH_BYTES_MAX: usize = 4096;

/// The subcommand: `OUT -- CMD ARGS...`.
pub fn main(args: &[OsString]) -> ExitCode {
    let [out, dashes, command @ ..] = args else { return usage() };
    if dashes != "--" || command.is_empty() {
        return usage();
    }
    let traced = trace(command).and_then(|(records, code)| {
        File::create(out)?.write_all(&records)?;
        Ok(code)
    });
    match traced {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("potluck-runner: tracing {}: {e}", command[0].display());
            ExitCode::from(TRACE_FAILED)
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: potluck-runner trace OUT -- CMD ARGS...");
    ExitCode::from(2)
}

/// What a call does with its path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Open,
    Write,
    Exec,
    Other,
}

/// A call between its entry and its exit.
struct Pending {
    kind: Use,
    path: Vec<u8>,
}

/// Where a call has its arguments: directory, path and open flags.
struct Shape {
    kind: Use,
    dir: Option<usize>,
    path: usize,
    flags: Flags,
}

/// Where open flags are.
enum Flags {
    None,
    Argument(usize),
    /// The first word of `struct open_how` behind this argument.
    OpenHow(usize),
}

/// Calls with a path. `None` for all others.
fn shape(number: c_long) -> Option<Shape> {
    let at = |kind, flags| Some(Shape { kind, dir: Some(0), path: 1, flags });
    #[cfg(target_arch = "x86_64")]
    {
        let plain = |kind, flags| Some(Shape { kind, dir: None, path: 0, flags });
        // Calls without a directory exist on the older architectures only.
        let old = match number {
            libc::SYS_open => plain(Use::Open, Flags::Argument(1)),
            libc::SYS_creat => plain(Use::Write, Flags::None),
            libc::SYS_stat | libc::SYS_lstat | libc::SYS_access | libc::SYS_readlink => plain(Use::Other, Flags::None),
            _ => None,
        };
        if old.is_some() {
            return old;
        }
    }
    match number {
        libc::SYS_openat => at(Use::Open, Flags::Argument(2)),
        libc::SYS_openat2 => at(Use::Open, Flags::OpenHow(2)),
        libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_faccessat | libc::SYS_faccessat2 | libc::SYS_readlinkat => {
            at(Use::Other, Flags::None)
        }
        libc::SYS_execveat => at(Use::Exec, Flags::None),
        libc::SYS_execve => Some(Shape { kind: Use::Exec, dir: None, path: 0, flags: Flags::None }),
        libc::SYS_chdir => Some(Shape { kind: Use::Other, dir: None, path: 0, flags: Flags::None }),
        _ => None,
    }
}

/// Runs the command to its end: the records and its exit code.
fn trace(command: &[OsString]) -> io::Result<(Vec<u8>, u8)> {
    let argv = command.iter().map(|a| CString::new(a.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let child = match sys::fork(0)? {
        sys::Fork::Child => become_traced(&argv),
        sys::Fork::Parent(pid) => pid.as_raw_nonzero().get(),
    };
    let mut tracer =
        Tracer { pending: HashMap::new(), known: HashSet::from([child]), seen: HashSet::new(), out: vec![] };
    let code = tracer.run(child)?;
    Ok((tracer.out, code))
}

fn become_traced(argv: &[CString]) -> ! {
    sys::reset_signals();
    let mut pointers: Vec<_> = argv.iter().map(|a| a.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: plain calls in a forked child; `pointers` ends with null and points to live C strings.
    unsafe {
        libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
        // The tracer sets its options while this process is stopped.
        libc::kill(libc::getpid(), libc::SIGSTOP);
        libc::execvp(pointers[0], pointers.as_ptr());
    }
    let error = io::Error::last_os_error();
    eprintln!("potluck-runner: {}: {error}", argv[0].to_string_lossy());
    sys::exit_now(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

struct Tracer {
    pending: HashMap<pid_t, Pending>,
    known: HashSet<pid_t>,
    seen: HashSet<Vec<u8>>,
    out: Vec<u8>,
}

impl Tracer {
    fn run(&mut self, child: pid_t) -> io::Result<u8> {
        let mut code = TRACE_FAILED;
        wait_for(child)?;
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_EXITKILL;
        ptrace(libc::PTRACE_SETOPTIONS, child, 0, options as usize)?;
        resume(child, 0);
        loop {
            let (pid, status) = match wait_for(-1) {
                Ok(event) => event,
                Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return Ok(code),
                Err(e) => return Err(e),
            };
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                self.known.remove(&pid);
                self.pending.remove(&pid);
                if pid == child {
                    code = match libc::WIFEXITED(status) {
                        true => libc::WEXITSTATUS(status) as u8,
                        false => 128 + libc::WTERMSIG(status) as u8,
                    };
                }
                continue;
            }
            let signal = self.stopped(pid, status)?;
            resume(pid, signal);
        }
    }

    /// Looks at one stop and says which signal the process gets when it goes on.
    fn stopped(&mut self, pid: pid_t, status: i32) -> io::Result<i32> {
        let signal = libc::WSTOPSIG(status);
        let event = status >> 16;
        if signal == libc::SIGTRAP | 0x80 {
            self.system_call(pid)?;
            return Ok(0);
        }
        if event == libc::PTRACE_EVENT_EXEC {
            // A thread that executes takes over the id of its process.
            let mut former: libc::c_ulong = 0;
            ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, (&raw mut former) as usize)?;
            if let Some(pending) = self.pending.remove(&(former as pid_t)) {
                self.pending.insert(pid, pending);
            }
            return Ok(0);
        }
        // The stop with which a new process or thread begins to be traced is ours, not its own.
        if event != 0 || (self.known.insert(pid) && signal == libc::SIGSTOP) {
            return Ok(0);
        }
        Ok(signal)
    }

    fn system_call(&mut self, pid: pid_t) -> io::Result<()> {
        // SAFETY: plain data that the kernel fills; zero is a valid value.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = size_of_val(&info);
        if ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, (&raw mut info) as usize).is_err() {
            // Killed meanwhile.
            return Ok(());
        }
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            if info.arch != native_arch() {
                return Err(io::Error::other(
                    "it runs a program of another architecture, whose calls are not understood",
                ));
            }
            // SAFETY: `op` says which variant the kernel filled.
            let entry = unsafe { info.u.entry };
            if let Some(pending) = shape(entry.nr as c_long).and_then(|shape| pending(pid, &shape, &entry.args)) {
                self.pending.insert(pid, pending);
            }
        } else if info.op == libc::PTRACE_SYSCALL_INFO_EXIT
            && let Some(pending) = self.pending.remove(&pid)
        {
            // SAFETY: `op` says which variant the kernel filled.
            let exit = unsafe { info.u.exit };
            self.record(pending, if exit.is_error != 0 { Some(-exit.sval as i32) } else { None });
        }
        Ok(())
    }

    fn record(&mut self, pending: Pending, errno: Option<i32>) {
        let kind = match (errno, pending.kind) {
            (Some(libc::ENOENT | libc::ENOTDIR), _) => b'n',
            (Some(_), _) => b'e',
            (None, Use::Open) => b'o',
            (None, Use::Write) => b'w',
            (None, Use::Exec) => b'x',
            (None, Use::Other) => b's',
        };
        let mut record = vec![kind];
        record.extend_from_slice(&pending.path);
        record.push(0);
        if self.seen.insert(record.clone()) {
            self.out.extend_from_slice(&record);
        }
    }
}

/// Reads path and flags while the caller's memory is still its own.
fn pending(pid: pid_t, shape: &Shape, args: &[u64; 6]) -> Option<Pending> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let path = read_text(&memory, args[shape.path])?;
    // An empty path means the descriptor itself: nothing is looked up.
    if path.is_empty() {
        return None;
    }
    let flags = match shape.flags {
        Flags::None => 0,
        Flags::Argument(at) => args[at] as i32,
        Flags::OpenHow(at) => {
            let mut word = [0; 8];
            memory.read_exact_at(&mut word, args[at]).ok()?;
            u64::from_ne_bytes(word) as i32
        }
    };
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
    let kind = if shape.kind == Use::Open && writes { Use::Write } else { shape.kind };
    Some(Pending { kind, path: absolute(pid, shape.dir.map(|at| args[at] as i32), path)? })
}

/// Joins a relative path to what it is relative to; nothing is normalised.
fn absolute(pid: pid_t, dir: Option<i32>, path: Vec<u8>) -> Option<Vec<u8>> {
    if path.starts_with(b"/") {
        return Some(path);
    }
    let base = match dir {
        None | Some(libc::AT_FDCWD) => std::fs::read_link(format!("/proc/{pid}/cwd")),
        Some(fd) => std::fs::read_link(format!("/proc/{pid}/fd/{fd}")),
    };
    let mut whole = base.ok()?.into_os_string().into_vec();
    if whole != b"/" {
        whole.push(b'/');
    }
    whole.extend_from_slice(&path);
    Some(whole)
}

/// A C string of another process, page by page: the next page need not exist.
fn read_text(memory: &File, address: u64) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut at = address;
    while text.len() < PATH_BYTES_MAX {
        let mut chunk = vec![0; 256 - (at % 256) as usize];
        let n = memory.read_at(&mut chunk, at).ok().filter(|n| *n > 0)?;
        if let Some(end) = chunk[..n].iter().position(|b| *b == 0) {
            text.extend_from_slice(&chunk[..end]);
            return Some(text);
        }
        text.extend_from_slice(&chunk[..n]);
        at += n as u64;
    }
    None
}

/// `AUDIT_ARCH_*` of linux/audit.h: ELF machine, 64-bit and little-endian marks.
fn native_arch() -> u32 {
    const LITTLE_64: u32 = 0xc000_0000;
    LITTLE_64 | if cfg!(target_arch = "x86_64") { libc::EM_X86_64 as u32 } else { libc::EM_AARCH64 as u32 }
}

fn resume(pid: pid_t, signal: i32) {
    // An error means that it was killed; the next wait tells.
    let _ = ptrace(libc::PTRACE_SYSCALL, pid, 0, signal as usize);
}

fn ptrace(request: libc::c_uint, pid: pid_t, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: `address` and `data` are numbers or point to live locals of the caller, as the request wants them.
    if unsafe { libc::ptrace(request, pid, address, data) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn wait_for(pid: pid_t) -> io::Result<(pid_t, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call.
        let got = unsafe { libc::waitpid(pid, &mut status, libc::__WALL) };
        if got >= 0 {
            return Ok((got, status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
