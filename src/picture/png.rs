//! Pictures to files.

use crate::files::write_atomically;
use crate::{Error, Result};
use image::{ImageFormat, RgbImage};
use std::path::Path;

/// Writes a PNG file as a whole or not at all.
///
/// # Errors
/// An empty picture; a folder or disk that cannot be written to.
pub fn save_png(picture: &RgbImage, path: &Path) -> Result<()> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let encoded = picture.write_to(&mut bytes, ImageFormat::Png);
    encoded.map_err(|e| Error::file(path, e, "the picture is empty or too large for a PNG"))?;
    write_atomically(path, |file| file.write_all(bytes.get_ref()))
}
