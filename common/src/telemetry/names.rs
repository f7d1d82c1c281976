//! Every metric and every span: name, labels, meaning. docs/METRICS.md is compared with this file by a test.

/// Target of all spans: a filter lets them through as a whole or not at all.
pub const TARGET: &str = "vicinal_trace";

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only rises, from 0 at the start of the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts of observations up to bounds.
    Histogram(&'static [f64]),
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name as scraped. Counters end in `_total`, units are seconds and bytes.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Names of its labels. Values come from the code or the metadata, never from what a client sends.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// A span.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Name in a trace.
    pub name: &'static str,
    /// Names of its attributes.
    pub fields: &'static [&'static str],
    /// What its duration is.
    pub help: &'static str,
}

/// Bounds for anything that takes from 50 microseconds to ten seconds.
const LATENCY_SECONDS: Kind = Kind::Histogram(&[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
]);
const BATCH_BYTES: Kind = Kind::Histogram(&[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 8388608.0]);
const BATCH_CHANGES: Kind = Kind::Histogram(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]);

const fn metric(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind, labels, help }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    metric(name, Kind::Counter, labels, help)
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    metric(name, Kind::Gauge, labels, help)
}

macro_rules! catalogue {
    ($type:ty, $all:ident, $doc:literal: $($name:ident = $value:expr;)*) => {
        $(
            #[allow(missing_docs, reason = "each says in its help what it is")]
            pub const $name: $type = $value;
        )*
        #[doc = $doc]
        pub const $all: &[$type] = &[$($name),*];
    };
}

/// Labels of what is known of each replica.
const REPLICA: &[&str] = &["node", "collection", "shard"];

