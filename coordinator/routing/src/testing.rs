//! Vectors for tests.

use vicinal_common::metric::Metric;

use crate::random::Random;

pub(crate) const METRICS: [Metric; 4] = [Metric::Cosine, Metric::Dot, Metric::Euclid, Metric::Manhattan];

/// Points around so many places, prepared for the metric. Row-major.
pub(crate) fn points(count: usize, dim: usize, places: usize, metric: Metric, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut draw = |width: f32| (random.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0) * width;
    let centres: Vec<f32> = (0..places * dim).map(|_| draw(4.0)).collect();
    let mut data = Vec::with_capacity(count * dim);
    for i in 0..count {
        let centre = &centres[i % places * dim..][..dim];
        data.extend(centre.iter().map(|x| x + draw(1.0) + draw(1.0)));
    }
    data.chunks_exact_mut(dim).for_each(|row| metric.prepare(row));
    data
}

/// Runs something on a pool of so many threads.
pub(crate) fn on_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
}
