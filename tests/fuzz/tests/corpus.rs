//! The short form of the fuzzer: every committed and made input of every target, and some thousand changed ones, the same
//! at every run.

use std::time::Duration;

use potluck_fuzz::limits::{INPUT_CPU_MAX, INPUT_MEMORY_BYTES_MAX};
use potluck_fuzz::mutate::{Random, mutate};
use potluck_fuzz::{TARGETS, Target, memory, seeds};

#[global_allocator]
static ALLOCATOR: memory::Counted = memory::Counted;

/// One after the other: memory and time are the process's.
#[test]
fn every_target_holds_for_its_corpus_and_for_changed_inputs() {
    let mut broken = Vec::new();
    let only = std::env::var("POTLUCK_FUZZ_TARGET").ok();
    for target in TARGETS.iter().filter(|t| only.as_deref().is_none_or(|only| only == t.name)) {
        let inputs = seeds::of(target).unwrap();
        assert!(inputs.len() > 1, "{}: nothing to begin with", target.name);
        (target.run)(b"");
        let mut random = Random(0xf022);
        let (mut slowest, mut most, mut count) = (Duration::ZERO, 0, 0);
        let changed = (0..target.short_rounds).map(|_| {
            let (seed, other) = (random.below(inputs.len()), random.below(inputs.len()));
            mutate(&mut random, &inputs[seed], &inputs[other])
        });
        let changed: Vec<Vec<u8>> = changed.collect();
        for input in inputs.iter().chain(&changed) {
            count += 1;
            match run(target, input) {
                Ok((took, bytes)) => (slowest, most) = (slowest.max(took), most.max(bytes)),
                Err(why) => {
                    broken.push(format!("{}: {why}", target.name));
                    break;
                }
            }
        }
        println!("{}: {count} inputs, slowest {slowest:?}, most memory {} KiB", target.name, most >> 10);
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// CPU time and memory of one input, or what it broke.
fn run(target: &Target, input: &[u8]) -> Result<(Duration, usize), String> {
    let shown = || format!("with {}", input.escape_ascii());
    let before = memory::thread_cpu();
    let mut bytes = 0;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        bytes = memory::peak_of(|| (target.run)(input));
    }));
    let took = memory::thread_cpu() - before;
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_default();
        return Err(format!("{text}, {}", shown()));
    }
    if bytes > INPUT_MEMORY_BYTES_MAX {
        return Err(format!("{bytes} bytes of memory, {}", shown()));
    }
    if took > INPUT_CPU_MAX {
        return Err(format!("{took:?} of CPU, {}", shown()));
    }
    Ok((took, bytes))
}

#[test]
fn a_target_that_breaks_its_promise_is_told_with_the_input() {
    let broken = |why: fn(&[u8])| run(&Target { name: "x", reads: "", run: why, short_rounds: 0 }, b"a\n").unwrap_err();
    assert_eq!(broken(|_| panic!("no {}", "way")), "no way, with a\\n");
    assert!(broken(|_| drop(std::hint::black_box(vec![1u8; INPUT_MEMORY_BYTES_MAX + 1]))).contains("bytes of memory"));
}

#[test]
fn corpora_are_small_and_belong_to_a_target() {
    let top = seeds::corpus_of(&TARGETS[0]).parent().unwrap().to_owned();
    let mut bytes = 0;
    for dir in std::fs::read_dir(&top).unwrap().flatten() {
        let name = dir.file_name().into_string().unwrap();
        assert!(potluck_fuzz::find(&name).is_some(), "corpus/{name} belongs to no target");
        bytes += std::fs::read_dir(dir.path()).unwrap().flatten().map(|f| f.metadata().unwrap().len()).sum::<u64>();
    }
    assert!(bytes < 1 << 20, "{bytes} bytes of committed inputs");
}
