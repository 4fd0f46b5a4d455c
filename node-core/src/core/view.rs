//! What is shown: records of jobs, totals, peers; and the management calls. JSON in, JSON out; every number has its
//! source in `Core`.

use std::path::PathBuf;
use std::time::Duration;

use potluck_api::call::{Call, FOCUS_EVERY_S};
use potluck_model::ids::{NodeId, ToolchainId};
use potluck_model::limits::JOB_RECORDS_MAX;
use potluck_model::reason::Reason;
use potluck_wire::{ipc, pool};
use serde::Serialize;
use serde_json::{Value, json};

use super::job::Job;
use super::peers::{Stage, stage_word};
use super::submit::Ask;
use super::{ConnId, Core, Replies};
use crate::bytes;
use crate::cpu_group::CpuGroup;
use crate::guest::Served;
use crate::root::Asker;
use crate::toolchain::Environment;

/// A window that is looked at says so every [`FOCUS_EVERY_S`]; one that vanished is believed no longer than this.
const FOCUS_LASTS: Duration = Duration::from_secs(FOCUS_EVERY_S + 10);
/// To whoever names a path of another root.
const OTHER_ROOT: &str = "this was asked in another root than the node's (a container, chroot or mount namespace), and only \
    compilers of its own are packed\nhint: compiles in there run there; run this outside, or a node inside";

/// One job of this submitter.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    role: &'static str,
    job: u64,
    /// Milliseconds since 1970 at its end.
    at_ms: u64,
    source: String,
    cwd: String,
    #[serde(rename = "where")]
    place: &'static str,
    reason: Option<String>,
    worker: Option<String>,
    worker_name: Option<String>,
    exit: Option<i32>,
    faults: Vec<String>,
    retries: u32,
    bytes_up: u64,
    bytes_down: u64,
    worker_cpu_us: u64,
    worker_overhead_us: u64,
    worker_wall_us: u64,
    wall_us: u64,
    note: String,
}

/// Somebody who waits until toolchains are where they shall be.
pub(crate) struct Watcher {
    /// Beginning of an id; all if there is none.
    id: Option<String>,
    conn: ConnId,
    replies: Replies,
}

impl Watcher {
    pub(super) fn is_of(&self, conn: ConnId) -> bool {
        self.conn == conn
    }
}

impl Core {
    pub(super) fn api(&mut self, conn: ConnId, asker: Asker, text: &str, replies: Replies) {
        let (answer, last) = match serde_json::from_str::<Call>(text) {
            Err(error) => (json!({"error": format!("not a call of this version: {error}")}), true),
            Ok(Call::ToolchainSync { id, watch }) => {
                let answer = self.toolchain_sync(id.as_deref());
                let over = !watch || answer.get("error").is_some() || answer["done"] == true;
                if !over {
                    self.watchers.push(Watcher { id, conn, replies: replies.clone() });
                }
                (answer, over)
            }
            Ok(Call::AskedHere) => (json!({"own_root": asker == Asker::OwnRoot}), true),
            // Its path is another file here.
            Ok(Call::ToolchainAdd { .. }) if asker == Asker::OtherRoot => (json!({"error": OTHER_ROOT}), true),
            Ok(Call::ToolchainAdd { path, env }) => {
                let entries: Vec<Vec<u8>> = env.into_iter().map(String::into_bytes).collect();
                return self.pack_named(
                    path,
                    Environment::from_entries(&entries).in_root(self.tree.root()).without("PWD"),
                    replies,
                );
            }
            Ok(Call::Watch { every_ms }) => return self.add_watching(conn, every_ms, replies),
            Ok(Call::Ui) => return self.web.answer(replies),
            Ok(
                call @ (Call::Share { .. }
                | Call::Pause { .. }
                | Call::Resume
                | Call::ShareSettings { .. }
                | Call::Reread
                | Call::Role { .. }
                | Call::NotifySettings { .. }
                | Call::TrustSettings { .. }),
            ) => return self.share_call(call, replies),
            Ok(
                call @ (Call::Builds { .. }
                | Call::Report { .. }
                | Call::Jobs { .. }
                | Call::BuildBegin { .. }
                | Call::BuildEnd { .. }
                | Call::BuildForget { .. }
                | Call::Explain { .. }),
            ) => return self.builds_call(conn, call, replies),
            Ok(call) => match self.team_stream(call, &replies) {
                None => return,
                Some(call) => (self.call(call), true),
            },
        };
        let _ = replies.send(ipc::Reply::Api { json: answer.to_string(), last });
    }

