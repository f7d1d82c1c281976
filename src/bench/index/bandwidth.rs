//! How fast this machine reads memory: what no scan can beat.

use std::time::{Duration, Instant};

/// Bytes per second that so many threads together read the values with, in order, doing next to nothing with them. The
/// fastest of a few rounds.
pub(super) fn read(values: &[f32], threads: usize, rounds: usize) -> f64 {
    let share = values.len().div_ceil(threads).max(1);
    let mut best = Duration::MAX;
    for _ in 0..rounds.max(1) {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in values.chunks(share) {
                scope.spawn(|| std::hint::black_box(fold(part)));
            }
        });
        best = best.min(started.elapsed());
    }
    size_of_val(values) as f64 / best.as_secs_f64().max(1e-9)
}

/// All bits of all values, folded. Lanes enough that loads, not the folding, set the pace.
fn fold(values: &[f32]) -> u32 {
    const LANES: usize = 64;
    let mut lanes = [0u32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] ^= chunk[lane].to_bits();
        }
    }
    let rest = rest.iter().fold(0, |folded, value| folded ^ value.to_bits());
    lanes.into_iter().fold(rest, |folded, lane| folded ^ lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_read() {
        let values: Vec<f32> = (0..1_000).map(|i| f32::from_bits(1 << (i % 32) ^ i)).collect();
        assert_eq!(fold(&values), values.iter().fold(0, |folded, value| folded ^ value.to_bits()));
        assert!(read(&values, 3, 2) > 0.0);
    }
}
