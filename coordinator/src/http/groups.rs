//! Handler of queries by groups.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use tracing::Instrument;
use vicinal_common::api::{PointParts, StoredPoint};
use vicinal_common::error::Error;
use vicinal_common::point::PointId;
use vicinal_common::telemetry;

use super::answer::{Answer, Failure};
use super::body::{JsonBody, off_thread};
use super::clusters;
use super::decode::{GroupsBody, GroupsWanted, RecordsOf};
use super::encode::{self, Shown};
use super::params::Params;
use super::points::check_parts;
use super::search::{prepare_filters, resolve};
use super::selector::WithPayload;
use super::strict;
use crate::Coordinator;
use crate::meta::Collection;
use crate::query::{self, Coverage, Group, ReadSpec};
use crate::shards::CollectionRef;

type Shared = State<Arc<Coordinator>>;

/// `POST /collections/{collection}/points/query/groups`, and `/search/groups` and `/recommend/groups` for older clients.
pub(super) async fn groups<B: GroupsBody>(
    State(coordinator): Shared,
    params: Params,
    body: JsonBody,
) -> Result<Answer, Failure> {
    coordinator.collection(params.collection())?;
    let GroupsWanted { mut tree, with_payload, groups, lookup: records } = body.decode(B::into_groups).await?;
    let collection = coordinator.collection(params.collection())?;
    check_parts(&collection, &tree.query.parts)?;
    strict::check_queries(&collection, std::slice::from_ref(&tree))?;
    strict::check_limit(&collection, groups.hits())?;
    strict::check_grouping(&collection, &groups.by)?;
    prepare_filters(&collection, std::slice::from_mut(&mut tree))?;
    clusters::fix_trees(&coordinator, &params, std::slice::from_mut(&mut tree)).await?;
    let others = match &records {
        Some(records) => Some(find_records(&coordinator, records)?),
        None => None,
    };
    let mut trees = [tree];
    resolve(&coordinator, &params, &collection, &mut trees).await?;
    let [tree] = trees;
    let lookup = params.lookup(&coordinator);
    let span = telemetry::query_span(&collection.name, 1);
    let running = query::run_groups(&coordinator.shards, &lookup, params.read_spec(), &tree, &groups);
    let query::Grouped { groups, mut coverage } = running.instrument(span).await?;
    let shown = Shown { payload: with_payload, vectors: tree.query.parts.vectors };
    let found = match records.zip(others) {
        Some((records, others)) => {
            let (points, of_records) = retrieve(&coordinator, &params, &collection, &records, &others, &groups).await?;
            of_records.check(tree.query.allow_partial)?;
            coverage.shards_asked += of_records.shards_asked;
            coverage.shards_answered += of_records.shards_answered;
            coverage.missing.extend(of_records.missing);
            Some((records.shown, points))
        }
        None => None,
    };
    let points = groups.iter().flat_map(|group| &group.hits).filter_map(|hit| hit.point.as_ref());
    let records = found.iter().flat_map(|(_, points)| points.values());
    let size = encode::size_of_points(points.chain(records));
    let encoded = off_thread(size, move || {
        let mut out = b"{\"groups\":".to_vec();
        encode::list(&mut out, &groups, |out, group| encode_group(out, group, &shown, found.as_ref()))?;
        out.push(b'}');
        Ok(out)
    });
    Ok(Answer::encoded(encoded.await?).with_coverage(coverage).with_session(&params))
}

/// `{"hits": [...], "id": ..., "lookup": ...}`, the last only when there is one.
fn encode_group(
    out: &mut Vec<u8>,
    group: &Group,
    shown: &Shown,
    records: Option<&(Shown, HashMap<PointId, StoredPoint>)>,
) -> Result<(), Error> {
    out.extend_from_slice(b"{\"hits\":");
    encode::hits(out, &group.hits, shown)?;
    out.extend_from_slice(b",\"id\":");
    serde_json::to_writer(&mut *out, &group.id).map_err(|e| Error::Internal(format!("encode a group: {e}")))?;
    if let Some((shown, points)) = records
        && let Some(record) = group.id.point().and_then(|id| points.get(&id))
    {
        out.extend_from_slice(b",\"lookup\":");
        encode::point(out, record, shown)?;
    }
    out.push(b'}');
    Ok(())
}

fn parts_of(shown: &Shown) -> PointParts {
    PointParts { payload: shown.payload != WithPayload::None, vectors: shown.vectors.clone() }
}

/// The collection that groups stand for records of.
fn find_records(coordinator: &Coordinator, records: &RecordsOf) -> Result<CollectionRef, Failure> {
    let collection = coordinator.collection(&records.collection)?;
    check_parts(&collection, &parts_of(&records.shown))?;
    Ok(collection)
}

/// The records that groups stand for, those that exist. The client's token stays one of the collection that was searched.
async fn retrieve(
    coordinator: &Coordinator,
    params: &Params,
    searched: &Collection,
    records: &RecordsOf,
    collection: &CollectionRef,
    groups: &[Group],
) -> Result<(HashMap<PointId, StoredPoint>, Coverage), Failure> {
    let ids: Vec<PointId> = groups.iter().filter_map(|group| group.id.point()).collect();
    let lookup = || coordinator.same_collection(&records.collection, collection.id);
    let parts = parts_of(&records.shown);
    let spec = params.read_spec();
    let apart = spec.session.apart();
    let session = if collection.id == searched.id { spec.session } else { &apart };
    let spec = ReadSpec { session, ..spec };
    let found = query::retrieve(&coordinator.shards, &lookup, spec, &ids, &parts).await?;
    let (points, coverage) = found;
    Ok((points.into_iter().map(|point| (point.id, point)).collect(), coverage))
}
