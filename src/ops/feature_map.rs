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
        self.to_nhwc()?.permute((0, 3, 1, 2))?.contiguous()
    }

    /// As an image with its channels last: `[B, h, w, C]`.
    ///
    /// # Errors
    /// Tokens that are not `h*w` of `size`.
    pub fn to_nhwc(&self) -> Result<Tensor> {
        let (h, w) = self.size;
        match *self.tokens.dims() {
            [b, n, c] if h.checked_mul(w) == Some(n) => self.tokens.reshape((b, h, w, c)),
            ref dims => {
                candle_core::bail!("feature-map: expected [B, N, C] tokens of a map of {:?}, got {dims:?}", self.size)
            }
        }
    }

    /// From an image with C channels.
    ///
    /// # Errors
    /// A tensor of other than four dimensions.
    pub fn from_nchw(x: &Tensor) -> Result<Self> {
        let [_, _, h, w] = *x.dims() else {
            candle_core::bail!("feature-map: expected an image [B, C, h, w], got {:?}", x.dims())
        };
        Ok(Self { tokens: x.flatten_from(2)?.transpose(1, 2)?, size: (h, w) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{close, normal};

    #[test]
    fn images_and_tokens_are_two_ways_to_lay_out_a_map() -> Result<()> {
        let image = normal(1, &[2, 3, 4, 5])?;
        let map = FeatureMap::from_nchw(&image)?;
        close(&map.to_nchw()?, &image, 0.0)?;
        close(&map.to_nhwc()?, &image.permute((0, 2, 3, 1))?, 0.0)?;
        for size in [(4, 6), (usize::MAX, 2)] {
            let map = FeatureMap { size, ..map.clone() };
            assert!(map.to_nchw().unwrap_err().to_string().contains("got [2, 20, 3]"), "{size:?}");
        }
        Ok(())
    }
}
