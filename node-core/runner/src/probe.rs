//! What the self-test runs inside the sandbox: tries what a job must not be able to do. Prints one line per check,
//! `ok NAME` or `FAIL NAME: why`; the limit probes run into their limit instead.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use crate::{calls, filter, sys};

/// A check's outcome: the error is a sentence.
type Check = Result<(), String>;

/// The subcommand: `NAME ARGS...`.
pub fn main(args: &[OsString]) -> ExitCode {
    let Some(name) = args.first().and_then(|a| a.to_str()) else { return ExitCode::from(2) };
    match name {
        "policy" => policy(&args[1..]),
        "cpu" => loop {
            std::hint::black_box(0);
        },
        "wall" => loop {
            std::thread::park();
        },
        "memory" => memory(),
        "address" => address(),
        "file" => write_files(1, 64 << 20),
        "output" => write_files(64, 1 << 20),
        "processes" => processes(),
        "pipes" => pipes(),
        "stdio" => loop {
            if io::stdout().write_all(&[b'x'; 4096]).is_err() {
                return ExitCode::FAILURE;
            }
        },
        _ => ExitCode::from(2),
    }
}

/// All checks that need no limit. The arguments are paths of the machine that must not be there, backwards, so that
/// finding them does not find these arguments.
fn policy(secrets: &[OsString]) -> ExitCode {
    let secrets: Vec<Vec<u8>> = secrets.iter().map(|s| s.as_bytes().iter().rev().copied().collect()).collect();
    let checks: [(&str, Check); 12] = [
        ("files", files(&secrets)),
        ("names", names(&secrets)),
        ("private", private()),
        ("read-only", read_only()),
        ("network", network()),
        ("processes", other_processes()),
        ("system-calls", system_calls()),
        ("namespaces", namespaces()),
        ("devices", devices()),
        ("privileges", privileges()),
        ("manners", manners()),
        ("poison", poison()),
    ];
    let mut passed = true;
    for (name, check) in checks {
        match check {
            Ok(()) => println!("ok {name}"),
            Err(why) => {
                passed = false;
                println!("FAIL {name}: {why}");
            }
        }
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The error number that a call must give.
fn expect(what: &str, result: io::Result<impl Sized>, allowed: &[i32]) -> Check {
    match result {
        Ok(_) => Err(format!("{what} succeeded")),
        Err(e) if e.raw_os_error().is_some_and(|n| allowed.contains(&n)) => Ok(()),
        Err(e) => Err(format!("{what} gave an unexpected error: {e}")),
    }
}

fn files(secrets: &[Vec<u8>]) -> Check {
    let known =
        ["/home", "/root", "/etc/passwd", "/etc/shadow", "/run", "/sys", "/var", "/boot", "/proc/sys", "/proc/kcore"];
    let secrets = secrets.iter().map(|path| std::ffi::OsStr::from_bytes(path));
    for path in known.into_iter().map(std::ffi::OsStr::new).chain(secrets) {
        expect(&format!("looking at {}", path.display()), fs::symlink_metadata(path), &[libc::ENOENT])?;
    }
    Ok(())
}

/// Nothing that can be read in /proc, no link there and no name of the system has any of these in it.
fn names(secrets: &[Vec<u8>]) -> Check {
    let shows = |text: &[u8]| {
        secrets.iter().find(|secret| !secret.is_empty() && text.windows(secret.len()).any(|w| w == secret.as_slice()))
    };
    let mut folders = vec![Path::new("/proc/self").to_owned(), Path::new("/proc/thread-self").to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().map_err(|e| e.to_string())?);
            let text = if kind.is_symlink() {
                fs::read_link(&path).map(|target| target.as_os_str().as_bytes().to_vec())
            } else if kind.is_dir() {
                folders.push(path);
                continue;
            } else {
                // Some of them have no end.
                let mut text = Vec::new();
                File::open(&path).and_then(|file| file.take(1 << 20).read_to_end(&mut text)).map(|_| text)
            };
            // What cannot be read shows nothing.
            if let Some(secret) = text.ok().and_then(|text| shows(&text).cloned()) {
                return Err(format!("{} shows {}", path.display(), String::from_utf8_lossy(&secret)));
            }
        }
    }
    let system = rustix::system::uname();
    match [system.nodename(), system.domainname()].iter().find_map(|name| shows(name.to_bytes())) {
        Some(secret) => Err(format!("uname shows {}", String::from_utf8_lossy(secret))),
        None => Ok(()),
    }
}

