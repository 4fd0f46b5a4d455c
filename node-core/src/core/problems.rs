//! What needs a person, and the checks of Help & checks. Codes and headlines are those of `api::words::problem`; here is
//! what raises them. N3 needs the others' word that they cannot reach this computer, which nobody sends: only simulated
//! nodes raise it.

use std::collections::BTreeSet;
use std::time::Duration;

use potluck_api::view::{Check, CheckState, Discovery, Fix, FixAction, KeyPlace, Problem};
use potluck_api::words::problem as words;
use potluck_model::notify::Happened;
use serde_json::{Value, json};

use super::peers::Stage;
use super::snapshot::shown_name;
use super::view::name_of;
use super::{Core, Marks};

/// A team without a reachable peer is nothing to tell of before this time (UX 2.9, N1 and N4).
const ALONE_AFTER_MS: u64 = 30_000;
/// How long a result that was not taken is a problem: one may have been a disk's fault, and who goes on is shown on.
const REFUSED_SHOWN: Duration = Duration::from_secs(6 * 3600);
/// Clocks that differ by more are shown (UX 2.9, C1).
const SKEW_US_MAX: u64 = 300_000_000;
/// A problem is told by a notification when it lasts: what goes by itself is no reason to disturb anybody.
const TELL_AFTER_MS: u64 = 10_000;
/// How often a problem that goes on is offered again: whether it is told then is decided by `model::notify`.
const TELL_AGAIN_MS: u64 = 3_600_000;
/// How often problems are looked for while nobody watches: notifications wait for it.
const LOOK_EVERY_MS: u64 = 1000;

/// One problem before it has words.
pub(super) struct Found {
    pub(super) code: &'static str,
    pub(super) about: String,
    pub(super) detail: String,
    pub(super) action: FixAction,
}

fn view(name: &str) -> FixAction {
    FixAction::View { name: name.to_owned() }
}

fn command(text: impl Into<String>) -> FixAction {
    FixAction::Command { text: text.into() }
}

impl Core {
    fn found_problems(&self) -> Vec<Found> {
        let mut out: Vec<Found> = self.team_problem().into_iter().collect();
        let mut add = |code, about: String, detail: String, action| out.push(Found { code, about, detail, action });
        let wrong = self.wrong_problems();
        let is_alone = self.membership.view().joined && !self.peers.values().any(|p| p.link.is_some());
        if is_alone && self.sees_members() && crate::net::is_wireless() {
            let detail = "Computers of the team are on this network, and none of them can be reached. Guest networks \
                          often do that: use another network, or a cable.";
            add("N4", String::new(), detail.to_owned(), view("help"));
        } else if is_alone {
            let detail = "Those of the team are tried again by themselves.".to_owned();
            add("N1", String::new(), detail, view("settings/team"));
        }
        if self.sharing.shared.disk_is_full {
            let detail =
                "Nothing is shared until there is room on the disk again. What others keep here can be deleted.";
            add("D1", String::new(), detail.to_owned(), view("toolchains"));
        }
        if let Some(detail) = self.scrub.lately() {
            add("D2", String::new(), detail, view("toolchains"));
        }
        if self.sharing.is_short_of_memory() {
            let detail = "Three times in ten minutes nothing could be shared because memory was short.".to_owned();
            add("M1", String::new(), detail, view("settings/sharing"));
        }
        if self.discovery() == Discovery::Blocked {
            let detail =
                "Multicast was sent, and nothing came back. Computers whose address is known are used all the same.";
            add("N2", String::new(), detail.to_owned(), view("settings/network"));
        }
        if let Some(why) = &self.sharing.shared.safe_box.fault {
            add("S1", String::new(), why.clone(), view("help"));
        }
        wrong.into_iter().for_each(|found| out.push(found));
        let mut add = |code, about: String, detail: String, action| out.push(Found { code, about, detail, action });
        for (path, why) in self.compilers.failures() {
            add("T1", path.display().to_string(), why.to_owned(), view("toolchains"));
        }
        for (name, version) in self.strange.values() {
            let own = env!("CARGO_PKG_VERSION");
            let text =
                format!("Please update Potluck on {name} ({version}) or here ({own}): they speak different protocols.");
            add("V1", name.clone(), format!("It runs {version}, this computer {own}."), command(text));
        }
        for (id, peer) in &self.peers {
            let name = || shown_name(&name_of(peer, *id));
            let skew_s = peer.clock_skew_us.unsigned_abs() / 1_000_000;
            if peer.link.is_some() && peer.clock_skew_us.unsigned_abs() > SKEW_US_MAX {
                let detail = format!("It differs from this computer's by {} minutes.", skew_s / 60);
                add("C1", format!("{} or of this computer", name()), detail, command("timedatectl"));
            }
            let lately = |marks: &&Marks| marks.refused_at.is_some_and(|at| at.elapsed() < REFUSED_SHOWN);
            if let Some(marks) = self.marks.get(id).filter(lately) {
                add("R1", name(), marks.last.clone(), view(&format!("machines/{id}")));
            }
            if let Some(marks) =
                self.marks.get(id).filter(|m| m.flooded_at.is_some_and(|at| at.elapsed() < REFUSED_SHOWN))
            {
                add("F1", name(), marks.last.clone(), view(&format!("machines/{id}")));
            }
            for (toolchain, stage) in &peer.toolchains {
                if let Stage::Failed(why) = stage {
                    let tool = self.compilers.packed.get(toolchain);
                    let tool =
                        tool.map_or_else(|| toolchain.short(), |p| crate::toolchain::pack::display_name(&p.manifest));
                    add("T1", tool, format!("On {}: {why}", name()), view("toolchains"));
                }
            }
        }
        out
    }

