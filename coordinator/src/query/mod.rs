//! The life of a search: plan which node answers for which shard, scatter, gather, then fetch what the winners hold.

mod attempt;
mod by_map;
mod clustered;
mod clusters;
mod confirm;
mod diversify;
mod examples;
mod fetch;
mod fills;
pub mod formula;
mod fusion;
mod gather;
mod goal;
mod grouping;
mod groups;
mod hedge;
mod homes;
mod idf;
mod lookup_from;
mod matrix;
mod mmr;
mod open_shard;
mod plan;
mod progress;
mod read;
mod repair;
mod request;
mod route;
mod sample;
mod scatter;
mod search;
mod search_each;
mod tree;

pub use clusters::{ClusterMap, ClusterMaps, cluster_stats, clusters_of_points, fix_clusters, missing};
pub use fusion::{Fusion, RRF_K_DEFAULT};
pub(crate) use gather::reasons;
pub use gather::{Coverage, Missing};
pub use grouping::{Group, GroupId, GroupSpec};
pub use groups::{Grouped, run_groups};
pub use hedge::HedgeBudget;
pub use lookup_from::{LookupFrom, resolve_lookups};
pub use matrix::{Matrix, MatrixRequest, matrix};
pub use mmr::{DIVERSITY_DEFAULT, Mmr};
pub use plan::{Candidate, NodeTask, Plan, Wanted, plan};
pub use read::{FacetQuery, Page, PageRequest, count, facet, retrieve, scroll};
pub(crate) use repair::Repairs;
pub use request::{Answer, Example, Hit, Query, Source, WeightedExample, resolve_vector_name};
pub use route::{EverywhereBecause, Fixed, HomesBecause, Routed, Why, Width};
pub use scatter::{Effort, Gathered, ReadSpec, Targets, scatter, scatter_to};
pub use search::run;
pub use tree::{QueryTree, run_trees};

#[cfg(test)]
mod cluster_model_tests;
#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod failover_tests;
#[cfg(test)]
mod repair_tests;
#[cfg(test)]
mod tests;
