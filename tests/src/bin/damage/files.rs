//! State files that are ruined while their node is down: every plain file below config, state and cache of a submitter and
//! of a worker that have built something, found by walking, so that new ones are tried by themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use potluck_tests::lab::base_dir;
use potluck_tests::node::{Node, Status};
use potluck_tests::ruin::{Pristine, Random, Ruined, WAYS, Way, is_kept, plain_files, ruin};
use potluck_tests::run::Via;
use potluck_tests::small::{Objects, Small};
use potluck_tests::wait::wait_until;
use potluck_tests::{Context, Lab, Outcome, Plan, Trouble, remains, table};
use rustix::process::Signal;

use crate::{Args, Tally};

/// Compiles of one case.
const SOURCES: usize = 3;
/// A worker that was started again serves within this time, or the build is tried without it.
const SERVES_WITHIN: Duration = Duration::from_secs(6);
/// SIGTERM ends a node that does nothing within this time.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// Files of a mirror that are ruined: it has some hundred, all of a kind.
const OF_A_MIRROR: usize = 12;
/// What a refusal never holds: words of libraries and of programmers.
const RAW: &[&str] = &[
    "expected value",
    "at line ",
    "EOF while",
    "trailing characters",
    "invalid type",
    "missing field",
    "Os {",
    "Err(",
    "panicked",
    "RUST_BACKTRACE",
    "unwrap",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Submitter,
    Worker,
}

/// A node whose files are ruined, and what it was before.
struct Subject {
    which: Which,
    node: Node,
    /// Its config, state and cache.
    dirs: Vec<PathBuf>,
    /// Where its standard error goes.
    err: PathBuf,
    /// Key and team.
    was: Who,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Who {
    key: String,
    team: String,
    joined: bool,
}

fn who(node: &Node) -> Outcome<Who> {
    let text = node.potluck(&["team", "list", "--json"])?;
    let value: serde_json::Value = serde_json::from_str(&text)?;
    let word = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    Ok(Who { key: word("this_pc"), team: word("id"), joined: value["joined"] == true })
}

/// The whole part.
pub fn all(args: &Args, seed: u64, tally: &mut Tally) -> Outcome<()> {
    let base = base_dir()?.join("src/damage");
    let _ = fs::remove_dir_all(&base);
    let project = Small::make(&base, SOURCES, "damage")?;
    let objects = project.plain()?;
    let mut lab = Lab::start(Plan::new("damage", 1, 2, std::slice::from_ref(&base)))?;
    lab.sync_toolchains(&["gcc"])?;
    fill(&lab)?;
    let mut random = Random(seed);
    let mut build = Build { project: &project, objects: &objects };
    build.check(&lab, "before anything was ruined", tally)?;
    let mut rows = Vec::new();
    for which in [Which::Submitter, Which::Worker] {
        // A worker without namespaces cannot be started again.
        if which == Which::Worker && !lab.has_namespaces() {
            println!("not root: the worker's files are left alone");
            continue;
        }
        let subject = Subject::of(&lab, which)?;
        one_node(args, &mut lab, &subject, &mut build, &mut random, tally, &mut rows)?;
    }
    print!("{}", table::render(&["file", "way", "start", "remote"], &rows));
    remains::complaints(&lab).into_iter().for_each(|c| tally.miss(format!("files: {c}")));
    fs::remove_dir_all(&base)?;
    Ok(())
}

/// Makes files that a node has only when somebody uses it.
fn fill(lab: &Lab) -> Outcome<()> {
    for node in [&lab.submitter.node, &lab.workers[0].node] {
        node.potluck(&["config", "set", "notify.finished_after", "45s"])?;
        node.potluck(&["ui", "--print"])?;
    }
    lab.submitter.node.potluck(&["share", "on"])?;
    lab.submitter.node.potluck(&["share", "pause"])?;
    lab.submitter.node.potluck(&["team", "invite"])?;
    Ok(())
}

struct Build<'a> {
    project: &'a Small,
    objects: &'a Objects,
}

impl Build<'_> {
    /// Builds everything through the submitter's wrapper: its node may be there or not.
    fn check(&mut self, lab: &Lab, about: &str, tally: &mut Tally) -> Outcome<()> {
        let which: Vec<usize> = (0..self.project.files).collect();
        let seen = self.project.build(Via::Pool(&lab.submitter.node), &which, 4, &|_| {})?;
        for (n, seen) in seen.iter().enumerate() {
            if seen.exit != 0 || !seen.stderr.is_empty() || !seen.stdout.is_empty() {
                let said = String::from_utf8_lossy(&seen.stderr);
                tally.miss(format!("{about}: compile {n} ended with {} and said {said:?}", seen.exit));
            }
        }
        tally.objects += self.objects.len();
        self.project.differences(self.objects).into_iter().for_each(|d| tally.miss(format!("{about}: {d}")));
        self.project.clean()
    }
}

