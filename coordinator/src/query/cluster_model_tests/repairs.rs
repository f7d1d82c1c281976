//! Whatever searches trip over, what goes is gone for good.

use vicinal_common::ids::NodeId;

use super::super::repair::GRACE;
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn repairs_remove_what_is_gone_and_never_what_is_needed(
        steps in proptest::collection::vec(any_step(), 0..120),
        queries in proptest::collection::vec(any_query(), 1..5),
        behind in proptest::collection::vec(0u64..8, 3),
        unpublished in proptest::collection::vec(0u64..4, 3),
        later in proptest::collection::vec(any_step(), 0..10),
    ) {
        blocking(async {
            let cluster = after_on(3, &steps);
            let home_of = |id: PointId| cluster.base.collection.tokens.shard_of(id);
            for (node, behind) in (1..).zip(&behind) {
                cluster.base.model.lock().behind.insert(NodeId(node), *behind);
            }
            for (home, unpublished) in (0..).zip(&unpublished) {
                cluster.base.model.lock().shards.get_mut(&ShardId(home)).unwrap().unpublished = *unpublished;
            }
            for query in &queries {
                // What it answers is checked elsewhere; here replicas that lag may keep it from answering.
                let _ = ask_within(&cluster, std::slice::from_ref(query), Duration::from_millis(60)).await;
            }
            let access = &cluster.base.access;
            let suspects = access.repairs.waiting();
            // Whatever home shards know by now, and search shards get meanwhile.
            let (then, before) = {
                let mut model = cluster.base.model.lock();
                let then: Shards = model.shards.clone();
                for step in later {
                    act(&mut model.shards, &cluster.publish, &|id| home_of(PointId::Num(id)), &step);
                }
                (then, model.shards.clone())
            };
            for _ in 0..3 {
                access.repairs.step(&access.nodes, GRACE + Duration::from_secs(1)).await;
            }
            assert!(access.repairs.waiting().is_empty());
            let after = cluster.base.model.lock().shards.clone();
            let is_needed = |shards: &Shards, id: PointId, version: LogIndex| {
                let home = &shards[&home_of(id)];
                match home.points.get(&id).map(|(current, _)| *current) {
                    Some(current) if current > version => current.0 > home.log - home.unpublished,
                    Some(current) => current == version,
                    None => home.log < version.0,
                }
            };
            for (shard, held) in before.iter().filter(|(shard, _)| shard.0 >= 100) {
                for (id, (version, _)) in &held.points {
                    let is_suspect = suspects.contains(&(*shard, *id, *version));
                    let is_there = after[shard].points.contains_key(id);
                    let is_needed = [&then, &before].map(|shards| is_needed(shards, *id, *version));
                    // The task may have asked home shards before they had heard the rest.
                    let may_go = is_suspect && is_needed != [true, true];
                    assert!(is_there || may_go, "{shard} {id:?} {version:?} is needed");
                    assert!(!is_there || !is_suspect || is_needed[1], "{shard} {id:?} {version:?} is gone");
                }
            }
        });
    }
}
