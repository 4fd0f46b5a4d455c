//! A runner's report as a result that travels.

use potluck_model::ids::Digest;
use potluck_model::limits::{CONTROL_MESSAGE_BYTES_MAX, INLINE_BYTES_MAX};
use potluck_runner::protocol::{End, HarvestKind as Kept, LimitKind, Report};
use potluck_wire::pool::{self, HarvestKind, Harvested};

use super::Finished;
use crate::core_content;
use crate::sandbox::Touched;

/// Objects are packed to a third or a half: one of this size does not fit into a result.
const PACKED_INLINE_MAX: usize = 4 * INLINE_BYTES_MAX;

/// Standard output and error together: what fits into one control message beside everything else.
const STDIO_BYTES_MAX: usize = CONTROL_MESSAGE_BYTES_MAX / 4 * 3;

/// What a report means to the submitter.
pub(super) fn digest_report(
    run: u64,
    id: u64,
    mut report: Report,
    contents: Vec<Vec<u8>>,
    order: &[usize],
    output_paths: &[Vec<u8>],
    transfer_base: u64,
) -> Finished {
    if report.stdout.len() + report.stderr.len() > STDIO_BYTES_MAX {
        report.end = End::Limit(LimitKind::Stdio);
    }
    if !matches!(report.end, End::Exited(_)) {
        // It runs again, here or there: half a text is of no use, and a flood would not fit into the answer.
        (report.stdout, report.stderr) = (Vec::new(), Vec::new());
    }
    let (end, value, note) = match report.end {
        End::Exited(code) => (pool::EndKind::EndExited, code, String::new()),
        End::Signaled(signal) => (pool::EndKind::EndSignaled, signal, String::new()),
        End::Limit(kind) => (pool::EndKind::EndLimit, limit_number(kind), String::new()),
        End::Killed => (pool::EndKind::EndKilled, 0, String::new()),
        End::NotStarted(why) => (pool::EndKind::EndNotStarted, 0, why),
    };
    let mut outputs = Vec::new();
    let mut lower_written = Vec::new();
    let mut poison_written = Vec::new();
    let mut large = Vec::new();
    let mut contents = contents.into_iter();
    for harvested in report.outputs {
        let dir = harvested.dir as usize;
        let mut out = Harvested {
            dir: order.get(dir).copied().unwrap_or(dir) as u32,
            path: harvested.path.clone(),
            ..Harvested::default()
        };
        match harvested.kind {
            Kept::File { mode, size } => {
                let content = contents.next().unwrap_or_default();
                out.kind = HarvestKind::HarvestFile as i32;
                out.mode = mode;
                out.size = size;
                out.digest = Digest::of(&content).0.to_vec();
                // Below this a frame's header costs more than compression saves (`limits` section 7).
                if content.len() <= 512 {
                    out.raw = true;
                    out.content = Some(content);
                } else {
                    // What is large in any case is packed once only, for the bulk stream.
                    let packed = (content.len() <= PACKED_INLINE_MAX).then(|| core_content::pack_inline(&content));
                    match packed.filter(|p| p.len() <= INLINE_BYTES_MAX) {
                        Some(packed) => out.content = Some(packed),
                        None => {
                            out.transfer = transfer_base + large.len() as u64;
                            large.push((out.transfer, content));
                        }
                    }
                }
            }
            Kept::Dir { mode } => {
                out.kind = HarvestKind::HarvestDir as i32;
                out.mode = mode;
            }
            Kept::Deleted => out.kind = HarvestKind::HarvestDeleted as i32,
            Kept::Refused(why) => {
                out.kind = HarvestKind::HarvestRefused as i32;
                out.note = why;
            }
            Kept::PoisonWritten(id) => {
                poison_written.push(id);
                continue;
            }
            Kept::LowerWritten => {
                let mut path = output_paths.get(dir).cloned().unwrap_or_default();
                path.push(b'/');
                path.extend_from_slice(&harvested.path);
                lower_written.push(path);
                continue;
            }
        }
        outputs.push(out);
    }
    Finished {
        run,
        result: pool::Result {
            id,
            end: end as i32,
            value,
            note,
            stdout: report.stdout,
            stderr: report.stderr,
            outputs,
            wall_us: report.wall_us,
            cpu_us: report.user_us + report.system_us,
            overhead_us: report.overhead_us,
            max_rss_bytes: report.max_rss_bytes,
            ..pool::Result::default()
        },
        touched: Touched::default(),
        lower_written,
        poison_written,
        large,
    }
}

fn limit_number(kind: LimitKind) -> i32 {
    match kind {
        LimitKind::Wall => 1,
        LimitKind::Cpu => 2,
        LimitKind::Memory => 3,
        LimitKind::OutputBytes => 4,
        LimitKind::OutputFiles => 5,
        LimitKind::Stdio => 6,
        LimitKind::Processes => 7,
        LimitKind::KernelObjects => 8,
    }
}

/// What limit number `n` of a result is called.
pub fn limit_name(n: i32) -> &'static str {
    match n {
        1 => "wall time",
        2 => "CPU time",
        3 => "memory",
        4 => "output size",
        5 => "number of output files",
        6 => "standard output",
        7 => "processes",
        8 => "pipes, locks or signals",
        _ => "unknown",
    }
}
