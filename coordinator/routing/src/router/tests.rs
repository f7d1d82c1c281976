//! Routing of trained maps, and the reasons of decisions.

use proptest::prelude::*;
use vicinal_common::distance::Kernel;
use vicinal_common::metric::Metric;
use vicinal_index::Rows;

use super::*;
use crate::map::D1Quantiles;
use crate::place::Placer;
use crate::testing::{METRICS, points};
use crate::theta::ThetaTable;
use crate::train::{TrainOptions, train};

const DIM: usize = 6;

fn trained(metric: Metric, points_of: &[f32], copies: f64) -> Arc<CentroidMap> {
    let options = TrainOptions { copies, ..TrainOptions::new(6, 2) };
    Arc::new(train(Rows { data: points_of, dim: DIM }, metric, options).unwrap())
}

fn calibrated(map: &CentroidMap) -> Arc<CentroidMap> {
    let mut parts = map.clone().into_parts();
    parts.thetas = ThetaTable::new(vec![1, 10, 100], vec![0.9, 0.99], vec![0.5, 0.8, 0.6, 0.9, 0.7, 0.95]).unwrap();
    parts.d1 = D1Quantiles { q50: 1.0, q90: 1.5, q99: 2.0, q999: 2.5 };
    Arc::new(CentroidMap::new(parts).unwrap())
}

fn ask(goal: Goal) -> Ask {
    Ask { k: 10, goal, filter: Filtered::No }
}

#[test]
fn a_stored_point_is_looked_for_where_it_lives_first() {
    for metric in [Metric::Cosine, Metric::Euclid, Metric::Manhattan] {
        let data = points(3_000, DIM, 30, metric, 4);
        let map = trained(metric, &data, 0.2);
        let (placer, router) = (Placer::new(map.clone()), Router::new(map));
        for point in data.chunks_exact(DIM).step_by(17) {
            let places = placer.place(point);
            let decision = router.route(point, ask(Goal::Theta(0.0)));
            assert_eq!((decision.asked, decision.ranked[0].shard), (1, places.home));
            // A point near a border has its copy where the mass is, too.
            let ranked = decision.ranked.iter().position(|shard| Some(shard.shard) == places.copy);
            assert!(ranked.is_none_or(|place| place <= 3), "{metric:?}: {ranked:?}");
        }
    }
}

#[test]
fn the_bound_holds_for_the_points_that_the_radii_know() {
    for metric in METRICS {
        let data = points(3_000, DIM, 30, metric, 4);
        let rows = Rows { data: &data, dim: DIM };
        let map = trained(metric, &data, 0.0);
        let places = Placer::new(map.clone()).place_all(rows);
        let (router, kernel) = (Router::new(map), Kernel::new(metric));
        for query in points(20, DIM, 7, metric, 99).chunks_exact(DIM) {
            let decision = router.route(query, ask(Goal::Shards(1)));
            let mut least = [f32::MAX; 6];
            for (row, places) in places.iter().enumerate() {
                let distance = kernel.distance(query, rows.row(row as u32));
                least[places.home as usize] = least[places.home as usize].min(distance);
            }
            for shard in &decision.ranked {
                let nearest = least[shard.shard as usize];
                assert!(shard.bound <= nearest + 1e-3 * nearest.abs().max(1.0), "{metric:?}");
            }
            // With the k-th distance of nothing found, every other shard is in the second wave.
            assert_eq!(decision.second_wave(f32::MAX).count(), 5);
            assert_eq!(decision.second_wave(f32::MIN).count(), 0);
        }
    }
}

