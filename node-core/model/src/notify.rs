//! What the person is told by a notification, and when: at most one banner a build, three others a day, and never anything
//! about lending (UX 2.5). Time and settings are arguments; showing is the node's.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::reason::Reason;

/// A failed build is told from this duration on: before that the person still looks at the terminal (UX 2.5).
pub const FAILED_AFTER: Duration = Duration::from_secs(10);
/// Another build of the same project within this is not told again (UX 2.5).
pub const MERGED_WITHIN: Duration = Duration::from_secs(30);
/// Banners in 24 hours that are not about a build (UX 2.5).
pub const OTHERS_A_DAY_MAX: usize = 3;
/// A problem that lasts is told again after this (UX 2.5).
pub const PROBLEM_AGAIN_AFTER: Duration = Duration::from_secs(7 * 86_400);
/// Projects and problems that are remembered: more than a person can have in a week.
const REMEMBERED_MAX: usize = 1000;
/// A build that ran mostly here is worth a word from this duration on: a short one is not slow (UX 2.5 has the same for
/// those that finished).
const FELL_BACK_AFTER: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

/// What the person chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A build finished.
    pub finished: bool,
    /// From this duration on.
    pub finished_after: Duration,
    /// A build ran mostly here, and something can be done about it.
    pub fell_back: bool,
    /// Somebody wants to join.
    pub joins: bool,
    /// Something needs the person.
    pub problems: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { finished: true, finished_after: Duration::from_secs(30), fell_back: true, joins: true, problems: true }
    }
}

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Well.
    Ok,
    /// Not.
    Failed,
    /// The person stopped it.
    Cancelled,
}

/// Something that the person may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A build ended.
    Build {
        /// Its id.
        id: String,
        /// Its project.
        name: String,
        /// How.
        ended: Ended,
        /// Duration.
        took: Duration,
        /// Jobs.
        jobs: u32,
        /// Of them on other machines.
        remote: u32,
        /// Jobs that are known to have failed.
        failed: u32,
        /// Source of the first of them.
        first: Option<String>,
        /// Why most of what could have travelled ran here, if something can be done about it.
        fell_back: Option<Reason>,
        /// The person looks at Potluck's window.
        watched: bool,
    },
    /// Somebody wants to join.
    Join {
        /// Id of the question.
        id: String,
        /// Name that the PC gave itself.
        name: String,
        /// The team.
        team: String,
        /// The four pictures, with blanks between them.
        pictures: String,
    },
    /// Something needs the person.
    Problem {
        /// What it is, and of what: once per cause.
        cause: String,
        /// Title.
        title: String,
        /// One sentence.
        text: String,
    },
    /// It does not any more.
    Solved {
        /// The cause.
        cause: String,
    },
    /// Somebody else's jobs began to run here, or ended. Never told.
    Helping {
        /// They began.
        on: bool,
    },
}

/// Of which kind a banner is: of each the newest is shown when do-not-disturb ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A build.
    Build,
    /// Somebody wants to join.
    Join,
    /// A problem.
    Problem,
}

/// A banner. Plain text: who shows it escapes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Banner {
    /// Kind.
    pub kind: Kind,
    /// First line.
    pub title: String,
    /// Second line.
    pub body: String,
    /// The one button.
    pub button: &'static str,
    /// View of the window that it opens.
    pub opens: String,
    /// Cause of a problem: the banner is withdrawn when that is gone.
    pub cause: Option<String>,
}

/// Decides what is told.
#[derive(Debug, Default)]
pub struct Planner {
    projects: HashMap<String, Duration>,
    told: HashSet<String>,
    problems: HashMap<String, Duration>,
    /// When a reason for falling back was told last, by its code.
    fell_back: HashMap<&'static str, Duration>,
    others: VecDeque<Duration>,
    queued: Vec<Banner>,
}

impl Planner {
    /// The banner for what happened, if there is to be one now. `quiet`: do-not-disturb; then it waits.
    pub fn happened(&mut self, now: Duration, settings: &Settings, quiet: bool, what: &Happened) -> Option<Banner> {
        self.forget(now);
        let banner = match what {
            Happened::Build { .. } => self.build(now, settings, what)?,
            Happened::Join { id, name, team, pictures } => {
                let question = format!("join {id}");
                if !settings.joins || self.told.contains(&question) || !self.others_left(now) {
                    return None;
                }
                self.told.insert(question);
                Banner {
                    kind: Kind::Join,
                    title: format!("\"{name}\" wants to join {team}"),
                    body: format!("Check that it shows {pictures}"),
                    button: "Review",
                    opens: "settings/team".to_owned(),
                    cause: None,
                }
            }
            Happened::Problem { cause, title, text } => {
                let lately = self.problems.get(cause).is_some_and(|at| now.saturating_sub(*at) < PROBLEM_AGAIN_AFTER);
                if !settings.problems || lately || !self.others_left(now) {
                    return None;
                }
                self.problems.insert(cause.clone(), now);
                Banner {
                    kind: Kind::Problem,
                    title: title.clone(),
                    body: text.clone(),
                    button: "Fix",
                    opens: "help".to_owned(),
                    cause: Some(cause.clone()),
                }
            }
            Happened::Solved { cause } => {
                self.drop_queued(|b| b.cause.as_ref() == Some(cause));
                return None;
            }
            Happened::Helping { .. } => return None,
        };
        if quiet {
            self.drop_queued(|b| b.kind == banner.kind);
            self.queued.push(banner);
            return None;
        }
        Some(banner)
    }

