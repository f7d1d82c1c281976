//! Log lines on stderr: what happened and what to do about it, for the person who runs the process. Beside them, where the
//! operator names a collector, the spans of requests: see [`crate::traces`].

use std::io::IsTerminal;

use anyhow::Context;
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt;
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
    let traces = export.as_ref().map(traces::start).transpose()?.unwrap_or_default();
    let dispatch = dispatch(filter, format, &traces)?;
    tracing::dispatcher::set_global_default(dispatch).context("logging has been started before")?;
    if let Some(export) = export {
        // Without the scheme: whoever starts a process reads its own address from the first line with a URL.
        tracing::info!("traces of requests go to the collector at {}", export.endpoint.trim_start_matches("http://"));
    }
    Ok(traces)
}

/// Takes in the lines, and the spans where they are exported.
fn dispatch(filter: &str, format: LogFormat, traces: &Traces) -> anyhow::Result<Dispatch> {
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
    // No layer at all without an export: one that is there and takes nothing makes every span be made.
    let lines = tracing_subscriber::registry().with(lines.with_filter(filter));
    Ok(match traces.layer() {
        Some(layer) => Dispatch::new(lines.with(layer)),
        None => Dispatch::new(lines),
    })
}

#[cfg(test)]
mod tests {
    use vicinal_common::telemetry;

    use super::*;

    #[test]
    fn spans_are_not_made_where_nobody_exports_them() {
        let dispatch = dispatch("info", LogFormat::Text, &Traces::default()).unwrap();
        tracing::dispatcher::with_default(&dispatch, || {
            assert!(telemetry::query_span("places", 1).is_disabled());
            assert!(!telemetry::is_traced());
            assert!(!tracing::info_span!("of another target").is_disabled());
        });
    }
}
