//! Nearest neighbours in a view: each run by itself, then the best of all.

use std::cell::OnceCell;
use std::cmp::Ordering;

use rayon::prelude::*;
use vicinal_common::api::{SearchQuery, ShardHit};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::Filter;
use vicinal_common::ids::LogIndex;
use vicinal_common::vector::{SparseRef, VectorRef};
use vicinal_index::hnsw::HnswIndex;
use vicinal_index::sparse::score_rows;
use vicinal_index::{Accept, FlatIndex, Hit, RowSet, SearchParams, TopK, VectorIndex};

use super::goal::GoalScorer;
use super::matching::Matcher;
use super::patience::{Patience, ROW_COST};
use super::select::{Reading, RunRef};
use super::view::View;
use crate::payload_index::Selection;
use crate::segment::{Source, Vectors};

/// So few rows that may match, but have to be tested, are scanned instead of looked for in the graph: ADR 11.
const SCAN_ROWS_MAX: u64 = 10_000;
/// The same as a share of all rows: one in so many.
const SCAN_SHARE: u64 = 32;
/// So few rows that may match are scored by their sparse vectors instead of looked for in the inverted index.
const SPARSE_ROWS_MAX: u64 = 1_000;
/// Pieces of a scan for each thread, so that all are busy to the end.
const PIECES_PER_THREAD: usize = 4;
/// Work in a piece at least, in nanoseconds: less is not worth a hand-over.
const PIECE_COST_MIN: u64 = 1_000_000;
/// Work after which patience is asked, in nanoseconds.
const WORK_TOLD: u64 = 200_000;

/// A query whose names are resolved.
struct Plan<'a> {
    query: &'a SearchQuery,
    ordinal: usize,
    scorer: GoalScorer<'a>,
    params: SearchParams,
    patience: &'a Patience,
}

/// The best hits of the runs searched so far.
struct Best {
    k: usize,
    /// In no order. A view has one live row of each id.
    hits: Vec<ShardHit>,
    /// What is farther is not among the best, or too far in any case.
    limit: f32,
}

impl Best {
    /// Adds the best hits of a run. Those of the runs so far say how far a hit of the next may be: its payload is not read
    /// in vain.
    fn add(&mut self, hits: impl Iterator<Item = ShardHit>) {
        self.hits.extend(hits);
        if self.hits.len() > self.k {
            self.hits.select_nth_unstable_by(self.k - 1, order);
            self.hits.truncate(self.k);
        }
        if self.hits.len() == self.k {
            let last = self.hits.iter().map(|hit| hit.distance).max_by(f32::total_cmp);
            self.limit = last.map_or(self.limit, |last| self.limit.min(last));
        }
    }

    fn into_sorted(self) -> Vec<ShardHit> {
        let Best { k, mut hits, limit } = self;
        hits.retain(|hit| hit.distance <= limit);
        hits.sort_unstable_by(order);
        hits.truncate(k);
        hits
    }
}

/// Nearest first, then by id.
fn order(a: &ShardHit, b: &ShardHit) -> Ordering {
    a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id))
}

impl View {
    /// The nearest points to the query, best first: by distance, then by id. Exact in runs without an index.
    /// `BadInput` when there is no vector of that name or its dimension is another.
    pub fn search(&self, query: &SearchQuery) -> Result<Vec<ShardHit>> {
        self.search_on(query, 1, &Patience::endless())
    }

    /// The same; a long scan may be spread over so many threads of rayon's global pool.
    pub fn search_on(&self, query: &SearchQuery, threads: usize, patience: &Patience) -> Result<Vec<ShardHit>> {
        let plan = self.plan(query, threads, patience)?;
        self.know_clusters(query.filter.as_deref(), patience)?;
        if query.k == 0 {
            return Ok(Vec::new());
        }
        let mut found = Best { k: query.k, hits: Vec::new(), limit: query.distance_max.unwrap_or(f32::INFINITY) };
        match query.filter.as_deref().and_then(Filter::ids) {
            Some(ids) => {
                let mut ids = ids.to_vec();
                ids.sort_unstable();
                ids.dedup();
                for id in ids {
                    if let Some((source, row)) = self.locate(id) {
                        found.hits.extend(self.score(&plan, source, row)?);
                    }
                }
            }
            None => {
                for segment in &self.segments {
                    let index = segment.indexes[plan.ordinal].as_ref().map(|index| &index.hnsw);
                    self.search_run(&plan, RunRef::Segment(segment), index, &mut found)?;
                }
                for fresh in &self.fresh {
                    self.search_run(&plan, RunRef::Fresh(fresh), None, &mut found)?;
                }
            }
        }
        Ok(found.into_sorted())
    }

