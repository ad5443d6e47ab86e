//! The steps of the task-adapting block.

pub(in crate::ops) mod conditioned_down;
pub(in crate::ops) mod factor;
pub(in crate::ops) mod filter;
pub(in crate::ops) mod norm_down;
pub(in crate::ops) mod rows;
pub(in crate::ops) mod shared;
pub(in crate::ops) mod task_hidden;
pub(in crate::ops) mod task_mix;
pub(in crate::ops) mod task_path;
pub(in crate::ops) mod task_projection;
pub(in crate::ops) mod task_sum;
pub(in crate::ops) mod task_update;
pub(in crate::ops) mod tpc;
