//! Images of several sizes in one batch: padded to one size, each one's own region remembered.

use super::{Batch, IGNORE, IMAGENET_MEAN, Sample};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Samples of several sizes as one batch, padded on the right and at the bottom to the largest height and width among them.
///
/// Images are padded with ImageNet's mean, which normalising turns to zero, labels with [`IGNORE`], which no loss or metric counts.
/// An image's outputs are not those that it has alone: its windows at the border, the filters that read the whole map and the
/// prompts see the padding. Sizes that are alike keep that small.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::Sample;
/// use tadformer::sample::PaddedBatch;
/// let image = |h, w| Tensor::rand(0f32, 1., (3, h, w), &Device::Cpu).map(Sample::of_image);
/// let padded = PaddedBatch::stack(&[image(40, 64)?, image(48, 56)?], DType::F32, &Device::Cpu)?;
/// assert_eq!(padded.batch.images.dims(), [2, 3, 48, 64]);
/// let maps = padded.crop(&padded.batch.images)?; // a model's outputs as well
/// assert_eq!((maps[0].dims(), maps[1].dims()), (&[3, 40, 64][..], &[3, 48, 56][..]));
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PaddedBatch {
    /// The samples, all of one size.
    pub batch: Batch,
    /// Height and width of each image before it was padded: the upper left of its map is its own.
    pub sizes: Vec<(usize, usize)>,
}

impl PaddedBatch {
    /// Pads the samples and stacks them as [`Batch::stack`] does.
    ///
    /// # Errors
    /// As there, but for the sizes; an image that is not `[3, H, W]`, or a label of another size than its image.
    pub fn stack(samples: &[Sample], dtype: DType, device: &Device) -> Result<Self> {
        let sizes = samples.iter().map(Sample::size).collect::<Result<Vec<_>>>()?;
        let most = |side: fn(&(usize, usize)) -> usize| sizes.iter().map(side).max().unwrap_or_default();
        let largest = (most(|size| size.0), most(|size| size.1));
        let padded = samples.iter().map(|sample| pad(sample, largest)).collect::<Result<Vec<_>>>()?;
        Ok(Self { batch: Batch::stack(&padded, dtype, device)?, sizes })
    }

    /// Each image's own part of maps of the padded size: `[B, c, H, W]` to B times `[c, h, w]`.
    ///
    /// # Errors
    /// Maps of another size or number than the batch's images.
    pub fn crop(&self, maps: &Tensor) -> Result<Vec<Tensor>> {
        let (b, _, h, w) = self.batch.images.dims4()?;
        if !matches!(maps.dims(), [n, _, y, x] if (*n, *y, *x) == (b, h, w)) {
            let expected = format!("[{b}, c, {h}, {w}], of the padded batch");
            return Err(Error::Shape { what: "maps to crop".into(), expected, got: maps.dims().into() });
        }
        let own = |(i, (h, w)): (usize, &(usize, usize))| maps.get(i)?.narrow(1, 0, *h)?.narrow(2, 0, *w);
        Ok(self.sizes.iter().enumerate().map(own).collect::<candle_core::Result<_>>()?)
    }
}

fn pad(sample: &Sample, size: (usize, usize)) -> Result<Sample> {
    let mean = Tensor::new(&IMAGENET_MEAN, sample.image.device())?;
    let image = filled(&sample.float_image()?, size, &mean)?;
    let label = |(name, label): (&String, &Tensor)| {
        let ignore = Tensor::full(IGNORE, label.dim(0)?, label.device())?;
        Ok((name.clone(), filled(label, size, &ignore)?))
    };
    Ok(Sample { image, labels: sample.labels.iter().map(label).collect::<Result<_>>()? })
}

