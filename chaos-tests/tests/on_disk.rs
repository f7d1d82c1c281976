//! Graphs in their files over a real process: the same answers, moved both ways while queries run, kept over restarts.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use vicinal_chaos_tests::{Rest, Server, ServerOptions, data_dir};

const POINTS: u64 = 6_000;
const DIM: u64 = 40;

/// Coordinates without a pattern that a graph could profit from.
fn vector(n: u64) -> Vec<f32> {
    (0..DIM).map(|i| ((n * 7_919 + i * 104_729 + n * i * 31) % 1_009) as f32 / 100.0).collect()
}

async fn fill(rest: &Rest, collection: &str, hnsw: Value) {
    let create = json!({"vectors": {"size": DIM, "distance": "Euclid"}, "shard_number": 2, "hnsw_config": hnsw,
        "optimizers_config": {"indexing_threshold": 50}});
    rest.put(&format!("/collections/{collection}"), create).await.result();
    for first in (0..POINTS).step_by(500) {
        let points: Vec<Value> = (first..first + 500).map(|n| json!({"id": n, "vector": vector(n)})).collect();
        let path = format!("/collections/{collection}/points?wait=true");
        rest.put(&path, json!({"points": points})).await.result();
    }
    settle(rest, collection).await;
}

/// Waits until nothing is left to do and every vector is in a graph.
async fn settle(rest: &Rest, collection: &str) {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let info = rest.get(&format!("/collections/{collection}")).await.result();
        if info["status"] == "green" && info["indexed_vectors_count"] == POINTS {
            return;
        }
        assert!(Instant::now() < give_up, "{info}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// With a beam that is wide enough for all points: graphs of other segments find the same.
async fn answers(rest: &Rest, collection: &str) -> Vec<Value> {
    let mut answers = Vec::new();
    for n in 0..20 {
        let query = json!({"query": vector(POINTS + n), "limit": 10, "params": {"hnsw_ef": POINTS}});
        let answer = rest.post(&format!("/collections/{collection}/points/query"), query).await.result();
        let hit = |hit: &Value| json!([hit["id"], hit["score"]]);
        answers.push(answer["points"].as_array().unwrap().iter().map(hit).collect());
    }
    answers
}

/// Graph files that the process has mapped: those of graphs in memory were copied and are not.
fn mapped_graphs(server: &Server) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.pid())).unwrap();
    maps.lines().filter(|line| line.contains(".hnsw")).count()
}

/// Waits until there are as many mapped graphs as there should be: some, or none.
async fn until_mapped(server: &Server, some: bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while (mapped_graphs(server) > 0) != some {
        assert!(Instant::now() < give_up, "{} graphs are mapped", mapped_graphs(server));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn patch(rest: &Rest, collection: &str, body: Value) {
    let answer = rest.call(Method::PATCH, &format!("/collections/{collection}"), &body).await.unwrap();
    assert_eq!(answer.result(), json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_on_disk_answer_as_those_in_memory() {
    let dir = data_dir();
    let mut server = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    let rest = server.rest();
    fill(&rest, "memory", json!({})).await;
    assert_eq!(mapped_graphs(&server), 0, "in memory by default");
    let expected = answers(&rest, "memory").await;
    fill(&rest, "disk", json!({"on_disk": true})).await;
    assert!(mapped_graphs(&server) >= 2, "one in each shard");
    assert_eq!(answers(&rest, "disk").await, expected);

    let stop = AtomicBool::new(false);
    let searching = async {
        let mut rounds = 0;
        while !stop.load(Ordering::Acquire) {
            assert_eq!(answers(&rest, "disk").await, expected);
            rounds += 1;
        }
        rounds
    };
    let moving = async {
        for _ in 0..3 {
            patch(&rest, "disk", json!({"hnsw_config": {"on_disk": false}})).await;
            until_mapped(&server, false).await;
            patch(&rest, "disk", json!({"vectors": {"": {"hnsw_config": {"on_disk": true}}}})).await;
            until_mapped(&server, true).await;
            patch(&rest, "disk", json!({"vectors": {"": {"hnsw_config": {}}}})).await;
            until_mapped(&server, false).await;
            patch(&rest, "disk", json!({"hnsw_config": {"on_disk": true}})).await;
            until_mapped(&server, true).await;
        }
        stop.store(true, Ordering::Release);
    };
    let (rounds, ()) = tokio::join!(searching, moving);
    assert!(rounds > 0);
    settle(&rest, "disk").await;

    server.kill();
    let server = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    let rest = server.rest();
    settle(&rest, "disk").await;
    assert!(mapped_graphs(&server) >= 2, "opened where they were");
    let shown = |info: Value| info["config"]["hnsw_config"]["on_disk"].clone();
    assert_eq!(shown(rest.get("/collections/disk").await.result()), json!(true));
    assert_eq!(shown(rest.get("/collections/memory").await.result()), json!(false));
    assert_eq!(answers(&rest, "disk").await, expected);
    assert_eq!(answers(&rest, "memory").await, expected);
    rest.delete("/collections/disk").await.result();
    until_mapped(&server, false).await;
    assert!(server.complaints().is_empty(), "{:?}", server.complaints());
}
