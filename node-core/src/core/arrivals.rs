//! Large outputs on their way from one worker, and those that came before their result. Both are the worker's word: what
//! they may take is bounded, and what nobody waits for any more is dropped.

use std::collections::HashSet;

use potluck_model::limits::{BLOB_BYTES_MAX, JobLimits};
use potluck_wire::pool::Chunk;
use rustc_hash::FxHashMap as HashMap;

use crate::core_content::unpack;

/// Transfers that have begun and not ended. A worker sends one after the other; some more for what it had begun before.
const COMING_MAX: usize = 16;
/// Transfers that nobody waits for, remembered until they come.
const UNWANTED_MAX: usize = 8192;

/// Why a worker's link is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BadTransfer {
    /// A file, or all of them, larger than any job may make them.
    TooLarge,
    /// More at a time than any worker sends.
    TooMany,
    /// It does not unpack to what it announced.
    Broken,
}

struct Coming {
    packed: Vec<u8>,
    total: u64,
}

/// See the module.
pub(crate) struct Arrivals {
    coming: HashMap<u64, Coming>,
    /// Packed as they came, with their sizes: nothing is unpacked that is not taken.
    here: HashMap<u64, (Vec<u8>, u64)>,
    unwanted: HashSet<u64>,
    /// Of both, as they are unpacked.
    held_bytes: u64,
    held_bytes_max: u64,
}

impl Default for Arrivals {
    fn default() -> Self {
        // What a worker has sent before a result comes: all outputs of one job, and the next one on its way.
        Self::new(JobLimits::default().output_bytes + BLOB_BYTES_MAX)
    }
}

impl Arrivals {
    fn new(held_bytes_max: u64) -> Self {
        let (coming, here, unwanted) = (HashMap::default(), HashMap::default(), HashSet::new());
        Self { coming, here, unwanted, held_bytes: 0, held_bytes_max }
    }

    /// Takes a chunk in. Some: with it, this transfer is here.
    pub(crate) fn chunk(&mut self, chunk: &Chunk) -> Result<Option<u64>, BadTransfer> {
        let transfer = chunk.transfer;
        if self.coming.len() >= COMING_MAX && !self.coming.contains_key(&transfer) {
            return Err(BadTransfer::TooMany);
        }
        let coming = self.coming.entry(transfer).or_insert_with(|| Coming { packed: Vec::new(), total: chunk.total });
        let packed_bytes = (coming.packed.len() + chunk.data.len()) as u64;
        self.held_bytes += chunk.data.len() as u64;
        let last_total = if chunk.last { coming.total } else { 0 };
        if coming.total.max(packed_bytes) > BLOB_BYTES_MAX || self.held_bytes + last_total > self.held_bytes_max {
            return Err(BadTransfer::TooLarge);
        }
        coming.packed.extend_from_slice(&chunk.data);
        if !chunk.last {
            return Ok(None);
        }
        let Coming { packed, total } = self.coming.remove(&transfer).expect("entered above");
        self.held_bytes -= packed.len() as u64;
        if self.unwanted.remove(&transfer) {
            return Ok(None);
        }
        self.held_bytes += weight(&packed, total);
        match self.here.insert(transfer, (packed, total)) {
            None => Ok(Some(transfer)),
            Some(_) => Err(BadTransfer::Broken),
        }
    }

    /// Whether a part of it came, or is to be dropped when it comes.
    pub(crate) fn knows(&self, transfer: u64) -> bool {
        self.coming.contains_key(&transfer) || self.unwanted.contains(&transfer)
    }

    /// Whether it is here, whole.
    pub(crate) fn has(&self, transfer: u64) -> bool {
        self.here.contains_key(&transfer)
    }

    /// Its content, if it is here and unpacks to what it announced.
    pub(crate) fn take(&mut self, transfer: u64) -> Option<Vec<u8>> {
        let (packed, total) = self.drop_packed(transfer)?;
        unpack(&packed, total)
    }

    fn drop_packed(&mut self, transfer: u64) -> Option<(Vec<u8>, u64)> {
        let (packed, total) = self.here.remove(&transfer)?;
        self.held_bytes -= weight(&packed, total);
        Some((packed, total))
    }

