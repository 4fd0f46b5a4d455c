//! The compilers as the oracle: what gcc and clang really write, under which names, and what they do to existing files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use potluck_model::options::{Invocation, ReadFile, family_of, understand};
use potluck_model::plan::{Manner, Plan, StopAt, Verdict};
use potluck_model::reason::Reason;
use potluck_model::{depfile, object};

struct Disk;

impl ReadFile for Disk {
    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        fs::read(path).ok()
    }
}

/// A scratch source tree. Not below /tmp, where nothing is sent.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("options-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for dir in ["src", "out", "dd", "inc"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let code = "#include \"foo.h\"\nint g(int x){return x+1;}\n\
                    int f(int*a){int s=0;for(int i=0;i<9;i++)s+=g(a[i]);return s+FOO;}\n";
        for (path, text) in [
            ("inc/foo.h", "#define FOO 4\n"),
            ("src/foo.c", code),
            ("src/two.c", "int two(void){return 2;}\n"),
            ("src/three.cc", "int three(){return 3;}\n"),
            ("src/x.cpp", code),
            ("src/pre.i", "int z(int a){return a*2;}\n"),
            ("src/as.S", "\t.text\n\t.globl q\nq:\tnop\n"),
            ("dd/rsp", "-O1 '-DQ=\"a b\"' -MD\n"),
        ] {
            fs::write(root.join(path), text).unwrap();
        }
        Self(root)
    }

    /// Every file with its mode and inode, by path relative to the tree.
    fn files(&self) -> BTreeMap<PathBuf, (u32, u64)> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![self.0.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                if meta.is_dir() {
                    dirs.push(path);
                } else {
                    let name = path.strip_prefix(&self.0).unwrap().to_path_buf();
                    found.insert(name, (meta.mode() & 0o7777, meta.ino()));
                }
            }
        }
        found
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

fn is_installed(compiler: &str) -> bool {
    Command::new(compiler)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn verdict(compiler: &str, args: &[OsString], cwd: &Path) -> Verdict {
    let (family, cxx) = family_of(compiler.as_ref()).unwrap();
    understand(&Invocation { family, cxx, args, cwd, env: &[] }, &Disk)
}

fn plans(compiler: &str, args: &str, cwd: &Path) -> Vec<Plan> {
    match verdict(compiler, &words(args), cwd) {
        Verdict::Remote(plans) => plans,
        Verdict::Local(reason) => panic!("{compiler} {args}: {reason}"),
    }
}

fn run(compiler: &str, args: &[OsString], cwd: &Path) {
    let out = Command::new(compiler).args(args).current_dir(cwd).env("PWD", cwd).output().unwrap();
    assert!(out.status.success(), "{compiler} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Without `.` and `..`; the tree has no links.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut out, part| {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            other => out.push(other),
        }
        out
    })
}

/// Whether a file is one of those of which only a part of the name is known.
fn is_loose(plan: &Plan, file: &Path) -> bool {
    let dir = normal(file.parent().unwrap());
    plan.loose.iter().any(|l| normal(&l.dir) == dir && l.holds(file.file_name().unwrap()))
}

/// What is asked of every result before it is taken: the compilers' own must pass.
fn check_contents(case: &str, plan: &Plan, root: &Path) {
    let main = root.join(&plan.output);
    if plan.stop_at == StopAt::Object && plan.output != Path::new("/dev/null") {
        let bytes = fs::read(&main).unwrap();
        assert_eq!(object::kind(&bytes), object::Kind::Object, "{case}");
    }
    if let Some(deps) = &plan.deps {
        let text = fs::read(root.join(deps)).unwrap();
        let list = depfile::read(&text, &plan.deps_rule);
        let list = list.unwrap_or_else(|why| panic!("{case}: {why:?}: {}", String::from_utf8_lossy(&text)));
        for name in &list.names {
            assert!(root.join(OsStr::from_bytes(name)).is_file(), "{case}: {}", String::from_utf8_lossy(name));
        }
    }
}

