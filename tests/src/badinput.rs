//! Commands that a compiler refuses, and outputs that are not ordinary files: in each the pool must do exactly what
//! the plain compiler does, to the last byte of its messages and the last bit of a mode.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::disk::SmallDisk;
use crate::lab::base_dir;
use crate::node::Node;
use crate::person::Person;
use crate::run::{Seen, run};
use crate::tree::{Baseline, Kind, Outputs};
use crate::{Context, Outcome, Trouble};

/// A folder is prepared by one shell script, then another runs `$CC` in it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Name in tables.
    pub name: &'static str,
    /// Makes the folder's content; `a.c` compiles and `w.c` warns are always there.
    pub prepare: &'static str,
    /// Runs the compiler.
    pub script: &'static str,
}

const fn case(name: &'static str, prepare: &'static str, script: &'static str) -> Case {
    Case { name, prepare, script }
}

/// Sources that every case finds.
const COMMON: &str = "umask 022; printf '#include \"a.h\"\\nint f(void) { return A; }\\n' >a.c; \
    printf '#define A 1\\n' >a.h; printf 'int g(void) { int unused; }\\n' >w.c";

/// Every case of the list in the project's goals, and some of their relatives.
pub const CASES: &[Case] = &[
    case("compiles", "", "$CC -c a.c"),
    case("warns", "", "$CC -Wall -Wextra -c w.c"),
    case("missing source", "", "$CC -c nothere.c"),
    case("source is a folder", "mkdir d.c", "$CC -c d.c"),
    case("syntax error", "echo 'int f( {' >b.c", "$CC -c b.c"),
    case("syntax error keeps the old object", "echo 'int f( {' >b.c; echo old >b.o", "$CC -c b.c -MD"),
    case("missing header", "echo '#include \"no.h\"' >b.c", "$CC -c b.c"),
    case("#error", "printf '#error no \\342\\202\\254\\n' >b.c", "$CC -c b.c"),
    case("-Werror", "", "$CC -Wall -Werror -c w.c"),
    case("unreadable header", "chmod 0 a.h", "$CC -c a.c"),
    case("unreadable source", "chmod 0 a.c", "$CC -c a.c"),
    case("unreadable folder on the path", "mkdir -m 0 x; mkdir y; mv a.h y", "$CC -Ix -Iy -c a.c"),
    case("output folder missing", "", "$CC -c a.c -o no/a.o"),
    case("output folder not writable", "mkdir -m 555 ro", "$CC -c a.c -o ro/a.o"),
    case(
        "existing output in a folder that is not writable",
        "mkdir ro; echo >ro/a.o; chmod 555 ro",
        "$CC -c a.c -o ro/a.o",
    ),
    case("working folder not writable", "mkdir ro; cp a.c a.h ro; chmod 555 ro", "cd ro && $CC -c a.c"),
    case("object 0600 and dependencies 0600", "echo x >a.o; echo x >a.d; chmod 600 a.o a.d", "$CC -MD -c a.c"),
    case("object 0444", "echo x >a.o; chmod 444 a.o", "$CC -c a.c"),
    case("object 0400", "echo x >a.o; chmod 400 a.o", "$CC -c a.c"),
    case("assembly 0444", "echo x >a.s; chmod 444 a.s", "$CC -S a.c"),
    case("saved files 0444", "echo x >a.i; echo x >a.s; chmod 444 a.i a.s", "$CC -save-temps -c a.c"),
    case("second object 0444", "cp a.c b.c; echo x >b.o; chmod 444 b.o", "$CC -c a.c b.c"),
    case("dependencies are a dangling link", "ln -s t a.d", "$CC -MD -c a.c"),
    case("dependencies in a folder that is not writable", "mkdir -m 555 ro", "$CC -MD -MF ro/a.d -c a.c"),
    case("dependencies 0444", "echo x >a.d; chmod 444 a.d", "$CC -MD -c a.c"),
    case("object is a link", "echo x >t; ln -s t a.o", "$CC -c a.c"),
    case("object is a link to an empty file", ": >t; ln -s t a.o", "$CC -c a.c"),
    case("object is a dangling link", "ln -s t a.o", "$CC -c a.c"),
    case("object is a hard link", "echo x >t; ln t a.o", "$CC -c a.c"),
    case("dependencies are a link", "echo x >t; ln -s t a.d", "$CC -MD -c a.c"),
    case("dependencies are a hard link", "echo x >t; ln t a.d", "$CC -MD -c a.c"),
    case("object is a folder", "mkdir a.o", "$CC -c a.c"),
    case("object is a FIFO", "mkfifo a.o", "(cat a.o >/dev/null &) ; $CC -c a.c"),
    case("object is the source", "", "$CC -c a.c -o a.c"),
    case("-o /dev/null", "", "$CC -c a.c -o /dev/null"),
    case("-o /dev/null with dependencies", "", "$CC -MD -MF a.d -c a.c -o /dev/null"),
    case("-o -", "", "$CC -S a.c -o - | grep -c ret"),
    case("/dev/full", "", "$CC -c a.c -o /dev/full"),
    case(
        "blanks in names",
        "mkdir 'my dir'; cp a.h 'my dir'; cp a.c 'my dir/my a.c'",
        "$CC -MD -c 'my dir/my a.c' -o 'my dir/my a.o'",
    ),
    case("newline in a name", "n=$(printf 'x\\ny.c'); cp a.c \"$n\"", "n=$(printf 'x\\ny.c'); $CC -MD -c \"$n\""),
    case("a name that is no UTF-8", "cp a.c \"$(printf 'x\\377.c')\"", "$CC -MD -c \"$(printf 'x\\377.c')\""),
    case("quotes, dollars and hashes in names", "cp a.c 'x$y#\"z'\\''.c'", "$CC -MD -c 'x$y#\"z'\\''.c'"),
    case("a name that begins with a dash", "cp a.c ./-x.c", "$CC -c ./-x.c -- 2>&1; $CC -c -- -x.c"),
    case(
        "a command line of 100,000 characters",
        "",
        "d=$(printf '%0100d' 1); i=0; a=; while [ $i -lt 950 ]; do a=\"$a -DX$i=$d\"; i=$((i+1)); done; $CC $a -c a.c",
    ),
    case("one argument of 100,000 characters", "", "$CC -DX=$(printf '%0100000d' 1) -c a.c"),
    case("empty file", ": >e.c", "$CC -c e.c"),
    case("empty file that must not be", ": >e.c", "$CC -pedantic-errors -c e.c"),
    case("FIFO as source", "mkfifo p.c", "(cat a.c >p.c &) ; $CC -c p.c"),
    case("source from standard input", "", "$CC -x c -c - -o s.o <a.c"),
    case("closed standard input", "", "$CC -c a.c <&-"),
    case("closed standard output and error", "", "$CC -Wall -c w.c >&- 2>&-"),
    case("source is a link", "mkdir r; cp a.c r/real.c; ln -s r/real.c l.c", "$CC -MD -c l.c"),
    case("header is a dangling link", "rm a.h; ln -s no a.h", "$CC -c a.c"),
    case("header is a link that points at itself", "rm a.h; ln -s a.h a.h", "$CC -c a.c"),
    case("header is a folder", "rm a.h; mkdir a.h", "$CC -c a.c"),
    case(
        "header is a folder, another further on",
        "rm a.h; mkdir -p x/a.h y; echo '#define A 2' >y/a.h",
        "$CC -Ix -Iy -c a.c",
    ),
    case("header includes itself", "echo '#include \"a.h\"' >a.h", "$CC -c a.c"),
    case("no newline at the end", "printf '#include \"a.h\"' >b.c", "$CC -pedantic -Wall -c b.c"),
    case("NUL bytes in the source", "printf 'int a;\\000\\nint b;\\n' >b.c", "$CC -c b.c"),
    case("carriage returns", "printf '#include \"a.h\"\\r\\nint f = A;\\r\\n' >b.c", "$CC -Wall -c b.c"),
    case("no arguments", "", "$CC"),
    case("only -c", "", "$CC -c"),
    case("-o without a name", "", "$CC -c a.c -o"),
    case("unknown option", "", "$CC -c a.c --what-is-this"),
    case("unknown -W", "", "$CC -c a.c -Wno-such-thing -Wsuch-thing"),
    case("unknown machine", "", "$CC -c a.c -march=nonsense"),
    case("several sources", "echo 'int h;' >b.c", "$CC -MD -c a.c b.c"),
    case("several sources, one broken", "echo 'int h(' >b.c", "$CC -c a.c b.c w.c"),
    case("several sources, one missing", "", "$CC -c a.c nothere.c w.c"),
    case("several sources that warn", "cp w.c v.c", "$CC -MD -Wall -Wextra -c v.c a.c w.c"),
    case("several sources, a warning of the driver", "", "$CC -c a.c w.c -L. -lnothere -Wl,-z,now"),
    case("several sources, an unused option", "", "$CC -c a.c w.c -nostdlib -rdynamic -shared"),
    case("several sources, an option of the linker in the middle", "", "$CC -c a.c -Wl,-x w.c -pie"),
    case("several sources, an unknown warning", "", "$CC -Wall -Wno-such-thing -Wsuch-thing -c a.c w.c"),
    case("several sources, an option of C++", "", "$CC -fno-rtti -c a.c w.c"),
    case("several sources and an object", "$CC -c a.c -o x.o", "$CC -c a.c w.c x.o"),
    case("several sources, one of them twice", "", "$CC -c a.c a.c"),
    case("several sources and -o", "", "$CC -c a.c w.c -o x.o"),
    case("response file", "echo '-DB=2 -c a.c' >args", "$CC @args"),
    case("response file missing", "", "$CC @noargs -c a.c"),
    case("umask 077", "", "umask 077; $CC -MD -c a.c"),
    case("umask 0", "", "umask 0; $CC -MD -c a.c"),
    case("umask 0777", "", "umask 0777; $CC -MD -c a.c"),
    case("dependencies elsewhere", "mkdir deps", "$CC -MD -MF deps/x.d -MT foo -MP -c a.c"),
    case("dependency folder missing", "", "$CC -MD -MF deps/x.d -c a.c"),
    case("version", "", "$CC --version | head -n 1"),
    case("preprocess", "", "$CC -E a.c | tail -n 1"),
    case("link", "echo 'int main(void) { return 3; }' >m.c", "$CC m.c -o m && ./m"),
    case("compile and run", "echo 'int main(void) { return 3; }' >m.c", "$CC -c m.c && $CC m.o -o m && ./m"),
    case("assembler source", "printf '.globl x\\nx: .long 1\\n' >x.s", "$CC -c x.s"),
    case("assembler error", "printf '.nonsense\\n' >x.s", "$CC -c x.s 2>&1 | grep -c nonsense"),
    case(
        "inline assembler error",
        "echo 'void f(void) { __asm__(\"nonsense\"); }' >b.c",
        "$CC -c b.c 2>&1 | grep -c nonsense; test -e b.o",
    ),
    case(
        "incbin of a missing file",
        "echo '__asm__(\".incbin \\\"no.bin\\\"\");' >b.c",
        "$CC -c b.c 2>&1 | grep -c no.bin; test -e b.o",
    ),
    case("incbin", "head -c 3000 /bin/sh >x.bin; echo '__asm__(\".incbin \\\"x.bin\\\"\");' >b.c", "$CC -c b.c"),
    case(
        "incbin found in the second folder",
        "mkdir i j; echo x >j/x.bin; echo '__asm__(\".incbin \\\"x.bin\\\"\");' >b.c",
        "$CC -Wa,-Ii,-Ij -c b.c",
    ),
    case(
        "has_include",
        "printf '#if __has_include(\"a.h\") && !__has_include(\"no.h\")\\nint y;\\n#else\\n#error\\n#endif\\n' >b.c",
        "$CC -c b.c",
    ),
    case("colour as asked", "", "$CC -fdiagnostics-color=always -Wall -c w.c"),
    case("GCC_COLORS and a French locale", "", "LC_ALL=fr_FR.UTF-8 GCC_COLORS=error=31 $CC -Wall -c w.c"),
    case("C locale", "", "LC_ALL=C $CC -Wall -c w.c"),
    case("CPATH", "mkdir inc; mv a.h inc", "CPATH=inc $CC -c a.c"),
    case("CPATH with an empty part", "mkdir inc; mv a.h inc", "CPATH=inc:: $CC -c a.c"),
    case("DEPENDENCIES_OUTPUT", "", "DEPENDENCIES_OUTPUT='deps target' $CC -c a.c"),
    case(
        "SOURCE_DATE_EPOCH",
        "echo 'const char *d = __DATE__ __TIME__;' >b.c",
        "SOURCE_DATE_EPOCH=1000000000 $CC -c b.c",
    ),
    case(
        "SOURCE_DATE_EPOCH that is no number",
        "echo 'const char *d = __DATE__;' >b.c",
        "SOURCE_DATE_EPOCH=soon $CC -c b.c",
    ),
    case("the PWD of another folder", "", "PWD=/usr/lib $CC -g -c a.c"),
    case("a PWD that is gone", "", "PWD=/nowhere/at/all $CC -g -c a.c"),
    case("a relative PWD", "", "PWD=. $CC -g -c a.c"),
    // At any hour it is another day than in UTC in one of the two.
    case("a time zone far east", "echo 'const char *d = __DATE__;' >b.c", "TZ=Pacific/Kiritimati $CC -c b.c"),
    case("a time zone far west", "echo 'const char *d = __DATE__;' >b.c", "TZ=Pacific/Pago_Pago $CC -c b.c"),
    case(
        "a deep working folder",
        "d=x; i=0; while [ $i -lt 40 ]; do d=$d/deepdeepdeep; i=$((i+1)); done; mkdir -p $d; cp a.c a.h $d; echo $d >where",
        "cd \"$(cat where)\" && $CC -g -c a.c",
    ),
    case("working folder reached by a link", "mkdir r; cp a.c a.h r; ln -s r l", "cd l && $CC -g -MD -c a.c"),
    case("working folder removed", "mkdir r", "cd r && rmdir ../r && $CC -c /nonexistent.c"),
    case(
        "parent folders after a link",
        "mkdir -p p/q x; cp a.h p; cp a.c x; ln -s ../p/q x/l; rm a.h",
        "$CC -Ix/l/.. -c x/a.c",
    ),
    case("missing -I folder", "", "$CC -Wmissing-include-dirs -Inothere -c a.c"),
    case("a file as -I folder", "", "$CC -Ia.h -Wmissing-include-dirs -c a.c"),
    case("sticky mode bits on outputs", "echo x >a.o; chmod 4755 a.o", "$CC -c a.c"),
    case("stack of 64 KiB", "", "ulimit -s 64; $CC -c a.c; true"),
    case(
        "file size limit",
        "printf 'char b[400000] = {1};\\n' >b.c",
        "ulimit -f 8; $CC -c b.c 2>/dev/null; test -s b.o",
    ),
    case("file size limit that is not met", "", "ulimit -f 100; $CC -MD -c a.c"),
    case(
        "file size limit of an object",
        "printf 'char b[40000] = {1};\n' >b.c",
        "ulimit -f 8; $CC -c b.c 2>&1 | grep -c -e limit -e large; test -e b.o",
    ),
    case("file size limit of nothing", "", "ulimit -f 0; $CC -c a.c 2>/dev/null; test -s a.o"),
    case(
        "full disk",
        "mkdir small; printf 'char b[400000] = {1};\n' >small/b.c",
        "$CC -c small/b.c -o small/b.o 2>&1 | sed 's/write [0-9]* bytes/write/'; ls small",
    ),
    case(
        "full disk under an old object and old dependencies",
        "mkdir small; cp a.c a.h small; echo old >small/a.o; echo old >small/a.d; cat /dev/zero >small/fill 2>/dev/null; true",
        "$CC -MD -c small/a.c -o small/a.o 2>&1 | sed 's/write [0-9]* bytes/write/'; ls small",
    ),
    case(
        "a folder of mode 0 that comes back with other content",
        "mkdir y; mv a.h y; mkdir -m 0 x; echo '#include <a.h>' >b.c; echo 'int f = A;' >>b.c",
        "for n in 1 2 3; do $CC -Ix -Iy -c b.c -o 1$n.o; rmdir x; mkdir x; echo \"#define A $n\" >x/a.h; \
         $CC -Ix -Iy -c b.c -o 2$n.o; rm -r x; $CC -Ix -Iy -c b.c -o 3$n.o; mkdir -m 0 x; done; chmod 755 x",
    ),
    case(
        "a folder loses its rights and gets them back",
        "mkdir -p x/sub; echo '#define A 3' >x/sub/a.h; echo '#include <sub/a.h>' >b.c; echo 'int f = A;' >>b.c",
        "$CC -Ix -c b.c -o 1.o; chmod 0 x; $CC -Ix -c b.c -o 2.o; chmod 755 x; $CC -Ix -c b.c -o 3.o; \
         chmod 0 x/sub; $CC -Ix -c b.c -o 4.o; chmod 711 x/sub; $CC -Ix -c b.c -o 5.o; chmod 755 x/sub",
    ),
    case("coverage", "", "$CC --coverage -frandom-seed=1 -c a.c"),
    case("split dwarf to a folder", "mkdir o", "$CC -gsplit-dwarf -g -c a.c -o o/a.o; ls o"),
    case("save-temps", "", "$CC -save-temps -c a.c"),
    case("pipe", "", "$CC -pipe -c a.c"),
    case("time report goes to stderr", "", "$CC -ftime-report -c a.c 2>/dev/null"),
    case("assembler listing", "", "$CC -Wa,-adhln=a.lst -c a.c"),
    case("assembly", "", "$CC -S a.c"),
    case("dumps", "", "$CC -O1 -fdump-tree-optimized -c a.c; ls"),
];

