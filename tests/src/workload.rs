//! Real projects and their real compile commands: the zstd library that the zstd-sys crate carries, and git, curl,
//! sqlite3, abseil and libtorrent from the distribution's own sources. Fetched and configured once, kept between runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::commands::{Unit, from_database, from_make};
use crate::lab::base_dir;
use crate::person::Person;
use crate::tree;
use crate::{Context, Outcome, Trouble};

/// Raised when preparation changes, so that kept command lists are made again.
const RECIPE: u32 = 4;
/// Every workload, in the order of tables.
pub const ALL: &[&str] = &["zstd", "git", "curl", "sqlite3", "abseil", "libtorrent"];

/// A project and how its files are compiled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workload {
    /// Which way of preparing made it.
    pub recipe: u32,
    /// Name in tables.
    pub name: String,
    /// Folders in which sources, generated files and outputs are.
    pub roots: Vec<PathBuf>,
    /// Everything below them before the first build, with its size in bytes.
    pub files: BTreeMap<PathBuf, u64>,
    /// Commands.
    pub units: Vec<Unit>,
}

impl Workload {
    /// The project, fetched and configured if it has not been yet.
    pub fn prepare(name: &str) -> Outcome<Self> {
        let src = base_dir()?.join("src");
        Person::submitter().make_dir(&src)?;
        let list = src.join(format!("{name}.json"));
        let kept = fs::read(&list).ok().and_then(|b| serde_json::from_slice::<Self>(&b).ok());
        // A copy of another Lab's folder names the other's sources.
        if let Some(kept) = kept.filter(|k| k.recipe == RECIPE && k.roots.iter().all(|r| r.starts_with(&src))) {
            match tree::restore(&kept.roots, &kept.files)? {
                None => return Ok(kept),
                Some(damage) => eprintln!("{name} is prepared again, because {damage}"),
            }
            fs::remove_file(&list)?;
            for folder in kept.roots.iter().filter_map(|r| r.strip_prefix(&src).ok()?.iter().next()) {
                fs::remove_dir_all(src.join(folder)).context(|| format!("removing {}", src.join(folder).display()))?;
            }
        }
        let (root, units) = match name {
            "zstd" => zstd(&src)?,
            "git" => git(&src)?,
            "curl" => {
                cmake(&src, "curl", &["-DCURL_USE_OPENSSL=OFF", "-DBUILD_TESTING=ON", "-DCURL_DISABLE_LDAP=ON"], 280)?
            }
            "sqlite3" => sqlite(&src)?,
            "abseil" => cmake(&src, "abseil", &["-DCMAKE_CXX_STANDARD=17", "-DABSL_PROPAGATE_CXX_STD=ON"], usize::MAX)?,
            "libtorrent" => cmake(&src, "libtorrent-rasterbar", &["-Dencryption=OFF"], usize::MAX)?,
            other => return Err(Trouble::new(format!("no workload \"{other}\"; there are {}", ALL.join(", ")))),
        };
        let mut seen = BTreeSet::new();
        let units: Vec<Unit> =
            units.into_iter().filter(|u| u.source_path().is_file() && seen.insert(u.object_path())).collect();
        if units.is_empty() {
            return Err(Trouble::new(format!("{name}: its build system printed no compile command")));
        }
        for unit in &units {
            let object = unit.object_path();
            Person::submitter().make_dir(object.parent().expect("an object is in a folder"))?;
        }
        let roots = vec![root];
        let workload = Self { recipe: RECIPE, name: name.into(), files: tree::sizes(&roots), roots, units };
        fs::write(&list, serde_json::to_vec(&workload)?)?;
        Ok(workload)
    }

    /// Only `count` of its files, spread over the whole list.
    pub fn sample(mut self, count: usize) -> Self {
        self.units = spread(self.units, count);
        self
    }
}

/// `count` of the items at equal distances.
pub fn spread<T>(items: Vec<T>, count: usize) -> Vec<T> {
    let total = items.len();
    if count >= total {
        return items;
    }
    let wanted: BTreeSet<usize> = (0..count).map(|i| i * total / count).collect();
    items.into_iter().enumerate().filter(|(i, _)| wanted.contains(i)).map(|(_, item)| item).collect()
}

