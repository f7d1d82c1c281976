//! Seeded wrong histories: each checker sees what it is there for, and is content with a right history.

use super::*;
use crate::content::{self, REGISTERS};
use crate::op::{Coverage, Found, Operation, Outcome, Record, Seen, Version};

const FULL: Coverage = Coverage { answered: 4, asked: 4, is_explained: true };

fn version(id: u64, serial: u64) -> Version {
    Version { id, serial }
}

fn seen(version: Version) -> Seen {
    Seen { version, is_sound: true, score: None }
}

fn record(client: u64, via: &str, operation: Operation, outcome: Outcome, (start, end): (u64, u64)) -> Record {
    Record { client, via: via.to_owned(), has_token: false, operation, outcome, start, end }
}

fn ack(client: u64, via: &str, written: Version, time: (u64, u64)) -> Record {
    record(client, via, Operation::Write(vec![written]), Outcome::Ok(Found::default()), time)
}

fn unknown(client: u64, written: Version, time: (u64, u64)) -> Record {
    record(client, "c1", Operation::Write(vec![written]), Outcome::Unknown("time-out".to_owned()), time)
}

fn read(client: u64, via: &str, id: u64, found: Option<Version>, time: (u64, u64)) -> Record {
    let found = Found { points: found.map(seen).into_iter().collect(), coverage: Some(FULL) };
    record(client, via, Operation::Read(vec![id]), Outcome::Ok(found), time)
}

fn with_token(record: Record) -> Record {
    Record { has_token: true, ..record }
}

/// A search near a point whose hits are these, with right scores.
fn search_for(near: Version, hits: &[Version], coverage: Option<Coverage>) -> Record {
    let hit = |hit: &Version| Seen { score: Some(content::score(near, *hit)), ..seen(*hit) };
    let found = Found { points: hits.iter().map(hit).collect(), coverage };
    let operation = Operation::Search { near, must_find: true, limit: 2, at_least: 2 };
    record(9, "c1", operation, Outcome::Ok(found), (1_000, 1_010))
}

fn violations(check: impl Fn(&mut Report)) -> Vec<String> {
    let mut report = Report::default();
    check(&mut report);
    report.violations.into_iter().map(|violation| violation.text).collect()
}

/// Asserts that there is exactly one violation and that it says so.
fn one(violations: Vec<String>, says: &str) {
    assert!(violations.len() == 1 && violations[0].contains(says), "wanted one with `{says}`: {violations:#?}");
}

fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn a_lost_acknowledgement_is_caught() {
    let records = [ack(1, "c1", version(1, 1), (0, 5)), ack(1, "c1", version(2, 2), (6, 9))];
    let check = |held: &[Seen]| violations(|report| durability(&records, held, report));
    none(check(&[seen(version(1, 1)), seen(version(2, 2))]));
    one(check(&[seen(version(1, 1))]), "point 2 is gone");
    one(check(&[seen(version(1, 1)), seen(version(2, 2)), seen(version(2, 2))]), "twice");
    one(check(&[seen(version(1, 1)), seen(version(2, 2)), seen(version(3, 3))]), "nobody ever wrote it");
    let torn = Seen { is_sound: false, ..seen(version(2, 2)) };
    one(check(&[seen(version(1, 1)), torn]), "payload or vector differ");
}

#[test]
fn an_overwritten_version_that_comes_back_is_caught_and_an_unknown_one_may() {
    let id = REGISTERS;
    let old_and_new = [ack(1, "c1", version(id, 1), (0, 5)), ack(1, "c1", version(id, 2), (6, 9))];
    let check =
        |records: &[Record], serial| violations(|report| durability(records, &[seen(version(id, serial))], report));
    none(check(&old_and_new, 2));
    one(check(&old_and_new, 1), "acknowledged later");
    let late = [unknown(1, version(id, 1), (0, 5)), ack(2, "c1", version(id, 2), (6, 9))];
    none(check(&late, 1));
    none(check(&late, 2));
    let refused = Outcome::Fail("422".to_owned());
    let refused = record(1, "c1", Operation::Write(vec![version(id, 1)]), refused, (0, 5));
    one(check(&[refused], 1), "its write was refused");
}

#[test]
fn a_stale_read_is_caught_where_the_system_had_to_know() {
    let id = REGISTERS;
    let writes = || vec![ack(1, "c1", version(id, 1), (0, 5)), ack(1, "c1", version(id, 2), (6, 9))];
    let check = |last: Record| {
        let records: Vec<Record> = writes().into_iter().chain([last]).collect();
        violations(|report| session(&records, report))
    };
    none(check(read(1, "c1", id, Some(version(id, 2)), (10, 12))));
    one(check(read(1, "c1", id, Some(version(id, 1)), (10, 12))), "knew");
    one(check(read(1, "c1", id, None, (10, 12))), "read None");
    // Another coordinator knows by the token only.
    none(check(read(1, "c2", id, Some(version(id, 1)), (10, 12))));
    one(check(with_token(read(1, "c2", id, Some(version(id, 1)), (10, 12)))), "from c1");
    // Another client was promised nothing.
    none(check(read(2, "c1", id, Some(version(id, 1)), (10, 12))));
    // A shard that did not answer, and the answer says so.
    let mut partial = read(1, "c1", id, None, (10, 12));
    partial.outcome = Outcome::Ok(Found { points: vec![], coverage: Some(Coverage { answered: 3, ..FULL }) });
    none(check(partial));
}

