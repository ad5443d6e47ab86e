//! The second half of a block: norm, perceptron, residual.
#![allow(unsafe_code)] // blocks of rows write their own parts of the outputs

use super::halves::scale_images;
use crate::ops;
use crate::ops::cpu::simd;
use crate::ops::cpu::{Blocks, Fresh, Parts, Real, Values, all_of, resize, unwritten, values, zeroed};
use crate::ops::gelu;
use crate::ops::graph::trace::Pass;
use crate::ops::graph::{CpuKernel, Gradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::layer_norm::{LayerNorm, NormKernel, NormSums};
use crate::ops::low_rank::LowRankMap;
use crate::ops::low_rank::kernel::{MapKernel, MapSums, PathBuffers, UseOfW};
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;
use std::ops::Range;

/// `y = x + k fc2(GELU(fc1(norm(x))))`.
///
/// # Shapes
/// `x` `[B, N, C]`.
#[derive(Clone, Debug)]
pub struct MlpHalf {
    /// x.
    pub x: Tensor,
    /// The norm before the perceptron.
    pub norm: LayerNorm,
    /// `[C]` to `[hidden]`.
    pub fc1: LowRankMap,
    /// `[hidden]` to `[C]`.
    pub fc2: LowRankMap,
    /// k: each image's factor of drop-path; `None` for 1.
    pub drop_path: Option<Vec<f64>>,
}

/// The frozen products of a block's perceptron, which the tasks' paths build on.
#[derive(Clone, Debug)]
pub struct MlpIntermediates {
    /// `W1 n + b1`, n the normed tokens: `[B, N, hidden]`.
    pub pre: Tensor,
    /// `W2 h + b2`, h the shared hidden values: `[B, N, C]`.
    pub post: Tensor,
}

impl MlpHalf {
    /// y, `[B, N, C]`.
    ///
    /// On the CPU in f32 or f64 one step of the graph, elsewhere candle's primitives.
    ///
    /// # Errors
    /// Tensors whose shapes or float types do not fit; factors of drop-path for another number of images.
    pub fn forward(self) -> Result<Tensor> {
        only(apply(MlpStep { half: self, use_of_w: UseOfW::WithPath })?)
    }

    /// y and the frozen products.
    ///
    /// # Errors
    /// As [`MlpHalf::forward`].
    pub fn forward_intermediates(self) -> Result<(Tensor, MlpIntermediates)> {
        let outputs = apply(MlpStep { half: self, use_of_w: UseOfW::Alone })?;
        let Ok([y, pre, post]) = <[Tensor; 3]>::try_from(outputs) else { candle_core::bail!("mlp-half: no products") };
        Ok((y, MlpIntermediates { pre, post }))
    }
}

/// The half as a step, which gives the frozen products where somebody reads them alone.
#[derive(Clone)]
struct MlpStep {
    half: MlpHalf,
    use_of_w: UseOfW,
}

impl MlpStep {
    fn kernel<T: Real>(&self, pass: Pass) -> Result<Kernel<'_, T>> {
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
struct Kernel<'a, T: Real> {
    x: Values<'a, T>,
    norm: NormKernel<'a, T>,
    fc1: MapKernel<'a, T>,
    fc2: MapKernel<'a, T>,
    drop_path: Option<Vec<T>>,
    blocks: Blocks,
    tokens: usize,
    c: usize,
    hidden: usize,
}

/// What backward needs beside x: the values before GELU.
pub(in crate::ops) struct Saved<T> {
    pre: Vec<T>,
}

/// What a thread reuses from block to block.
#[derive(Default)]
struct Buffers<T> {
    normed: Vec<T>,
    dropped: Vec<T>,
    hidden: Vec<T>,
    out: Vec<T>,
    u: Vec<T>,
}

/// Sums of gradients over blocks, and what a thread reuses from block to block.
struct Sums<T> {
    norm: NormSums<T>,
    fc1: MapSums<T>,
    fc2: MapSums<T>,
    path: PathBuffers<T>,
    normed: Vec<T>,
    hidden: Vec<T>,
    dout: Vec<T>,
    dhidden: Vec<T>,
    dnormed: Vec<T>,
}

/// The outputs' gradients; `None` where nothing reads an output.
struct Incoming<'a, T: Real> {
    y: Option<Values<'a, T>>,
    pre: Option<Values<'a, T>>,
    post: Option<Values<'a, T>>,
}

