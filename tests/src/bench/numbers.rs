//! What the benchmarks' figures are rounded and summed up with.

use serde::Serialize;

/// Milliseconds, to a tenth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of values in any order; of none it is all zero.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self {
            min: tenth(values.first().copied().unwrap_or_default()),
            median: tenth(median(&values)),
            max: tenth(values.last().copied().unwrap_or_default()),
        }
    }
}

/// Of sorted values; of an even number the mean of the two in the middle.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// To one place behind the point.
pub(crate) fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_number_is_the_one_in_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 9.0]).to_bits(), 2.0_f64.to_bits());
    }

    #[test]
    fn the_order_does_not_matter() {
        assert_eq!(Spread::of(vec![41.04, 10.0, 30.0, 20.0]), Spread { min: 10.0, median: 25.0, max: 41.0 });
    }
}
