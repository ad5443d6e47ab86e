//! The first half of a block: norm, window attention with prompts, projection, residual.
#![allow(unsafe_code)] // blocks of windows write their own parts of the outputs

use super::halves::{WithParts, scale_images};
use super::window::WindowGrid;
use crate::ops::cpu::float::Real;
use crate::ops::cpu::parts::{Fresh, Parts, unwritten};
use crate::ops::cpu::simd;
use crate::ops::cpu::slices::values;
use crate::ops::graph::trace::Pass;
use crate::ops::graph::{CpuKernel, Gradients, Keep, OnTensor, Output, Passed, Step, apply};
use crate::ops::layer_norm::Norm;
use crate::ops::low_rank::LowRankMap;
use crate::ops::shapes::Shapes;
use crate::ops::window_attention;
use backward::{Incoming, Sums};
use candle_core::{Result, Tensor};
use kernel::{Buffers, Sizes};

mod backward;

mod kernel;

/// `y = x + k proj(attention(norm(x)))`, and what the prompts attended to.
///
/// # Shapes
/// `patches` `[B, H*W, C]`, `prompts` `[B, P, C]`, `bias` `[nH, N, N]`, `mask` `[nW, N, N]`; N = M*M, windows of `grid`.
#[derive(Clone, Debug)]
pub struct AttentionHalf {
    /// x.
    pub patches: Tensor,
    /// The prompts that attend in every window.
    pub prompts: Option<Tensor>,
    /// How the map is cut.
    pub grid: WindowGrid,
    /// The norm before attention.
    pub norm: Norm,
    /// Queries, keys and values.
    pub qkv: LowRankMap,
    /// Relative position bias.
    pub bias: Tensor,
    /// What keeps apart the tokens that the shift brought together.
    pub mask: Option<Tensor>,
    /// The output projection.
    pub proj: LowRankMap,
    /// k: each image's factor of drop-path; `None` for 1.
    pub keep: Option<Vec<f64>>,
    /// Which intermediate values come out as well.
    pub parts: WithParts,
}

/// What [`AttentionHalf::forward`] gives.
#[derive(Clone, Debug)]
pub struct Attended {
    /// y, `[B, H*W, C]`.
    pub patches: Tensor,
    /// The prompts' attended and projected rows, averaged over the windows: `[B, P, C]`.
    pub prompts: Option<Tensor>,
    /// The intermediate values, where they were asked for.
    pub parts: Option<AttendedParts>,
}

/// Intermediate values of a block's first half, window by window.
#[derive(Clone, Debug)]
pub struct AttendedParts {
    /// The attended patches as the projection's low-rank path reads them: `[B*nW, N, C]`.
    pub attended: Tensor,
    /// `W a + b` of the projection for the patches: `[B*nW, N, C]`.
    pub projected: Tensor,
    /// Unscaled scores of prompts with patches: `[B*nW, nH, P, N]`.
    pub prompt_scores: Option<Tensor>,
}

impl AttentionHalf {
    /// On the CPU in f32 or f64 one segment of the graph, elsewhere candle's primitives.
    ///
    /// # Errors
    /// Tensors whose shapes or float types do not fit; factors of drop-path for another number of images.
    pub fn forward(self) -> Result<Attended> {
        let (has_prompts, parts) = (self.prompts.is_some(), self.parts);
        let mut outputs = apply(self)?.into_iter();
        let mut next = || outputs.next().ok_or_else(|| candle_core::Error::Msg("an output is missing".into()));
        let patches = next()?;
        let prompts = if has_prompts { Some(next()?) } else { None };
        let parts = match parts {
            WithParts::No => None,
            WithParts::Yes => Some(AttendedParts {
                attended: next()?,
                projected: next()?,
                prompt_scores: if has_prompts { Some(next()?) } else { None },
            }),
        };
        Ok(Attended { patches, prompts, parts })
    }

    /// Rows of a window, prompts and patches.
    fn length(&self) -> Result<usize> {
        let p = self.prompts.as_ref().map_or(Ok(0), |prompts| prompts.dim(1))?;
        Ok(p + self.grid.window() * self.grid.window())
    }
}

/// `[B, P, C]` to `[B*nW, P, C]`.
fn in_every_window(prompts: &Tensor, windows: usize) -> Result<Tensor> {
    let (b, p, c) = prompts.dims3()?;
    prompts.unsqueeze(1)?.broadcast_as((b, windows, p, c))?.reshape((b * windows, p, c))
}

/// What backward needs beside the inputs: queries, keys and values, and what attention made of them.
pub(in crate::ops) struct Saved<T> {
    qkv: Vec<T>,
    attended: Vec<T>,
}

