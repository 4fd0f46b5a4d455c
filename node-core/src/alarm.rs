//! One timer for one waiter, kept by the kernel. The runtime's own wheel would wake the process up to three times for each
//! time that it is told, and once more whenever an earlier one is asked for: on a submitter that was every third wake, and
//! on an idle node, whose timers are seconds away, half of all.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// See the module.
pub struct Alarm {
    fd: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// Not set yet. Inside a runtime.
    pub fn new() -> std::io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { fd: crate::ipc::register(fd, Interest::READABLE)? })
    }

    /// Goes off once after `wait`, and not when it was to before.
    pub fn set(&self, wait: Duration) {
        // Zero would mean never.
        let wait = wait.max(Duration::from_nanos(1));
        let at = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        // It fails for times that are none only.
        let _ = timerfd_settime(self.fd.as_fd(), TimerfdTimerFlags::empty(), &once);
    }

    /// Until it goes off.
    pub async fn rings(&self) {
        let mut count = [0; 8];
        loop {
            let Ok(mut ready) = self.fd.readable().await else { return };
            match rustix::io::read(&self.fd, &mut count) {
                // Set anew since it rang.
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_goes_off_when_it_was_set_to_last() {
        let alarm = Alarm::new().unwrap();
        let start = Instant::now();
        alarm.set(Duration::ZERO);
        alarm.rings().await;
        alarm.set(Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(5));
        // It rang and nobody heard it: that is void.
        alarm.set(Duration::from_millis(50));
        alarm.rings().await;
        assert!(start.elapsed() >= Duration::from_millis(55));
    }
}
