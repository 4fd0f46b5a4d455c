//! The ways in which the identity run compiles each file: the plain one for all, the others for a sample.

/// One set of options, and what is prepared for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Name in tables.
    pub name: &'static str,
    /// Options besides the project's own.
    pub options: &'static [&'static str],
    /// clang 14 refuses it or has nothing like it.
    pub gcc_only: bool,
    /// A header that is included before everything, with or without its precompiled form.
    pub prefix: Prefix,
}

/// What `-include` names in a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// Nothing.
    None,
    /// A header that has a `.gch` of the same compiler and options beside it.
    Precompiled,
    /// A header without one.
    Plain,
    /// A header that brings a file of data into the object (`.incbin`), which only the assembler opens.
    Data,
}

const BASE: &[&str] = &["-O2", "-g", "-Wall", "-Wextra", "-MD"];

const fn mode(name: &'static str, options: &'static [&'static str]) -> Mode {
    Mode { name, options, gcc_only: false, prefix: Prefix::None }
}

const fn gcc_mode(name: &'static str, options: &'static [&'static str]) -> Mode {
    Mode { name, options, gcc_only: true, prefix: Prefix::None }
}

/// What every file is compiled with.
pub const PLAIN: Mode = mode("plain", &[]);
/// What a sample is compiled with.
pub const SAMPLED: &[Mode] = &[
    mode("split-dwarf", &["-gsplit-dwarf"]),
    mode("coverage", &["--coverage", "-frandom-seed=1"]),
    mode("save-temps", &["-save-temps"]),
    mode("stack-usage", &["-fstack-usage"]),
    gcc_mode("dump-tree", &["-fdump-tree-optimized"]),
    mode("lto", &["-flto", "-frandom-seed=1"]),
    mode("native", &["-march=native"]),
    Mode { name: "gch", options: &[], gcc_only: true, prefix: Prefix::Precompiled },
    Mode { name: "no-gch", options: &[], gcc_only: false, prefix: Prefix::Plain },
    Mode { name: "incbin", options: &[], gcc_only: false, prefix: Prefix::Data },
];

impl Mode {
    /// Options of a run in this mode.
    pub fn arguments(&self) -> Vec<String> {
        BASE.iter().chain(self.options).map(|s| s.to_string()).collect()
    }
}
