//! Builds in another root than the node's, over the node's own socket: a mount namespace with other headers, and a chroot
//! of another Debian release with another compiler. Every object must be the one that is compiled there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use potluck_tests::lab::base_dir;
use potluck_tests::person::{Person, is_root};
use potluck_tests::run::{Job, Via, run};
use potluck_tests::{Context, Lab, Outcome, Plan, Trouble};

use crate::board::{Attack, Board};
use crate::compiler::{last_record, lossy};

/// Its number: none of the threat model's table, which it follows.
pub const CASE: &str = "root";
/// Names of its attacks.
pub const NAMES: &[&str] = &["another root: mount namespace", "another root: chroot of another release"];
/// Files of each build.
const FILES: usize = 40;
/// A Debian release that this machine is not, with another compiler.
const RELEASES: [&str; 2] = ["trixie", "bookworm"];
/// The script that makes its root.
const MAKE_ROOT: &str = include_str!("../../../root.sh");

/// In the other mounts: the header that all sources include says that it is the other one.
const OTHER_HEADERS: &str = r#"
mkdir -p "$SCENE/over"
{ echo '#define SEEN "another limits.h"'; cat /usr/include/limits.h; } >"$SCENE/over/limits.h"
mount -t tmpfs none "$SCENE/space"
mkdir "$SCENE/space/up" "$SCENE/space/work"
mount -t overlay -o "lowerdir=$SCENE/over:/usr/include,upperdir=$SCENE/space/up,workdir=$SCENE/space/work" none /usr/include
exec setpriv --reuid "$OWNER" --regid "$GROUP" --clear-groups sh -euc "$BUILD"
"#;

/// In the other release, which sees the project and the node's socket under their own paths.
const OTHER_RELEASE: &str = r#"
mkdir -p "$ROOT$BASE"
mount --rbind "$BASE" "$ROOT$BASE"
mount -t proc proc "$ROOT/proc"
exec /usr/sbin/chroot --userspec="$OWNER:$GROUP" "$ROOT" /bin/sh -euc "$BUILD"
"#;

/// Each file by the compiler of that root, and by `potluck` in that root: prints how many differ.
const BUILD: &str = r#"
cd "$PROJECT"
wrong=0 failed=0
for source in *.c; do
    name=${source%.c}
    rm -f "$name.o" "$name.plain.o"
    gcc -O2 -g -c "$source" -o "$name.plain.o"
    "$POTLUCK" gcc -O2 -g -c "$source" -o "$name.o" || failed=$((failed + 1))
    cmp -s "$name.plain.o" "$name.o" || wrong=$((wrong + 1))
done
gcc --version | head -n 1
echo "WRONG $wrong FAILED $failed"
"#;

struct Scene {
    lab: Lab,
    project: PathBuf,
}

/// Both attacks.
pub fn attacks(board: &mut Board) -> Outcome<()> {
    if !NAMES.iter().any(|name| board.wants(CASE, name)) {
        return Ok(());
    }
    let scene = Scene::start()?;
    board.attack(CASE, NAMES[0], |attack| scene.other_headers(attack));
    board.attack(CASE, NAMES[1], |attack| scene.other_release(attack));
    scene.lab.check_isolation()
}

impl Scene {
    fn start() -> Outcome<Self> {
        let project = base_dir()?.join("src/roots");
        if project.exists() {
            fs::remove_dir_all(&project)?;
        }
        let person = Person::submitter();
        person.make_dir(&project)?;
        for n in 0..FILES {
            let path = project.join(format!("f{n}.c"));
            let text = format!(
                "#include <limits.h>\n#include <stdio.h>\n#ifndef SEEN\n#define SEEN \"limits.h\"\n#endif\n\
                 const char *seen{n} = SEEN __VERSION__;\nint f{n}(int a) {{ return printf(\"%s %d\", seen{n}, a * {n}); }}\n"
            );
            fs::write(&path, text)?;
            person.own(&path)?;
        }
        let lab = Lab::start(Plan::new("roots", 1, 2, std::slice::from_ref(&project)))?;
        lab.sync_toolchains(&["/usr/bin/gcc"])?;
        Ok(Self { lab, project })
    }