catalogue! { Metric, METRICS, "All metrics.":
    // The process.
    BUILD_INFO = gauge("vicinal_build_info", &["version"], "1, with the version of the program as label");
    PROCESS_START = gauge("process_start_time_seconds", &[], "When the process started, in seconds since 1970");
    PROCESS_RESIDENT = gauge("process_resident_memory_bytes", &[], "Memory of the process that is in RAM");
    TRACES_EXPORTED = counter("vicinal_trace_spans_exported_total", &[], "Spans that the collector has taken");
    TRACES_LOST = counter("vicinal_trace_spans_lost_total", &[], "Spans that could not be sent to the collector");
    // REST.
    REST_REQUESTS = counter(
        "vicinal_rest_requests_total", &["method", "route", "status"], "REST requests answered");
    REST_DURATION = metric(
        "vicinal_rest_request_duration_seconds", LATENCY_SECONDS, &["method", "route"],
        "Time from the request's headers to the answer's headers");
    REST_REFUSED =
        counter("vicinal_rest_refused_total", &[], "REST requests refused because too many were under way");
    // The way to the shards, on coordinators.
    NODE_CALLS = counter("vicinal_node_calls_total", &[], "Calls of reads and writes sent to nodes");
    HEDGES_SENT =
        counter("vicinal_hedges_sent_total", &[], "Calls sent to a second replica because the first was slow");
    HEDGES_WON = counter("vicinal_hedges_won_total", &[], "Hedges that brought the first answer for a shard");
    HEDGES_REFUSED = counter("vicinal_hedges_refused_total", &[], "Hedges that were due but over the budget");
    ATTEMPTS_TIMED_OUT = counter(
        "vicinal_attempts_timed_out_total", &[],
        "Calls not waited for any longer, because the node was silent too long");
    BREAKER_OPENINGS = counter(
        "vicinal_breaker_openings_total", &[], "Times that a node was given up for a while after failures in a row");
    PROBES = counter("vicinal_probes_total", &[], "Calls that asked whether a node given up answers again");
    RETRIES = counter(
        "vicinal_retries_total", &[], "Calls sent because an earlier one for the same shards failed or timed out");
    REPAIR_FOUND = counter(
        "vicinal_read_repair_found_total", &[], "Copies that searches were given and home shards refused, each once");
    REPAIR_SENT = counter("vicinal_read_repair_sent_total", &[], "Those of them that search shards were told to remove");
    REPAIR_KEPT = counter(
        "vicinal_read_repair_kept_total", &[], "Those that stay for now: it is not certain yet that nobody needs them");
    REPAIR_DROPPED = counter(
        "vicinal_read_repair_dropped_total", &[],
        "Those that were forgotten: too many were waiting, or the search shard did not take the removal");
    PARTIAL_ANSWERS = counter("vicinal_partial_answers_total", &[], "Answers that miss shards");
    // The hop between processes.
    HOP_REQUESTS = counter(
        "vicinal_hop_requests_total", &["side", "operation", "outcome"],
        "Requests between processes (side: client or server; outcome: ok, unreachable, unknown or failed)");
    HOP_DURATION = metric(
        "vicinal_hop_duration_seconds", LATENCY_SECONDS, &["side", "operation"],
        "Time of a request between processes, as the side sees it");
    // Balance of collections that are routed by cluster, as the coordinator that leads has found it last.
    BALANCE_POINTS = gauge(
        "vicinal_balance_points_ratio", &["collection"],
        "Points of the fullest search shard by the mean, on a sample");
    BALANCE_LOAD = gauge(
        "vicinal_balance_load_ratio", &["collection"], "Searches of the most searched search shard by the mean");
    BALANCE_FAN_OUT = gauge(
        "vicinal_balance_fan_out_ratio", &["collection"],
        "Mean share of the search shards that searches near stored points ask for the recall of training");
    BALANCE_FAN_OUT_TRAINED = gauge(
        "vicinal_balance_fan_out_trained_ratio", &["collection"], "The same when the map was trained");
    // Searches on a node.
    SEARCH_THREADS = gauge("vicinal_search_threads", &[], "Threads that reads run on");
    SEARCH_QUEUED = gauge("vicinal_search_queued_jobs", &[], "Jobs of reads that wait for a thread");
    SEARCH_BUSY = gauge("vicinal_search_busy_threads", &[], "Threads that run a read");
    SEARCH_REFUSED = counter("vicinal_search_refused_total", &[], "Jobs refused because too many were waiting");
    SEARCH_EXPIRED = counter(
        "vicinal_search_expired_total", &[], "Jobs not begun because their time was up or nobody waited any more");
    SEARCH_WAIT = metric("vicinal_search_wait_seconds", LATENCY_SECONDS, &[], "Time a job waited for a thread");
    SEARCH_RUN = metric("vicinal_search_run_seconds", LATENCY_SECONDS, &[], "Time a job ran");
    // Writes on a node.
    WRITE_DURATION = metric(
        "vicinal_shard_write_duration_seconds", LATENCY_SECONDS, &[],
        "Time from a write's arrival at its leader until it is durable on a majority and applied");
    LOG_SYNC = metric(
        "vicinal_log_sync_duration_seconds", LATENCY_SECONDS, &[], "Time to write and sync one batch of the shard log");
    LOG_BATCH_BYTES = metric("vicinal_log_batch_bytes", BATCH_BYTES, &[], "Size of the batches of the shard log");
    LOG_BATCH_CHANGES = metric("vicinal_log_batch_changes", BATCH_CHANGES, &[], "Changes made durable by one sync");
    // Publishing, on a node with home shards of collections that are routed by cluster.
    PUBLISH_WAIT = metric(
        "vicinal_publish_wait_seconds", LATENCY_SECONDS, &[],
        "Time a write that is applied waited until searches find what it wrote");
    PUBLISH_SEND = metric(
        "vicinal_publish_send_seconds", LATENCY_SECONDS, &[],
        "Time until a search shard had committed one message of copies, all attempts together");
    PUBLISH_COPIES = counter("vicinal_publish_copies_total", &[], "Copies that search shards have committed");
    PUBLISH_GONE = counter("vicinal_publish_gone_total", &[], "Removals of copies that search shards have committed");
    PUBLISH_REFUSED = counter(
        "vicinal_publish_refused_total", &[], "Attempts to send copies that a node refused or did not answer");
    PUBLISH_BEHIND = gauge(
        "vicinal_publish_behind_entries", REPLICA,
        "Log entries applied by the leader of a home shard and not published yet");
    // A node.
    NODE_INFO = gauge(
        "vicinal_node_info", &["node", "id"],
        "1, with the node's name and the raft identity that `follower` refers to");
    NODE_WRITABLE = gauge("vicinal_node_writable", &["node"], "0 while the node refuses writes (full disk), else 1");
    LOG_FILES = gauge("vicinal_log_files", &["node"], "Files of the shard log");
    LOG_BYTES = gauge("vicinal_log_bytes", &["node"], "Bytes of the shard log on the disk");
    LOG_QUEUED_BYTES = gauge("vicinal_log_queued_bytes", &["node"], "Bytes of changes that are not durable yet");
    LOG_STOPPED = gauge("vicinal_log_stopped", &["node"], "1 when the shard log has stopped for good, else 0");
    // Replicas of a node.
    SHARD_POINTS = gauge("vicinal_shard_points", REPLICA, "Live points");
    SHARD_SEARCHES = counter("vicinal_shard_searches_total", REPLICA, "Searches answered since the replica was opened");
    SHARD_INDEXED = gauge("vicinal_shard_indexed_vectors", REPLICA, "Vectors covered by an index");
    SHARD_SEGMENTS = gauge("vicinal_shard_segments", REPLICA, "Immutable segments");
    SHARD_FRESH = gauge("vicinal_shard_fresh_rows", REPLICA, "Rows not yet in a segment");
    SHARD_DISK_BYTES = gauge("vicinal_shard_disk_bytes", REPLICA, "Bytes of segment and index files");
    SHARD_OPTIMIZING = gauge(
        "vicinal_shard_optimizing", REPLICA, "1 while background work is under way or due, else 0");
    SHARD_BUILD_ROWS = gauge(
        "vicinal_shard_build_rows", REPLICA, "Rows of the vector index that is being built, 0 when none is");
    SHARD_BUILD_ROWS_DONE = gauge(
        "vicinal_shard_build_rows_done", REPLICA, "Rows that the build of a vector index has inserted so far");
    SHARD_BUILD_ETA = gauge(
        "vicinal_shard_build_remaining_seconds", REPLICA, "Time the build of a vector index still takes at its pace so far");
    SHARD_SERVING = gauge("vicinal_shard_serving", REPLICA, "0 when the replica has failed (the log says why), else 1");
    RAFT_ROLE = gauge(
        "vicinal_raft_role", &["node", "collection", "shard", "role"],
        "1 for the replica's part in its group (role: leader, follower, candidate, learner or down)");
    RAFT_TERM = gauge("vicinal_raft_term", REPLICA, "Term the replica knows");
    RAFT_LAST_LOG = gauge("vicinal_raft_last_log_index", REPLICA, "Last log index in the replica's log");
    RAFT_APPLIED = gauge("vicinal_raft_applied_index", REPLICA, "Last log index the replica has applied");
    RAFT_LAG = gauge(
        "vicinal_raft_follower_lag_entries", &["node", "collection", "shard", "follower"],
        "Log entries that a follower still lacks, as its leader sees it (follower: raft identity)");
    // The metadata group, on coordinators.
    META_ROLE = gauge(
        "vicinal_meta_role", &["role"], "1 for this coordinator's part (role: leader, follower or learner)");
    META_HAS_LEADER = gauge(
        "vicinal_meta_has_leader", &[], "1 while this coordinator knows a leader of the metadata, else 0");
    META_TERM = gauge("vicinal_meta_term", &[], "Term of the metadata group");
    META_APPLIED = gauge("vicinal_meta_applied_index", &[], "Last log index of the metadata applied here");
    META_VOTERS = gauge("vicinal_meta_voters", &[], "Coordinators that vote");
    COLLECTIONS = gauge("vicinal_collections", &[], "Collections in the metadata applied here");
    NODES_KNOWN = gauge("vicinal_nodes_known", &[], "Shard nodes in the metadata applied here");
}

