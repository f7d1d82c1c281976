//! The flags of `vicinal bench serve` and what they may be.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use serde_json::Value;
use vicinal_common::limits;

use super::points::Payload;
use super::requests::Asked;
use super::watch::Watch;
use crate::bench::index::set::MetricName;

/// Concurrencies measured when neither `--concurrency` nor `--rate` is given.
const CONCURRENCY: [usize; 4] = [1, 2, 4, 8];
/// Most requests in flight, of all kinds: each needs a connection.
const IN_FLIGHT_MAX: usize = 10_000;
/// Highest rate of the open loop, in requests per second, and lowest.
const RATE_MAX: f64 = 1e6;
const RATE_MIN: f64 = 1e-3;
/// Longest step, in seconds: a day.
const SECONDS_MAX: f64 = 86_400.0;

/// Its flags.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// A server; several, such as the coordinators of a cluster, are asked in turn
    #[arg(long = "url", value_name = "URL", value_delimiter = ',', default_value = "http://127.0.0.1:6333")]
    pub(super) urls: Vec<String>,
    /// Collection to fill and to ask; created when it does not exist
    #[arg(long, default_value = "bench")]
    pub(super) collection: String,
    /// Longest time a request may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub(super) timeout: f64,
    #[command(flatten)]
    pub(super) set: Set,
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) query: Query,
    #[command(flatten)]
    pub(super) steps: Steps,
    #[command(flatten)]
    pub(super) watch: Watch,
    /// Add the lines of JSON to this file instead of printing them
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
}

/// What the vectors are.
#[derive(Debug, Args)]
pub(super) struct Set {
    /// Directory of the data set: base.npy (or base_u8.npy), query.npy, gt.npy, or the same as .fvecs/.bvecs and .ivecs
    #[arg(long, value_name = "DIR", required_unless_present = "random")]
    pub(super) data: Option<PathBuf>,
    /// Instead of a directory: so many random vectors (uniform in 0..1)
    #[arg(long, value_name = "N", conflicts_with = "data")]
    pub(super) random: Option<usize>,
    /// Dimension of the random vectors
    #[arg(long, default_value_t = 128)]
    pub(super) dim: usize,
    /// Of random vectors and arrivals: the same numbers each time
    #[arg(long, default_value_t = 7)]
    pub(super) seed: u64,
    /// What is near; by default what is usual for the data set of this name
    #[arg(long, value_enum)]
    pub(super) metric: Option<MetricName>,
    /// Use at most so many vectors; their exact neighbours are then computed
    #[arg(long)]
    pub(super) limit: Option<usize>,
    /// Use at most so many queries; they are repeated as needed
    #[arg(long, default_value_t = 2_000)]
    pub(super) queries: usize,
    /// Compute the exact neighbours even when the data set lists them
    #[arg(long)]
    pub(super) compute_truth: bool,
    /// Do not measure recall
    #[arg(long, conflicts_with = "compute_truth")]
    pub(super) no_recall: bool,
}

/// How they are loaded.
#[derive(Debug, Args)]
pub(super) struct Load {
    /// The collection is loaded already, with the same vectors
    #[arg(long)]
    pub(super) no_load: bool,
    /// Load and ask nothing
    #[arg(long, conflicts_with = "no_load")]
    pub(super) load_only: bool,
    /// Shards of a new collection
    #[arg(long, default_value_t = 4)]
    pub(super) shards: u32,
    /// Replicas of each shard
    #[arg(long, default_value_t = 1)]
    pub(super) replicas: u32,
    /// Route a new collection by cluster, over so many search shards, and wait until its map is served
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=128))]
    pub(super) search_shards: Option<u32>,
    /// Neighbours per node of the graph; the server's choice when absent
    #[arg(long)]
    pub(super) m: Option<usize>,
    /// Beam of the build; the server's choice when absent
    #[arg(long)]
    pub(super) ef_construct: Option<usize>,
    /// More of the request that creates the collection, such as {"optimizers_config":{"indexing_threshold":0}}
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub(super) create: Option<Value>,
    /// Points per request
    #[arg(long, default_value_t = 500)]
    pub(super) batch: usize,
    /// Requests in flight
    #[arg(long, default_value_t = 2)]
    pub(super) loaders: usize,
    /// Give each point a payload of about so many bytes: `kind` is one of k0 to k99, `n` is below 1,000,000
    #[arg(long, value_name = "N")]
    pub(super) payload_bytes: Option<usize>,
    /// Create payload indexes on both in a new collection
    #[arg(long, requires = "payload_bytes")]
    pub(super) payload_index: bool,
}

