//! Settings of the API that can be given but not chosen here: what holds in any case is accepted, anything else is refused
//! by name, with the reason.

use std::fmt::Display;

use axum::http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::super::answer::Failure;
use super::update::Object;

/// An object or nothing, and no array of its fields in the order they are declared in.
pub(super) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(fields)| fields))
}

/// The failure for a setting that is not offered, with the reason in words.
pub(super) fn unsupported(field: &str, why: &str) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, format!("Wrong input: `{field}` is not supported: {why}"))
}

/// Accepts what holds anyway, the first of `fine`; the API's own default, which asks for nothing in particular, if it is the
/// second; or nothing.
pub(super) fn only<T: PartialEq + Display>(
    field: &str,
    given: Option<T>,
    fine: &[T],
    why: &str,
) -> Result<(), Failure> {
    match (given, fine.first()) {
        (Some(value), Some(holds)) if !fine.contains(&value) => {
            let text = format!("Wrong input: `{field}` {value} is not supported, only {holds} is: {why}");
            Err(Failure::new(StatusCode::BAD_REQUEST, text))
        }
        (Some(_) | None, _) => Ok(()),
    }
}

/// Accepts nothing but an absent value or null.
pub(super) fn none<T>(field: &str, given: Option<T>, why: &str) -> Result<(), Failure> {
    given.map_or(Ok(()), |_| Err(unsupported(field, why)))
}

/// Where something is kept.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Memory {
    /// On the disk.
    Cold,
    /// In the cache of the disk.
    Cached,
    /// In memory.
    Pinned,
}

impl Memory {
    pub(super) fn name(self) -> &'static str {
        match self {
            Memory::Cold => "cold",
            Memory::Cached => "cached",
            Memory::Pinned => "pinned",
        }
    }

    /// Refuses memory for what is in mapped files in any case.
    pub(super) fn mapped(self, field: &str) -> Result<&'static str, Failure> {
        match self {
            Memory::Cold | Memory::Cached => Ok(self.name()),
            Memory::Pinned => {
                let why = "vectors and payloads are in mapped files, of which the page cache holds what it can";
                Err(unsupported(&format!("{field}: pinned"), why))
            }
        }
    }
}

/// The `optimizers_config` of a collection.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OptimizersBody {
    indexing_threshold: Option<u64>,
    deleted_threshold: Option<f64>,
    vacuum_min_vector_number: Option<u64>,
    default_segment_number: Option<u64>,
    max_segment_size: Option<u64>,
    memmap_threshold: Option<u64>,
    flush_interval_sec: Option<u64>,
    max_optimization_threads: Option<Threads>,
    prevent_unoptimized: Option<bool>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Threads {
    Number(u64),
    Word(String),
}

// What shard nodes do; `ShardOptions` and `LogOptions` there have no other values in any process.
/// Share of dead rows from which a segment is rewritten.
const DELETED_THRESHOLD: f64 = 0.2;
/// Rows from which that counts. It does for every segment; the API knows no smaller number.
const VACUUM_ROWS_MIN: u64 = 100;
/// Largest merged segment, in KiB.
const MAX_SEGMENT_KIB: u64 = 16 << 20;
/// Size of a file of the log, in MiB.
const LOG_FILE_MIB: u64 = 64;

impl OptimizersBody {
    /// The indexing threshold in KiB, if given; all else must be what holds anyway.
    pub(super) fn threshold(self) -> Result<Option<u64>, Failure> {
        let name = |field: &str| format!("optimizers_config.{field}");
        let why = "segments are rewritten when a fifth of their rows is deleted";
        only(&name("deleted_threshold"), self.deleted_threshold, &[DELETED_THRESHOLD], why)?;
        let why = "small segments are rewritten as soon as large ones";
        only(&name("vacuum_min_vector_number"), self.vacuum_min_vector_number, &[VACUUM_ROWS_MIN, 1_000], why)?;
        let why = "segments are merged until each shard has about four";
        only(&name("default_segment_number"), self.default_segment_number, &[0], why)?;
        let why = "merging ends there";
        only(&name("max_segment_size"), self.max_segment_size, &[MAX_SEGMENT_KIB], why)?;
        none(&name("memmap_threshold"), self.memmap_threshold, "segments of every size are memory-mapped")?;
        only(
            &name("flush_interval_sec"),
            self.flush_interval_sec,
            &[0, 5],
            "every write is synced before it is answered",
        )?;
        only(&name("prevent_unoptimized"), self.prevent_unoptimized, &[false], "new points are found at once")?;
        match self.max_optimization_threads {
            None => {}
            Some(Threads::Word(word)) if word == "auto" => {}
            Some(other) => {
                let given = match other {
                    Threads::Number(count) => count.to_string(),
                    Threads::Word(word) => word,
                };
                let why = "only `auto` is: each node spreads background work over its cores";
                return Err(unsupported(&format!("{}: {given}", name("max_optimization_threads")), why));
            }
        }
        Ok(self.indexing_threshold)
    }

    /// How the settings are shown.
    pub(super) fn shown(indexing_threshold_kib: u64) -> Value {
        json!({
            "deleted_threshold": DELETED_THRESHOLD,
            "vacuum_min_vector_number": VACUUM_ROWS_MIN,
            "default_segment_number": 0,
            "max_segment_size": MAX_SEGMENT_KIB,
            "memmap_threshold": null,
            "indexing_threshold": indexing_threshold_kib,
            "flush_interval_sec": 0,
            "max_optimization_threads": null,
        })
    }
}

/// The `wal_config` of a collection. The shards of a node share one log, which no collection has settings of its own for.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WalBody {
    wal_capacity_mb: Option<u64>,
    wal_segments_ahead: Option<u64>,
    wal_retain_closed: Option<u64>,
}

impl WalBody {
    /// Refuses what does not hold anyway.
    pub(super) fn check(self) -> Result<(), Failure> {
        let why = "all shards of a node share the files of its log";
        only("wal_config.wal_capacity_mb", self.wal_capacity_mb, &[LOG_FILE_MIB, 32], why)?;
        only("wal_config.wal_segments_ahead", self.wal_segments_ahead, &[0], "files of the log are made when needed")?;
        let why = "files of the log are kept for as long as a replica may need them";
        only("wal_config.wal_retain_closed", self.wal_retain_closed, &[1], why)
    }

    /// How the settings are shown.
    pub(super) fn shown() -> Value {
        json!({"wal_capacity_mb": LOG_FILE_MIB, "wal_segments_ahead": 0, "wal_retain_closed": 1})
    }
}

/// The `payload` of a collection: where payloads are.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PayloadBody {
    memory: Option<Memory>,
}

impl PayloadBody {
    /// How it is shown; `None` when nothing is said.
    pub(super) fn check(self, field: &str) -> Result<Option<Value>, Failure> {
        let memory = self.memory.map(|memory| memory.mapped(&format!("{field}.memory"))).transpose()?;
        Ok(memory.map(|memory| json!({"memory": memory})))
    }
}
