//! The simulated PCs of the team "Kernel lab", and what is shown of them.

use potluck_api::view::{FoundBy, Machine, MachineState, MemberView};

use super::random::Random;
use super::schedule::Place;

/// Version that all have but those that are older.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Another PC.
#[derive(Clone, Debug)]
pub(super) struct Pc {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) cores: u32,
    /// Per cent of this PC's.
    pub(super) speed: u32,
    pub(super) state: MachineState,
    pub(super) reason: String,
    pub(super) online: bool,
    pub(super) version: String,
    pub(super) arch: &'static str,
    pub(super) address: String,
    pub(super) found_by: FoundBy,
    /// Jobs of others that run there.
    pub(super) foreign: u32,
    /// Its owner came back: until then it is in use (milliseconds of the simulation).
    pub(super) taken_until: Option<u64>,
    pub(super) seen_ms: u64,
}

impl Pc {
    pub(super) fn new(random: &mut Random, number: usize, name: &str, cores: u32, speed: u32) -> Self {
        Self {
            id: random.id(),
            name: name.to_owned(),
            role: "member",
            cores,
            speed,
            state: MachineState::Sharing,
            reason: "Sharing".into(),
            online: true,
            version: VERSION.to_owned(),
            arch: "x86_64",
            // The network of examples (RFC 5737).
            address: format!("192.0.2.{}:10555", number % 250 + 2),
            found_by: FoundBy::Network,
            foreign: 0,
            taken_until: None,
            seen_ms: 0,
        }
    }

    /// Slots that it gives.
    pub(super) fn offered(&self) -> u32 {
        let gives = self.online && self.state == MachineState::Sharing;
        if gives { self.cores.saturating_sub(1).max(1) } else { 0 }
    }

    pub(super) fn be(&mut self, state: MachineState, reason: &str) {
        (self.state, self.reason) = (state, reason.to_owned());
        if self.offered() == 0 {
            self.foreign = 0;
        }
    }

    /// As a build uses it.
    pub(super) fn place(&self) -> Place {
        let slots = self.offered().saturating_sub(self.foreign);
        Place { id: self.id.clone(), name: self.name.clone(), slots, speed: self.speed }
    }

    pub(super) fn machine(&self, used_by_me: u32, ready: u32, toolchains: u32, speed_known: bool) -> Machine {
        let gives = self.offered() > 0;
        Machine {
            id: self.id.clone(),
            name: self.name.clone(),
            state: if self.online { self.state } else { MachineState::Unavailable },
            reason: if self.online { self.reason.clone() } else { "Not connected".into() },
            this_pc: false,
            used: if gives { self.foreign + used_by_me } else { used_by_me },
            used_by_me,
            offered: self.offered(),
            cores: self.cores,
            speed: speed_known.then(|| f64::from(self.speed) / 100.0),
            toolchains_ready: ready,
            toolchains,
            version: self.version.clone(),
            arch: self.arch.to_owned(),
            address: self.address.clone(),
            found_by: self.found_by,
            rtt_us: if self.online { 180 + u64::from(self.cores) * 7 } else { 0 },
            seen_ms: Some(self.seen_ms),
        }
    }

    pub(super) fn member(&self) -> MemberView {
        MemberView {
            id: self.id.clone(),
            name: self.name.clone(),
            role: self.role.to_owned(),
            this_pc: false,
            online: self.online,
            seen_ms: Some(self.seen_ms),
        }
    }
}

/// The team of the mock-ups: seven others, 88 cores.
pub(super) fn kernel_lab(random: &mut Random) -> Vec<Pc> {
    let pcs = [
        ("jan-laptop", 8, 80),
        ("lab-04", 16, 122),
        ("lab-05", 16, 122),
        ("lab-06", 24, 131),
        ("mara-desk", 8, 141),
        ("old-nuc", 4, 55),
        ("tom-desk", 12, 108),
    ];
    let make =
        |(number, (name, cores, speed)): (usize, &(&str, u32, u32))| Pc::new(random, number, name, *cores, *speed);
    let mut pcs: Vec<Pc> = pcs.iter().enumerate().map(make).collect();
    for pc in &mut pcs {
        match pc.name.as_str() {
            "jan-laptop" => pc.be(MachineState::Unavailable, "On battery"),
            "tom-desk" => pc.be(MachineState::InUse, "In use"),
            "mara-desk" => (pc.role, pc.foreign) = ("keeper", 2),
            "lab-04" => pc.foreign = 5,
            "lab-05" => (pc.foreign, pc.found_by) = (4, FoundBy::Address),
            "lab-06" => pc.foreign = 1,
            _ => {}
        }
    }
    pcs
}

/// An office: two hundred PCs with this one.
pub(super) fn office(random: &mut Random) -> Vec<Pc> {
    let make = |number: usize| {
        let cores = [4, 8, 8, 12, 16, 16, 24, 32][random.below(8) as usize];
        let speed = random.between(60, 150);
        let mut pc = Pc::new(random, number, &format!("desk-{:03}", number + 1), cores, speed);
        pc.address = format!("198.51.100.{}:10555", number + 2);
        match random.below(10) {
            0 => pc.be(MachineState::Unavailable, "On battery"),
            1 | 2 => pc.be(MachineState::InUse, "In use"),
            _ => pc.foreign = random.below(pc.offered() / 2 + 1),
        }
        pc
    };
    (0..199).map(make).collect()
}

/// Names that a peer could choose to do harm: markup, control and direction characters, the longest. A real node cuts
/// names at 64 characters and passes no control characters on; the window must not depend on it.
pub(super) fn hostile(random: &mut Random) -> Vec<Pc> {
    let names = [
        "<img src=x onerror=alert(1)>",
        "<script>document.title='owned'</script>",
        "\"><b onmouseover=alert(1)>lab</b>",
        "evil\u{202e}gnp.exe\u{202c}",
        "\u{5d0}\u{5d1}\u{5d2}\u{5d3} lab 12",
        "bell\u{7}null\u{0}esc\u{1b}[31mred",
        "new\nline\ttab",
        "zero\u{200b}width\u{200d}\u{feff}",
        "{{constructor.constructor('alert(1)')()}}",
        "javascript:alert(1)",
        "   ",
        "e\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}\u{307}\u{308}\u{309}\u{30a}\u{30b}\u{30c}",
    ];
    let mut all: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    all.push("M".repeat(64));
    all.push("\u{1f41f}".repeat(64));
    all.iter().enumerate().map(|(number, name)| Pc::new(random, number, name, 8, 100)).collect()
}
