//! Readers during writes, seals and merges: each id is there exactly once, and the newest acknowledged version wins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vicinal_common::api::{SearchQuery, WriteOp};
use vicinal_common::disk::FaultyDisk;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId};

use super::super::{Shard, ShardOptions};
use super::harness::{Model, Work, all_parts, create, env_with};

const IDS: u64 = 400;

fn read(shard: &Shard, work: &mut Work, floor: &AtomicU64, stop: &AtomicBool) -> u64 {
    let mut reads = 0;
    while !stop.load(Ordering::Acquire) {
        let floor = floor.load(Ordering::Acquire);
        let view = shard.view();
        assert!(view.applied().0 >= floor);
        let query = SearchQuery {
            vector_name: String::new(),
            goal: work.vector(6).into(),
            k: 2 * IDS as usize,
            filter: None,
            distance_max: None,
            ef: None,
            exact: work.below(2) == 0,
        };
        let hits = view.search(&query).unwrap();
        let mut ids: Vec<PointId> = hits.iter().map(|hit| hit.id).collect();
        ids.sort_unstable();
        let expected: Vec<PointId> = (0..IDS).map(PointId::Num).collect();
        assert_eq!(ids, expected);
        assert!(hits.iter().all(|hit| hit.version <= view.applied()));
        let page = view.scroll(None, usize::MAX, None, &all_parts()).unwrap();
        assert_eq!(page.len() as u64, IDS);
        assert_eq!(view.count(None).unwrap(), IDS);
        reads += 1;
    }
    reads
}

#[test]
fn readers_see_every_id_exactly_once() {
    let options = ShardOptions { seal_bytes: 6_000, ..ShardOptions::default() };
    let shard = create(&env_with(Arc::new(FaultyDisk::new(3)), options)).unwrap();
    let mut work = Work::new(3);
    let mut model = Model::default();
    let mut point = |id: u64| Point {
        id: PointId::Num(id),
        vectors: BTreeMap::from([(String::new(), work.vector(6).into())]),
        payload: Payload::EMPTY,
    };
    let all: Vec<Point> = (0..IDS).map(&mut point).collect();
    shard.apply(vec![model.write(WriteOp::Upsert(Arc::new(all)))]).unwrap();

    let (stop, floor) = (AtomicBool::new(false), AtomicU64::new(1));
    let written = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|i| {
                let (shard, stop, floor) = (&shard, &stop, &floor);
                scope.spawn(move || read(shard, &mut Work::new(i), floor, stop))
            })
            .collect();
        let begin = Instant::now();
        let mut next = 0;
        while begin.elapsed() < Duration::from_secs(3) && readers.iter().all(|reader| !reader.is_finished()) {
            let batch: Vec<Point> = (0..7).map(|i| point((next + i * 31) % IDS)).collect();
            next += 1;
            shard.apply(vec![model.write(WriteOp::Upsert(Arc::new(batch)))]).unwrap();
            floor.store(model.log.len() as u64, Ordering::Release);
        }
        stop.store(true, Ordering::Release);
        assert!(readers.into_iter().map(|reader| reader.join().unwrap()).all(|reads| reads > 10));
        next
    });
    assert!(written > 100);
    shard.flush_blocking().unwrap();
    model.check(&shard);
    assert!(shard.durable().is_some());
    assert_eq!(shard.stats().failed, None);
}
