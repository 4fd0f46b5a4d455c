//! One compile that was done more than once: what is to be done next, and in the end who was wrong.

use crate::ids::{Digest, NodeId};

/// Where a run was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum At {
    /// On this PC, in a sandbox as everybody's.
    Here,
    /// On a peer.
    Peer(NodeId),
}

/// One run of the compile, and the digest of everything that came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Where.
    pub at: At,
    /// What came.
    pub came: Digest,
}

/// Who could run it once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reach {
    /// This PC has a sandbox.
    pub here: bool,
    /// A peer that has the toolchain and did not run it yet.
    pub others: bool,
}

/// What follows from the runs so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Run it here.
    Here,
    /// Run it on a peer that did not run it yet.
    Other,
    /// Run it on this peer again.
    Again(NodeId),
    /// That is that.
    Done(Verdict),
}

/// How a case ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All the same.
    Agree,
    /// The same PC makes different things of it: nobody is to blame.
    NotDeterministic,
    /// This peer's result is wrong. `confirmed`: another PC than this one says so too.
    Wrong {
        /// Whose.
        peer: NodeId,
        /// See above.
        confirmed: bool,
    },
    /// It cannot be told who is wrong; each of those that ran it is looked at more often.
    Unclear,
    /// Nobody can run it again.
    Nobody,
}

/// Runs here before it counts as deterministic.
const HERE_TWICE: usize = 2;

/// What to do next. The first run is the one that is looked at.
///
/// One run: a second one elsewhere, or here. Two that differ: here, twice; if these differ from each other the compile is not
/// deterministic. Else a peer that differs from here is wrong if another peer agrees with here. Where this PC cannot run
/// anything, the second peer runs it again and a third one decides.
pub fn next(runs: &[Run], reach: Reach) -> Next {
    let Some(first) = runs.first() else { return Next::Done(Verdict::Nobody) };
    if runs[1..].iter().all(|run| run.came == first.came) {
        return match runs.len() {
            1 if reach.others => Next::Other,
            1 if reach.here => Next::Here,
            1 => Next::Done(Verdict::Nobody),
            _ => Next::Done(Verdict::Agree),
        };
    }
    if let Some(verdict) = contradiction(runs) {
        return Next::Done(verdict);
    }
    let here: Vec<Digest> = runs.iter().filter(|run| run.at == At::Here).map(|run| run.came).collect();
    match here.first() {
        Some(truth) if here.len() >= HERE_TWICE => judged_here(runs, *truth, reach),
        _ if reach.here => Next::Here,
        _ => judged_elsewhere(runs, reach),
    }
}

/// The same PC said two things.
fn contradiction(runs: &[Run]) -> Option<Verdict> {
    let differs = |(n, run): (usize, &Run)| runs[..n].iter().any(|other| other.at == run.at && other.came != run.came);
    runs.iter().enumerate().any(differs).then_some(Verdict::NotDeterministic)
}

/// This PC came to the same twice.
fn judged_here(runs: &[Run], truth: Digest, reach: Reach) -> Next {
    let peers =
        || runs.iter().filter_map(|run| if let At::Peer(peer) = run.at { Some((peer, run.came)) } else { None });
    let wrong: Vec<NodeId> = peers().filter(|(_, came)| *came != truth).map(|(peer, _)| peer).collect();
    let confirmed = peers().any(|(_, came)| came == truth);
    match wrong[..] {
        [] => Next::Done(Verdict::Agree),
        [peer] if confirmed => Next::Done(Verdict::Wrong { peer, confirmed: true }),
        [_] if reach.others => Next::Other,
        [peer] => Next::Done(Verdict::Wrong { peer, confirmed: false }),
        // Two peers against this one, or three opinions.
        _ => Next::Done(Verdict::Unclear),
    }
}

