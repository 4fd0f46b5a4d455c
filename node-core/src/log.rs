//! The node's own log: one line an event to standard error or, for a running node, to a file in its state folder, which
//! makes room for a new one when it is long. Nothing of it ever reaches a compiler's output.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::OnceLock;

/// Longest file: some weeks of an ordinary node. The one before is kept beside it, so that twice this is on disk.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Longest line: some of what is told comes from peers.
const LINE_BYTES_MAX: usize = 64 << 10;

static FILE: OnceLock<Mutex<LogFile>> = OnceLock::new();

/// Write to this file from now on. When it is long it becomes `PATH.1`, and a new one begins. A log is no reason not to
/// start: a file that cannot be written is set aside, and without any the log goes to standard error.
pub fn to_file(path: &Path) {
    let (file, word) = LogFile::open_or_not(path, FILE_BYTES_MAX);
    if let Some(file) = file {
        // A second node in this process goes on in the first one's.
        let _ = FILE.set(Mutex::new(file));
    }
    word.into_iter().for_each(|word| warn(&word));
}

/// The file that is written to. Whoever has it writes alone.
struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl LogFile {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = append_to(path)?;
        // Earlier versions left it to the mode mask.
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o600));
        let bytes = file.metadata()?.len();
        let mut log = Self { path: path.to_owned(), file, bytes, bytes_max };
        log.make_room(0);
        Ok(log)
    }

    /// A file if there is any way to one, and what is to be said of the way.
    fn open_or_not(path: &Path, bytes_max: u64) -> (Option<Self>, Option<String>) {
        let why = match Self::open(path, bytes_max) {
            Ok(file) => return (Some(file), None),
            Err(why) => why,
        };
        let shown = path.display();
        match crate::store::set_aside(path).and_then(|aside| Ok((Self::open(path, bytes_max)?, aside))) {
            Ok((file, aside)) => {
                let word = format!("{shown} could not be written ({why}); what was there is now {}", aside.display());
                (Some(file), Some(word))
            }
            Err(_) => (None, Some(format!("{shown} cannot be written ({why}), so the log goes to standard error"))),
        }
    }

    fn write(&mut self, line: &str) {
        self.make_room(line.len() as u64);
        if self.file.write_all(line.as_bytes()).is_ok() {
            self.bytes += line.len() as u64;
        }
    }

    /// Begins a new file if this one has no room for so many bytes. Where that fails the old one is written on, and the
    /// next line tries again: no line is lost.
    fn make_room(&mut self, bytes: u64) {
        if self.bytes > 0 && self.bytes + bytes > self.bytes_max {
            let _ = self.begin_new();
        }
    }

    fn begin_new(&mut self) -> io::Result<()> {
        let own = self.file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => {
                let mut before = OsString::from(&self.path);
                before.push(".1");
                std::fs::rename(&self.path, before)?;
            }
            // Somebody else began a new one: another start that found this node running, or a person.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = append_to(&self.path)?;
        self.bytes = file.metadata()?.len();
        self.file = file;
        Ok(())
    }
}

