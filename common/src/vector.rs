//! Vectors of a point: dense, sparse, or several dense ones for one point.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A stored vector, or one that is searched for, of the kind its collection says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Vector {
    /// One number per dimension.
    Dense(Vec<f32>),
    /// Numbers of the dimensions that are not zero.
    Sparse(SparseVector),
    /// Several dense vectors, compared by MaxSim.
    Multi(MultiVector),
}

/// A sparse vector: `indices` ascending, each once, and the value at each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SparseVector {
    /// Dimensions with a value, ascending, each once.
    pub indices: Vec<u32>,
    /// As many values.
    pub values: Vec<f32>,
}

/// Several dense vectors of one dimension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MultiVector {
    /// Values per vector, at least 1.
    pub dim: usize,
    /// The vectors one after the other: a multiple of `dim`.
    pub values: Vec<f32>,
}

/// A vector where it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VectorRef<'a> {
    /// See [`Vector::Dense`].
    Dense(&'a [f32]),
    /// See [`Vector::Sparse`].
    Sparse(SparseRef<'a>),
    /// See [`Vector::Multi`].
    Multi(MultiRef<'a>),
}

/// A sparse vector where it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SparseRef<'a> {
    /// Dimensions with a value, ascending, each once.
    pub indices: &'a [u32],
    /// As many values.
    pub values: &'a [f32],
}

/// Several dense vectors where they are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MultiRef<'a> {
    /// Values per vector, at least 1.
    pub dim: usize,
    /// The vectors one after the other.
    pub values: &'a [f32],
}

impl Vector {
    /// The vector, borrowed.
    pub fn as_ref(&self) -> VectorRef<'_> {
        match self {
            Vector::Dense(values) => VectorRef::Dense(values),
            Vector::Sparse(sparse) => VectorRef::Sparse(sparse.as_ref()),
            Vector::Multi(multi) => VectorRef::Multi(multi.as_ref()),
        }
    }

    /// Its values, when it is dense.
    pub fn dense(&self) -> Option<&[f32]> {
        match self {
            Vector::Dense(values) => Some(values),
            Vector::Sparse(_) | Vector::Multi(_) => None,
        }
    }

    /// Bytes of its numbers.
    pub fn bytes(&self) -> usize {
        self.as_ref().bytes()
    }
}

impl From<Vec<f32>> for Vector {
    fn from(values: Vec<f32>) -> Vector {
        Vector::Dense(values)
    }
}

impl SparseVector {
    /// Sorts pairs of a dimension and its value. The error names a dimension that comes twice.
    pub fn from_pairs(indices: Vec<u32>, values: Vec<f32>) -> Result<SparseVector, u32> {
        debug_assert_eq!(indices.len(), values.len(), "the caller has checked that");
        if indices.is_sorted_by(|a, b| a < b) {
            return Ok(SparseVector { indices, values });
        }
        let mut pairs: Vec<(u32, f32)> = indices.into_iter().zip(values).collect();
        pairs.sort_unstable_by_key(|(index, _)| *index);
        match pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(pair[0].0),
            None => {
                let (indices, values) = pairs.into_iter().unzip();
                Ok(SparseVector { indices, values })
            }
        }
    }

    /// The vector, borrowed.
    pub fn as_ref(&self) -> SparseRef<'_> {
        SparseRef { indices: &self.indices, values: &self.values }
    }
}

impl MultiVector {
    /// The vectors, borrowed.
    pub fn as_ref(&self) -> MultiRef<'_> {
        MultiRef { dim: self.dim, values: &self.values }
    }
}

impl<'a> VectorRef<'a> {
    /// A copy.
    pub fn to_vector(self) -> Vector {
        match self {
            VectorRef::Dense(values) => Vector::Dense(values.to_vec()),
            VectorRef::Sparse(SparseRef { indices, values }) => {
                Vector::Sparse(SparseVector { indices: indices.to_vec(), values: values.to_vec() })
            }
            VectorRef::Multi(MultiRef { dim, values }) => Vector::Multi(MultiVector { dim, values: values.to_vec() }),
        }
    }

