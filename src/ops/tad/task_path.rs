//! The low-rank paths of the tasks.

use super::factor::Factor;
use crate::ops::low_rank::LowRankPath;
use candle_core::{Result, Tensor};

/// The tasks' low-rank paths beside one frozen linear: `s B_t F(A_t z_t)` for each task t, F what filters it; nothing is dropped.
///
/// # Shapes
/// A `[r, in]`, B `[out, r]`.
#[derive(Clone, Debug)]
pub struct TaskPath {
    /// A.
    pub a: Factor,
    /// B.
    pub b: Factor,
    /// s.
    pub scale: f64,
}

impl TaskPath {
    /// The block's own path, which the tasks share.
    pub(crate) fn shared(path: &LowRankPath) -> Self {
        Self { a: Factor::Shared(path.a.clone()), b: Factor::Shared(path.b.clone()), scale: path.scale }
    }

    /// Rank r.
    ///
    /// # Errors
    /// No A, or one without dimensions.
    pub fn rank(&self) -> Result<usize> {
        self.a.out()
    }

    /// `A_t z_t`: `[T*b, N, in]`, the tasks leading, to `[T*b, N, r]`.
    ///
    /// # Errors
    /// As [`Factor::forward`].
    pub fn down(&self, z: &Tensor) -> Result<Tensor> {
        self.a.forward(z)
    }

    /// `s B_t u_t`: `[T*b, N, r]`, the tasks leading, to `[T*b, N, out]`.
    ///
    /// # Errors
    /// As [`Factor::forward`].
    pub fn up(&self, u: &Tensor) -> Result<Tensor> {
        self.b.forward(&(u * self.scale)?)
    }
}
