//! Which program runs: prefix, masquerade, subcommands, recursion, and the variables that choose.

mod lab;

use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use lab::{Lab, POTLUCK, bytes};
use potluck_wire::ipc::Request;

/// The lab's potluck, called `name`, with `dir` first in PATH.
fn masquerade(lab: &Lab, dir: &str, name: &str) -> Command {
    let link = lab.path(dir).join(name);
    std::fs::create_dir_all(lab.path(dir)).expect("folder");
    symlink(POTLUCK, &link).expect("link");
    let mut command = lab.program(link);
    command.arg0(name).env("PATH", format!("{}:/usr/bin:/bin", lab.path(dir).display()));
    command
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn expect_refused(output: &Output, code: i32, part: &str) {
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words}");
    assert!(words.starts_with("potluck: ") && words.contains(part) && words.lines().count() == 1, "{words}");
}

#[test]
fn a_missing_compiler_is_reported_as_a_shell_does() {
    let lab = Lab::new();
    let run = |args: &[&str]| lab.potluck(args).output().expect("runs");
    expect_refused(&run(&["no-such-gcc", "-c", "a.c"]), 127, "no-such-gcc: command not found");
    expect_refused(&run(&["./no-such-gcc"]), 127, "./no-such-gcc: No such file or directory");
    expect_refused(&run(&["./a.c"]), 126, "./a.c: Permission denied");
}

#[test]
fn under_a_compilers_name_it_is_that_compiler() {
    for dir in ["cache/potluck/bin", "elsewhere"] {
        let lab = Lab::new();
        let mut command = masquerade(&lab, dir, "gcc");
        command.env("XDG_CACHE_HOME", lab.path("cache"));
        lab.expect_compiled(&command.args(["-c", "a.c"]).output().expect("runs"));
        let object = std::fs::read(lab.path("a.o")).expect("object");
        lab.expect_compiled(&lab.program("/usr/bin/gcc").args(["-c", "a.c"]).output().expect("runs"));
        assert!(object == std::fs::read(lab.path("a.o")).expect("object"));
    }
}

#[test]
fn the_masquerade_directory_is_not_in_the_compilers_path() {
    let lab = Lab::new();
    let node = lab.node();
    let mut command = masquerade(&lab, "cache/potluck/bin", "gcc");
    let child = command.env("XDG_CACHE_HOME", lab.path("cache")).args(["-c", "a.c"]).spawn().expect("runs");
    let (mut conversation, compile) = node.accept_compile();
    assert_eq!(compile.compiler, b"/usr/bin/gcc");
    assert_eq!(compile.argv[0], b"gcc");
    assert!(compile.env.contains(&b"PATH=/usr/bin:/bin".to_vec()));
    conversation.local("link");
    lab.expect_compiled(&child.wait_with_output().expect("ends"));
    drop(node);
    let shown = lab
        .potluck(&["sh", "-c", "echo $PATH"])
        .env("PATH", format!("{}:/usr/bin", lab.path(".cache/potluck/bin").display()))
        .output();
    assert_eq!(stdout(&shown.expect("runs")), "/usr/bin\n");
}

#[test]
fn a_compiler_that_is_not_first_in_its_path_is_told_where_it_is() {
    // gcc finds its own parts by looking up argv[0] in PATH: it must not find Potluck there.
    let lab = Lab::new();
    let node = lab.node();
    let child = masquerade(&lab, "elsewhere", "gcc").args(["-c", "a.c"]).spawn().expect("runs");
    let (mut conversation, compile) = node.accept_compile();
    assert_eq!(compile.argv[0], b"/usr/bin/gcc");
    conversation.local("link");
    lab.expect_compiled(&child.wait_with_output().expect("ends"));
}

#[test]
fn launcher_and_masquerade_together_are_one_potluck() {
    let lab = Lab::new();
    let path = masquerade(&lab, "cache/potluck/bin", "gcc").get_program().to_owned();
    let mut prefixed = lab.program(POTLUCK);
    lab.expect_compiled(&prefixed.arg(&path).args(["-c", "a.c"]).output().expect("runs"));
    std::fs::remove_file(lab.path("a.o")).expect("removed");
    lab.expect_compiled(&lab.program(&path).args(["-c", "a.c"]).output().expect("runs"));
}

