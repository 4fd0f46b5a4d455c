//! Paths are bytes on Linux; these are the conversions.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Bytes as an OS string.
pub fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Bytes as a path.
pub fn path(bytes: &[u8]) -> &Path {
    Path::new(os(bytes))
}

/// An owned path from bytes.
pub fn path_buf(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// A path as bytes.
pub fn of(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// For messages and JSON: what is not UTF-8 is replaced.
pub fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The value of `NAME` in a list of `NAME=value`.
pub fn env<'a>(list: &'a [Vec<u8>], name: &str) -> Option<&'a [u8]> {
    list.iter().find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
