//! Sums in f64 over one block of pixels.

use crate::ops::cpu::Real;

/// Sums side by side; the loop over them is long enough that the compiler keeps it one and takes it in vector registers.
const LANES: usize = 128;

/// `Σ x_i` in f64.
#[inline(always)]
pub(super) fn sum<T: Real>(x: &[T]) -> f64 {
    lanes(x, 0.0, |lane, x| lane + x).iter().sum()
}

/// `Σ log x_i` in f64 of at most one block of values, each from 1 to 60 000: the logarithm of products of 64.
#[inline(always)]
pub(super) fn sum_of_logs<T: Real>(x: &[T]) -> f64 {
    let products = lanes(x, 1.0, |lane, x| lane * x);
    let (eighths, _) = products.as_chunks::<8>();
    eighths.iter().map(|factors| factors.iter().product::<f64>().ln()).sum()
}

#[inline(always)]
fn lanes<T: Real>(x: &[T], start: f64, f: impl Fn(f64, f64) -> f64) -> [f64; LANES] {
    let mut lanes = [start; LANES];
    for x in x.chunks(LANES) {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = f(*lane, x.to_f64().unwrap_or(f64::NAN));
        }
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::losses::pixels::BLOCK;

    #[test]
    fn sums_and_logarithms_of_any_length() {
        for n in [0, 1, 127, 129, BLOCK] {
            let x: Vec<f64> = (0..n).map(|i| 1.0 + (i * 60) as f64).collect();
            assert!((sum(&x) - x.iter().sum::<f64>()).abs() < 1e-6);
            let want: f64 = x.iter().map(|x| x.ln()).sum();
            assert!((sum_of_logs(&x) - want).abs() <= 1e-12 * want, "{n}");
        }
    }
}