/// What only the sandbox itself may see.
fn private() -> Check {
    for dir in [crate::root::GENERATIONS, crate::root::UPPERS, crate::root::HOST_PROC, crate::root::TRAP_ROOT] {
        let mut entries = fs::read_dir(dir).map_err(|e| format!("{dir}: {e}"))?;
        if entries.next().is_some() {
            return Err(format!("{dir} is visible"));
        }
    }
    let open: Vec<_> =
        fs::read_dir("/proc/self/fd").map_err(|e| e.to_string())?.flatten().map(|e| e.file_name()).collect();
    // 0, 1, 2 and the listing itself.
    if open.len() == 4 { Ok(()) } else { Err(format!("descriptors are open: {open:?}")) }
}

fn read_only() -> Check {
    for path in ["/x", "/dev/x", "/.potluck/x", "/probe"] {
        let made = File::options().write(true).create(true).truncate(false).open(path);
        expect(&format!("writing {path}"), made, &[libc::EROFS, libc::EACCES, libc::EPERM, libc::ETXTBSY])?;
    }
    File::create("/tmp/x").map(drop).map_err(|e| format!("/tmp cannot be written: {e}"))
}

fn network() -> Check {
    for family in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX, libc::AF_NETLINK, libc::AF_PACKET] {
        let args = [family as usize, libc::SOCK_STREAM as usize, 0];
        expect("opening a socket", call(libc::SYS_socket, args), &[libc::EPERM])?;
    }
    Ok(())
}

fn other_processes() -> Check {
    let own = std::process::id();
    let seen: Vec<u32> = fs::read_dir("/proc")
        .map_err(|e| e.to_string())?
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .collect();
    if !seen.is_empty() {
        return Err(format!("processes are visible: {seen:?}"));
    }
    expect("reading the first process' memory", File::open("/proc/1/mem"), &[libc::ENOENT, libc::EACCES, libc::EPERM])?;
    // Signal 0 to everybody: nobody is there. A real one to the init of the job: ignored by the kernel.
    expect("finding other processes", call(libc::SYS_kill, [usize::MAX, 0, 0]), &[libc::ESRCH])?;
    let _ = call(libc::SYS_kill, [1, libc::SIGKILL as usize, 0]);
    Ok(())
}

fn system_calls() -> Check {
    for number in filter::SWEPT.filter(|number| !calls::UNFILTERED.contains(number)) {
        if let Some(errno) = filter::answer(number, filter::ANSWERS) {
            expect(&format!("system call {number}"), call(number, [0, 0, 0]), &[errno])?;
        }
        // The x32 numbers of x86-64; no number at all elsewhere.
        expect(&format!("x32 call {number}"), call(X32_BIT + number, [0, 0, 0]), &[libc::ENOSYS])?;
    }
    let terminal = call(libc::SYS_ioctl, [0, libc::TIOCSTI as usize, 0]);
    expect("typing into a terminal", terminal, &[libc::EPERM])?;
    expect("another personality", call(libc::SYS_personality, [8, 0, 0]), &[libc::EPERM])?;
    call(libc::SYS_personality, [0xffff_ffff, 0, 0]).map_err(|e| format!("asking for the personality: {e}"))?;
    Ok(())
}

/// `__X32_SYSCALL_BIT` of asm/unistd.h.
const X32_BIT: libc::c_long = 0x4000_0000;

fn namespaces() -> Check {
    for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWPID, libc::CLONE_NEWNET] {
        expect("unshare", sys::unshare(flag), &[libc::EPERM])?;
        match sys::fork(flag) {
            Ok(sys::Fork::Child) => sys::exit_now(0),
            other => expect("clone with a namespace", other, &[libc::EPERM])?,
        }
    }
    Ok(())
}

fn devices() -> Check {
    for path in ["/dev/kvm", "/dev/fuse", "/dev/tty", "/dev/ptmx", "/dev/shm", "/dev/dri", "/dev/mem", "/dev/input"] {
        expect(path, fs::symlink_metadata(path), &[libc::ENOENT])?;
    }
    let mut some = [0; 4];
    File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut some)).map_err(|e| format!("/dev/urandom: {e}"))?;
    let device = |kind| {
        rustix::fs::mknodat(rustix::fs::CWD, "/tmp/device", kind, rustix::fs::Mode::empty(), 0).map_err(io::Error::from)
    };
    expect("making a character device", device(rustix::fs::FileType::CharacterDevice), &[libc::EPERM])?;
    expect("making a block device", device(rustix::fs::FileType::BlockDevice), &[libc::EPERM])
}

