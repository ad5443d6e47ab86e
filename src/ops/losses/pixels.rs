//! Maps cut into blocks of pixels, by which losses are computed.

use crate::ops::cpu::{Real, values};
use candle_core::{Result, Tensor};
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

    /// The gradient of the outputs that `f` writes block by block.
    pub(super) fn gradient<T: Real>(
        self,
        x: &Tensor,
        label: &Tensor,
        f: impl Fn(&mut ChannelsMut<T>, &Channels<T>, &Channels<T>) + Sync + Send,
    ) -> Result<Vec<T>> {
        let (x, label) = (values::<T>(x)?, values::<T>(label)?);
        let mut dx = vec![T::zero(); x.len()];
        let parts = dx.chunks_mut(self.pixels).map(|row| row.chunks_mut(BLOCK));
        let inputs = self.blocks(&x, self.channels).into_par_iter().zip(self.blocks(&label, self.label_channels));
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

/// What the gradient of a loss's sum is multiplied by: the loss's own gradient over the number of valid pixels; `None` where nothing
/// reads the loss.
pub(super) fn scale<T: Real>(outputs: &[Option<Tensor>], count: f64) -> Result<Option<T>> {
    let Some(Some(dloss)) = outputs.first() else { return Ok(None) };
    Ok(Some(values::<T>(dloss)?[0] / T::of(count)))
}
