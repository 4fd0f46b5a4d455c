//! Calls to the simulated node: the same as a real one's, with the same kinds of refusals.

use potluck_api::build::{JobColumns, Report};
use potluck_api::call::Call;
use potluck_api::view::{Invitation, InviteView, Joining, SyncState, UserRole};
use potluck_model::ids::{NodeId, TeamId};
use qrcode::QrCode;
use serde_json::{Value, json};

use super::builds::{self, Build};
use super::joining::Attempt;
use super::pool::Pc;
use super::random::Random;
use super::tools::Tool;
use super::trouble;
use super::world::{ConnId, Past, Waits, World};
use crate::membership::invite::{JoinLink, LIFETIME_MAX, Secret, USES_MAX};

/// Longest name that is taken.
const NAME_CHARS_MAX: usize = 64;
/// Others' requests and own things of one kind: the real limits are the model's.
const LIST_MAX: usize = 64;
const DAY_S: i64 = 86_400;

type Answer = Result<Value, String>;

fn done() -> Answer {
    Ok(json!({"ok": true}))
}

impl World {
    /// Answers a call; a stream goes on in `take_answers`. `Watch` and `Ui` are the shell's.
    pub fn call(&mut self, conn: u64, call: Call) {
        let answer = match call {
            Call::TeamJoin { link } => self.join(conn, &link),
            Call::TeamAsk { nearby } => self.join_nearby(conn, &nearby),
            Call::TeamAskAddress { address } => self.join_address(conn, &address),
            Call::ToolchainSync { id, watch } => self.sync(conn, id, watch),
            Call::ToolchainAdd { path, .. } if self.tools.len() < LIST_MAX => {
                let tool = Tool::added(&mut self.random, &path.to_string_lossy(), self.now);
                self.waits.push(Waits::Packed(conn, tool.id.clone()));
                self.tools.push(tool);
                if let Some(tool) = self.tools.last_mut() {
                    tool.meet(&self.pcs, SyncState::Absent);
                }
                self.touch();
                return;
            }
            Call::BuildBegin { name, argv, cwd } => {
                let id = self.build_begin(name, &argv.join(" "), &cwd.to_string_lossy());
                self.outbox.push((conn, json!({"id": id}), false));
                self.waits.push(Waits::BuildEnd(conn, id));
                return;
            }
            call => self.answer(call).map(Some),
        };
        match answer {
            Ok(Some(value)) => self.outbox.push((conn, value, true)),
            Ok(None) => {}
            Err(error) => self.outbox.push((conn, json!({"error": error}), true)),
        }
    }

