//! How rare the dimensions of sparse vectors are, over all shards: one more round for the queries whose vector asks for it.
//!
//! The weight of a dimension that n of N points have is ln((N - n + 0.5) / (n + 0.5) + 1), the inverse document frequency of
//! BM25 (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009) with 1 added so that it is never negative. It is
//! of the whole collection and of live points, so an answer does not depend on how points are spread over shards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vicinal_common::api::{Frequencies, FrequencyRequest, Goal};
use vicinal_common::collection::VectorKind;
use vicinal_common::error::Result;
use vicinal_common::filter::Filter;
use vicinal_common::ids::ShardId;
use vicinal_common::vector::{SparseVector, Vector};

use super::goal::scale_sparse;
use super::request::{Query, resolve_vector_name};
use super::scatter::{Effort, ReadSpec, scatter};
use super::search::Sent;
use crate::meta::Collection;
use crate::shard_client::WorkKind;
use crate::shards::ShardAccess;

/// Dimensions to be asked for, of one vector among one set of points, and the queries that need them.
struct Asked {
    using: String,
    corpus: Option<Arc<Filter>>,
    indices: BTreeSet<u32>,
    sent: Vec<usize>,
}

/// Weighs the queries of vectors with the modifier `idf`, and says whether a shard refused because of an old token table.
/// What the queries were weighed without is in their coverage. Fails when a shard does not answer and its query does not
/// allow gaps; not for a refusal, after which the read may be routed anew.
pub(super) async fn weigh(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec<'_>,
    queries: &[Query],
    sent: &mut [Sent],
) -> Result<bool> {
    let mut groups: Vec<Asked> = Vec::new();
    for (at, one) in sent.iter().enumerate() {
        let query = &queries[one.place];
        let schema = resolve_vector_name(&collection.schema, &query.using)?;
        if schema.kind != (VectorKind::Sparse { idf: true }) {
            continue;
        }
        let known = groups.iter().position(|group| group.using == query.using && group.corpus == query.idf_corpus);
        let known = known.unwrap_or_else(|| {
            let (using, corpus) = (query.using.clone(), query.idf_corpus.clone());
            groups.push(Asked { using, corpus, indices: BTreeSet::new(), sent: Vec::new() });
            groups.len() - 1
        });
        groups[known].indices.extend(indices_of(&one.query.goal));
        groups[known].sent.push(at);
    }
    let shards: Vec<ShardId> = collection.shard_ids().collect();
    let mut is_stale = false;
    for Asked { using, corpus, indices, sent: places } in groups {
        let indices: Arc<Vec<u32>> = Arc::new(indices.into_iter().collect());
        let effort = Effort { kind: WorkKind::Count, units: 1 };
        let gathered = scatter(access, collection, spec, effort, &shards, |api, context| {
            let vector_name = using.clone();
            let (indices, filter) = (indices.clone(), corpus.clone());
            let request = FrequencyRequest { context, vector_name, indices, filter };
            async move { api.frequencies(request).await }
        })
        .await;
        if gathered.is_stale() {
            is_stale = true;
        } else {
            for at in &places {
                gathered.coverage.check(queries[sent[*at].place].allow_partial)?;
            }
        }
        let weights = weights(&indices, gathered.answers.iter().map(|(_, frequencies)| frequencies));
        for at in places {
            scale_sparse(&mut sent[at].query.goal, &|index| weights.get(&index).copied().unwrap_or(1.0));
            sent[at].weighed = Some(gathered.coverage.clone());
        }
    }
    Ok(is_stale)
}

fn indices_of(goal: &Goal) -> Vec<u32> {
    let sparse = goal.vectors().into_iter().filter_map(|vector| match vector {
        Vector::Sparse(SparseVector { indices, .. }) => Some(indices.iter().copied()),
        Vector::Dense(_) | Vector::Multi(_) => None,
    });
    sparse.flatten().collect()
}

fn weights<'a>(indices: &[u32], of_shards: impl Iterator<Item = &'a Frequencies>) -> BTreeMap<u32, f32> {
    let mut points = 0.0;
    let mut found = vec![0.0; indices.len()];
    for frequencies in of_shards {
        points += frequencies.points as f64;
        found.iter_mut().zip(&frequencies.of).for_each(|(sum, count)| *sum += *count as f64);
    }
    let weight = |found: f64| ((points - found + 0.5) / (found + 0.5) + 1.0).ln() as f32;
    indices.iter().copied().zip(found.into_iter().map(weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_dimensions_weigh_more() {
        let shards = [Frequencies { points: 6, of: vec![1, 6] }, Frequencies { points: 4, of: vec![0, 4] }];
        let weights = weights(&[3, 9], shards.iter());
        assert!((weights[&3] - (9.5f32 / 1.5 + 1.0).ln()).abs() < 1e-6);
        assert!((weights[&9] - (0.5f32 / 10.5 + 1.0).ln()).abs() < 1e-6);
    }
}
