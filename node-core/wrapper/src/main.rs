//! The `potluck` command. As a compiler it asks the node and then exits with the remote result, or runs the compiler and
//! tells the node how that ended, or, where no node answers, becomes the compiler; as anything else it becomes
//! `potluck-node`. It starts no thread, reads no configuration and parses no option itself.
//!
//! Signals keep their default action: when make is interrupted the wrapper dies of the signal as a compiler would, its
//! connection closes, and the node ends the remote job. Beside a compiler that runs here it waits for how that ends.
#![cfg_attr(not(test), no_main)]
// The tests' own entry replaces `main`, so that nothing calls what it calls.
#![cfg_attr(test, allow(dead_code))]

mod ask;
#[cfg(bare_start)]
mod bare;
mod find;
mod process;
mod request;
mod words;

use std::borrow::Cow;
#[cfg(not(test))]
use std::ffi::c_char;
use std::ffi::{CStr, CString, c_int};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use potluck_wire::ipc;
use rustix::io::{Errno, FdFlags};

use crate::ask::{Answer, Trouble};
use crate::find::{Found, Guard, Missing, Own};
use crate::process::{Started, execute, say, words_of, write_all};
use crate::words::Act;

/// A shell's code for what is there and cannot be executed ...
const EXIT_NOT_EXECUTABLE: i32 = 126;
/// ... and for what is not there.
const EXIT_NOT_FOUND: i32 = 127;
/// distcc's code for a command that would call itself forever.
const EXIT_RECURSION: i32 = 111;

/// An hour: beyond it `POTLUCK_PATIENCE_MS` is a mistake.
const PATIENCE_MS_MAX: u64 = 3_600_000;

/// Memory is given back with the process.
#[cfg(all(bare_start, not(test)))]
#[global_allocator]
static ALLOCATOR: bare::Bump = bare::Bump;

/// The C runtime's entry. The standard library's own is left out: it would ignore SIGPIPE, which the compiler would
/// inherit, and cost time that every single compile pays.
///
/// # Safety
/// For the C runtime only.
#[cfg(not(test))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int {
    // SAFETY: these are what the C runtime hands to every `main`.
    start(&unsafe { Started::new(argc, argv, envp) })
}

fn start(started: &Started) -> c_int {
    match words::act(&started.words()) {
        Act::Manage => manage(started),
        Act::Compile(first) => compile(started, first, false),
        Act::Masquerade => compile(started, 0, true),
    }
}

/// Becomes the management program, with the same arguments.
fn manage(started: &Started) -> i32 {
    let chosen = started.env("POTLUCK_NODE_BIN").filter(|path| !path.is_empty());
    let Some(program) = chosen.map(<[u8]>::to_vec).or_else(|| beside_this("potluck-node")) else {
        say("potluck-node cannot be found, because /proc is not there");
        return EXIT_NOT_FOUND;
    };
    let program = CString::new(program).expect("came from a string of the kernel");
    let error = execute(&program, &started.argv, &started.envp);
    say(&format!("{} cannot be started: {}", program.to_string_lossy(), words_of(error)));
    if error == Errno::NOENT { EXIT_NOT_FOUND } else { EXIT_NOT_EXECUTABLE }
}

/// The path of a program in the directory of this one; never a relative one, which would lead into the user's folder.
fn beside_this(name: &str) -> Option<Vec<u8>> {
    let own = rustix::fs::readlinkat(rustix::fs::CWD, "/proc/self/exe", Vec::new()).ok()?.into_bytes();
    let end = own.iter().rposition(|&b| b == b'/')? + 1;
    Some([&own[..end], name.as_bytes()].concat())
}

/// A compiler command, ready to be executed here.
struct Local {
    compiler: Found,
    argv: Vec<Cow<'static, CStr>>,
    /// PATH as the compiler gets it; `None` if this process has none.
    path: Option<Vec<u8>>,
    guard: Guard,
}

