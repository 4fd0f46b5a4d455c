//! Why a job ran where it ran. Stable strings: the command line, the window, JSON and tests use the same.

use std::fmt;

use serde::{Serialize, Serializer};

/// What class a reason belongs to; decides whether the user can avoid it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Cannot be distributed by nature.
    Only,
    /// An option of the command prevents it.
    Flag,
    /// The toolchain is not (yet) usable elsewhere.
    Toolchain,
    /// The pool has no room or nobody in it.
    Pool,
    /// Somebody chose so.
    Choice,
    /// Something failed.
    Failure,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $class:ident, $remedy:literal;)*) => {
        /// Why a job ran locally, was tried again, or was refused.
        #[derive(Clone, PartialEq, Eq, Debug, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
            /// The option named here is not known to be safe to send.
            UnsupportedFlag(String),
        }

        impl Reason {
            /// Every reason that carries no argument.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant),*];

            /// The stable code without its argument.
            pub fn code(&self) -> &'static str {
                match self {
                    $(Reason::$variant => $code,)*
                    Reason::UnsupportedFlag(_) => "unsupported-flag",
                }
            }

            /// The class that the code belongs to.
            pub fn class(&self) -> Class {
                match self {
                    $(Reason::$variant => Class::$class,)*
                    Reason::UnsupportedFlag(_) => Class::Flag,
                }
            }

            /// The reason of a code with its argument, as `Display` writes it.
            pub fn from_code(code: &str) -> Option<Reason> {
                match code.strip_prefix("unsupported-flag:") {
                    Some(flag) => Some(Reason::UnsupportedFlag(flag.to_owned())),
                    None => Reason::ALL.iter().find(|r| r.code() == code).cloned(),
                }
            }

            /// Something can be done about it: it is neither the nature of the job nor what placing found best.
            pub fn is_avoidable(&self) -> bool {
                !matches!(self.class(), Class::Only)
                    && !matches!(self, Reason::FasterHere | Reason::TooSmall | Reason::RaceWonHere)
            }

            /// The person can change something so that the next build travels. The rest of what is avoidable was chosen,
            /// or passes by itself.
            pub fn is_fixable(&self) -> bool {
                use Reason::*;
                let passes =
                    matches!(self, NoFreeSlot | PeerReclaimed | PeerLost | ToolchainPacking | InputChanged | NodeSilent);
                self.is_avoidable() && !passes && !matches!(self, DisabledByEnv | RemoteErrorLocalError)
            }

            /// One sentence: what it means and what the user can do.
            pub fn sentence(&self) -> &'static str {
                match self {
                    $(Reason::$variant => $remedy,)*
                    Reason::UnsupportedFlag(_) =>
                        "this option could name a file or depend on this machine; report it if it cannot",
                }
            }
        }
    };
}

