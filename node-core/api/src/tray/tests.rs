use super::*;
use crate::build::Counts;
use crate::view::*;

fn snapshot() -> Snapshot {
    Snapshot {
        schema: crate::SCHEMA,
        this: ThisPc {
            id: "n1".into(),
            name: "lab-01".into(),
            version: "0.1.0".into(),
            cores: 8,
            headless: false,
            role: Some(UserRole::Developer),
            started_ms: 0,
            key: KeyPlace::Keyring,
            listen: "192.0.2.1:10555".into(),
            demo: false,
        },
        share: ShareView {
            on: true,
            state: ShareState::Ready { slots: 7 },
            sentence: "Ready to help with 7 of 8 cores.".into(),
            short: "Ready to help".into(),
            next: None,
            rule: String::new(),
            rule_is_warning: false,
            slots: 7,
            slots_max: 7,
            helping: vec![],
            lent_today_ms: 0,
            lent_today_to: vec![],
            settings: ShareSettings::default(),
            presence_source: None,
        },
        team: None,
        nearby: vec![],
        joining: None,
        machines: vec![],
        pool: PoolView {
            machines: 1,
            cores: 0,
            cores_free: 0,
            sharing: 0,
            in_use: 0,
            unavailable: 0,
            discovery: Discovery::Works,
        },
        building: vec![],
        builds: vec![],
        toolchains: vec![],
        received: vec![],
        cache: CacheView { bytes: 0, bytes_max: 0, disk_free: 0 },
        problems: vec![],
        recent: vec![],
        checks: vec![],
        notify: NotifySettings::default(),
        trust: TrustView::default(),
        addresses: vec![],
        scenes: vec![],
        open: None,
    }
}

fn with(state: ShareState) -> Snapshot {
    let mut s = snapshot();
    s.share.state = state;
    s
}

fn wine() -> BuildLine {
    BuildLine {
        id: "b1".into(),
        name: "wine".into(),
        done: 412,
        total: Some(1830),
        cores: 38,
        waiting: 0,
        started_ms: 1_000_000,
        counts: Counts::default(),
    }
}

fn row(end: BuildEnd) -> BuildRow {
    BuildRow {
        id: "b0".into(),
        name: "linux".into(),
        started_ms: 0,
        took_ms: 112_400,
        end,
        exit: None,
        counts: Counts::default(),
        saved_ms: None,
        machines: 3,
    }
}

fn problem(action: FixAction) -> Problem {
    Problem {
        code: "N2".into(),
        headline: "This network hides computers from each other.".into(),
        detail: String::new(),
        fix: Fix { label: "Fix".into(), action },
        attention: true,
        since_ms: 0,
    }
}

fn shown(s: &Snapshot) -> Tray {
    tray(NodeState::Running(s), 1_060_000, &|_| (14, 30))
}

fn find(tray: &Tray, id: &str) -> Option<Item> {
    tray.entries.iter().find_map(|e| match e {
        Entry::Item(item) if item.id == id => Some(item.clone()),
        Entry::Menu { items, .. } => items.iter().find(|i| i.id == id).cloned(),
        _ => None,
    })
}

fn ids(tray: &Tray) -> Vec<&'static str> {
    shape(&tray.entries).into_iter().map(|(id, ..)| id).collect()
}

const TAIL: [&str; 2] = ["open", "quit"];

#[test]
fn every_state_has_the_icon_of_its_meaning() {
    let held = ShareState::Held { reason: HeldReason::InUse, resumes_ms: None };
    for (state, icon) in [
        (ShareState::Off, Icon::Off),
        (ShareState::Paused { until_ms: Some(1) }, Icon::Off),
        (ShareState::Paused { until_ms: None }, Icon::Off),
        (held, Icon::Ready),
        (ShareState::Ready { slots: 7 }, Icon::Ready),
        (ShareState::Helping { slots: 7, jobs: 6, people: 2 }, Icon::Helping),
        (ShareState::Finishing { jobs: 2 }, Icon::Helping),
        (ShareState::Blocked { problem: "S1".into() }, Icon::Attention),
    ] {
        let mut s = with(state.clone());
        assert_eq!(shown(&s).icon, icon, "{state:?}");
        s.building = vec![wine()];
        let building = if matches!(icon, Icon::Off | Icon::Ready) { Icon::Building } else { icon };
        assert_eq!(shown(&s).icon, building, "{state:?} while a build runs");
        s.problems = vec![problem(FixAction::View { name: "help".into() })];
        assert_eq!(shown(&s).icon, Icon::Attention, "{state:?} with a problem");
        s.problems[0].attention = false;
        assert_eq!(shown(&s).icon, building, "{state:?} with a problem that can wait");
    }
}

