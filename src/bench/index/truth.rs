//! The exact answers that recall is measured against: read and checked, or computed.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use vicinal_common::metric::Metric;
use vicinal_index::{Accept, FlatIndex, Hit, Rows, SearchParams, Searched, VectorIndex};

use super::report::Point;
use super::set;
use crate::bench::npy::Matrix;

/// Queries of a file of neighbours that are answered exactly to see whether it fits the vectors and the metric.
const CHECKED: usize = 5;
/// Relative difference of two distances that counts as equal: whoever made the file summed in another order.
const SLACK: f32 = 1e-3;

/// Where exact neighbours may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Origin<'a> {
    /// From the data set in this folder if it lists enough of them.
    Listed(&'a Path),
    /// The vectors are not those of the set, or its lists are not wanted.
    Computed,
}

/// The exact neighbours of each query, nearest first.
pub(in crate::bench) struct Truth(Vec<Vec<u32>>);

impl Truth {
    /// Of hits that are exact.
    pub(in crate::bench) fn of_hits(answers: &[Vec<Hit>]) -> Truth {
        Truth(answers.iter().map(|hits| hits.iter().map(|hit| hit.row).collect()).collect())
    }

    /// Of the first `k` columns of a file. Negative rows at the end of a list say that there are no more.
    pub(in crate::bench) fn of_rows(listed: &Matrix<i32>, k: usize, rows: usize) -> anyhow::Result<Truth> {
        ensure!(listed.columns >= k, "it lists {} neighbours for each query, --k is {k}", listed.columns);
        let lists = (0..listed.rows()).map(|query| {
            let list = listed.row(query)[..k].iter().take_while(|row| **row >= 0);
            list.map(|row| {
                let row = row.unsigned_abs();
                ensure!((row as usize) < rows, "query {query} lists row {row}, there are {rows} rows");
                Ok(row)
            })
            .collect()
        });
        lists.collect::<anyhow::Result<_>>().map(Truth)
    }

    /// The `k` nearest rows: those that a data set lists, computed on `threads` threads otherwise.
    pub(in crate::bench) fn find(
        origin: Origin<'_>,
        rows: Rows<'_>,
        queries: &Matrix<f32>,
        metric: Metric,
        (k, threads): (usize, usize),
    ) -> anyhow::Result<Truth> {
        if let Origin::Listed(folder) = origin
            && let Some((path, listed)) = set::listed_neighbours(folder, queries.rows())?
        {
            let truth = Truth::of_rows(&listed, k, rows.len());
            let truth = truth.and_then(|truth| truth.check(rows, queries, metric).map(|()| truth));
            return truth.with_context(|| {
                format!("{} does not fit (another --metric, or --compute-truth, may help)", path.display())
            });
        }
        Ok(Truth::compute(rows, queries, metric, k, threads))
    }

    /// Computed on `threads` threads.
    pub(super) fn compute(rows: Rows<'_>, queries: &Matrix<f32>, metric: Metric, k: usize, threads: usize) -> Truth {
        let flat = FlatIndex::new(metric);
        let params = SearchParams::new(k, k);
        let answers =
            in_parallel(queries.rows(), threads, |query| flat.search(rows, queries.row(query), params, Accept::All));
        Truth::of_hits(&answers)
    }

    /// Whether it fits: for the first queries, the k-th listed neighbour is no farther than the k-th nearest row.
    pub(in crate::bench) fn check(&self, rows: Rows<'_>, queries: &Matrix<f32>, metric: Metric) -> anyhow::Result<()> {
        let kernel = vicinal_common::distance::Kernel::new(metric);
        for query in 0..CHECKED.min(self.0.len()) {
            let vector = queries.row(query);
            let listed = &self.0[query];
            let farthest = listed.iter().map(|row| kernel.distance(vector, rows.row(*row))).fold(f32::MIN, f32::max);
            let params = SearchParams::new(listed.len(), listed.len());
            let exact = FlatIndex::new(metric).search(rows, vector, params, Accept::All);
            let exact = exact.last().context("a query has no neighbours")?.distance;
            ensure!(
                farthest <= exact + SLACK * exact.abs().max(farthest.abs()),
                "these are not the nearest rows by this metric: of query {query} the last listed row is at distance \
                 {farthest}, the exact one at {exact}"
            );
        }
        Ok(())
    }

    /// The rows nearest to each query.
    pub(in crate::bench) fn neighbours(&self) -> &[Vec<u32>] {
        &self.0
    }

    /// What is reported of searches that took turns at so many a second.
    pub(super) fn point(&self, ef: Option<usize>, qps: f64, answers: &[Searched]) -> Point {
        let distances: u64 = answers.iter().map(|answer| answer.distances).sum();
        Point { ef, recall: self.recall(answers), qps, distances: distances as f64 / answers.len().max(1) as f64 }
    }

    /// Mean share of the exact neighbours that were found.
    fn recall(&self, answers: &[Searched]) -> f64 {
        let wanted: usize = self.0.iter().map(Vec::len).sum();
        let found =
            self.0.iter().zip(answers).map(|(exact, found)| {
                found.hits.iter().take(exact.len()).filter(|hit| exact.contains(&hit.row)).count()
            });
        found.sum::<usize>() as f64 / wanted.max(1) as f64
    }
}

/// `answer(0), answer(1), ...` computed by several threads.
pub(in crate::bench) fn in_parallel<T: Send>(n: usize, threads: usize, answer: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut answers = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= n {
                return answers;
            }
            answers.push((number, answer(number)));
        }
    };
    let mut numbered: Vec<(usize, T)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("the workers do not panic")).collect()
    });
    numbered.sort_unstable_by_key(|(number, _)| *number);
    numbered.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTS: Rows<'static> = Rows { data: &[0.0, 1.0, 2.0, 10.0], dim: 1 };

    fn query() -> Matrix<f32> {
        Matrix { columns: 1, values: vec![1.2, 9.0] }
    }

    #[test]
    fn computed_truth_passes_its_own_check_and_has_full_recall() {
        let truth = Truth::compute(POINTS, &query(), Metric::Euclid, 2, 2);
        assert_eq!(truth.0, [[1, 2], [3, 2]]);
        truth.check(POINTS, &query(), Metric::Euclid).unwrap();
        let hit = |row| Hit { distance: 0.0, row };
        let found = |hits: Vec<Hit>| Searched { distances: hits.len() as u64, hits };
        assert_eq!(truth.recall(&[found(vec![hit(2), hit(1)]), found(vec![hit(3), hit(0)])]), 0.75);
        assert_eq!(truth.recall(&[found(vec![]), found(vec![hit(3)])]), 0.25);
        let point = truth.point(Some(7), 2.0, &[found(vec![]), found(vec![hit(3)])]);
        assert_eq!((point.ef, point.recall, point.qps, point.distances), (Some(7), 0.25, 2.0, 0.5));
    }

    #[test]
    fn listed_rows_are_checked() {
        let listed = |values: &[i32]| Matrix { columns: 2, values: values.to_vec() };
        let good = Truth::of_rows(&listed(&[1, 2, 3, -1]), 2, 4).unwrap();
        assert_eq!(good.0, [vec![1, 2], vec![3]]);
        assert!(Truth::of_rows(&listed(&[1, 2, 3, 2]), 3, 4).is_err());
        assert!(Truth::of_rows(&listed(&[1, 4, 3, 2]), 2, 4).is_err());
        let wrong = Truth::of_rows(&listed(&[1, 3, 3, 2]), 2, 4).unwrap();
        assert!(wrong.check(POINTS, &query(), Metric::Euclid).is_err());
    }
}
