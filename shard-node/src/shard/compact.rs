//! Merging segments and building their indexes, one step at a time. The commit lock is held only to commit, so sealing
//! never waits for a build.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::time::Instant;
use vicinal_common::api::BuildStatus;
use vicinal_common::error::Error;
use vicinal_common::exec;

use super::Shard;
use super::commit::{Committed, CommittedSegment, StepError};
use super::flush::translate;
use super::view::{LiveSegment, SegmentIndex, View};
use crate::optimizer::{Action, Policy, SegmentStats, VectorStats, keeps_index, next_action, wants_index};
use crate::segment::{Run, Segment, Source, StoredFile, Tombstones, write_whole};
use vicinal_index::hnsw::{BuildControl, BuildError, HnswIndex, HnswParams, Over};

/// A vector index that is being built.
pub(super) struct RunningBuild {
    segment: u64,
    ordinal: usize,
    rows: u64,
    done: Arc<AtomicU64>,
    started: Instant,
    waits_for_memory: bool,
    /// Ends it.
    cancel: Arc<AtomicBool>,
}

impl RunningBuild {
    /// What people are told.
    pub(super) fn status(&self, layout: &crate::segment::Layout) -> BuildStatus {
        BuildStatus {
            vector: layout.vectors[self.ordinal].name.clone(),
            segment: self.segment,
            rows: self.rows,
            rows_done: self.done.load(Ordering::Relaxed),
            seconds: self.started.elapsed().as_secs_f64(),
            waits_for_memory: self.waits_for_memory,
        }
    }
}

/// Memory that building the postings of one value takes.
const POSTING_BYTES: u64 = 12;

impl Shard {
    /// What the optimizer would do in a durable state.
    pub(super) fn next_action(&self, committed: &Committed) -> Action {
        let stats: Vec<SegmentStats> = committed.segments.iter().map(|segment| self.segment_stats(segment)).collect();
        next_action(&stats, &self.policy(&committed.wanted))
    }

    fn segment_stats(&self, segment: &CommittedSegment) -> SegmentStats {
        let vectors = self.layout.vectors.iter().enumerate().map(|(ordinal, vector)| VectorStats {
            bytes: segment.segment.vectors(ordinal).present.count() * vector.dim as u64 * 4,
            indexed: segment.indexes[ordinal].is_some(),
        });
        let wanted = Arc::clone(&self.view.load().wanted);
        SegmentStats {
            number: segment.number,
            rows: u64::from(segment.segment.rows()),
            dead: u64::from(segment.dead.count()),
            bytes: segment.segment.file().info().bytes,
            vectors: vectors.collect(),
            fields_missing: segment.missing(&wanted).len(),
            unassigned: wanted.clusters.as_ref().is_some_and(|clusters| clusters.is_due(&segment.segment)),
        }
    }

    /// Does what the optimizer wants next. Returns false when it wants nothing.
    pub(super) fn optimize_once(&self) -> Result<bool, StepError> {
        self.check_failed().map_err(StepError::Fatal)?;
        let action = self.next_action(&self.commit.lock());
        let result = match action {
            Action::Nothing => return Ok(false),
            Action::Merge(numbers) => self.merge(&numbers),
            Action::IndexPayload(segment) => self.index_payload(segment),
            Action::AssignClusters(segment) => self.assign_clusters(segment),
            Action::BuildIndex { segment, ordinal } => self.build_index(segment, ordinal),
        };
        if let Err(StepError::Fatal(error)) = &result {
            self.fail(format!("cannot merge or index segments: {error}"));
        }
        result.map(|()| true)
    }

