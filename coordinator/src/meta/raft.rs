//! openraft's types for the metadata group, and its state machine: [`MetaState`] in memory, rebuilt from the newest
//! snapshot and the log when a coordinator starts.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::watch;
use vicinal_common::raft::RaftNode;

use super::command::{MetaReply, MetaRequest};
use super::state::MetaState;
use super::store::{Change, Record, Stored, decode, encode};
use super::writer::Writer;

openraft::declare_raft_types!(
    /// Types of the metadata group.
    pub(super) MetaTypes:
        D = MetaRequest,
        R = MetaReply,
        Node = RaftNode,
);

pub(super) type MetaRaft = openraft::Raft<MetaTypes, StateMachine>;
pub(super) type LogId = LogIdOf<MetaTypes>;
type Membership = StoredMembershipOf<MetaTypes>;
pub(super) type SnapshotMeta = SnapshotMetaOf<MetaTypes>;
pub(super) type Snapshot = SnapshotOf<MetaTypes, Bytes>;

/// The latest applied state, for readers.
pub(super) struct Published {
    state: ArcSwap<MetaState>,
    /// One more than the log index of the last applied entry; 0 before the first.
    applied: watch::Sender<u64>,
}

impl Published {
    pub(super) fn state(&self) -> Arc<MetaState> {
        self.state.load_full()
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn publish(&self, state: Arc<MetaState>, last: Option<LogId>) {
        self.state.store(state);
        self.applied.send_replace(last.map_or(0, |id| id.index + 1));
    }
}

/// The state machine.
pub(super) struct StateMachine {
    state: Arc<MetaState>,
    last_applied: Option<LogId>,
    membership: Membership,
    published: Arc<Published>,
    snapshots: Arc<Snapshots>,
}

/// The newest snapshot: in memory for followers, on the disk for the next start.
struct Snapshots {
    newest: Mutex<Option<Snapshot>>,
    writer: Arc<Writer>,
}

impl Snapshots {
    async fn keep(&self, snapshot: Snapshot) -> io::Result<()> {
        // One that was built slowly must not replace a newer one that was received meanwhile.
        if self.newest.lock().as_ref().is_some_and(|newest| newest.meta.last_log_id > snapshot.meta.last_log_id) {
            return Ok(());
        }
        let stored = encode(&(&snapshot.meta, &snapshot.snapshot))?;
        self.writer.write(vec![Change::Set(Record::Snapshot, stored)]).await?;
        *self.newest.lock() = Some(snapshot);
        Ok(())
    }
}

impl StateMachine {
    /// The state of the stored snapshot, or the empty one; openraft applies the log after it.
    pub(super) fn open(stored: &Stored, writer: Arc<Writer>) -> io::Result<(StateMachine, Arc<Published>)> {
        let newest: Option<(SnapshotMeta, Bytes)> = match stored.records.get(&Record::Snapshot) {
            Some(bytes) => Some(decode("the snapshot of the metadata", bytes)?),
            None => None,
        };
        let newest = newest.map(|(meta, snapshot)| Snapshot { meta, snapshot });
        let (state, last_applied, membership) = match &newest {
            Some(snapshot) => {
                let state = decode("the state in the snapshot of the metadata", &snapshot.snapshot)?;
                (state, snapshot.meta.last_log_id, snapshot.meta.last_membership.clone())
            }
            None => (MetaState::default(), None, Membership::default()),
        };
        let state = Arc::new(state);
        let published =
            Arc::new(Published { state: ArcSwap::from_pointee(MetaState::default()), applied: watch::Sender::new(0) });
        published.publish(state.clone(), last_applied);
        let snapshots = Arc::new(Snapshots { newest: Mutex::new(newest), writer });
        Ok((StateMachine { state, last_applied, membership, published: published.clone(), snapshots }, published))
    }
}

impl RaftStateMachine<MetaTypes> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<MetaTypes>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let reply = match entry.payload {
                EntryPayload::Blank => MetaReply::Done,
                EntryPayload::Normal(request) => Arc::make_mut(&mut self.state).apply(&request),
                EntryPayload::Membership(membership) => {
                    self.membership = Membership::new(Some(entry.log_id), membership);
                    MetaReply::Done
                }
            };
            self.last_applied = Some(entry.log_id);
            // Published before the reply, so that whoever gets the reply finds what it says.
            self.published.publish(self.state.clone(), self.last_applied);
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let meta = SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() };
        SnapshotBuilder { state: self.state.clone(), meta, snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        let state: MetaState = decode("a snapshot of the metadata", &snapshot)?;
        self.snapshots.keep(Snapshot { meta: meta.clone(), snapshot }).await?;
        self.state = Arc::new(state);
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.published.publish(self.state.clone(), self.last_applied);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.snapshots.newest.lock().clone())
    }
}

/// A view of the state at one moment.
pub(super) struct SnapshotBuilder {
    state: Arc<MetaState>,
    meta: SnapshotMeta,
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<MetaTypes> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let snapshot = Snapshot { meta: self.meta.clone(), snapshot: Bytes::from(encode(&*self.state)?) };
        self.snapshots.keep(snapshot.clone()).await?;
        Ok(snapshot)
    }
}
