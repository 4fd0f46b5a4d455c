//! What a build must not leave behind: processes, mounts, slots, temporary files.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::wait::wait_until;
use crate::{Lab, Outcome};

/// Processes that a worker has when it does nothing.
const RESTING: &[&str] = &["potluck", "potluck-node", "potluck-runner"];
/// A worker that was hit in the middle of a job has this long to clean up.
const CLEAN_WITHIN: Duration = Duration::from_secs(30);

/// What is there before a build and may be there after it.
#[derive(Clone, Debug)]
pub struct Before {
    mounts: Vec<BTreeSet<String>>,
    submitters_mounts: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
}

/// Looks at all nodes while nothing is built.
pub fn before(lab: &Lab) -> Before {
    Before {
        mounts: lab.workers.iter().map(|w| w.mounts()).collect(),
        submitters_mounts: crate::node::mounts(lab.submitter.pid()),
        files: temporary_files(lab),
    }
}

/// Waits until nothing is left over, or says what is.
pub fn none_left(lab: &Lab, before: &Before) -> Outcome<Vec<String>> {
    let mut last = Vec::new();
    let clean = wait_until("clean-up", CLEAN_WITHIN, || {
        last = left(lab, before)?;
        Ok(last.is_empty().then_some(()))
    });
    Ok(if clean.is_ok() { Vec::new() } else { last })
}

fn left(lab: &Lab, before: &Before) -> Outcome<Vec<String>> {
    let mut left = Vec::new();
    for (worker, mounts) in lab.workers.iter().zip(&before.mounts) {
        let name = &worker.node.name;
        for process in worker.processes().iter().filter(|p| !RESTING.contains(&p.name.as_str())) {
            left.push(format!("{name}: process {} ({})", process.name, process.state));
        }
        for mount in worker.mounts().difference(mounts) {
            left.push(format!("{name}: mount {mount}"));
        }
        if !worker.named("potluck-node").is_empty() {
            let running = worker.node.status()?.number("/served/running")?;
            if running > 0 {
                left.push(format!("{name}: {running} slots in use"));
            }
        }
    }
    if lab.submitter.pid() != 0 {
        let running = lab.submitter.node.status()?.number("/jobs/running")?;
        if running > 0 {
            left.push(format!("submitter: {running} jobs running"));
        }
        for process in crate::node::family(lab.submitter.pid()).iter().filter(|p| !RESTING.contains(&p.name.as_str())) {
            left.push(format!("submitter: process {} ({})", process.name, process.state));
        }
        for mount in crate::node::mounts(lab.submitter.pid()).difference(&before.submitters_mounts) {
            left.push(format!("submitter: mount {mount}"));
        }
    }
    for process in crate::run::wrappers() {
        left.push(format!("submitter: process {} ({})", process.name, process.state));
    }
    left.extend(temporary_files(lab).difference(&before.files).map(|f| format!("file {}", f.display())));
    Ok(left)
}

/// Sentences in the nodes' logs that only a fault of the product writes.
pub fn complaints(lab: &Lab) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut look = |name: &str, state: PathBuf| {
        for log in [state.join("node.err"), state.join("state/potluck/node.log")] {
            let text = std::fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let bad =
                |l: &&str| ["panicked", "broke a rule", "after a fault of this node"].iter().any(|w| l.contains(w));
            complaints.extend(text.lines().filter(bad).map(|l| format!("{name}: {l}")));
        }
    };
    for worker in &lab.workers {
        look(&worker.node.name, worker.state_seen(lab.has_namespaces()));
    }
    look("submitter", lab.dir.join("submitter"));
    complaints
}

/// Files in places for temporary ones, on every node.
fn temporary_files(lab: &Lab) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let mut add = |root: PathBuf| {
        crate::tree::walk(&root, &mut |path, meta| {
            if !meta.is_dir() {
                files.insert(path.to_path_buf());
            }
        });
    };
    for worker in &lab.workers {
        for dir in ["tmp", "var/tmp", "dev/shm"] {
            if lab.has_namespaces() {
                add(worker.root().join(dir));
            }
        }
        let state = worker.state_seen(lab.has_namespaces());
        add(state.join("run"));
        // Contents on their way into a mirror are staged beside it.
        let mirrors = std::fs::read_dir(state.join("cache/potluck/mirrors"));
        for mirror in mirrors.into_iter().flatten().flatten() {
            add(mirror.path().join("stage"));
        }
    }
    add(lab.dir.join("submitter/run"));
    add(lab.dir.join("submitter/tmp"));
    files
}