    fn answer(&mut self, call: Call) -> Answer {
        self.touch();
        match call {
            Call::Snapshot => Ok(json!(self.snapshot())),
            Call::Scene { name } => self.scene(&name).and_then(|()| done()),
            Call::Share { on } => {
                self.share.switch(on);
                done()
            }
            Call::Pause { until } => {
                let tomorrow = self.next_morning();
                self.share.pause(until, self.now, tomorrow);
                done()
            }
            Call::Resume => {
                self.share.resume();
                done()
            }
            Call::ShareSettings { settings } => self.share.set(settings).and_then(|()| done()),
            Call::Role { role } => {
                self.role = Some(role);
                if role == UserRole::Developer && self.tools.is_empty() {
                    // Its compilers are found, and are nowhere else yet.
                    let mut random = Random::new(self.seed, "compilers");
                    self.tools = super::tools::usual(&mut random, &[]);
                    let all = &self.pcs;
                    self.tools.iter_mut().for_each(|t| t.meet(all, SyncState::Absent));
                }
                done()
            }
            Call::NotifySettings { settings } => {
                self.notify = settings;
                done()
            }
            // No build of the simulation is told by a notification, and it has no file of settings.
            Call::TrustSettings { settings } => {
                self.trust.settings = settings;
                self.touch();
                done()
            }
            Call::AuditRebuild => {
                self.trust.wrong.iter_mut().for_each(|wrong| wrong.files = 0);
                self.touch();
                done()
            }
            Call::AuditForgive { node } => {
                self.trust.wrong.iter_mut().filter(|wrong| wrong.peer == node).for_each(|wrong| wrong.until_ms = None);
                self.touch();
                done()
            }
            Call::Focus { .. } | Call::Reread => done(),
            Call::Dismiss { id } => {
                self.recent.retain(|row| row.id != id);
                self.raised.retain(|(code, _)| *code != id);
                done()
            }
            Call::TeamCreate { name } => self.create(&name),
            Call::TeamInvite { uses, expires_s, approve } => self.invite(uses, expires_s, approve),
            Call::TeamUninvite { id } => {
                let invites = &mut self.team_mut()?.invites;
                let before = invites.len();
                invites.retain(|i| i.id != id);
                if invites.len() < before { done() } else { Err("this invitation is not open any more".into()) }
            }
            Call::TeamJoinCancel => {
                self.joining = None;
                self.tell_joining(&json!({"error": "joining was given up"}), true);
                done()
            }
            Call::TeamApprove { id } => self.approve(&id),
            Call::TeamDecline { id } => {
                let asking = &mut self.team_mut()?.asking;
                let before = asking.len();
                asking.retain(|a| a.id != id);
                if asking.len() < before { done() } else { Err("it does not ask any more".into()) }
            }
            Call::TeamRename { name } => {
                self.name = checked_name(&name)?;
                done()
            }
            Call::TeamRemove { node, .. } => {
                self.must_keep()?;
                let before = self.pcs.len();
                self.pcs.retain(|pc| pc.id != node);
                let all = &self.pcs;
                self.tools.iter_mut().for_each(|t| t.meet(all, SyncState::Absent));
                if self.pcs.len() < before { done() } else { Err("no other member has this id".into()) }
            }
            Call::TeamRole { node, role } => self.change_role(&node, &role),
            Call::TeamRecover { .. } => Err("this team has keepers\nhint: ask one of them".into()),
            Call::TeamLeave => {
                self.team_mut()?;
                self.team = None;
                self.live = None;
                self.pcs.clear();
                self.tools.iter_mut().for_each(|t| t.meet(&[], SyncState::Absent));
                done()
            }
            Call::TeamList => Ok(self.team_list()),
            Call::PeersAdd { address } => {
                let address = crate::membership::invite::typed_address(&address)?;
                if self.addresses.len() >= LIST_MAX {
                    return Err(format!("{LIST_MAX} addresses are the most\nhint: remove one first"));
                }
                if !self.addresses.contains(&address) {
                    self.addresses.push(address);
                }
                done()
            }
            Call::PeersRemove { address } => {
                let address = crate::membership::invite::typed_address(&address).unwrap_or(address);
                let before = self.addresses.len();
                self.addresses.retain(|a| *a != address);
                if self.addresses.len() < before { done() } else { Err("this address is not in the list".into()) }
            }
            Call::Builds { limit } => Ok(json!(self.build_rows(limit.map_or(usize::MAX, |l| l as usize)))),
            Call::Report { build } => self.report(&build).map(|r| json!(r)),
            Call::Jobs { build } => self.jobs(&build).map(|j| json!(j)),
            Call::BuildEnd { id, exit } => self.build_end(&id, exit).map(|r| json!(r)),
            Call::BuildForget { build } => {
                let before = self.history.len();
                self.history.retain(|past| past.build.id != build);
                if self.history.len() < before { done() } else { Err(no_build(&build)) }
            }
            Call::Status => Ok(self.status()),
            Call::Log { .. } => Ok(json!({"lines": []})),
            Call::Explain { what, .. } => self.explain(&what),
            Call::AskedHere => Ok(json!({"own_root": true})),
            Call::Doctor => Ok(json!(trouble::checks(&self.raised))),
            Call::Toolchains => Ok(self.sync_state(None)),
            Call::ToolchainVerify { id } => {
                self.chosen(id.as_deref())?.into_iter().for_each(Tool::prove);
                done()
            }
            Call::ToolchainShow { id } => {
                let tool = self.chosen(Some(&id))?.remove(0);
                let version = tool.name.split(' ').nth(1).unwrap_or_default().to_owned();
                Ok(json!({"id": tool.id, "driver": tool.path, "version": version, "files": [], "directories": 12}))
            }
            Call::Forget { submitter } => {
                let before = self.received.len();
                self.received.retain(|r| r.submitter != submitter);
                if self.received.len() < before { done() } else { Err("nothing of this PC is here".into()) }
            }
            Call::Suggest => {
                let slots: u32 = self.pcs.iter().map(|pc| pc.place().slots).sum();
                Ok(json!({"jobs": 8 + slots + slots.div_ceil(5)}))
            }
            Call::Stop => {
                self.stopped = true;
                done()
            }
            other => Err(format!("a simulated node does not answer {other:?}")),
        }
    }