    fn call(&mut self, call: Call) -> Value {
        if let Some(answer) = self.team_call(&call) {
            return answer;
        }
        match call {
            Call::Status => self.status(),
            Call::Snapshot => json!(self.snapshot()),
            Call::Doctor => json!(self.checks()),
            Call::Log { limit, role } => self.log(limit.unwrap_or(usize::MAX), role.as_deref()),
            Call::Audit => self.audit_view(),
            Call::AuditRebuild => self.audit_rebuild(),
            Call::AuditForgive { node } => self.audit_forgive(&node),
            Call::Toolchains => self.toolchains(),
            Call::ToolchainVerify { id } => {
                let ids = match self.chosen(id.as_deref()) {
                    Ok(ids) => ids,
                    Err(error) => return json!({"error": error}),
                };
                for peer in self.peers.values_mut() {
                    peer.toolchains.retain(|t, _| !ids.contains(t));
                }
                for id in ids {
                    self.want_toolchain(id);
                }
                json!({"ok": true})
            }
            Call::ToolchainShow { id } => self.toolchain_show(&id),
            Call::Dismiss { id } => {
                self.dismiss(&id);
                json!({"ok": true})
            }
            Call::Focus { on } => {
                self.builds.looked_at_until = on.then(|| self.now() + FOCUS_LASTS);
                json!({"ok": true})
            }
            Call::PeersAdd { address } => self.peers_add(&address),
            Call::PeersRemove { address } => self.peers_remove(address),
            Call::TeamCreate { name } => {
                match self.membership.create(&name, &self.settings.name, &self.own_addresses()) {
                    Ok(team) => json!({"ok": true, "team": team.to_string()}),
                    Err(error) => json!({"error": error.to_string()}),
                }
            }
            Call::Suggest => {
                let remote: u32 = self
                    .submitter
                    .peers(self.now())
                    .filter(|p| p.up)
                    .map(|p| p.credits.max(self.offered(p.peer)))
                    .sum();
                json!({"jobs": self.settings.local_compiles + remote + remote.div_ceil(5)})
            }
            Call::Forget { submitter } => match submitter.parse::<NodeId>() {
                Ok(id) => json!({"ok": self.guests.forget(id)}),
                Err(error) => json!({"error": error.to_string()}),
            },
            Call::Stop => {
                let _ = self.events.send(super::Event::Quit);
                json!({"ok": true})
            }
            // These answer later and are taken before.
            Call::Share { .. }
            | Call::Pause { .. }
            | Call::Resume
            | Call::ShareSettings { .. }
            | Call::Reread
            | Call::Role { .. }
            | Call::NotifySettings { .. }
            | Call::TrustSettings { .. }
            | Call::ToolchainSync { .. }
            | Call::ToolchainAdd { .. } => {
                json!({"error": "not a call that answers at once"})
            }
            other => json!({"error": format!("this node does not answer {other:?}")}),
        }
    }

    fn offered(&self, peer: NodeId) -> u32 {
        self.peers.get(&peer).map_or(0, |p| p.offered)
    }

    /// Addresses that others can be told: the one listened on, or those of the interfaces if that is every one.
    pub(crate) fn own_addresses(&self) -> Vec<String> {
        let listen = self.settings.listen;
        if !listen.ip().is_unspecified() {
            return vec![listen.to_string()];
        }
        let mut out: Vec<String> = crate::net::own_ips()
            .into_iter()
            .filter(|ip| listen.is_ipv6() || ip.is_ipv4())
            .map(|ip| std::net::SocketAddr::new(ip, listen.port()).to_string())
            .collect();
        if out.is_empty() {
            out.push(format!("127.0.0.1:{}", listen.port()));
        }
        out.truncate(8);
        out
    }