/// Runs a shell line as the submitter's user in `cwd`; its standard output.
pub fn shell(cwd: &Path, line: &str, env: &[(&str, &Path)]) -> Outcome<String> {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(cwd).env_clear().stdin(Stdio::null());
    command
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", base_dir()?);
    command.envs(env.iter().map(|(k, v)| (*k, v.as_os_str())));
    for proxy in ["http_proxy", "https_proxy", "no_proxy"] {
        command.envs(std::env::var_os(proxy).map(|v| (proxy, v)));
    }
    Person::submitter().adopt(&mut command);
    let output = command.output().context(|| line.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let tail: Vec<&str> = said.lines().rev().take(15).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(Trouble::new(format!("in {}: {line}: {}\n{}", cwd.display(), output.status, tail.join("\n"))))
}

/// The C sources of zstd that every machine which built Potluck has.
fn zstd(src: &Path) -> Outcome<(PathBuf, Vec<Unit>)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    // A build fetches only what it compiles, and the list wants everything: where some of it is missing, cargo may fetch.
    let ask = |offline: &[&str]| {
        let mut command = Command::new(&cargo);
        command.args(["metadata", "--format-version", "1", "--locked", "--filter-platform"]);
        command.arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH)).args(offline);
        command.arg("--manifest-path").arg(&manifest).output().context(|| "cargo metadata".into())
    };
    let mut output = ask(&["--offline"])?;
    if !output.status.success() {
        output = ask(&[])?;
    }
    if !output.status.success() {
        return Err(Trouble::new(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let zstd_sys = packages.iter().find(|p| p["name"] == "zstd-sys").and_then(|p| p["manifest_path"].as_str());
    let zstd_sys = zstd_sys.context(|| "the crate zstd-sys is not among the dependencies".into())?;
    let from = Path::new(zstd_sys).with_file_name("zstd").join("lib");
    let to = src.join("zstd");
    let mut units = Vec::new();
    let mut failed = None;
    tree::walk(&from, &mut |path, meta| {
        let below = path.strip_prefix(&from).expect("walked from there");
        let target = to.join(below);
        let copied = if meta.is_dir() {
            Person::submitter().make_dir(&target)
        } else {
            let parent = Person::submitter().make_dir(target.parent().expect("below `to`"));
            parent.and_then(|()| Ok(fs::copy(path, &target)?)).and_then(|_| Person::submitter().own(&target))
        };
        failed = failed.take().or(copied.err());
        if path.extension().is_some_and(|e| e == "c") {
            let source = below.to_string_lossy().into_owned();
            let object = source.replace(".c", ".o");
            let flags = [
                "-I.",
                "-Icommon",
                "-Ilegacy",
                "-DXXH_NAMESPACE=ZSTD_",
                "-DZSTD_LEGACY_SUPPORT=1",
                "-DZSTD_MULTITHREAD",
            ];
            let flags = flags.map(String::from).to_vec();
            units.push(Unit { cwd: to.clone(), cxx: false, flags, source, object });
        }
    });
    failed.map_or(Ok((to.clone(), units)), Err)
}

fn git(src: &Path) -> Outcome<(PathBuf, Vec<Unit>)> {
    let root = distribution_source(src, "git")?;
    let set = "V=1 CC=gcc NO_CURL=1 NO_EXPAT=1 NO_OPENSSL=1 NO_GETTEXT=1 NO_TCLTK=1 NO_PYTHON=1 NO_PERL=1";
    shell(&root, &format!("make -s {set} command-list.h config-list.h hook-list.h"), &[])?;
    let text = shell(&root, &format!("make -n {set} all"), &[])?;
    let units = from_make(&root, &text);
    Ok((root, units))
}

fn sqlite(src: &Path) -> Outcome<(PathBuf, Vec<Unit>)> {
    let root = distribution_source(src, "sqlite3")?;
    let build = root.join("build-lab");
    Person::submitter().make_dir(&build)?;
    shell(&build, "../configure --disable-readline --disable-tcl", &[])?;
    // Makes every generated header and source without compiling the library.
    shell(&build, "make sqlite3.c shell.c opcodes.c", &[])?;
    let text = shell(&build, "make -n USE_AMALGAMATION=0 libsqlite3.la", &[])?;
    let units = from_make(&build, &text);
    Ok((root, units))
}

fn cmake(src: &Path, package: &str, options: &[&str], at_most: usize) -> Outcome<(PathBuf, Vec<Unit>)> {
    let root = distribution_source(src, package)?;
    let options = options.join(" ");
    let fixed =
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DCMAKE_BUILD_TYPE=None -DCMAKE_C_COMPILER=gcc -DCMAKE_CXX_COMPILER=g++";
    shell(&root, &format!("cmake -S . -B build-lab {fixed} {options}"), &[])?;
    let units = from_database(&fs::read_to_string(root.join("build-lab/compile_commands.json"))?)?;
    // Test programs compile the same helper sources again and again: one command for each source is enough.
    let mut sources = BTreeSet::new();
    let units = units.into_iter().filter(|u| u.source_path().is_file() && sources.insert(u.source_path())).collect();
    Ok((root, spread(units, at_most)))
}

/// Unpacks a source package of the distribution, through apt with folders of the Lab's own.
fn distribution_source(src: &Path, package: &str) -> Outcome<PathBuf> {
    let config = apt_config(src)?;
    let place = src.join(package);
    if !place.join(".unpacked").exists() {
        let _ = fs::remove_dir_all(&place);
        Person::submitter().make_dir(&place)?;
        shell(
            &place,
            &format!("apt-get -q source --only-source {package} && touch .unpacked"),
            &[("APT_CONFIG", &config)],
        )?;
    }
    let folders: Vec<PathBuf> = fs::read_dir(&place)?.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    match folders.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Trouble::new(format!("{} does not hold exactly one folder", place.display()))),
    }
}

