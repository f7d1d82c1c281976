//! Sends the parts of a write to the leaders of their shards, repeating each until it is acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::future::join_all;
use tokio::time::{Instant, sleep};
use tracing::Instrument;
use vicinal_common::api::{
    LoggedFilter, PointEdit, PointVectors, Selection, UpdateMode, WriteAck, WriteOp, WriteRequest,
};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::Filter;
use vicinal_common::ids::{LogIndex, MapVersion, RequestId, ShardId};
use vicinal_common::point::{Point, PointId};
use vicinal_common::telemetry;

use super::deliver::{PATIENCE, PAUSE_MIN, deliver};
use super::partition::{cut_ids, cut_in_order, cut_points, cut_vectors};
use crate::meta::Collection;
use crate::query::reasons;
use crate::session::Session;
use crate::shards::{CollectionRef, Lookup, ShardAccess};

/// How often a write is routed anew because the token table changed under it.
const ROUTE_TRIES_MAX: u32 = 3;
/// Parts of one routing. Part numbers of different routings must differ, as shards remember them.
const PARTS_MAX: u32 = 1 << 16;

/// Identity and bound of a client's write.
#[derive(Clone, Copy, Debug)]
pub struct WriteSpec<'a> {
    /// Identity: every attempt and every part carries it.
    pub request: RequestId,
    /// When to give up.
    pub deadline: Instant,
    /// What the client has seen already; it will have seen this write.
    pub session: &'a Session,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The highest log index of the shards written.
    pub index: LogIndex,
    /// Points written or deleted.
    pub affected: u64,
    /// An id that a change of points names and that is not there: the smallest. All others are changed all the same.
    pub missing: Option<PointId>,
}

