//! Contents of results from the end of a job until its submitter takes them. Small ones stay in memory, as long as all
//! guests together hold no more than they may; all others go into files without a name, piece by piece: however large an
//! output is, the node never holds it. Deltas wait for their guest in the same way.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use potluck_model::limits::{
    DELTAS_MEMORY_BYTES_MAX, RESULT_CONTENT_MEMORY_BYTES_MAX, RESULTS_FILES_BYTES_MAX, RESULTS_MEMORY_BYTES_MAX,
};
use potluck_wire::pool;
use rustix::fs::{Mode, OFlags};

use crate::core_content;

/// What all guests of a node may hold, in memory and on disk.
#[derive(Debug, Default)]
pub struct Room {
    /// Of results, in memory.
    result_bytes: Arc<AtomicU64>,
    /// Of deltas that wait for a guest's thread, in memory.
    delta_bytes: Arc<AtomicU64>,
    /// Of both, in files.
    file_bytes: AtomicU64,
}

impl Room {
    /// Bytes in memory, and in files.
    pub fn held(&self) -> (u64, u64) {
        let of = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed);
        (of(&self.result_bytes) + of(&self.delta_bytes), of(&self.file_bytes))
    }
}

fn add_within(counter: &AtomicU64, bytes: u64, max: u64) -> bool {
    let fits = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= max);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
}

/// Bytes in memory that are counted; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    counter: Arc<AtomicU64>,
    bytes: u64,
}

impl Place {
    fn within(counter: &Arc<AtomicU64>, bytes: u64, max: u64) -> Option<Self> {
        add_within(counter, bytes, max).then(|| Self { counter: Arc::clone(counter), bytes })
    }

    /// How many they are.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn shrink(&mut self, bytes: u64) {
        self.counter.fetch_sub(self.bytes.saturating_sub(bytes), Ordering::Relaxed);
        self.bytes = self.bytes.min(bytes);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A file without a name, whose bytes are counted.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    room: Arc<Room>,
    bytes: u64,
}

impl Write for Scratch {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if !add_within(&self.room.file_bytes, data.len() as u64, RESULTS_FILES_BYTES_MAX) {
            let why = "results that nobody takes leave no room for more";
            return Err(std::io::Error::new(std::io::ErrorKind::StorageFull, why));
        }
        self.bytes += data.len() as u64;
        self.file.write_all(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.room.file_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes that wait to be sent.
#[derive(Debug)]
pub(super) enum Waiting {
    /// In memory.
    Memory {
        /// They.
        bytes: Vec<u8>,
        /// What they count for.
        _place: Place,
    },
    /// In a file.
    File(Scratch),
}

impl Waiting {
    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        match self {
            Waiting::Memory { bytes, .. } => bytes.len() as u64,
            Waiting::File(scratch) => scratch.bytes,
        }
    }

    /// Up to `max` of them from `at` on.
    pub(super) fn read_at(&self, at: u64, max: usize) -> std::io::Result<Vec<u8>> {
        let left = self.len().saturating_sub(at).min(max as u64) as usize;
        match self {
            Waiting::Memory { bytes, .. } => Ok(bytes[at as usize..][..left].to_vec()),
            Waiting::File(scratch) => {
                let mut piece = vec![0; left];
                scratch.file.read_exact_at(&mut piece, at)?;
                Ok(piece)
            }
        }
    }
}

/// A delta that waits for its guest.
#[derive(Debug)]
pub enum Delta {
    /// In memory.
    Memory {
        /// As it came.
        delta: pool::Delta,
        /// What it counts for.
        _place: Place,
    },
    /// In a file.
    File {
        /// Its operations.
        scratch: Scratch,
        /// The rest.
        head: pool::Delta,
    },
}

impl Delta {
    /// As it came.
    pub(super) fn read(self) -> std::io::Result<pool::Delta> {
        match self {
            Delta::Memory { delta, .. } => Ok(delta),
            Delta::File { scratch, head } => {
                let mut ops = vec![0; scratch.bytes as usize];
                scratch.file.read_exact_at(&mut ops, 0)?;
                Ok(pool::Delta { ops, ..head })
            }
        }
    }
}

/// Where one guest's results wait.
#[derive(Clone)]
pub(super) struct Spool {
    room: Arc<Room>,
    /// A folder of this submitter's.
    dir: PathBuf,
}

impl Spool {
    pub(super) fn new(room: Arc<Room>, dir: PathBuf) -> Self {
        Self { room, dir }
    }

    /// Counts bytes that will be held in memory. None: they must not be.
    pub(super) fn place(&self, bytes: u64) -> Option<Place> {
        let fits = bytes <= RESULT_CONTENT_MEMORY_BYTES_MAX;
        fits.then(|| Place::within(&self.room.result_bytes, bytes, RESULTS_MEMORY_BYTES_MAX)).flatten()
    }

    /// Keeps a delta that waits for its guest.
    pub(super) fn keep_delta(&self, delta: pool::Delta) -> std::io::Result<Delta> {
        let bytes = delta.ops.len() as u64;
        if let Some(place) = Place::within(&self.room.delta_bytes, bytes, DELTAS_MEMORY_BYTES_MAX) {
            return Ok(Delta::Memory { delta, _place: place });
        }
        let mut scratch = self.scratch()?;
        scratch.write_all(&delta.ops)?;
        Ok(Delta::File { scratch, head: pool::Delta { ops: Vec::new(), ..delta } })
    }

