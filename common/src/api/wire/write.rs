//! Writes and their acknowledgement.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::answer::{put_vectors, take_vectors};
use super::query::ID_LEAST;
use super::{Operation, Reader, Request, Wire, Writer};
use crate::api::{Effect, LoggedFilter, WriteAck, WriteOp, WriteRequest};
use crate::error::Result;
use crate::ids::{CollectionId, Epoch, LogIndex, MapVersion, RequestId, ShardId};
use crate::payload::Payload;
use crate::point::{Point, PointId};
use crate::publish::{Copies, Copy, Misplaced};

/// Least bytes of a point: id, payload, number of vectors.
const POINT_LEAST: usize = ID_LEAST + 4 + 4;

impl Wire for WriteRequest {
    fn put(&self, to: &mut Writer) {
        to.raw(&self.request.0.to_le_bytes());
        to.u32(self.part);
        self.collection.put(to);
        to.u64(self.epoch.0);
        to.u64(self.shard.0);
        self.op.put(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<WriteRequest> {
        Ok(WriteRequest {
            request: RequestId(u128::from_le_bytes(from.sixteen()?)),
            part: from.u32()?,
            collection: CollectionId::read(from)?,
            epoch: Epoch(from.u64()?),
            shard: ShardId(from.u64()?),
            op: WriteOp::read(from)?,
            deadline: from.deadline()?,
        })
    }
}

impl Request for WriteRequest {
    const OPERATION: Operation = Operation::Write;
    type Answer = WriteAck;

    fn deadline(&self) -> Option<Instant> {
        Some(self.deadline)
    }
}

impl Wire for WriteOp {
    fn put(&self, to: &mut Writer) {
        match self {
            WriteOp::Upsert(points) => {
                to.u8(0);
                to.count(points.len());
                points.iter().for_each(|point| put_point(point, to));
            }
            WriteOp::Delete(ids) => {
                to.u8(1);
                to.count(ids.len());
                ids.iter().for_each(|id| id.put(to));
            }
            WriteOp::DeleteByFilter(filter) => {
                to.u8(2);
                to.u32(filter.evaluator);
                to.bytes(filter.json.as_bytes());
            }
            WriteOp::Copies(copies) => {
                to.u8(4);
                to.count(copies.points.len());
                for copy in &copies.points {
                    to.u64(copy.version.0);
                    put_point(&copy.point, to);
                }
                put_pairs(&copies.gone, to);
                to.u8(u8::from(copies.misplaced.is_some()));
                if let Some(misplaced) = &copies.misplaced {
                    to.u64(misplaced.map.0);
                    put_pairs(&misplaced.pairs, to);
                }
            }
            WriteOp::ConditionalUpsert { .. }
            | WriteOp::UpdateVectors { .. }
            | WriteOp::Edit { .. }
            | WriteOp::Maps(_)
            | WriteOp::Feed(_) => {
                to.u8(3);
                to.postcard(self);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<WriteOp> {
        Ok(match from.u8()? {
            0 => WriteOp::Upsert(Arc::new(from.list(POINT_LEAST, take_point)?)),
            1 => WriteOp::Delete(from.list(ID_LEAST, PointId::read)?),
            2 => WriteOp::DeleteByFilter(LoggedFilter { evaluator: from.u32()?, json: from.text()?.to_owned() }),
            3 => from.postcard()?,
            4 => {
                let copy = |from: &mut Reader<'_>| {
                    let version = LogIndex(from.u64()?);
                    Ok(Copy { version, point: take_point(from)? })
                };
                let (points, gone) = (from.list(8 + POINT_LEAST, copy)?, take_pairs(from)?);
                let misplaced = match from.u8()? {
                    0 => None,
                    1 => Some(Misplaced { map: MapVersion(from.u64()?), pairs: take_pairs(from)? }),
                    other => return Err(from.broken(&format!("presence of misplaced copies is {other}"))),
                };
                WriteOp::Copies(Arc::new(Copies { points, gone, misplaced }))
            }
            other => return Err(from.broken(&format!("write of kind {other} is not known here"))),
        })
    }
}

impl Wire for WriteAck {
    fn put(&self, to: &mut Writer) {
        to.u64(self.index.0);
        to.u64(self.term);
        to.u64(self.effect.affected);
        for id in [self.effect.missing, self.effect.next] {
            to.u8(u8::from(id.is_some()));
            id.iter().for_each(|id| id.put(to));
        }
        to.count(self.copies.len());
        for (shard, index) in &self.copies {
            to.u64(shard.0);
            to.u64(index.0);
        }
        to.u64(self.map.0);
    }

    fn read(from: &mut Reader<'_>) -> Result<WriteAck> {
        let (index, term, affected) = (LogIndex(from.u64()?), from.u64()?, from.u64()?);
        let effect = Effect { affected, missing: optional_id(from)?, next: optional_id(from)? };
        let copies = from.list(16, |from| Ok((ShardId(from.u64()?), LogIndex(from.u64()?))))?;
        Ok(WriteAck { index, term, effect, copies, map: MapVersion(from.u64()?) })
    }
}

fn put_point(point: &Point, to: &mut Writer) {
    point.id.put(to);
    to.bytes(point.payload.as_bytes());
    put_vectors(&point.vectors, to);
}

fn take_point(from: &mut Reader<'_>) -> Result<Point> {
    let id = PointId::read(from)?;
    // A copy: the shard may keep the payload for long, and the rest of the frame would stay with it.
    let payload = Payload::from_stored(Bytes::copy_from_slice(from.bytes()?));
    Ok(Point { id, payload, vectors: take_vectors(from)? })
}

fn put_pairs(pairs: &[(PointId, LogIndex)], to: &mut Writer) {
    to.count(pairs.len());
    for (id, version) in pairs {
        id.put(to);
        to.u64(version.0);
    }
}

fn take_pairs(from: &mut Reader<'_>) -> Result<Vec<(PointId, LogIndex)>> {
    from.list(ID_LEAST + 8, |from| Ok((PointId::read(from)?, LogIndex(from.u64()?))))
}

fn optional_id(from: &mut Reader<'_>) -> Result<Option<PointId>> {
    Ok(match from.u8()? {
        0 => None,
        1 => Some(PointId::read(from)?),
        other => return Err(from.broken(&format!("presence of an id is {other}"))),
    })
}
