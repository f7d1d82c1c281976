//! Bodies that change points, other than an upsert's, and several changes in one body.

use std::fmt;
use std::marker::PhantomData;

use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use vicinal_common::api::{PointEdit, PointVectors};
use vicinal_common::collection::CollectionSchema;
use vicinal_common::error::Error;
use vicinal_common::filter::{Filter, KeyPath};
use vicinal_common::limits::{BATCH_OPERATIONS_MAX, EDIT_KEYS_MAX, KEY_PATH_BYTES_MAX};
use vicinal_common::payload::Payload;
use vicinal_common::point::PointId;

use super::super::answer::Failure;
use super::Unsupported;
use super::points::{Bounded, PayloadBody, UpsertBody};
use super::vector::PointVector;
use crate::write::{Targets, Update, check_vectors};

/// A body that changes points.
pub(in super::super) trait UpdateBody: DeserializeOwned + 'static {
    /// The change, checked against the collection.
    fn into_update(self, schema: &CollectionSchema) -> Result<Update, Failure>;
}

/// Refuses a body that must have one of two fields and has both or none.
pub(super) fn one_of(a: &str, b: &str) -> Failure {
    let text = format!("Format error in JSON body: expected exactly one of `{a}` and `{b}`");
    Failure::new(StatusCode::BAD_REQUEST, text)
}

fn targets(
    points: Option<Bounded<PointId>>,
    filter: Option<Filter>,
    shard_key: Unsupported,
) -> Result<Targets, Failure> {
    shard_key.refuse("shard_key")?;
    match (points, filter) {
        (Some(Bounded(ids)), None) => Ok(Targets::Ids(ids)),
        (None, Some(filter)) => Ok(Targets::Matching(filter)),
        (None, None) | (Some(_), Some(_)) => Err(one_of("points", "filter")),
    }
}

/// Refuses a key path that cannot be read, and one that is too long.
pub(super) fn check_key(field: &str, key: &str) -> Result<(), Error> {
    let validation = |message| Error::Validation { field: field.into(), message };
    if key.len() > KEY_PATH_BYTES_MAX {
        let bytes = key.len();
        return Err(validation(format!("a key path of {bytes} bytes, the limit is {KEY_PATH_BYTES_MAX}")));
    }
    KeyPath::parse(key).map(drop).map_err(|text| Error::BadInput(format!("`{field}`: {text}")))
}

fn check_count(field: &str, count: usize) -> Result<(), Failure> {
    match count {
        1..=EDIT_KEYS_MAX => Ok(()),
        _ => {
            let message = format!("has {count} items, from 1 to {EDIT_KEYS_MAX} are possible");
            Err(Error::Validation { field: field.into(), message }.into())
        }
    }
}

/// Body of a delete.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct DeleteBody {
    points: Option<Bounded<PointId>>,
    filter: Option<Filter>,
    #[serde(default)]
    shard_key: Unsupported,
}

impl UpdateBody for DeleteBody {
    fn into_update(self, _: &CollectionSchema) -> Result<Update, Failure> {
        Ok(Update::Delete(targets(self.points, self.filter, self.shard_key)?))
    }
}

/// Body of a request that removes payloads whole.
#[derive(Deserialize)]
#[serde(transparent)]
pub(in super::super) struct ClearPayloadBody(DeleteBody);

impl UpdateBody for ClearPayloadBody {
    fn into_update(self, _: &CollectionSchema) -> Result<Update, Failure> {
        let DeleteBody { points, filter, shard_key } = self.0;
        Ok(Update::Edit { targets: targets(points, filter, shard_key)?, edit: PointEdit::ClearPayload })
    }
}

/// Body of a request that sets fields of payloads.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct SetPayloadBody {
    /// Neither left out nor null: only in an upsert does that mean that there is none.
    payload: Option<PayloadBody>,
    points: Option<Bounded<PointId>>,
    filter: Option<Filter>,
    #[serde(default)]
    shard_key: Unsupported,
    key: Option<String>,
}

fn needed(payload: Option<PayloadBody>) -> Result<Payload, Failure> {
    let missing = || Failure::new(StatusCode::BAD_REQUEST, "Format error in JSON body: missing field `payload`");
    payload.map(|payload| payload.0).ok_or_else(missing)
}

impl UpdateBody for SetPayloadBody {
    fn into_update(self, _: &CollectionSchema) -> Result<Update, Failure> {
        if let Some(key) = &self.key {
            check_key("key", key)?;
        }
        let edit = PointEdit::SetPayload { payload: needed(self.payload)?, key: self.key };
        Ok(Update::Edit { targets: targets(self.points, self.filter, self.shard_key)?, edit })
    }
}

/// Body of a request that replaces payloads.
#[derive(Deserialize)]
#[serde(transparent)]
pub(in super::super) struct OverwritePayloadBody(SetPayloadBody);

