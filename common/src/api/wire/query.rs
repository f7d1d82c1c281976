//! The reading requests: search, retrieve, scroll, count, facet, frequencies, digest.

use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Operation, Reader, Request, Wire, Writer};
use crate::api::{
    CountRequest, DigestRequest, FacetCount, FacetRequest, Frequencies, FrequencyRequest, Goal, PointParts,
    ReadContext, RetrieveRequest, ScrollRequest, SearchQuery, SearchRequest, ShardAnswer, ShardDigest, ShardHit,
    StoredPoint, VectorSelector,
};
use crate::consistency::Consistency;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::ids::{CollectionId, Epoch, LogIndex, ShardId};
use crate::point::PointId;

// Which optional parts of a query follow, and how it is carried out.
const EXACT: u8 = 1;
const HAS_DISTANCE_MAX: u8 = 2;
const HAS_EF: u8 = 4;
const HAS_FILTER: u8 = 8;

/// Least bytes of a query: name, goal, k, flags.
const QUERY_LEAST: usize = 4 + 5 + 8 + 1;
/// Bytes of a shard and its floor.
const FLOOR: usize = 16;
/// Least bytes of a point id.
pub(super) const ID_LEAST: usize = 9;

impl Wire for CollectionId {
    fn put(&self, to: &mut Writer) {
        to.raw(self.0.as_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Result<CollectionId> {
        Ok(CollectionId(Uuid::from_bytes(from.sixteen()?)))
    }
}

/// The deadline is in the head of the request: as what is left of it.
impl Wire for ReadContext {
    fn put(&self, to: &mut Writer) {
        self.collection.put(to);
        to.u64(self.epoch.0);
        to.u8(match self.consistency {
            Consistency::ReadYourWrites => 0,
            Consistency::Linearizable => 1,
        });
        to.count(self.shards.len());
        for (shard, floor) in &self.shards {
            to.u64(shard.0);
            to.u64(floor.0);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<ReadContext> {
        let collection = CollectionId::read(from)?;
        let epoch = Epoch(from.u64()?);
        let consistency = match from.u8()? {
            0 => Consistency::ReadYourWrites,
            1 => Consistency::Linearizable,
            other => return Err(from.broken(&format!("consistency {other} is not known here"))),
        };
        let shards = from.list(FLOOR, |from| Ok((ShardId(from.u64()?), LogIndex(from.u64()?))))?;
        Ok(ReadContext { collection, epoch, shards, consistency, deadline: from.deadline()? })
    }
}

impl Wire for PointId {
    fn put(&self, to: &mut Writer) {
        let (bytes, length) = self.to_bytes();
        to.raw(&bytes[..length]);
    }

    fn read(from: &mut Reader<'_>) -> Result<PointId> {
        match from.u8()? {
            0 => Ok(PointId::Num(from.u64()?)),
            1 => Ok(PointId::Uuid(Uuid::from_bytes(from.sixteen()?))),
            other => Err(from.broken(&format!("point id of kind {other} is not known here"))),
        }
    }
}

/// A filter is its JSON text.
impl Wire for Filter {
    fn put(&self, to: &mut Writer) {
        // Writing a JSON value to memory cannot fail; the empty text that stood here otherwise is refused by the reader.
        to.bytes(&serde_json::to_vec(self).unwrap_or_default());
    }

    fn read(from: &mut Reader<'_>) -> Result<Filter> {
        let json = serde_json::from_slice(from.bytes()?);
        Filter::parse(&json.map_err(|error| from.broken(&format!("filter: {error}")))?)
    }
}

/// A byte that says whether a value follows.
impl<T: Wire> Wire for Option<T> {
    fn put(&self, to: &mut Writer) {
        to.u8(u8::from(self.is_some()));
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Option<T>> {
        match from.u8()? {
            0 => Ok(None),
            1 => T::read(from).map(Some),
            _ => Err(from.broken("a value is neither there nor missing")),
        }
    }
}

impl<T: Wire> Wire for Arc<T> {
    fn put(&self, to: &mut Writer) {
        T::put(self, to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Arc<T>> {
        T::read(from).map(Arc::new)
    }
}

impl Wire for SearchQuery {
    fn put(&self, to: &mut Writer) {
        to.bytes(self.vector_name.as_bytes());
        self.goal.put(to);
        to.u64(self.k as u64);
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        to.u8(flag(self.exact, EXACT)
            | flag(self.distance_max.is_some(), HAS_DISTANCE_MAX)
            | flag(self.ef.is_some(), HAS_EF)
            | flag(self.filter.is_some(), HAS_FILTER));
        if let Some(distance) = self.distance_max {
            to.f32(distance);
        }
        if let Some(ef) = self.ef {
            to.u64(ef as u64);
        }
        if let Some(filter) = &self.filter {
            filter.put(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<SearchQuery> {
        let vector_name = from.text()?.to_owned();
        let goal = Goal::read(from)?;
        let k = from.size()?;
        let flags = from.u8()?;
        if flags & !(EXACT | HAS_DISTANCE_MAX | HAS_EF | HAS_FILTER) != 0 {
            return Err(from.broken("a query has parts that are not known here"));
        }
        let has = |flag: u8| flags & flag != 0;
        let distance_max = if has(HAS_DISTANCE_MAX) { Some(from.f32()?) } else { None };
        let ef = if has(HAS_EF) { Some(from.size()?) } else { None };
        let filter = if has(HAS_FILTER) { Some(Arc::<Filter>::read(from)?) } else { None };
        Ok(SearchQuery { vector_name, goal, k, filter, distance_max, ef, exact: has(EXACT) })
    }
}

impl Wire for SearchRequest {
    fn put(&self, to: &mut Writer) {
        self.context.put(to);
        to.count(self.queries.len());
        self.queries.iter().for_each(|query| query.put(to));
    }

    fn read(from: &mut Reader<'_>) -> Result<SearchRequest> {
        let context = ReadContext::read(from)?;
        let queries = from.list(QUERY_LEAST, SearchQuery::read)?;
        Ok(SearchRequest { context, queries: Arc::new(queries) })
    }
}

impl Wire for PointParts {
    fn put(&self, to: &mut Writer) {
        to.u8(u8::from(self.payload));
        match &self.vectors {
            VectorSelector::None => to.u8(0),
            VectorSelector::All => to.u8(1),
            VectorSelector::Named(names) => {
                to.u8(2);
                to.count(names.len());
                names.iter().for_each(|name| to.bytes(name.as_bytes()));
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<PointParts> {
        let payload = match from.u8()? {
            0 => false,
            1 => true,
            _ => return Err(from.broken("the payload is neither wanted nor unwanted")),
        };
        let vectors = match from.u8()? {
            0 => VectorSelector::None,
            1 => VectorSelector::All,
            2 => VectorSelector::Named(from.list(4, |from| Ok(from.text()?.to_owned()))?),
            other => return Err(from.broken(&format!("vector selector {other} is not known here"))),
        };
        Ok(PointParts { payload, vectors })
    }
}

impl Wire for RetrieveRequest {
    fn put(&self, to: &mut Writer) {
        self.context.put(to);
        to.count(self.ids.len());
        self.ids.iter().for_each(|id| id.put(to));
        self.parts.put(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<RetrieveRequest> {
        let context = ReadContext::read(from)?;
        let ids = Arc::new(from.list(ID_LEAST, PointId::read)?);
        Ok(RetrieveRequest { context, ids, parts: PointParts::read(from)? })
    }
}

impl Wire for ScrollRequest {
    fn put(&self, to: &mut Writer) {
        self.context.put(to);
        to.postcard(&self.order);
        to.u64(self.limit as u64);
        self.filter.put(to);
        self.parts.put(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<ScrollRequest> {
        let context = ReadContext::read(from)?;
        let order = from.postcard()?;
        let limit = from.size()?;
        let filter = Option::<Arc<Filter>>::read(from)?;
        Ok(ScrollRequest { context, order, limit, filter, parts: PointParts::read(from)? })
    }
}

impl Wire for CountRequest {
    fn put(&self, to: &mut Writer) {
        self.context.put(to);
        self.filter.put(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<CountRequest> {
        Ok(CountRequest { context: ReadContext::read(from)?, filter: Option::read(from)? })
    }
}

impl Wire for FacetRequest {
    fn put(&self, to: &mut Writer) {
        self.context.put(to);
        to.bytes(self.key.as_bytes());
        self.filter.put(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<FacetRequest> {
        let (context, key) = (ReadContext::read(from)?, from.text()?.to_owned());
        Ok(FacetRequest { context, key, filter: Option::read(from)? })
    }
}

impl Wire for FrequencyRequest {
    fn put(&self, to: &mut Writer) {
        self.context.put(to);
        to.bytes(self.vector_name.as_bytes());
        to.integers(&self.indices);
        self.filter.put(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<FrequencyRequest> {
        let (context, vector_name) = (ReadContext::read(from)?, from.text()?.to_owned());
        let indices = Arc::new(from.integers()?);
        Ok(FrequencyRequest { context, vector_name, indices, filter: Option::read(from)? })
    }
}

impl Wire for DigestRequest {
    fn put(&self, to: &mut Writer) {
        self.context.put(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<DigestRequest> {
        Ok(DigestRequest { context: ReadContext::read(from)? })
    }
}

/// A read and what each shard answers to it.
macro_rules! read {
    ($request:ty, $operation:ident, $answer:ty) => {
        impl Request for $request {
            const OPERATION: Operation = Operation::$operation;
            type Answer = Vec<ShardAnswer<$answer>>;

            fn deadline(&self) -> Option<Instant> {
                Some(self.context.deadline)
            }
        }
    };
}
read!(SearchRequest, Search, Vec<Vec<ShardHit>>);
read!(RetrieveRequest, Retrieve, Vec<StoredPoint>);
read!(ScrollRequest, Scroll, Vec<StoredPoint>);
read!(CountRequest, Count, u64);
read!(FacetRequest, Facet, Vec<FacetCount>);
read!(FrequencyRequest, Frequencies, Frequencies);
read!(DigestRequest, Digest, ShardDigest);

/// An error is in postcard form: few are sent, and new kinds are added at the end.
impl Wire for Error {
    fn put(&self, to: &mut Writer) {
        to.postcard(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Error> {
        from.postcard()
    }
}
