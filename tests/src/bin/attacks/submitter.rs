//! A hostile submitter with a wire of its own, against a worker that also serves an honest one (cases 13, 14, 26, 27, 29,
//! 32 and 33).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use potluck_model::ids::Digest;
use potluck_tests::hostile::peer::{down_to, file, with_file};
use potluck_tests::hostile::{Hostile as Member, Wire, program};
use potluck_tests::run::{Via, run};
use potluck_tests::wait::wait_until;
use potluck_tests::{Context, Lab, Outcome, Trouble, remains, table, tree};
use potluck_wire::pool::{self, DeltaOps, DirOps, LinkOp, frame::Kind};

use crate::board::{Attack, Board, check_remains};
use crate::compiler::{Hostile, last_record, lossy};

/// A node that minds hangs up within this time on a busy machine.
const HUNG_UP_WITHIN: Duration = Duration::from_secs(10);
/// Two million names, the mirror's limit, are made one by one and removed again.
const NAMES_WITHIN: Duration = Duration::from_secs(240);
/// From the order to stop to the last process: the bounds for giving a PC back.
const STOPPED_MEDIAN_MS: f64 = 100.0;
/// The bound for what is cancelled when a person comes back, as the window tells it.
const STOPPED_WORST_MS: f64 = 3000.0;
/// Memory of the worker's node that no hostile submitter may make it take: its 2 million names take most of it.
const MEMORY_BYTES_MAX: u64 = 768 << 20;

/// All attacks over the wire.
pub fn attacks(board: &mut Board, lab: &mut Lab, member: &Member, hostile: &Hostile) -> Outcome<()> {
    let before = remains::before(lab);
    let mut each = |case: &str, name: &str, work: &dyn Fn(&mut Attack, &Scene<'_>) -> Outcome<()>| {
        board.attack(case, name, |attack| {
            let scene = Scene { lab, member, hostile };
            work(attack, &scene)?;
            attack.all_wrong(scene.strays());
            check_remains(attack, lab, &before)?;
            hostile.check_pool(attack, lab)
        });
    };
    each("26", "paths that lead out", &paths_that_lead_out);
    each("26", "a link where a folder was", &a_link_where_a_folder_was);
    each("27", "private places", &private_places);
    each("29", "another's contents", &anothers_contents);
    each("13", "setuid on the wire", &setuid_on_the_wire);
    each("13", "bombs on the wire", &bombs_on_the_wire);
    each("13", "10 M names on the wire", &ten_million_names);
    each("14", "same name, other bytes", &same_name_other_bytes);
    each("32", "two submitters", &two_submitters);
    each("32", "fork bomb beside", &fork_bomb_beside);
    each("33", "stopped while it forks", &stopped_while_it_forks);
    board.attack("14", "bit flip in a mirror", |attack| bit_flip(attack, lab, hostile));
    Ok(())
}

struct Scene<'a> {
    lab: &'a Lab,
    member: &'a Member,
    hostile: &'a Hostile,
}

impl Scene<'_> {
    fn dial(&self) -> Outcome<Wire<'_>> {
        self.member.dial(&self.lab.workers[0].node.address)
    }

    /// The member's own folder at the worker.
    fn folder(&self) -> PathBuf {
        mirror_of(self.lab, &self.member.id().to_string())
    }

    /// Files that an attack left outside of its own folder, and the owner's secret if it is not what it was.
    fn strays(&self) -> Vec<String> {
        let (root, own) = (self.lab.workers[0].root(), self.folder());
        let own = own.file_name().unwrap_or_default().to_owned();
        let mut strays = Vec::new();
        for dir in ["home", "tmp", "var", "etc", "potluck", "run", "dev/shm", "usr/lib"] {
            tree::walk(&root.join(dir), &mut |path, _| {
                let named = path.file_name().is_some_and(|n| n.to_string_lossy().contains("evil"));
                if named && !path.iter().any(|part| part == own) {
                    strays.push(format!("left {}", path.display()));
                }
            });
        }
        let secret = fs::read(self.lab.workers[0].state.join("lab-secret")).unwrap_or_default();
        if secret != b"LAB-SECRET\n" {
            strays.push("the owner's file was written".into());
        }
        strays
    }

    /// Each of these must end the connection.
    fn refused(&self, attack: &mut Attack, cases: &[(&str, Vec<DeltaOps>)]) -> Outcome<()> {
        for (name, deltas) in cases {
            let wire = self.dial()?;
            deltas.iter().for_each(|ops| wire.delta(ops));
            attack.check(wire.is_hung_up(HUNG_UP_WITHIN), || format!("{name}: was taken"));
        }
        attack.saw(format!("{} deltas, each ended the connection", cases.len()));
        Ok(())
    }

    /// A connection on which the hostile program may be run.
    fn armed(&self) -> Outcome<Wire<'_>> {
        program::arm(self.member, &self.lab.workers[0].node.address, &self.hostile.alone)
    }
}

