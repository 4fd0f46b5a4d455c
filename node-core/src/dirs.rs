//! Where a node keeps its things: the XDG folders, which alone keep several nodes of one machine apart.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The folders of one node.
#[derive(Clone, Debug)]
pub struct Dirs {
    /// `$XDG_CONFIG_HOME/potluck`: addresses of peers.
    pub config: PathBuf,
    /// `$XDG_STATE_HOME/potluck`: identity, team, job log.
    pub state: PathBuf,
    /// `$XDG_CACHE_HOME/potluck`: toolchains, mirrors, masquerade directory.
    pub cache: PathBuf,
    /// `$XDG_RUNTIME_DIR/potluck`: the socket.
    pub runtime: PathBuf,
}

impl Dirs {
    /// From the environment. A variable that is not absolute counts as unset, as the XDG specification says.
    pub fn from_env() -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(|| PathBuf::from("/"));
        let get = |name: &str, default: PathBuf| {
            std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute()).unwrap_or(default).join("potluck")
        };
        let cache = get("XDG_CACHE_HOME", home.join(".cache"));
        let uid = rustix::process::getuid().as_raw();
        let run_user = PathBuf::from(format!("/run/user/{uid}"));
        let runtime_default = if run_user.is_dir() { run_user } else { cache.join("run") };
        Self {
            config: get("XDG_CONFIG_HOME", home.join(".config")),
            state: get("XDG_STATE_HOME", home.join(".local/state")),
            runtime: match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute()) {
                Some(dir) => dir.join("potluck"),
                None if runtime_default.starts_with(&cache) => runtime_default,
                None => runtime_default.join("potluck"),
            },
            cache,
        }
    }

    /// The socket of wrapper and command line.
    pub fn socket(&self) -> PathBuf {
        match std::env::var_os("POTLUCK_SOCKET") {
            Some(path) => path.into(),
            None => self.runtime.join("node.sock"),
        }
    }

    /// The masquerade directory.
    pub fn masquerade(&self) -> PathBuf {
        self.cache.join("bin")
    }

    /// Makes the folders, for their owner only.
    pub fn create(&self) -> std::io::Result<()> {
        for dir in [&self.config, &self.state, &self.cache, &self.runtime] {
            make_private(dir)?;
        }
        Ok(())
    }
}

/// The runner that belongs to the program `exe`: beside it, or in `../lib/potluck`, where packages put what nobody calls
/// by name. If it is in neither place, where it should be.
pub fn runner_of(exe: &Path) -> PathBuf {
    let beside = exe.with_file_name("potluck-runner");
    let packaged = exe.ancestors().nth(2).map(|top| top.join("lib/potluck/potluck-runner"));
    match packaged {
        Some(packaged) if !beside.is_file() && packaged.is_file() => packaged,
        _ => beside,
    }
}

/// Makes a folder with mode 0700 and checks that it is ours.
pub fn make_private(dir: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let meta = std::fs::metadata(dir)?;
    if meta.uid() != rustix::process::getuid().as_raw() {
        return Err(std::io::Error::other(format!("{} belongs to another user", dir.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_is_found_beside_the_program_and_in_a_packages_place() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for dir in ["bin", "lib/potluck"] {
            std::fs::create_dir_all(path(dir)).unwrap();
        }
        let exe = path("bin/potluck-node");
        assert_eq!(runner_of(&exe), path("bin/potluck-runner"));
        std::fs::write(path("lib/potluck/potluck-runner"), "").unwrap();
        assert_eq!(runner_of(&exe), path("lib/potluck/potluck-runner"));
        std::fs::write(path("bin/potluck-runner"), "").unwrap();
        assert_eq!(runner_of(&exe), path("bin/potluck-runner"));
    }
}