/// Runs one case twice: with nothing there, and with old 0600 files in place.
fn check(compiler: &str, number: usize, args: &str) {
    let tree = Tree::new(&format!("{compiler}-{number}"));
    let case = format!("{compiler} {args}");
    let plans = plans(compiler, args, &tree.0);
    assert_eq!(plans.len(), 1, "{case}");
    let plan = &plans[0];
    assert!(tree.0.join(&plan.source).is_file(), "{case}");
    assert_eq!(plan.outputs[0].path, plan.output, "{case}");

    let before = tree.files();
    run(compiler, &plan.args, &tree.0);
    let first = tree.files();
    let made: BTreeSet<_> = first.keys().filter(|p| !before.contains_key(*p)).cloned().collect();
    let known: BTreeMap<_, _> =
        plan.outputs.iter().filter(|o| o.path != Path::new("/dev/null")).map(|o| (normal(&o.path), o.manner)).collect();
    let dirs: Vec<_> = plan.output_dirs.iter().map(|d| normal(d)).collect();
    for file in &made {
        let dir = file.parent().unwrap().to_path_buf();
        assert!(dirs.contains(&dir), "{case}: wrote {file:?}, output dirs are {dirs:?}");
        assert!(known.contains_key(file) || is_loose(plan, file), "{case}: wrote {file:?}, predicted {known:?}");
        // A result's modes are made here of the caller's umask, and not taken from a worker.
        assert_eq!(first[file].0, 0o666 & !umask(), "{case}: {file:?}");
    }
    check_contents(&case, plan, &tree.0);
    for file in known.keys() {
        assert!(made.contains(file), "{case}: predicted {file:?}, wrote {made:?}");
    }
    assert!(plan.deps.as_deref().map(normal).is_none_or(|d| made.contains(&d)), "{case}");

    for file in &made {
        let path = tree.0.join(file);
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    run(compiler, &plan.args, &tree.0);
    let second = tree.files();
    for (file, manner) in &known {
        let mode = second[file].0;
        let want = match manner {
            Manner::Truncate => 0o600,
            Manner::Replace | Manner::Rename => first[file].0,
        };
        assert_ne!(first[file].0, 0o600, "{case}: the umask hides the difference");
        assert_eq!(mode, want, "{case}: {file:?} is {mode:o}, but its manner is {manner:?}");
        if *manner == Manner::Truncate {
            assert_eq!(second[file].1, first[file].1, "{case}: {file:?} has a new inode");
        }
        assert_ne!(fs::read(tree.0.join(file)).unwrap(), b"old", "{case}: {file:?} was not written");
    }
}

fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(line.trim(), 8).unwrap()
}

fn check_all(compiler: &str, cases: &[&str]) {
    if !is_installed(compiler) {
        eprintln!("{compiler} is not installed: nothing to compare with");
        return;
    }
    let fails = |(number, case): &(usize, &&str)| std::panic::catch_unwind(|| check(compiler, *number, case)).is_err();
    let failed: Vec<_> = cases.iter().enumerate().filter(fails).map(|(_, case)| case).collect();
    assert!(failed.is_empty(), "{compiler}: {failed:#?}");
}