/// A folder of this name is a disk that is nearly full already, where the harness may mount.
const SMALL: &str = "small";
const SMALL_BYTES: u64 = 64 << 10;

/// What a case left and said.
#[derive(Debug, PartialEq, Eq)]
struct Result {
    exit: i32,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    files: Outputs,
}

/// Runs a case with the plain compiler and through the pool, in the same folder; what differs, if anything.
pub fn compare(case: &Case, compiler: &str, node: &Node) -> Outcome<Option<String>> {
    let plain = attempt(case, compiler, node)?;
    let potluck = format!("{} {compiler}", node.programs.join("potluck").display());
    let pool = attempt(case, &potluck, node)?;
    // After it: what is the same before and after, such as the second that __TIME__ shows, was the same in between.
    let again = attempt(case, compiler, node)?;
    // What the plain compiler does not repeat, such as names in /tmp, proves nothing.
    let both = |a: &[u8], b: &[u8], c: &[u8]| a == b && a != c;
    let mut what = Vec::new();
    if plain.exit != pool.exit {
        what.push(format!("exit {} instead of {}", pool.exit, plain.exit));
    }
    for (name, a, b, c) in
        [("stdout", &plain.stdout, &again.stdout, &pool.stdout), ("stderr", &plain.stderr, &again.stderr, &pool.stderr)]
    {
        if both(a, b, c) {
            what.push(format!("{name} {:?} instead of {:?}", head(c), head(a)));
        }
    }
    for path in plain.files.keys().chain(pool.files.keys()) {
        let of = |r: &Result| r.files.get(path).map(|l| (size_or_kind(&l.kind), l.kind.clone(), l.mode, l.links));
        if of(&plain) == of(&again) && of(&plain) != of(&pool) {
            let short = |r: &Result| of(r).map_or("absent".into(), |(k, _, m, l)| format!("{k} mode {m:o} links {l}"));
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            what.push(format!("{name}: {} instead of {}", short(&pool), short(&plain)));
        }
    }
    what.dedup();
    Ok((!what.is_empty()).then(|| what.join("; ")))
}

