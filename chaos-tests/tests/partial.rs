//! One shard that cannot serve: answers say that they are partial, or are refused when the request says so.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vicinal_chaos_tests::{Server, ServerOptions, data_dir};

const POINTS: u64 = 2_000;
const SHARDS: u64 = 4;
/// Longest wait for a segment file.
const SEAL_WAIT: Duration = Duration::from_secs(20);

fn options(dir: &Path) -> ServerOptions {
    ServerOptions::new(dir).args(&["--nodes", "2", "--seal-bytes", "4096"])
}

fn vector(id: u64) -> Value {
    json!([id % 50, id / 50, 1, 0, id % 7, id % 11, id % 13, id % 17])
}

/// Segment files below `dir`.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "seg") {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_takes_one_shard_away_and_every_answer_says_so() {
    let dir = data_dir();
    let server = Server::start(options(dir.path())).await.unwrap();
    let rest = server.rest();
    let create = json!({"vectors": {"size": 8, "distance": "Euclid"}, "shard_number": SHARDS});
    rest.put("/collections/part", create).await.result();
    let points: Vec<_> =
        (0..POINTS).map(|id| json!({"id": id, "vector": vector(id), "payload": {"even": id % 2 == 0}})).collect();
    rest.put("/collections/part/points?wait=true", json!({"points": points})).await.result();
    let whole = rest.post("/collections/part/points/query", json!({"query": vector(7), "limit": 5})).await;
    assert_eq!(whole.coverage.as_deref(), Some("4/4"));
    assert!(whole.body["coverage"].is_null(), "a complete answer has the form every client knows");
    let written = Instant::now();
    while segments(dir.path()).is_empty() {
        assert!(written.elapsed() < SEAL_WAIT, "nothing was sealed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.stop("INT").unwrap();

    // One flipped bit in the middle of one segment.
    let segment = segments(dir.path()).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&segment, bytes).unwrap();

    let mut server = Server::start(options(dir.path())).await.unwrap();
    let rest = server.rest();
    let told = server.log().into_iter().any(|line| line.contains("ERROR") && line.to_lowercase().contains("corrupt"));
    assert!(told, "the log does not say which shard is damaged: {:?}", server.log());

    let query = json!({"query": vector(7), "limit": 5, "with_payload": true});
    let partial = rest.post("/collections/part/points/query", query.clone()).await;
    assert_eq!((partial.status, partial.coverage.as_deref()), (200, Some("3/4")), "{}", partial.body);
    assert_eq!(partial.body["coverage"]["shards_asked"], json!(4));
    assert_eq!(partial.body["coverage"]["shards_answered"], json!(3));
    let missing = partial.body["coverage"]["missing"].as_array().unwrap();
    assert!(
        missing.len() == 1 && missing[0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
        "{missing:?}"
    );
    assert_eq!(partial.result()["points"].as_array().unwrap().len(), 5);

    for (path, mut body) in [
        ("query", query),
        ("scroll", json!({"limit": 10})),
        ("count", json!({"filter": {"must": [{"key": "even", "match": {"value": true}}]}})),
    ] {
        let path = format!("/collections/part/points/{path}");
        let answer = rest.post(&path, body.clone()).await;
        assert_eq!((answer.status, answer.coverage.as_deref()), (200, Some("3/4")), "{path}: {}", answer.body);
        body["allow_partial"] = json!(false);
        let refused = rest.post(&path, body).await;
        assert_eq!(refused.status, 503, "{path}: {}", refused.body);
        assert!(refused.error().contains("shard"), "{path}: {}", refused.body);
    }

    // A write that touches the damaged shard is refused and names it; its other shards take their part.
    let points: Vec<_> = (0..100).map(|id| json!({"id": id, "vector": vector(id)})).collect();
    let refused = rest.put("/collections/part/points?wait=true&timeout=3", json!({"points": points})).await;
    assert!([500, 503].contains(&refused.status), "{} {}", refused.status, refused.body);
    assert!(refused.error().contains("shard"), "{}", refused.body);
    let info = rest.get("/collections/part").await.result();
    assert_eq!(info["status"], json!("red"), "{info}");
    assert!(server.is_alive());
}
