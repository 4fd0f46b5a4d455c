//! What packages make of the command line's table: completion scripts and the manual page, with variables, files and exit
//! codes that the table does not know. It asks no node.

use std::io::{self, Write};
use std::path::Path;

use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

/// Variables that people may set, with what they do. Tests hold this against the source.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "POTLUCK_CGROUP",
        "For the node: a control group (version 2) that its user owns. Each job has one below it, whose limits the kernel \
         enforces. Not needed where systemd runs the node.",
    ),
    ("POTLUCK_DISABLE", "1: run the compiler as if Potluck were not there. local: compile here, in a slot of this PC."),
    ("POTLUCK_FALLBACK", "0: fail with an exit code of 100 or more instead of compiling here."),
    (
        "POTLUCK_TRUST",
        "careful: use only what two PCs made the same. release: compile here, or on the PCs of trust_peers. Asks for more \
         care than the setting trust, never for less.",
    ),
    ("POTLUCK_WARN_LOCAL", "1: say on stderr why a compile runs here."),
    ("POTLUCK_VERBOSE", "1: say on stderr where every compile runs."),
    ("POTLUCK_CC", "Compiler to run where gcc, cc or clang is asked for through the masquerade directory."),
    ("POTLUCK_CXX", "The same for g++, c++ and clang++."),
    ("POTLUCK_PATH", "Directories to look for compilers in, instead of PATH."),
    (
        "POTLUCK_PATIENCE_MS",
        "How long the node may be silent before the compiler runs here; 250 if not set. One that is busy gets 20 times as long.",
    ),
    ("POTLUCK_BUILD_NAME", "Name of the build that this compile belongs to, instead of the project's folder."),
    ("POTLUCK_BUILD_ID", "The build that this compile belongs to; potluck run sets it."),
    ("POTLUCK_SOCKET", "The node's socket."),
    ("POTLUCK_CONFIG", "The settings' file, instead of $XDG_CONFIG_HOME/potluck/config.toml; read when a node starts."),
    (
        "POTLUCK_KEYRING",
        "1: keep this PC's key in the desktop's keyring also without a window; read when a node starts.",
    ),
    ("POTLUCK_UI_DIR", "Folder of the window's files for potluck ui; read when a node starts."),
    ("POTLUCK_PEERS", "Addresses of other nodes, separated by commas or spaces; read when a node starts."),
    ("POTLUCK_LOG", "debug: the node's log has details."),
];

const FILES: &[(&str, &str)] = &[
    (
        "$XDG_CONFIG_HOME/potluck/",
        "Addresses of other nodes and settings; ~/.config/potluck if the variable is not set.",
    ),
    (
        "$XDG_STATE_HOME/potluck/",
        "Its team (team/statements, and a copy beside it; potluck team restore gets a lost one back), the history of builds, the log (node.log), and this PC's key, unless the desktop's keyring has it: \
         potluck doctor says where it is; ~/.local/state/potluck if the variable is not set. Whoever has the key is \
         this PC. What a node finds damaged there it sets aside as FILE.damaged, and says so in the log.",
    ),
    ("$XDG_DATA_HOME/net.potluck.tray/", "What the window keeps; ~/.local/share/net.potluck.tray if it is not set."),
    (
        "$XDG_CACHE_HOME/potluck/",
        "Toolchains, files of other nodes, and bin/, the masquerade directory of this user; ~/.cache/potluck if the \
         variable is not set. Can be deleted while no node runs.",
    ),
    ("$XDG_RUNTIME_DIR/potluck/node.sock", "Where the node listens for compilers and commands of the same user."),
    ("/usr/lib/potluck/bin/", "The masquerade directory of all users, kept up to date by the package."),
];

