//! A map of tokens with its height and width.

use candle_core::{Result, Tensor};

/// Tokens of a map, row by row.
#[derive(Clone, Debug)]
pub struct FeatureMap {
    /// `[B, h*w, C]`.
    pub tokens: Tensor,
    /// Height and width, in tokens.
    pub size: (usize, usize),
}

impl FeatureMap {
    /// As an image with C channels: `[B, C, h, w]`.
    ///
    /// # Errors
    /// Tokens that are not `h*w` of `size`.
    pub fn to_nchw(&self) -> Result<Tensor> {
        let (b, _, c) = self.tokens.dims3()?;
        self.tokens.transpose(1, 2)?.reshape((b, c, self.size.0, self.size.1))
    }

    /// From an image with C channels.
    ///
    /// # Errors
    /// A tensor of other than four dimensions.
    pub fn from_nchw(x: &Tensor) -> Result<Self> {
        let (_, _, h, w) = x.dims4()?;
        Ok(Self { tokens: x.flatten_from(2)?.transpose(1, 2)?, size: (h, w) })
    }
}
