//! The float types that kernels compute in.
#![allow(unsafe_code)] // a register's values go through an array where they are taken one by one

use super::registers::Lanes;
use candle_core::WithDType;
use num_traits::Float;
use pulp::Simd;
use std::iter::Sum;
use std::ops::{AddAssign, MulAssign};

/// A float type that kernels compute in.
pub(in crate::ops) trait Real:
    Float + WithDType + Lanes + Sum + AddAssign + MulAssign + Default + Send + Sync
{
    /// A constant.
    fn of(value: f64) -> Self;

    /// The error function.
    fn erf(self) -> Self;

    /// The error function of a register's values.
    fn erf_of<S: Simd>(simd: S, x: Self::Of<S>) -> Self::Of<S>;

    /// The exponential function of a value that is at most 0 or moderate; a loop over f32 runs in vector registers.
    fn exponential(self) -> Self;
}

/// Constants, such as drop-path's factors.
pub(in crate::ops) fn all_of<T: Real>(values: &[f64]) -> Vec<T> {
    values.iter().map(|value| T::of(*value)).collect()
}

impl Real for f64 {
    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }

    fn erf(self) -> Self {
        libm::erf(self)
    }

    #[inline(always)]
    fn erf_of<S: Simd>(simd: S, x: S::f64s) -> S::f64s {
        let mut values = [0.0; 8]; // as many as the widest registers hold
        let lanes = Self::lanes::<S>().min(values.len());
        // SAFETY: the array holds at least `lanes` values.
        unsafe {
            Self::store(simd, values.as_mut_ptr(), lanes, x);
            values.iter_mut().for_each(|value| *value = libm::erf(*value));
            Self::load(simd, values.as_ptr(), lanes)
        }
    }

    #[inline(always)]
    fn exponential(self) -> Self {
        self.exp()
    }
}

/// The error function's numerator and denominator, in powers of the square.
const ERF_ODD: [f32; 7] =
    [-2.726_142_3e-10, 2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2];
const ERF_EVEN: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2];

impl Real for f32 {
    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }

    /// A quotient of polynomials, odd over even, good to a few units in the last place; a loop over it runs in vector registers.
    #[inline(always)]
    fn erf(self) -> Self {
        let x = self.clamp(-4.0, 4.0); // beyond, it is ±1 to f32
        let square = x * x;
        let horner = |sum: f32, c: &f32| sum * square + c;
        x * ERF_ODD.iter().fold(0.0, horner) / ERF_EVEN.iter().fold(0.0, horner)
    }

    #[inline(always)]
    fn erf_of<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
        let all = |value: f32| Self::splat(simd, value);
        let x = Self::lesser(simd, Self::greater(simd, x, all(-4.0)), all(4.0));
        let square = Self::times(simd, x, x);
        let (mut odd, mut even) = (all(ERF_ODD[0]), all(ERF_EVEN[0]));
        for c in &ERF_ODD[1..] {
            odd = Self::multiply_add(simd, odd, square, all(*c));
        }
        for c in &ERF_EVEN[1..] {
            even = Self::multiply_add(simd, even, square, all(*c));
        }
        Self::over(simd, Self::times(simd, x, odd), even)
    }

    /// `2^n e^r` with n whole and r at most half of ln 2, `e^r` by its series; good to two units in the last place. Below -80 it is 0:
    /// shares of a masked softmax would be subnormal, and processors take a hundred times longer over those.
    #[inline(always)]
    fn exponential(self) -> Self {
        // Adding 1.5 * 2^23 leaves the nearest whole number in the low bits of the mantissa.
        const TO_WHOLE: f32 = 12_582_912.0;
        // ln 2 in two parts, the first short enough that its product with n is exact.
        const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
        const SERIES: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
        let x = self.clamp(-87.0, 88.0);
        let shifted = x * std::f32::consts::LOG2_E + TO_WHOLE;
        let n = shifted - TO_WHOLE;
        let r = x - n * LN_2[0] - n * LN_2[1];
        let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
        let value = power * SERIES.iter().fold(0.0, |sum, c| sum * r + c);
        if self < -80.0 { 0.0 } else { value }
    }
}

#[cfg(test)]
mod tests {
    use super::Real;

    #[test]
    fn exponential_in_f32_is_good_to_its_last_places() {
        for i in -8000..=1000 {
            let x = i as f32 / 100.0;
            let (got, want) = (f64::from(Real::exponential(x)), f64::from(x).exp());
            assert!((got / want - 1.0).abs() < 3e-7, "{x}: {got} is not {want}");
        }
        assert_eq!([-81f32, -200.0, f32::NEG_INFINITY].map(Real::exponential), [0.0; 3]);
    }

    #[test]
    fn erf_in_f32_is_good_to_its_last_places() {
        for i in -6000..=6000 {
            let x = i as f32 / 1000.0;
            let error = (f64::from(Real::erf(x)) - libm::erf(f64::from(x))).abs();
            assert!(error < 4e-7, "{x}: {error:.1e}");
        }
    }
}
