//! One setting: a map, a budget of copies, and what recalls cost with them.

use std::time::Instant;

use vicinal_index::Rows;
use vicinal_routing::{Ask, Curve, Filtered, Goal, Places, Ranking, Router, copy_ratio};

use super::report::Point;
use crate::bench::index::truth::Truth;

/// What is asked, and the exact answers.
#[derive(Clone, Copy)]
pub(super) struct Queries<'a> {
    pub(super) vectors: Rows<'a>,
    pub(super) truth: &'a Truth,
}

/// The shards of every query in order, and what that took.
pub(super) struct Routed {
    rankings: Vec<Ranking>,
    route_us: f64,
}

impl Queries<'_> {
    /// Routes all of them, one after the other.
    pub(super) fn route(&self, router: &Router) -> Routed {
        let ask = Ask { k: 1, goal: Goal::Theta(0.5), filter: Filtered::No };
        let started = Instant::now();
        for query in 0..self.vectors.len() as u32 {
            std::hint::black_box(router.route(self.vectors.row(query), ask));
        }
        let route_us = started.elapsed().as_secs_f64() * 1e6 / self.vectors.len().max(1) as f64;
        Routed { rankings: router.rank_all(self.vectors), route_us }
    }
}

/// Where all points live with a budget of copies.
pub(super) struct Setting {
    centroids: usize,
    budget: f64,
    places: Vec<Places>,
    /// Points in each shard, copies included.
    rows: Vec<u64>,
    imbalance: f64,
    copied: f64,
    train_s: f64,
}

impl Setting {
    /// `places` tell the second place of every point; copied is what is near enough for the budget, as chosen on a sample.
    pub(super) fn new(router: &Router, places: &[Places], (budget, sample): (f64, &[Places]), train_s: f64) -> Setting {
        let limit = copy_ratio(sample, budget);
        let keep = |places: &Places| Places { copy: places.copy.filter(|_| places.ratio <= limit), ..*places };
        let places: Vec<Places> = places.iter().map(keep).collect();
        let mut homes = vec![0u64; router.map().shards() as usize];
        let mut rows = homes.clone();
        for places in &places {
            homes[places.home as usize] += 1;
            for shard in [Some(places.home), places.copy].into_iter().flatten() {
                rows[shard as usize] += 1;
            }
        }
        let mean = places.len().max(1) as f64 / homes.len() as f64;
        let copied = places.iter().filter(|places| places.copy.is_some()).count() as f64 / places.len().max(1) as f64;
        let imbalance = homes.into_iter().max().unwrap_or(0) as f64 / mean;
        Setting { centroids: router.map().len(), budget, places, rows, imbalance, copied, train_s }
    }

    /// What every search of a recall costs: the cut-off is found on the queries of even number, measured on the others.
    pub(super) fn at(&self, routed: &Routed, queries: Queries<'_>, target: f64, k: usize) -> Point {
        let half = |odd: usize| -> (Vec<Ranking>, Vec<Vec<Places>>) {
            let numbers = (odd..routed.rankings.len()).step_by(2);
            let answers = |number: usize| {
                queries.truth.neighbours()[number].iter().map(|row| self.places[*row as usize]).collect()
            };
            numbers.map(|number| (routed.rankings[number].clone(), answers(number))).unzip()
        };
        let (fit, fit_answers) = half(0);
        let (test, test_answers) = half(1);
        let theta = Curve::new(&fit, &fit_answers, k).theta(target);
        let mut asked: Vec<usize> = test.iter().map(|ranking| ranking.asked(theta)).collect();
        let scanned = |(ranking, asked): (&Ranking, &usize)| -> u64 {
            ranking.shards[..*asked].iter().map(|shard| self.rows[shard.shard as usize]).sum()
        };
        let scanned = test.iter().zip(&asked).map(scanned).sum::<u64>() as f64 / test.len() as f64;
        let shards_mean = asked.iter().sum::<usize>() as f64 / asked.len() as f64;
        asked.sort_unstable();
        Point {
            centroids: self.centroids,
            shards: self.rows.len(),
            copies: self.budget,
            copied: self.copied,
            target,
            theta,
            recall: Curve::new(&test, &test_answers, k).recall(theta),
            shards_mean,
            // By nearest rank.
            shards_p95: asked[(0.95 * asked.len() as f64).ceil() as usize - 1],
            imbalance: self.imbalance,
            distances: scanned + self.centroids as f64,
            train_s: self.train_s,
            route_us: routed.route_us,
        }
    }

    /// The same without routing: every shard is asked, nothing is copied.
    pub(super) fn query_all(router: &Router, rows: usize, train_s: f64) -> Point {
        let shards = router.map().shards() as usize;
        Point {
            centroids: router.map().len(),
            shards,
            copies: 0.0,
            copied: 0.0,
            target: 1.0,
            theta: 1.0,
            recall: 1.0,
            shards_mean: shards as f64,
            shards_p95: shards,
            imbalance: 1.0,
            distances: rows as f64,
            train_s,
            route_us: 0.0,
        }
    }
}
