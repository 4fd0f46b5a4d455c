//! Whether the kernel divides the CPU among groups of processes before it asks about priorities: then jobs at the lowest
//! priority still have as much as any other group (cgroups(7), sched(7)). Where systemd makes such groups, it is asked
//! for one that yields; where that fails, a person should know.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zbus::zvariant::Value;

/// A control group in which this process shares the CPU with others.
#[derive(Debug, PartialEq, Eq)]
pub struct CpuGroup {
    /// Its path, as /proc/self/cgroup says it.
    pub path: String,
    /// Its part of the CPU beside its neighbours'.
    pub weight: u64,
    /// What a neighbour has that nobody gave a weight.
    pub usual: u64,
}

impl CpuGroup {
    /// That of jobs: this process's own, unless systemd gave them one that yields. None if there is nothing to mend.
    pub fn of_jobs() -> Option<Self> {
        if SCOPED.load(Ordering::Relaxed) { None } else { Self::own() }
    }

    /// That of this process; None if it is in none, or in one that yields to all others.
    fn own() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::of(&groups, Path::new("/sys/fs/cgroup"))
    }

    fn of(groups: &str, mounted: &Path) -> Option<Self> {
        let lines = || groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let legacy = lines().find(|(controllers, _)| controllers.split(',').any(|c| c == "cpu"));
        if let Some((controllers, path)) = legacy {
            // The topmost has a number too, but no neighbours.
            return if path == "/" { None } else { find(path, &mounted.join(controllers), "cpu.shares", 1024) };
        }
        let (_, path) = lines().find(|(controllers, _)| controllers.is_empty())?;
        find(path, mounted, "cpu.weight", 100)
    }
}

/// The nearest group that has a weight: one below a group that does not divide the CPU has none of its own.
fn find(path: &str, root: &Path, file: &str, usual: u64) -> Option<CpuGroup> {
    for group in Path::new(path).ancestors() {
        let dir: PathBuf = root.join(group.strip_prefix("/").unwrap_or(group));
        let number = |name: &str| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
        if let Some(weight) = number(file) {
            return (number("cpu.idle") != Some(1)).then(|| CpuGroup {
                path: group.display().to_string(),
                weight,
                usual,
            });
        }
    }
    None
}