const EXIT_OF_COMPILERS: &[(&str, &str)] = &[
    ("0 to 99", "The compiler's own, whether it ran here or elsewhere."),
    ("100", "With POTLUCK_FALLBACK=0: this command can only run here; potluck explain says why."),
    ("103, 107, 109", "With POTLUCK_FALLBACK=0: the node cannot be reached, ended, or speaks another version."),
    ("105, 116, 118", "With POTLUCK_FALLBACK=0: no memory, no other PC, or no answer in time."),
    ("111", "The name leads to Potluck itself and to no compiler."),
    ("126, 127", "The compiler cannot be executed, or is not there."),
    ("128+n", "The compiler was killed by signal n."),
];

const EXIT_OF_COMMANDS: &[(&str, &str)] = &[
    ("0", "Done."),
    ("1", "Failed."),
    ("2", "The command line is wrong."),
    ("3", "No node runs here."),
    ("4", "This PC is in no team."),
    ("5", "potluck doctor found a problem."),
];

const WAYS_IN: &[&str] = &[
    "With any other first word potluck acts as that compiler: potluck gcc -c a.c gives the same files, the same messages \
     and the same exit code as gcc -c a.c. What cannot travel is compiled here. A compiler that has the name of a command \
     is meant after --: potluck -- top -c a.c.",
    "A sample of what other PCs return is compiled again in idle moments, and who was wrong gets no jobs for a day: potluck \
     audit shows it. One wrong object of a PC that behaved well for long is missed with a probability of 99 %. potluck config \
     set trust careful uses only what two PCs made the same, at twice the cost; release asks no other PC.",
    "Called by a compiler's name, through a link, potluck acts as that compiler: put the directory that potluck path \
     prints, or /usr/lib/potluck/bin, first in PATH.",
];

/// Writes the completion script.
pub(super) fn completions(shell: Shell, mut command: clap::Command) {
    clap_complete::generate(shell, &mut command, "potluck", &mut io::stdout());
}

/// Writes the manual page.
pub(super) fn page(command: clap::Command) -> io::Result<()> {
    io::stdout().write_all(&render(command)?)
}

fn render(command: clap::Command) -> io::Result<Vec<u8>> {
    // A page has no use for "help", which is of use at the prompt only.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let man = Man::new(command.clone()).manual("Potluck").date("");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    let mut roff = Roff::new();
    roff.control("SH", ["NAME"]);
    roff.text([roman("potluck - compile C and C++ on the PCs of a team")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold("potluck"), roman(" "), italic("COMPILER"), roman(" "), italic("ARGUMENT"), roman("...")]);
    roff.control("br", []);
    roff.text([bold("potluck"), roman(" "), italic("COMMAND"), roman(" [...]")]);
    append(&mut page, &roff)?;
    part(&mut page, |out| man.render_description_section(out))?;
    let mut roff = Roff::new();
    for way in WAYS_IN {
        roff.control("PP", []);
        roff.text([roman(*way)]);
    }
    roff.control("SH", ["COMMANDS"]);
    roff.text([roman("Every one takes --help. potluck --version is potluck version.")]);
    append(&mut page, &roff)?;
    for sub in command.get_subcommands() {
        entry(&mut page, sub)?;
    }
    let mut roff = Roff::new();
    for (title, table) in [("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)] {
        roff.control("SH", [title]);
        rows(&mut roff, table);
    }
    roff.control("SH", ["EXIT STATUS"]);
    roff.text([roman("As a compiler:")]);
    rows(&mut roff, EXIT_OF_COMPILERS);
    roff.control("PP", []);
    roff.text([roman("As a command:")]);
    rows(&mut roff, EXIT_OF_COMMANDS);
    append(&mut page, &roff)?;
    Ok(page)
}

/// One command, and those below it.
fn entry(page: &mut Vec<u8>, command: &clap::Command) -> io::Result<()> {
    if command.is_hide_set() {
        return Ok(());
    }
    if command.has_subcommands() {
        return command.get_subcommands().try_for_each(|sub| entry(page, sub));
    }
    let mut roff = Roff::new();
    roff.control("SS", [command.get_bin_name().unwrap_or_else(|| command.get_name())]);
    append(page, &roff)?;
    // Every command has --help; once is enough.
    let command = command.clone().mut_args(|arg| if arg.get_id() == "help" { arg.hide(true) } else { arg });
    let man = Man::new(command);
    section_body(page, |out| man.render_description_section(out))?;
    section_body(page, |out| man.render_options_section(out))
}

fn rows(roff: &mut Roff, rows: &[(&str, &str)]) {
    for (name, meaning) in rows {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*meaning)]);
    }
}

