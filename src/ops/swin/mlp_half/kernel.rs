//! The half on slices: its sizes, and its residual.

use super::step::MlpStep;
use crate::ops::cpu::simd;
use crate::ops::cpu::{Blocks, Real, Values, all_of, values};
use crate::ops::graph::trace::Pass;
use crate::ops::layer_norm::NormKernel;
use crate::ops::low_rank::kernel::MapKernel;
use candle_core::Result;
use std::mem::MaybeUninit;
use std::ops::Range;

impl MlpStep {
    pub(super) fn kernel<T: Real>(&self, pass: Pass) -> Result<Kernel<'_, T>> {
        let Self { half, use_of_w } = self;
        let (images, tokens, c) = half.x.dims3()?;
        let rows = images * tokens;
        let fc1 = half.fc1.kernel(rows, *use_of_w, pass)?;
        Ok(Kernel {
            x: values(&half.x)?,
            norm: half.norm.kernel()?,
            fc2: half.fc2.kernel(rows, *use_of_w, pass)?,
            drop_path: half.drop_path.as_deref().map(all_of),
            blocks: Blocks::of(rows, 1),
            tokens,
            c,
            hidden: fc1.out,
            fc1,
        })
    }
}

/// The half as slices.
pub(super) struct Kernel<'a, T: Real> {
    pub(super) x: Values<'a, T>,
    pub(super) norm: NormKernel<'a, T>,
    pub(super) fc1: MapKernel<'a, T>,
    pub(super) fc2: MapKernel<'a, T>,
    pub(super) drop_path: Option<Vec<T>>,
    pub(super) blocks: Blocks,
    pub(super) tokens: usize,
    pub(super) c: usize,
    pub(super) hidden: usize,
}

/// What backward needs beside x: the values before GELU.
pub(in crate::ops) struct Saved<T> {
    pub(super) pre: Vec<T>,
}

/// What a thread reuses from block to block.
#[derive(Default)]
pub(super) struct Buffers<T> {
    pub(super) normed: Vec<T>,
    pub(super) dropped: Vec<T>,
    pub(super) hidden: Vec<T>,
    pub(super) out: Vec<T>,
    pub(super) u: Vec<T>,
}

impl<T: Real> Kernel<'_, T> {
    /// `y = x + k update` for a block of rows, image by image; all of y is written.
    pub(super) fn residual(&self, block: Range<usize>, update: &[T], y: &mut [MaybeUninit<T>]) {
        let c = self.c;
        let x = &self.x[block.start * c..block.end * c];
        simd::vectorised(|| match &self.drop_path {
            None => {
                for ((y, x), update) in y.iter_mut().zip(x).zip(update) {
                    y.write(*x + *update);
                }
            }
            Some(factors) => {
                let rows = y.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(update.chunks_exact(c));
                for (row, ((y, x), update)) in block.zip(rows) {
                    let k = factors[row / self.tokens];
                    for ((y, x), update) in y.iter_mut().zip(x).zip(update) {
                        y.write(*x + k * *update);
                    }
                }
            }
        });
    }

    /// `y = k dy` for a block of rows.
    pub(super) fn residual_backward(&self, block: Range<usize>, dy: &[T], y: &mut [T]) {
        simd::vectorised(|| match &self.drop_path {
            None => y.copy_from_slice(dy),
            Some(factors) => {
                for (row, (y, dy)) in block.zip(y.chunks_exact_mut(self.c).zip(dy.chunks_exact(self.c))) {
                    let k = factors[row / self.tokens];
                    for (y, dy) in y.iter_mut().zip(dy) {
                        *y = k * *dy;
                    }
                }
            }
        });
    }
}
