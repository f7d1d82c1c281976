//! What the servers do meanwhile, as far as it can be seen from beside them: processor time of their processes on this
//! machine, and how long their shards search, which nodes of Vicinal tell in their metrics.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use futures::future::try_join_all;
use serde_json::{Map, Value, json};

/// Ticks per second of the times in `/proc`: what Linux shows to programs on every architecture that this is built for.
const TICKS_PER_SECOND: u64 = 100;
/// The histogram of how long each job of a read ran, on a node.
const SEARCH_SECONDS: &str = "vicinal_search_run_seconds_sum";
/// Longest wait for the metrics of a process.
const METRICS_TIMEOUT: Duration = Duration::from_secs(10);

/// Whom to watch.
#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Processes of the server on this machine: their processor time per request is measured
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    server_pid: Vec<u32>,
    /// Shard nodes of Vicinal (or the server itself, when it is one process): how long they search for a request is read
    /// from their metrics, and what the slowest does not explain of the time is shown as overhead; for one client
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    node: Vec<String>,
}

/// Counters at one moment.
struct Counted {
    /// By process.
    processor: Vec<Duration>,
    /// By node.
    searched: Vec<Duration>,
}

/// A watch that has begun.
pub(super) struct Begun<'a> {
    watch: &'a Watch,
    before: Counted,
}

/// What was seen, per request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// By process.
    processor: Vec<Duration>,
    /// By node.
    searched: Vec<Duration>,
}

impl Watch {
    /// Begins to watch. An error when there is no such process, or a node has no such metrics.
    pub(super) async fn start(&self) -> anyhow::Result<Begun<'_>> {
        Ok(Begun { watch: self, before: self.count().await? })
    }

    async fn count(&self) -> anyhow::Result<Counted> {
        let processor = self.server_pid.iter().map(|pid| processor_time(*pid)).collect::<anyhow::Result<_>>()?;
        let searched = try_join_all(self.node.iter().map(|url| searched(url))).await?;
        Ok(Counted { processor, searched })
    }
}

impl Begun<'_> {
    /// What was seen since, for each of so many requests.
    pub(super) async fn end(self, requests: u64) -> anyhow::Result<Seen> {
        let after = self.watch.count().await?;
        let each = |before: Vec<Duration>, after: Vec<Duration>| {
            let spent = after.iter().zip(before).map(|(after, before)| after.saturating_sub(before));
            spent.map(|spent| spent.div_f64(requests.max(1) as f64)).collect()
        };
        Ok(Seen {
            processor: each(self.before.processor, after.processor),
            searched: each(self.before.searched, after.searched),
        })
    }
}

impl Seen {
    /// The fields of a line; `p50` is the median latency of the queries as clients see it, `server_p50` as the server does.
    pub(super) fn line(&self, p50: Option<Duration>, server_p50: Option<Duration>) -> Value {
        let micros = |time: &Duration| (time.as_secs_f64() * 1e7).round() / 10.0;
        let mut line = Map::new();
        if !self.processor.is_empty() {
            line.insert("server_cpu_us".into(), json!(micros(&self.processor.iter().sum())));
            line.insert("server_cpu_us_by_process".into(), self.processor.iter().map(micros).collect());
        }
        if let Some(slowest) = self.searched.iter().max() {
            line.insert("search_us_by_node".into(), self.searched.iter().map(micros).collect());
            let overhead = |p50: Option<Duration>| p50.map(|p50| micros(&p50.saturating_sub(*slowest)));
            line.insert("overhead_p50_us".into(), json!(overhead(server_p50)));
            line.insert("overhead_with_client_p50_us".into(), json!(overhead(p50)));
        }
        Value::Object(line)
    }
}

/// Time that the threads of a process have run, those that have ended included, to a hundredth of a second.
fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("--server-pid {pid}: cannot read {path}"))?;
    let ticks = ticks(&text).with_context(|| format!("{path} has not the expected form"))?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}

/// `utime` and `stime`, together. The name of the program, in brackets, may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_ascii_whitespace().skip(11).map_while(|field| field.parse::<u64>().ok());
    Some(times.next()? + times.next()?)
}

async fn searched(url: &str) -> anyhow::Result<Duration> {
    let client = reqwest::Client::builder().timeout(METRICS_TIMEOUT).no_proxy().build()?;
    let url = format!("{}/metrics", url.trim_end_matches('/'));
    let answer = client.get(&url).send().await.with_context(|| format!("--node: nobody answers at {url}"))?;
    let text = answer.error_for_status()?.text().await?;
    let seconds = value(&text, SEARCH_SECONDS).with_context(|| format!("{url} has no {SEARCH_SECONDS}"))?;
    ensure!(seconds.is_finite() && seconds >= 0.0, "{SEARCH_SECONDS} of {url} is {seconds}");
    Ok(Duration::from_secs_f64(seconds))
}

/// The value of a metric without labels.
fn value(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_whatever_the_program_is_called() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 900 0 3 0 250 31 0 0 20 0 9 0 100 1000 200 18446744073709551615";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert!(processor_time(std::process::id()).is_ok());
        assert!(processor_time(0).unwrap_err().to_string().contains("--server-pid 0"));
    }

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let page = "# HELP a_sum x\na_sum_more 1\na_sum{b=\"c\"} 2\na_sum 3.5\n";
        assert_eq!(value(page, "a_sum"), Some(3.5));
        assert_eq!(value(page, "a"), None);
    }

    #[test]
    fn overhead_is_what_the_slowest_node_does_not_explain() {
        let micros = Duration::from_micros;
        let seen = Seen { processor: vec![micros(70), micros(40)], searched: vec![micros(20), micros(35)] };
        let line = seen.line(Some(micros(180)), Some(micros(150)));
        assert_eq!((&line["server_cpu_us"], &line["overhead_p50_us"]), (&json!(110.0), &json!(115.0)));
        assert_eq!(line["overhead_with_client_p50_us"], json!(145.0));
        assert_eq!(line["server_cpu_us_by_process"], json!([70.0, 40.0]));
        assert_eq!(line["search_us_by_node"], json!([20.0, 35.0]));
        assert_eq!(Seen::default().line(Some(micros(1)), None), json!({}));
        assert_eq!(seen.line(None, None)["overhead_p50_us"], Value::Null);
    }
}
