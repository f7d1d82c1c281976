//! What follows from what is found, and that nothing is begun again and again.

use proptest::prelude::*;
use vicinal_common::api::ReplicaStatus;
use vicinal_common::ids::CollectionId;

use super::*;

const EVEN: Found = Found {
    points: 100_000,
    shards: 8,
    imbalance: 1.05,
    load_imbalance: None,
    oversized: 0.02,
    fan_out: 0.4,
    sample_max: 262_144,
};
const TRAINED: Trained = Trained { points: 50_000, recall: 0.95, fan_out: 0.38 };

#[test]
fn each_reason_leads_to_what_helps() {
    let says = |found: Found| verdict(&found, Some(&TRAINED));
    assert_eq!(says(EVEN), Verdict::Even);
    assert_eq!(says(Found { imbalance: 1.21, ..EVEN }), Verdict::Adjust);
    assert_eq!(says(Found { oversized: 0.11, ..EVEN }), Verdict::Adjust);
    assert_eq!(says(Found { fan_out: 0.38 * 1.16, ..EVEN }), Verdict::RetrainForFanOut);
    assert_eq!(says(Found { fan_out: 0.38 * 1.14, ..EVEN }), Verdict::Even);
    assert_eq!(says(Found { points: 200_000, ..EVEN }), Verdict::RetrainForGrowth);
    assert_eq!(says(Found { points: 199_999, ..EVEN }), Verdict::Even);
    // A larger sample would not be drawn: the map would be no better for it.
    assert_eq!(says(Found { points: 900_000, sample_max: 50_000, ..EVEN }), Verdict::Even);
    assert_eq!(says(Found { load_imbalance: Some(1.3), ..EVEN }), Verdict::Replicas);
    assert_eq!(says(Found { load_imbalance: Some(1.3), imbalance: 1.3, ..EVEN }), Verdict::Adjust);
    assert_eq!(says(Found { points: 1_999, imbalance: 3.0, fan_out: 1.0, ..EVEN }), Verdict::TooSmall);
    assert_eq!(verdict(&Found { imbalance: 1.3, fan_out: 1.0, ..EVEN }, None), Verdict::Adjust);
}

fn status(node: u64, counters: &[(u64, u64)]) -> NodeStatus {
    let replica = |(shard, searches): &(u64, u64)| ReplicaStatus {
        searches: *searches,
        ..ReplicaStatus::unknown(ShardId(*shard), CollectionId(uuid::Uuid::nil()))
    };
    let replicas = counters.iter().map(replica).collect();
    NodeStatus { node: NodeId(node), replicas, read_only: None, maps: Vec::new() }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn searches_are_counted_over_restarts_and_silence() {
    let (began, shards) = (Instant::now(), [ShardId(1), ShardId(2)]);
    let mut rates = Rates::default();
    // Shard 1 is searched on two nodes, ten times a second on each; shard 2 thirty times on one. What was counted
    // before is of no time. Node 2 is restarted at 100 seconds, node 1 says nothing for a while.
    for second in (0..400).step_by(2) {
        let of_two = if second < 100 { second } else { second - 100 };
        let mut statuses = vec![status(2, &[(1, 10 * of_two), (9, 1_000 * second)])];
        if !(200..210).contains(&second) {
            statuses.push(status(1, &[(1, 5_000_000 + 10 * second), (2, 30 * second)]));
        }
        rates.count(&statuses, &shards, began + seconds(second));
        assert_eq!(rates.imbalance(began + seconds(second)).is_some(), second >= 60, "{second}");
    }
    let now = began + seconds(400);
    let found = rates.imbalance(now).unwrap();
    assert!((1.1..1.3).contains(&found), "30 to 20: {found}");
    // Next to nobody searches.
    let mut quiet = Rates::default();
    for second in 0..200 {
        quiet.count(&[status(1, &[(1, second), (2, 3 * second)])], &shards, began + seconds(second));
    }
    assert_eq!(quiet.imbalance(began + seconds(200)), None);
}

const UNEVEN: Glimpse = Glimpse { points: 1_000, imbalance: 1.5 };

#[test]
fn looks_wait_for_quiet_and_for_something_new() {
    let (began, mut watch) = (Instant::now(), Watch::default());
    let at = |second: u64| began + seconds(second);
    assert!(!watch.is_due(UNEVEN, at(0)), "one that has just come to lead waits");
    assert!(watch.is_due(UNEVEN, at(10)));
    watch.looked(at(10), at(11), 1_000);
    assert!(!watch.is_due(UNEVEN, at(500)), "nothing is new");
    assert!(watch.is_due(UNEVEN, at(611)));
    let more = Glimpse { points: 1_030, ..UNEVEN };
    assert!(!watch.is_due(more, at(20)), "a look took a second");
    assert!(watch.is_due(more, at(21)));
    let even = Glimpse { imbalance: 1.0, ..more };
    assert!(!watch.is_due(even, at(3_000)) && watch.is_due(even, at(3_611)));
    assert!(
        watch.is_due(Glimpse { points: 1_300, ..even }, at(21))
            && watch.is_due(Glimpse { points: 700, ..even }, at(21))
    );
    // A change of half a minute is followed by five minutes without another.
    watch.is_busy(at(700));
    watch.is_busy(at(715));
    assert!(!watch.is_due(more, at(730)));
    assert!(!watch.is_due(more, at(1_029)) && watch.is_due(more, at(1_030)));
}

proptest! {
    #[test]
    fn changes_are_a_small_part_of_the_time(
        changes in prop::collection::vec((0u64..2_000, 0u64..500), 1..20),
        glimpses in prop::collection::vec(1.0f64..3.0, 50),
    ) {
        let (began, mut watch) = (Instant::now(), Watch::default());
        let (mut now, mut points) = (began, 1_000);
        for (idle, took) in changes {
            watch.is_busy(now);
            let ended = now + seconds(took);
            now = ended;
            for imbalance in &glimpses {
                points += 1 + idle;
                if watch.is_due(Glimpse { points, imbalance: *imbalance }, now) {
                    prop_assert!(now - ended >= pause(seconds(took)));
                    break;
                }
                now += seconds(idle);
            }
        }
    }

    #[test]
    fn no_mean_is_above_its_largest(values in prop::collection::vec(0.0f64..1e9, 0..20)) {
        let found = imbalance(values.iter().copied());
        prop_assert!(found >= 1.0 - 1e-9 && found <= values.len().max(1) as f64 + 1e-9);
    }
}
