//! `make peers`: five nodes in five network namespaces on one switch that are told no address. How soon they see each
//! other, that one is gone, and that one is no member any more; with IPv4 alone, with IPv6 alone, and where multicast is
//! not let through.

mod office;

use std::fs;
use std::time::{Duration, Instant};

use potluck_tests::run::{Job, Via, run};
use potluck_tests::wait::wait_until;
use potluck_tests::{Context, Outcome, Trouble, table};
use rustix::process::Signal;
use serde_json::json;

use office::{COUNT, Family, Office};

/// Everything must have been noticed within this time.
const LIMIT: Duration = Duration::from_secs(5);
/// A goodbye is on the wire at once; mDNS keeps what it took back for a second.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Patience for what has no limit of its own.
const SOME_TIME: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Sheet {
    rows: Vec<Vec<String>>,
    missed: usize,
}

impl Sheet {
    /// One figure with its limit; an error is a miss, and the next figure is taken all the same.
    fn timed(&mut self, family: Family, what: &str, limit: Duration, work: impl FnOnce() -> Outcome<Duration>) {
        let (seconds, verdict) = match work() {
            Ok(took) if took <= limit => (format!("{:.2}", took.as_secs_f64()), "ok".to_owned()),
            Ok(took) => (format!("{:.2}", took.as_secs_f64()), "MISSED".to_owned()),
            Err(e) => ("-".to_owned(), format!("MISSED: {e}")),
        };
        self.missed += usize::from(verdict != "ok");
        let row = [format!("{family:?}"), what.to_owned(), seconds, format!("{:.0}", limit.as_secs_f64()), verdict];
        eprintln!("{}", row.join("  "));
        self.rows.push(row.to_vec());
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, ask, socket] = &args[..]
        && ask == "ask"
    {
        let _ = office::answer_lines(socket);
        return;
    }
    let mut sheet = Sheet::default();
    for family in [Family::V4, Family::V6] {
        if let Err(e) = round(&mut sheet, family) {
            eprintln!("{family:?}: {e}");
            sheet.missed += 1;
        }
    }
    print!("{}", table::render(&["network", "what", "seconds", "limit", "result"], &sheet.rows));
    let verdict = if sheet.missed == 0 { "ok" } else { "FAILED" };
    println!("peers: {verdict}: {} figures of {COUNT} nodes, {} missed", sheet.rows.len(), sheet.missed);
    std::process::exit(i32::from(sheet.missed > 0));
}

fn round(sheet: &mut Sheet, family: Family) -> Outcome<()> {
    let mut office = Office::new(family)?;
    office.start()?;
    office.form_team()?;
    office.wait_all_see(&[0, 1, 2, 3, 4], SOME_TIME)?;
    // All start anew with other addresses: nothing that anybody remembers leads anywhere.
    office.pcs.iter_mut().for_each(|pc| pc.signal(Signal::TERM));
    office.number(1)?;
    sheet.timed(family, "from ready until all see each other, by mDNS alone", LIMIT, || {
        let start = office.start()?;
        office.wait_all_see(&[0, 1, 2, 3, 4], SOME_TIME)?;
        let took = start.elapsed();
        let mut by_network = 0;
        for pc in &mut office.pcs {
            by_network += pc.peers()?.iter().filter(|p| p["found_by"] == "network").count();
        }
        if by_network == 0 { Err(Trouble::new("nobody was found by the network")) } else { Ok(took) }
    });
    sheet.timed(family, "a killed node is gone everywhere", LIMIT, || {
        let start = Instant::now();
        office.pcs[4].signal(Signal::KILL);
        until_gone(&mut office, 4, false)?;
        Ok(start.elapsed())
    });
    sheet.timed(family, "from ready until it is back everywhere", LIMIT, || {
        let start = office.start()?;
        office.wait_all_see(&[0, 1, 2, 3, 4], SOME_TIME)?;
        Ok(start.elapsed())
    });
    sheet.timed(family, "a node behind a cut cable is gone everywhere", LIMIT, || {
        office.cable(3, false)?;
        let start = Instant::now();
        until_gone(&mut office, 3, false)?;
        Ok(start.elapsed())
    });
    sheet.timed(family, "and it has lost everybody", LIMIT, || {
        let start = Instant::now();
        wait_until("no link", SOME_TIME, || Ok(office.pcs[3].connected()?.is_empty().then_some(())))?;
        Ok(start.elapsed())
    });
    office.cable(3, true)?;
    // No limit: it depends on how long ago it was tried.
    office.wait_all_see(&[0, 1, 2, 3, 4], SOME_TIME)?;
    sheet.timed(family, "a node that says goodbye is off the list", AT_ONCE, || {
        let start = Instant::now();
        let child = office.pcs[4].signal_only(Signal::TERM);
        until_gone(&mut office, 4, true)?;
        let took = start.elapsed();
        if let Some(mut child) = child {
            child.wait()?;
        }
        if start.elapsed() > Duration::from_secs(3) {
            return Err(Trouble::new(format!("it needed {:.1} s to quit", start.elapsed().as_secs_f64())));
        }
        Ok(took)
    });
    office.start()?;
    office.wait_all_see(&[0, 1, 2, 3, 4], SOME_TIME)?;
    if family == Family::V4 {
        without_multicast(sheet, &mut office)?;
    }
    removal(sheet, family, &mut office)
}

