//! Pictures of maps, in the colours people know, and panels of several.

mod colour;
mod map;
mod panel;
mod png;

pub use crate::sample::class_colour;
pub use colour::depth_colour;
pub(crate) use map::colour;
pub use map::{DepthRange, photo_picture, picture};
pub use panel::Panel;
pub use png::save_png;
pub(crate) use png::{encode_png, write_png};