fn head(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}

fn size_or_kind(kind: &Kind) -> String {
    match kind {
        Kind::File { bytes, .. } => format!("file of {bytes} bytes"),
        Kind::Link(to) => format!("link to {}", to.display()),
        Kind::Dir => "folder".into(),
        Kind::Other => "special file".into(),
    }
}

fn attempt(case: &Case, compiler: &str, node: &Node) -> Outcome<Result> {
    let dir = base_dir()?.join("src/badinput");
    clear(&dir)?;
    Person::submitter().make_dir(&dir)?;
    let mut small = None;
    if case.prepare.contains(&format!("mkdir {SMALL};")) {
        Person::submitter().make_dir(&dir.join(SMALL))?;
        small = SmallDisk::at(&dir.join(SMALL), SMALL_BYTES, Person::submitter())?;
    }
    let prepare = case.prepare.replace(&format!("mkdir {SMALL};"), "");
    let prepared = script(&format!("{COMMON}; {prepare}"), compiler, &dir, node)?;
    if prepared.exit != 0 {
        return Err(Trouble::new(format!("{}: {}", case.name, String::from_utf8_lossy(&prepared.stderr))));
    }
    let roots = [dir.clone()];
    let seen = script(case.script, compiler, &dir, node).context(|| case.name.into())?;
    let (files, _) = Baseline::default().changes(&roots)?;
    drop(small);
    Ok(Result { exit: seen.exit, stdout: seen.stdout, stderr: seen.stderr, files })
}

