//! How far distances of codes can be from exact ones. It follows from the triangle inequality, so that a scan of codes can
//! leave out rows for certain: what it returns is what a scan of the vectors returns.

use vicinal_common::metric::Metric;

use super::{CodedQuery, Coder, RowTerms};

/// Bounds over the rows of a segment. `step` is [`RowTerms::scale`] of a row; distances are L1 for Manhattan, L2 else.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CodeErrors {
    /// The distance of a vector to what its code stands for is at most so many steps.
    pub(crate) error_steps: f32,
    /// What a code stands for, less the mean, is at most so many steps long. 0 for Manhattan.
    pub(crate) norm_steps: f32,
    /// The largest step.
    pub(crate) step_max: f32,
    /// For Cosine the largest length of a vector: 1, unless all are zero or not prepared. Else 0.
    pub(crate) length_max: f32,
}

/// Rounding in the arithmetic of the bounds themselves.
pub(super) const ROUNDED: f32 = 1.001;
/// Rows whose components are all smaller than this have steps that no division should meet.
const TINY: f32 = 1e-30;
/// Lengths of vectors up to which no product or square of two leaves the range of f32.
const LENGTH_MAX: f64 = 1e18;

impl CodeErrors {
    /// The bounds of one row, whose codes are `codes`.
    pub(super) fn of_row(coder: &Coder, vector: &[f32], codes: &[u8], terms: RowTerms) -> CodeErrors {
        let is_l1 = coder.metric == Metric::Manhattan;
        let zero = if is_l1 { 0.0 } else { 128.0 };
        const LANES: usize = 16;
        let (mut errors, mut squares, mut lengths) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
        let mut add = |lane: usize, x: f32, mean: f32, code: u8| {
            let level = f32::from(code) - zero;
            let error = (x - mean) - terms.scale * level;
            errors[lane] += if is_l1 { error.abs() } else { error * error };
            squares[lane] += level * level;
            lengths[lane] += x * x;
        };
        let (xs, x_rest) = vector.as_chunks::<LANES>();
        let (means, mean_rest) = coder.mean.as_chunks::<LANES>();
        let (levels, level_rest) = codes[..vector.len()].as_chunks::<LANES>();
        for ((x, mean), code) in xs.iter().zip(means).zip(levels) {
            for lane in 0..LANES {
                add(lane, x[lane], mean[lane], code[lane]);
            }
        }
        for (lane, ((x, mean), code)) in x_rest.iter().zip(mean_rest).zip(level_rest).enumerate() {
            add(lane, *x, *mean, *code);
        }
        let (error, norm) = (errors.iter().sum::<f32>(), squares.iter().sum::<f32>().sqrt());
        let (error, norm) = if is_l1 { (error, 0.0) } else { (error.sqrt(), norm) };
        let error_steps = if terms.scale > TINY { error / terms.scale * ROUNDED } else { 0.0 };
        let length = if coder.metric == Metric::Cosine { lengths.iter().sum::<f32>().sqrt() } else { 0.0 };
        CodeErrors { error_steps, norm_steps: norm * ROUNDED, step_max: terms.scale, length_max: length }
    }

    /// Bounds of the rows of both.
    pub(super) fn max(self, other: CodeErrors) -> CodeErrors {
        // f32::max() would drop a NaN, which stands for no bound at all.
        let larger = |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::INFINITY } else { a.max(b) };
        CodeErrors {
            error_steps: larger(self.error_steps, other.error_steps),
            norm_steps: larger(self.norm_steps, other.norm_steps),
            step_max: larger(self.step_max, other.step_max),
            length_max: larger(self.length_max, other.length_max),
        }
    }
}

/// Which distances of codes a query's near rows can have.
pub(crate) struct CodeLimits {
    metric: Metric,
    errors: CodeErrors,
    /// Distance of the query to what its code stands for.
    query_error: f64,
    /// Length of the query less the mean.
    query_norm: f64,
    /// For Cosine the squared lengths of the query and of the longest row.
    squared_lengths: f64,
    /// Product of the query with the mean (Dot), or minus [`CodedQuery::lacking`]: from exact distances to those of codes.
    offset: f64,
    /// Rounding of sums in f32, those of the exact kernels and those that end in a distance of codes.
    slack: f64,
    relative: f64,
    /// How far a row may be from its code whose step is too small to divide by.
    tiny: f64,
}

