//! A worker whose results look right and are not: signed, of the right size, with one byte of the code changed; and honest
//! workers whose compiles differ by nature (cases 16, 17, 18 and 19).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use potluck_model::ids::NodeId;
use potluck_model::limits::SAMPLE_FIRST;
use potluck_node::core_content;
use potluck_tests::hostile::{Hostile as Member, Relay, Tamper};
use potluck_tests::lab::base_dir;
use potluck_tests::node::Node;
use potluck_tests::person::Person;
use potluck_tests::run::{Job, Seen, Via, run, run_all};
use potluck_tests::wait::wait_until;
use potluck_tests::{Context, Lab, Outcome, Plan, Trouble};
use potluck_wire::pool::{self, frame::Kind};
use serde_json::Value;

use crate::board::{Attack, Board};
use crate::compiler::lossy;

/// Its attacks.
pub const NAMES: &[(&str, &str)] = &[
    ("16", "wrong objects"),
    ("17", "a wrong object of one file"),
    ("18", "honest and not deterministic"),
    ("19", "false evidence"),
];

/// Sources of the project.
const SOURCES: usize = 8;
/// A verdict takes some compiles at the lowest priority, once nothing else was asked for some seconds.
const JUDGED_WITHIN: Duration = Duration::from_secs(240);

struct Scene {
    lab: Lab,
    relay: Option<Relay>,
    has_honest: bool,
    front: Member,
    back: Member,
    dir: PathBuf,
}

/// All of them, in an order in which each finds what it needs.
pub fn attacks(board: &mut Board) -> Outcome<()> {
    let mut scene = Scene::start()?;
    board.attack(NAMES[0].0, NAMES[0].1, |attack| scene.wrong_objects(attack));
    board.attack(NAMES[1].0, NAMES[1].1, |attack| scene.one_file(attack));
    board.attack(NAMES[2].0, NAMES[2].1, |attack| scene.not_deterministic(attack));
    board.attack(NAMES[3].0, NAMES[3].1, |attack| scene.false_evidence(attack));
    scene.lab.check_isolation()
}

/// Changes one byte in the middle of the code of every object: it links, and does something else.
fn one_byte() -> Tamper {
    Box::new(|result: &mut pool::Result| {
        for output in result.outputs.iter_mut().filter(|o| o.path.ends_with(b".o")) {
            let Some(mut object) = core_content::inline(output) else { continue };
            // The sources hold this text in .rodata.
            if let Some(at) = object.windows(6).position(|w| w == b"answer") {
                object[at] ^= 1;
            }
            (output.size, output.raw, output.content) = (object.len() as u64, true, Some(object));
        }
    })
}

fn job(dir: &Path, options: &[&str], source: &str, object: &str) -> Job {
    let argv = [&["/usr/bin/gcc", "-O2", "-g"][..], options, &["-c", source, "-o", object]].concat();
    Job { cwd: dir.to_path_buf(), argv: argv.into_iter().map(Into::into).collect() }
}

impl Scene {
    fn start() -> Outcome<Self> {
        let dir = base_dir()?.join("src/plausible");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        let person = Person::submitter();
        person.make_dir(&dir)?;
        for n in 0..SOURCES {
            let text =
                format!("const char *f{n}(void) {{ return \"answer {n}\"; }}\nint g{n}(int a) {{ return a * {n}; }}\n");
            fs::write(dir.join(format!("s{n}.c")), text)?;
            person.own(&dir.join(format!("s{n}.c")))?;
        }
        fs::write(dir.join("time.c"), "const char *when = __TIME__;\n")?;
        person.own(&dir.join("time.c"))?;
        let lab = Lab::start_apart(Plan::new("plausible", 3, 2, std::slice::from_ref(&dir)))?;
        let (submitter, worker) = (&lab.submitter.node, &lab.workers[0].node);
        submitter.potluck(&["team", "create", "lab"])?;
        worker.potluck(&["team", "create", "behind"])?;
        let front = Member::join(&lab, &lab.dir.join("front"), &submitter.invite(1)?)?;
        let back = Member::join(&lab, &lab.dir.join("back"), &worker.invite(1)?)?;
        submitter.potluck(&["toolchain", "add", "/usr/bin/gcc"])?;
        Ok(Self { lab, relay: None, has_honest: false, front, back, dir })
    }

