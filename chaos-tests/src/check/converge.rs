//! After everything has healed, all replicas of a shard hold the same.

use super::Report;

const PROMISE: &str = "replicas of a shard hold the same";

/// What one replica says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaDigest {
    /// Its node.
    pub node: String,
    /// Log index it has applied.
    pub applied: u64,
    /// Points it holds.
    pub points: u64,
    /// Digest over all of them, independent of their order; or why there is none.
    pub digest: Result<String, String>,
}

/// One shard with all its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardDigests {
    /// Number of the shard.
    pub shard: u64,
    /// In the order of the answer.
    pub replicas: Vec<ReplicaDigest>,
}

impl ShardDigests {
    /// Whether there are so many replicas and all say the same.
    pub fn is_settled(&self, replicas: usize) -> bool {
        let same = |one: &ReplicaDigest, other: &ReplicaDigest| {
            (one.applied, one.points, &one.digest) == (other.applied, other.points, &other.digest)
        };
        let all_answer = self.replicas.iter().all(|replica| replica.digest.is_ok());
        self.replicas.len() == replicas && all_answer && self.replicas.windows(2).all(|pair| same(&pair[0], &pair[1]))
    }
}

/// Checks digests that were taken while nobody wrote, and that all points are there: each shard's as often as it has
/// replicas.
pub fn converge(shards: &[ShardDigests], replicas: usize, points: usize, report: &mut Report) {
    for shard in shards {
        if shard.replicas.len() != replicas {
            report.violation(PROMISE, format!("{} of {replicas} replicas answer: {shard:?}", shard.replicas.len()));
        } else if !shard.is_settled(replicas) {
            report.violation(PROMISE, format!("they differ, or do not answer: {shard:?}"));
        }
    }
    let held: u64 = shards.iter().filter_map(|shard| shard.replicas.first()).map(|replica| replica.points).sum();
    if held != points as u64 {
        report.violation(PROMISE, format!("replicas hold {held} points, a read of all finds {points}"));
    }
    report.figure(
        "shards with equal digests",
        format!("{}/{}", shards.iter().filter(|s| s.is_settled(replicas)).count(), shards.len()),
    );
    if shards.is_empty() {
        report.doubt("no shard was compared");
    }
}
