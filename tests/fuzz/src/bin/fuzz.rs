//! `make fuzz`: every target under libFuzzer for a while, with limits of memory and time; a table, and one line that sums
//! up. `POTLUCK_FUZZ_PROGRAM` is the instrumented program, and its folder takes what is found.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use potluck_fuzz::limits::{INPUT_BYTES_MAX, RSS_MB_MAX};
use potluck_fuzz::{TARGETS, Target, seeds};

/// Fuzzes everything that reads bytes of others.
#[derive(Parser)]
struct Args {
    /// Seconds for each target.
    #[arg(default_value_t = 30)]
    seconds: u64,
    /// Only targets of these names.
    targets: Vec<String>,
    /// Targets at a time [default: number of cores]
    #[arg(long)]
    jobs: Option<usize>,
}

/// Beyond its time a target gets this long to read its corpus and to end, on a machine that does other things.
const GRACE: Duration = Duration::from_secs(120);

/// libFuzzer's own limit is of wall time, and only ends what hangs: each input's CPU time is asserted by the target.
const HANGS_AFTER_S: u64 = 20;

/// What came of one target.
#[derive(Default)]
struct Row {
    inputs: u64,
    coverage: u64,
    slowest_us: u64,
    most_bytes: u64,
    rss_mb: u64,
    /// What it broke, with where the input is.
    broken: Option<String>,
}

