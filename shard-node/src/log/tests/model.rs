//! A log that is a map, and workloads that run on it and on the real one.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::*;

pub(super) const GROUPS: u64 = 3;
const KEYS: u8 = 2;

/// What a group holds, as far as a caller can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ModelGroup {
    entries: BTreeMap<u64, Bytes>,
    purged: Option<(u64, Bytes)>,
    states: BTreeMap<u8, Bytes>,
}

impl ModelGroup {
    fn next(&self) -> Option<u64> {
        let last = self.entries.keys().next_back().copied();
        last.or(self.purged.as_ref().map(|(index, _)| *index)).map(|index| index + 1)
    }
}

/// What a log holds.
pub(super) type Model = BTreeMap<ShardId, ModelGroup>;

/// A change, in numbers that mean something relative to the state it meets: which kind, which group, how much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) kind: u8,
    pub(super) group: u64,
    pub(super) amount: u16,
}

impl Step {
    /// Whether the driver should wait for all answers after this step.
    pub(super) fn waits(self) -> bool {
        self.amount.is_multiple_of(3)
    }
}

pub(super) fn random_steps(seed: u64, count: usize) -> Vec<Step> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut draw = |_| Step { kind: random.random(), group: random.random_range(0..GROUPS), amount: random.random() };
    (0..count).map(&mut draw).collect()
}

/// Carries a step out on both, unless `log` is none: then only on the model.
pub(super) fn take(step: Step, number: usize, model: &mut Model, log: &GroupLog, done: Done) {
    let group = model.entry(ShardId(step.group)).or_default();
    let amount = u64::from(step.amount);
    let bytes = |len: u64| Bytes::from(vec![number as u8; len as usize]);
    match step.kind {
        0..=129 => {
            let first = group.next().unwrap_or(amount % 3);
            let added: Vec<LogEntry> = (first..first + amount % 4 + 1)
                .map(|index| LogEntry { index, bytes: bytes((amount + index) % 150) })
                .collect();
            group.entries.extend(added.iter().map(|entry| (entry.index, entry.bytes.clone())));
            log.append(added, done);
        }
        130..=169 => {
            let key = (amount % u64::from(KEYS)) as u8;
            group.states.insert(key, bytes(amount % 20));
            log.save_state(key, bytes(amount % 20), done);
        }
        170..=199 => {
            let after = group.next().and_then(|next| next.checked_sub(amount % 8 + 1));
            group.entries.retain(|index, _| after.is_some_and(|after| *index <= after));
            let result = log.truncate_after(after);
            done(result);
        }
        200..=249 => {
            // Mostly within the log, at times beyond it, as after a snapshot from elsewhere.
            let next = group.next().unwrap_or(3);
            let first = group.entries.keys().next().copied().unwrap_or(next);
            let index = if amount.is_multiple_of(16) { next + amount % 5 } else { first + amount % (next - first + 1) };
            group.entries.retain(|held, _| *held > index);
            if group.purged.as_ref().is_none_or(|(purged, _)| *purged <= index) {
                group.purged = Some((index, bytes(5)));
            }
            let result = log.purge_to(index, bytes(5));
            done(result);
        }
        250..=255 => {
            *group = ModelGroup::default();
            let result = log.remove();
            done(result);
        }
    }
}

/// What the log holds, through its handles.
pub(super) fn contents(log: &ShardLog) -> Model {
    (0..GROUPS)
        .map(|group| {
            let log = log.group(ShardId(group));
            let entries: BTreeMap<u64, Bytes> = all(&log).into_iter().map(|entry| (entry.index, entry.bytes)).collect();
            let bounds = log.bounds().unwrap();
            assert_eq!(bounds.last(), entries.keys().next_back().copied());
            assert_eq!(bounds.next - bounds.first, entries.len() as u64);
            assert_eq!(log.bytes().unwrap(), entries.values().map(|bytes| bytes.len() as u64).sum::<u64>());
            let held = |key| Some((key, log.load_state(key).unwrap()?));
            let group_model =
                ModelGroup { entries, purged: bounds.purged, states: (0..KEYS).filter_map(held).collect() };
            (ShardId(group), group_model)
        })
        .collect()
}

/// An empty model with all groups.
pub(super) fn empty() -> Model {
    (0..GROUPS).map(|group| (ShardId(group), ModelGroup::default())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn behaves_as_a_map(steps in prop::collection::vec((any::<u8>(), 0..GROUPS, any::<u16>()), 0..120)) {
        let disk = FaultyDisk::new(7);
        let (mut log, _) = open(&disk).unwrap();
        let mut model = empty();
        let (send, receive) = channel();
        let mut sent = 0;
        for (number, (kind, group, amount)) in steps.into_iter().enumerate() {
            let step = Step { kind, group, amount };
            let send = send.clone();
            let done: Done = Box::new(move |result| send.send(result).unwrap_or(()));
            take(step, number, &mut model, &log.group(ShardId(group)), done);
            sent += 1;
            if step.waits() {
                (0..std::mem::take(&mut sent)).for_each(|_| receive.recv().unwrap().unwrap());
            }
            prop_assert_eq!(&contents(&log), &model, "after {:?}", step);
            if amount % 10 == 9 {
                // What is queued is written when the last handle goes.
                drop(log);
                let (again, recovery) = open(&disk).unwrap();
                prop_assert!(recovery.notes.is_empty());
                log = again;
                prop_assert_eq!(&contents(&log), &model, "reopened after {:?}", step);
            }
        }
    }
}
