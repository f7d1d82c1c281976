//! `vicinal dev` as a process: starts, restarts, refusals, a graceful end, the demo.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use vicinal_chaos_tests::{Exited, Server, ServerOptions, binary, data_dir};

/// Runs a server that is expected to end by itself with status 1.
fn refused(options: ServerOptions) -> Exited {
    let exited = Server::spawn(options).unwrap().wait().unwrap();
    assert_eq!(exited.status.code(), Some(1), "{}", exited.log_text());
    exited
}

fn point(id: u64) -> Value {
    json!({"id": id, "vector": [id, 1, 2, 3], "payload": {"n": id}})
}

async fn fill(server: &Server, points: u64) {
    let rest = server.rest();
    let create = json!({"vectors": {"size": 4, "distance": "Euclid"}});
    rest.put("/collections/kept", create).await.result();
    let points: Vec<_> = (0..points).map(point).collect();
    rest.put("/collections/kept/points?wait=true", json!({"points": points})).await.result();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_finds_the_data() {
    let dir = data_dir();
    let server = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    fill(&server, 500).await;
    let exited = server.stop("INT").unwrap();
    assert_eq!(exited.status.code(), Some(0), "{}", exited.log_text());

    let again = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    assert_eq!(again.rest().count("kept").await, 500);
    let log = again.log().join("\n");
    assert!(log.contains("1 collection") && log.contains("500 points"), "the start says what it found:\n{log}");
    assert!(again.complaints().is_empty(), "{:?}", again.complaints());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_signals_end_it_with_status_0_and_without_complaints() {
    for signal in ["INT", "TERM"] {
        let dir = data_dir();
        let server = Server::start(ServerOptions::new(dir.path())).await.unwrap();
        fill(&server, 10).await;
        assert!(server.complaints().is_empty(), "{:?}", server.complaints());
        let exited = server.stop(signal).unwrap();
        assert_eq!(exited.status.code(), Some(0), "{signal}: {}", exited.log_text());
        assert!(!exited.log_text().contains("ERROR"), "{}", exited.log_text());
    }
}

#[test]
fn it_stops_when_asked_although_nobody_reads_its_log_any_more() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let dir = data_dir();
    let mut command = Command::new(binary());
    command.arg("dev").arg("--data-dir").arg(dir.path().join("data")).args(["--listen", "127.0.0.1:0"]);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("ready")));
    drop(log);
    let told = Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let ended = loop {
        match process.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > until => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    if ended.is_none() {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    assert!(told.success() && ended.is_some_and(|status| status.success()), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_while_it_drained_is_kept() {
    let dir = data_dir();
    let server = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    fill(&server, 1).await;
    let rest = server.rest();
    let writer = tokio::spawn(async move {
        for id in 1.. {
            let body = json!({"points": [point(id)]});
            match rest.call(Method::PUT, "/collections/kept/points?wait=true", &body).await {
                Ok(answer) if answer.status == 200 => {}
                // Refused or cut off: the end has come.
                Ok(_) | Err(_) => return id,
            }
        }
        unreachable!("the server never ended")
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let exited = tokio::task::spawn_blocking(move || server.stop("INT")).await.unwrap().unwrap();
    assert_eq!(exited.status.code(), Some(0), "{}", exited.log_text());
    let refused = writer.await.unwrap();
    let again = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    let count = again.rest().count("kept").await;
    assert!(count == refused || count == refused + 1, "{refused} points were acknowledged, {count} are there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_is_refused() {
    let dir = data_dir();
    let mut first = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    let text = refused(ServerOptions::new(dir.path())).log_text();
    assert!(text.contains("in use by another vicinal process"), "{text}");
    assert!(first.is_alive());
    assert_eq!(first.rest().get("/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let (one, two) = (data_dir(), data_dir());
    let first = Server::start(ServerOptions::new(one.path())).await.unwrap();
    let address = first.url().trim_start_matches("http://").to_owned();
    let options = ServerOptions { listen: address.clone(), ..ServerOptions::new(two.path()) };
    let text = refused(options).log_text();
    assert!(text.contains(&address) && text.contains("in use") && text.contains("--listen"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_nodes_than_have_data_are_refused_and_more_are_added() {
    let dir = data_dir();
    let server = Server::start(ServerOptions::new(dir.path()).args(&["--nodes", "2"])).await.unwrap();
    fill(&server, 100).await;
    server.stop("INT").unwrap();
    let text = refused(ServerOptions::new(dir.path()).args(&["--nodes", "1"])).log_text();
    assert!(text.contains("holds 2 shard nodes") && text.contains("--nodes 2"), "{text}");
    for nodes in ["3", "4"] {
        let server = Server::start(ServerOptions::new(dir.path()).args(&["--nodes", nodes])).await.unwrap();
        assert_eq!(server.rest().count("kept").await, 100);
        server.stop("INT").unwrap();
    }
    // Without the flag, all of them.
    let server = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    assert!(server.log().join("\n").contains("4 shard nodes"), "{:?}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_from_file_variables_and_flags() {
    let dir = data_dir();
    let data = dir.path().join("data");
    let file = dir.path().join("vicinal.toml");
    std::fs::write(&file, "shards = 2\nnodes = 5\n").unwrap();
    let mut options = ServerOptions::new(&data).args(&["--config", file.to_str().unwrap(), "--nodes", "1"]);
    options.variables = vec![("VICINAL_SHARDS".to_owned(), "3".to_owned())];
    let server = Server::start(options).await.unwrap();
    // The flag wins over the file, the variable too.
    assert!(server.log().join("\n").contains("1 shard node"), "{:?}", server.log());
    fill(&server, 1).await;
    let info = server.rest().get("/collections/kept").await.result();
    assert_eq!(info["config"]["params"]["shard_number"], json!(3));

    std::fs::write(&file, "shard = 2\n").unwrap();
    let other = dir.path().join("other");
    let text = refused(ServerOptions::new(&other).args(&["--config", file.to_str().unwrap()])).log_text();
    assert!(text.contains("`shard`") && text.contains("vicinal.toml"), "{text}");
    let mut options = ServerOptions::new(&other);
    options.variables = vec![("VICINAL_SHARDZ".to_owned(), "3".to_owned())];
    let text = refused(options).log_text();
    assert!(text.contains("VICINAL_SHARDZ"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_is_loaded_once_and_shown_each_time() {
    let dir = data_dir();
    let options = ServerOptions::new(dir.path()).args(&["--demo"]);
    let server = Server::start(options.clone()).await.unwrap();
    let output = wait_for_demo(&server).await;
    assert!(output.contains("Loaded 10000 pictures"), "{output}");
    assert_eq!(server.rest().count("fashion").await, 10_000);
    let labels = output.matches("Ankle boot").count();
    assert!(labels >= 6, "the first search shows boots:\n{output}");
    for line in output.lines().filter(|line| !line.contains("curl") && !line.contains("-d '")) {
        assert!(line.chars().count() <= 100, "wider than a terminal: {line}");
    }
    // The commands it prints work as they are printed.
    let body = json!({"query": 0, "limit": 3, "with_payload": true});
    let found = server.rest().post("/collections/fashion/points/query", body).await.result();
    assert_eq!(found["points"][0]["payload"]["label"], json!("Ankle boot"));
    server.stop("INT").unwrap();

    let server = Server::start(options).await.unwrap();
    let output = wait_for_demo(&server).await;
    assert!(output.contains("was here already"), "{output}");
    assert_eq!(server.rest().count("fashion").await, 10_000);
    assert!(server.complaints().is_empty(), "{:?}", server.complaints());
}

/// What it prints, once it has printed all of it.
async fn wait_for_demo(server: &Server) -> String {
    let started = Instant::now();
    loop {
        let output = server.output().join("\n");
        if output.contains("points/count") {
            return output;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{output}\n{}", server.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
