//! The Lab's network: one namespace with a bridge, in which the submitter runs, and a cable to each worker that can
//! be cut. The machine's own network is never touched.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use crate::inside;
use crate::{Context, Outcome, Trouble};

/// The submitter's address in every Lab.
pub const SUBMITTER_ADDRESS: &str = "10.77.0.1";
/// Port of every node in a namespace of its own.
pub const PORT: u16 = 7711;

/// The address of worker `index`.
pub fn worker_address(index: usize) -> String {
    format!("10.77.0.{}", index + 10)
}

/// The namespace that holds the bridge; it ends with the process that holds it.
#[derive(Debug)]
pub struct Hub {
    holder: Child,
}

impl Hub {
    /// Makes the namespace, the bridge and the submitter's address.
    pub fn new() -> Outcome<Self> {
        let hub = Self { holder: hold()? };
        hub.ip("link set lo up")?;
        hub.ip("link add lab type bridge")?;
        hub.ip(&format!("addr add {SUBMITTER_ADDRESS}/24 dev lab"))?;
        hub.ip("link set lab up")?;
        Ok(hub)
    }

    /// Plugs a cable into the network namespace of process `pid` as `eth0`.
    pub fn plug(&self, index: usize, pid: u32) -> Outcome<()> {
        self.ip(&format!("link add v{index} type veth peer name eth0 netns {pid}"))?;
        self.ip(&format!("link set v{index} master lab up"))?;
        let address = worker_address(index);
        ip_in(pid, "link set lo up")?;
        ip_in(pid, &format!("addr add {address}/24 dev eth0"))?;
        ip_in(pid, "link set eth0 up")
    }

    /// Pulls the cable of a worker: packets vanish, no connection is told.
    pub fn cut(&self, index: usize) -> Outcome<()> {
        self.ip(&format!("link set v{index} down"))
    }

    /// Plugs it in again.
    pub fn mend(&self, index: usize) -> Outcome<()> {
        self.ip(&format!("link set v{index} up"))
    }

    /// Runs `work` on a thread in this network. Threads that it starts are in it too.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
        inside_of(self.holder.id(), work)
    }

    /// Somebody else's PC in this network, with a cable of its own.
    pub fn outsider(&self, index: usize) -> Outcome<Outsider> {
        let outsider = Outsider(hold()?);
        self.plug(index, outsider.0.id())?;
        Ok(outsider)
    }

    /// A command line prefix that enters this network, as whoever the harness is.
    pub fn enter(&self) -> Vec<String> {
        ["nsenter", "-t", &self.holder.id().to_string(), "-n", "--"].map(String::from).to_vec()
    }

    fn ip(&self, args: &str) -> Outcome<()> {
        ip_in(self.holder.id(), args)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A PC that belongs to nobody in the team; it ends with the process that holds it.
#[derive(Debug)]
pub struct Outsider(Child);

impl Outsider {
    /// Runs `work` on a thread in its network. Threads that it starts are in it too.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
        inside_of(self.0.id(), work)
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that holds a network namespace of its own.
fn hold() -> Outcome<Child> {
    let mut holder = Command::new(inside::program()?)
        .arg("hold")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(|| "starting the holder of the network namespace".into())?;
    let stdout = holder.stdout.take().expect("stdout is a pipe");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() == "ready" {
        return Ok(holder);
    }
    let _ = holder.wait();
    Err(Trouble::new("the network namespace could not be made"))
}

fn inside_of<T: Send>(pid: u32, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    let network = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    let entered = || {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
            .context(|| "entering a network (needs root)".into())?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(entered).join().expect("it does not panic"))
}

fn ip_in(pid: u32, args: &str) -> Outcome<()> {
    let output = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "--", "ip"])
        .args(args.split(' '))
        .output()
        .context(|| "running ip (package iproute2)".into())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Trouble::new(format!("ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
