//! Twenty-four things that happen in eight days, and exactly the banners that a person gets for them.

use std::time::Duration;

use potluck_model::notify::{Banner, Ended, Happened, Kind, Planner, Settings, clock, grouped};
use potluck_model::reason::Reason;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn build(id: &str, name: &str, ended: Ended, took: u64) -> Happened {
    let (failed, first) = match ended {
        Ended::Failed => (2, Some("dlls/ntdll/loader.c".to_owned())),
        _ => (0, None),
    };
    let (id, name, took) = (id.to_owned(), name.to_owned(), s(took));
    Happened::Build { id, name, ended, took, jobs: 1830, remote: 1684, failed, first, fell_back: None, watched: false }
}

fn join(id: &str) -> Happened {
    let (id, team, pictures) = (id.to_owned(), "Kernel lab".to_owned(), "🐟 🔑 🌲 🚲".to_owned());
    Happened::Join { id, name: "lab-04".to_owned(), team, pictures }
}

fn problem(cause: &str) -> Happened {
    let (title, text) = ("Potluck can't reach other computers".to_owned(), "The firewall blocks it".to_owned());
    Happened::Problem { cause: cause.to_owned(), title, text }
}

#[test]
fn a_failure_right_behind_a_success_is_told() {
    let (mut planner, settings) = (Planner::default(), Settings::default());
    assert!(planner.happened(s(100), &settings, false, &build("b1", "wine", Ended::Ok, 40)).is_some());
    assert!(planner.happened(s(120), &settings, false, &build("b2", "wine", Ended::Ok, 31)).is_none());
    let failed = planner.happened(s(125), &settings, false, &build("b3", "wine", Ended::Failed, 12));
    assert_eq!(failed.unwrap().title, "wine failed");
}

#[test]
fn a_build_that_ran_mostly_here_says_why_once_a_day_and_that_is_its_one_banner() {
    let (mut planner, settings) = (Planner::default(), Settings::default());
    let fallen = |id: &str, ended, took, reason: Reason| match build(id, "wine", ended, took) {
        Happened::Build { id, name, ended, took, jobs, remote, failed, first, watched, .. } => {
            Happened::Build { id, name, ended, took, jobs, remote, failed, first, watched, fell_back: Some(reason) }
        }
        other => other,
    };
    let unsynced = || Reason::ToolchainNotSynced;
    let mut title = |at, settings: &Settings, what: Happened| {
        planner.happened(s(at), settings, false, &what).map(|b| (b.title, b.body, b.button, b.opens))
    };
    assert_eq!(title(0, &settings, fallen("b1", Ended::Ok, 29, unsynced())), None, "too short");
    let (text, body, button, opens) = title(1, &settings, fallen("b2", Ended::Ok, 30, unsynced())).unwrap();
    assert_eq!((text.as_str(), button, opens.as_str()), ("This build ran mostly on your machine", "Fix", "builds/b2"));
    assert!(body.starts_with("wine: the compiler is not on the other machines yet"), "{body}");
    let next = title(100, &settings, fallen("b3", Ended::Ok, 60, unsynced())).unwrap();
    assert_eq!(next.0, "wine finished", "the cause was told today");
    let other = title(200, &settings, fallen("b4", Ended::Ok, 60, Reason::NoPeers)).unwrap();
    assert_eq!(other.0, "This build ran mostly on your machine");
    let failed = title(300, &settings, fallen("b5", Ended::Failed, 60, Reason::ArchMismatch)).unwrap();
    assert_eq!(failed.0, "wine failed", "what failed comes first");
    let off = Settings { fell_back: false, ..settings };
    assert_eq!(title(400, &off, fallen("b6", Ended::Ok, 60, Reason::ArchMismatch)).unwrap().0, "wine finished");
    let again = title(86_402, &settings, fallen("b7", Ended::Ok, 60, unsynced())).unwrap();
    assert_eq!(again.0, "This build ran mostly on your machine", "a day later");
}

#[test]
fn what_waited_and_was_never_shown_is_told_when_it_comes_again() {
    let (mut planner, settings) = (Planner::default(), Settings::default());
    let mut say = |at, quiet, what: Happened| planner.happened(s(at), &settings, quiet, &what);
    // Solved, or replaced by a newer one, before do-not-disturb ended.
    for at in 0..4 {
        assert_eq!(say(at, true, problem("D1")), None);
        assert_eq!(say(at, true, Happened::Solved { cause: "D1".to_owned() }), None);
    }
    assert_eq!(say(10, true, problem("N1")), None);
    assert_eq!(say(11, true, problem("N2")), None);
    assert!(say(20, false, problem("D1")).is_some() && say(21, false, problem("N1")).is_some());
    // Three are the day's: N2, which still waits, and these two. What finds no place today is asked again tomorrow.
    assert_eq!(say(22, false, join("j1")), None);
    assert!(say(22 + 86_400, false, join("j1")).is_some());
}

