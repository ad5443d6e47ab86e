//! A PNG file of any form that labels and images have.

use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};
use std::io::{self, Write};

/// What a PNG file is written of.
pub(super) struct PngFile {
    /// Width and height.
    pub size: (u32, u32),
    pub colour: ColorType,
    pub depth: BitDepth,
    /// Red, green and blue by index.
    pub palette: Vec<u8>,
    /// Row by row, a pixel's channels together; numbers of 16 bits with the high byte first.
    pub bytes: Vec<u8>,
}

impl PngFile {
    /// # Errors
    /// A writer that fails.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut encoder = Encoder::new(to, self.size.0, self.size.1);
        encoder.set_color(self.colour);
        encoder.set_depth(self.depth);
        encoder.set_compression(Compression::Balanced);
        if self.colour == ColorType::Indexed {
            encoder.set_palette(&self.palette);
        }
        let mut writer = encoder.write_header().map_err(io_error)?;
        writer.write_image_data(&self.bytes).map_err(io_error)?;
        writer.finish().map_err(io_error)
    }
}

fn io_error(error: EncodingError) -> io::Error {
    match error {
        EncodingError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
