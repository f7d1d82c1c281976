//! One file of the faulty disk: its two images and the changes that lie between them.

use std::ops::{Deref, Range};

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

/// What a device writes whole, at most.
const PIECE_BYTES: usize = 512;

enum Change {
    Write { offset: usize, data: Vec<u8> },
    Truncate { len: usize },
}

/// Content of a file.
#[derive(Default)]
pub(super) struct Content {
    /// What reading returns.
    pub(super) live: Vec<u8>,
    /// What is there after a power cut, whatever happens.
    durable: Vec<u8>,
    /// Done since the last sync, in order.
    unsynced: Vec<Change>,
}

fn put(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if !data.is_empty() {
        let end = offset + data.len();
        if image.len() < end {
            image.resize(end, 0);
        }
        image[offset..end].copy_from_slice(data);
    }
}

impl Content {
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let offset = offset as usize;
        put(&mut self.live, offset, data);
        self.unsynced.push(Change::Write { offset, data: data.to_vec() });
    }

    pub(super) fn truncate(&mut self, len: u64) {
        let len = len as usize;
        self.live.resize(len, 0);
        self.unsynced.push(Change::Truncate { len });
    }

    /// False when the file ends before.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) -> bool {
        let end = offset.saturating_add(data.len() as u64);
        if end > self.live.len() as u64 {
            return false;
        }
        data.copy_from_slice(&self.live[offset as usize..end as usize]);
        true
    }

    /// A sync that fails forgets what was to be written.
    pub(super) fn sync(&mut self, fails: bool) {
        for change in self.unsynced.drain(..) {
            match change {
                _ if fails => {}
                Change::Write { offset, data } => put(&mut self.durable, offset, &data),
                Change::Truncate { len } => self.durable.resize(len, 0),
            }
        }
    }

    /// False when there is no such byte.
    pub(super) fn flip(&mut self, offset: u64, bit: u8) -> bool {
        let offset = offset as usize;
        let mask = 1 << (bit & 7);
        if let Some(byte) = self.durable.get_mut(offset) {
            *byte ^= mask;
        }
        for change in &mut self.unsynced {
            if let Change::Write { offset: start, data } = change
                && let Some(byte) = offset.checked_sub(*start).and_then(|at| data.get_mut(at))
            {
                *byte ^= mask;
            }
        }
        self.live.get_mut(offset).map(|byte| *byte ^= mask).is_some()
    }

    /// The chance with which each unsynced thing has reached the device. Drawn anew for each file, and often extreme:
    /// at a half for every piece, no long write would ever arrive whole or not at all.
    pub(super) fn draw_share(random: &mut Xoshiro256PlusPlus) -> f64 {
        [0.0, 0.1, 0.5, 0.9, 1.0, 1.0][random.random_range(0..6)]
    }

    /// What a power cut leaves of this file: the durable image plus any of the unsynced pieces, one of them torn.
    pub(super) fn after_cut(&self, random: &mut Xoshiro256PlusPlus) -> Content {
        let share = Content::draw_share(random);
        let mut image = self.durable.clone();
        let last = self.unsynced.len().saturating_sub(1);
        for (at, change) in self.unsynced.iter().enumerate() {
            match change {
                Change::Write { offset, data } => {
                    let pieces = pieces(*offset, data.len());
                    let torn = (at == last && random.random_bool(0.5)).then(|| random.random_range(0..=pieces.len()));
                    for (number, piece) in pieces.into_iter().enumerate() {
                        if !random.random_bool(share) {
                            continue;
                        }
                        let kept =
                            if torn == Some(number) { random.random_range(0..=piece.len()) } else { piece.len() };
                        put(&mut image, offset + piece.start, &data[piece.start..piece.start + kept]);
                    }
                    // A file system may record the new length before the data: what is missing reads as zeros.
                    if image.len() < offset + data.len() && random.random_bool(0.25) {
                        image.resize(offset + data.len(), 0);
                    }
                }
                Change::Truncate { len } => {
                    if random.random_bool(share) {
                        image.resize(*len, 0);
                    }
                }
            }
        }
        Content { live: image.clone(), durable: image, unsynced: Vec::new() }
    }
}

/// The pieces of a write of `len` bytes at `offset`, cut where the device's sectors end.
fn pieces(offset: usize, len: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < len {
        let end = (start + PIECE_BYTES - (offset + start) % PIECE_BYTES).min(len);
        pieces.push(start..end);
        start = end;
    }
    pieces
}

/// Bytes that begin at a multiple of 64, as those of a memory map do.
pub(super) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    pub(super) fn copy_of(data: &[u8]) -> Aligned {
        let mut bytes: Vec<u8> = Vec::with_capacity(data.len() + 64);
        let start = bytes.as_ptr().align_offset(64);
        bytes.resize(start, 0);
        bytes.extend_from_slice(data);
        Aligned { bytes, start }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}
