//! What the node is told about a command: everything of this process that can influence a compile, and nothing else.

use std::os::fd::AsFd;

use potluck_wire::ipc::{Compile, IPC_VERSION, Request, Root, is_env_sent};
use rustix::fs::{AtFlags, CWD, Mode, StatxFlags};
use rustix::process::{Resource, getcwd, getpid, getrlimit, umask};

use crate::Local;
use crate::process::Started;

/// Arguments of a notice; it is shown to people only.
const NOTICE_ARGS_MAX: usize = 16;
/// Bytes of each of them.
const NOTICE_ARG_BYTES_MAX: usize = 256;

/// The question. `None` without a working directory that both sides can name.
pub fn compile(started: &Started, local: &Local, force_local: bool) -> Option<Request> {
    let cwd = getcwd(Vec::new()).ok()?.into_bytes();
    // The kernel says "(unreachable)" for a directory of another mount tree.
    if !cwd.starts_with(b"/") {
        return None;
    }
    let here = rustix::fs::stat(".").ok()?;
    let (stdout, stderr) = (rustix::stdio::stdout(), rustix::stdio::stderr());
    let stderr_tty = rustix::termios::isatty(stderr);
    let columns = if stderr_tty { rustix::termios::tcgetwinsize(stderr.as_fd()).map_or(0, |w| w.ws_col) } else { 0 };
    Some(Request::Compile(Box::new(Compile {
        version: IPC_VERSION,
        compiler: local.compiler.absolute.to_bytes().to_vec(),
        argv: local.words().into_iter().map(<[u8]>::to_vec).collect(),
        env: environment(started, local.path.as_deref()),
        cwd,
        cwd_identity: (here.st_dev, here.st_ino),
        root: root(),
        pid: getpid().as_raw_nonzero().get().unsigned_abs(),
        umask: current_umask(),
        stack_bytes: getrlimit(Resource::Stack).current.unwrap_or(u64::MAX),
        stdout_tty: rustix::termios::isatty(stdout),
        stderr_tty,
        columns,
        force_local,
        no_fallback: started.env("POTLUCK_FALLBACK") == Some(b"0"),
        file_bytes: getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX),
    })))
}

/// A compiler that runs without a question.
pub fn notice(reason: &str, words: &[&[u8]]) -> Request {
    let shortened = |arg: &&[u8]| arg[..arg.len().min(NOTICE_ARG_BYTES_MAX)].to_vec();
    Request::Notice {
        reason: reason.to_owned(),
        argv: words.iter().take(NOTICE_ARGS_MAX).map(shortened).collect(),
        cwd: getcwd(Vec::new()).map(|cwd| cwd.into_bytes()).unwrap_or_default(),
    }
}

/// Zeroes for what cannot be seen: the node then takes this for another root than its own.
fn root() -> Root {
    let mut root = Root::default();
    if let Ok(seen) = rustix::fs::statx(CWD, "/", AtFlags::empty(), StatxFlags::INO | StatxFlags::MNT_ID) {
        root.device = rustix::fs::makedev(seen.stx_dev_major, seen.stx_dev_minor);
        root.inode = seen.stx_ino;
        let has_mount = StatxFlags::from_bits_retain(seen.stx_mask).contains(StatxFlags::MNT_ID);
        root.mount = if has_mount { seen.stx_mnt_id } else { 0 };
    }
    root.namespace = rustix::fs::stat("/proc/self/ns/mnt").map_or(0, |namespace| namespace.st_ino);
    root
}

fn environment(started: &Started, path: Option<&[u8]>) -> Vec<Vec<u8>> {
    let entry = |entry: &&'static std::ffi::CStr| {
        let entry = entry.to_bytes();
        let name = entry.split(|&b| b == b'=').next().unwrap_or(entry);
        match name {
            // Between wrappers only.
            b"POTLUCK_LEVEL" => None,
            b"PATH" => path.map(|path| [b"PATH=", path].concat()),
            name => is_env_sent(name).then(|| entry.to_vec()),
        }
    };
    started.envp.iter().filter_map(entry).collect()
}

/// The kernel has no call that only reads it; one thread may set it back unseen.
fn current_umask() -> u32 {
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}
