//! Changes of how a collection is routed, which the clients make while they write and read: whatever goes on, that must be
//! safe.

use serde_json::{Value as Json, json};

use super::client::{COLLECTION, Client};

/// Points from which on there is a map: few, so that most of a run is after the first one.
const MAP_FROM_POINTS: u64 = 64;
/// Clusters that are asked for, of a sixteenth of the points at most.
pub(super) const CLUSTERS: u64 = 4;

impl Client {
    /// Has another map trained, or the change given up; has all maps dropped, or wants them again, in other search shards;
    /// has the points grouped in clusters.
    pub(super) async fn change_maps(&mut self) {
        let shards = 2 + self.draw(2);
        let (method, path, body) = match self.draw(24) {
            0..12 => ("POST", "/routing/train", json!({})),
            12..14 => ("POST", "/routing/abort", json!({})),
            14..16 => ("PATCH", "", json!({"routing": {"method": "hash"}})),
            16..21 => ("PATCH", "", by_cluster(shards)),
            21..23 => ("PUT", "/clusters", json!({"vector": "", "count": CLUSTERS})),
            _ => ("DELETE", "/clusters", Json::Null),
        };
        let answer = self.call(method, &format!("/collections/{COLLECTION}{path}"), &body).await;
        self.note(format_args!("{method} {path} {body}: {:?}", answer.map(|answer| answer.status)));
    }
}

/// What a collection says of its routing.
pub(super) fn by_cluster(search_shards: u64) -> Json {
    json!({"routing": {"method": "cluster", "search_shards": search_shards, "copies": 0.3, "from_points": MAP_FROM_POINTS}})
}
