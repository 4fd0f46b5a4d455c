//! Compilers are found, packed and reproduced with the real gcc and clang of this machine.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use potluck_model::plan::{Family, Language};
use potluck_node::toolchain::pack::PackError;
use potluck_node::toolchain::probe;
use potluck_node::toolchain::{
    Compiler, Compilers, Entry, Environment, FindError, Manifest, Native, Packed, Store, ask, elf, find, runner_path,
};

/// A folder that is not below /tmp: what lies there cannot travel.
fn place(name: &str) -> tempfile::TempDir {
    tempfile::Builder::new().prefix(name).tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn env() -> Environment {
    Environment::default().with("PATH", "/usr/local/bin:/usr/bin:/bin").with("LANG", "C.UTF-8").with("HOME", "/nowhere")
}

fn compiler(path: &str) -> Option<Compiler> {
    let path = Path::new(path);
    path.exists().then(|| Compilers::default().find(path, &env()).unwrap().as_ref().clone())
}

/// The real compilers here; a machine without clang tests gcc only.
fn compilers() -> Vec<Compiler> {
    let all: Vec<Compiler> = ["/usr/bin/gcc", "/usr/bin/g++", "/usr/bin/clang", "/usr/bin/clang++"]
        .iter()
        .filter_map(|p| compiler(p))
        .collect();
    assert!(!all.is_empty(), "these tests need gcc or clang");
    all
}

/// The runner of this build; made if only this crate's tests were asked for.
fn runner() -> &'static Path {
    static RUNNER: OnceLock<PathBuf> = OnceLock::new();
    RUNNER.get_or_init(|| {
        let runner = runner_path();
        if !runner.is_file() {
            let args = ["build", "--quiet", "-p", "potluck-runner", "--bins"];
            let made = Command::new(env!("CARGO")).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
            assert!(made.success());
        }
        runner_path()
    })
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn a_compiler_says_what_it_is() {
    for c in compilers() {
        assert_eq!(c.cxx, c.asked.to_string_lossy().ends_with("++"), "{c:?}");
        assert_eq!(c.family == Family::Clang, c.asked.to_string_lossy().contains("clang"));
        assert!(c.version.bytes().any(|b| b.is_ascii_digit()), "{c:?}");
        assert!(c.target.contains("linux"), "{c:?}");
        assert_eq!(c.driver, c.asked, "links stay, because a driver finds its parts by its name");
        assert!(c.identity.iter().any(|i| i.path == c.driver.canonicalize().unwrap()));
    }
}

#[test]
fn launchers_links_and_plain_scripts_lead_to_the_real_driver() {
    let dir = place("wrappers");
    let real = dir.path().join("real");
    let masks = dir.path().join("masks");
    fs::create_dir_all(&real).unwrap();
    fs::create_dir_all(&masks).unwrap();
    symlink("/usr/bin/gcc", real.join("gcc")).unwrap();
    symlink("/usr/bin/gcc", real.join("gcc-12.2")).unwrap();
    // Masquerades: what the link leads to decides, not its name.
    script(&dir.path().join("ccache"), "#!/bin/sh\nexit 9\n");
    script(&dir.path().join("potluck"), "#!/bin/sh\nexit 9\n");
    symlink(dir.path().join("ccache"), masks.join("gcc")).unwrap();
    symlink(dir.path().join("potluck"), masks.join("gcc-12.2")).unwrap();
    let env = env().with("PATH", std::env::join_paths([&masks, &real, Path::new("/usr/bin")]).unwrap());
    let found = |path: &Path| Compilers::default().find(path, &env).unwrap().driver.clone();

    assert_eq!(found(&masks.join("gcc")), real.join("gcc"));
    assert_eq!(found(&masks.join("gcc-12.2")), real.join("gcc-12.2"));
    assert_eq!(found(&real.join("gcc-12.2")), real.join("gcc-12.2"));

    let plain = dir.path().join("plain-cc");
    script(&plain, "#!/bin/sh\n# fast\nexec ccache gcc \"$@\"\n");
    // PATH finds the masquerade first, and behind it the driver.
    assert_eq!(found(&plain), real.join("gcc"));
    let adding = dir.path().join("adding-cc");
    script(&adding, "#!/bin/sh\nexec /usr/bin/gcc -DX=1 \"$@\"\n");
    assert_eq!(found(&adding), adding, "a script that adds something is the driver itself");
    let behind = Compilers::default().find(&adding, &env).unwrap();
    let gcc = Path::new("/usr/bin/gcc").canonicalize().unwrap();
    assert!(behind.identity.iter().any(|i| i.path == gcc), "an upgrade of what it calls is noticed");
    let listed = potluck_node::toolchain::list_compilers(&env);
    assert!(listed.contains(&("gcc".into(), real.join("gcc"))), "{listed:?}");
    let argv = ["ccache", "gcc", "-c", "a.c"].map(OsString::from);
    assert_eq!(find::after_launchers(&argv, &env), Some((1, masks.join("gcc"))));
}

#[test]
fn a_real_ccache_masquerade_is_stepped_over() {
    let masquerade = Path::new("/usr/lib/ccache/gcc");
    if masquerade.exists() {
        let env = env().with("PATH", "/usr/lib/ccache:/usr/bin");
        assert_eq!(Compilers::default().find(masquerade, &env).unwrap().driver, Path::new("/usr/bin/gcc"));
    }
}

#[test]
fn what_is_no_compiler_is_refused_with_a_reason() {
    let dir = place("not-compilers");
    let path = dir.path().join("cc");
    let find = |p: &Path, env: &Environment| Compilers::default().find(p, env).unwrap_err();
    assert!(matches!(find(&path, &env()), FindError::NotFound(_)));
    assert!(matches!(find(Path::new("gcc"), &env()), FindError::NotFound(_)));
    script(&path, "#!/bin/sh\necho hello\nexit 0\n");
    assert!(matches!(find(&path, &env()), FindError::NotACompiler(..)));
    symlink("/usr/bin/ccache", dir.path().join("nothing-cc")).unwrap();
    if Path::new("/usr/bin/ccache").exists() {
        assert!(matches!(find(&dir.path().join("nothing-cc"), &env()), FindError::NothingBehind(_)));
    }
    symlink("loop-b", dir.path().join("loop-a")).unwrap();
    symlink("loop-a", dir.path().join("loop-b")).unwrap();
    assert!(matches!(find(&dir.path().join("loop-a"), &env()), FindError::NotFound(_)));
}

#[test]
fn a_changed_compiler_is_asked_again() {
    let dir = place("changing");
    let cc = dir.path().join("cc");
    symlink("/usr/bin/gcc", &cc).unwrap();
    let compilers = Compilers::default();
    let first = compilers.find(&cc, &env()).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &compilers.find(&cc, &env()).unwrap()));
    fs::remove_file(&cc).unwrap();
    symlink("/usr/bin/g++", &cc).unwrap();
    assert!(compilers.find(&cc, &env()).unwrap().cxx);
}

