//! Roles as real nodes keep them: who only submits is given no jobs, and who only serves has its compiles to itself.

mod pool;
mod programs;
mod tree_space;

use std::fs;

use pool::{Pc, copy_of, delegated, hello, local_object, say, team, until, write_sources};
use potluck_node::transport::dial;
use potluck_wire::pool::{self as wire, frame::Kind};
use tree_space::Space;

#[test]
fn who_only_submits_gets_no_jobs_and_who_only_serves_compiles_its_own_itself() {
    if delegated("who_only_submits_gets_no_jobs_and_who_only_serves_compiles_its_own_itself") {
        return;
    }
    let space = Space::new("roles");
    let keeper = Pc::start(&space, "keeper", &["--serve", "2", "--local-compiles", "0"]);
    let laptop = Pc::start(&space, "laptop", &["--serve", "2", "--local-compiles", "0"]);
    let tower = Pc::start(&space, "tower", &["--serve", "2", "--local-compiles", "0"]);
    team(&keeper, &[&laptop, &tower]);
    let (laptop_id, tower_id) = (laptop.id(), tower.id());
    let project = space.path("project");
    write_sources(&project, &[], &["a", "b", "c", "d"]);
    let right: Vec<Vec<u8>> = ["a", "b", "c", "d"].iter().map(|name| local_object(&project, name)).collect();
    let is_right = |name: &str, at: usize| {
        assert!(fs::read(project.join(format!("{name}.o"))).unwrap() == right[at], "{name}.o differs from gcc's");
    };
    let slots = |pc: &Pc, id: &str| pc.peer(id).map(|p| p["slots"].as_u64().unwrap_or(0));

    // As members both are workers of everybody.
    for (pc, id) in [(&keeper, &laptop_id), (&keeper, &tower_id), (&laptop, &tower_id), (&tower, &laptop_id)] {
        until("slots of a member", || slots(pc, id).filter(|slots| *slots == 2));
    }
    for (name, role) in [("laptop", "submit-only"), ("tower", "serve-only")] {
        keeper.says(&["team", "role", name, role]);
    }
    until("the laptop's offer is gone everywhere", || {
        let gone = |pc: &Pc| slots(pc, &laptop_id).is_none_or(|slots| slots == 0);
        (gone(&keeper) && gone(&tower)).then_some(())
    });
    until("the tower serves on", || slots(&keeper, &tower_id).filter(|slots| *slots == 2));
    until("and the laptop may use it", || slots(&laptop, &tower_id).filter(|slots| *slots == 2));
    let said = laptop.json(&["status"])["sharing"].clone();
    assert_eq!(said["slots"], 0, "{said}");

    // Of the keeper's jobs, as many at a time as both had room for, none goes to the laptop.
    for pc in [&keeper, &laptop] {
        pc.says(&["toolchain", "add", "/usr/bin/gcc"]);
        pc.says(&["toolchain", "sync"]);
    }
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let (keeper, project) = (&keeper, &project);
            scope.spawn(move || {
                let output = keeper.compile(project, name, &format!("{name}.o"));
                assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            });
        }
    });
    ["a", "b", "c", "d"].iter().enumerate().for_each(|(at, name)| is_right(name, at));
    let records = keeper.records("submitter");
    assert!(records.len() == 4 && records.iter().all(|r| r["worker"] == tower_id.as_str()), "{records:#?}");
    assert_eq!(laptop.records("worker"), Vec::<serde_json::Value>::new());

    // The laptop's go elsewhere ...
    let output = laptop.compile(&project, "a", "a.o");
    assert!(output.status.success(), "{output:?}");
    assert!(laptop.last_job().0, "{:?}", laptop.last_job());
    is_right("a", 0);
    // ... and the tower's own stay, although the keeper has room.
    let served = keeper.records("worker").len();
    let output = tower.compile(&project, "b", "b.o");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(!tower.last_job().0, "{:?}", tower.last_job());
    is_right("b", 1);
    assert_eq!(keeper.records("worker").len(), served);
    assert_eq!(laptop.records("worker"), Vec::<serde_json::Value>::new());
}

#[test]
fn a_serve_only_members_jobs_are_refused_by_workers_whatever_its_own_node_thinks() {
    if delegated("a_serve_only_members_jobs_are_refused_by_workers_whatever_its_own_node_thinks") {
        return;
    }
    let space = Space::new("roles-refused");
    let keeper = Pc::start(&space, "keeper", &["--serve", "2"]);
    let mut tower = Pc::start(&space, "tower", &["--serve", "0"]);
    team(&keeper, &[&tower]);
    let tower_id = tower.id();
    let copy = copy_of(&tower, &space.path("copy"));
    tower.stop();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let to = keeper.address.parse().unwrap();
    // What the worker says to a job that comes behind a demand for slots; and the slots that it gave.
    let asked = || {
        let mut link = runtime.block_on(async { dial(&copy, to, None).await }).unwrap();
        assert!(say(&link, hello()) && say(&link, Kind::Demand(wire::Demand { slots: 2 })));
        until("greeted", || keeper.peer(&tower_id).filter(|p| p["connected"] == true));
        assert!(say(&link, Kind::Job(wire::Job { id: 7, ..wire::Job::default() })));
        let mut given = 0;
        loop {
            let frame =
                runtime.block_on(async { tokio::time::timeout(programs::PATIENCE, link.control_rx.recv()).await });
            match frame.expect("an answer in time").and_then(|frame| frame.kind) {
                Some(Kind::Credits(credits)) => given = credits.slots,
                Some(Kind::Refused(refused)) if refused.id == 7 => return (refused.note, given),
                // As a member's job it is taken, and is no good.
                Some(Kind::Result(result)) if result.id == 7 => return ("taken".to_owned(), given),
                Some(_) => {}
                None => panic!("the worker hung up"),
            }
        }
    };
    assert_eq!(asked().0, "taken");
    keeper.says(&["team", "role", "tower", "serve-only"]);
    let (note, given) = asked();
    assert_eq!((note.as_str(), given), ("in the team your computer only serves", 0));
}
