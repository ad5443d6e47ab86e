//! Images to patches, and 2 x 2 neighbours to one token.

use crate::ops::cpu::{Real, for_rows, values};
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};

/// Cuts an image into `p` x `p` patches, row by row, padding it with zeros on the right and bottom to whole ones.
///
/// # Shapes
/// `[B, 3, H, W]` to `[B, h*w, 3*p*p]` and the map's size (h, w); a patch's values are in a convolution weight's order.
///
/// # Errors
/// Images of other than four dimensions or without values; a p of 0, or one whose patches memory has no room for.
pub(crate) fn split_patches(images: &Tensor, p: usize) -> Result<(Tensor, (usize, usize))> {
    let step = SplitPatches { images: images.clone(), p };
    let patches = only(apply(step.clone())?)?;
    Ok((patches, step.size()?))
}

#[derive(Clone)]
struct SplitPatches {
    images: Tensor,
    p: usize,
}

impl SplitPatches {
    /// The map's size, in patches.
    fn size(&self) -> Result<(usize, usize)> {
        let (_, _, height, width) = self.images.dims4()?;
        Ok((height.div_ceil(self.p), width.div_ceil(self.p)))
    }
}

impl Step for SplitPatches {
    fn name(&self) -> &'static str {
        "split-patches"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { images: f(&self.images)?, ..*self })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([b, c, _, _], p) = (shapes.sizes("images", &self.images)?, self.p);
        shapes.result(&[c, p, p])?;
        let (h, w) = self.size()?;
        shapes.result(&[b, h, w, c, p, p])
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let ((b, c, height, width), (h, w), p) = (self.images.dims4()?, self.size()?, self.p);
        let x = self.images.pad_with_zeros(2, 0, h * p - height)?.pad_with_zeros(3, 0, w * p - width)?;
        let x = x.reshape(&[b, c, h, p, w, p][..])?.permute(&[0usize, 2, 4, 1, 3, 5][..])?;
        Ok(vec![x.reshape((b, h * w, c * p * p))?])
    }
}

impl<T: Real> CpuKernel<T> for SplitPatches {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let ((b, c, height, width), (h, w), p) = (self.images.dims4()?, self.size()?, self.p);
        let (x, len) = (values::<T>(&self.images)?, c * p * p);
        let (x, mut patches) = (&*x, vec![T::zero(); b * h * w * len]);
        for_rows(&mut patches, len, |first, patches| {
            for (i, patch) in patches.chunks_exact_mut(len).enumerate() {
                let (rest, left) = ((first + i) / w, (first + i) % w * p);
                let (image, top) = (rest / h, rest % h * p);
                let taken = p.min(width - left);
                for (i, row) in patch.chunks_exact_mut(p).enumerate() {
                    let (channel, y) = (i / p, top + i % p);
                    if y < height {
                        let start = ((image * c + channel) * height + y) * width + left;
                        row[..taken].copy_from_slice(&x[start..][..taken]);
                    }
                }
            }
        });
        Ok((vec![Output::new(patches, (b, h * w, len))], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let ((b, c, height, width), (h, w), p) = (self.images.dims4()?, self.size()?, self.p);
        let dx = dy.reshape(&[b, h, w, c, p, p][..])?.permute(&[0usize, 3, 1, 4, 2, 5][..])?;
        let dx = dx.reshape((b, c, h * p, w * p))?.narrow(2, 0, height)?.narrow(3, 0, width)?;
        grads.give(&self.images, dx.contiguous()?)
    }
}

/// Concatenates the channels of 2 x 2 neighbours in the order (0,0), (1,0), (0,1), (1,1) of (row, column), padding odd maps with zeros.
///
/// # Shapes
/// `[B, H*W, C]` to `[B, ceil(H/2)*ceil(W/2), 4C]` and the new size.
///
/// # Errors
/// Tokens of another number than `size` says.
pub(crate) fn merge_patches(x: &Tensor, size: (usize, usize)) -> Result<(Tensor, (usize, usize))> {
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
    use crate::ops::Definition;
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

    #[test]
    fn fused_and_composed_patches_agree() -> Result<()> {
        for (dims, p, size) in [([2, 3, 8, 12], 4, (2, 3)), ([3, 2, 7, 5], 4, (2, 2)), ([1, 1, 1, 1], 3, (1, 1))] {
            let x = normal(1, &dims)?;
            for x in [&x, &x.transpose(2, 3)?.contiguous()?.transpose(2, 3)?] {
                let [fused, composed] = Definition::ALL.map(|definition| definition.run(|| split_patches(x, p)));
                let ((fused, fused_size), (composed, composed_size)) = (fused?, composed?);
                assert_eq!((fused_size, composed_size), (size, size));
                close(&fused, &composed, 0.0)?;
            }
        }
        Ok(())
    }
}