    fn submitter(&self) -> &Node {
        &self.lab.submitter.node
    }

    /// The liar comes (again).
    fn liar_comes(&mut self, serving: usize) -> Outcome<()> {
        self.relay = None;
        self.relay = Some(Relay::start(
            &self.front,
            &self.lab.submitter.node.address,
            &self.back,
            &self.lab.workers[0].node.address,
        )?);
        self.lab.wait_for_workers(serving)?;
        self.submitter().potluck(&["toolchain", "sync"]).map(|_| ())
    }

    /// The honest workers join, once.
    fn honest_come(&mut self) -> Outcome<()> {
        if !std::mem::replace(&mut self.has_honest, true) {
            let link = self.submitter().invite(2)?;
            for worker in &self.lab.workers[1..] {
                worker.node.potluck(&["team", "join", &link])?;
                self.submitter().potluck(&["peers", "add", &worker.node.address])?;
            }
        }
        self.submitter().potluck(&["toolchain", "sync"]).map(|_| ())
    }

    /// Everybody is there and gets jobs, the liar too.
    fn all_come(&mut self) -> Outcome<()> {
        self.honest_come()?;
        if self.is_aside()? {
            self.submitter().potluck(&["audit", "forgive", &self.front.id().to_string()])?;
        }
        self.liar_comes(3)
    }

    fn relay(&self) -> Outcome<&Relay> {
        self.relay.as_ref().context(|| "no liar is there".into())
    }

    fn audit(&self) -> Outcome<Value> {
        let text = self.submitter().potluck(&["audit", "--json"])?;
        serde_json::from_str(&text).map_err(|e| Trouble::new(format!("{e}: {text}")))
    }

    /// Compiles every source, all at once, so that every worker gets some; what the submitter notes of each.
    fn build(&self, attack: &mut Attack, trust: &str, options: &[&str]) -> Outcome<Vec<Value>> {
        self.submitter().potluck(&["config", "set", "trust", trust])?;
        let jobs: Vec<Job> =
            (0..SOURCES).map(|n| job(&self.dir, options, &format!("s{n}.c"), &format!("s{n}.o"))).collect();
        let seen = run_all(Via::Pool(self.submitter()), &jobs, SOURCES, &|_| {});
        self.submitter().potluck(&["config", "set", "trust", "normal"])?;
        for (n, seen) in seen?.iter().enumerate() {
            attack.check(seen.exit == 0, || format!("s{n}.o: {}", lossy(&seen.stderr)));
        }
        let records = self.submitter().records("submitter")?;
        Ok(records[records.len().saturating_sub(SOURCES)..].to_vec())
    }

    fn compile(&self, trust: &str, options: &[&str], source: &str, object: &str) -> Outcome<Seen> {
        let mut command = Via::Pool(self.submitter()).command(&job(&self.dir, options, source, object));
        command.env("POTLUCK_TRUST", trust);
        run(command, "potluck")
    }

    /// Objects that are not what the plain compiler makes.
    fn wrong(&self, options: &[&str]) -> Outcome<Vec<String>> {
        let mut wrong = Vec::new();
        for n in 0..SOURCES {
            let (object, kept) = (self.dir.join(format!("s{n}.o")), self.dir.join("kept.o"));
            let got = fs::read(&object).unwrap_or_default();
            // At its own place: its name may be part of it.
            let meta = fs::metadata(&object).and_then(|m| m.modified());
            let _ = fs::rename(&object, &kept);
            run(Via::Plain.command(&job(&self.dir, options, &format!("s{n}.c"), &format!("s{n}.o"))), "gcc")?;
            if fs::read(&object)? != got {
                wrong.push(format!("s{n}.o"));
            }
            if kept.exists() {
                fs::rename(&kept, &object)?;
                if let Ok(time) = meta {
                    fs::File::options().append(true).open(&object)?.set_modified(time)?;
                }
            }
        }
        Ok(wrong)
    }

