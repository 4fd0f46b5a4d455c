//! What the simulation promises to whoever tests the window with it.

use std::collections::{HashMap, HashSet};

use potluck_api::build::{JobColumns, Report};
use potluck_api::call::{Call, Pause};
use potluck_api::view::{MachineState, ShareState, Snapshot};
use potluck_api::words;
use potluck_model::reason::Reason;
use serde_json::{Value, json};

use super::scenes::NAMES;
use super::world::World;

/// Some Sunday.
const ORIGIN_MS: u64 = 1_795_320_000_000;

fn world() -> World {
    World::new(7, ORIGIN_MS)
}

fn call(world: &mut World, call: Value) -> Value {
    world.call(1, serde_json::from_value::<Call>(call).unwrap());
    let mut answers = world.take_answers();
    assert_eq!(answers.len(), 1);
    answers.remove(0).1
}

fn scene(world: &mut World, name: &str) -> Snapshot {
    assert_eq!(call(world, json!({"call": "scene", "name": name})), json!({"ok": true}), "{name}");
    world.snapshot()
}

/// Passes time.
fn pass(world: &mut World, ms: u64) -> Snapshot {
    world.advance(world.now + ms);
    world.snapshot()
}

/// A stream's values up to now.
fn heard(world: &mut World, conn: u64) -> Vec<(Value, bool)> {
    world.take_answers().into_iter().filter(|(c, ..)| *c == conn).map(|(_, value, last)| (value, last)).collect()
}

fn sum(report: &Report) -> u32 {
    let c = report.build.counts;
    c.remote + c.here + c.only + c.failed
}

/// All that must agree between the columns of a build and its report.
fn agrees(report: &Report, jobs: &JobColumns) {
    let (name, count) = (&report.build.name, jobs.start_ms.len());
    assert_eq!((sum(report), report.jobs), (count as u32, count as u32), "{name}");
    for column in
        [&jobs.took_ms, &jobs.wait_ms, &jobs.understand_ms, &jobs.travel_ms, &jobs.compile_ms, &jobs.finish_ms]
    {
        assert_eq!(column.len(), count);
    }
    assert_eq!((jobs.file.len(), jobs.kind.len(), jobs.lane.len(), jobs.repeats.len()), (count, count, count, count));
    let of_kind = |kind: u8| jobs.kind.iter().filter(|k| **k == kind).count() as u32;
    let c = report.build.counts;
    assert_eq!((of_kind(0), of_kind(1), of_kind(2), of_kind(3)), (c.remote, c.here, c.only, c.failed), "{name}");
    assert_eq!(report.reasons.iter().map(|r| r.jobs).sum::<u32>(), c.here + c.only, "{name}");
    assert_eq!(report.machines.iter().map(|m| m.jobs).sum::<u32>(), count as u32, "{name}");
    assert_eq!(jobs.repeats.iter().map(|r| u32::from(*r)).sum::<u32>(), report.repeated, "{name}");
    let mut lanes: HashMap<(u16, u16), u32> = HashMap::new();
    for job in 0..count {
        let parts = jobs.understand_ms[job] + jobs.travel_ms[job] + jobs.compile_ms[job] + jobs.finish_ms[job];
        assert_eq!(parts, jobs.took_ms[job]);
        assert!(job == 0 || jobs.start_ms[job - 1] <= jobs.start_ms[job], "{name}: in the order of their start");
        let free = lanes.entry((jobs.machine[job], jobs.lane[job])).or_default();
        assert!(*free <= jobs.start_ms[job], "{name}: jobs of a row overlap");
        *free = jobs.start_ms[job] + jobs.took_ms[job];
        assert!(u64::from(*free) <= report.build.took_ms, "{name}");
        let reason = &jobs.reasons[usize::from(jobs.reason[job])];
        assert_eq!(reason.is_empty(), jobs.kind[job] == 0 && jobs.repeats[job] == 0, "{name}: {reason}");
        assert_eq!(jobs.machine[job] == 0, jobs.kind[job] != 0, "{name}");
    }
    assert!(report.reasons.iter().all(|r| !r.title.is_empty() && !r.text.is_empty()), "{name}");
}

