//! Rows with equal vectors. A graph over thousands of them would be a clique that a search cannot leave, so only the
//! first row of each vector enters the graph and carries a chain of the others.

use super::graph::NONE;
use crate::Rows;

/// Which rows enter the graph, and the chains.
pub(super) struct Duplicates {
    /// The first row of every distinct vector, ascending.
    pub(super) distinct: Vec<u32>,
    /// For each row the next row with the same vector, or [`NONE`]; empty when all rows are distinct.
    pub(super) twins: Vec<u32>,
}

/// Finds equal rows. -0.0 equals 0.0; a row with a NaN equals none.
pub(super) fn find(rows: Rows<'_>) -> Duplicates {
    let mut by_hash: Vec<(u64, u32)> =
        (0u32..).zip(rows.data.chunks_exact(rows.dim)).map(|(row, values)| (hash(values), row)).collect();
    by_hash.sort_unstable();
    let mut twins = vec![NONE; rows.len()];
    let mut distinct = Vec::with_capacity(rows.len());
    // First and last row of each chain with the current hash: one, but for collisions.
    let mut chains: Vec<(u32, u32)> = Vec::new();
    let mut current = None;
    for (hash, row) in by_hash {
        if current != Some(hash) {
            chains.clear();
            current = Some(hash);
        }
        match chains.iter_mut().find(|(first, _)| rows.row(*first) == rows.row(row)) {
            Some((_, last)) => {
                twins[*last as usize] = row;
                *last = row;
            }
            None => {
                chains.push((row, row));
                distinct.push(row);
            }
        }
    }
    if distinct.len() == rows.len() {
        twins = Vec::new();
    }
    distinct.sort_unstable();
    Duplicates { distinct, twins }
}

/// A hash of the values under which equal rows are equal. It decides nothing but speed.
fn hash(values: &[f32]) -> u64 {
    values.iter().fold(0x9E37_79B9_7F4A_7C15, |hash: u64, value| {
        // Adding +0.0 turns -0.0 into +0.0.
        (hash.rotate_left(23) ^ u64::from((value + 0.0).to_bits())).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chains_join_exactly_the_equal_rows(values in prop::collection::vec(-1i8..2, 0..200), dim in 1usize..5) {
            let mut data: Vec<f32> = values.iter().map(|v| if *v == -1 { -0.0 } else { f32::from(*v) }).collect();
            data.truncate(data.len() / dim * dim);
            let rows = Rows { data: &data, dim };
            let duplicates = find(rows);
            let mut seen = Vec::new();
            for &first in &duplicates.distinct {
                let mut row = first;
                loop {
                    prop_assert_eq!(rows.row(row), rows.row(first));
                    seen.push(row);
                    match duplicates.twins.get(row as usize) {
                        Some(&next) if next != NONE => {
                            prop_assert!(next > row);
                            row = next;
                        }
                        _ => break,
                    }
                }
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..rows.len() as u32).collect::<Vec<_>>());
            for (i, &a) in duplicates.distinct.iter().enumerate() {
                prop_assert!(duplicates.distinct[..i].iter().all(|&b| rows.row(a) != rows.row(b)));
            }
        }
    }
}
