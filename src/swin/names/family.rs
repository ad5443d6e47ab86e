//! Whose names a checkpoint uses.

/// Whose names a checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// Hugging Face transformers.
    Transformers,
    /// timm, and this crate.
    Timm,
    /// The original code's, merging at a stage's end.
    Original,
    /// The released TADFormer's and MTLoRA's.
    Released,
    /// torchvision's, one list of features.
    Torchvision,
}