/// Every part begins with the same two definitions; a page needs them once, and its title has brought them.
fn append(page: &mut Vec<u8>, roff: &Roff) -> io::Result<()> {
    part(page, |out| roff.to_writer(out))
}

fn part(page: &mut Vec<u8>, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    lines(page, |line| line.starts_with(b".ie ") || line.starts_with(b".el "), write)
}

/// A part without its headings: it stands below that of its command.
fn section_body(page: &mut Vec<u8>, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    lines(page, |line| [&b".ie "[..], b".el ", b".SH "].iter().any(|start| line.starts_with(start)), write)
}

fn lines(
    page: &mut Vec<u8>,
    is_left_out: impl Fn(&[u8]) -> bool,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut text = Vec::new();
    write(&mut text)?;
    for line in text.split_inclusive(|&b| b == b'\n').filter(|line| !is_left_out(line)) {
        page.extend_from_slice(line);
    }
    Ok(())
}

/// Makes the links of a directory that packages own, for the compilers of PATH.
pub(super) fn refresh_links(dir: &Path) -> Result<(), String> {
    let exe = std::env::current_exe().map_err(|e| format!("finding this program: {e}"))?;
    let path_env = std::env::var_os("PATH").unwrap_or_default();
    let links = crate::masquerade::refresh(&path_env, dir, &exe.with_file_name("potluck"));
    links.map(drop).map_err(|e| format!("{}: {e}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::collections::BTreeSet;

    fn text() -> String {
        let page = render(super::super::Arguments::command()).unwrap();
        String::from_utf8(page).unwrap().replace("\\-", "-")
    }

    /// Every name of a variable in what the programs are made of, without their tests.
    fn read_in_sources() -> BTreeSet<String> {
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut names = BTreeSet::new();
        let mut dirs = vec![top.join("src"), top.join("wrapper/src")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                if path.file_stem().is_some_and(|name| name == "manual" || name == "tests") {
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                for rest in code.split("\"POTLUCK_").skip(1) {
                    let name = rest.split(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap();
                    // One that ends in '_' is the beginning of several.
                    if !name.ends_with('_') {
                        names.insert(format!("POTLUCK_{name}"));
                    }
                }
            }
        }
        names
    }

    #[test]
    fn the_page_has_every_command_and_option() {
        fn check(page: &str, command: &clap::Command) {
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                if let Some(long) = arg.get_long() {
                    assert!(page.contains(&format!("--{long}")), "{}: --{long}", command.get_name());
                }
            }
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                if !sub.has_subcommands() {
                    assert!(page.contains(sub.get_bin_name().unwrap()), "{}", sub.get_name());
                }
                check(page, sub);
            }
        }
        let mut command = super::super::Arguments::command().disable_help_subcommand(true);
        command.build();
        check(&text(), &command);
    }

    #[test]
    fn every_variable_that_is_read_is_in_the_page_and_no_other() {
        // Between Potluck's own programs, and for development.
        const OWN: &[&str] =
            &["POTLUCK_LEVEL", "POTLUCK_NODE_BIN", "POTLUCK_POWER_SUPPLY", "POTLUCK_PROC", "POTLUCK_RUNNER"];
        let mut read = read_in_sources();
        read.retain(|name| !OWN.contains(&name.as_str()));
        let told: BTreeSet<String> = ENVIRONMENT.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(told, read);
    }

    #[test]
    fn completions_exist_for_every_shell_that_is_offered() {
        use clap::ValueEnum;
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut super::super::Arguments::command(), "potluck", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("toolchain"), "{shell}");
        }
    }
}
