//! Filters to search with: synthetic ones of a chosen selectivity and correlation with the queries, and those of a data
//! set with payloads.

use std::path::Path;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use vicinal_common::distance::Kernel;
use vicinal_common::metric::Metric;
use vicinal_index::{Hit, RowSet, Rows};

use super::condition::{Condition, matching_rows};
use super::npz;
use super::truth::{Truth, in_parallel};
use crate::bench::npy::Matrix;

/// The pivots are the same in each run.
const SEED: u64 = 7;
/// Regions that positive filters are drawn around.
const PIVOTS: usize = 10;
/// Most memory for the bitmaps of one workload, in bytes; negative filters have one for each query.
const MASK_BYTES_MAX: usize = 512 << 20;
/// What the filters of a data set are read from: the conditions, their exact answers, the payloads.
pub(super) const FILES: [&str; 3] = ["filtered_gt.json", "filtered_gt.npz", "meta.jsonl"];

/// How the matches of a filter lie to the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FilterKind {
    /// Matches are scattered at random
    Independent,
    /// Matches are the rows nearest to a region, and the queries come from it
    Positive,
    /// Matches are the rows farthest from the query
    Negative,
    /// The filters of the data set: filtered_gt.npz, filtered_gt.json, meta.jsonl
    File,
}

/// Searches with one filter, or with filters of one kind and selectivity.
pub(super) struct Workload {
    pub(super) name: String,
    /// Share of accepted rows.
    pub(super) selectivity: f64,
    masks: Vec<RowSet>,
    /// The query and the mask of each search.
    searches: Vec<(usize, usize)>,
    /// Exact answers that come with the data set.
    pub(super) truth: Option<Truth>,
}

impl Workload {
    pub(super) fn len(&self) -> usize {
        self.searches.len()
    }

    /// Number of the query and the mask of a search.
    pub(super) fn search(&self, number: usize) -> (usize, &RowSet) {
        let (query, mask) = self.searches[number];
        (query, &self.masks[mask])
    }

    /// The queries in order of the searches.
    pub(super) fn queries(&self) -> Vec<usize> {
        self.searches.iter().map(|(query, _)| *query).collect()
    }

    /// Accepted rows, on average.
    pub(super) fn matches(&self) -> f64 {
        self.masks.iter().map(RowSet::count).sum::<usize>() as f64 / self.masks.len() as f64
    }
}

/// What the filters are made of.
pub(super) struct Material<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) queries: &'a Matrix<f32>,
    pub(super) metric: Metric,
    pub(super) threads: usize,
}

impl Material<'_> {
    /// A synthetic workload.
    pub(super) fn synthetic(&self, kind: FilterKind, selectivity: f64) -> Workload {
        let rows = self.rows.len();
        let wanted = ((rows as f64 * selectivity).round() as usize).clamp(1, rows);
        let queries = self.queries.rows();
        let (masks, searches) = match kind {
            FilterKind::Independent | FilterKind::File => {
                let mut order: Vec<(u64, u32)> = (0..rows as u64).map(scattered).zip(0..).collect();
                order.sort_unstable();
                let mask = RowSet::of(rows, order[..wanted].iter().map(|(_, row)| *row));
                (vec![mask], (0..queries).map(|query| (query, 0)).collect())
            }
            FilterKind::Positive => self.around_pivots(wanted),
            FilterKind::Negative => {
                let masks = (MASK_BYTES_MAX / rows.div_ceil(8)).clamp(1, queries);
                let far = |query| self.mask_of_extreme(self.queries.row(query), wanted, End::Farthest);
                (in_parallel(masks, self.threads, far), (0..masks).map(|query| (query, query)).collect())
            }
        };
        let name = kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        Workload { name, selectivity, masks, searches, truth: None }
    }

    /// Around each of several random queries: its nearest rows match, its nearest queries ask.
    fn around_pivots(&self, wanted: usize) -> (Vec<RowSet>, Vec<(usize, usize)>) {
        let queries = self.queries.rows();
        let mut rng = StdRng::seed_from_u64(SEED);
        let pivots: Vec<usize> = (0..PIVOTS.min(queries)).map(|_| rng.random_range(0..queries)).collect();
        let near = |i: usize| self.mask_of_extreme(self.queries.row(pivots[i]), wanted, End::Nearest);
        let masks = in_parallel(pivots.len(), self.threads, near);
        let all = Rows { data: &self.queries.values, dim: self.queries.columns };
        let share = queries.div_ceil(pivots.len());
        let mut searches = Vec::new();
        for (mask, pivot) in pivots.iter().enumerate() {
            // Queries are compared with each other: by their inner product the longest would be near to all.
            let near = extreme(Metric::Euclid, all, all.row(*pivot as u32), share, End::Nearest);
            searches.extend(near.into_iter().map(|query| (query as usize, mask)));
        }
        (masks, searches)
    }

    fn mask_of_extreme(&self, pivot: &[f32], wanted: usize, end: End) -> RowSet {
        RowSet::of(self.rows.len(), extreme(self.metric, self.rows, pivot, wanted, end))
    }

    /// The filters of a data set with payloads. Their exact answers come with it and are used for a k that they suffice
    /// for.
    pub(super) fn of_files(&self, dir: &Path, k: usize) -> anyhow::Result<Vec<Workload>> {
        let (rows, queries) = (self.rows.len(), self.queries.rows());
        let [path, archive, payloads] = FILES.map(|name| dir.join(name));
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let described: std::collections::BTreeMap<String, Described> =
            serde_json::from_str(&text).with_context(|| format!("{} has not the expected form", path.display()))?;
        let conditions = described.values().map(|filter| Condition::parse(&filter.filter));
        let conditions = conditions.collect::<anyhow::Result<Vec<_>>>();
        let conditions = conditions.with_context(|| path.display().to_string())?;
        let matching = matching_rows(&payloads, &conditions, rows)?;
        let listed = npz::read_rows(&archive, queries)?;

        let mut workloads = Vec::new();
        for ((name, filter), accepted) in described.into_iter().zip(matching) {
            ensure!(
                accepted.len() == filter.matching_rows,
                "{}: `{}` matches {} rows of meta.jsonl, not {}",
                path.display(),
                filter.filter,
                accepted.len(),
                filter.matching_rows
            );
            let (_, neighbours) = listed
                .iter()
                .find(|(listed, _)| *listed == name)
                .with_context(|| format!("{} has no member `{name}`", archive.display()))?;
            let place = || format!("{}, member `{name}`", archive.display());
            ensure!(neighbours.rows() >= queries, "{}: {} rows for {queries} queries", place(), neighbours.rows());
            let truth = (neighbours.columns >= k).then(|| Truth::of_rows(neighbours, k, rows));
            let truth = truth.transpose().with_context(place)?;
            workloads.push(Workload {
                selectivity: accepted.len() as f64 / rows as f64,
                masks: vec![RowSet::of(rows, accepted)],
                searches: (0..queries).map(|query| (query, 0)).collect(),
                truth,
                name,
            });
        }
        Ok(workloads)
    }
}