/// Copies a toolchain's files, links and empty directories below `root`, and nothing else.
fn unpack(packed: &Packed, root: &Path) {
    let below = |p: &Path| root.join(p.strip_prefix("/").unwrap());
    for entry in &packed.manifest.entries {
        let at = below(entry.path());
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        match entry {
            Entry::File { digest, mode, .. } => {
                fs::write(&at, packed.files.read(digest).unwrap()).unwrap();
                fs::set_permissions(&at, PermissionsExt::from_mode(*mode)).unwrap();
            }
            Entry::Link { target, .. } => symlink(target, &at).unwrap(),
        }
    }
    for dir in packed.manifest.dirs.iter().map(|d| below(d)).chain(["proc", "tmp", "dev"].map(|d| root.join(d))) {
        fs::create_dir_all(dir).unwrap();
    }
}

/// In every listed directory each name that exists here and was not packed becomes a loop, as on a worker.
fn poison(packed: &Packed, root: &Path) -> usize {
    let mut poisons = 0;
    for dir in &packed.manifest.dirs {
        for name in fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()) {
            let at = root.join(dir.strip_prefix("/").unwrap()).join(&name);
            if fs::symlink_metadata(&at).is_err() {
                symlink(&name, &at).unwrap();
                poisons += 1;
            }
        }
    }
    poisons
}