    /// A problem that waited and was not shown is news when it comes again, and took none of the day's banners.
    fn drop_queued(&mut self, mut drops: impl FnMut(&Banner) -> bool) {
        for banner in self.queued.extract_if(.., |b| drops(b)) {
            if let Some(cause) = &banner.cause {
                self.problems.remove(cause);
                self.others.pop_back();
            }
        }
    }

    /// Do-not-disturb is over: the newest of each kind.
    pub fn released(&mut self) -> Vec<Banner> {
        let mut queued = std::mem::take(&mut self.queued);
        queued.sort_by_key(|b| b.kind);
        queued
    }

    /// Something waits for the end of do-not-disturb.
    pub fn waits(&self) -> bool {
        !self.queued.is_empty()
    }

    fn build(&mut self, now: Duration, settings: &Settings, what: &Happened) -> Option<Banner> {
        let Happened::Build { id, name, ended, took, jobs, remote, failed, first, fell_back, watched } = what else {
            return None;
        };
        if let Some(reason) =
            fell_back.as_ref().filter(|_| *ended == Ended::Ok && *took >= FELL_BACK_AFTER && !*watched)
            && settings.fell_back
            && !self.fell_back.contains_key(reason.code())
            && self.told.insert(format!("build {id}"))
        {
            // The one banner of this build: that it finished is in it.
            self.fell_back.insert(reason.code(), now);
            self.projects.insert(name.clone(), now);
            return Some(Banner {
                kind: Kind::Build,
                title: "This build ran mostly on your machine".to_owned(),
                body: format!("{name}: {}", reason.sentence()),
                button: "Fix",
                opens: format!("builds/{id}"),
                cause: None,
            });
        }
        let long_enough = match ended {
            Ended::Ok => *took >= settings.finished_after,
            Ended::Failed => *took >= FAILED_AFTER,
            Ended::Cancelled => false,
        };
        // A failure behind a success is what the person waits for.
        let merged =
            *ended == Ended::Ok && self.projects.get(name).is_some_and(|at| now.saturating_sub(*at) < MERGED_WITHIN);
        if !settings.finished || !long_enough || *watched || merged || !self.told.insert(format!("build {id}")) {
            return None;
        }
        self.projects.insert(name.clone(), now);
        let (title, body, button) = match ended {
            Ended::Failed => {
                let errors = match (failed, first) {
                    (0, _) | (_, None) => format!("after {}", clock(*took)),
                    (1, Some(file)) => format!("1 error: {file}"),
                    (n, Some(file)) => format!("{n} errors, first: {file}"),
                };
                (format!("{name} failed"), errors, "Show errors")
            }
            _ => {
                let elsewhere = match (u64::from(*remote) * 100).checked_div(u64::from(*jobs)) {
                    None | Some(0) => String::new(),
                    Some(percent) => format!(" · {percent} % on other machines"),
                };
                let files = if *jobs == 1 { "file" } else { "files" };
                let body = format!("{} {files} in {}{elsewhere}", grouped(*jobs), clock(*took));
                (format!("{name} finished"), body, "Show report")
            }
        };
        let cause = None;
        Some(Banner { kind: Kind::Build, title, body, button, opens: format!("builds/{id}"), cause })
    }

    /// Takes one of the banners that a day has for everything but builds.
    fn others_left(&mut self, now: Duration) -> bool {
        let left = self.others.len() < OTHERS_A_DAY_MAX;
        if left {
            self.others.push_back(now);
        }
        left
    }

    fn forget(&mut self, now: Duration) {
        while self.others.front().is_some_and(|at| now.saturating_sub(*at) >= DAY) {
            self.others.pop_front();
        }
        self.projects.retain(|_, at| now.saturating_sub(*at) < MERGED_WITHIN);
        self.fell_back.retain(|_, at| now.saturating_sub(*at) < DAY);
        self.problems.retain(|_, at| now.saturating_sub(*at) < PROBLEM_AGAIN_AFTER);
        if self.told.len() > REMEMBERED_MAX {
            self.told.clear();
        }
        if self.problems.len() > REMEMBERED_MAX {
            self.problems.clear();
        }
    }
}

/// `1 830`: digits in groups of three.
pub fn grouped(n: u32) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// `1:52`, `1:02:05`.
pub fn clock(took: Duration) -> String {
    let seconds = took.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}
