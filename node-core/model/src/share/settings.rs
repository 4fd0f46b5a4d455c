//! Settings of sharing, and what a preset makes of them. The defaults are those of UX 2.4.

use std::time::Duration;

use super::hours::opens_in;
use super::{
    Disk, Hours, KEEP_FREE_BYTES, KEEP_FREE_DISK_BYTES, KEEP_FREE_DISK_PERCENT, KEEP_FREE_PERCENT, Memory, Power, Wall,
};

/// Named sets of settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preset {
    /// Nothing while somebody is there.
    Away,
    /// A quarter of the cores while somebody is there, less what the owner's programs use.
    ALittle,
    /// Presence is not looked at: servers. The owner's programs still come first.
    Dedicated,
    /// As set.
    Custom,
}

/// How cores are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cores {
    /// All but so many, at least 1.
    AllBut(u32),
    /// So many, at most all.
    Count(u32),
}

impl Cores {
    /// Of so many.
    pub fn of(self, cores: u32) -> u32 {
        match self {
            Self::AllBut(kept) => cores.saturating_sub(kept).max(1),
            Self::Count(count) => count.min(cores),
        }
    }
}

/// When to give on battery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Battery {
    /// Not at all.
    Never,
    /// Above so many per cent.
    Above(u8),
    /// Always.
    Always,
}

impl Battery {
    /// Whether this power will do.
    pub fn allows(self, power: Power) -> bool {
        match (self, power) {
            (_, Power::Mains) | (Self::Always, _) => true,
            (Self::Never, Power::Battery(_)) => false,
            (Self::Above(least), Power::Battery(percent)) => percent > least,
        }
    }
}

/// What the owner allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Which preset.
    pub preset: Preset,
    /// Time without input that counts as away.
    pub away_after: Duration,
    /// A locked screen counts as away.
    pub away_when_locked: bool,
    /// Cores when away.
    pub cores_away: Cores,
    /// Cores while in use; only [`Preset::Custom`] looks at it.
    pub cores_in_use: Cores,
    /// On battery.
    pub battery: Battery,
    /// Hold if the owner's programs use more of all cores, in per cent.
    pub load_gate_percent: u8,
    /// Memory to keep free, in bytes; 0: the larger of 2 GiB and 15 %.
    pub keep_free_bytes: u64,
    /// Disk to keep free, in bytes; 0: the larger of 5 GiB and 10 %, but no more than 50 GiB of a large one.
    pub keep_free_disk_bytes: u64,
    /// Empty: always.
    pub hours: Vec<Hours>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            preset: Preset::Away,
            away_after: Duration::from_secs(180),
            away_when_locked: true,
            cores_away: Cores::AllBut(1),
            cores_in_use: Cores::Count(0),
            battery: Battery::Never,
            load_gate_percent: 20,
            keep_free_bytes: 0,
            keep_free_disk_bytes: 0,
            hours: Vec::new(),
        }
    }
}

/// Why settings never give anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contradiction {
    /// Hours without a day.
    NoHours,
    /// More memory is to be kept free than there is.
    Memory,
    /// More disk is to be kept free than there is.
    Disk,
}

impl Settings {
    /// Cores when away: at least 1, because whoever wants to give none has a switch.
    pub fn away(&self, cores: u32) -> u32 {
        self.cores_away.of(cores).max(1)
    }

    /// Cores while somebody is there.
    pub fn in_use(&self, cores: u32) -> u32 {
        match self.preset {
            Preset::Away => 0,
            Preset::ALittle => (cores / 4).max(1).min(self.away(cores)),
            Preset::Dedicated => self.away(cores),
            Preset::Custom => self.cores_in_use.of(cores),
        }
    }

    /// The most that is ever given.
    pub fn most(&self, cores: u32) -> u32 {
        self.away(cores).max(self.in_use(cores))
    }

    /// Whether it matters that somebody is there.
    pub fn looks_at_presence(&self) -> bool {
        self.preset != Preset::Dedicated
    }

    /// Whether the owner's load holds everything; otherwise each core that it takes is a slot less.
    pub fn has_gate(&self) -> bool {
        matches!(self.preset, Preset::Away | Preset::Custom)
    }

    /// Memory to keep free of so much, in bytes.
    pub fn keep_free(&self, total: u64) -> u64 {
        match self.keep_free_bytes {
            0 => KEEP_FREE_BYTES.max(total / 100 * KEEP_FREE_PERCENT),
            bytes => bytes,
        }
    }

    /// Disk to keep free of so much, in bytes.
    pub fn keep_free_disk(&self, total: u64) -> u64 {
        match self.keep_free_disk_bytes {
            0 => (total / 100 * KEEP_FREE_DISK_PERCENT).clamp(KEEP_FREE_DISK_BYTES.0, KEEP_FREE_DISK_BYTES.1),
            bytes => bytes,
        }
    }

    /// Whether less of the disk is free than is to be kept; one that is not known is not.
    pub fn is_full(&self, disk: Option<Disk>) -> bool {
        disk.is_some_and(|disk| disk.free < self.keep_free_disk(disk.total))
    }

    /// Time until the hours allow it; zero: now; None: never.
    pub fn opens_in(&self, wall: Wall) -> Option<Duration> {
        opens_in(&self.hours, wall)
    }

    /// Why these settings never give anything on this machine, if that is so.
    pub fn contradiction(&self, memory: Option<Memory>, disk: Option<Disk>) -> Option<Contradiction> {
        if !self.hours.is_empty() && self.hours.iter().all(|hours| hours.days & 0x7f == 0) {
            Some(Contradiction::NoHours)
        } else if memory.is_some_and(|memory| self.keep_free(memory.total) >= memory.total) {
            Some(Contradiction::Memory)
        } else if disk.is_some_and(|disk| self.keep_free_disk(disk.total) >= disk.total) {
            Some(Contradiction::Disk)
        } else {
            None
        }
    }
}
