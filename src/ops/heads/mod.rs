//! The steps of the decoders.

pub(in crate::ops) mod multi_scale;
