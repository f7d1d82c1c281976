//! Makes one list of hits out of several. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use vicinal_common::error::{Error, Result};

use super::request::Hit;

/// Constant of reciprocal rank fusion when none is given.
pub const RRF_K_DEFAULT: u32 = 2;

/// How lists of hits become one.
#[derive(Clone, Debug, PartialEq)]
pub enum Fusion {
    /// Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009): a hit at place p, from 0, of a list of weight w adds
    /// 1 / ((p + 1) / w + k - 1).
    Rrf {
        /// Constant k, at least 1: the larger it is, the less the first places count.
        k: u32,
        /// Weight of each list; all 1 when there are none. One that is 0 or less adds nothing.
        weights: Option<Vec<f32>>,
    },
    /// Distribution-based score fusion: scores of a list are brought to 0..1 by their mean and three standard deviations
    /// to either side, then added.
    Dbsf,
}

impl Fusion {
    /// Checks it for so many lists.
    pub fn check(&self, lists: usize) -> Result<()> {
        let refuse = |field: &str, message: String| Err(Error::Validation { field: field.into(), message });
        let Fusion::Rrf { k, weights } = self else { return Ok(()) };
        if *k == 0 {
            return refuse("query.rrf.k", "value 0 invalid, must be 1 or larger".into());
        }
        let Some(weights) = weights else { return Ok(()) };
        if weights.len() != lists {
            let text = format!("{} weights for {lists} prefetches, there must be one for each", weights.len());
            return refuse("query.rrf.weights", text);
        }
        match weights.iter().all(|weight| weight.is_finite()) {
            true => Ok(()),
            false => refuse("query.rrf.weights", "must be finite numbers".into()),
        }
    }

    /// The hits of all lists with their new scores, best first; of equal ones the one that was seen first.
    pub fn fuse(&self, lists: &[Vec<Hit>]) -> Vec<Hit> {
        let mut places: HashMap<_, usize> = HashMap::new();
        let mut fused: Vec<(Hit, f64)> = Vec::new();
        for (list, hits) in lists.iter().enumerate() {
            let scores = match self {
                Fusion::Rrf { k, weights } => {
                    let weight = weights.as_ref().and_then(|weights| weights.get(list)).map_or(1.0, |w| f64::from(*w));
                    ranks(hits.len(), f64::from(*k), weight)
                }
                Fusion::Dbsf => normalized(hits),
            };
            for (hit, score) in hits.iter().zip(scores) {
                match places.entry(hit.id) {
                    Entry::Occupied(place) => fused[*place.get()].1 += score,
                    Entry::Vacant(place) => {
                        place.insert(fused.len());
                        fused.push((hit.clone(), score));
                    }
                }
            }
        }
        fused.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        fused.into_iter().map(|(hit, score)| Hit { score: score as f32, ..hit }).collect()
    }
}

fn ranks(count: usize, k: f64, weight: f64) -> Vec<f64> {
    let score = |place: usize| 1.0 / ((place as f64 + 1.0) / weight + k - 1.0);
    (0..count).map(|place| if weight > 0.0 { score(place) } else { 0.0 }).collect()
}

fn normalized(hits: &[Hit]) -> Vec<f64> {
    let scores: Vec<f64> = hits.iter().map(|hit| f64::from(hit.score)).collect();
    let count = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / count;
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / (count - 1.0);
    // Of one hit, or of equal ones, no score says more than another.
    if scores.len() < 2 || variance <= 0.0 || !variance.is_finite() {
        return vec![0.5; scores.len()];
    }
    let reach = 3.0 * variance.sqrt();
    scores.iter().map(|score| (score - (mean - reach)) / (2.0 * reach)).collect()
}

#[cfg(test)]
mod tests {
    use vicinal_common::ids::LogIndex;
    use vicinal_common::point::PointId;

    use super::*;

    fn hits(scores: &[(u64, f32)]) -> Vec<Hit> {
        let hit = |(id, score): &(u64, f32)| Hit {
            id: PointId::Num(*id),
            version: LogIndex(1),
            score: *score,
            order: None,
            point: None,
        };
        scores.iter().map(hit).collect()
    }

    fn fused(fusion: &Fusion, lists: &[&[(u64, f32)]]) -> Vec<(u64, f32)> {
        let lists: Vec<Vec<Hit>> = lists.iter().map(|list| hits(list)).collect();
        let number = |hit: Hit| match hit.id {
            PointId::Num(number) => (number, (hit.score * 1e4).round() / 1e4),
            PointId::Uuid(_) => unreachable!(),
        };
        fusion.fuse(&lists).into_iter().map(number).collect()
    }

    #[test]
    fn places_count_and_scores_do_not() {
        let (a, b): (&[_], &[_]) = (&[(1, 9.0), (2, 8.0), (3, 7.0)], &[(3, 0.1), (4, 0.1)]);
        let rrf = Fusion::Rrf { k: 2, weights: None };
        assert_eq!(fused(&rrf, &[a, b]), [(3, 0.75), (1, 0.5), (2, 0.3333), (4, 0.3333)]);
        let weighted = Fusion::Rrf { k: 1, weights: Some(vec![0.0, 2.0]) };
        assert_eq!(fused(&weighted, &[a, b]), [(3, 2.0), (4, 1.0), (1, 0.0), (2, 0.0)]);
        assert_eq!(fused(&rrf, &[]), []);
    }

    #[test]
    fn scores_are_compared_within_their_list() {
        let (a, b): (&[_], &[_]) = (&[(1, 100.0), (2, 0.0)], &[(2, 0.5)]);
        // Two scores are the mean and 0.7071 standard deviations to either side.
        assert_eq!(fused(&Fusion::Dbsf, &[a, b, &[]]), [(2, 0.8821), (1, 0.6179)]);
        assert_eq!(fused(&Fusion::Dbsf, &[&[(1, 3.0), (2, 3.0)]]), [(1, 0.5), (2, 0.5)]);
        assert_eq!(fused(&Fusion::Dbsf, &[&[(1, f32::MAX), (2, f32::MIN)]]).len(), 2);
    }
}
