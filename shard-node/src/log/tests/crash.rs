//! The power is cut at every operation of workloads that append, truncate, purge, remove, rotate and delete files.

use super::model::{Model, Step, contents, empty, random_steps, take};
use super::*;
use vicinal_common::disk::Fault;

/// What a run that may have been cut short submitted, and how much of it was acknowledged.
pub(super) struct Run {
    /// `history[k]` is the state after the first `k` steps.
    pub(super) history: Vec<Model>,
    /// So many steps are certainly durable.
    pub(super) acked: usize,
}

impl Run {
    /// Carries out steps until the first error; closes the log.
    pub(super) fn of(steps: &[Step], disk: &FaultyDisk) -> Run {
        let mut run = Run { history: vec![empty()], acked: 0 };
        let Ok((log, _)) = open(disk) else { return run };
        let (send, receive) = channel();
        let mut open_steps = 0;
        for (number, step) in steps.iter().enumerate() {
            let mut model = run.history[number].clone();
            let send = send.clone();
            // Truncations and purges report that they were queued, which promises nothing.
            let promises = step.kind < 170;
            let done: Done = Box::new(move |result| send.send((number, promises, result)).unwrap_or(()));
            take(*step, number, &mut model, &log.group(ShardId(step.group)), done);
            run.history.push(model);
            open_steps += 1;
            if step.waits() || number + 1 == steps.len() {
                let mut failed = false;
                for _ in 0..std::mem::take(&mut open_steps) {
                    let (number, promises, result) = receive.recv().unwrap();
                    failed |= result.is_err();
                    if result.is_ok() && promises {
                        run.acked = run.acked.max(number + 1);
                    }
                }
                if failed {
                    break;
                }
            }
        }
        run
    }

    /// The recovered state must be that after some number of steps, none acknowledged missing.
    pub(super) fn check(&self, found: &Model, what: &str) -> usize {
        let matching = (self.acked..self.history.len()).rev().find(|k| self.history[*k] == *found);
        matching.unwrap_or_else(|| {
            panic!("{what}: {} acked of {}; found {found:#?}", self.acked, self.history.len() - 1);
        })
    }
}

fn cut_everywhere(seed: u64, steps: usize) -> (u64, usize) {
    let steps = random_steps(seed, steps);
    let mut files = 0;
    for cut in 0.. {
        let disk = FaultyDisk::new(seed * 1000 + cut);
        disk.inject(Fault::Cut { operations: cut }).unwrap();
        let run = Run::of(&steps, &disk);
        let complete = !disk.is_off();
        let what = format!("seed {seed} cut {cut}");
        disk.reboot();
        // A second cut may hit the recovery itself.
        disk.inject(Fault::Cut { operations: disk.operations() + cut % 7 }).unwrap();
        drop(open(&disk));
        disk.reboot();
        let (log, _) = open(&disk).unwrap_or_else(|e| panic!("{what}: {e}"));
        let found = contents(&log);
        run.check(&found, &what);
        files = files.max(log.stats().files);
        drop(log);
        // What was found once stays, and the log goes on.
        disk.reboot();
        let (log, recovery) = open(&disk).unwrap();
        assert!(recovery.notes.is_empty(), "{what}: {:?}", recovery.notes);
        assert_eq!(contents(&log), found, "{what}");
        let group = log.group(ShardId(0));
        let next = group.bounds().unwrap().next;
        append(&group, entries(next..next + 3, 200)).unwrap();
        drop((group, log));
        disk.reboot();
        let (log, _) = open(&disk).unwrap();
        assert_eq!(
            log.group(ShardId(0)).read(next..next + 3, u64::MAX).unwrap(),
            entries(next..next + 3, 200),
            "{what}"
        );
        if complete {
            return (cut, files);
        }
    }
    unreachable!("the loop ends when no cut hits")
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_fails() {
    for seed in 1..=6 {
        let (cuts, files) = cut_everywhere(seed, 90);
        assert!(cuts > 60 && files > 1, "seed {seed} is too tame: {cuts} cuts, {files} files");
    }
}

/// Truncations that were followed by an acknowledged append must never come undone.
#[test]
fn truncated_entries_stay_away() {
    let mut steps = Vec::new();
    for round in 0..8 {
        let group = round % 3;
        steps.push(Step { kind: 0, group, amount: 3 });
        steps.push(Step { kind: 0, group: (group + 1) % 3, amount: 7 });
        steps.push(Step { kind: 180, group, amount: 2 });
        steps.push(Step { kind: 0, group, amount: 1 });
        steps.push(Step { kind: 210, group, amount: 17 });
        steps.push(Step { kind: 140, group, amount: 9 });
    }
    for cut in 0.. {
        let disk = FaultyDisk::new(cut);
        disk.inject(Fault::Cut { operations: cut }).unwrap();
        let run = Run::of(&steps, &disk);
        let complete = !disk.is_off();
        disk.reboot();
        let (log, _) = open(&disk).unwrap();
        run.check(&contents(&log), &format!("cut {cut}"));
        if complete {
            assert_eq!(run.acked, steps.len());
            break;
        }
    }
}
