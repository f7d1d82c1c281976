//! What shards answer to reads.

use std::collections::BTreeMap;

use super::query::ID_LEAST;
use super::{Reader, Wire, Writer};
use crate::api::{ShardAnswer, ShardDigest, ShardHit, StoredPoint};
use crate::error::{Error, Result};
use crate::ids::{LogIndex, ShardId};
use crate::payload::Payload;
use crate::point::{PointId, Vectors};

/// Least bytes of one shard's answer: shard, applied, and a result of one byte and something.
const ANSWER_LEAST: usize = 8 + 8 + 1;
/// Least bytes of a hit.
const HIT_LEAST: usize = 4 + 8 + ID_LEAST;
/// Least bytes of a stored point: id, version, payload, number of vectors.
const POINT_LEAST: usize = ID_LEAST + 8 + 4 + 4;

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
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Vec<StoredPoint>> {
        from.list(POINT_LEAST, |from| {
            let (id, version) = (PointId::read(from)?, LogIndex(from.u64()?));
            // Points read go into one answer and are gone: they may share the frame.
            let payload = Payload::from_stored(from.shared_bytes()?);
            Ok(StoredPoint { id, version, payload, vectors: take_vectors(from)? })
        })
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
        to.floats(vector);
    }
}

pub(super) fn take_vectors(from: &mut Reader<'_>) -> Result<Vectors> {
    let named = from.list(8, |from| Ok((from.text()?.to_owned(), from.floats()?)))?;
    Ok(BTreeMap::from_iter(named))
}
