//! What a recall costs: for queries whose exact answers are known, the share of the mass at which enough is found.
//!
//! Queries come from two places: stored points (whose own row is no answer), always there, and logged real queries. Each
//! place alone must reach the target, so that real queries that are harder than points decide, and the other way round.
//! A target is raised by what chance may mislead by and by what searches inside shards miss.
//!
//! Queries of neither kind may come. Those between points (means of some, say) are no farther from centroids than others,
//! yet their neighbours are in more shards. No property of a query tells them apart, but they are flatter on average. So flat
//! queries ask more: with the least tilt by which such queries, which are a source of their own here, reach the target less
//! three quarters of a point. Asking all queries more, for their sake, costs up to twice as much (ADR 21).

use vicinal_index::Rows;

use crate::error::{RoutingError, invalid};
use crate::map::D1Quantiles;
use crate::place::Places;
use crate::router::{Ranking, Router};
use crate::theta::{Cut, FLATTEST, Flatness, ThetaTable};

/// Recall may miss its target by so much on other queries.
const TOLERANCE: f64 = 0.01;
/// Standard errors that are kept clear of half of that; the other half is for what shards miss beyond what is
/// expected.
const ERRORS: f64 = 2.0;
/// Possible queries reach a target less so much: not all of the tolerance, because a few hundred of them tell no better.
const POSSIBLE: f64 = 0.0075;
/// What searches inside shards miss of the answers, at most a tenth of what may be missing: measured 0.002 to 0.005 on the
/// sets of docs/BENCHMARKS.md.
const SHARD_LOSS: f64 = 0.003;
/// Tilts to choose from.
const TILTS: [f32; 12] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0];

/// What queries of a source are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Such as will come: the target is for them.
    Expected,
    /// Such as may come: they reach the target less three quarters of a point.
    Possible,
}

/// Queries of one kind with their exact answers.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// What they are.
    pub kind: SourceKind,
    /// Prepared.
    pub queries: Rows<'a>,
    /// Where the exact neighbours of each query live, nearest first, as many as the largest k or all that there are.
    pub answers: &'a [Vec<Places>],
}

/// What calibration finds: parts of the next map.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Cut-offs for every k and target.
    pub thetas: ThetaTable,
    /// How far expected queries are from their nearest centroids.
    pub d1: D1Quantiles,
    /// How flat: the median of the first source, and the larger of the others' 99th percentiles.
    pub flatness: Flatness,
}

