//! What a command line asks of `potluck`: act as a compiler, or run a management command. Pure: it looks at words only,
//! never at the file system.

/// Words that are management commands when they come first. A compiler of the same name is forced with `--`.
pub const SUBCOMMANDS: &[&str] = &[
    "status",
    "explain",
    "audit",
    "doctor",
    "log",
    "toolchain",
    "team",
    "peers",
    "node",
    "path",
    "jobs",
    "help",
    "version",
    "run",
    "top",
    "report",
    "share",
    "config",
    "ui",
    "builds",
    "completions",
    "man",
    "unlock",
];

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The management program gets all arguments.
    Manage,
    /// The arguments from this index on are a compiler command.
    Compile(usize),
    /// Called under a compiler's name: all arguments are the command, and the real compiler is to be found.
    Masquerade,
}

/// The last component of a path.
pub fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

/// Reads the command line of the wrapper itself.
pub fn act(argv: &[&[u8]]) -> Act {
    if argv.first().is_some_and(|name| !name.is_empty() && base_name(name) != b"potluck") {
        return Act::Masquerade;
    }
    match argv.get(1) {
        Some(&b"--") if argv.len() > 2 => Act::Compile(2),
        // No compiler's name begins with '-': an option, known or mistyped, belongs to the management program.
        None | Some([] | [b'-', ..]) => Act::Manage,
        Some(word) if SUBCOMMANDS.iter().any(|s| s.as_bytes() == *word) => Act::Manage,
        Some(_) => Act::Compile(1),
    }
}

/// Whether the command asks the compiler about itself. Such a command gains nothing elsewhere, and tools parse its
/// output, so that it runs at once. A value that merely looks like such an option (`-o -v`) only costs a local compile.
pub fn is_query(args: &[&[u8]]) -> bool {
    args.iter().any(|arg| {
        // gcc takes every long option with one or with two dashes.
        let Some(name) = arg.strip_prefix(b"--").or_else(|| arg.strip_prefix(b"-")) else { return false };
        match name {
            b"v" => arg.len() == 2,
            b"###" | b"version" | b"verbose" | b"help" | b"target-help" => true,
            // Not -dumpbase, -dumpbase-ext and -dumpdir: they name outputs of a compile.
            b"dumpmachine" | b"dumpversion" | b"dumpfullversion" | b"dumpspecs" => true,
            _ => name.starts_with(b"print-") || name.starts_with(b"help="),
        }
    })
}

/// Whether `POTLUCK_CXX` rather than `POTLUCK_CC` replaces this compiler; `None` for names that neither does: a cross
/// compiler replaced by the native one would make wrong objects.
pub fn is_native_cxx(name: &[u8]) -> Option<bool> {
    let digits = name.iter().rev().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
    let plain = match &name[..name.len() - digits] {
        stem if digits > 0 => stem.strip_suffix(b"-")?,
        stem => stem,
    };
    match plain {
        b"cc" | b"gcc" | b"clang" => Some(false),
        b"c++" | b"g++" | b"clang++" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act_of(line: &str) -> Act {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        act(&words)
    }

    #[test]
    fn a_compiler_is_what_is_no_subcommand() {
        assert_eq!(act_of("potluck gcc -c a.c"), Act::Compile(1));
        assert_eq!(act_of("/usr/bin/potluck x86_64-w64-mingw32-gcc -c a.c"), Act::Compile(1));
        assert_eq!(act_of("potluck ./status -c a.c"), Act::Compile(1));
        assert_eq!(act_of("potluck status --json"), Act::Manage);
        assert_eq!(act_of("potluck -s"), Act::Manage);
        assert_eq!(act_of("potluck --version"), Act::Manage);
        assert_eq!(act_of("potluck"), Act::Manage);
        assert_eq!(act_of("potluck --"), Act::Manage);
        assert_eq!(act(&[]), Act::Manage);
    }

    #[test]
    fn two_dashes_force_a_compiler_named_like_a_subcommand() {
        assert_eq!(act_of("potluck -- top -c a.c"), Act::Compile(2));
    }

    #[test]
    fn another_name_is_a_masquerade() {
        assert_eq!(act_of("gcc -c a.c"), Act::Masquerade);
        assert_eq!(act_of("/home/u/.cache/potluck/bin/c++ status"), Act::Masquerade);
    }

    #[test]
    fn questions_are_told_from_compiles() {
        let query = |line: &str| is_query(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        for line in ["-v", "--version", "-dumpmachine", "-print-file-name=libc.a", "--print-search-dirs", "-### -c a.c"]
        {
            assert!(query(line), "{line}");
        }
        for line in ["-c a.c -o a.o", "-dumpbase a.c -c a.c", "-dumpdir x -c a.c", "-fverbose-asm -c v.c", "--v -c a.c"]
        {
            assert!(!query(line), "{line}");
        }
    }

    #[test]
    fn only_native_names_are_replaced() {
        assert_eq!(is_native_cxx(b"gcc"), Some(false));
        assert_eq!(is_native_cxx(b"clang++-14"), Some(true));
        assert_eq!(is_native_cxx(b"g++-4.8"), Some(true));
        assert_eq!(is_native_cxx(b"arm-linux-gnueabihf-gcc"), None);
        assert_eq!(is_native_cxx(b"gcc14"), None);
        assert_eq!(is_native_cxx(b""), None);
    }
}
