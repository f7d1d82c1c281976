//! Filters on the runs of a view: what indexes tell first, payloads for the rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vicinal_common::api::PayloadStatus;
use vicinal_common::error::Result;
use vicinal_common::filter::Filter;

use super::matching::Matcher;
use super::view::{LiveRun, LiveSegment, View};
use crate::payload_index::{FieldIndex, Selection, is_of_use, select};
use crate::segment::{Run, Source};

/// Rows of fresh runs that are indexed while the state of the shard is put together, at most.
const INDEXED_FOR_STATS_MAX: u32 = 4_096;

/// How many payloads of a run would be read if no index helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// All: then a fresh run may as well be indexed.
    Every,
    /// Few.
    Some,
}

/// A run of a view.
#[derive(Clone, Copy)]
pub(super) enum RunRef<'a> {
    Fresh(&'a LiveRun),
    Segment(&'a LiveSegment),
}

impl<'a> RunRef<'a> {
    pub(super) fn source(self) -> Source<'a> {
        match self {
            RunRef::Fresh(fresh) => fresh.source(),
            RunRef::Segment(segment) => segment.source(),
        }
    }
}

impl View {
    /// All runs, newest first.
    pub(super) fn runs(&self) -> impl Iterator<Item = RunRef<'_>> {
        let fresh = self.fresh.iter().rev().map(RunRef::Fresh);
        fresh.chain(self.segments.iter().rev().map(RunRef::Segment))
    }

    /// The rows of a run that match a filter, as far as indexes, ids and vectors tell. `None` when they tell nothing: then
    /// each row has to be tested.
    pub(super) fn select(&self, run: RunRef<'_>, filter: &Filter, reading: Reading) -> Result<Option<Selection>> {
        let indexes = match is_of_use(filter, &self.wanted.fields) {
            true => self.indexes(run, reading)?,
            false => Vec::new(),
        };
        Ok(select(filter, run.source(), &self.layout, &indexes))
    }

    fn indexes(&self, run: RunRef<'_>, reading: Reading) -> Result<Vec<Arc<FieldIndex>>> {
        match run {
            RunRef::Segment(segment) => Ok(segment.fields.iter().map(|field| Arc::clone(&field.index)).collect()),
            RunRef::Fresh(_) if self.wanted.fields.is_empty() => Ok(Vec::new()),
            RunRef::Fresh(fresh) => {
                if let Some(ready) = fresh.fields.ready(&self.wanted) {
                    return Ok(ready);
                }
                let read = fresh.fields.payloads_read.load(Ordering::Relaxed);
                match reading == Reading::Every || read >= u64::from(fresh.run.rows()) {
                    true => fresh.fields.build(&fresh.run, &self.wanted),
                    false => Ok(Vec::new()),
                }
            }
        }
    }

    /// A filter, or none, on one run, with what is known of its rows.
    pub(super) fn matcher<'a>(
        &'a self,
        run: RunRef<'a>,
        filter: Option<&'a Filter>,
        reading: Reading,
    ) -> Result<Matcher<'a>> {
        let mut matcher = Matcher::of(filter, run.source().run, &self.layout);
        if let Some(filter) = filter {
            matcher = matcher.knowing(self.select(run, filter, reading)?);
        }
        Ok(match run {
            RunRef::Fresh(fresh) => matcher.counting(&fresh.fields.payloads_read),
            RunRef::Segment(_) => matcher,
        })
    }

    /// Points in each index. Fresh rows that are not indexed yet are, up to a bound: state is asked for often, so they
    /// all are before long.
    pub(super) fn payload_stats(&self) -> PayloadStatus {
        let mut stats = PayloadStatus::default();
        if self.wanted.fields.is_empty() {
            return stats;
        }
        let mut left = INDEXED_FOR_STATS_MAX;
        let mut points = vec![0u64; self.wanted.fields.len()];
        for run in self.runs() {
            let Source { run: rows, dead } = run.source();
            let is_affordable = matches!(run, RunRef::Fresh(fresh) if fresh.fields.ready(&self.wanted).is_none())
                && rows.rows() <= left;
            left -= if is_affordable { rows.rows() } else { 0 };
            let reading = if is_affordable { Reading::Every } else { Reading::Some };
            // A payload that cannot be read is reported where somebody reads it.
            let indexes = self.indexes(run, reading).unwrap_or_default();
            for (field, points) in self.wanted.fields.iter().zip(&mut points) {
                let Some(index) = indexes.iter().find(|index| index.field() == field) else {
                    stats.missing += u64::from(matches!(run, RunRef::Segment(_)));
                    continue;
                };
                let keyed = index.keyed();
                *points += match keyed.len() == u64::from(rows.rows()) {
                    true => keyed.len() - u64::from(dead.count()),
                    false => keyed.len() - dead.iter().filter(|row| keyed.contains(*row)).count() as u64,
                };
            }
        }
        let names = self.wanted.fields.iter().map(|field| field.path.to_string());
        stats.points = names.zip(points).collect();
        stats
    }
}
