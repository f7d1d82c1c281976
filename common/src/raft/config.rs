//! Timers and bounds of the two kinds of group.
//!
//! A new leader is found within `election_timeout_max` (the lease followers grant the old one) plus a random time
//! between the two election time-outs, so both are kept close together.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};

/// Time a snapshot's transfer may take as a whole, in milliseconds.
const SNAPSHOT_TRANSFER_MS: u64 = 10 * 60 * 1_000;
/// Log entries after which the metadata group takes a snapshot.
const META_SNAPSHOT_ENTRIES: u64 = 1_000;
/// Log entries kept behind a snapshot of the metadata, for followers that are a little late.
const META_KEEP_ENTRIES: u64 = 200;

/// The metadata group: fails over within about 0.7 s and snapshots by itself.
pub fn metadata_config() -> Arc<Config> {
    let config = Config {
        cluster_name: "metadata".into(),
        heartbeat_interval: 100,
        election_timeout_min: 300,
        election_timeout_max: 400,
        quorum_loss_probe_interval: Some(800),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(META_SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: META_KEEP_ENTRIES,
        ..common()
    };
    Arc::new(config.validate().expect("constants that openraft's rules allow, covered by a test"))
}

/// A shard's group: slower timers, because a node has many groups and shares its disk with searches. Snapshots and
/// purges are triggered by the shard, by bytes.
pub fn shard_config() -> Arc<Config> {
    let config = Config {
        cluster_name: "shard".into(),
        heartbeat_interval: 150,
        election_timeout_min: 500,
        election_timeout_max: 700,
        quorum_loss_probe_interval: Some(1_400),
        snapshot_policy: SnapshotPolicy::Never,
        // The shard purges up to a manifest it holds, never less than that.
        max_in_snapshot_log_to_keep: 0,
        ..common()
    };
    Arc::new(config.validate().expect("constants that openraft's rules allow, covered by a test"))
}

fn common() -> Config {
    Config {
        enable_pre_vote: Some(true),
        // A leader sends entries on while it writes them itself. What a crash takes from its own log may be in the
        // others' logs: as leader of the same term it would give the same log ids to other entries, and nobody would see
        // the difference. An election gives it a new term. A sole voter elects itself at once.
        enable_leader_restore: Some(false),
        install_snapshot_timeout: SNAPSHOT_TRANSFER_MS,
        purge_batch_size: 256,
        max_payload_entries: 300,
        ..Config::default()
    }
}
