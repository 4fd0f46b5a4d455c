//! The compilers as the oracle: what gcc and clang really write, under which names, and what they do to existing files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use potluck_model::options::{Invocation, ReadFile, family_of, understand};
use potluck_model::plan::{Manner, Plan, Verdict};
use potluck_model::reason::Reason;

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

/// Whether the files of a case have names that nobody can know before (pass numbers).
fn has_unknown_names(args: &str) -> bool {
    ["-fdump-tree", "-fdump-rtl", "-da", "-fdump-statistics"].iter().any(|p| args.contains(p))
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
        assert!(known.contains_key(file) || has_unknown_names(args), "{case}: wrote {file:?}, predicted {known:?}");
    }
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
    "-c -Iinc -MD -MFdd/x.d src/foo.c -o out/bar.o",
    "-c -Iinc -MD -MF /dev/null src/foo.c -o out/bar.o",
    "-c -Iinc -Wp,-MD,dd/x.d src/foo.c",
    "-c -Iinc -Wp,-MMD,dd/x.d -MD src/foo.c -o out/bar.o",
    "-c -Iinc @dd/rsp src/foo.c -o out/bar.o",
    "-S -Iinc src/foo.c",
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
        "-c -fdump-ada-spec src/two.c -o out/bar.o",
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
        "-c -Iinc -Wa,--MD,dd/as.d,--defsym,A=1 src/foo.c",
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
