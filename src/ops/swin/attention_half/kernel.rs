//! The half on slices: where rows stand, and what a block of windows gathers.

use super::step::AttentionStep;
use crate::ops::cpu::{Blocks, Real, Values, all_of, resize, values};
use crate::ops::graph::trace::Pass;
use crate::ops::layer_norm::NormKernel;
use crate::ops::low_rank::kernel::{MapKernel, UseOfW};
use crate::ops::swin::window_kernel::{Scratch, WindowKernel};
use candle_core::Result;
use std::ops::Range;

impl AttentionStep {
    pub(super) fn kernel<T: Real>(&self, pass: Pass) -> Result<Kernel<'_, T>> {
        let half = &self.half;
        let (images, tokens, c) = half.patches.dims3()?;
        let (length, windows) = (half.length()?, half.grid.windows());
        let rows = images * windows * length;
        let norm = half.norm.kernel()?;
        let prompts = half.prompts.as_ref().map(values::<T>).transpose()?;
        let mut normed_prompts = vec![T::zero(); prompts.as_ref().map_or(0, |prompts| prompts.len())];
        if let Some(prompts) = &prompts {
            norm.forward(prompts, &mut normed_prompts);
        }
        Ok(Kernel {
            patches: values(&half.patches)?,
            normed_prompts,
            qkv: half.qkv.kernel(rows, UseOfW::WithPath, pass)?,
            proj: half.proj.kernel(rows, self.use_of_w, pass)?,
            attention: WindowKernel::new(&half.bias, half.mask.as_ref(), length, c)?,
            places: half.grid.places(),
            drop_path: half.drop_path.as_deref().map(all_of),
            blocks: Blocks::of(images * windows, length),
            sizes: Sizes { images, tokens, c, length, n: half.grid.window() * half.grid.window(), windows },
            norm,
        })
    }
}

/// The half as slices.
pub(super) struct Kernel<'a, T: Real> {
    pub(super) patches: Values<'a, T>,
    pub(super) normed_prompts: Vec<T>,
    pub(super) norm: NormKernel<'a, T>,
    pub(super) qkv: MapKernel<'a, T>,
    pub(super) proj: MapKernel<'a, T>,
    pub(super) attention: WindowKernel<'a, T>,
    pub(super) places: Vec<Option<u32>>,
    pub(super) drop_path: Option<Vec<T>>,
    pub(super) blocks: Blocks,
    pub(super) sizes: Sizes,
}

#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) images: usize,
    pub(super) tokens: usize,
    pub(super) c: usize,
    pub(super) length: usize,
    pub(super) n: usize,
    pub(super) windows: usize,
}

impl Sizes {
    pub(super) fn prompts(&self) -> usize {
        self.length - self.n
    }

    pub(super) fn rows(&self) -> usize {
        self.images * self.windows * self.length
    }
}

/// What backward needs beside the inputs: queries, keys and values, and what attention made of them.
pub(in crate::ops) struct Saved<T> {
    pub(super) qkv: Vec<T>,
    pub(super) attended: Vec<T>,
}

/// What a thread reuses from block to block.
#[derive(Default)]
pub(super) struct Buffers<T> {
    pub(super) windows: Vec<T>,
    pub(super) dropped: Vec<T>,
    pub(super) qkv: Vec<T>,
    pub(super) attended: Vec<T>,
    pub(super) projected: Vec<T>,
    pub(super) u: Vec<T>,
    pub(super) window: Scratch<T>,
}

impl<T: Real> Kernel<'_, T> {
    /// Where patch `i` of window `w` (over all images) stands among the tokens of all images; `None` in the padding.
    pub(super) fn place(&self, w: usize, i: usize) -> Option<usize> {
        let Sizes { n, windows, tokens, .. } = self.sizes;
        self.places[w % windows * n + i].map(|place| w / windows * tokens + place as usize)
    }

    pub(super) fn drop_path(&self, image: usize) -> T {
        self.drop_path.as_ref().map_or(T::one(), |factors| factors[image])
    }

    /// The normed rows of a block's windows: prompts, then patches; 0 in the padding.
    pub(super) fn gather(&self, block: Range<usize>, rows: &mut Vec<T>) {
        let Sizes { c, length, windows, .. } = self.sizes;
        let p = self.sizes.prompts();
        resize(rows, block.len() * length * c);
        for (w, rows) in block.zip(rows.chunks_exact_mut(length * c)) {
            let (prompts, patches) = rows.split_at_mut(p * c);
            prompts.copy_from_slice(&self.normed_prompts[w / windows * p * c..][..p * c]);
            for (i, row) in patches.chunks_exact_mut(c).enumerate() {
                match self.place(w, i) {
                    Some(place) => self.norm.forward(&self.patches[place * c..][..c], row),
                    None => row.fill(T::zero()),
                }
            }
        }
    }
}