/// A filter in `filtered_gt.json`.
#[derive(Deserialize)]
struct Described {
    filter: String,
    matching_rows: usize,
}

/// Which end of the order of distances.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Nearest,
    Farthest,
}

/// The `wanted` rows nearest to or farthest from a pivot, in no order.
fn extreme(metric: Metric, rows: Rows<'_>, pivot: &[f32], wanted: usize, end: End) -> Vec<u32> {
    let kernel = Kernel::new(metric);
    let mut distances = vec![0.0; rows.len()];
    kernel.distances(pivot, rows.data, rows.dim, &mut distances);
    let mut hits: Vec<Hit> = distances.into_iter().zip(0..).map(|(distance, row)| Hit { distance, row }).collect();
    let wanted = wanted.min(hits.len());
    if wanted < hits.len() {
        hits.select_nth_unstable_by(wanted, |a, b| match end {
            End::Nearest => a.cmp_total(b),
            End::Farthest => b.cmp_total(a),
        });
    }
    hits[..wanted].iter().map(|hit| hit.row).collect()
}

/// A number that looks random and depends only on the row (the finaliser of splitmix64).
fn scattered(row: u64) -> u64 {
    let mut x = row.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use vicinal_index::{FlatIndex, SearchParams, VectorIndex};

    use super::*;

    /// Points 0, 1, 2, ... on a line.
    fn line() -> Vec<f32> {
        (0..1_000).map(|i| i as f32).collect()
    }

    #[test]
    fn synthetic_filters_have_their_selectivity_and_correlation() {
        let data = line();
        let queries = Matrix { columns: 1, values: (0..40).map(|i| i as f32 * 25.0).collect() };
        let rows = Rows { data: &data, dim: 1 };
        let material = Material { rows, queries: &queries, metric: Metric::Euclid, threads: 2 };

        let scattered = material.synthetic(FilterKind::Independent, 0.1);
        assert_eq!(scattered.len(), 40);
        assert_eq!(scattered.matches(), 100.0);

        let near = material.synthetic(FilterKind::Positive, 0.1);
        assert_eq!((near.len(), near.matches()), (40, 100.0));
        let far = material.synthetic(FilterKind::Negative, 0.1);
        assert_eq!((far.len(), far.matches()), (40, 100.0));
        let mean_gap = |workload: &Workload| {
            let gaps = (0..workload.len()).map(|number| {
                let (query, mask) = workload.search(number);
                let params = SearchParams::new(1, 1);
                let nearest = FlatIndex::new(Metric::Euclid).search(rows, queries.row(query), params, mask.accept());
                nearest[0].distance.sqrt()
            });
            gaps.sum::<f32>() / workload.len() as f32
        };
        assert!(mean_gap(&near) < 60.0, "{}", mean_gap(&near));
        assert!(mean_gap(&far) > 400.0, "{}", mean_gap(&far));
    }

    #[test]
    fn a_selectivity_of_nearly_nothing_still_matches_a_row() {
        let data = line();
        let queries = Matrix { columns: 1, values: vec![3.0] };
        let rows = Rows { data: &data, dim: 1 };
        let material = Material { rows, queries: &queries, metric: Metric::Euclid, threads: 1 };
        let near = material.synthetic(FilterKind::Positive, 1e-9);
        let (query, mask) = near.search(0);
        assert_eq!((query, mask.count(), mask.accept().contains(3)), (0, 1, true));
    }
}
