//! Writes to a shard: what they do, and how they are answered.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::PointEdit;
use crate::error::{Error, Result};
use crate::filter::{EVALUATOR_VERSION, Filter};
use crate::ids::{CollectionId, Epoch, LogIndex, MapVersion, RequestId, ShardId};
use crate::point::{Point, PointId, Vectors};
use crate::publish::{Copies, FeedChange, MapRange};

/// One write to one shard.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Identity of the client's write.
    pub request: RequestId,
    /// Which part of the client's write this is, counted per shard from 0: a batch that is too large for one log entry
    /// has several. `(request, part)` is applied at most once per shard.
    pub part: u32,
    /// The collection.
    pub collection: CollectionId,
    /// The token table it was routed by.
    pub epoch: Epoch,
    /// The shard.
    pub shard: ShardId,
    /// What to do.
    pub op: WriteOp,
    /// When to give up. The write may still take place after this.
    pub deadline: Instant,
}

/// A change of points. Also what a shard's raft log holds, in postcard form: variants are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WriteOp {
    /// Inserts points or replaces them whole.
    Upsert(Arc<Vec<Point>>),
    /// Deletes by id; missing ones are fine.
    Delete(Vec<PointId>),
    /// Deletes all points that match when the entry is applied.
    DeleteByFilter(LoggedFilter),
    /// Inserts or replaces points one after the other, each if the condition allows it then.
    ConditionalUpsert {
        /// The points in the order of the client's.
        points: Arc<Vec<Point>>,
        /// Which points.
        mode: UpdateMode,
        /// What a point that is there must match to be replaced.
        filter: Option<LoggedFilter>,
    },
    /// Replaces some vectors of points that are there. Done in pages, see [`Effect::next`].
    UpdateVectors {
        /// The vectors, one item per point, in the order of their ids.
        points: Arc<Vec<PointVectors>>,
        /// What a point must match.
        filter: Option<LoggedFilter>,
    },
    /// Changes points that are there, all alike. Done in pages, see [`Effect::next`].
    Edit {
        /// Which points.
        points: Selection,
        /// What is done to each.
        edit: PointEdit,
    },
    /// To a search shard: copies of points, and which are gone. In no request table: doing it again changes nothing.
    Copies(Arc<Copies>),
    /// To a search shard: the maps by which it may be searched.
    Maps(MapRange),
    /// To a home shard: by which maps it publishes.
    Feed(FeedChange),
}

/// Which points an upsert may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateMode {
    /// All.
    #[default]
    Upsert,
    /// Those that are not there yet.
    InsertOnly,
    /// Those that are there.
    UpdateOnly,
}

/// Vectors for a point that is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointVectors {
    /// The point.
    pub id: PointId,
    /// The vectors to replace or add, by name; the point keeps its others.
    pub vectors: Vectors,
}

/// Points to change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Selection {
    /// These, ascending.
    Ids(Vec<PointId>),
    /// Those that match when the entry is applied.
    Matching {
        /// What they must match.
        filter: LoggedFilter,
        /// The smallest id (inclusive); `None`: from the beginning.
        from: Option<PointId>,
    },
}

/// A filter as it is logged: its JSON text and the version of the evaluator, so that every replica and every replay
/// decides alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedFilter {
    /// The evaluator: see [`crate::filter::EVALUATOR_VERSION`].
    pub evaluator: u32,
    /// JSON of the [`crate::filter::Filter`].
    pub json: String,
}

/// What applying a write did. Equal on every replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Points written or deleted.
    pub affected: u64,
    /// The first id named by a change of points that is not there. All others are changed all the same.
    pub missing: Option<PointId>,
    /// The first id that is not dealt with yet: a change rewrites at most [`crate::limits::EDIT_PAGE_BYTES`] at a time,
    /// and [`WriteOp::continued`] is the rest of it.
    pub next: Option<PointId>,
}

/// Answer to a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteAck {
    /// Position of the write in the shard's log: also the version of the points it wrote.
    pub index: LogIndex,
    /// Term of the leader that acknowledged.
    pub term: u64,
    /// What it did.
    pub effect: Effect,
    /// Search shards that took copies of the points it wrote, with positions in their logs at which they have them.
    pub copies: Vec<(ShardId, LogIndex)>,
    /// The oldest map by which its points were published; 0 where nothing is published.
    pub map: MapVersion,
}

impl Effect {
    /// So many points were written or deleted, and all is said.
    pub fn of(affected: u64) -> Effect {
        Effect { affected, ..Effect::default() }
    }
}