/// Nobody else may read it, whatever the mode mask is.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn write(level: &str, text: &str) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut line = format!("{}.{:03} {level} {}", now.as_secs(), now.subsec_millis(), text.escape_debug());
    if line.len() > LINE_BYTES_MAX {
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
        line.push_str("...");
    }
    line.push('\n');
    match FILE.get() {
        Some(file) => file.lock().unwrap_or_else(|e| e.into_inner()).write(&line),
        None => {
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

/// Something that a person should know.
pub fn warn(text: &str) {
    write("warn", text);
}

/// Something that explains what happened.
pub fn info(text: &str) {
    write("info", text);
}

/// Details, only with `POTLUCK_LOG=debug`.
pub fn debug(text: impl FnOnce() -> String) {
    static ON: OnceLock<bool> = OnceLock::new();
    if *ON.get_or_init(|| std::env::var("POTLUCK_LOG").is_ok_and(|v| v == "debug" || v == "trace")) {
        write("debug", &text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 1000;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("node.log")
        }

        fn before(&self) -> PathBuf {
            self.0.path().join("node.log.1")
        }

        fn open(&self) -> LogFile {
            LogFile::open(&self.path(), MAX).unwrap()
        }
    }

    fn lines(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_node_that_runs_for_years_keeps_twice_the_limit_and_the_newest_lines() {
        let place = Place::new();
        let mut log = place.open();
        for n in 0..5000 {
            log.write(&format!("line {n}\n"));
        }
        let size = |path: &Path| path.metadata().unwrap().len();
        assert!(size(&place.path()) <= MAX && size(&place.before()) <= MAX);
        assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 2);
        let kept = [lines(&place.before()), lines(&place.path())].concat();
        let newest: Vec<String> = (5000 - kept.len()..5000).map(|n| format!("line {n}")).collect();
        assert_eq!(kept, newest);
        assert!(size(&place.before()) > MAX * 9 / 10);
        assert_eq!(place.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_too_long_at_the_start_makes_room_and_any_other_is_continued() {
        let place = Place::new();
        std::fs::write(place.path(), "x".repeat(MAX as usize + 1)).unwrap();
        place.open().write("new\n");
        assert_eq!((lines(&place.path()), place.before().metadata().unwrap().len()), (vec!["new".into()], MAX + 1));
        place.open().write("later\n");
        assert_eq!(lines(&place.path()), ["new", "later"]);
    }

    #[test]
    fn a_file_that_cannot_be_moved_loses_no_line() {
        let place = Place::new();
        std::fs::create_dir_all(place.before().join("in the way")).unwrap();
        let mut log = place.open();
        let all: Vec<String> = (0..200).map(|n| format!("line {n}")).collect();
        all.iter().for_each(|line| log.write(&format!("{line}\n")));
        assert_eq!(lines(&place.path()), all);
        std::fs::remove_dir_all(place.before()).unwrap();
        log.write("free again\n");
        assert_eq!((lines(&place.path()), lines(&place.before())), (vec!["free again".into()], all));
    }

    #[test]
    fn two_writers_of_one_file_end_in_the_same_new_one() {
        let place = Place::new();
        let mut first = place.open();
        let long = format!("{}\n", "x".repeat(MAX as usize - 10));
        first.write(&long);
        std::fs::write(place.path(), format!("{long}{long}")).unwrap();
        let mut second = place.open();
        second.write("second\n");
        first.write("first, and longer than what is left\n");
        assert_eq!(lines(&place.path()), ["second", "first, and longer than what is left"]);
        assert_eq!(place.before().metadata().unwrap().len(), 2 * long.len() as u64);
        std::fs::remove_file(place.path()).unwrap();
        first.write(&long);
        first.write("after somebody removed it\n");
        assert_eq!(lines(&place.path()), ["after somebody removed it"]);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_set_aside_and_no_file_at_all_is_told() {
        let place = Place::new();
        std::fs::create_dir_all(place.path().join("in the way")).unwrap();
        let (log, word) = LogFile::open_or_not(&place.path(), MAX);
        log.expect("there is room for another file").write("goes on\n");
        assert_eq!(lines(&place.path()), ["goes on"]);
        assert!(place.0.path().join("node.log.damaged/in the way").is_dir());
        assert!(word.unwrap().contains("node.log.damaged"));
        let nowhere = place.0.path().join("no folder/node.log");
        let (log, word) = LogFile::open_or_not(&nowhere, MAX);
        assert!(log.is_none() && word.unwrap().contains("standard error"));
    }

    #[test]
    fn threads_that_write_at_once_lose_no_line() {
        let place = Place::new();
        let log = Mutex::new(LogFile::open(&place.path(), 20_000).unwrap());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    (0..500).for_each(|n| log.lock().unwrap().write(&format!("thread {thread} {n:03}\n")));
                });
            }
        });
        let all = [lines(&place.before()), lines(&place.path())].concat();
        let of = |thread: usize| all.iter().filter(|l| l.starts_with(&format!("thread {thread} "))).count();
        assert_eq!([0, 1, 2, 3].map(of), [500; 4]);
    }
}