impl CodeLimits {
    /// The limits of a query, which `coded` stands for.
    pub(crate) fn new(coder: &Coder, errors: CodeErrors, query: &[f32], coded: &CodedQuery) -> CodeLimits {
        let metric = coder.metric;
        let pairs = || query.iter().zip(&coder.mean).zip(&coded.bytes);
        let query_error: f64 = if metric == Metric::Manhattan {
            pairs().map(|((x, low), code)| f64::from((x - low) - coder.step * f32::from(*code as u8)).abs()).sum()
        } else {
            let step = coded.step(coder);
            pairs()
                .map(|((x, mean), level)| f64::from((x - mean) - step * f32::from(*level)).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let norm = |of: &dyn Fn(f32, f32) -> f32| {
            query.iter().zip(&coder.mean).map(|(x, mean)| f64::from(of(*x, *mean)).powi(2)).sum::<f64>().sqrt()
        };
        let (query_norm, mean_norm) = (norm(&|x, mean| x - mean), norm(&|_, mean| mean));
        let squared_lengths = norm(&|x, _| x).powi(2) + f64::from(errors.length_max).powi(2);
        let row_norm = f64::from(errors.norm_steps) * f64::from(errors.step_max);
        let relative = 1e-6 + 4e-9 * query.len() as f64;
        let (offset, slack) = match metric {
            Metric::Cosine | Metric::Euclid => {
                let lengths = row_norm.powi(2) + query_norm.powi(2) + squared_lengths;
                (-f64::from(coded.lacking), relative * lengths)
            }
            Metric::Dot => {
                let with_mean = query.iter().zip(&coder.mean).map(|(x, mean)| f64::from(*x) * f64::from(*mean)).sum();
                (with_mean, 4.0 * relative * (query_norm + mean_norm) * (row_norm + mean_norm))
            }
            Metric::Manhattan => (0.0, 0.0),
        };
        let query_error = query_error * f64::from(ROUNDED);
        let dim = query.len() as f64;
        let tiny = f64::from(TINY) * if metric == Metric::Manhattan { dim } else { dim.sqrt() };
        // Products of longer vectors may leave the range of f32, and a distance by code then says nothing.
        let is_in_range = metric == Metric::Manhattan || row_norm.max(query_norm).max(mean_norm) < LENGTH_MAX;
        let slack = if is_in_range { slack } else { f64::INFINITY };
        CodeLimits { metric, errors, query_error, query_norm, squared_lengths, offset, slack, relative, tiny }
    }

    /// The limits of rows that are as near as `distance` (exact, internal).
    pub(crate) fn at(&self, distance: f32) -> RowLimits {
        let distance = f64::from(distance);
        let CodeErrors { error_steps, norm_steps, step_max, .. } = self.errors;
        let (error_steps, norm_steps) = (f64::from(error_steps), f64::from(norm_steps));
        let reach = self.query_error + self.tiny;
        let (is_squared, base, per_step) = match self.metric {
            // |a - b|^2 = |a|^2 + |b|^2 - 2 <a, b>.
            Metric::Cosine => {
                // What rounding may have taken from the difference of nearly equal numbers is added before the root.
                let root = (self.squared_lengths * (1.0 + self.relative) + 2.0 * distance).max(0.0).sqrt();
                (true, root * (1.0 + self.relative) + reach, error_steps)
            }
            Metric::Euclid => (true, distance.sqrt() * (1.0 + self.relative) + reach, error_steps),
            Metric::Dot => {
                let base = distance + self.query_norm * self.tiny;
                (false, base, self.query_norm * error_steps + self.query_error * norm_steps)
            }
            Metric::Manhattan => {
                (false, (distance + reach) * (1.0 + self.relative), error_steps * (1.0 + self.relative))
            }
        };
        let most = base + per_step * f64::from(step_max);
        let largest = if is_squared { most * most } else { base.abs() + most.abs() };
        let add = self.offset + self.slack;
        // Limits are computed in f32, from numbers that are rounded to it: ten roundings, of half an epsilon each, at most.
        let add = add + 6.0 * f64::from(f32::EPSILON) * (largest + add.abs()) + f64::from(f32::MIN_POSITIVE);
        let [base, per_step, add] = [base, per_step, add].map(|x| x as f32);
        if base.is_finite() && per_step.is_finite() && add.is_finite() {
            RowLimits { is_squared, base, per_step, add }
        } else {
            RowLimits { is_squared: false, base: f32::INFINITY, per_step: 0.0, add: 0.0 }
        }
    }
}

/// How far by code rows may be that are as near as some distance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowLimits {
    /// Whether the limit is a square plus `add`, or a sum.
    is_squared: bool,
    base: f32,
    per_step: f32,
    add: f32,
}

impl RowLimits {
    /// A row of this step can only be that near when its distance by code is at most this.
    #[inline(always)]
    pub(crate) fn of(&self, step: f32) -> f32 {
        let reach = self.base + self.per_step * step;
        if self.is_squared { reach * reach + self.add } else { reach + self.add }
    }

    /// Whether a row of this step and at this distance by code is certainly not that near.
    #[inline(always)]
    pub(crate) fn rule_out(&self, by_code: f32, step: f32) -> bool {
        by_code > self.of(step)
    }
}

#[cfg(test)]
mod tests;
