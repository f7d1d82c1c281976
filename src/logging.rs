//! Log lines on stderr: what happened and what to do about it, for the person who runs the process.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Libraries whose own lines are for their authors. What an operator must know of consensus and storage, the code that
/// uses them says in its own words. Set before the user's filter, so that it can still ask for them.
const QUIET: &str = "openraft=off,sled=error,hyper=error,h2=error,reqwest=error";

/// Starts logging. Fails on a filter that cannot be read.
pub(crate) fn start(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{filter}"))
        .with_context(|| format!("wrong setting: log is {filter:?}, expected something like `info` or `debug`"))?;
    // Whoever read the lines may be gone (`vicinal dev 2>&1 | head`). Complaining of that on the same closed stream would
    // panic, and the work that wrote the line must go on.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    match format {
        LogFormat::Text => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}