fn clear(dir: &PathBuf) -> Outcome<()> {
    if dir.exists() {
        // Folders without write permission are part of some cases.
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(dir).stderr(Stdio::null()).status();
        fs::remove_dir_all(dir).context(|| format!("clearing {}", dir.display()))?;
    }
    Ok(())
}

fn script(text: &str, compiler: &str, dir: &Path, node: &Node) -> Outcome<Seen> {
    // A command that waits for ever is a difference (exit 124), not the end of the run.
    let mut command = Command::new("timeout");
    command
        .args(["-k", "5", "30", "sh", "-c", text])
        .current_dir(dir)
        .env_clear()
        .envs(node.env.iter().cloned())
        .env("CC", compiler);
    command.stdin(Stdio::null());
    node.person.adopt(&mut command);
    run(command, "sh")
}

/// A source that takes a while, between two headers that are edited meanwhile.
const SLOW: &str = "printf '#include \"a.h\"\nint a = A;\n' >e.c; printf '#define A 1\n' >a.h; printf '#define B 1\n' >b.h; \
    i=0; while [ $i -lt 300 ]; do echo \"int f$i(int x, int *p) { for (int i = 0; i < x; i++) p[i] = p[i / 2] * $i + x % (i + 3); return p[0]; }\"; \
    i=$((i+1)); done >>e.c; printf '#include \"b.h\"\nint b = B;\n' >>e.c";