/// What a traced command met that a worker would report as faults.
fn faults(trace: &Path, root: &Path) -> Vec<PathBuf> {
    let records = fs::read(trace).unwrap();
    assert!(records.len() > 1000, "a compile looks up many names");
    let failed = records.split(|b| *b == 0).filter_map(|r| r.strip_prefix(b"e"));
    let paths = failed.map(|p| PathBuf::from(OsStr::from_bytes(p)));
    let is_loop = |p: &PathBuf| {
        let at = root.join(p.strip_prefix("/").unwrap());
        match fs::read_link(&at) {
            Ok(target) => Some(target.as_os_str()) == at.file_name(),
            Err(e) => e.raw_os_error() == Some(libc::ELOOP),
        }
    };
    paths.filter(is_loop).collect()
}

/// A command inside `root`, with its own /proc; the manifest's variables and no others. Traced from outside.
fn inside(root: &Path, cwd: &Path, manifest: &Manifest, args: &[OsString]) -> std::process::Output {
    let mut command = Command::new(runner());
    command.arg("trace").arg(root.with_extension("trace")).args(["--", "/usr/bin/unshare"]);
    command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]);
    command.arg("--root").arg(root).arg("--wd").arg(cwd).arg(&manifest.driver).args(args);
    Environment::from_entries(&manifest.env).apply(&mut command);
    command.stdin(Stdio::null()).output().unwrap()
}

const ORDINARY: &[&[&str]] = &[
    &["-flto", "-fPIC", "-pthread"],
    &["--coverage", "-fprofile-arcs"],
    &["-gsplit-dwarf", "-gz", "-MD", "-MF", "x.d"],
    &["-save-temps", "-pipe", "-fdiagnostics-color=always"],
    &["-fsanitize=address,undefined", "-fopenmp", "-pg"],
    &[
        "-O3",
        if cfg!(target_arch = "x86_64") { "-march=x86-64-v3" } else { "-march=armv8.2-a" },
        "-ffast-math",
        "-fstack-protector-strong",
        "-g3",
    ],
    &["-S", "-fverbose-asm"],
];

