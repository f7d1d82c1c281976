//! Both ways of searching against scoring everything naively.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::search::{Pruning, search};
use super::*;
use crate::{Accept, RowSet};

/// Indices with values, ascending.
type Vector = (Vec<u32>, Vec<f32>);

fn as_ref(vector: &Vector) -> SparseRef<'_> {
    SparseRef { indices: &vector.0, values: &vector.1 }
}

fn vectors(rows: &[(u32, Vector)]) -> impl Iterator<Item = (u32, SparseRef<'_>)> + Clone {
    rows.iter().map(|(row, vector)| (*row, as_ref(vector)))
}

fn postings(rows: &[(u32, Vector)]) -> OwnedPostings {
    let owned = OwnedPostings::from_rows(vectors(rows)).unwrap();
    owned.as_ref().check(rows.last().map_or(0, |(row, _)| row + 1)).unwrap();
    owned
}

/// The definition: look for each index of the query in the row.
fn naive(rows: &[(u32, Vector)], query: SparseRef<'_>, k: usize, accept: Accept<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (row, (indices, values)) in rows {
        let shared: Vec<f32> = query
            .indices
            .iter()
            .zip(query.values)
            .filter_map(|(dim, weight)| indices.iter().position(|other| other == dim).map(|at| weight * values[at]))
            .collect();
        if !shared.is_empty() && accept.contains(*row) {
            hits.push(Hit { distance: 0.0 - shared.iter().fold(0.0, |sum, product| sum + product), row: *row });
        }
    }
    hits.sort_by(Hit::cmp_total);
    hits.truncate(k);
    hits
}

/// Hits with the bits of their distances: -0.0 is not 0.0.
fn bits(hits: &[Hit]) -> Vec<(u32, u32)> {
    hits.iter().map(|hit| (hit.distance.to_bits(), hit.row)).collect()
}

/// Whole numbers tie and cancel out; others round.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![(-3i8..4).prop_map(f32::from), -1.0f32..1.0, Just(-0.0f32), 0.0f32..9.0]
}

fn vector(dims: u32, len: usize) -> impl Strategy<Value = Vector> {
    prop::collection::btree_map(0..dims, value(), 0..len).prop_map(|vector| vector.into_iter().unzip())
}

/// Rows with gaps between them, so that they spread over several windows.
fn rows() -> impl Strategy<Value = Vec<(u32, Vector)>> {
    (prop::collection::vec((1u32..3, vector(12, 8)), 0..120), prop_oneof![Just(1u32), Just(300)]).prop_map(
        |(rows, stretch)| {
            let mut next = 0;
            let place = |(gap, vector)| {
                next += gap * stretch;
                (next - 1, vector)
            };
            rows.into_iter().map(place).collect()
        },
    )
}

proptest! {
    #[test]
    fn both_searches_equal_scoring_everything(
        rows in rows(),
        query in vector(15, 10),
        k in 0usize..30,
        modulus in 1u32..5,
    ) {
        let query = as_ref(&query);
        let owned = postings(&rows);
        let test = |row: u32| row.is_multiple_of(modulus);
        let end = rows.last().map_or(0, |(row, _)| *row as usize + 1);
        let set = RowSet::of(end, (0..end as u32).filter(|row| test(*row)));
        for accept in [Accept::All, Accept::test(&test), set.accept()] {
            let expected = bits(&naive(&rows, query, k, accept));
            for pruning in [Pruning::Paying, Pruning::Full, Pruning::Off] {
                prop_assert_eq!(&bits(&search(owned.as_ref(), query, k, accept, pruning)), &expected);
            }
            prop_assert_eq!(&bits(&score_rows(rows.len(), vectors(&rows), query, k, accept)), &expected);
            let backwards = vectors(&rows).collect::<Vec<_>>().into_iter().rev();
            prop_assert_eq!(&bits(&score_rows(rows.len(), backwards, query, k, accept)), &expected);
        }
    }

    #[test]
    fn dot_is_none_exactly_when_nothing_is_shared(a in vector(12, 8), b in vector(12, 8)) {
        let expected = naive(&[(0, a.clone())], as_ref(&b), 1, Accept::All).first().map(|hit| hit.distance);
        prop_assert_eq!(dot(as_ref(&a), as_ref(&b)).map(|score| 0.0 - score), expected);
        prop_assert_eq!(dot(as_ref(&b), as_ref(&a)), dot(as_ref(&a), as_ref(&b)));
    }

    #[test]
    fn postings_list_every_value_once(rows in rows()) {
        let owned = postings(&rows);
        let view = owned.as_ref();
        prop_assert_eq!(view.rows.len(), rows.iter().map(|(_, vector)| vector.0.len()).sum::<usize>());
        for dim in 0..13 {
            prop_assert_eq!(view.len_of(dim), rows.iter().filter(|(_, vector)| vector.0.contains(&dim)).count());
        }
        prop_assert!(view.check(u32::MAX).is_ok());
    }
}

