//! Pictures to files.

use crate::files::write_atomically;
use crate::{Error, Result};
use image::RgbImage;
use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};
use std::io::{self, Write};
use std::path::Path;

/// Writes a PNG file as a whole or not at all.
///
/// # Errors
/// An empty picture; a folder or disk that cannot be written to.
pub fn save_png(picture: &RgbImage, path: &Path) -> Result<()> {
    write_png(path, picture.dimensions(), |pixels| pixels.write_all(picture.as_raw()))
}

/// Writes a PNG file of which only a few rows are in memory: `content` gives red, green and blue, pixel after pixel.
pub(crate) fn write_png(
    path: &Path,
    (width, height): (u32, u32),
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::file(path, format!("a picture of {width} x {height}"), "draw at least a pixel"));
    }
    write_atomically(path, |file| encode_png(file, (width, height), content))
}

/// A PNG of sides of at least 1, to anything that takes bytes.
pub(crate) fn encode_png(
    to: &mut dyn Write,
    (width, height): (u32, u32),
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut encoder = Encoder::new(to, width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    let mut writer = encoder.write_header().map_err(io_error)?;
    let mut pixels = writer.stream_writer_with_size(1 << 16).map_err(io_error)?;
    content(&mut pixels)?;
    pixels.finish().map_err(io_error)?;
    writer.finish().map_err(io_error)
}

fn io_error(error: EncodingError) -> io::Error {
    match error {
        EncodingError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
