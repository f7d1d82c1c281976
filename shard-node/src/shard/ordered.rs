//! Pages of points: by id, by a key of the payload, or at random.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use serde_json::Value;
use vicinal_common::api::{OrderBy, OrderValue, PointParts, ScrollOrder, StoredPoint, random_key};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{Filter, KeyPath};
use vicinal_common::payload::parse_fields;
use vicinal_common::point::PointId;

use super::matching::Matcher;
use super::patience::{Patience, ROW_COST};
use super::select::{Reading, RunRef};
use super::view::{Parts, View};

/// Where the first so many of an order are kept: the last of them on top.
pub(super) struct First<K> {
    limit: usize,
    pub(super) heap: BinaryHeap<K>,
}

impl<K: Ord> First<K> {
    pub(super) fn new(limit: usize) -> First<K> {
        First { limit, heap: BinaryHeap::new() }
    }

    pub(super) fn would_take(&self, key: &K) -> bool {
        self.heap.len() < self.limit || self.heap.peek().is_some_and(|last| key < last)
    }

    pub(super) fn push(&mut self, key: K) {
        if self.heap.len() < self.limit {
            self.heap.push(key);
        } else if let Some(mut last) = self.heap.peek_mut()
            && key < *last
        {
            *last = key;
        }
    }
}

/// A value of a point in an order by a key.
#[derive(PartialEq, Eq)]
struct Keyed {
    value: OrderValue,
    id: PointId,
    descending: bool,
}

impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Keyed) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyed {
    fn cmp(&self, other: &Keyed) -> Ordering {
        let ascending = self.value.cmp(&other.value).then(self.id.cmp(&other.id));
        if self.descending { ascending.reverse() } else { ascending }
    }
}

impl View {
    /// The first `limit` points in an order that match the filter. `BadInput` for a key that cannot be read; `Timeout` when
    /// patience ends.
    pub fn page(
        &self,
        order: &ScrollOrder,
        limit: usize,
        filter: Option<&Filter>,
        parts: &PointParts,
        patience: &Patience,
    ) -> Result<Vec<StoredPoint>> {
        self.know_clusters(filter, patience)?;
        match order {
            ScrollOrder::Clusters(sample) => self.page_by_cluster(*sample, limit, filter, parts, patience),
            ScrollOrder::Id { from } => self.scroll(*from, limit, filter, parts),
            ScrollOrder::Key(order) => self.page_by_key(order, limit, filter, parts, patience),
            ScrollOrder::Random { seed } => {
                let mut first = First::new(limit);
                self.each_match(filter, patience, &mut |run, row, matcher| {
                    let id = run.source().run.ids().get(row);
                    let key = (random_key(*seed, id), id);
                    if first.would_take(&key) && matcher.check(row)? {
                        first.push(key);
                    }
                    Ok(())
                })?;
                let ids: Vec<PointId> = first.heap.into_sorted_vec().into_iter().map(|(_, id)| id).collect();
                self.retrieve(&ids, parts)
            }
        }
    }

    /// The first `limit` points in id order from the id `from` on (`None`: from the beginning) that match the filter.
    pub fn scroll(
        &self,
        from: Option<PointId>,
        limit: usize,
        filter: Option<&Filter>,
        parts: &PointParts,
    ) -> Result<Vec<StoredPoint>> {
        let mut page = Vec::new();
        if limit > 0 {
            self.visit(from, filter, parts, &mut |point| {
                page.push(point);
                Ok(page.len() < limit)
            })?;
        }
        Ok(page)
    }

    fn page_by_key(
        &self,
        order: &OrderBy,
        limit: usize,
        filter: Option<&Filter>,
        parts: &PointParts,
        patience: &Patience,
    ) -> Result<Vec<StoredPoint>> {
        let path = KeyPath::parse(&order.key).map_err(Error::BadInput)?;
        let descending = order.descending;
        let mut first = First::new(limit);
        self.each_match(filter, patience, &mut |run, row, matcher| {
            let rows = run.source().run;
            let fields = parse_fields(rows.payload(row))?;
            let id = rows.ids().get(row);
            let mut values = Vec::new();
            path.visit(&fields, &mut |value| match value {
                Value::Array(elements) => values.extend(elements.iter().filter_map(OrderValue::of)),
                value => values.extend(OrderValue::of(value)),
            });
            values.sort_unstable();
            values.dedup();
            let is_behind = |value: &OrderValue| match order.from {
                None => true,
                Some(from) if descending => value.cmp_number(&from).is_le(),
                Some(from) => value.cmp_number(&from).is_ge(),
            };
            let wanted = values.into_iter().filter(is_behind).map(|value| Keyed { value, id, descending });
            let wanted: Vec<Keyed> = wanted.filter(|keyed| first.would_take(keyed)).collect();
            if !wanted.is_empty() && matcher.check(row)? {
                wanted.into_iter().for_each(|keyed| first.push(keyed));
            }
            Ok(())
        })?;
        let parts = Parts::new(parts, &self.layout)?;
        let page = first.heap.into_sorted_vec().into_iter().filter_map(|Keyed { value, id, .. }| {
            let (source, row) = self.locate(id)?;
            Some(StoredPoint { order: Some(value), ..parts.read(source.run, row) })
        });
        Ok(page.collect())
    }

    /// Shows every live row that may match a filter; whether it does is left to ask of the matcher.
    pub(super) fn each_match(
        &self,
        filter: Option<&Filter>,
        patience: &Patience,
        see: &mut dyn FnMut(RunRef<'_>, u32, &Matcher<'_>) -> Result<()>,
    ) -> Result<()> {
        for run in self.runs() {
            let source = run.source();
            let matcher = self.matcher(run, filter, Reading::Every)?;
            for row in matcher.candidates(source.dead, 0) {
                patience.spend(ROW_COST + source.run.payload(row).len() as u64)?;
                see(run, row, &matcher)?;
            }
        }
        Ok(())
    }
}
