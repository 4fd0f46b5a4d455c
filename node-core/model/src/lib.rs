//! Potluck's decisions, pure: no IO, no clock, no randomness. Time, file contents and seeds are arguments.
//!
//! Reading order: names first (`ids`, `limits`, `reason`), then what a command means (`options`, `plan`), what it
//! will read (`scan`, `certain`), what of a worker's answer is taken (`depfile`, `object`, `message`) and what it may ask for
//! (`asked`), where it runs (`place`), what this PC gives (`share`), who may take part (`team`), who is heard at the door
//! (`strangers`, `doorway`, `tries`), what one member may send (`budget`, `framing`, `outcasts`), how they find each other
//! (`nearby`, `alive`), and what is told of it all (`builds`, `notify`).

pub mod alive;
pub mod asked;
pub mod budget;
pub mod builds;
pub mod certain;
pub mod depfile;
pub mod doorway;
pub mod framing;
pub mod ids;
pub mod limits;
pub mod message;
pub mod names;
pub mod nearby;
pub mod notify;
pub mod object;
pub mod options;
pub mod outcasts;
pub mod place;
pub mod plan;
pub mod reason;
pub mod scan;
pub mod share;
pub mod strangers;
pub mod team;
pub mod tries;
pub mod trust;
