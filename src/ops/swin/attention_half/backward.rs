//! The half's gradients, one block of windows at a time.
#![allow(unsafe_code)] // blocks of windows write their own parts of the gradients

use super::kernel::{Buffers, Kernel, Saved, Sizes};
use super::step::AttentionStep;
use crate::ops::cpu::simd;
use crate::ops::cpu::{Into, Parts, Real, Values, resize, zeroed};
use crate::ops::layer_norm::NormSums;
use crate::ops::low_rank::kernel::{MapSums, PathBuffers, UseOfW};
use crate::ops::swin::halves::OutputGradients;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// The outputs' gradients as slices; `None` where nothing reads an output.
pub(super) struct Incoming<'a, T: Real> {
    pub(super) y: Option<Values<'a, T>>,
    pub(super) prompts: Option<Values<'a, T>>,
    pub(super) attended: Option<Values<'a, T>>,
    pub(super) projected: Option<Values<'a, T>>,
    pub(super) scores: Option<Values<'a, T>>,
}

impl<'a, T: Real> Incoming<'a, T> {
    pub(super) fn new(step: &AttentionStep, outputs: &'a [Option<Tensor>]) -> Result<Self> {
        let mut outputs = OutputGradients::of(outputs);
        let (has_prompts, alone) = (step.half.prompts.is_some(), step.use_of_w == UseOfW::Alone);
        Ok(Self {
            y: outputs.next(true)?,
            prompts: outputs.next(has_prompts)?,
            attended: outputs.next(alone)?,
            projected: outputs.next(alone)?,
            scores: outputs.next(alone && has_prompts)?,
        })
    }
}

/// Sums of gradients over blocks, and what a thread reuses from block to block.
pub(super) struct Sums<T> {
    pub(super) qkv: MapSums<T>,
    pub(super) proj: MapSums<T>,
    pub(super) norm: NormSums<T>,
    pub(super) bias: Vec<T>,
    /// Of the normed prompts, `[B, P, C]`.
    pub(super) prompts: Vec<T>,
    pub(super) path: PathBuffers<T>,
    pub(super) buffers: Buffers<T>,
    pub(super) dout: Vec<T>,
    pub(super) dattended: Vec<T>,
    pub(super) dqkv: Vec<T>,
    pub(super) drows: Vec<T>,
}

impl<T: Real> Sums<T> {
    pub(super) fn join(&mut self, other: Self) {
        self.qkv.add(&other.qkv);
        self.proj.add(&other.proj);
        self.norm.add(&other.norm);
        simd::add(&mut self.bias, &other.bias);
        simd::add(&mut self.prompts, &other.prompts);
    }
}

