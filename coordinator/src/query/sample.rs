//! A random choice of points.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use vicinal_common::api::PointParts;
use vicinal_common::error::Result;
use vicinal_common::exec;
use vicinal_common::filter::{Condition, Filter};
use vicinal_common::limits::RESULTS_MAX;
use vicinal_common::point::PointId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::gather::Coverage;
use super::read::{PageRequest, scroll};
use super::scatter::ReadSpec;
use crate::shards::{Lookup, ShardAccess};

/// At most `count` points that have the vector `using` and match, each set of them as likely as any other; in id order.
///
/// Every point gets a random number, and those with the smallest are taken: one pass over all ids, page by page, ended by
/// the deadline at the latest.
pub(super) async fn sample_ids(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    using: &str,
    filter: Option<&Arc<Filter>>,
    count: usize,
) -> Result<(Vec<PointId>, Coverage)> {
    let mut wanted = filter.map(|filter| Filter::clone(filter)).unwrap_or_default();
    wanted.must.push(Condition::HasVector(using.to_owned()));
    let filter = Some(Arc::new(wanted));
    // A simulation must find the same in each run.
    let seed = if exec::is_simulated() { 0 } else { RandomState::new().hash_one(count) };
    let mut chosen: BinaryHeap<(u64, Reverse<PointId>)> = BinaryHeap::with_capacity(count + 1);
    let mut coverage: Option<Coverage> = None;
    let mut from = None;
    // Ends: every page begins behind the one before.
    loop {
        let request =
            PageRequest { from, limit: RESULTS_MAX / 10, filter: filter.clone(), parts: PointParts::default() };
        let page = scroll(access, lookup, spec, &request).await?;
        match &mut coverage {
            Some(coverage) => coverage.add(&page.coverage),
            None => coverage = Some(page.coverage),
        }
        for point in page.points {
            let (bytes, length) = point.id.to_bytes();
            chosen.push((xxh3_64_with_seed(&bytes[..length], seed), Reverse(point.id)));
            if chosen.len() > count {
                chosen.pop();
            }
        }
        let Some(next) = page.next else { break };
        from = Some(next);
    }
    let mut ids: Vec<PointId> = chosen.into_iter().map(|(_, Reverse(id))| id).collect();
    ids.sort_unstable();
    Ok((ids, coverage.unwrap_or_default()))
}