impl Subject {
    fn of(lab: &Lab, which: Which) -> Outcome<Self> {
        let (node, home, err) = match which {
            Which::Submitter => {
                let home = lab.dir.join("submitter");
                (lab.submitter.node.clone(), home.clone(), home.join("node.err"))
            }
            Which::Worker => {
                let worker = &lab.workers[0];
                (worker.node.clone(), worker.state_seen(true), worker.state.join("node.err"))
            }
        };
        let dirs = ["config", "state", "cache"].map(|d| home.join(d).join("potluck")).into_iter().collect();
        let was = who(&node)?;
        if !was.joined {
            return Err(Trouble::new(format!("{} is in no team", node.name)));
        }
        Ok(Self { which, node, dirs, err, was })
    }

    fn start(&self, lab: &mut Lab) -> Outcome<()> {
        match self.which {
            Which::Submitter => lab.submitter.start(),
            Which::Worker => lab.workers[0].start_node(),
        }
    }

    fn stop(&self, lab: &mut Lab) -> Outcome<()> {
        match self.which {
            Which::Submitter => lab.submitter.terminate(ENDS_WITHIN).map(drop),
            Which::Worker => {
                lab.workers[0].signal("potluck-node", Signal::TERM);
                wait_until("the worker's node ending after SIGTERM", ENDS_WITHIN, || {
                    Ok(lab.workers[0].named("potluck-node").is_empty().then_some(()))
                })
            }
        }
    }

    /// A file as it is called in the table.
    fn shown(&self, path: &Path) -> String {
        let home = self.dirs[0].ancestors().nth(2).unwrap_or(Path::new("/"));
        format!("{} {}", self.node.name, path.strip_prefix(home).unwrap_or(path).display())
    }

    fn mirrors(&self) -> PathBuf {
        self.dirs[2].join("mirrors")
    }
}

/// Key and team: nothing else of a node cannot be made anew.
fn is_precious(path: &Path) -> bool {
    path.ends_with("identity.pk8") || path.parent().is_some_and(|dir| dir.ends_with("team"))
}

/// Without these a node has no identity, and says so instead of starting as somebody else.
fn may_refuse(ruined: &Ruined) -> bool {
    ruined.way != Way::Removed && (ruined.path.ends_with("identity.pk8") || ruined.path.ends_with("team/statements"))
}

fn one_node(
    args: &Args,
    lab: &mut Lab,
    subject: &Subject,
    build: &mut Build<'_>,
    random: &mut Random,
    tally: &mut Tally,
    rows: &mut Vec<Vec<String>>,
) -> Outcome<()> {
    subject.stop(lab)?;
    let name = if subject.which == Which::Submitter { "pristine-submitter" } else { "pristine-worker" };
    let pristine = Pristine::take(&subject.dirs, &[subject.mirrors()], &lab.dir.join(name))?;
    let all = plain_files(&subject.dirs);
    let (of_mirrors, all): (Vec<PathBuf>, Vec<PathBuf>) = all
        .into_iter()
        .filter(|p| subject.shown(p).contains(&args.only))
        .partition(|p| p.starts_with(subject.mirrors()));
    for (files, way) in plan(args, &all, &of_mirrors, random) {
        let mut ruined = Vec::new();
        // Mirrors are not put back as they were: a way before this one may have cost a file of theirs.
        for file in files.iter().filter(|file| file.exists()) {
            ruined.extend(ruin(file, way, subject.node.person, random)?);
        }
        if ruined.is_empty() {
            continue;
        }
        tally.ruined += ruined.len();
        let shown = match &ruined[..] {
            [one] => subject.shown(&one.path),
            several => format!("{}: {} files at once", subject.node.name, several.len()),
        };
        let about = format!("{shown}, {way:?}");
        let missed = tally.missed.len();
        let (start, remote) = case(lab, subject, build, &ruined, &about, tally)?;
        if tally.missed.len() > missed && ruined.len() > 1 {
            println!("they were {:?}", ruined.iter().map(|r| subject.shown(&r.path)).collect::<Vec<_>>());
        }
        rows.push(vec![shown, format!("{way:?}"), start, remote.to_string()]);
        pristine.restore()?;
    }
    subject.start(lab)?;
    lab.wait_for_workers(1)
}

/// Which files are ruined together, and how.
fn plan(args: &Args, all: &[PathBuf], of_mirrors: &[PathBuf], random: &mut Random) -> Vec<(Vec<PathBuf>, Way)> {
    let mut cases = Vec::new();
    let (precious, others): (Vec<&PathBuf>, Vec<&PathBuf>) = all.iter().partition(|p| is_precious(p));
    let some_of_a_mirror = |random: &mut Random| -> Vec<PathBuf> {
        let count = OF_A_MIRROR.min(of_mirrors.len());
        (0..count).map(|_| of_mirrors[random.below(of_mirrors.len())].clone()).collect()
    };
    for way in WAYS {
        if args.short {
            let mut files: Vec<PathBuf> = others.iter().map(|p| (*p).clone()).collect();
            files.extend(some_of_a_mirror(random));
            files.sort();
            files.dedup();
            cases.push((files, *way));
        } else {
            cases.extend(others.iter().map(|p| (vec![(*p).clone()], *way)));
            cases.extend(some_of_a_mirror(random).into_iter().map(|p| (vec![p], *way)));
        }
        let is_typical = matches!(way, Way::Halved | Way::MiddleBit | Way::Removed);
        if !args.short || is_typical {
            cases.extend(precious.iter().map(|p| (vec![(*p).clone()], *way)));
        }
    }
    cases
}

