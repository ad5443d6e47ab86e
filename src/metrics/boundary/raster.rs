//! A map as a slice with its size.

use crate::{Error, Result};

/// The values of a map `[H, W]`, row by row.
#[derive(Clone, Copy, Debug)]
pub struct Raster<'a, T> {
    values: &'a [T],
    height: usize,
    width: usize,
}

impl<'a, T> Raster<'a, T> {
    /// The values of a map of this height and width.
    ///
    /// # Errors
    /// Another number of values than pixels; 2^32 - 1 pixels or more.
    pub fn new(values: &'a [T], [height, width]: [usize; 2]) -> Result<Self> {
        let fits = height.checked_mul(width).filter(|pixels| *pixels == values.len() && *pixels < u32::MAX as usize);
        match fits {
            Some(_) => Ok(Self { values, height, width }),
            None => Err(Error::Shape {
                what: "values of a map".into(),
                expected: format!("[{height} * {width}], fewer than 2^32 - 1"),
                got: vec![values.len()],
            }),
        }
    }

    /// The values, row by row.
    pub fn values(&self) -> &'a [T] {
        self.values
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }
}
