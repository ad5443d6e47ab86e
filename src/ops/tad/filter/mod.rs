//! The Dynamic Task Filter: its taps, and the depth-wise convolution with them.

pub(in crate::ops) mod depthwise;
pub(in crate::ops) mod dynamic;
pub(in crate::ops) mod map;
pub(in crate::ops) mod taps;