    fn team_mut(&mut self) -> Result<&mut super::joining::Team, String> {
        self.team.as_mut().ok_or_else(|| "this PC is in no team\nhint: join one or start one".to_owned())
    }

    fn must_keep(&mut self) -> Result<(), String> {
        match self.team_mut()?.role {
            "keeper" => Ok(()),
            _ => Err("only a keeper of the team may do that\nhint: ask one of them".into()),
        }
    }

    /// The next 08:00 of local time.
    fn next_morning(&self) -> u64 {
        let local_s = (self.wall() / 1000) as i64 + self.zone_s;
        let morning_s = (local_s - 8 * 3600).div_euclid(DAY_S) * DAY_S + DAY_S + 8 * 3600;
        self.now + (morning_s - local_s).max(0) as u64 * 1000
    }

    fn create(&mut self, name: &str) -> Answer {
        if self.team.is_some() {
            return Err("this PC is in a team already\nhint: leave it first".into());
        }
        let name = checked_name(name)?;
        self.enter_team(&name, "keeper");
        done()
    }

    fn invite(&mut self, uses: u32, expires_s: u64, approve: Option<bool>) -> Answer {
        self.must_keep()?;
        if uses == 0 || uses > USES_MAX {
            return Err(format!("an invitation is for 1 to {USES_MAX} computers"));
        }
        if expires_s == 0 || expires_s > LIFETIME_MAX.as_secs() {
            return Err("an invitation is good for 30 days at most".into());
        }
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&self.random.next().to_le_bytes());
        secret[8..].copy_from_slice(&self.random.next().to_le_bytes());
        let (expires_ms, keeper) = (self.wall() + expires_s * 1000, id_bytes(&self.id));
        let team = self.team_mut()?;
        if team.invites.len() >= LIST_MAX {
            return Err(format!("{LIST_MAX} invitations are open already\nhint: take one back first"));
        }
        let (secret, via) = (Secret(secret), vec!["192.0.2.1:10555".to_owned()]);
        let link = JoinLink { team: TeamId(id_bytes(&team.id)), via, keeper: NodeId(keeper), secret };
        let (link, approve) = (link.to_string(), approve.unwrap_or(uses > 1));
        let id = secret.name().iter().map(|b| format!("{b:02x}")).collect();
        team.invites.push(InviteView { id, uses_left: uses, expires_ms, approve });
        let code = QrCode::new(&link).map_err(|e| format!("no picture of the invitation can be made: {e}"))?;
        let qr_svg = code.render::<qrcode::render::svg::Color<'_>>().min_dimensions(240, 240).build();
        let qr_text = code.render::<qrcode::render::unicode::Dense1x2>().build();
        Ok(json!(Invitation { link, qr_svg, qr_text, expires_ms, uses }))
    }

    fn approve(&mut self, id: &str) -> Answer {
        self.must_keep()?;
        let team = self.team_mut()?;
        let at = team.asking.iter().position(|a| a.id == id).ok_or("it does not ask any more")?;
        let ask = team.asking.remove(at);
        let number = self.pcs.len();
        let mut pc = Pc::new(&mut self.random, number, &ask.name, 8, 100);
        pc.seen_ms = self.wall();
        self.pcs.push(pc);
        let all = &self.pcs;
        self.tools.iter_mut().for_each(|t| t.meet(all, SyncState::Waiting));
        self.tell(&format!("{} joined the team.", ask.name), Some("machines".into()));
        done()
    }

    fn change_role(&mut self, node: &str, role: &str) -> Answer {
        self.must_keep()?;
        let roles = ["keeper", "member", "submit-only", "serve-only"];
        let role = roles.into_iter().find(|r| *r == role).ok_or_else(|| format!("roles are {}", roles.join(", ")))?;
        let others = self.pcs.iter().any(|pc| pc.role == "keeper");
        if node == self.id {
            if role != "keeper" && !others {
                return Err("a team needs a keeper\nhint: make another member one first".into());
            }
            self.team_mut()?.role = role;
            return done();
        }
        let pc = self.pcs.iter_mut().find(|pc| pc.id == node).ok_or("no member has this id")?;
        pc.role = role;
        done()
    }

    // Joining.

    fn join(&mut self, conn: ConnId, link: &str) -> Result<Option<Value>, String> {
        let parsed: Result<JoinLink, _> = link.parse();
        parsed.map_err(|e| {
            format!("this is no invitation: {e}\nhint: potluck team invite, on a PC of the team, makes one")
        })?;
        self.start_joining(conn, "Kernel lab", false, false)
    }

    fn join_nearby(&mut self, conn: ConnId, id: &str) -> Result<Option<Value>, String> {
        let team = self.nearby.iter().find(|n| n.id == id).map(|n| n.name.clone());
        let team = team.ok_or("this team is not seen any more\nhint: look at the list again")?;
        self.start_joining(conn, &team, true, false)
    }

    /// Nobody answers at port 9, the port that throws everything away.
    fn join_address(&mut self, conn: ConnId, address: &str) -> Result<Option<Value>, String> {
        let address = crate::membership::invite::address(address).map_err(|e| e.to_string())?;
        self.start_joining(conn, "Kernel lab", true, address.ends_with(":9"))
    }

    fn start_joining(&mut self, conn: ConnId, team: &str, approve: bool, dead: bool) -> Result<Option<Value>, String> {
        if self.team.is_some() {
            return Err("this PC is in a team already\nhint: leave it first".into());
        }
        if self.joining.as_ref().is_some_and(Attempt::under_way) {
            return Err("joining goes on already\nhint: cancel it first".into());
        }
        let attempt = Attempt::new(team, approve, dead, self.now, &mut self.random);
        let first: &Joining = &attempt.state;
        self.outbox.push((conn, json!(first), false));
        self.waits.push(Waits::Joining(conn));
        self.joining = Some(attempt);
        self.touch();
        Ok(None)
    }

    // Compilers.

    fn chosen(&mut self, id: Option<&str>) -> Result<Vec<&mut Tool>, String> {
        let found: Vec<&mut Tool> =
            self.tools.iter_mut().filter(|t| id.is_none_or(|id| t.id.starts_with(id))).collect();
        match id {
            Some(prefix) if found.is_empty() => {
                Err(format!("no toolchain {prefix:.64}; potluck toolchain list shows all"))
            }
            _ => Ok(found),
        }
    }

    fn sync(&mut self, conn: ConnId, id: Option<String>, watch: bool) -> Result<Option<Value>, String> {
        self.chosen(id.as_deref())?.into_iter().for_each(Tool::send);
        self.touch();
        let state = self.sync_state(id.as_deref());
        if !watch || state["done"] == true {
            return Ok(Some(state));
        }
        self.outbox.push((conn, state, false));
        self.waits.push(Waits::Sync(conn, id));
        Ok(None)
    }

    // Builds.

    fn past(&self, which: &str) -> Option<&Past> {
        if which == "last" {
            return self.history.first();
        }
        let by_id = self.history.iter().find(|p| p.build.id == which);
        by_id.or_else(|| self.history.iter().find(|p| p.build.project.name == which))
    }

    fn report(&self, which: &str) -> Result<Report, String> {
        if let Some((live, into_ms)) = self.running().filter(|(live, _)| is_called(&live.build, which)) {
            return Ok(live.build.report(&live.ran, Some(into_ms)));
        }
        self.past(which).map(|past| past.report.clone()).ok_or_else(|| no_build(which))
    }

    fn jobs(&self, which: &str) -> Result<JobColumns, String> {
        if let Some((live, into_ms)) = self.running().filter(|(live, _)| is_called(&live.build, which)) {
            return Ok(live.build.columns(&live.ran, into_ms));
        }
        let past = self.past(which).ok_or_else(|| no_build(which))?;
        Ok(past.build.columns(&past.build.run(), u32::MAX))
    }

    /// A build of `potluck run`: what runs there is not simulated, its jobs here are those of zstd.
    fn build_begin(&mut self, _name: Option<String>, _command: &str, _cwd: &str) -> String {
        self.automatic = None;
        self.begin(builds::ZSTD, 0);
        self.running().map(|(live, _)| live.build.id.clone()).unwrap_or_default()
    }

    fn build_end(&mut self, id: &str, _exit: i32) -> Result<Report, String> {
        if self.running().is_some_and(|(live, _)| live.build.id == id) {
            self.finish();
        }
        self.report(id)
    }

    fn explain(&self, what: &str) -> Answer {
        let report = self.report(what)?;
        let local: Vec<Value> = report
            .reasons
            .iter()
            .map(|r| {
                json!({"reason": r.code, "count": r.jobs, "text": r.text, "avoidable": r.avoidable, "time_ms": r.time_ms})
            })
            .collect();
        Ok(json!({
            "schema": 1, "total": report.jobs, "remote": report.build.counts.remote, "failed": report.build.counts.failed,
            "repeated": report.repeated, "local": local, "example": null, "build": report.build,
        }))
    }

    // For the command line, in the shape that a real node answers.

    fn team_list(&self) -> Value {
        let view = self.snapshot().team;
        match view {
            None => json!({"joined": false, "members": [], "this_pc": self.id}),
            Some(team) => json!({
                "joined": true, "id": team.id, "name": team.name, "members": team.members,
                "this_pc": self.id, "open_invites": team.invites.len(),
            }),
        }
    }

    fn status(&self) -> Value {
        let shown = self.snapshot();
        let peers: Vec<Value> = shown
            .machines
            .iter()
            .filter(|m| !m.this_pc)
            .map(|m| {
                let connected = self.pcs.iter().any(|pc| pc.id == m.id && pc.online);
                let why = if m.offered > 0 { "" } else { &m.reason };
                json!({
                    "id": m.id, "name": m.name, "addr": m.address, "connected": connected, "slots": m.offered,
                    "running": m.used_by_me, "credits": 0, "not_serving": why,
                })
            })
            .collect();
        let problems: Vec<Value> =
            shown.problems.iter().map(|p| json!({"code": p.code, "text": p.headline, "fix": p.fix.label})).collect();
        let counts = self.history.iter().map(|p| p.report.build.counts);
        let (remote, here) = counts.fold((0, 0), |(r, h), c| (r + c.remote, h + c.here + c.only));
        let running: u32 = shown.machines.iter().map(|m| m.used_by_me).sum();
        json!({
            "demo": true,
            "sharing": {
                "slots": shown.share.slots, "running": self.share.jobs(),
                "reason": if shown.share.slots > 0 { "" } else { &shown.share.sentence },
            },
            "team": {"name": shown.team.map(|t| t.name)},
            "peers": peers,
            "jobs": {"remote": remote, "local": {"all": here}, "running": running, "waiting": 0, "faults": 0, "retries": 0},
            "served": {"jobs": 0, "running": self.share.jobs()},
            "bytes": {"up": 0, "down": 0},
            "problems": problems,
        })
    }
}

fn is_called(build: &Build, which: &str) -> bool {
    build.id == which || build.project.name == which
}

fn no_build(which: &str) -> String {
    format!("no build is called {which:.64}\nhint: the list of builds has their names")
}

/// A name that people give: shown as text, never empty, bounded.
fn checked_name(name: &str) -> Result<String, String> {
    let name = name.trim();
    if name.chars().count() > NAME_CHARS_MAX || !potluck_model::names::is_plain(name, 4 * NAME_CHARS_MAX) {
        return Err(format!("a name has 1 to {NAME_CHARS_MAX} characters, all of which can be seen"));
    }
    Ok(name.to_owned())
}

/// Of an id that this simulation drew.
fn id_bytes(id: &str) -> [u8; 32] {
    id.parse::<NodeId>().map(|id| id.0).unwrap_or_default()
}