fn packed_reproduces(path: &str) {
    let Some(compiler) = compiler(path) else { return };
    let cache = place("cache");
    let store = Store::open(cache.path()).unwrap();
    let mut heard = (0, 0);
    let packed = store.pack(&compiler, &env(), runner(), &mut |done, total| heard = (done, total)).unwrap();
    assert_eq!(heard.0, heard.1);
    assert!(heard.1 > 1_000_000);
    assert_eq!(Manifest::decode(&packed.manifest.encode()), Ok(packed.manifest.clone()));
    let languages = &packed.manifest.languages;
    assert!(languages.iter().any(|l| l == "c") && languages.iter().any(|l| l == "assembler-with-cpp"), "{languages:?}");

    // No header travels with the toolchain, and nothing private.
    assert!(packed.manifest.files().all(|(p, ..)| !p.ends_with("stdio.h") && !p.starts_with("/home")));

    let root = place("root");
    unpack(&packed, root.path());
    let trace = root.path().with_extension("trace");
    let dir = Path::new(probe::DIR);
    let outside = root.path().join("potluck-probe");
    fs::create_dir(&outside).unwrap();
    assert!(poison(&packed, root.path()) > 100);
    assert!(packed.manifest.probes.len() >= 3);
    for probe in &packed.manifest.probes {
        fs::write(outside.join(&probe.source_name), &probe.source).unwrap();
        let out = inside(root.path(), dir, &packed.manifest, &probe::args_in(probe, dir));
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{path} {:?}: {stderr}", probe.args);
        assert_eq!(faults(&trace, root.path()), [] as [PathBuf; 0], "{path} {:?}", probe.args);
        assert_eq!(potluck_model::ids::Digest::of(&out.stderr), probe.stderr, "{path}: {stderr}");
        let object = fs::read(outside.join(probe::OBJECT)).unwrap();
        assert_eq!(potluck_model::ids::Digest::of(&object), probe.object, "{path} {:?}", probe.language);
    }
    // What ordinary builds use opens nothing that was left behind.
    for options in ORDINARY {
        let probe = &packed.manifest.probes[0];
        let mut args = probe::args_in(probe, dir);
        args.extend(options.iter().map(OsString::from));
        let out = inside(root.path(), dir, &packed.manifest, &args);
        assert!(out.status.success(), "{options:?}: {}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(faults(&trace, root.path()), [] as [PathBuf; 0], "{path} {options:?}");
    }
    // A worker compares the search list before the first job.
    for language in languages.iter().filter(|l| !l.starts_with("assembler")) {
        let here = ask::search_list_of(&compiler.driver, language, &[], &env(), Path::new("/")).unwrap().unwrap();
        fs::write(outside.join("empty"), "").unwrap();
        let mut args = ask::search_list_args(language, &[]);
        *args.last_mut().unwrap() = "empty".into();
        let there = inside(root.path(), dir, &packed.manifest, &args);
        assert_eq!(faults(&trace, root.path()).len(), usize::from(compiler.family == Family::Gcc), "stdc-predef.h");
        assert_eq!(ask::search_list(&there.stderr), Some(here), "{}", String::from_utf8_lossy(&there.stderr));
    }

    fs::remove_file(trace).unwrap();

    // Again, as after a restart: nothing is traced or hashed, so that a runner is not even needed.
    let again = Store::open(cache.path()).unwrap();
    let mut heard = false;
    let same = again.pack(&compiler, &env(), Path::new("/nonexistent/runner"), &mut |_, _| heard = true).unwrap();
    assert_eq!(same.id, packed.id);
    assert!(!heard);
    assert_eq!(again.list().unwrap(), [packed.id]);
    // Packing from nothing gives the same name.
    let fresh = place("fresh");
    let fresh = Store::open(fresh.path()).unwrap().pack(&compiler, &env(), runner(), &mut |_, _| {}).unwrap();
    assert_eq!(fresh.id, packed.id);
}

#[test]
fn gcc_works_from_its_packed_files_alone() {
    packed_reproduces("/usr/bin/gcc");
}

#[test]
fn clang_works_from_its_packed_files_alone() {
    packed_reproduces("/usr/bin/clang");
}

#[test]
fn clangxx_works_from_its_packed_files_alone() {
    packed_reproduces("/usr/bin/clang++");
}

#[test]
fn a_script_that_adds_options_is_packed_with_its_interpreter() {
    let dir = place("script-cc");
    let cc = dir.path().join("cc");
    script(&cc, "#!/bin/sh\nset -e\nexec /usr/bin/gcc -DADDED=1 \"$@\"\n");
    let compiler = Compilers::default().find(&cc, &env()).unwrap();
    let cache = place("cache");
    let store = Store::open(cache.path()).unwrap();
    let packed = store.pack(&compiler, &env(), runner(), &mut |_, _| {}).unwrap();
    assert_eq!(packed.manifest.driver, cc);
    assert!(packed.manifest.follow(Path::new("/bin/sh")).is_some());
    // The script changes: the packed toolchain is no longer true.
    script(&cc, "#!/bin/sh\nset -e\nexec /usr/bin/gcc -DADDED=2 \"$@\"\n");
    let compiler = Compilers::default().find(&cc, &env()).unwrap();
    let next = store.pack(&compiler, &env(), runner(), &mut |_, _| {}).unwrap();
    assert_ne!(next.id, packed.id);
}

#[test]
fn a_script_that_calls_a_cache_on_its_way_is_not_packed() {
    if !Path::new("/usr/bin/ccache").exists() {
        return;
    }
    let dir = place("caching-cc");
    let cc = dir.path().join("cc");
    script(&cc, "#!/bin/sh\nset -e\nexec /usr/bin/ccache /usr/bin/gcc \"$@\"\n");
    let compiler = Compilers::default().find(&cc, &env()).unwrap();
    let cache = place("cache");
    let error = Store::open(cache.path()).unwrap().pack(&compiler, &env(), runner(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, PackError::CallsLauncher(_)), "{error}");
}

#[test]
fn a_missing_library_is_named_before_anything_is_sent() {
    let dir = place("missing");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("lib.c"), "int f(void) { return 0; }\n").unwrap();
    fs::write(at("main.c"), "int f(void); int main(void) { return f(); }\n").unwrap();
    let gcc =
        |args: &[&str]| assert!(Command::new("gcc").args(args).current_dir(dir.path()).status().unwrap().success());
    gcc(&["-shared", "-fPIC", "lib.c", "-Wl,-soname,libpotluckneeded.so.7", "-o", "libpotluckneeded.so.7"]);
    gcc(&["main.c", "./libpotluckneeded.so.7", "-Wl,-rpath,$ORIGIN", "-o", "prog"]);
    let closure = elf::Loader::new(&env()).closure(&at("prog")).unwrap();
    assert!(closure.contains(&dir.path().canonicalize().unwrap().join("libpotluckneeded.so.7")), "{closure:?}");
    fs::remove_file(at("libpotluckneeded.so.7")).unwrap();
    let error = PackError::from(elf::Loader::new(&env()).closure(&at("prog")).unwrap_err()).to_string();
    assert_eq!(error, "`prog` needs `libpotluckneeded.so.7`, which was not found next to the compiler");
}