    pub(crate) fn status(&self) -> Value {
        let team = self.membership.list();
        let safe_box = &self.sharing.shared.safe_box;
        let group = safe_box.checked.then(CpuGroup::of_jobs).flatten();
        let group = group.map(|g| json!({"path": g.path, "weight": g.weight, "usual": g.usual}));
        let peers: Vec<Value> = self
            .submitter
            .peers(self.now())
            .filter(|view| self.is_shown(view.peer, view.up))
            .map(|view| {
                let known = self.peers.get(&view.peer);
                let hello = known.and_then(|p| p.hello.as_ref());
                json!({
                    "id": view.peer.to_string(),
                    "name": hello.map_or("", |h| &h.name),
                    "addr": known.map_or("", |p| &p.address),
                    "connected": view.up,
                    "found_by": self.found_by(view.peer),
                    "slots": hello.map_or(0, |h| h.slots),
                    "credits": view.credits,
                    "held": known.map_or("", |p| &p.held),
                    "running": view.out,
                    "paused": view.paused,
                    "speed": view.speed,
                    "rtt_us": known.map_or(0, |p| p.rtt.as_micros() as u64),
                    "clock_skew_us": known.map_or(0, |p| p.clock_skew_us),
                    "toolchains": known.map_or_else(Vec::new, |p| p.toolchains.iter()
                        .filter(|(_, s)| matches!(s, Stage::Ready)).map(|(t, _)| t.to_string()).collect::<Vec<_>>()),
                    "trap": known.map_or("", |p| &p.trap),
                    "not_serving": hello.map_or("", |h| &h.not_serving),
                    "arch": hello.map_or("", |h| &h.arch),
                    "version": hello.map_or("", |h| &h.app_version),
                    "marks": self.marks.get(&view.peer).cloned().unwrap_or_default(),
                })
            })
            .collect();
        let linked: Vec<Value> = self
            .peers
            .iter()
            .filter(|(_, p)| p.link.is_some() && p.hello.as_ref().is_some_and(|h| h.slots == 0))
            .map(|(id, p)| {
                let hello = p.hello.as_ref();
                json!({
                    "id": id.to_string(), "name": hello.map_or("", |h| &h.name), "addr": p.address, "connected": true,
                    "found_by": self.found_by(*id),
                    "slots": 0, "credits": 0, "running": 0, "toolchains": [], "trap": "",
                    "not_serving": hello.map_or("", |h| &h.not_serving),
                })
            })
            .collect();
        let mut all = peers;
        for peer in linked {
            if !all.iter().any(|p| p["id"] == peer["id"]) {
                all.push(peer);
            }
        }
        json!({
            "schema": 1,
            "node": {
                "id": self.membership.identity().id().to_string(),
                "name": self.settings.name,
                "version": env!("CARGO_PKG_VERSION"),
                "listen": self.settings.listen.to_string(),
                "pid": std::process::id(),
                "up_s": self.started.elapsed().as_secs(),
                "key": if self.team.key == Some(potluck_api::view::KeyPlace::Keyring) { "keyring" } else { "file" },
            },
            "team": if team.joined { json!({"id": team.id, "name": team.name, "members": team.members}) } else { Value::Null },
            "sharing": self.share_status(),
            "sandbox": {
                "ok": safe_box.checked && safe_box.fault.is_none(),
                "checked": safe_box.checked,
                "note": safe_box.fault.clone().unwrap_or_default(),
                "report": safe_box.report,
                "cpu_group": group,
                "limits": crate::job_group::enforced(),
            },
            "peers": all,
            "floods": self.floods_status(),
            "discovery": self.discovery_status(),
            "jobs": {
                "remote": self.totals.remote,
                "local": self.totals.local,
                "running": self.submitter.unfinished(),
                "waiting": self.submitter.waiting(),
                "faults": self.totals.faults,
                "retries": self.totals.retries,
                "runs": self.totals.runs,
                "void": self.totals.void,
                "refusals": self.totals.refusals,
                "version_refusals": self.totals.version_refusals,
                "unpredicted": self.totals.unpredicted,
                "fault_refusals": self.totals.fault_refusals,
                "bad_outputs": self.totals.bad_outputs,
                "differing": self.totals.differing,
            },
            "served": {"jobs": self.served_jobs, "running": self.guests.running()},
            "mirrors": self.scrub_status(),
            "bytes": {"up": self.totals.bytes_up, "down": self.totals.bytes_down},
            "tree": self.tree.counts,
            "packing": self.compilers.is_packing(),
            "key": self.team.key,
            "problems": self.problem_status(),
        })
    }