/// What is asked.
#[derive(Debug, Args)]
pub(super) struct Query {
    /// Neighbours per query
    #[arg(long, default_value_t = 10)]
    pub(super) k: usize,
    /// Query beam (hnsw_ef); the server's choice when absent
    #[arg(long)]
    pub(super) ef: Option<usize>,
    /// For each of these recalls, look for the smallest beam that reaches it and measure with that
    #[arg(long, value_name = "RECALL", value_delimiter = ',', conflicts_with_all = ["ef", "exact", "no_recall"])]
    pub(super) recall: Vec<f64>,
    /// The recall that routing by cluster aims at (recall_target); the collection's when absent
    #[arg(long, value_name = "RECALL")]
    pub(super) recall_target: Option<f64>,
    /// Scan exactly instead of using the index
    #[arg(long)]
    pub(super) exact: bool,
    /// Filter of all queries, such as {"must":[{"key":"kind","match":{"value":"k1"}}]}
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub(super) filter: Option<Value>,
    /// Have the payloads in the answers
    #[arg(long)]
    pub(super) with_payload: bool,
    /// Ask so many queries with each request (points/query/batch)
    #[arg(long, value_name = "N")]
    pub(super) batch_queries: Option<usize>,
    /// Share of the requests that write stored points again, as they are; with --no-load and payloads, say
    /// --payload-bytes as when they were loaded
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub(super) write_share: f64,
    /// Points per such request
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) write_batch: usize,
}

/// In which steps.
#[derive(Debug, Args)]
pub(super) struct Steps {
    /// Closed loop: clients that each wait for the answer before they ask again; a step for each number
    /// [default: 1,2,4,8 without --rate]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub(super) concurrency: Vec<usize>,
    /// Open loop: requests per second, whether the server keeps up or not; a step for each rate
    #[arg(long, value_name = "RATE", value_delimiter = ',')]
    pub(super) rate: Vec<f64>,
    /// Most requests in flight in the open loop; further ones wait for their start
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(super) in_flight: usize,
    /// Measured time of each step
    #[arg(long, default_value_t = 10.0)]
    pub(super) seconds: f64,
    /// Seconds of the same load before it
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub(super) warmup: f64,
}

/// How requests come in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mode {
    /// So many clients that wait for their answers.
    Closed { concurrency: usize },
    /// So many requests per second, at most `in_flight` at a time.
    Open { rate: f64, in_flight: usize },
}

impl Serve {
    /// Refuses flags that make no sense, before anything is read.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let counts = [
            ("--random", self.set.random.unwrap_or(1), usize::MAX),
            ("--dim", self.set.dim, limits::DIM_MAX),
            ("--limit", self.set.limit.unwrap_or(1), usize::MAX),
            ("--queries", self.set.queries, usize::MAX),
            ("--batch", self.load.batch, limits::BATCH_POINTS_MAX),
            ("--loaders", self.load.loaders, IN_FLIGHT_MAX),
            ("--k", self.query.k, limits::RESULTS_MAX),
            ("--ef", self.query.ef.unwrap_or(1), limits::EF_MAX),
            ("--batch-queries", self.query.batch_queries.unwrap_or(1), limits::BATCH_QUERIES_MAX),
            ("--write-batch", self.query.write_batch, limits::BATCH_POINTS_MAX),
            ("--in-flight", self.steps.in_flight, IN_FLIGHT_MAX),
        ];
        let concurrency = self.steps.concurrency.iter().map(|n| ("--concurrency", *n, IN_FLIGHT_MAX));
        for (flag, count, most) in counts.into_iter().chain(concurrency) {
            let allowed = if most == usize::MAX { "1 or larger".to_owned() } else { format!("1 to {most}") };
            ensure!((1..=most).contains(&count), "{flag} is {count}, it must be {allowed}");
        }
        let payload_bytes = self.load.payload_bytes.unwrap_or(0);
        let most = limits::PAYLOAD_BYTES_MAX;
        ensure!(payload_bytes <= most, "--payload-bytes is {payload_bytes}, it must be at most {most}");
        let numbers = [
            ("--seconds", self.steps.seconds, 1e-3, SECONDS_MAX),
            ("--warmup", self.steps.warmup, 0.0, SECONDS_MAX),
            ("--timeout", self.timeout, 1e-3, SECONDS_MAX),
            ("--write-share", self.query.write_share, 0.0, 1.0),
        ];
        let rates = self.steps.rate.iter().map(|rate| ("--rate", *rate, RATE_MIN, RATE_MAX));
        let recalls = self.query.recall.iter().map(|recall| ("--recall", *recall, 0.0, 1.0));
        let aimed = self.query.recall_target.iter().map(|recall| ("--recall-target", *recall, 1e-3, 1.0));
        for (flag, number, least, most) in numbers.into_iter().chain(rates).chain(recalls).chain(aimed) {
            ensure!((least..=most).contains(&number), "{flag} is {number}, it must be {least} to {most}");
        }
        Ok(())
    }

    /// Whether the vectors to be stored are needed, and not the queries alone.
    pub(super) fn needs_base(&self) -> bool {
        !self.load.no_load || self.wants_recall() || self.query.write_share > 0.0
    }

    /// Whether answers are compared with the exact ones.
    pub(super) fn wants_recall(&self) -> bool {
        !self.set.no_recall && !self.load.load_only && self.query.write_share < 1.0
    }

    /// What is asked, with a beam of `ef`.
    pub(super) fn asked(&self, ef: Option<usize>) -> Asked {
        Asked {
            k: self.query.k,
            ef,
            recall_target: self.query.recall_target,
            exact: self.query.exact,
            filter: self.query.filter.clone(),
            with_payload: self.query.with_payload,
            batch: self.query.batch_queries,
        }
    }

    pub(super) fn payload(&self) -> Payload {
        self.load.payload_bytes.map_or(Payload::Nothing, Payload::Bytes)
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout)
    }
}