    /// Waits until the liar is put aside; how many results had been compared by then.
    fn judged(&self) -> Outcome<u64> {
        let id = self.front.id().to_string();
        let mut seen = Value::Null;
        let judged = wait_until("a verdict", JUDGED_WITHIN, || {
            seen = self.audit()?;
            let found = seen["findings"].as_array().is_some_and(|all| all.iter().any(|f| f["peer"] == id));
            Ok(found.then(|| seen["counts"]["compared"].as_u64().unwrap_or(0)))
        });
        judged.context(|| format!("{seen}"))
    }

    fn is_aside(&self) -> Outcome<bool> {
        let id = self.front.id().to_string();
        let audit = self.audit()?;
        let peers = audit["peers"].as_array().cloned().unwrap_or_default();
        Ok(peers.iter().any(|peer| peer["id"] == id && peer["quarantine"].is_object()))
    }

    /// Case 16.
    fn wrong_objects(&mut self, attack: &mut Attack) -> Outcome<()> {
        self.liar_comes(1)?;
        self.relay()?.tell(Some(one_byte()));
        let records = self.build(attack, "normal", &[])?;
        let remote = records.iter().filter(|record| record["where"] == "remote").count();
        let wrong = self.wrong(&[])?;
        attack.check(remote == SOURCES && wrong.len() == SOURCES, || {
            format!("the liar was not believed at first: {remote} remote, wrong {wrong:?}: {records:?}")
        });
        // One of them is made anew by the person meanwhile.
        let own = run(Via::Plain.command(&job(&self.dir, &["-DOWN"], "s7.c", "s7.o")), "gcc")?;
        attack.check(own.exit == 0, || lossy(&own.stderr));
        // Somebody honest comes, and compares.
        self.honest_come()?;
        let compared = self.judged()?;
        attack.check(compared <= 1, || format!("{compared} results were compared, 1 was expected to do"));
        attack.check(self.is_aside()?, || "the liar is not put aside".into());
        let finding = self.audit()?["findings"][0].clone();
        let files = finding["files"].as_array().cloned().unwrap_or_default();
        let listed = files.iter().filter(|f| f["state"] == "as-made").count();
        attack.check(listed == SOURCES - 1 && files.len() == SOURCES, || format!("listed: {finding}"));
        let problems = self.submitter().status()?.0["problems"].to_string();
        attack.check(problems.contains("gave a wrong result"), || format!("no problem is shown: {problems}"));
        self.gets_nothing(attack)?;
        self.rebuilt(attack)?;
        self.told_others(attack)?;
        attack.saw(format!("caught by comparison {compared} of an expected 1 (all of the first {SAMPLE_FIRST} are compared), {listed} files listed and removed"));
        Ok(())
    }

    /// No job goes to the liar any more.
    fn gets_nothing(&self, attack: &mut Attack) -> Outcome<()> {
        let before = self.relay()?.counts().1;
        let records = self.build(attack, "normal", &["-DAGAIN"])?;
        let id = self.front.id().to_string();
        attack.check(records.iter().all(|record| record["worker"] != id), || format!("{records:?}"));
        let told = self.relay()?.counts().1 - before;
        attack.check(told == 0, || format!("the liar was asked {told} times after the verdict"));
        Ok(())
    }

