//! A build on other machines, as its report shows it.

use std::fs;

use potluck_tests::lab::base_dir;
use potluck_tests::person::{Person, is_root};
use potluck_tests::{Lab, Plan};
use serde_json::Value;

const SOURCES: u64 = 24;

#[test]
fn a_report_says_what_went_elsewhere_what_failed_and_what_had_to_stay() {
    if !is_root() {
        eprintln!("not root: nothing to show");
        return;
    }
    let project = base_dir().unwrap().join("src").join(format!("test-builds-{}", std::process::id()));
    Person::submitter().make_dir(&project).unwrap();
    let objects: Vec<String> = (0..SOURCES).map(|n| format!("f{n}.o")).collect();
    for n in 0..SOURCES {
        fs::write(project.join(format!("f{n}.c")), format!("#include <stdio.h>\nint f{n}(void) {{ return {n}; }}\n"))
            .unwrap();
    }
    fs::write(project.join("main.c"), "int main(void) { return 0; }\n").unwrap();
    fs::write(project.join("bad.c"), "int bad(void) { return }\n").unwrap();
    let text = format!("prog: main.o {0}\n\tgcc -o $@ main.o {0}\n%.o: %.c\n\tgcc -c -o $@ $<\n", objects.join(" "));
    fs::write(project.join("Makefile"), text).unwrap();

    let lab = Lab::start(Plan::new("builds", 1, 2, std::slice::from_ref(&project))).unwrap();
    let node = &lab.submitter.node;
    lab.sync_toolchains(&["/usr/bin/gcc"]).unwrap();
    let mut run = node.command(["run", "--name", "stock", "--", "make", "-k", "-j4", "prog", "bad.o"]);
    let ran = run.current_dir(&project).env("PATH", "/usr/bin:/bin").output().unwrap();
    assert_eq!(ran.status.code(), Some(2), "{}", String::from_utf8_lossy(&ran.stderr));

    let report: Value = serde_json::from_str(&node.potluck(&["report", "stock", "--json"]).unwrap()).unwrap();
    let counts = &report["build"]["counts"];
    assert_eq!(counts["remote"], SOURCES + 1, "{report:#}");
    assert_eq!((&counts["failed"], &counts["only"], &counts["here"]), (&1.into(), &1.into(), &0.into()), "{report:#}");
    assert_eq!(report["jobs"], SOURCES + 3);
    assert_eq!((&report["build"]["end"], &report["build"]["exit"]), (&"failed".into(), &2.into()));
    assert_eq!(report["build"]["machines"], 1);
    assert_eq!((&report["errors"][0]["file"], &report["errors"][0]["exit"]), (&"bad.c".into(), &1.into()));
    assert_eq!(report["reasons"].as_array().unwrap().len(), 1);
    assert_eq!(report["reasons"][0]["code"], "link");
    assert!(report["bytes_up"].as_u64().unwrap() > 0 && report["bytes_down"].as_u64().unwrap() > 0);

    // And what is built next in the same folder is another build.
    fs::remove_file(project.join("main.o")).unwrap();
    let mut run = node.command(["run", "--name", "again", "--", "make", "prog"]);
    assert!(run.current_dir(&project).env("PATH", "/usr/bin:/bin").output().unwrap().status.success());
    let all: Value = serde_json::from_str(&node.potluck(&["builds", "--json"]).unwrap()).unwrap();
    let names: Vec<&str> = all["builds"].as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["again", "stock"]);
    drop(lab);
    fs::remove_dir_all(project).unwrap();
}
