//! Routing by cluster between shards of a collection: what their leaders do beside answering requests.

pub(crate) mod sweep;

pub use self::sweep::SweepOptions;
