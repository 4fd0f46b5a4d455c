//! The command line: one table (clap's) for parser, help, man page and completions. Each command asks the
//! running node of the same XDG folders, or is the node.

mod audit;
mod builds;
mod bundle;
mod manual;
mod redact;
mod run;
mod share;
mod show;
mod team;
mod tools;
mod ui;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use serde_json::{Value, json};

use crate::client::{self, Conversation};
use crate::dirs::Dirs;
use crate::node;

/// Everyone brings the cores they are not using: a compile pool of the PCs that you have.
#[derive(Parser)]
#[command(name = "potluck", version, after_help = "Any other first word is a compiler: potluck gcc -c a.c")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node in the foreground, without a window
    Node {
        /// Address and port for other nodes [default: every address, port 10555, or any if that is taken]
        #[arg(long)]
        listen: Option<SocketAddr>,
        /// Neither look for other nodes on the local networks nor be found there: for closed networks and tests
        #[arg(long)]
        no_discovery: bool,
        /// Run exactly this many jobs of the team at a time, whatever the settings say [default: as they say]
        #[arg(long, value_name = "SLOTS")]
        serve: Option<u32>,
        /// Compiles that run here although they could travel; 0 keeps them off this PC
        #[arg(long, value_name = "N")]
        local_compiles: Option<u32>,
        /// Everything that runs here at a time [default: number of cores]
        #[arg(long, value_name = "N")]
        local_slots: Option<u32>,
        /// Name shown to the team [default: host name]
        #[arg(long)]
        name: Option<String>,
        /// Do not use /dev/fuse: jobs whose lookups could be swallowed are then not taken
        #[arg(long)]
        no_fuse: bool,
        /// MiB of disk for one submitter's files
        #[arg(long, value_name = "MIB", default_value_t = potluck_model::limits::MIRROR_QUOTA_BYTES >> 20)]
        quota: u64,
        /// No tray and no window, as this command never has: for unit files that say so. The tray app has a node inside
        #[arg(long)]
        headless: bool,
        /// Simulate a team instead: nothing is real, and the same SEED shows the same
        #[arg(long, value_name = "SEED")]
        demo: Option<u64>,
        /// Serve the window at this loopback address from the start [default: at the first potluck ui]
        #[arg(long, value_name = "ADDR", value_parser = crate::web::loopback)]
        web: Option<SocketAddr>,
    },
    /// Run a build command: its jobs are one build, and compilers on its PATH are Potluck
    Run {
        /// No summary
        #[arg(short, long)]
        quiet: bool,
        /// Name of the build [default: that of the project's folder]
        #[arg(long)]
        name: Option<String>,
        /// Leave PATH as it is
        #[arg(long)]
        no_wrap: bool,
        /// The command, such as make -j16
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<std::ffi::OsString>,
    },
    /// Builds so far, newest first
    Builds {
        /// For programs
        #[arg(long)]
        json: bool,
        /// Only the last N [default: 20]
        #[arg(short = 'n', value_name = "N")]
        last: Option<u32>,
    },
    /// What a build did: where its jobs ran, what it waited for
    Report {
        /// `last`, or an id or name of `potluck builds`
        #[arg(default_value = "last")]
        build: String,
        /// For programs
        #[arg(long)]
        json: bool,
        /// Write all jobs as a Chrome trace
        #[arg(long, value_name = "FILE")]
        trace: Option<std::path::PathBuf>,
        /// Write all jobs as comma-separated values
        #[arg(long, value_name = "FILE")]
        csv: Option<std::path::PathBuf>,
    },
    /// What this node does now
    #[command(visible_alias = "-s")]
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Lend spare cores, or not
    Share {
        #[command(subcommand)]
        command: share::Share,
    },
    /// Settings, as config.toml has them
    Config {
        #[command(subcommand)]
        command: share::Config,
    },
    /// Whether what other PCs returned was right: a sample of it is compiled again
    Audit {
        /// For programs
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        command: Option<audit::Audit>,
    },
    /// Why jobs ran where they ran: `last`, a build, a source file or job number, or `-- COMMAND` for one that has not run
    Explain {
        /// `last`, BUILD, FILE or JOB
        what: Option<String>,
        /// For programs
        #[arg(long)]
        json: bool,
        /// Print the option table that decides
        #[arg(long)]
        options: bool,
        /// A compiler command
        #[arg(last = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Ask the desktop's keyring for this PC's key once more; it may ask you for its password
    Unlock,
    /// Check everything that must work, and say what to do
    Doctor {
        /// For programs
        #[arg(long, conflicts_with = "bundle")]
        json: bool,
        /// Write a report for support to this new file, with names, addresses and paths removed
        #[arg(long, value_name = "FILE")]
        bundle: Option<std::path::PathBuf>,
    },
    /// Jobs of this node, as submitter and as worker
    Log {
        /// For programs: one JSON object a line
        #[arg(long)]
        json: bool,
        /// Only the last N
        #[arg(short = 'n', long, value_name = "N")]
        last: Option<usize>,
        /// Only jobs that this node sent, or only those that it ran for others
        #[arg(long, value_parser = ["submitter", "worker"])]
        role: Option<String>,
    },
    /// A number for make -j
    #[command(visible_alias = "-j")]
    Jobs,
    /// Directory of compiler names that are potluck: put it first in PATH
    Path {
        /// Make the links of this directory, for all users: packages do that
        #[arg(long, value_name = "DIR", hide = true)]
        refresh: Option<std::path::PathBuf>,
    },
    /// Compilers and where they can be used
    Toolchain {
        #[command(subcommand)]
        command: tools::Toolchain,
    },
    /// The team that shares cores
    Team {
        #[command(subcommand)]
        command: team::Team,
    },
    /// Other nodes
    Peers {
        #[command(subcommand)]
        command: Peers,
    },
    /// Print a completion script for a shell
    Completions {
        /// Whose
        shell: clap_complete::Shell,
    },
    /// Print the manual page: potluck man | man -l -
    Man,
    /// Open the window in the browser
    Ui {
        /// Only print its address; it is good once, for a minute
        #[arg(long)]
        print: bool,
    },
    /// This version
    Version,
}

