//! One request is one trace over three processes, every process shows its metrics, and a collector that is gone costs
//! spans, not requests.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use vicinal_chaos_tests::cluster::{Member, MemberOptions, Role};
use vicinal_chaos_tests::collector::{Collector, ReceivedSpan};
use vicinal_chaos_tests::{Server, ServerOptions, data_dir};

/// Longest wait until a process is ready.
const READY: Duration = Duration::from_secs(60);
/// Longest wait for the spans of a request: processes send them each second.
const SPANS: Duration = Duration::from_secs(20);
const SHARDS: usize = 4;
/// What the client of a trace calls its own span.
const CLIENT_SPAN: &str = "00f067aa0ba902b7";
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
/// How far the clock may be set back between the begins of two spans, in nanoseconds.
const CLOCK: u64 = 5_000_000;

/// Sends a request as part of a trace of its own and returns the id of that.
async fn traced(url: &str, method: Method, path: &str, body: Value, number: u8) -> (String, Value) {
    let trace = format!("4bf92f3577b34da6a3ce929d0e0e47{number:02x}");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.request(method, format!("{url}{path}")).json(&body);
    let answer = request.header("traceparent", format!("00-{trace}-{CLIENT_SPAN}-01")).send().await.unwrap();
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{body}");
    (trace, body)
}

fn named<'a>(spans: &'a [ReceivedSpan], name: &str) -> Vec<&'a ReceivedSpan> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn children<'a>(spans: &'a [ReceivedSpan], parent: &ReceivedSpan, name: &str) -> Vec<&'a ReceivedSpan> {
    spans.iter().filter(|span| span.parent == parent.id && span.name == name).collect()
}

/// The one child of that name.
fn child<'a>(spans: &'a [ReceivedSpan], parent: &ReceivedSpan, name: &str) -> &'a ReceivedSpan {
    let found = children(spans, parent, name);
    assert_eq!(found.len(), 1, "{name} below {parent:?} in {spans:#?}");
    found[0]
}

/// Whether what a node says of each hop is among the spans: it comes from another process, perhaps later.
fn is_served(spans: &[ReceivedSpan]) -> bool {
    spans.iter().all(|hop| match hop.name.strip_prefix("hop ") {
        Some(operation) => !children(spans, hop, &format!("serve {operation}")).is_empty(),
        None => true,
    })
}

/// Whether every span but the root has its parent among the spans.
fn is_joined(spans: &[ReceivedSpan]) -> bool {
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    spans.iter().all(|span| span.parent == CLIENT_SPAN || ids.contains(span.parent.as_str()))
}

/// The calls below a scatter: (client side, server side) of each hop.
fn hops<'a>(spans: &'a [ReceivedSpan], scatter: &ReceivedSpan, operation: &str) -> Vec<&'a ReceivedSpan> {
    let calls = children(spans, scatter, "node_call");
    assert!(!calls.is_empty(), "{spans:#?}");
    let served = calls.into_iter().map(|call| {
        let hop = child(spans, call, &format!("hop {operation}"));
        let serve = child(spans, hop, &format!("serve {operation}"));
        assert_eq!((hop.service.as_str(), hop.kind), ("vicinal-coordinator", CLIENT));
        assert_eq!((serve.service.as_str(), serve.kind), ("vicinal-shard-node", SERVER));
        assert_eq!(call.attribute("hedge"), "false");
        serve
    });
    served.collect()
}

struct Traced {
    members: Vec<Member>,
    collector: Collector,
    url: String,
}

