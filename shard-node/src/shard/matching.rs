//! Filters on the rows of a run.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{ClusteringName, Filter, InClusters};
use vicinal_common::payload::{Fields, parse_fields};

use crate::payload_index::Selection;
use crate::segment::{Assignments, Layout, Run, Tombstones};

/// A filter, or none, on one run.
pub(super) struct Matcher<'a> {
    filter: Option<&'a Filter>,
    run: &'a dyn Run,
    layout: &'a Layout,
    needs_payload: bool,
    /// The clusters of the rows, by each map that the filter names.
    clusters: Vec<Arc<Assignments>>,
    /// What indexes tell of the rows.
    selection: Option<Selection>,
    /// Counts the payloads that are read.
    payloads_read: Option<&'a AtomicU64>,
    /// The first payload that could not be read. Predicates cannot fail, so it waits here for [`Matcher::finish`].
    error: OnceLock<Error>,
    /// What is known of each row, when rows are asked for more than once: 0 nothing, 1 no, 2 yes.
    known: Vec<AtomicU8>,
}

fn clusters(filter: &Filter, run: &dyn Run) -> Vec<Arc<Assignments>> {
    if !filter.names_clusters() {
        return Vec::new();
    }
    // A filter without a map is refused where the read begins.
    let maps = filter.cluster_maps().unwrap_or_default();
    maps.into_iter().filter_map(|map| run.assigned().complete(map)).collect()
}

impl<'a> Matcher<'a> {
    pub(super) fn of(filter: Option<&'a Filter>, run: &'a dyn Run, layout: &'a Layout) -> Matcher<'a> {
        let needs_payload = filter.is_some_and(Filter::needs_payload);
        Matcher {
            filter,
            run,
            layout,
            needs_payload,
            clusters: filter.map_or_else(Vec::new, |filter| clusters(filter, run)),
            selection: None,
            payloads_read: None,
            error: OnceLock::new(),
            known: Vec::new(),
        }
    }

    /// Uses what indexes tell of the rows.
    pub(super) fn knowing(mut self, selection: Option<Selection>) -> Matcher<'a> {
        self.selection = selection;
        self
    }

    /// Counts the payloads that are read.
    pub(super) fn counting(mut self, payloads_read: &'a AtomicU64) -> Matcher<'a> {
        self.payloads_read = Some(payloads_read);
        self
    }

    /// What indexes tell of the rows.
    pub(super) fn selection(&self) -> Option<&Selection> {
        self.selection.as_ref()
    }

    /// The live rows from `first` on that may match, ascending; each must still be checked.
    pub(super) fn candidates(&self, dead: &'a Tombstones, first: u32) -> Box<dyn Iterator<Item = u32> + 'a> {
        match &self.selection {
            Some(selection) => Box::new(selection.rows().into_range(first..)),
            None => Box::new((first..self.run.rows()).filter(|row| !dead.contains(*row))),
        }
    }

    /// How many live rows match.
    pub(super) fn count(&self, dead: &Tombstones) -> Result<u64> {
        let check = |count: u64, row: u32| Ok(count + u64::from(self.check(row)?));
        match &self.selection {
            Some(selection) => selection.open().iter().try_fold(selection.sure().len(), check),
            None => (0..self.run.rows()).filter(|row| !dead.contains(*row)).try_fold(0, check),
        }
    }

    /// Remembers what was decided: for searches that ask for a row more than once.
    pub(super) fn remember(mut self) -> Matcher<'a> {
        let is_decided = self.selection.as_ref().is_some_and(|selection| selection.open().is_empty());
        if self.needs_payload && !is_decided {
            self.known.resize_with(self.run.rows() as usize, AtomicU8::default);
        }
        self
    }

    /// Whether a row matches; `Corrupt` when its payload cannot be read.
    pub(super) fn check(&self, row: u32) -> Result<bool> {
        let Some(filter) = self.filter else { return Ok(true) };
        if let Some(decided) = self.selection.as_ref().and_then(|selection| selection.decides(row)) {
            return Ok(decided);
        }
        if let Some(read) = self.payloads_read.filter(|_| self.needs_payload) {
            read.fetch_add(1, Ordering::Relaxed);
        }
        let fields = if self.needs_payload { parse_fields(self.run.payload(row))? } else { Fields::new() };
        let has_vector = |name: &str| {
            let ordinal = self.layout.ordinal(name);
            ordinal.is_some_and(|ordinal| self.run.vectors(ordinal).present.contains(row))
        };
        let is_unknown = Cell::new(false);
        let in_clusters = |asked: &InClusters| {
            let known = self.clusters.iter().find(|known| asked.of == ClusteringName::Map(known.map()));
            match known {
                Some(known) => known.cluster(row).is_some_and(|cluster| asked.has(cluster)),
                None => {
                    is_unknown.set(true);
                    false
                }
            }
        };
        let matches = filter.matches_with(self.run.ids().get(row), &fields, &has_vector, &in_clusters);
        match is_unknown.get() {
            // The read made sure of them when it began: the collection's clustering has changed since.
            true => Err(Error::Unavailable("the clusters of the collection have just changed: try again".into())),
            false => Ok(matches),
        }
    }

    /// [`Matcher::check`] as a predicate: an error counts as no match and is kept.
    pub(super) fn accepts(&self, row: u32) -> bool {
        if self.filter.is_none() {
            return true;
        }
        let known = self.known.get(row as usize);
        match known.map(|known| known.load(Ordering::Relaxed)) {
            Some(1) => return false,
            Some(2) => return true,
            Some(_) | None => {}
        }
        let matches = self.check(row).unwrap_or_else(|error| {
            let _ = self.error.set(error);
            false
        });
        if let Some(known) = known {
            known.store(1 + u8::from(matches), Ordering::Relaxed);
        }
        matches
    }

    /// The error of an earlier [`Matcher::accepts`], if there was one.
    pub(super) fn finish(self) -> Result<()> {
        self.error.into_inner().map_or(Ok(()), Err)
    }
}