/// `[c, h, w]` in the upper left of `[c, H, W]`, and one value a channel in the rest.
fn filled(map: &Tensor, (height, width): (usize, usize), rest: &Tensor) -> candle_core::Result<Tensor> {
    let (c, h, w) = map.dims3()?;
    let rest = rest.to_dtype(map.dtype())?.reshape((c, 1, 1))?;
    let right = rest.broadcast_as((c, h, width - w))?;
    let below = rest.broadcast_as((c, height - h, width))?;
    Tensor::cat(&[Tensor::cat(&[map.clone(), right], 2)?, below], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn sample(h: usize, w: usize) -> Sample {
        let map = |c: usize, value: f32| Tensor::full(value, (c, h, w), &Device::Cpu).unwrap();
        let labels = BTreeMap::from([("depth".to_owned(), map(1, 2.0)), ("normals".to_owned(), map(3, 0.5))]);
        Sample { image: map(3, 0.25), labels }
    }

    fn stack(samples: &[Sample]) -> Result<PaddedBatch> {
        PaddedBatch::stack(samples, DType::F32, &Device::Cpu)
    }

    #[test]
    fn images_are_padded_with_what_normalises_to_zero_and_labels_with_what_is_ignored() -> Result<()> {
        let padded = stack(&[sample(2, 5), sample(4, 3)])?;
        assert_eq!(padded.sizes, [(2, 5), (4, 3)]);
        let images = &padded.batch.images;
        assert_eq!(images.dims(), [2, 3, 4, 5]);
        let depth = padded.batch.labels["depth"].squeeze(1)?.to_vec3::<f32>()?;
        let red = images.narrow(1, 0, 1)?.squeeze(1)?.to_vec3::<f32>()?;
        for (i, (h, w)) in [(2, 5), (4, 3)].into_iter().enumerate() {
            for (y, x) in (0..4).flat_map(|y| (0..5).map(move |x| (y, x))) {
                let own = y < h && x < w;
                assert_eq!(depth[i][y][x], if own { 2.0 } else { IGNORE });
                assert_eq!(red[i][y][x] == 0.0, !own);
            }
        }
        assert_eq!(padded.batch.labels["normals"].dims(), [2, 3, 4, 5]);
        Ok(())
    }

    #[test]
    fn what_is_cropped_is_what_was_padded() -> Result<()> {
        let samples = [sample(2, 5), sample(4, 3)];
        let padded = stack(&samples)?;
        for (cropped, sample) in padded.crop(&padded.batch.labels["normals"])?.iter().zip(&samples) {
            assert_eq!(cropped.to_vec3::<f32>()?, sample.labels["normals"].to_vec3::<f32>()?);
        }
        let message = padded.crop(&Tensor::zeros((2, 1, 4, 4), DType::F32, &Device::Cpu)?).unwrap_err().to_string();
        assert!(message.contains("[2, c, 4, 5]") && message.contains("[2, 1, 4, 4]"), "{message}");
        Ok(())
    }

    #[test]
    fn samples_of_one_size_are_stacked_as_they_are() -> Result<()> {
        let samples = [sample(3, 4), sample(3, 4)];
        let (padded, plain) = (stack(&samples)?.batch, Batch::stack(&samples, DType::F32, &Device::Cpu)?);
        let values = |batch: &Batch| batch.images.flatten_all()?.to_vec1::<f32>();
        assert_eq!(values(&padded)?, values(&plain)?);
        Ok(())
    }

    #[test]
    fn what_cannot_be_padded_is_refused() {
        let message = |samples: &[Sample]| stack(samples).map(drop).unwrap_err().to_string();
        assert!(message(&[]).contains("at least one sample"));
        let grey = Sample::of_image(Tensor::zeros((1, 4, 4), DType::F32, &Device::Cpu).unwrap());
        assert!(message(&[grey]).contains("expected shape [3, H, W], got [1, 4, 4]"));
        let mut other = sample(4, 4);
        other.image = sample(4, 5).image;
        assert!(message(&[other]).contains("label `depth`: expected shape [c, 4, 5], as its image, got [1, 4, 4]"));
    }
}
