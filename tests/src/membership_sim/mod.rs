//! The team's statements under everything that networks and dishonest members do to them, replayed from a seed: nodes
//! with sets of their own, partitions, loss, reordering, replays, keepers against each other, a stolen keeper key that
//! back-dates, and a member that says anything that its key can sign. The rules are the product's (the pure model and the
//! node's codec); only Ed25519 is replaced by a keyed hash, because two thousand seeds check a hundred million of them.

mod hostile;
mod keys;
mod world;

use std::fmt;

pub use keys::Dice;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Nodes; none: 5 to 200, by the seed.
    pub nodes: Option<usize>,
    /// Things that happen in one run.
    pub events: usize,
}

/// Most nodes of a run.
pub const NODES_MAX: usize = 200;
/// Fewest: three keepers, a hostile member, and somebody to be honest.
pub const NODES_MIN: usize = 5;

/// What one run found out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Nodes that took part.
    pub nodes: usize,
    /// Things that happened.
    pub events: usize,
    /// Batches that were taken in, each time into another set.
    pub merges: usize,
    /// Statements that the hostile member signed.
    pub lies: usize,
    /// Bytes of the largest set that there was.
    pub set_bytes: usize,
    /// Most bytes that the hostile member had in any set.
    pub member_bytes: usize,
}

impl Figures {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.nodes = self.nodes.max(other.nodes);
        self.events += other.events;
        self.merges += other.merges;
        self.lies += other.lies;
        self.set_bytes = self.set_bytes.max(other.set_bytes);
        self.member_bytes = self.member_bytes.max(other.member_bytes);
    }
}

/// A promise that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Runs it again.
    pub seed: u64,
    /// What did not hold.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

/// One run from its seed.
pub fn run(seed: u64, plan: Plan) -> Result<Figures, Violation> {
    let mut dice = Dice::new(seed);
    let count = plan.nodes.unwrap_or_else(|| NODES_MIN + dice.below(NODES_MAX - NODES_MIN + 1));
    let mut world = world::World::new(dice, count);
    world.play(plan.events).and_then(|()| world.heal()).map_err(|what| Violation { seed, what })?;
    Ok(world.figures())
}
