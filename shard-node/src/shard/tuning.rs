//! What a shard shall have beside its points: graphs that are opened again where they shall be, or dropped.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{NodeId, ShardId};
use vicinal_common::publish::ShardRole;
use vicinal_common::tuning::Tuning;
use vicinal_index::hnsw::HnswIndex;
use vicinal_index::{Residency, Rows};

use super::Shard;
use super::clusters::WantedClusters;
use super::commit::{Committed, CommittedSegment, StepError};
use super::environment::MapSource;
use super::view::{SegmentIndex, View};
use crate::optimizer::Policy;
use crate::payload_index::{Field, FieldIndex};
use crate::segment::{Layout, Run};

/// What is wanted, as the metadata has it and as it is used.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) tuning: Tuning,
    /// Its payload indexes, with paths that are read.
    pub(super) fields: Vec<Field>,
    /// Where open graphs are, by ordinal of the vector.
    residency: Vec<Residency>,
    /// Whether there shall be no graph, by ordinal of the vector.
    unindexed: Vec<bool>,
    /// What rows are assigned to clusters by.
    pub(super) clusters: Option<WantedClusters>,
}

impl Wanted {
    fn new(tuning: Tuning, role: ShardRole, layout: &Layout, maps: &Arc<dyn MapSource>) -> Wanted {
        let residency = |name: &str| match tuning.graphs.is_on_disk(name) {
            true => Residency::Mapped,
            false => Residency::Memory,
        };
        let residency = layout.vectors.iter().map(|vector| residency(&vector.name)).collect();
        // Search shards have the graphs instead.
        let is_unindexed = |name: &String| role == ShardRole::Home && tuning.unindexed.contains(name);
        let unindexed = layout.vectors.iter().map(|vector| is_unindexed(&vector.name)).collect();
        let clusters = WantedClusters::of(&tuning, layout, maps);
        Wanted { fields: Field::list(&tuning.payload_indexes), residency, unindexed, clusters, tuning }
    }

    /// The payload indexes that are not among `built`.
    pub(super) fn missing<'a>(&self, built: impl IntoIterator<Item = &'a Arc<FieldIndex>>) -> Vec<Field> {
        let built: Vec<&Field> = built.into_iter().map(|index| index.field()).collect();
        self.fields.iter().filter(|field| !built.contains(field)).cloned().collect()
    }

    /// Where the graph of a vector is, once it is open.
    pub(super) fn residency(&self, ordinal: usize) -> Residency {
        self.residency.get(ordinal).copied().unwrap_or_default()
    }

    /// Whether a vector may have graphs at all.
    pub(super) fn wants_graph(&self, ordinal: usize) -> bool {
        !self.unindexed.get(ordinal).copied().unwrap_or_default()
    }
}

impl View {
    /// What is wanted beside the points, as metadata said last.
    pub fn tuning(&self) -> &Tuning {
        &self.wanted.tuning
    }
}

/// A graph that is open elsewhere than it shall be.
struct Misplaced {
    segment: CommittedSegment,
    ordinal: usize,
    index: Arc<SegmentIndex>,
    wanted: Residency,
}

impl Committed {
    /// Takes out the graphs that are not wanted.
    fn drop_unwanted_graphs(&mut self) -> Vec<Arc<SegmentIndex>> {
        let wanted = &self.wanted;
        let graphs = self.segments.iter_mut().flat_map(|segment| segment.indexes.iter_mut().enumerate());
        graphs.filter(|(ordinal, _)| !wanted.wants_graph(*ordinal)).filter_map(|(_, graph)| graph.take()).collect()
    }

    fn has_unwanted_graphs(&self) -> bool {
        let mut graphs = self.segments.iter().flat_map(|segment| segment.indexes.iter().enumerate());
        graphs.any(|(ordinal, graph)| graph.is_some() && !self.wanted.wants_graph(ordinal))
    }
}

impl Shard {
    /// What is wanted by a tuning.
    pub(super) fn wanted(&self, tuning: Tuning) -> Wanted {
        Wanted::new(tuning, self.spec.role, &self.layout, &self.env.maps)
    }

    /// When segments are merged and get graphs.
    pub(super) fn policy(&self, wanted: &Wanted) -> Policy {
        let mut policy = self.policy.clone();
        for (ordinal, from) in policy.index_from_bytes.iter_mut().enumerate() {
            *from = from.filter(|_| wanted.wants_graph(ordinal));
        }
        policy
    }

    /// Makes a tuning the one to follow, durably. In the background missing payload indexes and graphs are built, graphs
    /// opened again where they shall be, and dropped that are not wanted; payload indexes that are not wanted go at once. An
    /// older revision than the present one changes nothing. `Unavailable` when the disk is full.
    pub fn tune(&self, tuning: &Tuning) -> Result<()> {
        let mut committed = self.commit.lock();
        self.check_failed()?;
        if tuning.revision <= committed.wanted.tuning.revision {
            return Ok(());
        }
        let wanted = Arc::new(self.wanted(tuning.clone()));
        let mut next = Committed { wanted, ..committed.clone() };
        let obsolete = next.drop_unwanted();
        if let Err(error) = self.store_manifest(&next) {
            if let StepError::Fatal(error) = &error {
                self.fail(format!("cannot note which indexes are wanted: {error}"));
            }
            return Err(error.into());
        }
        *committed = next;
        self.show_indexes(&committed);
        obsolete.iter().for_each(|field| field.file.mark_obsolete());
        self.forget_clusters();
        drop(committed);
        self.cancel_unwanted_build();
        self.schedule_opening();
        self.schedule_optimizer(Duration::ZERO);
        // Graphs may be wanted again of what was not worth a segment of its own before.
        let view = self.view.load();
        if self.is_worth_sealing(&view) {
            self.schedule_idle_flush(view.applied);
        }
        Ok(())
    }

