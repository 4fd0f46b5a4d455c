//! The process as the kernel started it: arguments, environment, and its end by becoming another program. Without the
//! runtime's own start-up, which would change the disposition of SIGPIPE that a compiler inherits.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

/// The arguments and the environment of this process.
pub struct Started {
    /// All arguments.
    pub argv: Vec<&'static CStr>,
    /// All `NAME=value`.
    pub envp: Vec<&'static CStr>,
    /// The path that this program was executed by, if the kernel's word of it is at hand.
    pub executed: Option<&'static CStr>,
}

impl Started {
    /// Takes what `main` got.
    ///
    /// # Safety
    /// `argv` and `envp` are those that the C runtime handed to `main`: null-terminated arrays of strings that stay in
    /// place, unchanged, until the process ends.
    pub unsafe fn new(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) -> Started {
        let count = usize::try_from(argc).unwrap_or(0);
        // SAFETY: the caller vouches for `argv` and its `argc` strings.
        let argv = (0..count).map(|i| unsafe { CStr::from_ptr(*argv.add(i)) }).collect();
        let mut strings = Vec::new();
        let mut next = envp;
        // SAFETY: the caller vouches for `envp`, whose end is a null pointer.
        while let Some(string) = unsafe { next.as_ref() }.filter(|s| !s.is_null()) {
            // SAFETY: a string of `envp`; the next place is inside the array because this one was not its end.
            strings.push(unsafe { CStr::from_ptr(*string) });
            // SAFETY: as above.
            next = unsafe { next.add(1) };
        }
        Started { argv, envp: strings, executed: None }
    }

    /// The value of a variable; of several with one name the first, as `getenv` does.
    pub fn env(&self, name: &str) -> Option<&'static [u8]> {
        self.envp.iter().find_map(|entry| value_of(entry, name.as_bytes()))
    }

    /// The arguments as bytes.
    pub fn words(&self) -> Vec<&'static [u8]> {
        self.argv.iter().map(|arg| arg.to_bytes()).collect()
    }

    /// The environment with these entries set, each given with its name.
    pub fn env_with<'a>(&'a self, set: &'a [(&str, CString)]) -> Vec<&'a CStr> {
        let is_set = |entry: &CStr| set.iter().any(|(name, _)| value_of(entry, name.as_bytes()).is_some());
        let kept = self.envp.iter().copied().filter(|entry| !is_set(entry));
        kept.chain(set.iter().map(|(_, entry)| entry.as_c_str())).collect()
    }
}

/// The value, if this entry is the variable of that name.
fn value_of<'a>(entry: &'a CStr, name: &[u8]) -> Option<&'a [u8]> {
    entry.to_bytes().strip_prefix(name)?.strip_prefix(b"=")
}

/// Becomes another program; returns only why it could not.
pub fn execute(path: &CStr, argv: &[&CStr], envp: &[&CStr]) -> Errno {
    let argv_pointers = pointers(argv);
    let envp_pointers = pointers(envp);
    // SAFETY: both arrays end with a null pointer and all strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv_pointers.as_ptr(), envp_pointers.as_ptr()) };
    let error = std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
    if error != Errno::NOEXEC {
        return error;
    }
    // A script without "#!": a shell would run it itself.
    let mut script: Vec<&CStr> = vec![c"/bin/sh", path];
    script.extend(argv.iter().skip(1));
    let script_pointers = pointers(&script);
    // SAFETY: as above.
    unsafe { libc::execve(c"/bin/sh".as_ptr(), script_pointers.as_ptr(), envp_pointers.as_ptr()) };
    error
}

fn pointers(strings: &[&CStr]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Writes everything, also to a terminal that somebody made non-blocking. An error ends it: nobody is left to be told.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut wait = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::OUT)];
                // An interrupted or failed poll only means that the write is tried sooner.
                let _ = rustix::event::poll(&mut wait, None);
            }
            Err(_) => return,
        }
    }
}

/// What the C library says of an error. Its own words need its start-up, which this program does without.
pub fn words_of(error: Errno) -> String {
    let words = match error {
        Errno::NOENT => "No such file or directory",
        Errno::ACCESS => "Permission denied",
        Errno::PERM => "Operation not permitted",
        Errno::CONNREFUSED => "Connection refused",
        Errno::NOEXEC => "Exec format error",
        Errno::TOOBIG => "Argument list too long",
        Errno::NOTDIR => "Not a directory",
        Errno::ISDIR => "Is a directory",
        Errno::LOOP => "Too many levels of symbolic links",
        Errno::NAMETOOLONG => "File name too long",
        Errno::TXTBSY => "Text file busy",
        Errno::NOMEM => "Cannot allocate memory",
        Errno::MFILE | Errno::NFILE => "Too many open files",
        Errno::IO => "Input/output error",
        other => return format!("error {}", other.raw_os_error()),
    };
    words.to_owned()
}

/// One sentence on standard error.
pub fn say(text: &str) {
    write_all(rustix::stdio::stderr().as_fd(), format!("potluck: {text}\n").as_bytes());
}