#[derive(Subcommand)]
enum Peers {
    /// Try this address from now on; remembered
    Add {
        /// Host name or address, and port
        address: String,
    },
    /// Do not try this address any more
    Remove {
        /// As it was added, or as the list shows it
        address: String,
    },
    /// All that are known
    List {
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

fn duration_s(text: &str) -> Result<u64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let count: u64 = digits.parse().map_err(|_| "a number and s, m, h or d is expected, such as 24h".to_owned())?;
    match unit {
        "s" | "" => Ok(count),
        "m" => Ok(count * 60),
        "h" => Ok(count * 3600),
        "d" => Ok(count * 86400),
        _ => Err(format!("{unit} is no unit of time; use s, m, h or d")),
    }
}

/// Why a command failed: its exit code (UX 3.4) and a sentence.
pub(crate) struct Failure {
    pub(crate) exit: u8,
    pub(crate) text: String,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { exit: 1, text }
    }
}

impl From<client::Trouble> for Failure {
    fn from(trouble: client::Trouble) -> Self {
        let exit = if matches!(trouble, client::Trouble::Broken(_)) { 1 } else { 3 };
        Self { exit, text: trouble.to_string() }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    end_on_closed_pipe(true);
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(arguments.command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("potluck: {}", failure.text);
            ExitCode::from(failure.exit)
        }
    }
}