    /// Writes one segment out of several, without the rows that are dead in the durable state.
    fn merge(&self, numbers: &[u64]) -> Result<(), StepError> {
        let inputs = self.committed_segments(numbers);
        let mut merged = self.in_background(|| self.write_merged(&inputs))?;

        let mut committed = self.commit.lock();
        if !holds_all(&committed, &inputs) {
            // A snapshot was installed meanwhile: these segments are gone.
            merged.iter().flat_map(LiveSegment::files).for_each(StoredFile::mark_obsolete);
            return Ok(());
        }
        if let Some(live) = &mut merged {
            // The set may have changed while the merge was running.
            live.fields.retain(|field| {
                let is_wanted = committed.wanted.fields.contains(field.index.field());
                if !is_wanted {
                    field.file.mark_obsolete();
                }
                is_wanted
            });
        }
        let mut next = Committed { segments: Vec::new(), ..committed.clone() };
        let mut dead = Tombstones::default();
        for segment in &committed.segments {
            let Some(input) = inputs.iter().find(|input| input.number == segment.number) else {
                next.segments.push(segment.clone());
                continue;
            };
            // Rows that a flush committed as dead while the merge was running.
            if let Some(merged) = &merged {
                dead.extend(translate(&*input.segment, &segment.dead, &input.dead, &*merged.segment));
            }
        }
        next.segments.extend(merged.as_ref().map(|merged| CommittedSegment { dead, ..CommittedSegment::of(merged) }));
        if let Err(error) = self.store_manifest(&next) {
            self.drop_uncommitted(merged, &error);
            return Err(error);
        }
        *committed = next;
        self.swap_merged(&inputs, merged);
        inputs.iter().for_each(CommittedSegment::mark_obsolete);
        drop(committed);
        // Its graphs were opened where they were to be while the merge was running, which may have changed.
        self.schedule_opening();
        Ok(())
    }

    /// Writes the segment that takes the place of `inputs`, with what reads of it need to be as fast as before.
    fn write_merged(&self, inputs: &[CommittedSegment]) -> Result<Option<LiveSegment>, StepError> {
        let sources: Vec<Source<'_>> =
            inputs.iter().map(|input| Source { run: &*input.segment, dead: &input.dead }).collect();
        self.check_room(inputs.iter().map(|input| input.segment.file().info().bytes).sum())?;
        // The order of the rows is held in memory, the rows are not; of sparse vectors the postings are, one name at a time.
        let rows: u64 = sources.iter().map(|source| u64::from(source.run.rows())).sum();
        let values = |ordinal: usize| -> u64 {
            let lists = sources.iter().filter_map(|source| source.run.vectors(ordinal).lists);
            lists.filter(|lists| lists.indices.is_some()).map(|lists| lists.values.len() as u64).sum()
        };
        let postings = (0..self.layout.vectors.len()).map(values).max().unwrap_or(0) * POSTING_BYTES;
        let reserved = self.env.builder.reserve(rows * 8 + postings);
        let mut merged = self.write_new_segment(&sources)?;
        drop(reserved);
        if let Some(live) = &mut merged {
            // A filter would read every payload, and a search every vector, until these are there.
            let result = self.write_fields_of(live).and_then(|()| self.write_kept_indexes(inputs, live));
            if let Err(error) = result {
                self.drop_uncommitted(merged, &error);
                return Err(error);
            }
        }
        Ok(merged)
    }

    fn write_fields_of(&self, live: &mut LiveSegment) -> Result<(), StepError> {
        let wanted = Arc::clone(&self.commit.lock().wanted);
        live.fields = self.write_fields(live.number, &live.segment, &wanted.fields)?;
        Ok(())
    }

    /// Builds the graphs that most rows of a merge would lose.
    fn write_kept_indexes(&self, inputs: &[CommittedSegment], live: &mut LiveSegment) -> Result<(), StepError> {
        let policy = self.policy(&self.view.load().wanted);
        for ordinal in 0..self.layout.vectors.len() {
            let rows = live.segment.vectors(ordinal).present.count();
            let indexed = inputs.iter().filter(|input| input.indexes[ordinal].is_some());
            let alive = |input: &CommittedSegment| {
                let present = input.segment.vectors(ordinal).present.count();
                present.saturating_sub(u64::from(input.dead.count()))
            };
            let rows_indexed = indexed.map(alive).sum();
            let bytes = rows * self.layout.vectors[ordinal].dim as u64 * 4;
            if !keeps_index(rows_indexed, rows) || !wants_index(&policy, ordinal, bytes) {
                continue;
            }
            match self.write_index(live.number, &live.segment, ordinal) {
                Ok(index) => live.indexes[ordinal] = index.map(Arc::new),
                // The merge gives room back: it is done without, and the graph is built when there is room again.
                Err(StepError::DiskFull(error)) => {
                    tracing::warn!(shard = %self.spec.shard, %error, "no room for the index of a merged segment yet");
                }
                Err(error @ (StepError::Closed | StepError::Fatal(_))) => return Err(error),
            }
        }
        Ok(())
    }

