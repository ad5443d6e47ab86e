//! From a photo to each task's map at the photo's own size.

#[cfg(feature = "data")]
mod npy;
#[cfg(feature = "data")]
mod predictor;

pub use crate::decode::decode;
#[cfg(feature = "data")]
pub use predictor::{Prediction, Predictor};