#[test]
fn the_same_seed_and_calls_show_the_same_and_another_seed_does_not() {
    let run = |seed: u64| {
        let mut world = World::new(seed, ORIGIN_MS);
        let mut shown = vec![json!(world.snapshot())];
        let calls = [
            json!({"call": "scene", "name": "helping"}),
            json!({"call": "pause", "until": "finish"}),
            json!({"call": "team_invite", "uses": 3, "expires_s": 600}),
            json!({"call": "toolchain_sync", "id": null, "watch": false}),
            json!({"call": "scene", "name": "building"}),
            json!({"call": "scene", "name": "user-input"}),
            json!({"call": "jobs", "build": "wine"}),
        ];
        for asked in calls {
            world.advance(world.now + 1300);
            shown.push(call(&mut world, asked));
            shown.push(json!(world.snapshot()));
        }
        shown
    };
    let (one, again, other) = (run(5), run(5), run(6));
    assert!(one == again);
    assert_ne!(one[0], other[0]);
}

#[test]
fn how_time_is_cut_into_steps_changes_nothing() {
    let (mut fine, mut coarse) = (world(), world());
    (0..600).for_each(|n| fine.advance(n * 100));
    coarse.advance(59_900);
    assert_eq!(json!(fine.snapshot()), json!(coarse.snapshot()));
}

#[test]
fn every_number_of_every_build_agrees() {
    let mut world = world();
    let rows = world.snapshot().builds;
    assert!(rows.len() >= 12);
    for row in rows {
        let report: Report =
            serde_json::from_value(call(&mut world, json!({"call": "report", "build": row.id}))).unwrap();
        let jobs = serde_json::from_value(call(&mut world, json!({"call": "jobs", "build": row.id}))).unwrap();
        assert_eq!(report.build, row);
        agrees(&report, &jobs);
        if row.name == "scale" {
            assert_eq!(report.jobs, 100_000);
        }
    }
}

#[test]
fn a_build_that_runs_has_numbers_that_agree_too_and_ends_in_the_history() {
    let mut world = world();
    let shown = scene(&mut world, "building");
    let line = &shown.building[0];
    assert_eq!((line.total, line.name.as_str()), (Some(1830), "wine"));
    let report: Report = serde_json::from_value(call(&mut world, json!({"call": "report", "build": line.id}))).unwrap();
    let jobs: JobColumns = serde_json::from_value(call(&mut world, json!({"call": "jobs", "build": "wine"}))).unwrap();
    agrees(&report, &jobs);
    assert_eq!((report.jobs, report.build.counts), (line.done, line.counts));
    let later = pass(&mut world, 5_000);
    assert!(later.building[0].done > line.done && later.building[0].cores > 0);
    let used: u32 = later.machines.iter().filter(|m| !m.this_pc).map(|m| m.used_by_me).sum();
    assert_eq!(used, later.building[0].cores);
    let done = scene(&mut world, "build-done");
    assert!(done.building.is_empty());
    assert_eq!((&done.builds[0].id, done.builds[0].counts.only), (&line.id, 40 + report_only(&mut world, &line.id)));
}

/// Jobs that only this machine can do, links aside.
fn report_only(world: &mut World, id: &str) -> u32 {
    let report: Report = serde_json::from_value(call(world, json!({"call": "report", "build": id}))).unwrap();
    let only =
        |code: &str| Reason::ALL.iter().any(|r| r.code() == code && r.class() == potluck_model::reason::Class::Only);
    report.reasons.iter().filter(|r| only(&r.code) && r.code != "link").map(|r| r.jobs).sum()
}

#[test]
fn every_reason_occurs_in_the_build_of_that_name() {
    let mut world = world();
    let jobs: JobColumns =
        serde_json::from_value(call(&mut world, json!({"call": "jobs", "build": "every-reason"}))).unwrap();
    let found: HashSet<&str> = jobs.reason.iter().map(|r| jobs.reasons[usize::from(*r)].as_str()).collect();
    for reason in Reason::ALL {
        assert!(found.contains(reason.code()), "{reason}");
    }
    assert!(found.contains("unsupported-flag:-fexample"));
    let report: Report =
        serde_json::from_value(call(&mut world, json!({"call": "report", "build": "every-reason"}))).unwrap();
    for row in &report.reasons {
        let reason = Reason::from_code(&row.code).unwrap();
        assert_eq!((row.text.as_str(), row.avoidable), (reason.sentence(), reason.is_avoidable()), "{reason}");
    }
    let title = |code: &str| report.reasons.iter().find(|r| r.code == code).map(|r| r.title.clone()).unwrap();
    assert_eq!((title("probe"), title("faster-here")), ("Configure tests".to_owned(), "Faster here".to_owned()));
}