    /// The nodes that hold a search shard of the collection, as far as this replica has been told.
    pub(crate) fn nodes_of(&self, search: ShardId) -> Vec<NodeId> {
        self.view().wanted.tuning.search_shards.get(&search).cloned().unwrap_or_default()
    }

    /// The published view uses the indexes of the durable state, of vectors and of payloads. The commit lock is held.
    pub(super) fn show_indexes(&self, committed: &Committed) {
        let writer = self.writer.lock();
        let mut view = View::clone(&self.view.load());
        view.wanted = Arc::clone(&committed.wanted);
        for live in &mut view.segments {
            if let Some(segment) = committed.segments.iter().find(|segment| segment.number == live.number) {
                live.indexes.clone_from(&segment.indexes);
                live.fields.clone_from(&segment.fields);
            }
        }
        self.view.store(Arc::new(view));
        drop(writer);
    }

    /// Whether a graph of a durable state is elsewhere than it shall be, or is not wanted.
    pub(super) fn is_misplaced(&self, committed: &Committed) -> bool {
        committed.has_unwanted_graphs() || misplaced(committed).is_some()
    }

    /// Drops all graphs at once that are not wanted. Searches that use them go on; with the last of them memory and files are
    /// free. Returns false when there is none. `opening` is held.
    pub(super) fn drop_graphs_once(&self) -> Result<bool, StepError> {
        self.check_failed().map_err(StepError::Fatal)?;
        let mut committed = self.commit.lock();
        if !committed.has_unwanted_graphs() {
            return Ok(false);
        }
        let mut next = committed.clone();
        let dropped = next.drop_unwanted_graphs();
        if let Err(error) = self.store_manifest(&next) {
            if let StepError::Fatal(error) = &error {
                self.fail(format!("cannot drop indexes that are not wanted: {error}"));
            }
            return Err(error);
        }
        *committed = next;
        self.show_indexes(&committed);
        dropped.iter().for_each(|index| index.file.mark_obsolete());
        // Scans take longer than searches of graphs: they shall not run in place because those were short.
        self.paces.search.forget();
        Ok(true)
    }

    /// Opens one graph again, from its file, that is elsewhere than it shall be. Returns false when there is none.
    /// Searches use the old one until they get a view with the new one; the file is the same. `opening` is held.
    pub(super) fn reopen_once(&self) -> Result<bool, StepError> {
        self.check_failed().map_err(StepError::Fatal)?;
        let Some(Misplaced { segment, ordinal, index, wanted }) = misplaced(&self.commit.lock()) else {
            return Ok(false);
        };
        let rows = segment.segment.vectors(ordinal).rows;
        let hnsw = self.open_graph(index.file.path(), rows, wanted);
        let hnsw = hnsw.inspect_err(|error| {
            if let StepError::Fatal(error) = error {
                self.fail(format!("cannot open an index again: {error}"));
            }
        })?;
        let (number, file) = (index.number, Arc::clone(&index.file));
        let reopened = Arc::new(SegmentIndex { hnsw, number, residency: wanted, file });

        let mut committed = self.commit.lock();
        let mut open = committed.segments.iter_mut().flat_map(|segment| &mut segment.indexes).flatten();
        // Not there any more after a merge or a snapshot. Wanted elsewhere again: the next step sees that.
        if let Some(place) = open.find(|known| Arc::ptr_eq(known, &index)) {
            *place = reopened;
            self.show_indexes(&committed);
        }
        Ok(true)
    }

    /// Maps and verifies the file of a graph.
    pub(super) fn open_graph(&self, path: &Path, rows: Rows<'_>, residency: Residency) -> Result<HnswIndex, StepError> {
        let mapping = self.env.disk.map(path)?;
        HnswIndex::open(mapping, rows, residency).map_err(|error| match error {
            // No memory. Like a full disk: tried again later, and searches go on meanwhile.
            Error::Unavailable(text) => StepError::DiskFull(io::Error::other(text)),
            other => StepError::Fatal(other),
        })
    }
}

fn misplaced(committed: &Committed) -> Option<Misplaced> {
    committed.segments.iter().find_map(|segment| {
        let open = segment.indexes.iter().enumerate();
        let mut open = open.filter_map(|(ordinal, index)| Some((ordinal, index.as_ref()?)));
        let (ordinal, index) = open.find(|(ordinal, index)| index.residency != committed.wanted.residency(*ordinal))?;
        let wanted = committed.wanted.residency(ordinal);
        Some(Misplaced { segment: segment.clone(), ordinal, index: Arc::clone(index), wanted })
    })
}
