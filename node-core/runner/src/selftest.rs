//! Runs the real policy with a probe in it and tells whether it holds: a node whose self-test fails does not serve.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use potluck_runner::client::{Finished, Sandbox};
use potluck_runner::protocol::{End, FromRunner, Job, LimitKind, Limits, OutputDir, Setup, TRAP_DIR, ToRunner, Trap};

/// What one check showed.
struct Check {
    name: String,
    failure: Option<String>,
}

/// The subcommand.
pub fn main(args: &[OsString]) -> ExitCode {
    let json = match args {
        [] => false,
        [flag] if flag == "--json" => true,
        _ => {
            eprintln!("usage: potluck-runner selftest [--json]");
            return ExitCode::from(2);
        }
    };
    let (trap, checks) = match run() {
        Ok((trap, checks)) => (Some(trap), checks),
        Err(why) => (None, vec![Check { name: "sandbox".into(), failure: Some(why) }]),
    };
    let passed = checks.iter().all(|c| c.failure.is_none());
    let trap = trap.map(|t| if t == Trap::Fuse { "fuse" } else { "loop" });
    if json {
        let checks: Vec<_> = checks
            .iter()
            .map(|c| serde_json::json!({ "name": c.name, "ok": c.failure.is_none(), "note": c.failure }))
            .collect();
        println!("{}", serde_json::json!({ "passed": passed, "trap": trap, "checks": checks }));
    } else {
        for check in &checks {
            match &check.failure {
                None => println!("ok   {}", check.name),
                Some(why) => println!("FAIL {}: {why}", check.name),
            }
        }
    }
    if passed {
        return ExitCode::SUCCESS;
    }
    eprintln!("potluck-runner: the sandbox does not hold on this machine, so it runs no job of others");
    ExitCode::FAILURE
}

/// A root of our own program and what it needs to run; removed at the end.
struct Ground {
    dir: PathBuf,
}

impl Drop for Ground {
    fn drop(&mut self) {
        // What is left over is some MiB in /tmp; there is nobody to tell.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn run() -> Result<(Trap, Vec<Check>), String> {
    let at = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    let exe = std::env::current_exe().map_err(at("finding this program"))?;
    let ground = Ground { dir: std::env::temp_dir().join(format!("potluck-selftest-{}", std::process::id())) };
    // Fails when the name is taken: nobody else can have prepared the directory.
    fs::create_dir(&ground.dir).map_err(at("making a directory for the self-test"))?;
    furnish(&ground.dir, &exe).map_err(at("preparing the self-test"))?;
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let setup = Setup {
        root: bytes(&ground.dir.join("root")),
        generations: bytes(&ground.dir.join("gens")),
        uid: 1000,
        gid: 1000,
        allow_fuse: true,
    };
    let mut sandbox = Sandbox::start(exe.as_os_str(), &setup).map_err(|e| e.to_string())?;
    let mut checks = vec![Check { name: "sandbox".into(), failure: None }];
    let lost = |e: io::Error| format!("the sandbox was lost: {e}");
    policy(&mut sandbox, &ground.dir, &mut checks).map_err(lost)?;
    limits(&mut sandbox, &mut checks).map_err(lost)?;
    let stopped = stop(&mut sandbox).map_err(lost)?;
    checks.push(Check { name: "stop".into(), failure: stopped });
    Ok((sandbox.trap, checks))
}

/// Copies this program, its loader and its libraries.
fn furnish(dir: &Path, exe: &Path) -> io::Result<()> {
    let root = dir.join("root");
    for sub in ["root/proc", "root/dev", "root/tmp", "root/.potluck", "root/lib/probe", "root/out", "gens/out"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    fs::copy(exe, root.join("probe"))?;
    symlink(format!("{TRAP_DIR}/1"), root.join("poison"))?;
    symlink(format!("{TRAP_DIR}/2"), dir.join("gens/out/poison"))?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mapped: std::collections::BTreeSet<&str> =
        maps.lines().filter_map(|l| l.find('/').map(|at| &l[at..])).collect();
    for library in mapped.into_iter().map(Path::new).filter(|path| *path != exe) {
        if let Some(name) = library.file_name() {
            fs::copy(library, root.join("lib/probe").join(name))?;
        }
    }
    // Static programs have none.
    if let Some(loader) = loader_of(&fs::read(exe)?) {
        let place = root.join(loader.strip_prefix("/").unwrap_or(&loader));
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(&loader, place)?;
    }
    Ok(())
}

/// PT_INTERP of a 64-bit little-endian ELF file.
fn loader_of(elf: &[u8]) -> Option<PathBuf> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?) as usize);
    let u32_at = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(elf.get(at..at + 8)?.try_into().ok()?) as usize);
    const PT_INTERP: u32 = 3;
    let (table, size, count) = (u64_at(32)?, u16_at(54)?, u16_at(56)?);
    let header = (0..count).map(|n| table + n * size).find(|at| u32_at(*at) == Some(PT_INTERP))?;
    let text = elf.get(u64_at(header + 8)?..)?.split(|b| *b == 0).next()?;
    Some(PathBuf::from(OsStr::from_bytes(text)))
}