/// Whether this process dies of writing where nobody reads any more, as the tools do that it is piped into. Rust's
/// runtime has switched that off; `println` would panic instead.
fn end_on_closed_pipe(yes: bool) {
    let action = if yes { libc::SIG_DFL } else { libc::SIG_IGN };
    // SAFETY: changes one disposition of this process, which has one thread at this point; no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, action) };
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Node {
            listen,
            no_discovery,
            serve,
            local_compiles,
            local_slots,
            name,
            no_fuse,
            quota,
            headless: _,
            demo,
            web,
        } => {
            // A connection that ends is no reason for a node to end.
            end_on_closed_pipe(false);
            crate::presence::desktop::start_no_bus();
            if let Some(seed) = demo {
                crate::demo::run(seed, web)?;
                return Ok(ExitCode::SUCCESS);
            }
            let quota_bytes = quota << 20;
            let discovery = !no_discovery;
            node::run(node::Options {
                listen,
                discovery,
                serve,
                local_slots,
                local_compiles,
                name,
                desktop: false,
                no_fuse,
                quota_bytes,
                web,
            })?;
        }
        Command::Run { quiet, name, no_wrap, command } => {
            return run::run(&run::Options { is_quiet: quiet, name, no_wrap, command });
        }
        Command::Builds { json, last } => builds::builds(last, json)?,
        Command::Report { build, json, trace, csv } => {
            let exports = builds::Exports { json, trace: trace.as_deref(), csv: csv.as_deref() };
            builds::report(&build, &exports)?;
        }
        Command::Status { json } => show::status(&call(&json!({"call": "status"}))?, json),
        Command::Share { command } => share::share(command)?,
        Command::Config { command } => share::config(command)?,
        Command::Audit { json, command } => audit::run(command, json)?,
        Command::Explain { what, json, options, command } => {
            if options {
                for line in potluck_model::options::lines() {
                    println!("{line}");
                }
            } else if !command.is_empty() {
                show::explain_command(&command, json)?;
            } else {
                let what = what.unwrap_or_else(|| "last".to_owned());
                let cwd = std::env::current_dir().map(|d| d.to_string_lossy().into_owned()).ok();
                show::explain(&call(&json!({"call": "explain", "what": what, "cwd": cwd}))?, json);
            }
        }
        Command::Unlock => {
            call(&json!({"call": "unlock_key"}))?;
            println!("The keyring is asked. potluck status says where the key lies.");
        }
        Command::Doctor { bundle: Some(file), .. } => bundle::write(&file)?,
        Command::Doctor { json, bundle: None } => return show::doctor(json),
        Command::Log { json, last, role } => {
            show::log(&call(&json!({"call": "log", "limit": last, "role": role}))?, json);
        }
        // "make -j0" is an error.
        Command::Jobs => println!("{}", call(&json!({"call": "suggest"}))?["jobs"].as_u64().unwrap_or(1).max(1)),
        Command::Path { refresh: None } => println!("{}", Dirs::from_env().masquerade().display()),
        Command::Path { refresh: Some(dir) } => manual::refresh_links(&dir)?,
        Command::Toolchain { command } => tools::run(command)?,
        Command::Team { command } => team::run(command)?,
        Command::Peers { command: Peers::Add { address } } => {
            let address =
                crate::membership::invite::typed_address(&address).map_err(|text| Failure { exit: 2, text })?;
            call(&json!({"call": "peers_add", "address": address}))?;
            println!("{address} is tried from now on; potluck peers list shows whether it answers");
        }
        Command::Peers { command: Peers::Remove { address } } => {
            call(&json!({"call": "peers_remove", "address": address}))?;
            println!("{address} is not tried any more; a node there may still be found by the network");
        }
        Command::Peers { command: Peers::List { json } } => show::peers(&call(&json!({"call": "status"}))?, json),
        Command::Completions { shell } => manual::completions(shell, Arguments::command()),
        Command::Man => manual::page(Arguments::command()).map_err(|e| Failure::from(e.to_string()))?,
        Command::Ui { print } => ui::run(print)?,
        Command::Version => println!("potluck {}", env!("CARGO_PKG_VERSION")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the node; an answer with an error is a failure.
pub(crate) fn call(request: &Value) -> Result<Value, Failure> {
    let mut last = Value::Null;
    call_each(request, |value| last = value)?;
    Ok(last)
}

/// Asks the node and hands over every answer up to the last.
pub(crate) fn call_each(request: &Value, mut each: impl FnMut(Value)) -> Result<(), Failure> {
    let mut conversation = ask(request)?;
    while let Some(value) = answer_of(&mut conversation)? {
        each(value);
    }
    Ok(())
}

/// Sends a call; answers come in the conversation.
fn ask(request: &Value) -> Result<Conversation, Failure> {
    Ok(Conversation::begin(&Dirs::from_env().socket(), &request.to_string())?)
}

/// The next answer; one with an error is a failure.
fn answer_of(conversation: &mut Conversation) -> Result<Option<Value>, Failure> {
    let Some(answer) = conversation.next_answer()? else { return Ok(None) };
    let value: Value = serde_json::from_str(&answer).map_err(|e| Failure::from(e.to_string()))?;
    match value.get("error").and_then(Value::as_str) {
        Some(error) => {
            let exit = if error.contains("no team") { 4 } else { 1 };
            Err(Failure { exit, text: error.to_owned() })
        }
        None => Ok(Some(value)),
    }
}
