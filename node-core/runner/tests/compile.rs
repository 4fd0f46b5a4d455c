//! The proof of the idea: real compilers in the sandbox write what they write here, and no touch of poison is missed.

mod lab;

use std::fs;

use lab::{Lab, as_user, expect_success, files, kinds};
use potluck_runner::client::Finished;
use potluck_runner::protocol::{End, HarvestKind, LimitKind, Trap};

/// A project with warnings, so that standard error has something to compare.
fn hello() -> Lab {
    let lab = Lab::new();
    lab.write("hello.h", "#pragma once\nstatic inline int twice(int x) { return 2 * x; }\n");
    lab.write("other.txt", "not needed\n");
    lab.write(
        "hello.c",
        "#include <stdio.h>\n#include \"hello.h\"\nint main(void) { int unused; printf(\"%d %s\\n\", twice(21), __FILE__); }\n",
    );
    lab
}

/// Compiles here and there and compares every byte.
fn same_here_and_there(compiler: &str) -> Finished {
    let mut lab = hello();
    let argv = [compiler, "-g", "-O1", "-Wall", "-MD", "-c", "hello.c", "-o", "hello.o"];
    let here = lab.learn(&argv);
    assert!(here.status.success(), "{}", String::from_utf8_lossy(&here.stderr));
    let local = |name: &str| fs::read(lab.project.join(name)).unwrap();
    let (object, deps) = (local("hello.o"), local("hello.d"));
    fs::remove_file(lab.project.join("hello.o")).unwrap();
    fs::remove_file(lab.project.join("hello.d")).unwrap();
    let mut sandbox = lab.sandbox();
    assert_eq!(sandbox.trap, Trap::Fuse, "{}", sandbox.trap_note);
    // The trace has put the outputs into the tree as inputs.
    let mut job = lab.job(&argv);
    job.outputs[0].whiteouts = vec![b"hello.d".to_vec(), b"hello.o".to_vec()];
    let done = sandbox.complete(&job).unwrap();
    expect_success(&done);
    assert_eq!(String::from_utf8_lossy(&done.report.stderr), String::from_utf8_lossy(&here.stderr));
    assert!(!done.report.stderr.is_empty());
    assert_eq!(files(&done), [("hello.d".into(), deps), ("hello.o".into(), object)]);
    assert_eq!(done.report.outputs.len(), 2, "{:?}", kinds(&done));
    assert_eq!(lab.touched(&done), Vec::<String>::new());
    eprintln!("{compiler}: wall {} us, overhead {} us", done.report.wall_us, done.report.overhead_us);
    done
}

#[test]
fn gcc_writes_the_same_bytes() {
    if !as_user("gcc_writes_the_same_bytes") {
        same_here_and_there("gcc");
    }
}

#[test]
fn clang_writes_the_same_bytes() {
    if !as_user("clang_writes_the_same_bytes") {
        same_here_and_there("clang");
    }
}

/// Learns a compile that works here, withholds a path and runs it there.
fn with_poison(lab: &mut Lab, withheld: &[&str], argv: &[&str]) -> Finished {
    let here = lab.learn_without(withheld, argv);
    assert!(here.status.success(), "{}", String::from_utf8_lossy(&here.stderr));
    // What is looked at when the withheld file is passed over was not traced.
    lab.need_project();
    let mut sandbox = lab.sandbox();
    assert_eq!(sandbox.trap, Trap::Fuse, "{}", sandbox.trap_note);
    let mut job = lab.job(argv);
    job.outputs[0].whiteouts = vec![b"x.o".to_vec()];
    sandbox.complete(&job).unwrap()
}

/// gcc and clang with a shadowing header that was not sent.
fn shadowed_include(compiler: &str) {
    let mut lab = Lab::new();
    lab.write("a/x.h", "#define N 1\n").write("b/x.h", "#define N 2\n").write("x.c", "#include <x.h>\nint n = N;\n");
    let done = with_poison(&mut lab, &["a/x.h"], &[compiler, "-Ia", "-Ib", "-c", "x.c", "-o", "x.o"]);
    assert_ne!(done.report.end, End::Exited(0));
    let stderr = String::from_utf8_lossy(&done.report.stderr);
    assert!(stderr.contains("Too many levels of symbolic links") || compiler == "clang", "{stderr}");
    assert_eq!(lab.touched(&done), ["a/x.h"], "{stderr}");
}

