//! Compiler commands, and what drivers print.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use potluck_model::options::{self, Invocation, ReadFile};
use potluck_model::plan::{Family, Plan, Verdict};
use potluck_node::toolchain::ask;

/// Every response file has this content.
struct Response<'a>(Option<&'a [u8]>);

impl ReadFile for Response<'_> {
    fn read(&self, _: &Path) -> Option<Vec<u8>> {
        self.0.map(<[u8]>::to_vec)
    }
}

const CWD: &str = "/work/project";

/// A line for the driver (`gcc`, `g++`, `clang`, `clang++`), one for each argument, and after a line `%%` what every
/// response file holds. A plan writes where it says, and its arguments mean the same plan again: a worker gets them, and
/// what they did not mean here they must not mean there.
pub fn command(input: &[u8]) {
    let (lines, response) = match input.windows(4).position(|w| w == b"\n%%\n") {
        Some(at) => (&input[..at], Some(&input[at + 4..])),
        None => (input, None),
    };
    let mut lines = lines.split(|b| *b == b'\n');
    let (family, cxx) = match lines.next() {
        Some(b"g++") => (Family::Gcc, true),
        Some(b"clang") => (Family::Clang, false),
        Some(b"clang++") => (Family::Clang, true),
        _ => (Family::Gcc, false),
    };
    let args: Vec<OsString> = lines.filter(|l| !l.contains(&0)).map(|l| OsStr::from_bytes(l).to_owned()).collect();
    let cwd = Path::new(CWD);
    let invocation = Invocation { family, cxx, args: &args, cwd, env: &[] };
    let is_query = options::is_query(family, &args);
    let verdict = options::understand(&invocation, &Response(response));
    assert_eq!(verdict, options::understand(&invocation, &Response(response)), "one command has one meaning");
    let Verdict::Remote(plans) = verdict else { return };
    assert!(!is_query, "a question to the compiler does not travel");
    assert!(!plans.is_empty());
    for plan in &plans {
        check(plan);
        means_the_same_again(&invocation, plan);
    }
}

fn check(plan: &Plan) {
    assert!(plan.native.iter().all(|i| *i < plan.args.len()), "{:?}", plan.native);
    assert!(plan.args.iter().any(|a| a == plan.source.as_os_str()) || plan.args.iter().any(|a| a == "--"));
    assert_eq!(plan.outputs.iter().map(|o| &o.path).next(), Some(&plan.output));
    for output in plan.outputs.iter().filter(|o| o.path != Path::new("/dev/null")) {
        let dir = output.path.parent().unwrap_or(Path::new(""));
        assert!(plan.output_dirs.iter().any(|d| d == dir), "{output:?} is in no folder that may be written");
        assert_ne!(output.path, plan.source, "a source is no output");
    }
    for dir in &plan.output_dirs {
        let whole = potluck_node::toolchain::lexical(&Path::new(CWD).join(dir));
        assert!(!["/tmp", "/proc", "/dev", "/sys", "/run"].iter().any(|p| whole.starts_with(p)), "{whole:?}");
    }
}

fn means_the_same_again(invocation: &Invocation<'_>, plan: &Plan) {
    // Expanded already: an argument that looks like a response file is one that could not be read.
    let again = options::understand(&Invocation { args: &plan.args, ..*invocation }, &Response(None));
    assert_eq!(again, Verdict::Remote(vec![plan.clone()]), "the arguments that travel mean another plan");
}

/// What `-v` and `-###` print: a driver may be a script of anybody.
pub fn driver_output(input: &[u8]) {
    if let Some(list) = ask::search_list(input) {
        let bytes: usize = list.quote.iter().chain(&list.angled).map(|d| d.as_os_str().len()).sum();
        assert!(bytes <= input.len());
    }
    let commands = ask::commands(input);
    let bytes: usize = commands.iter().flatten().map(|a| a.len()).sum();
    assert!(bytes <= input.len());
    ask::compiler_proper(&commands);
}