/// A header edited while a compile runs: the object must be that of one moment, as if the compiler had read both headers
/// before, both after, or the first before and the second after.
pub fn edited_header(compiler: &str, node: &Node) -> Outcome<Option<String>> {
    let dir = base_dir()?.join("src/badinput");
    clear(&dir)?;
    Person::submitter().make_dir(&dir)?;
    let run = |text: &str, compiler: &str| -> Outcome<Seen> {
        let seen = script(text, compiler, &dir, node)?;
        if seen.exit == 0 { Ok(seen) } else { Err(Trouble::new(String::from_utf8_lossy(&seen.stderr).into_owned())) }
    };
    let edit = |a: u32, b: u32| format!("printf '#define A {a}\\n' >a.h; printf '#define B {b}\\n' >b.h");
    run(SLOW, compiler)?;
    let mut right = Vec::new();
    for (a, b) in [(1, 1), (1, 2), (2, 2)] {
        run(&format!("{}; $CC -O2 -c e.c", edit(a, b)), compiler)?;
        right.push(fs::read(dir.join("e.o"))?);
    }
    let potluck = format!("{} {compiler}", node.programs.join("potluck").display());
    for delay in ["0.02", "0.1", "0.4", "1"] {
        run(&format!("{}; rm -f e.o", edit(1, 1)), compiler)?;
        run(&format!("(sleep {delay}; {}) & $CC -O2 -c e.c; e=$?; wait; exit $e", edit(2, 2)), &potluck)?;
        if !right.contains(&fs::read(dir.join("e.o"))?) {
            return Ok(Some(format!("edited after {delay} s: the object is of no moment")));
        }
        // Whoever builds again gets what is there now.
        run("rm e.o; $CC -O2 -c e.c", &potluck)?;
        if fs::read(dir.join("e.o"))? != right[2] {
            return Ok(Some(format!("edited after {delay} s: the next object is not of the new headers")));
        }
    }
    Ok(None)
}

