//! Bodies about clusters.

use std::sync::Arc;

use serde::Deserialize;
use vicinal_common::error::Error;
use vicinal_common::filter::Filter;
use vicinal_common::limits::{CLUSTER_IDS_MAX, CLUSTERS, HISTORY_POINTS_MAX, RESULTS_MAX};
use vicinal_common::point::{PointId, UNNAMED};

use super::super::answer::Failure;
use super::super::selector::WithPayload;
use super::vector::AnyVector;
use crate::query::Example;

/// Clusters shown, or found, when no `limit` is given.
pub(in super::super) const LIMIT_DEFAULT: usize = 100;
/// Nearest clusters, and points of a sample, when no `limit` is given.
const FOUND_DEFAULT: usize = 10;

/// Body of `PUT /collections/{collection}/clusters`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct TrainClustersBody {
    vector: Option<String>,
    count: u64,
}

impl TrainClustersBody {
    /// Vector and count.
    pub(in super::super) fn into_wish(self) -> Result<(String, u32), Failure> {
        let count = usize::try_from(self.count).ok().filter(|count| CLUSTERS.contains(count));
        let count = count.and_then(|count| u32::try_from(count).ok()).ok_or_else(|| {
            let (least, most) = (CLUSTERS.start(), CLUSTERS.end());
            refused("count", format!("value {} invalid, must be from {least} to {most}", self.count))
        })?;
        Ok((self.vector.unwrap_or_else(|| UNNAMED.to_owned()), count))
    }
}

/// Body of `POST /collections/{collection}/clusters/nearest`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NearestClustersBody {
    query: QueryBody,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum QueryBody {
    Point(PointId),
    Vector(AnyVector),
}

impl NearestClustersBody {
    /// What to be near to, and how many clusters.
    pub(in super::super) fn into_query(self) -> Result<(Example, usize), Failure> {
        let query = match self.query {
            QueryBody::Point(id) => Example::Point(id),
            QueryBody::Vector(AnyVector(vector)) => Example::Vector(vector),
        };
        Ok((query, limit(self.limit.unwrap_or(FOUND_DEFAULT), CLUSTER_IDS_MAX)?))
    }
}

/// Body of `POST /collections/{collection}/clusters/sample`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct SampleClustersBody {
    limit: Option<usize>,
    per_cluster: Option<u64>,
    #[serde(default)]
    not_in: Vec<u32>,
    #[serde(default)]
    history: Vec<PointId>,
    version: Option<u64>,
    filter: Option<Filter>,
    with_payload: Option<WithPayload>,
    seed: Option<u64>,
    allow_partial: Option<bool>,
}

/// A sample over clusters that is wanted.
pub(in super::super) struct SampleWanted {
    /// Points.
    pub(in super::super) limit: usize,
    /// Points of each cluster at most.
    pub(in super::super) per_cluster: u64,
    /// Which points; the clusters left out are in it.
    pub(in super::super) filter: Arc<Filter>,
    /// What to show of each.
    pub(in super::super) with_payload: WithPayload,
    /// Another seed, another choice; by chance when there is none.
    pub(in super::super) seed: Option<u64>,
    /// Whether an answer that misses shards is wanted.
    pub(in super::super) allow_partial: bool,
}

impl SampleClustersBody {
    /// What to choose from.
    pub(in super::super) fn into_sample(self) -> Result<SampleWanted, Failure> {
        let limit = limit(self.limit.unwrap_or(FOUND_DEFAULT), RESULTS_MAX)?;
        let per_cluster = self.per_cluster.unwrap_or(1);
        if per_cluster == 0 {
            return Err(refused("per_cluster", "value 0 invalid, must be 1 or larger".into()));
        }
        if self.history.len() > HISTORY_POINTS_MAX {
            let given = self.history.len();
            return Err(refused("history", format!("{given} points, at most {HISTORY_POINTS_MAX} are allowed")));
        }
        if let Some(id) = self.not_in.iter().find(|id| **id as usize >= CLUSTER_IDS_MAX) {
            return Err(refused("not_in", format!("value {id} invalid, must be below {CLUSTER_IDS_MAX}")));
        }
        Ok(SampleWanted {
            limit,
            per_cluster,
            filter: Arc::new(self.filter.unwrap_or_default().outside(self.not_in, self.history, self.version)),
            with_payload: self.with_payload.unwrap_or(WithPayload::None),
            seed: self.seed,
            allow_partial: self.allow_partial.unwrap_or(true),
        })
    }
}

fn limit(limit: usize, most: usize) -> Result<usize, Failure> {
    match limit {
        0 => Err(refused("limit", "value 0 invalid, must be 1 or larger".into())),
        limit if limit > most => Err(refused("limit", format!("value {limit} invalid, must be {most} or smaller"))),
        limit => Ok(limit),
    }
}

fn refused(field: &str, message: String) -> Failure {
    Error::Validation { field: field.into(), message }.into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn text(failure: Failure) -> (u16, String) {
        (failure.status.as_u16(), failure.text)
    }

    #[test]
    fn bounds_are_told_with_their_field() {
        let train = |body: Value| serde_json::from_value::<TrainClustersBody>(body).unwrap().into_wish();
        assert_eq!(train(json!({"count": 1000})).unwrap(), (String::new(), 1000));
        for count in [0, 1, 65_537, u64::MAX] {
            let (status, words) = text(train(json!({"count": count, "vector": "a"})).unwrap_err());
            assert!(status == 422 && words.contains("count") && words.contains("from 2 to 65536"), "{words}");
        }
        assert!(serde_json::from_value::<TrainClustersBody>(json!({})).is_err());
        assert!(serde_json::from_value::<TrainClustersBody>(json!({"count": 4, "clusters": 1})).is_err());

        let sample = |body: Value| serde_json::from_value::<SampleClustersBody>(body).unwrap().into_sample();
        for (body, field) in [
            (json!({"limit": 0}), "limit"),
            (json!({"limit": 100_001}), "limit"),
            (json!({"per_cluster": 0}), "per_cluster"),
            (json!({"not_in": [1 << 20]}), "not_in"),
            (json!({"history": vec![7; HISTORY_POINTS_MAX + 1]}), "history"),
        ] {
            let (status, words) = text(sample(body).err().unwrap());
            assert!(status == 422 && words.contains(&format!("[{field}:")), "{words}");
        }
        let wanted = sample(json!({"not_in": [3, 1], "history": [5], "version": 2})).unwrap();
        let expected = json!({
            "must_not": [{"in_clusters": {"version": 2, "clusters": [1, 3]}}, {"in_clusters_of": [5]}],
        });
        assert_eq!((serde_json::to_value(&*wanted.filter).unwrap(), wanted.limit), (expected, 10));
    }

    #[test]
    fn clusters_near_a_vector_or_a_point() {
        let nearest = |body: Value| serde_json::from_value::<NearestClustersBody>(body).unwrap().into_query();
        assert_eq!(nearest(json!({"query": 7})).unwrap(), (Example::Point(PointId::Num(7)), 10));
        let (example, limit) = nearest(json!({"query": [1.0, 2.0], "limit": 3})).unwrap();
        assert!(matches!(example, Example::Vector(_)) && limit == 3);
        assert!(nearest(json!({"query": 7, "limit": 0})).is_err());
    }
}
