//! Vectors, and what searches look for.

use std::sync::Arc;

use super::{Reader, Wire, Writer};
use crate::api::{Goal, Pair, Weighted};
use crate::error::Result;
use crate::vector::{MultiVector, SparseVector, Vector};

/// Least bytes of a vector: kind, number of values.
pub(super) const VECTOR_LEAST: usize = 1 + 4;

impl Wire for Vector {
    fn put(&self, to: &mut Writer) {
        match self {
            Vector::Dense(values) => {
                to.u8(0);
                to.floats(values);
            }
            Vector::Sparse(SparseVector { indices, values }) => {
                to.u8(1);
                to.integers(indices);
                to.floats(values);
            }
            Vector::Multi(MultiVector { dim, values }) => {
                to.u8(2);
                to.count(*dim);
                to.floats(values);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Vector> {
        match from.u8()? {
            0 => Ok(Vector::Dense(from.floats()?)),
            1 => {
                let sparse = SparseVector { indices: from.integers()?, values: from.floats()? };
                let is_sound = sparse.indices.len() == sparse.values.len();
                match is_sound && sparse.indices.is_sorted_by(|a, b| a < b) {
                    true => Ok(Vector::Sparse(sparse)),
                    false => Err(from.broken("a sparse vector is out of order")),
                }
            }
            2 => {
                let multi = MultiVector { dim: from.u32()? as usize, values: from.floats()? };
                match multi.dim > 0 && multi.values.len().is_multiple_of(multi.dim) {
                    true => Ok(Vector::Multi(multi)),
                    false => Err(from.broken("a multivector has no whole number of vectors")),
                }
            }
            other => Err(from.broken(&format!("vector of kind {other} is not known here"))),
        }
    }
}

impl Wire for Weighted {
    fn put(&self, to: &mut Writer) {
        to.f32(self.weight);
        self.vector.put(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Weighted> {
        Ok(Weighted { weight: from.f32()?, vector: Arc::read(from)? })
    }
}

impl Wire for Pair {
    fn put(&self, to: &mut Writer) {
        self.positive.put(to);
        self.negative.put(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Pair> {
        Ok(Pair { positive: Arc::read(from)?, negative: Arc::read(from)? })
    }
}

fn put_list<T: Wire>(list: &[T], to: &mut Writer) {
    to.count(list.len());
    list.iter().for_each(|item| item.put(to));
}

fn examples(from: &mut Reader<'_>) -> Result<Vec<Weighted>> {
    from.list(4 + VECTOR_LEAST, Weighted::read)
}

fn pairs(from: &mut Reader<'_>) -> Result<Vec<Pair>> {
    from.list(2 * VECTOR_LEAST, Pair::read)
}

impl Wire for Goal {
    fn put(&self, to: &mut Writer) {
        match self {
            Goal::Nearest(vector) => {
                to.u8(0);
                vector.put(to);
            }
            Goal::BestScore { positive, negative } => {
                to.u8(1);
                put_list(positive, to);
                put_list(negative, to);
            }
            Goal::SumScores { positive, negative } => {
                to.u8(2);
                put_list(positive, to);
                put_list(negative, to);
            }
            Goal::Discover { target, pairs } => {
                to.u8(3);
                target.put(to);
                put_list(pairs, to);
            }
            Goal::Context { pairs } => {
                to.u8(4);
                put_list(pairs, to);
            }
            Goal::Feedback { target, factor, pairs } => {
                to.u8(5);
                target.put(to);
                to.f32(*factor);
                to.count(pairs.len());
                for (pair, weight) in pairs {
                    to.f32(*weight);
                    pair.put(to);
                }
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Goal> {
        Ok(match from.u8()? {
            0 => Goal::Nearest(Arc::read(from)?),
            1 => Goal::BestScore { positive: examples(from)?, negative: examples(from)? },
            2 => Goal::SumScores { positive: examples(from)?, negative: examples(from)? },
            3 => Goal::Discover { target: Arc::read(from)?, pairs: pairs(from)? },
            4 => Goal::Context { pairs: pairs(from)? },
            5 => {
                let (target, factor) = (Arc::read(from)?, from.f32()?);
                let pairs = from.list(4 + 2 * VECTOR_LEAST, |from| {
                    let weight = from.f32()?;
                    Ok((Pair::read(from)?, weight))
                })?;
                Goal::Feedback { target, factor, pairs }
            }
            other => return Err(from.broken(&format!("goal of kind {other} is not known here"))),
        })
    }
}