impl Step for AttentionHalf {
    fn name(&self) -> &'static str {
        "attention-half"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self {
            patches: f(&self.patches)?,
            prompts: self.prompts.as_ref().map(&mut *f).transpose()?,
            norm: self.norm.map(f)?,
            qkv: self.qkv.map(f)?,
            bias: f(&self.bias)?,
            proj: self.proj.map(f)?,
            ..self.clone()
        })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([images, _, c], n) = (shapes.sizes("patches", &self.patches)?, self.grid.window() * self.grid.window());
        shapes.expect("patches", &self.patches, &[images, self.grid.tokens(), c])?;
        if let Some(prompts) = &self.prompts {
            let [_, p, _] = shapes.sizes("prompts", prompts)?;
            shapes.expect("prompts", prompts, &[images, p, c])?;
        }
        self.norm.check(shapes, c)?;
        self.qkv.check(shapes, "qkv", c, 3 * c)?;
        self.proj.check(shapes, "proj", c, c)?;
        let [heads, _, _] = shapes.sizes("a bias", &self.bias)?;
        shapes.times("channels", c, heads)?;
        shapes.expect("a bias", &self.bias, &[heads, n, n])?;
        if let Some(mask) = &self.mask {
            shapes.stored("a mask", mask, &[self.grid.windows(), n, n])?;
        }
        shapes.keep(self.keep.as_deref(), images)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let patches = self.grid.partition(&self.norm.forward(&self.patches)?)?;
        let windows = match &self.prompts {
            None => patches,
            Some(prompts) => {
                let prompts = in_every_window(&self.norm.forward(prompts)?, self.grid.windows())?;
                Tensor::cat(&[&prompts, &patches], 1)?
            }
        };
        let attention = window_attention(&self.qkv.forward(&windows)?, &self.bias, self.mask.as_ref())?;
        let frozen = self.proj.pretrained(&attention.tokens)?;
        let dropped = self.proj.dropped(&attention.tokens)?;
        let projected = self.proj.add_path(&frozen, &dropped)?;

        let n = self.grid.window() * self.grid.window();
        let p = projected.dim(1)? - n;
        let update = self.grid.reverse(&projected.narrow(1, p, n)?)?;
        let mut outputs = vec![(&self.patches + scale_images(&update, self.keep.as_deref())?)?];
        if let Some(prompts) = &self.prompts {
            let (b, p, c) = prompts.dims3()?;
            outputs.push(projected.narrow(1, 0, p)?.reshape((b, (), p, c))?.mean(1)?);
        }
        if self.parts == WithParts::Yes {
            outputs.extend([dropped.narrow(1, p, n)?, frozen.narrow(1, p, n)?]);
            outputs.extend(attention.prompt_scores);
        }
        Ok(outputs)
    }
}

impl<T: Real> CpuKernel<T> for AttentionHalf {
    type Saved = Saved<T>;

