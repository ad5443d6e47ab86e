//! How exactly a GPU multiplies.

use candle_core::cuda::{gemm_reduced_precision_f32, set_gemm_reduced_precision_f32};

/// What CUDA devices make of a product of f32 matrices; other devices always compute it in f32.
///
/// ```
/// use tadformer::runtime::Precision;
/// assert_eq!(Precision::asked(), Precision::F32);
/// Precision::Tf32.ask();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// In f32: 24 bits of each factor. What holds where nothing else was asked for.
    #[default]
    F32,
    /// By tensor cores, where the GPU has them for it (compute capability 8.0 and on): 11 bits of each factor, sums in f32. Storage,
    /// gradients and all other steps stay f32.
    Tf32,
}

impl Precision {
    /// Asks for it, in the whole process and from the next product on.
    pub fn ask(self) {
        set_gemm_reduced_precision_f32(self == Self::Tf32);
    }

    /// What holds; built without `cuda`, f32.
    pub fn asked() -> Self {
        if cfg!(feature = "cuda") && gemm_reduced_precision_f32() { Self::Tf32 } else { Self::F32 }
    }
}
