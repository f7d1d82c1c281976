//! The request for the clusters of shards, and its answer.

use tokio::time::Instant;

use super::query::ID_LEAST;
use super::{Operation, Reader, Request, Wire, Writer};
use crate::api::{ClusterStat, ClusterStats, ClusterStatsRequest, ReadContext, ShardAnswer};
use crate::error::Result;
use crate::ids::MapDigest;
use crate::point::PointId;

/// Least bytes of a cluster: id, points, sum of lengths, nearest length, nearest point.
const CLUSTER_LEAST: usize = 4 + 8 + 8 + 4 + ID_LEAST;

impl Wire for ClusterStatsRequest {
    fn put(&self, to: &mut Writer) {
        self.context.put(to);
        to.raw(&self.map.0.to_le_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Result<ClusterStatsRequest> {
        let context = ReadContext::read(from)?;
        Ok(ClusterStatsRequest { context, map: MapDigest(u128::from_le_bytes(from.sixteen()?)) })
    }
}

impl Request for ClusterStatsRequest {
    const OPERATION: Operation = Operation::ClusterStats;
    type Answer = Vec<ShardAnswer<ClusterStats>>;

    fn deadline(&self) -> Option<Instant> {
        Some(self.context.deadline)
    }
}

impl Wire for ClusterStats {
    fn put(&self, to: &mut Writer) {
        to.u64(self.assigned);
        to.u64(self.rows);
        to.count(self.clusters.len());
        for stat in &self.clusters {
            to.raw(&stat.cluster.to_le_bytes());
            to.u64(stat.points);
            to.u64(stat.length_sum.to_bits());
            to.f32(stat.nearest_length);
            stat.nearest.put(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<ClusterStats> {
        let (assigned, rows) = (from.u64()?, from.u64()?);
        let clusters = from.list(CLUSTER_LEAST, |from| {
            Ok(ClusterStat {
                cluster: from.u32()?,
                points: from.u64()?,
                length_sum: f64::from_bits(from.u64()?),
                nearest_length: from.f32()?,
                nearest: PointId::read(from)?,
            })
        })?;
        Ok(ClusterStats { assigned, rows, clusters })
    }
}