/// Many rows whose few best have rare indices, as in text: lists are left out, looked up and added.
fn text_like(seed: u64, rows: u32, dims: u32, signs: bool) -> (Vec<(u32, Vector)>, Vector) {
    let mut state = seed;
    let mut next = move || {
        // SplitMix64 (Steele et al., Fast splittable pseudorandom number generators, 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((mixed ^ (mixed >> 27)) >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut vector = |len: usize| -> Vector {
        let value = |next: &mut dyn FnMut() -> f32| {
            let value = 3.0 * next() * next();
            if signs && next() < 0.2 { -value } else { value }
        };
        let dim = |next: &mut dyn FnMut() -> f32| (dims as f32 * next() * next() * next()) as u32;
        let map: std::collections::BTreeMap<u32, f32> = (0..len).map(|_| (dim(&mut next), value(&mut next))).collect();
        map.into_iter().unzip()
    };
    let all = (0..rows).map(|row| (row, vector(12))).collect();
    (all, vector(20))
}

#[test]
fn pruning_changes_no_bit_over_many_windows() {
    for (seed, signs) in [(1, false), (2, true), (3, false), (4, true)] {
        let (rows, query) = text_like(seed, 60_000, 300, signs);
        let owned = postings(&rows);
        let some = RowSet::of(rows.len(), (0..rows.len() as u32).filter(|row| row % 7 < 3));
        for accept in [Accept::All, some.accept(), Accept::test(&|row| row > 40_000)] {
            for k in [1, 10, 1_000, 50_000] {
                let pruned = search(owned.as_ref(), as_ref(&query), k, accept, Pruning::Paying);
                let full = search(owned.as_ref(), as_ref(&query), k, accept, Pruning::Full);
                let whole = search(owned.as_ref(), as_ref(&query), k, accept, Pruning::Off);
                let by_row = score_rows(rows.len(), vectors(&rows), as_ref(&query), k, accept);
                assert_eq!(bits(&pruned), bits(&whole), "seed {seed} k {k}");
                assert_eq!(bits(&full), bits(&whole), "seed {seed} k {k}");
                assert_eq!(bits(&pruned), bits(&by_row), "seed {seed} k {k}");
            }
        }
    }
}

#[test]
fn a_filter_is_asked_only_about_rows_that_would_be_hits() {
    let (rows, query) = text_like(5, 60_000, 300, false);
    let owned = postings(&rows);
    let asked = AtomicUsize::new(0);
    let test = |row: u32| {
        asked.fetch_add(1, Ordering::Relaxed);
        row.is_multiple_of(2)
    };
    assert_eq!(owned.as_ref().search(as_ref(&query), 10, Accept::test(&test)).len(), 10);
    let asked = asked.into_inner();
    assert!(asked < 1_000, "asked about {asked} rows");
}

#[test]
fn rows_that_share_an_index_are_hits_whatever_their_score() {
    let rows =
        [(0, (vec![1], vec![-1.0])), (1, (vec![2], vec![5.0])), (2, (vec![1], vec![0.0])), (3, (vec![], vec![]))];
    let hits = postings(&rows).as_ref().search(SparseRef { indices: &[1], values: &[2.0] }, 10, Accept::All);
    assert_eq!(hits, [Hit { distance: 0.0, row: 2 }, Hit { distance: 2.0, row: 0 }]);
}

