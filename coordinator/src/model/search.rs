//! How a model shard searches: exactly.

use vicinal_common::api::{SearchQuery, ShardHit};
use vicinal_common::metric::Metric;
use vicinal_common::vector::Vector;

use super::ModelShard;

pub(super) fn best(shard: &ModelShard, query: &SearchQuery) -> Vec<ShardHit> {
    let metric = shard.metrics[&query.vector_name];
    let mut hits = Vec::new();
    for (version, point) in shard.points.values().filter(|(_, point)| shard.matches(query.filter.as_deref(), point)) {
        let Some(vector) = point.vectors.get(&query.vector_name) else { continue };
        let is_apart = |part: &Vector| similarity(metric, part, vector).is_none();
        if query.goal.nearest().is_some_and(is_apart) {
            continue;
        }
        let distance = query.goal.distance(|part| similarity(metric, part, vector).unwrap_or(0.0));
        if query.distance_max.is_none_or(|most| distance <= most) {
            hits.push(ShardHit { distance, id: point.id, version: *version });
        }
    }
    hits.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
    hits.truncate(query.k);
    hits
}

/// Larger is nearer; none for sparse vectors that share nothing.
fn similarity(metric: Metric, a: &Vector, b: &Vector) -> Option<f32> {
    match (a, b) {
        (Vector::Dense(a), Vector::Dense(b)) => Some(0.0 - model_distance(metric, a, b)),
        (Vector::Multi(a), Vector::Multi(b)) => {
            let nearest = |a: &[f32]| {
                let distances = b.as_ref().vectors().map(|b| model_distance(metric, a, b));
                distances.fold(f32::INFINITY, f32::min)
            };
            Some(0.0 - a.as_ref().vectors().map(nearest).sum::<f32>())
        }
        (Vector::Sparse(a), Vector::Sparse(b)) => {
            let shared = a.indices.iter().zip(&a.values).filter_map(|(index, value)| {
                let at = b.indices.iter().position(|other| other == index)?;
                Some(value * b.values[at])
            });
            shared.reduce(|sum, product| sum + product)
        }
        _ => panic!("{a:?} and {b:?} are of different kinds"),
    }
}

fn model_distance(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    let pairs = a.iter().zip(b);
    match metric {
        Metric::Euclid => pairs.map(|(a, b)| (a - b) * (a - b)).sum(),
        Metric::Manhattan => pairs.map(|(a, b)| (a - b).abs()).sum(),
        Metric::Cosine | Metric::Dot => -pairs.map(|(a, b)| a * b).sum::<f32>(),
    }
}
