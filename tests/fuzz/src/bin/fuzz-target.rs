//! One target under libFuzzer: `POTLUCK_FUZZ_TARGET` names it. Started by `fuzz`, which reads what it prints at its end.
#![cfg_attr(fuzzing, no_main)]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use potluck_fuzz::limits::{INPUT_CPU_MAX, INPUT_MEMORY_BYTES_MAX};
use potluck_fuzz::{Target, memory};

#[global_allocator]
static ALLOCATOR: memory::Counted = memory::Counted;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("POTLUCK_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = potluck_fuzz::find(&name) else {
        eprintln!("there is no target {name:?}\nhint: POTLUCK_FUZZ_TARGET names one");
        std::process::exit(2);
    };
    // SAFETY: `report` is a plain function that lives as long as the program.
    unsafe { libc::atexit(report) };
    target
});

static SLOWEST_US: AtomicU64 = AtomicU64::new(0);
static MOST_BYTES: AtomicUsize = AtomicUsize::new(0);

extern "C" fn report() {
    let (us, bytes) = (SLOWEST_US.load(Ordering::Relaxed), MOST_BYTES.load(Ordering::Relaxed));
    eprintln!("slowest input: {us} us, most memory: {bytes} bytes");
}

fn one(input: &[u8]) {
    let target = *TARGET;
    // What is made once for all inputs (keys, tables) is no input's.
    static WARM: LazyLock<()> = LazyLock::new(|| (TARGET.run)(b""));
    LazyLock::force(&WARM);
    let before = memory::thread_cpu();
    let bytes = memory::peak_of(|| (target.run)(input));
    let took = memory::thread_cpu() - before;
    SLOWEST_US.fetch_max(took.as_micros() as u64, Ordering::Relaxed);
    MOST_BYTES.fetch_max(bytes, Ordering::Relaxed);
    assert!(bytes <= INPUT_MEMORY_BYTES_MAX, "an input of {} bytes took {bytes} bytes of memory", input.len());
    assert!(took <= INPUT_CPU_MAX, "an input of {} bytes took {took:?} of CPU", input.len());
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| one(input));

/// Without coverage: the inputs that are named, or one from standard input.
#[cfg(not(fuzzing))]
fn main() {
    let named: Vec<_> = std::env::args_os().skip(1).collect();
    let read = |path: &std::ffi::OsString| std::fs::read(path).expect("an input that can be read");
    named.iter().for_each(|path| one(&read(path)));
    if named.is_empty() {
        let mut input = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut input).expect("an input that can be read");
        one(&input);
    }
}
