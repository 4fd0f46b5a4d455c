//! Simulated compilers: packed, sent, proved; and what others left here.

use potluck_api::view::{MachineState, SyncState, SyncView, ToolchainView};
use serde_json::{Value, json};

use super::pool::Pc;
use super::random::Random;

/// Bytes that one machine gets in a millisecond: 1 Gbit/s shared by those that get some.
const BYTES_PER_MS: u64 = 60_000;
/// A proof on another machine takes this long.
const PROVE_MS: u64 = 1500;
/// Machines that are sent to at a time.
const SENDING_MAX: usize = 3;
/// Packing a compiler.
const PACK_MS: u64 = 2500;

/// Where a toolchain is at one machine.
#[derive(Clone, Debug)]
pub(super) struct Sync {
    pub(super) machine: String,
    pub(super) state: SyncState,
    /// Bytes while it is sent, milliseconds while it is proved.
    done: u64,
    pub(super) note: String,
}

/// One compiler of this PC.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) path: String,
    pub(super) target: &'static str,
    pub(super) files: u32,
    pub(super) bytes: u64,
    /// Packed at this time.
    pub(super) packed_at: Option<u64>,
    pub(super) error: Option<String>,
    pub(super) at: Vec<Sync>,
}

impl Tool {
    fn new(random: &mut Random, name: &str, path: &str, target: &'static str, files: u32, bytes: u64) -> Self {
        let (id, at) = (random.id(), Vec::new());
        Self { id, name: name.into(), path: path.into(), target, files, bytes, packed_at: None, error: None, at }
    }

    /// One that a person named.
    pub(super) fn added(random: &mut Random, path: &str, now: u64) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path).chars().take(64).collect::<String>();
        let mut tool = Self::new(random, &name, path, "x86_64-linux-gnu", 190, 140_000_000);
        tool.packed_at = Some(now + PACK_MS);
        tool
    }

    /// It is there for the machines of the team.
    pub(super) fn meet(&mut self, pcs: &[Pc], state: SyncState) {
        self.at.retain(|sync| pcs.iter().any(|pc| pc.id == sync.machine));
        for pc in pcs {
            if !self.at.iter().any(|sync| sync.machine == pc.id) {
                self.at.push(Sync { machine: pc.id.clone(), state, done: 0, note: String::new() });
            }
        }
    }

    /// Asks for it everywhere where it is not ready.
    pub(super) fn send(&mut self) {
        for sync in &mut self.at {
            if matches!(sync.state, SyncState::Absent | SyncState::Failed) {
                (sync.state, sync.done, sync.note) = (SyncState::Waiting, 0, String::new());
            }
        }
    }

    /// Proves it again everywhere.
    pub(super) fn prove(&mut self) {
        for sync in self.at.iter_mut().filter(|s| s.state == SyncState::Ready) {
            (sync.state, sync.done) = (SyncState::Proving, 0);
        }
    }

    /// Nothing is under way.
    pub(super) fn settled(&self) -> bool {
        self.packed_at.is_none()
            && self
                .at
                .iter()
                .all(|s| matches!(s.state, SyncState::Ready | SyncState::Later | SyncState::Failed | SyncState::Absent))
    }

    /// Passes time; true when it has just become ready everywhere.
    pub(super) fn step(&mut self, now: u64, step_ms: u64, pcs: &[Pc]) -> bool {
        if self.packed_at.is_some_and(|at| at <= now) {
            self.packed_at = None;
        }
        if self.packed_at.is_some() || self.settled() {
            return false;
        }
        let mut sending = 0;
        for sync in &mut self.at {
            let Some(pc) = pcs.iter().find(|pc| pc.id == sync.machine && pc.online) else { continue };
            sync.state = match (sync.state, pc.state == MachineState::InUse) {
                (SyncState::Proving, true) => SyncState::Later,
                (SyncState::Later, false) => SyncState::Proving,
                (state, _) => state,
            };
            match sync.state {
                SyncState::Waiting if sending < SENDING_MAX => {
                    (sync.state, sending) = (SyncState::Sending, sending + 1)
                }
                SyncState::Sending => {
                    sending += 1;
                    sync.done += step_ms * BYTES_PER_MS;
                    if sync.done >= self.bytes {
                        (sync.state, sync.done) = (SyncState::Proving, 0);
                    }
                }
                SyncState::Proving => {
                    sync.done += step_ms;
                    if sync.done >= PROVE_MS {
                        sync.state = SyncState::Ready;
                    }
                }
                _ => {}
            }
        }
        self.settled()
    }

    pub(super) fn view(&self, pcs: &[Pc]) -> ToolchainView {
        let machines = self.at.iter().filter_map(|sync| {
            let pc = pcs.iter().find(|pc| pc.id == sync.machine)?;
            let percent = match sync.state {
                SyncState::Absent | SyncState::Waiting | SyncState::Failed => 0,
                SyncState::Sending => (sync.done * 100 / self.bytes.max(1)).min(100) as u8,
                SyncState::Proving | SyncState::Later | SyncState::Ready => 100,
            };
            let (machine, name, note) = (pc.id.clone(), pc.name.clone(), sync.note.clone());
            Some(SyncView { machine, name, state: sync.state, percent, note })
        });
        ToolchainView {
            id: if self.packed_at.is_some() || self.error.is_some() { String::new() } else { self.id.clone() },
            name: self.name.clone(),
            path: self.path.clone(),
            target: self.target.to_owned(),
            files: self.files,
            bytes: self.bytes,
            packing: self.packed_at.is_some(),
            error: self.error.clone(),
            machines: machines.collect(),
        }
    }

    /// As the command line knows it.
    pub(super) fn listed(&self, pcs: &[Pc]) -> Value {
        let peers: Vec<Value> = self
            .view(pcs)
            .machines
            .into_iter()
            .map(|m| json!({"id": m.machine, "name": m.name, "state": m.state, "note": m.note}))
            .collect();
        let version = self.name.split(' ').nth(1).unwrap_or_default();
        json!({
            "id": self.id, "name": self.name, "driver": self.path, "version": version, "target": self.target,
            "files": self.files, "bytes": self.bytes, "peers": peers,
        })
    }
}

/// The three of the mock-ups: gcc is missing on one machine, mingw was never sent.
pub(super) fn usual(random: &mut Random, pcs: &[Pc]) -> Vec<Tool> {
    let mut gcc = Tool::new(random, "gcc 14.2.0", "/usr/bin/gcc-14", "x86_64-linux-gnu", 214, 182_000_000);
    let mut clang = Tool::new(random, "clang 19.1.7", "/usr/bin/clang-19", "x86_64-linux-gnu", 342, 311_000_000);
    let (name, path) = ("x86_64-w64-mingw32-gcc 13.0", "/usr/bin/x86_64-w64-mingw32-gcc");
    let mut mingw = Tool::new(random, name, path, "x86_64-w64-mingw32", 160, 96_000_000);
    gcc.meet(pcs, SyncState::Ready);
    clang.meet(pcs, SyncState::Ready);
    mingw.meet(pcs, SyncState::Absent);
    if let Some(pc) = pcs.iter().find(|pc| pc.name == "old-nuc")
        && let Some(sync) = gcc.at.iter_mut().find(|s| s.machine == pc.id)
    {
        sync.state = SyncState::Absent;
    }
    vec![gcc, clang, mingw]
}