    fn log(&self, limit: usize, role: Option<&str>) -> Value {
        let mut lines: Vec<Value> = Vec::new();
        if role != Some("worker") {
            lines.extend(self.records.iter().filter_map(|r| serde_json::to_value(r).ok()));
        }
        if role != Some("submitter") {
            lines.extend(self.served.iter().filter_map(|served| {
                let mut line = serde_json::to_value(served).ok()?;
                if let Some(peer) = self.peers.get(&served.peer) {
                    line["submitter_name"] = json!(name_of(peer, served.peer));
                }
                Some(line)
            }));
        }
        let skip = lines.len().saturating_sub(limit);
        json!({"lines": &lines[skip..]})
    }

    /// A job of which a record is left, by its number or source.
    pub(super) fn explain_job(&self, what: &str, cwd: Option<&str>) -> Option<Value> {
        let wanted = match cwd {
            Some(cwd) => PathBuf::from(cwd).join(what).to_string_lossy().into_owned(),
            None => what.to_owned(),
        };
        let found = self.records.iter().rev().find(|r| {
            r.job.to_string() == what
                || r.source == what
                || PathBuf::from(&r.cwd).join(&r.source).to_string_lossy() == wanted
        });
        let record = found?;
        let reason = record.reason.as_deref().and_then(Reason::from_code);
        Some(json!({"job": record, "text": reason.map_or("", |r| r.sentence())}))
    }

    fn chosen(&self, id: Option<&str>) -> Result<Vec<ToolchainId>, String> {
        let all: Vec<ToolchainId> = self.compilers.packed.keys().copied().collect();
        match id {
            None => Ok(all),
            Some(prefix) => {
                let found: Vec<_> = all.into_iter().filter(|t| t.to_string().starts_with(prefix)).collect();
                if found.is_empty() {
                    Err(format!("no toolchain {prefix}; potluck toolchain list shows all"))
                } else {
                    Ok(found)
                }
            }
        }
    }

    fn toolchains(&self) -> Value {
        let own: Vec<Value> = self
            .compilers
            .packed
            .iter()
            .map(|(id, packed)| {
                let peers: Vec<Value> = self
                    .peers
                    .iter()
                    .filter(|(_, p)| p.link.is_some() && p.hello.as_ref().is_some_and(|h| h.slots > 0))
                    .map(|(peer, p)| {
                        let (word, note) = match p.toolchains.get(id) {
                            Some(stage) => stage_word(stage, !p.held.is_empty()),
                            None if p.trap == "none" => ("failed", "it has no sandbox".to_owned()),
                            None => ("waiting", String::new()),
                        };
                        json!({"id": peer.to_string(), "name": name_of(p, *peer), "state": word, "note": note})
                    })
                    .collect();
                let manifest = &packed.manifest;
                json!({
                    "id": id.to_string(),
                    "name": crate::toolchain::pack::display_name(manifest),
                    "driver": manifest.driver,
                    "version": manifest.version,
                    "target": manifest.target,
                    "files": manifest.entries.len(),
                    "bytes": manifest.content_bytes(),
                    "peers": peers,
                })
            })
            .collect();
        let failed: Vec<Value> =
            self.compilers.failures().into_iter().map(|(path, why)| json!({"driver": path, "error": why})).collect();
        json!({"toolchains": own, "failed": failed, "packing": self.compilers.is_packing(), "progress": self.compilers.progress})
    }

    fn toolchain_show(&self, id: &str) -> Value {
        let ids = match self.chosen(Some(id)) {
            Ok(ids) => ids,
            Err(error) => return json!({"error": error}),
        };
        let Some(packed) = ids.first().and_then(|id| self.compilers.packed.get(id)) else {
            return json!({"error": "gone"});
        };
        let files: Vec<Value> = packed
            .manifest
            .files()
            .map(|(path, digest, size)| json!({"path": path, "digest": digest.to_string(), "bytes": size}))
            .collect();
        json!({"id": ids[0].to_string(), "driver": packed.manifest.driver, "version": packed.manifest.version, "files": files, "directories": packed.manifest.dirs.len()})
    }

    fn toolchain_sync(&mut self, id: Option<&str>) -> Value {
        match self.chosen(id) {
            Err(error) => json!({"error": error}),
            Ok(ids) => {
                for peer in self.peers.values_mut() {
                    // Where it failed it is tried again: somebody may have mended what was wrong there.
                    peer.toolchains.retain(|t, stage| !(ids.contains(t) && matches!(stage, Stage::Failed(_))));
                }
                for id in ids {
                    self.want_toolchain(id);
                }
                self.sync_state(id)
            }
        }
    }

