//! Settings of `vicinal dev`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::LogFormat;

/// The settings as the rest of the program sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DevConfig {
    /// Where everything is stored; made when missing.
    pub(crate) data_dir: PathBuf,
    /// Host and port of the REST server; port 0 lets the system choose.
    pub(crate) listen: String,
    /// Shard nodes in this process; `None`: as many as the data directory holds, 3 at first.
    pub(crate) nodes: Option<usize>,
    /// Shards of a collection whose creator names no `shard_number`.
    pub(crate) shards: u32,
    /// Load the demo collection and show searches.
    pub(crate) demo: bool,
    /// Which log lines are written, in the syntax of `RUST_LOG`.
    pub(crate) log: String,
    /// How they look.
    pub(crate) log_format: LogFormat,
    /// Bytes of fresh rows at which a shard seals them into a segment file; `None`: the engine's own choice.
    pub(crate) seal_bytes: Option<u64>,
    /// Free disk space below which writes are refused, in bytes; `None`: the node's own choice.
    pub(crate) disk_reserve_bytes: Option<u64>,
    /// Where traces are sent; `None`: nowhere.
    pub(crate) otlp_endpoint: Option<String>,
}

impl Default for DevConfig {
    fn default() -> DevConfig {
        DevConfig {
            data_dir: PathBuf::from("./vicinal-data"),
            listen: "127.0.0.1:6333".to_owned(),
            nodes: None,
            shards: 4,
            demo: false,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            seal_bytes: None,
            disk_reserve_bytes: None,
            otlp_endpoint: None,
        }
    }
}

/// The flags of `vicinal dev`. Each is also a key of the TOML file and, in capitals after `VICINAL_`, a variable.
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct DevArgs {
    /// TOML file with settings (also VICINAL_CONFIG)
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is stored; made when missing [default: ./vicinal-data]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    /// Host and port of the REST server [default: 127.0.0.1:6333]
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    /// Shard nodes in this process [default: as many as the data directory holds, 3 at first]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<usize>,
    /// Shards of a collection created without `shard_number` [default: 4]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<u32>,
    /// Load 10,000 labelled pictures and show searches among them
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    #[serde(skip_serializing_if = "Option::is_none")]
    demo: Option<bool>,
    /// Which log lines are written, for example `debug` or `info,vicinal_shard_node=debug` [default: info]
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    /// How log lines look [default: text]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<LogFormat>,
    /// Bytes of new rows at which a shard writes them into a segment file
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    seal_bytes: Option<u64>,
    /// Free disk space below which writes are refused
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_reserve_bytes: Option<u64>,
    /// Send traces to this OTLP/HTTP collector, for example http://127.0.0.1:4318
    #[arg(long, value_name = "URL", hide_short_help = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    otlp_endpoint: Option<String>,
}

impl DevConfig {
    /// Joins the layers and checks ranges. The error text names the key and where it was set.
    pub(crate) fn load(args: &DevArgs) -> anyhow::Result<DevConfig> {
        let config: DevConfig = super::load(args, args.config.as_deref())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        super::check_shards(self.shards)?;
        if let Some(nodes) = self.nodes.filter(|nodes| !(1..=NODES_MAX).contains(nodes)) {
            bail!("wrong setting: nodes is {nodes}, it must be 1 to {NODES_MAX}");
        }
        if self.seal_bytes == Some(0) {
            bail!("wrong setting: seal_bytes is 0, it must be 1 or larger");
        }
        Ok(())
    }
}

/// Most shard nodes in one process: enough to try any placement on a laptop.
pub(crate) const NODES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str) -> anyhow::Result<DevConfig> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vicinal.toml");
        std::fs::write(&path, toml).unwrap();
        DevConfig::load(&DevArgs { config: Some(path), ..DevArgs::default() })
    }

    #[test]
    fn defaults_hold_without_a_file() {
        assert_eq!(load("").unwrap(), DevConfig::default());
    }

    #[test]
    fn the_example_file_shows_the_defaults() {
        assert_eq!(load(include_str!("../../deploy/vicinal.toml")).unwrap(), DevConfig::default());
        let all = include_str!("../../deploy/vicinal.toml").replace("# nodes", "nodes").replace("# seal", "seal");
        let config = load(&all.replace("# disk", "disk")).unwrap();
        assert_eq!(
            (config.nodes, config.seal_bytes, config.disk_reserve_bytes),
            (Some(3), Some(16 << 20), Some(128 << 20))
        );
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vicinal.toml");
        std::fs::write(&path, "shards = 8\nnodes = 5\nlog_format = \"json\"").unwrap();
        let config = DevConfig::load(&DevArgs { config: Some(path), shards: Some(2), ..DevArgs::default() }).unwrap();
        assert_eq!((config.shards, config.nodes, config.log_format), (2, Some(5), LogFormat::Json));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let text = load("shardz = 4").unwrap_err().to_string();
        assert!(text.contains("`shardz`") && text.contains("shards"), "{text}");
        let text = load("[storage]\nseal = 1").unwrap_err().to_string();
        assert!(text.contains("`storage`"), "{text}");
    }

    #[test]
    fn values_out_of_range_or_of_a_wrong_type_are_named() {
        for (toml, named) in [("shards = 0", "shards"), ("nodes = 99", "nodes"), ("shards = \"many\"", "shards")] {
            let text = load(toml).unwrap_err().to_string();
            assert!(text.contains(named), "{toml}: {text}");
        }
        assert!(load("shards = ").is_err());
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let args = DevArgs { config: Some(PathBuf::from("no-such-file.toml")), ..DevArgs::default() };
        assert!(DevConfig::load(&args).unwrap_err().to_string().contains("no-such-file.toml"));
    }
}
