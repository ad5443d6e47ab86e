//! The loop, its optimizer and schedule; it never knows how samples are read.

mod adamw;
mod evaluate;
mod gradients;
mod history;
mod output;
mod progress;
mod schedule;
mod trainer;

pub use adamw::{AdamW, AdamWConfig};
#[cfg(feature = "data")]
pub use evaluate::{ComparedAt, EdgeScoring, ImageEvaluation, ImageOptions, ImageScores, evaluate_images};
pub use evaluate::{Evaluation, evaluate, evaluate_constant};
pub use gradients::Gradients;
pub use history::{History, StepRecord};
pub use progress::{Observer, ProgressBar, Silent};
pub use schedule::Schedule;
pub use trainer::{Ending, TrainConfig, TrainReport, Trainer};