fn main() {
    let args = Args::parse();
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|t| args.targets.is_empty() || args.targets.iter().any(|n| n == t.name)).collect();
    let unknown: Vec<&String> = args.targets.iter().filter(|n| potluck_fuzz::find(n).is_none()).collect();
    let program = std::env::var_os("POTLUCK_FUZZ_PROGRAM").map(PathBuf::from).filter(|p| p.is_file());
    let Some(program) = program.filter(|_| unknown.is_empty() && !chosen.is_empty()) else {
        eprintln!("no such target, or no instrumented program: {unknown:?}\nhint: make fuzz; targets are:");
        TARGETS.iter().for_each(|t| eprintln!("  {:14} {}", t.name, t.reads));
        std::process::exit(2);
    };
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let waiting = Mutex::new(chosen.clone());
    let rows: Mutex<Vec<(&str, Row)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(chosen.len()) {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("nobody panics with it").pop();
                    let Some(target) = next else { return };
                    let row = fuzz(&program, target, args.seconds)
                        .unwrap_or_else(|error| Row { broken: Some(error.to_string()), ..Row::default() });
                    eprintln!(
                        "{}: {} inputs{}",
                        target.name,
                        row.inputs,
                        row.broken.as_ref().map_or("", |_| ", BROKEN")
                    );
                    rows.lock().expect("nobody panics with it").push((target.name, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("threads are over");
    rows.sort_by_key(|(name, _)| TARGETS.iter().position(|t| t.name == *name));
    std::process::exit(show(&rows, args.seconds));
}

/// The table, the misses, and the line that sums up; the exit code.
fn show(rows: &[(&str, Row)], seconds: u64) -> i32 {
    println!(
        "{:14} {:>10} {:>9} {:>8} {:>11} {:>9} {:>7}",
        "target", "inputs", "coverage", "crashes", "slowest ms", "most KiB", "RSS MB"
    );
    for (name, row) in rows {
        println!(
            "{name:14} {:>10} {:>9} {:>8} {:>11.1} {:>9} {:>7}",
            row.inputs,
            row.coverage,
            u8::from(row.broken.is_some()),
            row.slowest_us as f64 / 1e3,
            row.most_bytes >> 10,
            row.rss_mb
        );
    }
    let mut missed: Vec<String> =
        rows.iter().filter_map(|(name, row)| Some(format!("{name}: {}", row.broken.as_ref()?))).collect();
    // A target that ran nothing, or without coverage, has shown nothing.
    let idle = rows.iter().filter(|(_, row)| row.broken.is_none() && (row.inputs < 100 || row.coverage < 10));
    missed.extend(idle.map(|(name, row)| format!("{name}: {} inputs, coverage {}", row.inputs, row.coverage)));
    missed.iter().for_each(|m| println!("missed: {m}"));
    let inputs: u64 = rows.iter().map(|(_, row)| row.inputs).sum();
    let crashes = rows.iter().filter(|(_, row)| row.broken.is_some()).count();
    let word = if missed.is_empty() && !rows.is_empty() { "ok" } else { "FAILED" };
    println!("fuzz: {word}: {} targets, {inputs} inputs, {crashes} crashes, {seconds} s each", rows.len());
    i32::from(word != "ok")
}

/// One run of libFuzzer.
fn fuzz(program: &Path, target: &Target, seconds: u64) -> io::Result<Row> {
    let dir = program.parent().unwrap_or(Path::new(".")).join("found").join(target.name);
    let (corpus, made) = (dir.join("corpus"), dir.join("made"));
    for dir in [&corpus, &made] {
        fs::create_dir_all(dir)?;
    }
    for (n, input) in seeds::of(target)?.iter().enumerate() {
        fs::write(made.join(n.to_string()), input)?;
    }
    let scratch = tempfile::tempdir()?;
    let mut child = Command::new(program)
        .env("POTLUCK_FUZZ_TARGET", target.name)
        .env("TMPDIR", scratch.path())
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={RSS_MB_MAX}"))
        .arg(format!("-timeout={}", HANGS_AFTER_S))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-artifact_prefix={}/", dir.display()))
        .args(["-print_final_stats=1", "-use_value_profile=1"])
        .args([&corpus, &made])
        .args(Some(seeds::corpus_of(target)).filter(|dir| dir.is_dir()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let text = listen(&mut child, Duration::from_secs(seconds) + GRACE)?;
    let status = child.wait()?;
    fs::write(dir.join("log"), &text)?;
    let mut row = read(&text);
    if !status.success() {
        let why = text.lines().find(|l| l.contains("panicked at") || l.starts_with("==") && l.contains("ERROR"));
        let next = text.lines().skip_while(|l| !l.contains("panicked at")).nth(1).unwrap_or_default();
        row.broken = Some(format!("{} {next}; its input and log are in {}", why.unwrap_or("it ended"), dir.display()));
    }
    Ok(row)
}

/// Everything that it says; it is ended when it takes much too long.
fn listen(child: &mut Child, within: Duration) -> io::Result<String> {
    let mut stderr = child.stderr.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let start = Instant::now();
    while !reader.is_finished() {
        if start.elapsed() > within {
            child.kill()?;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    reader.join().map_err(|_| io::Error::other("the reader panicked"))?
}

/// Figures from libFuzzer's lines (`#123 DONE cov: 4 ft: 5 … rss: 60Mb`, `stat::…: n`) and from the target's own.
fn read(text: &str) -> Row {
    let after = |line: &str, word: &str| -> Option<u64> {
        let rest = line.split_once(word)?.1.trim_start();
        rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
    };
    let last = |word: &str| text.lines().rev().find_map(|line| after(line, word));
    Row {
        inputs: last("stat::number_of_executed_units:").or_else(|| last("#")).unwrap_or(0),
        coverage: last(" cov: ").unwrap_or(0),
        slowest_us: last("slowest input: ").unwrap_or(0),
        most_bytes: last("most memory: ").unwrap_or(0),
        rss_mb: last("stat::peak_rss_mb:").or_else(|| last(" rss: ")).unwrap_or(0),
        broken: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_is_printed() {
        let text = "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 40Mb\n\
            #512\tDONE   cov: 345 ft: 400 corp: 9/90b lim: 4 exec/s: 256 rss: 61Mb\n\
            stat::number_of_executed_units: 512\nstat::peak_rss_mb: 62\n\
            slowest input: 1500 us, most memory: 2048 bytes\n";
        let row = read(text);
        assert_eq!((row.inputs, row.coverage, row.rss_mb), (512, 345, 62));
        assert_eq!((row.slowest_us, row.most_bytes), (1500, 2048));
    }
}