impl<T: Real> Kernel<'_, T> {
    pub(super) fn sums(&self) -> Sums<T> {
        Sums {
            qkv: self.qkv.sums(),
            proj: self.proj.sums(),
            norm: self.norm.sums(),
            bias: vec![T::zero(); self.attention.bias_len()],
            prompts: vec![T::zero(); self.normed_prompts.len()],
            path: PathBuffers::default(),
            buffers: Buffers::default(),
            dout: Vec::new(),
            dattended: Vec::new(),
            dqkv: Vec::new(),
            drows: Vec::new(),
        }
    }

    /// The gradients of one block of windows.
    pub(super) fn backward(
        &self,
        saved: &Saved<T>,
        incoming: &Incoming<T>,
        block: Range<usize>,
        dx: &Parts<T>,
        sums: &mut Sums<T>,
    ) {
        let Sizes { c, length, n, .. } = self.sizes;
        let (p, heads, first) = (self.sizes.prompts(), self.attention.heads(), block.start * length);
        let count = block.len() * length;
        self.scatter_backward(incoming, block.clone(), &mut sums.dout);
        let attended = &saved.attended[first * c..][..count * c];
        self.proj_backward(attended, incoming, block.clone(), sums);
        resize(&mut sums.dqkv, count * 3 * c);
        for (i, w) in block.clone().enumerate() {
            let qkv = &saved.qkv[(first + i * length) * 3 * c..][..length * 3 * c];
            let (dout, dqkv) = (
                &sums.dattended[i * length * c..][..length * c],
                &mut sums.dqkv[i * length * 3 * c..][..length * 3 * c],
            );
            let dscores = incoming.scores.as_ref().map(|d| &d[w * heads * p * n..][..heads * p * n]);
            self.attention.backward(qkv, w, dout, dscores, dqkv, &mut sums.bias, &mut sums.buffers.window);
        }
        self.gather(block.clone(), &mut sums.buffers.windows);
        resize(&mut sums.drows, count * c);
        let Sums { qkv, buffers, path, dqkv, drows, .. } = sums;
        self.qkv.pretrained_backward(&buffers.windows, dqkv, Into::Write, drows, qkv);
        self.qkv.path_backward(first, &buffers.windows, dqkv, drows, qkv, path);
        self.gather_backward(incoming, block, dx, sums);
    }

    /// The gradients of a block's projected rows: of patches from where they went, of prompts from their mean.
    fn scatter_backward(&self, incoming: &Incoming<T>, block: Range<usize>, dout: &mut Vec<T>) {
        let Sizes { c, length, windows, .. } = self.sizes;
        let p = self.sizes.prompts();
        zeroed(dout, block.len() * length * c);
        for (w, rows) in block.zip(dout.chunks_exact_mut(length * c)) {
            let (prompts, patches) = rows.split_at_mut(p * c);
            if let Some(d) = &incoming.prompts {
                simd::add_scaled(prompts, &d[w / windows * p * c..][..p * c], T::of(1.0 / windows as f64));
            }
            let Some(dy) = &incoming.y else { continue };
            let k = self.drop_path(w / windows);
            for (i, row) in patches.chunks_exact_mut(c).enumerate() {
                if let Some(place) = self.place(w, i) {
                    simd::vectorised(|| simd::add_scaled(row, &dy[place * c..][..c], k));
                }
            }
        }
    }

    /// Through the projection: `dattended` from `dout` and from the gradients of what tasks read.
    fn proj_backward(&self, attended: &[T], incoming: &Incoming<T>, block: Range<usize>, sums: &mut Sums<T>) {
        let Sizes { c, length, n, .. } = self.sizes;
        let (p, first) = (self.sizes.prompts(), block.start * length);
        let Sums { proj, path, dout, dattended, drows, .. } = sums;
        let into = if incoming.attended.is_some() {
            zeroed(dattended, attended.len());
            Into::Add
        } else {
            self.proj.room_for_input(attended.len() / c, dattended)
        };
        // The path before the frozen product: to the latter's gradient is added what tasks read of it.
        self.proj.path_backward(first, attended, dout, dattended, proj, path);
        for (i, w) in block.enumerate() {
            let row = i * length + p;
            let patches = row * c..(row + n) * c;
            if let Some(d) = &incoming.projected {
                simd::vectorised(|| simd::add(&mut dout[patches.clone()], &d[w * n * c..][..n * c]));
            }
            if let Some(d) = &incoming.attended {
                let d = self.proj.dropped(first + row, &d[w * n * c..][..n * c], drows);
                simd::vectorised(|| simd::add(&mut dattended[patches], d));
            }
        }
        self.proj.pretrained_backward(attended, dout, into, dattended, proj);
    }

    /// Through norm and gathering: patches' gradients to their places with the residual's, prompts' to their sums.
    fn gather_backward(&self, incoming: &Incoming<T>, block: Range<usize>, dx: &Parts<T>, sums: &mut Sums<T>) {
        let Sizes { c, length, windows, .. } = self.sizes;
        let p = self.sizes.prompts();
        for (w, rows) in block.zip(sums.drows.chunks_exact(length * c)) {
            let (prompts, patches) = rows.split_at(p * c);
            simd::add(&mut sums.prompts[w / windows * p * c..][..p * c], prompts);
            for (i, row) in patches.chunks_exact(c).enumerate() {
                let Some(place) = self.place(w, i) else { continue };
                // SAFETY: `WindowGrid::places` has each patch in one window, `Blocks` each window in one block.
                let dx = unsafe { dx.at(place * c, c) };
                if let Some(dy) = &incoming.y {
                    dx.copy_from_slice(&dy[place * c..][..c]);
                }
                self.norm.backward(&self.patches[place * c..][..c], row, dx, &mut sums.norm);
            }
        }
    }
}
