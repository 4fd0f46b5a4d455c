//! A member that sends one kind of message without end, and comes back whenever it is cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use potluck_node::transport;
use potluck_wire::pool::{Frame, frame::Kind};

use super::Hostile;
use super::peer::hello;
use crate::{Context, Outcome, Trouble};

/// Between two dials of a node that does not take this member.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The message of each number.
pub type Make = Box<dyn Fn(u64) -> Frame + Send>;

/// A flood until it is dropped.
pub struct Flood {
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    cut: Arc<AtomicU64>,
}

impl Flood {
    /// Messages that were sent, and how often the node hung up.
    pub fn figures(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.cut.load(Ordering::Relaxed))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Hostile {
    /// Floods the node at this address with what `make` makes, from a thread of this member's runtime.
    pub fn flood(&self, address: &str, make: Make) -> Outcome<Flood> {
        let address = address.parse().map_err(|_| Trouble::new(format!("{address} is no address")))?;
        let flood = Flood { over: Arc::default(), sent: Arc::default(), cut: Arc::default() };
        let (over, sent, cut) = (Arc::clone(&flood.over), Arc::clone(&flood.sent), Arc::clone(&flood.cut));
        let membership = Arc::clone(&self.membership);
        self.runtime.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let Ok(link) = transport::dial(&membership, address, None).await else {
                    tokio::time::sleep(AGAIN_AFTER).await;
                    continue;
                };
                let transport::Link { control_tx, mut control_rx, closer, .. } = link;
                tokio::spawn(async move { while control_rx.recv().await.is_some() {} });
                let mut next = Frame { kind: Some(Kind::Hello(hello())) };
                while !over.load(Ordering::Relaxed) && control_tx.send(next).await.is_ok() {
                    next = make(sent.fetch_add(1, Ordering::Relaxed));
                }
                cut.fetch_add(u64::from(!over.load(Ordering::Relaxed)), Ordering::Relaxed);
                drop(closer);
            }
        });
        Ok(flood)
    }

    /// Statements of this member that are rightly signed and say nothing that counts any more.
    pub fn outdated(&self, number: usize) -> Outcome<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        for n in 0..number {
            self.membership.rename(&format!("flood {n}"), &[]).context(|| "a new name".into())?;
            all.extend(self.membership.all());
        }
        all.sort();
        all.dedup();
        Ok(all)
    }
}