#[test]
fn the_person_gets_everything_back_within_a_second() {
    let mut world = world();
    let before = scene(&mut world, "helping");
    assert_eq!(before.share.state, ShareState::Helping { slots: 7, jobs: 7, people: 2 });
    pass(&mut world, 3_000);
    let at_once = scene(&mut world, "user-input");
    assert_eq!(at_once.share.slots, 0);
    assert!(matches!(at_once.share.state, ShareState::Held { .. }), "{:?}", at_once.share.state);
    assert!(at_once.share.sentence.starts_with("You're using this computer"));
    let after = pass(&mut world, 1_000);
    assert!(after.share.helping.is_empty() && after.machines[0].used == 0 && after.machines[0].offered == 0);
    // Three minutes later it helps again by itself.
    let later = pass(&mut world, 180_000);
    assert!(matches!(later.share.state, ShareState::Helping { slots: 7, .. }), "{:?}", later.share.state);
}

#[test]
fn a_machine_that_is_taken_back_leaves_cut_bars_and_what_was_drawn_before_stays() {
    let mut world = world();
    scene(&mut world, "building");
    pass(&mut world, 2_000);
    let columns = |world: &mut World| -> JobColumns {
        serde_json::from_value(call(world, json!({"call": "jobs", "build": "wine"}))).unwrap()
    };
    let before = columns(&mut world);
    let taken = scene(&mut world, "user-input");
    let at_once = columns(&mut world);
    assert!(before == at_once, "{} jobs, then {}", before.file.len(), at_once.file.len());
    assert_eq!(taken.machines.iter().filter(|m| !m.this_pc && m.state == MachineState::InUse).count(), 2);
    pass(&mut world, 15_000);
    let after = columns(&mut world);
    assert!(after.repeats.iter().any(|r| *r > 0) && after.reasons.iter().any(|r| r == "peer-reclaimed"));
    let known: HashSet<&String> = after.file.iter().collect();
    assert!(before.file.iter().all(|f| known.contains(f)));
    // Its owner leaves again.
    let later = pass(&mut world, 10_000);
    assert_eq!(later.machines.iter().filter(|m| !m.this_pc && m.state == MachineState::InUse).count(), 1);
}

#[test]
fn each_problem_is_raised_with_its_check_and_cleared() {
    let mut world = world();
    for code in ["N1", "N2", "N3", "N4", "V1", "S1", "D1", "M1", "T1", "C1", "K1", "A1"] {
        let raised = scene(&mut world, code);
        let codes: Vec<&str> = raised.problems.iter().map(|p| p.code.as_str()).collect();
        assert_eq!(codes, [code]);
        let check = raised.checks.iter().find(|c| c.code.as_deref() == Some(code)).unwrap();
        assert_eq!(check.title, raised.problems[0].headline);
        assert!(!raised.problems[0].fix.label.is_empty() && !check.fix.is_empty());
        let clear = scene(&mut world, "clear");
        assert!(clear.problems.is_empty() && clear.checks.iter().all(|c| c.code.is_none()), "{code}");
    }
    NAMES.iter().filter(|n| n.len() == 2).for_each(|code| drop(scene(&mut world, code)));
    let all = world.snapshot().problems;
    assert_eq!(all.len(), 12);
    for problem in &all {
        let known = words::problem::known(&problem.code).unwrap();
        assert_eq!((problem.fix.label.as_str(), problem.attention), (known.label, known.attention));
        assert!(known.headline.split("{}").all(|part| problem.headline.contains(part)), "{}", problem.headline);
        assert!(!problem.headline.contains("{}") && !problem.headline.starts_with(' '));
    }
    assert!(all.is_sorted_by_key(|p| words::problem::rank(&p.code)));
}

#[test]
fn sharing_says_what_a_real_node_says() {
    let mut world = world();
    let mut said = |name: &str| scene(&mut world, name).share;
    let helping = said("helping");
    assert_eq!(helping.short, "Helping 2 people – 7 of 7 cores");
    assert_eq!(said("S1").sentence, "This computer can't lock builds in a safe box, so it doesn't help others.");
    said("clear");
    let paused = said("paused");
    assert!(
        paused.sentence.starts_with("Sharing is paused until ") && paused.short.starts_with("Not sharing – paused")
    );
    assert!(paused.rule.starts_with("With these settings this computer helps any time, with 7 of 8 cores"));
}

#[test]
fn every_scene_can_follow_every_other_and_the_pool_adds_up() {
    let mut world = world();
    let mut check = |name: &str| {
        scene(&mut world, name);
        let shown = pass(&mut world, 300);
        let offered: u32 = shown.machines.iter().map(|m| m.offered).sum();
        assert_eq!(shown.pool.cores, offered, "{name}");
        let states = shown.pool.sharing + shown.pool.in_use + shown.pool.unavailable;
        assert_eq!(states as usize, shown.machines.len(), "{name}");
        assert_eq!(shown.machines[0].offered, shown.share.slots, "{name}");
        assert!(!shown.share.sentence.is_empty() && shown.scenes.contains(&name.to_owned()));
    };
    NAMES.iter().for_each(|name| check(name));
    NAMES.iter().rev().for_each(|name| check(name));
}

