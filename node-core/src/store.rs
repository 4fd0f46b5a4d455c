//! Small files that must be whole or not there; what is found otherwise is set aside, never lost.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Damaged copies of one file that are kept. A disk that damages it again and again must not fill up with them.
const ASIDE_MAX: u32 = 9;

/// Replaces a file: written aside, synced, renamed. Mode 0600. A folder that has its name is set aside.
pub fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    match file.persist(path) {
        Err(failed) if failed.error.kind() == ErrorKind::IsADirectory => {
            set_aside(path)?;
            failed.file.persist(path).map_err(|e| e.error)?;
        }
        other => drop(other.map_err(|e| e.error)?),
    }
    Ok(())
}

/// Gives what lies at `path`, file or folder, another name beside it, where a person finds it: `PATH.damaged`, then
/// `PATH.damaged2` and so on. The last of them is replaced when there are too many.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let named = |n: u32| {
        let mut name = OsString::from(path);
        name.push(if n == 1 { ".damaged".to_owned() } else { format!(".damaged{n}") });
        PathBuf::from(name)
    };
    let is_free = |path: &PathBuf| std::fs::symlink_metadata(path).is_err();
    let aside = (1..=ASIDE_MAX).map(named).find(is_free).unwrap_or_else(|| named(ASIDE_MAX));
    if std::fs::rename(path, &aside).is_err() {
        // A folder does not replace a file, nor a file a folder.
        let is_folder = std::fs::symlink_metadata(&aside).is_ok_and(|meta| meta.is_dir());
        if is_folder { std::fs::remove_dir_all(&aside) } else { std::fs::remove_file(&aside) }?;
        std::fs::rename(path, &aside)?;
    }
    Ok(aside)
}

/// What lies in a small file of the node's own, in JSON; None if there is none. What cannot be read or understood is set
/// aside and told of, so that the next write does not end it.
pub fn read_json<T: DeserializeOwned>(path: &Path, bytes_max: u64) -> Option<T> {
    read_or_set_aside(path, bytes_max, |bytes| serde_json::from_slice(bytes).map_err(|_| "it is damaged".to_owned()))
}

/// The same for any format. `understand` says in a few words why it does not.
pub fn read_or_set_aside<T>(
    path: &Path,
    bytes_max: u64,
    understand: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Option<T> {
    let why = match read_bounded(path, bytes_max) {
        Ok(bytes) => match understand(&bytes) {
            Ok(value) => return Some(value),
            Err(why) => why,
        },
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => error.to_string(),
    };
    let shown = path.display();
    match set_aside(path) {
        Ok(aside) => crate::log::warn(&format!(
            "{shown} could not be used ({why}) and begins anew; what was there is now {}",
            aside.display()
        )),
        Err(error) => crate::log::warn(&format!("{shown} cannot be used ({why}) nor moved away ({error})")),
    }
    None
}

/// A plain file of at most so many bytes. Never waits for what is none.
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt;
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max { Err(io::Error::other("it is too long")) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_understood_is_set_aside_and_never_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.json");
        assert_eq!(read_json::<Vec<u32>>(&path, 100), None);
        write_whole(&path, b"[1,2]").unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path, 100), Some(vec![1, 2]));
        for n in 0..ASIDE_MAX + 3 {
            std::fs::write(&path, format!("damaged {n}")).unwrap();
            assert_eq!(read_json::<Vec<u32>>(&path, 100), None);
            assert!(!path.exists());
        }
        let kept: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.path()).collect();
        assert_eq!(kept.len() as u32, ASIDE_MAX);
        assert_eq!(std::fs::read_to_string(dir.path().join("list.json.damaged")).unwrap(), "damaged 0");
        // A folder in its place, and more than such a file has.
        std::fs::remove_file(dir.path().join("list.json.damaged")).unwrap();
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path, 100), None);
        assert!(dir.path().join("list.json.damaged/in the way").is_dir());
        std::fs::create_dir_all(path.join("again")).unwrap();
        write_whole(&path, b"[2]").unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path, 100), Some(vec![2]));
        std::fs::write(&path, "[1]".repeat(100)).unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path, 100), None);
        write_whole(&path, b"[3]").unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path, 100), Some(vec![3]));
    }
}
