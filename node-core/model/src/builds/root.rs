//! The process that a build began with, out of the ancestors of a wrapper that were found in /proc.

/// A process, told from a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    /// Process id.
    pub pid: u32,
    /// Start, clock ticks since boot.
    pub started: u64,
}

/// One ancestor as /proc/PID/stat shows it.
#[derive(Clone, Debug)]
pub struct Ancestor {
    /// Which.
    pub root: Root,
    /// Session id.
    pub session: u32,
    /// Name, at most 15 bytes.
    pub name: String,
}

/// Programs that run a build, by the 15 bytes that the kernel keeps of a name. Make starts itself again for folders,
/// CMake starts make, a package builder starts all of them: the outermost counts.
const DRIVERS: &[&str] = &[
    "make",
    "gmake",
    "bmake",
    "ninja",
    "ninja-build",
    "samu",
    "cmake",
    "ctest",
    "meson",
    "scons",
    "waf",
    "tup",
    "bazel",
    "buck",
    "buck2",
    "cargo",
    "b2",
    "bjam",
    "qbs",
    "xmake",
    "premake5",
    "redo",
    "dpkg-buildpacka",
    "debuild",
    "rpmbuild",
    "makepkg",
    "emerge",
    "abuild",
    "bitbake",
    "colcon",
    "catkin_make",
    "ccmake",
    "gradle",
    "mach",
];

/// Whether a program of this name runs builds: all that is compiled below its directory belongs to it.
pub fn is_driver(name: &str) -> bool {
    DRIVERS.contains(&name)
}

/// The root among `chain`, which begins with the wrapper's parent and goes outwards. Only its own session counts: what
/// lies beyond is a desktop, an editor or a service that lives for longer than a build.
///
/// The outermost program that is known to run builds; two of them that one script started are two builds. Else the
/// outermost process below the session's leader, because a leader is a shell that many builds are started from: a script
/// without make, or an unknown tool. Else none: a command that was typed into a shell.
pub fn root_of(chain: &[Ancestor]) -> Option<Root> {
    let session = chain.first()?.session;
    let own = || chain.iter().take_while(|a| a.session == session);
    let driver = own().filter(|a| is_driver(&a.name)).last();
    driver.or_else(|| own().filter(|a| a.root.pid != session).last()).map(|a| a.root)
}
