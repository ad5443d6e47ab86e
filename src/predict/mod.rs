//! Floor 5: from a photo to each task's map at the photo's own size.

mod decode;
mod predictor;

pub use decode::decode;
pub use predictor::{Prediction, Predictor};
