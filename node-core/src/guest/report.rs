//! A runner's report as a result that travels.

use std::io::Read;

use potluck_model::ids::Digest;
use potluck_model::limits::{CONTROL_MESSAGE_BYTES_MAX, INLINE_BYTES_MAX, RESULT_INLINE_BYTES_MAX};
use potluck_runner::protocol::{End, HarvestKind as Kept, LimitKind, Report};
use potluck_wire::pool::{self, HarvestKind, Harvested};

use super::spool::{Spool, Waiting, read_exactly};
use crate::core_content;
use crate::job_group::JobGroup;
use crate::sandbox::Touched;

/// Objects are packed to a third or a half: one of this size does not fit into a result.
const PACKED_INLINE_MAX: u64 = 4 * INLINE_BYTES_MAX as u64;

/// Standard output and error together: what fits into one control message beside everything else.
const STDIO_BYTES_MAX: usize = CONTROL_MESSAGE_BYTES_MAX / 4 * 3;

/// What a job's thread found.
pub struct Finished {
    pub(super) run: u64,
    pub(super) result: pool::Result,
    pub(super) touched: Touched,
    pub(super) lower_written: Vec<Vec<u8>>,
    pub(super) poison_written: Vec<u64>,
    pub(super) large: Vec<Large>,
}

/// A content that travels ahead of its result.
pub(super) struct Large {
    pub(super) transfer: u64,
    pub(super) packed: Waiting,
    pub(super) size: u64,
}

impl Finished {
    /// Of a job that was killed, or whose submitter went, before it was started.
    pub(super) fn never(run: u64) -> Self {
        let mut finished = Self::not_started(run, 0, String::new());
        finished.result.end = pool::EndKind::EndKilled as i32;
        finished
    }

    pub(super) fn not_started(run: u64, id: u64, note: String) -> Self {
        let end = pool::EndKind::EndNotStarted as i32;
        Self {
            run,
            result: pool::Result { id, end, note, ..pool::Result::default() },
            touched: Touched::default(),
            lower_written: Vec::new(),
            poison_written: Vec::new(),
            large: Vec::new(),
        }
    }
}

/// What the kernel has enforced is what ended the job, whatever its first process made of that.
pub(super) fn end_of(mut report: Report, group: Option<&JobGroup>) -> Report {
    let failed = !matches!(report.end, End::Exited(0) | End::Limit(_) | End::Killed | End::NotStarted(_));
    if let Some(limit) = group.filter(|_| failed).and_then(JobGroup::met) {
        report.end = End::Limit(limit);
        report.outputs.clear();
    }
    report
}

/// A job's outputs, read one after the other as they come from the runner.
pub(super) struct Reader<'a> {
    pub(super) run: u64,
    pub(super) id: u64,
    /// Where each of the runner's output directories is in the submitter's order.
    pub(super) order: &'a [usize],
    pub(super) output_paths: &'a [Vec<u8>],
    pub(super) transfer_base: u64,
    pub(super) spool: &'a Spool,
}

impl Reader<'_> {
    /// What a report means to the submitter; `from` has the contents.
    pub(super) fn read(&self, mut report: Report, from: &mut impl Read) -> std::io::Result<Finished> {
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
        let mut inline_bytes = 0;
        for harvested in report.outputs {
            let dir = harvested.dir as usize;
            let mut out = Harvested {
                dir: self.order.get(dir).copied().unwrap_or(dir) as u32,
                path: harvested.path.clone(),
                ..Harvested::default()
            };
            match harvested.kind {
                Kept::File { mode, size } => {
                    out.kind = HarvestKind::HarvestFile as i32;
                    out.mode = mode;
                    out.size = size;
                    self.content(&mut out, &mut inline_bytes, &mut large, from)?;
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
                    let mut path = self.output_paths.get(dir).cloned().unwrap_or_default();
                    path.push(b'/');
                    path.extend_from_slice(&harvested.path);
                    lower_written.push(path);
                    continue;
                }
            }
            outputs.push(out);
        }
        Ok(Finished {
            run: self.run,
            result: pool::Result {
                id: self.id,
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
        })
    }

    /// The content of one file: inside the result, or, where it is large or the result has enough, ahead of it.
    fn content(
        &self,
        out: &mut Harvested,
        inline_bytes: &mut usize,
        large: &mut Vec<Large>,
        from: &mut impl Read,
    ) -> std::io::Result<()> {
        let size = out.size;
        let mut ahead = |packed| {
            out.transfer = self.transfer_base + large.len() as u64;
            large.push(Large { transfer: out.transfer, packed, size });
        };
        // What is large in any case is packed once only, for the bulk stream.
        if size > PACKED_INLINE_MAX {
            let mut hashed = Hashed { from, hasher: blake3::Hasher::new() };
            ahead(self.spool.pack(&mut hashed, size)?);
            out.digest = hashed.hasher.finalize().as_bytes().to_vec();
            return Ok(());
        }
        // Not held for long, and one at a time: not counted.
        let raw = read_exactly(from, size)?;
        let digest = Digest::of(&raw).0.to_vec();
        // Below this a frame's header costs more than compression saves (`limits` section 7).
        let is_raw = raw.len() <= 512;
        let packed = if is_raw { None } else { Some(core_content::pack_inline(&raw)) };
        let len = packed.as_ref().map_or(raw.len(), Vec::len);
        if len > INLINE_BYTES_MAX || *inline_bytes + len > RESULT_INLINE_BYTES_MAX {
            ahead(self.spool.pack(&mut &raw[..], size)?);
            out.digest = digest;
            return Ok(());
        }
        *inline_bytes += len;
        out.digest = digest;
        out.raw = is_raw;
        out.content = Some(packed.unwrap_or(raw));
        Ok(())
    }
}

/// What is read, hashed on its way.
struct Hashed<'a, R> {
    from: &'a mut R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(to)?;
        self.hasher.update(&to[..read]);
        Ok(read)
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
