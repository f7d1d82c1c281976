//! Keeps a group's log short: snapshots follow the shard's durable manifests, purges follow the snapshots and the other
//! replicas.

use std::sync::atomic::Ordering;

use openraft::RaftMetrics;
use openraft::async_runtime::watch::WatchReceiver;

use super::command::ShardRaft;
use super::group::{Group, Raft};

/// Entries a follower keeps behind its snapshot: should it become the leader, others that are a little behind need
/// no snapshot.
const FOLLOWER_TAIL: u64 = 128;

impl Group {
    /// One round: tells raft of a new durable manifest, purges what nobody needs, asks for a flush when replaying the
    /// log would take long.
    pub(super) async fn maintain(&self, raft: &Raft) {
        let Some(durable) = self.parts.shard.durable().map(|mark| mark.index.0) else {
            self.flush_if_long(None);
            return;
        };
        let metrics = raft.metrics().borrow_watched().clone();
        let snapshot = metrics.snapshot.map(|id| id.index);
        let behind = snapshot.is_none_or(|index| index < durable);
        // An error means that raft has stopped, which the supervisor sees by itself.
        if behind && raft.trigger().snapshot().await.is_err() {
            return;
        }
        self.flush_if_long(Some(durable));
        if let Some(snapshot) = snapshot {
            let target = purge_target(&metrics, snapshot.min(durable), self.wants_room());
            if let Some(upto) = target {
                // Fails only when raft has stopped.
                let _ = raft.trigger().purge_log(upto).await;
            }
            if durable <= snapshot {
                self.pressed.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Whether followers that are behind must do with a snapshot.
    fn wants_room(&self) -> bool {
        self.pressed.load(Ordering::Relaxed) || self.log_bytes() > self.parts.options.keep_bytes_max
    }

    /// A removed log is as good as an empty one here.
    fn log_bytes(&self) -> u64 {
        self.parts.log.bytes().unwrap_or(0)
    }

    fn flush_if_long(&self, durable: Option<u64>) {
        let Some(applied) = *self.applied.borrow() else { return };
        let Ok(bounds) = self.parts.log.bounds() else { return };
        let (first, Some(last)) = (bounds.first, bounds.last()) else { return };
        // Entries of a shard are alike enough for an estimate: the share of those after the durable position.
        let needed = last + 1 - durable.map_or(first, |index| (index + 1).clamp(first, last + 1));
        let not_durable = durable.is_none_or(|index| index < applied.0);
        let replay_bytes = (u128::from(self.log_bytes()) * u128::from(needed) / u128::from(last - first + 1)) as u64;
        let pressed = self.pressed.load(Ordering::Relaxed);
        if not_durable && (pressed || replay_bytes > self.parts.options.replay_bytes_max) {
            self.parts.shard.request_flush();
        }
    }
}

/// The last log index to purge, `limit` at most; `None` when there is nothing to purge.
fn purge_target(metrics: &RaftMetrics<ShardRaft>, limit: u64, wants_room: bool) -> Option<u64> {
    let mut upto = limit;
    if !wants_room {
        if let Some(followers) = &metrics.replication {
            for (_, matched) in followers.iter().filter(|(id, _)| **id != metrics.id) {
                upto = upto.min(matched.as_ref()?.index);
            }
        } else if metrics.membership_config.voter_ids().count() > 1 {
            upto = upto.checked_sub(FOLLOWER_TAIL)?;
        }
    }
    let purged = metrics.purged.map(|id| id.index);
    purged.is_none_or(|purged| purged < upto).then_some(upto)
}
