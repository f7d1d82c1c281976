//! What all processes of the program share: the runtime, the signal to stop, the listening socket, the threads.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vicinal_common::transport::Address;
use vicinal_shard_node::node::NodeOptions;
use vicinal_shard_node::service::SearchPool;

use crate::config::check_url;
use crate::memory;

/// Reads that may wait for a search thread, per thread.
const READS_WAITING_PER_THREAD: usize = 512;
/// Smallest bound of a shard's rows in memory when the user chose when to seal.
const FRESH_BYTES_MIN: u64 = 4 << 20;

/// Runs a process to its end on a runtime of its own.
pub(crate) fn run(serve: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    memory::start_trimming()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(serve);
    // What still runs on blocking threads belongs to requests whose clients have gone.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// The threads for reads: one for each core, and as many for the long scans of single ones. These are rayon's global pool, which
/// would be started otherwise by whoever needs it first: with the low priority of a build, for good.
pub(crate) fn search_pool() -> anyhow::Result<Arc<SearchPool>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let scans = rayon::ThreadPoolBuilder::new().num_threads(cores).thread_name(|number| format!("scan-{number}"));
    scans.build_global().context("the threads for scans cannot start")?;
    Ok(SearchPool::start(cores, cores * READS_WAITING_PER_THREAD)?)
}

/// The options of a node with what the operator chose.
pub(crate) fn with_choices(
    mut options: NodeOptions,
    seal_bytes: Option<u64>,
    disk_reserve_bytes: Option<u64>,
) -> NodeOptions {
    if let Some(seal_bytes) = seal_bytes {
        options.shard.seal_bytes = seal_bytes;
        options.shard.fresh_bytes_max = seal_bytes.saturating_mul(4).max(FRESH_BYTES_MIN);
    }
    if let Some(reserve) = disk_reserve_bytes {
        options.disk_reserve_bytes = reserve;
    }
    options
}

/// Completes at the first Ctrl-C or TERM. A second one ends the process at once.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let told = CancellationToken::new();
    let tell = told.clone();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    tokio::spawn(async move {
        for already_told in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if already_told {
                tracing::warn!("told to stop a second time: ending at once; acknowledged writes are safe");
                std::process::exit(EXIT_INTERRUPTED);
            }
            tell.cancel();
            tracing::info!("told to stop: finishing requests in flight; again to end at once");
        }
    });
    Ok(told.cancelled_owned())
}

/// Exit status of a process that an interrupt ended, by convention of shells.
const EXIT_INTERRUPTED: i32 = 130;

pub(crate) async fn listen(address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow!("{address} is in use by another process; stop that one, or choose another address with --listen")
        }
        _ => anyhow!("cannot listen on {address}: {error}; choose another address with --listen"),
    })
}

/// The address a client on this machine uses.
pub(crate) fn url(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => format!("http://127.0.0.1:{}", v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("http://[::1]:{}", v6.port()),
        address => format!("http://{address}"),
    }
}

/// The address other processes are told: as set, or where this one listens.
pub(crate) fn advertised(set: Option<&str>, listening: &str) -> anyhow::Result<Address> {
    check_url("advertise", set.unwrap_or(listening))
}

pub(crate) fn counted(n: usize, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_one_a_client_can_use() {
        let shown = |address: &str| url(address.parse().unwrap());
        assert_eq!(shown("127.0.0.1:6333"), "http://127.0.0.1:6333");
        assert_eq!(shown("0.0.0.0:80"), "http://127.0.0.1:80");
        assert_eq!(shown("[::]:80"), "http://[::1]:80");
        assert_eq!((counted(1, "shard"), counted(2, "shard")), ("1 shard".to_owned(), "2 shards".to_owned()));
    }
}
