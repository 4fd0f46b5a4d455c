//! A worker that lies: everything a submitter sends it goes on to an honest worker of another team, and everything that
//! comes back is passed on as it likes. So it proves toolchains, runs jobs, and tells the truth until told not to.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use potluck_model::ids::{Digest, NodeId};
use potluck_node::core_content;
use potluck_node::signed::{self, Signer};
use potluck_node::transport::Link;
use potluck_wire::pool::{self, Chunk, DeltaOps, Frame, frame::Kind};
use prost::Message;
use tokio::sync::mpsc;

use super::peer::Hostile;
use crate::Outcome;

/// What is done to the results of jobs.
pub type Tamper = Box<dyn FnMut(&mut pool::Result) + Send>;

/// What the submitter's words held that no worker may see.
pub const SECRET: &[u8] = b"LAB-SECRET";

#[derive(Default)]
struct State {
    tamper: Option<Tamper>,
    /// Jobs of real builds: proofs are answered honestly.
    jobs: HashSet<u64>,
    /// What was asked, until it is answered: what is told is signed, lies too.
    asked: HashMap<u64, Digest>,
    tampered: usize,
    passed: usize,
    /// Where the secret was seen.
    leaks: Vec<String>,
    /// Large contents on their way.
    coming: HashMap<u64, (bool, Vec<u8>)>,
}

/// The lying worker. Ends with its two members.
pub struct Relay {
    state: Arc<Mutex<State>>,
    _ends: [potluck_node::transport::link::CloseOnDrop; 2],
}

impl Relay {
    /// Connects `front` to the submitter and `back` to the worker that does the work.
    pub fn start(front: &Hostile, submitter: &str, back: &Hostile, worker: &str) -> Outcome<Self> {
        let Link { control_tx: to_work, control_rx: from_work, bulk_tx: bulk_to, bulk_rx: bulk_from, closer, .. } =
            back.link(worker)?;
        let behind = closer;
        let Link { control_tx, control_rx, bulk_tx, bulk_rx, closer, peer, .. } = front.link(submitter)?;
        let signer = (front.signer(), peer);
        let state = Arc::new(Mutex::new(State::default()));
        front.runtime.spawn(down(control_rx, to_work, Arc::clone(&state)));
        front.runtime.spawn(up(from_work, control_tx, Arc::clone(&state), signer));
        front.runtime.spawn(bulk_down(bulk_rx, bulk_to, Arc::clone(&state)));
        front.runtime.spawn(bulk_up(bulk_from, bulk_tx));
        Ok(Self { state, _ends: [behind, closer] })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// From now on results are passed on like this.
    pub fn tell(&self, tamper: Option<Tamper>) {
        self.state().tamper = tamper;
    }

    /// Results of jobs that were changed, and that were passed on at all.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.tampered, state.passed)
    }

    /// Where the secret was seen so far.
    pub fn leaks(&self) -> Vec<String> {
        self.state().leaks.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn down(mut from: mpsc::Receiver<Frame>, to: mpsc::Sender<Frame>, state: Arc<Mutex<State>>) {
    while let Some(frame) = from.recv().await {
        match &frame.kind {
            // Each side has a team of its own.
            Some(Kind::Gossip(_) | Kind::Evidence(_)) => continue,
            Some(Kind::Job(job)) => {
                let mut state = lock(&state);
                state.asked.insert(job.id, signed::asked(job));
                if !job.probe && !job.discard_outputs {
                    state.jobs.insert(job.id);
                }
            }
            Some(Kind::Delta(delta)) => look(delta, &mut lock(&state).leaks),
            _ => {}
        }
        if to.send(frame).await.is_err() {
            return;
        }
    }
}

async fn up(
    mut from: mpsc::Receiver<Frame>,
    to: mpsc::Sender<Frame>,
    state: Arc<Mutex<State>>,
    (signer, submitter): (Signer, NodeId),
) {
    while let Some(mut frame) = from.recv().await {
        match &mut frame.kind {
            Some(Kind::Gossip(_) | Kind::Evidence(_)) => continue,
            Some(Kind::Result(result)) => {
                let mut state = lock(&state);
                if state.jobs.contains(&result.id) {
                    state.passed += 1;
                    if let Some(mut tamper) = state.tamper.take() {
                        tamper(result);
                        state.tampered += 1;
                        state.tamper = Some(tamper);
                    }
                }
                if let Some(asked) = state.asked.remove(&result.id) {
                    for output in result.outputs.iter_mut().filter(|output| output.content.is_some()) {
                        if let Some(content) = core_content::inline(output) {
                            output.digest = Digest::of(&content).0.to_vec();
                        }
                    }
                    signer.sign(submitter, asked, result);
                }
            }
            _ => {}
        }
        if to.send(frame).await.is_err() {
            return;
        }
    }
}

async fn bulk_down(mut from: mpsc::Receiver<Chunk>, to: mpsc::Sender<Chunk>, state: Arc<Mutex<State>>) {
    while let Some(chunk) = from.recv().await {
        {
            let mut state = lock(&state);
            let coming = state.coming.entry(chunk.transfer).or_insert((chunk.zstd, Vec::new()));
            coming.1.extend_from_slice(&chunk.data);
            if chunk.last
                && let Some((packed, data)) = state.coming.remove(&chunk.transfer)
            {
                let data = if packed { zstd::stream::decode_all(&data[..]).unwrap_or(data) } else { data };
                if holds_secret(&data) {
                    state.leaks.push(format!("a large content of {} bytes", data.len()));
                }
            }
        }
        if to.send(chunk).await.is_err() {
            return;
        }
    }
}

async fn bulk_up(mut from: mpsc::Receiver<Chunk>, to: mpsc::Sender<Chunk>) {
    while let Some(chunk) = from.recv().await {
        if to.send(chunk).await.is_err() {
            return;
        }
    }
}

fn holds_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|w| w == SECRET)
}

/// Contents, names and link targets of a delta.
fn look(delta: &pool::Delta, leaks: &mut Vec<String>) {
    let raw = match delta.raw_bytes {
        0 => delta.ops.clone(),
        size => match zstd::bulk::decompress(&delta.ops, size as usize) {
            Ok(raw) => raw,
            Err(_) => return,
        },
    };
    if !holds_secret(&raw) {
        return;
    }
    let ops = DeltaOps::decode(&raw[..]).unwrap_or_default();
    for dir in &ops.dirs {
        let inside = dir.files.iter().filter(|f| f.content.as_deref().is_some_and(holds_secret));
        leaks.extend(
            inside.map(|f| format!("{}/{}", String::from_utf8_lossy(&dir.path), String::from_utf8_lossy(&f.name))),
        );
    }
}
