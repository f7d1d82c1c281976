//! The durable state, and how it is replaced: one manifest after the other, under one lock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use vicinal_common::error::{Error, Result};
use vicinal_common::publish::{Feed, MapRange};

use super::Shard;
use super::entry::LogMark;
use super::payload::SegmentField;
use super::tuning::Wanted;
use super::view::{LiveSegment, SegmentIndex};
use crate::manifest::{IndexRecord, Manifest, RequestRecord, SegmentRecord, StoreError};
use crate::segment::{Run, Segment, Tombstones};

/// A segment of the durable state.
#[derive(Clone)]
pub(super) struct CommittedSegment {
    pub(super) number: u64,
    pub(super) segment: Arc<Segment>,
    pub(super) indexes: Vec<Option<Arc<SegmentIndex>>>,
    /// Its payload indexes.
    pub(super) fields: Vec<Arc<SegmentField>>,
    /// Rows that were dead at the durable position. What died later is only in the view, because a restart replays
    /// the log from that position and must see exactly this state.
    pub(super) dead: Tombstones,
}

/// What the manifest on disk says.
#[derive(Clone, Default)]
pub(super) struct Committed {
    pub(super) mark: Option<LogMark>,
    pub(super) membership: Option<(LogMark, Bytes)>,
    pub(super) requests: Vec<RequestRecord>,
    /// What is wanted beside the points.
    pub(super) wanted: Arc<Wanted>,
    pub(super) segments: Vec<CommittedSegment>,
    /// What a home shard publishes.
    pub(super) feed: Arc<Feed>,
    /// The maps by which a search shard may be searched.
    pub(super) maps: MapRange,
}

/// Why a step of background work did not succeed.
#[derive(Debug)]
pub(super) enum StepError {
    /// No space. Everything is as before; the step can be repeated.
    DiskFull(io::Error),
    /// The shard is being closed.
    Closed,
    /// The shard cannot go on.
    Fatal(Error),
}

impl From<io::Error> for StepError {
    fn from(error: io::Error) -> StepError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StepError::DiskFull(error),
            _ => StepError::Fatal(Error::Internal(format!("disk: {error}"))),
        }
    }
}

impl From<StepError> for Error {
    fn from(error: StepError) -> Error {
        match error {
            StepError::DiskFull(error) => Error::Unavailable(format!("disk is full: {error}")),
            StepError::Closed => Error::Unavailable("the shard is closed".into()),
            StepError::Fatal(error) => error,
        }
    }
}

impl CommittedSegment {
    pub(super) fn of(live: &LiveSegment) -> CommittedSegment {
        CommittedSegment {
            number: live.number,
            segment: Arc::clone(&live.segment),
            indexes: live.indexes.clone(),
            fields: live.fields.clone(),
            dead: live.dead.clone(),
        }
    }

    /// The same segment for a view that holds nothing beyond the durable position.
    pub(super) fn live(&self) -> LiveSegment {
        LiveSegment {
            number: self.number,
            segment: Arc::clone(&self.segment),
            indexes: self.indexes.clone(),
            fields: self.fields.clone(),
            dead: self.dead.clone(),
        }
    }

    fn record(&self) -> SegmentRecord {
        let info = self.segment.file().info();
        let indexes = self.indexes.iter().enumerate().filter_map(|(ordinal, index)| {
            let index = index.as_ref()?;
            let info = index.file.info();
            Some(IndexRecord { ordinal: ordinal as u32, number: index.number, bytes: info.bytes, crc: info.crc })
        });
        SegmentRecord {
            number: self.number,
            rows: self.segment.rows(),
            bytes: info.bytes,
            crc: info.crc,
            indexes: indexes.collect(),
            payload_indexes: self.fields.iter().map(|field| field.record()).collect(),
            dead: SegmentRecord::encode_dead(&self.dead),
        }
    }

    /// Lets all its files go once nobody reads them.
    pub(super) fn mark_obsolete(&self) {
        self.segment.file().mark_obsolete();
        for index in self.indexes.iter().flatten() {
            index.file.mark_obsolete();
        }
        self.fields.iter().for_each(|field| field.file.mark_obsolete());
    }
}

impl Shard {
    /// The manifest of a state.
    pub(super) fn manifest_of(&self, state: &Committed) -> Manifest {
        Manifest {
            spec_digest: self.spec_digest,
            mark: state.mark.clone(),
            membership: state.membership.clone(),
            requests: state.requests.clone(),
            tuning: state.wanted.tuning.clone(),
            segments: state.segments.iter().map(CommittedSegment::record).collect(),
            next_file: self.next_file.load(Ordering::Acquire),
            feed: Feed::clone(&state.feed),
            maps: state.maps,
        }
    }

    /// Commits a state. When this returns it is what a restart finds. The commit lock must be held.
    pub(super) fn store_manifest(&self, state: &Committed) -> Result<(), StepError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StepError::Closed);
        }
        let bytes = self.manifest_of(state).encode().map_err(StepError::Fatal)?;
        match Manifest::store(&*self.env.disk, &self.dir, &bytes) {
            Ok(()) => {}
            Err(StoreError::NotStored(error)) => return Err(StepError::from(error)),
            Err(StoreError::Unknown(error)) => {
                let text = format!("it is not known which manifest is on disk, restart the node: {error}");
                return Err(StepError::Fatal(Error::Internal(text)));
            }
        }
        self.durable.lock().clone_from(&state.mark);
        Ok(())
    }

    /// Gives up a segment that no manifest names because storing failed. After a fatal failure it is left alone: the
    /// new manifest may be on disk after all.
    pub(super) fn drop_uncommitted(&self, segment: Option<LiveSegment>, error: &StepError) {
        match (segment, error) {
            (Some(segment), StepError::DiskFull(_) | StepError::Closed) => {
                segment.files().for_each(crate::segment::StoredFile::mark_obsolete);
            }
            (Some(_), StepError::Fatal(_)) | (None, _) => {}
        }
    }
}
