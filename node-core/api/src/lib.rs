//! What tray, window and command line say to a node, and what they are told: plain view types, and the words for people.
//! JSON on every transport. Nothing here decides anything, and nothing here knows how a node works.
//!
//! `call`: what can be asked. `view`: the snapshot that everything is drawn from. `build`: builds and their reports.
//! `tray`: what the tray shows of a snapshot. `words`: every sentence that more than one surface shows.

pub mod build;
pub mod call;
pub mod tray;
pub mod view;
pub mod words;

/// Raised when a field changes its meaning; fields are added freely.
pub const SCHEMA: u32 = 1;
