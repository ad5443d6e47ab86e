//! A bounded reader of pickles that executes nothing.
//!
//! candle's own reader clones memoised values deeply, panics on some malformed arguments and stops at objects it does not know,
//! which real training checkpoints hold; so every `.pth` and `.bin` goes through this one.
//!
//! Values live in one arena and refer to each other by index: sharing costs nothing, cycles do no harm, and nothing recurses.

mod json;
mod machine;
mod read;
mod value;

pub(super) use json::json;
pub(super) use value::{Id, Pickle, Value};