#[test]
fn a_compiler_below_tmp_is_not_packed() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let cc = dir.path().join("gcc");
    symlink("/usr/bin/gcc", &cc).unwrap();
    let compiler = Compilers::default().find(&cc, &env()).unwrap();
    let cache = place("cache");
    let error = Store::open(cache.path()).unwrap().pack(&compiler, &env(), runner(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, PackError::PrivatePlace(_)), "{error}");
}

/// Compiles with native options here and with the expanded ones, and compares the bytes.
fn native_is_reproduced(compiler: &Compiler, language: Language, options: &[&str]) {
    let dir = place("native");
    let (name, source) = match language {
        Language::Cxx => (
            "a.cc",
            "struct A { float v[64]; };\nvoid g(A &a, const A &b) { for (int i = 0; i < 64; ++i) a.v[i] += b.v[i] * 1.5f; }\n",
        ),
        _ => ("a.c", "void f(float *a, const float *b, int n) { for (int i = 0; i < n; i++) a[i] += b[i] * 1.5f; }\n"),
    };
    fs::write(dir.path().join(name), source).unwrap();
    let mut args: Vec<OsString> = options.iter().map(OsString::from).collect();
    args.extend(["-O3", "-c", name, "-o", "a.o"].map(OsString::from));
    let native: Vec<usize> = (0..args.len()).filter(|i| args[*i].to_string_lossy().ends_with("=native")).collect();
    let cache = place("native-specs");
    let expander = Native::new(cache.path().to_owned());
    let expanded = expander.expand(compiler, &env(), language, &args, &native).unwrap();
    assert_eq!(expander.expand(compiler, &env(), language, &args, &native).unwrap(), expanded);
    let compile = |args: &[OsString]| {
        let answer = ask::run(&compiler.driver, args, &env(), dir.path()).unwrap();
        assert_eq!(answer.exit, 0, "{args:?}: {}", answer.complaint());
        (fs::read(dir.path().join("a.o")).unwrap(), answer.stderr)
    };
    let here = compile(&args);
    assert_eq!(compile(&expanded.args), here, "{:?} {options:?}", compiler.driver);
    if compiler.family == Family::Clang {
        assert!(!expanded.args.iter().any(|a| a.to_string_lossy().ends_with("=native")));
    } else if let Some(specs) = &expanded.specs_file {
        assert!(!fs::read_to_string(specs).unwrap().contains("local_cpu_detect"));
    }
    // It is the native code, not just any: without the option the bytes differ.
    let plain: Vec<OsString> =
        args.iter().enumerate().filter(|(i, _)| !native.contains(i)).map(|(_, a)| a.clone()).collect();
    if options.contains(&"-march=native") {
        assert_ne!(compile(&plain).0, here.0);
    }
}