/// Acts as the compiler whose command begins at `first`.
fn compile(started: &Started, first: usize, masquerade: bool) -> i32 {
    let local = match find_compiler(started, first, masquerade) {
        Ok(local) => local,
        Err((name, missing)) => return complain(name, &missing),
    };
    let force_local = match started.env("POTLUCK_DISABLE").unwrap_or_default() {
        b"" | b"0" => false,
        b"local" => true,
        _ => return local.execute(started, None),
    };
    let socket =
        || ask::socket_path(started.env("POTLUCK_SOCKET"), started.env("XDG_RUNTIME_DIR"), started.env("HOME"));
    let words = local.words();
    if words::is_query(words.get(1..).unwrap_or_default()) {
        ask::tell(&socket(), &request::notice("query-invocation", &words));
        return local.execute(started, None);
    }
    // A compiler started in a deleted folder has its own words for that.
    let Some(request) = request::compile(started, &local, force_local) else { return local.execute(started, None) };
    let may_fall_back = started.env("POTLUCK_FALLBACK") != Some(b"0");
    let is_on = |name| started.env(name).is_some_and(|value| !value.is_empty() && value != b"0");
    let tell_reason = |reason: &str| {
        if is_on("POTLUCK_WARN_LOCAL") || is_on("POTLUCK_VERBOSE") {
            say(&format!("compiled here: {reason}"));
        }
    };
    match ask::ask(&socket(), &request, patience(started)) {
        Answer::Local { reason, slot } => {
            tell_reason(&reason);
            local.execute_and_tell(started, slot)
        }
        Answer::Done { exit, stdout, stderr } => {
            if is_on("POTLUCK_VERBOSE") {
                say("compiled elsewhere");
            }
            write_all(rustix::stdio::stdout().as_fd(), &stdout);
            write_all(rustix::stdio::stderr().as_fd(), &stderr);
            exit
        }
        Answer::Fail { exit, message } => {
            say(&message);
            exit
        }
        Answer::None(trouble) if may_fall_back => {
            tell_reason(&trouble.sentence());
            if matches!(trouble, Trouble::Silent) {
                // For when it hears again.
                ask::tell(&socket(), &request::notice("node-silent", &words));
            }
            local.execute(started, None)
        }
        Answer::None(trouble) => refuse(&trouble),
    }
}

/// How long the node may be silent: `POTLUCK_PATIENCE_MS` helps a machine that is too busy to answer in time.
fn patience(started: &Started) -> Duration {
    let chosen = started.env("POTLUCK_PATIENCE_MS").and_then(|ms| std::str::from_utf8(ms).ok()?.parse().ok());
    // Zero would mean "forever" to the kernel.
    chosen.filter(|ms| (1..=PATIENCE_MS_MAX).contains(ms)).map_or(ask::PATIENCE, Duration::from_millis)
}

fn refuse(trouble: &Trouble) -> i32 {
    say(&format!("{}, and POTLUCK_FALLBACK=0 forbids to compile here", trouble.sentence()));
    trouble.exit_code()
}

/// What a shell would say.
fn complain(name: &[u8], missing: &Missing) -> i32 {
    let name = String::from_utf8_lossy(name);
    match missing {
        Missing::NotFound if name.contains('/') => say(&format!("{name}: No such file or directory")),
        Missing::NotFound => say(&format!("{name}: command not found")),
        Missing::NotExecutable => say(&format!("{name}: Permission denied")),
        Missing::OnlyPotluck => {
            say(&format!("{name}: leads to Potluck itself, and PATH has no other compiler of this name"))
        }
        Missing::Loop => say(&format!(
            "{name}: Potluck and another wrapper call each other without end; take one of them out of PATH"
        )),
    }
    match missing {
        Missing::NotFound => EXIT_NOT_FOUND,
        Missing::NotExecutable => EXIT_NOT_EXECUTABLE,
        Missing::OnlyPotluck | Missing::Loop => EXIT_RECURSION,
    }
}

/// The compiler that would run without Potluck, and how it is to be called.
fn find_compiler(started: &Started, first: usize, masquerade: bool) -> Result<Local, (&'static [u8], Missing)> {
    let typed = started.argv.get(first).map_or(&b""[..], |arg| arg.to_bytes());
    let own = Own::new(started.env("XDG_CACHE_HOME"), started.env("HOME"), started.executed.map(CStr::to_bytes));
    let guard = Guard::read(started.env("POTLUCK_LEVEL"));
    if guard.is_loop() {
        return Err((typed, Missing::Loop));
    }
    let path = started.env("PATH").map(|path| own.strip(path));
    let chosen_path = started.env("POTLUCK_PATH").filter(|path| !path.is_empty());
    let search = |name: &[u8]| {
        let search_path = chosen_path.or(path.as_deref());
        let found = find::in_path(name, search_path, &own, &guard)?;
        Ok(Found { hidden: found.hidden || chosen_path.is_some(), ..found })
    };
    let given = if masquerade { None } else { Some(typed) };
    let name = given.or_else(|| replaced(started, typed)).unwrap_or(typed);
    let compiler = match name.contains(&b'/') {
        // The name that Potluck was called by is a path to Potluck.
        true if given.is_none() && name == typed => Err(Missing::OnlyPotluck),
        true => find::by_path(name, &own),
        false => search(name),
    };
    // `potluck ~/.cache/potluck/bin/gcc`: CMake with both a launcher and a masquerade directory.
    let compiler = match compiler {
        Err(Missing::OnlyPotluck) if name.contains(&b'/') && words::base_name(name) != b"potluck" => {
            search(words::base_name(name)).map(|found| Found { hidden: true, ..found })
        }
        other => other,
    };
    let compiler = compiler.map_err(|missing| (name, missing))?;
    let mut argv: Vec<Cow<'static, CStr>> = started.argv[first..].iter().map(|arg| Cow::Borrowed(*arg)).collect();
    if compiler.hidden {
        argv[0] = Cow::Owned(compiler.absolute.clone());
    } else if name != typed {
        argv[0] = Cow::Owned(CString::new(name).expect("came from a string of the environment"));
    }
    Ok(Local { compiler, argv, path, guard })
}

