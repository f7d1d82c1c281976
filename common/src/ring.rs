//! Ids to shards.