/// Calibrates cut-offs for some numbers of neighbours and targets of recall, both ascending. The first source is an expected
/// one. Fails when it is not, or when a source has no queries or other than one list of answers for each.
pub fn calibrate(
    router: &Router,
    sources: &[Source<'_>],
    ks: &[u32],
    targets: &[f32],
) -> Result<Calibration, RoutingError> {
    if sources.first().is_none_or(|source| source.kind != SourceKind::Expected) {
        return Err(invalid("there are no expected queries to calibrate with"));
    }
    let mut ranked: Vec<Vec<Ranking>> = Vec::with_capacity(sources.len());
    for source in sources {
        if source.queries.is_empty() || source.queries.len() != source.answers.len() {
            return Err(invalid(format!("{} queries, {} answers", source.queries.len(), source.answers.len())));
        }
        ranked.push(router.rank_all(source.queries));
    }
    let mut d1 = D1Quantiles::default();
    let mut flatness = Flatness::default();
    for (_, rankings) in sources.iter().zip(&ranked).filter(|(source, _)| source.kind == SourceKind::Expected) {
        d1 = d1.max(D1Quantiles::of(rankings.iter().map(|ranking| ranking.d1).collect()));
        let flat = D1Quantiles::of(rankings.iter().map(|ranking| ranking.flat).collect());
        // Tilts begin where half of the stored points are, and end where the flattest that are expected are.
        let q50 = if flatness == Flatness::default() { flat.q50 } else { flatness.q50 };
        flatness = Flatness { q50, q99: flat.q99.max(flatness.q99) };
    }
    let mut cuts: Vec<Cut> = Vec::with_capacity(ks.len() * targets.len());
    for k in ks {
        let curve = |(source, rankings): (&Source<'_>, &Vec<Ranking>)| {
            (source.kind, Curve::new(rankings, source.answers, *k as usize).standing(rankings, flatness))
        };
        let curves: Vec<(SourceKind, Curve)> = sources.iter().zip(&ranked).map(curve).collect();
        cuts.extend(row(&curves, targets));
    }
    let (thetas, tilts) = cuts.into_iter().map(|cut| (cut.theta, cut.tilt)).unzip();
    let thetas = ThetaTable::tilted(ks.to_vec(), targets.to_vec(), thetas, tilts)?;
    Ok(Calibration { thetas, d1, flatness })
}

/// The cut-offs of one k: for each target the least tilt that suffices; no query asks less for a larger target.
fn row(curves: &[(SourceKind, Curve)], targets: &[f32]) -> Vec<Cut> {
    let mut row = vec![Cut { theta: f32::MIN_POSITIVE, tilt: 0.0 }; targets.len()];
    let mut is_open = vec![true; targets.len()];
    // Whatever flat queries ask beyond it, others ask no less than without a tilt: there are expected queries of which few are
    // flat.
    let of_all = |target: f32| {
        let expected = curves.iter().filter(|(kind, _)| *kind == SourceKind::Expected);
        expected.map(|(_, curve)| curve.theta(f64::from(target))).fold(f32::MIN_POSITIVE, f32::max)
    };
    let least: Vec<f32> = targets.iter().map(|target| of_all(*target)).collect();
    for tilt in TILTS {
        if !is_open.contains(&true) {
            break;
        }
        let of = |kind| move |(of, curve): &(SourceKind, Curve)| (*of == kind).then(|| curve.tilted(tilt));
        let expected: Vec<Curve> = curves.iter().filter_map(of(SourceKind::Expected)).collect();
        let possible: Vec<Curve> = curves.iter().filter_map(of(SourceKind::Possible)).collect();
        for at in 0..targets.len() {
            if !is_open[at] {
                continue;
            }
            let (target, enough) = (f64::from(targets[at]), f64::from(targets[at]) - POSSIBLE);
            let theta = expected.iter().map(|curve| curve.safe_theta(target)).fold(least[at], f32::max);
            is_open[at] = !possible.iter().all(|curve| curve.recall(theta) >= enough);
            // The steepest is not always enough.
            let theta = possible.iter().map(|curve| curve.theta(enough)).fold(theta, f32::max);
            row[at] = Cut { theta, tilt };
        }
    }
    for at in 1..row.len() {
        let (before, cut) = (row[at - 1], &mut row[at]);
        // At both ends is in between too.
        let steeper = ((before.tilt - cut.tilt) * FLATTEST).max(0.0);
        cut.theta = cut.theta.max(before.theta).max(1.0 - (1.0 - before.theta) * (-steeper).exp());
    }
    row
}

/// Recall of some queries as a function of theta, exactly.
pub struct Curve {
    queries: Vec<Steps>,
    /// Answers wanted of all queries.
    wanted: u64,
    /// The mass left out below which some query asks one more shard, and how many answers it finds there: largest first.
    gains: Vec<(f32, u32)>,
    /// Answers found at any theta: in the first shard of each query.
    first: u64,
}

/// One query.
#[derive(Clone)]
struct Steps {
    /// Answers found in the first 1, 2, ... shards, and the mass left behind each.
    found: Vec<(u32, f32)>,
    wanted: u32,
    /// How flat it is: see [`Flatness::z`].
    z: f32,
}

impl Curve {
    /// Of rankings and the places of the exact neighbours, of which the nearest `k` count.
    pub fn new(rankings: &[Ranking], answers: &[Vec<Places>], k: usize) -> Curve {
        Curve::of(rankings.iter().zip(answers).map(|(ranking, answers)| Steps::new(ranking, answers, k)).collect())
    }

    fn of(queries: Vec<Steps>) -> Curve {
        let mut gains = Vec::new();
        for query in &queries {
            let pairs = query.found.windows(2).filter(|pair| pair[1].0 > pair[0].0);
            gains.extend(pairs.map(|pair| (pair[0].1, pair[1].0 - pair[0].0)));
        }
        gains.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let first = queries.iter().filter_map(|query| query.found.first()).map(|found| u64::from(found.0)).sum();
        Curve { wanted: queries.iter().map(|query| u64::from(query.wanted)).sum(), queries, gains, first }
    }

    /// Of the same rankings, where each stands by how flat it is.
    fn standing(mut self, rankings: &[Ranking], flatness: Flatness) -> Curve {
        for (query, ranking) in self.queries.iter_mut().zip(rankings) {
            query.z = flatness.z(ranking.flat);
        }
        self
    }

    /// The same with a tilt: as recall is when what may be left out is divided for flat queries, or, which is the same, when
    /// what is left out counts more.
    fn tilted(&self, tilt: f32) -> Curve {
        let counts = |query: &Steps| {
            let more = (tilt * query.z).exp();
            let found = query.found.iter().map(|(found, left)| (*found, left * more)).collect();
            Steps { found, ..*query }
        };
        Curve::of(self.queries.iter().map(counts).collect())
    }

    /// The least theta whose recall is at least `target`; 1 when nothing less will do.
    pub fn theta(&self, target: f64) -> f32 {
        let enough = |found: u64| found as f64 >= target * self.wanted as f64;
        let mut found = self.first;
        if enough(found) {
            return f32::MIN_POSITIVE;
        }
        for (left, gain) in &self.gains {
            found += u64::from(*gain);
            if enough(found) {
                return theta_below(*left);
            }
        }
        1.0
    }

    /// [`Curve::theta`], for a target that is raised by what shards miss, and when there are too few queries to trust it.
    fn safe_theta(&self, target: f64) -> f32 {
        let chance = (ERRORS * self.standard_error(self.theta(target)) - TOLERANCE / 2.0).max(0.0);
        let margin = chance + SHARD_LOSS.min((1.0 - target) / 10.0);
        // Half of what is missing is as careful as it gets: all of it would be everything.
        self.theta(target + margin.min((1.0 - target) / 2.0))
    }

    /// Recall at a theta.
    pub fn recall(&self, theta: f32) -> f64 {
        let found: u64 = self.queries.iter().map(|query| u64::from(query.found(theta))).sum();
        found as f64 / self.wanted.max(1) as f64
    }

    /// Standard error of the mean recall at a theta.
    fn standard_error(&self, theta: f32) -> f64 {
        let recalls =
            || self.queries.iter().map(|query| f64::from(query.found(theta)) / f64::from(query.wanted.max(1)));
        let n = self.queries.len().max(2) as f64;
        let mean = recalls().sum::<f64>() / n;
        (recalls().map(|recall| (recall - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt()
    }
}

impl Steps {
    fn new(ranking: &Ranking, answers: &[Places], k: usize) -> Steps {
        let answers = &answers[..k.min(answers.len())];
        let mut is_found = vec![false; answers.len()];
        let mut count = 0u32;
        let found = ranking.shards.iter().map(|shard| {
            let open = if (count as usize) < answers.len() { answers.len() } else { 0 };
            for (is_found, places) in is_found.iter_mut().zip(answers).take(open) {
                if !*is_found && places.is_in(shard.shard) {
                    *is_found = true;
                    count += 1;
                }
            }
            (count, shard.left)
        });
        Steps { found: found.collect(), wanted: answers.len() as u32, z: 0.0 }
    }

    fn found(&self, theta: f32) -> u32 {
        if theta >= 1.0 {
            return self.found.last().map_or(0, |last| last.0);
        }
        let enough = self.found.iter().find(|(_, left)| *left <= 1.0 - theta);
        enough.or(self.found.last()).map_or(0, |found| found.0)
    }
}

/// The least theta at which a query that would leave out this mass asks one more shard.
fn theta_below(left: f32) -> f32 {
    let mut theta = (1.0 - left).max(f32::MIN_POSITIVE);
    while theta < 1.0 && left <= 1.0 - theta {
        theta = theta.next_up();
    }
    theta.min(1.0)
}

#[cfg(test)]
mod tests;