    /// Remembers since when each problem is one. Also while nobody watches.
    pub(super) fn note_problems(&mut self) {
        let now_ms = Self::clock_us() / 1000;
        if now_ms < self.problems_due_ms && self.problems_due_ms - now_ms <= LOOK_EVERY_MS {
            return;
        }
        self.problems_due_ms = now_ms + LOOK_EVERY_MS;
        let found: BTreeSet<String> = self.found_problems().into_iter().map(|f| key(&f)).collect();
        let before = self.since.len();
        self.since.retain(|code, _| found.contains(code));
        let is_new = before != self.since.len() || found.iter().any(|code| !self.since.contains_key(code));
        for code in found {
            self.since.entry(code).or_insert(now_ms);
        }
        if is_new {
            self.watch.touch();
        }
        self.tell_of_problems(now_ms);
    }

    /// Notifications: of what needs the person, and that it does not any more.
    fn tell_of_problems(&mut self, now_ms: u64) {
        let problems: Vec<Problem> = self.problems().into_iter().filter(|p| p.attention).collect();
        let cause = |p: &Problem| format!("{} {}", p.code, p.headline);
        let solved: Vec<String> =
            self.told.keys().filter(|told| !problems.iter().any(|p| cause(p) == **told)).cloned().collect();
        for cause in solved {
            self.told.remove(&cause);
            self.tell_person(Happened::Solved { cause });
        }
        for problem in problems {
            let cause = cause(&problem);
            let lately = self.told.get(&cause).is_some_and(|at| now_ms.saturating_sub(*at) < TELL_AGAIN_MS);
            if lately || now_ms.saturating_sub(problem.since_ms) < TELL_AFTER_MS {
                continue;
            }
            self.told.insert(cause.clone(), now_ms);
            self.tell_person(Happened::Problem { cause, title: problem.headline, text: problem.detail });
        }
    }

