//! The float types as vector registers hold them.
#![allow(unsafe_code)] // loads and stores of partly filled registers

use pulp::Simd;

/// A float type's vector registers, for kernels that say what stays in one.
pub(in crate::ops) trait Lanes: Copy {
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
                // SAFETY: the caller's promise: `count` places, at most a register's lanes. A masked load is a call: whole registers go
                // past it.
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
