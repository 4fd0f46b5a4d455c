//! Compiles that are asked in another root than the node's: a container, a chroot, a mount namespace. The same paths are
//! other files there, so they are compiled there, and say why.

mod pool;
mod programs;
mod tree_space;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pool::{Pc, delegated, team, until};
use tree_space::Space;

/// Another `math.h` than this machine's; the source shows which it was.
const HEADER: &str = "#define WHICH \"the header of the other root\"\n";
const SOURCE: &str = "#include <math.h>\n#ifndef WHICH\n#define WHICH \"the header of the node's root\"\n#endif\nconst char *which = WHICH;\n";

/// A node that compiles nothing itself, its worker, and a project.
struct Scene {
    ann: Pc,
    _worker: Pc,
    project: PathBuf,
    header: PathBuf,
    space: Space,
}

impl Scene {
    fn new(name: &str) -> Self {
        let space = Space::new(name);
        let worker = Pc::start(&space, "worker", &["--serve", "2"]);
        let ann = Pc::start(&space, "ann", &["--serve", "0", "--local-compiles", "0"]);
        team(&worker, &[&ann]);
        let id = worker.id();
        until("slots", || ann.peer(&id).filter(|p| p["slots"] == 2));
        let (project, header) = (space.path("project"), space.path("math.h"));
        fs::create_dir_all(&project).unwrap();
        fs::write(project.join("a.c"), SOURCE).unwrap();
        fs::write(&header, HEADER).unwrap();
        ann.says(&["toolchain", "add", "/usr/bin/gcc"]);
        ann.says(&["toolchain", "sync"]);
        let scene = Self { ann, _worker: worker, project, header, space };
        assert!(scene.ann.compile(&scene.project, "a", "a.o").status.success());
        assert!(scene.ann.last_job().0, "{:?}", scene.ann.last_job());
        assert!(scene.object("the header of the node's root"));
        scene
    }

    /// Whether the object there shows this header.
    fn object(&self, which: &str) -> bool {
        let object = fs::read(self.project.join("a.o")).unwrap();
        object.windows(which.len()).any(|bytes| bytes == which.as_bytes())
    }

    /// `SCRIPT` as the first process of namespaces of its own, in which this user is root; "$@" is `potluck ARGS`.
    fn elsewhere(&self, namespaces: &[&str], script: &str, args: &[&str]) -> Output {
        let command = self.ann.command(args);
        let mut shell = Command::new("unshare");
        shell.args(["--user", "--map-root-user"]).args(namespaces).args(["sh", "-euc", script, "sh"]);
        shell.arg(command.get_program()).args(command.get_args());
        shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.env("HEADER", &self.header).env("ROOT", self.space.path("root")).current_dir(&self.project);
        shell.output().unwrap()
    }

    /// Compiles there: the object must be what the compiler there makes, and the reason must be known.
    fn compiles_there(&self, name: &str, namespaces: &[&str], script: &str) {
        fs::remove_file(self.project.join("a.o")).unwrap();
        let output = self.elsewhere(namespaces, script, &["gcc", "-O2", "-c", "a.c", "-o", "a.o"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
        assert!(self.object("the header of the other root"), "{name}: the object is of the node's root");
        assert_eq!(self.ann.last_job(), (false, "other-root".into()), "{name}");
    }
}

const OVER: &str = "mount --bind \"$HEADER\" /usr/include/math.h; exec \"$@\"";
const CHROOT: &str = "mkdir -p \"$ROOT\"; mount --rbind / \"$ROOT\"; mount --bind \"$HEADER\" \"$ROOT/usr/include/math.h\"; \
    exec /usr/sbin/chroot \"$ROOT\" sh -euc 'cd \"$0\"; exec \"$@\"' \"$PWD\" \"$@\"";

#[test]
fn what_is_asked_in_another_root_is_compiled_there_and_says_so() {
    if delegated("what_is_asked_in_another_root_is_compiled_there_and_says_so") {
        return;
    }
    let scene = Scene::new("other-root");
    let header = Path::new("/usr/include/math.h");
    assert!(header.exists() && !fs::read_to_string(header).unwrap().contains("WHICH"));
    scene.compiles_there("a mount namespace", &["--mount"], OVER);
    scene.compiles_there("a chroot", &["--mount"], CHROOT);
    scene.compiles_there("a mount and pid namespace", &["--mount", "--pid", "--fork", "--mount-proc"], OVER);
    scene.compiles_there("a pid namespace without its own /proc", &["--mount", "--pid", "--fork"], OVER);
    let no_proc = format!("mount -t tmpfs none /proc; {OVER}");
    scene.compiles_there("no /proc", &["--mount"], &no_proc);

    // What would happen is said by the same rule; a compiler is packed only by the path that it has for the node.
    let says = |args: &[&str]| {
        let output = scene.elsewhere(&["--mount"], OVER, args);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let explained = says(&["explain", "--", "/usr/bin/gcc", "-c", "a.c"]);
    assert!(explained.contains("other-root") && explained.contains("container"), "{explained}");
    let added = says(&["toolchain", "add", "/usr/bin/gcc"]);
    assert!(added.contains("another root") && added.contains("hint:"), "{added}");
    let explained = scene.ann.says(&["explain", "--", "/usr/bin/gcc", "-c", "a.c"]);
    assert!(explained.contains("can run elsewhere"), "{explained}");

    // A pid namespace alone is no other root: the same files under the same paths.
    let output = scene.elsewhere(&["--pid", "--fork"], "exec \"$@\"", &["gcc", "-O2", "-c", "a.c", "-o", "a.o"]);
    assert!(output.status.success(), "{output:?}");
    assert!(scene.ann.last_job().0, "{:?}", scene.ann.last_job());
}

#[test]
fn a_question_that_somebody_passes_on_is_not_of_the_nodes_root() {
    if delegated("a_question_that_somebody_passes_on_is_not_of_the_nodes_root") {
        return;
    }
    let scene = Scene::new("passed-on");
    let run = scene.ann.command(&[]);
    let runtime = run.get_envs().find(|(name, _)| *name == "XDG_RUNTIME_DIR").unwrap().1.unwrap();
    let node = Path::new(runtime).join("potluck/node.sock");
    // As those do who bring the socket into a container or to another machine.
    let relay = scene.space.path("r.sock");
    let listener = UnixListener::bind(&relay).unwrap();
    std::thread::spawn(move || {
        for asker in listener.incoming().flatten() {
            let there = UnixStream::connect(&node).unwrap();
            let (mut back, mut to) = (there.try_clone().unwrap(), asker.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut back, &mut to));
            pass_on(asker, there);
        }
    });
    let mut command = scene.ann.command(&["gcc", "-O2", "-c", "a.c", "-o", "a.o"]);
    let output = command.env("POTLUCK_SOCKET", &relay).current_dir(&scene.project).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(scene.ann.last_job(), (false, "other-root".into()));
}

fn pass_on(mut from: UnixStream, mut to: UnixStream) {
    let mut space = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut space) {
        to.write_all(&space[..read]).unwrap();
    }
}
