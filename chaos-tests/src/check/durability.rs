//! What was acknowledged is there after everything has healed, whole; what was never written is not.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Report;
use super::timeline::Timeline;
use crate::op::{Record, Seen, Version};

const PROMISE: &str = "an acknowledged write is never lost";

/// Checks all points that the healed cluster holds against the history.
pub fn durability(records: &[Record], held: &[Seen], report: &mut Report) {
    let timeline = Timeline::of(records);
    let mut by_id: HashMap<u64, Seen> = HashMap::with_capacity(held.len());
    for seen in held {
        if by_id.insert(seen.version.id, *seen).is_some() {
            report.violation(PROMISE, format!("point {} is there twice", seen.version.id));
        }
        if !seen.is_sound {
            report.violation(PROMISE, format!("{:?} is not what was written: payload or vector differ", seen.version));
        }
        if let Some(why) = timeline.impossible(seen.version, u64::MAX) {
            report.violation(PROMISE, format!("{:?} is there, but {why}", seen.version));
        }
    }
    // The last acknowledged version of each point. Of two that were under way together either may be the last.
    let mut acknowledged: BTreeMap<u64, Vec<Version>> = BTreeMap::new();
    let mut writes = 0;
    for (version, _) in timeline.all().filter(|(_, written)| written.is_acknowledged) {
        acknowledged.entry(version.id).or_default().push(*version);
        writes += 1;
    }
    let mut lost = 0;
    for (id, versions) in &acknowledged {
        let stale = |held: Version| versions.iter().find(|version| timeline.is_before(held, **version)).copied();
        match by_id.get(id) {
            None => {
                lost += 1;
                report.violation(PROMISE, format!("point {id} is gone; acknowledged were {versions:?}"));
            }
            Some(held) => {
                if let Some(newer) = stale(held.version) {
                    lost += 1;
                    report.violation(PROMISE, format!("{:?} is there, {newer:?} was acknowledged later", held.version));
                }
            }
        }
    }
    report.figure("acknowledged versions", writes);
    report.figure("acknowledged points", acknowledged.len());
    report.figure("points held at the end", held.len());
    report.figure("acknowledged and lost", lost);
    if acknowledged.is_empty() {
        report.doubt("nothing was ever acknowledged");
    }
}

/// Points of unknown writes that are there and that are not, for the figures.
pub fn unknown_fates(records: &[Record], held: &[Seen]) -> (usize, usize) {
    let held: HashSet<Version> = held.iter().map(|seen| seen.version).collect();
    let unknown = records.iter().filter(|record| record.settled() == u64::MAX).flat_map(Record::written);
    let (mut there, mut absent) = (0, 0);
    for version in unknown {
        if held.contains(version) {
            there += 1;
        } else {
            absent += 1;
        }
    }
    (there, absent)
}
