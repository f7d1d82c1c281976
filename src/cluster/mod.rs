//! `vicinal cluster`: how a running cluster is, for a person at a terminal, or as JSON for a script.
//!
//! The exit status is 0 for a healthy cluster, 1 for one that something is wrong with, 2 when no coordinator answers.

mod show;
mod state;
mod table;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};

use crate::rest::Rest;
use state::Picture;

/// Longest time to wait for all answers.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);
/// Collections asked about at the same time.
const COLLECTIONS_AT_A_TIME: usize = 8;
/// Exit status when something is wrong with the cluster.
const DEGRADED: u8 = 1;
/// Exit status when nothing is known of the cluster.
const UNREACHABLE: u8 = 2;

/// How a running cluster is.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    view: View,
    /// A coordinator
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:6333")]
    url: String,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Only this collection
    #[arg(long, global = true, value_name = "NAME")]
    collection: Option<String>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum View {
    /// Everything on one page: coordinators, nodes, collections
    Status,
    /// Coordinators and shard nodes
    Nodes,
    /// Every replica of every shard
    Shards,
}

/// Prints the view.
pub(crate) fn run(args: &Cluster) -> ExitCode {
    match look(args) {
        Ok((text, is_healthy)) => {
            // Whoever reads may have seen enough (`vicinal cluster shards | head`).
            let _ = std::io::stdout().write_all(text.as_bytes());
            if is_healthy { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) }
        }
        Err(error) => {
            eprintln!("vicinal: {error:#}");
            ExitCode::from(UNREACHABLE)
        }
    }
}

fn look(args: &Cluster) -> anyhow::Result<(String, bool)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async { tokio::time::timeout(ANSWER_TIME_MAX, ask(args)).await });
    let answers = asked.map_err(|_| anyhow!("{} did not answer within {ANSWER_TIME_MAX:?}", args.url))??;
    let picture = answers.picture()?;
    let is_healthy = picture.problems().is_empty();
    let text = match args.view {
        _ if args.json => answers.json(&picture) + "\n",
        View::Status => show::status(&picture),
        View::Nodes => show::processes(&picture),
        View::Shards => show::shards(&picture),
    };
    Ok((text, is_healthy))
}

/// What the coordinator answered.
struct Answers {
    cluster: Value,
    /// By name: its placement, or why there is none.
    collections: BTreeMap<String, Result<Value, String>>,
}

async fn ask(args: &Cluster) -> anyhow::Result<Answers> {
    let rest = Rest::new(&args.url)?;
    let cluster = rest.get("/cluster").await?;
    let listed = rest.get("/collections").await?;
    let listed = listed["collections"].as_array().context("/collections answered without a list")?;
    let mut names: Vec<String> = listed.iter().filter_map(|one| one["name"].as_str()).map(str::to_owned).collect();
    if let Some(only) = &args.collection {
        names.retain(|name| name == only);
        if names.is_empty() {
            bail!("there is no collection `{only}`");
        }
    }
    let placement = |name: String| {
        let rest = rest.clone();
        async move {
            let answer = rest.get(&format!("/collections/{}/cluster", in_path(&name))).await;
            (name, answer.map_err(|error| format!("{error:#}")))
        }
    };
    let collections = stream::iter(names).map(placement).buffer_unordered(COLLECTIONS_AT_A_TIME).collect().await;
    Ok(Answers { cluster, collections })
}

/// A name as a part of a path.
fn in_path(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

impl Answers {
    fn picture(&self) -> anyhow::Result<Picture> {
        let cluster =
            serde_json::from_value(self.cluster.clone()).context("/cluster is not what this program knows")?;
        let mut collections = BTreeMap::new();
        for (name, answer) in &self.collections {
            let placement = match answer {
                Ok(placement) => Ok(serde_json::from_value(placement.clone())
                    .with_context(|| format!("the placement of {name} is not what this program knows"))?),
                Err(error) => Err(error.clone()),
            };
            collections.insert(name.clone(), placement);
        }
        Ok(Picture { cluster, collections })
    }

    fn json(&self, picture: &Picture) -> String {
        let collection = |answer: &Result<Value, String>| match answer {
            Ok(placement) => placement.clone(),
            Err(error) => json!({"error": error}),
        };
        let collections = self.collections.iter().map(|(name, answer)| (name.clone(), collection(answer)));
        let problems = picture.problems();
        let all = json!({
            "healthy": problems.is_empty(),
            "verdict": picture.verdict(),
            "problems": problems,
            "cluster": self.cluster,
            "collections": collections.collect::<serde_json::Map<String, Value>>(),
        });
        format!("{all:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_for_the_path() {
        assert_eq!(in_path("films-2"), "films-2");
        assert_eq!(in_path("a b/ä?"), "a%20b%2F%C3%A4%3F");
    }
}
