//! Simulated builds: what each project asks for, and the report that its jobs add up to.

use std::collections::HashMap;

use potluck_api::build::{BuildEnd, BuildRow, Counts, ErrorRow, JobColumns, MachineRow, ReasonRow, Report};
use potluck_api::words::reason::title;
use potluck_model::reason::{Class, Reason};

use super::random::Random;
use super::schedule::{self, Cut, Job, Place, Wanted};
use super::words;

/// Fewer jobs than this, or a shorter build, say nothing about time saved (UX 2.8).
const SAVED_JOBS_MIN: usize = 20;
const SAVED_MS_MIN: u64 = 15_000;

/// A project that is built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Project {
    pub(super) name: &'static str,
    pub(super) command: &'static str,
    pub(super) cwd: &'static str,
    pub(super) toolchains: &'static [&'static str],
    /// Folders and stems of its sources.
    folders: &'static [&'static str],
    stems: &'static [&'static str],
    ending: &'static str,
    /// Compiles.
    pub(super) jobs: u32,
    links: u32,
    usual_ms: u32,
    /// Jobs of a thousand that run here for a reason: code and how many.
    here: &'static [(&'static str, u32)],
    /// Jobs that fail.
    failing: u32,
}

const LINUX_FOLDERS: &[&str] = &[
    "kernel",
    "kernel/sched",
    "kernel/locking",
    "kernel/time",
    "kernel/trace",
    "mm",
    "fs",
    "fs/ext4",
    "fs/btrfs",
    "fs/nfs",
    "net/core",
    "net/ipv4",
    "net/ipv6",
    "net/mac80211",
    "block",
    "crypto",
    "lib",
    "security/selinux",
    "sound/core",
    "sound/pci/hda",
    "drivers/base",
    "drivers/gpu/drm",
    "drivers/gpu/drm/i915",
    "drivers/gpu/drm/amd/display/dc",
    "drivers/net/ethernet/intel/ice",
    "drivers/nvme/host",
    "drivers/usb/core",
    "drivers/usb/host",
    "drivers/acpi",
    "arch/x86/kernel",
    "arch/x86/mm",
    "arch/x86/kvm",
];
const STEMS: &[&str] = &[
    "core", "main", "init", "super", "inode", "file", "dir", "namei", "ioctl", "page", "cache", "queue", "timer",
    "irq", "dma", "bus", "device", "driver", "hw", "phy", "link", "mac", "tx", "rx", "stats", "debugfs", "sysfs",
    "trace", "pm", "acl", "xattr", "alloc", "tree", "hash", "lock", "sync", "event", "signal", "socket", "filter",
    "route", "proc", "util", "table", "buffer", "state", "format", "compat",
];
const WINE_FOLDERS: &[&str] = &[
    "dlls/ntdll",
    "dlls/ntdll/unix",
    "dlls/kernelbase",
    "dlls/kernel32",
    "dlls/user32",
    "dlls/gdi32",
    "dlls/win32u",
    "dlls/ole32",
    "dlls/oleaut32",
    "dlls/msvcrt",
    "dlls/ucrtbase",
    "dlls/rpcrt4",
    "dlls/shell32",
    "dlls/shlwapi",
    "dlls/comctl32",
    "dlls/wined3d",
    "dlls/d3d11",
    "dlls/d3d9",
    "dlls/dxgi",
    "dlls/dsound",
    "dlls/mshtml",
    "dlls/jscript",
    "dlls/urlmon",
    "dlls/wininet",
    "dlls/winhttp",
    "dlls/crypt32",
    "dlls/advapi32",
    "dlls/setupapi",
    "dlls/msi",
    "dlls/quartz",
    "dlls/mf",
    "dlls/windowscodecs",
    "dlls/gdiplus",
    "dlls/riched20",
    "dlls/xmllite",
    "server",
    "programs/cmd",
    "programs/regedit",
    "programs/winecfg",
];
const LLVM_FOLDERS: &[&str] = &[
    "llvm/lib/Analysis",
    "llvm/lib/AsmParser",
    "llvm/lib/CodeGen",
    "llvm/lib/CodeGen/SelectionDAG",
    "llvm/lib/IR",
    "llvm/lib/MC",
    "llvm/lib/Support",
    "llvm/lib/Target/X86",
    "llvm/lib/Target/AArch64",
    "llvm/lib/Target/RISCV",
    "llvm/lib/Transforms/IPO",
    "llvm/lib/Transforms/Scalar",
    "llvm/lib/Transforms/Vectorize",
    "llvm/lib/Transforms/InstCombine",
    "clang/lib/AST",
    "clang/lib/Sema",
    "clang/lib/CodeGen",
    "clang/lib/Parse",
    "clang/lib/Lex",
    "clang/lib/Driver",
    "lld/ELF",
];