/// One start with ruined files, one build, one end. How it started, and how many compiles another PC did.
fn case(
    lab: &mut Lab,
    subject: &Subject,
    build: &mut Build<'_>,
    ruined: &[Ruined],
    about: &str,
    tally: &mut Tally,
) -> Outcome<(String, u64)> {
    let err_before = fs::read(&subject.err).map_or(0, |text| text.len());
    let started = subject.start(lab);
    let said = || {
        let text = fs::read(&subject.err).unwrap_or_default();
        String::from_utf8_lossy(text.get(err_before..).unwrap_or_default()).into_owned()
    };
    let mut remote = 0;
    let how = match started {
        Err(why) => {
            refused(subject, ruined, about, &said(), &why, tally);
            build.check(lab, about, tally)?;
            if subject.which == Which::Submitter {
                lab.submitter.kill();
            }
            "refused"
        }
        Ok(()) => {
            let same = as_before(subject, ruined, about, tally)?;
            if subject.which == Which::Worker && same {
                let _ = wait_until("the worker serving again", SERVES_WITHIN, || {
                    Ok((lab.submitter.node.status()?.serving_peers() > 0).then_some(()))
                });
            }
            let before = lab.submitter.node.status()?.number("/jobs/remote")?;
            build.check(lab, about, tally)?;
            remote = lab.submitter.node.status()?.number("/jobs/remote")?.saturating_sub(before);
            tally.remote += remote;
            subject.stop(lab)?;
            if same { "as before" } else { "key or team new" }
        }
    };
    nothing_is_lost(subject, ruined, about, &said(), tally);
    Ok((how.to_owned(), remote))
}

fn refused(subject: &Subject, ruined: &[Ruined], about: &str, said: &str, why: &Trouble, tally: &mut Tally) {
    tally.refused += 1;
    if !ruined.iter().any(may_refuse) {
        tally.miss(format!("{about}: it did not start: {} ({why})", said.trim()));
        return;
    }
    let raw = RAW.iter().find(|word| said.contains(**word));
    if let Some(word) = raw {
        tally.miss(format!("{about}: the refusal holds {word:?}: {}", said.trim()));
    }
    let sentence = said.lines().find(|line| line.starts_with("potluck"));
    let names_it = ruined.iter().any(|r| said.contains(&*r.path.file_name().unwrap_or_default().to_string_lossy()));
    if !said.contains("hint: ") || sentence.is_none() || !names_it {
        tally.miss(format!("{about}: the refusal does not say what to do with which file: {}", said.trim()));
    }
    if !ruined.iter().all(is_kept) {
        tally.miss(format!("{about}: {} refused, and what the file held is gone", subject.node.name));
    }
}

/// Whether key and team are what they were. A new key is right only where nobody has the old one, and it is told.
fn as_before(subject: &Subject, ruined: &[Ruined], about: &str, tally: &mut Tally) -> Outcome<bool> {
    let now = who(&subject.node).context(|| about.to_owned())?;
    if now == subject.was {
        return Ok(true);
    }
    let key_is_gone = ruined.iter().any(|r| r.path.ends_with("identity.pk8") && r.way == Way::Removed);
    let status = subject.node.status()?;
    if now.key != subject.was.key && !key_is_gone {
        tally.miss(format!("{about}: its key is another one, although the old one is there"));
    } else if now.key != subject.was.key && !has_problem(&status, "K2") {
        tally.miss(format!("{about}: its key is another one, and nobody is told"));
    } else if now.key == subject.was.key {
        tally.miss(format!("{about}: its key is the same and its team is not: {now:?}"));
    }
    Ok(false)
}

fn has_problem(status: &Status, code: &str) -> bool {
    status.0["problems"].as_array().is_some_and(|all| all.iter().any(|p| p["code"] == code))
}

/// What a node says it cannot use is set aside. Where it noticed nothing there was nothing to notice, or it is the build
/// that would have shown it; and a cache is made anew.
fn nothing_is_lost(subject: &Subject, ruined: &[Ruined], about: &str, said: &str, tally: &mut Tally) {
    let log = fs::read(subject.dirs[1].join("node.log")).unwrap_or_default();
    let said = format!("{said}{}", String::from_utf8_lossy(&log));
    for ruined in ruined.iter().filter(|r| !r.path.starts_with(&subject.dirs[2])) {
        let name = ruined.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let noticed = said.lines().any(|l| l.contains(&name) && (l.contains(".damaged") || l.contains("cannot be")));
        if (noticed || ruined.way == Way::Folder) && !is_kept(ruined) {
            tally.miss(format!("{about}: {} is neither there nor set aside", subject.shown(&ruined.path)));
        }
    }
}
