//! Whether a mirror still holds what its submitter sent: looked at before jobs use it, and read whole in idle time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{GuestEvent, Thread, pass};
use crate::bytes;
use crate::mirror::MirrorError;
use crate::mirror::scrub::Looked;

/// What a job uses was looked at within this time before it began ...
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// ... or within this many times what a look takes: half a per cent of a guest's time. A hundred thousand files take a fifth
/// of a second.
const SWEEP_SHARE: u32 = 200;
/// Names that an error lists.
const LISTED_MAX: usize = 3;

impl Thread {
    /// Before a job: a file that somebody changed on the disk must not become an object.
    pub(super) fn sweep_if_due(&mut self) -> Result<(), MirrorError> {
        let (at, took) = self.swept;
        let Some(mirror) = self.mirror.as_mut().filter(|_| at.elapsed() >= SWEEP_EVERY.max(took * SWEEP_SHARE)) else {
            return Ok(());
        };
        let began = Instant::now();
        let looked = mirror.sweep()?;
        self.swept = (Instant::now(), began.elapsed());
        self.tell_of(looked, false)
    }

    /// Tells the node. An error: something was not what it should be, and both sides begin anew.
    fn tell_of(&self, looked: Looked, is_pass_over: bool) -> Result<(), MirrorError> {
        let rotten = looked.rotten.clone();
        (self.events)(GuestEvent::Looked(self.peer, looked, is_pass_over));
        if rotten.is_empty() {
            return Ok(());
        }
        let listed: Vec<String> = rotten.iter().take(LISTED_MAX).map(|path| bytes::show(path)).collect();
        let more =
            if rotten.len() > LISTED_MAX { format!(" and {} more", rotten.len() - LISTED_MAX) } else { String::new() };
        Err(MirrorError::Io(format!("{}{more} had changed on this PC's disk and is fetched anew", listed.join(", "))))
    }

    /// A mirror that was not opened needs none: whatever opens it reads it whole.
    pub(super) fn begin_pass(&mut self) -> Result<(), MirrorError> {
        if self.pass.is_some() {
            return Ok(());
        }
        let Some(mirror) = &self.mirror else { return self.tell_of(Looked::default(), true) };
        let over = Arc::new(AtomicBool::new(false));
        let idle = Arc::clone(&self.settings.idle);
        pass::start(mirror.root_for_reading()?, self.commands.clone(), idle, Arc::clone(&over))?;
        self.pass = Some(over);
        Ok(())
    }

    /// Takes what a pass has found, and gives it more to read.
    pub(super) fn next_step(&mut self, mut step: pass::Step) -> Result<(), MirrorError> {
        let Some(mirror) = self.mirror.as_mut().filter(|_| self.pass.is_some()) else {
            // Begun over a mirror that was given up since: the next one was read whole.
            self.end_pass();
            return self.tell_of(step.looked, true);
        };
        for (check, stamp) in step.sound.drain(..) {
            mirror.is_sound(&check, stamp);
        }
        for check in step.suspects.drain(..) {
            step.looked.rotten.extend(mirror.is_rotten(&check)?);
        }
        let piece = mirror.next_piece(&mut step.cursor, &mut step.looked)?;
        match piece.filter(|_| step.looked.rotten.is_empty()) {
            Some(piece) => {
                let next = step.next.clone();
                // It has ended, and with it the pass.
                if next.send((step, piece)).is_err() {
                    self.end_pass();
                }
                Ok(())
            }
            None => {
                self.end_pass();
                self.tell_of(step.looked, true)
            }
        }
    }

    pub(super) fn end_pass(&mut self) {
        if let Some(over) = self.pass.take() {
            over.store(true, Ordering::Relaxed);
        }
    }
}
