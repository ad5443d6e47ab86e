//! The task-prompt conditional operator.
#![allow(unsafe_code)] // windows write their own parts of the gradients

use crate::ops;
use crate::ops::cpu::simd;
use crate::ops::cpu::{Blocks, Parts, Real, Values, values};
use crate::ops::gelu;
use crate::ops::graph::OnTensor;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// What the TPC operator makes of a window: how strongly task t's prompts look at a patch gates each head's channels of that patch.
///
/// `g_t = mean over l of GELU(scores[prompts of t, patches])`, `tpc_t = a * g_t`, head by head.
///
/// Source: the paper's section 3.3.
#[derive(Clone, Debug)]
pub struct TaskCondition {
    /// a: the attended patches alone, `[B*nW, N, C]`.
    pub attended: Tensor,
    /// Unscaled scores of prompts with patches, `[B*nW, nH, T*l, N]`.
    pub scores: Tensor,
    /// T.
    pub tasks: usize,
}

impl TaskCondition {
    /// `tpc`, `[T, B*nW, N, C]`; the steps that read it on the CPU make it window by window instead.
    ///
    /// # Errors
    /// Scores of other windows or patches than the attended ones; prompts that T, or channels that nH does not divide.
    pub fn feature(&self) -> Result<Tensor> {
        let (gates, tasks) = (self.gates()?, self.tasks);
        let ((bw, n, c), heads) = (self.attended.dims3()?, self.scores.dim(1)?);
        let gate = gates.permute((2, 0, 3, 1))?.unsqueeze(4)?.contiguous()?; // [T, B*nW, N, nH, 1]
        let attended = self.attended.reshape((1, bw, n, heads, c / heads))?;
        attended.broadcast_mul(&gate)?.reshape((tasks, bw, n, c))
    }

    /// `g`, `[B*nW, nH, T, N]`: how strongly each task's prompts look at each patch.
    ///
    /// # Errors
    /// As [`TaskCondition::feature`].
    pub fn gates(&self) -> Result<Tensor> {
        self.check(Shapes::of("tpc", &self.attended)?)?;
        let (bw, heads, p, n) = self.scores.dims4()?;
        ops::gelu(&self.scores)?.reshape((bw, heads, self.tasks, p / self.tasks, n))?.mean(3)
    }

    /// For the step of `shapes`; gives the attended patches' sizes.
    pub(in crate::ops) fn check(&self, shapes: Shapes) -> Result<[usize; 3]> {
        let [windows, n, c] = shapes.sizes("attended", &self.attended)?;
        let [_, heads, p, _] = shapes.sizes("scores", &self.scores)?;
        shapes.times("channels", c, heads)?;
        shapes.times("prompts", p, self.tasks)?;
        shapes.expect("scores", &self.scores, &[windows, heads, p, n])?;
        Ok([windows, n, c])
    }

    pub(in crate::ops) fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { attended: f(&self.attended)?, scores: f(&self.scores)?, ..*self })
    }

    pub(in crate::ops) fn kernel<T: Real>(&self) -> Result<ConditionKernel<'_, T>> {
        let ((windows, n, c), (_, heads, p, _)) = (self.attended.dims3()?, self.scores.dims4()?);
        Ok(ConditionKernel {
            attended: values(&self.attended)?,
            scores: values(&self.scores)?,
            tasks: self.tasks,
            heads,
            windows,
            n,
            c,
            l: p / self.tasks,
        })
    }
}

/// A [`TaskCondition`] as slices, window by window.
pub(in crate::ops) struct ConditionKernel<'a, T: Real> {
    pub(in crate::ops) attended: Values<'a, T>,
    pub(in crate::ops) scores: Values<'a, T>,
    pub(in crate::ops) tasks: usize,
    heads: usize,
    /// Windows, patches of a window, channels, prompts of a task.
    pub(in crate::ops) windows: usize,
    pub(in crate::ops) n: usize,
    pub(in crate::ops) c: usize,
    l: usize,
}

