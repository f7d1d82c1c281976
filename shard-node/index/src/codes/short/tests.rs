//! What 4-bit codes say is what they stand for, in all layouts.

use proptest::prelude::*;

use super::*;
use crate::Rows;
use crate::codes::{Codes, Packing};
use crate::hnsw::any_row;
use crate::hnsw::tests::clustered;

fn short_of(codes: &Codes) -> ShortCodes {
    let rows = codes.rows();
    let mut short = ShortCodes::of(codes.view(), codes.errors).unwrap();
    short.learn(codes.view(), |i| Some((any_row(i, rows), any_row(i ^ 0x55, rows))));
    short
}

proptest! {
    #[test]
    fn a_row_is_dealt_out_once_and_its_terms_follow(dim in 1usize..2000) {
        let layout = Layout::new(dim);
        let mut seen: Vec<usize> = layout.blocks().flatten().flatten().collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..dim).collect::<Vec<_>>());
        prop_assert!(layout.terms_at.is_multiple_of(8) && layout.stride.is_multiple_of(8));
        prop_assert!(layout.terms_at >= dim.div_ceil(2) && layout.terms_at < dim.div_ceil(2) + 8);
        prop_assert!(layout.stride >= layout.terms_at + size_of::<RowTerms>());
        // No row touches more lines than it must.
        let lines = |row: usize| {
            let start = row * layout.stride;
            (start + layout.terms_at + size_of::<RowTerms>()).div_ceil(LINE) - start / LINE
        };
        let least = (layout.terms_at + size_of::<RowTerms>()).div_ceil(LINE);
        prop_assert!((0..64).all(|row| lines(row) == least));
    }

    #[test]
    fn distances_are_those_of_what_the_codes_stand_for(
        dim in prop_oneof![1usize..40, 100usize..140, 380usize..390],
        metric in prop_oneof![Just(Metric::Euclid), Just(Metric::Cosine), Just(Metric::Dot)],
        seed in any::<u64>(),
    ) {
        let data = clustered(metric, 30, dim, seed);
        let codes = Codes::of(Rows { data: &data, dim }, metric, Packing::Lines).unwrap();
        let short = short_of(&codes);
        let (kernel, view) = (CodeKernel::new(), codes.view());
        let (mut coded, mut query) = (CodedQuery::default(), ShortQuery::default());
        view.coder.query(kernel, &data[..dim], &mut coded);
        short.query(&coded, &mut query);
        let rows: Vec<u32> = (0..30).collect();
        let (mut products, mut got) = (Vec::new(), Vec::new());
        short.score(kernel, &query, &rows, &mut products, &mut got);
        for (row, got) in rows.iter().zip(got) {
            let codes = &view.rows.data[*row as usize * view.rows.stride..][..dim];
            let terms = view.terms[*row as usize];
            let of = |level: f64| f64::from(terms.scale) * level;
            let (mut product, mut squares, mut errors) = (0.0, 0.0, 0.0);
            for (code, level) in codes.iter().zip(&coded.bytes) {
                let middle = 16.0 * (f64::from(code >> 4) - 7.5);
                product += of(middle) * f64::from(*level);
                squares += of(middle).powi(2);
                errors += of(f64::from(*code) - 128.0 - middle).powi(2);
            }
            let add = if metric == Metric::Dot { f64::from(terms.add) } else { squares - errors };
            let expected = add + f64::from(coded.scale) * product;
            let size = squares.abs() + (f64::from(coded.scale) * product).abs() + add.abs();
            prop_assert!((f64::from(got) - expected).abs() <= 1e-5 * size + 1e-30, "{got} {expected}");
        }
    }
}

#[test]
fn the_slack_covers_nearly_all_near_rows_and_no_more_than_it_must() {
    for metric in [Metric::Euclid, Metric::Cosine, Metric::Dot] {
        let (dim, count) = (96, 3000);
        let data = clustered(metric, count, dim, 7);
        let rows = Rows { data: &data, dim };
        let codes = Codes::of(rows, metric, Packing::Lines).unwrap();
        let short = short_of(&codes);
        let exact = vicinal_common::distance::Kernel::new(metric);
        let (mut coded, mut query) = (CodedQuery::default(), ShortQuery::default());
        let (mut products, mut by_code) = (Vec::new(), Vec::new());
        let (mut beyond, mut all) = (0, 0);
        for from in (0..count as u32).step_by(97) {
            codes.coder.query(CodeKernel::new(), rows.row(from), &mut coded);
            short.query(&coded, &mut query);
            let others: Vec<u32> = (0..count as u32).filter(|row| *row != from).collect();
            short.score(CodeKernel::new(), &query, &others, &mut products, &mut by_code);
            for (row, by_code) in others.iter().zip(&by_code) {
                let distance = exact.distance(rows.row(from), rows.row(*row));
                beyond += usize::from(short.is_beyond(&query, (*row, *by_code), distance));
                all += 1;
            }
        }
        let share = beyond as f64 / all as f64;
        assert!((0.001..0.06).contains(&share), "{metric:?}: {share}");
    }
}