impl Traced {
    async fn start(dir: &std::path::Path) -> Traced {
        let collector = Collector::start().await.unwrap();
        let with_export = |options: MemberOptions| options.arg("--otlp-endpoint", collector.url());
        let mut coordinator = with_export(MemberOptions::new(Role::Coordinator, "c1", dir));
        coordinator.args.push("--bootstrap".to_owned());
        let url = coordinator.url();
        let mut members = vec![Member::start(coordinator).unwrap()];
        for name in ["n1", "n2"] {
            let node = MemberOptions::new(Role::ShardNode, name, dir).arg("--coordinators", &url);
            members.push(Member::start(with_export(node)).unwrap());
        }
        for member in &mut members {
            member.ready(READY).await.unwrap();
        }
        Traced { members, collector, url }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_one_trace_over_three_processes() {
    let dir = data_dir();
    let mut cluster = Traced::start(dir.path()).await;
    let rest = cluster.members[0].rest();
    let body = json!({"vectors": {"size": 4, "distance": "Euclid"}, "shard_number": SHARDS});
    rest.put("/collections/c", body).await.result();

    let points: Vec<Value> =
        (0..200).map(|id| json!({"id": id, "vector": [id, 0, 0, 1], "payload": {"n": id}})).collect();
    let path = "/collections/c/points?wait=true";
    let (trace, _) = traced(&cluster.url, Method::PUT, path, json!({"points": points}), 1).await;
    let whole = |spans: &[ReceivedSpan]| is_joined(spans) && named(spans, "shard_write").len() == SHARDS;
    let spans = cluster.collector.wait(&trace, SPANS, whole).await.unwrap();
    let root = named(&spans, "PUT /collections/{collection}/points")[0];
    let write = child(&spans, root, "write");
    assert_eq!((write.attribute("collection"), write.attribute("shards")), ("c", "4"));
    let attempts = children(&spans, write, "write_call");
    assert!(attempts.len() >= SHARDS, "{spans:#?}");
    for shard_write in named(&spans, "shard_write") {
        let serve = spans.iter().find(|span| span.id == shard_write.parent).unwrap();
        let hop = spans.iter().find(|span| span.id == serve.parent).unwrap();
        assert_eq!((serve.name.as_str(), hop.name.as_str()), ("serve shard/write", "hop shard/write"));
        assert!(attempts.iter().any(|attempt| attempt.id == hop.parent));
        assert!(shard_write.attribute("log_index").parse::<u64>().unwrap() > 0);
    }

    let search = json!({"query": [5, 0, 0, 1], "limit": 3, "with_payload": true, "params": {"hnsw_ef": 64}});
    let (trace, body) = traced(&cluster.url, Method::POST, "/collections/c/points/query", search, 2).await;
    assert_eq!(body["result"]["points"][0]["payload"], json!({"n": 5}), "{body}");
    let whole = |spans: &[ReceivedSpan]| {
        let is_answered = spans.iter().any(|span| span.parent == CLIENT_SPAN);
        is_joined(spans) && is_answered && is_served(spans) && named(spans, "fetch").len() == 1
    };
    let spans = cluster.collector.wait(&trace, SPANS, whole).await.unwrap();
    check_search(&spans);

    for (member, family) in cluster.members.iter().zip(["vicinal_meta_role", "vicinal_raft_role", "vicinal_raft_role"])
    {
        let page = member.rest().get("/metrics").await;
        let text = page.body.as_str().unwrap_or_default();
        assert_eq!(page.status, 200);
        for family in [family, "process_resident_memory_bytes", "vicinal_hop_requests_total", "vicinal_build_info"] {
            assert!(
                text.contains(&format!("# TYPE {family} ")),
                "{family} is not on the page of {}",
                member.options.name
            );
        }
    }
    for member in &mut cluster.members {
        let exited = member.stop().unwrap();
        assert!(exited.status.success(), "{}", exited.log_text());
        assert!(!exited.log_text().contains("could not be sent"), "{}", exited.log_text());
    }
}

fn check_search(spans: &[ReceivedSpan]) {
    let roots: Vec<&ReceivedSpan> = spans.iter().filter(|span| span.parent == CLIENT_SPAN).collect();
    assert_eq!(roots.len(), 1, "{spans:#?}");
    let root = roots[0];
    assert_eq!(root.name, "POST /collections/{collection}/points/query");
    assert_eq!((root.service.as_str(), root.instance.as_str(), root.kind), ("vicinal-coordinator", "c1", SERVER));
    assert_eq!(root.attribute("http.route"), "/collections/{collection}/points/query");
    assert_eq!((root.attribute("http.request.method"), root.attribute("http.response.status_code")), ("POST", "200"));
    let query = child(spans, root, "query");
    assert_eq!((query.attribute("collection"), query.attribute("queries")), ("c", "1"));

    let scatter = child(spans, query, "scatter");
    assert_eq!((scatter.attribute("shards"), scatter.attribute("answered")), ("4", "4"));
    child(spans, scatter, "plan");
    let served = hops(spans, scatter, "shard/search");
    let nodes: BTreeSet<&str> = served.iter().map(|serve| serve.instance.as_str()).collect();
    assert_eq!(nodes, BTreeSet::from(["n1", "n2"]));
    let mut shards = BTreeSet::new();
    for search in served.iter().flat_map(|serve| children(spans, serve, "shard_search")) {
        assert_eq!((search.attribute("k"), search.attribute("ef"), search.attribute("queries")), ("3", "64", "1"));
        let number =
            |name: &str| search.attribute(name).parse::<u64>().unwrap_or_else(|_| panic!("{name}: {search:?}"));
        assert!(number("hits") <= 3 && number("jobs") == 1 && number("queue_us") + number("search_us") < 10_000_000);
        shards.insert(search.attribute("shard"));
    }
    assert_eq!(shards.len(), SHARDS, "{spans:#?}");

    let fetch = child(spans, query, "fetch");
    hops(spans, child(spans, fetch, "scatter"), "shard/retrieve");
    for span in spans {
        assert!(span.time.0 <= span.time.1, "{span:?}");
        if let Some(parent) = spans.iter().find(|parent| parent.id == span.parent) {
            assert!(parent.time.0 <= span.time.0 + CLOCK, "{span:?} begins before {parent:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_collector_slows_nothing() {
    // It takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Nobody listens there any more.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for address in [silent.local_addr().unwrap(), gone] {
        let dir = data_dir();
        let mut options = ServerOptions::new(dir.path());
        options.variables.push(("VICINAL_OTLP_ENDPOINT".to_owned(), format!("http://{address}")));
        let server = Server::start(options).await.unwrap();
        let rest = server.rest();
        rest.put("/collections/c", json!({"vectors": {"size": 2, "distance": "Dot"}})).await.result();
        let begun = Instant::now();
        // More spans than the queue holds.
        for n in 0..1_500 {
            let answer = rest.post("/collections/c/points/query", json!({"query": [1, n], "limit": 1})).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        let each = begun.elapsed() / 1_500;
        assert!(each < Duration::from_millis(20), "{each:?} for one request");
        let page = rest.get("/metrics").await;
        assert!(page.body.as_str().unwrap_or_default().contains("vicinal_trace_spans_lost_total"), "{}", page.body);
        let asked = Instant::now();
        let exited = server.stop("TERM").unwrap();
        let took = asked.elapsed();
        println!("{address}: {each:?} for one request, the end took {took:?}");
        assert!(exited.status.success(), "{}", exited.log_text());
        assert!(exited.log_text().contains("stopped, all data is on disk"), "{}", exited.log_text());
        assert!(took < Duration::from_secs(8), "the end took {took:?}:\n{}", exited.log_text());
    }
}

#[test]
fn a_collector_that_cannot_be_used_is_refused_at_the_start() {
    let dir = data_dir();
    let mut options = ServerOptions::new(dir.path());
    options.variables.push(("VICINAL_OTLP_ENDPOINT".to_owned(), "https://collector.example:4318".to_owned()));
    let exited = Server::spawn(options).unwrap().wait().unwrap();
    assert!(!exited.status.success());
    assert!(exited.log_text().contains("plain http://"), "{}", exited.log_text());
}
