//! Which rows died lately: what a home shard's publisher needs in order to say which copies are gone.

use std::collections::VecDeque;
use std::sync::Arc;

use vicinal_common::error::{Error, Result};
use vicinal_common::ids::LogIndex;
use vicinal_common::point::PointId;
use vicinal_common::vector::VectorRef;

use super::Shard;
use super::write::Step;
use crate::segment::{Layout, MemoryRun, Run, Segment};

/// Most deaths that are kept until they are taken.
const DEATHS_MAX: usize = 65_536;
/// Most memory they may take, in bytes.
const DEATH_BYTES_MAX: usize = 64 << 20;

/// A row that was replaced or deleted.
#[derive(Clone)]
pub struct Died {
    /// The entry that did it.
    pub index: LogIndex,
    /// Id of the row.
    pub id: PointId,
    /// Its version.
    pub version: LogIndex,
    vectors: DeadVectors,
    layout: Arc<Layout>,
}

/// What died since the last time.
#[derive(Clone)]
pub struct Deaths {
    /// All deaths of newer entries are known, those that were taken before included; of older ones, some.
    pub complete_after: LogIndex,
    /// In the order of their entries.
    pub died: Vec<Died>,
}

/// The vectors of a dead row.
#[derive(Clone)]
pub(super) enum DeadVectors {
    /// Dense ones by ordinal, copied: a fresh run is dropped soon, and there are many.
    Copied(Arc<[(usize, Box<[f32]>)]>),
    /// Where they are: its file stays as long as this lives.
    Stored(Arc<Segment>, u32),
}

/// A run whose dead rows can be kept.
pub(super) trait MortalRun: Run + Sized {
    /// The vectors of a row, to keep.
    fn keep(run: &Arc<Self>, row: u32, layout: &Layout) -> DeadVectors;
}

impl MortalRun for MemoryRun {
    fn keep(run: &Arc<MemoryRun>, row: u32, layout: &Layout) -> DeadVectors {
        let dense = (0..layout.vectors.len()).filter_map(|ordinal| match run.vectors(ordinal).get(row)? {
            VectorRef::Dense(values) => Some((ordinal, values.into())),
            VectorRef::Sparse(_) | VectorRef::Multi(_) => None,
        });
        DeadVectors::Copied(dense.collect())
    }
}

impl MortalRun for Segment {
    fn keep(run: &Arc<Segment>, row: u32, _: &Layout) -> DeadVectors {
        DeadVectors::Stored(Arc::clone(run), row)
    }
}

impl Died {
    /// The dense vector that the row had under a name; `None` if it had none.
    pub fn vector(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let ordinal = self.layout.ordinal(name);
        let ordinal = ordinal.ok_or_else(|| Error::BadInput(format!("Not existing vector name error: {name}")))?;
        match &self.vectors {
            DeadVectors::Copied(copied) => {
                let own = copied.iter().find(|(of, _)| *of == ordinal);
                Ok(own.map(|(_, values)| values.to_vec()))
            }
            DeadVectors::Stored(segment, row) => match segment.vectors(ordinal).get(*row) {
                Some(VectorRef::Dense(values)) => Ok(Some(values.to_vec())),
                Some(VectorRef::Sparse(_) | VectorRef::Multi(_)) | None => Ok(None),
            },
        }
    }

    /// Memory it takes, about.
    fn bytes(&self) -> usize {
        let vectors = match &self.vectors {
            DeadVectors::Copied(copied) => {
                copied.iter().map(|(_, values)| size_of::<usize>() * 3 + values.len() * 4).sum()
            }
            DeadVectors::Stored(..) => 0,
        };
        size_of::<Died>() + vectors
    }
}

/// Deaths that were not taken yet, the oldest first.
#[derive(Default)]
pub(super) struct DeathLog {
    complete_after: LogIndex,
    died: VecDeque<Died>,
    bytes: usize,
}

impl DeathLog {
    /// One that is complete for entries after this one.
    pub(super) fn after(applied: LogIndex) -> DeathLog {
        DeathLog { complete_after: applied, ..DeathLog::default() }
    }

    fn push(&mut self, died: Died) {
        self.bytes += died.bytes();
        self.died.push_back(died);
        while self.died.len() > DEATHS_MAX || self.bytes > DEATH_BYTES_MAX {
            let Some(oldest) = self.died.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.complete_after = self.complete_after.max(oldest.index);
        }
    }