/// What a submitter keeps at the worker.
pub fn mirror_of(lab: &Lab, id: &str) -> PathBuf {
    lab.workers[0].state.join("cache/potluck/mirrors").join(id)
}

fn dir(path: &str) -> DirOps {
    DirOps { path: path.as_bytes().to_vec(), mode: 0o755, ..DirOps::default() }
}

fn link(name: &str, target: &str) -> LinkOp {
    LinkOp { name: name.as_bytes().to_vec(), target: target.as_bytes().to_vec() }
}

fn with_link(at: &str, name: &str, target: &str) -> DeltaOps {
    let mut ops = down_to(at);
    ops.dirs.last_mut().expect("the root at least").links.push(link(name, target));
    ops
}

/// Case 26: no name and no path leads out of the mirror.
fn paths_that_lead_out(attack: &mut Attack, scene: &Scene<'_>) -> Outcome<()> {
    let evil = || file(b"evil.h", b"EVIL", 0o644);
    let deep = "/d".repeat(65);
    let long = format!("/{}", "l".repeat(5000));
    let only = |path: &str| vec![down_to("/"), DeltaOps { dirs: vec![DirOps { files: vec![evil()], ..dir(path) }] }];
    let mut cases: Vec<(&str, Vec<DeltaOps>)> =
        ["/a/../b", "/..", "/../../../../home/worker", "relative", "/a//b", "/a/./b", "/a/", "", "/never/sent"]
            .into_iter()
            .map(|path| (path, only(path)))
            .collect();
    cases.push(("too deep", vec![down_to(&deep)]));
    cases.push(("too long", only(&long)));
    for name in [&b".."[..], b".", b"", b"../evil.h", b"/home/worker/evil.h", b"evil\0.h", &[b'e'; 256]] {
        cases.push(("a name", vec![with_file("/a", file(name, b"EVIL", 0o644))]));
    }
    for name in ["..", "evil/x", "../../evil"] {
        cases.push(("a link's name", vec![with_link("/a", name, "/home/worker")]));
        let mut poison = down_to("/a");
        poison.dirs[1].poison.push(name.as_bytes().to_vec());
        cases.push(("a poison's name", vec![poison]));
    }
    scene.refused(attack, &cases)
}

/// Case 26: links are data, whatever they replace and wherever they lead.
fn a_link_where_a_folder_was(attack: &mut Attack, scene: &Scene<'_>) -> Outcome<()> {
    let outside = ["/home/worker", "../../../../../../../../home/worker", "/potluck", "/proc/self/root/home/worker"];
    // A folder below the link was not sent: nothing is written through it.
    for target in outside {
        let wire = scene.dial()?;
        wire.delta(&with_file("/a/b", file(b"good.h", b"good", 0o644)));
        wire.delta(&with_link("/a", "b", target));
        wire.delta(&DeltaOps { dirs: vec![DirOps { files: vec![file(b"evil.h", b"EVIL", 0o644)], ..dir("/a/b/c") }] });
        attack.check(wire.is_hung_up(HUNG_UP_WITHIN), || format!("a folder below a link to {target} was made"));
    }
    // Over and over, faster than anybody looks: the folder comes back in the mirror, never behind the link.
    let wire = scene.dial()?;
    let rounds = 200;
    for round in 0..rounds {
        wire.delta(&with_link("/a", "b", outside[round % outside.len()]));
        wire.delta(&with_file("/a/b", file(b"evil.h", format!("EVIL {round}").as_bytes(), 0o644)));
    }
    let holds = wire.holds();
    attack.check(holds.as_ref().is_some_and(|h| h.contains(&"/a/b/evil.h".to_owned())), || {
        format!("the folder did not come back: {holds:?}")
    });
    // Links that stay: a job follows them in its own tree only.
    let wire = scene.armed()?;
    let mut ops = down_to("/lab-work");
    for (n, target) in
        ["/home/worker/lab-secret", "../../../../../../../home/worker/lab-secret", "/old/lab-secret"].iter().enumerate()
    {
        ops.dirs[1].links.push(link(&format!("peek{n}"), target));
    }
    wire.delta(&ops);
    look_around(attack, &wire, 1)?;
    attack.saw(format!("{} targets, {rounds} swaps, 3 links followed by a job", outside.len()));
    Ok(())
}

