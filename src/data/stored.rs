//! The numbers of a PNG file as they are stored.

use super::pixel_limit::check_size;
use crate::files::open_regular;
use crate::{Error, Result};
use png::ColorType;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// The numbers of a PNG as they are stored: no palette, no scale applied.
pub(super) struct Stored {
    pub path: PathBuf,
    pub width: usize,
    pub height: usize,
    pub colour: ColorType,
    pub bits: usize,
    /// Row by row, a pixel's channels together; two bytes for a number of 16 bits, the high one first, and one for any other.
    pub bytes: Vec<u8>,
    /// Red, green and blue by index; empty where the file has none.
    pub palette: Vec<[u8; 3]>,
}

impl Stored {
    /// Reads a file of at most so many pixels.
    ///
    /// # Errors
    /// A file that cannot be read, is no PNG, or announces more.
    pub fn read(path: &Path, pixels: u64) -> Result<Self> {
        let damaged = |e: png::DecodingError| Error::file(path, format!("no label: {e}"), "labels are PNG files");
        let mut decoder = png::Decoder::new(BufReader::new(open_regular(path)?));
        check_size(path, decoder.read_header_info().map_err(damaged)?.size(), pixels)?;
        let mut reader = decoder.read_info().map_err(damaged)?;
        let palette = reader.info().palette.as_deref().unwrap_or_default().as_chunks().0.to_vec();
        let too_large = || Error::file(path, "a label that no memory holds", "make the label smaller");
        let mut bytes = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
        let frame = reader.next_frame(&mut bytes).map_err(damaged)?;
        let (width, height, bits) = (frame.width as usize, frame.height as usize, frame.bit_depth as usize);
        let samples = width * frame.color_type.samples();
        bytes.truncate(frame.line_size * height);
        if bits < 8 {
            let lines = bytes.chunks_exact(frame.line_size);
            bytes = lines.flat_map(|line| (0..samples).map(move |i| sample(line, i, bits))).collect();
        }
        Ok(Self { path: path.to_owned(), width, height, colour: frame.color_type, bits, bytes, palette })
    }

    /// Whether each number can be a class: of a palette or a grey of at most 8 bits.
    pub fn is_of_classes(&self) -> bool {
        matches!((self.colour, self.bits), (ColorType::Grayscale | ColorType::Indexed, ..=8))
    }

    /// What the file holds, in words: "8-bit palette".
    pub fn form(&self) -> String {
        let colour = match self.colour {
            ColorType::Grayscale => "grey",
            ColorType::Indexed => "palette",
            ColorType::Rgb => "RGB",
            ColorType::GrayscaleAlpha => "grey with alpha",
            ColorType::Rgba => "RGB with alpha",
        };
        format!("{}-bit {colour}", self.bits)
    }
}

/// The i-th number of a line of fewer than 8 bits each, the most significant first.
fn sample(line: &[u8], i: usize, bits: usize) -> u8 {
    let first = i * bits;
    line[first / 8] >> (8 - bits - first % 8) & ((1 << bits) - 1)
}
