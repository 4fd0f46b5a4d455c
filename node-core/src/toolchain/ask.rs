//! Asks a compiler questions and reads its answers: `-###`, `-v -E`, `-print-…`. Answers are asked for in English.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::environment::Environment;

/// Longest time for one answer or one probe compile. `<vector>` with `-O2` under a tracer takes some seconds on a busy PC.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest answer: `-dumpspecs` has 10 kB, `-###` with native features 8 kB.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What a program said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Exit code; -1 if a signal ended it.
    pub exit: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Answer {
    /// The first line of standard output, without spaces at its ends.
    pub fn first_line(&self) -> String {
        let line = self.stdout.split(|b| *b == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(line).trim().to_owned()
    }

    /// The last line of standard error, for a message.
    pub fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let said = text.lines().rev().find(|l| l.contains("error")).or(text.lines().last()).unwrap_or("").trim();
        if said.is_empty() { format!("exit code {}", self.exit) } else { said.to_owned() }
    }
}

/// Runs `program` with exactly this environment and nothing on standard input. It is killed after `ANSWER_TIME_MAX`.
pub fn run(program: &Path, args: &[impl AsRef<OsStr>], env: &Environment, cwd: &Path) -> io::Result<Answer> {
    let mut command = Command::new(program);
    env.apply(&mut command);
    command.args(args).current_dir(cwd).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
    let stderr = child.stderr.take().expect("stderr was asked for as a pipe");
    let (out, err, status) = std::thread::scope(|scope| {
        let out = scope.spawn(|| read_bounded(stdout));
        let err = scope.spawn(|| read_bounded(stderr));
        let status = wait(&mut child, ANSWER_TIME_MAX);
        (out.join(), err.join(), status)
    });
    let panicked = |_| io::Error::other("reading an answer panicked");
    Ok(Answer { exit: status?.code().unwrap_or(-1), stdout: out.map_err(panicked)??, stderr: err.map_err(panicked)?? })
}

/// Reads all of a pipe but keeps only so much, so that the writer never blocks for ever.
fn read_bounded(mut pipe: impl Read) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    (&mut pipe).take(ANSWER_BYTES_MAX).read_to_end(&mut kept)?;
    io::copy(&mut pipe, &mut io::sink())?;
    Ok(kept)
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<std::process::ExitStatus> {
    let pid = Pid::from_child(child);
    let end = Instant::now() + limit;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let time = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd.as_fd(), PollFlags::IN)], Some(&time)) {
            Ok(0) => {
                pidfd_send_signal(&pidfd, Signal::KILL)?;
                child.wait()?;
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs())));
            }
            Ok(_) => return child.wait(),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// The path that `-print-prog-name=` and `-print-file-name=` answer, if it is one: a bare name means "not found".
pub fn print_path(driver: &Path, option: &str, env: &Environment) -> io::Result<Option<PathBuf>> {
    let answer = run(driver, &[option], &env.clone().in_english(), Path::new("/"))?;
    let path = PathBuf::from(answer.first_line());
    Ok((answer.exit == 0 && path.is_absolute()).then_some(path))
}

/// Splits a line of `-###` into arguments. Both families quote with `"` and escape `"`, `\` and `$` inside.
pub fn split_command(line: &[u8]) -> Vec<OsString> {
    let mut args = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    let mut bytes = line.iter().copied();
    while let Some(b) = bytes.next() {
        match b {
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b'\\' => word.get_or_insert_default().push(bytes.next().unwrap_or(b'\\')),
            b' ' | b'\t' if !quoted => args.extend(word.take().map(OsString::from_vec)),
            _ => word.get_or_insert_default().push(b),
        }
    }
    args.extend(word.map(OsString::from_vec));
    args
}

/// The commands that `-###` printed, each with its program first. Lines of talk (`COLLECT_GCC=…`) are left out: commands
/// are indented.
pub fn commands(stderr: &[u8]) -> Vec<Vec<OsString>> {
    stderr
        .split(|b| *b == b'\n')
        .filter(|line| line.first() == Some(&b' '))
        .map(split_command)
        .filter(|args| args.len() > 1)
        .collect()
}

