//! Frames between node and runner: `u32` little-endian length, then postcard. Descriptors travel beside a frame
//! (SCM_RIGHTS). Paths are bytes: Linux names need not be UTF-8.

use serde::{Deserialize, Serialize};

/// Longest frame on the control socket and longest report header.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Where the trap, the generations and a job's upper layers are mounted inside the sandbox. Submitters may not use it.
pub const PRIVATE_DIR: &str = "/.potluck";
/// A poison is a symbolic link to this directory plus its decimal id.
pub const TRAP_DIR: &str = "/.potluck/trap";

/// A path or name as bytes.
pub type Bytes = Vec<u8>;

/// The first frame from the node: one sandbox for one submitter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Host directory that becomes `/` (read-only). It holds the empty directories `proc`, `dev`, `tmp` and
    /// `.potluck`; what these show is mounted over them.
    pub root: Bytes,
    /// Host directory with the generations of output directories; not visible to jobs.
    pub generations: Bytes,
    /// User id inside; never 0, so that no capability survives exec.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// False: do not even try /dev/fuse (for tests of the weaker poison).
    pub allow_fuse: bool,
}

/// How poison is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trap {
    /// Every touch is recorded.
    Fuse,
    /// A self-loop: the compiler gets ELOOP, but a lookup that swallows it is not seen.
    Loop,
}

/// Limits of one job; zero means none. See `potluck_model::limits::JobLimits` for the values.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// CPU seconds, summed over all processes of the job (checked), and per process (RLIMIT_CPU).
    pub cpu_s: u64,
    /// Address space of one process.
    pub address_bytes: u64,
    /// Resident memory of the whole job.
    pub resident_bytes: u64,
    /// One written file.
    pub file_bytes: u64,
    /// Processes at a time.
    pub processes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// All written files together, /tmp included.
    pub output_bytes: u64,
    /// Number of harvested files.
    pub output_files: u64,
    /// Standard output and standard error, each.
    pub stdio_bytes: u64,
    /// RLIMIT_STACK as the submitter has it; `u64::MAX` is unlimited.
    pub stack_bytes: u64,
}

/// A directory that the job may write: an overlay of an immutable generation and a private upper layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutputDir {
    /// Absolute physical path inside the sandbox; exists in the root.
    pub path: Bytes,
    /// Names of the lower layers under `Setup::generations`, topmost first, joined by ':'.
    pub generation: Bytes,
    /// Names whited out in the upper layer: expected outputs that already exist at the submitter.
    pub whiteouts: Vec<Bytes>,
    /// Poisons that are newer than the generation: put into the upper layer.
    pub poisons: Vec<(Bytes, u64)>,
    /// Subdirectories of the root's directory to be bound over the overlay, because the generation holds only names
    /// (they are empty directories there).
    pub binds: Vec<Bytes>,
    /// Mode of the directory.
    pub mode: u32,
}

/// One job. A connected stream socket travels with it, to which the job's `Report` is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Chosen by the node; unique while the sandbox lives.
    pub id: u64,
    /// Absolute path of the program inside the sandbox.
    pub program: Bytes,
    /// argv, with argv[0].
    pub argv: Vec<Bytes>,
    /// `NAME=value`, nothing else is in the environment.
    pub env: Vec<Bytes>,
    /// Working directory.
    pub cwd: Bytes,
    /// The submitter's umask.
    pub umask: u32,
    /// Writable directories, parents before children.
    pub outputs: Vec<OutputDir>,
    /// Limits.
    pub limits: Limits,
    /// Write-back of the whole-upper harvest is skipped (probes and self-tests).
    pub discard_outputs: bool,
    /// A second descriptor travels with it: whoever writes a 0 there is in the job's control group, whose limits of memory
    /// and processes the kernel enforces.
    pub grouped: bool,
}

/// From the node to a running sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToRunner {
    /// First frame.
    Setup(Setup),
    /// Start a job; one descriptor travels with it.
    Run(Job),
    /// Stop all its processes at once (reclaim).
    Stop(u64),
    /// Let them go on.
    Resume(u64),
    /// Kill it; its `Done` follows.
    Kill(u64),
}

/// From the sandbox to the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FromRunner {
    /// The sandbox stands.
    Ready {
        /// Which trap it could make.
        trap: Trap,
        /// Why not the better one, if so.
        trap_note: String,
    },
    /// It could not be made: one sentence for the user.
    Failed(String),
    /// All processes of a job are stopped.
    Stopped(u64),
    /// A job is over and all its processes are gone; its report is complete on its own socket.
    Done {
        /// Which.
        id: u64,
        /// Ids of poisons that were touched, in order of first touch.
        faults: Vec<u64>,
        /// More were touched than are listed.
        faults_overflow: bool,
    },
}

