//! What clients and nodes ask the catalog to change: collections, aliases, node registration.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use vicinal_common::collection::CollectionSchema;
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::ids::{CollectionId, MapVersion, NodeId, ShardId};
use vicinal_common::limits::GROUPS_PER_NODE_MAX;
use vicinal_common::payload_index::PayloadIndex;
use vicinal_common::ring::TokenTable;
use vicinal_common::tuning::GraphPlacement;

use super::catalog::Catalog;
use super::change::CollectionChange;
use super::clusters::ClusteringWish;
use super::command::{AliasChange, CreateCommand, MetaCommand, MetaReply};
use super::state::{CollectionState, MetaState, Registration, Routing, Shard, StrictMode};
use crate::placement::{Load, load, place, voters_wanted};

/// Longest wait for the replicas of a deleted collection to be dropped. The collection is gone for clients at once; the
/// wait is for the room it takes.
const DROP_WAIT: Duration = Duration::from_secs(5);

/// A collection to create.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateCollection {
    /// Its name.
    pub name: String,
    /// What its shards are created from.
    pub schema: CollectionSchema,
    /// How points are spread over the shards.
    pub routing: Routing,
    /// Number of shards, at least 1; always 1 where points are not spread.
    pub shard_number: u32,
    /// Replicas per shard, at least 1; of no account where there is one on each node.
    pub replication_factor: u32,
    /// Replicas a write waits for, at least 1.
    pub write_consistency_factor: u32,
    /// The client's create body after validation, echoed when the collection is described.
    pub config_json: String,
    /// What requests may not do.
    pub strict: StrictMode,
    /// Where open graphs are.
    pub graphs: GraphPlacement,
}

impl Catalog {
    /// Creates a collection on nodes that `is_connected` and returns once it is served: one that was lost for good holds
    /// the fewest replicas and would be chosen first. `Conflict` when the name is taken, `BadInput` when there are
    /// too few nodes, `Timeout` when it is not served at the deadline (it will be, if its nodes come back).
    pub async fn create_collection(
        &self,
        create: CreateCollection,
        is_connected: impl Fn(NodeId) -> bool + Clone + Send + 'static,
        deadline: Instant,
    ) -> Result<()> {
        let id = CollectionId(self.inner.rng.uuid());
        let shard_ids_max = u64::MAX - u64::from(create.shard_number);
        let mut floor = 0;
        loop {
            let state = self.state();
            if state.names.contains_key(&create.name) {
                return Err(Error::Conflict(format!("Collection `{}` already exists!", create.name)));
            }
            let first = state.next_shard.max(floor).min(shard_ids_max);
            let (now_ms, wanted) = (self.inner.clock.unix_millis(), create.clone());
            let is_connected = is_connected.clone();
            // The token table of many shards takes a while to compute.
            let planned = exec::blocking(move || plan(&state, &wanted, is_connected, id, first, now_ms)).await;
            let command = planned??;
            match self.propose(MetaCommand::CreateCollection(Box::new(command)), deadline).await? {
                MetaReply::Done => break,
                MetaReply::Refused(error) => return Err(error),
                // Another collection was created in between; the deadline of `propose` bounds this loop.
                MetaReply::ShardIdsTaken { next_shard } => floor = next_shard,
            }
        }
        let name = &create.name;
        let served = self.wait_for(deadline, |state| match state.collections.get(&id).map(|found| found.state) {
            Some(CollectionState::Active) => Some(Ok(())),
            Some(CollectionState::Creating) => None,
            Some(CollectionState::Deleting) | None => {
                Some(Err(Error::NotFound(format!("Collection `{name}` was deleted while it was being created"))))
            }
        });
        served.await.unwrap_or_else(|| {
            Err(Error::Timeout(format!("Collection `{name}` is still being created; its nodes did not answer in time")))
        })
    }

    /// Deletes the collection of this name (an alias does not count) with its aliases; `false` when there is none.
    pub async fn delete_collection(&self, name: &str, deadline: Instant) -> Result<bool> {
        let Some(id) = self.state().names.get(name).copied() else { return Ok(false) };
        let now_ms = self.inner.clock.unix_millis();
        self.change(MetaCommand::BeginDelete { collection: id, now_ms }, deadline).await?;
        let dropped = deadline.min(Instant::now() + DROP_WAIT);
        // Not an error when it takes longer: a node that is away drops its replicas when it comes back.
        let _ = self.wait_for(dropped, |state| (!state.collections.contains_key(&id)).then_some(())).await;
        Ok(true)
    }

    /// Wants an index of a field of the collection. `BadInput` when it has too many.
    pub async fn create_index(
        &self,
        collection: CollectionId,
        field: String,
        index: PayloadIndex,
        deadline: Instant,
    ) -> Result<()> {
        self.change(MetaCommand::CreateIndex { collection, field, index }, deadline).await
    }

    /// Wants no index of a field any more; a missing one is fine.
    pub async fn drop_index(&self, collection: CollectionId, field: String, deadline: Instant) -> Result<()> {
        self.change(MetaCommand::DropIndex { collection, field }, deadline).await
    }