    fn plan<'a>(&self, query: &'a SearchQuery, threads: usize, patience: &'a Patience) -> Result<Plan<'a>> {
        let Some(ordinal) = self.layout.ordinal(&query.vector_name) else {
            let name = &query.vector_name;
            return Err(Error::BadInput(format!("Not existing vector name error: {name}")));
        };
        let vector = &self.layout.vectors[ordinal];
        query.goal.vectors().into_iter().try_for_each(|part| vector.check(part))?;
        // As clients of the API expect: the beam of a query is the beam of the build unless they say otherwise.
        let ef = query.ef.or(vector.hnsw.map(|hnsw| hnsw.ef_construction)).unwrap_or(0).max(query.k);
        let params = SearchParams { k: query.k, ef, exact: query.exact, threads };
        Ok(Plan { query, ordinal, scorer: GoalScorer::new(&query.goal, vector), params, patience })
    }

    /// Adds the best rows of one run.
    fn search_run(&self, plan: &Plan<'_>, run: RunRef<'_>, index: Option<&HnswIndex>, best: &mut Best) -> Result<()> {
        let source = run.source();
        let vectors = source.run.vectors(plan.ordinal);
        if vectors.present.count() == 0 || source.dead.count() == source.run.rows() {
            return Ok(());
        }
        let found = match plan.scorer.nearest_sparse() {
            Some(sparse) => self.search_postings(plan, sparse, run)?,
            None => self.search_vectors(plan, vectors, (run, index), best.limit)?,
        };
        let (ids, versions) = (source.run.ids(), source.run.versions());
        best.add(found.into_iter().map(|Hit { distance, row }| ShardHit {
            distance,
            id: ids.get(row),
            version: LogIndex(versions[row as usize]),
        }));
        Ok(())
    }

    /// The best rows for a goal on dense vectors and multivectors; those beyond `limit` may be missing.
    fn search_vectors(
        &self,
        plan: &Plan<'_>,
        vectors: Vectors<'_>,
        (run, index): (RunRef<'_>, Option<&HnswIndex>),
        limit: f32,
    ) -> Result<Vec<Hit>> {
        let source = run.source();
        let alive = |row: u32| !source.dead.contains(row) && vectors.present.contains(row);
        let count = vectors.present.count().saturating_sub(u64::from(source.dead.count())) as usize;
        let params = plan.params;
        let filter = plan.query.filter.as_deref();
        let dense = plan.scorer.nearest_dense();
        let among = |accept: Accept<'_>| match (index, dense) {
            (Some(index), Some(query)) => Ok(index.search(vectors.rows, query, params, accept)),
            (Some(index), None) if !params.exact => {
                // What comes after the end of patience is not worth computing, nor shown.
                let late = OnceCell::new();
                let distance = |row: u32| {
                    let vector = VectorRef::Dense(vectors.rows.row(row));
                    match plan.patience.spend(plan.scorer.cost(vector)) {
                        Ok(()) => plan.scorer.distance(vector),
                        Err(error) => {
                            let _ = late.set(error);
                            f32::INFINITY
                        }
                    }
                };
                let found = index.search_by(&distance, params, accept).hits;
                late.into_inner().map_or(Ok(found), Err)
            }
            (None, Some(query)) => plan.scan_dense(vectors, query, accept),
            (_, None) => plan.scan(vectors, accept.iter(source.run.rows() as usize), limit, &|_| true),
        };
        if filter.is_none() {
            return among(match count == source.run.rows() as usize {
                true => Accept::All,
                false => Accept::Test { test: &alive, count: Some(count) },
            });
        }
        let matcher = self.matcher(run, filter, Reading::Some)?;
        let rows_max = matcher.selection().map(Selection::rows_max);
        let decided = matcher.selection().filter(|selection| selection.open().is_empty());
        let is_few = rows_max.is_some_and(|few| few <= SCAN_ROWS_MAX.max(u64::from(source.run.rows()) / SCAN_SHARE));
        match (index, decided) {
            (Some(_), Some(selection)) => {
                let with_vector = selection.sure().iter().filter(|row| vectors.present.contains(*row));
                let set = RowSet::of(vectors.rows.len(), with_vector);
                among(set.accept())
            }
            (Some(_), None) if !is_few && !params.exact => {
                let matcher = matcher.remember();
                let accept = |row: u32| alive(row) && matcher.accepts(row);
                let found = among(Accept::test(&accept))?;
                matcher.finish()?;
                Ok(found)
            }
            (Some(_) | None, _) => {
                let rows = matcher.candidates(source.dead, 0).filter(|row| vectors.present.contains(*row));
                let found = plan.scan(vectors, rows, limit, &|row| matcher.accepts(row))?;
                matcher.finish()?;
                Ok(found)
            }
        }
    }

