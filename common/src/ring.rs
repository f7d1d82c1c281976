//! Ids to shards.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::ShardId;
use crate::limits::TOKENS;
use crate::point::PointId;

/// Which shard owns each token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenTable {
    owners: Vec<ShardId>,
}

impl TokenTable {
    /// Spreads the tokens over `shards`.
    pub fn propose(shards: &[ShardId]) -> TokenTable {
        TokenTable { owners: (0..TOKENS).map(|token| shards[token % shards.len()]).collect() }
    }

    /// The shard of an id.
    pub fn shard_of(&self, id: PointId) -> ShardId {
        let hash = xxh3_64(format!("{id:?}").as_bytes());
        self.owners[(hash >> 52) as usize]
    }
}
