//! What the node and the runner say to each other, and a blocking client for programs without an async runtime. The
//! sandbox itself is in the binary.

pub mod client;
pub mod protocol;
