//! Many nodes, submitting and serving, through crashes, silences, owners who come back and results that fail. Every run
//! is a function of its seed; the seed is printed when a promise is broken.

mod place_sim_pool;

use place_sim_pool::{Plan, Pool};

/// Runs seeds and names the one that broke a promise. `SIM_SEEDS` asks for so many instead of the few of every commit.
fn run(seeds: std::ops::Range<u64>, nodes_max: u64, jobs: u64) {
    let count = std::env::var("SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(seeds.end - seeds.start);
    for seed in seeds.start..seeds.start + count {
        let outcome = std::panic::catch_unwind(|| Pool::new(seed, Plan { nodes_max, jobs, faults: true }).run());
        if outcome.is_err() {
            panic!("broken with seed {seed}, at most {nodes_max} nodes, {jobs} jobs");
        }
    }
}

#[test]
fn small_pools_end_every_job_exactly_once_whatever_happens() {
    run(0..120, 8, 500);
}

#[test]
fn middling_pools_end_every_job_exactly_once_whatever_happens() {
    run(1000..1060, 20, 500);
}

#[test]
fn large_pools_end_every_job_exactly_once_whatever_happens() {
    run(2000..2020, 50, 500);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let plan = Plan { nodes_max: 12, jobs: 300, faults: true };
    assert_eq!(Pool::new(7, plan).run().trace, Pool::new(7, plan).run().trace);
}

#[test]
fn a_quiet_pool_is_used_well() {
    let plan = Plan { nodes_max: 20, jobs: 1000, faults: false };
    let mut worst: f64 = 0.0;
    for seed in 0..10 {
        let run = Pool::new(seed, plan).run();
        println!("seed {seed}: {:.1} s, bound {:.1} s", run.makespan_s, run.bound_s);
        worst = worst.max(run.makespan_s / run.bound_s);
    }
    // The bound is all work divided by all speed, or the longest job on the fastest machine. At the start nobody knows
    // the speeds, which differ by six, and predictions are off by up to a half.
    assert!(worst < 2.5, "a build took {worst:.2} times the lower bound");
}
