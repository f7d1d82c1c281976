//! What a search wants, and which shards it is therefore sent to, and why: an answer can show it.

use serde::Serialize;

/// What decides how many shards are asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// So much of the exact answer, 0 to 1; 1 asks all shards.
    Recall(f32),
    /// Shards until so much of the mass is reached, 0 to 1; 1 asks all shards. For measurements.
    Theta(f32),
    /// So many shards, at least one.
    Shards(u32),
    /// All of them.
    All,
}

/// What a filter leaves of the points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Filtered {
    /// There is no filter.
    No,
    /// So many points match, of so many.
    Matching {
        /// An estimate will do.
        points: u64,
        /// All points of the collection.
        of: u64,
    },
    /// There is a filter and nothing is known of it.
    Unknown,
}

/// What a search asks of the router.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask {
    /// Neighbours wanted.
    pub k: u32,
    /// How well, or how widely.
    pub goal: Goal,
    /// What may match.
    pub filter: Filtered,
}

/// Why as many shards are asked as are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// Shards until this share of the mass was reached.
    Mass {
        /// The share, by the recall, k and how flat the query is.
        theta: f32,
    },
    /// As many as the search said.
    Shards {
        /// So many.
        count: u32,
    },
    /// By mass, with a larger share than was calibrated for the recall and k alone.
    Widened {
        /// What made it necessary; the one that widened most.
        why: Widening,
        /// The share.
        theta: f32,
    },
    /// All shards.
    All {
        /// What made it necessary.
        why: AllBecause,
    },
}

/// Why more is asked than calibration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Widening {
    /// The query is farther from all centroids than 99 % of those seen in calibration.
    FarQuery,
    /// More centroids are about as near to the query as the nearest than to 99 % of those seen in calibration.
    FlatQuery,
    /// A filter spreads the answers over more shards.
    Filter,
    /// More neighbours are wanted than were calibrated.
    ManyNeighbours,
}

/// Why everything is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AllBecause {
    /// The search says so, or wants a recall of 1.
    Wanted,
    /// There is one shard.
    OneShard,
    /// The map was not calibrated.
    NotCalibrated,
    /// No share of the mass reaches this recall.
    HighRecall,
    /// The query is nowhere near what was seen in calibration.
    FarQuery,
    /// A filter leaves few points, or nobody knows how many.
    Filter,
    /// Far more neighbours are wanted than were calibrated.
    ManyNeighbours,
}

/// A shard in the order in which it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ShardMass {
    /// Its number in the map.
    pub shard: u32,
    /// Its share of the mass; the shares of all shards add up to 1.
    pub mass: f32,
    /// The mass of all shards behind it.
    pub left: f32,
    /// No point that lives there, as far as the radii of the map know, is nearer than this internal distance.
    pub bound: f32,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// All shards, those that matter most first.
    pub ranked: Vec<ShardMass>,
    /// How many of them are asked, at least 1.
    pub asked: usize,
    /// Why so many.
    pub reason: Reason,
    /// Length from the query to its nearest centroid.
    pub d1: f32,
}

impl Decision {
    /// The shards to ask, the most promising first.
    pub fn shards(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranked[..self.asked].iter().map(|shard| shard.shard)
    }

    /// The shards of a second wave: not asked, but by their bound they may hold a point nearer than the k-th found so far,
    /// which is at this internal distance. Points stored after training may lie outside the radii that the bound knows.
    pub fn second_wave(&self, kth: f32) -> impl Iterator<Item = u32> + '_ {
        self.ranked[self.asked..].iter().filter(move |shard| shard.bound < kth).map(|shard| shard.shard)
    }
}
