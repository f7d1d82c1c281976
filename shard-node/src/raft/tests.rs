//! The raft library's own storage tests on our log and state machine, and what they do not cover.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::Stream;
use openraft::storage::{EntryResponder, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::vote::RaftLeaderId;
use openraft::vote::leader_id_adv::CommittedLeaderId;
use openraft::{OptionalSend, StorageError};
use tokio::sync::{Mutex, watch};
use vicinal_common::disk::FaultyDisk;
use vicinal_common::ids::ShardId;

use super::command::{LogId, ShardRaft, SnapshotMeta, StoredMembership, Vote};
use super::fault::Fault;
use super::log_store::LogStore;
use super::machine::{Machine, Snapshot, SnapshotBuilder};
use super::snapshot::{Incoming, SnapshotData};
use crate::log::{LogOptions, ShardLog};
use crate::node::fixture::spec;
use crate::shard::{Builder, BuilderOptions, Shard, ShardEnv, ShardOptions};

/// Our state machine, flushed before each snapshot: the suite expects a snapshot of all that was applied, while ours
/// is of what is durable.
struct Flushed(Machine);

/// Our builder, but with an empty snapshot of an empty shard. The suite purges logs of which nothing was applied; to us
/// that is damage.
struct FlushedBuilder(SnapshotBuilder, Arc<Shard>);

impl RaftSnapshotBuilder<ShardRaft> for FlushedBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        if self.1.applied().is_some() {
            return self.0.build_snapshot().await;
        }
        let incoming = Arc::new(Mutex::new(Incoming::default())).lock_owned().await;
        let snapshot = SnapshotData::Received { manifest: Bytes::new(), incoming };
        Ok(Snapshot { meta: SnapshotMeta::default(), snapshot })
    }
}

impl RaftStateMachine<ShardRaft> for Flushed {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = FlushedBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.0.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<ShardRaft>>> + Unpin + OptionalSend,
    {
        self.0.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> FlushedBuilder {
        self.0.shard.flush_blocking().unwrap();
        FlushedBuilder(self.0.get_snapshot_builder().await, self.0.shard.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        self.0.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.0.get_current_snapshot().await
    }
}

/// Makes a new log and shard for each test of the suite, all on one disk: snapshots are copied between them.
struct Stores {
    disk: FaultyDisk,
    builder: Arc<Builder>,
    made: AtomicU64,
}

impl Stores {
    fn new() -> Stores {
        let builder = Builder::start(BuilderOptions::default()).unwrap();
        Stores { disk: FaultyDisk::new(1), builder, made: AtomicU64::new(0) }
    }
}

impl StoreBuilder<ShardRaft, LogStore, Flushed> for Stores {
    async fn build(&self) -> Result<((), LogStore, Flushed), StorageError<ShardRaft>> {
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        let disk = Arc::new(self.disk.clone());
        let (maps, options) = (Arc::new(()), ShardOptions::default());
        let env = ShardEnv { disk: disk.clone(), builder: self.builder.clone(), maps, options };
        let (log, _) = ShardLog::open(disk.clone(), Path::new(&format!("/log-{n}")), LogOptions::default()).unwrap();
        let shard = Shard::create(&env, Path::new(&format!("/shard-{n}")), &spec(1)).unwrap();
        let fault = Arc::new(Fault::default());
        let store = LogStore::new(log.group(ShardId(1)), fault.clone());
        let machine = Machine { shard, disk, fault, refuse_gaps: false, applied: watch::Sender::new(None) };
        Ok(((), store, Flushed(machine)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_librarys_storage_suite_passes() {
    Suite::test_all(Stores::new()).await.unwrap();
}

#[tokio::test]
async fn votes_and_committed_positions_survive_a_power_cut() {
    let disk = FaultyDisk::new(3);
    let open = || ShardLog::open(Arc::new(disk.clone()), Path::new("/log"), LogOptions::default()).unwrap().0;
    let store = |log: &ShardLog| LogStore::new(log.group(ShardId(1)), Arc::new(Fault::default()));
    let log = open();
    let mut first = store(&log);
    let vote = Vote::new(7, 42);
    first.save_vote(&vote).await.unwrap();
    drop((first, log));
    disk.reboot();
    let log = open();
    let mut second = store(&log);
    assert_eq!(second.read_vote().await.unwrap(), Some(vote));
    // A committed position beyond the log (its entries were lost before their sync) is cut back to the log.
    let committed = LogId::new(CommittedLeaderId::new(7, 42), 9);
    second.save_committed(Some(committed)).await.unwrap();
    assert_eq!(second.read_committed().await.unwrap(), None);
}