#[test]
fn native_options_make_the_same_bytes_when_resolved() {
    let sets: &[&[&str]] = &[
        &["-g", "-march=native"],
        &["-march=native", "-g", "-Wall", "-mtune=generic"],
        &["-g", "-mtune=native"],
        &["-g", "-march=native", "-mno-avx512f", "-fPIC"],
        &["-mtune=native", "-g", "-march=native", "-ffunction-sections"],
    ];
    for compiler in compilers() {
        for set in sets {
            native_is_reproduced(&compiler, if compiler.cxx { Language::Cxx } else { Language::C }, set);
        }
    }
    if let Some(gcc) = compiler("/usr/bin/gcc") {
        native_is_reproduced(&gcc, Language::C, &["-frecord-gcc-switches", "-g", "-march=native"]);
        native_is_reproduced(&gcc, Language::Cxx, &["-g", "-march=native", "-fverbose-asm"]);
    }
}

/// The submitter's CPU is told to be another than this one, which stands for the worker's.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_worker_with_another_cpu_compiles_for_the_submitters_cpu() {
    let Some(gcc) = compiler("/usr/bin/gcc") else { return };
    let dir = place("other-cpu");
    let source = "void f(float *a, const float *b, int n) { for (int i = 0; i < n; i++) a[i] += b[i] * 1.5f; }\n";
    fs::write(dir.path().join("a.c"), source).unwrap();
    let run = |args: &[OsString]| {
        let answer = ask::run(&gcc.driver, args, &env(), dir.path()).unwrap();
        assert_eq!(answer.exit, 0, "{args:?}: {}", answer.complaint());
        (fs::read(dir.path().join("a.o")).unwrap_or_default(), answer)
    };
    let args: Vec<OsString> = ["-march=native", "-O3", "-c", "a.c", "-o", "a.o"].map(OsString::from).to_vec();
    let expander = Native::new(dir.path().join("specs"));
    let expanded = expander.expand(&gcc, &env(), Language::C, &args, &[0]).unwrap();
    let specs = fs::read_to_string(expanded.specs_file.as_ref().expect("gcc on x86 gets specs")).unwrap();
    let here = run(&args).0;
    // Two submitters, of which at least one has another CPU: the same specs with their answers in place of this CPU's.
    let mut objects = vec![here];
    for cpu in ["haswell", "nocona"] {
        let mut told = String::new();
        for piece in specs.split_inclusive("=native ") {
            let end = if told.is_empty() { 0 } else { piece.find(['}', '%']).unwrap() };
            let answer =
                if told.ends_with("%>march=native ") { format!("-march={cpu} ") } else { format!("-mtune={cpu} ") };
            told += if end == 0 { "" } else { &answer };
            told += &piece[end..];
        }
        fs::write(dir.path().join("theirs.specs"), &told).unwrap();
        let mut theirs = expanded.args.clone();
        theirs[0] = "-specs=theirs.specs".into();
        let (object, _) = run(&theirs);
        let mut explicit = args.clone();
        explicit.splice(..1, [format!("-march={cpu}").into(), format!("-mtune={cpu}").into()]);
        assert_eq!(object, run(&explicit).0, "{told}");
        theirs.push("-###".into());
        let said = run(&theirs).1.stderr;
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().find(|l| l.contains("/cc1 ")).unwrap();
        assert!(line.contains(&format!("-march={cpu}")) && line.matches("-march=").count() == 1, "{line}");
        objects.push(object);
    }
    objects.dedup();
    assert!(objects.len() > 1, "the CPU makes no difference here");
}

#[test]
fn native_that_cannot_be_proven_stays_here() {
    for compiler in compilers() {
        let native = Native::new(place("native-specs").path().to_owned());
        let expand = |language, args: &[&str], at: &[usize]| {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            native.expand(&compiler, &env(), language, &args, at)
        };
        assert!(expand(Language::C, &["-march=native"], &[1]).is_err(), "an index that is not one");
        match compiler.family {
            Family::Gcc => assert!(expand(Language::C, &["-march=native", "-specs=x"], &[0]).is_err()),
            Family::Clang => {
                assert!(expand(Language::C, &["-march=native", "-frecord-command-line"], &[0]).is_err());
                assert!(expand(Language::AsmWithCpp, &["-march=native"], &[0]).is_err());
            }
        }
    }
}
