//! The short form of `make membership-sim`: fixed seeds, among them those that ever found something.

use potluck_tests::membership_sim::{Figures, Plan, run};

/// Seeds that found a fault once, and their nodes; they stay.
const FOUND_ONCE: &[(u64, usize)] = &[(8, 20), (13, 20), (204, 20), (34, 7), (160, 7), (279, 7)];

#[test]
fn whatever_is_said_in_whatever_order_all_agree_and_one_member_adds_little() {
    let mut sum = Figures::default();
    let others = (1..=40).map(|seed| (seed, 5 + seed as usize % 10));
    for (seed, nodes) in others.chain(FOUND_ONCE.iter().copied()) {
        let plan = Plan { nodes: Some(nodes), events: 60 };
        sum.add(run(seed, plan).unwrap_or_else(|violation| panic!("{nodes} nodes, {violation}")));
    }
    assert!(sum.lies > 1000 && sum.merges > 1000, "{sum:?}");
    println!("one ordinary member adds at most {} bytes", sum.member_bytes);
}