    /// Everything that needs a person now, worst first. No team is a state of the window, no problem.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let now_ms = Self::clock_us() / 1000;
        let problem = |found: Found| {
            let known = words::known(found.code)?;
            let since_ms = self.since.get(&key(&found)).copied().unwrap_or(now_ms);
            if matches!(found.code, "N1" | "N4") && now_ms.saturating_sub(since_ms) < ALONE_AFTER_MS {
                return None;
            }
            Some(Problem {
                code: known.code.to_owned(),
                headline: known.headline.replace("{}", &found.about),
                detail: found.detail,
                fix: Fix { label: known.label.to_owned(), action: found.action },
                attention: known.attention,
                since_ms,
            })
        };
        let mut all: Vec<Problem> = self.found_problems().into_iter().filter_map(problem).collect();
        all.sort_by_key(|p| (words::rank(&p.code), p.headline.clone()));
        all
    }

    /// The same for `status` and `doctor`, with what a shell can do.
    pub(super) fn problem_status(&self) -> Value {
        let fix = |problem: &Problem| match (&problem.fix.action, problem.code.as_str()) {
            (FixAction::Command { text }, _) => text.clone(),
            (_, "N1" | "N2") => "potluck peers add ADDR:PORT".to_owned(),
            (_, "S1") => "potluck doctor".to_owned(),
            (_, "K1") => "potluck unlock".to_owned(),
            (_, "M1") => "potluck config set share.cores_away N, with a smaller N".to_owned(),
            (_, "D1") => "free some space, or potluck config set share.keep_free_disk SIZE".to_owned(),
            (_, "Q1") => "potluck audit, then potluck audit rebuild".to_owned(),
            (_, "Q2") => "potluck audit".to_owned(),
            (_, "D2") => "check the disk: smartctl -a DEVICE, and the kernel's messages: journalctl -k".to_owned(),
            (_, "T1") => "potluck toolchain list; potluck toolchain verify".to_owned(),
            _ => "potluck ui".to_owned(),
        };
        let line = |p: Problem| {
            let text = if p.detail.is_empty() { p.headline.clone() } else { format!("{} {}", p.headline, p.detail) };
            json!({"code": p.code, "text": text, "fix": fix(&p)})
        };
        let mut all: Vec<Value> = self.problems().into_iter().map(line).collect();
        if !self.membership.view().joined && self.team_problem().is_none() {
            let fix = "potluck team create NAME, or potluck team join LINK";
            all.insert(0, json!({"code": "no_team", "text": "This PC is in no team.", "fix": fix}));
        }
        json!(all)
    }

    /// The lines of Help & checks.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let problems = self.problems();
        let check = |name: &str, title: &str, codes: &[&str], note: String| {
            let found = problems.iter().find(|p| codes.contains(&p.code.as_str()));
            let (state, note) = match found {
                Some(p) => {
                    let state = if p.attention { CheckState::Fail } else { CheckState::Warn };
                    (state, if p.detail.is_empty() { p.headline.clone() } else { p.detail.clone() })
                }
                None => (CheckState::Ok, note),
            };
            Check {
                name: name.to_owned(),
                title: found.map_or_else(|| title.to_owned(), |p| p.headline.clone()),
                state,
                code: found.map(|p| p.code.clone()),
                note,
                fix: found.map_or_else(String::new, |p| p.fix.label.clone()),
            }
        };
        let up_s = self.started.elapsed().as_secs();
        let linked = self.peers.values().filter(|p| p.link.is_some()).count();
        let key_note = match &self.team.key {
            Some(KeyPlace::Keyring) => "It lies in the desktop's keyring.".to_owned(),
            _ => "It lies in a file that only you can read.".to_owned(),
        };
        let mut all = vec![
            check("node", "Running in the background", &[], format!("For {} minutes.", up_s / 60)),
            check("sandbox", "Safe box works", &["S1"], "The self-test passed.".to_owned()),
            check("discovery", "Finds other computers", &["N2"], "By the network.".to_owned()),
            check("peers", "Other computers are on", &["N1"], format!("{linked} connected.")),
            check("versions", "Versions fit", &["V1"], "All that are connected speak this version.".to_owned()),
            check("toolchains", "Compilers can travel", &["T1"], format!("{} packed.", self.compilers.packed.len())),
            check("clock", "Clock", &["C1"], "It agrees with the others.".to_owned()),
            check("results", "Results are right", &["Q1", "Q2", "R1"], "None was refused.".to_owned()),
            check("key", "Key is safe", &["K1", "K2"], key_note),
            check("network", "Computers can talk to each other", &["N4"], "This network lets them.".to_owned()),
            check("disk", "Disk space", &["D1"], "There is enough.".to_owned()),
            check("memory", "Memory", &["M1"], "There is enough.".to_owned()),
        ];
        let safe_box = &self.sharing.shared.safe_box;
        if safe_box.fault.is_none() && !safe_box.checked {
            let on = self.sharing.shared.on;
            let note = if on { "Being looked at." } else { "Looked at when sharing is switched on." };
            pending(&mut all, "sandbox", note);
        }
        match self.discovery() {
            Discovery::Starting => pending(&mut all, "discovery", "Looking around."),
            Discovery::Off => pending(&mut all, "discovery", "Switched off: addresses are used."),
            Discovery::Works | Discovery::Blocked => {}
        }
        let (state, note, fix) = match self.sharing.shared.presence_source {
            Some(source) => (CheckState::Ok, format!("By {source}."), String::new()),
            None if self.is_held_unseen() => {
                let note = "Nothing tells, so this computer counts as in use and lends nothing.".to_owned();
                (CheckState::Warn, note, "Choose \"Dedicated build machine\" if nobody works at it".to_owned())
            }
            None => (CheckState::Pending, "Not looked at with these settings.".to_owned(), String::new()),
        };
        let title = "Sees whether you are there".to_owned();
        all.push(Check { name: "presence".to_owned(), title, state, code: None, note, fix });
        all
    }
}

/// What a problem is remembered by.
fn key(found: &Found) -> String {
    format!("{} {}", found.code, found.about)
}

fn pending(all: &mut [Check], name: &str, note: &str) {
    for check in all.iter_mut().filter(|c| c.name == name && c.code.is_none()) {
        check.state = CheckState::Pending;
        check.note = note.to_owned();
    }
}
