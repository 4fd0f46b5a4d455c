//! The team as the person manages it: inviting, joining, asking, who is let in and who is taken out. What statements mean
//! is the model's business; here they are made, shown, and told to everybody who is linked.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use potluck_api::call::Call;
use potluck_api::view::{
    CheckWord, FixAction, Invitation, InviteView, JoinAsk, Joining, KeyPlace, MemberView, RecentRow, TeamView,
};
use potluck_model::ids::{NodeId, ToolchainId};
use potluck_model::nearby::TeamTag;
use potluck_model::notify::Happened;
use potluck_model::team::Role;
use potluck_model::team::check::Check;
use potluck_wire::ipc;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use super::problems::Found;
use super::roles::Roles;
use super::snapshot::shown_name;
use super::{Core, Event, Replies};
use crate::membership::door::News;
use crate::membership::invite::{self, JoinLink};
use crate::membership::{MembershipError, Trouble};
use crate::transport::{self, JoinError, Way};

/// Rows of "recent" that are kept.
const RECENT_MAX: usize = 20;
/// Members whose last connection is remembered; a team has fewer.
const SEEN_MAX: usize = 1024;
/// Toolchains whose way to the others is remembered: a PC has a handful.
const SENT_MAX: usize = 64;
/// Addresses of a team nearby that are asked.
const ASKED_MAX: usize = 8;

/// What the core remembers for showing and joining.
#[derive(Default)]
pub(crate) struct State {
    /// How far joining is; the last attempt's end stays until it is dismissed.
    pub(crate) joining: Option<Joining>,
    /// What happened lately, newest first.
    pub(crate) recent: VecDeque<RecentRow>,
    next_row: u64,
    /// Number of the attempt to join: news of an earlier one are old.
    attempt: u64,
    task: Option<AbortHandle>,
    /// Who started it and wants to hear of it.
    listeners: Vec<Replies>,
    /// When a member's last connection ended, milliseconds since 1970.
    seen: HashMap<NodeId, u64>,
    /// What the keepers allow this PC and the others.
    pub(super) roles: Roles,
    /// Who was sent files of which toolchain; true: it can use them.
    sent: HashMap<ToolchainId, HashMap<NodeId, bool>>,
    /// Where the node's key lies; None: it was not said.
    pub(crate) key: Option<KeyPlace>,
    /// The key of before is gone: whoever knew this PC by it does not know it any more.
    is_key_new: bool,
    /// Makes the keyring be asked again; None: it has given the key, or is not asked.
    keyring: Option<crate::keys::Again>,
}

impl State {
    /// When a member's last connection ended, milliseconds since 1970.
    pub(super) fn seen(&self, node: NodeId) -> Option<u64> {
        self.seen.get(&node).copied()
    }

