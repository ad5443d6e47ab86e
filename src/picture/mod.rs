//! Pictures of maps and of their errors, in the colours people know; legends; panels of several.

mod colour;
mod errors;
mod legend;
mod map;
mod overlay;
mod panel;
mod png;
mod text;

pub use crate::sample::class_colour;
pub use colour::Ramp;
pub use errors::{error_legend, error_picture};
pub use legend::Legend;
pub use map::{DepthRange, MapColours, photo_picture, picture, ramp_picture};
pub use overlay::overlay;
pub use panel::{Panel, PanelRow};
pub use png::save_png;
pub(crate) use png::{encode_png, write_png};
