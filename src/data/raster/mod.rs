//! Resizing and turning of maps, as training data are made: values and roundings are those of OpenCV 4, so that a recipe that was
//! published with it gives the same pixels here.
//!
//! | | nearest | cubic, a = -0.75 |
//! | --- | --- | --- |
//! | [`resize_nearest`], [`resize_cubic`] | source `floor(i n / m)`, not centred | half-pixel centres, the rim repeated, no smoothing before shrinking |
//! | [`Warp`] | the nearest pixel | 32 places between two pixels, 0 outside |
//!
//! Own code, since the crates for it mean other filters: `fast_image_resize` leaves taps beyond the rim out instead of repeating the rim,
//! `imageproc` warps by another cubic (a = -0.5), at exact coordinates, and not at all where one of the taps lies outside.

mod cubic;
mod gather;
mod planes;
mod resize;
mod warp;

pub(super) use gather::gather;
pub(super) use planes::Planes;
pub(super) use resize::{nearest_of, resize_cubic, resize_nearest};
pub(super) use warp::Warp;
