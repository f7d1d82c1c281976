//! Applies commands to the state: a pure function of both, the same on every coordinator and in every replay.

use std::sync::Arc;

use vicinal_common::error::Error;
use vicinal_common::ids::{CollectionId, Epoch};
use vicinal_common::limits::PAYLOAD_INDEXES_MAX;
use vicinal_common::payload_index::PayloadIndex;
use vicinal_common::tuning::{GraphPlacement, Tuning};

use super::command::{AliasChange, CreateCommand, MetaCommand, MetaReply, MetaRequest};
use super::state::{
    ALIASES_MAX, COLLECTIONS_MAX, Collection, CollectionState, MetaState, Operation, OperationId, OperationKind,
    REPLIES_MAX, Routing, Shard, collection_missing,
};

impl MetaState {
    /// Applies one request. A request that is remembered changes nothing and gets the reply it got before.
    pub fn apply(&mut self, request: &MetaRequest) -> MetaReply {
        if let Some((_, reply)) = self.replies.iter().find(|(known, _)| *known == request.request) {
            return reply.clone();
        }
        let reply = self.apply_command(&request.command);
        if let Some(collection) = request.command.routed() {
            self.tell_clusters(collection);
        }
        if self.replies.len() == REPLIES_MAX {
            self.replies.pop_front();
        }
        self.replies.push_back((request.request, reply.clone()));
        reply
    }

    fn apply_command(&mut self, command: &MetaCommand) -> MetaReply {
        match command {
            MetaCommand::FoundCluster { cluster } => match self.cluster {
                Some(known) if known != *cluster => {
                    refuse(Error::Conflict(format!("this is cluster {known} already, not {cluster}")))
                }
                Some(_) => MetaReply::Done,
                None => {
                    self.cluster = Some(*cluster);
                    MetaReply::Done
                }
            },
            MetaCommand::RegisterNode { node, registration, now_ms } => self.register(*node, registration, *now_ms),
            MetaCommand::CreateCollection(create) => self.create(create),
            MetaCommand::ActivateCollection { collection } => match self.collections.get_mut(collection) {
                Some(found) if found.state == CollectionState::Creating => {
                    Arc::make_mut(found).state = CollectionState::Active;
                    self.end_operations(*collection);
                    MetaReply::Done
                }
                Some(found) if found.state == CollectionState::Active => MetaReply::Done,
                Some(_) | None => refuse(Error::NotFound(format!("Collection {collection} was deleted"))),
            },
            MetaCommand::BeginDelete { collection, now_ms } => self.begin_delete(*collection, *now_ms),
            MetaCommand::FinishDelete { collection } => {
                if self.collections.get(collection).is_some_and(|found| found.state != CollectionState::Deleting) {
                    return refuse(Error::Conflict(format!("Collection {collection} is not being deleted")));
                }
                self.collections.remove(collection);
                self.end_operations(*collection);
                MetaReply::Done
            }
            MetaCommand::UpdateAliases(changes) => self.update_aliases(changes),
            MetaCommand::Progress { operation, steps_done } => {
                if let Some(operation) = self.operations.get_mut(operation) {
                    operation.steps_done = (*steps_done).min(operation.steps_total);
                }
                MetaReply::Done
            }
            MetaCommand::ReplaceReplica { collection, shard, from, to } => {
                self.replace_replica(*collection, *shard, *from, *to)
            }
            MetaCommand::ForgetNode { node } => self.forget_node(*node),
            MetaCommand::CreateIndex { collection, field, index } => self.create_index(*collection, field, index),
            MetaCommand::DropIndex { collection, field } => self.retune(*collection, |tuning| {
                tuning.payload_indexes.remove(field);
                Ok(())
            }),
            MetaCommand::ChangeCollection { collection, change } => self.change_collection(*collection, change),
            MetaCommand::AddLearner { collection, shard, node } => self.add_learner(*collection, *shard, *node),
            MetaCommand::PromoteLearner { collection, shard, node } => self.promote_learner(*collection, *shard, *node),
            MetaCommand::TrainMap { collection, now_ms } => self.train_map(*collection, *now_ms),
            MetaCommand::BeginMap(begin) => self.begin_map(begin),
            MetaCommand::ServeMap { collection, version, floors } => self.serve_map(*collection, *version, floors),
            MetaCommand::EndMap { collection, version } => self.end_map(*collection, *version),
            MetaCommand::AbortMap { collection, version, now_ms } => self.abort_map(*collection, *version, *now_ms),
            MetaCommand::ServeHomes { collection, now_ms } => self.serve_homes(*collection, *now_ms),
            MetaCommand::IndexHomes { collection, now_ms } => self.index_homes(*collection, *now_ms),
            MetaCommand::TrainClusters { collection, wish } => self.train_clusters(*collection, wish),
            MetaCommand::ServeClusters { collection, wish, trained } => self.serve_clusters(*collection, wish, trained),
            MetaCommand::DropClusters { collection } => self.drop_clusters(*collection),
            MetaCommand::BalanceMap { collection, version, now_ms } => self.balance_map(*collection, *version, *now_ms),
            MetaCommand::NoteBalance { collection, measured } => self.note_balance(*collection, *measured),
        }
    }

