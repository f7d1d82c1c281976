//! The nearest by code are what sorting all rows gives, however rows are given out and spread over threads.

use proptest::prelude::*;

use super::*;
use crate::RowSet;
use crate::hnsw::mix;

proptest! {
    #[test]
    fn the_nearest_by_code_are_the_first_of_all_in_order(
        count in 0usize..1500,
        // So many distances that are different: few of them make many ties.
        levels in prop_oneof![1u64..4, 1u64..5000],
        per_mille in prop_oneof![0u64..30, 0u64..1001],
        (kept, threads) in (1usize..90, 1usize..5),
        seed in any::<u64>(),
    ) {
        let distance = |row: u32| (mix(u64::from(row) ^ seed) % levels) as f32 - 2.0;
        let test = |row: u32| mix(u64::from(row).wrapping_add(seed)) % 1000 < per_mille;
        let accepted: Vec<u32> = (0..count as u32).filter(|row| test(*row)).collect();
        let mut expected: Vec<Hit> = accepted.iter().map(|row| Hit { distance: distance(*row), row: *row }).collect();
        expected.sort_by(Hit::cmp_total);
        expected.truncate(kept);
        let score = |block: &[u32], buffers: &mut CodeBuffers| {
            buffers.by_code.clear();
            buffers.by_code.extend(block.iter().map(|row| distance(*row)));
        };
        let set = RowSet::of(count, accepted.iter().copied());
        let params = SearchParams { threads, ..SearchParams::new(kept, 1) };
        // Rows so large that threads take few at a time.
        let bytes = count << 20;
        for accept in [set.accept(), Accept::test(&test), Accept::Test { test: &test, count: Some(accepted.len()) }] {
            let found = nearest((count, bytes), params, accept, score);
            prop_assert_eq!(&found.hits, &expected);
            prop_assert_eq!(found.distances, accepted.len() as u64);
        }
    }
}
