//! Queries whose hits are put in groups by a value of their payloads.
//!
//! 1. The query is run for as many hits as fill all groups, of points that have the field. The groups of these hits, in
//!    the order of their best ones, are right as far as they go.
//! 2. While groups are missing and there may be more hits, it is run again without the points that are only in groups
//!    found, at most `ROUNDS_MAX` times.
//! 3. Groups that are not full, and of which not all points have been seen, are filled by queries, one for each group, for
//!    the points with its value. They are run in batches that keep within the bounds of a request.
//!
//! A fusion scores a hit by its place among the others, which these filters would change. It is therefore run over longer
//! lists instead, `WIDENINGS_MAX` times at most, and one list is cut into groups.
//!
//! Prefetches find `group_size` times as many points as they say, as otherwise few groups could be filled from them.

use std::sync::Arc;

use vicinal_common::error::Result;
use vicinal_common::filter::Filter;
use vicinal_common::limits::RESULTS_MAX;
use vicinal_common::metric::ScoreOrder;

use super::fills::at_once;
use super::gather::Coverage;
use super::grouping::{Group, GroupSpec, Grouping, Rank};
use super::request::{Hit, Source, resolve_vector_name};
use super::scatter::ReadSpec;
use super::tree::{QueryTree, run_trees};
use crate::meta::Collection;
use crate::shards::{Lookup, ShardAccess};

/// Queries for groups that are not found yet. Each finds one at least, unless there is nothing left but points with
/// values that name no group.
const ROUNDS_MAX: usize = 16;
/// Queries for the hits of one group.
const FILLS_MAX: usize = 4;
/// How often the lists of a fusion are made longer.
const WIDENINGS_MAX: usize = 2;
/// How much longer each time.
const WIDENING: usize = 8;

/// The answer to a query by groups.
#[derive(Clone, Debug, Default)]
pub struct Grouped {
    /// By their best hits. Hits hold their payloads, whatever the query wants to see.
    pub groups: Vec<Group>,
    /// Which shards they come from.
    pub coverage: Coverage,
}

/// Where the queries for groups go, and what they have met so far.
struct Asking<'a> {
    access: &'a ShardAccess,
    lookup: Lookup<'a>,
    spec: ReadSpec<'a>,
    tree: QueryTree,
    coverage: Option<Coverage>,
}

/// Answers a query by groups. Its limit and offset are of no account: `groups` says how many hits there are.
pub async fn run_groups(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    tree: &QueryTree,
    groups: &GroupSpec,
) -> Result<Grouped> {
    groups.check()?;
    let collection = lookup()?;
    let rank = rank(&collection, tree)?;
    let mut tree = tree.clone();
    tree.query.limit = groups.hits();
    tree.query.offset = 0;
    tree.query.parts.payload = true;
    widen(&mut tree.prefetch, groups.size);
    let mut asking = Asking { access, lookup, spec, tree, coverage: None };
    let groups = match rank {
        Some(rank) => in_rounds(&mut asking, groups, rank).await?,
        None => from_one_list(&mut asking, groups).await?,
    };
    Ok(Grouped { groups, coverage: asking.coverage.unwrap_or_default() })
}

/// How hits of the query are put in order when its filter changes from run to run. `None` when they cannot be.
fn rank(collection: &Collection, tree: &QueryTree) -> Result<Option<Rank>> {
    let query = &tree.query;
    Ok(match &query.source {
        source if source.is_search() => {
            let metric = resolve_vector_name(&collection.schema, &query.using)?.metric;
            Some(Rank::Score(source.order(metric)))
        }
        // All scores are alike, so ids decide.
        Source::All => Some(Rank::Score(ScoreOrder::LargerIsBetter)),
        Source::Mmr { .. } | Source::OrderBy(_) | Source::Sample { .. } => Some(Rank::AsFound),
        // Fusions and formulas.
        _ => None,
    })
}

