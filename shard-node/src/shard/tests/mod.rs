//! One shard against a model: random work, crashes, damage, concurrency, the graph path.

mod churn;
mod clusters;
mod concurrency;
mod copies;
mod crash;
mod damage;
mod degenerate;
mod edits;
mod faults;
mod feed;
mod graph;
mod harness;
mod interleave;
mod model;
mod payload;
mod reference;
mod runs;
mod tuning;
mod unindexed;
