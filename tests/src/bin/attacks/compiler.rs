//! A hostile member sends a compiler of its own: what it may do on a worker, and what it leaves (cases 9 to 12, 15).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use potluck_tests::hostile::program;
use potluck_tests::lab::base_dir;
use potluck_tests::person::Person;
use potluck_tests::run::{Job, Seen, Via, run, run_all};
use potluck_tests::wait::wait_until;
use potluck_tests::{Context, Lab, Outcome, Trouble, remains};
use serde_json::Value;

use crate::board::{self, Attack, Board, Seal, check_remains};

/// A program that spins has as many processes, and one.
const SPINNERS: usize = 16;
/// A worker on a busy machine has started a job by then.
const STARTED_WITHIN: Duration = Duration::from_secs(20);
/// What the owner's programs must get of each core beside jobs without end, of what they get without them in the same
/// run: 98 % by the weights of their sessions. Beside jobs with sessions of their own it is a third, or nothing.
const OWNER_SHARE_MIN: f64 = 0.90;

/// Case, name, and what must come of it.
const ATTACKS: &[(&str, &str, Expect)] = &[
    ("9", "read", Expect::Object),
    ("9", "ask", Expect::Refused),
    ("10", "net", Expect::Object),
    ("10", "channel", Expect::Object),
    ("11", "memory", Expect::Remote),
    ("11", "memory-of-all", Expect::Limit),
    ("11", "forks", Expect::Remote),
    ("11", "big-file", Expect::Remote),
    ("11", "huge-file", Expect::Limit),
    ("11", "stderr", Expect::Limit),
    ("11", "daemons", Expect::Object),
    ("11", "spin", Expect::Limit),
    ("12", "outputs", Expect::BadOutput),
    ("12", "many-files", Expect::Limit),
    ("15", "escape", Expect::Object),
    ("15", "sweep", Expect::Object),
    ("11", "counts", Expect::Object),
    ("11", "pipes", Expect::Limit),
    ("9", "names", Expect::Object),
];
/// Call numbers that are swept: the kernel's own end below 500 so far.
const SWEPT: u32 = 1024;
/// What the filter must not let through, whatever else it does not.
const MUST_SWEEP: &[&str] = &[
    "setns",
    "unshare",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "keyctl",
    "add_key",
    "request_key",
    "open_by_handle_at",
    "fsopen",
    "fsmount",
    "move_mount",
    "open_tree",
    "kexec_load",
    "init_module",
    "finit_module",
    "delete_module",
    "reboot",
    "swapon",
    "swapoff",
    "socket",
    "shmget",
    "msgget",
    "semget",
    "mq_open",
    "settimeofday",
    "clock_settime",
    "pidfd_getfd",
    "mknodat",
    "vmsplice",
];
/// Calls that x86-64 never asks a filter about: from anywhere but a probe of root's they kill the caller.
const UNFILTERED: &[u32] = if cfg!(target_arch = "x86_64") { &[335, 336] } else { &[] };

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    /// The job ends as if nothing had been tried.
    Object,
    /// A limit makes the calls fail, and the job goes on or is stopped.
    Remote,
    /// What it asks for is not given; the job runs at the submitter.
    Refused,
    /// Its outputs are not taken; the job runs at the submitter.
    BadOutput,
    /// A limit stops it; the submitter is told which, and the job runs there, once.
    Limit,
}

/// What an attack that counts its attempts has tried at least.
const TRIED_MIN: usize = 15;

/// A project of the submitter with a compiler that nobody should trust.
pub struct Hostile {
    /// As the submitter names it.
    pub compiler: PathBuf,
    /// The same, without libraries.
    pub alone: PathBuf,
    /// The project.
    pub dir: PathBuf,
    /// How many numbers must not reach the kernel.
    calls: usize,
}

impl Hostile {
    /// Builds it as the submitter.
    pub fn build() -> Outcome<Self> {
        let calls = filter_table()?;
        let lines: Vec<String> =
            calls.iter().map(|(name, number, errno)| format!("{{\"{name}\", {number}, {errno}}},")).collect();
        let (compiler, alone) = program::build(&lines)?;
        let dir = base_dir()?.join("src/attack");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        Person::submitter().make_dir(&dir.join("out"))?;
        // What another submitter must never see: its own jobs may.
        fs::write(dir.join("victim.h"), "/* LAB-SECRET of the submitter */\nextern int victim;\n")?;
        fs::write(dir.join("victim.c"), "#include \"victim.h\"\nint victim;\n")?;
        fs::write(dir.join("out/victim.c"), "int other;\n")?;
        Person::submitter().own(&dir.join("out/victim.c"))?;
        Ok(Self { compiler, alone, dir, calls: calls.len() })
    }

