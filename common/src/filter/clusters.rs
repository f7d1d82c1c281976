//! Conditions on the cluster that a point is in: docs/adr/0020-clusters-as-objects.md. A client names clusters, or points
//! whose clusters are meant; the coordinator puts in which map numbers them, and shards know the cluster of each row.

use serde_json::{Value, json};

use super::parse::{count, id, list, object, required, string};
use super::{Condition, Filter, SortedSet};
use crate::error::{Error, Result};
use crate::ids::{MapDigest, MapVersion};
use crate::limits::{CLUSTER_IDS_MAX, HISTORY_POINTS_MAX};
use crate::point::PointId;
use crate::refusal::{Parsed, at, kind, refuse};

/// The point's cluster is one of these. A point without the vector that is clustered is in none.
#[derive(Clone, Debug, PartialEq)]
pub struct InClusters {
    /// What numbers the clusters.
    pub of: ClusteringName,
    /// The clusters.
    pub clusters: SortedSet<u32>,
}

/// Which clustering of its collection a condition means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusteringName {
    /// The present one, whichever that is.
    Current,
    /// The present one, if it has this version.
    Version(MapVersion),
    /// That of this map: the form that shards decide.
    Map(MapDigest),
}

/// A clustering that conditions are fixed to.
pub struct ClusteringFacts<'a> {
    /// Its version.
    pub version: MapVersion,
    /// Its map.
    pub map: MapDigest,
    /// How many clusters it has.
    pub count: usize,
    /// The clusters of points that a condition names.
    pub of_points: &'a dyn Fn(PointId) -> Option<u32>,
}

impl InClusters {
    /// Whether a cluster is among these.
    pub fn has(&self, cluster: u32) -> bool {
        self.clusters.has(&cluster)
    }
}

impl Filter {
    /// Calls with every condition on clusters, those inside filters too.
    fn each_on_clusters<'a>(&'a self, see: &mut dyn FnMut(&'a Condition)) {
        for condition in self.conditions() {
            match condition {
                Condition::InClusters(_) | Condition::InClustersOf(_) => see(condition),
                Condition::Filter(filter) | Condition::Nested { filter, .. } => filter.each_on_clusters(see),
                Condition::Field(_)
                | Condition::IsEmpty(_)
                | Condition::IsNull(_)
                | Condition::HasId(_)
                | Condition::HasVector(_)
                | Condition::Slice(_) => {}
            }
        }
    }

    /// Whether a condition asks for the cluster of a point.
    pub fn names_clusters(&self) -> bool {
        let mut found = false;
        self.each_on_clusters(&mut |_| found = true);
        found
    }

    /// The same without the points in some clusters, and in those of some points.
    #[must_use]
    pub fn outside(mut self, clusters: Vec<u32>, points: Vec<PointId>, version: Option<u64>) -> Filter {
        let of = version.map_or(ClusteringName::Current, |version| ClusteringName::Version(MapVersion(version)));
        if !clusters.is_empty() || version.is_some() {
            self.must_not.push(Condition::InClusters(InClusters { of, clusters: SortedSet::new(clusters) }));
        }
        if !points.is_empty() {
            self.must_not.push(Condition::InClustersOf(SortedSet::new(points)));
        }
        self
    }

    /// The maps by which shards have to know the cluster of each row, each once. `Internal` when a condition was not fixed
    /// to a map.
    pub fn cluster_maps(&self) -> Result<Vec<MapDigest>> {
        let mut maps = Vec::new();
        let mut is_fixed = true;
        self.each_on_clusters(&mut |condition| match condition {
            Condition::InClusters(InClusters { of: ClusteringName::Map(map), .. }) => maps.push(*map),
            _ => is_fixed = false,
        });
        if !is_fixed {
            return Err(Error::Internal("a filter on clusters came to a shard without a map".into()));
        }
        maps.sort_unstable();
        maps.dedup();
        Ok(maps)
    }

    /// The points whose clusters are meant, ascending, each once.
    pub fn cluster_points(&self) -> Vec<PointId> {
        let mut points = Vec::new();
        self.each_on_clusters(&mut |condition| {
            if let Condition::InClustersOf(of) = condition {
                points.extend_from_slice(of.as_slice());
            }
        });
        SortedSet::new(points).0
    }

