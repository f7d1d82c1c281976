//! What a node of the model does when it is asked, and when it is slow, paused, behind or dead.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep};
use vicinal_common::api::*;
use vicinal_common::consistency::Consistency;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{Epoch, LogIndex, MapDigest, MapVersion, ShardId};
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, Vectors};
use vicinal_common::publish::{PublishStatus, ShardRole};
use vicinal_common::vector::Vector;

use super::clusters::{self, Assigning};
use super::search::best;
use super::{Model, ModelNode, ModelShard};

/// How often a paused node or a replica that lags looks whether it may go on.
const PACE: Duration = Duration::from_millis(5);

impl ModelNode {
    /// Waits or fails as the model's faults say, then runs `f` on each shard asked.
    async fn read<T>(&self, context: &ReadContext, mut f: impl FnMut(&ModelShard) -> T) -> Vec<ShardAnswer<T>> {
        self.model.lock().calls += 1;
        self.hang().await;
        let patience = Instant::now() + context.deadline.saturating_duration_since(Instant::now()) / 2;
        let mut answers = Vec::new();
        for (shard, floor) in &context.shards {
            let (applied, result) = loop {
                let seen = self.see(context, *shard);
                match seen {
                    Ok(found) if found.log < floor.0 && Instant::now() < patience => sleep(PACE).await,
                    Ok(found) if found.log < floor.0 => {
                        break (LogIndex(0), Err(Error::Timeout(format!("applied {}, asked for {floor}", found.log))));
                    }
                    Ok(found) => break (LogIndex(found.log), Ok(f(&found))),
                    Err(error) => break (LogIndex(0), Err(error)),
                }
            };
            answers.push(ShardAnswer { shard: *shard, applied, result });
        }
        *self.model.lock().reads.entry(self.id).or_default() += 1;
        answers
    }

    /// The shard as this node has it.
    fn see(&self, context: &ReadContext, shard: ShardId) -> Result<ModelShard> {
        let model = self.model.lock();
        if model.dead.contains(&self.id) {
            return Err(Error::Unavailable("the node is down".into()));
        }
        if model.overloaded.contains(&self.id) {
            return Err(Error::Overloaded("the node has too much to do".into()));
        }
        let found = model.shards.get(&shard).ok_or(Error::NoSuchShard(shard))?;
        let asked = context.epoch;
        let current = match found.role {
            ShardRole::Home => found.epoch,
            ShardRole::Search if found.maps.contains(MapVersion(asked.0)) => asked,
            ShardRole::Search => Epoch(asked.0.clamp(found.maps.oldest.0, found.maps.newest.0)),
        };
        if current != asked {
            return Err(Error::WrongEpoch { shard, asked, current });
        }
        let leads = found.leader == Some(self.id);
        if context.consistency == Consistency::Linearizable && !leads {
            return Err(Error::WrongLeader { shard, hint: found.leader, term: found.term });
        }
        let mut seen = found.clone();
        if let Some(behind) = model.behind.get(&self.id).filter(|_| !leads) {
            seen.log = seen.log.saturating_sub(*behind);
            let (log, arrived, role) = (seen.log, std::mem::take(&mut seen.arrived), seen.role);
            seen.points.retain(|id, (version, _)| match role {
                ShardRole::Home => version.0 <= log,
                ShardRole::Search => arrived.get(id).is_some_and(|at| *at <= log),
            });
        }
        Ok(seen)
    }

    async fn hang(&self) {
        let pause = self.model.lock().slow.get(&self.id).copied();
        if let Some(pause) = pause {
            sleep(pause).await;
        }
        while self.model.lock().hanging.contains(&self.id) {
            sleep(PACE).await;
        }
    }
}

#[async_trait]
impl ShardApi for ModelNode {
    async fn create_replica(&self, spec: ReplicaSpec) -> Result<()> {
        let mut model = self.model.lock();
        let shard = model.shards.entry(spec.shard).or_default();
        shard.collection = Some(spec.collection);
        shard.epoch = spec.epoch;
        shard.role = spec.role;
        shard.metrics = spec.schema.vectors.iter().map(|(name, vector)| (name.clone(), vector.metric)).collect();
        Ok(())
    }

