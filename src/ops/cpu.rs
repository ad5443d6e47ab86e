//! What the fused CPU kernels share: float types, slices of tensors, rows in parallel.
#![allow(unsafe_code)] // disjoint parts of one slice are written by several threads

use super::Definition;
use super::frozen_matrix::Stored;
use super::simd::Lanes;
use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, WithDType};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use num_traits::Float;
use pulp::Simd;
use rayon::prelude::*;
use std::iter::Sum;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{AddAssign, Deref, MulAssign, Range};

/// A float type that kernels compute in.
pub(super) trait Real: Float + WithDType + Lanes + Sum + AddAssign + MulAssign + Default + Send + Sync {
    /// A constant.
    fn of(value: f64) -> Self;

    /// The error function.
    fn erf(self) -> Self;

    /// The error function of a register's values.
    fn erf_of<S: Simd>(simd: S, x: Self::Of<S>) -> Self::Of<S>;

    /// The exponential function of a value that is at most 0 or moderate; a loop over f32 runs in vector registers.
    fn exponential(self) -> Self;
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

/// Whether a fused kernel stands in for the composed definition: f32 or f64 on the CPU, unless [`Definition::run`] says otherwise.
pub(super) fn is_fused(x: &Tensor) -> bool {
    let can = x.device().is_cpu() && matches!(x.dtype(), candle_core::DType::F32 | candle_core::DType::F64);
    can && Definition::asked() == Definition::Fused
}

/// The values of a contiguous storage.
pub(super) fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => candle_core::bail!("a fused kernel needs contiguous tensors"),
    }
}

/// The values of a contiguous tensor, borrowed.
pub(super) struct Values<'a, T> {
    storage: Box<dyn Deref<Target = Storage> + Sync + 'a>,
    range: Range<usize>,
    float: PhantomData<T>,
}

/// Borrows a tensor's values.
pub(super) fn values<T: WithDType>(tensor: &Tensor) -> Result<Values<'_, T>> {
    values_at(tensor, tensor.layout().contiguous_offsets())
}

/// Borrows the values of a tensor's storage from the first of `places` up to the second.
fn values_at<T: WithDType>(tensor: &Tensor, places: Option<(usize, usize)>) -> Result<Values<'_, T>> {
    let (storage, _) = tensor.storage_and_layout();
    let (Storage::Cpu(cpu), Some((start, end))) = (&*storage, places) else {
        candle_core::bail!("a fused kernel needs contiguous tensors on the CPU")
    };
    T::cpu_storage_as_slice(cpu)?;
    Ok(Values { storage: Box::new(storage), range: start..end, float: PhantomData })
}

impl<T: WithDType> Deref for Values<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &**self.storage {
            Storage::Cpu(cpu) => T::cpu_storage_as_slice(cpu).map_or(&[], |all| &all[self.range.clone()]),
            _ => &[],
        }
    }
}

/// A tensor's values in the type that a kernel computes in: borrowed where they are of that type, else converted.
pub(super) enum Loan<'a, T> {
    Borrowed(Values<'a, T>),
    Owned(Vec<T>),
}

/// Lends a contiguous tensor's values.
pub(super) fn loan<T: Real>(tensor: &Tensor) -> Result<Loan<'_, T>> {
    loan_at(tensor, tensor.layout().contiguous_offsets())
}

fn loan_at<T: Real>(tensor: &Tensor, places: Option<(usize, usize)>) -> Result<Loan<'_, T>> {
    match tensor.dtype() {
        dtype if dtype == T::DTYPE => values_at(tensor, places).map(Loan::Borrowed),
        DType::BF16 => Ok(Loan::Owned(widened(&values_at::<bf16>(tensor, places)?))),
        DType::F16 => Ok(Loan::Owned(widened(&values_at::<f16>(tensor, places)?))),
        DType::F32 => Ok(Loan::Owned(values_at::<f32>(tensor, places)?.iter().map(|v| T::of(f64::from(*v))).collect())),
        DType::F64 => Ok(Loan::Owned(values_at::<f64>(tensor, places)?.iter().map(|v| T::of(*v)).collect())),
        other => candle_core::bail!("a fused kernel computing in {:?} reads no {other:?}", T::DTYPE),
    }
}

/// Lends the values of a matrix that is stored by rows or by columns.
pub(super) fn lend_matrix<T: Real>(tensor: &Tensor) -> Result<(Loan<'_, T>, Stored)> {
    if let Some(places) = tensor.layout().contiguous_offsets() {
        return Ok((loan_at(tensor, Some(places))?, Stored::Rows));
    }
    Ok((loan_at(tensor, tensor.layout().transpose(0, 1)?.contiguous_offsets())?, Stored::Columns))
}

/// Half-precision values in the type that a kernel computes in.
fn widened<H: WithDType, T: Real>(halves: &[H]) -> Vec<T>
where
    [H]: HalfFloatSliceExt,
{
    const PART: usize = 4096; // stays in the first cache
    let mut wide = vec![T::zero(); halves.len()];
    wide.par_chunks_mut(PART).zip(halves.par_chunks(PART)).for_each(|(wide, halves)| {
        let mut singles = [0f32; PART];
        let singles = &mut singles[..halves.len()];
        halves.convert_to_f32_slice(singles);
        wide.iter_mut().zip(singles).for_each(|(wide, single)| *wide = T::of(f64::from(*single)));
    });
    wide
}

