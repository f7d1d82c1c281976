//! Maximal marginal relevance (Carbonell and Goldstein, 1998): chooses one candidate after the other, each as similar to
//! the query and as little similar to those chosen before as can be. Pure.

use vicinal_common::error::{Error, Result};
use vicinal_common::limits::MMR_CANDIDATES_MAX;

/// Diversity when none is given.
pub const DIVERSITY_DEFAULT: f32 = 0.5;

/// How hits are chosen from candidates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mmr {
    /// 0 to 1: how much it counts that a hit differs from those before it; the rest is how near it is to the query.
    pub diversity: f32,
    /// Nearest points to choose from, 0 to [`MMR_CANDIDATES_MAX`]; as many as hits are wanted when it is not said.
    pub candidates: Option<usize>,
}

impl Mmr {
    /// Checks the ranges.
    pub fn check(&self) -> Result<()> {
        let refuse = |field: &str, message: String| Err(Error::Validation { field: field.into(), message });
        if !(0.0..=1.0).contains(&self.diversity) {
            let text = format!("value {} invalid, must be from 0.0 to 1.0", self.diversity);
            return refuse("query.mmr.diversity", text);
        }
        match self.candidates {
            Some(count) if count > MMR_CANDIDATES_MAX => {
                let text = format!("value {count} invalid, must be {MMR_CANDIDATES_MAX} or smaller");
                refuse("query.mmr.candidates_limit", text)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How many candidates there are for a query with this limit.
    pub(super) fn candidates(&self, limit: usize) -> usize {
        self.candidates.unwrap_or(limit).min(MMR_CANDIDATES_MAX)
    }

    /// Places of at most `count` candidates in the order chosen: the most relevant first, then always the one with the
    /// largest (1 - diversity) * relevance - diversity * similarity to the chosen one that it is most similar to. Of
    /// equal ones the last in a list that, as Qdrant's, fills the place of a chosen one with its last entry. `None` when
    /// `is_late` said to stop; it is asked once for each choice. O(count * candidates) calls of `similarity`.
    pub(super) fn choose(
        &self,
        relevance: &[f32],
        count: usize,
        similarity: impl Fn(usize, usize) -> f32,
        is_late: impl Fn() -> bool,
    ) -> Option<Vec<usize>> {
        let diversity = f64::from(self.diversity);
        let mut pending: Vec<usize> = (0..relevance.len()).collect();
        let mut closest = vec![f32::NEG_INFINITY; relevance.len()];
        let mut chosen: Vec<usize> = Vec::with_capacity(count.min(relevance.len()));
        while chosen.len() < count && !pending.is_empty() {
            if is_late() {
                return None;
            }
            if let Some(latest) = chosen.last() {
                for place in &pending {
                    closest[*place] = closest[*place].max(similarity(*place, *latest));
                }
            }
            let score = |place: usize| match chosen.is_empty() {
                true => f64::from(relevance[place]),
                false => (1.0 - diversity) * f64::from(relevance[place]) - diversity * f64::from(closest[place]),
            };
            let scores = pending.iter().map(|place| score(*place)).enumerate();
            // Of equal ones max_by() returns the last.
            let best = scores.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
            chosen.push(pending.swap_remove(best.0));
        }
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Candidates on a line; similarity is minus the squared distance, the query is at 0.
    fn chosen(at: &[f32], diversity: f32, count: usize) -> Vec<usize> {
        let similarity = |a: f32, b: f32| -(a - b) * (a - b);
        let relevance: Vec<f32> = at.iter().map(|at| similarity(*at, 0.0)).collect();
        let mmr = Mmr { diversity, candidates: None };
        mmr.choose(&relevance, count, |a, b| similarity(at[a], at[b]), || false).unwrap()
    }

    #[test]
    fn diversity_decides_between_near_and_different() {
        let at = [1.0, 1.1, 1.2, -3.0];
        assert_eq!(chosen(&at, 0.0, 3), [0, 1, 2], "by relevance alone");
        assert_eq!(chosen(&at, 0.9, 2), [0, 3], "the other side of the query");
        assert_eq!(chosen(&at, 1.0, 3), [0, 3, 2]);
        assert_eq!(chosen(&at, 0.5, 10).len(), 4);
        assert_eq!(chosen(&at, 0.5, 0), [] as [usize; 0]);
        assert_eq!(chosen(&[], 0.5, 3), [] as [usize; 0]);
    }

    #[test]
    fn of_equal_candidates_the_last_is_taken_and_the_end_moves_up() {
        assert_eq!(chosen(&[1.0, 1.0, 1.0], 0.0, 3), [2, 1, 0]);
        assert_eq!(chosen(&[0.0, 1.0, 1.0, 1.0], 0.0, 4), [0, 2, 1, 3]);
    }

    #[test]
    fn it_stops_when_time_is_up() {
        let mmr = Mmr { diversity: 0.5, candidates: None };
        assert_eq!(mmr.choose(&[1.0, 2.0], 2, |_, _| 0.0, || true), None);
    }

    #[test]
    fn ranges_are_checked_by_name() {
        for (diversity, candidates, text) in [
            (1.5, None, "query.mmr.diversity: value 1.5 invalid"),
            (f32::NAN, None, "query.mmr.diversity"),
            (0.5, Some(16_385), "query.mmr.candidates_limit: value 16385 invalid, must be 16384 or smaller"),
        ] {
            let error = Mmr { diversity, candidates }.check().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        assert!(Mmr { diversity: 1.0, candidates: Some(16_384) }.check().is_ok());
        assert_eq!(Mmr { diversity: 1.0, candidates: None }.candidates(100_000), 16_384);
    }

    /// The same by the definition: all similarities anew for each choice.
    fn by_definition(at: &[f32], diversity: f32, count: usize) -> Vec<usize> {
        let similarity = |a: f32, b: f32| -(a - b) * (a - b);
        let mut pending: Vec<usize> = (0..at.len()).collect();
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < count && !pending.is_empty() {
            let score = |place: usize| {
                let relevance = f64::from(similarity(at[place], 0.0));
                let most =
                    chosen.iter().map(|other| similarity(at[place], at[*other])).fold(f32::NEG_INFINITY, f32::max);
                let diversity = f64::from(diversity);
                if chosen.is_empty() { relevance } else { (1.0 - diversity) * relevance - diversity * f64::from(most) }
            };
            let mut best = 0;
            for (i, place) in pending.iter().enumerate() {
                if score(*place) >= score(pending[best]) {
                    best = i;
                }
            }
            chosen.push(pending.swap_remove(best));
        }
        chosen
    }

    proptest! {
        #[test]
        fn it_chooses_as_the_definition_says(
            at in proptest::collection::vec((-20i8..20).prop_map(f32::from), 0..20),
            diversity in 0.0f32..=1.0,
            count in 0usize..25,
        ) {
            prop_assert_eq!(chosen(&at, diversity, count), by_definition(&at, diversity, count));
        }
    }
}
