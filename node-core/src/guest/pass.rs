//! A pass over a mirror: a thread that reads every file, slowly, while nobody needs the PC, and says what is not what it
//! should be. The guest's own thread hands it the files piece by piece, and decides: only it knows what they should be.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use potluck_model::limits::SCRUB_BYTES_PER_S;

use super::{Command, Told};
use crate::mirror::scrub::{Check, Cursor, Looked, read_below};

/// How long a pass that waits for the PC to be idle may not notice that its guest is gone.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// Whether nobody needs the PC. Shared by all guests; said by the node.
#[derive(Debug, Default)]
pub struct Idle {
    is: Mutex<bool>,
    changed: Condvar,
}

impl Idle {
    /// Says it.
    pub fn set(&self, idle: bool) {
        let mut is = self.is.lock().unwrap_or_else(PoisonError::into_inner);
        if *is != idle {
            *is = idle;
            self.changed.notify_all();
        }
    }

    /// Waits until it is. False: `over` came first.
    fn wait(&self, over: &AtomicBool) -> bool {
        let mut is = self.is.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is && !over.load(Ordering::Relaxed) {
            is = self.changed.wait_timeout(is, GONE_WITHIN).unwrap_or_else(PoisonError::into_inner).0;
        }
        !over.load(Ordering::Relaxed)
    }
}

/// What goes to and fro between the two threads.
pub struct Step {
    pub(super) cursor: Cursor,
    pub(super) looked: Looked,
    /// Files that were read and are as they should be, with their stamps.
    pub(super) sound: Vec<(Check, u64)>,
    /// Files that are not, or were replaced meanwhile.
    pub(super) suspects: Vec<Check>,
    /// For the next piece; without an answer the pass is over.
    pub(super) next: mpsc::Sender<(Step, Vec<Check>)>,
}

/// Starts the thread.
pub(super) fn start(
    root: std::os::fd::OwnedFd,
    commands: mpsc::Sender<Told>,
    idle: Arc<Idle>,
    over: Arc<AtomicBool>,
) -> std::io::Result<()> {
    let work = move || {
        yield_to_everybody();
        let (mut cursor, mut looked) = (Cursor::default(), Looked::default());
        let (mut sound, mut suspects) = (Vec::new(), Vec::new());
        loop {
            let (next, answer) = mpsc::channel();
            let step = Step { cursor, looked, sound, suspects, next };
            let told = Told { command: Command::Step(Box::new(step)), session: 0, bytes: 0 };
            // Whoever drops the step ends the pass.
            if commands.send(told).is_err() {
                return;
            }
            let Ok((answered, piece)) = answer.recv() else { return };
            Step { cursor, looked, sound, suspects, .. } = answered;
            for check in piece {
                let mut pace = Pace { began: Instant::now(), read: 0 };
                let mut go_on = || pace.go_on(&idle, &over);
                if !go_on() {
                    return;
                }
                looked.bytes += check.bytes();
                match read_below(&root, &check, &mut go_on) {
                    Some(stamp) => sound.push((check, stamp)),
                    None => suspects.push(check),
                }
            }
        }
    };
    std::thread::Builder::new().name("scrub".into()).stack_size(256 << 10).spawn(work).map(drop)
}

/// No faster than [`SCRUB_BYTES_PER_S`], and only while nobody needs the PC.
struct Pace {
    began: Instant,
    read: u64,
}

impl Pace {
    /// Before each MiB.
    fn go_on(&mut self, idle: &Idle, over: &AtomicBool) -> bool {
        let due = Duration::from_secs_f64(self.read as f64 / SCRUB_BYTES_PER_S as f64);
        std::thread::sleep(due.saturating_sub(self.began.elapsed()));
        self.read += 1 << 20;
        idle.wait(over)
    }
}

/// This thread reads when no other one wants the disk, and computes when no other one wants the CPU.
fn yield_to_everybody() {
    /// ioprio_set(2): of one thread, class "idle".
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: takes three numbers; 0 is the calling thread. Where it fails the pace alone must do.
    unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE) };
    // On Linux a nice value is a thread's; 0 is the calling one.
    let _ = rustix::process::setpriority_process(None, 19);
}
