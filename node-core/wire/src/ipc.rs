//! Frames on the local socket between wrapper or command line and node: `u32` little-endian length, then postcard.
//! The wrapper sends one request and reads replies until a final one. No compiler runs before the node's decision is
//! known, or `WRAPPER_PATIENCE` has passed in silence.

use serde::{Deserialize, Serialize};

/// Raised when a frame changes its meaning; a node answers an unknown version with `Reply::Local`.
pub const IPC_VERSION: u16 = 3;
/// Longest frame either way: 100,000-character command lines, objects of some MiB in stdout at most.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// Variables that the wrapper sends, besides all that begin with `LC_` or `POTLUCK_`. Everything else cannot change a
/// compile. In order, for the search. Sources: gcc and clang manuals, glibc's locale and time zone.
pub const ENV_SENT: &[&str] = &[
    "ASAN_OPTIONS",
    "BINUTILS_ROOT",
    "CCACHE_COMPILER",
    "CCACHE_DIR",
    "CCACHE_DISABLE",
    "CCACHE_PATH",
    "CCACHE_PREFIX",
    "CCC_OVERRIDE_OPTIONS",
    "CC_LOG_DIAGNOSTICS",
    "CC_PRINT_HEADERS",
    "CC_PRINT_OPTIONS",
    "CLANG_CONFIG_FILE_SYSTEM_DIR",
    "CLANG_CONFIG_FILE_USER_DIR",
    "CLANG_MODULE_CACHE_PATH",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLLECT_GCC_OPTIONS",
    "COLORTERM",
    "COLUMNS",
    "COMPILER_PATH",
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "CXX_MODULE_MAPPER",
    "C_INCLUDE_PATH",
    "DEPENDENCIES_OUTPUT",
    "EXPERIMENTAL_MODULES",
    "FORCE_UNSAFE_CONFIGURE",
    "GCC_COLORS",
    "GCC_COMPARE_DEBUG",
    "GCC_EXEC_PREFIX",
    "GCC_EXTRA_DIAGNOSTIC_OUTPUT",
    "GCC_ROOT",
    "GCC_URLS",
    "GLIBC_TUNABLES",
    "HOME",
    "LANG",
    "LANGUAGE",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LIBRARY_PATH",
    "LOCPATH",
    "MACOSX_DEPLOYMENT_TARGET",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MALLOC_ARENA_MAX",
    "NLSPATH",
    "NO_COLOR",
    "OBJCPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "PATH",
    "PWD",
    "SDKROOT",
    "SOURCE_DATE_EPOCH",
    "SUNPRO_DEPENDENCIES",
    "TERM",
    "TERM_URLS",
    "TMPDIR",
    "TZ",
    "TZDIR",
];

/// From wrapper or command line to the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// A compiler command.
    Compile(Box<Compile>),
    /// A compiler ran without asking (a query, or the node was silent): counted only. No answer.
    Notice {
        /// Reason code.
        reason: String,
        /// argv, shortened.
        argv: Vec<Vec<u8>>,
        /// Working directory.
        cwd: Vec<u8>,
    },
    /// After `Reply::Local`: how the compiler ended here.
    Ended {
        /// Its exit code.
        exit: i32,
    },
    /// A management call of the `api`: JSON in, JSON out, one or several `Reply::Api` with `last` on the final one.
    Api {
        /// JSON text.
        json: String,
    },
}

/// One compiler command as the wrapper found it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Compile {
    /// `IPC_VERSION` of the wrapper.
    pub version: u16,
    /// The compiler that would be executed here: absolute, not followed through links.
    pub compiler: Vec<u8>,
    /// argv as the compiler would get it, with argv[0] as typed.
    pub argv: Vec<Vec<u8>>,
    /// Environment: `NAME=value` of `ENV_SENT`, `LC_*` and `POTLUCK_*`; PATH without the masquerade directory.
    pub env: Vec<Vec<u8>>,
    /// Physical working directory.
    pub cwd: Vec<u8>,
    /// Device and inode of the working directory: differs if wrapper and node see different file systems.
    pub cwd_identity: (u64, u64),
    /// The root that all these paths are read in, as the wrapper sees it.
    pub root: Root,
    /// Process id of the wrapper.
    pub pid: u32,
    /// umask.
    pub umask: u32,
    /// Soft RLIMIT_STACK; `u64::MAX` is unlimited.
    pub stack_bytes: u64,
    /// Standard output is a terminal.
    pub stdout_tty: bool,
    /// Standard error is a terminal.
    pub stderr_tty: bool,
    /// Its width in columns, 0 if unknown.
    pub columns: u16,
    /// `POTLUCK_DISABLE=local`: run here, but hold a local slot.
    pub force_local: bool,
    /// `POTLUCK_FALLBACK=0`: never compile here.
    pub no_fallback: bool,
    /// Soft RLIMIT_FSIZE; `u64::MAX` is unlimited.
    pub file_bytes: u64,
}

