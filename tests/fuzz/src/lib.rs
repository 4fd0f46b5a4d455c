//! Everything that reads bytes of others, as functions of one input that panic where a promise is broken. `make fuzz`
//! leads inputs by coverage; `cargo test` runs the corpus and a fixed number of changed inputs.
//!
//! A target promises: no panic, memory and time within [`limits`], and what its own comment says. Inputs that once broke
//! one stay in `corpus/TARGET`.

pub mod limits;
pub mod memory;
pub mod mutate;
pub mod seeds;

mod commands;
mod contents;
mod frames;
mod frugal;
mod paths;
mod placing;
mod sources;
mod teams;
mod toolchains;
mod words;

/// One reader of foreign bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Also the name of its folder in `corpus`.
    pub name: &'static str,
    /// What it reads, for people.
    pub reads: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Rounds of the short form; those that touch a disk get fewer.
    pub short_rounds: u32,
}

/// Inputs of the short form, for targets without a disk.
const SHORT: u32 = 4000;
/// The same, for targets that write files.
const SHORT_ON_DISK: u32 = 150;

/// All of them.
pub const TARGETS: &[Target] = &[
    target("command", "argv and response files of gcc and clang", commands::command, SHORT),
    target("driver-output", "what a driver prints of its search list and commands", commands::driver_output, SHORT),
    target("depfile", "a dependency file", sources::depfile, SHORT),
    target("directives", "the directives of a source", sources::directives, SHORT),
    target("elf", "the dynamic section of a program", toolchains::elf, SHORT),
    target("manifest", "a toolchain's manifest", toolchains::manifest, SHORT),
    target("trace", "a trace of a compiler's probe", toolchains::trace, SHORT),
    target("archive", "a toolchain file", toolchains::archive, SHORT_ON_DISK),
    target("pool", "a frame between nodes", frames::pool, SHORT),
    target("hello", "a hello, and what it makes of a peer", frames::hello, SHORT),
    target("delta", "a delta, applied to a mirror", frames::delta, SHORT_ON_DISK),
    target("contents", "contents inside messages", contents::contents, SHORT),
    target("statement", "membership statements as bytes", teams::statement, SHORT / 8),
    target("team", "statements of a member who says anything its key can sign", teams::team, SHORT_ON_DISK),
    target("invitation", "an invitation, an address, a node id as typed", words::invitation, SHORT),
    target("announcement", "an announcement on the network", words::announcement, SHORT),
    target("ipc", "frames between wrapper and node", frames::ipc, SHORT),
    target("runner", "frames between node and sandbox", frames::runner, SHORT),
    target("call", "a call of window or command line", words::call, SHORT),
    target("settings", "a settings file", words::settings, SHORT_ON_DISK),
    target("paths", "paths that a worker names", paths::paths, SHORT),
    target("placing", "events of the submitter and the worker, in any order", placing::placing, SHORT / 4),
];

const fn target(name: &'static str, reads: &'static str, run: fn(&[u8]), short_rounds: u32) -> Target {
    Target { name, reads, run, short_rounds }
}

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}