    /// The best rows by inner product with a sparse vector, by the inverted index, or row by row where few may match.
    fn search_postings(&self, plan: &Plan<'_>, query: SparseRef<'_>, run: RunRef<'_>) -> Result<Vec<Hit>> {
        let source = run.source();
        let (vectors, k) = (source.run.vectors(plan.ordinal), plan.params.k);
        let matcher = self.matcher(run, plan.query.filter.as_deref(), Reading::Some)?;
        let few = matcher.selection().map(Selection::rows_max).filter(|few| *few <= SPARSE_ROWS_MAX);
        let accept = |row: u32| !source.dead.contains(row) && matcher.accepts(row);
        // A fresh run makes its postings when it is asked for them.
        let postings = if few.is_none() { source.run.postings(plan.ordinal) } else { None };
        let found = match postings {
            Some(postings) => postings.search(query, k, Accept::test(&accept)),
            None => {
                let rows = matcher.candidates(source.dead, 0);
                let sparse = rows.filter_map(|row| match vectors.get(row) {
                    Some(VectorRef::Sparse(sparse)) => Some((row, sparse)),
                    Some(VectorRef::Dense(_) | VectorRef::Multi(_)) | None => None,
                });
                score_rows(source.run.rows() as usize, sparse, query, k, Accept::test(&accept))
            }
        };
        matcher.finish()?;
        Ok(found)
    }

    /// Scores one live row, if it has the vector and matches.
    fn score(&self, plan: &Plan<'_>, source: Source<'_>, row: u32) -> Result<Option<ShardHit>> {
        let Some(vector) = source.run.vectors(plan.ordinal).get(row) else { return Ok(None) };
        if !Matcher::of(plan.query.filter.as_deref(), source.run, &self.layout).check(row)? {
            return Ok(None);
        }
        plan.patience.spend(plan.scorer.cost(vector))?;
        let Some(distance) = plan.scorer.hit_distance(vector) else { return Ok(None) };
        let version = LogIndex(source.run.versions()[row as usize]);
        Ok(Some(ShardHit { distance, id: source.run.ids().get(row), version }))
    }
}

impl Plan<'_> {
    /// An exact scan of dense vectors, of which there may be as many as a shard has. `Timeout` when patience ends.
    fn scan_dense(&self, vectors: Vectors<'_>, query: &[f32], accept: Accept<'_>) -> Result<Vec<Hit>> {
        let cost = if vectors.rows.is_empty() { 0 } else { self.scorer.cost(VectorRef::Dense(vectors.rows.row(0))) };
        let goes_on = |rows: usize| self.patience.spend(cost.saturating_mul(rows as u64)).is_ok();
        let flat = FlatIndex::new(self.scorer.metric());
        let found = flat.search_while(vectors.rows, query, self.params, accept, &goes_on);
        // Says so if it has ended.
        self.patience.spend(0).map(|()| found)
    }

    /// An exact scan that scores before it filters: a payload is parsed only when its row would be among the best and is not
    /// beyond `limit`, which is about `k * ln(rows / k)` times instead of once per row. Large ones are spread over the threads
    /// that there are. `Timeout` when patience ends.
    fn scan(
        &self,
        vectors: Vectors<'_>,
        rows: impl Iterator<Item = u32>,
        limit: f32,
        accepts: &(dyn Fn(u32) -> bool + Sync),
    ) -> Result<Vec<Hit>> {
        let rows: Vec<u32> = rows.collect();
        let cost = rows.iter().find_map(|row| vectors.get(*row)).map_or(1, |vector| self.scorer.cost(vector));
        let least = usize::try_from(PIECE_COST_MIN / cost).unwrap_or(usize::MAX).max(1);
        let piece = rows.len().div_ceil(self.params.threads.max(1) * PIECES_PER_THREAD).max(least);
        if self.params.threads <= 1 || rows.len() <= piece {
            return self.scan_piece(vectors, &rows, limit, accepts);
        }
        let pieces = rows.par_chunks(piece).map(|rows| self.scan_piece(vectors, rows, limit, accepts));
        let mut best = TopK::new(self.params.k, rows.len());
        for hits in pieces.collect::<Result<Vec<_>>>()? {
            for hit in hits {
                best.push(hit);
            }
        }
        Ok(best.into_sorted())
    }

    fn scan_piece(
        &self,
        vectors: Vectors<'_>,
        rows: &[u32],
        limit: f32,
        accepts: &(dyn Fn(u32) -> bool + Sync),
    ) -> Result<Vec<Hit>> {
        let mut best = TopK::new(self.params.k, rows.len());
        // Threads share the count: it is told of work by the millisecond.
        let mut work = 0;
        for row in rows {
            let Some(vector) = vectors.get(*row) else { continue };
            work += self.scorer.cost(vector);
            let hit = Hit { distance: self.scorer.distance(vector), row: *row };
            if hit.distance <= limit && best.would_take(&hit) {
                work += ROW_COST;
                if accepts(*row) {
                    best.push(hit);
                }
            }
            if work >= WORK_TOLD {
                self.patience.spend(std::mem::take(&mut work))?;
            }
        }
        Ok(best.into_sorted())
    }
}