/// Runs the program that looks for secrets, also behind `/lab-work/peek0` to `/lab-work/peek2`.
fn look_around(attack: &mut Attack, wire: &Wire<'_>, id: u64) -> Outcome<()> {
    let result = wire.job(program::job(id, "read", "x.o")).context(|| "the worker hung up".into())?;
    let result = result.map_err(Trouble::new)?;
    let said = lossy(&result.stdout);
    attack.check(said.contains("ATTACKING read"), || {
        format!("it did not run: {} {}", result.note, lossy(&result.stderr))
    });
    attack.all_wrong(said.lines().filter(|l| l.starts_with("LEAK")).map(String::from));
    Ok(())
}

/// Case 27: /proc, /dev, /tmp, the trap and the runner are nobody's to send.
fn private_places(attack: &mut Attack, scene: &Scene<'_>) -> Outcome<()> {
    let mut cases = Vec::new();
    for path in [
        "/proc",
        "/proc/self",
        "/dev",
        "/dev/shm",
        "/tmp",
        "/tmp/evil",
        "/.potluck",
        "/.potluck/trap",
        "/.potluck/trap/1",
    ] {
        cases.push((path, vec![down_to(path)]));
    }
    for name in ["proc", "dev", "tmp", ".potluck"] {
        cases.push((name, vec![with_file("/", file(name.as_bytes(), b"EVIL", 0o755))]));
        cases.push((name, vec![with_link("/", name, "/home")]));
    }
    for target in ["/.potluck", "/.potluck/trap/1", "/.potluck/../home"] {
        cases.push((target, vec![with_link("/a", "evil", target)]));
    }
    scene.refused(attack, &cases)?;
    let wire = scene.armed()?;
    let mut id = 10;
    for path in [
        "/proc",
        "/proc/self",
        "/dev",
        "/dev/shm",
        "/tmp",
        "/.potluck",
        "/.potluck/trap",
        "/missing",
        "/lab-work/../etc",
    ] {
        id += 1;
        let outputs = vec![pool::OutputDir { path: path.as_bytes().to_vec(), whiteouts: Vec::new() }];
        let end = wire.job(pool::Job { outputs, ..program::job(id, "none", "x.o") });
        attack.check(matches!(end, Some(Err(_))), || format!("outputs in {path}: {end:?}"));
    }
    for path in ["/.potluck/trap/1", "/proc/1/exe", "/proc/self/exe", "/potluck/potluck-runner", "/home/worker/x"] {
        id += 1;
        let end = wire.job(pool::Job { program: path.as_bytes().to_vec(), ..program::job(id, "none", "x.o") });
        let ran = matches!(&end, Some(Ok(r)) if r.end == pool::EndKind::EndExited as i32 && r.value == 0);
        attack.check(end.is_some() && !ran, || format!("{path} was run: {end:?}"));
    }
    attack.saw("9 output places and 5 programs refused");
    Ok(())
}

