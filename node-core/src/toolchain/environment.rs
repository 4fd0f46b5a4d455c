//! What a compiler is run with: the user's variables, as the wrapper sent them, never the node's own, and the root that
//! they name paths of.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::Command;

use crate::root::Root;

/// Variables that decide which compiler a name means or which parts a driver picks. Locale and time zone steer what it
/// opens and says, so they belong to a toolchain too.
const STEERING: &[&str] = &[
    "PATH",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TZDIR",
    "LOCPATH",
    "NLSPATH",
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "GCC_ROOT",
    "BINUTILS_ROOT",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LD_AUDIT",
    "CLANG_CONFIG_FILE_SYSTEM_DIR",
    "CLANG_CONFIG_FILE_USER_DIR",
    "CCACHE_PATH",
    "CCACHE_COMPILER",
    "SDKROOT",
];

/// Environment variables by name, and their root: what is known of a compiler in one root answers for no other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Environment {
    vars: BTreeMap<OsString, OsString>,
    root: Root,
}

impl Environment {
    /// From `NAME=value` entries as they travel on the local socket; entries without `=` are dropped, the first of two
    /// equal names wins, as getenv sees it.
    pub fn from_entries<B: AsRef<[u8]>>(entries: &[B]) -> Self {
        let mut map = BTreeMap::new();
        for entry in entries {
            let entry = entry.as_ref();
            let Some(at) = entry.iter().position(|b| *b == b'=').filter(|at| *at > 0) else { continue };
            map.entry(OsString::from_vec(entry[..at].to_vec()))
                .or_insert_with(|| OsString::from_vec(entry[at + 1..].to_vec()));
        }
        Self { vars: map, root: Root::default() }
    }

    /// The same, in this root.
    pub fn in_root(self, root: Root) -> Self {
        Self { root, ..self }
    }

    /// The variables of this process: for command-line tools, never for jobs.
    pub fn of_this_process() -> Self {
        Self { vars: std::env::vars_os().collect(), root: Root::own() }
    }

    /// One variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The same with one variable set.
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    /// The same without one variable.
    pub fn without(mut self, name: &str) -> Self {
        self.vars.remove(OsStr::new(name));
        self
    }

    /// The same, answering in English: for output that is parsed.
    pub fn in_english(self) -> Self {
        self.without("LANGUAGE").with("LC_ALL", "C")
    }

    /// The directories of PATH in order; empty ones (the working directory) and relative ones are left out, because what
    /// they mean changes with every job.
    pub fn path_dirs(&self) -> Vec<PathBuf> {
        let path = self.get("PATH").unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
        std::env::split_paths(path).filter(|d| d.is_absolute()).collect()
    }

    /// Only the variables that steer which compiler is meant and what it opens.
    pub fn steering(&self) -> Self {
        let keep = |name: &OsStr| name.as_bytes().starts_with(b"LC_") || STEERING.iter().any(|s| OsStr::new(s) == name);
        Self {
            vars: self.vars.iter().filter(|(n, _)| keep(n)).map(|(n, v)| (n.clone(), v.clone())).collect(),
            root: self.root,
        }
    }

    /// `NAME=value`, sorted by name.
    pub fn entries(&self) -> Vec<Vec<u8>> {
        self.vars.iter().map(|(n, v)| [n.as_bytes(), b"=", v.as_bytes()].concat()).collect()
    }

    /// Makes it the whole environment of `command`.
    pub fn apply(&self, command: &mut Command) {
        command.env_clear().envs(&self.vars);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_back_and_steering_leaves_the_rest_out() {
        let env = Environment::from_entries(&["PATH=/a::/b:rel", "LC_ALL=de_DE", "X=1", "PATH=/c", "=no", "no"]);
        assert_eq!(env.path_dirs(), [PathBuf::from("/a"), "/b".into()]);
        assert_eq!(env.steering().entries(), [b"LC_ALL=de_DE".to_vec(), b"PATH=/a::/b:rel".to_vec()]);
        assert_eq!(env.get("X"), Some(OsStr::new("1")));
    }
}
