//! Settings of `vicinal shard-node`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{LogFormat, Urls};

/// The settings as the rest of the program sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShardNodeConfig {
    /// The operator's name for this process, unique in the cluster.
    pub(crate) id: String,
    /// Host and port; port 0 lets the system choose.
    pub(crate) listen: String,
    /// Where other processes reach this one; `None`: where it listens.
    pub(crate) advertise: Option<String>,
    /// Where everything is stored; made when missing.
    pub(crate) data_dir: PathBuf,
    /// Coordinators to report to; the others are learned from them.
    pub(crate) coordinators: Urls,
    /// Where it stands: replicas of a shard are spread over zones.
    pub(crate) zone: Option<String>,
    /// Bytes of fresh rows at which a shard seals them into a segment file; `None`: the engine's own choice.
    pub(crate) seal_bytes: Option<u64>,
    /// Free disk space below which writes are refused, in bytes; `None`: the node's own choice.
    pub(crate) disk_reserve_bytes: Option<u64>,
    /// Which log lines are written, in the syntax of `RUST_LOG`.
    pub(crate) log: String,
    /// How they look.
    pub(crate) log_format: LogFormat,
    /// Where traces are sent; `None`: nowhere.
    pub(crate) otlp_endpoint: Option<String>,
}

impl Default for ShardNodeConfig {
    fn default() -> ShardNodeConfig {
        ShardNodeConfig {
            id: String::new(),
            listen: "127.0.0.1:6340".to_owned(),
            advertise: None,
            data_dir: PathBuf::from("./vicinal-data"),
            coordinators: Urls::default(),
            zone: None,
            seal_bytes: None,
            disk_reserve_bytes: None,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
        }
    }
}

/// The flags. Each is also a key of the TOML file and, in capitals after `VICINAL_`, a variable.
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct ShardNodeArgs {
    /// TOML file with settings (also VICINAL_CONFIG)
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// Name of this process, unique in the cluster
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Host and port to listen on [default: 127.0.0.1:6340]
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    /// URL at which other processes reach this one; it should stay the same [default: http://<listen>]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise: Option<String>,
    /// Where everything is stored; made when missing [default: ./vicinal-data]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    /// Coordinators of the cluster; one that answers is enough
    #[arg(long, value_name = "URL,URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinators: Option<String>,
    /// Rack, room or data centre: replicas of a shard are spread over zones
    #[arg(long, value_name = "ZONE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    /// Bytes of new rows at which a shard writes them into a segment file
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    seal_bytes: Option<u64>,
    /// Free disk space below which writes are refused
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_reserve_bytes: Option<u64>,
    /// Which log lines are written, for example `debug` or `info,vicinal_coordinator=debug` [default: info]
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    /// How log lines look [default: text]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<LogFormat>,
    /// Send traces to this OTLP/HTTP collector, for example http://127.0.0.1:4318
    #[arg(long, value_name = "URL", hide_short_help = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    otlp_endpoint: Option<String>,
}

impl ShardNodeConfig {
    /// Joins the layers and checks ranges. The error text names the key and where it was set.
    pub(crate) fn load(args: &ShardNodeArgs) -> anyhow::Result<ShardNodeConfig> {
        let config: ShardNodeConfig = super::load(args, args.config.as_deref())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        super::check_name(&self.id)?;
        if self.coordinators.0.is_empty() {
            anyhow::bail!(
                "wrong setting: coordinators is missing; name at least one, for example \
                           --coordinators http://127.0.0.1:6333"
            );
        }
        if self.seal_bytes == Some(0) {
            anyhow::bail!("wrong setting: seal_bytes is 0, it must be 1 or larger");
        }
        Ok(())
    }
}