/// Case 29: what the honest submitter sent is nobody else's, by digest, by path or by toolchain.
fn anothers_contents(attack: &mut Attack, scene: &Scene<'_>) -> Outcome<()> {
    let status = scene.lab.submitter.node.status()?.0;
    let other = status["node"]["id"].as_str().context(|| "status names no node".into())?.to_owned();
    let theirs = mirror_of(scene.lab, &other).join("root");
    let victim = scene.hostile.dir.join("victim.h");
    let held = theirs.join(victim.strip_prefix("/").unwrap_or(&victim));
    let content = fs::read(&held).context(|| "the honest submitter's mirror lacks its own header".into())?;
    // By digest: a source, a compiler, and the longest file that the other one sent.
    let mut large = (0, PathBuf::new());
    tree::walk(&theirs, &mut |path, meta| {
        if meta.is_file() && meta.len() > large.0 {
            large = (meta.len(), path.to_path_buf());
        }
    });
    let mut asked = 0;
    for content in [content, fs::read(&scene.hostile.compiler)?, fs::read(&large.1)?] {
        let wire = scene.dial()?;
        let wanted = pool::FileOp { content: None, ..file(b"evil.h", &content, 0o644) };
        wire.delta(&with_file("/mine", wanted));
        attack.check(wire.is_hung_up(HUNG_UP_WITHIN), || "a content of the other was given by its digest".into());
        asked += 1;
    }
    // By path, as a folder and behind links.
    let wire = scene.dial()?;
    wire.delta(&down_to("/"));
    wire.delta(&DeltaOps { dirs: vec![dir(&format!("/../../{other}/root"))] });
    attack.check(wire.is_hung_up(HUNG_UP_WITHIN), || "a path into the other's mirror was taken".into());
    let wire = scene.armed()?;
    let inside = Path::new("/home/worker/cache/potluck/mirrors").join(&other).join("root");
    let inside = inside.join(victim.strip_prefix("/").unwrap_or(&victim));
    let mut ops = down_to("/lab-work");
    let relative = format!("../../../{other}/root{}", victim.display());
    for (n, target) in [inside.to_string_lossy().as_ref(), &relative, &victim.to_string_lossy()].iter().enumerate() {
        ops.dirs[1].links.push(link(&format!("peek{n}"), target));
    }
    wire.delta(&ops);
    look_around(attack, &wire, 1)?;
    // By toolchain: its name opens nothing.
    let tools: serde_json::Value =
        serde_json::from_str(&scene.lab.submitter.node.potluck(&["toolchain", "list", "--json"])?)?;
    let tool = tools["toolchains"][0]["id"].as_str().context(|| format!("no toolchain: {tools}"))?;
    let id: Vec<u8> =
        (0..tool.len() / 2).filter_map(|i| u8::from_str_radix(tool.get(2 * i..2 * i + 2)?, 16).ok()).collect();
    attack.check(id.len() == 32, || format!("{tool} is no toolchain's id"));
    let theirs = pool::Job {
        toolchain: id.clone(),
        program: scene.hostile.compiler.to_string_lossy().into_owned().into_bytes(),
        ..program::job(2, "none", "x.o")
    };
    let end = wire.job(theirs);
    let ran = matches!(&end, Some(Ok(r)) if r.end == pool::EndKind::EndExited as i32);
    attack.check(end.is_some() && !ran, || format!("the other's toolchain ran: {end:?}"));
    wire.say(Kind::ToolchainOffer(pool::ToolchainOffer { id, ..pool::ToolchainOffer::default() }));
    let holds = wire.holds().context(|| "the worker hung up".into())?;
    attack.check(holds.iter().all(|f| f.starts_with("/lab-work/") || f.starts_with("/a/")), || {
        format!("it holds {holds:?}")
    });
    attack.saw(format!("{asked} digests, 4 paths, 1 toolchain: nothing given"));
    Ok(())
}

/// Case 13: what a mode could do is gone on the way; absolute links are data.
fn setuid_on_the_wire(attack: &mut Attack, scene: &Scene<'_>) -> Outcome<()> {
    let wire = scene.dial()?;
    let mut ops = with_link("/tools", "sh", "/bin/sh");
    ops.dirs[1].mode = 0o7777;
    for mode in [0o4755, 0o2755, 0o6777, 0o1777, 0o107777] {
        ops.dirs[1].files.push(file(format!("evil{mode:o}").as_bytes(), b"EVIL", mode));
    }
    wire.delta(&ops);
    let holds = wire.holds().context(|| "the worker hung up".into())?;
    attack.check(holds.len() >= 5, || format!("the files were not taken: {holds:?}"));
    let (mut seen, mut special) = (0, Vec::new());
    tree::walk(&scene.folder(), &mut |path, meta| {
        use std::os::unix::fs::MetadataExt;
        let odd = meta.mode() & 0o7000 != 0 || meta.is_file() && meta.mode() & 0o022 != 0;
        seen += 1;
        if !meta.is_symlink() && odd {
            special.push(format!("{} has mode {:o}", path.display(), meta.mode()));
        }
    });
    attack.all_wrong(special);
    attack.saw(format!("{} files with special bits sent, none of {seen} names kept one", 5));
    Ok(())
}