catalogue! { Span, SPANS, "All spans.":
    REST = Span {
        name: "rest",
        fields: &[
            "otel.name", "otel.kind", "otel.status_code", "http.request.method", "http.route",
            "http.response.status_code",
        ],
        help: "A REST request; shown as `METHOD route`",
    };
    QUERY = Span {
        name: "query",
        fields: &["collection", "queries"],
        help: "A batch of queries: scatter, merge and fetch",
    };
    FETCH = Span { name: "fetch", fields: &["points"], help: "What the winners hold, by id, from their shards" };
    SCATTER = Span {
        name: "scatter",
        fields: &["shards", "answered"],
        help: "One question to many shards, until all have answered or time is up",
    };
    PLAN = Span { name: "plan", fields: &["shards", "nodes"], help: "Choosing the node that answers for each shard" };
    NODE_CALL = Span {
        name: "node_call",
        fields: &["node", "shards", "attempt", "hedge", "otel.status_code"],
        help: "One call to one node for some of the shards",
    };
    WRITE = Span {
        name: "write",
        fields: &["collection", "shards"],
        help: "A write, until all its shards have acknowledged",
    };
    WRITE_CALL = Span {
        name: "write_call",
        fields: &["node", "shard", "part", "attempt", "otel.status_code"],
        help: "One attempt to write one part at the shard's leader",
    };
    HOP_CLIENT = Span {
        name: "hop",
        fields: &["otel.name", "otel.kind", "otel.status_code", "operation", "server.address", "bytes_sent"],
        help: "A request to another process, as the sender sees it; shown as `hop operation`",
    };
    HOP_SERVER = Span {
        name: "serve",
        fields: &["otel.name", "otel.kind", "operation", "bytes_received"],
        help: "The same request, as the receiver sees it; shown as `serve operation`",
    };
    SHARD_SEARCH = Span {
        name: "shard_search",
        fields: &["shard", "queries", "k", "ef", "exact", "jobs", "queue_us", "search_us", "hits", "otel.status_code"],
        help: "The search of one shard: waiting for the replica, for a thread, and searching",
    };
    SHARD_WRITE = Span {
        name: "shard_write",
        fields: &["shard", "part", "log_index", "otel.status_code"],
        help: "A write at its shard's leader, through raft until it is applied",
    };
}
