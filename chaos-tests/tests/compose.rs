//! deploy/Dockerfile and deploy/docker-compose.yml as users have them: three coordinators and three shard nodes in containers
//! come up, hold data, answer in full while one node is dead, heal, and leave nothing behind.
//!
//! Uses the engine that runs on this machine, or starts one for itself (as root, in a network namespace of its own). Skipped,
//! and saying so, where there is none.

mod compose {
    pub(crate) mod engine;
    pub(crate) mod image;
    pub(crate) mod project;
}

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use compose::engine::{Docker, Offer, OwnEngine, again_in_namespace, offer};
use compose::image::Image;
use compose::project::Project;
use reqwest::Method;
use serde_json::{Value, json};
use vicinal_chaos_tests::{Rest, skip};

/// Longest wait until all six containers are healthy.
const HEALTHY: Duration = Duration::from_secs(60);
/// Longest wait until replicas are equal again.
const EQUAL: Duration = Duration::from_secs(45);
/// Points written before and after the node dies.
const POINTS: u64 = 400;
/// How long searches must not fail after the node died.
const SEARCHING: Duration = Duration::from_secs(6);
/// Longest time one of those searches may take.
const SEARCH_MAX: Duration = Duration::from_secs(5);

const SERVICES: [&str; 6] = ["c1", "c2", "c3", "n1", "n2", "n3"];
const POLL: Duration = Duration::from_millis(250);

#[tokio::test]
async fn the_compose_cluster_survives_a_dead_node() {
    match offer() {
        Offer::Nothing(reason) => skip("compose", &reason),
        Offer::StartInNamespace => {
            let passed = again_in_namespace("the_compose_cluster_survives_a_dead_node");
            assert!(passed.expect("the test can be started again"), "see above");
        }
        Offer::Running(docker) => run(&docker).await.expect("the cluster does what it should"),
        Offer::StartHere => match OwnEngine::start() {
            Err(error) => skip("compose", &format!("{error:#}")),
            Ok(engine) => {
                let dir = engine.dir();
                run(&engine.docker()).await.expect("the cluster does what it should");
                drop(engine);
                assert!(!dir.exists(), "the engine left {} behind", dir.display());
            }
        },
    }
}

/// Prints what was done and how long it took.
struct Steps(Instant);

