//! The table of cut-offs: which share of the mass has to be asked for a recall, at some numbers of neighbours.

use crate::error::{RoutingError, invalid};

/// Most rows and columns of a table.
pub(crate) const SIDE_MAX: usize = 64;

/// Cut-offs by number of neighbours and recall. A cut-off of 1 stands for all shards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ThetaTable {
    ks: Vec<u32>,
    targets: Vec<f32>,
    /// Row-major by k; never falls along a row.
    thetas: Vec<f32>,
}

impl ThetaTable {
    /// A table of `ks.len() * targets.len()` cut-offs, row-major by k. Numbers of neighbours and targets ascend; targets are
    /// above 0 and below 1, cut-offs above 0 and at most 1, and do not fall with the target.
    pub fn new(ks: Vec<u32>, targets: Vec<f32>, thetas: Vec<f32>) -> Result<ThetaTable, RoutingError> {
        if ks.len() > SIDE_MAX || targets.len() > SIDE_MAX || thetas.len() != ks.len() * targets.len() {
            return Err(invalid("the table of cut-offs has another size"));
        }
        if ks.first() == Some(&0) || !ks.is_sorted_by(|a, b| a < b) {
            return Err(invalid("numbers of neighbours do not ascend from 1"));
        }
        let is_target = |target: &f32| *target > 0.0 && *target < 1.0;
        if !targets.iter().all(is_target) || !targets.is_sorted_by(|a, b| a < b) {
            return Err(invalid("targets of recall do not ascend between 0 and 1"));
        }
        if !thetas.iter().all(|theta| *theta > 0.0 && *theta <= 1.0) {
            return Err(invalid("a cut-off is not above 0 and at most 1"));
        }
        if !targets.is_empty() && !thetas.chunks_exact(targets.len()).all(|row| row.is_sorted()) {
            return Err(invalid("cut-offs fall with the target"));
        }
        Ok(ThetaTable { ks, targets, thetas })
    }

    /// Numbers of neighbours, ascending.
    pub fn ks(&self) -> &[u32] {
        &self.ks
    }

    /// Targets of recall, ascending.
    pub fn targets(&self) -> &[f32] {
        &self.targets
    }

    /// The cut-offs, row-major by k.
    pub fn thetas(&self) -> &[f32] {
        &self.thetas
    }

    /// Whether nothing was calibrated.
    pub fn is_empty(&self) -> bool {
        self.thetas.is_empty()
    }

    /// The largest number of neighbours that was calibrated.
    pub fn k_max(&self) -> u32 {
        self.ks.last().copied().unwrap_or(0)
    }

    /// The cut-off for a recall between 0 and 1 and so many neighbours, between calibrated ones by interpolation: in ln k, and
    /// in the logarithms of what is missing of recall and of mass. Less than the lowest target or k costs what that does,
    /// more than the largest k what that does; more than the highest target, 1. `None` when the table is empty.
    pub fn theta(&self, recall: f32, k: f64) -> Option<f32> {
        let after = self.ks.iter().position(|known| f64::from(*known) >= k).unwrap_or(self.ks.len().checked_sub(1)?);
        let high = self.in_row(after, recall)?;
        if after == 0 || f64::from(self.ks[after]) <= k {
            return Some(high);
        }
        let low = self.in_row(after - 1, recall)?;
        let (from, to) = (f64::from(self.ks[after - 1]).ln(), f64::from(self.ks[after]).ln());
        Some(between(low, high, ((k.ln() - from) / (to - from)) as f32))
    }

    fn in_row(&self, row: usize, recall: f32) -> Option<f32> {
        let thetas = self.thetas.chunks_exact(self.targets.len().max(1)).nth(row)?;
        let Some(after) = self.targets.iter().position(|target| *target >= recall) else { return Some(1.0) };
        if after == 0 || self.targets[after] == recall {
            return thetas.get(after).copied();
        }
        let missing = |target: f32| -(1.0 - target).ln();
        let (from, to) = (missing(self.targets[after - 1]), missing(self.targets[after]));
        Some(between(thetas[after - 1], thetas[after], (missing(recall) - from) / (to - from)))
    }
}

/// Between two cut-offs, by the logarithm of what they leave out; next to 1 there is nothing but 1.
fn between(low: f32, high: f32, part: f32) -> f32 {
    if part <= 0.0 {
        return low;
    }
    if high >= 1.0 {
        return 1.0;
    }
    let left_out = (1.0 - part) * (1.0 - low).ln() + part * (1.0 - high).ln();
    1.0 - left_out.exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> ThetaTable {
        ThetaTable::new(vec![1, 10, 100], vec![0.9, 0.95, 0.99], vec![0.5, 0.6, 0.9, 0.6, 0.8, 0.95, 0.7, 0.9, 1.0])
            .unwrap()
    }

    #[test]
    fn calibrated_places_are_themselves_and_others_between_their_neighbours() {
        let table = table();
        assert_eq!(table.theta(0.95, 10.0), Some(0.8));
        assert_eq!(table.theta(0.2, 10.0), Some(0.6));
        assert_eq!(table.theta(0.95, 1e6), Some(0.9));
        assert_eq!(table.theta(0.999, 10.0), Some(1.0));
        assert_eq!(table.theta(0.98, 100.0), Some(1.0));
        let mut before = 0.0;
        for recall in (0..100).map(|percent| percent as f32 / 100.0) {
            let theta = table.theta(recall, 10.0).unwrap();
            assert!(theta >= before, "{recall}");
            before = theta;
        }
        let theta = table.theta(0.92, 30.0).unwrap();
        assert!(theta > 0.6 && theta < 0.9, "{theta}");
        assert_eq!(ThetaTable::default().theta(0.9, 10.0), None);
    }

    #[test]
    fn senseless_tables_are_refused() {
        for (ks, targets, thetas) in [
            (vec![0], vec![0.9], vec![0.5]),
            (vec![10, 10], vec![0.9], vec![0.5, 0.5]),
            (vec![10], vec![1.0], vec![0.5]),
            (vec![10], vec![0.9, 0.8], vec![0.5, 0.5]),
            (vec![10], vec![0.9, 0.95], vec![0.5, 0.4]),
            (vec![10], vec![0.9], vec![f32::NAN]),
            (vec![10], vec![0.9], vec![]),
        ] {
            assert!(ThetaTable::new(ks, targets, thetas).is_err());
        }
    }
}
