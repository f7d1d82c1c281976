//! Which points of a random sample are near to each other.

use std::sync::Arc;

use tokio::time::Instant;
use vicinal_common::api::{PointParts, VectorSelector};
use vicinal_common::distance::Kernel;
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::Filter;
use vicinal_common::limits::{COMPARED_COMPONENTS_MAX, MATRIX_SAMPLE_MAX};
use vicinal_common::metric::Metric;
use vicinal_common::point::PointId;
use vicinal_common::vector::Vector;

use super::diversify::usual_components;
use super::gather::Coverage;
use super::read::retrieve;
use super::request::resolve_vector_name;
use super::sample::sample_ids;
use super::scatter::ReadSpec;
use crate::off_thread::off_thread;
use crate::shards::{Lookup, ShardAccess};

/// What to compare.
#[derive(Clone, Debug)]
pub struct MatrixRequest {
    /// Name of the vector compared; `""` is the unnamed one.
    pub using: String,
    /// Which points the sample is taken from.
    pub filter: Option<Arc<Filter>>,
    /// Points in the sample, 2 to [`MATRIX_SAMPLE_MAX`].
    pub sample: usize,
    /// Neighbours of each, at least 1.
    pub limit: usize,
    /// Whether an answer that misses shards is wanted.
    pub allow_partial: bool,
}

/// The points of a sample and their neighbours in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// The sample, in id order; empty when there are fewer than two points.
    pub ids: Vec<PointId>,
    /// For each point of the sample its nearest others, best first: their places in `ids` and their scores.
    pub neighbours: Vec<Vec<(usize, f32)>>,
}

impl MatrixRequest {
    /// Checks the bounds that need no collection.
    pub fn check(&self) -> Result<()> {
        let refuse = |field: &str, message: String| Err(Error::Validation { field: field.into(), message });
        if self.limit == 0 {
            return refuse("limit", "value 0 invalid, must be 1 or larger".into());
        }
        if !(2..=MATRIX_SAMPLE_MAX).contains(&self.sample) {
            let text = format!("value {} invalid, must be from 2 to {MATRIX_SAMPLE_MAX}", self.sample);
            return refuse("sample", text);
        }
        Ok(())
    }
}

/// Takes a sample and compares each point with each other, exactly.
pub async fn matrix(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    request: &MatrixRequest,
) -> Result<(Matrix, Coverage)> {
    request.check()?;
    let collection = lookup()?;
    let vector = resolve_vector_name(&collection.schema, &request.using)?;
    let (metric, dim) = (vector.metric, usual_components(vector));
    let components = request.sample.saturating_mul(dim);
    if components > COMPARED_COMPONENTS_MAX {
        let message = format!(
            "{} vectors of {dim} values have {components} components, allowed are {COMPARED_COMPONENTS_MAX} or fewer",
            request.sample
        );
        return Err(Error::Validation { field: "sample".into(), message });
    }
    let sampled = sample_ids(access, lookup, spec, &request.using, request.filter.as_ref(), request.sample).await?;
    let (ids, mut coverage) = sampled;
    coverage.check(request.allow_partial)?;
    let parts = PointParts { payload: false, vectors: VectorSelector::Named(vec![request.using.clone()]) };
    let (points, fetched) = retrieve(access, lookup, spec, &ids, &parts).await?;
    coverage.add(&fetched);
    coverage.check(request.allow_partial)?;
    // A point that is gone by now, or whose vector is, is not in the sample.
    let with_vector = points.into_iter().filter_map(|mut point| {
        let vector = point.vectors.remove(&request.using)?;
        Some((point.id, vector))
    });
    let (ids, vectors): (Vec<PointId>, Vec<Vector>) = with_vector.unzip();
    if ids.len() < 2 {
        return Ok((Matrix::default(), coverage));
    }
    let (limit, deadline) = (request.limit, spec.deadline);
    let neighbours = off_thread(move || neighbours(metric, &vectors, limit, deadline)).await?;
    Ok((Matrix { ids, neighbours }, coverage))
}

/// The nearest others of each vector. All are of one kind and dimension; sparse ones that share nothing are no neighbours.
fn neighbours(metric: Metric, vectors: &[Vector], limit: usize, deadline: Instant) -> Result<Vec<Vec<(usize, f32)>>> {
    let kernel = Kernel::new(metric);
    let mut rows = Vec::with_capacity(vectors.len());
    for (place, vector) in vectors.iter().enumerate() {
        if Instant::now() >= deadline {
            return Err(Error::Timeout("the points of the sample could not be compared in time".into()));
        }
        let others = vectors.iter().enumerate().filter(|(other, _)| *other != place);
        let between = |their: &Vector| kernel.between(vector.as_ref(), their.as_ref());
        let mut row: Vec<(usize, f32)> = others.filter_map(|(other, their)| Some((other, between(their)?))).collect();
        // Places are in id order, which decides between equal distances.
        row.sort_unstable_by(|(a, near), (b, far)| near.total_cmp(far).then(a.cmp(b)));
        row.truncate(limit);
        row.iter_mut().for_each(|(_, distance)| *distance = metric.score(*distance));
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn neighbours_are_the_nearest_others() {
        let vectors: Vec<Vector> = [0.0, 1.0, 3.0, 1.0].map(|x| vec![x, 0.0].into()).into();
        let later = Instant::now() + Duration::from_secs(60);
        let rows = neighbours(Metric::Euclid, &vectors, 2, later).unwrap();
        assert_eq!(rows[0], [(1, 1.0), (3, 1.0)]);
        assert_eq!(rows[1], [(3, 0.0), (0, 1.0)]);
        assert_eq!(rows[2], [(1, 2.0), (3, 2.0)]);
        let rows = neighbours(Metric::Dot, &vectors, 9, later).unwrap();
        assert_eq!(rows[1], [(2, 3.0), (3, 1.0), (0, 0.0)]);
        assert!(neighbours(Metric::Dot, &vectors, 9, Instant::now()).is_err(), "no time is left");
    }
}