    fn forward(&self, keep: Keep) -> Result<Passed<Saved<T>>> {
        let kernel = self.kernel::<T>(Pass::Forward)?;
        let Sizes { images, tokens, c, length, n, windows } = kernel.sizes;
        let (p, heads) = (kernel.sizes.prompts(), kernel.attention.heads());
        let fresh = |len: usize, on: bool| Fresh::<T>::of(if on { len } else { 0 });
        let (all, parts) = (keep == Keep::All, self.parts == WithParts::Yes);
        let mut y = fresh(images * tokens * c, true);
        let mut seen = fresh(images * windows * p * c, true); // the prompts' rows of every window
        let mut saved = [fresh(kernel.sizes.rows() * 3 * c, all), fresh(kernel.sizes.rows() * c, all)];
        let mut attended = fresh(images * windows * n * c, parts);
        let mut projected = fresh(images * windows * n * c, parts);
        let mut scores = fresh(images * windows * heads * p * n, parts);
        {
            let [y, seen] = [&mut y, &mut seen].map(Fresh::parts);
            let [qkv_out, attended_out] = saved.each_mut().map(Fresh::parts);
            let [attended, projected, scores] = [&mut attended, &mut projected, &mut scores].map(Fresh::parts);
            kernel.blocks.for_each(Buffers::default, |buffers, block| {
                let Buffers { windows: rows, dropped, qkv, attended: a, projected: out, u, window } = buffers;
                let (first, count) = (block.start * length, block.len() * length);
                kernel.gather(block.clone(), rows);
                // SAFETY: `Blocks` puts each window into one block, so that no other part has these places.
                let (qkv, a) = unsafe {
                    (qkv_out.or(first * 3 * c, count * 3 * c, qkv), attended_out.or(first * c, count * c, a))
                };
                let qkv = kernel.qkv.pretrained(rows, qkv);
                kernel.qkv.add_path(kernel.dropped(0, first * c, rows, dropped), qkv, u);
                for (i, w) in block.clone().enumerate() {
                    let (qkv, a) =
                        (&qkv[i * length * 3 * c..][..length * 3 * c], &mut a[i * length * c..][..length * c]);
                    kernel.attention.forward(qkv, w, a, window);
                    if parts {
                        // SAFETY: `Blocks` puts each window into one block, so that no other part has these places.
                        kernel.attention.prompt_scores(qkv, unsafe { scores.at(w * heads * p * n, heads * p * n) });
                    }
                }
                // SAFETY: `WindowKernel::forward` has written each of the block's windows, and a is no more than those.
                let a = unsafe { a.assume_init_ref() };
                let out = kernel.proj.pretrained(a, unwritten(out, count * c));
                let a = kernel.dropped(1, first * c, a, dropped);
                if parts {
                    for (i, w) in block.clone().enumerate() {
                        let patches = (i * length + p) * c..(i + 1) * length * c;
                        // SAFETY: `Blocks` puts each window into one block, so that no other part has these places.
                        unsafe { attended.at(w * n * c, n * c) }.write_copy_of_slice(&a[patches.clone()]);
                        // SAFETY: as above.
                        unsafe { projected.at(w * n * c, n * c) }.write_copy_of_slice(&out[patches]);
                    }
                }
                kernel.proj.add_path(a, out, u);
                for (w, rows) in block.zip(out.chunks_exact(length * c)) {
                    let (prompts, patches) = rows.split_at(p * c);
                    // SAFETY: `Blocks` puts each window into one block, so that no other part has these places.
                    unsafe { seen.at(w * p * c, p * c) }.write_copy_of_slice(prompts);
                    let k = kernel.keep(w / windows);
                    for (i, row) in patches.chunks_exact(c).enumerate() {
                        let Some(place) = kernel.place(w, i) else { continue };
                        // SAFETY: `WindowGrid::places` has each patch in one window, `Blocks` each window in one block.
                        let y = unsafe { y.at(place * c, c) };
                        let x = &kernel.patches[place * c..][..c];
                        simd::vectorised(|| {
                            for ((y, x), row) in y.iter_mut().zip(x).zip(row) {
                                y.write(*x + k * *row);
                            }
                        });
                    }
                }
            });
        }
        // SAFETY: the blocks cover all windows, and these by `WindowGrid::places` all patches. Each block has written its own of what is kept:
        // patches, prompts, attended and projected rows by copies and sums, scores by `prompt_scores`. What is not kept has no room.
        let [y, seen, attended, projected, scores] =
            [y, seen, attended, projected, scores].map(|v| unsafe { v.written() });
        // SAFETY: as above, by `pretrained` and by `WindowKernel::forward`.
        let [qkv, attention] = saved.map(|v| unsafe { v.written() });
        let saved = Saved { qkv, attended: attention };
        let mut outputs = vec![Output::new(y, (images, tokens, c))];
        if self.prompts.is_some() {
            outputs.push(Output::new(mean_over_windows(&seen, images, windows), (images, p, c)));
        }
        if parts {
            outputs.push(Output::new(attended, (images * windows, n, c)));
            outputs.push(Output::new(projected, (images * windows, n, c)));
            if self.prompts.is_some() {
                outputs.push(Output::new(scores, (images * windows, heads, p, n)));
            }
        }
        Ok((outputs, all.then_some(saved)))
    }

