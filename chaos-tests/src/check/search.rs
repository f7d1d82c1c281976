//! Searches: sorted, unique, with the right scores, no more than asked for, and never short without saying so.

use std::collections::HashSet;

use super::Report;
use super::timeline::Timeline;
use crate::content;
use crate::op::{Found, Operation, Outcome, Record, Version};

const SHORT: &str = "no answer is silently short";
const RIGHT: &str = "hits are right";

/// Checks every answer that comes from shards.
pub fn search(records: &[Record], report: &mut Report) {
    let timeline = Timeline::of(records);
    let (mut full, mut partial, mut short) = (0, 0, 0);
    for record in records {
        let Outcome::Ok(found) = &record.outcome else { continue };
        match &record.operation {
            Operation::Write(_) => {}
            Operation::Read(_) => short += silences(record, found, report),
            Operation::Search { near, must_find, limit, at_least } => {
                let missing = silences(record, found, report);
                hits(&timeline, record, found, *near, *limit, report);
                short += missing;
                if !found.coverage.is_some_and(|coverage| coverage.is_full()) {
                    partial += 1;
                    continue;
                }
                full += 1;
                let first = found.points.first().map(|seen| seen.version);
                if *must_find && first != Some(*near) {
                    short += 1;
                    report.violation(SHORT, format!("all shards answered, {near:?} is not the first hit: {record:?}"));
                } else if found.points.len() < *at_least {
                    short += 1;
                    report.violation(SHORT, format!("all shards answered, fewer than {at_least} hits: {record:?}"));
                }
            }
        }
    }
    report.figure("searches answered by all shards", full);
    report.figure("searches that said that shards are missing", partial);
    report.figure("silently short answers", short);
    if full == 0 {
        report.doubt("no search was answered by all shards");
    }
}

/// What an answer should say of its shards and does not. How many things.
fn silences(record: &Record, found: &Found, report: &mut Report) -> usize {
    let what = match found.coverage {
        None => "the answer does not say which shards it stands for",
        Some(coverage) if coverage.answered > coverage.asked => "more shards answered than there are",
        Some(coverage) if coverage.answered == 0 => "an answer from no shard is given as a success",
        Some(coverage) if !coverage.is_explained => "the missing shards are not named",
        Some(_) => return 0,
    };
    report.violation(SHORT, format!("{what}: {record:?}"));
    1
}

fn hits(timeline: &Timeline, record: &Record, found: &Found, near: Version, limit: usize, report: &mut Report) {
    let mut wrong = |what: String| report.violation(RIGHT, format!("{what}: {record:?}"));
    if found.points.len() > limit {
        wrong(format!("{} hits of at most {limit}", found.points.len()));
    }
    let ids: HashSet<u64> = found.points.iter().map(|seen| seen.version.id).collect();
    if ids.len() != found.points.len() {
        wrong("a point is there twice".to_owned());
    }
    if !found.points.is_sorted_by(|a, b| a.score <= b.score) {
        wrong("the hits are not in the order of their scores".to_owned());
    }
    for seen in &found.points {
        let right = content::score(near, seen.version);
        if !seen.is_sound {
            wrong(format!("{:?} is torn", seen.version));
        } else if !seen.score.is_some_and(|score| content::same_score(score, right)) {
            wrong(format!("{:?} has the score {:?}, its distance is {right}", seen.version, seen.score));
        }
        if let Some(why) = timeline.impossible(seen.version, record.end) {
            wrong(format!("{:?} was found, but {why}", seen.version));
        }
    }
}
