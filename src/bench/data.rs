//! The vectors of a measurement: a data set's files or random ones.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Source;
use super::npy::{self, Matrix};

/// Random vectors are the same in each run.
const SEED: u64 = 7;

/// The vectors to store, at most `limit`.
pub(super) fn base(source: &Source, limit: usize) -> anyhow::Result<Matrix<f32>> {
    match (&source.data, source.random) {
        (Some(dir), _) => npy::read_vectors(&either(dir, "base")?, limit),
        (None, Some(rows)) => random(rows.min(limit), source.dim, SEED),
        (None, None) => anyhow::bail!("say where the vectors come from: --data DIR or --random N --dim D"),
    }
}

/// The queries of a data set, at most `limit`, and their exact answers when the set has them.
pub(super) fn queries(dir: &Path, limit: usize) -> anyhow::Result<(Matrix<f32>, Option<Matrix<i32>>)> {
    let queries = npy::read_vectors(&either(dir, "query")?, limit)?;
    let truth = dir.join("gt.npy");
    let truth = if truth.exists() { Some(npy::read_rows(&truth, limit)?) } else { None };
    Ok((queries, truth))
}

/// Queries that differ from the stored random vectors.
pub(super) fn random_queries(rows: usize, dim: usize) -> anyhow::Result<Matrix<f32>> {
    random(rows, dim, SEED + 1)
}

/// Uniform in 0..1, the same for each seed.
pub(super) fn random(rows: usize, columns: usize, seed: u64) -> anyhow::Result<Matrix<f32>> {
    ensure!(rows > 0 && columns > 0, "{rows} vectors of dimension {columns} are nothing to measure with");
    let mut rng = StdRng::seed_from_u64(seed);
    Ok(Matrix { columns, values: (0..rows * columns).map(|_| rng.random::<f32>()).collect() })
}

fn either(dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let names = [format!("{name}.npy"), format!("{name}_u8.npy")];
    let found = names.iter().map(|name| dir.join(name)).find(|path| path.exists());
    found.with_context(|| format!("{} holds neither {} nor {}", dir.display(), names[0], names[1]))
}
