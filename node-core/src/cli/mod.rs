//! The command line: one table (clap's) for parser, help and, later, man page and completions. Each command asks the
//! running node of the same XDG folders, or is the node.

mod show;
mod team;
mod tools;

use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use potluck_wire::ipc::{self, Reply, Request};
use serde_json::{Value, json};

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
        /// Address and port for other nodes
        #[arg(long, default_value = "0.0.0.0:10555")]
        listen: SocketAddr,
        /// Run jobs of the team, this many at a time
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
        /// No window (there is none yet: accepted for unit files)
        #[arg(long)]
        headless: bool,
    },
    /// What this node does now
    #[command(visible_alias = "-s")]
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Why jobs ran where they ran: `last`, a source file or job number, or `-- COMMAND` for one that has not run
    Explain {
        /// `last`, FILE or JOB
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
    /// Check everything that must work, and say what to do
    Doctor {
        /// For programs
        #[arg(long)]
        json: bool,
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
    Path,
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
        Command::Node { listen, serve, local_compiles, local_slots, name, no_fuse, quota, headless: _ } => {
            // A connection that ends is no reason for a node to end.
            end_on_closed_pipe(false);
            let quota_bytes = quota << 20;
            node::run(node::Options { listen, serve, local_slots, local_compiles, name, no_fuse, quota_bytes })?;
        }
        Command::Status { json } => show::status(&call(&json!({"call": "status"}))?, json),
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
        Command::Doctor { json } => return show::doctor(json),
        Command::Log { json, last, role } => {
            show::log(&call(&json!({"call": "log", "limit": last, "role": role}))?, json);
        }
        // "make -j0" is an error.
        Command::Jobs => println!("{}", call(&json!({"call": "suggest"}))?["jobs"].as_u64().unwrap_or(1).max(1)),
        Command::Path => println!("{}", Dirs::from_env().masquerade().display()),
        Command::Toolchain { command } => tools::run(command)?,
        Command::Team { command } => team::run(command)?,
        Command::Peers { command: Peers::Add { address } } => {
            let usage = |text: String| Failure { exit: 2, text };
            match address.rsplit_once(':') {
                None => return Err(usage(format!("{address}: a port is missing, such as {address}:10555"))),
                Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
                    return Err(usage(format!("{address}: an IPv6 address goes in brackets, such as [fe80::1]:10555")));
                }
                Some((host, port))
                    if host.is_empty() || port.parse::<u16>().is_ok_and(|p| p == 0) || port.parse::<u16>().is_err() =>
                {
                    return Err(usage(format!(
                        "{address}: host name and port number are expected, such as 192.0.2.17:10555"
                    )));
                }
                Some(_) => {}
            }
            call(&json!({"call": "peers_add", "address": address}))?;
            println!("{address} is tried from now on; potluck peers list shows whether it answers");
        }
        Command::Peers { command: Peers::List { json } } => show::peers(&call(&json!({"call": "status"}))?, json),
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

/// Sends everything; a node that is gone is an error here, not the end of this process.
fn send(stream: &UnixStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::net::send(stream, bytes, rustix::net::SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Asks the node and hands over every answer up to the last.
pub(crate) fn call_each(request: &Value, mut each: impl FnMut(Value)) -> Result<(), Failure> {
    let path = Dirs::from_env().socket();
    let owner = std::fs::metadata(&path).map(|m| std::os::unix::fs::MetadataExt::uid(&m));
    if owner.is_ok_and(|uid| uid != rustix::process::geteuid().as_raw()) {
        let text = format!("{} belongs to another user; a node answers only its own", path.display());
        return Err(Failure { exit: 3, text });
    }
    let mut stream = UnixStream::connect(&path).map_err(|_| Failure {
        exit: 3,
        text: format!("no node runs here ({}); start it with: potluck node", path.display()),
    })?;
    let io = |error: std::io::Error| Failure { exit: 1, text: format!("the node ended before it answered: {error}") };
    send(&stream, &ipc::encode(&Request::Api { json: request.to_string() })).map_err(io)?;
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head).map_err(io)?;
        let len = ipc::frame_len(head).map_err(|e| Failure::from(e.to_string()))?;
        let mut body = vec![0; len];
        stream.read_exact(&mut body).map_err(io)?;
        match ipc::decode::<Reply>(&body).map_err(|e| Failure::from(e.to_string()))? {
            Reply::Api { json, last } => {
                let value: Value = serde_json::from_str(&json).map_err(|e| Failure::from(e.to_string()))?;
                if let Some(error) = value.get("error").and_then(Value::as_str) {
                    let exit = if error.contains("no team") { 4 } else { 1 };
                    return Err(Failure { exit, text: error.to_owned() });
                }
                each(value);
                if last {
                    return Ok(());
                }
            }
            other => return Err(Failure::from(format!("the node answered {other:?}"))),
        }
    }
}