#[test]
fn a_shadowing_header_that_was_not_sent_is_a_fault() {
    if !as_user("a_shadowing_header_that_was_not_sent_is_a_fault") {
        shadowed_include("gcc");
        shadowed_include("clang");
    }
}

#[test]
fn has_include_of_poison_is_a_fault() {
    if as_user("has_include_of_poison_is_a_fault") {
        return;
    }
    for compiler in ["gcc", "clang"] {
        let mut lab = Lab::new();
        lab.write("x.h", "").write("x.c", "#if __has_include(\"x.h\")\nint yes;\n#else\nint no;\n#endif\n");
        let done = with_poison(&mut lab, &["x.h"], &[compiler, "-c", "x.c", "-o", "x.o"]);
        assert_eq!(lab.touched(&done), ["x.h"], "{compiler}");
    }
}

/// What swallows ELOOP and exits with 0 as if the file were not there: only the trap knows.
#[test]
fn poison_that_the_compiler_swallows_is_reported_though_it_exits_with_0() {
    if as_user("poison_that_the_compiler_swallows_is_reported_though_it_exits_with_0") {
        return;
    }
    let swallowed = |lab: &mut Lab, withheld: &[&str], argv: &[&str]| {
        let done = with_poison(lab, withheld, argv);
        expect_success(&done);
        let touched = lab.touched(&done);
        for path in withheld {
            assert!(touched.iter().any(|t| t == path), "{argv:?} touched {touched:?}");
        }
    };
    // A precompiled header beside the header.
    let mut lab = Lab::new();
    lab.write("x.h", "int x;\n").write("x.c", "#include \"x.h\"\n");
    assert!(lab.local(&["gcc", "-x", "c-header", "x.h", "-o", "x.h.gch"]).status.success());
    swallowed(&mut lab, &["x.h.gch"], &["gcc", "-c", "x.c", "-o", "x.o"]);

    // .incbin and the assembler's .include look further along the search path.
    let mut lab = Lab::new();
    lab.write("a/blob", "aaaa").write("b/blob", "bb").write("x.c", "__asm__(\".incbin \\\"blob\\\"\");\n");
    swallowed(&mut lab, &["a/blob"], &["gcc", "-Wa,-Ia", "-Wa,-Ib", "-c", "x.c", "-o", "x.o"]);
    let mut lab = Lab::new();
    lab.write("a/m.inc", ".byte 1\n").write("b/m.inc", ".byte 2\n").write("x.s", ".include \"m.inc\"\n");
    swallowed(&mut lab, &["a/m.inc"], &["gcc", "-Wa,-Ia", "-Wa,-Ib", "-c", "x.s", "-o", "x.o"]);

    // -B: another assembler; specs: another way to compile altogether.
    let mut lab = Lab::new();
    lab.write("tools/as", "#!/bin/sh\nexec /usr/bin/as \"$@\"\n").write("x.c", "int x;\n");
    lab.executable("tools/as");
    swallowed(&mut lab, &["tools/as"], &["gcc", "-Btools/", "-c", "x.c", "-o", "x.o"]);
    let mut lab = Lab::new();
    let specs = lab.local(&["gcc", "-dumpspecs"]).stdout;
    lab.write("tools/specs", specs).write("x.c", "int x;\n");
    swallowed(&mut lab, &["tools/specs"], &["gcc", "-Btools/", "-c", "x.c", "-o", "x.o"]);

    // A profile.
    let mut lab = Lab::new();
    lab.write("x.c", "int main(void) { return 0; }\n");
    assert!(lab.local(&["gcc", "-O2", "-fprofile-generate", "-c", "x.c", "-o", "x.o"]).status.success());
    assert!(lab.local(&["gcc", "-fprofile-generate", "x.o", "-o", "x"]).status.success());
    assert!(lab.local(&["./x"]).status.success());
    fs::remove_file(lab.project.join("x.o")).unwrap();
    swallowed(&mut lab, &["x.gcda"], &["gcc", "-O2", "-fprofile-use", "-c", "x.c", "-o", "x.o"]);
}