#[test]
fn a_week_of_events_gives_exactly_these_banners() {
    let watched = match build("b20", "qt", Ended::Ok, 90) {
        Happened::Build { id, name, ended, took, jobs, remote, failed, first, fell_back, .. } => {
            Happened::Build { id, name, ended, took, jobs, remote, failed, first, fell_back, watched: true }
        }
        other => other,
    };
    let alone = Happened::Build {
        id: "b22".to_owned(),
        name: "a<b>&c".to_owned(),
        ended: Ended::Ok,
        took: s(3725),
        jobs: 1,
        remote: 0,
        failed: 0,
        first: None,
        fell_back: None,
        watched: false,
    };
    let day = 86_400;
    let events: [(u64, bool, Happened); 24] = [
        (100, false, build("b1", "wine", Ended::Ok, 112)),
        (120, false, build("b2", "wine", Ended::Ok, 45)), // same project, 20 s later
        (129, false, build("b3", "linux", Ended::Ok, 29)), // a second too short
        (160, false, build("b4", "linux", Ended::Ok, 30)),
        (200, false, build("b5", "wine", Ended::Failed, 9)), // too short
        (300, false, build("b6", "wine", Ended::Failed, 10)),
        (400, false, build("b7", "wine", Ended::Cancelled, 600)), // never
        (500, false, build("b6", "wine", Ended::Failed, 10)),     // told already
        (600, false, Happened::Helping { on: true }),             // never
        (700, false, Happened::Helping { on: false }),
        (800, false, join("j1")),
        (801, false, join("j1")), // told already
        (900, false, problem("N1")),
        (1000, false, problem("N1")), // the same cause
        (1100, false, problem("S1 this")),
        (1200, false, problem("T1 gcc")),                 // the fourth of the day
        (1300, false, join("j2")),                        // neither
        (1400, true, build("b8", "qt", Ended::Ok, 60)),   // quiet: waits
        (1500, true, build("b9", "llvm", Ended::Ok, 60)), // newer: replaces it
        (day + 2000, true, problem("D1")),                // quiet: waits
        (day + 2100, true, Happened::Solved { cause: "D1".to_owned() }), // and is withdrawn
        (day + 2200, false, watched),
        (day + 2300, false, alone),
        (7 * day + 900, false, problem("N1")), // seven days later: again
    ];
    let (mut planner, mut told) = (Planner::default(), Vec::new());
    for (at, quiet, event) in &events {
        if !quiet && planner.waits() {
            told.extend(planner.released().into_iter().map(|b| (*at, b)));
        }
        told.extend(planner.happened(s(*at), &Settings::default(), *quiet, event).map(|b| (*at, b)));
    }
    let told: Vec<String> =
        told.iter().map(|(at, b)| format!("{at} {} / {} / {} / {}", b.title, b.body, b.button, b.opens)).collect();
    let expected = [
        "100 wine finished / 1 830 files in 1:52 · 92 % on other machines / Show report / builds/b1",
        "160 linux finished / 1 830 files in 0:30 · 92 % on other machines / Show report / builds/b4",
        "300 wine failed / 2 errors, first: dlls/ntdll/loader.c / Show errors / builds/b6",
        "800 \"lab-04\" wants to join Kernel lab / Check that it shows 🐟 🔑 🌲 🚲 / Review / settings/team",
        "900 Potluck can't reach other computers / The firewall blocks it / Fix / help",
        "1100 Potluck can't reach other computers / The firewall blocks it / Fix / help",
        "88600 llvm finished / 1 830 files in 1:00 · 92 % on other machines / Show report / builds/b9",
        "88700 a<b>&c finished / 1 file in 1:02:05 / Show report / builds/b22",
        "605700 Potluck can't reach other computers / The firewall blocks it / Fix / help",
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_is_switched_off_is_not_told() {
    let off = Settings { finished: false, joins: false, problems: false, ..Settings::default() };
    let mut planner = Planner::default();
    for event in [build("b1", "wine", Ended::Ok, 100), join("j"), problem("N1")] {
        assert_eq!(planner.happened(s(1), &off, false, &event), None);
    }
    // And what was not told then is not lost for later.
    let banner: Option<Banner> = planner.happened(s(2), &Settings::default(), false, &problem("N1"));
    assert_eq!(banner.map(|b| b.kind), Some(Kind::Problem));
}

#[test]
fn numbers_are_grouped_and_times_are_read_like_a_clock() {
    assert_eq!([grouped(7), grouped(1830), grouped(1_000_000)], ["7", "1 830", "1 000 000"]);
    assert_eq!([clock(s(9)), clock(s(112)), clock(s(3600))], ["0:09", "1:52", "1:00:00"]);
}