/// How a job's first process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Exit code.
    Exited(i32),
    /// Killed by a signal that was not ours.
    Signaled(i32),
    /// A limit stopped it.
    Limit(LimitKind),
    /// `Kill` or the end of the sandbox.
    Killed,
    /// It never ran: the sandbox could not be made for it, or the program not executed.
    NotStarted(String),
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LimitKind {
    /// Wall time.
    Wall,
    /// CPU time.
    Cpu,
    /// Resident or address space.
    Memory,
    /// Size of one file or of all.
    OutputBytes,
    /// Number of files.
    OutputFiles,
    /// Standard output or error.
    Stdio,
    /// Processes.
    Processes,
    /// What the kernel counts per user: pipes, locks, signals.
    KernelObjects,
}

/// One harvested change below an output directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Harvested {
    /// Index into `Job::outputs`.
    pub dir: u32,
    /// Path below it; no `.` or `..` components.
    pub path: Bytes,
    /// What is there.
    pub kind: HarvestKind,
}

/// What a job left under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HarvestKind {
    /// A regular file of this mode and size; its content follows the header, in order.
    File {
        /// Permission bits.
        mode: u32,
        /// Size in bytes.
        size: u64,
    },
    /// A new directory.
    Dir {
        /// Permission bits.
        mode: u32,
    },
    /// The name was removed (a whiteout that the job, not the node, made).
    Deleted,
    /// A poison was overwritten or removed: a fault; its id.
    PoisonWritten(u64),
    /// A poison of the lower layer was overwritten or removed; the node knows its id by the name.
    LowerWritten,
    /// Not taken: link, FIFO, device, socket, several links, unreadable, a name that must not be.
    Refused(String),
}

/// The head of what a job writes to its socket: `u32` length, this, then the contents of all `File`s in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// How it ended.
    pub end: End,
    /// Standard output, complete unless `end` is the stdio limit.
    pub stdout: Bytes,
    /// Standard error.
    pub stderr: Bytes,
    /// Wall time from the request to the end of the last process, in microseconds.
    pub wall_us: u64,
    /// User CPU of all its processes.
    pub user_us: u64,
    /// System CPU of all its processes.
    pub system_us: u64,
    /// CPU of the sandbox itself for this job: set-up and harvest.
    pub overhead_us: u64,
    /// Largest resident size of one process, in bytes.
    pub max_rss_bytes: u64,
    /// What it left.
    pub outputs: Vec<Harvested>,
}

/// A frame that is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than `FRAME_BYTES_MAX`.
    TooLong(usize),
    /// Not a message that this version understands.
    Malformed,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameError::TooLong(n) => write!(f, "frame of {n} bytes is longer than {FRAME_BYTES_MAX}"),
            FrameError::Malformed => f.write_str("not a message that this version of the runner understands"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Appends length and message to `out`; `out` is as before when the message is too long.
pub fn write_frame<T: Serialize>(out: &mut Vec<u8>, message: &T) -> Result<(), FrameError> {
    let start = out.len();
    let mut body = std::mem::take(out);
    body.extend_from_slice(&[0; 4]);
    *out = postcard::to_extend(message, body).expect("a Vec grows");
    let len = out.len() - start - 4;
    if len > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(FrameError::TooLong(len));
    }
    out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(())
}

/// The length that a frame's first four bytes announce, if it is allowed.
pub fn frame_len(head: [u8; 4]) -> Result<usize, FrameError> {
    let len = u32::from_le_bytes(head) as usize;
    if len > FRAME_BYTES_MAX { Err(FrameError::TooLong(len)) } else { Ok(len) }
}

/// Reads the message at the front of `buffer` and how many bytes it took; `None` if it is not complete yet.
pub fn read_frame<'a, T: Deserialize<'a>>(buffer: &'a [u8]) -> Result<Option<(T, usize)>, FrameError> {
    let Some((head, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let len = frame_len(*head)?;
    let Some(body) = rest.get(..len) else { return Ok(None) };
    let message = postcard::from_bytes(body).map_err(|_| FrameError::Malformed)?;
    Ok(Some((message, 4 + len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_and_half_a_frame_waits() {
        let mut buffer = Vec::new();
        write_frame(&mut buffer, &ToRunner::Stop(7)).unwrap();
        write_frame(&mut buffer, &ToRunner::Kill(8)).unwrap();
        assert!(read_frame::<ToRunner>(&buffer[..5]).unwrap().is_none());
        let (first, used) = read_frame::<ToRunner>(&buffer).unwrap().unwrap();
        assert!(matches!(first, ToRunner::Stop(7)));
        let (second, _) = read_frame::<ToRunner>(&buffer[used..]).unwrap().unwrap();
        assert!(matches!(second, ToRunner::Kill(8)));
    }

    #[test]
    fn a_hostile_length_takes_no_memory() {
        assert_eq!(read_frame::<ToRunner>(&[0xff; 8]).unwrap_err(), FrameError::TooLong(u32::MAX as usize));
        assert_eq!(read_frame::<ToRunner>(&[1, 0, 0, 0, 99]).unwrap_err(), FrameError::Malformed);
    }
}
