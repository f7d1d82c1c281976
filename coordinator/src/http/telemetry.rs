//! `GET /telemetry`: the process, its collections, its cluster and its requests, in the API's shape as far as that has a
//! meaning here.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use vicinal_common::clock::rfc3339;
use vicinal_common::ids::ShardId;
use xxhash_rust::xxh3::xxh3_64;

use super::answer::{Answer, Failure};
use super::cluster::{self, Replica, Survey, replicas};
use super::info;
use super::params::Params;
use crate::Coordinator;
use crate::meta::{Collection, GroupStatus};

/// From here on the answer has a line per collection, and the figures of the metadata group and of requests.
const LEVEL_FIGURES: u64 = 1;
/// From here on it has every shard with its replicas.
const LEVEL_SHARDS: u64 = 2;

/// What the client wants to see.
#[derive(Debug, Default)]
struct Wanted {
    details_level: u64,
    anonymize: bool,
}

impl Wanted {
    fn read(query: &BTreeMap<String, String>) -> Result<Wanted, Failure> {
        let refuse = |name: &str, value: &str, allowed: &str| {
            let text = format!("Deserialize error in query parameters: `{name}` is `{value}`, allowed is {allowed}");
            Failure::new(StatusCode::BAD_REQUEST, text)
        };
        let mut wanted = Wanted::default();
        if let Some(text) = query.get("details_level") {
            wanted.details_level = text.parse().map_err(|_| refuse("details_level", text, "a whole number"))?;
        }
        if let Some(text) = query.get("anonymize") {
            wanted.anonymize = text.parse().map_err(|_| refuse("anonymize", text, "true or false"))?;
        }
        Ok(wanted)
    }

    /// A name, or a number in its place that is the same each time.
    fn name(&self, name: &str) -> String {
        if self.anonymize { xxh3_64(name.as_bytes()).to_string() } else { name.to_owned() }
    }
}

/// `GET /telemetry`
pub(super) async fn telemetry(
    State(coordinator): State<Arc<Coordinator>>,
    Query(query): Query<BTreeMap<String, String>>,
    params: Params,
) -> Result<Answer, Failure> {
    let wanted = Wanted::read(&query)?;
    let group = coordinator.catalog.group();
    let has_figures = wanted.details_level >= LEVEL_FIGURES;
    let survey = match has_figures {
        true => Some(Survey::take(&coordinator, params.deadline).await),
        false => None,
    };
    let state = coordinator.catalog.state();
    let mut collections = json!({"number_of_collections": state.active().count()});
    if let Some(survey) = &survey {
        let shown = state.active().map(|collection| shown(&wanted, survey, collection));
        collections["collections"] = json!(shown.collect::<Result<Vec<Value>, Failure>>()?);
    }
    let mut telemetry = json!({
        "id": wanted.name(&group.node.to_string()),
        "app": app(&coordinator),
        "collections": collections,
        "cluster": cluster_part(&coordinator, &wanted, &group, survey.as_ref()),
        "memory": memory(),
    });
    if has_figures {
        let responses = coordinator.requests.shown();
        telemetry["requests"] = json!({"rest": {"responses": responses}, "grpc": {"responses": {}}});
    }
    Answer::json(&telemetry)
}

fn app(coordinator: &Coordinator) -> Value {
    json!({"name": "vicinal", "version": env!("CARGO_PKG_VERSION"), "startup": rfc3339(coordinator.started_ms)})
}

fn shown(wanted: &Wanted, survey: &Survey, collection: &Collection) -> Result<Value, Failure> {
    let config = info::config(collection)?;
    let rows = replicas(survey, collection);
    if wanted.details_level < LEVEL_SHARDS {
        let points: u64 = collection.shards.iter().map(|shard| points(&rows, shard.id)).sum();
        let vectors = points * collection.schema.vectors.len() as u64;
        return Ok(json!({"vectors": vectors, "optimizers_status": "ok", "params": config["params"]}));
    }
    let shards = collection.shards.iter().map(|shard| {
        let rows: Vec<&Replica> = rows.iter().filter(|row| row.shard == shard.id).collect();
        let states: Map<String, Value> =
            rows.iter().map(|row| (row.node_id.to_string(), row.api_state().into())).collect();
        let remote = rows.iter().map(|row| json!({"shard_id": row.shard, "peer_id": row.node_id}));
        json!({"id": shard.id, "remote": remote.collect::<Vec<_>>(), "replicate_states": states})
    });
    Ok(json!({
        "id": wanted.name(&collection.name),
        // The API's `config` must have settings of a write-ahead log, which we have none of.
        "params": config["params"],
        "shards": shards.collect::<Vec<_>>(),
        "transfers": cluster::transfers(&rows),
        "resharding": [],
    }))
}

/// Points of a shard: its leader knows, else the replica that has the most.
fn points(rows: &[Replica], shard: ShardId) -> u64 {
    let rows = rows.iter().filter(|row| row.shard == shard);
    rows.max_by_key(|row| (row.role == "leader", row.applied)).and_then(|row| row.points).unwrap_or(0)
}

fn cluster_part(coordinator: &Coordinator, wanted: &Wanted, group: &GroupStatus, survey: Option<&Survey>) -> Value {
    let mut part = json!({"enabled": true});
    let Some(survey) = survey else { return part };
    part["status"] = json!({
        "number_of_peers": group.members.len() + survey.nodes.len(),
        "term": group.term,
        "commit": group.applied.unwrap_or(0),
        "pending_operations": cluster::pending(group),
        "role": cluster::raft_role(group.role),
        "is_voter": group.voters.contains(&group.node),
        "peer_id": group.node,
        "consensus_thread_status": cluster::consensus_thread(coordinator, group),
    });
    let mut peers = cluster::peers(group, survey);
    if wanted.anonymize {
        for peer in peers.values_mut() {
            *peer = json!({"uri": wanted.name(peer["uri"].as_str().unwrap_or_default())});
        }
    }
    part["peers"] = Value::Object(peers);
    part
}

/// The process's memory as the system counts it; `null` where it does not say.
fn memory() -> Value {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Value::Null };
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_start_matches(':').trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1_024)
    };
    match (bytes("RssAnon"), bytes("VmPTE"), bytes("VmRSS"), bytes("VmSize")) {
        (Some(own), Some(tables), Some(resident), Some(mapped)) => json!({
            // Pages in memory that are no file's: the allocator's, those in use and those it keeps.
            "active_bytes": own,
            "allocated_bytes": own,
            "metadata_bytes": tables,
            "resident_bytes": resident,
            "retained_bytes": mapped,
        }),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hidden_on_demand_and_bad_parameters_named() {
        let query = |pairs: &[(&str, &str)]| {
            Wanted::read(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        let open = query(&[]).unwrap();
        assert_eq!((open.details_level, open.name("films").as_str()), (0, "films"));
        let hidden = query(&[("anonymize", "true"), ("details_level", "3")]).unwrap();
        assert_eq!((hidden.details_level, hidden.name("films")), (3, hidden.name("films")));
        assert_ne!(hidden.name("films"), "films");
        for (name, value) in [("details_level", "-1"), ("anonymize", "yes")] {
            let failure = query(&[(name, value)]).unwrap_err();
            assert!(failure.status == StatusCode::BAD_REQUEST && failure.text.contains(name), "{}", failure.text);
        }
    }

    #[test]
    fn memory_is_counted_where_the_system_tells() {
        let memory = memory();
        if cfg!(target_os = "linux") {
            assert!(memory["resident_bytes"].as_u64().unwrap() >= memory["allocated_bytes"].as_u64().unwrap());
        }
    }
}
