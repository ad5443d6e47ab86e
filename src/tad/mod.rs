//! The paper's modules, TADFormer (arXiv 2501.04293).
//!
//! Each is useful alone; together they make the [`Encoder`]. B images, T tasks, l prompts a task, P = T*l, r rank. TPC is the paper's
//! task-prompt conditional operator, which [`TADBlock`] spells out; what it gives is the TPC feature.

mod block;
mod encoder;
mod filter;
mod inspect;
mod method;
mod prompt;
mod stage;
mod stage_end;
mod task_aware;
mod view;

pub use crate::ops::TpcReading;
pub use block::{TADBlock, TaskTokens};
pub use encoder::{Encoder, StageOutput};
pub use filter::{DynamicTaskFilter, StaticTaskFilter, TaskFilter};
pub(crate) use method::MOST_PROMPTS;
pub use method::{AdaptedLinear, Gate, LinearAdapter, LowRank, Method, PerTask, Prompts, TaskFilterKind, TaskPaths};
pub use prompt::TaskPrompt;
pub use stage::TADStage;
pub use task_aware::TaskAwareLinear;
pub use view::{FilterView, StageView};
