//! Loops compiled for the widest vector registers of the processor at hand.
#![allow(unsafe_code)] // parts of registers are read and written by pointers

use super::cpu::Real;
use pulp::Simd;

/// Runs `f` compiled for AVX-512, AVX2 or the baseline, whichever the processor has; what `f` calls has to be inlined into it.
pub(super) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// A float type's vector registers, for kernels that say what stays in one.
pub(super) trait Lanes: Copy {
    /// A register.
    type Of<S: Simd>: Copy;

    /// Values in a register.
    fn lanes<S: Simd>() -> usize;

    /// The same value in all places.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Of<S>;

    /// `x + y`.
    fn plus<S: Simd>(simd: S, x: Self::Of<S>, y: Self::Of<S>) -> Self::Of<S>;

    /// `x y`.
    fn times<S: Simd>(simd: S, x: Self::Of<S>, y: Self::Of<S>) -> Self::Of<S>;

    /// `x / y`.
    fn over<S: Simd>(simd: S, x: Self::Of<S>, y: Self::Of<S>) -> Self::Of<S>;

    /// The lesser of two.
    fn lesser<S: Simd>(simd: S, x: Self::Of<S>, y: Self::Of<S>) -> Self::Of<S>;

    /// The greater of two.
    fn greater<S: Simd>(simd: S, x: Self::Of<S>, y: Self::Of<S>) -> Self::Of<S>;

    /// The square root.
    fn root<S: Simd>(simd: S, x: Self::Of<S>) -> Self::Of<S>;

    /// `x y + z`, rounded once where the processor can.
    fn multiply_add<S: Simd>(simd: S, x: Self::Of<S>, y: Self::Of<S>, z: Self::Of<S>) -> Self::Of<S>;

    /// The first `count` places from memory, the others 0.
    ///
    /// # Safety
    /// `count` values can be read at `from`; it is at most the number of lanes.
    unsafe fn load<S: Simd>(simd: S, from: *const Self, count: usize) -> Self::Of<S>;

    /// The first `count` places to memory.
    ///
    /// # Safety
    /// `count` values can be written at `to`; it is at most the number of lanes.
    unsafe fn store<S: Simd>(simd: S, to: *mut Self, count: usize, values: Self::Of<S>);
}

macro_rules! lanes {
    ($t:ty, $bits:ty, $of:ident, $lanes:ident, $splat:ident, $($name:ident($($arg:ident),*) = $call:ident,)* [$mask:ident, $load:ident, $store:ident]) => {
        impl Lanes for $t {
            type Of<S: Simd> = S::$of;

            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$lanes
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> S::$of {
                simd.$splat(value)
            }

            $(
                #[inline(always)]
                fn $name<S: Simd>(simd: S, $($arg: S::$of),*) -> S::$of {
                    simd.$call($($arg),*)
                }
            )*

            #[inline(always)]
            unsafe fn load<S: Simd>(simd: S, from: *const Self, count: usize) -> S::$of {
                // SAFETY: the caller's promise: `count` places, at most a register's lanes. A masked load is a call: whole registers go past it.
                unsafe {
                    if count == S::$lanes {
                        return from.cast::<S::$of>().read_unaligned();
                    }
                    simd.$load(simd.$mask(0, count as $bits), from)
                }
            }

            #[inline(always)]
            unsafe fn store<S: Simd>(simd: S, to: *mut Self, count: usize, values: S::$of) {
                // SAFETY: as for loads.
                unsafe {
                    if count == S::$lanes {
                        return to.cast::<S::$of>().write_unaligned(values);
                    }
                    simd.$store(simd.$mask(0, count as $bits), to, values)
                }
            }
        }
    };
}
lanes!(
    f32,
    u32,
    f32s,
    F32_LANES,
    splat_f32s,
    plus(x, y) = add_f32s,
    times(x, y) = mul_f32s,
    over(x, y) = div_f32s,
    lesser(x, y) = min_f32s,
    greater(x, y) = max_f32s,
    root(x) = sqrt_f32s,
    multiply_add(x, y, z) = mul_add_e_f32s,
    [mask_between_m32s, mask_load_ptr_f32s, mask_store_ptr_f32s]
);
lanes!(
    f64,
    u64,
    f64s,
    F64_LANES,
    splat_f64s,
    plus(x, y) = add_f64s,
    times(x, y) = mul_f64s,
    over(x, y) = div_f64s,
    lesser(x, y) = min_f64s,
    greater(x, y) = max_f64s,
    root(x) = sqrt_f64s,
    multiply_add(x, y, z) = mul_add_e_f64s,
    [mask_between_m64s, mask_load_ptr_f64s, mask_store_ptr_f64s]
);

/// Defines a function that is compiled whole for AVX-512, AVX2 and the baseline, and runs the one for the processor at hand.
///
/// A closure given to [`vectorised`] is compiled so only where the optimizer inlines it, which it does with small ones; the body
/// of such a function always is. Loops in it are written as loops: the same holds for closures given to `for_each`.
macro_rules! vectorised_fn {
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident<$t:ident: $bound:ident>($($arg:ident: $of:ty),* $(,)?) -> $out:ty $body:block) => {
        $(#[$doc])*
        $vis unsafe fn $name<$t: $bound>($($arg: $of),*) -> $out {
            $crate::ops::simd::vectorised_fn! { fn vectorised<$t: $bound>($($arg: $of),*) -> $out $body }
            vectorised($($arg),*)
        }
    };
    ($(#[$doc:meta])* $vis:vis fn $name:ident<$t:ident: $bound:ident>($($arg:ident: $of:ty),* $(,)?) $body:block) => {
        $crate::ops::simd::vectorised_fn! { $(#[$doc])* $vis fn $name<$t: $bound>($($arg: $of),*) -> () $body }
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
pub(super) use vectorised_fn;

/// Sums kept side by side: one register of f32 on the widest machines. The order of additions is the same on all.
const LANES: usize = 16;

/// `Σ f(x_i, y_i)`.
#[inline(always)]
pub(super) fn sum_pairs<T: Real>(x: &[T], y: &[T], f: impl Fn(T, T) -> T) -> T {
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
pub(super) fn sum<T: Real>(x: &[T]) -> T {
    sum_pairs(x, x, |x, _| x)
}

/// `Σ x_i y_i`.
#[inline(always)]
pub(super) fn dot<T: Real>(x: &[T], y: &[T]) -> T {
    sum_pairs(x, y, |x, y| x * y)
}

/// The largest of the values; minus infinity of none.
#[inline(always)]
pub(super) fn largest<T: Real>(x: &[T]) -> T {
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
pub(super) fn add_scaled<T: Real>(y: &mut [T], x: &[T], f: T) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += *x * f;
    }
}

/// `y += x`.
#[inline(always)]
pub(super) fn add<T: Real>(y: &mut [T], x: &[T]) {
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
