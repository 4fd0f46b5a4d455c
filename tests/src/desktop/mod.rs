//! A desktop of our own for the tray app: a display, a session bus, and whoever shows tray icons on it.

pub mod banners;
pub mod display;
mod notifications;
pub mod tray;
mod watcher;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::person::Person;
use crate::wait::wait_until;
use crate::{Context, Outcome, Trouble};

/// A program that ends with the test.
pub struct Program {
    name: String,
    child: Child,
}

impl Program {
    /// Starts it.
    pub fn start(name: &str, command: &mut Command) -> Outcome<Self> {
        let child = command.stdin(Stdio::null()).spawn().context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// Starts it and waits for its first line on standard output.
    pub fn start_and_hear(name: &str, command: &mut Command) -> Outcome<(Self, String)> {
        let mut program = Self::start(name, command.stdout(Stdio::piped()))?;
        let out = program.child.stdout.take().context(|| format!("{name} has no output"))?;
        let mut line = String::new();
        let mut lines = BufReader::new(out);
        lines.read_line(&mut line).context(|| format!("reading from {name}"))?;
        if line.is_empty() {
            return Err(Trouble::new(format!("{name} ended before it was ready")));
        }
        // Whatever else it says is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.lines().map_while(Result::ok).for_each(drop));
        Ok((program, line.trim().to_owned()))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> Outcome<bool> {
        Ok(self.child.try_wait().context(|| format!("asking for {}", self.name))?.is_none())
    }

    /// How it ends by itself.
    pub fn ends_within(&mut self, deadline: Duration) -> Outcome<ExitStatus> {
        let (name, child) = (&self.name, &mut self.child);
        wait_until(&format!("the end of {name}"), deadline, || {
            child.try_wait().context(|| format!("asking for {name}"))
        })
    }

    /// Asks it to end, by a signal, and waits.
    pub fn terminate(mut self, deadline: Duration) -> Outcome<ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        self.ends_within(deadline)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A session bus that activates nothing: only what a test puts there is there.
pub struct Bus {
    _daemon: Program,
    /// For `DBUS_SESSION_BUS_ADDRESS`.
    pub address: String,
}

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:tmpdir=/tmp</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>
"#;

impl Bus {
    /// Starts one of `person`, whom it serves besides root; its configuration goes to `dir`.
    pub fn start(person: Person, dir: &Path) -> Outcome<Self> {
        let config = dir.join("bus.conf");
        std::fs::write(&config, BUS).context(|| format!("writing {}", config.display()))?;
        let mut command = Command::new("dbus-daemon");
        command.arg("--config-file").arg(&config).args(["--nofork", "--print-address=1"]).stderr(Stdio::null());
        person.adopt(&mut command);
        person.own(dir)?;
        let (daemon, address) = Program::start_and_hear("dbus-daemon", &mut command)?;
        Ok(Self { _daemon: daemon, address })
    }
}
