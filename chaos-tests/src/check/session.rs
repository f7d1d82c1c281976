//! Read-your-writes and monotonic reads: a client never reads a point older than what it wrote or read before.

use std::collections::HashMap;

use super::Report;
use super::timeline::Timeline;
use crate::op::{Operation, Outcome, Record, Version};

const PROMISE: &str = "you read your writes";
const SOUND: &str = "what is read was written, whole";

/// What a client knows of one point: versions it wrote (acknowledged) or read. Older knowledge that newer one implies is
/// forgotten.
struct Knowledge {
    version: Version,
    /// When it had it.
    since: u64,
    /// The coordinator that told.
    via: String,
}

/// Checks every read of the history. A read binds only when the system could know of the session: through the coordinator
/// that told, or with a token.
pub fn session(records: &[Record], report: &mut Report) {
    let timeline = Timeline::of(records);
    let mut known: HashMap<(u64, u64), Vec<Knowledge>> = HashMap::new();
    let (mut by_home, mut by_token, mut violations) = (0, 0, 0);
    // A client does one thing after the other, so its records stand in their order.
    for record in records {
        let Outcome::Ok(found) = &record.outcome else { continue };
        let mut learned: Vec<Version> = record.written().to_vec();
        if let Operation::Read(ids) = &record.operation {
            learned.extend(found.points.iter().map(|seen| seen.version));
            let is_full = found.coverage.is_some_and(|coverage| coverage.is_full());
            for id in ids {
                let read = found.points.iter().find(|seen| seen.version.id == *id);
                if let Some(seen) = read {
                    sound(&timeline, record, seen.version, seen.is_sound, report);
                } else if !is_full {
                    // Its shard did not answer, and the answer says that one is missing.
                    continue;
                }
                let Some(knowledge) = known.get(&(record.client, *id)) else { continue };
                for before in knowledge.iter().filter(|before| before.since < record.start) {
                    match (record.has_token, record.via == before.via) {
                        (true, _) => by_token += 1,
                        (false, true) => by_home += 1,
                        (false, false) => continue,
                    }
                    let is_older = read.is_none_or(|seen| timeline.is_before(seen.version, before.version));
                    if is_older {
                        violations += 1;
                        let read = read.map(|seen| seen.version);
                        report.violation(
                            PROMISE,
                            format!(
                                "client {} knew {:?} from {} and read {read:?} at {} µs: {record:?}",
                                record.client, before.version, before.via, record.end
                            ),
                        );
                    }
                }
            }
        }
        for version in learned {
            let known = known.entry((record.client, version.id)).or_default();
            let is_implied =
                |before: &Knowledge| before.version == version || timeline.is_before(before.version, version);
            known.retain(|before| before.via != record.via || !is_implied(before));
            known.push(Knowledge { version, since: record.end, via: record.via.clone() });
        }
    }
    report.figure("reads of own writes through the same coordinator, without a token", by_home);
    report.figure("reads of own writes with a session token", by_token);
    report.figure("stale reads", violations);
    if by_home == 0 {
        report.doubt("no client read its own write through the coordinator that acknowledged it");
    }
    if by_token == 0 {
        report.doubt("no client read its own write with a session token");
    }
}

fn sound(timeline: &Timeline, record: &Record, version: Version, is_sound: bool, report: &mut Report) {
    if !is_sound {
        report.violation(SOUND, format!("{version:?} was read torn: {record:?}"));
    }
    if let Some(why) = timeline.impossible(version, record.end) {
        report.violation(SOUND, format!("{version:?} was read, but {why}: {record:?}"));
    }
}
