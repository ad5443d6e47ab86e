//! Whether steps keep what backward needs, or make it again.

use super::scope::scoped;
use std::cell::Cell;

/// Whether a step's intermediate values are kept for backward or made again.
///
/// ```
/// use candle_core::{DType, Device, Var};
/// use tadformer::ops::{self, GradientCheckpointing};
/// let x = Var::ones((2, 3), DType::F32, &Device::Cpu)?;
/// let [kept, again] = [GradientCheckpointing::Off, GradientCheckpointing::On].map(|c| c.run(|| ops::gelu(&x)));
/// let gradient = |y: candle_core::Tensor| y.backward()?.get(&x).unwrap().to_vec2::<f32>();
/// assert_eq!(gradient(kept?)?, gradient(again?)?);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GradientCheckpointing {
    /// Kept.
    #[default]
    Off,
    /// Made again in backward from the step's inputs: less memory, more time, the same gradients.
    On,
}

thread_local! {
    static ASKED: Cell<GradientCheckpointing> = const { Cell::new(GradientCheckpointing::Off) };
}

impl GradientCheckpointing {
    /// Runs `f` with every step that this thread makes in it so; what held before holds again afterwards, also where `f` panics.
    ///
    /// Nothing else asks for it: a model's forward pass, in training as in evaluation, does what holds where it is called, and its backward
    /// pass does what held there.
    pub fn run<R>(self, f: impl FnOnce() -> R) -> R {
        scoped(&ASKED, self, f)
    }

    /// What this thread is to do.
    pub(crate) fn asked() -> Self {
        ASKED.get()
    }
}