    /// Files of a toolchain are on their way to a machine.
    pub(super) fn sent_to(&mut self, peer: NodeId, toolchain: ToolchainId) {
        if self.sent.len() < SENT_MAX || self.sent.contains_key(&toolchain) {
            self.sent.entry(toolchain).or_default().entry(peer).or_insert(false);
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// As the views have it.
pub(crate) fn words(check: Option<Check>) -> Vec<CheckWord> {
    let pictures = check.iter().flat_map(Check::pictures);
    pictures.map(|(picture, word)| CheckWord { picture: picture.to_owned(), word: word.to_owned() }).collect()
}

fn done(result: Result<(), MembershipError>) -> Value {
    match result {
        Ok(()) => json!({"ok": true}),
        Err(error) => refusal(&error.to_string()),
    }
}

fn refusal(error: &str) -> Value {
    json!({"error": error})
}

fn role_of(text: &str) -> Option<Role> {
    serde_json::from_value(json!(text)).ok()
}

fn role_name(role: Role) -> String {
    serde_json::to_value(role).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

impl Core {
    /// Hears of the door from now on.
    pub(super) fn watch_door(&self) {
        let events = self.events.clone();
        self.membership.door().listen(Box::new(move |news| {
            // A core that is gone needs no news.
            let _ = events.send(Event::Asking(news));
        }));
    }

    /// Where the node's key lies, for the snapshot.
    pub fn key_lies(&mut self, place: KeyPlace) {
        self.team.key = Some(place);
    }

    /// The node's key is another than before, because the file with the old one is gone.
    pub fn key_is_new(&mut self, is_new: bool) {
        self.team.is_key_new = is_new;
    }

    /// The keyring has not given or taken the key yet: a person can make it be asked again.
    pub fn ask_keyring_by(&mut self, again: crate::keys::Again) {
        self.team.keyring = Some(again);
    }

    fn ask_keyring(&self) -> Value {
        match (&self.team.keyring, &self.team.key) {
            (Some(again), _) if again.ask() => json!({"ok": true}),
            (_, Some(KeyPlace::Keyring)) => json!({"ok": true}),
            _ => refusal(
                "this node keeps its key in a file, and looks for no keyring\nhint: the tray app uses the keyring; \
                 without it, start the node with POTLUCK_KEYRING=1",
            ),
        }
    }

    /// The key came out of the keyring, or was moved there: the node is in its team again if it was not.
    pub(super) fn unlocked(&mut self, identity: std::sync::Arc<crate::identity::Identity>) {
        let was_locked = self.membership.is_locked();
        self.membership.unlock(identity);
        self.team.keyring = None;
        self.key_lies(KeyPlace::Keyring);
        self.watch.touch();
        let said = if was_locked { "the keyring gave this node's key" } else { "the keyring took this node's key" };
        crate::log::info(said);
    }

    /// Calls of this file. None: it is none of them.
    pub(super) fn team_call(&mut self, call: &Call) -> Option<Value> {
        Some(match call {
            Call::TeamInvite { uses, expires_s, approve } => self.invite(*uses, *expires_s, *approve),
            Call::TeamUninvite { id } => done(self.membership.uninvite(id)),
            Call::TeamJoinCancel => {
                self.give_up_joining();
                json!({"ok": true})
            }
            Call::TeamApprove { id } => self.answer_asking(id, true),
            Call::TeamDecline { id } => self.answer_asking(id, false),
            Call::TeamRename { name } => {
                let result = self.membership.rename(name, &self.own_addresses());
                self.take_own_name();
                self.said(result)
            }
            Call::TeamRemove { node, with_added } => match node.parse::<NodeId>() {
                Err(error) => refusal(&error.to_string()),
                Ok(id) if id == self.membership.identity().id() => self.leave(false),
                Ok(id) => {
                    let result = match with_added {
                        true => self.membership.remove_with_added(id),
                        false => self.membership.remove(id),
                    };
                    self.said(result)
                }
            },
            Call::TeamRole { node, role } => match (node.parse::<NodeId>(), role_of(role)) {
                (Ok(id), Some(role)) => {
                    let result = self.membership.set_role(id, role);
                    self.said(result)
                }
                (Err(error), _) => refusal(&error.to_string()),
                (_, None) => refusal(&format!("{role} is no role\nhint: keeper, member, submit-only or serve-only")),
            },
            Call::TeamRecover { keepers, unseen_days } => {
                let ids: Result<Vec<NodeId>, _> = keepers.iter().map(|id| id.parse::<NodeId>()).collect();
                match ids {
                    Err(error) => refusal(&error.to_string()),
                    Ok(ids) => {
                        let result = self.membership.recover(&ids, *unseen_days);
                        self.said(result)
                    }
                }
            }
            Call::UnlockKey => self.ask_keyring(),
            Call::TeamLeave => self.leave(false),
            Call::TeamAbandon => self.leave(true),
            Call::TeamList => {
                let mut list = serde_json::to_value(self.membership.list()).unwrap_or_default();
                list["asking"] = json!(self.asking());
                list["invites"] = json!(self.invites());
                list["nearby"] = json!(
                    self.nearby
                        .iter()
                        .map(|t| json!({"id": t.id, "name": t.name, "computers": t.computers}))
                        .collect::<Vec<_>>()
                );
                list["joining"] = json!(self.team.joining);
                list
            }
            _ => return None,
        })
    }

    /// Calls that go on answering. The call back: it is none of them.
    pub(super) fn team_stream(&mut self, call: Call, replies: &Replies) -> Option<Call> {
        let (way, team) = match &call {
            Call::TeamJoin { link } => match link.parse::<JoinLink>() {
                Ok(link) => (Ok(Way::Link(link)), String::new()),
                Err(error) => (
                    Err(format!(
                        "this is no invitation: {error}\nhint: potluck team invite, on a PC of the team, makes one"
                    )),
                    String::new(),
                ),
            },
            Call::TeamAsk { nearby } => match self.nearby.iter().find(|team| team.id == *nearby) {
                Some(team) => {
                    let vias = team.keepers.iter().take(ASKED_MAX).map(SocketAddr::to_string).collect();
                    (Ok(Way::Ask { vias, team: TeamTag::read(&team.id) }), team.name.clone())
                }
                None => (
                    Err(
                        "that team is not seen on this network any more\nhint: potluck team ask ADDR, or an invitation"
                            .to_owned(),
                    ),
                    String::new(),
                ),
            },
            Call::TeamAskAddress { address } => {
                (invite::typed_address(address).map(|via| Way::Ask { vias: vec![via], team: None }), String::new())
            }
            Call::TeamRestore { address, team } => (self.restoring(address.as_deref(), team.as_deref()), String::new()),
            _ => return Some(call),
        };
        match way {
            Ok(way) => self.join(way, team, replies),
            Err(error) => {
                let _ = replies.send(ipc::Reply::Api { json: refusal(&error).to_string(), last: true });
            }
        }
        None
    }

    /// Where to ask for the statements that this PC has lost.
    fn restoring(&self, address: Option<&str>, team: Option<&str>) -> Result<Way, String> {
        let no_team =
            |_| "this is no id of a team\nhint: a PC of the team shows it: potluck team list --json".to_owned();
        let team = match team {
            Some(team) => Some(team.parse().map_err(no_team)?),
            None => self.membership.lost_team(),
        };
        let vias = match address {
            Some(address) => vec![invite::typed_address(address)?],
            None => {
                let nearby = self.nearby.iter().flat_map(|team| team.keepers.iter().map(SocketAddr::to_string));
                let known = self.addresses.iter().cloned().chain(self.remembered_addresses()).chain(nearby);
                let mut seen = std::collections::BTreeSet::new();
                known.filter(|address| seen.insert(address.clone())).take(ASKED_MAX * 4).collect()
            }
        };
        if vias.is_empty() {
            return Err("no address of a PC of the team is known here\nhint: potluck team restore ADDRESS".to_owned());
        }
        Ok(Way::Restore { vias, team })
    }

    fn invite(&mut self, uses: u32, expires_s: u64, approve: Option<bool>) -> Value {
        let approve = approve.unwrap_or(uses > 1);
        let via = self.own_addresses();
        match self.membership.invite_as(uses, Duration::from_secs(expires_s), &via, approve) {
            Ok(link) => {
                let link = link.to_string();
                let invitation = Invitation {
                    qr_svg: crate::qr::svg(&link).unwrap_or_default(),
                    qr_text: crate::qr::lines(&link).map(|lines| lines.join("\n")).unwrap_or_default(),
                    link,
                    expires_ms: now_ms() + expires_s * 1000,
                    uses,
                };
                let mut answer = serde_json::to_value(invitation).unwrap_or_default();
                answer["ok"] = json!(true);
                answer["approve"] = json!(approve);
                answer
            }
            Err(error) => refusal(&error.to_string()),
        }
    }

    /// Starts joining. It talks to another PC and may wait for a person: the core hears of each step by an event. One
    /// attempt at a time.
    fn join(&mut self, way: Way, team: String, replies: &Replies) {
        self.give_up_joining();
        self.team.attempt += 1;
        let attempt = self.team.attempt;
        self.team.listeners.push(replies.clone());
        self.joining(attempt, Joining::Connecting { team: team.clone(), busy: false });
        let named = team;
        let (membership, name, addresses) = (self.membership.clone(), self.settings.name.clone(), self.own_addresses());
        let (events, dir) = (self.events.clone(), self.settings.dirs.state.clone());
        let task = tokio::spawn(async move {
            let tell = |joining| {
                let _ = events.send(Event::Joining(attempt, joining));
            };
            let connecting = || tell(Joining::Connecting { team: named.clone(), busy: true });
            let pending = |pending: transport::Pending| {
                tell(Joining::Waiting { team: pending.team, check: words(Some(pending.check)) });
            };
            let renews = !matches!(way, Way::Restore { .. });
            if renews
                && membership.was_removed()
                && let Err(error) = new_key(&membership, &dir).await
            {
                return tell(Joining::Failed { error });
            }
            let mut joined =
                transport::enter_patiently(&membership, &way, &name, &addresses, &pending, &connecting).await;
            if renews && joined.as_ref().is_err_and(JoinError::is_removed) {
                // It was removed and had not heard of it.
                joined = match new_key(&membership, &dir).await {
                    Ok(()) => {
                        transport::enter_patiently(&membership, &way, &name, &addresses, &pending, &connecting).await
                    }
                    Err(error) => return tell(Joining::Failed { error }),
                };
            }
            tell(match joined {
                Ok(joined) => {
                    Joining::Joined { team: membership.team_name().unwrap_or_default(), check: words(joined.check) }
                }
                Err(error) => Joining::Failed { error: error.to_string() },
            });
        });
        self.team.task = Some(task.abort_handle());
    }

    /// One step of joining: shown, and told to who started it.
    pub(super) fn joining(&mut self, attempt: u64, joining: Joining) {
        if attempt != self.team.attempt {
            return;
        }
        let mut answer = serde_json::to_value(&joining).unwrap_or_default();
        let last = match &joining {
            Joining::Connecting { .. } | Joining::Waiting { .. } => false,
            Joining::Joined { team, check } => {
                answer["ok"] = json!(true);
                answer["name"] = json!(team);
                let text = format!("This computer is in the team {team}.{}", shown(check));
                self.recent(text, Some("settings/team".to_owned()));
                true
            }
            Joining::Failed { error } => {
                answer["error"] = json!(error);
                true
            }
        };
        let json = answer.to_string();
        self.team.listeners.retain(|to| to.send(ipc::Reply::Api { json: json.clone(), last }).is_ok() && !last);
        if last {
            self.team.task = None;
        }
        self.team.joining = Some(joining);
    }

    fn give_up_joining(&mut self) {
        if let Some(task) = self.team.task.take() {
            task.abort();
        }
        self.team.attempt += 1;
        self.team.joining = None;
        for to in self.team.listeners.drain(..) {
            let json = refusal("joining was given up").to_string();
            let _ = to.send(ipc::Reply::Api { json, last: true });
        }
    }

    /// Something happened at the door.
    pub(super) fn door_news(&mut self, news: News) {
        match news {
            News::Changed => self.tell_of_asking(),
            News::Admitted { name, check, .. } => {
                let name = shown_name(&name);
                let text = format!("{name} joined the team.{}", shown(&words(check)));
                self.recent(text, Some("settings/team".to_owned()));
                self.team_changed();
            }
        }
    }

    fn answer_asking(&mut self, id: &str, yes: bool) -> Value {
        let known = id.parse::<u64>().is_ok_and(|id| self.membership.door().answer(id, yes));
        if known {
            json!({"ok": true})
        } else {
            refusal("nobody of this number waits any more\nhint: potluck team pending")
        }
    }

    fn leave(&mut self, force: bool) -> Value {
        let result = self.membership.leave(force);
        self.said(result)
    }

    /// After a statement of this node: everybody hears of it at once.
    fn said(&mut self, result: Result<(), MembershipError>) -> Value {
        if result.is_ok() {
            // Also by an event; but whoever was removed shall not get one more job before that is read.
            self.team_changed();
        }
        done(result)
    }

    /// Adds a row to what happened lately.
    pub fn recent(&mut self, text: String, opens: Option<String>) {
        self.team.next_row += 1;
        let id = format!("team-{}", self.team.next_row);
        self.add_recent(RecentRow { id, at_ms: now_ms(), text, opens });
    }

    fn add_recent(&mut self, row: RecentRow) {
        self.team.recent.push_front(row);
        self.team.recent.truncate(RECENT_MAX);
    }

    /// Takes away what the person has seen: a row, or how an attempt to join ended.
    pub(super) fn dismiss(&mut self, id: &str) {
        let is_over = matches!(self.team.joining, Some(Joining::Joined { .. } | Joining::Failed { .. }));
        if id == "joining" && is_over {
            self.team.joining = None;
        }
        self.team.recent.retain(|row| row.id != id);
    }

    /// Whoever waits at the door: the keeper is told once of each.
    fn tell_of_asking(&self) {
        let Some(team) = self.membership.team_name() else { return };
        for asking in self.membership.door().waiting() {
            let pictures: Vec<&str> = asking.check.pictures().iter().map(|(picture, _)| *picture).collect();
            self.tell_person(Happened::Join {
                id: asking.id.to_string(),
                name: shown_name(&asking.name),
                team: shown_name(&team),
                pictures: pictures.join(" "),
            });
        }
    }

    /// A machine can use a toolchain now. Its files may have been there from earlier: that is no news.
    pub(super) fn toolchain_arrived(&mut self, peer: NodeId, toolchain: ToolchainId) {
        let Some(machines) = self.team.sent.get_mut(&toolchain) else { return };
        match machines.get_mut(&peer) {
            Some(arrived) if !*arrived => *arrived = true,
            _ => return,
        }
        let count = machines.values().filter(|arrived| **arrived).count();
        let Some(packed) = self.compilers.packed.get(&toolchain) else { return };
        let name = shown_name(&crate::toolchain::pack::display_name(&packed.manifest));
        let machines = if count == 1 { "machine" } else { "machines" };
        // One row for each toolchain, which counts on.
        let id = format!("toolchain-{}", toolchain.short());
        self.team.recent.retain(|row| row.id != id);
        let text = format!("{name} was sent to {count} {machines}");
        self.add_recent(RecentRow { id, at_ms: now_ms(), text, opens: Some("toolchains".to_owned()) });
    }

    /// A member's connection ended.
    pub(super) fn last_seen(&mut self, peer: NodeId) {
        if self.team.seen.len() < SEEN_MAX || self.team.seen.contains_key(&peer) {
            self.team.seen.insert(peer, now_ms());
        }
    }

    fn asking(&self) -> Vec<JoinAsk> {
        let waiting = self.membership.door().waiting().into_iter();
        waiting
            .map(|asking| JoinAsk {
                id: asking.id.to_string(),
                name: asking.name,
                address: asking.address.to_string(),
                check: words(Some(asking.check)),
                since_ms: asking.since_ms,
                invited: asking.invited,
            })
            .collect()
    }

    fn invites(&self) -> Vec<InviteView> {
        let open = self.membership.invites().into_iter();
        open.map(|invite| InviteView {
            id: invite.id,
            uses_left: invite.uses_left,
            expires_ms: invite.expires_unix_s * 1000,
            approve: invite.approve,
        })
        .collect()
    }

    /// The team for the snapshot.
    pub fn team_view(&self) -> Option<TeamView> {
        let list = self.membership.list();
        if !list.joined {
            return None;
        }
        let view = self.membership.view();
        let own = self.membership.identity().id();
        let mut members: Vec<MemberView> = view
            .members
            .values()
            .map(|member| MemberView {
                id: member.node.to_string(),
                name: member.name.clone(),
                role: role_name(member.role),
                this_pc: member.node == own,
                online: member.node == own || self.peers.get(&member.node).is_some_and(|p| p.link.is_some()),
                seen_ms: self.team.seen.get(&member.node).copied(),
            })
            .collect();
        members.sort_by(|a, b| (!a.this_pc, &a.name, &a.id).cmp(&(!b.this_pc, &b.name, &b.id)));
        let is_keeper = |node: &NodeId| view.members.get(node).is_some_and(|m| m.role == Role::Keeper);
        Some(TeamView {
            id: list.id.unwrap_or_default(),
            name: list.name.unwrap_or_default(),
            is_keeper: is_keeper(&own),
            keepers: view.members.keys().filter(|node| is_keeper(node)).count() as u32,
            members,
            asking: self.asking(),
            invites: self.invites(),
        })
    }

    /// What of team and key needs the person.
    pub(super) fn team_problem(&self) -> Option<Found> {
        let removed_by = self.membership.removed_by();
        if self.membership.is_locked() {
            let detail =
                "Builds go on here, without the team, until the keyring is unlocked. Potluck looks every 10 seconds.";
            let action = FixAction::Call { json: json!(Call::UnlockKey).to_string() };
            Some(Found { code: "K1", about: String::new(), detail: detail.to_owned(), action })
        } else if let Some(Trouble::Lost(what)) = self.membership.trouble() {
            let detail = format!(
                "{what}. Any other PC of the team gives the list back: potluck team restore ADDRESS. Until then this \
                 computer builds alone."
            );
            let action = FixAction::View { name: "settings/team".to_owned() };
            Some(Found { code: "T2", about: String::new(), detail, action })
        } else if removed_by.is_some_and(|by| by != self.membership.identity().id()) {
            let about = self.membership.list().name.unwrap_or_default();
            let detail =
                "It builds alone now. It can join another team, or this one again: it gets a new key for that.";
            let action = FixAction::View { name: "settings/team".to_owned() };
            Some(Found { code: "R2", about, detail: detail.to_owned(), action })
        } else if self.team.is_key_new && !self.membership.view().joined {
            let detail =
                "The file with the old one is gone. It builds alone until it joins the team again, with the new key.";
            let action = FixAction::View { name: "settings/team".to_owned() };
            Some(Found { code: "K2", about: String::new(), detail: detail.to_owned(), action })
        } else {
            None
        }
    }
}

/// A key that the team has not removed. The old one is kept nowhere.
async fn new_key(membership: &std::sync::Arc<crate::membership::Membership>, dir: &Path) -> Result<(), String> {
    let (dir, old) = (dir.to_owned(), membership.identity().id());
    let made = tokio::task::spawn_blocking(move || crate::keys::renew(&dir, old)).await;
    let identity = made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    membership.renew(identity);
    Ok(())
}

fn shown(check: &[CheckWord]) -> String {
    if check.is_empty() {
        return String::new();
    }
    let pictures: Vec<String> = check.iter().map(|c| format!("{} {}", c.picture, c.word)).collect();
    format!(" Both screens showed {}.", pictures.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_is_read_as_it_is_shown() {
        for role in [Role::Keeper, Role::Member, Role::SubmitOnly, Role::ServeOnly] {
            assert_eq!(role_of(&role_name(role)), Some(role));
        }
        assert_eq!(role_of("boss"), None);
    }
}
