//! Scores what prefetches found anew, by a formula.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;
use vicinal_common::api::{PointParts, StoredPoint};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::LogIndex;
use vicinal_common::limits::FORMULA_PAGE_POINTS;
use vicinal_common::payload::Fields;
use vicinal_common::point::PointId;

use super::super::gather::Coverage;
use super::super::read::retrieve;
use super::super::request::{Answer, Hit, Query};
use super::super::scatter::ReadSpec;
use super::{FormulaQuery, Subject};
use crate::off_thread::off_thread;
use crate::shards::{Lookup, ShardAccess};

/// Points that are scored between two looks at the time.
const POINTS_PER_LOOK: usize = 256;

/// A query by a formula, and what its prefetches found.
pub(in super::super) struct Rescoring<'a> {
    /// How many of the points are wanted, from which score on.
    pub(in super::super) query: &'a Query,
    /// What makes the scores.
    pub(in super::super) formula: &'a Arc<FormulaQuery>,
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
    let found = found_by(lists);
    let found = off_thread(move || Ok::<_, Error>(by_point(found))).await?;
    let candidates: Vec<&[Found]> = found.chunk_by(|a, b| a.id == b.id).collect();
    let mut answer = Answer { hits: Vec::with_capacity(candidates.len()), coverage };
    for (number, page) in candidates.chunks(FORMULA_PAGE_POINTS).enumerate() {
        let mut points = None;
        if needs_points {
            let ids: Vec<PointId> = page.iter().filter_map(|point| point.first()).map(|found| found.id).collect();
            let (held, coverage) = retrieve(access, lookup, spec, &ids, &needs).await?;
            answer.coverage.add(&coverage);
            points = Some(held.into_iter().map(|point| (point.id, point)).collect());
        }
        let before = number * FORMULA_PAGE_POINTS;
        let page = Page { found: page.concat(), points, lists: lists.len(), before, deadline: spec.deadline };
        let formula = formula.clone();
        answer.hits.extend(off_thread(move || page.scores(&formula)).await?);
    }
    answer.hits.retain(|hit| query.score_threshold.is_none_or(|least| hit.score >= least));
    answer.hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    answer.hits.truncate(query.offset + query.limit);
    answer.hits.drain(..query.offset.min(answer.hits.len()));
    Ok(answer)
}

/// Points to be scored: owned, so that the work may be done on another thread.
struct Page {
    /// In the order of their ids.
    found: Vec<Found>,
    /// What they hold; `None` when the formula does not need it.
    points: Option<HashMap<PointId, StoredPoint>>,
    /// How many prefetches there are.
    lists: usize,
    /// Points of the pages before this one.
    before: usize,
    /// When nobody waits for the scores any more.
    deadline: Instant,
}

impl Page {
    /// The hits that the points become. A point that is not held is left out if the formula needs what it holds. `Timeout`
    /// after the deadline; not for the first points of all, as what was found by then is an answer.
    fn scores(&self, formula: &FormulaQuery) -> Result<Vec<Hit>> {
        let mut hits = Vec::new();
        for (place, candidate) in self.found.chunk_by(|a, b| a.id == b.id).enumerate() {
            let done = self.before + place;
            if done > 0 && done.is_multiple_of(POINTS_PER_LOOK) && Instant::now() >= self.deadline {
                return Err(Error::Timeout("the points could not be scored by `query.formula` in time".into()));
            }
            let point = match &self.points {
                Some(points) => match candidate.first().and_then(|found| points.get(&found.id)) {
                    Some(point) => Some(point),
                    None => continue,
                },
                None => None,
            };
            hits.extend(score(formula, candidate, point, self.lists)?);
        }
        Ok(hits)
    }
}

/// The hits of all lists.
fn found_by(lists: &[&[Hit]]) -> Vec<Found> {
    let of_list = |(place, hits): (usize, &&[Hit])| -> Vec<Found> {
        hits.iter().map(|hit| Found { id: hit.id, place, score: hit.score, version: hit.version }).collect()
    };
    lists.iter().enumerate().flat_map(of_list).collect()
}

/// In the order of the ids, those of one point next to each other.
fn by_point(mut found: Vec<Found>) -> Vec<Found> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Defaults, Expression, Variable};
    use super::*;

    fn page(count: u64, before: usize, deadline: Instant) -> Page {
        let found = |id| Found { id: PointId::Num(id), place: 0, score: id as f32, version: LogIndex(1) };
        Page { found: (0..count).map(found).collect(), points: None, lists: 1, before, deadline }
    }

    #[test]
    fn points_are_not_scored_after_the_deadline() {
        let formula = FormulaQuery { formula: Expression::Variable(Variable::Score(0)), defaults: Defaults::default() };
        let later = Instant::now() + Duration::from_secs(60);
        let hits = page(1_000, 0, later).scores(&formula).unwrap();
        assert_eq!((hits.len(), hits[7].score), (1_000, 7.0));
        let now = Instant::now();
        assert_eq!(page(257, 0, now).scores(&formula).unwrap_err().http_status(), 408);
        assert_eq!(page(40, 2_048 - 39, now).scores(&formula).unwrap_err().http_status(), 408);
        assert_eq!(page(256, 0, now).scores(&formula).unwrap().len(), 256, "what was found in time is an answer");
    }
}