impl<T: Real> Kernel<'_, T> {
    /// `y = x + k update` for a block of rows, image by image; all of y is written.
    fn residual(&self, block: Range<usize>, update: &[T], y: &mut [MaybeUninit<T>]) {
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
    fn residual_backward(&self, block: Range<usize>, dy: &[T], y: &mut [T]) {
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

impl Step for MlpStep {
    fn name(&self) -> &'static str {
        "mlp-half"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        let MlpHalf { x, norm, fc1, fc2, drop_path } = &self.half;
        let (x, norm, fc1, fc2, drop_path) = (f(x)?, norm.map(f)?, fc1.map(f)?, fc2.map(f)?, drop_path.clone());
        Ok(Self { half: MlpHalf { x, norm, fc1, fc2, drop_path }, ..*self })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let MlpHalf { x, norm, fc1, fc2, drop_path } = &self.half;
        let [images, _, c] = shapes.sizes("x", x)?;
        let hidden = shapes.matrix("fc1's weight", &fc1.weight, c)?;
        norm.check(shapes, c)?;
        fc1.check(shapes, "fc1", c, hidden)?;
        fc2.check(shapes, "fc2", hidden, c)?;
        shapes.drop_path(drop_path.as_deref(), images)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let MlpHalf { x, norm, fc1, fc2, drop_path } = &self.half;
        let normed = norm.forward(x)?;
        let pre = fc1.pretrained(&normed)?;
        let hidden = ops::gelu(&fc1.add_path(&pre, &fc1.dropped(&normed)?)?)?;
        let post = fc2.pretrained(&hidden)?;
        let update = fc2.add_path(&post, &fc2.dropped(&hidden)?)?;
        let y = (x + scale_images(&update, drop_path.as_deref())?)?;
        Ok(if self.use_of_w == UseOfW::Alone { vec![y, pre, post] } else { vec![y] })
    }
}

impl<T: Real> CpuKernel<T> for MlpStep {
    type Saved = Saved<T>;

    fn forward(&self, keep: Keep) -> Result<Passed<Saved<T>>> {
        let kernel = self.kernel::<T>(Pass::Forward)?;
        let (images, tokens, c) = self.half.x.dims3()?;
        let (rows, hidden) = (images * tokens, kernel.hidden);
        let fresh = |len: usize, on: bool| Fresh::<T>::of(if on { len } else { 0 });
        let (all, alone) = (keep == Keep::All, self.use_of_w == UseOfW::Alone);
        let (mut y, mut saved) = (fresh(rows * c, true), fresh(rows * hidden, all));
        let (mut pre, mut post) = (fresh(rows * hidden, alone), fresh(rows * c, alone));
        {
            let [y, saved, pre_out, post] = [&mut y, &mut saved, &mut pre, &mut post].map(Fresh::parts);
            kernel.blocks.for_each(Buffers::default, |buffers, block| {
                let Buffers { normed, dropped, hidden: h, out, u } = buffers;
                let (first, count) = (block.start, block.len());
                resize(normed, count * c);
                kernel.norm.forward(&kernel.x[first * c..block.end * c], normed);
                let h = kernel.fc1.pretrained(normed, unwritten(h, count * hidden));
                if alone {
                    // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                    unsafe { pre_out.at(first * hidden, count * hidden) }.write_copy_of_slice(h);
                }
                kernel.fc1.add_path(kernel.fc1.dropped(first, normed, dropped), h, u);
                // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                let before = all.then(|| unsafe { saved.at(first * hidden, count * hidden) });
                gelu::in_place(None, before, h);
                let out = kernel.fc2.pretrained(h, unwritten(out, count * c));
                if alone {
                    // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                    unsafe { post.at(first * c, count * c) }.write_copy_of_slice(out);
                }
                kernel.fc2.add_path(kernel.fc2.dropped(first, h, dropped), out, u);
                // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                kernel.residual(block, out, unsafe { y.at(first * c, count * c) });
            });
        }
        // SAFETY: the blocks cover all rows, and each has written its own of what is kept: `pre` and `post` by copies, the values
        // before GELU by `gelu::in_place`, y by `residual`. What is not kept has no room.
        let [y, saved, pre, post] = [y, saved, pre, post].map(|v| unsafe { v.written() });
        let mut outputs = vec![Output::new(y, (images, tokens, c))];
        if alone {
            outputs.extend([Output::new(pre, (images, tokens, hidden)), Output::new(post, (images, tokens, c))]);
        }
        Ok((outputs, all.then_some(Saved { pre: saved })))
    }

    fn backward(&self, saved: Saved<T>, outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()> {
        let kernel = self.kernel::<T>(Pass::Backward)?;
        let gradient = |i: usize| outputs.get(i).and_then(Option::as_ref).map(values::<T>).transpose();
        let incoming = Incoming { y: gradient(0)?, pre: gradient(1)?, post: gradient(2)? };
        let mut dx = vec![T::zero(); self.half.x.elem_count()];
        let sums = {
            let dx = Parts::of(&mut dx);
            let start = || Sums {
                norm: kernel.norm.sums(),
                fc1: kernel.fc1.sums(),
                fc2: kernel.fc2.sums(),
                path: PathBuffers::default(),
                normed: Vec::new(),
                hidden: Vec::new(),
                dout: Vec::new(),
                dhidden: Vec::new(),
                dnormed: Vec::new(),
            };
            let join = |sums: &mut Sums<T>, other: Sums<T>| {
                sums.norm.add(&other.norm);
                sums.fc1.add(&other.fc1);
                sums.fc2.add(&other.fc2);
            };
            kernel.blocks.sum(start, |sums, block| kernel.backward(&saved, &incoming, block, &dx, sums), join)
        };
        grads.give_values(&self.half.x, dx)?;
        sums.norm.give(&self.half.norm, grads)?;
        sums.fc1.give(&self.half.fc1, grads)?;
        sums.fc2.give(&self.half.fc2, grads)
    }
}

impl<T: Real> Kernel<'_, T> {
    /// The gradients of one block of rows.
    fn backward(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::GradientCheckpointing;
    use crate::ops::finite_difference::{check, close, normal};
    use crate::ops::{Definition, Dropout, LowRankPath};

    fn map(seed: u64, n_in: usize, out: usize, dropout: Option<Dropout>) -> Result<LowRankMap> {
        let path = LowRankPath { a: normal(seed, &[2, n_in])?, b: normal(seed + 1, &[out, 2])?, scale: 0.5, dropout };
        Ok(LowRankMap {
            weight: normal(seed + 2, &[out, n_in])?,
            bias: Some(normal(seed + 3, &[out])?),
            path: Some(path),
        })
    }

    fn half(dropout: Option<Dropout>) -> Result<MlpHalf> {
        Ok(MlpHalf {
            x: normal(1, &[2, 5, 3])?,
            norm: LayerNorm::new(normal(3, &[3])?, normal(4, &[3])?),
            fc1: map(10, 3, 6, dropout)?,
            fc2: map(20, 6, 3, dropout)?,
            drop_path: Some(vec![0.5, 1.5]),
        })
    }

    /// All outputs in one tensor.
    fn together(half: MlpHalf, use_of_w: UseOfW) -> Result<Tensor> {
        if use_of_w == UseOfW::WithPath {
            return half.forward();
        }
        let (y, MlpIntermediates { pre, post }) = half.forward_intermediates()?;
        Tensor::cat(&[y, pre, post].iter().map(|t| t.flatten_all()).collect::<Result<Vec<_>>>()?, 0)
    }

    #[test]
    fn the_kernel_equals_its_composed_definition() -> Result<()> {
        for (use_of_w, dropout) in [(UseOfW::WithPath, None), (UseOfW::Alone, Some(Dropout { rate: 0.3, seed: 7 }))] {
            let half = half(dropout)?;
            let run = |by: Definition| by.run(|| together(half.clone(), use_of_w));
            let [fused, composed] = Definition::ALL.map(run);
            close(&fused?, &composed?, 1e-12)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_of_all_inputs_kept_or_made_again() -> Result<()> {
        for (use_of_w, dropout, checkpointing) in [
            (UseOfW::WithPath, None, GradientCheckpointing::Off),
            (UseOfW::WithPath, Some(Dropout { rate: 0.3, seed: 7 }), GradientCheckpointing::Off),
            (UseOfW::Alone, Some(Dropout { rate: 0.3, seed: 7 }), GradientCheckpointing::Off),
            (UseOfW::Alone, None, GradientCheckpointing::On),
        ] {
            let half = half(dropout)?;
            let (one, two) = (half.fc1.path.clone().unwrap(), half.fc2.path.clone().unwrap());
            let inputs = [
                &half.x,
                &half.norm.weight,
                &half.norm.bias,
                &one.a,
                &one.b,
                &two.a,
                &two.b,
                &half.fc1.weight,
                &half.fc2.weight,
            ];
            check(&inputs, |v| {
                let mut half = half.clone();
                (half.x, half.norm.weight, half.norm.bias) = (v[0].clone(), v[1].clone(), v[2].clone());
                half.fc1.path = Some(LowRankPath { a: v[3].clone(), b: v[4].clone(), ..one.clone() });
                half.fc2.path = Some(LowRankPath { a: v[5].clone(), b: v[6].clone(), ..two.clone() });
                (half.fc1.weight, half.fc2.weight) = (v[7].clone(), v[8].clone());
                checkpointing.run(|| together(half, use_of_w))
            })?;
        }
        Ok(())
    }
}
