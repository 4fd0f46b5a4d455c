//! Response files: `@file` becomes the arguments in the file, by the quoting rules that gcc and clang share.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::ReadFile;
use crate::limits::{ARG_BYTES_MAX, ARGS_MAX, RESPONSE_FILE_DEPTH_MAX};
use crate::reason::Reason;

/// The arguments with every response file expanded. A file that cannot be read stays an argument, as in the drivers.
pub(super) fn expand<'a>(
    args: &'a [OsString],
    cwd: &Path,
    files: &dyn ReadFile,
) -> Result<Cow<'a, [OsString]>, Reason> {
    if args.len() > ARGS_MAX || args.iter().any(|a| a.len() > ARG_BYTES_MAX) {
        return Err(Reason::LimitHit);
    }
    if !args.iter().any(|a| a.as_bytes().starts_with(b"@")) {
        return Ok(Cow::Borrowed(args));
    }
    let mut out = Vec::with_capacity(args.len() * 2);
    let mut reads = 0;
    for arg in args {
        expand_one(arg, cwd, files, 0, &mut reads, &mut out)?;
    }
    Ok(Cow::Owned(out))
}

fn expand_one(
    arg: &OsString,
    cwd: &Path,
    files: &dyn ReadFile,
    depth: usize,
    reads: &mut usize,
    out: &mut Vec<OsString>,
) -> Result<(), Reason> {
    if out.len() >= ARGS_MAX || arg.len() > ARG_BYTES_MAX {
        return Err(Reason::LimitHit);
    }
    let content = match arg.as_bytes().strip_prefix(b"@") {
        Some(name) if !name.is_empty() => files.read(&cwd.join(Path::new(OsStr::from_bytes(name)))),
        _ => None,
    };
    let Some(content) = content else {
        out.push(arg.clone());
        return Ok(());
    };
    // A file that names itself twice would grow without end below the depth limit: the reads are counted, too.
    *reads += 1;
    if depth >= RESPONSE_FILE_DEPTH_MAX || *reads > ARGS_MAX {
        return Err(Reason::BadCommand);
    }
    for arg in split(&content)? {
        expand_one(&arg, cwd, files, depth + 1, reads, out)?;
    }
    Ok(())
}

/// Splits the content of a response file: white space separates, `'` and `"` quote, `\` takes the next byte as it is, also
/// within quotes. Where gcc and clang differ (byte order marks, NUL, empty arguments), the compiler shall decide itself.
fn split(content: &[u8]) -> Result<Vec<OsString>, Reason> {
    if content.starts_with(b"\xef\xbb\xbf") || content.contains(&0) {
        return Err(Reason::BadCommand);
    }
    let mut args = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote: Option<u8> = None;
    let mut bytes = content.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, quote) {
            (b'\\', _) => match bytes.next() {
                Some(next) => word.get_or_insert_default().push(next),
                // gcc drops a backslash at the end, clang keeps it.
                None => return Err(Reason::BadCommand),
            },
            (q, Some(open)) if q == open => quote = None,
            (b, Some(_)) => word.get_or_insert_default().push(b),
            (b'\'' | b'"', None) => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, None) => args.extend(word.take()),
            (b, None) => word.get_or_insert_default().push(b),
        }
    }
    args.extend(word.take());
    if quote.is_some() || args.iter().any(Vec::is_empty) {
        return Err(Reason::BadCommand);
    }
    Ok(args.into_iter().map(OsString::from_vec).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::PathBuf;

    use super::*;

    struct Files(HashMap<PathBuf, Vec<u8>>);

    impl ReadFile for Files {
        fn read(&self, path: &Path) -> Option<Vec<u8>> {
            self.0.get(path).cloned()
        }
    }

    fn expanded(args: &[&str], files: &[(&str, &str)]) -> Result<Vec<String>, Reason> {
        let files = files.iter().map(|(p, c)| (PathBuf::from(p), c.as_bytes().to_vec())).collect();
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let out = expand(&args, Path::new("/w"), &Files(files))?;
        Ok(out.iter().map(|a| a.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn response_files_nest_and_quote() {
        let files = [("/w/a", "-DX='a b' \"-DY=\\\"q\\\"\"\n@b -c\\ d"), ("/w/b", "\t-O2\r\n")];
        let want = ["-c", "-DX=a b", "-DY=\"q\"", "-O2", "-c d", "x.c"];
        assert_eq!(expanded(&["-c", "@a", "x.c"], &files).unwrap(), want);
    }

    #[test]
    fn a_missing_response_file_stays_literal() {
        assert_eq!(expanded(&["@none", "@", "-c"], &[]).unwrap(), ["@none", "@", "-c"]);
        assert_eq!(expanded(&["@/abs"], &[("/abs", "-c")]).unwrap(), ["-c"]);
    }

    #[test]
    fn what_the_drivers_read_differently_is_left_to_them() {
        for content in ["'open", "''", "a\\", "\u{feff}-c"] {
            assert_eq!(expanded(&["@f"], &[("/w/f", content)]), Err(Reason::BadCommand), "{content}");
        }
    }

    #[test]
    fn a_response_file_that_names_itself_ends() {
        assert_eq!(expanded(&["@f"], &[("/w/f", "@f")]), Err(Reason::BadCommand));
        assert_eq!(expanded(&["@f"], &[("/w/f", "@f @f")]), Err(Reason::BadCommand));
    }
}
