//! The views: what `status`, `nodes` and `shards` print.

use super::state::{Picture, Placement};
use super::table::Side::{Left, Right};
use super::table::{UNKNOWN, number, size, table};

/// Problems listed under the verdict; the tables have them all.
const PROBLEMS_MAX: usize = 10;

/// The verdict, and what it rests on if it is not good.
pub(super) fn verdict(picture: &Picture) -> String {
    let mut text = picture.verdict() + "\n";
    let problems = picture.problems();
    for problem in problems.iter().take(PROBLEMS_MAX) {
        text += &format!("  {problem}\n");
    }
    if problems.len() > PROBLEMS_MAX {
        text += &format!("  and {} more\n", problems.len() - PROBLEMS_MAX);
    }
    text
}

/// Coordinators, nodes, and a line per collection.
pub(super) fn status(picture: &Picture) -> String {
    [verdict(picture), cluster(picture), coordinators(picture), nodes(picture), collections(picture)].join("\n")
}

/// Coordinators and nodes.
pub(super) fn processes(picture: &Picture) -> String {
    [verdict(picture), coordinators(picture), nodes(picture)].join("\n")
}

/// A line per replica.
pub(super) fn shards(picture: &Picture) -> String {
    let header = [
        ("SHARD", Right),
        ("COLLECTION", Left),
        ("NODE", Left),
        ("ROLE", Left),
        ("TERM", Right),
        ("APPLIED", Right),
        ("LAG", Right),
        ("POINTS", Right),
        ("SIZE", Right),
        ("STATE", Left),
        ("REASON", Left),
    ];
    let row = |(collection, replica): (&str, &super::state::Replica)| {
        vec![
            replica.shard.to_string(),
            collection.to_owned(),
            replica.node.clone(),
            replica.role.clone(),
            number(replica.term),
            number(replica.applied),
            number(replica.lag),
            number(replica.points),
            size(replica.bytes),
            replica.state.replace('_', " "),
            replica.reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = picture.replicas().map(row).collect();
    let rows = if rows.is_empty() { "no shards yet\n".to_owned() } else { table(&header, &rows) };
    [verdict(picture), rows].join("\n")
}

fn cluster(picture: &Picture) -> String {
    let cluster = &picture.cluster;
    let this = cluster.coordinators.iter().find(|one| one.node == cluster.peer_id);
    let (id, this) = (cluster.cluster.as_deref().unwrap_or(UNKNOWN), this.map_or(UNKNOWN, |one| &one.id));
    format!("cluster {id}, as coordinator {this} sees it\n")
}

fn coordinators(picture: &Picture) -> String {
    let header = [("COORDINATOR", Left), ("ROLE", Left), ("ADDRESS", Left), ("REASON", Left)];
    let rows = picture
        .cluster
        .coordinators
        .iter()
        .map(|one| vec![one.id.clone(), one.role.clone(), one.uri.clone(), one.reason.clone().unwrap_or_default()]);
    table(&header, &rows.collect::<Vec<_>>())
}

fn nodes(picture: &Picture) -> String {
    let header = [
        ("NODE", Left),
        ("STATE", Left),
        ("ZONE", Left),
        ("REPLICAS", Right),
        ("LEADS", Right),
        ("HEARD", Right),
        ("ADDRESS", Left),
        ("REASON", Left),
    ];
    let rows = picture.cluster.nodes.iter().map(|node| {
        let heard = node.last_heartbeat_seconds.map_or(UNKNOWN.to_owned(), |seconds| format!("{seconds:.1} s ago"));
        let read_only = node.read_only.as_ref().map(|reason| format!("takes no writes: {reason}"));
        vec![
            node.id.clone(),
            node.state.clone(),
            node.zone.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
            number(node.shards),
            number(node.leaders),
            heard,
            node.uri.clone(),
            node.reason.clone().or(read_only).unwrap_or_default(),
        ]
    });
    table(&header, &rows.collect::<Vec<_>>())
}

fn collections(picture: &Picture) -> String {
    let header = [("COLLECTION", Left), ("SHARDS", Right), ("REPLICAS", Right), ("ACTIVE", Right), ("POINTS", Right)];
    let rows: Vec<Vec<String>> = picture
        .collections
        .iter()
        .filter_map(|(name, placement)| Some((name, placement.as_ref().ok()?)))
        .map(|(name, placement)| {
            let active = placement.replicas.iter().filter(|replica| replica.state == "active").count();
            vec![
                name.clone(),
                number(Some(shard_count(placement))),
                number(Some(placement.replicas.len() as u64)),
                number(Some(active as u64)),
                number(Some(points(placement))),
            ]
        })
        .collect();
    if rows.is_empty() { "no collections yet\n".to_owned() } else { table(&header, &rows) }
}

fn shard_count(placement: &Placement) -> u64 {
    let mut shards: Vec<u64> = placement.replicas.iter().map(|replica| replica.shard).collect();
    shards.dedup();
    shards.len() as u64
}

/// Points of the collection: of each shard what its leader has, else the replica that is furthest.
fn points(placement: &Placement) -> u64 {
    let mut total = 0;
    for replicas in placement.replicas.chunk_by(|a, b| a.shard == b.shard) {
        let best = replicas.iter().max_by_key(|replica| (replica.role == "leader", replica.applied));
        total += best.and_then(|replica| replica.points).unwrap_or(0);
    }
    total
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn replica(shard: u64, node: &str, role: &str) -> Value {
        json!({"shard": shard, "node": node, "node_id": 9, "role": role, "term": 3, "applied": 1_500, "lag": 0,
            "points": 1_000, "segments": 2, "bytes": 1_572_864, "state": "active", "reason": null})
    }

    fn picture(change: impl FnOnce(&mut Value, &mut Value)) -> Picture {
        let mut cluster = json!({"cluster": "0c0ffee0", "peer_id": 1,
            "coordinators": [
                {"id": "c1", "node": 1, "uri": "http://c1:6333", "role": "leader"},
                {"id": "c2", "node": 2, "uri": "http://c2:6333", "role": "follower"}],
            "nodes": [
                {"id": "n1", "node": 3, "uri": "http://n1:7001", "zone": "a", "state": "up",
                    "last_heartbeat_seconds": 0.31, "shards": 2, "leaders": 1, "read_only": null, "reason": null},
                {"id": "n2", "node": 4, "uri": "http://n2:7001", "zone": null, "state": "up",
                    "last_heartbeat_seconds": 0.02, "shards": 2, "leaders": 1, "read_only": null, "reason": null}]});
        let mut films = json!({"replicas": [
            replica(1, "n1", "leader"), replica(1, "n2", "follower"),
            replica(2, "n1", "follower"), replica(2, "n2", "leader")]});
        change(&mut cluster, &mut films);
        let films: Placement = serde_json::from_value(films).unwrap();
        let collections = BTreeMap::from([("films".to_owned(), Ok(films))]);
        Picture { cluster: serde_json::from_value(cluster).unwrap(), collections }
    }

    #[test]
    fn a_healthy_cluster_is_one_page() {
        let expected = "\
healthy: 2 of 2 coordinators, 2 of 2 nodes, 4 of 4 replicas active

cluster 0c0ffee0, as coordinator c1 sees it

COORDINATOR  ROLE      ADDRESS
c1           leader    http://c1:6333
c2           follower  http://c2:6333

NODE  STATE  ZONE  REPLICAS  LEADS      HEARD  ADDRESS
n1    up     a            2      1  0.3 s ago  http://n1:7001
n2    up     -            2      1  0.0 s ago  http://n2:7001

COLLECTION  SHARDS  REPLICAS  ACTIVE  POINTS
films            2         4       4   2 000
";
        assert_eq!(status(&picture(|_, _| {})), expected);
    }

    #[test]
    fn what_is_wrong_stands_below_the_verdict() {
        let text = shards(&picture(|cluster, films| {
            cluster["coordinators"][1]["role"] = json!("unreachable");
            cluster["nodes"][1]["state"] = json!("down");
            cluster["nodes"][1]["reason"] = json!("it does not answer");
            let unknown = json!({"shard": 1, "node": "n2", "role": "down", "state": "unreachable"});
            films["replicas"][1] = unknown.clone();
            films["replicas"][3] = unknown;
            films["replicas"][3]["shard"] = json!(2);
            films["replicas"][2]["state"] = json!("catching_up");
            films["replicas"][2]["reason"] = json!("the shard has no leader at the moment");
        }));
        let expected = "\
degraded: 1 of 2 coordinators, 1 of 2 nodes, 1 of 4 replicas active
  collection films: shard 2 has no leader, it takes no writes
  coordinator c2 is unreachable
  node n2 is down: it does not answer
  collection films: replica of shard 2 on n1 is catching up: the shard has no leader at the moment

SHARD  COLLECTION  NODE  ROLE      TERM  APPLIED  LAG  POINTS     SIZE  STATE        REASON
    1  films       n1    leader       3    1 500    0   1 000  1.5 MiB  active
    1  films       n2    down         -        -    -       -        -  unreachable
    2  films       n1    follower     3    1 500    0   1 000  1.5 MiB  catching up  the shard has no leader at the moment
    2  films       n2    down         -        -    -       -        -  unreachable
";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_empty_cluster_and_a_full_disk_are_told() {
        let mut empty = picture(|_, _| {});
        empty.collections.clear();
        assert!(status(&empty).starts_with("healthy: 2 of 2 coordinators, 2 of 2 nodes, 0 of 0 replicas active\n"));
        assert!(shards(&empty).ends_with("\n\nno shards yet\n"));
        let full = picture(|cluster, _| cluster["nodes"][0]["read_only"] = json!("disk is full"));
        assert!(processes(&full).contains("\n  node n1 takes no writes: disk is full\n"));
    }
}
