//! `kill -9` at random moments under load, again and again: what was acknowledged is there with the right payload and
//! vector, what was deleted stays deleted, and the next start needs no help.
//!
//! Every writer owns its ids, and every write has a serial number of its own. The model holds for each id the states
//! that are possible: one when the last write was acknowledged, both when it is unknown whether it took place.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod crash {
    pub(super) mod model;
    pub(super) mod writer;
}

use std::path::Path;
use std::time::{Duration, Instant};

use crash::model::Model;
use crash::writer::{self, Writer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use vicinal_chaos_tests::{Server, ServerOptions, data_dir};

const ROUNDS: u64 = 20;
const WRITERS: u64 = 4;
/// A start that takes longer than this is not "without help".
const START_MAX: Duration = Duration::from_secs(10);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("the variable is a number"))
}

/// Small enough that every round seals, merges, builds graphs and cuts the raft log several times.
fn options(dir: &Path) -> ServerOptions {
    ServerOptions::new(dir).args(&["--nodes", "2", "--seal-bytes", "32768"])
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_deleted_comes_back() {
    let seed = number("TEST_SEED", rand::random::<u32>().into());
    let rounds = number("TEST_ROUNDS", ROUNDS) as usize;
    println!("repeat with TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = data_dir();
    let mut server = Server::start(options(dir.path())).await.unwrap();
    let create = json!({
        "vectors": {"size": writer::DIM, "distance": "Euclid"},
        "shard_number": 3,
        "optimizers_config": {"indexing_threshold": 8},
    });
    server.rest().put("/collections/crash", create).await.result();

    let mut models: Vec<Model> = (0..WRITERS).map(Model::new).collect();
    let mut slowest_start = Duration::ZERO;
    let (mut caught_writing_files, mut acknowledged) = (0, 0);
    for round in 0..rounds {
        let tasks: Vec<_> =
            models.drain(..).map(|model| tokio::spawn(Writer::new(server.rest(), model, rng.random()).run())).collect();
        tokio::time::sleep(Duration::from_millis(rng.random_range(30..1_500))).await;
        server.kill();
        caught_writing_files += usize::from(has_temporary_file(dir.path()));
        for task in tasks {
            let done = task.await.expect("a writer saw a broken promise while the server ran");
            acknowledged += done.acknowledged;
            models.push(done.model);
        }
        // Sometimes the restart is killed as well, at any moment of the recovery.
        while rng.random_bool(0.3) {
            let mut half_started = Server::spawn(options(dir.path())).unwrap();
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..700))).await;
            half_started.kill();
        }
        server = Server::start(options(dir.path())).await.unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        slowest_start = slowest_start.max(server.started_in());
        verify(&server, &mut models).await;
        assert!(!server.log().join("\n").contains(" ERROR "), "round {round}: {:?}", server.complaints());
    }
    assert!(acknowledged > 10 * rounds, "only {acknowledged} writes were acknowledged: this was no load");
    assert!(segments(dir.path()) > 0, "nothing was ever sealed: this tested the log only");
    println!(
        "{rounds} kills, {acknowledged} acknowledged writes, {} points at the end, slowest start {slowest_start:?}, \
         {caught_writing_files} kills in the middle of writing a file",
        models.iter().map(Model::live).sum::<usize>()
    );
    assert!(slowest_start < START_MAX, "a start took {slowest_start:?}");

    // A start after a graceful end finds the same.
    let exited = server.stop("INT").unwrap();
    assert_eq!(exited.status.code(), Some(0), "{}", exited.log_text());
    let server = Server::start(options(dir.path())).await.unwrap();
    verify(&server, &mut models).await;
}

/// Compares everything the server holds with the models, and settles what was unknown.
async fn verify(server: &Server, models: &mut [Model]) {
    let started = Instant::now();
    let rest = server.rest();
    let points = rest.scroll_all("crash").await;
    assert_eq!(rest.count("crash").await, points.len() as u64, "count and scroll differ");
    for model in models.iter_mut() {
        model.settle(&points);
    }
    let live: usize = models.iter().map(Model::live).sum();
    assert_eq!(points.len(), live, "points that nobody wrote");
    // A sample by exact search: segments and fresh rows answer alike, at distance 0 there is the point itself.
    for point in points.iter().step_by(1 + points.len() / 20) {
        let body = json!({"query": point["vector"], "limit": 1, "params": {"exact": true}});
        let found = rest.post("/collections/crash/points/query", body).await.result();
        assert_eq!(found["points"][0]["id"], point["id"], "search does not find {point}");
    }
    assert!(started.elapsed() < Duration::from_secs(60), "the check took {:?}", started.elapsed());
}

fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            } else {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    found
}

fn has_temporary_file(dir: &Path) -> bool {
    files(dir).iter().any(|name| name.ends_with(".tmp"))
}

fn segments(dir: &Path) -> usize {
    files(dir).iter().filter(|name| name.ends_with(".seg")).count()
}
