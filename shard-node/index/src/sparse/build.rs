//! Making postings: one pass over the vectors counts, a second one places. No sort of the values, and no copy of them but
//! the result: 8 bytes a value, and some 40 for each index that occurs.

use super::rows::{hash, multiplier};
use super::{Postings, SparseRef};

/// Postings in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnedPostings {
    dims: Vec<u32>,
    starts: Vec<u64>,
    rows: Vec<u32>,
    values: Vec<f32>,
    maxima: Vec<f32>,
    minima: Vec<f32>,
}

impl OwnedPostings {
    /// The postings of vectors, each with its row, ascending by row; rows without a vector are left out or empty. The
    /// iterator is run twice. Fails when rows or indices are not ascending, or a value is not finite.
    pub fn from_rows<'v>(
        vectors: impl Iterator<Item = (u32, SparseRef<'v>)> + Clone,
    ) -> Result<OwnedPostings, &'static str> {
        let mut table = DimTable::new();
        let mut last_row = None;
        for (row, vector) in vectors.clone() {
            check(last_row, row, vector)?;
            last_row = Some(row);
            vector.indices.iter().for_each(|dim| *table.slot(*dim) += 1);
        }
        let counts = table.sorted();
        let mut owned = OwnedPostings { starts: vec![0], ..OwnedPostings::default() };
        let mut next = Vec::with_capacity(counts.len());
        let mut len = 0;
        for (position, (dim, count)) in counts.iter().enumerate() {
            // From here on the table leads from an index to its position.
            *table.slot(*dim) = position as u32;
            owned.dims.push(*dim);
            next.push(len as usize);
            len += u64::from(*count);
            owned.starts.push(len);
        }
        owned.rows = vec![0; len as usize];
        owned.values = vec![0.0; len as usize];
        let mut placed = 0;
        for (row, vector) in vectors {
            placed += vector.indices.len() as u64;
            if placed > len {
                return Err("the vectors changed while they were indexed");
            }
            for (dim, value) in vector.indices.iter().zip(vector.values) {
                let position = *table.slot(*dim) as usize;
                let Some(at) = next.get_mut(position).filter(|at| (**at as u64) < owned.starts[position + 1]) else {
                    return Err("the vectors changed while they were indexed");
                };
                owned.rows[*at] = row;
                owned.values[*at] = *value;
                *at += 1;
            }
        }
        for list in owned.starts.windows(2) {
            let values = &owned.values[list[0] as usize..list[1] as usize];
            owned.maxima.push(values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            owned.minima.push(values.iter().copied().fold(f32::INFINITY, f32::min));
        }
        Ok(owned)
    }

    /// What searches take, and what is written to files.
    pub fn as_ref(&self) -> Postings<'_> {
        Postings {
            dims: &self.dims,
            starts: &self.starts,
            rows: &self.rows,
            values: &self.values,
            maxima: &self.maxima,
            minima: &self.minima,
        }
    }

    /// Bytes of the arrays.
    pub fn bytes(&self) -> u64 {
        (12 * self.dims.len() + 8 * self.starts.len() + 8 * self.rows.len()) as u64
    }
}

fn check(last_row: Option<u32>, row: u32, vector: SparseRef<'_>) -> Result<(), &'static str> {
    if last_row.is_some_and(|last| last >= row) {
        return Err("the rows of sparse vectors are not ascending");
    }
    if row >= ROWS_MAX {
        return Err("a row of a sparse vector is beyond what postings can hold");
    }
    if vector.indices.len() != vector.values.len() {
        return Err("a sparse vector has not as many values as indices");
    }
    if !vector.indices.is_sorted_by(|a, b| a < b) {
        return Err("the indices of a sparse vector are not ascending");
    }
    if !vector.values.iter().all(|value| value.is_finite()) {
        return Err("a value of a sparse vector is not finite");
    }
    Ok(())
}

/// A number for each index that was met: a hash table with open addresses, since indices may be hashes themselves, anywhere
/// in their 32 bits, and there is one look-up for each value.
struct DimTable {
    /// Index and number. A power of two of slots, at least half of them free.
    slots: Vec<(u32, u32)>,
    len: usize,
    multiplier: u32,
    shift: u32,
}

/// The number of a free slot.
const FREE: u32 = u32::MAX;
/// Rows there can be: so many that no count is the number of a free slot.
const ROWS_MAX: u32 = u32::MAX - 1;

impl DimTable {
    fn new() -> DimTable {
        DimTable::with_bits(10)
    }

    fn with_bits(bits: u32) -> DimTable {
        DimTable { slots: vec![(0, FREE); 1 << bits], len: 0, multiplier: multiplier(), shift: 32 - bits }
    }

    /// The number of an index, 0 when it is new.
    #[inline]
    fn slot(&mut self, dim: u32) -> &mut u32 {
        let mut at = self.find(dim);
        if self.slots[at].1 == FREE {
            if 2 * (self.len + 1) > self.slots.len() {
                self.grow();
                at = self.find(dim);
            }
            self.len += 1;
            self.slots[at] = (dim, 0);
        }
        &mut self.slots[at].1
    }

    /// The slot of an index, or the free one where it belongs.
    #[inline]
    fn find(&self, dim: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash(dim, self.multiplier, self.shift);
        while self.slots[at].1 != FREE && self.slots[at].0 != dim {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let mut larger = DimTable::with_bits(33 - self.shift);
        for (dim, number) in self.slots.iter().filter(|(_, number)| *number != FREE) {
            *larger.slot(*dim) = *number;
        }
        *self = larger;
    }

    /// All indices with their numbers, ascending.
    fn sorted(&self) -> Vec<(u32, u32)> {
        let mut all: Vec<_> = self.slots.iter().copied().filter(|(_, number)| *number != FREE).collect();
        all.sort_unstable();
        all
    }
}
