//! The half's gradients, one block of rows at a time.
#![allow(unsafe_code)] // blocks of rows write their own parts of the gradients

use super::kernel::{Kernel, Saved};
use super::step::MlpStep;
use crate::ops::cpu::simd;
use crate::ops::cpu::{Parts, Real, Values, resize, zeroed};
use crate::ops::gelu;
use crate::ops::layer_norm::NormSums;
use crate::ops::low_rank::kernel::{MapSums, PathBuffers, UseOfW};
use crate::ops::swin::halves::OutputGradients;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// The outputs' gradients; `None` where nothing reads an output.
pub(super) struct Incoming<'a, T: Real> {
    pub(super) y: Option<Values<'a, T>>,
    pub(super) pre: Option<Values<'a, T>>,
    pub(super) post: Option<Values<'a, T>>,
}

impl<'a, T: Real> Incoming<'a, T> {
    pub(super) fn new(step: &MlpStep, outputs: &'a [Option<Tensor>]) -> Result<Self> {
        let (mut outputs, alone) = (OutputGradients::of(outputs), step.use_of_w == UseOfW::Alone);
        Ok(Self { y: outputs.next(true)?, pre: outputs.next(alone)?, post: outputs.next(alone)? })
    }
}

/// Sums of gradients over blocks, and what a thread reuses from block to block.
pub(super) struct Sums<T> {
    pub(super) norm: NormSums<T>,
    pub(super) fc1: MapSums<T>,
    pub(super) fc2: MapSums<T>,
    pub(super) path: PathBuffers<T>,
    pub(super) normed: Vec<T>,
    pub(super) hidden: Vec<T>,
    pub(super) dout: Vec<T>,
    pub(super) dhidden: Vec<T>,
    pub(super) dnormed: Vec<T>,
}

impl<T: Real> Sums<T> {
    pub(super) fn join(&mut self, other: Self) {
        self.norm.add(&other.norm);
        self.fc1.add(&other.fc1);
        self.fc2.add(&other.fc2);
    }
}

impl<T: Real> Kernel<'_, T> {
    pub(super) fn sums(&self) -> Sums<T> {
        Sums {
            norm: self.norm.sums(),
            fc1: self.fc1.sums(),
            fc2: self.fc2.sums(),
            path: PathBuffers::default(),
            normed: Vec::new(),
            hidden: Vec::new(),
            dout: Vec::new(),
            dhidden: Vec::new(),
            dnormed: Vec::new(),
        }
    }

    /// The gradients of one block of rows.
    pub(super) fn backward(
        &self,
        saved: &Saved<T>,
        incoming: &Incoming<T>,
        block: Range<usize>,
        dx: &Parts<T>,
        sums: &mut Sums<T>,
    ) {
        let (c, hidden, count) = (self.c, self.hidden, block.len());
        let (rows, wide) = (block.start * c..block.end * c, block.start * hidden..block.end * hidden);
        let Sums { norm, fc1, fc2, path, normed, hidden: h, dout, dhidden, dnormed } = sums;
        let pre = &saved.pre[wide.clone()];
        resize(h, pre.len());
        gelu::forward(pre, h);

        zeroed(dout, count * c);
        if let Some(dy) = &incoming.y {
            self.residual_backward(block.clone(), &dy[rows.clone()], dout);
        }
        let into = self.fc2.room_for_input(count, dhidden);
        self.fc2.path_backward(block.start, h, dout, dhidden, fc2, path);
        if let Some(d) = &incoming.post {
            simd::vectorised(|| simd::add(dout, &d[rows.clone()]));
        }
        self.fc2.pretrained_backward(h, dout, into, dhidden, fc2);
        gelu::backward(pre, dhidden);

        resize(normed, count * c);
        self.norm.forward(&self.x[rows.clone()], normed);
        let into = self.fc1.room_for_input(count, dnormed);
        self.fc1.path_backward(block.start, normed, dhidden, dnormed, fc1, path);
        if let Some(d) = &incoming.pre {
            simd::vectorised(|| simd::add(dhidden, &d[wide]));
        }
        self.fc1.pretrained_backward(normed, dhidden, into, dnormed, fc1);
        // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
        let dx = unsafe { dx.at(rows.start, count * c) };
        if let Some(dy) = &incoming.y {
            dx.copy_from_slice(&dy[rows.clone()]);
        }
        self.norm.backward(&self.x[rows], dnormed, dx, norm);
    }
}
