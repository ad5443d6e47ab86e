//! Which of a step's two definitions runs: its fused kernel, or candle's primitives.

use super::scope::scoped;
use candle_core::{DType, Device, Tensor};
use std::cell::Cell;

/// The two definitions of a step.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::ops::{self, Definition};
/// let x = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
/// let [fused, composed] = Definition::ALL.map(|definition| definition.run(|| ops::gelu(&x)));
/// assert_eq!(fused?.to_vec2::<f32>()?[0], composed?.to_vec2::<f32>()?[0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definition {
    /// A kernel with a backward of its own, where there is one: in f32 and f64 on the CPU.
    Fused,
    /// Candle's primitives: the definition for every device and float type, and the tests' oracle.
    Composed,
}

thread_local! {
    static ASKED: Cell<Definition> = const { Cell::new(Definition::Fused) };
}

impl Definition {
    /// Both, the fused one first.
    pub const ALL: [Self; 2] = [Self::Fused, Self::Composed];

    /// `fused` or `composed`, as traces and the ids of benches have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fused => "fused",
            Self::Composed => "composed",
        }
    }

    /// Runs `f` with every step that this thread makes in it by this definition.
    ///
    /// It holds for forward passes: a graph made in `f` keeps its definition in whichever backward pass follows. What held
    /// before holds again afterwards, also where `f` panics.
    pub fn run<R>(self, f: impl FnOnce() -> R) -> R {
        scoped(&ASKED, self, f)
    }

    /// What this thread is to run.
    pub(in crate::ops) fn asked() -> Self {
        ASKED.get()
    }
}

/// What runs a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Runs {
    /// Its kernel for f32 on the CPU.
    CpuF32,
    /// Its kernel for f64 on the CPU.
    CpuF64,
    /// Candle's primitives.
    Composed,
}

impl Runs {
    /// What runs a step whose first tensor this is.
    pub(in crate::ops) fn of(x: &Tensor) -> Self {
        match (Definition::asked(), x.device(), x.dtype()) {
            (Definition::Fused, Device::Cpu, DType::F32) => Self::CpuF32,
            (Definition::Fused, Device::Cpu, DType::F64) => Self::CpuF64,
            _ => Self::Composed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::normal;

    #[test]
    fn a_scope_ends_where_it_ends_even_by_a_panic() -> candle_core::Result<()> {
        let x = normal(1, &[1])?;
        Definition::Composed.run(|| {
            assert_eq!(Runs::of(&x), Runs::Composed);
            Definition::Fused.run(|| assert_eq!(Runs::of(&x), Runs::CpuF64));
            assert_eq!(Runs::of(&x), Runs::Composed);
            std::thread::scope(|scope| scope.spawn(|| assert_eq!(Runs::of(&x), Runs::CpuF64)).join().unwrap());
        });
        assert_eq!(Runs::of(&x), Runs::CpuF64);
        assert!(
            std::panic::catch_unwind(|| Definition::Composed.run(|| std::panic::resume_unwind(Box::new(())))).is_err()
        );
        assert_eq!(Runs::of(&x), Runs::CpuF64);
        Ok(())
    }

    #[test]
    fn half_precision_is_composed() -> candle_core::Result<()> {
        assert_eq!(Runs::of(&normal(1, &[1])?.to_dtype(DType::F16)?), Runs::Composed);
        Ok(())
    }
}
