//! What mara builds: the zstd library, several times over with different options, by plain make.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use potluck_tests::workload::Workload;
use potluck_tests::{Context, Outcome};

use crate::pc::Pc;

/// Ways to compile the library, each into a folder of its own: together more than the half minute from which on a
/// build is told by a notification.
const WAYS: &[(&str, &str)] = &[
    ("fast", "-O3"),
    ("pic", "-O3 -fPIC"),
    ("debug", "-O2 -g"),
    ("small", "-Os -g -fPIC"),
    ("wide", "-O2 -funroll-loops"),
];

/// Puts it into mara's home. How many objects there are.
pub fn put(pc: &Pc) -> Outcome<usize> {
    let zstd = Workload::prepare("zstd")?;
    let from = zstd.roots.first().context(|| "zstd has no folder".into())?;
    let place = format!("/home/{}/zstd", pc.name);
    for (file, _) in zstd.files.iter().filter(|(f, _)| f.extension().is_some_and(|e| e == "c" || e == "h" || e == "S"))
    {
        let below = file.strip_prefix(from).context(|| format!("{} is elsewhere", file.display()))?;
        let to = pc.path(&place).join(below);
        fs::create_dir_all(to.parent().context(|| "no folder".into())?)?;
        fs::copy(file, to)?;
    }
    let mut rules = String::new();
    let mut objects = Vec::new();
    for (way, options) in WAYS {
        for unit in &zstd.units {
            let object = format!("{way}/{}", unit.object.replace('/', "-"));
            let flags = unit.flags.join(" ");
            rules.push_str(&format!("{object}: {}\n\tgcc {options} {flags} -c {} -o $@\n", unit.source, unit.source));
            objects.push(object);
        }
    }
    let folders: Vec<&str> = WAYS.iter().map(|(way, _)| *way).collect();
    let make = format!("all: {}\nclean:\n\trm -rf {}\n{rules}", objects.join(" "), objects.join(" "));
    fs::write(pc.path(&place).join("Makefile"), make)?;
    pc.root(&format!("cd {place} && mkdir -p {} && chown -R {}: {place}", folders.join(" "), pc.name))?;
    Ok(objects.len())
}

/// Digests of all objects.
pub fn objects(pc: &Pc) -> Outcome<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for (way, _) in WAYS {
        let dir = pc.path(&format!("/home/{}/zstd/{way}", pc.name));
        for entry in fs::read_dir(&dir).context(|| format!("reading {}", dir.display()))? {
            let path = entry?.path();
            out.insert(name(&path), blake3::hash(&fs::read(&path)?).to_string());
        }
    }
    Ok(out)
}

fn name(path: &Path) -> String {
    let mut parts: Vec<String> = path.iter().rev().take(2).map(|p| p.to_string_lossy().into_owned()).collect();
    parts.reverse();
    parts.join("/")
}
