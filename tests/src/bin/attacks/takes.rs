//! What a hostile submitter takes of the PC that helps it: slots by proofs, memory by results that it does not read; and a
//! worker whose disk changes what submitters keep there.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use potluck_model::limits::{RESULTS_MEMORY_BYTES_MAX, RESULTS_UNTAKEN_TIME};
use potluck_tests::hostile::{Hostile as Member, program};
use potluck_tests::wait::wait_until;
use potluck_tests::{Context, Lab, Outcome, tree};
use potluck_wire::pool::{self, frame::Kind};

use crate::board::{Attack, Board};
use crate::compiler::{Hostile, last_record};
use crate::submitter::mirror_of;

/// Proofs that the hostile member sends at once.
const PROOFS: u64 = 20;
/// Of them it waits for so many.
const PROOFS_SEEN: u64 = 4;
/// Results of a job at the lowest priority, on a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(240);
/// What jobs use was looked at within this time.
const SWEPT_WITHIN: Duration = Duration::from_secs(61);
/// What was lent is written down once a minute.
const LENT_WITHIN: Duration = Duration::from_secs(120);

/// All of them.
pub fn attacks(board: &mut Board, lab: &Lab, member: &Member, hostile: &Hostile) -> Outcome<()> {
    board.attack("11", "proofs", |attack| proofs(attack, lab, member, hostile));
    board.attack("11", "results not taken", |attack| results_not_taken(attack, lab, member, hostile));
    board.attack("14", "rotten mirror", |attack| rotten_mirror(attack, lab, hostile));
    Ok(())
}

/// Proofs take slots, one at a time, and everybody can see it.
fn proofs(attack: &mut Attack, lab: &Lab, member: &Member, hostile: &Hostile) -> Outcome<()> {
    let worker = &lab.workers[0];
    let wire = program::arm(member, &worker.node.address, &hostile.alone)?;
    for id in 1..=PROOFS {
        wire.say(Kind::Job(pool::Job { probe: true, discard_outputs: true, ..program::job(id, "busy", "x.o") }));
    }
    let (mut most, mut shown, mut text, mut ended) = (0, 0, String::new(), 0);
    let began = Instant::now();
    while ended < PROOFS_SEEN && began.elapsed() < ENDS_WITHIN {
        most = most.max(worker.named("gcc").len());
        let status = worker.node.status()?.0;
        let sharing = &status["sharing"];
        shown = shown.max(sharing["proofs"].as_u64().unwrap_or(0));
        if sharing["proofs"] == 1 && text.is_empty() {
            text = worker.node.potluck(&["status"])?;
            attack.check(sharing["running"].as_u64() >= Some(1), || format!("no slot is in use: {sharing}"));
        }
        while wire.heard(|kind| matches!(kind, Kind::Result(_))) {
            ended += 1;
        }
    }
    attack.check(ended >= PROOFS_SEEN, || format!("{ended} proofs have ended"));
    attack.check(most == 1 && shown == 1, || format!("{most} ran at once, {shown} were shown"));
    attack.check(text.contains("to check a compiler"), || format!("status says nothing of it: {text}"));
    drop(wire);
    let id = member.id().to_string();
    let account = worker.state.join("state/potluck/lent.json");
    let lent = || Ok(fs::read_to_string(&account).ok().filter(|text| text.contains(&id)));
    attack.check(wait_until("the account", LENT_WITHIN, lent).is_ok(), || "nothing of it is in the account".into());
    attack.saw(format!("{PROOFS} sent, {most} at a time, shown and in the account"));
    Ok(())
}