    /// Keeps bytes that are here already.
    pub(super) fn keep(&self, bytes: Vec<u8>) -> std::io::Result<Waiting> {
        if let Some(place) = self.place(bytes.len() as u64) {
            return Ok(Waiting::Memory { bytes, _place: place });
        }
        let mut scratch = self.scratch()?;
        scratch.write_all(&bytes)?;
        Ok(Waiting::File(scratch))
    }

    /// Reads `size` bytes and keeps them as zstd.
    pub(super) fn pack(&self, from: &mut impl Read, size: u64) -> std::io::Result<Waiting> {
        if let Some(mut place) = self.place(size) {
            let raw = read_exactly(from, size)?;
            let packed = core_content::pack_bulk(&raw)?;
            if (packed.len() as u64) > size {
                drop(place);
                return self.keep(packed);
            }
            place.shrink(packed.len() as u64);
            return Ok(Waiting::Memory { bytes: packed, _place: place });
        }
        let mut packer = core_content::bulk_packer(self.scratch()?)?;
        if std::io::copy(&mut from.take(size), &mut packer)? != size {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Waiting::File(packer.finish()?))
    }

    fn scratch(&self) -> std::io::Result<Scratch> {
        Ok(Scratch { file: self.nameless()?, room: Arc::clone(&self.room), bytes: 0 })
    }

    fn nameless(&self) -> std::io::Result<File> {
        // Deltas may wait before any mirror was opened.
        std::fs::create_dir_all(&self.dir)?;
        let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(0o600));
        match rustix::fs::open(&self.dir, flags | OFlags::TMPFILE, mode) {
            Ok(file) => return Ok(file.into()),
            // Some file systems, such as FUSE ones and NFS, cannot.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = self.dir.join(format!("result-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode)?;
        std::fs::remove_file(&path)?;
        Ok(file.into())
    }
}

/// Reads so many bytes, which [`Spool::place`] has counted.
pub(super) fn read_exactly(from: &mut impl Read, size: u64) -> std::io::Result<Vec<u8>> {
    let mut raw = Vec::with_capacity(size as usize);
    if from.take(size).read_to_end(&mut raw)? as u64 != size {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that do not pack.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 9u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn deltas_beyond_what_memory_may_hold_wait_in_files() {
        let dir = tempfile::tempdir().unwrap();
        let room = Arc::new(Room::default());
        let spool = Spool::new(Arc::clone(&room), dir.path().to_owned());
        let delta = pool::Delta { seq: 7, ops: noise(1 << 20), raw_bytes: 9 };
        let count = (DELTAS_MEMORY_BYTES_MAX >> 20) + 3;
        let kept: Vec<Delta> = (0..count).map(|_| spool.keep_delta(delta.clone()).unwrap()).collect();
        assert_eq!(room.held(), (DELTAS_MEMORY_BYTES_MAX, 3 << 20));
        assert!(kept.into_iter().all(|kept| kept.read().unwrap() == delta));
        assert_eq!(room.held(), (0, 0));
    }

    fn all(waiting: &Waiting) -> Vec<u8> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < waiting.len() {
            bytes.extend(waiting.read_at(bytes.len() as u64, 1000).unwrap());
        }
        bytes
    }

    #[test]
    fn what_does_not_fit_into_memory_waits_in_a_file_and_reads_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let room = Arc::new(Room::default());
        let spool = Spool::new(Arc::clone(&room), dir.path().to_owned());
        let raw = noise(3_000_000);
        let mut held = Vec::new();
        for _ in 0..40 {
            held.push(spool.pack(&mut &raw[..], raw.len() as u64).unwrap());
        }
        let (memory, files) = room.held();
        assert!(memory <= RESULTS_MEMORY_BYTES_MAX && memory > RESULTS_MEMORY_BYTES_MAX / 2, "{memory}");
        assert!(files > 40 * 3_000_000 - RESULTS_MEMORY_BYTES_MAX, "{files}");
        for waiting in [&held[0], &held[39]] {
            assert_eq!(core_content::unpack(&all(waiting), raw.len() as u64).as_ref(), Some(&raw));
        }
        assert!(matches!((&held[0], &held[39]), (Waiting::Memory { .. }, Waiting::File(_))));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no name is left to be cleaned up");
        held.clear();
        assert_eq!(room.held(), (0, 0));
    }

    #[test]
    fn a_large_output_is_never_in_memory_and_all_of_them_are_bounded_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let room = Arc::new(Room::default());
        let spool = Spool::new(Arc::clone(&room), dir.path().to_owned());
        let raw = noise(RESULT_CONTENT_MEMORY_BYTES_MAX as usize + 1);
        let kept = spool.pack(&mut &raw[..], raw.len() as u64).unwrap();
        assert!(matches!(kept, Waiting::File(_)));
        assert_eq!(core_content::unpack(&all(&kept), raw.len() as u64).as_ref(), Some(&raw));
        drop(kept);
        // As if others had filled the rest.
        room.file_bytes.store(RESULTS_FILES_BYTES_MAX - 1000, Ordering::Relaxed);
        let refused = spool.pack(&mut &raw[..], raw.len() as u64).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(room.held(), (0, RESULTS_FILES_BYTES_MAX - 1000));
        // A runner that ends in the middle of an output.
        room.file_bytes.store(0, Ordering::Relaxed);
        assert!(spool.pack(&mut &raw[1..], raw.len() as u64).is_err());
        assert!(spool.pack(&mut &raw[..10], 11).is_err());
        assert_eq!(room.held(), (0, 0));
    }
}
