//! Did the faults bite? A run in which nothing went wrong proves nothing.

use std::collections::BTreeMap;
use std::fmt;

use super::Report;
use crate::op::Record;

/// Operations that must have succeeded before and after each fault.
const OPERATIONS_MIN: usize = 20;
/// How long before and after it they count, in microseconds.
const WINDOW: u64 = 15_000_000;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// `kill -9` of a shard node.
    KillNode,
    /// `kill -9` of the node that leads a shard.
    KillShardLeader,
    /// `kill -9` of the coordinator that leads the metadata.
    KillCoordinatorLeader,
    /// A node with a replica is stopped for longer than an election takes, and goes on where it was.
    PauseReplica,
}

/// One that was done.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// To which process.
    pub target: String,
    /// When it began, in microseconds since the history began.
    pub began: u64,
    /// When the process was back and ready.
    pub cured: u64,
    /// How we know that the process was away, or why we do not.
    pub evidence: Result<String, String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let (began, cured) = (seconds(self.began), seconds(self.cured));
        let evidence = match &self.evidence {
            Ok(text) => text.clone(),
            Err(text) => format!("did not bite: {text}"),
        };
        write!(f, "{:?} of {} from {began:.1} s to {cured:.1} s: {evidence}", self.kind, self.target)
    }
}

/// Checks that each kind was done at least so often, that each fault bit, and that the cluster was at work around it.
pub fn coverage(records: &[Record], faults: &[Fault], wanted: &[(FaultKind, usize)], report: &mut Report) {
    for fault in faults {
        if let Err(why) = &fault.evidence {
            report.doubt(format!("{:?} of {} did not bite: {why}", fault.kind, fault.target));
        }
        let within = |from: u64, until: u64| {
            records.iter().filter(|record| record.is_ok() && record.start >= from && record.end <= until).count()
        };
        let before = within(fault.began.saturating_sub(WINDOW), fault.began);
        let after = within(fault.cured, fault.cured + WINDOW);
        if before < OPERATIONS_MIN || after < OPERATIONS_MIN {
            report.doubt(format!("{fault}: only {before} operations succeeded before it, {after} after it"));
        }
    }
    let mut bit: BTreeMap<FaultKind, usize> = BTreeMap::new();
    for fault in faults.iter().filter(|fault| fault.evidence.is_ok()) {
        *bit.entry(fault.kind).or_default() += 1;
    }
    for (kind, n) in wanted {
        let bit = bit.get(kind).copied().unwrap_or(0);
        if bit < *n {
            report.doubt(format!("{kind:?} bit {bit} times, {n} were wanted"));
        }
    }
    report
        .figure("faults that bit", bit.iter().map(|(kind, n)| format!("{n} {kind:?}")).collect::<Vec<_>>().join(", "));
}
