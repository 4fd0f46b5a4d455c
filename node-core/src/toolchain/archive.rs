//! A toolchain in one `.tar.zst` file: written plainly, read as if the sender were hostile.
//!
//! The archive holds `manifest` and then `files/<digest>` for each content, in the order of digests. Anything else, in name,
//! order, type, size or content, ends the import before it touches more than its own staging folder.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use potluck_model::ids::{Digest, ToolchainId};

use super::manifest::{BadManifest, MANIFEST_BYTES_MAX, Manifest};
use super::store::{FileSource, Store};

/// Compression: level 9 takes a third longer and saves another 3 % of a gcc.
const ZSTD_LEVEL: i32 = 6;
/// Window that a decompressor may be asked to hold: 128 MiB, zstd's own default limit.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Read size.
const CHUNK_BYTES: usize = 256 << 10;
/// Kept free beside an import.
const SPARE_BYTES: u64 = 64 << 20;

/// Why a toolchain file was not written or not taken.
#[derive(Debug)]
pub enum ArchiveError {
    /// Not a toolchain file, cut short, or damaged.
    Damaged(&'static str),
    /// An entry that does not belong there.
    Unexpected(String),
    /// The manifest is refused.
    Manifest(BadManifest),
    /// A content differs from what the manifest says.
    Content(Digest),
    /// Not enough room: needed and free bytes.
    NoSpace(u64, u64),
    /// Reading or writing failed.
    Io(&'static str, io::Error),
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => write!(f, "the toolchain file is damaged or cut short ({what})"),
            Self::Unexpected(name) => write!(f, "the toolchain file holds {name:?}, which does not belong there"),
            Self::Manifest(bad) => write!(f, "the toolchain file is refused: {bad}"),
            Self::Content(digest) => write!(f, "the toolchain file is damaged: content {} differs", digest.short()),
            Self::NoSpace(need, free) => write!(f, "the toolchain needs {need} bytes, and {free} are free"),
            Self::Io(doing, e) => write!(f, "{doing}: {e}"),
        }
    }
}

impl std::error::Error for ArchiveError {}

/// Writes a toolchain to `out`. The same toolchain gives the same bytes.
pub fn export(manifest: &Manifest, files: &FileSource, out: impl Write) -> Result<(), ArchiveError> {
    let writing = |e| ArchiveError::Io("writing the toolchain file", e);
    let zstd = zstd::Encoder::new(BufWriter::new(out), ZSTD_LEVEL).map_err(writing)?;
    let mut tar = tar::Builder::new(zstd);
    append(&mut tar, "manifest", &manifest.encode()).map_err(writing)?;
    for (digest, _) in manifest.contents() {
        let bytes = files.read(&digest).map_err(|e| ArchiveError::Io("reading a file of the toolchain", e))?;
        append(&mut tar, &format!("files/{digest}"), &bytes).map_err(writing)?;
    }
    let out = tar.into_inner().map_err(writing)?.finish().map_err(writing)?;
    out.into_inner().map_err(|e| writing(e.into_error()))?.flush().map_err(writing)
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    tar.append(&header, bytes)
}

