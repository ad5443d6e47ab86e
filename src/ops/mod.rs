//! Tensor in, tensor out, with gradients; no weights, no names.
//!
//! Each function is one differentiable step of the model. Its composed definition, made of candle
//! primitives, runs on any device and float type and is what the tests take as the truth; where a
//! measurement shows that it pays, a fused kernel with a backward of its own stands in on the CPU.
//! [`Definition::run`] asks for either of the two. The optimizer's arithmetic is here as well, for the sake of its kernel.

#[cfg(feature = "train")]
mod adamw;
mod attention;
mod attention_half;
mod bands;
mod batch_norm;
mod blocks;
mod both_ways;
mod channels;
mod conditioned_down;
mod cpu;
mod definition;
mod dynamic_filter;
mod filter;
mod filter_map;
mod filter_taps;
mod frozen_matrix;
mod gelu;
mod layer_norm;
mod linear;
mod losses;
mod low_rank;
mod merge_linear;
mod mlp_half;
mod multi_scale_head;
mod node;
mod norm_down;
mod patches;
mod product;
mod resize;
mod segment;
mod shapes;
mod simd;
mod softmax;
#[cfg(feature = "train")]
mod square_sum;
mod tape;
mod task_hidden;
mod task_mix;
mod task_projection;
mod task_update;
mod tile;
mod tpc;
mod trace;
mod window;
mod window_kernel;

#[cfg(feature = "train")]
pub(crate) use adamw::{AdamWStep, Moments, adamw_step};
pub use attention::{Attention, window_attention};
pub(crate) use attention_half::scale_images;
pub use attention_half::{Attended, AttendedParts, AttentionHalf, WithParts};
pub use batch_norm::{BatchMoments, BatchNorm, MomentsOf};
pub use conditioned_down::conditioned_down;
pub use definition::Definition;
pub use dynamic_filter::{dynamic_filter, filter_taps};
pub use filter::{depthwise_filter, filter_norm};
pub use filter_taps::FilterWeights;
pub use gelu::gelu;
pub use layer_norm::{Norm, layer_norm};
pub use linear::linear;
pub(crate) use losses::{balanced_bce, cross_entropy, l1, normals_l1};
pub use low_rank::{Dropout, LowRankMap, LowRankPath};
pub use merge_linear::merge_linear;
pub use mlp_half::{MlpHalf, MlpOutput, MlpParts};
pub use multi_scale_head::{Conv1x1, MultiScaleHead, SizedMap};
pub use norm_down::norm_down;
pub(crate) use patches::split_patches;
pub use resize::bilinear;
pub(crate) use resize::{Taps2, bicubic_square, bilinear_taps};
pub use segment::GradientCheckpointing;
#[cfg(feature = "train")]
pub(crate) use square_sum::square_sum;
pub use tape::{leaf, recomputed, recorded, without_graph};
pub use task_hidden::task_hidden;
pub use task_mix::{TpcReading, task_mix};
pub use task_projection::task_projection;
pub use task_update::task_update;
pub use tpc::TaskCondition;
pub(crate) use window::offsets;
pub use window::{WindowGrid, relative_position_index, shift_mask};

#[cfg(test)]
pub(crate) mod finite_difference;
