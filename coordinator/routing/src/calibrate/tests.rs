//! Targets that hold on other queries, and what decides them.

use std::sync::Arc;

use vicinal_common::metric::Metric;
use vicinal_index::{Accept, FlatIndex, SearchParams, VectorIndex};

use super::*;
use crate::decision::{Ask, Filtered, Goal};
use crate::map::CentroidMap;
use crate::place::Placer;
use crate::testing::{METRICS, points};
use crate::train::{TrainOptions, train};

const DIM: usize = 8;

fn answers(data: &[f32], queries: &[f32], places: &[Places], metric: Metric, k: usize) -> Vec<Vec<Places>> {
    let (index, rows) = (FlatIndex::new(metric), Rows { data, dim: DIM });
    let search = |query| index.search(rows, query, SearchParams::new(k, k), Accept::All);
    queries.chunks_exact(DIM).map(|query| search(query).iter().map(|hit| places[hit.row as usize]).collect()).collect()
}

#[test]
fn targets_hold_on_other_queries() {
    for metric in METRICS {
        // Many overlapping places, of which the queries are later points.
        let mut data = points(9_000, DIM, 300, metric, 6);
        let queries = data.split_off(8_000 * DIM);
        let (fit, test) = queries.split_at(500 * DIM);
        let map = train(Rows { data: &data, dim: DIM }, metric, TrainOptions::new(8, 1)).unwrap();
        let map = Arc::new(map);
        let places = Placer::new(map.clone()).place_all(Rows { data: &data, dim: DIM });
        let of = |queries| answers(&data, queries, &places, metric, 20);
        let (fit_answers, test_answers) = (of(fit), of(test));
        let queries = Rows { data: fit, dim: DIM };
        let source = Source { kind: SourceKind::Expected, queries, answers: &fit_answers };
        let router = Router::new(map.clone());
        let found = calibrate(&router, &[source], &[1, 10, 20], &[0.8, 0.9, 0.95, 0.99]).unwrap();
        let mut parts = CentroidMap::clone(&map).into_parts();
        (parts.thetas, parts.d1, parts.flatness) = (found.thetas, found.d1, found.flatness);
        let router = Router::new(Arc::new(CentroidMap::new(parts).unwrap()));
        for target in [0.8, 0.87, 0.9, 0.95, 0.99, 1.0] {
            let (mut hits, mut asked) = (0, 0);
            for (query, answers) in test.chunks_exact(DIM).zip(&test_answers) {
                let ask = Ask { k: 10, goal: Goal::Recall(target), filter: Filtered::No };
                let decision = router.route(query, ask);
                let is_hit = |places: &&Places| decision.shards().any(|shard| places.is_in(shard));
                hits += answers[..10].iter().filter(is_hit).count();
                asked += decision.asked;
            }
            let recall = hits as f32 / 5_000.0;
            assert!(recall >= target - 0.015, "{metric:?}: {recall} for {target}");
            assert!(target < 1.0 || asked == 8 * 500, "{metric:?}: {asked}");
        }
    }
}

#[test]
fn the_curve_is_what_rankings_give() {
    let data = points(2_000, DIM, 200, Metric::Euclid, 6);
    let rows = Rows { data: &data, dim: DIM };
    let map = Arc::new(train(rows, Metric::Euclid, TrainOptions::new(5, 1)).unwrap());
    let places = Placer::new(map.clone()).place_all(rows);
    let queries = points(100, DIM, 200, Metric::Euclid, 8);
    let answers = answers(&data, &queries, &places, Metric::Euclid, 10);
    let rankings = Router::new(map).rank_all(Rows { data: &queries, dim: DIM });
    let curve = Curve::new(&rankings, &answers, 10);
    let counted = |theta: f32| {
        let of = |(ranking, answers): (&Ranking, &Vec<Places>)| {
            let asked = &ranking.shards[..ranking.asked(theta)];
            answers.iter().filter(|places| asked.iter().any(|shard| places.is_in(shard.shard))).count()
        };
        rankings.iter().zip(&answers).map(of).sum::<usize>() as f64 / 1_000.0
    };
    for target in [0.3, 0.6, 0.8, 0.9, 0.95, 0.99, 1.0] {
        let theta = curve.theta(target);
        assert_eq!(curve.recall(theta), counted(theta));
        assert!(counted(theta) >= target);
        assert!(theta <= f32::MIN_POSITIVE || counted(theta - 1e-5) < target || theta == 1.0, "{target} {theta}");
    }
    assert_eq!(curve.recall(1.0), 1.0);
}

