//! Maps of collections that are routed by cluster.

/// Fewest points that a map is trained on.
pub const POINTS_MIN: u64 = 64;
