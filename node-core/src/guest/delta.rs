//! Unpacking a delta: hostile bytes until they are counted.

use potluck_model::limits::DELTA_OPS_MAX;
use potluck_wire::pool::{self, DeltaOps};
use prost::Message;

use crate::mirror::MirrorError;

/// Largest delta, unpacked. A submitter cuts at 1 MiB between directories, and a directory's part at half of that.
const DELTA_RAW_BYTES_MAX: u64 = 64 << 20;

/// Unpacks a delta whose size and number of operations are within the limits.
pub fn unpack_delta(delta: &pool::Delta) -> Result<DeltaOps, MirrorError> {
    if delta.raw_bytes > DELTA_RAW_BYTES_MAX {
        return Err(MirrorError::Refused(format!("a delta of {} bytes", delta.raw_bytes)));
    }
    let unpacked;
    let raw = match delta.raw_bytes {
        0 => &delta.ops[..],
        size => {
            unpacked = zstd::bulk::decompress(&delta.ops, size as usize)
                .map_err(|e| MirrorError::Refused(format!("a delta that does not unpack: {e}")))?;
            if unpacked.len() as u64 != size {
                return Err(MirrorError::Refused("a delta of another size than it says".into()));
            }
            &unpacked[..]
        }
    };
    // An empty name is two bytes here and twelve times as much when decoded: counted before memory is taken.
    let count = count_operations(raw).ok_or_else(|| MirrorError::Refused("a delta that is none".into()))?;
    if count > DELTA_OPS_MAX {
        return Err(MirrorError::Refused(format!("a delta of {count} operations")));
    }
    DeltaOps::decode(raw).map_err(|e| MirrorError::Refused(format!("a delta that is none: {e}")))
}

/// Directories and the fields in them, of an encoded `DeltaOps`. None: it is not one.
fn count_operations(mut raw: &[u8]) -> Option<usize> {
    let mut count = 0;
    while let Some((dir, rest)) = next_field(raw)? {
        raw = rest;
        count += 1;
        let mut fields = dir;
        while let Some((_, rest)) = next_field(fields)? {
            fields = rest;
            count += 1;
        }
    }
    Some(count)
}

/// The content of the field that `raw` begins with (empty for a number), and what follows. `Some(None)` at the end.
fn next_field(mut raw: &[u8]) -> Option<Option<(&[u8], &[u8])>> {
    const NUMBER: u64 = 0;
    const BYTES: u64 = 2;
    if raw.is_empty() {
        return Some(None);
    }
    let tag = prost::encoding::decode_varint(&mut raw).ok()?;
    let value = prost::encoding::decode_varint(&mut raw).ok()?;
    match tag & 7 {
        NUMBER => Some(Some((&[], raw))),
        BYTES => Some(Some(raw.split_at_checked(usize::try_from(value).ok()?)?)),
        // Nothing in it is of another kind.
        _ => None,
    }
}
