//! A data set on disk: which files are its vectors, queries and exact neighbours, and which metric they are for.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use vicinal_common::metric::Metric;
use vicinal_index::Rows;

use super::texmex;
use crate::bench::npy::{self, Matrix};

/// Names of the files, the first that exists counts; `*` stands for the name of the set, as in `sift_base.fvecs`.
const BASE: [&str; 6] = ["base.npy", "base_u8.npy", "base.fvecs", "base.bvecs", "*_base.fvecs", "*_base.bvecs"];
const QUERIES: [&str; 6] =
    ["query.npy", "query_u8.npy", "query.fvecs", "query.bvecs", "*_query.fvecs", "*_query.bvecs"];
const TRUTH: [&str; 4] = ["gt.npy", "gt.ivecs", "groundtruth.ivecs", "*_groundtruth.ivecs"];

/// A metric by the name that benchmarks know it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::bench) enum MetricName {
    L2,
    Cosine,
    Ip,
    L1,
}

impl MetricName {
    /// The metric of a well-known set, L2 for all others.
    pub(in crate::bench) fn of_set(name: &str) -> MetricName {
        if name.starts_with("twotower") {
            MetricName::Ip
        } else if name.ends_with("-angular") || name.starts_with("minilm") {
            MetricName::Cosine
        } else {
            MetricName::L2
        }
    }

    pub(in crate::bench) fn metric(self) -> Metric {
        match self {
            MetricName::L2 => Metric::Euclid,
            MetricName::Cosine => Metric::Cosine,
            MetricName::Ip => Metric::Dot,
            MetricName::L1 => Metric::Manhattan,
        }
    }

    pub(in crate::bench) fn name(self) -> &'static str {
        match self {
            MetricName::L2 => "l2",
            MetricName::Cosine => "cosine",
            MetricName::Ip => "ip",
            MetricName::L1 => "l1",
        }
    }
}