    /// Adds the deaths of later entries.
    pub(super) fn append(&mut self, later: DeathLog) {
        if later.complete_after > self.complete_after {
            // It overflowed: all that is older would have gone before.
            self.complete_after = later.complete_after;
        }
        later.died.into_iter().for_each(|died| self.push(died));
    }

    fn take(&mut self) -> Deaths {
        self.bytes = 0;
        Deaths { complete_after: self.complete_after, died: std::mem::take(&mut self.died).into() }
    }
}

impl Step<'_> {
    /// Notes that the entry made a row dead.
    pub(super) fn note_death<R: MortalRun>(&mut self, (layout, run): (&Arc<Layout>, &Arc<R>), row: u32) {
        if let Some(deaths) = &mut self.deaths {
            deaths.push(Died {
                index: self.index,
                id: run.ids().get(row),
                version: LogIndex(run.versions()[row as usize]),
                vectors: R::keep(run, row, layout),
                layout: Arc::clone(layout),
            });
        }
    }
}

impl Shard {
    /// Begins to note which rows die, or stops and forgets them. Waits for entries that are being applied. Deaths that
    /// nobody takes keep the files of their rows on the disk, merged ones too: whoever stops taking them must stop
    /// watching.
    pub fn watch_deaths(&self, is_wanted: bool) {
        let writer = self.writer.lock();
        let mut deaths = self.deaths.lock();
        if !is_wanted {
            *deaths = None;
        } else if deaths.is_none() {
            *deaths = Some(DeathLog::after(writer.mark.as_ref().map_or(LogIndex(0), |mark| mark.index)));
        }
    }

    /// What died since this was last called. A reader that has taken a view first finds all deaths that led to it, and
    /// perhaps later ones. While nobody watches, nothing is known of any entry.
    pub fn take_deaths(&self) -> Deaths {
        match &mut *self.deaths.lock() {
            Some(deaths) => deaths.take(),
            None => Deaths { complete_after: LogIndex(u64::MAX), died: Vec::new() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn died(index: u64, values: usize) -> Died {
        let copied: Vec<(usize, Box<[f32]>)> = vec![(0, vec![0.5; values].into())];
        Died {
            index: LogIndex(index),
            id: PointId::Num(index),
            version: LogIndex(index - 1),
            vectors: DeadVectors::Copied(copied.into()),
            layout: Arc::new(Layout { vectors: Vec::new() }),
        }
    }

    #[test]
    fn the_oldest_are_dropped_and_that_is_said() {
        let mut log = DeathLog::after(LogIndex(4));
        let many = DEATHS_MAX as u64;
        (0..many).for_each(|i| log.push(died(10 + i / 2, 1)));
        assert_eq!((log.complete_after, log.died.len()), (LogIndex(4), DEATHS_MAX));
        // One of the two of the oldest entry goes: of that entry not all are known.
        log.push(died(90_000, 1));
        let deaths = log.take();
        assert_eq!((deaths.complete_after, deaths.died.len()), (LogIndex(10), DEATHS_MAX));
        assert_eq!(deaths.died[0].index, LogIndex(10));
        // It stays said.
        assert_eq!(log.take().complete_after, LogIndex(10));
        log.push(died(90_001, 1));
        assert_eq!((log.take().died.len(), log.bytes), (1, 0));
    }

    #[test]
    fn a_batch_that_overflows_hides_what_was_before_it() {
        let mut log = DeathLog::after(LogIndex(4));
        log.push(died(5, 1));
        let mut batch = DeathLog::default();
        (0..DEATHS_MAX as u64 + 3).for_each(|i| batch.push(died(10 + i, 1)));
        log.append(batch);
        let deaths = log.take();
        assert_eq!((deaths.complete_after, deaths.died.len()), (LogIndex(12), DEATHS_MAX));
    }

    #[test]
    fn their_memory_is_bounded() {
        let mut log = DeathLog::default();
        (1..200).for_each(|i| log.push(died(i, 1 << 18)));
        assert!(log.died.len() < 64 && log.bytes <= DEATH_BYTES_MAX, "{} take {}", log.died.len(), log.bytes);
        assert_eq!(log.complete_after.0, 199 - log.died.len() as u64);
    }
}
