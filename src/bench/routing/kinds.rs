//! Queries of other kinds than those of the data set, and what a target of recall is worth with them.
//!
//! The map is learned as a cluster does it: calibrated on stored points and means of points, never on the queries measured here.

use std::sync::Arc;

use anyhow::ensure;
use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use vicinal_common::metric::Metric;
use vicinal_index::Rows;
use vicinal_routing::{
    Ask, Filtered, Goal, Known, LearnOptions, Placer, Places, Reason, Router, learn, nearest_rows, sample_rows,
};

use super::report::{Format, Run};
use crate::bench::print_line;

/// Kinds of queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Those of the data set
    Own,
    /// Means of two points
    Pairs,
    /// Means of three points
    Triples,
    /// Weighted means of two points
    Mixed,
    /// Points with noise of 0.3 of their length
    Noise03,
    /// Points with noise of 0.6 of their length
    Noise06,
    /// Points with noise of their length
    Noise1,
    /// Points with noise of twice their length
    Noise2,
    /// Points with half of their values set to zero
    Halves,
    /// Points with their coordinates permuted, the same way for all
    Permuted,
    /// Points as seen from the mean of all
    Centred,
    /// The opposites of points
    Opposite,
    /// Random directions
    Random,
}

/// So many queries of a kind, row-major, prepared. `own` are those of the data set.
pub(super) fn queries(
    kind: Kind,
    rows: Rows<'_>,
    own: Rows<'_>,
    metric: Metric,
    (count, seed): (usize, u64),
) -> Vec<f32> {
    let dim = rows.dim;
    if kind == Kind::Own {
        return own.data[..own.len().min(count) * dim].to_vec();
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..dim).collect();
    order.shuffle(&mut random);
    let mean: Vec<f32> = match kind {
        Kind::Centred => {
            (0..dim).map(|at| rows.data.iter().skip(at).step_by(dim).sum::<f32>() / rows.len() as f32).collect()
        }
        _ => Vec::new(),
    };
    let mut queries = Vec::with_capacity(count * dim);
    for _ in 0..count {
        let mut point = || rows.row(random.random_range(0..rows.len()) as u32).to_vec();
        let (mut query, second, third) = (point(), point(), point());
        let length = query.iter().map(|x| x * x).sum::<f32>().sqrt();
        let part: f32 = random.random();
        let noisy = |query: &mut Vec<f32>, size: f32, random: &mut StdRng| {
            let size = size * length / (dim as f32).sqrt();
            query.iter_mut().for_each(|x| *x += size * normal(random));
        };
        match kind {
            Kind::Own => {}
            Kind::Pairs => query.iter_mut().zip(&second).for_each(|(x, y)| *x = (*x + y) / 2.0),
            Kind::Triples => {
                query.iter_mut().zip(second.iter().zip(&third)).for_each(|(x, (y, z))| *x = (*x + y + z) / 3.0);
            }
            Kind::Mixed => query.iter_mut().zip(&second).for_each(|(x, y)| *x = part * *x + (1.0 - part) * y),
            Kind::Noise03 => noisy(&mut query, 0.3, &mut random),
            Kind::Noise06 => noisy(&mut query, 0.6, &mut random),
            Kind::Noise1 => noisy(&mut query, 1.0, &mut random),
            Kind::Noise2 => noisy(&mut query, 2.0, &mut random),
            Kind::Halves => query.iter_mut().for_each(|x| *x *= f32::from(u8::from(random.random::<bool>()))),
            Kind::Permuted => query = order.iter().map(|at| query[*at]).collect(),
            Kind::Centred => query.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean),
            Kind::Opposite => query.iter_mut().for_each(|x| *x = -*x),
            Kind::Random => query.iter_mut().for_each(|x| *x = length / (dim as f32).sqrt() * normal(&mut random)),
        }
        metric.prepare(&mut query);
        queries.extend(query);
    }
    queries
}

/// A normally distributed number, by Box and Muller.
fn normal(random: &mut StdRng) -> f32 {
    let (a, b): (f32, f32) = (1.0 - random.random::<f32>(), random.random());
    (-2.0 * a.ln()).sqrt() * (std::f32::consts::TAU * b).cos()
}

/// Which points a filter matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Match {
    /// Any, by chance
    Chance,
    /// Those nearest to a point, for queries near that point
    Around,
    /// Those nearest to a point, for queries that have nothing to do with it
    Elsewhere,
}

/// What a target is worth.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Worth {
    pub(super) shards: u32,
    pub(super) copies: f64,
    pub(super) kind: Kind,
    #[serde(rename = "match")]
    pub(super) matching: Option<Match>,
    /// Of the points, what the filter matches; 1 without.
    pub(super) share: f64,
    pub(super) target: f32,
    pub(super) recall: f64,
    pub(super) shards_mean: f64,
    /// Of the queries, how many were widened, and how many asked all shards.
    pub(super) widened: f64,
    pub(super) all: f64,
}

/// What is measured with.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) metric: Metric,
    pub(super) router: &'a Router,
    pub(super) places: &'a [Places],
    pub(super) k: usize,
}