    fn create(&mut self, create: &CreateCommand) -> MetaReply {
        let name = &create.name;
        if self.names.get(name) == Some(&create.id) {
            return MetaReply::Done;
        }
        if self.names.contains_key(name) {
            return refuse(Error::Conflict(format!("Collection `{name}` already exists!")));
        }
        if self.aliases.contains_key(name) {
            return refuse(Error::BadInput(format!(
                "Can't create collection with name {name}. Alias with the same name already exists"
            )));
        }
        if self.collections.contains_key(&create.id) {
            return refuse(Error::Conflict(format!("collection id {} was used before", create.id)));
        }
        if self.collections.len() >= COLLECTIONS_MAX {
            let text = format!("there are {COLLECTIONS_MAX} collections, which is the most a cluster can have");
            return refuse(Error::BadInput(text));
        }
        let (Some(first), Some(last)) = (create.shards.first(), create.shards.last()) else {
            return refuse(Error::BadInput("a collection needs at least one shard".into()));
        };
        if create.shards.windows(2).any(|pair| pair[0].id >= pair[1].id) {
            return refuse(Error::Internal("shard ids of a new collection must ascend".into()));
        }
        if first.id.0 < self.next_shard {
            return MetaReply::ShardIdsTaken { next_shard: self.next_shard };
        }
        let Some(next_shard) = last.id.0.checked_add(1) else {
            return refuse(Error::Internal("shard ids are used up".into()));
        };
        if create.routing == Routing::Replicate && create.shards.len() > 1 {
            return refuse(Error::BadInput("a collection that is replicated to each node has one shard".into()));
        }
        let mut nodes = create.shards.iter().flat_map(Shard::readers);
        if let Some(unknown) = nodes.find(|node| !self.nodes.contains_key(node)) {
            return refuse(Error::BadInput(format!("node {unknown} is not registered")));
        }
        self.next_shard = next_shard;
        self.names.insert(name.clone(), create.id);
        let replicas = create.shards.iter().map(|shard| shard.replicas.len()).sum::<usize>();
        // One step per replica made, one per group founded, one per leader seen.
        let steps = replicas + 2 * create.shards.len();
        self.begin_operation(OperationKind::CreateCollection, create.id, create.now_ms, steps);
        let collection = Collection {
            id: create.id,
            name: name.clone(),
            schema: create.schema.clone(),
            state: CollectionState::Creating,
            epoch: Epoch(1),
            shards: create.shards.clone(),
            tokens: create.tokens.clone(),
            routing: create.routing.clone(),
            replication_factor: create.replication_factor,
            write_consistency_factor: create.write_consistency_factor,
            config_json: create.config_json.clone(),
            // A new replica follows revision 0, which is the default.
            tuning: Tuning {
                revision: u64::from(create.graphs != GraphPlacement::default()),
                graphs: create.graphs.clone(),
                ..Tuning::default()
            },
            strict: create.strict.clone(),
            clustering: None,
            clustering_wanted: None,
            created_ms: create.now_ms,
        };
        self.collections.insert(create.id, Arc::new(collection));
        MetaReply::Done
    }

