//! The table of cut-offs: which share of the mass has to be asked for a recall, at some numbers of neighbours.
//!
//! A cut-off has a tilt: the flatter a query, the more of the mass is asked. What may be left out, `1 - theta`, is divided by
//! `exp(tilt * z)`, z telling how flat the query is ([`Flatness`]).

use crate::error::{RoutingError, invalid};

/// Most rows and columns of a table.
pub(crate) const SIDE_MAX: usize = 64;
/// The steepest tilt.
const TILT_MAX: f32 = 16.0;

/// How flat queries are: how little farther the 64th nearest centroid is than the nearest (the last, when there are fewer), as
/// their ratio, 0 to 1. A query in the midst of a cluster is not flat; one between clusters, or far from all, is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flatness {
    /// Half of the stored points that calibration asks are less flat; 0 before calibration.
    pub q50: f32,
    /// 99 % of all queries that are expected are less flat.
    pub q99: f32,
}

/// Queries that are this many times as far above the median as the 99th percentile is count as no flatter.
pub(crate) const FLATTEST: f32 = 1.5;

impl Flatness {
    /// Where a query stands: 0 up to the median, 1 at the 99th percentile, 1.5 at most.
    pub fn z(&self, flat: f32) -> f32 {
        let width = self.q99 - self.q50;
        if width > 0.0 { ((flat - self.q50) / width).clamp(0.0, FLATTEST) } else { 0.0 }
    }
}

/// What may be left out of the mass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// The share to ask, above 0; 1 stands for all shards.
    pub theta: f32,
    /// How much more of it flat queries ask, 0 or more.
    pub tilt: f32,
}

impl Cut {
    /// The share to ask for a query that stands at `z`.
    pub fn at(self, z: f32) -> f32 {
        if self.theta >= 1.0 { 1.0 } else { 1.0 - (1.0 - self.theta) * (-self.tilt * z).exp() }
    }
}

/// Cut-offs by number of neighbours and recall. A cut-off of 1 stands for all shards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ThetaTable {
    ks: Vec<u32>,
    targets: Vec<f32>,
    /// Row-major by k; never falls along a row.
    thetas: Vec<f32>,
    /// One for each cut-off.
    tilts: Vec<f32>,
}

impl ThetaTable {
    /// A table of `ks.len() * targets.len()` cut-offs, row-major by k, that ask flat queries no more than others. Numbers of
    /// neighbours and targets ascend; targets are above 0 and below 1, cut-offs above 0 and at most 1, and do not fall with
    /// the target.
    pub fn new(ks: Vec<u32>, targets: Vec<f32>, thetas: Vec<f32>) -> Result<ThetaTable, RoutingError> {
        let tilts = vec![0.0; thetas.len()];
        ThetaTable::tilted(ks, targets, thetas, tilts)
    }

