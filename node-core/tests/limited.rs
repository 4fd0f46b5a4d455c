//! Workers that lack something. Without room for a submitter's files it is not used, and its own jobs go on over the same
//! link; without FUSE it is used.

mod pool;
mod programs;
mod tree_space;

use std::fs;
use std::path::PathBuf;

use pool::{Pc, delegated, local_object, team, until, write_sources};
use serde_json::Value;
use tree_space::Space;

/// A worker of `helper`'s team that cannot open a mirror: where they belong is a file, which is returned.
fn broken_worker(space: &Space, helper: &Pc) -> (Pc, PathBuf) {
    let cache = space.path("broken/cache/potluck");
    fs::create_dir_all(&cache).unwrap();
    let in_the_way = cache.join("mirrors");
    fs::write(&in_the_way, "").unwrap();
    let broken = Pc::start(space, "broken", &["--serve", "2", "--local-compiles", "0"]);
    team(helper, &[&broken]);
    let id = broken.id();
    until("it is known not to serve", || helper.peer(&id).filter(|p| p["trap"] == "none"));
    (broken, in_the_way)
}

/// What it wrote after it last found that it cannot keep the other's files: both may have dialled at first.
fn log_since(broken: &Pc) -> String {
    let log = fs::read_to_string(broken.dir.join("state/potluck/node.log")).unwrap();
    log.rsplit_once("cannot be kept here, it does without this PC").expect(&log).1.to_owned()
}

#[test]
fn a_worker_without_room_for_mirrors_keeps_its_link_and_serves_over_it_once_there_is_room() {
    if delegated("a_worker_without_room_for_mirrors_keeps_its_link_and_serves_over_it_once_there_is_room") {
        return;
    }
    let space = Space::new("unkept-link");
    let helper = Pc::start(&space, "helper", &["--serve", "2"]);
    let (broken, in_the_way) = broken_worker(&space, &helper);
    let broken_id = broken.id();
    fs::remove_file(in_the_way).unwrap();
    until("there is room again", || {
        helper.peer(&broken_id).filter(|p| ["fuse", "loop"].map(Value::from).contains(&p["trap"]))
    });
    assert!(helper.peer(&broken_id).unwrap()["connected"] == true);
    let log = log_since(&broken);
    assert!(!log.contains(" ended") && !log.contains("disconnected"), "{log}");
}

#[test]
fn a_worker_without_room_for_mirrors_gets_no_job_and_its_own_builds_go_on() {
    if delegated("a_worker_without_room_for_mirrors_gets_no_job_and_its_own_builds_go_on") {
        return;
    }
    let space = Space::new("unkept-builds");
    let helper = Pc::start(&space, "helper", &["--serve", "2", "--local-compiles", "0"]);
    let (broken, _) = broken_worker(&space, &helper);
    let project = space.path("project");
    write_sources(&project, &[], &["a", "b"]);
    broken.says(&["toolchain", "add", "/usr/bin/gcc"]);
    broken.says(&["toolchain", "sync"]);
    let compile = |pc: &Pc, name: &str| {
        let output = pc.compile(&project, name, &format!("{name}.o"));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(fs::read(project.join(format!("{name}.o"))).unwrap() == local_object(&project, name));
        pc.last_job()
    };
    assert_eq!(compile(&broken, "a"), (true, helper.id()));
    assert!(!compile(&helper, "b").0, "nobody else serves");
    let log = log_since(&broken);
    assert!(!log.contains(" ended") && !log.contains("disconnected"), "{log}");
}

#[test]
fn a_worker_without_fuse_serves() {
    if delegated("a_worker_without_fuse_serves") {
        return;
    }
    let space = Space::new("no-fuse");
    let submitter = Pc::start(&space, "submitter", &["--local-compiles", "0"]);
    let worker = Pc::start(&space, "worker", &["--serve", "2", "--no-fuse"]);
    team(&submitter, &[&worker]);
    let project = space.path("project");
    write_sources(&project, &[], &["a"]);
    submitter.says(&["toolchain", "add", "/usr/bin/gcc"]);
    submitter.says(&["toolchain", "sync"]);
    assert_eq!(submitter.peer(&worker.id()).unwrap()["trap"], "loop");
    let output = submitter.compile(&project, "a", "a.o");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(fs::read(project.join("a.o")).unwrap() == local_object(&project, "a"));
    assert_eq!(submitter.last_job(), (true, worker.id()));
}
