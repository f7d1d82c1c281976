//! Groups with members that do not vote: they come, lag, are away, get a vote, go.

use vicinal_common::api::{FoundGroup, ShardApi};
use vicinal_common::ids::ShardId;

use super::*;
use crate::node::fixture::*;

const S: ShardId = ShardId(1);

/// Four nodes, whose identities and addresses are known also while they are down.
struct Scene {
    cluster: Cluster,
    members: Vec<(NodeId, Address)>,
}

impl Scene {
    /// A shard with a replica on each node; the group is founded by some.
    async fn start(voters: &[usize]) -> Scene {
        let cluster = Cluster::start(4).await;
        let members = cluster.nodes.iter().flatten().map(|node| (node.id(), node.address().clone())).collect();
        let scene = Scene { cluster, members };
        for node in scene.cluster.nodes.iter().flatten() {
            node.create_replica(spec(S.0)).await.unwrap();
        }
        let founder = scene.cluster.node(voters[0]);
        founder.found_group(FoundGroup { shard: S, voters: scene.of(voters) }).await.unwrap();
        until("a first leader", async || scene.cluster.leader(S.0).await.is_some()).await;
        scene
    }

    fn of(&self, nodes: &[usize]) -> BTreeMap<NodeId, Address> {
        nodes.iter().map(|node| self.members[*node].clone()).collect()
    }

    /// One step towards members, at whoever leads.
    async fn step(&self, voters: &[usize], learners: &[usize], filled: &[usize]) -> Result<MembersChange> {
        let filled = filled.iter().map(|node| self.members[*node].0).collect();
        let wanted = Wanted { shard: S, voters: self.of(voters), learners: self.of(learners), filled };
        let leader = self.cluster.leader(S.0).await.unwrap();
        self.cluster.node(leader).change_members(wanted).await
    }

    async fn change(&self, voters: &[usize], learners: &[usize], filled: &[usize]) {
        until("the change", async || self.step(voters, learners, filled).await == Ok(MembersChange::Done)).await;
        // The leader's own view of it follows at once.
        let names = |nodes: &BTreeMap<NodeId, Address>| nodes.keys().copied().collect::<BTreeSet<_>>();
        let is_so = async || {
            let status = self.status(self.cluster.leader(S.0).await.unwrap());
            (names(&status.voters), names(&status.learners)) == (names(&self.of(voters)), names(&self.of(learners)))
        };
        until("the members", is_so).await;
    }

    fn status(&self, node: usize) -> ReplicaStatus {
        self.cluster.node(node).group(S).unwrap().status()
    }

    async fn write(&self, ids: std::ops::Range<u64>) -> LogIndex {
        let mut last = LogIndex(0);
        for id in ids {
            last = self.cluster.write(upsert(S.0, id..id + 1)).await.unwrap().index;
        }
        last
    }

    async fn holds(&self, node: usize, floor: LogIndex, points: u64) {
        assert_eq!(count(self.cluster.node(node), S.0, floor).await, Ok(points), "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn learners_are_filled_read_promoted_and_removed() {
    let scene = Scene::start(&[0, 1]).await;
    let ack = scene.write(0..200).await;
    scene.change(&[0, 1], &[2, 3], &[2, 3]).await;
    for learner in [2, 3] {
        scene.holds(learner, ack, 200).await;
        until("the role", async || scene.status(learner).role == ReplicaRole::Learner).await;
    }
    let ack = scene.write(200..210).await;
    scene.holds(3, ack, 210).await;

    scene.change(&[0, 1, 2], &[3], &[]).await;
    until("the vote", async || scene.status(2).role != ReplicaRole::Learner).await;
    assert_eq!(scene.status(3).role, ReplicaRole::Learner, "it stays one");
    let taken = scene.step(&[0, 1], &[2, 3], &[]).await;
    assert!(matches!(&taken, Err(Error::Conflict(words)) if words.contains("votes")), "{taken:?}");
    let both = scene.step(&[0, 1, 2], &[2], &[]).await;
    assert!(matches!(&both, Err(Error::BadInput(words)) if words.contains("voter and learner")), "{both:?}");
    let none = scene.step(&[], &[2], &[]).await;
    assert!(matches!(&none, Err(Error::BadInput(words)) if words.contains("at least one")), "{none:?}");

    scene.change(&[0, 1, 2], &[], &[]).await;
    let ack = scene.write(210..220).await;
    for voter in 0..3 {
        scene.holds(voter, ack, 220).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_is_away_holds_up_neither_writes_nor_votes() {
    let mut scene = Scene::start(&[0]).await;
    scene.change(&[0], &[1], &[1]).await;
    scene.cluster.crash(1).await;
    scene.write(0..100).await;
    scene.change(&[0, 2], &[1], &[]).await;
    let behind = scene.step(&[0, 2], &[1], &[1]).await;
    assert!(matches!(behind, Ok(MembersChange::CatchingUp { entries }) if entries > CAUGHT_UP_ENTRIES), "{behind:?}");
    let ack = scene.write(100..110).await;
    scene.holds(2, ack, 110).await;

    scene.cluster.restart(1).await;
    scene.change(&[0, 2], &[1], &[1]).await;
    scene.holds(1, ack, 110).await;

    // Its data is gone, and another node takes its place.
    scene.cluster.crash(1).await;
    scene.change(&[0, 2], &[3], &[3]).await;
    let ack = scene.write(110..120).await;
    scene.holds(3, ack, 120).await;
    assert!(!scene.status(scene.cluster.leader(S.0).await.unwrap()).learners.contains_key(&scene.members[1].0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_was_never_reached_is_not_filled_by_a_short_log() {
    let mut scene = Scene::start(&[0]).await;
    scene.cluster.crash(1).await;
    for _ in 0..3 {
        let step = scene.step(&[0], &[1], &[1]).await;
        assert!(matches!(step, Ok(MembersChange::CatchingUp { .. })), "{step:?}");
    }
    scene.cluster.restart(1).await;
    scene.change(&[0], &[1], &[1]).await;
}