impl LoggedFilter {
    /// Fixes the meaning of a filter.
    /// `BadInput` for conditions on clusters: replicas know the cluster of a row sooner or later, and have to decide alike.
    pub fn new(filter: &Filter) -> Result<LoggedFilter> {
        check_logged(filter)?;
        let json = serde_json::to_string(filter).map_err(|e| Error::Internal(format!("encode filter: {e}")))?;
        Ok(LoggedFilter { evaluator: EVALUATOR_VERSION, json })
    }
}

/// Whether a filter may decide what a write does: `BadInput` for one on clusters.
pub fn check_logged(filter: &Filter) -> Result<()> {
    match filter.names_clusters() {
        true => Err(Error::BadInput(
            "filter: `in_clusters` and `in_clusters_of` are for reads, a write cannot be decided by them: read the ids of \
             the points first, then write those"
                .into(),
        )),
        false => Ok(()),
    }
}

impl WriteOp {
    /// Whether it is sent by the cluster itself, to be done again without harm: no request table remembers it.
    pub fn is_repeatable(&self) -> bool {
        matches!(self, WriteOp::Copies(_) | WriteOp::Maps(_) | WriteOp::Feed(_))
    }

    /// About how many bytes the write carries.
    pub fn bytes(&self) -> usize {
        const ITEM: usize = 24;
        let vectors = |vectors: &Vectors| vectors.values().map(|vector| ITEM + vector.bytes()).sum::<usize>();
        let points = |points: &[Point]| {
            points.iter().map(|p| ITEM + p.payload.as_bytes().len() + vectors(&p.vectors)).sum::<usize>()
        };
        let filter = |filter: &Option<LoggedFilter>| filter.as_ref().map_or(0, |filter| filter.json.len());
        match self {
            WriteOp::Upsert(upserted) => points(upserted),
            WriteOp::Delete(ids) => ITEM * ids.len(),
            WriteOp::DeleteByFilter(filter) => filter.json.len(),
            WriteOp::ConditionalUpsert { points: upserted, filter: condition, .. } => {
                points(upserted) + filter(condition)
            }
            WriteOp::UpdateVectors { points, filter: condition } => {
                points.iter().map(|p| ITEM + vectors(&p.vectors)).sum::<usize>() + filter(condition)
            }
            WriteOp::Edit { points, edit } => {
                edit.bytes()
                    + match points {
                        Selection::Ids(ids) => ITEM * ids.len(),
                        Selection::Matching { filter, .. } => filter.json.len(),
                    }
            }
            WriteOp::Copies(copies) => {
                let misplaced = copies.misplaced.as_ref().map_or(0, |misplaced| misplaced.pairs.len());
                let point = |p: &Point| ITEM + p.payload.as_bytes().len() + vectors(&p.vectors);
                copies.points.iter().map(|copy| point(&copy.point)).sum::<usize>()
                    + ITEM * (copies.gone.len() + misplaced)
            }
            WriteOp::Maps(_) | WriteOp::Feed(_) => ITEM,
        }
    }

    /// Whether applying it looks at all points of the shard.
    pub fn scans(&self) -> bool {
        match self {
            WriteOp::DeleteByFilter(_) | WriteOp::Edit { points: Selection::Matching { .. }, .. } => true,
            WriteOp::Upsert(_)
            | WriteOp::Delete(_)
            | WriteOp::ConditionalUpsert { .. }
            | WriteOp::UpdateVectors { .. }
            | WriteOp::Edit { points: Selection::Ids(_), .. }
            | WriteOp::Copies(_)
            | WriteOp::Maps(_)
            | WriteOp::Feed(_) => false,
        }
    }

    /// What is left of a write whose [`Effect::next`] this is.
    pub fn continued(self, next: PointId) -> WriteOp {
        match self {
            WriteOp::UpdateVectors { points, filter } => {
                let rest = points.iter().filter(|point| point.id >= next).cloned().collect();
                WriteOp::UpdateVectors { points: Arc::new(rest), filter }
            }
            WriteOp::Edit { points: Selection::Ids(mut ids), edit } => {
                ids.retain(|id| *id >= next);
                WriteOp::Edit { points: Selection::Ids(ids), edit }
            }
            WriteOp::Edit { points: Selection::Matching { filter, .. }, edit } => {
                WriteOp::Edit { points: Selection::Matching { filter, from: Some(next) }, edit }
            }
            // These are done at once.
            op @ (WriteOp::Upsert(_)
            | WriteOp::Delete(_)
            | WriteOp::DeleteByFilter(_)
            | WriteOp::ConditionalUpsert { .. }
            | WriteOp::Copies(_)
            | WriteOp::Maps(_)
            | WriteOp::Feed(_)) => op,
        }
    }
}
