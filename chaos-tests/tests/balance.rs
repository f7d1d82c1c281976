//! A collection routed by cluster grows in one part of space until a search shard is too full, and comes to be even by
//! itself, under load: no request fails, nothing is lost, and each point is found by its vector.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vicinal_chaos_tests::cluster::{Cluster, ClusterOptions};

const PATH: &str = "/collections/even";
const SEARCH_SHARDS: u64 = 4;
const PLACES: u64 = 36;
const BASE: u64 = 1_000;
/// Points that come to a few of the places.
const MORE: u64 = 1_000;
const BATCH: u64 = 200;
/// Longest time until a map is served, or shards are even.
const SETTLE: Duration = Duration::from_secs(240);

/// Places on a grid, of which two in a corner get more and more points.
fn vector(id: u64) -> Value {
    let place = if id < BASE { id % PLACES } else { id % 2 };
    // All bits of the id in each value: no two points are the same.
    let noise = |salt: u64| {
        let mixed = (id + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / f64::from(1u32 << 22)
    };
    let of = |x: u64, salt: u64| 4.0 * x as f64 + noise(salt);
    json!([of(place % 6, 1 << 20), of(place / 6, 2 << 20), noise(3 << 20), noise(4 << 20)])
}

async fn write(cluster: &Cluster, ids: std::ops::Range<u64>) {
    let points: Vec<Value> = ids.map(|id| json!({"id": id, "vector": vector(id)})).collect();
    let answer = cluster.rest().put(&format!("{PATH}/points?wait=true"), json!({"points": points})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Whether a point is found by its vector.
async fn finds(cluster: &Cluster, id: u64) -> bool {
    let body = json!({"query": vector(id), "limit": 3});
    let answer = cluster.rest().post(&format!("{PATH}/points/query"), body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let hits = answer.body["result"]["points"].as_array().unwrap().iter();
    hits.map(|hit| hit["id"].as_u64().unwrap()).any(|hit| hit == id)
}

async fn routing(cluster: &Cluster) -> anyhow::Result<Value> {
    Ok(cluster.ask(PATH).await?["routing"].take())
}

fn is_calm(of: &Value) -> bool {
    of["next"].is_null() && of["ending"].is_null() && of["training"] == json!(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_come_to_be_even_under_load() {
    let cluster = Arc::new(Cluster::start(ClusterOptions { coordinators: 1, nodes: 2 }).await.unwrap());
    let routed = json!({"method": "cluster", "search_shards": SEARCH_SHARDS, "from_points": BASE});
    let body = json!({"vectors": {"size": 4, "distance": "Euclid"}, "shard_number": 2, "routing": routed});
    cluster.rest().put(PATH, body).await.result();
    for from in (0..BASE).step_by(BATCH as usize) {
        write(&cluster, from..from + BATCH).await;
    }
    let is_served = |of: &Value| of["serving"].as_u64() >= Some(1) && is_calm(of);
    let first = cluster.wait_until("a map is served", SETTLE, routing, is_served).await.unwrap();
    println!("first map: {}", first["imbalance"]);

    // Written up to here.
    let written = Arc::new(AtomicU64::new(BASE));
    let stop = Arc::new(AtomicBool::new(false));
    let searches = (0..4u64).map(|reader| {
        let (cluster, written, stop) = (cluster.clone(), written.clone(), stop.clone());
        tokio::spawn(async move {
            let mut searched = 0u64;
            while !stop.load(Ordering::SeqCst) {
                let id = (searched * 4 + reader).wrapping_mul(7_919) % written.load(Ordering::SeqCst);
                assert!(finds(&cluster, id).await, "{id} was acknowledged and is not found");
                searched += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            searched
        })
    });
    let searches: Vec<_> = searches.collect();
    let mut fullest = 0.0f64;
    for from in (BASE..BASE + MORE).step_by(BATCH as usize) {
        write(&cluster, from..from + BATCH).await;
        written.store(from + BATCH, Ordering::SeqCst);
        fullest = fullest.max(routing(&cluster).await.unwrap()["imbalance"].as_f64().unwrap_or(0.0));
    }
    println!("all is written: {fullest} at most");
    assert!(fullest > 1.2, "{fullest}");
    let began = Instant::now();
    let is_even = |of: &Value| {
        of["serving"].as_u64() >= Some(2) && is_calm(of) && of["imbalance"].as_f64().is_some_and(|found| found <= 1.15)
    };
    let even = cluster.wait_until("search shards are even", SETTLE, routing, is_even).await.unwrap();
    println!("even after {:?}: {even}", began.elapsed());
    stop.store(true, Ordering::SeqCst);
    let mut searched = 0;
    for reader in searches {
        searched += reader.await.unwrap();
    }
    println!("{searched} searches met no failure");
    assert!(searched > 100);
    let shards = even["search_shards"].as_array().unwrap();
    let ids =
        |of: &Value| of["search_shards"].as_array().unwrap().iter().map(|shard| shard["shard_id"].clone()).collect();
    let (before, after): (Vec<Value>, Vec<Value>) = (ids(&first), ids(&even));
    assert_eq!((before, shards.len() as u64), (after, SEARCH_SHARDS), "the same shards, other cells");
    assert_eq!(cluster.rest().count("even").await, BASE + MORE);
    let plan = cluster.rest().post(&format!("{PATH}/routing/balance"), json!({})).await.result();
    println!("planned then: {} {}", plan["action"], plan["measured"]);
    assert!(plan["action"] != "retrain" && plan["applied"] == json!(false));
    for id in (0..BASE + MORE).step_by(37) {
        assert!(finds(&cluster, id).await, "{id} is lost");
    }
}
