//! Every kernel against the definition in f64, every instruction set against every entry point.

use proptest::prelude::*;

use super::{Isa, Kernel};
use crate::metric::Metric;

const METRICS: [Metric; 4] = [Metric::Cosine, Metric::Dot, Metric::Euclid, Metric::Manhattan];

/// The distance by definition, and the sum of the absolute terms, to which rounding errors are relative.
fn by_definition(metric: Metric, a: &[f32], b: &[f32]) -> (f64, f64) {
    let terms = a.iter().zip(b).map(|(x, y)| {
        let (x, y) = (f64::from(*x), f64::from(*y));
        match metric {
            Metric::Cosine | Metric::Dot => -x * y,
            Metric::Euclid => (x - y) * (x - y),
            Metric::Manhattan => (x - y).abs(),
        }
    });
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

fn kernels() -> Vec<(Metric, Kernel)> {
    METRICS
        .into_iter()
        .flat_map(|metric| Isa::ALL.map(|isa| (metric, isa)))
        .filter_map(|(metric, isa)| Some((metric, Kernel::with_isa(metric, isa)?)))
        .collect()
}

/// A query and five rows of one length between 0 and 200, so that a quad and a tail row are present.
fn vectors() -> impl Strategy<Value = Vec<Vec<f32>>> {
    (0usize..200).prop_flat_map(|dim| prop::collection::vec(prop::collection::vec(-100.0f32..100.0, dim), 6))
}

proptest! {
    #[test]
    fn agrees_with_the_definition(vectors in vectors()) {
        let (query, rows) = vectors.split_first().unwrap();
        for (metric, kernel) in kernels() {
            for row in rows {
                let (expected, size) = by_definition(metric, query, row);
                let got = f64::from(kernel.distance(query, row));
                prop_assert!((got - expected).abs() <= 2e-6 * size + 1e-6, "{metric:?} {kernel:?}: {got} {expected}");
            }
        }
    }

    #[test]
    fn every_entry_point_gives_the_same_bits(vectors in vectors()) {
        let (query, rows) = vectors.split_first().unwrap();
        let data = rows.concat();
        for (_, kernel) in kernels() {
            let mut block = vec![0.0; rows.len()];
            kernel.distances(query, &data, query.len(), &mut block);
            let quad = kernel.distance4(query, [&rows[0], &rows[1], &rows[2], &rows[3]]);
            for (i, row) in rows.iter().enumerate() {
                let one = kernel.distance(query, row);
                prop_assert_eq!(one.to_bits(), kernel.distance(row, query).to_bits());
                prop_assert_eq!(one.to_bits(), block[i].to_bits());
                if i < 4 {
                    prop_assert_eq!(one.to_bits(), quad[i].to_bits());
                }
            }
        }
    }

    #[test]
    fn finite_input_gives_finite_distance(bits in prop::collection::vec(any::<(u32, u32)>(), 0..70)) {
        let (a, b): (Vec<f32>, Vec<f32>) = bits
            .into_iter()
            .map(|(a, b)| (f32::from_bits(a), f32::from_bits(b)))
            .filter(|(a, b)| a.is_finite() && b.is_finite())
            .unzip();
        for (_, kernel) in kernels() {
            prop_assert!(kernel.distance(&a, &b).is_finite());
            prop_assert!(kernel.distance4(&a, [&b; 4]).iter().all(|d| d.is_finite()));
        }
    }
}

#[cfg(target_arch = "aarch64")]
#[test]
fn neon_is_among_them_and_is_chosen() {
    for metric in METRICS {
        assert!(kernels().iter().any(|(of, kernel)| *of == metric && kernel.isa() == Isa::Neon), "{metric:?}");
        assert_eq!(Kernel::new(metric).isa(), Isa::Neon);
    }
}

#[test]
fn overflow_is_clamped_and_zero_has_no_sign() {
    for (metric, kernel) in kernels() {
        let big = vec![f32::MAX; 33];
        let mixed: Vec<f32> = (0..33).map(|i| if i % 2 == 0 { f32::MAX } else { f32::MIN }).collect();
        let expected = match metric {
            Metric::Cosine | Metric::Dot => f32::MIN,
            Metric::Euclid | Metric::Manhattan => 0.0,
        };
        assert_eq!(kernel.distance(&big, &big), expected, "{metric:?} {kernel:?}");
        assert!(kernel.distance(&big, &mixed).is_finite(), "{metric:?} {kernel:?}");
        let zeros = vec![0.0; 33];
        assert_eq!(kernel.distance(&zeros, &zeros).to_bits(), 0, "{metric:?} {kernel:?}");
        assert_eq!(kernel.distance(&[], &[]).to_bits(), 0, "{metric:?} {kernel:?}");
    }
}

#[test]
#[should_panic(expected = "one length")]
fn refuses_vectors_of_two_lengths() {
    Kernel::new(Metric::Dot).distance(&[1.0, 2.0], &[1.0]);
}
