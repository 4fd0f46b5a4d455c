//! Contents in messages: packed and unpacked. Outputs inside results as LZ4 blocks, because the submitter's CPU per
//! file is what limits a pool; everything else as zstd, where one context per thread serves all: making one takes
//! longer than most contents.

use std::cell::RefCell;

use potluck_model::limits::BLOB_BYTES_MAX;
use potluck_wire::pool::Harvested;
use zstd::bulk::{Compressor, Decompressor};

thread_local! {
    static PACKER: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static BULK_PACKER: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// One byte of an LZ4 block adds at most 255 bytes to a match (lz4_Block_format.md).
const LZ4_RATIO_MAX: u64 = 255;
/// Fast: what is sent is small, and the submitter's time is what counts.
const LEVEL: i32 = 1;
/// A fast one: a third less time than level 1 on both sides, for a quarter more bytes (measured on objects with -g).
const BULK_LEVEL: i32 = -3;

/// The content that travelled inside the result; None if it came apart, or does not unpack to the size it claims.
pub fn inline(file: &Harvested) -> Option<Vec<u8>> {
    let content = file.content.as_deref()?;
    if file.size > BLOB_BYTES_MAX {
        return None;
    }
    if file.raw {
        return (content.len() as u64 == file.size).then(|| content.to_vec());
    }
    // More than this no block can hold; the memory is not taken for one that lies.
    if file.size > content.len() as u64 * LZ4_RATIO_MAX {
        return None;
    }
    let raw = lz4_flex::block::decompress(content, usize::try_from(file.size).ok()?).ok()?;
    (raw.len() as u64 == file.size).then_some(raw)
}

/// Packs a content that travels inside the result.
pub fn pack_inline(content: &[u8]) -> Vec<u8> {
    lz4_flex::block::compress(content)
}

/// Unpacks what says how long it is; the caller has checked that this is allowed.
pub fn unpack(packed: &[u8], size: u64) -> Option<Vec<u8>> {
    let raw = UNPACKER.with_borrow_mut(|unpacker| {
        if unpacker.is_none() {
            *unpacker = Decompressor::new().ok();
        }
        unpacker.as_mut()?.decompress(packed, usize::try_from(size).ok()?).ok()
    })?;
    (raw.len() as u64 == size).then_some(raw)
}

/// Packs a message.
pub fn pack(raw: &[u8]) -> std::io::Result<Vec<u8>> {
    PACKER.with_borrow_mut(|packer| pack_with(packer, LEVEL, raw))
}

/// Packs what travels on the bulk stream.
pub fn pack_bulk(raw: &[u8]) -> std::io::Result<Vec<u8>> {
    BULK_PACKER.with_borrow_mut(|packer| pack_with(packer, BULK_LEVEL, raw))
}

/// Packs what travels on the bulk stream and is too large to be held, while it is written.
pub fn bulk_packer<W: std::io::Write>(to: W) -> std::io::Result<zstd::stream::write::Encoder<'static, W>> {
    zstd::stream::write::Encoder::new(to, BULK_LEVEL)
}

fn pack_with(packer: &mut Option<Compressor<'static>>, level: i32, raw: &[u8]) -> std::io::Result<Vec<u8>> {
    match packer {
        Some(packer) => packer.compress(raw),
        None => packer.insert(Compressor::new(level)?).compress(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_lies_about_its_size_is_none() {
        let raw: Vec<u8> = (0..5000u32).map(|i| (i / 7) as u8).collect();
        let of =
            |content: &[u8], size| inline(&Harvested { content: Some(content.into()), size, ..Harvested::default() });
        let packed = pack_inline(&raw);
        assert_eq!(of(&packed, 5000), Some(raw));
        for size in [4999, 5001, 0, BLOB_BYTES_MAX] {
            assert_eq!(of(&packed, size), None, "{size}");
        }
        assert_eq!(of(&packed[..packed.len() - 1], 5000), None);
        assert_eq!(of(&[], 0), None);
    }

    #[test]
    fn a_content_that_lies_about_its_size_is_none() {
        let raw = vec![7; 5000];
        let packed = pack(&raw).unwrap();
        assert_eq!(unpack(&packed, 5000), Some(raw.clone()));
        for size in [4999, 5001, 0] {
            assert_eq!(unpack(&packed, size), None, "{size}");
        }
        assert_eq!(unpack(&packed[..packed.len() - 1], 5000), None);
        // A failure leaves the context fit for the next one.
        assert_eq!(unpack(&pack(&raw).unwrap(), 5000), Some(raw));
    }
}
