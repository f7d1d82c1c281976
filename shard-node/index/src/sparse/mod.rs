//! Exact search of sparse vectors by inner product.
//!
//! A sparse vector is a list of (index, value) pairs, ascending by index; what is not listed is absent, not 0. A row is
//! found only when it shares an index with the query, whatever its score then is; values of both may be negative.
//!
//! There are two ways to the same hits: [`Postings`], an inverted index for all rows of a segment, and [`score_rows`], which
//! reads the vectors of the given rows one by one. Every score that is returned is the same sum: the products as `f32`, added
//! from 0 in the order of the indices. So the two ways, and [`dot`], agree to the bit.

mod build;
mod postings;
mod rows;
mod search;
mod term;
#[cfg(test)]
mod tests;

pub use self::build::OwnedPostings;
pub use self::postings::Postings;
pub use self::rows::score_rows;

pub use vicinal_common::vector::SparseRef;

use crate::Hit;

/// The inner product of two sparse vectors, `None` when they share no index.
pub fn dot(a: SparseRef<'_>, b: SparseRef<'_>) -> Option<f32> {
    let (mut i, mut j) = (0, 0);
    let (mut sum, mut is_shared) = (0.0, false);
    let (a_len, b_len) = (a.indices.len().min(a.values.len()), b.indices.len().min(b.values.len()));
    while i < a_len && j < b_len {
        let (at, bt) = (a.indices[i], b.indices[j]);
        if at == bt {
            sum += a.values[i] * b.values[j];
            is_shared = true;
        }
        // Both steps without a branch: which list is behind is as good as random.
        i += usize::from(at <= bt);
        j += usize::from(bt <= at);
    }
    is_shared.then_some(sum)
}

/// A row with its score as a hit: the highest score is the smallest distance. A score that is no number (products overflowed
/// to both infinities) is the worst of all.
fn hit(row: u32, score: f32) -> Hit {
    Hit { distance: if score.is_nan() { f32::INFINITY } else { 0.0 - score }, row }
}