/// 1 MiB of zstd that unpacks to 32 GiB, the most that the format can do: blocks of one repeated byte.
pub fn bomb() -> Vec<u8> {
    const MAGIC_AND_WINDOW: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    // Not the last, of one byte, 128 KiB long.
    const BLOCK: [u8; 4] = [0x02, 0x00, 0x10, 0x00];
    const LAST: [u8; 4] = [0x03, 0x00, 0x10, 0x00];
    [&MAGIC_AND_WINDOW[..], &BLOCK.repeat((1 << 18) - 1), &LAST].concat()
}

/// Case 13: sizes that are not what they say.
fn bombs_on_the_wire(attack: &mut Attack, scene: &Scene<'_>) -> Outcome<()> {
    let memory = Memory::of_worker(scene.lab)?;
    let bomb = bomb();
    let digest = Digest::of(b"a terabyte");
    for raw_bytes in [1 << 40, u64::MAX, 64 << 20, 1] {
        let wire = scene.dial()?;
        wire.say(Kind::Delta(pool::Delta { seq: 1, ops: bomb.clone(), raw_bytes }));
        attack.check(wire.is_hung_up(HUNG_UP_WITHIN), || format!("a delta of {raw_bytes} bytes was taken"));
    }
    let wire = scene.dial()?;
    let said = wire.blob(1, digest, 512 << 20, &bomb, true).context(|| "no answer to a bomb".into())?;
    attack.check(!said.is_empty(), || "a bomb was stored".into());
    attack.saw(format!("1 MiB of 32 GiB: {said}"));
    attack.check(wire.holds().is_some_and(|h| !h.iter().any(|f| f.contains("bomb"))), || "it stays".into());
    let wire = scene.dial()?;
    let _ = wire.blob(2, digest, 1 << 40, b"x", true);
    attack.check(wire.is_hung_up(HUNG_UP_WITHIN), || "a blob of a terabyte was begun".into());
    drop(wire);
    let left = wait_until("the staged bytes going", HUNG_UP_WITHIN, || {
        let bytes = disk_bytes(&scene.folder().join("stage")) + disk_bytes(&scene.folder().join("blobs"));
        Ok((bytes == 0).then_some(()))
    });
    attack.check(left.is_ok(), || "bytes of a bomb stay on the disk".into());
    memory.check(attack)
}

/// Case 13: 10 million names, as fast as they are taken.
fn ten_million_names(attack: &mut Attack, scene: &Scene<'_>) -> Outcome<()> {
    const IN_ONE: usize = 100_000;
    let memory = Memory::of_worker(scene.lab)?;
    let wire = scene.dial()?;
    let mut sent = 0;
    while sent < 10_000_000 && !wire.is_hung_up(Duration::from_millis(1)) {
        let mut ops = down_to(&format!("/n{}", sent / IN_ONE));
        ops.dirs[1].poison = (0..IN_ONE).map(|n| format!("n{n}").into_bytes()).collect();
        wire.delta(&ops);
        sent += IN_ONE;
    }
    attack.check(wire.is_hung_up(NAMES_WITHIN), || format!("{sent} names were taken"));
    drop(wire);
    // The next connection finds an empty mirror, and the disk is given back.
    let wire = scene.dial()?;
    let patience = Instant::now();
    let holds = loop {
        match wire.holds() {
            Some(holds) => break Some(holds),
            None if patience.elapsed() > NAMES_WITHIN => break None,
            None => {}
        }
    };
    let mut names = 0;
    tree::walk(&scene.folder(), &mut |_, _| names += 1);
    attack.check(holds.is_some_and(|h| h.is_empty()) && names < 1000, || format!("{names} names stay"));
    attack.saw(format!("ended after {sent} names were sent, {names} left"));
    memory.check(attack)
}

fn disk_bytes(dir: &Path) -> u64 {
    let mut bytes = 0;
    tree::walk(dir, &mut |_, meta| bytes += if meta.is_file() { meta.len() } else { 0 });
    bytes
}

/// The most memory that the worker's node had since a moment.
struct Memory {
    pid: u32,
}