fn job(id: u64, args: &[&OsStr], limits: Limits) -> Job {
    Job {
        id,
        program: b"/probe".to_vec(),
        argv: [OsStr::new("/probe"), OsStr::new("probe")].iter().chain(args).map(|a| a.as_bytes().to_vec()).collect(),
        env: vec![b"LD_LIBRARY_PATH=/lib/probe".to_vec()],
        cwd: b"/out".to_vec(),
        umask: 0o022,
        outputs: vec![OutputDir {
            path: b"/out".to_vec(),
            generation: b"out".to_vec(),
            whiteouts: vec![],
            poisons: vec![],
            binds: vec![],
            mode: 0o755,
        }],
        limits,
        discard_outputs: false,
        grouped: false,
    }
}

/// Generous, but none of them absent. Ten minutes, because jobs only get CPU that nobody else wants: on a busy machine a
/// second of it can take that long, and the self-test shall then be late, not failed.
fn roomy() -> Limits {
    Limits {
        wall_ms: 600_000,
        cpu_s: 60,
        address_bytes: 4 << 30,
        resident_bytes: 2 << 30,
        file_bytes: 512 << 20,
        processes: 64,
        open_files: 256,
        output_bytes: 256 << 20,
        output_files: 1024,
        stdio_bytes: 1 << 20,
        stack_bytes: 8 << 20,
    }
}

fn policy(sandbox: &mut Sandbox, ground: &Path, checks: &mut Vec<Check>) -> io::Result<()> {
    let home = std::env::var_os("HOME").filter(|h| h.as_bytes().starts_with(b"/") && h.len() > 1);
    let secrets = [Some(ground.as_os_str()), home.as_deref()];
    let backwards: Vec<Vec<u8>> =
        secrets.iter().flatten().map(|path| path.as_bytes().iter().rev().copied().collect()).collect();
    let mut args = vec![OsStr::new("policy")];
    args.extend(backwards.iter().map(|path| OsStr::from_bytes(path)));
    let done = sandbox.complete(&job(1, &args, roomy()))?;
    let stdout = String::from_utf8_lossy(&done.report.stdout);
    let before = checks.len();
    for line in stdout.lines() {
        if let Some(name) = line.strip_prefix("ok ") {
            checks.push(Check { name: name.into(), failure: None });
        } else if let Some((name, why)) = line.strip_prefix("FAIL ").and_then(|l| l.split_once(": ")) {
            checks.push(Check { name: name.into(), failure: Some(why.into()) });
        }
    }
    if before == checks.len() || !matches!(done.report.end, End::Exited(0 | 1)) {
        let stderr = String::from_utf8_lossy(&done.report.stderr);
        checks.push(Check { name: "policy".into(), failure: Some(format!("{:?} {stderr}", done.report.end)) });
    }
    let mut faults = done.faults;
    faults.sort_unstable();
    let reported = sandbox.trap == Trap::Loop || faults == [1, 2];
    let failure = (!reported).then(|| format!("touched poisons 1 and 2, reported {faults:?}"));
    checks.push(Check { name: "trap".into(), failure });
    Ok(())
}

