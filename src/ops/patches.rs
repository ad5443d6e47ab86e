//! Images to patches, and 2 x 2 neighbours to one token.

use candle_core::{Result, Tensor};

/// Cuts an image into `p` x `p` patches, row by row, padding it with zeros on the right and bottom to whole ones.
///
/// # Shapes
/// `[B, 3, H, W]` to `[B, h*w, 3*p*p]` and the map's size (h, w); a patch's values are in a convolution weight's order.
pub fn split_patches(images: &Tensor, p: usize) -> Result<(Tensor, (usize, usize))> {
    let (b, c, height, width) = images.dims4()?;
    let (h, w) = (height.div_ceil(p), width.div_ceil(p));
    let x = images.pad_with_zeros(2, 0, h * p - height)?.pad_with_zeros(3, 0, w * p - width)?;
    let x = x.reshape(&[b, c, h, p, w, p][..])?.permute(&[0usize, 2, 4, 1, 3, 5][..])?;
    Ok((x.reshape((b, h * w, c * p * p))?, (h, w)))
}

/// Concatenates the channels of 2 x 2 neighbours in the order (0,0), (1,0), (0,1), (1,1) of (row, column), padding odd maps with zeros.
///
/// # Shapes
/// `[B, H*W, C]` to `[B, ceil(H/2)*ceil(W/2), 4C]` and the new size.
pub fn merge_patches(x: &Tensor, size: (usize, usize)) -> Result<(Tensor, (usize, usize))> {
    let (b, _, c) = x.dims3()?;
    let (h, w) = (size.0.div_ceil(2), size.1.div_ceil(2));
    let x = x.reshape((b, size.0, size.1, c))?;
    let x = x.pad_with_zeros(1, 0, size.0 % 2)?.pad_with_zeros(2, 0, size.1 % 2)?;
    let x = x.reshape(&[b, h, 2, w, 2, c][..])?.permute(&[0usize, 1, 3, 4, 2, 5][..])?; // [B, h, w, column, row, C]
    Ok((x.reshape((b, h * w, 4 * c))?, (h, w)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};
    use candle_core::Device;

    #[test]
    fn neighbours_come_column_by_column() -> Result<()> {
        let x = Tensor::arange(0f64, 6., &Device::Cpu)?.reshape((1, 6, 1))?; // a 2 x 3 map, padded to 2 x 4
        let (merged, size) = merge_patches(&x, (2, 3))?;
        assert_eq!(size, (1, 2));
        assert_eq!(merged.to_vec3::<f64>()?[0], [[0., 3., 1., 4.], [2., 5., 0., 0.]]);
        check(&[&normal(1, &[1, 15, 2])?], |v| Ok(merge_patches(&v[0], (3, 5))?.0))
    }

    #[test]
    fn patches_times_a_weight_equal_a_strided_convolution() -> Result<()> {
        let (x, weight) = (normal(1, &[2, 3, 8, 12])?, normal(2, &[5, 3, 4, 4])?);
        let (patches, size) = split_patches(&x, 4)?;
        assert_eq!(size, (2, 3));
        let got = crate::ops::linear(&patches, &weight.reshape((5, 48))?, None)?;
        let want = x.conv2d(&weight, 0, 4, 1, 1)?.flatten_from(2)?.transpose(1, 2)?;
        close(&got, &want, 1e-12)?;
        check(&[&normal(1, &[1, 2, 3, 5])?], |v| Ok(split_patches(&v[0], 2)?.0))
    }
}