    /// A compile with it.
    pub fn job(&self, attack: &str, object: &str) -> Job {
        let argv = [self.compiler.to_string_lossy().into_owned(), format!("-DATTACK={attack}"), "-c".into()];
        let rest = ["victim.c".to_owned(), "-o".into(), format!("out/{object}")];
        Job { cwd: self.dir.clone(), argv: argv.into_iter().chain(rest).map(Into::into).collect() }
    }

    /// Runs one through the pool.
    pub fn compile(&self, lab: &Lab, attack: &str) -> Outcome<Seen> {
        run(Via::Pool(&lab.submitter.node).command(&self.job(attack, "victim.o")), "potluck")
    }

    /// An ordinary compile must work, and elsewhere.
    pub fn check_pool(&self, attack: &mut Attack, lab: &Lab) -> Outcome<()> {
        let after = self.compile(lab, "none")?;
        let last = last_record(lab)?;
        attack.check(after.exit == 0 && last["where"] == "remote", || {
            format!("the pool does not work afterwards: exit {}, {last}", after.exit)
        });
        Ok(())
    }

    fn seal(&self) -> Outcome<Seal> {
        Ok(Seal::put_on(&[self.compiler.parent().context(|| "it has one".into())?.to_path_buf(), self.dir.clone()]))
    }
}

/// Every number that must not reach the kernel, by the runner's own word: name, number, error.
fn filter_table() -> Outcome<Vec<(String, u32, &'static str)>> {
    let runner = potluck_tests::lab::built_programs()?.join("potluck-runner");
    let listed = std::process::Command::new(&runner).arg("calls").output()?;
    let text = String::from_utf8_lossy(&listed.stdout);
    let mut listed = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split('\t');
        let (number, name, answer) = (fields.next(), fields.next(), fields.next());
        let number: u32 = number.and_then(|n| n.parse().ok()).context(|| format!("{line}: no call"))?;
        listed.insert(number, (name.unwrap_or_default().to_owned(), answer.unwrap_or_default().to_owned()));
    }
    if let Some(absent) =
        MUST_SWEEP.iter().find(|must| !listed.values().any(|(name, to)| name == *must && to == "EPERM"))
    {
        return Err(Trouble::new(format!("the filter does not refuse {absent}")));
    }
    let swept = (0..SWEPT).filter(|number| !UNFILTERED.contains(number));
    let calls = swept.filter_map(|number| match listed.get(&number) {
        None => Some((format!("call {number}"), number, "ENOSYS")),
        Some((name, answer)) if answer == "EPERM" => Some((name.clone(), number, "EPERM")),
        Some(_) => None,
    });
    Ok(calls.collect())
}

/// All attacks of the compiler.
pub fn attacks(board: &mut Board, lab: &Lab, hostile: &Hostile) -> Outcome<()> {
    let before = remains::before(lab);
    for (case, name, expect) in ATTACKS {
        board.attack(case, name, |attack| one(attack, lab, hostile, name, *expect, &before));
    }
    Ok(())
}

