//! Sealing: the fresh part becomes a segment, and the manifest commits the position it was captured at.
//!
//! The commit lock is held from the capture to the swap, so that the list of segments cannot change in between. Writes
//! go on meanwhile: they add runs after the frozen ones, and tombstones everywhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use vicinal_common::error::{Error, Result};

use super::Shard;
use super::commit::{Committed, CommittedSegment, StepError};
use super::entry::LogMark;
use super::view::{LiveSegment, View};
use crate::manifest::RequestRecord;
use crate::segment::{Run, Segment, Source, StoredFile, Tombstones, live_rows, write_segment};

/// The state at one position, as it will be committed.
struct Capture {
    view: Arc<View>,
    mark: LogMark,
    membership: Option<(LogMark, Bytes)>,
    requests: Vec<RequestRecord>,
}

impl Shard {
    /// Seals the fresh part and commits the position now; afterwards everything applied before the call is durable.
    /// `Unavailable` when the disk is full, which can be tried again.
    pub fn flush_blocking(&self) -> Result<()> {
        self.flush().map(|_| ()).map_err(Error::from)
    }

    /// Seals once. Returns whether there was anything to commit. Sets the health of the shard by what happened.
    pub(super) fn flush(&self) -> Result<bool, StepError> {
        let result = self.flush_locked();
        match &result {
            Ok(Some(mark)) => {
                self.set_read_only(None);
                self.tell_durable(mark);
            }
            Ok(None) => self.set_read_only(None),
            Err(StepError::DiskFull(error)) => self.set_read_only(Some(format!(
                "disk is full: shard {} cannot store its newest points: {error}; free some space",
                self.spec.shard
            ))),
            Err(StepError::Fatal(error)) => self.fail(format!("cannot seal the newest points: {error}")),
            Err(StepError::Closed) => {}
        }
        result.map(|mark| mark.is_some())
    }

    fn flush_locked(&self) -> Result<Option<LogMark>, StepError> {
        let mut committed = self.commit.lock();
        self.check_failed().map_err(StepError::Fatal)?;
        if self.closed.load(Ordering::Acquire) {
            return Err(StepError::Closed);
        }
        self.flush_requested.store(false, Ordering::Release);
        let Some(capture) = self.capture(&committed)? else { return Ok(None) };
        let result = self.seal(&mut committed, &capture);
        if result.is_err() {
            // The runs stay searchable and are captured again by the next attempt.
            self.writer.lock().frozen = 0;
        }
        result.map(|()| Some(capture.mark))
    }

    /// Freezes the fresh runs; `None` when the manifest holds everything already.
    fn capture(&self, committed: &Committed) -> Result<Option<Capture>, StepError> {
        let mut writer = self.writer.lock();
        let view = self.view.load_full();
        let Some(mark) = writer.mark.clone().filter(|mark| committed.mark.as_ref() != Some(mark)) else {
            return Ok(None);
        };
        if view.applied != mark.index {
            let text = format!("shard {} is at {} but shows {}", self.spec.shard, mark.index, view.applied);
            return Err(StepError::Fatal(Error::Internal(text)));
        }
        writer.frozen = view.fresh.len();
        let (membership, requests) = (writer.membership.clone(), writer.requests.records());
        Ok(Some(Capture { view, mark, membership, requests }))
    }

    fn seal(&self, committed: &mut Committed, capture: &Capture) -> Result<(), StepError> {
        let sources: Vec<Source<'_>> = capture.view.fresh.iter().map(|fresh| fresh.source()).collect();
        let sealed = self.write_new_segment(&sources)?;

        // The lists are equal: segments change only under the commit lock.
        let pairs = committed.segments.iter().zip(&capture.view.segments);
        let mut segments: Vec<CommittedSegment> =
            pairs.map(|(segment, live)| CommittedSegment { dead: live.dead.clone(), ..segment.clone() }).collect();
        segments.extend(sealed.as_ref().map(CommittedSegment::of));
        let next = Committed {
            mark: Some(capture.mark.clone()),
            membership: capture.membership.clone(),
            requests: capture.requests.clone(),
            wanted: Arc::clone(&committed.wanted),
            segments,
            feed: Arc::clone(&capture.view.feed),
            maps: capture.view.maps,
        };
        if let Err(error) = self.store_manifest(&next) {
            self.drop_uncommitted(sealed, &error);
            return Err(error);
        }
        *committed = next;
        self.swap_sealed(capture, sealed);
        Ok(())
    }

    /// The published view reads the segment instead of the frozen runs. Rows that died since the capture are dead there.
    fn swap_sealed(&self, capture: &Capture, sealed: Option<LiveSegment>) {
        let mut writer = self.writer.lock();
        let mut view = View::clone(&self.view.load());
        let frozen = view.fresh.drain(..writer.frozen).collect::<Vec<_>>();
        writer.frozen = 0;
        if let Some(mut sealed) = sealed {
            for (now, then) in frozen.iter().zip(&capture.view.fresh) {
                sealed.dead.extend(translate(&*now.run, &now.dead, &then.dead, &*sealed.segment));
            }
            view.segments.push(sealed);
        }
        self.view.store(Arc::new(view));
    }

    /// Writes the live rows of `sources` as a new segment, durable but not yet in the manifest.
    pub(super) fn write_new_segment(&self, sources: &[Source<'_>]) -> Result<Option<LiveSegment>, StepError> {
        let number = self.next_file.fetch_add(1, Ordering::AcqRel);
        let path = self.dir.join(super::files::segment_name(number));
        let disk = &*self.env.disk;
        let Some(info) = write_segment(disk, &path, sources, &self.layout).map_err(StepError::from)? else {
            return Ok(None);
        };
        let opened = || -> Result<Segment, StepError> {
            disk.sync_dir(&self.dir).map_err(StepError::from)?;
            let file = StoredFile::new(Arc::clone(&self.env.disk), path.clone(), info);
            let segment = Segment::open(&self.env.disk, &path, file, &self.layout).map_err(StepError::Fatal)?;
            // So that reads which ask for clusters need not wait for the rows to be assigned anew.
            segment.assigned().carry(sources, live_rows(sources, None).map(|(_, row)| row));
            Ok(segment)
        };
        match opened() {
            Ok(segment) => Ok(Some(LiveSegment {
                number,
                segment: Arc::new(segment),
                indexes: vec![None; self.layout.vectors.len()],
                fields: Vec::new(),
                dead: Tombstones::default(),
            })),
            Err(error) => {
                // Best effort: no manifest names it, so the next start removes it.
                let _ = disk.remove(&path);
                Err(error)
            }
        }
    }
}

/// The rows of `target` whose ids died in `run` between two of its states.
pub(super) fn translate(run: &dyn Run, now: &Tombstones, then: &Tombstones, target: &dyn Run) -> Vec<u32> {
    let (from, to) = (run.ids(), target.ids());
    now.since(then).filter_map(|row| to.find(from.get(row))).collect()
}
