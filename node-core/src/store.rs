//! Small files that must be whole or not there.

use std::io::Write;
use std::path::Path;

/// Replaces a file: written aside, synced, renamed. Mode 0600.
pub fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}