    /// The same with a tilt, 0 to 16, for each cut-off.
    pub fn tilted(
        ks: Vec<u32>,
        targets: Vec<f32>,
        thetas: Vec<f32>,
        tilts: Vec<f32>,
    ) -> Result<ThetaTable, RoutingError> {
        let is_full = thetas.len() == ks.len() * targets.len() && tilts.len() == thetas.len();
        if ks.len() > SIDE_MAX || targets.len() > SIDE_MAX || !is_full {
            return Err(invalid("the table of cut-offs has another size"));
        }
        if !tilts.iter().all(|tilt| (0.0..=TILT_MAX).contains(tilt)) {
            return Err(invalid("a tilt is not between 0 and 16"));
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
        Ok(ThetaTable { ks, targets, thetas, tilts })
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

    /// The tilts, row-major by k.
    pub fn tilts(&self) -> &[f32] {
        &self.tilts
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
    pub fn cut(&self, recall: f32, k: f64) -> Option<Cut> {
        let after = self.ks.iter().position(|known| f64::from(*known) >= k).unwrap_or(self.ks.len().checked_sub(1)?);
        let high = self.in_row(after, recall)?;
        if after == 0 || f64::from(self.ks[after]) <= k {
            return Some(high);
        }
        let low = self.in_row(after - 1, recall)?;
        let (from, to) = (f64::from(self.ks[after - 1]).ln(), f64::from(self.ks[after]).ln());
        Some(between(low, high, ((k.ln() - from) / (to - from)) as f32))
    }

    fn in_row(&self, row: usize, recall: f32) -> Option<Cut> {
        let Some(after) = self.targets.iter().position(|target| *target >= recall) else {
            return Some(Cut { theta: 1.0, tilt: 0.0 });
        };
        let high = self.at(row, after)?;
        if after == 0 || self.targets[after] == recall {
            return Some(high);
        }
        let missing = |target: f32| -(1.0 - target).ln();
        let (from, to) = (missing(self.targets[after - 1]), missing(self.targets[after]));
        Some(between(self.at(row, after - 1)?, high, (missing(recall) - from) / (to - from)))
    }

    fn at(&self, row: usize, column: usize) -> Option<Cut> {
        let place = row * self.targets.len() + column;
        Some(Cut { theta: *self.thetas.get(place)?, tilt: *self.tilts.get(place)? })
    }
}

/// Between two cut-offs, by the logarithm of what they leave out; next to 1 there is nothing but 1.
fn between(low: Cut, high: Cut, part: f32) -> Cut {
    if part <= 0.0 {
        return low;
    }
    if high.theta >= 1.0 {
        return high;
    }
    let left_out = (1.0 - part) * (1.0 - low.theta).ln() + part * (1.0 - high.theta).ln();
    Cut { theta: 1.0 - left_out.exp(), tilt: (1.0 - part) * low.tilt + part * high.tilt }
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
        let theta = |recall, k| table.cut(recall, k).map(|cut| cut.theta);
        assert_eq!(theta(0.95, 10.0), Some(0.8));
        assert_eq!(theta(0.2, 10.0), Some(0.6));
        assert_eq!(theta(0.95, 1e6), Some(0.9));
        assert_eq!(theta(0.999, 10.0), Some(1.0));
        assert_eq!(theta(0.98, 100.0), Some(1.0));
        let mut before = 0.0;
        for recall in (0..100).map(|percent| percent as f32 / 100.0) {
            let now = theta(recall, 10.0).unwrap();
            assert!(now >= before, "{recall}");
            before = now;
        }
        let between = theta(0.92, 30.0).unwrap();
        assert!(between > 0.6 && between < 0.9, "{between}");
        assert_eq!(ThetaTable::default().cut(0.9, 10.0), None);
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

    #[test]
    fn flat_queries_ask_more_and_no_more_than_the_flattest() {
        let flatness = Flatness { q50: 0.6, q99: 0.8 };
        assert_eq!([0.1, 0.6, 0.95, 1.0].map(|flat| flatness.z(flat)), [0.0, 0.0, FLATTEST, FLATTEST]);
        assert!((flatness.z(0.7) - 0.5).abs() < 1e-6);
        assert_eq!(Flatness::default().z(0.9), 0.0);
        let cut = Cut { theta: 0.9, tilt: 2.0 };
        assert_eq!((cut.at(0.0), Cut { theta: 1.0, tilt: 2.0 }.at(0.0)), (0.9, 1.0));
        assert!((cut.at(1.0) - (1.0 - 0.1 * (-2f32).exp())).abs() < 1e-6);
        let table = ThetaTable::tilted(vec![1, 10], vec![0.9], vec![0.5, 0.8], vec![1.0, 3.0]).unwrap();
        let tilt = table.cut(0.9, 10f64.sqrt()).unwrap().tilt;
        assert!((tilt - 2.0).abs() < 1e-5, "{tilt}");
        assert!(ThetaTable::tilted(vec![1], vec![0.9], vec![0.5], vec![-0.1]).is_err());
        assert!(ThetaTable::tilted(vec![1], vec![0.9], vec![0.5], vec![f32::NAN]).is_err());
        assert!(ThetaTable::tilted(vec![1], vec![0.9], vec![0.5], vec![]).is_err());
    }
}