fn one(
    attack: &mut Attack,
    lab: &Lab,
    hostile: &Hostile,
    name: &str,
    expect: Expect,
    before: &remains::Before,
) -> Outcome<()> {
    let sealed = hostile.seal()?;
    let records = lab.submitter.node.records("submitter")?.len();
    let marks = marks(lab)?;
    let seen = match name {
        // Two jobs at a time, so that one could hear the other.
        "channel" => {
            let jobs = [hostile.job(name, "one.o"), hostile.job(name, "two.o")];
            let seen = run_all(Via::Pool(&lab.submitter.node), &jobs, 2, &|_| {})?;
            let ran = seen.iter().filter(|s| lossy(&s.stdout).contains("ATTACKING")).count();
            attack.check(ran == 2, || {
                let records = lab.submitter.node.records("submitter").unwrap_or_default();
                format!("{ran} of 2 jobs ran on the worker: {:?}", &records[records.len().saturating_sub(2)..])
            });
            Seen { stdout: seen.iter().flat_map(|s| s.stdout.clone()).collect(), ..seen[0].clone() }
        }
        // Its limit is ten minutes of CPU: time enough to see what is left for the owner.
        "spin" => {
            let (node, job) = (&lab.submitter.node, hostile.job(name, "victim.o"));
            // What the machine under this one takes is taken before, beside and after alike.
            let before = board::owner_share();
            std::thread::scope(|threads| {
                let compile = threads.spawn(move || run(Via::Pool(node).command(&job), "potluck"));
                wait_until("the job's start", STARTED_WITHIN, || {
                    Ok((lab.workers[0].named("gcc").len() > SPINNERS).then_some(()))
                })?;
                let beside = board::owner_share();
                let seen = compile.join().map_err(|_| Trouble::new("the compile panicked"))?;
                let without = (before + board::owner_share()) / 2.0;
                let text =
                    format!("the owner had {:.1} % of each core, {:.1} % without it", beside * 100.0, without * 100.0);
                attack.check(beside >= without * OWNER_SHARE_MIN, || text.clone());
                attack.saw(text);
                seen
            })?
        }
        _ => hostile.compile(lab, name)?,
    };
    let said = lossy(&seen.stdout);
    let all = lab.submitter.node.records("submitter")?;
    let record = all.last().cloned().unwrap_or_default();
    let (place, reason) = (record["where"].as_str().unwrap_or("?"), record["reason"].as_str().unwrap_or(""));
    let note = record["note"].as_str().unwrap_or_default();
    attack.saw(format!("{place} {reason} {note}").trim().to_owned());
    attack.all_wrong(said.lines().filter(|l| l.starts_with("LEAK")).map(String::from));
    attack.check(seen.exit == 0, || format!("the build failed with {}: {}", seen.exit, lossy(&seen.stderr)));
    let jobs = if name == "channel" { 2 } else { 1 };
    attack.check(all.len() == records + jobs, || format!("{} records of {jobs} jobs", all.len() - records));
    let ran = said.contains("ATTACKING");
    match expect {
        Expect::Object => attack.check(ran && place == "remote", || format!("it never ran on the worker: {record}")),
        Expect::Remote => attack
            .check((ran && place == "remote") || (reason == "limit-hit" && note.contains("limit of")), || {
                format!("neither an object nor a limit: {record}")
            }),
        Expect::Refused => attack.check(reason == "fault-refused", || format!("not refused: {record}")),
        Expect::BadOutput => attack.check(reason == "bad-output", || format!("outputs were taken: {record}")),
        Expect::Limit => attack
            .check((reason == "limit-hit" || reason == "timeout") && note.contains("limit of"), || {
                format!("the submitter is not told of a limit: {record}")
            }),
    }
    // Whom it was done to knows who did it.
    let now = crate::compiler::marks(lab)?;
    let expected = match expect {
        Expect::BadOutput => (marks.0 + 1, marks.1),
        Expect::Refused => (marks.0, marks.1 + 1),
        _ => marks,
    };
    attack.check(now == expected, || format!("marks (bad output, refused faults) {now:?} instead of {expected:?}"));
    match name {
        "sweep" => {
            let swept = said.lines().find_map(|l| l.strip_prefix("SWEPT ")?.parse::<usize>().ok());
            let reach = SWEPT as usize - hostile.calls;
            attack.saw(format!(
                "of {SWEPT} numbers {reach} reach the kernel; {} answer as they must",
                swept.unwrap_or(0)
            ));
            attack.check(swept == Some(hostile.calls), || format!("swept {swept:?} of {} calls", hostile.calls));
        }
        "escape" | "counts" | "names" => {
            let tried = said.lines().find_map(|l| l.strip_prefix("TRIED ")?.parse::<usize>().ok());
            attack.saw(format!("{} ways", tried.unwrap_or(0)));
            attack.check(tried.is_some_and(|n| n >= TRIED_MIN), || "it did not try everything".into());
        }
        _ => {}
    }
    attack.all_wrong(sealed.broken(&hostile.dir.join("out"), &["victim.o", "one.o", "two.o"])?);
    check_remains(attack, lab, before)?;
    hostile.check_pool(attack, lab)
}

/// What the submitter has against its first serving peer: bad outputs, refused faults.
pub fn marks(lab: &Lab) -> Outcome<(u64, u64)> {
    let status = lab.submitter.node.status()?.0;
    let peers = status["peers"].as_array().cloned().unwrap_or_default();
    let marks = peers.iter().find(|p| p["slots"].as_u64() > Some(0)).map(|p| p["marks"].clone());
    let marks = marks.context(|| "no serving peer".into())?;
    let number = |name: &str| marks[name].as_u64().context(|| format!("status has no marks: {status}"));
    Ok((number("bad_output")?, number("fault_refused")?))
}

/// The submitter's record of its last job.
pub fn last_record(lab: &Lab) -> Outcome<Value> {
    Ok(lab.submitter.node.records("submitter")?.pop().unwrap_or_default())
}

/// Things of the worker's owner that no job may see.
pub fn plant_secrets(lab: &Lab) -> Outcome<()> {
    for worker in &lab.workers {
        let secret = worker.state.join("lab-secret");
        fs::write(&secret, "LAB-SECRET\n")?;
        worker.node.person.own(&secret)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).context(|| "planting a secret".into())?;
    }
    Ok(())
}

/// Text for people, not too much of it.
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(4000).collect()
}
