//! What one input may cost, in every form of the fuzzer.

use std::time::Duration;

/// Longest input that is made. Real messages are longer, but nothing in them is that a short one cannot have.
pub const INPUT_BYTES_MAX: usize = 16 << 10;
/// CPU time of one input. None takes more than some milliseconds; a second is a hang that a peer can cause at will.
pub const INPUT_CPU_MAX: Duration = Duration::from_secs(1);
/// Memory that one input may take at a time, above what its target keeps: an input of 16 KiB that unpacks to more
/// than this is a bomb.
pub const INPUT_MEMORY_BYTES_MAX: usize = 64 << 20;
/// Resident memory of the whole fuzzer, its corpus included.
pub const RSS_MB_MAX: u32 = 256;
