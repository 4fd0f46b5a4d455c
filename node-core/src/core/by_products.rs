//! Which by-products of compiles (`main.su`, `main.i`) are known to be this node's own. A person may have a file of that
//! name and not know that an option writes it: over one that is not known to be a by-product nothing is put that comes
//! from a worker; the compile runs here, does what the compiler does, and from then on the file is known. Kept in memory
//! only: after a restart the first compile of each such file runs here.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use potluck_model::plan::{Loose, Plan, Role};
use rustc_hash::FxHashMap as HashMap;

use super::{ConnId, Core};
use crate::bytes;
use crate::outputs::{self, Folders};
use crate::tree::Tree;

/// Files remembered: Chromium has 60,000 objects, and an entry is 8 bytes. When it is full all are forgotten.
const KNOWN_MAX: usize = 500_000;
/// Files of one directory that are looked through for dumps after a compile here.
const LOOKED_THROUGH_MAX: usize = 100_000;

/// See the module.
#[derive(Default)]
pub(crate) struct ByProducts {
    known: HashSet<u64>,
    seeds: RandomState,
    /// What compiles that run here at the moment are about to write.
    running: HashMap<ConnId, Vec<Running>>,
}

/// Of one source.
struct Running {
    source: PathBuf,
    files: Vec<PathBuf>,
    loose: Vec<(PathBuf, Loose)>,
}

impl ByProducts {
    fn key(&self, path: &Path, source: &Path) -> u64 {
        self.seeds.hash_one((path, source))
    }

    /// Whether `path` is known to be a by-product of `source`.
    pub(crate) fn knows(&self, path: &Path, source: &Path) -> bool {
        !self.known.is_empty() && self.known.contains(&self.key(path, source))
    }

    /// From now on it is.
    pub(crate) fn learn(&mut self, path: &Path, source: &Path) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let key = self.key(path, source);
        self.known.insert(key);
    }

    /// Whether a by-product may take the place of what is at `path`: nothing is, or it is known to be one.
    pub(crate) fn may_replace(&self, folders: &mut Folders, path: &Path, source: &Path) -> bool {
        self.knows(path, source) || !outputs::exists(folders, path) || outputs::is_compilers(folders, path)
    }

    /// A compile here has ended well, or (`None`) in some other way.
    pub(crate) fn ended_here(&mut self, conn: ConnId, exit: Option<i32>) {
        if self.running.is_empty() {
            return;
        }
        for Running { source, files, loose } in
            self.running.remove(&conn).filter(|_| exit == Some(0)).unwrap_or_default()
        {
            let dumps = loose.iter().flat_map(|(dir, loose)| {
                let names = std::fs::read_dir(dir).into_iter().flatten().flatten().take(LOOKED_THROUGH_MAX);
                names.map(|entry| entry.file_name()).filter(|name| loose.holds(name)).map(|name| dir.join(name))
            });
            for path in files.iter().cloned().chain(dumps) {
                self.learn(&path, &source);
            }
        }
    }
}

impl Core {
    /// Notes what a compile that is about to run here will write beside its output.
    pub(super) fn by_products_come(&mut self, conn: ConnId, plans: &[Plan], cwd: &Path) {
        for plan in plans {
            let beside = plan.outputs.iter().filter(|o| o.role == Role::Beside);
            let files: Vec<PathBuf> = beside.filter_map(|o| physical_output(&self.tree, cwd, &o.path)).collect();
            let loose: Vec<_> = loose_dirs(&self.tree, plan, cwd);
            if !files.is_empty() || !loose.is_empty() {
                let running = Running { source: cwd.join(&plan.source), files, loose };
                self.by_products.running.entry(conn).or_default().push(running);
            }
        }
    }
}

/// Where files with partly known names of a plan go.
pub(super) fn loose_dirs(tree: &Tree, plan: &Plan, cwd: &Path) -> Vec<(PathBuf, Loose)> {
    let place = |loose: &Loose| Some((physical_dir(tree, &cwd.join(&loose.dir))?, loose.clone()));
    plan.loose.iter().filter_map(place).collect()
}

/// The physical path of an output.
pub(super) fn physical_output(tree: &Tree, cwd: &Path, output: &Path) -> Option<PathBuf> {
    let spelled = cwd.join(output);
    Some(physical_dir(tree, spelled.parent()?)?.join(spelled.file_name()?))
}

fn physical_dir(tree: &Tree, spelled: &Path) -> Option<PathBuf> {
    // Nearly always spelled as it is: without a dot and a link.
    match tree.known_dir_as_spelled(bytes::of(spelled)) {
        Some(dir) => Some(tree.dir(dir).path.clone()),
        None => spelled.canonicalize().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_persons_file_is_not_replaced_before_a_compile_here_has_written_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, source) = (dir.path().join("main.su"), dir.path().join("main.c"));
        let (mut known, folders) = (ByProducts::default(), &mut Folders::default());
        let running = || vec![Running { source: source.clone(), files: vec![path.clone()], loose: Vec::new() }];
        assert!(known.may_replace(folders, &path, &source), "nothing is there");
        fs::write(&path, "a person's").unwrap();
        assert!(!known.may_replace(folders, &path, &source));
        known.running.insert(7, running());
        known.ended_here(7, Some(1));
        assert!(!known.may_replace(folders, &path, &source), "the compile failed");
        known.running.insert(7, running());
        known.ended_here(7, Some(0));
        assert!(known.may_replace(folders, &path, &source));
        assert!(!known.may_replace(folders, &path, Path::new("/other.c")), "of another source");
    }

    #[test]
    fn what_only_a_compiler_makes_may_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (known, source) = (ByProducts::default(), dir.path().join("main.c"));
        for (content, may) in [("\x7fELF", true), ("oncg*33B", true), ("gcno", true), ("ELF", false), ("", false)] {
            let path = dir.path().join("main.gcno");
            fs::write(&path, content).unwrap();
            assert_eq!(known.may_replace(&mut Folders::default(), &path, &source), may, "{content:?}");
        }
    }
}
