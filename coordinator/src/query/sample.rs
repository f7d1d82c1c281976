//! A random sample of the points that have a vector.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use vicinal_common::api::{PointParts, ScrollOrder};
use vicinal_common::error::Result;
use vicinal_common::exec;
use vicinal_common::filter::{Condition, Filter};
use vicinal_common::point::PointId;

use super::gather::Coverage;
use super::read::{PageRequest, scroll};
use super::scatter::ReadSpec;
use crate::shards::{Lookup, ShardAccess};

/// At most `count` points that have the vector `using` and match, each set of them as likely as any other; in id order.
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
    // A simulation must find the same in each run.
    let seed = if exec::is_simulated() { 0 } else { RandomState::new().hash_one(count) };
    let request = PageRequest {
        order: ScrollOrder::Random { seed },
        limit: count,
        filter: Some(Arc::new(wanted)),
        parts: PointParts::default(),
    };
    let page = scroll(access, lookup, spec, &request).await?;
    let mut ids: Vec<PointId> = page.points.into_iter().map(|point| point.id).collect();
    ids.sort_unstable();
    Ok((ids, page.coverage))
}
