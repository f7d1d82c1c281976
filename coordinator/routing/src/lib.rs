//! Routing by cluster: which shards hold a vector, and which of them a query has to ask.
//!
//! Many fine centroids (k-means on a sample) are grouped onto the shards under a cap; a point lives in the shard of its
//! nearest centroid, points at a border in a second one too; a query asks shards in the order of the mass that the
//! centroids near it give them, until a share of the mass is reached that was calibrated for the recall wanted.
//!
//! Everything here only computes: no runtime, no input or output. The same input and seed give the same result on any
//! number of threads. All vectors are taken as prepared for their metric ([`Metric::prepare`]).
//!
//! In the order of use: [`train`] makes a [`CentroidMap`], a [`Placer`] says where a point lives, [`calibrate`] fills
//! in what recall costs ([`learn`] does all three), a [`Router`] says whom to ask, [`rebalance`] and [`split`] keep
//! shards even ([`adjust`] makes the next map of them, [`learn_from`] calibrates it).
//!
//! [`Metric::prepare`]: vicinal_common::metric::Metric::prepare

mod adjust;
mod calibrate;
mod clusters;
mod decision;
mod error;
mod exact;
mod finder;
mod format;
mod group;
mod kmeans;
mod learn;
mod map;
mod place;
mod random;
mod rebalance;
mod router;
mod space;
#[cfg(test)]
mod testing;
mod theta;
mod train;

pub use adjust::{AdjustOptions, Adjusted, Spread, adjust, fan_out};
pub use calibrate::{Calibration, Curve, Source, SourceKind, calibrate};
pub use clusters::{ClusterOptions, learn_clusters};
pub use decision::{AllBecause, Ask, Decision, Filtered, Goal, Reason, ShardMass, Widening};
pub use error::RoutingError;
pub use exact::nearest_rows;
pub use group::{GroupOptions, Grouping, group};
pub use kmeans::{Clusters, KMeansOptions, cluster};
pub use learn::{Known, LearnOptions, learn, learn_from, on_threads};
pub use map::{CentroidMap, D1Quantiles, MapParts};
pub use place::{Placer, Places, copy_ratio};
pub use random::sample_rows;
pub use rebalance::{Move, Rebalanced, oversized, rebalance, split};
pub use router::{Ranking, Router};
pub use theta::{Cut, Flatness, ThetaTable};
pub use train::{TrainOptions, centroid_count, centroids_wanted, train};
