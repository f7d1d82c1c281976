//! Shards come to be even, little moves, and nothing is done for nothing.

use std::num::NonZeroUsize;

use proptest::prelude::*;
use vicinal_common::metric::Metric;

use super::*;
use crate::learn::{Known, LearnOptions, learn, learn_from};
use crate::testing::{METRICS, points};

const DIM: usize = 6;
const PLACES: usize = 30;

fn options(shards: u32) -> LearnOptions {
    LearnOptions { version: 2, shards, copies: 0.2, seed: 5, threads: NonZeroUsize::new(2).unwrap() }
}

fn of(sample: &[f32]) -> Known<'_> {
    Known { sample, asked: &[] }
}

fn adjusting(map: &CentroidMap) -> AdjustOptions {
    AdjustOptions { copies: 0.2, centroids_max: map.len() * 2, seed: 3 }
}

/// Points of an even collection, and many more of a few of its places.
fn grown(metric: Metric, places: usize, copies: usize) -> (Vec<f32>, Vec<f32>) {
    let before = points(1_800, DIM, PLACES, metric, 11);
    let mut after = before.clone();
    for (row, point) in before.chunks_exact(DIM).enumerate().filter(|(row, _)| row % PLACES < places) {
        for copy in 0..copies {
            let nudged = |(i, x): (usize, &f32)| x + ((row * 7 + copy * 3 + i) % 11) as f32 * 0.05;
            let mut near: Vec<f32> = point.iter().enumerate().map(nudged).collect();
            metric.prepare(&mut near);
            after.extend(near);
        }
    }
    (before, after)
}

#[test]
fn a_grown_part_is_spread_over_all_shards_and_the_rest_stays() {
    for metric in METRICS {
        let (before, after) = grown(metric, 3, 6);
        let map = Arc::new(learn(of(&before), DIM, metric, None, options(4)).unwrap());
        let fresh = Spread::of(&Placer::new(map.clone()), &before);
        assert!(fresh.imbalance() < 1.2 && fresh.oversized_share() < 0.1, "{metric:?}: {}", fresh.imbalance());
        let adjusted = adjust(&map, &after, adjusting(&map)).unwrap().unwrap();
        let Adjusted { map: next, before: was, after: is, .. } = &adjusted;
        assert!(was.imbalance() > 1.3, "{metric:?}: {}", was.imbalance());
        assert!(is.imbalance() <= 1.1, "{metric:?}: {} from {}", is.imbalance(), was.imbalance());
        assert_eq!(
            *is,
            Spread { oversized: is.oversized.clone(), ..Spread::of(&Placer::new(Arc::new(next.clone())), &after) }
        );
        assert_eq!(next.parts().version, map.parts().version + 1);
        assert_eq!(next.len(), map.len() + adjusted.splits.len());
        assert!(!adjusted.moves.is_empty() && !adjusted.splits.is_empty());
        let copied = is.copies as f64 / (after.len() / DIM) as f64;
        assert!((copied - 0.2).abs() < 0.06, "{metric:?}: {copied}");
        // Those that stay need no sending.
        let (old, new) = (Placer::new(map.clone()), Placer::new(Arc::new(next.clone())));
        let stays = |point: &&[f32]| old.place(point).home == new.place(point).home;
        let stay = after.chunks_exact(DIM).filter(stays).count() as f64 / (after.len() / DIM) as f64;
        let excess = (was.imbalance() - 1.0) / 4.0;
        assert!(stay > 1.0 - 2.5 * excess, "{metric:?}: {stay} stay, {excess} was too much");
        // Once is enough.
        assert_eq!(adjust(&Arc::new(next.clone()), &after, adjusting(next)).unwrap(), None, "{metric:?}");
    }
}

#[test]
fn what_is_even_stays_as_it_is() {
    let (before, _) = grown(Metric::Euclid, 1, 1);
    let map = Arc::new(learn(of(&before), DIM, Metric::Euclid, None, options(4)).unwrap());
    // All that training has not held out.
    let trained = &before[before.len() / DIM / 10 * DIM..];
    assert!(Spread::of(&Placer::new(map.clone()), trained).imbalance() < 1.11);
    assert_eq!(adjust(&map, trained, adjusting(&map)).unwrap(), None);
    assert!(adjust(&map, &[], adjusting(&map)).is_err());
    assert!(adjust(&map, &before[1..], adjusting(&map)).is_err());
}

#[test]
fn points_that_are_all_the_same_cannot_be_spread_and_bounds_hold() {
    let (before, _) = grown(Metric::Euclid, 1, 1);
    let map = Arc::new(learn(of(&before), DIM, Metric::Euclid, None, options(4)).unwrap());
    let mut same = before.clone();
    (0..1_800).for_each(|_| same.extend_from_slice(&before[..DIM]));
    // Cut off from others of their cell, and not cut again.
    if let Some(adjusted) = adjust(&map, &same, adjusting(&map)).unwrap() {
        assert!(adjusted.splits.len() < 8 && adjusted.after.imbalance() <= adjusted.before.imbalance() + 0.05);
    }
    let (_, after) = grown(Metric::Euclid, 3, 6);
    let none = AdjustOptions { centroids_max: 0, ..adjusting(&map) };
    if let Some(adjusted) = adjust(&map, &after, none).unwrap() {
        assert_eq!(adjusted.map.len(), map.len());
    }
}

#[test]
fn an_adjusted_map_is_calibrated_and_the_same_on_any_number_of_threads() {
    let (before, after) = grown(Metric::Cosine, 3, 6);
    // In an order that says nothing.
    let order = crate::random::sample_rows(after.len() / DIM, usize::MAX, 1).into_iter().map(|row| row as usize);
    let count = after.len() / DIM;
    let after: Vec<f32> = order.flat_map(|row| after[(row * 7_919 % count) * DIM..][..DIM].iter().copied()).collect();
    let map = learn(of(&before), DIM, Metric::Cosine, None, options(4)).unwrap();
    let most = map.len() * 2;
    let one = LearnOptions { threads: NonZeroUsize::MIN, version: 9, ..options(4) };
    let adjusted = learn_from(map.clone(), of(&after), most, one).unwrap().unwrap();
    let three = LearnOptions { threads: NonZeroUsize::new(3).unwrap(), ..one };
    assert_eq!(learn_from(map.clone(), of(&after), most, three).unwrap().unwrap(), adjusted);
    assert_eq!(adjusted.map.parts().version, 9);
    assert_ne!(adjusted.map.parts().thetas, map.parts().thetas);
    let share = fan_out(&Router::new(Arc::new(adjusted.map)), &after[..400 * DIM], 0.9);
    assert!((0.25..0.95).contains(&share), "{share}");
    assert_eq!(fan_out(&Router::new(Arc::new(map)), &after[..9 * DIM], 1.0), 1.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn it_never_makes_things_worse(
        places in 1usize..20,
        copies in 0usize..4,
        shards in 2u32..9,
        metric in prop::sample::select(METRICS.to_vec()),
    ) {
        let (before, after) = grown(metric, places, copies);
        let map = Arc::new(learn(of(&before), DIM, metric, None, options(shards)).unwrap());
        if let Some(adjusted) = adjust(&map, &after, adjusting(&map)).unwrap() {
            let (was, is) = (adjusted.before.imbalance(), adjusted.after.imbalance());
            // Another share of copies may weigh a little.
            prop_assert!(is <= was.max(1.1) + 0.02, "{} from {}", is, was);
            prop_assert!(is < 1.15, "{} from {}", is, was);
            prop_assert!(adjusted.map.len() <= 2 * map.len());
        }
    }
}