impl Memory {
    fn of_worker(lab: &Lab) -> Outcome<Self> {
        let pid = lab.workers[0].named("potluck-node").first().map(|p| p.pid).context(|| "no node".into())?;
        fs::write(format!("/proc/{pid}/clear_refs"), "5").context(|| "resetting the peak of memory".into())?;
        Ok(Self { pid })
    }

    fn check(&self, attack: &mut Attack) -> Outcome<()> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).context(|| "the node is gone".into())?;
        let peak =
            status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        let peak = peak.context(|| "no VmHWM".into())? << 10;
        attack.saw(format!("node's memory at most {} MiB", peak >> 20));
        attack.check(peak < MEMORY_BYTES_MAX, || format!("the node took {} MiB", peak >> 20));
        Ok(())
    }
}

/// Case 14: a content is what its digest says, or it is nothing.
fn same_name_other_bytes(attack: &mut Attack, scene: &Scene<'_>) -> Outcome<()> {
    let good = vec![b'g'; 300_000];
    let mut other = good.clone();
    other[77] ^= 1;
    let digest = Digest::of(&good);
    let total = good.len() as u64;
    let wire = scene.dial()?;
    for (name, data) in
        [("one bit differs", &other[..]), ("cut short", &good[..200_000]), ("too long", &[&good[..], b"x"].concat())]
    {
        let said = wire.blob(data.len() as u64, digest, total, data, false).context(|| "no answer".into())?;
        attack.check(!said.is_empty(), || format!("{name}: was stored"));
        attack.saw(format!("{name}: {said}"));
    }
    let wanted = || pool::FileOp { content: None, ..file(b"tool", &good, 0o755) };
    wire.delta(&with_file("/tools", wanted()));
    attack.check(wire.is_hung_up(HUNG_UP_WITHIN), || "a content that was never whole was used".into());
    let wire = scene.dial()?;
    wire.delta(&with_file("/tools", pool::FileOp { content: Some(other), ..wanted() }));
    attack.check(wire.is_hung_up(HUNG_UP_WITHIN), || "an inline content that differs was used".into());
    // Sent again as it is, it is taken.
    let wire = scene.dial()?;
    let said = wire.blob(9, digest, total, &good, false);
    wire.delta(&with_file("/tools", wanted()));
    let holds = wire.holds().unwrap_or_default();
    attack.check(said.as_deref() == Some("") && holds.contains(&"/tools/tool".to_owned()), || {
        format!("the whole one was not taken: {said:?} {holds:?}")
    });
    Ok(())
}

/// Case 32: a job of one submitter finds nothing of a job of the other, in either direction.
fn two_submitters(attack: &mut Attack, scene: &Scene<'_>) -> Outcome<()> {
    let wire = scene.armed()?;
    for (id, honest, hostile) in [(1, "one.o", "two.o"), (2, "two.o", "one.o")] {
        wire.say(Kind::Job(program::job(id, "channel", hostile)));
        let job = scene.hostile.job("channel", honest);
        let seen = run(Via::Pool(&scene.lab.submitter.node).command(&job), "potluck")?;
        let result = wire.hear(|kind| match kind {
            Kind::Result(result) if result.id == id => Some(result),
            _ => None,
        });
        let result = result.context(|| "the hostile job has no result".into())?;
        for (who, said) in [("honest", lossy(&seen.stdout)), ("hostile", lossy(&result.stdout))] {
            attack.check(said.contains("ATTACKING"), || format!("the {who} job did not run there: {said}"));
            attack.all_wrong(said.lines().filter(|l| l.starts_with("LEAK")).map(|l| format!("{who} job: {l}")));
        }
        let overlap = result.wall_us / 1000;
        attack.check(overlap > 2000 && seen.exit == 0, || format!("they were not there together ({overlap} ms)"));
        attack.saw(format!("together for {overlap} ms"));
        let _ = fs::remove_file(scene.hostile.dir.join("out").join(honest));
    }
    Ok(())
}