reasons! {
    /// No `-c` and no `-S`.
    Link = "link", Only, "only this machine can link";
    /// `-E`, `-M`, `-MM`, `-fsyntax-only` and their like.
    PreprocessOnly = "preprocess-only", Only, "it only preprocesses or checks; that is faster here";
    /// Assembler sources that include others in ways that cannot be predicted.
    AssembleUnsafe = "assemble-with-cpp-unsafe", Only, "assembling is cheap and is done here";
    /// `-o -`, or output to a terminal or pipe.
    OutputToStdout = "output-to-stdout", Only, "its output goes to standard output";
    /// The source comes from standard input.
    SourceFromStdin = "source-from-stdin", Only, "its source comes from standard input";
    /// Several inputs with one output, or with messages that the driver may say only once.
    MultipleSources = "multiple-sources", Only, "several sources with one output or with messages are compiled in one go";
    /// `-v`, `--version`, `-print-*`, `-dumpmachine`, `-###`.
    QueryInvocation = "query-invocation", Only, "it asks the compiler a question and compiles nothing";
    /// A configure, CMake or Meson probe.
    Probe = "probe", Only, "a configure step's tiny test program; faster here";
    /// Makes a precompiled header.
    PchCreate = "pch-create", Only, "precompiled headers are made here";
    /// C++20 modules.
    ModuleScan = "module-scan", Only, "modules are compiled here";
    /// A language that Potluck does not send.
    UnsupportedLanguage = "unsupported-language", Only, "only C, C++ and Objective-C are sent";
    /// Not a compiler that Potluck knows.
    UnsupportedCompiler = "unsupported-compiler", Only, "only gcc and clang are sent";
    /// A mistake in the command line, a missing source or output folder: the compiler itself shall say so.
    BadCommand = "bad-command", Only, "the compiler itself reports what is wrong with the command";
    /// The existing output is a link, has several links or is no regular file.
    SpecialOutput = "special-output", Only, "the existing output is a link or no ordinary file";
    /// A file that an option makes is there, and this node does not know that the option made it.
    ExistingByProduct = "existing-by-product", Only, "an option writes over a file that Potluck does not know as its own; compiled here once, the next time it travels";
    /// What the compiler printed holds bytes that could steer a terminal.
    MessageBytes = "message-bytes", Only, "its messages hold control characters or bytes that are no text; they are shown from a compile here";
    /// A name in the dependency list that `make` could read as more than a name.
    DependencyNames = "dependency-names", Only, "a file's name holds characters that make could take for more than a name; its dependency list is written here";
    /// `-march=native` that could not be resolved.
    MarchNative = "march-native", Flag, "depends on this CPU; name the CPU, for example -march=x86-64-v3";
    /// Profile data that cannot be sent.
    ProfileData = "profile-data", Flag, "profile data could not be named exactly";
    /// Compiler plugins.
    Plugin = "plugin", Flag, "compiler plugins run here";
    /// `__DATE__`, `__TIME__` where the worker's clock would show.
    TimeMacro = "time-macro", Flag, "uses __DATE__ or __TIME__ with a compiler that ignores SOURCE_DATE_EPOCH; set it or remove them";
    /// A path under /tmp, /proc, /dev, /sys or /run.
    PathOutsideRoot = "path-outside-root", Flag, "uses files under /tmp, /proc, /dev or /sys, which are private to each job; move the tree elsewhere";
    /// Asked in a container, chroot or mount namespace that is not the node's.
    OtherRoot = "other-root", Flag, "asked in another root than Potluck's (a container, chroot or mount namespace), where the same paths are other files; it is compiled there. Build outside it, or run a node inside";
    /// An environment variable that steers the compiler in a way that cannot be sent.
    Environment = "environment", Flag, "an environment variable steers this compiler in a way that is not sent";
    /// Being packed for the first time.
    ToolchainPacking = "toolchain-packing", Toolchain, "the compiler is being packed; the next jobs will travel";
    /// On no worker yet.
    ToolchainNotSynced = "toolchain-not-synced", Toolchain, "the compiler is not on the other machines yet; potluck toolchain sync";
    /// A part of it could not be found.
    ToolchainIncomplete = "toolchain-incomplete", Toolchain, "a part of the compiler was not found; potluck toolchain list tells which";
    /// The worker does not accept toolchains of this submitter.
    ToolchainUntrusted = "toolchain-untrusted", Toolchain, "the other machine does not take compilers from this one";
    /// Did not reproduce the probe's bytes, or did not report every fault.
    ToolchainUnverified = "toolchain-unverified", Toolchain, "the compiler did not reproduce its probe on the other machine; potluck toolchain verify";
    /// A proof of a toolchain that was proved already, or was tried too often.
    ProofRefused = "proof-refused", Toolchain, "the compiler is not checked again on the other machine; restart Potluck here to begin anew";
    /// Not a member of a team.
    NoTeam = "no-team", Pool, "this PC is in no team; potluck team create or potluck team join";
    /// Nobody reachable.
    NoPeers = "no-peers", Pool, "no other machine can be reached; potluck doctor tells why";
    /// Everybody busy.
    NoFreeSlot = "no-free-slot", Pool, "all machines were busy";
    /// No worker of this architecture.
    ArchMismatch = "arch-mismatch", Pool, "no machine of this architecture is in the pool";
    /// Protocols without a common version.
    VersionMismatch = "version-mismatch", Pool, "the other machine's Potluck is too old or too new";
    /// The worker's user came back; tried again elsewhere.
    PeerReclaimed = "peer-reclaimed", Pool, "the other machine was taken back by its user";
    /// The worker was lost; tried again elsewhere.
    PeerLost = "peer-lost", Pool, "the connection to the other machine was lost";
    /// The link is too slow.
    SlowLink = "slow-link", Pool, "the network is too slow for this job";
    /// Few jobs: this PC is faster.
    FasterHere = "faster-here", Choice, "fewer files than free cores here";
    /// Too small to be worth it.
    TooSmall = "too-small", Choice, "too small to be worth sending";
    /// The second copy here finished first.
    RaceWonHere = "race-won-here", Choice, "a second copy here was faster";
    /// `POTLUCK_DISABLE`.
    DisabledByEnv = "disabled-by-env", Choice, "POTLUCK_DISABLE is set";
    /// `trust = careful`, and no second peer could compile it too.
    TrustCareful = "trust-careful", Choice, "trust is careful, and it could not be compared on two other machines";
    /// `trust = release`.
    TrustRelease = "trust-release", Choice, "trust is release: only this machine compiles, and those named in trust_peers";
    /// A setting of the user or the team.
    Policy = "policy", Choice, "a setting keeps it here";
    /// No sandbox anywhere.
    SandboxUnavailable = "sandbox-unavailable", Choice, "no machine has a sandbox that can run it";
    /// Failed there, worked here.
    RemoteErrorLocalOk = "remote-error-local-ok", Failure, "failed on the other machine, but not here: please report it";
    /// Failed there and here: the user's own error.
    RemoteErrorLocalError = "remote-error-local-error", Failure, "the source has an error; it is shown from a compile here";
    /// Faults did not end.
    FaultLimit = "fault-limit", Failure, "needed files that could not be predicted or sent";
    /// A worker asked for a path that it may not have.
    FaultRefused = "fault-refused", Failure, "needed a file outside the project and the compiler";
    /// An input changed while the job ran.
    InputChanged = "input-changed", Failure, "a source file changed during the compile";
    /// The worker's outputs broke a rule.
    BadOutput = "bad-output", Failure, "the other machine returned outputs that it must not";
    /// All peers that are there gave wrong results before.
    Quarantined = "quarantined", Failure, "the other machine gave a wrong result and gets no jobs for a day; potluck audit tells which";
    /// Two peers made different things of it.
    TrustDiffers = "trust-differs", Failure, "two machines returned different results, so it was compiled here; potluck audit tells who was wrong";
    /// The worker's compiler wrote a file that the options do not explain.
    UnexpectedOutput = "unexpected-output", Failure, "an option made a file that Potluck does not know; please report the command";
    /// The job hit a time limit.
    Timeout = "timeout", Failure, "took longer than a job may";
    /// The job hit another limit of the worker.
    LimitHit = "limit-hit", Failure, "needed more than a job may take on another machine";
    /// Disk full, there or here.
    DiskFull = "disk-full", Failure, "no disk space left";
    /// The worker ran out of memory.
    OutOfMemory = "out-of-memory", Failure, "needed more memory than the other machine could spare";
    /// The wrapper heard nothing for its patience, and has compiled.
    NodeSilent = "node-silent", Failure, "Potluck did not answer on this PC: it was stopped, or too busy";
    /// Something in Potluck failed.
    Internal = "internal", Failure, "something failed inside Potluck; potluck log tells what";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::UnsupportedFlag(flag) => write!(f, "unsupported-flag:{flag}"),
            other => f.write_str(other.code()),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(Reason::code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
    }
}