/// The name of a set is that of its folder.
pub(in crate::bench) fn name_of(dir: &Path) -> anyhow::Result<String> {
    let whole = dir.canonicalize().with_context(|| format!("cannot open {}", dir.display()))?;
    ensure!(whole.is_dir(), "{} is no directory", dir.display());
    let name = whole.file_name().with_context(|| format!("{} has no name", dir.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

/// The queries, prepared for the metric.
pub(in crate::bench) fn queries(dir: &Path, metric: Metric, limit: usize) -> anyhow::Result<Matrix<f32>> {
    let path = find(dir, &QUERIES)?.with_context(|| missing(dir, "queries", &QUERIES))?;
    vectors(&path, metric, limit)
}

/// The vectors to index, prepared for the metric and placed as in a segment.
pub(in crate::bench) fn base(dir: &Path, metric: Metric, limit: usize, dim: usize) -> anyhow::Result<Base> {
    let path = find(dir, &BASE)?.with_context(|| missing(dir, "vectors", &BASE))?;
    let matrix = vectors(&path, metric, limit)?;
    ensure!(matrix.columns == dim, "{} has {} dimensions, the queries have {dim}", path.display(), matrix.columns);
    Ok(Base::aligned(matrix))
}

/// The neighbours that a file of the set lists for each query, with the file's name, if it has one.
pub(in crate::bench) fn listed_neighbours(
    dir: &Path,
    queries: usize,
) -> anyhow::Result<Option<(PathBuf, Matrix<i32>)>> {
    let Some(path) = find(dir, &TRUTH)? else { return Ok(None) };
    let rows = match texmex::extension(&path) {
        "npy" => npy::read_rows(&path, queries)?,
        _ => texmex::read_rows(&path, queries)?,
    };
    ensure!(rows.rows() >= queries, "{} has {} rows for {queries} queries", path.display(), rows.rows());
    Ok(Some((path, rows)))
}

/// Vectors whose first row starts at a cache line, as the rows of a segment do.
pub(in crate::bench) struct Base {
    values: Vec<f32>,
    start: usize,
    dim: usize,
}

impl Base {
    /// Bytes of a cache line.
    const LINE: usize = 64;

    /// Moves the values within their own allocation: a second one would show in the memory that is measured.
    pub(in crate::bench) fn aligned(matrix: Matrix<f32>) -> Base {
        let Matrix { columns: dim, mut values } = matrix;
        let len = values.len();
        values.reserve_exact(Base::LINE / size_of::<f32>());
        // At most the reserved length; where the allocator gives no answer, unaligned is only slower.
        let start = values.as_ptr().align_offset(Base::LINE).min(Base::LINE / size_of::<f32>());
        values.resize(len + start, 0.0);
        values.copy_within(0..len, start);
        Base { values, start, dim }
    }

    pub(in crate::bench) fn rows(&self) -> Rows<'_> {
        Rows { data: &self.values[self.start..], dim: self.dim }
    }
}

fn vectors(path: &Path, metric: Metric, limit: usize) -> anyhow::Result<Matrix<f32>> {
    let mut matrix = match texmex::extension(path) {
        "npy" => npy::read_vectors(path, limit)?,
        _ => texmex::read_vectors(path, limit)?,
    };
    ensure!(matrix.rows() > 0, "{} holds no vectors", path.display());
    for (row, vector) in matrix.values.chunks_exact_mut(matrix.columns).enumerate() {
        if vector.iter().any(|value| !value.is_finite()) {
            bail!("{}: row {row} holds a value that is no finite number", path.display());
        }
        metric.prepare(vector);
    }
    Ok(matrix)
}

fn missing(dir: &Path, what: &str, names: &[&str]) -> String {
    format!("{} holds no {what}: none of {}", dir.display(), names.join(", "))
}

fn find(dir: &Path, names: &[&str]) -> anyhow::Result<Option<PathBuf>> {
    for name in names {
        let Some(ending) = name.strip_prefix('*') else {
            let path = dir.join(name);
            if path.exists() {
                return Ok(Some(path));
            }
            continue;
        };
        let mut found = Vec::new();
        for entry in dir.read_dir().with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ending)) {
                found.push(path);
            }
        }
        ensure!(found.len() <= 1, "{} holds {} files of the form {name}", dir.display(), found.len());
        if let Some(path) = found.pop() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_well_known_sets() {
        for (name, metric) in [
            ("fashion-mnist", MetricName::L2),
            ("glove-100-angular", MetricName::Cosine),
            ("minilm-384", MetricName::Cosine),
            ("twotower-128", MetricName::Ip),
            ("clustered-128", MetricName::L2),
            ("sift", MetricName::L2),
        ] {
            assert_eq!(MetricName::of_set(name), metric, "{name}");
        }
    }

    fn write(dir: &Path, name: &str, values: &[f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let length = (values.len() as i32).to_le_bytes();
        std::fs::write(dir.join(name), [&length[..], &bytes].concat()).unwrap();
    }

    #[test]
    fn a_set_in_the_usual_names_is_found_and_prepared() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "sift_base.fvecs", &[3.0, 4.0]);
        write(dir.path(), "sift_query.fvecs", &[0.0, 2.0]);
        assert_eq!(queries(dir.path(), Metric::Cosine, 9).unwrap().values, [0.0, 1.0]);
        let base = base(dir.path(), Metric::Cosine, 9, 2).unwrap();
        assert_eq!(base.rows().row(0), [0.6, 0.8]);
        assert_eq!(base.rows().data.as_ptr().align_offset(64), 0);
        assert!(listed_neighbours(dir.path(), 1).unwrap().is_none());
        std::fs::write(dir.path().join("sift_groundtruth.ivecs"), [1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(listed_neighbours(dir.path(), 1).unwrap().unwrap().1.values, [0]);
        assert!(listed_neighbours(dir.path(), 2).is_err());
    }

    #[test]
    fn broken_sets_are_refused_by_name_and_reason() {
        let dir = tempfile::tempdir().unwrap();
        let reason = |result: anyhow::Result<Matrix<f32>>| format!("{:#}", result.unwrap_err());
        assert!(reason(queries(dir.path(), Metric::Dot, 9)).contains("holds no queries: none of query.npy"));
        write(dir.path(), "query.fvecs", &[1.0, f32::NAN]);
        assert!(reason(queries(dir.path(), Metric::Dot, 9)).contains("query.fvecs: row 0 holds a value"));
        write(dir.path(), "base.fvecs", &[1.0, 2.0, 3.0]);
        let error = format!("{:#}", base(dir.path(), Metric::Dot, 9, 2).err().unwrap());
        assert!(error.contains("base.fvecs has 3 dimensions, the queries have 2"), "{error}");
        write(dir.path(), "a_query.bvecs", &[]);
        write(dir.path(), "b_query.bvecs", &[]);
        std::fs::remove_file(dir.path().join("query.fvecs")).unwrap();
        assert!(reason(queries(dir.path(), Metric::Dot, 9)).contains("holds 2 files of the form *_query.bvecs"));
    }
}
