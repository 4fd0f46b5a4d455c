//! The window's built files, read into memory once: no path of a request ever reaches the file system.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// All files together: the window is some hundred kilobytes.
const BYTES_MAX: u64 = 16 << 20;
/// Files.
const FILES_MAX: usize = 512;
/// Folders within each other.
const DEPTH_MAX: usize = 8;

const MISSING: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Potluck</title>\
<h1>The window is not installed</h1>\
<p>Potluck works, but the files of its window were not found on this computer.</p>\
<p>Install the package potluck, or build them in a copy of the source and name their folder:</p>\
<pre>cd ui &amp;&amp; npm ci &amp;&amp; npm run build\nPOTLUCK_UI_DIR=$PWD/dist potluck node</pre>\
<p>Until then the commands do the same: potluck --help</p></html>\n";

/// One of them.
pub(super) struct File {
    pub(super) kind: &'static str,
    pub(super) content: axum::body::Bytes,
}

/// By path, such as `/assets/index.js`.
pub(super) struct Files(HashMap<String, File>);

impl Files {
    /// Where POTLUCK_UI_DIR says, or beside the program, installed or built.
    pub(super) fn find() -> Self {
        let named = std::env::var_os("POTLUCK_UI_DIR").map(PathBuf::from);
        let program = std::env::current_exe().unwrap_or_default();
        let dir = program.parent().unwrap_or(Path::new("/"));
        let places = [dir.join("../share/potluck/ui"), dir.join("ui"), dir.join("../../ui/dist")];
        let candidates = named.map_or_else(|| places.to_vec(), |named| vec![named]);
        let found = candidates.iter().find(|dir| dir.join("index.html").is_file());
        found.map_or_else(Self::missing, |dir| Self::read(dir))
    }

    fn missing() -> Self {
        let file = File { kind: kind_of("index.html"), content: axum::body::Bytes::from_static(MISSING.as_bytes()) };
        Self(HashMap::from([("/".to_owned(), file)]))
    }

    fn read(dir: &Path) -> Self {
        let mut files = HashMap::new();
        let mut left = BYTES_MAX;
        add(dir, "", 0, &mut files, &mut left);
        let mut files = Self(files);
        if let Some(index) = files.0.remove("/index.html") {
            files.0.insert("/".to_owned(), index);
        }
        files
    }

    /// What lies at exactly this path.
    pub(super) fn get(&self, path: &str) -> Option<&File> {
        self.0.get(if path == "/index.html" { "/" } else { path })
    }
}

fn add(dir: &Path, below: &str, depth: usize, files: &mut HashMap<String, File>, left: &mut u64) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else { continue };
        let path = format!("{below}/{name}");
        if kind.is_dir() && depth < DEPTH_MAX {
            add(&entry.path(), &path, depth + 1, files, left);
        }
        // Links are not followed: what is served is what lies in the folder.
        if !kind.is_file() {
            continue;
        }
        let bytes = entry.metadata().map_or(u64::MAX, |m| m.len());
        if bytes > *left || files.len() >= FILES_MAX {
            crate::log::warn(&format!("{} is not served: more than the window's files may be", entry.path().display()));
            continue;
        }
        if let Ok(content) = std::fs::read(entry.path()) {
            *left -= bytes;
            files.insert(path, File { kind: kind_of(&name), content: content.into() });
        }
    }
}

fn kind_of(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" | "ftl" => "text/plain; charset=utf-8",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_the_folder_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let ui = dir.path().join("ui");
        std::fs::create_dir_all(ui.join("assets")).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::fs::write(ui.join("index.html"), "<p>").unwrap();
        std::fs::write(ui.join("assets/a.js"), "1").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), ui.join("link.txt")).unwrap();
        let files = Files::read(&ui);
        assert_eq!(files.get("/").unwrap().kind, "text/html; charset=utf-8");
        assert_eq!(files.get("/assets/a.js").unwrap().kind, "text/javascript; charset=utf-8");
        for path in ["/link.txt", "/../secret", "/assets/../../secret", "//index.html", "", "/assets", "/assets/"] {
            assert!(files.get(path).is_none(), "{path}");
        }
    }

    #[test]
    fn more_than_the_bound_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("index.html"), "<p>").unwrap();
        let big = std::fs::File::create(dir.path().join("big.js")).unwrap();
        big.set_len(BYTES_MAX + 1).unwrap();
        let files = Files::read(dir.path());
        assert!(files.get("/big.js").is_none() && files.get("/").is_some());
    }

    #[test]
    fn a_missing_window_says_how_to_get_it() {
        let files = Files::missing();
        let text = std::str::from_utf8(&files.get("/").unwrap().content).unwrap();
        assert!(text.contains("npm run build") && !text.contains("style"));
    }
}