    /// Builds everything by `script` in mounts of its own.
    fn build(&self, attack: &mut Attack, script: &str, root: &Path) -> Outcome<()> {
        if !is_root() {
            return Err(Trouble::new("mounts of its own need root: run this as root"));
        }
        self.control(attack)?;
        let person = Person::submitter();
        let scene = self.lab.dir.join("scene");
        person.make_dir(&scene.join("space"))?;
        let before = self.lab.submitter.node.records("submitter")?.len();
        let node = &self.lab.submitter.node;
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "sh", "-euc", script]).env_clear().envs(node.env.iter().cloned());
        shell.env("POTLUCK", node.programs.join("potluck")).env("BUILD", BUILD).env("PROJECT", &self.project);
        shell.env("OWNER", person.uid.to_string()).env("GROUP", person.gid.to_string());
        shell.env("SCENE", &scene).env("BASE", base_dir()?).env("ROOT", root);
        shell.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("POTLUCK_PATIENCE_MS", "20000");
        let output = shell.output().context(|| "starting unshare".into())?;
        let said = lossy(&output.stdout);
        attack.check(output.status.success(), || format!("the build failed: {said} {}", lossy(&output.stderr)));
        let version = said.lines().next().unwrap_or_default().to_owned();
        attack.check(said.contains("WRONG 0 FAILED 0"), || format!("wrong objects or failed compiles: {said}"));
        let records = self.lab.submitter.node.records("submitter")?;
        let told = &records[before..];
        let right = told.iter().filter(|r| r["where"] == "local" && r["reason"] == "other-root").count();
        attack.check(told.len() == FILES && right == FILES, || {
            format!("{} records, {right} of them other-root, the last {:?}", told.len(), told.last())
        });
        attack.saw(format!("{FILES} files by {version}: 0 wrong, {right} say other-root"));
        self.control(attack)
    }

    /// The same project from the node's own root travels: otherwise nothing is shown.
    fn control(&self, attack: &mut Attack) -> Outcome<()> {
        let argv = ["/usr/bin/gcc", "-O2", "-g", "-c", "f0.c", "-o", "control.o"];
        let job = Job { cwd: self.project.clone(), argv: argv.map(Into::into).to_vec() };
        let seen = run(Via::Pool(&self.lab.submitter.node).command(&job), "potluck")?;
        let record = last_record(&self.lab)?;
        attack.check(seen.exit == 0 && record["where"] == "remote", || format!("it does not travel: {record}"));
        Ok(())
    }

    fn other_headers(&self, attack: &mut Attack) -> Outcome<()> {
        self.build(attack, OTHER_HEADERS, Path::new("/"))?;
        let object = fs::read(self.project.join("f1.o"))?;
        let is_other = object.windows(16).any(|bytes| bytes == b"another limits.h");
        attack.check(is_other, || "the object shows the node's header".into());
        Ok(())
    }

    fn other_release(&self, attack: &mut Attack) -> Outcome<()> {
        let own = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let release =
            RELEASES.iter().find(|release| !own.contains(**release)).context(|| "one of two is another".into())?;
        let root = base_dir()?.join(format!("root-{release}"));
        if !root.join("usr/bin/gcc").exists() {
            let script = format!("{MAKE_ROOT}\nmake_root \"$1\" \"$2\" gcc,libc6-dev \"$2.log\"");
            let made = Command::new("sh").args(["-euc", &script, "sh", release]).arg(&root).output()?;
            if !made.status.success() {
                // Half of one would be taken for a whole one next time.
                let _ = fs::remove_dir_all(&root);
                return Err(Trouble::new(format!("debootstrap {release}: {}", lossy(&made.stderr))));
            }
        }
        self.build(attack, OTHER_RELEASE, &root)
    }
}
