//! `make attacks`: members that break rules, as submitters with a compiler or a wire of their own and as workers that
//! lie. Each row of the table is a case of the threat model; whatever is not as it should be is a failure.

mod archive;
mod board;
mod compiler;
mod flood;
mod lies;
mod roots;
mod stranger;
mod submitter;
mod takes;
mod trust;
mod worker;

use clap::Parser;
use potluck_tests::hostile::Hostile as Member;
use potluck_tests::{Lab, Outcome, Plan, Trouble};

use board::Board;

/// Cases that a whole run covers.
const CASES: &[&str] = &[
    "1", "5", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19", "21", "24", "26", "27", "28", "29",
    "30", "31", "32", "33", "root",
];

/// Runs attacks on a worker and on a submitter.
#[derive(Parser)]
struct Args {
    /// Only attacks whose name contains this, or of this case.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() {
    let args = Args::parse();
    let mut board = Board::new(&args.only);
    if let Err(e) = by_strangers(&mut board) {
        board.failed(e.to_string());
    }
    if let Err(e) = roots::attacks(&mut board) {
        board.failed(e.to_string());
    }
    if let Err(e) = flood::attacks(&mut board) {
        board.failed(e.to_string());
    }
    // `--only stranger` needs none of what the others need.
    let is_trust = |(case, name): &(&str, &str)| args.only == *case || args.only == *name;
    let is_other = ["stranger", "another root", "flood"].iter().any(|own| args.only.starts_with(own));
    if !is_other && !trust::NAMES.iter().any(is_trust) {
        if let Err(e) = on_a_worker(&mut board) {
            board.failed(e.to_string());
        }
        if let Err(e) = on_a_submitter(&mut board) {
            board.failed(e.to_string());
        }
    }
    if let Err(e) = on_what_is_made(&mut board) {
        board.failed(e.to_string());
    }
    std::process::exit(board.close(CASES));
}

/// A pair that builds, and somebody else in its network.
fn by_strangers(board: &mut Board) -> Outcome<()> {
    if !stranger::ATTACKS.iter().any(|(case, name)| board.wants(case, name)) {
        return Ok(());
    }
    stranger::attacks(board)
}

/// A worker, its honest submitter, and a second submitter that is not.
fn on_a_worker(board: &mut Board) -> Outcome<()> {
    let hostile = compiler::Hostile::build()?;
    let mut lab = Lab::start_apart(Plan::new("attacks", 1, 3, std::slice::from_ref(&hostile.dir)))?;
    lab.submitter.node.potluck(&["team", "create", "lab"])?;
    // Before the worker, which learns of it when it joins.
    let member = Member::join(&lab, &lab.dir.join("member"), &lab.submitter.node.invite(1)?)?;
    lab.gather_workers()?;
    member.catch_up(&lab.submitter.node.address)?;
    compiler::plant_secrets(&lab)?;
    lab.submitter.node.potluck(&["toolchain", "add", &hostile.compiler.to_string_lossy()])?;
    lab.submitter.node.potluck(&["toolchain", "sync"])?;
    // Also makes mirror and sandbox stand before anything is compared.
    let first = hostile.compile(&lab, "none")?;
    if first.exit != 0 {
        return Err(Trouble::new(format!("the hostile compiler does not compile: {}", compiler::lossy(&first.stderr))));
    }
    compiler::attacks(board, &lab, &hostile)?;
    archive::attacks(board, &lab)?;
    takes::attacks(board, &lab, &member, &hostile)?;
    submitter::attacks(board, &mut lab, &member, &hostile)?;
    lab.check_isolation()
}

/// A submitter whose only worker lies.
fn on_a_submitter(board: &mut Board) -> Outcome<()> {
    if !["28", "30", "31"].iter().any(|case| worker::NAMES.iter().any(|name| board.wants(case, name))) {
        return Ok(());
    }
    worker::attacks(board)
}

/// A submitter with honest workers and one whose objects are plausible and wrong.
fn on_what_is_made(board: &mut Board) -> Outcome<()> {
    if !trust::NAMES.iter().any(|(case, name)| board.wants(case, name)) {
        return Ok(());
    }
    trust::attacks(board)
}