    /// Fixes all conditions on clusters to a clustering. `Conflict` when one means another version, `BadInput` when one
    /// names a cluster that there is not. The filter is of no use after an error.
    pub fn fix_clusters(&mut self, facts: &ClusteringFacts<'_>) -> Result<()> {
        for condition in self.conditions_mut() {
            match condition {
                Condition::InClusters(asked) => {
                    check_version(asked.of, facts)?;
                    check_ids(asked.clusters.as_slice(), facts)?;
                    asked.of = ClusteringName::Map(facts.map);
                }
                Condition::InClustersOf(points) => {
                    let clusters = points.as_slice().iter().filter_map(|id| (facts.of_points)(*id)).collect();
                    let of = ClusteringName::Map(facts.map);
                    *condition = Condition::InClusters(InClusters { of, clusters: SortedSet::new(clusters) });
                }
                Condition::Filter(filter) | Condition::Nested { filter, .. } => filter.fix_clusters(facts)?,
                Condition::Field(_)
                | Condition::IsEmpty(_)
                | Condition::IsNull(_)
                | Condition::HasId(_)
                | Condition::HasVector(_)
                | Condition::Slice(_) => {}
            }
        }
        Ok(())
    }
}

fn check_version(asked: ClusteringName, facts: &ClusteringFacts<'_>) -> Result<()> {
    let current = facts.version;
    match asked {
        ClusteringName::Version(version) if version != current => Err(Error::Conflict(format!(
            "filter: in_clusters.version: the clusters have version {current} now, not {version}: their ids mean \
             something else"
        ))),
        ClusteringName::Map(map) if map != facts.map => Err(Error::Conflict(format!(
            "filter: in_clusters.map: the clusters are those of map {} now, not {map}",
            facts.map
        ))),
        ClusteringName::Current | ClusteringName::Version(_) | ClusteringName::Map(_) => Ok(()),
    }
}

fn check_ids(ids: &[u32], facts: &ClusteringFacts<'_>) -> Result<()> {
    match ids.last() {
        Some(last) if *last as usize >= facts.count => {
            let count = facts.count;
            Err(Error::BadInput(format!(
                "filter: in_clusters: there is no cluster {last}, the ids of {count} clusters are 0 to {}",
                count.saturating_sub(1)
            )))
        }
        Some(_) | None => Ok(()),
    }
}

/// `[ids]`, or `{"version": v, "clusters": [ids]}`; between processes `{"map": digest, "clusters": [ids]}`.
pub(super) fn parse_in_clusters(value: &Value) -> Parsed<InClusters> {
    let Value::Object(_) = value else {
        return Ok(InClusters { of: ClusteringName::Current, clusters: cluster_ids(value)? });
    };
    let fields = object(value, &["version", "map", "clusters"])?;
    let of = match (fields.get("version"), fields.get("map")) {
        (None, None) => ClusteringName::Current,
        (Some(version), None) => ClusteringName::Version(MapVersion(at("version", count(version))?)),
        (None, Some(map)) => ClusteringName::Map(at("map", digest(map))?),
        (Some(_), Some(_)) => return refuse("either `version` or `map`, not both"),
    };
    Ok(InClusters { of, clusters: at("clusters", cluster_ids(required(fields, "clusters")?))? })
}

/// Ids of points whose clusters are meant.
pub(super) fn parse_in_clusters_of(value: &Value) -> Parsed<SortedSet<PointId>> {
    at_most(value, HISTORY_POINTS_MAX, "points")?;
    Ok(SortedSet::new(list(value, id)?))
}

fn cluster_ids(value: &Value) -> Parsed<SortedSet<u32>> {
    at_most(value, CLUSTER_IDS_MAX, "clusters")?;
    let one = |value: &Value| match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
        Some(id) if (id as usize) < CLUSTER_IDS_MAX => Ok(id),
        Some(_) | None => {
            let got = if value.is_number() { value.to_string() } else { kind(value).to_string() };
            refuse(format!("expected a cluster id, an integer of 0 to {}, got {got}", CLUSTER_IDS_MAX - 1))
        }
    };
    Ok(SortedSet::new(list(value, one)?))
}

fn at_most(value: &Value, limit: usize, what: &str) -> Parsed<()> {
    match value.as_array().map(Vec::len) {
        Some(length) if length > limit => refuse(format!("at most {limit} {what}, got {length}")),
        Some(_) | None => Ok(()),
    }
}

fn digest(value: &Value) -> Parsed<MapDigest> {
    let text = string(value)?;
    match u128::from_str_radix(&text, 16) {
        Ok(digest) if text.len() == 32 => Ok(MapDigest(digest)),
        Ok(_) | Err(_) => refuse("expected the 32 hexadecimal digits of a map's digest"),
    }
}