/// Until none of the others has a link with it. `unlisted`: until it is on no list.
fn until_gone(office: &mut Office, lost: usize, unlisted: bool) -> Outcome<()> {
    let id = office.pcs[lost].id.clone();
    let mut last = String::new();
    wait_until("it is gone everywhere", SOME_TIME, || {
        for pc in office.pcs.iter_mut().enumerate().filter(|(i, pc)| *i != lost && pc.runs()).map(|(_, pc)| pc) {
            let there = pc.peers()?.into_iter().find(|p| p["id"] == id.as_str());
            if there.is_some_and(|p| unlisted || p["connected"] == true) {
                last = format!("{} still has it", pc.node.name);
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .context(|| last)
}

/// Multicast does not pass: peers of before are found by their addresses, and doctor says N2.
fn without_multicast(sheet: &mut Sheet, office: &mut Office) -> Outcome<()> {
    office.multicast(false)?;
    office.pcs.iter_mut().for_each(|pc| pc.signal(Signal::TERM));
    sheet.timed(Family::V4, "no multicast: from ready until all see each other", LIMIT, || {
        let start = office.start()?;
        office.wait_all_see(&[0, 1, 2, 3, 4], SOME_TIME)?;
        Ok(start.elapsed())
    });
    sheet.timed(Family::V4, "no multicast: doctor says N2", Duration::from_secs(15), || {
        let start = Instant::now();
        wait_until("N2", SOME_TIME, || {
            let said = office.pcs[1].node.command(["doctor"]).output()?;
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let line = said.lines().find(|l| l.contains("discovery"));
            Ok(line.is_some_and(|l| l.contains("N2")).then_some(()))
        })?;
        Ok(start.elapsed())
    });
    office.multicast(true)?;
    office.pcs.iter_mut().for_each(|pc| pc.signal(Signal::TERM));
    office.start()?;
    office.wait_all_see(&[0, 1, 2, 3, 4], SOME_TIME)?;
    sheet.timed(Family::V4, "multicast again: doctor says so", Duration::from_secs(15), || {
        let start = Instant::now();
        wait_until("discovery works", SOME_TIME, || {
            let status = office.pcs[1].ask(&json!({"call": "status"}))?;
            Ok((status["discovery"]["state"] == "works").then_some(()))
        })?;
        Ok(start.elapsed())
    });
    Ok(())
}

/// A member that is taken out: no link anywhere, no worker, and it knows.
fn removal(sheet: &mut Sheet, family: Family, office: &mut Office) -> Outcome<()> {
    let out = office.pcs[2].id.clone();
    sheet.timed(family, "a removed node is cut off everywhere", LIMIT, || {
        let start = Instant::now();
        let answer = office.pcs[0].ask(&json!({"call": "team_remove", "node": out}))?;
        if answer.get("error").is_some() {
            return Err(Trouble::new(format!("team_remove: {answer}")));
        }
        until_gone(office, 2, true)?;
        wait_until("it has no link", SOME_TIME, || Ok(office.pcs[2].connected()?.is_empty().then_some(())))?;
        Ok(start.elapsed())
    });
    // Whoever goes on with its old key all the same is in the node's own tests.
    sheet.timed(family, "it says that it was removed, and has no link", LIMIT, || {
        let start = Instant::now();
        wait_until("its problem", SOME_TIME, || {
            let status = office.pcs[2].ask(&json!({"call": "status"}))?;
            let mut problems = status["problems"].as_array().into_iter().flatten();
            Ok(problems.any(|p| p["code"] == "R2").then_some(()))
        })?;
        if !office.pcs[2].connected()?.is_empty() {
            return Err(Trouble::new("it has a link"));
        }
        Ok(start.elapsed())
    });
    sheet.timed(family, "its compile gets no worker and works", LIMIT, || {
        let pc = &office.pcs[2];
        let dir = pc.dir().join("src");
        pc.node.person.make_dir(&dir)?;
        fs::write(dir.join("a.c"), "int a;\n")?;
        let argv = ["/usr/bin/gcc", "-c", "a.c", "-o", "a.o"].map(Into::into).to_vec();
        let start = Instant::now();
        let seen = run(Via::Pool(&pc.node).command(&Job { cwd: dir.clone(), argv }), "potluck")?;
        let took = start.elapsed();
        if seen.exit != 0 || !dir.join("a.o").is_file() {
            return Err(Trouble::new(format!("it failed: {}", String::from_utf8_lossy(&seen.stderr))));
        }
        let remote = pc.node.status()?.number("/jobs/remote")?;
        if remote == 0 { Ok(took) } else { Err(Trouble::new("it ran elsewhere")) }
    });
    office.wait_all_see(&[0, 1, 3, 4], LIMIT)
}