/// Another user of this machine, who has no node: the wrapper becomes the compiler and says nothing.
pub fn another_user(compiler: &str, node: &Node) -> Outcome<Option<String>> {
    let dir = base_dir()?.join("src/badinput");
    clear(&dir)?;
    Person::submitter().make_dir(&dir)?;
    script(COMMON, compiler, &dir, node)?;
    fs::create_dir(dir.join("out"))?;
    let stranger = Person::worker(20);
    stranger.own(&dir.join("out"))?;
    let socket = dir.join("node.sock");
    // A name that leads to the node's own socket, past the folder that is closed to him.
    let own = node.env.iter().find(|(k, _)| k == "XDG_RUNTIME_DIR").map(|(_, v)| v.clone()).unwrap_or_default();
    std::os::unix::fs::symlink(Path::new(&own).join("potluck/node.sock"), &socket)?;
    let mut other = Node { person: stranger, ..node.clone() };
    let mut seen = Vec::new();
    for (compiler, environment) in [
        (compiler.to_string(), None),
        (format!("{} {compiler}", node.programs.join("potluck").display()), None),
        (
            format!("{} {compiler}", node.programs.join("potluck").display()),
            Some(("POTLUCK_SOCKET".to_string(), socket.to_string_lossy().into_owned())),
        ),
    ] {
        other.env = node.env.iter().filter(|(k, _)| k != "TMPDIR").cloned().chain(environment).collect();
        let it = script("$CC -Wall -c w.c -o out/w.o; cat out/w.o; rm out/w.o", &compiler, &dir, &other)?;
        seen.push((it.exit, it.stdout, it.stderr));
    }
    let same = seen.iter().all(|s| *s == seen[0]);
    Ok((!same).then(|| format!("{:?}", seen.iter().map(|s| (s.0, head(&s.2))).collect::<Vec<_>>())))
}