    /// How far the toolchains whose id begins so are everywhere; `done` when nothing of it is under way now.
    fn sync_state(&self, id: Option<&str>) -> Value {
        let mut state = self.toolchains();
        if let (Some(prefix), Some(tools)) = (id, state["toolchains"].as_array_mut()) {
            tools.retain(|t| t["id"].as_str().is_some_and(|id| id.starts_with(prefix)));
        }
        let settled = |peer: &Value| ["ready", "failed", "later"].iter().any(|state| peer["state"] == *state);
        let done = (id.is_some() || state["packing"] == false)
            && state["toolchains"]
                .as_array()
                .is_some_and(|l| l.iter().all(|t| t["peers"].as_array().is_some_and(|p| p.iter().all(settled))));
        state["done"] = json!(done);
        state
    }

    /// Whoever watches a sync hears of every step.
    pub(super) fn tell_watchers(&mut self) {
        let mut watchers = std::mem::take(&mut self.watchers);
        watchers.retain(|watcher| {
            let state = self.sync_state(watcher.id.as_deref());
            let last = state["done"] == true;
            watcher.replies.send(ipc::Reply::Api { json: state.to_string(), last }).is_ok() && !last
        });
        self.watchers = watchers;
    }

    pub(super) fn record_remote(&mut self, job: &Job, source: &std::path::Path, peer: NodeId, result: &pool::Result) {
        let wall = self.asks.get(&job.ask).map_or(0, |a| a.asked_at.elapsed().as_micros() as u64);
        let record = Record {
            role: "submitter",
            job: result.id,
            at_ms: Self::clock_us() / 1000,
            source: source.to_string_lossy().into_owned(),
            cwd: job.want.cwd.to_string_lossy().into_owned(),
            place: "remote",
            reason: None,
            worker: Some(peer.to_string()),
            worker_name: self.peers.get(&peer).map(|p| name_of(p, peer)),
            exit: Some(result.value),
            faults: job.faults.iter().map(|f| bytes::show(f)).collect(),
            retries: job.tries.saturating_sub(1),
            bytes_up: job.bytes_up,
            bytes_down: job.bytes_down,
            worker_cpu_us: result.cpu_us,
            worker_overhead_us: result.overhead_us,
            worker_wall_us: result.wall_us,
            wall_us: wall,
            note: job.note.clone(),
        };
        self.keep_record(record);
    }

    pub(super) fn record_local(&mut self, ask: &Ask, reason: &Reason, note: String) {
        let source =
            ask.plans.first().map(|p| p.source.to_string_lossy().into_owned()).or_else(|| {
                ask.compile.argv.iter().skip(1).rev().find(|a| !a.starts_with(b"-")).map(|a| bytes::show(a))
            });
        let record = Record {
            role: "submitter",
            job: ask.conn,
            at_ms: Self::clock_us() / 1000,
            source: source.unwrap_or_default(),
            cwd: bytes::show(&ask.compile.cwd),
            place: "local",
            reason: Some(reason.to_string()),
            worker: None,
            worker_name: None,
            exit: None,
            faults: Vec::new(),
            retries: 0,
            bytes_up: 0,
            bytes_down: 0,
            worker_cpu_us: 0,
            worker_overhead_us: 0,
            worker_wall_us: 0,
            wall_us: ask.asked_at.elapsed().as_micros() as u64,
            note,
        };
        self.keep_record(record);
    }

    /// How a compile ended here. True: it had failed elsewhere, and worked.
    pub(super) fn note_local_exit(&mut self, conn: ConnId, exit: i32) -> bool {
        let record = self.records.iter_mut().rev().find(|r| r.place == "local" && r.job == conn);
        let Some(record) = record else { return false };
        record.exit = Some(exit);
        let differs = exit == 0 && record.reason == Some(Reason::RemoteErrorLocalError.to_string());
        if differs {
            record.reason = Some(Reason::RemoteErrorLocalOk.to_string());
        }
        differs
    }

    fn keep_record(&mut self, record: Record) {
        if self.records.len() >= JOB_RECORDS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    pub(super) fn keep_served(&mut self, served: Served) {
        if self.served.len() >= JOB_RECORDS_MAX {
            self.served.pop_front();
        }
        self.served.push_back(served);
    }
}

pub(super) fn name_of(peer: &super::peers::Peer, id: NodeId) -> String {
    peer.hello.as_ref().map(|h| h.name.clone()).filter(|n| !n.is_empty()).unwrap_or_else(|| id.short())
}
