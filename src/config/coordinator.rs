//! Settings of `vicinal coordinator`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{LogFormat, Urls};

/// The settings as the rest of the program sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CoordinatorConfig {
    /// The operator's name for this process, unique in the cluster.
    pub(crate) id: String,
    /// Host and port; port 0 lets the system choose.
    pub(crate) listen: String,
    /// Where other processes reach this one; `None`: where it listens.
    pub(crate) advertise: Option<String>,
    /// Where everything is stored; made when missing.
    pub(crate) data_dir: PathBuf,
    /// Whether it founds a cluster when it has no data.
    pub(crate) bootstrap: bool,
    /// Coordinators to ask for a cluster when it has no data.
    pub(crate) join: Urls,
    /// Shards of a collection whose creator names no `shard_number`.
    pub(crate) shards: u32,
    /// Which log lines are written, in the syntax of `RUST_LOG`.
    pub(crate) log: String,
    /// How they look.
    pub(crate) log_format: LogFormat,
    /// Where traces are sent; `None`: nowhere.
    pub(crate) otlp_endpoint: Option<String>,
}

impl Default for CoordinatorConfig {
    fn default() -> CoordinatorConfig {
        CoordinatorConfig {
            id: String::new(),
            listen: "127.0.0.1:6333".to_owned(),
            advertise: None,
            data_dir: PathBuf::from("./vicinal-data"),
            bootstrap: false,
            join: Urls::default(),
            shards: 4,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
        }
    }
}

/// The flags. Each is also a key of the TOML file and, in capitals after `VICINAL_`, a variable.
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct CoordinatorArgs {
    /// TOML file with settings (also VICINAL_CONFIG)
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// Name of this process, unique in the cluster
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Host and port to listen on [default: 127.0.0.1:6333]
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
    /// Without data, found a new cluster; with --join too: only if none of those has one
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    #[serde(skip_serializing_if = "Option::is_none")]
    bootstrap: Option<bool>,
    /// Without data, ask these coordinators to be taken in
    #[arg(long, value_name = "URL,URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    join: Option<String>,
    /// Shards of a collection created without `shard_number` [default: 4]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<u32>,
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

impl CoordinatorConfig {
    /// Joins the layers and checks ranges. The error text names the key and where it was set.
    pub(crate) fn load(args: &CoordinatorArgs) -> anyhow::Result<CoordinatorConfig> {
        let config: CoordinatorConfig = super::load(args, args.config.as_deref())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        super::check_name(&self.id)?;
        super::check_shards(self.shards)
    }
}
