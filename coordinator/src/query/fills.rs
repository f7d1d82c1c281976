//! How many queries for the hits of single groups go into one batch. The bounds on what a request may ask for are for
//! clients: a batch made here keeps within them by itself. Pure.

use vicinal_common::collection::CollectionSchema;
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::Filter;
use vicinal_common::limits::{BATCH_QUERIES_MAX, COMPARED_COMPONENTS_MAX, GOAL_COMPONENTS_MAX};

use super::diversify::usual_components;
use super::examples::{components_at_most, mentioned};
use super::request::{Source, resolve_vector_name};
use super::tree::QueryTree;

/// Bytes of JSON that all filters of a batch take together. Each is a copy of the client's, with a condition more.
const FILTER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What one tree adds to a batch.
#[derive(Debug, Default, PartialEq)]
struct Weight {
    /// Queries, prefetches among them.
    queries: usize,
    /// Components of the vectors it is made of, at most.
    components: usize,
    /// Components of the candidates that `mmr` chooses from.
    candidates: usize,
    /// Bytes of filters, each as often as it is copied.
    filter_bytes: usize,
}

/// How many trees like this one may be run in one batch, at least 1, each with a filter like `filter` in the place of its
/// own and for `limit` hits.
pub(super) fn at_once(schema: &CollectionSchema, tree: &QueryTree, filter: &Filter, limit: usize) -> Result<usize> {
    let mut weight = Weight::default();
    weigh(schema, tree, limit, &mut weight)?;
    // It holds for all prefetches.
    let bytes = weight.queries.saturating_mul(json_bytes(filter)?);
    weight.filter_bytes = weight.filter_bytes.saturating_add(bytes);
    let replaced = tree.query.filter.as_deref().map_or(Ok(0), json_bytes)?;
    weight.filter_bytes = weight.filter_bytes.saturating_sub(replaced);
    let bounds = [
        (BATCH_QUERIES_MAX, weight.queries),
        (GOAL_COMPONENTS_MAX, weight.components),
        (COMPARED_COMPONENTS_MAX, weight.candidates),
        (FILTER_BYTES_MAX, weight.filter_bytes),
    ];
    Ok(bounds.into_iter().map(|(most, each)| most / each.max(1)).fold(BATCH_QUERIES_MAX, usize::min).max(1))
}

fn weigh(schema: &CollectionSchema, tree: &QueryTree, limit: usize, weight: &mut Weight) -> Result<()> {
    let query = &tree.query;
    weight.queries += 1;
    if query.source.is_search() || matches!(query.source, Source::Mmr { .. }) {
        let vector = resolve_vector_name(schema, &query.using)?;
        let components = mentioned(&query.source, &|example| Ok(components_at_most(example, vector)))?;
        weight.components = weight.components.saturating_add(components);
        if let Source::Mmr { mmr, .. } = &query.source {
            let candidates = mmr.candidates(limit).saturating_mul(usual_components(vector));
            weight.candidates = weight.candidates.saturating_add(candidates);
        }
    }
    if let Some(filter) = &query.filter {
        weight.filter_bytes = weight.filter_bytes.saturating_add(json_bytes(filter)?);
    }
    tree.prefetch.iter().try_for_each(|prefetch| weigh(schema, prefetch, prefetch.query.limit, weight))
}

fn json_bytes(filter: &Filter) -> Result<usize> {
    let text = serde_json::to_string(filter);
    text.map(|text| text.len()).map_err(|error| Error::Internal(format!("a filter cannot be encoded: {error}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use vicinal_common::api::PointParts;
    use vicinal_common::collection::{HnswConfig, VectorSchema};
    use vicinal_common::filter::{Condition, SortedSet};
    use vicinal_common::metric::Metric;
    use vicinal_common::point::{PointId, UNNAMED};

    use super::super::mmr::Mmr;
    use super::super::request::{Example, Query};
    use super::super::route::Width;
    use super::*;

    fn schema(vector: VectorSchema) -> CollectionSchema {
        CollectionSchema {
            vectors: BTreeMap::from([(UNNAMED.to_owned(), vector)]),
            hnsw: HnswConfig::default(),
            indexing_threshold_kib: 0,
        }
    }

    fn tree(source: Source) -> QueryTree {
        let query = Query {
            source,
            using: String::new(),
            filter: None,
            score_threshold: None,
            limit: 10,
            offset: 0,
            ef: None,
            exact: false,
            oversampling: None,
            idf_corpus: None,
            parts: PointParts::default(),
            width: Width::default(),
            allow_partial: true,
        };
        QueryTree { query, prefetch: Vec::new(), lookup_from: None }
    }

    fn stored() -> Example {
        Example::Point(PointId::Num(1))
    }

    #[test]
    fn small_queries_fill_a_batch() {
        let schema = schema(VectorSchema::dense(128, Metric::Dot));
        let one = tree(Source::Point(PointId::Num(1)));
        assert_eq!(at_once(&schema, &one, &Filter::default(), 10), Ok(BATCH_QUERIES_MAX));
        let two = QueryTree { prefetch: vec![one.clone()], ..one };
        assert_eq!(at_once(&schema, &two, &Filter::default(), 10), Ok(BATCH_QUERIES_MAX / 2));
    }

    #[test]
    fn candidates_of_all_queries_of_a_batch_are_within_the_limit() {
        let schema = schema(VectorSchema::dense(1_024, Metric::Dot));
        let mmr = |candidates| tree(Source::Mmr { target: stored(), mmr: Mmr { diversity: 0.5, candidates } });
        let ask = |candidates, limit| at_once(&schema, &mmr(candidates), &Filter::default(), limit).unwrap();
        assert_eq!(ask(Some(16_384), 10), 2);
        assert_eq!(ask(None, 100), COMPARED_COMPONENTS_MAX / (100 * 1_024));
    }

    #[test]
    fn many_examples_go_into_smaller_batches() {
        let examples = |count| Source::BestScore { positive: vec![(stored(), 1.0); count], negative: Vec::new() };
        let ask = |vector, count| at_once(&schema(vector), &tree(examples(count)), &Filter::default(), 10).unwrap();
        assert_eq!(ask(VectorSchema::dense(1_536, Metric::Dot), 1_000), GOAL_COMPONENTS_MAX / 1_536_000);
        assert_eq!(ask(VectorSchema::dense(65_536, Metric::Dot), 1_000), 1, "never none at all");
        assert_eq!(ask(VectorSchema::sparse(false), 1), 128, "a stored one may be as long as any");
    }

    #[test]
    fn large_filters_are_copied_a_few_times_only() {
        let schema = schema(VectorSchema::dense(2, Metric::Dot));
        let ids = |count: u64| {
            let ids = SortedSet::new((0..count).map(|n| PointId::Num(100_000 + n)).collect());
            Filter { must: vec![Condition::HasId(ids)], ..Filter::default() }
        };
        let large = ids(50_000);
        let one = tree(Source::All);
        let most = at_once(&schema, &one, &large, 10).unwrap();
        assert_eq!(most, FILTER_BYTES_MAX / serde_json::to_string(&large).unwrap().len());
        let mut own = one.clone();
        own.query.filter = Some(Arc::new(ids(90_000)));
        assert_eq!(at_once(&schema, &own, &large, 10), Ok(most), "its own filter is not sent");
        let above = QueryTree { prefetch: vec![own], ..one };
        assert_eq!(at_once(&schema, &above, &large, 10), Ok(FILTER_BYTES_MAX / (2 * 350_000 + 630_000)));
    }
}
