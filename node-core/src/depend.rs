//! Asks the compiler itself what a source includes (`-M`): dear, so only for jobs that faulted too often.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use potluck_model::scan;

use crate::toolchain::{Environment, ask};

/// Options that would write something, or say when to stop; with the number of arguments that follow.
const LEFT_OUT: &[(&str, usize)] = &[
    ("-c", 0),
    ("-S", 0),
    ("-o", 1),
    ("-MD", 0),
    ("-MMD", 0),
    ("-MF", 1),
    ("-MT", 1),
    ("-MQ", 1),
    ("-MP", 0),
    ("-MJ", 1),
    ("--coverage", 0),
    ("-coverage", 0),
];

/// The files that a compile with these arguments includes; None if the compiler does not say.
pub fn ask(driver: &Path, args: &[OsString], cwd: &Path, env: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let mut own: Vec<&OsStr> = Vec::new();
    let mut skip = 0;
    for arg in args {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        let text = arg.as_bytes();
        if let Some((_, following)) = LEFT_OUT.iter().find(|(o, _)| o.as_bytes() == text) {
            skip = *following;
            continue;
        }
        let writes = [&b"-save-temps"[..], b"--save-temps", b"-fdump-", b"-MF", b"-MT", b"-MQ", b"-o", b"-Wp,-M"];
        if !writes.iter().any(|w| text.starts_with(w)) {
            own.push(arg);
        }
    }
    own.push(OsStr::new("-M"));
    let answer = ask::run(driver, &own, &Environment::from_entries(env), cwd).ok()?;
    (answer.exit == 0).then(|| scan::dependencies(&answer.stdout).into_iter().map(Cow::into_owned).collect())
}
