//! Queries that build on the results of others: those of one level are run together, the deepest level first.

use std::sync::Arc;

use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{Condition, Filter, SortedSet};
use vicinal_common::limits::{PREFETCH_DEPTH_MAX, PREFETCHES_MAX};
use vicinal_common::point::PointId;

use super::diversify;
use super::formula::{FormulaQuery, Rescoring, rescore};
use super::gather::Coverage;
use super::lookup_from::LookupFrom;
use super::read::retrieve;
use super::request::{Answer, Hit, Query, Source};
use super::scatter::ReadSpec;
use super::search::run;
use crate::shards::{Lookup, ShardAccess};

/// A query, and those whose results it chooses from.
#[derive(Clone, Debug)]
pub struct QueryTree {
    /// The query.
    pub query: Query,
    /// What it chooses from; the collection when there are none.
    pub prefetch: Vec<QueryTree>,
    /// Where the stored points that it is made of are; this collection when it is not said. To be resolved before the
    /// tree is run.
    pub lookup_from: Option<LookupFrom>,
}

/// A query of a tree, laid out flat.
struct Node {
    query: Query,
    /// Places of its prefetches.
    prefetch: Vec<usize>,
    depth: usize,
    answer: Answer,
}

/// Answers all queries, in their order. One that asks too much fails them all, as does one whose gaps it does not allow.
pub async fn run_trees(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    trees: &[QueryTree],
) -> Result<Vec<Answer>> {
    let mut nodes = Vec::with_capacity(trees.len());
    let mut roots = Vec::with_capacity(trees.len());
    for tree in trees {
        let first = nodes.len();
        roots.push(lay_out(&mut nodes, tree, 0, None)?);
        let prefetches = nodes.len() - first - 1;
        if prefetches > PREFETCHES_MAX {
            let message = format!("{prefetches} prefetches, allowed are {PREFETCHES_MAX} or fewer");
            return Err(Error::Validation { field: "prefetch".into(), message });
        }
    }
    diversify::check(lookup, nodes.iter().map(|node| &node.query))?;
    let deepest = nodes.iter().map(|node| node.depth).max().unwrap_or(0);
    for depth in (0..=deepest).rev() {
        let mut asked = Vec::new();
        let level: Vec<usize> = (0..nodes.len()).filter(|place| nodes[*place].depth == depth).collect();
        for place in level {
            match prepare(&nodes, place) {
                Step::Ask(query) => asked.push((place, query)),
                Step::Known(answer) => nodes[place].answer = answer,
                Step::Rescore(formula) => {
                    let Node { query, prefetch, .. } = &nodes[place];
                    let lists: Vec<&[Hit]> = prefetch.iter().map(|place| &nodes[*place].answer.hits[..]).collect();
                    let coverage = coverage_below(&nodes, place);
                    let rescoring = Rescoring { query, formula: &formula, lists: &lists, coverage };
                    nodes[place].answer = rescore(access, lookup, spec, rescoring).await?;
                }
            }
        }
        let (places, queries): (Vec<usize>, Vec<Query>) = asked.into_iter().unzip();
        if queries.is_empty() {
            continue;
        }
        let answers = run(access, lookup, spec, &queries).await?;
        for (place, mut answer) in places.into_iter().zip(answers) {
            if let Source::Mmr { mmr, .. } = &nodes[place].query.source {
                answer = diversify::diversify(lookup, spec, &nodes[place].query, *mmr, answer).await?;
            }
            answer.coverage.add(&coverage_below(&nodes, place));
            nodes[place].answer = answer;
        }
    }
    let mut answers = Vec::with_capacity(roots.len());
    for root in roots {
        let node = &mut nodes[root];
        let mut answer = std::mem::take(&mut node.answer);
        if matches!(node.query.source, Source::Fusion(_) | Source::Formula(_) | Source::Mmr { .. }) {
            fill(access, lookup, spec, &node.query, &mut answer).await?;
        }
        answer.coverage.check(node.query.allow_partial)?;
        answers.push(answer);
    }
    Ok(answers)
}

/// Lays a tree out, each query before its prefetches. A filter holds for all that is below it too, and a point that a query
/// is made of is left out there, so that limits of prefetches count only points that can be in the result.
fn lay_out(nodes: &mut Vec<Node>, tree: &QueryTree, depth: usize, above: Option<&Arc<Filter>>) -> Result<usize> {
    if depth > PREFETCH_DEPTH_MAX {
        let message = format!("nested deeper than {PREFETCH_DEPTH_MAX} levels");
        return Err(Error::Validation { field: "prefetch".into(), message });
    }
    let mut query = tree.query.clone();
    query.filter = both(above, query.filter.as_ref());
    check(&query, tree.prefetch.len())?;
    let filter = match query.source.points() {
        own if own.is_empty() || tree.prefetch.is_empty() => query.filter.clone(),
        own => {
            let must_not = vec![Condition::HasId(SortedSet::new(own))];
            both(query.filter.as_ref(), Some(&Arc::new(Filter { must_not, ..Filter::default() })))
        }
    };
    let place = nodes.len();
    nodes.push(Node { query, prefetch: Vec::new(), depth, answer: Answer::default() });
    for prefetch in &tree.prefetch {
        let below = lay_out(nodes, prefetch, depth + 1, filter.as_ref())?;
        nodes[place].prefetch.push(below);
    }
    Ok(place)
}