fn apt_config(src: &Path) -> Outcome<PathBuf> {
    let apt = src.join("apt");
    let config = apt.join("apt.conf");
    if config.is_file() {
        return Ok(config);
    }
    let person = Person::submitter();
    for dir in ["lists/partial", "cache/archives/partial"] {
        person.make_dir(&apt.join(dir))?;
    }
    let codename = os_release("VERSION_CODENAME").context(|| "this is no Debian or Ubuntu system".to_string())?;
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|e| e.path()));
    let mut parts = apt.join("parts");
    person.make_dir(&parts)?;
    for (index, file) in files.iter().enumerate() {
        let Ok(text) = fs::read_to_string(file) else { continue };
        let (sources, suffix) = match file.extension().and_then(|e| e.to_str()) {
            Some("list") => (list_sources(&text, &codename), "list"),
            Some("sources") => (stanza_sources(&text, &codename), "sources"),
            _ => continue,
        };
        if !sources.is_empty() {
            fs::write(parts.join(format!("{index}.{suffix}")), sources)?;
        }
    }
    parts.push("");
    let text = format!(
        "Dir::Etc::sourcelist \"-\";\nDir::Etc::sourceparts \"{}\";\nDir::State::Lists \"{}\";\nDir::Cache \"{}\";\n\
         APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n",
        parts.display(),
        apt.join("lists").display(),
        apt.join("cache").display()
    );
    let unproven = apt.join("apt.conf.new");
    fs::write(&unproven, text)?;
    shell(&apt, "apt-get -q update", &[("APT_CONFIG", &unproven)])
        .context(|| "fetching the distribution's list of sources".into())?;
    fs::rename(&unproven, &config)?;
    Ok(config)
}

/// A value of /etc/os-release.
pub fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='))?;
    Some(line.trim_matches('"').to_string())
}

/// The distribution's own entries of a one-line-style file, asking for sources.
fn list_sources(text: &str, codename: &str) -> String {
    let mut out = String::new();
    for line in text.lines().map(str::trim) {
        let Some(rest) = line.strip_prefix("deb ") else { continue };
        let mut words = rest.split_whitespace().skip_while(|w| w.starts_with('[') || w.ends_with(']'));
        if words.nth(1).is_some_and(|suite| suite.starts_with(codename)) {
            out.push_str(&format!("deb-src {rest}\n"));
        }
    }
    out
}

/// The distribution's own stanzas of a deb822 file, asking for sources.
fn stanza_sources(text: &str, codename: &str) -> String {
    let of_distribution = |stanza: &&str| {
        let suites = stanza.lines().find_map(|l| l.strip_prefix("Suites:")).unwrap_or_default();
        suites.split_whitespace().any(|s| s.starts_with(codename))
    };
    let stanzas = text.split("\n\n").filter(of_distribution);
    let with_sources = stanzas.map(|stanza| {
        let lines = stanza.lines().map(|l| if l.starts_with("Types:") { "Types: deb-src" } else { l });
        lines.collect::<Vec<_>>().join("\n") + "\n\n"
    });
    with_sources.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_distributions_own_archives_are_asked_for_sources() {
        let list = "deb http://m/debian bookworm main\ndeb [signed-by=/k] http://x/tool stable main\n# deb http://m/debian bookworm x\n";
        assert_eq!(list_sources(list, "bookworm"), "deb-src http://m/debian bookworm main\n");
        let stanzas = "Types: deb\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\n\nTypes: deb\nURIs: http://x\nSuites: nodistro\n";
        let got = stanza_sources(stanzas, "bookworm");
        assert_eq!(got, "Types: deb-src\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\n\n");
    }

    #[test]
    fn a_sample_is_spread_over_the_whole_list() {
        assert_eq!(spread((0..10).collect(), 3), [0, 3, 6]);
        assert_eq!(spread(vec![1, 2], 5), [1, 2]);
    }
}