#[test]
fn reads_that_go_back_in_time_are_caught() {
    let id = REGISTERS;
    let records = |second, third| {
        [
            ack(7, "c1", version(id, 1), (0, 5)),
            ack(7, "c1", version(id, 2), (6, 9)),
            read(1, "c1", id, Some(version(id, second)), (10, 12)),
            read(1, "c1", id, Some(version(id, third)), (13, 15)),
        ]
    };
    none(violations(|report| session(&records(1, 2), report)));
    one(violations(|report| session(&records(2, 1), report)), "knew");
    let from_nowhere = [read(1, "c1", id, Some(version(id, 5)), (10, 12))];
    one(violations(|report| session(&from_nowhere, report)), "nobody ever wrote it");
}

#[test]
fn an_unknown_write_may_show_late_but_only_once_it_was_sent() {
    let id = REGISTERS;
    let early_read = read(2, "c1", id, Some(version(id, 1)), (1, 2));
    let records = [early_read, unknown(1, version(id, 1), (5, 9)), ack(3, "c1", version(id, 2), (10, 12))];
    one(violations(|report| session(&records, report)), "before it was written");
    let mut right = records[1..].to_vec();
    right.push(read(3, "c1", id, Some(version(id, 1)), (13, 14)));
    none(violations(|report| session(&right, report)));
}

#[test]
fn a_silently_short_search_is_caught() {
    let (near, other) = (version(1, 1), version(2, 2));
    let check = |hits: &[Version], coverage: Option<Coverage>| {
        let records = [ack(1, "c1", near, (0, 5)), ack(1, "c1", other, (6, 9)), search_for(near, hits, coverage)];
        violations(|report| search(&records, report))
    };
    none(check(&[near, other], Some(FULL)));
    one(check(&[near], Some(FULL)), "fewer than 2 hits");
    one(check(&[other], Some(FULL)), "is not the first hit");
    one(check(&[], Some(FULL)), "is not the first hit");
    none(check(&[], Some(Coverage { answered: 3, ..FULL })));
    one(check(&[], Some(Coverage { answered: 3, is_explained: false, ..FULL })), "not named");
    one(check(&[near, other], None), "does not say which shards");
    one(check(&[], Some(Coverage { answered: 0, ..FULL })), "from no shard");
}

#[test]
fn wrong_hits_are_caught() {
    let (near, other) = (version(1, 1), version(2, 2));
    let check = |change: &dyn Fn(&mut Vec<Seen>)| {
        let mut found = search_for(near, &[near, other], Some(FULL));
        if let Outcome::Ok(found) = &mut found.outcome {
            change(&mut found.points);
        }
        let records = [ack(1, "c1", near, (0, 5)), ack(1, "c1", other, (6, 9)), found];
        violations(|report| search(&records, report))
    };
    none(check(&|_| {}));
    one(check(&|points| points[1].score = Some(1.0)), "has the score");
    one(check(&|points| points[1].is_sound = false), "torn");
    one(check(&|points| points[1] = points[0]), "twice");
    assert!(check(&|points| points.reverse()).iter().any(|text| text.contains("order of their scores")));
    assert!(check(&|points| points.push(points[1])).iter().any(|text| text.contains("3 hits of at most 2")));
    let nobodys = Seen { score: Some(content::score(near, version(3, 3))), ..seen(version(3, 3)) };
    one(check(&|points| points[1] = nobodys), "nobody ever wrote it");
}

#[test]
fn unequal_digests_are_caught() {
    let replica = |node: &str, digest: &str, points| ReplicaDigest {
        node: node.to_owned(),
        applied: 9,
        points,
        digest: if digest.is_empty() { Err("no answer".to_owned()) } else { Ok(digest.to_owned()) },
    };
    let shard = |replicas: Vec<ReplicaDigest>| vec![ShardDigests { shard: 1, replicas }];
    let check = |shards: &[ShardDigests]| violations(|report| converge(shards, 2, 5, report));
    none(check(&shard(vec![replica("n1", "aa", 5), replica("n2", "aa", 5)])));
    one(check(&shard(vec![replica("n1", "aa", 5), replica("n2", "ab", 5)])), "they differ");
    one(check(&shard(vec![replica("n1", "aa", 5)])), "1 of 2 replicas");
    one(check(&shard(vec![replica("n1", "", 5), replica("n2", "", 5)])), "they differ");
    one(check(&shard(vec![replica("n1", "aa", 4), replica("n2", "aa", 4)])), "a read of all finds 5");
}

#[test]
fn a_fault_that_did_not_bite_is_not_a_pass() {
    let records: Vec<Record> = (0..100).map(|n| ack(1, "c1", version(n, n + 1), (n * 10, n * 10 + 5))).collect();
    let fault = |began, cured, evidence: Result<&str, &str>| Fault {
        kind: FaultKind::KillNode,
        target: "n1".to_owned(),
        began,
        cured,
        evidence: evidence.map(str::to_owned).map_err(str::to_owned),
    };
    let verdict = |faults: &[Fault], wanted: usize| {
        let mut report = Report::default();
        coverage(&records, faults, &[(FaultKind::KillNode, wanted)], &mut report);
        report.verdict()
    };
    assert_eq!(verdict(&[fault(400, 500, Ok("killed"))], 1), Verdict::Pass);
    assert_eq!(verdict(&[fault(400, 500, Ok("killed"))], 2), Verdict::Inconclusive);
    assert_eq!(verdict(&[fault(400, 500, Err("was gone before"))], 1), Verdict::Inconclusive);
    // Nothing succeeded after it: perhaps nothing was asked.
    assert_eq!(verdict(&[fault(400, 2_000, Ok("killed"))], 1), Verdict::Inconclusive);
    let mut report = Report::default();
    report.doubt("nothing happened");
    report.violation("a promise", "it was broken".to_owned());
    assert_eq!(report.verdict(), Verdict::Fail);
}
