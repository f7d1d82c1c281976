//! The life of a search: plan which node answers for which shard, scatter, gather, then fetch what the winners hold.

mod fetch;
pub mod formula;
mod fusion;
mod gather;
mod goal;
mod hedge;
mod idf;
mod open_shard;
mod plan;
mod progress;
mod read;
mod request;
mod scatter;
mod search;
mod tree;

pub use fusion::{Fusion, RRF_K_DEFAULT};
pub(crate) use gather::reasons;
pub use gather::{Coverage, Missing};
pub use hedge::HedgeBudget;
pub use plan::{Candidate, NodeTask, Plan, Wanted, plan};
pub use read::{FacetQuery, Page, PageRequest, count, facet, retrieve, scroll};
pub use request::{Answer, Example, Hit, Query, Source, WeightedExample, resolve_vector_name};
pub use scatter::{Effort, Gathered, ReadSpec, scatter};
pub use search::run;
pub use tree::{QueryTree, run_trees};

#[cfg(test)]
mod failover_tests;
#[cfg(test)]
mod tests;