/// Linux, a usual configuration.
pub(super) const LINUX: Project = Project {
    name: "linux",
    command: "make -j90 CC=\"potluck gcc\"",
    cwd: "/home/kim/src/linux",
    toolchains: &["gcc 14.2.0"],
    folders: LINUX_FOLDERS,
    stems: STEMS,
    ending: "c",
    jobs: 1500,
    links: 31,
    usual_ms: 3400,
    here: &[("faster-here", 15), ("march-native", 10), ("assemble-with-cpp-unsafe", 12), ("preprocess-only", 6)],
    failing: 0,
};
/// Wine: 1,830 jobs with its links.
pub(super) const WINE: Project = Project {
    name: "wine",
    command: "make -j90",
    cwd: "/home/kim/src/wine/build",
    toolchains: &["gcc 14.2.0", "x86_64-w64-mingw32-gcc 13.0"],
    folders: WINE_FOLDERS,
    stems: STEMS,
    ending: "c",
    jobs: 1790,
    links: 40,
    usual_ms: 3600,
    here: &[("faster-here", 16), ("march-native", 9), ("probe", 8), ("time-macro", 3), ("no-free-slot", 5)],
    failing: 0,
};
/// LLVM, where two sources do not compile.
pub(super) const LLVM: Project = Project {
    name: "llvm",
    command: "ninja -k 0",
    cwd: "/home/kim/src/llvm-project/build",
    toolchains: &["clang 19.1.7"],
    folders: LLVM_FOLDERS,
    stems: STEMS,
    ending: "cpp",
    jobs: 980,
    links: 24,
    usual_ms: 21_000,
    here: &[
        ("faster-here", 20),
        ("unsupported-flag:-fprofile-list", 14),
        ("toolchain-not-synced", 30),
        ("remote-error-local-ok", 2),
    ],
    failing: 2,
};
/// A small one: too short to say what it saved.
pub(super) const ZSTD: Project = Project {
    name: "zstd",
    command: "make -j90",
    cwd: "/home/kim/src/zstd",
    toolchains: &["gcc 14.2.0"],
    folders: &["lib/common", "lib/compress", "lib/decompress", "programs"],
    stems: STEMS,
    ending: "c",
    jobs: 84,
    links: 3,
    usual_ms: 1300,
    here: &[("too-small", 60), ("faster-here", 40)],
    failing: 0,
};
/// One job for each reason that there is, and some that travel.
pub(super) const EVERY_REASON: Project =
    Project { name: "every-reason", cwd: "/home/kim/src/every-reason", here: &[], ..ZSTD };
/// A hundred thousand jobs, for the timeline.
pub(super) const SCALE: Project = Project {
    name: "scale",
    command: "ninja",
    cwd: "/home/kim/src/scale",
    toolchains: &["clang 19.1.7"],
    folders: LINUX_FOLDERS,
    stems: STEMS,
    ending: "cc",
    jobs: 99_900,
    links: 100,
    usual_ms: 1800,
    here: &[("faster-here", 20), ("march-native", 5), ("no-free-slot", 10)],
    failing: 0,
};
/// As many jobs a second as two hundred machines do, for the window under load.
pub(super) const STORM: Project = Project {
    name: "chromium",
    command: "ninja -C out/Default chrome",
    cwd: "/home/kim/src/chromium/src",
    jobs: 120_000,
    usual_ms: 1000,
    ..SCALE
};

impl Project {
    /// What it asks for; the same for the same `random`.
    pub(super) fn wanted(&self, random: &mut Random) -> Vec<Wanted> {
        let mut out: Vec<Wanted> = Vec::with_capacity((self.jobs + self.links) as usize);
        let failing: Vec<u32> = (0..self.failing).map(|n| self.jobs / 2 + n * 37 + random.below(30)).collect();
        for number in 0..self.jobs {
            let alone_ms = random.compile_ms(self.usual_ms);
            let mut roll = random.below(1000);
            let mut reason = "";
            for (code, of_thousand) in self.here {
                if roll < *of_thousand {
                    reason = code;
                    break;
                }
                roll -= of_thousand;
            }
            let kind = kind_of(reason);
            // What runs here because that is faster is small.
            let alone_ms = if kind == 0 { alone_ms } else { alone_ms / 4 + 10 };
            let (kind, reason) =
                if failing.contains(&number) { (3, Reason::RemoteErrorLocalError.code()) } else { (kind, reason) };
            out.push(Wanted { file: self.file(number), alone_ms, kind, reason: reason.to_owned(), after_all: false });
        }
        for number in 0..self.links {
            let file = match number {
                0 => self.name.to_owned(),
                n => format!("{}.so", self.folders[n as usize % self.folders.len()].replace('/', "-")),
            };
            let alone_ms = if number == 0 { 2400 } else { random.between(80, 900) };
            out.push(Wanted { file, alone_ms, kind: 2, reason: "link".into(), after_all: true });
        }
        out
    }

