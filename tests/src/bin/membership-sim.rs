//! `make membership-sim`: the team's statements under partitions, loss, replays, back-dating, keepers against each other,
//! a stolen keeper key, and a member that says anything that its key can sign; see `membership_sim`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use potluck_model::team::MEMBER_BYTES_MAX;
use potluck_tests::membership_sim::{Figures, NODES_MAX, NODES_MIN, Plan, Violation, run};

#[derive(Parser)]
struct Args {
    /// Runs
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// First seed: that of a violation runs it again
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nodes of every run [default: 5 to 200, by the seed]
    #[arg(long, value_parser = clap::value_parser!(u64).range(NODES_MIN as u64..=NODES_MAX as u64))]
    nodes: Option<u64>,
    /// Things that happen in one run
    #[arg(long, default_value_t = 60)]
    events: usize,
}

/// Violations that are shown.
const SHOWN_MAX: usize = 10;

fn main() {
    let args = Args::parse();
    let plan = Plan { nodes: args.nodes.map(|n| n as usize), events: args.events };
    let started = Instant::now();
    let next = AtomicU64::new(args.seed);
    let sum: Mutex<(Figures, Vec<Violation>)> = Mutex::default();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= args.seed + args.seeds {
                return;
            }
            let ran = run(seed, plan);
            let mut sum = sum.lock().expect("no run panics while it adds");
            match ran {
                Ok(figures) => sum.0.add(figures),
                Err(violation) => {
                    eprintln!("VIOLATION {violation}");
                    sum.1.push(violation);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let (figures, violations) = sum.into_inner().expect("all threads are done");
    println!(
        "{} seeds, up to {} nodes, {} events, {} merges, {} statements of the hostile member, {:.0} s",
        args.seeds,
        figures.nodes,
        figures.events,
        figures.merges,
        figures.lies,
        started.elapsed().as_secs_f64()
    );
    println!("largest set: {} bytes", figures.set_bytes);
    println!("largest part of a set that one ordinary member caused: {} bytes", figures.member_bytes);
    let nodes = args.nodes.map_or_else(String::new, |nodes| format!(" --nodes {nodes}"));
    for Violation { seed, what } in violations.iter().take(SHOWN_MAX) {
        println!("again: membership-sim --seed {seed} --seeds 1{nodes} --events {}: {what}", args.events);
    }
    if violations.is_empty() {
        println!(
            "membership-sim: ok: {} seeds, 0 violations; one ordinary member adds at most {} bytes ({MEMBER_BYTES_MAX} allowed)",
            args.seeds, figures.member_bytes
        );
    } else {
        println!("membership-sim: MISSED: {} of {} seeds violate a promise", violations.len(), args.seeds);
        std::process::exit(1);
    }
}
