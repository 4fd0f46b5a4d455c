//! Whether the kernel divides the CPU among groups of processes before it asks about priorities: then jobs at the lowest
//! priority still have as much as any other group, and a person should know (cgroups(7), sched(7)).

use std::fs;
use std::path::{Path, PathBuf};

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
    /// That of this process; None if it is in none, or in one that yields to all others.
    pub fn own() -> Option<Self> {
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
}