    fn file(&self, number: u32) -> String {
        let (folders, stems) = (self.folders.len() as u32, self.stems.len() as u32);
        let (folder, stem) =
            (self.folders[(number % folders) as usize], self.stems[(number / folders % stems) as usize]);
        match number / folders / stems {
            0 => format!("{folder}/{stem}.{}", self.ending),
            more => format!("{folder}/{stem}_{more}.{}", self.ending),
        }
    }
}

/// 0 for no reason, else here or only here.
fn kind_of(code: &str) -> u8 {
    match Reason::from_code(code) {
        None => 0,
        Some(Reason::RemoteErrorLocalError) => 3,
        Some(reason) if reason.class() == Class::Only => 2,
        Some(_) => 1,
    }
}

/// A build, from which everything that is shown of it is computed.
#[derive(Clone, Debug)]
pub(super) struct Build {
    pub(super) id: String,
    pub(super) project: Project,
    pub(super) started_ms: u64,
    pub(super) seed: u64,
    pub(super) places: Vec<Place>,
    pub(super) cuts: Vec<Cut>,
    /// Stopped by the person so long after its start.
    pub(super) cancelled_ms: Option<u32>,
}

/// A build with its jobs: made when it is needed, because a hundred thousand of them are some megabytes.
pub(super) struct Ran {
    pub(super) wanted: Vec<Wanted>,
    pub(super) jobs: Vec<Job>,
}

impl Build {
    /// Runs it.
    pub(super) fn run(&self) -> Ran {
        let mut random = Random::new(self.seed, &self.id);
        let mut wanted = self.project.wanted(&mut random);
        if self.project.name == EVERY_REASON.name {
            let unsupported = Reason::UnsupportedFlag("-fexample".into());
            for (number, reason) in Reason::ALL.iter().chain([&unsupported]).enumerate() {
                let (code, after_all) = (reason.to_string(), false);
                let file = format!("reasons/{}.c", reason.code());
                wanted.insert(number, Wanted { file, alone_ms: 300, kind: kind_of(&code), reason: code, after_all });
            }
        }
        if self.places.len() == 1 {
            let alone = wanted.iter_mut().filter(|w| w.kind == 0);
            alone.for_each(|w| (w.kind, w.reason) = (1, Reason::NoPeers.code().to_owned()));
        }
        // As `potluck jobs` suggests: one fifth more than there are cores.
        let slots: u32 = self.places.iter().map(|p| p.slots).sum();
        let jobs = schedule::run(&wanted, &self.places, &self.cuts, (slots + slots / 5) as usize, random);
        Ran { wanted, jobs }
    }

    /// Its jobs so far, as columns.
    pub(super) fn columns(&self, ran: &Ran, until_ms: u32) -> JobColumns {
        schedule::columns(&ran.wanted, &self.places, &ran.jobs, self.cancelled_ms.unwrap_or(u32::MAX).min(until_ms))
    }

