//! The half by blocks of rows, on the CPU.
#![allow(unsafe_code)] // blocks of rows write their own parts of the outputs

use super::backward::{Incoming, Sums};
use super::kernel::{Buffers, Saved};
use super::step::MlpStep;
use crate::ops::cpu::{Fresh, Parts, Real, resize, unwritten};
use crate::ops::gelu;
use crate::ops::graph::trace::Pass;
use crate::ops::graph::{CpuKernel, InputGradients, Keep, Output, Passed};
use crate::ops::low_rank::kernel::UseOfW;
use candle_core::{Result, Tensor};

impl<T: Real> CpuKernel<T> for MlpStep {
    type Saved = Saved<T>;

    fn forward(&self, keep: Keep) -> Result<Passed<Saved<T>>> {
        let kernel = self.kernel::<T>(Pass::Forward)?;
        let (images, tokens, c) = self.half.x.dims3()?;
        let (rows, hidden) = (images * tokens, kernel.hidden);
        let (all, alone) = (keep == Keep::All, self.use_of_w == UseOfW::Alone);
        let (mut y, mut saved) = (Fresh::of(rows * c), Fresh::when(all, rows * hidden));
        let (mut pre, mut post) = (Fresh::when(alone, rows * hidden), Fresh::when(alone, rows * c));
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

    fn backward(&self, saved: Saved<T>, outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let kernel = self.kernel::<T>(Pass::Backward)?;
        let incoming = Incoming::new(self, &outputs)?;
        let mut dx = vec![T::zero(); self.half.x.elem_count()];
        let sums = {
            let dx = Parts::of(&mut dx);
            let start = || kernel.sums();
            kernel.blocks.sum(start, |sums, block| kernel.backward(&saved, &incoming, block, &dx, sums), Sums::join)
        };
        grads.give_values(&self.half.x, dx)?;
        sums.norm.give(&self.half.norm, grads)?;
        sums.fc1.give(&self.half.fc1, grads)?;
        sums.fc2.give(&self.half.fc2, grads)
    }
}