impl Written {
    /// Takes in what else was written.
    fn add(&mut self, index: LogIndex, affected: u64, missing: Option<PointId>) {
        self.index = self.index.max(index);
        self.affected += affected;
        self.missing = match (self.missing, missing) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// Writes points, which must be checked. Returns once every shard has acknowledged; an error names the shards that have
/// not. Repeating the same write is always safe.
pub async fn upsert(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: WriteSpec<'_>,
    points: Vec<Point>,
) -> Result<Written> {
    let cut = |collection: &Collection, points| {
        let shards = cut_points(&collection.tokens, points)?;
        Ok(parts_of(shards, |part| WriteOp::Upsert(Arc::new(part))))
    };
    let uncut = |op: WriteOp| match op {
        WriteOp::Upsert(points) => Arc::unwrap_or_clone(points),
        _ => Vec::new(),
    };
    routed(access, lookup, spec, points, cut, uncut).await
}

/// Writes points one after the other, each if the condition allows it by then.
pub async fn upsert_if(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: WriteSpec<'_>,
    points: Vec<Point>,
    mode: UpdateMode,
    filter: Option<&Filter>,
) -> Result<Written> {
    let filter = filter.map(LoggedFilter::new).transpose()?;
    let op = |part| WriteOp::ConditionalUpsert { points: Arc::new(part), mode, filter: filter.clone() };
    let cut = |collection: &Collection, points| Ok(parts_of(cut_in_order(&collection.tokens, points)?, op));
    let uncut = |op: WriteOp| match op {
        WriteOp::ConditionalUpsert { points, .. } => Arc::unwrap_or_clone(points),
        _ => Vec::new(),
    };
    routed(access, lookup, spec, points, cut, uncut).await
}

/// Deletes points by id; missing ones are fine.
pub async fn delete(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: WriteSpec<'_>,
    ids: Vec<PointId>,
) -> Result<Written> {
    let cut = |collection: &Collection, ids| Ok(parts_of(cut_ids(&collection.tokens, ids)?, WriteOp::Delete));
    let uncut = |op: WriteOp| match op {
        WriteOp::Delete(ids) => ids,
        _ => Vec::new(),
    };
    routed(access, lookup, spec, ids, cut, uncut).await
}

/// Deletes all points that match, on every shard.
pub async fn delete_by_filter(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: WriteSpec<'_>,
    filter: &Filter,
) -> Result<Written> {
    everywhere(access, lookup, spec, WriteOp::DeleteByFilter(LoggedFilter::new(filter)?)).await
}

/// Replaces some vectors of points that are there; those that match the filter, if there is one.
pub async fn update_vectors(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: WriteSpec<'_>,
    vectors: Vec<PointVectors>,
    filter: Option<&Filter>,
) -> Result<Written> {
    let filter = filter.map(LoggedFilter::new).transpose()?;
    let op = |part| WriteOp::UpdateVectors { points: Arc::new(part), filter: filter.clone() };
    let cut = |collection: &Collection, vectors| Ok(parts_of(cut_vectors(&collection.tokens, vectors)?, op));
    let uncut = |op: WriteOp| match op {
        WriteOp::UpdateVectors { points, .. } => Arc::unwrap_or_clone(points),
        _ => Vec::new(),
    };
    routed(access, lookup, spec, vectors, cut, uncut).await
}

/// Changes points that are there, by id.
pub async fn edit(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: WriteSpec<'_>,
    ids: Vec<PointId>,
    edit: PointEdit,
) -> Result<Written> {
    let op = |part| WriteOp::Edit { points: Selection::Ids(part), edit: edit.clone() };
    let cut = |collection: &Collection, ids| Ok(parts_of(cut_ids(&collection.tokens, ids)?, op));
    let uncut = |op: WriteOp| match op {
        WriteOp::Edit { points: Selection::Ids(ids), .. } => ids,
        _ => Vec::new(),
    };
    routed(access, lookup, spec, ids, cut, uncut).await
}

/// Changes all points that match, on every shard.
pub async fn edit_by_filter(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: WriteSpec<'_>,
    filter: &Filter,
    edit: PointEdit,
) -> Result<Written> {
    let points = Selection::Matching { filter: LoggedFilter::new(filter)?, from: None };
    everywhere(access, lookup, spec, WriteOp::Edit { points, edit }).await
}

/// Does the same on every shard. When the token table changes on the way, it is done from the beginning on all shards of
/// the new one, which changes nothing where it was done.
async fn everywhere(access: &ShardAccess, lookup: Lookup<'_>, spec: WriteSpec<'_>, op: WriteOp) -> Result<Written> {
    // Items are shards here, and all of them are cut anew.
    let cut = |collection: &Collection, _: Vec<()>| {
        Ok(collection.shard_ids().map(|shard| (shard, vec![op.clone()])).collect())
    };
    routed(access, lookup, spec, Vec::new(), cut, |_| Vec::new()).await
}

type Ops = BTreeMap<ShardId, Vec<WriteOp>>;

fn parts_of<T>(shards: BTreeMap<ShardId, Vec<Vec<T>>>, op: impl Fn(Vec<T>) -> WriteOp) -> Ops {
    shards.into_iter().map(|(shard, parts)| (shard, parts.into_iter().map(&op).collect())).collect()
}

/// Cuts the items by the current token table and writes them; what shards refuse because the table changed is cut again.
async fn routed<T>(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: WriteSpec<'_>,
    mut items: Vec<T>,
    cut: impl Fn(&Collection, Vec<T>) -> Result<Ops>,
    uncut: impl Fn(WriteOp) -> Vec<T>,
) -> Result<Written> {
    let mut written = Written::default();
    let mut tries = 0;
    let first = lookup()?;
    let mut collection = first.clone();
    loop {
        spec.session.enter(&collection);
        let ops = cut(&collection, std::mem::take(&mut items))?;
        let asked = ops.len();
        let writes = ops.into_iter().map(|(shard, ops)| {
            let collection = &collection;
            async move { write_shard(access, collection, spec, shard, ops, tries * PARTS_MAX).await }
        });
        let span = telemetry::write_span(&collection.name, asked);
        let mut failed = Vec::new();
        for outcome in join_all(writes).instrument(span).await {
            let Written { index, affected, missing } = outcome.written;
            written.add(index, affected, missing);
            if let Some(error) = outcome.error {
                failed.push((outcome.shard, error, outcome.open));
            }
        }
        tries += 1;
        let only_moved = failed.iter().all(|(_, error, _)| is_moved(error));
        if failed.is_empty() {
            return Ok(written);
        }
        if only_moved && tries < ROUTE_TRIES_MAX {
            collection = newer(lookup, &collection, spec.deadline).await?;
            if collection.id != first.id {
                return Err(Error::NotFound(format!("Collection `{}` doesn't exist!", first.name)));
            }
            items = failed.into_iter().flat_map(|(_, _, open)| open).flat_map(&uncut).collect();
            continue;
        }
        return Err(failure(asked, failed.into_iter().map(|(shard, error, _)| (shard, error)).collect()));
    }
}

fn is_moved(error: &Error) -> bool {
    matches!(error, Error::WrongEpoch { .. })
}

/// The collection as the metadata has it once it differs from `used`, or as it is when nothing changes in time.
async fn newer(lookup: Lookup<'_>, used: &Collection, deadline: Instant) -> Result<CollectionRef> {
    let give_up = deadline.min(Instant::now() + PATIENCE);
    loop {
        let now = lookup()?;
        if now.id != used.id || now.epoch != used.epoch || Instant::now() >= give_up {
            return Ok(now);
        }
        sleep(PAUSE_MIN).await;
    }
}

/// What became of the parts of one shard.
struct Outcome {
    shard: ShardId,
    written: Written,
    error: Option<Error>,
    /// Parts that are not acknowledged, when the error says that they were not applied.
    open: Vec<WriteOp>,
}

/// Writes the parts of one shard one after the other.
async fn write_shard(
    access: &ShardAccess,
    collection: &Collection,
    spec: WriteSpec<'_>,
    shard: ShardId,
    ops: Vec<WriteOp>,
    first_part: u32,
) -> Outcome {
    let mut outcome = Outcome { shard, written: Written::default(), error: None, open: Vec::new() };
    let mut ops = VecDeque::from(ops);
    let mut part = first_part;
    while let Some(op) = ops.pop_front() {
        if part - first_part == PARTS_MAX {
            let text = format!("the write is not done after {PARTS_MAX} parts: repeat it for fewer points at a time");
            outcome.error = Some(Error::BadInput(text));
            break;
        }
        let request = WriteRequest {
            request: spec.request,
            part,
            collection: collection.id,
            epoch: collection.epoch,
            shard,
            op,
            deadline: spec.deadline,
        };
        match deliver(access, collection, &request).await {
            Ok(ack) => {
                note_ack(access, spec.session, collection, shard, &ack);
                outcome.written.add(ack.index, ack.effect.affected, ack.effect.missing);
                if let Some(next) = ack.effect.next {
                    ops.push_front(request.op.continued(next));
                }
            }
            Err(error) => {
                outcome.error = Some(error);
                outcome.open = std::iter::once(request.op).chain(ops).collect();
                break;
            }
        }
        part += 1;
    }
    outcome
}

/// What is read after a write is no older than it: at its home shard, at the search shards that have its copies, and by
/// the map that says so.
fn note_ack(access: &ShardAccess, session: &Session, collection: &Collection, shard: ShardId, ack: &WriteAck) {
    session.note(collection.id, shard, ack.index);
    for (search_shard, index) in &ack.copies {
        session.note(collection.id, *search_shard, *index);
        access.note_ack(*search_shard, *index);
    }
    if ack.map > MapVersion(0) {
        session.note_map(collection.id, ack.map);
        access.note_map(collection.id, ack.map);
    }
}

/// The one error a client sees for the shards that failed: the worst kind, naming them all, and what to do.
fn failure(asked: usize, failed: Vec<(ShardId, Error)>) -> Error {
    let texts = reasons(failed.iter().map(|(shard, error)| (*shard, error)));
    let count = failed.len();
    let others = if count < asked { "the others have taken it, " } else { "" };
    let text = format!(
        "{count} of {asked} shards did not acknowledge the write ({texts}); {others}repeating the same request is safe"
    );
    let worst = failed.into_iter().map(|(_, error)| error).max_by_key(severity);
    match worst {
        Some(Error::Timeout(_)) => Error::Timeout(text),
        Some(Error::Overloaded(_)) => Error::Overloaded(text),
        Some(Error::Internal(_)) => Error::Internal(text),
        Some(Error::Corrupt(_)) => Error::Corrupt(text),
        Some(Error::NotFound(_)) => Error::NotFound(text),
        Some(Error::BadInput(_) | Error::Validation { .. } | Error::Conflict(_) | Error::TooLarge(_)) => {
            Error::BadInput(text)
        }
        Some(Error::Unavailable(_) | Error::WrongLeader { .. } | Error::WrongEpoch { .. } | Error::NoSuchShard(_))
        | None => Error::Unavailable(text),
    }
}

/// Which error tells the client most about what to do: something is broken, come back later, or change the request.
fn severity(error: &Error) -> u8 {
    match error {
        Error::Corrupt(_) => 6,
        Error::Internal(_) => 5,
        Error::Unavailable(_) | Error::WrongLeader { .. } | Error::WrongEpoch { .. } | Error::NoSuchShard(_) => 4,
        Error::Timeout(_) => 3,
        Error::Overloaded(_) => 2,
        Error::NotFound(_) => 1,
        Error::BadInput(_) | Error::Validation { .. } | Error::Conflict(_) | Error::TooLarge(_) => 0,
    }
}