    /// Runs the long part of a step, which holds no lock, so that searches get the processors when they need them.
    pub(super) fn in_background<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, StepError> + Send,
    ) -> Result<T, StepError> {
        // No thread is like no room: tried again later, and everything else goes on meanwhile.
        exec::in_background("optimize", work).unwrap_or_else(|error| Err(StepError::DiskFull(error)))
    }

    /// The published view reads the merged segment instead of the inputs. The commit lock is held.
    fn swap_merged(&self, inputs: &[CommittedSegment], merged: Option<LiveSegment>) {
        let writer = self.writer.lock();
        let mut view = View::clone(&self.view.load());
        let (old, kept): (Vec<LiveSegment>, Vec<LiveSegment>) =
            view.segments.into_iter().partition(|live| inputs.iter().any(|input| input.number == live.number));
        view.segments = kept;
        if let Some(mut merged) = merged {
            for live in &old {
                if let Some(input) = inputs.iter().find(|input| input.number == live.number) {
                    merged.dead.extend(translate(&*live.segment, &live.dead, &input.dead, &*merged.segment));
                }
            }
            view.segments.push(merged);
        }
        self.view.store(Arc::new(view));
        drop(writer);
    }

    /// Builds the index of one vector of a segment, beside the segment's file.
    fn build_index(&self, number: u64, ordinal: usize) -> Result<(), StepError> {
        let Some(input) = self.committed_segments(&[number]).pop() else { return Ok(()) };
        let built = self.in_background(|| self.write_index(number, &input.segment, ordinal))?;
        let Some(index) = built.map(Arc::new) else { return Ok(()) };

        let mut committed = self.commit.lock();
        if !holds_all(&committed, std::slice::from_ref(&input)) {
            index.file.mark_obsolete();
            return Ok(());
        }
        let mut next = committed.clone();
        for segment in next.segments.iter_mut().filter(|segment| segment.number == number) {
            segment.indexes[ordinal] = Some(Arc::clone(&index));
        }
        if let Err(error) = self.store_manifest(&next) {
            if !matches!(error, StepError::Fatal(_)) {
                index.file.mark_obsolete();
            }
            return Err(error);
        }
        *committed = next;
        self.show_indexes(&committed);
        drop(committed);
        // It was opened where it was to be at the end of the build. That may have changed, or that it is wanted at all.
        self.schedule_opening();
        Ok(())
    }

    /// Builds, writes and maps an index. `None` when it is not wanted any more before it is built.
    fn write_index(&self, number: u64, segment: &Segment, ordinal: usize) -> Result<Option<SegmentIndex>, StepError> {
        let vector = &self.layout.vectors[ordinal];
        let config = vector.hnsw.unwrap_or_default();
        let (m, ef_construction) = (config.m, config.ef_construction);
        let params = HnswParams { m, ef_construction, seed: number, over: Over::best_for(vector.dim) };
        let rows = segment.vectors(ordinal).rows;
        self.check_room(params.file_bytes(rows.len(), rows.dim))?;
        let done = Arc::new(AtomicU64::new(0));
        let (cancel, _running) = self.announce(number, ordinal, rows.len() as u64, &done);
        let _reserved = self.env.builder.reserve(params.build_bytes(rows.len(), rows.dim));
        if let Some(build) = &mut *self.build.lock() {
            build.waits_for_memory = false;
        }
        let control =
            BuildControl { cancel: &cancel, done: &done, threads: self.env.builder.options().threads_per_build.max(1) };
        let built = match HnswIndex::build(rows, vector.metric, params, control) {
            Ok(built) => built,
            Err(BuildError::Cancelled) if self.closed.load(Ordering::Acquire) => return Err(StepError::Closed),
            Err(BuildError::Cancelled) => return Ok(None),
            // Like a full disk: tried again later, and searches go on meanwhile.
            Err(error @ BuildError::Memory(_)) => return Err(StepError::DiskFull(std::io::Error::other(error))),
            Err(error @ (BuildError::Params { .. } | BuildError::TooManyRows { .. } | BuildError::Threads(_))) => {
                return Err(StepError::Fatal(Error::from(error)));
            }
        };
        let expected = params.file_bytes(rows.len(), rows.dim);
        let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0) + 4_096);
        built.encode(&mut bytes);
        drop(built);

        let own = self.next_file.fetch_add(1, Ordering::AcqRel);
        let path = self.dir.join(super::files::index_name(number, own));
        let disk = &self.env.disk;
        let info = write_whole(&**disk, &path, &bytes)?;
        drop(bytes);
        let file = Arc::new(StoredFile::new(Arc::clone(disk), path.clone(), info));
        let residency = self.view.load().wanted.residency(ordinal);
        let synced = disk.sync_dir(&self.dir).map_err(StepError::from);
        match synced.and_then(|()| self.open_graph(&path, rows, residency)) {
            Ok(hnsw) => Ok(Some(SegmentIndex { hnsw, number: own, residency, file })),
            Err(error) => {
                file.mark_obsolete();
                Err(error)
            }
        }
    }

    /// Makes a build visible until the guard is dropped. Returns by what it is cancelled, too.
    fn announce(&self, segment: u64, ordinal: usize, rows: u64, done: &Arc<AtomicU64>) -> (Arc<AtomicBool>, impl Drop) {
        struct Running<'a>(&'a Shard);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                *self.0.build.lock() = None;
            }
        }
        let (done, cancel, started) = (Arc::clone(done), Arc::<AtomicBool>::default(), Instant::now());
        let build =
            RunningBuild { segment, ordinal, rows, done, started, waits_for_memory: true, cancel: Arc::clone(&cancel) };
        *self.build.lock() = Some(build);
        // After it can be seen: whoever changes what is wanted before that is seen here, and afterwards sees it there.
        self.cancel_unwanted_build();
        (cancel, Running(self))
    }

    /// Ends a build that is under way and whose graph is not wanted, or everything is to end.
    pub(super) fn cancel_unwanted_build(&self) {
        let wanted = Arc::clone(&self.view.load().wanted);
        let is_closed = self.closed.load(Ordering::Acquire);
        if let Some(build) = &*self.build.lock()
            && (is_closed || !wanted.wants_graph(build.ordinal))
        {
            build.cancel.store(true, Ordering::Release);
        }
    }

    fn committed_segments(&self, numbers: &[u64]) -> Vec<CommittedSegment> {
        let committed = self.commit.lock();
        committed.segments.iter().filter(|segment| numbers.contains(&segment.number)).cloned().collect()
    }

    /// The policy of a collection, of which the tuning may not want all graphs.
    pub(super) fn policy_of(
        options: &super::ShardOptions,
        schema: &vicinal_common::collection::CollectionSchema,
        layout: &crate::segment::Layout,
    ) -> Policy {
        let threshold = schema.indexing_threshold_kib.saturating_mul(1_024);
        let from =
            |vector: &crate::segment::VectorLayout| (threshold > 0 && vector.hnsw.is_some()).then_some(threshold);
        Policy {
            segments_target: options.segments_target,
            segment_bytes_max: options.segment_bytes_max,
            index_from_bytes: layout.vectors.iter().map(from).collect(),
        }
    }
}

/// Whether the durable state still has these very segments.
fn holds_all(committed: &Committed, inputs: &[CommittedSegment]) -> bool {
    let has = |input: &CommittedSegment| committed.segments.iter().any(|s| Arc::ptr_eq(&s.segment, &input.segment));
    inputs.iter().all(has)
}
