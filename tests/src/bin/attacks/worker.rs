//! A submitter whose only worker lies: it compiles honestly and then says something else (cases 28, 30 and 31). More lies
//! are in `lies`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use potluck_tests::hostile::{Hostile as Member, Relay, Tamper};
use potluck_tests::lab::base_dir;
use potluck_tests::person::Person;
use potluck_tests::run::{Job, Seen, Via, run};
use potluck_tests::{Context, Lab, Outcome, Plan};
use potluck_wire::pool::{self, HarvestKind, Harvested};

use crate::board::{Attack, Board, Seal};
use crate::compiler::{last_record, lossy, marks};

/// Names of its attacks.
pub const NAMES: &[&str] = &[
    "asks for files",
    "writes elsewhere",
    "lies about inputs",
    "adds files",
    "leaves files out",
    "writes for make",
    "steers the terminal",
    "sends bombs",
];

/// What is done to a dependency file.
type Edit = fn(&str) -> String;

/// A submitter and its lying worker.
pub struct Scene {
    pub lab: Lab,
    pub relay: Relay,
    pub dir: PathBuf,
    /// Object and dependency file as the plain compiler writes them, each with its mode.
    right: [(Vec<u8>, u32); 2],
    /// Reads every dependency file of the folder, as the makefiles of projects do.
    makefile: PathBuf,
    _members: [Member; 2],
}

/// All attacks of a lying worker.
pub fn attacks(board: &mut Board) -> Outcome<()> {
    let scene = Scene::start()?;
    board.attack("28", NAMES[0], |attack| scene.asks_for_files(attack));
    board.attack("30", NAMES[1], |attack| scene.writes_elsewhere(attack));
    board.attack("31", NAMES[2], |attack| scene.lies_about_inputs(attack));
    board.attack("30", NAMES[3], |attack| scene.adds_files(attack));
    board.attack("30", NAMES[4], |attack| scene.leaves_files_out(attack));
    board.attack("31", NAMES[5], |attack| scene.writes_for_make(attack));
    board.attack("30", NAMES[6], |attack| scene.steers_the_terminal(attack));
    board.attack("30", NAMES[7], |attack| scene.sends_bombs(attack));
    scene.lab.check_isolation()
}

/// The project: name, content, mode.
const FILES: &[(&str, &str, u32)] = &[
    ("main.c", "#include \"sure.h\"\n#ifdef LATER\n#include LATER\n#endif\nint main(void) { return SURE; }\n", 0o644),
    ("sure.h", "#define SURE 0\n", 0o644),
    ("other.c", "int other;\n", 0o644),
    ("asked.h", "int asked;\n", 0o644),
    ("unsent.txt", "never sent\n", 0o644),
    // What a worker would like to have.
    (".env", "LAB-SECRET\n", 0o644),
    ("secret.env", "LAB-SECRET\n", 0o600),
    (".git/config", "LAB-SECRET\n", 0o644),
    (".hidden/x.h", "LAB-SECRET\n", 0o644),
    ("private.h", "LAB-SECRET\n", 0o600),
    ("id_rsa", "LAB-SECRET\n", 0o600),
    ("tls.key", "LAB-SECRET\n", 0o644),
    ("server.pem", "LAB-SECRET\n", 0o644),
    ("private/notes.md", "LAB-SECRET\n", 0o644),
    ("private/main.c", "LAB-SECRET\n", 0o644),
    ("data.sqlite", "LAB-SECRET\n", 0o644),
    // What it would like to write over: a person's files with the source's stem.
    ("main.rs", "fn main() {}\n", 0o644),
    ("main.json", "{}\n", 0o644),
    ("main", "#!/bin/sh\n", 0o755),
    ("main.su", "a person's\n", 0o644),
    // Sources whose messages no terminal should see as they are.
    ("escape.c", "#warning \u{1b}]0;title\u{7}\u{1b}[2J\nint e;\n", 0o644),
];

fn job(dir: &Path) -> Job {
    let argv = ["/usr/bin/gcc", "-g", "-MD", "-c", "main.c", "-o", "main.o"];
    Job { cwd: dir.to_path_buf(), argv: argv.map(Into::into).to_vec() }
}