#[test]
fn scenes_show_what_they_are_called() {
    let mut world = world();
    let state = |world: &mut World, name: &str| json!(scene(world, name).share.state);
    assert_eq!(state(&mut world, "battery")["reason"], "battery");
    assert_eq!(state(&mut world, "schedule")["reason"], "schedule");
    assert_eq!(state(&mut world, "cpu-busy")["reason"], "cpu_busy");
    assert_eq!(state(&mut world, "memory")["reason"], "memory");
    assert_eq!(state(&mut world, "clear")["is"], "ready");
    assert_eq!(state(&mut world, "own-build")["reason"], "own_build");
    assert_eq!(state(&mut world, "finishing")["is"], "finishing");
    assert_eq!(json!(pass(&mut world, 12_000).share.state), json!({"is": "paused", "until_ms": null}));
    assert_eq!(state(&mut world, "paused")["is"], "paused");
    let empty = scene(&mut world, "empty");
    assert!(empty.team.is_none() && empty.this.role.is_none() && !empty.share.on && empty.builds.is_empty());
    assert_eq!(empty.machines.len(), 1);
    let many = scene(&mut world, "many-machines");
    assert_eq!(many.machines.len(), 200);
    let hostile = scene(&mut world, "hostile-names");
    assert!(hostile.machines.iter().any(|m| m.name.contains("<script>")));
    assert!(hostile.machines.iter().all(|m| m.name.chars().count() <= 64));
    assert_eq!(scene(&mut world, "lock").share.slots, 0);
    assert!(pass(&mut world, 5_100).share.slots > 0);
}

#[test]
fn two_thousand_events_a_second_for_a_minute() {
    let mut world = world();
    let before = scene(&mut world, "many-machines").building[0].done;
    let after = pass(&mut world, 60_000);
    assert!(after.building[0].done - before > 60_000, "{}", after.building[0].done - before);
}

#[test]
fn nothing_moves_where_nothing_happens() {
    let mut world = world();
    for name in ["empty", "donor", "developer", "clear", "paused", "battery", "N2"] {
        let before = scene(&mut world, name);
        world.take_changed();
        assert_eq!(before, pass(&mut world, 10_000), "{name}");
        assert!(!world.take_changed(), "{name}");
    }
}

#[test]
fn joining_a_team_nearby_waits_for_a_keeper_who_says_yes_after_two_seconds() {
    let mut world = world();
    let empty = scene(&mut world, "empty");
    let lab = empty.nearby.iter().find(|n| n.name == "Kernel lab").unwrap();
    world.call(5, Call::TeamAsk { nearby: lab.id.clone() });
    pass(&mut world, 1_000);
    let Some(potluck_api::view::Joining::Waiting { check, .. }) = world.snapshot().joining else { panic!() };
    assert_eq!(check.len(), 4);
    pass(&mut world, 1_500);
    assert!(world.snapshot().team.is_none());
    let joined = pass(&mut world, 500);
    let team = joined.team.unwrap();
    assert_eq!((team.name.as_str(), team.members.len(), joined.machines.len()), ("Kernel lab", 8, 8));
    let stream: Vec<(String, bool)> =
        heard(&mut world, 5).into_iter().map(|(v, last)| (v["is"].as_str().unwrap().to_owned(), last)).collect();
    let expected =
        [("connecting", false), ("waiting", false), ("joined", true)].map(|(is, last)| (is.to_owned(), last));
    assert_eq!(stream, expected);
    assert!(pass(&mut world, 11_000).joining.is_none());
}