/// This PC cannot run it: the second peer once more, then a third one.
fn judged_elsewhere(runs: &[Run], reach: Reach) -> Next {
    let first = runs[0];
    let Some(second) = runs[1..].iter().find(|run| run.at != first.at) else { return Next::Done(Verdict::Unclear) };
    let At::Peer(peer) = second.at else { return Next::Done(Verdict::Unclear) };
    if runs.iter().filter(|run| run.at == second.at).count() < 2 {
        return Next::Again(peer);
    }
    let third = runs.iter().find(|run| run.at != first.at && run.at != second.at);
    match (third, first.at) {
        (None, _) if reach.others => Next::Other,
        (Some(third), At::Peer(accused)) if third.came == second.came => {
            Next::Done(Verdict::Wrong { peer: accused, confirmed: true })
        }
        (Some(third), _) if third.came == first.came => Next::Done(Verdict::Wrong { peer, confirmed: true }),
        _ => Next::Done(Verdict::Unclear),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a PC compiles, in a simulation.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Nature {
        Honest,
        /// Always something else than what is right, always the same.
        Lies,
        /// Lies, and says the same as all others of its kind.
        Colludes,
    }

    fn peer(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    struct World {
        /// By number; 0 ran it first.
        peers: Vec<Nature>,
        here: bool,
        deterministic: bool,
    }

    impl World {
        /// Runs a case to its end; the verdict and the number of runs.
        fn settle(&self, seed: u64) -> (Verdict, usize) {
            let mut runs = Vec::new();
            let mut step = Next::Again(peer(0));
            loop {
                let at = match step {
                    Next::Done(verdict) => return (verdict, runs.len()),
                    Next::Here => At::Here,
                    Next::Again(peer) => At::Peer(peer),
                    Next::Other => {
                        let ran = |n: &usize| runs.iter().any(|run: &Run| run.at == At::Peer(peer(*n as u8)));
                        let free: Vec<usize> = (0..self.peers.len()).filter(|n| !ran(n)).collect();
                        At::Peer(peer(free[seed as usize % free.len()] as u8))
                    }
                };
                runs.push(Run { at, came: self.came(at, runs.len(), seed) });
                let ran = runs.iter().filter_map(|r| if let At::Peer(p) = r.at { Some(p.0[0]) } else { None });
                let others = ran.collect::<std::collections::HashSet<_>>().len() < self.peers.len();
                step = next(&runs, Reach { here: self.here, others });
                assert!(runs.len() <= 6, "it does not end: {runs:?}");
            }
        }

        fn came(&self, at: At, run: usize, seed: u64) -> Digest {
            let nature = match at {
                At::Here => Nature::Honest,
                At::Peer(peer) => self.peers[peer.0[0] as usize],
            };
            match (nature, at) {
                (Nature::Honest, _) if self.deterministic => Digest::of(b"right"),
                (Nature::Honest, _) => Digest::of(format!("{run} {seed}").as_bytes()),
                (Nature::Lies, At::Peer(peer)) => Digest::of(&peer.0),
                (Nature::Lies | Nature::Colludes, _) => Digest::of(b"agreed lie"),
            }
        }
    }

    #[test]
    fn a_liar_among_honest_ones_is_found_and_nobody_else_is_blamed() {
        let mut most = 0;
        for here in [true, false] {
            for honest in 1..8 {
                for seed in 0..200 {
                    let mut peers = vec![Nature::Lies];
                    peers.extend(vec![Nature::Honest; honest]);
                    let (verdict, runs) = World { peers, here, deterministic: true }.settle(seed);
                    most = most.max(runs);
                    let found = verdict == Verdict::Wrong { peer: peer(0), confirmed: true };
                    // Two PCs, and this one cannot compile: nobody can tell.
                    assert!(
                        found || !here && honest == 1 && verdict == Verdict::Unclear,
                        "{here} {honest} {verdict:?}"
                    );
                }
            }
        }
        println!("a liar is found with at most {most} runs");
    }

    #[test]
    fn an_honest_one_is_not_blamed_because_a_liar_compared_it() {
        for here in [true, false] {
            for seed in 0..200 {
                let peers = vec![Nature::Honest, Nature::Lies, Nature::Honest];
                let (verdict, _) = World { peers, here, deterministic: true }.settle(seed);
                let liar = Verdict::Wrong { peer: peer(1), confirmed: true };
                assert!(verdict == liar || verdict == Verdict::Agree, "{here} {seed}: {verdict:?}");
            }
        }
    }

    #[test]
    fn what_is_not_deterministic_blames_nobody() {
        for here in [true, false] {
            for peers in 1..8 {
                for seed in 0..200 {
                    let peers = vec![Nature::Honest; peers];
                    let alone = peers.len() == 1 && !here;
                    let (verdict, _) = World { peers, here, deterministic: false }.settle(seed);
                    assert_eq!(verdict, if alone { Verdict::Nobody } else { Verdict::NotDeterministic });
                }
            }
        }
    }

    #[test]
    fn two_that_conspire_blame_nobody_where_this_pc_can_compile() {
        for seed in 0..200 {
            let peers = vec![Nature::Colludes, Nature::Honest, Nature::Colludes];
            let (verdict, _) = World { peers, here: true, deterministic: true }.settle(seed);
            let right = Verdict::Wrong { peer: peer(0), confirmed: true };
            // They confirm each other where nobody honest was asked: that is the limit of a sample, and of `careful`.
            assert!([right, Verdict::Agree].contains(&verdict), "{verdict:?}");
            let peers = vec![Nature::Honest, Nature::Colludes, Nature::Colludes];
            let (verdict, _) = World { peers, here: true, deterministic: true }.settle(seed);
            assert!(!matches!(verdict, Verdict::Wrong { peer: blamed, .. } if blamed == peer(0)), "{verdict:?}");
        }
    }

    #[test]
    fn against_one_peer_this_pc_alone_is_no_confirmation() {
        let world = World { peers: vec![Nature::Lies], here: true, deterministic: true };
        assert_eq!(world.settle(0), (Verdict::Wrong { peer: peer(0), confirmed: false }, 3));
    }
}
