//! Scores what prefetches found anew, by a formula.

use std::collections::HashMap;

use vicinal_common::api::{PointParts, StoredPoint};
use vicinal_common::error::Result;
use vicinal_common::ids::LogIndex;
use vicinal_common::limits::FORMULA_PAGE_POINTS;
use vicinal_common::payload::Fields;
use vicinal_common::point::PointId;

use super::super::gather::Coverage;
use super::super::read::retrieve;
use super::super::request::{Answer, Hit, Query};
use super::super::scatter::ReadSpec;
use super::{FormulaQuery, Subject};
use crate::shards::{Lookup, ShardAccess};

/// A query by a formula, and what its prefetches found.
pub(in super::super) struct Rescoring<'a> {
    /// How many of the points are wanted, from which score on.
    pub(in super::super) query: &'a Query,
    /// What makes the scores.
    pub(in super::super) formula: &'a FormulaQuery,
    /// The hits of each prefetch.
    pub(in super::super) lists: &'a [&'a [Hit]],
    /// Which shards they come from.
    pub(in super::super) coverage: Coverage,
}

/// A point as one prefetch found it.
#[derive(Clone, Copy, Debug)]
struct Found {
    id: PointId,
    /// Which prefetch.
    place: usize,
    score: f32,
    version: LogIndex,
}

/// The points of all lists by their scores in the formula, best first, equal ones by id, within what the query asks for.
/// A point that is gone by now is left out, as is one whose shard does not answer (the coverage says that).
pub(in super::super) async fn rescore(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    Rescoring { query, formula, lists, coverage }: Rescoring<'_>,
) -> Result<Answer> {
    let needs = formula.needs();
    let needs_points = needs != PointParts::default();
    let found = by_point(lists);
    let candidates: Vec<&[Found]> = found.chunk_by(|a, b| a.id == b.id).collect();
    let mut answer = Answer { hits: Vec::with_capacity(candidates.len()), coverage };
    for page in candidates.chunks(FORMULA_PAGE_POINTS) {
        let mut points = HashMap::new();
        if needs_points {
            let ids: Vec<PointId> = page.iter().filter_map(|point| point.first()).map(|found| found.id).collect();
            let (held, coverage) = retrieve(access, lookup, spec, &ids, &needs).await?;
            answer.coverage.add(&coverage);
            points = held.into_iter().map(|point| (point.id, point)).collect();
        }
        for candidate in page {
            let point = candidate.first().and_then(|found| points.get(&found.id));
            if point.is_some() || !needs_points {
                answer.hits.extend(score(formula, candidate, point, lists.len())?);
            }
        }
        // Other requests have their turn between two pages.
        tokio::task::yield_now().await;
    }
    answer.hits.retain(|hit| query.score_threshold.is_none_or(|least| hit.score >= least));
    answer.hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    answer.hits.truncate(query.offset + query.limit);
    answer.hits.drain(..query.offset.min(answer.hits.len()));
    Ok(answer)
}

/// The hits of all lists in the order of their ids, those of one point next to each other.
fn by_point(lists: &[&[Hit]]) -> Vec<Found> {
    let of_list = |(place, hits): (usize, &&[Hit])| -> Vec<Found> {
        hits.iter().map(|hit| Found { id: hit.id, place, score: hit.score, version: hit.version }).collect()
    };
    let mut found: Vec<Found> = lists.iter().enumerate().flat_map(of_list).collect();
    found.sort_unstable_by(|a, b| a.id.cmp(&b.id).then(a.place.cmp(&b.place)));
    found
}

/// The hit that one point becomes. `None` for no point.
fn score(
    formula: &FormulaQuery,
    candidate: &[Found],
    point: Option<&StoredPoint>,
    lists: usize,
) -> Result<Option<Hit>> {
    let Some(Found { id, .. }) = candidate.first() else { return Ok(None) };
    let mut scores = vec![None; lists];
    for found in candidate {
        scores[found.place] = Some(found.score);
    }
    let fields = point.map_or_else(|| Ok(Fields::new()), |point| point.payload.fields())?;
    let vectors_present = |name: &str| point.is_some_and(|point| point.vectors.contains_key(name));
    let subject = Subject { id: *id, scores: &scores, fields: &fields, vectors_present: &vectors_present };
    let score = formula.evaluate(subject)?;
    let version = candidate.iter().map(|found| found.version).max().unwrap_or_default();
    Ok(Some(Hit { id: *id, version, score, order: None, point: None }))
}
