//! The steps of the Swin backbone.

pub(in crate::ops) mod attention;
pub(in crate::ops) mod attention_half;
pub(in crate::ops) mod halves;
pub(in crate::ops) mod merge_linear;
pub(in crate::ops) mod mlp_half;
pub(in crate::ops) mod patches;
pub(in crate::ops) mod softmax;
pub(in crate::ops) mod window;
pub(in crate::ops) mod window_kernel;