#[test]
fn without_fuse_poison_still_stops_the_compiler() {
    if as_user("without_fuse_poison_still_stops_the_compiler") {
        return;
    }
    let mut lab = Lab::new();
    lab.write("a/x.h", "#define N 1\n").write("b/x.h", "#define N 2\n").write("x.c", "#include <x.h>\nint n = N;\n");
    let argv = ["gcc", "-Ia", "-Ib", "-c", "x.c", "-o", "x.o"];
    lab.learn_without(&["a/x.h"], &argv);
    let mut sandbox = lab.try_sandbox(false).unwrap();
    assert_eq!(sandbox.trap, Trap::Loop);
    assert_eq!(sandbox.trap_note, "the trap is switched off");
    let job = lab.job(&argv);
    let done = sandbox.complete(&job).unwrap();
    assert_eq!(done.report.end, End::Exited(1));
    assert!(String::from_utf8_lossy(&done.report.stderr).contains("Too many levels of symbolic links"));
    assert!(done.faults.is_empty());
}

#[test]
fn outputs_of_the_last_build_are_in_nobodys_way() {
    if as_user("outputs_of_the_last_build_are_in_nobodys_way") {
        return;
    }
    for compiler in ["gcc", "clang"] {
        let mut lab = hello();
        let argv = [compiler, "-MD", "-c", "hello.c", "-o", "hello.o"];
        assert!(lab.local(&argv).status.success());
        // They exist, were not sent, and so are poison in the generation.
        let here = lab.learn_without(&["hello.o", "hello.d"], &argv);
        let object = fs::read(lab.project.join("hello.o")).unwrap();
        let mut sandbox = lab.sandbox();
        // Not whited out: the write is stopped and reported under either name.
        let done = sandbox.complete(&lab.job(&argv)).unwrap();
        assert_ne!(done.report.end, End::Exited(0));
        let written = kinds(&done).iter().any(|(_, kind)| *kind == HarvestKind::LowerWritten);
        assert!(written || !done.faults.is_empty(), "{:?}", kinds(&done));
        // Whited out: the same bytes as here.
        let mut job = lab.job(&argv);
        job.outputs[0].whiteouts = vec![b"hello.o".to_vec(), b"hello.d".to_vec()];
        let done = sandbox.complete(&job).unwrap();
        expect_success(&done);
        assert_eq!(done.report.stderr, here.stderr);
        assert_eq!(files(&done)[1], ("hello.o".into(), object));
        assert_eq!(done.report.outputs.len(), 2, "{:?}", kinds(&done));
        assert!(done.faults.is_empty(), "{:?}", lab.touched(&done));
    }
}

/// `main` is the program that the job runs: it does what no compiler would do by itself.
fn with_program(lab: &mut Lab, source: &str) -> potluck_runner::protocol::Job {
    lab::build_c(lab, "main", source);
    lab.need(&lab.project.join("main"));
    let program = lab.project.join("main").display().to_string();
    lab.job_later(&[&program])
}

#[test]
fn writing_over_poison_is_reported() {
    if as_user("writing_over_poison_is_reported") {
        return;
    }
    let mut lab = Lab::new();
    lab.write("old", "x").write("older", "x").write("kept", "x");
    let mut job = with_program(
        &mut lab,
        r#"#include <stdio.h>
        #include <unistd.h>
        int main(void) {
            if (unlink("old") || unlink("new") || rename("newer", "moved")) return 1;
            FILE *f = fopen("older.tmp", "w"); fputs("y", f); fclose(f);
            return rename("older.tmp", "older");
        }"#,
    );
    let mut sandbox = lab.sandbox();
    lab.generation(&mut job);
    job.outputs[0].poisons = vec![(b"new".to_vec(), 1000), (b"newer".to_vec(), 1001), (b"newest".to_vec(), 1002)];
    let done = sandbox.complete(&job).unwrap();
    expect_success(&done);
    assert_eq!(
        kinds(&done),
        [
            ("moved".into(), HarvestKind::Refused("a symbolic link".into())),
            ("new".into(), HarvestKind::PoisonWritten(1000)),
            ("newer".into(), HarvestKind::PoisonWritten(1001)),
            ("old".into(), HarvestKind::LowerWritten),
            ("older".into(), HarvestKind::LowerWritten),
        ]
    );
    // Reading a poison that is newer than the generation is a fault like any other.
    let touch = r#"#include <fcntl.h>
        int main(void) { open("new", O_RDONLY); open("new", O_RDONLY); open("gone", O_RDONLY); return 0; }"#;
    let mut lab = Lab::new();
    let mut job = with_program(&mut lab, touch);
    let mut sandbox = lab.sandbox();
    lab.generation(&mut job);
    job.outputs[0].poisons = vec![(b"new".to_vec(), 77)];
    assert_eq!(sandbox.complete(&job).unwrap().faults, [77]);
}

