//! The body of an upsert: a list of points, or columns.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use vicinal_common::api::UpdateMode;
use vicinal_common::collection::CollectionSchema;
use vicinal_common::error::Error;
use vicinal_common::filter::Filter;
use vicinal_common::limits::BATCH_POINTS_MAX;
use vicinal_common::payload::{Fields, Payload};
use vicinal_common::point::{Point, PointId};
use vicinal_common::vector::Vector;

use super::super::answer::Failure;
use super::Unsupported;
use super::update::{UpdateBody, one_of};
use super::vector::{BatchVectors, PointVector};
use crate::write::{PointInput, Update, VectorInput, check_point};

/// Body of an upsert.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct UpsertBody {
    points: Option<Bounded<PointBody>>,
    batch: Option<BatchBody>,
    #[serde(default)]
    shard_key: Unsupported,
    update_filter: Option<Filter>,
    update_mode: Option<UpdateMode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PointBody {
    id: PointId,
    vector: PointVector,
    #[serde(default)]
    payload: PayloadBody,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    ids: Bounded<PointId>,
    vectors: BatchVectors,
    payloads: Option<Bounded<PayloadBody>>,
}

impl UpdateBody for UpsertBody {
    fn into_update(self, schema: &CollectionSchema) -> Result<Update, Failure> {
        self.shard_key.refuse("shard_key")?;
        let inputs = match (self.points, self.batch) {
            (Some(Bounded(points)), None) => {
                let point =
                    |body: PointBody| PointInput { id: body.id, vector: body.vector.0, payload: body.payload.0 };
                points.into_iter().map(point).collect()
            }
            (None, Some(batch)) => batch.into_points()?,
            (None, None) | (Some(_), Some(_)) => return Err(one_of("points", "batch")),
        };
        let points: Result<Vec<Point>, Error> = inputs.into_iter().map(|input| check_point(schema, input)).collect();
        Ok(Update::Upsert { points: points?, mode: self.update_mode.unwrap_or_default(), filter: self.update_filter })
    }
}

impl BatchBody {
    fn into_points(self) -> Result<Vec<PointInput>, Failure> {
        let Bounded(ids) = self.ids;
        let points = ids.len();
        let check = |what: &str, count: usize| match count == points {
            true => Ok(()),
            false => Err(Error::Validation {
                field: "batch".into(),
                message: format!("number of ids ({points}) and {what} ({count}) must be equal"),
            }),
        };
        let mut inputs: Vec<VectorInput> = Vec::with_capacity(points);
        match self.vectors {
            BatchVectors::Single(vectors) => {
                check("vectors", vectors.len())?;
                inputs.extend(vectors.into_iter().map(VectorInput::Single));
            }
            BatchVectors::Named(columns) => {
                let mut named: Vec<Vec<(String, Vector)>> = vec![Vec::with_capacity(columns.len()); points];
                for (name, column) in columns {
                    check(&format!("vectors `{name}`"), column.len())?;
                    for (of_point, vector) in named.iter_mut().zip(column) {
                        of_point.push((name.clone(), vector));
                    }
                }
                inputs.extend(named.into_iter().map(VectorInput::Named));
            }
        }
        let payloads = match self.payloads {
            Some(Bounded(payloads)) => {
                check("payloads", payloads.len())?;
                payloads
            }
            None => vec![PayloadBody::default(); points],
        };
        let columns = ids.into_iter().zip(inputs).zip(payloads);
        Ok(columns.map(|((id, vector), PayloadBody(payload))| PointInput { id, vector, payload }).collect())
    }
}

/// A payload: parsed once, kept as compact text. `null` is the empty one.
#[derive(Clone, Default)]
pub(super) struct PayloadBody(pub(super) Payload);

impl<'de> Deserialize<'de> for PayloadBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PayloadBody, D::Error> {
        let Some(fields) = Option::<Fields>::deserialize(deserializer)? else { return Ok(PayloadBody::default()) };
        Payload::from_fields(&fields).map(PayloadBody).map_err(|error| match error {
            Error::BadInput(text) => de::Error::custom(text),
            other => de::Error::custom(other),
        })
    }
}

/// A list of at most [`BATCH_POINTS_MAX`] items; a longer one is refused while it is read.
pub(super) struct Bounded<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bounded<T>, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor(std::marker::PhantomData))
    }
}

struct BoundedVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedVisitor<T> {
    type Value = Bounded<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {BATCH_POINTS_MAX} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bounded<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == BATCH_POINTS_MAX {
                return Err(de::Error::custom(format!("more than {BATCH_POINTS_MAX} points in one request")));
            }
            items.push(item);
        }
        Ok(Bounded(items))
    }
}