#[test]
fn the_harder_source_decides_and_nonsense_is_refused() {
    let data = points(2_000, DIM, 200, Metric::Euclid, 6);
    let rows = Rows { data: &data, dim: DIM };
    let map = Arc::new(train(rows, Metric::Euclid, TrainOptions::new(5, 1)).unwrap());
    let places = Placer::new(map.clone()).place_all(rows);
    let router = Router::new(map);
    let (easy, hard) = (&data[..100 * DIM], points(100, DIM, 7, Metric::Euclid, 77));
    let of = |queries| answers(&data, queries, &places, Metric::Euclid, 10);
    let (easy_answers, hard_answers) = (of(easy), of(&hard));
    let kind = SourceKind::Expected;
    let easy = Source { kind, queries: Rows { data: easy, dim: DIM }, answers: &easy_answers };
    let hard = Source { kind, queries: Rows { data: &hard, dim: DIM }, answers: &hard_answers };
    let run = |sources: &[Source<'_>]| calibrate(&router, sources, &[10], &[0.9, 0.95]);
    let (one, other, both) = (run(&[easy]).unwrap(), run(&[hard]).unwrap(), run(&[easy, hard]).unwrap());
    for i in 0..2 {
        assert_eq!(both.thetas.thetas()[i], one.thetas.thetas()[i].max(other.thetas.thetas()[i]));
    }
    assert_eq!(both.d1, one.d1.max(other.d1));
    assert!(run(&[]).is_err());
    assert!(run(&[Source { answers: &easy_answers[1..], ..easy }]).is_err());
    assert!(calibrate(&router, &[easy], &[10], &[1.5]).is_err());
    assert!(run(&[Source { kind: SourceKind::Possible, ..easy }, hard]).is_err());
}

#[test]
fn means_of_points_reach_their_target_by_what_flat_queries_ask() {
    let metric = Metric::Euclid;
    let mut data = points(4_500, DIM, 200, metric, 6);
    let stored = data.split_off(4_000 * DIM);
    let rows = Rows { data: &data, dim: DIM };
    let map = Arc::new(train(rows, metric, TrainOptions::new(8, 1)).unwrap());
    let places = Placer::new(map.clone()).place_all(rows);
    let router = Router::new(map);
    // Means of three, half of them to calibrate with.
    let third = |of: usize, at: usize| (of * 1_327 + at * 739) % 4_000 * DIM;
    let mean = |at: usize, i: usize| (0..3).map(|of| data[third(of, at) + i]).sum::<f32>() / 3.0;
    let means: Vec<f32> = (0..600).flat_map(|at| (0..DIM).map(move |i| mean(at, i))).collect();
    let (fit, test) = means.split_at(300 * DIM);
    let of = |queries| answers(&data, queries, &places, metric, 10);
    let (stored_answers, fit_answers, test_answers) = (of(&stored), of(fit), of(test));
    let source = |kind, data, answers| Source { kind, queries: Rows { data, dim: DIM }, answers };
    let expected = source(SourceKind::Expected, &stored, &stored_answers);
    let possible = source(SourceKind::Possible, fit, &fit_answers);
    let targets = [0.8, 0.9, 0.95, 0.99];
    let without = calibrate(&router, &[expected], &[10], &targets).unwrap();
    let with = calibrate(&router, &[expected, possible], &[10], &targets).unwrap();
    let recall = |calibration: &Calibration, target: f32| {
        let cut = calibration.thetas.cut(target, 10.0).unwrap();
        let found = test.chunks_exact(DIM).zip(&test_answers).map(|(query, answers)| {
            let ranking = router.rank(query);
            let asked = ranking.asked(cut.at(calibration.flatness.z(ranking.flat)));
            let is_found = |places: &&Places| ranking.shards[..asked].iter().any(|shard| places.is_in(shard.shard));
            answers.iter().filter(is_found).count()
        });
        found.sum::<usize>() as f32 / 3_000.0
    };
    assert!(without.thetas.tilts().iter().all(|tilt| *tilt == 0.0));
    for target in targets {
        let (before, now) = (recall(&without, target), recall(&with, target));
        // Three hundred queries tell a recall to a point or two.
        assert!(now >= target - 0.04 && now >= before - 0.02, "{target}: {before}, {now}");
    }
    // A larger target never asks a query less, however flat it is.
    for flat in [0.0, 0.3, 1.0, FLATTEST] {
        let shares: Vec<f32> = targets.iter().map(|it| with.thetas.cut(*it, 10.0).unwrap().at(flat)).collect();
        assert!(shares.windows(2).all(|pair| pair[1] >= pair[0] - 1e-6), "{flat}: {shares:?}");
    }
}
