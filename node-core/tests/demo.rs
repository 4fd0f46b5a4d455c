//! `potluck node --demo` through its real transports: the local socket, the command line, a page.

mod common;

use common::{Frame, Node, page};
use serde_json::{Value, json};

const DEMO: &[&str] = &["--demo", "7"];

#[test]
fn it_says_that_it_is_a_simulation() {
    let node = Node::start(DEMO);
    assert!(node.said.iter().any(|l| l.contains("a simulation")), "{:?}", node.said);
    assert_eq!(node.call(&json!({"call": "snapshot"}))["this"]["demo"], true);
}

#[test]
fn the_command_line_works_with_it() {
    let node = Node::start(DEMO);
    let run = |args: &[&str]| {
        let output = node.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    assert!(run(&["status"]).contains("Kernel lab"));
    assert!(run(&["team", "list"]).contains("mara-desk"));
    assert!(run(&["team", "invite"]).contains("pool:join?team="));
    assert!(run(&["toolchain", "list"]).contains("gcc 14.2.0"));
    assert!(run(&["explain", "last"]).contains("link"));
    assert!(run(&["jobs"]).trim().parse::<u32>().unwrap() > 8);
}

#[test]
fn who_watches_hears_of_the_person_coming_back_and_of_the_cores_being_free() {
    let node = Node::start(DEMO);
    assert_eq!(node.call(&json!({"call": "scene", "name": "helping"})), json!({"ok": true}));
    let mut watched = node.ask(&json!({"call": "watch", "every_ms": 100}));
    let (first, _) = watched.next();
    assert_eq!(first["sections"]["share"]["state"], json!({"is": "helping", "slots": 7, "jobs": 7, "people": 2}));
    let asked = std::time::Instant::now();
    node.call(&json!({"call": "scene", "name": "user-input"}));
    let share = |v: &Value| v["sections"]["share"].clone();
    let back = share(&watched.until(|v| share(v)["state"]["is"] == "held"));
    assert_eq!((&back["slots"], &back["state"]["reason"]), (&json!(0), &json!("in_use")));
    watched.until(|v| share(v)["helping"] == json!([]));
    assert!(asked.elapsed().as_millis() < 3000, "{:?}", asked.elapsed());
}

#[test]
fn updates_have_numbers_without_gaps_and_only_what_changed() {
    let node = Node::start(DEMO);
    let mut watched = node.ask(&json!({"call": "watch", "every_ms": 100}));
    let (first, _) = watched.next();
    let mut shown = first["sections"].clone();
    let all = shown.as_object().unwrap().len();
    for seq in 2..12 {
        let (update, last) = watched.next();
        assert_eq!((&update["seq"], last), (&json!(seq), false));
        let sections = update["sections"].as_object().unwrap();
        assert!(!sections.is_empty() && sections.len() < all);
        for (name, value) in sections {
            assert_ne!(&shown[name], value, "{name} has not changed");
            shown[name] = value.clone();
        }
    }
}

#[test]
fn a_page_sees_a_hundred_thousand_jobs() {
    let node = Node::start(DEMO);
    let (at, session) = node.session();
    let mut page = page(at, &session);
    let jobs = page.call(1, &json!({"call": "jobs", "build": "scale"}));
    assert_eq!(jobs["start_ms"].as_array().unwrap().len(), 100_000);
    page.say(&json!({"id": 2, "call": {"call": "stop"}}));
    let Frame::Text(answer) = page.hear() else { panic!() };
    assert_eq!(answer["value"]["ok"], true);
}

#[test]
fn joining_streams_its_steps() {
    let node = Node::start(DEMO);
    node.call(&json!({"call": "scene", "name": "empty"}));
    let nearby = node.call(&json!({"call": "snapshot"}))["nearby"][0]["id"].clone();
    let mut stream = node.ask(&json!({"call": "team_ask", "nearby": nearby}));
    let mut steps = Vec::new();
    loop {
        let (value, last) = stream.next();
        steps.push(value["is"].as_str().unwrap().to_owned());
        if last {
            break;
        }
    }
    assert_eq!(steps, ["connecting", "waiting", "joined"]);
    assert_eq!(node.call(&json!({"call": "snapshot"}))["team"]["name"], "Kernel lab");
}
