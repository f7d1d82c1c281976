//! Every instruction set of this machine against plain Rust, to the bit.

use proptest::prelude::*;
use vicinal_common::distance::Isa;

use super::{CodeKernel, CodeRows, LINE};

/// Arbitrary, and the same for the same number. By itself: these tests are also compiled without the rest of the crate.
fn byte_of(number: u64) -> u8 {
    let number = (number ^ number >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((number ^ number >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 56) as u8
}

fn kernels() -> impl Iterator<Item = (Isa, CodeKernel)> {
    Isa::ALL.into_iter().filter_map(|isa| Some((isa, CodeKernel::with_isa(isa)?)))
}

proptest! {
    #[test]
    fn all_instruction_sets_agree_with_the_definition(
        (dim, rows) in (1usize..300, 1usize..23),
        seed in any::<u64>(),
        extreme in any::<bool>(),
    ) {
        let stride = dim.next_multiple_of(LINE);
        let byte = |n: u64| byte_of(seed ^ n);
        // The extremes are where narrow sums would saturate.
        let code = |n: u64| if extreme { 255 * (byte(n) & 1) } else { byte(n) };
        let data: Vec<u8> = (0..(rows * stride) as u64).map(code).collect();
        let codes = CodeRows { data: &data, stride };
        let mut signed = vec![0i8; stride];
        let mut unsigned = vec![0u8; stride];
        for (i, query) in signed[..dim].iter_mut().enumerate() {
            *query = if extreme { -128 } else { byte(1 << 32 | i as u64) as i8 };
        }
        // A sum of differences has no zero to hide the rest of the row behind: all bytes count.
        unsigned.iter_mut().enumerate().for_each(|(i, q)| *q = code(1 << 33 | i as u64));
        let order: Vec<u32> = (0..rows as u64 + 5).map(|i| u32::from(byte_of(seed ^ 1 << 34 ^ i)) % rows as u32).collect();
        let row = |row: u32| &data[row as usize * stride..][..stride];
        let dots: Vec<i32> = order
            .iter()
            .map(|r| row(*r).iter().zip(&signed).map(|(c, q)| i32::from(*c) * i32::from(*q)).sum())
            .collect();
        let sads: Vec<i32> = order
            .iter()
            .map(|r| row(*r).iter().zip(&unsigned).map(|(c, q)| i32::from(c.abs_diff(*q))).sum())
            .collect();
        // Two bytes of the query for each of a row: for its lower half, and a line later for its upper one.
        let twice: Vec<i8> = signed.iter().chain(&signed).map(|q| q.wrapping_add(1)).collect();
        let nibble = |row: &[u8], line: usize, at: usize| {
            let (code, query) = (i32::from(row[line * LINE + at]), &twice[2 * line * LINE + at..]);
            i32::from(query[0]) * (code % 16) + i32::from(query[LINE]) * (code / 16)
        };
        let row_nibbles = |r: u32| (0..stride).map(|i| nibble(row(r), i / LINE, i % LINE)).sum();
        let nibbles: Vec<i32> = order.iter().map(|r| row_nibbles(*r)).collect();
        for (isa, kernel) in kernels() {
            let mut out = vec![1; order.len()];
            kernel.nibble_dots(&twice, codes, &order, &mut out);
            prop_assert_eq!(&out, &nibbles, "{:?}", isa);
            kernel.dots(&signed, codes, &order, &mut out);
            prop_assert_eq!(&out, &dots, "{:?}", isa);
            kernel.sads(&unsigned, codes, &order, &mut out);
            prop_assert_eq!(&out, &sads, "{:?}", isa);
        }
    }
}

#[cfg(target_arch = "aarch64")]
#[test]
fn neon_is_among_them_and_is_chosen() {
    assert!(kernels().any(|(isa, _)| isa == Isa::Neon));
    assert!(std::ptr::eq(CodeKernel::new().table, &super::neon::TABLE));
}

#[test]
#[should_panic(expected = "row 2 ends at 192 of 128 bytes")]
fn a_row_that_is_not_there_is_refused() {
    let codes = CodeRows { data: &[0; 2 * LINE], stride: LINE };
    CodeKernel::new().dots(&[0; LINE], codes, &[0, 2], &mut [0, 0]);
}

proptest! {
    #[test]
    fn all_instruction_sets_code_alike(
        pairs in prop::collection::vec((any::<f32>(), -10f32..10.0), 0..300),
        inverse in prop_oneof![Just(0f32), 0f32..50.0, any::<f32>()],
    ) {
        let (vector, mean): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let scalar = CodeKernel::with_isa(Isa::Scalar).unwrap();
        let mut expected = vec![0; vector.len()];
        let sum = scalar.quantize(&vector, &mean, inverse, &mut expected);
        prop_assert_eq!(sum, expected.iter().map(|level| i32::from(*level)).sum::<i32>());
        for (isa, kernel) in kernels() {
            let mut got = vec![1; vector.len()];
            prop_assert_eq!(kernel.quantize(&vector, &mean, inverse, &mut got), sum, "{:?}", isa);
            prop_assert_eq!(&got, &expected, "{:?}", isa);
            let largest = kernel.spread(&vector, &mean);
            prop_assert_eq!(largest.to_bits(), scalar.spread(&vector, &mean).to_bits(), "{:?}", isa);
            prop_assert!(largest.is_finite());
        }
    }
}
