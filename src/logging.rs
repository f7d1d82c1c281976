//! Log lines on stderr: what happened and what to do about it, for the person who runs the process. Beside them, where the
//! operator names a collector, the spans of requests: see [`crate::traces`].

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::LogFormat;
use crate::traces::{self, Export, Traces};

/// Libraries whose own lines are for their authors. What an operator must know of consensus and storage, the code that
/// uses them says in its own words. The spans of requests are for the collector. Set before the user's filter, so that it
/// can still ask for them.
const QUIET: &str = "openraft=off,sled=error,hyper=error,h2=error,reqwest=error,vicinal_trace=off";

/// Starts logging and, if the operator wants them, traces. Fails on a filter or a collector that cannot be. What it
/// returns is dropped at the end of the process, off the async threads: that sends the last spans.
pub(crate) fn start(filter: &str, format: LogFormat, export: Option<Export<'_>>) -> anyhow::Result<Traces> {
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{filter}"))
        .with_context(|| format!("wrong setting: log is {filter:?}, expected something like `info` or `debug`"))?;
    // Whoever read the lines may be gone (`vicinal dev 2>&1 | head`). Complaining of that on the same closed stream would
    // panic, and the work that wrote the line must go on.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let traces = export.as_ref().map(traces::start).transpose()?.unwrap_or_default();
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(traces.layer()).init();
    if let Some(export) = export {
        // Without the scheme: whoever starts a process reads its own address from the first line with a URL.
        tracing::info!("traces of requests go to the collector at {}", export.endpoint.trim_start_matches("http://"));
    }
    Ok(traces)
}