const COMMON: &[&str] = &[
    "-c src/foo.c -Iinc",
    "-c src/foo.c -Iinc -o out/bar.o",
    "-c src/foo.c -Iinc -oout/bar.o -MD",
    "-c -Iinc -MD src/foo.c",
    "-c -Iinc -MMD -MP -MT x src/foo.c -o out/foo.tar.gz",
    "-c -Iinc -MD -o bar src/foo.c",
    "-c -Iinc -MD -o ./out/../out/bar.o src/foo.c",
    "-c -Iinc -MD -MF dd/x.d src/foo.c",
    "-c -Iinc -MMD -MT ./a -MQ .//./b$c -MT ../d src/foo.c",
    "-c -Iinc -MMD -o .//out/bar.o ./src/foo.c",
    "-c -Iinc -MD -MFdd/x.d src/foo.c -o out/bar.o",
    "-c -Iinc -MD -MF /dev/null src/foo.c -o out/bar.o",
    "-c -Iinc -Wp,-MD,dd/x.d src/foo.c",
    "-c -Iinc -Wp,-MMD,dd/x.d -MD src/foo.c -o out/bar.o",
    "-c -Iinc @dd/rsp src/foo.c -o out/bar.o",
    "-c -Iinc -MD -MP -include inc/foo.h -imacros inc/foo.h src/foo.c -o out/bar.o",
    "-c -Iinc -MD -MP -MF dd/x.d -save-temps=obj src/x.cpp -o out/bar.o",
    "-c -Iinc -MMD -MP -isystem inc src/foo.c -o /dev/null -MF dd/x.d",
    "-S -Iinc src/foo.c",
    "-S -Iinc -MMD src/foo.c -o out/bar.s",
    "-S -Iinc -MMD -MP src/foo.c",
    "-S -c -Iinc src/foo.c -MD -o out/bar.s",
    "-c -x c++ -Iinc src/foo.c -x none -o out/bar.o -MD",
    "-c -Iinc src/x.cpp -MD -O2 -g3 -Wall -Wextra -std=gnu++17 -fPIC -fno-rtti",
    "-c -Iinc -include inc/foo.h src/foo.c -o /dev/null",
    "-c src/pre.i -MD -Wno-unused",
    "-c src/as.S -MD -o out/bar.o",
    "-c src/as.S",
    "-c src/as.S -MD -fstack-usage --coverage -save-temps=obj",
    "-c -Iinc --coverage src/foo.c",
    "-c -Iinc --coverage src/foo.c -o out/bar.o",
    "-c -Iinc -ftest-coverage src/foo.c -o out/bar",
    "-S -Iinc --coverage src/foo.c -o out/bar.s",
    "-c -Iinc -fprofile-arcs src/foo.c",
    "-c -Iinc -fstack-usage src/foo.c -o out/bar.o",
    "-c -Iinc -fstack-usage src/foo.c",
    "-S -Iinc -fstack-usage src/foo.c -o out/bar.s",
    "-c -Iinc -gsplit-dwarf -g src/foo.c",
    "-c -Iinc -gsplit-dwarf -g src/foo.c -o out/bar.o -MD",
    "-c -Iinc -save-temps src/foo.c",
    "-c -Iinc -save-temps src/foo.c -o out/bar.o",
    "-c -Iinc -save-temps=obj src/foo.c -o out/bar.o -MD",
    "-c -Iinc -save-temps=cwd src/foo.c -o out/bar.o --coverage",
    "-c -Iinc -save-temps src/x.cpp -o out/bar.o -g -gsplit-dwarf",
    "-S -Iinc -save-temps src/foo.c -o out/bar.s",
    "-c -save-temps src/pre.i",
    "-c -save-temps src/as.S -o out/bar.o",
    "-c -Iinc -flto src/foo.c -o out/bar.o",
    "-c -Iinc -flto -save-temps src/foo.c",
    "-c -Iinc -fprofile-generate=dd -O2 src/foo.c -o out/bar.o",
    "-c -Iinc -O2 -fsave-optimization-record src/foo.c -o out/bar.o",
    "-c -Iinc -O2 -fsave-optimization-record src/foo.c",
    "-c -Iinc -march=native -frandom-seed=1 -ffile-prefix-map=/a=/b -pipe src/foo.c -Wl,-z,now -lm -o out/bar.o",
];