/// Jobs that write a gigabyte each, for a submitter that reads nothing of it.
fn results_not_taken(attack: &mut Attack, lab: &Lab, member: &Member, hostile: &Hostile) -> Outcome<()> {
    let worker = &lab.workers[0];
    let wire = program::arm(member, &worker.node.address, &hostile.alone)?;
    let pid = worker.named("potluck-node").first().map(|p| p.pid).context(|| "no node".into())?;
    let resident = || -> Outcome<u64> {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
        Ok(statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 4096)
    };
    let before = resident()?;
    wire.stop_reading();
    let (mut sent, mut refused, mut peak) = (0, 0, before);
    let began = Instant::now();
    // As many as it has credits for, and again as long as they are taken.
    while refused == 0 && sent < 8 && began.elapsed() < ENDS_WITHIN {
        for _ in 0..2 {
            sent += 1;
            wire.say(Kind::Job(program::job(sent, "noise", &format!("x{sent}.o"))));
        }
        let ended = wait_until("the end of a job", ENDS_WITHIN, || {
            peak = peak.max(resident()?);
            if wire.heard(|kind| matches!(kind, Kind::Refused(_))) {
                refused += 1;
            }
            let running = worker.node.status()?.0["served"]["running"].as_u64();
            Ok((refused > 0 || running == Some(0)).then_some(()))
        });
        attack.check(ended.is_ok(), || "a job does not end".into());
    }
    let grown = peak.saturating_sub(before);
    attack.check(refused > 0, || format!("{sent} jobs ran although nothing is taken"));
    attack.check(grown < RESULTS_MEMORY_BYTES_MAX, || format!("the node took {} MiB more", grown >> 20));
    let patience = RESULTS_UNTAKEN_TIME * 2;
    attack.check(wire.is_hung_up(patience), || "whoever takes nothing stays".into());
    attack.saw(format!(
        "{} jobs of 1000 MiB ended, then refused; node {:+} MiB; cut off within {} s",
        sent - refused,
        grown >> 20,
        patience.as_secs()
    ));
    hostile.check_pool(attack, lab)
}

/// A header and the compiler itself change on the worker's disk, sizes and times as before.
fn rotten_mirror(attack: &mut Attack, lab: &Lab, hostile: &Hostile) -> Outcome<()> {
    let worker = &lab.workers[0];
    let id = lab.submitter.node.status()?.0["node"]["id"].as_str().unwrap_or_default().to_owned();
    let root = mirror_of(lab, &id).join("root");
    let header = root.join(hostile.dir.join("victim.h").strip_prefix("/").unwrap_or(&hostile.dir));
    let mut compiler = None;
    tree::walk(&root, &mut |path, meta| {
        if meta.is_file() && path.file_name().is_some_and(|name| name == "cc1") {
            compiler = Some(path.to_path_buf());
        }
    });
    let compiler = compiler.context(|| "the mirror has no cc1".into())?;
    let mut right = Vec::new();
    for path in [&header, &compiler] {
        let content = fs::read(path)?;
        let at = content.len() as u64 / 2;
        // A compiler that still runs, for a proof, cannot be written.
        let opened = || Ok(fs::OpenOptions::new().write(true).open(path).ok());
        let file = wait_until("nobody running it", ENDS_WITHIN, opened)?;
        let times = fs::metadata(path)?.modified()?;
        file.write_all_at(&[content[at as usize] ^ 1], at)?;
        file.set_modified(times)?;
        attack.check(fs::read(path)? != content, || "nothing was flipped".into());
        right.push((path.clone(), content));
    }
    let before = worker.node.status()?.0["mirrors"]["rotten"].as_u64().unwrap_or(0);
    std::thread::sleep(SWEPT_WITHIN);
    let again = |attack: &mut Attack| -> Outcome<bool> {
        let seen = hostile.compile(lab, "none")?;
        attack.check(seen.exit == 0, || "a compile failed".into());
        Ok(last_record(lab)?["where"] == "remote")
    };
    // The first one finds it, and is compiled elsewhere or again; until all is fetched anew nothing runs there.
    let ran_there = again(attack)?;
    attack.check(!ran_there, || "the first job ran on what had rotted".into());
    wait_until("a compile there after it", ENDS_WITHIN, || Ok(again(attack)?.then_some(())))?;
    for (path, content) in &right {
        attack.check(fs::read(path).is_ok_and(|now| now == *content), || format!("{} stays", path.display()));
    }
    let status = worker.node.status()?.0;
    let found = status["mirrors"]["rotten"].as_u64().unwrap_or(0) - before;
    attack.check(found == 2, || format!("{found} were counted"));
    let problems = status["problems"].to_string();
    attack.check(problems.contains("D2"), || format!("nobody is told: {problems}"));
    attack.saw(format!("{found} of 2 found before a job, shown, fetched anew"));
    hostile.check_pool(attack, lab)
}