/// Makes prefetches find more, within the limit. What `mmr` chooses stays as it is: another number of hits would be
/// another choice.
fn widen(prefetches: &mut [QueryTree], factor: usize) {
    for prefetch in prefetches {
        if !matches!(prefetch.query.source, Source::Mmr { .. }) {
            prefetch.query.limit = prefetch.query.limit.saturating_mul(factor).min(RESULTS_MAX);
        }
        widen(&mut prefetch.prefetch, factor);
    }
}

impl Asking<'_> {
    /// Runs the query with each of the filters in the place of its own, for so many hits.
    async fn ask(&mut self, filters: Vec<Arc<Filter>>, limit: usize) -> Result<Vec<Vec<Hit>>> {
        let with_filter = |filter| {
            let mut tree = self.tree.clone();
            tree.query.filter = Some(filter);
            tree.query.limit = limit;
            tree
        };
        let trees: Vec<QueryTree> = filters.into_iter().map(with_filter).collect();
        let answers = run_trees(self.access, self.lookup, self.spec, &trees).await?;
        let mut lists = Vec::with_capacity(answers.len());
        for answer in answers {
            match &mut self.coverage {
                Some(coverage) => coverage.add(&answer.coverage),
                None => self.coverage = Some(answer.coverage),
            }
            lists.push(answer.hits);
        }
        Ok(lists)
    }
}

async fn in_rounds(asking: &mut Asking<'_>, groups: &GroupSpec, rank: Rank) -> Result<Vec<Group>> {
    let base = asking.tree.query.filter.clone();
    let mut grouping = Grouping::new(groups, rank);
    let asked = groups.hits();
    for _ in 0..ROUNDS_MAX {
        if !grouping.wants_groups() {
            break;
        }
        let lists = asking.ask(vec![grouping.filter_of_round(base.as_ref())], asked).await?;
        if !grouping.take_round(lists.into_iter().flatten().collect(), asked)? {
            break;
        }
    }
    for _ in 0..FILLS_MAX {
        let unfilled = grouping.unfilled();
        let Some(longest) = grouping.longest(&unfilled) else { break };
        let filter = grouping.filter_of_group(longest, base.as_ref());
        let most = at_once(&(asking.lookup)()?.schema, &asking.tree, &filter, groups.size)?;
        for places in unfilled.chunks(most) {
            let filters = places.iter().map(|place| grouping.filter_of_group(*place, base.as_ref())).collect();
            let lists = asking.ask(filters, groups.size).await?;
            for (place, hits) in places.iter().zip(lists) {
                grouping.fill(*place, hits)?;
            }
        }
    }
    Ok(grouping.finish())
}

/// Groups of a query whose hits can be compared only within one list: of all that its prefetches find.
async fn from_one_list(asking: &mut Asking<'_>, groups: &GroupSpec) -> Result<Vec<Group>> {
    let base = asking.tree.query.filter.clone();
    let prefetches = asking.tree.prefetch.iter_mut();
    for prefetch in prefetches.filter(|prefetch| !matches!(prefetch.query.source, Source::Mmr { .. })) {
        prefetch.query.limit = prefetch.query.limit.max(groups.hits());
    }
    let mut before = 0;
    let mut widenings = 0;
    loop {
        let limit = asking.tree.prefetch.iter().map(|prefetch| prefetch.query.limit).fold(0, usize::saturating_add);
        let limit = limit.clamp(1, RESULTS_MAX);
        let mut grouping = Grouping::new(groups, Rank::AsFound);
        let lists = asking.ask(vec![grouping.filter_of_round(base.as_ref())], limit).await?;
        let hits: Vec<_> = lists.into_iter().flatten().collect();
        let found = hits.len();
        grouping.take_round(hits, usize::MAX)?;
        if !grouping.wants_groups() || found <= before || widenings == WIDENINGS_MAX {
            return Ok(grouping.finish());
        }
        (before, widenings) = (found, widenings + 1);
        widen(&mut asking.tree.prefetch, WIDENING);
    }
}
