//! Asks home shards what they have of a page.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::time::{Instant, timeout};
use vicinal_common::api::{PointParts, ReadContext, RetrieveRequest};
use vicinal_common::consistency::Consistency;
use vicinal_common::error::Error;
use vicinal_common::ids::{CollectionId, Epoch, LogIndex, NodeId, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::publish::{AtHome, CopyVersion, has_newer};
use vicinal_common::tuning::Tuning;

use crate::node::ShardNode;

/// Longest time of a question.
const PATIENCE: Duration = Duration::from_secs(5);
/// Home shards that are asked at a time.
const AT_ONCE: usize = 8;

/// A home shard and who answered for it.
struct Answered {
    shard: ShardId,
    node: NodeId,
    home: AtHome,
}

/// What every home shard has of the page, `None` for those that did not answer: as their leaders confirm it with a
/// majority, so that what is not there is gone, and not only unknown yet to a replica that is behind.
pub(super) async fn ask(
    node: &Arc<ShardNode>,
    collection: CollectionId,
    tuning: &Tuning,
    page: &[CopyVersion],
) -> Vec<Option<AtHome>> {
    if page.is_empty() {
        return Vec::new();
    }
    let ids: Arc<Vec<PointId>> = Arc::new(page.iter().map(|(id, _)| *id).collect());
    let questions: Vec<_> = tuning
        .home_shards
        .iter()
        .map(|(shard, nodes)| ask_one(node, collection, tuning.epoch, *shard, nodes, ids.clone()))
        .collect();
    let mut answers: Vec<Option<Answered>> = stream::iter(questions).buffered(AT_ONCE).collect().await;
    add_published(node, page, &mut answers).await;
    answers.into_iter().map(|answer| Some(answer?.home)).collect()
}

/// Asks the nodes of a home shard one after the other, each once, those first that others call the leader.
async fn ask_one(
    node: &Arc<ShardNode>,
    collection: CollectionId,
    epoch: Epoch,
    shard: ShardId,
    nodes: &[NodeId],
    ids: Arc<Vec<PointId>>,
) -> Option<Answered> {
    let mut left: VecDeque<NodeId> = nodes.iter().copied().collect();
    let mut asked = BTreeSet::new();
    let deadline = Instant::now() + PATIENCE;
    while let Some(at) = left.pop_front() {
        if Instant::now() >= deadline {
            return None;
        }
        if !asked.insert(at) {
            continue;
        }
        let Some(api) = node.env.peers.get(at) else { continue };
        let shards = vec![(shard, LogIndex(0))];
        let context = ReadContext { collection, epoch, shards, consistency: Consistency::Linearizable, deadline };
        let request = RetrieveRequest { context, ids: ids.clone(), parts: PointParts::default() };
        let Some(answer) = api.retrieve(request).await.into_iter().find(|answer| answer.shard == shard) else {
            continue;
        };
        match answer.result {
            Ok(points) => {
                let versions: BTreeMap<PointId, LogIndex> =
                    points.into_iter().map(|point| (point.id, point.version)).collect();
                let home = AtHome { applied: answer.applied, published: LogIndex(0), versions };
                return Some(Answered { shard, node: at, home });
            }
            Err(Error::WrongLeader { hint: Some(hint), .. }) => left.push_front(hint),
            Err(error) => tracing::debug!(%shard, node = %at, %error, "a home shard did not answer the sweep"),
        }
    }
    None
}

/// Adds what home shards have published, where that decides anything.
async fn add_published(node: &Arc<ShardNode>, page: &[CopyVersion], answers: &mut [Option<Answered>]) {
    let mut published: BTreeMap<ShardId, LogIndex> = BTreeMap::new();
    let matters = |answer: &&Answered| has_newer(page, &answer.home);
    let nodes: BTreeSet<NodeId> = answers.iter().flatten().filter(matters).map(|answer| answer.node).collect();
    for at in nodes {
        let Some(api) = node.env.peers.get(at) else { continue };
        // Without an answer nothing counts as published, and replaced copies stay until the next pass.
        let Ok(Ok(status)) = timeout(PATIENCE, api.status()).await else { continue };
        let marks = status.replicas.iter().map(|replica| (replica.shard, replica.publish.published));
        // Marks only grow: of two the greater one is the newer.
        for (shard, mark) in marks {
            let known = published.entry(shard).or_default();
            *known = mark.max(*known);
        }
    }
    for answer in answers.iter_mut().flatten() {
        answer.home.published = published.get(&answer.shard).copied().unwrap_or_default();
    }
}
