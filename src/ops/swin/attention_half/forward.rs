//! The half by blocks of windows, on the CPU.
#![allow(unsafe_code)] // blocks of windows write their own parts of the outputs

use super::backward::{Incoming, Sums};
use super::kernel::{Buffers, Saved, Sizes};
use super::step::AttentionStep;
use crate::ops::cpu::simd;
use crate::ops::cpu::{Fresh, Parts, Real, unwritten, values};
use crate::ops::graph::trace::Pass;
use crate::ops::graph::{CpuKernel, InputGradients, Keep, Output, Passed};
use crate::ops::low_rank::kernel::UseOfW;
use candle_core::{Result, Tensor};

impl<T: Real> CpuKernel<T> for AttentionStep {
    type Saved = Saved<T>;

    fn forward(&self, keep: Keep) -> Result<Passed<Saved<T>>> {
        let kernel = self.kernel::<T>(Pass::Forward)?;
        let Sizes { images, tokens, c, length, n, windows } = kernel.sizes;
        let (p, heads) = (kernel.sizes.prompts(), kernel.attention.heads());
        let (all, alone) = (keep == Keep::All, self.use_of_w == UseOfW::Alone);
        let mut y = Fresh::of(images * tokens * c);
        let mut seen = Fresh::of(images * windows * p * c); // the prompts' rows of every window
        let rows = kernel.sizes.rows();
        let mut saved = [Fresh::when(all, rows * 3 * c), Fresh::when(all, rows * c)];
        let mut attended = Fresh::when(alone, images * windows * n * c);
        let mut projected = Fresh::when(alone, images * windows * n * c);
        let mut scores = Fresh::when(alone, images * windows * heads * p * n);
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
                kernel.qkv.add_path(kernel.qkv.dropped(first, rows, dropped), qkv, u);
                for (i, w) in block.clone().enumerate() {
                    let (qkv, a) =
                        (&qkv[i * length * 3 * c..][..length * 3 * c], &mut a[i * length * c..][..length * c]);
                    kernel.attention.forward(qkv, w, a, window);
                    if alone {
                        // SAFETY: `Blocks` puts each window into one block, so that no other part has these places.
                        kernel.attention.prompt_scores(qkv, unsafe { scores.at(w * heads * p * n, heads * p * n) });
                    }
                }
                // SAFETY: `WindowKernel::forward` has written each of the block's windows, and a is no more than those.
                let a = unsafe { a.assume_init_ref() };
                let out = kernel.proj.pretrained(a, unwritten(out, count * c));
                let a = kernel.proj.dropped(first, a, dropped);
                if alone {
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
                    let k = kernel.drop_path(w / windows);
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
        if self.half.prompts.is_some() {
            outputs.push(Output::new(mean_over_windows(&seen, images, windows), (images, p, c)));
        }
        if alone {
            outputs.push(Output::new(attended, (images * windows, n, c)));
            outputs.push(Output::new(projected, (images * windows, n, c)));
            if self.half.prompts.is_some() {
                outputs.push(Output::new(scores, (images * windows, heads, p, n)));
            }
        }
        Ok((outputs, all.then_some(saved)))
    }

    fn backward(&self, saved: Saved<T>, outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let (kernel, half) = (self.kernel::<T>(Pass::Backward)?, &self.half);
        let incoming = Incoming::new(self, &outputs)?;
        let mut dx = vec![T::zero(); half.patches.elem_count()];
        let sums = {
            let dx = Parts::of(&mut dx);
            let start = || kernel.sums();
            kernel.blocks.sum(start, |sums, block| kernel.backward(&saved, &incoming, block, &dx, sums), Sums::join)
        };
        let Sums { qkv, proj, mut norm, bias, prompts, .. } = sums;
        grads.give_values(&half.patches, dx)?;
        grads.give_values(&half.bias, bias)?;
        qkv.give(&half.qkv, grads)?;
        proj.give(&half.proj, grads)?;
        if let Some(tensor) = &half.prompts {
            let mut dprompts = vec![T::zero(); prompts.len()];
            kernel.norm.backward(&values::<T>(tensor)?, &prompts, &mut dprompts, &mut norm);
            grads.give_values(tensor, dprompts)?;
        }
        norm.give(&half.norm, grads)
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
