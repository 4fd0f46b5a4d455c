//! The Lab itself: a harness that shows a worker the host's files would prove nothing.

use std::fs;
use std::path::{Path, PathBuf};

use potluck_tests::lab::base_dir;
use potluck_tests::person::{Person, is_root};
use potluck_tests::{Lab, Plan};

fn project(name: &str) -> PathBuf {
    let dir = base_dir().unwrap().join("src").join(format!("test-{name}-{}", std::process::id()));
    Person::submitter().make_dir(&dir).unwrap();
    fs::write(dir.join("secret.h"), "#define SECRET 1\n").unwrap();
    fs::write(dir.join("main.c"), "#include \"secret.h\"\nint main(void) { return SECRET; }\n").unwrap();
    dir
}

/// Namespaces and devices need root; the product's own tests as an ordinary user run without them.
fn can_make_namespaces() -> bool {
    if !is_root() {
        eprintln!("not root: nothing to show");
    }
    is_root()
}

#[test]
fn a_worker_sees_decoys_or_nothing_where_the_host_has_project_compiler_and_headers() {
    if !can_make_namespaces() {
        return;
    }
    let project = project("decoys");
    let lab = Lab::start_empty(Plan::new("decoys", 2, 1, std::slice::from_ref(&project))).unwrap();
    let inner = |w: usize, path: &Path| lab.workers[w].root().join(path.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(inner(0, &project.join("secret.h"))).unwrap(), "#error decoy\n");
    assert!(!inner(1, &project).exists(), "the second worker has no such folder");
    assert_eq!(fs::read_to_string(inner(1, Path::new("/usr/include/stdio.h"))).unwrap(), "#error decoy\n");
    assert!(!inner(0, Path::new("/root")).exists() && !inner(0, Path::new("/usr/bin/env")).exists());
    fs::remove_dir_all(project).unwrap();
}

#[test]
fn a_decoy_compiler_says_so_and_fails() {
    if !can_make_namespaces() {
        return;
    }
    let lab = Lab::start_empty(Plan::new("compiler", 1, 1, &[])).unwrap();
    let node = &lab.workers[0].node;
    let output = std::process::Command::new(&node.enter[0])
        .args(&node.enter[1..])
        .args(["/usr/bin/gcc", "-c", "x.c"])
        .output()
        .unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b"DECOY\n"[..]));
}

#[test]
fn a_worker_that_is_shown_the_hosts_tree_is_caught() {
    if !can_make_namespaces() {
        return;
    }
    let project = project("leak");
    for leak in [project.clone(), PathBuf::from("/usr")] {
        let mut plan = Plan::new("leak", 1, 1, std::slice::from_ref(&project));
        plan.workers[0].decoys = false;
        plan.workers[0].leaks = vec![leak.clone()];
        let error = Lab::start_empty(plan).expect_err("the worker sees the host's files").to_string();
        assert!(error.contains("sees the host's"), "{}: {error}", leak.display());
    }
    fs::remove_dir_all(project).unwrap();
}

#[test]
fn a_cut_cable_can_be_mended() {
    if !can_make_namespaces() {
        return;
    }
    let lab = Lab::start_empty(Plan::new("cable", 1, 1, &[])).unwrap();
    let up = || {
        let output = std::process::Command::new("nsenter")
            .args(["-t", &lab.workers[0].first.to_string(), "-n", "--", "ip", "link", "show", "eth0"])
            .output()
            .unwrap();
        !String::from_utf8_lossy(&output.stdout).contains("NO-CARRIER")
    };
    assert!(up());
    lab.cut_link(0).unwrap();
    assert!(!up());
    lab.mend_link(0).unwrap();
    potluck_tests::wait::wait_until("the cable carrying again", std::time::Duration::from_secs(5), || {
        Ok(up().then_some(()))
    })
    .unwrap();
}