impl Steps {
    /// The steps, in the order in which they are measured.
    pub(super) fn modes(&self) -> Vec<Mode> {
        let concurrency = match (&self.concurrency[..], &self.rate[..]) {
            ([], []) => &CONCURRENCY[..],
            (given, _) => given,
        };
        let closed = concurrency.iter().map(|concurrency| Mode::Closed { concurrency: *concurrency });
        let open = self.rate.iter().map(|rate| Mode::Open { rate: *rate, in_flight: self.in_flight });
        closed.chain(open).collect()
    }
}

fn json_object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        Ok(_) => Err("it is no JSON object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: Serve,
    }

    fn parse(flags: &str) -> Serve {
        Line::try_parse_from(["bench"].into_iter().chain(flags.split_whitespace())).unwrap().serve
    }

    #[test]
    fn steps_are_concurrencies_then_rates() {
        let modes = |flags: &str| parse(&format!("--random 9 {flags}")).steps.modes();
        let closed = |concurrency| Mode::Closed { concurrency };
        let open = |rate| Mode::Open { rate, in_flight: 512 };
        assert_eq!(modes(""), [closed(1), closed(2), closed(4), closed(8)]);
        assert_eq!(modes("--rate 50,100.5"), [open(50.0), open(100.5)]);
        assert_eq!(modes("--rate 50 --concurrency 3,1"), [closed(3), closed(1), open(50.0)]);
    }

    #[test]
    fn flags_out_of_range_are_refused_by_name() {
        parse("--random 9 --write-share 1 --rate 0.5").check().unwrap();
        for flags in [
            "--concurrency 1,0",
            "--k 0",
            "--rate 0",
            "--rate NaN",
            "--seconds inf",
            "--warmup=-1",
            "--write-share 1.1",
            "--batch-queries 1001",
            "--dim 0",
            "--timeout 0",
            "--recall 0.9,1.1",
            "--recall-target 0",
        ] {
            let error = parse(&format!("--random 9 {flags}")).check().unwrap_err().to_string();
            let flag = flags.split([' ', '=']).next().unwrap();
            assert!(error.starts_with(flag), "{flags}: {error}");
        }
    }

    #[test]
    fn several_servers_and_a_filter_are_understood() {
        let serve = parse("--data d --url http://a:1 --url http://b:2,http://c:3 --filter {\"must\":[]}");
        assert_eq!(serve.urls, ["http://a:1", "http://b:2", "http://c:3"]);
        assert_eq!(serve.query.filter, Some(serde_json::json!({"must": []})));
        let refused =
            |flags: &str| Line::try_parse_from(["bench"].into_iter().chain(flags.split_whitespace())).is_err();
        for flags in [
            "",
            "--data d --filter []",
            "--data d --random 9",
            "--random 9 --no-load --load-only",
            "--random 9 --ef 9 --recall 0.9",
        ] {
            assert!(refused(flags), "{flags}");
        }
    }

    #[test]
    fn vectors_are_read_only_for_a_purpose() {
        assert!(parse("--random 9").needs_base());
        assert!(parse("--random 9 --no-load").needs_base());
        assert!(!parse("--random 9 --no-load --no-recall").needs_base());
        assert!(parse("--random 9 --no-load --no-recall --write-share 0.1").needs_base());
    }
}
