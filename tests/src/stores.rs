//! Whether what nodes keep on disk is what it says to be: compared from outside, with no node's word for it.

use std::fs;
use std::path::{Path, PathBuf};

use potluck_node::toolchain::Store;

use crate::{Lab, Outcome, tree};

/// What is wrong in the stores of all nodes.
pub fn damaged(lab: &Lab) -> Outcome<Vec<String>> {
    let mut wrong = Vec::new();
    let homes = std::iter::once(("submitter".to_owned(), lab.dir.join("submitter")))
        .chain(lab.workers.iter().map(|w| (w.node.name.clone(), w.state_seen(lab.has_namespaces()))));
    for (name, home) in homes {
        wrong.extend(toolchains(&home)?.into_iter().map(|w| format!("{name}: {w}")));
        wrong.extend(mirrors(&home.join("cache/potluck/mirrors")).into_iter().map(|w| format!("{name}: {w}")));
    }
    let nodes = std::iter::once(&lab.submitter.node).chain(lab.workers.iter().map(|w| &w.node));
    for node in nodes {
        if !node.potluck(&["team", "list", "--json"])?.contains("\"joined\":true") {
            wrong.push(format!("{}: it is in no team any more", node.name));
        }
        node.potluck(&["builds", "--json"])?;
    }
    Ok(wrong)
}

/// Every manifest has the digest that it is named after.
fn toolchains(home: &Path) -> Outcome<Vec<String>> {
    let store = Store::open(&home.join("cache"))?;
    let all = store.list()?;
    Ok(all.iter().filter(|id| store.manifest(**id).is_none()).map(|id| format!("toolchain {id} is damaged")).collect())
}

/// Every file of a mirror is the submitter's, which here is this machine's: nothing that a job may read is half a file.
fn mirrors(dir: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for mirror in fs::read_dir(dir).into_iter().flatten().flatten() {
        let root = mirror.path().join("root");
        tree::walk(&root, &mut |path, meta| {
            let Ok(rest) = path.strip_prefix(&root) else { return };
            let own: PathBuf = Path::new("/").join(rest);
            // Folders of builds that are over are gone here.
            if meta.is_file() && own.is_file() && fs::read(path).ok() != fs::read(&own).ok() {
                wrong.push(format!("its copy of {} is another file", own.display()));
            }
        });
    }
    wrong
}