proptest! {
    #[test]
    fn shards_are_asked_by_mass_and_more_for_a_larger_share(
        query in prop::collection::vec(-4.0f32..4.0, DIM),
        theta in 0.0f32..0.999,
        metric in prop::sample::select(METRICS.to_vec()),
    ) {
        let data = points(1_500, DIM, 30, metric, 4);
        let router = Router::new(trained(metric, &data, 0.0));
        let mut query = query;
        metric.prepare(&mut query);
        let ranking = router.rank(&query);
        prop_assert!((ranking.shards.iter().map(|shard| shard.mass).sum::<f32>() - 1.0).abs() < 1e-4);
        prop_assert!(ranking.shards[1..].windows(2).all(|pair| pair[0].mass >= pair[1].mass));
        let mut numbers: Vec<u32> = ranking.shards.iter().map(|shard| shard.shard).collect();
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (0..6).collect::<Vec<u32>>());
        let asked = ranking.asked(theta);
        prop_assert!(asked >= 1 && ranking.shards[..asked].iter().map(|shard| shard.mass).sum::<f32>() >= theta - 1e-5);
        prop_assert!(asked <= ranking.asked((theta + 0.1).min(1.0)));
        prop_assert_eq!(ranking.asked(1.0), 6);
        let all = router.route(&query, ask(Goal::Theta(1.0)));
        prop_assert_eq!((all.asked, &all.ranked), (6, &router.route(&query, ask(Goal::All)).ranked));
        prop_assert_eq!(router.route(&query, ask(Goal::Recall(1.0))).asked, 6);
    }
}

#[test]
fn decisions_say_why() {
    let data = points(1_500, DIM, 30, Metric::Euclid, 4);
    let plain = trained(Metric::Euclid, &data, 0.0);
    let uncalibrated = Router::new(plain.clone());
    assert_eq!(uncalibrated.reason(0.5, 0.5, ask(Goal::Recall(0.9))), Reason::All { why: AllBecause::NotCalibrated });
    let router = Router::new(calibrated(&plain));
    let reason = |goal, d1, k, filter| router.reason(d1, 0.5, Ask { k, goal, filter });
    let all = |why| Reason::All { why };
    let recall = Goal::Recall(0.9);
    let matching = |points| Filtered::Matching { points, of: 1_000 };

    assert_eq!(reason(recall, 1.0, 10, Filtered::No), Reason::Mass { theta: 0.6 });
    assert_eq!(reason(Goal::Recall(1.0), 1.0, 10, Filtered::No), all(AllBecause::Wanted));
    assert_eq!(reason(Goal::Recall(0.999), 1.0, 10, Filtered::No), all(AllBecause::HighRecall));
    assert_eq!(reason(Goal::Shards(3), 9.0, 10, Filtered::Unknown), Reason::Shards { count: 3 });
    assert_eq!(reason(Goal::Shards(9), 1.0, 10, Filtered::No), all(AllBecause::Wanted));

    let far = Reason::Widened { why: Widening::FarQuery, theta: 0.9 };
    assert_eq!(reason(recall, 2.1, 10, Filtered::No), far);
    assert_eq!(reason(recall, 9.0, 10, Filtered::No), all(AllBecause::FarQuery));

    // A fifth matches: reckoned as 4 * 2 * 5 = 40 neighbours.
    let Reason::Widened { why: Widening::Filter, theta } = reason(recall, 1.0, 2, matching(200)) else {
        panic!("a filter widens")
    };
    assert!(theta > 0.6 && theta < 0.7, "{theta}");
    assert_eq!(reason(recall, 1.0, 10, matching(1_000)), Reason::Mass { theta: 0.6 });
    let widened = Reason::Widened { why: Widening::Filter, theta: widened(0.7) };
    assert_eq!(reason(recall, 1.0, 10, matching(200)), widened);
    assert_eq!(reason(recall, 1.0, 10, matching(50)), all(AllBecause::Filter));
    assert_eq!(reason(recall, 1.0, 10, matching(0)), all(AllBecause::Filter));
    assert_eq!(reason(recall, 1.0, 10, Filtered::Unknown), all(AllBecause::Filter));

    assert!(matches!(reason(recall, 1.0, 200, Filtered::No), Reason::Widened { why: Widening::ManyNeighbours, .. }));
    assert_eq!(reason(recall, 1.0, 1_000, Filtered::No), all(AllBecause::ManyNeighbours));
}
