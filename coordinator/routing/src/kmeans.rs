//! k-means: cells of points around means, in bounded rounds.
//!
//! Lloyd's rounds from random points; for cosine means are brought to unit length (spherical k-means; Dhillon and Modha,
//! Concept decompositions, 2001). Points carry weights, so that centroids can be clustered by the size of their cells. For
//! Dot cells are those of L2 (see `space.rs`).

use rayon::prelude::*;
use vicinal_common::metric::Metric;
use vicinal_index::{Accept, Rows};

use crate::finder::Finder;
use crate::random::{Random, sample_rows};
use crate::space;

/// Points that a task assigns; small enough to share out evenly, and any size gives the same result.
const TASK_POINTS: usize = 512;

/// How to cluster.
#[derive(Clone, Copy, Debug)]
pub struct KMeansOptions {
    /// Cells wanted, at least 1. There are fewer when there are not so many different points.
    pub k: usize,
    /// Rounds at most.
    pub rounds: usize,
    /// It ends early when no more than this share of the weight changed its cell in a round.
    pub settled: f64,
    /// Seed of the points it begins with.
    pub seed: u64,
}

impl KMeansOptions {
    /// 25 rounds, or until less than one point in a thousand moves.
    pub fn new(k: usize, seed: u64) -> KMeansOptions {
        KMeansOptions { k, rounds: 25, settled: 1e-3, seed }
    }
}

/// The cells of some points.
#[derive(Clone, Debug, PartialEq)]
pub struct Clusters {
    /// Values per centroid.
    pub dim: usize,
    /// Row-major, one row for each cell; unit length for cosine.
    pub centroids: Vec<f32>,
    /// Total weight of each cell; positive if the weights of points are.
    pub weights: Vec<f64>,
    /// Length from the centroid to its farthest point, for each cell.
    pub radius: Vec<f32>,
    /// The cell of each point.
    pub owner: Vec<u32>,
}

impl Clusters {
    /// The centroids as rows.
    pub fn rows(&self) -> Rows<'_> {
        Rows { data: &self.centroids, dim: self.dim }
    }
}

/// Clusters points. `weights` has one positive value for each point; `None` weighs them alike.
pub fn cluster(points: Rows<'_>, weights: Option<&[f64]>, metric: Metric, options: KMeansOptions) -> Clusters {
    assert!(weights.is_none_or(|weights| weights.len() == points.len()), "one weight for each point");
    let metric = space::placing(metric);
    let weight = |point: u32| weights.map_or(1.0, |weights| weights[point as usize]);
    let total: f64 = weights.map_or(points.len() as f64, |weights| weights.iter().sum());
    let mut random = Random::new(options.seed);
    let mut centroids: Vec<f32> = sample_rows(points.len(), options.k.max(1), random.next())
        .into_iter()
        .flat_map(|row| points.row(row).iter().copied())
        .collect();
    let mut owner = vec![u32::MAX; points.len()];
    for _ in 0..options.rounds {
        let before = owner;
        owner = assign(points, Rows { data: &centroids, dim: points.dim }, metric).0;
        let moved = (0..owner.len()).filter(|i| owner[*i] != before[*i]).map(|i| weight(i as u32)).sum::<f64>();
        let cells = Cells::new(&owner, centroids.len() / points.dim);
        means(points, &cells, &weight, metric, &mut centroids);
        let filled = fill_empty(points, &cells, &weight, &mut random, &mut centroids);
        if filled == 0 && moved <= options.settled * total {
            break;
        }
    }
    finish(points, &weight, metric, centroids)
}