#[test]
fn odd_queries_find_nothing_or_everything_and_never_panic() {
    let rows = [(0, (vec![0, u32::MAX], vec![f32::MAX, f32::MAX])), (70_000, (vec![u32::MAX], vec![1.0]))];
    let owned = postings(&rows);
    let rows_of = |hits: Vec<Hit>| hits.iter().map(|hit| hit.row).collect::<Vec<_>>();
    let find = |indices, values, k| {
        let query = SparseRef { indices, values };
        let hits = owned.as_ref().search(query, k, Accept::All);
        assert_eq!(bits(&hits), bits(&score_rows(2, vectors(&rows), query, k, Accept::All)));
        assert!(hits.iter().all(|hit| !hit.distance.is_nan()));
        rows_of(hits)
    };
    assert!(find(&[], &[], 5).is_empty());
    assert!(find(&[7], &[1.0], 5).is_empty());
    assert!(find(&[0, u32::MAX], &[1.0, 1.0], 0).is_empty());
    assert_eq!(find(&[0, u32::MAX], &[1.0, 1.0], usize::MAX), [0, 70_000]);
    // Infinity minus infinity is no number, and last.
    assert_eq!(find(&[0, u32::MAX], &[f32::MAX, f32::MIN], 5), [70_000, 0]);
    assert_eq!(find(&[u32::MAX], &[f32::MIN], 1), [70_000]);
    assert!(rows_of(OwnedPostings::default().as_ref().search(SparseRef::default(), 5, Accept::All)).is_empty());
}

#[test]
fn vectors_that_break_a_rule_are_refused() {
    let build = |rows: &[(u32, Vector)]| OwnedPostings::from_rows(vectors(rows)).unwrap_err();
    assert!(build(&[(1, (vec![], vec![])), (1, (vec![], vec![]))]).contains("rows"));
    assert!(build(&[(u32::MAX, (vec![], vec![]))]).contains("beyond"));
    assert!(build(&[(0, (vec![1], vec![]))]).contains("as many values"));
    assert!(build(&[(0, (vec![1, 1], vec![1.0, 1.0]))]).contains("ascending"));
    assert!(build(&[(0, (vec![1], vec![f32::NAN]))]).contains("finite"));
}

#[test]
fn hashed_indices_anywhere_in_their_bits_are_indexed() {
    let dims: std::collections::BTreeSet<u32> = (0..20_000u32).map(|i| i.wrapping_mul(0x85EB_CA6B)).collect();
    let row = (0, (dims.iter().copied().collect(), vec![1.0; dims.len()]));
    let owned = postings(&[row]);
    assert!(dims.iter().eq(owned.as_ref().dims));
}

#[test]
fn hostile_postings_are_refused() {
    let good = Postings {
        dims: &[3, 9],
        starts: &[0, 2, 3],
        rows: &[0, 4, 1],
        values: &[1.0, -1.0, 2.0],
        maxima: &[1.0, 2.0],
        minima: &[-1.0, 2.0],
    };
    assert_eq!(good.check(5), Ok(()));
    assert_eq!(Postings::default().check(0), Ok(()));
    assert_eq!(Postings { starts: &[0], ..Postings::default() }.check(0), Ok(()));
    let bad = [
        Postings { dims: &[9, 3], ..good },
        Postings { dims: &[3, 3], ..good },
        Postings { dims: &[3], ..good },
        Postings { dims: &[], ..good },
        Postings { starts: &[], ..good },
        Postings { starts: &[0, 3], ..good },
        Postings { starts: &[1, 2, 3], ..good },
        Postings { starts: &[0, 2, 4], ..good },
        Postings { starts: &[0, 3, 3], ..good },
        Postings { starts: &[0, u64::MAX, 3], ..good },
        Postings { rows: &[4, 0, 1], ..good },
        Postings { rows: &[4, 4, 1], ..good },
        Postings { rows: &[0, 5, 1], ..good },
        Postings { rows: &[0, 4], ..good },
        Postings { values: &[1.0, -1.0], ..good },
        Postings { values: &[1.0, f32::NAN, 2.0], ..good },
        Postings { values: &[1.0, f32::NEG_INFINITY, 2.0], minima: &[f32::NEG_INFINITY, 2.0], ..good },
        Postings { maxima: &[1.0], ..good },
        Postings { maxima: &[0.5, 2.0], ..good },
        Postings { minima: &[-1.0, f32::NAN], ..good },
        Postings { minima: &[-2.0, 2.0], ..good },
        Postings { rows: &[0], ..Postings::default() },
        Postings { rows: &[0], values: &[0.0], ..Postings::default() },
    ];
    for (number, bad) in bad.iter().enumerate() {
        assert!(bad.check(5).is_err(), "number {number}");
    }
}
