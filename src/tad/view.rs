//! What a model looks at: the prompts' attention, the filters and the gate of each stage, as a forward pass uses them.

use super::{AdaptedLinear, TaskAwareLinear};
use candle_core::{DType, Result, Tensor};

/// What the task-adapting block at the end of a stage looks at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StageView {
    /// g: how strongly the prompts of a task look at each patch, by attention head, `[T, B, nH, H, W]`; `None` without prompts.
    pub attention: Option<Tensor>,
    /// The task filters of proj, fc1 and fc2, in this order, where there are any.
    pub filters: Vec<FilterView>,
    /// The share of the TPC feature in the tasks' maps, `[1]`; `None` where none is mixed in.
    pub gate: Option<Tensor>,
}

/// The task filters that a linear used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FilterView {
    /// Of this linear.
    pub linear: AdaptedLinear,
    /// `[T, B, n, k*k, r]`: n filters a map, one for each window at proj and one for the whole map at fc1 and fc2.
    pub taps: Tensor,
}

impl FilterView {
    /// How far the tasks' filters point apart: 1 less the cosine of the angle between all taps of two tasks, mean over images and
    /// windows; `[T, T]` f64 from 0, the same direction, to 2.
    ///
    /// # Errors
    /// None in practice; candle's are passed on.
    pub fn distances(&self) -> Result<Tensor> {
        let taps = self.taps.to_dtype(DType::F64)?.flatten_from(3)?.flatten(1, 2)?; // [T, B*n, k*k*r]
        let units = taps.broadcast_div(&taps.sqr()?.sum_keepdim(2)?.sqrt()?.clamp(f64::MIN_POSITIVE, f64::MAX)?)?;
        let cosines = |t: usize| units.broadcast_mul(&units.get(t)?.unsqueeze(0)?)?.sum(2)?.mean(1); // [T]
        let cosines = (0..taps.dim(0)?).map(cosines).collect::<Result<Vec<_>>>()?;
        (1.0 - Tensor::stack(&cosines, 0)?)?.clamp(0.0, 2.0) // rounding may leave a little less than 0
    }
}

/// Sees what each linear's filter is about to read: `[T*b, N, r]`.
pub(super) type Watch<'a> = dyn FnMut(AdaptedLinear, &TaskAwareLinear, &Tensor) -> Result<()> + 'a;