#[test]
fn joining_by_a_link_and_failing_and_giving_up() {
    let mut world = world();
    let link = call(&mut world, json!({"call": "team_invite", "uses": 1, "expires_s": 60}));
    assert!(
        link["qr_svg"].as_str().unwrap().contains("<svg") && link["qr_text"].as_str().unwrap().lines().count() > 20
    );
    let link = link["link"].as_str().unwrap().to_owned();
    scene(&mut world, "empty");
    assert!(
        call(&mut world, json!({"call": "team_join", "link": "nonsense"}))["error"].as_str().unwrap().contains("hint:")
    );
    world.call(5, Call::TeamAskAddress { address: "192.0.2.9:9".into() });
    pass(&mut world, 1_000);
    assert!(heard(&mut world, 5).last().is_some_and(|(v, last)| v["error"].is_string() && *last));
    world.call(6, Call::TeamAskAddress { address: "192.0.2.9:10555".into() });
    pass(&mut world, 1_000);
    heard(&mut world, 6);
    call(&mut world, json!({"call": "role", "role": "developer"}));
    world.call(7, Call::TeamJoinCancel);
    assert!(world.take_answers().iter().any(|(conn, v, last)| *conn == 6 && v["error"].is_string() && *last));
    assert!(pass(&mut world, 5_000).team.is_none());
    world.call(8, Call::TeamJoin { link });
    let joined = pass(&mut world, 1_000);
    assert_eq!(joined.team.map(|t| t.name).as_deref(), Some("Kernel lab"));
    assert!(joined.toolchains.len() == 3 && joined.toolchains.iter().all(|t| t.machines.len() == 7));
    assert!(heard(&mut world, 8).last().is_some_and(|(v, last)| v["is"] == "joined" && *last));
    assert_eq!(call(&mut world, json!({"call": "team_leave"})), json!({"ok": true}));
    assert!(world.snapshot().machines.len() == 1);
}

#[test]
fn a_keeper_lets_somebody_in() {
    let mut world = world();
    let asking = scene(&mut world, "asking").team.unwrap().asking;
    assert_eq!((asking.len(), asking[0].name.as_str(), asking[0].check.len()), (1, "lab-09", 4));
    assert_eq!(call(&mut world, json!({"call": "team_approve", "id": asking[0].id})), json!({"ok": true}));
    let after = world.snapshot();
    assert!(
        after.team.unwrap().members.iter().any(|m| m.name == "lab-09")
            && after.machines.iter().any(|m| m.name == "lab-09")
    );
    assert!(call(&mut world, json!({"call": "team_approve", "id": asking[0].id}))["error"].is_string());
}

#[test]
fn a_toolchain_travels_to_each_machine_and_the_stream_ends_when_it_is_everywhere() {
    let mut world = world();
    scene(&mut world, "developer");
    let id = world.snapshot().toolchains[2].id.clone();
    world.call(9, Call::ToolchainSync { id: Some(id[..8].to_owned()), watch: true });
    let part = pass(&mut world, 1_000).toolchains.remove(2);
    assert!(part.machines.iter().any(|m| m.percent > 0 && m.percent < 100));
    assert!(part.machines.iter().any(|m| m.percent == 0));
    let all = pass(&mut world, 30_000).toolchains.remove(2);
    assert!(all.machines.iter().all(|m| m.percent == 100));
    let stream = heard(&mut world, 9);
    assert!(stream.len() > 3 && stream.iter().filter(|(_, last)| *last).count() == 1);
    let (end, last) = stream.last().unwrap();
    assert!(*last && end["done"] == true);
}

#[test]
fn what_is_changed_is_shown() {
    let mut world = world();
    scene(&mut world, "developer");
    let mut settings = world.snapshot().share.settings;
    settings.preset = potluck_api::view::Preset::Custom;
    settings.cores_away = potluck_api::view::Cores::Count(3);
    assert_eq!(call(&mut world, json!({"call": "share_settings", "settings": settings})), json!({"ok": true}));
    let shown = world.snapshot().share;
    assert!(shown.slots_max == 3 && shown.rule.contains("3 of 8 cores"), "{}", shown.rule);
    settings.away_after_s = 5;
    assert!(call(&mut world, json!({"call": "share_settings", "settings": settings}))["error"].is_string());
    world.call(1, Call::Pause { until: Pause::Tomorrow });
    let ShareState::Paused { until_ms: Some(until) } = world.snapshot().share.state else { panic!() };
    assert_eq!(until / 1000 % 86_400, 8 * 3600);
    assert!(world.snapshot().share.sentence.contains("08:00"));
    world.take_answers();
    let shown = world.snapshot();
    let row = &shown.recent[0];
    for (asked, gone) in [
        (json!({"call": "dismiss", "id": row.id}), "recent"),
        (json!({"call": "forget", "submitter": shown.received[0].submitter}), "received"),
        (json!({"call": "build_forget", "build": shown.builds[0].id}), "builds"),
        (json!({"call": "peers_remove", "address": shown.addresses[0]}), "addresses"),
    ] {
        let count = |world: &World| json!(world.snapshot())[gone].as_array().unwrap().len();
        let before = count(&world);
        assert_eq!(call(&mut world, asked), json!({"ok": true}));
        assert_eq!(count(&world), before - 1, "{gone}");
    }
    call(&mut world, json!({"call": "team_rename", "name": "new name"}));
    let shown = world.snapshot();
    assert_eq!((shown.this.name.as_str(), shown.machines[0].name.as_str()), ("new name", "new name"));
}