impl<T: WithDType> Deref for Loan<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Borrowed(values) => values,
            Self::Owned(values) => values,
        }
    }
}

/// Values a thread takes at a time: large enough that handing out costs nothing, small enough for the cache.
const GRAIN: usize = 1 << 14;

/// Calls `f(first, rows)` on groups of rows of `width` values of `out`, in parallel; `first` is the first row's number.
pub(super) fn for_rows<T: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    let rows = (GRAIN / width.max(1)).max(1);
    out.par_chunks_mut(rows * width).enumerate().for_each(|(i, chunk)| f(i * rows, chunk));
}

/// A slice whose parts several threads write, each its own.
pub(super) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: whoever calls `Parts::at` sees to it that each part is one thread's.
unsafe impl<T: Send> Sync for Parts<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// All of `slice`, to be written in parts.
    pub(super) fn of(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The `len` places from `start`.
    ///
    /// # Safety
    /// No other part that overlaps it is alive.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(super) unsafe fn at(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "a part lies inside its slice");
        // SAFETY: inside the slice by the assertion; disjoint from the parts that live by the caller's promise; and `of` has lent
        // the slice to this value alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

impl<T> Parts<'_, MaybeUninit<T>> {
    /// [`Parts::at`], or [`unwritten`] memory of `scratch` where the whole is empty because nobody keeps it.
    ///
    /// # Safety
    /// As of [`Parts::at`].
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn or<'s>(
        &'s self,
        start: usize,
        len: usize,
        scratch: &'s mut Vec<T>,
    ) -> &'s mut [MaybeUninit<T>] {
        // SAFETY: the caller's promise, handed on.
        if self.len == 0 { unwritten(scratch, len) } else { unsafe { self.at(start, len) } }
    }
}

/// Memory for values that a kernel writes in parts. Nothing fills it first, so that it is touched once, by who writes it.
pub(super) struct Fresh<T> {
    values: Vec<T>,
    len: usize,
}

impl<T> Fresh<T> {
    pub(super) fn of(len: usize) -> Self {
        Self { values: Vec::with_capacity(len), len }
    }

    pub(super) fn parts(&mut self) -> Parts<'_, MaybeUninit<T>> {
        Parts::of(&mut self.values.spare_capacity_mut()[..self.len])
    }

    /// The values.
    ///
    /// # Safety
    /// Every one of them has been written.
    pub(super) unsafe fn written(mut self) -> Vec<T> {
        // SAFETY: the capacity is there since `of`, and the values are written by the caller's promise.
        unsafe { self.values.set_len(self.len) };
        self.values
    }
}

/// Memory for `len` values in a buffer that a thread uses again and again; nothing fills it first.
pub(super) fn unwritten<T>(buffer: &mut Vec<T>, len: usize) -> &mut [MaybeUninit<T>] {
    buffer.clear();
    buffer.reserve(len);
    &mut buffer.spare_capacity_mut()[..len]
}

/// Fills memory with zeros, and hands it back as values.
#[inline(always)]
pub(super) fn zeros<T: Real>(y: &mut [MaybeUninit<T>]) -> &mut [T] {
    for y in y.iter_mut() {
        y.write(T::zero());
    }
    // SAFETY: the loop has written every one.
    unsafe { y.assume_init_mut() }
}

/// Fills memory of whole rows with copies of one, and hands it back as values.
pub(super) fn copies<'y, T: Real>(y: &'y mut [MaybeUninit<T>], row: &[T]) -> &'y mut [T] {
    assert!(y.len().is_multiple_of(row.len()), "{} places are whole rows of {}", y.len(), row.len());
    for y in y.chunks_exact_mut(row.len()) {
        y.write_copy_of_slice(row);
    }
    // SAFETY: by the assertion the rows are all of it.
    unsafe { y.assume_init_mut() }
}

/// Sums over rows in a fixed order, whatever the threads: `add(row, sum)` for each of `rows` adds into `width` sums.
pub(super) fn sum_rows<T: Real>(rows: usize, width: usize, add: impl Fn(usize, &mut [T]) + Sync + Send) -> Vec<T> {
    let group = rows.div_ceil(64).max(1); // as many groups whatever the machine: the same sums everywhere
    let partial: Vec<Vec<T>> = (0..rows.div_ceil(group))
        .into_par_iter()
        .map(|g| {
            let mut sum = vec![T::zero(); width];
            (g * group..rows.min((g + 1) * group)).for_each(|row| add(row, &mut sum));
            sum
        })
        .collect();
    let mut total = vec![T::zero(); width];
    for part in partial {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    total
}

/// Runs a kernel in the storage's float type.
macro_rules! by_float {
    ($dtype:expr, $kernel:ident ( $($arg:expr),* )) => {
        match $dtype {
            candle_core::DType::F32 => $kernel::<f32>($($arg),*),
            candle_core::DType::F64 => $kernel::<f64>($($arg),*),
            other => candle_core::bail!("a fused kernel computes in f32 or f64, got {other:?}"),
        }
    };
}
pub(super) use by_float;

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