/// A line of /proc/self/status.
fn status(key: &str) -> Result<String, String> {
    let text = fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.map(|l| l.trim().to_owned()).ok_or_else(|| format!("/proc/self/status has no {key}"))
}

fn privileges() -> Check {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        if status(set)?.bytes().any(|b| b != b'0') {
            return Err(format!("{set} is {}", status(set)?));
        }
    }
    for (key, wanted) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        if status(key)? != wanted {
            return Err(format!("{key} is {}", status(key)?));
        }
    }
    if rustix::process::getuid().is_root() { Err("it runs as root".into()) } else { Ok(()) }
}

fn manners() -> Check {
    // SAFETY: plain queries about the calling process.
    let (policy, nice) = unsafe { (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0)) };
    let oom = fs::read_to_string("/proc/self/oom_score_adj").map_err(|e| e.to_string())?;
    if policy != libc::SCHED_IDLE || nice != 19 || oom.trim() != "1000" {
        return Err(format!("scheduling class {policy}, nice {nice}, oom_score_adj {}", oom.trim()));
    }
    // Empty where the kernel was started without sessions as groups, missing where it was built so.
    let session = fs::read_to_string("/proc/self/autogroup").unwrap_or_default();
    if !session.is_empty() && !session.trim().ends_with(" nice 19") {
        return Err(format!("its session is {}", session.trim()));
    }
    // In a child: who leads a process group, as this process does, may never make a session.
    match sys::fork(0) {
        Ok(sys::Fork::Child) => sys::exit_now(i32::from(rustix::process::setsid().is_ok())),
        Ok(sys::Fork::Parent(pid)) => {
            match rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()) {
                Ok(Some((_, status))) if status.exit_status() == Some(0) => {}
                _ => return Err("it can make a session of its own".into()),
            }
        }
        Err(e) => return Err(format!("starting a child: {e}")),
    }
    let own = fs::OpenOptions::new().write(true).open("/proc/self/autogroup");
    // The read-only mount answers before Landlock does: without it this would be EACCES.
    expect("raising its session", own, &[libc::EROFS, libc::ENOENT])?;
    // Else signals to its process group would be for the sandbox too.
    if rustix::process::getpgrp() == rustix::process::getpid() {
        Ok(())
    } else {
        Err("its process group is not its own".into())
    }
}

fn poison() -> Check {
    for path in ["/out/poison", "/poison"] {
        expect(&format!("opening {path}"), File::open(path), &[libc::ELOOP])?;
        expect(&format!("stat of {path}"), fs::metadata(path), &[libc::ELOOP])?;
    }
    Ok(())
}

fn call(number: libc::c_long, args: [usize; 3]) -> io::Result<libc::c_long> {
    // SAFETY: all calls made here are refused by the filter before they read their arguments, or take only numbers.
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Touches memory until it is stopped.
fn memory() -> ExitCode {
    let mut kept = Vec::new();
    for _ in 0..64 {
        kept.push(vec![1u8; 16 << 20]);
        std::hint::black_box(&kept);
    }
    loop {
        std::thread::park();
    }
}

/// Success is to be refused.
fn address() -> ExitCode {
    let mut big: Vec<u8> = Vec::new();
    if big.try_reserve_exact(2 << 30).is_err() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn write_files(count: u32, bytes: usize) -> ExitCode {
    let content = vec![b'x'; bytes];
    for n in 0..count {
        if fs::write(format!("/out/file{n}"), &content).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Success is to have as many as no compiler makes.
fn pipes() -> ExitCode {
    for _ in 0..100_000 {
        if io::pipe().is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Prints how many processes could be made.
fn processes() -> ExitCode {
    for n in 0..4096 {
        match sys::fork(0) {
            Ok(sys::Fork::Child) => loop {
                std::thread::park();
            },
            Ok(sys::Fork::Parent(_)) => {}
            Err(_) => {
                println!("{n}");
                return ExitCode::SUCCESS;
            }
        }
    }
    ExitCode::FAILURE
}