#[test]
fn gcc_writes_what_was_predicted() {
    let mut cases = COMMON.to_vec();
    cases.extend([
        "-c -Iinc -fcallgraph-info=su,da src/foo.c -o out/bar.o",
        "-c -Iinc -fdump-ipa-clones -O2 src/foo.c -o out/bar.o",
        "-c -Iinc -fdump-ipa-clones -O2 src/foo.c",
        "-c -Iinc -fdump-tree-original src/foo.c -o out/bar.o",
        "-c -Iinc -fdump-tree-original -dumpdir dd/ src/foo.c -o out/bar.o",
        "-c -Iinc -fdump-tree-all=dd/all src/foo.c",
        "-c -Iinc -fdump-statistics -O2 -da src/foo.c -save-temps=cwd -o out/bar.o",
        "-c -Iinc -fdump-final-insns src/foo.c -o out/bar.o",
        "-c -Iinc -fdump-final-insns=dd/f src/foo.c -o out/bar.o",
        "-c -Iinc -fopt-info-all=dd/o -O2 src/foo.c",
        "-c -Iinc -fopt-info -O2 src/foo.c",
        "-c -Iinc -fanalyzer -fdump-analyzer src/foo.c -o out/bar.o",
        "-c -fdump-ada-spec-slim src/two.c -o out/bar.o",
        "-c -Iinc -O2 -fdump-tree-all-graph -fdump-rtl-all -fdump-ipa-all -fdump-lang-all src/x.cpp -o out/bar.o",
        "-c -Iinc -O2 -da -fdump-debug -fdump-earlydebug -fdump-statistics src/foo.c",
        "-c -Iinc -MMD -MT a -MQ dd/b$x -MT c$(x) -MP src/foo.c",
        "-c -Iinc -Wp,-MMD,dd/x.d,-MT,k,-MQ,l src/foo.c -o out/bar.o",
        "-c -Iinc -Wp,-MD,dd/x.d -Wp,-MP -MT k src/foo.c -o out/bar.o",
        "-c -Iinc -Wp,-MMD,dd/x.d -MMD src/foo.c -o out/bar.o",
        "-c -Iinc -dumpbase zz -MD -fstack-usage --coverage src/foo.c",
        "-c -Iinc -dumpbase zz.q -MD -fstack-usage --coverage src/foo.c",
        "-c -Iinc -dumpbase zz.c -MD -fstack-usage --coverage src/foo.c",
        "-c -Iinc -dumpbase zz.c -dumpbase-ext .q -MD -fstack-usage -fdump-ipa-clones src/foo.c",
        "-c -Iinc -dumpbase zz -MD -fstack-usage --coverage src/foo.c -o out/bar.o",
        "-c -Iinc -dumpdir dd/ -MD -fstack-usage -gsplit-dwarf -g --coverage src/foo.c",
        "-c -Iinc -dumpdir dd/pp -dumpbase q.x -dumpbase-ext .x -fstack-usage -MD src/foo.c -o out/bar.o",
        "-c -Iinc -dumpdir dd/pp -save-temps -fstack-usage src/foo.c",
        "-c -Iinc -fprofile-note=dd/n.gcno --coverage src/foo.c -o out/bar.o",
        "-c -Iinc -aux-info dd/aux src/foo.c",
        "-c -Iinc -Wa,-al=dd/list,-L src/foo.c -o out/bar.o",
        "-c -Iinc -Xassembler -al=dd/list src/foo.c",
        "-c -Iinc -Wa,--defsym,A=1 src/foo.c",
        "-S -Iinc -Wa,-al=dd/list src/foo.c",
        "-c -Iinc -o /dev/null -fstack-usage --coverage -save-temps src/foo.c",
        "-S -Iinc -gsplit-dwarf -g src/foo.c",
        "-c src/as.S -gsplit-dwarf -g -o out/bar.o",
        "-c src/as.S -Wa,-al=dd/list,-Idd",
        "-c -Iinc -O2 -fsave-optimization-record -fno-lto src/x.cpp -save-temps=obj -o out/bar",
    ]);
    check_all("gcc", &cases);
}

