//! Members that break rules: they joined by a real invitation and speak the real protocol over the node's own transport,
//! and say whatever they like.

pub mod flood;
pub mod peer;
pub mod program;
pub mod relay;

pub use flood::{Flood, Make};
pub use peer::{Hostile, Wire};
pub use relay::{Relay, Tamper};
