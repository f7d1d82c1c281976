//! Settings of the processes: built-in values, then a TOML file, then `VICINAL_*` variables, then flags; later ones win. A
//! key that nobody reads is refused by name, wherever it stands.

mod coordinator;
mod dev;
mod shard_node;
mod urls;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::{Figment, Profile, Provider};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use coordinator::{CoordinatorArgs, CoordinatorConfig};
pub(crate) use dev::{DevArgs, DevConfig, NODES_MAX};
pub(crate) use shard_node::{ShardNodeArgs, ShardNodeConfig};
pub(crate) use urls::{Urls, check_url};

/// Beginning of the names of variables that are settings.
const ENV_PREFIX: &str = "VICINAL_";
/// The one variable that is no setting itself: path of the TOML file.
const CONFIG_KEY: &str = "config";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// Joins the layers: the settings' defaults, the TOML file that `config` or `VICINAL_CONFIG` names, variables, flags.
fn load<C: Default + Serialize + DeserializeOwned>(args: &impl Serialize, config: Option<&Path>) -> anyhow::Result<C> {
    let defaults = Serialized::defaults(C::default());
    let known = keys(&defaults)?;
    let variables = Env::prefixed(ENV_PREFIX).ignore(&[CONFIG_KEY]);
    refuse_unknown(&keys(&variables)?, &known, |key| format!("the variable {ENV_PREFIX}{}", key.to_ascii_uppercase()))?;
    let mut figment = Figment::from(defaults);
    if let Some(path) = config.map(PathBuf::from).or_else(|| std::env::var_os("VICINAL_CONFIG").map(PathBuf::from)) {
        if !path.is_file() {
            bail!("the settings file {} does not exist", path.display());
        }
        let file = Toml::file_exact(&path);
        refuse_unknown(&keys(&file)?, &known, |key| format!("`{key}` in {}", path.display()))?;
        figment = figment.merge(file);
    }
    let joined = figment.merge(variables).merge(Serialized::defaults(args)).extract();
    joined.map_err(|error| anyhow::anyhow!("wrong setting: {error}"))
}

/// Top-level keys a layer sets.
fn keys(layer: &dyn Provider) -> anyhow::Result<Vec<String>> {
    let profiles = layer.data().context("wrong settings")?;
    let default = profiles.into_iter().filter(|(profile, _)| *profile == Profile::Default);
    Ok(default.flat_map(|(_, dict)| dict.into_keys()).collect())
}

fn refuse_unknown(set: &[String], known: &[String], place: impl Fn(&str) -> String) -> anyhow::Result<()> {
    match set.iter().find(|key| !known.contains(key)) {
        None => Ok(()),
        Some(key) => bail!("unknown setting: {}; the settings are {}", place(key), known.join(", ")),
    }
}

/// Longest name of a process, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The name of a process: what people read in tables and logs.
fn check_name(id: &str) -> anyhow::Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() {
        bail!("wrong setting: id is missing; name this process, for example --id n1");
    }
    if id.len() > NAME_BYTES_MAX || !id.chars().all(is_plain) {
        bail!("wrong setting: id is {id:?}, it must be 1 to {NAME_BYTES_MAX} of the characters a-z A-Z 0-9 - _ .");
    }
    Ok(())
}

fn check_shards(shards: u32) -> anyhow::Result<()> {
    let shards_max = vicinal_common::limits::SHARDS_PER_COLLECTION_MAX;
    if !(1..=shards_max).contains(&shards) {
        bail!("wrong setting: shards is {shards}, it must be 1 to {shards_max}");
    }
    Ok(())
}
