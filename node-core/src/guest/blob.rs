//! A large content on its way to the mirror: unpacked, written aside, hashed, and limited to what it announced.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use potluck_model::ids::Digest;

use super::reins::Reins;

/// A content on its way to the mirror.
pub(super) enum Blob {
    /// It is written aside, hashed, and limited to what it announced.
    Coming { digest: Digest, total: u64, staged: PathBuf, sink: Sink },
    /// It failed and was answered; what is still on its way is dropped.
    Failed,
}

pub(super) enum Sink {
    Packed(Box<zstd::stream::write::Decoder<'static, HashingFile>>),
    Plain(Box<HashingFile>),
}

impl Blob {
    /// What it announced.
    pub(super) fn total(&self) -> u64 {
        match self {
            Blob::Coming { total, .. } => *total,
            Blob::Failed => 0,
        }
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if let Blob::Coming { staged, .. } = self {
            // Not there any more if it was stored.
            let _ = fs::remove_file(staged);
        }
    }
}

/// A file that is hashed and limited while it is written, and that ends with its submitter's connection.
pub(super) struct HashingFile {
    file: fs::File,
    pub(super) hasher: blake3::Hasher,
    pub(super) written: u64,
    max: u64,
    reins: Arc<Reins>,
    session: u64,
}

impl HashingFile {
    /// Takes up to `max` bytes over this connection.
    pub(super) fn new(file: fs::File, max: u64, reins: Arc<Reins>, session: u64) -> Self {
        Self { file, hasher: blake3::Hasher::new(), written: 0, max, reins, session }
    }
}

impl Write for HashingFile {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        // Some bytes on the wire may be half a gigabyte here: looked at between its pieces.
        if self.reins.is_over(self.session) {
            return Err(std::io::Error::other("its submitter is gone"));
        }
        if self.written + data.len() as u64 > self.max {
            return Err(std::io::Error::other("more than it announced"));
        }
        let written = self.file.write(data)?;
        self.hasher.update(&data[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_for_a_submitter_that_is_gone() {
        let reins = Arc::new(Reins::default());
        reins.begin_session();
        let mut file = HashingFile::new(tempfile::tempfile().unwrap(), 100, Arc::clone(&reins), reins.session());
        file.write_all(b"here").unwrap();
        reins.end_session();
        assert!(file.write_all(b"gone").is_err());
        // Nor for the same one over the connection of before.
        reins.begin_session();
        assert!(file.write_all(b"gone").is_err());
        assert_eq!(file.written, 4);
    }
}
