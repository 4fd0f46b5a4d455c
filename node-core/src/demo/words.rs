//! The simulation's own sentences: what a real node says of builds it says in its report.

/// Finding of a report.
pub(super) fn long_link(file: &str, took_ms: u32) -> String {
    format!("Linking {file} took {} on one core.", seconds(took_ms))
}

/// Finding of a report.
pub(super) fn waited(jobs: usize) -> String {
    format!("{jobs} jobs waited 0.4 s or more for a free core.")
}

/// Finding of a report.
pub(super) fn taken_back(machine: &str, at_ms: u32, jobs: usize) -> String {
    let s = at_ms / 1000;
    format!("{machine} was taken back at {}:{:02}; {jobs} jobs ran again elsewhere.", s / 60, s % 60)
}

/// Finding of a report.
pub(super) fn taken_back_often(times: usize, jobs: usize) -> String {
    format!("Machines were taken back {times} times; {jobs} jobs ran again elsewhere.")
}

fn seconds(ms: u32) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
