//! The task-prompt conditional operator.
#![allow(unsafe_code)] // blocks of windows write their own parts of the outputs

use super::blocks::Blocks;
use super::cpu::{Parts, Real, Values, by_float, is_fused, values};
use super::gelu;
use super::segment::{self, Checkpoint, Gradients, Keep, Output, Passed, Segment};
use super::simd;
use candle_core::{Result, Tensor};

/// The TPC operator: how strongly task t's prompts look at a patch gates each head's channels of that patch.
///
/// `g_t = mean over l of GELU(scores[prompts of t, patches])`, `tpc_t = a * g_t`, head by head.
///
/// # Shapes
/// `attended` `[B*nW, N, C]` (the patches alone), `prompt_scores` `[B*nW, nH, T*l, N]` unscaled, result `[T, B*nW, N, C]`.
///
/// Source: the paper's section 3.3. The released code reads the result with channels and positions swapped where the stage's
/// gate mixes it; see `TpcReading` for that.
pub fn task_prompt_condition(attended: &Tensor, prompt_scores: &Tensor, tasks: usize) -> Result<Tensor> {
    if !is_fused(attended) {
        return composed(attended, prompt_scores, tasks);
    }
    let step = Condition { attended: attended.contiguous()?, scores: prompt_scores.contiguous()?, tasks };
    segment::only(by_float!(attended.dtype(), run(step))?)
}

fn composed(attended: &Tensor, prompt_scores: &Tensor, tasks: usize) -> Result<Tensor> {
    let (bw, n, c) = attended.dims3()?;
    let (_, heads, p, _) = prompt_scores.dims4()?;
    let gate = super::gelu(prompt_scores)?.reshape((bw, heads, tasks, p / tasks, n))?.mean(3)?; // [B*nW, nH, T, N]
    let gate = gate.permute((2, 0, 3, 1))?.unsqueeze(4)?.contiguous()?; // [T, B*nW, N, nH, 1]
    let attended = attended.reshape((1, bw, n, heads, c / heads))?;
    attended.broadcast_mul(&gate)?.reshape((tasks, bw, n, c))
}

fn run<T: Real>(step: Condition) -> Result<Vec<Tensor>> {
    segment::run::<T, _>(step, Checkpoint::Off)
}

struct Condition {
    attended: Tensor,
    scores: Tensor,
    tasks: usize,
}

struct Kernel<'a, T: Real> {
    attended: Values<'a, T>,
    scores: Values<'a, T>,
    tasks: usize,
    heads: usize,
    /// Windows, patches of a window, channels, prompts of a task.
    windows: usize,
    n: usize,
    c: usize,
    l: usize,
}

impl Condition {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let ((windows, n, c), (_, heads, p, _)) = (self.attended.dims3()?, self.scores.dims4()?);
        let (attended, scores) = (values(&self.attended)?, values(&self.scores)?);
        Ok(Kernel { attended, scores, tasks: self.tasks, heads, windows, n, c, l: p / self.tasks })
    }
}

impl<T: Real> Kernel<'_, T> {
    fn blocks(&self) -> Blocks {
        Blocks::of(self.windows, self.n)
    }

    /// The scores of a task's prompts with a window's patches at a head: `[l, N]`.
    fn scores(&self, w: usize, head: usize, t: usize) -> std::ops::Range<usize> {
        let first = ((w * self.heads + head) * self.tasks + t) * self.l * self.n;
        first..first + self.l * self.n
    }

    /// `g_t` of a window: `[nH, N]`.
    fn gates(&self, w: usize, t: usize, gates: &mut Vec<T>) {
        gates.clear();
        gates.resize(self.heads * self.n, T::zero());
        for (head, gates) in gates.chunks_exact_mut(self.n).enumerate() {
            for scores in self.scores[self.scores(w, head, t)].chunks_exact(self.n) {
                let share = T::of(1.0 / self.l as f64);
                simd::vectorised(|| {
                    gates.iter_mut().zip(scores).for_each(|(gate, score)| *gate += gelu::value(*score) * share);
                });
            }
        }
    }

    /// Where a head's channels of a patch lie in a window's rows.
    fn channels(&self, head: usize, i: usize) -> std::ops::Range<usize> {
        let d = self.c / self.heads;
        i * self.c + head * d..i * self.c + (head + 1) * d
    }
}

impl<T: Real> Segment<T> for Condition {
    type Saved = ();