#[test]
fn the_menu_of_a_quiet_pc_is_short_and_in_order() {
    let t = shown(&snapshot());
    let pause = ["menu", "pause-hour", "pause-tomorrow", "pause-open", "pause-finish", "end", "rule"];
    assert_eq!(ids(&t), [&["status", "share", "rule"][..], &pause, &TAIL].concat());
    let status = find(&t, "status").unwrap();
    assert_eq!((status.label.as_str(), status.does), ("Ready to help", None));
    assert_eq!(
        find(&t, "pause-hour").unwrap().does,
        Some(Does::Call(r#"{"call":"pause","until":{"for":3600}}"#.into()))
    );
    assert_eq!(t.name, "Potluck — Ready to help");
}

#[test]
fn the_switch_asks_for_the_other_state() {
    let mut s = snapshot();
    let switch = find(&shown(&s), "share").unwrap();
    assert_eq!((switch.checked, switch.does), (Some(true), Some(Does::Call(r#"{"call":"share","on":false}"#.into()))));
    s.share.on = false;
    s.share.state = ShareState::Off;
    let t = shown(&s);
    let switch = find(&t, "share").unwrap();
    assert_eq!((switch.checked, switch.does), (Some(false), Some(Does::Call(r#"{"call":"share","on":true}"#.into()))));
    assert!(!ids(&t).contains(&"menu"), "there is nothing to pause");
}

#[test]
fn a_pause_shows_its_end_and_can_be_ended() {
    let labels = [
        (ShareState::Paused { until_ms: Some(7) }, "Resume now (paused until 14:30)"),
        (ShareState::Paused { until_ms: None }, "Resume now (paused)"),
        (ShareState::Finishing { jobs: 1 }, "Resume now (finishing 1 job)"),
        (ShareState::Finishing { jobs: 3 }, "Resume now (finishing 3 jobs)"),
    ];
    for (state, label) in labels {
        let t = shown(&with(state));
        let resume = find(&t, "resume").unwrap();
        assert_eq!((resume.label.as_str(), resume.does), (label, Some(Does::Call(r#"{"call":"resume"}"#.into()))));
        assert!(!ids(&t).contains(&"menu"));
    }
}

#[test]
fn builds_show_for_those_who_build_and_open_their_reports() {
    let mut s = snapshot();
    s.building = vec![wine()];
    s.builds = vec![row(BuildEnd::Running), row(BuildEnd::Ok)];
    let t = shown(&s);
    let build = find(&t, "build").unwrap();
    assert_eq!(build.label, "wine — 412 of 1\u{a0}830 · 38 cores · about 4 min");
    assert_eq!(build.does, Some(Does::Open(Some("builds/b1".into()))));
    assert_eq!(t.name, "Potluck — building wine, 412 of 1\u{a0}830");
    let last = find(&t, "last").unwrap();
    assert_eq!(last.label, "Last build: linux — done in 1:52");
    assert_eq!(last.does, Some(Does::Open(Some("builds/b0".into()))));
    s.this.role = Some(UserRole::Donor);
    assert!(!ids(&shown(&s)).iter().any(|id| ["build", "last"].contains(id)));
}

#[test]
fn how_a_build_ended_is_said() {
    for (end, label) in [
        (BuildEnd::Failed, "Last build: linux — failed after 1:52"),
        (BuildEnd::Cancelled, "Last build: linux — stopped after 1:52"),
    ] {
        let mut s = snapshot();
        s.builds = vec![row(end)];
        assert_eq!(find(&shown(&s), "last").unwrap().label, label);
    }
    assert_eq!((took(12_000), took(3_723_000)), ("0:12".into(), "1:02:03".into()));
}

#[test]
fn an_end_is_estimated_only_when_there_is_ground_for_it() {
    let line = |done, total| BuildLine { done, total, ..wine() };
    assert_eq!(estimate_ms(&line(50, Some(100)), 1_060_000), Some(60_000));
    assert_eq!(estimate_ms(&line(9, Some(100)), 1_060_000), None, "too early");
    assert_eq!(estimate_ms(&line(50, None), 1_060_000), None, "nobody knows how many will come");
    assert_eq!(estimate_ms(&line(50, Some(100)), 0), None, "the clock was set back");
    assert_eq!(build_line(&BuildLine { cores: 1, ..line(1, None) }, 1_060_000), "wine — 1 job · 1 core");
    assert_eq!(build_line(&line(90, Some(100)), 1_060_000), "wine — 90 of 100 · 38 cores · about a minute");
    assert_eq!(build_line(&line(20, Some(100)), 1_000_000 + 3_600_000), "wine — 20 of 100 · 38 cores · about 4 h");
}

#[test]
fn a_problem_has_one_line_that_does_what_mends_it() {
    let resume = r#"{"call":"resume"}"#.to_owned();
    for (action, does) in [
        (FixAction::View { name: "machines".into() }, Does::Open(Some("machines".into()))),
        (FixAction::Call { json: resume.clone() }, Does::Call(resume)),
        (FixAction::Call { json: r#"{"call":"format_disk"}"#.into() }, Does::Open(Some("help".into()))),
        (FixAction::Command { text: "sudo ufw allow 10555".into() }, Does::Open(Some("help".into()))),
    ] {
        let mut s = snapshot();
        s.problems = vec![problem(action)];
        let t = shown(&s);
        let line = find(&t, "problem").unwrap();
        assert_eq!(line.label, "This network hides computers from each other — fix …");
        assert_eq!(line.does, Some(does));
        assert_eq!(t.name, "Potluck — needs you: This network hides computers from each other.");
    }
}

#[test]
fn names_from_elsewhere_stay_on_one_line_of_bounded_length() {
    let mut s = snapshot();
    s.building = vec![BuildLine { name: format!("a\nb\u{7}{}", "x".repeat(500)), ..wine() }];
    s.share.short = "y".repeat(500);
    for entry in shown(&s).entries {
        if let Entry::Item(item) = entry {
            assert!(item.label.chars().count() <= LABEL_CHARS + 10, "{}", item.label);
            assert!(!item.label.chars().any(char::is_control), "{}", item.label);
        }
    }
}

#[test]
fn without_a_node_the_menu_offers_to_start_one() {
    let stopped = |why| tray(NodeState::Stopped(why), 0, &|_| (0, 0));
    let t = stopped(None);
    assert_eq!(t.icon, Icon::Attention);
    assert_eq!(find(&t, "status").unwrap().label, "Potluck isn't running in the background.");
    assert_eq!(ids(&t), [&["status", "start", "rule"][..], &TAIL].concat());
    assert_eq!(find(&t, "start").unwrap().does, Some(Does::Start));
    let t = stopped(Some("the disk is full\nhint: free some of it"));
    assert_eq!(find(&t, "why").unwrap().label, "the disk is full");
    let t = tray(NodeState::Starting, 0, &|_| (0, 0));
    assert_eq!((t.icon, ids(&t)), (Icon::Off, [&["status", "rule"][..], &TAIL].concat()));
}

fn helping(jobs: u32) -> Tray {
    let mut s = with(ShareState::Helping { slots: 7, jobs, people: 1 });
    s.share.short = format!("Helping with {jobs} jobs");
    shown(&s)
}

#[test]
fn nothing_flickers_faster_than_every_two_seconds() {
    let mut pace = Pace::new(shown(&snapshot()), 0);
    let (three, four) = (helping(3), helping(4));
    assert!(!pace.show(&three, 500), "same lines, other words, too soon");
    assert_eq!((pace.shown().icon, pace.wake(&three)), (Icon::Ready, Some(2000)));
    assert!(pace.show(&three, 2000));
    assert_eq!((pace.shown(), pace.wake(&three)), (&three, None));
    assert!(!pace.show(&four, 3999));
    assert!(pace.show(&four, 4000));
    assert!(!pace.show(&four, 9000), "nothing changed");
}

#[test]
fn a_pc_that_was_given_back_shows_it_at_once() {
    let mut pace = Pace::new(helping(3), 1000);
    let held = shown(&with(ShareState::Held { reason: HeldReason::InUse, resumes_ms: None }));
    assert!(pace.show(&held, 1001));
    assert_eq!(pace.shown(), &held);
}

#[test]
fn what_the_person_did_shows_at_once_and_the_icon_in_its_time() {
    let mut pace = Pace::new(shown(&snapshot()), 0);
    let mut s = with(ShareState::Off);
    s.share.on = false;
    let off = shown(&s);
    assert!(pace.show(&off, 100));
    assert_eq!((pace.shown().icon, &pace.shown().entries), (Icon::Ready, &off.entries));
    assert_eq!(pace.wake(&off), Some(2000));
    assert!(pace.show(&off, 2000));
    assert_eq!(pace.shown(), &off);
}

/// The menu after `steps`, each line with the number that it got when it came.
fn numbered(before: &[(u32, Entry)], after: &[Entry], next: &mut u32) -> Vec<(u32, Entry)> {
    let entries: Vec<Entry> = before.iter().map(|(_, entry)| entry.clone()).collect();
    let mut there = before.to_vec();
    for step in steps(&entries, after) {
        match step {
            Step::Remove(at) => drop(there.remove(at)),
            Step::Insert(at) => {
                *next += 1;
                there.insert(at, (*next, after[at].clone()));
            }
        }
    }
    there
}

#[test]
fn a_line_that_stays_keeps_its_number_in_every_change_of_the_menu() {
    let stopped = |why| tray(NodeState::Stopped(why), 0, &|_| (0, 0));
    let off = || {
        let mut s = with(ShareState::Off);
        s.share.on = false;
        s
    };
    let mut crowded = off();
    crowded.building = vec![wine()];
    crowded.builds = vec![row(BuildEnd::Ok)];
    crowded.problems = vec![problem(FixAction::View { name: "help".into() })];
    let mut shared_and_crowded = crowded.clone();
    shared_and_crowded.share = snapshot().share;
    let menus = [
        tray(NodeState::Starting, 0, &|_| (0, 0)),
        stopped(None),
        stopped(Some("the disk is full")),
        shown(&snapshot()),
        shown(&off()),
        shown(&with(ShareState::Paused { until_ms: None })),
        shown(&crowded),
        shown(&shared_and_crowded),
    ];
    let number = |menu: &[(u32, Entry)], id: &str| {
        menu.iter().find_map(|(n, entry)| matches!(entry, Entry::Item(item) if item.id == id).then_some(*n))
    };
    for before in &menus {
        for after in &menus {
            let mut next = 0;
            let old = numbered(&[], &before.entries, &mut next);
            let new = numbered(&old, &after.entries, &mut next);
            let entries: Vec<Entry> = new.iter().map(|(_, entry)| entry.clone()).collect();
            assert_eq!(steps(&entries, &after.entries), [], "the menu is not the wanted one");
            for id in ["status", "share", "build", "problem", "resume", "last", "why", "start", "open", "quit"] {
                if let (Some(old), Some(new)) = (number(&old, id), number(&new, id)) {
                    assert_eq!(old, new, "{id}, from {:?} to {:?}", before.name, after.name);
                }
            }
        }
    }
}

#[test]
fn a_menu_with_other_words_is_the_same_menu() {
    let paused = |until_ms| shown(&with(ShareState::Paused { until_ms })).entries;
    assert_eq!(steps(&paused(None), &paused(Some(7))), []);
    let mut off = snapshot();
    off.share.on = false;
    assert_eq!(steps(&shown(&snapshot()).entries[..2], &shown(&off).entries[..2]), []);
}

#[test]
fn it_starts_at_login_once_sharing_was_switched_on() {
    let mut s = with(ShareState::Off);
    s.share.settings.start_at_login = true;
    let mut at = |demo, on, wish| {
        (s.this.demo, s.share.on, s.share.settings.start_at_login) = (demo, on, wish);
        starts_at_login(&s)
    };
    assert_eq!(at(false, false, true), None, "never switched on, or off again: as it is");
    assert_eq!(at(false, true, true), Some(true));
    assert_eq!((at(false, true, false), at(false, false, false)), (Some(false), Some(false)), "the person's word");
    assert_eq!((at(true, true, true), at(true, true, false)), (None, None), "a demo changes nothing here");
}

#[test]
fn a_view_is_opened_once_and_a_new_node_opens_none_by_itself() {
    let mut wishes = Wishes::default();
    let asked = |id: u64| {
        let mut s = with(ShareState::Off);
        s.open = (id > 0).then(|| OpenRequest { id, view: format!("builds/{id}") });
        s
    };
    assert_eq!(wishes.heard(&asked(3)), None, "that was asked before");
    assert_eq!((wishes.heard(&asked(4)), wishes.heard(&asked(4))), (Some("builds/4".to_owned()), None));
    assert_eq!(wishes.heard(&asked(0)), None, "nothing to open");
    let mut wishes = Wishes::default();
    assert_eq!((wishes.heard(&asked(0)), wishes.heard(&asked(1))), (None, Some("builds/1".to_owned())));
}

#[test]
fn icons_suit_the_panel() {
    assert_eq!(panel(None, "KDE", "Breeze", false), Panel::Light);
    assert_eq!(panel(None, "KDE", "Breeze-Dark", false), Panel::Dark);
    assert_eq!(panel(None, "XFCE", "Greybird", true), Panel::Dark);
    assert_eq!(panel(None, "ubuntu:GNOME", "Yaru", false), Panel::Dark);
    assert_eq!(panel(Some("light"), "ubuntu:GNOME", "Yaru", false), Panel::Light);
    assert_eq!(panel(Some("dark"), "KDE", "Breeze", false), Panel::Dark);
}
