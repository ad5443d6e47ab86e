//! Losses as one node of the graph, computed by blocks of pixels.

use crate::ops::cpu::float::Real;
use crate::ops::cpu::slices::values;
use crate::ops::graph::trace;
use crate::ops::graph::trace::Pass;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// Pixels a thread takes at a time: few enough that the scores of some 20 classes stay in the cache.
pub(super) const BLOCK: usize = 1 << 10;

/// One block: a slice of pixels for each channel.
pub(super) type Channels<'a, T> = [&'a [T]];

/// A block to be written.
pub(super) type ChannelsMut<'a, T> = [&'a mut [T]];

/// How maps are cut into blocks.
#[derive(Clone, Copy)]
pub(super) struct Pixels {
    channels: usize,
    label_channels: usize,
    /// Of one image.
    pixels: usize,
}

impl Pixels {
    /// Of outputs and label `[B, channels, ..]`.
    pub(super) fn of_maps(x: &Tensor, label: &Tensor) -> Result<Self> {
        let (channels, label_channels) = (x.dim(1)?, label.dim(1)?);
        Ok(Self { channels, label_channels, pixels: x.elem_count() / (x.dim(0)? * channels) })
    }

    /// Of losses that look at every value alone.
    pub(super) fn of_values(x: &Tensor) -> Self {
        Self { channels: 1, label_channels: 1, pixels: x.elem_count() }
    }

    /// What `f` makes of every block of outputs and label, in their order.
    pub(super) fn map<T: Real, S: Send>(
        self,
        x: &Tensor,
        label: &Tensor,
        f: impl Fn(&Channels<T>, &Channels<T>) -> S + Sync + Send,
    ) -> Result<Vec<S>> {
        let (x, label) = (values::<T>(x)?, values::<T>(label)?);
        let (x, label) = (self.blocks(&x, self.channels), self.blocks(&label, self.label_channels));
        Ok(x.into_par_iter().zip(label).map(|(x, label)| f(&x, &label)).collect())
    }

    /// The gradient that `f` writes block by block.
    fn gradient<T: Real>(
        self,
        x: &[T],
        label: &Tensor,
        f: impl Fn(&mut ChannelsMut<T>, &Channels<T>, &Channels<T>) + Sync + Send,
    ) -> Result<Vec<T>> {
        let label = values::<T>(label)?;
        let mut dx = vec![T::zero(); x.len()];
        let parts = dx.chunks_mut(self.pixels).map(|row| row.chunks_mut(BLOCK));
        let inputs = self.blocks(x, self.channels).into_par_iter().zip(self.blocks(&label, self.label_channels));
        let blocks = by_block(self.channels, parts).into_par_iter().zip(inputs);
        blocks.for_each(|(mut dx, (x, label))| f(&mut dx, &x, &label));
        Ok(dx)
    }

    fn blocks<T>(self, values: &[T], channels: usize) -> Vec<Vec<&[T]>> {
        by_block(channels, values.chunks(self.pixels).map(|row| row.chunks(BLOCK)))
    }
}

/// How many values of a block are valid.
#[inline(always)]
pub(super) fn valid<T: Real>(label: &[T], ignore: T) -> f64 {
    label.iter().filter(|label| **label != ignore).count() as f64
}

/// The parts of each channel's row of pixels, gathered for each block.
fn by_block<P>(channels: usize, rows: impl Iterator<Item = impl Iterator<Item = P>>) -> Vec<Vec<P>> {
    let (mut blocks, mut first) = (Vec::new(), 0);
    for (row, parts) in rows.enumerate() {
        if row % channels == 0 {
            first = blocks.len();
        }
        for (i, part) in parts.enumerate() {
            if row % channels == 0 {
                blocks.push(Vec::with_capacity(channels));
            }
            blocks[first + i].push(part);
        }
    }
    blocks
}

/// A loss that has been computed, and how its gradient will be.
pub(super) struct PixelMean<T, F> {
    pub(super) name: &'static str,
    /// The loss.
    pub(super) value: T,
    /// What its sum was divided by: the number of valid pixels, at least 1.
    pub(super) count: f64,
    pub(super) pixels: Pixels,
    pub(super) label: Tensor,
    /// Writes the gradient of a block, for the given gradient of the sum.
    pub(super) gradient: F,
}

impl<T, F> CustomOp1 for PixelMean<T, F>
where
    T: Real,
    F: Fn(&mut ChannelsMut<T>, &Channels<T>, &Channels<T>, T) + Sync + Send,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _x: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((T::to_cpu_storage_owned(vec![self.value]), ().into()))
    }

    fn bwd(&self, x: &Tensor, _loss: &Tensor, dloss: &Tensor) -> Result<Option<Tensor>> {
        let _op = trace::op(self.name, Pass::Backward).moves(|| trace::bytes([x, &self.label, x]));
        let scale = T::of(dloss.to_dtype(DType::F64)?.to_scalar::<f64>()? / self.count);
        let write =
            |dx: &mut ChannelsMut<T>, x: &Channels<T>, label: &Channels<T>| (self.gradient)(dx, x, label, scale);
        let dx = self.pixels.gradient(&values::<T>(x)?, &self.label, write)?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}