/// What tells one root from another: containers, chroots and mount namespaces have the same paths for other files. Zeroes
/// for what cannot be seen; equal to another only where nothing is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Root {
    /// Device of the root directory.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// The mount that it lies on (statx(2), `stx_mnt_id`): the same directory can be mounted twice, with other mounts below.
    pub mount: u64,
    /// Inode of the mount namespace (namespaces(7)).
    pub namespace: u64,
}

/// Where the node says, without waking anybody, when it last had taken everything that was asked: beside its socket.
/// Sixteen bytes, as [`Taken`] reads them. A wrapper that has heard nothing looks there.
pub fn taken_path(socket: &[u8]) -> Vec<u8> {
    [socket, b".taken"].concat()
}

/// What stands at [`taken_path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Nanoseconds of the monotonic clock.
    pub told_ns: u64,
    /// The thread of the node that takes questions, as gettid(2) numbers it.
    pub thread: u32,
}

impl Taken {
    /// Size in the file.
    pub const BYTES: usize = 16;

    /// Little endian, zeroes behind.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.told_ns.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.thread.to_le_bytes());
        bytes
    }

    /// None: not what a node writes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (told_ns, rest) = bytes.split_first_chunk::<8>()?;
        let (thread, rest) = rest.split_first_chunk::<4>()?;
        (rest.len() == Self::BYTES - 12)
            .then_some(Self { told_ns: u64::from_le_bytes(*told_ns), thread: u32::from_le_bytes(*thread) })
    }
}

/// From the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Execute the compiler now. The connection is the local slot: leave it open across exec.
    Local {
        /// Reason code.
        reason: String,
    },
    /// It was compiled elsewhere and the outputs are in place. Final.
    Done {
        /// The compiler's exit code.
        exit: i32,
        /// Its standard output.
        stdout: Vec<u8>,
        /// Its standard error.
        stderr: Vec<u8>,
    },
    /// It cannot be compiled and must not be compiled here. Final.
    Fail {
        /// Exit code of UX 3.4.
        exit: i32,
        /// One sentence for the user.
        message: String,
    },
    /// Answer to `Request::Api`.
    Api {
        /// JSON text.
        json: String,
        /// No more follow.
        last: bool,
    },
}

/// A frame that is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than `FRAME_BYTES_MAX`.
    TooLong(usize),
    /// Not a message of this version.
    Malformed,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameError::TooLong(n) => write!(f, "frame of {n} bytes is longer than {FRAME_BYTES_MAX}"),
            FrameError::Malformed => f.write_str("not a message that this version understands"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Length and message, ready to be written.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut frame = postcard::to_extend(message, vec![0u8; 4]).expect("a Vec grows");
    let len = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&len.to_le_bytes());
    frame
}

/// The length that a frame's first four bytes announce, if it is allowed.
pub fn frame_len(head: [u8; 4]) -> Result<usize, FrameError> {
    let len = u32::from_le_bytes(head) as usize;
    if len > FRAME_BYTES_MAX { Err(FrameError::TooLong(len)) } else { Ok(len) }
}

/// Reads one message from the bytes after the length.
pub fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FrameError> {
    postcard::from_bytes(body).map_err(|_| FrameError::Malformed)
}

/// Whether a variable is sent.
pub fn is_env_sent(name: &[u8]) -> bool {
    name.starts_with(b"LC_")
        || name.starts_with(b"POTLUCK_")
        || ENV_SENT.binary_search_by(|n| n.as_bytes().cmp(name)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_of_the_list_is_found() {
        assert!(ENV_SENT.is_sorted());
        assert!(ENV_SENT.iter().all(|name| is_env_sent(name.as_bytes())));
        assert!(is_env_sent(b"LC_ALL") && !is_env_sent(b"PATHS") && !is_env_sent(b""));
    }
}