    /// Its values, when it is dense.
    pub fn dense(self) -> Option<&'a [f32]> {
        match self {
            VectorRef::Dense(values) => Some(values),
            VectorRef::Sparse(_) | VectorRef::Multi(_) => None,
        }
    }

    /// Bytes of its numbers.
    pub fn bytes(self) -> usize {
        match self {
            VectorRef::Dense(values) => size_of_val(values),
            VectorRef::Sparse(SparseRef { indices, values }) => size_of_val(indices) + size_of_val(values),
            VectorRef::Multi(MultiRef { values, .. }) => size_of_val(values),
        }
    }

    /// Name of the kind, for errors.
    pub fn kind(self) -> &'static str {
        match self {
            VectorRef::Dense(_) => "dense",
            VectorRef::Sparse(_) => "sparse",
            VectorRef::Multi(_) => "multi",
        }
    }
}

impl<'a> MultiRef<'a> {
    /// How many vectors there are.
    pub fn len(self) -> usize {
        self.values.len() / self.dim
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.values.is_empty()
    }

    /// The vectors.
    pub fn vectors(self) -> std::slice::ChunksExact<'a, f32> {
        self.values.chunks_exact(self.dim)
    }
}

/// The numbers of a vector, brought to the precision of a datatype where it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Datatype {
    /// 32-bit floats, kept as they come.
    #[default]
    Float32,
    /// 16-bit floats (IEEE 754 binary16): rounded to the nearest.
    Float16,
    /// Whole numbers from 0 to 255: what is behind the point is cut off, what is beyond the range becomes its end.
    Uint8,
}

impl Datatype {
    /// The values as they are stored.
    pub fn stored(self, values: &[f32]) -> Cow<'_, [f32]> {
        match self {
            Datatype::Float32 => Cow::Borrowed(values),
            Datatype::Float16 => Cow::Owned(values.iter().map(|value| to_half(*value)).collect()),
            Datatype::Uint8 => Cow::Owned(values.iter().map(|value| f32::from(*value as u8)).collect()),
        }
    }
}

/// Largest finite 16-bit float.
const HALF_MAX: f32 = 65_504.0;

/// The nearest 16-bit float, ties to even; what is beyond the range becomes its end, so that it stays finite.
fn to_half(value: f32) -> f32 {
    let size = value.abs();
    if size >= HALF_MAX {
        return HALF_MAX.copysign(value);
    }
    // Adding a number whose last bit counts as much as the half's makes the processor round there: 10 bits of fraction, and
    // subnormal ones below 2^-14 with a last bit of 2^-24.
    let exponent = ((size.to_bits() >> 23) as i32 - 127).max(-14);
    let magic = f32::from_bits(((exponent + 13 + 127) as u32) << 23) * 1.5;
    ((size + magic) - magic).min(HALF_MAX).copysign(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dimensions_are_sorted_and_come_once() {
        let sorted = SparseVector::from_pairs(vec![9, 1, 4], vec![2.0, 1.0, -1.0]).unwrap();
        assert_eq!(sorted, SparseVector { indices: vec![1, 4, 9], values: vec![1.0, -1.0, 2.0] });
        assert_eq!(SparseVector::from_pairs(vec![3, 1, 3], vec![1.0; 3]), Err(3));
    }

    #[test]
    fn halves_are_the_nearest() {
        for (value, half) in [
            (0.0, 0.0),
            (1.0, 1.0),
            (0.1, 0.099_975_586),
            (-0.1, -0.099_975_586),
            (2049.0, 2048.0),
            (2051.0, 2052.0),
            (1e9, HALF_MAX),
            (-1e9, -HALF_MAX),
            (65_503.9, HALF_MAX),
            (5.960_464_5e-8, 5.960_464_5e-8),
            (2e-8, 0.0),
        ] {
            assert_eq!(to_half(value), half, "{value}");
        }
        assert_eq!(Datatype::Uint8.stored(&[1.9, -3.0, 300.0, 255.0]).as_ref(), [1.0, 0.0, 255.0, 255.0]);
    }

    proptest! {
        #[test]
        fn a_half_stays_what_it_is_and_is_near(value in -70_000.0f32..70_000.0) {
            let half = to_half(value);
            prop_assert_eq!(to_half(half).to_bits(), half.to_bits());
            prop_assert!(value.abs() > HALF_MAX || (half - value).abs() <= value.abs() / 2048.0 + 3e-8);
        }
    }
}
