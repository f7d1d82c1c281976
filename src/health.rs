//! `vicinal health`: whether a process answers, for container engines, whose images have no other HTTP client.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

/// Whether a coordinator or shard node answers and is ready.
#[derive(Debug, Args)]
pub(crate) struct Health {
    /// The process
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:6333")]
    url: String,
    /// Only ask whether it is alive, not whether it is ready
    #[arg(long)]
    live: bool,
    /// Longest wait for the answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

/// Exit status 0 when the process answers that all is well, else 1 with a line that says why.
pub(crate) fn run(args: &Health) -> ExitCode {
    match ask(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vicinal: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ask(args: &Health) -> anyhow::Result<()> {
    let path = if args.live { "/livez" } else { "/readyz" };
    let url = format!("{}{path}", args.url.trim_end_matches('/'));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(args.timeout)).build()?;
        let answer = client.get(&url).send().await?;
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        anyhow::ensure!(status.is_success(), "{url} answered {status}: {text}");
        Ok(())
    })
}
