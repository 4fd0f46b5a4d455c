//! Every sentence that more than one surface shows, so that tray, window and command line say the same.

/// Nobody answers at the node's socket (UX 2.9, P1).
pub const NOT_RUNNING: &str = "Potluck isn't running in the background.";