    /// What came from it goes, and nothing else; the next build is right.
    fn rebuilt(&mut self, attack: &mut Attack) -> Outcome<()> {
        // All objects were made again just now, by others: nothing may be removed any more.
        let answer = self.rebuild()?;
        attack.check(answer["removed"].as_array().is_some_and(Vec::is_empty), || {
            format!("files of others were removed: {answer}")
        });
        self.all_come()?;
        self.relay()?.tell(Some(one_byte()));
        // It is a new peer now, and gets its part of the jobs.
        let mut lied = 0;
        for round in 0..20 {
            let before = self.relay()?.counts().0;
            self.build(attack, "normal", &[&format!("-DROUND={round}")])?;
            lied += self.relay()?.counts().0 - before;
            if lied > 0 || self.is_aside()? {
                break;
            }
        }
        attack.check(lied > 0, || "the liar was asked for nothing".into());
        self.judged_again()?;
        let wrong = self.audit()?["findings"][0].clone();
        let answer = self.rebuild()?;
        let removed = answer["removed"].as_array().cloned().unwrap_or_default();
        attack.check(!removed.is_empty(), || format!("nothing was removed: {answer} of {wrong}"));
        for path in removed.iter().filter_map(Value::as_str) {
            attack.check(!Path::new(path).exists(), || format!("{path} is still there"));
        }
        self.build(attack, "normal", &[])?;
        let wrong = self.wrong(&[])?;
        attack.check(wrong.is_empty(), || format!("wrong after the rebuild: {wrong:?}"));
        Ok(())
    }

    fn judged_again(&self) -> Outcome<()> {
        wait_until("a second verdict", JUDGED_WITHIN, || Ok(self.is_aside()?.then_some(())))
    }

    fn rebuild(&self) -> Outcome<Value> {
        let text = self.submitter().potluck(&["audit", "rebuild", "--json"])?;
        serde_json::from_str(&text).map_err(|e| Trouble::new(format!("{e}: {text}")))
    }

    /// The other members know what was found, and believe one member no more than that.
    fn told_others(&self, attack: &mut Attack) -> Outcome<()> {
        let id = self.front.id().to_string();
        for worker in &self.lab.workers[1..] {
            let text = worker.node.potluck(&["audit", "--json"])?;
            let audit: Value = serde_json::from_str(&text).map_err(|e| Trouble::new(e.to_string()))?;
            let peers = audit["peers"].as_array().cloned().unwrap_or_default();
            let told = peers.iter().any(|p| p["id"] == id && p["accusers"] == 1 && p["quarantine"].is_null());
            attack.check(told, || format!("{}: {audit}", worker.node.name));
        }
        Ok(())
    }

    /// Case 17: what a sample may miss, two peers do not, and a release never asks.
    fn one_file(&mut self, attack: &mut Attack) -> Outcome<()> {
        self.all_come()?;
        self.relay()?.tell(Some(one_byte()));
        let before = self.relay()?.counts();
        let records = self.build(attack, "release", &["-DRELEASE"])?;
        let here = records.iter().all(|r| r["where"] == "local" && r["reason"] == "trust-release");
        attack.check(here, || format!("release: {records:?}"));
        attack.check(self.relay()?.counts() == before, || "release: the liar was asked".into());
        // A command asks for more care than the settings do.
        let seen = self.compile("release", &["-DONE"], "s0.c", "s0.o")?;
        let record = crate::compiler::last_record(&self.lab)?;
        attack.check(seen.exit == 0 && record["reason"] == "trust-release", || format!("by environment: {record}"));
        let (mut lied, mut agreed, mut differed) = (0, 0, 0);
        for round in 0..8 {
            let options = format!("-DCAREFUL={round}");
            let before = self.relay()?.counts().0;
            let records = self.build(attack, "careful", &[&options])?;
            let wrong = self.wrong(&[&options])?;
            attack.check(wrong.is_empty(), || format!("careful: wrong {wrong:?}: {records:?}"));
            lied += self.relay()?.counts().0 - before;
            agreed += records.iter().filter(|r| r["where"] == "remote").count();
            differed += records.iter().filter(|r| r["reason"] == "trust-differs").count();
            if lied > 0 && agreed > 0 {
                break;
            }
        }
        attack.check(lied > 0, || "careful: the liar was never asked".into());
        attack.check(agreed > 0, || "careful: nothing was ever used".into());
        self.judged_again()?;
        attack.saw(format!("release: never asked; careful: {lied} lies, none used, {differed} compiled here, {agreed} agreed; then put aside"));
        Ok(())
    }

