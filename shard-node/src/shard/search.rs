//! Nearest neighbours in a view: each run by itself, then the best of all.

use vicinal_common::api::{NearestQuery, ShardHit};
use vicinal_common::distance::Kernel;
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::Filter;
use vicinal_common::ids::LogIndex;
use vicinal_common::metric::Metric;
use vicinal_index::{Accept, FlatIndex, Hit, RowSet, SearchParams, TopK, VectorIndex};

use super::matching::Matcher;
use super::select::{Reading, RunRef};
use super::view::View;
use crate::payload_index::Selection;
use crate::segment::{Source, Vectors};

/// So few rows that may match, but have to be tested, are scanned instead of looked for in the graph: ADR 11.
const SCAN_ROWS_MAX: u64 = 10_000;
/// The same as a share of all rows: one in so many.
const SCAN_SHARE: u64 = 32;

/// A query whose names are resolved.
struct Plan<'a> {
    query: &'a NearestQuery,
    ordinal: usize,
    metric: Metric,
    params: SearchParams,
}

impl View {
    /// The nearest points to the query, best first: by distance, then by id. Exact in runs without an index.
    /// `BadInput` when there is no vector of that name or its dimension is another.
    pub fn search(&self, query: &NearestQuery) -> Result<Vec<ShardHit>> {
        self.search_on(query, 1)
    }

    /// The same; a scan may be spread over so many threads of the pool of rayon that it runs in.
    pub fn search_on(&self, query: &NearestQuery, threads: usize) -> Result<Vec<ShardHit>> {
        let plan = self.plan(query, threads)?;
        if query.k == 0 {
            return Ok(Vec::new());
        }
        let mut hits = Vec::new();
        match query.filter.as_deref().and_then(Filter::ids) {
            Some(ids) => {
                let mut ids = ids.to_vec();
                ids.sort_unstable();
                ids.dedup();
                for id in ids {
                    if let Some((source, row)) = self.locate(id) {
                        hits.extend(self.score(&plan, source, row)?);
                    }
                }
            }
            None => {
                for segment in &self.segments {
                    let index = segment.indexes[plan.ordinal].as_ref().map(|index| &index.hnsw as &dyn VectorIndex);
                    self.search_run(&plan, RunRef::Segment(segment), index, &mut hits)?;
                }
                for fresh in &self.fresh {
                    self.search_run(&plan, RunRef::Fresh(fresh), None, &mut hits)?;
                }
            }
        }
        if let Some(limit) = query.distance_max {
            hits.retain(|hit| hit.distance <= limit);
        }
        hits.sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
        hits.truncate(query.k);
        Ok(hits)
    }

    fn plan<'a>(&self, query: &'a NearestQuery, threads: usize) -> Result<Plan<'a>> {
        let Some(ordinal) = self.layout.ordinal(&query.vector_name) else {
            let name = &query.vector_name;
            return Err(Error::BadInput(format!("Not existing vector name error: {name}")));
        };
        let vector = &self.layout.vectors[ordinal];
        if vector.dim != query.vector.len() {
            let (expected, got) = (vector.dim, query.vector.len());
            return Err(Error::BadInput(format!("Vector dimension error: expected dim: {expected}, got {got}")));
        }
        // As clients of the API expect: the beam of a query is the beam of the build unless they say otherwise.
        let ef = query.ef.or(vector.hnsw.map(|hnsw| hnsw.ef_construction)).unwrap_or(0).max(query.k);
        let params = SearchParams { k: query.k, ef, exact: query.exact, threads };
        Ok(Plan { query, ordinal, metric: vector.metric, params })
    }

    /// Adds the best rows of one run.
    fn search_run(
        &self,
        plan: &Plan<'_>,
        run: RunRef<'_>,
        index: Option<&dyn VectorIndex>,
        hits: &mut Vec<ShardHit>,
    ) -> Result<()> {
        let source = run.source();
        let vectors = source.run.vectors(plan.ordinal);
        if vectors.rows.is_empty() || source.dead.count() == source.run.rows() {
            return Ok(());
        }
        let alive = |row: u32| !source.dead.contains(row) && vectors.present.contains(row);
        let count = vectors.present.count().saturating_sub(u64::from(source.dead.count())) as usize;
        let live = match count == vectors.rows.len() {
            true => Accept::All,
            false => Accept::Test { test: &alive, count: Some(count) },
        };
        let (query, params) = (&plan.query.vector, plan.params);
        let filter = plan.query.filter.as_deref();
        let flat = FlatIndex::new(plan.metric);
        let found = if filter.is_none() {
            index.unwrap_or(&flat).search(vectors.rows, query, params, live)
        } else {
            let matcher = self.matcher(run, filter, Reading::Some)?;
            let rows_max = matcher.selection().map(Selection::rows_max);
            let decided = matcher.selection().filter(|selection| selection.open().is_empty());
            let is_few =
                rows_max.is_some_and(|few| few <= SCAN_ROWS_MAX.max(u64::from(source.run.rows()) / SCAN_SHARE));
            match (index, decided) {
                (Some(index), Some(selection)) => {
                    let with_vector = selection.sure().iter().filter(|row| vectors.present.contains(*row));
                    let set = RowSet::of(vectors.rows.len(), with_vector);
                    index.search(vectors.rows, query, params, set.accept())
                }
                (Some(index), None) if !is_few && !params.exact => {
                    let matcher = matcher.remember();
                    let accept = |row: u32| alive(row) && matcher.accepts(row);
                    let found = index.search(vectors.rows, query, params, Accept::test(&accept));
                    matcher.finish()?;
                    found
                }
                (Some(_) | None, _) => {
                    let rows = matcher.candidates(source.dead, 0).filter(|row| vectors.present.contains(*row));
                    let found = scan_matching(plan, vectors, rows, &matcher);
                    matcher.finish()?;
                    found
                }
            }
        };
        let (ids, versions) = (source.run.ids(), source.run.versions());
        hits.extend(found.into_iter().map(|Hit { distance, row }| ShardHit {
            distance,
            id: ids.get(row),
            version: LogIndex(versions[row as usize]),
        }));
        Ok(())
    }

    /// Scores one live row, if it has the vector and matches.
    fn score(&self, plan: &Plan<'_>, source: Source<'_>, row: u32) -> Result<Option<ShardHit>> {
        let Some(vector) = source.run.vectors(plan.ordinal).get(row) else { return Ok(None) };
        if !Matcher::of(plan.query.filter.as_deref(), source.run, &self.layout).check(row)? {
            return Ok(None);
        }
        let distance = Kernel::new(plan.metric).distance(&plan.query.vector, vector);
        let version = LogIndex(source.run.versions()[row as usize]);
        Ok(Some(ShardHit { distance, id: source.run.ids().get(row), version }))
    }
}

/// An exact scan that scores before it filters: a payload is parsed only when its row would be among the best, which
/// is about `k * ln(rows / k)` times instead of once per row.
fn scan_matching(
    plan: &Plan<'_>,
    vectors: Vectors<'_>,
    rows: impl Iterator<Item = u32>,
    matcher: &Matcher<'_>,
) -> Vec<Hit> {
    let kernel = Kernel::new(plan.metric);
    let mut best = TopK::new(plan.params.k, vectors.rows.len());
    for row in rows {
        let hit = Hit { distance: kernel.distance(&plan.query.vector, vectors.rows.row(row)), row };
        if best.would_take(&hit) && matcher.accepts(row) {
            best.push(hit);
        }
    }
    best.into_sorted()
}
