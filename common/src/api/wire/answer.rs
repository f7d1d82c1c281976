//! What shards answer to reads.

use std::collections::BTreeMap;

use super::goal::VECTOR_LEAST;
use super::query::ID_LEAST;
use super::{Reader, Wire, Writer};
use crate::api::{FacetCount, FacetValue, Frequencies, OrderValue, ShardAnswer, ShardDigest, ShardHit, StoredPoint};
use crate::error::{Error, Result};
use crate::ids::{LogIndex, ShardId};
use crate::payload::Payload;
use crate::point::{PointId, Vectors};
use crate::vector::Vector;

/// Least bytes of one shard's answer: shard, applied, and a result of one byte and something.
const ANSWER_LEAST: usize = 8 + 8 + 1;
/// Least bytes of a hit.
const HIT_LEAST: usize = 4 + 8 + ID_LEAST;
/// Least bytes of a stored point: id, version, payload, number of vectors, whether it has a value of an order.
const POINT_LEAST: usize = ID_LEAST + 8 + 4 + 4 + 1;
/// Least bytes of a counted value: kind, value, count.
const FACET_LEAST: usize = 1 + 1 + 8;

impl<T: Wire> Wire for Vec<ShardAnswer<T>> {
    fn put(&self, to: &mut Writer) {
        to.count(self.len());
        for answer in self {
            to.u64(answer.shard.0);
            to.u64(answer.applied.0);
            to.u8(u8::from(answer.result.is_err()));
            match &answer.result {
                Ok(result) => result.put(to),
                Err(error) => error.put(to),
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Vec<ShardAnswer<T>>> {
        from.list(ANSWER_LEAST, |from| {
            let (shard, applied) = (ShardId(from.u64()?), LogIndex(from.u64()?));
            let result = match from.u8()? {
                0 => Ok(T::read(from)?),
                1 => Err(Error::read(from)?),
                _ => return Err(from.broken("a result is neither good nor bad")),
            };
            Ok(ShardAnswer { shard, applied, result })
        })
    }
}

impl Wire for Vec<Vec<ShardHit>> {
    fn put(&self, to: &mut Writer) {
        to.count(self.len());
        for hits in self {
            to.count(hits.len());
            for hit in hits {
                to.f32(hit.distance);
                to.u64(hit.version.0);
                hit.id.put(to);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Vec<Vec<ShardHit>>> {
        let hit = |from: &mut Reader<'_>| {
            let (distance, version) = (from.f32()?, LogIndex(from.u64()?));
            Ok(ShardHit { distance, version, id: PointId::read(from)? })
        };
        from.list(4, |from| from.list(HIT_LEAST, hit))
    }
}

impl Wire for Vec<StoredPoint> {
    fn put(&self, to: &mut Writer) {
        to.count(self.len());
        for point in self {
            point.id.put(to);
            to.u64(point.version.0);
            to.bytes(point.payload.as_bytes());
            put_vectors(&point.vectors, to);
            match point.order {
                None => to.u8(0),
                Some(OrderValue::Integer(integer)) => {
                    to.u8(1);
                    to.raw(&integer.to_le_bytes());
                }
                Some(OrderValue::Float(float)) => {
                    to.u8(2);
                    to.u64(float.to_bits());
                }
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Vec<StoredPoint>> {
        from.list(POINT_LEAST, |from| {
            let (id, version) = (PointId::read(from)?, LogIndex(from.u64()?));
            // Points read go into one answer and are gone: they may share the frame.
            let payload = Payload::from_stored(from.shared_bytes()?);
            let vectors = take_vectors(from)?;
            let order = match from.u8()? {
                0 => None,
                1 => Some(OrderValue::Integer(from.u64()? as i64)),
                2 => Some(OrderValue::Float(f64::from_bits(from.u64()?))),
                other => return Err(from.broken(&format!("order value of kind {other} is not known here"))),
            };
            Ok(StoredPoint { id, version, payload, vectors, order })
        })
    }
}

impl Wire for Vec<FacetCount> {
    fn put(&self, to: &mut Writer) {
        to.count(self.len());
        for FacetCount { value, count } in self {
            match value {
                FacetValue::Bool(truth) => {
                    to.u8(0);
                    to.u8(u8::from(*truth));
                }
                FacetValue::Integer(integer) => {
                    to.u8(1);
                    to.raw(&integer.to_le_bytes());
                }
                FacetValue::Keyword(keyword) => {
                    to.u8(2);
                    to.bytes(keyword.as_bytes());
                }
            }
            to.u64(*count);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Vec<FacetCount>> {
        from.list(FACET_LEAST, |from| {
            let value = match from.u8()? {
                0 => FacetValue::Bool(from.u8()? != 0),
                1 => FacetValue::Integer(from.u64()? as i64),
                2 => FacetValue::Keyword(from.text()?.to_owned()),
                other => return Err(from.broken(&format!("value of kind {other} is not known here"))),
            };
            Ok(FacetCount { value, count: from.u64()? })
        })
    }
}

impl Wire for Frequencies {
    fn put(&self, to: &mut Writer) {
        to.u64(self.points);
        to.count(self.of.len());
        self.of.iter().for_each(|count| to.u64(*count));
    }

    fn read(from: &mut Reader<'_>) -> Result<Frequencies> {
        Ok(Frequencies { points: from.u64()?, of: from.list(8, |from| from.u64())? })
    }
}

impl Wire for u64 {
    fn put(&self, to: &mut Writer) {
        to.u64(*self);
    }

    fn read(from: &mut Reader<'_>) -> Result<u64> {
        from.u64()
    }
}

impl Wire for ShardDigest {
    fn put(&self, to: &mut Writer) {
        to.u64(self.points);
        to.u64(self.digest);
    }

    fn read(from: &mut Reader<'_>) -> Result<ShardDigest> {
        Ok(ShardDigest { points: from.u64()?, digest: from.u64()? })
    }
}

pub(super) fn put_vectors(vectors: &Vectors, to: &mut Writer) {
    to.count(vectors.len());
    for (name, vector) in vectors {
        to.bytes(name.as_bytes());
        vector.put(to);
    }
}

pub(super) fn take_vectors(from: &mut Reader<'_>) -> Result<Vectors> {
    let named = from.list(4 + VECTOR_LEAST, |from| Ok((from.text()?.to_owned(), Vector::read(from)?)))?;
    Ok(BTreeMap::from_iter(named))
}