    /// Summed up. `until_ms`: it runs still, and has come so far.
    pub(super) fn report(&self, ran: &Ran, until_ms: Option<u32>) -> Report {
        let limit = self.cancelled_ms.unwrap_or(u32::MAX).min(until_ms.unwrap_or(u32::MAX));
        let jobs: Vec<&Job> = ran.jobs.iter().filter(|j| j.end_ms() <= limit).collect();
        let mut counts = Counts::default();
        let mut reasons: HashMap<&str, (u32, u64)> = HashMap::new();
        let mut machines: Vec<MachineRow> = self.places.iter().map(machine_row).collect();
        let mut errors = Vec::new();
        let (mut repeated, mut travelled) = (0, 0);
        for job in &jobs {
            let want = &ran.wanted[job.wanted];
            *count_of(&mut counts, want.kind) += 1;
            if matches!(want.kind, 1 | 2) {
                let (jobs, time_ms) = reasons.entry(&want.reason).or_default();
                (*jobs, *time_ms) = (*jobs + 1, *time_ms + u64::from(job.took_ms));
            }
            let machine = &mut machines[usize::from(job.machine)];
            (machine.jobs, machine.time_ms) = (machine.jobs + 1, machine.time_ms + u64::from(job.took_ms));
            repeated += u32::from(job.repeats);
            travelled += u64::from(want.kind == 0);
            let differed = want.reason == Reason::RemoteErrorLocalOk.code();
            if want.kind == 3 || differed {
                let machine =
                    self.places[(job.wanted % self.places.len()).max(1).min(self.places.len() - 1)].name.clone();
                errors.push(ErrorRow { file: want.file.clone(), exit: 1, machine, differed });
            }
        }
        for cut in self.cuts.iter().filter(|c| c.from_ms < limit) {
            machines[usize::from(cut.machine)].reclaimed += 1;
        }
        let last = jobs.iter().map(|j| j.end_ms()).max().unwrap_or(0);
        let took_ms = u64::from(self.cancelled_ms.or(until_ms).unwrap_or(last));
        let end = match (until_ms, self.cancelled_ms, counts.failed) {
            (Some(_), ..) => BuildEnd::Running,
            (None, Some(_), _) => BuildEnd::Cancelled,
            (None, None, 0) => BuildEnd::Ok,
            (None, None, _) => BuildEnd::Failed,
        };
        let whole = matches!(end, BuildEnd::Ok | BuildEnd::Failed);
        let alone_ms = (whole && jobs.len() >= SAVED_JOBS_MIN && took_ms >= SAVED_MS_MIN)
            .then(|| schedule::alone_ms(&ran.wanted, self.places[0].slots));
        let others = machines.iter().skip(1).filter(|m| m.jobs > 0).count() as u32;
        machines.retain(|m| m.id.is_empty() || m.jobs > 0 || m.reclaimed > 0);
        let mut reasons: Vec<ReasonRow> = reasons.into_iter().map(reason_row).collect();
        reasons.sort_by(|a, b| b.jobs.cmp(&a.jobs).then_with(|| a.code.cmp(&b.code)));
        Report {
            build: BuildRow {
                id: self.id.clone(),
                name: self.project.name.to_owned(),
                started_ms: self.started_ms,
                took_ms,
                end,
                exit: match end {
                    BuildEnd::Running => None,
                    BuildEnd::Ok => Some(0),
                    BuildEnd::Failed => Some(1),
                    // 128 + SIGINT.
                    BuildEnd::Cancelled => Some(130),
                },
                counts,
                saved_ms: alone_ms.map(|alone| alone.saturating_sub(took_ms)).filter(|saved| *saved > 0),
                machines: others,
            },
            command: self.project.command.to_owned(),
            cwd: self.project.cwd.to_owned(),
            jobs: jobs.len() as u32,
            repeated,
            alone_ms,
            bytes_up: travelled * 61_000,
            bytes_down: travelled * 148_000,
            machines,
            reasons,
            findings: self.findings(ran, &jobs),
            toolchains: self.project.toolchains.iter().map(|t| (*t).to_owned()).collect(),
            errors,
        }
    }

    fn findings(&self, ran: &Ran, jobs: &[&Job]) -> Vec<String> {
        let mut out = Vec::new();
        let links = jobs.iter().filter(|j| ran.wanted[j.wanted].after_all);
        if let Some(job) = links.max_by_key(|j| j.took_ms) {
            out.push(words::long_link(&ran.wanted[job.wanted].file, job.took_ms));
        }
        let waited = jobs.iter().filter(|j| j.wait_ms >= 400).count();
        if waited > 0 {
            out.push(words::waited(waited));
        }
        let lost = jobs.iter().filter(|j| j.repeats > 0).count();
        match &self.cuts[..] {
            [] => {}
            [cut] => out.push(words::taken_back(&self.places[usize::from(cut.machine)].name, cut.from_ms, lost)),
            cuts => out.push(words::taken_back_often(cuts.len(), lost)),
        }
        out.truncate(3);
        out
    }
}

fn machine_row(place: &Place) -> MachineRow {
    MachineRow { id: place.id.clone(), name: place.name.clone(), jobs: 0, time_ms: 0, reclaimed: 0 }
}

fn reason_row((code, (jobs, time_ms)): (&str, (u32, u64))) -> ReasonRow {
    let reason = Reason::from_code(code);
    let is_option = reason.as_ref().is_some_and(|r| r.class() == Class::Flag);
    ReasonRow {
        code: code.to_owned(),
        title: title(code, is_option),
        jobs,
        time_ms,
        avoidable: reason.as_ref().is_some_and(Reason::is_avoidable),
        text: reason.map_or("", |r| r.sentence()).to_owned(),
    }
}

/// The count that a kind belongs to.
pub(super) fn count_of(counts: &mut Counts, kind: u8) -> &mut u32 {
    match kind {
        0 => &mut counts.remote,
        1 => &mut counts.here,
        2 => &mut counts.only,
        _ => &mut counts.failed,
    }
}
