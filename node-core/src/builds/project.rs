//! What the project of a working directory is called. Looked up once a build, not once a job.

use std::path::Path;

/// Top of a repository: its nearest one is the project.
const REPOSITORY: &[&str] = &[".git", ".hg", ".svn", ".jj"];
/// A folder with one of these belongs to a project, whose top is the last of such folders upwards.
const BUILT_BY: &[&str] = &["configure", "CMakeLists.txt", "meson.build", "Makefile", "Kbuild"];
/// Names of folders that say nothing.
const NAMELESS: &[&str] = &["build", "_build", "out", "obj", "objs", "target", "debug", "release", "src"];
/// Steps upwards.
const DEPTH_MAX: usize = 32;

/// The name for builds in `cwd`. `home` is no project, even if it is a repository of somebody's settings.
pub fn name(cwd: &Path, home: Option<&Path>) -> String {
    let up = || cwd.ancestors().take(DEPTH_MAX).take_while(|dir| dir.parent().is_some() && Some(*dir) != home);
    let has = |dir: &Path, names: &[&str]| names.iter().any(|name| dir.join(name).exists());
    let top = up()
        .find(|dir| has(dir, REPOSITORY))
        .or_else(|| up().skip_while(|dir| !has(dir, BUILT_BY)).take_while(|dir| has(dir, BUILT_BY)).last())
        .unwrap_or(cwd);
    let telling = |dir: &&Path| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        !NAMELESS.contains(&name.as_str()) && !name.starts_with("cmake-build-")
    };
    let named = top.ancestors().take(3).find(|dir| dir.file_name().is_some() && telling(dir)).unwrap_or(top);
    let name = named.file_name().unwrap_or(named.as_os_str()).to_string_lossy();
    potluck_model::builds::name_given(&name).unwrap_or_else(|| "build".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_called_as_its_repository_or_its_top_folder() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(dir.path().join(path)).unwrap();
        let file = |path: &str| std::fs::write(dir.path().join(path), "").unwrap();
        let of = |path: &str| name(&dir.path().join(path), Some(&dir.path().join("home")));
        for dir in ["home/.git", "home/wine/.git", "home/wine/dlls/x/build", "tar/prog-1.0/lib/a"] {
            make(dir);
        }
        ["plain/build", "home/loose"].iter().for_each(|dir| make(dir));
        for name in ["tar/prog-1.0/configure", "tar/prog-1.0/lib/Makefile", "tar/prog-1.0/lib/a/Makefile"] {
            file(name);
        }
        assert_eq!(of("home/wine/dlls/x/build"), "wine");
        assert_eq!(of("tar/prog-1.0/lib/a"), "prog-1.0");
        assert_eq!(of("plain/build"), "plain");
        assert_eq!(of("home/loose"), "loose");
        assert_eq!(name(Path::new("/"), None), "/");
    }
}