impl<T: Real> ConditionKernel<'_, T> {
    pub(in crate::ops) fn blocks(&self) -> Blocks {
        Blocks::of(self.windows, self.n)
    }

    /// The attended patches of a window.
    fn patches(&self, w: usize) -> &[T] {
        &self.attended[w * self.n * self.c..][..self.n * self.c]
    }

    /// The scores of a task's prompts with a window's patches at a head: `[l, N]`.
    fn scores(&self, w: usize, head: usize, t: usize) -> Range<usize> {
        let first = ((w * self.heads + head) * self.tasks + t) * self.l * self.n;
        first..first + self.l * self.n
    }

    /// `g_t` of a window: `[nH, N]`.
    fn gates(&self, w: usize, t: usize, gates: &mut Vec<T>) {
        gates.clear();
        gates.resize(self.heads * self.n, T::zero());
        for (head, gates) in gates.chunks_exact_mut(self.n).enumerate() {
            mean_gelu(&self.scores[self.scores(w, head, t)], gates);
        }
    }

    /// `y = a (g_t + plus)` for a window: with 0 the feature, with 1 the feature added to what it was made from.
    pub(in crate::ops) fn forward(&self, w: usize, t: usize, plus: T, gates: &mut Vec<T>, y: &mut [T]) {
        self.gates(w, t, gates);
        gate_rows(self.patches(w), gates, self.heads, plus, y);
    }

    /// `da += dy (g_t + plus)`, and the scores' gradients, in which each gate's is the sum over its channels of `dy a`.
    ///
    /// # Safety
    /// No other thread works on this window.
    pub(in crate::ops) unsafe fn backward(
        &self,
        (w, t): (usize, usize),
        plus: T,
        dy: &[T],
        [gates, dgates]: [&mut Vec<T>; 2],
        [da, dscores]: [&Parts<T>; 2],
    ) {
        let (n, c) = (self.n, self.c);
        self.gates(w, t, gates);
        dgates.resize(gates.len(), T::zero());
        // SAFETY: the caller's promise: these places are the window's.
        let da = unsafe { da.at(w * n * c, n * c) };
        gate_rows_backward(self.patches(w), gates, self.heads, plus, dy, da, dgates);
        let share = T::of(1.0 / self.l as f64);
        for (head, dgates) in dgates.chunks_exact(n).enumerate() {
            let place = self.scores(w, head, t);
            // SAFETY: as above.
            let dscores = unsafe { dscores.at(place.start, place.len()) };
            for dscores in dscores.chunks_exact_mut(n) {
                dscores.iter_mut().zip(dgates).for_each(|(dscore, dgate)| *dscore = *dgate * share);
            }
            gelu::backward(&self.scores[place], dscores);
        }
    }
}

simd::vectorised_fn! {
    /// `gates = mean over l of GELU(scores)`, scores `[l, N]`.
    fn mean_gelu<T: Real>(scores: &[T], gates: &mut [T]) {
        let share = T::of(gates.len() as f64 / scores.len() as f64);
        for scores in scores.chunks_exact(gates.len()) {
            for (gate, score) in gates.iter_mut().zip(scores) {
                *gate += gelu::value(*score) * share;
            }
        }
    }
}

simd::vectorised_fn! {
    /// `y = a (gate + plus)`, a `[N, C]`, gates `[nH, N]`.
    fn gate_rows<T: Real>(a: &[T], gates: &[T], heads: usize, plus: T, y: &mut [T]) {
        let n = gates.len() / heads;
        let c = a.len() / n;
        for (i, (y, a)) in y.chunks_exact_mut(c).zip(a.chunks_exact(c)).enumerate() {
            for (head, (y, a)) in y.chunks_exact_mut(c / heads).zip(a.chunks_exact(c / heads)).enumerate() {
                let gate = gates[head * n + i] + plus;
                for (y, a) in y.iter_mut().zip(a) {
                    *y = *a * gate;
                }
            }
        }
    }
}

simd::vectorised_fn! {
    /// `da += dy (gate + plus)` and `dgate = Σ dy a` over a head's channels.
    fn gate_rows_backward<T: Real>(a: &[T], gates: &[T], heads: usize, plus: T, dy: &[T], da: &mut [T], dgates: &mut [T]) {
        let n = gates.len() / heads;
        let d = a.len() / gates.len();
        let rows = da.chunks_exact_mut(heads * d).zip(a.chunks_exact(heads * d)).zip(dy.chunks_exact(heads * d));
        for (i, ((da, a), dy)) in rows.enumerate() {
            let heads = da.chunks_exact_mut(d).zip(a.chunks_exact(d)).zip(dy.chunks_exact(d));
            for (head, ((da, a), dy)) in heads.enumerate() {
                simd::add_scaled(da, dy, gates[head * n + i] + plus);
                dgates[head * n + i] = simd::dot(dy, a);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn each_value_is_its_patch_times_its_heads_mean_gate() -> Result<()> {
        let (attended, scores) = (normal(1, &[2, 3, 4])?, normal(2, &[2, 2, 4, 3])?);
        let condition = TaskCondition { attended, scores, tasks: 2 };
        let tpc = condition.feature()?;
        let (task, window, patch, channel) = (1, 1, 2, 3);
        let gates = ops::gelu(&condition.scores)?.get(window)?.get(channel / 2)?;
        let gate = [2, 3].map(|prompt| gates.get(prompt)?.get(patch)?.to_scalar::<f64>());
        let gate = (gate[0].as_ref().unwrap() + gate[1].as_ref().unwrap()) / 2.0;
        let want = (condition.attended.get(window)?.get(patch)?.get(channel)? * gate)?;
        close(&tpc.get(task)?.get(window)?.get(patch)?.get(channel)?, &want, 1e-12)
    }

    #[test]
    fn gradients_of_the_feature() -> Result<()> {
        check(&[&normal(1, &[2, 3, 4])?, &normal(2, &[2, 2, 4, 3])?], |v| {
            TaskCondition { attended: v[0].clone(), scores: v[1].clone(), tasks: 2 }.feature()
        })
    }
}