    /// Changes a collection: all of `change` or nothing. `BadInput` when its metadata would be too large.
    pub async fn change_collection(
        &self,
        collection: CollectionId,
        change: CollectionChange,
        deadline: Instant,
    ) -> Result<()> {
        self.change(MetaCommand::ChangeCollection { collection, change: Box::new(change) }, deadline).await
    }

    /// Wants a new map. `Conflict` while another change of maps is under way.
    pub async fn train_map(&self, collection: CollectionId, deadline: Instant) -> Result<()> {
        let now_ms = self.inner.clock.unix_millis();
        self.change(MetaCommand::TrainMap { collection, now_ms }, deadline).await
    }

    /// Wants the map that is served with cells moved or split, as this version. `Conflict` while another change of maps is
    /// under way, or when none is served.
    pub async fn balance_map(&self, collection: CollectionId, version: MapVersion, deadline: Instant) -> Result<()> {
        let now_ms = self.inner.clock.unix_millis();
        self.change(MetaCommand::BalanceMap { collection, version, now_ms }, deadline).await
    }

    /// Takes a map back that is not served yet. `Conflict` when it is served.
    pub async fn abort_map(&self, collection: CollectionId, version: MapVersion, deadline: Instant) -> Result<()> {
        let now_ms = self.inner.clock.unix_millis();
        self.change(MetaCommand::AbortMap { collection, version, now_ms }, deadline).await
    }

    /// Wants clusters. `Conflict` while others are being trained.
    pub async fn train_clusters(
        &self,
        collection: CollectionId,
        vector: String,
        count: u32,
        deadline: Instant,
    ) -> Result<()> {
        let wish = ClusteringWish { vector, count, since_ms: self.now_ms() };
        self.change(MetaCommand::TrainClusters { collection, wish }, deadline).await
    }

    /// Wants no clusters any more, neither those that are there nor those that are being trained.
    pub async fn drop_clusters(&self, collection: CollectionId, deadline: Instant) -> Result<()> {
        self.change(MetaCommand::DropClusters { collection }, deadline).await
    }

    /// Changes aliases in order, all of them or none.
    pub async fn update_aliases(&self, changes: Vec<AliasChange>, deadline: Instant) -> Result<()> {
        self.change(MetaCommand::UpdateAliases(changes), deadline).await
    }

    /// Makes a shard node known. Under the name of another node it replaces that one: the caller knows it is gone.
    pub async fn register_node(&self, node: NodeId, registration: Registration, deadline: Instant) -> Result<()> {
        if self.state().nodes.get(&node).is_some_and(|info| info.is_as(&registration) && info.replaced_by.is_none()) {
            return Ok(());
        }
        let now_ms = self.inner.clock.unix_millis();
        self.change(MetaCommand::RegisterNode { node, registration, now_ms }, deadline).await
    }

    /// Waits until `found` says something of the state; `None` at the deadline.
    async fn wait_for<T>(&self, deadline: Instant, found: impl Fn(&MetaState) -> Option<T>) -> Option<T> {
        let mut changed = self.changed();
        loop {
            // Marked as seen before the state is read: a change in between wakes the wait below.
            changed.borrow_and_update();
            if let Some(value) = found(&self.state()) {
                return Some(value);
            }
            match timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }
}

/// Decides placement and token table of a new collection whose shards get the ids from `first` on.
fn plan(
    state: &MetaState,
    create: &CreateCollection,
    is_connected: impl Fn(NodeId) -> bool,
    id: CollectionId,
    first: u64,
    now_ms: u64,
) -> Result<CreateCommand> {
    let mut load = load(state, is_connected);
    let replication = match &create.routing {
        Routing::Hash | Routing::Cluster(_) => create.replication_factor,
        Routing::Replicate => {
            // Nodes without room for one more are left out; what is left gets a replica sooner or later.
            let with_room = |of: &Load| of.replicas < GROUPS_PER_NODE_MAX;
            if load.values().any(with_room) {
                load.retain(|_, of| with_room(of));
            }
            voters_wanted(load.len()).max(1)
        }
    };
    let nodes = place(&load, create.shard_number, replication)?;
    let shard = |(id, replicas)| Shard { id, replicas, learners: Vec::new() };
    let shards: Vec<Shard> = (first..).map(ShardId).zip(nodes).map(shard).collect();
    let ids: Vec<ShardId> = shards.iter().map(|shard| shard.id).collect();
    Ok(CreateCommand {
        id,
        name: create.name.clone(),
        schema: create.schema.clone(),
        shards,
        tokens: TokenTable::propose(&ids)?,
        routing: create.routing.clone(),
        replication_factor: create.replication_factor,
        write_consistency_factor: create.write_consistency_factor,
        config_json: create.config_json.clone(),
        strict: create.strict.clone(),
        graphs: create.graphs.clone(),
        now_ms,
    })
}