    /// Case 18.
    fn not_deterministic(&mut self, attack: &mut Attack) -> Outcome<()> {
        self.honest_come()?;
        if let Some(relay) = &self.relay {
            relay.tell(None);
        }
        let before = self.audit()?;
        for options in [&["-flto"][..], &["--coverage"], &["-fdump-rtl-expand"]] {
            self.build(attack, "normal", options)?;
        }
        for n in 0..4 {
            let seen = self.compile("normal", &[&format!("-DT={n}")], "time.c", "time.o")?;
            attack.check(seen.exit == 0, || lossy(&seen.stderr));
        }
        let mut seen = Value::Null;
        let over = wait_until("all samples to be compared", JUDGED_WITHIN, || {
            seen = self.audit()?;
            Ok((seen["waiting"] == 0 && seen["running"] == false).then_some(()))
        });
        over.context(|| format!("{seen}"))?;
        let (was, is) = (&before["findings"], &seen["findings"]);
        attack.check(was == is, || format!("somebody was blamed: {is}"));
        let number = |audit: &Value, name: &str| audit["counts"][name].as_u64().unwrap_or(0);
        let [compared, natural] = ["compared", "not_deterministic"].map(|n| number(&seen, n) - number(&before, n));
        attack.check(natural > 0, || format!("nothing was found to differ by nature: {seen}"));
        attack.saw(format!("{compared} compared, {natural} of them differ by nature, nobody blamed"));
        Ok(())
    }

    /// Case 19.
    fn false_evidence(&mut self, attack: &mut Attack) -> Outcome<()> {
        self.honest_come()?;
        let victim: NodeId = status_id(&self.lab.workers[2].node)?;
        let judge = &self.lab.workers[1].node;
        self.front.catch_up(&self.submitter().address)?;
        let wire = self.front.dial(&judge.address)?;
        let job = pool::Job { argv: vec![b"gcc".to_vec()], ..pool::Job::default() };
        let mut own = pool::Result { end: pool::EndKind::EndExited as i32, ..pool::Result::default() };
        self.front.signer().sign(self.front.id(), potluck_node::signed::asked(&job), &mut own);
        let told = |result: pool::Result| {
            wire.say(Kind::Evidence(Box::new(pool::Evidence { job: Some(job.clone()), result: Some(result) })));
        };
        let mut forged = own.clone();
        if let Some(signed) = &mut forged.signed {
            signed.key = victim.0.to_vec();
        }
        let mut unsigned = own.clone();
        unsigned.signed = None;
        [forged, unsigned, own].into_iter().for_each(told);
        let id = self.front.id().to_string();
        let noted = wait_until("false words to be noted", Duration::from_secs(30), || {
            let status = judge.status()?.0;
            let peers = status["peers"].as_array().cloned().unwrap_or_default();
            let words = peers.iter().find(|p| p["id"] == id).and_then(|p| p["marks"]["false_word"].as_u64());
            let text = judge.potluck(&["audit", "--json"])?;
            let audit: Value = serde_json::from_str(&text).map_err(|e| Trouble::new(e.to_string()))?;
            let ignored = audit["counts"]["evidence_ignored"].as_u64().unwrap_or(0);
            Ok((ignored >= 3).then_some((words, audit)))
        })?;
        let blamed = noted.1["findings"].as_array().is_some_and(|f| !f.is_empty());
        let victim = victim.to_string();
        let doubted = noted.1["peers"].as_array().cloned().unwrap_or_default();
        let doubted = doubted.iter().any(|p| p["id"] == victim && (p["doubtful"] == true || p["accusers"] != 0));
        attack.check(!blamed && !doubted, || format!("it was believed: {}", noted.1));
        attack.saw("3 forged words ignored, and noted against who said them");
        Ok(())
    }
}

fn status_id(node: &Node) -> Outcome<NodeId> {
    let status = node.status()?.0;
    let id = status["node"]["id"].as_str().unwrap_or_default();
    id.parse().map_err(|_| Trouble::new(format!("no id: {status}")))
}
