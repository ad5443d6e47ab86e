//! How many pixels are read from a file: a few hundred bytes can announce billions of them.

use crate::{Error, Result};
use std::path::Path;

/// The most pixels that a photo or label is read with where no other limit is given: 100 megapixels.
///
/// A photo of so many takes 0.1 to 0.8 GB while it is decoded, a progressive JPEG up to 1.2, a label 0.1 to 0.3.
/// [`read_photo_within`](super::read_photo_within), [`read_photo_bytes_within`](super::read_photo_bytes_within),
/// [`read_label_within`](super::read_label_within) and [`Predictor::with_pixel_limit`](crate::Predictor::with_pixel_limit) take
/// another limit.
pub const PIXEL_LIMIT: u64 = 100_000_000;

/// No side is longer, however few pixels there are: rows are held whole, and resized as such.
pub(super) const LONGEST_SIDE: u32 = 1 << 20;

/// Refuses a size before any of its pixels is decoded.
pub(super) fn check_size(path: &Path, (width, height): (u32, u32), limit: u64) -> Result<()> {
    let refuse = |why: String, cure: &str| Err(Error::file(path, format!("{width} x {height} pixels, {why}"), cure));
    if u64::from(width) * u64::from(height) > limit {
        let cure =
            "make it smaller, or raise the limit: read_photo_within, read_label_within, Predictor::with_pixel_limit";
        return refuse(format!("more than the limit of {limit}"), cure);
    }
    if width.max(height) > LONGEST_SIDE {
        return refuse(format!("a side of more than {LONGEST_SIDE}"), "cut it into pieces");
    }
    Ok(())
}