    fn begin_delete(&mut self, id: CollectionId, now_ms: u64) -> MetaReply {
        let Some(collection) = self.collections.get_mut(&id) else { return MetaReply::Done };
        if collection.state == CollectionState::Deleting {
            return MetaReply::Done;
        }
        Arc::make_mut(collection).state = CollectionState::Deleting;
        let name = collection.name.clone();
        let replicas = collection.all_shards().map(|shard| shard.readers().count()).sum();
        // The name is free at once: a new collection may take it while the old one's replicas are being dropped.
        self.names.remove(&name);
        self.aliases.retain(|_, target| *target != name);
        self.end_operations(id);
        self.begin_operation(OperationKind::DeleteCollection, id, now_ms, replicas);
        MetaReply::Done
    }

    fn update_aliases(&mut self, changes: &[AliasChange]) -> MetaReply {
        let mut aliases = self.aliases.clone();
        for change in changes {
            match change {
                AliasChange::Create { alias, collection } => {
                    if !self.names.contains_key(collection) {
                        return refuse(collection_missing(collection));
                    }
                    if self.names.contains_key(alias) {
                        return refuse(Error::Conflict(format!("Collection `{alias}` already exists!")));
                    }
                    aliases.insert(alias.clone(), collection.clone());
                }
                AliasChange::Delete { alias } => {
                    aliases.remove(alias);
                }
                AliasChange::Rename { from, to } => {
                    if self.names.contains_key(to) {
                        return refuse(Error::Conflict(format!("Collection `{to}` already exists!")));
                    }
                    let Some(collection) = aliases.remove(from) else {
                        return refuse(Error::NotFound(format!("Alias {from} does not exists!")));
                    };
                    aliases.insert(to.clone(), collection);
                }
            }
        }
        if aliases.len() > ALIASES_MAX {
            let text = format!("there would be more than {ALIASES_MAX} aliases, which is the most a cluster can have");
            return refuse(Error::BadInput(text));
        }
        self.aliases = aliases;
        MetaReply::Done
    }

    fn create_index(&mut self, id: CollectionId, field: &str, index: &PayloadIndex) -> MetaReply {
        let strict = self.collections.get(&id).map(|found| found.strict.clone()).unwrap_or_default();
        self.retune(id, |tuning| {
            let is_new = tuning.payload_indexes.insert(field.to_owned(), index.clone()).is_none();
            let count = tuning.payload_indexes.len();
            if count > PAYLOAD_INDEXES_MAX {
                return Err(Error::BadInput(format!(
                    "the collection has {PAYLOAD_INDEXES_MAX} payload indexes, which is the most it can have"
                )));
            }
            // One that is there may get another type in any case.
            if is_new { strict.check_index_count(count).map_err(Error::BadInput) } else { Ok(()) }
        })
    }

    /// Changes what replicas shall have; a new revision only when that makes a difference.
    pub(super) fn retune(
        &mut self,
        id: CollectionId,
        change: impl FnOnce(&mut Tuning) -> Result<(), Error>,
    ) -> MetaReply {
        let Some(collection) = self.collections.get_mut(&id).filter(|found| found.state != CollectionState::Deleting)
        else {
            return refuse(Error::NotFound(format!("Collection {id} was deleted")));
        };
        let mut tuning = collection.tuning.clone();
        if let Err(error) = change(&mut tuning) {
            return refuse(error);
        }
        if tuning != collection.tuning {
            tuning.revision += 1;
            Arc::make_mut(collection).tuning = tuning;
        }
        MetaReply::Done
    }

    pub(super) fn begin_operation(
        &mut self,
        kind: OperationKind,
        collection: CollectionId,
        started_ms: u64,
        steps: usize,
    ) {
        let steps_total = u32::try_from(steps).unwrap_or(u32::MAX);
        let operation = Operation { kind, collection, started_ms, steps_done: 0, steps_total };
        self.operations.insert(OperationId(self.next_operation), operation);
        self.next_operation += 1;
    }

    pub(super) fn end_operations(&mut self, collection: CollectionId) {
        self.operations.retain(|_, operation| operation.collection != collection);
    }
}

pub(super) fn refuse(error: Error) -> MetaReply {
    MetaReply::Refused(error)
}

#[cfg(test)]
mod tests;
