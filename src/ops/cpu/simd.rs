//! Loops compiled for the widest vector registers of the processor at hand.
#![allow(unsafe_code)] // parts of registers are read and written by pointers

use super::float::Real;

/// Runs `f` compiled for AVX-512, AVX2 or the baseline, whichever the processor has; what `f` calls has to be inlined into it.
pub(in crate::ops) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Defines a function that is compiled whole for AVX-512, AVX2 and the baseline, and runs the one for the processor at hand.
///
/// A closure given to [`vectorised`] is compiled so only where the optimizer inlines it, which it does with small ones; the body
/// of such a function always is. Loops in it are written as loops: the same holds for closures given to `for_each`.
macro_rules! vectorised_fn {
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident<$t:ident: $bound:ident>($($arg:ident: $of:ty),* $(,)?) -> $out:ty $body:block) => {
        $(#[$doc])*
        $vis unsafe fn $name<$t: $bound>($($arg: $of),*) -> $out {
            $crate::ops::cpu::simd::vectorised_fn! { fn vectorised<$t: $bound>($($arg: $of),*) -> $out $body }
            vectorised($($arg),*)
        }
    };
    ($(#[$doc:meta])* $vis:vis fn $name:ident<$t:ident: $bound:ident>($($arg:ident: $of:ty),* $(,)?) $body:block) => {
        $crate::ops::cpu::simd::vectorised_fn! { $(#[$doc])* $vis fn $name<$t: $bound>($($arg: $of),*) -> () $body }
    };
    ($(#[$doc:meta])* $vis:vis fn $name:ident<$t:ident: $bound:ident>($($arg:ident: $of:ty),* $(,)?) -> $out:ty $body:block) => {
        $(#[$doc])*
        $vis fn $name<$t: $bound>($($arg: $of),*) -> $out {
            struct Call<T, Args>(Args, std::marker::PhantomData<T>);
            impl<$t: $bound> pulp::NullaryFnOnce for Call<$t, ($($of,)*)> {
                type Output = $out;

                #[inline(always)]
                fn call(self) -> $out {
                    let ($($arg,)*) = self.0;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Call::<$t, _>(($($arg,)*), std::marker::PhantomData))
        }
    };
}

pub(in crate::ops) use vectorised_fn;

/// Sums kept side by side: one register of f32 on the widest machines. The order of additions is the same on all.
const LANES: usize = 16;

/// `Σ f(x_i, y_i)`.
#[inline(always)]
pub(in crate::ops) fn sum_pairs<T: Real>(x: &[T], y: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let (x_whole, x_rest) = x.as_chunks::<LANES>();
    let (y_whole, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x_whole.iter().zip(y_whole) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += f(*x, *y);
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane += f(*x, *y);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            let upper = lanes[i + width];
            lanes[i] += upper;
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ x_i`.
#[inline(always)]
pub(in crate::ops) fn sum<T: Real>(x: &[T]) -> T {
    sum_pairs(x, x, |x, _| x)
}

/// `Σ x_i y_i`.
#[inline(always)]
pub(in crate::ops) fn dot<T: Real>(x: &[T], y: &[T]) -> T {
    sum_pairs(x, y, |x, y| x * y)
}

/// The largest of the values; minus infinity of none.
#[inline(always)]
pub(in crate::ops) fn largest<T: Real>(x: &[T]) -> T {
    let mut lanes = [T::neg_infinity(); LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = if *x > *lane { *x } else { *lane };
    }
    lanes.iter().fold(T::neg_infinity(), |most, x| if *x > most { *x } else { most })
}

/// `y += f x`.
#[inline(always)]
pub(in crate::ops) fn add_scaled<T: Real>(y: &mut [T], x: &[T], f: T) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += *x * f;
    }
}

/// `y += x`.
#[inline(always)]
pub(in crate::ops) fn add<T: Real>(y: &mut [T], x: &[T]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += *x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_maxima_of_any_length() {
        for n in [0usize, 1, 15, 16, 17, 100] {
            let x: Vec<f64> = (0..n).map(|i| i as f64 - 7.0).collect();
            let want: f64 = x.iter().sum();
            assert_eq!(vectorised(|| sum(&x)), want);
            assert_eq!(vectorised(|| dot(&x, &x)), x.iter().map(|v| v * v).sum::<f64>());
            assert_eq!(vectorised(|| largest(&x)), x.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
    }
}