/// Case 32: the other submitter's jobs work beside a fork bomb.
fn fork_bomb_beside(attack: &mut Attack, scene: &Scene<'_>) -> Outcome<()> {
    let wire = scene.armed()?;
    wire.say(Kind::Job(program::job(1, "bomb", "x.o")));
    let worker = &scene.lab.workers[0];
    let most = || worker.named("gcc").len();
    wait_until("the bomb going off", HUNG_UP_WITHIN, || Ok((most() > 100).then_some(())))?;
    let (mut times, mut processes, mut beside) = (Vec::new(), 0, 0);
    for _ in 0..10 {
        let burning = most();
        processes = processes.max(burning);
        let start = Instant::now();
        let seen = scene.hostile.compile(scene.lab, "none")?;
        let record = last_record(scene.lab)?;
        attack.check(seen.exit == 0 && record["where"] == "remote", || format!("a compile beside it: {record}"));
        if burning > 100 && most() > 100 {
            beside += 1;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let result = wire.hear(|kind| if let Kind::Result(result) = kind { Some(result) } else { None });
    attack.check(result.is_some(), || "the bomb has no end".into());
    attack.check(beside > 0, || "no compile ran beside the bomb".into());
    attack.saw(format!("{processes} processes; {beside} compiles beside them, median {:.0} ms", table::median(&times)));
    Ok(())
}

/// Case 33: no family of processes outruns the order to stop.
fn stopped_while_it_forks(attack: &mut Attack, scene: &Scene<'_>) -> Outcome<()> {
    let worker = &scene.lab.workers[0];
    let mut times = Vec::new();
    for id in 1..=20 {
        // A cancelled job has no result: each round is a connection of its own.
        let wire = scene.armed()?;
        wire.say(Kind::Job(program::job(id, "hydra", "x.o")));
        wait_until("its heads growing", HUNG_UP_WITHIN, || Ok((worker.named("gcc").len() > 30).then_some(())))?;
        let start = Instant::now();
        wire.say(Kind::Cancel(pool::Cancel { id }));
        let stopped = wait_until("its end", HUNG_UP_WITHIN, || Ok(worker.named("gcc").is_empty().then_some(())));
        attack.check(stopped.is_ok(), || format!("{} processes survive", worker.named("gcc").len()));
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let (median, worst) = (table::median(&times), table::quantile(&times, 1.0));
    attack.saw(format!("{} rounds, stopped in {median:.0} ms (median), {worst:.0} ms at worst", times.len()));
    attack.check(median < STOPPED_MEDIAN_MS, || format!("median {median:.0} ms, must be below {STOPPED_MEDIAN_MS}"));
    attack.check(worst < STOPPED_WORST_MS, || format!("worst {worst:.0} ms, must be below {STOPPED_WORST_MS}"));
    Ok(())
}

/// Case 14: a bit that flips on a worker's disk is found at the next start and the content fetched again.
fn bit_flip(attack: &mut Attack, lab: &mut Lab, hostile: &Hostile) -> Outcome<()> {
    let id = lab.submitter.node.status()?.0["node"]["id"].as_str().unwrap_or_default().to_owned();
    let path = hostile.dir.join("victim.h");
    let held = mirror_of(lab, &id).join("root").join(path.strip_prefix("/").unwrap_or(&path));
    let right = fs::read(&path)?;
    let before = fs::metadata(&held).context(|| "the mirror lacks the header".into())?;
    lab.workers[0].signal("potluck-node", rustix::process::Signal::KILL);
    wait_until("the node's end", HUNG_UP_WITHIN, || Ok(lab.workers[0].named("potluck-node").is_empty().then_some(())))?;
    let mut flipped = right.clone();
    flipped[0] ^= 1;
    let file = fs::OpenOptions::new().write(true).open(&held)?;
    std::os::unix::fs::FileExt::write_all_at(&file, &flipped, 0)?;
    file.set_modified(before.modified()?)?;
    drop(file);
    attack.check(fs::read(&held)? == flipped, || "the bit was not flipped".into());
    lab.workers[0].start_node()?;
    lab.wait_for_workers(1)?;
    // Until it has proved its toolchain again, jobs run here.
    let patience = Duration::from_secs(60);
    wait_until("a compile there after it", patience, || {
        let seen = hostile.compile(lab, "none")?;
        Ok((seen.exit == 0 && last_record(lab)?["where"] == "remote").then_some(()))
    })?;
    attack.check(fs::read(&held).is_ok_and(|now| now == right), || "the flipped content is still there".into());
    attack.saw("found at start, sent again");
    hostile.check_pool(attack, lab)
}
