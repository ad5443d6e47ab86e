//! Tensor in, tensor out, with gradients; no weights, no names.
//!
//! Each function is one differentiable step of the model. Its composed definition, made of candle
//! primitives, runs on any device and float type and is what the tests take as the truth; where a
//! measurement shows that it pays, a fused kernel with a backward of its own stands in on the CPU.

mod attention;
mod attention_half;
mod batch_norm;
mod blocks;
mod cpu;
mod filter;
mod gelu;
mod layer_norm;
mod linear;
mod low_rank;
mod mlp_half;
mod patches;
mod pool;
mod product;
mod resize;
mod segment;
mod simd;
mod softmax;
mod tpc;
mod window;
mod window_kernel;

pub use attention::{Attention, window_attention};
pub use attention_half::{Attended, AttendedParts, AttentionHalf, WithParts};
pub use batch_norm::{BatchMoments, batch_norm, batch_norm_train};
pub use filter::{depthwise_filter, filter_norm};
pub use gelu::gelu;
pub use layer_norm::{Norm, layer_norm};
pub use linear::linear;
pub use low_rank::{Dropout, LowRankMap, LowRankPath};
pub use mlp_half::{MlpHalf, MlpOutput, MlpParts};
pub use patches::{merge_patches, split_patches};
pub use pool::mean_tokens;
pub(crate) use resize::{Taps2, bilinear_taps};
pub use segment::Checkpoint;
pub use resize::{bicubic_square, bilinear};
pub use tpc::task_prompt_condition;
pub use window::{WindowGrid, relative_position_index, shift_mask};

#[cfg(test)]
pub(crate) mod finite_difference;