/// The compiler that the user wants under this name.
fn replaced(started: &Started, typed: &[u8]) -> Option<&'static [u8]> {
    let variable = if words::is_native_cxx(words::base_name(typed))? { "POTLUCK_CXX" } else { "POTLUCK_CC" };
    started.env(variable).filter(|value| !value.is_empty())
}

impl Local {
    /// The arguments as bytes.
    fn words(&self) -> Vec<&[u8]> {
        self.argv.iter().map(|arg| arg.to_bytes()).collect()
    }

    /// Runs the compiler as a child and tells the node how it ended: a build's report names what failed, and a compile
    /// that failed elsewhere and works here must be noticed.
    fn execute_and_tell(&self, started: &Started, slot: OwnedFd) -> i32 {
        // Not fork(3), which expects the C library's start-up.
        // SAFETY: this process has one thread; the child goes on with a copy of everything.
        let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } as libc::pid_t;
        if child < 0 {
            return self.execute(started, Some(slot));
        }
        if child == 0 {
            // A signal that kills only the wrapper must end the compiler as well.
            // SAFETY: prctl with a signal number touches no memory.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
            let exit = self.execute(started, Some(slot));
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(exit) };
        }
        // The terminal's signals reach the compiler by themselves. This process ends as the compiler does, and not before
        // that has removed its files.
        // SAFETY: setting a signal to be ignored touches no memory.
        unsafe {
            libc::signal(libc::SIGINT, libc::SIG_IGN);
            libc::signal(libc::SIGQUIT, libc::SIG_IGN);
        }
        let mut status = 0;
        // SAFETY: `status` is valid for the call, `child` is ours and not yet waited for.
        while unsafe { libc::waitpid(child, &mut status, 0) } < 0 {
            if std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                return EXIT_NOT_EXECUTABLE;
            }
        }
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            // SAFETY: sets a default action and raises a signal in this process: make sees a compiler's death.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                libc::kill(libc::getpid(), signal);
            }
            return 128 + signal;
        }
        let exit = libc::WEXITSTATUS(status);
        let frame = ipc::encode(&ipc::Request::Ended { exit });
        // Only a statistic is lost.
        let _ = rustix::net::send(&slot, &frame, rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL);
        exit
    }

    /// Becomes the compiler. `slot` stays open until the compiler and its children have ended: that frees the slot.
    fn execute(&self, started: &Started, slot: Option<OwnedFd>) -> i32 {
        if let Some(slot) = &slot {
            // Without this the slot would be freed at once: too many compilers at a time, never a wrong one.
            let _ = rustix::io::fcntl_setfd(slot, FdFlags::empty());
        }
        let entry = |name: &'static str, value: &[u8]| {
            // No value has a zero byte: they came from strings, or are digits.
            Some((name, CString::new([name.as_bytes(), b"=", value].concat()).ok()?))
        };
        let level = self.guard.with(self.compiler.identity);
        let path = self.path.as_ref().and_then(|path| entry("PATH", path));
        let set: Vec<_> = path.into_iter().chain(entry("POTLUCK_LEVEL", level.as_bytes())).collect();
        let argv: Vec<&CStr> = self.argv.iter().map(AsRef::as_ref).collect();
        let mut error = execute(&self.compiler.path, &argv, &started.env_with(&set));
        if error == Errno::TOOBIG {
            // A command at the very limit of the kernel, which only the guard has made too long.
            error = execute(&self.compiler.path, &argv, &started.env_with(&set[..set.len() - 1]));
        }
        say(&format!("{}: {}", self.compiler.path.to_string_lossy(), words_of(error)));
        if error == Errno::NOENT { EXIT_NOT_FOUND } else { EXIT_NOT_EXECUTABLE }
    }
}
