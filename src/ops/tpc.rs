//! The task-prompt conditional operator.

use super::gelu;
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
    let (bw, n, c) = attended.dims3()?;
    let (_, heads, p, _) = prompt_scores.dims4()?;
    let gate = gelu(prompt_scores)?.reshape((bw, heads, tasks, p / tasks, n))?.mean(3)?; // [B*nW, nH, T, N]
    let gate = gate.permute((2, 0, 3, 1))?.unsqueeze(4)?.contiguous()?; // [T, B*nW, N, nH, 1]
    let attended = attended.reshape((1, bw, n, heads, c / heads))?;
    attended.broadcast_mul(&gate)?.reshape((tasks, bw, n, c))
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
        let gates = gelu(&scores)?.get(window)?.get(channel / 2)?;
        let gate = [2, 3].map(|prompt| gates.get(prompt)?.get(patch)?.to_scalar::<f64>());
        let gate = (gate[0].as_ref().unwrap() + gate[1].as_ref().unwrap()) / 2.0;
        let want = (a.get(window)?.get(patch)?.get(channel)? * gate)?;
        close(&tpc.get(task)?.get(window)?.get(patch)?.get(channel)?, &want, 1e-12)
    }

    #[test]
    fn gradients() -> Result<()> {
        check(&[&normal(1, &[2, 3, 4])?, &normal(2, &[2, 2, 4, 3])?], |v| task_prompt_condition(&v[0], &v[1], 2))
    }
}