impl Scene {
    fn start() -> Outcome<Self> {
        let dir = base_dir()?.join("src/liar");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        let person = Person::submitter();
        person.make_dir(&dir.join("sub"))?;
        for folder in [".git", ".hidden", "private"] {
            person.make_dir(&dir.join(folder))?;
        }
        for (name, text, mode) in FILES {
            fs::write(dir.join(name), text)?;
            person.own(&dir.join(name))?;
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(*mode))?;
        }
        let plain = run(Via::Plain.command(&job(&dir)), "gcc")?;
        let written = |name: &str| -> Outcome<(Vec<u8>, u32)> {
            let text = fs::read(dir.join(name)).context(|| lossy(&plain.stderr))?;
            Ok((text, fs::metadata(dir.join(name))?.permissions().mode()))
        };
        let right = [written("main.o")?, written("main.d")?];
        fs::remove_file(dir.join("main.o"))?;
        fs::remove_file(dir.join("main.d"))?;

        let lab = Lab::start_apart(Plan::new("liars", 1, 2, std::slice::from_ref(&dir)))?;
        let (submitter, worker) = (&lab.submitter.node, &lab.workers[0].node);
        submitter.potluck(&["team", "create", "lab"])?;
        worker.potluck(&["team", "create", "behind"])?;
        let front = Member::join(&lab, &lab.dir.join("front"), &submitter.invite(1)?)?;
        let back = Member::join(&lab, &lab.dir.join("back"), &worker.invite(1)?)?;
        let relay = Relay::start(&front, &submitter.address, &back, &worker.address)?;
        lab.wait_for_workers(1)?;
        submitter.potluck(&["toolchain", "add", "/usr/bin/gcc"])?;
        submitter.potluck(&["toolchain", "sync"])?;
        // What no worker may see: a key, and ways that lead to it.
        let home = lab.dir.join("submitter/home");
        person.make_dir(&home.join(".ssh"))?;
        fs::write(home.join(".ssh/id_rsa"), "LAB-SECRET\n")?;
        person.own(&home.join(".ssh/id_rsa"))?;
        symlink(home.join(".ssh/id_rsa"), dir.join("notes.h"))?;
        symlink(home.join(".ssh"), dir.join("keys"))?;
        symlink(&home, dir.join("sub/link"))?;
        let makefile = lab.dir.join("all.mk");
        fs::write(&makefile, "all: ; @true\n-include $(wildcard *.d)\n")?;
        person.own(&makefile)?;
        Ok(Self { lab, relay, dir, right, makefile, _members: [front, back] })
    }

    /// One compile with the worker's answers changed like this; back to the truth afterwards.
    pub fn compile(
        &self,
        attack: &mut Attack,
        name: &str,
        tamper: Tamper,
        times: usize,
    ) -> Outcome<(Seen, serde_json::Value)> {
        let (before, sealed) = (self.relay.counts().0, Seal::put_on(std::slice::from_ref(&self.dir)));
        self.relay.tell(Some(tamper));
        let seen = run(Via::Pool(&self.lab.submitter.node).command(&job(&self.dir)), "potluck");
        self.relay.tell(None);
        let seen = seen?;
        let told = self.relay.counts().0 - before;
        attack.check(told >= times, || format!("{name}: the worker lied {told} times"));
        attack.check(seen.exit == 0, || format!("{name}: the build failed: {}", lossy(&seen.stderr)));
        for (file, (right, mode)) in ["main.o", "main.d"].into_iter().zip(&self.right) {
            let path = self.dir.join(file);
            attack.check(fs::read(&path).is_ok_and(|now| now == *right), || format!("{name}: {file} is wrong"));
            let now = fs::metadata(&path).map_or(0, |meta| meta.permissions().mode());
            attack.check(now == *mode, || format!("{name}: {file} has mode {now:o} instead of {mode:o}"));
        }
        self.make(attack, name)?;
        attack.all_wrong(sealed.broken(&self.dir, &["main.o", "main.d"])?.into_iter().map(|w| format!("{name}: {w}")));
        attack.all_wrong(self.relay.leaks().into_iter().map(|l| format!("{name}: the worker got {l}")));
        Ok((seen, last_record(&self.lab)?))
    }

    /// What a build does next: whatever `make` runs of what is there now shows in the folder.
    fn make(&self, attack: &mut Attack, name: &str) -> Outcome<()> {
        let argv = ["/usr/bin/make".into(), "-f".into(), self.makefile.clone().into_os_string(), "all".into()];
        let seen = run(Via::Plain.command(&Job { cwd: self.dir.clone(), argv: argv.to_vec() }), "make")?;
        attack.check(seen.exit == 0, || format!("{name}: make fails: {}", lossy(&seen.stderr)));
        Ok(())
    }

    /// The same, and it must end here for this reason.
    pub fn must_end_here(&self, attack: &mut Attack, name: &str, reason: &str, tamper: Tamper) -> Outcome<()> {
        let before = marks(&self.lab)?;
        let refusals = self.number("/jobs/fault_refusals")?;
        let (_, record) = self.compile(attack, name, tamper, 1)?;
        let here = record["where"] == "local" && record["reason"] == reason;
        attack.check(here, || format!("{name}: {record}"));
        let (after, now) = (marks(&self.lab)?, self.number("/jobs/fault_refusals")?);
        let expected = match reason {
            "bad-output" => (before.0 + 1, before.1),
            "fault-refused" => (before.0, before.1 + 1),
            _ => before,
        };
        attack.check(after == expected, || format!("{name}: marks {after:?} instead of {expected:?}"));
        let refused = u64::from(reason == "fault-refused");
        attack.check(now == refusals + refused, || format!("{name}: {now} refusals counted, {refusals} before"));
        Ok(())
    }

    pub fn number(&self, pointer: &str) -> Outcome<u64> {
        self.lab.submitter.node.status()?.number(pointer)
    }

    /// Told the truth, the job runs there: otherwise nothing is shown.
    pub fn control(&self, attack: &mut Attack) -> Outcome<()> {
        let (_, record) = self.compile(attack, "the truth", Box::new(|_| {}), 1)?;
        attack.check(record["where"] == "remote", || format!("the truth is not taken: {record}"));
        Ok(())
    }

    /// Case 28.
    fn asks_for_files(&self, attack: &mut Attack) -> Outcome<()> {
        self.control(attack)?;
        let home = self.lab.dir.join("submitter/home");
        let at = |path: &Path| path.to_string_lossy().into_owned();
        let up = "../".repeat(20);
        let asked = [
            at(&home.join(".ssh/id_rsa")),
            at(&home.join(".ssh")),
            at(&home),
            "/etc/shadow".into(),
            "/etc/passwd".into(),
            "/root/.ssh/id_rsa".into(),
            "/proc/self/environ".into(),
            at(&self.lab.dir.join("submitter/state/potluck/identity.pk8")),
            at(&self.dir.join("notes.h")),
            at(&self.dir.join("keys/id_rsa")),
            at(&self.dir.join("keys")),
            at(&self.dir.join("sub/link/.ssh/id_rsa")),
            at(&self.dir.join(format!("{up}etc/shadow"))),
            at(&self.dir.join("sub/../../../runs")),
            format!("/usr/include/{up}etc/passwd"),
            format!("{}/./../attack/victim.c", at(&self.dir)),
            "etc/shadow".into(),
            String::new(),
        ];
        let secrets = FILES.iter().filter(|(_, text, _)| text.contains("LAB-SECRET"));
        let asked: Vec<String> = asked.into_iter().chain(secrets.map(|(name, ..)| at(&self.dir.join(name)))).collect();
        let folders = [".git", ".hidden", "Makefile"].map(|name| at(&self.dir.join(name)));
        let asked: Vec<String> = asked.into_iter().chain(folders).collect();
        for path in &asked {
            let fault = path.clone().into_bytes();
            let tamper: Tamper = Box::new(move |result| result.faults = vec![fault.clone()]);
            self.must_end_here(attack, &format!("asked for {path:?}"), "fault-refused", tamper)?;
        }
        // A header is answered, because the source computes a name: the refusals above are not for want of an answer.
        let before = self.number("/jobs/unpredicted")?;
        let mut fault = vec![self.dir.join("asked.h").to_string_lossy().into_owned().into_bytes()];
        let tamper: Tamper = Box::new(move |result| result.faults = std::mem::take(&mut fault));
        let (_, record) = self.compile(attack, "asked.h", tamper, 2)?;
        attack
            .check(record["where"] == "remote" && record["retries"] == 1, || format!("asked.h is not given: {record}"));
        let now = self.number("/jobs/unpredicted")?;
        attack.check(now > before, || "what no scan predicted is given and not counted".into());
        attack.saw(format!("{} paths refused and counted, 1 of the project given and counted", asked.len()));
        Ok(())
    }

    /// Case 30.
    fn writes_elsewhere(&self, attack: &mut Attack) -> Outcome<()> {
        self.control(attack)?;
        let outside = self.lab.dir.join("outside");
        Person::submitter().make_dir(&outside)?;
        symlink(&outside, self.dir.join("out-link"))?;
        let file = |dir, path: &str| Harvested {
            dir,
            path: path.as_bytes().to_vec(),
            kind: HarvestKind::HarvestFile as i32,
            mode: 0o644,
            size: 4,
            content: Some(b"EVIL".to_vec()),
            raw: true,
            ..Harvested::default()
        };
        let kind = |kind: HarvestKind, path| Harvested { kind: kind as i32, content: None, size: 0, ..file(0, path) };
        let absolute = outside.join("main.o").to_string_lossy().into_owned();
        let lies = [
            ("a directory that was not asked for", file(99, "main.o")),
            ("the parent", file(0, "../main.o")),
            ("a way around", file(0, "sub/../../main.o")),
            ("an absolute path", file(0, &absolute)),
            ("no path", file(0, "")),
            ("a NUL", file(0, "main.o\0.c")),
            ("the source", file(0, "main.c")),
            ("a header", file(0, "sure.h")),
            ("another source", file(0, "other.c")),
            ("a new file", file(0, "Makefile")),
            ("behind a link", file(0, "out-link/evil.txt")),
            ("behind a link, by a likely name", file(0, "out-link/main.su")),
            ("over a link", file(0, "notes.h")),
            ("a source removed", kind(HarvestKind::HarvestDeleted, "other.c")),
            ("the own source removed", kind(HarvestKind::HarvestDeleted, "main.c")),
            ("something refused", kind(HarvestKind::HarvestRefused, "main.o")),
            ("something unknown", kind(HarvestKind::HarvestUnknown, "main.o")),
            ("what does not unpack", Harvested { raw: false, size: 1 << 40, ..file(0, "main.o") }),
        ];
        let count = lies.len();
        for (name, lie) in lies {
            let tamper: Tamper = Box::new(move |result| result.outputs.push(lie.clone()));
            self.must_end_here(attack, name, "bad-output", tamper)?;
        }
        attack.check(fs::read_dir(&outside)?.count() == 0, || "something was written outside".into());
        // Special bits do not survive; the rest of the result is honest, and taken.
        let tamper: Tamper = Box::new(|result| result.outputs.iter_mut().for_each(|o| o.mode |= 0o7000));
        let (_, record) = self.compile(attack, "special bits", tamper, 1)?;
        attack.check(record["where"] == "remote", || format!("special bits: {record}"));
        attack.saw(format!("{count} results refused, run here, worker marked"));
        Ok(())
    }

    /// Case 31.
    fn lies_about_inputs(&self, attack: &mut Attack) -> Outcome<()> {
        self.control(attack)?;
        let list = |change: Edit| -> Tamper {
            Box::new(move |result: &mut pool::Result| {
                for output in result.outputs.iter_mut().filter(|o| o.path.ends_with(b".d")) {
                    let text = potluck_node::core_content::inline(output).unwrap_or_default();
                    let text = change(&String::from_utf8_lossy(&text));
                    (output.size, output.raw, output.content) = (text.len() as u64, true, Some(text.into_bytes()));
                }
            })
        };
        let lies: [(&str, &str, Edit); 6] = [
            ("hides a header", "bad-output", |d| d.replace(" sure.h", "")),
            ("hides the source", "bad-output", |d| d.replace(" main.c", "")),
            ("hides all", "bad-output", |_| "main.o:\n".into()),
            ("names a file of the system", "bad-output", |d| d.replace(" sure.h", " sure.h /etc/passwd")),
            ("names a file that was not sent", "bad-output", |d| d.replace(" sure.h", " sure.h unsent.txt")),
            // It could have been there while the job ran: tried again, then run here, and nobody is blamed.
            ("names what does not exist", "input-changed", |d| d.replace(" sure.h", " sure.h /nowhere/x.h")),
        ];
        for (name, reason, change) in lies {
            self.must_end_here(attack, name, reason, list(change))?;
        }
        attack.saw(format!("{} lists found to be wrong", lies.len()));
        let mode = fs::metadata(self.dir.join("main.c"))?.permissions().mode();
        attack.check(mode & 0o7000 == 0, || "the source has special bits".into());
        self.control(attack)
    }
}