/// Whether a limit ended a probe as it should.
type Judge = fn(&Finished) -> bool;

/// Runs one probe per limit, all at once.
fn limits(sandbox: &mut Sandbox, checks: &mut Vec<Check>) -> io::Result<()> {
    let roomy = roomy();
    let probes: [(&str, Limits, Judge); 9] = [
        ("cpu", Limits { cpu_s: 1, ..roomy }, |d| d.report.end == End::Limit(LimitKind::Cpu)),
        ("wall", Limits { wall_ms: 300, ..roomy }, |d| d.report.end == End::Limit(LimitKind::Wall)),
        ("memory", Limits { resident_bytes: 64 << 20, ..roomy }, |d| d.report.end == End::Limit(LimitKind::Memory)),
        ("address", Limits { address_bytes: 1 << 30, ..roomy }, |d| d.report.end == End::Exited(0)),
        ("file", Limits { file_bytes: 1 << 20, ..roomy }, |d| d.report.end == End::Limit(LimitKind::OutputBytes)),
        ("output", Limits { output_bytes: 8 << 20, ..roomy }, |d| d.report.end == End::Limit(LimitKind::OutputBytes)),
        ("processes", Limits { processes: 16, ..roomy }, |d| {
            let made = String::from_utf8_lossy(&d.report.stdout).trim().parse::<u64>();
            d.report.end == End::Limit(LimitKind::Processes) || made.is_ok_and(|n| n < 16)
        }),
        ("pipes", roomy, |d| d.report.end == End::Limit(LimitKind::KernelObjects)),
        ("stdio", roomy, |d| d.report.end == End::Limit(LimitKind::Stdio) && d.report.stdout.len() == 1 << 20),
    ];
    let mut streams = Vec::new();
    for (n, (name, limits, _)) in probes.iter().enumerate() {
        streams.push(sandbox.run(&job(10 + n as u64, &[OsStr::new(name)], *limits))?);
    }
    for ((name, _, judge), stream) in probes.iter().zip(streams) {
        let (report, contents) = stream.read()?;
        let done = Finished { report, contents, faults: vec![], faults_overflow: false };
        let failure = (!judge(&done)).then(|| {
            let said = String::from_utf8_lossy(&done.report.stderr);
            format!("it ended with {:?} after {} ms {said}", done.report.end, done.report.wall_us / 1000)
        });
        checks.push(Check { name: format!("limit-{name}"), failure });
    }
    for _ in probes {
        await_frame(sandbox, |frame| matches!(frame, FromRunner::Done { .. }))?;
    }
    Ok(())
}

/// Stops, resumes and kills a job.
fn stop(sandbox: &mut Sandbox) -> io::Result<Option<String>> {
    let stream = sandbox.run(&job(50, &[OsStr::new("cpu")], roomy()))?;
    sandbox.send(&ToRunner::Stop(50))?;
    await_frame(sandbox, |frame| matches!(frame, FromRunner::Stopped(50)))?;
    sandbox.send(&ToRunner::Resume(50))?;
    sandbox.send(&ToRunner::Kill(50))?;
    await_frame(sandbox, |frame| matches!(frame, FromRunner::Done { id: 50, .. }))?;
    let (report, _) = stream.read()?;
    Ok((report.end != End::Killed).then(|| format!("a killed job ended with {:?}", report.end)))
}

fn await_frame(sandbox: &mut Sandbox, wanted: impl Fn(&FromRunner) -> bool) -> io::Result<()> {
    loop {
        if wanted(&sandbox.next()?) {
            return Ok(());
        }
    }
}