impl Ground<'_> {
    /// Measures queries without a filter, or with one: the rows that match, ascending.
    pub(super) fn measure(
        &self,
        queries: &[f32],
        matching: Option<&[u32]>,
        targets: &[f32],
    ) -> anyhow::Result<Vec<Worth>> {
        let dim = self.rows.dim;
        let queries = Rows { data: queries, dim };
        let values: Vec<f32>;
        let among = match matching {
            None => self.rows,
            Some(rows) => {
                values = rows.iter().flat_map(|row| self.rows.row(*row).iter().copied()).collect();
                Rows { data: &values, dim }
            }
        };
        ensure!(!among.is_empty(), "a filter matches nothing");
        let row = |found: u32| matching.map_or(found, |rows| rows[found as usize]);
        let truth = nearest_rows(queries, among, self.metric, self.k);
        let filter = match matching {
            None => Filtered::No,
            Some(rows) => Filtered::Matching { points: rows.len() as u64, of: self.rows.len() as u64 },
        };
        let (count, wanted) = (queries.len() as f64, truth.iter().map(Vec::len).sum::<usize>() as f64);
        Ok(targets
            .iter()
            .map(|target| {
                let (mut found, mut asked, mut widened, mut all) = (0, 0, 0, 0);
                for (number, truth) in truth.iter().enumerate() {
                    let ask = Ask { k: self.k as u32, goal: Goal::Recall(*target), filter };
                    let decision = self.router.route(queries.row(number as u32), ask);
                    let is_found = |places: &Places| decision.shards().any(|shard| places.is_in(shard));
                    found += truth.iter().filter(|hit| is_found(&self.places[row(**hit) as usize])).count();
                    asked += decision.asked;
                    match decision.reason {
                        Reason::Widened { .. } => widened += 1,
                        Reason::All { .. } => all += 1,
                        Reason::Mass { .. } | Reason::Shards { .. } => {}
                    }
                }
                Worth {
                    shards: self.router.map().shards(),
                    copies: 0.0,
                    kind: Kind::Own,
                    matching: None,
                    share: among.len() as f64 / self.rows.len() as f64,
                    target: *target,
                    recall: found as f64 / wanted,
                    shards_mean: asked as f64 / count,
                    widened: f64::from(widened) / count,
                    all: f64::from(all) / count,
                }
            })
            .collect())
    }
}

/// Rows that a filter of a share matches, ascending, and queries for it.
pub(super) fn filtered(
    matching: Match,
    share: f64,
    (rows, own): (Rows<'_>, Rows<'_>),
    metric: Metric,
    seed: u64,
) -> (Vec<u32>, Vec<f32>) {
    let mut random = StdRng::seed_from_u64(seed);
    let wanted = ((rows.len() as f64 * share).ceil() as usize).clamp(1, rows.len());
    let mut chosen: Vec<u32> = match matching {
        Match::Chance => {
            let mut all: Vec<u32> = (0..rows.len() as u32).collect();
            all.shuffle(&mut random);
            all.truncate(wanted);
            all
        }
        Match::Around | Match::Elsewhere => {
            let pivot = rows.row(random.random_range(0..rows.len()) as u32);
            nearest_rows(Rows { data: pivot, dim: rows.dim }, rows, metric, wanted).into_iter().flatten().collect()
        }
    };
    let queries = match matching {
        // Points that match, but for some noise.
        Match::Around => {
            let near: Vec<f32> =
                (0..500).flat_map(|_| rows.row(chosen[random.random_range(0..wanted)]).to_vec()).collect();
            queries(Kind::Noise03, Rows { data: &near, dim: rows.dim }, own, metric, (500, seed))
        }
        Match::Chance | Match::Elsewhere => own.data[..own.len().min(500) * rows.dim].to_vec(),
    };
    chosen.sort_unstable();
    (chosen, queries)
}

/// The map of these points that a cluster would learn, and where all points are placed by it.
pub(super) fn learned(
    rows: Rows<'_>,
    metric: Metric,
    sample: &[f32],
    options: LearnOptions,
) -> anyhow::Result<(Router, Vec<Places>)> {
    let known = Known { sample, asked: &[] };
    let map = Arc::new(learn(known, rows.dim, metric, None, options)?);
    let places = Placer::new(map.clone()).place_all(rows);
    Ok((Router::new(map), places))
}

/// A sample of the points in an order that says nothing.
pub(super) fn sample(rows: Rows<'_>, wanted: usize, seed: u64) -> Vec<f32> {
    let mut chosen = sample_rows(rows.len(), wanted, seed);
    chosen.shuffle(&mut StdRng::seed_from_u64(seed));
    chosen.into_iter().flat_map(|row| rows.row(row).iter().copied()).collect()
}

impl Worth {
    /// What comes before.
    pub(super) fn print_head(run: &Run) {
        if run.format == Format::Table {
            print_line(&format!("{}: {} x {}, {}, k {}", run.dataset, run.n, run.dim, run.metric, run.k));
            print_line("shards copies      kind     match   share target recall   mean widened    all");
        }
    }

    /// One of them.
    pub(super) fn print(&self, run: &Run) -> anyhow::Result<()> {
        if run.format == Format::Json {
            let line = serde_json::json!({ "dataset": run.dataset, "n": run.n, "k": run.k, "worth": self });
            print_line(&line.to_string());
            return Ok(());
        }
        let Worth { shards, copies, kind, matching, share, target, recall, shards_mean, widened, all } = self;
        let name =
            |value: Option<clap::builder::PossibleValue>| value.map_or(String::new(), |it| it.get_name().to_owned());
        let (kind, matching) = (name(kind.to_possible_value()), name(matching.and_then(|it| it.to_possible_value())));
        print_line(&format!(
            "{shards:>6} {copies:>6.2} {kind:>9} {matching:>9} {share:>7.4} {target:>6.2} {recall:>6.3} \
             {shards_mean:>6.2} {widened:>7.2} {all:>6.2}"
        ));
        Ok(())
    }
}