#[test]
fn clang_writes_what_was_predicted() {
    let mut cases = COMMON.to_vec();
    cases.extend([
        "-c -Iinc -ftime-trace src/foo.c",
        "-c -Iinc -MMD -MT a -MQ dd/b$x -MT c$(x) -MP src/foo.c",
        "-c -Iinc -Wp,-MMD,dd/x.d -Wp,-MP src/foo.c -o out/bar.o",
        "-c -Iinc -Wp,-MMD,dd/x.d -MT k src/foo.c -o out/bar.o",
        "-c -Iinc -fsanitize=address -MMD -MP src/foo.c -o out/bar.o",
        "-c -Iinc -ftime-trace src/foo.c -o out/bar.o",
        "-c -Iinc -O2 -foptimization-record-file=dd/o.yaml src/foo.c",
        "-c -Iinc -emit-llvm src/foo.c",
        "-S -Iinc -emit-llvm src/foo.c",
        "-c -Iinc -emit-llvm src/foo.c -o out/bar.bc -MD",
        "-c -Iinc --serialize-diagnostics dd/x.dia src/foo.c",
        "-c -Iinc -MF dd/unused.d src/foo.c",
        "-c -Iinc -MP src/foo.c",
        "-c -Iinc -fno-integrated-as src/foo.c -o out/bar.o",
        "-c -Iinc -fno-integrated-as -save-temps src/foo.c -o out/bar.o",
        "-c -Iinc -fno-integrated-as src/as.S -o out/bar.o",
        "-c -Iinc -flto=thin -fthin-link-bitcode=dd/b src/foo.c",
        "-c -Iinc -fproc-stat-report=dd/p src/foo.c",
        "-S -Iinc -gsplit-dwarf -g src/foo.c -o out/bar.s",
        "-c -Iinc -gsplit-dwarf=single -g src/foo.c",
        "-c -Iinc -Xclang -include -Xclang inc/foo.h -mllvm -inline-threshold=3 src/foo.c",
        "-c -Iinc -fprofile-instr-generate -fcoverage-mapping -- src/foo.c",
        "-c -Iinc -save-temps -gsplit-dwarf -g -fstack-usage -MD --coverage src/foo.c -o out/bar.o",
    ]);
    check_all("clang", &cases);
}

#[test]
fn the_cxx_drivers_write_what_was_predicted() {
    for compiler in ["g++", "clang++"] {
        check_all(compiler, &["-c src/x.cpp -Iinc -MD -o out/x.o", "-c -Iinc src/foo.c -save-temps"]);
    }
}

#[test]
fn a_split_command_makes_the_same_objects() {
    for compiler in ["gcc", "clang"] {
        if !is_installed(compiler) {
            continue;
        }
        for args in [
            "-c -g -O1 -MD src/two.c src/three.cc src/pre.i",
            "-c -x c src/two.c -x c++ src/three.cc",
            "-c -x c++ src/two.c -x none src/three.cc src/pre.i -DX --coverage -frandom-seed=1",
            "-S src/two.c src/three.cc",
        ] {
            let whole = Tree::new(&format!("whole-{compiler}"));
            run(compiler, &words(args), &whole.0);
            let mut made = whole.files();
            let objects: BTreeMap<_, _> = std::mem::take(&mut made)
                .into_keys()
                .filter(|p| p.extension().is_some_and(|e| e != "gcno"))
                .map(|p| (p.clone(), fs::read(whole.0.join(&p)).unwrap()))
                .collect();
            // Removed and made again under the same name: debug information holds the folder.
            let root = whole.0.clone();
            drop(whole);
            let parts = Tree::new(&format!("whole-{compiler}"));
            assert_eq!(parts.0, root);
            for plan in plans(compiler, args, &parts.0) {
                run(compiler, &plan.args, &parts.0);
            }
            for (path, bytes) in objects {
                assert!(fs::read(parts.0.join(&path)).unwrap() == bytes, "{compiler} {args}: {path:?} differs");
            }
        }
    }
}

#[test]
fn a_command_that_would_overwrite_its_own_outputs_is_not_split() {
    let args = words("-c src/a.c other/a.c");
    assert_eq!(verdict("gcc", &args, Path::new("/home/u")), Verdict::Local(Reason::MultipleSources));
}