    fn name(&self) -> &'static str {
        "task-prompt-condition"
    }

    fn inputs(&self) -> Vec<&Tensor> {
        vec![&self.attended, &self.scores]
    }

    fn forward(&self, _: Keep) -> Result<Passed<T, ()>> {
        let kernel = self.kernel::<T>()?;
        let Kernel { tasks, heads, windows, n, c, .. } = kernel;
        let mut tpc = vec![T::zero(); tasks * windows * n * c];
        let out = Parts::of(&mut tpc);
        kernel.blocks().for_each(Vec::new, |gates, block| {
            for (w, t) in block.flat_map(|w| (0..tasks).map(move |t| (w, t))) {
                kernel.gates(w, t, gates);
                let a = &kernel.attended[w * n * c..][..n * c];
                // SAFETY: each window is in one block.
                let out = unsafe { out.at((t * windows + w) * n * c, n * c) };
                for (head, i) in (0..heads).flat_map(|head| (0..n).map(move |i| (head, i))) {
                    let (gate, at) = (gates[head * n + i], kernel.channels(head, i));
                    out[at.clone()].iter_mut().zip(&a[at]).for_each(|(out, a)| *out = *a * gate);
                }
            }
        });
        Ok((vec![Output::new(tpc, (tasks, windows, n, c))], Some(())))
    }

    /// `da = Σ_t dtpc_t g_t`; each gate's gradient is the sum over its channels of `dtpc a`.
    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()> {
        let Some(Some(dtpc)) = outputs.first() else { return Ok(()) };
        let (kernel, dtpc) = (self.kernel::<T>()?, values::<T>(dtpc)?);
        let Kernel { tasks, heads, windows, n, c, l, .. } = kernel;
        let (mut da, mut dscores) = (vec![T::zero(); kernel.attended.len()], vec![T::zero(); kernel.scores.len()]);
        let (da_out, dscores_out) = (Parts::of(&mut da), Parts::of(&mut dscores));
        kernel.blocks().for_each(Vec::new, |gates, block| {
            for (w, t) in block.flat_map(|w| (0..tasks).map(move |t| (w, t))) {
                kernel.gates(w, t, gates);
                let (a, d) = (&kernel.attended[w * n * c..][..n * c], &dtpc[(t * windows + w) * n * c..][..n * c]);
                // SAFETY: each window is in one block.
                let da = unsafe { da_out.at(w * n * c, n * c) };
                for head in 0..heads {
                    let place = kernel.scores(w, head, t);
                    // SAFETY: as above.
                    let dscores = unsafe { dscores_out.at(place.start, place.len()) };
                    for i in 0..n {
                        let (gate, at) = (gates[head * n + i], kernel.channels(head, i));
                        simd::add_scaled(&mut da[at.clone()], &d[at.clone()], gate);
                        let dgate = simd::dot(&d[at.clone()], &a[at]) * T::of(1.0 / l as f64);
                        (0..l).for_each(|prompt| dscores[prompt * n + i] = dgate);
                    }
                    gelu::backward(&kernel.scores[place], dscores);
                }
            }
        });
        grads.give_values(&self.attended, da)?;
        grads.give_values(&self.scores, dscores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn each_value_is_its_patch_times_its_heads_mean_gate() -> Result<()> {
        let (a, scores) = (normal(1, &[2, 3, 4])?, normal(2, &[2, 2, 4, 3])?);
        let tpc = task_prompt_condition(&a, &scores, 2)?;
        let (task, window, patch, channel) = (1, 1, 2, 3);
        let gates = super::super::gelu(&scores)?.get(window)?.get(channel / 2)?;
        let gate = [2, 3].map(|prompt| gates.get(prompt)?.get(patch)?.to_scalar::<f64>());
        let gate = (gate[0].as_ref().unwrap() + gate[1].as_ref().unwrap()) / 2.0;
        let want = (a.get(window)?.get(patch)?.get(channel)? * gate)?;
        close(&tpc.get(task)?.get(window)?.get(patch)?.get(channel)?, &want, 1e-12)
    }

    #[test]
    fn values_and_gradients_of_both_definitions() -> Result<()> {
        let (a, scores) = (normal(1, &[2, 3, 4])?, normal(2, &[2, 2, 4, 3])?);
        close(&task_prompt_condition(&a, &scores, 2)?, &composed(&a, &scores, 2)?, 1e-12)?;
        check(&[&a, &scores], |v| task_prompt_condition(&v[0], &v[1], 2))?;
        check(&[&a, &scores], |v| composed(&v[0], &v[1], 2))
    }
}
