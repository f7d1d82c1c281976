//! Points as clients send them, checked against the collection once; behind this they are trusted.

use std::borrow::Cow;

use vicinal_common::collection::{CollectionSchema, VectorKind, VectorSchema};
use vicinal_common::error::{Error, Result};
use vicinal_common::limits::{MULTIVECTOR_MAX, MULTIVECTOR_VALUES_MAX, SPARSE_VALUES_MAX};
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId, UNNAMED, Vectors};
use vicinal_common::vector::{MultiVector, Vector};

/// A point as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct PointInput {
    /// The id.
    pub id: PointId,
    /// Its vectors.
    pub vector: VectorInput,
    /// Its payload, empty when there is none.
    pub payload: Payload,
}

/// The vectors of a point as they were sent.
#[derive(Clone, Debug, PartialEq)]
pub enum VectorInput {
    /// One vector without a name.
    Single(Vector),
    /// Vectors by name, in the order sent; no name twice.
    Named(Vec<(String, Vector)>),
}

/// Checks one vector and brings it into the form it is stored and searched in. `BadInput` for another kind than the
/// collection has, a wrong dimension, or a value that is not a finite number.
pub fn check_vector(vector: Vector, schema: &VectorSchema) -> Result<Vector> {
    match (vector, schema.kind) {
        (Vector::Dense(mut values), VectorKind::Dense) => {
            prepare(&mut values, schema)?;
            Ok(Vector::Dense(values))
        }
        (Vector::Multi(MultiVector { dim, mut values }), VectorKind::Multi) => {
            let count = values.len() / dim.max(1);
            if count == 0 {
                return Err(Error::BadInput("a multivector must have at least one vector".into()));
            }
            if count > MULTIVECTOR_MAX || values.len() > MULTIVECTOR_VALUES_MAX {
                let text = format!("a multivector has {count} vectors of {dim} values");
                return Err(Error::BadInput(format!(
                    "{text}, the limit is {MULTIVECTOR_MAX} vectors and {MULTIVECTOR_VALUES_MAX} values in all"
                )));
            }
            values.chunks_mut(dim).try_for_each(|vector| prepare(vector, schema))?;
            Ok(Vector::Multi(MultiVector { dim, values }))
        }
        (Vector::Sparse(mut sparse), VectorKind::Sparse { .. }) => {
            if sparse.values.len() > SPARSE_VALUES_MAX {
                let count = sparse.values.len();
                let text = format!("a sparse vector has {count} values, the limit is {SPARSE_VALUES_MAX}");
                return Err(Error::BadInput(text));
            }
            check_finite(&sparse.values)?;
            sparse.values = schema.datatype.stored(&sparse.values).into_owned();
            Ok(Vector::Sparse(sparse))
        }
        (vector, VectorKind::Dense | VectorKind::Multi | VectorKind::Sparse { .. }) => {
            let expected = match schema.kind {
                VectorKind::Dense => "a dense vector, a list of numbers",
                VectorKind::Multi => "a multivector, a list of vectors",
                VectorKind::Sparse { .. } => "a sparse vector, an object of indices and values",
            };
            let got = vector.as_ref().kind();
            Err(Error::BadInput(format!("Wrong kind of vector: expected {expected}, got a {got} one")))
        }
    }
}

fn check_finite(values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(position) => {
            Err(Error::BadInput(format!("vector value at position {position} is not a finite 32-bit number")))
        }
        None => Ok(()),
    }
}

/// Checks one dense vector and brings it into its form.
fn prepare(values: &mut [f32], schema: &VectorSchema) -> Result<()> {
    if values.len() != schema.dim {
        let (expected, got) = (schema.dim, values.len());
        return Err(Error::BadInput(format!("Vector dimension error: expected dim: {expected}, got {got}")));
    }
    check_finite(values)?;
    schema.metric.prepare(values);
    if let Cow::Owned(stored) = schema.datatype.stored(values) {
        values.copy_from_slice(&stored);
    }
    Ok(())
}

/// Checks a point against the collection. Errors name the point.
pub fn check_point(schema: &CollectionSchema, input: PointInput) -> Result<Point> {
    let PointInput { id, vector, payload } = input;
    Ok(Point { id, vectors: check_vectors(schema, id, vector)?, payload })
}

/// Checks the vectors of a point against the collection. Errors name the point.
pub fn check_vectors(schema: &CollectionSchema, id: PointId, input: VectorInput) -> Result<Vectors> {
    let named = |name: String, vector: Vector| {
        let unknown = || Error::BadInput(format!("Not existing vector name error: {name}"));
        let vector = check_vector(vector, schema.vectors.get(&name).ok_or_else(unknown)?)?;
        Ok::<_, Error>((name, vector))
    };
    let vectors: Result<Vectors> = match input {
        VectorInput::Single(vector) => named(UNNAMED.to_owned(), vector).map(|named| Vectors::from([named])),
        VectorInput::Named(vectors) => vectors.into_iter().map(|(name, vector)| named(name, vector)).collect(),
    };
    vectors.map_err(|error| error.with_note(&format!("point {id}")))
}
