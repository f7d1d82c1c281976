//! Queries by maximal marginal relevance: the shards find the candidates, the choice among them is made here.

use std::collections::BTreeSet;

use tokio::time::Instant;
use vicinal_common::api::{PointParts, VectorSelector};
use vicinal_common::collection::{VectorKind, VectorSchema};
use vicinal_common::distance::Kernel;
use vicinal_common::error::{Error, Result};
use vicinal_common::limits::COMPARED_COMPONENTS_MAX;
use vicinal_common::metric::Metric;
use vicinal_common::vector::Vector;

use super::mmr::Mmr;
use super::request::{Answer, Example, Hit, Query, Source, resolve_vector_name};
use super::scatter::ReadSpec;
use crate::off_thread::off_thread;
use crate::shards::Lookup;

/// Vectors that a multivector is likely to have.
const MULTIVECTOR_USUAL: usize = 32;
/// Values that a sparse vector is likely to have.
const SPARSE_USUAL: usize = 256;

/// Values that a vector has, or is likely to have: of those that differ in length it cannot be known before they are there.
pub(super) fn usual_components(schema: &VectorSchema) -> usize {
    match schema.kind {
        VectorKind::Dense => schema.dim,
        VectorKind::Multi => schema.dim * MULTIVECTOR_USUAL,
        VectorKind::Sparse { .. } => SPARSE_USUAL,
    }
}

/// Refuses queries whose candidates are more than a coordinator should hold.
pub(super) fn check<'a>(lookup: Lookup<'_>, queries: impl Iterator<Item = &'a Query>) -> Result<()> {
    let wanted: Vec<(&Query, Mmr)> = queries
        .filter_map(|query| if let Source::Mmr { mmr, .. } = &query.source { Some((query, *mmr)) } else { None })
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let collection = lookup()?;
    let mut components = 0usize;
    for (query, mmr) in wanted {
        let schema = resolve_vector_name(&collection.schema, &query.using)?;
        let each = mmr.candidates(query.limit).saturating_mul(usual_components(schema));
        components = components.saturating_add(each);
    }
    if components > COMPARED_COMPONENTS_MAX {
        let message = format!(
            "the candidates of the request have {components} components (candidates times dimension), allowed are \
             {COMPARED_COMPONENTS_MAX} or fewer"
        );
        return Err(Error::Validation { field: "query.mmr.candidates_limit".into(), message });
    }
    Ok(())
}

/// The query that finds the candidates, each with its vector; any other query as it is.
pub(super) fn candidates(query: &Query) -> Query {
    let Source::Mmr { target, mmr } = &query.source else { return query.clone() };
    let source = match target {
        Example::Vector(vector) => Source::Vector(vector.clone()),
        Example::Point(id) => Source::Point(*id),
    };
    Query {
        source,
        // Without candidates it is asked all the same: a point that it is made of may be missing, which is an error.
        limit: mmr.candidates(query.limit).max(1),
        offset: 0,
        parts: PointParts { payload: false, vectors: VectorSelector::Named(vec![query.using.clone()]) },
        ..query.clone()
    }
}

/// Chooses the hits of a query among its candidates. They keep their scores, and hold nothing more: what they hold is
/// to be fetched.
pub(super) async fn diversify(
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    query: &Query,
    mmr: Mmr,
    found: Answer,
) -> Result<Answer> {
    let metric = resolve_vector_name(&lookup()?.schema, &query.using)?.metric;
    let (using, offset, deadline) = (query.using.clone(), query.offset, spec.deadline);
    let count = query.offset.saturating_add(query.limit).min(mmr.candidates(query.limit));
    let Answer { hits, coverage } = found;
    let work = move || {
        let mut chosen = choose(metric, &using, mmr, count, deadline, hits)?;
        chosen.drain(..offset.min(chosen.len()));
        Ok::<_, Error>(chosen)
    };
    let hits = off_thread(work).await?;
    Ok(Answer { hits, coverage })
}

fn choose(
    metric: Metric,
    using: &str,
    mmr: Mmr,
    count: usize,
    deadline: Instant,
    candidates: Vec<Hit>,
) -> Result<Vec<Hit>> {
    let kernel = Kernel::new(metric);
    let mut hits: Vec<Option<Hit>> = Vec::with_capacity(candidates.len());
    let (mut relevance, mut vectors) = (Vec::new(), Vec::new());
    for mut hit in candidates {
        let Some(vector) = hit.point.take().and_then(|mut point| point.vectors.remove(using)) else { continue };
        relevance.push(0.0 - metric.distance_of_score(hit.score));
        vectors.push(vector);
        hits.push(Some(hit));
    }
    let lengths: BTreeSet<usize> = vectors.iter().filter_map(Vector::dense).map(<[f32]>::len).collect();
    if lengths.len() > 1 {
        return Err(Error::Corrupt(format!("vectors `{using}` of one collection have different lengths")));
    }
    let similarity = |a: usize, b: usize| {
        let distance = kernel.between(vectors[a].as_ref(), vectors[b].as_ref());
        0.0 - distance.unwrap_or(0.0)
    };
    let chosen = mmr.choose(&relevance, count, similarity, || Instant::now() >= deadline);
    let late = || Error::Timeout("the hits could not be chosen among the candidates of `query.mmr` in time".into());
    let chosen = chosen.ok_or_else(late)?;
    Ok(chosen.into_iter().filter_map(|place| hits[place].take()).collect())
}
