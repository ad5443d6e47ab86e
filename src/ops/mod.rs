//! Tensor in, tensor out, with gradients; no weights, no names.
//!
//! Each function is one differentiable step of the model. Its composed definition, made of candle
//! primitives, runs on any device and float type and is what the tests take as the truth; where a
//! measurement shows that it pays, a fused kernel with a backward of its own stands in on the CPU.
//! [`Definition::run`] asks for either of the two. The optimizer's arithmetic is here as well, for the sake of its kernel.
//!
//! Here are the steps that other networks have a use for, and what any of them is run by. The steps of one block or one decoder of this
//! model alone are public for its tests and benches, and not shown: they may change with any version.

// `graph` says what a step is and how it joins candle's graph or a tape; `cpu` holds what kernels are made of; `swin`, `tad` and `heads`
// hold the steps of the crate's modules of those names, `losses` those of `loss`, `optim` those of the optimizer in `train`; the files
// beside them hold the steps that any network has.

mod batch_norm;
mod constants;
mod conv3x3;
mod cpu;
mod dropout;
mod feature_map;
mod gelu;
mod graph;
mod heads;
mod layer_norm;
mod linear;
mod losses;
mod low_rank;
mod matmul;
#[cfg(feature = "train")]
mod optim;
mod resize;
mod shapes;
mod swin;
mod tad;

#[doc(hidden)]
pub use batch_norm::{BatchMoments, BatchNorm, MomentsOf};
pub use conv3x3::conv3x3;
#[doc(hidden)]
pub use dropout::Dropout;
pub use feature_map::FeatureMap;
pub use gelu::gelu;
pub use graph::{Definition, GradientCheckpointing, leaf, recomputed, recorded, without_graph};
#[doc(hidden)]
pub use heads::multi_scale::{Conv1x1, MultiScaleHead};
pub use layer_norm::LayerNorm;
pub use linear::linear;
pub(crate) use losses::{balanced_bce, check_classes, cross_entropy, l1, normals_l1};
#[doc(hidden)]
pub use low_rank::{LowRankMap, LowRankPath};
#[cfg(feature = "train")]
pub(crate) use optim::adamw::{AdamWStep, Moments, adamw_step};
#[cfg(feature = "train")]
pub(crate) use optim::square_sum::square_sum;
pub use resize::bilinear;
pub(crate) use resize::{Taps2, bicubic_square, bilinear_taps};
pub use swin::attention::{Attention, window_attention};
#[doc(hidden)]
pub use swin::attention_half::{Attended, AttentionHalf, AttentionIntermediates};
pub(crate) use swin::halves::scale_images;
#[doc(hidden)]
pub use swin::merge_linear::merge_linear;
#[doc(hidden)]
pub use swin::mlp_half::{MlpHalf, MlpIntermediates};
pub(crate) use swin::patches::split_patches;
pub(crate) use swin::window::offsets;
pub use swin::window::{WindowGrid, relative_position_index, shift_mask};
#[doc(hidden)]
pub use tad::conditioned_down::conditioned_down;
pub use tad::factor::Factor;
pub use tad::filter::depthwise::{depthwise_filter, filter_norm};
pub use tad::filter::dynamic::{dynamic_filter, filter_taps};
pub use tad::filter::taps::FilterWeights;
#[doc(hidden)]
pub use tad::norm_down::norm_down;
pub(crate) use tad::shared::{add_to_shared, for_each_task};
#[doc(hidden)]
pub use tad::task_hidden::task_hidden;
pub use tad::task_mix::TpcReading;
#[doc(hidden)]
pub use tad::task_mix::task_mix;
pub use tad::task_path::TaskPath;
#[doc(hidden)]
pub use tad::task_projection::task_projection;
#[doc(hidden)]
pub use tad::task_update::task_update;
pub use tad::tpc::TaskCondition;

#[cfg(test)]
pub(crate) mod finite_difference;