    fn backward(&self, saved: Saved<T>, outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()> {
        let kernel = self.kernel::<T>(Pass::Backward)?;
        let incoming = Incoming::new(self, &outputs)?;
        let mut dx = vec![T::zero(); self.patches.elem_count()];
        let sums = {
            let dx = Parts::of(&mut dx);
            let start = || kernel.sums();
            kernel.blocks.sum(start, |sums, block| kernel.backward(&saved, &incoming, block, &dx, sums), Sums::join)
        };
        let Sums { qkv, proj, mut norm, bias, prompts, .. } = sums;
        grads.give_values(&self.patches, dx)?;
        grads.give_values(&self.bias, bias)?;
        qkv.give(&self.qkv, grads)?;
        proj.give(&self.proj, grads)?;
        if let Some(tensor) = &self.prompts {
            let mut dprompts = vec![T::zero(); prompts.len()];
            kernel.norm.backward(&values::<T>(tensor)?, &prompts, &mut dprompts, &mut norm);
            grads.give_values(tensor, dprompts)?;
        }
        norm.give(&self.norm, grads)
    }
}

/// `[B*nW, P, C]` to `[B, P, C]`.
fn mean_over_windows<T: Real>(seen: &[T], images: usize, windows: usize) -> Vec<T> {
    let size = seen.len() / (images * windows).max(1);
    let mut mean = vec![T::zero(); images * size];
    for (i, rows) in seen.chunks_exact(size.max(1)).enumerate() {
        simd::add_scaled(&mut mean[i / windows * size..][..size], rows, T::of(1.0 / windows as f64));
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::GradientCheckpointing;
    use crate::ops::finite_difference::{check, close, normal};
    use crate::ops::{Definition, Dropout};
    use crate::ops::{LowRankPath, shift_mask};
    use candle_core::Device;

    fn map(seed: u64, n_in: usize, out: usize, dropout: Option<Dropout>) -> Result<LowRankMap> {
        let path = LowRankPath { a: normal(seed, &[2, n_in])?, b: normal(seed + 1, &[out, 2])?, scale: 0.5, dropout };
        Ok(LowRankMap {
            weight: normal(seed + 2, &[out, n_in])?,
            bias: Some(normal(seed + 3, &[out])?),
            path: Some(path),
        })
    }

    /// A shifted, padded map of two images, with two prompts where they are asked for.
    fn half(prompts: bool, parts: WithParts, dropout: Option<Dropout>) -> Result<AttentionHalf> {
        let grid = WindowGrid::new((3, 5), 2, true)?;
        Ok(AttentionHalf {
            patches: normal(1, &[2, 15, 4])?,
            prompts: if prompts { Some(normal(2, &[2, 2, 4])?) } else { None },
            grid,
            norm: Norm { weight: normal(3, &[4])?, bias: normal(4, &[4])?, eps: 1e-5 },
            qkv: map(10, 4, 12, dropout)?,
            bias: normal(5, &[2, 4, 4])?,
            mask: shift_mask(&grid, &Device::Cpu)?.map(|mask| mask.to_dtype(candle_core::DType::F64)).transpose()?,
            proj: map(20, 4, 4, dropout)?,
            keep: Some(vec![0.0, 1.5]),
            parts,
        })
    }

    /// All outputs in one tensor.
    fn together(out: Attended) -> Result<Tensor> {
        let mut all = vec![out.patches];
        all.extend(out.prompts);
        if let Some(parts) = out.parts {
            all.extend([parts.attended, parts.projected]);
            all.extend(parts.prompt_scores);
        }
        Tensor::cat(&all.iter().map(|t| t.flatten_all()).collect::<Result<Vec<_>>>()?, 0)
    }

    #[test]
    fn the_segment_equals_its_composed_definition() -> Result<()> {
        let dropout = Some(Dropout { rate: 0.3, seed: 7 });
        for (prompts, parts, dropout) in [
            (false, WithParts::No, None),
            (true, WithParts::No, None),
            (true, WithParts::Yes, dropout),
            (false, WithParts::Yes, None),
        ] {
            let half = half(prompts, parts, dropout)?;
            let run = |by: Definition| by.run(|| together(half.clone().forward()?));
            let [fused, composed] = Definition::ALL.map(run);
            close(&fused?, &composed?, 1e-12)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_of_all_inputs_kept_or_made_again() -> Result<()> {
        for (parts, dropout, checkpointing) in [
            (WithParts::No, None, GradientCheckpointing::Off),
            (WithParts::Yes, Some(Dropout { rate: 0.3, seed: 7 }), GradientCheckpointing::Off),
            (WithParts::Yes, None, GradientCheckpointing::On),
        ] {
            let half = half(true, parts, dropout)?;
            let prompts = half.prompts.clone().unwrap();
            let (qkv, proj) = (half.qkv.path.clone().unwrap(), half.proj.path.clone().unwrap());
            let inputs = [
                &half.patches,
                &prompts,
                &half.norm.weight,
                &half.norm.bias,
                &half.bias,
                &qkv.a,
                &qkv.b,
                &proj.a,
                &proj.b,
                &half.proj.weight,
                half.qkv.bias.as_ref().unwrap(),
            ];
            check(&inputs, |v| {
                let mut half = half.clone();
                (half.patches, half.prompts) = (v[0].clone(), Some(v[1].clone()));
                (half.norm.weight, half.norm.bias, half.bias) = (v[2].clone(), v[3].clone(), v[4].clone());
                half.qkv.path = Some(LowRankPath { a: v[5].clone(), b: v[6].clone(), ..qkv.clone() });
                half.proj.path = Some(LowRankPath { a: v[7].clone(), b: v[8].clone(), ..proj.clone() });
                (half.proj.weight, half.qkv.bias) = (v[9].clone(), Some(v[10].clone()));
                together(checkpointing.run(|| half.forward())?)
            })?;
        }
        Ok(())
    }
}