/// What systemd's manager of this user is asked on the session bus (org.freedesktop.systemd1, StartTransientUnit).
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
trait Systemd {
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Value<'_>)],
        aux: &[(&str, &[(&str, Value<'_>)])],
    ) -> zbus::Result<zbus::zvariant::OwnedObjectPath>;
}

/// Longest wait for systemd: a sandbox works without.
const SCOPE_WITHIN: Duration = Duration::from_secs(3);

/// Whether the last sandbox was put into a scope of its own.
static SCOPED: AtomicBool = AtomicBool::new(false);

/// Where this process is in a group that does not yield: asks systemd to put a sandbox into a scope that yields the CPU
/// and the disk to every other one, and in which each job may have a group of its own. Call it before the first job, whose
/// processes are born where their runner is. The scope's name, if there is one. Blocks for [`SCOPE_WITHIN`] at most.
pub fn make_yield(pid: u32) -> Option<String> {
    CpuGroup::own()?;
    let moved = ask_systemd(pid);
    SCOPED.store(moved.is_ok(), Ordering::Relaxed);
    if let Err(error) = moved {
        crate::log::info(&format!("no scope for the sandbox {pid}: {error}"));
        return None;
    }
    Some(scope_of(pid))
}

fn scope_of(pid: u32) -> String {
    format!("potluck-jobs-{pid}.scope")
}

/// On a thread of its own: whoever calls may be a task of a runtime, inside which another one cannot be waited for.
fn ask_systemd(pid: u32) -> Result<(), String> {
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let asked = async { move_to_idle_scope(&zbus::Connection::session().await?, pid).await };
        let moved = runtime.block_on(async { tokio::time::timeout(SCOPE_WITHIN, asked).await });
        let late = |_| format!("systemd did not answer within {} s", SCOPE_WITHIN.as_secs());
        moved.map_err(late)?.map_err(|e| e.to_string())
    };
    std::thread::scope(|scope| scope.spawn(ask).join()).unwrap_or_else(|_| Err("asking systemd failed".to_owned()))
}

async fn move_to_idle_scope(bus: &zbus::Connection, pid: u32) -> zbus::Result<()> {
    let properties = [
        ("Description", Value::from("Potluck: jobs of other PCs")),
        ("PIDs", Value::from(vec![pid])),
        // 0 is "idle" (systemd.resource-control(5)); before systemd 252 it is refused, and then 1 is the least.
        ("CPUWeight", Value::from(0u64)),
        ("IOWeight", Value::from(1u64)),
        ("CollectMode", Value::from("inactive-or-failed")),
        // What is below it is ours: see `job_group`.
        ("Delegate", Value::from(true)),
    ];
    let name = scope_of(pid);
    let systemd = SystemdProxy::new(bus).await?;
    if systemd.start_transient_unit(&name, "fail", &properties, &[]).await.is_ok() {
        return Ok(());
    }
    let mut properties = properties;
    properties[2].1 = Value::from(1u64);
    systemd.start_transient_unit(&name, "fail", &properties, &[]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_nearest_group_with_a_weight_counts_and_an_idle_one_yields() {
        let dir =
            tree(&[("user/cpu.weight", "100\n"), ("user/app/cpu.weight", "7\n"), ("user/app/x/cgroup.procs", "")]);
        let of = |groups| CpuGroup::of(groups, dir.path());
        let group = |path: &str, weight| Some(CpuGroup { path: path.into(), weight, usual: 100 });
        assert_eq!(of("0::/user\n"), group("/user", 100));
        assert_eq!(of("0::/user/app/x\n"), group("/user/app", 7));
        // The root of a machine has no weight.
        assert_eq!(of("0::/\n"), None);
        assert_eq!(of(""), None);
        fs::write(dir.path().join("user/app/cpu.idle"), "1\n").unwrap();
        assert_eq!(of("0::/user/app/x\n"), None);
    }

    #[test]
    fn a_node_that_starts_in_its_runtime_may_ask_systemd() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // No process has this number: whatever bus there is refuses, and without one there is nobody to ask.
        assert!(runtime.block_on(async { ask_systemd(u32::MAX) }).is_err());
    }

    #[test]
    fn the_older_hierarchies_are_read_too() {
        let dir = tree(&[("cpu,cpuacct/cpu.shares", "1024\n"), ("cpu,cpuacct/desk/cpu.shares", "512\n")]);
        let of = |groups| CpuGroup::of(groups, dir.path());
        let usual = 1024;
        assert_eq!(
            of("4:memory:/m\n3:cpu,cpuacct:/desk\n0::/\n"),
            Some(CpuGroup { path: "/desk".into(), weight: 512, usual })
        );
        assert_eq!(of("3:cpu,cpuacct:/\n0::/user\n"), None);
    }

    /// systemd's manager as far as it is asked here; an old one refuses the weight 0.
    struct Manager {
        is_old: bool,
        started: std::sync::mpsc::Sender<(String, Vec<u32>, u64)>,
    }

    #[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
    impl Manager {
        fn start_transient_unit(
            &self,
            name: String,
            mode: String,
            properties: Vec<(String, Value<'_>)>,
            _aux: Vec<(String, Vec<(String, Value<'_>)>)>,
        ) -> zbus::fdo::Result<zbus::zvariant::OwnedObjectPath> {
            let get =
                |name: &str| properties.iter().find(|(n, _)| n == name).map(|(_, v)| v.try_clone().unwrap()).unwrap();
            let weight = u64::try_from(get("CPUWeight")).unwrap();
            if mode != "fail" || self.is_old && weight == 0 {
                return Err(zbus::fdo::Error::InvalidArgs("out of range".into()));
            }
            self.started.send((name, Vec::<u32>::try_from(get("PIDs")).unwrap(), weight)).unwrap();
            Ok(zbus::zvariant::ObjectPath::try_from("/job/1").unwrap().into())
        }
    }

    #[test]
    fn systemd_is_asked_for_a_scope_that_yields_and_an_old_one_for_the_least_weight() {
        use std::io::BufRead;
        let mut daemon = std::process::Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("dbus-daemon runs (package dbus)");
        let mut address = String::new();
        std::io::BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (is_old, weight) in [(false, 0), (true, 1)] {
            let (started, seen) = std::sync::mpsc::channel();
            runtime.block_on(async {
                let connect = || zbus::connection::Builder::address(address.trim()).unwrap();
                let manager = Manager { is_old, started };
                let served = connect().serve_at("/org/freedesktop/systemd1", manager).unwrap();
                let _manager = served.name("org.freedesktop.systemd1").unwrap().build().await.unwrap();
                move_to_idle_scope(&connect().build().await.unwrap(), 42).await.unwrap();
            });
            assert_eq!(seen.try_recv().unwrap(), ("potluck-jobs-42.scope".to_owned(), vec![42], weight));
        }
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
}