/// The JSON that it can be parsed from.
pub(super) fn encode_in_clusters(condition: &InClusters) -> Value {
    let ids = condition.clusters.as_slice();
    match condition.of {
        ClusteringName::Current => json!(ids),
        ClusteringName::Version(version) => json!({"version": version.0, "clusters": ids}),
        ClusteringName::Map(map) => json!({"map": map.to_string(), "clusters": ids}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LoggedFilter;

    fn parse(value: Value) -> Result<Filter> {
        Filter::parse(&value)
    }

    fn facts(of_points: &dyn Fn(PointId) -> Option<u32>) -> ClusteringFacts<'_> {
        ClusteringFacts { version: MapVersion(4), map: MapDigest(0xab), count: 10, of_points }
    }

    #[test]
    fn every_form_survives_encoding() {
        for value in [
            json!({"must": [{"in_clusters": [1, 2, 9]}]}),
            json!({"must_not": [{"in_clusters": {"version": 3, "clusters": [7]}}]}),
            json!({"should": [{"in_clusters": {"map": format!("{:032x}", 77), "clusters": []}}]}),
            json!({"must": [{"in_clusters_of": [1, "00000000-0000-0000-0000-000000000005"]}]}),
        ] {
            let filter = parse(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(&filter).unwrap(), value);
            assert!(filter.names_clusters() && !filter.needs_payload());
        }
        let twice = parse(json!({"must": {"in_clusters": [3, 1, 3]}})).unwrap();
        assert_eq!(serde_json::to_value(&twice).unwrap(), json!({"must": [{"in_clusters": [1, 3]}]}));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (value, words) in [
            (json!({"must": {"in_clusters": 7}}), "filter.must.in_clusters: expected an array"),
            (json!({"must": [{"in_clusters": [1, -1]}]}), "in_clusters[1]: expected a cluster id"),
            (json!({"must": [{"in_clusters": [1048576]}]}), "0 to 1048575, got 1048576"),
            (json!({"must": [{"in_clusters": ["a"]}]}), "expected a cluster id"),
            (json!({"must": [{"in_clusters": {"version": 1}}]}), "missing field `clusters`"),
            (json!({"must": [{"in_clusters": {"version": "1", "clusters": []}}]}), "version"),
            (json!({"must": [{"in_clusters": {"map": "xyz", "clusters": []}}]}), "32 hexadecimal"),
            (json!({"must": [{"in_clusters": {"of": 1, "clusters": []}}]}), "unknown field `of`"),
            (json!({"must": [{"in_clusters_of": [1.5]}]}), "in_clusters_of[0]"),
            (json!({"must": [{"in_clusters_of": vec![1; HISTORY_POINTS_MAX + 1]}]}), "at most 10000 points"),
            (json!({"must": [{"in_clusters": [1], "has_id": [1]}]}), "unknown field"),
        ] {
            let said = parse(value.clone()).unwrap_err().to_string();
            assert!(said.contains(words), "{value}: {said}");
        }
    }

    #[test]
    fn conditions_are_fixed_to_the_present_clustering() {
        let of_points = |id: PointId| match id {
            PointId::Num(number) if number < 5 => Some(number as u32 + 3),
            _ => None,
        };
        let mut filter = parse(json!({
            "must": [{"in_clusters": {"version": 4, "clusters": [1]}}],
            "must_not": [{"must": {"in_clusters_of": [4, 0, 99]}}],
            "should": [{"in_clusters": [9]}],
        }))
        .unwrap();
        assert_eq!(filter.cluster_points(), [0, 4, 99].map(PointId::Num));
        assert!(filter.cluster_maps().is_err());
        filter.fix_clusters(&facts(&of_points)).unwrap();
        assert_eq!(filter.cluster_maps().unwrap(), [MapDigest(0xab)]);
        let fixed = |clusters: &[u32]| json!({"in_clusters": {"map": format!("{:032x}", 0xab), "clusters": clusters}});
        let expected = json!({
            "must": [fixed(&[1])], "must_not": [{"must": [fixed(&[3, 7])]}], "should": [fixed(&[9])],
        });
        assert_eq!(serde_json::to_value(&filter).unwrap(), expected);

        let refused = |value: Value| parse(value).unwrap().fix_clusters(&facts(&of_points)).unwrap_err();
        let old = refused(json!({"must": {"in_clusters": {"version": 3, "clusters": [1]}}}));
        assert!(matches!(old, Error::Conflict(_)), "{old}");
        let beyond = refused(json!({"must": {"in_clusters": [10]}}));
        assert!(matches!(&beyond, Error::BadInput(words) if words.contains("0 to 9")), "{beyond}");
    }

    #[test]
    fn a_row_matches_by_its_cluster_and_objects_never_do() {
        let filter = parse(json!({"must": [{"in_clusters": [2]}], "must_not": [{"in_clusters": [3]}]})).unwrap();
        let fields = serde_json::Map::new();
        let matches = |cluster: u32| {
            filter.matches_with(PointId::Num(1), &fields, &|_| false, &|asked: &InClusters| asked.has(cluster))
        };
        assert!(matches(2) && !matches(3) && !matches(4));
    }

    #[test]
    fn writes_may_not_ask_for_clusters() {
        let filter = parse(json!({"should": [{"must_not": {"in_clusters": [2]}}]})).unwrap();
        let refused = LoggedFilter::new(&filter).unwrap_err();
        assert!(matches!(&refused, Error::BadInput(words) if words.contains("in_clusters")), "{refused}");
    }
}