/// The compiler proper among commands of `-###`: `cc1`, `cc1plus`, … or clang's `-cc1`.
pub fn compiler_proper(commands: &[Vec<OsString>]) -> Option<&[OsString]> {
    commands
        .iter()
        .find(|args| {
            let name = Path::new(&args[0]).file_name().unwrap_or_default().as_bytes();
            name.starts_with(b"cc1") || args[1] == "-cc1"
        })
        .map(Vec::as_slice)
}

/// Where `#include` looks, in order, as the compiler prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchList {
    /// Only for `#include "…"`.
    pub quote: Vec<PathBuf>,
    /// For both forms.
    pub angled: Vec<PathBuf>,
}

/// Reads the search list out of what `-v -E` says. `None` if there is no complete one.
pub fn search_list(text: &[u8]) -> Option<SearchList> {
    let mut list = SearchList::default();
    let mut into: Option<bool> = None;
    for line in text.split(|b| *b == b'\n') {
        if line.starts_with(b"#include \"...\" search starts here:") {
            into = Some(false);
        } else if line.starts_with(b"#include <...> search starts here:") {
            into = Some(true);
        } else if line.starts_with(b"End of search list.") {
            return into.map(|_| list);
        } else if let (Some(angled), [b' ', dir @ ..]) = (into, line) {
            let dir = dir.strip_suffix(b" (framework directory)").unwrap_or(dir);
            let dir = PathBuf::from(OsStr::from_bytes(dir));
            if angled { list.angled.push(dir) } else { list.quote.push(dir) }
        }
    }
    None
}

/// The arguments that make a driver print its search list for a language.
pub fn search_list_args(x_name: &str, path_args: &[OsString]) -> Vec<OsString> {
    let mut args = path_args.to_vec();
    args.extend(["-v", "-E", "-x", x_name, "/dev/null"].map(OsString::from));
    args
}

/// Asks a driver for its search list. `path_args` are those arguments of a job that can change it, in order.
pub fn search_list_of(
    driver: &Path,
    x_name: &str,
    path_args: &[OsString],
    env: &Environment,
    cwd: &Path,
) -> io::Result<Option<SearchList>> {
    let answer = run(driver, &search_list_args(x_name, path_args), &env.clone().in_english(), cwd)?;
    Ok(if answer.exit == 0 { search_list(&answer.stderr) } else { None })
}

/// The programs that a driver would run for a compile of this language: first words of `-###`, in order. Compared between
/// submitter and worker.
pub fn programs_of(
    driver: &Path,
    x_name: &str,
    path_args: &[OsString],
    env: &Environment,
    cwd: &Path,
) -> io::Result<Vec<OsString>> {
    let mut args = path_args.to_vec();
    args.extend(["-###", "-c", "-o", "/dev/null", "-x", x_name, "/dev/null"].map(OsString::from));
    let answer = run(driver, &args, &env.clone().in_english(), cwd)?;
    Ok(commands(&answer.stderr).into_iter().map(|mut c| c.swap_remove(0)).collect())
}

/// Whether a file begins with `#!`.
pub fn is_script(path: &Path) -> io::Result<bool> {
    let mut head = [0; 2];
    let mut file = File::open(path)?;
    Ok(match file.read_exact(&mut head) {
        Ok(()) => head == *b"#!",
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(e) => return Err(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_arguments_come_out_as_they_were() {
        let words = split_command(br#" "/usr/bin/a b" -c "-DX=\"y\"" "" \$z "#);
        assert_eq!(words, ["/usr/bin/a b", "-c", "-DX=\"y\"", "", "$z"].map(OsString::from));
    }

    #[test]
    fn a_search_list_is_read_and_a_cut_one_is_refused() {
        let text = b"x\n#include \"...\" search starts here:\n q\n#include <...> search starts here:\n /a b\n /c\nEnd of search list.\n";
        let list = search_list(text).unwrap();
        assert_eq!(list.quote, [PathBuf::from("q")]);
        assert_eq!(list.angled, [PathBuf::from("/a b"), "/c".into()]);
        assert_eq!(search_list(&text[..80]), None);
    }

    #[test]
    fn a_program_that_says_nothing_for_long_is_killed() {
        let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        assert_eq!(wait(&mut child, Duration::from_millis(10)).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