/// gcc says itself where it looked for the profile; that file must be among the named inputs.
#[test]
fn profile_counts_are_looked_for_where_predicted() {
    if !is_installed("gcc") {
        return;
    }
    for args in [
        "-c src/two.c -fprofile-use -O2",
        "-c src/two.c -fprofile-use -O2 -o out/bar.o",
        "-c src/two.c -fprofile-use=dd -O2 -o out/bar.o",
        "-c src/two.c -fprofile-use=dd -O2 -o ./out/../out/bar.o",
        "-c src/two.c -fprofile-use -fprofile-dir=dd -O2",
        "-c src/two.c -fbranch-probabilities -dumpbase zz",
    ] {
        let tree = Tree::new("counts");
        let args = format!("{args} -Wmissing-profile");
        let plan = plans("gcc", &args, &tree.0).remove(0);
        let out = Command::new("gcc")
            .args(&plan.args)
            .current_dir(&tree.0)
            .env("PWD", &tree.0)
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        let name = text.split('\'').find(|part| part.ends_with(".gcda")).unwrap_or_else(|| panic!("{args}: {text}"));
        let known: Vec<_> = plan.named_inputs.iter().map(|p| tree.0.join(p)).collect();
        assert!(known.contains(&tree.0.join(name)), "{args}: looked for {name}, predicted {known:?}");
    }
}

/// Names that `make` must be told with quotes, or cannot be told: what the compilers write of them is read in their sense.
#[test]
fn dependency_files_with_unusual_names_are_read_or_blame_nobody() {
    for compiler in ["gcc", "clang"] {
        if !is_installed(compiler) {
            continue;
        }
        for (name, odd) in [
            ("k l.h", false),
            ("h#.h", false),
            ("d$x.h", false),
            ("a  b.h", false),
            ("\u{e4}.h", false),
            ("c:d.h", true),
            ("e=f.h", true),
            ("p%q.h", true),
            ("s;t.h", true),
            ("v|w.h", true),
            ("t\tu.h", true),
            ("x*.h", true),
        ] {
            let tree = Tree::new(&format!("names-{compiler}"));
            fs::write(tree.0.join("inc").join(name), "int named;\n").unwrap();
            fs::write(tree.0.join("src/a b.c"), format!("#include \"{name}\"\nint x;\n")).unwrap();
            fs::create_dir(tree.0.join("o: x")).unwrap();
            let mut args = words("-c -Iinc -MD -MP -o");
            args.extend(["o: x/b #$c.o".into(), "src/a b.c".into()]);
            let Verdict::Remote(plans) = verdict(compiler, &args, &tree.0) else { panic!("{name}") };
            run(compiler, &args, &tree.0);
            let text = fs::read(tree.0.join("o: x/b #$c.d")).unwrap();
            let list = depfile::read(&text, &plans[0].deps_rule);
            let list = list.unwrap_or_else(|why| panic!("{name}: {why:?}: {}", String::from_utf8_lossy(&text)));
            let full = format!("inc/{name}");
            let at = list.names.iter().position(|n| n[..] == *full.as_bytes()).unwrap_or_else(|| panic!("{full}"));
            assert_eq!(list.odd.contains(&at), odd, "{compiler} {name}");
        }
        // A backslash is written in a way that cannot be told from others; a line break cannot be told at all.
        let tree = Tree::new(&format!("names-{compiler}"));
        fs::write(tree.0.join("src/a\\ b.c"), "int x;\n").unwrap();
        let mut args = words("-c -MD -o out/x.o");
        args.push("src/a\\ b.c".into());
        run(compiler, &args, &tree.0);
        let Verdict::Remote(plans) = verdict(compiler, &args, &tree.0) else { panic!("backslash") };
        let text = fs::read(tree.0.join("out/x.d")).unwrap();
        let lie = matches!(depfile::read(&text, &plans[0].deps_rule), Err(depfile::Unlike::Lie(_)));
        assert!(!lie, "{}", String::from_utf8_lossy(&text));
        let args: Vec<OsString> = ["-c", "-MD", "src/a\nb.c", "-o", "out/x.o"].map(Into::into).to_vec();
        assert_eq!(verdict(compiler, &args, &tree.0), Verdict::Local(Reason::DependencyNames));
    }
}