#[test]
fn a_path_that_leads_only_to_potluck_is_recursion() {
    let lab = Lab::new();
    let mut command = masquerade(&lab, "only", "gcc");
    command.env("PATH", lab.path("only")).args(["-c", "a.c"]);
    expect_refused(&command.output().expect("runs"), 111, "leads to Potluck itself");
    let output = lab.potluck(&[POTLUCK, "-c", "a.c"]).output().expect("runs");
    expect_refused(&output, 111, "leads to Potluck itself");
}

#[test]
fn copies_of_potluck_do_not_call_each_other_forever() {
    let lab = Lab::new();
    for name in ["one/gcc", "two/gcc"] {
        lab.install(Path::new(POTLUCK), name);
    }
    let path = format!("{}:{}:/usr/bin:/bin", lab.path("one").display(), lab.path("two").display());
    let mut command = lab.program(lab.path("one/gcc"));
    lab.expect_compiled(&command.env("PATH", path).args(["-c", "a.c"]).output().expect("runs"));
}

#[test]
fn a_script_that_prefixes_potluck_works() {
    let lab = Lab::new();
    lab.script("bin/gcc", &format!("#!/bin/sh\nexec {POTLUCK} gcc \"$@\"\n"));
    let mut command = lab.potluck(&["gcc", "-c", "a.c"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", lab.path("bin").display()));
    lab.expect_compiled(&command.output().expect("runs"));
}

#[test]
fn a_script_that_names_itself_is_recursion() {
    let lab = Lab::new();
    let script = lab.path("bin/gcc");
    lab.script("bin/gcc", &format!("#!/bin/sh\nexec {POTLUCK} {} \"$@\"\n", script.display()));
    let output = lab.program(POTLUCK).arg(&script).args(["-c", "a.c"]).output().expect("runs");
    expect_refused(&output, 111, "without end");
}

#[test]
fn a_script_without_an_interpreter_line_runs() {
    let lab = Lab::new();
    lab.script("bin/mycc", "echo \"$1 $0\"\n");
    let output = lab.potluck(&["./bin/mycc", "-c"]).output().expect("runs");
    assert_eq!(stdout(&output), "-c ./bin/mycc\n");
}

#[test]
fn questions_do_not_wait_for_the_node_but_are_counted() {
    let lab = Lab::new();
    let node = lab.node();
    let output = lab.potluck(&["gcc", "-dumpmachine"]).output().expect("runs");
    let direct = lab.program("/usr/bin/gcc").arg("-dumpmachine").output().expect("runs");
    assert_eq!(output.stdout, direct.stdout);
    let Request::Notice { reason, argv, cwd } = node.accept().1 else { panic!("not a notice") };
    assert_eq!(reason, "query-invocation");
    assert_eq!(argv, [b"gcc".to_vec(), b"-dumpmachine".to_vec()]);
    assert_eq!(cwd, bytes(&lab.root.path().canonicalize().expect("exists")));
}

#[test]
fn disabled_means_no_contact() {
    let lab = Lab::new();
    let node = lab.node();
    for args in [&["gcc", "-c", "a.c"][..], &["gcc", "-dumpmachine"]] {
        assert!(lab.potluck(args).env("POTLUCK_DISABLE", "1").output().expect("runs").status.success());
    }
    assert!(!node.was_contacted());
    let child = lab.potluck(&["gcc", "-c", "a.c"]).env("POTLUCK_DISABLE", "local").spawn().expect("runs");
    let (mut conversation, compile) = node.accept_compile();
    assert!(compile.force_local);
    conversation.local("disabled-by-env");
    lab.expect_compiled(&child.wait_with_output().expect("ends"));
}

#[test]
fn the_compiler_inherits_signals_as_they_were() {
    let lab = Lab::new();
    let report = |program: &mut Command| stdout(&program.output().expect("runs"));
    let line = "grep -E 'Sig(Ign|Blk|Cgt)' /proc/self/status";
    assert_eq!(report(&mut lab.potluck(&["sh", "-c", line])), report(lab.program("/bin/sh").args(["-c", line])));
}

#[test]
fn the_user_may_choose_another_compiler() {
    let lab = Lab::new();
    lab.script("mine/gcc", "#!/bin/sh\necho mine $0\n");
    lab.script("mine/my-cc", "#!/bin/sh\necho my-cc\n");
    let output = lab.potluck(&["gcc", "-c"]).env("POTLUCK_PATH", lab.path("mine")).output().expect("runs");
    assert_eq!(stdout(&output), format!("mine {}\n", lab.path("mine/gcc").display()));
    let mut command = masquerade(&lab, "elsewhere", "gcc-12");
    assert_eq!(stdout(&command.env("POTLUCK_CC", lab.path("mine/my-cc")).arg("-c").output().expect("runs")), "my-cc\n");
    let mut cxx = masquerade(&lab, "cxx", "g++");
    cxx.env("POTLUCK_CC", lab.path("mine/my-cc")).arg("-dumpversion");
    assert_eq!(stdout(&cxx.output().expect("runs")), "12\n", "POTLUCK_CC is not for C++");
}

#[test]
fn subcommands_belong_to_the_management_program() {
    let lab = Lab::new();
    let potluck = lab.install(Path::new(POTLUCK), "potluck");
    lab.script("potluck-node", "#!/bin/sh\necho \"node: $*\"\n");
    let run = |args: &[&str]| lab.program(&potluck).args(args).output().expect("runs");
    assert_eq!(stdout(&run(&["status", "--json"])), "node: status --json\n");
    assert_eq!(stdout(&run(&["-s"])), "node: -s\n");
    assert_eq!(stdout(&run(&[])), "node: \n");
    let chosen = lab.potluck(&["top"]).env("POTLUCK_NODE_BIN", "/bin/echo").output().expect("runs");
    assert_eq!(stdout(&chosen), "top\n");
    lab.script("bin/top", "#!/bin/sh\necho \"compiler: $*\"\n");
    let mut forced = lab.potluck(&["--", "top", "-c", "a.c"]);
    forced.env("PATH", format!("{}:/usr/bin:/bin", lab.path("bin").display()));
    assert_eq!(stdout(&forced.output().expect("runs")), "compiler: -c a.c\n");
    std::fs::remove_file(lab.path("potluck-node")).expect("removed");
    expect_refused(&run(&["status"]), 127, "potluck-node cannot be started");
}

#[test]
fn clang_is_masqueraded_like_gcc() {
    if !Path::new("/usr/bin/clang").exists() {
        return;
    }
    let lab = Lab::new();
    lab.expect_compiled(&masquerade(&lab, "elsewhere", "clang").args(["-c", "a.c"]).output().expect("runs"));
}

#[test]
fn a_command_at_the_kernels_limit_still_runs() {
    let lab = Lab::new();
    let potluck = lab.install(Path::new(POTLUCK), "one/potluck");
    std::fs::create_dir(lab.path("two")).expect("folder");
    symlink("/bin/true", lab.path("two/true")).expect("link");
    let run = |filler_bytes: usize| {
        let mut command = lab.program(&potluck);
        command.arg0("potluck").arg("true").env("PATH", lab.path("two")).env("POTLUCK_DISABLE", "1");
        command.args((0..filler_bytes / 100_000).map(|_| "x".repeat(99_991)));
        command.arg("x".repeat(filler_bytes % 100_000)).output()
    };
    // The longest command that the kernel lets reach the wrapper; the wrapper's own variable does not fit beside it.
    let (mut fits, mut too_long) = (0, 8 << 20);
    while too_long - fits > 1 {
        let middle = (fits + too_long) / 2;
        match run(middle) {
            Ok(output) => {
                assert!(output.status.success(), "{middle} bytes: {output:?}");
                fits = middle;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
                too_long = middle;
            }
        }
    }
    assert!(fits > 1 << 17);
}