/// The last assignment; cells that nothing is nearest to are left out.
fn finish(points: Rows<'_>, weight: &impl Fn(u32) -> f64, metric: Metric, centroids: Vec<f32>) -> Clusters {
    let dim = points.dim;
    let (mut owner, distances) = assign(points, Rows { data: &centroids, dim }, metric);
    let cells = Cells::new(&owner, centroids.len() / dim);
    let mut clusters =
        Clusters { dim, centroids: Vec::new(), weights: Vec::new(), radius: Vec::new(), owner: Vec::new() };
    let mut renamed = vec![u32::MAX; cells.len()];
    for (cell, name) in renamed.iter_mut().enumerate() {
        let members = cells.members(cell);
        if members.is_empty() {
            continue;
        }
        *name = clusters.weights.len() as u32;
        clusters.centroids.extend_from_slice(&centroids[cell * dim..(cell + 1) * dim]);
        clusters.weights.push(members.iter().map(|point| weight(*point)).sum());
        let far = members.iter().map(|point| distances[*point as usize]).fold(f32::MIN, f32::max);
        clusters.radius.push(space::length(metric, far));
    }
    owner.iter_mut().for_each(|cell| *cell = renamed[*cell as usize]);
    clusters.owner = owner;
    clusters
}

/// The nearest centroid of each point, and its internal distance.
pub(crate) fn assign(points: Rows<'_>, centroids: Rows<'_>, metric: Metric) -> (Vec<u32>, Vec<f32>) {
    let finder = Finder::new(centroids, metric);
    let nearest = |point: &[f32]| finder.nearest(centroids, point, 1, Accept::All).first().copied();
    points
        .data
        .par_chunks_exact(points.dim)
        .with_min_len(TASK_POINTS)
        .map(|point| nearest(point).map_or((0, f32::MAX), |hit| (hit.row, hit.distance)))
        .unzip()
}

/// The points of each cell, ascending.
struct Cells {
    /// Where each cell begins in `points`, and the end of the last.
    starts: Vec<usize>,
    points: Vec<u32>,
}

impl Cells {
    fn new(owner: &[u32], cells: usize) -> Cells {
        let mut starts = vec![0; cells + 1];
        for cell in owner {
            starts[*cell as usize + 1] += 1;
        }
        for cell in 0..cells {
            starts[cell + 1] += starts[cell];
        }
        let (mut next, mut points) = (starts.clone(), vec![0; owner.len()]);
        for (point, cell) in owner.iter().enumerate() {
            points[next[*cell as usize]] = point as u32;
            next[*cell as usize] += 1;
        }
        Cells { starts, points }
    }

    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    fn members(&self, cell: usize) -> &[u32] {
        &self.points[self.starts[cell]..self.starts[cell + 1]]
    }
}

/// Moves each centroid to the mean of its cell; an empty cell keeps its own. Summed in the order of the points, in f64: the
/// same on any number of threads.
fn means(
    points: Rows<'_>,
    cells: &Cells,
    weight: &(impl Fn(u32) -> f64 + Sync),
    metric: Metric,
    centroids: &mut [f32],
) {
    centroids.par_chunks_exact_mut(points.dim).enumerate().for_each_init(
        || vec![0f64; points.dim],
        |sums, (cell, centroid)| {
            sums.fill(0.0);
            let mut total = 0.0;
            for point in cells.members(cell) {
                let weight = weight(*point);
                total += weight;
                for (sum, x) in sums.iter_mut().zip(points.row(*point)) {
                    *sum += weight * f64::from(*x);
                }
            }
            let divisor = match metric {
                Metric::Cosine => sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt(),
                Metric::Dot | Metric::Euclid | Metric::Manhattan => total,
            };
            // Opposite unit vectors have no direction in common.
            if divisor > 0.0 {
                for (x, sum) in centroid.iter_mut().zip(sums.iter()) {
                    *x = (sum / divisor) as f32;
                }
            }
        },
    );
}