#[test]
fn side_outputs_subdirectories_and_deletions_come_back() {
    if as_user("side_outputs_subdirectories_and_deletions_come_back") {
        return;
    }
    let mut lab = Lab::new();
    lab.write("real", "content").write("sub/inner.h", "int x;\n");
    lab.need(&lab.project.join("real"));
    lab.need(&lab.project.join("sub/inner.h"));
    let mut job = with_program(
        &mut lab,
        r#"#include <stdio.h>
        #include <unistd.h>
        #include <sys/stat.h>
        int main(void) {
            mkdir("new", 0750); mkdir("new/deep", 0777);
            FILE *f = fopen("new/deep/a\nb", "w"); fputs("text", f); fclose(f);
            chmod("new/deep/a\nb", 04751);
            if (fopen("sub/out", "w") || !fopen("sub/inner.h", "r")) return 1;
            return unlink("real");
        }"#,
    );
    let mut sandbox = lab.sandbox();
    lab.generation(&mut job);
    let done = sandbox.complete(&job).unwrap();
    expect_success(&done);
    assert_eq!(
        kinds(&done),
        [
            ("new".into(), HarvestKind::Dir { mode: 0o750 }),
            ("new/deep".into(), HarvestKind::Dir { mode: 0o755 }),
            ("new/deep/a\nb".into(), HarvestKind::File { mode: 0o751, size: 4 }),
            ("real".into(), HarvestKind::Deleted),
        ]
    );
    assert_eq!(done.contents, [b"text"]);
    assert!(lab.project.join("real").exists());
}

#[test]
fn a_job_that_prints_too_much_is_told_so() {
    if as_user("a_job_that_prints_too_much_is_told_so") {
        return;
    }
    let mut lab = Lab::new();
    let mut job = with_program(&mut lab, "#include <stdio.h>\nint main(void) { for (;;) puts(\"more\"); }\n");
    let mut sandbox = lab.sandbox();
    lab.generation(&mut job);
    job.limits.stdio_bytes = 100_000;
    let done = sandbox.complete(&job).unwrap();
    assert_eq!(done.report.end, End::Limit(LimitKind::Stdio));
    assert_eq!(done.report.stdout.len(), 100_000);
}

#[test]
fn an_output_directory_inside_another_keeps_its_own_changes() {
    if as_user("an_output_directory_inside_another_keeps_its_own_changes") {
        return;
    }
    let mut lab = Lab::new();
    lab.write("build/deep/kept.h", "x").write("build/old.o", "old").write("src/a.h", "a");
    lab.need(&lab.project.join("build/deep/kept.h"));
    lab.need(&lab.project.join("src/a.h"));
    let mut job = with_program(
        &mut lab,
        r#"#include <fcntl.h>
        #include <unistd.h>
        int main(void) {
            if (close(creat("top", 0644)) || close(creat("build/new.o", 0644)) || close(creat("build/old.o", 0644))) return 1;
            if (creat("build/deep/no", 0644) >= 0 || creat("src/no", 0644) >= 0) return 2;
            return access("build/deep/kept.h", R_OK) || access("src/a.h", R_OK);
        }"#,
    );
    let mut sandbox = lab.sandbox();
    lab.generation(&mut job);
    lab.output = lab.project.join("build");
    let mut inner = lab.job_later(&["unused"]);
    lab.generation(&mut inner);
    inner.outputs[0].whiteouts = vec![b"old.o".to_vec()];
    job.outputs.extend(inner.outputs);
    let done = sandbox.complete(&job).unwrap();
    expect_success(&done);
    let found: Vec<_> = done.report.outputs.iter().map(|o| (o.dir, o.path.as_slice())).collect();
    assert_eq!(found, [(0, b"top".as_slice()), (1, b"new.o"), (1, b"old.o")]);
}
