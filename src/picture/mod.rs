//! Pictures of maps, in the colours people know, and panels of several.

mod colour;
mod map;
mod panel;

pub use colour::{class_colour, depth_colour};
pub use map::{DepthRange, picture};
pub use panel::Panel;
