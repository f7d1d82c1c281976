//! The smallest beam that reaches a recall, found by asking.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use vicinal_common::limits::EF_MAX;

use super::recall::Recall;
use super::step::Driver;

/// Queries in flight while recalls are measured, which takes no time that counts.
const IN_FLIGHT: usize = 4;

/// The beam of some steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Beam {
    /// The server's choice when absent.
    pub(super) ef: Option<usize>,
    /// The recall that it was found for.
    pub(super) recall: Option<f64>,
}

impl Beam {
    /// Its fields of a line.
    pub(super) fn line(&self) -> Value {
        json!({"ef": self.ef, "recall_wanted": self.recall})
    }
}

/// The recall over all queries, each asked once.
pub(super) async fn recall(driver: Arc<Driver>, exact: &[Vec<u32>]) -> anyhow::Result<f64> {
    let tally = driver.each_once(IN_FLIGHT).await?;
    let (_, failed) = tally.totals();
    if failed > 0 {
        let texts: Vec<&String> = tally.examples.values().collect();
        bail!("{failed} queries failed while beams were compared, such as: {texts:?}");
    }
    let recall = Recall::of(&tally.kept, exact);
    ensure!(recall.unreadable == 0, "{} answers could not be read", recall.unreadable);
    recall.share().context("no query has exact neighbours to compare with")
}

/// The smallest beam of at least `k` whose recall is `wanted` or better, taking it that recall rises with the beam. An
/// error when the largest beam does not reach it.
pub(super) async fn smallest(
    k: usize,
    wanted: f64,
    recall: &impl AsyncFn(usize) -> anyhow::Result<f64>,
) -> anyhow::Result<usize> {
    let (mut too_small, mut enough) = (k.saturating_sub(1), k.max(1));
    loop {
        let reached = recall(enough).await?;
        if reached >= wanted {
            break;
        }
        ensure!(enough < EF_MAX, "a recall of {wanted} is not reached: it is {reached} with a beam of {enough}");
        too_small = enough;
        enough = (2 * enough).min(EF_MAX);
    }
    // Halves the distance each time.
    while enough - too_small > 1 {
        let between = too_small + (enough - too_small) / 2;
        if recall(between).await? >= wanted {
            enough = between;
        } else {
            too_small = between;
        }
    }
    Ok(enough)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn the_smallest_beam_is_found_in_few_steps() {
        for least in [10, 11, 37, 80, 641, EF_MAX] {
            let steps = Cell::new(0);
            let recall = async |ef: usize| {
                steps.set(steps.get() + 1);
                Ok(if ef >= least { 0.95 } else { 0.9 })
            };
            assert_eq!(smallest(10, 0.95, &recall).await.unwrap(), least);
            assert!(steps.get() <= 2 * EF_MAX.ilog2() + 2, "{least}: {}", steps.get());
        }
        let never = async |_| Ok(0.94);
        assert!(smallest(10, 0.95, &never).await.unwrap_err().to_string().contains("0.94"));
        let refused = async |_| Err(anyhow::anyhow!("gone"));
        assert!(smallest(10, 0.95, &refused).await.is_err());
    }
}
