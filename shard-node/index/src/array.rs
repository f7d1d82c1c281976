//! The arrays of an index: made in memory, or read from a mapped file.

use std::io;
use std::ops::{Deref, Range};

use memmap2::MmapMut;
use vicinal_common::disk::Mapping;

/// Size of a huge page. A random read then costs one entry of the translation cache in 2 MiB instead of one in 4 KiB.
const HUGE: usize = 2 << 20;

/// Where the arrays of an opened index are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residency {
    /// What every search reads at random is copied to memory, on huge pages where the system gives them.
    #[default]
    Memory,
    /// Everything is used where the file is mapped: the system may drop pages and read them again.
    Mapped,
}

/// Bytes that begin at a cache line; when they are worth it, at a huge page.
pub(crate) struct HugeBytes {
    map: MmapMut,
    start: usize,
    len: usize,
}

impl HugeBytes {
    /// `len` zero bytes. Fails when the system has no memory left.
    pub(crate) fn zeroed(len: usize) -> io::Result<HugeBytes> {
        let is_worth_it = len >= HUGE;
        let map = MmapMut::map_anon(if is_worth_it { len.next_multiple_of(HUGE) + HUGE } else { len.max(1) })?;
        let start = if is_worth_it { map.as_ptr().align_offset(HUGE) } else { 0 };
        #[cfg(target_os = "linux")]
        if is_worth_it {
            // A wish: when it is not granted, pages are small.
            let _ = map.advise_range(memmap2::Advice::HugePage, start, len.next_multiple_of(HUGE));
        }
        Ok(HugeBytes { map, start, len })
    }

    /// A copy of bytes.
    pub(crate) fn copy(bytes: &[u8]) -> io::Result<HugeBytes> {
        let mut copy = HugeBytes::zeroed(bytes.len())?;
        copy.bytes_mut().copy_from_slice(bytes);
        Ok(copy)
    }

    /// The bytes, to fill.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..self.start + self.len]
    }
}

impl Deref for HugeBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.start..self.start + self.len]
    }
}

/// An array of plain numbers, aligned to 64 bytes.
pub(crate) enum Array {
    /// In memory of its own.
    Owned(HugeBytes),
    /// Part of a mapped file.
    Mapped(Mapping, Range<usize>),
}

impl Array {
    /// A copy of numbers.
    pub(crate) fn copy<T: bytemuck::NoUninit>(values: &[T]) -> io::Result<Array> {
        HugeBytes::copy(bytemuck::cast_slice(values)).map(Array::Owned)
    }

    /// The bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Array::Owned(bytes) => bytes,
            Array::Mapped(mapping, range) => &mapping[range.clone()],
        }
    }

    /// The bytes as numbers. Panics when they are not whole numbers: their length was checked before.
    #[inline]
    pub(crate) fn of<T: bytemuck::AnyBitPattern>(&self) -> &[T] {
        bytemuck::cast_slice(self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_huge_arrays_begin_at_a_line_and_hold_what_they_were_given() {
        for len in [0usize, 1, 63, 4096, HUGE - 1, HUGE, 3 * HUGE + 5] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let copy = HugeBytes::copy(&bytes).unwrap();
            assert!(*copy == bytes[..], "{len}");
            assert_eq!(copy.as_ptr().align_offset(if len >= HUGE { HUGE } else { 64 }), 0, "{len}");
        }
    }
}