/// Reads a toolchain file into the store. Nothing is visible there before all of it was checked and is on disk.
pub fn import(store: &Store, archive: impl Read) -> Result<ToolchainId, ArchiveError> {
    let mut zstd = zstd::Decoder::new(archive).map_err(|_| ArchiveError::Damaged("its start"))?;
    zstd.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|e| ArchiveError::Io("preparing to decompress", e))?;
    let mut tar = tar::Archive::new(BufReader::new(zstd));
    let damaged = |_| ArchiveError::Damaged("its list");
    // Raw: extension entries (long names, PAX) come as entries of their own, are unexpected, and never fill memory.
    let mut entries = tar.entries().map_err(damaged)?.raw(true);

    let first = entries.next().ok_or(ArchiveError::Damaged("no manifest"))?.map_err(damaged)?;
    let manifest_bytes = read_manifest(first)?;
    let manifest = Manifest::decode(&manifest_bytes).map_err(ArchiveError::Manifest)?;
    let id = manifest.id();
    if store.imported(id).is_some() {
        return Ok(id);
    }
    let contents = manifest.contents();
    check_space(store.dir(), manifest.content_bytes().saturating_add(manifest_bytes.len() as u64))?;

    let staging_failed = |e| ArchiveError::Io("writing the toolchain", e);
    let staging = tempfile::Builder::new().prefix(".import-").tempdir_in(store.dir()).map_err(staging_failed)?;
    let files = staging.path().join("files");
    fs::create_dir(&files).map_err(staging_failed)?;
    for (digest, size) in &contents {
        let name = format!("files/{digest}");
        let entry = entries.next().ok_or(ArchiveError::Damaged("files are missing"))?.map_err(damaged)?;
        expect(&entry, &name, Some(*size))?;
        write_content(entry, *digest, *size, &files.join(digest.to_string()))?;
    }
    if let Some(more) = entries.next() {
        let more = more.map_err(damaged)?;
        return Err(ArchiveError::Unexpected(String::from_utf8_lossy(&more.path_bytes()).into_owned()));
    }
    write_synced(&staging.path().join("manifest"), &manifest_bytes).map_err(staging_failed)?;
    sync_dir(&files).and_then(|()| sync_dir(staging.path())).map_err(staging_failed)?;
    // From here on the folder belongs to the store, not to the staging guard.
    let staged = staging.keep();
    let place = store.imported_dir(id);
    if let Err(e) = fs::rename(&staged, &place) {
        // Best effort: what stays is a hidden folder that is never used.
        let _ = fs::remove_dir_all(&staged);
        // Another import of the same toolchain may have been faster: its files are the same.
        return if store.imported(id).is_some() { Ok(id) } else { Err(staging_failed(e)) };
    }
    sync_dir(store.dir()).map_err(staging_failed)?;
    Ok(id)
}

/// One entry must be a plain file of exactly this name and size.
fn expect<R: Read>(entry: &tar::Entry<'_, R>, name: &str, size: Option<u64>) -> Result<(), ArchiveError> {
    let header = entry.header();
    let plain = header.entry_type() == tar::EntryType::Regular && header.link_name_bytes().is_none();
    let size_ok = size.is_none_or(|size| header.entry_size().is_ok_and(|n| n == size));
    if *header.path_bytes() != *name.as_bytes() || !plain || !size_ok {
        return Err(ArchiveError::Unexpected(String::from_utf8_lossy(&header.path_bytes()).into_owned()));
    }
    Ok(())
}

fn read_manifest(mut entry: tar::Entry<'_, impl Read>) -> Result<Vec<u8>, ArchiveError> {
    expect(&entry, "manifest", None)?;
    if entry.size() > MANIFEST_BYTES_MAX as u64 {
        return Err(ArchiveError::Manifest(BadManifest::TooLong));
    }
    let size = entry.size() as usize;
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|_| ArchiveError::Damaged("its manifest"))?;
    if bytes.len() == size { Ok(bytes) } else { Err(ArchiveError::Damaged("its manifest is cut short")) }
}

fn write_content(mut entry: impl Read, digest: Digest, size: u64, place: &Path) -> Result<(), ArchiveError> {
    let failed = |e| ArchiveError::Io("writing the toolchain", e);
    let mut options = File::options();
    let mut out = options.write(true).create_new(true).mode(0o600).open(place).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = size;
    while left > 0 {
        let want = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = entry.read(&mut chunk[..want]).map_err(|_| ArchiveError::Damaged("a file"))?;
        if n == 0 {
            return Err(ArchiveError::Damaged("a file is cut short"));
        }
        hasher.update(&chunk[..n]);
        out.write_all(&chunk[..n]).map_err(failed)?;
        left -= n as u64;
    }
    if Digest(*hasher.finalize().as_bytes()) != digest {
        return Err(ArchiveError::Content(digest));
    }
    out.sync_all().map_err(failed)
}

fn check_space(dir: &Path, need: u64) -> Result<(), ArchiveError> {
    let fs = rustix::fs::statvfs(dir).map_err(|e| ArchiveError::Io("looking for free space", e.into()))?;
    let free = fs.f_bavail.saturating_mul(fs.f_frsize);
    if free < need.saturating_add(SPARE_BYTES) { Err(ArchiveError::NoSpace(need, free)) } else { Ok(()) }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
