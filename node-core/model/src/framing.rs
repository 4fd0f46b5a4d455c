//! The frames of an HTTP/2 connection, counted as they come in: pings, settings, resets, window updates and empty pieces
//! cost the library below time and never reach a message that could be counted. Reads nothing but the nine bytes before
//! each frame.

use std::time::Duration;

/// Length of what a client says before its first frame.
pub const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;

/// Frames without data at once: windows are told of every two megabytes, which at 10 Gbit/s is a thousand a second.
const CONTROL_FRAMES: u64 = 50_000;
/// The same for each second.
const CONTROL_FRAMES_PER_S: u64 = 10_000;
/// Frames with data: a message has one or two, and no link carries 20,000 messages a second.
const DATA_FRAMES: u64 = 400_000;
/// The same for each second.
const DATA_FRAMES_PER_S: u64 = 80_000;

/// What one connection sent.
#[derive(Debug)]
pub struct Framing {
    /// Bytes up to the next frame.
    skip: usize,
    head: [u8; HEAD_BYTES],
    filled: usize,
    control: u64,
    data: u64,
    at: Duration,
}

impl Framing {
    /// From the first byte on; `skip` bytes of it are no frame.
    pub fn after(skip: usize) -> Self {
        Self { skip, head: [0; HEAD_BYTES], filled: 0, control: 0, data: 0, at: Duration::ZERO }
    }

    /// More bytes came. False: more frames than any honest node sends. `now` is since any fixed moment.
    pub fn came(&mut self, mut bytes: &[u8], now: Duration) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let part = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + part].copy_from_slice(&bytes[..part]);
            self.filled += part;
            bytes = &bytes[part..];
            if self.filled < HEAD_BYTES {
                break;
            }
            self.filled = 0;
            self.skip = usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2]);
            // A piece of data without any is as good as none.
            if self.head[3] == DATA && self.skip > 0 { self.data += 1 } else { self.control += 1 }
        }
        let passed_ms = now.saturating_sub(self.at).as_millis() as u64;
        let (control, data) = (passed_ms * CONTROL_FRAMES_PER_S / 1000, passed_ms * DATA_FRAMES_PER_S / 1000);
        // Fractions of a frame are kept for later.
        if control > 0 {
            self.control = self.control.saturating_sub(control);
            self.data = self.data.saturating_sub(data);
            self.at = now;
        }
        self.control <= CONTROL_FRAMES && self.data <= DATA_FRAMES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn frame(kind: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![(len >> 16) as u8, (len >> 8) as u8, len as u8, kind, 0, 0, 0, 0, 1];
        frame.resize(HEAD_BYTES + len, 0xff);
        frame
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let mut all = vec![0x50; PREFACE_BYTES];
        for n in 0..50 {
            all.extend(frame(DATA, 1 + n * 331));
            all.extend(frame(6, 8));
            all.extend(frame(DATA, 0));
        }
        for piece in [1, 2, 7, 9, 1000, all.len()] {
            let mut framing = Framing::after(PREFACE_BYTES);
            assert!(all.chunks(piece).all(|bytes| framing.came(bytes, Duration::ZERO)));
            assert_eq!((framing.data, framing.control, framing.skip, framing.filled), (50, 100, 0, 0), "{piece}");
        }
    }

    #[test]
    fn pings_without_end_are_a_flood_and_a_full_line_is_none() {
        let mut framing = Framing::after(0);
        let pings = frame(6, 8).repeat(100);
        let cut = (0..10_000).find(|ms| !framing.came(&pings, MS * *ms));
        assert!(cut.is_some_and(|ms| (500..1000).contains(&ms)), "{cut:?}");
        // 10 Gbit/s in pieces of 64 KiB, and a window told of for each two megabytes.
        let mut framing = Framing::after(0);
        let (piece, told) = (frame(DATA, 64 << 10), frame(8, 4));
        for ms in 0..2_000_u32 {
            for _ in 0..20 {
                assert!(framing.came(&piece, MS * ms));
            }
            assert!(framing.came(&told, MS * ms));
        }
        assert!(framing.control < 100 && framing.data < 100);
    }
}
