//! Points as clients send them, checked against the collection once; behind this they are trusted.

use vicinal_common::collection::{CollectionSchema, VectorSchema};
use vicinal_common::error::{Error, Result};
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId, UNNAMED, Vectors};

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
    Single(Vec<f32>),
    /// Vectors by name, in the order sent; no name twice.
    Named(Vec<(String, Vec<f32>)>),
}

/// Checks one vector and brings it into the form it is stored and searched in. `BadInput` for a wrong dimension or a
/// value that is not a finite number.
pub fn check_vector(vector: &mut [f32], schema: &VectorSchema) -> Result<()> {
    if vector.len() != schema.dim {
        let (expected, got) = (schema.dim, vector.len());
        return Err(Error::BadInput(format!("Vector dimension error: expected dim: {expected}, got {got}")));
    }
    if let Some(position) = vector.iter().position(|value| !value.is_finite()) {
        return Err(Error::BadInput(format!("vector value at position {position} is not a finite 32-bit number")));
    }
    schema.metric.prepare(vector);
    Ok(())
}

/// Checks a point against the collection. Errors name the point.
pub fn check_point(schema: &CollectionSchema, input: PointInput) -> Result<Point> {
    let PointInput { id, vector, payload } = input;
    Ok(Point { id, vectors: check_vectors(schema, id, vector)?, payload })
}

/// Checks the vectors of a point against the collection. Errors name the point.
pub fn check_vectors(schema: &CollectionSchema, id: PointId, input: VectorInput) -> Result<Vectors> {
    let named = |name: String, mut vector: Vec<f32>| {
        let unknown = || Error::BadInput(format!("Not existing vector name error: {name}"));
        check_vector(&mut vector, schema.vectors.get(&name).ok_or_else(unknown)?)?;
        Ok::<_, Error>((name, vector))
    };
    let vectors: Result<Vectors> = match input {
        VectorInput::Single(vector) => named(UNNAMED.to_owned(), vector).map(|named| Vectors::from([named])),
        VectorInput::Named(vectors) => vectors.into_iter().map(|(name, vector)| named(name, vector)).collect(),
    };
    vectors.map_err(|error| error.with_note(&format!("point {id}")))
}
