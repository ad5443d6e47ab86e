//! What a step is, which of its definitions runs, and how candle's graph or a tape sees it.

mod checkpointing;
mod definition;
mod gradients;
mod leaves;
mod node;
mod output;
mod run;
mod scope;
mod seeds;
mod step;
mod tape;
mod token;
pub(in crate::ops) mod trace;

pub use checkpointing::GradientCheckpointing;
pub use definition::Definition;
#[cfg(feature = "train")]
pub(in crate::ops) use definition::Runs;
pub(in crate::ops) use gradients::InputGradients;
pub(in crate::ops) use output::{Output, only};
pub(in crate::ops) use run::apply;
pub(in crate::ops) use step::{CpuKernel, Keep, OnTensor, Passed, Step};
pub use tape::{leaf, recomputed, recorded, without_graph};
pub(in crate::ops) use token::on_every_device;