impl UpdateBody for OverwritePayloadBody {
    fn into_update(self, _: &CollectionSchema) -> Result<Update, Failure> {
        let SetPayloadBody { payload, points, filter, shard_key, key } = self.0;
        if key.is_some() {
            let text = "`key` has no meaning where the whole payload is replaced: set the payload at that key instead";
            return Err(Error::BadInput(text.into()).into());
        }
        let edit = PointEdit::OverwritePayload(needed(payload)?);
        Ok(Update::Edit { targets: targets(points, filter, shard_key)?, edit })
    }
}

/// Body of a request that removes fields of payloads.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct DeletePayloadBody {
    keys: Vec<String>,
    points: Option<Bounded<PointId>>,
    filter: Option<Filter>,
    #[serde(default)]
    shard_key: Unsupported,
}

impl UpdateBody for DeletePayloadBody {
    fn into_update(self, _: &CollectionSchema) -> Result<Update, Failure> {
        check_count("keys", self.keys.len())?;
        self.keys.iter().try_for_each(|key| check_key("keys", key))?;
        let targets = targets(self.points, self.filter, self.shard_key)?;
        Ok(Update::Edit { targets, edit: PointEdit::DeletePayload(self.keys) })
    }
}

/// Body of a request that replaces some vectors of points.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct UpdateVectorsBody {
    points: Bounded<PointVectorsBody>,
    #[serde(default)]
    shard_key: Unsupported,
    update_filter: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PointVectorsBody {
    id: PointId,
    vector: PointVector,
}

impl UpdateBody for UpdateVectorsBody {
    fn into_update(self, schema: &CollectionSchema) -> Result<Update, Failure> {
        self.shard_key.refuse("shard_key")?;
        let Bounded(points) = self.points;
        if points.is_empty() {
            let message = "must specify points to update".into();
            return Err(Error::Validation { field: "points".into(), message }.into());
        }
        let checked =
            |PointVectorsBody { id, vector }| Ok(PointVectors { id, vectors: check_vectors(schema, id, vector.0)? });
        let points: Result<Vec<PointVectors>, Error> = points.into_iter().map(checked).collect();
        Ok(Update::UpdateVectors { points: points?, filter: self.update_filter })
    }
}

/// Body of a request that removes vectors of points.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct DeleteVectorsBody {
    vector: Vec<String>,
    points: Option<Bounded<PointId>>,
    filter: Option<Filter>,
    #[serde(default)]
    shard_key: Unsupported,
}

impl UpdateBody for DeleteVectorsBody {
    fn into_update(self, schema: &CollectionSchema) -> Result<Update, Failure> {
        let targets = targets(self.points, self.filter, self.shard_key)?;
        check_count("vector", self.vector.len())?;
        if let Some(name) = self.vector.iter().find(|name| !schema.vectors.contains_key(*name)) {
            return Err(Error::BadInput(format!("Not existing vector name error: {name}")).into());
        }
        Ok(Update::Edit { targets, edit: PointEdit::DeleteVectors(self.vector) })
    }
}

/// An object, and no array of its fields in the order they are declared in.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Several changes, one after the other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct BatchUpdateBody {
    operations: Vec<OperationBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum OperationBody {
    Upsert(Object<UpsertBody>),
    Delete(Object<DeleteBody>),
    SetPayload(Object<SetPayloadBody>),
    OverwritePayload(Object<OverwritePayloadBody>),
    DeletePayload(Object<DeletePayloadBody>),
    ClearPayload(Object<ClearPayloadBody>),
    UpdateVectors(Object<UpdateVectorsBody>),
    DeleteVectors(Object<DeleteVectorsBody>),
}

impl BatchUpdateBody {
    /// The changes, all checked.
    pub(in super::super) fn into_updates(self, schema: &CollectionSchema) -> Result<Vec<Update>, Failure> {
        let count = self.operations.len();
        if count > BATCH_OPERATIONS_MAX {
            let message = format!("has {count} items, {BATCH_OPERATIONS_MAX} are possible");
            return Err(Error::Validation { field: "operations".into(), message }.into());
        }
        let update = |operation| match operation {
            OperationBody::Upsert(Object(body)) => body.into_update(schema),
            OperationBody::Delete(Object(body)) => body.into_update(schema),
            OperationBody::SetPayload(Object(body)) => body.into_update(schema),
            OperationBody::OverwritePayload(Object(body)) => body.into_update(schema),
            OperationBody::DeletePayload(Object(body)) => body.into_update(schema),
            OperationBody::ClearPayload(Object(body)) => body.into_update(schema),
            OperationBody::UpdateVectors(Object(body)) => body.into_update(schema),
            OperationBody::DeleteVectors(Object(body)) => body.into_update(schema),
        };
        self.operations.into_iter().map(update).collect()
    }
}
