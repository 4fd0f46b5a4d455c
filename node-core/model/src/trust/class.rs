//! Compiles that differ from run to run on one and the same PC. They are compared with nothing, and blame nobody.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::plan::Family;

/// Why a compile is not deterministic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Class {
    /// gcc's link-time optimisation names its sections by a random number, unless `-frandom-seed` is given.
    Lto,
    /// gcc's profile and coverage data carry a random stamp.
    Profile,
    /// `__TIME__`, `__DATE__` or `__TIMESTAMP__` show a clock.
    Time,
    /// The compiler writes how long it took, or how much memory.
    Measured,
}

impl Class {
    /// In words: "it uses … ".
    pub fn words(self) -> &'static str {
        match self {
            Self::Lto => "link-time optimisation without -frandom-seed",
            Self::Profile => "profiling or coverage without -frandom-seed",
            Self::Time => "__TIME__ or __DATE__ of a clock",
            Self::Measured => "an option that writes how long the compiler took",
        }
    }
}

/// The class of a compile; None: two runs give the same, as far as its options tell. `clock_shows`: its source mentions the
/// time, and no SOURCE_DATE_EPOCH makes that the same for all runs.
pub fn class_of(family: Family, args: &[OsString], clock_shows: bool) -> Option<Class> {
    if clock_shows {
        return Some(Class::Time);
    }
    let (mut lto, mut profile, mut seed) = (false, false, false);
    for arg in args.iter().map(|arg| arg.as_bytes()) {
        let is_or_has =
            |option: &[u8]| arg.strip_prefix(option).is_some_and(|rest| matches!(rest.first(), None | Some(b'=')));
        // The last one of a pair holds.
        match arg {
            b"-fno-lto" => lto = false,
            b"-fno-profile-generate" => profile = false,
            b"--coverage" | b"-coverage" | b"-fprofile-arcs" | b"-ftest-coverage" => profile = true,
            b"-ftime-report" | b"-ftime-report-details" | b"-fmem-report" | b"-Q" | b"-print-stats" => {
                return Some(Class::Measured);
            }
            _ if is_or_has(b"-flto") => lto = true,
            _ if is_or_has(b"-fprofile-generate") => profile = true,
            _ if is_or_has(b"-frandom-seed") => seed = true,
            _ if is_or_has(b"-ftime-trace") || is_or_has(b"-ftime-trace-granularity") => return Some(Class::Measured),
            _ => {}
        }
    }
    match family {
        Family::Gcc if !seed && profile => Some(Class::Profile),
        Family::Gcc if !seed && lto => Some(Class::Lto),
        // clang's are made of the content.
        Family::Gcc | Family::Clang => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_told_by_options() {
        let of = |family, args: &str, clock| {
            class_of(family, &args.split(' ').map(OsString::from).collect::<Vec<_>>(), clock)
        };
        for (args, expected) in [
            ("-O2 -c a.c", None),
            ("-O2 -flto -c a.c", Some(Class::Lto)),
            ("-flto=auto -c a.c", Some(Class::Lto)),
            ("-flto -fno-lto -c a.c", None),
            ("-flto -frandom-seed=x -c a.c", None),
            ("-flto-partition=one -c a.c", None),
            ("--coverage -c a.c", Some(Class::Profile)),
            ("-fprofile-generate=/x -c a.c", Some(Class::Profile)),
            ("-fprofile-arcs -frandom-seed=1 -c a.c", None),
            ("-fprofile-use -c a.c", None),
            ("-ftime-report -c a.c", Some(Class::Measured)),
        ] {
            assert_eq!(of(Family::Gcc, args, false), expected, "{args}");
        }
        assert_eq!(of(Family::Clang, "-flto -c a.c", false), None);
        assert_eq!(of(Family::Clang, "-ftime-trace -c a.c", false), Some(Class::Measured));
        assert_eq!(of(Family::Gcc, "-c a.c", true), Some(Class::Time));
    }
}