    async fn found_group(&self, request: FoundGroup) -> Result<()> {
        self.model.lock().shards.entry(request.shard).or_default().leader = Some(self.id);
        Ok(())
    }

    async fn change_members(&self, request: ChangeMembers) -> Result<MembersChange> {
        match self.model.lock().shards.get(&request.shard) {
            Some(shard) if shard.leader == Some(self.id) => Ok(MembersChange::Done),
            Some(shard) => Err(Error::WrongLeader { shard: request.shard, hint: shard.leader, term: shard.term }),
            None => Err(Error::NoSuchShard(request.shard)),
        }
    }

    async fn drop_replica(&self, shard: ShardId) -> Result<()> {
        self.model.lock().shards.remove(&shard);
        Ok(())
    }

    async fn tune(&self, request: Tune) -> Result<()> {
        self.hang().await;
        let mut model = self.model.lock();
        if model.dead.contains(&self.id) {
            return Err(Error::Unavailable("the node is down".into()));
        }
        let Model { shards, maps, .. } = &mut *model;
        let shard = shards.get_mut(&request.shard).ok_or(Error::NoSuchShard(request.shard))?;
        if request.tuning.revision > shard.tuning.revision {
            shard.tuning = request.tuning;
            let clustering = shard.tuning.clustering.clone();
            let assigning = clustering.and_then(|of| Some((maps.get(&self.id)?.get(&of.digest)?, of)));
            shard.assigning = assigning.map(|(bytes, of)| Assigning::by(of.digest, of.vector, bytes));
        }
        Ok(())
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteAck> {
        self.hang().await;
        let mut model = self.model.lock();
        model.calls += 1;
        *model.writes.entry(self.id).or_default() += 1;
        if model.overloaded.contains(&self.id) {
            return Err(Error::Overloaded("the node has too much to do".into()));
        }
        if model.dead.contains(&self.id) {
            return Err(Error::Unavailable("the node is down".into()));
        }
        if model.damaged.contains(&self.id) {
            return Err(Error::Corrupt("the replica is damaged".into()));
        }
        if let Some(error) = model.refuse_writes.get(&request.shard) {
            return Err(error.clone());
        }
        let shard = model.shards.get_mut(&request.shard).ok_or(Error::NoSuchShard(request.shard))?;
        if shard.role == ShardRole::Home && shard.epoch != request.epoch {
            return Err(Error::WrongEpoch { shard: request.shard, asked: request.epoch, current: shard.epoch });
        }
        if shard.leader != Some(self.id) {
            return Err(Error::WrongLeader { shard: request.shard, hint: shard.leader, term: shard.term });
        }
        let key = (request.request, request.part);
        if let Some(ack) = shard.seen.get(&key).filter(|_| !request.op.is_repeatable()) {
            return Ok(ack.clone());
        }
        shard.log += 1;
        let index = LogIndex(shard.log);
        let effect = shard.change(index, request.op)?;
        let (term, role) = (shard.term, shard.role);
        let mut ack = WriteAck { index, term, effect, copies: Vec::new(), map: MapVersion(0) };
        if let Some(publish) = model.publish.clone().filter(|_| role == ShardRole::Home) {
            ack.copies = publish.send(&mut model.shards, request.shard, index);
            ack.map = publish.map();
        }
        if let Some(shard) = model.shards.get_mut(&request.shard) {
            shard.seen.insert(key, ack.clone());
        }
        if let Some(lose) = model.lose_answers.get_mut(&request.shard).filter(|lose| **lose > 0) {
            *lose -= 1;
            return Err(Error::Unavailable("the answer was lost".into()));
        }
        Ok(ack)
    }

    async fn search(&self, request: SearchRequest) -> Vec<ShardAnswer<Vec<Vec<ShardHit>>>> {
        {
            let mut model = self.model.lock();
            if let Some(mut hook) = model.before_search.take() {
                hook(&mut model.shards);
                model.before_search = Some(hook);
            }
            let searched = request.context.shards.iter().map(|(shard, _)| (*shard, request.queries.len()));
            model.searches.extend(searched);
        }
        self.read(&request.context, |shard| request.queries.iter().map(|query| best(shard, query)).collect()).await
    }

    async fn retrieve(&self, request: RetrieveRequest) -> Vec<ShardAnswer<Vec<StoredPoint>>> {
        {
            let mut model = self.model.lock();
            if let Some(mut hook) = model.before_retrieve.take() {
                hook(&mut model.shards);
                model.before_retrieve = Some(hook);
            }
        }
        let find = |shard: &ModelShard| {
            let found = request.ids.iter().filter_map(|id| shard.points.get(id));
            found.map(|(version, point)| stored(*version, point, &request.parts)).collect()
        };
        self.read(&request.context, find).await
    }

    async fn scroll(&self, request: ScrollRequest) -> Vec<ShardAnswer<Vec<StoredPoint>>> {
        let page = |shard: &ModelShard| {
            let matching = |(_, point): &&(LogIndex, Point)| shard.matches(request.filter.as_deref(), point);
            let points = shard.points.values().filter(matching);
            let shown = |(version, point): &(LogIndex, Point)| stored(*version, point, &request.parts);
            let mut page: Vec<StoredPoint> = match &request.order {
                ScrollOrder::Id { from } => {
                    points.filter(|(_, point)| from.is_none_or(|from| point.id >= from)).map(shown).collect()
                }
                ScrollOrder::Clusters(sample) => shard.in_clusters(*sample, points.map(shown).collect()),
                ScrollOrder::Random { seed } => {
                    let mut all: Vec<StoredPoint> = points.map(shown).collect();
                    all.sort_by_key(|point| random_key(*seed, point.id));
                    all
                }
                ScrollOrder::Key(OrderBy { key, descending, from }) => {
                    let keyed = |entry: &(LogIndex, Point)| {
                        let value = OrderValue::of(entry.1.payload.fields().unwrap().get(key)?)?;
                        Some(StoredPoint { order: Some(value), ..shown(entry) })
                    };
                    let mut all: Vec<StoredPoint> = points.filter_map(keyed).collect();
                    all.sort_by_key(|point| (point.order, point.id));
                    if *descending {
                        all.reverse();
                    }
                    let is_behind = |value: Option<OrderValue>| match from {
                        None => true,
                        Some(from) if *descending => value <= Some(*from),
                        Some(from) => value >= Some(*from),
                    };
                    all.into_iter().filter(|point| is_behind(point.order)).collect()
                }
            };
            page.truncate(request.limit);
            page
        };
        self.read(&request.context, page).await
    }

    async fn facet(&self, request: FacetRequest) -> Vec<ShardAnswer<Vec<FacetCount>>> {
        let count = |shard: &ModelShard| {
            let mut counts: BTreeMap<FacetValue, u64> = BTreeMap::new();
            for (_, point) in shard.points.values() {
                let value = point.payload.fields().unwrap().get(&request.key).and_then(serde_json::Value::as_i64);
                if let Some(value) = value.filter(|_| shard.matches(request.filter.as_deref(), point)) {
                    *counts.entry(FacetValue::Integer(value)).or_default() += 1;
                }
            }
            counts.into_iter().map(|(value, count)| FacetCount { value, count }).collect()
        };
        self.read(&request.context, count).await
    }

    async fn frequencies(&self, request: FrequencyRequest) -> Vec<ShardAnswer<Frequencies>> {
        if self.model.lock().no_frequencies.contains(&self.id) {
            let refuse = || Err(Error::Unavailable("frequencies are not known".into()));
            let shards = request.context.shards.iter();
            return shards
                .map(|(shard, _)| ShardAnswer { shard: *shard, applied: LogIndex(0), result: refuse() })
                .collect();
        }
        let count = |shard: &ModelShard| {
            let mut found = Frequencies { points: 0, of: vec![0; request.indices.len()] };
            for (_, point) in shard.points.values().filter(|(_, point)| shard.matches(request.filter.as_deref(), point))
            {
                let Some(Vector::Sparse(sparse)) = point.vectors.get(&request.vector_name) else { continue };
                found.points += 1;
                for (count, index) in found.of.iter_mut().zip(request.indices.iter()) {
                    *count += u64::from(sparse.indices.contains(index));
                }
            }
            found
        };
        self.read(&request.context, count).await
    }

    async fn count(&self, request: CountRequest) -> Vec<ShardAnswer<u64>> {
        let count = |shard: &ModelShard| {
            shard.points.values().filter(|(_, point)| shard.matches(request.filter.as_deref(), point)).count() as u64
        };
        self.read(&request.context, count).await
    }

    async fn digest(&self, request: DigestRequest) -> Vec<ShardAnswer<ShardDigest>> {
        let digest = |shard: &ModelShard| ShardDigest { points: shard.points.len() as u64, digest: shard.log };
        self.read(&request.context, digest).await
    }

    async fn cluster_stats(&self, request: ClusterStatsRequest) -> Vec<ShardAnswer<ClusterStats>> {
        self.read(&request.context, |shard| shard.cluster_stats(request.map)).await
    }

    async fn put_map(&self, request: PutMap) -> Result<()> {
        self.model.lock().maps.entry(self.id).or_default().insert(request.digest, request.bytes);
        Ok(())
    }

    async fn get_map(&self, digest: MapDigest) -> Result<Bytes> {
        let model = self.model.lock();
        let found = model.maps.get(&self.id).and_then(|maps| maps.get(&digest));
        found.cloned().ok_or_else(|| Error::NotFound(format!("map {digest}")))
    }

    async fn keep_maps(&self, request: KeepMaps) -> Result<()> {
        let is_newer = |bytes: &Bytes| clusters::version(bytes) > request.as_of;
        let mut model = self.model.lock();
        let maps = model.maps.entry(self.id).or_default();
        maps.retain(|digest, bytes| request.digests.contains(digest) || is_newer(bytes));
        Ok(())
    }

    async fn status(&self) -> Result<NodeStatus> {
        self.hang().await;
        let model = self.model.lock();
        if model.dead.contains(&self.id) {
            return Err(Error::Unavailable("the node is down".into()));
        }
        let replica = |(id, shard): (&ShardId, &ModelShard)| {
            let points = shard.points.len() as u64;
            Some(ReplicaStatus {
                role: if shard.leader == Some(self.id) { ReplicaRole::Leader } else { ReplicaRole::Follower },
                leader: shard.leader,
                term: shard.term,
                last_log: LogIndex(shard.log),
                applied: LogIndex(shard.log),
                points,
                indexed_vectors: points,
                segments: 1,
                tuning: shard.tuning.revision,
                publish: PublishStatus {
                    published: LogIndex(shard.log.saturating_sub(shard.unpublished)),
                    ..PublishStatus::default()
                },
                payload: PayloadStatus {
                    missing: 0,
                    points: shard.tuning.payload_indexes.keys().map(|field| (field.clone(), points)).collect(),
                },
                ..ReplicaStatus::unknown(*id, shard.collection?)
            })
        };
        let replicas = model.shards.iter().filter_map(replica).collect();
        let maps = model.maps.get(&self.id).into_iter().flat_map(HashMap::keys).copied().collect();
        Ok(NodeStatus { node: self.id, replicas, read_only: None, maps })
    }
}

fn stored(version: LogIndex, point: &Point, parts: &PointParts) -> StoredPoint {
    let vectors = match &parts.vectors {
        VectorSelector::None => Vectors::new(),
        VectorSelector::All => point.vectors.clone(),
        VectorSelector::Named(names) => {
            point.vectors.iter().filter(|(name, _)| names.contains(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
        }
    };
    let payload = if parts.payload { point.payload.clone() } else { Payload::EMPTY };
    StoredPoint { id: point.id, version, payload, vectors, order: None }
}