    /// The size that it announced, if it is here.
    pub(crate) fn size(&self, transfer: u64) -> Option<u64> {
        self.here.get(&transfer).map(|(_, total)| *total)
    }

    /// Drops it if it is here.
    pub(crate) fn discard(&mut self, transfer: u64) {
        self.drop_packed(transfer);
    }

    /// Nobody waits for it: it is dropped now, or when it comes.
    pub(crate) fn forget(&mut self, transfer: u64) {
        if self.drop_packed(transfer).is_none() {
            if self.unwanted.len() >= UNWANTED_MAX {
                self.unwanted.clear();
            }
            self.unwanted.insert(transfer);
        }
    }
}

/// What one that is here counts: as unpacked, and as it is where it announced less than that.
fn weight(packed: &[u8], total: u64) -> u64 {
    total.max(packed.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core_content::pack;

    fn chunk(transfer: u64, data: &[u8], total: u64, last: bool) -> Chunk {
        Chunk { transfer, data: data.to_vec().into(), total, last, zstd: true, ..Chunk::default() }
    }

    #[test]
    fn what_comes_in_pieces_is_here_when_the_last_has_come() {
        let (mut arrivals, raw) = (Arrivals::default(), vec![7; 100_000]);
        let packed = pack(&raw).unwrap();
        let (first, rest) = packed.split_at(5);
        assert_eq!(arrivals.chunk(&chunk(1, first, 100_000, false)), Ok(None));
        assert!(!arrivals.has(1));
        assert_eq!(arrivals.chunk(&chunk(1, rest, 0, true)), Ok(Some(1)));
        assert!(arrivals.has(1));
        assert_eq!((arrivals.take(1), arrivals.take(1)), (Some(raw), None));
        assert_eq!(arrivals.held_bytes, 0);
    }

    #[test]
    fn what_nobody_waits_for_is_not_kept() {
        let mut arrivals = Arrivals::default();
        let packed = pack(&[7; 1000]).unwrap();
        arrivals.forget(1);
        assert_eq!(arrivals.chunk(&chunk(1, &packed, 1000, true)), Ok(None));
        assert_eq!(arrivals.chunk(&chunk(2, &packed, 1000, true)), Ok(Some(2)));
        arrivals.forget(2);
        assert!(!arrivals.has(1) && !arrivals.has(2));
        assert_eq!((arrivals.held_bytes, arrivals.coming.len()), (0, 0));
    }

    #[test]
    fn a_worker_that_sends_without_end_is_stopped() {
        let packed = pack(&[0; 1000]).unwrap();
        let mut arrivals = Arrivals::default();
        for transfer in 0..COMING_MAX as u64 {
            assert_eq!(arrivals.chunk(&chunk(transfer, b"x", 1000, false)), Ok(None));
        }
        assert_eq!(arrivals.chunk(&chunk(99, b"x", 1000, false)), Err(BadTransfer::TooMany));
        let announced = chunk(1, b"x", BLOB_BYTES_MAX + 1, false);
        assert_eq!(Arrivals::default().chunk(&announced), Err(BadTransfer::TooLarge));
        // One that unpacks to something else than it announced is nothing.
        let mut broken = Arrivals::default();
        assert_eq!(broken.chunk(&chunk(1, &packed, 1001, true)), Ok(Some(1)));
        assert_eq!((broken.size(1), broken.take(1), broken.held_bytes), (Some(1001), None, 0));
        // Kilobytes that unpack to gigabytes: refused before they are unpacked.
        let bomb = pack(&vec![0; 2 << 20]).unwrap();
        let mut arrivals = Arrivals::new(15 << 20);
        let came: Vec<_> = (0..20).map(|t| arrivals.chunk(&chunk(t, &bomb, 2 << 20, true))).collect();
        assert_eq!(came.iter().filter(|r| r.is_ok()).count(), 7);
        assert!(came[7..].iter().all(|r| *r == Err(BadTransfer::TooLarge)), "{came:?}");
    }
}