fn check(query: &Query, prefetches: usize) -> Result<()> {
    query.check()?;
    let bad = |text: &str| Err(Error::BadInput(text.into()));
    match &query.source {
        Source::All if prefetches > 0 => bad("`query` is missing: results of `prefetch` are nothing to be ordered by"),
        Source::Fusion(_) if prefetches == 0 => bad("a fusion needs `prefetch`, the queries whose results it joins"),
        Source::Fusion(fusion) => fusion.check(prefetches),
        Source::Formula(_) if prefetches == 0 => bad("a formula needs `prefetch`, the queries whose results it scores"),
        Source::Formula(formula) => formula.check(),
        Source::Mmr { mmr, .. } => mmr.check(),
        source => {
            debug_assert!(
                source.is_search() || matches!(source, Source::All | Source::OrderBy(_) | Source::Sample { .. })
            );
            Ok(())
        }
    }
}

fn both(a: Option<&Arc<Filter>>, b: Option<&Arc<Filter>>) -> Option<Arc<Filter>> {
    match (a, b) {
        (Some(a), Some(b)) => {
            let must = [a, b].map(|filter| Condition::Filter(Filter::clone(filter))).into();
            Some(Arc::new(Filter { must, ..Filter::default() }))
        }
        (one, None) | (None, one) => one.cloned(),
    }
}

/// What a query of a tree needs.
enum Step {
    /// To be run.
    Ask(Query),
    /// Nothing more.
    Known(Answer),
    /// Its prefetches' results scored by a formula, which may need what they hold.
    Rescore(Arc<FormulaQuery>),
}

fn prepare(nodes: &[Node], place: usize) -> Step {
    let Node { query, prefetch, .. } = &nodes[place];
    if prefetch.is_empty() {
        return Step::Ask(diversify::candidates(query));
    }
    if let Source::Formula(formula) = &query.source {
        return Step::Rescore(formula.clone());
    }
    let below = prefetch.iter().map(|place| &nodes[*place].answer);
    if let Source::Fusion(fusion) = &query.source {
        let lists: Vec<Vec<Hit>> = below.map(|answer| answer.hits.clone()).collect();
        let mut hits = fusion.fuse(&lists);
        hits.retain(|hit| query.score_threshold.is_none_or(|least| hit.score >= least));
        hits.truncate(query.offset + query.limit);
        hits.drain(..query.offset.min(hits.len()));
        return Step::Known(Answer { hits, coverage: coverage_below(nodes, place) });
    }
    // Where nothing was found it is asked all the same: a point that it is made of may be missing, which is an error.
    let ids: Vec<PointId> = below.flat_map(|answer| &answer.hits).map(|hit| hit.id).collect();
    let among = Arc::new(Filter { must: vec![Condition::HasId(SortedSet::new(ids))], ..Filter::default() });
    let query = diversify::candidates(query);
    Step::Ask(Query { filter: both(Some(&among), query.filter.as_ref()), exact: true, ..query })
}

/// What the prefetches of a query missed.
fn coverage_below(nodes: &[Node], place: usize) -> Coverage {
    let mut below = nodes[place].prefetch.iter().map(|place| &nodes[*place].answer.coverage);
    let Some(first) = below.next() else { return Coverage::default() };
    let mut coverage = first.clone();
    below.for_each(|other| coverage.add(other));
    coverage
}

/// Gets what hits that were not asked for hold. A point that is gone by now is left out.
async fn fill(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    query: &Query,
    answer: &mut Answer,
) -> Result<()> {
    if !query.wants_parts() || answer.hits.is_empty() {
        return Ok(());
    }
    let ids: Vec<PointId> = answer.hits.iter().map(|hit| hit.id).collect();
    let (points, coverage) = retrieve(access, lookup, spec, &ids, &query.parts).await?;
    answer.coverage.add(&coverage);
    let mut points = points.into_iter().peekable();
    // Both are in the order of the ids, which are distinct.
    answer.hits.retain_mut(|hit| {
        hit.point = points.next_if(|point| point.id == hit.id);
        hit.point.is_some()
    });
    Ok(())
}
