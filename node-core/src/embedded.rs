//! A node inside another program, the tray app: a thread of its own that is told to end, instead of by a signal. Whoever
//! embeds it speaks to it by its socket, like to any other node.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use rustix::thread::{UnshareFlags, unshare_unsafe};
use tokio::sync::oneshot;

use crate::node::{self, Options};

/// A node as the tray app runs it: what a person wants of it is in its settings, and not in arguments.
pub fn options() -> Options {
    Options {
        // Two people may be at one PC: the second one's node listens elsewhere, and others learn its port.
        listen: None,
        discovery: true,
        desktop: true,
        web: None,
        serve: None,
        local_slots: None,
        local_compiles: None,
        name: None,
        no_fuse: false,
        quota_bytes: potluck_model::limits::MIRROR_QUOTA_BYTES,
    }
}

/// A node that runs in this process. Dropped, it ends as well, but nobody waits for that.
pub struct Handle {
    quit: oneshot::Sender<()>,
    ended: mpsc::Receiver<Result<(), String>>,
}

impl Handle {
    /// Ends the node: jobs of others are handed back. True if it was over within that time.
    pub fn stop(self, within: Duration) -> bool {
        let _ = self.quit.send(());
        !matches!(self.ended.recv_timeout(within), Err(mpsc::RecvTimeoutError::Timeout))
    }

    /// None while it runs; then how it ended.
    pub fn ended(&self) -> Option<Result<(), String>> {
        match self.ended.try_recv() {
            Ok(result) => Some(result),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => Some(Err("the node ended by a mistake of its own".to_owned())),
        }
    }
}

/// Starts a node and waits until it listens. The error is a sentence for the user.
pub fn start_embedded(options: Options) -> Result<Handle, String> {
    let (quit, told) = oneshot::channel();
    let (tx, ended) = mpsc::channel();
    let (ready_tx, ready) = mpsc::channel::<SocketAddr>();
    let node = move || {
        let run = || {
            // The node's file mode mask is 0, and the program around it shall keep its own.
            // SAFETY: this thread's view of root, working directory and mask becomes its own and stays what it is; no
            // descriptor is closed and no memory is shared differently.
            unsafe { unshare_unsafe(UnshareFlags::FS) }.map_err(|e| format!("a thread for the node: {e}"))?;
            node::host(options, Some(told), |listen| {
                let _ = ready_tx.send(listen);
            })
        };
        let _ = tx.send(run());
    };
    std::thread::Builder::new().name("node".to_owned()).spawn(node).map_err(|e| format!("a thread: {e}"))?;
    match ready.recv() {
        Ok(_) => Ok(Handle { quit, ended }),
        // It ended before it listened, and says why.
        Err(_) => Err(match ended.recv() {
            Ok(Err(error)) => error,
            _ => "the node ended while it started".to_owned(),
        }),
    }
}
