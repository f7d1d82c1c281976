//! The vectors, the queries and their exact answers.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use vicinal_common::metric::Metric;
use vicinal_index::{Accept, FlatIndex, RowSet, Rows, SearchParams, VectorIndex};

use super::args::Serve;
use crate::bench::data;
use crate::bench::index::set::{self, Base, MetricName};
use crate::bench::index::truth::{Truth, in_parallel};
use crate::bench::npy::Matrix;
use crate::rest::Rest;

/// Ids per page when the server is asked which points match a filter.
const PAGE: usize = 10_000;

/// A data set in memory. Vectors are prepared for the metric: those of cosine have unit length, which no server minds.
pub(super) struct Vectors {
    /// Name of the directory, or `random`.
    pub(super) dataset: String,
    pub(super) metric: MetricName,
    /// Where it is needed.
    base: Option<Base>,
    pub(super) queries: Matrix<f32>,
}

impl Vectors {
    pub(super) fn read(serve: &Serve) -> anyhow::Result<Vectors> {
        let limit = serve.set.limit.unwrap_or(usize::MAX);
        if let Some(dir) = &serve.set.data {
            let dataset = set::name_of(dir)?;
            let metric = serve.set.metric.unwrap_or_else(|| MetricName::of_set(&dataset));
            let queries = set::queries(dir, metric.metric(), serve.set.queries)?;
            let base = serve.needs_base().then(|| set::base(dir, metric.metric(), limit, queries.columns));
            return Ok(Vectors { dataset, metric, base: base.transpose()?, queries });
        }
        let rows = serve.set.random.context("say where the vectors come from: --data DIR or --random N --dim D")?;
        let metric = serve.set.metric.unwrap_or(MetricName::L2);
        let (dim, seed) = (serve.set.dim, serve.set.seed);
        let base = serve.needs_base().then(|| random(rows.min(limit), dim, metric.metric(), seed));
        let base = base.transpose()?.map(Base::aligned);
        let queries = random(serve.set.queries, dim, metric.metric(), seed.wrapping_add(1))?;
        Ok(Vectors { dataset: "random".to_owned(), metric, base, queries })
    }

    /// The vectors to be stored. An error where [`Serve::needs_base`] did not see that they are needed.
    pub(super) fn rows(&self) -> anyhow::Result<Rows<'_>> {
        self.base.as_ref().map(Base::rows).context("the vectors were not read")
    }

    /// The exact neighbours of each query among the points that match the filter: those of the data set if it lists
    /// enough and there is no filter, computed otherwise.
    pub(super) fn truth(&self, serve: &Serve, matching: Option<&RowSet>) -> anyhow::Result<Truth> {
        let (rows, k, metric) = (self.rows()?, serve.query.k, self.metric.metric());
        if let Some(dir) = &serve.set.data
            && matching.is_none()
            && serve.set.limit.is_none()
            && !serve.set.compute_truth
            && let Some((path, listed)) = set::listed_neighbours(dir, self.queries.rows())?
        {
            let truth = Truth::of_rows(&listed, k, rows.len());
            let truth = truth.and_then(|truth| truth.check(rows, &self.queries, metric).map(|()| truth));
            return truth.with_context(|| {
                format!("{} does not fit (another --metric, or --compute-truth, may help)", path.display())
            });
        }
        let flat = FlatIndex::new(metric);
        let accept = matching.map_or(Accept::All, RowSet::accept);
        let params = SearchParams::new(k, k);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let search = |query: usize| flat.search(rows, self.queries.row(query), params, accept);
        Ok(Truth::of_hits(&in_parallel(self.queries.rows(), threads, search)))
    }
}

fn random(rows: usize, dim: usize, metric: Metric, seed: u64) -> anyhow::Result<Matrix<f32>> {
    let mut matrix = data::random(rows, dim, seed)?;
    matrix.values.chunks_exact_mut(dim).for_each(|vector| metric.prepare(vector));
    Ok(matrix)
}

/// The points that match a filter by the server's judgement, for the payloads are with the server alone. `rows` is how
/// many points there can be.
pub(super) async fn matching(rest: &Rest, collection: &str, filter: &Value, rows: usize) -> anyhow::Result<RowSet> {
    let mut found = BTreeSet::new();
    let mut offset = Value::Null;
    loop {
        let mut page = json!({"limit": PAGE, "filter": filter, "with_payload": false, "with_vector": false});
        if !offset.is_null() {
            page["offset"] = offset;
        }
        let mut page = rest.post(&format!("{collection}/points/scroll"), &page).await?;
        let before = found.len();
        for point in page["points"].as_array().context("the answer has no points")? {
            found.insert(row_of(&point["id"], rows)?);
        }
        offset = page["next_page_offset"].take();
        if offset.is_null() {
            return Ok(RowSet::of(rows, found));
        }
        ensure!(found.len() > before, "the server's pages of matching points do not end");
    }
}

fn row_of(id: &Value, rows: usize) -> anyhow::Result<u32> {
    let row = id.as_u64().and_then(|row| u32::try_from(row).ok());
    let row = row.filter(|row| (*row as usize) < rows);
    row.with_context(|| format!("the collection holds point {id}, which is none of this data set; see --no-recall"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_vectors_are_prepared_for_the_metric() {
        let matrix = random(3, 4, Metric::Cosine, 1).unwrap();
        for row in 0..3 {
            let length: f32 = matrix.row(row).iter().map(|value| value * value).sum();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
        assert_eq!(random(3, 4, Metric::Dot, 1).unwrap(), random(3, 4, Metric::Dot, 1).unwrap());
        assert_ne!(random(3, 4, Metric::Dot, 1).unwrap(), random(3, 4, Metric::Dot, 2).unwrap());
    }

    #[test]
    fn ids_of_other_points_are_refused() {
        assert_eq!(row_of(&json!(8), 9).unwrap(), 8);
        for id in [json!(9), json!(-1), json!("00000000-0000-0000-0000-000000000001"), json!(1_u64 << 40)] {
            assert!(row_of(&id, 9).is_err(), "{id}");
        }
    }
}