/// Gives each empty cell a point of the heaviest one, which counts as halved from then on. Returns how many were filled.
fn fill_empty(
    points: Rows<'_>,
    cells: &Cells,
    weight: &impl Fn(u32) -> f64,
    random: &mut Random,
    centroids: &mut [f32],
) -> usize {
    let is_empty = |cell: &usize| cells.members(*cell).is_empty();
    if !(0..cells.len()).any(|cell| is_empty(&cell)) {
        return 0;
    }
    let mut sizes: Vec<f64> =
        (0..cells.len()).map(|cell| cells.members(cell).iter().map(|point| weight(*point)).sum()).collect();
    let mut filled = 0;
    for empty in (0..cells.len()).filter(is_empty) {
        // The first of equals, so that the result does not depend on how the maximum is found.
        let heaviest = (0..sizes.len())
            .filter(|cell| cells.members(*cell).len() > 1)
            .rev()
            .max_by(|a, b| sizes[*a].total_cmp(&sizes[*b]));
        let Some(heaviest) = heaviest else { break };
        let members = cells.members(heaviest);
        let point = members[random.below(members.len())];
        centroids[empty * points.dim..][..points.dim].copy_from_slice(points.row(point));
        sizes[heaviest] /= 2.0;
        filled += 1;
    }
    filled
}

#[cfg(test)]
mod tests {
    use vicinal_common::distance::Kernel;

    use super::*;
    use crate::testing::{METRICS, on_threads, points};

    #[test]
    fn places_are_found_and_every_point_is_in_its_nearest_cell() {
        for metric in METRICS {
            let data = points(2_000, 8, 10, metric, 5);
            let rows = Rows { data: &data, dim: 8 };
            let clusters = cluster(rows, None, metric, KMeansOptions::new(40, 1));
            assert!((30..=40).contains(&clusters.weights.len()));
            assert_eq!(clusters.weights.iter().sum::<f64>(), 2_000.0);
            assert!(clusters.weights.iter().all(|weight| *weight >= 1.0));
            let kernel = Kernel::new(space::placing(metric));
            for point in (0..2_000).step_by(97) {
                let distance = |cell: u32| kernel.distance(rows.row(point), clusters.rows().row(cell));
                let own = distance(clusters.owner[point as usize]);
                assert!((0..clusters.weights.len() as u32).all(|cell| own <= distance(cell)));
                let radius = clusters.radius[clusters.owner[point as usize] as usize];
                assert!(space::length(space::placing(metric), own) <= radius);
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let data = points(3_000, 12, 30, Metric::Cosine, 9);
        let rows = Rows { data: &data, dim: 12 };
        let run = |threads| on_threads(threads, || cluster(rows, None, Metric::Cosine, KMeansOptions::new(150, 4)));
        assert_eq!(run(1), run(3));
        assert_ne!(run(2).centroids, cluster(rows, None, Metric::Cosine, KMeansOptions::new(150, 5)).centroids);
    }

    #[test]
    fn few_or_equal_points_give_fewer_cells() {
        let data = vec![1.0f32; 40];
        let clusters = cluster(Rows { data: &data, dim: 2 }, None, Metric::Euclid, KMeansOptions::new(5, 1));
        assert_eq!((clusters.weights.len(), clusters.radius[0]), (1, 0.0));
        let data = [0.0, 10.0, 11.0];
        let clusters = cluster(Rows { data: &data, dim: 1 }, None, Metric::Euclid, KMeansOptions::new(9, 1));
        assert_eq!(clusters.weights, [1.0; 3]);
        let none = cluster(Rows { data: &[], dim: 4 }, None, Metric::Euclid, KMeansOptions::new(9, 1));
        assert!(none.weights.is_empty() && none.owner.is_empty());
    }

    #[test]
    fn weights_pull_the_means() {
        let data = [0.0, 1.0];
        let options = KMeansOptions::new(1, 1);
        let clusters = cluster(Rows { data: &data, dim: 1 }, Some(&[1.0, 3.0]), Metric::Euclid, options);
        assert_eq!((clusters.centroids[0], clusters.weights[0]), (0.75, 4.0));
    }

    #[test]
    fn an_empty_cell_is_filled_from_the_heaviest() {
        let data = [0.0, 0.1, 0.2, 5.0];
        let points = Rows { data: &data, dim: 1 };
        let mut centroids = [0.1, 5.0, 99.0];
        let cells = Cells::new(&[0, 0, 0, 1], 3);
        assert_eq!(fill_empty(points, &cells, &|_| 1.0, &mut Random::new(1), &mut centroids), 1);
        assert!(centroids[2] < 1.0);
    }
}