impl Steps {
    fn done(&mut self, what: &str) {
        eprintln!("compose: {what} ({:.1} s)", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}

async fn run(docker: &Docker) -> anyhow::Result<()> {
    let mut steps = Steps(Instant::now());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace is above this package")?;
    let name = format!("vicinal-test-{:x}", rand::random::<u32>());
    let image = Image::build(docker, root, &name)?;
    steps.done("the image is built");
    let mut project = Project::new(docker, root, &name, &image.name())?;
    project.compose(&["up", "--detach", "--no-build"])?;
    steps.done("the containers are started");
    let outcome = scenario(&project, &mut steps).await;
    // Here and not only when they are dropped: what is left behind is a failure of its own.
    if outcome.is_err() {
        eprintln!("{}", project.compose(&["logs", "--no-color", "--tail", "25"]).unwrap_or_default());
    }
    let down = project.down().and_then(|()| image.remove());
    outcome?;
    down?;
    steps.done("everything is taken down, nothing is left");
    Ok(())
}

async fn scenario(project: &Project, steps: &mut Steps) -> anyhow::Result<()> {
    wait_healthy(project).await?;
    let (status, is_healthy) = project.vicinal("c2", &["cluster", "status"])?;
    ensure!(is_healthy && status.starts_with("healthy: 3 of 3 coordinators, 3 of 3 nodes"), "{status}");
    steps.done("all six containers are healthy");

    let coordinators = project.coordinators();
    let [first, second, third] = coordinators.as_slice() else { bail!("there are three coordinators") };
    let settings = json!({"vectors": {"size": 4, "distance": "Euclid"}, "shard_number": 4, "replication_factor": 3});
    ok(first, Method::PUT, "/collections/places", settings).await?;
    ok(first, Method::PUT, "/collections/places/points?wait=true", points(0)).await?;
    check_search(second, "before").await?;
    steps.done("points are written through one coordinator and found through another");

    let dead = leader_of_first_shard(third).await?;
    project.kill(&dead)?;
    let (killed, mut searches) = (Instant::now(), 0);
    while killed.elapsed() < SEARCHING {
        for coordinator in &coordinators {
            check_search(coordinator, &format!("{:?} after {dead} was killed", killed.elapsed())).await?;
            searches += 1;
        }
    }
    ok(second, Method::PUT, "/collections/places/points?wait=true&timeout=30", points(POINTS)).await?;
    let (status, is_healthy) = project.vicinal("c1", &["cluster", "status"])?;
    ensure!(!is_healthy && status.contains(&format!("node {dead} is down")), "{status}");
    steps.done(&format!("{searches} searches without {dead}, a leader, were answered in full; writes went on"));

    project.compose(&["start", &dead])?;
    wait_equal(first).await?;
    for coordinator in &coordinators {
        let count = ok(coordinator, Method::POST, "/collections/places/points/count", json!({"exact": true})).await?;
        ensure!(count["count"] == 2 * POINTS, "a coordinator counts {count}");
    }
    let (status, is_healthy) = project.vicinal("c3", &["cluster", "shards"])?;
    ensure!(is_healthy && status.contains("12 of 12 replicas active"), "{status}");
    steps.done(&format!("{dead} is back, all replicas are equal"));
    Ok(())
}

/// Waits until every container's health check has passed.
async fn wait_healthy(project: &Project) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let mut waiting = Vec::new();
        for service in SERVICES {
            let health = project.health(service)?;
            if health != "healthy" {
                waiting.push(format!("{service} is {health}"));
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        ensure!(started.elapsed() < HEALTHY, "after {HEALTHY:?} {}", waiting.join(", "));
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until every replica of every shard answers with the same digest.
async fn wait_equal(coordinator: &Rest) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let path = "/collections/places/replicas/digest?timeout=5";
        let digests = ok(coordinator, Method::GET, path, Value::Null).await?;
        let shards = digests["shards"].as_array().context("digests come by shard")?;
        if shards.len() == 4 && shards.iter().all(|shard| shard["equal"] == true) {
            return Ok(());
        }
        ensure!(started.elapsed() < EQUAL, "replicas still differ after {EQUAL:?}: {digests}");
        tokio::time::sleep(POLL).await;
    }
}

async fn leader_of_first_shard(coordinator: &Rest) -> anyhow::Result<String> {
    let placed = ok(coordinator, Method::GET, "/collections/places/cluster", Value::Null).await?;
    let replicas = placed["replicas"].as_array().context("replicas are listed")?;
    let leader = replicas.iter().find(|replica| replica["role"] == "leader").context("a shard has a leader")?;
    Ok(leader["node"].as_str().context("nodes have names")?.to_owned())
}

/// A search that must be answered, in time, by all shards, with the point that is nearest.
async fn check_search(coordinator: &Rest, when: &str) -> anyhow::Result<()> {
    let asked = Instant::now();
    let body = json!({"query": [7.1, 0.0, 0.0, 0.0], "limit": 3, "allow_partial": false});
    let answer = coordinator.call(Method::POST, "/collections/places/points/query", &body).await?;
    let took = asked.elapsed();
    ensure!(answer.status == 200, "{when}: a search was answered {} {}", answer.status, answer.body);
    ensure!(answer.coverage.as_deref() == Some("4/4"), "{when}: coverage is {:?}", answer.coverage);
    ensure!(answer.body["result"]["points"][0]["id"] == 7, "{when}: {}", answer.body);
    ensure!(took < SEARCH_MAX, "{when}: a search took {took:?}");
    Ok(())
}

fn points(first: u64) -> Value {
    let point = |id: u64| json!({"id": id, "vector": [id, 0, 0, 0], "payload": {"serial": id}});
    json!({"points": (first..first + POINTS).map(point).collect::<Vec<_>>()})
}

async fn ok(coordinator: &Rest, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
    let answer = coordinator.call(method, path, &body).await?;
    ensure!(answer.status == 200, "{path} was answered {} {}", answer.status, answer.body);
    Ok(answer.result())
}
